"""Matplotlib canvases that can be clicked and that redraw only what moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ipympl.backend_nbagg import Canvas, FigureManager
from matplotlib.artist import Artist
from matplotlib.backend_bases import DrawEvent, MouseEvent
from matplotlib.figure import Figure

__all__ = ["QuickCanvas", "draw_when_seen", "live_canvas"]

#: Seconds that a browser usually needs to show a drawing.
TAKEN_UP = 0.15


def live_canvas(figure: Figure, on_click: Callable[[float, float], None] | None = None) -> Canvas:
    """Turn a figure into a widget; `on_click` gets the data coordinates of clicks inside axes."""
    canvas = Canvas(figure)
    FigureManager(canvas, 0)
    canvas.header_visible = False
    canvas.footer_visible = False
    canvas.toolbar_visible = False
    canvas.resizable = False
    if on_click is not None:

        def clicked(event: MouseEvent) -> None:
            if event.inaxes is not None:
                on_click(event.xdata, event.ydata)

        figure.canvas.mpl_connect("button_press_event", clicked)
    return canvas


def draw_when_seen(canvas: Canvas) -> None:
    """Redraw the canvas if a browser shows it; a browser that connects later asks for a drawing."""
    # Until a browser answers, this attribute of ipympl is set, and each drawing is also stored as text.
    if not canvas.syncing_data_url:
        canvas.draw_idle()


class QuickCanvas:
    """The moving artists of a live canvas, in the order of drawing; everything else stays until `redraw`.

    The browser gets the difference from the previous drawing, and may miss one of two drawings in quick
    succession. So a drawing soon after another one is sent as a whole. Axis labels cannot move: axes always
    draw their own, so that the old label would stay visible.
    """

    def __init__(self, canvas: Canvas, artists: Iterable[Artist]) -> None:
        self.canvas = canvas
        self.artists = list(artists)
        self._background = None
        self._updated = 0.0
        for artist in self.artists:
            artist.set_animated(True)
        canvas.mpl_connect("draw_event", self._keep)

    def redraw(self) -> None:
        """Redraw everything as soon as the browser is ready."""
        self._background = None
        self._send_whole()
        draw_when_seen(self.canvas)

    def update(self, more: bool = False) -> None:
        """Draw the moving artists only.

        If `more` drawings follow at once, with a final `redraw`, none is sent as a whole, which would be
        slow.
        """
        if self._background is None:
            draw_when_seen(self.canvas)
            return
        now = time.monotonic()
        if now - self._updated < TAKEN_UP and not more:
            self._send_whole()
        self._updated = now
        self.canvas.restore_region(self._background)
        self._draw()
        self.canvas.blit(self.canvas.figure.bbox)

    def _send_whole(self) -> None:
        # An attribute of matplotlib's canvas for browsers.
        self.canvas._force_full = True

    def _keep(self, event: DrawEvent) -> None:
        # A figure being saved has another canvas and draws all artists itself.
        if event.canvas is self.canvas and not self.canvas.is_saving():
            self._background = self.canvas.copy_from_bbox(self.canvas.figure.bbox)
            self._draw()

    def _draw(self) -> None:
        for artist in self.artists:
            self.canvas.figure.draw_artist(artist)
