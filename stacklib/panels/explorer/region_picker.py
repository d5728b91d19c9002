"""A picture of the whole frame on which a region is drawn, moved and resized."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets

from stacklib.frames.frame import Frame
from stacklib.integration.samples import Region
from stacklib.panels.common import enable_control
from stacklib.panels.viewer import Viewer

__all__ = ["RegionPicker"]

#: Height of the picture in screen pixels.
TALL = 190


class RegionPicker(widgets.VBox):
    """A viewer of a frame with a box to draw, move and resize, and number boxes for it.

    `choose` is called with the region after a drag or a new number.
    """

    def __init__(self, frame: Frame, choose: Callable[[Region], None]) -> None:
        self._shape, self._choose = (frame.width, frame.height), choose
        self._quiet, self._enabled = True, True
        self.region: Region = (0, 0, 1, 1)
        self.viewer = Viewer(frame, title="Region", height=TALL, compact=True, boxes=True)
        self.viewer.on_box(self._drawn)
        self.boxes = [self._box(name) for name in ("left", "top", "width", "height")]
        words = widgets.HTML(
            '<div style="line-height:1.3">Drag the box or its edges. <b>Box</b> or Shift draws another.</div>'
        )
        columns = widgets.Layout(grid_template_columns="repeat(2, 9em)", grid_gap="0 8px")
        super().__init__([self.viewer.widget, words, widgets.GridBox(self.boxes, layout=columns)])

    def _box(self, name: str) -> widgets.BoundedIntText:
        box = widgets.BoundedIntText(
            *(0, 0, 0),
            description=name,
            step=16,
            continuous_update=False,
            style={"description_width": "3.2em"},
            layout=widgets.Layout(width="9em"),
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
        for k, (box, value) in enumerate(zip(self.boxes, region, strict=True)):
            size = self._shape[k % 2]
            # A corner is moved by the size of the region, a size is cut at the edge of the frame.
            low, high = (0, size - region[k + 2]) if k < 2 else (1, size)
            box.max, box.min = max(high, value), low
            box.value = value
        self.viewer.widget.box = list(region)
        self._quiet = False

    def _typed(self) -> None:
        if self._enabled and not self._quiet:
            self._choose(tuple(box.value for box in self.boxes))

    def _drawn(self, box: tuple[int, ...]) -> None:
        if self._quiet:
            return
        if self._enabled and len(box) == 4 and box != self.region:
            self._choose(box)
        else:
            self.show(self.region)
