"""Noise of the samples that are compared: how noisy each frame is, and how the noise grows with the level.

A few samples at one pixel say little about their noise, but all pixels of one level share it. Here it is
learned from bands of rows spread over the frames: the relative noise of each frame, and the variance of a
frame of noise 1 against the level. `stacklib.kernel.scatter` adds what single pixels show beyond that.

In a mosaic of color filters a block has pixels in the same place of the pattern only: an even sky has a level
for each color. Divided by a flat, colors of one level may differ in noise: each place has a factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import scipy

from stacklib.utils.ranks import median_of_many, middle_of

__all__ = ["BLOCK", "MEDIAN_ERROR", "NO_PATTERN", "FrameNoise", "NoiseCurve", "blocks_of", "spread_rows"]

#: Side of the blocks whose variance is pooled, in pixels.
BLOCK = 4
#: Samples that are looked at, and largest number of pixels.
SAMPLES, MOST_PIXELS = 800_000, 160_000
#: Least number of bands of rows.
BANDS = 12
#: Blocks whose common offset from the other frames is taken out before the noise of a frame is measured.
NEIGHBOURS = 16
#: The noise of means over blocks is that of differences of every other block, where the medians differ by no
#: more than so many sigma of their differences; least number of them.
APART, FLAT, ENOUGH = 2, 2.0, 200
#: Levels at which the variance is pooled, as fractions of the blocks: most are sky, the last ones are stars.
LEVELS = (*np.linspace(0, 0.9, 9), 0.95, 0.98, 0.99, 0.995, 1.0)
#: The same for each place of a color filter pattern, which has fewer blocks.
LEVELS_OF_A_PLACE = (0.0, 0.45, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
#: A rise from one level to the next counts from this many standard errors.
RISE = 3.0
#: With a smaller singular value than this, the frames cannot be told apart.
SINGULAR = 0.1
#: Samples farther out than this many sigma are outliers.
CLIP = 5.0
#: Samples farther out than this many sigma of all frames are moved there before frames are compared.
FAR = 8.0
#: The bend of a pixel is the difference between its median and the mean of those around it. What it says
#: about the noise is learned from bends of this many times their error, in so many pixels at least.
CLEAR, FEWEST = 5.0, 8
#: Fraction of such pixels whose variance is no more than the one that is learned.
COVERED = 0.95
#: Standard error of a median relative to that of the mean.
MEDIAN_ERROR = float(np.sqrt(np.pi / 2))
#: Sigma of Gaussian samples in median absolute deviations.
SIGMA = 1.4826
#: Noise of the places of a color filter pattern where there is none.
NO_PATTERN = np.ones((1, 1))
#: Rounds in which the curve and the noise of the places are told apart, and fewest blocks of a place.
ROUNDS, OF_A_PLACE = 3, 20


@dataclass(frozen=True, eq=False)
class NoiseCurve:
    """Variance of the samples against their level, which never falls. Both are float64, shape (knots,).

    Between the knots the curve is straight, beyond them it is level.
    """

    level: np.ndarray
    variance: np.ndarray

    @classmethod
    def fit(
        cls, level: np.ndarray, variance: np.ndarray, freedom: float, place: np.ndarray | None = None
    ) -> NoiseCurve:
        """Fit a curve to variances, each with so many degrees of freedom, at their levels.

        The median of the variances at similar levels counts, as stars whose seeing changes are no noise.

        Parameters
        ----------
        level, variance : ndarray of float64, shape (n,)
            The measured variances and their levels.
        freedom : float
            Degrees of freedom of one variance.
        place : ndarray of int, shape (n,), optional
            Place of each in a color filter pattern. Those of one place are pooled: between the levels of two
            colors there is nothing.

        Returns
        -------
        NoiseCurve
        """
        order = np.argsort(level, kind="stable")
        parts = []
        for k in [None] if place is None else np.unique(place):
            own, levels = (order, LEVELS) if k is None else (order[place[order] == k], LEVELS_OF_A_PLACE)
            ends = np.unique(np.rint(np.array(levels) * own.size).astype(int))
            parts += [own[slice(*pair)] for pair in pairwise(ends)]
        parts.sort(key=lambda part: np.median(level[part]))
        # Median of a chi-squared variable over its mean (Wilson and Hilferty 1931).
        below = (1 - 2 / (9 * freedom)) ** 3
        found = np.array([np.median(variance[part]) for part in parts]) / below
        middles = np.array([np.median(level[part]) for part in parts])
        sizes = np.array([part.size for part in parts], float)
        rising = scipy.optimize.isotonic_regression(found, weights=sizes).x
        # The highest of equal levels is the noisiest by chance: a rise must be larger than that.
        errors = MEDIAN_ERROR * np.sqrt(2 / (freedom * sizes))
        for k in range(1, rising.size):
            if rising[k] < rising[k - 1] * (1 + RISE * errors[k]):
                rising[k] = rising[k - 1]
        middles, first = np.unique(middles, return_index=True)
        return cls(middles, rising[first])

    def at(self, level: np.ndarray) -> np.ndarray:
        """Return the variance at some levels, float64."""
        return np.interp(level, self.level, self.variance)

    @property
    def table(self) -> np.ndarray:
        """Levels and variances for compiled code, float64 (2, knots)."""
        return np.stack([self.level, self.variance])


@dataclass(frozen=True, eq=False)
class FrameNoise:
    """Noise of the frames of an integration in one channel, after normalization for rejection.

    `relative` is the noise of each frame relative to the quietest one, float64 (frames,), `curve` the
    variance of a frame of relative noise 1, in normalized units. `contrast` is the further variance in the
    cores of stars, relative to the square of their bend: seeing changes there, as blurring does, by the
    Laplacian of the image. Frames that do not lie on each other exactly count as well. It does not depend on
    the noise of a frame.

    `larger` is the relative noise of means over blocks, float64 (frames,): registration hides noise of pixels
    there, more in some frames than in others, and little of that.

    `places` is the noise of the places of a color filter pattern relative to the curve, which is that of the
    quietest one, float64 (period, period).
    """

    relative: np.ndarray
    curve: NoiseCurve
    larger: np.ndarray
    contrast: float = 0.0
    places: np.ndarray = field(default_factory=NO_PATTERN.copy)

    @classmethod
    def measure(cls, samples: np.ndarray, floor: float = 0.0, period: int = 1, bands: int = 1) -> FrameNoise:
        """Measure the noise of frames from normalized samples.

        Parameters
        ----------
        samples : ndarray of float32, shape (frames, blocks, pixels)
            Blocks of neighboring pixels, in the order of their places. NaN where there is no data. At least
            two frames.
        floor : float
            Smallest credible noise, of quantized data.
        period : int
            Period of the color filter pattern.
        bands : int
            Number of bands that `blocks_of` has cut into these blocks.

        Returns
        -------
        FrameNoise
            All frames are equal if two or fewer of them share pixels, or if they do not differ at all.
        """
        frames = len(samples)
        known = np.isfinite(samples)
        n = known.sum(axis=0)
        usable = n.mean(axis=1) >= max(2, frames / 2)
        if not usable.any():
            usable = n.max(axis=1) >= 2
        place = _places(samples.shape[1], period, bands)[usable]
        samples, known, n = samples[:, usable], known[:, usable], n[usable]
        if not samples.size:
            flat = NoiseCurve(np.zeros(1), np.full(1, max(floor, _LEAST) ** 2))
            return cls(np.ones(frames), flat, np.ones(frames), places=np.ones((period, period)))
        middle = _medians(np.moveaxis(samples, 0, -1), np.moveaxis(known, 0, -1))
        beyond = np.where(known, samples - middle, 0.0)
        relative, larger = (
            _relative_noise(beyond, known, n, floor),
            _larger_noise(middle, beyond, known, floor),
        )
        scaled = np.abs(beyond)
        scaled /= relative[:, np.newaxis, np.newaxis]
        by_block = (np.moveaxis(array, 0, 1).reshape(n.shape[0], -1) for array in (scaled, known))
        # Of few samples those next to the median tell little.
        few = np.median(n, axis=1) / np.maximum(np.median(n, axis=1) - 2, 1)
        spread = SIGMA * few * _medians(*by_block)
        least = max(floor, _LEAST * float(np.abs(middle).max()))
        near = known & (scaled <= CLIP * np.maximum(spread, least)[:, np.newaxis])
        variance, count = _variances(beyond, near, relative)
        counted = count >= 2
        some = counted.any(axis=1)
        parts = counted.sum(axis=1)[some]
        pooled = np.where(counted, variance, 0.0).sum(axis=1)[some] / parts
        level = np.where(counted, middle, 0.0).sum(axis=1)[some] / parts
        freedom = float(np.median(np.where(counted, count - 1, 0).sum(axis=1)[some]))
        curve, places = _curve_and_places(level, pooled, freedom, place[some], period)
        curve = NoiseCurve(curve.level, np.maximum(curve.variance, least**2))
        own = places.reshape(-1, 1)[place] ** 2
        error = MEDIAN_ERROR * np.sqrt(curve.at(middle) * own / np.maximum(n, 1)) * relative.mean()
        # At the level of stars the curve has learned from stars, and a frame of better seeing is no outlier.
        sky = float(curve.at(np.median(level))) * np.mean(relative**2)
        beyond_sky = _variances(beyond, known, np.ones(frames))[0] - sky * own
        contrast = _contrast_noise(middle, beyond_sky, error, counted)
        return cls(relative, curve, larger, contrast, places)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as arrays by name, for the cache."""
        noise = {"relative": self.relative, "larger": self.larger, "places": self.places}
        return {**noise, "curve": self.curve.table, "contrast": np.array(self.contrast)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> FrameNoise:
        """Return what `to_arrays` turned into arrays."""
        curve, contrast = NoiseCurve(*arrays["curve"]), float(arrays["contrast"])
        return cls(arrays["relative"], curve, arrays["larger"], contrast, arrays.get("places", NO_PATTERN))


def _places(blocks: int, period: int, bands: int) -> np.ndarray:
    """Return the place in a color filter pattern of each of the blocks of so many bands, by number."""
    each, rest = divmod(blocks, bands * period**2)
    # An image smaller than a block of each place has one for all of them.
    return np.zeros(blocks, int) if rest else np.tile(np.repeat(np.arange(period**2), each), bands)


def _curve_and_places(
    level: np.ndarray, variance: np.ndarray, freedom: float, place: np.ndarray, period: int
) -> tuple[NoiseCurve, np.ndarray]:
    """Fit a curve that holds in all places of a pattern, and their noise relative to it, at least 1."""
    places = np.ones(period**2)
    if period == 1:
        return NoiseCurve.fit(level, variance, freedom), places.reshape(1, 1)
    curve = NoiseCurve.fit(level, variance, freedom, place)
    for _ in range(ROUNDS):
        for k in range(places.size):
            own = place == k
            if np.count_nonzero(own) >= OF_A_PLACE:
                places[k] = np.sqrt(np.median(variance[own] / curve.at(level[own])))
        # A place without noise has no error that another one could be a multiple of.
        places = places / places.min() if (places > 0).all() else np.ones(period**2)
        curve = NoiseCurve.fit(level, variance / places[place] ** 2, freedom, place)
    return curve, places.reshape(period, period)


def _variances(beyond: np.ndarray, known: np.ndarray, relative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of each pixel, of a frame of relative noise 1, and its number of samples."""
    weight = known / relative[:, np.newaxis, np.newaxis] ** 2
    count = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (weight * beyond).sum(axis=0) / weight.sum(axis=0)
        return (weight * (beyond - mean) ** 2).sum(axis=0) / (count - 1), count


def _contrast_noise(middle: np.ndarray, beyond: np.ndarray, error: np.ndarray, known: np.ndarray) -> float:
    """Return the variance beyond that of the sky relative to the squared bend of the medians around it.

    Arrays have the shape (blocks, pixels); `error` is the standard error of a median.
    """
    if middle.shape[1] != BLOCK**2:
        return 0.0
    medians, beyond, error, known = (
        array.reshape(-1, BLOCK, BLOCK) for array in (middle, beyond, error, known)
    )
    windows = np.lib.stride_tricks.sliding_window_view(medians, (3, 3), axis=(1, 2))
    inner = np.s_[:, 1:-1, 1:-1]
    around = (windows.sum(axis=(3, 4)) - medians[inner]) / 8
    bend = np.abs(medians[inner] - around).max(axis=(1, 2), keepdims=True)
    sharp = (bend > CLEAR * error[inner]) & known.all(axis=(1, 2))[:, np.newaxis, np.newaxis]
    if np.count_nonzero(sharp) < FEWEST:
        return 0.0
    # Many of the pixels lie where a star neither rises nor falls when the seeing changes.
    ratio = beyond[inner][sharp] / np.broadcast_to(bend**2, sharp.shape)[sharp]
    return max(float(np.quantile(ratio, COVERED)), 0.0)


#: Resolution of float32.
_LEAST = float(np.finfo(np.float32).eps) / 4


def _relative_noise(beyond: np.ndarray, known: np.ndarray, n: np.ndarray, floor: float) -> np.ndarray:
    """Measure the noise of each frame relative to the quietest one, from deviations from the median.

    The deviation of a frame from the mean of the n - 1 others has its own variance plus theirs over
    (n - 1)^2. Where frames have no data, n and the others differ from pixel to pixel.
    """
    frames = len(beyond)
    ones = np.ones(frames)
    if frames < 3:
        return ones
    others = np.maximum(n - 1, 1)
    # A sample without others deviates from nothing.
    known = known & (n > 1)
    # An outlier of one frame must not be noise of the others.
    limit = FAR * SIGMA * median_of_many(np.abs(beyond[known]))
    if limit > 0:
        beyond = np.clip(beyond, -limit, limit)
    total = beyond.sum(axis=0)
    apart = total - beyond
    apart /= others
    np.subtract(beyond, apart, out=apart)
    # Frames differ by smooth backgrounds as well, which are no noise of a pixel.
    blocks = apart.shape[1] // NEIGHBOURS * NEIGHBOURS
    shape = (frames, max(blocks // NEIGHBOURS, 1), -1)
    pieces, there = (array[:, : blocks or None].reshape(shape) for array in (apart, known))
    pieces = pieces - _medians(pieces, there)[..., np.newaxis]
    np.abs(pieces, out=pieces)
    found = np.array(
        [_clipped_variance(piece[data], floor) for piece, data in zip(pieces, there, strict=True)]
    )
    if not (found > 0).all():
        return ones
    mixed = np.identity(frames) + _shares_of_others(known, others)
    # With little more than two frames at a pixel, either may be the noisy one.
    if _may_be_singular(mixed) and np.linalg.svd(mixed, compute_uv=False)[-1] < SINGULAR:
        return ones
    own = np.linalg.solve(mixed, found)
    own = np.sqrt(np.maximum(own, 0.04 * found))
    return own / own.min()


def _may_be_singular(mixed: np.ndarray) -> bool:
    """Return whether the least singular value of a matrix may be below `SINGULAR`.

    It is at least that of the identity less the largest one of the rest. With many frames that tells enough,
    and takes no time.
    """
    rest = np.abs(mixed - np.identity(len(mixed)))
    return 1 - float(np.sqrt(rest.sum(axis=0).max() * rest.sum(axis=1).max())) < 2 * SINGULAR


def _shares_of_others(known: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how much of the variance of frame j is in that of frame i, as the mean over its pixels.

    Arrays have the shape (frames, blocks, pixels) and (blocks, pixels), the result (frames, frames).
    """
    there = known.reshape(len(known), -1).astype(float)
    shares = there @ (there / others.reshape(-1) ** 2.0).T / np.maximum(there.sum(axis=1), 1)[:, np.newaxis]
    np.fill_diagonal(shares, 0.0)
    return shares


def _larger_noise(middle: np.ndarray, beyond: np.ndarray, known: np.ndarray, floor: float) -> np.ndarray:
    """Measure the relative noise of means over blocks that all frames have data in, without structure.

    It is that of differences of blocks beside each other, so that gradients do not count, where the medians
    of the frames are alike: light that is matched badly is no noise.
    """
    whole = known.all(axis=(0, 2))
    level, means = middle[whole].mean(axis=1), beyond[:, whole].mean(axis=2)
    step = level[APART:] - level[:-APART]
    flat = np.abs(step) <= FLAT * SIGMA * np.median(np.abs(step)) if step.size else np.zeros(0, bool)
    if np.count_nonzero(flat) < ENOUGH:
        return np.ones(len(beyond))
    apart = (means[:, APART:] - means[:, :-APART])[:, flat, np.newaxis] / np.sqrt(2)
    there = np.ones(apart.shape, bool)
    return _relative_noise(apart, there, there.sum(axis=0), floor / np.sqrt(beyond.shape[2]))


def _medians(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the medians of the known values along the last axis, float64; 0 where none is known."""
    ordered = np.where(known, values, np.inf)
    ordered.sort(axis=-1)
    n = known.sum(axis=-1)
    ranks = np.maximum(n - 1, 0) // 2, n // 2
    lower, upper = (
        np.take_along_axis(ordered, np.minimum(rank, ordered.shape[-1] - 1)[..., np.newaxis], -1)[..., 0]
        for rank in ranks
    )
    with np.errstate(invalid="ignore"):
        return np.where(n > 0, 0.5 * (lower.astype(np.float64) + upper), 0.0)


def _clipped_variance(deviations: np.ndarray, floor: float) -> float:
    """Return the variance of absolute deviations from 0 without outliers, NaN for none."""
    if deviations.size < 2:
        return np.nan
    sigma = SIGMA * middle_of(deviations)
    for _ in range(2):
        # Of quantized samples most may be equal.
        sigma = max(sigma, floor)
        near = deviations[deviations <= 4 * sigma] if sigma > 0 else deviations
        sigma = float(np.sqrt(np.mean(near**2)))
    return sigma**2


def spread_rows(height: int, width: int, frames: int, period: int = 1) -> Iterator[tuple[int, slice]]:
    """Yield the first row of bands of `BLOCK` rows spread over an image, and their columns.

    The columns are one slice for all bands; its step is the distance of the blocks to be used. They depend on
    the shape of the image and the number of frames only. With the `period` of a color filter pattern, a band
    has `BLOCK` rows for each row of it.
    """
    side = BLOCK * period
    pixels = min(SAMPLES // max(frames, 1), MOST_PIXELS)
    across, down = max(width // side, 1), max(height // side, 1)
    bands = min(max(BANDS, pixels // (side * width)), down)
    step = max(1, bands * across * side**2 // max(pixels, 1))
    for k in range(bands):
        yield (2 * k + 1) * down // (2 * bands) * side, slice(0, across, step)


def blocks_of(rows: np.ndarray, columns: slice, period: int = 1) -> np.ndarray:
    """Cut a band of `BLOCK` rows into blocks of neighboring pixels, (blocks, pixels), and take some of them.

    A band that is smaller than a block is one. With the `period` of a color filter pattern, the pixels of a
    block are neighbors in the same place of it, and blocks in the same place follow each other.
    """
    if period > 1 and min(rows.shape) >= BLOCK * period:
        # Whole periods, so that all places have blocks as large.
        rows = rows[: BLOCK * period, : rows.shape[1] // (BLOCK * period) * BLOCK * period]
        places = np.ndindex(period, period)
        return np.concatenate([blocks_of(rows[y::period, x::period], columns) for y, x in places])
    height, width = rows.shape
    across = width // BLOCK
    if height < BLOCK or across < 1:
        return rows.reshape(1, -1)
    pieces = rows[:, : across * BLOCK].reshape(BLOCK, across, BLOCK)
    return pieces.swapaxes(0, 1)[columns].reshape(-1, BLOCK * BLOCK)
