"""How far each sample of a frame lies from the other frames, in units of its noise.

``z = (y - m) / (sigma sqrt(s^2 + f + sum(w^2 s^2) / sum(w)^2))`` for a sample y of relative noise s and the
weighted mean m of the kept samples of the other frames. Their sum of squares is that of all frames in
proportion to the weights that are left, which is exact for weights of 1 / s^2. The further variance f, where
the noise exceeds its curve, is alike in all frames, see `stacklib.rejection.noise_model`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.kernel.verdicts import KEPT, NO_DATA
from stacklib.normalization.settings import Settings
from stacklib.rejection.calibration import typical_variance
from stacklib.utils.compiled import compiled

__all__ = ["KeptMean", "protected_places", "residuals", "residuals_of", "unpack_verdicts", "write_noise"]

#: Where the noise around a pixel is this many times that of the curve, frames disagree: stars whose seeing
#: changes, edges.
DISAGREE = 1.34
#: A sample has others if their share of the weight is at least this.
LEAST_SHARE = 1e-6
#: Pixels whose noise is computed at once.
PIECE = 1 << 20


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
def _residuals(rows, verdict, kept, frame, shared):
    mean, weight, sigma, further, _ = kept
    for r in range(rows.shape[0]):
        for q in range(rows.shape[1]):
            pixel = mean[r, q], weight[r, q], sigma[r, q], further[r, q]
            rows[r, q] = _residual(rows[r, q], verdict[r, q], pixel, frame, shared)


@compiled
def _some_residuals(values, verdict, kept, numbers, frames, shared, out):
    mean, weight, sigma, further, _ = kept
    for k in range(values.size):
        i = numbers[k]
        frame = frames[0, i], frames[1, i], frames[2, i], frames[3, i]
        pixel = mean[k], weight[k], sigma[k], further[k]
        out[k] = _residual(values[k], verdict[k], pixel, frame, shared)


def residuals(rows: np.ndarray, verdict: np.ndarray, kept: KeptMean, settings: Settings, number: int) -> None:
    """Replace the samples of a frame by their residuals.

    Parameters
    ----------
    rows : ndarray of float32, shape (height, width)
        Raw samples in, residuals out: in sigma, NaN without data or without others to compare with.
    verdict : ndarray of uint8, shape (height, width)
        Verdicts of the rule.
    kept : KeptMean
        What the rule kept, planes of the same shape.
    settings : Settings
        Those of the channel, with the noise of the frames.
    number : int
        Position of the frame among those used.
    """
    by_frame, shared = _frames(settings)
    _residuals(rows, verdict, kept, tuple(by_frame[:, number].tolist()), shared)


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


def write_noise(kept: KeptMean, factor: np.ndarray, settings: Settings) -> None:
    """Write the noise by the curve, and what exceeds it by a `factor`, to the planes of a channel."""
    levels, variances = settings.curve if settings.curve is not None else np.array([[0.0], [0.0]])
    typical = typical_variance(tuple(settings.relative_noise.tolist()))
    rows = max(1, PIECE // factor.shape[1])
    for start in range(0, len(factor), rows):
        part = slice(start, start + rows)
        kept.sigma[part] = np.sqrt(np.interp(kept.mean[part], levels, variances))
        square = factor[part].astype(np.float64) ** 2
        own = factor[part] < 0
        if own.any():
            # Noise of the frames, see `stacklib.kernel.scatter`.
            kept.sigma[part][own] *= np.sqrt(square[own])
            square[own] = 1
        kept.further[part] = typical * (square - 1)
