"""Find what there is to integrate below a folder: targets, each a set of frames that belong together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stacklib.errors import FrameError, RecipeError
from stacklib.frames.finding import find_images, natural_order, resolve_path
from stacklib.frames.frame_set import Frame
from stacklib.output.naming import RESULT_FOLDER, file_part, most_common, object_name
from stacklib.recipe.recipe import Job

__all__ = ["FRAMES_FOLDER", "Target", "find_targets"]

#: Name of the folders that hold the registered frames of a target.
FRAMES_FOLDER = "4_Registered"
#: Files with the settings of one target, in its folder; those of notebook 1 also name the chosen frames.
JOB_FILES = ("recipe.yaml", "job.yaml")
#: Parts of an absolute name, from its end, that may be found again at the home of a job file.
TAIL = 4
#: Headers are opened by this many threads.
OPENERS = 8


@dataclass(frozen=True)
class Target:
    """Frames that are integrated together.

    Attributes
    ----------
    name : str
        Unique below the folder that was searched; it shows where the target lies.
    folder : Path
        The folder of the frames.
    frames : tuple of Path
        The frames, in order.
    label : str
        What sets it apart from other targets in the same folder; mostly empty.
    whole : bool
        Whether these are all frames of the folder.
    output : Path
        Where the results go.
    object, filter : str
        What most of the frames say; empty where they are silent.
    exposure : float or None
        Exposure time of a frame in seconds.
    shape : tuple of int
        Channels, height and width of a frame; zeros where no frame can be read.
    job : Job or None
        The settings in the target's own file.
    job_file : Path or None
        That file.
    problem : str
        Why it cannot be integrated, where that is known already.
    """

    name: str
    folder: Path
    frames: tuple[Path, ...]
    label: str
    whole: bool
    output: Path
    object: str = ""
    filter: str = ""
    exposure: float | None = None
    shape: tuple[int, int, int] = (0, 0, 0)
    job: Job | None = field(default=None, repr=False)
    job_file: Path | None = None
    problem: str = ""


def find_targets(folder: str | Path) -> list[Target]:
    """The targets at and below a folder, in the order of their names.

    A target is a folder ``4_Registered`` with images, or a folder with images inside one (one a filter,
    say). Links are followed; a folder that is reached twice is one target. Where the headers of one folder
    name several objects, filters or exposure times, each combination is a target; its results go into a
    folder of their own inside ``5_Integration``. A header that is silent follows the others. Frames that
    cannot be read stay with the rest where there is one combination, so that its run names them; where
    there are several, they become a target of their own.

    Parameters
    ----------
    folder : str or Path
        See `resolve_path` for relative paths.

    Returns
    -------
    list of Target

    Raises
    ------
    FrameError
        When the folder is not there, or there is no target in it.
    """
    root = resolve_path(folder)
    if not root.is_dir():
        raise FrameError(f"{root}: no such folder; name the folder that holds your targets")
    found = [target for place in _places(root) for target in _targets_in(place, root)]
    if not found:
        raise FrameError(
            f"{root}: no folder {FRAMES_FOLDER} with images in it; put the registered frames of each target "
            f"into a folder of this name, such as M101/{FRAMES_FOLDER}"
        )
    return found


def _places(root: Path) -> list[Path]:
    """Folders with registered frames, each once, in the order of their names."""
    seen: set[tuple[int, int | str]] = set()
    taken: set[tuple[int, int | str]] = set()
    places: list[Path] = []
    # Links come after all else: a folder is known by its own name where it has one below the root.
    starts = deque([root])
    while starts:
        for where, folders, _ in os.walk(starts.popleft()):
            place = Path(where)
            found = place.stat()
            # Not every file system numbers its folders.
            folder = found.st_dev, found.st_ino or str(place.resolve())
            # A folder may be met before the link that makes it one of registered frames.
            named = FRAMES_FOLDER in place.parts
            if folder in (taken if named else seen):
                folders.clear()
                continue
            seen.add(folder)
            folders[:] = [name for name in folders if not name.startswith(".") and name != RESULT_FOLDER]
            starts += [place / name for name in sorted(folders) if _leads_on(place / name, root)]
            if named:
                taken.add(folder)
                places.append(place)
    return sorted(places, key=lambda place: [natural_order(Path(p)) for p in place.relative_to(root).parts])


def _leads_on(path: Path, root: Path) -> bool:
    """Whether a folder is a link, or a junction of Windows; those to results or up above the root are not."""
    if not (path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path)):
        return False
    there = path.resolve()
    return RESULT_FOLDER not in there.parts and there not in root.resolve().parents


def _targets_in(place: Path, root: Path) -> Iterator[Target]:
    try:
        images = find_images(place)
    except FrameError:
        return
    home = next(path for path in (place, *place.parents) if path.name == FRAMES_FOLDER)
    inside = place.relative_to(home)
    output = home.parent / RESULT_FOLDER / inside
    name = (home.parent.relative_to(root) if root in home.parents else Path()) / inside
    name = name.as_posix() if name.parts else home.parent.name
    job, job_file, problem = _own_job(place, home.parent)
    chosen = images
    if job is not None and job.frames != Job().frames:
        chosen, lost = _chosen(job, job_file.parent, place)
        if lost or not chosen:
            what = f"{lost[0]}, which is not there" if chosen else f"no frame in {place}"
            problem = f"{job_file}: names {what}; choose frames again, or remove its line frames"
            chosen = chosen or images
    if job is not None and job.output:
        # Where a job is at home, its paths are, too.
        output = job_file.parent / Path(job.output).expanduser()
    groups = _groups(chosen)
    for label, frames in groups.items():
        readable = [frame for frame in frames.values() if frame is not None]
        exposures = [frame.exposure for frame in readable if frame.exposure is not None]
        yield Target(
            f"{name} ({label})" if len(groups) > 1 else name,
            place,
            tuple(frames),
            label,
            len(frames) == len(images),
            output / file_part(label) if len(groups) > 1 else output,
            most_common(frame.object for frame in readable),
            most_common(frame.filter for frame in readable),
            max(set(exposures), key=exposures.count) if exposures else None,
            readable[0].shape if readable else (0, 0, 0),
            job,
            job_file,
            problem,
        )


def _own_job(*folders: Path) -> tuple[Job | None, Path | None, str]:
    """The settings of a target, their file, and what is wrong with it."""
    for folder in folders:
        files = [folder / name for name in JOB_FILES if (folder / name).is_file()]
        if len(files) > 1:
            return None, files[0], f"{folder}: holds {' and '.join(JOB_FILES)}; keep one of them"
        if files:
            try:
                return Job.load(files[0]), files[0], ""
            except RecipeError as error:
                return None, files[0], str(error)
    return None, None, ""


def _chosen(job: Job, home: Path, place: Path) -> tuple[list[Path], list[str]]:
    """The frames that a job names, of those in `place`, and the names that stand for nothing."""
    entries = [job.frames] if isinstance(job.frames, str) else job.frames
    found: list[Path] = []
    lost: list[str] = []
    for entry in entries:
        images = _images_of(entry, home, place)
        found += images
        lost += [entry] * (not images)
    here = place.resolve()
    return [path for path in dict.fromkeys(found) if path.parent.resolve() == here], lost


def _images_of(entry: str, home: Path, place: Path) -> list[Path]:
    """What a name in a job file stands for: at the home of the file first, as it may have been moved."""
    path = Path(entry).expanduser()
    tails = [path]
    if path.is_absolute():
        # Of a target that was copied as a whole the original may still be there.
        tails = [Path(*path.parts[-count:]) for count in range(min(TAIL, len(path.parts) - 1), 0, -1)]
    for candidate in (*(home / tail for tail in tails), place / path.name, path):
        try:
            return find_images(candidate)
        except FrameError:
            continue
    return []


def _groups(images: Sequence[Path]) -> dict[str, dict[Path, Frame | None]]:
    """Frames by what sets them apart, in words; None for a frame that cannot be read."""
    with ThreadPoolExecutor(OPENERS) as pool:
        opened = dict(zip(images, pool.map(_opened, images), strict=True))
    readable = {path: frame for path, frame in opened.items() if frame is not None}
    labels: dict[Path, list[str]] = {path: [] for path in readable}
    for fact, silent in (
        (lambda frame: object_name(frame.object), "unnamed"),
        (lambda frame: frame.filter, "no filter"),
        (lambda frame: "" if frame.exposure is None else f"{float(f'{frame.exposure:.3g}'):g} s", "no time"),
    ):
        _tell_apart(readable, labels, fact, silent)
    groups: dict[str, dict[Path, Frame | None]] = {}
    for path in sorted(readable, key=lambda path: [part.casefold() for part in labels[path]]):
        groups.setdefault(" ".join(labels[path]), {})[path] = readable[path]
    broken = [path for path in images if opened[path] is None]
    if len(groups) > 1:
        if broken:
            groups["unreadable"] = dict.fromkeys(broken)
        return {label: _in_order(frames, images) for label, frames in groups.items()}
    return {"": opened}


def _tell_apart(
    frames: dict[Path, Frame], labels: dict[Path, list[str]], fact: Callable[[Frame], str], silent: str
) -> None:
    """Add what `fact` says to the label of each frame, where frames differ in it."""
    said = {path: fact(frame) for path, frame in frames.items()}
    spelt: dict[str, list[str]] = {}
    for value in filter(None, said.values()):
        spelt.setdefault(value.casefold(), []).append(value)
    if len(spelt) < 2:
        return
    for path, value in said.items():
        labels[path].append(most_common(spelt[value.casefold()]) if value else silent)


def _in_order(frames: dict[Path, Frame | None], images: Sequence[Path]) -> dict[Path, Frame | None]:
    return {path: frames[path] for path in images if path in frames}


def _opened(path: Path) -> Frame | None:
    try:
        return Frame(path, quiet=True)
    except FrameError:
        return None
