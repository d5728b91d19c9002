"""Outlier tests: generalized extreme Studentized deviate and calibrated sigma."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.rejection.clipping import note
from stacklib.rejection.estimators import (
    CENTRES,
    SQUARES,
    SUMS,
    deviation_sums,
    median,
    sums_about_median,
)
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled, highest, larger

__all__ = ["calibrated_sigma", "gesd"]


@compiled
def _trimmed_mean(x, low, high, drop_low, drop_high):
    """Return the mean of ``x[low:high]`` without its ends, or the median if too few samples are left."""
    if drop_low + drop_high >= high - low - 2:
        return median(x, low, high)
    total = 0.0
    for i in range(low + drop_low, high - drop_high):
        total += x[i]
    return total / (high - low - drop_low - drop_high)


#: Parts of the state of a block, int32: ends of the samples that were not taken out, and of those that are
#: kept; number of tests; 1 if the last sample was taken out at the upper end, and if most of the sum went.
FIRST, LAST, KEPT_FIRST, KEPT_LAST, TESTS, AT_TOP, RESUM = (part * LANES for part in range(7))
#: And float64: the lowest and highest of the samples that were not taken out, and the deviation of the last
#: one that was; center and limits of a test, the two numbers of the table that it needs, a trimmed mean.
LOWEST, HIGHEST, TAKEN, CENTRE, LOWER, UPPER, NUMBER, OTHER, TRIMMED = (part * LANES for part in range(9))


class Testing(NamedTuple):
    """State of a block: samples and numbers of each pixel, see above, and `sums_about_median`."""

    places: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    none_below: np.ndarray


@compiled
def _testing():
    """Return the arrays of `Testing`."""
    return (
        np.zeros(7 * LANES, np.int32),
        np.zeros(9 * LANES),
        np.zeros(3 * LANES),
        np.zeros(LANES, np.int32),
    )


@compiled
def _start_tests(block, count, state):
    """Prepare the tests of a block: nothing is taken out."""
    places, values = state.places, state.values
    sums_about_median(block, count, state.none_below, state.sums)
    for p in range(LANES):
        places[FIRST + p] = 0
        places[LAST + p] = count[p]
        places[KEPT_FIRST + p] = 0
        places[KEPT_LAST + p] = count[p]
    values[CENTRE : UPPER + LANES] = np.nan


@compiled
def _find_ends(block, state):
    """Find the lowest and highest of the samples that were not taken out."""
    places, values = state.places, state.values
    samples, last = block.reshape(-1), np.int32(block.shape[0] - 1)
    for p in range(LANES):
        # Indices without a sign need no test for negative ones.
        first, final = min(places[FIRST + p], last), max(places[LAST + p] - 1, 0)
        values[LOWEST + p] = samples[np.uint64(first * LANES + p)]
        values[HIGHEST + p] = samples[np.uint64(final * LANES + p)]


@compiled
def _take_out(p, active, upper, state):
    """Take the upper or the lower end of pixel p out, if it is active."""
    places, values, sums = state.places, state.values, state.sums
    lowest, highest = values[LOWEST + p], values[HIGHEST + p]
    d = (highest if upper else lowest) - sums[CENTRES + p]
    # Subtracting most of a sum leaves rounding errors: it is summed again.
    resum = active & (d * d > 0.5 * sums[SQUARES + p])
    subtract = active & (not resum)
    places[LAST + p] -= np.int32(active & upper)
    places[FIRST + p] += np.int32(active & (not upper))
    places[AT_TOP + p] = np.int32(upper)
    places[RESUM + p] = np.int32(resum)
    values[TAKEN + p] = d
    sums[SUMS + p] -= d if subtract else 0.0
    sums[SQUARES + p] -= d * d if subtract else 0.0


@compiled
def _sum_again(block, state):
    """Sum again where most of a sum went."""
    places, sums = state.places, state.sums
    if highest(places[RESUM : RESUM + LANES]) > 0:
        for p in range(LANES):
            if places[RESUM + p] > 0:
                low, high = places[FIRST + p], places[LAST + p]
                found = deviation_sums(block[:, p], low, high, sums[CENTRES + p])
                sums[SUMS + p], sums[SQUARES + p] = found


@compiled
def _reject_taken(p, significant, state):
    """Reject what was taken out of pixel p so far, if the last test was significant."""
    places = state.places
    # All is loaded before it is chosen from, or the loop is not vectorized.
    first, last, kept_first, kept_last = (
        places[FIRST + p],
        places[LAST + p],
        places[KEPT_FIRST + p],
        places[KEPT_LAST + p],
    )
    places[KEPT_FIRST + p] = first if significant else kept_first
    places[KEPT_LAST + p] = last if significant else kept_last


@compiled
def _write_tests(state, low, high, detail):
    """Write the results of a block."""
    places, values = state.places, state.values
    for p in range(LANES):
        low[p] = places[KEPT_FIRST + p]
        high[p] = places[KEPT_LAST + p]
    for p in range(LANES):
        note(detail, p, values[CENTRE + p], values[LOWER + p], values[UPPER + p], 0.0)


@compiled
def _gesd_test(i, limits, state):
    """Make test number `i`: take out the most deviating sample of each pixel."""
    places, values, sums = state.places, state.values, state.sums
    use_low, use_high, relaxation = np.isfinite(limits[0]), np.isfinite(limits[1]), limits[4]
    pixinsight = limits[5] > 0.0
    for p in range(LANES):
        n = np.float64(max(places[LAST + p] - places[FIRST + p], 2))
        first, second, critical = sums[SUMS + p], sums[SQUARES + p], values[NUMBER + p]
        s = larger(math.sqrt(larger(second - first * first / n, 0.0) / (n - 1.0)), values[OTHER + p])
        active = (i < places[TESTS + p]) & (s > 0.0)
        s = s if s > 0.0 else 1.0
        mean = values[TRIMMED + p] if pixinsight else sums[CENTRES + p] + first / n
        above = (values[HIGHEST + p] - mean) / s if use_high else -np.inf
        below = (mean - values[LOWEST + p]) / (relaxation * s) if use_low else -np.inf
        significant = active & (larger(above, below) > critical)
        lower = mean - relaxation * critical * s if use_low else -np.inf
        upper = mean + critical * s if use_high else np.inf
        values[CENTRE + p] = mean if active else values[CENTRE + p]
        values[LOWER + p] = lower if active else values[LOWER + p]
        values[UPPER + p] = upper if active else values[UPPER + p]
        # Without a test there is no other one, and in PixInsight after one that is not significant.
        goes_on = active & (significant | (not pixinsight))
        places[TESTS + p] = places[TESTS + p] if goes_on else 0
        _take_out(p, active, above >= below, state)
        _reject_taken(p, significant, state)


@compiled
def gesd(ordered, count, limits, table, max_iterations, low, high, detail):
    """Reject by the generalized extreme Studentized deviate test (Rosner 1983).

    The most deviating sample is taken out up to k times. All samples up to the last one beyond its critical
    value are rejected, so that outliers cannot mask each other. `max_iterations` limits k.
    """
    fraction, relaxation, pixinsight = limits[3], limits[4], limits[5] > 0.0
    used = np.isfinite(limits[0]) or np.isfinite(limits[1])
    critical = table[0]
    # Critical values of few samples are below 2: one quantization step is not rejected.
    smallest = limits[2] * np.maximum(1.0, 2.0 / critical)
    state = Testing(*_testing())
    places, values = state.places, state.values
    for b in range(ordered.shape[0]):
        block = ordered[b]
        _start_tests(block, count[b], state)
        for p in range(LANES):
            n = count[b, p]
            tests = min(min(max(int(fraction * n), 1), n - 2), max_iterations)
            places[TESTS + p] = tests if used and n >= 3 else 0
        for i in range(highest(places[TESTS : TESTS + LANES])):
            _find_ends(block, state)
            for p in range(LANES):
                n = places[LAST + p] - places[FIRST + p]
                values[NUMBER + p] = critical[n]
                values[OTHER + p] = smallest[n]
                if pixinsight and i < places[TESTS + p]:
                    drop_high = max(1, int(fraction * n) - i)
                    drop_low = max(1, int(fraction * n / relaxation) - i)
                    lo, hi = places[FIRST + p], places[LAST + p]
                    values[TRIMMED + p] = _trimmed_mean(block[:, p], lo, hi, drop_low, drop_high)
            _gesd_test(i, limits, state)
            _sum_again(block, state)
        _write_tests(state, low[b], high[b], detail[b])


@compiled
def _take_farther(i, per_low, per_high, state):
    """Take out the sample of each pixel that deviates more, in units of the limits."""
    places, values, sums = state.places, state.values, state.sums
    for p in range(LANES):
        n = np.float64(places[LAST + p] - places[FIRST + p])
        dark, bright = values[LOWEST + p] - sums[CENTRES + p], values[HIGHEST + p] - sums[CENTRES + p]
        first = sums[SUMS + p]
        upper = (bright * n - first) * per_high >= (first - dark * n) * per_low
        _take_out(p, i < places[TESTS + p], upper, state)


@compiled
def _calibrated_test(i, floor, state):
    """Compare the last sample that was taken out of each pixel with the others."""
    places, values, sums = state.places, state.values, state.sums
    for p in range(LANES):
        others = np.float64(max(places[LAST + p] - places[FIRST + p], 1))
        first = sums[SUMS + p]
        mean = first / others
        squares = larger(sums[SQUARES + p] - first * mean, floor * floor * (others - 1.0))
        # If the others are equal, their scatter is unknown.
        active = (i < places[TESTS + p]) & (squares > 0.0)
        places[TESTS + p] = places[TESTS + p] if active else 0
        reach_low, reach_high = values[NUMBER + p] * squares, values[OTHER + p] * squares
        values[CENTRE + p] = sums[CENTRES + p] + mean if active else values[CENTRE + p]
        values[LOWER + p] = reach_low if active else values[LOWER + p]
        values[UPPER + p] = reach_high if active else values[UPPER + p]
        gap = values[TAKEN + p] - mean
        reach = reach_high if places[AT_TOP + p] > 0 else reach_low
        _reject_taken(p, active & (gap * gap > reach), state)


@compiled
def calibrated_sigma(ordered, count, limits, table, max_iterations, low, high, detail):
    """Test the most deviating sample against the others, take it out, and test the next one.

    All samples up to the last significant one are rejected, so that outliers cannot mask each other. A sample
    is significant if its squared distance from the mean of the others exceeds the sum of their squared
    deviations times a number of `table`, which holds the squared quantiles of Student's t; see
    `stacklib.rejection.calibration.critical_values`. `max_iterations` limits the number of tests.
    """
    use_low, use_high = np.isfinite(limits[0]), np.isfinite(limits[1])
    # The end that deviates more is compared in units of its limit.
    per_low = 1.0 / limits[0] if use_low else 0.0
    per_high = 1.0 / limits[1] if use_high else 0.0
    sides = ordered.shape[1] + 1
    state = Testing(*_testing())
    places, values = state.places, state.values
    for b in range(ordered.shape[0]):
        block = ordered[b]
        _start_tests(block, count[b], state)
        for p in range(LANES):
            n = count[b, p]
            tests = min(max(min(2 * n // 5, n - 3), 1), max_iterations)
            places[TESTS + p] = tests if (use_low or use_high) and n >= 3 else 0
        for i in range(highest(places[TESTS : TESTS + LANES])):
            _find_ends(block, state)
            _take_farther(i, per_low, per_high, state)
            _sum_again(block, state)
            for p in range(LANES):
                values[NUMBER + p] = table[count[b, p], i]
                values[OTHER + p] = table[sides + count[b, p], i]
            _calibrated_test(i, limits[2], state)
        for p in range(LANES):
            centre = values[CENTRE + p]
            values[LOWER + p] = centre - math.sqrt(values[LOWER + p])
            values[UPPER + p] = centre + math.sqrt(values[UPPER + p])
        _write_tests(state, low[b], high[b], detail[b])
