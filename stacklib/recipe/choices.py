"""Choices of a target: frames and settings in a job file beside the frames, with one backup.

For frames in ``M101/4_Registered`` the file is ``M101/recipe.yaml``; for frames in any other folder it is
``recipe.yaml`` in that folder. So each target has its own, and it moves with the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from stacklib.errors import FrameError, RecipeError
from stacklib.frames.finding import common_folder, expanded, find_images, frames_folder_above, resolve_path
from stacklib.frames.frame_set import Frame, FrameSet, used_files
from stacklib.recipe.presets import with_preset
from stacklib.recipe.recipe import Job, Recipe
from stacklib.recipe.rules import RULES, rule_in_words
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.labels import counted, listed
from stacklib.utils.parameters import commented_yaml, read_yaml

__all__ = [
    "CHOICES_NAME",
    "NO_FILE",
    "Choices",
    "choices_file",
    "file_values",
    "job_with_choices",
    "read_choices",
    "target_name",
    "undo_write",
    "write_frames",
    "write_settings",
]

#: File with the choices of a target.
CHOICES_NAME = "recipe.yaml"
#: In place of a file: default settings, whatever is saved.
NO_FILE = "none"
#: Names under which it is looked for.
NAMES = (CHOICES_NAME, "job.yaml")
#: Number of parts at the end of an absolute path to look for beside a job file.
TAIL = 4
#: Ending of the backup.
BACKUP = ".bak"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Frames and settings chosen for the images of a target.

    Attributes
    ----------
    file : Path
        The file that holds them.
    images : tuple of Path
        All images of the target.
    chosen : tuple of Path
        The frames to use: all, unless the file lists some.
    lost : tuple of str
        Names in the file without an image.
    job : Job
        Everything in the file.
    named : frozenset of str
        Names of the parameters in the file.
    elsewhere : int
        Number of frames that the file lists in other folders. They are not used.
    """

    file: Path
    images: tuple[Path, ...]
    chosen: tuple[Path, ...]
    lost: tuple[str, ...]
    job: Job
    named: frozenset[str]
    elsewhere: int = 0

    @property
    def problem(self) -> str:
        """Why these frames cannot be used; empty if they can."""
        if not self.lost and self.chosen:
            return ""
        nothing = f"no frame in {common_folder(self.images)}"
        what = f"{self.lost[0]}, which does not exist" if self.chosen else nothing
        return f"{self.file}: names {what}; select frames again, or remove its line frames"

    @property
    def values(self) -> dict[str, Any]:
        """Values of the parameters in the file, without the frames."""
        unused = ("frames", "interactive")
        return {n: v for n, v in self.job.to_dict().items() if n in self.named and n not in unused}

    def in_a_line(self) -> str:
        """Describe the choices, and name the frames that they leave out."""
        count = len(self.chosen)
        line = (
            f"{target_name(self.images)}, {counted(len(self.images), 'frame')}, your choices of "
            f"{_day(self.file)}: {counted(count, 'frame')}, {rule_in_words(*_rule(self.job.recipe, count))}."
        )
        left_out = [path for path in self.images if path not in self.chosen]
        if left_out:
            line += f" Left out: {listed([path.name for path in left_out], most=3)}."
        new = [path.name for path in left_out if path.stat().st_mtime > self.file.stat().st_mtime]
        if new:
            line += f" Newer than your choices: {listed(new, most=3)}; notebook 1 selects frames again."
        if self.elsewhere:
            line += f" Not used: {counted(self.elsewhere, 'frame')} that it lists in other folders."
        return line


def _rule(recipe: Recipe, count: int) -> tuple[str, dict[str, Any]]:
    return RULES[recipe.rule_for(count)].name, recipe.to_dict()


def _day(file: Path) -> str:
    """Return the date of a file, with the year if it is not this one."""
    day, today = datetime.fromtimestamp(file.stat().st_mtime), datetime.now()
    return f"{day.day} {day:%B}" + (f" {day.year}" if day.year != today.year else "")


def target_name(images: Sequence[Path]) -> str:
    """Return the name of a target: that of the folder that holds ``4_Registered``, or of the frames."""
    folder = common_folder(images)
    home = frames_folder_above(folder)
    return " ".join((home.parent.name, *folder.relative_to(home).parts)) if home else folder.name


def file_values(file: Path) -> dict[str, Any]:
    """Return the parameters that a job file names.

    Raises
    ------
    RecipeError
        If the file is not a valid job file.
    """
    values, named = Job.load(file).to_dict(), with_preset(read_yaml(file))
    return {name: value for name, value in values.items() if name in named and name != "interactive"}


def choices_file(images: Sequence[Path]) -> Path:
    """Return the file of the choices for these images, which need not exist.

    Raises
    ------
    RecipeError
        If there are two.
    """
    folder = common_folder(images)
    home = frames_folder_above(folder)
    # A folder inside 4_Registered, for instance one for each filter, may have its own.
    places = [folder] if home is None else [home.parent] if folder == home else [folder, home.parent]
    for place in places:
        files = [place / name for name in NAMES if (place / name).is_file()]
        if len(files) > 1:
            raise RecipeError(f"{place}: holds {' and '.join(NAMES)}; keep one of them")
        if files:
            return files[0]
    return places[0] / CHOICES_NAME


def read_choices(images: Sequence[Path], file: Path | None = None) -> Choices | None:
    """Read the choices for these images from their own file, or from `file`; None if it does not exist.

    Raises
    ------
    RecipeError
        If the file is not a valid job file, or there are two.
    """
    file = choices_file(images) if file is None else file
    if not file.is_file():
        return None
    job, values = Job.load(file), with_preset(read_yaml(file))
    chosen: list[Path] = list(images)
    lost: list[str] = []
    elsewhere = 0
    if "frames" in values:
        chosen, lost, elsewhere = _named_in(
            Job.parameters()["frames"].check(values["frames"]), file.parent, images
        )
    return Choices(
        file=file,
        images=tuple(images),
        chosen=tuple(chosen),
        lost=tuple(lost),
        job=job,
        named=frozenset(values),
        elsewhere=elsewhere,
    )


def _named_in(
    frames: str | list[str], home: Path, images: Sequence[Path]
) -> tuple[list[Path], list[str], int]:
    """Return the images that a job file in `home` names, names without one, and how many lie elsewhere."""
    known = {path.resolve(): path for path in images}
    folder, folders = common_folder(images), {path.parent for path in known}
    found: list[Path] = []
    lost: list[str] = []
    elsewhere: set[Path] = set()
    for entry in [frames] if isinstance(frames, str) else frames:
        files = {file.resolve(): file for file in _images_of(entry, home, folder)}
        # Frames of another target do not count; others of this folder do, whatever their names.
        found += [known.get(real, file) for real, file in files.items() if real.parent in folders]
        elsewhere |= {real for real in files if real.parent not in folders}
        lost += [entry] * (not files)
    return list(dict.fromkeys(found)), lost, len(elsewhere)


def _images_of(entry: str, home: Path, folder: Path) -> list[Path]:
    """Return the images that a name in a job file means, first beside the file, as it may have moved."""
    path = expanded(entry)
    tails = [path]
    if path.is_absolute():
        # If a whole target was copied, the original may still exist.
        tails = [Path(*path.parts[-count:]) for count in range(min(TAIL, len(path.parts) - 1), 0, -1)]
    for candidate in (*(home / tail for tail in tails), folder / path.name, path):
        try:
            found = find_images(candidate)
            return found.images if found.kind == "file" else used_files(candidate)
        except FrameError:
            continue
    return []


def job_with_choices(given: Mapping[str, Any], file: str = "", select: bool = False) -> tuple[Job, str]:
    """Return the job that given parameters and saved choices describe together, and a line that says so.

    Parameters
    ----------
    given : mapping
        Parameters by name; they override the file.
    file : str
        Recipe or job file. Default is the file with the choices for the frames given, if there is one;
        ``none`` for none. Its list of frames counts if `given` has none, or the folder of the target.
    select : bool
        Whether frames are about to be selected again. Then the line says if the file lists a frame that does
        not exist.

    Raises
    ------
    RecipeError
        If a parameter or the file is invalid, or the file lists a frame that does not exist.
    """
    given = with_preset(given)
    job = Job.from_dict(given)
    if file == NO_FILE:
        return job, _in_a_line(_images(job), job, "settings as given", given)
    if file:
        path = resolve_path(file)
        job = Job.from_dict({**file_values(path), **given})
        return job, _in_a_line(_images(job), job, f"settings from {path.name}", given)
    images = _images(job)
    if not images:
        return job, ""
    choices = read_choices(images)
    if choices is None:
        return job, _in_a_line(images, job, "no saved choices", given)
    values = choices.values
    line, count = choices.in_a_line(), len(choices.chosen)
    if "frames" in choices.named and _is_folder(job.frames):
        if choices.problem and not select:
            raise RecipeError(choices.problem)
        line += f" {choices.problem}." if choices.problem else ""
        given = {**given, "frames": [str(path) for path in choices.chosen or images]}
    elif "frames" in choices.named:
        line, count = _in_a_line(images, job, f"settings of {_day(choices.file)}"), len(images)
    changed = {name: value for name, value in given.items() if name in values and values[name] != value}
    if changed:
        line += f" Changed here: {', '.join(f'{name} {value}' for name, value in changed.items())}."
    job = Job.from_dict({**values, **given})
    return job, line + _without_effect(job, given, count)


def _is_folder(frames: str | list[str]) -> bool:
    return isinstance(frames, str) and resolve_path(frames).is_dir()


def _images(job: Job) -> list[Path]:
    """Return the files of a job; none if they cannot be used, as opening them will say why."""
    try:
        return used_files(job.frames)
    except FrameError:
        return []


def _in_a_line(images: Sequence[Path], job: Job, source: str, given: Iterable[str] = ()) -> str:
    if not images:
        return ""
    rule = rule_in_words(*_rule(job.recipe, len(images)))
    line = f"{target_name(images)}, {counted(len(images), 'frame')}, {source}: {rule}."
    return line + _without_effect(job, given, len(images))


def _without_effect(job: Job, given: Iterable[str], count: int) -> str:
    """Name the given parameters that change nothing."""
    idle = job.recipe.without_effect([name for name in given if name in Recipe.parameters()], count)
    return f" Without effect: {', '.join(idle)}." if idle else ""


def write_frames(path: Path, frames: FrameSet, recipe: Recipe, shown: FrameSet) -> Path:
    """Write frames chosen among those `shown`, and a recipe. Other parameters in an existing file stay.

    Raises
    ------
    RecipeError
        If an existing file is not a job file, or lists frames of another target.
    """
    _, kept = _kept(path, shown)
    return _write(path, kept | {"frames": _names(frames, path)} | recipe.to_dict())


def write_settings(path: Path, recipe: Recipe, frames: FrameSet) -> str:
    """Write a recipe chosen for `frames`, and return in words which frames the file now means.

    The frames that an existing file lists stay. If it lists none, `frames` are listed, unless they are all
    images of their folder.

    Raises
    ------
    RecipeError
        If an existing file is not a job file, or lists frames of another target.
    """
    choices, kept = _kept(path, frames)
    images = [frame.path for frame in frames]
    if choices is not None and "frames" in kept:
        count = len(kept["frames"]) if isinstance(kept["frames"], list) else len(choices.chosen)
        same = set(choices.chosen) == set(images) and not choices.lost and count == len(images)
        words = f"the {counted(count, 'frame')} {'shown here' if same else 'that it lists'}"
    elif path == choices_file(images) and _is_whole(frames):
        words = f"all {counted(len(frames), 'frame')} of {target_name(images)}"
    else:
        kept["frames"] = _names(frames, path)
        words = f"the {counted(len(frames), 'frame')} shown here"
    _write(path, kept | recipe.to_dict())
    return words


def _kept(path: Path, frames: FrameSet) -> tuple[Choices | None, dict[str, Any]]:
    """Return the choices in an existing file, and its parameters of the run as they are written."""
    choices = read_choices([frame.path for frame in frames], path)
    if choices is None:
        return None, {}
    if not choices.chosen:
        raise RecipeError(
            f"{path}: lists frames, but none of the {len(frames)} shown here; it belongs to another target, "
            "so give another file, or remove its line frames"
        )
    values = read_yaml(path)
    return choices, {name: values[name] for name in Job.parameters() if name in values}


def _is_whole(frames: FrameSet) -> bool:
    """Return whether these are the images that their folder stands for."""
    try:
        return {path.resolve() for path in used_files(frames.folder)} == {
            frame.path.resolve() for frame in frames
        }
    except FrameError:
        return False


def _names(frames: Iterable[Frame], path: Path) -> list[str]:
    """Return the names of frames in a job file: relative to it if they are below its folder."""
    home = path.absolute().parent
    files = [frame.path.absolute() for frame in frames]
    return [(file.relative_to(home) if file.is_relative_to(home) else file).as_posix() for file in files]


def _write(path: Path, values: dict[str, Any]) -> Path:
    """Write a job file as a whole, and keep what an existing one held as its backup."""
    order = [name for name in ("frames", *values) if name in values]
    text = commented_yaml({name: values[name] for name in order}, Job.parameters() | Recipe.parameters())
    content = text.encode("utf-8")
    if path.exists():
        former = path.read_bytes()
        if former == content:
            return path
        replace_atomically(backup_of(path), former)
    return replace_atomically(path, content)


def backup_of(path: Path) -> Path:
    """Return the file that holds the former choices."""
    return path.with_name(f"{path.name}{BACKUP}")


def undo_write(path: Path) -> Path:
    """Exchange a job file with its backup, so that a second call undoes the first.

    Raises
    ------
    RecipeError
        If there is no backup.
    """
    backup = backup_of(path)
    try:
        former = backup.read_bytes()
    except FileNotFoundError:
        raise RecipeError(f"{path}: has no former version to go back to") from None
    present = path.read_bytes() if path.exists() else None
    replace_atomically(path, former)
    if present is not None:
        replace_atomically(backup, present)
    return path
