"""A region that is integrated again and again with other settings, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from stacklib.explore.outlier_light import OutlierLight
from stacklib.figures.look import GROUND, INK, colour_bar, show_picture
from stacklib.figures.screen import Limits, binned, screen_limits, stretch
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate_samples
from stacklib.integration.samples import Region, Samples
from stacklib.measurement.measurements import FrameMeasurements, measure_frames
from stacklib.normalization.preparation import Preparation, prepare
from stacklib.normalization.weighting import needs_noise
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES, rule_in_words

__all__ = [
    "DIFFERENCE_COLOURS",
    "MAP_COLOURS",
    "SIDE",
    "RegionIntegration",
    "brightest_region",
    "difference_scale",
    "figure_region",
    "in_short",
]

#: Side of the region unless another is asked for, and columns of pixels of the pictures at most.
SIDE = 512
#: Columns of pixels of the overview.
OVERVIEW = 480
#: The scale of the maps ends where this many frames are rejected; that of the difference at so many
#: standard errors of the image.
MAP_FRAMES, DIFFERENCE_ERRORS = 5, 8
#: What needs new baselines: all that moves samples or weighs them.
BASICS = (
    *("normalization", "weights", "scale_estimator", "reference", "combination", "min_weight"),
    *("weight_keyword", "weight_file"),
    *("range_clip_low", "range_clip_high", "range_low", "range_high", "output_range"),
)
#: The colour of each level of the maps and of the difference, uint8 (256, 3).
MAP_COLOURS = np.rint(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)
DIFFERENCE_COLOURS = np.rint(255 * colormaps["RdBu_r"](np.arange(256))[:, :3]).astype(np.uint8)


class RegionIntegration:
    """Integrates one region with changing recipes; samples and measurements are kept.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        Registered frames, or where they are.
    recipe : Recipe, optional
        `Recipe.suggest` for these frames unless given; the rule ``auto`` becomes the one that it stands for.
    region : (left, top, width, height), optional
        512 x 512 pixels at the brightest structure unless given; moved and cut to lie inside the frames.

    Attributes
    ----------
    result : Integration
        The region, integrated with the recipe; its uncertainty is the quick one.
    overview : ndarray of float32, shape (channels, height, width)
        The reference frame, binned by `overview_side`.
    """

    def __init__(self, frames: Any, recipe: Recipe | None = None, region: Region | None = None) -> None:
        self.frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
        recipe = Recipe() if recipe is None else recipe
        self.recipe = recipe.replace(rejection=recipe.rule_for(len(self.frames)))
        self._measured: dict[tuple, FrameMeasurements] = {}
        preparation = self._prepare(self.recipe)
        reference = self.frames[preparation.reference].read()
        self.overview, self.overview_side = binned(reference, OVERVIEW)
        wanted = brightest_region(self.overview, self.overview_side) if region is None else region
        self._limits: Limits | None = None
        self._kept_basics: tuple | None = None
        self.region = wanted

    @property
    def region(self) -> Region:
        """The region; what is set is moved, then cut, to lie inside the frames."""
        return self.samples.region

    @region.setter
    def region(self, region: Region) -> None:
        left, top, width, height = (int(value) for value in region)
        width = min(max(width, 1), self.frames.width)
        height = min(max(height, 1), self.frames.height)
        left = min(max(left, 0), self.frames.width - width)
        top = min(max(top, 0), self.frames.height - height)
        self.samples = Samples(self.frames, (left, top, width, height))
        self.samples.hold()
        self.frames.close()
        self._kept_basics = None
        self.integrate(self.recipe)

    def integrate(self, recipe: Recipe) -> Integration:
        """Integrate the region with another recipe, which is kept if that is possible."""
        preparation = self._prepare(recipe)
        self.result = integrate_samples(self.samples, preparation, true_claims=False)
        self.recipe = recipe
        basics = tuple(getattr(recipe, name) for name in BASICS)
        if basics != self._kept_basics:
            self._kept_basics = basics
            self._limits = self._residual = None
            self.plain = self._without_rejection()
        return self.result

    def _without_rejection(self, **changes: str) -> Integration:
        recipe = self.recipe.replace(rejection="none", **changes)
        return integrate_samples(self.samples, self._prepare(recipe), true_claims=False)

    def _prepare(self, recipe: Recipe) -> Preparation:
        low = recipe.range_low if recipe.range_clip_low else None
        key = recipe.scale_estimator, low
        if key not in self._measured:
            self._measured[key] = measure_frames(self.frames, recipe.scale_estimator, range_low=low)
        measured = self._measured[key]
        noise = recipe.combination == "average" and needs_noise(recipe.weights)
        if not noise and measured.noise_source == "measured":
            # As `integrate` has it, so that all numbers are the same.
            unknown = np.full_like(measured.noise, math.nan)
            measured = replace(measured, noise=unknown, noise_source="not measured", notes=())
        return prepare(self.frames, recipe, measurements=measured)

    # numbers -------------------------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, float]:
        """Rejected and expected samples in percent, noise penalty, residual outlier light in percent."""
        result = self.result
        expected = result.expected_rejection
        return {
            "rejected_low": 100 * float(result.rejected_low.mean()),
            "rejected_high": 100 * float(result.rejected_high.mean()),
            "expected_low": 100 * expected[0],
            "expected_high": 100 * expected[1],
            "noise_penalty": 100 * (result.expected_noise_factor - 1),
            "residual_light": self.residual_light(),
        }

    def residual_light(self) -> float:
        """Light of outliers that the result still holds, in percent of what no rejection leaves.

        Where a sample stands more than 5 sigma above the median of the frames, the excess of the result
        over that median is added up as far as it is above 3 standard errors of the median; the same is
        done for the average without rejection, whatever the combination. NaN where there are no such
        outliers. Sigma is 1.4826 times the median absolute deviation of the pixel's samples, at least that
        of the median pixel; only pixels at which all frames have data are looked at.
        """
        if self._residual is None:
            average = self.plain
            if self.recipe.combination != "average":
                # A median holds next to no light of outliers. Without weights, as it is made itself.
                average = self._without_rejection(combination="average", weights="none")
            self._residual = OutlierLight.find(self.samples, average.preparation, original(average))
        return self._residual.left(original(self.result))

    def words(self, numbers: dict[str, float] | None = None) -> str:
        """The numbers as text."""
        n = self.numbers if numbers is None else numbers
        residual = n["residual_light"]
        average = "without rejection" if self.recipe.combination == "average" else "in the plain average"
        light = "no outliers here" if math.isnan(residual) else f"{residual:.1f} % of that {average}"
        return (
            f"rejected low {n['rejected_low']:.3f} %, expected of pure noise {n['expected_low']:.3f} %\n"
            f"rejected high {n['rejected_high']:.3f} %, expected of pure noise {n['expected_high']:.3f} %\n"
            f"noise penalty for pure noise {n['noise_penalty']:+.2f} %\n"
            f"residual outlier light: {light}"
        )

    # pictures ------------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """One stretch for all pictures until region, normalisation or weights change."""
        if self._limits is None:
            self._limits = screen_limits(binned(original(self.plain), SIDE)[0])
            errors = self.plain.uncertainty[np.isfinite(self.plain.uncertainty)]
            usual = float(np.median(errors)) / self.plain.range_factor if errors.size else 0.0
            self.difference_top = DIFFERENCE_ERRORS * usual or 1e-6
        return self._limits

    @property
    def map_top(self) -> float:
        """Where the scale of the maps ends, as a fraction of the frames."""
        return min(1.0, MAP_FRAMES / self.result.preparation.count)

    def picture(self, result: Integration | None = None) -> np.ndarray:
        """A result for the screen, uint8."""
        image = original(self.result if result is None else result)
        return np.rint(255 * stretch(binned(image, SIDE)[0], self.limits)).astype(np.uint8)

    def map_picture(self, side: str) -> np.ndarray:
        """A rejection map (low, high) for the screen, uint8 levels of `MAP_COLOURS`; square root scale."""
        fractions = _mean(getattr(self.result, f"rejection_{side}"))
        return (255 * np.sqrt(np.minimum(fractions / np.float32(self.map_top), 1))).astype(np.uint8)

    def difference(self, other: Integration | None = None) -> np.ndarray:
        """The result minus another one, or minus that without rejection; a new (height, width)."""
        return _mean(original(self.result) - original(self.plain if other is None else other))

    def difference_picture(self, other: Integration | None = None) -> np.ndarray:
        """The difference for the screen, uint8 levels of `DIFFERENCE_COLOURS`: blue darker, red brighter."""
        self.limits  # noqa: B018 - sets the scale as well
        index = self.difference(other)
        index *= np.float32(127.5 / self.difference_top)
        index += np.float32(127.5)
        np.nan_to_num(index, copy=False, nan=127.5)
        return np.clip(index, 0, 255, out=index).astype(np.uint8)


def original(result: Integration) -> np.ndarray:
    """The image in the units of the frames, before `output_range`."""
    if result.range_factor == 1.0 and result.range_offset == 0.0:
        return result.image
    return (result.image - np.float32(result.range_offset)) / np.float32(result.range_factor)


def in_short(result: Integration) -> str:
    """Rule and limits in a few words."""
    return rule_in_words(result.rule, result.recipe.to_dict())


def brightest_region(overview: np.ndarray, side: int) -> Region:
    """Left, top, width and height of the default region: the window with the most light above the sky.

    Single bright stars are cut off at the 99th percentile, so that structure counts, not one star. What is
    not a number is no light.
    """
    light = overview.mean(axis=0, dtype=np.float64)
    light[~np.isfinite(light)] = 0
    sky, top = np.percentile(light[light > 0], (50, 99)) if (light > 0).any() else (0.0, 1.0)
    light = np.clip(light, sky, max(top, sky)) - sky
    size = max(1, SIDE // side)
    tall, wide = (min(size, length) for length in light.shape)
    sums = np.pad(light, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    # Of windows that are as good, the one in the middle.
    best = np.argwhere(windows >= 0.999 * windows.max())
    row, column = best[np.argmin(((best - best.mean(axis=0)) ** 2).sum(axis=1))]
    return int(column) * side, int(row) * side, SIDE, SIDE


def figure_region(model: RegionIntegration, other: Integration | None = None) -> Figure:
    """The four pictures of a region with colour bars, and its numbers, as a static figure."""
    result, (left, top, width, height) = model.result, model.region
    figure = Figure(
        figsize=(9.6, 7.9 * height / width + 1.9), dpi=100, facecolor=GROUND, layout="constrained"
    )
    axes = figure.subplots(2, 2)
    side = -(-width // SIDE)
    name = "setting A" if other is not None else "no rejection"
    shown = {
        "Result, stretched for the screen": (model.picture(), None),
        "Rejected low (too dark)": (MAP_COLOURS[model.map_picture("low")], "map"),
        "Rejected high (too bright)": (MAP_COLOURS[model.map_picture("high")], "map"),
        f"Result minus {name}": (DIFFERENCE_COLOURS[model.difference_picture(other)], "difference"),
    }
    for place, (title, (picture, scale)) in zip(axes.flat, shown.items(), strict=True):
        drawn = show_picture(place, picture / 255, title, side, corner=(left, top))
        if scale:
            _colour_bar(figure, place, model, scale)
        else:
            drawn.set_clim(0, 1)
    label, count = RULES[result.rule].label, result.preparation.count
    title = f"{count} frames, {label}, {width} x {height} pixels at ({left}, {top})\n{model.words()}"
    figure.suptitle(title, color=INK, fontsize=10.5, x=0.01, ha="left")
    return figure


def difference_scale(model: RegionIntegration) -> tuple[float, str]:
    """Where the scale of the difference ends, and its unit."""
    adu = model.result.preparation.full_scale
    return model.difference_top * adu, "ADU" if adu > 1 else "raw value"


def _colour_bar(figure: Figure, axes: Any, model: RegionIntegration, scale: str) -> None:
    if scale == "map":
        colours, label = ScalarMappable(PowerNorm(0.5, 0, 100 * model.map_top), "inferno"), "% of the frames"
    else:
        top, label = difference_scale(model)
        colours = ScalarMappable(Normalize(-top, top), "RdBu_r")
    colour_bar(figure, colours, label, axes, aspect=24, extend="max" if scale == "map" else "both")


def _mean(planes: np.ndarray) -> np.ndarray:
    small = binned(planes, SIDE)[0]
    return small[0] if len(small) == 1 else small.mean(axis=0)
