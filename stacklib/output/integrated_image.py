"""An integrated image, its maps, the table of the frames, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
from astropy.table import Table

from stacklib.kernel.expectation import expected_noise_factor, expected_rejection
from stacklib.kernel.passes import Counts, Pixels
from stacklib.measurement.noise import plane_noise
from stacklib.normalization.preparation import Preparation
from stacklib.recipe.recipe import Recipe

__all__ = ["IntegratedImage", "bring_into_range"]


def bring_into_range(image: np.ndarray, covered: np.ndarray, how: str) -> tuple[float, float, int]:
    """Bring an image that leaves the range 0 to 1 back into it, in place.

    Parameters
    ----------
    image : ndarray of float32
        The image.
    covered : ndarray of bool, same shape
        Where it has data; elsewhere it stays 0.
    how : {"rescale", "truncate"}
        See the parameter `output_range`.

    Returns
    -------
    factor, offset : float
        What was done: ``x * factor + offset``; 1 and 0 when nothing.
    truncated : int
        Values that were cut off.
    """
    low = min(0.0, float(image.min(initial=0.0)))
    high = max(1.0, float(image.max(initial=1.0)))
    if low == 0.0 and high == 1.0:
        return 1.0, 0.0, 0
    if how == "truncate":
        truncated = int(np.count_nonzero((image < 0) | (image > 1)))
        np.clip(image, 0, 1, out=image)
        return 1.0, 0.0, truncated
    factor, offset = 1.0 / (high - low), (0.0 - low) / (high - low)
    image *= np.float32(factor)
    image += np.float32(offset)
    image[~covered] = 0.0
    np.clip(image, 0, 1, out=image)
    return factor, offset, 0


@dataclass
class IntegratedImage:
    """An integrated image and everything that belongs to it.

    Attributes
    ----------
    image : ndarray of float32, shape (channels, height, width)
        The combined image, in the units of the frames; 0 where no frame has data.
    rejection_low, rejection_high : ndarray of float32, shape (channels, height, width)
        Rejected samples of that side, as a fraction of the frames.
    coverage : ndarray of float32, shape (channels, height, width)
        Samples that are data, as a fraction of the frames.
    uncertainty : ndarray of float32, shape (channels, height, width)
        Standard error of the image, from the scatter of the survivors, see `stacklib.kernel.uncertainty`;
        NaN where fewer than two samples are data, and for the combinations minimum and maximum.
    slope : ndarray of float32, shape (channels, height, width), or None
        ``atan(b) / (pi / 4)`` for the slope b of the fitted line per frame; only for linear_fit.
    preparation : Preparation
        Frames, recipe, measurements, weights and normalisation.
    region : (left, top, width, height)
        The part of the frames that was integrated.
    counts : list of Counts
        Rejected samples by frame, for each channel.
    range_factor, range_offset : float
        What `output_range` did: ``image = x * range_factor + range_offset``; 1 and 0 when nothing.
    truncated : int
        Values cut off by ``output_range: truncate``.
    """

    image: np.ndarray
    rejection_low: np.ndarray
    rejection_high: np.ndarray
    coverage: np.ndarray
    uncertainty: np.ndarray
    slope: np.ndarray | None
    preparation: Preparation
    region: tuple[int, int, int, int]
    counts: list[Counts] = field(repr=False)
    range_factor: float = 1.0
    range_offset: float = 0.0
    truncated: int = 0

    @classmethod
    def assemble(
        cls, preparation: Preparation, region: tuple[int, int, int, int], pixels: Pixels, counts: list[Counts]
    ) -> Self:
        """From what the kernel counted, arrays of shape (channels, pixels), to images and fractions."""
        _, _, width, height = region
        shape = (preparation.frames.channels, height, width)
        for counted in (pixels.rejection_low, pixels.rejection_high, pixels.coverage):
            counted /= np.float32(preparation.count)
        slope = None
        if pixels.slope.size:
            slope = (np.arctan(pixels.slope) / np.float32(math.pi / 4)).reshape(shape)
        result = cls(
            pixels.image.reshape(shape),
            pixels.rejection_low.reshape(shape),
            pixels.rejection_high.reshape(shape),
            pixels.coverage.reshape(shape),
            pixels.uncertainty.reshape(shape),
            slope,
            preparation,
            region,
            counts,
        )
        if preparation.measurements.unit_range:
            result._bring_into_range()
        return result

    def _bring_into_range(self) -> None:
        """Apply `output_range`; pixels without data stay 0."""
        covered = self.coverage > 0
        how = self.recipe.output_range
        self.range_factor, self.range_offset, self.truncated = bring_into_range(self.image, covered, how)
        if self.range_factor != 1.0:
            self.uncertainty *= np.float32(self.range_factor)

    def __repr__(self) -> str:
        channels, height, width = self.image.shape
        low, high = self.rejected_low.mean(), self.rejected_high.mean()
        return (
            f"<{type(self).__name__} of {self.preparation.count} frames, "
            f"{width} x {height}, {channels} channel(s), "
            f"{self.rule}: rejected {100 * low:.2f} % low, {100 * high:.2f} % high>"
        )

    @property
    def recipe(self) -> Recipe:
        """The parameters."""
        return self.preparation.recipe

    @property
    def rule(self) -> str:
        """The rejection rule that was applied."""
        return self.recipe.rule_for(self.preparation.count)

    def _rejected(self, side: str) -> np.ndarray:
        parts = [side, f"range_{side}"] if self.recipe.report_range_rejection else [side]
        rejected = sum(np.stack([getattr(c, name) for c in self.counts], axis=1) for name in parts)
        data = np.stack([c.data for c in self.counts], axis=1)
        if self.recipe.report_range_rejection:
            data = data + np.stack([c.range_low + c.range_high for c in self.counts], axis=1)
        return rejected / np.maximum(data, 1)

    @cached_property
    def rejected_low(self) -> np.ndarray:
        """Fraction of the samples of each used frame that was too dark, float64 (frames, channels)."""
        return self._rejected("low")

    @cached_property
    def rejected_high(self) -> np.ndarray:
        """Fraction of the samples of each used frame that was too bright, float64 (frames, channels)."""
        return self._rejected("high")

    @cached_property
    def frames(self) -> Table:
        """One row for each frame that was given, in order.

        Columns: file, used, reason (why not), reference, exposure (s), location, scale, offset,
        factor, noise, weight, rejected_low, rejected_high. The numbers from location on have one value
        a channel. Rejected are fractions of the samples that are data. The value of a sample before
        combination is ``x * factor + offset``.
        """
        p = self.preparation
        count, channels = p.weights.shape
        table = Table()
        table["file"] = list(p.measurements.names)
        table["used"] = np.isin(np.arange(count), p.used)
        table["reason"] = [p.excluded.get(i, "") for i in range(count)]
        table["reference"] = np.arange(count) == p.reference
        exposure = [frame.exposure for frame in p.frames]
        table["exposure"] = [math.nan if value is None else value for value in exposure]
        table["exposure"].unit = "s"
        low, high = np.full((2, count, channels), np.nan)
        low[p.used], high[p.used] = self.rejected_low, self.rejected_high
        columns = {
            "location": p.measurements.location,
            "scale": p.scale,
            "offset": p.offset,
            "factor": p.factor,
            "noise": p.measurements.noise,
            "weight": p.weights,
            "rejected_low": low,
            "rejected_high": high,
        }
        for name, values in columns.items():
            table[name] = values[:, 0] if channels == 1 else values
        return table

    @cached_property
    def noise(self) -> np.ndarray:
        """Noise of the image, measured, float64 (channels,)."""
        return np.array([plane_noise(plane).sigma for plane in self.image]) / self.range_factor

    @cached_property
    def reference_noise(self) -> np.ndarray:
        """Noise of the reference frame, measured in the same way on the same region, float64 (channels,)."""
        left, top, width, height = self.region
        frame = self.preparation.frames[self.preparation.reference]
        planes = frame.read(rows=slice(top, top + height))[:, :, left : left + width]
        low = self.preparation.settings(0).data_range[0]
        return np.array([plane_noise(np.ascontiguousarray(plane), low).sigma for plane in planes])

    @property
    def noise_ratio(self) -> np.ndarray:
        """Noise of the image in units of that of the reference frame, float64 (channels,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.noise / self.reference_noise

    @property
    def expected_noise_ratio(self) -> float:
        """``1 / sqrt(N)``: what an average of N equal frames reaches."""
        return 1.0 / math.sqrt(self.preparation.count)

    @cached_property
    def allowed_noise_ratio(self) -> np.ndarray:
        """What these frames allow, in units of the reference frame's noise, float64 (channels,).

        ``sqrt(sum w^2 s^2) / sum w`` for the weights and the noise of the frames, times the loss to
        the rule's false rejections. NaN where the noise of the frames is not known.
        """
        p = self.preparation
        used = np.searchsorted(p.used, p.reference)
        ratios = []
        for channel in range(len(self.image)):
            noise, weights = p.normalised_noise(channel), p.settings(channel).weights
            spread = math.sqrt(np.sum((weights * noise) ** 2)) / weights.sum()
            ratios.append(spread / noise[used] if noise[used] > 0 else math.nan)
        return np.array(ratios) * self.expected_noise_factor

    @property
    def expected_rejection(self) -> tuple[float, float]:
        """Fractions (low, high) that the rule would reject in clean frames like these."""
        return expected_rejection(*self._clean_frames)

    @property
    def expected_noise_factor(self) -> float:
        """Noise of clean frames like these after rule and combination, over that of their average."""
        return expected_noise_factor(*self._clean_frames)

    @property
    def _clean_frames(self) -> tuple[Recipe, int, float, float, float]:
        """The arguments of the functions in `stacklib.kernel.expectation`."""
        p = self.preparation
        level = float(p.measurements.location[p.reference].mean())
        noise = np.array([p.normalised_noise(channel) for channel in range(len(self.image))])
        if not np.isfinite(noise).all():
            noise = p.measurements.scale_low[p.reference]
        return self.recipe, p.count, level, float(noise.mean()), p.full_scale
