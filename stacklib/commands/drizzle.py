"""``stacklib drizzle``: drizzle the unregistered frames of one target."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from stacklib.commands.parameters import add_parameters, frames_of, parameter_list, texts_of, typed
from stacklib.commands.printing import say, say_run
from stacklib.errors import RecipeError
from stacklib.notebook.parameters import cell_parameters
from stacklib.recipe.drizzle_job import DrizzleJob
from stacklib.utils.parameters import Parameter
from stacklib.utils.resources import parse_memory

__all__ = ["add_arguments", "drizzle_from_arguments", "known_parameters", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Deposit calibrated frames that are not registered on a grid, with the rejection,\n"
        "weights and normalization of the integration of the registered ones. FOLDER holds these frames,\n"
        "or is the folder of the target, in which they are looked for beside 4_Registered.\n"
        "The executed notebook is kept beside the result."
    )
    parser.epilog = parameter_list(known_parameters())
    parser.add_argument(
        "target",
        nargs="+",
        metavar="FOLDER",
        help="folder of frames that are not registered or of their target, or the files themselves",
    )
    parser.add_argument(
        "--registered", metavar="DIR", help="folder of the same frames, registered; none: register them here"
    )
    add_parameters(parser)
    parser.add_argument("--output", metavar="DIR", help="folder for the results; created if missing")
    parser.set_defaults(command=main, known=known_parameters)


def known_parameters() -> dict[str, Parameter]:
    """Return the parameters for -p of a drizzle run."""
    return cell_parameters(DrizzleJob)


def main(options: argparse.Namespace) -> int:
    """Drizzle a target."""
    # Here, so that help and the usual errors come at once.
    from stacklib.notebook.running import run_drizzle

    say("Reading the headers of the frames ...")
    frames = frames_of(options.target)
    say_run(
        run_drizzle(drizzle_from_arguments(frames, options.parameters, options.registered, options.output))
    )
    return 0


def drizzle_from_arguments(
    target: str | list[str],
    parameters: Sequence[tuple[str, str]] = (),
    registered: str | None = None,
    output: str | None = None,
) -> DrizzleJob:
    """Return the drizzle run that a command line describes.

    The texts of `parameters` are converted to their types. `RecipeError` is raised for an unknown name or an
    invalid value.
    """
    known = known_parameters()
    texts = texts_of(parameters, known)
    options = {"frames": target, "registered": registered, "output": output}
    for name in (name for name, value in options.items() if value is not None and name in texts):
        given = "as FOLDER" if name == "frames" else f"as --{name}"
        raise RecipeError(f"-p {name}: given {given} already; give only one of the two")
    if isinstance(target, str) and Path(target).suffix.lower() in (".yaml", ".yml"):
        raise RecipeError(
            f"{target}: is no folder of frames; the recipe of the integration goes with -p recipe_file"
        )
    values = {name: typed(known[name], text) for name, text in texts.items()}
    values |= {name: value for name, value in options.items() if value is not None}
    job = DrizzleJob(**values)
    parse_memory(job.memory)
    return job
