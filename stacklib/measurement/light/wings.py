"""The power of the profile of stars, by what their wings hold where the seeing differs."""

from __future__ import annotations

import math

import numpy as np
import scipy

from stacklib.measurement.light.photometry import StarPair, Template, slope_of
from stacklib.measurement.light.profiles import POWER_SPREAD, USUAL_POWER
from stacklib.measurement.light.ratio import FEWEST, clipped_slope

__all__ = [
    "best_power",
    "compare_wings",
]

#: Powers of the Moffat profile that are tried.
POWERS = (2.2, 2.6, 3.0, 3.5, 4.2, 5.0)
#: Least error of the wings of a star, as a fraction of its flux. Errors of pixels and flat fields cancel in
#: part where two sums over one star are compared.
LEAST_ERROR_OF_WINGS = 0.003


def compare_wings(image: np.ndarray, template: Template) -> np.ndarray:
    """Return how much more light a wide disc gives than the usual one, for each of the `POWERS`.

    It is found star by star from what lies between the discs, which is the same part of the light of a star
    in both images if the profile is right.

    Parameters
    ----------
    image : ndarray of float32, shape (height, width)
        An image. NaN means no data.
    template : Template
        The stars of the stack.

    Returns
    -------
    ndarray of float64, shape (powers, 2)
        Excess as a fraction of the light, and its error; NaN if nothing is known.
    """
    pair = StarPair(image, template)
    excess = np.full((len(POWERS), 2), np.nan)
    for k, power in enumerate(POWERS):
        disc, wings = pair.disc_and_wings(power)
        light = slope_of(disc)
        if light.known:
            good = disc.good
            more = (wings.own - light.ratio * wings.stack)[good]
            stack = disc.stack[good]
            slope, error, count = clipped_slope(
                light.ratio * stack + more,
                stack,
                wings.error[good],
                LEAST_ERROR_OF_WINGS,
                light.ratio,
                True,
                1.0,
            )
            if count >= FEWEST:
                excess[k] = slope / light.ratio - 1, error / light.ratio
    return excess


def best_power(excess: list[np.ndarray]) -> tuple[float, float]:
    """Return the power of the Moffat profile with which wide discs give no more or less light than others.

    It shows where the seeing differs between the images. What the images tell is weighed against what is
    usual, 3 within a fifth: so without any difference of the seeing it is about that.

    Parameters
    ----------
    excess : list of ndarray
        What `compare_wings` found in each image.

    Returns
    -------
    power : float
        Mean of the powers that are possible, from 2.2 to 5.
    error : float
        Their standard deviation, as a fraction.
    """
    tried = np.log(POWERS)
    power = np.linspace(tried[0], tried[-1], 200)
    misfit = ((power - math.log(USUAL_POWER)) / POWER_SPREAD) ** 2
    known = np.array([each for each in excess if np.isfinite(each).all()])
    if len(known) >= 3:
        value, weight = known[..., 0], 1 / known[..., 1] ** 2
        # What all images have in common comes from the stack.
        value = value - np.sum(weight * value, axis=0) / np.sum(weight, axis=0)
        own = np.sum(weight * value**2, axis=0)
        own /= max(1.0, own.min() / (len(known) - 2))
        misfit += scipy.interpolate.CubicSpline(tried, own)(power)
    likely = np.exp((misfit.min() - misfit) / 2)
    likely /= likely.sum()
    mean = float(likely @ power)
    return math.exp(mean), math.sqrt(likely @ (power - mean) ** 2)
