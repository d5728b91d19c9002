"""A small picture of the whole frame with a rectangle to drag."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
from matplotlib.backend_bases import LocationEvent
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stacklib.figures.screen import stretch
from stacklib.integration.samples import Region
from stacklib.panels.common import enable_control
from stacklib.panels.live_canvas import QuickCanvas, live_canvas

__all__ = ["RegionPicker"]

#: Width of the picture in inches of 100 pixels.
WIDTH = 3.7


class RegionPicker(widgets.VBox):
    """An overview with a rectangle to drag, and number boxes for its corner.

    The overview is the whole frame in bins of `side` pixels. `shape` is the (width, height) of the frame.
    `choose` is called with the region after a drag or a new number.
    """

    def __init__(
        self, overview: np.ndarray, side: int, shape: tuple[int, int], choose: Callable[[Region], None]
    ) -> None:
        self._shape, self._choose, self._quiet = shape, choose, True
        self._dragging, self._enabled = False, True
        self.region: Region = (0, 0, 1, 1)
        self.boxes = [self._box(name) for name in ("left", "top")]
        words = widgets.HTML("<b>Region</b>: drag the rectangle or type its corner")
        super().__init__([words, self._picture(stretch(overview), side), widgets.HBox(self.boxes)])

    def _picture(self, picture: np.ndarray, side: int) -> widgets.Widget:
        height, width = picture.shape[:2]
        figure = Figure(figsize=(WIDTH, WIDTH * height / width), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        extent = (0, width * side, height * side, 0)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
        self.rectangle = Rectangle((0, 0), 1, 1, fill=False, ec="#f0a63a", lw=2)
        axes.add_patch(self.rectangle)
        self.canvas = live_canvas(figure)
        self._quick = QuickCanvas(self.canvas, [self.rectangle])
        for name in ("button_press", "motion_notify", "button_release", "figure_leave"):
            self.canvas.mpl_connect(f"{name}_event", self._drag)
        return self.canvas

    def _box(self, name: str) -> widgets.BoundedIntText:
        box = widgets.BoundedIntText(
            *(0, 0, 0),
            description=name,
            step=16,
            continuous_update=False,
            style={"description_width": "3em"},
            layout=widgets.Layout(width="10em"),
        )
        box.observe(lambda change: self._typed(), "value")
        return box

    @property
    def enabled(self) -> bool:
        """Whether a region can be chosen. Can be set."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        for box in self.boxes:
            enable_control(box, enabled)

    def show(self, region: Region) -> None:
        """Show a region."""
        self.region, self._quiet = region, True
        for box, first, length, size in zip(self.boxes, region[:2], region[2:], self._shape, strict=True):
            box.max = max(size - length, first)
            box.value = first
        self._quiet = False
        self.rectangle.set_bounds(*region)
        # Redraw as a whole: the browser may have missed parts of a quick drag.
        self._quick.redraw()

    def _typed(self) -> None:
        if self._enabled and not self._quiet:
            self._choose((*(box.value for box in self.boxes), *self.region[2:]))

    def _drag(self, event: LocationEvent) -> None:
        if event.name == "button_press_event":
            self._dragging = event.inaxes is not None and self._enabled
        if not self._dragging:
            return
        # There is no event for a button released outside; older versions of matplotlib lack `buttons`.
        let_go = event.name == "motion_notify_event" and getattr(event, "buttons", None) == frozenset()
        if not let_go:
            # Also when the mouse leaves: a quick move sends few events.
            place = self.rectangle.axes.transData.inverted().transform((event.x, event.y))
            corner = zip(place, self.region[2:], self._shape, strict=True)
            self.rectangle.set_xy([min(max(at - size / 2, 0), whole - size) for at, size, whole in corner])
            self._quick.update(more=True)
        if let_go or event.name in ("button_release_event", "figure_leave_event"):
            self._dragging = False
            self._choose((*(round(value) for value in self.rectangle.get_xy()), *self.region[2:]))
