"""The hits in color frames, and the samples around them, as far as there are any."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from stacklib.spatial.footprints import most_frames
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.means import ABOVE, COLOUR
from stacklib.utils.compiled import compiled

__all__ = ["HitMarks"]


@compiled
def _mark_around(places, width, flag, flags):
    """Set a flag in 3 x 3 pixels around places of a plane, (pixels,)."""
    height = flags.size // width
    for k in range(places.size):
        y, x = places[k] // width, places[k] % width
        for row in range(max(y - 1, 0), min(y + 2, height)):
            for column in range(max(x - 1, 0), min(x + 2, width)):
                flags[row * width + column] |= flag


@compiled
def _in_frames(frame, pixel, size):
    """Return in how many frames each pixel of a plane is hit; several channels of a frame count once.

    `frame` is in order.
    """
    number, last = np.zeros(size, np.int32), np.full(size, -1, np.int32)
    for k in range(frame.size):
        if last[pixel[k]] != frame[k]:
            last[pixel[k]] = frame[k]
            number[pixel[k]] += 1
    return number


@compiled
def _set_bits(places, row, width, present, packed):
    """Set the bits of flags at some places of a plane, see `stacklib.spatial.masks.pack_flags`."""
    for k in range(places.size):
        if row[k] != 0:
            y, x = places[k] // width, places[k] % width
            here = np.uint8(128 >> (x & 7))
            packed[0, y, x >> 3] |= here
            for j in range(present.size):
                if row[k] & present[j]:
                    packed[j + 1, y, x >> 3] |= here


class HitMarks:
    """Hits in any channel of the frames, and what they take with them.

    After `grow`, `pixels` are the places in a plane that have marks, int64 (n,), in order, and `flags`, uint8
    (frames, n), the marks of the frames there, see `stacklib.spatial.means`.
    """

    def __init__(self, frames: int, shape: tuple[int, int]) -> None:
        self.frames, self.shape = frames, shape
        self._hits: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.pixels = np.empty(0, np.int64)
        self.flags = np.empty((frames, 0), np.uint8)

    def add(self, frame: np.ndarray, pixel: np.ndarray, above: np.ndarray, hit: np.ndarray) -> None:
        """Add those of some samples of a channel that are hits; `above` tells bright ones."""
        self._hits.append((frame[hit], pixel[hit], above[hit]))

    def grow(self) -> None:
        """Mark what is around the hits, but not around those at one place in many frames."""
        frame, pixel, above = (np.concatenate(arrays) for arrays in zip(*self._hits, strict=True))
        order = np.argsort(frame, kind="stable")
        frame, pixel, above = frame[order], pixel[order], above[order]
        size = self.shape[0] * self.shape[1]
        alone = _in_frames(frame, pixel, size)[pixel] <= most_frames(self.frames)
        frame, pixel, above = frame[alone], pixel[alone], above[alone]
        bounds = np.searchsorted(frame, np.arange(self.frames + 1))
        found, some = [], np.zeros(size, bool)
        for start, stop in itertools.pairwise(bounds):
            flags = np.zeros(size, np.uint8)
            own, bright = pixel[start:stop], above[start:stop]
            _mark_around(own, self.shape[1], np.uint8(COLOUR), flags)
            _mark_around(own[bright], self.shape[1], np.uint8(ABOVE), flags)
            places = np.flatnonzero(flags)
            found.append((places, flags[places]))
            some[places] = True
        self.pixels = np.flatnonzero(some)
        self.flags = np.zeros((self.frames, self.pixels.size), np.uint8)
        for row, (places, flags) in zip(self.flags, found, strict=True):
            row[np.searchsorted(self.pixels, places)] = flags

    def masks(
        self,
        region: tuple[int, int, int, int],
        taken: Sequence[np.ndarray],
        paths: Sequence[Any],
        used: np.ndarray,
    ) -> FrameMasks:
        """Return the masks of frames, given the flags of the samples taken in each channel."""
        masks = FrameMasks(region)
        for channel, rows in enumerate(taken):
            for i, row, path in zip(used, rows, paths, strict=True):
                every = int(np.bitwise_or.reduce(row, initial=0))
                present = tuple(flag for flag in (COLOUR, ABOVE) if every & flag)
                packed = np.zeros((len(present) + 1, self.shape[0], -(-self.shape[1] // 8)), np.uint8)
                _set_bits(self.pixels, row, self.shape[1], np.array(present, np.uint8), packed)
                masks.put_packed(int(i), channel, present, packed, path)
        return masks
