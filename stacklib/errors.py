"""Exceptions and the warning category of stacklib."""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "FrameError",
    "IntegrationError",
    "RecipeError",
    "RunError",
    "SaveError",
    "StacklibError",
    "StacklibWarning",
]


class StacklibError(Exception):
    """Base class of all stacklib exceptions.

    The message names the file or field, what was found, what was expected, and the remedy.
    """

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
