"""What each frame is worth: the signal-to-noise ratio of the master with it and without it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stacklib.normalization.preparation import Preparation
from stacklib.utils.labels import listed

__all__ = ["best_gains", "frame_gains", "gain_of_another", "gain_of_more", "worth_in_words"]

#: A frame that lowers the signal-to-noise ratio by more than this fraction is named.
HARMFUL = 0.001


def frame_gains(preparation: Preparation) -> np.ndarray:
    """Return what the frames add to the signal-to-noise ratio of the master, with their weights.

    Starlight over noise is ``sum(w k T) / sqrt(sum(w^2 k^2 s^2))`` for frames of weight w, factor k,
    transparency T and noise s; the gain of a frame is its ratio to that of the other frames, minus 1.
    Normalization and weights of the others stay as they are. Without photometry the factors are taken to be
    right, ``k T = 1``.

    Parameters
    ----------
    preparation : Preparation
        Frames, weights and noise.

    Returns
    -------
    ndarray of float64, shape (frames,)
        Fractions, means over the channels. NaN for frames that are not used or whose noise is not known;
        below 0 for a frame that costs more than it brings.
    """
    p = preparation
    gains = np.full(p.weights.shape, np.nan)
    for channel in range(p.weights.shape[1]):
        weights = p.settings(channel).weights
        light = weights
        if p.photometry is not None:
            light = weights * p.factor[p.used, channel] * p.photometry.transparency[p.used, channel]
        gains[p.used, channel] = _gains(light, (weights * p.normalised_noise(channel)) ** 2)
    return _mean(gains)


def best_gains(transparency: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return what frames add to the signal-to-noise ratio of a master with the best weights.

    Parameters
    ----------
    transparency, noise : ndarray of float64, shape (frames, channels)
        Light of the frames, and noise at the scale that matters. NaN for frames that do not take part.

    Returns
    -------
    ndarray of float64, shape (frames,)
        Fractions, means over the channels: ``1 / sqrt(1 - q / sum(q)) - 1`` with ``q = (T / s)^2``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = (transparency / noise) ** 2
    gains = np.full(worth.shape, np.nan)
    for channel, column in enumerate(worth.T):
        known = np.isfinite(column)
        gains[known, channel] = _gains(column[known], column[known])
    return _mean(gains)


def _gains(light: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the gain of each term of ``sum(light) / sqrt(sum(variance))``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        others = (light.sum() - light) / np.sqrt(np.maximum(variance.sum() - variance, 0))
        return light.sum() / math.sqrt(variance.sum()) / others - 1 if light.size > 1 else np.full(1, np.inf)


def _mean(gains: np.ndarray) -> np.ndarray:
    return np.ma.filled(np.ma.masked_invalid(gains).mean(axis=1), np.nan)


def gain_of_another(gains: np.ndarray) -> float:
    """Return the gain by one more frame like the usual one, as a fraction, from those of the frames.

    A frame of gain g has the share ``1 - 1 / (1 + g)^2`` of the squared signal-to-noise ratio.
    """
    return gain_of_more(gains, 1)


def gain_of_more(gains: np.ndarray, count: float) -> float:
    """Return the gain by so many more frames like the usual one of some, whose `frame_gains` are given."""
    known = gains[np.isfinite(gains)]
    if not known.size:
        return math.nan
    return math.sqrt(1 + count * float(np.median(1 - (1 + known) ** -2))) - 1


def worth_in_words(gains: np.ndarray, names: Sequence[str]) -> list[str]:
    """Say what frames are worth.

    Parameters
    ----------
    gains : ndarray of float64, shape (frames,)
        See `frame_gains`.
    names : sequence of str
        Names of the frames.

    Returns
    -------
    list of str
        Sentences; none if nothing is known.
    """
    known = np.flatnonzero(np.isfinite(gains))
    if known.size < 2:
        return []
    order = known[np.argsort(gains[known], kind="stable")]
    least, most = int(order[0]), int(order[-1])
    lines = [
        f"Each frame adds {100 * np.median(gains[known]):.2g} % to the signal-to-noise ratio, as a median: "
        f"from {100 * gains[least]:.2g} % ({names[least]}) to {100 * gains[most]:.2g} % ({names[most]})."
    ]
    harmful = [names[i] for i in order if gains[i] < -HARMFUL]
    if harmful:
        lines.append(f"It would be better without {listed(harmful)}.")
    lines.append(f"One more frame like the usual one would add {100 * gain_of_another(gains):.2g} %.")
    return lines
