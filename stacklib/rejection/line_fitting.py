"""Clipping about a line through the sorted samples."""

from __future__ import annotations

import math

import numpy as np

from stacklib.rejection.clipping import note
from stacklib.rejection.estimators import median
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

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
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
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
                    note(detail[b], p, 0.5 * (intercept + end), lower, upper, gradient)
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
