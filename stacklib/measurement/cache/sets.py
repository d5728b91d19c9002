"""What was found from frames together, or from settings alone, and is kept for the next run.

What comes from a set of frames is in a folder beside the measurements of their folder, see
`stacklib.measurement.cache.planes`; what comes from settings alone is in a folder of its own. One file of
arrays holds what was found from one set and all that went into it. What cannot be read or written is found
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stacklib.errors import SaveError
from stacklib.frames.frame import Frame
from stacklib.measurement.cache.planes import sets_folder
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.package import FOLDER, VERSION, cache_folder

__all__ = ["identities", "kept_by_frame", "kept_for_set", "kept_for_settings"]

#: Files of sets that are kept for a folder, those used last, and days after which they are removed. A set of
#: color frames has 13, so this is enough for seven filters and two recipes. The largest have about 1 MB.
SETS, SET_DAYS = 200, 90
#: Most frames whose numbers are kept in one of these files, those found last.
MOST_FRAMES = 5000
#: Folder of what follows from settings, number of files in it, and bytes of the largest.
NUMBERS, MOST_NUMBERS, LARGEST = "numbers", 200, 10**6
#: Whether `kept_for_settings` is finding something.
_on_the_way: ContextVar[bool] = ContextVar("_on_the_way", default=False)
_log = logging.getLogger(__name__)


def kept_by_frame(
    frames: Sequence[Frame],
    stacked: Sequence[int],
    settings: Sequence[Any],
    find: Callable[[list[int]], np.ndarray],
) -> np.ndarray:
    """Return what was found of frames that are compared with some of them, and find what is missing.

    Parameters
    ----------
    frames : sequence of Frame
        The frames. Others than the stacked ones may be added and left out.
    stacked : sequence of int
        Those that all are compared with. If they or their files change, everything is found again.
    settings : sequence
        See `kept_for_set`.
    find : callable
        Returns the numbers of frames by index, float64 (some frames, ...).

    Returns
    -------
    ndarray of float64, shape (frames, ...)
        The numbers of all frames.
    """
    place = _set_file([frames[i] for i in stacked], settings)
    names = identities(frames)
    if place is None or None in names:
        return find(list(range(len(frames))))
    (known,) = _read(place, _by_name) or ({},)
    if missing := [i for i, name in enumerate(names) if name not in known]:
        found = find(missing)
        known |= {names[i]: numbers for i, numbers in zip(missing, found, strict=True)}
        # The files may have changed meanwhile.
        unchanged = identities([frames[i] for i in missing]) == [names[i] for i in missing]
        latest = list(known)[-MOST_FRAMES:]
        if unchanged and _set_file([frames[i] for i in stacked], settings) == place:
            _keep(place, {"names": np.array(latest), "numbers": np.stack([known[name] for name in latest])})
    return np.stack([known[name] for name in names])


def _by_name(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(arrays["names"].tolist(), arrays["numbers"], strict=True))


Found = TypeVar("Found")


def kept_for_set(
    frames: Sequence[Frame],
    settings: Sequence[Any],
    find: Callable[[], Found],
    pack: Callable[[Found], Mapping[str, np.ndarray]],
    unpack: Callable[[Mapping[str, np.ndarray]], Found],
) -> Found:
    """Return what was found from a set of frames before, or find it and keep it.

    Parameters
    ----------
    frames : sequence of Frame
        The frames. It is found again if one of their files has changed, if there are more or fewer of them or
        in another order, and if this package has changed.
    settings : sequence
        All else that the result depends on, its name first: text, numbers, arrays, None, and tuples, mappings
        and dataclasses of these.
    find : callable
        Finds it.
    pack, unpack : callable
        Turn it into arrays by name, and back to the last bit.

    Returns
    -------
    Any
        What `find` or `unpack` returned.
    """
    path = _set_file(frames, settings)
    known = _read(path, unpack)
    if known is not None:
        return known[0]
    found = find()
    # The files may have changed meanwhile.
    if path is not None and _set_file(frames, settings) == path:
        _keep(path, pack(found))
    return found


def kept_for_settings(settings: Sequence[Any], find: Callable[[], np.ndarray]) -> np.ndarray:
    """Return an array that follows from settings alone and was found before, or find it and keep it.

    Parameters
    ----------
    settings : sequence
        All that the array depends on, as in `kept_for_set`.
    find : callable
        Finds it.

    Returns
    -------
    ndarray
        What `find` returned. A large one is not kept, nor what is found on the way to another one.
    """
    if _on_the_way.get():
        return find()
    digest = hashlib.sha256(_code().encode())
    _feed(digest, tuple(settings))
    path = cache_folder() / NUMBERS / _name(settings, digest)
    known = _read(path, lambda arrays: arrays["found"])
    if known is not None:
        return known[0]
    token = _on_the_way.set(True)
    try:
        found = find()
    finally:
        _on_the_way.reset(token)
    if found.nbytes <= LARGEST:
        _keep(path, {"found": found}, MOST_NUMBERS)
    return found


def _read(path: Path | None, unpack: Callable[[Mapping[str, np.ndarray]], Found]) -> tuple[Found] | None:
    """Return what a file holds, None if there is no such file."""
    # A damaged file is as good as none, whatever the damage.
    with contextlib.suppress(Exception):
        if path is not None and path.is_file():
            with np.load(io.BytesIO(path.read_bytes())) as arrays:
                found = unpack({name: arrays[name] for name in arrays.files})
            # The time of the last use decides when it is removed.
            with contextlib.suppress(OSError):
                os.utime(path)
            return (found,)
    return None


def _keep(path: Path, arrays: Mapping[str, np.ndarray], most: int | None = None) -> None:
    """Write arrays if possible, and keep no more than the latest of the files beside them."""
    try:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, buffer.getvalue())
        _remove_old(path.parent, SETS if most is None else most)
    except (SaveError, OSError, ValueError) as error:
        _log.debug("the cache %s is not written: %s", path, error)


def identities(frames: Sequence[Frame]) -> list[str | None]:
    """Return what tells the file of each frame from others, None for one that is not a file; see `_files`."""
    return [None if file is None else hashlib.sha256(file).hexdigest()[:32] for file in _files(frames)]


def _files(frames: Sequence[Frame]) -> Iterator[bytes | None]:
    """Yield the real path, size and time of the file of each frame, None for one that is not a file.

    Nor is one that has changed since the frame was opened: samples in memory are those of the file as it was.
    """
    folders: dict[str, str] = {}
    for frame in frames:
        # Without objects of Path, which take longer than the calls of the system.
        try:
            path = os.fspath(frame.path)
            found = os.lstat(path)
            folder, name = os.path.split(path)
            if stat.S_ISLNK(found.st_mode):
                found, real = os.stat(path), os.path.realpath(path)  # noqa: PTH116
            else:
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder)
                real = os.path.join(folders[folder], name)  # noqa: PTH118
        except (OSError, TypeError):
            yield None
        else:
            known = found.st_size, found.st_mtime_ns
            same = known == (frame.stamp.size, frame.stamp.mtime_ns)
            yield os.fsencode(real) + f" {known[0]} {known[1]}\n".encode() if same else None


def _set_file(frames: Sequence[Frame], settings: Sequence[Any]) -> Path | None:
    """Return the file for a set of frames and settings, None if a frame is not a file."""
    files = list(_files(frames))
    if not files or None in files:
        return None
    digest = hashlib.sha256(_code().encode())
    for file in filter(None, files):
        digest.update(file)
    _feed(digest, tuple(settings))
    return sets_folder(Path(frames[0].path).parent) / _name(settings, digest)


def _name(settings: Sequence[Any], digest: hashlib._Hash) -> str:
    return f"{settings[0]}-{digest.hexdigest()[:24]}.npz"


@lru_cache(maxsize=1)
def _code() -> str:
    """Return what tells this state of the package from others."""
    states = [VERSION]
    for source in sorted(FOLDER.rglob("*.py")):
        with contextlib.suppress(OSError):
            found = source.stat()
            states.append(f"{source.relative_to(FOLDER)} {found.st_size} {found.st_mtime_ns}")
    return "\n".join(states)


def _feed(digest: hashlib._Hash, value: Any) -> None:
    """Add a value to a checksum, with its type, so that different values never look alike."""
    if isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif is_dataclass(value):
        digest.update(f"{type(value).__name__}\n".encode())
        _feed(digest, {field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, Mapping):
        _feed(digest, tuple(sorted(value.items(), key=lambda item: repr(item[0]))))
    elif isinstance(value, tuple | list):
        digest.update(f"sequence {len(value)}\n".encode())
        for each in value:
            _feed(digest, each)
    else:
        digest.update(f"{type(value).__name__} {value!r}\n".encode())


def _remove_old(folder: Path, most: int) -> None:
    """Remove the files that were not used lately."""
    # Another run may remove them at the same moment.
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
        oldest = time.time() - SET_DAYS * 86400
        for number, path in enumerate(files):
            if number >= most or path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
