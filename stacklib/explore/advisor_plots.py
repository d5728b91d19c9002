"""The figure of an advice: cost and leftovers of all settings, and the proposal."""

from __future__ import annotations

import textwrap
from typing import Protocol

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stacklib.figures.look import FAINT, HIGH, INK, LOW, dress, new_figure, write_title
from stacklib.recipe.recipe import Recipe

__all__ = ["figure_advice"]

#: Lines for the kinds of outliers, distinct for every kind of color vision.
LOOKS = {
    "faint trails": ("#cdd5e0", ":"),
    "trails": (LOW, "--"),
    "bright trails": (LOW, "-"),
    "cosmic rays": (HIGH, "-"),
    "dark pixels": ("#009e73", "-."),
}
#: Characters in a line of the title.
LINE = 115


class Advice(Protocol):
    """The part of `stacklib.explore.advisor.Advice` that the figure shows."""

    start: Recipe
    grid: dict[str, tuple]
    table: Table
    row: int
    reason: str

    @property
    def kinds(self) -> list[str]: ...


def figure_advice(advice: Advice) -> Figure:
    """Plot the trade-off of all settings, the risk, and the leftovers of each kind of outlier.

    Risk and leftovers are drawn over the last field of the grid, with the others as proposed.
    """
    figure = new_figure(11.0, 7.6)
    places_of = figure.subplot_mosaic([["trade", "risk"], ["trade", "left"]])
    trade, risk, left = (places_of[name] for name in ("trade", "risk", "left"))
    _trade_off(trade, advice)
    name = list(advice.grid)[-1]
    values = advice.grid[name]
    rows = _line(advice)
    numbers = all(isinstance(value, int | float) for value in values)
    places = np.array(values, float) if numbers else np.arange(len(values), dtype=float)
    table = advice.table
    risk.plot(places, table["risk"][rows], "o-", color=HIGH, ms=5, label="risk")
    risk.plot(
        places, table["risk_bright"][rows], "^-", color="#009e73", ms=5, label="risk, with bright stars"
    )
    risk.plot(places, table["noise"][rows], "s--", color=LOW, ms=4, label="noise alone")
    risk.plot(places, table["split_half"][rows], "D:", color=FAINT, ms=4, label="odd against even frames")
    most = 1.6 * float(np.min(table["risk"]))
    risk.set_ylim(
        None, min(most, 1.05 * np.nanmax([table[n][rows] for n in ("risk", "risk_bright", "noise")]))
    )
    dress(risk, "error (perfect average = 1)")
    for kind in advice.kinds:
        colour, line = LOOKS.get(kind, (FAINT, "-"))
        left.plot(places, table[f"left of {kind}"][rows], line, color=colour, lw=1.8, label=kind)
    left.set_ylim(min(-4, left.get_ylim()[0]), max(105, left.get_ylim()[1]))
    dress(left, "signal of added outliers left (%)")
    others = ", ".join(f"{n} {advice.table[n][advice.row]:g}" for n in list(advice.grid)[:-1])
    for axes in (risk, left):
        axes.axvline(places[values.index(_plain(table[name][advice.row]))], color=INK, lw=1, alpha=0.6)
        axes.set_xlabel(f"{name}, with {others}" if others else name, color=INK)
        if not numbers:
            axes.set_xticks(places, [str(value) for value in values])
    for axes in (trade, risk, left):
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, labelcolor=INK, fontsize=9
        )
    write_title(figure, textwrap.fill(advice.reason, LINE))
    return figure


def _trade_off(axes: Axes, advice: Advice) -> None:
    """Plot added noise against leftovers for all settings."""
    table = advice.table
    cost, left = np.asarray(table["noise_penalty"]), np.asarray(table["left"])
    axes.plot(cost, left, "o", color=FAINT, ms=4, alpha=0.7, label=f"{len(table)} settings")
    order = np.lexsort((left, cost))
    best = np.minimum.accumulate(left[order])
    front = order[np.r_[True, best[1:] < best[:-1]]]
    axes.plot(cost[front], left[front], "-", color=LOW, lw=1.6, label="best trade-offs")
    start = _row_of_start(advice)
    if start is not None:
        axes.plot(
            cost[start], left[start], "s", color=LOW, ms=9, mec=INK, label="closest to the starting limits"
        )
    axes.plot(cost[advice.row], left[advice.row], "*", color=HIGH, ms=17, mec=INK, label="suggested")
    dress(axes, "left of outliers and taken from stars (perfect average = 1)")
    axes.grid(axis="x", color=axes.get_ygridlines()[0].get_color(), lw=0.7)
    if np.ptp(left) > 0 and left.min() > 0 and left.max() / left.min() > 5:
        axes.set_yscale("log")
    axes.set_xscale("symlog", linthresh=1)
    right, left_end = max(1, 1.3 * cost.max()), min(0, 1.3 * cost.min()) - 0.05
    steps = (0.5, 1, 2, 5, 10, 20, 50, 100)
    ticks = [tick for tick in (*(-step for step in steps), 0, *steps) if left_end <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(left_end, right)
    axes.set_xlabel("added noise (%)", color=INK)


def _row_of_start(advice: Advice) -> int | None:
    """Return the row closest to the starting recipe, None if the grid has values that are no numbers."""
    distance = np.zeros(len(advice.table))
    for name in advice.grid:
        value = getattr(advice.start, name)
        if not isinstance(value, int | float):
            return None
        distance += np.abs(np.asarray(advice.table[name], float) - value)
    return int(np.argmin(distance))


def _line(advice: Advice) -> np.ndarray:
    """Return the rows that differ from the proposal in the last field only."""
    index = np.arange(len(advice.table)).reshape([len(values) for values in advice.grid.values()])
    return index[np.unravel_index(advice.row, index.shape)[:-1]]


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else value
