"""The rejection explorer: choose rule and limits on a region that is integrated live."""

from __future__ import annotations

from functools import cached_property

import ipywidgets as widgets
from matplotlib.figure import Figure

from stacklib.panels.explorer.choice import RejectionChoice
from stacklib.panels.explorer.live import LiveExplorer
from stacklib.panels.explorer.region_figure import figure_region

__all__ = ["RejectionExplorer"]


class RejectionExplorer(RejectionChoice):
    """A region of the frames, integrated live while you choose rule, limits, normalization and weights.

    Everything works from code as well, without a browser.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        Registered frames, or where to find them.
    recipe : Recipe, optional
        Settings to start with. Default is the suggested rule with default parameters.
    region : (left, top, width, height), optional
        Part of the frames. Default, also for four zeros, is 512 x 512 pixels at the brightest structure. A
        width or height of 0 means 512.
    path : str or Path
        Job file of `use`. Default is ``recipe.yaml`` beside the folder ``4_Registered``, or in any other
        folder of frames.

    Attributes
    ----------
    saved : str
        What `use` wrote last: the job file, and for which frames.
    """

    @property
    def widget(self) -> widgets.Widget:
        """The live panel."""
        return self._panel.box

    @cached_property
    def _panel(self) -> LiveExplorer:
        return LiveExplorer(self)

    def figure(self) -> Figure:
        """Draw the four pictures and the numbers as a static figure."""
        return figure_region(self.model, self.a)
