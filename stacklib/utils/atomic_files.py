"""Files that appear whole or not at all, and never in place of another one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["RUN_MARK", "clear_marked", "hidden_start", "new_file", "replace_atomically"]

#: Variable of the environment that marks what a run leaves, so that it is found when the run was killed.
RUN_MARK = "STACKLIB_RUN"


def hidden_start(mark: str = "") -> str:
    """How the names of files in the making begin; with the mark of this process unless another is given."""
    mark = mark or os.environ.get(RUN_MARK, "")
    return f".stacklib-{mark}-" if mark else ".stacklib-"


def clear_marked(folder: Path, mark: str) -> None:
    """Remove the files in the making that bear a mark: whoever made them was killed."""
    for path in folder.glob(f"{hidden_start(mark)}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_beside(path: Path, mark: str = "") -> Iterator[Path]:
    """A temporary path in the folder of `path`, removed if it is still there at the end."""
    handle, name = tempfile.mkstemp(prefix=hidden_start(mark), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until the content of `path` is on the disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def replace_atomically(path: str | Path, content: bytes, mark: str = "") -> Path:
    """Write `content` to `path`; a reader sees the old file or the new one, never a part."""
    path = Path(path)
    with temporary_beside(path, mark) as temporary:
        temporary.write_bytes(content)
        flush_to_disk(temporary)
        _make_public(temporary)
        temporary.replace(path)
    return path


@contextlib.contextmanager
def new_file(path: Path, mark: str = "") -> Iterator[Path]:
    """Yield a temporary path; at the end it becomes `path`, which must not exist by then.

    Raises
    ------
    FileExistsError
        When `path` exists: it is left as it is.
    """
    with temporary_beside(path, mark) as temporary:
        yield temporary
        flush_to_disk(temporary)
        _make_public(temporary)
        give_name(temporary, path)


def give_name(staged: Path, path: Path) -> None:
    """Make `staged` known as `path`, which must not exist; without hard links it is moved there."""
    try:
        os.link(staged, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: claim the name first, then replace the empty claim.
        with path.open("xb"):
            pass
        try:
            staged.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _make_public(temporary: Path) -> None:
    """The permissions of a usual new file: temporary ones are private."""
    mask = os.umask(0)
    os.umask(mask)
    # Some file systems know no permissions.
    with contextlib.suppress(OSError):
        temporary.chmod(0o666 & ~mask)
