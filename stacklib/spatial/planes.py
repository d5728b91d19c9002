"""Bins of a residual, without the smooth part of it: what the finders of trails start from.

A residual is a frame minus the mean of the others, in units of its noise. What is left of gradients, of the
halos of bright stars and of galaxies is smooth; a trail is narrow. So a surface through the whole frame and
the means of large blocks above it are taken out. The means alone, which know nothing of slopes, leave the
rest of a gradient at the edges of the frame, where it looks like a trail.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled, larger, smaller
from stacklib.utils.ranks import median_of

__all__ = ["Binned", "bin_residual", "robust_spread", "some_of", "trend_at"]

#: Side of the blocks whose means are the smooth part, in pixels. Samples are cut at this many sigma in them.
BLOCK, BLOCK_CUT = 64, 3.0
#: A block needs this fraction of its pixels for a mean of its own.
FILLED = 0.2
#: The trend is fitted to the medians of every so many pixels of each row and column, in so many rounds; they
#: spread by at least so many sigma.
EVERY, ROUNDS, LEAST_SPREAD = 4, 6, 0.05
#: Blocks that a constant, a plane and a quadratic surface need.
BLOCKS = (0, 6, 12)
#: Number of values that a median is taken of: its error is .25 %.
ENOUGH = 1 << 18
#: Sigma of Gaussian samples in median absolute deviations.
SIGMA = 1.4826


class Binned(NamedTuple):
    """Sums of a residual in square bins, and the number of pixels in each sum, float32 (rows, columns).

    `trend` is the surface through the whole frame that was taken out, see `trend_at`.
    """

    total: np.ndarray
    number: np.ndarray
    trend: np.ndarray


@compiled
def _some_medians(z, protected, medians):
    """Write the medians of some of the pixels of each block, NaN for too few."""
    height, width = z.shape
    values = np.empty((BLOCK // EVERY) ** 2, np.float32)
    for j in range(medians.shape[0]):
        for k in range(medians.shape[1]):
            n = 0
            for y in range(j * BLOCK + EVERY // 2, min(height, (j + 1) * BLOCK), EVERY):
                for x in range(k * BLOCK + EVERY // 2, min(width, (k + 1) * BLOCK), EVERY):
                    if z[y, x] == z[y, x] and not protected[y, x]:
                        values[n] = z[y, x]
                        n += 1
            medians[j, k] = median_of(values[:n]) if n >= FILLED * values.size else np.nan


@compiled
def _sum_blocks(z, protected, trend, total, count):
    """Sum the samples of each block above the trend, cut."""
    width = z.shape[1]
    low, high = np.float32(-BLOCK_CUT), np.float32(BLOCK_CUT)
    for y in range(z.shape[0]):
        row, spared = z[y], protected[y]
        for k in range(total.shape[1]):
            part, n, level = np.float32(0.0), 0, trend[y // BLOCK, k]
            for x in range(k * BLOCK, min(width, (k + 1) * BLOCK)):
                if row[x] == row[x] and not spared[x]:
                    part += smaller(larger(row[x] - level, low), high)
                    n += 1
            total[y // BLOCK, k] += part
            count[y // BLOCK, k] += n


def _smooth_part(z: np.ndarray, protected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the trend of a frame, see `_trend`, and the means of blocks above it, float32.

    Blocks without data take those of their neighbors.
    """
    shape = tuple(-(-size // BLOCK) for size in z.shape)
    medians = np.empty(shape)
    _some_medians(z, protected, medians)
    trend = _trend(medians, z.shape)
    total, count = np.zeros(shape), np.zeros(shape, np.int64)
    _sum_blocks(z, protected, _at_middles(trend, z.shape), total, count)
    known = count >= FILLED * BLOCK**2
    mesh = np.where(known, total / np.maximum(count, 1), 0.0)
    while known.any() and not known.all():
        sums, numbers = _sum_around(mesh * known), _sum_around(known.astype(float))
        new = ~known & (numbers > 0)
        mesh[new] = sums[new] / numbers[new]
        known |= new
    return trend, mesh.astype(np.float32)


def _trend(medians: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fit a surface to the medians of blocks, NaN for unknown, of a frame of a shape.

    It is quadratic, for what the Moon or the lights of a town leave, and simpler in small frames. Returns the
    factors of ``x**i * y**j``, float64 (3, 3), where x and y are from -1 to 1.
    """
    known = np.isfinite(medians)
    degree = max(d for d in range(3) if min(medians.shape) > d and known.sum() >= BLOCKS[d])
    trend = np.zeros((3, 3))
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    y, x = map(_middles, shape)
    terms = np.stack([np.multiply.outer(y**j, x**i)[known] for i, j in powers], axis=-1)
    values = medians[known]
    weight = np.ones(values.size)
    for _ in range(ROUNDS if values.size else 0):
        # Blocks in galaxies and halos are off, and count the less the more they are.
        fit = np.linalg.lstsq(terms * weight[:, np.newaxis], values * weight, rcond=None)[0]
        off = values - terms @ fit
        spread = max(SIGMA * float(np.median(np.abs(off))), LEAST_SPREAD)
        weight = 1 / np.sqrt(1 + (off / (2 * spread)) ** 2)
        trend[tuple(np.transpose(powers))] = fit
    return trend


def _middles(size: int) -> np.ndarray:
    """Return the middles of the blocks along an axis, from -1 to 1."""
    starts = np.arange(0, size, BLOCK)
    return (starts + np.minimum(starts + BLOCK, size)) / size - 1


def _at_middles(trend: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a trend in the middles of the blocks, float32."""
    y, x = map(_middles, shape)
    return np.polynomial.polynomial.polygrid2d(x, y, trend).T.astype(np.float32)


def _sum_around(array: np.ndarray) -> np.ndarray:
    """Return the sums over 3 x 3 elements."""
    rows = np.pad(array, 1)
    rows = rows[:-2] + rows[1:-1] + rows[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]


@compiled
def _between(place, size):
    """Return the node before a place and the share of the next one, to interpolate between `size` nodes."""
    inside = min(max((place + 0.5) / BLOCK - 0.5, 0.0), size - 1.0)
    before = min(int(inside), max(size - 2, 0))
    return before, np.float32(inside - before)


@compiled
def trend_at(trend, x, y, height, width):
    """Return a trend at a pixel of a frame of this height and width."""
    u, v = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
    constant = trend[0, 0] + v * (trend[0, 1] + v * trend[0, 2])
    slope = trend[1, 0] + v * (trend[1, 1] + v * trend[1, 2])
    bend = trend[2, 0] + v * (trend[2, 1] + v * trend[2, 2])
    return constant + u * (slope + u * bend)


@compiled
def _fill_bins(z, protected, trend, mesh, side, cut, total, count):
    height, width = z.shape
    down, across = mesh.shape
    nodes, level = np.empty(across, np.float32), np.empty(width, np.float32)
    before, share = np.empty(width, np.int64), np.empty(width, np.float32)
    sums, numbers = np.empty(width, np.float32), np.empty(width, np.float32)
    zero, one, low = np.float32(0.0), np.float32(1.0), -cut
    for x in range(width):
        before[x], share[x] = _between(x, across)
    for r in range(total.shape[0]):
        above, part = _between(r * side + 0.5 * (side - 1), down)
        for k in range(across):
            nodes[k] = (one - part) * mesh[above, k] + part * mesh[min(above + 1, down - 1), k]
        for x in range(width):
            k = before[x]
            level[x] = (one - share[x]) * nodes[k] + share[x] * nodes[min(k + 1, across - 1)]
        for x in range(width):
            level[x] += np.float32(trend_at(trend, x, r * side + 0.5 * (side - 1), height, width))
        sums[:] = zero
        numbers[:] = zero
        for y in range(r * side, min(height, (r + 1) * side)):
            row, spared = z[y], protected[y]
            for x in range(width):
                v = row[x] - level[x]
                good = (v == v) & (not spared[x])
                sums[x] += smaller(larger(v, low), cut) if good else zero
                numbers[x] += one if good else zero
        for k in range(total.shape[1]):
            s, n = zero, zero
            for x in range(k * side, min(width, (k + 1) * side)):
                s += sums[x]
                n += numbers[x]
            total[r, k], count[r, k] = s, n


def bin_residual(z: np.ndarray, protected: np.ndarray, side: int, cut: float) -> Binned:
    """Sum a residual in square bins, without its smooth part.

    Parameters
    ----------
    z : ndarray of float32, shape (height, width)
        Residual in units of its noise, NaN for no data.
    protected : ndarray of bool, shape (height, width)
        Pixels that are left out.
    side : int
        Side of the bins in pixels. The last ones of a row or column may be smaller.
    cut : float
        Samples beyond this many sigma are moved there.

    Returns
    -------
    Binned
        Of shape (ceil(height / side), ceil(width / side)).
    """
    trend, mesh = _smooth_part(z, protected)
    shape = tuple(-(-size // side) for size in z.shape)
    total, number = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _fill_bins(z, protected, trend, mesh, side, np.float32(cut), total, number)
    return Binned(total, number, trend)


def some_of(values: np.ndarray) -> np.ndarray:
    """Return values of a row at equal steps, as many as a median needs."""
    return values[:: max(1, -(-values.size // ENOUGH))]


def robust_spread(values: np.ndarray) -> float:
    """Return sigma by the median absolute deviation of some of the values, 0 for none."""
    values = some_of(values.ravel())
    if not values.size:
        return 0.0
    values = np.ascontiguousarray(values, dtype=np.float32)
    return SIGMA * float(median_of(np.abs(values - np.float32(median_of(values)))))
