"""``stacklib rerun``: repeat the run of a saved image."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from stacklib.commands.printing import say
from stacklib.errors import StacklibWarning
from stacklib.frames.finding import expanded
from stacklib.recipe.run_record import read_run

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Check the frames of a saved image, and integrate them again with the recipe in the "
        "image. The new files get the next free number. The images are compared bit for bit."
    )
    parser.add_argument("file", metavar="FILE", help="any image of the result")
    parser.add_argument("--frames", metavar="DIR", help="folder with the frames, if they were moved")
    parser.add_argument("--output", metavar="DIR", help="folder for the new files (default: that of FILE)")
    parser.set_defaults(command=main)


def main(options: argparse.Namespace) -> int:
    """Repeat a run and compare. Return 0 if the images are identical."""
    # Whether there is a record is known long before all that integrates is imported.
    read_run(options.file)
    from stacklib.drizzle.rerun import rerun
    from stacklib.integration.rerun import also_saved, repeats

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", StacklibWarning)
        result = rerun(options.file, options.frames)
    folder = options.output or expanded(options.file).absolute().parent
    also: dict[str, Any] = {**also_saved(options.file)}
    files = result.save(folder, **also)
    say("\n".join([f"\n{result.summary}\n", *(f"Note: {note.message}" for note in notes), *map(str, files)]))
    same = repeats(options.file, files)
    say(f"\n{'Identical to' if same else 'NOT identical to'} {options.file}")
    return 0 if same else 1
