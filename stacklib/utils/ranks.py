"""Exact order statistics of an array in one pass.

A subset of the plane brackets each order statistic (Floyd and Rivest 1975, CACM 18, 165). The pass counts the
samples below a bracket and keeps the few inside, among which the exact value is selected. A bracket that
misses is widened, so the result is always exact. Samples tied with an end of a bracket are counted, not kept.
"""

from __future__ import annotations

import math

import numpy as np

from stacklib.utils.compiled import compiled, fill_from, highest, lowest
from stacklib.utils.resources import by_parts

__all__ = ["Ranks", "median_of", "median_of_many", "sorted_floats"]

#: Samples that brackets are based on. A bracket then holds 1 % of the plane.
SAMPLE_SIZE = 1 << 16
#: Standard deviations from an estimated rank to the ends of its bracket: one in a hundred misses, and costs
#: less than larger brackets would.
BRACKET = 2.5
#: Samples that are looked at together, and those that are kept or not with one look.
BLOCK, GROUP = 4096, 8
#: Bits by which floats are sorted at once, and the number of them from which on that is worth it.
DIGIT, MANY = 11, 4096
#: One in so many values brackets the median of many.
STRIDE = 64


class Ranks:
    """Exact order statistics of the valid samples of a plane, 1-D contiguous float32.

    Valid samples are not NaN and strictly between `low` and `high`; `count` is their number. `width` is the
    row length, so that the sampling stride does not follow the columns. `threads` look at the plane.
    """

    def __init__(
        self, flat: np.ndarray, low: np.float32, high: np.float32, width: int = 1, threads: int = 1
    ) -> None:
        self.flat, self.low, self.high, self.threads = flat, low, high, threads
        # Planes of less than twice the sample size are sorted as a whole.
        stride = max(1, flat.size // SAMPLE_SIZE)
        while stride > 1 and math.gcd(stride, width) > 1:
            stride += 1
        # NaN is sorted to the end.
        self.sample = _between(sorted_floats(flat[::stride]), low, high)
        self.complete = stride == 1
        if self.complete:
            self.count = self.sample.size
        else:
            self._look(self._guess())

    def value(self, rank: int) -> float:
        """Return the valid sample of this rank; 0 is the smallest."""
        if self.complete:
            return float(self.sample[rank])
        sigmas = BRACKET
        while True:
            for j in range(3):
                if self.under_lo[j] <= rank < self.to_hi[j]:
                    return self._pick(j, rank)
            sigmas *= 4
            self._look([self._bracket(self.sample.size * rank / self.count, sigmas)] * 3)

    def at_or_below(self, value: float) -> int:
        """Count the valid samples up to `value`, which must be the last result of `value()`."""
        if self.complete:
            return int(np.searchsorted(self.sample, np.float32(value), side="right"))
        j = next(j for j in range(3) if self.lo[j] <= value <= self.hi[j])
        if value == self.hi[j]:
            return int(self.to_hi[j])
        return int(self.to_lo[j]) + int(np.searchsorted(self._inside(j), np.float32(value), side="right"))

    def _pick(self, j: int, rank: int) -> float:
        if rank < self.to_lo[j]:
            return float(self.lo[j])
        inside = self._inside(j)
        step = rank - int(self.to_lo[j])
        return float(inside[step] if step < inside.size else self.hi[j])

    def _inside(self, j: int) -> np.ndarray:
        """Return the samples strictly inside bracket `j`, sorted."""
        return _between(self.kept, self.lo[j], self.hi[j])

    def _guess(self) -> list[tuple[np.float32, np.float32]]:
        """Return brackets of the median and of the medians of the samples up to it and above it."""
        size = self.sample.size
        half = size / 2
        if size:
            # If many samples are tied with the median, the two sides are not halves.
            median = self.sample[size // 2]
            start, stop = (
                np.searchsorted(self.sample, median, "left"),
                np.searchsorted(self.sample, median, "right"),
            )
            half = stop if stop - start > size // 100 else half
        return [self._bracket(rank, BRACKET) for rank in (half / 2, size / 2, (size + half) / 2)]

    def _bracket(self, rank: float, sigmas: float) -> tuple[np.float32, np.float32]:
        """Return values that bracket the sample with about `rank` of the sorted subset below it."""
        size = self.sample.size
        margin = sigmas * (1 + math.sqrt(max(rank * (1 - rank / size), 0.0))) if size else 0
        first, last = math.floor(rank - margin), math.ceil(rank + margin)
        lo = self.sample[first] if 0 <= first < size else self.low
        hi = self.sample[last] if last < size else self.high
        return lo, hi

    def _look(self, brackets: list[tuple[np.float32, np.float32]]) -> None:
        """Count and keep the samples of three brackets in one pass."""
        self.lo, self.hi = np.array(brackets, dtype=np.float32).T.copy()
        found = by_parts(self._look_at, self.flat.size, self.threads, BLOCK)
        self.kept = sorted_floats(np.concatenate([kept for kept, _ in found]))
        counts = np.sum([counts for _, counts in found], axis=0)
        not_valid = counts[0]
        self.count = int(counts[1] - not_valid)
        self.under_lo, self.to_lo, self.to_hi = counts[2:].reshape(3, 3) - not_valid

    def _look_at(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what of a part of the plane is inside the brackets, and the counts of `_count_and_keep`."""
        # As large as the part, but hardly any of it is ever touched.
        kept = np.empty(last - first + 1, dtype=np.float32)
        counts = np.zeros(11, dtype=np.int64)
        part = self.flat[first:last]
        size = _count_and_keep(part, self.low, self.high, self.lo, self.hi, counts, kept)
        return kept[:size], counts


def _between(ordered: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    """Return the sorted samples strictly between `low` and `high`."""
    return ordered[np.searchsorted(ordered, low, "right") : np.searchsorted(ordered, high, "left")]


def sorted_floats(values: np.ndarray) -> np.ndarray:
    """Sort float32 values, 1-D; NaN come last.

    The sort of NumPy takes as long at best, and four times as long on processors that are slow to pick single
    elements of a vector.
    """
    if values.size < MANY:
        return np.sort(values)
    values = np.ascontiguousarray(values)
    bits = values.view(np.int32)
    # As integers without a sign, these are in the order of the floats.
    keys = (bits ^ ((bits >> 31) | np.int32(-0x80000000))).view(np.uint32)
    keys[np.isnan(values)] = 0xFFFFFFFF
    other = np.empty_like(keys)
    for shift in range(0, 32, DIGIT):
        _sort_by_digit(keys, np.uint32(shift), other)
        keys, other = other, keys
    bits = keys.view(np.int32)
    return (bits ^ (~(bits >> 31) | np.int32(-0x80000000))).view(np.float32)


def median_of_many(values: np.ndarray) -> float:
    """Return the median of float64 values, 1-D; NaN for none.

    It is looked for among the few values around the median of some of them, which takes a third of the time.
    """
    some = np.sort(values[::STRIDE])
    # Four standard deviations.
    reach = int(2 * math.sqrt(some.size))
    if 2 * reach < some.size:
        low, high = some[some.size // 2 - reach], some[some.size // 2 + reach]
        near = values[(values >= low) & (values <= high)]
        below = np.count_nonzero(values < low)
        first, last = (values.size - 1) // 2 - below, values.size // 2 - below
        if first >= 0 and last < near.size:
            near.partition((first, last))
            return 0.5 * float(near[first] + near[last])
    return float(np.median(values))


@compiled
def _sort_by_digit(keys, shift, out):
    """Sort integers by `DIGIT` of their bits from `shift` on; those that agree in them keep their order."""
    place = np.zeros(1 << DIGIT, np.uint32)
    mask = np.uint32(place.size - 1)
    for i in range(keys.size):
        place[(keys[i] >> shift) & mask] += np.uint32(1)
    total = np.uint32(0)
    for k in range(place.size):
        count = place[k]
        place[k] = total
        total += count
    for i in range(keys.size):
        k = (keys[i] >> shift) & mask
        out[place[k]] = keys[i]
        place[k] += np.uint32(1)


@compiled
def median_of(values):
    """Return the median of float32 values, contiguous and without NaN, as float64; NaN if there are none.

    It is found by bisection of the bits, which in the order of their integers are in the order of the floats:
    counting is so fast that this is the fastest way up to millions of values.
    """
    size = values.size
    if size == 0:
        return np.nan
    keys = np.empty(size, np.int32)
    bits = values.view(np.int32)
    for i in range(size):
        keys[i] = bits[i] ^ ((bits[i] >> 31) & np.int32(0x7FFFFFFF))
    rank = (size - 1) // 2
    low, high = np.int64(lowest(keys)), np.int64(highest(keys))
    while low < high:
        middle = np.int32((low + high) >> 1)
        count = np.int32(0)
        for i in range(size):
            count = np.int32(count + np.int32(keys[i] <= middle))
        if count > rank:
            high = np.int64(middle)
        else:
            low = np.int64(middle) + 1
    found = np.empty(2, np.int32)
    found[:] = np.int32(low)
    if size % 2 == 0:
        # The next one may be equal to it.
        count, least, above = np.int32(0), found[0], np.int32(0x7FFFFFFF)
        for i in range(size):
            count = np.int32(count + np.int32(keys[i] <= least))
            above = min(above, keys[i] if keys[i] > least else np.int32(0x7FFFFFFF))
        if count == rank + 1:
            found[1] = above
    for i in range(2):
        found[i] ^= (found[i] >> 31) & np.int32(0x7FFFFFFF)
    pair = found.view(np.float32)
    return 0.5 * (np.float64(pair[0]) + np.float64(pair[1]))


@compiled
def middle_of(values):
    """Return the median of float64 values, contiguous; NaN if there are none, and NaN is larger than numbers.

    It is found as by `median_of`. That of NumPy takes a second to compile.
    """
    size = values.size
    if size == 0:
        return np.nan
    keys = np.empty(size, np.int64)
    bits = values.view(np.int64)
    for i in range(size):
        key = bits[i] ^ ((bits[i] >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
        keys[i] = key if values[i] == values[i] else np.int64(0x7FFFFFFFFFFFFFFF)
    rank = (size - 1) // 2
    low, high = lowest(keys), highest(keys)
    while low < high:
        # Their sum may have more bits.
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        count = 0
        for i in range(size):
            count += keys[i] <= middle
        if count > rank:
            high = middle
        else:
            low = middle + 1
    found = np.empty(2, np.int64)
    found[0] = found[1] = low
    if size % 2 == 0:
        # The next one may be equal to it.
        count, above = 0, np.int64(0x7FFFFFFFFFFFFFFF)
        for i in range(size):
            count += keys[i] <= low
            above = keys[i] if (keys[i] > low) & (keys[i] < above) else above
        if count == rank + 1:
            found[1] = above
    for i in range(2):
        found[i] ^= (found[i] >> 63) & np.int64(0x7FFFFFFFFFFFFFFF)
    pair = found.view(np.float64)
    return pair[0] if size % 2 else 0.5 * (pair[0] + pair[1])


@compiled
def _count_and_keep(flat, low, high, lo, hi, counts, kept):
    """Count x <= low, x < high, and x < lo, x <= lo, x <= hi of three brackets; keep lo < x < hi, not NaN."""
    lo0, lo1, lo2 = lo[0], lo[1], lo[2]
    hi0, hi1, hi2 = hi[0], hi[1], hi[2]
    # NaN, which is counted nowhere, fills the last block.
    padded = np.full(BLOCK, np.float32(np.nan))
    inside = np.empty(BLOCK, np.uint8)
    groups = inside.view(np.uint64)
    hit = np.empty(BLOCK // GROUP + 1, np.uint64)
    # Indices without a sign need no test for negative ones.
    size = np.uint64(0)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        if part.size < BLOCK:
            fill_from(part, padded)
            part = padded
        c0 = c1 = a0 = a1 = a2 = b0 = b1 = b2 = d0 = d1 = d2 = np.int32(0)
        for i in range(BLOCK):
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
        for i in range(BLOCK):
            x = part[i]
            inside[i] = ((x > lo0) & (x < hi0)) | ((x > lo1) & (x < hi1)) | ((x > lo2) & (x < hi2))
        # No branches to mispredict: always written, kept only where inside. Most groups have nothing inside.
        hits = np.uint64(0)
        for g in range(BLOCK // GROUP):
            hit[hits] = np.uint64(GROUP * g)
            hits += np.uint64(groups[g] != 0)
        for k in range(hits):
            first = hit[k]
            for j in range(GROUP):
                i = first + np.uint64(j)
                kept[size] = part[i]
                size += np.uint64(inside[i])
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
