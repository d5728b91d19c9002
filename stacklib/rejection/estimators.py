"""Compiled estimators for the samples of a pixel: ``x[low:high]`` of a sorted column `x`."""

from __future__ import annotations

import math

import numpy as np

from stacklib.rejection.sorting import LANES, WHOLE, sort_block
from stacklib.utils.compiled import (
    compiled,
    highest,
    larger,
    larger_distance,
    lowest,
    smaller,
    smaller_distance,
)

__all__ = [
    "CENTRES",
    "SQUARES",
    "SUMS",
    "absolute_deviation",
    "deviation_sums",
    "median",
    "moments",
    "sn_scale_block",
    "sums_about_median",
    "sums_in_order",
]

#: Factors between Sn and sigma of Gaussian samples: for many samples, and further ones for 2 to 9 samples.
SN_CONSTANT = 1.1926
SN_SMALL = np.array([1.0, 1.0, 0.743, 1.851, 0.954, 1.351, 0.993, 1.198, 1.005, 1.131])


@compiled
def median(x, low, high):
    """Return the median of ``x[low:high]``."""
    return 0.5 * (np.float64(x[(low + high - 1) // 2]) + np.float64(x[(low + high) // 2]))


@compiled
def deviation_sums(x, low, high, centre):
    """Return the sums of the deviations of ``x[low:high]`` from `centre` and of their squares."""
    first = 0.0
    second = 0.0
    for i in range(low, high):
        d = np.float64(x[i]) - centre
        first += d
        second += d * d
    return first, second


@compiled
def moments(x, low, high, centre):
    """Return mean and standard deviation (n - 1) of ``x[low:high]``, summed about `centre`."""
    n = high - low
    first, second = deviation_sums(x, low, high, centre)
    return centre + first / n, math.sqrt(max(second - first * first / n, 0.0) / (n - 1))


#: Parts of the array of sums of a block: centers, sums of the deviations from them, and of their squares.
CENTRES, SUMS, SQUARES = (part * LANES for part in range(3))


@compiled
def _add_some(sample, i, low, high, sums):
    """Add the sorted samples at position `i` to the sums of pixels with `i` in their interval."""
    i = np.int32(i)
    for p in range(LANES):
        d = np.float64(sample[p]) - sums[CENTRES + p]
        d = d if (i >= low[p]) & (i < high[p]) else 0.0
        sums[SUMS + p] += d
        sums[SQUARES + p] += d * d


@compiled
def sums_in_order(block, low, high, sums):
    """Compute `deviation_sums` for each pixel of a sorted block, bit for bit.

    `low` and `high`, int32 (LANES,), bound the samples of each pixel. Of `sums`, float64, `CENTRES` are read,
    `SUMS` and `SQUARES` are filled. It is one flat array, so that the compiler knows that its parts do not
    overlap.
    """
    frames = block.shape[0]
    sums[SUMS : SQUARES + LANES] = 0.0
    start, stop = highest(low), lowest(high)
    if start >= stop:
        start = stop = frames
    for i in range(start):
        _add_some(block[i], i, low, high, sums)
    # Samples used in all pixels, four at a time, so that the sums are loaded and stored less often.
    fours = start + (stop - start) // 4 * 4
    for i in range(start, fours, 4):
        x1, x2, x3, x4 = block[i], block[i + 1], block[i + 2], block[i + 3]
        for p in range(LANES):
            centre = sums[CENTRES + p]
            d1 = np.float64(x1[p]) - centre
            d2 = np.float64(x2[p]) - centre
            d3 = np.float64(x3[p]) - centre
            d4 = np.float64(x4[p]) - centre
            sums[SUMS + p] = sums[SUMS + p] + d1 + d2 + d3 + d4
            sums[SQUARES + p] = sums[SQUARES + p] + d1 * d1 + d2 * d2 + d3 * d3 + d4 * d4
    for i in range(fours, frames):
        _add_some(block[i], i, low, high, sums)


@compiled
def sums_about_median(block, count, none_below, sums):
    """Compute `median` and `deviation_sums` about it for the samples of each pixel of a block, bit for bit.

    Fills `sums`, see `sums_in_order`. `none_below` is zeros, int32 (LANES,).
    """
    frames = block.shape[0]
    if lowest(count) == frames:
        lower, upper = block[(frames - 1) // 2], block[frames // 2]
        for p in range(LANES):
            sums[CENTRES + p] = 0.5 * (np.float64(lower[p]) + np.float64(upper[p]))
    else:
        for p in range(LANES):
            n = count[p]
            sums[CENTRES + p] = median(block[:, p], 0, n) if n > 0 else 0.0
    sums_in_order(block, none_below, count, sums)


@compiled
def absolute_deviation(x, low, high, centre, rank):
    """Return the absolute deviation from `centre` of the given rank, counted from 0."""
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
def _nearest(x, first, last, p):
    """Return the smallest of the largest distances of a sample to those in four windows of pixel `p`."""
    d1 = larger_distance(x - first[p], last[p] - x)
    d2 = larger_distance(x - first[LANES + p], last[LANES + p] - x)
    d3 = larger_distance(x - first[2 * LANES + p], last[2 * LANES + p] - x)
    d4 = larger_distance(x - first[3 * LANES + p], last[3 * LANES + p] - x)
    return smaller_distance(smaller_distance(d1, d2), smaller_distance(d3, d4))


@compiled
def _median_distances(block, n, pixels, distances):
    """Find the upper median of the distances of each sample to all samples, itself included.

    The nearest neighbors of a sorted sample are a window around it. Trying every window needs no branches and
    runs over the pixels in vector lanes. Windows without the sample are never the nearest ones.
    """
    samples, found = block.reshape(-1), distances.reshape(-1)
    size = n // 2
    windows = n - size
    # Two samples and four windows at a time, so that everything is loaded and stored less often. At the end,
    # some are done again. Rows at fixed distances tell the compiler what does not overlap.
    for pair in range(0, n, 2):
        i = min(pair, n - 2)
        x, nearest = samples[i * LANES : (i + 2) * LANES], found[i * LANES : (i + 2) * LANES]
        for p in range(pixels & WHOLE):
            nearest[p] = np.inf
            nearest[LANES + p] = np.inf
        start, stop = max(0, i - size), min(i + 2, windows)
        if windows < 4:
            for k in range(start, stop):
                first, last = block[k], block[k + size]
                for p in range(pixels & WHOLE):
                    x1, x2 = x[p], x[LANES + p]
                    nearest[p] = smaller(nearest[p], larger(x1 - first[p], last[p] - x1))
                    nearest[LANES + p] = smaller(nearest[LANES + p], larger(x2 - first[p], last[p] - x2))
            continue
        for four in range(start, stop, 4):
            k = min(four, windows - 4)
            first = samples[k * LANES : (k + 4) * LANES]
            last = samples[(k + size) * LANES : (k + size + 4) * LANES]
            for p in range(pixels & WHOLE):
                d1 = _nearest(x[p], first, last, p)
                d2 = _nearest(x[LANES + p], first, last, p)
                nearest[p] = smaller_distance(nearest[p], d1)
                nearest[LANES + p] = smaller_distance(nearest[LANES + p], d2)


@compiled
def sn_scale_block(block, n, pixels, network, distances, scale):
    """Compute Sn of Rousseeuw and Croux (1993, JASA 88, 1273) as a Gaussian sigma, with finite-sample factor.

    Sn is the lower median, over all samples, of the upper median of the distances to all samples, itself
    included.

    It is computed of the first n samples, at least 2, of the first `pixels` pixels of a block, a multiple of
    `stacklib.rejection.sorting.FILLED`. The sorted samples are finite up to position ``n - 1``. `network` is
    the `stacklib.rejection.sorting.median_network` for as many samples as frames, `distances` float32 scratch
    of the shape of the block, (frames, LANES). Fills `scale`, float64 (LANES,).
    """
    _median_distances(block, n, pixels, distances)
    # As many below and above that their median stays the same.
    middle = (distances.shape[0] - 1) // 2
    above = n + middle - (n - 1) // 2
    distances[n:above] = 0.0
    distances[above:] = np.inf
    sort_block(distances, network, pixels)
    factor = _sn_factor(n)
    for p in range(pixels & WHOLE):
        scale[p] = factor * distances[middle, p]
