"""Figures of the frame selector: all frames at a glance, and their measurements over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from stacklib.explore.frame_choice import FrameChoice
from stacklib.figures.look import FAINT, GROUND, HIGH, INK, LOW, dress_axes

__all__ = ["NightPlots", "figure_selection"]

#: Columns that are plotted over time, with their labels.
PLOTTED = {
    "sky": "sky ({level})",
    "stars": "stars",
    "fwhm": "FWHM (pixels)",
    "noise": "noise ({level})",
    "weight": "weight (best = 1)",
    "eccentricity": "eccentricity",
}


def figure_selection(selector: FrameChoice) -> Figure:
    """Draw all frames and their measurements over time; frames left out are crossed."""
    count = len(selector.table)
    across = min(10, count)
    down = -(-count // across)
    height, width = selector.thumbnails[0].shape[:2]
    sheet = down * (8.7 / across * height / width + 0.3) + 0.5
    figure = Figure(figsize=(8.7, sheet + 4.4), dpi=110, facecolor=GROUND, layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(sheet, 4.4))
    upper.set_facecolor(GROUND), lower.set_facecolor(GROUND)
    cells = np.ravel(upper.subplots(down, across, squeeze=False))
    for axes in cells:
        axes.set_axis_off()
    for index, picture in enumerate(selector.thumbnails):
        cells[index].imshow(picture, cmap="gray", vmin=0, vmax=255)
        _caption(selector, cells[index], index)
    words = f"{selector.selected.sum()} of {count} frames selected; crossed frames are left out"
    upper.suptitle(words, color=INK, fontsize=11.5, x=0.01, ha="left")
    NightPlots(lower, selector.table, selector.short_names).update(selector.selected)
    return figure


def _caption(selector: FrameChoice, axes: Axes, index: int) -> None:
    reason = selector.reasons.get(index)
    colour = INK if reason is None else HIGH
    text = selector.short_names[index][-12:]
    if reason is not None:
        axes.plot([0, 1], [0, 1], color=HIGH, lw=1.5, transform=axes.transAxes)
        axes.plot([0, 1], [1, 0], color=HIGH, lw=1.5, transform=axes.transAxes)
        text += f"\n{'unselected' if reason.startswith('not ') else reason.split(':')[0].split(' (')[0]}"
    axes.set_title(text, color=colour, fontsize=7.5, pad=2, parse_math=False)


class NightPlots:
    """Small plots over time; frames left out are crosses with their name."""

    def __init__(self, figure: FigureBase, table: Table, names: Sequence[str], columns: int = 3) -> None:
        hours = np.asarray(table["hours"], float)
        timed = bool(np.isfinite(hours).all())
        self.x = hours if timed else np.asarray(table["number"], float)
        self.values = [np.asarray(table[name], float) for name in PLOTTED]
        self.kept, self.crossed, self.texts = [], [], []
        grid = figure.subplots(len(PLOTTED) // columns, columns, sharex=True)
        for axes, label, values in zip(grid.ravel(), PLOTTED.values(), self.values, strict=True):
            # Draw all points once, invisibly, so that the limits never change.
            axes.plot(self.x, values, alpha=0)
            axes.margins(0.08, 0.16)
            self.kept += axes.plot([], [], "o", color=LOW, ms=4.5, label="selected")
            self.crossed += axes.plot([], [], "X", color=HIGH, ms=7.5, label="left out")
            self.texts.append(
                [
                    axes.annotate(
                        name[-12:],
                        (x, y),
                        (0, 6),
                        textcoords="offset points",
                        color=INK,
                        fontsize=7.5,
                        va="bottom",
                        ha="center",
                        visible=False,
                        parse_math=False,
                    )
                    for name, x, y in zip(names, self.x, values, strict=True)
                ]
            )
            dress_axes(axes)
            axes.set_title(label.format(**table.meta), color=INK, fontsize=9.5, loc="left", parse_math=False)
        for axes in grid[-1]:
            axes.set_xlabel("hours since the first frame" if timed else "frame", color=FAINT, fontsize=8.5)
        figure.legend(
            handles=[self.kept[0], self.crossed[0]],
            loc="outside upper right",
            ncols=2,
            frameon=False,
            labelcolor=INK,
            fontsize=8.5,
        )

    def update(self, selected: np.ndarray) -> None:
        """Mark the selected frames."""
        for kept, crossed, texts, values in zip(
            self.kept, self.crossed, self.texts, self.values, strict=True
        ):
            kept.set_data(self.x[selected], values[selected])
            crossed.set_data(self.x[~selected], values[~selected])
            for text, inside, value in zip(texts, selected, values, strict=True):
                text.set_visible(not inside and bool(np.isfinite(value)))
