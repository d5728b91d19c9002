"""Header values of a frame, from XISF properties or FITS keywords."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from stacklib.formats.source import parse_decimal_comma
from stacklib.frames.dates import has_clock, parse_date

__all__ = ["HeaderFacts", "parse_date"]

#: XISF properties and FITS keywords of a fact, in order of preference.
EXPOSURE = ("Instrument:ExposureTime", "EXPTIME", "EXPOSURE")
START = ("Observation:Time:Start", "DATE-OBS")
END = ("Observation:Time:End", "DATE-END")
GAIN = ("Instrument:Camera:Gain", "Instrument:Camera:ISOSpeed", "GAIN", "ISOSPEED")
TEMPERATURE = ("Instrument:Sensor:Temperature", "CCD-TEMP")
#: Exposure times of one header agree within this ratio.
SAME_EXPOSURE = 1.01
#: Day 0 of MJD-OBS.
MJD = datetime(1858, 11, 17, tzinfo=UTC)
#: A number in a text, with its unit: 30 s, -10,5 C.
NUMBER = re.compile(r"([+-]?[\d.,]+(?:[eEdD][+-]?\d+)?)\s*(?:s|secs?|seconds?|°?\s*C|deg\s*C?)?", re.ASCII)


class HeaderFacts:
    """Common header values. XISF properties take precedence over FITS keywords.

    Missing or invalid values are None or an empty string.
    """

    channels: int
    keywords: dict[str, Any]
    properties: dict[str, Any]

    @cached_property
    def exposure(self) -> float | None:
        """Exposure time in seconds, or None."""
        found = [value for value in map(self._number, EXPOSURE) if value is not None and value >= 0]
        # Some drivers write EXPTIME = 0 beside the right EXPOSURE.
        return next((value for value in found if value > 0), found[0] if found else None)

    @cached_property
    def filter(self) -> str:
        """Name of the filter, or an empty string."""
        return self._text("Instrument:Filter:Name", "FILTER")

    @cached_property
    def object(self) -> str:
        """Name of the target, or an empty string."""
        return self._text("Observation:Object:Name", "OBJECT")

    @cached_property
    def camera(self) -> str:
        """Name of the camera, or an empty string."""
        return self._text("Instrument:Camera:Name", "INSTRUME")

    @cached_property
    def gain(self) -> float | None:
        """Gain setting or ISO speed of the camera, or None."""
        return self._number(*GAIN)

    @cached_property
    def temperature(self) -> float | None:
        """Sensor temperature in degrees Celsius, or None."""
        return self._number(*TEMPERATURE)

    @cached_property
    def cfa_pattern(self) -> str:
        """Color filter pattern of the camera, such as ``RGGB``, or an empty string.

        Debayered frames may have it too. Only a frame with one channel is a mosaic.
        """
        return self._text("PCL:CFASourcePattern", "BAYERPAT", "CFAPAT")

    @cached_property
    def date(self) -> datetime | None:
        """Start of the exposure in UTC, or None."""
        for name in START:
            value = self._first(name)
            start = parse_date(value)
            if start is not None:
                # Old headers have separate keywords for date and time.
                clock = None if has_clock(value) else self._first("TIME-OBS", "UT-OBS", "UTC-OBS")
                return parse_date(f"{start:%Y-%m-%d}T{str(clock).strip()}") or start
        days = self._number("MJD-OBS")
        return None if days is None or not 0 < days < 10**6 else MJD + timedelta(days=days)

    @cached_property
    def date_end(self) -> datetime | None:
        """End of the exposure in UTC, or None."""
        return next(filter(None, (parse_date(self._first(name)) for name in END)), None)

    @cached_property
    def unusable(self) -> list[str]:
        """Notes on header values that say nothing usable."""
        notes = []
        if self.exposure and self._number("EXPTIME") == 0:
            notes.append(f"EXPTIME is 0; the exposure time is {self.exposure:g} s by another keyword")
        given = {name: value for name in EXPOSURE if (value := self._number(name) or 0) > 0}
        if given and max(given.values()) > SAME_EXPOSURE * min(given.values()):
            shown = ", ".join(f"{name} {value:g}" for name, value in given.items())
            notes.append(f"exposure times disagree ({shown}); {self.exposure:g} s is used")
        checks: list[tuple[tuple[str, ...], Callable[[Any], Any], str]] = [
            (EXPOSURE, _seconds, "a number of seconds"),
            (GAIN, _as_number, "a number"),
            (TEMPERATURE, _as_number, "a number"),
            (START, parse_date, "a date such as 2024-01-05T22:10:00"),
            (END, parse_date, "a date such as 2024-01-05T22:10:00"),
        ]
        for names, parse, expected in checks:
            for name in names:
                value = self._first(name)
                if value is not None and parse(value) is None:
                    notes.append(f"{name} is {str(value)!r}, expected {expected}; it is left out")
        return notes

    @cached_property
    def noise_keywords(self) -> list[float] | None:
        """Noise of each channel as written at calibration (NOISE00, NOISE01, ...), or None."""
        names = [(f"NOISE{channel:02d}", f"PCL:Noise/{channel}") for channel in range(self.channels)]
        values = [self._number(*pair) or 0.0 for pair in names]
        return values if all(value > 0 for value in values) else None

    def _first(self, *names: str) -> Any:
        """Return the first value found. Only names of XISF properties contain a colon."""
        for name in names:
            value = (self.properties if ":" in name else self.keywords).get(name)
            if value is not None and value != "":
                return value
        return None

    def _text(self, *names: str) -> str:
        value = self._first(*names)
        return "" if value is None else str(value).replace("\n", " ").strip()

    def _number(self, *names: str) -> float | None:
        return next((value for value in map(_as_number, map(self._first, names)) if value is not None), None)


def _as_number(value: Any) -> float | None:
    """Return a finite number, also of a text with decimal comma or unit, or None."""
    if isinstance(value, str):
        found = NUMBER.fullmatch(value.strip())
        text = found[1] if found else ""
        comma = parse_decimal_comma(text)
        value = text.upper().replace("D", "E") if comma is None else comma
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _seconds(value: Any) -> float | None:
    number = _as_number(value)
    return number if number is not None and number >= 0 else None
