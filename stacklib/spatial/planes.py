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

__all__ = ["Binned", "Smooth", "bin_residual", "robust_spread", "smooth_part", "some_places", "trend_at"]

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


class Smooth(NamedTuple):
    """The smooth part of a residual.

    `trend` is a surface through the whole frame: the factors of ``x**i * y**j``, float64 (3, 3), where x and
    y are from -1 to 1. `mesh` are the means of blocks above it, float32 (rows, columns).
    """

    trend: np.ndarray
    mesh: np.ndarray


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
def _add_row(row, spared, level, cut, sums, numbers):
    """Add the samples of a row above a level, cut, and their number, column by column."""
    zero, one, low = np.float32(0.0), np.float32(1.0), -cut
    for x in range(row.size):
        v = row[x] - level[x]
        good = (v == v) & (not spared[x])
        sums[x] += smaller(larger(v, low), cut) if good else zero
        numbers[x] += one if good else zero


@compiled
def _sum_blocks(z, protected, trend, total, count):
    """Sum the samples of each block above the trend, cut."""
    height, width = z.shape
    level = np.empty(width, np.float32)
    sums, numbers = np.empty(width, np.float32), np.empty(width, np.float32)
    for j in range(total.shape[0]):
        for x in range(width):
            level[x] = trend[j, x // BLOCK]
        sums[:] = numbers[:] = np.float32(0.0)
        for y in range(j * BLOCK, min(height, (j + 1) * BLOCK)):
            _add_row(z[y], protected[y], level, np.float32(BLOCK_CUT), sums, numbers)
        for k in range(total.shape[1]):
            part = slice(k * BLOCK, min(width, (k + 1) * BLOCK))
            total[j, k], count[j, k] = sums[part].sum(), numbers[part].sum()


def smooth_part(z: np.ndarray, protected: np.ndarray) -> Smooth:
    """Measure the smooth part of a residual.

    Parameters
    ----------
    z : ndarray of float32, shape (height, width)
        Residual in units of its noise, NaN for no data.
    protected : ndarray of bool, shape (height, width)
        Pixels that are left out.

    Returns
    -------
    Smooth
        Blocks without data have the mean of their neighbors.
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
    return Smooth(trend, mesh.astype(np.float32))


def _trend(medians: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fit a surface to the medians of blocks, NaN for unknown, of a frame of a shape.

    It is quadratic, for what the Moon or the lights of a town leave, and simpler in small frames. Returns
    that of `Smooth`.
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
        weighted = (terms * weight[:, np.newaxis]).T
        fit = np.linalg.lstsq(weighted @ terms, weighted @ values, rcond=None)[0]
        off = values - terms @ fit
        spread = max(SIGMA * float(np.median(np.abs(off))), LEAST_SPREAD)
        weight = 1 / (1 + (off / (2 * spread)) ** 2)
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
def _trend_of_row(trend, y, height):
    """Return the factors of 1, u and u^2 of a trend in a row, where u is the column from -1 to 1."""
    v = (2 * y + 1) / height - 1
    constant = trend[0, 0] + v * (trend[0, 1] + v * trend[0, 2])
    slope = trend[1, 0] + v * (trend[1, 1] + v * trend[1, 2])
    bend = trend[2, 0] + v * (trend[2, 1] + v * trend[2, 2])
    return constant, slope, bend


@compiled
def trend_at(trend, x, y, height, width):
    """Return a trend at a pixel of a frame of this height and width."""
    constant, slope, bend = _trend_of_row(trend, y, height)
    u = (2 * x + 1) / width - 1
    return constant + u * (slope + u * bend)


@compiled
def _sum_neighbors(values, side, out):
    """Sum every `side` values of a row, perhaps fewer at its end."""
    whole = values.size // side
    # Written out for the usual sides: the processor does not vectorize steps that it does not know.
    if side == 2:
        for k in range(whole):
            out[k] = values[2 * k] + values[2 * k + 1]
    elif side == 4:
        for k in range(whole):
            first, second = values[4 * k] + values[4 * k + 1], values[4 * k + 2] + values[4 * k + 3]
            out[k] = first + second
    for k in range(whole if side in (2, 4) else 0, out.size):
        out[k] = values[k * side : (k + 1) * side].sum()


@compiled
def _fill_bins(z, protected, trend, mesh, side, cut, total, count):
    """Sum the samples of each bin above the smooth part, cut, and count them."""
    height, width = z.shape
    down, across = mesh.shape
    nodes = np.empty(across, np.float32)
    level, share = np.empty(width, np.float32), np.empty(width, np.float32)
    sums, numbers = np.empty(width, np.float32), np.empty(width, np.float32)
    places = np.empty(width)
    # The first column between a node and the next one.
    first = np.full(across + 1, width)
    for x in range(width - 1, -1, -1):
        before, share[x] = _between(x, across)
        first[before] = x
        places[x] = (2 * x + 1) / width - 1
    one = np.float32(1.0)
    for r in range(total.shape[0]):
        middle = r * side + 0.5 * (side - 1)
        above, below = _between(middle, down)
        for k in range(across):
            nodes[k] = (one - below) * mesh[above, k] + below * mesh[min(above + 1, down - 1), k]
        constant, slope, bend = _trend_of_row(trend, middle, height)
        for k in range(across):
            here, after = nodes[k], nodes[min(k + 1, across - 1)]
            part = slice(first[k], first[k + 1])
            weight, place, line = share[part], places[part], level[part]
            for x in range(line.size):
                smooth = (one - weight[x]) * here + weight[x] * after
                line[x] = smooth + np.float32(constant + place[x] * (slope + place[x] * bend))
        sums[:] = numbers[:] = np.float32(0.0)
        for y in range(r * side, min(height, (r + 1) * side)):
            _add_row(z[y], protected[y], level, cut, sums, numbers)
        _sum_neighbors(sums, side, total[r])
        _sum_neighbors(numbers, side, count[r])


def bin_residual(
    z: np.ndarray, protected: np.ndarray, side: int, cut: float, smooth: Smooth | None = None
) -> Binned:
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
    smooth : Smooth, optional
        Its smooth part. By default it is measured.

    Returns
    -------
    Binned
        Of shape (ceil(height / side), ceil(width / side)).
    """
    trend, mesh = smooth if smooth is not None else smooth_part(z, protected)
    shape = tuple(-(-size // side) for size in z.shape)
    total, number = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _fill_bins(z, protected, trend, mesh, side, np.float32(cut), total, number)
    return Binned(total, number, trend)


def some_places(number: np.ndarray, least: float) -> np.ndarray:
    """Return places in a flat plane with at least this number, at equal steps, as many as a median needs."""
    flat = number.ravel()
    there = int(np.count_nonzero(flat >= least))
    places = np.empty(-(-there // _step(there)), np.int64)
    _take_places(flat, np.float32(least), _step(there), places)
    return places


def _step(size: int) -> int:
    """Return every which of so many values a median is taken of."""
    return max(1, -(-size // ENOUGH))


@compiled
def _take_places(flat, least, step, places):
    """Write every `step`-th place with at least a number."""
    n, ahead = 0, 0
    for i in range(flat.size):
        if flat[i] >= least:
            if ahead == 0:
                places[n] = i
                n += 1
                ahead = step
            ahead -= 1


def robust_spread(values: np.ndarray) -> float:
    """Return sigma by the median absolute deviation of some of the values, 0 for none."""
    values = values.ravel()
    values = values[:: _step(values.size)]
    if not values.size:
        return 0.0
    values = np.ascontiguousarray(values, dtype=np.float32)
    return SIGMA * float(median_of(np.abs(values - np.float32(median_of(values)))))
