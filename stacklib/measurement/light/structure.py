"""Light of one image relative to another one, by structure that is no star."""

from __future__ import annotations

import math

import numpy as np
import scipy

from stacklib.measurement.light.binning import bin_plane
from stacklib.measurement.light.ratio import NO_LIGHT, Light, clipped_slope

__all__ = [
    "compare_structure",
]

#: Band-pass filters (sigma in pixels, of a plane binned by the first number) that see structure, how
#: significant it must be, and the fewest pixels.
BANDS, STRUCTURE, PIXELS = ((1, 1.5, 5.0), (4, 1.5, 5.0)), 6.0, 100


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


def _band_slope(plane: np.ndarray, stack: np.ndarray, fine: float, coarse: float) -> Light:
    missing = ~(np.isfinite(plane) & np.isfinite(stack))
    if missing.mean() > 0.9:
        return NO_LIGHT
    reach = math.ceil(2 * coarse)
    near = scipy.ndimage.maximum_filter(missing, size=2 * reach + 1) if missing.any() else missing
    own, others = (
        scipy.ndimage.gaussian_filter(filled, fine) - scipy.ndimage.gaussian_filter(filled, coarse)
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
    return Light(*clipped_slope(own, others, np.full(own.size, noise), 0.05, slope, False, independent))
