"""Stack some planes robustly, band by band, many pixels at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stacklib.utils.compiled import compiled, fill_from, larger, lowest, smaller
from stacklib.utils.resources import checked_threads

__all__ = ["clipped_mean", "median_stack"]

#: Bytes of the samples of all bands that are in memory.
BAND_BYTES = 24 << 20
#: Pixels that are sorted together, one in each lane of the vector units.
LANES = 128
#: Samples farther from the median than this many sigma are clipped.
CLIP = 4.0

#: Returns rows of one of the planes, matched with the others: number of the plane, first and last row.
Rows = Callable[[int, int, int], np.ndarray]


def median_stack(rows: Rows, count: int, shape: tuple[int, int], threads: int | None = None) -> np.ndarray:
    """Return the median of `count` planes in each pixel.

    Parameters
    ----------
    rows : callable
        ``rows(k, start, stop)`` returns rows of plane k, float32 of shape (rows, width), NaN for no data.
    count : int
        Number of planes.
    shape : tuple of int
        Height and width.
    threads : int, optional
        Number of bands that are stacked at the same time. The result does not depend on it.

    Returns
    -------
    ndarray of float32, shape (height, width)
        NaN where no plane has data.
    """
    return _stack(rows, np.full(count, np.inf, np.float32), shape, threads)


def clipped_mean(
    rows: Rows, noise: Sequence[float], shape: tuple[int, int], threads: int | None = None
) -> np.ndarray:
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
    threads : int, optional
        As for `median_stack`.

    Returns
    -------
    ndarray of float32, shape (height, width)
        NaN where no plane has data.
    """
    return _stack(rows, np.asarray(noise, np.float32), shape, threads)


def _stack(rows: Rows, noise: np.ndarray, shape: tuple[int, int], threads: int | None) -> np.ndarray:
    height, width = shape
    out, threads = np.empty(shape, np.float32), checked_threads(threads)
    step = max(1, BAND_BYTES // (4 * noise.size * width * threads))

    def stack(start: int) -> None:
        stop = min(start + step, height)
        values = np.empty((noise.size, stop - start, width), np.float32)
        for k, plane in enumerate(values):
            plane[:] = rows(k, start, stop)
        _combine(values.reshape(noise.size, -1), noise, out[start:stop].reshape(-1))

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(stack, range(0, height, step)):
            pass
    return out


@compiled
def _combine(values, noise, out):
    """Take the mean of what is near the median of each pixel; the median itself if the noise is infinite."""
    count, pixels = values.shape
    own, ordered = np.empty((count, LANES), np.float32), np.empty((count, LANES), np.float32)
    n, result = np.empty(LANES, np.int64), np.empty(LANES, np.float32)
    for first in range(0, pixels, LANES):
        lanes = min(LANES, pixels - first)
        for k in range(count):
            fill_from(values[k, first : first + lanes], own[k])
            own[k, lanes:] = 0.0
        _sort(own, ordered, n)
        if lowest(n) == count:
            _combine_all(own, ordered, noise, result)
        else:
            for p in range(lanes):
                result[p] = _combine_some(own[:, p], ordered[: n[p], p], noise)
        fill_from(result[:lanes], out[first:])


@compiled
def _sort(values, ordered, n):
    """Sort the samples of each pixel, those without data last as infinity, and count the others."""
    n[:] = 0
    for k in range(values.shape[0]):
        last, new = ordered[k], values[k]
        for p in range(LANES):
            x = new[p]
            n[p] += x == x
            last[p] = x if x == x else np.float32(np.inf)
        # Insert it in order, in all pixels at the same time.
        for j in range(k):
            lower = ordered[j]
            for p in range(LANES):
                a, b = lower[p], last[p]
                lower[p] = smaller(a, b)
                last[p] = larger(a, b)


@compiled
def _combine_all(values, ordered, noise, out):
    """Combine pixels in which all planes have data."""
    count = values.shape[0]
    half = count // 2 + 1
    lower, upper = ordered[(count - 1) // 2], ordered[count // 2]
    for p in range(LANES):
        out[p] = np.float32(0.5) * (lower[p] + upper[p])
    if noise[0] == np.inf:
        return
    # The median deviation: the nearest half of the samples lies within it.
    spread = np.full(LANES, np.float32(np.inf))
    for i in range(count - half + 1):
        first, last = ordered[i], ordered[i + half - 1]
        for p in range(LANES):
            spread[p] = smaller(spread[p], larger(out[p] - first[p], last[p] - out[p]))
    total, kept = np.zeros(LANES), np.zeros(LANES)
    for k in range(count):
        own, sigma = values[k], noise[k]
        for p in range(LANES):
            limit = CLIP * np.float64(larger(sigma, np.float32(1.4826) * spread[p]))
            near = np.float64(abs(own[p] - out[p])) <= limit
            total[p] += np.float64(own[p]) if near else 0.0
            kept[p] += 1.0 if near else 0.0
    for p in range(LANES):
        out[p] = total[p] / kept[p]


@compiled
def _combine_some(values, ordered, noise):
    """Combine the samples of one pixel, of which only the `ordered` ones are data."""
    n = ordered.size
    if n == 0:
        return np.float32(np.nan)
    middle = np.float32(0.5) * (ordered[(n - 1) // 2] + ordered[n // 2])
    if noise[0] == np.inf:
        return middle
    low, high = 0, n - 1
    while high - low + 1 > n // 2 + 1:
        if middle - ordered[low] > ordered[high] - middle:
            low += 1
        else:
            high -= 1
    spread = np.float32(1.4826) * max(middle - ordered[low], ordered[high] - middle)
    total, kept = 0.0, 0
    for k in range(values.size):
        if abs(values[k] - middle) <= CLIP * max(noise[k], spread):
            total += values[k]
            kept += 1
    return np.float32(total / kept)
