"""Correct the standard error of a pixel for rejection.

The samples that a rule keeps scatter less than all samples, and the scatter of few samples is uncertain
itself. The correction depends on the rule, its limits, the weights and the number of samples. It is
measured by running the same rule on clean Gaussian samples.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe

__all__ = ["claim_factors"]

#: Simulated pixels, with all frames and with some missing. The factor is then known to about 0.4 %.
TRIALS, TRIALS_OF_FEW = 32_768, 16_384
#: Pixels with the same number of rejected samples needed for a factor of their own.
ENOUGH = 200
#: With fewer pixels than this, the factor of fewer rejected samples is used.
LEAST = 40
#: Numbers of samples for which factors are measured; others are interpolated.
STEPS = (*range(2, 13), 14, 17, 20, 25, 30, 40, 60, 80, 120, 200, 400, 800)


def claim_factors(settings: Settings, level: float, noise: np.ndarray) -> np.ndarray:
    """Compute the correction factors of the standard error, (frames + 1, frames + 1).

    They are given by number of samples and of rejected samples: a pixel of clean sky loses samples because
    the others happen to cluster, and then their scatter is far too small. Corrected,
    ``(value - truth) / uncertainty`` has a standard deviation of 1 on clean sky for every rule. NaN for the
    combinations minimum and maximum, which do not estimate the truth. `level` is the typical value of a
    sample, on which a few rules depend, `noise` that of the normalized frames, (frames,); for most rules only
    the ratios matter.
    """
    frames = settings.frames
    if settings.recipe.combination in ("minimum", "maximum"):
        return np.full((frames + 1, frames + 1), np.nan)
    order = np.lexsort((settings.weights, noise))
    return _table(
        _without_ranges(settings.recipe, frames),
        level,
        tuple(noise[order].tolist()),
        tuple(settings.weights[order].tolist()),
        settings.floor,
        settings.full_scale,
    )


@lru_cache(maxsize=64)
def _table(
    recipe: Recipe,
    level: float,
    noise: tuple[float, ...],
    weights: tuple[float, ...],
    floor: float,
    full_scale: float,
) -> np.ndarray:
    frames = len(weights)
    settings = replace(
        Settings.plain(recipe, frames), weights=np.array(weights), floor=floor, full_scale=full_scale
    )
    counts = [*(n for n in STEPS if n < frames), frames]
    clean = _deviations(frames) * np.array(noise, np.float32)[:, np.newaxis]
    clean += np.float32(level)
    measured = np.array([_factors(settings, level, clean, n) for n in counts])
    every = np.arange(frames + 1)
    return np.stack([np.interp(every, counts, column) for column in measured.T], axis=1)


@lru_cache(maxsize=1)
def _deviations(frames: int) -> np.ndarray:
    """Return Gaussian samples of sigma 1, float32 (frames, trials), always the same."""
    deviations = np.random.default_rng(20210815).standard_normal((frames, TRIALS), dtype=np.float32)
    deviations.flags.writeable = False
    return deviations


def _factors(settings: Settings, level: float, clean: np.ndarray, n: int) -> np.ndarray:
    """Measure the factors of pixels with `n` samples by number of rejected samples, (frames + 1,)."""
    frames = settings.frames
    # Fewer samples than frames: choose frames evenly by noise.
    chosen = np.linspace(0, frames - 1, n).round().astype(int)
    raw = clean if n == frames else clean[chosen, :TRIALS_OF_FEW]
    trials = raw.shape[1]
    plain = replace(
        Settings.plain(settings.recipe, n),
        weights=settings.weights[chosen],
        floor=settings.floor,
        full_scale=settings.full_scale,
    )
    pixels = Pixels.empty(trials, plain)
    run_tiles(raw, plain, pixels)
    error = pixels.image.astype(np.float64) - level
    claim = pixels.uncertainty.astype(np.float64)
    rejected = (pixels.rejection_low + pixels.rejection_high).astype(np.intp)
    factors = np.ones(frames + 1)
    for count in range(n):
        chosen = (rejected == count) & (claim > 0)
        few = np.count_nonzero(chosen) < ENOUGH
        if few:
            # Pool the rarer cases from here on.
            chosen = (rejected >= count) & (claim > 0)
        if np.count_nonzero(chosen) >= LEAST:
            factors[count:] = _factor(error[chosen], claim[chosen], n)
        if few:
            break
    return factors


def _factor(error: np.ndarray, claim: np.ndarray, n: int) -> float:
    """Return the factor that gives error over claim a standard deviation of 1."""
    if n >= 8:
        return float(np.sqrt(np.mean((error / claim) ** 2)))
    # Few samples may agree by chance, and the ratio has no standard deviation (Student's t). Make the
    # claim true on average, widened as for t if its variance exists.
    widened = (n - 1) / (n - 3) if n > 3 else 1.0
    return float(np.sqrt(np.mean(error**2) / np.mean(claim**2) * widened))


def _without_ranges(recipe: Recipe, frames: int) -> Recipe:
    """Return the recipe with its rule resolved, for samples that are all data."""
    return recipe.replace(range_clip_low=False, range_clip_high=False, rejection=recipe.rule_for(frames))
