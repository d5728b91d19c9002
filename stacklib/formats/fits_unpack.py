"""Decode tile-compressed FITS images in processes of their own, which may die of a damaged file.

A process is started for the first image and used again for the next ones. It ends with this one, or when it
had nothing to do for a minute.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

from stacklib.errors import FrameError
from stacklib.formats import fits_child
from stacklib.formats.fits_tiles import PackedImage
from stacklib.formats.source import clean_text

__all__ = ["unpacked"]

#: Processes at the same time.
MOST = max(1, min(4, os.cpu_count() or 1))
#: Seconds after which a process is ended where the system cannot limit its time, besides those for the size.
PATIENCE = 30.0
PIECE = 2**20


class _Child:
    """A process that decodes one image at a time."""

    def __init__(self) -> None:
        # -P: a module in the current folder is not one of ours. Threads of libraries would only cost memory.
        quiet = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", fits_child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
        )

    def ask(self, packed: PackedImage) -> int:
        """Send an image to decode. Returns the size of the answer in bytes, 0 for an error."""
        job = {
            "path": os.fspath(packed.path.absolute()),
            "header": packed.header.decode("ascii"),
            "rows": packed.rows,
            "heap": packed.heap,
            "stored": packed.stored,
            "size": packed.size,
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job).encode("ascii") + b"\n")
        self.process.stdin.flush()
        return int.from_bytes(self.read(8), "little")

    def read(self, size: int) -> bytes:
        """Return the next bytes of the answer. Raises `EOFError` if the process has ended."""
        assert self.process.stdout is not None
        found = self.process.stdout.read(size)
        if len(found) < size:
            raise EOFError
        return found

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            # What was not sent is not needed.
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self.process.wait()


class _Children:
    """The processes that wait for work."""

    def __init__(self) -> None:
        self.room = threading.BoundedSemaphore(MOST)
        self.lock = threading.Lock()
        self.idle: list[_Child] = []
        self.owner = os.getpid()

    def take(self) -> _Child:
        with self.lock:
            return self.idle.pop() if self.idle else _Child()

    def give_back(self, child: _Child) -> None:
        with self.lock:
            self.idle.append(child)

    def end(self) -> None:
        # After a fork they belong to the other process.
        if self.owner == os.getpid():
            while self.idle:
                self.idle.pop().end()


_children = _Children()
_children_lock = threading.Lock()


def _current_children() -> _Children:
    global _children
    with _children_lock:
        if _children.owner != os.getpid():
            _children = _Children()
        return _children


@atexit.register
def _end_all() -> None:
    _children.end()


def unpacked(packed: PackedImage) -> Iterator[bytes]:
    """Decode an image in another process and yield its samples, big-endian, piece by piece.

    Raises
    ------
    FrameError
        If the tiles are damaged, or decoding them takes too long or too much memory.
    """
    children = _current_children()
    with children.room:
        child = _ready(children, packed.path)
        try:
            reason = yield from _answer(child, packed)
        except BaseException:
            child.end()
            raise
        children.give_back(child)
    if reason:
        raise _damaged(packed.path, reason)


def _ready(children: _Children, path: Path) -> _Child:
    """Return a process that waits for work."""
    try:
        child = children.take()
        if child.process.poll() is None:
            return child
        # It ended just now, because it had nothing to do.
        child.end()
        return _Child()
    except OSError as error:
        reason = f"the process that decodes them cannot be started: {error.strerror or error}"
        raise _damaged(path, reason) from error


def _answer(child: _Child, packed: PackedImage) -> Generator[bytes, None, str]:
    """Yield the samples. Returns why there are none, or an empty text."""
    seconds = PATIENCE + packed.size / fits_child.BYTES_A_SECOND
    timer = threading.Timer(seconds, child.process.kill)
    timer.daemon = True
    timer.start()
    try:
        left = child.ask(packed)
        if not left:
            reason = child.read(int.from_bytes(child.read(8), "little"))
            return clean_text(reason.decode("utf-8", "replace")) or "unknown"
        while left:
            piece = child.read(min(left, PIECE))
            left -= len(piece)
            yield piece
    except (EOFError, OSError):
        raise _damaged(packed.path, "the process that decoded them ended") from None
    finally:
        timer.cancel()
    return ""


def _damaged(path: Path, reason: str) -> FrameError:
    return FrameError(
        f"{path}: the compressed tiles cannot be read ({reason}); copy the file again or decompress it with "
        "funpack"
    )
