"""The frame selector: look at frames, measure them, and tick them in or out."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import ipywidgets as widgets

from stacklib.explore.frame_choice import FrameChoice
from stacklib.panels.frame_widgets import SelectorWidgets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FrameSelector"]


class FrameSelector(FrameChoice):
    """Choose the frames to integrate, with a live panel and a static figure.

    See `stacklib.explore.frame_choice.FrameChoice` for parameters and methods.
    """

    def figure(self) -> Figure:
        """Draw all frames and their measurements over time; frames left out are crossed."""
        from stacklib.panels.frame_plots import figure_selection

        return figure_selection(self)

    @property
    def widget(self) -> widgets.Widget:
        """The live panel."""
        return self._panel.box

    @cached_property
    def _panel(self) -> SelectorWidgets:
        return SelectorWidgets(self)
