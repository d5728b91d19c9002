"""Count the pixels of a mask in a disc around each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stacklib.utils.compiled import any_of, compiled

__all__ = ["grow", "half_widths", "reached"]


@compiled
def _mirrored(i, size):
    """Return the index that a place beyond an edge mirrors."""
    while i < 0 or i >= size:
        i = -1 - i if i < 0 else 2 * size - 1 - i
    return i


@compiled
def _totals(row, reach, total):
    """Fill the running total of a row that is mirrored at both ends, with 0 in front.

    It overflows: only its differences count, and they do not.
    """
    width = row.size
    total[0] = 0
    for x in range(-reach, width + reach):
        here = row[x] if 0 <= x < width else row[_mirrored(x, width)]
        total[x + reach + 1] = total[x + reach] + (1 if here else 0)


@compiled
def _reached(mask, halves, least, out):
    """Write where the mask has so many pixels in one of the discs, given as half widths of their rows."""
    height, width = mask.shape
    reach = halves.shape[1] // 2
    rows = 2 * reach + 1
    # The rows of the discs about one row, in turn.
    totals = np.zeros((rows, width + 2 * reach + 1), np.uint16)
    filled = np.zeros(rows, np.bool_)
    count = np.empty(width, np.uint16)
    for y in range(-reach, height + reach):
        place = (y + reach) % rows
        source = mask[_mirrored(y, height)]
        filled[place] = any_of(source)
        if filled[place]:
            _totals(source, reach, totals[place])
        middle = y - reach
        if middle < 0:
            continue
        out[middle] = False
        if not any_of(filled):
            continue
        for k in range(halves.shape[0]):
            count[:] = 0
            for j in range(rows):
                place, half = (middle + j) % rows, halves[k, j]
                if half < 0 or not filled[place]:
                    continue
                after = totals[place, reach + half + 1 : reach + half + 1 + width]
                before = totals[place, reach - half : reach - half + width]
                for x in range(width):
                    count[x] += after[x] - before[x]
            for x in range(width):
                out[middle, x] |= count[x] >= least[k]


def half_widths(radius: float, reach: int) -> np.ndarray:
    """Return the half widths of the rows of a disc, from `reach` above its middle to below; -1 for none.

    The disc has the pixels whose distance from the middle is at most `radius`.
    """
    room = [radius**2 - dy**2 for dy in range(-reach, reach + 1)]
    return np.array([math.floor(math.sqrt(left)) if left >= 0 else -1 for left in room])


def reached(mask: np.ndarray, radii: Sequence[float], share: float) -> np.ndarray:
    """Find where a mask has more than a share of the pixels of a disc, for at least one of the discs.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        The mask. It is mirrored at its edges.
    radii : sequence of float
        Radii of the discs in pixels, up to 100: pixels whose distance from the middle is at most that.
    share : float
        From 0 to 1. With 0 one pixel is enough, with .5 it takes the majority.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    reach = max(math.floor(radius) for radius in radii)
    halves = np.array([half_widths(radius, reach) for radius in radii])
    areas = np.where(halves >= 0, 2 * halves + 1, 0).sum(axis=1)
    least = np.floor(share * areas).astype(np.uint16) + np.uint16(1)
    out = np.empty(mask.shape, np.bool_)
    _reached(np.ascontiguousarray(mask, dtype=np.bool_), halves, least, out)
    return out


def grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """Grow a mask by a disc of diameter ``2 * radius + 1``.

    Parameters
    ----------
    mask : ndarray of bool, shape (height, width)
        The mask.
    radius : int
        Pixels to grow by, up to 99. 0 changes nothing.

    Returns
    -------
    ndarray of bool, shape (height, width)

    Examples
    --------
    >>> grow(np.eye(1, 7, 3, dtype=bool), 2).astype(int)
    array([[0, 1, 1, 1, 1, 1, 0]])
    """
    return reached(mask, [radius + 0.5], 0.0) if radius else mask
