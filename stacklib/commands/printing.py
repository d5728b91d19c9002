"""What commands print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from stacklib.errors import printable

if TYPE_CHECKING:
    from stacklib.notebook.running import Run

__all__ = ["say", "say_run"]


def say(text: object, stream: TextIO | None = None) -> None:
    """Print a text, in which names from headers and folders cannot command the terminal."""
    print(printable(str(text)), file=stream or sys.stdout, flush=True)


def say_run(run: Run) -> None:
    """Print what came out of a run, and where it is."""
    say(f"\n{run.summary}\n")
    for path in filter(None, (*run.files, run.preview, run.notebook, run.page)):
        say(path)
    if run.page is None:
        say(f"\nNote: {run.notes[-1]}")
    say(f"\nOpen {run.page or run.preview or run.notebook} to see it.")
