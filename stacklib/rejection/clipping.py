"""Rules that clip about a center in units of a scale, and the interface of all rules.

Every rule keeps a contiguous run of the sorted samples, whatever center and limits it uses. A rule is one
compiled function ``rule(ordered, count, limits, table, max_iterations, low, high, detail)`` over a tile:

ordered : float32 (blocks, frames, LANES)
    Samples of each pixel in ascending order, those without data at the end.
count : int32 (blocks, LANES)
    Number of samples with data at each pixel.
limits : float64 (m,)
    Numbers of `stacklib.rejection.registry.CompiledRule.limits`. The first two are the limits of the low and
    high side, infinite for a side that is switched off. The third is the smallest credible scale of quantized
    data, `stacklib.normalization.settings.Settings.floor`, half a step: a sample one step from the center may
    be there by rounding alone, and is not rejected by limits of 2 and more.
table : float64 (rows, columns)
    Quantiles by number of samples, for rules that need them.
max_iterations : int
    Largest number of rounds. The story of a pixel comes from 1, 2, 3 ... rounds of the same rule.
low, high : int32 (blocks, LANES)
    Filled with the kept interval, ``ordered[b, low:high, p]``.
detail : float64 (blocks, 4, LANES)
    Filled with `CENTRE`, `LOWER`, `UPPER` and, for rules that fit a line, `SLOPE` of the last round. Samples
    below `LOWER` or above `UPPER` are dropped. NaN without such a limit.

Tests are strict, and at least one sample survives. With fewer than 3 samples only rules that drop a number of
samples reject anything.
"""

from __future__ import annotations

import math

import numpy as np

from stacklib.rejection.estimators import CENTRES, SQUARES, SUMS, median, moments, sums_about_median
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled, larger

__all__ = [
    "CENTRE",
    "LOWER",
    "SLOPE",
    "UPPER",
    "averaged_sigma",
    "ccd_noise",
    "clip",
    "copied",
    "min_max",
    "none",
    "note",
    "note_limits",
    "percentile",
    "sigma",
]

#: Positions in `detail`.
CENTRE, LOWER, UPPER, SLOPE = range(4)


@compiled
def copied(block, p, n, column):
    """Copy the first `n` samples of a pixel into a contiguous column, for quick repeated access."""
    for i in range(n):
        column[i] = block[i, p]
    return column


@compiled
def note(detail, p, centre, lower, upper, slope):
    """Store center, limits and slope of a round of pixel `p`."""
    detail[CENTRE, p] = centre
    detail[LOWER, p] = lower
    detail[UPPER, p] = upper
    detail[SLOPE, p] = slope


@compiled
def none(ordered, count, limits, table, max_iterations, low, high, detail):
    """Keep everything."""
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            low[b, p] = 0
            high[b, p] = count[b, p]
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)


@compiled
def min_max(ordered, count, limits, table, max_iterations, low, high, detail):
    """Drop fixed numbers of samples at the ends. If none would be left, keep the middle."""
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
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)


@compiled
def clip(x, low, high, centre, scale, limit_low, limit_high):
    """Move both ends past samples beyond the limits in units of `scale`; keep the middle if none is left."""
    first, last = low, high
    while low < high and (centre - x[low]) / scale > limit_low:
        low += 1
    while high > low and (x[high - 1] - centre) / scale > limit_high:
        high -= 1
    if low == high:
        return (first + last - 1) // 2, (first + last) // 2 + 1
    return low, high


@compiled
def note_limits(detail, p, centre, scale, limits):
    """Store center and limits of a round that clips in units of `scale`."""
    note(detail, p, centre, centre - limits[0] * scale, centre + limits[1] * scale, 0.0)


@compiled
def percentile(ordered, count, limits, table, max_iterations, low, high, detail):
    """Drop samples that differ from the median by more than a fraction of it, in one pass.

    Samples that differ by one quantization step only are kept.
    """
    step = 2.0 * limits[2]
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            x = ordered[b, :, p]
            lo, hi = 0, count[b, p]
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and max_iterations >= 1:
                centre = median(x, lo, hi)
                if centre > 0.0:
                    below = max(limits[0], step / centre)
                    above = max(limits[1], step / centre)
                    note(detail[b], p, centre, centre - below * centre, centre + above * centre, 0.0)
                    lo, hi = clip(x, lo, hi, centre, centre, below, above)
            low[b, p] = lo
            high[b, p] = hi


@compiled
def _block_moments(block, count, none_below, sums, scale):
    """Compute `median` and standard deviation (`moments`) of each pixel of a block, bit for bit."""
    sums_about_median(block, count, none_below, sums)
    for p in range(LANES):
        n = np.float64(max(count[p], 2))
        variance = larger(sums[SQUARES + p] - sums[SUMS + p] * sums[SUMS + p] / n, 0.0) / (n - 1.0)
        scale[p] = math.sqrt(variance)


@compiled
def sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the median in units of the standard deviation, until nothing drops."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    sums = np.empty(3 * LANES)
    scale = np.empty(LANES)
    none_below = np.zeros(LANES, np.int32)
    drops = np.empty(LANES, np.bool_)
    last = np.empty(LANES, np.float32)
    for b in range(ordered.shape[0]):
        # The first round runs over the whole block. The few pixels that drop a sample need another one.
        block, below, above, noted = ordered[b], low[b], high[b], detail[b]
        _block_moments(block, count[b], none_below, sums, scale)
        for p in range(LANES):
            below[p] = 0
            above[p] = count[b, p]
            last[p] = block[max(count[b, p], 1) - 1, p]
        for p in range(LANES):
            s = larger(scale[p], floor)
            m = sums[CENTRES + p]
            clips = (count[b, p] >= 3) & (s > 0.0) & (max_iterations > 0)
            scale[p] = s if clips else np.nan
            note_limits(noted, p, m if clips else np.nan, scale[p], limits)
            drops[p] = ((m - block[0, p]) / s > limit_low) | ((last[p] - m) / s > limit_high)
        for p in range(LANES):
            if drops[p] and scale[p] > 0.0:
                x = block[:, p]
                # The types of later rounds, so that nothing is compiled twice.
                lo, hi = np.int64(0), np.int64(count[b, p])
                m, s = sums[CENTRES + p], scale[p]
                for iteration in range(max_iterations):
                    if iteration > 0:
                        m = median(x, lo, hi)
                        s = max(moments(x, lo, hi, m)[1], floor)
                        if s == 0.0:
                            break
                    note_limits(noted, p, m, s, limits)
                    before = hi - lo
                    lo, hi = clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
                below[p] = lo
                above[p] = hi


@compiled
def averaged_sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the median in units of one first estimate of sigma, scaled with the root of the median."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            x = ordered[b, :, p]
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
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
                    note_limits(detail[b], p, m, s, limits)
                    before = hi - lo
                    lo, hi = clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
                    m = median(x, lo, hi)
            low[b, p] = lo
            high[b, p] = hi


@compiled
def ccd_noise(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the median in units of the noise of the camera at that level."""
    limit_low, limit_high, floor = limits[0], limits[1], limits[2]
    read_noise, gain, scale_noise, full_scale = limits[3], limits[4], limits[5], limits[6]
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            x = ordered[b, :, p]
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            if hi >= 3:
                for _ in range(max_iterations):
                    m = median(x, lo, hi)
                    adu = m * full_scale
                    variance = (read_noise / gain) ** 2 + max(adu, 0.0) / gain + (scale_noise * adu) ** 2
                    s = max(math.sqrt(variance) / full_scale, floor)
                    if s == 0.0:
                        break
                    note_limits(detail[b], p, m, s, limits)
                    before = hi - lo
                    lo, hi = clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
            low[b, p] = lo
            high[b, p] = hi
