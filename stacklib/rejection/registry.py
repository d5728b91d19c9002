"""The rejection rules by name, and how their numbers follow from a recipe.

`stacklib.rejection.clipping` describes what all rules share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from stacklib.recipe.recipe import Recipe
from stacklib.rejection.clipping import averaged_sigma, ccd_noise, min_max, none, percentile, sigma
from stacklib.rejection.line_fitting import linear_fit
from stacklib.rejection.outlier_tests import chauvenet, gesd
from stacklib.rejection.sorting import sorting_network
from stacklib.rejection.winsorizing import winsorized_sigma

__all__ = ["ALL_ITERATIONS", "RULES", "Rule", "rule_for"]

#: As many rounds as it takes.
ALL_ITERATIONS = 10_000


def _no_table(recipe: Recipe, frames: int) -> np.ndarray:
    return np.zeros((1, 1))


def _network_table(recipe: Recipe, frames: int) -> np.ndarray:
    # The rule sorts distances with the sorting network; tables are float64, so it travels as bits.
    return sorting_network(frames).view(np.float64)


def _gesd_table(recipe: Recipe, frames: int) -> np.ndarray:
    """Critical values by the number of samples left, shape (1, frames + 1)."""
    n = np.arange(frames + 1, dtype=np.float64)
    critical = np.full(frames + 1, np.inf)
    left = n[3:]
    t = -special.stdtrit(left - 2, recipe.gesd_significance / (2 * left))
    critical[3:] = t * (left - 1) / np.sqrt((left - 2 + t * t) * left)
    return critical[np.newaxis]


def _chauvenet_table(recipe: Recipe, frames: int) -> np.ndarray:
    """Expected deviations of the inner 68.3 % in sigma: row n holds those of n samples.

    Row 0 holds the deviation at which as few samples are expected as the limit says, by the number of
    samples.
    """
    table = np.zeros((frames + 1, frames + 1))
    table[0, 1:] = math.sqrt(2) * special.erfcinv(2 * recipe.chauvenet_limit / np.arange(1, frames + 1))
    for n in range(3, frames + 1):
        i = np.arange(1, int(0.683 * n + 0.317) + 1)
        table[n, : i.size] = math.sqrt(2) * special.erfinv((i - 0.317) / n)
    return table


@dataclass(frozen=True)
class Rule:
    """A compiled rule and how its numbers follow from a recipe.

    Attributes
    ----------
    function : callable
        The rule over a tile, see `stacklib.rejection.clipping`.
    side_limits : tuple of str
        Names of the recipe's limits of the low and the high side; empty where one limit serves both.
    more_limits : callable
        Recipe and full scale (ADU at the value 1) to the further limits, if any.
    table : callable
        Recipe and number of frames to the table.
    """

    function: Callable
    side_limits: tuple[str, ...] = ()
    more_limits: Callable[[Recipe, float], tuple[float, ...]] = lambda recipe, full_scale: ()
    table: Callable[[Recipe, int], np.ndarray] = _no_table

    def limits(self, recipe: Recipe, floor: float, full_scale: float) -> np.ndarray:
        """The numbers that the compiled rule reads, float64."""
        off = 0.0 if self.function is min_max else math.inf
        on = [float(getattr(recipe, name)) for name in self.side_limits] or [1.0, 1.0]
        sides = [on[0] if recipe.clip_low else off, on[1] if recipe.clip_high else off]
        return np.array([*sides, floor, *self.more_limits(recipe, full_scale)])


_SIGMAS = ("sigma_low", "sigma_high")

#: The rules by name.
RULES: dict[str, Rule] = {
    "none": Rule(none),
    "min_max": Rule(min_max, ("min_max_low", "min_max_high")),
    "percentile": Rule(percentile, ("percentile_low", "percentile_high")),
    "sigma": Rule(sigma, _SIGMAS),
    "winsorized_sigma": Rule(
        winsorized_sigma,
        _SIGMAS,
        lambda recipe, full_scale: (recipe.winsorization_cutoff,),
        _network_table,
    ),
    "averaged_sigma": Rule(averaged_sigma, _SIGMAS),
    "linear_fit": Rule(linear_fit, ("linear_fit_low", "linear_fit_high")),
    "gesd": Rule(
        gesd,
        (),
        lambda recipe, full_scale: (
            recipe.gesd_outliers_fraction,
            recipe.gesd_low_relaxation,
            float(recipe.gesd_variant == "pixinsight"),
        ),
        _gesd_table,
    ),
    "chauvenet": Rule(chauvenet, (), lambda recipe, full_scale: (recipe.chauvenet_limit,), _chauvenet_table),
    "ccd_noise": Rule(
        ccd_noise,
        _SIGMAS,
        lambda recipe, full_scale: (
            recipe.ccd_read_noise,
            recipe.ccd_gain,
            recipe.ccd_scale_noise,
            full_scale,
        ),
    ),
}


def rule_for(recipe: Recipe, frames: int) -> Rule:
    """The rule that the recipe means for this many frames (``auto`` resolved)."""
    return RULES[recipe.rule_for(frames)]
