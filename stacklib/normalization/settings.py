"""Settings of the kernel for one channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stacklib.recipe.recipe import Recipe

__all__ = ["HALF_STEP", "Settings"]

#: Smallest scale of quantized data in steps. The standard deviation of rounding is .29 steps, but where most
#: samples are equal the others are a whole step away, which at the usual 3 sigma would be too far. The excess
#: is for rounding to float32.
HALF_STEP = 0.505


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the kernel for one channel, as plain arrays, float64 (frames,).

    A sample is compared as ``x * rejection_factor + rejection_offset`` and combined as ``x * factor +
    offset``. `floor` is the smallest scale that a rule accepts, in normalized units: half a quantization
    step, 0 for data that are not quantized. `full_scale` is the ADU at the value 1. `noise` is the noise of
    the compared samples of each frame relative to the quietest one, by default equal, and `curve`, float64
    (2, knots), levels and variances of a frame of noise 1, see `stacklib.normalization.noise_curve`; None if
    it is only known from the samples of each pixel. `contrast` is the further variance in the cores
    of stars, relative to the square of their bend. `period` is that of the color filter pattern, `places`,
    float64 (period, period), the noise of its places relative to the curve; None for equal noise. `claims`,
    (hits, frames + 1, frames + 1), corrects the standard error of a pixel for rejection, see
    `stacklib.kernel.uncertainty`; None for no correction.
    `bounds` are the limits of `data_range` in the units of the samples, by default those of the recipe.
    """

    recipe: Recipe
    rejection_factor: np.ndarray
    rejection_offset: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    floor: float = 0.0
    full_scale: float = 65535.0
    noise: np.ndarray | None = None
    curve: np.ndarray | None = None
    contrast: float = 0.0
    period: int = 1
    places: np.ndarray | None = None
    claims: np.ndarray | None = None
    bounds: tuple[float, float] | None = None

    @classmethod
    def plain(cls, recipe: Recipe, frames: int) -> Settings:
        """Create settings without normalization and with equal weights."""
        one, zero = np.ones(frames), np.zeros(frames)
        return cls(
            recipe=recipe,
            rejection_factor=one,
            rejection_offset=zero,
            factor=one,
            offset=zero,
            weights=one,
        )

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.weights.size

    @property
    def relative_noise(self) -> np.ndarray:
        """Noise of each frame relative to the quietest one, (frames,)."""
        return np.ones(self.frames) if self.noise is None else self.noise

    def places_from(self, left: int, top: int) -> np.ndarray:
        """Return the noise of the places of the color filter pattern from a pixel on, (period, period)."""
        if self.places is None:
            return np.ones((self.period, self.period))
        return np.roll(self.places, (-top, -left), axis=(0, 1))

    @property
    def data_range(self) -> tuple[float, float]:
        """Range of the raw samples that take part, both ends excluded."""
        low = self.recipe.range_low if self.recipe.range_clip_low else -math.inf
        high = self.recipe.range_high if self.recipe.range_clip_high else math.inf
        low, high = (low, high) if self.bounds is None else self.bounds
        return np.float32(low), np.float32(high)
