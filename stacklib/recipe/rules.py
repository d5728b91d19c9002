"""What each rejection rule is."""

from __future__ import annotations

import math

from stacklib.recipe.recipe import Recipe

__all__ = ["limits_in_vain", "out_of_reach"]


def out_of_reach(rule: str, limit: float, frames: int) -> bool:
    """Whether a limit in sigma rejects nothing, as no outlier among so many samples can lie beyond it."""
    return rule in ("sigma", "averaged_sigma") and limit >= math.sqrt(frames)


def limits_in_vain(recipe: Recipe, frames: int) -> list[str]:
    """What the chosen limits cannot do with this many frames, as sentences for the user.

    One outlier among n samples lies at most sqrt(n) standard deviations from the median, so a limit
    beyond that rejects nothing; clipping at less than sqrt(3) sigma, repeated, eats into good samples.
    """
    name = recipe.rule_for(frames)
    if name == "none":
        return []
    if not (recipe.clip_low or recipe.clip_high):
        return ["clip_low and clip_high are both off: nothing can be rejected"]
    if name == "min_max":
        dropped = recipe.clip_low * recipe.min_max_low + recipe.clip_high * recipe.min_max_high
        if dropped >= frames:
            return [
                f"min_max drops {dropped} samples of {frames}: only the median is left; "
                "lower min_max_low or min_max_high"
            ]
        return []
    least = 5 if name == "linear_fit" else 3
    if frames < least:
        return [
            f"{name} needs at least {least} frames, there are {frames}: nothing can be rejected; "
            "add frames, or use min_max"
        ]
    notes = []
    in_vain = []
    if name in ("sigma", "winsorized_sigma", "averaged_sigma", "ccd_noise"):
        for side in ("low", "high"):
            limit = getattr(recipe, f"sigma_{side}")
            if not getattr(recipe, f"clip_{side}"):
                continue
            if out_of_reach(name, limit, frames):
                in_vain.append(f"sigma_{side} {limit:g}")
            if name != "ccd_noise" and limit <= math.sqrt(3):
                notes.append(
                    f"sigma_{side} {limit:g} is so low that repeated clipping eats into good samples; "
                    "use at least 2"
                )
    if in_vain:
        notes.append(
            f"{' and '.join(in_vain)} cannot reject anything with {frames} frames: one outlier among them "
            f"lies at most {math.sqrt(frames):.2f} sigma out; lower it, add frames, or use "
            "winsorized_sigma or percentile"
        )
    return notes
