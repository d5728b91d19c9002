"""Progress of a batch: one bar for all of it, and one for each target that runs."""

from __future__ import annotations

import re
import sys
import threading

from tqdm.auto import tqdm as live_tqdm

from stacklib.utils.progress import in_live_notebook, progress_bar

__all__ = ["BatchBars", "Listener"]

#: How the integration says how far it is; see `progress.progress_bar`.
STEP = re.compile(r"(measured|integrated): +(\d+)%")
#: Which part of a run the first of them is.
MEASURED = 40


class Listener:
    """Hears what a run prints, from another thread, and knows how far it is in percent."""

    def __init__(self) -> None:
        self.percent = 0
        self._tail = ""
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        with self._lock:
            self._tail = (self._tail + text)[-400:]
            for what, part in STEP.findall(self._tail):
                share = int(part) * MEASURED // 100
                if what == "integrated":
                    share = MEASURED + int(part) * (100 - MEASURED) // 100
                self.percent = max(self.percent, share)


class BatchBars:
    """The bars; all methods are called from one thread.

    Bars of single targets are shown where they can be moved: in a live notebook, if that is wanted, and in
    a terminal. Everywhere there is a line for each target that ended.
    """

    def __init__(self, total: int, shown: bool = True, live: bool = True) -> None:
        self.shown = shown
        self._moving = shown and live and (in_live_notebook() or (sys.stderr.isatty() and not _in_kernel()))
        self._bars: dict[str, live_tqdm] = {}
        self._all = progress_bar(total, "targets", "target", shown)

    def start(self, name: str) -> None:
        """A target begins."""
        if self._moving:
            self._bars[name] = live_tqdm(
                total=100, desc=name, leave=False, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
            )

    def show(self, name: str, percent: int) -> None:
        """A target is so far."""
        bar = self._bars.get(name)
        if bar is not None:
            bar.update(percent - bar.n)
            bar.refresh()

    def end(self, name: str, line: str) -> None:
        """A target has ended; `line` says how."""
        bar = self._bars.pop(name, None)
        if bar is not None:
            bar.close()
        if self.shown:
            self._all.write(line, file=sys.stdout)
            sys.stdout.flush()
        self._all.update(1)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._all.close()


def _in_kernel() -> bool:
    return "ipykernel" in sys.modules
