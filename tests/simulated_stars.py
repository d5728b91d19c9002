"""Fields of stars with a Moffat profile."""

from __future__ import annotations

import numpy as np

from stacklib.simulate.registration import filtered

SHAPE = (220, 300)


def field(fwhm, power=3.0, count=60, shift=0.0, seed=2):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    a = 0.5 * fwhm / np.sqrt(2 ** (1 / power) - 1)
    out = np.zeros(SHAPE)
    for _ in range(count):
        cx, cy, flux = rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0]), rng.uniform(0.5, 6)
        r2 = (x - cx - shift) ** 2 + (y - cy) ** 2
        out += flux * (power - 1) / (np.pi * a * a) * (1 + r2 / a**2) ** -power
    return out.astype(np.float32)


def noisy(image, sigma, rng):
    return image + rng.normal(0, sigma, SHAPE).astype(np.float32)


def smear(image, variance):
    """Smear an image by neighbors, as interpolation does, by this variance along each axis."""
    taps = np.array([variance / 2, 1 - variance, variance / 2])
    return filtered(image[np.newaxis].astype(float), taps, taps)[0].astype(np.float32)
