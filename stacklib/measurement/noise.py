"""Noise of one plane from its multiresolution support (Starck and Murtagh 1998, PASP 110, 193).

The plane is split into four layers of detail by the à trous transform with the B3 spline. A pixel holds
structure if any layer exceeds 3 sigma. The noise is the scatter of the other pixels about the smooth rest of
the plane. Both depend on each other, so they are iterated: pixels that are certainly noise are summed at
once, and only those near the threshold are kept for the iteration.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.measurement.noise_layers import SQUARE, count_empty, finest_rows, transform_part
from stacklib.measurement.statistics import location
from stacklib.utils.compiled import compiled
from stacklib.utils.resources import by_parts

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
#: Rows and columns of a part of the plane, and squares left out beside those of a border.
PART, MARGIN = (512, 1024), 2
#: A square with a larger fraction of no data belongs to a border. Dead pixels are sparser.
BORDER = 1 / 8
#: Sums use this many interleaved accumulators.
LANES = 64
#: Squares of samples of less noise may be too small for float32.
LEAST_SIGMA = 2.0**-40
#: Maximum number of rounds; four or five are usual.
ITERATIONS = 50


class Noise(NamedTuple):
    """Noise of a plane.

    `sigma` is the standard deviation in the units of the plane, NaN if it cannot be measured. `fraction` is
    the fraction of the pixels with data that were used. `method` is ``multiresolution``, ``k-sigma`` (the
    fallback) or ``none``.
    """

    sigma: float
    fraction: float
    method: str


def plane_noise(plane: np.ndarray, low: float = 0.0, fill: float | None = None, threads: int = 1) -> Noise:
    """Measure the noise of a plane, float32 (height, width).

    Iterates sigma = std(image - residual) / 0.974 over the pixels where no layer exceeds 3 sigma sigma_j,
    sigma_j = .8907 .2007 .0856 .0413, to a relative change below 1e-4. If that does not converge or too few
    pixels remain, k-sigma clipping of the finest layer is used. On interpolated (registered) frames the
    pixels are correlated, and sigma is too small.

    NaN, infinite samples and those up to `low` are no data, replaced by `fill`, by default the median.
    Borders without data are left out together with 32 pixels beside them, single pixels without data by
    themselves. The result does not depend on `threads`.
    """
    plane = np.ascontiguousarray(plane, dtype=np.float32)
    low = np.float32(low)
    if fill is None:
        fill = location(plane, low, math.inf)
    if not math.isfinite(fill):
        return Noise(math.nan, 0.0, "none")
    noise = _noise(plane, low, np.float32(fill), threads)
    if 0 < noise.sigma < LEAST_SIGMA:
        # In units in which the squares of the samples are too small for float32. A power of two is exact.
        power = math.frexp(noise.sigma)[1]
        noise = _noise(*(np.ldexp(each, -power) for each in (plane, low, np.float32(fill))), threads)
        noise = noise._replace(sigma=math.ldexp(noise.sigma, power))
    return noise


def _noise(plane: np.ndarray, low: np.float32, fill: np.float32, threads: int) -> Noise:
    squares, with_data = _border_squares(plane, low)
    noise = _multiresolution(plane, low, fill, squares, with_data, threads)
    return noise or _k_sigma(plane, low, fill, squares)


def _border_squares(plane: np.ndarray, low: np.float32) -> tuple[np.ndarray, int]:
    """Find the squares to leave out, bool (rows, columns), and count the pixels with data."""
    empty = count_empty(plane, low)
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


def _multiresolution(plane, low, fill, squares, with_data, threads) -> Noise | None:
    sigma = _first_guess(plane, low, fill, squares)
    if sigma == 0:
        return None
    for _ in range(8):
        # Only pixels whose verdict depends on a sigma in this range are examined again.
        least, most = 0.8 * sigma, 1.1 * sigma
        limits = np.float32(SIGNIFICANT * least), np.float32(SIGNIFICANT * most)
        sums, peaks, details = _transform(plane, low, fill, squares, limits, threads)
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


def _transform(plane, low, fill, squares, limits, threads) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `transform_part` finds in all parts of a plane together."""
    height, width = plane.shape
    inverse = tuple(np.float32(1.0 / sigma) for sigma in LAYER_SIGMAS)
    places = [
        ((top, min(top + PART[0], height)), (left, min(left + PART[1], width)))
        for top in range(0, height, PART[0])
        for left in range(0, width, PART[1])
    ]

    def work(start: int, stop: int) -> list[tuple[np.ndarray, ...]]:
        return [transform_part(plane, low, fill, squares, inverse, limits, *at) for at in places[start:stop]]

    found = [part for several in by_parts(work, len(places), threads) for part in several]
    sums, peaks, details = zip(*found, strict=True)
    return np.sum(sums, axis=0), np.concatenate(peaks), np.concatenate(details)


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
    size = finest_rows(plane, low, fill, squares, rows, detail)
    return detail[:size]


@compiled
def _with_kept(sums, peaks, details, limit):
    """Add the kept pixels with a peak up to `limit` to the three sums."""
    found = np.zeros(3 * LANES)
    for start in range(0, peaks.size, LANES):
        peak, detail = peaks[start : start + LANES], details[start : start + LANES]
        for i in range(peak.size):
            kept = peak[i] <= limit
            d = np.float64(detail[i]) if kept else 0.0
            found[i] += 1.0 if kept else 0.0
            found[LANES + i] += d
            found[2 * LANES + i] += d * d
    count, total, squared = sums
    for i in range(LANES):
        count += found[i]
        total += found[LANES + i]
        squared += found[2 * LANES + i]
    return count, total, squared
