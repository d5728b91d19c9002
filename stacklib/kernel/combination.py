"""Combine the samples that survive rejection, and count the others."""

from __future__ import annotations

import math

import numpy as np

from stacklib.kernel.pixels import DATA, RANGE_HIGH, RANGE_LOW, REJECTED_HIGH, REJECTED_LOW
from stacklib.kernel.tiles import FACTOR, NOISE, OFFSET, REJECTION_FACTOR, REJECTION_OFFSET, WEIGHT, row_of
from stacklib.rejection.clipping import SLOPE
from stacklib.rejection.estimators import CENTRES, SUMS, median, sums_in_order
from stacklib.rejection.noise_model import FAR, MODEL, OWN
from stacklib.rejection.sorting import LANES, sort_block
from stacklib.utils.compiled import compiled, lowest, sum_of

__all__ = ["combine", "combine_by_order", "fill_saturated"]

#: Parts of the array of sums of a block, see `sums_in_order`. With weights, the sums include them.
CENTRE, WD, W = CENTRES, SUMS, 3 * LANES


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
            total[W + p] += w if keep else 0.0
            total[WD + p] += w * d


@compiled
def _weighted_noise(values, limit, table, noise):
    """Compute the noise of the weighted mean of the kept samples of a block, for frames of noise s_i.

    ``noise[:LANES]`` is filled with ``sqrt(sum (w s)^2) / sum w`` over the kept samples.
    """
    noise[:] = 0.0
    for i in range(values.shape[0]):
        compared = values[i]
        w = table[WEIGHT, i]
        square = (w * table[NOISE, i]) ** 2
        for p in range(LANES):
            keep = (compared[p] >= limit[p]) & (compared[p] <= limit[LANES + p])
            noise[p] += square if keep else 0.0
            noise[LANES + p] += w if keep else 0.0
    for p in range(LANES):
        noise[p] = math.sqrt(noise[p]) / noise[LANES + p]


@compiled
def _count_near(values, limit, centre, reach, table, by_frame, near):
    """Count the rejected samples that chance may have thrown so far from the center, by pixel."""
    near[:] = 0
    for i in range(values.shape[0]):
        compared = values[i]
        s = table[NOISE, i]
        for p in range(LANES):
            out = (compared[p] < limit[p]) | (compared[p] > limit[LANES + p])
            apart = abs(compared[p]) if by_frame else abs(compared[p] - centre[p])
            near[p] += np.int32(out & (apart < s * reach[p]))


@compiled
def _standard_error(samples, b, claims, noise, near, unit, out):
    """Compute the standard error of the pixels of a block, without the excess of their neighborhood."""
    count, low, high = samples.count[b], samples.low[b], samples.high[b]
    most = claims.shape[0] - 1
    for p in range(LANES):
        n = count[p]
        far = min(n - (high[p] - low[p]) - near[p], most)
        factor = claims[far, n, near[p]] if n > 1 else np.nan
        out[p] = factor * noise[p] * math.sqrt(samples.scatter[b, MODEL, p]) * unit


@compiled
def combine(band, samples, table, data_range, how, claims, pixels, tally):
    """Average the survivors of a tile with their weights, estimate its standard error, and count.

    The standard error is ``sigma sqrt(sum (w s)^2) / sum w`` over the survivors, where s is the relative
    noise of a frame and sigma, from the `scatter` of `samples` and the excess in `pixels`, the noise of the
    pixel. `claims`, see `stacklib.kernel.uncertainty`, corrects it for the rule. An empty `uncertainty` is
    not computed. `ratio` is filled unless it is empty.

    `how` is a pair of flags. If the first is set, the rejection maps count samples beyond the range limits;
    the second tells that `values` and `ordered` are verdicts, see `stacklib.rejection.noise_model.Judged`.
    Ties with a kept value are added to the intervals of `samples`. Raw samples strictly within `data_range`
    are data. `pixels` are filled from ``band.start`` to ``band.stop``, and the samples are added to `tally`,
    the table of `Counts`.
    """
    raw, start, stop = band
    map_range, by_frame = how
    values, ordered, count, low, high, detail, scatter = samples
    image, uncertainty, map_low, map_high, coverage, slope, ratio, excess = pixels
    frames = raw.shape[0]
    # One flat array for each use: the compiler sees that its parts do not overlap, and vectorizes.
    limit = np.empty(2 * LANES, np.float32)
    total = np.empty(4 * LANES)
    mean = np.empty(LANES)
    noise = np.empty(2 * LANES)
    near = np.zeros(LANES, np.int32)
    reach = np.full(LANES, 1.0)
    error = np.empty(LANES)
    outside = np.zeros(2 * LANES, np.int32)
    padded = np.empty(LANES, np.float32)
    # Samples are usually combined as they are compared.
    same = not by_frame
    equal = True
    for i in range(frames):
        same &= table[REJECTION_FACTOR, i] == table[FACTOR, i]
        same &= table[REJECTION_OFFSET, i] == table[OFFSET, i]
        equal &= table[WEIGHT, i] == table[WEIGHT, 0]
    rescaled = sum_of(table[FACTOR]) / sum_of(table[REJECTION_FACTOR])
    with_error = uncertainty.size > 0
    # Summed as in `_weighted_noise`, for the same bits.
    squares, weights = 0.0, 0.0
    for i in range(frames):
        squares += (table[WEIGHT, i] * table[NOISE, i]) ** 2
        weights += table[WEIGHT, i]
    whole_noise = math.sqrt(squares) / weights
    whole_blocks = 0
    for b in range(ordered.shape[0]):
        first = start + b * LANES
        rejected = _limits_by_value(ordered[b], count[b], low[b], high[b], limit[:LANES], limit[LANES:])
        whole = lowest(count[b]) == frames
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
        if with_error:
            if whole and not rejected:
                noise[:] = whole_noise
                near[:] = 0
            else:
                _weighted_noise(values[b], limit, table, noise)
                if not by_frame:
                    for p in range(LANES):
                        reach[p] = FAR * math.sqrt(scatter[b, MODEL, p])
                _count_near(values[b], limit, total[CENTRE : CENTRE + LANES], reach, table, by_frame, near)
            _standard_error(samples, b, claims, noise, near, rescaled, error)
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
            for p in range(there):
                uncertainty[first + p] = error[p]
            if excess.size > 0:
                for p in range(there):
                    uncertainty[first + p] *= abs(excess[first + p])
        if ratio.size > 0:
            for p in range(there):
                known = count[b, p] > 1 and scatter[b, MODEL, p] > 0.0
                ratio[first + p] = scatter[b, OWN, p] / scatter[b, MODEL, p] if known else np.nan
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
    values, ordered, low, high = samples.values, samples.ordered, samples.low, samples.high
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
