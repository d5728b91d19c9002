"""Redraw only the artists that move, over a background that is kept: a click is answered at once."""

from __future__ import annotations

from collections.abc import Iterable

from ipympl.backend_nbagg import Canvas
from matplotlib.artist import Artist

__all__ = ["QuickCanvas"]


class QuickCanvas:
    """The moving artists of a live canvas.

    Parameters
    ----------
    canvas : Canvas
        From `stacklib.panels.common.live_canvas`.
    artists : iterable of Artist
        What moves, in the order of drawing; everything else stays until `redraw`.
    """

    def __init__(self, canvas: Canvas, artists: Iterable[Artist]) -> None:
        self.canvas = canvas
        self.artists = list(artists)
        self._background = None
        for artist in self.artists:
            artist.set_animated(True)
        canvas.figure.canvas.mpl_connect("draw_event", self._keep)

    def redraw(self) -> None:
        """Draw everything anew, when the browser is ready for it."""
        self._background = None
        self.canvas.draw_idle()

    def update(self) -> None:
        """Draw the moving artists only."""
        if self._background is None:
            self.canvas.draw_idle()
            return
        self.canvas.restore_region(self._background)
        self._draw()
        self.canvas.blit(self.canvas.figure.bbox)

    def _keep(self, event) -> None:
        # A figure that is saved has another canvas, and draws all artists itself.
        if event.canvas is self.canvas and not self.canvas.is_saving():
            self._background = self.canvas.copy_from_bbox(self.canvas.figure.bbox)
            self._draw()

    def _draw(self) -> None:
        for artist in self.artists:
            self.canvas.figure.draw_artist(artist)
