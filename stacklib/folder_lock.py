"""A lock on a folder, for work that must not be done twice at the same time."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from stacklib.errors import SaveError

__all__ = ["LOCK_NAME", "only_one"]

#: Held by the batch that works below a folder.
LOCK_NAME = ".stacklib_batch.lock"


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Hold the lock of a folder; the system lets go of it however this process ends."""
    path = root / LOCK_NAME
    try:
        stream = path.open("a+b")
    except OSError as error:
        raise SaveError(
            f"{root}: cannot be written to ({error.strerror}); check the permissions of the folder"
        ) from error
    with stream:
        if not _locked(stream):
            raise SaveError(f"{root}: another batch works on it; wait until it has ended, or stop it")
        yield


def _locked(stream: io.IOBase) -> bool:
    """Lock an open file until it is closed; False where another process has it."""
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
