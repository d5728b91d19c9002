"""The pixel inspector: click a pixel to see its samples, the limits of each round, and the verdicts."""

from __future__ import annotations

from functools import cached_property

import ipywidgets as widgets
from matplotlib.figure import Figure

from stacklib.explore.boxes.blame_plots import figure_blame
from stacklib.explore.story_plots import figure_inspection
from stacklib.panels.inspector.inspection import PixelInspection
from stacklib.panels.inspector.live import LiveInspector

__all__ = ["PixelInspector"]


class PixelInspector(PixelInspection):
    """A panel that explains any pixel of a result, and tells which frames are to blame for what a box shows.

    Everything can be read and set from code. Pixels are those of the whole frames, counted from 0.

    Parameters
    ----------
    result : Integration
        The result; its frames are read again, one row at a time.
    x, y, channel : int
        The first pixel; -1 for a cosmic ray, see `stacklib.explore.masks.clear_hit`.

    Attributes
    ----------
    selected : tuple of int
        The pixel, (x, y, channel).
    story : PixelStory
        The story of the pixel.
    round : int
        The round that is shown, counted from 1; the last round when a new pixel is chosen.
    view : str
        The picture that is shown: one of `stacklib.explore.story_plots.VIEWS`, or ``"mask of a frame"``.
    frame : int
        The frame of the mask, counted from 1 as in the tables; setting it shows its mask.
    box : tuple of int
        The box whose frames are ranked: left, top, width and height; () for none.
    blame : Blame or None
        The frames of the box, see `stacklib.blame`.
    """

    @property
    def widget(self) -> widgets.Widget:
        """The live panel."""
        return self._panel.box

    @cached_property
    def _panel(self) -> LiveInspector:
        return LiveInspector(self)

    def figure(self) -> Figure:
        """Draw image, high map and samples of the pixel, or the frames of the box, as a static figure."""
        if self.blame is not None:
            return figure_blame(self.blame)
        return figure_inspection(self.result, self._story, self._round)
