"""Where the files of a result are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["SavedFiles"]


@dataclass(frozen=True)
class SavedFiles:
    """The files of one saved result.

    Attributes
    ----------
    images : tuple of Path
        The images, in the order in which `save` returns them.
    table : Path
        The table of the frames, ECSV.
    report : Path
        The report, plain text.
    """

    images: tuple[Path, ...]
    table: Path
    report: Path
