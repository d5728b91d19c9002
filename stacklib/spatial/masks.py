"""Masks of the frames, one bit for each sample and means, in memory or in scratch space.

Planes of bits are packed along the rows. They are written once; `stacklib.formats.scratch` keeps them in
memory as long as the budget of a run allows, and on disk beyond that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.formats.scratch import MemoryBlock, ScratchBlock, hold
from stacklib.spatial.means import ABOVE, MEANS
from stacklib.utils.compiled import compiled

__all__ = ["BitPlanes", "FrameMasks", "MaskCounts", "count_bits", "pack_bits", "pack_flags"]

#: Number of different flags, those of all means and `ABOVE` together.
FLAGS = 2 * ABOVE
#: Region of the frames: left, top, width, height.
Region = tuple[int, int, int, int]


class BitPlanes:
    """Planes of bits that do not change any more, uint8 (planes, rows, bytes), packed along the rows.

    `path` is the file that they belong to, for messages.
    """

    def __init__(self, packed: np.ndarray, path: str | os.PathLike = "masks") -> None:
        self.shape, self.path = packed.shape, Path(path)
        pieces = [np.ascontiguousarray(packed).reshape(-1).data] if packed.size else []
        self._block: MemoryBlock | ScratchBlock = hold(pieces, packed.nbytes, self.path)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows of all planes, uint8 (planes, rows, bytes)."""
        planes, height, width = self.shape
        stop = height if stop is None else stop
        found = np.empty((planes, stop - start, width), np.uint8)
        with self._block.reader() as read_into:
            for plane, rows in enumerate(found):
                if rows.size:
                    read_into((plane * height + start) * width, rows.reshape(-1).data)
        return found

    def __reduce__(self) -> tuple:
        return BitPlanes, (self.read(), str(self.path))


def pack_flags(flags: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Pack a plane of flags, uint8 (rows, columns).

    Returns the flags that occur, and planes of bits, uint8 (flags + 1, rows, bytes): samples with any flag,
    and those with each of them.
    """
    every = int(np.bitwise_or.reduce(flags, axis=None))
    present = tuple(1 << k for k in range(8) if every >> k & 1)
    packed = np.zeros((len(present) + 1, flags.shape[0], -(-flags.shape[1] // 8)), np.uint8)
    if present:
        _pack(flags, np.array(present, np.uint8), packed)
    return present, packed


@compiled
def _pack(flags, present, packed):
    """Set the bits of samples with any flag, and with each of those present."""
    height, width = flags.shape
    for r in range(height):
        for k in range(packed.shape[2]):
            for bit in range(min(8, width - 8 * k)):
                found = flags[r, 8 * k + bit]
                if found != 0:
                    here = np.uint8(128 >> bit)
                    packed[0, r, k] |= here
                    for j in range(present.size):
                        if found & present[j]:
                            packed[j + 1, r, k] |= here


def pack_bits(bits: dict[int, np.ndarray], shape: tuple[int, int]) -> tuple[tuple[int, ...], np.ndarray]:
    """Return what `pack_flags` returns for a plane of a shape that is given as bits by flag."""
    present = sorted(flag for flag, plane in bits.items() if plane.any())
    packed = np.zeros((len(present) + 1, shape[0], -(-shape[1] // 8)), np.uint8)
    for number, flag in enumerate(present, 1):
        packed[number] = bits[flag]
        packed[0] |= bits[flag]
    return tuple(present), packed


@compiled
def count_bits(counts, packed):
    """Add 1 to the counts, (rows, columns), where a plane of bits, uint8 (rows, bytes), has one."""
    for r in range(counts.shape[0]):
        for k in range(packed.shape[1]):
            byte = packed[r, k]
            if byte != 0:
                for bit in range(min(8, counts.shape[1] - 8 * k)):
                    if byte & (128 >> bit):
                        counts[r, 8 * k + bit] += 1


@compiled
def _blank(rows, packed, left):
    """Set the samples of `rows`, of which the first is in column `left` of the plane, to NaN."""
    height, width = rows.shape
    for r in range(height):
        for k in range(left >> 3, min((left + width + 7) >> 3, packed.shape[1])):
            byte = packed[r, k]
            if byte != 0:
                for bit in range(8):
                    q = 8 * k + bit - left
                    if byte & (128 >> bit) and 0 <= q < width:
                        rows[r, q] = np.nan


@compiled
def _count(packed, present, left, width, low, high, coverage, tally):
    """Add masked samples to the planes and to `tally`, the number of samples by flags."""
    for r in range(packed.shape[1]):
        for k in range(left >> 3, min((left + width + 7) >> 3, packed.shape[2])):
            byte = packed[0, r, k]
            if byte == 0:
                continue
            for bit in range(8):
                q = 8 * k + bit - left
                if not (byte & (128 >> bit) and 0 <= q < width):
                    continue
                flags = 0
                for j in range(present.size):
                    if packed[j + 1, r, k] & (128 >> bit):
                        flags |= present[j]
                tally[flags] += 1
                coverage[r, q] += 1
                if flags & ABOVE:
                    high[r, q] += 1
                else:
                    low[r, q] += 1


@dataclass
class MaskCounts:
    """Number of samples of each frame that fell to a mask.

    `table`, int64 (frames, flags), has the number of samples by their flags. A sample that several means
    found counts for the first of `stacklib.spatial.means.MEANS`.
    """

    table: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Samples that fell to any means, (frames,)."""
        return self.table[:, 1:].sum(axis=1)

    @property
    def high(self) -> np.ndarray:
        """Samples above the others, (frames,)."""
        return self.table[:, ABOVE:].sum(axis=1)

    @property
    def low(self) -> np.ndarray:
        """Samples below the others, (frames,)."""
        return self.total - self.high

    def by_means(self) -> dict[str, np.ndarray]:
        """Return the number of samples of each frame, (frames,), by the name of the means."""
        every, left = np.arange(FLAGS, dtype=np.uint8), np.ones(FLAGS, bool)
        found = {}
        for means in MEANS:
            mine = means.found(every) & left
            left &= ~mine
            found[means.name] = self.table[:, mine].sum(axis=1)
        return found


@dataclass(eq=False)
class FrameMasks:
    """Samples that spatial rejection takes from the rule, frame by frame.

    Attributes
    ----------
    region : tuple of int
        What the masks cover: left, top, width, height, in pixels of the frames.
    planes : dict
        By number of the frame, from 0, and channel: the flags that occur, and planes of bits as `pack_flags`
        returns them. Planes without any masked sample are missing.
    lines : dict
        Trails found in each frame, by its number: a list of lines, in the order of their numbers.
    unused : dict
        By frame and position, from 0, why lines took no samples, in words: the user wants it so, or they lie
        at the same place in many frames.
    notes : list of str
        What the user should know about trails to ignore and masks of their own.

    Masks can be pickled. In a mask, flags are those of `stacklib.spatial.means`.
    """

    region: Region
    planes: dict[tuple[int, int], tuple[tuple[int, ...], BitPlanes]] = field(default_factory=dict)
    lines: dict[int, list[Any]] = field(default_factory=dict)
    unused: dict[tuple[int, int], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of_frames(self, numbers: Sequence[int]) -> FrameMasks:
        """Return the masks of some frames, which are then counted in this order."""
        places = {int(number): place for place, number in enumerate(numbers)}
        planes = {(places[i], c): plane for (i, c), plane in self.planes.items() if i in places}
        lines = {places[i]: lines for i, lines in self.lines.items() if i in places}
        unused = {(places[i], k): why for (i, k), why in self.unused.items() if i in places}
        return FrameMasks(self.region, planes, lines, unused)

    def copy(self) -> FrameMasks:
        """Return masks that can be changed without changing these."""
        return FrameMasks(
            self.region, dict(self.planes), dict(self.lines), dict(self.unused), list(self.notes)
        )

    def put(self, frame: int, channel: int, flags: np.ndarray, path: str | os.PathLike = "masks") -> None:
        """Store the mask of a plane, uint8 (height, width)."""
        present, packed = pack_flags(flags)
        self.put_packed(frame, channel, present, packed, path)

    def put_packed(
        self,
        frame: int,
        channel: int,
        present: tuple[int, ...],
        packed: np.ndarray,
        path: str | os.PathLike = "masks",
    ) -> None:
        """Store what `pack_flags` returned."""
        # Free the room of an earlier one first.
        self.planes.pop((frame, channel), None)
        if present:
            self.planes[frame, channel] = present, BitPlanes(packed, path)

    def put_bits(
        self, frame: int, channel: int, bits: dict[int, np.ndarray], path: str | os.PathLike = "masks"
    ) -> None:
        """Store the mask of a plane that is given as bits by flag, see `bits`; flags may be without any."""
        _, _, width, height = self.region
        present, packed = pack_bits(bits, (height, width))
        self.put_packed(frame, channel, present, packed, path)

    def bits(self, frame: int, channel: int) -> dict[int, np.ndarray]:
        """Return the mask of a plane as bits by flag, uint8 (height, bytes), of the flags that occur."""
        if (frame, channel) not in self.planes:
            return {}
        present, planes = self.planes[frame, channel]
        return dict(zip(present, planes.read()[1:], strict=True))

    def taken(self, frame: int, channel: int) -> np.ndarray:
        """Return the masked samples of a plane that has some, bits (height, bytes)."""
        return self.planes[frame, channel][1].read()[0]

    def flags(
        self, frame: int, channel: int, start: int | None = None, stop: int | None = None
    ) -> np.ndarray:
        """Return the mask of a plane, uint8 (rows, width).

        `start` and `stop` are rows of the frames, by default all rows of the region.
        """
        _, top, width, height = self.region
        start, stop = top if start is None else start, top + height if stop is None else stop
        found = np.zeros((stop - start, width), np.uint8)
        if (frame, channel) in self.planes:
            present, bits = self.planes[frame, channel]
            packed = bits.read(start - top, stop - top)[1:]
            for flag, plane in zip(present, packed, strict=True):
                found |= np.unpackbits(plane, axis=1, count=width) * np.uint8(flag)
        return found

    def frame(self, frame: int, channels: int) -> np.ndarray:
        """Return the mask of a frame, uint8 (channels, height, width)."""
        return np.stack([self.flags(frame, channel) for channel in range(channels)])

    def at(self, x: int, y: int, channel: int, frames: np.ndarray) -> np.ndarray:
        """Return the flags of the samples at one pixel of some frames, uint8 (frames,)."""
        x -= self.region[0]
        return np.array([self.flags(int(i), channel, y, y + 1)[0, x] for i in frames], np.uint8)

    def blank(self, rows: np.ndarray, frame: int, channel: int, top: int, left: int) -> None:
        """Set the masked samples of a part of a frame, float32 (rows, columns), to NaN in place."""
        if (frame, channel) in self.planes:
            start = top - self.region[1]
            packed = self.planes[frame, channel][1].read(start, start + len(rows))[0]
            _blank(rows, packed, left - self.region[0])

    def count(
        self,
        used: np.ndarray,
        channel: int,
        region: Region,
        low: np.ndarray,
        high: np.ndarray,
        cover: np.ndarray,
    ) -> MaskCounts:
        """Count the masked samples of the frames used in a region, and add them to its maps.

        `low`, `high` and `cover` are numbers of samples, float32 (height, width): rejected as too low and as
        too high, and data.
        """
        left, top, width, height = region
        start = top - self.region[1]
        counts = MaskCounts(np.zeros((used.size, FLAGS), np.int64))
        for tally, i in zip(counts.table, used, strict=True):
            if (int(i), channel) in self.planes:
                present, bits = self.planes[int(i), channel]
                packed = bits.read(start, start + height)
                flags = np.array(present, np.int64)
                _count(packed, flags, left - self.region[0], width, low, high, cover, tally)
        return counts

    def part(self, channel: int, start: int, stop: int) -> FrameMasks:
        """Return the masks of some rows of a channel, without lines; rows are those of the frames."""
        left, top, width, _ = self.region
        found = FrameMasks((left, start, width, stop - start))
        for (i, own), (present, bits) in self.planes.items():
            if own == channel:
                packed = bits.read(start - top, stop - top)
                if packed[0].any():
                    found.put_packed(i, channel, present, packed, bits.path)
        return found

    def __bool__(self) -> bool:
        return bool(self.planes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the frames and channels with masked samples."""
        return iter(sorted(self.planes))
