"""Frame sets: frames that belong together, and how to open them."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from stacklib.errors import FrameError, IntegrationError, StacklibWarning
from stacklib.frames.differences import differences, mosaic_note
from stacklib.frames.finding import (
    ENDINGS,
    common_folder,
    doubtful_names,
    find_images,
    frames_folder_above,
    resolve_path,
)
from stacklib.frames.frame import Frame
from stacklib.frames.kinds import sift
from stacklib.frames.twins import without_twins
from stacklib.utils.labels import counted, listed
from stacklib.utils.texts import one_line

if TYPE_CHECKING:
    from astropy.table import MaskedColumn, Table

__all__ = [
    "Frame",
    "FrameSet",
    "as_pattern",
    "choose",
    "header_notes",
    "open_frames",
    "refuse_single",
    "resolve_path",
    "used_files",
]

#: Threads that open headers. They mostly wait for the disk or the network.
OPENERS = 8


class FrameSet(Sequence[Frame]):
    """An ordered set of frames of the same size.

    ``frames[3]`` is a `Frame`. A slice, a list of indices or a boolean array selects a new `FrameSet`.

    Parameters
    ----------
    frames : iterable of Frame
        The frames, in order.
    notes : iterable of str
        What was said when they were opened, see `notes`.

    Raises
    ------
    FrameError
        If there are no frames, a frame is listed twice, or the frames differ in size, number of channels
        or row order.
    """

    def __init__(self, frames: Iterable[Frame], notes: Iterable[str] = ()) -> None:
        self._frames = tuple(frames)
        self._said = tuple(notes)
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
        return FrameSet((self._frames[number] for number in chosen), self._said)

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
        words = f"{counted(len(self), 'frame')}: {', '.join(filter(None, facts))}; {self.folder}"
        return f"<FrameSet of {one_line(words)}>"

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
    def notes(self) -> tuple[str, ...]:
        """What to know before the frames are integrated.

        What was left out when they were opened and why, how the frames differ, and frames of a color camera
        that were not debayered. For problems in headers see `header_notes`.
        """
        return (
            *self._said,
            *differences(self._frames, _batch_folder(self.folder)),
            *mosaic_note(self._frames),
        )

    @property
    def row_order(self) -> str:
        """Row order of the frames that specify it, all of them alike, or an empty string if none does."""
        return next((frame.row_order for frame in self if frame.row_order), "")

    @cached_property
    def folder(self) -> Path:
        """Folder of the frames, or their nearest common parent folder."""
        return common_folder(frame.path for frame in self)

    @cached_property
    def names(self) -> list[str]:
        """Names of the frames: file names, with folders if two files have the same name."""
        names = [frame.name for frame in self]
        if len(set(names)) == len(names):
            return names
        paths, home = [frame.path.absolute() for frame in self], self.folder
        return [(path.relative_to(home) if path.is_relative_to(home) else path).as_posix() for path in paths]

    @property
    def table(self) -> Table:
        """Header values, one row per frame. Missing values are masked.

        Columns: file, object, filter, exposure (s), date (ISO, UTC), camera, gain, temperature
        (deg C), format, width, height, channels.
        """
        # Here, because a run does without tables of headers.
        from astropy.table import Table

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
    # See `FrameSet.table`.
    from astropy.table import MaskedColumn

    return MaskedColumn(values, mask=[not value for value in values], dtype=str)


def _number_column(values: list[float | None], unit: str | None = None) -> MaskedColumn:
    # See `FrameSet.table`.
    from astropy.table import MaskedColumn

    filled = np.array(values, float)
    return MaskedColumn(filled, mask=np.isnan(filled), unit=unit)


def refuse_single(frames: FrameSet) -> None:
    """Raise `IntegrationError` if there is only one frame."""
    if len(frames) < 2:
        raise IntegrationError(
            f"{frames[0].path}: is the only frame; an integration needs at least 2 frames, preferably 8 or "
            "more. Add registered frames of the same field"
        )


def _refuse_duplicates(paths: Sequence[Path]) -> None:
    counted = Counter(map(_identity, paths))
    for path in paths:
        count = counted[_identity(path)]
        if count > 1:
            raise FrameError(f"{path.absolute()}: is listed {count} times; list each frame once")


def _identity(path: Path) -> object:
    """Return what two spellings of a path have in common, such as ``..`` in it or another case.

    Links are files of their own here.
    """
    try:
        found = path.lstat()
    except OSError:
        return path.absolute()
    alone = found.st_ino and found.st_nlink == 1 and not stat.S_ISLNK(found.st_mode)
    return (found.st_dev, found.st_ino) if alone else path.absolute()


def _refuse_mixed(frames: Sequence[Frame], value: Callable[[Frame], Any], words: str) -> None:
    counted = Counter(map(value, frames)).most_common()
    if len(counted) > 1:
        usual, count = counted[0]
        others = [f"{each.name} ({words.format(value(each))})" for each in frames if value(each) != usual]
        raise FrameError(
            f"the frames differ: {count} of {len(frames)} have {words.format(usual)}, but not "
            f"{listed(others, most=10)}; register all frames to the same reference, or leave these out"
        )


def open_frames(
    where: str | Path | Frame | Iterable[str | Path | Frame], everything: bool = False
) -> FrameSet:
    """Open registered frames. Headers are read now, pixels on demand.

    Parameters
    ----------
    where : str, Path, Frame or list of these
        A folder, a glob pattern, a file, or a list. If a folder holds registered frames (``*_c_d_r``, Siril's
        ``r_pp_light_*`` and others, see `stacklib.frames.registered`) beside other images, only those are
        used. In folders and patterns, masters, maps and calibration frames are left out. The same frame
        twice counts once. Subfolders and hidden files are ignored. A folder with a folder
        ``4_Registered`` in it, or with only one folder of images, stands for that. Folders and patterns are
        sorted in natural order (frame_2 before frame_10), a list keeps its order. Relative paths are
        searched in the working directory and its parents.
    everything : bool
        Use every image that is found, and leave out nothing.

    Returns
    -------
    FrameSet
        The frames. Its `notes` say what was left out.

    Raises
    ------
    FrameError
        If nothing is found, a file cannot be used, the frames do not match, or a list names calibration
        frames among light frames.

    Warns
    -----
    StacklibWarning
        For each note of the set: images that were left out, problems in the headers that do not prevent
        reading, frames that differ in target, filter, exposure, gain or camera, frames that were not
        debayered.

    Examples
    --------
    >>> frames = open_frames("sample_data/M13/4_Registered")  # doctest: +SKIP
    >>> frames  # doctest: +SKIP
    <FrameSet of 12 frames: 320 x 256, 1 channel, u16, M13, L, 720 s total; .../M13/4_Registered>
    """
    if isinstance(where, FrameSet):
        return where
    found, named, notes = _find(where, everything)
    chosen = _open_all(found)
    if not everything:
        chosen, more = choose(chosen, named)
        notes += more
    given = {id(entry) for entry in found}
    new = [frame for frame in chosen if id(frame) not in given]
    frames = FrameSet(chosen, [*notes, *_row_order_note(chosen)])
    for note in (*header_notes(new), *frames.notes):
        warnings.warn(note, StacklibWarning, stacklevel=2)
    return frames


def used_files(where: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the files that `open_frames` would use, in order, with those that cannot be read.

    Raises
    ------
    FrameError
        If nothing is found, or a list names calibration frames among light frames.
    """
    found, named, _ = _find(where)
    if len(found) == 1:
        return [Path(entry) for entry in found if not isinstance(entry, Frame)]
    with ThreadPoolExecutor(OPENERS) as pool:
        opened = list(pool.map(_open_or_error, found))
    pairs = [(frame, one) for frame, one in zip(opened, named, strict=True) if isinstance(frame, Frame)]
    used, _ = choose([frame for frame, _ in pairs], [one for _, one in pairs])
    kept = {id(frame) for frame in used}
    return [
        Path(path)
        for path, frame in zip(found, opened, strict=True)
        if not isinstance(path, Frame) and (isinstance(frame, FrameError) or id(frame) in kept)
    ]


def _find(
    where: str | Path | Frame | Iterable[str | Path | Frame], everything: bool = False
) -> tuple[list[Path | Frame], list[bool], list[str]]:
    """Return the files that are meant, which of them are named one by one, and notes about others."""
    found: list[Path | Frame] = []
    named: list[bool] = []
    notes: list[str] = []
    loose: list[Path] = []
    for entry in [where] if isinstance(where, str | os.PathLike | Frame) else list(where):
        if isinstance(entry, Frame):
            found.append(entry)
            named.append(True)
            continue
        images, kind, said = find_images(entry, registered=not everything)
        found += images
        named += [kind == "file"] * len(images)
        loose += images if kind != "folder" else []
        notes += said
    if not found:
        raise FrameError("the list of frames is empty; add at least one image file")
    return found, named, notes if everything else [*notes, *doubtful_names(loose)]


def choose(frames: Sequence[Frame], named: Sequence[bool]) -> tuple[list[Frame], list[str]]:
    """Choose the light frames among opened files, each once; also return notes about the others.

    `named` says which of them the user named one by one, see `stacklib.frames.kinds.sift`.
    """
    notes = []
    for keep in (lambda frames: sift(frames, named), without_twins):
        used, said = keep(frames)
        frames = [frame for frame, good in zip(frames, used, strict=True) if good]
        notes += said
    return list(frames), notes


def as_pattern(entries: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leave out of a list what a pattern for its files would not mean; also return notes about that.

    Folders and patterns in the list are kept. Raises `FrameError` if a file cannot be used.
    """
    files = [entry for entry in entries if resolve_path(entry).is_file()]
    images = [file for file in files if file.lower().endswith(ENDINGS)]
    others = [file for file in files if file not in images]
    notes = []
    if images and others:
        verb = "is left out, as it is no image" if len(others) == 1 else "are left out, as they are no images"
        notes.append(f"{listed([Path(file).name for file in others], most=3)} {verb}")
    opened = _open_all([resolve_path(file) for file in images])
    used, more = choose(opened, [False] * len(images))
    gone = {file for file, frame in zip(images, opened, strict=True) if frame not in used}
    gone |= set(others if images else [])
    return [entry for entry in entries if entry not in gone], [*notes, *more]


def _open_all(found: Sequence[Path | Frame]) -> list[Frame]:
    with ThreadPoolExecutor(OPENERS) as pool:
        opened = list(pool.map(_open_or_error, found))
    errors = [frame for frame in opened if isinstance(frame, FrameError)]
    if errors:
        rest = f" ({len(errors) - 1} more of the {len(found)} files cannot be used)"
        raise FrameError(f"{errors[0]}{rest if len(errors) > 1 else ''}") from errors[0]
    return [frame for frame in opened if isinstance(frame, Frame)]


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


def _row_order_note(frames: Sequence[Frame]) -> list[str]:
    silent = [frame.name for frame in frames if not frame.row_order]
    if not 0 < len(silent) < len(frames):
        return []
    return [
        f"{listed(silent, most=10)}: no ROWORDER in the header, unlike the other frames; "
        "check that they are not upside down"
    ]


def _batch_folder(folder: Path) -> str:
    """Return the folder for which a batch integrates these frames; empty if it does not find them."""
    home = frames_folder_above(folder)
    return str(home.parent) if home else ""
