"""Figures of the first notebook."""

from __future__ import annotations

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from scipy import stats

from stacklib.explore.explain import PixelStory
from stacklib.figures.look import (
    EDGE,
    FAINT,
    INK,
    PANEL,
    colour_bar,
    dress,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.figures.look import HIGH as HIGH_COLOUR
from stacklib.figures.look import LOW as LOW_COLOUR
from stacklib.figures.screen import screen_limits, stretch
from stacklib.kernel.expectation import expected_noise_factor, expected_rejection
from stacklib.kernel.verdicts import KEPT, LOW, reject
from stacklib.lessons.lesson import LEFT_OUT, Lesson
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import AUTO_RULES, RULES

__all__ = [
    "figure_averaging",
    "figure_cosmic_ray",
    "figure_cost",
    "figure_frames",
    "figure_left_out",
    "figure_maps",
    "figure_rounds",
    "figure_rules",
    "figure_small_stacks",
]

DARK, BRIGHT, GOOD = LOW_COLOUR, HIGH_COLOUR, "#cdd5e0"
#: The rules of thumb, and how they are drawn beside each other.
COMPARED = dict(zip(reversed(AUTO_RULES), (("s-", BRIGHT), ("o-", DARK)), strict=True))


# averaging ---------------------------------------------------------------------------------------


def figure_frames(lesson: Lesson) -> Figure:
    """Show the truth, one noisy frame and the average of all with the same stretch."""
    clean = lesson.clean
    limits = screen_limits(clean.frames[0])
    average = clean.frames.mean(axis=0, dtype=float)
    figure = new_figure(13.0, 4.1)
    shown = {"The truth": clean.truth, "One frame": clean.frames[0], f"Average of {lesson.count}": average}
    for axes, (name, image) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        show_picture(axes, stretch(image, limits), name)
    write_title(figure, "The faint parts are in every frame, below its noise")
    return figure


def figure_averaging(lesson: Lesson) -> Figure:
    """Plot the noise of mean and median of the first N frames against 1/sqrt(N)."""
    deviations = lesson.deviations()
    numbers = np.arange(1, lesson.count + 1)
    figure = new_figure(11.0, 4.4)
    axes = figure.subplots()
    axes.plot(numbers, 1 / np.sqrt(numbers), color=FAINT, lw=1.6, label=r"theory: $1/\sqrt{N}$")
    measured = {}
    for combine, colour, marker in ((np.median, BRIGHT, "s"), (np.mean, DARK, "o")):
        name = combine.__name__
        measured[name] = [float(combine(deviations[:n], axis=0).std()) for n in numbers]
        label = f"{name}, measured: {measured[name][-1]:.3f}"
        axes.plot(numbers, measured[name], marker, color=colour, ms=6, label=label)
    axes.set(xscale="log", yscale="log")
    _logarithmic(axes.xaxis, axes.yaxis)
    axes.set_xticks([n for n in (1, 2, 3, 5, 10, 20, 50, 100) if n <= lesson.count])
    axes.set_yticks([n for n in (1, 0.7, 0.5, 0.3, 0.2, 0.1) if n > 0.8 / np.sqrt(lesson.count)])
    axes.set_xlabel("number of frames N", color=INK)
    dress(axes, "noise (one frame = 1)")
    write_title(
        figure,
        f"{lesson.count} frames: {measured['mean'][-1]:.3f} times the noise of one frame, "
        f"theory {lesson.count**-0.5:.3f}",
    )
    return figure


def figure_cosmic_ray(lesson: Lesson, brightness: float = 40.0) -> Figure:
    """Plot a pixel with one hit, and how far hits move mean and median.

    `brightness` is that of the cosmic ray at the left, in sigma of one frame.
    """
    count, deviations = lesson.count, lesson.deviations()
    figure = new_figure(13.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(5, 6))
    # A pixel whose mean and median are right without the hit.
    typical = np.abs(deviations.mean(axis=0)) + np.abs(np.median(deviations, axis=0))
    samples = deviations[:, typical.argmin()].copy()
    samples[2] += brightness
    numbers = np.arange(1, count + 1)
    left.plot(numbers, samples, "o", color=GOOD, ms=5, label="samples")
    left.axhline(samples.mean(), color=BRIGHT, lw=1.6, label=f"mean {samples.mean():+.2f}")
    left.axhline(np.median(samples), color=DARK, ls="--", lw=1.6, label=f"median {np.median(samples):+.2f}")
    left.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    left.set_xlabel("frame", color=INK)
    dress(left, "above the truth (sigma of one frame)")
    heights = np.geomspace(1, 300, 13)
    moved = {np.mean: [], np.median: []}
    for height in heights:
        struck = deviations.copy()
        struck[2] += height
        for combine, shifts in moved.items():
            shifts.append(float((combine(struck, axis=0) - combine(deviations, axis=0)).mean()))
    right.plot(heights, moved[np.mean], "o-", color=BRIGHT, ms=5, label="the mean moves")
    right.plot(heights, moved[np.median], "s--", color=DARK, ms=5, label="the median moves")
    right.axhline(count**-0.5, color=FAINT, ls=":", lw=1.6, label="noise of the master")
    right.set(xscale="log", yscale="log")
    _logarithmic(right.xaxis, right.yaxis)
    right.set_xlabel("brightness of the cosmic ray (sigma of one frame)", color=INK)
    dress(right, "shift (sigma of one frame)")
    write_title(
        figure,
        f"A hit of {brightness:g} sigma moves the mean of {count} frames by {brightness / count:.2g} sigma; "
        f"the noise of the mean is {count**-0.5:.2f}",
    )
    return figure


# one pixel ---------------------------------------------------------------------------------------


def figure_rounds(story: PixelStory) -> Figure:
    """Plot kept samples, limits and rejected samples of each round."""
    rounds = story.rounds
    figure = new_figure(11.0, 1.1 + 0.75 * len(rounds))
    axes = figure.subplots()
    gone = np.zeros(len(story.files), bool)
    for number in rounds:
        height = np.full(len(story.files), float(number.number))
        out = np.isin(np.arange(len(story.files)), number.dropped)
        first = number is rounds[0]
        values = 1e3 * story.compared
        span = (1e3 * number.lower, 1e3 * number.upper)
        label = "kept between these limits" if first else None
        axes.barh(number.number, span[1] - span[0], 0.6, span[0], color=EDGE, label=label)
        axes.plot([1e3 * number.centre] * 2, [number.number - 0.3, number.number + 0.3], color=FAINT, lw=1.5)
        inside, label = ~gone & ~out, "kept" if first else None
        axes.plot(values[inside], height[inside], "o", color=GOOD, ms=5, alpha=0.75, label=label)
        label = "rejected in this round" if first else None
        axes.plot(values[out], height[out], "X", color=BRIGHT, ms=10, label=label)
        gone |= out
    axes.set_yticks([number.number for number in rounds])
    axes.set_ylim(len(rounds) + 0.6, 0.4)
    axes.set_xlabel("sample (thousandths of full scale)", color=INK)
    dress(axes, "round")
    write_title(figure, f"{story.spec.label}: {len(story.files)} samples, {story.count(KEPT)} kept")
    return figure


def figure_rules(lesson: Lesson) -> Figure:
    """Show the same pixel under every rule, with default limits."""
    figure = new_figure(11.0, 5.2)
    axes = figure.subplots()
    sky, sigma = float(lesson.clean.sky[0, 0]), float(np.median(lesson.clean.sigma(0)))
    drawn = {"kept": ("o", GOOD, 5), "rejected low": ("v", DARK, 8), "rejected high": ("^", BRIGHT, 8)}
    for row, spec in enumerate(RULES.values()):
        story = lesson.story(spec.name)
        values = (story.raw - sky) / sigma
        # Tests go on after the last outlier: the limits are those of the first round without one.
        final = next((number for number in story.rounds if not number.dropped), story.rounds[-1])
        last = [(limit - sky) / sigma for limit in (final.lower, final.upper)]
        if not spec.gives_slope and np.all(np.isfinite(last)):
            axes.barh(row, last[1] - last[0], 0.62, last[0], color=EDGE)
        high = (story.verdict != KEPT) & (story.verdict != LOW)
        fates = (story.verdict == KEPT, story.verdict == LOW, high)
        for chosen, (word, (marker, colour, size)) in zip(fates, drawn.items(), strict=True):
            place = np.full(np.count_nonzero(chosen), row)
            label = word if row == 0 else None
            axes.plot(values[chosen], place, marker, color=colour, ms=size, alpha=0.85, label=label)
        result = (story.value - sky) / sigma
        axes.text(1.01, row, f"{result:+.2f}", color=INK, va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(RULES)), [spec.label for spec in RULES.values()])
    axes.set_ylim(len(RULES) - 0.4, -0.6)
    axes.set_xlabel("sample above the truth (sigma of one frame); gray: final limits", color=INK)
    dress(axes, "")
    axes.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=9)
    write_title(figure, "One pixel under every rule; at the right the result (0 is the truth)")
    return figure


# limits ------------------------------------------------------------------------------------------


def figure_small_stacks(height: float = 10.0, limit: float = 2.9, trials: int = 1000) -> Figure:
    """Plot the largest possible distance of an outlier among N samples, and the outliers two rules find.

    Brightness of the outliers and limit, on both sides, are in sigma; `trials` is the number of pixels for
    each number of frames.
    """
    numbers = np.arange(3, 26)
    figure = new_figure(13.0, 4.2)
    left, right = figure.subplots(1, 2)
    farthest = []
    found: dict[str, list[float]] = {rule: [] for rule in COMPARED}
    random = np.random.default_rng(1)
    for n in numbers:
        stack = 100 + random.standard_normal((n, 1, trials)).astype(np.float32)
        stack[0] = 1e6
        farthest.append(float(((stack[0] - np.median(stack, axis=0)) / stack.std(axis=0, ddof=1)).max()))
        stack[0] = 100 + height + random.standard_normal((1, trials))
        for rule, shares in found.items():
            kept = reject(stack, Recipe(rejection=rule, sigma_low=limit, sigma_high=limit))
            shares.append(100 * float(np.mean(~kept[0])))
    left.plot(numbers, np.sqrt(numbers), color=FAINT, lw=1.6, label=r"$\sqrt{N}$")
    left.plot(numbers, farthest, "o", color=DARK, ms=5, label="extremely bright hit")
    left.axhline(limit, color=BRIGHT, ls="--", lw=1.6, label=f"limit {limit:g} sigma")
    dress(left, "distance from the median (sigma)")
    for rule, (style, colour) in COMPARED.items():
        right.plot(numbers, found[rule], style, color=colour, ms=5, label=RULES[rule].label)
    right.set_ylim(-4, 104)
    dress(right, f"hits of {height:g} sigma found (%)")
    for axes in (left, right):
        axes.set_xlabel("number of frames N", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=9)
    needed = int(limit**2) + 1
    write_title(
        figure, f"Below {needed} frames, sigma clipping at {limit:g} sigma cannot reject a single outlier"
    )
    return figure


def figure_cost(lesson: Lesson) -> Figure:
    """Plot good samples lost and noise added by clipping clean frames."""
    limits = np.array([1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0])
    figure = new_figure(13.0, 4.2)
    left, right = figure.subplots(1, 2)
    for rule, (style, colour) in COMPARED.items():
        recipes = [Recipe(rejection=rule, sigma_low=k, sigma_high=k) for k in limits]
        lost = [100 * sum(expected_rejection(recipe, lesson.count)) for recipe in recipes]
        gained = [100 * (expected_noise_factor(recipe, lesson.count) - 1) for recipe in recipes]
        left.plot(limits, lost, style, color=colour, ms=5, label=RULES[rule].label)
        right.plot(limits, gained, style, color=colour, ms=5, label=RULES[rule].label)
    fine = np.linspace(limits[0], limits[-1], 200)
    lost = 2 * stats.norm.sf(fine)
    left.plot(fine, 100 * lost, color=FAINT, ls=":", lw=1.6, label="if sigma were known")
    gained = 1 / np.sqrt(1 - lost - 2 * fine * stats.norm.pdf(fine)) - 1
    right.plot(fine, 100 * gained, color=FAINT, ls=":", lw=1.6, label="very many frames")
    left.set_yscale("log")
    _logarithmic(left.yaxis)
    dress(left, "good samples rejected (%)")
    dress(right, "noise added (%)")
    for axes in (left, right):
        axes.set_xlabel("limit on both sides (sigma)", color=INK)
        axes.legend(loc="upper right", frameon=False, labelcolor=INK, fontsize=9)
    write_title(figure, f"The price of clipping {lesson.count} clean frames")
    return figure


# a night -----------------------------------------------------------------------------------------


def figure_left_out(lesson: Lesson) -> Figure:
    """Show master minus truth with one step left out."""
    figure = new_figure(13.0, 3.5)
    for axes, name in zip(figure.subplots(1, len(LEFT_OUT)), LEFT_OUT, strict=True):
        error = lesson.error(name)
        title = f"{name}: {lesson.sky_noise(name):.3f}"
        shown = show_picture(axes, error, title, cmap="cividis", vmin=-0.8, vmax=0.8)
        axes.set_facecolor(PANEL)
    colour_bar(figure, shown, "master minus truth\n(sigma of one frame)")
    write_title(
        figure,
        f"Effect of each step: error of the sky in units of the noise of one frame (1/sqrt({lesson.count}) "
        f"is {lesson.count**-0.5:.3f})",
    )
    return figure


def figure_maps(lesson: Lesson) -> Figure:
    """Show the planted outliers and the rejection maps in percent of the frames."""
    result = lesson.results["nothing left out"]
    figure = new_figure(13.0, 4.0)
    maps = {
        "Planted: too bright by 2 sigma or more": lesson.planted(2) / lesson.count,
        "Rejected high (too bright)": result.rejection_high[0],
        "Rejected low (too dark)": result.rejection_low[0],
    }
    for axes, (name, fractions) in zip(figure.subplots(1, 3), maps.items(), strict=True):
        shown = show_picture(axes, 100 * fractions, name, cmap="inferno", vmin=0, vmax=300 / lesson.count)
    colour_bar(figure, shown, "% of the frames", extend="max")
    label = RULES[result.rule].label
    write_title(figure, f"Reading rejection maps: {lesson.count} frames, {label}")
    return figure


def _logarithmic(*axes: Axis) -> None:
    """Label logarithmic axes with plain numbers."""
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
