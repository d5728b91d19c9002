"""Bins of a residual, without the smooth part of it: what the finders of trails start from.

A residual is a frame minus the mean of the others, in units of its noise. What is left of gradients, of the
halos of bright stars and of galaxies is smooth; a trail is narrow. So the mean of large blocks is taken out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled, larger, smaller

__all__ = ["Binned", "bin_residual", "robust_spread"]

#: Side of the blocks whose means are the smooth part, in pixels. Samples are cut at this many sigma in them.
BLOCK, BLOCK_CUT = 64, 3.0
#: A block needs this fraction of its pixels for a mean of its own.
FILLED = 0.2
#: Number of values that a median is taken of: its error is .25 %.
ENOUGH = 1 << 18
#: Sigma of Gaussian samples in median absolute deviations.
SIGMA = 1.4826


class Binned(NamedTuple):
    """Sums of a residual in square bins, and the number of pixels in each sum, float32 (rows, columns)."""

    total: np.ndarray
    number: np.ndarray


@compiled
def _sum_blocks(z, protected, total, count):
    width = z.shape[1]
    low, high = np.float32(-BLOCK_CUT), np.float32(BLOCK_CUT)
    for y in range(z.shape[0]):
        row, spared = z[y], protected[y]
        for k in range(total.shape[1]):
            part, n = np.float32(0.0), 0
            for x in range(k * BLOCK, min(width, (k + 1) * BLOCK)):
                if row[x] == row[x] and not spared[x]:
                    part += smaller(larger(row[x], low), high)
                    n += 1
            total[y // BLOCK, k] += part
            count[y // BLOCK, k] += n


def _smooth_part(z: np.ndarray, protected: np.ndarray) -> np.ndarray:
    """Return the means of blocks, float32. Blocks without data take those of their neighbors."""
    shape = tuple(-(-size // BLOCK) for size in z.shape)
    total, count = np.zeros(shape), np.zeros(shape, np.int64)
    _sum_blocks(z, protected, total, count)
    known = count >= FILLED * BLOCK**2
    mesh = np.where(known, total / np.maximum(count, 1), 0.0)
    while known.any() and not known.all():
        sums, numbers = _sum_around(mesh * known), _sum_around(known.astype(float))
        new = ~known & (numbers > 0)
        mesh[new] = sums[new] / numbers[new]
        known |= new
    return mesh.astype(np.float32)


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
def _fill_bins(z, protected, mesh, side, cut, total, count):
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
    mesh = _smooth_part(z, protected)
    shape = tuple(-(-size // side) for size in z.shape)
    binned = Binned(np.empty(shape, np.float32), np.empty(shape, np.float32))
    _fill_bins(z, protected, mesh, side, np.float32(cut), *binned)
    return binned


def robust_spread(values: np.ndarray) -> float:
    """Return sigma by the median absolute deviation of some of the values, 0 for none."""
    values = values.ravel()
    if not values.size:
        return 0.0
    values = values[:: -(-values.size // ENOUGH)]
    return SIGMA * float(np.median(np.abs(values - np.median(values))))
