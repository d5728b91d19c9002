"""The work of a run in the threads of this process, and of an integration that can lose samples later."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from stacklib.integration.noise import Parts, with_noise
from stacklib.integration.samples import Samples, cancelled_on_error, parts, wait
from stacklib.integration.search import Found, JudgedBands, Search, search_frame
from stacklib.kernel.passes import fill_planes, run_tiles, scatter_tiles
from stacklib.kernel.pixels import Counts, Judgement, Pixels, Ratios
from stacklib.kernel.scatter import find_excess
from stacklib.kernel.verdicts import by_rows, judge_tiles
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.residuals import KeptMean

__all__ = ["NOISE_BYTES", "Integrated", "Threads", "in_threads", "stays_in_memory"]

#: Bytes of a pixel of `Integrated` by the noise of the frames, besides the six planes of the result.
NOISE_BYTES = 20
#: Samples that are integrated again at once.
AT_ONCE = 1 << 22


def in_threads(
    samples: Samples, used: np.ndarray, settings: list[Settings], planes: Sequence[Pixels | Ratios]
) -> Parts:
    """Integrate band by band, reading the next band meanwhile; see `stacklib.integration.noise.Work`."""
    width, threads = samples.region[2], samples.threads
    with ThreadPoolExecutor(threads) as workers, closing(samples.read_ahead(used)) as bands:
        for channel, start, stop, raw in bands:
            part = planes[channel].part(slice(start * width, stop * width))
            pieces = parts(raw.shape[1], threads)
            running = [workers.submit(fill_planes, raw, settings[channel], part, *piece) for piece in pieces]
            with cancelled_on_error(running):
                for (first, last), future in zip(pieces, running, strict=True):
                    yield channel, last - first, future.result()
            del raw


class Threads:
    """What the two passes over the samples and the search for masks need, see `second_pass.Workers`."""

    integrate = staticmethod(in_threads)

    @staticmethod
    def judge(
        samples: Samples,
        used: np.ndarray,
        settings: list[Settings],
        judged: Judgement,
        whole: Pixels | None = None,
    ) -> JudgedBands:
        """Judge the samples band by band."""
        width, threads = samples.region[2], samples.threads
        with ThreadPoolExecutor(threads) as workers, closing(samples.read_ahead(used)) as bands:
            for channel, start, stop, raw in bands:
                place = channel, slice(start * width, stop * width)
                pixels = None if whole is None else whole.part(place)
                out = judged.part(place), np.empty((used.size, 2, -(-raw.shape[1] // 8)), np.uint8)
                running = [
                    workers.submit(judge_tiles, raw, settings[channel], *out, *piece, pixels)
                    for piece in parts(raw.shape[1], threads)
                ]
                counts = Counts.zeros(used.size)
                for found in wait(running):
                    counts.add(found)
                del raw
                yield (channel, start, stop), by_rows(out[1], width, stop - start), counts

    @staticmethod
    def search(
        search: Search, kept: KeptMean, verdicts: Sequence[Sequence], places: int
    ) -> Generator[tuple[int, Found], None, None]:
        """Search the frames, some at a time."""
        with ThreadPoolExecutor(min(places, search.samples.threads)) as workers:
            running = [
                workers.submit(search_frame, search, kept, number, planes)
                for number, planes in enumerate(verdicts)
            ]
            with cancelled_on_error(running):
                for number, future in enumerate(running):
                    yield number, future.result()


def stays_in_memory(samples: Samples, preparation: Preparation) -> bool:
    """Return whether the samples are whole frames, held in memory as the kernel wants them."""
    return samples.whole and samples.held is not None and samples.marked(preparation.marks).marks is None


class Integrated:
    """An integration of whole frames that can lose samples afterwards.

    The result is that of an integration without these samples, bit for bit.

    Attributes
    ----------
    settings : list of Settings
        Those of each channel, with the noise of the frames and the claims.
    whole : Pixels
        The planes, of shape (channels, pixels), to be filled; the excess of the noise is known if the rule
        needs it.
    counts : list of Counts
        Samples by verdict of each channel, to be added to.
    """

    def __init__(
        self,
        samples: Samples,
        preparation: Preparation,
        report: Callable[[int], None] = lambda pixels: None,
    ) -> None:
        self.samples, self.preparation = samples, preparation
        self.used, channels = preparation.used, range(preparation.frames.channels)
        _, _, self.width, self.height = samples.region
        self.settings = [with_noise(preparation, channel, claims=True) for channel in channels]
        self.counts = [Counts.zeros(self.used.size) for _ in channels]
        shape = len(channels), self.width * self.height
        self._ratios = Ratios.empty(shape if preparation.by_frame else (len(channels), 0))
        excess = None
        if preparation.by_frame:
            planes = [self._ratios.part(channel) for channel in channels]
            with closing(in_threads(samples, self.used, self.settings, planes)) as done:
                for _, pixels, _ in done:
                    report(pixels)
            excess = np.stack([self._excess(channel) for channel in channels])
        self.whole = Pixels.empty(shape, self.settings[0], excess=excess)

    def _excess(self, channel: int) -> np.ndarray:
        """Return by how much the noise of a channel exceeds the curve, (pixels,)."""
        own = self.settings[channel]
        planes = Ratios(*(array.reshape(self.height, self.width) for array in self._ratios.part(channel)))
        places = own.places_from(*self.samples.region[:2])
        return find_excess(planes, own.relative_noise, own.contrast, self.samples.threads, places).reshape(-1)

    def columns(self, channel: int, places: np.ndarray) -> np.ndarray:
        """Return the samples of some pixels, in their order, (frames, pixels)."""
        if stays_in_memory(self.samples, self.preparation):
            planes = [self.samples.marked_plane(int(i), channel) for i in self.used]
            return np.stack([plane.reshape(-1).take(places) for plane in planes])
        columns = np.empty((self.used.size, places.size), np.float32)
        if not places.size:
            return columns
        with (
            ThreadPoolExecutor(self.samples.threads) as workers,
            closing(self.samples.of_channel(channel).read_ahead(self.used)) as bands,
        ):
            for _, start, stop, raw in bands:
                first, last = np.searchsorted(places, (start * self.width, stop * self.width))
                here = places[first:last] - start * self.width
                wait(
                    [
                        workers.submit(row.take, here, out=column[first:last], mode="clip")
                        for row, column in zip(raw, columns, strict=True)
                    ]
                )
                del raw
        return columns

    def without(
        self, channel: int, places: np.ndarray, lost: np.ndarray, raw: np.ndarray | None = None
    ) -> None:
        """Integrate pixels of a channel again without the samples that are `lost`, bool (frames, pixels).

        `places`, integers, are the pixels in the plane, in order. `raw` are their samples, as `columns`
        returns them. By default they are taken from samples in memory, some at a time.
        """
        if not places.size:
            return
        plane, own = self.whole.part(channel), self.settings[channel]
        step = max(1, AT_ONCE // self.used.size) if raw is None else self.width * self.height
        pieces = [slice(start, start + step) for start in range(0, places.size, step)]

        def both(piece: slice) -> tuple[np.ndarray, np.ndarray]:
            """Return samples as they were, and with NaN for those that are lost."""
            own = self.columns(channel, places[piece]) if raw is None else raw
            return own, np.where(lost[:, piece], np.float32(np.nan), own)

        excess, more = None, places[:0]
        if self.preparation.by_frame:
            for piece in pieces:
                ratios = Ratios.empty(places[piece].size)
                scatter_tiles(both(piece)[1], own, ratios)
                for target, new in zip(self._ratios.part(channel), ratios, strict=True):
                    target[places[piece]] = new
            excess = self._excess(channel)
            # Around them the noise has changed as well.
            noisier = excess != plane.excess
            noisier[places] = False
            more = np.flatnonzero(noisier)
        for piece in pieces:
            self._again(channel, places[piece], both(piece), excess)
        for start in range(0, more.size, step):
            beside = self.columns(channel, more[start : start + step])
            self._again(channel, more[start : start + step], (beside, beside), excess)
        if excess is not None:
            plane.excess[:] = excess

    def _again(
        self,
        channel: int,
        places: np.ndarray,
        both: tuple[np.ndarray, np.ndarray],
        excess: np.ndarray | None,
    ) -> None:
        """Integrate some pixels of a channel again.

        `both` are their samples as they were and without those that are lost, `excess` is that of the plane
        without them.
        """
        plane, own, counts = self.whole.part(channel), self.settings[channel], self.counts[channel]
        known = (None, None) if excess is None else (plane.excess[places], excess[places])
        pieces = parts(places.size, self.samples.threads)
        with ThreadPoolExecutor(self.samples.threads) as workers:
            for sign, raw, noise in zip((-1, 1), both, known, strict=True):
                out = Pixels.empty(places.size, own, excess=noise)
                for found in wait([workers.submit(run_tiles, raw, own, out, *piece) for piece in pieces]):
                    counts.table += sign * found.table
        for name, values in out._asdict().items():
            if values.size and name != "excess":
                getattr(plane, name)[places] = values

    def take_out(self, masks: FrameMasks, report: Callable[[int], None] = lambda pixels: None) -> None:
        """Integrate the pixels with masked samples again, without these; `report` gets all pixels."""
        for channel in range(len(self.settings)):
            self.without(channel, *self._masked_pixels(masks, channel))
            report(self.width * self.height)

    def _masked_pixels(self, masks: FrameMasks, channel: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of a channel with masked samples, and these, as `without` takes them."""
        packed = {i: masks.taken(int(i), channel) for i in self.used if (int(i), channel) in masks.planes}
        if not packed:
            return np.empty(0, np.int64), np.zeros((self.used.size, 0), bool)
        some = np.bitwise_or.reduce(list(packed.values()))
        places = np.flatnonzero(np.unpackbits(some, axis=1, count=self.width))
        rows, columns = np.divmod(places, self.width)
        byte, bit = rows * some.shape[1] + (columns >> 3), np.uint8(128) >> (columns & 7).astype(np.uint8)
        lost = np.zeros((self.used.size, places.size), bool)
        for row, i in zip(lost, self.used, strict=True):
            if i in packed:
                row[:] = (packed[i].reshape(-1)[byte] & bit) != 0
        return places, lost
