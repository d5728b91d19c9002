"""Locks and work folders: two batches never do the same work, and a killed one leaves nothing behind."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from stacklib.errors import SaveError
from stacklib.utils.atomic_files import explained
from stacklib.utils.file_sets import take_back
from stacklib.utils.leftovers import holds_locks

__all__ = ["LOCK_NAME", "locked", "work_folder"]

#: Lock of the batch that works below a folder.
LOCK_NAME = ".stacklib_batch.lock"
#: Seconds between two attempts to get a lock.
PAUSE = 0.02


@contextlib.contextmanager
def locked(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock file, and remove it at the end. The system releases it however this process ends.

    `SaveError` is raised if someone else still holds the lock after `patience` seconds (`busy` is the reason
    in the message), or if no lock is possible in the folder.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience, poll_interval=PAUSE)
    except Timeout:
        raise SaveError(f"{path.parent}: {busy}; wait until it has ended, or stop it") from None
    except OSError as error:
        raise SaveError(
            f"{path.parent}: cannot be locked ({error.strerror or error}); check the permissions of the "
            "folder, or use a disk that supports file locks"
        ) from error
    try:
        yield
    finally:
        # Windows does not remove an open file: there it stays.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


@contextlib.contextmanager
def work_folder(folder: Path, name: str, busy: str, kept: Callable[[], Collection[str]]) -> Iterator[Path]:
    """Hold a lock in `folder`, and yield a hidden work folder inside it; the names of both start with `name`.

    The work folder is removed at the end, together with the files that were named from it in `folder` (see
    `take_back`), except for the names that `kept` returns. If the process is killed, this is done the next
    time: a work folder whose lock is free is garbage, unless the process that runs its notebook is still at
    work. `SaveError` is raised if someone else holds the lock
    (`busy` is the reason), or the folder cannot be written to.
    """
    with locked(folder / f"{name}.lock", busy):
        try:
            with explained(folder):
                _clear(folder, name, kept())
                room = Path(tempfile.mkdtemp(prefix=f"{name}_", dir=folder))
            yield room
        finally:
            _clear(folder, name, kept())


def _clear(folder: Path, name: str, kept: Collection[str]) -> None:
    for room in folder.glob(f"{name}_*"):
        if not holds_locks(room):
            take_back(room, kept)
