"""What a rejection rule does to clean frames: how much it rejects for nothing, and what that costs."""

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

#: Simulated samples: the rates are then known to a few percent of themselves.
SAMPLES = 1_500_000
#: Pixels at least and at most.
FEWEST, MOST = 3_000, 65_536


def expected_rejection(
    recipe: Recipe, frames: int, level: float = 0.1, noise: float = 0.002, full_scale: float = 65535.0
) -> tuple[float, float]:
    """Samples that a rule rejects where there is nothing to reject, as fractions (low, high).

    Found by letting the rule work on clean Gaussian stacks; the same arguments give the same numbers.

    Parameters
    ----------
    recipe : Recipe
        The rule and its limits.
    frames : int
        Number of frames.
    level, noise : float
        Sky level and noise of a frame. They matter for percentile, averaged_sigma and ccd_noise only.
    full_scale : float
        ADU at the value 1, for ccd_noise.

    Returns
    -------
    low, high : float
        Fractions of all samples.

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
    """Noise of clean frames after rejection and combination, over that of their plain average.

    1.02 means two percent more noise than ``1/sqrt(N)``: the price of rejecting good samples, or of a
    median. See `expected_rejection` for the parameters. NaN for minimum and maximum.
    """
    if recipe.combination in ("minimum", "maximum"):
        return math.nan
    return _clean_run(_only_the_rule(recipe, frames), frames, level, noise, full_scale)[2]


def _only_the_rule(recipe: Recipe, frames: int) -> Recipe:
    """The recipe with all set to defaults that clean data do not feel, so that results are found again."""
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
    settings = replace(Settings.plain(recipe, frames), full_scale=full_scale)
    result = Pixels.empty(raw.shape[1], settings)
    run_tiles(raw, settings, result)
    low, high = (float(map_.sum(dtype=np.float64)) for map_ in (result.rejection_low, result.rejection_high))
    # Against the plain average of the very same samples, so that chance cancels out.
    spread = result.image.std(dtype=np.float64)
    return low / raw.size, high / raw.size, float(spread / plain) if plain > 0 else 1.0


@lru_cache(maxsize=2)
def _clean_stack(frames: int, level: float, noise: float) -> tuple[np.ndarray, float]:
    """Clean samples, and the noise of their average; kept, as many limits are tried on one stack."""
    pixels = int(np.clip(SAMPLES // frames, FEWEST, MOST))
    random = np.random.default_rng(20210815)
    deviation = random.standard_normal((frames, pixels), dtype=np.float32)
    raw = np.float32(level) + np.float32(noise) * deviation
    return raw, float(raw.mean(axis=0, dtype=np.float64).std())
