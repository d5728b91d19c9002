"""The output of the kernel: planes of pixels, and counts of the samples of each frame."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.normalization.settings import Settings
from stacklib.recipe.rules import RULES

__all__ = ["Counts", "Pixels"]


class Pixels(NamedTuple):
    """Results by pixel: float32 arrays of one shape, (pixels,) for the kernel.

    `image` is 0 where there is no data. `uncertainty` is the standard error from the scatter of the samples,
    NaN with fewer than 2 samples, empty if not wanted. `rejection_low` and `rejection_high` are the numbers
    of samples rejected as too low and as too high, `coverage` the number of samples that are data, saturated
    ones included. `slope` is that of the linear fit, per frame, empty for other rules.
    """

    image: np.ndarray
    uncertainty: np.ndarray
    rejection_low: np.ndarray
    rejection_high: np.ndarray
    coverage: np.ndarray
    slope: np.ndarray

    @classmethod
    def empty(cls, shape: int | tuple[int, ...], settings: Settings, with_uncertainty: bool = True) -> Pixels:
        """Create arrays to be filled; `uncertainty` and `slope` have no pixels if not wanted."""
        shape = np.atleast_1d(shape)
        image, low, high, coverage = (np.empty(shape, np.float32) for _ in range(4))
        with_slope = RULES[settings.recipe.rule_for(settings.frames)].gives_slope
        uncertainty, slope = (
            np.empty(shape if wanted else (*shape[:-1], 0), np.float32)
            for wanted in (with_uncertainty, with_slope)
        )
        return cls(
            image=image,
            uncertainty=uncertainty,
            rejection_low=low,
            rejection_high=high,
            coverage=coverage,
            slope=slope,
        )

    def part(self, index: int | slice) -> Pixels:
        """Return views of one channel, or of some of the pixels."""
        return Pixels(*(array[index] for array in self))


class Counts(NamedTuple):
    """Number of samples of each frame by verdict: int64 arrays of shape (frames,).

    `low` and `high` are rejected by the rule, `range_low` at or below the low range limit, `range_high` at or
    above the high one. `data` take part, rejected or not.
    """

    low: np.ndarray
    high: np.ndarray
    range_low: np.ndarray
    range_high: np.ndarray
    data: np.ndarray

    @classmethod
    def zeros(cls, frames: int) -> Counts:
        """Create counts of zero."""
        return cls(*(np.zeros(frames, np.int64) for _ in cls._fields))

    def add(self, other: Counts) -> None:
        """Add the counts of another part of the image."""
        for own, others in zip(self, other, strict=True):
            own += others
