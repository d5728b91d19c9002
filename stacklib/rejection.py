"""The rejection rules: sorted samples of a pixel in, the kept interval out.

Every rule keeps a contiguous run of the sorted samples, whatever centre and limits it uses. So a rule
is one compiled function ``rule(ordered, count, limits, table, max_iterations, low, high, detail)`` over
a tile:

ordered : float32 (blocks, frames, LANES)
    The samples of each pixel in ascending order; those that are no data lie at the end.
count : int32 (blocks, LANES)
    How many samples of each pixel are data.
limits : float64 (m,)
    What `Rule.limits` makes of a recipe. The first two are the limits of the two sides, infinite for a side
    that is switched off; the third is the smallest scale that is believed (quantised data).
table : float64 (rows, columns)
    Quantiles that depend on the number of samples, for the rules that need them.
max_iterations : int
    Rounds of clipping at most. The story of a pixel is told by 1, 2, 3 ... rounds of the same rule.
low, high : int32 (blocks, LANES)
    Filled with the kept interval, ``ordered[b, low:high, p]``.
detail : float64 (blocks, LANES, 4)
    Filled with what the last round went by: `CENTRE`, `LOWER`, `UPPER` and, for linear_fit, `SLOPE`.
    Samples below `LOWER` or above `UPPER` are dropped; NaN where there is no such limit.

A test is strict, and at least one sample survives. With fewer than 3 samples nothing is rejected, except by
min_max.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from stacklib.compiled import compiled
from stacklib.estimators import (
    absolute_deviation,
    deviation_sums,
    l1_line,
    median,
    moments,
    sn_scale,
    sn_scale_block,
)
from stacklib.recipe import Recipe
from stacklib.sorting import LANES, larger, smaller, sorting_network

__all__ = [
    "ALL_ITERATIONS",
    "CENTRE",
    "LOWER",
    "RULES",
    "SLOPE",
    "UPPER",
    "Rule",
    "limits_in_vain",
    "rule_for",
]

#: Positions in the detail of a pixel.
CENTRE, LOWER, UPPER, SLOPE = range(4)

#: As many rounds as it takes.
ALL_ITERATIONS = 10_000


@compiled
def _copied(block, p, n, column):
    """The first `n` samples of a pixel side by side, where they are quicker to get at again and again."""
    for i in range(n):
        column[i] = block[i, p]
    return column


@compiled
def _note(detail, centre, lower, upper, slope):
    """Keep what a round went by."""
    detail[CENTRE] = centre
    detail[LOWER] = lower
    detail[UPPER] = upper
    detail[SLOPE] = slope


@compiled
def none(ordered, count, limits, table, max_iterations, low, high, detail):
    """Keep everything."""
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            low[b, p] = 0
            high[b, p] = count[b, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)


@compiled
def min_max(ordered, count, limits, table, max_iterations, low, high, detail):
    """Drop fixed numbers of samples at the ends; where none would be left, keep the middle."""
    drop_low = int(limits[0])
    drop_high = int(limits[1])
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            n = count[b, p]
            if n == 0 or max_iterations < 1:
                low[b, p] = 0
                high[b, p] = n
            elif drop_low + drop_high < n:
                low[b, p] = drop_low
                high[b, p] = n - drop_high
            else:
                low[b, p] = (n - 1) // 2
                high[b, p] = n // 2 + 1
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)


@compiled
def _clip(x, low, high, centre, scale, limit_low, limit_high):
    """Move both ends inward past the samples that lie beyond the limits, in units of `scale`.

    Where none would be left, the middle of them is kept.
    """
    first, last = low, high
    while low < high and (centre - x[low]) / scale > limit_low:
        low += 1
    while high > low and (x[high - 1] - centre) / scale > limit_high:
        high -= 1
    if low == high:
        return (first + last - 1) // 2, (first + last) // 2 + 1
    return low, high


@compiled
def _note_limits(detail, centre, scale, limits):
    """Keep centre and limits of a round that clips in units of `scale`."""
    _note(detail, centre, centre - limits[0] * scale, centre + limits[1] * scale, 0.0)


@compiled
def percentile(ordered, count, limits, table, max_iterations, low, high, detail):
    """One pass: drop what differs from the median by more than a fraction of it."""
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            x = ordered[b, :, p]
            lo, hi = 0, count[b, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and max_iterations >= 1:
                centre = median(x, lo, hi)
                if centre > 0.0:
                    _note_limits(detail[b, p], centre, centre, limits)
                    lo, hi = _clip(x, lo, hi, centre, centre, limits[0], limits[1])
            low[b, p] = lo
            high[b, p] = hi


@compiled
def _block_moments(block, count, centre, scale):
    """Median and standard deviation of every pixel of a block, bit for bit as `median` and `moments`."""
    first = np.zeros(LANES)
    second = np.zeros(LANES)
    for p in range(LANES):
        n = count[p]
        centre[p] = median(block[:, p], 0, n) if n > 0 else 0.0
    for i in range(block.shape[0]):
        sample = block[i]
        for p in range(LANES):
            d = np.float64(sample[p]) - centre[p]
            d = d if i < count[p] else 0.0
            first[p] += d
            second[p] += d * d
    for p in range(LANES):
        n = np.float64(max(count[p], 2))
        scale[p] = math.sqrt(max(second[p] - first[p] * first[p] / n, 0.0) / (n - 1.0))


@compiled
def sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the median in units of the standard deviation, until nothing drops."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    centre = np.empty(LANES)
    scale = np.empty(LANES)
    for b in range(ordered.shape[0]):
        # The first round is computed for a whole block; few pixels need another one.
        _block_moments(ordered[b], count[b], centre, scale)
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            m, s = centre[p], max(scale[p], floor)
            if hi >= 3 and s > 0.0:
                x = ordered[b, :, p]
                for iteration in range(max_iterations):
                    if iteration > 0:
                        m = median(x, lo, hi)
                        s = max(moments(x, lo, hi, m)[1], floor)
                        if s == 0.0:
                            break
                    _note_limits(detail[b, p], m, s, limits)
                    before = hi - lo
                    lo, hi = _clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
            low[b, p] = lo
            high[b, p] = hi


#: Winsorization (Huber): clamp at this many sigma, and what that takes from a Gaussian's sigma.
WINSORIZATION = 1.5
WINSORIZED_CONSTANT = 1.134
#: Passes at most until mean and sigma have settled.
WINSORIZATIONS = 100
#: As many passes are done for a whole block; most pixels have settled by then.
PASSES_TOGETHER = 4


@compiled
def _winsorized(x, low, high, m, s, cutoff, value, size):
    """Winsorized mean and sigma of ``x[low:high]``, iterated from the start `m`, `s`.

    A sample beyond 1.5 s is clamped there, or put on m if it lies beyond `cutoff` s as well. What was clamped
    stays so: samples moved to the same value form a group (`value`, `size`) and move together from then on.
    Groups 0 and 1 are those at the lower and the upper limit; ``x[a:b]`` has not been touched.
    """
    n = high - low
    centre = m
    a, b = low, high
    first = 0.0
    second = 0.0
    groups = 2
    size[0] = 0
    size[1] = 0
    value[0] = -np.inf
    value[1] = np.inf
    for iteration in range(WINSORIZATIONS):
        bottom = m - WINSORIZATION * s
        top = m + WINSORIZATION * s
        cut_low = m - cutoff * s
        cut_high = m + cutoff * s
        moved_to_centre = 0
        for g in range(groups):
            if size[g] > 0:
                v = value[g]
                if v < cut_low or v > cut_high:
                    moved_to_centre += size[g]
                    size[g] = 0
                elif v < bottom:
                    value[g] = bottom
                elif v > top:
                    value[g] = top
        before_a, before_b = a, b
        while a < b and x[a] < bottom:
            if x[a] < cut_low:
                moved_to_centre += 1
            else:
                size[0] += 1
                value[0] = bottom
            a += 1
        while b > a and x[b - 1] > top:
            if x[b - 1] > cut_high:
                moved_to_centre += 1
            else:
                size[1] += 1
                value[1] = top
            b -= 1
        if moved_to_centre > 0:
            value[groups] = m
            size[groups] = moved_to_centre
            groups += 1
        if iteration == 0:
            for i in range(a, b):
                d = np.float64(x[i]) - centre
                first += d
                second += d * d
        else:
            for i in range(before_a, a):
                d = np.float64(x[i]) - centre
                first -= d
                second -= d * d
            for i in range(b, before_b):
                d = np.float64(x[i]) - centre
                first -= d
                second -= d * d
        total = first
        squares = second
        for g in range(groups):
            if size[g] > 0:
                d = value[g] - centre
                total += size[g] * d
                squares += size[g] * d * d
        previous = s
        s = WINSORIZED_CONSTANT * math.sqrt(max(squares - total * total / n, 0.0) / (n - 1))
        m = centre + total / n
        if s == 0.0 or (iteration > 0 and abs(previous - s) < 0.0005 * previous):
            break
    return m, s


@compiled
def _winsorized_block(block, count, start, cutoff, centre, scale, cleaned, lanes):
    """The first round of `_winsorized` for a whole block; fills `centre` and `scale` (LANES,).

    Starts from `centre` and `start`. Clamping again and again is clamping once at the inner limits so far,
    unless the scale shrinks so much that a clamped sample lies beyond the cutoff after all: such a pixel
    is left to `_winsorized`, its `scale` is NaN.
    """
    # lanes: one flat array, of which each part holds one number for every pixel.
    low, high, m, s = 0, LANES, 2 * LANES, 3 * LANES
    middle, first, second, active = 4 * LANES, 5 * LANES, 6 * LANES, 7 * LANES
    frames = block.shape[0]
    for p in range(LANES):
        lanes[middle + p] = centre[p]
        lanes[m + p] = centre[p]
        lanes[s + p] = start[p]
        lanes[low + p] = centre[p] - WINSORIZATION * start[p]
        lanes[high + p] = centre[p] + WINSORIZATION * start[p]
        lanes[active + p] = 1.0 if count[p] >= 3 and start[p] > 0.0 else 0.0
        scale[p] = start[p]
    for i in range(frames):
        sample = block[i]
        clean = cleaned[i]
        for p in range(LANES):
            x = np.float64(sample[p])
            far = (i >= count[p]) | (abs(x - lanes[middle + p]) > cutoff * lanes[s + p])
            clean[p] = np.float32(lanes[middle + p]) if far else sample[p]
    for iteration in range(WINSORIZATIONS):
        alone = iteration >= PASSES_TOGETHER
        if not alone:
            for p in range(LANES):
                lanes[first + p] = 0.0
                lanes[second + p] = 0.0
            for i in range(frames):
                clean = cleaned[i]
                for p in range(LANES):
                    v = smaller(larger(np.float64(clean[p]), lanes[low + p]), lanes[high + p])
                    d = v - lanes[middle + p]
                    lanes[first + p] += d
                    lanes[second + p] += d * d
        going_on = 0
        for p in range(LANES):
            if lanes[active + p] > 0.0:
                n = np.float64(count[p])
                if alone:
                    # Few pixels need so many passes.
                    total, squares = 0.0, 0.0
                    bottom, top, zero = lanes[low + p], lanes[high + p], lanes[middle + p]
                    for i in range(frames):
                        d = smaller(larger(np.float64(cleaned[i, p]), bottom), top) - zero
                        total += d
                        squares += d * d
                else:
                    total, squares = lanes[first + p], lanes[second + p]
                # What lies beyond the samples of a pixel is on its centre; it may be clamped, too.
                beyond = frames - count[p]
                if beyond > 0:
                    clamped = np.float64(np.float32(lanes[middle + p]))
                    d = smaller(larger(clamped, lanes[low + p]), lanes[high + p]) - lanes[middle + p]
                    total -= beyond * d
                    squares -= beyond * d * d
                previous = lanes[s + p]
                variance = max(squares - total * total / n, 0.0) / (n - 1.0)
                new = WINSORIZED_CONSTANT * math.sqrt(variance)
                mean = lanes[middle + p] + total / n
                lanes[s + p] = new
                lanes[m + p] = mean
                centre[p] = mean
                scale[p] = new
                if new == 0.0 or (iteration > 0 and abs(previous - new) < 0.0005 * previous):
                    lanes[active + p] = 0.0
                else:
                    bottom, top = lanes[low + p], lanes[high + p]
                    lanes[low + p] = max(bottom, mean - WINSORIZATION * new)
                    lanes[high + p] = min(top, mean + WINSORIZATION * new)
                    if (
                        bottom < mean - cutoff * new
                        or top > mean + cutoff * new
                        or lanes[low + p] > lanes[high + p]
                    ):
                        lanes[active + p] = 0.0
                        scale[p] = np.nan
                    else:
                        going_on += 1
        if going_on == 0:
            break


@compiled
def winsorized_sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the winsorized mean in units of the winsorized sigma, until nothing drops.

    The start is the median and Sn; where Sn is 0, because more than half of the samples are equal,
    the standard deviation.
    """
    limit_low, limit_high, floor, cutoff = limits[0], limits[1], limits[2], limits[3]
    frames = ordered.shape[1]
    network = np.ascontiguousarray(table).view(np.int64)
    distances = np.empty((frames, LANES), np.float32)
    cleaned = np.empty((frames, LANES), np.float32)
    lanes = np.empty(8 * LANES)
    start = np.empty(LANES)
    centre = np.empty(LANES)
    scale = np.empty(LANES)
    work = np.empty(frames)
    column = np.empty(frames, np.float32)
    value = np.empty(WINSORIZATIONS + 2)
    size = np.empty(WINSORIZATIONS + 2, np.int64)
    for b in range(ordered.shape[0]):
        block = ordered[b]
        whole = frames >= 3 and count[b].min() == frames
        if whole:
            sn_scale_block(block, network, distances, start)
        for p in range(LANES):
            n = count[b, p]
            x = block[:, p]
            centre[p] = median(x, 0, n) if n > 0 else 0.0
            if not whole:
                start[p] = sn_scale(x, 0, n, work)
            if start[p] == 0.0 and n >= 3:
                start[p] = moments(x, 0, n, centre[p])[1]
        _winsorized_block(block, count[b], start, cutoff, centre, scale, cleaned, lanes)
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and start[p] > 0.0:
                m, s = centre[p], scale[p]
                x = block[:, p]
                if np.isnan(s):
                    m, s = _winsorized(x, lo, hi, median(x, lo, hi), start[p], cutoff, value, size)
                for iteration in range(max_iterations):
                    if iteration > 0:
                        if iteration == 1:
                            x = _copied(block, p, hi, column)
                        m = median(x, lo, hi)
                        s = sn_scale(x, lo, hi, work)
                        if s == 0.0:
                            s = moments(x, lo, hi, m)[1]
                        if s == 0.0:
                            break
                        m, s = _winsorized(x, lo, hi, m, s, np.inf, value, size)
                    s = max(s, floor)
                    if s == 0.0:
                        break
                    _note_limits(detail[b, p], m, s, limits)
                    before = hi - lo
                    lo, hi = _clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
            low[b, p] = lo
            high[b, p] = hi


@compiled
def averaged_sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the median; sigma follows the square root of the median from one first estimate."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            x = ordered[b, :, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            if hi >= 3:
                m = median(x, lo, hi)
                squares = 0.0
                for i in range(hi):
                    squares += (np.float64(x[i]) - m) ** 2
                per_root = math.sqrt(squares / m / (hi - 1)) if m > 0.0 else 0.0
                for _ in range(max_iterations):
                    if m <= 0.0:
                        break
                    s = max(per_root * math.sqrt(m), floor)
                    if s == 0.0:
                        break
                    _note_limits(detail[b, p], m, s, limits)
                    before = hi - lo
                    lo, hi = _clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
                    m = median(x, lo, hi)
            low[b, p] = lo
            high[b, p] = hi


@compiled
def ccd_noise(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the median in units of the noise that the camera must have at that level."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    read_noise, gain, scale_noise, full_scale = limits[3], limits[4], limits[5], limits[6]
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            x = ordered[b, :, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            if hi >= 3:
                for _ in range(max_iterations):
                    m = median(x, lo, hi)
                    adu = m * full_scale
                    variance = (read_noise / gain) ** 2 + max(adu, 0.0) / gain + (scale_noise * adu) ** 2
                    s = max(math.sqrt(variance) / full_scale, floor)
                    if s == 0.0:
                        break
                    _note_limits(detail[b, p], m, s, limits)
                    before = hi - lo
                    lo, hi = _clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
            low[b, p] = lo
            high[b, p] = hi


@compiled
def linear_fit(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about an L1 line through the sorted samples, in units of twice the mean deviation from it."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    frames = ordered.shape[1]
    position = np.arange(frames).astype(np.float64)
    order = np.empty(frames, np.int64)
    residual = np.empty(frames)
    column = np.empty(frames, np.float32)
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            if hi >= 5:
                x = column
                for i in range(hi):
                    x[i] = ordered[b, i, p]
                for _ in range(max_iterations):
                    start, n = lo, hi - lo
                    intercept, gradient = l1_line(position, x, lo, hi, order, residual)
                    deviation = 0.0
                    for j in range(n):
                        deviation += abs(np.float64(x[lo + j]) - (intercept + gradient * j))
                    s = max(2.0 * deviation / n * math.sqrt(1.0 + gradient * gradient), floor)
                    end = intercept + gradient * (n - 1)
                    lower, upper = intercept - limit_low * s, end + limit_high * s
                    _note(detail[b, p], 0.5 * (intercept + end), lower, upper, gradient)
                    if s == 0.0:
                        break
                    while lo < hi - 1:
                        line = intercept + gradient * (lo - start)
                        if line <= x[lo] or (line - x[lo]) / s < limit_low:
                            break
                        lo += 1
                    while hi - 1 > lo:
                        line = intercept + gradient * (hi - 1 - start)
                        if line >= x[hi - 1] or (x[hi - 1] - line) / s < limit_high:
                            break
                        hi -= 1
                    if hi - lo == n or hi - lo < 3:
                        break
            low[b, p] = lo
            high[b, p] = hi


@compiled
def _trimmed_mean(x, low, high, drop_low, drop_high):
    """Mean of ``x[low:high]`` without its ends; the median where too little would be left."""
    if drop_low + drop_high >= high - low - 2:
        return median(x, low, high)
    total = 0.0
    for i in range(low + drop_low, high - drop_high):
        total += x[i]
    return total / (high - low - drop_low - drop_high)


@compiled
def gesd(ordered, count, limits, table, max_iterations, low, high, detail):
    """The generalized extreme Studentized deviate test (Rosner 1983).

    The most deviating sample is taken away up to k times; rejected are all up to the last one that exceeded
    its critical value, so that several outliers cannot hide each other. `max_iterations` bounds k.
    """
    use_low, use_high = np.isfinite(limits[0]), np.isfinite(limits[1])
    floor, fraction, relaxation, pixinsight = limits[2], limits[3], limits[4], limits[5] > 0.0
    critical = table[0]
    column = np.empty(ordered.shape[1], np.float32)
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            kept_low, kept_high = lo, hi
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and (use_low or use_high):
                x = _copied(ordered[b], p, hi, column)
                at_most = min(max(int(fraction * hi), 1), hi - 2)
                middle = median(x, lo, hi)
                first, second = deviation_sums(x, lo, hi, middle)
                for i in range(min(at_most, max_iterations)):
                    n = hi - lo
                    centre = middle + first / n
                    s = max(math.sqrt(max(second - first * first / n, 0.0) / (n - 1)), floor)
                    if s == 0.0:
                        break
                    if pixinsight:
                        drop_high = max(1, int(fraction * n) - i)
                        drop_low = max(1, int(fraction * n / relaxation) - i)
                        centre = _trimmed_mean(x, lo, hi, drop_low, drop_high)
                    above = (x[hi - 1] - centre) / s if use_high else -np.inf
                    below = (centre - x[lo]) / (relaxation * s) if use_low else -np.inf
                    significant = max(above, below) > critical[n]
                    lower = centre - relaxation * critical[n] * s if use_low else -np.inf
                    upper = centre + critical[n] * s if use_high else np.inf
                    _note(detail[b, p], centre, lower, upper, 0.0)
                    if above >= below:
                        hi -= 1
                        d = np.float64(x[hi]) - middle
                    else:
                        d = np.float64(x[lo]) - middle
                        lo += 1
                    if d * d > 0.5 * second:
                        # Taking away most of a sum leaves its rounding errors: sum again.
                        first, second = deviation_sums(x, lo, hi, middle)
                    else:
                        first -= d
                        second -= d * d
                    if significant:
                        kept_low, kept_high = lo, hi
                    elif pixinsight:
                        break
            low[b, p] = kept_low
            high[b, p] = kept_high


@compiled
def _chauvenet_centre_and_scale(x, low, high, phase, abscissae, distance, order, residual):
    """Centre and spread of the three phases of robust Chauvenet rejection, from robust to precise."""
    n = high - low
    m = median(x, low, high)
    if phase == 2:
        return moments(x, low, high, m)
    # Small samples show too little spread (Maples et al. 2018, for the 68.3 % deviation).
    correction = 1.0 / (1.0 - 2.9442 * n**-1.073)
    points = int(0.683 * n + 0.317)
    if phase == 1 or points < 8:
        return m, correction * absolute_deviation(x, low, high, m, int(0.683 * n))
    right = low
    while right < high and x[right] < m:
        right += 1
    left = right - 1
    for i in range(points):
        below = m - x[left] if left >= low else np.inf
        above = x[right] - m if right < high else np.inf
        distance[i] = min(below, above)
        if below <= above:
            left -= 1
        else:
            right += 1
    intercept, gradient = l1_line(abscissae, distance, 0, points, order, residual)
    return m, correction * (intercept + gradient)


@compiled
def chauvenet(ordered, count, limits, table, max_iterations, low, high, detail):
    """Robust Chauvenet rejection (Maples et al. 2018): drop what is expected fewer than `limit` times.

    Three phases: median and a line through the inner deviations; median and 68.3 % deviation; mean and
    standard deviation. Each goes on until nothing drops. `max_iterations` bounds the dropped samples.
    """
    limit = limits[3]
    quantile = table[0]
    use_low, use_high = np.isfinite(limits[0]), np.isfinite(limits[1])
    floor = limits[2]
    frames = ordered.shape[1]
    column = np.empty(frames, np.float32)
    distance = np.empty(frames)
    order = np.empty(frames, np.int64)
    residual = np.empty(frames)
    root2 = math.sqrt(2.0)
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            x = _copied(ordered[b], p, hi, column)
            _note(detail[b, p], np.nan, np.nan, np.nan, 0.0)
            phase = 0
            dropped = 0
            while phase < 3 and hi - lo >= 3 and dropped < max_iterations:
                n = hi - lo
                m, s = _chauvenet_centre_and_scale(x, lo, hi, phase, table[n], distance, order, residual)
                if s <= 0.0:
                    # Half of the samples are equal: that says nothing of the spread.
                    phase += 1
                    continue
                s = max(s, floor)
                # The end that lies farther out is the one where fewer samples are expected.
                z_low = (m - x[lo]) / s if use_low else -np.inf
                z_high = (x[hi - 1] - m) / s if use_high else -np.inf
                lower = m - quantile[n] * s if use_low else -np.inf
                upper = m + quantile[n] * s if use_high else np.inf
                _note(detail[b, p], m, lower, upper, 0.0)
                if n * 0.5 * math.erfc(max(z_low, z_high) / root2) >= limit:
                    phase += 1
                elif z_low >= z_high:
                    lo += 1
                    dropped += 1
                else:
                    hi -= 1
                    dropped += 1
            low[b, p] = lo
            high[b, p] = hi


def _no_table(recipe: Recipe, frames: int) -> np.ndarray:
    return np.zeros((1, 1))


def _network_table(recipe: Recipe, frames: int) -> np.ndarray:
    # The rule sorts distances with the sorting network; tables are float64, so it travels as bits.
    return sorting_network(frames).view(np.float64)


def _gesd_table(recipe: Recipe, frames: int) -> np.ndarray:
    """Critical values by the number of samples left, shape (1, frames + 1)."""
    n = np.arange(frames + 1, dtype=np.float64)
    critical = np.full(frames + 1, np.inf)
    left = n[3:]
    t = -special.stdtrit(left - 2, recipe.gesd_significance / (2 * left))
    critical[3:] = t * (left - 1) / np.sqrt((left - 2 + t * t) * left)
    return critical[np.newaxis]


def _chauvenet_table(recipe: Recipe, frames: int) -> np.ndarray:
    """Expected deviations of the inner 68.3 % in sigma: row n holds those of n samples.

    Row 0 holds the deviation at which as few samples are expected as the limit says, by the number of
    samples.
    """
    table = np.zeros((frames + 1, frames + 1))
    table[0, 1:] = math.sqrt(2) * special.erfcinv(2 * recipe.chauvenet_limit / np.arange(1, frames + 1))
    for n in range(3, frames + 1):
        i = np.arange(1, int(0.683 * n + 0.317) + 1)
        table[n, : i.size] = math.sqrt(2) * special.erfinv((i - 0.317) / n)
    return table


@dataclass(frozen=True)
class Rule:
    """A compiled rule and how its numbers follow from a recipe.

    Attributes
    ----------
    function : callable
        The rule over a tile, see the module's text.
    side_limits : tuple of str
        Names of the recipe's limits of the low and the high side; empty where one limit serves both.
    more_limits : callable
        Recipe and full scale (ADU at the value 1) to the further limits, if any.
    table : callable
        Recipe and number of frames to the table.
    """

    function: Callable
    side_limits: tuple[str, ...] = ()
    more_limits: Callable[[Recipe, float], tuple[float, ...]] = lambda recipe, full_scale: ()
    table: Callable[[Recipe, int], np.ndarray] = _no_table

    def limits(self, recipe: Recipe, floor: float, full_scale: float) -> np.ndarray:
        """The numbers that the compiled rule reads, float64."""
        off = 0.0 if self.function is min_max else math.inf
        on = [float(getattr(recipe, name)) for name in self.side_limits] or [1.0, 1.0]
        sides = [on[0] if recipe.clip_low else off, on[1] if recipe.clip_high else off]
        return np.array([*sides, floor, *self.more_limits(recipe, full_scale)])


_SIGMAS = ("sigma_low", "sigma_high")

#: The rules by name.
RULES: dict[str, Rule] = {
    "none": Rule(none),
    "min_max": Rule(min_max, ("min_max_low", "min_max_high")),
    "percentile": Rule(percentile, ("percentile_low", "percentile_high")),
    "sigma": Rule(sigma, _SIGMAS),
    "winsorized_sigma": Rule(
        winsorized_sigma,
        _SIGMAS,
        lambda recipe, full_scale: (recipe.winsorization_cutoff,),
        _network_table,
    ),
    "averaged_sigma": Rule(averaged_sigma, _SIGMAS),
    "linear_fit": Rule(linear_fit, ("linear_fit_low", "linear_fit_high")),
    "gesd": Rule(
        gesd,
        (),
        lambda recipe, full_scale: (
            recipe.gesd_outliers_fraction,
            recipe.gesd_low_relaxation,
            float(recipe.gesd_variant == "pixinsight"),
        ),
        _gesd_table,
    ),
    "chauvenet": Rule(chauvenet, (), lambda recipe, full_scale: (recipe.chauvenet_limit,), _chauvenet_table),
    "ccd_noise": Rule(
        ccd_noise,
        _SIGMAS,
        lambda recipe, full_scale: (
            recipe.ccd_read_noise,
            recipe.ccd_gain,
            recipe.ccd_scale_noise,
            full_scale,
        ),
    ),
}


def rule_for(recipe: Recipe, frames: int) -> Rule:
    """The rule that the recipe means for this many frames (``auto`` resolved)."""
    return RULES[recipe.rule_for(frames)]


def limits_in_vain(recipe: Recipe, frames: int) -> list[str]:
    """What the chosen limits cannot do with this many frames, as sentences for the user.

    One outlier among n samples lies at most sqrt(n) standard deviations from the median, so a limit
    beyond that rejects nothing; clipping at less than sqrt(3) sigma, repeated, eats into good samples.
    """
    name = recipe.rule_for(frames)
    if name == "none":
        return []
    if not (recipe.clip_low or recipe.clip_high):
        return ["clip_low and clip_high are both off: nothing can be rejected"]
    if name == "min_max":
        dropped = recipe.clip_low * recipe.min_max_low + recipe.clip_high * recipe.min_max_high
        if dropped >= frames:
            return [
                f"min_max drops {dropped} samples of {frames}: only the median is left; "
                "lower min_max_low or min_max_high"
            ]
        return []
    least = 5 if name == "linear_fit" else 3
    if frames < least:
        return [
            f"{name} needs at least {least} frames, there are {frames}: nothing can be rejected; "
            "add frames, or use min_max"
        ]
    notes = []
    in_vain = []
    if name in ("sigma", "winsorized_sigma", "averaged_sigma", "ccd_noise"):
        for side in ("low", "high"):
            limit = getattr(recipe, f"sigma_{side}")
            if not getattr(recipe, f"clip_{side}"):
                continue
            if name in ("sigma", "averaged_sigma") and limit >= math.sqrt(frames):
                in_vain.append(f"sigma_{side} {limit:g}")
            if name != "ccd_noise" and limit <= math.sqrt(3):
                notes.append(
                    f"sigma_{side} {limit:g} is so low that repeated clipping eats into good samples; "
                    "use at least 2"
                )
    if in_vain:
        notes.append(
            f"{' and '.join(in_vain)} cannot reject anything with {frames} frames: one outlier among them "
            f"lies at most {math.sqrt(frames):.2f} sigma out; lower it, add frames, or use "
            "winsorized_sigma or percentile"
        )
    return notes
