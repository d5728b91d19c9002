"""Pictures that follow a slider or a click, sent to the browser as image bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from itertools import pairwise

import ipywidgets as widgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from traitlets import Unicode

__all__ = ["FigurePicture", "Picture"]


def _at_most(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, max_width="100%", height="auto", margin="0", object_fit="contain")


class Picture(widgets.Image):
    """A picture with a description for screen readers.

    The description becomes its title in the browser: pictures of ipywidgets have no alternative text.
    """

    # The front end of ipywidgets shows a title only if there is an empty description.
    description = Unicode("").tag(sync=True)

    def __init__(self, alt: str, width: str = "100%") -> None:
        super().__init__(format="jpeg", layout=_at_most(width), tooltip=alt)
        self.add_class("stacklib-picture")

    @property
    def alt(self) -> str:
        """The description. Can be set."""
        return self.tooltip

    @alt.setter
    def alt(self, text: str) -> None:
        self.tooltip = text

    def show(self, picture: np.ndarray) -> None:
        """Show a picture, uint8 (height, width, 3)."""
        stream = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(picture))
        image.save(stream, "JPEG", quality=90, subsampling=0)
        self.value = stream.getvalue()


class FigurePicture(widgets.HBox):
    """A figure shown as pictures in which only some artists move; the rest is drawn once.

    The artists are given in the order of drawing. The canvas of the figure is replaced. The parts between
    `cuts`, fractions of its width, are side by side if there is room, and look like one picture.
    """

    def __init__(self, figure: Figure, artists: Iterable[Artist], cuts: Sequence[float] = ()) -> None:
        self.figure, self.artists = figure, list(artists)
        self.canvas = FigureCanvasAgg(figure)
        self._dpi = figure.dpi
        self._background = None
        for artist in self.artists:
            artist.set_animated(True)
        wide = figure.get_figwidth() * figure.dpi
        self._columns = [round(cut * wide) for cut in (0, *cuts, 1)]
        parts = [Picture("", f"{last - first}px") for first, last in pairwise(self._columns)]
        super().__init__(parts, layout=widgets.Layout(flex_flow="row wrap"))
        self.add_class("stacklib-figure")

    def describe(self, *words: str) -> None:
        """Set the descriptions of the parts."""
        for part, text in zip(self.children, words, strict=True):
            part.alt = text

    def update(self, sharpness: float = 1.0) -> None:
        """Draw the moving artists, with `sharpness` pixels per screen pixel in each direction."""
        if self.figure.dpi != self._dpi * sharpness:
            self.figure.dpi = self._dpi * sharpness
            self._background = None
        if self._background is None:
            self.canvas.draw()
            self._background = self.canvas.copy_from_bbox(self.figure.bbox)
        else:
            self.canvas.restore_region(self._background)
        for artist in self.artists:
            self.figure.draw_artist(artist)
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]
        edges = pairwise(round(column * sharpness) for column in self._columns)
        for part, (first, last) in zip(self.children, edges, strict=True):
            part.show(pixels[:, first:last])
