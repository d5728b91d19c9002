"""Integrate pixels of which most samples are known from before, looking only at those that matter.

The samples known before are kept sorted, pixel by pixel, with their sums (`Known`). Where some are added, the
kept interval, median, scatter and sums follow from the ends of the sorted samples, from a few in the middle
and from the sums. A sum of float64 in another order differs in its last digits, and the result, which is
float32, nearly never: the error is bounded, and where the bound leaves a choice, as in one pixel of some ten
thousand, the pixel is left to the usual pass. So are pixels where a frame has no data. The results have the
bits of `stacklib.kernel.passes.run_tiles`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.kernel.pixels import DATA, REJECTED_HIGH, REJECTED_LOW
from stacklib.kernel.tiles import FACTOR, NOISE, OFFSET, REJECTION_FACTOR, REJECTION_OFFSET, WEIGHT, row_of
from stacklib.rejection.ends import Pixel, back, forth, interval, split_at, value_at
from stacklib.rejection.noise_model import FAR
from stacklib.rejection.sorting import LANES, sort_block
from stacklib.utils.compiled import compiled

__all__ = ["Known", "Places", "grow", "keep_sorted", "unsorted"]

#: Sorts after all data, and leaves room for the number of a frame in its last digits.
NO_DATA = 1e300
#: Largest number of frames whose number fits there.
MOST_FRAMES = 1 << 16
#: Unit in the last place of float64.
UNIT = 2.0**-53


class Known(NamedTuple):
    """Samples of pixels, sorted by their normalized values.

    `values`, float32 (blocks, frames, LANES), are in ascending order along the frames; `raw` are the samples
    that they were made of, and `source` the number of the frame of each. `level` is a center of each pixel,
    float32 (pixels,), NaN where a frame has no data. `sums` are float64 (pixels, 3): of the deviations of the
    normalized samples from it, of their squares, and of the weighted deviations of the samples as they are
    combined.
    """

    values: np.ndarray
    raw: np.ndarray
    source: np.ndarray
    level: np.ndarray
    sums: np.ndarray


class Places(NamedTuple):
    """Where the samples are in a run.

    `known` is the position of each frame known before among the frames used, -1 if it is not used any more,
    `more` that of the others, `gone` are the numbers of the frames that are not used any more, all int64.
    `scale` is by what the weights of the known ones have been multiplied since.
    """

    known: np.ndarray
    more: np.ndarray
    gone: np.ndarray
    scale: float


@compiled
def keep_sorted(raw, table, data_range, network, known):
    """Sort the raw samples of a band into the pixels of `known`.

    `raw` is float32 (frames, pixels), `table` the frame table, see `stacklib.kernel.tiles.frame_table`.
    """
    frames = raw.shape[0]
    data_low, data_high = data_range
    padded = np.empty(LANES, np.float32)
    # Of a float32 the last 29 bits of a float64 are 0; there is the number of its frame.
    block = np.empty((frames, LANES))
    bits = block.view(np.int64)
    last = raw.shape[1]
    for start in range(0, last, LANES):
        there = min(LANES, last - start)
        for i in range(frames):
            row = row_of(raw, i, start, last, padded)
            f, o = table[REJECTION_FACTOR, i], table[REJECTION_OFFSET, i]
            keys = block[i]
            for p in range(LANES):
                x = row[p]
                v = np.float64(np.float32(np.float64(x) * f + o))
                keys[p] = v if (x > data_low) & (x < data_high) else NO_DATA
            numbers = bits[i]
            for p in range(LANES):
                numbers[p] = (numbers[p] & ~np.int64(MOST_FRAMES - 1)) | i
        sort_block(block, network)
        for p in range(there):
            q = start + p
            whole = block[frames - 1, p] < NO_DATA / 2
            level = block[frames // 2, p]
            level = np.float64(np.float32(level)) if whole else 0.0
            known.level[q] = level if whole else np.nan
            first_sum, squares, weighted = 0.0, 0.0, 0.0
            b = q // LANES
            for k in range(frames):
                i = bits[k, p] & (MOST_FRAMES - 1)
                sample = raw[i, q]
                x = np.float64(sample)
                v = np.float32(x * table[REJECTION_FACTOR, i] + table[REJECTION_OFFSET, i])
                known.values[b, k, p] = v
                known.raw[b, k, p] = sample
                known.source[b, k, p] = i
                d = np.float64(v) - level
                first_sum += d
                squares += d * d
                weighted += table[WEIGHT, i] * (x * table[FACTOR, i] + table[OFFSET, i] - level)
            known.sums[q, 0] = first_sum
            known.sums[q, 1] = squares
            known.sums[q, 2] = weighted


@compiled
def unsorted(known, chosen, places, more, out):
    """Write the raw samples of some pixels to `out`, float32 (frames, chosen pixels).

    `more` are the raw samples of the other frames, float32 (others, pixels).
    """
    for t in range(chosen.size):
        q = chosen[t]
        b, p = q // LANES, q % LANES
        for k in range(known.raw.shape[1]):
            place = places.known[known.source[b, k, p]]
            if place >= 0:
                out[place, t] = known.raw[b, k, p]
        for j in range(more.shape[0]):
            out[places.more[j], t] = more[j, q]


@compiled
def _rank(known, others, rank, out):
    """Find the samples of a rank among known and other ones, both sorted, float32 (frames, LANES).

    Of i known and j other samples, rank + 1 in all, it is the larger of the last of both, where that is
    least. So the pixels of a block are looked at together, without a search in each of them.
    """
    first, last = max(0, rank + 1 - known.shape[0]), min(others.shape[0], rank + 1)
    for j in range(first, last + 1):
        i = rank + 1 - j
        one = known[i - 1] if i > 0 else others[j - 1]
        other = others[j - 1] if j > 0 else one
        if j == first:
            for p in range(LANES):
                out[p] = one[p] if one[p] > other[p] else other[p]
        else:
            for p in range(LANES):
                v = one[p] if one[p] > other[p] else other[p]
                out[p] = v if v < out[p] else out[p]


@compiled
def _centres(known, others, looked_at, rooms, centres):
    """Find the medians of a block of pixels, float64 (LANES,), see `_rank`; NaN for those not to look at."""
    n = known.shape[0] + others.shape[0]
    lower, upper = rooms
    _rank(known, others, (n - 1) // 2, lower)
    _rank(known, others, n // 2, upper)
    for p in range(LANES):
        centre = 0.5 * (np.float64(lower[p]) + np.float64(upper[p]))
        centres[p] = centre if looked_at[p] else np.nan


@compiled
def _deviations(known, others, centres, rooms, found):
    """Find the median absolute deviations from the centers of a block of pixels, float64 (LANES,).

    The half of the sorted samples that is nearest to the center lies between two ranks. The distance of the
    lower one falls with its rank, that of the upper one rises: the best place is where they cross.
    """
    n = known.shape[0] + others.shape[0]
    size = n // 2
    last = n - size - 1
    pixels = 0
    for p in range(LANES):
        pixels += np.int64(centres[p] == centres[p])
        found[p] = np.inf
    # From the middle, where most pixels cross, in both directions.
    for step in (1, -1):
        rank = last // 2 if step > 0 else last // 2 - 1
        while 0 <= rank <= last:
            if _crossed(known, others, rank, size, centres, rooms, found) == (pixels if step > 0 else 0):
                break
            rank += step


@compiled
def _crossed(known, others, rank, size, centres, rooms, found):
    """Lower the deviations to those at a rank, and return the number of pixels that cross below."""
    lower, upper = rooms
    _rank(known, others, rank, lower)
    _rank(known, others, rank + size, upper)
    count = 0
    for p in range(LANES):
        below = centres[p] - np.float64(lower[p])
        above = np.float64(upper[p]) - centres[p]
        larger = below if below > above else above
        found[p] = larger if larger < found[p] else found[p]
        count += np.int64(above >= below)
    return count


@compiled
def _variance_at(curve, slopes, centre):
    """Evaluate the noise curve at a level, as `stacklib.kernel.scatter` does."""
    found = curve[1, 0]
    for k in range(slopes.size):
        if slopes[k] != 0.0:
            length = curve[0, k + 1] - curve[0, k]
            found += slopes[k] * min(max(centre - curve[0, k], 0.0), length)
    return found


@compiled
def _sorted_more(more, first, last, places, table, how, rooms, sums):
    """Normalize and sort the samples of the other frames of a block of pixels.

    The second of `rooms`, float32 (LANES, others + 1), is filled with them, infinite at the end, and at the
    start if one of them is no data; the first, float32 (others, LANES), is for the work. `how` is the range
    of data and a sorting network; `sums` are the center of each pixel, float64 (LANES,), and the sums of
    `Known` of these samples, float64 (3, LANES), which are filled.
    """
    (data_low, data_high), network = how
    block, some = rooms
    padded = np.empty(LANES, np.float32)
    good = np.ones(LANES, np.bool_)
    level, added = sums
    added[:] = 0.0
    total, squares, weighted = added[0], added[1], added[2]
    for j in range(more.shape[0]):
        place = places.more[j]
        row = row_of(more, j, first, last, padded)
        f, o = table[REJECTION_FACTOR, place], table[REJECTION_OFFSET, place]
        g, s, w = table[FACTOR, place], table[OFFSET, place], table[WEIGHT, place]
        values = block[j]
        for p in range(LANES):
            x = row[p]
            is_data = (x > data_low) & (x < data_high)
            v = np.float32(np.float64(x) * f + o)
            values[p] = v if is_data else np.float32(np.inf)
            good[p] &= is_data
            d = np.float64(v) - level[p]
            total[p] += d
            squares[p] += d * d
            weighted[p] += w * (np.float64(x) * g + s - level[p])
    sort_block(block, network)
    for p in range(LANES):
        for j in range(more.shape[0]):
            some[p, j] = block[j, p]
        if not good[p]:
            some[p, 0] = np.inf


@compiled
def _leave_out(known, b, gone, network, ranks, values):
    """Copy the sorted values of a block of pixels without those of the frames that are not used any more.

    `gone` are the numbers of these frames. `ranks`, float32 (frames that are gone, LANES), is filled with
    the positions of their samples in ascending order, by `network`; `values` is float32 (frames, LANES).
    """
    source, before = known.source[b], known.values[b]
    # Of the type of the source, as many fit into a vector as possible.
    places, one = np.zeros(LANES, source.dtype), np.empty(2, source.dtype)
    for j in range(gone.size):
        one[0] = gone[j]
        for k in range(source.shape[0]):
            one[1] = k
            number, place, numbers = one[0], one[1], source[k]
            for p in range(LANES):
                old = places[p]
                places[p] = place if numbers[p] == number else old
        rank = ranks[j]
        for p in range(LANES):
            rank[p] = places[p]
    sort_block(ranks, network)
    for k in range(source.shape[0] - gone.size):
        value, same = values[k], before[k]
        for p in range(LANES):
            value[p] = same[p]
        for j in range(gone.size):
            rank, later, place = ranks[j], before[k + j + 1], np.float32(k + j)
            for p in range(LANES):
                new, old = later[p], value[p]
                value[p] = new if rank[p] <= place else old


@compiled
def _position(ranks, i, p):
    """Return the position among all known samples of sample i of those that are left, see `_leave_out`."""
    for j in range(ranks.shape[0]):
        if ranks[j, p] > i:
            break
        i += 1
    return i


@compiled
def _subtract(known, b, ranks, table, sums, p):
    """Subtract the samples that are left out from the sums of a pixel."""
    level = sums[0, p]
    for j in range(ranks.shape[0]):
        k = int(ranks[j, p])
        i = known.source[b, k, p]
        d = np.float64(known.values[b, k, p]) - level
        sums[1, p] -= d
        sums[2, p] -= d * d
        x = np.float64(known.raw[b, k, p])
        sums[3, p] -= table[WEIGHT, i] * (x * table[FACTOR, i] + table[OFFSET, i] - level)


@compiled
def _place_of_more(more, q, places, table, value):
    """Return the position of the only other sample of this value among the frames used, and the sample."""
    found, sample = np.int64(-1), np.float32(0.0)
    for j in range(more.shape[0]):
        place, x = places.more[j], more[j, q]
        v = np.float32(np.float64(x) * table[REJECTION_FACTOR, place] + table[REJECTION_OFFSET, place])
        if v == value:
            if found >= 0:
                return np.int64(-1), sample
            found, sample = place, x
    return found, sample


@compiled
def _with_ties(pixel, kept):
    """Widen an interval to samples that equal its ends; return it and the place above."""
    low, high, i, j, above_i, above_j = kept
    n = pixel.known + pixel.others
    if low == 0 and high == n:
        return low, high, above_i, above_j
    lowest = value_at(pixel, i, j)
    while low > 0:
        i, j = back(pixel, i, j)
        if value_at(pixel, i, j) != lowest:
            break
        low -= 1
    last_i, last_j = back(pixel, above_i, above_j)
    highest = value_at(pixel, last_i, last_j)
    while high < n and value_at(pixel, above_i, above_j) == highest:
        above_i, above_j = forth(pixel, above_i, above_j)
        high += 1
    return low, high, above_i, above_j


@compiled
def grow(known, more, places, tables, how, statistics, pixels, counted):
    """Integrate the pixels of a band that can be known; return how many are left to the usual pass.

    `more` are the raw samples of the frames that are new, float32 (others, pixels). `tables` are the frame
    tables of the frames known before and of those used now, see `stacklib.kernel.tiles.frame_table`. `how` is
    (rule, limits, max_iterations, data_range, sorting networks of as many frames as are new and as are gone),
    `statistics` is (unbiased,
    curve, claims), see `stacklib.kernel.passes.Tile`. `pixels` are the arrays of
    `stacklib.kernel.pixels.Pixels`; the image is float32. `counted` is a pair: the table of `Counts` to which
    samples are added, and an array int64 (pixels,) for the numbers of the pixels that are left.
    """
    rule, limits, max_iterations, data_range, networks = how
    unbiased, curve, claims = statistics
    image, uncertainty, map_low, map_high, coverage, _, ratio, _ = pixels
    tally, left = counted
    kept, table = tables
    n = table.shape[1]
    same = True
    squares, weights = 0.0, 0.0
    # Summed as in `stacklib.kernel.combination`, for the same bits.
    for i in range(n):
        same &= table[REJECTION_FACTOR, i] == table[FACTOR, i]
        same &= table[REJECTION_OFFSET, i] == table[OFFSET, i]
        same &= table[WEIGHT, i] == table[WEIGHT, 0]
        squares += (table[WEIGHT, i] * table[NOISE, i]) ** 2
        weights += table[WEIGHT, i]
    whole_noise = math.sqrt(squares) / weights
    rescaled = table[FACTOR].sum() / table[REJECTION_FACTOR].sum()
    most = claims.shape[0] - 1
    slopes = np.empty(max(curve.shape[1] - 1, 0))
    for k in range(slopes.size):
        slopes[k] = (curve[1, k + 1] - curve[1, k]) / (curve[0, k + 1] - curve[0, k])
    # A bound of the samples as they are combined, from those that are compared. Those that are subtracted
    # count as well: the sums keep their rounding errors.
    least = min(np.abs(table[REJECTION_FACTOR]).min(), np.abs(kept[REJECTION_FACTOR]).min())
    grown = max(np.abs(table[FACTOR]).max(), np.abs(kept[FACTOR]).max()) / least
    shift = max(np.abs(table[REJECTION_OFFSET]).max(), np.abs(kept[REJECTION_OFFSET]).max())
    output_shift = max(np.abs(table[OFFSET]).max(), np.abs(kept[OFFSET]).max())
    summed = max(weights, places.scale * kept[WEIGHT].sum())
    others = more.shape[0]
    block, some = np.empty((others, LANES), np.float32), np.full((LANES, others + 1), np.float32(np.inf))
    gone = places.gone
    values, ranks = np.empty((1, n - others, LANES), np.float32), np.empty((gone.size, LANES), np.float32)
    sums, once, added = np.empty((4, LANES)), np.empty(LANES), np.empty((3, LANES))
    centres, deviations, looked_at = np.empty(LANES), np.empty(LANES), np.empty(LANES, np.bool_)
    rooms = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    lowest, highest = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    lost = np.empty(n, np.int64)
    waiting = 0
    for q in range(known.level.size):
        p = q % LANES
        if p == 0:
            there = min(LANES, known.level.size - q)
            sums[0, :there] = known.level[q : q + there]
            for k in range(there):
                sums[1, k], sums[2, k], sums[3, k] = known.sums[q + k]
                once[k] = sums[2, k]
            sorting = data_range, networks[0]
            _sorted_more(more, q, q + there, places, table, sorting, (block, some), (sums[0], added))
            if gone.size > 0:
                _leave_out(known, q // LANES, gone, networks[1], ranks, values[0])
                # One after the other, so that the processor waits for many samples at a time.
                for k in range(there):
                    _subtract(known, q // LANES, ranks, kept, sums, k)
            for k in range(LANES):
                whole = k < there and sums[0, k] == sums[0, k]
                looked_at[k] = whole and (others == 0 or some[k, 0] != np.inf)
            ordered = values[0] if gone.size > 0 else known.values[q // LANES]
            _centres(ordered, block, looked_at, rooms, centres)
            _deviations(ordered, block, centres, rooms, deviations)
            _rank(ordered, block, 0, lowest)
            _rank(ordered, block, n - 1, highest)
        # Whatever ends this round early leaves the pixel.
        left[waiting] = q
        waiting += 1
        level = sums[0, p]
        if not looked_at[p]:
            continue
        pixel = Pixel(known.values, q // LANES, p, known.values.shape[1], some, others)
        if gone.size > 0:
            pixel = Pixel(values, 0, p, n - others, some, others)
        first, second = sums[1, p] + added[0, p], sums[2, p] + added[1, p]
        weighted = sums[3, p] * places.scale + added[2, p]
        centre = centres[p]
        terms = level, first, second, once[p] + added[1, p]
        found = interval(rule, pixel, centre, terms, limits, max_iterations)
        if found.high < 0:
            continue
        low, high, above_i, above_j = _with_ties(pixel, found)
        own = unbiased[n] * deviations[p] * deviations[p]
        model = _variance_at(curve, slopes, centre) if curve.shape[1] > 0 else own
        lost_weight, lost_squares, near, out = 0.0, 0.0, 0, 0
        if low > 0 or high < n:
            reach = FAR * math.sqrt(model)
            i, j = split_at(pixel, (low + high) // 2)
            near_to = np.float64(value_at(pixel, i, j))
            i, j = 0, 0
            for k in range(low + n - high):
                if k == low:
                    i, j = above_i, above_j
                v = value_at(pixel, i, j)
                next_i, next_j = forth(pixel, i, j)
                if next_i > i:
                    at = _position(ranks, i, p)
                    place = places.known[known.source[q // LANES, at, p]]
                    sample = known.raw[q // LANES, at, p]
                else:
                    place, sample = _place_of_more(more, q, places, table, v)
                if place < 0:
                    break
                x, w = np.float64(sample), table[WEIGHT, place]
                lost_weight += w
                lost_squares += (w * table[NOISE, place]) ** 2
                near += np.int64(abs(np.float64(v) - near_to) < table[NOISE, place] * reach)
                first -= np.float64(v) - level
                weighted -= w * (x * table[FACTOR, place] + table[OFFSET, place] - level)
                lost[out] = place
                out += 1
                i, j = next_i, next_j
            if out < low + n - high:
                continue
        largest = max(abs(lowest[p]), abs(highest[p]))
        if gone.size > 0:
            ends = known.values[q // LANES, 0, p], known.values[q // LANES, known.values.shape[1] - 1, p]
            largest = max(largest, max(abs(ends[0]), abs(ends[1])))
        weight = weights - lost_weight
        mean = level + (first / (high - low) if same else weighted / weight)
        error = 64.0 * UNIT * n * (grown * (np.float64(largest) + shift) + output_shift) * (summed / weight)
        if np.float32(mean - error) != np.float32(mean + error):
            continue
        if uncertainty.size > 0:
            noise, unsure = whole_noise, 0.0
            if out > 0:
                noise = math.sqrt(squares - lost_squares) / weight
                unsure = 8.0 * UNIT * n * (squares / (squares - lost_squares) + weights / weight)
            far = min(out - near, most)
            error = claims[far, n, near] * noise * math.sqrt(model) * rescaled if n > 1 else np.nan
            if n > 1 and np.float32(error * (1.0 - unsure)) != np.float32(error * (1.0 + unsure)):
                continue
            uncertainty[q] = error
        waiting -= 1
        for k in range(low):
            tally[REJECTED_LOW, lost[k]] += 1
        for k in range(low, out):
            tally[REJECTED_HIGH, lost[k]] += 1
        image[q] = mean
        map_low[q] = low
        map_high[q] = n - high
        coverage[q] = n
        if ratio.size > 0:
            ratio[q] = own / model if n > 1 and model > 0.0 else np.nan
    tally[DATA] += known.level.size - waiting
    return waiting
