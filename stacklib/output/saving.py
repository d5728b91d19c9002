"""Save a result as a set of files, completely or not at all, without overwriting anything."""

from __future__ import annotations

import contextlib
import datetime
import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stacklib.errors import RecipeError, SaveError, StacklibError, StacklibWarning
from stacklib.formats import xisf
from stacklib.frames.finding import expanded
from stacklib.output.drizzle_data import Judged, about_drizzle_data, drizzle_folder, save_drizzle_data
from stacklib.output.history import changes_in_words, history, range_warnings
from stacklib.output.integrated_image import IntegratedImage, bring_into_range
from stacklib.output.mask_files import masked_frames, masks_of, save_masks
from stacklib.output.naming import SavedFiles, base_name, default_folder, free_number
from stacklib.output.provenance import Provenance, collect, keywords, properties
from stacklib.output.report import report as describe
from stacklib.utils.atomic_files import rename
from stacklib.utils.file_sets import existing_folder, name_all, workroom
from stacklib.utils.labels import listed
from stacklib.utils.texts import ecsv, printable

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["replace_master", "save"]

#: Attempts to find a number that no other process takes at the same moment.
ATTEMPTS = 1000


@dataclass(frozen=True)
class Product:
    """An image to save: XISF identifier, XISF image type and pixels."""

    name: str
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
    masks: bool = False,
    judged: Iterable[Judged] | None = None,
) -> SavedFiles:
    """Save a result: images, frame table and report, then masks and drizzle data.

    See `stacklib.Integration.save`. `judged` are the verdicts on all samples, for drizzle data.
    """
    frames = result.preparation.frames
    if judged is not None and result.region != (0, 0, frames.width, frames.height):
        raise RecipeError("drizzle_data: needs a result of whole frames; integrate without region")
    folder = expanded(folder).absolute() if folder else default_folder(result.preparation.frames)
    if result.image.shape[0] not in (1, 3):
        raise SaveError(
            f"{folder}: the image has {result.image.shape[0]} channels, expected 1 or 3 for XISF; "
            "integrate each channel separately"
        )
    facts = collect(result, with_checksums=True)
    base = base_name(result.preparation.frames[result.preparation.used], date, object, camera)
    facts.target = facts.target or object or ""
    facts.camera = facts.camera or camera or ""
    with _explained(folder), existing_folder(folder), workroom(folder) as room:
        products = _products(result, maps)
        scaled, remarks = _in_unit_range(products, result)

        def write(facts: Provenance) -> tuple[list[Path], list[str]]:
            staged = _write_xisf(result, facts, scaled, remarks, room, folder)
            if not fits:
                return staged, remarks
            images, left_out = _write_fits(result, facts, _in_adu(products, result), room)
            return staged + images, remarks + left_out

        try:
            staged, remarks = write(facts)
        except (StacklibError, OSError):
            raise
        except Exception as error:  # whatever a header may hold must not cost the images
            for path in room.iterdir():
                path.unlink()
            facts = facts.without_headers(f"{type(error).__name__}: {error}")
            staged, remarks = write(facts)
        remarks = remarks + _unknown(result, facts)
        if masks and not masked_frames(result):
            remarks.append("No masks are saved, as no sample was rejected for its neighbors.")
        if judged is not None:
            remarks += about_drizzle_data(result.preparation)
        with_masks = masks and bool(masked_frames(result))
        beside = (with_masks, judged is not None)
        saved = _publish(result, facts, remarks, room, folder, base, staged, beside)
    try:
        if saved.masks is not None:
            save_masks(saved.masks, masks_of(result), frames)
        if saved.drizzle is not None and judged is not None:
            save_drizzle_data(saved.drizzle, result.preparation, result.masks, judged)
    except (StacklibError, OSError) as error:
        raise SaveError(f"{error}; the result itself is saved as {saved.images[0]}") from error
    return saved


def replace_master(result: IntegratedImage, path: Path) -> None:
    """Write the image alone as an XISF file, in place of one that is there.

    It is for a result that goes on growing. A reader sees the old file or the new one, never a part. Raises
    `SaveError`.
    """
    facts = collect(result, with_checksums=False)
    with _explained(path.parent), existing_folder(path.parent), workroom(path.parent) as room:
        products, remarks = _in_unit_range(_products(result, maps=False)[:1], result)
        (staged,) = _write_xisf(result, facts, products, remarks, room, path.parent)
        rename(staged, path)


def _unknown(result: IntegratedImage, facts: Provenance) -> list[str]:
    """Name the frames without a checksum: the run cannot be repeated without them."""
    names = result.preparation.measurements.names
    unknown = [name for name, sha256 in zip(names, facts.checksums, strict=True) if not sha256]
    if not unknown:
        return []
    return [
        f"{len(unknown)} of {len(names)} frames were gone or changed when the result was saved, so that this "
        f"run cannot be repeated: {listed(unknown)}"
    ]


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Convert errors of the operating system to `SaveError`, naming the folder given by the user."""
    try:
        yield
    except (SaveError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise _folder_error(folder, cause) from cause


def _folder_error(folder: Path, error: OSError) -> SaveError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        above = (path for path in (folder, *folder.parents) if path.exists() and not path.is_dir())
        named = next(above, error.filename or folder)
        return SaveError(f"{folder}: cannot be created because {named} is a file; choose another folder")
    return SaveError(
        f"{folder}: the result cannot be saved here ({error.strerror or error}); nothing was written. "
        "Check the free space and the permissions of the folder, or choose another one: save(folder)"
    )


def _products(result: IntegratedImage, maps: bool) -> list[Product]:
    """Return the images to save, in order."""
    found = [
        Product("integration", "MasterLight", result.image),
        Product("rejection_low", "RejectionMapLow", result.rejection_low),
        Product("rejection_high", "RejectionMapHigh", result.rejection_high),
    ]
    if maps:
        # XISF has no image type for coverage and uncertainty.
        found.append(Product("coverage", "WeightMap", result.coverage))
        found.append(Product("uncertainty", "WeightMap", result.uncertainty))
    if maps and result.slope is not None:
        found.append(Product("slope", "SlopeMap", result.slope))
    return found


def _finite(pixels: np.ndarray) -> np.ndarray:
    return pixels if np.isfinite(pixels).all() else np.nan_to_num(pixels, posinf=0.0, neginf=0.0)


def _in_unit_range(products: list[Product], result: IntegratedImage) -> tuple[list[Product], list[str]]:
    """Bring images in ADU into the range 0 to 1 for XISF. Returns them and a description of the changes."""
    p = result.preparation
    if p.measurements.unit_range:
        return products, _flipped(result)
    full = p.measurements.full_scale
    image = _finite(result.image) / result.image.dtype.type(full)
    how = result.recipe.output_range
    changes = bring_into_range(image, result.coverage > 0, how)
    for note in range_warnings(changes[0], changes[2], how):
        warnings.warn(note, StacklibWarning, stacklevel=4)
    lines = [*_flipped(result), f"XISF: ADU divided by {full * p.full_scale:g}"]
    lines += [f"XISF: then {words}" for words in changes_in_words(*changes)]
    return _rescaled(products, changes[0] / full, image), lines


def _in_adu(products: list[Product], result: IntegratedImage) -> list[Product]:
    """Return the images in ADU if the frames are: integers of more than 16 bits are read as fractions."""
    p = result.preparation
    adu = 1.0 if p.measurements.unit_range else p.full_scale
    return products if adu == 1.0 else _rescaled(products, adu)


def _rescaled(products: list[Product], scale: float, image: np.ndarray | None = None) -> list[Product]:
    """Multiply the values of the image by `scale` in all products that depend on it; `image` is known."""
    changed = {
        "integration": lambda pixels: pixels * pixels.dtype.type(scale) if image is None else image,
        "uncertainty": lambda pixels: pixels * np.float32(scale),
        "slope": lambda pixels: _rescaled_slope(pixels, scale),
    }
    return [replace(p, pixels=changed[p.name](p.pixels)) if p.name in changed else p for p in products]


def _rescaled_slope(slope: np.ndarray, scale: float) -> np.ndarray:
    """Convert a slope map to values multiplied by `scale`."""
    quarter = math.pi / 4
    return (np.arctan(np.tan(slope.astype(np.float64) * quarter) * scale) / quarter).astype(np.float32)


def _write_xisf(
    result: IntegratedImage,
    facts: Provenance,
    products: list[Product],
    remarks: list[str],
    room: Path,
    folder: Path,
) -> list[Path]:
    """Write the images into the temporary folder."""
    lines = history(result, facts, remarks)
    cards, about = keywords(result, facts, lines), properties(result, facts, lines, folder)
    return [
        xisf.write_image(
            room / f"{product.name}.xisf",
            _as_stored(product.pixels, result),
            image_id=product.name,
            image_type=product.image_type,
            keywords=cards,
            properties=about,
        )
        for product in products
    ]


def _write_fits(
    result: IntegratedImage, facts: Provenance, products: list[Product], room: Path
) -> tuple[list[Path], list[str]]:
    """Write the images as FITS, in the units of the frames. Also returns what FITS cannot hold, in words."""
    # Here, because few runs write FITS, and astropy takes long to import.
    from stacklib.formats import fits

    cards = keywords(result, facts, history(result, facts, _flipped(result)), "fits")
    left_out = [f"FITS: keyword {name} is left out ({why})" for name, why in fits.unwritable(cards).items()]
    # Frames that do not tell the order of their rows are not given one.
    order = "top-down" if result.preparation.frames.row_order else ""
    images = [
        fits.write_image(
            room / f"{product.name}.fits", _as_stored(product.pixels, result), cards, row_order=order
        )
        for product in products
    ]
    return images, left_out


def _flipped(result: IntegratedImage) -> list[str]:
    """Return a note if the rows of the files are flipped with respect to the frames."""
    bottom_up = result.preparation.frames.row_order == "bottom-up"
    return ["rows flipped: the frames are stored bottom-up, this file top-down"] if bottom_up else []


def _as_stored(pixels: np.ndarray, result: IntegratedImage) -> np.ndarray:
    """Return finite pixels with the top row first."""
    pixels = _finite(pixels)
    return np.ascontiguousarray(pixels[:, ::-1]) if _flipped(result) else pixels


def frame_table(result: IntegratedImage, checksums: list[str]) -> Table:
    """Return the frame table with checksums, and the run in its `meta`."""
    table = result.frames.copy()
    table["sha256"] = checksums
    table.meta |= {"rule": result.rule, "region": list(result.region), "recipe": result.recipe.to_dict()}
    return table


def _publish(
    result: IntegratedImage,
    facts: Provenance,
    remarks: list[str],
    room: Path,
    folder: Path,
    base: str,
    images: list[Path],
    beside: tuple[bool, bool],
) -> SavedFiles:
    """Move all files to their final names, with the first free number.

    `beside` tells whether masks and drizzle data will be saved.
    """
    table, report = room / "frames.ecsv", room / "report.txt"
    table.write_bytes(ecsv(frame_table(result, facts.checksums)))
    number = -1
    for _ in range(ATTEMPTS):
        number = free_number(folder, base, number + 1)
        stem = f"{base}_{number:04d}"
        final = [folder / (stem + f"_{path.name}".removeprefix("_integration")) for path in images]
        saved = SavedFiles(
            tuple(final),
            folder / f"{stem}_frames.ecsv",
            folder / f"{stem}_report.txt",
            folder / f"{stem}_masks" if beside[0] else None,
            drizzle_folder(result.preparation, folder, number) if beside[1] else None,
        )
        report.write_text(printable(describe(result, saved, facts, remarks)), encoding="utf-8")
        # The report is named first and claims the number. The image is named last.
        pairs = [(report, saved.report), (table, saved.table)]
        pairs += reversed(list(zip(images, final, strict=True)))
        if name_all(pairs):
            return saved
    raise SaveError(f"{folder}: no free number for {base}; choose another folder or name")
