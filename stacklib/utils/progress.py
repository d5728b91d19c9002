"""Progress bars that are right in a terminal, in a live notebook and in a saved one."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm
from tqdm.auto import tqdm as live_tqdm

__all__ = ["in_live_notebook", "progress_bar"]


def in_live_notebook() -> bool:
    """Whether a browser shows what this process draws (JupyterLab or Voila)."""
    return bool(os.environ.get("JPY_SESSION_NAME") or os.environ.get("VOILA_KERNEL_ID"))


def progress_bar(
    total: int, title: str, unit: str, shown: bool = True, scale: bool = False, delay: float = 0.0
) -> tqdm:
    """A progress bar with the time left; use it as a context manager.

    Parameters
    ----------
    total : int
        Steps.
    title, unit : str
        What is done, and what is counted.
    shown : bool
        False draws nothing.
    scale : bool
        Show large numbers as k and M.
    delay : float
        Seconds until it is drawn: what is done by then needs none.
    """
    common = {"total": total, "desc": title, "unit": unit, "unit_scale": scale}
    common |= {"disable": not shown, "delay": delay}
    if in_live_notebook():
        return live_tqdm(**common)
    # A widget would stay at 0 % in a notebook that is saved without a browser: write text there.
    inside_kernel = "ipykernel" in sys.modules
    return tqdm(file=sys.stdout if inside_kernel else sys.stderr, mininterval=0.5, **common)
