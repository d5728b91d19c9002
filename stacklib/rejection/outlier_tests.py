"""Outlier tests: generalized extreme Studentized deviate, calibrated sigma and robust Chauvenet."""

from __future__ import annotations

import math

import numpy as np

from stacklib.rejection.clipping import copied, note
from stacklib.rejection.estimators import absolute_deviation, deviation_sums, median, moments
from stacklib.rejection.line_fitting import l1_line
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = ["calibrated_sigma", "chauvenet", "gesd"]


@compiled
def _trimmed_mean(x, low, high, drop_low, drop_high):
    """Return the mean of ``x[low:high]`` without its ends, or the median if too few samples are left."""
    if drop_low + drop_high >= high - low - 2:
        return median(x, low, high)
    total = 0.0
    for i in range(low + drop_low, high - drop_high):
        total += x[i]
    return total / (high - low - drop_low - drop_high)


@compiled
def gesd(ordered, count, limits, table, max_iterations, low, high, detail):
    """Reject by the generalized extreme Studentized deviate test (Rosner 1983).

    The most deviating sample is taken out up to k times. All samples up to the last one beyond its critical
    value are rejected, so that outliers cannot mask each other. `max_iterations` limits k.
    """
    use_low, use_high = np.isfinite(limits[0]), np.isfinite(limits[1])
    floor, fraction, relaxation, pixinsight = limits[2], limits[3], limits[4], limits[5] > 0.0
    critical = table[0]
    column = np.empty(ordered.shape[1], np.float32)
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            kept_low, kept_high = lo, hi
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and (use_low or use_high):
                x = copied(ordered[b], p, hi, column)
                at_most = min(max(int(fraction * hi), 1), hi - 2)
                middle = median(x, lo, hi)
                first, second = deviation_sums(x, lo, hi, middle)
                for i in range(min(at_most, max_iterations)):
                    n = hi - lo
                    centre = middle + first / n
                    # Critical values of few samples are below 2: one quantization step is not rejected.
                    least = floor * max(1.0, 2.0 / critical[n])
                    s = max(math.sqrt(max(second - first * first / n, 0.0) / (n - 1)), least)
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
                    note(detail[b], p, centre, lower, upper, 0.0)
                    if above >= below:
                        hi -= 1
                        d = np.float64(x[hi]) - middle
                    else:
                        d = np.float64(x[lo]) - middle
                        lo += 1
                    if d * d > 0.5 * second:
                        # Subtracting most of a sum leaves rounding errors: sum again.
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
    floor = limits[2]
    column = np.empty(ordered.shape[1], np.float32)
    sides = ordered.shape[1] + 1
    for b in range(ordered.shape[0]):
        for p in range(LANES):
            lo, hi = 0, count[b, p]
            kept_low, kept_high = lo, hi
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            if hi >= 3 and (use_low or use_high):
                x = copied(ordered[b], p, hi, column)
                below, above = table[hi], table[sides + hi]
                tests = min(max(min(2 * hi // 5, hi - 3), 1), max_iterations)
                middle = median(x, lo, hi)
                first, second = deviation_sums(x, lo, hi, middle)
                centre, reach_low, reach_high = np.nan, np.nan, np.nan
                for i in range(tests):
                    n = hi - lo
                    dark, bright = x[lo] - middle, x[hi - 1] - middle
                    upper = (bright * n - first) * per_high >= (first - dark * n) * per_low
                    d = np.float64(bright if upper else dark)
                    if upper:
                        hi -= 1
                    else:
                        lo += 1
                    if d * d > 0.5 * second:
                        # Subtracting most of a sum leaves rounding errors: sum again.
                        first, second = deviation_sums(x, lo, hi, middle)
                    else:
                        first -= d
                        second -= d * d
                    mean = first / (n - 1)
                    squares = max(second - first * mean, floor * floor * (n - 2))
                    if squares <= 0.0:
                        # The others are equal, so their scatter is unknown.
                        break
                    reach_low, reach_high = below[i] * squares, above[i] * squares
                    centre = middle + mean
                    gap = d - mean
                    if gap * gap > (reach_high if upper else reach_low):
                        kept_low, kept_high = lo, hi
                lowest, highest = centre - math.sqrt(reach_low), centre + math.sqrt(reach_high)
                note(detail[b], p, centre, lowest, highest, 0.0)
            low[b, p] = kept_low
            high[b, p] = kept_high


@compiled
def _chauvenet_centre_and_scale(x, low, high, phase, abscissae, distance, order, residual):
    """Return center and scale of a phase of robust Chauvenet rejection, from robust to precise."""
    n = high - low
    m = median(x, low, high)
    if phase == 2:
        return moments(x, low, high, m)
    # Correct for the small spread of few samples (Maples et al. 2018, 68.3 % deviation).
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
    """Reject by the robust Chauvenet criterion (Maples et al. 2018).

    A sample is dropped if fewer than `limit` are expected that far out. There are three phases: median and a
    line through the inner deviations, median and 68.3 % deviation, mean and standard deviation. Each ends
    when nothing drops. `max_iterations` limits the number of dropped samples.
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
            x = copied(ordered[b], p, hi, column)
            note(detail[b], p, np.nan, np.nan, np.nan, 0.0)
            phase = 0
            dropped = 0
            while phase < 3 and hi - lo >= 3 and dropped < max_iterations:
                n = hi - lo
                m, s = _chauvenet_centre_and_scale(x, lo, hi, phase, table[n], distance, order, residual)
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
                note(detail[b], p, m, lower, upper, 0.0)
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
