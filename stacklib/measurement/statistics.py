"""Location and scale of one plane: exact medians and robust estimators of the spread.

The median and the median deviations on both sides are order statistics of the samples (half of the samples up
to the median M are up to the median of that half), so one pass over the plane finds all three. A second pass
computes the sums.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled, fill_from
from stacklib.utils.ranks import Ranks, sorted_floats
from stacklib.utils.resources import by_parts

__all__ = [
    "ESTIMATORS",
    "UNIT_BOUNDS",
    "PlaneStatistics",
    "count_between",
    "finite_range",
    "grid_step",
    "location",
    "measure_plane",
    "quantization_step",
    "scale",
    "spread_evenly",
]

#: Valid samples of data in [0, 1] are strictly between these.
UNIT_BOUNDS = (1.0 / 65535.0, 1.0 - 1.0 / 65535.0)

#: Factors that make the estimators consistent with the sigma of a Gaussian. That of pbmv is
#: sqrt((4/5)^2 / E min(z^2, w^2)) with w the 0.8 quantile of ``|z|``, z Gaussian.
ESTIMATORS = {
    "bwmv": 0.991,
    "mad": 1.4826,
    "avgdev": 1.2533,
    "pbmv": 0.97110,
    "sn": 1.1926,
    "qn": 2.2219,
    "ikss": 0.991,
}

#: Estimators that follow from the sums of `_side_sums`.
SUMMED = ("bwmv", "mad", "avgdev")

#: Part of the samples that pbmv measures without bending them.
UNBENT = 0.8
#: Sn and Qn compare all pairs of at most this many samples, always the same ones.
PAIRED = 1 << 17
#: ikss clips at this many sigma until sigma changes by less than a fraction.
IKSS_CLIP, IKSS_CHANGE, IKSS_ROUNDS = 4.0, 1e-6, 100

#: Sums use this many interleaved float64 accumulators in a fixed order, so that the result depends neither
#: on threads nor on the vector width of the machine.
LANES = 256
#: Rows of samples that are added together, and samples in a cache line.
ROWS, LINE = 4, 16


class PlaneStatistics(NamedTuple):
    """Statistics of the valid samples of one plane, in its own units; NaN if there are none.

    `scale_low` and `scale_high` are the scales up to the median and above it, see `scale`; `avgdev` is 1.2533
    times the mean absolute deviation from the median, on both sides together. `minimum` and `maximum` are of
    all finite samples, regardless of the bounds.
    """

    median: float
    mean: float
    scale_low: float
    scale_high: float
    avgdev: float
    count: int
    minimum: float
    maximum: float


def measure_plane(
    plane: np.ndarray,
    estimator: str = "bwmv",
    low: float = UNIT_BOUNDS[0],
    high: float = UNIT_BOUNDS[1],
    extremes: tuple[float, float] | None = None,
    threads: int = 1,
) -> PlaneStatistics:
    """Measure all statistics of a plane, float32 of any shape, in three passes.

    Valid are samples that are finite and strictly between `low` and `high`, compared in float32; infinite for
    no bound. `extremes` is the result of `finite_range`, if already known. The result does not depend on
    `threads`, which take a part of the plane each.
    """
    flat = _as_flat(plane)
    minimum, maximum = finite_range(flat, threads) if extremes is None else extremes
    halves = _halves(flat, low, high, _width(plane), threads)
    if halves is None:
        nan = math.nan
        return PlaneStatistics(nan, nan, nan, nan, nan, 0, minimum, maximum)
    sums = _side_sums(flat, *_bounds(low, high), *halves[:3], threads)
    median = halves.median
    count = halves.count_low + halves.count_high
    mean = float(median + (sums[5] - sums[4]) / count)
    avgdev = float(ESTIMATORS["avgdev"] * (sums[4] + sums[5]) / count)
    if estimator in SUMMED:
        scale_low, scale_high = _side_scales(estimator, halves, sums)
    else:
        median, sides = _unsummed(estimator, _valid(flat, low, high), median, two_sided=True)
        scale_low, scale_high = (side or avgdev for side in sides)
    return PlaneStatistics(median, mean, scale_low, scale_high, avgdev, count, minimum, maximum)


def location(plane: np.ndarray, low: float = UNIT_BOUNDS[0], high: float = UNIT_BOUNDS[1]) -> float:
    """Return the median of the finite samples strictly between `low` and `high`; NaN if there are none."""
    halves = _halves(_as_flat(plane), low, high, _width(plane))
    return math.nan if halves is None else halves.median


def scale(
    plane: np.ndarray,
    estimator: str = "bwmv",
    low: float = UNIT_BOUNDS[0],
    high: float = UNIT_BOUNDS[1],
    two_sided: bool = True,
) -> tuple[float, float] | float:
    """Estimate the scale of the valid samples about their median M, as a Gaussian sigma.

    ==========  ==============================================================================
    avgdev      1.2533 mean ``|x - M|``
    mad         1.4826 median ``|x - M|``
    bwmv        0.991 sqrt(N sum (x-M)^2 (1-Y^2)^4) / ``|sum (1-Y^2)(1-5Y^2)|``, the sums over
                ``|Y| < 1`` with Y = (x - M) / (9 median ``|x - M|``), N all samples
                (biweight midvariance; Wilcox 2017, Introduction to Robust Estimation and
                Hypothesis Testing, 4th ed., section 3.12.1)
    pbmv        0.971 sqrt(N w^2 sum min(``|Y|``, 1)^2) / count(``|Y|`` < 1) with Y = (x - M) / w, where
                0.8 N samples have ``|x - M|`` <= w (percentage bend midvariance with beta 0.2;
                Wilcox, section 3.12.3)
    sn          1.1926 lomed_i himed_j ``|x_i - x_j|`` (Rousseeuw and Croux 1993, JASA 88, 1273)
    qn          2.2219 times the k-th smallest ``|x_i - x_j|``, i < j, with k = h (h - 1) / 2 and
                h = N // 2 + 1 (the same paper)
    ikss        bwmv of the samples within 4 sigma, with a new median and sigma until sigma changes
                by less than 1e-6; its median is also the location
    ==========  ==============================================================================

    sn and qn measure at most 2^17 samples, a fixed random selection. One side is then mirrored at M.

    Samples are valid as in `measure_plane`. If `two_sided`, the samples x <= M and x > M are estimated
    separately, about the common M, and a pair is returned. NaN if there is no valid sample.

    In quantized data more than half of a side can be tied with M, so that its median deviation is 0 although
    the samples differ. Then ``avgdev`` of that side is used, or ``avgdev`` of both sides together if that is
    0 as well. A scale is 0 only if all samples are equal.
    """
    if two_sided:
        measured = measure_plane(plane, estimator, low, high)
        return measured.scale_low, measured.scale_high
    flat = _as_flat(plane)
    halves = _halves(flat, low, high, _width(plane))
    if halves is None:
        return math.nan
    valid = _valid(flat, low, high)
    if estimator in SUMMED:
        return _whole_scale(estimator, valid, halves.median)
    _, (both,) = _unsummed(estimator, valid, halves.median, two_sided=False)
    return both or _whole_scale("avgdev", valid, halves.median)


def finite_range(plane: np.ndarray, threads: int = 1) -> tuple[float, float]:
    """Return the smallest and largest finite sample, NaN and NaN if there is none."""
    bits = _as_flat(plane).view(np.int32)
    found = by_parts(partial(_finite_keys, bits), bits.size, threads)
    least, most = min(pair[0] for pair in found), max(pair[1] for pair in found)
    if least > most:
        return math.nan, math.nan
    low, high = (np.int32(key if key >= 0 else key ^ 0x7FFFFFFF).view(np.float32) for key in (least, most))
    return float(low), float(high)


def count_between(plane: np.ndarray, low: float, high: float, threads: int = 1) -> int:
    """Count the samples strictly between two values, compared in float32."""
    flat = _as_flat(plane)
    work = partial(_count_between, flat, *_bounds(low, high))
    return sum(by_parts(work, flat.size, threads))


def quantization_step(plane: np.ndarray, low: float = UNIT_BOUNDS[0], high: float = UNIT_BOUNDS[1]) -> float:
    """Find the quantization step of a plane; 0 if there is none, or if values hardly repeat.

    This is the smallest difference between values in the central half of a few thousand valid samples, or in
    all of them if that half is tied.
    """
    flat = _as_flat(plane)
    sample = sorted_floats(flat[:: max(1, flat.size // 8192)])
    lower, upper = _bounds(low, high)
    sample = sample[(sample > lower) & (sample < upper)].astype(np.float64)
    values = _distinct(sample[sample.size // 4 : sample.size - sample.size // 4])
    values = values if values.size > 1 else _distinct(sample)
    repeated = 1 < values.size < sample.size / 16
    return float(np.diff(values).min()) if repeated else 0.0


def _distinct(ordered: np.ndarray) -> np.ndarray:
    """Return the different ones of sorted values."""
    return ordered[np.diff(ordered, prepend=-np.inf) > 0]


def grid_step(plane: np.ndarray, low: float, high: float) -> float:
    """Return the quantization step of a plane whose values are whole multiples of it apart; 0 for any other.

    A few thousand samples are looked at. Fewer than four different values are no sign of a grid.
    """
    step = quantization_step(plane, low, high)
    if step == 0.0:
        return 0.0
    flat = _as_flat(plane)
    lower, upper = _bounds(low, high)
    sample = flat[:: max(1, flat.size // 8192)]
    values = np.unique(sample[(sample > lower) & (sample < upper)].astype(np.float64))
    steps = np.diff(values) / step
    # Rounding to float32 moves values a little.
    return step if steps.size > 2 and np.abs(steps - np.rint(steps)).max() < 0.05 else 0.0


def spread_evenly(
    plane: np.ndarray, step: float, low: float = UNIT_BOUNDS[0], high: float = UNIT_BOUNDS[1]
) -> np.ndarray:
    """Move samples by up to half a quantization step, evenly and always in the same way.

    A quantized sample represents all values that were rounded to it. Spread over these, median and scales
    follow the data instead of the position of the median between two steps. The variance increases by step^2
    / 12. Returns 1-D float32, NaN where a sample is not finite and strictly between `low` and `high`.
    """
    return _spread(_as_flat(plane), *_bounds(low, high), np.float32(step))


class _Halves(NamedTuple):
    """Median, and median absolute deviations of the samples up to it and above it."""

    median: float
    mad_low: float
    mad_high: float
    count_low: int
    count_high: int


def _as_flat(plane: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(plane, dtype=np.float32).reshape(-1)


def _width(plane: np.ndarray) -> int:
    return plane.shape[-1] if plane.ndim > 1 else 1


def _bounds(low: float, high: float) -> tuple[np.float32, np.float32]:
    # In float32, so that an integer sample equal to a bound, divided in float32, is still equal.
    return np.float32(low), np.float32(high)


def _one_scale(
    estimator: str, count: int, mad: float, numerator: float, denominator: float, deviation: float
) -> float:
    """Compute the scale from the sums of `_side_sums`; 0 if the side is empty or tied."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator: got {estimator!r}, expected one of {', '.join(ESTIMATORS)}")
    if count == 0:
        return 0.0
    if estimator == "avgdev" or mad == 0:
        return ESTIMATORS["avgdev"] * deviation / count
    if estimator == "mad":
        return ESTIMATORS["mad"] * mad
    return ESTIMATORS["bwmv"] * math.sqrt(count * numerator) / abs(denominator)


def _side_scales(estimator: str, halves: _Halves, sums: np.ndarray) -> tuple[float, float]:
    count = halves.count_low + halves.count_high
    both = ESTIMATORS["avgdev"] * (sums[4] + sums[5]) / count
    low = _one_scale(estimator, halves.count_low, halves.mad_low, sums[0], sums[2], sums[4])
    high = _one_scale(estimator, halves.count_high, halves.mad_high, sums[1], sums[3], sums[5])
    return float(low or both), float(high or both)


def _halves(flat: np.ndarray, low: float, high: float, width: int, threads: int = 1) -> _Halves | None:
    """Compute the exact median and MADs of both sides; None if no sample is valid."""
    lower, upper = _bounds(low, high)
    ranks = Ranks(flat, lower, upper, width, threads)
    if ranks.count == 0:
        return None
    below, above = ranks.value((ranks.count - 1) // 2), ranks.value(ranks.count // 2)
    median = (below + above) / 2
    count_low = ranks.at_or_below(below) if below == above else ranks.count // 2
    count_high = ranks.count - count_low
    a, b = ranks.value((count_low - 1) // 2), ranks.value(count_low // 2)
    mad_low = median - (a + b) / 2
    mad_high = 0.0
    if count_high:
        a, b = ranks.value(count_low + (count_high - 1) // 2), ranks.value(count_low + count_high // 2)
        mad_high = (a + b) / 2 - median
    return _Halves(median, mad_low, mad_high, count_low, count_high)


def _valid(flat: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the samples strictly between the bounds."""
    lower, upper = _bounds(low, high)
    return flat[(flat > lower) & (flat < upper)]


def _whole_scale(estimator: str, valid: np.ndarray, median: float) -> float:
    """Return the scale of all samples together about `median`, for an estimator with sums."""
    mad = float(np.median(np.abs(valid - np.float64(median))))
    sums = _side_sums(valid, *_bounds(-math.inf, math.inf), median, mad, mad)
    both = _one_scale(estimator, valid.size, mad, sums[0] + sums[1], sums[2] + sums[3], sums[4] + sums[5])
    return both if both > 0 else ESTIMATORS["avgdev"] * (sums[4] + sums[5]) / valid.size


def _unsummed(estimator: str, valid: np.ndarray, median: float, two_sided: bool) -> tuple[float, list[float]]:
    """Return location and the scales below and above it, or that of all; 0 for what is empty or tied."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator: got {estimator!r}, expected one of {', '.join(ESTIMATORS)}")
    if estimator == "ikss":
        kept = _within_four_sigma(np.sort(valid))
        if two_sided:
            found = measure_plane(kept, "bwmv", -math.inf, math.inf)
            return found.median, [found.scale_low, found.scale_high]
        middle = location(kept, -math.inf, math.inf)
        return middle, [_whole_scale("bwmv", kept, middle)]
    away = valid - np.float64(median)
    if estimator == "pbmv":
        parts = [-away[away <= 0], away[away > 0]] if two_sided else [np.abs(away)]
        return median, [_percentage_bend(part) for part in parts]
    if two_sided:
        sides = [_some(away[away <= 0], PAIRED // 2), _some(away[away > 0], PAIRED // 2)]
        parts = [np.concatenate([-side, side]) for side in sides]
    else:
        parts = [_some(away, PAIRED)]
    compiled_scale = _sn if estimator == "sn" else _qn
    factor = ESTIMATORS[estimator]
    return median, [factor * compiled_scale(np.sort(part)) if part.size > 1 else 0.0 for part in parts]


def _within_four_sigma(ordered: np.ndarray) -> np.ndarray:
    """Return the sorted samples that ikss keeps."""
    kept, before = ordered, math.inf
    for _ in range(IKSS_ROUNDS):
        n = kept.size
        median = (float(kept[(n - 1) // 2]) + float(kept[n // 2])) / 2
        sigma = _whole_scale("bwmv", kept, median) / ESTIMATORS["bwmv"]
        if abs(before - sigma) <= IKSS_CHANGE * sigma:
            break
        before = sigma
        ends = median - IKSS_CLIP * sigma, median + IKSS_CLIP * sigma
        kept = kept[np.searchsorted(kept, ends[0], "left") : np.searchsorted(kept, ends[1], "right")]
    return kept


def _percentage_bend(deviation: np.ndarray) -> float:
    """Return pbmv from the absolute deviations; 0 if there is none or most are 0."""
    if deviation.size == 0:
        return 0.0
    m = max(int(UNBENT * deviation.size + 0.5), 1)
    width = float(np.partition(deviation, m - 1)[m - 1])
    if width == 0:
        return 0.0
    bent = np.minimum(deviation / width, 1)
    inside = np.count_nonzero(bent < 1)
    if inside == 0:
        return 0.0
    return ESTIMATORS["pbmv"] * width * math.sqrt(deviation.size * float(np.sum(bent * bent))) / inside


def _some(values: np.ndarray, most: int) -> np.ndarray:
    """Return `values`, or a random selection of them that is always the same."""
    if values.size <= most:
        return values
    return values[np.random.default_rng(20210815).integers(0, values.size, most)]


@compiled
def _sn(x):
    """Return the low median over i of the high median over j of ``|x_i - x_j|``, for sorted samples."""
    n = x.size
    # The high median of the n distances of a sample, its own 0 included: the h-th nearest, h = n // 2 + 1.
    beyond = n // 2
    nearest = np.empty(n)
    first = 0
    for i in range(n):
        # The window of h samples around i whose farther end is nearest slides upward with i.
        first = max(first, i - beyond)
        while (
            first + 1 <= i
            and first + 1 + beyond < n
            and (
                max(x[first + 1 + beyond] - x[i], x[i] - x[first + 1])
                <= max(x[first + beyond] - x[i], x[i] - x[first])
            )
        ):
            first += 1
        nearest[i] = max(x[first + beyond] - x[i], x[i] - x[first])
    nearest.sort()
    return nearest[(n + 1) // 2 - 1]


@compiled
def _at_most(x, distance):
    """Count the pairs of sorted samples that are at most `distance` apart."""
    count = 0
    low = 0
    for i in range(x.size):
        while x[i] - x[low] > distance:
            low += 1
        count += i - low
    return count


@compiled
def _qn(x):
    """Return the k-th smallest distance of two sorted samples, k = h (h - 1) / 2 with h = n // 2 + 1."""
    h = x.size // 2 + 1
    k = h * (h - 1) // 2
    low, high = 0.0, x[-1] - x[0]
    if _at_most(x, low) >= k:
        return low
    # Bisect until no float lies between: `high` is then the distance itself.
    while True:
        middle = low + 0.5 * (high - low)
        if middle <= low or middle >= high:
            return high
        if _at_most(x, middle) >= k:
            high = middle
        else:
            low = middle


def _side_sums(
    flat: np.ndarray,
    low: np.float32,
    high: np.float32,
    median: float,
    mad_low: float,
    mad_high: float,
    threads: int = 1,
) -> np.ndarray:
    """Sum over the samples x <= median (even index) and x > median (odd index).

    Returns numerators and denominators of the biweight midvariance and absolute deviations, float64 (6,).
    """
    inverse_low, inverse_high = (1.0 / (9.0 * mad) if mad > 0 else 0.0 for mad in (mad_low, mad_high))
    # Each thread has some of the accumulators, so that the sums do not depend on their number.
    work = partial(_some_sums, flat, low, high, median, inverse_low, inverse_high)
    return np.cumsum(np.concatenate(by_parts(work, LANES, threads, LINE), axis=1), axis=1)[:, -1]


@compiled
def _some_sums(flat, low, high, median, inverse_low, inverse_high, first, last):
    """Return the accumulators ``first:last`` of `_side_sums`, float64 (6, accumulators)."""
    n = last - first
    # One flat array: the compiler sees that its parts do not overlap, and vectorizes.
    sums = np.zeros(6 * n)
    # NaN, which adds nothing, fills the last rows.
    padded = np.full(ROWS * LANES, np.float32(np.nan))
    for start in range(0, flat.size, ROWS * LANES):
        part = flat[start : start + ROWS * LANES]
        if part.size < ROWS * LANES:
            fill_from(part, padded)
            part = padded
        part = part[first:]
        for i in range(n):
            num_low, num_high = sums[i], sums[n + i]
            den_low, den_high = sums[2 * n + i], sums[3 * n + i]
            dev_low, dev_high = sums[4 * n + i], sums[5 * n + i]
            # Some rows at a time, so that the sums are loaded and stored less often.
            for row in range(ROWS):
                x = part[row * LANES + i]
                valid = (x > low) & (x < high)
                d = np.float64(x) - median
                upper = d > 0
                y = d * (inverse_high if upper else inverse_low)
                y2 = y * y
                u = 1.0 - y2
                used = valid & (u > 0)
                num = d * d * (u * u) * (u * u) if used else 0.0
                den = u * (1.0 - 5.0 * y2) if used else 0.0
                dev = abs(d) if valid else 0.0
                num_low += 0.0 if upper else num
                den_low += 0.0 if upper else den
                dev_low += 0.0 if upper else dev
                num_high += num if upper else 0.0
                den_high += den if upper else 0.0
                dev_high += dev if upper else 0.0
            sums[i], sums[n + i] = num_low, num_high
            sums[2 * n + i], sums[3 * n + i] = den_low, den_high
            sums[4 * n + i], sums[5 * n + i] = dev_low, dev_high
    return sums.reshape(6, n)


@compiled
def _spread(flat, low, high, step):
    """Spread samples, see `spread_evenly`."""
    result = np.empty_like(flat)
    for i in range(flat.size):
        x = flat[i]
        # Multiples of the golden ratio, modulo 1, fill the interval evenly from any start.
        turn = np.uint32(np.uint32(i) * np.uint32(2654435769))
        shift = np.float32(np.float32(turn >> np.uint32(8)) * np.float32(2.0**-24) - np.float32(0.5))
        result[i] = x + shift * step if (x > low) & (x < high) else np.float32(np.nan)
    return result


@compiled
def _count_between(flat, low, high, first, last):
    part = flat[first:last]
    count = np.int64(0)
    for start in range(0, part.size, LANES):
        some = part[start : start + LANES]
        # A small counter keeps more comparisons in one vector.
        found = np.int32(0)
        for i in range(some.size):
            found = np.int32(found + np.int32((some[i] > low) & (some[i] < high)))
        count += found
    return count


@compiled
def _finite_keys(bits, first, last):
    """Find the smallest and largest of the finite float32 samples with the bits ``first:last``.

    Returned are integers in the same order: bits compare like floats once the lower ones of negative numbers
    are flipped, and the loop vectorizes.
    """
    least, most = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    bits = bits[first:last]
    for i in range(bits.size):
        key = np.int32(bits[i] ^ ((bits[i] >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        finite = (key > np.int32(-0x7F800001)) & (key < np.int32(0x7F800000))
        least = min(least, key if finite else np.int32(0x7FFFFFFF))
        most = max(most, key if finite else np.int32(-0x80000000))
    return least, most
