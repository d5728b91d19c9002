"""Which steps of an integration need compiled code."""

from __future__ import annotations

from typing import Any

from stacklib.frames.frame_set import FrameSet
from stacklib.frames.kinds import calibration_kind
from stacklib.recipe.recipe import BY_LIGHT, Recipe
from stacklib.recipe.rules import RULES
from stacklib.rejection.registry import COMPILED
from stacklib.utils.ahead.processes import Step

__all__ = ["steps_of"]


def steps_of(frames: FrameSet, recipe: Recipe) -> list[Step]:
    """Return the steps that an integration of these frames needs, see `stacklib.integration.first.steps`."""
    count, rule = len(frames), recipe.rule_for(len(frames))
    steps = [
        _step("measure_levels", 1.4, recipe.scale_estimator),
        _step("measure_noise", 2.1),
        _step("reject", COMPILED[rule].seconds, rule),
        _step("combine_samples", 2.0, int(recipe.output_bits)),
        _step("sort_samples", 0.6),
        _step("measure_result", 0.6),
    ]
    if not calibration_kind(frames):
        steps += [_step("register", 0.4), _step("compare_light", 1.5)]
    if {recipe.normalization, recipe.rejection_normalization}.intersection(BY_LIGHT):
        steps += [_step("fit_surfaces", 3.0), _step("find_structure", 0.6)]
    if "colour" in recipe.spatial_means(count, frames.channels):
        steps += [_step("look_for_hits", 0.6), _step("mark_hits", 0.5)]
    if RULES[rule].by_frame:
        steps += [_step("write_scatter", 0.4)]
    if RULES[rule].by_frame or frames.channels > 1:
        steps += [_step("find_noisy_places", 0.6)]
    return steps


def _step(name: str, seconds: float, *given: Any) -> Step:
    return Step(f"stacklib.integration.first.steps:{name}", seconds, given)
