"""Clipping about a line through the sorted samples."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.rejection.clipping import copied, note
from stacklib.rejection.estimators import median
from stacklib.rejection.line_search import (
    INTERCEPT,
    PROVEN,
    RESIDUALS,
    SLOPES,
    Search,
    find_lines,
    search_arrays,
)
from stacklib.rejection.sorting import LANES, filled, pack, take, wait, waiting_for
from stacklib.utils.compiled import compiled, larger, lowest

__all__ = ["l1_line", "linear_fit"]


@compiled
def _halve(values, order, n):
    """Move the smaller half of ``values[:n]`` before the larger half, and `order` with it (Hoare).

    Position ``n // 2`` then holds the value of that rank.
    """
    # The halves hardly change from one line to the next, so the value in the middle is a good pivot.
    rank = n // 2
    left, right = 0, n - 1
    while left < right:
        pivot = values[rank]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if j < rank:
            left = i
        if i > rank:
            right = j


@compiled
def l1_line(abscissa, x, low, high, order, residual):
    """Fit the line ``a + b u`` with the least sum of absolute residuals to sorted points.

    Returns intercept and slope: of equally good lines, the one with the smallest slope, in the middle of its
    equally good intercepts. Point ``j`` is ``(abscissa[j], x[low + j])`` with ascending abscissae. `order`
    (int64) and `residual` (float64) are scratch for at least ``high - low`` values.

    With the best intercept for slope b the sum is
    ``F(b) = sum of the larger half of r - sum of the smaller half`` with ``r = x - b u``, a convex, piecewise
    linear function. Tangents lie below F, so F is evaluated where a falling and a rising tangent cross, and
    the tangent there replaces one of them (Kelley 1960). If F lies on the crossing, this is the minimum.
    """
    n = high - low
    half = n // 2
    centre = np.float64(x[low + half])
    rise = 0.0
    run = 0.0
    for j in range(half):
        rise += np.float64(x[high - 1 - j]) - np.float64(x[low + j])
        run += abscissa[n - 1 - j] - abscissa[j]
    if rise <= 0.0:
        return centre, 0.0
    for j in range(n):
        order[j] = j
    fall_value, fall_slope = rise, -run
    rise_value, rise_slope = -rise, run
    slope = rise / run
    for _ in range(100):
        for j in range(n):
            residual[j] = (np.float64(x[low + order[j]]) - centre) - slope * abscissa[order[j]]
        _halve(residual, order, n)
        value = 0.0
        tangent = 0.0
        for j in range(half):
            value += residual[n - 1 - j] - residual[j]
            tangent += abscissa[order[j]] - abscissa[order[n - 1 - j]]
        if value - (fall_value + fall_slope * slope) <= 1e-12 * rise:
            break
        if tangent < 0.0:
            fall_value, fall_slope = value - tangent * slope, tangent
        else:
            rise_value, rise_slope = value - tangent * slope, tangent
        slope = (fall_value - rise_value) / (rise_slope - fall_slope)
    if slope * run <= 1e-12 * rise:
        # The slope is a rounding error: the line is flat, at the median.
        return median(x, low, high), 0.0
    below = residual[half]
    if n % 2 == 0:
        below = residual[0]
        for j in range(1, half):
            below = max(below, residual[j])
    return centre + 0.5 * (below + residual[half]), slope


#: Least share of a limit by which a sample must exceed it, or stay below it, or rounding may decide.
ROUNDING = 1e-9
#: Rounding errors of a slope, as a share of the slope and of the range of the samples.
SLOPE_ERROR = 1e-14
#: Samples this share of their range from the line, for as many squared, may be there by rounding.
ON_LINE = 1e-11


class Fitting(NamedTuple):
    """What the rounds of a tile work with.

    `position` holds the numbers 0, 1, 2 ... as abscissae. `lines`, float64 (5 * LANES,), has the lines of a
    block: intercept, slope, scale, and the positions of the first sample kept and of the first one above.
    `column`, `order` and `residual` are scratch for one pixel.
    """

    position: np.ndarray
    search: Search
    lines: np.ndarray
    column: np.ndarray
    order: np.ndarray
    residual: np.ndarray


#: Parts of the lines of a block.
CUT, GRADIENT, SCALE, FIRST, ABOVE = (part * LANES for part in range(5))


@compiled
def _scale(deviation, n, gradient, floor):
    """Return the unit of the limits: twice the mean deviation at right angles to the line."""
    return larger(2.0 * deviation / n * math.sqrt(1.0 + gradient * gradient), floor)


@compiled
def _reaches(z, limit):
    """Return 1 if a limit is reached, 0 if not, and -1 if rounding may decide."""
    if abs(z - limit) <= ROUNDING * z:
        return -1
    return np.int64(z > limit)


@compiled
def _count_beyond(x, n, line, limits, exact):
    """Return the ends of the samples to keep; not `exact`, the upper one is -1 if rounding may decide."""
    intercept, gradient, s = line
    lo, hi = 0, n
    while lo < hi - 1:
        z = (intercept + gradient * lo - x[lo]) / s
        beyond = np.int64(z > 0.0 and z >= limits[0]) if exact else _reaches(z, limits[0])
        if beyond < 0:
            return 0, -1
        if beyond == 0:
            break
        lo += 1
    while hi - 1 > lo:
        z = (x[hi - 1] - (intercept + gradient * (hi - 1))) / s
        beyond = np.int64(z > 0.0 and z >= limits[1]) if exact else _reaches(z, limits[1])
        if beyond < 0:
            return 0, -1
        if beyond == 0:
            break
        hi -= 1
    return lo, hi


@compiled
def _clip_alone(block, k, n, limits, fitting):
    """Find the ends of the samples within the limits of lane k, and fit the line if that is needed."""
    lines = fitting.lines
    x = copied(block, k, n, fitting.column)
    intercept, gradient, s = lines[CUT + k], lines[GRADIENT + k], lines[SCALE + k]
    exact = fitting.search.lines[PROVEN + k] == 0.0
    lo, hi = 0, -1
    while hi < 0:
        if exact:
            intercept, gradient = l1_line(fitting.position, x, 0, n, fitting.order, fitting.residual)
            deviation = 0.0
            for j in range(n):
                deviation += abs(np.float64(x[j]) - (intercept + gradient * j))
            s = _scale(deviation, n, gradient, limits[2])
        lo, hi = 0, n
        if s > 0.0:
            lo, hi = _count_beyond(x, n, (intercept, gradient, s), limits, exact)
        exact = True
    lines[CUT + k], lines[GRADIENT + k], lines[SCALE + k] = intercept, gradient, s
    lines[FIRST + k], lines[ABOVE + k] = lo, hi


@compiled
def _clip_block(block, n, pixels, limits, fitting):
    """Find the ends of the samples within the limits of each pixel of a block whose lines are known."""
    lines, found = fitting.lines, fitting.search.lines
    first, last = block[0], block[n - 1]
    below, above = (1.0 - ROUNDING) * limits[0], (1.0 - ROUNDING) * limits[1]
    for p in range(pixels):
        intercept, gradient = found[INTERCEPT + p], found[SLOPES + p]
        s = _scale(found[RESIDUALS + p], n, gradient, limits[2])
        z_low = (intercept - first[p]) / s
        z_high = (last[p] - (intercept + gradient * (n - 1))) / s
        lines[CUT + p] = intercept
        lines[GRADIENT + p] = gradient
        lines[SCALE + p] = s
        lines[FIRST + p] = 0.0
        # Halfway between two slopes in float32, rounding errors decide which one users see.
        change = SLOPE_ERROR * (gradient + np.float64(last[p]) - np.float64(first[p]))
        alike = np.float32(gradient - change) == np.float32(gradient + change)
        proven = (found[PROVEN + p] > 0.0) & alike
        found[PROVEN + p] = 1.0 if proven else 0.0
        lines[ABOVE + p] = n if proven & (z_low < below) & (z_high < above) else -1.0
    for p in range(pixels):
        if lines[ABOVE + p] < 0.0:
            _clip_alone(block, p, n, limits, fitting)


@compiled
def _note_line(detail, p, k, n, limits, lines):
    """Store middle, limits and slope of the line of lane k as those of pixel p."""
    intercept, gradient, s = lines[CUT + k], lines[GRADIENT + k], lines[SCALE + k]
    end = intercept + gradient * (n - 1)
    lower, upper = intercept - limits[0] * s, end + limits[1] * s
    note(detail, p, 0.5 * (intercept + end), lower, upper, gradient)


@compiled
def linear_fit(ordered, count, limits, table, max_iterations, low, high, detail):
    """Clip about an L1 line through the sorted samples, in units of twice the mean deviation from it.

    Blocks of pixels that have data in all frames are used as they are. The other pixels, and those that
    dropped a sample, are packed into new blocks of pixels with equally many samples.
    """
    blocks, frames = ordered.shape[0], ordered.shape[1]
    fitting = Fitting(
        np.empty(frames),
        Search(*search_arrays(frames)),
        np.empty(5 * LANES),
        np.empty(frames, np.float32),
        np.empty(frames, np.int64),
        np.empty(frames),
    )
    for i in range(frames):
        fitting.position[i] = i
    lines = fitting.lines
    packed, places = np.empty((frames, LANES), np.float32), np.empty(LANES, np.uint64)
    waiting = waiting_for(blocks, frames, 1)
    chosen, rounds = np.empty(LANES, np.int64), np.empty(blocks * LANES, np.int64)
    # Not literal numbers, for which functions would be compiled again.
    b, n, kind = np.int64(0), frames, np.int64(0)
    while b < blocks or n > 2:
        # First blocks as they are, then packed ones.
        block, size = packed, LANES
        if b < blocks:
            for p in range(LANES):
                chosen[p] = b * LANES + p
                rounds[chosen[p]] = 0
                low[b, p] = 0
                high[b, p] = count[b, p]
                note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            block = ordered[b]
            b += 1
            if lowest(count[b - 1]) < frames or frames < 5 or max_iterations < 1:
                for p in range(LANES):
                    if count[b - 1, p] >= 5 and max_iterations > 0:
                        wait(waiting, chosen[p], np.int64(count[b - 1, p]), kind)
                continue
        else:
            size = take(waiting, n, kind, chosen)
            if size == 0:
                n -= 1
                continue
            pack(ordered, low, n, chosen[:size], filled(size), places, packed)
        find_lines(block, fitting.position, n, filled(size), ON_LINE * n * n, 0.0, fitting.search)
        _clip_block(block, n, filled(size), limits, fitting)
        for k in range(size):
            q = chosen[k]
            rounds[q] += 1
            _note_line(detail[q // LANES], q % LANES, k, n, limits, lines)
            kept = int(lines[ABOVE + k] - lines[FIRST + k])
            if kept < n:
                high[q // LANES, q % LANES] = low[q // LANES, q % LANES] + lines[ABOVE + k]
                low[q // LANES, q % LANES] += lines[FIRST + k]
                if kept >= 3 and rounds[q] < max_iterations:
                    wait(waiting, q, kept, kind)
