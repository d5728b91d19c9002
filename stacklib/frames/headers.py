"""Header values of a frame, from XISF properties or FITS keywords."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from stacklib.formats.source import parse_decimal_comma
from stacklib.frames.dates import has_clock, parse_date
from stacklib.utils.labels import counted, quoted
from stacklib.utils.texts import one_line

__all__ = ["HeaderFacts", "parse_date"]

#: XISF properties and FITS keywords of a fact, in order of preference.
EXPOSURE = ("Instrument:ExposureTime", "EXPTIME", "EXPOSURE")
START = ("Observation:Time:Start", "DATE-OBS")
#: Time of day, where the date has none.
CLOCK = ("TIME-OBS", "UT-OBS", "UTC-OBS")
END = ("Observation:Time:End", "DATE-END")
GAIN = ("Instrument:Camera:Gain", "Instrument:Camera:ISOSpeed", "GAIN", "ISOSPEED")
TEMPERATURE = ("Instrument:Sensor:Temperature", "CCD-TEMP")
TARGET = ("Observation:Object:Name", "OBJECT")
FILTER = ("Instrument:Filter:Name", "FILTER")
CAMERA = ("Instrument:Camera:Name", "INSTRUME")
PATTERN = ("PCL:CFASourcePattern", "BAYERPAT", "CFAPAT")
#: Exposure times of one header agree within this ratio.
SAME_EXPOSURE = 1.01
#: Longest exposure, in seconds: three years, more than any frame or master has.
LONGEST_EXPOSURE = 1e8
#: Gains, with those in ISO, and temperatures in degrees Celsius that a camera may have.
GAINS = (-1e7, 1e7)
TEMPERATURES = (-273.15, 200.0)
#: First and last year of an observation. Clocks that were never set say 1 or 9999.
FIRST_YEAR, LAST_YEAR = 1900, 2200
#: Largest noise, in ADU: more than the range of any integers.
LARGEST_NOISE = 2.0**32
#: Longest text of a target, filter or camera.
LONGEST_TEXT = 1000
#: Day 0 of MJD-OBS.
MJD = datetime(1858, 11, 17, tzinfo=UTC)
#: Largest pedestal in ADU.
PEDESTAL = 65535.0
#: A number in a text, with its unit: 30 s, -10,5 C.
NUMBER = re.compile(r"([+-]?[\d.,]+(?:[eEdD][+-]?\d+)?)\s*(?:s|secs?|seconds?|°?\s*C|deg\s*C?)?", re.ASCII)


class HeaderFacts:
    """Common header values. XISF properties take precedence over FITS keywords.

    Missing values and those of another type or beyond any plausible range are None or an empty string.
    """

    channels: int
    keywords: dict[str, Any]
    properties: dict[str, Any]

    @cached_property
    def exposure(self) -> float | None:
        """Exposure time in seconds, or None."""
        found = [value for value in (self._parsed(_seconds, name) for name in EXPOSURE) if value is not None]
        # Some drivers write EXPTIME = 0 beside the right EXPOSURE.
        return next((value for value in found if value > 0), found[0] if found else None)

    @cached_property
    def filter(self) -> str:
        """Name of the filter, or an empty string."""
        return self._text(*FILTER)

    @cached_property
    def object(self) -> str:
        """Name of the target, or an empty string."""
        return self._text(*TARGET)

    @cached_property
    def camera(self) -> str:
        """Name of the camera, or an empty string."""
        return self._text(*CAMERA)

    @cached_property
    def gain(self) -> float | None:
        """Gain setting or ISO speed of the camera, or None."""
        return self._parsed(_gain, *GAIN)

    @cached_property
    def pedestal(self) -> float:
        """Constant that calibration added to all samples (PEDESTAL), in ADU; 0 if there is none.

        PixInsight writes the value to subtract; MaxIm DL and others following SBIG write the value to add,
        which is negative.
        """
        return abs(self._parsed(_pedestal, "PEDESTAL") or 0.0)

    @cached_property
    def temperature(self) -> float | None:
        """Sensor temperature in degrees Celsius, or None."""
        return self._parsed(_celsius, *TEMPERATURE)

    @cached_property
    def cfa_pattern(self) -> str:
        """Color filter pattern of the camera, such as ``RGGB``, or an empty string.

        Debayered frames may have it too. Only a frame with one channel is a mosaic.
        """
        return self._text(*PATTERN)

    @cached_property
    def date(self) -> datetime | None:
        """Start of the exposure in UTC, or None."""
        for name in START:
            value = self._first(name)
            start = _observed(value)
            if start is not None:
                # Old headers have separate keywords for date and time.
                clock = None if has_clock(value) else self._first(*CLOCK)
                return _observed(f"{start:%Y-%m-%d}T{str(clock).strip()}") or start
        days = self._parsed(_as_number, "MJD-OBS")
        return None if days is None or not 0 < days < 10**6 else _observed(MJD + timedelta(days=days))

    @cached_property
    def date_end(self) -> datetime | None:
        """End of the exposure in UTC, or None."""
        return next(filter(None, (_observed(self._first(name)) for name in END)), None)

    @cached_property
    def unusable(self) -> list[str]:
        """Notes on header values that say nothing usable."""
        notes = []
        if self.exposure and self._parsed(_as_number, "EXPTIME") == 0:
            notes.append(f"EXPTIME is 0; the exposure time is {self.exposure:g} s by another keyword")
        given = {name: value for name in EXPOSURE if (value := self._parsed(_seconds, name) or 0) > 0}
        if given and max(given.values()) > SAME_EXPOSURE * min(given.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in given.items())
            notes.append(f"exposure times disagree ({shown}); {self.exposure:g} s is used")
        days = self._value("MJD-OBS")
        if days is not None and self.date is None:
            notes.append(f"MJD-OBS is {_shown(days)}, expected days since 1858-11-17; it is left out")
        dates = (self._first(name) for name in START)
        day = next((value for value in dates if _observed(value) is not None), None)
        # The time of day counts where the date has none.
        name = next((name for name in CLOCK if _is_scalar(self._value(name))), "")
        if day is not None and not has_clock(day) and name:
            clock = self._value(name)
            if _observed(f"2000-01-01T{str(clock).strip()}") is None:
                expected = "a time such as 21:10:05; midnight is taken as the start"
                notes.append(f"{name} is {_shown(clock)}, expected {expected}")
        held = self.keywords.keys() | self.properties.keys()
        for names, parse, expected in _CHECKS:
            for name in [] if held.isdisjoint(names) else names:
                value = self._value(name)
                if value is not None and (not _is_scalar(value) or parse(value) is None):
                    notes.append(f"{name} is {_shown(value)}, expected {expected}; it is left out")
        return notes

    @cached_property
    def noise_keywords(self) -> list[float] | None:
        """Noise of each channel as written at calibration (NOISE00, NOISE01, ...), or None."""
        names = [(f"NOISE{channel:02d}", f"PCL:Noise/{channel}") for channel in range(self.channels)]
        values = [self._parsed(_as_number, *pair) or 0.0 for pair in names]
        return values if all(0 < value <= LARGEST_NOISE for value in values) else None

    def _value(self, name: str) -> Any:
        """Return what the header holds, None for nothing. Only names of XISF properties contain a colon."""
        value = (self.properties if ":" in name else self.keywords).get(name)
        return None if isinstance(value, str) and not value else value

    def _first(self, *names: str) -> Any:
        """Return the first value found that is a number or a text."""
        return next(filter(_is_scalar, map(self._value, names)), None)

    def _text(self, *names: str) -> str:
        found = (one_line(" ".join(str(self._first(name) or "").split())) for name in names)
        return next((text for text in found if 0 < len(text) <= LONGEST_TEXT), "")

    def _parsed(self, parse: Callable[[Any], float | None], *names: str) -> float | None:
        """Return the first value that can be used."""
        found = (parse(self._first(name)) for name in names)
        return next((value for value in found if value is not None), None)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _shown(value: Any) -> str:
    """Return a value in quotes, or what it is in words."""
    return quoted(str(value)) if _is_scalar(value) else f"a list of {counted(np.size(value), 'value')}"


def _as_number(value: Any) -> float | None:
    """Return a finite number, also of a text with decimal comma or unit, or None. A switch is no number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        found = NUMBER.fullmatch(value.strip())
        text = found[1] if found else ""
        comma = parse_decimal_comma(text)
        value = text.upper().replace("D", "E") if comma is None else comma
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _within(value: Any, low: float, high: float) -> float | None:
    number = _as_number(value)
    return number if number is not None and low <= number <= high else None


def _seconds(value: Any) -> float | None:
    return _within(value, 0, LONGEST_EXPOSURE)


def _gain(value: Any) -> float | None:
    return _within(value, *GAINS)


def _pedestal(value: Any) -> float | None:
    return _within(value, -PEDESTAL, PEDESTAL)


def _celsius(value: Any) -> float | None:
    return _within(value, *TEMPERATURES)


def _observed(value: Any) -> datetime | None:
    """Parse the date of an observation. None if it is before photography or in a distant future."""
    date = value if isinstance(value, datetime) else parse_date(value)
    return date if date is not None and FIRST_YEAR <= date.year <= LAST_YEAR else None


def _short(value: Any) -> str | None:
    return value if len(str(value)) <= LONGEST_TEXT else None


_DATE = f"a date of {FIRST_YEAR} to {LAST_YEAR} such as 2024-01-05T22:10:00"
#: Keywords that are looked at: how they are parsed, and what is expected.
_CHECKS: list[tuple[tuple[str, ...], Callable[[Any], Any], str]] = [
    (EXPOSURE, _seconds, f"seconds, 0 to {LONGEST_EXPOSURE:g}"),
    (GAIN, _gain, f"a number, {GAINS[0]:g} to {GAINS[1]:g}"),
    (("PEDESTAL",), _pedestal, f"ADU, up to {PEDESTAL:g}"),
    (TEMPERATURE, _celsius, f"degrees Celsius, {TEMPERATURES[0]:g} to {TEMPERATURES[1]:g}"),
    (START, _observed, _DATE),
    (END, _observed, _DATE),
    ((*TARGET, *FILTER, *CAMERA, *PATTERN), _short, f"a text of at most {LONGEST_TEXT} characters"),
]
