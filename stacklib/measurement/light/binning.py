"""Planes as they are compared: binned, and with small holes filled."""

from __future__ import annotations

import numpy as np
import scipy

__all__ = [
    "bin_plane",
    "without_holes",
]

#: A pixel without data is filled from a square of this side around it, if this fraction of it has data.
AROUND_HOLE, LEAST_AROUND = 5, 0.3


def bin_plane(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the means over squares of a plane, float32; the plane itself for a side of 1."""
    if side == 1:
        return plane
    rows, columns = (size // side for size in plane.shape)
    parts = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return parts.mean(axis=(1, 3), dtype=np.float32)


def without_holes(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Fill single pixels and columns where an image has no data with the mean of their neighbors.

    Where stars are compared, both images must be filled in the same pixels: the same light is lost then.

    Parameters
    ----------
    image : ndarray of float32, shape (height, width)
        An image.
    like : ndarray of float32, same shape
        The image whose NaN are the holes, `image` itself or another one.

    Returns
    -------
    ndarray of float32
        A copy. Larger holes, and the border, are NaN.
    """
    there = np.isfinite(like) & np.isfinite(image)
    share = scipy.ndimage.uniform_filter(there.astype(np.float32), AROUND_HOLE)
    near = scipy.ndimage.uniform_filter(np.where(there, image, np.float32(0)), AROUND_HOLE)
    with np.errstate(divide="ignore", invalid="ignore"):
        filled = np.where(share >= LEAST_AROUND, near / share, np.float32(np.nan))
    return np.where(there, image, filled)
