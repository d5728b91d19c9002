"""Figures of the night that changes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from stacklib.figures.look import (
    FAINT,
    HIGH,
    INK,
    LOW,
    PANEL,
    colour_bar,
    dress_axes,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.screen import screen_limits, stretch
from stacklib.lessons.changing import WAYS, Clouds

__all__ = ["figure_both_ways", "figure_light", "figure_weather"]


def figure_weather(clouds: Clouds) -> Figure:
    """Plot transparency and sky of the night, and show its first, its best and its cloudiest frame."""
    night = clouds.night
    figure = new_figure(13.0, 3.7)
    plot, *pictures = figure.subplots(1, 4, width_ratios=(1.15, 1, 1, 1))
    numbers = np.arange(1, night.count + 1)
    plot.plot(numbers, night.transparency, "o-", color=LOW, ms=4, label="light of the target")
    sky = night.sky[:, 0] / night.sky[night.reference, 0]
    plot.plot(numbers, sky, "s-", color=HIGH, ms=4, label="level of the sky")
    dress_axes(plot, labelsize=9)
    plot.set_ylim(0)
    plot.set_xlabel("frame", color=INK)
    plot.set_ylabel("relative to the best frame", color=INK)
    plot.legend(loc="lower left", frameon=False, labelcolor=INK, fontsize=9)
    cloudiest = int(np.argmin(night.transparency))
    limits = screen_limits(night.frames[night.reference])
    shown = {"first": 0, "best": night.reference, "cloudiest": cloudiest}
    for axes, (name, index) in zip(pictures, shown.items(), strict=True):
        show_picture(axes, stretch(night.frames[index], limits), f"Frame {index + 1}, the {name}")
    write_title(figure, "Clouds take light from the target and brighten the sky, and the gradient turns")
    return figure


def figure_light(clouds: Clouds) -> Figure:
    """Plot the light of each frame, as its spread and as its stars say, against the truth."""
    true = clouds.night.transparency
    figure = new_figure(7.5, 4.4)
    axes = figure.subplots()
    ends = np.array([true.min(), true.max()])
    axes.plot(ends, ends, color=FAINT, lw=1.6, label="the truth")
    for (name, values), style, colour in zip(clouds.matching().items(), ("s", "o"), (HIGH, LOW), strict=True):
        axes.plot(true, values, style, color=colour, ms=6, label=name)
    dress_axes(axes, labelsize=9)
    axes.set_xlabel("light of the target, relative to the reference", color=INK)
    axes.set_ylabel("found", color=INK)
    axes.legend(loc="best", frameon=False, labelcolor=INK, fontsize=9)
    write_title(figure, "How much light a frame holds: its spread is misled, its stars are not")
    return figure


def figure_both_ways(clouds: Clouds) -> Figure:
    """Show the masters of both ways, and by what they differ from the truth."""
    figure = new_figure(13.0, 3.4)
    panels = figure.subplots(1, 2 * len(WAYS))
    masters, errors = panels[: len(WAYS)], panels[len(WAYS) :]
    limits = screen_limits(clouds.results["measured"].image)
    middle = np.median(clouds.results["measured"].image)
    for axes, way in zip(masters, WAYS, strict=True):
        image = clouds.results[way].image
        show_picture(axes, stretch(image - np.median(image) + middle, limits), f"Master, {way}")
    for axes, way in zip(errors, WAYS, strict=True):
        title = f"Error, {way}: stars {100 * clouds.star_bias(way):+.1f} %"
        shown = show_picture(axes, clouds.error(way), title, cmap="cividis", vmin=-2, vmax=2)
        axes.set_facecolor(PANEL)
    colour_bar(figure, shown, "master minus truth\n(sigma of one frame)", extend="both")
    write_title(figure, "The same frames integrated both ways, with the same stretch")
    return figure
