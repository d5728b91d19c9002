"""Progress bars that work in a terminal, in a live notebook and in a saved one."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stacklib.utils.compiled import compiling, is_kept, seconds_of_compiling, tell_of_compiling
from stacklib.utils.file_sets import WORK_FOLDER

__all__ = [
    "COMPILING",
    "PROGRESS_NAME",
    "bars_shown_by",
    "in_live_notebook",
    "in_notebook",
    "in_web_app",
    "progress_bar",
    "say",
    "tell_what_takes_long",
]

#: File in the work folder of a run with the percentage done.
PROGRESS_NAME = "progress"
#: What is said when code is compiled, where it is kept and where it cannot be, and when that goes on.
COMPILING = "Compiling for this computer: once, and it takes some seconds to a minute ..."
COMPILING_AGAIN = "Compiling for this computer, which takes about a minute ..."
GOES_ON = "Compiling the next step ..."
#: Steps after which the time left is shown.
FIRST_STEPS = 2


def in_live_notebook() -> bool:
    """Return whether a browser shows what this process draws (JupyterLab or Voila)."""
    return bool(os.environ.get("JPY_SESSION_NAME")) or in_web_app()


def in_web_app() -> bool:
    """Return whether Voila serves this process, so that those who use it see no code."""
    return bool(os.environ.get("VOILA_KERNEL_ID"))


def in_notebook() -> bool:
    """Return whether this process runs a notebook, live or not."""
    return "ipykernel" in sys.modules


def _stream() -> Any:
    """Return where text for the user goes: a saved notebook keeps only what is printed."""
    return sys.stdout if in_notebook() else sys.stderr


class _Told:
    """Which waits for compilation were told: one in each bar, and one between two bars."""

    def __init__(self) -> None:
        self.part, self.parts = 0, set[int]()

    def say(self) -> None:
        """Say that code is compiled, once in this part of the work."""
        if self.part in self.parts:
            return
        words = GOES_ON if self.parts else COMPILING if is_kept() else COMPILING_AGAIN
        self.parts.add(self.part)
        say(words)


_told = _Told()
#: Where bars and words are shown instead of below the cell, see `bars_shown_by`.
_place: tuple[Callable[[Any], None], Callable[[str], None]] | None = None


def say(words: str) -> None:
    """Print a line between bars, or show it where they are shown."""
    if _place is not None:
        _place[1](words)
    else:
        tqdm.write(words, file=_stream())


@contextlib.contextmanager
def bars_shown_by(show: Callable[[Any], None], say: Callable[[str], None]) -> Iterator[None]:
    """Show bars and words in a panel: what its buttons print and display appears nowhere.

    Parameters
    ----------
    show : callable
        Gets the widget of each bar.
    say : callable
        Gets each text, such as that code is compiled.
    """
    global _place
    before, _place = _place, (show, say)
    try:
        yield
    finally:
        _place = before


def tell_what_takes_long() -> None:
    """From now on, say so when functions are compiled because there is nothing in the cache."""
    tell_of_compiling(_told.say)


class _Timed:
    """What both kinds of bars share: the time left does not count the time of compiling."""

    compiled_before = 0.0

    @property
    def format_dict(self) -> dict[str, Any]:
        """What is shown: no rate, and no time left, until it is known."""
        found = super().format_dict  # type: ignore[misc]
        working = found["elapsed"] - (seconds_of_compiling() - self.compiled_before)
        known = found["n"] >= FIRST_STEPS and working > 0 and not compiling()
        return found | {"rate": found["n"] / working if known else 0}

    def close(self) -> None:
        """End the bar; the next part of the work begins."""
        _told.part += not self.disable  # type: ignore[attr-defined]
        super().close()  # type: ignore[misc]


@cache
def _live_bar() -> type[tqdm]:
    """Return the class of bars in a live notebook."""
    # Here, because most runs have none.
    from tqdm.auto import tqdm as live_tqdm

    class _LiveBar(_Timed, live_tqdm):
        """A bar in a live notebook."""

    return _LiveBar


class _TextBar(_Timed, tqdm):
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
    layout: str | None = None,
) -> tqdm:
    """Return a progress bar with the time left. Use it as a context manager.

    With the first bar shown, it is also said when code is compiled, in bars or between them. With `scale`,
    large numbers are shown as k and M. The bar appears after `delay` seconds. `part` is the percentage of the
    whole run at the start and at the end of this bar. `layout` is another format of the bar, as in tqdm.
    """
    common: dict[str, Any] = dict(total=total, desc=title, unit=unit, unit_scale=scale, disable=not shown)
    common |= dict(delay=delay, bar_format=layout)
    if shown:
        _told.part += 1
        tell_what_takes_long()
    if in_live_notebook():
        placed = shown and _place is not None
        bar = _live_bar()(**common, **({"display": False} if placed else {}))
        if placed and _place is not None:
            _place[0](bar.container)
    else:
        # A widget would stay at 0 % in a notebook that is saved without a browser: write text there.
        bar = _TextBar(file=_stream(), mininterval=0.5, **common)
        bar.part = part
    bar.compiled_before = seconds_of_compiling()
    return bar
