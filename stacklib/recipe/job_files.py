"""Job files that the panels write: chosen frames and settings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stacklib.errors import FrameError, StacklibWarning
from stacklib.frames.finding import find_images, resolve_path
from stacklib.frames.frame_set import Frame, FrameSet
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.parameters import commented_yaml, read_yaml

__all__ = ["file_names", "lists_others", "lists_the_same", "write_job", "write_settings"]


def write_job(path: Path, values: dict[str, Any]) -> Path:
    """Write names and values as a job file. An existing file is replaced as a whole."""
    text = commented_yaml(values, Job.parameters() | Recipe.parameters())
    return replace_atomically(path, text.encode("utf-8"))


def file_names(frames: Iterable[Frame], job_file: Path) -> list[str]:
    """Return the names of frames in a job file, relative if they are found from the current folder."""
    return [_written(frame.path.absolute(), job_file) for frame in frames]


def _written(file: Path, job_file: Path) -> str:
    here = Path.cwd()
    if job_file.absolute().parent == here:
        for folder in (here, here.parent):
            if file.is_relative_to(folder) and resolve_path(file.relative_to(folder)) == file:
                return file.relative_to(folder).as_posix()
    return file.as_posix()


def lists_the_same(job_file: str | Path, frames: FrameSet) -> bool:
    """Whether a job file lists exactly these frames."""
    return _listed(Path(job_file)) == _places(frames)


def lists_others(job_file: Path, frames: FrameSet) -> bool:
    """Whether a job file lists frames, but none of these."""
    named = _listed(job_file) if job_file.exists() and "frames" in read_yaml(job_file) else set()
    return bool(named) and not named & _places(frames)


def write_settings(path: Path, recipe: Recipe, frames: FrameSet, keep: bool = False) -> str:
    """Write settings, and the frames they were chosen for, into a job file.

    Return the frames that the file now lists, in words. In an existing file only the settings are replaced,
    and the frames if it lists any other frames than these. With `keep` its frames stay in any case, because
    the frames were opened from it. If it listed other frames, a `StacklibWarning` says what was done about
    it. `RecipeError` is raised if it is not a job file.
    """
    kept: dict[str, Any] = {}
    if path.exists():
        values, named = Job.load(path).to_dict(), read_yaml(path)
        kept = {name: values[name] for name in Job.parameters() if name in named}
    shown, listed = _places(frames), _listed(path) if "frames" in kept else set()
    words = f"the {len(frames)} frames shown here"
    if listed and listed < shown:
        words = f"the {len(listed)} of the {len(frames)} frames shown here that it lists"
    elif "frames" in kept and keep and listed != shown:
        words = "the frames that it lists"
        _warn(f"{path} was changed since it was opened: it lists other frames, which were kept")
    elif listed != shown:
        if "frames" in kept:
            _warn(f"{path} listed other frames; now it lists the {len(frames)} frames shown here")
        kept["frames"] = file_names(frames, path)
    write_job(path, {"frames": kept.pop("frames"), **kept, **recipe.to_dict()})
    return words


def _warn(text: str) -> None:
    warnings.warn(text, StacklibWarning, stacklevel=4)


def _places(frames: FrameSet) -> set[Path]:
    return {frame.path.resolve() for frame in frames}


def _listed(path: Path) -> set[Path]:
    """Return the files that a job file lists, none if one of them is missing."""
    frames = Job.load(path).frames
    try:
        return {
            file.resolve()
            for where in ([frames] if isinstance(frames, str) else frames)
            for file in find_images(where)
        }
    except FrameError:
        return set()
