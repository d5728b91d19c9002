"""Figures of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.image import imread

from stacklib.batch.summary import Row
from stacklib.figures.look import FAINT, INK, new_figure, write_title
from stacklib.utils.labels import clipped
from stacklib.utils.texts import one_line

__all__ = ["figure_masters"]

#: Pictures in a row.
COLUMNS = 4
#: Longest name above a picture.
LONGEST = 36


def figure_masters(rows: Sequence[Row]) -> Figure:
    """Plot the masters as thumbnails with a screen stretch; a target without a master gets an empty field."""
    columns = min(COLUMNS, len(rows))
    lines = math.ceil(len(rows) / columns)
    figure = new_figure(2.7 * columns, 2.5 * lines + 0.3)
    write_title(figure, "The masters")
    axes = figure.subplots(lines, columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for row, place in zip(rows, axes.flat, strict=False):
        title = f"{clipped(one_line(row.target.name), LONGEST)}\n{_caption(row)}"
        place.set_title(title, fontsize=9, color=INK, parse_math=False)
        path = row.target.output / row.record.thumbnail if row.known and row.record.thumbnail else None
        if path is not None and path.exists():
            place.imshow(imread(path), cmap="gray", vmin=0, vmax=255)
            # Align the titles of pictures of different heights.
            place.set_anchor("N")
        else:
            words = "no picture" if row.known else "no master"
            place.text(0.5, 0.5, words, ha="center", va="center", color=FAINT)
    return figure


def _caption(row: Row) -> str:
    return f"{row.known['used']} frames, SNR x {row.gain:.2f}" if row.known else row.status
