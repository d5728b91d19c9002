"""Sorted samples of a set of frames, on the disk.

A store is a folder in the cache folder of the user: a table of its frames and settings, and for each channel
the arrays of `stacklib.kernel.grown.Known`, which are mapped into memory. It is made whole or not at all, and
never changed: when frames are added or left out, the samples of the others still hold. There is one for each
folder of frames and filter.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.kernel.grown import Known
from stacklib.measurement.cache.sets import identities
from stacklib.rejection.sorting import LANES
from stacklib.utils.atomic_files import flush_to_disk
from stacklib.utils.file_sets import remove_tree
from stacklib.utils.leftovers import clear_leftovers, hold_name
from stacklib.utils.package import VERSION, cache_folder

__all__ = ["Store", "room_for", "store_folder", "unusable"]

#: Increases whenever the files change their meaning.
FORMAT = 2
#: File with the frames and settings of a store.
TABLE = "table.npz"
#: Free space that a store leaves on the disk, in bytes.
LEFT_FREE = 1 << 30
#: Days without use after which a store is removed.
UNUSED_DAYS = 30
#: Errors of a file system that cannot claim room.
NO_CLAIM = {errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_log = logging.getLogger(__name__)


def store_folder(frames: Sequence[Frame]) -> Path:
    """Return the folder of the store for frames, named after their folder and filter."""
    home = os.fsencode(os.path.realpath(Path(frames[0].path).parent))
    digest = hashlib.sha256(home + b"\0" + str(frames[0].filter).encode("utf-8", "surrogateescape"))
    return cache_folder() / "samples" / digest.hexdigest()[:24]


def room_for(shape: tuple[int, int, int], count: int) -> str:
    """Return why the samples of so many frames cannot be kept, or nothing."""
    needed = _bytes(shape, count)
    place = cache_folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return unusable(error)
    if needed + LEFT_FREE <= free:
        return ""
    sizes = f"that takes {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB"
    return f"{sizes}; STACKLIB_CACHE names another folder"


def unusable(error: OSError) -> str:
    """Return that the folder of the stores cannot be used, and why."""
    return f"{cache_folder()} cannot be used ({error.strerror or error})"


def _bytes(shape: tuple[int, int, int], count: int) -> int:
    channels, height, width = shape
    return channels * _blocks(height * width) * LANES * (count * (8 + _number_type(count).itemsize) + 28)


def _blocks(pixels: int) -> int:
    return -(-pixels // LANES)


def _number_type(count: int) -> np.dtype:
    return np.dtype(np.uint8 if count <= 256 else np.uint16)


def _layout(pixels: int, count: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and type of each array of `Known`."""
    blocks = _blocks(pixels)
    samples = (blocks, count, LANES)
    return {
        "values": (samples, np.dtype(np.float32)),
        "raw": (samples, np.dtype(np.float32)),
        "source": (samples, _number_type(count)),
        "level": ((pixels,), np.dtype(np.float32)),
        "sums": ((pixels, 3), np.dtype(np.float64)),
    }


class Store:
    """The samples of the frames in `names`, as `stacklib.measurement.cache.sets.identities` names them.

    `tables`, float64 (channels, 6, frames), are the frame tables by which they were sorted, `data_range` is
    the range of data. `known` has the arrays of each channel.
    """

    def __init__(
        self,
        names: Sequence[str],
        tables: np.ndarray,
        data_range: tuple[float, float],
        known: list[Known],
    ) -> None:
        self.names, self.tables, self.data_range, self.known = list(names), tables, data_range, known

    @classmethod
    def find(cls, frames: Sequence[Frame], shape: tuple[int, int, int]) -> Store | None:
        """Return the store for frames of this shape, None if there is none or it is damaged."""
        folder = store_folder(frames)
        channels, height, width = shape
        # Whatever the damage.
        with contextlib.suppress(Exception):
            content = (folder / TABLE).read_bytes()
            with np.load(io.BytesIO(content)) as arrays:
                table = {name: arrays[name] for name in arrays.files}
            names = table["names"].tolist()
            if table["version"].tolist() != _version() or table["shape"].tolist() != list(shape):
                return None
            layout = _layout(height * width, len(names))
            known = [_mapped(folder, channel, layout, "c") for channel in range(channels)]
            os.utime(folder)
            # Another run may have put its own store there before the arrays were mapped.
            if (folder / TABLE).read_bytes() != content:
                return None
            return cls(names, table["tables"], tuple(table["data_range"].tolist()), known)
        return None

    @classmethod
    @contextlib.contextmanager
    def new(
        cls,
        frames: Sequence[Frame],
        shape: tuple[int, int, int],
        tables: np.ndarray,
        data_range: tuple[float, float],
    ) -> Iterator[Store]:
        """Yield a store to be filled.

        It takes the place of an older one at the end, or vanishes after an error. Raises `OSError` if it
        cannot be made; one that cannot be finished is not kept.
        """
        final = store_folder(frames)
        home = final.parent
        home.mkdir(parents=True, exist_ok=True)
        clear_leftovers(home, remove_tree)
        _remove_unused(home)
        names = [name or "" for name in identities(frames)]
        channels, height, width = shape
        layout = _layout(height * width, len(names))
        with hold_name(home) as folder:
            try:
                folder.mkdir(mode=0o700)
                known = [_mapped(folder, channel, layout, "r+") for channel in range(channels)]
                yield cls(names, tables, data_range, known)
                if names != identities(frames):
                    return
                buffer = io.BytesIO()
                np.savez(
                    buffer,
                    names=np.array(names),
                    tables=tables,
                    data_range=np.array(data_range),
                    shape=np.array(shape),
                    version=np.array(_version()),
                )
                # Windows moves no files that are mapped into memory.
                known.clear()
                try:
                    # A power failure must not leave a table without samples.
                    for path in folder.iterdir():
                        flush_to_disk(path)
                    (folder / TABLE).write_bytes(buffer.getvalue())
                    flush_to_disk(folder / TABLE)
                    # Another run may do the same, and Windows removes no files that are open.
                    remove_tree(final)
                    folder.replace(final)
                except OSError as error:
                    _log.debug("the samples %s are not kept: %s", final, error)
            finally:
                remove_tree(folder)

    def numbers_of(self, frames: Sequence[Frame]) -> np.ndarray:
        """Return the place in the store of each of some frames, -1 if it is not there, int64."""
        places = {name: i for i, name in enumerate(self.names)}
        return np.array([places.get(name or "", -1) for name in identities(frames)], np.int64)


def _version() -> list[str]:
    return [str(FORMAT), VERSION]


def _mapped(folder: Path, channel: int, layout: dict, mode: Literal["c", "r+"]) -> Known:
    """Map the arrays of a channel into memory. Those of mode ``c`` look writable to compiled code.

    Those of mode ``r+`` are new.
    """
    arrays = {}
    for name, (shape, kind) in layout.items():
        path, size = folder / f"{name}_{channel}", int(np.prod(shape)) * kind.itemsize
        if mode == "r+":
            _reserve(path, size)
        elif path.stat().st_size != size:
            raise ValueError(f"{path}: has another size")
        arrays[name] = np.asarray(np.memmap(path, kind, mode, shape=shape))
    return Known(**arrays)


def _reserve(path: Path, size: int) -> None:
    """Make a file of a size, and claim its room on the disk where the system can.

    On a disk that others fill meanwhile, what is written to a map would end the process.
    """
    with path.open("wb") as stream:
        stream.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(stream.fileno(), 0, size)
            except OSError as error:
                if error.errno not in NO_CLAIM:
                    raise


def _remove_unused(home: Path) -> None:
    """Remove the stores that were not used lately."""
    oldest = time.time() - UNUSED_DAYS * 86400
    # Another run may remove them at the same moment.
    with contextlib.suppress(OSError):
        for folder in home.iterdir():
            if folder.is_dir() and folder.stat().st_mtime < oldest and not folder.name.startswith("."):
                remove_tree(folder)
