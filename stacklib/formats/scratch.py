"""Scratch space for decompressed pixels.

Small blocks stay in memory. Larger ones go into one temporary file per process, which has no name (or is
deleted on close, depending on the system), so nothing is left behind even if the process is killed.
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

__all__ = ["MEMORY_IN_ALL", "MEMORY_PER_BLOCK", "ReadInto", "hold", "memory_held", "memory_limited"]

#: Largest block kept in memory, in bytes ...
MEMORY_PER_BLOCK = 64 * 2**20
#: ... and the limit for all such blocks together.
MEMORY_IN_ALL = 256 * 2**20

Piece = bytes | bytearray | memoryview
#: Fills a writable buffer with the bytes starting at an offset.
ReadInto = Callable[[int, memoryview], None]


class _MemoryInUse:
    """Total size of the memory blocks in use, and its limit."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size, self.limit = 0, MEMORY_IN_ALL

    def claim(self, size: int) -> bool:
        with self.lock:
            if size > MEMORY_PER_BLOCK or self.size + size > self.limit:
                return False
            self.size += size
            return True

    def release(self, size: int) -> None:
        with self.lock:
            self.size -= size


_memory = _MemoryInUse()


def memory_held() -> int:
    """Return the size in bytes of the decompressed pixels in memory."""
    return _memory.size


@contextlib.contextmanager
def memory_limited(size: int) -> Iterator[None]:
    """Keep no more than `size` bytes of newly decompressed pixels in memory meanwhile, others on disk."""
    before = _memory.limit
    _memory.limit = max(0, min(size, MEMORY_IN_ALL))
    try:
        yield
    finally:
        _memory.limit = before


class _Arena:
    """A temporary file that holds many blocks and is truncated when the last one is released."""

    def __init__(self) -> None:
        # No context manager: the file must stay open as long as any block in it.
        self.file = tempfile.TemporaryFile(prefix="stacklib-", buffering=0)  # noqa: SIM115
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
        # After a fork the file is shared, and only the parent may truncate it.
        if os.getpid() != self.process:
            return
        with self.lock:
            self.live -= 1
            if self.live == 0 and not self.file.closed:
                self.end = 0
                self.file.truncate(0)

    def write(self, offset: int, piece: Piece) -> None:
        view = memoryview(piece)
        with self.lock:
            self.file.seek(offset)
            while len(view):
                view = view[self.file.write(view) :]

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
    """A block in memory."""

    reads_file = False

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(content).cast("B")
        self.size = len(self._view)

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """Yield a function that copies bytes starting at an offset into a buffer."""

        def read_into(offset: int, view: memoryview) -> None:
            view[:] = self._view[offset : offset + len(view)]

        yield read_into


class ScratchBlock:
    """A block in the temporary file of this process."""

    reads_file = False

    def __init__(self, arena: _Arena, start: int, size: int, path: Path) -> None:
        self._arena, self._start, self._path = arena, start, path
        self.size = size

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """Yield a function that reads bytes starting at an offset into a buffer."""

        def read_into(offset: int, view: memoryview) -> None:
            while len(view):
                try:
                    count = self._arena.read_into(self._start + offset, view)
                except OSError as error:
                    folder = tempfile.gettempdir()
                    raise FrameError(
                        f"{self._path}: its pixels cannot be read back from a scratch file in {folder} "
                        f"({error.strerror or error}); check that disk, or set TMPDIR to another folder"
                    ) from error
                if count <= 0:
                    raise FrameError(f"{self._path}: the scratch file is too short; open the frame again")
                offset, view = offset + count, view[count:]

        yield read_into


def hold(pieces: Iterable[Piece], size: int, path: Path) -> MemoryBlock | ScratchBlock:
    """Store decoded bytes in memory or on disk for as long as the returned block is referenced.

    Parameters
    ----------
    pieces : iterable of bytes
        The content, in order. Must add up to `size`; anything beyond is rejected before it is stored.
    size : int
        Total size in bytes.
    path : Path
        The file the bytes come from, for error messages.

    Raises
    ------
    FrameError
        If the pieces do not add up to `size`, or the disk is full.
    """
    if _memory.claim(size):
        return _hold_in_memory(pieces, size, path)
    return _hold_on_disk(pieces, size, path)


def _hold_in_memory(pieces: Iterable[Piece], size: int, path: Path) -> MemoryBlock:
    try:
        content = bytearray(size)

        def write(start: int, piece: Piece) -> None:
            content[start : start + len(piece)] = piece

        _fill(pieces, size, path, write)
        block = MemoryBlock(content)
    except BaseException:
        _memory.release(size)
        raise
    weakref.finalize(block, _memory.release, size)
    return block


def _hold_on_disk(pieces: Iterable[Piece], size: int, path: Path) -> ScratchBlock:
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < size:
            raise _no_room(path, size, folder, free)
        arena = _current_arena()
    except OSError as error:
        raise FrameError(
            f"{path}: cannot create a scratch file for its pixels ({error.strerror}); set TMPDIR to a "
            "writable folder"
        ) from error
    first = arena.claim(size)
    try:
        _fill(pieces, size, path, lambda start, piece: arena.write(first + start, piece))
        block = ScratchBlock(arena, first, size, path)
    except OSError as error:
        arena.release()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(path, size, folder, shutil.disk_usage(folder).free) from error
        raise FrameError(
            f"{path}: its pixels cannot be written to a scratch file in {folder} "
            f"({error.strerror or error}); set TMPDIR to another folder"
        ) from error
    except BaseException:
        arena.release()
        raise
    weakref.finalize(block, arena.release)
    return block


def _no_room(path: Path, size: int, folder: str, free: int) -> FrameError:
    return FrameError(
        f"{path}: needs {size / 2**20:.0f} MiB of scratch space, but {folder} has {free / 2**20:.0f} MiB; "
        "free some space, set TMPDIR to another folder, or store the frames uncompressed"
    )


def _fill(pieces: Iterable[Piece], size: int, path: Path, write: Callable[[int, Piece], None]) -> None:
    filled = 0
    for piece in pieces:
        if filled + len(piece) > size:
            raise FrameError(
                f"{path}: decompresses to more than the {size} bytes declared in its header; copy the file "
                "again or leave it out"
            )
        write(filled, piece)
        filled += len(piece)
    if filled != size:
        raise FrameError(
            f"{path}: decompresses to {filled} bytes, expected {size}; copy the file again or leave it out"
        )
