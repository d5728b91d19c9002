"""Presets: parameters of a recipe that belong together, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stacklib.errors import RecipeError
from stacklib.utils.labels import quoted
from stacklib.utils.parameters import Parameter

__all__ = ["PRESET", "PRESETS", "with_preset"]

#: For bias and dark frames: they have no sky to match, and 0 is a sample like any other.
_UNMATCHED = {
    "normalization": "none",
    "rejection_normalization": "none",
    "weights": "none",
    # It sees a cosmic ray among few frames, and goes by the noise of each pixel: hot ones are noisier.
    "rejection": "calibrated_sigma",
    "range_clip_low": False,
    "joint_colour": False,
}

#: Parameters of each preset by name.
PRESETS: dict[str, dict[str, Any]] = {
    "classic": {
        "normalization": "additive_scaling",
        "rejection_normalization": "scale_zero_offset",
        "weights": "noise",
        "rejection": "auto",
        # Other programs look at single pixels.
        "footprints": "off",
        "joint_colour": False,
    },
    "measured": {
        "normalization": "photometric",
        "rejection_normalization": "photometric",
        "weights": "measured",
        "rejection": "noise_model",
        "joint_colour": True,
    },
    "bias": _UNMATCHED,
    "dark": _UNMATCHED,
    "flat": {
        "normalization": "multiplicative",
        "rejection_normalization": "equalize_fluxes",
        "weights": "none",
        "rejection": "calibrated_sigma",
        "joint_colour": False,
    },
}

#: The parameter that names a preset. It is not part of a recipe: the parameters that it stands for are.
PRESET = Parameter(
    name="preset",
    kind=str,
    default="none",
    help="Settings that those below override: measured for lights, or classic.",
    choices=("none", *PRESETS),
)


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with the parameters of their ``preset`` in its place; the other values override them.

    Raises `RecipeError` if there is no preset of that name, or `values` are not names and values.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"a recipe needs names and values, got {quoted(values)}")
    others = {name: value for name, value in values.items() if name != PRESET.name}
    name = PRESET.check(values.get(PRESET.name, PRESET.default))
    return {**PRESETS.get(name, {}), **others}
