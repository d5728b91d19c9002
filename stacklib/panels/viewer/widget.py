"""The widget of a viewer: what the browser and the kernel tell each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from stacklib.errors import StacklibError
from stacklib.figures.screen import BACKGROUND, BLACK_SIGMAS
from stacklib.panels.viewer.pixels import Pyramid
from stacklib.panels.viewer.sky import Sky
from stacklib.panels.viewer.stretches import BALANCES, CURVES

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = ["BOTH_SIGNS", "COLOURS", "NO_ECHO", "ViewerWidget", "named_palette", "palette"]

HERE = Path(__file__).parent
#: Color maps that look alike for every kind of color vision.
COLOURS = ("inferno", "viridis", "cividis", "gray")
#: One for values of both signs: blue is negative.
BOTH_SIGNS = "RdBu_r"
#: What changes quickly in the browser is not sent back by the kernel: a late answer would undo newer values.
NO_ECHO = {"echo_update": False}
#: Tiles of an image that takes the place of another one that are sent without being asked for.
SENT_AHEAD = 8
#: Views of one panel that are remembered.
VIEWS = 4


@cache
def named_palette(name: str) -> str:
    """Return the `palette` of a color map of Matplotlib."""
    from matplotlib import colormaps

    return palette(colormaps[name])


def palette(colours: Colormap) -> str:
    """Return the 256 colors of a color map, as hexadecimal digits."""
    return colours(np.linspace(0, 1, 256), bytes=True)[:, :3].tobytes().hex()


class ViewerWidget(anywidget.AnyWidget):
    """The front end of a `Viewer`.

    Pixels are sent as messages, not as traits, so that they are not saved in the notebook.
    """

    _esm = HERE / "viewer.js"
    _css = HERE / "viewer.css"
    #: What the image is: size, names, levels, units. `version` counts the images shown one after another.
    meta = traitlets.Dict().tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(0).tag(sync=True)
    plane = traitlets.Int(-1).tag(sync=True, **NO_ECHO)
    curve = traitlets.Enum(CURVES, CURVES[0]).tag(sync=True, **NO_ECHO)
    balance = traitlets.Enum(BALANCES, BALANCES[0]).tag(sync=True, **NO_ECHO)
    target = traitlets.Float(BACKGROUND).tag(sync=True, **NO_ECHO)
    clip = traitlets.Float(BLACK_SIGMAS).tag(sync=True, **NO_ECHO)
    colours = traitlets.Unicode(COLOURS[0]).tag(sync=True, **NO_ECHO)
    top = traitlets.Float(1.0).tag(sync=True, **NO_ECHO)
    #: Pixel at the center, x and y in the image, and the width shown; empty: the whole image.
    view = traitlets.List(traitlets.Float()).tag(sync=True, **NO_ECHO)
    #: The pixel clicked last, x and y of the whole frames.
    pixel = traitlets.List(traitlets.Int()).tag(sync=True)
    #: Screen pixels per pixel of the page, as the browser tells.
    sharpness = traitlets.Float(1.0).tag(sync=True)
    #: A pixel that is marked, x and y of the whole frames; empty: none.
    mark = traitlets.List(traitlets.Int()).tag(sync=True)
    #: A box that is drawn, left, top, width and height in the whole frames; empty: none.
    box = traitlets.List(traitlets.Int()).tag(sync=True)
    #: Viewers with the same name show the same part.
    group = traitlets.Unicode("").tag(sync=True)

    def __init__(self, pyramid: Pyramid, sky: Sky | None, meta: dict[str, Any], **state: Any) -> None:
        super().__init__(meta=meta | {"version": 0}, **state)
        self._pyramid, self._sky = pyramid, sky
        # Tiles that are seen in each view of the browser.
        self._seen: dict[str, list[str]] = {}
        self.on_msg(self._answer)

    def replace(self, pyramid: Pyramid, sky: Sky | None, meta: dict[str, Any]) -> None:
        """Show another image. Tiles that are seen now are sent at once."""
        meta = meta | {"version": self.meta["version"] + 1}
        if pyramid.shape != self._pyramid.shape:
            self._seen.clear()
            self.view = []
        self._pyramid, self._sky = pyramid, sky
        # The view that has told last comes first.
        seen = dict.fromkeys(key for keys in reversed(self._seen.values()) for key in keys)
        sent = [self._tile(key, meta["version"]) for key in list(seen)[:SENT_AHEAD]]
        answer = {"kind": "image", "meta": meta, "tiles": [tile for tile, _ in sent]}
        self.send(answer, [values for _, values in sent])
        # For a browser that connects later.
        self.meta = meta

    def _answer(self, _: Any, question: dict[str, Any], buffers: list[memoryview]) -> None:
        """Send a tile, or the values of a pixel."""
        try:
            if question.get("ask") == "tile":
                tile, values = self._tile(str(question["key"]), self.meta["version"])
                self.send({"kind": "tile", **tile}, [values])
            elif question.get("ask") == "seen":
                self._note_seen(str(question["view"]), question["keys"])
            elif question.get("ask") == "pixel":
                self._send_pixel(int(question["x"]), int(question["y"]))
        except StacklibError as error:
            # The file was changed or removed since.
            self.send({"kind": "problem", "text": str(error)})

    def _note_seen(self, view: str, keys: list[str]) -> None:
        """Remember what is seen in a view; nothing is seen in one that was closed."""
        self._seen.pop(view, None)
        # An image of another size may have been shown meanwhile.
        known = [str(key) for key in keys if self._pyramid.has(*_place(key))]
        if known:
            self._seen[view] = known
        # Views of a page that was closed do not say so.
        while len(self._seen) > VIEWS:
            self._seen.pop(next(iter(self._seen)))

    def _tile(self, key: str, version: int) -> tuple[dict[str, Any], memoryview]:
        level, column, row = _place(key)
        tile = self._pyramid.tile(level, column, row)
        _, height, width = tile.shape
        answer = {"key": key, "level": level, "width": width, "height": height, "version": version}
        return answer, tile.astype("<f4", copy=False).data.cast("B")

    def _send_pixel(self, x: int, y: int) -> None:
        # JSON has no NaN.
        values = [float(value) if abs(value) < float("inf") else None for value in self._pyramid.pixel(x, y)]
        sky = self._sky(x, y) if self._sky else ""
        self.send({"kind": "pixel", "x": x, "y": y, "values": values, "sky": sky})


def _place(key: str) -> tuple[int, int, int]:
    """Return level, column and row of a tile."""
    level, column, row = map(int, key.split("/"))
    return level, column, row
