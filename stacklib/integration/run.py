"""Integrate frames: measure, normalize, reject and combine, band by band."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stacklib.errors import StacklibWarning
from stacklib.formats.scratch import MEMORY_IN_ALL, memory_held, memory_limited
from stacklib.frames.frame_set import FrameSet, open_frames, refuse_single
from stacklib.frames.kinds import calibration_kind
from stacklib.integration.cluster import Cluster
from stacklib.integration.colour.one_pass import fill_without_hits, takes_one_pass
from stacklib.integration.first.plan import steps_of
from stacklib.integration.kept.growing import Keeper
from stacklib.integration.noise import Work, known_excess, with_noise
from stacklib.integration.noise_image import measure_noise, noise_window
from stacklib.integration.registration import check_registration, registration_of
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region, Samples, cancelled_on_error, wait
from stacklib.integration.second_pass import (
    Workers,
    find_masks,
    integrate_and_search,
    integrates_meanwhile,
    passes,
    spatial_means,
)
from stacklib.integration.starlight import Starlight, has_unknown_light, starlight_notes, starlight_of
from stacklib.integration.threads import Integrated, Threads, in_threads
from stacklib.kernel.pixels import DATA, Counts, Pixels
from stacklib.kernel.scatter import widen
from stacklib.measurement.measurements import Planes
from stacklib.normalization.preparation import Preparation, prepare
from stacklib.normalization.settings import Settings
from stacklib.output.history import range_warnings
from stacklib.recipe.recipe import Recipe
from stacklib.spatial.masks import FrameMasks
from stacklib.utils.ahead.processes import compile_ahead
from stacklib.utils.compiled import not_kept
from stacklib.utils.progress import progress_bar
from stacklib.utils.resources import give_back_memory, one_thread_in_blas

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["Work", "integrate", "integrate_samples"]

#: Percentages of a whole run, at the start and at the end of each step; the latter two with a search.
MEASURING, INTEGRATING = (0, 40), (40, 100)
SEARCHING, AFTER_SEARCH = (40, 80), (80, 100)


@one_thread_in_blas()
def integrate(
    frames: FrameSet | str | Path | list,
    recipe: Recipe | None = None,
    region: Region | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
    client: Client | None = None,
    keep_samples: bool = False,
) -> Integration:
    """Integrate registered frames into one image.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        At least two registered frames of the same size, or anything `open_frames` accepts.
    recipe : Recipe, optional
        Parameters of the integration. Default is `Recipe.suggest` for these frames.
    region : tuple of int, optional
        Integrate only this region: left, top, width, height in pixels. Location, scale and weights are
        still measured on whole frames, so the values equal those of the whole image.
    memory : str or int
        Memory budget for samples and result, such as ``"800MB"``, ``"4GB"`` or a number of bytes. Frames
        that fit are read once. Otherwise they are read once for measuring (unless measurements are cached)
        and once for integration, in bands. So are frames that fit if they are measured already and not
        compressed, which takes less memory.
    threads : int, optional
        Number of threads. Default is one per CPU.
    progress : bool
        Show progress bars.
    client : dask.distributed.Client, optional
        Measure and integrate on the workers of a Dask cluster. They read the frames from the same paths.
        `memory` is then the budget of each worker, within its own limit. See
        `stacklib.integration.cluster`.
    keep_samples : bool
        Keep the sorted samples in the cache folder, 9 bytes each, and use those that are there: when a few
        frames were added or left out, the others are not read again. This is for rules that need only the
        ends of the sorted samples, such as sigma, and neither for winsorized_sigma nor for `joint_colour`,
        the defaults for many frames and for color, nor for a `client`. If it cannot be, all frames are
        integrated, with a warning. `Integration.how` says what was done.

    Returns
    -------
    Integration
        The image, its maps and the frame table. They do not depend on `memory`, `threads`, `client` and
        `keep_samples`, to the last bit.

    Raises
    ------
    FrameError
        If a frame cannot be used, or the frames do not match.
    RecipeError
        If a parameter is invalid.
    IntegrationError
        If the frames cannot be integrated with this recipe, or the cluster cannot be used.

    Warns
    -----
    StacklibWarning
        For possible problems, such as limits that cannot reject anything with this few frames.

    Examples
    --------
    >>> result = integrate("sample_data/M13/4_Registered", progress=False)  # doctest: +SKIP
    >>> result.image.shape  # doctest: +SKIP
    (1, 256, 320)
    """
    frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
    recipe = Recipe.suggest(frames) if recipe is None else recipe
    refuse_single(frames)
    if client is None:
        compile_ahead(steps_of(frames, recipe), progress)
    # What measuring takes must not add to what the result takes.
    give_back_memory()
    samples = Samples(frames, region, threads, memory)
    cluster = None if client is None else Cluster(client, frames, memory)
    keeper = Keeper(frames, keep_samples, cluster is not None)
    workers: Workers = Threads() if cluster is None else cluster
    spread = None if cluster is None else cluster.measure
    spare = samples.spare if cluster is None else MEMORY_IN_ALL
    if memory_held() > spare:
        # They were decompressed before the run.
        frames.close()
    with memory_limited(spare):
        held = cluster is None and samples.whole and samples.fits() and not keeper.expected
        # Frames are measured while the next ones are read, unless all is known.
        reading = samples.held_soon(at_once=False) if held else nullcontext()
        with _measuring(progress, frames) as report, reading as planes:
            preparation = prepare(frames, recipe, samples.threads, report, planes, spread=spread)
        if held and samples.held is None and (keep_samples or not _takes_bands(preparation)):
            samples.hold()
        planes = keeper.planes if samples.held is None else samples.plane
        # Samples that were kept are read by one thread.
        with ThreadPoolExecutor(samples.threads if held else 1) as pool:
            noise = _noise_of_frames(preparation, planes, pool)
            light = _light_of_stars(preparation, samples, pool)
            preparation, shift = _checked(preparation, samples, noise, light)
        samples = samples.settled(preparation.marks, preparation.used)
        for note in preparation.notes:
            warnings.warn(note, StacklibWarning, stacklevel=2)
        without_hits = integrated = None
        if cluster is None and takes_one_pass(samples, preparation):
            without_hits = _without_hits(samples, preparation, progress)
        if without_hits is None and spatial_means(preparation):
            meanwhile = cluster is None and integrates_meanwhile(samples, preparation)
            masks, integrated = _searched(samples, preparation, workers, progress, meanwhile)
            samples = samples.masked(masks)
            preparation = replace(preparation, notes=(*preparation.notes, *masks.notes))
            for note in masks.notes:
                warnings.warn(note, StacklibWarning, stacklevel=2)
        spatial = without_hits is not None or samples.masks is not None
        with keeper.work(samples, preparation, spatial, workers.integrate) as work:
            if without_hits is not None:
                samples, result = without_hits
            elif integrated is not None:
                result = _without_masked(samples, preparation, integrated, progress)
            else:
                result = integrate_samples(samples, preparation, progress, work=work)
        result.shift, result.how = shift, keeper.words
        again = partial(integrate_samples, true_claims=False)
        result.measure_scale = partial(measure_noise, noise_window(samples), again)
    notes = range_warnings(result.range_factor, result.truncated, result.recipe.output_range)
    for note in filter(None, [*notes, keeper.note, not_kept()]):
        warnings.warn(note, StacklibWarning, stacklevel=2)
    frames.close()
    return result


def _takes_bands(preparation: Preparation) -> bool:
    """Return whether samples that are read band by band are read as fast as if all of them were held."""
    once = not preparation.by_frame and not spatial_means(preparation)
    return once and all(frame.source.is_plain for frame in preparation.used_frames)


def _noise_of_frames(
    preparation: Preparation, planes: Planes | None, pool: ThreadPoolExecutor
) -> list[Future]:
    """Start to measure the noise of the frames in planes that are in memory, if they are."""
    if planes is None:
        return []
    return [
        pool.submit(preparation.frame_noise, channel, planes)
        for channel in range(preparation.frames.channels)
    ]


def _light_of_stars(
    preparation: Preparation, samples: Samples, pool: ThreadPoolExecutor
) -> Future[Starlight] | None:
    """Start to measure the light of the stars, if there are any and it is not known."""
    if calibration_kind(preparation.used_frames) or not has_unknown_light(preparation):
        return None
    return pool.submit(starlight_of, preparation, _whole_frames(samples), samples.threads)


def _whole_frames(samples: Samples) -> np.ndarray | None:
    return samples.held if samples.whole else None


def _checked(
    preparation: Preparation, samples: Samples, noise: list[Future], light: Future[Starlight] | None
) -> tuple[Preparation, np.ndarray | None]:
    """Check that the frames lie on each other, and what their factors and weights go by.

    The `noise` of the frames and the `light` of the stars are measured meanwhile. Returns the shift of each,
    (frames, 2), NaN if not known; None for calibration frames, whose pixels are those of the camera.
    """
    if calibration_kind(preparation.used_frames):
        wait(noise)
        notes = [*preparation.notes, *preparation.doubts_about_weights()]
        return replace(preparation, notes=tuple(notes)), None
    meanwhile = noise if light is None else [*noise, light]
    with cancelled_on_error(meanwhile):
        found = registration_of(preparation, _whole_frames(samples), samples.threads)
    wait(meanwhile)
    used = preparation.used
    names = [preparation.measurements.names[i] for i in used]
    notes = check_registration(found, names, preparation.recipe.allow_unregistered)
    said = starlight_notes(preparation, found, None if light is None else light.result())
    notes = [*said, *notes, *preparation.doubts_about_weights()]
    shift = np.full((len(preparation.frames), 2), np.nan)
    shift[used] = found.shift
    return replace(preparation, notes=tuple(notes)), shift


def _searched(
    samples: Samples, preparation: Preparation, workers: Workers, progress: bool, meanwhile: bool
) -> tuple[FrameMasks, Integrated | None]:
    """Find the masks of a run, and perhaps integrate the samples `meanwhile`."""
    frames, used = preparation.frames, preparation.used
    total = frames.channels * frames.width * frames.height * passes(preparation)
    title = f"{used.size} frames searched"
    with progress_bar(total, title, " pixels", progress, scale=True, part=SEARCHING) as bar:
        integrated = None
        if meanwhile:
            masks, integrated = integrate_and_search(samples, preparation, bar.update)
        else:
            masks = find_masks(samples, preparation, workers, bar.update)
        bar.update(total - bar.n)
    return masks, integrated


def _without_masked(
    samples: Samples, preparation: Preparation, integrated: Integrated, progress: bool
) -> Integration:
    """Integrate the pixels with masked samples again."""
    masks, whole = samples.masks, integrated.whole
    assert masks is not None
    title = f"{preparation.used.size} frames integrated"
    with progress_bar(whole.image.size, title, " pixels", progress, scale=True, part=AFTER_SEARCH) as bar:
        integrated.take_out(masks, bar.update)
    return _assembled(samples, preparation, integrated.settings, whole, integrated.counts)


@contextmanager
def _measuring(shown: bool, frames: FrameSet) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of measured planes. Yields a callable that takes (done, total)."""
    planes = len(frames) * frames.channels
    with progress_bar(planes, f"{len(frames)} frames measured", "plane", shown, part=MEASURING) as bar:

        def report(count: int, total: int) -> None:
            # More to measure turns up if the frames cover different parts.
            bar.total = max(bar.total or 0, total)
            bar.update(count - bar.n)

        yield report


def integrate_samples(
    samples: Samples,
    preparation: Preparation,
    progress: bool = False,
    true_claims: bool = True,
    work: Work = in_threads,
    with_uncertainty: bool = True,
) -> Integration:
    """Integrate samples of prepared frames.

    `true_claims` corrects the uncertainty for rejection, see `stacklib.kernel.uncertainty`. That takes a
    fraction of a second, whatever the size of the region. Without uncertainty, which is NaN then, the noise
    of the frames is measured only if the rule needs it. `work` integrates the bands. Samples with masks, see
    `Samples.masked`, count as data and as rejected, and are absent otherwise.
    """
    _, _, width, height = samples.region
    channels, used = preparation.frames.channels, preparation.used
    samples = samples.marked(preparation.marks)
    true_claims = true_claims and with_uncertainty
    if with_uncertainty or preparation.by_frame:
        settings = [with_noise(preparation, channel, true_claims) for channel in range(channels)]
    else:
        settings = [preparation.settings(channel) for channel in range(channels)]
    # The edge of a region has the same neighbors as in the whole image.
    first_pass = preparation.by_frame or (true_claims and not samples.whole)
    percent = INTEGRATING if samples.masks is None else AFTER_SEARCH
    total, title = channels * width * height, f"{used.size} frames integrated"
    counts = [Counts.zeros(used.size) for _ in range(channels)]
    with progress_bar(total * (1 + first_pass), title, " pixels", progress, scale=True, part=percent) as bar:
        excess = known_excess(samples, preparation, settings, work, bar.update) if first_pass else None
        bar.update(total * first_pass - bar.n)
        whole = Pixels.empty((channels, width * height), settings[0], with_uncertainty, excess)
        planes = [whole.part(channel) for channel in range(channels)]
        samples = samples.leaving(whole.excess.nbytes)
        with closing(work(samples, used, settings, planes)) as done:
            for channel, pixels, found in done:
                counts[channel].add(found)
                bar.update(pixels)
    if not with_uncertainty:
        whole = whole._replace(uncertainty=np.full_like(whole.coverage, np.nan))
    return _assembled(samples, preparation, settings, whole, counts)


def _without_hits(
    samples: Samples, preparation: Preparation, progress: bool
) -> tuple[Samples, Integration] | None:
    """Integrate samples without what hits in color took with them; returns the samples left, too.

    None if there are too many hits for that, see `fill_without_hits`.
    """
    frames, used = preparation.frames, preparation.used
    total = frames.channels * frames.width * frames.height * (1 + preparation.by_frame)
    title = f"{used.size} frames integrated"
    with progress_bar(total, title, " pixels", progress, scale=True, part=INTEGRATING) as bar:
        filled = fill_without_hits(samples, preparation, bar.update)
    if filled is None:
        return None
    masks, integrated = filled
    left = samples.masked(masks)
    return left, _assembled(left, preparation, integrated.settings, integrated.whole, integrated.counts)


def _assembled(
    samples: Samples,
    preparation: Preparation,
    settings: list[Settings],
    whole: Pixels,
    counts: list[Counts],
) -> Integration:
    """Return the result of planes and counts by channel."""
    _, _, width, height = samples.region
    used, planes = preparation.used, [whole.part(channel) for channel in range(len(settings))]
    if whole.ratio.size:
        for own, part in zip(settings, planes, strict=True):
            shape = height, width
            ratio, coverage = part.ratio.reshape(shape), part.coverage.reshape(shape)
            widened, places = part.uncertainty.reshape(shape), own.places_from(*samples.region[:2])
            widen(widened, ratio, coverage, own.relative_noise, samples.threads, places)
    masks, fallen = samples.masks, []
    if masks is not None:
        for channel, (part, counted) in enumerate(zip(planes, counts, strict=True)):
            maps = (part.rejection_low, part.rejection_high, part.coverage)
            low, high, coverage = (plane.reshape(height, width) for plane in maps)
            fallen.append(masks.count(used, channel, samples.region, low, high, coverage))
            # They are data all the same.
            counted.table[DATA] += fallen[-1].total
    result = Integration.assemble(preparation, samples.region, whole, counts)
    result.masks, result.mask_counts = masks, fallen
    return result
