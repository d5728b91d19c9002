"""Cache of measurements: one JSON file for each folder of frames, in the cache folder of the user.

The JSON file holds ``{"folder": ..., "version": ..., "frames": {name: {"size", "mtime_ns", "sets":
{"bwmv 0.0": [plane, ...]}}}}`` with one `PlaneMeasurements` for each channel. An entry is valid for the same
file name, size, modification time, estimator, `range_low` and version only. What is found by comparing frames
with each other is in a folder beside the JSON file, see `stacklib.measurement.cache.sets`.

A cache that cannot be read or written is ignored. Files that were not used for a year are removed, and after
a month those of folders that have vanished: a folder on a disk that is unplugged comes back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stacklib.errors import SaveError
from stacklib.frames.frame import Frame
from stacklib.measurement.border import Border
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.package import cache_folder

__all__ = [
    "Entries",
    "PlaneMeasurements",
    "cache_file",
    "known_planes",
    "open_stores",
    "save_stores",
    "sets_folder",
]

#: Days without use after which a cache file is removed, and if the folder of its frames is not there.
UNUSED_DAYS, VANISHED_DAYS = 365, 30
#: Longest part of the name of a cache file that comes from the folder.
LONGEST_NAME = 60
#: Increases whenever a measured number changes.
MEASUREMENT_VERSION = 9
_log = logging.getLogger(__name__)


class PlaneMeasurements(NamedTuple):
    """Measurements of one plane, in its own units.

    The first eight fields are those of `stacklib.measurement.statistics.PlaneStatistics`. `unit` is true if
    the plane was measured as [0, 1], not as ADU. `high`, `top` and `counts` are those of
    `stacklib.measurement.full_scale.Brightness`, the gradients those of `stacklib.measurement.gradient`.
    `noise` is a standard deviation: NaN if it cannot be measured, None if it was not measured. `empty` is the
    fraction of the samples without data, `cut` the fraction of those of a faint sky that are 0. `border`
    tells which samples are no data, as text of `stacklib.measurement.border.Border`, and is empty if these
    are all up to `range_low`. `step` is that of `stacklib.measurement.statistics.grid_step`.
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
    high: float = math.nan
    top: float = math.nan
    counts: bool = False
    gradient_x: float = math.nan
    gradient_y: float = math.nan
    noise: float | None = None
    empty: float = 0.0
    cut: float = 0.0
    border: str = ""
    step: float = 0.0


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


def cache_file(folder: str | Path) -> Path:
    """Return the cache file for a folder of frames, however its path is written."""
    real = Path(os.path.realpath(folder))
    name = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(real.parts[-2:]))[-LONGEST_NAME:].strip("-")
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    return cache_folder() / "measurements" / f"{name}-{digest}.json"


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
    path = cache_file(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        # The time of the last use decides when it is removed.
        with contextlib.suppress(OSError):
            os.utime(path)
        if content["version"] == MEASUREMENT_VERSION and isinstance(content["frames"], dict):
            return content["frames"]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.debug("the cache %s is not used: %s", path, error)
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
    numbers = {
        name: float(plane[name]) for name in PlaneMeasurements._fields if name in plane and name != "border"
    }
    border = str(plane["border"])
    if border:
        Border.from_text(border)
    switches = {name: bool(plane[name]) for name in ("unit", "counts")}
    found = PlaneMeasurements(**numbers | switches | {"border": border})
    if not _possible(found):
        raise ValueError("not the measurements of a plane")
    return found


def _possible(plane: PlaneMeasurements) -> bool:
    """Return whether numbers can be measurements: a scatter is not negative, a fraction is one."""
    scatter = (plane.scale_low, plane.scale_high, plane.avgdev, plane.count, plane.noise or 0.0)
    # Comparisons with NaN, for what could not be measured, are false.
    impossible = any(value < 0 or value == math.inf for value in scatter) or plane.minimum > plane.maximum
    return not impossible and 0 <= plane.empty <= 1 and 0 <= plane.cut <= 1


def _encoded(plane: PlaneMeasurements) -> dict[str, float | str]:
    # JSON has no NaN or infinity; as text they are read back by float().
    return {
        name: value if isinstance(value, bool | str) or math.isfinite(value) else str(value)
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
        path, real = cache_file(folder), os.path.realpath(folder)
        head = {"folder": real, "version": MEASUREMENT_VERSION}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The folder has a line of its own, so that `_folder_of` need not read it all. To indent what is
            # known of the frames, too, would take Python ten times as long.
            known = json.dumps(content, allow_nan=False)
            text = f'{json.dumps(head, indent=0)[:-2]},\n"frames": {known}}}'
            replace_atomically(path, text.encode())
        except (SaveError, OSError, ValueError) as error:
            _log.debug("the cache %s is not written: %s", path, error)
    if folders:
        _remove_unused()


def _remove_unused() -> None:
    """Remove the cache files that are of no use any more."""
    now = time.time()
    for path in (cache_folder() / "measurements").glob("*.json"):
        # Another run may remove it at the same moment.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            days = (now - path.stat().st_mtime) / 86400
            if days > UNUSED_DAYS or (days > VANISHED_DAYS and not _folder_of(path).is_dir()):
                path.unlink()
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)


def _folder_of(path: Path) -> Path:
    """Return the folder of frames from the second line of a cache file."""
    with path.open(encoding="utf-8") as stream:
        stream.readline()
        return Path(json.loads(f"{{{stream.readline().strip().rstrip(',')}}}")["folder"])


def sets_folder(folder: str | Path) -> Path:
    """Return the cache folder for sets of frames in a folder, beside its `cache_file`."""
    return cache_file(folder).with_suffix("")


def _unchanged(store: Store, frame: Frame) -> bool:
    """Return whether the file is still the one that was measured."""
    try:
        stat = Path(frame.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (store.size, store.mtime_ns)
