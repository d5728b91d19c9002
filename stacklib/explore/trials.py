"""Integrate one set of samples with many recipes: read once, sorted once for all that compare alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from stacklib.explore.limit_trials import LimitTrials, can_share, without_limits
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.samples import RESULT_BYTES, Region, Samples, wait
from stacklib.kernel.passes import Pixels, try_tiles
from stacklib.measurement.measurements import FrameMeasurements, measure_frames
from stacklib.normalization.preparation import Preparation, prepare, refuse_single
from stacklib.normalization.settings import Settings
from stacklib.normalization.weighting import needs_noise
from stacklib.output.integrated_image import bring_into_range
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RejectionParameters
from stacklib.rejection.sorting import LANES
from stacklib.utils.progress import progress_bar

__all__ = ["Trial", "Trials", "without_rule"]

Found = TypeVar("Found")

#: Bytes of the results that are made at the same time at most: samples are sorted once for all of these.
RESULTS = 512 << 20
#: Parts into which a band is cut for each thread.
PARTS = 4
#: With fewer limits than this nothing is gained by the short way.
FEW = 4


@dataclass
class Trial:
    """What comes out of one setting.

    Attributes
    ----------
    position : int
        Which of the settings it is.
    preparation : Preparation
        Recipe, normalisation and weights.
    image : ndarray of float32, shape (channels, height, width)
        The same bits as that of `stacklib.integrate` for this recipe and region.
    low, high, data : ndarray of int64, shape (channels,)
        Samples that are rejected on either side, and samples that are data, rejected or not.
    range_factor, range_offset : float
        What `output_range` did, see `stacklib.integration.result.Integration`.
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
        if self.range_factor == 1.0 and self.range_offset == 0.0:
            return self.image
        return (self.image - np.float32(self.range_offset)) / np.float32(self.range_factor)


class Trials:
    """The samples of a region, integrated with one recipe after another.

    Parameters
    ----------
    frames : FrameSet
        At least two frames.
    region : (left, top, width, height), optional
        The part that is wanted; all of it unless given.
    memory : str or int
        Budget for samples and results. Where the samples of the region do not fit, they are read again for
        every few recipes.
    threads : int, optional
        Threads to work with; one a processor unless given.

    Raises
    ------
    IntegrationError
        When there is only one frame.
    RecipeError
        When the region, the budget or the number of threads cannot be used.

    Attributes
    ----------
    samples : Samples
        The samples; in memory where they fit.
    """

    def __init__(
        self,
        frames: FrameSet,
        region: Region | None = None,
        memory: str | int = "2GB",
        threads: int | None = None,
    ) -> None:
        refuse_single(frames)
        self.frames = frames
        self.samples = Samples(frames, region, threads, memory)
        if self.samples.fits():
            self.samples.hold()
        self._measured: dict[tuple, FrameMeasurements] = {}
        self._prepared: dict[Recipe, Preparation] = {}

    def prepare(self, recipe: Recipe) -> Preparation:
        """What `stacklib.normalization.preparation.prepare` gives; nothing is measured twice."""
        count = len(self.frames)
        basis = without_rule(recipe)
        if basis not in self._prepared:
            self._prepared[basis] = prepare(self.frames, basis, measurements=self._measure(recipe))
        found = self._prepared[basis]
        recipe = recipe.replace(rejection=recipe.rule_for(count))
        notes = (*found.notes, *recipe.warnings_for(found.count))
        return replace(found, recipe=recipe, notes=tuple(dict.fromkeys(notes)))

    def _measure(self, recipe: Recipe) -> FrameMeasurements:
        noise = recipe.combination == "average" and needs_noise(recipe.weights)
        low = recipe.range_low if recipe.range_clip_low else None
        key = recipe.scale_estimator, noise, low
        if key not in self._measured:
            held = self.samples.whole and self.samples.held is not None
            self._measured[key] = measure_frames(
                self.frames,
                recipe.scale_estimator,
                noise,
                low,
                self.samples.threads,
                planes=self.samples.plane if held else None,
            )
        return self._measured[key]

    def each(
        self,
        preparations: Sequence[Preparation],
        look: Callable[[Trial], Found],
        progress: bool = False,
        report: Callable[[float], None] | None = None,
    ) -> list[Found]:
        """Integrate the samples with each of the preparations, and look at each result.

        Parameters
        ----------
        preparations : sequence of Preparation
            Of these frames, see `prepare`.
        look : callable
            Called with each `Trial`, from several threads and in no order.
        progress : bool
            Show a progress bar.
        report : callable, optional
            Called again and again with the fraction that is done, from the calling thread.

        Returns
        -------
        list
            What `look` has returned for each of the preparations. The images are given up, unless `look`
            keeps them.
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
        """Results that are made at the same time, when a pixel takes so many bytes."""
        _, _, width, height = self.samples.region
        pixels = self.frames.channels * width * height
        left = self.samples.left_for_samples + RESULT_BYTES * pixels
        if self.samples.held is not None:
            left -= self.samples.held.nbytes
        return max(1, min(left, RESULTS) // (pixel * pixels))

    def _integrate(
        self,
        preparations: list[Preparation],
        positions: list[int],
        by_limits: bool,
        tell: Callable[[float], None],
    ) -> list[Trial]:
        """Integrate with preparations that compare samples alike; `tell` gets how many of them are done."""
        samples, threads = self.samples, self.samples.threads
        _, _, width, height = samples.region
        channels, used = self.frames.channels, preparations[0].used
        settings = [[p.settings(channel) for p in preparations] for channel in range(channels)]
        images = np.empty((channels, len(preparations), height * width), np.float32)
        covered = np.empty((channels, height * width), np.bool_)
        sums = np.zeros((channels, 3, len(preparations)), np.int64)
        work = _by_limits if by_limits else _one_by_one
        bands = samples.bands(used)
        pieces = sum(len(_parts((stop - start) * width, threads)) for _, start, stop in bands)
        done = itertools.count(1)

        def finished() -> None:
            tell(len(positions) * next(done) / pieces)

        with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as workers:
            coming = samples.read(bands[0], used, readers)
            for position, (channel, start, stop) in enumerate(bands):
                raw = coming.wait()
                if position + 1 < len(bands):
                    coming = samples.read(bands[position + 1], used, readers)
                here = slice(start * width, stop * width)
                out = images[channel][:, here], covered[channel, here]
                parts = _parts(raw.shape[1], threads)
                running = [workers.submit(work, raw, settings[channel], *part, *out) for part in parts]
                sums[channel] += sum(wait(running, finished))
        shape = (channels, height, width)
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


def _by_limits(
    raw: np.ndarray,
    settings: list[Settings],
    first: int,
    last: int,
    images: np.ndarray,
    covered: np.ndarray,
) -> np.ndarray:
    return LimitTrials(settings).run(raw, first, last, images, covered)


def _one_by_one(
    raw: np.ndarray,
    settings: list[Settings],
    first: int,
    last: int,
    images: np.ndarray,
    covered: np.ndarray,
) -> np.ndarray:
    """As `LimitTrials.run`, for any settings that compare samples alike."""
    pixels = [Pixels.empty(last - first, each, with_uncertainty=False) for each in settings]
    counts = try_tiles(np.ascontiguousarray(raw[:, first:last]), settings, pixels)
    covered[first:last] = pixels[0].coverage > 0
    for image, each in zip(images, pixels, strict=True):
        image[first:last] = each.image
    return np.array([[c.low.sum(), c.high.sum(), c.data.sum()] for c in counts]).T


def without_rule(recipe: Recipe) -> Recipe:
    """The recipe with `none` for its rule, and default limits."""
    defaults = {name: parameter.default for name, parameter in RejectionParameters.parameters().items()}
    return recipe.replace(**defaults | {"rejection": "none"})


def _groups(preparations: Sequence[Preparation]) -> Iterator[tuple[list[int], bool]]:
    """Positions of those that compare the same samples in the same way.

    Together with whether they differ in nothing but the limits of their rule.
    """
    alike: dict[tuple, list[int]] = {}
    for i, p in enumerate(preparations):
        compared = (p.rejection_factor[p.used], p.rejection_offset[p.used])
        key = (p.used.tobytes(), *(a.tobytes() for a in compared), p.settings(0).data_range)
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


def _parts(pixels: int, threads: int) -> list[tuple[int, int]]:
    """The band cut into pieces of whole blocks."""
    step = max(-(-pixels // (threads * PARTS * LANES)), 16) * LANES
    return [(start, min(start + step, pixels)) for start in range(0, pixels, step)]
