"""Save a drizzled image: pixels, keywords, HISTORY, and the record from which the run can be repeated."""

from __future__ import annotations

import datetime
import textwrap
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from stacklib.drizzle.image import DrizzledImage
from stacklib.errors import RecipeError, SaveError, StacklibError, StacklibWarning
from stacklib.formats import fits, xisf
from stacklib.formats.xdrz import DrizzleData
from stacklib.formats.xisf_write import ascii_text
from stacklib.frames.finding import expanded
from stacklib.integration.noise import judged_rows
from stacklib.normalization.preparation import Preparation
from stacklib.output.drizzle_data import about_drizzle_data, drizzle_folder, save_drizzle_data
from stacklib.output.history import plain
from stacklib.output.naming import base_name, default_folder, free_number
from stacklib.output.provenance import (
    Provenance,
    as_json,
    carried,
    checksums,
    collect,
    file_record,
    keywords_of_frames,
    other_inputs,
    properties_of_frames,
)
from stacklib.recipe.run_record import DRIZZLE, DRIZZLE_VERSIONS
from stacklib.utils.checksums import checksum_if_readable
from stacklib.utils.file_sets import existing_folder, name_all, workroom
from stacklib.utils.texts import ecsv, printable

__all__ = ["save"]

#: Longest HISTORY line, and attempts to find a number that no other process takes at the same moment.
WIDTH, ATTEMPTS = 72, 1000
#: Keywords and properties with the size of a pixel, by which plate solvers guess the image scale.
PIXEL_SIZE = ("XPIXSZ", "YPIXSZ", "Instrument:Sensor:XPixelSize", "Instrument:Sensor:YPixelSize")
#: Pixels, name, image type of XISF.
Product = tuple[np.ndarray, str, str]


def save(
    result: DrizzledImage,
    folder: str | Path | None = None,
    *,
    date: str | datetime.date | None = None,
    object: str | None = None,
    camera: str | None = None,
    fits: bool = False,
    drizzle_data: bool = False,
) -> list[Path]:
    """Save a drizzled image, see `stacklib.Drizzled.save`."""
    p = result.preparation
    if drizzle_data and p is None:
        raise RecipeError(
            "drizzle_data: needs the registered frames, or the result of their integration; give them to "
            "sl.drizzle"
        )
    folder = expanded(folder).absolute() if folder else default_folder(result.frames)
    facts = _facts(result)
    base = base_name(result.frames[result.used], date, object, camera)
    facts.target, facts.camera = facts.target or object or "", facts.camera or camera or ""
    lines = list(_history(result, facts))
    with existing_folder(folder), workroom(folder) as room:
        staged = _write_xisf(result, facts, lines, room, folder)
        if fits:
            staged += _write_fits(result, facts, lines, room)
        table, report = room / "drizzle_frames.ecsv", room / "drizzle_report.txt"
        table.write_bytes(ecsv(result.table))
        report.write_text(printable(result.report()), encoding="utf-8")
        number = -1
        for _ in range(ATTEMPTS):
            number = free_number(folder, base, number + 1)
            pairs = [
                (path, folder / f"{base}_{number:04d}_{path.name}") for path in (report, table, *staged[::-1])
            ]
            if name_all(pairs):
                images = [final for _, final in pairs[2:]][::-1]
                if drizzle_data and p is not None:
                    _save_data(result, p, drizzle_folder(p, folder, number), images[0])
                return images
    raise SaveError(f"{folder}: no free number for {base}; choose another folder or name")


def _save_data(result: DrizzledImage, p: Preparation, folder: Path, image: Path) -> None:
    """Save drizzle data with the geometry of the run."""
    numbers = {frame.name: k for k, frame in enumerate(p.frames)}
    known = {}
    for i, name in result.twins.items():
        geometry, source = result.geometries[i], str(result.frames[i].path)
        known[numbers[name]] = DrizzleData(
            source=source,
            cfa_source=source if result.sites.pattern else "",
            pattern=result.sites.pattern,
            target=str(p.frames[numbers[name]].path),
            width=geometry.width,
            height=geometry.height,
            matrix=geometry.matrix,
        )
    for note in about_drizzle_data(p, known):
        warnings.warn(note, StacklibWarning, stacklevel=4)
    try:
        save_drizzle_data(folder, p, result.masks, judged_rows(p, result.masks), known)
    except (StacklibError, OSError) as error:
        raise SaveError(f"{error}; the image itself is saved as {image}") from error


def _facts(result: DrizzledImage) -> Provenance:
    """Collect the header values of the unregistered frames, with what changes on the grid."""
    used = [int(i) for i in result.used]
    like_a_result = SimpleNamespace(
        preparation=SimpleNamespace(
            frames=result.frames, used=used, count=len(used), reference=used[0], excluded={}
        ),
        region=(0, 0, result.frames.width, result.frames.height),
    )
    facts = collect(cast(Any, like_a_result), with_checksums=True)
    facts.world = result.world
    for held in (facts.common, facts.properties):
        for name in PIXEL_SIZE:
            if isinstance(held.get(name), int | float):
                held[name] = held[name] / result.recipe.scale
    return facts


def _flipped(result: DrizzledImage) -> bool:
    return result.frames.row_order == "bottom-up"


def _products(result: DrizzledImage, image: np.ndarray) -> Iterator[Product]:
    for pixels, name, kind in (
        (image, "drizzle", "MasterLight"),
        (result.weights, "drizzle_weights", "WeightMap"),
    ):
        yield np.ascontiguousarray(pixels[:, ::-1]) if _flipped(result) else pixels, name, kind


def _write_xisf(
    result: DrizzledImage, facts: Provenance, lines: list[str], room: Path, folder: Path
) -> list[Path]:
    full = _full_scale(result)
    lines = lines if full == 1 else [f"XISF: ADU divided by {full:g}", *lines]
    image = result.image if full == 1 else np.clip(result.image / np.float32(full), 0, 1)
    cards = _keywords(result, facts, lines, "xisf")
    about = properties_of_frames(facts, result.used.size, lines)
    about[DRIZZLE] = ("String", as_json(_record(result, facts, folder)))
    return [
        xisf.write_image(
            room / f"{name}.xisf", pixels, image_id=name, image_type=kind, keywords=cards, properties=about
        )
        for pixels, name, kind in _products(result, image)
    ]


def _write_fits(result: DrizzledImage, facts: Provenance, lines: list[str], room: Path) -> list[Path]:
    """Write the images as FITS, in the units of the frames."""
    cards = _keywords(result, facts, lines, "fits")
    left_out = [f"FITS: keyword {name} is left out ({why})" for name, why in fits.unwritable(cards).items()]
    cards += [("HISTORY", line, "") for line in _wrapped(left_out)]
    order = "top-down" if result.frames.row_order else ""
    return [
        fits.write_image(room / f"{name}.fits", pixels, cards, row_order=order)
        for pixels, name, _ in _products(result, result.image)
    ]


def _full_scale(result: DrizzledImage) -> float:
    """Return by what the image is divided for XISF, whose range is 0 to 1."""
    top = float(result.image.max(initial=0.0))
    return 1.0 if top <= 1 else 65535.0 if top <= 65535 * 1.01 else top


def _wrapped(texts: list[str]) -> Iterator[str]:
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    for text in texts:
        yield from wrapper.wrap(ascii_text(text)) or [""]


def _history(result: DrizzledImage, facts: Provenance) -> Iterator[str]:
    yield from _wrapped(list(_said(result, facts)))


def _said(result: DrizzledImage, facts: Provenance) -> Iterator[str]:
    yield f"stacklib {version('stacklib')}: drizzle of {result.used.size} of {len(result.frames)} frames"
    for name, value in result.recipe.to_dict().items():
        yield f"drizzle {name} = {plain(value)}"
    yield f"rejection rule: {result.rule}"
    if result.integration_recipe is not None:
        for name, value in result.integration_recipe.to_dict().items():
            yield f"{name} = {plain(value)}"
    if result.sites.pattern:
        yield f"color filter pattern of the frames, from the first stored pixel: {result.sites.pattern}"
    yield f"reference: {result.grid.width} x {result.grid.height} pixels"
    if (result.range_factor, result.range_offset) != (1.0, 0.0):
        yield f"output range: rescaled as x * {result.range_factor:.9g} + {result.range_offset:.9g}"
    if _flipped(result):
        yield "rows flipped: the frames are stored bottom-up, this file top-down"
    yield from facts.world.notes
    for name, words in facts.differing.items():
        yield f"{name} differs: {words}"
    for i, name in enumerate(result.frames.names):
        yield f"frame {i + 1}: {name}"
        yield f"sha256 {facts.checksums[i] or 'unknown: the file is missing or has changed'}"
        if i in result.left_out:
            yield f"  left out: {result.left_out[i]}"
        if i in result.geometries:
            matrix = " ".join(f"{value:.12g}" for value in result.geometries[i].matrix.ravel())
            yield f"  from the reference, origin at the corner: {matrix}"
        if i in result.numbers:
            for name, values in zip(("factor", "offset", "weight"), result.numbers[i], strict=True):
                yield f"  {name} " + " ".join(f"{value:.9g}" for value in values)


def _keywords(
    result: DrizzledImage, facts: Provenance, lines: list[str], kind: str
) -> list[tuple[str, Any, str]]:
    cards = keywords_of_frames(facts, int(result.used.size), "drizzled")
    cards += [
        ("DRZSCALE", result.recipe.scale, "Pixels for a pixel of the reference, each axis"),
        ("DRZDROP", result.recipe.drop, "Side of a drop relative to a pixel (drop shrink)"),
        ("DRZKERN", result.recipe.kernel, "Kernel of the drops"),
    ]
    return cards + carried(facts, kind, lines, "drizzled")


def _record(result: DrizzledImage, facts: Provenance, folder: Path) -> dict[str, Any]:
    """Return everything needed to repeat the run."""
    p, data = result.preparation, [result.data[i].path for i in sorted(result.data)]
    registered = [] if p is None else list(p.frames)
    return {
        "version": 1,
        **{name: version(name) for name in DRIZZLE_VERSIONS},
        "recipe": result.recipe.to_dict(),
        "integration": None if result.integration_recipe is None else result.integration_recipe.to_dict(),
        "rule": result.rule,
        "reference": [result.grid.width, result.grid.height],
        "fwhm": result.forecast.fwhm if np.isfinite(result.forecast.fwhm) else None,
        "frames": [_frame_record(result, facts, folder, i) for i in range(len(result.frames))],
        "registered": [
            file_record(frame.path, folder, sha256)
            for frame, sha256 in zip(registered, checksums(registered), strict=True)
        ],
        "data": [file_record(path, folder, checksum_if_readable(path)) for path in data if path],
        **({} if p is None else other_inputs(p, folder)),
    }


def _frame_record(result: DrizzledImage, facts: Provenance, folder: Path, i: int) -> dict[str, Any]:
    frame, geometry = result.frames[i], result.geometries.get(i)
    found = {
        "file": frame.name,
        **file_record(frame.path, folder, facts.checksums[i]),
        "reason": result.left_out.get(i, ""),
        "matrix": None if geometry is None else geometry.matrix.ravel().tolist(),
        "numbers": result.numbers[i].tolist() if i in result.numbers else None,
        "twin": result.twins.get(i),
    }
    if geometry is not None:
        found |= {"geometry": geometry.origin, "stars": geometry.stars, "rms": geometry.rms}
    return found
