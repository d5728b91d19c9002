"""``stacklib watch``: integrate the frames of a night while they come in."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from stacklib.commands.parameters import add_parameters, parameter_list
from stacklib.commands.printing import say
from stacklib.commands.run import job_from_arguments, known_parameters
from stacklib.watch.incoming import EVERY

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Integrate the registered frames in a folder, and again whenever some have come in, until Ctrl-C.\n"
        "One page, live/live.html in the folder of the results, shows the master, its noise against the\n"
        "number of frames, and what another hour would bring; it loads itself again. Files that are still\n"
        "being written are waited for. At the end the result is saved under its usual name.\n"
        "Choices saved in the notebooks are used, except for the selection of frames."
    )
    parser.epilog = parameter_list(known_parameters())
    parser.add_argument("target", metavar="FOLDER", help="folder of registered frames, or a pattern for them")
    add_parameters(parser)
    parser.add_argument("--output", metavar="DIR", help="folder for the results; created if missing")
    parser.add_argument(
        "--every",
        type=_seconds,
        default=EVERY,
        metavar="SECONDS",
        help=f"time between two looks at the folder; default {EVERY:g}",
    )
    parser.set_defaults(command=main, known=known_parameters)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"got {text}, expected 0.1 to 86400 seconds")
    return value


def main(options: argparse.Namespace) -> int:
    """Watch a folder until Ctrl-C."""
    # Here, so that help and the usual errors come at once.
    from stacklib.watch.watching import Watch

    job, line = job_from_arguments(options.target, options.parameters, options.output)
    if line:
        say(line)
    if isinstance(job.frames, list) and not _is_file(options.target):
        # A selection that was saved earlier knows nothing of the frames that are still to come.
        job = dataclasses.replace(job, frames=options.target)
    Watch(job, say=say).run(options.every)
    return 0


def _is_file(target: str) -> bool:
    return Path(target).suffix.lower() in (".yaml", ".yml")
