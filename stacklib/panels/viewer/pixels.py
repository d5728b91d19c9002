"""The pixels of a picture on demand: tiles of a pyramid of levels, each half as large as the one before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import numpy as np

from stacklib.figures.screen import Levels, levels_of, sampling
from stacklib.frames.frame import Frame

__all__ = ["STRIP", "TILE", "ArrayRows", "FrameRows", "Pyramid", "largest_of_bins", "mean_of_bins"]

#: Side of a tile in pixels of its level.
TILE = 256
#: From this level on, levels are computed once and kept: a 64th of the image and less.
KEPT = 3
#: Up to this side, bins are summed slice by slice: NumPy adds so few numbers in the same order, but slowly.
FEW = 4
#: Rows that are read at once for these.
STRIP = 512
#: Bytes of rows of a file that are kept for the next tile beside.
CACHE = 256 << 20


class Rows(Protocol):
    """An image that is read in rows; `shape` is (channels, height, width)."""

    shape: tuple[int, int, int]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to ``stop - 1`` of all channels, float32 (channels, rows, width)."""


class ArrayRows:
    """Rows of an array (channels, height, width), or (height, width), of any type of number."""

    def __init__(self, array: np.ndarray) -> None:
        if np.ma.isMaskedArray(array):
            array = np.ma.filled(array.astype(np.float32), np.nan)
        array = np.asarray(array)
        array = array[np.newaxis] if array.ndim == 2 else array
        if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "buif":
            raise ValueError(
                f"image: got {array.dtype} of shape {array.shape}, expected numbers of shape "
                "(channels, height, width) or (height, width)"
            )
        self.array, self.shape = array, array.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows as float32."""
        return self.array[:, start:stop].astype(np.float32, copy=False)


class FrameRows:
    """Rows of a file. The bands of rows read last are kept, as tiles beside each other need the same."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.shape = frame, frame.shape
        self._bands: OrderedDict[int, np.ndarray] = OrderedDict()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows as float32."""
        if stop - start > TILE or start // TILE != (stop - 1) // TILE:
            return self.frame.read(rows=slice(start, stop))
        number = start // TILE
        if number not in self._bands:
            first = number * TILE
            self._bands[number] = self.frame.read(rows=slice(first, min(first + TILE, self.shape[1])))
            most = max(2, CACHE // self._bands[number].nbytes)
            while len(self._bands) > most:
                self._bands.popitem(last=False)
        self._bands.move_to_end(number)
        return self._bands[number][:, start - number * TILE : stop - number * TILE]

    @property
    def held(self) -> int:
        """Bytes of the bands that are kept."""
        return sum(band.nbytes for band in self._bands.values())

    def forget(self) -> None:
        """Free the bands, and close the file until it is read again."""
        self._bands.clear()
        self.frame.close()


class Pyramid:
    """Tiles of an image at each level.

    A pixel of level k is the mean of 2**k x 2**k pixels of the image, without those that have no data (NaN or
    infinite). The last level is a single tile.

    Parameters
    ----------
    rows : Rows
        The image.
    bins : callable, optional
        What makes one pixel of many, `mean_of_bins` or `largest_of_bins`.
    levels : Levels, optional
        Levels of the channels, if they are known.
    """

    def __init__(
        self,
        rows: Rows,
        bins: Callable[[np.ndarray, int], np.ndarray] | None = None,
        levels: Levels | None = None,
    ) -> None:
        self.rows, self.bins, self._known = rows, bins or mean_of_bins, levels
        self.shape = rows.shape
        largest = max(self.shape[1:])
        self.count = 1 + next(k for k in range(64) if -(-largest >> k) <= TILE)

    def has(self, level: int, column: int, row: int) -> bool:
        """Return whether there is such a tile."""
        _, height, width = self.shape
        size = TILE << max(level, 0)
        return 0 <= level < self.count and 0 <= column * size < width and 0 <= row * size < height

    def tile(self, level: int, column: int, row: int) -> np.ndarray:
        """Return a tile, float32 (channels, height, width), at most `TILE` pixels each way.

        Raises
        ------
        ValueError
            If there is no such tile.
        """
        if not self.has(level, column, row):
            raise ValueError(
                f"tile: got level {level}, column {column}, row {row}, which the image does not have"
            )
        if level < KEPT:
            height, size = self.shape[1], TILE << level
            left, top = column * size, row * size
            part = self.rows.read(top, min(top + size, height))[:, :, left : left + size]
            return self.bins(part, 1 << level)
        columns, rows = slice(column * TILE, (column + 1) * TILE), slice(row * TILE, (row + 1) * TILE)
        return np.ascontiguousarray(self._coarse[0][level - KEPT][:, rows, columns])

    def pixel(self, x: int, y: int) -> np.ndarray:
        """Return the values of a pixel, float32 (channels,)."""
        return self.rows.read(y, y + 1)[:, 0, x]

    @property
    def levels(self) -> Levels:
        """Median, spread and extremes of each channel, for the stretch."""
        return self._coarse[1] if self._known is None else self._known

    @property
    def held(self) -> int:
        """Bytes that are kept of the image."""
        kept = self.__dict__.get("_coarse", ((), None))[0]
        return getattr(self.rows, "held", 0) + sum(level.nbytes for level in kept)

    def forget(self) -> None:
        """Free what is kept of a file; it is read again when it is wanted."""
        self.__dict__.pop("_coarse", None)
        self.rows.forget()

    @cached_property
    def _coarse(self) -> tuple[list[np.ndarray], Levels]:
        """The levels from `KEPT` on, and the statistics, from one pass through the image."""
        height = self.shape[1]
        step = sampling(np.broadcast_to(np.float32(0), self.shape))
        strips, sampled = [], []
        for start in range(0, height, STRIP):
            strip = self.rows.read(start, min(start + STRIP, height))
            sampled.append(strip[:, -start % step :: step, ::step].copy())
            if self.count > KEPT:
                strips.append(self.bins(strip, 1 << KEPT))
        found = [np.concatenate(strips, axis=1)] if strips else []
        while found and len(found) < self.count - KEPT:
            found.append(self.bins(found[-1], 2))
        return found, levels_of(np.concatenate(sampled, axis=1))


def mean_of_bins(image: np.ndarray, side: int) -> np.ndarray:
    """Return the means of bins of `side` pixels each way, float32, of the finite pixels in each.

    Bins at the right and lower edge may be smaller. A bin without a finite pixel is NaN.
    """
    if side == 1:
        return np.ascontiguousarray(image, np.float32)
    height, width = image.shape[1:]
    rows, columns = -(-height // side), -(-width // side)
    if (rows * side, columns * side) != (height, width):
        edges = ((0, 0), (0, rows * side - height), (0, columns * side - width))
        image = np.pad(image, edges, constant_values=np.nan)
    # Rows first: these sums run along the memory.
    sums = _sum_of_bins(image, side)
    if np.isfinite(sums).all():
        return sums / np.float32(side * side)
    finite = np.isfinite(image)
    counts = _sum_of_bins(finite.astype(np.float32), side)
    with np.errstate(invalid="ignore"):
        return _sum_of_bins(np.where(finite, image, np.float32(0)), side) / counts


def largest_of_bins(image: np.ndarray, side: int) -> np.ndarray:
    """Return the largest value in each bin of `side` pixels each way, float32; NaN where there is none.

    For classes, which have no mean.
    """
    if side == 1:
        return np.ascontiguousarray(image, np.float32)
    channels, height, width = image.shape
    rows, columns = -(-height // side), -(-width // side)
    edges = ((0, 0), (0, rows * side - height), (0, columns * side - width))
    bins = np.pad(image, edges, mode="edge").reshape(channels, rows, side, columns, side)
    return np.fmax.reduce(np.fmax.reduce(bins, axis=4), axis=2).astype(np.float32)


def _sum_of_bins(image: np.ndarray, side: int) -> np.ndarray:
    channels, height, width = image.shape
    if side <= FEW:
        rows = sum((image[:, k::side] for k in range(1, side)), start=image[:, ::side])
        return sum((rows[:, :, k::side] for k in range(1, side)), start=rows[:, :, ::side])
    rows = image.reshape(channels, height // side, side, width).sum(axis=2)
    return rows.reshape(channels, height // side, width // side, side).sum(axis=3)
