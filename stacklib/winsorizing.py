"""Winsorized sigma clipping."""

from __future__ import annotations

import math

import numpy as np

from stacklib.clipping import clip, copied, note, note_limits
from stacklib.compiled import compiled
from stacklib.estimators import median, moments, sn_scale, sn_scale_block
from stacklib.sorting import LANES, larger, smaller

__all__ = ["winsorized_sigma"]

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
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and start[p] > 0.0:
                m, s = centre[p], scale[p]
                x = block[:, p]
                if np.isnan(s):
                    m, s = _winsorized(x, lo, hi, median(x, lo, hi), start[p], cutoff, value, size)
                for iteration in range(max_iterations):
                    if iteration > 0:
                        if iteration == 1:
                            x = copied(block, p, hi, column)
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
                    note_limits(detail[b], p, m, s, limits)
                    before = hi - lo
                    lo, hi = clip(x, lo, hi, m, s, limit_low, limit_high)
                    if hi - lo == before or hi - lo < 3:
                        break
            low[b, p] = lo
            high[b, p] = hi
