"""Find the targets below a folder: sets of frames that belong together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stacklib.errors import FrameError, RecipeError
from stacklib.frames.differences import differences, exposure_text, mosaic_note
from stacklib.frames.finding import (
    ENDINGS,
    FRAMES_FOLDER,
    RAW_ENDINGS,
    RESULT_FOLDER,
    find_images,
    frames_folder_above,
    natural_order,
    resolve_path,
)
from stacklib.frames.frame_set import Frame, choose
from stacklib.output.naming import file_part, most_common, object_name
from stacklib.recipe.choices import read_choices
from stacklib.recipe.recipe import Job
from stacklib.utils.labels import clipped
from stacklib.utils.texts import one_line

__all__ = ["Target", "find_targets", "look_for_targets"]

#: Threads that open headers.
OPENERS = 8
#: Other names of folders of registered frames, in lower case.
MISNAMED = (FRAMES_FOLDER.lower(), "registered")
#: Longest text of an unexpected error, in characters.
LONGEST_ERROR = 150


@dataclass(frozen=True, kw_only=True)
class Target:
    """Frames that are integrated together.

    Attributes
    ----------
    name : str
        Unique below the folder searched; it shows where the target is.
    folder : Path
        The folder of the frames.
    frames : tuple of Path
        The frames, in order.
    label : str
        What distinguishes it from other targets in the same folder; usually empty.
    whole : bool
        Whether these are all frames of the folder.
    output : Path
        Folder for the results.
    object, filter : str
        Values in most of the headers; empty if there are none.
    exposure : float or None
        Exposure time of a frame in seconds.
    shape : tuple of int
        Channels, height and width of a frame; zeros if no frame can be read.
    job : Job or None
        The settings in the target's own file.
    job_file : Path or None
        That file.
    problem : str
        Why it cannot be integrated, if that is already known.
    notes : tuple of str
        What was left out of its folder and why, and what else to know before its frames are integrated.
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
    notes: tuple[str, ...] = ()


def find_targets(folder: str | Path) -> list[Target]:
    """Find the targets in and below a folder, sorted by name.

    A target is a folder ``4_Registered`` with images, or a folder with images inside one (for example one
    for each filter). Links are followed; a folder reached twice is one target. If the headers in a folder
    have several objects, filters or exposure times, each combination is a target, with its own folder for
    results inside ``5_Integration``. A header without these values follows the others. Frames that cannot be
    read stay with the rest if there is one combination, so that its run names them; otherwise they are a
    target of their own. Images that `open_frames` would leave out of a folder are left out here too: frames
    that are not registered, masters, calibration frames, the same frame twice.

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
        When the folder does not exist, or there is no target in it.
    """
    return look_for_targets(folder)[0]


def look_for_targets(folder: str | Path) -> tuple[list[Target], list[str]]:
    """Find the targets like `find_targets`; also return notes about folders that are passed over."""
    root = resolve_path(folder)
    if not root.is_dir():
        raise FrameError(f"{root}: no such folder; give the folder that holds your targets")
    places, notes = _places(root)
    found: list[Target] = []
    empty: dict[Path, str] = {}
    for place in places:
        try:
            found += list(_targets_in(place, root))
        except FrameError as error:
            empty[place] = str(error)
        except Exception as error:
            # Whatever is wrong with one target, the others are integrated.
            found.append(_unusable(place, root, error))
    filled = {above for target in found for above in (target.folder, *target.folder.parents)}
    for place, why in empty.items():
        # Folders such as logs inside 4_Registered are no business of a batch.
        if (place.name == FRAMES_FOLDER and place not in filled) or _holds(place, RAW_ENDINGS):
            notes.append(f"passed over: {why}")
    if not found:
        raise FrameError(
            f"{root}: no folder {FRAMES_FOLDER} with images in it; put the registered frames of each target "
            f"into a folder with this name, such as M101/{FRAMES_FOLDER}{_in_brackets(notes)}"
        )
    return found, notes


def _in_brackets(notes: Sequence[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _holds(place: Path, endings: tuple[str, ...]) -> bool:
    return any(path.name.lower().endswith(endings) for path in place.iterdir())


def _places(root: Path) -> tuple[list[Path], list[str]]:
    """Return the folders with registered frames, each once, sorted by name, and notes about others."""
    closed: list[OSError] = []
    alike: dict[Path, None] = {}
    seen: set[tuple[int, int | str]] = set()
    taken: set[tuple[int, int | str]] = set()
    places: list[Path] = []
    # Links come last, so that a folder below the root is known by its own name.
    starts = deque([root])
    while starts:
        for where, folders, files in os.walk(starts.popleft(), onerror=closed.append):
            place = Path(where)
            found = place.stat()
            # Not every file system numbers its folders.
            folder = found.st_dev, found.st_ino or str(place.resolve())
            # A folder may be found before the link that makes it a folder of registered frames.
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
            elif any(name.lower().endswith(ENDINGS) for name in files):
                alike |= {path: None for path in (place, *place.parents) if path.name.lower() in MISNAMED}
    places.sort(key=lambda place: [natural_order(Path(p)) for p in place.relative_to(root).parts])
    return places, [
        *(f"{error.filename}: passed over, as it cannot be read ({error.strerror})" for error in closed),
        *(f"{path}: holds images, but only folders named {FRAMES_FOLDER} are targets" for path in alike),
    ]


def _leads_on(path: Path, root: Path) -> bool:
    """Return whether a folder is a link or junction to follow: not to results, nor above the root."""
    if not (path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path)):
        return False
    there = path.resolve()
    return RESULT_FOLDER not in there.parts and there not in root.resolve().parents


def _unusable(place: Path, root: Path, error: Exception) -> Target:
    """Return a target that stands for a folder whose frames or choices raise an unexpected error."""
    why = clipped(one_line(f"{type(error).__name__}: {error}"), LONGEST_ERROR)
    name, output = _name_and_output(place, root)
    return Target(
        name=name,
        folder=place,
        frames=(),
        label="",
        whole=True,
        output=output,
        problem=f"{place}: cannot be used ({why}); look for a file in it that is damaged",
    )


def _name_and_output(place: Path, root: Path) -> tuple[str, Path]:
    """Return the name of the target in a folder, and the usual folder for its results."""
    home = frames_folder_above(place) or place
    inside = place.relative_to(home)
    name = (home.parent.relative_to(root) if root in home.parents else Path()) / inside
    return name.as_posix() if name.parts else home.parent.name, home.parent / RESULT_FOLDER / inside


def _targets_in(place: Path, root: Path) -> Iterator[Target]:
    """Yield the targets in a folder; `FrameError` if it holds no images."""
    found = find_images(place, below=False)
    opened = _open(found.images)
    images, left_out = _chosen_among(opened)
    notes = [*found.notes, *left_out]
    name, output = _name_and_output(place, root)
    choices, problem = None, ""
    try:
        choices = read_choices(images)
    except RecipeError as error:
        problem = str(error)
    chosen = list(choices.chosen or images) if choices else images
    if choices:
        problem = choices.problem
        if choices.elsewhere or (not problem and len(chosen) < len(images)):
            notes.append(choices.in_a_line().rstrip("."))
        output = Path(choices.values.get("output") or output)
    groups = _groups({**opened, **_open([path for path in chosen if path not in opened])}, chosen)
    for label, frames in groups.items():
        readable = [frame for frame in frames.values() if frame is not None]
        exposures = [frame.exposure for frame in readable if frame.exposure is not None]
        yield Target(
            name=f"{name} ({label})" if len(groups) > 1 else name,
            folder=place,
            frames=tuple(frames),
            label=label,
            whole=list(frames) == images,
            output=output / file_part(label) if len(groups) > 1 else output,
            object=most_common(frame.object for frame in readable),
            filter=most_common(frame.filter for frame in readable),
            exposure=max(set(exposures), key=exposures.count) if exposures else None,
            shape=readable[0].shape if readable else (0, 0, 0),
            job=choices.job if choices else None,
            job_file=choices.file if choices else None,
            problem=problem,
            notes=(*notes, *differences(readable), *mosaic_note(readable)),
        )


def _open(images: Sequence[Path]) -> dict[Path, Frame | None]:
    """Open the headers of images; None for one that cannot be read."""
    with ThreadPoolExecutor(OPENERS) as pool:
        return dict(zip(images, pool.map(_opened, images), strict=True))


def _chosen_among(opened: dict[Path, Frame | None]) -> tuple[list[Path], list[str]]:
    """Return the images to use, and notes about the others. The run names those that cannot be read."""
    readable = [frame for frame in opened.values() if frame is not None]
    used, notes = choose(readable, [False] * len(readable))
    kept = {frame.path for frame in used}
    return [path for path, frame in opened.items() if frame is None or path in kept], notes


def _groups(known: dict[Path, Frame | None], images: Sequence[Path]) -> dict[str, dict[Path, Frame | None]]:
    """Group frames by what distinguishes them, in words; None for a frame that cannot be read."""
    opened = {path: known[path] for path in images}
    readable = {path: frame for path, frame in opened.items() if frame is not None}
    labels: dict[Path, list[str]] = {path: [] for path in readable}
    for fact, silent in (
        (lambda frame: object_name(frame.object), "unnamed"),
        (lambda frame: frame.filter, "no filter"),
        (lambda frame: exposure_text(frame.exposure), "no time"),
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
    """Add the value of `fact` to the label of each frame, if frames differ in it."""
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
