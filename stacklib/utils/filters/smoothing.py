"""Smooth planes of float32."""

from __future__ import annotations

from functools import partial

import numpy as np

from stacklib.utils.compiled import compiled
from stacklib.utils.resources import by_rows

__all__ = ["box_mean", "gaussian_alone", "gaussian_reflected"]


def gaussian_reflected(plane: np.ndarray, sigma: float, threads: int = 1) -> np.ndarray:
    """Smooth a plane with a Gaussian out to 4 sigma; beyond its edges it is reflected.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        The plane, without NaN.
    sigma : float
        Of the Gaussian, in pixels.
    threads : int
        Number of threads. The result does not depend on it.

    Returns
    -------
    ndarray of float32, shape (height, width)
    """
    out, weights = np.empty(plane.shape, np.float32), _half_gaussian(sigma, int(4 * sigma + 0.5))
    by_rows(partial(_smooth_reflected, plane, weights, out), len(plane), threads)
    return out


def gaussian_alone(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth a plane with a Gaussian out to 3.3 sigma; beyond its edges there is nothing: 0.

    Parameters and result are those of `gaussian_reflected` in one thread.
    """
    out = np.empty_like(plane)
    _smooth_alone(plane, _half_gaussian(sigma, int(np.ceil(3.3 * sigma))).astype(np.float32), out)
    return out


def _half_gaussian(sigma: float, reach: int) -> np.ndarray:
    """Return a Gaussian from its middle on, as far as `reach`; the whole one has the sum 1."""
    half = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    return half / (2 * half.sum() - 1)


@compiled
def _smooth_reflected(plane, weights, out, first, last):
    """Smooth rows of a plane in both directions; beyond its edges it is reflected."""
    height, width = plane.shape
    reach = weights.size - 1
    total, line = np.empty(width), np.empty(width + 2 * reach)
    for r in range(first, last):
        middle = plane[r]
        for c in range(width):
            total[c] = middle[c] * weights[0]
        for k in range(1, reach + 1):
            above, below, weight = (
                plane[_reflected(r - k, height)],
                plane[_reflected(r + k, height)],
                weights[k],
            )
            for c in range(width):
                total[c] += (np.float64(above[c]) + np.float64(below[c])) * weight
        for c in range(width + 2 * reach):
            line[c] = np.float32(total[_reflected(c - reach, width)])
        middle = line[reach : reach + width]
        for c in range(width):
            total[c] = middle[c] * weights[0]
        for k in range(1, reach + 1):
            left, right = line[reach - k : reach - k + width], line[reach + k : reach + k + width]
            for c in range(width):
                total[c] += (left[c] + right[c]) * weights[k]
        for c in range(width):
            out[r, c] = total[c]


@compiled
def _reflected(place, size):
    """Return the place within an axis that is shown beyond its ends: 1 0 | 0 1 2 | 2 1."""
    place = place % (2 * size)
    return place if place < size else 2 * size - 1 - place


@compiled
def _smooth_alone(plane, kernel, out):
    """Smooth a plane, 0 beyond its edges, along both axes. The kernel is given from its middle on."""
    height, width = plane.shape
    reach = kernel.size - 1
    padded = np.zeros(width + 2 * reach, np.float32)
    middle = padded[reach : reach + width]
    nothing = np.zeros(width, np.float32)
    for y in range(height):
        here = plane[y]
        for x in range(width):
            middle[x] = kernel[0] * here[x]
        for k in range(1, reach + 1):
            above = plane[y - k] if y >= k else nothing
            below = plane[y + k] if y + k < height else nothing
            for x in range(width):
                middle[x] += kernel[k] * (above[x] + below[x])
        line = out[y]
        for x in range(width):
            line[x] = kernel[0] * middle[x]
        for k in range(1, reach + 1):
            left, right = padded[reach - k : reach - k + width], padded[reach + k : reach + k + width]
            for x in range(width):
                line[x] += kernel[k] * (left[x] + right[x])


@compiled
def box_mean(values, size):
    """Return the mean of the box around each pixel; beyond the edges the last pixel goes on."""
    height, width = values.shape
    reach = size // 2
    down, out = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    total = np.zeros(width)
    for k in range(size):
        line = values[min(max(k - reach, 0), height - 1)]
        for c in range(width):
            total[c] += line[c]
    for c in range(width):
        down[0, c] = total[c] / size
    for r in range(1, height):
        new, old = values[min(r + reach, height - 1)], values[max(r - 1 - reach, 0)]
        for c in range(width):
            total[c] += np.float64(new[c]) - np.float64(old[c])
            down[r, c] = total[c] / size
    for r in range(height):
        line = down[r]
        along = 0.0
        for k in range(size):
            along += line[min(max(k - reach, 0), width - 1)]
        out[r, 0] = along / size
        for c in range(1, width):
            new, old = line[min(c + reach, width - 1)], line[max(c - 1 - reach, 0)]
            along += np.float64(new) - np.float64(old)
            out[r, c] = along / size
    return out
