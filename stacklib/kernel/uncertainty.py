"""Correct the standard error of a pixel for rejection.

The noise of a frame is known, see `stacklib.kernel.scatter`, and that of the average of the kept samples
follows from it, if they were chosen blindly. A rule chooses them by their values: an average without its
extremes is less noisy than one of as many samples, and one that lost a good sample is off to the other side.
The correction depends on the rule, its limits, the weights and the number of samples. It is measured by
running the same rule on clean Gaussian samples. Real outliers, far out, are not counted among them: the
others were not chosen.

Where frames have no data, those that are left are taken to be as unequal as all of them. With `min_max` and
very unequal frames, the uncertainty can be off by 5 % where a third of them are left, 3.5 % where half are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.measurement.cache.sets import kept_for_settings
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES

__all__ = ["claim_factors"]

#: Simulated pixels, with all frames and with some missing. The factor is then known to about 0.4 %.
TRIALS, TRIALS_OF_FEW = 32_768, 16_384
#: Pixels with the same number of rejected samples needed for a factor of their own.
ENOUGH = 200
#: With fewer pixels than this, the factor of fewer rejected samples is used.
LEAST = 40
#: Numbers of samples for which factors are measured; others are interpolated.
STEPS = (*range(2, 13), 14, 17, 20, 25, 30, 40, 60, 80, 120, 200, 400, 800)
#: Largest number of outliers far out that is told apart, and how far out simulated ones are, in sigma.
HITS, HIT = 3, 60.0


def claim_factors(settings: Settings, level: float) -> np.ndarray:
    """Compute the correction factors of the standard error, (hits + 1, frames + 1, frames + 1).

    They are given by the number of rejected samples far out, the number of samples, and the number of other
    rejected samples, which chance may have thrown where they are. Corrected,
    ``(value - truth) / uncertainty`` has a standard deviation of 1 for every rule. NaN for the combinations
    minimum and maximum, which do not estimate the truth. `level` is the typical value of a sample, on which a
    few rules depend. Noise and curve of the `settings` must be known.
    """
    frames = settings.frames
    if settings.recipe.combination in ("minimum", "maximum"):
        return np.full((1, frames + 1, frames + 1), np.nan)
    noise = settings.relative_noise
    order = np.lexsort((settings.weights, noise))
    return _table(
        _without_ranges(settings.recipe, frames),
        level,
        float(np.sqrt(np.interp(level, *settings.curve))),
        tuple(noise[order].tolist()),
        tuple(settings.weights[order].tolist()),
        settings.floor,
        settings.full_scale,
    )


@lru_cache(maxsize=64)
def _table(
    recipe: Recipe,
    level: float,
    sigma: float,
    noise: tuple[float, ...],
    weights: tuple[float, ...],
    floor: float,
    full_scale: float,
) -> np.ndarray:
    inputs = recipe, level, sigma, noise, weights, floor, full_scale
    return kept_for_settings(("claims", *inputs), lambda: _simulated(*inputs))


def _simulated(
    recipe: Recipe,
    level: float,
    sigma: float,
    noise: tuple[float, ...],
    weights: tuple[float, ...],
    floor: float,
    full_scale: float,
) -> np.ndarray:
    """Measure the factors on simulated samples."""
    frames = len(weights)
    settings = replace(
        Settings.plain(recipe, frames),
        weights=np.array(weights),
        noise=np.array(noise),
        curve=np.array([[level], [sigma**2]]),
        floor=min(floor, sigma),
        full_scale=full_scale,
    )
    counts = [*(n for n in STEPS if n < frames), frames]
    clean = _deviations(frames) * np.array(noise, np.float32)[:, np.newaxis]
    # Rounding to float32 about the level must not matter.
    clean *= np.float32(sigma)
    clean += np.float32(level)
    every = np.arange(frames + 1)

    def measured(hits: int) -> np.ndarray:
        known = [n for n in counts if n > hits] or [frames]
        factors = np.array([_factors(settings, level, clean, n, hits) for n in known])
        return np.stack([np.interp(every, known, column) for column in factors.T], axis=1)

    found = [measured(0)]
    for hits in range(1, HITS + 1):
        if RULES[recipe.rejection].drops_ends:
            # It drops a number of samples, of which outliers take their share. Others stay in the average.
            dropped = recipe.min_max_high if recipe.clip_high else 0
            found.append(measured(hits) if hits <= dropped else found[-1])
        else:
            # What is left are the samples of a pixel with fewer of them.
            found.append(found[0][np.maximum(every - hits, 0)])
    return np.stack(found)


@lru_cache(maxsize=1)
def _deviations(frames: int) -> np.ndarray:
    """Return Gaussian samples of sigma 1, float32 (frames, trials), always the same."""
    deviations = np.random.default_rng(20210815).standard_normal((frames, TRIALS), dtype=np.float32)
    deviations.flags.writeable = False
    return deviations


def _factors(settings: Settings, level: float, clean: np.ndarray, n: int, hits: int) -> np.ndarray:
    """Measure the factors of pixels with `n` samples by number of rejected samples, (frames + 1,).

    So many of the samples are `hits`, which do not count as rejected.
    """
    frames = settings.frames
    # Fewer samples than frames: the middle frames of n parts of equal size, in the order of their noise.
    chosen = (2 * np.arange(n) + 1) * frames // (2 * n)
    raw = clean if n == frames else clean[chosen, :TRIALS_OF_FEW]
    trials = raw.shape[1]
    plain = replace(
        Settings.plain(settings.recipe, n),
        weights=settings.weights[chosen],
        noise=settings.relative_noise[chosen],
        curve=settings.curve,
        floor=settings.floor,
        full_scale=settings.full_scale,
    )
    if hits:
        raw = raw.copy()
        height = HIT * float(plain.relative_noise.max() * np.sqrt(plain.curve[1, 0]))
        raw[np.linspace(0, n - 1, hits).round().astype(int)] += np.float32(height)
    pixels = Pixels.empty(trials, plain)
    run_tiles(raw, plain, pixels)
    ratio = (pixels.image.astype(np.float64) - level) / pixels.uncertainty
    rejected = (pixels.rejection_low + pixels.rejection_high).astype(np.intp) - hits
    factors = np.ones(frames + 1)
    for count in range(n):
        chosen = rejected == count
        few = np.count_nonzero(chosen) < ENOUGH
        if few:
            # Pool the rarer cases from here on.
            chosen = rejected >= count
        if np.count_nonzero(chosen) >= LEAST:
            factors[count:] = np.sqrt(np.mean(ratio[chosen] ** 2))
        if few:
            break
    return factors


def _without_ranges(recipe: Recipe, frames: int) -> Recipe:
    """Return the recipe with its rule resolved, for samples that are all data."""
    return recipe.replace(range_clip_low=False, range_clip_high=False, rejection=recipe.rule_for(frames))
