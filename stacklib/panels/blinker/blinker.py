"""The widget that blinks: it plays, draws the plots, and knows the keys of the whole panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets

from stacklib.panels.viewer.widget import NO_ECHO

__all__ = ["RATES", "Blinker"]

HERE = Path(__file__).parent
#: Frames a second that can be chosen.
RATES = (1, 2, 4, 10)


class Blinker(anywidget.AnyWidget):
    """Controls, plots and keys of a panel of frames; the pages of its `viewer` are the frames.

    The panel is the nearest element with the class ``stacklib-blinker``. Its table has a row with the
    attribute ``data-frame`` for each frame; their order is the order of blinking. What a person wants changed
    is told to ``on_wish(name, frames, value)``: "choose" frames or not, or "undo".
    """

    _esm = HERE / "blinker.js"
    _css = HERE / "blinker.css"
    #: What does not change: names of the frames, and the plots.
    meta = traitlets.Dict().tag(sync=True)
    viewer = traitlets.Instance(widgets.Widget).tag(sync=True, **widgets.widget_serialization)
    #: Index of the frame that is shown.
    page = traitlets.Int(0).tag(sync=True, **NO_ECHO)
    #: Which frames are chosen, and what is to be said about each.
    chosen = traitlets.List(traitlets.Bool()).tag(sync=True)
    notes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    only_chosen = traitlets.Bool(False).tag(sync=True)
    rate = traitlets.Int(RATES[1]).tag(sync=True)

    def __init__(self, on_wish: Callable[[str, list[int], bool], None], **state: Any) -> None:
        super().__init__(**state)
        self._on_wish = on_wish
        self.on_msg(self._hear)

    def _hear(self, _: Any, message: dict[str, Any], buffers: list[memoryview]) -> None:
        frames = [int(frame) for frame in message.get("frames", [])]
        if all(0 <= frame < len(self.chosen) for frame in frames):
            self._on_wish(str(message.get("wish")), frames, bool(message.get("value")))
