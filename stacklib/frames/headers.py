"""Header values of a frame, from XISF properties or FITS keywords."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

__all__ = ["HeaderFacts", "parse_date"]


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
        value = self._number("Instrument:ExposureTime", "EXPTIME", "EXPOSURE")
        return value if value is not None and value >= 0 else None

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
        return self._number("Instrument:Camera:Gain", "Instrument:Camera:ISOSpeed", "GAIN", "ISOSPEED")

    @cached_property
    def temperature(self) -> float | None:
        """Sensor temperature in degrees Celsius, or None."""
        return self._number("Instrument:Sensor:Temperature", "CCD-TEMP")

    @cached_property
    def cfa_pattern(self) -> str:
        """Color filter pattern of the camera, such as ``RGGB``, or an empty string.

        Debayered frames may have it too. Only a frame with one channel is a mosaic.
        """
        return self._text("PCL:CFASourcePattern", "BAYERPAT", "CFAPAT")

    @cached_property
    def date(self) -> datetime | None:
        """Start of the exposure in UTC, or None."""
        start = parse_date(self._first("Observation:Time:Start", "DATE-OBS"))
        clock = self._first("TIME-OBS", "UT-OBS")
        if start is not None and isinstance(clock, str) and len(str(self._first("DATE-OBS"))) == 10:
            # Old headers have separate keywords for date and time.
            return parse_date(f"{start:%Y-%m-%d}T{clock}") or start
        return start

    @cached_property
    def date_end(self) -> datetime | None:
        """End of the exposure in UTC, or None."""
        return parse_date(self._first("Observation:Time:End", "DATE-END"))

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
        for name in names:
            try:
                value = float(self._first(name))
            except (TypeError, ValueError):
                continue
            if math.isfinite(value):
                return value
        return None


def parse_date(value: Any) -> datetime | None:
    """Parse a date and time from a header. Returns it in UTC, or None if it is invalid.

    A time zone offset is applied (``2019-01-01T02:03:04-0700``). Without one, the time is UTC.
    """
    text = str(value or "").strip()
    old = re.fullmatch(r"(\d\d)/(\d\d)/(\d\d)", text)
    if old:
        # The FITS format before 1999.
        text = f"19{old[3]}-{old[2]}-{old[1]}"
    try:
        date = datetime.fromisoformat(text)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
