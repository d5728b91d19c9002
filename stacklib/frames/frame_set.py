"""Frame sets: frames that belong together, and how to open them."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from astropy.table import MaskedColumn, Table

from stacklib.errors import FrameError, StacklibWarning
from stacklib.frames.finding import find_images, resolve_path
from stacklib.frames.frame import Frame
from stacklib.utils.labels import listed

__all__ = ["Frame", "FrameSet", "header_notes", "open_frames", "resolve_path"]

#: Threads that open headers. They mostly wait for the disk or the network.
OPENERS = 8


class FrameSet(Sequence[Frame]):
    """An ordered set of frames of the same size.

    ``frames[3]`` is a `Frame`. A slice, a list of indices or a boolean array selects a new `FrameSet`.

    Parameters
    ----------
    frames : iterable of Frame
        The frames, in order.

    Raises
    ------
    FrameError
        If there are no frames, a frame is listed twice, or the frames differ in size, number of channels
        or row order.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = tuple(frames)
        if not self._frames:
            raise FrameError("the frame set is empty; add at least one image file")
        _refuse_duplicates([frame.path for frame in self._frames])
        _refuse_mixed(self._frames, lambda frame: (frame.width, frame.height), "{0[0]} x {0[1]} pixels")
        _refuse_mixed(self._frames, lambda frame: frame.channels, "{0} channel(s)")
        known = [frame for frame in self._frames if frame.row_order]
        _refuse_mixed(known, lambda frame: frame.row_order, "rows {0}")

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray) -> FrameSet: ...

    def __getitem__(self, index: Any) -> Frame | FrameSet:
        if isinstance(index, int | np.integer):
            return self._frames[index]
        if not isinstance(index, slice):
            index = np.asarray(index) if len(index) else slice(0)
        chosen = np.arange(len(self))[index]
        if not chosen.size:
            raise FrameError("no frames are selected; select at least one")
        return FrameSet(self._frames[number] for number in chosen)

    def __repr__(self) -> str:
        first = self._frames[0]
        known = [frame.exposure for frame in self if frame.exposure is not None]
        facts = [
            f"{first.width} x {first.height}",
            "1 channel" if self.channels == 1 else f"{self.channels} channels",
            "/".join(sorted({frame.sample_format for frame in self})),
            ", ".join(sorted({frame.object for frame in self} - {""})),
            ", ".join(sorted({frame.filter for frame in self} - {""})),
            f"{sum(known):g} s total" if len(known) == len(self) else "",
        ]
        count = "1 frame" if len(self) == 1 else f"{len(self)} frames"
        return f"<FrameSet of {count}: {', '.join(filter(None, facts))}; {self.folder}>"

    @property
    def channels(self) -> int:
        """Number of channels of each frame."""
        return self._frames[0].channels

    @property
    def height(self) -> int:
        """Number of rows of each frame."""
        return self._frames[0].height

    @property
    def width(self) -> int:
        """Number of columns of each frame."""
        return self._frames[0].width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each frame."""
        return self._frames[0].shape

    @cached_property
    def folder(self) -> Path:
        """Folder of the frames, or their nearest common parent folder."""
        return Path(os.path.commonpath([frame.path.parent.absolute() for frame in self]))

    @cached_property
    def names(self) -> list[str]:
        """Names of the frames: file names, with folders if two files have the same name."""
        names = [frame.name for frame in self]
        if len(set(names)) == len(names):
            return names
        return [frame.path.absolute().relative_to(self.folder).as_posix() for frame in self]

    @property
    def table(self) -> Table:
        """Header values, one row per frame. Missing values are masked.

        Columns: file, object, filter, exposure (s), date (ISO, UTC), camera, gain, temperature
        (deg C), format, width, height, channels.
        """
        dates = [frame.date.strftime("%Y-%m-%dT%H:%M:%S") if frame.date else "" for frame in self]
        table = Table()
        table["file"] = self.names
        table["object"] = _text_column([frame.object for frame in self])
        table["filter"] = _text_column([frame.filter for frame in self])
        table["exposure"] = _number_column([frame.exposure for frame in self], "s")
        table["date"] = _text_column(dates)
        table["camera"] = _text_column([frame.camera for frame in self])
        table["gain"] = _number_column([frame.gain for frame in self])
        table["temperature"] = _number_column([frame.temperature for frame in self], "deg_C")
        table["format"] = [frame.sample_format for frame in self]
        for name in ("width", "height", "channels"):
            table[name] = [getattr(self, name)] * len(self)
        return table

    def close(self) -> None:
        """Release the scratch space of all frames."""
        for frame in self:
            frame.close()


def _text_column(values: list[str]) -> MaskedColumn:
    return MaskedColumn(values, mask=[not value for value in values], dtype=str)


def _number_column(values: list[float | None], unit: str | None = None) -> MaskedColumn:
    filled = np.array(values, float)
    return MaskedColumn(filled, mask=np.isnan(filled), unit=unit)


def _refuse_duplicates(paths: Sequence[Path]) -> None:
    for path, count in Counter(path.absolute() for path in paths).items():
        if count > 1:
            raise FrameError(f"{path}: is listed {count} times; list each frame once")


def _refuse_mixed(frames: Sequence[Frame], value: Callable[[Frame], Any], words: str) -> None:
    counted = Counter(map(value, frames)).most_common()
    if len(counted) > 1:
        usual, count = counted[0]
        others = [f"{each.name} ({words.format(value(each))})" for each in frames if value(each) != usual]
        raise FrameError(
            f"the frames differ: {count} of {len(frames)} have {words.format(usual)}, but not "
            f"{listed(others, most=10)}; register all frames to the same reference, or leave these out"
        )


def open_frames(where: str | Path | Frame | Iterable[str | Path | Frame]) -> FrameSet:
    """Open registered frames. Headers are read now, pixels on demand.

    Parameters
    ----------
    where : str, Path, Frame or list of these
        A folder, a glob pattern, a file, or a list. In a folder, files named ``*_c_d_r`` are used, or
        all images if there are none. Subfolders and hidden files are ignored. Folders and patterns are
        sorted in natural order (frame_2 before frame_10), a list keeps its order. Relative paths are
        searched in the working directory and its parents.

    Returns
    -------
    FrameSet
        The frames.

    Raises
    ------
    FrameError
        If nothing is found, a file cannot be used, or the frames do not match.

    Warns
    -----
    StacklibWarning
        For problems in the headers that do not prevent reading.

    Examples
    --------
    >>> frames = open_frames("sample_data/M13/4_Registered")  # doctest: +SKIP
    >>> frames  # doctest: +SKIP
    <FrameSet of 12 frames: 320 x 256, 1 channel, u16, M13, L, 720 s total; .../M13/4_Registered>
    """
    entries = [where] if isinstance(where, str | os.PathLike | Frame) else list(where)
    found: list[Path | Frame] = []
    for entry in entries:
        found += [entry] if isinstance(entry, Frame) else find_images(entry)
    if not found:
        raise FrameError("the list of frames is empty; add at least one image file")
    _refuse_duplicates([entry.path if isinstance(entry, Frame) else entry for entry in found])
    frames = _open_all(found)
    silent = [frame.name for frame in frames if not frame.row_order]
    if 0 < len(silent) < len(frames):
        warnings.warn(
            f"{listed(silent, most=10)}: no ROWORDER in the header, unlike the other frames; "
            "check that they are not upside down",
            StacklibWarning,
            stacklevel=2,
        )
    return FrameSet(frames)


def _open_all(found: Sequence[Path | Frame]) -> list[Frame]:
    with ThreadPoolExecutor(OPENERS) as pool:
        opened = list(pool.map(_open_or_error, found))
    errors = [frame for frame in opened if isinstance(frame, FrameError)]
    if errors:
        rest = f" ({len(errors) - 1} more of the {len(found)} files cannot be used)"
        raise FrameError(f"{errors[0]}{rest if len(errors) > 1 else ''}") from errors[0]
    frames = [frame for frame in opened if isinstance(frame, Frame)]
    new = [frame for frame, entry in zip(frames, found, strict=True) if frame is not entry]
    for note in header_notes(new):
        warnings.warn(note, StacklibWarning, stacklevel=3)
    return frames


def header_notes(frames: Iterable[Frame]) -> list[str]:
    """Return the notes of several frames, one line for those that differ at most in a quoted value."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for frame in frames:
        for note in frame.notes:
            alike.setdefault(re.sub(r"'[^']*'", "''", note), []).append((frame.name, note))
    return [f"{listed([name for name, _ in same], most=3)}: {same[0][1]}" for same in alike.values()]


def _open_or_error(entry: Path | Frame) -> Frame | FrameError:
    try:
        return entry if isinstance(entry, Frame) else Frame(entry, quiet=True)
    except FrameError as error:
        return error
