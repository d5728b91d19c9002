"""The noise of an integrated image, apart from everything that it shows.

If the weights of half of the frames are raised and those of the others lowered, the image stays the same but
for its noise. The difference is an image of noise alone, with the same correlation between pixels and the
same rejection as the result. It is measured in a window, and only if somebody asks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stacklib.integration.registration import window_of
from stacklib.integration.samples import Samples
from stacklib.measurement.scale_noise import APERTURES, aperture_noise, scale_noise
from stacklib.normalization.preparation import Preparation
from stacklib.output.integrated_image import IntegratedImage, ScaleNoise
from stacklib.recipe.rules import RULES

__all__ = ["measure_noise", "noise_images", "noise_window"]

#: Largest side of the window, and bytes of the samples in it, which may be kept with the result.
SIDE, KEPT_BYTES = 512, 64 << 20
#: By how much weights are raised and lowered, as a fraction.
STEP = 0.5
#: Signs of the weights of the frames, ordered by weight; one image of noise for each pattern.
PATTERNS = ((1, -1, -1, 1), (1, 1, -1, -1), (1, -1))
#: Side of the simulated image that tells how much of the noise these images miss.
SIMULATED = 192

#: Integrates samples of prepared frames.
Integrate = Callable[[Samples, Preparation], IntegratedImage]


def noise_window(samples: Samples) -> Samples:
    """Return the samples of a window in the middle."""
    left, top, width, height = samples.region
    count = len(samples.frames) * samples.frames.channels
    side = max(16, min(SIDE, math.isqrt(KEPT_BYTES // (4 * count))))
    x, y, across, down = window_of(width, height, side)
    return samples.part((left + x, top + y, across, down))


def measure_noise(samples: Samples, integrate: Integrate, result: IntegratedImage) -> ScaleNoise | None:
    """Measure the noise of a result in apertures and at the scale that matters.

    Parameters
    ----------
    samples : Samples
        Samples of a window in the result, see `noise_window`.
    integrate : callable
        ``integrate(samples, preparation)`` integrates a region.
    result : IntegratedImage
        The result.

    Returns
    -------
    ScaleNoise or None
        In the units of the frames; None for a combination other than the average.

    Raises
    ------
    FrameError
        If the frames cannot be read any more.
    """
    if result.recipe.combination != "average" or min(samples.region[2:]) < 16:
        return None
    left, top, width, height = samples.region
    rows, columns = top - result.region[1], left - result.region[0]
    inside = slice(rows, rows + height), slice(columns, columns + width)
    mean = np.where(result.coverage[:, *inside] > 0, result.original[:, *inside], np.float32(np.nan))
    p = result.preparation
    images, grown = noise_images(samples, p, mean, integrate)
    missed = _missed(samples, p, integrate)
    apertures = np.array([[aperture_noise(plane) for plane in planes] for planes in images])
    scale = np.array([[scale_noise(plane) for plane in planes] for planes in images])
    # From the second layer on, the noise of pixels matters no more.
    small, large = grown
    by_side = np.stack([small, np.sqrt(small * large), *[large] * (len(APERTURES) - 2)], axis=-1)
    apertures = np.sqrt(np.mean((apertures * by_side) ** 2, axis=0))
    scale = np.sqrt(np.mean((scale * large) ** 2, axis=0))
    return ScaleNoise(apertures.T * missed, scale * missed)


def noise_images(
    samples: Samples, preparation: Preparation, mean: np.ndarray, integrate: Integrate
) -> tuple[np.ndarray, np.ndarray]:
    """Return images of the noise of a mean of frames, and the factors that scale them to it.

    With signs s, the mean with the weights w (1 + e s) differs from that with w by ``e sum(w s (y - mean)) /
    (sum(w) (1 + e S))``, where S is the weighted mean of the signs. Multiplied by ``(1 + e S) / e``, its
    variance is ``sum(w^2 sigma^2 (s - S)^2) / sum(w)^2``; that of the mean is the same without ``(s - S)^2``.

    Parameters
    ----------
    samples : Samples
        The samples.
    preparation : Preparation
        Normalization and weights.
    mean : ndarray of float32, shape (channels, height, width)
        Their mean with these weights, in the units of the frames; NaN for no data.
    integrate : callable
        Integrates them.

    Returns
    -------
    images : ndarray of float32, shape (images, channels, height, width)
        In the units of the frames.
    factors : ndarray of float64, shape (2, images, channels)
        For the noise of pixels, and for that at the scale that matters.
    """
    p = preparation
    images, factors = [], []
    weights = p.weights[p.used]
    noise = [_noise(p, pixels) for pixels in (True, False)]
    for signs in _patterns(p):
        other = integrate(samples, _changed(p, weights=p.weights * (1 + STEP * signs))).original
        balance = (weights * signs[p.used]).sum(axis=0) / weights.sum(axis=0)
        images.append((other - mean) * ((1 + STEP * balance) / STEP)[:, None, None].astype(np.float32))
        parts = [(weights * sigma) ** 2 for sigma in noise]
        seen = (signs[p.used] - balance) ** 2
        factors.append([_scaling(part, seen) for part in parts])
    return np.stack(images), np.moveaxis(np.array(factors), 0, 1)


def _scaling(variance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the root of the whole variance over the part that is seen, (channels,); 1 without noise."""
    whole, part = variance.sum(axis=0), (variance * seen).sum(axis=0)
    return np.sqrt(np.divide(whole, part, out=np.ones_like(whole), where=part > 0))


def _changed(preparation: Preparation, **fields: Any) -> Preparation:
    """Return a copy with other fields that keeps what was measured when it was first asked for."""
    other = copy.copy(preparation)
    vars(other).update(fields)
    return other


def _patterns(p: Preparation) -> Iterator[np.ndarray]:
    """Yield signs of the weights, (frames, channels)."""
    for pattern in PATTERNS:
        signs = np.zeros(p.weights.shape)
        for channel, weights in enumerate(p.weights[p.used].T):
            order = p.used[np.argsort(-weights, kind="stable")]
            signs[order, channel] = np.resize(pattern, order.size)
        yield signs


def _missed(samples: Samples, p: Preparation, integrate: Integrate) -> np.ndarray:
    """Return the factor by which the noise of a mean exceeds that of its images of noise, (channels,).

    Samples that were kept scatter less than all, but their mean does not. That is so without outliers as
    well, so it is found on simulated samples.
    """
    if not RULES[p.recipe.rejection].rejects:
        return np.ones(p.weights.shape[1])
    # Every simulated sample is data.
    p = _changed(p, recipe=p.recipe.replace(range_clip_low=False, range_clip_high=False))
    vars(p).pop("marks", None)
    rng = np.random.default_rng(1)
    pixels = _noise(p, pixels=True)
    held = np.zeros((p.weights.shape[1], len(p.frames), SIMULATED, SIMULATED), np.float32)
    for channel, planes in enumerate(held):
        noise, factor, offset = pixels[:, channel], p.factor[:, channel], p.offset[:, channel]
        level = np.nan_to_num(p.measurements.location[p.reference, channel]) * factor[p.reference]
        level += offset[p.reference]
        for i, sigma in zip(p.used, noise, strict=True):
            normal = np.float32(level) + np.float32(sigma) * rng.standard_normal(planes[i].shape, np.float32)
            planes[i] = (normal - np.float32(offset[i])) / np.float32(factor[i])
    part = copy.copy(samples)
    part.region = (0, 0, SIMULATED, SIMULATED)
    part = part.with_values(held)
    mean = integrate(part, p).original
    images, (grown, _) = noise_images(part, p, mean, integrate)
    return mean.std(axis=(1, 2)) / np.sqrt(np.mean(images.var(axis=(2, 3)) * grown**2, axis=0))


def _noise(p: Preparation, pixels: bool) -> np.ndarray:
    """Return the noise of the used frames after normalization, positive, (frames, channels)."""
    columns = []
    for channel in range(p.weights.shape[1]):
        noise = p.normalised_noise(channel, pixels)
        if not np.isfinite(noise).all():
            noise = p.measurements.scale_low[p.used, channel] * p.factor[p.used, channel]
        usual = np.nanmedian(noise) if np.isfinite(noise).any() else 0.0
        columns.append(np.where(noise > 0, noise, usual if usual > 0 else 1e-6))
    return np.stack(columns, axis=1)
