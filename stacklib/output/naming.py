"""Names of the files of a result: night, target, camera and a running number."""

from __future__ import annotations

import datetime
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from stacklib.errors import RecipeError
from stacklib.formats.xisf_write import ascii_text
from stacklib.frames.frame_set import Frame, FrameSet
from stacklib.frames.headers import parse_date

__all__ = [
    "base_name",
    "camera_name",
    "default_folder",
    "file_part",
    "free_number",
    "most_common",
    "night_of",
    "object_name",
]

#: Name of the folder for results, beside the folder of the frames.
RESULT_FOLDER = "5_Integration"
#: What stands in a name for what neither the headers nor the user say.
NO_DATE, NO_OBJECT, NO_CAMERA = "nodate", "noobject", "nocamera"
#: Longest part of a name: with the folder it must stay within the 260 characters of Windows.
LONGEST = 48

_COLOUR = re.compile(
    r"(?:(?<=\d)|(?<=[A-Za-z0-9])-)(?:MC|MM|mc|mm|C|M)"
    r"(?:[\s_-]*(?:pro|plus|air|duo|mini|max|cool|tec|c|p|v\d))*$",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"[\s_,-]*(?:\((?:[^()]*)\)|\bmain(?:\s+(?:camera|ccd|chip|sensor))?|\bimaging\s+camera)\s*$", re.I
)


def default_folder(frames: FrameSet) -> Path:
    """The folder ``5_Integration`` beside the folder of the frames.

    Frames of several folders (nights, say) get it inside the nearest folder that holds them all.
    """
    folders = {frame.path.parent.absolute() for frame in frames}
    return (frames.folder.parent if len(folders) == 1 else frames.folder) / RESULT_FOLDER


def base_name(
    frames: Iterable[Frame],
    date: str | datetime.date | None = None,
    object: str | None = None,
    camera: str | None = None,
) -> str:
    """``<date>_<object>_<camera>``, what is not given from the headers of the frames.

    Object and camera are the ones that most frames name. Where all are silent, the words ``nodate``,
    ``noobject`` and ``nocamera`` stand in.
    """
    frames = list(frames)
    night = _given_date(date) if date else night_of(frames)
    target = file_part(object) if object else object_name(most_common(frame.object for frame in frames))
    device = file_part(camera) if camera else camera_name(most_common(frame.camera for frame in frames))
    return "_".join([night or NO_DATE, target or NO_OBJECT, device or NO_CAMERA])


def most_common(values: Iterable[str]) -> str:
    """The text that occurs most often, the earlier one on a tie; empty where there is none."""
    counted = Counter(value for value in values if value)
    return counted.most_common(1)[0][0] if counted else ""


def night_of(frames: Iterable[Frame]) -> str:
    """The evening of the night in which the first frame was taken, ``YYYYMMDD``; empty if unknown.

    A night lasts from noon to noon: frames from before and after midnight bear the date of the evening,
    as observers count. Noon is that of the site where the header of the earliest frame tells the local
    time (DATE-LOC) or the longitude (SITELONG, OBSGEO-L, LONG-OBS), else noon UTC, which is right from
    the Americas to India.
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
    """Degrees east of Greenwich; 0 where the header does not tell, or not in a clear way."""
    keywords = frame.keywords
    names = ("SITELONG", "OBSGEO-L", "LONG-OBS")
    found = [frame.properties.get("Observation:Location:Longitude"), *(keywords.get(name) for name in names)]
    for value in found:
        degrees = _degrees(value)
        if degrees is not None:
            return degrees
    return 0.0


def _degrees(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    parts = re.fullmatch(
        r"([+-]?)(\d+(?:\.\d*)?)(?:[ :]+(\d+(?:\.\d*)?))?(?:[ :]+(\d+(?:\.\d*)?))?", str(value).strip()
    )
    if not parts:
        return None
    size = sum(float(part or 0) / 60**power for power, part in enumerate(parts.groups()[1:]))
    return math.copysign(size, -1 if parts[1] == "-" else 1) if size <= 180 else None


def _given_date(date: str | datetime.date) -> str:
    if isinstance(date, datetime.date):
        return date.strftime("%Y%m%d")
    digits = re.fullmatch(r"(\d{4})(-?)(\d\d)\2(\d\d)", str(date).strip(), re.ASCII)
    try:
        return datetime.date(*(int(digits[part]) for part in (1, 3, 4))).strftime("%Y%m%d")
    except (TypeError, ValueError):
        raise RecipeError(f"date: got {date!r}, expected YYYYMMDD or YYYY-MM-DD, such as 20210815") from None


def object_name(text: str) -> str:
    """The target as part of a name: ``NGC 7000`` -> ``NGC7000``, ``Cave Nebula`` -> ``Cave-Nebula``."""
    return file_part(re.sub(r"(?<=[A-Za-z])\s+(?=\d)", "", text))


def camera_name(text: str) -> str:
    """The camera as part of a name: without spaces and without the suffix for colour or mono.

    Also without what some drivers add: a number in parentheses, the word Main.

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
    """`text` as a part of a file name that every system allows: ASCII letters, digits, ``+``, ``-``, ``_``.

    Accents are dropped; what is not allowed becomes a hyphen, long texts are cut.
    """
    plain = re.sub(r"['`\"]", "", ascii_text(str(text)))
    plain = re.sub(r"[^A-Za-z0-9+_-]+", "-", plain)
    return re.sub(r"-{2,}", "-", plain)[:LONGEST].strip("-_")


def free_number(folder: Path, base: str, start: int = 0) -> int:
    """The first number from `start` on that no file ``<base>_<number>...`` of `folder` bears."""
    # Some file systems do not tell upper case from lower case.
    pattern = re.compile(re.escape(base) + r"_(\d{4,})(?!\d)", re.IGNORECASE)
    found = (pattern.match(name) for name in os.listdir(folder))  # noqa: PTH208
    taken = {int(match[1]) for match in found if match}
    number = start
    while number in taken:
        number += 1
    return number
