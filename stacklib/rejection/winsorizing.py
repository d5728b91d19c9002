"""Winsorized sigma clipping."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.rejection.clipping import clip, note, note_limits
from stacklib.rejection.estimators import median, moments, sn_scale_block
from stacklib.rejection.sorting import FILLED, LANES, WHOLE, filled, pack, take, wait, waiting_for
from stacklib.utils.compiled import compiled, larger, lowest, smaller

__all__ = ["winsorized_sigma"]

#: Winsorization (Huber): clamp at this many sigma, and correct the sigma of Gaussian samples for it.
WINSORIZATION = 1.5
WINSORIZED_CONSTANT = 1.134
#: Largest number of passes until mean and sigma settle.
WINSORIZATIONS = 100


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


#: Parts of the state of a block, float64: winsorized mean (from the median) and sigma so far; 1 if another
#: pass is needed; sums of the clamped deviations and of their squares, and the contribution of the core.
PARTS = 7
MEAN, SIGMA, ACTIVE, SUM, SQUARES, CORE_SUM, CORE_SQUARES = (part * LANES for part in range(PARTS))
#: Parts of its limits, float32: clamping limits of the deviations, and extremes of the core.
EXTREMES = 4
BOTTOM, TOP, CORE_LOWEST, CORE_HIGHEST = (part * LANES for part in range(EXTREMES))


class Clamping(NamedTuple):
    """Working arrays of a block.

    `cleaned` holds the deviations of the samples from the median, float32 (frames, LANES), 0 beyond the
    cutoff; `limits`, float32 (4 * LANES,), those at which they are clamped, and extremes of the core;
    `state`, float64 (7 * LANES,), mean, sigma and sums; `lane` which pixel is in a lane.
    """

    cleaned: np.ndarray
    limits: np.ndarray
    state: np.ndarray
    lane: np.ndarray


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
    limits[CORE_LOWEST : CORE_HIGHEST + LANES] = 0.0
    first, last = frames // 4, frames - frames // 4
    # Four rows at a time, so that the sums are loaded and stored less often.
    fours = first + (last - first) // 4 * 4
    for i in range(first, fours, 4):
        c1, c2, c3, c4 = cleaned[i], cleaned[i + 1], cleaned[i + 2], cleaned[i + 3]
        for p in range(pixels & WHOLE):
            least = smaller(smaller(c1[p], c2[p]), smaller(c3[p], c4[p]))
            most = larger(larger(c1[p], c2[p]), larger(c3[p], c4[p]))
            limits[CORE_LOWEST + p] = smaller(limits[CORE_LOWEST + p], least)
            limits[CORE_HIGHEST + p] = larger(limits[CORE_HIGHEST + p], most)
        for p in range(pixels & WHOLE):
            d1, d2, d3, d4 = np.float64(c1[p]), np.float64(c2[p]), np.float64(c3[p]), np.float64(c4[p])
            state[CORE_SUM + p] = state[CORE_SUM + p] + d1 + d2 + d3 + d4
            state[CORE_SQUARES + p] = state[CORE_SQUARES + p] + d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4
    for i in range(fours, last):
        clean = cleaned[i]
        for p in range(pixels & WHOLE):
            limits[CORE_LOWEST + p] = smaller(limits[CORE_LOWEST + p], clean[p])
            limits[CORE_HIGHEST + p] = larger(limits[CORE_HIGHEST + p], clean[p])
            d = np.float64(clean[p])
            state[CORE_SUM + p] += d
            state[CORE_SQUARES + p] += d * d


@compiled
def _clamped(x, bottom, top):
    return np.float64(smaller(larger(x, bottom), top))


@compiled
def _sum_clamped(cleaned, pixels, core_is_clamped, limits, state):
    """Sum the clamped deviations of a block and their squares, those of the core again if any is clamped."""
    frames = cleaned.shape[0]
    quarter = frames // 4
    if core_is_clamped:
        state[SUM : SQUARES + LANES] = 0.0
        for i in range(quarter, frames - quarter):
            clean = cleaned[i]
            for p in range(pixels & WHOLE):
                d = _clamped(clean[p], limits[BOTTOM + p], limits[TOP + p])
                state[SUM + p] += d
                state[SQUARES + p] += d * d
    else:
        for p in range(pixels & WHOLE):
            state[SUM + p] = state[CORE_SUM + p]
            state[SQUARES + p] = state[CORE_SQUARES + p]
    # Four rows at a time, so that the sums are loaded and stored less often.
    for i in range(0, quarter - 1, 2):
        c1, c2, c3, c4 = cleaned[i], cleaned[frames - 1 - i], cleaned[i + 1], cleaned[frames - 2 - i]
        for p in range(pixels & WHOLE):
            bottom, top = limits[BOTTOM + p], limits[TOP + p]
            d1 = _clamped(c1[p], bottom, top)
            d2 = _clamped(c2[p], bottom, top)
            d3 = _clamped(c3[p], bottom, top)
            d4 = _clamped(c4[p], bottom, top)
            state[SUM + p] = state[SUM + p] + d1 + d2 + d3 + d4
            state[SQUARES + p] = state[SQUARES + p] + d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4
    if quarter % 2:
        c1, c2 = cleaned[quarter - 1], cleaned[frames - quarter]
        for p in range(pixels & WHOLE):
            bottom, top = limits[BOTTOM + p], limits[TOP + p]
            d1 = _clamped(c1[p], bottom, top)
            d2 = _clamped(c2[p], bottom, top)
            state[SUM + p] = state[SUM + p] + d1 + d2
            state[SQUARES + p] = state[SQUARES + p] + d1 * d1 + d2 * d2


@compiled
def _take_pass(pixels, n, iteration, cutoff, clamping, scale):
    """Compute mean and sigma of a block from the sums, and the next limits.

    A pixel whose clamped samples lie beyond the cutoff gets a `scale` of NaN.
    """
    limits, state = clamping.limits, clamping.state
    beyond, per_size = np.float64(clamping.cleaned.shape[0] - n), 1.0 / n
    per_freedom = WINSORIZED_CONSTANT**2 / (n - 1.0)
    for p in range(pixels & WHOLE):
        bottom, top = limits[BOTTOM + p], limits[TOP + p]
        # Rows beyond the samples of a pixel hold its median, which may be clamped as well.
        d = _clamped(np.float32(0.0), bottom, top)
        total = state[SUM + p] - beyond * d
        squares = state[SQUARES + p] - beyond * d * d
        previous = state[SIGMA + p]
        mean = total * per_size
        new = math.sqrt(larger(squares - total * mean, 0.0) * per_freedom)
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
def _clean(block, n, pixels, cutoff, estimates, clamping):
    """Find the deviations of the samples from the median, and start with the first limits."""
    start, centre, scale = estimates
    cleaned, limits, state = clamping.cleaned, clamping.limits, clamping.state
    for p in range(pixels & WHOLE):
        state[MEAN + p] = 0.0
        state[SIGMA + p] = start[p]
        state[ACTIVE + p] = 1.0 if start[p] > 0.0 else 0.0
        limits[BOTTOM + p] = -WINSORIZATION * start[p]
        limits[TOP + p] = WINSORIZATION * start[p]
        scale[p] = 0.0
    for i in range(n):
        sample, clean = block[i], cleaned[i]
        for p in range(pixels & WHOLE):
            d = np.float64(sample[p]) - centre[p]
            clean[p] = np.float32(0.0 if abs(d) > cutoff * start[p] else d)
    cleaned[n:] = 0.0
    _sum_core(cleaned, pixels, limits, state)


@compiled
def _write_settled(pixels, estimates, clamping, found):
    """Add mean and sigma of the pixels that need no further pass to what `centre` and `scale` hold."""
    state, lane = clamping.state, clamping.lane
    for k in range(pixels):
        if state[ACTIVE + k] == 0.0:
            estimates.centre[lane[k]] += state[MEAN + k]
            estimates.scale[lane[k]] = found[k] + state[SIGMA + k]


@compiled
def _move_together(pixels, clamping, found):
    """Move the pixels that need another pass to the first lanes, and return their number."""
    cleaned, limits, state, lane = clamping
    number = 0
    for p in range(pixels & WHOLE):
        if state[ACTIVE + p] > 0.0:
            lane[number] = p
            number += 1
    # Lanes are moved down only.
    for k in range(number):
        p = lane[k]
        for part in range(PARTS):
            state[part * LANES + k] = state[part * LANES + p]
        for part in range(EXTREMES):
            limits[part * LANES + k] = limits[part * LANES + p]
        found[k] = 0.0
    for i in range(cleaned.shape[0]):
        clean = cleaned[i]
        for k in range(number):
            clean[k] = clean[lane[k]]
    for k in range(number, FILLED):
        state[ACTIVE + k] = 0.0
    return number


@compiled
def _winsorized_block(block, n, pixels, cutoff, estimates, clamping, found):
    """Do `_winsorized` for the first `pixels` pixels of a block and fill `centre` and `scale`.

    The start is `centre` and `start`. Repeated clamping equals clamping once at the innermost limits so far,
    unless the scale shrinks so much that a clamped sample lies beyond the cutoff. Such a pixel gets a `scale`
    of NaN and is left to `_winsorized`. Samples are float32 deviations from the median. `found` is scratch.
    """
    cleaned, limits, state, lane = clamping
    _clean(block, n, pixels, cutoff, estimates, clamping)
    for p in range(pixels & WHOLE):
        lane[p] = p
        found[p] = 0.0
    # Not a literal number, for which `_take_pass` would be compiled again.
    iteration, used = np.int64(0), pixels
    while iteration < WINSORIZATIONS:
        active = np.int32(0)
        apart = np.int32(0)
        for p in range(used & WHOLE):
            needed = state[ACTIVE + p] > 0.0
            low = limits[BOTTOM + p] > limits[CORE_LOWEST + p]
            high = limits[TOP + p] < limits[CORE_HIGHEST + p]
            active = np.int32(active + np.int32(needed))
            apart = np.int32(apart + np.int32(needed & (low | high)))
        if active == 0:
            break
        if active <= FILLED < used:
            _write_settled(used, estimates, clamping, found)
            pixels, used = _move_together(used, clamping, found), FILLED
        _sum_clamped(cleaned, used, apart > 0, limits, state)
        _take_pass(used, n, iteration, cutoff, clamping, found)
        iteration += 1
    # The others have done all passes.
    state[ACTIVE : ACTIVE + LANES] = 0.0
    _write_settled(pixels, estimates, clamping, found)


@compiled
def _start(block, n, pixels, network, distances, centre, scale):
    """Compute median and Sn of the n samples of each pixel, or the standard deviation if Sn is 0."""
    sn_scale_block(block, n, pixels, network, distances, scale)
    lower, upper = block[(n - 1) // 2], block[n // 2]
    zeros = np.int32(0)
    for p in range(pixels & WHOLE):
        centre[p] = 0.5 * (np.float64(lower[p]) + np.float64(upper[p]))
        zeros = np.int32(zeros + np.int32(scale[p] == 0.0))
    if zeros > 0:
        for p in range(pixels & WHOLE):
            if scale[p] == 0.0:
                scale[p] = moments(block[:, p], 0, n, centre[p])[1]


@compiled
def _decide(block, n, pixels, limits, estimates, drops):
    """Finish the scales, NaN if there is none, and find the pixels that drop a sample."""
    start, centre, scale = estimates
    first, last = block[0], block[n - 1]
    for p in range(pixels & WHOLE):
        s = larger(scale[p], limits[2])
        clips = (start[p] > 0.0) & (s > 0.0)
        drops[p] = ((centre[p] - first[p]) / s > limits[0]) | ((last[p] - centre[p]) / s > limits[1])
        drops[p] &= clips
        scale[p] = s if clips else np.nan
        centre[p] = centre[p] if clips else np.nan


class Round(NamedTuple):
    """What a round works with, besides its block: the network that finds a median, and scratch."""

    network: np.ndarray
    distances: np.ndarray
    found: np.ndarray
    estimates: Estimates
    clamping: Clamping
    value: np.ndarray
    size: np.ndarray


@compiled
def _round(block, n, pixels, cutoff, limits, scratch, drops):
    """Estimate center and scale of the n samples of each pixel of a block, and find those that drop one."""
    centre, scale = scratch.estimates.centre, scratch.estimates.scale
    start = scratch.estimates.start
    _start(block, n, pixels, scratch.network, scratch.distances, centre, start)
    _winsorized_block(block, n, pixels, cutoff, scratch.estimates, scratch.clamping, scratch.found)
    for p in range(pixels & WHOLE):
        if np.isnan(scale[p]):
            m = median(block[:, p], 0, n)
            centre[p], scale[p] = _winsorized(
                block[:, p], 0, n, m, start[p], cutoff, scratch.value, scratch.size
            )
    _decide(block, n, pixels, limits, scratch.estimates, drops)


@compiled
def _clip_pixel(block, k, q, n, limits, estimates, low, high):
    """Move the ends of pixel q, in lane k of a block, past the samples beyond the limits."""
    b, p = q // LANES, q % LANES
    lo, hi = clip(block[:, k], 0, n, estimates.centre[k], estimates.scale[k], limits[0], limits[1])
    high[b, p] = low[b, p] + hi
    low[b, p] += lo
    return hi - lo


@compiled
def winsorized_sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about the winsorized mean in units of the winsorized sigma, until nothing drops.

    The start is median and Sn, or the standard deviation if Sn is 0 because more than half of the samples are
    equal. The first round uses the cutoff. Blocks of pixels that have data in all frames are used as they
    are. The other pixels, and those that dropped a sample, are packed into new blocks, the pixels with the
    most samples first, so that all pixels of a block have equally many.
    """
    blocks, frames = ordered.shape[0], ordered.shape[1]
    packed = np.empty((frames, LANES), np.float32)
    scratch = Round(
        table,
        np.empty((frames, LANES), np.float32),
        np.empty(LANES),
        Estimates(np.empty(LANES), np.empty(LANES), np.empty(LANES)),
        Clamping(
            np.empty((frames, LANES), np.float32),
            np.empty(EXTREMES * LANES, np.float32),
            np.empty(PARTS * LANES),
            np.empty(LANES, np.int64),
        ),
        np.empty(WINSORIZATIONS + 2),
        np.empty(WINSORIZATIONS + 2, np.int64),
    )
    estimates = scratch.estimates
    centre, scale = estimates.centre, estimates.scale
    drops = np.empty(LANES, np.bool_)
    chosen, places = np.empty(LANES, np.int64), np.empty(LANES, np.uint64)
    # Those that wait for the first round, 1, and for another one, 0.
    waiting = waiting_for(blocks, frames, 2)
    rounds = np.zeros(blocks * LANES, np.int64)
    # Not literal numbers, for which functions would be compiled again.
    b, n, first = np.int64(0), frames, np.int64(1)
    while b < blocks or n > 2:
        # First blocks as they are, then packed ones.
        block, noted, size, whole = packed, detail[0], LANES, False
        if b < blocks:
            block, noted, below, above, there = ordered[b], detail[b], low[b], high[b], count[b]
            whole = lowest(there) == frames and frames >= 3 and max_iterations > 0
            for p in range(LANES):
                chosen[p] = b * LANES + p
                below[p] = 0
                above[p] = there[p]
            b += 1
            if not whole:
                for p in range(LANES):
                    note(noted, p, np.nan, np.nan, np.nan, 0.0)
                    if there[p] >= 3 and max_iterations > 0:
                        wait(waiting, chosen[p], np.int64(there[p]), first)
                continue
        else:
            size = take(waiting, n, first, chosen)
            if size == 0:
                first -= 1
                if first < 0:
                    n, first = n - 1, np.int64(1)
                continue
            pack(ordered, low, n, chosen[:size], filled(size), places, packed)
        _round(block, n, filled(size), limits[3] if first else np.inf, limits, scratch, drops)
        if whole:
            for p in range(LANES):
                note_limits(noted, p, centre[p], scale[p], limits)
        for k in range(size):
            q = chosen[k]
            if scale[k] > 0.0 and not whole:
                note_limits(detail[q // LANES], q % LANES, centre[k], scale[k], limits)
            if drops[k]:
                rounds[q] += 1
                left = _clip_pixel(block, k, q, n, limits, estimates, low, high)
                if 3 <= left < n and rounds[q] < max_iterations:
                    wait(waiting, q, np.int64(left), np.int64(0))
