"""Resample simulated frames as registration does, which smooths their noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["METHODS", "resample", "smoothing", "taps"]

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
    for axis, shift in ((1, down), (2, right)):
        weights = taps(method, shift)
        if np.count_nonzero(weights) > 1:
            image = ndimage.correlate1d(image, weights, axis, mode="nearest")
    return image


def smoothing(method: str, down: float, right: float) -> float:
    """Return the pixel noise after resampling relative to that before, for white noise."""
    return float(np.prod([np.sqrt((taps(method, shift) ** 2).sum()) for shift in (down, right)]))
