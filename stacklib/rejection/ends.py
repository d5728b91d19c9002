"""Rules that need only the ends of the sorted samples, their median and their sums.

When some samples are added to many, these can be had without looking at all of them. The samples of a pixel
are a `Pixel`: those known before, sorted, and some more, sorted as well. Their sums are known up to rounding.
A decision that rounding might change is not made: then the interval is not known, and the pixel is left to
the usual function. All else is the arithmetic of `stacklib.rejection.clipping`, bit for bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled

__all__ = [
    "AVERAGED_SIGMA",
    "CCD_NOISE",
    "MIN_MAX",
    "NONE",
    "PERCENTILE",
    "SIGMA",
    "Kept",
    "Pixel",
    "back",
    "forth",
    "interval",
    "median_at",
    "moved",
    "split_at",
    "value_at",
]

#: Rules by number, for compiled code.
NONE, MIN_MAX, PERCENTILE, SIGMA, AVERAGED_SIGMA, CCD_NOISE = range(6)
#: Rounding errors of a sum are at most so many units in the last place of its largest possible value for
#: each sample.
ROUNDING = 16 * 2.0**-53


class Pixel(NamedTuple):
    """The normalized samples of a pixel: those known before, and some more.

    Both are float32 and in ascending order: ``values[block, :known, lane]``, and ``more[lane, :others]`` with
    an infinity behind them. A place among all of them is given by the numbers (i, j) of known and other
    samples before it.
    """

    values: np.ndarray
    block: int
    lane: int
    known: int
    more: np.ndarray
    others: int


@compiled
def value_at(pixel, i, j):
    """Return the sample at a place."""
    v = pixel.values[pixel.block, min(i, pixel.known - 1), pixel.lane]
    v = v if i < pixel.known else np.float32(np.inf)
    w = pixel.more[pixel.lane, j]
    return v if v < w else w


@compiled
def forth(pixel, i, j):
    """Return the next place."""
    v = pixel.values[pixel.block, min(i, pixel.known - 1), pixel.lane]
    # Without a branch, which would be a guess.
    one = np.int64((i < pixel.known) & (v <= pixel.more[pixel.lane, j]))
    return i + one, j + 1 - one


@compiled
def back(pixel, i, j):
    """Return the previous place."""
    v, w = pixel.values[pixel.block, max(i - 1, 0), pixel.lane], pixel.more[pixel.lane, max(j - 1, 0)]
    one = np.int64((i > 0) & ((j == 0) | (v > w)))
    return i - one, j - 1 + one


@compiled
def split_at(pixel, rank):
    """Return the place with so many samples before it."""
    values, block, lane, known, more, others = pixel
    least, most = max(0, rank - known), min(others, rank)
    # Usually half of the others are smaller than a sample in the middle.
    pivot = values[block, min(max(rank - others // 2, 0), known - 1), lane]
    j = 0
    for k in range(others):
        j += np.int64(more[lane, k] < pivot)
    j = min(max(j, least), most)
    while True:
        i = rank - j
        if j < most and i > 0 and values[block, i - 1, lane] > more[lane, j]:
            j += 1
        elif j > least and i < known and more[lane, j - 1] > values[block, i, lane]:
            j -= 1
        else:
            return i, j


@compiled
def moved(pixel, i, j, steps):
    """Return the place so many samples further on, or back."""
    for _ in range(steps):
        i, j = forth(pixel, i, j)
    for _ in range(-steps):
        i, j = back(pixel, i, j)
    return i, j


@compiled
def median_at(pixel, i, j, even):
    """Return the median whose lower sample is at a place; that of an even number is between two."""
    lower = np.float64(value_at(pixel, i, j))
    if even:
        i, j = forth(pixel, i, j)
    return 0.5 * (lower + np.float64(value_at(pixel, i, j)))


class Kept(NamedTuple):
    """The interval of the samples that a rule keeps, the upper end -1 if it is not known.

    The other numbers are the places of the first sample that is kept, and of the first one above.
    """

    low: int
    high: int
    first_i: int
    first_j: int
    above_i: int
    above_j: int


@compiled
def _beyond(apart, scale, limit, tolerance):
    """Return 1 if a distance in units of the scale exceeds a limit, 0 if not, -1 if rounding may decide."""
    if limit == np.inf:
        return 0
    z = apart / scale
    if abs(z - limit) <= tolerance * abs(limit):
        return -1 if tolerance > 0.0 else np.int64(z > limit)
    return np.int64(z > limit)


@compiled
def interval(rule, pixel, centre, sums, limits, max_iterations):
    """Find the interval of the samples that a rule keeps.

    `centre` is the median of all samples. `sums` are a center, the sums of the deviations of all samples from
    it and of their squares, and what the latter was before samples were subtracted; `limits` are those of the
    rule. Returns `Kept`.
    """
    known, others = pixel.known, pixel.others
    n = known + others
    low, high = 0, n
    i, j = 0, 0
    above_i, above_j = known, others
    unknown = Kept(0, -1, 0, 0, known, others)
    if rule == MIN_MAX:
        low, high = int(limits[0]), n - int(limits[1])
        if low >= high:
            return unknown
        i, j = moved(pixel, 0, 0, low)
        above_i, above_j = moved(pixel, known, others, high - n)
        return Kept(low, high, i, j, above_i, above_j)
    if rule == NONE or n < 3:
        return Kept(low, high, i, j, above_i, above_j)
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    level, first, second, once = sums
    m = centre
    # Rounding errors of the sum of squares, at most. What was subtracted has left its own.
    error = ROUNDING * n * (once + n * (m - level) * (m - level))
    tolerance, per_root = 0.0, 0.0
    if rule == AVERAGED_SIGMA and m > 0.0:
        squares = second - 2.0 * (m - level) * first + n * (m - level) * (m - level)
        if not squares > 1e3 * error:
            return unknown
        per_root = math.sqrt(squares / m / (n - 1))
        tolerance = 1e-14 + error / squares
    for iteration in range(1 if rule == PERCENTILE else max_iterations):
        size = high - low
        if iteration > 0:
            m = median_at(pixel, *split_at(pixel, (low + high - 1) // 2), size % 2 == 0)
        if rule == SIGMA:
            squares = second - first * first / size
            if not squares > 1e3 * error:
                return unknown
            s = max(math.sqrt(squares / (size - 1)), floor)
            tolerance = 1e-14 + error / squares
        elif rule == CCD_NOISE:
            read_noise, gain, scale_noise, full_scale = limits[3], limits[4], limits[5], limits[6]
            adu = m * full_scale
            variance = (read_noise / gain) ** 2 + max(adu, 0.0) / gain + (scale_noise * adu) ** 2
            s = max(math.sqrt(variance) / full_scale, floor)
        elif m <= 0.0:
            break
        elif rule == PERCENTILE:
            s = m
            limit_low, limit_high = max(limits[0], 2.0 * floor / m), max(limits[1], 2.0 * floor / m)
        else:
            s = max(per_root * math.sqrt(m), floor)
        if s == 0.0:
            break
        while low < high:
            v = value_at(pixel, i, j)
            out = _beyond(m - v, s, limit_low, tolerance)
            if out < 0:
                return unknown
            if out == 0:
                break
            i, j = forth(pixel, i, j)
            low += 1
            first -= np.float64(v) - level
            second -= (np.float64(v) - level) ** 2
        while high > low:
            last_i, last_j = back(pixel, above_i, above_j)
            v = value_at(pixel, last_i, last_j)
            out = _beyond(v - m, s, limit_high, tolerance)
            if out < 0:
                return unknown
            if out == 0:
                break
            above_i, above_j = last_i, last_j
            high -= 1
            first -= np.float64(v) - level
            second -= (np.float64(v) - level) ** 2
        if low >= high:
            return unknown
        if high - low == size or high - low < 3:
            break
    return Kept(low, high, i, j, above_i, above_j)
