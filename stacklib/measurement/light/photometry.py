"""Light of one image relative to another one, by the stars in both.

A star is measured by a sum over a disc minus the mean of a ring around it. Where the seeing differs, the disc
of the sharper image is blurred as the stars of the other one are: then both see the same fraction of a star,
and of its neighbors. So the disc can be small, which makes little noise, and stars need not be isolated. See
`stacklib.measurement.light.profiles` for the filters and `stacklib.measurement.light.blur` for the fit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.measurement.light.blur import NO_SMEAR, SMEAR_SPREAD, BlurFit, StackedStars
from stacklib.measurement.light.profiles import (
    FINENESS,
    POWER_SPREAD,
    USUAL_FWHM,
    USUAL_POWER,
    make_filters,
    steps_of,
)
from stacklib.measurement.light.ratio import FEWEST, NO_LIGHT, Light, clipped_slope
from stacklib.measurement.light.sums import LightByDistance, measure_surroundings, whole_stars
from stacklib.measurement.stars import Stars, find_stars
from stacklib.utils.ranks import middle_of

__all__ = [
    "CELLS",
    "LEAST_ERROR",
    "StarFluxes",
    "StarPair",
    "Template",
    "compare_stars",
    "make_template",
    "slope_of",
]

#: Radius of the disc in FWHM.
DISC = 1.5
#: Number of stars, and cells along each axis of the field over which they are spread.
STARS, CELLS = 200, 6
#: A star is used from this flux in the stack on, in errors.
SIGNIFICANT = 20.0
#: Least error of a star, as a fraction of its flux: pixels and flat fields are not perfect.
LEAST_ERROR = 0.01
#: The same where all stars are fitted together, and those that disagree by more are trusted less.
LEAST_ERROR_OF_FIT = 0.003
#: Up to this seeing, relative to that of the stack, stars of the stack need not be measured again.
WIDER = 1.25


class Template(NamedTuple):
    """Stars of a stack: positions in pixels, their image, and the FWHM and power of their Moffat profile.

    `power_error` is the standard error of the power, as a fraction of it. `around` has level and noise around
    each star in the image, (2, stars), `light` its light by distance.
    """

    x: np.ndarray
    y: np.ndarray
    image: np.ndarray
    fwhm: float
    power: float
    around: np.ndarray
    light: LightByDistance
    power_error: float = POWER_SPREAD

    @classmethod
    def measured(cls, image: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm: float, power: float) -> Template:
        """Measure stars in a stack, float32 (height, width)."""
        image = np.ascontiguousarray(image, np.float32)
        around = measure_surroundings(image, x, y, fwhm)
        light = LightByDistance.of(image, x, y, around[0], steps_of(fwhm, WIDER))
        return cls(x, y, image, fwhm, power, around, light)

    def of(self, image: np.ndarray) -> Template:
        """Return the same stars in another stack, float32 (height, width)."""
        same = self.measured(image, self.x, self.y, self.fwhm, self.power)
        return same._replace(power_error=self.power_error)

    def first(self, count: int) -> Template:
        """Return the first stars."""
        light = LightByDistance(*(parts[:count] for parts in self.light))
        return self._replace(x=self.x[:count], y=self.y[:count], around=self.around[:, :count], light=light)


class StarFluxes(NamedTuple):
    """Fluxes of the stars of a template in an image and in the stack, and errors, float64 (stars,).

    NaN where the image has no data.
    """

    own: np.ndarray
    error: np.ndarray
    stack: np.ndarray
    stack_error: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """Stars that can be compared, bool (stars,)."""
        with np.errstate(invalid="ignore"):
            return np.isfinite(self.own) & (self.stack > SIGNIFICANT * self.stack_error)


def make_template(stack: np.ndarray, full: float = math.inf) -> tuple[Template, Stars]:
    """Choose stars below saturation, spread over the field, in a stack of frames.

    Parameters
    ----------
    stack : ndarray of float32, shape (height, width)
        Stack with little noise. NaN means no data.
    full : float
        Value from which on samples are saturated.

    Returns
    -------
    template : Template
        At most 200 stars, perhaps none.
    stars : Stars
        All stars that were found.
    """
    stars = find_stars(stack[np.newaxis])
    height, width = stack.shape
    column, row = np.rint(stars.x).astype(int), np.rint(stars.y).astype(int)
    inside = (np.minimum(column, row) >= 3) & (column < width - 3) & (row < height - 3)
    x, y, column, row = (values[inside] for values in (stars.x, stars.y, column, row))
    down, across = np.mgrid[-1:2, -1:2].reshape(2, 9, 1)
    peaks = np.nan_to_num(stack[row + down, column + across], nan=-np.inf).max(axis=0)
    unsaturated = peaks < full
    x, y = x[unsaturated], y[unsaturated]
    chosen = _spread_out(x / width, y / height)
    fwhm = stars.fwhm if math.isfinite(stars.fwhm) else USUAL_FWHM
    return Template.measured(stack, x[chosen], y[chosen], fwhm, USUAL_POWER), stars


def _spread_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Choose stars, in order of brightness and with places from 0 to 1, evenly over the field."""
    cell = np.floor(x * CELLS).astype(int) * CELLS + np.floor(y * CELLS).astype(int)
    # The brightest of each cell come first, then the second brightest.
    rank = np.zeros(x.size, int)
    for number in np.unique(cell):
        here = np.flatnonzero(cell == number)
        rank[here] = np.arange(here.size)
    return np.sort(np.argsort(rank, kind="stable")[:STARS])


def compare_stars(
    image: np.ndarray, template: Template, seeing: float | None = None
) -> tuple[Light, float, StarFluxes]:
    """Compare the light of the same stars in an image and in a stack.

    For a given seeing the light is the slope of the fluxes over those of the stack, weighted by their errors
    and clipped at 3 sigma. Otherwise light and blur are fitted together, see
    `stacklib.measurement.light.blur`. The error has a part from that of the profile, which grows with the
    difference of the seeing. Stars are chosen by their flux in the stack, never by that in the image, which
    would make the light of faint images too large.

    Parameters
    ----------
    image : ndarray of float32, shape (height, width)
        An image. NaN means no data; stars with such pixels are left out.
    template : Template
        The stars of the stack.
    seeing : float, optional
        FWHM relative to that of the stack. Default is what the stars tell.

    Returns
    -------
    light : Light
        Count 0 if nothing is known.
    fwhm : float
        FWHM of the stars in the image in pixels, as if the seeing alone blurred them; NaN if unknown.
    fluxes : StarFluxes
        What was compared.
    """
    pair = StarPair(image, template)
    if seeing is not None:
        found = pair.fluxes(seeing, template.power)
        light = slope_of(found)
        return light, seeing * template.fwhm if light.known else math.nan, found
    fitted = pair.fitted()
    if fitted is None:
        return NO_LIGHT, math.nan, pair.fluxes(1.0, template.power)
    stars, fit = fitted
    other = stars.fit(template.power * (1 + template.power_error), fit.seeing, fit.smear)
    change = 0.0 if other is None else other.light - fit.light
    light = Light(fit.light, math.hypot(fit.error, change), stars.count)
    alone = stars.fit(template.power, fit.seeing, spread=NO_SMEAR)
    fwhm = math.nan if alone is None or not light.known else alone.seeing * template.fwhm
    return light, fwhm, pair.fluxes(fit.seeing, template.power, fit.smear)


class FittedStars(NamedTuple):
    """Stars that are fitted together, and what they tell.

    `scatter` is the standard error of their light from what is no noise, as a fraction, `count` their number.
    """

    stacked: StackedStars
    scatter: float
    count: int

    def fit(
        self, power: float, seeing: float = 1.0, smear: float = 0.0, spread: float = SMEAR_SPREAD
    ) -> BlurFit | None:
        """Fit light, seeing and smear from first values, see `StackedStars.fit`."""
        found = self.stacked.fit(power, seeing, smear, spread)
        return found and found._replace(error=math.hypot(found.error, self.scatter * found.light))


class StarPair:
    """An image and a template, with level and noise around each star in the image, (2, stars)."""

    def __init__(self, image: np.ndarray, template: Template) -> None:
        self.image, self.template = np.ascontiguousarray(image, np.float32), template
        self.around = measure_surroundings(self.image, template.x, template.y, template.fwhm)
        self._light = self._measured(template.light.steps)

    def fluxes(self, seeing: float, power: float, smear: float = 0.0) -> StarFluxes:
        """Sum over the usual disc, for a FWHM relative to that of the stack and a smear beyond its own."""
        template = self.template
        filters = make_filters(template.fwhm, power, seeing, (DISC,), smear)
        own, stack = (
            each.sums(filter_, template.x.size)[0]
            for each, filter_ in zip(self._lights(filters.shape[2] - 1), filters, strict=True)
        )
        reach = (filters.shape[2] - 2) * FINENESS
        there = whole_stars(self.image.shape, template.x, template.y, reach)
        r = np.arange(filters.shape[2]) * FINENESS
        errors = np.sqrt(np.sum(2 * math.pi * r * filters[:, 0] ** 2, axis=1) * FINENESS)
        return StarFluxes(
            np.where(there, own, np.nan),
            self.around[1] * errors[0],
            np.where(there, stack, np.nan),
            template.around[1] * errors[1],
        )

    def fitted(self) -> tuple[FittedStars, BlurFit] | None:
        """Weight the stars, sum and fit them; None if there are too few or there is no light."""
        power = self.template.power
        fluxes = self.fluxes(1.0, power)
        first = slope_of(fluxes)
        if not first.known:
            return None
        stars = self._summed(fluxes, first.ratio, self.template.light.steps)
        fit = None if stars is None else stars.fit(power)
        if fit is not None and fit.seeing > WIDER:
            # What is farther out than was measured belongs to these stars.
            steps = steps_of(self.template.fwhm, fit.seeing)
            stars = self._summed(self.fluxes(fit.seeing, power, fit.smear), fit.light, steps)
            fit = None if stars is None else stars.fit(power, fit.seeing, fit.smear)
        return None if stars is None or fit is None else (stars, fit)

    def _summed(self, fluxes: StarFluxes, ratio: float, steps: int) -> FittedStars | None:
        template, lights = self.template, self._lights(steps)
        usable = fluxes.good & whole_stars(self.image.shape, template.x, template.y, steps * FINENESS)
        for light in lights:
            usable &= np.isfinite(light.near.sum(axis=1))
        index = np.flatnonzero(usable)
        if index.size < FEWEST:
            return None
        own, error, stack = (each[index] for each in (fluxes.own, fluxes.error, fluxes.stack))
        least = LEAST_ERROR_OF_FIT * ratio * stack
        # The brighter half tells by how much stars disagree.
        bright = stack >= middle_of(stack)
        _, spread = _scatter((own - ratio * stack)[bright], np.hypot(error, least)[bright])
        least *= spread
        variance = error**2 + least**2
        away, spread = _scatter(own - ratio * stack, np.sqrt(variance))
        weights = np.zeros(template.x.size)
        weights[index] = np.where(away < 3 * spread, stack / variance, 0)
        kept = weights[index] > 0
        if np.count_nonzero(kept) < FEWEST:
            return None
        stacked = StackedStars.of(lights, (self.around[1], template.around[1]), weights, template.fwhm)
        used = weights[index]
        scatter = spread * math.sqrt(np.sum((used * least) ** 2)) / (ratio * np.sum(used * stack))
        return FittedStars(stacked, scatter, int(np.count_nonzero(kept)))

    def _lights(self, steps: int) -> tuple[LightByDistance, LightByDistance]:
        """Return the light by distance in the image and in the stack, at least to some number of steps."""
        template = self.template
        if steps <= template.light.steps:
            return self._light, template.light
        # The seeing is much worse.
        if steps > self._light.steps:
            self._light = self._measured(steps)
        around = template.around[0]
        return self._light, LightByDistance.of(template.image, template.x, template.y, around, steps)

    def _measured(self, steps: int) -> LightByDistance:
        return LightByDistance.of(self.image, self.template.x, self.template.y, self.around[0], steps)


def _scatter(away: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how far values are from their median, in errors, and their spread, at least 1."""
    z = away / error
    z = np.abs(z - middle_of(z))
    return z, max(1.0, 1.4826 * middle_of(z))


def slope_of(fluxes: StarFluxes) -> Light:
    """Return the slope of the fluxes over those of the stack."""
    good = fluxes.good
    flux, error, stack = fluxes.own[good], fluxes.error[good], fluxes.stack[good]
    if flux.size < FEWEST:
        return NO_LIGHT
    # The better half tells a first value.
    certain = stack / np.maximum(error, LEAST_ERROR * stack)
    slope = middle_of((flux / stack)[certain >= middle_of(certain)])
    return Light(*clipped_slope(flux, stack, error, LEAST_ERROR, slope, True, 1.0))
