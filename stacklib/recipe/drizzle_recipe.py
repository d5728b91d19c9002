"""Parameters of drizzling, beside those of the integration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stacklib.utils.parameters import Checked, choice_field, number_field, refuse_unknown, text_field

__all__ = ["KERNELS", "MODELS", "DrizzleRecipe"]

#: Kernels of the drizzle library that conserve flux.
KERNELS = ("square", "turbo", "point")
#: Kinds of geometry that are found by stars.
MODELS = ("auto", "similarity", "homography")


@dataclass(frozen=True)
class DrizzleRecipe(Checked):
    """Settings of drizzling. It is immutable and always valid, as `stacklib.Recipe` is.

    Examples
    --------
    >>> DrizzleRecipe(scale=2, drop=0.7).kernel
    'square'
    """

    scale: float = number_field(
        1.0, 1.0, 4.0, "Pixels of the result along each axis for a pixel of the reference."
    )
    drop: float = number_field(
        0.9, 0.1, 1.0, "Side of a drop relative to a pixel of the frames (drop shrink)."
    )
    kernel: str = choice_field(
        "square", KERNELS, "Shape of a drop: a square turned with its frame, one along the axes, or a point."
    )
    pattern: str = text_field(
        "", "Color filter pattern, such as RGGB; empty: that of the headers; none: no mosaic."
    )
    geometry_model: str = choice_field(
        "auto", MODELS, "Geometry that stars give; auto: a homography if that fits better."
    )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "drizzle recipe") -> DrizzleRecipe:
        """Make a recipe from names and values. Raises `RecipeError` for a wrong name or value."""
        refuse_unknown(values, cls.parameters(), source)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return all parameters by name."""
        return {name: getattr(self, name) for name in self.parameters()}
