"""Deposit the pixels of frames on a finer grid with the drizzle library of STScI (Fruchter & Hook 2002).

A pixel is shrunk to a drop, which falls on the pixels of the grid below it. The value of a pixel of the grid
is the mean of the samples weighted by the area of their drops in it, so that its level is that of the frames.

The library is given the whole grid, so that places in it do not depend on which part is wanted; rows that
nothing falls on take no memory. It is given the frames in tiles that are always the same. So no bit of the
result depends on how the work is divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from stacklib.drizzle.tiles import Scaling, fill_places, fill_samples, reject_samples
from stacklib.errors import IntegrationError
from stacklib.frames.mosaic import Sites
from stacklib.simulate.registration import mapped

__all__ = ["Correction", "Deposit", "Drop", "Grid", "Mask", "Pixels", "deposit", "release", "require_drizzle"]


#: Height and width of the tiles of a frame: multiples of all periods of mosaics.
TILE = (120, 960)
#: Pixels around the grid. The library drops some of what falls on its edge.
MARGIN = 4


class Pixels(Protocol):
    """What a frame is read from, such as `stacklib.frames.frame.Frame`."""

    def read_rows(self, start: int, stop: int, channel: int) -> np.ndarray:
        """Return rows ``start`` to ``stop - 1`` of one channel, float32 (rows, width), NaN for no data."""


class Mask(Protocol):
    """Which samples of a registered frame were rejected."""

    def rejected(self, channel: int, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop - 1`` of the reference geometry, bool (rows, width)."""


class Correction(Protocol):
    """What is done to the samples of a frame before they are normalized."""

    def corrected(self, raw: np.ndarray, places: np.ndarray, channel: int) -> np.ndarray:
        """Return samples, float32 (rows, columns), at places (x, y) in the reference, (rows, columns, 2)."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid on which drops fall.

    Attributes
    ----------
    width, height : int
        Size of the reference in pixels.
    scale : float
        Pixels of the grid along each axis of a pixel of the reference.
    drop : float
        Side of a drop relative to that of a pixel of the frame.
    kernel : str
        One of `stacklib.recipe.drizzle_recipe.KERNELS`: the drop as a square turned with its frame, one along
        the axes of the grid, or a point.
    """

    width: int
    height: int
    scale: float = 1.0
    drop: float = 0.9
    kernel: str = "square"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the grid."""
        return math.ceil(self.height * self.scale), math.ceil(self.width * self.scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drop:
    """A frame to deposit.

    A sample v of a channel becomes ``v * factor + offset``; the arrays are float64 (channels,) for the
    channels of the result.

    Attributes
    ----------
    pixels : Pixels or None
        The frame; None to count samples only: all values are 0.
    height, width : int
        Size of the frame.
    inverse : ndarray of float64, shape (3, 3)
        Homography from the frame to the reference, see `stacklib.drizzle.geometry`.
    factor, offset, weights : ndarray of float64
        Normalization and weight.
    low, high : float
        Samples up to the first and from the second on are no data.
    mask : Mask or None
        Samples that were rejected.
    correction : Correction or None
        What is done to the samples first.
    """

    pixels: Pixels | None
    height: int
    width: int
    inverse: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    low: float = -math.inf
    high: float = math.inf
    mask: Mask | None = None
    correction: Correction | None = None

    @classmethod
    def to_count(cls, height: int, width: int, inverse: np.ndarray, channels: int) -> Drop:
        """Return a frame without values, to count samples."""
        one = np.ones(channels)
        return cls(
            pixels=None, height=height, width=width, inverse=inverse, factor=one, offset=0 * one, weights=one
        )


class Deposit(NamedTuple):
    """A part of the grid: weighted means and sums of weights, float32 (channels, rows, columns)."""

    image: np.ndarray
    weights: np.ndarray


def require_drizzle() -> type:
    """Import the drizzle library, or raise `IntegrationError` if it is not installed."""
    # Late: few runs need it.
    try:
        from drizzle.resample import Drizzle
    except ImportError as error:
        raise IntegrationError(
            "drizzling needs the package drizzle; install it with: pip install drizzle"
        ) from error
    return Drizzle


def deposit(
    drops: Sequence[Drop],
    sites: Sites,
    grid: Grid,
    rows: slice = slice(None),
    columns: slice = slice(None),
    done: Callable[[int], object] = lambda number: None,
    tile: tuple[int, int] | None = None,
) -> Deposit:
    """Deposit frames on a part of the grid.

    Parameters
    ----------
    drops : sequence of Drop
        The frames. Sums are built up in this order.
    sites : Sites
        The colors of their pixels.
    grid : Grid
        The whole grid.
    rows, columns : slice, optional
        Part of the grid. Default is all of it.
    done : callable, optional
        Called with the number of each frame that is deposited.
    tile : tuple of int, optional
        Height and width of the tiles of a frame, multiples of the period of a mosaic. Another size than the
        usual one, `TILE`, changes the last bit.

    Returns
    -------
    Deposit
        The part. The image is 0 where no sample falls, and its weight is 0 there. The values do not depend on
        the part, to the last bit.
    """
    library = require_drizzle()
    height, width = grid.shape
    top, bottom, _ = rows.indices(height)
    left, right, _ = columns.indices(width)
    shape = (sites.channels, height + 2 * MARGIN, width + 2 * MARGIN)
    # Pages of zeros take memory once something falls on them.
    image, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    canvas = [
        library(kernel=grid.kernel, out_img=image[c], out_wht=weights[c], disable_ctx=True)
        for c in range(sites.channels)
    ]
    for number, drop in enumerate(drops):
        for box in _tiles(drop, grid, (top, bottom, left, right), tile or TILE):
            _deposit_tile(canvas, drop, sites, grid, box)
        done(number)
    part = np.s_[:, top + MARGIN : bottom + MARGIN, left + MARGIN : right + MARGIN]
    return Deposit(image[part], weights[part])


def release(drop: Drop) -> None:
    """Release what reading a frame has left in memory or on the disk."""
    close = getattr(drop.pixels, "close", None)
    if close is not None:
        close()


#: First row and row after the last one, first column and column after the last one.
_Box = tuple[int, int, int, int]


def _tiles(drop: Drop, grid: Grid, part: _Box, tile: tuple[int, int]) -> Iterator[_Box]:
    """Yield the tiles of a frame whose drops may fall on a part of the grid, row by row."""
    tops, lefts = np.arange(0, drop.height, tile[0]), np.arange(0, drop.width, tile[1])
    bottoms, rights = np.minimum(tops + tile[0], drop.height), np.minimum(lefts + tile[1], drop.width)
    # A drop is no wider than its pixel; one more pixel is for the interpolation of the library.
    y = np.stack([tops - 1, tops - 1, bottoms + 1, bottoms + 1])[:, :, None]
    x = np.stack([lefts - 1, rights + 1, lefts - 1, rights + 1])[:, None, :]
    u, v = (grid.scale * place for place in mapped(drop.inverse, x.astype(float), y.astype(float)))
    top, bottom, left, right = part
    falls = (v.max(axis=0) > top - 1) & (v.min(axis=0) < bottom + 1)
    falls &= (u.max(axis=0) > left - 1) & (u.min(axis=0) < right + 1)
    for i, j in np.argwhere(falls).tolist():
        yield int(tops[i]), int(bottoms[i]), int(lefts[j]), int(rights[j])


def _deposit_tile(canvas: Sequence, drop: Drop, sites: Sites, grid: Grid, tile: _Box) -> None:
    """Deposit the pixels of a tile, each color of a mosaic as a coarser frame with smaller drops."""
    top, bottom, left, right = tile
    period = sites.period
    # The library interpolates places between neighbors.
    first, last = max(top - period, 0), min(bottom + period, drop.height)
    start, stop = max(left - period, 0), min(right + period, drop.width)
    planes: dict[int, np.ndarray | None] = {}
    for row, column, plane, channel in sites.planes():
        if drop.weights[channel] <= 0:
            continue
        if plane not in planes:
            read = drop.pixels
            planes[plane] = None if read is None else read.read_rows(first, last, plane)[:, start:stop]
        y, x = np.arange(first + row, last, period), np.arange(start + column, stop, period)
        inside_y, inside_x = (
            np.flatnonzero((y >= top) & (y < bottom)),
            np.flatnonzero((x >= left) & (x < right)),
        )
        if not inside_y.size or not inside_x.size or min(y.size, x.size) < 2:
            continue
        places = np.empty((y.size, x.size, 2))
        fill_places(places, drop.inverse, (y[0] + 0.5, x[0] + 0.5), period)
        raw = planes[plane]
        values, weight = _samples(
            drop, channel, None if raw is None else raw[row::period, column::period], places
        )
        magnification = _magnification(drop.inverse, x, y)
        places *= grid.scale
        places += MARGIN - 0.5
        canvas[channel].add_image(
            values,
            exptime=1.0,
            pixmap=places,
            weight_map=weight,
            # The library takes the spacing of what it is given for the side of a pixel, but with the kernel
            # turbo the scale that it is told.
            pixfrac=grid.drop / period if grid.kernel == "square" else grid.drop,
            pixel_scale_ratio=magnification / grid.scale,
            in_units="cps",
            xmin=int(inside_x[0]),
            xmax=int(inside_x[-1]),
            ymin=int(inside_y[0]),
            ymax=int(inside_y[-1]),
        )


def _magnification(inverse: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the pixels of the frame along an axis for each of the reference, in the middle of a tile."""
    column, row = float(x[x.size // 2]), float(y[y.size // 2])
    u, v = mapped(inverse, np.array([column, column + 1, column]), np.array([row, row, row + 1]))
    return 1 / math.sqrt(abs((u[1] - u[0]) * (v[2] - v[0]) - (v[1] - v[0]) * (u[2] - u[0])))


def _samples(
    drop: Drop, channel: int, raw: np.ndarray | None, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalized samples of one color of a tile and their weights, float32."""
    shape = places.shape[:2]
    if raw is None:
        return np.zeros(shape, np.float32), np.full(shape, drop.weights[channel], np.float32)
    values, weights = np.empty(shape, np.float32), np.empty(shape, np.float32)
    if drop.correction is not None:
        with np.errstate(invalid="ignore"):
            data = (raw > drop.low) & (raw < drop.high)
        raw = np.where(data, drop.correction.corrected(raw, places, channel), np.float32(np.nan))
    numbers = (drop.factor[channel], drop.offset[channel], drop.weights[channel])
    # What was corrected may lie beyond the limits of raw samples.
    limits = (drop.low, drop.high) if drop.correction is None else (-math.inf, math.inf)
    fill_samples(raw, Scaling(*limits, *map(float, numbers)), values, weights)
    if drop.mask is not None:
        rows = places[..., 1]
        start, stop = max(int(rows.min()), 0), int(rows.max()) + 1
        if stop > start:
            reject_samples(weights, places, drop.mask.rejected(channel, start, stop), start)
    return values, weights
