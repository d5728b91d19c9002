"""Locks, for work that must not be done twice at the same time."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

from stacklib.errors import SaveError

__all__ = ["LOCK_NAME", "held", "only_one"]

#: Held by the batch that works below a folder.
LOCK_NAME = ".stacklib_batch.lock"
#: Seconds between two attempts to get a lock, and until it is done without.
PAUSE, PATIENCE = 0.02, 20.0


@contextlib.contextmanager
def only_one(root: Path, what: str = "another batch works on it", name: str = LOCK_NAME) -> Iterator[None]:
    """Hold a lock in a folder; the system lets go of it however this process ends.

    Raises
    ------
    SaveError
        When it is held already: that is `what`.
    """
    with _opened(root / name) as stream:
        if stream is None:
            raise SaveError(f"{root}: {what}; wait until it has ended, or stop it")
        yield


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait for a lock that is never held for long, and hold it."""
    end = time.monotonic() + PATIENCE
    while True:
        with _opened(path) as stream:
            if stream is not None or time.monotonic() > end:
                yield
                return
        time.sleep(PAUSE)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.IOBase | None]:
    """The file of a lock, locked and gone at the end; None where someone else has it."""
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise SaveError(
            f"{path.parent}: cannot be written to ({error.strerror}); check the permissions of the folder"
        ) from error
    with stream:
        if not (_locked(stream) and _still(path, stream)):
            yield None
            return
        try:
            yield stream
        finally:
            # Windows does not remove a file that is open: there it stays.
            with contextlib.suppress(OSError):
                path.unlink()


def _still(path: Path, stream: io.IOBase) -> bool:
    """Whether the file is that of the name: the one who had the lock may have removed it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except OSError:
        return False


def _locked(stream: io.IOBase) -> bool:
    """Lock an open file until it is closed; False where someone else has it."""
    try:
        if os.name == "nt":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        # Some network file systems know no locks.
        return True
    return True
