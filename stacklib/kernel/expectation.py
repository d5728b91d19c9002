"""False rejections of a rule on clean frames, and the noise they add."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe

__all__ = ["expected_noise_factor", "expected_rejection"]

#: Simulated samples: enough to know the rates to within a few percent.
SAMPLES = 1_500_000
#: Smallest and largest number of simulated pixels.
FEWEST, MOST = 3_000, 65_536


def expected_rejection(
    recipe: Recipe, frames: int, level: float = 0.1, noise: float = 0.002, full_scale: float = 65535.0
) -> tuple[float, float]:
    """Estimate the fractions of all samples that a rule rejects low and high in clean frames.

    The rule is run on simulated Gaussian stacks. The same arguments give the same numbers. Sky level and
    noise of a frame matter for rules that compare with the level or know the noise, `full_scale`, the ADU at
    the value 1, for ccd_noise.

    Examples
    --------
    >>> low, high = expected_rejection(Recipe(rejection="sigma", sigma_low=3, sigma_high=3), 20)
    >>> f"{low:.4f} {high:.4f}"
    '0.0006 0.0005'
    """
    return _clean_run(_only_the_rule(recipe, frames), frames, level, noise, full_scale)[:2]


def expected_noise_factor(
    recipe: Recipe, frames: int, level: float = 0.1, noise: float = 0.002, full_scale: float = 65535.0
) -> float:
    """Estimate the noise of a combination of clean frames, relative to their plain average.

    1.02 means 2 % more noise than ``1/sqrt(N)``: the cost of rejecting good samples, or of a median. See
    `expected_rejection` for the parameters. NaN for the combinations minimum and maximum.
    """
    if recipe.combination in ("minimum", "maximum"):
        return math.nan
    return _clean_run(_only_the_rule(recipe, frames), frames, level, noise, full_scale)[2]


def _only_the_rule(recipe: Recipe, frames: int) -> Recipe:
    """Reset the parameters that do not affect clean data, so that cached results are found."""
    changes = {"rejection": recipe.rule_for(frames), "range_clip_low": False, "range_clip_high": False}
    others = ("range_low", "range_high", "normalization", "rejection_normalization", "scale_estimator")
    others += ("weights", "weight_keyword", "weight_file", "min_weight", "reference", "output_range")
    defaults = {name: parameter.default for name, parameter in Recipe.parameters().items()}
    return recipe.replace(**{name: defaults[name] for name in others}, **changes)


@lru_cache(maxsize=256)
def _clean_run(
    recipe: Recipe, frames: int, level: float, noise: float, full_scale: float
) -> tuple[float, float, float]:
    raw, plain = _clean_stack(frames, level, noise)
    curve = np.array([[level], [noise**2]])
    settings = replace(Settings.plain(recipe, frames), full_scale=full_scale, curve=curve)
    result = Pixels.empty(raw.shape[1], settings)
    run_tiles(raw, settings, result)
    low, high = (float(map_.sum(dtype=np.float64)) for map_ in (result.rejection_low, result.rejection_high))
    # Relative to the average of the same samples, so that chance cancels out.
    spread = result.image.std(dtype=np.float64)
    return low / raw.size, high / raw.size, float(spread / plain) if plain > 0 else 1.0


@lru_cache(maxsize=2)
def _clean_stack(frames: int, level: float, noise: float) -> tuple[np.ndarray, float]:
    """Simulate clean samples, and measure the noise of their average. Cached: many limits use one stack."""
    pixels = int(np.clip(SAMPLES // frames, FEWEST, MOST))
    random = np.random.default_rng(20210815)
    deviation = random.standard_normal((frames, pixels), dtype=np.float32)
    raw = np.float32(level) + np.float32(noise) * deviation
    return raw, float(raw.mean(axis=0, dtype=np.float64).std())
