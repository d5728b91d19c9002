"""Light of one image relative to another one: the slope of values over those of the other one."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled
from stacklib.utils.ranks import middle_of

__all__ = [
    "FEWEST",
    "NO_LIGHT",
    "Light",
    "clipped_slope",
]

#: Fewest stars that tell the light of an image.
FEWEST = 5


class Light(NamedTuple):
    """Light of an image relative to another one, its standard error, and the number of stars or pixels."""

    ratio: float
    error: float
    count: int

    @property
    def known(self) -> bool:
        """Whether there is light that differs from none."""
        return self.count >= FEWEST and self.ratio > 5 * self.error


NO_LIGHT = Light(math.nan, math.nan, 0)


NO_LIGHT = Light(math.nan, math.nan, 0)


@compiled
def clipped_slope(own, others, noise, fraction, slope, centred, independent):
    """Return the slope of values over others, clipped at 3 sigma, from a first value on; see `Light`.

    The error of a value is its noise and a `fraction` of it. Residuals are clipped about their median if
    `centred`, else about 0. `independent` values in a row have the same noise.
    """
    spread, weight, kept = 1.0, 0.0, 0
    z, away, variance = np.empty(own.size), np.empty(own.size), np.empty(own.size)
    for _ in range(20):
        for i in range(own.size):
            variance[i] = noise[i] ** 2 + (fraction * slope * others[i]) ** 2
            z[i] = (own[i] - slope * others[i]) / math.sqrt(variance[i])
        middle = middle_of(z) if centred else 0.0
        for i in range(own.size):
            away[i] = abs(z[i] - middle)
        spread = max(1.0, 1.4826 * middle_of(away))
        total, weight, kept = 0.0, 0.0, 0
        for i in range(own.size):
            if away[i] < 3 * spread:
                total += others[i] / variance[i] * own[i]
                weight += others[i] / variance[i] * others[i]
                kept += 1
        last, slope = slope, total / weight
        if abs(slope - last) < 1e-7 * abs(slope):
            break
    if not (math.isfinite(slope) and slope > 0):
        return np.nan, np.nan, 0
    return slope, spread * math.sqrt(independent / weight), kept
