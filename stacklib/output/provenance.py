"""Metadata of a saved image: keywords, properties and the record of the run."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stacklib.errors import FrameError
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import Frame
from stacklib.normalization.preparation import Preparation
from stacklib.output.integrated_image import IntegratedImage
from stacklib.output.mosaic import OFFSETS, pattern_of
from stacklib.output.naming import most_common
from stacklib.output.world_coordinates import (
    WORLD,
    WORLD_PROPERTY,
    WorldCoordinates,
    world_coordinates,
)
from stacklib.utils.checksums import checksum_if_readable
from stacklib.utils.labels import clipped, listed
from stacklib.utils.progress import in_notebook, progress_bar
from stacklib.utils.texts import one_line

__all__ = [
    "Provenance",
    "as_json",
    "carried",
    "checksums",
    "collect",
    "file_record",
    "keywords",
    "keywords_of_frames",
    "known_or_none",
    "other_inputs",
    "properties",
    "properties_of_frames",
]

#: Threads that compute checksums, and seconds before their progress bar appears.
READERS, QUIET = 4, 2.0
#: Longest value of a keyword in a note, in characters.
LONGEST = 80

#: Keywords that describe the storage of a file, or are written anew. Nobody misses them.
STORAGE = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|BZERO|BSCALE|BLANK|END|XTENSION|[PG]COUNT|T(FIELDS|TYPE|FORM)\d*|Z[A-Z]+\d*"
    r"|EXTNAME|EXTVER|CHECKSUM|DATASUM|ROWORDER|INHERIT|CONTINUE|IMAGETYP|OBJECT|INSTRUME|FILTER|EXPTIME"
    r"|EXPOSURE|DATE-OBS|DATE-END"
    # Color filter pattern: written below for frames that were not debayered.
    r"|BAYERPAT|[XY]BAYROFF|CFA\w*|COLORTYP"
)
#: Keywords that are not copied: those, and what is valid for one moment or one frame only.
NOT_CARRIED = re.compile(
    rf"{STORAGE.pattern}|BUNIT|DATAM(IN|AX)|HISTORY|COMMENT|FILENAME|FILE|FRAME|NCOMBINE|STACKCNT|LIVETIME"
    r"|PROGRAM|CREATOR"
    r"|DATE|DATE-\w+|MJD[\w-]*|JD[\w-]*|TIME-\w+|UT(-\w+)?|UTC\w*|LST|ST|HA|AIRMASS|OBJCT(ALT|AZ|HA)|CENT(ALT|AZ)"
    r"|NOISE\w*|NSE\w*|SSWEIGHT|PSF\w*|WEIGHT|STAR\w*|FWHM|ECCENTR\w*|MEAN|MEDIAN|STDDEV|MIPS-\w+|C(BLACK|WHITE)"
)
#: Properties of equipment and target, and the exceptions that are written below.
CARRIED_PROPERTY = re.compile(r"(Instrument|Observation|Observer|Organization):[\w:]+")
NOT_CARRIED_PROPERTY = re.compile(
    r"Observation:Time:.*|Instrument:ExposureTime|Instrument:(Camera|Filter):Name|Observation:Object:Name"
    r"|PCL:CFASource.*"
)

COMMENTS = {
    "TELESCOP": "Telescope",
    "GAIN": "Gain setting",
    "CCD-TEMP": "[degC] Temperature of the sensor",
    "FOCALLEN": "[mm] Focal length",
    "XPIXSZ": "[um] Pixel width",
    "YPIXSZ": "[um] Pixel height",
    "OBSERVER": "Observer",
    "SITELAT": "Latitude of the site",
    "SITELONG": "Longitude of the site",
}


@dataclass
class Provenance:
    """Header values of the frames used in a result, and the SHA-256 of all its frames, empty if unknown.

    Target, camera and filter are the most common values, empty if there is none. The exposure is the total in
    seconds, of the frames that have one. `start` and `end` are those of the earliest and the latest frame.
    `common` and `properties` have the same value in all frames; `differing` describes the other keywords.
    `left_out` names keywords that hold for a single frame only, `properties_left_out` properties that do or
    differ. `world` are the world coordinates, `undated` the names of frames without a date.
    """

    target: str
    camera: str
    filter: str
    exposure: float
    without_exposure: int
    start: datetime | None
    end: datetime | None
    common: dict[str, Any]
    differing: dict[str, str]
    properties: dict[str, Any]
    left_out: list[str]
    properties_left_out: list[str]
    world: WorldCoordinates
    checksums: list[str]
    undated: list[str] = field(default_factory=list)

    def without_headers(self, why: str) -> Provenance:
        """Return the same without what is copied from the headers of the frames, and a note with `why`."""
        note = f"Keywords and properties of the frames are left out, as they cannot be written ({why})."
        world = WorldCoordinates(notes=[note])
        return replace(self, common={}, differing={}, properties={}, world=world)

    @property
    def notes(self) -> list[str]:
        """What of the headers is not in the saved image, in words."""
        lines = {
            "Keywords of single frames are left out": self.left_out,
            "XISF properties of single frames are left out": self.properties_left_out,
        }
        single = [f"{words}: {listed(names, most=20)}." for words, names in lines.items() if names]
        if self.undated and self.start:
            single.append(
                f"Frames without a date, which DATE-OBS and DATE-END do not include: {listed(self.undated)}."
            )
        return [*self.world.notes, *single]


def collect(result: IntegratedImage, with_checksums: bool = False) -> Provenance:
    """Collect the header values of a result. Checksums are optional, because they read all files."""
    frames = result.preparation.frames
    used = [frames[int(i)] for i in result.preparation.used]
    known = [frame.exposure for frame in used if frame.exposure is not None]
    common, differing = _compare([_spoken(frame) for frame in used])
    shared, _ = _compare([_carried_properties(frame) for frame in used])
    world = world_coordinates(result)
    written = ("OBJECT", "INSTRUME", "FILTER", "EXPTIME")
    return Provenance(
        target=most_common(frame.object for frame in used),
        camera=most_common(frame.camera for frame in used),
        filter=most_common(frame.filter for frame in used),
        exposure=math.fsum(known),
        without_exposure=len(used) - len(known),
        start=min(filter(None, (frame.date for frame in used)), default=None),
        end=max(filter(None, map(_end, used)), default=None),
        common={name: value for name, value in common.items() if name not in written},
        differing=differing,
        properties=shared,
        left_out=_left_out(used, world),
        properties_left_out=_properties_left_out(used, shared, world),
        world=world,
        undated=[frame.name for frame in used if frame.date is None],
        checksums=checksums(frames) if with_checksums else [""] * len(frames),
    )


def checksums(frames: Sequence[Frame]) -> list[str]:
    """Return the SHA-256 of each file, or an empty string if it is missing or has changed."""

    def checksum(frame: Frame) -> str:
        found = checksum_if_readable(frame.path)
        try:
            frame.check_unchanged()
        except FrameError:
            return ""
        return found

    title = f"checksums of {len(frames)} frames"
    with (
        ThreadPoolExecutor(READERS) as pool,
        progress_bar(len(frames), title, "frame", in_notebook(), delay=QUIET) as bar,
    ):
        found = []
        for one in pool.map(checksum, frames):
            found.append(one)
            bar.update()
    return found


def _end(frame: Frame) -> datetime | None:
    if frame.date_end or not frame.date:
        return frame.date_end
    return frame.date + timedelta(seconds=frame.exposure or 0)


def _spoken(frame: Frame) -> dict[str, Any]:
    """Return the keywords of a frame that may be valid for the result, with those that `Frame` interprets."""
    found = {
        name: value
        for name, value in frame.keywords.items()
        if not NOT_CARRIED.fullmatch(name) and not _is_world(name)
    }
    facts = {
        "OBJECT": frame.object,
        "INSTRUME": frame.camera,
        "FILTER": frame.filter,
        "EXPTIME": frame.exposure,
    }
    return found | {name: value for name, value in facts.items() if value not in (None, "")}


def _is_world(name: str) -> bool:
    # Right ascension and declination in other keywords also need the equinox.
    return bool(WORLD.fullmatch(name)) and name not in ("EQUINOX", "RADESYS")


def _left_out(frames: Sequence[Frame], world: WorldCoordinates) -> list[str]:
    """Return the names of keywords that are valid for one frame only, and of incomplete world coordinates."""
    names = dict.fromkeys(name for frame in frames for name in frame.keywords)
    said = world.cards or world.notes
    return [
        name
        for name in names
        if not STORAGE.fullmatch(name) and (NOT_CARRIED.fullmatch(name) or (_is_world(name) and not said))
    ]


def _properties_left_out(
    frames: Sequence[Frame], carried: dict[str, Any], world: WorldCoordinates
) -> list[str]:
    """Return the names of properties that are neither carried over nor written anew."""
    names = dict.fromkeys(name for frame in frames for name in frame.properties)
    return [
        name
        for name in names
        if name not in carried | world.properties
        and not NOT_CARRIED_PROPERTY.fullmatch(name)
        and not (WORLD_PROPERTY.fullmatch(name) and world.notes)
    ]


def _carried_properties(frame: Frame) -> dict[str, Any]:
    return {
        name: value
        for name, value in frame.properties.items()
        if CARRIED_PROPERTY.fullmatch(name)
        and not NOT_CARRIED_PROPERTY.fullmatch(name)
        and isinstance(value, int | float | str)
    }


def _compare(headers: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that are equal in all headers, and a description of the others."""
    names = dict.fromkeys(name for header in headers for name in header)
    common, differing = {}, {}
    for name in names:
        values = [header[name] for header in headers if name in header]
        if len(values) == len(headers) and all(value == values[0] for value in values):
            common[name] = values[0]
        else:
            differing[name] = _spread(values, len(headers))
    return common, differing


def _spread(values: list[Any], count: int) -> str:
    """Describe several values in a few words."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    counted = Counter(values)
    if len(counted) > 3 and numbers:
        text = f"{min(values):g} to {max(values):g}"
    else:
        shown = [
            (f"{value:g}" if isinstance(value, float) else clipped(one_line(str(value)), LONGEST), n)
            for value, n in counted.items()
        ]
        text = listed([f"{value} ({n} frame{'s' * (n > 1)})" for value, n in shown], most=3)
    missing = count - len(values)
    return text + (f", missing in {missing} frame{'s' * (missing > 1)}" if missing else "")


def keywords(
    result: IntegratedImage, facts: Provenance, lines: Iterable[str], kind: str = "xisf"
) -> list[tuple[str, Any, str]]:
    """Return the FITS keywords of an image saved as `kind` as (name, value, comment), HISTORY last."""
    cards = keywords_of_frames(facts, result.preparation.count, "integrated")
    pattern = pattern_of(result)
    if pattern:
        cards.append(("BAYERPAT", pattern, "Color filter pattern: the image is a mosaic"))
        cards += [(name, 0, "Offset of the pattern") for name in OFFSETS]
    return cards + carried(facts, kind, lines, "integrated")


def carried(facts: Provenance, kind: str, lines: Iterable[str], done: str) -> list[tuple[str, Any, str]]:
    """Return the keywords copied from the frames, those of world coordinates and of software, and HISTORY."""
    world = facts.world.keywords(kind)
    common = {name: value for name, value in facts.common.items() if name not in world}
    cards = [(name, value, COMMENTS.get(name, "")) for name, value in common.items()]
    cards += [(name, value, "") for name, value in world.items()]
    cards.append(("SWMODIFY", f"stacklib {version('stacklib')}", f"Software that {done} the frames"))
    return cards + [("HISTORY", line, "") for line in lines]


def keywords_of_frames(facts: Provenance, count: int, done: str) -> list[tuple[str, Any, str]]:
    """Return the FITS keywords that an image has from its frames; `done` says what was done to them."""
    cards: list[tuple[str, Any, str]] = [
        ("IMAGETYP", "Master Light", "Type of image"),
        ("OBJECT", facts.target, "Target"),
        ("INSTRUME", facts.camera, "Camera"),
        ("FILTER", facts.filter, "Filter"),
    ]
    cards = [card for card in cards if card[1]]
    cards.append(("NCOMBINE", count, f"Number of {done} frames"))
    if facts.without_exposure < count:
        cards.append(("EXPTIME", facts.exposure, "[s] Total exposure of these frames"))
    if facts.start:
        cards.append(("DATE-OBS", _iso(facts.start), "UTC, start of the earliest frame"))
    if facts.end:
        cards.append(("DATE-END", _iso(facts.end), "UTC, end of the latest frame"))
    return cards


def _iso(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03d}"


def properties(
    result: IntegratedImage, facts: Provenance, lines: Iterable[str], folder: Path
) -> dict[str, Any]:
    """Return the XISF properties of a saved image.

    ``stacklib:Recipe`` contains the recipe as YAML. ``stacklib:Run`` and ``stacklib:Frames`` contain, as
    JSON, everything else needed to repeat the run: region, rule, versions, and the path (full and relative to
    `folder`), checksum and numbers of each frame. All of it is ASCII, with floats in full precision.
    """
    found = properties_of_frames(facts, result.preparation.count, lines)
    recipe = yaml.safe_dump(result.recipe.to_dict(), sort_keys=False, allow_unicode=False)
    if pattern_of(result):
        found["PCL:CFASourcePattern"] = pattern_of(result)
    found["stacklib:Recipe"] = ("String", recipe)
    found["stacklib:Run"] = ("String", as_json(_run_record(result, folder)))
    found["stacklib:Frames"] = ("String", as_json(_frame_records(result, facts, folder)))
    return found


def properties_of_frames(facts: Provenance, count: int, lines: Iterable[str]) -> dict[str, Any]:
    """Return the XISF properties that an image has from its `count` frames, and its HISTORY."""
    found: dict[str, Any] = facts.properties | facts.world.properties
    named = {
        "Observation:Object:Name": facts.target,
        "Instrument:Camera:Name": facts.camera,
        "Instrument:Filter:Name": facts.filter,
    }
    found |= {name: ("String", value) for name, value in named.items() if value}
    for name, date in (("Start", facts.start), ("End", facts.end)):
        if date:
            found[f"Observation:Time:{name}"] = ("TimePoint", _iso(date) + "Z")
    if facts.without_exposure < count:
        found["Instrument:ExposureTime"] = float(facts.exposure)
    return found | {"Processing:History": ("String", "\n".join(lines))}


def as_json(value: Any) -> str:
    """Return a record as JSON, in ASCII and without NaN."""
    return json.dumps(value, indent=1, allow_nan=False)


def _run_record(result: IntegratedImage, folder: Path) -> dict[str, Any]:
    p = result.preparation
    record = {
        "version": 1,
        "stacklib": version("stacklib"),
        "numpy": np.__version__,
        "numba": version("numba"),
        "rule": result.rule,
        "region": list(result.region),
        "reference": p.reference,
        "noise_source": p.measurements.noise_source,
        "unit_range": p.measurements.unit_range,
        "range_factor": result.range_factor,
        "range_offset": result.range_offset,
        "truncated": result.truncated,
        "notes": list(dict.fromkeys([*p.frames.notes, *p.notes])),
    }
    return record | other_inputs(p, folder)


def other_inputs(p: Preparation, folder: Path) -> dict[str, Any]:
    """Return the record of the files that a run reads besides its frames: table of weights, masks."""
    record: dict[str, Any] = {}
    if p.recipe.weights == "csv":
        path = resolve_path(p.recipe.weight_file)
        record["weight_file"] = file_record(path, folder, checksum_if_readable(path))
    if p.own_masks:
        masks = list(p.own_masks.values())
        record["masks"] = [
            file_record(mask.path, folder, sha256)
            for mask, sha256 in zip(masks, checksums(masks), strict=True)
        ]
    return record


def file_record(path: Path, folder: Path, sha256: str) -> dict[str, Any]:
    """Return the record of a file: path, path relative to the folder of the result, checksum."""
    return {"path": str(path.absolute()), "relative": _relative(path, folder), "sha256": sha256}


def _frame_records(result: IntegratedImage, facts: Provenance, folder: Path) -> list[dict[str, Any]]:
    p = result.preparation
    used = {int(i) for i in p.used}
    columns = {
        "location": p.measurements.location,
        "noise": p.measurements.noise,
        "scale": p.scale,
        "weight": p.weights,
        "factor": p.factor,
        "offset": p.offset,
        "rejection_factor": p.rejection_factor,
        "rejection_offset": p.rejection_offset,
    }
    return [
        {
            "file": frame.name,
            **file_record(frame.path, folder, facts.checksums[i]),
            "used": i in used,
            "reason": p.excluded.get(i, ""),
            **{name: known_or_none(values[i]) for name, values in columns.items()},
        }
        for i, frame in enumerate(p.frames)
    ]


def _relative(path: Path, folder: Path) -> str | None:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        # Different drives on Windows.
        return None


def known_or_none(values: np.ndarray) -> list[float | None]:
    """Convert an array to a list for JSON, with None for NaN."""
    return [float(value) if math.isfinite(value) else None for value in values]
