"""Save drizzle data: what PixInsight's DrizzleIntegration needs to go on with the rejection of a result.

Each used frame gets an ``.xdrz`` file. What registration wrote into the one beside the frame is kept;
location, scale, weights and rejection maps are added.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from stacklib.errors import FrameError, SaveError
from stacklib.formats.xdrz import (
    ENDING,
    LARGE_SCALE_HIGH,
    LARGE_SCALE_LOW,
    RANGE_HIGH,
    RANGE_LOW,
    REJECTED_HIGH,
    REJECTED_LOW,
    DrizzleData,
    read_xdrz,
    write_xdrz,
)
from stacklib.formats.xisf_blocks import Compression, StoredBlock
from stacklib.frames.finding import stem_of
from stacklib.kernel.verdicts import HIGH, LOW, NO_DATA
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.surfaces import basis
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.means import ABOVE, LARGE_HIGH, LARGE_LOW
from stacklib.utils.file_sets import existing_folder, name_all, workroom
from stacklib.utils.labels import counted, listed

if TYPE_CHECKING:
    from stacklib.frames.frame import Frame

__all__ = [
    "DRIZZLE_FOLDER",
    "IN_REPORT",
    "about_drizzle_data",
    "data_beside",
    "drizzle_folder",
    "rejection_bits",
    "save_drizzle_data",
]

#: Folder for drizzle data beside the images.
DRIZZLE_FOLDER = "drizzle"
#: Words of a report that lists them.
IN_REPORT = "drizzle data of"
#: Places along each axis over which a surface is averaged.
PLACES = 64

#: Channel, first row, samples and verdicts of the used frames; see `stacklib.integration.noise.JudgedRows`.
Judged = tuple[int, int, np.ndarray, np.ndarray]


def data_beside(frame: Frame) -> Path:
    """Return the path of the drizzle data that registration writes beside a frame."""
    return frame.path.with_name(stem_of(frame.path) + ENDING)


def rejection_bits(samples: np.ndarray, verdict: np.ndarray, flags: np.ndarray, top: float) -> np.ndarray:
    """Return the bits of a rejection map.

    Large-scale structures have bits of their own. What fell as a trail, a footprint, for its color or to
    a mask of the user counts as rejected high or low: the format has no bits for them.

    Parameters
    ----------
    samples : ndarray of float32
        Samples in the units of the frames.
    verdict : ndarray of uint8
        Verdicts on them, see `stacklib.kernel.verdicts`.
    flags : ndarray of uint8
        What spatial rejection took, see `stacklib.spatial.means`.
    top : float
        Samples from here on are saturated.

    Returns
    -------
    ndarray of uint8
        Bits of `stacklib.formats.xdrz`.
    """
    bits = np.zeros(verdict.shape, np.uint8)
    bits[verdict == HIGH] = REJECTED_HIGH
    bits[verdict == LOW] = REJECTED_LOW
    nothing = verdict == NO_DATA
    bits[nothing] = RANGE_LOW
    bits[nothing & (samples >= top)] = RANGE_HIGH
    taken = flags != 0
    if taken.any():
        bits[taken] = np.where(flags[taken] & ABOVE, REJECTED_HIGH, REJECTED_LOW)
        bits[flags & LARGE_HIGH != 0] = LARGE_SCALE_HIGH
        bits[flags & LARGE_LOW != 0] = LARGE_SCALE_LOW
    return bits


def about_drizzle_data(p: Preparation, known: Mapping[int, DrizzleData] = MappingProxyType({})) -> list[str]:
    """Say what drizzle data cannot hold, or does not know; `known` are frames with a geometry."""
    said = []
    if p.surfaces is not None:
        said.append(
            "Drizzle data hold one location and one scale for each frame, but normalization "
            f"{p.recipe.normalization} matches the background of a frame by a surface: only its mean is in "
            "them, and gradients stay. sl.drizzle with this result applies the surfaces"
        )
    unknown = [
        p.frames[i].name for i in p.used.tolist() if i not in known and not data_beside(p.frames[i]).exists()
    ]
    if unknown:
        said.append(
            f"Of {counted(p.count, 'frame')}, {len(unknown)} without {ENDING} file: "
            f"{listed(unknown, most=3)}. Where their unregistered frames lie is not known, so their drizzle "
            "data name the registered ones, which gain no resolution. Register with drizzle data, or give "
            "the unregistered frames to sl.drizzle, which finds their geometry by the stars"
        )
    if p.frames.row_order == "bottom-up":
        said.append("Drizzle data: the rows of the rejection maps are in the order of the frames, bottom-up")
    return said


def save_drizzle_data(
    folder: Path,
    preparation: Preparation,
    masks: FrameMasks | None,
    bands: Iterable[Judged],
    known: Mapping[int, DrizzleData] = MappingProxyType({}),
) -> list[Path]:
    """Save drizzle data of the used frames, all or none, without overwriting anything.

    Parameters
    ----------
    folder : Path
        Folder for the files, created if needed. They have the names of those beside the frames.
    preparation : Preparation
        The frames, and their numbers.
    masks : FrameMasks or None
        What spatial rejection took, of whole frames.
    bands : iterable
        The verdicts on all samples, from top to bottom in each channel.
    known : mapping of int to DrizzleData
        Geometry of frames, by number. That of the others is in the files beside them.

    Returns
    -------
    list of Path
        The files, in the order of the frames.

    Raises
    ------
    FrameError
        If drizzle data beside a frame are damaged, or of a reference of another size.
    SaveError
        If a file exists or cannot be written.
    """
    size = preparation.frames.shape[1:]
    geometries = [known.get(i) or _beside(preparation.frames[i], *size) for i in preparation.used.tolist()]
    with existing_folder(folder), workroom(folder) as room:
        pairs = []
        completed = _completed(geometries, preparation, _maps(preparation, masks, bands))
        for data, name in zip(completed, file_names(preparation), strict=True):
            pairs.append((write_xdrz(room / name, data), folder / name))
        if not name_all(pairs):
            raise SaveError(f"{folder}: holds drizzle data of these names already; choose another folder")
    return [final for _, final in pairs]


def drizzle_folder(preparation: Preparation, folder: Path, number: int) -> Path:
    """Return the folder for drizzle data, with the number of the result if another took the names."""
    usual = folder / DRIZZLE_FOLDER
    taken = any((usual / name).exists() for name in file_names(preparation))
    return folder / f"{DRIZZLE_FOLDER}_{number:04d}" if taken else usual


def file_names(preparation: Preparation) -> list[str]:
    """Return the names of the files: those of the frames, with a number where two frames have one name."""
    found: list[str] = []
    taken: set[str] = set()
    for frame in preparation.used_frames:
        stem, number = stem_of(frame.path), 1
        name = stem
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        found.append(name + ENDING)
    return found


def _beside(frame: Frame, height: int, width: int) -> DrizzleData:
    """Return what registration knew of a frame; a frame without drizzle data is its own source."""
    path = data_beside(frame)
    if not path.exists():
        own = str(frame.path)
        return DrizzleData(source=own, target=own, width=width, height=height, matrix=np.eye(3))
    found = read_xdrz(path)
    if (found.width, found.height) != (width, height):
        raise FrameError(
            f"{path}: is of a reference of {found.width} x {found.height} pixels, but {frame.name} has "
            f"{width} x {height}; register the frame again"
        )
    return found


def _completed(
    known: list[DrizzleData], p: Preparation, maps: list[list[StoredBlock]]
) -> Iterator[DrizzleData]:
    """Yield the drizzle data with what the integration knows."""
    scale, location, reference = _numbers(p)
    for k, (i, data) in enumerate(zip(p.used, known, strict=True)):
        yield replace(
            data,
            created="",
            location=tuple(location[i].tolist()),
            reference_location=tuple(reference.tolist()),
            scale=tuple(scale[i].tolist()),
            weights=tuple(p.weights[i].tolist()),
            maps=tuple(channel[k] for channel in maps),
        )


def _numbers(p: Preparation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scale and location, (frames, channels), and the location of the reference.

    A sample v is used as ``(v - location) * scale + reference``, in fractions of full scale.
    """
    gain, added = _means_of_surfaces(p)
    scale, offset = p.factor * gain, p.offset + p.factor * added
    reference = np.nan_to_num(p.measurements.location[p.reference])
    with np.errstate(divide="ignore", invalid="ignore"):
        location = np.nan_to_num((reference - offset) / scale)
    full = 1.0 if p.measurements.unit_range else p.measurements.full_scale
    return np.nan_to_num(scale), location / full, reference / full


def _means_of_surfaces(p: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean gain and offset of the surfaces, (frames, channels)."""
    if p.surfaces is None:
        return np.ones_like(p.factor), np.zeros_like(p.factor)
    down, across = (basis(np.linspace(0, size - 1, PLACES), size).mean(axis=0) for size in p.frames.shape[1:])

    def mean(coefficients: np.ndarray) -> np.ndarray:
        # For a mosaic over its colors.
        return np.einsum("a,fcab,b->fc", down, coefficients.mean(axis=(2, 3)), across)

    gain = np.ones_like(p.factor) if p.surfaces.gain is None else mean(p.surfaces.gain)
    return gain, mean(p.surfaces.offset)


def _maps(p: Preparation, masks: FrameMasks | None, bands: Iterable[Judged]) -> list[list[StoredBlock]]:
    """Return the rejection maps of each channel and used frame, compressed band by band."""
    pieces: list[list[list[tuple[bytes, int]]]] = [[[] for _ in p.used] for _ in range(p.frames.channels)]
    for channel, start, samples, verdicts in bands:
        top = p.settings(channel).data_range[1]
        for k, i in enumerate(p.used):
            flags = np.zeros_like(verdicts[k])
            if masks:
                flags = masks.flags(int(i), channel, start, start + len(flags))
            bits = rejection_bits(samples[k], verdicts[k], flags, top)
            pieces[channel][k].append((zlib.compress(bits.tobytes(), 1), bits.size))
    return [
        [_block(p.frames[int(i)].path, parts) for i, parts in zip(p.used, one, strict=True)] for one in pieces
    ]


def _block(path: Path, parts: list[tuple[bytes, int]]) -> StoredBlock:
    content = b"".join(packed for packed, _ in parts)
    subblocks = tuple((len(packed), size) for packed, size in parts)
    return StoredBlock(
        path=path,
        field="rejection map",
        position=None,
        content=content,
        size=len(content),
        compression=Compression("zlib", sum(size for _, size in parts), 1, subblocks),
        checksum=None,
    )
