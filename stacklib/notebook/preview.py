"""The picture that a run leaves beside its result."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from stacklib.errors import StacklibWarning
from stacklib.figures.result_plots import figure_preview
from stacklib.integration.result import Integration
from stacklib.utils.file_sets import WORK_FOLDER

__all__ = ["PREVIEW", "save_preview"]

#: Name of the picture in the work folder of a run.
PREVIEW = "preview.png"


def save_preview(result: Integration) -> None:
    """Draw the preview of a result into the work folder of the run, if a program runs this notebook.

    What goes wrong is a note: a picture is no reason to lose a run.
    """
    room = os.environ.get(WORK_FOLDER)
    if not room:
        return
    try:
        figure_preview(result).savefig(Path(room) / PREVIEW)
    except Exception as error:
        (Path(room) / PREVIEW).unlink(missing_ok=True)
        warnings.warn(f"the preview could not be made ({error})", StacklibWarning, stacklevel=2)
