"""Figures of the frame selector: all frames at a glance, and their measurements over time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from stacklib.explore.frame_choice import PLOTTED, FrameChoice, time_axis
from stacklib.figures.look import FAINT, GROUND, HIGH, INK, LOW, dress_axes

__all__ = ["figure_selection"]


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
    _night(lower, selector)
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


def _night(figure: FigureBase, selector: FrameChoice) -> None:
    """Plot measurements over time; frames left out are crosses with their name."""
    table, selected = selector.table, selector.selected
    x, label = time_axis(table)
    columns = 3
    grid = figure.subplots(len(PLOTTED) // columns, columns, sharex=True)
    for axes, (name, title) in zip(grid.ravel(), PLOTTED.items(), strict=True):
        values = np.asarray(table[name], float)
        axes.margins(0.08, 0.16)
        kept = axes.plot(x[selected], values[selected], "o", color=LOW, ms=4.5, label="selected")
        crossed = axes.plot(x[~selected], values[~selected], "X", color=HIGH, ms=7.5, label="left out")
        for index in np.flatnonzero(~selected & np.isfinite(values)):
            axes.annotate(
                selector.short_names[index][-12:],
                (x[index], values[index]),
                (0, 6),
                textcoords="offset points",
                color=INK,
                fontsize=7.5,
                va="bottom",
                ha="center",
                parse_math=False,
            )
        dress_axes(axes)
        axes.set_title(title.format(**table.meta), color=INK, fontsize=9.5, loc="left", parse_math=False)
    for axes in grid[-1]:
        axes.set_xlabel(label.replace("hours", "hours since the first frame"), color=FAINT, fontsize=8.5)
    figure.legend(
        handles=[*kept, *crossed],
        loc="outside upper right",
        ncols=2,
        frameon=False,
        labelcolor=INK,
        fontsize=8.5,
    )
