"""Exceptions and the warning category of stacklib, and Ctrl-C."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "HIDDEN",
    "FrameError",
    "IntegrationError",
    "RecipeError",
    "RunError",
    "SaveError",
    "StacklibError",
    "StacklibWarning",
    "interrupts_kept",
    "printable",
]


#: What is not shown as it is: control characters, marks of direction, line and paragraph separators, and
#: halves of characters, which stand for bytes of a file name that are not UTF-8.
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Return a text with everything that is not a visible character written as ``\x1b``, except for `keep`.

    The result can be encoded as UTF-8, and neither commands a terminal nor turns the direction of writing.

    Examples
    --------
    >>> printable("M\x1b[31m31")
    'M\\x1b[31m31'
    """
    return HIDDEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise `KeyboardInterrupt` also if Ctrl-C came while numba looked for the code of a function.

    Numba makes a `SystemError` of it there, with the interrupt as its cause.
    """
    try:
        yield
    except SystemError as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, KeyboardInterrupt):
            found = found.__cause__ or found.__context__
        if found is None:
            raise
        raise KeyboardInterrupt(*found.args) from error


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


class StacklibError(Exception):
    """Base class of all stacklib exceptions.

    The message names the file or field, what was found, what was expected, and the remedy.
    """

    def __str__(self) -> str:
        # Names of files in it must not command the terminal.
        return printable(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """Show the message without a traceback in Jupyter."""
        return [f"{type(self).__name__}: {self}"]


class FrameError(StacklibError):
    """Raised when a frame or a set of frames cannot be used."""


class RecipeError(StacklibError, ValueError):
    """Raised when a parameter, an argument, or a recipe or job file is invalid."""


class IntegrationError(StacklibError):
    """Raised when valid frames cannot be integrated with a valid recipe."""


class RunError(IntegrationError):
    """Raised when a notebook cell fails during a headless run.

    Attributes
    ----------
    reason : str
        Error of the cell.
    notebook : Path or None
        The notebook as run, with the error in place.
    """

    def __init__(self, reason: str, notebook: Path | None) -> None:
        super().__init__(f"{reason}\nSee the notebook: {notebook}" if notebook else reason)
        self.reason, self.notebook = reason, notebook


class SaveError(StacklibError):
    """Raised when a result cannot be written."""


class StacklibWarning(UserWarning):
    """Category of all stacklib warnings."""

    def __str__(self) -> str:
        return printable(super().__str__())
