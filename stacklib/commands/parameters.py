"""The option -p, which sets a parameter, and the frames that a command line names."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stacklib.commands.printing import say
from stacklib.errors import RecipeError
from stacklib.frames.frame_set import as_pattern
from stacklib.notebook.executed import NOTE
from stacklib.notebook.parameters import describe
from stacklib.utils.parameters import Parameter, refuse_unknown
from stacklib.utils.texts import one_line

__all__ = ["add_parameters", "frames_of", "parameter_list", "texts_of", "typed"]

#: Values of a switch on the command line.
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def add_parameters(command: argparse.ArgumentParser) -> None:
    """Add the option -p."""
    command.add_argument(
        "-p",
        dest="parameters",
        metavar=("NAME", "VALUE"),
        nargs=2,
        action="append",
        default=[],
        help="set a parameter; can be repeated",
    )


def parameter_list(known: Mapping[str, Parameter]) -> str:
    """Return the help on all parameters."""
    lines = ["parameters for -p and for job files, with defaults:"]
    for name, parameter in known.items():
        default = str(parameter.default).lower() if parameter.kind is bool else parameter.default
        lines += [f"  {name} {'(empty)' if default == '' else default}", f"      {describe(parameter)}"]
    return "\n".join(lines)


def texts_of(parameters: Sequence[tuple[str, str]], known: Mapping[str, Parameter]) -> dict[str, str]:
    """Return the values of -p by name. Every name must be known, and given once."""
    texts = dict(parameters)
    if "interactive" in texts:
        raise RecipeError("-p interactive: a run from the command line is never interactive; leave it out")
    refuse_unknown(texts, known, "-p")
    for name, count in Counter(name for name, _ in parameters).items():
        if count > 1:
            raise RecipeError(f"-p {name}: given {count} times; give it once")
    return texts


def typed(parameter: Parameter, text: str) -> Any:
    """Convert the text to the type of the parameter; one that cannot be converted is left for the check."""
    if parameter.kind is bool:
        return SWITCHES.get(text.lower(), text)
    if parameter.kind in (int, float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def frames_of(targets: Sequence[str]) -> str | list[str]:
    """Return the frames or the job file that a command line names.

    Several files are usually a pattern that the shell has expanded: as in any pattern, what is no light frame
    is left out. Notes say so.
    """
    if len(targets) == 1:
        return targets[0]
    files = [target for target in targets if Path(target).suffix.lower() in (".yaml", ".yml")]
    if files:
        raise RecipeError(
            f"{files[0]}: a job or recipe file comes alone; to use it for other frames, give a folder or a "
            "pattern in quotation marks with -p frames"
        )
    frames, notes = as_pattern(targets)
    for note in notes:
        say(f"{NOTE}{one_line(note)}", sys.stderr)
    return frames
