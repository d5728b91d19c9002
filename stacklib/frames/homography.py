"""Homographies of the plane, and planes resampled by them.

Coordinates have their origin at the corner of the first pixel: centers of pixels are at whole numbers + 0.5.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

__all__ = ["mapped", "warped"]

#: Rows that are resampled at once, for little memory.
ROWS = 256


def mapped(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Apply a homography.

    Parameters
    ----------
    matrix : ndarray of float64, shape (3, 3)
        The homography.
    x, y : ndarray of float64
        Places, of shapes that can be broadcast together.

    Returns
    -------
    x, y : ndarray of float64
        Places after it. Infinite at and beyond the horizon, which no place inside a frame is.
    """
    (a, b, c), (d, e, f), (g, h, k) = np.asarray(matrix, float).tolist()
    u, v = a * x + (b * y + c), d * x + (e * y + f)
    if g == 0 and h == 0:
        return u / k, v / k
    depth = g * x + (h * y + k)
    depth = np.where(depth * k > 0, depth, math.nan)
    u, v = u / depth, v / depth
    return np.where(np.isnan(u), math.inf, u), np.where(np.isnan(v), math.inf, v)


def warped(plane: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], order: int = 1) -> np.ndarray:
    """Resample a plane by spline interpolation.

    Parameters
    ----------
    plane : ndarray of float32 or float64, shape (height, width)
        The plane. NaN spreads as far as the interpolation reaches.
    matrix : ndarray of float64, shape (3, 3)
        Homography from the result to the plane.
    shape : tuple of int
        Height and width of the result.
    order : {1, 3}
        Order of the spline: 1 is bilinear, 3 cubic.

    Returns
    -------
    ndarray of float32
        The result; NaN outside the plane.
    """
    height, width = plane.shape
    out = np.empty(shape, np.float32)
    source = np.asarray(plane, np.float64)
    filtered = source if order == 1 else spline_filter(source, order, mode="mirror")
    x = np.arange(shape[1]) + 0.5
    for start in range(0, shape[0], ROWS):
        stop = min(start + ROWS, shape[0])
        u, v = mapped(matrix, x, (np.arange(start, stop) + 0.5)[:, None])
        u, v = np.broadcast_arrays(u - 0.5, v - 0.5)
        inside = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1)
        places = [np.where(inside, v, 0), np.where(inside, u, 0)]
        part = map_coordinates(filtered, places, order=order, mode="mirror", prefilter=False)
        out[start:stop] = np.where(inside, part, np.nan)
    return out
