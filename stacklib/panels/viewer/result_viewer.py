"""The image of a result and its rejection maps, side by side, with the same zoom and position."""

from __future__ import annotations

from functools import cached_property

import ipywidgets as widgets
from matplotlib.figure import Figure

from stacklib.figures.look import map_top
from stacklib.figures.result_plots import figure_result
from stacklib.integration.result import Integration
from stacklib.panels.viewer.viewer import Viewer, link

__all__ = ["ResultViewer"]


class ResultViewer:
    """Look at the image of a result and at its maps of low and high rejections.

    Parameters
    ----------
    result : Integration
        The result.

    Attributes
    ----------
    viewers : tuple of Viewer
        Image, low map and high map, linked.
    """

    def __init__(self, result: Integration) -> None:
        self.result = result
        maps = {"low (too dark)": result.rejection_low, "high (too bright)": result.rejection_high}
        look = {"colours": "inferno", "top": map_top(result) / 100, "unit": ("%", 100.0)}
        look |= {"origin": result.region[:2], "compact": True}
        self.viewers = (
            Viewer(result, title="Integration"),
            *(Viewer(fractions, title=f"Rejected {word}", **look) for word, fractions in maps.items()),
        )

    @cached_property
    def widget(self) -> widgets.HBox:
        """The live panel."""
        link(self.viewers)
        image, *maps = (viewer.widget for viewer in self.viewers)
        image.layout = widgets.Layout(flex="2 1 460px", min_width="300px")
        for each in maps:
            each.layout = widgets.Layout(flex="1 1 225px", min_width="225px")
        # Below each other beside the image; beside each other below it where there is less room.
        room = widgets.Layout(flex="1 1 240px", min_width="230px", flex_flow="row wrap", grid_gap="10px")
        beside = widgets.HBox(maps, layout=room).add_class("stacklib-maps")
        both = widgets.HBox([image, beside], layout=widgets.Layout(flex_flow="row wrap", grid_gap="10px"))
        return both.add_class("stacklib-result")

    def figure(self) -> Figure:
        """Draw image and maps as a static figure."""
        return figure_result(self.result)
