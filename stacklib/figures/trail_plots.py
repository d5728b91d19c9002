"""The trails found in the frames of a result, each drawn over what its frame has more than the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from astropy.table import Row, Table
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stacklib.figures.look import GROUND, INK, NEIGHBOURS, PANEL, new_figure, show_picture, write_title
from stacklib.integration.result import Integration
from stacklib.utils.labels import counted, shortened

__all__ = ["figure_trails", "residual_picture", "trails_in_words"]

#: Pictures in a row, and columns of pixels in each of them.
ACROSS, WIDE = 3, 320
#: Frames that are drawn at most, unless others are asked for.
MOST = 12
#: Black and white of the pictures, in their own sigma.
BLACK, WHITE = -2.5, 6.0
#: Inches beside and below a picture for its labels, and half a label of a trail in points.
LABELS, HALF_LABEL = 0.7, (36.0, 7.0)
#: Trails are marked by two lines, this many pixels of the picture beyond their width.
APART = 2.0
#: Rows of a frame that are read at once.
STRIP = 512
#: Characters of a file name above a picture.
NAME = 30


def figure_trails(result: Integration, frames: Sequence[int] | None = None, channel: int = -1) -> Figure:
    """Draw the trails found, frame by frame, to check them.

    Each picture shows what a frame has more than the result, smoothed by binning. Two lines enclose each
    trail: solid ones if its samples were rejected, dashed ones if not. At its middle are its number and its
    brightness in sigma of a sample. A line that is no trail can be named in the parameter `ignore_trails`,
    as in the column ``name`` of `Integration.trails`, such as ``light_007.xisf:12,30-300,150``.

    Parameters
    ----------
    result : Integration
        A result whose recipe looked for trails; its frames are read again.
    frames : sequence of int, optional
        Frames to draw, counted from 1 as in the tables. Default are those with trails, and of more than 12
        those with the most significant ones.
    channel : int
        Channel of the pictures; -1 for the mean of all.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If a frame was not integrated.
    """
    trails, p = result.trails, result.preparation
    names = list(p.measurements.names)
    wanted = _worth_drawing(trails, names) if frames is None else [int(number) for number in frames]
    for number in wanted:
        if number - 1 not in p.used:
            raise ValueError(f"frames: got {number}, expected the number of an integrated frame")
    if not wanted:
        figure = new_figure(9.8, 0.9)
        write_title(figure, trails_in_words(result))
        return figure
    left, top, width, height = result.region
    rows = -(-len(wanted) // ACROSS)
    across = min(len(wanted), ACROSS)
    inches = 13.0 / ACROSS
    tall = min(max((inches - LABELS) * height / width, 1.2), 9.0) + LABELS
    figure = new_figure(inches * max(across, 2), rows * tall + 0.6)
    panels = figure.subplots(rows, max(across, 2), squeeze=False).flat
    short = dict(zip(wanted, shortened([names[number - 1] for number in wanted], NAME), strict=True))
    for axes, number in zip(panels, wanted, strict=False):
        picture, side = residual_picture(result, number, channel)
        title = f"Frame {number}: {short[number]}"
        show_picture(axes, picture, title, side, corner=(left, top), vmin=BLACK, vmax=WHITE)
        for trail in trails[trails["file"] == names[number - 1]]:
            _mark(axes, trail, APART * side, (left, top, width, height), 72 * (inches - LABELS) / width)
        axes.set_facecolor(PANEL)
        axes.set_xlim(left - 0.5, left + width - 0.5)
        axes.set_ylim(top + height - 0.5, top - 0.5)
    for axes in list(figure.axes)[len(wanted) :]:
        axes.remove()
    write_title(figure, _heading(result, wanted))
    return figure


def _worth_drawing(trails: Table, names: list[str]) -> list[int]:
    """Return the numbers of the frames with trails, of too many those with the most significant ones."""
    best: dict[str, float] = {}
    for trail in trails:
        best[trail["file"]] = max(best.get(trail["file"], 0.0), float(trail["significance"]))
    chosen = sorted(best, key=best.__getitem__, reverse=True)[:MOST]
    return sorted(names.index(name) + 1 for name in chosen)


def trails_in_words(result: Integration) -> str:
    """Say how many trails were found in how many frames, and how one of them is ignored."""
    count, trails = result.preparation.count, result.trails
    if "line" not in result.masked:
        return "Trails were not looked for: footprints is off"
    if not len(trails):
        return f"No trail was found in {counted(count, 'frame')}"
    bearing = len(set(trails["file"]))
    text = f"{counted(len(trails), 'trail')} found in {bearing} of {counted(count, 'frame')}"
    unused = int(np.sum(~trails["used"]))
    if unused:
        text += f", of which {unused} {'is' if unused == 1 else 'are'} not rejected (dashed)"
    return text


def _heading(result: Integration, wanted: list[int]) -> str:
    trails = result.trails
    text = trails_in_words(result)
    if len(set(trails["file"])) > len(wanted):
        text += f"; shown are those of {counted(len(wanted), 'frame')}"
    used = trails[trails["used"]]
    if not len(used):
        return text
    example = used[int(np.argmin(used["significance"]))]
    return f"{text}.\nTo keep one that is no trail, set ignore_trails to its name, as {example['name']}"


def _mark(axes: Axes, trail: Row, apart: float, region: tuple[int, int, int, int], points: float) -> None:
    """Enclose a trail between two lines, with its number and brightness; a pixel is so many points wide."""
    start, end = np.array([trail["x0"], trail["y0"]]), np.array([trail["x1"], trail["y1"]])
    along = (end - start) / np.hypot(*(end - start))
    across = np.array([-along[1], along[0]])
    half = 0.5 * float(trail["width"]) + apart
    colour, style = (NEIGHBOURS, "-") if trail["used"] else (INK, "--")
    for side in (half * across, -half * across):
        axes.plot(*zip(start + side, end + side, strict=True), color=colour, ls=style, lw=1.3)
    left, top, width, height = region
    middle = np.array([left + width / 2, top + height / 2])
    steps = start + np.linspace(0, 1, 201)[:, np.newaxis] * (end - start)
    seen = steps[(np.abs(steps - middle) < (0.47 * width, 0.47 * height)).all(axis=1)]
    if not len(seen):
        return
    place = seen[len(seen) // 2]
    # Beside the trail, towards the middle of the picture, wherever the text is wide.
    if across @ (middle - place) < 0:
        across = -across
    away = points * half + 4 + float(np.abs(across) @ HALF_LABEL)
    axes.annotate(
        f"{trail['number']}: {trail['peak']:.1f} sigma",
        place,
        xytext=(away * across[0], -away * across[1]),
        textcoords="offset points",
        color=INK,
        fontsize=9.5,
        ha="center",
        va="center",
        path_effects=[patheffects.withStroke(linewidth=3, foreground=GROUND)],
    )


def residual_picture(result: Integration, number: int, channel: int = -1) -> tuple[np.ndarray, int]:
    """Return what a frame has more than the result, in bins, in units of the scatter of the bins.

    Parameters
    ----------
    result : Integration
        The result; the frame is read again.
    number : int
        The frame, counted from 1.
    channel : int
        The channel; -1 for the mean of all.

    Returns
    -------
    picture : ndarray of float32, shape (rows, columns)
        NaN without data. The median is 0.
    side : int
        Pixels of a bin each way.
    """
    _, _, width, height = result.region
    side = max(2, math.ceil(width / WIDE))
    side = min(side, width, height)
    rows, columns = height // side, width // side
    channels = range(len(result.image)) if channel < 0 else (channel,)
    total = np.zeros((rows, columns), np.float64)
    for each in channels:
        step = max(1, STRIP // side)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            total[first:last] += _bins(result, number - 1, each, (first * side, last * side), side, columns)
    known = total[np.isfinite(total)]
    middle = float(np.median(known)) if known.size else 0.0
    spread = 1.4826 * float(np.median(np.abs(known - middle))) if known.size else 1.0
    return ((total - middle) / (spread or 1.0)).astype(np.float32), side


def _bins(
    result: Integration, i: int, channel: int, rows: tuple[int, int], side: int, columns: int
) -> np.ndarray:
    """Return the means of bins of frame minus result; NaN for bins without data."""
    p, (left, top, _, _) = result.preparation, result.region
    settings, k = p.settings(channel), int(np.searchsorted(p.used, i))
    across = slice(left, left + columns * side)
    raw = p.read_rows(i, top + rows[0], top + rows[1], channel)[:, across].astype(np.float64)
    low, high = (float(limit) for limit in settings.data_range)
    master = result.image[channel, rows[0] : rows[1], : columns * side] - result.range_offset
    apart = raw * settings.factor[k] + settings.offset[k] - master / result.range_factor
    known = (raw > low) & (raw < high) & (master + result.range_offset != 0)
    blocks = (rows[1] - rows[0]) // side, side, columns, side
    number = known.reshape(blocks).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        summed = np.where(known, apart, 0).reshape(blocks).sum(axis=(1, 3))
        return np.where(2 * number >= side * side, summed / np.maximum(number, 1), np.nan)
