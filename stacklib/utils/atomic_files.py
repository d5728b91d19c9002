"""Files that appear whole or not at all, and never in place of another file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stacklib.errors import SaveError
from stacklib.utils.leftovers import clear_leftovers, hold_name

__all__ = ["explained", "new_file", "rename", "replace_atomically"]

#: Seconds before each further attempt to rename a file. On Windows a file that a virus scanner or a
#: spreadsheet has open cannot be renamed or replaced.
PAUSES = (0.02, 0.05, 0.1, 0.3, 0.5)
#: Errors of a file system that does not support fsync.
NO_FSYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a `SaveError` that names `path`."""
    if "\0" in str(path):
        raise SaveError(f"{path}: is not the name of a file; choose another name")
    try:
        yield
    except PermissionError as error:
        raise SaveError(
            f"{path}: cannot be written ({error.strerror or error}); check the permissions of the folder, "
            "and close the file if another program has it open"
        ) from error
    except OSError as error:
        raise SaveError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "check the free space and the permissions of the folder"
        ) from error


@contextlib.contextmanager
def temporary_for(path: Path, room: Path | None = None, alone: bool = False) -> Iterator[Path]:
    """Yield a temporary path in `room`, by default the folder of `path`; it is removed at the end.

    In the folder of `path`, what killed processes left there is removed first. A room is cleared as a whole.
    """
    with contextlib.ExitStack() as held:
        if alone:
            temporary = path.with_name(f".stacklib-{path.name}")
            # It may be a link to a file elsewhere.
            temporary.unlink(missing_ok=True)
        elif room is not None:
            handle, name = tempfile.mkstemp(suffix=path.suffix, dir=room)
            os.close(handle)
            temporary = Path(name)
        else:
            clear_leftovers(path.parent)
            hidden = held.enter_context(hold_name(path.parent))
            temporary = hidden.with_name(f"{hidden.name}{path.suffix}")
            temporary.touch(exist_ok=False)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Rename a file, in place of `target` if that exists; try again while other programs have one open."""
    for pause in PAUSES:
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(pause)
    source.replace(target)


def flush_to_disk(path: Path) -> None:
    """Wait until the content of `path` is on the disk, where the file system can tell."""
    with path.open("rb+") as stream:
        try:
            os.fsync(stream.fileno())
        except OSError as error:
            # Some network shares do not know this call; a full or broken disk is another matter.
            if error.errno not in NO_FSYNC:
                raise


def replace_atomically(path: str | Path, content: bytes, alone: bool = False) -> Path:
    """Write `content` to `path`. A reader sees the old file or the new one, never a part.

    With `alone`, the caller holds a lock. The temporary file has a fixed name, so the next writer takes over
    the one of a killed process. Otherwise it is locked. Raise `SaveError` if the file cannot be written.
    """
    path = Path(path)
    with explained(path), temporary_for(path, alone=alone) as temporary:
        temporary.write_bytes(content)
        flush_to_disk(temporary)
        _make_public(temporary)
        rename(temporary, path)
    return path


@contextlib.contextmanager
def new_file(path: Path, room: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` at the end, or raise `FileExistsError` if that exists.

    The temporary file is in `room`, on the same disk, by default in the folder of `path`.
    """
    with temporary_for(path, room) as temporary:
        yield temporary
        flush_to_disk(temporary)
        _make_public(temporary)
        give_name(temporary, path)


def give_name(staged: Path, path: Path, note: Path | None = None) -> None:
    """Link `staged` as `path`, which must not exist.

    Without hard links it is moved, and the file `note` keeps name, size and time of the moved file.
    """
    try:
        os.link(staged, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here: claim the name, then replace the empty claim.
        if note is not None:
            note.write_text(json.dumps(stamp(staged, path.name)), encoding="utf-8")
        try:
            path.touch(exist_ok=False)
        except BaseException:
            if note is not None:
                note.unlink()
            raise
        try:
            rename(staged, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def stamp(path: Path, name: str) -> list[str | int]:
    """Return name, size and time of change of a file."""
    found = path.stat()
    return [name, found.st_size, found.st_mtime_ns]


def _make_public(temporary: Path) -> None:
    """Set the permissions of an ordinary new file: temporary files are private."""
    mask = os.umask(0)
    os.umask(mask)
    # Some file systems know no permissions.
    with contextlib.suppress(OSError):
        temporary.chmod(0o666 & ~mask)
