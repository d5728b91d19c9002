"""Resample frames as registration does, which smooths their noise: by shifts, and by homographies.

Coordinates of homographies have their origin at the corner of the first pixel: centers of pixels are at whole
numbers + 0.5.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter

from stacklib.utils.compiled import compiled

__all__ = ["METHODS", "filtered", "mapped", "resample", "smoothing", "taps", "warped"]

#: Interpolations by name: half the width of the kernel in pixels. "none" moves by whole pixels only.
METHODS = {"none": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3}
#: Rows that are resampled at once, for little memory.
ROWS = 256


def taps(method: str, shift: float) -> np.ndarray:
    """Return the weights of the neighbors along one axis for a shift of at most half a pixel.

    Parameters
    ----------
    method : {"none", "bilinear", "bicubic", "lanczos"}
        Interpolation: bicubic by Keys (a = -0.5), Lanczos with three lobes.
    shift : float
        How far the image is moved down or to the right, in pixels.

    Returns
    -------
    ndarray of float64, shape (2 n + 1,)
        Weights of the pixels from n before to n after, with a sum of 1.
    """
    half = METHODS[method]
    distance = np.abs(np.arange(-half, half + 1) + shift)
    if method == "bicubic":
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    elif method == "lanczos":
        weights = np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)
    elif method == "bilinear":
        weights = np.maximum(1 - distance, 0)
    else:
        return np.ones(1)
    return weights / weights.sum()


def resample(image: np.ndarray, method: str, down: float, right: float) -> np.ndarray:
    """Move an image, shape (channels, height, width), by at most half a pixel along each axis."""
    return filtered(image, taps(method, down), taps(method, right))


def filtered(image: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Weight neighbors along columns and rows. Beyond the edge the last value is repeated.

    Parameters
    ----------
    image : ndarray of float64, shape (channels, height, width)
        The image.
    down, across : ndarray of float64, shape (2 n + 1,)
        Weights of the pixels from n before to n after, along columns and along rows.

    Returns
    -------
    ndarray of float64, shape (channels, height, width)
        The filtered image.
    """
    result = np.empty(image.shape)
    for plane, target in zip(image, result, strict=True):
        _filter_plane(np.ascontiguousarray(plane, float), down, across, target)
    return result


@compiled
def _filter_plane(plane, down, across, result):
    height, width = plane.shape
    above, before = down.size // 2, across.size // 2
    row = np.empty(width + 2 * before)
    for i in range(height):
        # The middle of the padded row takes the sum over the neighbors above and below.
        middle = row[before : before + width]
        middle[:] = 0.0
        for k in range(down.size):
            if down[k] != 0.0:
                source = plane[min(max(i + k - above, 0), height - 1)]
                weight = down[k]
                for j in range(width):
                    middle[j] += weight * source[j]
        row[:before] = row[before]
        row[before + width :] = row[before + width - 1]
        line = result[i]
        line[:] = 0.0
        for k in range(across.size):
            weight = across[k]
            if weight != 0.0:
                for j in range(width):
                    line[j] += weight * row[j + k]


def smoothing(method: str, down: float, right: float) -> float:
    """Return the pixel noise after resampling relative to that before, for white noise."""
    return float(np.prod([np.sqrt((taps(method, shift) ** 2).sum()) for shift in (down, right)]))


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
