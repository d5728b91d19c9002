"""Sets of files that get their names together or not at all, and the work folders they are made in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from stacklib.errors import SaveError
from stacklib.utils.atomic_files import flush_to_disk, give_name, stamp

__all__ = ["WORK_FOLDER", "existing_folder", "name_all", "named_from", "take_back", "workroom"]

#: Environment variable with the work folder of a run, for the process that runs the notebook.
WORK_FOLDER = "STACKLIB_WORK_FOLDER"
#: What to do where results cannot be written.
ELSEWHERE = (
    "choose another folder for the results: output in notebook 4, --output FOLDER of stacklib run, "
    "save(folder) in Python"
)
#: How the notes end that `give_name` leaves where there are no hard links.
MOVED = ".moved"


@contextlib.contextmanager
def existing_folder(folder: Path) -> Iterator[None]:
    """Make a folder. After an error, remove again what was made and is still empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{folder}: cannot be created ({error.strerror}); {ELSEWHERE}") from error
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def workroom(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder inside `folder` for unfinished files, and remove it at the end.

    Inside the work folder of a run it stays, so that `take_back` can undo a run that was killed.
    """
    work = Path(os.environ.get(WORK_FOLDER) or os.devnull)
    in_run = work.is_dir() and work.parent.samefile(folder)
    try:
        room = Path(tempfile.mkdtemp(prefix=".stacklib-", dir=work if in_run else folder))
    except OSError as error:
        raise SaveError(
            f"{folder}: cannot be written to ({error.strerror or error}); check the free space and the "
            f"permissions of the folder, or {ELSEWHERE}"
        ) from error
    try:
        yield room
    finally:
        if not in_run:
            shutil.rmtree(room, ignore_errors=True)


def name_all(pairs: list[tuple[Path, Path]]) -> bool:
    """Give each (file, name) its name, all or none; False when a name is taken."""
    try:
        for staged, path in pairs:
            flush_to_disk(staged)
            give_name(staged, path, staged.with_name(f"{staged.name}{MOVED}"))
    except BaseException as error:
        for staged, path in pairs:
            _take_back(staged, path)
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def named_from(room: Path) -> list[Path]:
    """Return the files in the parent folder that were named from a work folder."""
    inside = [path for path in room.rglob("*") if path.is_file()]
    linked = {_identity(path) for path in inside}
    moved = [json.loads(path.read_text("utf-8") or "0") for path in inside if path.name.endswith(MOVED)]
    found = []
    for path in sorted(room.parent.iterdir()):
        # Other runs may be at work in the same folder.
        with contextlib.suppress(OSError):
            if _identity(path) in linked or stamp(path, path.name) in moved:
                found.append(path)
    return found


def take_back(room: Path, kept: Collection[str] = ()) -> None:
    """Remove a work folder and what was named from it in its parent folder, except the names in `kept`."""
    for path in named_from(room):
        with contextlib.suppress(OSError):
            if path.name not in kept:
                path.unlink()
    shutil.rmtree(room, ignore_errors=True)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _take_back(staged: Path, path: Path) -> None:
    """Undo `give_name`. A file of someone else is left alone."""
    with contextlib.suppress(OSError):
        if not staged.exists():
            path.replace(staged)
        elif staged.stat().st_nlink > 1 and path.exists() and staged.samefile(path):
            path.unlink()
