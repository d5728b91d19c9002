"""The trails found in the frames, each with a check box that keeps it in the image or takes it out."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
from astropy.table import Row, Table

from stacklib.figures.trail_plots import trails_in_words
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region
from stacklib.integration.second_pass import AT_ONE_PLACE
from stacklib.output.sentences import trail_in_words
from stacklib.panels.common import Readout, enable_control, safe_label
from stacklib.spatial.masks import FrameMasks
from stacklib.utils.labels import counted

__all__ = ["TrailList"]

#: Trails that have a check box at most; a browser shows some hundreds without delay.
MOST = 200
#: Long lists scroll in themselves.
STYLE = """<style>
.stacklib-trails { max-height: 240px; overflow: auto; padding: 2px }
.stacklib-trails .widget-checkbox { height: auto; width: auto; min-height: 20px; margin: 0 }
.stacklib-trails .widget-label-basic { display: flex; align-items: flex-start; line-height: 1.3;
  overflow: visible }
.stacklib-trails .widget-label-basic span { white-space: normal; overflow: visible }
.stacklib-trails input[type=checkbox] { margin: 3px 6px 0 0 }
</style>"""
HELP = "Clear the box of one that is none: its samples stay."
NOT_LOOKED_FOR = "Not looked for. Under Settings, footprints: trails or all looks for them."


class TrailList(widgets.VBox):
    """A list of the trails of a result.

    `choose` is called with the name of a trail and whether its samples are to be rejected.

    Attributes
    ----------
    boxes : list of Checkbox
        Those of the trails, in the order of `Integration.trails`.
    title : str
        What the list is called: with the number of trails, if they were looked for.
    """

    def __init__(self, choose: Callable[[str, bool], None]) -> None:
        self._choose, self._quiet, self._enabled = choose, False, True
        self._shown: tuple[FrameMasks | None, Region | None] = None, None
        self._names: list[str] = []
        self._used: list[bool] = []
        self._fixed: list[bool] = []
        self.boxes: list[widgets.Checkbox] = []
        self.words, self.title = Readout(), "Trails"
        self._rows = widgets.VBox().add_class("stacklib-trails")
        super().__init__([widgets.HTML(STYLE), self.words, self._rows])

    def show(self, result: Integration) -> None:
        """Show the trails of a result."""
        self._quiet = True
        try:
            if (result.masks, result.region) != self._shown:
                self._shown = result.masks, result.region
                self._show_others(result)
            for box, used in zip(self.boxes, self._used, strict=True):
                box.value = used
        finally:
            self._quiet = False

    def _show_others(self, result: Integration) -> None:
        """Show other trails, or the same ones that are used otherwise."""
        looked = "line" in result.masked
        self.title = counted(len(result.trails), "trail") if looked else "Trails"
        trails = result.trails[:MOST] if looked else result.trails[:0]
        if list(trails["name"]) != self._names:
            self._make(trails)
        self._used = [bool(used) for used in trails["used"]]
        # A line at one place in many frames stays, whatever the user wants.
        self._fixed = [str(reason) == AT_ONE_PLACE for reason in trails["reason"]]
        for box, label in zip(self.boxes, _labels(trails, result), strict=True):
            box.description = label
        self.enable(self._enabled)
        if looked:
            self._say(result)
        else:
            self.words.say(NOT_LOOKED_FOR)

    def enable(self, enabled: bool) -> None:
        """Enable or disable the check boxes."""
        self._enabled = enabled
        for box, fixed in zip(self.boxes, self._fixed, strict=True):
            enable_control(box, enabled and not fixed)

    def _make(self, trails: Table) -> None:
        """Make other check boxes; those of the same trails stay, and keep the keyboard."""
        self._names = list(trails["name"])
        self.boxes = [
            widgets.Checkbox(indent=False, tooltip=name, layout={"width": "auto"}) for name in self._names
        ]
        for box, name in zip(self.boxes, self._names, strict=True):
            box.observe(lambda change, name=name: self._take(name, change["new"]), "value")
        self._rows.children = tuple(self.boxes)

    def _take(self, name: str, used: bool) -> None:
        if not self._quiet:
            self._choose(name, used)

    def _say(self, result: Integration) -> None:
        """Say how many there are, what a check box does, and what the recipe names in vain."""
        words = [f"{trails_in_words(result)}. {HELP if self.boxes else ''}"]
        more = len(result.trails) - MOST
        if more > 0:
            words.append(f"{counted(more, 'more trail')}: see panel.result.trails.")
        words += [] if result.masks is None else [f"{note}." for note in result.masks.notes]
        self.words.say(*words)


def _labels(trails: Table, result: Integration) -> list[str]:
    """Return what stands beside the check boxes."""
    names, files = list(result.preparation.measurements.names), list(trails["file"])
    labels = []
    for trail in trails:
        which = f", trail {trail['number']}" if files.count(trail["file"]) > 1 else ""
        outside = "" if _crosses(trail, result.region) else "; outside this region"
        text = f"Frame {names.index(trail['file']) + 1}{which}: {trail_in_words(trail)}{outside}"
        labels.append(safe_label(text))
    return labels


def _crosses(trail: Row, region: Region) -> bool:
    """Return whether a trail lies in a region, at least in part."""
    left, top, width, height = region
    steps = np.linspace(0, 1, max(2, int(trail["length"])))
    x = trail["x0"] + steps * (trail["x1"] - trail["x0"])
    y = trail["y0"] + steps * (trail["y1"] - trail["y0"])
    half = trail["width"] / 2
    inside = (np.abs(x - left - width / 2) < width / 2 + half) & (
        np.abs(y - top - height / 2) < height / 2 + half
    )
    return bool(inside.any())
