"""Masks of frames: which file belongs to which frame, and how it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from stacklib.errors import FrameError, RecipeError
from stacklib.frames.finding import ENDINGS, natural_order, resolve_path, stem_of
from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import FrameSet
from stacklib.utils.labels import counted, listed

__all__ = ["mask_files", "mask_names", "open_masks", "read_mask"]

#: End of the name of a mask, before the ending.
MASK = "_mask"
#: Threads that open headers.
OPENERS = 8


def mask_names(names: Sequence[str]) -> list[str]:
    """Return the name of the mask of each frame, without ending, such as ``light_001_mask``.

    `names` are those of `FrameSet.names`. Where two frames would get the same name, folder and ending are
    part of it. A mask keeps its name when other frames are left out, unless that was the reason.
    """
    stems = [stem_of(Path(name)) for name in names]
    known = Counter(stem.lower() for stem in stems)
    whole = [name.replace("/", "_").replace(":", "_") for name in names]
    return [
        (stem if known[stem.lower()] == 1 else full) + MASK for stem, full in zip(stems, whole, strict=True)
    ]


def open_masks(where: str | Sequence[str], frames: FrameSet) -> dict[int, Frame]:
    """Open the masks of frames.

    Parameters
    ----------
    where : str or list of str
        A folder, or the files. In a folder, all images count. A mask is named after its frame, with or
        without ``_mask`` at the end.
    frames : FrameSet
        The frames.

    Returns
    -------
    dict
        The masks by number of the frame.

    Raises
    ------
    RecipeError
        If there is no mask, a mask fits no frame, two fit one, or a mask cannot be read or has another size
        than the frames.
    """
    files = mask_files(where)
    expected = mask_names(frames.names)
    # The name of the frame itself is enough.
    by_name = {name.lower(): i for i, name in enumerate(expected)}
    by_name |= {name.removesuffix(MASK).lower(): i for i, name in enumerate(expected)}
    fitting = [by_name.get(stem_of(file).lower()) for file in files]
    others = [file.name for file, i in zip(files, fitting, strict=True) if i is None]
    if others:
        raise RecipeError(
            f"masks: {files[0].parent}: {listed(others, most=3)} fit{'s' * (len(others) == 1)} none of the "
            f"{counted(len(frames), 'frame')}; name a mask after its frame, such as {expected[0]}.fits, and "
            "take out those of other frames"
        )
    twice = [i for i, count in Counter(fitting).items() if count > 1]
    if twice:
        same = [file.name for file, i in zip(files, fitting, strict=True) if i == twice[0]]
        raise RecipeError(f"masks: {listed(same)} are for the same frame; keep one of them")
    with ThreadPoolExecutor(OPENERS) as pool:
        masks = list(pool.map(_open, files))
    for mask in masks:
        _check(mask, frames)
    return {i: mask for i, mask in sorted(zip(fitting, masks, strict=True)) if i is not None}


def read_mask(mask: Frame, frames: FrameSet) -> np.ndarray:
    """Read a mask of a frame.

    Parameters
    ----------
    mask : Frame
        The file, from `open_masks`. Rows in the other order than those of the frames are turned over.
    frames : FrameSet
        The frames.

    Returns
    -------
    ndarray of bool, shape (channels, height, width)
        True for samples that are rejected: those with a value other than 0 and NaN. A mask of one channel
        is that of all. Do not write to it.

    Raises
    ------
    FrameError
        If the file cannot be read, or has changed since it was opened.
    """
    values = mask.read()
    mask.close()
    found = np.nan_to_num(values, copy=False) != 0
    if mask.row_order and frames.row_order and mask.row_order != frames.row_order:
        found = found[:, ::-1]
    return np.broadcast_to(found, frames.shape)


def mask_files(where: str | Sequence[str]) -> list[Path]:
    """Return the files that `open_masks` opens. Raises `RecipeError` if there are none."""
    return [file for place in ([where] if isinstance(where, str) else where) for file in _files(place)]


def _files(where: str) -> list[Path]:
    path = resolve_path(where)
    try:
        is_folder, exists = path.is_dir(), path.exists()
        inside = [file for file in path.iterdir() if not file.name.startswith(".")] if is_folder else []
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"masks: {path}: cannot be read ({error}); give the folder with the masks"
        ) from error
    if not exists:
        raise RecipeError(f"masks: {path}: no such folder or file; give the folder with the masks")
    if not is_folder:
        return [path]
    found = [file for file in inside if file.name.lower().endswith(ENDINGS)]
    if not found:
        raise RecipeError(
            f"masks: {path}: holds no mask; put FRAME_mask.fits into it for each frame with a mask, or leave "
            "masks empty"
        )
    return sorted(found, key=natural_order)


def _open(path: Path) -> Frame:
    try:
        return Frame(path, quiet=True)
    except FrameError as error:
        raise RecipeError(f"masks: {error}") from error


def _check(mask: Frame, frames: FrameSet) -> None:
    expected = f"{frames.width} x {frames.height} pixels of the frames"
    if (mask.height, mask.width) != (frames.height, frames.width):
        raise RecipeError(
            f"masks: {mask.path}: has {mask.width} x {mask.height} pixels, expected the {expected}; make it "
            "from a registered frame"
        )
    if mask.channels not in (1, frames.channels):
        usual = "1 as the frames" if frames.channels == 1 else f"1 or the {frames.channels} of the frames"
        raise RecipeError(f"masks: {mask.path}: has {mask.channels} channels, expected {usual}")
