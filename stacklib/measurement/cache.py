"""Cache of measurements: one JSON file in each folder of frames.

It holds ``{"version": ..., "frames": {name: {"size", "mtime_ns", "sets": {"bwmv 0.0": [plane, ...]}}}}`` with
one `PlaneMeasurements` for each channel. An entry is valid for the same file name, size, modification time,
estimator, `range_low` and version only. A cache that cannot be read or written is ignored.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stacklib.errors import SaveError
from stacklib.frames.frame_set import Frame
from stacklib.utils.atomic_files import replace_atomically

__all__ = ["CACHE_NAME", "Entries", "PlaneMeasurements", "known_planes", "open_stores", "save_stores"]

#: Name of the cache file.
CACHE_NAME = ".stacklib_measurements.json"
#: Increases whenever a measured number changes.
MEASUREMENT_VERSION = 1
_log = logging.getLogger(__name__)


class PlaneMeasurements(NamedTuple):
    """Measurements of one plane, in its own units.

    The first eight fields are those of `stacklib.measurement.statistics.PlaneStatistics`. `unit` is true if
    the samples are in [0, 1]. `noise` is a standard deviation: NaN if it cannot be measured, None if it was
    not measured.
    """

    location: float
    mean: float
    scale_low: float
    scale_high: float
    avgdev: float
    count: float
    minimum: float
    maximum: float
    unit: bool
    noise: float | None = None


#: Measurements of the channels of each frame; None for a plane that is still to be measured.
Entries = list[list[PlaneMeasurements | None]]


@dataclass(kw_only=True)
class Store:
    """Place of the measurements of one frame in the cache of its folder.

    `key` is for the settings of the measurement, `content` holds the entries of all frames by file name.
    """

    path: Path
    size: int
    mtime_ns: int
    key: str
    content: dict[str, object]

    @property
    def sets(self) -> dict[str, object]:
        """Measurements of this file by key."""
        entry = self.content.get(self.path.name)
        same = {"size": self.size, "mtime_ns": self.mtime_ns}
        if not isinstance(entry, dict) or {name: entry.get(name) for name in same} != same:
            return {}
        sets = entry.get("sets")
        return sets if isinstance(sets, dict) else {}


def open_stores(frames: Sequence[Frame], estimator: str, low: float) -> list[Store | None]:
    """Return the place of each frame in the cache of its folder, None for a frame that is not a file."""
    folders: dict[Path, dict[str, object]] = {}
    stores: list[Store | None] = []
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
        stores.append(
            Store(path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns, key=key, content=content)
        )
    return stores


def _load(folder: Path) -> dict[str, object]:
    """Read the cache of a folder; empty if it cannot be used."""
    try:
        content = json.loads((folder / CACHE_NAME).read_text(encoding="utf-8"))
        if content["version"] == MEASUREMENT_VERSION and isinstance(content["frames"], dict):
            return content["frames"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.debug("the cache in %s is not used: %s", folder, error)
    return {}


def known_planes(store: Store | None, frame: Frame) -> list[PlaneMeasurements | None]:
    """Return the cached measurements of the channels of a frame, None for each if there are none."""
    nothing: list[PlaneMeasurements | None] = [None] * frame.channels
    if store is None:
        return nothing
    try:
        entry = [_decoded(plane) for plane in store.sets[store.key]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return nothing
    return entry if len(entry) == frame.channels else nothing


def _decoded(plane: dict[str, float | str]) -> PlaneMeasurements:
    numbers = {name: float(plane[name]) for name in PlaneMeasurements._fields if name in plane}
    return PlaneMeasurements(**numbers | {"unit": bool(plane["unit"])})


def _encoded(plane: PlaneMeasurements) -> dict[str, float | str]:
    # JSON has no NaN or infinity; as text they are read back by float().
    return {
        name: value if isinstance(value, bool) or math.isfinite(value) else str(value)
        for name, value in plane._asdict().items()
        if value is not None
    }


def save_stores(
    stores: list[Store | None], frames: Sequence[Frame], entries: Entries, changed: set[int]
) -> None:
    """Merge new measurements into the caches of the folders."""
    folders: dict[Path, dict[str, object]] = {}
    for i in sorted(changed):
        store, planes = stores[i], [plane for plane in entries[i] if plane is not None]
        if store is None or len(planes) < len(entries[i]) or not _unchanged(store, frames[i]):
            continue
        folder = store.path.parent
        if folder not in folders:
            # Read again: another run may have written in the meantime.
            folders[folder] = _load(folder)
        store.content = folders[folder]
        sets = dict(store.sets)
        sets[store.key] = [_encoded(plane) for plane in planes]
        store.content[store.path.name] = {"size": store.size, "mtime_ns": store.mtime_ns, "sets": sets}
    for folder, content in folders.items():
        document = {"version": MEASUREMENT_VERSION, "frames": content}
        try:
            text = json.dumps(document, allow_nan=False, indent=0)
            replace_atomically(folder / CACHE_NAME, text.encode("utf-8"))
        except (SaveError, ValueError) as error:
            _log.debug("the cache in %s is not written: %s", folder, error)


def _unchanged(store: Store, frame: Frame) -> bool:
    """Return whether the file is still the one that was measured."""
    try:
        stat = Path(frame.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (store.size, store.mtime_ns)
