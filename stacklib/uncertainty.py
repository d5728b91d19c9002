"""What the scatter of the survivors says about the combined value.

The scatter of the samples that a rule keeps is smaller than the scatter of all, and with few samples it
is not well known itself. How much its claim must be raised follows from the rule, its limits, the
weights and the number of samples. It is found by letting the same rule work on clean Gaussian samples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stacklib.kernel import Pixels, Settings, run_tiles

__all__ = ["claim_factors"]

#: Simulated pixels: the factor is then known to about 0.4 %.
TRIALS = 32_768
#: From this many samples on, the spread of (value - truth) / claim is well defined and measured directly.
ENOUGH = 8
#: Samples sets for which the factor is measured; between them it is interpolated.
STEPS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60, 80, 120, 200, 400, 800)


def claim_factors(settings: Settings, level: float, noise: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """By how much the claimed standard error must be multiplied, by the number of samples.

    Parameters
    ----------
    settings : Settings
        Rule, limits and weights.
    level : float
        Typical value of a sample (a few rules depend on it).
    noise : ndarray of float64, shape (frames,)
        Noise of the normalised frames; only ratios matter for most rules.
    coverage : ndarray
        The numbers of samples that occur.

    Returns
    -------
    ndarray of float64, shape (frames + 1,)
        The factor for 0, 1, 2 ... samples. With it ``(value - truth) / uncertainty`` has the standard
        deviation 1 on clean sky. NaN for combinations that say nothing about the truth (minimum,
        maximum).
    """
    frames = settings.frames
    if settings.recipe.combination in ("minimum", "maximum"):
        return np.full(frames + 1, np.nan)
    order = np.lexsort((settings.weights, noise))
    noise, weights = noise[order], settings.weights[order]
    counts = [n for n in STEPS if coverage.min(initial=frames) <= n < frames] if coverage.size else []
    counts = [*counts, frames]
    factors = [_factor(settings, level, noise, weights, n) for n in counts]
    return np.interp(np.arange(frames + 1), counts, factors)


def _factor(settings: Settings, level: float, noise: np.ndarray, weights: np.ndarray, n: int) -> float:
    frames = settings.frames
    trials = TRIALS if n == frames else TRIALS // 4
    # Fewer samples than frames: take frames of all kinds.
    chosen = np.linspace(0, frames - 1, n).round().astype(int)
    zero, one = np.zeros(n), np.ones(n)
    clean = replace(
        settings,
        recipe=settings.recipe.replace(
            range_clip_low=False, range_clip_high=False, rejection=settings.recipe.rule_for(frames)
        ),
        rejection_factor=one,
        rejection_offset=zero,
        factor=one,
        offset=zero,
        weights=weights[chosen],
    )
    random = np.random.default_rng(20210815)
    deviation = random.standard_normal((n, trials)) * noise[chosen, np.newaxis]
    pixels = Pixels.empty(trials)
    run_tiles((level + deviation).astype(np.float32), clean, pixels)
    error = pixels.image.astype(np.float64) - level
    claim = pixels.uncertainty.astype(np.float64)
    known = claim > 0
    if not known.any():
        return 1.0
    if n >= ENOUGH:
        return float(np.sqrt(np.mean((error[known] / claim[known]) ** 2)))
    ratio = np.sqrt(np.mean(error[known] ** 2) / np.mean(claim[known] ** 2))
    return float(ratio * np.sqrt((n - 1) / (n - 3) if n > 3 else 1.0))
