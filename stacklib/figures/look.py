"""The common look of all figures: colors, pictures with their scales, axes and titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from stacklib.figures.screen import sampling
from stacklib.integration.result import Integration
from stacklib.utils.texts import printable

__all__ = [
    "BAR",
    "EDGE",
    "FAINT",
    "GROUND",
    "HIGH",
    "INK",
    "LOW",
    "NEIGHBOURS",
    "PANEL",
    "colour_bar",
    "dress",
    "dress_axes",
    "dress_bar",
    "map_top",
    "new_figure",
    "show_picture",
    "write_title",
]

# Figures have their own background, so that they look alike in dark and light notebooks.
GROUND, PANEL, EDGE, INK, FAINT = "#12161d", "#181e27", "#333c49", "#e3e8f0", "#97a1b1"
# Two colors that differ for every kind of color vision (Okabe and Ito), and one for bars.
LOW, HIGH, BAR = "#56b4e9", "#f0a63a", "#5d7fa3"
# What fell to its neighborhood, such as a trail; its markers have shapes of their own as well.
NEIGHBOURS = "#4fc79f"


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure with automatic layout; the size is in inches."""
    return Figure(figsize=(width, height), dpi=110, facecolor=GROUND, layout="constrained")


def write_title(figure: Figure, sentence: str) -> None:
    """Write one sentence above a figure that says what it shows."""
    figure.suptitle(
        printable(sentence, keep="\n"), color=INK, fontsize=12.5, x=0.01, ha="left", parse_math=False
    )


def dress(axes: Axes, label: str) -> None:
    """Apply the common look to a plot with a label of the y axis and a legend at the right."""
    dress_axes(axes, labelsize=9, length=3)
    axes.set_ylabel(label, color=INK)
    axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, labelcolor=INK, fontsize=9)


def dress_axes(axes: Axes, grid: bool = True, labelsize: float = 8, length: float = 2) -> None:
    """Apply the common look to axes: background, frame, ticks and horizontal grid lines."""
    axes.set_facecolor(PANEL)
    axes.tick_params(colors=INK, labelsize=labelsize, length=length)
    for spine in axes.spines.values():
        spine.set_color(EDGE)
    if grid:
        axes.grid(axis="y", color=EDGE, lw=0.7)
        axes.set_axisbelow(True)


def show_picture(
    axes: Axes,
    picture: np.ndarray,
    title: str,
    side: float = 1,
    corner: tuple[float, float] = (0, 0),
    **options: Any,
) -> AxesImage:
    """Show a picture with row 0 at the top; the axes count pixels of the image.

    The picture has the shape (height, width) or (height, width, 3), with colors from 0 to 1. Each of its
    pixels covers `side` pixels of the image each way; `corner` is the (left, top) pixel of the image at its
    top left corner. Options go to ``imshow``.
    """
    if picture.ndim == 3:
        # Means of bins may be a last digit above 1, of which matplotlib would warn.
        picture = np.clip(picture, 0, 1)
    height, width = picture.shape[:2]
    x, y = corner[0] - 0.5, corner[1] - 0.5
    options = {"vmin": 0, "vmax": 1, "cmap": "gray"} | options if "norm" not in options else options
    extent = (x, x + width * side, y + height * side, y)
    shown = axes.imshow(picture, origin="upper", extent=extent, **options)
    # File names may hold dollar signs, and characters that no font has.
    axes.set_title(printable(title, keep="\n"), color=INK, fontsize=10, loc="left", parse_math=False)
    axes.tick_params(colors=FAINT, labelsize=8, length=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel("x (pixels)", color=FAINT, fontsize=8)
    axes.set_ylabel("y (pixels)", color=FAINT, fontsize=8)
    for spine in axes.spines.values():
        spine.set_color(EDGE)
    return shown


def colour_bar(
    figure: Figure,
    shown: ScalarMappable,
    label: str,
    axes: Axes | Sequence[Axes] | None = None,
    **options: Any,
) -> Colorbar:
    """Add a color bar beside some axes, by default beside all axes of the figure."""
    options = {"pad": 0.012, "aspect": 22} | options
    bar = figure.colorbar(shown, ax=figure.axes if axes is None else axes, **options)
    dress_bar(bar, label)
    return bar


def dress_bar(bar: Colorbar, label: str) -> None:
    """Apply the common look to a color bar."""
    bar.set_label(label, color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8, length=2)
    bar.outline.set_edgecolor(EDGE)


def map_top(result: Integration) -> float:
    """Return the end of the color scale of rejection maps in percent of the frames.

    A single rejected frame must be visible; the border may be beyond the scale.
    """
    step = sampling(result.coverage)
    coverage, *maps = (
        m[:, ::step, ::step] for m in (result.coverage, result.rejection_low, result.rejection_high)
    )
    inside = coverage.min(axis=0) == 1
    usual = [100 * float(np.percentile(m[:, inside], 99.9)) for m in maps] if inside.any() else []
    return min(100.0, max(400.0 / result.preparation.count, *usual))
