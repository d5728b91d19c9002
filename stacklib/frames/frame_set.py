"""Frames: image files that know their header and read rows, and ordered, checked sets of them."""

from __future__ import annotations

import hashlib
import math
import os
import threading
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
from stacklib.formats import fits, xisf
from stacklib.formats.source import ImageSource, regular_file_size, unreadable
from stacklib.frames.finding import ENDINGS, find_images, resolve_path
from stacklib.frames.headers import HeaderFacts

__all__ = ["Frame", "FrameSet", "open_frames", "resolve_path"]

#: Headers are opened by this many threads: what they wait for is the disk or the network.
OPENERS = 8


class Frame(HeaderFacts):
    """One image file. Only its header is read until rows are asked for.

    Frames can be pickled: the path travels, and the file is opened again where it is needed.

    Parameters
    ----------
    path : str or Path
        An XISF or FITS file.
    quiet : bool
        Do not warn of what can be passed over in the header; see `notes`.

    Raises
    ------
    FrameError
        When the file cannot be used.

    Attributes
    ----------
    path : Path
        The file; `name` is its file name.
    stamp : (int, int)
        Size, and time of change in nanoseconds, when it was opened.
    channels, height, width : int
        Geometry; `shape` is all three.
    sample_format : str
        ``u8``, ``u16``, ``u32``, ``i16``, ``i32``, ``f32`` or ``f64``, as stored.
    integer : bool
        Whether the stored samples are quantised.
    full_scale : float
        ADU of the value 1.0 (``2**bits - 1`` for integers, 1.0 for floats).
    quantization_step : float
        Distance of neighbouring values of an integer frame, in units of the full scale; 0.0 for floats.
    row_order : str
        ``top-down``, ``bottom-up`` or an empty text where the file does not say.
    keywords, properties : dict
        FITS keywords (first occurrence) and XISF properties, as Python values.
    notes : list of str
        What was passed over in the header.
    """

    def __init__(self, path: str | Path, quiet: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self.stamp = _stamp(self.path)
        self._source: ImageSource | None = _open_source(self.path)
        if not quiet:
            self._source.warn()

    def __getstate__(self) -> dict[str, Any]:
        # The other process may have another current folder.
        return {"path": self.path.absolute(), "stamp": self.stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.stamp = state["path"], state["stamp"]
        self._lock, self._source = threading.Lock(), None

    def __repr__(self) -> str:
        return (
            f"<Frame {self.name}: {self.width} x {self.height}, {self.channels} "
            f"{'channel' if self.channels == 1 else 'channels'}, {self.sample_format}>"
        )

    @property
    def source(self) -> ImageSource:
        """The opened file."""
        with self._lock:
            if self._source is None:
                if _stamp(self.path) != self.stamp:
                    raise FrameError(f"{self.path}: has changed since it was opened; open the frames again")
                self._source = _open_source(self.path)
            return self._source

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def channels(self) -> int:
        return self.source.channels

    @property
    def height(self) -> int:
        return self.source.height

    @property
    def width(self) -> int:
        return self.source.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def sample_format(self) -> str:
        return self.source.sample_format

    @property
    def integer(self) -> bool:
        return self.source.integer

    @property
    def full_scale(self) -> float:
        return self.source.full_scale

    @property
    def quantization_step(self) -> float:
        return self.source.quantization_step

    @property
    def row_order(self) -> str:
        return self.source.row_order

    @property
    def keywords(self) -> dict[str, Any]:
        return self.source.keywords

    @property
    def properties(self) -> dict[str, Any]:
        return self.source.properties

    @property
    def notes(self) -> list[str]:
        return self.source.notes

    def read(self, rows: slice | None = None, channel: int | None = None) -> np.ndarray:
        """Read pixels.

        Parameters
        ----------
        rows : slice, optional
            Rows to read, for instance ``slice(100, 164)``; all of them by default.
        channel : int, optional
            One channel; all of them by default.

        Returns
        -------
        float32 array (channels, rows, width), or (rows, width) with `channel`
            Integers and XISF floats in 0 to 1, FITS floats as they are; NaN is no data.

        Raises
        ------
        FrameError
            When the file cannot be read.
        """
        source = self.source
        start, stop, step = (rows or slice(None)).indices(source.height)
        if step != 1:
            raise ValueError(f"rows is {rows}, expected a slice without a step")
        stop = max(start, stop)
        if channel is not None:
            return source.read_rows(start, stop, range(source.channels)[channel])
        out = np.empty((source.channels, stop - start, source.width), np.float32)
        for plane in range(source.channels):
            source.read_rows(start, stop, plane, out[plane])
        return out

    def read_rows(self, start: int, stop: int, channel: int, out: np.ndarray | None = None) -> np.ndarray:
        """Rows of one channel, into `out` where it is given; see `ImageSource.read_rows`."""
        return self.source.read_rows(start, stop, channel, out)

    def close(self) -> None:
        """Give back scratch space; the frame can be read again all the same."""
        if self._source is not None:
            self._source.close()

    def checksum(self, algorithm: str = "sha256") -> str:
        """Checksum of the file in hexadecimal digits."""
        try:
            with self.path.open("rb") as stream:
                return hashlib.file_digest(stream, algorithm).hexdigest()
        except OSError as error:
            raise unreadable(self.path, error) from error


def _stamp(path: Path) -> tuple[int, int]:
    size = regular_file_size(path)
    return size, path.stat().st_mtime_ns


def _open_source(path: Path) -> ImageSource:
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise FrameError(f"{path}: is not an image of a known kind; known endings are {', '.join(ENDINGS)}")
    return (xisf if name.endswith(".xisf") else fits).open_image(path, quiet=True)


class FrameSet(Sequence[Frame]):
    """An ordered set of frames of one geometry.

    ``frames[3]`` is a `Frame`; a slice, a list of numbers or a boolean array gives a `FrameSet`.

    Parameters
    ----------
    frames : iterable of Frame
        In the order in which they are to be listed.

    Raises
    ------
    FrameError
        When there are none, one is listed twice, or they differ in geometry, channels or row order.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = tuple(frames)
        if not self._frames:
            raise FrameError("the set has no frames; name at least one image file")
        _refuse_duplicates([frame.path for frame in self._frames])
        _refuse_mixed(self._frames, lambda frame: (frame.width, frame.height), "{0[0]} x {0[1]} pixels")
        _refuse_mixed(self._frames, lambda frame: frame.channels, "{0} channel(s)")
        known = [frame for frame in self._frames if frame.row_order]
        if known:
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
            raise FrameError("no frame is selected; select at least one")
        return FrameSet(self._frames[number] for number in chosen)

    def __repr__(self) -> str:
        first = self._frames[0]
        exposures = [frame.exposure for frame in self]
        known = [exposure for exposure in exposures if exposure is not None]
        facts = [
            f"{first.width} x {first.height}",
            "1 channel" if self.channels == 1 else f"{self.channels} channels",
            "/".join(sorted({frame.sample_format for frame in self})),
            ", ".join(sorted({frame.object for frame in self} - {""})),
            ", ".join(sorted({frame.filter for frame in self} - {""})),
            f"{sum(known):g} s in all" if known and len(known) == len(exposures) else "",
        ]
        count = "1 frame" if len(self) == 1 else f"{len(self)} frames"
        return f"<FrameSet of {count}: {', '.join(filter(None, facts))}; {self.folder}>"

    @property
    def channels(self) -> int:
        """Channels of every frame."""
        return self._frames[0].channels

    @property
    def height(self) -> int:
        """Rows of every frame."""
        return self._frames[0].height

    @property
    def width(self) -> int:
        """Columns of every frame."""
        return self._frames[0].width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every frame."""
        return self._frames[0].shape

    @cached_property
    def folder(self) -> Path:
        """The folder of the frames, or the nearest one that holds them all."""
        return Path(os.path.commonpath([frame.path.parent.absolute() for frame in self]))

    @cached_property
    def names(self) -> list[str]:
        """One name a frame: the file name, with its folders where two files are called alike."""
        names = [frame.name for frame in self]
        if len(set(names)) == len(names):
            return names
        return [frame.path.absolute().relative_to(self.folder).as_posix() for frame in self]

    @property
    def table(self) -> Table:
        """What the headers say, one row a frame; masked where a header is silent.

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
        table["width"] = [frame.width for frame in self]
        table["height"] = [frame.height for frame in self]
        table["channels"] = [frame.channels for frame in self]
        return table

    def close(self) -> None:
        """Give back the scratch space of all frames."""
        for frame in self:
            frame.close()


def _text_column(values: list[str]) -> MaskedColumn:
    return MaskedColumn(values, mask=[not value for value in values], dtype=str)


def _number_column(values: list[float | None], unit: str | None = None) -> MaskedColumn:
    filled = [math.nan if value is None else value for value in values]
    return MaskedColumn(filled, mask=[value is None for value in values], dtype=float, unit=unit)


def _refuse_duplicates(paths: Sequence[Path]) -> None:
    for path, count in Counter(path.absolute() for path in paths).items():
        if count > 1:
            raise FrameError(f"{path}: is listed {count} times; list every frame once")


def _refuse_mixed(frames: Sequence[Frame], value: Callable[[Frame], Any], words: str) -> None:
    values = [value(frame) for frame in frames]
    usual, count = Counter(values).most_common(1)[0]
    others = [
        f"{frame.name} ({words.format(found)})"
        for frame, found in zip(frames, values, strict=True)
        if found != usual
    ]
    if others:
        raise FrameError(
            f"the frames differ: {count} of {len(frames)} have {words.format(usual)}, but not "
            f"{_some(others)}; register all frames to one reference, or leave these out"
        )


def _some(items: Sequence[str], most: int = 10) -> str:
    """The items in words, cut short where there are many."""
    text = ", ".join(items[:most])
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def open_frames(where: str | Path | Frame | Iterable[str | Path | Frame]) -> FrameSet:
    """Open registered frames: their headers now, their pixels when they are needed.

    Parameters
    ----------
    where : str, Path, or list
        A folder, a glob pattern, a file, or a list of these (or of frames). Of a folder the files
        named ``*_c_d_r`` are taken, or every image where there are none; subfolders and hidden files
        are left alone. Folders and patterns give natural order (frame_2 before frame_10), a list
        keeps its own. See `resolve_path` for relative paths.

    Returns
    -------
    FrameSet

    Raises
    ------
    FrameError
        When nothing is found, a file cannot be used, or the frames do not fit together.

    Warns
    -----
    StacklibWarning
        For what was passed over in a header.
    """
    entries = [where] if isinstance(where, str | os.PathLike | Frame) else list(where)
    found: list[Path | Frame] = []
    for entry in entries:
        found += [entry] if isinstance(entry, Frame) else find_images(entry)
    if not found:
        raise FrameError("the list of frames is empty; name at least one image file")
    _refuse_duplicates([entry.path if isinstance(entry, Frame) else entry for entry in found])
    frames = _open_all(found)
    _warn_of_unknown_order(frames)
    return FrameSet(frames)


def _open_all(found: Sequence[Path | Frame]) -> list[Frame]:
    with ThreadPoolExecutor(OPENERS) as pool:
        frames = list(pool.map(_open_or_error, found))
    errors = [frame for frame in frames if isinstance(frame, FrameError)]
    if errors:
        more = (
            f" ({len(errors) - 1} more of the {len(found)} files cannot be used)" if len(errors) > 1 else ""
        )
        raise FrameError(f"{errors[0]}{more}") from errors[0]
    _warn_of_notes([frame for frame, entry in zip(frames, found, strict=True) if frame is not entry])
    return frames


def _warn_of_notes(frames: Sequence[Frame]) -> None:
    """One warning for each note, however many files it is true of."""
    files: dict[str, list[str]] = {}
    for frame in frames:
        for note in frame.notes:
            files.setdefault(note, []).append(frame.name)
    for note, names in files.items():
        warnings.warn(f"{_some(names, 3)}: {note}", StacklibWarning, stacklevel=4)


def _open_or_error(entry: Path | Frame) -> Frame | FrameError:
    try:
        return entry if isinstance(entry, Frame) else Frame(entry, quiet=True)
    except FrameError as error:
        return error


def _warn_of_unknown_order(frames: Sequence[Frame]) -> None:
    silent = [frame.name for frame in frames if not frame.row_order]
    if silent and len(silent) < len(frames):
        warnings.warn(
            f"{_some(silent)}: no ROWORDER in the header, unlike the other frames; "
            "look whether they are upside down",
            StacklibWarning,
            stacklevel=3,
        )
