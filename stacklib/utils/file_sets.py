"""Sets of files that get their names together or not at all, and never in place of other files."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stacklib.utils.atomic_files import flush_to_disk, give_name, hidden_start

__all__ = ["existing_folder", "name_all", "workroom"]


@contextlib.contextmanager
def existing_folder(folder: Path) -> Iterator[None]:
    """Make the folder; after an error remove again what was made and is still empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def workroom(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder` for files in the making; gone at the end."""
    room = Path(tempfile.mkdtemp(prefix=hidden_start(), dir=folder))
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def name_all(pairs: list[tuple[Path, Path]]) -> bool:
    """Give each (file, name) its name, all or none; False when a name is taken."""
    try:
        for staged, path in pairs:
            flush_to_disk(staged)
            give_name(staged, path)
    except BaseException as error:
        for staged, path in pairs:
            _take_back(staged, path)
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def _take_back(staged: Path, path: Path) -> None:
    """Undo `give_name`; a file of someone else is left alone."""
    with contextlib.suppress(OSError):
        if not staged.exists():
            path.replace(staged)
        elif staged.stat().st_nlink > 1 and path.exists() and staged.samefile(path):
            path.unlink()
