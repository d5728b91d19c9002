"""Figures of a sweep: rejected samples, noise penalty, residual outlier signal, and thumbnails."""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stacklib.figures.look import (
    FAINT,
    HIGH,
    INK,
    LOW,
    colour_bar,
    dress_axes,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.screen import screen_limits, stretch
from stacklib.integration.samples import Region

__all__ = ["figure_sweep", "figure_thumbnails"]

#: Columns of the table that are shown, with their labels.
SHOWN = {
    "rejected_low": "rejected low (%)",
    "rejected_high": "rejected high (%)",
    "noise_penalty": "noise penalty (%)",
    "residual": "residual outlier signal (%)",
}
#: Largest numbers of rows of heat maps, and of thumbnails each way.
MOST_MAPS, MOST_THUMBNAILS = 4, 6
#: A heat map with more cells than this shows no numbers.
MOST_NUMBERS = 60
#: Least span of a scale in percent.
LEAST_SPAN = 0.1


class Sweep(Protocol):
    """The parts of `stacklib.explore.sweep.Sweep` that the figures need."""

    grid: dict[str, tuple]
    table: Table
    region: Region
    thumbnails: np.ndarray
    corner: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]: ...

    def column(self, name: str) -> np.ndarray: ...


def figure_sweep(found: Sweep) -> Figure:
    """Draw heat maps over the last two fields of the grid, or curves if there is only one field.

    Parameters
    ----------
    found : Sweep
        Each combination of any other fields is a row of heat maps; four rows are shown.

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
    """Draw one number over two fields."""
    (down, rows), (across, columns) = list(found.grid.items())[-2:]
    low, high = (float(f(cells)) for f in (np.nanmin, np.nanmax)) if np.isfinite(cells).any() else (0.0, 1.0)
    # Differences that do not matter get the same color.
    least = max(LEAST_SPAN, 1e-3 * abs(high))
    shown = axes.imshow(
        cells, cmap="cividis", aspect="auto", origin="lower", vmin=low, vmax=max(high, low + least)
    )
    _ticks(axes, "x", columns)
    _ticks(axes, "y", rows)
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(down, color=INK, fontsize=9)
    dress_axes(axes, grid=False)
    colour_bar(figure, shown, label, axes)
    if cells.size <= MOST_NUMBERS and np.isfinite(cells).any():
        middle = 0.5 * (low + max(high, low + least))
        for row, column in np.argwhere(np.isfinite(cells)):
            value = cells[row, column]
            colour = "black" if value > middle else "white"
            axes.text(column, row, short(value), color=colour, fontsize=7, ha="center", va="center")


def _curve(axes: Axes, found: Sweep, cells: np.ndarray, label: str) -> None:
    """Plot one number over one field."""
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
    dress_axes(axes)


def _ticks(axes: Axes, axis: str, values: tuple) -> None:
    step = -(-len(values) // (5 if axis == "x" else 10))
    places = range(0, len(values), step)
    labels = [text(values[i]) for i in places]
    (axes.set_xticks if axis == "x" else axes.set_yticks)(list(places), labels)


def text(value: Any) -> str:
    """Write a value of the grid briefly."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")


def short(value: float) -> str:
    """Write a percentage in a few characters."""
    return f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"


def figure_thumbnails(found: Sweep) -> Figure:
    """Show the part with the most light of outliers in each result, with the same stretch.

    Parameters
    ----------
    found : Sweep
        Up to six values of each of the last two fields are shown, and the first of all others.

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
    figure.supxlabel(f"{width} x {height} pixels at ({left}, {top}), same stretch", color=FAINT, fontsize=8)
    write_title(figure, ", ".join(names[-2:]))
    return figure


def _spread(count: int) -> np.ndarray:
    """Choose evenly spread positions, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_THUMBNAILS)).round().astype(int))
