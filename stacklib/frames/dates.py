"""Dates of headers, in the forms that cameras and programs write."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

__all__ = ["has_clock", "parse_date"]

MONTHS = {name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}  # noqa: SIM905

#: Time of day, perhaps with a time zone, at the end of a text.
CLOCK = re.compile(
    r"(?:^|[T\s,_]+)(?P<hour>\d{1,2})(?P<sign>[:-])(?P<minute>\d{1,2})"
    r"(?:(?P=sign)(?P<second>\d{1,2}(?:[.,]\d*)?))?\s*(?P<half>[ap]m)?"
    r"\s*(?P<zone>Z|UTC?|GMT|[+-]\d\d:?\d\d)?$",
    re.ASCII | re.IGNORECASE,
)
DAY = r"(?P<day>\d{1,2})"
NAME = r"(?P<name>[a-z]{3})[a-z]*\.?"
#: Forms of a day without ambiguity. With slashes and the year last, day and month may be either way around.
DAYS = [
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        rf"(?P<year>\d{{4}})([-/.:_ ])(?P<month>\d{{1,2}})\2{DAY}",
        rf"{DAY}\.(?P<month>\d{{1,2}})\.(?P<year>\d{{4}})",
        r"(?P<first>\d{1,2})([-/])(?P<second>\d{1,2})\2(?P<year>\d{4})",
        rf"{DAY}[- ]{NAME}[- ](?P<year>\d{{4}})",
        rf"{NAME}[- ]{DAY},?[- ](?P<year>\d{{4}})",
        rf"(?P<year>\d{{4}})[- ]{NAME}[- ]{DAY}",
    )
]
#: The form of the C library: Fri Jan  5 22:10:00 2024.
ASCTIME = re.compile(r"([A-Za-z]{3})\s+(\d{1,2})\s+([\d:.]+)\s+(\d{4})", re.ASCII)
WEEKDAY = re.compile(r"(mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+", re.IGNORECASE)


def has_clock(value: Any) -> bool:
    """Return whether a date of a header has a time of day."""
    return bool(re.search(r"\d:\d|\dT\d", str(value)))


def parse_date(value: Any) -> datetime | None:
    """Parse a date and time from a header. Returns it in UTC, or None if it is invalid or ambiguous.

    A time zone offset is applied (``2019-01-01T02:03:04-0700``). Without one, the time is UTC.

    Examples
    --------
    >>> parse_date("2024/01/05 22:10:00").isoformat()
    '2024-01-05T22:10:00+00:00'
    >>> parse_date("05.01.2024 22:10:00,5").isoformat()
    '2024-01-05T22:10:00.500000+00:00'
    >>> parse_date("05/01/2024") is None
    True
    """
    text = str(value or "").strip()
    old = re.fullmatch(r"(\d\d)/(\d\d)/(\d\d)", text, re.ASCII)
    if old:
        # The FITS format before 1999, which some programs still write.
        text = f"{'20' if old[3] < '70' else '19'}{old[3]}-{old[2]}-{old[1]}"
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        try:
            return _parse_other(text)
        except (ValueError, OverflowError):
            return None
    try:
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except OverflowError:
        return None


def _parse_other(text: str) -> datetime | None:
    """Parse a date that is not in the ISO format."""
    text = ASCTIME.sub(r"\1 \2 \4 \3", WEEKDAY.sub("", text, count=1))
    clock = CLOCK.search(text)
    day = _parse_day(text[: clock.start()] if clock else text)
    if day is None or clock is None:
        return day
    hour = int(clock["hour"])
    if clock["half"]:
        hour = hour % 12 + 12 * (clock["half"].lower() == "pm")
    minute, second = int(clock["minute"]), float((clock["second"] or "0").replace(",", "."))
    # 24:00:00 and 23:59:60 are the next day.
    if hour > 24 or minute > 60 or second > 60:
        return None
    offset = _offset(clock["zone"] or "")
    date = day + timedelta(hours=hour, minutes=minute, microseconds=round(second * 1e6))
    return date.replace(tzinfo=timezone(offset)).astimezone(UTC)


def _offset(zone: str) -> timedelta:
    digits = re.fullmatch(r"([+-])(\d\d):?(\d\d)", zone)
    if not digits:
        return timedelta(0)
    return (-1 if digits[1] == "-" else 1) * timedelta(hours=int(digits[2]), minutes=int(digits[3]))


def _parse_day(text: str) -> datetime | None:
    found = next(filter(None, (form.fullmatch(text.strip(" ,_T")) for form in DAYS)), None)
    if found is None:
        return None
    parts = found.groupdict()
    if parts.get("first"):
        first, second = int(parts["first"]), int(parts["second"])
        if first <= 12 and second <= 12 and first != second:
            return None
        day, month = (first, second) if first > 12 else (second, first)
    else:
        day = int(parts["day"])
        month = int(parts["month"]) if parts.get("month") else MONTHS.get(parts["name"].lower(), 0)
    return datetime(int(parts["year"]), month, day, tzinfo=UTC)
