"""Integrate frames: plan bands of rows, read them, run the kernel, collect the result."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stacklib.errors import RecipeError, StacklibWarning
from stacklib.frames import FrameSet, open_frames
from stacklib.kernel import Counts, Pixels, run_tiles
from stacklib.preparation import Preparation, prepare
from stacklib.progress import progress_bar
from stacklib.recipe import Recipe
from stacklib.results import Integration
from stacklib.sorting import LANES
from stacklib.uncertainty import claim_factors

__all__ = ["Region", "integrate", "parse_memory"]

#: A part of the image: left, top, width, height, in pixels.
Region = tuple[int, int, int, int]

#: Bytes of samples that are read at once at least, whatever the budget.
LEAST_BAND_BYTES = 16 << 20
#: Pixels whose uncertainty is raised at once.
CLAIM_STEP = 1 << 20
#: Parts into which a band is cut for each thread, so that all end at about the same time.
PARTS = 4


def integrate(
    frames: FrameSet | str | Path | list,
    recipe: Recipe | None = None,
    region: Region | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
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

    Returns
    -------
    Integration
        The image, its maps and the table of the frames. The same bits whatever `memory` and `threads`.

    Raises
    ------
    FrameError, IntegrationError, RecipeError
        When a frame, the set or a parameter cannot be used.

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
    budget = parse_memory(memory)
    threads = _checked_threads(threads)
    area = _checked_region(region, frames)
    samples = _Samples(frames, area, budget, threads, progress)
    with _title(progress, frames, "measured") as report:
        planes = samples.whole_plane if samples.hold() else None
        preparation = prepare(frames, recipe, threads, report, planes)
    for note in preparation.notes:
        warnings.warn(note, StacklibWarning, stacklevel=2)
    collected = _collect(preparation, samples, threads, progress)
    frames.close()
    return Integration.assemble(preparation, area, *collected)


def parse_memory(memory: str | int) -> int:
    """Bytes of a text such as ``"800MB"``, ``"1.5 GB"`` or ``"2GiB"``.

    Raises
    ------
    RecipeError
        When it is not a size of at least 1 MB.
    """
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(memory))
    size = int(float(found[1]) * units[found[2].upper()]) if found and found[2].upper() in units else 0
    if size < 10**6:
        raise RecipeError(f"memory: got {memory!r}, expected a size of at least 1MB, such as 800MB or 4GB")
    return size


def _checked_threads(threads: int | None) -> int:
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise RecipeError(f"threads: got {threads!r}, expected a whole number from 1 to 1024")
    return threads


def _checked_region(region: Region | None, frames: FrameSet) -> Region:
    if region is None:
        return 0, 0, frames.width, frames.height
    try:
        left, top, width, height = (int(value) for value in region)
    except (TypeError, ValueError):
        left = top = width = height = -1
    inside = 0 <= left < left + width <= frames.width and 0 <= top < top + height <= frames.height
    if not inside:
        raise RecipeError(
            f"region: got {region!r}, expected (left, top, width, height) inside the "
            f"{frames.width} x {frames.height} pixels of the frames"
        )
    return left, top, width, height


@contextmanager
def _title(shown: bool, frames: FrameSet, done: str) -> Iterator:
    """A bar that counts measured planes; the callable it yields takes (done, total)."""
    with progress_bar(len(frames) * frames.channels, f"{len(frames)} frames {done}", " planes", shown) as bar:

        def report(count: int, total: int) -> None:
            bar.update(count - bar.n)

        yield report


class _Samples:
    """The raw samples of a region: all in memory where they fit, else read band by band."""

    def __init__(self, frames: FrameSet, area: Region, budget: int, threads: int, progress: bool) -> None:
        self.frames, self.area, self.threads = frames, area, threads
        _, _, width, height = area
        self.result_bytes = 5 * 4 * frames.channels * width * height
        self.left_for_samples = budget - self.result_bytes
        if self.left_for_samples < LEAST_BAND_BYTES:
            warnings.warn(
                f"memory: the result alone takes {self.result_bytes / 1e6:.0f} MB of the budget of "
                f"{budget / 1e6:.0f} MB; about {(self.result_bytes + LEAST_BAND_BYTES) / 1e6:.0f} MB "
                "will be used",
                StacklibWarning,
                stacklevel=3,
            )
        self.held: np.ndarray | None = None

    def hold(self) -> bool:
        """Read all frames at once if they are small enough (and wanted whole); whether it was done."""
        count, channels, height, width = len(self.frames), *self.frames.shape
        whole = self.area == (0, 0, width, height)
        if not whole or 4 * count * channels * height * width > self.left_for_samples:
            return False
        held = np.empty((channels, count, height, width), np.float32)

        def read(job: tuple[int, int]) -> None:
            channel, i = job
            self.frames[i].read_rows(0, height, channel, held[channel, i])

        with ThreadPoolExecutor(self.threads) as pool:
            jobs = [(channel, i) for channel in range(channels) for i in range(count)]
            _wait([pool.submit(read, job) for job in jobs])
        self.held = held
        return True

    def whole_plane(self, i: int, channel: int) -> np.ndarray:
        """A plane that is in memory."""
        return self.held[channel, i]

    def bands(self, used: np.ndarray) -> list[tuple[int, int, int]]:
        """Channel, first and last row of each band, relative to the region."""
        _, _, width, height = self.area
        band_bytes = None
        if self.held is None:
            # Two bands are in memory: one is read while the other is worked on.
            band_bytes = max(self.left_for_samples, LEAST_BAND_BYTES) // 2
        elif used.size < len(self.frames):
            # The kernel wants the used frames side by side: copied, but not all rows at once.
            band_bytes = LEAST_BAND_BYTES
        rows = height
        if band_bytes is not None:
            rows = max(1, min(height, band_bytes // (4 * used.size * width)))
        return [
            (channel, start, min(start + rows, height))
            for channel in range(self.frames.channels)
            for start in range(0, height, rows)
        ]

    def read(self, band: tuple[int, int, int], used: np.ndarray, pool: ThreadPoolExecutor) -> _Band:
        """Start reading a band of the used frames."""
        channel, start, stop = band
        left, top, width, _ = self.area
        if self.held is not None:
            samples = self.held[channel]
            if used.size < len(self.frames):
                samples = samples[used, start:stop]
            return _Band(samples.reshape(used.size, -1), [])
        samples = np.empty((used.size, stop - start, width), np.float32)

        def read(position: int) -> None:
            frame = self.frames[int(used[position])]
            if width == self.frames.width:
                frame.read_rows(top + start, top + stop, channel, samples[position])
            else:
                rows = frame.read_rows(top + start, top + stop, channel)
                samples[position] = rows[:, left : left + width]

        reading = [pool.submit(read, position) for position in range(used.size)]
        return _Band(samples.reshape(used.size, -1), reading)


@dataclass
class _Band:
    """Samples of a band, (frames, pixels), and the reads that fill them."""

    samples: np.ndarray
    reading: list[Future]

    def wait(self) -> np.ndarray:
        """The samples, when they are all there."""
        _wait(self.reading)
        return self.samples


def _wait(futures: list[Future]) -> list:
    """Results of all futures; after an error, or Ctrl-C, none of the others is started any more."""
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _collect(
    preparation: Preparation, samples: _Samples, threads: int, progress: bool
) -> tuple[Pixels, list[Counts]]:
    """Integrate band by band; the pixels, arrays of shape (channels, pixels), and counts by channel."""
    _, _, width, height = samples.area
    channels, used = preparation.frames.channels, preparation.used
    settings = [preparation.settings(channel) for channel in range(channels)]
    keep_slope = preparation.recipe.rule_for(used.size) == "linear_fit"
    whole = Pixels.empty((channels, width * height), keep_slope)
    planes = [whole.part(channel) for channel in range(channels)]
    counts = [Counts.zeros(used.size) for _ in range(channels)]
    bands = samples.bands(used)
    title = f"{used.size} frames integrated"
    with (
        ThreadPoolExecutor(threads) as readers,
        ThreadPoolExecutor(threads) as workers,
        progress_bar(channels * width * height, title, " pixels", progress, scale=True) as bar,
    ):
        coming = samples.read(bands[0], used, readers)
        for position, (channel, start, stop) in enumerate(bands):
            raw = coming.wait()
            if position + 1 < len(bands):
                coming = samples.read(bands[position + 1], used, readers)
            pixels = planes[channel].part(slice(start * width, stop * width))
            parts = _parts(raw.shape[1], threads)
            running = [workers.submit(run_tiles, raw, settings[channel], pixels, *part) for part in parts]
            try:
                for (first, last), future in zip(parts, running, strict=True):
                    counts[channel].add(future.result())
                    bar.update(last - first)
            except BaseException:
                for future in (*running, *coming.reading):
                    future.cancel()
                raise
    for channel, pixels in enumerate(planes):
        _raise_claims(preparation, channel, pixels)
    return whole, counts


def _parts(pixels: int, threads: int) -> list[tuple[int, int]]:
    """The band cut into pieces of whole blocks."""
    step = -(-pixels // (threads * PARTS))
    step = max(-(-step // LANES) * LANES, 16 * LANES)
    return [(start, min(start + step, pixels)) for start in range(0, pixels, step)]


def _raise_claims(preparation: Preparation, channel: int, pixels: Pixels) -> None:
    """Make the uncertainty of a channel true, see `stacklib.uncertainty`."""
    noise = preparation.normalised_noise(channel)
    if not np.all(np.isfinite(noise)):
        noise = np.full(noise.size, preparation.measurements.scale_low[preparation.reference, channel])
    if not np.all(noise > 0):
        noise = np.ones(noise.size)
    level = preparation.measurements.location[preparation.reference, channel]
    factors = claim_factors(preparation.settings(channel), level, noise, pixels.coverage)
    for start in range(0, pixels.coverage.size, CLAIM_STEP):
        part = slice(start, start + CLAIM_STEP)
        pixels.uncertainty[part] *= factors[pixels.coverage[part].astype(np.intp)]
