"""Which image files a folder, a pattern or a name stands for, and in which order."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Any

from stacklib.errors import FrameError

__all__ = ["ENDINGS", "beside", "find_images", "natural_order", "resolve_path"]

#: File name endings of images, in lower case.
ENDINGS = (".xisf", ".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fit.fz")

#: What PixInsight appends to the name of a calibrated, debayered, registered frame.
REGISTERED = "_c_d_r"


def resolve_path(where: str | Path) -> Path:
    """A path, looked for in the current folder and, where it is not there, in those above it.

    Notebooks run in their own folder under JupyterLab and in the caller's under papermill: a path
    relative to the project works in both.

    Parameters
    ----------
    where : str or Path
        A file, a folder or a glob pattern; ``~`` is the home folder.

    Returns
    -------
    Path
        An absolute path. A path that is found nowhere is given relative to the current folder.
    """
    path = Path(where).expanduser()
    here = Path.cwd()
    if not path.is_absolute():
        # A bare pattern such as *.xisf would match strangers farther up.
        bare = len(path.parts) == 1 and glob.has_magic(str(path))
        for folder in (here,) if bare else (here, *here.parents):
            if _exists(folder / path):
                return folder / path
    return here / path


def beside(file: Path, entries: str | list[str]) -> str | list[str]:
    """Frames as a job file names them: relative names count from the file's own folder, if they are there."""

    home = Path(os.path.normpath(file.absolute())).parent

    def found(entry: str) -> str:
        path = home / Path(entry).expanduser()
        return str(path) if _exists(path) else entry

    return found(entries) if isinstance(entries, str) else [found(entry) for entry in entries]


def _exists(path: Path) -> bool:
    try:
        return path.exists() or (glob.has_magic(str(path)) and bool(_matches(path)))
    except (OSError, ValueError):
        return False


def _matches(pattern: Path) -> list[str]:
    # Path.glob takes no absolute patterns.
    return glob.glob(str(pattern), recursive=True)  # noqa: PTH207


def find_images(where: str | os.PathLike[str]) -> list[Path]:
    """The image files that a folder, pattern or file name stands for."""
    if not str(where).strip():
        raise FrameError("the name of the frames is empty; name a folder, a pattern or a file")
    path = resolve_path(os.fspath(where))
    try:
        if path.is_dir():
            return _images_in_folder(path)
        if path.exists() or not glob.has_magic(str(path)):
            if not path.exists():
                kind = "file" if path.name.lower().endswith(ENDINGS) else "folder or file"
                raise FrameError(f"{path}: no such {kind}; check the name, or where the notebook was started")
            return [path]
    except (OSError, ValueError) as error:
        raise FrameError(
            f"{path}: cannot be looked into ({error}); check the name and permissions"
        ) from error
    matches = [Path(name) for name in _matches(path) if name.lower().endswith(ENDINGS)]
    if not matches:
        raise FrameError(f"{path}: no image matches this pattern; endings looked for: {', '.join(ENDINGS)}")
    return sorted(matches, key=natural_order)


def _images_in_folder(folder: Path) -> list[Path]:
    images = [
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".") and not path.is_dir()
    ]
    if not images:
        raise FrameError(f"{folder}: holds no images; endings looked for: {', '.join(ENDINGS)}")
    registered = [path for path in images if _stem(path).endswith(REGISTERED)]
    return sorted(registered or images, key=natural_order)


def _stem(path: Path) -> str:
    name = path.name.lower()
    return name.removesuffix(max((end for end in ENDINGS if name.endswith(end)), key=len))


def natural_order(path: Path) -> list[Any]:
    """Sort key by which frame_2 comes before frame_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), part) if number % 2 else part for number, part in enumerate(parts)] + [path.name]
