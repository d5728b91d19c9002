"""Parameters of the notebooks: described once, checked before the work."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stacklib.errors import RecipeError
from stacklib.frames.finding import expanded
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.choices import NO_FILE
from stacklib.recipe.drizzle_job import DrizzleJob
from stacklib.recipe.presets import PRESET
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.parameters import Checked, Parameter, count_field, list_field, switch_field, text_field

if TYPE_CHECKING:
    from stacklib.frames.frame_set import FrameSet
    from stacklib.integration.samples import Region

__all__ = [
    "NOTEBOOKS",
    "RECIPE_FILE",
    "ChooseRejection",
    "GoOn",
    "HowIntegrationWorks",
    "InspectRejection",
    "SelectFrames",
    "cell_parameters",
    "describe",
    "parameters_cell",
]

#: Beyond the last pixel of any frame.
FAR = 100_000
_FRAMES, _INTERACTIVE = (Job.parameters()[name] for name in ("frames", "interactive"))
_SAVE = "Save without a click, for runs without a browser."


@dataclass(frozen=True)
class HowIntegrationWorks(Checked):
    """Parameters of 0_how_integration_works."""

    count: int = count_field(20, 8, 100, "Number of simulated frames.")
    seed: int = count_field(8, 0, 10**6, "Change it to get a different sky and different noise.", unit="")
    interactive: bool = switch_field(True, "Not used in this notebook.")


@dataclass(frozen=True)
class GoOn(Checked):
    """Parameters of a notebook that starts from the choices saved for its frames.

    `stacklib.notebook.read_parameters` reads them: `frames` and `recipe` are the ones to use.
    """

    frames: str | list[str] = list_field(_FRAMES.default, _FRAMES.help)
    recipe_file: str = text_field(
        "", "File with your choices; empty: recipe.yaml beside the frames; none: default settings."
    )
    recipe: Recipe = dataclasses.field(default_factory=Recipe)

    @property
    def path(self) -> str:
        """The file to save choices in; empty for that of the frames."""
        return "" if self.recipe_file == NO_FILE else self.recipe_file

    @property
    def load(self) -> bool:
        """Whether to start from saved choices."""
        return self.recipe_file != NO_FILE


@dataclass(frozen=True)
class SelectFrames(GoOn):
    """Parameters of 1_select_frames. `frames` are all frames, not only those chosen before."""

    save: bool = switch_field(False, _SAVE)
    interactive: bool = switch_field(True, _INTERACTIVE.help)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unwritable(self.recipe_file)


#: The parameter of every notebook that can start from a file.
RECIPE_FILE: Parameter = GoOn.parameters()["recipe_file"]


@dataclass(frozen=True)
class ChooseRejection(GoOn):
    """Parameters of 2_choose_rejection."""

    left: int = count_field(0, 0, FAR, "Left edge of the region.", "pixels")
    top: int = count_field(0, 0, FAR, "Top edge of the region.", "pixels")
    width: int = count_field(0, 0, FAR, "Width; 0 for 512. All four 0: at the brightest structure.", "pixels")
    height: int = count_field(0, 0, FAR, "Height; 0 for 512.", "pixels")
    compare: bool = switch_field(True, "Compare the presets classic and measured on the region.")
    save: bool = switch_field(False, _SAVE)
    interactive: bool = switch_field(True, _INTERACTIVE.help)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unwritable(self.recipe_file)

    @property
    def region(self) -> Region:
        """Left, top, width and height, as `RejectionExplorer` takes them."""
        return self.left, self.top, self.width, self.height


@dataclass(frozen=True)
class InspectRejection(GoOn):
    """Parameters of 3_inspect_rejection."""

    x: int = count_field(
        -1, -1, FAR, "Column of the first pixel shown, from 0; -1: at a cosmic ray.", unit=""
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
    def map_channel(self) -> int:
        """Channel whose maps are shown."""
        return max(self.channel, 0)

    def open_frames(self) -> FrameSet:
        """Open the frames, and check that the pixel lies inside them before they are integrated.

        `RecipeError` is raised if `x`, `y` or `channel` lies outside the frames, `FrameError` if they cannot
        be opened.
        """
        # What opens frames is not needed for the parameters.
        from stacklib.frames.frame_set import open_frames

        frames = open_frames(self.frames)
        sizes = {"x": frames.width, "y": frames.height, "channel": frames.channels}
        for name, size in sizes.items():
            if getattr(self, name) >= size:
                raise RecipeError(
                    f"{name}: got {getattr(self, name)}, expected 0 to {size - 1} for these frames, "
                    "or -1 for an automatic choice"
                )
        return frames


#: Parameters of each notebook, by the name of its file.
NOTEBOOKS: dict[str, type[Checked]] = {
    "0_how_integration_works": HowIntegrationWorks,
    "1_select_frames": SelectFrames,
    "2_choose_rejection": ChooseRejection,
    "3_inspect_rejection": InspectRejection,
    "4_integrate": Job,
    "5_batch": BatchJob,
    "6_drizzle": DrizzleJob,
}

#: The parameters of `Job`, and of `DrizzleJob`, that come first in the notebook; the others follow in their
#: own order.
FIRST = (
    *("frames", "recipe_file", "output", "preset"),
    *("rejection", "sigma_low", "sigma_high", "normalization", "weights"),
)
FIRST_OF_DRIZZLE = ("frames", "registered", "scale", "drop", "output")


#: Headings in the parameters cell of the integration, each above the parameter named here.
HEADINGS = {
    "frames": "Start with these",
    "interactive": "The run",
    "clip_low": "Rejection: each rule uses its own limits",
    "footprints": "Trails, tracks, colored dots: rejection that looks at neighbors",
    "range_clip_low": "Range: border without data, saturated samples",
    "rejection_normalization": "Normalization, weights, combination",
}
#: Columns of the parameters cell.
WIDTH = 110


def cell_parameters(kind: type[Checked]) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name, in the order of its parameters cell.

    Those of `Job` include the parameters of `Recipe`, `RECIPE_FILE` and `PRESET`.
    """
    if kind is DrizzleJob:
        return _ordered(FIRST_OF_DRIZZLE, kind.parameters())
    if kind is not Job:
        return kind.parameters()
    known = {RECIPE_FILE.name: RECIPE_FILE, PRESET.name: PRESET} | Job.parameters() | Recipe.parameters()
    return _ordered(FIRST, known)


def _ordered(first: tuple[str, ...], known: dict[str, Parameter]) -> dict[str, Parameter]:
    return {name: known[name] for name in dict.fromkeys((*first, *known))}


def parameters_cell(kind: type[Checked]) -> str:
    """Return the source of the parameters cell of a notebook.

    Each line is a literal assignment with its type and help text, as ``papermill --help-notebook`` reads it:
    a second ``=`` or a ``|`` would hide the line. Choices or a range that do not fit are written above it.
    """
    lines = []
    for name, parameter in cell_parameters(kind).items():
        if name in HEADINGS and kind is Job:
            lines += [""] * bool(lines) + [f"# {HEADINGS[name]}"]
        annotation = "str" if parameter.kind is list else parameter.kind.__name__
        assignment = f"{name}: {annotation} = {_literal(parameter.default)}  #"
        line = f"{assignment} {describe(parameter)}"
        if len(line) > WIDTH:
            lines += textwrap.wrap(allowed(parameter), WIDTH, initial_indent="# ", subsequent_indent="# ")
            line = f"{assignment} {parameter.help}"
        lines.append(line)
    return "\n".join(lines)


def allowed(parameter: Parameter) -> str:
    """Return the choices or the range of a parameter with its unit; empty if there are none."""
    if parameter.choices:
        return ", ".join(parameter.choices)
    if parameter.kind not in (int, float):
        return ""
    unit = f" {parameter.unit}" if parameter.unit else ""
    form = "" if parameter.kind is int else "g"
    usual = "; recommended {:g} to {:g}".format(*parameter.recommended) if parameter.recommended else ""
    return f"{parameter.low:{form}} to {parameter.high:{form}}{unit}{usual}"


def describe(parameter: Parameter) -> str:
    """Return the help text of a parameter with its range or choices, on one line."""
    return f"{parameter.help} [{allowed(parameter)}]" if allowed(parameter) else parameter.help


def _literal(value: Any) -> str:
    # Double quotes, as everywhere else; repr prefers single ones.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _refuse_unwritable(file: str) -> None:
    """Raise `RecipeError` if choices could not be saved at the end, before any work is done."""
    if file.strip() in ("", NO_FILE):
        return
    path = expanded(file)
    if path.is_dir():
        raise RecipeError(f"recipe_file: {path} is a folder; give the name of a file, such as recipe.yaml")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RecipeError(f"recipe_file: there is no folder {folder}; create it or choose another file")
    if path.exists():
        try:
            Job.load(path)
        except RecipeError as error:
            raise RecipeError(f"recipe_file: {error}; or choose another file") from error
