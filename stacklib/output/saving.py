"""Save a result: a set of files that appears whole or not at all, and never in place of another one."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table

from stacklib.errors import SaveError
from stacklib.formats import fits, xisf
from stacklib.output.history import history
from stacklib.output.integrated_image import IntegratedImage, bring_into_range
from stacklib.output.naming import base_name, default_folder, free_number
from stacklib.output.provenance import Provenance, collect, keywords, properties
from stacklib.output.report import report as describe
from stacklib.output.saved_files import SavedFiles
from stacklib.utils.atomic_files import RUN_MARK
from stacklib.utils.file_sets import existing_folder, name_all, workroom

__all__ = ["save"]

#: ADU at the value 1 of a saved XISF image of frames on an ADU scale.
FULL_SCALE = 65535.0
#: Attempts to find a number that no one else takes at the same moment.
ATTEMPTS = 1000


@dataclass(frozen=True)
class Product:
    """One image of a result: what its file is called, what it is, and its pixels."""

    name: str
    suffix: str
    image_type: str
    pixels: np.ndarray


def save(
    result: IntegratedImage,
    folder: str | Path | None = None,
    *,
    date: str | datetime.date | None = None,
    object: str | None = None,
    camera: str | None = None,
    maps: bool = False,
    fits: bool = False,
) -> SavedFiles:
    """Write the image and its rejection maps as XISF files, with a table of the frames and a report.

    The files are called ``<date>_<object>_<camera>_<number>.xisf``, then ``..._rejection_low.xisf`` and
    ``..._rejection_high.xisf``, ``..._frames.ecsv`` and ``..._report.txt``. The number is the first one
    that is free. Nothing is ever overwritten, also when several programs save at once. When anything
    goes wrong no file of the set is left.

    Parameters
    ----------
    result : IntegratedImage
        What to save.
    folder : str or Path, optional
        Made if it is missing; ``5_Integration`` beside the folder of the frames unless given.
    date : str or date, optional
        Night, for the name; the evening of the earliest frame unless given, see `naming.night_of`.
    object, camera : str, optional
        Target and camera, for the name; from the headers unless given. Headers that are silent take
        them over.
    maps : bool
        Also save coverage, uncertainty and, for linear_fit, slope.
    fits : bool
        Also save every image as FITS.

    Returns
    -------
    SavedFiles
        The images, the table of the frames and the report.

    Raises
    ------
    SaveError
        When the files cannot be written, with the remedy.

    Notes
    -----
    XISF images are in 0 to 1. Frames on an ADU scale are divided by 65535 for that, and brought into
    the range as `output_range` says; FITS keeps ADU. In all files 0 stands for no data, also for an
    uncertainty that is not known.
    """
    folder = Path(folder).expanduser().absolute() if folder else default_folder(result.preparation.frames)
    if result.image.shape[0] not in (1, 3):
        raise SaveError(
            f"{folder}: the image has {result.image.shape[0]} channels, expected 1 or 3 for XISF; "
            "integrate the channels as frames of their own"
        )
    facts = collect(result, with_checksums=True)
    base = base_name(result.preparation.frames[result.preparation.used], date, object, camera)
    facts.target = facts.target or object or ""
    facts.camera = facts.camera or camera or ""
    with _explained(folder), existing_folder(folder), workroom(folder) as room:
        products = _products(result, maps)
        scaled, remarks = _in_unit_range(products, result)
        staged = _write_xisf(result, facts, scaled, remarks, room, folder)
        if fits:
            staged += _write_fits(result, facts, products, room)
        saved = _publish(result, facts, remarks, room, folder, base, staged)
    return saved


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn errors of the operating system into ours, with the folder that the user knows."""
    try:
        yield
    except SaveError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise _folder_error(folder, error.__cause__) from error.__cause__
    except OSError as error:
        raise _folder_error(folder, error) from error


def _folder_error(folder: Path, error: OSError) -> SaveError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        above = (path for path in (folder, *folder.parents) if path.exists() and not path.is_dir())
        named = next(above, error.filename or folder)
        return SaveError(f"{folder}: cannot be made a folder, {named} is a file; choose another folder")
    return SaveError(
        f"{folder}: the result cannot be saved there ({error.strerror or error}); nothing was written. "
        "Check the free space and the permissions of the folder, or choose another one: save(folder)"
    )


def _products(result: IntegratedImage, maps: bool) -> list[Product]:
    """The images to save, in order; all finite."""
    found = [
        Product("integration", "", "MasterLight", result.image),
        Product("rejection_low", "_rejection_low", "RejectionMapLow", result.rejection_low),
        Product("rejection_high", "_rejection_high", "RejectionMapHigh", result.rejection_high),
    ]
    if maps:
        # XISF knows no type for the first two.
        found.append(Product("coverage", "_coverage", "WeightMap", result.coverage))
        found.append(Product("uncertainty", "_uncertainty", "WeightMap", result.uncertainty))
        if result.slope is not None:
            found.append(Product("slope", "_slope", "SlopeMap", result.slope))
    return found


def _finite(pixels: np.ndarray) -> np.ndarray:
    return pixels if np.isfinite(pixels).all() else np.nan_to_num(pixels, posinf=0.0, neginf=0.0)


def _in_unit_range(products: list[Product], result: IntegratedImage) -> tuple[list[Product], list[str]]:
    """Images of frames on an ADU scale as XISF wants them, and what was done, in words."""
    if result.preparation.measurements.unit_range:
        return products, _turned(result)
    image = _finite(result.image) / np.float32(FULL_SCALE)
    covered = result.coverage > 0
    factor, offset, cut = bring_into_range(image, covered, result.recipe.output_range)
    lines = [*_turned(result), f"XISF: ADU divided by {FULL_SCALE:g}"]
    if cut:
        lines.append(f"XISF: {cut} values outside 0 to 1 were cut off")
    elif (factor, offset) != (1.0, 0.0):
        lines.append(f"XISF: then rescaled into 0 to 1 as x * {factor:.9g} + {offset:.9g}")
    scale = factor / FULL_SCALE
    changed = {
        "integration": lambda pixels: image,
        "uncertainty": lambda pixels: pixels * np.float32(scale),
        "slope": lambda pixels: _rescaled_slope(pixels, scale),
    }
    return [
        Product(p.name, p.suffix, p.image_type, changed.get(p.name, lambda pixels: pixels)(p.pixels))
        for p in products
    ], lines


def _rescaled_slope(slope: np.ndarray, scale: float) -> np.ndarray:
    """The slope map for values that are multiplied by `scale`."""
    quarter = math.pi / 4
    return (np.arctan(np.tan(slope.astype(np.float64) * quarter) * scale) / quarter).astype(np.float32)


def _write_xisf(
    result: IntegratedImage,
    facts: Provenance,
    products: list[Product],
    remarks: list[str],
    room: Path,
    folder: Path,
) -> list[tuple[Path, str]]:
    """Write the images into the workroom: (path, suffix of the final name), in order."""
    lines = history(result, facts, remarks)
    cards, about = keywords(result, facts, lines), properties(result, facts, lines, folder)
    staged = []
    for product in products:
        path = room / f"{product.name}.xisf"
        xisf.write_image(
            path,
            _as_stored(product.pixels, result),
            image_id=product.name,
            image_type=product.image_type,
            keywords=cards,
            properties=about,
        )
        staged.append((path, f"{product.suffix}.xisf"))
    return staged


def _write_fits(
    result: IntegratedImage, facts: Provenance, products: list[Product], room: Path
) -> list[tuple[Path, str]]:
    """The same as FITS, in the units of the frames."""
    cards = keywords(result, facts, history(result, facts, _turned(result)), "fits")
    staged = []
    for product in products:
        path = room / f"{product.name}.fits"
        fits.write_image(path, _as_stored(product.pixels, result), cards)
        staged.append((path, f"{product.suffix}.fits"))
    return staged


def _turned(result: IntegratedImage) -> list[str]:
    """That the rows of the files are in another order than those of the frames, if so."""
    bottom_up = result.preparation.frames[0].row_order == "bottom-up"
    return ["rows turned over: the frames have the bottom row first"] if bottom_up else []


def _as_stored(pixels: np.ndarray, result: IntegratedImage) -> np.ndarray:
    """Finite pixels, the top row first."""
    pixels = _finite(pixels)
    return np.ascontiguousarray(pixels[:, ::-1]) if _turned(result) else pixels


def frame_table(result: IntegratedImage, checksums: list[str]) -> Table:
    """The table of the frames as it is saved: with checksums, and the run in its `meta`."""
    table = result.frames.copy()
    table["sha256"] = checksums
    table.meta |= {
        "rule": result.rule,
        "region": list(result.region),
        "recipe": result.recipe.to_dict(),
    }
    return table


def _publish(
    result: IntegratedImage,
    facts: Provenance,
    remarks: list[str],
    room: Path,
    folder: Path,
    base: str,
    images: list[tuple[Path, str]],
) -> SavedFiles:
    """Give all files their names under the first free number."""
    table, report = room / "frames.ecsv", room / "report.txt"
    frames = frame_table(result, facts.checksums)
    if mark := os.environ.get(RUN_MARK):
        frames.meta["run"] = {"mark": mark, "images": [suffix for _, suffix in images]}
    frames.write(table, format="ascii.ecsv")
    number = -1
    for _ in range(ATTEMPTS):
        number = free_number(folder, base, number + 1)
        stem = f"{base}_{number:04d}"
        final = [folder / f"{stem}{suffix}" for _, suffix in images]
        saved = SavedFiles(tuple(final), folder / f"{stem}_frames.ecsv", folder / f"{stem}_report.txt")
        report.write_text(describe(result, saved, facts, remarks), encoding="utf-8")
        # Every set has a report: who has its name has the number. The image comes last.
        pairs = [(report, saved.report), (table, saved.table)]
        pairs += [(path, name) for (path, _), name in zip(images, final, strict=True)][::-1]
        if name_all(pairs):
            return saved
    raise SaveError(f"{folder}: no number is free for {base}; choose another folder or name")
