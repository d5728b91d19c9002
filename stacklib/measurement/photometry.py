"""Light of one image relative to another one, by the stars in both.

A star is measured by a sum over a disc minus the mean of a ring around it. Where the seeing differs, the disc
of the sharper image is blurred as the stars of the other one are: then both see the same fraction of a star,
and of its neighbors. So the disc can be small, which makes little noise, and stars need not be isolated. The
seeing is taken to stretch a Moffat profile (Moffat 1969, A&A 3, 455; Trujillo et al. 2001, MNRAS 328, 977).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import interpolate, ndimage, special

from stacklib.measurement.stars import Stars, find_stars
from stacklib.utils.compiled import compiled
from stacklib.utils.ranks import median_of

__all__ = [
    "Light",
    "StarFluxes",
    "Template",
    "best_power",
    "bin_plane",
    "compare_stars",
    "compare_structure",
    "compare_wings",
    "make_template",
]

#: Radius of the disc, of a smaller one that tells the seeing, of a wide one, and of both ends of the ring,
#: all in FWHM.
DISC, CORE, WIDE, RING = 1.5, 0.7, 2.2, (2.4, 3.8)
#: The edges are blurred by a Gaussian of this sigma in pixels: a sharp edge would depend on the pixel grid.
EDGE = 0.7
#: FWHM in pixels and power of the Moffat profile where the stars do not tell, and powers that are tried.
USUAL_FWHM, USUAL_POWER = 3.0, 3.0
POWERS = (2.2, 2.6, 3.0, 3.5, 4.2, 5.0)
#: How much the power differs from telescope to telescope: standard deviation of its logarithm.
POWER_SPREAD = 0.2
#: Frequencies (per pixel, times 2 pi) and distances (pixels) at which filters are computed.
FREQUENCIES, FINENESS = np.linspace(1e-3, 4.5, 500), 0.1
#: Number of stars, cells along each axis of the field over which they are spread, and number of the brightest
#: ones, which tell the seeing.
STARS, CELLS, BRIGHTEST = 200, 6, 60
#: A star is used from this flux in the stack on, in errors.
SIGNIFICANT = 20.0
#: Least error of a star, as a fraction of its flux: pixels and flat fields are not perfect.
LEAST_ERROR = 0.01
#: The same where two sums over one star are compared, in which such errors cancel.
LEAST_ERROR_OF_WINGS = 0.003
#: Fewest stars that tell the light of an image.
FEWEST = 5
#: Percentile of the scatter in rings that is noise.
QUIET = 25
#: Range of the seeing, relative to that of the stack, and how well it is found. Up to `WIDER`, stars of the
#: stack need not be measured again.
SEEING, EXACT, WIDER = (0.5, 2.5), 1e-3, 1.25
#: Band-pass filters (sigma in pixels, of a plane binned by the first number) that see structure, how
#: significant it must be, and the fewest pixels.
BANDS, STRUCTURE, PIXELS = ((1, 1.5, 5.0), (4, 1.5, 5.0)), 6.0, 100
#: A pixel without data is filled from a square of this side around it, if this fraction of it has data.
AROUND_HOLE, LEAST_AROUND = 5, 0.3


class Light(NamedTuple):
    """Light of an image relative to another one, its standard error, and the number of stars or pixels."""

    ratio: float
    error: float
    count: int

    @property
    def known(self) -> bool:
        """Whether there is light that differs from none."""
        return self.count >= FEWEST and self.ratio > 5 * self.error


NO_LIGHT = Light(math.nan, math.nan, 0)


class LightByDistance(NamedTuple):
    """Light of stars by the distance from their middles in steps of `FINENESS`, float64 (stars, steps).

    A pixel between two ends of a step is shared out: `near` has the part of the near end, `far` that of the
    other. So a sum of pixels times a filter, known at the ends, is one of as many terms as there are steps.
    """

    near: np.ndarray
    far: np.ndarray

    @classmethod
    def of(
        cls, image: np.ndarray, x: np.ndarray, y: np.ndarray, level: np.ndarray, steps: int
    ) -> LightByDistance:
        """Measure stars in an image above the level around them."""
        light = cls(np.zeros((x.size, steps)), np.zeros((x.size, steps)))
        _share_out(image, x, y, level, *light)
        return light

    @property
    def steps(self) -> int:
        return self.near.shape[1]

    def sums(self, filters: np.ndarray, stars: int) -> np.ndarray:
        """Sum the light of the first stars times filters (filters, ends of steps): (filters, stars)."""
        found = np.empty((len(filters), stars))
        _sum(self.near[:stars], self.far[:stars], filters, found)
        return found


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
        around = _surroundings(image, x, y, fwhm)
        light = LightByDistance.of(image, x, y, around[0], _steps(fwhm, WIDER))
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
    pair = _Pair(image, template)
    given, power = seeing, template.power
    seeing = pair.seeing(power) if given is None else given
    (found,) = pair.fluxes(seeing, power, DISC)
    light = _slope(found)
    if light.known and given is None:
        other = power * (1 + template.power_error)
        (shifted,) = pair.fluxes(pair.seeing(other), other, DISC)
        change = _slope(shifted).ratio - light.ratio
        if math.isfinite(change):
            light = light._replace(error=math.hypot(light.error, change))
    return light, seeing * template.fwhm if light.known else math.nan, found


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
    pair = _Pair(image, template)
    excess = np.full((len(POWERS), 2), np.nan)
    for k, power in enumerate(POWERS):
        disc, wings = pair.disc_and_wings(power)
        light = _slope(disc)
        if light.known:
            good = disc.good
            more = (wings.own - light.ratio * wings.stack)[good]
            stack = disc.stack[good]
            slope, error, count = _clipped_slope(
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
        misfit += interpolate.CubicSpline(tried, own)(power)
    likely = np.exp((misfit.min() - misfit) / 2)
    likely /= likely.sum()
    mean = float(likely @ power)
    return math.exp(mean), math.sqrt(likely @ (power - mean) ** 2)


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
    share = ndimage.uniform_filter(there.astype(np.float32), AROUND_HOLE)
    near = ndimage.uniform_filter(np.where(there, image, np.float32(0)), AROUND_HOLE)
    with np.errstate(divide="ignore", invalid="ignore"):
        filled = np.where(share >= LEAST_AROUND, near / share, np.float32(np.nan))
    return np.where(there, image, filled)


class _Pair:
    """An image and a template, with level and noise around each star in the image, (2, stars)."""

    def __init__(self, image: np.ndarray, template: Template) -> None:
        self.image, self.template = np.ascontiguousarray(image, np.float32), template
        self.around = _surroundings(self.image, template.x, template.y, template.fwhm)
        self._light = self._measured(template.light.steps)

    def fluxes(
        self, seeing: float, power: float, *discs: float, stars: int | None = None
    ) -> list[StarFluxes]:
        """Sum over discs of some radii in FWHM, for a FWHM relative to that of the stack."""
        filters = _filters(self.template.fwhm, power, seeing, discs)
        return self._sums(filters, min(self.template.x.size, stars or self.template.x.size))

    def disc_and_wings(self, power: float) -> list[StarFluxes]:
        """Sum over the usual disc, and between it and a wide one, around the brightest stars."""
        template = self.template
        filters = _filters(template.fwhm, power, self.seeing(power), (DISC, WIDE))
        filters[:, 1] -= filters[:, 0]
        return self._sums(filters, min(template.x.size, BRIGHTEST))

    def _sums(self, filters: np.ndarray, stars: int) -> list[StarFluxes]:
        """Sum the first stars times filters (2, filters, ends of steps) of the image and of the stack."""
        template = self.template
        flux = np.stack(
            [each.sums(own, stars) for each, own in zip(self._lights(filters), filters, strict=True)]
        )
        reach = (filters.shape[2] - 2) * FINENESS
        flux[:, :, ~_inside(self.image.shape, template.x[:stars], template.y[:stars], reach)] = np.nan
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
        core, disc = map(_slope, self.fluxes(seeing, power, CORE, DISC, stars=BRIGHTEST))
        return core.ratio / disc.ratio - 1 if core.known and disc.known else math.nan


def _inside(shape: tuple[int, ...], x: np.ndarray, y: np.ndarray, reach: float) -> np.ndarray:
    """Return the stars around which an image has all pixels within some distance, bool (stars,)."""
    height, width = shape
    first, last, left, right = (
        np.ceil(y - reach),
        np.floor(y + reach),
        np.ceil(x - reach),
        np.floor(x + reach),
    )
    return (first >= 0) & (left >= 0) & (last < height) & (right < width)


def _steps(fwhm: float, seeing: float) -> int:
    """Return the number of steps of the filters for a FWHM relative to that of the stack."""
    reach = RING[1] * fwhm * max(seeing, 1) + 4 * EDGE + 2 * abs(seeing - 1) * fwhm
    return math.ceil(reach / FINENESS) - 1


def _filters(fwhm: float, power: float, seeing: float, discs: Sequence[float]) -> np.ndarray:
    """Return the filters of an image and of the stack, (2, discs, distances in steps of `FINENESS`).

    They are Hankel transforms of products of the transforms of disc and ring, the blurred edge, and, for the
    sharper of the two images, of the kernel that makes one profile from the other.
    """
    k = FREQUENCIES
    widest = fwhm * max(seeing, 1)
    inner, outer = (radius * widest for radius in RING)
    ring, edge = _disc(k, outer) - _disc(k, inner), np.exp(-((k * EDGE) ** 2) / 2)
    blur = np.exp(-abs(_profile(fwhm * seeing, power) - _profile(fwhm, power)))
    count = _steps(fwhm, seeing) + 1
    transform = _transform(1 << (count - 1).bit_length())[:count]
    sharper = 1 if seeing > 1 else 0
    filters = np.empty((2, len(discs), k.size))
    for number, radius in enumerate(discs):
        disc = radius * widest
        both = (_disc(k, disc) - ring * disc**2 / (outer**2 - inner**2)) * edge
        filters[1 - sharper, number] = both
        filters[sharper, number] = both * blur
    return np.ascontiguousarray(np.moveaxis(transform @ np.moveaxis(filters, 2, 1), 1, 2))


@lru_cache(maxsize=8)
def _transform(count: int) -> np.ndarray:
    """Return the matrix of the Hankel transform to the first distances."""
    k = FREQUENCIES
    return special.j0(np.outer(np.arange(count) * FINENESS, k)) * (k * np.gradient(k) / (2 * math.pi))


def _disc(k: np.ndarray, radius: float) -> np.ndarray:
    """Return the transform of a disc."""
    return 2 * math.pi * radius * special.j1(k * radius) / k


@lru_cache(maxsize=64)
def _profile(fwhm: float, power: float) -> np.ndarray:
    """Return the logarithm of the transform of a Moffat profile of flux 1."""
    k, order = FREQUENCIES * _width(fwhm, power), power - 1
    bessel = np.log(special.kve(order, k)) - k
    return order * np.log(k / 2) + bessel + math.log(2) - special.gammaln(order)


def _width(fwhm: float, power: float) -> float:
    """Return the width of a Moffat profile."""
    return 0.5 * fwhm / math.sqrt(2 ** (1 / power) - 1)


def _surroundings(image: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm: float) -> np.ndarray:
    """Return level and noise in the ring around each star, (2, stars)."""
    found = np.full((2, x.size), np.nan)
    _measure_rings(image, x, y, RING[0] * fwhm, RING[1] * fwhm, found)
    if np.isfinite(found[1]).any():
        # In a cluster the rings are full of stars, which are no noise.
        found[1, np.isfinite(found[1])] = np.nanpercentile(found[1], QUIET)
    return found


@compiled
def _measure_rings(image, x, y, inner, outer, found):
    height, width = image.shape
    values = np.empty(int(2 * outer + 3) ** 2, np.float32)
    for k in range(x.size):
        count = 0
        for r in range(max(0, int(y[k] - outer)), min(height, int(y[k] + outer) + 2)):
            for c in range(max(0, int(x[k] - outer)), min(width, int(x[k] + outer) + 2)):
                value = image[r, c]
                if inner < math.sqrt((r - y[k]) ** 2 + (c - x[k]) ** 2) < outer and value == value:
                    values[count] = value
                    count += 1
        if count >= 20:
            middle = np.float32(median_of(values[:count]))
            found[0, k] = middle
            for i in range(count):
                values[i] = abs(values[i] - middle)
            found[1, k] = 1.4826 * median_of(values[:count])


@compiled
def _share_out(image, x, y, level, near, far):
    """Share the pixels around each star out to both ends of their steps, see `LightByDistance`."""
    height, width = image.shape
    steps = near.shape[1]
    reach = steps * FINENESS
    places = np.empty(int(2 * reach) + 2)
    for k in range(x.size):
        top, left = max(int(np.ceil(y[k] - reach)), 0), max(int(np.ceil(x[k] - reach)), 0)
        bottom = min(int(np.floor(y[k] + reach)), height - 1)
        columns = min(int(np.floor(x[k] + reach)), width - 1) + 1 - left
        for r in range(top, bottom + 1):
            down = (r - y[k]) ** 2
            for c in range(columns):
                places[c] = math.sqrt(down + (left + c - x[k]) ** 2) / FINENESS
            for c in range(columns):
                j = int(places[c])
                if j < steps:
                    # Filters add up to nearly 0, but not quite on a grid of pixels.
                    value = image[r, left + c] - level[k]
                    beyond = (places[c] - j) * value
                    near[k, j] += value - beyond
                    far[k, j] += beyond


@compiled
def _sum(near, far, filters, found):
    """Sum light by distance times filters, see `LightByDistance`."""
    for k in range(near.shape[0]):
        for d in range(filters.shape[0]):
            total = 0.0
            for j in range(filters.shape[1] - 1):
                total += near[k, j] * filters[d, j] + far[k, j] * filters[d, j + 1]
            found[d, k] = total


def _slope(fluxes: StarFluxes) -> Light:
    """Return the slope of the fluxes over those of the stack."""
    return Light(*_slope_of_stars(*fluxes))


@compiled
def _slope_of_stars(flux, error, stack, stack_error):
    """Return slope, error and number of stars that can be compared, as for `Light`."""
    good = np.isfinite(flux) & (stack > SIGNIFICANT * stack_error)
    flux, error, stack = flux[good], error[good], stack[good]
    if flux.size < FEWEST:
        return np.nan, np.nan, 0
    # The better half tells a first value.
    certain = stack / np.maximum(error, LEAST_ERROR * stack)
    slope = np.median((flux / stack)[certain >= np.median(certain)])
    return _clipped_slope(flux, stack, error, LEAST_ERROR, slope, True, 1.0)


@compiled
def _clipped_slope(own, others, noise, fraction, slope, centred, independent):
    """Return the slope of values over others, clipped at 3 sigma, from a first value on; see `Light`.

    The error of a value is its noise and a `fraction` of it. Residuals are clipped about their median if
    `centred`, else about 0. `independent` values in a row have the same noise.
    """
    spread, weight, kept = 1.0, 0.0, 0
    z, away, variance = np.empty(own.size), np.empty(own.size), np.empty(own.size)
    for _ in range(20):
        for i in range(own.size):
            variance[i] = noise[i] ** 2 + (fraction * slope * others[i]) ** 2
            z[i] = (own[i] - slope * others[i]) / math.sqrt(variance[i])
        middle = np.median(z) if centred else 0.0
        for i in range(own.size):
            away[i] = abs(z[i] - middle)
        spread = max(1.0, 1.4826 * np.median(away))
        total, weight, kept = 0.0, 0.0, 0
        for i in range(own.size):
            if away[i] < 3 * spread:
                total += others[i] / variance[i] * own[i]
                weight += others[i] / variance[i] * others[i]
                kept += 1
        last, slope = slope, total / weight
        if abs(slope - last) < 1e-7 * abs(slope):
            break
    if not (math.isfinite(slope) and slope > 0):
        return np.nan, np.nan, 0
    return slope, spread * math.sqrt(independent / weight), kept


def compare_structure(plane: np.ndarray, stack: np.ndarray) -> Light:
    """Compare the light of a frame with that of a stack where there are too few stars.

    The slope of the band-passed pixels over those of the stack, where these exceed 6 sigma, clipped at 3
    sigma. Two bands are tried, the finer of which sees stars and filaments, the other one nebulae.

    Parameters
    ----------
    plane, stack : ndarray of float32, shape (height, width)
        A frame and a stack with less noise. NaN means no data.

    Returns
    -------
    Light
        Count 0 if there is no structure.
    """
    best = NO_LIGHT
    for side, fine, coarse in BANDS:
        found = _band_slope(bin_plane(plane, side), bin_plane(stack, side), fine, coarse)
        if found.known and not best.error / best.ratio < found.error / found.ratio:
            best = found
    return best


def bin_plane(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the means over squares of a plane, float32; the plane itself for a side of 1."""
    if side == 1:
        return plane
    rows, columns = (size // side for size in plane.shape)
    parts = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return parts.mean(axis=(1, 3), dtype=np.float32)


def _band_slope(plane: np.ndarray, stack: np.ndarray, fine: float, coarse: float) -> Light:
    missing = ~(np.isfinite(plane) & np.isfinite(stack))
    if missing.mean() > 0.9:
        return NO_LIGHT
    reach = math.ceil(2 * coarse)
    near = ndimage.maximum_filter(missing, size=2 * reach + 1) if missing.any() else missing
    own, others = (
        ndimage.gaussian_filter(filled, fine) - ndimage.gaussian_filter(filled, coarse)
        for filled in (np.where(missing, np.median(values[~missing]), values) for values in (plane, stack))
    )
    own, others = own[~near], others[~near]
    if own.size < PIXELS:
        return NO_LIGHT
    noise, stack_noise = (1.4826 * float(np.median(np.abs(v - np.median(v)))) for v in (own, others))
    chosen = np.abs(others) > STRUCTURE * stack_noise
    own, others = own[chosen].astype(np.float64), others[chosen].astype(np.float64)
    if own.size < PIXELS or noise == 0:
        return NO_LIGHT
    slope = float(np.median(own / others))
    # Neighbors within the finer filter are not independent.
    independent = 4 * math.pi * fine**2
    return Light(*_clipped_slope(own, others, np.full(own.size, noise), 0.05, slope, False, independent))
