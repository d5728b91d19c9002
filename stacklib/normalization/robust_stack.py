"""Stack some planes robustly, band by band."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stacklib.utils.compiled import compiled

__all__ = ["clipped_mean", "median_stack"]

#: Bytes of the samples of a band.
BAND_BYTES = 24 << 20
#: Samples farther from the median than this many sigma are clipped.
CLIP = 4.0

#: Returns rows of one of the planes, matched with the others: number of the plane, first and last row.
Rows = Callable[[int, int, int], np.ndarray]


def median_stack(rows: Rows, count: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the median of `count` planes in each pixel.

    Parameters
    ----------
    rows : callable
        ``rows(k, start, stop)`` returns rows of plane k, float32 of shape (rows, width), NaN for no data.
    count : int
        Number of planes.
    shape : tuple of int
        Height and width.

    Returns
    -------
    ndarray of float32, shape (height, width)
        NaN where no plane has data.
    """
    return _stack(rows, count, shape, np.inf)


def clipped_mean(rows: Rows, noise: Sequence[float], shape: tuple[int, int]) -> np.ndarray:
    """Return the mean of planes in each pixel, without samples beyond 4 sigma of the median.

    Parameters
    ----------
    rows : callable
        As for `median_stack`.
    noise : sequence of float
        Noise of each plane. Where the planes differ more in a pixel, as in the cores of stars, sigma is their
        median absolute deviation.
    shape : tuple of int
        Height and width.

    Returns
    -------
    ndarray of float32, shape (height, width)
        NaN where no plane has data.
    """
    return _stack(rows, len(noise), shape, np.asarray(noise, np.float64))


def _stack(rows: Rows, count: int, shape: tuple[int, int], noise: np.ndarray | float) -> np.ndarray:
    height, width = shape
    out = np.empty(shape, np.float32)
    step = max(1, BAND_BYTES // (4 * count * width))
    noise = np.broadcast_to(noise, (count,)).astype(np.float32)
    for start in range(0, height, step):
        stop = min(start + step, height)
        values = np.stack([rows(k, start, stop) for k in range(count)])
        _combine(values, noise, out[start:stop])
    return out


@compiled
def _combine(values, noise, out):
    """Take the mean of what is near the median of each pixel; the median itself if the noise is infinite."""
    count, height, width = values.shape
    some = np.empty(count, np.float32)
    for r in range(height):
        for c in range(width):
            n = 0
            for k in range(count):
                value = values[k, r, c]
                if value == value:
                    # Insert it in order: there are few.
                    j = n
                    while j > 0 and some[j - 1] > value:
                        some[j] = some[j - 1]
                        j -= 1
                    some[j] = value
                    n += 1
            if n == 0:
                out[r, c] = np.nan
                continue
            middle = np.float32(0.5) * (some[(n - 1) // 2] + some[n // 2])
            if noise[0] == np.inf:
                out[r, c] = middle
                continue
            # The median deviation: the nearest half of the samples lies within it.
            low, high = 0, n - 1
            while high - low + 1 > n // 2 + 1:
                if middle - some[low] > some[high] - middle:
                    low += 1
                else:
                    high -= 1
            spread = np.float32(1.4826) * max(middle - some[low], some[high] - middle)
            total, kept = 0.0, 0
            for k in range(count):
                value = values[k, r, c]
                if abs(value - middle) <= CLIP * max(noise[k], spread):
                    total += value
                    kept += 1
            out[r, c] = total / kept
