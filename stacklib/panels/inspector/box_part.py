"""The part of the inspector for a box: which frames are to blame, and how it looks without one of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stacklib.errors import StacklibError
from stacklib.explore.boxes.blame import Blame, FrameShare
from stacklib.explore.boxes.blame_plots import BlameAxes, difference_top
from stacklib.figures.look import GROUND
from stacklib.figures.screen import levels_of
from stacklib.panels.common import REST, Readout, later, safe_label, side_by_side
from stacklib.panels.pictures import FigurePicture
from stacklib.panels.viewer import Viewer, link
from stacklib.panels.viewer.viewer import plain_levels
from stacklib.panels.viewer.widget import BOTH_SIGNS

__all__ = ["BoxPart"]

#: Height of the pictures, and width and height of the samples, in screen pixels.
TALL, WIDTH, HIGH = 170, 610, 180
CAPTION = "Bar: 90 % of the kept samples, dot: their mean, dash: the outermost; cross: the outermost rejected"
TITLES = ("The box", "Without the frame", "What the frame adds")


class BoxPart:
    """Frames ranked by what they do to a box, their samples, and the box without the chosen one.

    Attributes
    ----------
    widget : ipywidgets.VBox
        The widgets.
    """

    def __init__(self) -> None:
        self._found: Blame | None = None
        self._quiet, self._choices = False, 0
        blank = np.zeros((1, 2, 2), np.float32)
        looks = ({}, {}, {"colours": BOTH_SIGNS})
        self.viewers = [
            Viewer(blank, title=title, height=TALL, compact=True, **look)
            for title, look in zip(TITLES, looks, strict=True)
        ]
        link(self.viewers)
        # Nothing is better than the blank of the first box while code is compiled.
        for viewer in self.viewers[1:]:
            viewer.widget.layout.visibility = "hidden"
        self.ranking = widgets.Select(
            description="frame", rows=8, style={"description_width": "3.5em"}, layout={"width": "310px"}
        )
        self.ranking.observe(lambda change: self._choose(), "value")
        self.reason, self._plot = Readout(), widgets.Box()
        room = widgets.Layout(grid_template_columns="repeat(auto-fit, minmax(200px, 1fr))", grid_gap="0 8px")
        pictures = widgets.GridBox([viewer.widget for viewer in self.viewers], layout=room)
        pictures.add_class("stacklib-aligned")
        caption = widgets.HTML(f'<div style="line-height:1.35;font-size:92%">{CAPTION}</div>')
        samples = widgets.VBox([self._plot, caption])
        self.widget = widgets.VBox([self.reason, pictures, side_by_side(self.ranking, samples)])

    def show(self, found: Blame, sharpness: float = 1.0) -> None:
        """Show the frames of a box, and the box without the first one."""
        self._found, self._sharpness = found, sharpness
        self._quiet = True
        self.ranking.options = [
            (safe_label(f"{each.number} ({each.label}): {100 * each.share:.0f} % of the blame"), each.number)
            for each in found.frames
        ]
        self.ranking.value = found.frames[0].number
        self._quiet = False
        figure = Figure(figsize=(WIDTH / 100, HIGH / 100), dpi=100, facecolor=GROUND)
        self._axes = BlameAxes(figure.add_axes((0.16, 0.24, 0.82, 0.72)), found)
        # Beside the longest numbers, and not beyond the edge.
        self._axes.axes.yaxis.set_label_coords(-0.115, 0.5)
        self._samples = FigurePicture(figure, self._axes.moving)
        self._plot.children = (self._samples,)
        box, adu = found.present, found.result.preparation.full_scale
        self._look: dict[str, Any] = {
            "origin": found.box[:2],
            "unit": ("ADU", adu) if adu > 1 else None,
            "levels": levels_of(box),
        }
        # The box is seen while the other pictures are made.
        self.viewers[0].show(box, **self._look)
        self._choose()

    def forget(self) -> None:
        """Do not search for a box that is gone."""
        self._choices += 1

    def _choose(self) -> None:
        """Show the box without the chosen frame."""
        found, number = self._found, self.ranking.value
        if self._quiet or found is None or number is None:
            return
        self._choices += 1
        share = next(each for each in found.frames if each.number == number)
        self._axes.mark(number)
        self._samples.update(self._sharpness)
        self._samples.describe(f"Samples of each frame in the box; frame {number} is marked")
        # At once with what was found beside hits with all frames; exactly when the choice rests.
        if self._show_without(share, search=not found.searches) and found.searches:
            later(REST, partial(self._search, share, self._choices))

    def _search(self, share: FrameShare, choices: int) -> None:
        if choices == self._choices:
            self._show_without(share, search=True)

    def _show_without(self, share: FrameShare, search: bool) -> bool:
        """Show the box without a frame, and what the frame adds; return whether that is possible."""
        found, number = self._found, share.number
        assert found is not None
        lines = [f"Frame {number} ({share.label}): {share.reason}."]
        if not found.exact:
            lines.append("Trails and the like are those that were found with all frames.")
        elif not search:
            lines.append("What fell beside hits is searched again without it ...")
        self.reason.say(*lines)
        try:
            without = found.image_without(number, search=search)
        except StacklibError as error:
            self.reason.say(f"Frame {number}: {error}")
            return False
        self.viewers[1].show(without, title=f"Without frame {number} ({share.label})", **self._look)
        difference = (found.present - without).mean(axis=0)
        top = difference_top(difference)
        self.viewers[2].show(difference, **self._look | {"top": top, "levels": plain_levels(top)})
        for viewer in self.viewers[1:]:
            viewer.widget.layout.visibility = "visible"
        return True
