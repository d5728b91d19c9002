"""Save masks of frames: what was rejected for its neighborhood, a file for each frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from stacklib.errors import SaveError
from stacklib.frames.finding import expanded
from stacklib.frames.frame_masks import mask_names
from stacklib.frames.frame_set import FrameSet
from stacklib.output.integrated_image import IntegratedImage
from stacklib.spatial.means import ABOVE, LARGE_HIGH, LARGE_LOW, MEANS
from stacklib.utils.file_sets import existing_folder, name_all, workroom

__all__ = ["masked_frames", "masks_of", "save_masks"]


def masked_frames(result: IntegratedImage) -> list[int]:
    """Return the numbers of the frames with masked samples."""
    return [] if result.masks is None else sorted({i for i, _ in result.masks})


def masks_of(result: IntegratedImage) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the masks of a result as `save_masks` takes them."""
    if result.masks is not None:
        for i in masked_frames(result):
            yield i, result.masks.frame(i, result.preparation.frames.channels)


def save_masks(folder: str | Path, masks: Iterable[tuple[int, np.ndarray]], frames: FrameSet) -> list[Path]:
    """Save masks of frames, all or none, without overwriting anything.

    Parameters
    ----------
    folder : str or Path
        Folder for the files, created if needed.
    masks : iterable of (int, ndarray of uint8, shape (channels, height, width))
        Number of a frame and its mask, see `stacklib.spatial.means`. A mask without any flag gets no file.
    frames : FrameSet
        The frames.

    Returns
    -------
    list of Path
        The files. Rows are in the order of those of the frames.

    Raises
    ------
    SaveError
        If a file exists or cannot be written. Then there are none.
    """
    # Here, because few runs write FITS, and astropy takes long to import.
    from stacklib.formats import fits

    folder = expanded(folder).absolute()
    names = mask_names(frames.names)
    cards = _legend()
    with existing_folder(folder), workroom(folder) as room:
        pairs = []
        for i, mask in masks:
            if not mask.any():
                continue
            final = folder / f"{names[i]}.fits"
            if final.exists():
                raise SaveError(f"{final}: already exists; choose another folder for the masks")
            card = ("FRAME", frames[i].name, "masked frame")
            staged = fits.write_mask(room / final.name, mask, [card, *cards], row_order=frames.row_order)
            pairs.append((staged, final))
        if pairs and not name_all(pairs):
            raise SaveError(f"{folder}: another program writes masks there; choose another folder")
    return [final for _, final in pairs]


def _legend() -> list[tuple[str, str, str]]:
    """Return keywords that tell what the bits of a mask mean."""
    words = {
        flag: means.words for means in MEANS for flag in (1 << bit for bit in range(8)) if means.flags & flag
    }
    words[LARGE_LOW] += ", too dark"
    words[LARGE_HIGH] += ", too bright"
    words[ABOVE] = "above the other frames"
    return [(f"BIT{flag.bit_length() - 1}", text, f"value {flag}") for flag, text in words.items()]
