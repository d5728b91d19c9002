"""Integrate frames: measure them, read them band by band, run the kernel, collect the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stacklib.errors import StacklibWarning
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration.cluster import Cluster
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region, Samples, parts
from stacklib.kernel.passes import Counts, Pixels, run_tiles
from stacklib.kernel.uncertainty import claim_factors
from stacklib.normalization.preparation import Preparation, prepare, refuse_single
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.utils.progress import progress_bar

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["Work", "integrate", "integrate_samples"]

#: Integrates bands of samples of the used frames, with settings for each channel, into the pixels of each
#: channel; gives channel, number of pixels and counts of each part that is done.
Work = Callable[[Samples, np.ndarray, list[Settings], list[Pixels]], Iterator[tuple[int, int, Counts]]]


def integrate(
    frames: FrameSet | str | Path | list,
    recipe: Recipe | None = None,
    region: Region | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
    client: Client | None = None,
) -> Integration:
    """Combine registered frames into one image.

    Parameters
    ----------
    frames : FrameSet, or what `open_frames` takes
        At least two registered frames of one geometry.
    recipe : Recipe, optional
        The parameters; `Recipe.suggest` for these frames unless given.
    region : (left, top, width, height), optional
        Integrate this part only, in pixels. Location, scale and weights still come from whole frames,
        so the values are those of the whole image.
    memory : str or int
        Budget for samples and result, for instance ``"800MB"``, ``"4GB"`` or a number of bytes. Frames
        that fit are read once, others once to be measured (unless that is known) and once in bands.
    threads : int, optional
        Threads to work with; one a processor unless given.
    progress : bool
        Show progress bars.
    client : dask.distributed.Client, optional
        Measure and integrate on the workers of a Dask cluster, which read the frames themselves, from the
        same paths. `memory` is the budget of each worker then, within its own limit. See
        `stacklib.integration.cluster`.

    Returns
    -------
    Integration
        The image, its maps and the table of the frames. The same bits whatever `memory`, `threads` and
        `client`.

    Raises
    ------
    FrameError, IntegrationError, RecipeError
        When a frame, the set, a parameter or the cluster cannot be used.

    Warns
    -----
    StacklibWarning
        For what the user should know, for instance limits that can reject nothing with so few frames.

    Examples
    --------
    >>> result = integrate("sample_data/M13/4_Registered", progress=False)  # doctest: +SKIP
    >>> result.image.shape  # doctest: +SKIP
    (1, 256, 320)
    """
    frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
    recipe = Recipe.suggest(frames) if recipe is None else recipe
    refuse_single(frames)
    samples = Samples(frames, region, threads, memory)
    cluster = None if client is None else Cluster(client, frames, memory)
    spread, work = (None, in_threads) if cluster is None else (cluster.measure, cluster.integrate)
    with _measuring(progress, frames) as report:
        planes = None
        if cluster is None and samples.whole and samples.fits():
            samples.hold()
            planes = samples.plane
        preparation = prepare(frames, recipe, samples.threads, report, planes, spread=spread)
    for note in preparation.notes:
        warnings.warn(note, StacklibWarning, stacklevel=2)
    result = integrate_samples(samples, preparation, progress, work=work)
    frames.close()
    return result


@contextmanager
def _measuring(shown: bool, frames: FrameSet) -> Iterator:
    """A bar that counts measured planes; the callable it yields takes (done, total)."""
    planes = len(frames) * frames.channels
    with progress_bar(planes, f"{len(frames)} frames measured", "plane", shown) as bar:

        def report(count: int, total: int) -> None:
            bar.update(count - bar.n)

        yield report


def in_threads(
    samples: Samples, used: np.ndarray, settings: list[Settings], planes: list[Pixels]
) -> Iterator[tuple[int, int, Counts]]:
    """Integrate band by band in this process, the next one being read meanwhile; see `Work`."""
    width, threads = samples.region[2], samples.threads
    with ThreadPoolExecutor(threads) as workers, closing(samples.read_ahead(used)) as bands:
        for channel, start, stop, raw in bands:
            pixels = planes[channel].part(slice(start * width, stop * width))
            pieces = parts(raw.shape[1], threads)
            running = [workers.submit(run_tiles, raw, settings[channel], pixels, *piece) for piece in pieces]
            try:
                for (first, last), future in zip(pieces, running, strict=True):
                    yield channel, last - first, future.result()
            except BaseException:
                for future in running:
                    future.cancel()
                raise
            del raw


def integrate_samples(
    samples: Samples,
    preparation: Preparation,
    progress: bool = False,
    true_claims: bool = True,
    work: Work = in_threads,
) -> Integration:
    """Integrate samples with a preparation that is ready.

    Parameters
    ----------
    samples : Samples
        Samples of the frames of the preparation.
    preparation : Preparation
        Recipe, normalisation and weights.
    progress : bool
        Show a progress bar.
    true_claims : bool
        Whether the uncertainty is to be made true, see `stacklib.kernel.uncertainty`; it costs a
        fraction of a second whatever the size of the region.
    work : callable
        Who does it, see `Work`.

    Returns
    -------
    Integration
    """
    _, _, width, height = samples.region
    channels, used = preparation.frames.channels, preparation.used
    make = _with_claims if true_claims else Preparation.settings
    settings = [make(preparation, channel) for channel in range(channels)]
    whole = Pixels.empty((channels, width * height), settings[0])
    planes = [whole.part(channel) for channel in range(channels)]
    counts = [Counts.zeros(used.size) for _ in range(channels)]
    title = f"{used.size} frames integrated"
    with (
        progress_bar(channels * width * height, title, " pixels", progress, scale=True) as bar,
        closing(work(samples, used, settings, planes)) as done,
    ):
        for channel, pixels, found in done:
            counts[channel].add(found)
            bar.update(pixels)
    return Integration.assemble(preparation, samples.region, whole, counts)


def _with_claims(preparation: Preparation, channel: int) -> Settings:
    """Settings of a channel that make its uncertainty true, see `stacklib.kernel.uncertainty`."""
    settings = preparation.settings(channel)
    noise = preparation.normalised_noise(channel)
    if not np.all(np.isfinite(noise)):
        noise = np.full(noise.size, preparation.measurements.scale_low[preparation.reference, channel])
    if not np.all(noise > 0):
        noise = np.ones(noise.size)
    level = preparation.measurements.location[preparation.reference, channel]
    return replace(settings, claims=claim_factors(settings, level, noise))
