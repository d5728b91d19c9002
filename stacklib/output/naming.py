"""Names of the files of a result: night, target, camera and number."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from stacklib.errors import RecipeError
from stacklib.formats.xisf_write import ascii_text
from stacklib.frames.finding import RESULT_FOLDER
from stacklib.frames.frame_set import Frame, FrameSet
from stacklib.frames.headers import parse_date
from stacklib.utils.labels import quoted

__all__ = [
    "SavedFiles",
    "base_name",
    "camera_name",
    "default_folder",
    "file_part",
    "free_number",
    "most_common",
    "night_of",
    "object_name",
]

#: Placeholders for unknown parts of a name.
NO_DATE, NO_OBJECT, NO_CAMERA = "nodate", "noobject", "nocamera"
#: Maximum length of a part. A path on Windows is limited to 260 characters.
LONGEST = 48
#: Longest text that is converted; what is cut off would not be seen.
LONGEST_TEXT = 1000
#: Names that mean devices on Windows, where no file or folder can have them.
RESERVED = re.compile(r"CON|PRN|AUX|NUL|CONIN|CONOUT|(COM|LPT)\d", re.IGNORECASE)

_COLOUR = re.compile(
    r"(?:(?<=\d)|(?<=[A-Za-z0-9])-)(?:MC|MM|mc|mm|C|M)"
    r"(?:[\s_-]*(?:pro|plus|air|duo|mini|max|cool|tec|c|p|v\d))*$",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"[\s_,-]*(?:\((?:[^()]*)\)|\bmain(?:\s+(?:camera|ccd|chip|sensor))?|\bimaging\s+camera)\s*$", re.I
)


@dataclass(frozen=True)
class SavedFiles:
    """The files of a saved result.

    Attributes
    ----------
    images : tuple of Path
        The images, in the order in which `save` returns them.
    table : Path
        The frame table, as ECSV.
    report : Path
        The report, as text.
    masks : Path or None
        The folder with masks of frames, if they were saved.
    drizzle : Path or None
        The folder with drizzle data, if they were saved.
    """

    images: tuple[Path, ...]
    table: Path
    report: Path
    masks: Path | None = None
    drizzle: Path | None = None


def default_folder(frames: FrameSet) -> Path:
    """Return ``5_Integration`` beside the folder of the frames, or in the common parent of their folders."""
    folders = {frame.path.parent.absolute() for frame in frames}
    return (frames.folder.parent if len(folders) == 1 else frames.folder) / RESULT_FOLDER


def base_name(
    frames: Iterable[Frame],
    date: str | datetime.date | None = None,
    object: str | None = None,
    camera: str | None = None,
) -> str:
    """Return ``<date>_<object>_<camera>``, using the headers of the frames for parts that are not given.

    Object and camera are the most common ones. Unknown parts are ``nodate``, ``noobject`` and ``nocamera``.
    """
    frames = list(frames)
    night = _given_date(date) if date else night_of(frames)
    target = file_part(object) if object else object_name(most_common(frame.object for frame in frames))
    device = file_part(camera) if camera else camera_name(most_common(frame.camera for frame in frames))
    return "_".join([night or NO_DATE, target or NO_OBJECT, device or NO_CAMERA])


def most_common(values: Iterable[str]) -> str:
    """Return the most common nonempty string, the first one in a tie, or an empty string."""
    counted = Counter(value for value in values if value)
    return counted.most_common(1)[0][0] if counted else ""


def night_of(frames: Iterable[Frame]) -> str:
    """Return the evening date of the night of the earliest frame, ``YYYYMMDD``. Empty if unknown.

    A night lasts from noon to noon, so frames taken after midnight get the date of the evening before.
    Noon is local if the header of the earliest frame has the local time (DATE-LOC) or the longitude
    (SITELONG, OBSGEO-L, LONG-OBS). Otherwise it is noon UTC, which works from the Americas to India.
    """
    dated = [(frame.date, position, frame) for position, frame in enumerate(frames) if frame.date]
    if not dated:
        return ""
    date, _, frame = min(dated)
    local = parse_date(frame.keywords.get("DATE-LOC"))
    if local is None or abs(local - date) > timedelta(hours=15):
        local = date + timedelta(hours=_longitude(frame) / 15)
    return (local - timedelta(hours=12)).strftime("%Y%m%d")


def _longitude(frame: Frame) -> float:
    """Return the longitude in degrees east, or 0 if it is missing or unclear."""
    names = ("SITELONG", "OBSGEO-L", "LONG-OBS")
    found = [frame.properties.get("Observation:Location:Longitude"), *map(frame.keywords.get, names)]
    return next((degrees for degrees in map(_degrees, found) if degrees is not None), 0.0)


def _degrees(value: Any) -> float | None:
    number = r"(\d+(?:[.,]\d*)?)"
    form = rf"([+-]?){number}(?:[ :]+{number})?(?:[ :]+{number})?\s*([EW]?)"
    parts = re.fullmatch(form, str(value).strip(), re.IGNORECASE)
    if not parts:
        return None
    numbers = [float((part or "0").replace(",", ".")) for part in parts.groups()[1:4]]
    size = sum(part / 60**power for power, part in enumerate(numbers))
    west = parts[1] == "-" or parts[5].upper() == "W"
    return math.copysign(size, -1 if west else 1) if size <= 180 else None


def _given_date(date: str | datetime.date) -> str:
    if isinstance(date, datetime.date):
        return f"{date.year:04d}{date:%m%d}"
    digits = re.fullmatch(r"(\d{4})(-?)(\d\d)\2(\d\d)", str(date).strip(), re.ASCII)
    with contextlib.suppress(ValueError):
        if digits:
            return _given_date(datetime.date(*(int(digits[part]) for part in (1, 3, 4))))
    raise RecipeError(f"date: got {quoted(date)}, expected YYYYMMDD or YYYY-MM-DD, such as 20210815")


def object_name(text: str) -> str:
    """Format a target for a file name: ``NGC 7000`` -> ``NGC7000``, ``Cave Nebula`` -> ``Cave-Nebula``."""
    return file_part(re.sub(r"(?<=[A-Za-z])\s+(?=\d)", "", text))


def camera_name(text: str) -> str:
    """Format a camera for a file name, without spaces and without the suffix for color or mono.

    Also drops what some drivers append: a number in parentheses, the word Main.

    Examples
    --------
    >>> [camera_name(text) for text in ("ZWO ASI294MC Pro", "QSI 583ws", "QHY268M", "Main")]
    ['ZWOASI294', 'QSI583ws', 'QHY268', 'Main']
    """
    name = ascii_text(text).strip()
    for suffix in (_ROLE, _COLOUR):
        name = suffix.sub("", name) or name
    return file_part(re.sub(r"\s+", "", name))


def file_part(text: str) -> str:
    """Convert text to ASCII letters, digits, ``+``, ``-`` and ``_`` for a file name. Long text is cut.

    Examples
    --------
    >>> [file_part(text) for text in ("Cygnus Loop/\u03b1", "..\\x", "AUX")]
    ['Cygnus-Loop-u03b1', 'x', 'AUX_']
    """
    plain = re.sub(r"['`\"]", "", ascii_text(str(text)[:LONGEST_TEXT]))
    part = re.sub(r"[^A-Za-z0-9+_]+", "-", plain)[:LONGEST].strip("-_")
    return f"{part}_" if RESERVED.fullmatch(part) else part


def free_number(folder: Path, base: str, start: int = 0) -> int:
    """Return the first number from `start` that is not used by a file ``<base>_<number>...`` in `folder`."""
    # Some file systems are not case-sensitive.
    pattern = re.compile(re.escape(base) + r"_(\d{4,})(?!\d)", re.IGNORECASE)
    found = (pattern.match(name) for name in os.listdir(folder))  # noqa: PTH208
    taken = {int(match[1]) for match in found if match}
    return next(number for number in itertools.count(start) if number not in taken)
