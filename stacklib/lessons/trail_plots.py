"""Figures of the faint trail."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from stacklib.figures.look import (
    BAR,
    FAINT,
    HIGH,
    INK,
    PANEL,
    colour_bar,
    dress,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.lessons.trail import FaintTrail

__all__ = ["figure_along", "figure_faint_trail"]

#: Offsets from the trail, in pixels.
OFFSETS = np.arange(-20, 21)


def figure_along(faint: FaintTrail) -> Figure:
    """Show the residual of the frame, and its mean along lines parallel to the trail."""
    residual, (rows, columns) = faint.residual(), faint.rows()
    figure = new_figure(13.0, 4.2)
    picture, plot = figure.subplots(1, 2, width_ratios=(1, 1.25))
    show_picture(picture, residual, f"Frame {faint.trail.frame + 1} minus the others", vmin=-4, vmax=4)
    means = np.array([residual[rows + offset, columns].mean() for offset in OFFSETS])
    noise = columns.size**-0.5
    plot.bar(OFFSETS, means, color=np.where(means > 5 * noise, HIGH, BAR), width=0.8)
    for sign in (-5, 5):
        plot.axhline(
            sign * noise, color=FAINT, ls=":", lw=1.6, label="5 sigma of such a mean" if sign > 0 else None
        )
    plot.set_xlabel("offset from the trail (pixels)", color=INK)
    dress(plot, "mean along the line (sigma of a sample)")
    plot.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=9)
    peak = float(means.max())
    write_title(
        figure,
        f"A trail of {faint.trail.peak:g} sigma is no outlier at a pixel; the mean of {columns.size} pixels "
        f"along it lies {peak / noise:.0f} of its own sigma above 0",
    )
    return figure


def figure_faint_trail(faint: FaintTrail) -> Figure:
    """Show what the trail adds to the master, for everything tried, and how much of its light that is."""
    figure = new_figure(13.0, 3.7)
    top = 1.2 * faint.trail.peak / len(faint.night.frames)
    for axes, name in zip(figure.subplots(1, len(faint.results)), faint.results, strict=True):
        title = f"{name}: {faint.left(name):.0f} % left"
        shown = show_picture(axes, faint.added(name), title, cmap="cividis", vmin=0, vmax=top)
        axes.set_facecolor(PANEL)
    colour_bar(figure, shown, "master with the trail\nminus master without it\n(sigma of one frame)")
    count = len(faint.night.frames)
    write_title(
        figure, f"What a trail of {faint.trail.peak:g} sigma in one of {count} frames adds to the master"
    )
    return figure
