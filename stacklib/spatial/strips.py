"""A strip of a residual along a line: where exactly a trail lies in it, where it ends and how wide it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.spatial.planes import trend_at
from stacklib.utils.compiled import compiled
from stacklib.utils.ranks import median_of

__all__ = ["Fit", "Strip", "align", "find_extent", "moved", "profile"]

#: Width of the bins across a strip, and length of those along it, in pixels.
ACROSS, ALONG = 0.5, 4.0
#: A line is aligned in parts of about this length in pixels, at least and at most so many.
PART, FEWEST_PARTS, MOST_PARTS = 12, 4, 48
#: What lies farther from the line than this fraction of the reach of the strip is background.
BACKGROUND = 0.55
#: A line ends where its brightness falls below this fraction of its mean.
END = 0.4
#: A line that ends this near to the border of the frame, in pixels, leaves it.
BORDER = 40
#: Samples are cut at this many sigma: a star must not be an end, or a part of a line.
CUT = 8.0
#: Length over which the background beside a line is averaged, in pixels.
SMOOTH = 64.0
#: A mask reaches at least this many sigma of the Gaussian that is fitted to the profile: .3 % lies beyond.
WIDE = 3.0
#: It reaches on while the profile exceeds this fraction of its peak, and its error so many times.
WING, WING_ERROR = 0.005, 2.0
#: Sigma of a median relative to that of the mean.
MEDIAN_ERROR = 1.2533


class Strip(NamedTuple):
    """Samples near a line.

    `value` has the samples in sigma, `along` and `across` are their places relative to the start of the
    line, all float64 of shape (samples,), in pixels. `chord` is where the line enters and leaves the frame.
    """

    value: np.ndarray
    along: np.ndarray
    across: np.ndarray
    chord: tuple[float, float]

    @classmethod
    def cut(
        cls, z: np.ndarray, protected: np.ndarray, trend: np.ndarray, ends: np.ndarray, reach: float
    ) -> Strip:
        """Take the samples of a residual within `reach` pixels of the straight line through two points.

        `trend` is taken out, see `stacklib.spatial.planes.trend_at`. `ends`, float64 (2, 2), has x and y of
        both points. The strip crosses the whole frame. It has no samples if the line lies beside the frame.
        """
        start, direction = ends[0], _direction(ends)
        first, last = _chord(start, direction, z.shape)
        if last <= first:
            return cls(np.empty(0), np.empty(0), np.empty(0), (0.0, 0.0))
        # Samples are taken in columns for flat lines, in rows for steep ones.
        axis = int(abs(direction[1]) > abs(direction[0]))
        slope = direction[1 - axis] / direction[axis]
        places = np.sort(start[axis] + np.array([first, last]) * direction[axis])
        major = np.arange(int(np.ceil(places[0])), int(np.floor(places[1])) + 1)
        half = int(np.ceil(reach / abs(direction[axis])))
        middle = np.rint(start[1 - axis] + (major - start[axis]) * slope).astype(int)
        samples = np.empty((3, major.size * (2 * half + 1)))
        where = major, middle, half, axis == 1
        number = _take(z, protected, trend, where, start, direction, samples)
        value, along, across = samples[:, :number]
        return cls(value, along, across, (first, last))

    def between(self, first: float, last: float) -> Strip:
        """Return the part of the strip between two places along it."""
        part = (self.along >= first) & (self.along <= last)
        return Strip(self.value[part], self.along[part], self.across[part], (first, last))


@compiled
def _take(z, protected, trend, places, start, direction, samples):
    """Write value, place along and across a line of the samples around it, and return their number.

    `places` are columns, or rows of a steep line, the pixels of the line in them, and how many more there are
    to each side.
    """
    major, middle, half, steep = places
    size = z.shape[1] if steep else z.shape[0]
    number = 0
    for k in range(major.size):
        for minor in range(max(middle[k] - half, 0), min(middle[k] + half + 1, size)):
            x, y = (minor, major[k]) if steep else (major[k], minor)
            if np.isfinite(z[y, x]) and not protected[y, x]:
                dx, dy = x - start[0], y - start[1]
                samples[0, number] = z[y, x] - np.float32(trend_at(trend, x, y, z.shape[0], z.shape[1]))
                samples[1, number] = dx * direction[0] + dy * direction[1]
                samples[2, number] = dy * direction[0] - dx * direction[1]
                number += 1
    return number


class Fit(NamedTuple):
    """A line aligned to a strip.

    `shifts` are how far both ends of the strip move across. `signal` is the weighted sum of the samples,
    `weight` the sum of the squared weights, both by parts of the line.
    """

    shifts: tuple[float, float]
    signal: np.ndarray
    weight: np.ndarray

    @property
    def strength(self) -> float:
        """The signal of the whole line in units of the noise of a sample."""
        return float(self.signal.sum() / np.sqrt(max(self.weight.sum(), 1e-9)))

    @property
    def steady_strength(self) -> float:
        """The strength without the brightest quarter of its parts."""
        parts = np.argsort(self.signal, kind="stable")[: self.signal.size - self.signal.size // 4]
        return float(self.signal[parts].sum() / np.sqrt(max(self.weight[parts].sum(), 1e-9)))


def _direction(ends: np.ndarray) -> np.ndarray:
    apart = ends[1] - ends[0]
    return apart / np.hypot(*apart)


def _chord(start: np.ndarray, direction: np.ndarray, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return where a line enters and leaves the frame, as distances from its start."""
    first, last = -np.inf, np.inf
    for place, step, size in zip(start, direction, shape[::-1], strict=True):
        if abs(step) > 1e-9:
            borders = sorted(((-0.5 - place) / step, (size - 0.5 - place) / step))
            first, last = max(first, borders[0]), min(last, borders[1])
    return first, last


def moved(ends: np.ndarray, span: tuple[float, float], shifts: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Return the ends of a line between two places along it, each moved across."""
    direction = _direction(ends)
    normal = np.array([-direction[1], direction[0]])
    return np.array([ends[0] + p * direction + d * normal for p, d in zip(span, shifts, strict=True)])


def align(strip: Strip, sigma: float, reach: float, most: float, cut: float) -> Fit:
    """Find the straight line near the middle of a strip along which a Gaussian profile is strongest.

    Parameters
    ----------
    strip : Strip
        The part of the strip in which the line lies: its chord is its length.
    sigma : float
        Of the profile, in pixels.
    reach : float
        Reach of the strip across, in pixels.
    most : float
        How far the ends may move across, in pixels.
    cut : float
        Samples beyond this many sigma are moved there.

    Returns
    -------
    Fit
    """
    first, last = strip.chord
    parts = int(np.clip((last - first) / PART, FEWEST_PARTS, MOST_PARTS))
    sums, numbers = _by_part(strip, parts, reach, cut)
    half = int(np.ceil(3 * sigma / ACROSS))
    template = np.exp(-0.5 * (np.arange(-half, half + 1) * ACROSS / sigma) ** 2)
    signal = np.stack([np.convolve(row, template, mode="same") for row in sums])
    weight = np.stack([np.convolve(row, template**2, mode="same") for row in numbers])
    steps = int(np.ceil(most / ACROSS))
    shifts = np.arange(-steps, steps + 1)
    share = (np.arange(parts) + 0.5) / parts
    lines = shifts[:, np.newaxis, np.newaxis] * (1 - share) + shifts[:, np.newaxis] * share
    across = np.clip(sums.shape[1] // 2 + np.rint(lines).astype(int), 0, sums.shape[1] - 1)
    part = np.arange(parts)
    totals, squares = signal[part, across].sum(axis=-1), weight[part, across].sum(axis=-1)
    strength = totals / np.sqrt(np.maximum(squares, 1e-9))
    i, j = np.unravel_index(np.argmax(strength), strength.shape)
    chosen = across[i, j]
    ends = ACROSS * (shifts[i] + _top(strength[:, j], i)), ACROSS * (shifts[j] + _top(strength[i], j))
    return Fit(ends, signal[part, chosen], weight[part, chosen])


def _top(values: np.ndarray, i: np.intp) -> float:
    """Return where the parabola through the largest value and its neighbors is highest, relative to it."""
    if not 0 < i < values.size - 1:
        return 0.0
    before, here, after = values[i - 1 : i + 2]
    bend = before - 2 * here + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


def _by_part(strip: Strip, parts: int, reach: float, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Return sums of the samples above the background, and their numbers, (parts, bins across)."""
    first, last = strip.chord
    bins = 2 * round(reach / ACROSS) + 1
    part = np.clip((strip.along - first) / (last - first) * parts, 0, parts - 1).astype(int)
    across = np.rint(strip.across / ACROSS).astype(int) + bins // 2
    inside = (across >= 0) & (across < bins)
    where = (part * bins + across)[inside]
    value = np.clip(strip.value[inside], -cut, cut)
    sums = np.bincount(where, value, parts * bins).reshape(parts, bins)
    numbers = np.bincount(where, minlength=parts * bins).reshape(parts, bins).astype(np.float64)
    outer = np.abs(np.arange(bins) - bins // 2) * ACROSS > BACKGROUND * reach
    level = sums[:, outer].sum(axis=1) / np.maximum(numbers[:, outer].sum(axis=1), 1)
    return sums - level[:, np.newaxis] * numbers, numbers


def find_extent(
    strip: Strip, inside: tuple[float, float], sigma: float, reach: float, noise: float
) -> tuple[float, float]:
    """Find where a line begins and ends: where its brightness exceeds a part of the mean in between.

    Parameters
    ----------
    strip : Strip
        The strip through the whole frame, with the line in its middle.
    inside : tuple of float
        Places along the strip between which the line is known to be.
    sigma : float
        Of the profile, in pixels.
    reach : float
        Reach of the strip across, in pixels.
    noise : float
        Noise of a sample as sums of many samples show it.

    Returns
    -------
    tuple of float
        Places along the strip, with a margin for the error; the border of the frame if the line reaches it.
        Both are equal for no line.
    """
    first, last = strip.chord
    bins = max(int((last - first) / ALONG), 4)
    place = np.clip((strip.along - first) / (last - first) * bins, 0, bins - 1).astype(int)
    value = np.clip(strip.value, -CUT, CUT)
    outer = np.abs(strip.across) > BACKGROUND * reach
    window = np.ones(2 * int(SMOOTH / ALONG) + 1)
    sums, numbers = (
        np.convolve(np.bincount(place, values, bins), window)[window.size // 2 :][:bins]
        for values in (value * outer, outer)
    )
    level = sums / np.maximum(numbers, 1)
    near = np.abs(strip.across) < 3 * sigma
    template = np.zeros(near.size)
    template[near] = np.exp(-0.5 * (strip.across[near] / sigma) ** 2)
    signal = np.bincount(place, (value - level[place]) * template, bins)
    weight = np.bincount(place, template**2, bins)
    middle = first + (np.arange(bins) + 0.5) / bins * (last - first)
    known = (middle >= inside[0]) & (middle <= inside[1])
    start, stop = 0, bins
    mean = signal[known].sum() / max(weight[known].sum(), 1e-9)
    for _ in range(3):
        # The stretch with the largest sum of what is brighter than a part of the mean.
        total = np.concatenate([[0.0], np.cumsum(signal - END * mean * weight)])
        lowest = np.minimum.accumulate(total)
        stop = int(np.argmax(total - lowest))
        start = int(np.argmin(total[: stop + 1]))
        if start == stop or mean <= 0:
            return first, first
        mean = signal[start:stop].sum() / max(weight[start:stop].sum(), 1e-9)
    filled = np.nonzero(weight > 0)[0]
    contrast = mean / noise * np.sqrt(np.median(weight[filled]))
    margin = 2 * sigma + ALONG * min(4 / max(contrast, 0.3) ** 2, 10)
    # A line that comes close to the border of the data leaves the frame.
    near = max(BORDER, 2 * margin) / ALONG
    ends = (
        first if start - filled[0] <= near else first + start * (last - first) / bins - margin,
        last if filled[-1] + 1 - stop <= near else first + stop * (last - first) / bins + margin,
    )
    return max(ends[0], first), min(ends[1], last)


def profile(strip: Strip, reach: float, noise: float) -> tuple[float, float, float]:
    """Measure the profile of a line across, from medians along it.

    Returns
    -------
    peak : float
        Of the fitted Gaussian, in sigma of a sample.
    sigma : float
        Of the fitted Gaussian, in pixels.
    half : float
        Half the width within which the line and its wings stand out, in pixels.
    """
    bins = int(reach / ACROSS)
    # Numbers of 16 bits are sorted many times faster.
    where = np.floor(np.abs(strip.across) / ACROSS).astype(np.int16)
    numbers = np.bincount(where, minlength=bins)[:bins]
    values = strip.value[np.argsort(where, kind="stable")].astype(np.float32)
    median = _medians(values, np.concatenate([[0], np.cumsum(numbers)]))
    error = MEDIAN_ERROR * noise / np.sqrt(np.maximum(numbers, 0.1))
    middle = (np.arange(bins) + 0.5) * ACROSS
    outer = middle > BACKGROUND * reach
    light = median - np.median(median[outer])
    widths = np.arange(0.8, 0.5 * reach, 0.1)[:, np.newaxis]
    shapes = np.exp(-0.5 * (middle / widths) ** 2) / error
    peaks = (shapes * (light / error)).sum(axis=1) / (shapes**2).sum(axis=1)
    misfit = ((light / error - peaks[:, np.newaxis] * shapes) ** 2).sum(axis=1)
    best = int(np.argmin(misfit))
    peak, sigma = float(peaks[best]), float(widths[best, 0])
    # Mean over three bins, which ends before the first bin without light.
    smooth = np.convolve(np.pad(light, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    stands_out = smooth > np.maximum(WING_ERROR * error / np.sqrt(3), WING * peak)
    out = bins if stands_out.all() else int(np.argmin(stands_out))
    return peak, sigma, max(WIDE * sigma, out * ACROSS) + ACROSS


@compiled
def _medians(values, cuts):
    """Return the medians of the parts between cuts, 0 for none."""
    medians = np.zeros(cuts.size - 1)
    for k in range(medians.size):
        if cuts[k + 1] > cuts[k]:
            medians[k] = median_of(values[cuts[k] : cuts[k + 1]])
    return medians
