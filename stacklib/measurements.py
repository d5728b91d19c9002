"""Measurements of all frames of a set, with a cache beside the frames."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.errors import FrameError
from stacklib.formats.safely import replace_atomically
from stacklib.noise import plane_noise
from stacklib.statistics import ESTIMATORS, UNIT_BOUNDS, finite_range, measure_plane

__all__ = ["CACHE_NAME", "FrameMeasurements", "measure_frames", "prefer_keywords"]

#: The cache file, one in each folder that holds frames.
CACHE_NAME = ".stacklib_measurements.json"
#: Changes with every change of a measured number.
MEASUREMENT_VERSION = 1
#: Float samples above this are not in [0, 1]; interpolated stars overshoot 1 a little.
UNIT_MAXIMUM = 2.0

COLUMNS = ("location", "scale_low", "scale_high", "mean", "avgdev", "minimum", "maximum", "count")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameMeasurements:
    """What was measured on the frames of a set, before any normalisation.

    All arrays are float64 of shape (frames, channels), in the units of the frames: [0, 1], or ADU
    where `unit_range` is false. A plane without a valid sample has NaN.

    Attributes
    ----------
    names : tuple of str
        File names of the frames.
    estimator : str
        The scale estimator.
    location : ndarray
        Median.
    scale_low, scale_high : ndarray
        Scale below and above the median, see `stacklib.statistics.scale`.
    mean, avgdev : ndarray
        Mean; 1.2533 times the mean absolute deviation from the median.
    minimum, maximum : ndarray
        Of the finite samples.
    count : ndarray
        Number of valid samples.
    noise : ndarray
        Standard deviation of the noise; NaN where it was neither known nor measured.
    noise_source : {"keyword", "measured", "not measured"}
        Where `noise` comes from; one source for all frames, since the two do not compare.
    unit_range : bool
        Whether samples are in [0, 1].
    notes : tuple of str
        What the user should know.
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
    notes: tuple[str, ...] = ()


def measure_frames(
    frames: Sequence[Any],
    estimator: str = "bwmv",
    noise: bool = True,
    range_low: float | None = 0.0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cache: bool = True,
    planes: Callable[[int, int], np.ndarray] | None = None,
) -> FrameMeasurements:
    """Measure location, scale and noise of every channel of every frame.

    Parameters
    ----------
    frames : sequence of Frame
        The frames, all with the same channels.
    estimator : {"bwmv", "mad", "avgdev"}
        Scale estimator, see `stacklib.statistics.scale`.
    noise : bool
        Whether the noise is wanted. The frames' own NOISE keywords are taken where all frames have
        them; otherwise it is measured, see `stacklib.noise.plane_noise`.
    range_low : float or None
        Largest raw value that means no data; None for none.
    threads : int, optional
        Planes measured at the same time (and held in memory); one a processor unless given.
        The result does not depend on it.
    progress : callable, optional
        Called as ``progress(done, total)`` after each plane, always from the calling thread.
    cache : bool
        Whether to read and write the file ``.stacklib_measurements.json`` in the folder of the
        frames. An entry counts only for the same file name, size, time of change, estimator,
        `range_low` and version of this module.
    planes : callable, optional
        ``planes(i, channel)`` gives a plane, float32 (height, width), that is in memory already.

    Returns
    -------
    FrameMeasurements

    Raises
    ------
    FrameError
        When some frames are in [0, 1] and others in ADU.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator: got {estimator!r}, expected one of {', '.join(ESTIMATORS)}")
    low = -math.inf if range_low is None else float(range_low)
    keywords = _noise_keywords(frames)
    stores = _open_stores(frames, estimator, low) if cache else [None] * len(frames)
    entries = [_known(store, frame) for store, frame in zip(stores, frames, strict=True)]
    work = _Work(frames, estimator, low, noise, keywords is not None, planes)
    changed = work.run(entries, threads or _processors(), progress)
    if cache:
        _save_stores(stores, frames, entries, changed)
    unit_range = _check_scale(frames, entries)
    values = {name: _array(entries, name) for name in COLUMNS}
    found, source, notes = _noise(frames, entries, keywords if unit_range else None, noise)
    names = tuple(frame.name for frame in frames)
    return FrameMeasurements(
        names, estimator, **values, noise=found, noise_source=source, unit_range=unit_range, notes=notes
    )


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prefer_keywords(frames: Sequence[Any]) -> bool:
    """Whether every frame carries a usable NOISE keyword for each of its channels."""
    return _noise_keywords(frames) is not None


def _noise_keywords(frames: Sequence[Any]) -> np.ndarray | None:
    """Noise from the keywords, (frames, channels); None unless every frame has all of them."""
    rows = [_keyword_row(frame) for frame in frames]
    return np.array(rows, dtype=np.float64) if rows and all(row is not None for row in rows) else None


def _keyword_row(frame: Any) -> list[float] | None:
    row = frame.noise_keywords
    if row is None or len(row) != frame.channels:
        return None
    usable = all(value is not None and math.isfinite(value) and value > 0 for value in row)
    return [float(value) for value in row] if usable else None


def _noise(
    frames: Sequence[Any], entries: list[list[dict]], keywords: np.ndarray | None, wanted: bool
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Noise of all frames, its source, and notes."""
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
    return _array(entries, "noise"), "measured", notes


def _array(entries: list[list[dict]], name: str) -> np.ndarray:
    return np.array([[plane.get(name, math.nan) for plane in entry] for entry in entries], dtype=np.float64)


class _Work:
    """The planes to measure, spread over threads."""

    def __init__(self, frames, estimator: str, low: float, noise: bool, keywords: bool, planes):
        self.frames, self.estimator, self.low = frames, estimator, low
        self.noise, self.keywords, self.planes = noise, keywords, planes

    def lacks_noise(self, plane: dict) -> bool:
        """Whether the noise has to be measured; keywords are in [0, 1] units and no use for ADU."""
        return self.noise and "noise" not in plane and not (self.keywords and plane["unit"])

    def run(self, entries: list[list[dict]], threads: int, progress) -> set[int]:
        """Complete `entries` in place; returns the indices of the frames that were measured."""
        todo = [
            (i, channel)
            for i, entry in enumerate(entries)
            for channel, plane in enumerate(entry)
            if "location" not in plane or self.lacks_noise(plane)
        ]
        total = sum(len(entry) for entry in entries)
        done = total - len(todo)
        if progress is not None:
            progress(done, total)
        with ThreadPoolExecutor(max_workers=threads) as pool:
            measured = pool.map(lambda job: self.measure(*job, entries[job[0]][job[1]]), todo)
            for (i, channel), plane in zip(todo, measured, strict=True):
                entries[i][channel] = plane
                done += 1
                if progress is not None:
                    progress(done, total)
        self._settle_scales(entries)
        return {i for i, _ in todo}

    def read(self, i: int, channel: int) -> np.ndarray:
        """One plane, from memory where it is there."""
        if self.planes is not None:
            return self.planes(i, channel)
        return self.frames[i].read(channel=channel)

    def measure(self, i: int, channel: int, known: dict, unit: bool | None = None) -> dict:
        """What is known of a plane, completed by what is missing."""
        plane = self.read(i, channel)
        result = dict(known)
        if "location" not in result or unit is not None:
            extremes = finite_range(plane)
            if unit is None:
                unit = bool(self.frames[i].integer) or not extremes[1] > UNIT_MAXIMUM
            bounds = (max(UNIT_BOUNDS[0], self.low), UNIT_BOUNDS[1]) if unit else (self.low, math.inf)
            measured = measure_plane(plane, self.estimator, *bounds, extremes)._asdict()
            measured["location"] = measured.pop("median")
            result |= {name: float(measured[name]) for name in COLUMNS} | {"unit": unit}
        if self.lacks_noise(result):
            result["noise"] = float(plane_noise(plane, self.low).sigma)
        return result

    def _settle_scales(self, entries: list[list[dict]]) -> None:
        """Measure again where a dim channel of a frame in ADU looked like one in [0, 1]."""
        for i, entry in enumerate(entries):
            if len({plane["unit"] for plane in entry}) > 1:
                for channel, plane in enumerate(entry):
                    if plane["unit"]:
                        entry[channel] = self.measure(i, channel, plane, unit=False)


def _check_scale(frames: Sequence[Any], entries: list[list[dict]]) -> bool:
    """Whether all frames are in [0, 1]; raises where only some are."""
    adu = [i for i, entry in enumerate(entries) if not all(plane["unit"] for plane in entry)]
    # A frame without any light belongs to either scale.
    lit = [i for i, entry in enumerate(entries) if any(plane["maximum"] > 0 for plane in entry)]
    unit = sorted(set(lit) - set(adu))
    if adu and unit:
        most = max(plane["maximum"] for plane in entries[adu[0]])
        raise FrameError(
            f"the frames have different scales: {_listed(frames, unit)} from 0 to 1, "
            f"but {_listed(frames, adu)} up to {most:g}. "
            "Save all of them in the same sample format, or integrate them apart."
        )
    return not adu


def _listed(frames: Sequence[Any], indices: list[int], most: int = 5) -> str:
    """Names of frames, not more than a few of them."""
    names = ", ".join(frames[i].name for i in indices[:most])
    return names + (f" and {len(indices) - most} more" if len(indices) > most else "")


# --- the cache: {"version": 1, "frames": {name: {"size", "mtime_ns", "sets": {"bwmv 0.0": [plane, ...]}}}}


@dataclass
class _Store:
    """Where the measurements of one frame are kept, and what identifies them."""

    folder: Path
    name: str
    size: int
    mtime_ns: int
    key: str
    content: dict[str, Any]

    @property
    def sets(self) -> dict[str, Any]:
        """Measurements of this very file, by key."""
        entry = self.content.get(self.name)
        same = {"size": self.size, "mtime_ns": self.mtime_ns}
        if not isinstance(entry, dict) or {name: entry.get(name) for name in same} != same:
            return {}
        sets = entry.get("sets")
        return sets if isinstance(sets, dict) else {}


def _open_stores(frames: Sequence[Any], estimator: str, low: float) -> list[_Store | None]:
    folders: dict[Path, dict[str, Any]] = {}
    stores: list[_Store | None] = []
    for frame in frames:
        try:
            path = Path(frame.path)
            stat = path.stat()
        except (OSError, TypeError):
            stores.append(None)
            continue
        if path.parent not in folders:
            folders[path.parent] = _load(path.parent)
        key = f"{estimator} {low!r}"
        content = folders[path.parent]
        stores.append(_Store(path.parent, path.name, stat.st_size, stat.st_mtime_ns, key, content))
    return stores


def _load(folder: Path) -> dict[str, Any]:
    """What the cache of a folder says of its frames; nothing where it cannot be used."""
    try:
        content = json.loads((folder / CACHE_NAME).read_text(encoding="utf-8"))
        if content["version"] == MEASUREMENT_VERSION and isinstance(content["frames"], dict):
            return content["frames"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.debug("the cache in %s is not used: %s", folder, error)
    return {}


def _known(store: _Store | None, frame: Any) -> list[dict]:
    """Cached measurements of the channels of a frame; empty ones where there are none."""
    nothing: list[dict] = [{} for _ in range(frame.channels)]
    if store is None:
        return nothing
    try:
        entry = [_decoded(plane) for plane in store.sets[store.key]]
    except (KeyError, TypeError, ValueError, AttributeError):
        return nothing
    return entry if len(entry) == frame.channels else nothing


def _decoded(plane: dict[str, Any]) -> dict:
    result = {name: float(plane[name]) for name in COLUMNS}
    result["unit"] = bool(plane["unit"])
    if "noise" in plane:
        result["noise"] = float(plane["noise"])
    return result


def _encoded(plane: dict) -> dict[str, Any]:
    # JSON has no NaN and no infinity; as texts they come back through float().
    return {
        name: value if isinstance(value, bool) or math.isfinite(value) else str(value)
        for name, value in plane.items()
    }


def _save_stores(
    stores: list[_Store | None], frames: Sequence[Any], entries: list[list[dict]], changed: set[int]
) -> None:
    """Merge new measurements into the caches."""
    folders: dict[Path, dict[str, Any]] = {}
    for i in sorted(changed):
        store = stores[i]
        if store is None or not _unchanged(store, frames[i]):
            continue
        if store.folder not in folders:
            # Read again: another run may have written since.
            folders[store.folder] = _load(store.folder)
        store.content = folders[store.folder]
        sets = dict(store.sets)
        sets[store.key] = [_encoded(plane) for plane in entries[i]]
        store.content[store.name] = {"size": store.size, "mtime_ns": store.mtime_ns, "sets": sets}
    for folder, content in folders.items():
        document = {"version": MEASUREMENT_VERSION, "frames": content}
        try:
            text = json.dumps(document, allow_nan=False, indent=0)
            replace_atomically(folder / CACHE_NAME, text.encode("utf-8"))
        except (OSError, ValueError) as error:
            _log.debug("the cache in %s is not written: %s", folder, error)


def _unchanged(store: _Store, frame: Any) -> bool:
    """Whether the file is still the one that was measured."""
    try:
        stat = Path(frame.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (store.size, store.mtime_ns)
