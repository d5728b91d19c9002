"""Frames that have come into a folder, and whether they are whole.

The folder is listed every few seconds. Notifications of the system (inotify and its like, which watchfiles
and watchdog wrap) do not tell what another computer writes to a network drive, where the camera computer
usually puts its frames, and a list of a thousand names takes milliseconds. So one way does for all drives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stacklib.errors import FrameError
from stacklib.frames.finding import find_images
from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import FrameSet, choose

__all__ = ["Arrived", "Incoming"]

#: Seconds between two looks at the folder.
EVERY = 3.0
#: Seconds for which size and time of a file must not change until it is taken for whole.
SETTLE = 4.0
#: A file that was changed so many seconds before it is first seen is whole.
OLD = 60.0
#: Seconds after which a file that could not be read is tried again although it has not changed.
AGAIN = 60.0


@dataclass
class Arrived:
    """What is in the folder: frames that can be used, files to wait for, and others with the reason.

    `nothing` says why there are no images at all.
    """

    frames: list[Frame] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    nothing: str = ""

    @property
    def key(self) -> tuple:
        """What tells these frames from others."""
        return tuple((frame.path, frame.stamp) for frame in self.frames)

    def frame_set(self) -> FrameSet:
        """Return the frames as a set."""
        return FrameSet(self.frames, self.notes)


@dataclass
class _File:
    """A file as it was last seen: size and time of change, since when, and the frame or what is wrong."""

    stamp: tuple[int, int]
    since: float
    found: Frame | FrameError | None = None


class Incoming:
    """Looks for frames in a folder or by a pattern.

    Parameters
    ----------
    where : str or Path
        The folder or pattern. It may be empty, and need not be there yet.
    settle : float
        Seconds for which size and time of a file must not change.
    clock : callable
        Returns the seconds of a clock that is never set.
    """

    def __init__(
        self, where: str | Path, settle: float = SETTLE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.where, self.settle, self.clock = where, settle, clock
        self._files: dict[Path, _File] = {}

    def look(self) -> Arrived:
        """List the folder, and open the files that are new and whole.

        Files that are being written, that cannot be read or that a network drive does not show for a moment
        are no error.
        """
        arrived = Arrived()
        try:
            paths = find_images(self.where).images
        except FrameError as error:
            paths, arrived.nothing = [], f"{error}."
        seen = {}
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue
            seen[path] = self._seen(path, (stat.st_size, stat.st_mtime_ns))
        self._files = seen
        for path, file in seen.items():
            if file.found is None:
                arrived.waiting.append(path.name)
            elif isinstance(file.found, FrameError):
                arrived.unreadable[path.name] = str(file.found)
        frames = [file.found for file in seen.values() if isinstance(file.found, Frame)]
        if frames:
            arrived.frames, arrived.notes = self._chosen(frames)
        return arrived

    def _seen(self, path: Path, stamp: tuple[int, int]) -> _File:
        """Return what is known of a file, after a look at it if that is due."""
        now, file = self.clock(), self._files.get(path)
        if file is None or file.stamp != stamp:
            # Clocks of two computers differ: a time in the future tells nothing.
            age = time.time() - stamp[1] / 1e9
            file = _File(stamp, now - self.settle if file is None and age > OLD else now)
        tried = isinstance(file.found, FrameError)
        if now - file.since >= (AGAIN if tried else self.settle) and not isinstance(file.found, Frame):
            file.since = now if tried else file.since
            try:
                file.found = Frame(path, quiet=True)
            except FrameError as error:
                file.found = error
        return file

    @staticmethod
    def _chosen(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
        """Leave out what is no light frame, as `stacklib.open_frames` does in a folder."""
        try:
            return choose(frames, [False] * len(frames))
        except FrameError as error:
            return [], [str(error)]
