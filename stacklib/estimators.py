"""Robust estimators for the samples of one pixel, compiled.

All take a sorted column `x` and the ends `low`, `high` of the part that is looked at, ``x[low:high]``.
"""

from __future__ import annotations

import math

import numpy as np

from stacklib.compiled import compiled
from stacklib.sorting import LANES, larger, smaller, sort_block

__all__ = [
    "absolute_deviation",
    "deviation_sums",
    "l1_line",
    "median",
    "moments",
    "sn_scale",
    "sn_scale_block",
]

#: Makes Sn of Gaussian samples estimate their sigma, for many samples and for 2 to 9 of them.
SN_CONSTANT = 1.1926
SN_SMALL = np.array([1.0, 1.0, 0.743, 1.851, 0.954, 1.351, 0.993, 1.198, 1.005, 1.131])


@compiled
def median(x, low, high):
    """Median of ``x[low:high]``: the middle sample, or the mean of the two middles."""
    return 0.5 * (np.float64(x[(low + high - 1) // 2]) + np.float64(x[(low + high) // 2]))


@compiled
def deviation_sums(x, low, high, centre):
    """Sums of the deviations of ``x[low:high]`` from `centre` and of their squares."""
    first = 0.0
    second = 0.0
    for i in range(low, high):
        d = np.float64(x[i]) - centre
        first += d
        second += d * d
    return first, second


@compiled
def moments(x, low, high, centre):
    """Mean and sample standard deviation (n - 1) of ``x[low:high]``, summed about `centre`."""
    n = high - low
    first, second = deviation_sums(x, low, high, centre)
    return centre + first / n, math.sqrt(max(second - first * first / n, 0.0) / (n - 1))


@compiled
def absolute_deviation(x, low, high, centre, rank):
    """The absolute deviation from `centre` that `rank` others do not exceed (0-based order)."""
    # Deviations of a sorted column grow from the centre outward: merge the two sides.
    right = low
    while right < high and x[right] < centre:
        right += 1
    left = right - 1
    d = 0.0
    for _ in range(rank + 1):
        below = centre - x[left] if left >= low else np.inf
        above = x[right] - centre if right < high else np.inf
        if below <= above:
            d = below
            left -= 1
        else:
            d = above
            right += 1
    return d


@compiled
def _sn_factor(n):
    if n < 10:
        return SN_CONSTANT * SN_SMALL[n]
    return SN_CONSTANT * n / (n - 0.9) if n % 2 else SN_CONSTANT


@compiled
def sn_scale(x, low, high, work):
    """Sn of Rousseeuw and Croux (1993), as a Gaussian sigma, with their finite-sample factor.

    For each sample the upper median of its distances to all samples (itself included), and of
    those the lower median. Among sorted samples, those nearest to one of them are a window that
    contains it, and the best window only moves to the right: one walk finds them all.

    Parameters
    ----------
    work : ndarray of float64
        Scratch for at least ``high - low`` values.
    """
    n = high - low
    if n < 2:
        return 0.0
    width = n // 2 + 1
    start = low
    for i in range(low, high):
        while start + width < high and (start + width <= i or x[i] - x[start] > x[start + width] - x[i]):
            start += 1
        work[i - low] = np.float32(max(x[i] - x[start], x[start + width - 1] - x[i]))
    return _sn_factor(n) * _smallest(work, n, (n - 1) // 2)


@compiled
def _smallest(values, n, rank):
    """The value of 0-based `rank` among ``values[:n]``, which are reordered (Hoare's selection)."""
    left, right = 0, n - 1
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            right = j
        elif rank >= i:
            left = i
        else:
            break
    return values[rank]


@compiled
def sn_scale_block(block, network, distances, scale):
    """`sn_scale` for the pixels of a block that all have all their samples; fills `scale` (LANES,)."""
    # Every window is tried instead of the best one looked for: without branches this runs over the
    # pixels in vector lanes. Rounding to float32 keeps the order, so both ways give the same bits.
    n = block.shape[0]
    width = n // 2 + 1
    for i in range(n):
        nearest = distances[i]
        sample = block[i]
        for p in range(LANES):
            nearest[p] = np.inf
        for start in range(max(0, i - width + 1), min(i, n - width) + 1):
            first = block[start]
            last = block[start + width - 1]
            for p in range(LANES):
                s = sample[p]
                nearest[p] = smaller(nearest[p], larger(s - first[p], last[p] - s))
    sort_block(distances, network)
    factor = _sn_factor(n)
    for p in range(LANES):
        scale[p] = factor * distances[(n - 1) // 2, p]


@compiled
def l1_line(abscissa, x, low, high, order, residual):
    """The line ``a + b u`` with the smallest sum of absolute residuals through sorted points.

    Where several lines are equally good, the one with the smallest slope, at the middle of the
    intercepts that are equally good for it.

    Parameters
    ----------
    abscissa : ndarray of float64
        Ascending abscissae; point ``j`` is ``(abscissa[j], x[low + j])``.
    order : ndarray of int64
        Scratch for at least ``high - low`` positions.
    residual : ndarray of float64
        Scratch for at least ``high - low`` values.

    Returns
    -------
    intercept, slope : float

    Notes
    -----
    With the best intercept for slope b the sum is ``F(b) = sum of the larger half of r - sum of the
    smaller half``, ``r = x - b u``: a convex chain of straight pieces. F is at least every line that
    touches it, so the crossing of a falling and a rising one is tried, and the touching line found
    there replaces one of the two (Kelley 1960), until F lies on the crossing: that is the minimum.
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
        # Insertion sort: from one trial to the next the order hardly changes.
        for j in range(n):
            residual[j] = (np.float64(x[low + j]) - centre) - slope * abscissa[j]
        for j in range(1, n):
            k = order[j]
            r = residual[k]
            i = j - 1
            while i >= 0 and residual[order[i]] > r:
                order[i + 1] = order[i]
                i -= 1
            order[i + 1] = k
        value = 0.0
        tangent = 0.0
        for j in range(half):
            value += residual[order[n - 1 - j]] - residual[order[j]]
            tangent += abscissa[order[j]] - abscissa[order[n - 1 - j]]
        if value - (fall_value + fall_slope * slope) <= 1e-12 * rise:
            break
        if tangent < 0.0:
            fall_value, fall_slope = value - tangent * slope, tangent
        else:
            rise_value, rise_slope = value - tangent * slope, tangent
        slope = (fall_value - rise_value) / (rise_slope - fall_slope)
    if slope * run <= 1e-12 * rise:
        # A slope of the size of rounding errors: the line is flat, at the median.
        return median(x, low, high), 0.0
    middle = 0.5 * (residual[order[(n - 1) // 2]] + residual[order[half]])
    return centre + middle, slope
