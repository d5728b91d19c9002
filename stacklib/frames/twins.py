"""Find the same frame twice in a set: links, copies, compressed copies, and the same frame in two formats."""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from stacklib.errors import FrameError
from stacklib.formats.source import unreadable
from stacklib.frames.finding import ENDINGS, stem_of
from stacklib.frames.frame import Frame
from stacklib.utils.labels import listed

__all__ = ["without_twins"]

#: What file managers add to the name of a copy.
_COPY = re.compile(r" \(\d+\)$|^copy of | copy\b", re.IGNORECASE)
#: Bytes read at once.
CHUNK = 2**22


def without_twins(frames: Sequence[Frame]) -> tuple[list[bool], list[str]]:
    """Return which frames to use, so that each counts once, and notes about the others.

    Files are the same frame if they are one file (links), if their content is equal (copies, also when one of
    them is compressed with gzip), or if they lie in one folder and differ only in the ending of their names
    (``a.xisf`` and ``a.fits``) while size and date are equal. Pixels are read only of frames with equal
    headers. If fewer than two different frames would remain, all are used, with a note.

    Parameters
    ----------
    frames : sequence of Frame
        The opened files, in order.
    """
    try:
        twin_of = _twins(frames)
    except OSError as error:
        raise unreadable(Path(error.filename or frames[0].path.parent), error) from error
    if not twin_of:
        return [True] * len(frames), []
    pairs = listed([_pair(frames[i].path, frames[k].path) for i, k in twin_of.items()], most=3)
    if len(frames) - len(twin_of) < 2:
        return [True] * len(frames), [
            f"the {len(frames)} files hold the same frame: {listed([f.path.name for f in frames], most=3)}; "
            "the result is that frame, with no less noise"
        ]
    note = (
        f"{len(twin_of)} of {len(frames)} files are left out, as they hold the same frame as another: {pairs}"
    )
    return [i not in twin_of for i in range(len(frames))], [note]


def _pair(gone: Path, used: Path) -> str:
    if gone.name != used.name:
        return f"{gone.name} ({used.name})"
    return f"{gone.parent.name}/{gone.name} ({used.parent.name}/{used.name})"


def _twins(frames: Sequence[Frame]) -> dict[int, int]:
    """Return the index of each frame that is there already, and of the frame to use instead."""
    parent = list(range(len(frames)))

    def top(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in (*_one_file(frames), *_two_formats(frames), *_equal_content(frames)):
        first, second = sorted((top(a), top(b)), key=lambda i: (*_rank(frames[i].path), i))
        parent[second] = first
    return {i: top(i) for i in range(len(frames)) if top(i) != i}


def _rank(path: Path) -> tuple[int, bool, bool]:
    """Return a sort key: plain files before compressed ones and links, ``a.fits`` before ``a (2).fits``."""
    stem = stem_of(path)
    return ENDINGS.index(path.name[len(stem) :].lower()), path.is_symlink(), bool(_COPY.search(stem))


def _one_file(frames: Sequence[Frame]) -> Iterator[tuple[int, int]]:
    seen: dict[object, int] = {}
    for i, frame in enumerate(frames):
        found = frame.path.stat()
        # Not every file system numbers its files.
        key = (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(frame.path)
        if key in seen:
            yield seen[key], i
        seen.setdefault(key, i)


def _two_formats(frames: Sequence[Frame]) -> Iterator[tuple[int, int]]:
    seen: dict[object, int] = {}
    for i, frame in enumerate(frames):
        key = (frame.path.parent.absolute(), stem_of(frame.path), frame.shape)
        k = seen.setdefault(key, i)
        if k != i and (frame.date is None or frames[k].date is None or frame.date == frames[k].date):
            yield k, i


def _equal_content(frames: Sequence[Frame]) -> Iterator[tuple[int, int]]:
    alike: dict[object, list[int]] = {}
    for i, frame in enumerate(frames):
        header = repr(sorted(frame.keywords.items())), repr(sorted(frame.properties.items()))
        alike.setdefault((frame.shape, header), []).append(i)
    for places in alike.values():
        if len(places) > 1:
            yield from _equal_among(frames, places)


def _equal_among(frames: Sequence[Frame], places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Find copies among frames with equal headers."""
    zipped = [i for i in places if _is_gzip(frames[i].path)]
    plain = [i for i in places if i not in zipped]
    packed: dict[tuple[int, int], int] = {}
    for i in zipped:
        k = packed.setdefault(_gzip_trailer(frames[i].path), i)
        if k != i:
            yield k, i
    sizes = {size for _, size in packed}
    seen: dict[object, list[int]] = {}
    plain_sizes = {i: frames[i].path.stat().st_size for i in plain}
    often = Counter(plain_sizes.values())
    for i, size in plain_sizes.items():
        if size % 2**32 in sizes:
            key = _crc(frames[i].path), size % 2**32
            if key in packed:
                yield packed[key], i
        # Compressed frames hardly ever have the same size; to look into them takes as long as to use them.
        if often[size] < 2:
            continue
        sample = _sample(frames[i])
        if sample is None:
            continue
        others = seen.setdefault((size, sample), [])
        same = [k for k in others if _equal_files(frames[k].path, frames[i].path)]
        if same:
            yield same[0], i
        else:
            others.append(i)


def _sample(frame: Frame) -> bytes | None:
    """Return a few rows of pixels; None if each is of one value, or cannot be read, which says nothing."""
    height = frame.shape[1]
    try:
        rows = [frame.read(rows=slice(row, row + 1), channel=0) for row in (height // 4, height // 2)]
    except FrameError:
        # It is told when the frame is used.
        return None
    finally:
        frame.close()
    return (
        b"".join(row.tobytes() for row in rows) if any((row != row.flat[0]).any() for row in rows) else None
    )


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _gzip_trailer(path: Path) -> tuple[int, int]:
    """Return checksum and size (modulo 2**32) of the content of a gzip file, as it states them."""
    with path.open("rb") as stream:
        stream.seek(-8, os.SEEK_END)
        end = stream.read(8)
    return int.from_bytes(end[:4], "little"), int.from_bytes(end[4:], "little")


def _crc(path: Path) -> int:
    value = 0
    for piece in _pieces(path):
        value = zlib.crc32(piece, value)
    return value


def _equal_files(one: Path, other: Path) -> bool:
    return all(a == b for a, b in zip(_pieces(one), _pieces(other), strict=True))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece
