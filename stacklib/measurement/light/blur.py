"""Light and blur of the stars of one image relative to those of another one.

Two things blur stars. The seeing stretches their profile, wings included. Interpolation and guiding smear it
by a pixel or less. With both known, discs of every size see the same part of a star in both images, and give
the same light. Generalized least squares find light, seeing and smear at which they do: the narrow discs
have little noise, the wide ones tell where the wings are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.measurement.light.profiles import (
    FREQUENCIES,
    SMEARING,
    blurs,
    hankel_transform,
    profile,
    transforms_of_discs,
)
from stacklib.measurement.light.sums import LightByDistance

__all__ = [
    "MISFIT",
    "NO_SMEAR",
    "SMEAR_SPREAD",
    "BlurFit",
    "StackedStars",
]

#: Radii of the discs, in FWHM.
DISCS = (0.5, 0.8, 1.2, 1.8)
#: How well a disc of a star can be known, as a fraction of its light: no profile is quite a Moffat profile.
MISFIT = 0.0005
#: How much frames differ in their smear: standard deviation in square pixels. Bilinear interpolation smears
#: by up to 0.25, other interpolations by less.
SMEAR_SPREAD = 0.15
#: A spread with which all of the blur is taken for seeing.
NO_SMEAR = 1e-3
#: Range of the seeing, relative to that of the stack; the greatest smear; how well both are found, how far
#: they move at once, and the most steps.
SEEING, MOST_SMEAR, EXACT, MOST_STEP, STEPS = (0.5, 2.5), 1.0, 2e-4, (0.2, 0.3), 15
#: Difference of the seeing from which slopes are taken.
NEAR = 0.003


class BlurFit(NamedTuple):
    """Light, seeing and smear of an image relative to the stack, and the standard error of the light.

    `excess` is how much more light each disc gives than the fit, as a fraction, and last the smear, (n,).
    `weight` (n, n) is the inverse of its covariance in what the fit leaves free, with the noise of the image;
    `common` (n - 1, n - 1) the covariance from the noise of the stack.
    """

    light: float
    error: float
    seeing: float
    smear: float
    excess: np.ndarray
    weight: np.ndarray
    common: np.ndarray


class StackedStars(NamedTuple):
    """Weighted sums of stars in an image and in the stack, and what their noise is.

    `light` (2, frequencies) is their transform, for integrals over the frequency; `variance` (2,) that of
    a pixel; `fwhm` that of the stack in pixels.
    """

    light: np.ndarray
    variance: np.ndarray
    fwhm: float

    @classmethod
    def of(
        cls,
        lights: tuple[LightByDistance, LightByDistance],
        noises: tuple[np.ndarray, np.ndarray],
        weights: np.ndarray,
        fwhm: float,
    ) -> StackedStars:
        """Sum stars with weights; those of weight 0 may be NaN."""
        used = weights > 0
        transforms = []
        for near, far in lights:
            by_distance = np.zeros(near.shape[1] + 1)
            by_distance[:-1] += weights[used] @ near[used]
            by_distance[1:] += weights[used] @ far[used]
            transforms.append(by_distance @ hankel_transform(by_distance.size))
        variance = [float(np.sum((weights[used] * noise[used]) ** 2)) for noise in noises]
        return cls(np.array(transforms), np.array(variance), fwhm)

    def fit(
        self, power: float, seeing: float = 1.0, smear: float = 0.0, spread: float = SMEAR_SPREAD
    ) -> BlurFit | None:
        """Find light, seeing and smear for a power of the profile; None if there is no light.

        Parameters
        ----------
        power : float
            Power of the Moffat profile.
        seeing, smear : float
            First values.
        spread : float
            How much frames differ in their smear: standard deviation in square pixels.
        """
        for _ in range(STEPS):
            system = self._system(power, seeing, smear)
            if system is None:
                return None
            ratio, slopes, own, common = system
            count = ratio.size
            # The smear is a measured value too, of 0 within what is usual.
            value = np.append(ratio, -smear)
            design = np.zeros((count + 1, 3))
            design[:-1, 0], design[:-1, 1:], design[-1, 2] = 1, -slopes, 1
            inverse = np.zeros((count + 1, count + 1))
            inverse[:-1, :-1] = np.linalg.inv(own + common)
            inverse[-1, -1] = 1 / spread**2
            covariance = np.linalg.inv(design.T @ inverse @ design)
            light, more, smeared = covariance @ design.T @ inverse @ value
            steps = [
                min(max(step, -most), most) for step, most in zip((more, smeared), MOST_STEP, strict=True)
            ]
            seeing = min(max(seeing + steps[0], SEEING[0]), SEEING[1])
            smear = min(max(smear + steps[1], -MOST_SMEAR), MOST_SMEAR)
            if max(map(abs, steps)) < EXACT:
                break
        if not (math.isfinite(light) and light > 0):
            return None
        design[:-1, 1:] /= light
        inverse[:-1, :-1] = np.linalg.inv(own / light**2)
        fitted = inverse @ design
        weight = inverse - fitted @ np.linalg.solve(design.T @ fitted, fitted.T)
        excess = np.append(ratio / light - 1, smear)
        error = math.sqrt(covariance[0, 0])
        return BlurFit(float(light), error, seeing, smear, excess, weight, common / light**2)

    def _system(
        self, power: float, seeing: float, smear: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Return the light in each disc, its slopes, and its covariances from the image and the stack."""
        k = FREQUENCIES
        discs = transforms_of_discs(self.fwhm * max(seeing, 1), DISCS)
        filters = discs * blurs(self.fwhm, power, seeing, smear)[:, np.newaxis]
        sums = np.einsum("idk,ik->id", filters, self.light)
        if not (np.isfinite(sums).all() and (sums[1] > 0).all()):
            return None
        wider = (profile(self.fwhm * (seeing + NEAR), power) - profile(self.fwhm * seeing, power)) / NEAR
        ratio = sums[0] / sums[1]
        slopes = np.empty((ratio.size, 2))
        for number, (change, blurred) in enumerate(((-wider, int(seeing > 1)), (SMEARING, int(smear > 0)))):
            # The more the image is blurred, the less its own filter is, or the more that of the stack.
            slopes[:, number] = filters[blurred] @ (change * self.light[blurred]) / sums[blurred] * ratio
        scale = k * np.gradient(k) / (2 * math.pi)
        noises = [
            (each * scale) @ each.T * variance for each, variance in zip(filters, self.variance, strict=True)
        ]
        over = np.outer(sums[1], sums[1])
        own = noises[0] / over + np.diag((MISFIT * ratio) ** 2)
        return ratio, slopes, own, noises[1] * np.outer(ratio, ratio) / over
