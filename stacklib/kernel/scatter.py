"""How far the samples of each pixel scatter, against what the noise curve says.

The scatter of a pixel is the square of the median absolute deviation of its samples, made unbiased. Where the
mean scatter of a pixel and its neighbors is significantly larger than the curve, in stars whose seeing
changes or at edges, the noise is that much larger: the `excess`. With few frames such pixels do not stand out
one by one. There the noise of pixels in which the levels bend as much counts, for rules that need it.

In a mosaic of color filters the neighbors of a pixel are the nearest ones in the same place of the pattern:
the colors of an even sky differ, which is neither scatter nor a bend. Where one place is noisier than another
at the same level, as after a flat that is not gray, its excess is negative: its size is a factor of the noise
of all frames, not something that they disagree by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from stacklib.kernel.pixels import Ratios
from stacklib.normalization.noise_curve import MEDIAN_ERROR, NO_PATTERN
from stacklib.rejection.calibration import median_deviation_factors, typical_variance
from stacklib.rejection.estimators import absolute_deviation, median
from stacklib.rejection.noise_model import MODEL, OWN
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled, fill_from, larger, lowest, smaller
from stacklib.utils.resources import by_rows

__all__ = ["NEIGHBOURHOOD", "curve_at", "find_excess", "measure_scatter", "widen", "write_ratios"]

#: Pixels on each side that matter to a pixel: its neighbors, and theirs. In a mosaic so many periods of it.
NEIGHBOURHOOD = 2
#: By how many standard errors the mean scatter of a pixel and its neighbors must exceed the curve.
SIGNIFICANT = 2.5
#: The levels of neighboring pixels bend from this many times their error on.
BEND = 2.5


@compiled
def curve_at(curve, centre, out):
    """Evaluate the noise curve at the levels of a block: a sum of rises, one for each part of the curve."""
    for p in range(LANES):
        out[p] = curve[1, 0]
    for k in range(curve.shape[1] - 1):
        start, length = curve[0, k], curve[0, k + 1] - curve[0, k]
        slope = (curve[1, k + 1] - curve[1, k]) / length
        if slope != 0.0:
            for p in range(LANES):
                out[p] += slope * smaller(larger(centre[p] - start, 0.0), length)


@compiled
def measure_scatter(ordered, count, curve, unbiased, scatter):
    """Fill the scatter of a tile: variance by the curve, and by the samples of each pixel.

    `unbiased`, float64 (frames + 1,), makes the squared deviation a variance, by number of samples. Without a
    curve, of no knots, the samples tell both.
    """
    frames = ordered.shape[1]
    centre = np.empty(LANES)
    for b in range(ordered.shape[0]):
        block, own = ordered[b], scatter[b, OWN]
        if lowest(count[b]) == frames:
            lower, upper = block[(frames - 1) // 2], block[frames // 2]
            size = frames // 2
            for p in range(LANES):
                centre[p] = 0.5 * (np.float64(lower[p]) + np.float64(upper[p]))
                own[p] = np.inf
            # The nearest half of sorted samples is a window about the median.
            for i in range(frames - size):
                first, last = block[i], block[i + size]
                for p in range(LANES):
                    own[p] = smaller(own[p], larger(centre[p] - first[p], last[p] - centre[p]))
            for p in range(LANES):
                own[p] = unbiased[frames] * own[p] * own[p]
        else:
            for p in range(LANES):
                n = count[b, p]
                column = block[:, p]
                centre[p] = median(column, 0, n) if n > 0 else 0.0
                spread = absolute_deviation(column, 0, n, centre[p], n // 2) if n > 1 else 0.0
                own[p] = unbiased[n] * spread * spread
        if curve.shape[1] > 0:
            curve_at(curve, centre, scatter[b, MODEL])
        else:
            for p in range(LANES):
                scatter[b, MODEL, p] = own[p]


@compiled
def write_ratios(samples, start, stop, ratios):
    """Write the `stacklib.kernel.pixels.Ratios` of the pixels of a tile."""
    for q in range(start, stop):
        b, p = (q - start) // LANES, (q - start) % LANES
        n = samples.count[b, p]
        model = samples.scatter[b, MODEL, p]
        ratios.coverage[q] = n
        ratios.ratio[q] = samples.scatter[b, OWN, p] / model if n > 1 and model > 0.0 else np.nan
        ratios.level[q] = median(samples.ordered[b, :, p], 0, n) if n > 0 else np.nan
        ratios.sigma[q] = math.sqrt(model)


@compiled
def _sum_around(ratio, row, padded, total, largest, n):
    """Sum the ratios of each pixel of a row and its neighbors, find the largest one, and count them."""
    width = total.size
    total[:] = 0.0
    largest[:] = 0.0
    n[:] = 0
    for y in range(max(row - 1, 0), min(row + 2, ratio.shape[0])):
        fill_from(ratio[y], padded[1:])
        for x in range(3):
            near = padded[x : x + width]
            for c in range(width):
                known = near[c] >= np.float32(0.0)
                value = np.float64(near[c]) if known else 0.0
                total[c] += value
                largest[c] = value if value > largest[c] else largest[c]
                n[c] = np.int32(n[c] + np.int32(known))


@compiled
def _excess(total, largest, n, error):
    """Return the factor by which the noise around a pixel exceeds the curve, 1 if not significant.

    The largest ratio does not count for the significance: an outlier in a single pixel is no noise.
    """
    if n < 2 or (total - largest) / (n - 1) <= 1.0 + SIGNIFICANT * error / math.sqrt(n - 1):
        return np.float32(1.0)
    return np.float32(math.sqrt(total / n))


@compiled
def _fill_bends(level, bends, first, last):
    """Find by how much the level of each pixel differs from the mean of its neighbors."""
    width = level.shape[1]
    padded = np.full(width + 2, np.float32(np.nan))
    total, n = np.empty(width), np.empty(width, np.int32)
    for row in range(first, last):
        total[:] = 0.0
        n[:] = 0
        for y in range(max(row - 1, 0), min(row + 2, level.shape[0])):
            fill_from(level[y], padded[1:])
            for x in range(3):
                if y == row and x == 1:
                    continue
                near = padded[x : x + width]
                for c in range(width):
                    known = near[c] == near[c]
                    total[c] += np.float64(near[c]) if known else 0.0
                    n[c] = np.int32(n[c] + np.int32(known))
        for c in range(width):
            middle = np.float64(level[row, c])
            known = (n[c] > 0) & (middle == middle)
            bends[row, c] = abs(middle - total[c] / n[c]) if known else 0.0


@compiled
def _largest_around(plane, row, padded, largest):
    """Find the largest value of each pixel of a row and its neighbors."""
    width = largest.size
    largest[:] = 0.0
    for y in range(max(row - 1, 0), min(row + 2, plane.shape[0])):
        fill_from(plane[y], padded[1:])
        for x in range(3):
            near = padded[x : x + width]
            for c in range(width):
                value = np.float64(near[c])
                largest[c] = value if value > largest[c] else largest[c]


@compiled
def _fill_excess(ratios, bends, errors, contrast, noise, out, first, last):
    ratio, coverage, _, sigma = ratios
    width = out.shape[1]
    total, largest, n = np.empty(width), np.empty(width), np.empty(width, np.int32)
    padded, bend_around = np.full(width + 2, np.float32(np.nan)), np.empty(width)
    for row in range(first, last):
        _sum_around(ratio, row, padded, total, largest, n)
        if contrast > 0.0:
            _largest_around(bends, row, padded, bend_around)
        for c in range(width):
            samples = min(int(coverage[row, c]), errors.size - 1)
            found = _excess(total[c], largest[c], n[c], errors[samples])
            if contrast > 0.0 and samples > 1:
                bend = bend_around[c] / np.float64(sigma[row, c])
                least = BEND * MEDIAN_ERROR * noise / math.sqrt(samples)
                if bend > least:
                    beyond = contrast * (bend * bend - least * least)
                    found = max(found, np.float32(math.sqrt(1.0 + beyond)))
            out[row, c] = found


@compiled
def _widen(ratio, coverage, errors, uncertainty, first, last):
    width = ratio.shape[1]
    total, largest, n = np.empty(width), np.empty(width), np.empty(width, np.int32)
    padded = np.full(width + 2, np.float32(np.nan))
    for row in range(first, last):
        _sum_around(ratio, row, padded, total, largest, n)
        for c in range(width):
            samples = min(int(coverage[row, c]), errors.size - 1)
            uncertainty[row, c] *= _excess(total[c], largest[c], n[c], errors[samples])


def _cells(places: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.float32]]:
    """Yield the rows and columns of the pixels in each place of a color filter pattern, and its noise."""
    period = len(places)
    for (row, column), factor in np.ndenumerate(places):
        yield (slice(row, None, period), slice(column, None, period)), np.float32(factor)


def find_excess(
    ratios: Ratios,
    noise: np.ndarray,
    contrast: float = 0.0,
    threads: int = 1,
    places: np.ndarray = NO_PATTERN,
) -> np.ndarray:
    """Find by how much the noise around each pixel exceeds the curve.

    Parameters
    ----------
    ratios : Ratios
        Planes of shape (height, width).
    noise : ndarray of float64, shape (frames,)
        Relative noise of the frames.
    contrast : float
        Further variance in the cores of stars, relative to the square of their bend; see
        `stacklib.normalization.noise_curve.FrameNoise`.
    threads : int
        Number of threads.
    places : ndarray of float64, shape (period, period)
        Noise of the places of the color filter pattern relative to the curve, from the first pixel on.

    Returns
    -------
    ndarray of float32, shape (height, width)
        Factor of sigma: 1, or more where the mean of the ratios of a pixel and its neighbors is
        significantly larger, or their levels bend. Negative if it is only that of the place.
    """
    out = np.empty(ratios.ratio.shape, np.float32)
    if len(places) > 1:
        for cell, factor in _cells(places):
            own = Ratios(*(np.array(plane[cell]) for plane in ratios))
            own.ratio[:] /= factor**2
            own.sigma[:] *= factor
            found = find_excess(own, noise, contrast, threads)
            out[cell] = np.where(found > 1, factor * found, -factor if factor > 1 else 1)
        return out
    frames = tuple(noise.tolist())
    errors, contrast = median_deviation_factors(frames)[1], contrast / typical_variance(frames)
    bends = np.empty(out.shape if contrast > 0 else (0, out.shape[1]), np.float32)
    by_rows(partial(_fill_bends, ratios.level, bends), len(bends), threads)
    mean = float(noise.mean())
    by_rows(partial(_fill_excess, tuple(ratios), bends, errors, contrast, mean, out), len(out), threads)
    return out


def widen(
    uncertainty: np.ndarray,
    ratio: np.ndarray,
    coverage: np.ndarray,
    noise: np.ndarray,
    threads: int = 1,
    places: np.ndarray = NO_PATTERN,
) -> None:
    """Multiply an uncertainty in place by `find_excess`; arrays are float32 of shape (height, width)."""
    if len(places) > 1:
        ratios = Ratios(ratio, coverage, coverage, coverage)
        # The product of both factors, as the kernel gets it: for the same bits.
        uncertainty *= np.abs(find_excess(ratios, noise, threads=threads, places=places))
        return
    errors = median_deviation_factors(tuple(noise.tolist()))[1]
    by_rows(partial(_widen, ratio, coverage, errors, uncertainty), len(ratio), threads)
