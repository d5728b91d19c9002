"""How far each sample of a frame lies from the other frames, in units of its noise.

``z = (y - m) / (sigma sqrt(s^2 + f + sum(w^2 s^2) / sum(w)^2))`` for a sample y of relative noise s and the
weighted mean m of the kept samples of the other frames. Their sum of squares is that of all frames in
proportion to the weights that are left, which is exact for weights of 1 / s^2. The further variance f, where
the noise exceeds its curve, is alike in all frames, see `stacklib.rejection.noise_model`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from stacklib.kernel.verdicts import KEPT, NO_DATA
from stacklib.normalization.settings import Settings
from stacklib.rejection.calibration import typical_variance
from stacklib.utils.compiled import compiled
from stacklib.utils.resources import by_rows

__all__ = ["KeptMean", "protected_places", "residuals", "residuals_of", "unpack_verdicts", "write_noise"]

#: Where the noise around a pixel is this many times that of the curve, frames disagree: stars whose seeing
#: changes, edges.
DISAGREE = 1.34
#: A sample has others if their share of the weight is at least this.
LEAST_SHARE = 1e-6
#: The bits of each byte, as eight bytes of 0 and 1 in one number.
SPREAD = np.unpackbits(np.arange(256, dtype=np.uint8)).view(np.uint64)


class KeptMean(NamedTuple):
    """What the rule kept at each pixel, arrays of one shape.

    `mean` is the weighted mean of the kept samples as they are compared, `weight` the sum of their weights,
    `sigma` the noise of a frame of relative noise 1 by the noise curve, and `further` the variance of each
    frame beyond that, in units of its square, all float32. `protected`, bool, is where the frames disagree so
    that nothing can be said about a sample.
    """

    mean: np.ndarray
    weight: np.ndarray
    sigma: np.ndarray
    further: np.ndarray
    protected: np.ndarray

    def part(self, channel: int) -> KeptMean:
        """Return views of one channel."""
        return KeptMean(*(plane[channel] for plane in self))


def unpack_verdicts(packed: np.ndarray, width: int) -> np.ndarray:
    """Return verdicts, uint8 (rows, width), of two planes of bits, uint8 (2, rows, bytes)."""
    low, high = (np.unpackbits(plane, axis=1, count=width) for plane in packed)
    return low | high << np.uint8(1)


def protected_places(excess: np.ndarray) -> np.ndarray:
    """Return where the frames disagree, bool (height, width).

    `excess`, float32 of that shape, is how far the noise exceeds its curve, see `stacklib.kernel.scatter`.
    """
    disagree = excess > DISAGREE
    # With their neighbors. scipy.ndimage, which has this, takes longer to import than a small set to search.
    near = disagree.copy()
    for out, there in ((near, disagree), (near.T, disagree.T)):
        out[1:] |= there[:-1]
        out[:-1] |= there[1:]
    return near


@compiled
def _residual(value, code, pixel, frame, shared):
    mean, total, s, further = pixel
    factor, offset, own, noise = frame
    total, s = np.float64(total), np.float64(s)
    apart = np.float64(value) * factor + offset - np.float64(mean)
    others = total
    if code == KEPT:
        others = total - own
        apart *= total / others
    known = (code != NO_DATA) & (others > LEAST_SHARE * total) & (s > 0.0)
    error = s * math.sqrt(noise * noise + further + shared / others) if known else 1.0
    return apart / error if known else np.nan


@compiled
def _residuals(samples, bits, kept, frame, shared, spread, out):
    mean, weight, sigma, further, _ = kept
    width = samples.shape[1]
    verdict = np.empty(8 * bits.shape[2], np.uint8)
    words = verdict.view(np.uint64)
    for r in range(samples.shape[0]):
        for k in range(words.size):
            words[k] = spread[bits[0, r, k]] | (spread[bits[1, r, k]] << np.uint64(1))
        for q in range(width):
            pixel = mean[r, q], weight[r, q], sigma[r, q], further[r, q]
            out[r, q] = _residual(samples[r, q], verdict[q], pixel, frame, shared)


@compiled
def _some_residuals(values, verdict, kept, numbers, frames, shared, out):
    mean, weight, sigma, further, _ = kept
    for k in range(values.size):
        i = numbers[k]
        frame = frames[0, i], frames[1, i], frames[2, i], frames[3, i]
        pixel = mean[k], weight[k], sigma[k], further[k]
        out[k] = _residual(values[k], verdict[k], pixel, frame, shared)


def residuals(
    samples: np.ndarray, verdicts: np.ndarray, kept: KeptMean, settings: Settings, number: int
) -> np.ndarray:
    """Find the residuals of the samples of a frame.

    Parameters
    ----------
    samples : ndarray of float32, shape (height, width)
        Raw samples.
    verdicts : ndarray of uint8, shape (2, height, bytes)
        Verdicts of the rule, see `unpack_verdicts`.
    kept : KeptMean
        What the rule kept, planes of the same shape.
    settings : Settings
        Those of the channel, with the noise of the frames.
    number : int
        Position of the frame among those used.

    Returns
    -------
    ndarray of float32, shape (height, width)
        In sigma, NaN without data or without others to compare with.
    """
    by_frame, shared = _frames(settings)
    out = np.empty(samples.shape, np.float32)
    _residuals(samples, verdicts, kept, tuple(by_frame[:, number].tolist()), shared, SPREAD, out)
    return out


def residuals_of(
    values: np.ndarray, verdict: np.ndarray, kept: KeptMean, settings: Settings, numbers: np.ndarray
) -> np.ndarray:
    """Return the residuals of single samples, float32 (n,), as `residuals` does.

    `values` are raw samples, `kept` what the rule kept of their pixels, and `numbers`, integers, the
    positions of their frames, all arrays (n,).
    """
    out = np.empty(values.size, np.float32)
    by_frame, shared = _frames(settings)
    _some_residuals(values, verdict, kept, numbers, by_frame, shared, out)
    return out


def _frames(settings: Settings) -> tuple[np.ndarray, float]:
    """Return factor, offset, weight and noise of the frames, float64 (4, frames), and what they share."""
    weights, noise = settings.weights, settings.relative_noise
    shared = float(np.sum((weights * noise) ** 2) / weights.sum())
    return np.stack([settings.rejection_factor, settings.rejection_offset, weights, noise]), shared


@compiled
def _noise_at(level, levels, variances, last):
    """Interpolate the noise curve as `numpy.interp` does; `last` is the knot before the last level."""
    if not levels[0] <= level < levels[-1]:
        return variances[-1] if level >= levels[-1] else variances[0] if level < levels[0] else level, last
    if not levels[last] <= level < levels[last + 1]:
        # There are a few knots only.
        last = 0
        while levels[last + 1] <= level:
            last += 1
    slope = (variances[last + 1] - variances[last]) / (levels[last + 1] - levels[last])
    return slope * (level - levels[last]) + variances[last], last


@compiled
def _write_noise(mean, factor, curve, typical, sigma, further, first, stop):
    last = 0
    for r in range(first, stop):
        for q in range(mean.shape[1]):
            noise, last = _noise_at(np.float64(mean[r, q]), curve[0], curve[1], last)
            noise, square = np.float32(math.sqrt(noise)), np.float64(factor[r, q]) ** 2
            if factor[r, q] < 0:
                # Noise of the frames, see `stacklib.kernel.scatter`.
                noise = np.float32(noise * math.sqrt(square))
                square = 1.0
            sigma[r, q], further[r, q] = noise, typical * (square - 1)


def write_noise(kept: KeptMean, factor: np.ndarray, settings: Settings, threads: int = 1) -> None:
    """Write the noise by the curve, and what exceeds it by a `factor`, to the planes of a channel."""
    curve = settings.curve if settings.curve is not None else np.array([[0.0], [0.0]])
    typical = typical_variance(tuple(settings.relative_noise.tolist()))
    planes = kept.mean, factor, curve, typical, kept.sigma, kept.further
    by_rows(partial(_write_noise, *planes), len(factor), threads)
