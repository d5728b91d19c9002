"""What a saved image tells of its origin: facts of the frames, keywords, properties, a record of the run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stacklib.errors import FrameError
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import Frame, FrameSet
from stacklib.output.integrated_image import IntegratedImage
from stacklib.output.naming import most_common

__all__ = ["Provenance", "checksums", "collect", "keywords", "properties"]

#: Files that are read at the same time for their checksums.
READERS = 4

#: Keywords about the storage of one file, not its content; and those written anew below.
NOT_CARRIED = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|BZERO|BSCALE|BLANK|END|XTENSION|[PG]COUNT|T(FIELDS|TYPE|FORM)\d*|Z[A-Z]+\d*"
    r"|EXTNAME|EXTVER|CHECKSUM|DATASUM|ROWORDER|BUNIT|DATAM(IN|AX)|HISTORY|COMMENT|FILENAME|FILE|INHERIT"
    r"|IMAGETYP|FRAME|OBJECT|INSTRUME|FILTER|EXPTIME|EXPOSURE|NCOMBINE|STACKCNT|LIVETIME|PROGRAM|CREATOR"
    # Of one moment or of one frame.
    r"|DATE|DATE-\w+|MJD[\w-]*|JD[\w-]*|TIME-\w+|UT(-\w+)?|UTC\w*|LST|ST|HA|AIRMASS|OBJCT(ALT|AZ|HA)|CENT(ALT|AZ)"
    r"|NOISE\w*|NSE\w*|SSWEIGHT|PSF\w*|WEIGHT|STAR\w*|FWHM|ECCENTR\w*|MEAN|MEDIAN|STDDEV|MIPS-\w+|C(BLACK|WHITE)"
    # Colour filter pattern: integrated frames are debayered.
    r"|BAYERPAT|[XY]BAYROFF|CFA\w*|COLORTYP"
)
#: The world coordinates, which belong to one geometry.
WCS = re.compile(
    r"WCSAXES|C(TYPE|RVAL|RPIX|DELT|ROTA|UNIT)\d|CD\d_\d|P[CV]\d_\d+|(LON|LAT)POLE|RADESYS|EQUINOX|(A|B|AP|BP)_(ORDER|\d_\d)"
)
#: Properties that describe equipment and target, and those among them that are written anew.
CARRIED_PROPERTY = re.compile(r"(Instrument|Observation|Observer|Organization):[\w:]+")
NOT_CARRIED_PROPERTY = re.compile(
    r"Observation:Time:.*|Instrument:ExposureTime|Instrument:(Camera|Filter):Name|Observation:Object:Name"
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
    """Facts about the frames of a result.

    Attributes
    ----------
    target, camera, filter : str
        What the frames that were used say; empty where they are silent, the most frequent one where
        they differ.
    exposure : float
        Total exposure of the used frames in seconds, of those that tell it.
    without_exposure : int
        Used frames that do not tell their exposure.
    start, end : datetime or None
        Start of the earliest and end of the latest used frame.
    common : dict
        Keywords that are the same in all used frames.
    differing : dict of str to str
        Keywords that are not, and their values in words.
    properties : dict
        Properties that are the same in all used frames.
    checksums : list of str
        SHA-256 of each frame that was given; empty where it is not known.
    """

    target: str
    camera: str
    filter: str
    exposure: float
    without_exposure: int
    start: datetime | None
    end: datetime | None
    common: dict[str, Any] = field(default_factory=dict)
    differing: dict[str, str] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    checksums: list[str] = field(default_factory=list)


def collect(result: IntegratedImage, with_checksums: bool = False) -> Provenance:
    """Gather the facts; reading all files for their checksums is left out unless asked for."""
    frames = result.preparation.frames
    used = [frames[int(i)] for i in result.preparation.used]
    exposures = [frame.exposure for frame in used]
    known = [exposure for exposure in exposures if exposure is not None]
    starts = [frame.date for frame in used if frame.date]
    ends = [end for end in map(_end, used) if end]
    common, differing = _compare([_spoken(frame) for frame in used])
    shared, _ = _compare([_carried_properties(frame) for frame in used])
    return Provenance(
        most_common(frame.object for frame in used),
        most_common(frame.camera for frame in used),
        most_common(frame.filter for frame in used),
        math.fsum(known),
        len(exposures) - len(known),
        min(starts, default=None),
        max(ends, default=None),
        {
            name: value
            for name, value in common.items()
            if name not in ("OBJECT", "INSTRUME", "FILTER", "EXPTIME")
        },
        differing,
        shared,
        checksums(frames) if with_checksums else [""] * len(frames),
    )


def checksums(frames: FrameSet) -> list[str]:
    """SHA-256 of every file; an empty text for one that is gone or was changed since it was opened."""

    def checksum(frame: Frame) -> str:
        try:
            found = frame.path.stat()
            if (found.st_size, found.st_mtime_ns) != frame.stamp:
                return ""
            return frame.checksum()
        except (OSError, FrameError):
            return ""

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(checksum, frames))


def _end(frame: Frame) -> datetime | None:
    if frame.date_end or not frame.date:
        return frame.date_end
    return frame.date + timedelta(seconds=frame.exposure or 0)


def _spoken(frame: Frame) -> dict[str, Any]:
    """The keywords of a frame that say something of the others too; names of things as `Frame` knows them."""
    names = (name for name in frame.keywords if not NOT_CARRIED.fullmatch(name) and not WCS.fullmatch(name))
    found = {name: frame.keywords[name] for name in names if frame.keywords[name] == frame.keywords[name]}
    facts = {
        "OBJECT": frame.object,
        "INSTRUME": frame.camera,
        "FILTER": frame.filter,
        "EXPTIME": frame.exposure,
    }
    return found | {name: value for name, value in facts.items() if value not in (None, "")}


def _carried_properties(frame: Frame) -> dict[str, Any]:
    return {
        name: value
        for name, value in frame.properties.items()
        if CARRIED_PROPERTY.fullmatch(name)
        and not NOT_CARRIED_PROPERTY.fullmatch(name)
        and isinstance(value, bool | int | float | str)
    }


def _compare(headers: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values that are equal in all, and the others in words."""
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
    """Several values in a few words."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    counted = Counter(values)
    if len(counted) > 3 and numbers:
        text = f"{min(values):g} to {max(values):g}"
    else:
        shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in counted]
        words = [f"{value} ({n} frames)" for value, n in zip(shown, counted.values(), strict=True)]
        text = ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
    missing = count - len(values)
    return text + (f", not given in {missing} frames" if missing else "")


def keywords(
    result: IntegratedImage, facts: Provenance, lines: Iterable[str], kind: str = "xisf"
) -> list[tuple[str, Any, str]]:
    """FITS keywords of a file of the result, (name, value, comment), HISTORY last.

    World coordinates are those of the reference frame, for the whole image only, and only if that frame
    is a file of the same `kind`: the two formats count rows from different ends.
    """
    count = result.preparation.count
    cards: list[tuple[str, Any, str]] = [("IMAGETYP", "Master Light", "Type of image")]
    cards += [
        (name, value, comment)
        for name, value, comment in (
            ("OBJECT", facts.target, "Target"),
            ("INSTRUME", facts.camera, "Camera"),
            ("FILTER", facts.filter, "Filter"),
        )
        if value
    ]
    cards.append(("NCOMBINE", count, "Frames that were integrated"))
    if facts.without_exposure < count:
        cards.append(("EXPTIME", facts.exposure, "[s] Total exposure of these frames"))
    if facts.start:
        cards.append(("DATE-OBS", _iso(facts.start), "UTC, start of the earliest frame"))
    if facts.end:
        cards.append(("DATE-END", _iso(facts.end), "UTC, end of the latest frame"))
    cards += [(name, value, COMMENTS.get(name, "")) for name, value in facts.common.items()]
    cards += [(name, value, "") for name, value in _world_coordinates(result, kind).items()]
    cards.append(("SWMODIFY", f"stacklib {version('stacklib')}", "Software that integrated the frames"))
    return cards + [("HISTORY", line, "") for line in lines]


def _world_coordinates(result: IntegratedImage, kind: str) -> dict[str, Any]:
    reference = result.preparation.frames[result.preparation.reference]
    whole = result.region == (0, 0, reference.width, reference.height)
    same = reference.name.lower().endswith(".xisf") == (kind == "xisf")
    if not whole or not same or reference.row_order == "bottom-up":
        return {}
    return {name: value for name, value in reference.keywords.items() if WCS.fullmatch(name)}


def _iso(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.") + f"{date.microsecond // 1000:03d}"


def properties(
    result: IntegratedImage, facts: Provenance, lines: Iterable[str], folder: Path
) -> dict[str, Any]:
    """XISF properties of a file of the result.

    ``stacklib:Recipe`` holds the recipe as YAML and ``stacklib:Run`` and ``stacklib:Frames``, as JSON,
    all else that repeats the run: region, rule, versions, and for each frame its path, checksum and
    numbers. All of it is plain ASCII, floats with all their digits.

    Parameters
    ----------
    result, facts, lines
        The result, its facts and its history.
    folder : Path
        Where the file is going to be: relative paths start there.
    """
    found: dict[str, Any] = dict(facts.properties)
    named = {
        "Observation:Object:Name": facts.target,
        "Instrument:Camera:Name": facts.camera,
        "Instrument:Filter:Name": facts.filter,
    }
    found |= {name: ("String", value) for name, value in named.items() if value}
    if facts.start:
        found["Observation:Time:Start"] = ("TimePoint", _iso(facts.start) + "Z")
    if facts.end:
        found["Observation:Time:End"] = ("TimePoint", _iso(facts.end) + "Z")
    if facts.without_exposure < result.preparation.count:
        found["Instrument:ExposureTime"] = float(facts.exposure)
    recipe = yaml.safe_dump(result.recipe.to_dict(), sort_keys=False, allow_unicode=False)
    found["Processing:History"] = ("String", "\n".join(lines))
    found["stacklib:Recipe"] = ("String", recipe)
    found["stacklib:Run"] = ("String", _json(_run_record(result, folder)))
    found["stacklib:Frames"] = ("String", _json(_frame_records(result, facts, folder)))
    return found


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False)


def _run_record(result: IntegratedImage, folder: Path) -> dict[str, Any]:
    p, recipe = result.preparation, result.recipe
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
        "notes": list(p.notes),
    }
    if recipe.weights == "csv":
        path = resolve_path(recipe.weight_file)
        record["weight_file"] = {
            "path": str(path),
            "relative": _relative(path, folder),
            "sha256": _digest(path),
        }
    return record


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


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
            "path": str(frame.path.absolute()),
            "relative": _relative(frame.path, folder),
            "sha256": facts.checksums[i],
            "used": i in used,
            "reason": p.excluded.get(i, ""),
            **{name: _or_none(values[i]) for name, values in columns.items()},
        }
        for i, frame in enumerate(p.frames)
    ]


def _relative(path: Path, folder: Path) -> str | None:
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        # Another drive of Windows.
        return None


def _or_none(values: np.ndarray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
