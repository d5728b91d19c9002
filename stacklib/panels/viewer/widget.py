"""The widget of a viewer: what the browser and the kernel tell each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from matplotlib import colormaps

from stacklib.errors import StacklibError
from stacklib.figures.screen import BACKGROUND, BLACK_SIGMAS
from stacklib.panels.viewer.pixels import Pyramid
from stacklib.panels.viewer.sky import Sky
from stacklib.panels.viewer.stretches import BALANCES, CURVES

__all__ = ["COLOURS", "ViewerWidget", "palettes"]

HERE = Path(__file__).parent
#: Color maps that look alike for every kind of color vision.
COLOURS = ("inferno", "viridis", "cividis", "gray")


def palettes() -> dict[str, str]:
    """Return the 256 colors of each map, as hexadecimal digits."""
    return {name: colormaps[name](range(256), bytes=True)[:, :3].tobytes().hex() for name in COLOURS}


class ViewerWidget(anywidget.AnyWidget):
    """The front end of a `Viewer`.

    Pixels are sent as messages, not as traits, so that they are not saved in the notebook.
    """

    _esm = HERE / "viewer.js"
    _css = HERE / "viewer.css"
    #: What does not change: size, names, levels, units.
    meta = traitlets.Dict().tag(sync=True)
    height = traitlets.Int(0).tag(sync=True)
    plane = traitlets.Int(-1).tag(sync=True)
    curve = traitlets.Enum(CURVES, CURVES[0]).tag(sync=True)
    balance = traitlets.Enum(BALANCES, BALANCES[0]).tag(sync=True)
    target = traitlets.Float(BACKGROUND).tag(sync=True)
    clip = traitlets.Float(BLACK_SIGMAS).tag(sync=True)
    colours = traitlets.Enum(COLOURS, COLOURS[0]).tag(sync=True)
    top = traitlets.Float(1.0).tag(sync=True)
    #: Pixel at the center, x and y in the image, and the width shown; empty: the whole image.
    view = traitlets.List(traitlets.Float()).tag(sync=True)
    #: The pixel clicked last, x and y of the whole frames.
    pixel = traitlets.List(traitlets.Int()).tag(sync=True)
    #: Viewers with the same name show the same part.
    group = traitlets.Unicode("").tag(sync=True)

    def __init__(self, pyramid: Pyramid, sky: Sky | None, **state: Any) -> None:
        super().__init__(**state)
        self._pyramid, self._sky = pyramid, sky
        self.on_msg(self._answer)

    def _answer(self, _: Any, question: dict[str, Any], buffers: list[memoryview]) -> None:
        """Send a tile, or the values of a pixel."""
        try:
            if question.get("ask") == "tile":
                self._send_tile(question["key"])
            elif question.get("ask") == "pixel":
                self._send_pixel(int(question["x"]), int(question["y"]))
        except StacklibError as error:
            # The file was changed or removed since.
            self.send({"kind": "problem", "text": str(error)})

    def _send_tile(self, key: str) -> None:
        level, column, row = map(int, key.split("/"))
        tile = self._pyramid.tile(level, column, row)
        _, height, width = tile.shape
        answer = {"kind": "tile", "key": key, "level": level, "width": width, "height": height}
        self.send(answer, [tile.astype("<f4", copy=False).data.cast("B")])

    def _send_pixel(self, x: int, y: int) -> None:
        # JSON has no NaN.
        values = [float(value) if abs(value) < float("inf") else None for value in self._pyramid.pixel(x, y)]
        sky = self._sky(x, y) if self._sky else ""
        self.send({"kind": "pixel", "x": x, "y": y, "values": values, "sky": sky})
