"""The raw samples of a set of frames: all in memory where they fit, else read band by band."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from stacklib.errors import RecipeError, StacklibWarning
from stacklib.frames.frame_set import FrameSet
from stacklib.rejection.sorting import LANES
from stacklib.utils.resources import checked_threads, parse_memory

__all__ = ["Band", "Region", "Samples", "checked_region", "parts", "wait"]

#: A part of the image: left, top, width, height, in pixels.
Region = tuple[int, int, int, int]

#: Bytes of samples that are read at once at least, whatever the budget.
LEAST_BAND_BYTES = 16 << 20
#: Bytes of the result for each pixel: five arrays of float32.
RESULT_BYTES = 20
#: Parts into which a band is cut for each thread, so that all end at about the same time.
PARTS = 4


def checked_region(region: Region | None, frames: FrameSet) -> Region:
    if region is None:
        return 0, 0, frames.width, frames.height
    try:
        left, top, width, height = (operator.index(value) for value in region)
    except (TypeError, ValueError):
        left = top = width = height = -1
    inside = 0 <= left < left + width <= frames.width and 0 <= top < top + height <= frames.height
    if not inside:
        raise RecipeError(
            f"region: got {region!r}, expected (left, top, width, height) inside the "
            f"{frames.width} x {frames.height} pixels of the frames"
        )
    return left, top, width, height


class Samples:
    """The raw samples of a region of a set of frames.

    Parameters
    ----------
    frames : FrameSet
        The frames.
    region : (left, top, width, height), optional
        The part that is wanted; all of it unless given.
    threads : int, optional
        Threads that read; one a processor unless given.
    memory : str or int
        Budget for the samples and the result.

    Attributes
    ----------
    held : ndarray of float32, shape (channels, frames, height, width), or None
        The samples of the region, once `hold` has read them.
    """

    def __init__(
        self,
        frames: FrameSet,
        region: Region | None = None,
        threads: int | None = None,
        memory: str | int = "2GB",
    ) -> None:
        self.frames = frames
        self.threads = checked_threads(threads)
        self.region = checked_region(region, frames)
        budget = parse_memory(memory)
        result = RESULT_BYTES * frames.channels * self.region[2] * self.region[3]
        self.left_for_samples = budget - result
        if self.left_for_samples < LEAST_BAND_BYTES:
            warnings.warn(
                f"memory: the result alone takes {result / 1e6:.0f} MB of the budget of "
                f"{budget / 1e6:.0f} MB; about {(result + LEAST_BAND_BYTES) / 1e6:.0f} MB will be used",
                StacklibWarning,
                stacklevel=3,
            )
        self.held: np.ndarray | None = None

    @property
    def whole(self) -> bool:
        """Whether the region is the whole image."""
        return self.region == (0, 0, self.frames.width, self.frames.height)

    def fits(self) -> bool:
        """Whether all samples of the region fit into the budget."""
        _, _, width, height = self.region
        return 4 * len(self.frames) * self.frames.channels * height * width <= self.left_for_samples

    def hold(self) -> np.ndarray:
        """Read all samples of the region into memory; (channels, frames, height, width)."""
        if self.held is None:
            _, _, width, height = self.region
            count, channels = len(self.frames), self.frames.channels
            held = np.empty((channels, count, height, width), np.float32)
            jobs = [(channel, i) for channel in range(channels) for i in range(count)]
            with ThreadPoolExecutor(self.threads) as pool:
                wait(
                    [pool.submit(self._fill, held[channel, i], i, channel, 0, height) for channel, i in jobs]
                )
            self.held = held
        return self.held

    def plane(self, i: int, channel: int) -> np.ndarray:
        """A plane that is in memory, (height, width)."""
        return self.hold()[channel, i]

    def bands(self, used: np.ndarray, rows: int | None = None) -> list[tuple[int, int, int]]:
        """Channel, first and last row of each band, relative to the region; all rows that fit, or `rows`."""
        height = self.region[3]
        rows = rows or self._rows(used)
        return [
            (channel, start, min(start + rows, height))
            for channel in range(self.frames.channels)
            for start in range(0, height, rows)
        ]

    def _rows(self, used: np.ndarray) -> int:
        """Rows of a band that fit into the budget."""
        _, _, width, height = self.region
        if self.held is None:
            # Two bands are in memory: one is read while the other is worked on.
            band_bytes = max(self.left_for_samples, LEAST_BAND_BYTES) // 2
        elif used.size < len(self.frames):
            # The kernel wants the used frames side by side: copied, but not all rows at once.
            band_bytes = LEAST_BAND_BYTES
        else:
            return height
        return max(1, min(height, band_bytes // (4 * used.size * width)))

    def read(self, band: tuple[int, int, int], used: np.ndarray, pool: ThreadPoolExecutor) -> Band:
        """Start reading a band of the used frames."""
        channel, start, stop = band
        if self.held is not None:
            samples = self.held[channel]
            if used.size < len(self.frames):
                samples = samples[used, start:stop]
            return Band(samples.reshape(used.size, -1), [])
        samples = np.empty((used.size, stop - start, self.region[2]), np.float32)
        reading = [
            pool.submit(self._fill, samples[position], int(i), channel, start, stop)
            for position, i in enumerate(used)
        ]
        return Band(samples.reshape(used.size, -1), reading)

    def read_ahead(self, used: np.ndarray) -> Iterator[tuple[int, int, int, np.ndarray]]:
        """Yield channel, first row, last row and samples of each band, and read the next one meanwhile.

        Delete the samples before asking for more: two bands fit into the budget, not three.
        """
        bands = self.bands(used)
        with ThreadPoolExecutor(self.threads) as readers:
            coming = self.read(bands[0], used, readers)
            for position, band in enumerate(bands):
                raw = coming.wait()
                if position + 1 < len(bands):
                    coming = self.read(bands[position + 1], used, readers)
                try:
                    yield *band, raw
                    del raw
                except BaseException:
                    for future in coming.reading:
                        future.cancel()
                    raise

    def _fill(self, out: np.ndarray, i: int, channel: int, start: int, stop: int) -> None:
        """Read rows of the region of one frame into `out`."""
        left, top, width, _ = self.region
        frame = self.frames[i]
        if width == self.frames.width:
            frame.read_rows(top + start, top + stop, channel, out)
        else:
            out[:] = frame.read_rows(top + start, top + stop, channel)[:, left : left + width]


@dataclass
class Band:
    """Samples of a band, (frames, pixels), and the reads that fill them."""

    samples: np.ndarray
    reading: list[Future]

    def wait(self) -> np.ndarray:
        """The samples, when they are all there."""
        wait(self.reading)
        return self.samples


def parts(pixels: int, threads: int) -> list[tuple[int, int]]:
    """Cut a band into pieces of whole blocks."""
    step = max(-(-pixels // (threads * PARTS * LANES)), 16) * LANES
    return [(start, min(start + step, pixels)) for start in range(0, pixels, step)]


def wait(futures: list[Future], each: Callable[[], None] | None = None) -> list:
    """Results of all futures; after an error, or Ctrl-C, none of the others is started any more.

    Parameters
    ----------
    futures : list of Future
        What is waited for.
    each : callable, optional
        Called after each of them.
    """
    results = []
    try:
        for future in futures:
            results.append(future.result())
            if each is not None:
                each()
        return results
    except BaseException:
        for future in futures:
            future.cancel()
        raise
