"""The output of the kernel: planes of pixels, and counts of the samples of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stacklib.normalization.settings import Settings
from stacklib.recipe.rules import RULES

__all__ = [
    "DATA",
    "RANGE_HIGH",
    "RANGE_LOW",
    "REJECTED_HIGH",
    "REJECTED_LOW",
    "Counts",
    "Judgement",
    "Pixels",
    "Ratios",
    "count_type",
]


#: Fewer frames than this are counted in one byte.
ONE_BYTE = 256


def count_type(frames: int) -> np.dtype:
    """Return the type of numbers of frames."""
    return np.dtype(np.uint8 if frames < ONE_BYTE else np.uint16)


class Pixels(NamedTuple):
    """Results by pixel: float32 arrays of one shape, (pixels,) for the kernel.

    `image` is float64 if the recipe asks for 64 bits.

    `image` is 0 where there is no data. `uncertainty` is the standard error, NaN with fewer than 2 samples,
    empty if not wanted. `rejection_low` and `rejection_high` are the numbers of samples rejected as too low
    and as too high, `coverage` the number of samples that are data, saturated ones included. `slope` is that
    of the linear fit, per frame, empty for other rules. `ratio` is the variance of the samples relative to
    the noise curve, empty if not wanted. `excess` is an input: how far the noise around each pixel exceeds
    the curve, empty if that is not known yet; see `stacklib.kernel.scatter.find_excess`.
    """

    image: np.ndarray
    uncertainty: np.ndarray
    rejection_low: np.ndarray
    rejection_high: np.ndarray
    coverage: np.ndarray
    slope: np.ndarray
    ratio: np.ndarray
    excess: np.ndarray

    @classmethod
    def empty(
        cls,
        shape: int | tuple[int, ...],
        settings: Settings,
        with_uncertainty: bool = True,
        excess: np.ndarray | None = None,
    ) -> Pixels:
        """Create arrays to be filled; those that are not wanted have no pixels.

        The variance relative to the noise curve is wanted with an uncertainty, unless its `excess` is known.
        """
        shape = np.atleast_1d(shape)
        image = np.empty(shape, f"float{settings.recipe.output_bits}")
        low, high, coverage = (np.empty(shape, np.float32) for _ in range(3))
        with_slope = RULES[settings.recipe.rule_for(settings.frames)].gives_slope
        uncertainty, slope, ratio = (
            np.empty(shape if wanted else (*shape[:-1], 0), np.float32)
            for wanted in (with_uncertainty, with_slope, with_uncertainty and excess is None)
        )
        return cls(
            image=image,
            uncertainty=uncertainty,
            rejection_low=low,
            rejection_high=high,
            coverage=coverage,
            slope=slope,
            ratio=ratio,
            excess=np.empty((*shape[:-1], 0), np.float32) if excess is None else excess,
        )

    def part(self, index: int | slice | tuple[int, slice]) -> Pixels:
        """Return views of one channel, or of some of the pixels."""
        return Pixels(*(array[index] for array in self))


class Ratios(NamedTuple):
    """What `stacklib.kernel.scatter` needs to find the excess of the noise, float32 arrays of one shape.

    See `Pixels` for `ratio` and `coverage`. `level` is the median of the samples of a pixel, `sigma` the
    noise of a frame of relative noise 1 at that level.
    """

    ratio: np.ndarray
    coverage: np.ndarray
    level: np.ndarray
    sigma: np.ndarray

    @classmethod
    def empty(cls, shape: int | tuple[int, ...]) -> Ratios:
        """Create arrays to be filled."""
        return cls(*(np.empty(shape, np.float32) for _ in range(4)))

    def part(self, index: int | slice) -> Ratios:
        """Return views of one channel, or of some of the pixels."""
        return Ratios(*(array[index] for array in self))


class Judgement(NamedTuple):
    """What a rule leaves of the compared samples: planes of one shape, for rejection that looks at neighbors.

    `mean` is the weighted mean of the kept samples as they are compared, NaN without any, `weight` the sum of
    their weights, `ratio` the variance of all samples relative to the noise curve, all float32, and `number`
    their number, an integer. `excess` is an input, see `Pixels`.
    """

    mean: np.ndarray
    weight: np.ndarray
    ratio: np.ndarray
    number: np.ndarray
    excess: np.ndarray

    @classmethod
    def empty(cls, shape: int | tuple[int, ...], frames: int, excess: np.ndarray) -> Judgement:
        """Create planes to be filled."""
        mean, weight, ratio = (np.empty(shape, np.float32) for _ in range(3))
        return cls(mean, weight, ratio, np.empty(shape, count_type(frames)), excess)

    def part(self, index: int | tuple[int, slice]) -> Judgement:
        """Return views of one channel, or of some of the pixels of one."""
        return Judgement(*(array[index] for array in self))


#: Rows of the table of counts.
REJECTED_LOW, REJECTED_HIGH, RANGE_LOW, RANGE_HIGH, DATA = range(5)


@dataclass
class Counts:
    """Number of samples of each frame by verdict.

    Attributes
    ----------
    table : ndarray of int64, shape (5, frames)
        One row for each of the properties; one array for compiled code.
    """

    table: np.ndarray

    @classmethod
    def zeros(cls, frames: int) -> Counts:
        """Create counts of zero."""
        return cls(np.zeros((5, frames), np.int64))

    def add(self, other: Counts) -> None:
        """Add the counts of another part of the image."""
        self.table += other.table

    @property
    def low(self) -> np.ndarray:
        """Samples that the rule rejected as too low, (frames,)."""
        return self.table[REJECTED_LOW]

    @property
    def high(self) -> np.ndarray:
        """Samples that the rule rejected as too high, (frames,)."""
        return self.table[REJECTED_HIGH]

    @property
    def range_low(self) -> np.ndarray:
        """Samples at or below the low range limit, (frames,)."""
        return self.table[RANGE_LOW]

    @property
    def range_high(self) -> np.ndarray:
        """Samples at or above the high range limit, (frames,)."""
        return self.table[RANGE_HIGH]

    @property
    def data(self) -> np.ndarray:
        """Samples that take part, rejected or not, (frames,)."""
        return self.table[DATA]
