"""Resample simulated frames as registration does, which smooths their noise."""

from __future__ import annotations

import numpy as np

from stacklib.utils.compiled import compiled

__all__ = ["METHODS", "filtered", "resample", "smoothing", "taps"]

#: Interpolations by name: half the width of the kernel in pixels. "none" moves by whole pixels only.
METHODS = {"none": 0, "bilinear": 1, "bicubic": 2, "lanczos": 3}


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
