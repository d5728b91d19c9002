"""Winsorized sigma clipping."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.rejection.clipping import SLOPE, clip, note_limits
from stacklib.rejection.estimators import median, moments, sn_scale, sn_scale_block
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled, larger, smaller

__all__ = ["winsorized_sigma"]

#: Winsorization (Huber): clamp at this many sigma, and correct the sigma of Gaussian samples for it.
WINSORIZATION = 1.5
WINSORIZED_CONSTANT = 1.134
#: Largest number of passes until mean and sigma settle.
WINSORIZATIONS = 100
#: With at least this many pixels, working on the whole block at once is faster.
TOGETHER = 20


@compiled
def _winsorized(x, low, high, m, s, cutoff, value, size):
    """Return winsorized mean and sigma of ``x[low:high]``, iterated from `m` and `s`.

    Samples beyond 1.5 s are clamped there, or moved to m if they lie beyond `cutoff` s. Clamped samples stay
    clamped: samples moved to the same value form a group (`value`, `size`) and move together from then on.
    Groups 0 and 1 are at the lower and upper limit. ``x[a:b]`` is unchanged.
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


#: Parts of the state of a block, float64: winsorized mean (from the median) and sigma so far; factors of the
#: sums for mean and variance; rows beyond the samples; 1 if another pass is needed; sums of the clamped
#: deviations and of their squares, and the contribution of the core to them.
MEAN, SIGMA, PER_SIZE, PER_FREEDOM, BEYOND, ACTIVE = (part * LANES for part in range(6))
SUM, SQUARES, CORE_SUM, CORE_SQUARES = (part * LANES for part in range(6, 10))
#: Parts of its limits, float32: clamping limits of the deviations, and extremes of the core.
BOTTOM, TOP, CORE_LOWEST, CORE_HIGHEST = (part * LANES for part in range(4))


class Clamping(NamedTuple):
    """Working arrays of a block.

    `cleaned` holds the deviations of the samples from the median, float32 (frames, LANES), 0 beyond the
    cutoff; `limits`, float32 (4 * LANES,), those at which they are clamped, and extremes of the core;
    `state`, float64 (10 * LANES,), mean, sigma and sums.
    """

    cleaned: np.ndarray
    limits: np.ndarray
    state: np.ndarray


class Estimates(NamedTuple):
    """First estimate of the scale, then winsorized mean and sigma: float64 arrays of shape (LANES,)."""

    start: np.ndarray
    centre: np.ndarray
    scale: np.ndarray


@compiled
def _sum_core(cleaned, pixels, limits, state):
    """Compute sums and extremes of the core, the middle half of the samples, which is rarely clamped."""
    frames = cleaned.shape[0]
    state[CORE_SUM : CORE_SQUARES + LANES] = 0.0
    for p in range(pixels):
        limits[CORE_LOWEST + p] = 0.0
        limits[CORE_HIGHEST + p] = 0.0
    for i in range(frames // 4, frames - frames // 4):
        clean = cleaned[i]
        for p in range(pixels):
            limits[CORE_LOWEST + p] = smaller(limits[CORE_LOWEST + p], clean[p])
            limits[CORE_HIGHEST + p] = larger(limits[CORE_HIGHEST + p], clean[p])
            d = np.float64(clean[p])
            state[CORE_SUM + p] += d
            state[CORE_SQUARES + p] += d * d


@compiled
def _clamped(x, bottom, top):
    return np.float64(smaller(larger(x, bottom), top))


@compiled
def _sum_clamped(cleaned, pixels, limits, state):
    """Sum the clamped deviations of a block and their squares, if the core is not clamped."""
    frames = cleaned.shape[0]
    quarter = frames // 4
    for p in range(pixels):
        state[SUM + p] = state[CORE_SUM + p]
        state[SQUARES + p] = state[CORE_SQUARES + p]
    # Four rows at a time, so that the sums are loaded and stored less often.
    for i in range(0, quarter - 1, 2):
        c1, c2, c3, c4 = cleaned[i], cleaned[frames - 1 - i], cleaned[i + 1], cleaned[frames - 2 - i]
        for p in range(pixels):
            bottom, top = limits[BOTTOM + p], limits[TOP + p]
            d1 = _clamped(c1[p], bottom, top)
            d2 = _clamped(c2[p], bottom, top)
            d3 = _clamped(c3[p], bottom, top)
            d4 = _clamped(c4[p], bottom, top)
            state[SUM + p] = state[SUM + p] + d1 + d2 + d3 + d4
            state[SQUARES + p] = state[SQUARES + p] + d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4
    if quarter % 2:
        c1, c2 = cleaned[quarter - 1], cleaned[frames - quarter]
        for p in range(pixels):
            bottom, top = limits[BOTTOM + p], limits[TOP + p]
            d1 = _clamped(c1[p], bottom, top)
            d2 = _clamped(c2[p], bottom, top)
            state[SUM + p] = state[SUM + p] + d1 + d2
            state[SQUARES + p] = state[SQUARES + p] + d1 * d1 + d2 * d2


@compiled
def _core_is_clamped(p, limits):
    return (limits[BOTTOM + p] > limits[CORE_LOWEST + p]) | (limits[TOP + p] < limits[CORE_HIGHEST + p])


@compiled
def _sum_clamped_alone(cleaned, p, limits, state):
    """Do `_sum_clamped` for one pixel, bit for bit, even if the core is clamped."""
    frames = cleaned.shape[0]
    quarter = frames // 4
    bottom, top = limits[BOTTOM + p], limits[TOP + p]
    total, squares = state[CORE_SUM + p], state[CORE_SQUARES + p]
    if _core_is_clamped(p, limits):
        total, squares = 0.0, 0.0
        for i in range(quarter, frames - quarter):
            d = _clamped(cleaned[i, p], bottom, top)
            total += d
            squares += d * d
    for i in range(quarter):
        d1 = _clamped(cleaned[i, p], bottom, top)
        d2 = _clamped(cleaned[frames - 1 - i, p], bottom, top)
        total = total + d1 + d2
        squares = squares + d1 * d1 + d2 * d2
    state[SUM + p] = total
    state[SQUARES + p] = squares


@compiled
def _take_pass(first, last, iteration, cutoff, limits, state, scale):
    """Compute mean and sigma of pixels ``first:last`` from their sums, and the next limits."""
    for p in range(first, last):
        bottom, top = limits[BOTTOM + p], limits[TOP + p]
        # Rows beyond the samples of a pixel hold its median, which may be clamped as well.
        d = _clamped(np.float32(0.0), bottom, top)
        total = state[SUM + p] - state[BEYOND + p] * d
        squares = state[SQUARES + p] - state[BEYOND + p] * d * d
        previous = state[SIGMA + p]
        mean = total * state[PER_SIZE + p]
        new = math.sqrt(larger(squares - total * mean, 0.0) * state[PER_FREEDOM + p])
        settled = (new == 0.0) | ((iteration > 0) & (abs(previous - new) < 0.0005 * previous))
        lower = larger(bottom, np.float32(mean - WINSORIZATION * new))
        upper = smaller(top, np.float32(mean + WINSORIZATION * new))
        lost = (bottom < mean - cutoff * new) | (top > mean + cutoff * new) | (lower > upper)
        active = state[ACTIVE + p] > 0.0
        go_on = active & (not settled)
        state[MEAN + p] = mean if active else state[MEAN + p]
        state[SIGMA + p] = new if active else previous
        state[ACTIVE + p] = 1.0 if go_on & (not lost) else 0.0
        limits[BOTTOM + p] = lower if go_on else bottom
        limits[TOP + p] = upper if go_on else top
        scale[p] = np.nan if go_on & lost else scale[p]


@compiled
def _winsorized_block(block, count, pixels, cutoff, estimates, clamping):
    """Do `_winsorized` for the first `pixels` pixels of a block and fill `centre` and `scale`.

    The start is `centre` and `start`. Repeated clamping equals clamping once at the innermost limits so far,
    unless the scale shrinks so much that a clamped sample lies beyond the cutoff. Such a pixel gets a `scale`
    of NaN and is left to `_winsorized`. Samples are float32 deviations from the median.
    """
    start, centre, scale = estimates
    cleaned, limits, state = clamping
    frames = block.shape[0]
    for p in range(pixels):
        n = np.float64(max(count[p], 2))
        state[MEAN + p] = 0.0
        state[SIGMA + p] = start[p]
        state[BEYOND + p] = frames - n
        state[PER_SIZE + p] = 1.0 / n
        state[PER_FREEDOM + p] = WINSORIZED_CONSTANT**2 / (n - 1.0)
        state[ACTIVE + p] = 1.0 if (count[p] >= 3) & (start[p] > 0.0) else 0.0
        limits[BOTTOM + p] = -WINSORIZATION * start[p]
        limits[TOP + p] = WINSORIZATION * start[p]
        scale[p] = 0.0
    for i in range(frames):
        sample = block[i]
        clean = cleaned[i]
        for p in range(pixels):
            d = np.float64(sample[p]) - centre[p]
            far = (np.int32(i) >= count[p]) | (abs(d) > cutoff * start[p])
            clean[p] = np.float32(0.0 if far else d)
    _sum_core(cleaned, pixels, limits, state)
    iteration = 0
    while iteration < WINSORIZATIONS:
        active = np.int32(0)
        apart = np.int32(0)
        for p in range(pixels):
            needed = state[ACTIVE + p] > 0.0
            active = np.int32(active + np.int32(needed))
            apart = np.int32(apart + np.int32(needed & _core_is_clamped(p, limits)))
        if active < TOGETHER:
            break
        _sum_clamped(cleaned, pixels, limits, state)
        if apart > 0:
            for p in range(pixels):
                if _core_is_clamped(p, limits):
                    _sum_clamped_alone(cleaned, p, limits, state)
        _take_pass(0, pixels, iteration, cutoff, limits, state, scale)
        iteration += 1
    # The few that have not settled continue one by one.
    for p in range(pixels):
        own = iteration
        while state[ACTIVE + p] > 0.0 and own < WINSORIZATIONS:
            _sum_clamped_alone(cleaned, p, limits, state)
            _take_pass(p, p + 1, own, cutoff, limits, state, scale)
            own += 1
    for p in range(pixels):
        centre[p] += state[MEAN + p]
        scale[p] += state[SIGMA + p]


@compiled
def _start(block, count, pixels, network, distances, work, centre, scale):
    """Compute median and Sn of the pixels of a block, or the standard deviation if Sn is 0."""
    # Pixels with as many samples as the middle one, usually most of them, go together, others one by one.
    n = count[pixels // 2]
    together = np.int32(0)
    for p in range(pixels):
        together = np.int32(together + np.int32(count[p] == n))
    if n >= 3 and together >= min(TOGETHER, pixels):
        sn_scale_block(block, n, pixels, network, distances, scale)
        lower, upper = block[(n - 1) // 2], block[n // 2]
        for p in range(pixels):
            centre[p] = 0.5 * (np.float64(lower[p]) + np.float64(upper[p]))
    else:
        n = np.int32(-1)
        together = np.int32(0)
    zeros = np.int32(0)
    if together < pixels:
        for p in range(pixels):
            if count[p] != n:
                scale[p] = sn_scale(block[:, p], 0, count[p], work)
                centre[p] = median(block[:, p], 0, count[p]) if count[p] > 0 else 0.0
    for p in range(pixels):
        zeros = np.int32(zeros + np.int32(scale[p] == 0.0))
    if zeros > 0:
        for p in range(pixels):
            if scale[p] == 0.0 and count[p] >= 3:
                scale[p] = moments(block[:, p], 0, count[p], centre[p])[1]


@compiled
def _pack(ordered, chosen, low, high, block, count):
    """Copy the kept samples of some pixels into a block. Beyond them the largest is repeated."""
    for k in range(chosen.size):
        b, p = chosen[k] // LANES, chosen[k] % LANES
        count[k] = high[b, p] - low[b, p]
    for i in range(block.shape[0]):
        for k in range(chosen.size):
            b, p = chosen[k] // LANES, chosen[k] % LANES
            block[i, k] = ordered[b, min(low[b, p] + i, high[b, p] - 1), p]


@compiled
def _by_count(chosen, low, high, frames):
    """Sort pixels of a tile by number of kept samples."""
    start = np.zeros(frames + 2, np.int64)
    for q in chosen:
        start[high[q // LANES, q % LANES] - low[q // LANES, q % LANES] + 1] += 1
    start = np.cumsum(start)
    in_order = np.empty_like(chosen)
    for q in chosen:
        n = high[q // LANES, q % LANES] - low[q // LANES, q % LANES]
        in_order[start[n]] = q
        start[n] += 1
    return in_order


@compiled
def _decide(block, last, count, pixels, limits, estimates, drops):
    """Finish the scales, NaN if there is none, and find the pixels that drop a sample."""
    start, centre, scale = estimates
    for p in range(pixels):
        s = larger(scale[p], limits[2])
        clips = (count[p] >= 3) & (start[p] > 0.0) & (s > 0.0)
        drops[p] = ((centre[p] - block[0, p]) / s > limits[0]) | ((last[p] - centre[p]) / s > limits[1])
        drops[p] &= clips
        scale[p] = s if clips else np.nan
        centre[p] = centre[p] if clips else np.nan


@compiled
def winsorized_sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the winsorized mean in units of the winsorized sigma, until nothing drops.

    The start is median and Sn, or the standard deviation if Sn is 0 because more than half of the samples are
    equal. The first round uses the cutoff and the blocks as they are. Pixels that dropped a sample are packed
    into new blocks for the next round.
    """
    cutoff = limits[3]
    blocks, frames = ordered.shape[0], ordered.shape[1]
    network = np.ascontiguousarray(table).view(np.int64)
    packed = np.empty((frames, LANES), np.float32)
    packed_count = np.empty(LANES, np.int32)
    distances = np.empty((frames, LANES), np.float32)
    cleaned = np.empty((frames, LANES), np.float32)
    clamping = Clamping(cleaned, np.empty(4 * LANES, np.float32), np.empty(10 * LANES))
    start = np.empty(LANES)
    centre = np.empty(LANES)
    scale = np.empty(LANES)
    estimates = Estimates(start, centre, scale)
    last = np.empty(LANES, np.float32)
    drops = np.empty(LANES, np.bool_)
    work = np.empty(frames)
    value = np.empty(WINSORIZATIONS + 2)
    size = np.empty(WINSORIZATIONS + 2, np.int64)
    low[:] = 0
    high[:] = count
    detail[:, :SLOPE] = np.nan
    detail[:, SLOPE] = 0.0
    waiting = np.arange(blocks * LANES)
    for iteration in range(max_iterations):
        if iteration > 0:
            waiting = _by_count(waiting, low, high, frames)
            cutoff = np.inf
        dropped = 0
        for first in range(0, waiting.size, LANES):
            chosen = waiting[first : first + LANES]
            pixels = chosen.size
            if iteration == 0:
                block, n = ordered[first // LANES], count[first // LANES]
                for p in range(LANES):
                    last[p] = block[max(n[p], 1) - 1, p]
            else:
                block, n = packed, packed_count
                _pack(ordered, chosen, low, high, block, n)
                last[:] = block[frames - 1]
            _start(block, n, pixels, network, distances, work, centre, start)
            _winsorized_block(block, n, pixels, cutoff, estimates, clamping)
            for p in range(pixels):
                if np.isnan(scale[p]):
                    m = median(block[:, p], 0, n[p])
                    centre[p], scale[p] = _winsorized(block[:, p], 0, n[p], m, start[p], cutoff, value, size)
            _decide(block, last, n, pixels, limits, estimates, drops)
            if iteration == 0:
                noted = detail[first // LANES]
                for p in range(LANES):
                    note_limits(noted, p, centre[p], scale[p], limits)
            else:
                for k in range(pixels):
                    if scale[k] > 0.0:
                        note_limits(
                            detail[chosen[k] // LANES], chosen[k] % LANES, centre[k], scale[k], limits
                        )
            for k in range(pixels):
                if drops[k]:
                    q = chosen[k]
                    b, p = q // LANES, q % LANES
                    lo, hi = clip(block[:, k], 0, n[k], centre[k], scale[k], limits[0], limits[1])
                    high[b, p] = low[b, p] + hi
                    low[b, p] += lo
                    if 3 <= hi - lo < n[k]:
                        waiting[dropped] = q
                        dropped += 1
        if dropped == 0:
            break
        waiting = waiting[:dropped]
