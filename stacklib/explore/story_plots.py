"""Figures of a pixel's story, of rejection maps and of the mask of a frame."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stacklib.explore.explain import BY_NEIGHBOURS, PixelStory, Round, explain
from stacklib.explore.masks import clear_hit, frame_mask, frame_verdicts
from stacklib.figures.look import (
    EDGE,
    FAINT,
    GROUND,
    INK,
    NEIGHBOURS,
    PANEL,
    colour_bar,
    map_top,
    show_picture,
    write_title,
)
from stacklib.figures.look import HIGH as HIGH_COLOUR
from stacklib.figures.look import LOW as LOW_COLOUR
from stacklib.figures.screen import binned, stretch
from stacklib.integration.result import Integration
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA
from stacklib.spatial.means import MEANS
from stacklib.utils.labels import channel_names

__all__ = [
    "MASK_CLASSES",
    "SYMBOLS",
    "VIEWS",
    "StoryAxes",
    "figure_fractions",
    "figure_inspection",
    "figure_map",
    "figure_mask",
    "figure_story",
    "legend_words",
    "picture_of",
]

#: Pictures of a result.
VIEWS = ("image", "rejected high", "rejected low", "coverage")
#: Marker, color, size and words of each verdict.
LOOKS = {
    KEPT: ("o", INK, 5.5, "kept"),
    LOW: ("v", LOW_COLOUR, 8.0, "rejected low"),
    HIGH: ("^", HIGH_COLOUR, 8.0, "rejected high"),
    NO_DATA: ("x", FAINT, 7.0, "no data"),
}
#: Marker, and the same as a letter, of what fell to each means of spatial rejection: one color, many shapes.
SHAPES = {
    "own": ("X", "✖"),
    "line": ("D", "◆"),
    "footprint": ("h", "⬢"),
    "large_scale": ("s", "■"),
    "colour": ("*", "★"),
}
LOOKS |= {
    BY_NEIGHBOURS + k: (
        SHAPES[means.name][0],
        NEIGHBOURS,
        9.5 if means.name == "colour" else 7.0,
        means.words,
    )
    for k, means in enumerate(MEANS)
}
#: Symbol of each fate in a text.
SYMBOLS = {KEPT: "●", LOW: "▼", HIGH: "▲", NO_DATA: "✕"}
SYMBOLS |= {BY_NEIGHBOURS + k: SHAPES[means.name][1] for k, means in enumerate(MEANS)}
#: Colors of a mask: no data, kept, rejected low, found by its neighbors, rejected high. Except for the first
#: two, each is clearly lighter than the one before, so that they differ in gray as well.
MASK_COLOURS = ListedColormap(["#343b46", "#080a0d", "#3a87c8", NEIGHBOURS, "#ffe08a"])
MASK_WORDS = (
    "no data",
    "kept",
    "rejected low (too dark)",
    "for its neighbors (trail ...)",
    "rejected high (too bright)",
)
#: The classes of a mask, see `stacklib.explore.masks.frame_mask`: value, color, word.
MASK_CLASSES = tuple(
    zip(range(-1, 4), MASK_COLOURS.colors, ("no data", "kept", "low", "neighbors", "high"), strict=True)
)
#: Samples farther out than this many times the span of the limits are drawn at the edge.
FAR = 2.0
#: Samples within this many median absolute deviations are never drawn at the edge.
NEAR = 8.0
#: Width of figures in inches, and of titles in characters.
WIDTH, TITLE = 9.8, 100


class StoryAxes:
    """Plots of the samples of a pixel, in frame order and sorted. `show` updates them.

    The axes have a common y axis. `means` are the names of the means of spatial rejection to show, see
    `PixelStory.means`. `bare` leaves out heading and legend, as text takes longest to draw.
    `heading` gives pixel, round and number of rejected samples. `moving` are the artists that `show` changes,
    in the order of drawing.
    """

    def __init__(
        self, figure: Figure, left: Axes, right: Axes, bare: bool = False, means: Sequence[str] = ()
    ) -> None:
        self.figure, self.axes, self.heading = figure, (left, right), ""
        wanted = [BY_NEIGHBOURS + k for k, each in enumerate(MEANS) if each.name in means]
        self.fates = [KEPT, LOW, HIGH, *wanted, NO_DATA]
        self.points: list[dict[int, Line2D]] = []
        self.limits: list[list[Line2D]] = []
        self.earlier: list[Line2D] = []
        for axes in self.axes:
            axes.set_facecolor(PANEL)
            axes.tick_params(colors=INK, labelsize=9, length=3)
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
            for spine in axes.spines.values():
                spine.set_color(EDGE)
            self.earlier += axes.plot([], [], color=FAINT, lw=0.8, ls="--", alpha=0.45)
            styles = ((INK, "-", 1.0), (LOW_COLOUR, "--", 1.6), (HIGH_COLOUR, ":", 2.0))
            self.limits.append([axes.plot([], [], color=c, ls=s, lw=w)[0] for c, s, w in styles])
            chosen = {fate: LOOKS[fate] for fate in self.fates}
            looks = {fate: {"marker": m, "color": c, "ms": ms} for fate, (m, c, ms, _) in chosen.items()}
            self.points.append({fate: axes.plot([], [], ls="", **look)[0] for fate, look in looks.items()})
            self.points[-1][NO_DATA].set_markeredgewidth(1.6)
        left.set_ylabel("normalized sample\n(frame units)", color=INK, fontsize=9)
        left.set_xlabel("frame number", color=INK)
        right.set_xlabel("rank, darkest first", color=INK)
        right.tick_params(left=False, labelleft=False)
        self.texts = [
            right.text(1.01, 0, "", color=c, fontsize=8.5, va="center", transform=right.get_yaxis_transform())
            for c in (INK, LOW_COLOUR, HIGH_COLOUR)
        ]
        self.beyond = [
            left.text(0, 0, "", color=colour, fontsize=8.5, va="center")
            for colour in (LOW_COLOUR, HIGH_COLOUR)
        ]
        self.title = None if bare else left.set_title("", color=INK, fontsize=10, loc="left")
        if not bare:
            self._add_legend()
        left.yaxis.set_major_locator(MaxNLocator(5))
        self.moving = [left.yaxis, *self.earlier, *self.limits[0], *self.limits[1]]
        self.moving += [line for points in self.points for line in points.values()]
        self.moving += [*self.texts, *self.beyond] + ([] if bare else [self.title])

    def _add_legend(self) -> None:
        handles = [self.points[0][fate] for fate in self.fates] + [self.earlier[0]]
        names = [LOOKS[fate][-1] for fate in self.fates] + ["limits of earlier rounds"]
        options = {"ncols": 5, "frameon": False, "labelcolor": INK, "fontsize": 9}
        self.figure.legend(handles, names, loc="outside lower center", **options)

    def show(self, story: PixelStory, number: int | None = None) -> None:
        """Draw a story after round `number`, counted from 1. Default is the last round."""
        number = len(story.rounds) if number is None else number
        told, before = story.rounds[number - 1], story.rounds[: number - 1]
        low, high = _span(story, told)
        edge = 0.045 * (high - low)
        values = np.clip(story.compared.astype(float), low + edge, high - edge)
        values[story.verdict == NO_DATA] = low + edge
        order = np.argsort(np.where(story.verdict == NO_DATA, np.inf, story.compared), kind="stable")
        rank = np.empty(order.size)
        rank[order] = np.arange(1, order.size + 1)
        fates = story.fates(number)
        for axes, places, points, lines, faint in zip(
            self.axes, (np.array(story.numbers), rank), self.points, self.limits, self.earlier, strict=True
        ):
            first, last = places.min() - 0.7, places.max() + 0.7
            for fate, line in points.items():
                chosen = fates == fate
                line.set_data(places[chosen], values[chosen])
            for line, value in zip(lines, (told.centre, told.lower, told.upper), strict=True):
                line.set_data([first, last], [value, value])
            if told.limits is not None:
                # A piece for each frame, at its place.
                ends = (places[:, np.newaxis] + (-0.45, 0.45, np.nan)).ravel()
                for line, values_of in zip(lines[1:], told.limits, strict=True):
                    line.set_data(ends, np.repeat(values_of, 3))
            edges = [v for r in before for v in (r.lower, r.upper) if np.isfinite(v)]
            faint.set_data([first, last, np.nan] * len(edges), np.repeat(edges, 3))
            axes.set_xlim(first, last)
            axes.set_ylim(low, high)
        self._write(story, number, low, high)

    def _write(self, story: PixelStory, number: int, low: float, high: float) -> None:
        told = story.rounds[number - 1]
        places = _apart([told.centre, told.lower, told.upper], (high - low) * 0.085)
        words = ("center", "low limit", "high limit")
        if told.limits is not None:
            words = ("center", "low, quietest", "high, quietest")
        for text, word, value, place in zip(
            self.texts, words, (told.centre, told.lower, told.upper), places, strict=True
        ):
            seen = np.isfinite(value) and low <= value <= high
            text.set_text(f"{word}\n{value:.5g}" if seen else "")
            text.set_y(place if seen else low)
        # Samples beyond the edge are drawn at the edge: label them with their value.
        is_data = story.verdict != NO_DATA
        for text, beyond, edge, sign in (
            (self.beyond[0], is_data & (story.compared < low), low, 1),
            (self.beyond[1], is_data & (story.compared > high), high, -1),
        ):
            where = np.flatnonzero(beyond)
            text.set_text("")
            if where.size:
                extreme = int(where[np.argmin(sign * story.compared[where])])
                more = f" and {where.size - 1} more" if where.size > 1 else ""
                place, middle = story.numbers[extreme], float(np.mean(self.axes[0].get_xlim()))
                text.set_ha("right" if place > middle else "left")
                gap = 0.025 * np.diff(self.axes[0].get_xlim())[0] * (-1 if place > middle else 1)
                text.set_text(f"off the scale: {story.compared[extreme]:.4g}{more}")
                text.set_position((place + gap, edge + sign * 0.045 * (high - low)))
        verdict = told.verdict
        counted = f"{np.sum(verdict == LOW)} low, {np.sum(verdict == HIGH)} high rejected so far"
        if story.fallen:
            counted += f", {story.fallen} for their neighbors"
        self.heading = (
            f"{story.place}. {story.spec.step.capitalize()} {number} of {len(story.rounds)}: {counted}"
        )
        if self.title is not None:
            self.title.set_text(self.heading)


def legend_words(means: Sequence[str] = ()) -> str:
    """Return the legend of `StoryAxes` as a line of text."""
    wanted = [BY_NEIGHBOURS + k for k, each in enumerate(MEANS) if each.name in means]
    words = (f"{SYMBOLS[fate]} {LOOKS[fate][-1]}" for fate in (KEPT, LOW, HIGH, *wanted, NO_DATA))
    return f"{', '.join(words)}; dashed gray: limits of earlier rounds"


def _span(story: PixelStory, told: Round) -> tuple[float, float]:
    """Return the range of the y axis: kept samples and limits, but not far outliers."""
    is_data = story.verdict != NO_DATA
    known = story.compared[is_data].astype(float)
    if not known.size:
        return 0.0, 1.0
    inner = [*story.compared[story.verdict == KEPT].astype(float)]
    edges = (told.lower, told.upper) if told.limits is None else told.limits[:, is_data].ravel()
    inner += [float(value) for value in edges if np.isfinite(value)]
    # Runaway clipping must not push good samples off the scale.
    apart = np.abs(known - np.median(known))
    inner += [*known[apart <= NEAR * np.median(apart)]]
    low, high = min(inner, default=known.min()), max(inner, default=known.max())
    span = (high - low) or abs(high) or 1.0
    near = known[(known > low - FAR * span) & (known < high + FAR * span)]
    low, high = min(low, *near) if near.size else low, max(high, *near) if near.size else high
    pad = 0.07 * ((high - low) or span)
    # Room for markers at the edge.
    return low - pad * (1 + (known.min() < low)), high + pad * (1 + (known.max() > high))


def _apart(values: list[float], gap: float) -> list[float]:
    """Move label positions apart by at least the gap. NaN stays."""
    places = list(values)
    order = [i for i in np.argsort(values) if np.isfinite(values[i])]
    for lower, upper in pairwise(order):
        places[upper] = max(places[upper], places[lower] + 1.6 * gap)
    return places


def figure_story(story: PixelStory, number: int | None = None) -> Figure:
    """Plot the samples of a pixel, in frame order and sorted, with the limits of a round.

    Parameters
    ----------
    story : PixelStory
        Result of `stacklib.explain`.
    number : int, optional
        The round, counted from 1. Default is the last one.

    Returns
    -------
    Figure
    """
    figure = _new(WIDTH, 3.6)
    StoryAxes(figure, *figure.subplots(1, 2, sharey=True), means=story.means).show(story, number)
    return figure


def _new(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=100, facecolor=GROUND, layout="constrained")


def picture_of(result: Integration, view: str, channel: int = 0) -> tuple[np.ndarray, int, dict]:
    """Return a picture for ``imshow``, its binning factor and its color options."""
    if view == "image":
        image, side = binned(result.image)
        return stretch(image), side, {"cmap": "gray", "vmin": 0, "vmax": 1}
    if view not in VIEWS:
        raise ValueError(f"view: got {view!r}, expected one of {', '.join(VIEWS)}")
    name = {"rejected high": "rejection_high", "rejected low": "rejection_low"}.get(view, "coverage")
    plane, side = binned(getattr(result, name)[channel : channel + 1])
    if view == "coverage":
        return 100 * plane[0], side, {"cmap": "viridis", "vmin": 0, "vmax": 100}
    return 100 * plane[0], side, {"cmap": "inferno", "norm": PowerNorm(0.5, 0, map_top(result))}


def _of_channel(result: Integration, channel: int) -> str:
    name = channel_names(len(result.image))[channel]
    return f", {name}" * bool(name)


def _draw(axes: Axes, result: Integration, view: str, channel: int, title: str = ""):
    picture, side, look = picture_of(result, view, channel)
    words = title or (view.capitalize() + ("" if view == "image" else _of_channel(result, channel)))
    shown = show_picture(axes, picture, words, side, corner=result.region[:2], **look)
    return shown


def figure_map(result: Integration, view: str = "rejected high", channel: int = 0) -> Figure:
    """Show one picture of a result, see `VIEWS`, in the width of a notebook."""
    height, width = result.image.shape[1:]
    figure = _new(WIDTH, min(12.0, 0.8 * WIDTH * height / width + 0.8))
    axes = figure.subplots()
    shown = _draw(axes, result, view, channel)
    if view != "image":
        colour_bar(figure, shown, "% of the frames", aspect=30)
    return figure


def figure_mask(result: Integration, number: int, channel: int = 0) -> Figure:
    """Show where a frame was rejected. `number` counts all frames from 1, as in the tables."""
    p = result.preparation
    if number - 1 not in p.used:
        raise ValueError(f"frame: got {number}, expected the number of an integrated frame")
    verdict, step = frame_verdicts(result, channel)
    mask = frame_mask(verdict[int(np.searchsorted(p.used, number - 1))])
    height, width = mask.shape
    figure = _new(WIDTH, min(12.0, 0.8 * WIDTH * height / width + 1.1))
    axes = figure.subplots()
    words = f"Frame {number}, {p.measurements.names[number - 1]}{_of_channel(result, channel)}"
    show_picture(axes, mask, words, step, corner=result.region[:2], cmap=MASK_COLOURS, vmin=-1.5, vmax=3.5)
    known = max(1, int(np.sum(mask >= 0)))
    names = {1: "rejected low", 3: "rejected high"}
    if result.masks is not None:
        names |= {2: "for their neighbors"}
    words = ", ".join(f"{100 * np.sum(mask == value) / known:.2f} % {name}" for value, name in names.items())
    note = "" if step == 1 else f" (every {step}th row and column)"
    write_title(figure, f"Where frame {number} was rejected: {words}{note}")
    _mask_legend(figure)
    return figure


def _mask_legend(figure: Figure) -> None:
    names = MASK_WORDS
    handles = [Line2D([], [], ls="", marker="s", mec=FAINT, mfc=c, ms=9) for c in MASK_COLOURS.colors]
    options = {"loc": "outside lower center", "ncols": 5, "frameon": False, "labelcolor": INK, "fontsize": 9}
    figure.legend(handles, names, **options)


def figure_fractions(result: Integration) -> Figure:
    """Plot how many pixels lost how many samples, low and high. Pixels covered by all frames count."""
    count = result.preparation.count
    figure = _new(WIDTH, 3.4)
    axes = figure.subplots()
    axes.set_facecolor(PANEL)
    edges = np.arange(min(count, 60) + 2) - 0.5
    per_bin = count / min(count, 60)
    full = result.coverage >= result.coverage.max()
    looks = (("rejection_low", LOW_COLOUR, "v", -0.12), ("rejection_high", HIGH_COLOUR, "^", 0.12))
    for name, colour, marker, shift in looks:
        lost = np.rint(getattr(result, name)[full] * count / per_bin)
        pixels = np.histogram(lost, edges)[0]
        where = np.flatnonzero(pixels)
        share = 100 * pixels[where] / max(1, lost.size)
        label = f"rejected {name.split('_')[1]}"
        axes.vlines((where + shift) * per_bin, 1e-6, share, color=colour, lw=1.5, alpha=0.7)
        axes.plot((where + shift) * per_bin, share, marker, color=colour, ms=8, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(50 / max(1, lost.size), 200)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.set_xlabel(f"rejected samples at a pixel (of {count})", color=INK)
    axes.set_ylabel("pixels (%)", color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=EDGE, lw=0.7)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    write_title(figure, "Rejected samples per pixel, where all frames have data")
    return figure


def figure_inspection(
    result: Integration, story: PixelStory | None = None, number: int | None = None
) -> Figure:
    """Show image and map of high rejections with a pixel marked, and the samples of the pixel.

    Parameters
    ----------
    result : Integration
        The result.
    story : PixelStory, optional
        The pixel. Default is a cosmic ray, see `stacklib.explore.masks.clear_hit`.
    number : int, optional
        The round, counted from 1. Default is the last one.

    Returns
    -------
    Figure
    """
    if story is None:
        x, y, channel = clear_hit(result)
        story = explain(result, x=x, y=y, channel=channel)
    height, width = result.image.shape[1:]
    figure = _new(WIDTH, min(7.0, 0.46 * WIDTH * height / width) + 4.2)
    pictures, dots = figure.subplots(2, 2, height_ratios=(min(7.0, 0.46 * WIDTH * height / width) + 0.4, 3.2))
    for axes, view in zip(pictures, ("image", "rejected high"), strict=True):
        _draw(axes, result, view, story.channel)
        axes.plot(story.x, story.y, "s", ms=13, mfc="none", mec="black", mew=3.5)
        axes.plot(story.x, story.y, "s", ms=13, mfc="none", mec="#ffffff", mew=1.6)
    dots[1].sharey(dots[0])
    StoryAxes(figure, *dots, means=story.means).show(story, number)
    write_title(figure, textwrap.fill(f"Pixel {story.place}: {story.summary}", TITLE))
    return figure
