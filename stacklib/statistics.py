"""Location and scale of one plane: exact order statistics and robust estimators.

The median and the median deviations of both sides are order statistics of the samples themselves
(half of the samples at or below the median M lie at or below the median of that half), so one pass
over the plane gives all three. A sample of the plane brackets each of them (Floyd and Rivest 1975,
CACM 18, 165); the pass counts what lies below a bracket and keeps the few samples inside; the exact
value is selected among those. A bracket that misses is widened: the result never depends on luck.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

__all__ = [
    "ESTIMATORS",
    "UNIT_BOUNDS",
    "PlaneStatistics",
    "finite_range",
    "location",
    "measure_plane",
    "scale",
]

#: Valid samples of data in [0, 1] lie strictly between these.
UNIT_BOUNDS = (1.0 / 65535.0, 1.0 - 1.0 / 65535.0)

#: What makes an estimator consistent with the sigma of a Gaussian.
ESTIMATORS = {"bwmv": 0.991, "mad": 1.4826, "avgdev": 1.2533}

#: Samples from which brackets are made; the brackets then hold about 1.5 % of the plane each.
SAMPLE_SIZE = 1 << 16
#: Planes up to this size are sorted as a whole.
SMALL = 1 << 14
#: Standard deviations from a guessed rank to the ends of its bracket.
BRACKET = 4.5
#: Sums run in this many interleaved float64 accumulators, in a fixed order: the result depends
#: neither on threads nor on the vector width of the machine.
LANES = 256


class PlaneStatistics(NamedTuple):
    """What is measured on one plane; all in the plane's own units.

    Attributes
    ----------
    median, mean : float
        Of the valid samples; NaN where there are none.
    scale_low, scale_high : float
        Scale of the samples at or below, and above, the median; see `scale`.
    avgdev : float
        1.2533 times the mean absolute deviation from the median, both sides together.
    count : int
        Number of valid samples.
    minimum, maximum : float
        Of all finite samples, whatever the bounds; NaN where there are none.
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
) -> PlaneStatistics:
    """All statistics of one plane in three passes.

    Parameters
    ----------
    plane : ndarray of float32, any shape
        Samples. Valid are those that are finite and strictly between `low` and `high`.
    estimator : {"bwmv", "mad", "avgdev"}
        Scale estimator, see `scale`.
    low, high : float
        Bounds, compared in float32; infinite for no bound.
    extremes : tuple of float, optional
        What `finite_range` gives, where it is known already.

    Returns
    -------
    PlaneStatistics
        With NaN for everything that needs a valid sample where there is none.
    """
    flat = _as_flat(plane)
    minimum, maximum = finite_range(flat) if extremes is None else extremes
    halves = _halves(flat, low, high, _width(plane))
    if halves is None:
        nan = math.nan
        return PlaneStatistics(nan, nan, nan, nan, nan, 0, minimum, maximum)
    sums = _side_sums(flat, *_bounds(low, high), halves.median, halves.mad_low, halves.mad_high)
    median = halves.median
    count = halves.count_low + halves.count_high
    mean = float(median + (sums[5] - sums[4]) / count)
    scale_low, scale_high = _side_scales(estimator, halves, sums)
    avgdev = float(ESTIMATORS["avgdev"] * (sums[4] + sums[5]) / count)
    return PlaneStatistics(median, mean, scale_low, scale_high, avgdev, count, minimum, maximum)


def location(plane: np.ndarray, low: float = UNIT_BOUNDS[0], high: float = UNIT_BOUNDS[1]) -> float:
    """Exact median of the valid samples (the mean of the two middles of an even number).

    Parameters
    ----------
    plane : ndarray of float32, any shape
        Samples. Valid are those that are finite and strictly between `low` and `high`.
    low, high : float
        Bounds, compared in float32; infinite for no bound.

    Returns
    -------
    float
        NaN where there is no valid sample.
    """
    halves = _halves(_as_flat(plane), low, high, _width(plane))
    return math.nan if halves is None else halves.median


def scale(
    plane: np.ndarray,
    estimator: str = "bwmv",
    low: float = UNIT_BOUNDS[0],
    high: float = UNIT_BOUNDS[1],
    two_sided: bool = True,
) -> tuple[float, float] | float:
    """Scale of the valid samples about their median M, consistent with the sigma of a Gaussian.

    ==========  ==============================================================================
    avgdev      1.2533 mean ``|x - M|``
    mad         1.4826 median ``|x - M|``
    bwmv        0.991 sqrt(N sum (x-M)^2 (1-Y^2)^4) / ``|sum (1-Y^2)(1-5Y^2)|``, the sums over
                ``|Y| < 1`` with Y = (x - M) / (9 median ``|x - M|``), N all samples
                (biweight midvariance; Wilcox 2017, section 3.12.1)
    ==========  ==============================================================================

    Parameters
    ----------
    plane : ndarray of float32, any shape
        Samples. Valid are those that are finite and strictly between `low` and `high`.
    estimator : {"bwmv", "mad", "avgdev"}
        Which of the above.
    low, high : float
        Bounds, compared in float32; infinite for no bound.
    two_sided : bool
        The estimator of the samples x <= M and of the samples x > M, about the common M.

    Returns
    -------
    (scale_low, scale_high) or float
        The pair where `two_sided`. NaN where there is no valid sample.

    Notes
    -----
    On quantised data more than half of a side can be tied with M: its median deviation is 0 although
    the samples differ. Then that side's ``avgdev`` is taken, and where that is 0 as well (all of the
    side tied, or no sample in it) the ``avgdev`` of both sides together: a scale is 0 only where all
    samples are equal.
    """
    if two_sided:
        measured = measure_plane(plane, estimator, low, high)
        return measured.scale_low, measured.scale_high
    flat = _as_flat(plane)
    halves = _halves(flat, low, high, _width(plane))
    if halves is None:
        return math.nan
    lower, upper = _bounds(low, high)
    valid = flat[(flat > lower) & (flat < upper)]
    mad = float(np.median(np.abs(valid - np.float64(halves.median))))
    sums = _side_sums(flat, lower, upper, halves.median, mad, mad)
    count = halves.count_low + halves.count_high
    both = _one_scale(estimator, count, mad, sums[0] + sums[1], sums[2] + sums[3], sums[4] + sums[5])
    return both if both > 0 else ESTIMATORS["avgdev"] * (sums[4] + sums[5]) / count


def finite_range(plane: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite sample; NaN and NaN where there is none."""
    minimum, maximum = _finite_range(_as_flat(plane))
    if minimum > maximum:
        return math.nan, math.nan
    return float(minimum), float(maximum)


class _Halves(NamedTuple):
    """Median, and median absolute deviations of the samples at or below it and above it."""

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
    # In float32: an integer sample that equals a bound, divided in float32, then counts as equal.
    return np.float32(low), np.float32(high)


def _one_scale(
    estimator: str, count: int, mad: float, numerator: float, denominator: float, deviation: float
) -> float:
    """Scale from the sums of `_side_sums` over `count` samples; 0 where the side is empty or tied."""
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


def _halves(flat: np.ndarray, low: float, high: float, width: int) -> _Halves | None:
    """Median and both side MADs, exact; None where no sample is valid."""
    lower, upper = _bounds(low, high)
    ranks = _Ranks(flat, lower, upper, width)
    if ranks.count == 0:
        return None
    below, above = ranks.values((ranks.count - 1) // 2, ranks.count // 2)
    median = (below + above) / 2
    count_low = ranks.at_or_below(below) if below == above else ranks.count // 2
    count_high = ranks.count - count_low
    a, b = ranks.values((count_low - 1) // 2, count_low // 2)
    mad_low = median - (a + b) / 2
    mad_high = 0.0
    if count_high:
        a, b = ranks.values(count_low + (count_high - 1) // 2, count_low + count_high // 2)
        mad_high = (a + b) / 2 - median
    return _Halves(median, mad_low, mad_high, count_low, count_high)


class _Ranks:
    """Exact order statistics of the valid samples of a plane.

    Parameters
    ----------
    flat : ndarray of float32, 1-D and contiguous
        The plane.
    low, high : float32
        Valid samples lie strictly between.
    width : int
        Row length: the sampling stride must not follow the columns.
    """

    def __init__(self, flat: np.ndarray, low: np.float32, high: np.float32, width: int):
        self.flat, self.low, self.high = flat, low, high
        stride = max(1, flat.size // SAMPLE_SIZE) if flat.size > SMALL else 1
        while stride > 1 and math.gcd(stride, width) > 1:
            stride += 1
        sample = flat[::stride]
        self.sample = np.sort(sample[(sample > low) & (sample < high)])
        self.complete = stride == 1
        if self.complete:
            self.count = self.sample.size
        else:
            self._look(self._guess())

    def values(self, first: int, second: int) -> tuple[float, float]:
        """The samples of two ranks (0 is the smallest) that are equal or neighbours."""
        if self.complete:
            return float(self.sample[first]), float(self.sample[second])
        return self._value(first), self._value(second)

    def at_or_below(self, value: float) -> int:
        """Number of valid samples that are at most `value`, which is one that `values` gave."""
        if self.complete:
            return int(np.searchsorted(self.sample, np.float32(value), side="right"))
        for j in range(3):
            if self.lo[j] <= value <= self.hi[j]:
                if value == self.hi[j]:
                    return int(self.to_hi[j])
                return int(self.to_lo[j]) + int(np.searchsorted(self._inside(j), value, side="right"))
        raise AssertionError("the value was not looked up")

    def _value(self, rank: int) -> float:
        widen = BRACKET
        while True:
            for j in range(3):
                if self.under_lo[j] <= rank < self.to_hi[j]:
                    return self._pick(j, rank)
            widen *= 4
            middle = self.sample.size * rank / self.count
            self._look([self._bracket(middle, widen)] * 3)

    def _pick(self, j: int, rank: int) -> float:
        if rank < self.to_lo[j]:
            return float(self.lo[j])
        inside = self._inside(j)
        step = rank - int(self.to_lo[j])
        return float(inside[step] if step < inside.size else self.hi[j])

    def _inside(self, j: int) -> np.ndarray:
        """The samples strictly inside bracket `j`, sorted."""
        if self.sorted[j] is None:
            kept = self.kept
            self.sorted[j] = np.sort(kept[(kept > self.lo[j]) & (kept < self.hi[j])])
        return self.sorted[j]

    def _guess(self) -> list[tuple[np.float32, np.float32]]:
        """Brackets of the median and of the medians of both halves."""
        size = self.sample.size
        if size == 0:
            return [(self.low, self.high)] * 3
        # Where many samples are tied with the median, the halves are not halves.
        tied_low, tied_high = (
            np.searchsorted(self.sample, self.sample[size // 2], s) for s in ("left", "right")
        )
        half = tied_high if tied_high - tied_low > size // 100 else size / 2
        return [self._bracket(rank, BRACKET) for rank in (half / 2, size / 2, (size + half) / 2)]

    def _bracket(self, rank: float, sigmas: float) -> tuple[np.float32, np.float32]:
        size = self.sample.size
        margin = sigmas * math.sqrt(max(rank * (1 - rank / size), 0.0)) + sigmas if size else 0
        first, last = math.floor(rank - margin), math.ceil(rank + margin)
        lo = self.sample[first] if first >= 0 and size else self.low
        hi = self.sample[last] if last < size else self.high
        return lo, hi

    def _look(self, brackets: list[tuple[np.float32, np.float32]]) -> None:
        """Count and keep for three brackets, in one pass."""
        self.lo, self.hi = np.array(brackets, dtype=np.float32).T.copy()
        # As large as the plane, though hardly any of it is ever touched.
        kept = np.empty(self.flat.size + 1, dtype=np.float32)
        counts = np.zeros(12, dtype=np.int64)
        size = _count_and_keep(self.flat, self.low, self.high, self.lo, self.hi, counts, kept)
        self.kept = kept[:size].copy()
        self.sorted: list[np.ndarray | None] = [None] * 3
        not_valid = counts[0]
        self.count = int(counts[1] - not_valid)
        self.under_lo, self.to_lo, self.to_hi = counts[2:11].reshape(3, 3) - not_valid


@njit(cache=True, nogil=True)
def _count_and_keep(flat, low, high, lo, hi, counts, kept):
    """Counts of x <= low, x < high, then x < lo, x <= lo, x <= hi of three brackets; keeps lo < x < hi.

    NaN is counted nowhere. Returns the number of kept samples.
    """
    lo0, lo1, lo2 = lo[0], lo[1], lo[2]
    hi0, hi1, hi2 = hi[0], hi[1], hi[2]
    block = 4096
    inside = np.empty(block, np.uint8)
    size = 0
    for start in range(0, flat.size, block):
        part = flat[start : min(start + block, flat.size)]
        c0 = c1 = a0 = a1 = a2 = b0 = b1 = b2 = d0 = d1 = d2 = np.int32(0)
        for i in range(part.size):
            x = part[i]
            # Small counters keep eight comparisons in one vector.
            c0 = np.int32(c0 + np.int32(x <= low))
            c1 = np.int32(c1 + np.int32(x < high))
            a0 = np.int32(a0 + np.int32(x < lo0))
            a1 = np.int32(a1 + np.int32(x < lo1))
            a2 = np.int32(a2 + np.int32(x < lo2))
            b0 = np.int32(b0 + np.int32(x <= lo0))
            b1 = np.int32(b1 + np.int32(x <= lo1))
            b2 = np.int32(b2 + np.int32(x <= lo2))
            d0 = np.int32(d0 + np.int32(x <= hi0))
            d1 = np.int32(d1 + np.int32(x <= hi1))
            d2 = np.int32(d2 + np.int32(x <= hi2))
        for i in range(part.size):
            x = part[i]
            inside[i] = ((x > lo0) & (x < hi0)) | ((x > lo1) & (x < hi1)) | ((x > lo2) & (x < hi2))
        for i in range(part.size):
            # No branch to mispredict: always written, kept only where inside.
            kept[size] = part[i]
            size += inside[i]
        counts[0] += c0
        counts[1] += c1
        counts[2] += a0
        counts[3] += a1
        counts[4] += a2
        counts[5] += b0
        counts[6] += b1
        counts[7] += b2
        counts[8] += d0
        counts[9] += d1
        counts[10] += d2
    return size


@njit(cache=True, nogil=True)
def _side_sums(flat, low, high, median, mad_low, mad_high):
    """Sums over the samples x <= median (even index) and x > median (odd index).

    Returns float64 (6,): numerators, denominators of the biweight midvariance, absolute deviations.
    """
    inverse_low = 1.0 / (9.0 * mad_low) if mad_low > 0 else 0.0
    inverse_high = 1.0 / (9.0 * mad_high) if mad_high > 0 else 0.0
    lanes = np.zeros((6, LANES))
    num_low, num_high, den_low, den_high, dev_low, dev_high = lanes
    for start in range(0, flat.size, LANES):
        part = flat[start : min(start + LANES, flat.size)]
        for i in range(part.size):
            x = part[i]
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
            num_low[i] += 0.0 if upper else num
            den_low[i] += 0.0 if upper else den
            dev_low[i] += 0.0 if upper else dev
            num_high[i] += num if upper else 0.0
            den_high[i] += den if upper else 0.0
            dev_high[i] += dev if upper else 0.0
    sums = np.zeros(6)
    for k in range(6):
        for i in range(LANES):
            sums[k] += lanes[k, i]
    return sums


@njit(cache=True, nogil=True)
def _finite_range(flat):
    """Smallest and largest finite sample; (inf, -inf) where there is none."""
    infinity = np.float32(np.inf)
    low, high = infinity, -infinity
    lows, highs = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    block = 64 * LANES
    for start in range(0, flat.size, block):
        part = flat[start : min(start + block, flat.size)]
        lows[:] = infinity
        highs[:] = -infinity
        for first in range(0, part.size, LANES):
            lane = part[first : min(first + LANES, part.size)]
            for i in range(lane.size):
                x = lane[i]
                lows[i] = x if x < lows[i] else lows[i]
                highs[i] = x if x > highs[i] else highs[i]
        least, most = lows[0], highs[0]
        for i in range(LANES):
            least = min(least, lows[i])
            most = max(most, highs[i])
        if least == -infinity or most == infinity:
            # An infinite sample hides the finite ones: look at each.
            least, most = infinity, -infinity
            for x in part:
                if -infinity < x < infinity:
                    least, most = min(least, x), max(most, x)
        low, high = min(low, least), max(high, most)
    return low, high
