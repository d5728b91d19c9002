"""The picture that a run leaves beside its result."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stacklib.errors import StacklibWarning
from stacklib.utils.file_sets import WORK_FOLDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PREVIEW", "save_preview"]

#: Name of the picture in the work folder of a run.
PREVIEW = "preview.png"


def save_preview(draw: Callable[[], Figure]) -> None:
    """Draw the preview of a result into the work folder of the run, if a program runs this notebook.

    What goes wrong is a note: a picture is no reason to lose a run.

    Parameters
    ----------
    draw : callable
        Returns the preview as a figure.
    """
    room = os.environ.get(WORK_FOLDER)
    if not room:
        return
    try:
        draw().savefig(Path(room) / PREVIEW)
    except Exception as error:
        (Path(room) / PREVIEW).unlink(missing_ok=True)
        warnings.warn(f"the preview could not be made ({error})", StacklibWarning, stacklevel=2)
