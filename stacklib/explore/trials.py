"""Integrate the samples of a region with many recipes: read once, and sorted as rarely as possible."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from stacklib.explore.outliers import OutlierLight
from stacklib.frames.frame_masks import open_masks
from stacklib.frames.frame_set import FrameSet, refuse_single
from stacklib.integration.noise import NEIGHBOURHOOD, known_excess, with_noise
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate_samples
from stacklib.integration.samples import RESULT_BYTES, Region, Samples, parts, wait
from stacklib.integration.second_pass import Searched, passes, search_frames, spatial_means
from stacklib.integration.threads import in_threads
from stacklib.kernel.limit_trials import LimitTrials, can_share, without_limits
from stacklib.kernel.passes import try_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.measurement.measurements import FrameMeasurements, measure_frames
from stacklib.normalization.preparation import Preparation, prepare
from stacklib.normalization.settings import Settings
from stacklib.normalization.weighting import needs_noise
from stacklib.output.integrated_image import bring_into_range, undo_range
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RejectionParameters
from stacklib.spatial.masks import FrameMasks
from stacklib.utils.progress import progress_bar

__all__ = ["NEAR", "Trial", "Trials", "without_neighbours", "without_rule"]

Found = TypeVar("Found")

#: Largest size in bytes of the results made at the same time: samples are sorted once for all of these.
RESULTS = 512 << 20
#: Parameters of what looks at neighbors.
OF_NEIGHBOURS = (
    "footprints",
    "footprint_strength",
    "ignore_trails",
    "joint_colour",
    "large_scale_low",
    "large_scale_high",
    "large_scale_layers",
    "large_scale_growth",
    "masks",
)
#: Means that need only the pixels around a sample, and not whole frames.
NEAR = {"colour", "own"}
#: The last so many searches are kept as they were, so that trails can be switched on and off.
SEARCHES = 2
#: With fewer limits than this, `LimitTrials` does not save time.
FEW = 4


@dataclass
class Trial:
    """The result of one setting, by its position.

    The image, float32, shape (channels, height, width), is that of `stacklib.integrate` for this recipe and
    region, bit for bit; with rejection that looks at neighbors it is that of masks found with the first of
    the settings that differ in the rule and its limits only. `low`, `high` and `data`, shape (channels,),
    count samples rejected low and high by the rule, and samples that are data, rejected or not. For the range
    see `stacklib.integration.result.Integration`.
    """

    position: int
    preparation: Preparation
    image: np.ndarray
    low: np.ndarray
    high: np.ndarray
    data: np.ndarray
    range_factor: float = 1.0
    range_offset: float = 0.0

    @property
    def original(self) -> np.ndarray:
        """The image in the units of the frames, before `output_range`."""
        return undo_range(self.image, self.range_factor, self.range_offset)


@dataclass(frozen=True)
class _Search:
    """Masks, the recipe they were found with, and the samples of the region without what is in them.

    `searched`, if it is still known, makes masks for another choice of trails.
    """

    recipe: Recipe
    masks: FrameMasks
    samples: Samples
    searched: Searched | None = None


class Trials:
    """Integrate the samples of a region, chosen by `read`, with one recipe after another.

    Samples that do not fit into the budget are read again for every few recipes. Trails and the like are
    found on whole frames, and kept. Raise `IntegrationError` if there is only one frame.
    """

    def __init__(self, frames: FrameSet, memory: str | int = "2GB", threads: int | None = None) -> None:
        refuse_single(frames)
        self.frames, self.memory, self.threads = frames, memory, threads
        self.samples: Samples | None = None
        self._measured: dict[tuple, FrameMeasurements] = {}
        self._prepared: dict[Recipe, Preparation] = {}
        self._searched: dict[tuple, _Search] = {}

    def read(self, region: Region | None = None) -> None:
        """Choose the region, by default all of the frames, and read its samples into memory if they fit.

        Raise `RecipeError` if the region, the budget or the number of threads cannot be used.
        """
        self.samples = Samples(self.frames, region, self.threads, self.memory)
        if self.samples.fits():
            self.samples.hold()
            self.samples.keeps_marked = True
        whole = 0, 0, self.frames.width, self.frames.height
        self._searched = {
            key: replace(known, samples=self.samples.masked(known.masks))
            for key, known in self._searched.items()
            if known.masks.region == whole
        }

    def take_measurements(self, preparation: Preparation) -> None:
        """Take the measurements of a preparation of the same frames, so that they are not made again."""
        recipe = preparation.recipe
        low = recipe.range_low if recipe.range_clip_low else None
        self._measured[recipe.scale_estimator, low] = preparation.measurements

    def with_values(self, held: np.ndarray) -> Trials:
        """Return a copy that integrates other values; measurements stay those of the frames."""
        other = copy.copy(self)
        other.samples, other._searched = self.samples.with_values(held), {}
        return other

    def prepare(self, recipe: Recipe) -> Preparation:
        """Prepare a recipe like `stacklib.normalization.preparation.prepare`; nothing is measured twice."""
        basis = without_rule(recipe)
        if basis not in self._prepared:
            noise = recipe.combination == "average" and needs_noise(recipe.weights)
            self._prepared[basis] = prepare(self.frames, basis, measurements=self.measure(recipe, noise))
        found = self._prepared[basis]
        recipe = recipe.replace(rejection=recipe.rule_for(len(self.frames)))
        notes = tuple(dict.fromkeys((*found.notes, *recipe.warnings_for(found.count))))
        own_masks = open_masks(recipe.masks, self.frames) if recipe.masks else {}
        return replace(found, recipe=recipe, notes=notes, own_masks=own_masks)

    def measure(self, recipe: Recipe, noise: bool) -> FrameMeasurements:
        """Measure the frames as a recipe asks for, with or without their noise; nothing is measured twice."""
        low = recipe.range_low if recipe.range_clip_low else None
        key = recipe.scale_estimator, low
        known = self._measured.get(key)
        if known is None or (noise and known.noise_source == "not measured"):
            held = self.samples is not None and self.samples.whole and self.samples.held is not None
            planes = self.samples.plane if held else None
            known = measure_frames(self.frames, key[0], noise, low, threads=self.threads, planes=planes)
            self._measured[key] = known
        if not noise and known.noise_source == "measured":
            # An integration without weights by noise does not know it: use the same numbers here.
            unknown = np.full_like(known.noise, math.nan)
            return replace(known, noise=unknown, noise_source="not measured", notes=())
        return known

    def integrate(
        self,
        recipe: Recipe,
        search: bool = True,
        report: Callable[[float], None] | None = None,
        with_uncertainty: bool = True,
    ) -> Integration:
        """Integrate the region like `stacklib.integrate`; the uncertainty is not corrected for rejection.

        It can be left out, to be quick, and is NaN then.

        What is rejected for its neighbors depends a little on the rule and its limits. Without `search`, what
        was found with other ones is taken, if it is known. `report` is called with the finished fraction of
        a search.
        """
        p = self.prepare(recipe)
        samples = self._without_masked(p, search, report)
        return integrate_samples(samples, p, true_claims=False, with_uncertainty=with_uncertainty)

    def take_masks(self, recipe: Recipe, masks: FrameMasks) -> None:
        """Take masks of whole frames, so that a recipe does not search for what looks at neighbors."""
        p = self.prepare(recipe)
        known = _Search(p.recipe, masks, self.samples.masked(masks))
        self._searched[_search_key(p.recipe, p)] = known

    def searched_with(self, recipe: Recipe) -> Recipe | None:
        """Return the recipe for which the frames were searched that a trial of another one takes.

        None if they have to be searched, or the recipe does not look at neighbors.
        """
        known = self._searched.get(_search_key(recipe, self.prepare(recipe)))
        return None if known is None else known.recipe

    def _without_masked(
        self, p: Preparation, search: bool, report: Callable[[float], None] | None = None
    ) -> Samples:
        """Return the samples without those that are rejected for their neighbors."""
        means = spatial_means(p)
        if not means:
            return self.samples
        key = _search_key(p.recipe, p)
        known = self._searched.get(key)
        if "line" in means and known and known.recipe.ignored_trails != p.recipe.ignored_trails:
            known = self._choose_trails(key, known, p.recipe)
        if known is None or (search and known.recipe != p.recipe):
            near = not set(means) - NEAR
            around = NEIGHBOURHOOD * p.settings(0).period + 1
            samples = self.samples.widened(around) if near else self.samples
            _, _, width, height = samples.region if near else (0, 0, self.frames.width, self.frames.height)
            total, done = passes(p) * self.frames.channels * width * height, 0

            def tell(pixels: int) -> None:
                nonlocal done
                done += pixels
                if report is not None:
                    report(min(done / total, 1.0))

            searched = search_frames(samples, p, report=tell, whole=not near)
            masks = searched.masks(p.recipe.ignored_trails, again=not near)
            self._searched.pop(key, None)
            known = _Search(p.recipe, masks, self.samples.masked(masks), None if near else searched)
            self._searched[key] = known
            for old in [each for each, one in self._searched.items() if one.searched][:-SEARCHES]:
                self._searched[old] = replace(self._searched[old], searched=None)
        return known.samples

    def _choose_trails(self, key: tuple, known: _Search, recipe: Recipe) -> _Search | None:
        """Use or ignore other trails of a search; None if it is not known well enough."""
        if known.searched is None:
            return None
        masks = known.searched.masks(recipe.ignored_trails, again=True)
        searched_with = known.recipe.replace(ignore_trails=recipe.ignore_trails)
        self._searched[key] = replace(
            known, recipe=searched_with, masks=masks, samples=self.samples.masked(masks)
        )
        return self._searched[key]

    def outlier_light(self, recipe: Recipe, image: np.ndarray) -> OutlierLight:
        """Find the light of outliers with the normalization of a recipe without rejection.

        The image is the region integrated with it, in the units of the frames.
        """
        if recipe.combination != "average":
            # A median holds next to no light of outliers: compare with an average.
            recipe = recipe.replace(combination="average", weights="none")
            image = self.integrate(recipe).original
        return OutlierLight.find(self.samples, self.prepare(recipe), image)

    def each(
        self,
        preparations: Sequence[Preparation],
        look: Callable[[Trial], Found],
        progress: bool = False,
        report: Callable[[float], None] | None = None,
    ) -> list[Found]:
        """Integrate the samples with each of the preparations, and call a function with each result.

        `look` is called with each `Trial`, from several threads and in any order, `report` repeatedly with
        the finished fraction, from the calling thread. Return the values of `look`, one per preparation.
        Images are released unless `look` keeps them.
        """
        found: dict[int, Found] = {}

        def tell(part: float) -> None:
            if report is not None:
                report((len(found) + part) / len(preparations))

        with (
            ThreadPoolExecutor(self.samples.threads) as lookers,
            progress_bar(len(preparations), "Settings tried", "setting", progress) as bar,
        ):
            for group, by_limits in _groups(preparations):
                step = self._together(4 if by_limits else RESULT_BYTES)
                for first in range(0, len(group), step):
                    chosen = group[first : first + step]
                    trials = self._integrate([preparations[i] for i in chosen], chosen, by_limits, tell)
                    found.update(zip(chosen, lookers.map(look, trials), strict=True))
                    bar.update(len(chosen))
        return [found[i] for i in range(len(preparations))]

    def _together(self, pixel: int) -> int:
        """Return how many results can be made at the same time, for so many bytes per pixel."""
        _, _, width, height = self.samples.region
        pixels = self.frames.channels * width * height
        left = self.samples.left_for_samples + RESULT_BYTES * pixels
        left -= self.samples.in_memory
        return max(1, min(left, RESULTS) // (pixel * pixels))

    def _integrate(
        self,
        preparations: list[Preparation],
        positions: list[int],
        by_limits: bool,
        tell: Callable[[float], None],
    ) -> list[Trial]:
        """Integrate with preparations that share the sorted samples; `tell` gets the number done."""
        samples = self._without_masked(preparations[0], search=False)
        samples, threads = samples.marked(preparations[0].marks), samples.threads
        _, _, width, height = samples.region
        channels, used = self.frames.channels, preparations[0].used
        by_frame = [p for p in preparations if p.by_frame]
        make = with_noise if by_frame else Preparation.settings
        settings = [[make(p, channel) for p in preparations] for channel in range(channels)]
        excess = None
        if by_frame:
            # All of them compare the samples alike.
            noisy = [own[0] for own in settings]
            excess = known_excess(samples, preparations[0], noisy, in_threads)
        images = np.empty((channels, len(preparations), height * width), np.float32)
        covered = np.empty((channels, height * width), np.bool_)
        sums = np.zeros((channels, 3, len(preparations)), np.int64)
        pieces = sum(len(parts((stop - start) * width, threads)) for _, start, stop in samples.bands(used))
        done = itertools.count(1)

        def finished() -> None:
            tell(len(positions) * next(done) / pieces)

        with ThreadPoolExecutor(threads) as workers, closing(samples.read_ahead(used)) as bands:
            for channel, start, stop, raw in bands:
                here = slice(start * width, stop * width)
                out = images[channel][:, here], covered[channel, here]
                known = None if excess is None else excess[channel, here]
                running = [
                    workers.submit(_try, by_limits, settings[channel], raw, piece, *out, known)
                    for piece in parts(raw.shape[1], threads)
                ]
                sums[channel] += sum(wait(running, finished))
                del raw
        shape = (channels, height, width)
        if samples.masks:
            # They are data all the same.
            for channel in range(channels):
                planes = np.zeros((3, height, width), np.float32)
                fallen = samples.masks.count(used, channel, samples.region, *planes)
                sums[channel, 2] += fallen.total.sum()
        trials = []
        for k, (preparation, position) in enumerate(zip(preparations, positions, strict=True)):
            image = np.ascontiguousarray(images[:, k]).reshape(shape)
            trial = Trial(position, preparation, image, *sums[:, :, k].T)
            if preparation.measurements.unit_range:
                how = preparation.recipe.output_range
                trial.range_factor, trial.range_offset, _ = bring_into_range(
                    image, covered.reshape(shape), how
                )
            trials.append(trial)
        return trials


def _try(
    by_limits: bool,
    settings: list[Settings],
    raw: np.ndarray,
    piece: tuple[int, int],
    images: np.ndarray,
    covered: np.ndarray,
    excess: np.ndarray | None,
) -> np.ndarray:
    """Integrate a piece of a band with settings that share the sorted samples, see `LimitTrials.run`."""
    first, last = piece
    if by_limits:
        return LimitTrials(settings).run(raw, first, last, images, covered)
    known = None if excess is None else excess[first:last]
    pixels = [Pixels.empty(last - first, each, with_uncertainty=False, excess=known) for each in settings]
    counts = try_tiles(np.ascontiguousarray(raw[:, first:last]), settings, pixels)
    covered[first:last] = pixels[0].coverage > 0
    for image, each in zip(images, pixels, strict=True):
        image[first:last] = each.image
    return np.array([[c.low.sum(), c.high.sum(), c.data.sum()] for c in counts]).T


def without_rule(recipe: Recipe) -> Recipe:
    """Return the recipe without rejection and with default limits."""
    known = Recipe.parameters()
    defaults = {name: known[name].default for name in (*RejectionParameters.parameters(), *OF_NEIGHBOURS)}
    return recipe.replace(**defaults | {"rejection": "none"})


def without_neighbours(recipe: Recipe) -> Recipe:
    """Return the recipe with the rule alone, without anything that looks at neighbors."""
    known = Recipe.parameters()
    defaults = {name: known[name].default for name in OF_NEIGHBOURS}
    return recipe.replace(**defaults | {"joint_colour": False})


def _search_key(recipe: Recipe, p: Preparation) -> tuple:
    """Return what a search depends on, besides the rule and its limits.

    Which trails are ignored is a choice among those found.
    """
    chosen = (str(getattr(recipe, name)) for name in OF_NEIGHBOURS if name != "ignore_trails")
    return without_rule(recipe), p.used.tobytes(), spatial_means(p), *chosen


def _groups(preparations: Sequence[Preparation]) -> Iterator[tuple[list[int], bool]]:
    """Yield positions of preparations that share the sorted samples, and whether only their limits differ."""
    alike: dict[tuple, list[int]] = {}
    for i, p in enumerate(preparations):
        compared = (p.rejection_factor[p.used], p.rejection_offset[p.used])
        samples = p.settings(0).data_range, id(p.surfaces)
        masks = (*_search_key(p.recipe, p), str(p.recipe.ignore_trails)) if spatial_means(p) else ()
        key = (p.used.tobytes(), *(a.tobytes() for a in compared), *samples, masks)
        alike.setdefault(key, []).append(i)
    for group in alike.values():
        by_limits: dict[tuple, list[int]] = {}
        for i in group:
            p = preparations[i]
            key = (without_limits(p.recipe), p.factor.tobytes(), p.offset.tobytes(), p.weights.tobytes())
            by_limits.setdefault(key, []).append(i)
        others = []
        for some in by_limits.values():
            if len(some) >= FEW and can_share(preparations[some[0]].settings(0)):
                yield some, True
            else:
                others += some
        if others:
            yield others, False
