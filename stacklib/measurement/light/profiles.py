"""Profiles of stars, and the filters that see the same part of a star whatever the seeing.

The seeing is taken to stretch a Moffat profile (Moffat 1969, A&A 3, 455; Trujillo et al. 2001, MNRAS 328,
977), wings included. Interpolation and guiding smear stars by a pixel or less, which leaves their wings as
they are, see `SMEARING`. A filter is a disc minus a ring around it. That of the sharper of two images is
blurred as the stars of the other one are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy

__all__ = [
    "FINENESS",
    "FREQUENCIES",
    "POWER_SPREAD",
    "RING",
    "SMEARING",
    "USUAL_FWHM",
    "USUAL_POWER",
    "blurs",
    "hankel_transform",
    "make_filters",
    "profile",
    "steps_of",
    "transforms_of_discs",
]

#: Radii of both ends of the ring, in FWHM.
RING = (2.4, 3.8)
#: The edges are blurred by a Gaussian of this sigma in pixels: a sharp edge would depend on the pixel grid.
EDGE = 0.7
#: FWHM in pixels and power of the Moffat profile where the stars do not tell.
USUAL_FWHM, USUAL_POWER = 3.0, 3.0
#: How much the power differs from telescope to telescope: standard deviation of its logarithm.
POWER_SPREAD = 0.2
#: Frequencies (per pixel, times 2 pi) and distances (pixels) at which filters are computed.
FREQUENCIES, FINENESS = np.linspace(1e-3, 4.5, 500), 0.1
#: What a smear of 1 takes from each frequency, as a logarithm. Guiding and bilinear interpolation take about
#: half its square times their variance, bicubic interpolation something like its fourth power. Stars hardly
#: tell which it was; in between, no interpolation costs over 0.2 % of the light.
SMEARING = 0.45 * FREQUENCIES**2.5


def steps_of(fwhm: float, seeing: float) -> int:
    """Return the number of steps of the filters for a FWHM relative to that of the stack."""
    reach = RING[1] * fwhm * max(seeing, 1) + 4 * EDGE + 2 * abs(seeing - 1) * fwhm
    return math.ceil(reach / FINENESS) - 1


def make_filters(
    fwhm: float, power: float, seeing: float, discs: Sequence[float], smear: float = 0.0
) -> np.ndarray:
    """Return the filters of an image and of the stack, (2, discs, distances in steps of `FINENESS`).

    They are Hankel transforms of products of the transforms of disc and ring, the blurred edge, and, for the
    sharper of the two images, of the kernel that makes one profile from the other. See `blurs` for `smear`.
    """
    both = transforms_of_discs(fwhm * max(seeing, 1), discs)
    filters = both * blurs(fwhm, power, seeing, smear)[:, np.newaxis]
    transform = hankel_transform(steps_of(fwhm, seeing) + 1)
    return np.ascontiguousarray(np.moveaxis(transform @ np.moveaxis(filters, 2, 1), 1, 2))


def transforms_of_discs(fwhm: float, discs: Sequence[float]) -> np.ndarray:
    """Return the transforms of discs, of radii in FWHM, minus the ring around them, (discs, frequencies)."""
    k = FREQUENCIES
    inner, outer = (radius * fwhm for radius in RING)
    ring, edge = _disc(k, outer) - _disc(k, inner), np.exp(-((k * EDGE) ** 2) / 2)
    radii = [radius * fwhm for radius in discs]
    return np.array([(_disc(k, r) - ring * r**2 / (outer**2 - inner**2)) * edge for r in radii])


def blurs(fwhm: float, power: float, seeing: float, smear: float) -> np.ndarray:
    """Return the transforms of what blurs the filters of an image and of the stack, (2, frequencies).

    Parameters
    ----------
    fwhm, power : float
        Moffat profile of the stack, the FWHM in pixels.
    seeing : float
        FWHM of the image relative to it.
    smear : float
        How much more the image is smeared than the stack, about the variance along each axis in square
        pixels; negative if it is less.
    """
    found = np.ones((2, FREQUENCIES.size))
    wider = np.exp(-abs(profile(fwhm * seeing, power) - profile(fwhm, power)))
    found[1 if seeing > 1 else 0] *= wider
    found[1 if smear > 0 else 0] *= np.exp(-abs(smear) * SMEARING)
    return found


def hankel_transform(count: int) -> np.ndarray:
    """Return the matrix of the Hankel transform from frequencies to the first distances."""
    return _transform(1 << (count - 1).bit_length())[:count]


@lru_cache(maxsize=8)
def _transform(count: int) -> np.ndarray:
    """Return the matrix of the Hankel transform to the first distances."""
    k = FREQUENCIES
    return scipy.special.j0(np.outer(np.arange(count) * FINENESS, k)) * (k * np.gradient(k) / (2 * math.pi))


def _disc(k: np.ndarray, radius: float) -> np.ndarray:
    """Return the transform of a disc."""
    return 2 * math.pi * radius * scipy.special.j1(k * radius) / k


@lru_cache(maxsize=64)
def profile(fwhm: float, power: float) -> np.ndarray:
    """Return the logarithm of the transform of a Moffat profile of flux 1."""
    k, order = FREQUENCIES * _width(fwhm, power), power - 1
    bessel = np.log(scipy.special.kve(order, k)) - k
    return order * np.log(k / 2) + bessel + math.log(2) - scipy.special.gammaln(order)


def _width(fwhm: float, power: float) -> float:
    """Return the width of a Moffat profile."""
    return 0.5 * fwhm / math.sqrt(2 ** (1 / power) - 1)
