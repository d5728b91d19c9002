"""Find image files by folder, glob pattern or name."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stacklib.errors import FrameError
from stacklib.frames.registered import name_reasons
from stacklib.utils.labels import counted, listed

__all__ = [
    "ENDINGS",
    "FRAMES_FOLDER",
    "RESULT_FOLDER",
    "Found",
    "beside",
    "common_folder",
    "doubtful_names",
    "expanded",
    "find_images",
    "frames_folder_above",
    "natural_order",
    "resolve_path",
    "stem_of",
]

#: File name endings of supported images, in lower case.
ENDINGS = (".xisf", ".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz", ".fit.fz")

#: File name endings of pictures that may be frames, but are not read: raw files, TIFF, video.
RAW_ENDINGS = (
    *(
        ".tif",
        ".tiff",
        ".crw",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".raf",
        ".dng",
        ".orf",
        ".rw2",
        ".pef",
        ".srw",
    ),
    ".ser",
    *(
        f"{image}{packed}"
        for image in (".xisf", ".fits", ".fit", ".fts")
        for packed in (".bz2", ".z", ".zip")
    ),
)
#: The same with pictures that are named only if there is nothing else.
OTHER_ENDINGS = (*RAW_ENDINGS, ".png", ".jpg")

#: Name of the folders that hold the registered frames of a target.
FRAMES_FOLDER = "4_Registered"
#: Default name of the folder for results, beside it.
RESULT_FOLDER = "5_Integration"


class Found(NamedTuple):
    """The images that a path means."""

    images: list[Path]  # in natural order
    kind: str  # what the path is: folder, pattern or file
    notes: tuple[str, ...] = ()  # what was left out of a folder, and why


def common_folder(files: Iterable[Path]) -> Path:
    """Return the folder of files, or the nearest common parent of their folders.

    Files on several drives of Windows have none: then it is the folder of the first one.
    """
    folders = [file.parent.absolute() for file in files]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        return folders[0]


def frames_folder_above(folder: Path) -> Path | None:
    """Return the folder ``4_Registered`` that this folder is or lies in, None if there is none."""
    return next((path for path in (folder, *folder.parents) if path.name == FRAMES_FOLDER), None)


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home folder. One of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def resolve_path(where: str | Path) -> Path:
    """Return the absolute path of a file, folder or pattern. ``~`` is the home folder.

    A relative path is searched in the working directory and its parents, so that one relative to the project
    works in JupyterLab and under papermill. If nothing is found, the path is in the working directory.
    """
    path = expanded(where)
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
        path = home / expanded(entry)
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


def find_images(where: str | os.PathLike[str], below: bool = True, registered: bool = True) -> Found:
    """Find the images that a path means.

    Parameters
    ----------
    where : str or Path
        A folder, a glob pattern or a file. In a folder that holds registered frames beside others, only the
        registered ones count, see `stacklib.frames.registered`. A pattern or a file means what it names.
    below : bool
        Whether a folder without images stands for its only subfolder with images.
    registered : bool
        Whether to leave out frames that are not registered. Otherwise all images of a folder count.

    Returns
    -------
    Found
        The images in natural order, and what was left out.

    Raises
    ------
    FrameError
        If there is no image.
    """
    if not str(where).strip():
        raise FrameError("the path of the frames is empty; give a folder, a pattern or a file")
    path = resolve_path(os.fspath(where))
    try:
        if path.is_dir():
            # The folder of a target stands for its registered frames.
            inner, outside = path / FRAMES_FOLDER, FRAMES_FOLDER not in path.parts
            return _images_in_folder(inner if outside and inner.is_dir() else path, below, registered)
        if path.exists():
            return Found([path], "file")
        if not glob.has_magic(str(path)):
            kind = "file" if path.name.lower().endswith(ENDINGS) else "folder or file"
            raise FrameError(f"{path}: no such {kind}; check the name and the working directory")
    except (OSError, ValueError) as error:
        raise FrameError(f"{path}: cannot be accessed ({error}); check the name and permissions") from error
    found = [Path(name) for name in _matches(path)]
    matches = sorted((one for one in found if one.name.lower().endswith(ENDINGS)), key=natural_order)
    if not matches:
        raise FrameError(f"{path}: no image matches this pattern; endings looked for: {', '.join(ENDINGS)}")
    return Found(matches, "pattern", tuple(_not_read(path, found, matches)))


def _images_in_folder(folder: Path, below: bool, registered: bool) -> Found:
    images = sorted(_images(folder), key=natural_order)
    if not images:
        return _images_below(folder, below, registered)
    notes = [*_not_read(folder, list(folder.iterdir()), images), *(_not_entered(folder) if below else [])]
    reasons = name_reasons([stem_of(path) for path in images if registered])
    if not any(reasons):
        return Found(images, "folder", tuple(notes))
    used = [path for path, reason in zip(images, reasons, strict=True) if not reason]
    note = (
        f"{folder}: {len(used)} of {len(images)} images are used, such as {used[0].name}; left out: "
        f"{_in_words(images, reasons)}. Give a pattern or a list of files to use others"
    )
    return Found(used, "folder", (note, *notes))


def _not_read(where: Path, files: Sequence[Path], images: Sequence[Path]) -> list[str]:
    """Name pictures in formats that are not read, unless there is an image of the same name."""
    stems = {_bare(path).casefold() for path in images}
    others = [
        path
        for path in files
        if path.name.lower().endswith(RAW_ENDINGS)
        and _bare(path).casefold() not in stems
        and not path.name.startswith(".")
    ]
    if not others:
        return []
    names = listed([path.name for path in sorted(others, key=natural_order)], most=3)
    subject = "1 file is" if len(others) == 1 else f"{len(others)} files are"
    return [f"{where}: {subject} left out, as the format is not read: {names}; save frames as XISF or FITS"]


def _not_entered(folder: Path) -> list[str]:
    """Name folders with images inside a folder that has images itself."""
    filled, closed = _filled(folder)
    if not filled and not closed:
        return []
    names = [f"{path.name} ({counted(count, 'image')})" for path, count in filled]
    names += [f"{path.name} (may not be read)" for path in closed]
    what, which = ("folders in it are", "one of them") if len(names) > 1 else ("folder in it is", "it")
    return [
        f"{folder}: the {what} not looked into: {listed(names)}; name {which} to use its images, or give a "
        "list"
    ]


def _filled(folder: Path) -> tuple[list[tuple[Path, int]], list[Path]]:
    """Return the folders with images inside a folder, with their numbers, and those that may not be read.

    Results are no frames.
    """
    filled, closed = [], []
    for path in sorted((path for path in folder.iterdir() if path.is_dir()), key=natural_order):
        if path.name.startswith(".") or path.name == RESULT_FOLDER:
            continue
        try:
            if count := len(_images(path)):
                filled.append((path, count))
        except PermissionError:
            closed.append(path)
    return filled, closed


def doubtful_names(paths: Sequence[Path]) -> list[str]:
    """Warn of files that a user named although they would be left out of their folder by their names."""
    doubtful: list[Path] = []
    reasons: list[str] = []
    for folder in dict.fromkeys(path.parent for path in paths):
        here = [path for path in paths if path.parent == folder]
        doubtful += here
        reasons += name_reasons([stem_of(path) for path in here])
    if not any(reasons):
        return []
    return [
        f"{sum(map(bool, reasons))} of the {len(paths)} files named do not belong to the others: "
        f"{_in_words(doubtful, reasons)}. They are used as named; give the folder alone to leave them out"
    ]


def _in_words(paths: Sequence[Path], reasons: Sequence[str]) -> str:
    """Name the files with a reason, those with the same one together."""
    parts = []
    for reason in dict.fromkeys(filter(None, reasons)):
        names = [path.name for path, why in zip(paths, reasons, strict=True) if why == reason]
        parts.append(f"{listed(names, most=3)} ({reason})")
    return "; ".join(parts)


def _images_below(folder: Path, wanted: bool, registered: bool) -> Found:
    """Return the images of the only subfolder that has any; `FrameError` if there is no such one."""
    filled, closed = _filled(folder) if wanted else ([], [])
    unread = f"; {listed([path.name for path in closed])} may not be read" if closed else ""
    if len(filled) == 1:
        found = _images_in_folder(filled[0][0], False, registered)
        note = f"{folder}: contains no images itself; those in {filled[0][0].name} are used{unread}"
        return found._replace(notes=(note, *found.notes))
    if filled:
        names = listed([f"{path.name} ({count} images)" for path, count in filled], most=10)
        raise FrameError(f"{folder}: contains no images itself; name one of its folders: {names}")
    others = _other_pictures(folder)
    raise FrameError(
        f"{folder}: contains no images; endings looked for: {', '.join(ENDINGS)}{others}{unread}"
    )


def _other_pictures(folder: Path) -> str:
    """Say what to do with pictures in formats that are not read; nothing if there are none."""
    kinds = [_ending(path, OTHER_ENDINGS) for path in folder.iterdir()]
    kinds = [kind for kind in kinds if kind]
    if not kinds:
        return ""
    endings = " or ".join(sorted(set(kinds)))
    return f". It holds {len(kinds)} with the ending {endings}: save them as XISF or FITS"


def _images(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".") and not path.is_dir()
    ]


def stem_of(path: Path) -> str:
    """Return the name of an image without its ending; both parts of one such as ``.fits.gz``."""
    return path.name[: len(path.name) - len(_ending(path, ENDINGS))]


def _bare(path: Path) -> str:
    """Return the name of any picture without its ending."""
    return path.name[: len(path.name) - len(_ending(path, (*ENDINGS, *OTHER_ENDINGS)))]


def _ending(path: Path, endings: Sequence[str]) -> str:
    """Return the longest of the endings that a name has, in lower case; empty if it has none."""
    name = path.name.lower()
    return max((ending for ending in endings if name.endswith(ending)), key=len, default="")


def natural_order(path: Path) -> tuple[list[Any], str]:
    """Return a sort key that puts frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), part) if number % 2 else part for number, part in enumerate(parts)], path.name
