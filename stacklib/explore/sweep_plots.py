"""Figures of a sweep: what settings reject, cost and leave, and how the results look."""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stacklib.figures.look import (
    EDGE,
    FAINT,
    HIGH,
    INK,
    LOW,
    PANEL,
    colour_bar,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.screen import screen_limits, stretch
from stacklib.integration.samples import Region

__all__ = ["figure_sweep", "figure_thumbnails"]

#: What is shown of a table, and how it is called.
SHOWN = {
    "rejected_low": "rejected low (%)",
    "rejected_high": "rejected high (%)",
    "noise_penalty": "noise penalty (%)",
    "residual": "residual outlier light (%)",
}
#: Rows of heat maps, and thumbnails each way, at most.
MOST_MAPS, MOST_THUMBNAILS = 4, 6
#: A heat map with more cells than this tells no numbers.
MOST_NUMBERS = 60
#: Percent that a scale spans at least.
LEAST_SPAN = 0.1


class Sweep(Protocol):
    """What the figures show of `stacklib.explore.sweep.Sweep`."""

    grid: dict[str, tuple]
    table: Table
    region: Region
    thumbnails: np.ndarray
    corner: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]: ...

    def column(self, name: str) -> np.ndarray: ...


def figure_sweep(found: Sweep) -> Figure:
    """Heat maps over the last two fields of the grid; curves where there is only one.

    Parameters
    ----------
    found : Sweep
        Of further fields each combination is a row of heat maps, four at most.

    Returns
    -------
    Figure
    """
    rows = list(itertools.product(*list(found.grid.values())[:-2]))
    shown = rows[:MOST_MAPS]
    figure = new_figure(13.5, 0.9 + 3.1 * len(shown))
    grid = figure.subplots(len(shown), len(SHOWN), squeeze=False)
    for number, values in enumerate(shown):
        where = np.unravel_index(number, found.shape[:-2]) if len(found.shape) > 2 else ()
        for axes, (name, label) in zip(grid[number], SHOWN.items(), strict=True):
            cells = found.column(name)[where]
            if cells.ndim == 1:
                _curve(axes, found, cells, label)
            else:
                _heat_map(figure, axes, found, cells, label)
        if values:
            names = list(found.grid)[:-2]
            title = ", ".join(f"{n} {text(v)}" for n, v in zip(names, values, strict=True))
            grid[number, 0].set_title(title, color=INK, fontsize=10, loc="left")
    left, top, width, height = found.region
    more = f", the first {MOST_MAPS} of {len(rows)} combinations" if len(rows) > MOST_MAPS else ""
    words = f"{len(found.table)} settings on {width} x {height} pixels at ({left}, {top}){more}"
    write_title(figure, words)
    return figure


def _heat_map(figure: Figure, axes: Axes, found: Sweep, cells: np.ndarray, label: str) -> None:
    """One number over two fields."""
    (down, rows), (across, columns) = list(found.grid.items())[-2:]
    low, high = (float(f(cells)) for f in (np.nanmin, np.nanmax)) if np.isfinite(cells).any() else (0.0, 1.0)
    # What differs by nothing that matters has one colour.
    least = max(LEAST_SPAN, 1e-3 * abs(high))
    shown = axes.imshow(
        cells, cmap="cividis", aspect="auto", origin="lower", vmin=low, vmax=max(high, low + least)
    )
    _ticks(axes, "x", columns)
    _ticks(axes, "y", rows)
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(down, color=INK, fontsize=9)
    axes.set_facecolor(PANEL)
    axes.tick_params(colors=INK, labelsize=8, length=2)
    for spine in axes.spines.values():
        spine.set_color(EDGE)
    colour_bar(figure, shown, label, axes)
    if cells.size <= MOST_NUMBERS and np.isfinite(cells).any():
        middle = 0.5 * (low + max(high, low + least))
        for row, column in np.argwhere(np.isfinite(cells)):
            value = cells[row, column]
            colour = "black" if value > middle else "white"
            axes.text(column, row, short(value), color=colour, fontsize=7, ha="center", va="center")


def _curve(axes: Axes, found: Sweep, cells: np.ndarray, label: str) -> None:
    """One number over one field."""
    ((name, values),) = list(found.grid.items())[-1:]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = np.array(values, float) if numbers else np.arange(len(values))
    axes.plot(
        places, cells, "o-" if numbers else "o", color=HIGH if label.startswith("residual") else LOW, ms=5
    )
    if not numbers:
        axes.set_xticks(places, [text(value) for value in values], rotation=30, ha="right")
    axes.set_xlabel(name, color=INK, fontsize=9)
    axes.set_ylabel(label, color=INK, fontsize=9)
    axes.set_facecolor(PANEL)
    axes.grid(axis="y", color=EDGE, lw=0.7)
    axes.tick_params(colors=INK, labelsize=8, length=2)
    for spine in axes.spines.values():
        spine.set_color(EDGE)


def _ticks(axes: Axes, axis: str, values: tuple) -> None:
    step = -(-len(values) // (5 if axis == "x" else 10))
    places = range(0, len(values), step)
    labels = [text(values[i]) for i in places]
    (axes.set_xticks if axis == "x" else axes.set_yticks)(list(places), labels)


def text(value: Any) -> str:
    """A value of the grid, short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")


def short(value: float) -> str:
    """A number of percent, in a few characters."""
    return f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"


def figure_thumbnails(found: Sweep) -> Figure:
    """A part of the results side by side, with one stretch: that with most light of outliers.

    Parameters
    ----------
    found : Sweep
        Of the last two fields at most six values each are shown, of the others the first one.

    Returns
    -------
    Figure
    """
    names = list(found.grid)
    index = np.arange(len(found.table)).reshape(found.shape)
    while index.ndim > 2:
        index = index[0]
    index = np.atleast_2d(index)
    chosen = index[np.ix_(*(_spread(length) for length in index.shape))]
    limits = screen_limits(np.median(found.thumbnails, axis=0))
    height, width = found.thumbnails.shape[-2:]
    figure = new_figure(1.9 * chosen.shape[1] + 0.4, 2.15 * chosen.shape[0] * height / width + 0.8)
    grid = figure.subplots(*chosen.shape, squeeze=False)
    for axes, row in zip(grid.flat, chosen.flat, strict=True):
        picture = stretch(found.thumbnails[row], limits)
        values = [text(found.table[name][row]) for name in names[-2:]]
        show_picture(axes, picture, ", ".join(values), corner=found.corner)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("")
        axes.set_ylabel("")
        axes.title.set_fontsize(8.5)
    left, top = found.corner
    figure.supxlabel(f"{width} x {height} pixels at ({left}, {top}), one stretch", color=FAINT, fontsize=8)
    write_title(figure, ", ".join(names[-2:]))
    return figure


def _spread(count: int) -> np.ndarray:
    """Some of so many, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_THUMBNAILS)).round().astype(int))
