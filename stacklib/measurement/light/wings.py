"""The power of the profile of stars, by which discs of every size give the same light."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy

from stacklib.measurement.light.photometry import StarPair, Template
from stacklib.measurement.light.profiles import POWER_SPREAD, USUAL_POWER

__all__ = [
    "Wings",
    "best_power",
    "compare_wings",
]

#: Powers of the Moffat profile that are tried.
POWERS = (2.2, 2.6, 3.0, 3.5, 4.2, 5.0)


class Wings(NamedTuple):
    """What `BlurFit` has for each of the `POWERS`: (powers, n), (powers, n, n) and (powers, n - 1, n - 1)."""

    excess: np.ndarray
    weight: np.ndarray
    common: np.ndarray


def compare_wings(image: np.ndarray, template: Template) -> Wings | None:
    """Fit the stars of an image with each of the `POWERS`.

    Where the seeing differs, only the right one lets discs of every size give the same light.

    Parameters
    ----------
    image : ndarray of float32, shape (height, width)
        An image. NaN means no data.
    template : Template
        The stars of the stack.

    Returns
    -------
    Wings or None
        None if nothing is known.
    """
    fitted = StarPair(image, template).fitted()
    if fitted is None:
        return None
    stars, fit = fitted
    fits, seeing, smear = [], fit.seeing, fit.smear
    for power in POWERS:
        found = stars.fit(power, seeing, smear)
        if found is None:
            return None
        fits.append(found)
        seeing, smear = found.seeing, found.smear
    return Wings(*(np.array([getattr(fit, name) for fit in fits]) for name in Wings._fields))


def best_power(wings: list[Wings]) -> tuple[float, float]:
    """Return the power of the Moffat profile with which all discs give the same light.

    It shows where the seeing differs between the images. What the images tell is weighed against what is
    usual, 3 within a fifth: so without any difference of the seeing it is about that.

    Parameters
    ----------
    wings : list of Wings
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
    if len(wings) >= 3:
        own = np.array([_misfit(*each) for each in zip(*map(_by_power, wings), strict=True)])
        # Of each image, light, seeing and smear are fitted, and the smear is a value too.
        own /= max(1.0, own.min() / (len(wings) * (wings[0].excess.shape[1] - 3)))
        misfit += scipy.interpolate.CubicSpline(tried, own)(power)
    likely = np.exp((misfit.min() - misfit) / 2)
    likely /= likely.sum()
    mean = float(likely @ power)
    return math.exp(mean), math.sqrt(likely @ (power - mean) ** 2)


def _by_power(wings: Wings) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return list(zip(*wings, strict=True))


def _misfit(*images: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Return chi squared of all images for one power.

    The noise of the stack is the same in all of them. It is taken to be what fits them best, within what is
    likely.
    """
    count = images[0][2].shape[0]
    precision = np.linalg.inv(np.mean([common for *_, common in images], axis=0) + 1e-10 * np.eye(count))
    pull, total = np.zeros(count), 0.0
    for excess, weight, _ in images:
        pulled = weight @ excess
        precision, pull, total = (
            precision + weight[:count, :count],
            pull + pulled[:count],
            total + excess @ pulled,
        )
    return float(total - pull @ np.linalg.solve(precision, pull))
