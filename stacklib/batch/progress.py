"""Progress of a batch: one bar for all of it, and one for each running target."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm as live_tqdm

from stacklib.utils.progress import in_live_notebook, progress_bar
from stacklib.utils.texts import one_line

__all__ = ["BatchBars"]


class BatchBars:
    """The bars of a batch, used from one thread, and a line for each finished target.

    Bars of single targets are shown in a live notebook, if `live`, and in a terminal.
    """

    def __init__(self, total: int, shown: bool = True, live: bool = True) -> None:
        self.shown = shown
        in_terminal = sys.stderr.isatty() and "ipykernel" not in sys.modules
        self._redrawn = shown and live and (in_live_notebook() or in_terminal)
        self._bars: dict[str, live_tqdm] = {}
        self._all = progress_bar(total, "targets", "target", shown)

    def start(self, name: str) -> None:
        """Show a bar for a target that starts."""
        if self._redrawn:
            self._bars[name] = live_tqdm(
                total=100,
                desc=one_line(name),
                leave=False,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}",
            )

    def show(self, name: str, percent: int) -> None:
        """Show how much of a target is done."""
        bar = self._bars.get(name)
        if bar is not None:
            bar.update(max(percent - bar.n, 0))
            bar.refresh()

    def end(self, name: str, line: str) -> None:
        """Replace the bar of a finished target by a line."""
        bar = self._bars.pop(name, None)
        if bar is not None:
            bar.close()
        if self.shown:
            self._all.write(one_line(line), file=sys.stdout)
            sys.stdout.flush()
        self._all.update(1)

    def close(self) -> None:
        """Remove all bars."""
        for bar in self._bars.values():
            bar.close()
        self._all.close()
