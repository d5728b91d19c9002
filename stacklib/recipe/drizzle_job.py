"""Parameters of a drizzle run: frames, output folder and recipe."""

from __future__ import annotations

from dataclasses import dataclass

from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Job
from stacklib.utils.parameters import count_field, list_field, switch_field, text_field

__all__ = ["DrizzleJob"]


@dataclass(frozen=True)
class DrizzleJob(DrizzleRecipe):
    """A drizzle run. Every field is also a papermill parameter."""

    frames: str | list[str] = list_field(
        "",
        "Frames before registration, or the folder of their target; empty: simulated ones.",
    )
    registered: str = text_field(
        "", "The same frames registered; empty: 4_Registered beside them; none: register here."
    )
    geometry: str = text_field(
        "", "Folder with .xdrz files, .seq file of Siril, or stars; empty: what is found."
    )
    recipe_file: str = text_field(
        "", "Recipe of the integration; empty: recipe.yaml of the target; none: default settings."
    )
    output: str = text_field("", Job.parameters()["output"].help)
    memory: str = text_field("2GB", Job.parameters()["memory"].help)
    save_fits: bool = switch_field(False, "Also save image and weights as FITS.")
    threads: int = count_field(
        0, 0, 1024, "Number of processes that drizzle; 0: one for each processor.", "processes"
    )

    @property
    def recipe(self) -> DrizzleRecipe:
        """Scale, drop and the other settings of drizzling alone."""
        return DrizzleRecipe(**{name: getattr(self, name) for name in DrizzleRecipe.parameters()})
