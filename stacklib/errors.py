"""The one family of exceptions and the one warning category of stacklib."""

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
    """Base of every error that stacklib raises on purpose.

    The message names the file or the field, says what was found and what was expected,
    and ends with the remedy.
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message, which says it all, instead of the way through the code."""
        return [f"{type(self).__name__}: {self}"]


class FrameError(StacklibError):
    """A frame, or a set of frames, cannot be used."""


class RecipeError(StacklibError, ValueError):
    """A parameter is unknown, of the wrong type, or out of its range."""


class IntegrationError(StacklibError):
    """The frames and the recipe are each fine, but cannot be integrated together."""


class RunError(IntegrationError):
    """A cell of the notebook failed; `reason` is its error, `notebook` is where it can be seen, or None."""

    def __init__(self, reason: str, notebook: Path | None) -> None:
        super().__init__(f"{reason}\nThe notebook shows where: {notebook}" if notebook else reason)
        self.reason, self.notebook = reason, notebook


class SaveError(StacklibError):
    """A result cannot be written."""


class StacklibWarning(UserWarning):
    """Something the user should know; the work goes on."""
