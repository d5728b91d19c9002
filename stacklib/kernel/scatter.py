"""How far the samples of each pixel scatter, against what the noise curve says.

The scatter of a pixel is the square of the median absolute deviation of its samples, made unbiased. Where the
mean scatter of a pixel and its neighbors is significantly larger than the curve, in stars whose seeing
changes or at edges, the noise is that much larger: the `excess`. With few frames such pixels do not stand out
one by one. There the noise of pixels in which the levels bend as much counts, for rules that need it.
"""

from __future__ import annotations

import math

import numpy as np

from stacklib.kernel.pixels import Ratios
from stacklib.normalization.noise_curve import MEDIAN_ERROR
from stacklib.rejection.calibration import median_deviation_factors, typical_variance
from stacklib.rejection.estimators import absolute_deviation, median
from stacklib.rejection.noise_model import MODEL, OWN
from stacklib.rejection.sorting import LANES, larger, smaller
from stacklib.utils.compiled import compiled

__all__ = ["NEIGHBOURHOOD", "find_excess", "measure_scatter", "widen", "write_ratios"]

#: Pixels on each side that matter to a pixel: its neighbors, and theirs.
NEIGHBOURHOOD = 2
#: By how many standard errors the mean scatter of a pixel and its neighbors must exceed the curve.
SIGNIFICANT = 2.5
#: The levels of neighboring pixels bend from this many times their error on.
BEND = 2.5


@compiled
def _curve_at(curve, centre, out):
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
        if count[b].min() == frames:
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
            _curve_at(curve, centre, scatter[b, MODEL])
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
def _excess(ratio, row, column, error):
    """Return the factor by which the noise around a pixel exceeds the curve, 1 if not significant.

    The largest ratio does not count for the significance: an outlier in a single pixel is no noise.
    """
    total, largest = 0.0, 0.0
    n = 0
    for y in range(max(row - 1, 0), min(row + 2, ratio.shape[0])):
        for x in range(max(column - 1, 0), min(column + 2, ratio.shape[1])):
            value = np.float64(ratio[y, x])
            if value >= 0.0:
                total += value
                largest = max(largest, value)
                n += 1
    if n < 2 or (total - largest) / (n - 1) <= 1.0 + SIGNIFICANT * error / math.sqrt(n - 1):
        return np.float32(1.0)
    return np.float32(math.sqrt(total / n))


@compiled
def _bend(level, row, column):
    """Return by how much the level of a pixel differs from the mean of its neighbors."""
    middle = np.float64(level[row, column])
    total, n = 0.0, 0
    for y in range(max(row - 1, 0), min(row + 2, level.shape[0])):
        for x in range(max(column - 1, 0), min(column + 2, level.shape[1])):
            value = np.float64(level[y, x])
            if value == value and not (y == row and x == column):
                total += value
                n += 1
    return abs(middle - total / n) if n > 0 and middle == middle else 0.0


@compiled
def _largest_around(plane, row, column):
    """Return the largest value of a pixel and its neighbors."""
    largest = 0.0
    for y in range(max(row - 1, 0), min(row + 2, plane.shape[0])):
        for x in range(max(column - 1, 0), min(column + 2, plane.shape[1])):
            largest = max(largest, np.float64(plane[y, x]))
    return largest


@compiled
def _fill_excess(ratios, errors, contrast, noise, out):
    ratio, coverage, level, sigma = ratios
    bends = np.zeros(out.shape if contrast > 0.0 else (0, 0), np.float32)
    for row in range(bends.shape[0]):
        for column in range(bends.shape[1]):
            bends[row, column] = _bend(level, row, column)
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            n = min(int(coverage[row, column]), errors.size - 1)
            found = _excess(ratio, row, column, errors[n])
            if contrast > 0.0 and n > 1:
                s = np.float64(sigma[row, column])
                bend = _largest_around(bends, row, column) / s
                least = BEND * MEDIAN_ERROR * noise / math.sqrt(n)
                if bend > least:
                    beyond = contrast * (bend * bend - least * least)
                    found = max(found, np.float32(math.sqrt(1.0 + beyond)))
            out[row, column] = found


@compiled
def _widen(ratio, coverage, errors, uncertainty):
    for row in range(ratio.shape[0]):
        for column in range(ratio.shape[1]):
            n = min(int(coverage[row, column]), errors.size - 1)
            uncertainty[row, column] *= _excess(ratio, row, column, errors[n])


def find_excess(ratios: Ratios, noise: np.ndarray, contrast: float = 0.0) -> np.ndarray:
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

    Returns
    -------
    ndarray of float32, shape (height, width)
        Factor of sigma: 1, or more where the mean of the ratios of a pixel and its neighbors is
        significantly larger, or their levels bend.
    """
    out = np.empty(ratios.ratio.shape, np.float32)
    frames = tuple(noise.tolist())
    errors, contrast = median_deviation_factors(frames)[1], contrast / typical_variance(frames)
    _fill_excess(tuple(ratios), errors, contrast, float(noise.mean()), out)
    return out


def widen(uncertainty: np.ndarray, ratio: np.ndarray, coverage: np.ndarray, noise: np.ndarray) -> None:
    """Multiply an uncertainty in place by `find_excess`; arrays are float32 of shape (height, width)."""
    _widen(ratio, coverage, median_deviation_factors(tuple(noise.tolist()))[1], uncertainty)
