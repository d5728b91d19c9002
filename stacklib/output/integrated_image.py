"""The integrated image with its maps, frame table and noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from stacklib.errors import FrameError
from stacklib.kernel.expectation import expected_noise_factor, expected_rejection
from stacklib.kernel.pixels import Counts, Pixels
from stacklib.measurement.noise import plane_noise
from stacklib.normalization.preparation import Preparation
from stacklib.output.worth import frame_gains
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.trail_names import TrailName
from stacklib.spatial.masks import FrameMasks, MaskCounts
from stacklib.spatial.means import MEANS

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["IntegratedImage", "ScaleNoise", "bring_into_range", "image_noise", "undo_range"]

#: Samples of an image are lone if there are at most this many, or one in this many, and each exceeds all
#: others, and full scale, by more than this factor.
LONE_SAMPLES, LONE_SHARE, LONE_FACTOR = 16, 100_000, 4.0

#: Columns of the table of trails that are properties of a line.
LINE_COLUMNS = ("x0", "y0", "x1", "y1", "length", "width", "peak", "significance")
#: Column of the frame table by the name of the means.
COLUMN_OF = {means.name: means.column for means in MEANS}


def bring_into_range(image: np.ndarray, covered: np.ndarray, how: str) -> tuple[float, float, int]:
    """Bring an image into the range 0 to 1, in place.

    A few lone samples, far beyond all others, are clipped: rescaled to them, the image would be black.

    Parameters
    ----------
    image : ndarray of float32 or float64
        The image.
    covered : ndarray of bool, same shape
        Pixels with data. The others stay 0.
    how : {"rescale", "truncate"}
        Value of the parameter `output_range`.

    Returns
    -------
    factor, offset : float
        The rescaling, ``x * factor + offset``. 1 and 0 if there was none.
    truncated : int
        Number of clipped values.
    """
    low = min(0.0, float(image.min(initial=0.0)))
    high = max(1.0, float(image.max(initial=1.0)))
    if low == 0.0 and high == 1.0:
        return 1.0, 0.0, 0
    if how == "rescale":
        low, high = -_end_of_range(image, -low, -1), _end_of_range(image, high, 1)
    else:
        low, high = 0.0, 1.0
    truncated = int(np.count_nonzero((image < low) | (image > high)))
    factor, offset = 1.0 / (high - low), (0.0 - low) / (high - low)
    if (factor, offset) != (1.0, 0.0):
        image *= image.dtype.type(factor)
        image += image.dtype.type(offset)
        image[~covered] = 0.0
    np.clip(image, 0, 1, out=image)
    return factor, offset, truncated


def _end_of_range(image: np.ndarray, most: float, sign: int) -> float:
    """Return the end of the range above (`sign` 1) or below (-1), the extreme `most` unless it is lone."""
    if not most > LONE_FACTOR:
        return most
    few = min(max(LONE_SAMPLES, image.size // LONE_SHARE), image.size - 1)
    if sign > 0:
        beyond = np.partition(image, image.size - few - 1, axis=None)[image.size - few - 1 :]
    else:
        beyond = -np.partition(image, few, axis=None)[: few + 1]
    beyond.sort()
    least = 1.0 if sign > 0 else 0.0
    for value, following in pairwise(beyond.tolist()):
        if following > LONE_FACTOR * max(value, 1.0):
            return max(value, least)
    return most


def undo_range(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """Undo the rescaling of `bring_into_range`. Returns `image` itself if there was none."""
    return image if (factor, offset) == (1.0, 0.0) else (image - offset) / factor


def image_noise(image: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Measure the noise of an integrated image, float64 (channels,), in its units.

    0 is no data. Values below 0 are data if those of the frames are.
    """
    if preparation.data_limits[0] >= 0:
        return np.array([plane_noise(plane).sigma for plane in image])
    return np.array([plane_noise(np.where(plane == 0, np.nan, plane), -math.inf).sigma for plane in image])


class ScaleNoise(NamedTuple):
    """Noise of a result, measured without what the image shows, in the units of the frames.

    `apertures` is the noise of means in the square apertures of
    `stacklib.measurement.scale_noise.APERTURES`, float64 (apertures, channels), `scale` that of a pixel at
    the scale that matters, (channels,), see `stacklib.measurement.scale_noise.scale_noise`.
    """

    apertures: np.ndarray
    scale: np.ndarray


@dataclass
class IntegratedImage:
    """An integrated image with its maps and statistics.

    See `stacklib.Integration` for the attributes.
    """

    image: np.ndarray
    rejection_low: np.ndarray
    rejection_high: np.ndarray
    coverage: np.ndarray
    uncertainty: np.ndarray
    slope: np.ndarray | None
    preparation: Preparation
    region: tuple[int, int, int, int]
    counts: list[Counts]
    range_factor: float = 1.0
    range_offset: float = 0.0
    truncated: int = 0
    shift: np.ndarray | None = None
    masks: FrameMasks | None = None
    mask_counts: list[MaskCounts] = field(default_factory=list)
    measure_scale: Callable[[IntegratedImage], ScaleNoise | None] | None = field(
        default=None, repr=False, compare=False
    )
    scale_noise_missing: str = field(default="", init=False, repr=False, compare=False)

    @classmethod
    def assemble(
        cls, preparation: Preparation, region: tuple[int, int, int, int], pixels: Pixels, counts: list[Counts]
    ) -> Self:
        """Build the result from the output of the kernel, arrays of shape (channels, pixels)."""
        _, _, width, height = region
        shape = (preparation.frames.channels, height, width)
        for counted in (pixels.rejection_low, pixels.rejection_high, pixels.coverage):
            counted /= np.float32(preparation.count)
        slope = None
        if pixels.slope.size:
            slope = (np.arctan(pixels.slope) / np.float32(math.pi / 4)).reshape(shape)
        result = cls(
            image=pixels.image.reshape(shape),
            rejection_low=pixels.rejection_low.reshape(shape),
            rejection_high=pixels.rejection_high.reshape(shape),
            coverage=pixels.coverage.reshape(shape),
            uncertainty=pixels.uncertainty.reshape(shape),
            slope=slope,
            preparation=preparation,
            region=region,
            counts=counts,
        )
        if preparation.measurements.unit_range:
            result.range_factor, result.range_offset, result.truncated = bring_into_range(
                result.image, result.coverage > 0, result.recipe.output_range
            )
            if result.range_factor != 1.0:
                result.uncertainty *= np.float32(result.range_factor)
        return result

    def __repr__(self) -> str:
        channels, height, width = self.image.shape
        low, high = 100 * self.rejected_low.mean(), 100 * self.rejected_high.mean()
        return (
            f"<{type(self).__name__} of {self.preparation.count} frames, {width} x {height}, {channels} "
            f"channel{'s' * (channels > 1)}, {self.rule}: rejected {low:.2f} % low, {high:.2f} % high>"
        )

    @property
    def original(self) -> np.ndarray:
        """Image in the units of the frames, before `output_range`."""
        return undo_range(self.image, self.range_factor, self.range_offset)

    @property
    def recipe(self) -> Recipe:
        """Parameters of the integration."""
        return self.preparation.recipe

    @property
    def rule(self) -> str:
        """Rejection rule that was applied, with ``auto`` resolved."""
        return self.recipe.rule_for(self.preparation.count)

    def _rejected(self, side: str) -> np.ndarray:
        def total(*names: str) -> np.ndarray:
            return np.stack([sum(getattr(c, name) for name in names) for c in self.counts], axis=1)

        if self.recipe.report_range_rejection:
            return total(side, f"range_{side}") / np.maximum(total("data", "range_low", "range_high"), 1)
        return total(side) / np.maximum(total("data"), 1)

    @cached_property
    def rejected_low(self) -> np.ndarray:
        """Fraction of samples rejected low in each frame used, float64, shape (frames, channels)."""
        return self._rejected("low")

    @cached_property
    def rejected_high(self) -> np.ndarray:
        """Fraction of samples rejected high in each frame used, float64, shape (frames, channels)."""
        return self._rejected("high")

    @cached_property
    def masked(self) -> dict[str, np.ndarray]:
        """Fraction of samples that fell to spatial rejection in each frame used, float64 (frames, channels).

        By the name of the means, for those that took part. A sample that several means found counts for the
        first of `stacklib.spatial.means.MEANS`.
        """
        if self.masks is None:
            return {}
        means = self.recipe.spatial_means(self.preparation.count, self.preparation.frames.channels)
        by_channel = [counts.by_means() for counts in self.mask_counts]
        data = np.stack([counts.data for counts in self.counts], axis=1)
        return {
            name: np.stack([counts[name] for counts in by_channel], axis=1) / np.maximum(data, 1)
            for name in means
        }

    def lost(self, side: str) -> np.ndarray:
        """Return the fraction of samples that each frame used lost, float64 (frames, channels).

        `side` is ``low`` or ``high``. Samples that fell to their neighbors are included.
        """
        rejected = self.rejected_low if side == "low" else self.rejected_high
        if not self.mask_counts:
            return rejected
        masked = np.stack([getattr(counts, side) for counts in self.mask_counts], axis=1)
        return rejected + masked / np.maximum(np.stack([c.data for c in self.counts], axis=1), 1)

    @cached_property
    def trails(self) -> Table:
        """Table of the straight trails found, one row for each, in the order of the frames.

        Columns: file, number (counted from 1 in each frame), x0, y0, x1, y1 (its ends), length and width
        (pix), peak (its brightness in sigma of a sample), significance,
        used (whether its samples are rejected), reason (if not), name (as `ignore_trails` takes it).
        Coordinates are those of whole frames.
        """
        # Here and below, because what asks for no table does without astropy.
        from astropy.table import Table

        lines, unused = ({}, {}) if self.masks is None else (self.masks.lines, self.masks.unused)
        names = self.preparation.measurements.names
        rows = [
            (
                *(names[i], k + 1),
                *(getattr(line, name) for name in LINE_COLUMNS),
                *((i, k) not in unused, unused.get((i, k), "")),
                str(TrailName.at(names[i], (line.x0, line.y0, line.x1, line.y1))),
            )
            for i in sorted(lines)
            for k, line in enumerate(lines[i])
        ]
        columns = ("file", "number", *LINE_COLUMNS, "used", "reason", "name")
        kinds = (str, int, *[float] * len(LINE_COLUMNS), bool, str, str)
        table = Table(rows=rows or None, names=columns, dtype=kinds)
        for name in LINE_COLUMNS[:6]:
            table[name].unit = "pix"
        return table

    @cached_property
    def frames(self) -> Table:
        """Table of all input frames, one row per frame.

        Columns: file, used, reason (if not used), reference, exposure (s), location, scale, offset,
        factor, noise, weight, rejected_low, rejected_high. The columns from location on have one value
        per channel. Rejection is a fraction of the samples with data. What fell to spatial rejection is in
        columns of its own for each means, such as rejected_trail, and not in the former ones. Samples are
        normalized as ``x * factor + offset`` before combination. Where frames are compared by their light,
        `noise` is that on the scale that matters, and there are the columns transparency, transparency_error,
        stars, sky, pixel_noise and fwhm (pix), see `Photometry` of `stacklib.normalization.light`, and gain,
        see `stacklib.output.worth.frame_gains`. After a run there are shift_x and shift_y (pix).
        """
        from astropy.table import Table

        p = self.preparation
        count, channels = p.weights.shape
        table = Table()
        table["file"] = list(p.measurements.names)
        table["used"] = np.isin(np.arange(count), p.used)
        table["reason"] = [p.excluded.get(i, "") for i in range(count)]
        table["reference"] = np.arange(count) == p.reference
        table["exposure"] = np.array([frame.exposure for frame in p.frames], float)
        table["exposure"].unit = "s"
        low, high = np.full((2, count, channels), np.nan)
        low[p.used], high[p.used] = self.rejected_low, self.rejected_high
        columns = {
            "location": p.measurements.location,
            "scale": p.scale,
            "offset": p.offset,
            "factor": p.factor,
            "noise": p.measurements.noise,
            **({} if p.photometry is None else p.photometry.columns),
            "weight": p.weights,
            "rejected_low": low,
            "rejected_high": high,
        }
        for name, fraction in self.masked.items():
            column = columns[COLUMN_OF[name]] = np.full((count, channels), np.nan)
            column[p.used] = fraction
        for name, values in columns.items():
            table[name] = values[:, 0] if channels == 1 else values
        if p.photometry is not None:
            table["gain"] = frame_gains(p)
        if self.shift is not None:
            table["shift_x"], table["shift_y"] = self.shift.T
            table["shift_x"].unit = table["shift_y"].unit = "pix"
        return table

    @cached_property
    def noise(self) -> np.ndarray:
        """Measured noise of the image in the units of the frames, float64, shape (channels,)."""
        return image_noise(self.image, self.preparation) / self.range_factor

    @cached_property
    def scale_noise(self) -> ScaleNoise | None:
        """Noise in apertures and at the scale that matters; None if it cannot be measured.

        It is measured on the frames, in the middle of the image, when it is first asked for. If they cannot
        be read any more, `scale_noise_missing` says so.
        """
        measure, self.measure_scale = self.measure_scale, None
        try:
            return None if measure is None else measure(self)
        except FrameError as error:
            self.scale_noise_missing = str(error)
            return None

    @cached_property
    def reference_noise(self) -> np.ndarray:
        """Noise of the reference frame, float64, shape (channels,).

        It is that at the scale that matters where frames are compared by their light, otherwise that of its
        pixels, measured in the same region.
        """
        p = self.preparation
        if p.photometry is not None and self._by_light:
            return p.photometry.noise[p.reference]
        left, top, width, height = self.region
        low = p.settings(0).data_range[0]
        planes = [p.read_rows(p.reference, top, top + height, channel) for channel in range(len(self.image))]
        planes = [np.ascontiguousarray(plane[:, left : left + width]) for plane in planes]
        return np.array([plane_noise(plane, low).sigma for plane in planes])

    @property
    def _by_light(self) -> bool:
        """Whether noise is compared at the scale that matters, for equal light."""
        return self.preparation.photometry is not None and self.scale_noise is not None

    @property
    def signal_ratio(self) -> np.ndarray:
        """Starlight of the image relative to the reference frame, float64, shape (channels,).

        ``sum(w k T) / sum(w)`` for frames of weight w, factor k and transparency T. 1 where the frames are
        not compared by their light.
        """
        p = self.preparation
        if p.photometry is None:
            return np.ones(len(self.image))
        # Channels without an image have no light.
        light = np.nan_to_num(p.photometry.transparency[p.used] * p.factor[p.used], nan=1.0)
        weights = np.stack([p.settings(channel).weights for channel in range(len(self.image))], axis=1)
        return (weights * light).sum(axis=0) / weights.sum(axis=0)

    @property
    def noise_per_light(self) -> np.ndarray:
        """Noise of the image for the starlight of the reference frame, float64, shape (channels,).

        It is that at the scale that matters where frames are compared by their light, otherwise `noise`.
        """
        noise = self.scale_noise.scale if self._by_light and self.scale_noise else self.noise
        return noise / self.signal_ratio

    @property
    def noise_ratio(self) -> np.ndarray:
        """Noise of the image relative to the reference frame, float64, shape (channels,).

        Where frames are compared by their light, it is that at the scale that matters, for equal starlight:
        an image in which stars are fainter than in the reference is not better for it.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.noise_per_light / self.reference_noise

    @property
    def expected_noise_ratio(self) -> float:
        """Noise ratio expected for the average of N equal frames, ``1 / sqrt(N)``."""
        return 1.0 / math.sqrt(self.preparation.count)

    @cached_property
    def allowed_noise_ratio(self) -> np.ndarray:
        """Noise ratio expected for these frames, float64, shape (channels,).

        ``sqrt(sum(w^2 s^2)) / sum(w)`` for frames of weight w and noise s, relative to the noise of the
        reference frame and to `signal_ratio`, times `expected_noise_factor`. NaN if the noise of the frames
        is unknown.
        """
        p = self.preparation
        used = np.searchsorted(p.used, p.reference)
        ratios = []
        for channel in range(len(self.image)):
            noise, weights = p.normalised_noise(channel), p.settings(channel).weights
            spread = math.sqrt(np.sum((weights * noise) ** 2)) / weights.sum()
            own = noise[used] / p.factor[p.reference, channel]
            ratios.append(spread / own if own > 0 else math.nan)
        return np.array(ratios) / self.signal_ratio * self.expected_noise_factor

    @property
    def best_noise_ratio(self) -> np.ndarray:
        """Smallest noise ratio that weights can reach with these frames, float64, shape (channels,).

        ``1 / sqrt(sum(T^2 / s^2))`` for frames of transparency T and noise s, relative to the noise of the
        reference frame, without rejection. NaN where the frames are not compared by their light.
        """
        p = self.preparation
        if p.photometry is None:
            return np.full(len(self.image), math.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            worth = np.sum((p.photometry.transparency[p.used] / p.photometry.noise[p.used]) ** 2, axis=0)
            return 1 / (np.sqrt(worth) * p.photometry.noise[p.reference])

    @property
    def expected_rejection(self) -> tuple[float, float]:
        """Fractions (low, high) that the rule rejects in frames like these without outliers."""
        return expected_rejection(*self._clean_frames)

    @property
    def expected_noise_factor(self) -> float:
        """Increase of the noise by rejection and combination, relative to the average without rejection."""
        return expected_noise_factor(*self._clean_frames)

    @property
    def _clean_frames(self) -> tuple[Recipe, int, float, float, float]:
        """Arguments of the functions in `stacklib.kernel.expectation`."""
        p = self.preparation
        # Channels without an image have no level.
        location = p.measurements.location[p.reference]
        lit = np.flatnonzero(np.isfinite(location))
        level = float(location[lit].mean())
        noise = np.array([p.normalised_noise(int(channel), pixels=True) for channel in lit])
        if not np.isfinite(noise).all():
            noise = p.measurements.scale_low[p.reference, lit]
        return self.recipe, p.count, level, float(noise.mean()), p.full_scale
