"""Combine the samples that survive rejection, and count the others."""

from __future__ import annotations

import math

import numpy as np

from stacklib.kernel.pixels import DATA, RANGE_HIGH, RANGE_LOW, REJECTED_HIGH, REJECTED_LOW
from stacklib.kernel.tiles import FACTOR, OFFSET, REJECTION_FACTOR, REJECTION_OFFSET, WEIGHT, row_of
from stacklib.rejection.clipping import SLOPE
from stacklib.rejection.estimators import CENTRES, SQUARES, SUMS, absolute_deviation, median, sums_in_order
from stacklib.rejection.sorting import LANES, larger, sort_block
from stacklib.utils.compiled import compiled

__all__ = ["combine", "combine_by_order", "fill_saturated"]

#: Smallest sigma of a clipped pixel, in median absolute deviations of all its samples.
LEAST_SCATTER = 0.7 * 1.4826

#: Parts of the array of sums of a block, see `sums_in_order`. With weights, the sums include them.
CENTRE, WD, WDD, W = CENTRES, SUMS, SQUARES, 3 * LANES


@compiled
def _limits_by_value(ordered, count, low, high, lowest, highest):
    """Find the extreme kept values of each pixel, and keep ties; return whether any sample is rejected."""
    last = ordered.shape[0] - 1
    rejected = 0
    for p in range(LANES):
        lowest[p] = ordered[0, p]
        highest[p] = ordered[last, p]
        rejected += np.int32((low[p] > 0) | (high[p] <= last))
    if rejected == 0:
        return False
    rejected = 0
    for p in range(LANES):
        lo, hi = low[p], high[p]
        if hi <= lo:
            lowest[p] = np.inf
            highest[p] = -np.inf
        elif lo > 0 or hi <= last:
            lowest[p] = ordered[lo, p]
            highest[p] = ordered[hi - 1, p]
            while lo > 0 and ordered[lo - 1, p] == lowest[p]:
                lo -= 1
            while hi < count[p] and ordered[hi, p] == highest[p]:
                hi += 1
            low[p] = lo
            high[p] = hi
            rejected += lo > 0 or hi < count[p]
    return rejected > 0


@compiled
def _outside(sample, limit):
    """Count the samples of a row below and above the limits; no data counts as above."""
    below = np.int32(0)
    above = np.int32(0)
    for p in range(LANES):
        # Sums of int32 become int64 by default, and half as many of those fit into a vector.
        below = np.int32(below + np.int32(sample[p] < limit[p]))
        above = np.int32(above + np.int32(sample[p] > limit[LANES + p]))
    return below, above


@compiled
def _count_rejected(values, whole, limit, tally):
    """Add the rejected samples of a block to the counts of their frames."""
    for i in range(values.shape[0]):
        below, above = _outside(values[i], limit)
        tally[REJECTED_LOW, i] += below
        tally[REJECTED_HIGH, i] += above
        if not whole:
            for p in range(LANES):
                tally[REJECTED_HIGH, i] -= values[i, p] == np.inf


@compiled
def _count_data(raw, first, stop, values, data_range, outside, tally):
    """Count samples that are data or beyond the range limits, by frame and by pixel."""
    data_low, data_high = data_range
    for i in range(values.shape[0]):
        for p in range(min(LANES, stop - first)):
            x = raw[i, first + p]
            if values[i, p] < np.inf:
                tally[DATA, i] += 1
            elif x <= data_low and x > -np.inf:
                outside[p] += 1
                tally[RANGE_LOW, i] += 1
            elif x >= data_high and x < np.inf:
                outside[LANES + p] += 1
                tally[RANGE_HIGH, i] += 1


@compiled
def _sums_by_frame(raw, first, stop, values, limit, table, padded, total):
    """Sum a block frame by frame, keeping the samples whose `values` are within `limit`."""
    total[WD:] = 0.0
    for i in range(values.shape[0]):
        row = row_of(raw, i, first, stop, padded)
        compared = values[i]
        f, o, w = table[FACTOR, i], table[OFFSET, i], table[WEIGHT, i]
        for p in range(LANES):
            keep = (compared[p] >= limit[p]) & (compared[p] <= limit[LANES + p])
            d = np.float64(row[p]) * f + o - total[CENTRE + p]
            d = d if keep else 0.0
            wd = w * d
            total[W + p] += w if keep else 0.0
            total[WD + p] += wd
            total[WDD + p] += wd * d


@compiled
def _least_variance(ordered, p, count, variance, unit):
    """Return `variance`, at least the squared median absolute deviation of all samples times `unit`."""
    # Half of the samples lie in the middle half, which usually settles it without a search.
    column = ordered[:, p]
    centre = median(column, 0, count)
    quarter = count // 4
    nearest = max(centre - column[quarter], column[quarter + count // 2] - centre)
    if variance >= unit * nearest * nearest:
        return variance
    spread = absolute_deviation(column, 0, count, centre, (count - 1) // 2)
    spread = 0.5 * (spread + absolute_deviation(column, 0, count, centre, count // 2))
    least = unit * spread * spread
    return variance if variance >= least else least


@compiled
def combine(band, samples, table, data_range, map_range, claims, pixels, tally):
    """Average the survivors of a tile with their weights, estimate its standard error, and count.

    The variance of the average of m survivors is ``sum w (y - mean)^2 / sum w / (m - 1)``, as for weights
    that are inverse variances. `claims`, see `stacklib.kernel.uncertainty`, corrects its root for other
    weights and for the rule. Where samples were rejected, the variance is at least that of the median
    absolute deviation of all samples, see `LEAST_SCATTER`: survivors may agree by chance. An empty
    `uncertainty` is not computed.

    Ties with a kept value are added to the intervals of `samples`. Raw samples strictly within `data_range`
    are data; if `map_range`, the rejection maps count samples beyond the range limits. `pixels` are filled
    from ``band.start`` to ``band.stop``, and the samples are added to `tally`, the table of
    `Counts`.
    """
    raw, start, stop = band
    values, ordered, count, low, high, detail = samples
    image, uncertainty, map_low, map_high, coverage, slope = pixels
    frames = raw.shape[0]
    # One flat array for each use: the compiler sees that its parts do not overlap, and vectorizes.
    limit = np.empty(2 * LANES, np.float32)
    total = np.empty(4 * LANES)
    mean = np.empty(LANES)
    error = np.empty(LANES)
    outside = np.zeros(2 * LANES, np.int32)
    padded = np.empty(LANES, np.float32)
    # Samples are usually combined as they are compared.
    same = True
    equal = True
    for i in range(frames):
        same &= table[REJECTION_FACTOR, i] == table[FACTOR, i]
        same &= table[REJECTION_OFFSET, i] == table[OFFSET, i]
        equal &= table[WEIGHT, i] == table[WEIGHT, 0]
    rescaled = table[FACTOR].sum() / table[REJECTION_FACTOR].sum()
    with_error = uncertainty.size > 0
    whole_blocks = 0
    for b in range(ordered.shape[0]):
        first = start + b * LANES
        rejected = _limits_by_value(ordered[b], count[b], low[b], high[b], limit[:LANES], limit[LANES:])
        whole = count[b].min() == frames
        if rejected:
            _count_rejected(values[b], whole, limit, tally)
        if whole:
            whole_blocks += 1
        else:
            outside[:] = 0
            _count_data(raw, first, stop, values[b], data_range, outside, tally)
        for p in range(LANES):
            total[CENTRE + p] = ordered[b, (low[b, p] + high[b, p]) // 2, p] if high[b, p] > 0 else 0.0
        if same and equal:
            sums_in_order(ordered[b], low[b], high[b], total)
            for p in range(LANES):
                total[W + p] = high[b, p] - low[b, p]
        else:
            _sums_by_frame(raw, first, stop, values[b], limit, table, padded, total)
        for p in range(LANES):
            survivors = high[b, p] - low[b, p]
            weight = total[W + p] if survivors > 0 else 1.0
            mean[p] = total[WD + p] / weight
            scatter = larger(total[WDD + p] - mean[p] * total[WD + p], 0.0)
            error[p] = scatter / (weight * (survivors - 1.0)) if survivors > 1 else np.nan
        if rejected and with_error:
            for p in range(LANES):
                survivors = high[b, p] - low[b, p]
                if 0 < survivors < count[b, p]:
                    unit = (LEAST_SCATTER * rescaled) ** 2 / survivors
                    if survivors == 1:
                        error[p] = 0.0
                    error[p] = _least_variance(ordered[b], p, count[b, p], error[p], unit)
        there = min(LANES, stop - first)
        images, lows, highs, all_data = (
            image[first : first + there],
            map_low[first : first + there],
            map_high[first : first + there],
            coverage[first : first + there],
        )
        for p in range(there):
            images[p] = total[CENTRE + p] + mean[p]
        for p in range(there):
            lows[p] = low[b, p]
        for p in range(there):
            highs[p] = count[b, p] - high[b, p]
        for p in range(there):
            all_data[p] = count[b, p]
        if with_error:
            for p in range(LANES):
                error[p] = math.sqrt(error[p])
            for p in range(there):
                survivors = high[b, p] - low[b, p]
                uncertainty[first + p] = claims[count[b, p], count[b, p] - survivors] * error[p]
        if slope.size > 0:
            for p in range(there):
                slope[first + p] = detail[b, SLOPE, p]
        if not whole:
            for p in range(min(LANES, stop - first)):
                q = first + p
                coverage[q] += outside[LANES + p]
                if map_range:
                    map_low[q] += outside[p]
                    map_high[q] += outside[LANES + p]
    for i in range(frames):
        tally[DATA, i] += whole_blocks * LANES


@compiled
def combine_by_order(band, samples, table, network, position, image):
    """Write the median (position 0.5), minimum (0) or maximum (1) of the survivors to `image`."""
    raw, start, stop = band
    values, ordered, _, low, high, _ = samples
    frames = raw.shape[0]
    padded = np.empty(LANES, np.float32)
    block = np.empty((frames, LANES), np.float32)
    for b in range(ordered.shape[0]):
        first = start + b * LANES
        for i in range(frames):
            row = row_of(raw, i, first, stop, padded)
            f, o = table[FACTOR, i], table[OFFSET, i]
            for p in range(LANES):
                block[i, p] = np.inf
                v = values[b, i, p]
                some = high[b, p] > low[b, p] and v < np.inf
                if some and ordered[b, low[b, p], p] <= v <= ordered[b, high[b, p] - 1, p]:
                    block[i, p] = np.float64(row[p]) * f + o
        sort_block(block, network)
        for p in range(min(LANES, stop - first)):
            survivors = high[b, p] - low[b, p]
            if survivors > 0:
                if position == 0.5:
                    image[first + p] = median(block[:, p], 0, survivors)
                else:
                    image[first + p] = block[0 if position == 0.0 else survivors - 1, p]


@compiled
def fill_saturated(band, count, table, data_high, image, coverage):
    """Write the median of the samples where all of them are at or above the high range limit."""
    raw, start, stop = band
    frames = raw.shape[0]
    values = np.empty(frames)
    for q in range(start, stop):
        b, p = (q - start) // LANES, (q - start) % LANES
        if count[b, p] == 0 and coverage[q] > 0:
            n = 0
            for i in range(frames):
                x = raw[i, q]
                if x >= data_high and x < np.inf:
                    values[n] = np.float64(x) * table[FACTOR, i] + table[OFFSET, i]
                    n += 1
            values[:n] = np.sort(values[:n])
            image[q] = median(values, 0, n)
