"""Figures of the frames that are to blame for what is seen in a box."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from stacklib.explore.boxes.blame import Blame
from stacklib.figures.look import (
    EDGE,
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

__all__ = ["BlameAxes", "difference_top", "figure_blame"]

#: The scale of the difference ends at the largest change, but not below this many times its median.
LEAST_TOP = 8.0
#: The samples of a frame without the outermost ones, in percent.
INNER = (5.0, 95.0)


class BlameAxes:
    """A plot of the samples of all frames in a box, relative to the average of the other frames.

    A bar spans the kept samples but for the outermost 5 percent on either side, a dot is their mean, and
    triangles are the outermost samples, filled if they were kept. `moving` is what changes with the frame
    that is marked.
    """

    def __init__(self, axes: Axes, found: Blame) -> None:
        self.axes = axes
        dress_axes(axes, labelsize=9, length=3)
        numbers = [int(i) + 1 for i in found.result.preparation.used]
        bars, means, kept, rejected = [], [], [], []
        for k, number in enumerate(numbers):
            apart, chosen = found.apart[k], found.kept[k]
            lost = apart[~chosen & np.isfinite(apart)]
            inside = apart[chosen & np.isfinite(apart)]
            if inside.size:
                low, high = np.percentile(inside, INNER)
                bars.append([(number, low), (number, high)])
                means.append((number, float(inside.mean())))
                kept += [(number, float(inside.min())), (number, float(inside.max()))]
            if lost.size:
                rejected += [(number, value) for value in {float(lost.min()), float(lost.max())}]
        axes.add_collection(LineCollection(bars, colors=FAINT, linewidths=5, alpha=0.7))
        looks: tuple[tuple[list, dict[str, Any]], ...] = (
            (means, {"marker": "o", "ms": 5, "color": INK, "label": "mean of the kept samples"}),
            (kept, {"marker": "_", "ms": 7, "mew": 1.6, "color": LOW, "label": "outermost kept"}),
            (rejected, {"marker": "x", "ms": 5, "color": HIGH, "label": "outermost rejected"}),
        )
        for points, look in looks:
            axes.plot(*np.array(points or np.empty((0, 2))).T, ls="", **look)
        # Far outliers that were rejected would leave no room for the others.
        seen = np.array([value for _, value in (*means, *kept)] or [0.0])
        span = max(np.ptp(seen), 1e-9)
        low, high = seen.min() - 0.4 * span, seen.max() + 0.4 * span
        axes.set(xlim=(min(numbers) - 0.7, max(numbers) + 0.7), ylim=(low, high))
        axes.axhline(0, color=EDGE, lw=1, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("frame number", color=INK, fontsize=9)
        axes.set_ylabel("sample minus the\nothers (frame units)", color=INK, fontsize=9)
        self.marked: Line2D = axes.axvline(numbers[0], color=HIGH, lw=9, alpha=0.3, zorder=0)
        self.moving = [self.marked]

    def mark(self, number: int) -> None:
        """Mark a frame."""
        self.marked.set_xdata([number, number])


def difference_top(difference: np.ndarray) -> float:
    """Return the end of the scale of a difference."""
    known = np.abs(difference[np.isfinite(difference)])
    return max(float(known.max()), LEAST_TOP * float(np.median(known)), 1e-9) if known.size else 1e-9


def figure_blame(found: Blame, number: int = 0) -> Figure:
    """Draw a box, the same without a frame, the difference, and the samples of all frames."""
    number = number or found.frames[0].number
    share = next((each for each in found.frames if each.number == number), None)
    present, without = found.present, found.without(number).original
    difference = (present - without).mean(axis=0)
    _, _, width, height = found.box
    tall = min(6.0, 3.0 * height / width + 0.6)
    figure = new_figure(9.8, tall + 3.6)
    places = figure.subplot_mosaic([[0, 1, 2], [3, 3, 3]], height_ratios=(tall, 2.8))
    limits, corner = screen_limits(present), found.box[:2]
    title = f"Without frame {number} ({share.label if share else 'left out'})"
    for k, (image, words) in enumerate(((present, "Box"), (without, title))):
        show_picture(places[k], np.clip(stretch(image, limits), 0, 1), words, corner=corner)
    top = difference_top(difference)
    look: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    mapped = show_picture(places[2], difference, "What the frame adds", corner=corner, **look)
    colour_bar(figure, mapped, "frame units", places[2])
    samples = BlameAxes(places[3], found)
    samples.mark(number)
    samples.axes.legend(frameon=False, labelcolor=INK, fontsize=8.5, ncols=3, loc="upper left")
    said = f"{100 * share.share:.0f} % of the blame. {share.reason}" if share else "left out"
    write_title(figure, f"Frame {number}: {said}")
    return figure
