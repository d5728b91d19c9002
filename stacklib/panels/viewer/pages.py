"""A viewer for many images of the same size, of which one is shown at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import traitlets

from stacklib.errors import StacklibError
from stacklib.figures.screen import Levels
from stacklib.frames.frame import Frame
from stacklib.panels.viewer.pixels import FrameRows, Pyramid
from stacklib.panels.viewer.sky import Sky
from stacklib.panels.viewer.viewer import Viewer
from stacklib.panels.viewer.widget import HERE, NO_ECHO, ViewerWidget

__all__ = ["PagesViewer", "PagesWidget"]

#: Bytes of rows and of small levels of files that are kept for all pages together.
KEPT = 768 << 20


def _front_end() -> str:
    """Return the front end: that of a viewer, and what pages add to it."""
    viewer = (HERE / "viewer.js").read_text(encoding="utf-8")
    return viewer.partition("function render(")[0] + (HERE / "pages.js").read_text(encoding="utf-8")


class PagesWidget(ViewerWidget):
    """The front end of a `PagesViewer`. Files are read in a thread, so that the kernel stays free."""

    _esm = _front_end()
    #: Index of the image that is shown.
    page = traitlets.Int(0).tag(sync=True, **NO_ECHO)
    #: Whether all pages have the stretch of the reference, or each its own.
    alike = traitlets.Bool(False).tag(sync=True, **NO_ECHO)
    #: Pages that will be wanted next, and those that are there for what is seen. The browser uses them.
    ahead = traitlets.List(traitlets.Int()).tag(sync=True)
    ready = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, pages: Sequence[Pyramid], sky: Sky | None, **state: Any) -> None:
        super().__init__(pages[0], sky, **state)
        self.pages = list(pages)
        self._used: dict[int, None] = {}
        self._statistics: dict[int, list[list[float]]] = {}
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pages")

    def _answer(self, _: Any, question: dict[str, Any], buffers: list[memoryview]) -> None:
        self._reader.submit(self.serve, question)

    def serve(self, question: dict[str, Any]) -> None:
        """Send a tile of a page, with the levels of the page, or the values of a pixel."""
        page = int(question.get("page", 0))
        if not 0 <= page < len(self.pages):
            return
        pyramid = self.pages[page]
        try:
            if question.get("ask") == "tile":
                self._send_page_tile(page, pyramid, str(question["key"]))
            elif question.get("ask") == "pixel":
                x, y = int(question["x"]), int(question["y"])
                # JSON has no NaN.
                values = [float(v) if abs(v) < float("inf") else None for v in pyramid.pixel(x, y)]
                sky = self._sky(x, y) if self._sky else ""
                self.send({"kind": "pixel", "page": page, "x": x, "y": y, "values": values, "sky": sky})
        except StacklibError as error:
            self.send({"kind": "problem", "page": page, "text": str(error)})
        self._make_room(page)

    def _send_page_tile(self, page: int, pyramid: Pyramid, key: str) -> None:
        level, column, row = map(int, key.split("/"))
        tile = pyramid.tile(level, column, row)
        answer = {
            "kind": "tile",
            "page": page,
            "key": key,
            "level": level,
            "width": tile.shape[2],
            "height": tile.shape[1],
            "version": 0,
            "statistics": self._statistics_of(page, pyramid),
        }
        self.send(answer, [tile.astype("<f4", copy=False).data.cast("B")])

    def _statistics_of(self, page: int, pyramid: Pyramid) -> list[list[float]]:
        if page not in self._statistics:
            self._statistics[page] = [list(each) for each in zip(*pyramid.levels, strict=True)]
        return self._statistics[page]

    def _make_room(self, page: int) -> None:
        """Forget the pages that were not used for longest."""
        self._used.pop(page, None)
        self._used[page] = None
        held = {each: self.pages[each].held for each in self._used}
        for each in list(self._used)[:-1]:
            if sum(held.values()) <= KEPT:
                return
            self.pages[each].forget()
            del self._used[each], held[each]


class PagesViewer(Viewer):
    """Look at one of many frames of the same size; zoom and place stay from one to the next.

    Each frame is stretched by its own sky, or all like the reference.

    Parameters
    ----------
    frames : sequence of Frame
        The frames. They are read when they are seen, and ahead of it, in a thread.
    titles : sequence of str
        Their names.
    reference : int
        Index of the frame whose stretch all have if they are to look alike.
    unit : (str, float)
        A second unit for the readout and its scale.

    Attributes
    ----------
    titles : list of str
        The names.
    """

    def __init__(
        self, frames: Sequence[Frame], titles: Sequence[str], reference: int, unit: tuple[str, float]
    ) -> None:
        self.titles, self._reference = list(titles), reference
        self._pages = [Pyramid(FrameRows(frame)) for frame in frames]
        # The levels of a page are not known before it is read; they are sent with it.
        unknown = Levels(*[(0.0,) * frames[0].channels] * 4)
        super().__init__(frames[0], title=titles[0], unit=unit, top=1.0, levels=unknown)

    @property
    def alt(self) -> str:
        """The picture in words."""
        _, height, width = self.shape
        return f"One of {len(self.titles)} frames, stretched for the screen; {width} x {height} pixels"

    @cached_property
    def widget(self) -> PagesWidget:
        """The live panel."""
        meta = self._meta() | {"titles": self.titles, "reference": self._reference}
        words = {"title": self.title, "alt": self.alt}
        return PagesWidget(self._pages, self._sky, meta=meta, **self._usual, **words)
