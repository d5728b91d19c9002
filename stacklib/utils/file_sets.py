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
from stacklib.utils.atomic_files import flush_to_disk, give_name, rename, stamp
from stacklib.utils.labels import quoted
from stacklib.utils.leftovers import clear_leftovers, hold_name

__all__ = [
    "WORK_FOLDER",
    "clear_room",
    "existing_folder",
    "name_all",
    "named_from",
    "take_back",
    "temporary_folder",
    "whole_sets_from",
    "workroom",
]

#: Environment variable with the work folder of a run, for the process that runs the notebook.
WORK_FOLDER = "STACKLIB_WORK_FOLDER"
#: What to do where results cannot be written.
ELSEWHERE = (
    "choose another folder for the results: output in notebook 4, --output FOLDER of stacklib run, "
    "save(folder) in Python"
)
#: How the notes end that `give_name` leaves where there are no hard links.
MOVED = ".moved"
#: How the lists of names end that belong to a set, the last one given last.
NAMES = ".names"


@contextlib.contextmanager
def existing_folder(folder: Path) -> Iterator[None]:
    """Make a folder. After an error, remove again what was made and is still empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{folder}: cannot be created ({error.strerror}); {ELSEWHERE}") from error
        except ValueError as error:
            # NUL, or half of a character.
            raise SaveError(f"{quoted(str(folder))}: is not the name of a folder; {ELSEWHERE}") from error
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError, ValueError):
                path.rmdir()
        raise


@contextlib.contextmanager
def workroom(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder inside `folder` for unfinished files; at the end `clear_room` removes it.

    What killed processes left in `folder` is removed first in the same way. Inside the work folder of a run
    the room stays, so that the run can be undone.
    """
    work = Path(os.environ.get(WORK_FOLDER) or os.devnull)
    in_run = work.is_dir() and work.parent.samefile(folder)
    if not in_run:
        clear_leftovers(folder, clear_room)
    with hold_name(work if in_run else folder) as room:
        try:
            room.mkdir(mode=0o700)
        except OSError as error:
            raise SaveError(
                f"{folder}: cannot be written to ({error.strerror or error}); check the free space and the "
                f"permissions of the folder, or {ELSEWHERE}"
            ) from error
        try:
            yield room
        finally:
            if not in_run:
                clear_room(room)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder in the temporary folder of the system, and remove it at the end.

    What killed processes left there is removed first. Raises `SaveError` if no folder can be made.
    """
    parent = Path(tempfile.gettempdir())
    clear_leftovers(parent, remove_tree)
    with hold_name(parent) as folder:
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise SaveError(
                f"{parent}: no temporary folder can be made there ({error.strerror or error}); set TMPDIR to "
                "a folder that can be written"
            ) from error
        try:
            yield folder
        finally:
            remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder as far as possible: Windows keeps files that are open."""
    shutil.rmtree(folder, ignore_errors=True)


def name_all(pairs: list[tuple[Path, Path]]) -> bool:
    """Give each (file, name) its name in this order, all or none; False when a name is taken.

    A list of the names beside the first file lets `clear_room` undo this for a process that was killed.
    """
    first = pairs[0][0]
    try:
        for staged, _ in pairs:
            flush_to_disk(staged)
        names = [path.name for _, path in pairs]
        first.with_name(f"{first.name}{NAMES}").write_text(json.dumps(names), encoding="utf-8")
        for staged, path in pairs:
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
    moved = [_content(path) for path in inside if path.name.endswith(MOVED)]
    # An empty file claims a name until another is moved there.
    claims = [[name, 0] for name, *_ in filter(None, moved)]
    found = []
    for path in sorted(room.parent.iterdir()):
        # Other runs may be at work in the same folder.
        with contextlib.suppress(OSError):
            here = stamp(path, path.name)
            if _identity(path) in linked or here in moved or here[:2] in claims:
                found.append(path)
    return found


def whole_sets_from(room: Path) -> list[Path]:
    """Return the files of `named_from` without the sets that got only some of their names."""
    named = named_from(room)
    names = {path.name for path in named}
    sets = [_content(path) for path in room.rglob(f"*{NAMES}")]
    # The last name is given last.
    unfinished = {name for these in filter(None, sets) if these[-1] not in names for name in these}
    return [path for path in named if path.name not in unfinished]


def take_back(room: Path, kept: Collection[str] = ()) -> None:
    """Remove a work folder and what was named from it in its parent folder, except the names in `kept`."""
    for path in named_from(room):
        with contextlib.suppress(OSError):
            if path.name not in kept:
                path.unlink()
    remove_tree(room)


def clear_room(room: Path) -> None:
    """Remove a work folder. Sets that got all their names stay, those that got only some are removed."""
    take_back(room, [path.name for path in whole_sets_from(room)])


def _content(path: Path) -> list:
    """Return the content of a note, names and numbers; an empty list if it is not whole or holds others."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(one, str | int) for one in found) else []


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _take_back(staged: Path, path: Path) -> None:
    """Undo `give_name`. A file of someone else is left alone."""
    with contextlib.suppress(OSError):
        if not staged.exists():
            rename(path, staged)
        elif staged.stat().st_nlink > 1 and path.exists() and staged.samefile(path):
            path.unlink()
