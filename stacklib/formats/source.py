"""An open image file, read as rows of float32 in any sample format."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from stacklib.errors import FrameError
from stacklib.formats.scratch import ReadInto
from stacklib.utils.labels import listed

__all__ = [
    "COMMENTARY",
    "LARGEST",
    "Block",
    "FileBlock",
    "FileStamp",
    "ImageSource",
    "JoinedBlock",
    "LazyBlock",
    "clean_text",
    "parse_decimal_comma",
    "parse_keyword",
    "repeated_note",
    "transparency_note",
]

#: Keywords that repeat by design.
COMMENTARY = ("HISTORY", "COMMENT", "CONTINUE", "")
#: Whole numbers of a header are below this: no counter has more than 64 bits.
LARGEST = 2**64
#: Samples that need conversion are read in chunks of about this many bytes: large enough for efficient
#: reads, small enough to stay in the CPU cache.
CHUNK = 2**20


class FileStamp(NamedTuple):
    """What tells whether a file is still the one that was opened.

    Attributes
    ----------
    size : int
        Size in bytes.
    mtime_ns, ctime_ns : int
        Times of the last change of the content and of the file, in nanoseconds.
    inode : int
        Number of the file on its disk.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Take the stamp of a file. Raises `FrameError` if there is none, or no regular one."""
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError as error:
            raise unreadable(path, error) from error
        except ValueError as error:
            # A name that no file can have.
            raise unreadable(path, FileNotFoundError(path)) from error
        if not stat.S_ISREG(found.st_mode):
            raise FrameError(f"{path}: is not a regular file; name an image file")
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def is_same(self, other: FileStamp) -> bool:
        """Return whether two stamps are of the same content.

        Some network file systems number their files anew from time to time. Where that happens all times stay
        as they are, which they do not if a file is replaced. (On Windows, `ctime_ns` may be inherited.)
        """
        renumbered = os.name != "nt" and self.ctime_ns == other.ctime_ns
        return self[:2] == other[:2] and (self.inode == other.inode or renumbered)

    def check(self, path: Path) -> None:
        """Raise `FrameError` unless `path` is still the same file."""
        try:
            found = FileStamp.of(path)
        except FrameError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                raise
            raise FrameError(
                f"{path}: there is no such file any more; put it back, or open the frames again without it"
            ) from None
        if not self.is_same(found):
            raise FrameError(
                f"{path}: has changed since it was opened; open the frames again, and do not write to them "
                "meanwhile"
            )


class Block(Protocol):
    """A run of bytes with random access, safe for concurrent reads.

    `reads_file` tells whether the next read opens the image file, because no decoded copy is at hand.
    """

    size: int

    @property
    def reads_file(self) -> bool:
        """Whether the next read opens the image file."""

    def reader(self) -> contextlib.AbstractContextManager[ReadInto]:
        """Return a context manager that gives a function ``read_into(offset, buffer)``."""


class FileBlock:
    """A part of a file. Each reader opens its own handle, so threads share no file position."""

    reads_file = True

    def __init__(self, path: Path, position: int, size: int) -> None:
        self.path, self.position, self.size = path, position, size

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """Yield a function that reads bytes starting at an offset into a buffer."""
        try:
            stream = self.path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(self.path, error) from error

        def read_into(offset: int, view: memoryview) -> None:
            try:
                stream.seek(self.position + offset)
                while len(view):
                    count = stream.readinto(view)
                    if not count:
                        raise FrameError(
                            f"{self.path}: ends before its last pixel; the file has shrunk since it was "
                            "opened, copy it again"
                        )
                    view = view[count:]
            except OSError as error:
                raise unreadable(self.path, error) from error

        with stream:
            yield read_into


class LazyBlock:
    """A block that is verified or decoded once, on the first read."""

    def __init__(self, size: int, prepare: Callable[[], Block]) -> None:
        self.size = size
        self._prepare = prepare
        self._lock = threading.Lock()
        self._block: Block | None = None

    @property
    def reads_file(self) -> bool:
        """Whether the block is not decoded yet, or only verified."""
        block = self._block
        return block is None or block.reads_file

    def reader(self) -> contextlib.AbstractContextManager[ReadInto]:
        """Return a reader of the prepared block."""
        with self._lock:
            if self._block is None:
                self._block = self._prepare()
            return self._block.reader()

    def close(self) -> None:
        """Release memory and scratch space. The next read prepares the block again."""
        with self._lock:
            self._block = None


class JoinedBlock:
    """Blocks of equal size, one after the other: color planes stored apart. No read goes beyond a plane."""

    def __init__(self, parts: Sequence[Block]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)

    @property
    def reads_file(self) -> bool:
        """Whether any part reads the file."""
        return any(part.reads_file for part in self.parts)

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """Yield a function that reads bytes of one plane, starting at an offset, into a buffer."""
        with contextlib.ExitStack() as opened:
            readers: dict[int, ReadInto] = {}

            def read_into(offset: int, view: memoryview) -> None:
                plane, inside = divmod(offset, self.parts[0].size)
                if plane not in readers:
                    readers[plane] = opened.enter_context(self.parts[plane].reader())
                readers[plane](inside, view)

            yield read_into

    def close(self) -> None:
        """Release memory and scratch space of the parts."""
        for part in self.parts:
            _close(part)


def _close(block: Block) -> None:
    if isinstance(block, LazyBlock | JoinedBlock):
        block.close()


@dataclass
class ImageSource:
    """An open image file: its header, and access to its rows.

    A value is ``(stored * scale + zero) / divisor``, computed in float64 where float32 would round
    twice. ``blank`` is the stored integer for missing data, which becomes NaN.

    Attributes
    ----------
    path : Path
        The file.
    channels, height, width : int
        Image size.
    sample_format : str
        ``u8``, ``u16``, ``u32``, ``u64``, ``i8``, ``i16``, ``i32``, ``i64``, ``f32`` or ``f64``.
    integer : bool
        Whether the samples are stored as integers.
    full_scale : float
        Full scale in ADU: ``2**bits - 1`` for integers, 1.0 for floats.
    keywords, properties : dict
        FITS keywords (upper case, first occurrence) and XISF properties, as Python values.
    row_order : str
        ``top-down``, ``bottom-up``, or an empty string if the file does not specify it.
    notes : list of str
        Problems found in the header that do not prevent reading.
    planes : int
        Stored planes, of which the first `channels` are used. The others are transparency.
    mask : ImageSource or None
        An image of the same size whose nonzero pixels mark missing data.
    stamp : FileStamp
        The file as it was opened. Every read of the file checks it before and after.
    """

    path: Path
    channels: int
    height: int
    width: int
    sample_format: str
    integer: bool
    full_scale: float
    stored: np.dtype
    block: Block
    scale: float = 1.0
    zero: float = 0.0
    divisor: float = 1.0
    blank: int | None = None
    # FITS stores unsigned integers as signed ones offset by half the range, so only one bit differs.
    offset_binary: bool = False
    interleaved: bool = False
    row_order: str = ""
    keywords: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    planes: int = 0
    mask: ImageSource | None = None
    stamp: FileStamp | None = None

    def __post_init__(self) -> None:
        self.planes = self.planes or self.channels
        self.stamp = self.stamp or FileStamp.of(self.path)

    @property
    def quantization_step(self) -> float:
        """Difference between neighboring values, or 0.0 for floats."""
        return abs(self.scale) / self.divisor if self.integer else 0.0

    @property
    def is_plain(self) -> bool:
        """Whether rows are read from the file, without decoding or verifying all of it first."""
        return isinstance(self.block, FileBlock) and (self.mask is None or self.mask.is_plain)

    def close(self) -> None:
        """Release scratch space. File handles are never kept between reads."""
        _close(self.block)
        if self.mask is not None:
            self.mask.close()

    def read_rows(self, start: int, stop: int, channel: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows ``start`` to ``stop - 1`` of one channel.

        Parameters
        ----------
        start, stop : int
            ``0 <= start <= stop <= height``.
        channel : int
            ``0 <= channel < channels``.
        out : ndarray of float32, shape (stop - start, width), optional
            Output array.

        Returns
        -------
        ndarray of float32, shape (stop - start, width)
            Integers divided by the full scale, XISF values with bounds mapped by them, FITS floats as stored.
            NaN and infinities are kept. FITS BLANK and masked pixels become NaN.

        Raises
        ------
        FrameError
            If the file cannot be read, fails its checksum, or is not the one that was opened: replaced,
            changed or removed.
        ValueError
            If the rows, the channel or `out` do not match the image.
        """
        if not (0 <= start <= stop <= self.height and 0 <= channel < self.channels):
            raise ValueError(
                f"rows {start} to {stop} of channel {channel} are outside an image with "
                f"{self.height} rows and {self.channels} channels"
            )
        shape = (stop - start, self.width)
        if out is None:
            out = np.empty(shape, np.float32)
        elif out.shape != shape or out.dtype != np.float32:
            raise ValueError(f"out is {out.dtype} {out.shape}, expected float32 {shape}")
        if out.size:
            with self._unchanged(), self.block.reader() as read_into:
                if self._is_stored_float32 and out.flags.c_contiguous:
                    self._read_direct(read_into, start, channel, out)
                else:
                    self._read_converted(read_into, start, channel, out)
            if self.mask is not None:
                plane = channel if self.mask.channels == self.channels else 0
                out[self.mask.read_rows(start, stop, plane) != 0] = np.nan
        return out

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Raise `FrameError` if a file that is read within the context is not the one that was opened."""
        if not self.block.reads_file:
            yield
            return
        self.check_unchanged()
        try:
            yield
        except FrameError:
            # If it was exchanged meanwhile, that is the reason.
            self.check_unchanged()
            raise
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise `FrameError` if the file was replaced, changed or removed since it was opened."""
        assert self.stamp is not None
        self.stamp.check(self.path)

    @property
    def _is_stored_float32(self) -> bool:
        """Whether the values are stored as planar float32, in either byte order."""
        is_float32 = self.stored.newbyteorder("=") == np.float32
        return is_float32 and not self.interleaved and (self.scale, self.zero, self.divisor) == (1, 0, 1)

    def _read_direct(self, read_into: ReadInto, start: int, channel: int, out: np.ndarray) -> None:
        offset = (channel * self.height + start) * self.width * self.stored.itemsize
        read_into(offset, out.data.cast("B"))
        if not self.stored.isnative:
            out.view(np.uint32).byteswap(inplace=True)

    def _read_converted(self, read_into: ReadInto, start: int, channel: int, out: np.ndarray) -> None:
        step = self.planes if self.interleaved else 1
        plane = 0 if self.interleaved else channel * self.height
        row_size = self.width * step * self.stored.itemsize
        rows = max(1, min(len(out), CHUNK // row_size))
        buffer = np.empty((rows, self.width * step), self.stored)
        for first in range(0, len(out), rows):
            target = out[first : first + rows]
            raw = buffer[: len(target)]
            read_into((plane + start + first) * row_size, raw.view(np.uint8).data.cast("B"))
            if self.interleaved:
                raw = raw[:, channel::step]
            self._convert(raw, target)

    def _convert(self, raw: np.ndarray, out: np.ndarray) -> None:
        if not raw.dtype.isnative:
            raw = raw.byteswap(inplace=True).view(raw.dtype.newbyteorder("="))
        if self.offset_binary:
            np.bitwise_xor(raw, raw.dtype.type(1 << (8 * raw.itemsize - 1)), out=raw)
        exact = raw.dtype == np.float32 or (raw.dtype.kind in "iu" and raw.itemsize <= 2)
        if self.scale == 1 and self.zero == 0 and (exact or self.divisor == 1):
            # These samples are exact in float32, so the division is the only rounding.
            with np.errstate(over="ignore", invalid="ignore"):
                out[...] = raw
            if self.divisor != 1:
                out /= np.float32(self.divisor)
        else:
            values = raw.astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                values *= self.scale
                values += self.zero
                values /= self.divisor
                out[...] = values
        if self.blank is not None:
            out[raw == self.blank] = np.nan


def unreadable(path: Path, error: OSError) -> FrameError:
    """Return the error for a file that cannot be read, with the remedy."""
    if isinstance(error, FileNotFoundError):
        return FrameError(f"{path}: no such file; check the name and the folder")
    if isinstance(error, PermissionError):
        return FrameError(
            f"{path}: no permission to read it; change the permissions of the file or its folder"
        )
    return FrameError(f"{path}: cannot be read ({error.strerror or error}); check the disk and the file")


def regular_file_size(path: Path) -> int:
    """Return the size of a file in bytes.

    Raises
    ------
    FrameError
        If the file does not exist, or is a folder, a pipe or a device.
    """
    return FileStamp.of(path).size


def transparency_note(planes: int) -> str:
    """Return the note on a plane of transparency, the last one of two or four."""
    place = {2: "first is", 4: "first three are"}[planes]
    return f"has {planes} planes; the {place} used, the last one is taken for transparency and left out"


def repeated_note(names: Collection[str]) -> str:
    """Return the note on keywords that have different values in one header."""
    return f"keywords with more than one value, of which the first is used: {listed(list(names), most=10)}"


def clean_text(text: str, keep: str = "") -> str:
    """Replace non-printable characters by spaces, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else " " for letter in text)


def parse_decimal_comma(text: str) -> float | None:
    """Return a number written with a decimal comma (``6,4E-05``), or None for any other text."""
    if not re.fullmatch(r"[+-]?\d+,\d+([EeDd][+-]?\d+)?", text.strip(), re.ASCII):
        return None
    number = float(text.strip().upper().replace(",", ".").replace("D", "E"))
    return number if math.isfinite(number) else None


def parse_keyword(text: str) -> bool | int | float | str:
    """Convert the text of a FITS keyword (``'M101'``, ``T``, ``300``, ``1.5D-3``) to a Python value."""
    text = clean_text(text).strip()
    if text.startswith("'"):
        inner = text[1:-1] if text.endswith("'") and len(text) > 1 else text[1:]
        return inner.replace("''", "'").strip()
    if text in ("T", "F"):
        return text == "T"
    for kind, candidate in ((int, text), (float, text.upper().replace("D", "E"))):
        # Python also accepts 1_000, which is not a number in FITS.
        if candidate and candidate[-1] in "0123456789." and "_" not in candidate:
            with contextlib.suppress(ValueError, OverflowError):
                number = kind(candidate)
                usable = abs(number) < LARGEST if kind is int else math.isfinite(number)
                return number if usable else text
    comma = parse_decimal_comma(text)
    return text if comma is None else comma
