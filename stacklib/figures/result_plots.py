"""Static figures of a result: image and maps, before and after, frames, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Column
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from stacklib.figures.look import (
    BAR,
    FAINT,
    HIGH,
    INK,
    LOW,
    colour_bar,
    dress,
    map_top,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.screen import binned, read_binned, screen_limits, stretch
from stacklib.frames.frame_set import Frame
from stacklib.integration.result import Integration
from stacklib.output.integrated_image import undo_range
from stacklib.output.naming import most_common
from stacklib.output.sentences import outstanding
from stacklib.recipe.rules import RULES

__all__ = [
    "figure_before_after",
    "figure_frames",
    "figure_noise",
    "figure_preview",
    "figure_result",
    "stretch",
]

#: Larger images are cut to a center of this many pixels each way.
CENTRE = 600

RGB = ("#ff7a6b", "#5fd38a", "#6fa8ff")
MARKERS = "so^Dv"


# pictures ----------------------------------------------------------------------------------------


def figure_result(result: Integration) -> Figure:
    """Draw the image of a result and its maps of low and high rejections.

    The maps show the mean of the channels, in percent of the frames, on one color scale, with what was
    rejected for its neighbors. The title names that on its own, as the report does.
    """
    image, side = binned(result.image)
    maps = [_mean_map(m) for m in (result.rejection_low, result.rejection_high)]
    figure = new_figure(13.0, 3.75 * image.shape[1] / image.shape[2] + 0.95)
    first, *others = figure.subplots(1, 3)
    show_picture(first, stretch(image), "Integration, stretched for the screen", side)
    scale = PowerNorm(0.5, 0, map_top(result))
    for axes, counts, word in zip(others, maps, ("low (too dark)", "high (too bright)"), strict=True):
        shown = show_picture(axes, counts, f"Rejected {word}", side, cmap="inferno", norm=scale)
    colour_bar(figure, shown, "% of the frames", others, extend="max")
    low, high = (100 * values.mean() for values in (result.rejected_low, result.rejected_high))
    count, rule = result.preparation.count, RULES[result.rule].label
    words = f"{count} frames, {rule}: rejected {low:.2f} % of the samples low, {high:.2f} % high"
    if result.masked:
        masked = 100 * sum(values.mean() for values in result.masked.values())
        words += f", {masked:.2f} % for their neighbors"
    write_title(figure, words)
    return figure


def _mean_map(fractions: np.ndarray) -> np.ndarray:
    """Return a rejection map for the screen: mean of the channels, in percent."""
    return 100 * binned(fractions)[0].mean(axis=0)


def figure_before_after(result: Integration) -> Figure:
    """Draw the reference frame and the integration side by side, with the same stretch.

    Only the center of a large image is shown, at full resolution: binning would hide the noise.
    """
    wide, tall, corner = _centre(result)
    figure = new_figure(12.0, 6.0 * tall / wide + 0.75)
    cut = "" if (wide, tall) == result.region[2:] else ", center"
    _show_pair(figure.subplots(1, 2), result, _centres(result), 1, corner, cut)
    ratio = result.noise_ratio.mean()
    write_title(
        figure, f"Before and after, with the same stretch: the noise is {ratio:.2f} times that of one frame"
    )
    return figure


def figure_preview(result: Integration) -> Figure:
    """Draw the reference frame and the integration side by side: the whole, and the center of a large image.

    The two pictures beside each other have the same stretch.
    """
    left, top, width, height = result.region
    after, side = binned(result.image)
    after = undo_range(after, result.range_factor, result.range_offset)
    before = read_binned(_reference(result), side, result.region)
    wide, tall, corner = _centre(result)
    large = (wide, tall) != (width, height)
    inches = 6.0 * height / width + (6.0 * tall / wide if large else 0) + 0.75
    figure = new_figure(12.0, inches)
    axes = figure.subplots(2 if large else 1, 2, squeeze=False)
    _show_pair(axes[0], result, (before, after), side, (left, top))
    if large:
        _show_pair(axes[1], result, _centres(result), 1, corner, ", center at full size")
    target = most_common(frame.object for frame in result.preparation.frames)
    ratio = result.noise_ratio.mean()
    write_title(
        figure,
        f"{target + ': o' if target else 'O'}ne frame and {result.preparation.count} frames integrated, with "
        f"the same stretch. The noise is {ratio:.2f} times that of one frame",
    )
    return figure


def _reference(result: Integration) -> Frame:
    return result.preparation.frames[result.preparation.reference]


def _centre(result: Integration) -> tuple[int, int, tuple[int, int]]:
    """Return width, height and (left, top) corner of the center of a large image, in pixels of the frames."""
    left, top, width, height = result.region
    wide, tall = min(width, CENTRE), min(height, CENTRE)
    return wide, tall, (left + (width - wide) // 2, top + (height - tall) // 2)


def _centres(result: Integration) -> tuple[np.ndarray, np.ndarray]:
    """Return the center of the reference frame and of the integration, at full resolution."""
    wide, tall, (x, y) = _centre(result)
    before = _reference(result).read(rows=slice(y, y + tall))[:, :, x : x + wide]
    x, y = x - result.region[0], y - result.region[1]
    after = result.image[:, y : y + tall, x : x + wide]
    return before, undo_range(after, result.range_factor, result.range_offset)


def _show_pair(
    axes: Sequence[Axes],
    result: Integration,
    pictures: tuple[np.ndarray, np.ndarray],
    side: int,
    corner: tuple[int, int],
    part: str = "",
) -> None:
    """Show a frame and the integration with the stretch of the frame."""
    pictures = _at_one_level(result, *pictures)
    limits = screen_limits(pictures[0])
    names = (f"One frame: {_reference(result).name}", f"{result.preparation.count} frames integrated")
    for place, picture, name in zip(axes, pictures, names, strict=True):
        show_picture(place, stretch(picture, limits), f"{name}{part}", side, corner)


def _at_one_level(
    result: Integration, before: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bring the sky of a frame to that of the image, whose background comes from several frames."""
    if result.preparation.surfaces is None:
        return before, after
    data = np.isfinite(before) & (before != 0) & (after != 0)
    levels = [
        [
            float(np.median(plane[there])) if there.any() else 0.0
            for plane, there in zip(image, data, strict=True)
        ]
        for image in (before, after)
    ]
    shift = np.subtract(levels[1], levels[0]).astype(np.float32)[:, np.newaxis, np.newaxis]
    return np.where(before != 0, before + shift, before), after


# plots -------------------------------------------------------------------------------------------


def figure_frames(result: Integration) -> Figure:
    """Plot rejected samples and weight of each frame, with the rejection expected for clean frames.

    Values are means of the channels. Frames with clearly more rejections than the others are numbered;
    excluded frames are crossed.
    """
    table = result.frames
    numbers = np.arange(1, len(table) + 1)
    used = np.asarray(table["used"])
    figure = new_figure(11.0, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _rejected_by_frame(upper, result, numbers, used)
    _weights_by_frame(lower, result, numbers, used)
    lower.set_xlabel("frame, in the order of the table", color=INK)
    lower.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    lower.set_xlim(0.4, len(table) + 0.6)
    write_title(figure, "Rejected samples and weight of each frame")
    return figure


def _rejected_by_frame(axes: Axes, result: Integration, numbers: np.ndarray, used: np.ndarray) -> None:
    low, high = np.full((2, numbers.size), np.nan)
    for lost, side in ((low, "low"), (high, "high")):
        lost[used] = 100 * result.lost(side).mean(axis=1)
    expected = [100 * part for part in result.expected_rejection]
    floor = _floor(low[used], high[used], *expected)
    looks = {
        "low (too dark)": (low, LOW, "v", "--", expected[0]),
        "high (too bright)": (high, HIGH, "^", ":", expected[1]),
    }
    for word, (values, colour, marker, line, normal) in looks.items():
        shown = np.maximum(values[used], floor)
        axes.plot(numbers[used], shown, marker, color=colour, ms=7, label=f"rejected {word}")
        if normal > 0:
            axes.axhline(
                normal, color=colour, ls=line, lw=1.2, label=f"expected for clean frames, {word[:4].strip()}"
            )
        clearly_more = outstanding(shown / 100)
        for number, value in zip(numbers[used][clearly_more], shown[clearly_more], strict=True):
            axes.annotate(
                f"{number}", (number, value), (8, 0), textcoords="offset points", color=INK, va="center"
            )
    if not used.all():
        places = np.full(np.count_nonzero(~used), floor)
        axes.plot(numbers[~used], places, "x", color=INK, ms=8, mew=2, label="left out")
    axes.set_yscale("log")
    axes.set_ylim(floor / 1.3, 1.3 * max(axes.get_ylim()[1], 1))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    dress(axes, "rejected samples (%)")


def _floor(*percentages: np.ndarray | float) -> float:
    """Return the lower end of a logarithmic axis; frames that lost nothing are drawn there."""
    positive = np.concatenate([np.ravel(p) for p in percentages])
    positive = positive[positive > 0]
    return float(positive.min()) / 1.5 if positive.size else 0.01


def _weights_by_frame(axes: Axes, result: Integration, numbers: np.ndarray, used: np.ndarray) -> None:
    weights = _channel_mean(result.frames["weight"])
    axes.bar(numbers[used], weights[used], 0.62, color=BAR, label="weight")
    if not used.all():
        axes.bar(numbers[~used], weights[~used], 0.62, fill=False, hatch="////", ec=FAINT, label="left out")
    reference = result.preparation.reference
    axes.plot(numbers[reference], weights[reference] + 0.09, "*", color=INK, ms=10, label="reference frame")
    axes.set_ylim(0, 1.25)
    dress(axes, "weight (best = 1)")


def figure_noise(result: Integration) -> Figure:
    """Plot the noise of the integration, relative to the reference frame, against 1/sqrt(N).

    Both are measured in the same way. The curve holds for equal frames; a bar marks the noise that these
    frames allow, see `Integration.allowed_noise_ratio`.
    """
    count, ratios = result.preparation.count, result.noise_ratio
    figure = new_figure(11.0, 4.4)
    axes = figure.subplots()
    n = np.linspace(1, count, 200)
    axes.plot(n, 1 / np.sqrt(n), color=FAINT, lw=1.6, label=r"equal frames: $1/\sqrt{N}$")
    names, colours = _channels(len(ratios))
    spread = 0.012 * count * (np.arange(len(ratios)) - (len(ratios) - 1) / 2)
    axes.plot(1, 1, "o", color=INK, ms=8, label="before: one frame")
    for i, (name, colour, ratio) in enumerate(zip(names, colours, ratios, strict=True)):
        label = f"after, {name}: {ratio:.3f}".replace(", :", ":")
        axes.plot(count + spread[i], ratio, MARKERS[i % len(MARKERS)], color=colour, ms=8, label=label)
    allowed = float(np.mean(result.allowed_noise_ratio))
    if np.isfinite(allowed):
        axes.plot(count, allowed, "_", color=INK, ms=26, mew=2, label=f"these frames allow: {allowed:.3f}")
    axes.set_ylim(0, 1.08)
    axes.set_xlim(0.5, count * 1.06)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel("number of frames N", color=INK)
    dress(axes, "noise (one frame = 1)")
    write_title(
        figure,
        f"The noise of {count} frames is {ratios.mean():.3f} times that of one; "
        f"equal frames would reach {result.expected_noise_ratio:.3f}",
    )
    return figure


# common ------------------------------------------------------------------------------------------


def _channels(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and colors of the channels."""
    if count == 1:
        return ("",), (LOW,)
    if count == 3:
        return ("red", "green", "blue"), RGB
    return tuple(f"channel {i}" for i in range(count)), tuple(RGB[i % 3] for i in range(count))


def _channel_mean(column: Column) -> np.ndarray:
    values = np.asarray(column, float)
    return values if values.ndim == 1 else values.mean(axis=1)
