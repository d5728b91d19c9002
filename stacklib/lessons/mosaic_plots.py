"""Figures of the mosaics: stars by each way, their widths, the noise, and what seeing changes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stacklib.figures.look import (
    FAINT,
    HIGH,
    INK,
    LOW,
    NEIGHBOURS,
    colour_bar,
    dress,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.screen import screen_limits, stretch
from stacklib.lessons.mosaic import WAYS, Mosaics, Seeing

__all__ = ["figure_correlation", "figure_seeing", "figure_stars", "figure_widths"]

#: Side of the close-up in pixels of the frames.
SIDE = 36
#: Color, marker and line of each way.
STYLES = {
    "bilinear": (HIGH, "s", "-"),
    "Malvar": ("#cc79a7", "D", "--"),
    "drizzled": (LOW, "o", "-"),
    "drizzled, scale 2": (NEIGHBOURS, "^", ":"),
}
COLORS = ("red", "green", "blue")


def figure_stars(found: Mosaics) -> Figure:
    """Show the same stars in the truth and in the image of each way, with one stretch."""
    figure = new_figure(14.0, 3.7)
    scene, star = found.night.scene, int(found.stars[0])
    # The sky that was taken off is given back: a stretch goes by its noise.
    sky = found.night.sky[0].mean()
    limits = screen_limits((found.images["bilinear"] + sky).astype(np.float32))
    pictures = [("truth", found.truth("drizzled"), 1.0)]
    pictures += [(way, found.images[way], WAYS[way]) for way in WAYS]
    corner = [
        int(np.clip(round(place[star]) - SIDE // 2, 0, size - SIDE))
        for place, size in ((scene.x, scene.extended.shape[2]), (scene.y, scene.extended.shape[1]))
    ]
    for axes, (name, image, scale) in zip(figure.subplots(1, len(pictures)), pictures, strict=True):
        columns, rows = (slice(round(scale * at), round(scale * (at + SIDE))) for at in corner)
        part = stretch((image[:, rows, columns] + sky).astype(np.float32), limits)
        show_picture(axes, part, name, 1 / scale, tuple(corner), interpolation="nearest")
    write_title(figure, "The same stars, made from the same mosaics, beside the truth")
    return figure


def figure_widths(found: Mosaics) -> Figure:
    """Show the FWHM of the stars in each color by each way, beside that on the pixels of the frames."""
    figure = new_figure(11.0, 3.9)
    axes = figure.subplots()
    place = np.arange(len(COLORS))
    for number, way in enumerate(WAYS):
        color, _, _ = STYLES[way]
        widths = [found.fwhm(way, channel) for channel in range(3)]
        bars = axes.bar(place + 0.2 * (number - 1.5), widths, 0.18, color=color, label=way)
        axes.bar_label(bars, fmt="%.2f", color=INK, fontsize=8, padding=2)
    true = found.true_fwhm(1)
    axes.axhline(true, color=FAINT, ls="--", lw=1.5, label="truth, on pixels\nof the frames")
    axes.set_xticks(place, COLORS)
    axes.set_ylim(0, None)
    dress(axes, "FWHM of the stars (pixels)")
    wide, narrow = found.fwhm("bilinear", 0), found.fwhm("drizzled", 0)
    write_title(
        figure,
        f"Red stars of {wide:.2f} px with bilinear debayering are {narrow:.2f} px wide drizzled, "
        f"{1 - narrow / wide:.0%} narrower; in truth {true:.2f}",
    )
    return figure


def figure_correlation(found: Mosaics) -> Figure:
    """Show how the noise of a pixel goes with that of its neighbors, for each way, in green."""
    figure = new_figure(13.0, 3.9)
    for axes, way in zip(figure.subplots(1, len(WAYS)), WAYS, strict=True):
        title = f"{way}: {found.neighbors(way):.2f} beside each other"
        shown = show_picture(
            axes, found.correlation(way), title, corner=(-4, -4), cmap="cividis", vmin=0, vmax=1
        )
        axes.set_xlabel("offset (pixels of the image)", color=FAINT, fontsize=8)
        axes.set_ylabel("", color=FAINT)
    colour_bar(figure, shown, "correlation of the noise")
    one, other = ("bilinear", "drizzled")
    write_title(
        figure,
        f"Single pixels look noisier drizzled ({found.noise(other) / found.noise(one):.2f} times), squares "
        f"of 4 x 4 pixels hardly ({found.large_noise(other) / found.large_noise(one):.2f} times)",
    )
    return figure


def figure_seeing(tried: Seeing) -> Figure:
    """Show how wide each way makes stars of several widths, and how much of their light has a wrong color."""
    figure = new_figure(14.0, 4.2)
    red, green, wrong = figure.subplots(1, 3)
    for axes, channel in ((red, 0), (green, 1)):
        for way in WAYS:
            _line(axes, way, tried.fwhm, 100 * tried.wider(way)[:, channel])
        axes.axhline(0, color=FAINT, lw=1)
        axes.set_title(f"FWHM in {COLORS[channel]}", color=INK, fontsize=10, loc="left")
        dress(axes, "wider than in truth (%)")
    for way in WAYS:
        _line(wrong, way, tried.fwhm, 100 * tried.false_color[way])
    wrong.set_title("Light with a wrong color", color=INK, fontsize=10, loc="left")
    wrong.set_ylim(0, None)
    dress(wrong, "of the light of the stars (%)")
    for axes in (red, green, wrong):
        axes.set_xlabel("FWHM of the stars (pixels)", color=INK)
    red.get_legend().remove()
    green.get_legend().remove()
    write_title(figure, _heading(tried))
    return figure


def _line(axes: Axes, way: str, x: np.ndarray, y: np.ndarray) -> None:
    color, marker, style = STYLES[way]
    axes.plot(x, y, color=color, marker=marker, ls=style, lw=1.8, ms=6, label=way)


def _heading(tried: Seeing) -> str:
    first, last = (100 * (tried.wider("bilinear")[k, 0] - tried.wider("drizzled")[k, 0]) for k in (0, -1))
    shares = [f"{100 * tried.false_color[way][1]:.0f} % {way}" for way in ("bilinear", "Malvar", "drizzled")]
    return (
        f"What drizzling saves in width falls from {first:.0f} points at {tried.fwhm[0]:.1f} px to {last:.0f}"
        f" at {tried.fwhm[-1]:.1f} px (red). Wrong color at {tried.fwhm[1]:.1f} px: {', '.join(shares)}"
    )
