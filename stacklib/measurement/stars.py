"""Find the stars of a frame, fit their common shape, and match them with another frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy

from stacklib.errors import IntegrationError

__all__ = [
    "StarPlaces",
    "Stars",
    "find_stars",
    "mad_sigma",
    "match",
    "match_all",
    "pack_stars",
    "require_sep",
    "star_places",
    "unpack_stars",
]

#: Standard deviation over median absolute deviation.
MAD_SIGMA = 1.482602218505602
#: Detection threshold in sigmas, and mesh size of the background in pixels.
DETECTION, MESH = 5.0, 32
#: The same for places: fainter, in an image smoothed by a Gaussian of this many pixels (sigma).
FAINT_DETECTION, SMOOTHED = 1.5, 1.5
#: Number of stars whose shape is fitted, and radius around their centers in pixels.
SHAPES, REACH = 60, 9
#: Stars above this fraction of the brightest sample of the frame are saturated, if it is near 1.
SATURATED = 0.85
#: Radius at a tenth of the maximum of a Gaussian star, in FWHM.
TENTH = 0.9114
#: Largest distance of the two centers of a star, in pixels.
MOVED = 1.0
#: Number of bright stars to match, largest offset, and tolerance of a match in pixels.
MATCHED, FARTHEST, CLOSE = 200, 24.0, 1.5


@dataclass(frozen=True)
class Stars:
    """Stars of one frame, brightest first: centers in pixels, and flux above the background.

    `fwhm` (pixels) and `eccentricity` are their common shape, NaN if not measured.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    fwhm: float
    eccentricity: float


def pack_stars(stars: Sequence[Stars]) -> dict[str, np.ndarray]:
    """Return the stars of frames as arrays by name, for the cache."""
    return {
        "count": np.array([each.x.size for each in stars]),
        "places": np.concatenate([[each.x, each.y, each.flux] for each in stars], axis=1),
        "shape": np.array([[each.fwhm, each.eccentricity] for each in stars], dtype=np.float64),
    }


def unpack_stars(arrays: Mapping[str, np.ndarray]) -> list[Stars]:
    """Return what `pack_stars` turned into arrays."""
    places = np.split(arrays["places"], np.cumsum(arrays["count"])[:-1], axis=1)
    return [Stars(*each, *shape) for each, shape in zip(places, arrays["shape"].tolist(), strict=True)]


# stars of one frame ------------------------------------------------------------------------------


def require_sep() -> Any:
    """Import sep, or raise `IntegrationError` if it is not installed."""
    # Late: few runs need it.
    try:
        import sep
    except ImportError as error:
        raise IntegrationError(
            "finding stars needs the package sep; install it with: pip install sep"
        ) from error
    return sep


def find_stars(image: np.ndarray) -> Stars:
    """Find the stars in the mean of the channels of a frame (channels, height, width); 0 and NaN: no data."""
    empty = ~np.isfinite(image).all(axis=0) | (image == 0).all(axis=0)
    seen = _look(np.ascontiguousarray(np.where(empty, 0, image.mean(axis=0)), np.float32), empty)
    if seen is None:
        return Stars(*np.empty((3, 0)), math.nan, math.nan)
    found = seen.found
    radius = max(4.0, 1.5 * seen.fwhm) if math.isfinite(seen.fwhm) else 4.0
    flux, _, _ = require_sep().sum_circle(seen.flat, found["x"], found["y"], radius, mask=empty)
    return Stars(found["x"], found["y"], flux, seen.fwhm, seen.eccentricity)


class StarPlaces(NamedTuple):
    """Places of the stars of a plane, brightest first, faint ones too.

    `x`, `y` and their standard `error` are in pixels, float64 (stars,); the center of the first pixel is
    (0, 0). `fwhm` is the common FWHM, NaN if not measured.
    """

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    fwhm: float

    def moved(self, x: float, y: float) -> StarPlaces:
        """Return the same with other coordinates: x and y are added."""
        return self._replace(x=self.x + x, y=self.y + y)


def star_places(plane: np.ndarray) -> StarPlaces:
    """Find the stars of a plane and measure their places as well as a fit of their profile would.

    Centers are means weighted by a Gaussian of the FWHM of the stars that moves with them (Bertin & Arnouts
    1996, as in SExtractor: XWIN_IMAGE).

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        The plane; 0 and NaN mean no data.

    Returns
    -------
    StarPlaces
    """
    empty = ~np.isfinite(plane) | (plane == 0)
    seen = _look(np.ascontiguousarray(np.where(empty, 0, plane), np.float32), empty, faint=True)
    if seen is None:
        return StarPlaces(*np.empty((3, 0)), math.nan)
    x, y = seen.found["x"], seen.found["y"]
    sigma = (seen.fwhm if math.isfinite(seen.fwhm) else 3.0) / 2.3548
    u, v, flag = require_sep().winpos(seen.flat, x, y, sigma, mask=empty)
    # Beside a brighter star the window may leave its own.
    good = (flag == 0) & (np.hypot(u - x, v - y) < MOVED)
    error = np.sqrt((seen.found["errx2"] + seen.found["erry2"]) / 2)
    return StarPlaces(np.where(good, u, x), np.where(good, v, y), error, seen.fwhm)


class PsfLight(NamedTuple):
    """Light of the stars of a plane, for the star weights of PixInsight.

    `flux` is the sum of the fluxes of all stars within a tenth of their maximum, `mean_flux` the sum of their
    mean fluxes, flux over area, and `below` (M*) the median of the background minus the pixel, over the
    pixels below the background. NaN if there is no star.
    """

    flux: float
    mean_flux: float
    below: float

    def signal_weight(self, noise: float) -> float:
        """Return the PSF signal weight: ``5.326e-6 flux mean_flux / (9e6 noise below)``."""
        return 5.326e-6 * self.flux * self.mean_flux / (9e6 * noise * self.below)

    def snr(self, noise: float) -> float:
        """Return the PSF SNR: ``1.316e-7 flux^2 / (4.987e6 noise^2)``."""
        return 1.316e-7 * self.flux**2 / (4.987e6 * noise**2)


def psf_light(plane: np.ndarray) -> PsfLight:
    """Measure the light of the stars of a plane, (height, width); 0 and NaN: no data.

    The ellipse in which a star exceeds a tenth of its maximum is taken as a circle of the same area, from the
    common FWHM of the stars. Mean fluxes that are outliers by the criterion of Chauvenet, about the median
    and with the MAD, are replaced by the nearest that is none, so that blends and galaxies do not decide.
    """
    empty = ~np.isfinite(plane) | (plane == 0)
    seen = _look(np.ascontiguousarray(np.where(empty, 0, plane), np.float32), empty)
    if seen is None or not math.isfinite(seen.fwhm):
        return PsfLight(math.nan, math.nan, math.nan)
    radius = TENTH * seen.fwhm
    flux, _, _ = require_sep().sum_circle(seen.flat, seen.found["x"], seen.found["y"], radius, mask=empty)
    flux = flux[flux > 0]
    below = seen.flat[~empty & (seen.flat < 0)]
    if not flux.size or not below.size:
        return PsfLight(math.nan, math.nan, math.nan)
    mean = _winsorized(flux / (math.pi * radius**2))
    return PsfLight(float(flux.sum()), float(mean.sum()), -float(np.median(below)))


def mad_sigma(values: np.ndarray) -> float:
    """Return the standard deviation of Gaussian values as their median absolute deviation tells it."""
    # As astropy.stats.mad_std, which takes long to import.
    return float(np.median(np.abs(values - np.median(values))) * MAD_SIGMA)


def _winsorized(values: np.ndarray) -> np.ndarray:
    """Replace outliers by the nearest value that is none: fewer than half a value is expected as far out."""
    away = np.abs(values - np.median(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        usual = values.size * scipy.special.erfc(away / (math.sqrt(2) * mad_sigma(values))) >= 0.5
    # All alike: the others are outliers.
    usual = np.where(np.isfinite(away) & (away == 0), True, usual)
    return np.clip(values, values[usual].min(), values[usual].max())


class _Seen(NamedTuple):
    """An image without its background, the stars in it, brightest first, and their common shape."""

    flat: np.ndarray
    found: np.ndarray
    fwhm: float
    eccentricity: float


def _look(light: np.ndarray, empty: np.ndarray, faint: bool = False) -> _Seen | None:
    """Find the stars in an image, float32 (height, width), 0 where it is `empty`; None if there are none."""
    sep = require_sep()
    if empty.all() or np.ptp(light[~empty]) == 0:
        return None
    background = sep.Background(light, mask=empty, bw=MESH, bh=MESH)
    flat = light - background.back()
    flat[empty] = 0
    found = _extract(sep, flat, background.globalrms, empty, faint)
    # Cosmic rays are a pixel or two wide; satellite trails and galaxies are much larger than stars.
    found = found[(found["npix"] >= 5) & (found["b"] > 0.55) & (found["flag"] & ~sep.OBJ_MERGED == 0)]
    size = np.sqrt(found["a"] * found["b"])
    found = found[size < 2.5 * np.median(size)] if size.size else found
    if not found.size:
        return None
    found = found[np.argsort(found["flux"])[::-1]]
    return _Seen(flat, found, *_common_shape(flat, found, light, background.globalrms))


def _extract(sep: Any, flat: np.ndarray, rms: float, empty: np.ndarray, faint: bool) -> np.ndarray:
    how = {"err": rms, "mask": empty, "minarea": 5}
    if faint:
        steps = np.arange(-4, 5)
        profile = np.exp(-0.5 * (steps / SMOOTHED) ** 2)
        how |= {"filter_kernel": np.outer(profile, profile).astype(np.float32), "filter_type": "conv"}
    first = FAINT_DETECTION if faint else DETECTION
    for threshold in first * 2.0 ** np.arange(8):
        try:
            return sep.extract(flat, float(threshold), **how)
        except Exception as error:
            # sep has no class of its own for a full buffer. Fewer stars will do then.
            if "pixel buffer" not in str(error) and "deblending overflow" not in str(error):
                raise
    return sep.extract(flat, 1e4, **how)


def _common_shape(flat: np.ndarray, found: np.ndarray, light: np.ndarray, rms: float) -> tuple[float, float]:
    """Fit one elliptical Moffat profile to clean stars; return FWHM (pixels) and eccentricity."""
    height, width = flat.shape
    top = float(light.max())
    full = SATURATED * top if top > 0.9 else math.inf
    column, row = np.rint(found["x"]).astype(int), np.rint(found["y"]).astype(int)
    inside = (np.minimum(column, row) >= REACH) & (column < width - REACH) & (row < height - REACH)
    column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    clean = inside & (light[row, column] < full) & (found["peak"] > 10 * rms) & (found["flag"] == 0)
    if np.count_nonzero(clean) >= 8:
        # Knots of galaxies and blends are wider than stars.
        size = np.sqrt(found["a"] * found["b"])
        centre = float(np.median(size[clean]))
        sigma = mad_sigma(size[clean])
        clean &= np.abs(size - centre) < max(2.5 * sigma, 0.2 * centre)
    tree = scipy.spatial.cKDTree(np.c_[found["x"], found["y"]])
    alone = np.array([len(near) == 1 for near in tree.query_ball_point(tree.data, REACH)])
    clean = clean & alone if np.count_nonzero(clean & alone) >= 5 else clean
    chosen = np.flatnonzero(clean)[:SHAPES]
    if not chosen.size:
        return math.nan, math.nan
    stars = [_samples(flat, found[i], int(column[i]), int(row[i]), rms) for i in chosen]
    return _fit_moffat(*np.concatenate(stars, axis=1))


def _samples(flat: np.ndarray, star: Any, column: int, row: int, rms: float) -> np.ndarray:
    """Return offsets, values in units of the flux, and weights of the pixels around a star."""
    reach = np.arange(-REACH, REACH + 1)
    dy, dx = np.meshgrid(row + reach - star["y"], column + reach - star["x"], indexing="ij")
    values = flat[row - REACH : row + REACH + 1, column - REACH : column + REACH + 1]
    near = dx**2 + dy**2 <= max(3.0, 2.5 * star["a"]) ** 2
    light = float(values[near].sum())
    if not light > 0:
        return np.empty((4, 0))
    weights = np.full(np.count_nonzero(near), min(light / rms, 500.0))
    return np.stack([dx[near], dy[near], values[near] / light, weights])


def _fit_moffat(
    dx: np.ndarray, dy: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Fit ``A (1 + q)^-beta`` with a quadratic form q of the offsets, robust against neighbors."""
    if values.size < 20:
        return math.nan, math.nan

    def residuals(p: np.ndarray) -> np.ndarray:
        # The form is L L^T and therefore positive.
        u, v = np.exp(p[1]) * dx + p[2] * dy, np.exp(p[3]) * dy
        return weights * (np.exp(p[0]) * (1 + u**2 + v**2) ** -np.exp(p[4]) - values)

    bounds = ([-9, -5, -3, -5, np.log(1.5)], [3, 2, 3, 2, np.log(12)])
    fit = scipy.optimize.least_squares(
        residuals, (-2.0, -0.7, 0.0, -0.7, 1.1), loss="soft_l1", f_scale=3.0, bounds=bounds
    )
    _, first, shear, second, power = fit.x
    form = np.array([[np.exp(2 * first), np.exp(first) * shear], [0, shear**2 + np.exp(2 * second)]])
    form[1, 0] = form[0, 1]
    small, large = np.linalg.eigvalsh(form)
    major, minor = (2 * math.sqrt((2 ** (1 / np.exp(power)) - 1) / part) for part in (small, large))
    return math.sqrt(major * minor), math.sqrt(1 - (minor / major) ** 2)


# stars of two frames -----------------------------------------------------------------------------


def match_all(stars: list[Stars]) -> tuple[int, list[tuple[float, float, float, float]]]:
    """Choose a reference and match each frame with it; return its index and the results of `match`.

    The reference is the frame with the most stars, or another one if few frames match that.
    """
    best: tuple[float, int, list] = (-1.0, 0, [])
    for candidate in np.argsort([-found.x.size for found in stars], kind="stable")[:5]:
        matches = [match(stars[candidate], found) for found in stars]
        fraction = float(np.nanmedian([0.0, *(match[3] for match in matches)]))
        if fraction > best[0]:
            best = fraction, int(candidate), matches
        if fraction > 0.5:
            break
    return best[1], best[2]


def match(reference: Stars, other: Stars) -> tuple[float, float, float, float]:
    """Return flux ratio, shift in x and y, and matched fraction of a frame against the reference."""
    if min(reference.x.size, other.x.size) < 3:
        return math.nan, math.nan, math.nan, math.nan
    here, there = (np.c_[s.x, s.y][:MATCHED] for s in (reference, other))
    offsets = (there[None] - here[:, None]).reshape(-1, 2)
    offsets = offsets[np.abs(offsets).max(axis=1) < FARTHEST]
    if not len(offsets):
        return math.nan, math.nan, math.nan, 0.0
    # The true offset is shared by most pairs.
    pairs = scipy.spatial.cKDTree(offsets)
    shift = offsets[int(np.argmax(pairs.query_ball_point(offsets, CLOSE, return_length=True)))]
    for _ in range(3):
        shift = np.median(offsets[pairs.query_ball_point(shift, CLOSE)], axis=0)
    distance, nearest = scipy.spatial.cKDTree(here).query(there - shift)
    close = distance < CLOSE
    pairs_of = np.unique(nearest[close]).size
    light = (
        float(np.median(other.flux[:MATCHED][close] / reference.flux[nearest[close]]))
        if pairs_of
        else math.nan
    )
    return light, float(shift[0]), float(shift[1]), pairs_of / min(len(here), len(there))
