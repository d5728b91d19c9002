"""The pictures of the explorer: result, rejection maps and difference as linked viewers, and A and B."""

from __future__ import annotations

from contextlib import ExitStack

import ipywidgets as widgets
import numpy as np

from stacklib.explore.region_trials import in_short
from stacklib.integration.result import Integration
from stacklib.panels.explorer.choice import RejectionChoice
from stacklib.panels.viewer import Viewer, link
from stacklib.panels.viewer.viewer import plain_levels
from stacklib.panels.viewer.widget import BOTH_SIGNS

__all__ = ["Pictures"]

NO_REJECTION, SETTING_A = "no rejection", "setting A"
#: Milliseconds that A and B are each shown while they blink.
BLINK = 600
#: Height of a picture in screen pixels.
TALL = 240


class Pictures:
    """Linked viewers of a region, and what is compared in them.

    Parameters
    ----------
    choice : RejectionChoice
        The region, its result and A.

    Attributes
    ----------
    box : ipywidgets.GridBox
        The viewers.
    viewers : dict of str to Viewer
        Those of ``result``, ``low``, ``high`` and ``difference``.
    play : ipywidgets.Play
        Blinks A and B.
    against : ipywidgets.Dropdown
        What the difference is taken from.
    """

    def __init__(self, choice: RejectionChoice) -> None:
        self.choice = choice
        self._shown: Integration | None = None
        blank = np.zeros((1, 2, 2), np.float32)
        maps = {"colours": "inferno", "unit": ("%", 100.0)}
        looks = {"result": {}, "low": maps, "high": maps, "difference": {"colours": BOTH_SIGNS}}
        self.viewers = {
            name: Viewer(blank, title=name, height=TALL, compact=True, **look) for name, look in looks.items()
        }
        link(self.viewers.values())
        for name, viewer in self.viewers.items():
            if name != "result":
                viewer.widget.add_class("stacklib-plain")
        layout = widgets.Layout(grid_template_columns="repeat(2, minmax(0, 1fr))", grid_gap="0 6px")
        self.box = widgets.GridBox([viewer.widget for viewer in self.viewers.values()], layout=layout)
        self.box.add_class("stacklib-aligned")
        self.play = widgets.Play(value=0, min=0, max=1, interval=BLINK, show_repeat=False, repeat=True)
        self.play.layout.width = "80px"
        for name in ("value", "playing"):
            self.play.observe(lambda change: self._blink(), name)
        self.against = widgets.Dropdown(
            options=(NO_REJECTION, SETTING_A),
            description="Difference from",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="232px"),
        )
        self.against.observe(lambda change: self.show(), "value")

    def _blink(self) -> None:
        if self._seen is not self._shown:
            self.show()

    @property
    def _seen(self) -> Integration:
        """A or B while they blink, otherwise B, the current result."""
        a = self.choice.a
        return a if a is not None and self.play.playing and self.play.value == 0 else self.choice.model.shown

    def show(self) -> None:
        """Show result, maps and difference, each with the title that says what it is."""
        with ExitStack() as held:
            # What else the viewers tell the browser follows after the pixels of all four.
            for viewer in self.viewers.values():
                held.enter_context(viewer.widget.hold_sync())
            self._shown = self._seen
            # The result goes first: the browser shows it while the others are made.
            self._show_result(self._shown)
            for side, word in (("low", "too dark"), ("high", "too bright")):
                self._show_map(self._shown, side, word)
            self._show_difference()

    def _name_of(self, seen: Integration) -> str:
        a = self.choice.a
        return "" if a is None else f" {'A' if seen is a else 'B'}"

    @property
    def _unit(self) -> tuple[str, float] | None:
        adu = self.choice.model.shown.preparation.full_scale
        return ("ADU", adu) if adu > 1 else None

    def _show_result(self, seen: Integration) -> None:
        model, name = self.choice.model, self._name_of(seen)
        title = f"Result{name}: {in_short(seen)}" if name else "Result"
        look = {"levels": model.levels, "origin": self.choice.region[:2], "unit": self._unit}
        self.viewers["result"].show(seen.original, title=title, **look)

    def _show_map(self, seen: Integration, side: str, word: str) -> None:
        fractions = getattr(seen, f"rejection_{side}")
        lost = 100 * float(getattr(seen, f"rejected_{side}").mean())
        title = f"Rejected {side}{self._name_of(seen)}: {lost:.3f} % {word}"
        top = self.choice.model.map_top
        look = {"top": top, "levels": plain_levels(top), "origin": self.choice.region[:2]}
        shown = fractions[0] if len(fractions) == 1 else fractions.mean(axis=0, dtype=np.float32)
        self.viewers[side].show(shown, title=title, **look)

    def _show_difference(self) -> None:
        choice, model = self.choice, self.choice.model
        other = choice.a if self.against.value == SETTING_A else None
        difference = model.difference_of(model.shown, other)
        now, base = "Result" if choice.a is None else "B", NO_REJECTION if other is None else SETTING_A
        top = model.difference_top
        look = {"top": top, "levels": plain_levels(top), "origin": choice.region[:2], "unit": self._unit}
        self.viewers["difference"].show(difference, title=f"{now} minus {base}", **look)
