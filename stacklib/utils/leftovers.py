"""Hidden names that a living process holds, and the removal of what killed processes left.

A file or folder ``.stacklib-NAME`` belongs to the process that holds the file lock ``.stacklib-NAME.lock``
beside it. The system releases such a lock however the process ends, so what has a free lock is garbage.
Other processes that work in a folder hold a lock inside it.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["clear_leftovers", "hold_name", "holds_locks"]

#: Start of hidden names, and end of their locks.
PREFIX, LOCK = ".stacklib-", ".lock"
#: Seconds after which something without a lock is garbage: where nothing can be locked, and what other
#: versions left.
UNLOCKED = 86400.0
#: Attempts to find a name that is free.
ATTEMPTS = 100


@contextlib.contextmanager
def hold_name(folder: Path) -> Iterator[Path]:
    """Yield a free hidden path in `folder`, and hold its lock meanwhile.

    What the caller makes there, or there with an ending, is its own to remove. Where nothing can be locked
    the name is merely unlikely to be taken.
    """
    for _ in range(ATTEMPTS):
        path = folder / f"{PREFIX}{secrets.token_hex(4)}"
        lock = FileLock(f"{path}{LOCK}")
        # A lock would make a folder that is missing.
        if not folder.is_dir():
            break
        try:
            lock.acquire(timeout=0)
        except (Timeout, RuntimeError):
            continue
        except (OSError, NotImplementedError):
            # The caller will find out whether anything can be written here.
            break
        # Until it was held, another process may have taken it for garbage.
        if Path(lock.lock_file).exists():
            break
        lock.release()
    try:
        yield path
    finally:
        _release(lock)


def _release(lock: FileLock) -> None:
    """Release a lock and remove it, unless what it belongs to is still there: the next start tries again.

    Windows removes no open file, so there the lock goes after its release.
    """
    path = Path(lock.lock_file)
    left = [each for each in path.parent.glob(f"{path.name.removesuffix(LOCK)}*") if each != path]
    held = lock.is_locked and not left
    for release in (False, True):
        if release:
            lock.release()
        if held:
            with contextlib.suppress(OSError):
                path.unlink()


def clear_leftovers(folder: Path, remove_folder: Callable[[Path], None] | None = None) -> None:
    """Remove hidden files of `folder` that no living process holds, and hidden folders with `remove_folder`.

    Nothing is removed that is in use, or that this user may not remove. No error is raised.
    """
    names: dict[str, list[Path]] = {}
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{PREFIX}*"):
            names.setdefault(path.name.removeprefix(PREFIX).partition(".")[0], []).append(path)
    for name, paths in names.items():
        if remove_folder is None and any(path.is_dir() for path in paths):
            continue
        with contextlib.suppress(OSError), _if_free(folder / f"{PREFIX}{name}{LOCK}", paths) as free:
            for path in paths if free else ():
                if path.is_dir() and remove_folder is not None:
                    remove_folder(path)
                elif path.suffix != LOCK:
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _if_free(path: Path, paths: list[Path]) -> Iterator[bool]:
    """Hold the lock `path` of some leftovers, and remove it at the end. Yield False if they are in use."""
    if path not in paths:
        age = time.time() - max((found.stat().st_mtime for found in paths), default=time.time())
        yield age > UNLOCKED and not any(map(holds_locks, paths))
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError, NotImplementedError):
        yield False
        return
    if any(map(holds_locks, paths)):
        lock.release()
        yield False
        return
    try:
        yield True
    finally:
        _release(lock)


def holds_locks(folder: Path) -> bool:
    """Return whether a process holds a lock in a folder."""
    return any(map(_is_held, folder.rglob(f"*{LOCK}")))


def _is_held(path: Path) -> bool:
    """Return whether a process holds a lock."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError, PermissionError):
        return True
    except (OSError, NotImplementedError):
        # It is gone, or nothing can be locked here.
        return False
    lock.release()
    return False
