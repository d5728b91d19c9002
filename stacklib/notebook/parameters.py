"""The parameters of the notebooks 0 to 4 that belong to no job: described once, checked before the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stacklib.errors import RecipeError
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.samples import Region
from stacklib.recipe.recipe import Job
from stacklib.utils.parameters import Checked, Parameter, count_field, list_field, switch_field, text_field

__all__ = [
    "OWN",
    "RECIPE_FILE",
    "ChooseRejection",
    "GoOn",
    "HowIntegrationWorks",
    "InspectRejection",
    "SelectFrames",
]

#: What the notebook for selecting frames writes, and the others look for, unless another name is given.
USUAL_NAME = "recipe.yaml"
#: Beyond the last pixel of any frame.
FAR = 100_000
_FRAMES, _INTERACTIVE = (Job.parameters()[name] for name in ("frames", "interactive"))
_FROM_FILE = "Folder, glob pattern or list of files; left as it is, those of recipe_file where it names any."


@dataclass(frozen=True)
class HowIntegrationWorks(Checked):
    """0_how_integration_works."""

    frames: int = count_field(20, 8, 100, "Number of simulated frames.")
    seed: int = count_field(8, 0, 10**6, "Another number gives another sky and other noise.", unit="")
    interactive: bool = switch_field(True, "As in the other notebooks; this one shows figures only.")


@dataclass(frozen=True)
class SelectFrames(Checked):
    """1_select_frames."""

    frames: str | list[str] = list_field(_FRAMES.default, _FRAMES.help)
    recipe_file: str = text_field(
        USUAL_NAME,
        "Job file to save the choice in; of one that is there, everything but the frames is kept.",
    )
    interactive: bool = switch_field(True, _INTERACTIVE.help)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unwritable("recipe_file", self.recipe_file)


@dataclass(frozen=True)
class GoOn(Checked):
    """What every notebook that follows on others has."""

    recipe_file: str = text_field(
        "",
        f"Recipe or job file to go on with, such as {USUAL_NAME} of the notebooks before; empty for none. "
        "Other parameters that were changed count more than the file.",
    )


#: The parameter that every notebook that follows on others has.
RECIPE_FILE: Parameter = GoOn.parameters()["recipe_file"]


@dataclass(frozen=True)
class ChooseRejection(Checked):
    """2_choose_rejection."""

    frames: str | list[str] = list_field(_FRAMES.default, _FROM_FILE)
    recipe_file: str = text_field("", RECIPE_FILE.help)
    left: int = count_field(0, 0, FAR, "Left edge of the region.", "pixels")
    top: int = count_field(0, 0, FAR, "Top edge of the region.", "pixels")
    width: int = count_field(
        0,
        0,
        FAR,
        "Width of the region; 0 for 512, and where all four are 0 at the brightest structure.",
        "pixels",
    )
    height: int = count_field(0, 0, FAR, "Height of the region; 0 as for the width.", "pixels")
    write_recipe: str = text_field(USUAL_NAME, "Job file to write; of one that is there, the rest is kept.")
    interactive: bool = switch_field(True, _INTERACTIVE.help)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unwritable("write_recipe", self.write_recipe)

    @property
    def region(self) -> Region:
        """Left, top, width and height, as `RejectionExplorer` takes them."""
        return self.left, self.top, self.width, self.height


@dataclass(frozen=True)
class InspectRejection(Checked):
    """3_inspect_rejection."""

    frames: str | list[str] = list_field(_FRAMES.default, _FROM_FILE)
    recipe_file: str = text_field("", RECIPE_FILE.help)
    x: int = count_field(
        -1,
        -1,
        FAR,
        "Column of the pixel to begin with, from 0 at the left; -1 for the one with the most rejections.",
        unit="",
    )
    y: int = count_field(-1, -1, FAR, "Row of that pixel, from 0 at the top; -1 if x is -1.", unit="")
    channel: int = count_field(-1, -1, 1000, "Channel, from 0; -1 for that of the pixel.", unit="")
    interactive: bool = switch_field(True, _INTERACTIVE.help)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.x < 0) != (self.y < 0):
            given, missing = ("x", "y") if self.y < 0 else ("y", "x")
            raise RecipeError(
                f"{missing}: got -1 beside {given} {getattr(self, given)}; give both, or leave both at -1"
            )

    @property
    def plane(self) -> int:
        """The channel whose maps are shown."""
        return max(self.channel, 0)

    def refuse_outside(self, frames: FrameSet) -> None:
        """Raise `RecipeError` when the pixel is not one of the frames: before they are integrated."""
        sizes = {"x": frames.width, "y": frames.height, "channel": frames.channels}
        for name, size in sizes.items():
            if getattr(self, name) >= size:
                raise RecipeError(
                    f"{name}: got {getattr(self, name)}, expected 0 to {size - 1} in these frames, "
                    "or -1 to have one chosen"
                )


#: By the number of the notebook.
OWN: dict[int, type[Checked]] = {
    0: HowIntegrationWorks,
    1: SelectFrames,
    2: ChooseRejection,
    3: InspectRejection,
    4: GoOn,
}


def _refuse_unwritable(name: str, file: str) -> None:
    """What is to be written at the end can be: better to know before the work than after it."""
    path = Path(file)
    if not file.strip() or path.is_dir():
        what = f"{path} is a folder" if file.strip() else "is empty"
        raise RecipeError(f"{name}: {what}; name the file to write, such as {USUAL_NAME}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RecipeError(f"{name}: there is no folder {folder}; make it, or name a file in another one")
    if path.exists():
        try:
            Job.load(path)
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}; or name another file") from error
