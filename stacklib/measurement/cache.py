"""The cache of measurements: one JSON file beside the frames.

It holds ``{"version": ..., "frames": {name: {"size", "mtime_ns", "sets": {"bwmv 0.0": [plane, ...]}}}}``,
a plane being a number by name for each channel. An entry counts only for the very file, and the very
settings, that were measured; a cache that cannot be read or written is no cache.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stacklib.utils.atomic_files import replace_atomically

__all__ = ["CACHE_NAME", "COLUMNS", "known_planes", "open_stores", "save_stores"]

#: The cache file, one in each folder that holds frames.
CACHE_NAME = ".stacklib_measurements.json"
#: Changes with every change of a measured number.
MEASUREMENT_VERSION = 1
#: What every plane has; ``unit`` and perhaps ``noise`` come on top.
COLUMNS = ("location", "scale_low", "scale_high", "mean", "avgdev", "minimum", "maximum", "count")

_log = logging.getLogger(__name__)


@dataclass
class Store:
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


def open_stores(frames: Sequence[Any], estimator: str, low: float) -> list[Store | None]:
    """The place of each frame in the cache of its folder; None for a frame that is no file."""
    folders: dict[Path, dict[str, Any]] = {}
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
        stores.append(Store(path.parent, path.name, stat.st_size, stat.st_mtime_ns, key, content))
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


def known_planes(store: Store | None, frame: Any) -> list[dict]:
    """Cached measurements of the channels of a frame; empty ones where there are none."""
    nothing: list[dict] = [{} for _ in range(frame.channels)]
    if store is None:
        return nothing
    try:
        entry = [_decoded(plane) for plane in store.sets[store.key]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
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


def save_stores(
    stores: list[Store | None], frames: Sequence[Any], entries: list[list[dict]], changed: set[int]
) -> None:
    """Merge new measurements into the caches."""
    folders: dict[Path, dict[str, Any]] = {}
    for i in sorted(changed):
        store = stores[i]
        complete = all("location" in plane for plane in entries[i])
        if store is None or not complete or not _unchanged(store, frames[i]):
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


def _unchanged(store: Store, frame: Any) -> bool:
    """Whether the file is still the one that was measured."""
    try:
        stat = Path(frame.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (store.size, store.mtime_ns)
