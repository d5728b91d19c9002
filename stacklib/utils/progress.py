"""Progress bars that work in a terminal, in a live notebook and in a saved one."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.auto import tqdm as live_tqdm

from stacklib.utils.file_sets import WORK_FOLDER

__all__ = ["PROGRESS_NAME", "in_live_notebook", "progress_bar"]

#: File in the work folder of a run with the percentage done.
PROGRESS_NAME = "progress"


def in_live_notebook() -> bool:
    """Return whether a browser shows what this process draws (JupyterLab or Voila)."""
    return bool(os.environ.get("JPY_SESSION_NAME") or os.environ.get("VOILA_KERNEL_ID"))


class _TextBar(tqdm):
    """A bar in text, which also writes the percentage of the run into its work folder."""

    part: tuple[int, int] | None = None

    def display(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar."""
        super().display(*args, **kwargs)
        if self.part and WORK_FOLDER in os.environ:
            start, stop = self.part
            percent = start + (stop - start) * self.n // max(self.total, 1)
            with contextlib.suppress(OSError):
                Path(os.environ[WORK_FOLDER], PROGRESS_NAME).write_text(str(percent), encoding="utf-8")


def progress_bar(
    total: int,
    title: str,
    unit: str,
    shown: bool = True,
    scale: bool = False,
    delay: float = 0.0,
    part: tuple[int, int] | None = None,
) -> tqdm:
    """Return a progress bar with the time left. Use it as a context manager.

    With `scale`, large numbers are shown as k and M. The bar appears after `delay` seconds. `part` is the
    percentage of the whole run at the start and at the end of this bar.
    """
    common = dict(total=total, desc=title, unit=unit, unit_scale=scale, disable=not shown, delay=delay)
    if in_live_notebook():
        return live_tqdm(**common)
    # A widget would stay at 0 % in a notebook that is saved without a browser: write text there.
    inside_kernel = "ipykernel" in sys.modules
    bar = _TextBar(file=sys.stdout if inside_kernel else sys.stderr, mininterval=0.5, **common)
    bar.part = part
    return bar
