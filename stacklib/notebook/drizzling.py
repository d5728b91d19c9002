"""What notebook 6 and ``stacklib drizzle`` share: the folders of a target before and after registration."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from stacklib.drizzle.frames import frame_key, open_unregistered
from stacklib.errors import FrameError, StacklibError
from stacklib.frames.finding import (
    ENDINGS,
    FRAMES_FOLDER,
    RESULT_FOLDER,
    find_images,
    natural_order,
    resolve_path,
)
from stacklib.frames.frame_set import open_frames, used_files
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.recipe.choices import NO_FILE, file_values, job_with_choices
from stacklib.recipe.drizzle_job import DrizzleJob
from stacklib.recipe.recipe import Job
from stacklib.simulate import mosaic_sample
from stacklib.utils.texts import printable

__all__ = ["NOTHING", "Places", "find_places", "frames_to_drizzle", "integrate_registered"]

#: In place of registered frames: register the frames here.
NOTHING = "none"


class Places(NamedTuple):
    """Where the frames of a drizzle run are.

    Attributes
    ----------
    frames : str or list of str
        The frames before registration.
    registered : str
        The frames after it; empty to register them here.
    """

    frames: str | list[str]
    registered: str

    def options(self, job: DrizzleJob) -> dict[str, Any]:
        """Return the other arguments of `stacklib.drizzle` for a job."""
        named = job.recipe_file not in ("", NO_FILE) and not self.registered
        recipe = Job.from_dict(file_values(resolve_path(job.recipe_file))).recipe if named else None
        return {
            "geometry": job.geometry or None,
            "integration": recipe,
            "memory": job.memory,
            "threads": job.threads or None,
        }

    @property
    def words(self) -> str:
        """What is used, in two lines."""
        one = isinstance(self.frames, str)
        where = self.frames if one else f"{len(self.frames)} files, such as {Path(self.frames[0]).name}"
        known = self.registered or "none, the frames are registered here"
        return f"Frames: {where}\nRegistered frames: {known}"


def find_places(frames: str | list[str], registered: str = "") -> Places:
    """Find the frames of a drizzle run before and after registration.

    Parameters
    ----------
    frames : str or list of str
        The frames before registration as for `stacklib.open_frames`; or the folder of a target, with
        ``4_Registered`` and a folder of the same frames before registration in it, or one of these two. Of
        several such folders, the last with color mosaics is taken, or the last one if there is none.
    registered : str
        The frames after registration; ``none`` to register them here. By default those of a folder
        ``4_Registered`` beside the frames, if it holds the same frames.

    Returns
    -------
    Places

    Raises
    ------
    FrameError
        If the frames before registration are not found.
    """
    if not isinstance(frames, str):
        home = resolve_path(frames[0]).parent.parent if frames else Path()
        return Places(list(frames), _after(registered, home, frames))
    path = resolve_path(frames)
    if not path.is_dir():
        return Places(frames, _after(registered, path.parent.parent, frames))
    target = path.parent if path.name == FRAMES_FOLDER else path
    if not (target / FRAMES_FOLDER).is_dir():
        return Places(str(path), _after(registered, path.parent, str(path)))
    inner = target / FRAMES_FOLDER if registered in ("", NOTHING) else resolve_path(registered)
    before = str(_before(target, inner))
    return Places(before, "" if registered == NOTHING else str(inner))


def _after(registered: str, home: Path, frames: str | list[str]) -> str:
    """Return the registered frames of frames whose target is `home`; empty for none."""
    if registered:
        return "" if registered == NOTHING else str(resolve_path(registered))
    inner = home / FRAMES_FOLDER
    known = _keys(str(inner)) if inner.is_dir() else set()
    return str(inner) if known & _keys(frames) else ""


def _keys(frames: str | list[str]) -> set[str]:
    """Return what the names of frames have in common with those of their other stages."""
    try:
        files = used_files(frames)
    except FrameError:
        return set()
    return {frame_key(path.name) for path in files}


def _before(target: Path, registered: Path) -> Path:
    """Return the folder of a target that holds its frames before registration."""
    wanted = _keys(str(registered))
    found = []
    for folder in sorted((path for path in target.iterdir() if path.is_dir()), key=natural_order):
        if folder.name in (FRAMES_FOLDER, RESULT_FOLDER) or folder.name.startswith("."):
            continue
        names = [path.name for path in folder.iterdir() if path.name.lower().endswith(ENDINGS)]
        if wanted & {frame_key(name) for name in names}:
            found.append(folder)
    if not found:
        raise FrameError(
            f"{target}: no folder beside {registered.name} holds the same frames before registration; name "
            "their folder, and the registered ones as registered"
        )
    mosaics = [folder for folder in found if _holds_mosaics(folder)]
    return (mosaics or found)[-1]


def _holds_mosaics(folder: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _, sites = open_unregistered([str(find_images(folder).images[0])])
        except StacklibError:
            return False
    return bool(sites.pattern)


def frames_to_drizzle(job: DrizzleJob) -> Places:
    """Find the frames of a job, and print what is used. Without any, frames are simulated on first use.

    Raises
    ------
    FrameError
        If the frames before registration are not found.
    SaveError
        If the simulated frames cannot be written.
    """
    where = job.frames
    if not where:
        folder, made = mosaic_sample()
        print(f"No frames are given: a simulated night of M 106, {'made now' if made else 'made before'}.")
        where = str(folder / "3_Calibrated")
    places = find_places(where, job.registered)
    print(printable(places.words))
    return places


def integrate_registered(places: Places, job: DrizzleJob) -> Integration | None:
    """Integrate the registered frames with the choices saved for them, or those of the file in the job.

    None if there are no registered frames, which is printed.
    """
    if not places.registered:
        print("There are no registered frames: they are registered and integrated when they are drizzled.")
        return None
    given = {"frames": places.registered, "memory": job.memory}
    chosen, line = job_with_choices(given, job.recipe_file)
    if line:
        print(printable(line))
    return integrate(open_frames(chosen.frames), chosen.recipe, memory=chosen.memory)
