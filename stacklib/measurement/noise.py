"""Noise of one plane from its multiresolution support (Starck and Murtagh 1998, PASP 110, 193).

The plane is split into four layers of detail by the à trous transform with the B3 spline. A pixel holds
structure if any layer exceeds 3 sigma. The noise is the scatter of the other pixels about the smooth rest of
the plane. Both depend on each other, so they are iterated. The transform runs in bands of rows that stay in
the cache and writes no full planes: pixels that are certainly noise are summed at once, and only those near
the threshold are kept for the iteration.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.measurement.statistics import location
from stacklib.utils.compiled import compiled

__all__ = ["Noise", "plane_noise"]

#: Standard deviation of the layers of the transform of white noise of sigma 1 (2-D, B3 spline).
LAYER_SIGMAS = (0.8907, 0.2007, 0.0856, 0.0413)
#: A pixel holds structure if a layer exceeds this many of its sigmas.
SIGNIFICANT = 3.0
#: Scatter of the non-significant pixels of white noise of sigma 1.
CLIPPED_SIGMA = 0.974
#: Standard deviation of a unit Gaussian cut at 3 sigma.
CUT_AT_3 = 0.98658

#: Smallest number of pixels to measure on.
ENOUGH = 256
#: If structure is nearly everywhere, the few pixels without it are those in which noise cancels it, and
#: their scatter is too small. Below this fraction of the pixels the fallback is better.
LEAST_FRACTION = 0.05
#: Rows of a band, whose scratch planes stay in the second- and third-level cache.
BAND = 128
#: Side of the squares in which borders without data are found, and squares left out beside them.
SQUARE, MARGIN = 16, 2
#: A square with a larger fraction of no data belongs to a border. Dead pixels are sparser.
BORDER = 1 / 8
LANES = 256
#: Maximum number of rounds; four or five are usual.
ITERATIONS = 50
#: The four layers reach 2 (1 + 2 + 4 + 8) pixels.
REACH = 30


class Noise(NamedTuple):
    """Noise of a plane.

    `sigma` is the standard deviation in the units of the plane, NaN if it cannot be measured. `fraction` is
    the fraction of the pixels with data that were used. `method` is ``multiresolution``, ``k-sigma`` (the
    fallback) or ``none``.
    """

    sigma: float
    fraction: float
    method: str


def plane_noise(plane: np.ndarray, low: float = 0.0, fill: float | None = None) -> Noise:
    """Measure the noise of a plane, float32 (height, width).

    Iterates sigma = std(image - residual) / 0.974 over the pixels where no layer exceeds 3 sigma sigma_j,
    sigma_j = .8907 .2007 .0856 .0413, to a relative change below 1e-4. If that does not converge or too few
    pixels remain, k-sigma clipping of the finest layer is used. On interpolated (registered) frames the
    pixels are correlated, and sigma is too small.

    NaN, infinite samples and those up to `low` are no data, replaced by `fill`, by default the median.
    Borders without data are left out together with 32 pixels beside them, single pixels without data by
    themselves.
    """
    plane = np.ascontiguousarray(plane, dtype=np.float32)
    low = np.float32(low)
    if fill is None:
        fill = location(plane, low, math.inf)
    if not math.isfinite(fill):
        return Noise(math.nan, 0.0, "none")
    squares, with_data = _border_squares(plane, low)
    noise = _multiresolution(plane, low, np.float32(fill), squares, with_data)
    return noise or _k_sigma(plane, low, np.float32(fill), squares)


def _border_squares(plane: np.ndarray, low: np.float32) -> tuple[np.ndarray, int]:
    """Find the squares to leave out, bool (rows, columns), and count the pixels with data."""
    empty = _count_empty(plane, low)
    with_data = plane.size - int(empty.sum())
    bad = empty > BORDER * SQUARE * SQUARE
    grown = np.zeros_like(bad)
    rows, columns = bad.shape
    for dy in range(-MARGIN, MARGIN + 1):
        for dx in range(-MARGIN, MARGIN + 1):
            target = grown[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)]
            target |= bad[max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : columns + min(-dx, 0)]
    # If the margin would leave next to nothing, single pixels are left out instead.
    if np.count_nonzero(~grown) * SQUARE * SQUARE < max(4 * ENOUGH, with_data // 8):
        grown[:] = False
    return grown, with_data


def _multiresolution(plane, low, fill, squares, with_data) -> Noise | None:
    sigma = _first_guess(plane, low, fill, squares)
    if sigma == 0:
        return None
    for _ in range(8):
        # Only pixels whose verdict depends on a sigma in this range are examined again.
        least, most = 0.75 * sigma, 1.15 * sigma
        inverse = np.array([1.0 / s for s in LAYER_SIGMAS], dtype=np.float32)
        sums, peaks, details = _transform(
            plane,
            low,
            fill,
            squares,
            inverse,
            np.float32(SIGNIFICANT * least),
            np.float32(SIGNIFICANT * most),
        )
        for turn in range(ITERATIONS):
            count, total, squared = _with_kept(sums, peaks, details, SIGNIFICANT * sigma)
            if count < max(ENOUGH, LEAST_FRACTION * with_data):
                return None
            previous = sigma
            sigma = _deviation(count, total, squared) / CLIPPED_SIGMA
            if sigma == 0:
                return None
            if abs(sigma - previous) < 1e-4 * previous:
                return Noise(sigma, count / with_data, "multiresolution")
            if turn >= ITERATIONS // 5:
                # A few pixels alternate: settle in the middle.
                sigma = (sigma + previous) / 2
            if not least <= sigma <= most:
                break
    return None


def _first_guess(plane, low, fill, squares) -> float:
    """Estimate the noise from the median deviation of the finest layer in some rows."""
    detail = _finest(plane, low, fill, squares, max(1, plane.shape[0] // 64))
    if detail.size == 0:
        return 0.0
    middle = detail.size // 2
    return 1.4826 * float(np.partition(np.abs(detail), middle)[middle]) / LAYER_SIGMAS[0]


def _k_sigma(plane, low, fill, squares) -> Noise:
    """Measure the noise in the finest layer, with structure clipped at 3 sigma."""
    detail = _finest(plane, low, fill, squares, 1)
    if detail.size < 2:
        return Noise(math.nan, 0.0, "none")
    nothing, peaks = np.zeros(3), np.abs(detail)
    sigma = _deviation(*_with_kept(nothing, peaks, detail, math.inf))
    count = detail.size
    for _ in range(ITERATIONS):
        count, total, squared = _with_kept(nothing, peaks, detail, SIGNIFICANT * sigma)
        if count < 2:
            break
        previous, sigma = sigma, _deviation(count, total, squared) / CUT_AT_3
        if abs(sigma - previous) <= 1e-4 * previous:
            break
    return Noise(sigma / LAYER_SIGMAS[0], count / detail.size, "k-sigma")


def _deviation(count: float, total: float, squared: float) -> float:
    """Return the standard deviation (n - 1) from count, sum and sum of squares."""
    return math.sqrt(max(squared - total * total / count, 0.0) / (count - 1))


def _finest(plane, low, fill, squares, step: int) -> np.ndarray:
    """Return the finest layer of every `step`-th row, float32 1-D, pixels with data only."""
    height, width = plane.shape
    rows = np.arange(step // 2, height, step)
    detail = np.empty(rows.size * width, dtype=np.float32)
    size = _finest_rows(plane, low, fill, squares, rows, detail)
    return detail[:size]


@compiled
def _count_empty(plane, low):
    """Count the pixels without data in each square, int64 (rows, columns)."""
    height, width = plane.shape
    empty = np.zeros(((height + SQUARE - 1) // SQUARE, (width + SQUARE - 1) // SQUARE), np.int64)
    flags = np.empty(width, np.uint8)
    infinity = np.float32(np.inf)
    for y in range(height):
        row = plane[y]
        found = 0
        for x in range(width):
            flags[x] = not ((row[x] > low) & (row[x] < infinity))
        for x in range(width):
            found += flags[x]
        if found:
            for x in range(width):
                empty[y // SQUARE, x // SQUARE] += flags[x]
    return empty


@compiled
def _reflect(i, size):
    """Mirror an index into 0 .. size - 1."""
    while i < 0 or i >= size:
        i = -i if i < 0 else 2 * (size - 1) - i
        if size == 1:
            return 0
    return i


@compiled
def _smooth_row(source, first, y, height, step, padded, out):
    """Smooth one row by the B3 spline with holes; `source` starts at row `first`."""
    width = out.size
    a = source[_reflect(y - 2 * step, height) - first]
    b = source[_reflect(y - step, height) - first]
    c = source[y - first]
    d = source[_reflect(y + step, height) - first]
    e = source[_reflect(y + 2 * step, height) - first]
    reach = 2 * step
    middle = padded[reach : reach + width]
    for x in range(width):
        middle[x] = (
            (a[x] + e[x]) * np.float32(0.0625) + (b[x] + d[x]) * np.float32(0.25) + c[x] * np.float32(0.375)
        )
    for x in range(reach):
        padded[x] = middle[_reflect(x - reach, width)]
        padded[reach + width + x] = middle[_reflect(width + x, width)]
    left, right = padded[step : step + width], padded[3 * step : 3 * step + width]
    far_left, far_right = padded[:width], padded[4 * step : 4 * step + width]
    for x in range(width):
        out[x] = (
            (far_left[x] + far_right[x]) * np.float32(0.0625)
            + (left[x] + right[x]) * np.float32(0.25)
            + middle[x] * np.float32(0.375)
        )


@compiled
def _fill_row(row, low, fill, border, image, peak):
    """Copy a row with `fill` for no data; `peak` is infinite where a pixel is left out, else 0."""
    infinity = np.float32(np.inf)
    for x in range(row.size):
        data = (row[x] > low) & (row[x] < infinity)
        image[x] = row[x] if data else fill
        peak[x] = np.float32(0.0) if data else infinity
    for square in range(border.size):
        if border[square]:
            peak[square * SQUARE : (square + 1) * SQUARE] = infinity


@compiled
def _finest_rows(plane, low, fill, squares, rows, detail):
    """Write the finest layer of `rows` to `detail`, pixels with data only; returns their number."""
    height, width = plane.shape
    five = np.empty((5, width), np.float32)
    peak = np.empty((5, width), np.float32)
    smooth = np.empty((1, width), np.float32)
    padded = np.empty(width + 4, np.float32)
    # Not literal numbers, for which the functions below would be compiled again.
    start, middle, one, size = np.int64(0), np.int64(2), np.int64(1), np.int64(0)
    for y in rows:
        for k in range(5):
            source = _reflect(y + k - 2, height)
            _fill_row(plane[source], low, fill, squares[source // SQUARE], five[k], peak[k])
        # The five rows are an image of their own whose middle row needs no mirror.
        _smooth_row(five, start, middle, middle + 3, one, padded, smooth[0])
        for x in range(width):
            if peak[2, x] == 0:
                detail[size] = five[2, x] - smooth[0, x]
                size += 1
    return size


@compiled
def _transform(plane, low, fill, squares, inverse, sure, never):
    """Transform a plane, and find the detail of the pixels that hold no structure.

    The peak of a pixel is its largest layer in units of sigma_j, its detail the image minus the residual.
    Returns count, sum and sum of squares of the details with a peak up to `sure`, float64 (3,), and the peaks
    and details, float32, with a peak between `sure` and `never`.
    """
    height, width = plane.shape
    rows = min(height, BAND + 2 * REACH)
    image = np.empty((rows, width), np.float32)
    peak = np.empty((rows, width), np.float32)
    scratch = np.empty((2, rows, width), np.float32)
    padded = np.empty(width + 4 * 8, np.float32)
    detail = np.empty(width, np.float32)
    flags = np.empty(width, np.uint8)
    lanes = np.zeros((2, LANES))
    count = 0
    size = np.int64(0)
    peaks = np.empty(plane.size + 1, np.float32)
    details = np.empty(plane.size + 1, np.float32)
    size = 0
    for start in range(0, height, BAND):
        stop = min(start + BAND, height)
        first = max(start - REACH, 0)
        for y in range(first, min(stop + REACH, height)):
            _fill_row(plane[y], low, fill, squares[y // SQUARE], image[y - first], peak[y - first])
        source = image
        reach, step = REACH, np.int64(1)
        for layer in range(4):
            reach -= 2 * step
            target = scratch[layer % 2]
            for y in range(max(start - reach, 0), min(stop + reach, height)):
                _smooth_row(source, first, y, height, step, padded, target[y - first])
                if start <= y < stop:
                    _raise_peak(source[y - first], target[y - first], inverse[layer], peak[y - first])
            source = target
            step *= 2
        for y in range(start, stop):
            a, b, p = image[y - first], source[y - first], peak[y - first]
            row = _Row(a, b, p)
            count += _sum_row(row, sure, lanes, detail)
            size = _keep_row(row, sure, never, flags, peaks, details, size)
    sums = np.zeros(3)
    sums[0] = count
    for k in range(2):
        for i in range(LANES):
            sums[k + 1] += lanes[k, i]
    return sums, peaks[:size].copy(), details[:size].copy()


@compiled
def _raise_peak(source, target, inverse, peak):
    for x in range(peak.size):
        w = abs(source[x] - target[x]) * inverse
        peak[x] = w if w > peak[x] else peak[x]


class _Row(NamedTuple):
    """One row: the image, its smooth rest, and the largest layer of each pixel in units of sigma_j."""

    image: np.ndarray
    residual: np.ndarray
    peak: np.ndarray


@compiled
def _sum_row(row, sure, lanes, detail):
    """Add the sure pixels of a row to the sums and return their number. `detail` is scratch of a row."""
    image, residual, peak = row
    totals, squares = lanes
    width = image.size
    count = np.int32(0)
    # Short loops with few operands, which the compiler vectorizes.
    for x in range(width):
        d = image[x] - residual[x]
        detail[x] = d if peak[x] <= sure else np.float32(0.0)
    for x in range(width):
        count = np.int32(count + np.int32(peak[x] <= sure))
    for start in range(0, width, LANES):
        part = detail[start : min(start + LANES, width)]
        for i in range(part.size):
            d = np.float64(part[i])
            totals[i] += d
            squares[i] += d * d
    return count


@compiled
def _keep_row(row, sure, never, flags, peaks, details, size):
    """Append the undecided pixels of a row and return the new size. `flags` is scratch of a row."""
    image, residual, peak = row
    for x in range(image.size):
        flags[x] = (peak[x] > sure) & (peak[x] <= never)
    for x in range(image.size):
        # No branch to mispredict: always written, kept only where undecided.
        peaks[size] = peak[x]
        details[size] = image[x] - residual[x]
        size += flags[x]
    return size


@compiled
def _with_kept(sums, peaks, details, limit):
    """Add the kept pixels with a peak up to `limit` to the three sums."""
    count, total, squared = sums
    for i in range(peaks.size):
        if peaks[i] <= limit:
            d = np.float64(details[i])
            count += 1.0
            total += d
            squared += d * d
    return count, total, squared
