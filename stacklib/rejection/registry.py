"""Compiled rules by name, with their numbers from a recipe; see `stacklib.recipe.rules` for the rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES, RuleSpec
from stacklib.rejection import ends
from stacklib.rejection.calibration import critical_values
from stacklib.rejection.chauvenet import chauvenet
from stacklib.rejection.clipping import averaged_sigma, ccd_noise, min_max, none, percentile, sigma
from stacklib.rejection.line_fitting import linear_fit
from stacklib.rejection.noise_model import noise_model
from stacklib.rejection.outlier_tests import calibrated_sigma, gesd
from stacklib.rejection.sorting import median_network
from stacklib.rejection.winsorizing import winsorized_sigma

__all__ = ["ALL_ITERATIONS", "COMPILED", "CompiledRule", "rule_for"]

#: Enough rounds for every rule to finish.
ALL_ITERATIONS = 10_000


def _no_table(recipe: Recipe, frames: int) -> np.ndarray:
    return np.zeros((1, 1))


def _network_table(recipe: Recipe, frames: int) -> np.ndarray:
    # The rule looks for the median of distances.
    return median_network(frames)


def _gesd_table(recipe: Recipe, frames: int) -> np.ndarray:
    """Return the critical values by number of samples left, shape (1, frames + 1)."""
    n = np.arange(frames + 1, dtype=np.float64)
    critical = np.full(frames + 1, np.inf)
    left = n[3:]
    t = -scipy.special.stdtrit(left - 2, recipe.gesd_significance / (2 * left))
    critical[3:] = t * (left - 1) / np.sqrt((left - 2 + t * t) * left)
    return critical[np.newaxis]


def _chauvenet_table(recipe: Recipe, frames: int) -> np.ndarray:
    """Return the expected deviations in sigma of the inner 68.3 % of n samples in row n.

    Row 0 holds, by number of samples, the deviation beyond which the expected number of samples equals the
    limit.
    """
    table = np.zeros((frames + 1, frames + 1))
    table[0, 1:] = math.sqrt(2) * scipy.special.erfcinv(2 * recipe.chauvenet_limit / np.arange(1, frames + 1))
    for n in range(3, frames + 1):
        i = np.arange(1, int(0.683 * n + 0.317) + 1)
        table[n, : i.size] = math.sqrt(2) * scipy.special.erfinv((i - 0.317) / n)
    return table


def _calibrated_table(recipe: Recipe, frames: int) -> np.ndarray:
    return critical_values(recipe.sigma_low, recipe.sigma_high, frames)


@dataclass(frozen=True, kw_only=True)
class CompiledRule:
    """Compiled function of a rule, see `stacklib.rejection.clipping`, with its numbers from a recipe.

    A rule `by_frame` has other arguments, see `stacklib.rejection.noise_model`.

    `more_limits` takes recipe and full scale (ADU at the value 1) and returns the limits after the first
    three; `first_round_limit` is the position of the limit that applies to the first round only, if any.
    `table` takes recipe and number of frames. `by_ends` is the number of the rule in
    `stacklib.rejection.ends`, if it needs no more than that. `seconds` is what it takes to compile the rule
    on a processor of 2024, for forecasts.
    """

    spec: RuleSpec
    function: Callable
    more_limits: Callable[[Recipe, float], tuple[float, ...]] = lambda recipe, full_scale: ()
    first_round_limit: int | None = None
    by_ends: int | None = None
    table: Callable[[Recipe, int], np.ndarray] = _no_table
    seconds: float = 1.2

    def limits(self, recipe: Recipe, floor: float, full_scale: float) -> np.ndarray:
        """Return the numbers that the compiled function reads, float64."""
        off = 0.0 if self.spec.drops_ends else math.inf
        on = [float(getattr(recipe, name)) for name in self.spec.limits] or [1.0, 1.0]
        sides = [on[0] if recipe.clip_low else off, on[1] if recipe.clip_high else off]
        return np.array([*sides, floor, *self.more_limits(recipe, full_scale)])


#: Compiled rules by name.
COMPILED: dict[str, CompiledRule] = {
    rule.spec.name: rule
    for rule in (
        CompiledRule(spec=RULES["none"], function=none, by_ends=ends.NONE, seconds=0.4),
        CompiledRule(spec=RULES["min_max"], function=min_max, by_ends=ends.MIN_MAX, seconds=0.4),
        CompiledRule(spec=RULES["percentile"], function=percentile, by_ends=ends.PERCENTILE),
        CompiledRule(spec=RULES["sigma"], function=sigma, by_ends=ends.SIGMA),
        CompiledRule(
            spec=RULES["winsorized_sigma"],
            function=winsorized_sigma,
            more_limits=lambda recipe, full_scale: (recipe.winsorization_cutoff,),
            first_round_limit=3,
            table=_network_table,
            seconds=4.4,
        ),
        CompiledRule(spec=RULES["averaged_sigma"], function=averaged_sigma, by_ends=ends.AVERAGED_SIGMA),
        CompiledRule(spec=RULES["linear_fit"], function=linear_fit, seconds=3.5),
        CompiledRule(
            spec=RULES["gesd"],
            function=gesd,
            more_limits=lambda recipe, full_scale: (
                recipe.gesd_outliers_fraction,
                recipe.gesd_low_relaxation,
                float(recipe.gesd_variant == "pixinsight"),
            ),
            table=_gesd_table,
            seconds=3.0,
        ),
        CompiledRule(spec=RULES["calibrated_sigma"], function=calibrated_sigma, table=_calibrated_table),
        CompiledRule(spec=RULES["noise_model"], function=noise_model),
        CompiledRule(
            spec=RULES["chauvenet"],
            function=chauvenet,
            more_limits=lambda recipe, full_scale: (recipe.chauvenet_limit,),
            table=_chauvenet_table,
            seconds=4.5,
        ),
        CompiledRule(
            spec=RULES["ccd_noise"],
            function=ccd_noise,
            by_ends=ends.CCD_NOISE,
            more_limits=lambda recipe, full_scale: (
                recipe.ccd_read_noise,
                recipe.ccd_gain,
                recipe.ccd_scale_noise,
                full_scale,
            ),
        ),
    )
}


def rule_for(recipe: Recipe, frames: int) -> CompiledRule:
    """Return the rule of the recipe for this many frames, with ``auto`` resolved."""
    return COMPILED[recipe.rule_for(frames)]
