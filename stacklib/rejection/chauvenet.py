"""Robust Chauvenet rejection."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.rejection.clipping import copied, note
from stacklib.rejection.estimators import SQUARES, SUMS, absolute_deviation, median, moments
from stacklib.rejection.line_fitting import l1_line
from stacklib.rejection.line_search import (
    INTERCEPT,
    PROVEN,
    SLOPES,
    Search,
    find_lines,
    search_arrays,
)
from stacklib.rejection.sorting import LANES, filled, pack, sort_block, take, wait, waiting_for
from stacklib.utils.compiled import compiled, larger, lowest

__all__ = ["chauvenet"]


#: With fewer inner deviations there is no line.
FEWEST = 8


@compiled
def _points(n):
    """Return the number of inner deviations, 68.3 % of them, to which a line is fitted."""
    return int(0.683 * n + 0.317)


@compiled
def _correction(n):
    """Return the factor for the small spread of few samples (Maples et al. 2018, 68.3 % deviation)."""
    return 1.0 / (1.0 - 2.9442 * n**-1.073)


@compiled
def _chauvenet_centre_and_scale(x, low, high, phase, abscissae, distance, order, residual):
    """Return center and scale of a phase of robust Chauvenet rejection, from robust to precise."""
    n = high - low
    m = median(x, low, high)
    if phase == 2:
        return moments(x, low, high, m)
    correction, points = _correction(n), _points(n)
    if phase == 1 or points < FEWEST:
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
def _chauvenet_alone(block, p, n, limits, table, max_iterations, detail, scratch):
    """Apply `chauvenet` to the n samples of pixel p of a block, and return the ends of those kept."""
    limit = limits[3]
    quantile = table[0]
    use_low, use_high = np.isfinite(limits[0]), np.isfinite(limits[1])
    floor = limits[2]
    root2 = math.sqrt(2.0)
    lo, hi = np.int64(0), np.int64(n)
    x = copied(block, p, n, scratch.column)
    note(detail, p, np.nan, np.nan, np.nan, 0.0)
    phase = np.int64(0)
    dropped = 0
    while phase < 3 and hi - lo >= 3 and dropped < max_iterations:
        n = hi - lo
        m, s = _chauvenet_centre_and_scale(
            x, lo, hi, phase, table[n], scratch.distance, scratch.order, scratch.residual
        )
        if s <= 0.0:
            # Half of the samples are equal, so the spread is unknown.
            phase += 1
            continue
        s = max(s, floor)
        # At the end farther out fewer samples are expected.
        z_low = (m - x[lo]) / s if use_low else -np.inf
        z_high = (x[hi - 1] - m) / s if use_high else -np.inf
        lower = m - quantile[n] * s if use_low else -np.inf
        upper = m + quantile[n] * s if use_high else np.inf
        note(detail, p, m, lower, upper, 0.0)
        if n * 0.5 * math.erfc(max(z_low, z_high) / root2) >= limit:
            phase += 1
        elif z_low >= z_high:
            lo += 1
            dropped += 1
        else:
            hi -= 1
            dropped += 1
    return lo, hi


#: Share of a limit within which rounding to float32 may decide: if the scale is that of a line, and if not.
#: A tangent so near 0 may be there by rounding, too.
UNSURE, UNSURE_DEVIATION = 1e-4, 1e-6
#: Rounding errors of deviations in float32, as a share of the largest one.
ON_LINE = 1.5e-7
#: Parts of the numbers of a block, float64: center and scale of the samples; what becomes of the pixel: it is
#: tested further, drops its lowest or highest sample, or is left to `_chauvenet_alone`; and in which phase.
MIDDLE, SCALE, FATE, PHASE = (part * LANES for part in range(4))
TESTED, DROPS_LOWEST, DROPS_HIGHEST, ALONE = range(4)
#: Number of phases.
PHASES = 3


class Chauvenet(NamedTuple):
    """Arrays of a tile.

    `numbers` of a block, see above; its sorted `deviations`, float32 (frames, LANES), and the `pairs` that
    are compared to sort them, int64 (pairs, 2); those of the search for lines; and scratch for one pixel.
    """

    numbers: np.ndarray
    sums: np.ndarray
    deviations: np.ndarray
    pairs: np.ndarray
    search: Search
    column: np.ndarray
    distance: np.ndarray
    order: np.ndarray
    residual: np.ndarray


@compiled
def _merging_pairs(n, pairs):
    """Find the compared pairs that sort n values which fall and rise again, and return their number.

    These are the last stages of a bitonic sorter.
    """
    step, number = 1, 0
    while 2 * step < n:
        step *= 2
    while step > 0:
        for i in range(n - step):
            if i & step == 0:
                pairs[number, 0] = i
                pairs[number, 1] = i + step
                number += 1
        step //= 2
    return number


@compiled
def _sort_deviations(block, n, pixels, scratch):
    """Find the absolute deviations of the samples from the median, in ascending order, in float32."""
    deviations, numbers = scratch.deviations, scratch.numbers
    for i in range(n):
        sample, deviation = block[i], deviations[i]
        for p in range(pixels):
            deviation[p] = abs(np.float64(sample[p]) - numbers[MIDDLE + p])
    sort_block(deviations, scratch.pairs[: _merging_pairs(n, scratch.pairs)], pixels)


@compiled
def _begin(block, n, pixels, phase, scratch):
    """Find the medians of the pixels of a block, and their deviations if the phase needs them."""
    numbers = scratch.numbers
    lower, upper = block[(n - 1) // 2], block[n // 2]
    for p in range(pixels):
        numbers[MIDDLE + p] = 0.5 * (np.float64(lower[p]) + np.float64(upper[p]))
        numbers[FATE + p] = TESTED
        numbers[PHASE + p] = phase
    if phase < 2:
        _sort_deviations(block, n, pixels, scratch)


@compiled
def _mean_and_deviation(block, n, pixels, scratch):
    """Compute `moments` about the medians of a block, bit for bit."""
    numbers, sums = scratch.numbers, scratch.sums
    for p in range(pixels):
        sums[SUMS + p] = 0.0
        sums[SQUARES + p] = 0.0
    for i in range(n):
        sample = block[i]
        for p in range(pixels):
            d = np.float64(sample[p]) - numbers[MIDDLE + p]
            sums[SUMS + p] += d
            sums[SQUARES + p] += d * d
    for p in range(pixels):
        first, second = sums[SUMS + p], sums[SQUARES + p]
        numbers[SCALE + p] = math.sqrt(larger(second - first * first / n, 0.0) / (n - 1))
        numbers[MIDDLE + p] += first / n


@compiled
def _scales(block, n, pixels, phase, scratch):
    """Find center and scale of the pixels of a block for a phase; a negative scale is not known."""
    numbers, lines = scratch.numbers, scratch.search.lines
    if phase == 2:
        _mean_and_deviation(block, n, pixels, scratch)
        return
    correction, deviation = _correction(n), scratch.deviations[int(0.683 * n)]
    by_line = phase == 0 and _points(n) >= FEWEST
    for p in range(pixels):
        line = lines[INTERCEPT + p] + lines[SLOPES + p] if lines[PROVEN + p] > 0.0 else -1.0
        numbers[SCALE + p] = correction * (line if by_line else deviation[p])


@compiled
def _test_ends(block, n, pixels, phase, limits, quantile, numbers):
    """Test the sample of each pixel that is farther out, if it is tested further."""
    use_low, use_high = np.isfinite(limits[0]), np.isfinite(limits[1])
    first, last = block[0], block[n - 1]
    none_known = 0.0 if phase == 2 else -1.0
    rounding = UNSURE if phase == 0 else UNSURE_DEVIATION
    for p in range(pixels):
        m, s = numbers[MIDDLE + p], numbers[SCALE + p]
        unknown, equal = (s < 0.0) | (s == none_known), s == 0.0
        s = larger(s if s > 0.0 else 1.0, limits[2])
        below, above = m - first[p], last[p] - m
        z_low = below / s if use_low else -np.inf
        z_high = above / s if use_high else -np.inf
        z = larger(z_low, z_high)
        alike = (abs(below - above) < UNSURE**2 * abs(above)) & (below != above)
        unsure = (abs(z - quantile) <= rounding * quantile) | ((z > quantile) & alike)
        fate = DROPS_LOWEST if z_low >= z_high else DROPS_HIGHEST
        fate = fate if z > quantile else TESTED
        fate = TESTED if equal else fate
        fate = ALONE if unknown | (unsure & (not equal)) else fate
        numbers[SCALE + p] = s
        tested = numbers[FATE + p] == TESTED
        numbers[FATE + p] = fate if tested else numbers[FATE + p]
        numbers[PHASE + p] = phase if tested else numbers[PHASE + p]


@compiled
def _note_limits(detail, p, k, limits, quantile, numbers):
    """Store center and limits of lane k as those of pixel p."""
    m, s = numbers[MIDDLE + k], numbers[SCALE + k]
    lower = m - quantile * s if np.isfinite(limits[0]) else -np.inf
    upper = m + quantile * s if np.isfinite(limits[1]) else np.inf
    note(detail, p, m, lower, upper, 0.0)


@compiled
def chauvenet(ordered, count, limits, table, max_iterations, low, high, detail):
    """Reject by the robust Chauvenet criterion (Maples et al. 2018).

    A sample is dropped if fewer than `limit` are expected that far out. There are three phases: median and a
    line through the inner deviations, median and 68.3 % deviation, mean and standard deviation. Each ends
    when nothing drops. `max_iterations` limits the number of dropped samples.

    Pixels with equally many samples are worked on together. Where rounding may decide, and if the number of
    dropped samples is limited, it is one by one.
    """
    blocks, frames = ordered.shape[0], ordered.shape[1]
    scratch = Chauvenet(
        np.empty(4 * LANES),
        np.empty(3 * LANES),
        np.empty((frames, LANES), np.float32),
        np.empty((frames * 16, 2), np.int64),
        Search(*search_arrays(frames)),
        np.empty(frames, np.float32),
        np.empty(frames),
        np.empty(frames, np.int64),
        np.empty(frames),
    )
    numbers, quantile = scratch.numbers, table[0]
    packed, places = np.empty((frames, LANES), np.float32), np.empty(LANES, np.uint64)
    # Pixels that wait for those with as many samples, by phase, and those that are worked on one by one.
    waiting, chosen = waiting_for(blocks, frames, PHASES), np.empty(LANES, np.int64)
    alone, number = np.empty(blocks * LANES, np.int64), 0
    together = max_iterations >= frames
    # Not literal numbers, for which functions would be compiled again.
    b, n, first = np.int64(0), frames, np.int64(0)
    while b < blocks or n > 2:
        # First blocks as they are, then packed ones.
        block, size = packed, LANES
        if b < blocks:
            for p in range(LANES):
                chosen[p] = b * LANES + p
                low[b, p] = 0
                high[b, p] = count[b, p]
            block = ordered[b]
            b += 1
            if lowest(count[b - 1]) < frames or frames < 3 or not together:
                for p in range(LANES):
                    if count[b - 1, p] >= 3 and together:
                        wait(waiting, chosen[p], np.int64(count[b - 1, p]), first)
                    else:
                        alone[number] = chosen[p]
                        number += 1
                continue
        else:
            size = take(waiting, n, first, chosen)
            if size == 0:
                first += 1
                if first == PHASES:
                    n, first = n - 1, np.int64(0)
                continue
            pack(ordered, low, n, chosen[:size], filled(size), places, packed)
        _begin(block, n, filled(size), first, scratch)
        for phase in range(first, PHASES):
            if phase == 0 and _points(n) >= FEWEST:
                find_lines(
                    scratch.deviations,
                    table[n],
                    _points(n),
                    filled(size),
                    ON_LINE,
                    UNSURE,
                    scratch.search,
                )
            _scales(block, n, filled(size), phase, scratch)
            _test_ends(block, n, filled(size), phase, limits, quantile[n], numbers)
        for k in range(size):
            q, fate = chosen[k], numbers[FATE + k]
            if fate == TESTED:
                _note_limits(detail[q // LANES], q % LANES, k, limits, quantile[n], numbers)
            elif fate == ALONE or n == 3:
                alone[number] = q
                number += 1
            else:
                low[q // LANES, q % LANES] += np.int32(fate == DROPS_LOWEST)
                high[q // LANES, q % LANES] -= np.int32(fate == DROPS_HIGHEST)
                wait(waiting, q, n - 1, int(numbers[PHASE + k]))
    for k in range(number):
        b, p = alone[k] // LANES, alone[k] % LANES
        ends = _chauvenet_alone(ordered[b], p, count[b, p], limits, table, max_iterations, detail[b], scratch)
        low[b, p], high[b, p] = ends
