"""A region that is integrated with one recipe after another, with its numbers and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stacklib.errors import RecipeError
from stacklib.explore.advisor import Advice, advise
from stacklib.explore.outliers import OutlierLight, window_sums
from stacklib.explore.trials import NEAR, Trials, without_rule
from stacklib.figures.screen import Levels, Limits, binned, levels_of, sampling, screen_limits, stretch
from stacklib.figures.trail_plots import trails_in_words
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES, rule_in_words
from stacklib.recipe.trail_names import TrailName
from stacklib.spatial.ignored_trails import switch_trail
from stacklib.spatial.means import MEANS

__all__ = ["SIDE", "RegionTrials", "brightest_region", "in_short", "limits_preset"]

#: Default side of the region, and the largest number of columns of its pictures.
SIDE = 512
#: Side of the region on which the limits of slow rules are tried.
SLOW_SIDE = 256
#: Largest number of columns of the overview.
OVERVIEW = 480
#: The scale of the rejection maps ends at this many frames, that of the difference at this many standard
#: errors of the image.
MAP_FRAMES, DIFFERENCE_ERRORS = 5, 8


class RegionTrials:
    """A region, integrated with one recipe after another; samples and measurements are kept.

    Default recipe is `Recipe()`; the rule ``auto`` becomes the one it selects. The region is moved and cut to
    lie inside the frames; default is 512 x 512 pixels at the brightest structure. `recipe` is the last recipe
    that could be used, `result` and `plain` the region with it and without rejection; the uncertainty is
    not corrected for rejection. `shown` is the same as `result`, perhaps without uncertainty. `overview` is
    the frame of number `reference` (from 0), binned by `overview_side`.
    """

    def __init__(
        self,
        frames: FrameSet | str | Path | list,
        recipe: Recipe | None = None,
        region: Region | None = None,
    ) -> None:
        self.frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
        recipe = Recipe() if recipe is None else recipe
        self.recipe = recipe.replace(rejection=recipe.rule_for(len(self.frames)))
        self.trials = Trials(self.frames)
        # Weights by noise can be chosen later: measure it while the frames are read anyway.
        self.trials.measure(self.recipe, noise=True)
        self.reference = self.trials.prepare(self.recipe).reference
        reference = self.frames[self.reference].read()
        self.overview, self.overview_side = binned(reference, OVERVIEW)
        self.region = brightest_region(self.overview, self.overview_side) if region is None else region

    @property
    def region(self) -> Region:
        """The region; a new one is moved, then cut, to lie inside the frames."""
        return self.trials.samples.region

    @region.setter
    def region(self, region: Region) -> None:
        left, top, width, height = (int(value) for value in region)
        width = min(max(width, 1), self.frames.width)
        height = min(max(height, 1), self.frames.height)
        left = min(max(left, 0), self.frames.width - width)
        top = min(max(top, 0), self.frames.height - height)
        self.trials.read((left, top, width, height))
        pixels = self.frames.channels * self.frames.height * self.frames.width
        if 4 * len(self.frames) * pixels > self.trials.samples.spare:
            # Decompressed frames are kept for the next region if the budget has room for all.
            self.frames.close()
        self._basis: Recipe | None = None
        self.integrate(self.recipe, search=False, with_uncertainty=False)

    def integrate(
        self,
        recipe: Recipe,
        search: bool = True,
        report: Callable[[float], None] | None = None,
        with_uncertainty: bool = True,
    ) -> Integration:
        """Integrate the region with another recipe, and keep the recipe if that is possible.

        For the options see `stacklib.explore.trials.Trials.integrate`.
        """
        self.shown = self.trials.integrate(recipe, search, report, with_uncertainty)
        self.recipe, self._complete = recipe, with_uncertainty
        basis = without_rule(recipe)
        if basis != self._basis:
            self._basis = basis
            self._limits: Limits | None = None
            self._levels: Levels | None = None
            self._difference_top: float | None = None
            self._light: OutlierLight | None = None
            self.plain = self.trials.integrate(basis)
        return self.shown

    @property
    def result(self) -> Integration:
        """The region with the recipe, with its uncertainty."""
        if not self._complete:
            self.shown, self._complete = self.trials.integrate(self.recipe, search=False), True
        return self.shown

    @property
    def outdated(self) -> str:
        """Rule and limits for which the frames were searched, if they are other ones now; else empty."""
        if self.shown.masks is None:
            return ""
        known = self.trials.searched_with(self.recipe)
        # Trails are chosen after the search.
        if known is None or known.replace(ignore_trails=self.recipe.ignore_trails) == self.recipe:
            return ""
        return rule_in_words(known.rule_for(self.shown.preparation.count), known.to_dict())

    @property
    def searches_region(self) -> bool:
        """Whether a search needs the region only, which takes about as long as integrating it."""
        return not set(self.shown.masked) - NEAR

    def with_trail(self, name: str, used: bool) -> Recipe:
        """Return the recipe with a trail, by its name in `Integration.trails`, that is used or ignored.

        Raise `RecipeError` if no such trail was found.
        """
        result = self.shown
        names = result.preparation.measurements.names
        for i, lines in ({} if result.masks is None else result.masks.lines).items():
            for line in lines:
                if str(TrailName.at(names[i], (line.x0, line.y0, line.x1, line.y1))) == name:
                    ignored = switch_trail(self.recipe.ignored_trails, names[i], line, used)
                    return self.recipe.replace(ignore_trails=[str(each) for each in ignored])
        raise RecipeError(f"{name}: no such trail was found")

    # numbers -------------------------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, float]:
        """Rejected and expected samples, noise penalty and residual outlier signal, all in percent.

        Where frames are compared by their light, also the expected noise for equal starlight and that with
        the best weights, in percent of the reference frame. Where neighbors are looked at, also `masked`, the
        samples rejected for their neighbors.
        """
        result = self.shown
        expected = result.expected_rejection
        return {
            "rejected_low": 100 * float(result.rejected_low.mean()),
            "rejected_high": 100 * float(result.rejected_high.mean()),
            "expected_low": 100 * expected[0],
            "expected_high": 100 * expected[1],
            "noise_penalty": 100 * (result.expected_noise_factor - 1),
            "residual_light": self.residual_light(),
            **_noise_for_light(result),
            **(
                {"masked": 100 * float(sum(lost.mean() for lost in result.masked.values()))}
                if result.masked
                else {}
            ),
        }

    def residual_light(self) -> float:
        """Light of outliers left, in percent of that without rejection; NaN without outliers."""
        if self._light is None:
            self._light = self.trials.outlier_light(self._basis, self.plain.original)
        return self._light.left(self.shown.original)

    def advise(self, report: Callable[[float], None] | None = None) -> Advice:
        """Return the proposal of `stacklib.advise`, for a slow rule from 256 x 256 pixels in the middle."""
        region = self.region
        if RULES[self.shown.rule].slow:
            left, top, *size = region
            width, height = (min(side, SLOW_SIDE) for side in size)
            region = left + (size[0] - width) // 2, top + (size[1] - height) // 2, width, height
        return advise(self.frames, self.recipe, region, progress=False, report=report)

    def words(self, numbers: dict[str, float] | None = None, with_trails: bool = True) -> str:
        """The numbers as text, with or without the number of trails."""
        n = self.numbers if numbers is None else numbers
        residual = n["residual_light"]
        average = "without rejection" if self.recipe.combination == "average" else "in the plain average"
        light = "no outliers here" if math.isnan(residual) else f"{residual:.1f} % of that {average}"
        return (
            f"rejected low {n['rejected_low']:.3f} %, expected for pure noise {n['expected_low']:.3f} %\n"
            f"rejected high {n['rejected_high']:.3f} %, expected for pure noise {n['expected_high']:.3f} %\n"
            f"noise penalty for pure noise {n['noise_penalty']:+.2f} %\n"
            f"residual outlier signal: {light}"
            + (
                f"\nnoise for equal starlight {n['noise_for_light']:.1f} % of that of the reference frame, "
                f"with the best weights {n['best_noise_for_light']:.1f} %"
                if "noise_for_light" in n
                else ""
            )
            + self._masked_in_words(with_trails)
        )

    def _masked_in_words(self, with_trails: bool) -> str:
        """Say what was rejected for its neighbors, in lines of their own; empty if they are not looked at."""
        result = self.shown
        if not result.masked:
            return ""
        lost = (
            f"{means.words} {100 * result.masked[means.name].mean():.3f} %"
            for means in MEANS
            if means.name in result.masked
        )
        text = f"\nrejected for their neighbors: {', '.join(lost)}"
        if with_trails and "line" in result.masked:
            words = trails_in_words(result)
            text += f"\n{words[0].lower()}{words[1:]}"
        if self.outdated and not self.searches_region:
            text += f"\nthe frames were searched for {self.outdated}; search again for these settings"
        return text

    # pictures ------------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """The stretch of static pictures; it changes only with region, normalization, weights or ranges."""
        if self._limits is None:
            self._limits = screen_limits(binned(self.plain.original, SIDE)[0])
        return self._limits

    @property
    def levels(self) -> Levels:
        """Levels of the region without rejection, from which the stretch of the live pictures follows."""
        if self._levels is None:
            plain = self.plain.original
            step = sampling(plain)
            self._levels = levels_of(plain[:, ::step, ::step])
        return self._levels

    @property
    def difference_top(self) -> float:
        """End of the scale of the difference, in the units of the frames."""
        if self._difference_top is None:
            errors = self.plain.uncertainty[np.isfinite(self.plain.uncertainty)]
            usual = float(np.median(errors)) / self.plain.range_factor if errors.size else 0.0
            self._difference_top = DIFFERENCE_ERRORS * usual or 1e-6
        return self._difference_top

    @property
    def map_top(self) -> float:
        """End of the scale of the maps, as a fraction of the frames."""
        return min(1.0, MAP_FRAMES / self.shown.preparation.count)

    def difference_scale(self) -> tuple[float, str]:
        """End of the scale of the difference, and its unit."""
        adu = self.shown.preparation.full_scale
        return self.difference_top * adu, "ADU" if adu > 1 else "raw value"

    def picture(self, result: Integration | None = None) -> np.ndarray:
        """Return a result for the screen, uint8."""
        image = (self.shown if result is None else result).original
        return np.rint(255 * stretch(binned(image, SIDE)[0], self.limits)).astype(np.uint8)

    def map_picture(self, side: str) -> np.ndarray:
        """Return a rejection map (low, high) for the screen: uint8 levels on a square root scale."""
        fractions = _mean(getattr(self.shown, f"rejection_{side}"))
        return (255 * np.sqrt(np.minimum(fractions / np.float32(self.map_top), 1))).astype(np.uint8)

    def difference(self, other: Integration | None = None) -> np.ndarray:
        """Return the result minus another one, float32 (height, width); by default that without rejection."""
        return _mean(self.shown.original - (self.plain if other is None else other).original)

    def difference_of(self, result: Integration, other: Integration | None = None) -> np.ndarray:
        """Return the same as `difference` in full resolution, of any result."""
        changes = result.original - (self.plain if other is None else other).original
        return changes[0] if len(changes) == 1 else changes.mean(axis=0)

    def difference_picture(self, other: Integration | None = None) -> np.ndarray:
        """Return the difference for the screen: uint8 levels, 0 for darker, 255 for brighter."""
        index = self.difference(other)
        index *= np.float32(127.5 / self.difference_top)
        index += np.float32(127.5)
        np.nan_to_num(index, copy=False, nan=127.5)
        return np.clip(index, 0, 255, out=index).astype(np.uint8)


def limits_preset(recipe: Recipe, rule: str, kind: str) -> Recipe:
    """Return a recipe with other limits of a rule, if there are recommended ones.

    Parameters
    ----------
    recipe : Recipe
        The settings.
    rule : str
        The rule whose limits are changed.
    kind : {"tight", "default", "gentle"}
        The lower ends of the recommended ranges, the default values, or the upper ends.
    """
    known, changes = Recipe.parameters(), {}
    for name in RULES[rule].parameters:
        if usual := known[name].recommended:
            changes[name] = {"tight": usual[0], "default": known[name].default, "gentle": usual[1]}[kind]
    return recipe.replace(**changes)


def in_short(result: Integration) -> str:
    """Return rule and limits in a few words."""
    return rule_in_words(result.rule, result.recipe.to_dict())


def brightest_region(overview: np.ndarray, side: int) -> Region:
    """Return the default region: the window with the most light above the sky.

    `overview` is a frame in bins of `side` pixels, (channels, height, width); NaN and infinite samples count
    as no light. Light is cut off at the 99th percentile, so that structure counts, not a single bright star.
    """
    light = overview.mean(axis=0, dtype=np.float64)
    light[~np.isfinite(light)] = 0
    sky, top = np.percentile(light[light > 0], (50, 99)) if (light > 0).any() else (0.0, 1.0)
    light = np.clip(light, sky, max(top, sky)) - sky
    size = max(1, SIDE // side)
    windows = window_sums(light, size)
    # Among equally good windows, take the one in the middle.
    best = np.argwhere(windows >= 0.999 * windows.max())
    row, column = best[np.argmin(((best - best.mean(axis=0)) ** 2).sum(axis=1))]
    return int(column) * side, int(row) * side, SIDE, SIDE


def _mean(planes: np.ndarray) -> np.ndarray:
    small = binned(planes, SIDE)[0]
    return small[0] if len(small) == 1 else small.mean(axis=0)


def _noise_for_light(result: Integration) -> dict[str, float]:
    """Return the noise that the frames allow for equal starlight, in percent of the reference frame."""
    if result.preparation.photometry is None:
        return {}
    named = {"noise_for_light": result.allowed_noise_ratio, "best_noise_for_light": result.best_noise_ratio}
    return {name: 100 * float(np.nanmean(ratios)) for name, ratios in named.items()}
