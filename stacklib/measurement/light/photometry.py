"""Light of one image relative to another one, by the stars in both.

A star is measured by a sum over a disc minus the mean of a ring around it. Where the seeing differs, the disc
of the sharper image is blurred as the stars of the other one are: then both see the same fraction of a star,
and of its neighbors. So the disc can be small, which makes little noise, and stars need not be isolated. See
`stacklib.measurement.light.profiles`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

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

#: Radius of the disc, of a smaller one that tells the seeing, and of a wide one, all in FWHM.
DISC, CORE, WIDE = 1.5, 0.7, 2.2
#: Number of stars, cells along each axis of the field over which they are spread, and number of the brightest
#: ones, which tell the seeing.
STARS, CELLS, BRIGHTEST = 200, 6, 60
#: A star is used from this flux in the stack on, in errors.
SIGNIFICANT = 20.0
#: Least error of a star, as a fraction of its flux: pixels and flat fields are not perfect.
LEAST_ERROR = 0.01
#: Range of the seeing, relative to that of the stack, and how well it is found. Up to `WIDER`, stars of the
#: stack need not be measured again.
SEEING, EXACT, WIDER = (0.5, 2.5), 1e-3, 1.25


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

    The light is the slope of the fluxes over those of the stack, weighted by their errors and clipped at 3
    sigma. Its error has a part from that of the profile, which grows with the difference of the seeing.
    Stars are chosen by their flux in the stack, never by that in the image, which would make the light of
    faint images too large.

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
        FWHM of the stars in the image in pixels, that for which discs of two sizes give the same light; NaN
        if nothing is known.
    fluxes : StarFluxes
        What was compared.
    """
    pair = StarPair(image, template)
    given, power = seeing, template.power
    seeing = pair.seeing(power) if given is None else given
    (found,) = pair.fluxes(seeing, power, DISC)
    light = slope_of(found)
    if light.known and given is None:
        other = power * (1 + template.power_error)
        (shifted,) = pair.fluxes(pair.seeing(other), other, DISC)
        change = slope_of(shifted).ratio - light.ratio
        if math.isfinite(change):
            light = light._replace(error=math.hypot(light.error, change))
    return light, seeing * template.fwhm if light.known else math.nan, found


class StarPair:
    """An image and a template, with level and noise around each star in the image, (2, stars)."""

    def __init__(self, image: np.ndarray, template: Template) -> None:
        self.image, self.template = np.ascontiguousarray(image, np.float32), template
        self.around = measure_surroundings(self.image, template.x, template.y, template.fwhm)
        self._light = self._measured(template.light.steps)

    def fluxes(
        self, seeing: float, power: float, *discs: float, stars: int | None = None
    ) -> list[StarFluxes]:
        """Sum over discs of some radii in FWHM, for a FWHM relative to that of the stack."""
        filters = make_filters(self.template.fwhm, power, seeing, discs)
        return self._sums(filters, min(self.template.x.size, stars or self.template.x.size))

    def disc_and_wings(self, power: float) -> list[StarFluxes]:
        """Sum over the usual disc, and between it and a wide one, around the brightest stars."""
        template = self.template
        filters = make_filters(template.fwhm, power, self.seeing(power), (DISC, WIDE))
        filters[:, 1] -= filters[:, 0]
        return self._sums(filters, min(template.x.size, BRIGHTEST))

    def _sums(self, filters: np.ndarray, stars: int) -> list[StarFluxes]:
        """Sum the first stars times filters (2, filters, ends of steps) of the image and of the stack."""
        template = self.template
        flux = np.stack(
            [each.sums(own, stars) for each, own in zip(self._lights(filters), filters, strict=True)]
        )
        reach = (filters.shape[2] - 2) * FINENESS
        flux[:, :, ~whole_stars(self.image.shape, template.x[:stars], template.y[:stars], reach)] = np.nan
        r = np.arange(filters.shape[2]) * FINENESS
        errors = np.sqrt(np.sum(2 * math.pi * r * filters**2, axis=2) * FINENESS)
        own, stack = self.around[1, :stars], template.around[1, :stars]
        return [
            StarFluxes(flux[0, k], own * errors[0, k], flux[1, k], stack * errors[1, k])
            for k in range(filters.shape[1])
        ]

    def _lights(self, filters: np.ndarray) -> tuple[LightByDistance, LightByDistance]:
        """Return the light by distance in the image and in the stack, as far as the filters reach."""
        template, steps = self.template, filters.shape[2] - 1
        if steps <= template.light.steps:
            return self._light, template.light
        # The seeing is much worse.
        if steps > self._light.steps:
            self._light = self._measured(steps)
        around = template.around[0]
        return self._light, LightByDistance.of(template.image, template.x, template.y, around, steps)

    def _measured(self, steps: int) -> LightByDistance:
        return LightByDistance.of(self.image, self.template.x, self.template.y, self.around[0], steps)

    def seeing(self, power: float) -> float:
        """Find the FWHM relative to that of the stack for which core and disc give the same light."""
        last, value = 1.0, self._excess(1.0, power)
        if not math.isfinite(value):
            return 1.0
        # The core has about this much less light where the stars are this much wider.
        seeing = min(max(1 - 0.8 * value, SEEING[0]), SEEING[1])
        for _ in range(8):
            other = self._excess(seeing, power)
            if not math.isfinite(other) or other == value or abs(seeing - last) < EXACT:
                break
            step = (seeing - last) * other / (value - other)
            last, value = seeing, other
            seeing = min(max(seeing + min(max(step, -0.3), 0.3), SEEING[0]), SEEING[1])
        return seeing

    def _excess(self, seeing: float, power: float) -> float:
        """Compare the light in the core with that in the disc; positive if the seeing is better.

        The brightest stars tell it.
        """
        core, disc = map(slope_of, self.fluxes(seeing, power, CORE, DISC, stars=BRIGHTEST))
        return core.ratio / disc.ratio - 1 if core.known and disc.known else math.nan


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
