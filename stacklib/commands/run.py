"""``stacklib run``: integrate one target."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stacklib.commands.parameters import add_parameters, frames_of, parameter_list, texts_of, typed
from stacklib.commands.printing import say, say_run
from stacklib.errors import RecipeError
from stacklib.frames.finding import FRAMES_FOLDER, resolve_path
from stacklib.notebook.parameters import cell_parameters
from stacklib.recipe.choices import file_values, job_with_choices
from stacklib.recipe.recipe import Job
from stacklib.utils.labels import listed
from stacklib.utils.parameters import Parameter
from stacklib.utils.resources import parse_memory

__all__ = ["add_arguments", "job_from_arguments", "known_parameters", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Integrate the frames in a folder, or run a job file (YAML).\n"
        "Choices saved in the notebooks are used, unless -p recipe_file none is given.\n"
        "A recipe file that lists no frames also needs -p frames FOLDER, unless it lies beside them."
    )
    parser.epilog = parameter_list(known_parameters())
    parser.add_argument(
        "target",
        nargs="+",
        metavar="FOLDER|JOB.yaml",
        help="folder of registered frames, the files themselves, or a job or recipe file",
    )
    add_parameters(parser)
    parser.add_argument("--output", metavar="DIR", help="folder for the results; created if missing")
    parser.set_defaults(command=main, known=known_parameters)


def known_parameters() -> dict[str, Parameter]:
    """Return the parameters for -p. A run from the command line is never interactive."""
    known = cell_parameters(Job)
    return {name: parameter for name, parameter in known.items() if name != "interactive"}


def main(options: argparse.Namespace) -> int:
    """Integrate a target."""
    # Here, so that help and the usual errors come at once.
    from stacklib.notebook.running import run_job

    say("Reading the headers of the frames ...")
    job, line = job_from_arguments(frames_of(options.target), options.parameters, options.output)
    if line:
        say(line)
    say_run(run_job(job))
    return 0


def job_from_arguments(
    target: str | list[str], parameters: Sequence[tuple[str, str]] = (), output: str | None = None
) -> tuple[Job, str]:
    """Return the job that a command line describes, and a line about the choices it uses.

    The target is a folder, glob pattern, file or list of frames, whose saved choices are used, or a job
    file (``.yaml`` or ``.yml``). The texts of `parameters` are converted to their types, and override the
    choices. `RecipeError` is raised for an unknown name or an invalid value.
    """
    known = known_parameters()
    texts = texts_of(parameters, known)
    if output is not None and "output" in texts:
        raise RecipeError("-p output: given together with --output; give only one of the two")
    from_file = isinstance(target, str) and Path(target).suffix.lower() in (".yaml", ".yml")
    for name, what in (("recipe_file", "file is"), ("frames", "frames are")):
        if name in texts and from_file == (name == "recipe_file"):
            given = target if isinstance(target, str) else listed(target)
            raise RecipeError(f"-p {name}: the {what} already given as {given}; give only one of the two")
    values = {name: typed(known[name], text) for name, text in texts.items()}
    if output is not None:
        values["output"] = output
    file = values.pop("recipe_file", "")
    if isinstance(target, str) and from_file:
        file = target
        values = _frames_beside(resolve_path(target), values)
    else:
        values["frames"] = target
    job, line = job_with_choices(values, file)
    parse_memory(job.memory)
    return job, line


def _frames_beside(file: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with frames, if neither they nor the file have any: those that it lies beside."""
    if "frames" in values or "frames" in file_values(file):
        return dict(values)
    if not (file.parent / FRAMES_FOLDER).is_dir():
        raise RecipeError(f"{file}: lists no frames; add -p frames FOLDER")
    return {**values, "frames": str(file.parent)}
