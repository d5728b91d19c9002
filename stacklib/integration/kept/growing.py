"""Integrate with samples that were kept, or keep them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from stacklib.frames.frame_set import Frame, FrameSet
from stacklib.integration.kept.store import Store, room_for, unusable
from stacklib.integration.noise import Parts, Work
from stacklib.integration.samples import Samples, cancelled_on_error, wait
from stacklib.kernel.grown import MOST_FRAMES, Known, Places, grow, keep_sorted, unsorted
from stacklib.kernel.passes import Tile, run_tiles
from stacklib.kernel.pixels import Counts, Pixels
from stacklib.kernel.tiles import WEIGHT, frame_table
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.rejection.registry import ALL_ITERATIONS, rule_for
from stacklib.rejection.sorting import LANES, sorting_network
from stacklib.spatial.means import MEANS
from stacklib.utils.labels import counted

__all__ = ["Keeper"]

#: Fraction of the frames kept that may be added or left out; with more of them a full run is not much slower.
MOST_CHANGED = 0.3
#: Relative difference of weights that rounding can make.
ROUNDING = 1e-14
#: Blocks of pixels that a thread takes at a time.
BLOCKS = 64


@dataclass(frozen=True)
class Growth:
    """How frames used now differ from those of a store: `places` among both, and `words` about that."""

    store: Store
    places: list[Places]
    words: str

    @property
    def work(self) -> Work:
        """What integrates the bands, see `stacklib.integration.noise.Work`."""
        return self._integrate

    def _integrate(
        self, samples: Samples, used: np.ndarray, settings: list[Settings], planes: Sequence[Any]
    ) -> Parts:
        """Integrate band by band, reading only the frames that are new."""
        width, height = samples.region[2:]
        more = used[self.places[0].more]
        with ThreadPoolExecutor(samples.threads) as workers:
            for channel, start, stop, raw in _bands(samples, more, len(settings), (height, width)):
                known, places = self.store.known[channel], self.places[channel]
                task = _Task(known, places, self.store.tables[channel], settings[channel], planes[channel])
                running = [
                    workers.submit(task.run, raw, start * width, *piece)
                    for piece in _pieces(start * width, stop * width)
                ]
                with cancelled_on_error(running):
                    for future in running:
                        pixels, counts = future.result()
                        yield channel, pixels, counts
                del raw


def _bands(
    samples: Samples, more: np.ndarray, channels: int, shape: tuple[int, int]
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yield channel, rows and samples of the bands of some frames, perhaps of none."""
    if more.size:
        # Bands begin where a block of pixels does.
        rows = samples.rows(more)
        step = LANES // np.gcd(shape[1], LANES)
        rows = shape[0] if rows >= shape[0] else max(rows // step, 1) * int(step)
        with closing(samples.read_ahead(more, min(rows, shape[0]))) as bands:
            yield from bands
        return
    for channel in range(channels):
        yield channel, 0, shape[0], np.empty((0, shape[0] * shape[1]), np.float32)


def _pieces(start: int, stop: int) -> list[tuple[int, int]]:
    step = BLOCKS * LANES
    return [(first, min(first + step, stop)) for first in range(start, stop, step)]


@dataclass(frozen=True)
class _Task:
    """What a thread needs to integrate pixels of a channel."""

    known: Known
    places: Places
    table: np.ndarray
    settings: Settings
    planes: Pixels

    def run(self, raw: np.ndarray, origin: int, first: int, last: int) -> tuple[int, Counts]:
        """Integrate the pixels ``first:last`` of the image; `raw` begins at pixel `origin`."""
        tile, pixels = Tile(self.settings), self.planes.part(slice(first, last))
        rule = rule_for(self.settings.recipe, self.settings.frames)
        counts, left = Counts.zeros(self.settings.frames), np.empty(last - first, np.int64)
        blocks = slice(first // LANES, -(-last // LANES))
        known = Known(*(array[blocks if array.ndim == 3 else slice(first, last)] for array in self.known))
        more = np.ascontiguousarray(raw[:, first - origin : last - origin])
        networks = sorting_network(len(more)), sorting_network(self.places.gone.size)
        how = (rule.by_ends, tile.limits, ALL_ITERATIONS, tile.data_range, networks)
        statistics = (tile.unbiased, tile.curve, tile.claims)
        tables = (self.table, tile.table)
        waiting = grow(known, more, self.places, tables, how, statistics, pixels, (counts.table, left))
        if waiting:
            chosen = left[:waiting]
            samples = np.empty((self.settings.frames, waiting), np.float32)
            unsorted(known, chosen, self.places, more, samples)
            rest = Pixels.empty(waiting, self.settings, pixels.uncertainty.size > 0)
            counts.add(run_tiles(samples, self.settings, rest))
            for whole, part in zip(pixels, rest, strict=True):
                if whole.size:
                    whole[chosen] = part
        return last - first, counts


def _obstacle(samples: Samples, preparation: Preparation, spatial: bool) -> str:
    """Return why kept samples are of no use to a run, or nothing."""
    recipe, p = preparation.recipe, preparation
    rule = rule_for(recipe, p.count)
    if rule.by_ends is None:
        return f"{rule.spec.name} looks at all samples of a pixel; sigma does not"
    if recipe.combination != "average":
        return f"combination {recipe.combination} looks at all samples of a pixel"
    if spatial:
        active = recipe.spatial_means(p.count, p.frames.channels)
        settings = ", ".join(dict.fromkeys(means.setting for means in MEANS if means.name in active))
        return f"the samples are compared with their neighbors in all frames ({settings})"
    if str(recipe.output_bits) != "32":
        return "the last digits of 64 bits depend on the order of the sum"
    if p.marks is not None:
        return "samples are corrected, or have a border that depends on all frames"
    if not samples.whole:
        return "only whole images are kept"
    return "" if p.count <= MOST_FRAMES else f"there are more than {MOST_FRAMES} frames"


def _growth_of(store: Store, numbers: np.ndarray, preparation: Preparation) -> Growth | str:
    """Return how the frames used differ from those of a store, or why that is too much.

    `numbers` are the places of these frames in the store, see `Store.numbers_of`.
    """
    p = preparation
    known = np.full(len(store.names), -1, np.int64)
    known[numbers[numbers >= 0]] = np.flatnonzero(numbers >= 0)
    more, gone = np.flatnonzero(numbers < 0), np.flatnonzero(known < 0)
    if more.size + gone.size > MOST_CHANGED * known.size:
        return f"{counted(more.size + gone.size, 'frame')} of {known.size} changed"
    kept = known >= 0
    places = []
    for channel in range(p.frames.channels):
        settings = p.settings(channel)
        if tuple(map(float, settings.data_range)) != store.data_range:
            return "the range of the data changed"
        before, now = store.tables[channel][:, kept], frame_table(settings)[:, known[kept]]
        if not np.array_equal(before[:WEIGHT], now[:WEIGHT]):
            return "the reference or the normalization changed, and with it every sample"
        scale = float(now[WEIGHT, 0] / before[WEIGHT, 0])
        if not np.allclose(now[WEIGHT], scale * before[WEIGHT], rtol=ROUNDING, atol=0):
            return "the weights changed"
        places.append(Places(known, more, gone, scale))
    words = " and ".join(
        f"{counted(number, 'frame')} {what}"
        for number, what in ((more.size, "added"), (gone.size, "left out"))
        if number
    )
    return Growth(store, places, words or "the same frames")


def _keeping(store: Store, work: Work) -> Work:
    """Return what integrates bands and fills a store as well."""

    def integrate(
        samples: Samples, used: np.ndarray, settings: list[Settings], planes: Sequence[Any]
    ) -> Parts:
        yield from work(samples, used, settings, planes)
        network = sorting_network(used.size)
        width = samples.region[2]
        step = int(LANES // np.gcd(width, LANES))
        rows = max(samples.rows(used) // step, 1) * step
        with ThreadPoolExecutor(samples.threads) as workers, closing(samples.read_ahead(used, rows)) as bands:
            for channel, start, stop, raw in bands:
                arrays, table = store.known[channel], store.tables[channel]
                fill = _filler(raw, (arrays, table, store.data_range, network), start * width)
                wait([workers.submit(fill, *piece) for piece in _pieces(start * width, stop * width)])
                del raw, fill

    return integrate


def _filler(raw: np.ndarray, how: tuple, origin: int) -> Callable[[int, int], None]:
    known, table, data_range, network = how

    def fill(first: int, last: int) -> None:
        blocks = slice(first // LANES, -(-last // LANES))
        part = Known(*(array[blocks if array.ndim == 3 else slice(first, last)] for array in known))
        samples = np.ascontiguousarray(raw[:, first - origin : last - origin])
        keep_sorted(samples, table, data_range, network, part)

    return fill


class _KeptBand:
    """Rows of all frames of a store, those that were asked for last."""

    def __init__(self, store: Store, width: int) -> None:
        self.store, self.width = store, width
        self._place: tuple[int, int, int] | None = None
        self._samples = np.empty((0, 0), np.float32)

    def rows(self, number: int, place: tuple[int, int, int]) -> np.ndarray:
        """Return rows of a frame by its number in the store; `place` is channel, start and stop."""
        if self._place != place:
            channel, start, stop = place
            first, count = start * self.width, (stop - start) * self.width
            blocks = slice(first // LANES, -(-(first + count) // LANES))
            known, frames = self.store.known[channel], len(self.store.names)
            part = Known(
                *(array[blocks] if array.ndim == 3 else array[first : first + count] for array in known)
            )
            none = np.empty(0, np.int64)
            every = Places(np.arange(frames), none, none, 1.0)
            self._samples = np.empty((frames, count), np.float32)
            chosen = np.arange(first % LANES, first % LANES + count)
            unsorted(part, chosen, every, np.empty((0, count), np.float32), self._samples)
            self._place = place
        return self._samples[number].reshape(-1, self.width)


@dataclass(frozen=True)
class _KeptPlane:
    """A channel of a frame whose rows can be read; `number` is that in the store, -1 for others."""

    frame: Frame
    channel: int
    number: int
    band: _KeptBand

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.frame.height)
        if self.number < 0:
            return self.frame.read_rows(start, stop, self.channel)
        return self.band.rows(self.number, (self.channel, start, stop))


class Keeper:
    """What a run does with kept samples.

    `expected` tells before the frames are measured whether most of the samples are known. `words` say
    afterwards how the image was integrated, and `note` what the user should know about that; empty without a
    wish to keep any. A cluster keeps none.
    """

    def __init__(self, frames: FrameSet, wanted: bool, on_cluster: bool) -> None:
        self.wanted, self.words = wanted and not on_cluster, ""
        self.note = "keep_samples: without effect on a cluster" if wanted and on_cluster else ""
        self.store = Store.find(list(frames), frames.shape) if self.wanted else None
        self._numbers = np.empty(0, np.int64) if self.store is None else self.store.numbers_of(frames)
        found = np.count_nonzero(self._numbers >= 0)
        self.expected = self.store is not None and found >= (1 - MOST_CHANGED) * len(self.store.names)
        self._frames = frames

    @property
    def planes(self) -> Callable[[int, int], Any] | None:
        """What reads rows of frames, ``planes(i, channel)[start:stop]``, from the samples that are kept.

        A few rows of many compressed files would take as long as all of them. None if no samples are
        expected.
        """
        if self.store is None or not self.expected:
            return None
        band = _KeptBand(self.store, self._frames.width)
        return lambda i, channel: _KeptPlane(self._frames[i], channel, int(self._numbers[i]), band)

    @contextlib.contextmanager
    def work(self, samples: Samples, preparation: Preparation, spatial: bool, usual: Work) -> Iterator[Work]:
        """Yield what integrates the bands: the usual work, or with what is known.

        New samples are kept at the end.
        """
        if not self.wanted:
            yield usual
            return
        p, why = preparation, _obstacle(samples, preparation, spatial)
        if why:
            self.words, self.note = "in full", f"keep_samples: the samples are of no use, as {why}"
            yield usual
            return
        growth = None if self.store is None else _growth_of(self.store, self._numbers[p.used], p)
        if isinstance(growth, Growth):
            self.words = growth.words
            yield growth.work
            return
        self.words = f"in full: {growth}" if growth else "in full"
        if growth:
            self.note = f"keep_samples: integrated in full, as {growth}"
        # The old ones are of no use any more.
        self.store = None
        full = room_for(p.frames.shape, p.count)
        if full:
            self.note = f"keep_samples: not kept, as {full}"
            yield usual
            return
        settings = [p.settings(channel) for channel in range(p.frames.channels)]
        tables = np.stack([frame_table(each) for each in settings])
        low, high = map(float, settings[0].data_range)
        with contextlib.ExitStack() as opened:
            try:
                store = opened.enter_context(Store.new(p.used_frames, p.frames.shape, tables, (low, high)))
                work = _keeping(store, usual)
            except OSError as error:
                self.note, work = f"keep_samples: not kept, as {unusable(error)}", usual
            yield work
