"""Raw samples of a frame set, held in memory if they fit, otherwise read in bands of rows."""

from __future__ import annotations

import copy
import math
import operator
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stacklib.errors import RecipeError, StacklibWarning
from stacklib.frames.frame_set import FrameSet
from stacklib.measurement.border import NOTHING, DataRange
from stacklib.normalization.surfaces import CorrectedRange
from stacklib.rejection.sorting import LANES
from stacklib.spatial.masks import FrameMasks
from stacklib.utils.labels import quoted
from stacklib.utils.resources import checked_threads, parse_memory

__all__ = ["Band", "Marks", "Region", "Samples", "cancelled_on_error", "checked_region", "parts", "wait"]

#: A region of the image: left, top, width, height, in pixels.
Region = tuple[int, int, int, int]
#: What is done to samples as they are read.
Marks = DataRange | CorrectedRange

#: Minimum size of a band in bytes, whatever the memory budget.
LEAST_BAND_BYTES = 16 << 20
#: Bytes of a frame that are read at once. More would be hardly faster, and the system takes longer to provide
#: memory than to read into it.
READ_BYTES = 3 << 19
#: Bytes of the result per pixel: six arrays of float32.
RESULT_BYTES = 24
#: Parts into which a band is cut for each thread, so that all end at about the same time.
PARTS = 4


def checked_region(region: Region | None, frames: FrameSet) -> Region:
    """Check a region. None gives the whole image. Raises `RecipeError` if it is not inside the frames."""
    if region is None:
        return 0, 0, frames.width, frames.height
    try:
        left, top, width, height = (operator.index(value) for value in region)
    except (TypeError, ValueError):
        left = top = width = height = -1
    if not (0 <= left < left + width <= frames.width and 0 <= top < top + height <= frames.height):
        raise RecipeError(
            f"region: got {quoted(region)}, expected (left, top, width, height) inside the "
            f"{frames.width} x {frames.height} pixels of the frames"
        )
    return left, top, width, height


class Samples:
    """Raw samples of a region of a frame set, by default of the whole image.

    `memory` is the budget for the samples and the result. `held` has the samples once `hold` has read them,
    float32 of shape (channels, frames, height, width), as they are in the files. `marks` tells which of them
    are no data and how the others are corrected; see `marked`. Samples in `masks` are read as NaN, see
    `masked`. `kept` is a place for what was found from the samples, shared by marked copies. With
    `keeps_marked`, marked samples are kept as well if the budget has room for both: for those who integrate
    the same samples again and again.
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
                f"{budget / 1e6:.0f} MB; the run will use about {(result + LEAST_BAND_BYTES) / 1e6:.0f} MB",
                StacklibWarning,
                stacklevel=3,
            )
        self.held: np.ndarray | None = None
        self.marks: Marks | None = None
        self.masks: FrameMasks | None = None
        self.kept: dict[tuple, tuple] = {}
        self.keeps_marked = False
        self._channels: Sequence[int] = range(frames.channels)
        self._marked: list[_Marked] = []
        self._settled: Marks | None = None
        self._corrected = False

    def marked(self, marks: Marks | None) -> Samples:
        """Return a copy for the kernel: its bands have `NOTHING` for no data, the others are corrected."""
        if self._corrected and isinstance(marks, CorrectedRange):
            marks = None
        if self._settled is not None:
            if not _alike(marks, self._settled):
                raise ValueError("the samples in memory are marked for another preparation")
            marks = None
        if marks is None and self.marks is None:
            return self
        other = copy.copy(self)
        other.marks = marks
        return other

    def settled(self, marks: Marks | None, used: np.ndarray) -> Samples:
        """Mark the samples in memory in place, and return those to be used instead of these from now on.

        So passes over them need no copies. Samples that are not in memory are read and marked in every pass.
        Those of frames that are not used stay as they are.
        """
        if marks is None or self.held is None:
            return self
        other = copy.copy(self)
        other._settled = marks
        left, top, _, _ = self.region
        with ThreadPoolExecutor(self.threads) as pool:
            wait(
                [
                    pool.submit(marks.mark, int(i), channel, planes[i], top, left)
                    for channel, planes in enumerate(self.held)
                    for i in used
                ]
            )
        return other

    def masked(self, masks: FrameMasks | None) -> Samples:
        """Return a copy whose bands have NaN for the samples in `masks`, which cover the region."""
        other = copy.copy(self)
        other.masks, other.kept = masks, {}
        return other

    def of_whole_frames(self) -> Samples:
        """Return samples of whole frames, within the same budget, for what looks at all of them.

        Samples that hold other values than the files have nothing around them and stay as they are.
        """
        if self.whole or self._corrected:
            return self
        other = copy.copy(self)
        other.region, other.held, other.kept = (0, 0, self.frames.width, self.frames.height), None, {}
        other._marked, other._settled = [], None
        other.left_for_samples -= RESULT_BYTES * self.frames.channels * self.frames.width * self.frames.height
        if self.held is not None:
            other.left_for_samples -= self.held.nbytes
        return other

    def values(self, marks: Marks | None) -> np.ndarray:
        """Return all samples of the region as `hold` does, marked and corrected, with NaN for no data."""
        held = self.hold()
        if marks is None:
            return held
        held = held.copy()
        for channel, i in np.ndindex(held.shape[:2]):
            rows = marks.mark(i, channel, held[channel, i], self.region[1], self.region[0])
            rows[rows == NOTHING] = np.nan
        return held

    def with_values(self, held: np.ndarray) -> Samples:
        """Return a copy that holds other values, which `values` returned, perhaps with outliers added."""
        other = copy.copy(self)
        other.held, other.kept, other.masks, other._marked, other._settled = held, {}, None, [], None
        # They are not corrected twice.
        other._corrected = True
        return other

    def widened(self, pixels: int) -> Samples:
        """Return samples of the region and so many pixels around it, as far as the frames reach.

        They are read from the files. Samples that hold other values than these stay as they are.
        """
        if self.whole or self._corrected:
            return self
        left, top, width, height = self.region
        right = min(left + width + pixels, self.frames.width)
        bottom = min(top + height + pixels, self.frames.height)
        other = copy.copy(self)
        left, top = max(left - pixels, 0), max(top - pixels, 0)
        other.region = left, top, right - left, bottom - top
        if self.held is not None:
            other.left_for_samples -= self.held.nbytes
            other.held, other._settled = None, None
            other._marked = []
        return other

    def part(self, region: Region) -> Samples:
        """Return the samples of a smaller region, to be kept for later.

        They are read from the files then. Those of compressed frames in memory are copied, and those that
        hold other values than the files.
        """
        other = copy.copy(self)
        other.region = region
        if self.held is None:
            return other
        if not self._corrected and all(frame.source.is_plain for frame in self.frames):
            other.held, other._settled, other._marked = None, None, []
        else:
            left, top, width, height = region[0] - self.region[0], region[1] - self.region[1], *region[2:]
            other.held = self.held[:, :, top : top + height, left : left + width].copy()
        return other

    @property
    def whole(self) -> bool:
        """Whether the region is the whole image."""
        return self.region == (0, 0, self.frames.width, self.frames.height)

    @property
    def in_memory(self) -> int:
        """Bytes of the samples that are held, or will be."""
        return 0 if self.held is None else self.held.nbytes * (1 + self._keeps())

    def fits(self) -> bool:
        """Return whether all samples of the region fit into the memory budget."""
        _, _, width, height = self.region
        return 4 * len(self.frames) * self.frames.channels * height * width <= self.left_for_samples

    @property
    def spare(self) -> int:
        """Bytes of the budget that samples and result leave, for decompressed frames."""
        _, _, width, height = self.region
        needed = 4 * len(self.frames) * self.frames.channels * height * width
        return self.left_for_samples - needed if self.fits() else 0

    def hold(self) -> np.ndarray:
        """Read all samples of the region into memory, shape (channels, frames, height, width)."""
        if self.held is None:
            with self.held_soon():
                pass
        assert self.held is not None
        return self.held

    @contextmanager
    def held_soon(self, at_once: bool = True) -> Iterator[Callable[[int, int], np.ndarray]]:
        """Read all samples into memory meanwhile: at the end they are held.

        Yields a function that returns one channel of one frame, shape (height, width), as soon as that is
        read. Unless `at_once`, its first call begins to read. Without any, none are held.
        """
        _, _, width, height = self.region
        held = np.empty((self.frames.channels, len(self.frames), height, width), np.float32)
        reading: list[Future] = []
        begins = threading.Lock()
        with ThreadPoolExecutor(self.threads) as pool, cancelled_on_error(reading):

            def read() -> None:
                with begins:
                    if not reading:
                        frames = range(len(self.frames))
                        reading.extend([pool.submit(self._fill_frame, held[:, i], i) for i in frames])

            def plane(i: int, channel: int) -> np.ndarray:
                read()
                reading[i].result()
                return held[channel, i]

            if at_once:
                read()
            yield plane
            wait(reading)
        if reading:
            self.held = held

    def _fill_frame(self, out: np.ndarray, i: int) -> None:
        """Read all channels of a frame."""
        for channel, plane in enumerate(out):
            self._fill(plane, i, channel, 0, self.region[3])
        if self.whole:
            # Its decompressed pixels are not needed again.
            self.frames[i].close()

    def plane(self, i: int, channel: int) -> np.ndarray:
        """Return one channel of one frame, shape (height, width). Reads all samples into memory."""
        return self.hold()[channel, i]

    def marked_plane(self, i: int, channel: int) -> np.ndarray:
        """Return one channel of one frame, marked, (height, width), not to be changed."""
        _, _, width, height = self.region
        if self.held is not None:
            plane = self.held[channel, i]
            if self.marks is None and not self.masks:
                return plane
            plane = plane.copy()
        else:
            plane = np.empty((height, width), np.float32)
            self._fill(plane, i, channel, 0, height)
        self._mark(plane, i, channel, 0)
        return plane

    def leaving(self, size: int) -> Samples:
        """Return samples whose bands leave so many bytes of the budget to other arrays."""
        other = copy.copy(self)
        other.left_for_samples -= size
        return other

    def of_channel(self, channel: int) -> Samples:
        """Return samples that have bands of one channel only."""
        other = copy.copy(self)
        other._channels = (channel,)
        return other

    def bands(self, used: np.ndarray, rows: int | None = None) -> list[tuple[int, int, int]]:
        """Return channel, start and stop row of each band. By default a band fills the memory budget."""
        height, rows = self.region[3], rows or self.rows(used)
        return [
            (channel, start, min(start + rows, height))
            for channel in self._channels
            for start in range(0, height, rows)
        ]

    def rows(self, used: np.ndarray) -> int:
        """Return the number of rows of a band."""
        _, _, width, height = self.region
        if self.held is None:
            # Two bands are in memory: one is read while the other is integrated.
            most = max(READ_BYTES * used.size, LEAST_BAND_BYTES)
            band_bytes = min(max(self.left_for_samples, LEAST_BAND_BYTES) // 2, most)
        elif self._needs_copy(used) and not self._keeps():
            # The kernel needs contiguous frames, so the used ones are copied, a band at a time.
            band_bytes = LEAST_BAND_BYTES
        else:
            return height
        return max(1, min(height, band_bytes // (4 * used.size * width)))

    def read(
        self,
        band: tuple[int, int, int],
        used: np.ndarray,
        pool: ThreadPoolExecutor,
        room: np.ndarray | None = None,
    ) -> Band:
        """Start reading a band of the frames used, into `room` if there is any, float32 (samples,)."""
        channel, start, stop = band
        if self.held is not None:
            if not self._needs_copy(used):
                return Band(self.held[channel, :, start:stop].reshape(used.size, -1), [])
            if self._keeps():
                samples = self._read_kept(channel, used, pool)
                return Band(samples[:, start:stop].reshape(used.size, -1), [])
            samples = self.held[channel][used, start:stop]
            marking = self._start_marking(samples, used, channel, start, pool)
            return Band(samples.reshape(used.size, -1), marking)
        shape = used.size, stop - start, self.region[2]
        if room is None:
            room = np.empty(math.prod(shape), np.float32)
        samples = room[: math.prod(shape)].reshape(shape)
        reading = [
            pool.submit(self._fill_marked, out, int(i), channel, start, stop)
            for out, i in zip(samples, used, strict=True)
        ]
        return Band(samples.reshape(used.size, -1), reading)

    def read_ahead(
        self, used: np.ndarray, rows: int | None = None
    ) -> Generator[tuple[int, int, int, np.ndarray], None, None]:
        """Yield channel, start row, stop row and samples of each band while reading the next one.

        Delete the samples before requesting the next band: the budget is for two bands, whose memory the
        following ones get.
        """
        bands = self.bands(used, rows)
        rooms: list[np.ndarray | None] = [None, None]
        if self.held is None:
            _, start, stop = bands[0]
            rooms = [np.empty(used.size * (stop - start) * self.region[2], np.float32) for _ in rooms]
        with ThreadPoolExecutor(self.threads) as readers:
            coming = self.read(bands[0], used, readers, rooms[0])
            for position, band in enumerate(bands):
                raw = coming.wait()
                if position + 1 < len(bands):
                    coming = self.read(bands[position + 1], used, readers, rooms[(position + 1) % 2])
                with cancelled_on_error(coming.reading):
                    yield *band, raw
                    del raw

    def _needs_copy(self, used: np.ndarray) -> bool:
        return used.size < len(self.frames) or self.marks is not None or bool(self.masks)

    def _keeps(self) -> bool:
        """Whether the samples are kept as the kernel wants them."""
        return self.keeps_marked and self.held is not None and 2 * self.held.nbytes <= self.left_for_samples

    def _read_kept(self, channel: int, used: np.ndarray, pool: ThreadPoolExecutor) -> np.ndarray:
        """Return a channel, (frames, height, width): the kept one if it is marked in the same way."""
        key = used.tobytes()
        if self._marked:
            known = self._marked[0]
            # A copy may hold another region.
            same = known.held is self.held and known.masks is self.masks and known.used == key
            if not same or not _alike(known.marks, self.marks):
                self._marked.clear()
        if not self._marked:
            self._marked.append(_Marked(self.hold(), self.marks, self.masks, key, {}))
        planes = self._marked[0].planes
        if channel not in planes:
            samples = self.hold()[channel][used]
            wait(self._start_marking(samples, used, channel, 0, pool))
            planes[channel] = samples
        return planes[channel]

    def _start_marking(
        self, samples: np.ndarray, used: np.ndarray, channel: int, start: int, pool: ThreadPoolExecutor
    ) -> list[Future]:
        if self.marks is None and not self.masks:
            return []
        return [
            pool.submit(self._mark, rows, int(i), channel, start)
            for i, rows in zip(used, samples, strict=True)
        ]

    def _fill_marked(self, out: np.ndarray, i: int, channel: int, start: int, stop: int) -> None:
        self._fill(out, i, channel, start, stop)
        self._mark(out, i, channel, start)

    def _mark(self, rows: np.ndarray, i: int, channel: int, start: int) -> None:
        left, top, _, _ = self.region
        if self.marks is not None:
            self.marks.mark(i, channel, rows, top + start, left)
        if self.masks:
            self.masks.blank(rows, i, channel, top + start, left)

    def _fill(self, out: np.ndarray, i: int, channel: int, start: int, stop: int) -> None:
        """Read rows of one channel of one frame into `out`, relative to the region."""
        left, top, width, _ = self.region
        frame = self.frames[i]
        if width == self.frames.width:
            frame.read_rows(top + start, top + stop, channel, out)
        else:
            out[:] = frame.read_rows(top + start, top + stop, channel)[:, left : left + width]


class _Marked(NamedTuple):
    """Samples as the kernel wants them, by channel, and what they were made of."""

    held: np.ndarray
    marks: Marks | None
    masks: FrameMasks | None
    used: bytes
    planes: dict[int, np.ndarray]


def _alike(one: Marks | None, other: Marks | None) -> bool:
    """Whether both do the same to samples."""
    if isinstance(one, CorrectedRange) and isinstance(other, CorrectedRange):
        return one.same_as(other)
    return one is other


@dataclass
class Band:
    """Samples of a band, shape (frames, pixels), and the pending reads."""

    samples: np.ndarray
    reading: list[Future]

    def wait(self) -> np.ndarray:
        """Return the samples once all of them have been read."""
        wait(self.reading)
        return self.samples


def parts(pixels: int, threads: int) -> list[tuple[int, int]]:
    """Cut a band into pieces of whole blocks."""
    step = max(-(-pixels // (threads * PARTS * LANES)), 16) * LANES
    return [(start, min(start + step, pixels)) for start in range(0, pixels, step)]


def wait(futures: list[Future], each: Callable[[], None] | None = None) -> list:
    """Wait for futures, call `each` after each one, and return the results.

    On an error or Ctrl-C the pending ones are cancelled.
    """
    results = []
    with cancelled_on_error(futures):
        for future in futures:
            results.append(future.result())
            if each is not None:
                each()
    return results


@contextmanager
def cancelled_on_error(futures: list[Future]) -> Iterator[None]:
    """Cancel the pending futures on an error or Ctrl-C."""
    try:
        yield
    except BaseException:
        for future in futures:
            future.cancel()
        raise
