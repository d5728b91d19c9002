"""Residuals with trails of known light, for the tests of the finders."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SHAPE = (300, 420)


def noise(seed: int, shape: tuple[int, int] = SHAPE, blur: float = 0.0) -> np.ndarray:
    """Unit noise, float32, smoothed as by registration if `blur`, the sigma of a Gaussian, is not 0."""
    plane = np.random.default_rng([seed, 13]).standard_normal(shape)
    if blur:
        plane = ndimage.gaussian_filter(plane, blur) / quieter(blur)
    return plane.astype(np.float32)


def signs(found: np.ndarray, width: int) -> np.ndarray:
    """Footprints as int8 (height, width): -1 for what is too dark, 1 for what is too bright."""
    dark, bright = (np.unpackbits(bits, axis=1, count=width).astype(np.int8) for bits in found)
    return bright - dark


def quieter(blur: float) -> float:
    """The noise of a pixel after smoothing, relative to that before: light stands out that much more."""
    if not blur:
        return 1.0
    point = np.zeros((41, 41))
    point[20, 20] = 1
    return float(np.sqrt((ndimage.gaussian_filter(point, blur) ** 2).sum()))


def trail(start, end, peak: float, fwhm: float = 3.0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """The light of a trail between two points (x, y), float32."""
    (x0, y0), (x1, y1) = start, end
    length = np.hypot(x1 - x0, y1 - y0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, length)
    distance2 = (x - x0 - along * (x1 - x0) / length) ** 2 + (y - y0 - along * (y1 - y0) / length) ** 2
    return (peak * np.exp(-0.5 * distance2 * (2.3548 / fwhm) ** 2)).astype(np.float32)


def stars(seed: int, number: int, peak: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Residuals of stars in a frame of worse seeing: a ring around a hole, float32."""
    rng = np.random.default_rng([seed, 14])
    plane = np.zeros(shape, np.float32)
    rows, columns = (rng.integers(size, size=number) for size in shape)
    np.add.at(plane, (rows, columns), rng.exponential(peak, number).astype(np.float32))
    wide, narrow = (ndimage.gaussian_filter(plane, s, truncate=6) * 2 * np.pi * s**2 for s in (1.9, 1.4))
    return wide * (1.4 / 1.9) ** 2 - narrow


def nothing_protected(z: np.ndarray) -> np.ndarray:
    return np.zeros(z.shape, bool)
