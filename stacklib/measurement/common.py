"""Measure frames over the area that each shares with the reference.

Where some frames cover less of the image than others (mosaics, a rotated field), the median and the spread of
a whole frame do not compare with those of another: they are of different parts of the sky. So both frames of
a pair, a frame and the reference, are measured over the samples that are data in both.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.measurement.border import NOTHING, DataRange
from stacklib.measurement.cache.planes import (
    Entries,
    PlaneMeasurements,
    Store,
    known_planes,
    open_stores,
    save_stores,
)
from stacklib.measurement.measurements import (
    FrameMeasurements,
    Planes,
    Progress,
    Spread,
    measure_samples,
    plane_bounds,
    without_cut,
)
from stacklib.measurement.statistics import UNIT_BOUNDS
from stacklib.utils.resources import checked_threads

__all__ = ["LEAST_SHARE", "CommonArea", "covers_less", "measure_common"]

#: A frame covers clearly less than the image if it has no data in more than this fraction of it, and in more
#: than a border of so many pixels along two edges, as the dithering of small frames leaves.
CLEARLY, USUAL_BORDER = 0.1, 8
#: Smallest part of a plane that two frames must share to be compared, in fractions and in samples.
LEAST_SHARE, LEAST_SAMPLES = 0.01, 256
#: Statistics that are compared.
COMPARED = ("location", "mean", "scale_low", "scale_high", "avgdev")

#: Statistics of the frame and of the reference, and the fraction of the plane that they share.
Pair = tuple[list[float], list[float], float]


@dataclass(frozen=True)
class CommonArea:
    """Statistics of each frame and of the reference over the samples that are data in both.

    The values are float64 (frames, channels), by the names of `COMPARED`. `share` is the fraction of the
    plane that the frames share; where it is too small to compare, the values are those of whole frames.
    """

    frame: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    share: np.ndarray

    def in_proportion(self, name: str, reference: int) -> np.ndarray:
        """Return a statistic of all frames in proportion to that of the reference over the common area."""
        of_frame, of_reference = self.frame[name], self.reference[name]
        whole = of_frame[reference]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(of_reference > 0, whole * (of_frame / of_reference), of_frame)


def covers_less(empty: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    """Return which planes cover clearly less than the image, by the fraction of them without data."""
    height, width = frames[0].height, frames[0].width
    return empty > max(CLEARLY, USUAL_BORDER * (height + width) / (height * width))


def measure_common(
    frames: Sequence[Frame],
    measured: FrameMeasurements,
    reference: int,
    pairs: Sequence[tuple[int, int]],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    cache: bool = True,
    planes: Planes | None = None,
    spread: Spread | None = None,
) -> CommonArea:
    """Measure frames and the reference, by its index, over the area that each shares with it.

    `pairs` are indices of frame and channel. Where frame and reference cover nearly everything, the values of
    `measured` are kept. For `threads`, `progress`, `cache`, `planes` and `spread` see
    `stacklib.measurement.measurements.measure_frames`.
    """
    own, of_reference = ({name: getattr(measured, name).copy() for name in COMPARED} for _ in range(2))
    for values in of_reference.values():
        values[:] = values[reference]
    share = 1 - measured.empty
    less = covers_less(measured.empty, frames)
    pairs = [(i, channel) for i, channel in pairs if less[i, channel] or less[reference, channel]]
    known = _Known.of(frames, measured, reference) if cache else None
    found = {pair: known.find(*pair) for pair in pairs} if known else dict.fromkeys(pairs)
    todo = [pair for pair, values in found.items() if values is None]
    # In units of flux the whole sky may be below the lowest value of 16 bits.
    unit = measured.unit_range and np.nanmax(measured.location[reference]) > UNIT_BOUNDS[0]
    meter = _PairMeter(measured.estimator, unit, measured.data_range, reference)
    if spread is None:
        measuring = _here(meter, frames, todo, checked_threads(threads), planes)
    else:
        jobs = [(meter, frames[i], frames[reference], i, channel) for i, channel in todo]
        measuring = ((*todo[number], values) for number, values in spread(_measure_pair, jobs))
    try:
        with contextlib.closing(measuring):
            for done, (i, channel, values) in enumerate(measuring, start=1):
                found[i, channel] = values
                if progress is not None:
                    progress(done, len(todo))
    finally:
        # Pairs measured before an interruption need not be measured again.
        if known:
            known.save({pair: found[pair] for pair in todo if found[pair] is not None})
    for (i, channel), (mine, its, part) in found.items():
        share[i, channel] = part
        if part >= LEAST_SHARE:
            for name, a, b in zip(COMPARED, mine, its, strict=True):
                own[name][i, channel], of_reference[name][i, channel] = a, b
    return CommonArea(own, of_reference, share)


@dataclass(frozen=True)
class _Known:
    """Pairs in the cache: one set of measurements for the frames, and one for the reference."""

    frames: Sequence[Frame]
    stores: list[list[Store | None]]
    entries: list[Entries]

    @classmethod
    def of(cls, frames: Sequence[Frame], measured: FrameMeasurements, reference: int) -> _Known | None:
        """Open the caches; None if the reference is not a file."""
        try:
            stat = Path(frames[reference].path).stat()
        except (OSError, TypeError):
            return None
        scale = "0 to 1" if measured.unit_range else "ADU"
        what = f"{frames[reference].path} {stat.st_size} {stat.st_mtime_ns} {scale}"
        low = float(measured.data_range.low[reference, 0])
        stores = [
            open_stores(frames, f"{measured.estimator} {side} {what}", low) for side in ("beside", "of")
        ]
        entries = [
            [known_planes(store, frame) for store, frame in zip(each, frames, strict=True)] for each in stores
        ]
        return cls(frames, stores, entries)

    def find(self, i: int, channel: int) -> Pair | None:
        """Return a known pair."""
        mine, its = (entries[i][channel] for entries in self.entries)
        if mine is None or its is None:
            return None
        values = ([getattr(plane, name) for name in COMPARED] for plane in (mine, its))
        return *values, 1 - mine.empty

    def save(self, found: dict[tuple[int, int], Pair]) -> None:
        """Add pairs to the cache."""
        for (i, channel), (*both, share) in found.items():
            for entries, values in zip(self.entries, both, strict=True):
                entries[i][channel] = _as_plane(values, share)
        changed = {i for i, _ in found}
        for stores, entries in zip(self.stores, self.entries, strict=True):
            for i in changed:
                # A channel without an image is in no pair.
                entries[i][:] = [
                    _as_plane([math.nan] * 5, 0.0) if plane is None else plane for plane in entries[i]
                ]
            save_stores(stores, self.frames, entries, changed)


def _as_plane(values: list[float], share: float) -> PlaneMeasurements:
    """Return values in the order of `COMPARED` as measurements of a plane."""
    named = dict(zip(COMPARED, values, strict=True))
    return PlaneMeasurements(
        **named, count=math.nan, minimum=math.nan, maximum=math.nan, unit=True, empty=1 - share
    )


@dataclass(frozen=True)
class _PairMeter:
    """Settings of a measurement of pairs."""

    estimator: str
    unit: bool
    data_range: DataRange
    reference: int

    def data(self, i: int, channel: int, plane: np.ndarray) -> np.ndarray:
        """Return a copy of a plane with NaN for no data."""
        marked = self.data_range.mark(i, channel, plane.astype(np.float32))
        marked[~((marked > NOTHING) & (marked < np.inf))] = np.nan
        return marked

    def compare(self, i: int, channel: int, own: np.ndarray, reference: np.ndarray) -> Pair:
        """Measure a plane and that of the reference where both are data; they have NaN for no data.

        `own` is used as scratch, so that no more planes are in memory.
        """
        apart = np.isnan(own)
        apart |= np.isnan(reference)
        count = own.size - np.count_nonzero(apart)
        share = count / own.size if count >= LEAST_SAMPLES else 0.0
        own[apart] = np.nan
        mine = self._statistics(i, channel, own)
        own[:] = reference
        own[apart] = np.nan
        its = self._statistics(self.reference, channel, own)
        usable = np.isfinite(mine + its).all() and min(mine[2:4] + its[2:4]) > 0
        return mine, its, share if usable else 0.0

    def _statistics(self, i: int, channel: int, plane: np.ndarray) -> list[float]:
        bordered = (i, channel) in self.data_range.borders
        bounds = plane_bounds(self.unit, self.data_range.low[i, channel], bordered)
        found = measure_samples(plane, self.estimator, *bounds, (0.0, 0.0))
        if bordered:
            found = without_cut(found, np.count_nonzero(plane == 0) / max(found.count, 1))
        return [found.median, found.mean, found.scale_low, found.scale_high, found.avgdev]


def _measure_pair(meter: _PairMeter, frame: Frame, reference: Frame, i: int, channel: int) -> Pair:
    """Measure one channel of a frame and of the reference."""
    try:
        own = meter.data(i, channel, frame.read(channel=channel))
        return meter.compare(
            i, channel, own, meter.data(meter.reference, channel, reference.read(channel=channel))
        )
    finally:
        frame.close()
        reference.close()


def _here(
    meter: _PairMeter,
    frames: Sequence[Frame],
    pairs: list[tuple[int, int]],
    threads: int,
    planes: Planes | None,
) -> Iterator[tuple[int, int, Pair]]:
    """Measure in threads of this process; the reference is read once for each channel."""

    def read(i: int, channel: int) -> np.ndarray:
        return meter.data(i, channel, planes(i, channel) if planes else frames[i].read(channel=channel))

    with ThreadPoolExecutor(max_workers=threads) as pool:
        for channel in dict.fromkeys(channel for _, channel in pairs):
            reference = read(meter.reference, channel)
            chosen = [i for i, c in pairs if c == channel]

            def measure(i: int, channel: int = channel, reference: np.ndarray = reference) -> Pair:
                return meter.compare(i, channel, read(i, channel), reference)

            for i, pair in zip(chosen, pool.map(measure, chosen), strict=True):
                yield i, channel, pair
