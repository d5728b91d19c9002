"""Find image files by folder, glob pattern or name."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Any

from stacklib.errors import FrameError

__all__ = ["ENDINGS", "FRAMES_FOLDER", "beside", "find_images", "natural_order", "resolve_path"]

#: Name of the folder that holds the registered frames of a target.
FRAMES_FOLDER = "4_Registered"

#: File name endings of supported images, in lower case.
ENDINGS = (".xisf", ".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fit.fz")

#: Name endings of frames that PixInsight has calibrated, debayered and registered.
REGISTERED = tuple(f"_c_d_r{ending}" for ending in ENDINGS)


def resolve_path(where: str | Path) -> Path:
    """Return the absolute path of a file, folder or pattern. ``~`` is the home folder.

    A relative path is searched in the working directory and its parents, so that one relative to the project
    works in JupyterLab and under papermill. If nothing is found, the path is in the working directory.
    """
    path = Path(where).expanduser()
    here = Path.cwd()
    if not path.is_absolute():
        # A bare pattern such as *.xisf would match unrelated files in the parent folders.
        bare = len(path.parts) == 1 and glob.has_magic(str(path))
        for folder in (here,) if bare else (here, *here.parents):
            if _exists(folder / path):
                return folder / path
    return here / path


def beside(file: Path, entries: str | list[str]) -> str | list[str]:
    """Resolve the frames of a job file. Relative names are searched in its folder first."""
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
    # Path.glob does not accept absolute patterns.
    return glob.glob(str(pattern), recursive=True)  # noqa: PTH207


def find_images(where: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder or pattern, sorted, or a single file.

    A folder with a folder ``4_Registered`` in it stands for the images in that.
    """
    if not str(where).strip():
        raise FrameError("the path of the frames is empty; give a folder, a pattern or a file")
    path = resolve_path(os.fspath(where))
    try:
        if path.is_dir():
            # The folder of a target stands for its registered frames.
            registered, outside = path / FRAMES_FOLDER, FRAMES_FOLDER not in path.parts
            return _images_in_folder(registered if outside and registered.is_dir() else path)
        if path.exists():
            return [path]
        if not glob.has_magic(str(path)):
            kind = "file" if path.name.lower().endswith(ENDINGS) else "folder or file"
            raise FrameError(f"{path}: no such {kind}; check the name and the working directory")
    except (OSError, ValueError) as error:
        raise FrameError(f"{path}: cannot be accessed ({error}); check the name and permissions") from error
    matches = [Path(name) for name in _matches(path) if name.lower().endswith(ENDINGS)]
    if not matches:
        raise FrameError(f"{path}: no image matches this pattern; supported endings: {', '.join(ENDINGS)}")
    return sorted(matches, key=natural_order)


def _images_in_folder(folder: Path) -> list[Path]:
    images = [
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".") and not path.is_dir()
    ]
    if not images:
        raise FrameError(f"{folder}: contains no images; supported endings: {', '.join(ENDINGS)}")
    registered = [path for path in images if path.name.lower().endswith(REGISTERED)]
    return sorted(registered or images, key=natural_order)


def natural_order(path: Path) -> list[Any]:
    """Return a sort key that puts frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), part) if number % 2 else part for number, part in enumerate(parts)] + [path.name]
