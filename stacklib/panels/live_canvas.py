"""Canvases that can be clicked, and that redraw only what moves: a click is answered at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ipympl.backend_nbagg import Canvas, FigureManager
from matplotlib.artist import Artist
from matplotlib.figure import Figure

__all__ = ["QuickCanvas", "draw_when_seen", "live_canvas"]

#: Seconds in which a browser has taken up what was drawn, seldom more.
TAKEN_UP = 0.15


def live_canvas(figure: Figure, on_click: Callable[[float, float], None] | None = None) -> Canvas:
    """The canvas of a figure as a widget; `on_click` gets the data coordinates of a click inside axes."""
    canvas = Canvas(figure)
    FigureManager(canvas, 0)
    canvas.header_visible = False
    canvas.footer_visible = False
    canvas.toolbar_visible = False
    canvas.resizable = False
    if on_click is not None:

        def clicked(event) -> None:
            if event.inaxes is not None:
                on_click(event.xdata, event.ydata)

        figure.canvas.mpl_connect("button_press_event", clicked)
    return canvas


def draw_when_seen(canvas: Canvas) -> None:
    """Draw everything anew if a browser shows the canvas; one that comes later asks for it itself."""
    # The name is ipympl's: until the browser has answered, each drawing is kept as text as well.
    if not canvas.syncing_data_url:
        canvas.draw_idle()


class QuickCanvas:
    """The moving artists of a live canvas.

    The browser gets what has changed since the drawing before, and of drawings that follow each other at
    once it may miss one. So a drawing that closely follows another is sent whole.

    Parameters
    ----------
    canvas : Canvas
        From `live_canvas`.
    artists : iterable of Artist
        What moves, in the order of drawing; everything else stays until `redraw`. No label of an axis: axes
        draw theirs in any case, and it would stay behind.
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
        """Draw everything anew, when the browser is ready for it."""
        self._background = None
        self._send_whole()
        draw_when_seen(self.canvas)

    def update(self, more: bool = False) -> None:
        """Draw the moving artists only.

        Parameters
        ----------
        more : bool
            Whether more drawings follow at once, and `redraw` in the end: then none is sent whole, which
            would take too long.
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
        # The name is that of the Canvas for browsers in matplotlib.
        self.canvas._force_full = True

    def _keep(self, event) -> None:
        # A figure that is saved has another canvas, and draws all artists itself.
        if event.canvas is self.canvas and not self.canvas.is_saving():
            self._background = self.canvas.copy_from_bbox(self.canvas.figure.bbox)
            self._draw()

    def _draw(self) -> None:
        for artist in self.artists:
            self.canvas.figure.draw_artist(artist)
