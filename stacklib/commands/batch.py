"""``stacklib batch``: integrate many targets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stacklib.commands.parameters import add_parameters, parameter_list, texts_of, typed
from stacklib.commands.printing import say
from stacklib.frames.finding import resolve_path
from stacklib.notebook.executed import NOTE
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.presets import PRESET
from stacklib.recipe.recipe import Recipe
from stacklib.utils.parameters import Parameter
from stacklib.utils.texts import one_line, printable_table

if TYPE_CHECKING:
    from stacklib.batch import Batch

__all__ = ["add_arguments", "batch_from_arguments", "known_parameters", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Integrate all targets below a folder. A target is a folder named 4_Registered with\n"
        "frames in it. Targets that are done and have not changed are skipped.\n"
        "A summary is written into the folder."
    )
    parser.epilog = parameter_list(known_parameters())
    parser.add_argument("folder", metavar="FOLDER", help="folder with the targets")
    add_parameters(parser)
    parser.add_argument("--list", action="store_true", help="only list the targets and what would be done")
    parser.set_defaults(command=main, known=known_parameters)


def known_parameters() -> dict[str, Parameter]:
    """Return the parameters for -p of a batch: its own, and the recipe of targets without one."""
    known = BatchJob.parameters() | {PRESET.name: PRESET} | Recipe.parameters()
    return {name: parameter for name, parameter in known.items() if name not in ("folder", "interactive")}


def main(options: argparse.Namespace) -> int:
    """List or integrate targets."""
    say(f"Reading the headers of the frames below {options.folder} ...", sys.stderr)
    batch = batch_from_arguments(options.folder, options.parameters)
    plan = printable_table(batch.plan)
    say("\n".join(plan.pformat(max_lines=-1, max_width=-1, show_unit=False)))
    for note in batch.notes:
        say(f"{NOTE}{one_line(note)}")
    if options.list:
        return 0
    batch.run()
    say(f"\n{batch.summary}\n\n{batch.page}")
    return 1 if batch.failed else 0


def batch_from_arguments(folder: str, parameters: Sequence[tuple[str, str]] = ()) -> Batch:
    """Return the batch that a command line describes.

    The texts of `parameters` are converted to their types. Parameters of a recipe change the recipe that
    targets share. `RecipeError` is raised for an unknown name or an invalid value, `FrameError` if no target
    is found.
    """
    known = known_parameters()
    values = {n: typed(known[n], text) for n, text in texts_of(parameters, known).items()}
    # Here, so that help and wrong parameters are answered at once.
    from stacklib.batch import ADVISE, Batch

    of_recipe = {name: values.pop(name) for name in list(values) if name not in BatchJob.parameters()}
    job = BatchJob.from_dict({"folder": folder} | values)
    if not of_recipe:
        return Batch(job)
    file = job.recipe if job.recipe != ADVISE else ""
    shared = Recipe.load(resolve_path(file)) if file else Recipe()
    return Batch(job, shared.replace(**of_recipe))
