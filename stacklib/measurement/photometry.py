"""Light of stars in apertures, and how much of it one frame has of that in another image.

Apertures are so wide that the seeing hardly matters (Howell 1989, PASP 101, 616), and each star has its own
background from a ring around it. What seeing moves beyond the aperture is found from a second, wider one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from stacklib.measurement.stars import Stars, find_stars, fit_moffat
from stacklib.utils.compiled import compiled

__all__ = [
    "Apertures",
    "Light",
    "StarLight",
    "choose_stars",
    "fwhm_of",
    "light_of",
    "star_light",
    "structure_light",
]

#: Radius of the aperture in FWHM, and of the wider one in radii of the first.
RADIUS, WIDER = 2.5, 1.6
#: FWHM where the stars do not tell, and smallest radius, in pixels.
USUAL_FWHM, LEAST_RADIUS = 3.0, 3.0
#: Number of stars, and cells along each axis of the field over which they are spread.
STARS, CELLS = 200, 6
#: A star is alone if no neighbor within the aperture has more than this fraction of its flux. Where fewer
#: than `ENOUGH` are, as in a globular cluster, the next value holds.
NEIGHBORS, ENOUGH = (0.02, 0.1, 0.5, math.inf), 30
#: A star is used from this flux in the stack on, in errors.
SIGNIFICANT = 8.0
#: Least error of a star, as a fraction of its flux: pixels and flat fields are not perfect.
LEAST_ERROR = 0.01
#: Number of stars whose shape is fitted.
SHAPES = 20
#: Fewest stars that tell the light of a frame.
FEWEST = 5
#: Usual change of the light in the aperture from the seeing. A correction is trusted in comparison to it.
SEEING = 0.01
#: Band-pass filters (sigma in pixels, of a plane binned by the first number) that see structure, how
#: significant it must be, and the fewest pixels.
BANDS, STRUCTURE, PIXELS = ((1, 1.5, 5.0), (4, 1.5, 5.0)), 6.0, 100


class Apertures(NamedTuple):
    """Positions of stars in pixels, and radii of the two apertures and of the ring around them."""

    x: np.ndarray
    y: np.ndarray
    inner: float
    outer: float
    ring: float


class StarLight(NamedTuple):
    """Fluxes in the two apertures and their errors, float64 (stars, 2), and level of the background (stars,).

    NaN where there are not all data.
    """

    flux: np.ndarray
    error: np.ndarray
    level: np.ndarray


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


def choose_stars(stack: np.ndarray, full: float = math.inf) -> tuple[Apertures, Stars]:
    """Find isolated stars below saturation, spread over the field, in a stack of frames.

    Parameters
    ----------
    stack : ndarray of float32, shape (height, width)
        Stack with little noise. NaN means no data.
    full : float
        Value from which on samples are saturated.

    Returns
    -------
    apertures : Apertures
        At most 200 stars, perhaps none.
    stars : Stars
        All stars that were found.
    """
    stars = find_stars(stack[np.newaxis])
    fwhm = stars.fwhm if math.isfinite(stars.fwhm) else USUAL_FWHM
    inner = max(LEAST_RADIUS, RADIUS * fwhm)
    outer = WIDER * inner
    sizes = inner, outer, outer + 1 + max(4.0, 0.6 * inner)
    x, y, flux = stars.x, stars.y, stars.flux
    height, width = stack.shape
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    good = (np.minimum(x, y) >= inner) & (x <= width - 1 - inner) & (y <= height - 1 - inner) & (flux > 0)
    if not good.any():
        return Apertures(*np.empty((2, 0)), *sizes), stars
    peaks = ndimage.maximum_filter(np.nan_to_num(stack, nan=-np.inf), size=3)
    good &= peaks[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] < full
    brightest = _brightest_neighbor(np.c_[x, y], flux, inner + fwhm)
    for most in NEIGHBORS:
        alone = np.flatnonzero(good & (brightest <= most * flux))
        if alone.size >= ENOUGH:
            break
    chosen = _spread_out(x[alone] / width, y[alone] / height)
    return Apertures(x[alone][chosen], y[alone][chosen], *sizes), stars


def _brightest_neighbor(places: np.ndarray, flux: np.ndarray, radius: float) -> np.ndarray:
    """Return the largest flux of another star within a radius of each star."""
    pairs = cKDTree(places).query_pairs(radius, output_type="ndarray")
    brightest = np.zeros(flux.size)
    np.maximum.at(brightest, pairs[:, 0], flux[pairs[:, 1]])
    np.maximum.at(brightest, pairs[:, 1], flux[pairs[:, 0]])
    return brightest


def _spread_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Choose stars, in order of brightness and with places from 0 to 1, evenly over the field."""
    cell = np.minimum((x * CELLS).astype(int), CELLS - 1) * CELLS + np.minimum(
        (y * CELLS).astype(int), CELLS - 1
    )
    # The brightest of each cell come first, then the second brightest.
    rank = np.zeros(x.size, int)
    for number in np.unique(cell):
        here = np.flatnonzero(cell == number)
        rank[here] = np.arange(here.size)
    return np.sort(np.argsort(rank, kind="stable")[:STARS])


def star_light(plane: np.ndarray, apertures: Apertures) -> StarLight:
    """Measure the light of stars in a plane.

    The background of a star is the mean of its ring, clipped at 3 sigma about the median; errors are those of
    the noise in the ring.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        A frame or stack. NaN means no data; stars with such pixels have no flux.
    apertures : Apertures
        The stars.

    Returns
    -------
    StarLight
        Fluxes in the units of the plane.
    """
    flux, error = np.full((2, apertures.x.size, 2), np.nan)
    level = np.full(apertures.x.size, np.nan)
    _sum_apertures(plane, apertures, flux, error, level)
    return StarLight(flux, error, level)


@compiled
def _sum_apertures(plane, apertures, flux, error, levels):
    x, y, inner, outer, ring = apertures
    height, width = plane.shape
    values = np.empty(int(2 * ring + 3) ** 2, np.float32)
    for k in range(x.size):
        sums, areas = np.zeros(2), np.zeros(2)
        found = 0
        first, last = max(0, int(y[k] - ring)), min(height - 1, int(y[k] + ring) + 1)
        left, right = max(0, int(x[k] - ring)), min(width - 1, int(x[k] + ring) + 1)
        for r in range(first, last + 1):
            for c in range(left, right + 1):
                distance = math.sqrt((r - y[k]) ** 2 + (c - x[k]) ** 2)
                value = plane[r, c]
                for j in range(2):
                    radius = inner if j == 0 else outer
                    # A pixel on the edge counts in part.
                    part = min(max(radius + 0.5 - distance, 0.0), 1.0)
                    if part > 0.0:
                        sums[j] += part * value
                        areas[j] += part
                if outer + 1.0 < distance <= ring and value == value:
                    values[found] = value
                    found += 1
        if found < 20:
            continue
        some = np.sort(values[:found])
        middle = some[found // 2]
        sigma = 1.4826 * np.median(np.abs(some - middle))
        level, count = 0.0, 0
        for value in some:
            if abs(value - middle) <= 3 * sigma:
                level += value
                count += 1
        level /= count
        levels[k] = level
        for j in range(2):
            radius = inner if j == 0 else outer
            inside = min(x[k], y[k]) >= radius and x[k] <= width - 1 - radius and y[k] <= height - 1 - radius
            if inside:
                # NaN within the aperture makes the sum NaN.
                flux[k, j] = sums[j] - level * areas[j]
                error[k, j] = sigma * math.sqrt(areas[j] * (1 + areas[j] / count))


def light_of(own: StarLight, stack: StarLight) -> Light:
    """Compare the light of the same stars in a frame and in a stack.

    The ratio is the slope of the fluxes over those of the stack, weighted by the errors and clipped at 3
    sigma. Fluxes of faint stars are not selected by their value in the frame, which would make it too large.
    What the wider aperture adds is trusted as far as its error allows.

    Parameters
    ----------
    own, stack : StarLight
        Light of the same stars.

    Returns
    -------
    Light
        Count 0 if nothing is known.
    """
    narrow, wide = (
        _slope(own.flux[:, j], own.error[:, j], stack.flux[:, j], stack.error[:, j]) for j in (0, 1)
    )
    if not (narrow.known and wide.known):
        return narrow
    # The errors of both have the inner aperture in common.
    error = math.sqrt(max(wide.error**2 - narrow.error**2, 0)) / narrow.ratio
    trust = SEEING**2 / (SEEING**2 + error**2)
    ratio = narrow.ratio + trust * (wide.ratio - narrow.ratio)
    return Light(ratio, narrow.error + trust * (wide.error - narrow.error), narrow.count)


def _slope(flux: np.ndarray, error: np.ndarray, stack: np.ndarray, stack_error: np.ndarray) -> Light:
    with np.errstate(invalid="ignore"):
        good = np.isfinite(flux) & (stack > SIGNIFICANT * stack_error)
    if np.count_nonzero(good) < FEWEST:
        return NO_LIGHT
    flux, error, stack = flux[good], error[good], stack[good]
    # The better half tells a first value.
    certain = stack / np.maximum(error, LEAST_ERROR * stack)
    slope = float(np.median((flux / stack)[certain >= np.median(certain)]))
    for _ in range(20):
        variance = error**2 + (LEAST_ERROR * slope * stack) ** 2
        z = (flux - slope * stack) / np.sqrt(variance)
        middle = float(np.median(z))
        spread = max(1.0, 1.4826 * float(np.median(np.abs(z - middle))))
        kept = np.abs(z - middle) < 3 * spread
        weights = stack[kept] / variance[kept]
        last, slope = slope, float(np.sum(weights * flux[kept]) / np.sum(weights * stack[kept]))
        if abs(slope - last) < 1e-7 * abs(slope):
            break
    if not (math.isfinite(slope) and slope > 0):
        return NO_LIGHT
    sigma = spread / math.sqrt(np.sum(weights * stack[kept]))
    return Light(slope, float(sigma), int(np.count_nonzero(kept)))


def fwhm_of(plane: np.ndarray, apertures: Apertures, light: StarLight) -> float:
    """Fit the common shape of the brightest stars of a plane, and return its FWHM in pixels.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        The plane in which the light was measured.
    apertures, light : Apertures, StarLight
        The stars and their light.

    Returns
    -------
    float
        NaN if there are no stars.
    """
    with np.errstate(invalid="ignore"):
        certain = light.flux[:, 0] / light.error[:, 0]
    certain = np.where(np.isfinite(certain), certain, 0)
    reach = max(2, math.ceil(0.5 * apertures.inner))
    around = np.arange(-reach, reach + 1)
    parts = []
    for k in np.argsort(-certain, kind="stable")[:SHAPES]:
        row, column = round(apertures.y[k]), round(apertures.x[k])
        inside = reach <= row < plane.shape[0] - reach and reach <= column < plane.shape[1] - reach
        if certain[k] < SIGNIFICANT or not inside:
            continue
        dy, dx = np.meshgrid(row + around - apertures.y[k], column + around - apertures.x[k], indexing="ij")
        near = dx**2 + dy**2 <= reach**2
        values = plane[row - reach : row + reach + 1, column - reach : column + reach + 1]
        values = (values[near].astype(np.float64) - light.level[k]) / light.flux[k, 0]
        weights = np.full(values.size, min(certain[k], 100.0))
        parts.append(np.stack([dx[near], dy[near], values, weights]))
    if not parts:
        return math.nan
    return fit_moffat(*np.concatenate(parts, axis=1))[0]


def structure_light(plane: np.ndarray, stack: np.ndarray) -> Light:
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
        found = _band_slope(_binned(plane, side), _binned(stack, side), fine, coarse)
        if found.known and not best.error / best.ratio < found.error / found.ratio:
            best = found
    return best


def _binned(plane: np.ndarray, side: int) -> np.ndarray:
    if side == 1:
        return plane
    rows, columns = (size // side for size in plane.shape)
    return plane[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3))


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
    for _ in range(20):
        variance = noise**2 + (0.05 * slope * others) ** 2
        z = (own - slope * others) / np.sqrt(variance)
        spread = max(1.0, 1.4826 * float(np.median(np.abs(z))))
        kept = np.abs(z) < 3 * spread
        weights = others[kept] / variance[kept]
        last, slope = slope, float(np.sum(weights * own[kept]) / np.sum(weights * others[kept]))
        if abs(slope - last) < 1e-7 * abs(slope):
            break
    if not (math.isfinite(slope) and slope > 0):
        return NO_LIGHT
    # Neighbors within the finer filter are not independent.
    independent = 4 * math.pi * fine**2
    error = spread * math.sqrt(independent / np.sum(weights * others[kept]))
    return Light(slope, error, int(np.count_nonzero(kept)))
