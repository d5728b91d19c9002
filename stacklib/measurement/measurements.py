"""Measure all frames of a set, with a cache."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.measurement.border import Border, DataRange, find_border
from stacklib.measurement.cache.planes import (
    Entries,
    PlaneMeasurements,
    known_planes,
    open_stores,
    save_stores,
)
from stacklib.measurement.full_scale import ADU, brightness, full_scale_of, in_unit_range
from stacklib.measurement.gradient import gradient
from stacklib.measurement.noise import plane_noise
from stacklib.measurement.statistics import (
    ESTIMATORS,
    UNIT_BOUNDS,
    PlaneStatistics,
    count_between,
    finite_range,
    grid_step,
    measure_plane,
    quantization_step,
    spread_evenly,
)
from stacklib.utils.resources import checked_threads

__all__ = [
    "FrameMeasurements",
    "Planes",
    "Progress",
    "Spread",
    "channel_mean",
    "measure_frames",
    "measure_samples",
    "plane_bounds",
    "raw_limit",
    "without_cut",
]

#: Calls a function with each of many tuples of arguments in other processes; yields the number of the call
#: and its result, in the order in which the calls end.
Spread = Callable[[Callable[..., Any], Sequence[tuple]], Iterator[tuple[int, Any]]]

#: Many samples were cut off at 0 if more than this fraction of them is 0.
CUT = 0.15
#: Quantization is coarse if the scale is less than this many steps.
COARSE = 5.0
#: Samples are saturated from this fraction of full scale on.
SATURATED = 0.9

Known = PlaneMeasurements | None
Planes = Callable[[int, int], np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class FrameMeasurements:
    """Measurements of the frames of a set, before normalization.

    All arrays are float64 of shape (frames, channels) in the units of the frames: [0, 1], or ADU if
    `unit_range` is false; `full_scale` is the value of full scale in these units. A plane without a valid
    sample has NaN. `location` is the median; scales, `mean`, `avgdev`, extremes and `count` are those of
    `stacklib.measurement.statistics.PlaneStatistics`, the gradients the change of the sky across width and
    height. `noise` is a standard deviation, NaN if it is neither known nor measured. `noise_source` is
    "keyword", "measured" or "not measured", the same for all frames, since the two sources do not compare.
    `step` is the quantization step of floats that lie on a grid, 0 for others and for integers. `empty` is
    the fraction of the samples that are no data, and `data_range` tells which these are; None if
    that is not known. `common` keeps what `stacklib.measurement.common.measure_common` found by reference,
    `photometry` what `stacklib.normalization.light.photometric.measure_photometry` found.
    `notes` are for the user.
    """

    names: tuple[str, ...]
    estimator: str
    location: np.ndarray
    scale_low: np.ndarray
    scale_high: np.ndarray
    mean: np.ndarray
    avgdev: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    count: np.ndarray
    noise: np.ndarray
    noise_source: str
    unit_range: bool
    gradient_x: np.ndarray
    gradient_y: np.ndarray
    full_scale: float = 1.0
    empty: np.ndarray | None = None
    step: np.ndarray | None = None
    data_range: DataRange | None = None
    notes: tuple[str, ...] = ()
    common: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)
    photometry: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def saturation(self) -> float:
        """Value from which on samples are saturated, in the units of the frames."""
        return SATURATED * (1.0 if self.unit_range else self.full_scale)

    def part(self, frames: Sequence[int], channels: Sequence[int]) -> FrameMeasurements:
        """Return the values of some frames and channels, without `data_range`."""
        arrays = {
            name: value[np.ix_(frames, channels)]
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }
        names = tuple(self.names[i] for i in frames)
        return replace(self, names=names, data_range=None, **arrays)


def measure_frames(
    frames: Sequence[Frame],
    estimator: str = "bwmv",
    noise: bool = True,
    range_low: float | None = 0.0,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    cache: bool = True,
    planes: Planes | None = None,
    spread: Spread | None = None,
) -> FrameMeasurements:
    """Measure location, scale and noise of every channel of every frame.

    If `noise` is wanted, the NOISE keywords are used if all frames have them; otherwise the noise is
    measured. `range_low` is the largest raw value that means no data, in ADU from 1 on; 0 for the
    border, see `stacklib.measurement.border`; None for none. `threads` planes are measured, and held in
    memory, at the same time, by default as many as there are processors; the result does not depend on it.
    ``progress(done, total)`` is called after each plane, always from the calling thread. With `cache`, what
    was measured before is not measured again, see `stacklib.measurement.cache.planes`.
    ``planes(i, channel)`` returns a plane that is already in memory, float32 (height, width). `spread`
    measures frames in other processes, which open the files themselves; see `Spread`; by default threads of
    this process measure them. Coarsely quantized planes are measured as described in `measure_samples`.
    Raises FrameError if some frames are in [0, 1] and others in ADU.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator: got {estimator!r}, expected one of {', '.join(ESTIMATORS)}")
    low = -math.inf if range_low is None else float(range_low)
    keywords = _noise_keywords(frames)
    stores = open_stores(frames, estimator, low) if cache else [None] * len(frames)
    entries = [known_planes(store, frame) for store, frame in zip(stores, frames, strict=True)]
    meter = _Meter(estimator, low, noise=noise, keywords=keywords is not None)
    work = _Work(frames, meter, planes)
    try:
        work.run(entries, checked_threads(threads), progress, spread)
        scale = full_scale_of(frames, entries)
        work.settle(entries, scale.unit_range)
    finally:
        # Planes measured before an interruption need not be measured again.
        if cache:
            save_stores(stores, frames, entries, work.changed)
    names = ("location", "scale_low", "scale_high", "mean", "avgdev", "minimum", "maximum", "count")
    names += ("gradient_x", "gradient_y")
    values = {name: _array(entries, name) for name in names}
    found, source, notes = _noise(frames, entries, keywords if scale.unit_range else None, noise)
    return FrameMeasurements(
        names=tuple(getattr(frames, "names", None) or [frame.name for frame in frames]),
        estimator=estimator,
        **values,
        noise=found,
        noise_source=source,
        unit_range=scale.unit_range,
        full_scale=scale.value,
        empty=_array(entries, "empty"),
        step=_array(entries, "step"),
        data_range=_data_range(frames, entries, low),
        notes=(*scale.notes, *notes, *_about_cut(entries)),
    )


def channel_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the channels, the last axis, of the values that are known; NaN if none is."""
    return np.ma.filled(np.ma.masked_invalid(values).mean(axis=-1), np.nan)


def measure_samples(
    plane: np.ndarray,
    estimator: str,
    low: float,
    high: float,
    extremes: tuple[float, float],
    threads: int = 1,
) -> PlaneStatistics:
    """Measure a plane as `measure_plane` does, but spread coarsely quantized samples first.

    With a noise of about one step the median jumps by a whole step, and the scales on its two sides by
    factors. So samples are spread by `spread_evenly` if the scale is less than five steps.
    """
    measured = measure_plane(plane, estimator, low, high, extremes, threads)
    step = quantization_step(plane, low, high)
    if not min(measured.scale_low, measured.scale_high) < COARSE * step:
        return measured
    even = spread_evenly(plane, step, low, high)
    return measure_plane(even, estimator, -math.inf, math.inf, extremes, threads)


def without_cut(measured: PlaneStatistics, cut: float) -> PlaneStatistics:
    """Take the upper scale for both sides if many samples, the fraction `cut`, were cut off at 0.

    The lower side then ends where samples are tied, and its scale differs by factors between frames.
    """
    return measured._replace(scale_low=measured.scale_high) if cut > CUT else measured


def _about_cut(entries: Entries) -> tuple[str, ...]:
    """Say that many samples of faint skies are 0."""
    cut = [100 * max(plane.cut for plane in entry) for entry in entries]
    if not (many := [share for share in cut if share > 100 * CUT]):
        return ()
    return (
        f"in {len(many)} of {len(cut)} frames {min(many):.0f} % to {max(many):.0f} % of the samples are "
        "exactly 0. If calibration cut them off there, the sky comes out too bright and rejection takes too "
        "much: calibrate again with a pedestal",
    )


def plane_bounds(unit: bool, low: float, bordered: bool) -> tuple[float, float]:
    """Return the bounds of the samples that are measured, both ends excluded.

    `low` is the largest sample without data. A plane with a border of its own, `bordered`, has NaN there.
    """
    lowest = UNIT_BOUNDS[0] if unit and low == 0 else low
    return -math.inf if bordered else lowest, UNIT_BOUNDS[1] if unit else math.inf


def raw_limit(limit: float, frame: Frame, unit: bool) -> float:
    """Return a lower limit in the units of the samples of a frame: from 1 on it is in ADU."""
    if not 1 <= limit < math.inf:
        return limit
    if frame.integer:
        return limit / frame.full_scale
    return limit / ADU if unit else limit


def _noise_keywords(frames: Sequence[Frame]) -> np.ndarray | None:
    """Read the noise from the keywords, (frames, channels); None if any frame lacks one."""
    rows = [_keyword_row(frame) for frame in frames]
    return np.array(rows, dtype=np.float64) if rows and all(row is not None for row in rows) else None


def _keyword_row(frame: Frame) -> list[float] | None:
    row = frame.noise_keywords
    if row is None or len(row) != frame.channels:
        return None
    usable = all(value is not None and math.isfinite(value) and value > 0 for value in row)
    return [float(value) for value in row] if usable else None


def _noise(
    frames: Sequence[Frame], entries: Entries, keywords: np.ndarray | None, wanted: bool
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Return the noise of all frames, its source, and notes."""
    if keywords is not None:
        return keywords, "keyword", ()
    if not wanted:
        return np.full((len(entries), len(entries[0]) if entries else 0), np.nan), "not measured", ()
    with_keyword = [frame.name for frame in frames if _keyword_row(frame) is not None]
    notes: tuple[str, ...] = ()
    if with_keyword and len(with_keyword) < len(entries):
        notes = (
            f"{len(with_keyword)} of {len(entries)} frames have NOISE keywords; noise was measured on all, "
            "since noise from before registration does not compare with noise measured after it.",
        )
    elif with_keyword:
        notes = (
            "the NOISE keywords are not used, as they are for values from 0 to 1 and the frames are in ADU; "
            "noise was measured on all.",
        )
    return _array(entries, "noise"), "measured", notes


def _data_range(frames: Sequence[Frame], entries: Entries, low: float) -> DataRange:
    """Return which samples are data."""
    limits = [
        [raw_limit(low, frame, plane.unit) for plane in entry]
        for frame, entry in zip(frames, entries, strict=True)
    ]
    borders = {
        (i, channel): Border.from_text(plane.border)
        for i, entry in enumerate(entries)
        for channel, plane in enumerate(entry)
        if plane.border
    }
    return DataRange(np.array(limits, dtype=np.float64), borders)


def _array(entries: Entries, name: str) -> np.ndarray:
    # None becomes NaN.
    return np.array([[getattr(plane, name) for plane in entry] for entry in entries], dtype=np.float64)


@dataclass(frozen=True)
class _Meter:
    """Settings of a measurement."""

    estimator: str
    low: float
    noise: bool
    keywords: bool

    def lacks(self, known: Known) -> bool:
        """Return whether anything has to be measured on a plane."""
        # Keywords are in [0, 1] units and no use for ADU.
        return known is None or (self.noise and known.noise is None and not (self.keywords and known.unit))

    def complete(
        self, plane: np.ndarray, frame: Frame, known: Known, unit: bool | None = None, threads: int = 1
    ) -> PlaneMeasurements:
        """Measure what is not known of a plane; `unit` measures it again with that scale."""
        if known is None or unit is not None:
            extremes, bright = finite_range(plane, threads), brightness(plane)
            if unit is None:
                unit = in_unit_range(frame, *bright)
            # Another limit than 0 is the choice of the user, and means what it says.
            border = find_border(plane, extremes, bool(frame.integer)) if self.low == 0 else None
            low = raw_limit(self.low, frame, unit)
            bounds = plane_bounds(unit, low, border is not None)
            data = plane
            if border is not None:
                data, low = border.without(plane), -math.inf
            measured = measure_samples(data, self.estimator, *bounds, extremes, threads)
            filled = count_between(data, low, math.inf, threads)
            if measured.count < filled / 2 and filled - count_between(data, bounds[0], math.inf) > filled / 2:
                # In units of flux the whole sky may be below the lowest value of 16 bits.
                measured = measure_samples(data, self.estimator, low, bounds[1], extremes, threads)
            cut = np.count_nonzero(data == 0) / max(measured.count, 1) if border is not None else 0.0
            measured = without_cut(measured, cut)
            across, down = gradient(data, low)
            known = PlaneMeasurements(
                *map(float, measured),
                unit=unit,
                **bright._asdict(),
                gradient_x=across,
                gradient_y=down,
                noise=known.noise if known is not None else None,
                cut=cut,
                empty=1 - filled / data.size,
                border="" if border is None else border.to_text(),
                step=0.0 if frame.integer else grid_step(data, low, math.inf),
            )
        if self.lacks(known):
            low = raw_limit(self.low, frame, known.unit)
            if known.border:
                plane, low = Border.from_text(known.border).without(plane), -math.inf
            fill = known.location if math.isfinite(known.location) else None
            known = known._replace(noise=float(plane_noise(plane, low, fill, threads).sigma))
        return known


def _measure_frame(meter: _Meter, frame: Frame, entry: dict[int, Known]) -> dict[int, PlaneMeasurements]:
    """Measure some channels of a frame, with one plane in memory at a time."""
    try:
        return {
            channel: meter.complete(frame.read(channel=channel), frame, known)
            for channel, known in entry.items()
        }
    finally:
        frame.close()


@dataclass
class _Work:
    """Planes to measure, in threads or other processes."""

    frames: Sequence[Frame]
    meter: _Meter
    planes: Planes | None
    changed: set[int] = field(default_factory=set)

    def run(self, entries: Entries, threads: int, progress: Progress | None, spread: Spread | None) -> None:
        """Complete `entries` in place, and note the indices of the measured frames in `changed`."""
        todo = [
            (i, channel)
            for i, entry in enumerate(entries)
            for channel, plane in enumerate(entry)
            if self.meter.lacks(plane)
        ]
        total = sum(len(entry) for entry in entries)
        done = total - len(todo)
        if progress is not None:
            progress(done, total)
        measured = self._spread(todo, entries, spread) if spread else self._here(todo, entries, threads)
        with contextlib.closing(measured):
            for i, channel, plane in measured:
                entries[i][channel] = plane
                self.changed.add(i)
                done += 1
                if progress is not None:
                    progress(done, total)

    def _here(
        self, todo: list[tuple[int, int]], entries: Entries, threads: int
    ) -> Iterator[tuple[int, int, PlaneMeasurements]]:
        """Measure in threads of this process; yield frame, channel and measurements of each plane."""
        # Several threads work on each of a few large planes.
        each = -(-threads // max(len(todo), 1))
        with ThreadPoolExecutor(max_workers=threads) as pool:
            measured = pool.map(lambda job: self.measure(*job, entries[job[0]][job[1]], threads=each), todo)
            for job, plane in zip(todo, measured, strict=True):
                yield *job, plane

    def _spread(
        self, todo: list[tuple[int, int]], entries: Entries, spread: Spread
    ) -> Iterator[tuple[int, int, PlaneMeasurements]]:
        """Measure in other processes, a whole frame at a time, so that it is opened only once."""
        by_frame: dict[int, dict[int, Known]] = {}
        for i, channel in todo:
            by_frame.setdefault(i, {})[channel] = entries[i][channel]
        numbers = list(by_frame)
        jobs = [(self.meter, self.frames[i], entry) for i, entry in by_frame.items()]
        with contextlib.closing(spread(_measure_frame, jobs)) as results:
            for number, planes in results:
                for channel, plane in planes.items():
                    yield numbers[number], channel, plane

    def read(self, i: int, channel: int) -> np.ndarray:
        """Read one plane, or take it from memory."""
        if self.planes is not None:
            return self.planes(i, channel)
        return self.frames[i].read(channel=channel)

    def measure(
        self, i: int, channel: int, known: Known, unit: bool | None = None, threads: int = 1
    ) -> PlaneMeasurements:
        """Read a plane and measure what is not known of it."""
        return self.meter.complete(self.read(i, channel), self.frames[i], known, unit, threads)

    def settle(self, entries: Entries, unit: bool) -> None:
        """Measure the planes again that do not look like the scale of the set."""
        for i, entry in enumerate(entries):
            for channel, plane in enumerate(entry):
                if plane.unit != unit:
                    entry[channel] = self.measure(i, channel, plane, unit=unit)
                    self.changed.add(i)
