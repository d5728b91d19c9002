"""Figures of drizzling: dither, sampling, coverage before the run, and the image beside the integration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import uniform_filter
from scipy.special import erf

from stacklib.drizzle.coverage import UNDERSAMPLED, Forecast, covered, noise_correlation
from stacklib.drizzle.result import Drizzled
from stacklib.figures.look import (
    EDGE,
    FAINT,
    HIGH,
    INK,
    LOW,
    PANEL,
    colour_bar,
    dress,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.screen import Limits, binned, screen_limits, stretch
from stacklib.integration.result import Integration
from stacklib.output.integrated_image import undo_range
from stacklib.utils.labels import counted

__all__ = ["drizzled_in_words", "figure_coverage", "figure_dither", "figure_drizzled"]

#: Pixels of the frames along each side of a close-up, and of its border that is left out.
CLOSE, BORDER = 40, 12
#: Side of the part of a grid that is drawn pixel by pixel.
SHOWN = 64
#: Colors of the sites of a mosaic, dark enough for points on them. Each also has its letter.
SITES = {"R": "#5b3038", "G": "#2c4a3a", "B": "#2b3d5e"}


def figure_dither(expected: Forecast) -> Figure:
    """Draw how the frames are moved against the reference, where that is within a pixel, and the sampling.

    Parameters
    ----------
    expected : Forecast
        The forecast for the frames.

    Returns
    -------
    Figure
    """
    figure = new_figure(13.0, 4.3)
    whole, within, profile = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    whole.plot(*expected.shifts.T, "o", color=LOW, ms=5, mec=INK, mew=0.5)
    whole.set_title("Where each frame points", color=INK, fontsize=10, loc="left")
    _dress_places(whole, "shift (pixels)")
    whole.set_aspect("equal", adjustable="datalim")
    whole.invert_yaxis()
    period = expected.sites.period
    _draw_sites(within, expected.sites.pattern, period)
    within.plot(*(expected.shifts % period).T, "o", color=INK, ms=6, mec=PANEL, mew=1)
    what = f"within the {period} x {period} pixels of the mosaic" if period > 1 else "within a pixel"
    within.set_title(f"The same {what}", color=INK, fontsize=10, loc="left")
    _dress_places(within, "(pixels)")
    within.set(xlim=(0, period), ylim=(period, 0), aspect="equal")
    _draw_profile(profile, expected)
    far = float(np.abs(expected.shifts).max())
    share = 100 * expected.dither
    width = "unknown width" if not math.isfinite(expected.fwhm) else f"{expected.fwhm:.1f} px"
    write_title(
        figure,
        f"{counted(expected.frames, 'frame')}, dithered by up to {far:.1f} px: "
        f"{share:.0f} % of the spread of random shifts. Stars of {width}",
    )
    return figure


def _dress_places(axes: Axes, unit: str) -> None:
    axes.set_facecolor(PANEL)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    for spine in axes.spines.values():
        spine.set_color(EDGE)
    axes.set_xlabel(f"x {unit}", color=INK)
    axes.set_ylabel(f"y {unit}", color=INK)


def _draw_sites(axes: Axes, pattern: str, period: int) -> None:
    for place, letter in enumerate(pattern):
        row, column = divmod(place, period)
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=SITES[letter], edgecolor=EDGE))
        axes.text(column + 0.06, row + 0.08, letter, color=INK, fontsize=11, va="top", ha="left")


def _draw_profile(axes: Axes, expected: Forecast) -> None:
    """Draw a star of the FWHM of the frames as their pixels and those of the grid record it."""
    if not math.isfinite(expected.fwhm):
        axes.text(0.5, 0.5, "The width of the stars\nis not known", color=INK, ha="center", va="center")
        axes.set_axis_off()
        return
    # What was measured has been summed over pixels once; drawn is the star without that, as far as it goes.
    sigma = math.sqrt(max(expected.fwhm**2 / (8 * math.log(2)) - 1 / 12, 0.1))
    x = np.linspace(-4, 4, 801)
    axes.plot(x, np.exp(-0.5 * (x / sigma) ** 2), color=FAINT, lw=1.5, ls="--", label="star")
    drawn = [(1.0, HIGH, "pixels of the frames")]
    if expected.grid.scale > 1:
        drawn.append((expected.grid.scale, LOW, f"pixels of the grid, scale {expected.grid.scale:g}"))
    for scale, color, label in drawn:
        edges = np.arange(-math.ceil(4 * scale), math.ceil(4 * scale) + 1) / scale
        shares = np.diff(erf(edges / (math.sqrt(2) * sigma))) / 2 * scale * math.sqrt(2 * math.pi) * sigma
        axes.stairs(shares, edges, color=color, lw=1.8, label=label)
    axes.axvspan(-expected.fwhm / 2, expected.fwhm / 2, color=EDGE, alpha=0.6, lw=0, label="FWHM")
    axes.set_xlim(-4, 4)
    axes.set_xlabel("pixels of the frames", color=INK)
    dress(axes, "light")
    axes.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=8.5)
    axes.set_ylim(0, 1.55)
    word = "undersampled" if expected.fwhm <= UNDERSAMPLED else "sampled well"
    axes.set_title(f"FWHM {expected.fwhm:.1f} px: {word}", color=INK, fontsize=10, loc="left")


def figure_coverage(expected: Forecast) -> Figure:
    """Draw how many samples fall on the pixels of the grid, for each color, before any frame is read.

    Parameters
    ----------
    expected : Forecast
        The forecast: its windows are drawn beside each other.

    Returns
    -------
    Figure
        Pixels without a sample are orange.
    """
    whole = expected.samples.shape[1] * expected.samples.shape[2] == 1
    maps = [_middle(windows[0, 0]) if whole else _beside(windows) for windows in expected.samples]
    figure = new_figure(4.3 * len(maps) + 0.6, 5.0)
    known = np.concatenate([plane[np.isfinite(plane)] for plane in maps])
    top = float(np.percentile(known, 99.5)) or 1.0
    for axes, plane, name, share, uneven in zip(
        figure.subplots(1, len(maps), squeeze=False)[0],
        maps,
        expected.colors,
        expected.holes,
        expected.unevenness,
        strict=True,
    ):
        axes.set_facecolor(PANEL)
        title = f"{_channel(name)}: holes {100 * share:.2g} %"
        title += f", uneven by {100 * uneven:.0f} %" if math.isfinite(uneven) else ""
        shown = show_picture(axes, np.ma.masked_equal(plane, 0), title, cmap="Blues_r", vmin=0, vmax=top)
        shown.cmap = shown.cmap.with_extremes(bad=PANEL)
        holes = np.ma.masked_where(plane != 0, np.ones_like(plane))
        show_picture(axes, holes, title, cmap=ListedColormap([HIGH]), vmin=0, vmax=1)
        axes.set_xlabel("pixels of the grid", color=FAINT, fontsize=8)
        axes.set_ylabel("", color=FAINT)
    colour_bar(figure, shown, "samples in a pixel", extend="max")
    scale, drop = expected.grid.scale, expected.grid.drop
    where = "the middle of the grid" if whole else "windows spread over the grid"
    write_title(
        figure, f"Samples for each pixel at scale {scale:g} and drop {drop:g}: {where}. Holes are orange"
    )
    return figure


def _channel(name: str) -> str:
    return {"R": "Red", "G": "Green", "B": "Blue"}.get(name, f"Channel {name}")


def _middle(plane: np.ndarray) -> np.ndarray:
    """Return at most `SHOWN` x `SHOWN` pixels from the middle of the grid, where each can be seen."""
    top, left = (max(0, (size - SHOWN) // 2) for size in plane.shape)
    return plane[top : top + SHOWN, left : left + SHOWN]


def _beside(windows: np.ndarray, gap: int = 2) -> np.ndarray:
    """Lay windows beside each other with NaN between them."""
    padded = np.pad(windows, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    down, across, height, width = padded.shape
    return padded.transpose(0, 2, 1, 3).reshape(down * height, across * width)[:-gap, :-gap]


def figure_drizzled(drizzled: Drizzled, beside: Integration | None = None) -> Figure:
    """Draw the drizzled image beside the integration of the registered frames, with the same stretch.

    Below are close-ups of the part with most detail.

    Parameters
    ----------
    drizzled : Drizzled
        The image.
    beside : Integration, optional
        The integration; without it the sums of weights are drawn in its place.

    Returns
    -------
    Figure
    """
    after = undo_range(drizzled.image, drizzled.range_factor, drizzled.range_offset)
    scale = drizzled.grid.scale
    _, height, width = after.shape
    tall = 6.0 * height / width
    figure = new_figure(12.0, 2 * min(tall, 7.0) + 1.2)
    axes = figure.subplots(2, 2)
    words = f"Drizzled, scale {scale:g}, drop {drizzled.grid.drop:g}"
    limits = screen_limits(after)
    top, left = _richest(after, scale)
    if beside is None:
        names = ("Samples for each pixel, by weight", words)
        _draw_weights(figure, axes[0, 0], axes[1, 0], drizzled, (top, left))
    else:
        before = undo_range(beside.image, beside.range_factor, beside.range_offset)
        names = (f"{counted(beside.preparation.count, 'registered frame')} integrated", words)
        limits = screen_limits(before)
        _draw_both(axes[:, 0], before, 1.0, (top, left), limits, names[0])
    _draw_both(axes[:, 1], after, scale, (top, left), limits, names[1])
    write_title(
        figure,
        f"{counted(drizzled.used.size, 'frame')} drizzled: {width} x {height} pixels"
        + (", with the stretch of the integration" if beside is not None else ""),
    )
    return figure


def _richest(image: np.ndarray, scale: float) -> tuple[int, int]:
    """Return top and left of the part with most fine detail, in pixels of the reference."""
    light = np.nan_to_num(image.mean(axis=0))
    fine = light - uniform_filter(light, max(3, round(7 * scale)))
    # Stars differ by factors of thousands; one of them is not to decide alone.
    detail = uniform_filter(np.sqrt(np.abs(fine)), round(CLOSE * scale))
    edge = min(round(scale * (BORDER + CLOSE / 2)), (min(light.shape) - 1) // 2)
    inner = detail[edge : -edge or None, edge : -edge or None]
    row, column = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return max(0, int((row + edge) / scale - CLOSE / 2)), max(0, int((column + edge) / scale - CLOSE / 2))


def _draw_both(
    axes: np.ndarray,
    image: np.ndarray,
    scale: float,
    corner: tuple[int, int],
    limits: Limits,
    title: str,
) -> None:
    """Draw an image, and below it its close-up, in pixels of the reference."""
    shown, side = binned(image)
    show_picture(axes[0], stretch(shown, limits), title, side / scale)
    top, left = corner
    rows, columns = (slice(round(scale * at), round(scale * (at + CLOSE))) for at in (top, left))
    part = stretch(image[:, rows, columns], limits)
    show_picture(axes[1], part, f"{title}: close-up", 1 / scale, (left, top), interpolation="nearest")


def _draw_weights(
    figure: Figure, whole: Axes, close: Axes, drizzled: Drizzled, corner: tuple[int, int]
) -> None:
    scale = drizzled.grid.scale
    weights = drizzled.weights.mean(axis=0)
    top, left = corner
    rows, columns = (slice(round(scale * at), round(scale * (at + CLOSE))) for at in (top, left))
    shown, side = binned(weights[np.newaxis])
    most = float(np.percentile(weights, 99.5)) or 1.0
    options: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": most}
    show_picture(whole, shown[0], "Sum of weights", side / scale, **options)
    picture = show_picture(
        close, weights[rows, columns], "Sum of weights: close-up", 1 / scale, (left, top), **options
    )
    colour_bar(figure, picture, "sum of weights, mean of the colors", [whole, close])


def drizzled_in_words(drizzled: Drizzled) -> str:
    """Say how much of the image has no sample beside what was predicted, and how its noise is correlated.

    Parameters
    ----------
    drizzled : Drizzled
        The image.

    Returns
    -------
    str
        A sentence a line.
    """
    inner = _inside(drizzled)
    found = 100 * max(float(np.mean(plane[inner] == 0)) for plane in drizzled.weights)
    predicted = 100 * float(drizzled.forecast.holes.max())
    lines = [
        f"Pixels without a sample, worst color, where all frames overlap: {found:.2g} %; predicted from the "
        f"geometry: {predicted:.2g} %."
    ]
    if drizzled.left_out:
        lines.append(f"Left out: {counted(len(drizzled.left_out), 'frame')}; see the table for the reasons.")
    factor = noise_correlation(drizzled.grid.scale, drizzled.grid.drop)
    lines.append(
        f"Neighboring pixels share samples: the noise of large areas is {factor:.2f} times what single "
        "pixels suggest. Compare images at the same scale, or by areas."
    )
    return "\n".join(lines)


def _inside(drizzled: Drizzled) -> np.ndarray:
    """Return which pixels of the grid lie inside all frames that were used, bool (height, width)."""
    height, width = drizzled.grid.shape
    geometries = [drizzled.geometries[int(i)] for i in drizzled.used]
    shape = drizzled.frames.height, drizzled.frames.width
    return covered(geometries, drizzled.grid, shape, slice(0, height), slice(0, width))
