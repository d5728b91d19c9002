"""Scratch space for what has to be inflated before rows can be read from it.

Small blocks stay in memory, larger ones go into one nameless temporary file of the process.
The file has no name on systems that allow it (and is deleted on close on the others), so nothing
is left behind whichever way the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stacklib.errors import FrameError

__all__ = ["MEMORY_IN_ALL", "MEMORY_PER_BLOCK", "ReadInto", "hold"]

#: A block of up to this many bytes is kept in memory ...
MEMORY_PER_BLOCK = 64 * 2**20
#: ... as long as all such blocks together stay below this.
MEMORY_IN_ALL = 256 * 2**20

#: Fills a writable buffer with the bytes that start at an offset.
ReadInto = Callable[[int, memoryview], None]


class _MemoryInUse:
    """Bytes held by all memory blocks that are alive."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 0

    def claim(self, size: int) -> bool:
        with self.lock:
            if size > MEMORY_PER_BLOCK or self.size + size > MEMORY_IN_ALL:
                return False
            self.size += size
            return True

    def release(self, size: int) -> None:
        with self.lock:
            self.size -= size


_memory = _MemoryInUse()


class _Arena:
    """One temporary file that holds many blocks, and shrinks when the last of them is gone."""

    def __init__(self) -> None:
        # A context manager would close it too early: it lives as long as the blocks in it.
        self.file = tempfile.TemporaryFile(prefix="stacklib-")  # noqa: SIM115
        self.lock = threading.Lock()
        self.process = os.getpid()
        self.end = 0
        self.live = 0
        # Also runs when the interpreter ends.
        weakref.finalize(self, self.file.close)

    def claim(self, size: int) -> int:
        with self.lock:
            start = self.end
            self.end += size
            self.live += 1
            return start

    def release(self) -> None:
        # After a fork the file is shared with the parent, which alone may shrink it.
        if os.getpid() != self.process:
            return
        with self.lock:
            self.live -= 1
            if self.live == 0 and not self.file.closed:
                self.end = 0
                self.file.truncate(0)

    def write(self, offset: int, piece: bytes) -> None:
        with self.lock:
            self.file.seek(offset)
            self.file.write(piece)

    def flush(self) -> None:
        with self.lock:
            self.file.flush()

    def read_into(self, offset: int, view: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.file.fileno(), [view], offset)
        with self.lock:
            self.file.seek(offset)
            return self.file.readinto(view)


_arena: _Arena | None = None
_arena_lock = threading.Lock()


def _current_arena() -> _Arena:
    global _arena
    with _arena_lock:
        if _arena is None or _arena.process != os.getpid():
            _arena = _Arena()
        return _arena


class MemoryBlock:
    """Bytes in memory."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(content).cast("B")
        self.size = len(self._view)

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """A function that copies bytes from an offset on into a buffer."""

        def read_into(offset: int, view: memoryview) -> None:
            view[:] = self._view[offset : offset + len(view)]

        yield read_into


class ScratchBlock:
    """A part of the temporary file of this process."""

    def __init__(self, arena: _Arena, start: int, size: int, path: Path) -> None:
        self._arena, self._start, self._path = arena, start, path
        self.size = size

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """A function that reads bytes from an offset on into a buffer."""

        def read_into(offset: int, view: memoryview) -> None:
            while len(view):
                count = self._arena.read_into(self._start + offset, view)
                if count <= 0:
                    raise FrameError(f"{self._path}: its scratch file ends early; open the frame again")
                offset, view = offset + count, view[count:]

        yield read_into


def hold(pieces: Iterable[bytes], size: int, path: Path) -> MemoryBlock | ScratchBlock:
    """Keep decoded bytes, in memory or on disk, until nobody refers to the result any more.

    Parameters
    ----------
    pieces : iterable of bytes
        The content, in order. Must add up to `size` bytes; more is refused before it is stored.
    size : int
        Bytes in all.
    path : Path
        The file that the bytes come from, for messages.

    Raises
    ------
    FrameError
        When the pieces do not add up to `size`, or there is no room on the disk.
    """
    if _memory.claim(size):
        return _hold_in_memory(pieces, size, path)
    return _hold_on_disk(pieces, size, path)


def _hold_in_memory(pieces: Iterable[bytes], size: int, path: Path) -> MemoryBlock:
    try:
        content = bytearray(size)
        filled = 0
        for piece in pieces:
            filled = _advance(filled, len(piece), size, path)
            content[filled - len(piece) : filled] = piece
        _expect_full(filled, size, path)
        block = MemoryBlock(content)
    except BaseException:
        _memory.release(size)
        raise
    weakref.finalize(block, _memory.release, size)
    return block


def _hold_on_disk(pieces: Iterable[bytes], size: int, path: Path) -> ScratchBlock:
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < size:
            raise _no_room(path, size, folder, free)
        arena = _current_arena()
    except OSError as error:
        raise FrameError(f"{path}: no scratch file for its pixels ({error.strerror}); set TMPDIR") from error
    start = arena.claim(size)
    try:
        filled = 0
        for piece in pieces:
            filled = _advance(filled, len(piece), size, path)
            arena.write(start + filled - len(piece), piece)
        _expect_full(filled, size, path)
        arena.flush()
        block = ScratchBlock(arena, start, size, path)
    except OSError as error:
        arena.release()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(path, size, folder, shutil.disk_usage(folder).free) from error
        raise
    except BaseException:
        arena.release()
        raise
    weakref.finalize(block, arena.release)
    return block


def _no_room(path: Path, size: int, folder: str, free: int) -> FrameError:
    return FrameError(
        f"{path}: needs {size / 2**20:.0f} MiB of scratch space and {folder} has {free / 2**20:.0f} MiB; "
        "make room there, set TMPDIR to another folder, or store the frames uncompressed"
    )


def _advance(filled: int, more: int, size: int, path: Path) -> int:
    if filled + more > size:
        raise FrameError(f"{path}: inflates to more than the {size} bytes that its header declares")
    return filled + more


def _expect_full(filled: int, size: int, path: Path) -> None:
    if filled != size:
        raise FrameError(
            f"{path}: inflates to {filled} bytes, expected {size}; the file is truncated or damaged, "
            "copy it again"
        )
