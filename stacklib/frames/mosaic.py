"""Color filter mosaics: which pixel records which color, and the colors that it does not record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy

from stacklib.errors import FrameError
from stacklib.frames.differences import mosaic_of
from stacklib.frames.frame import Frame
from stacklib.utils.labels import quoted

__all__ = ["COLORS", "Sites", "debayered", "luminance", "sites_of", "stored_pattern"]

#: Channels of the result of a mosaic. Other filters, such as those of CYGM, have no place in them.
COLORS = "RGB"
#: Periods of mosaics: Bayer, and X-Trans.
PERIODS = (2, 6)


@dataclass(frozen=True)
class Sites:
    """The colors of the pixels of a frame, by their place in a period.

    Attributes
    ----------
    pattern : str
        Letters of the period from the top left of the frame as it is stored, row by row; empty for a frame
        whose channels are colors by themselves.
    channels : int
        Number of channels of the result.
    """

    pattern: str
    channels: int

    @property
    def period(self) -> int:
        """Pixels after which the pattern repeats, 1 for a frame without one."""
        return math.isqrt(len(self.pattern)) or 1

    def planes(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield row and column in the period, channel in the frame and channel in the result."""
        if not self.pattern:
            yield from ((0, 0, channel, channel) for channel in range(self.channels))
            return
        for place, letter in enumerate(self.pattern):
            yield place // self.period, place % self.period, 0, COLORS.index(letter)

    def share(self, channel: int) -> float:
        """Return the fraction of the pixels of a plane that are samples of a channel of the result."""
        return self.pattern.count(COLORS[channel]) / len(self.pattern) if self.pattern else 1.0

    def channel_of(self, height: int, width: int) -> np.ndarray:
        """Return the channel of each pixel of a mosaic, uint8 (height, width)."""
        colors = np.array([COLORS.index(letter) for letter in self.pattern], np.uint8)
        period = colors.reshape(self.period, self.period)
        repeats = -(-height // self.period), -(-width // self.period)
        return np.tile(period, repeats)[:height, :width]


def stored_pattern(text: str, across: int, down: int, rows: int, bottom_up: bool = False) -> str:
    """Return the pattern of a mosaic from the first pixel that is stored.

    Parameters
    ----------
    text : str
        Letters of the period, row by row, as in the header.
    across, down : int
        Offsets of the pattern: the first pixel has the letter in this column and row.
    rows : int
        Number of rows of the image.
    bottom_up : bool
        The first pixel is in the last row that is stored, as Siril reads files whose ROWORDER is BOTTOM-UP.

    Returns
    -------
    str
        As many letters as `text` has, the square of a whole number.
    """
    size = math.isqrt(len(text))
    lines = range(rows - 1 + down, rows - 1 + down - size, -1) if bottom_up else range(down, down + size)
    columns = range(across, across + size)
    return "".join(text[row % size * size + column % size] for row in lines for column in columns)


def sites_of(frame: Frame, pattern: str = "") -> Sites:
    """Return the colors of the pixels of a frame.

    Parameters
    ----------
    frame : Frame
        The frame. With one channel and a color filter pattern in its header it is a mosaic: BAYERPAT with
        XBAYROFF and YBAYROFF, or the ColorFilterArray of XISF. If ROWORDER is BOTTOM-UP the pattern begins
        in the last row that is stored, as Siril reads it.
    pattern : str, optional
        The pattern from the first stored pixel, such as ``RGGB``, in place of that in the header; ``none``
        for a frame that is no mosaic.

    Returns
    -------
    Sites

    Raises
    ------
    FrameError
        If the pattern is not one of red, green and blue.
    """
    given = pattern.strip().upper()
    if given == "NONE" or (frame.channels > 1 and not given):
        return Sites("", frame.channels)
    if given and frame.channels > 1:
        raise FrameError(
            f"{frame.path}: has {frame.channels} channels, so it is no mosaic with the pattern {given}; give "
            "the frames before debayering, or no pattern"
        )
    text, across, down = (given, 0, 0) if given else mosaic_of(frame)
    if not text:
        return Sites("", frame.channels)
    size = math.isqrt(len(text))
    if size * size != len(text) or size not in PERIODS or set(text) - set(COLORS):
        raise FrameError(
            f"{frame.path}: its color filter pattern is {quoted(text)}, expected 4 or 36 letters R, G and B "
            "such as RGGB; give the right one"
        )
    if set(text) != set(COLORS):
        raise FrameError(
            f"{frame.path}: its color filter pattern {quoted(text)} lacks a color; give the right one"
        )
    bottom_up = not given and frame.row_order == "bottom-up"
    return Sites(stored_pattern(text, across, down, frame.height, bottom_up), len(COLORS))


#: Filters of Malvar, He & Cutler (2004) for the colors that a pixel lacks, in eighths: green at red and blue;
#: red at green between reds of its row, and of its column; red at blue and blue at red.
_GREEN = ((0, 0, -1, 0, 0), (0, 0, 2, 0, 0), (-1, 2, 4, 2, -1), (0, 0, 2, 0, 0), (0, 0, -1, 0, 0))
_IN_ROW = ((0, 0, 0.5, 0, 0), (0, -1, 0, -1, 0), (-1, 4, 5, 4, -1), (0, -1, 0, -1, 0), (0, 0, 0.5, 0, 0))
_CROSS = ((0, 0, -1.5, 0, 0), (0, 2, 0, 2, 0), (-1.5, 0, 6, 0, -1.5), (0, 2, 0, 2, 0), (0, 0, -1.5, 0, 0))


def debayered(plane: np.ndarray, sites: Sites, method: str = "bilinear") -> np.ndarray:
    """Interpolate the colors of a mosaic.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        The mosaic. NaN spreads as far as the interpolation reaches.
    sites : Sites
        The colors of its pixels.
    method : {"bilinear", "malvar"}
        Mean of the neighbors of the same color, or that corrected by the slope of the color of the pixel
        (Malvar, He & Cutler 2004), which is sharper; for Bayer patterns only.

    Returns
    -------
    ndarray of float32, shape (3, height, width)
        Pixels keep what they recorded.
    """
    colors = sites.channel_of(*plane.shape)
    kernel = np.array([1.0, 2.0, 1.0]) if sites.period == 2 else np.array([1.0, 2.0, 4.0, 2.0, 1.0])
    near = np.outer(kernel, kernel)
    out = np.empty((sites.channels, *plane.shape), np.float32)
    for channel in range(sites.channels):
        own = colors == channel
        total = scipy.ndimage.convolve(np.where(own, plane, 0).astype(np.float64), near, mode="mirror")
        out[channel] = total / scipy.ndimage.convolve(own.astype(np.float64), near, mode="mirror")
        out[channel][own] = plane[own]
    if method == "malvar":
        _correct_by_slope(out, plane.astype(np.float64), colors)
    return out


def _correct_by_slope(out: np.ndarray, plane: np.ndarray, colors: np.ndarray) -> None:
    green, in_row, cross = (
        scipy.ndimage.convolve(plane, np.array(kernel) / 8, mode="mirror")
        for kernel in (_GREEN, _IN_ROW, _CROSS)
    )
    in_column = scipy.ndimage.convolve(plane, np.array(_IN_ROW).T / 8, mode="mirror")
    is_green = colors == 1
    out[1][~is_green] = green[~is_green]
    for channel in (0, 2):
        # A green pixel has the other color beside it either in its row or in its column.
        own = colors == channel
        beside = np.zeros_like(own)
        beside[:, 1:] |= own[:, :-1]
        beside[:, :-1] |= own[:, 1:]
        for where, values in ((is_green & beside, in_row), (is_green & ~beside, in_column)):
            out[channel][where] = values[where]
        other = ~is_green & ~own
        out[channel][other] = cross[other]


def luminance(plane: np.ndarray, sites: Sites) -> np.ndarray:
    """Return a gray image of a mosaic, for finding stars: means of squares of one period.

    The level of each color is taken off first, so that an even sky leaves no pattern.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        The mosaic. NaN spreads over a period.
    sites : Sites
        The colors of its pixels.

    Returns
    -------
    ndarray of float32, shape (height - period + 1, width - period + 1)
        Pixel (i, j) is the mean of the square from (i, j) on, so its center lies ``(period - 1) / 2`` pixels
        farther down and to the right than that of pixel (i, j) of the mosaic.
    """
    flat = np.array(plane, np.float64)
    colors = sites.channel_of(*plane.shape)
    for channel in range(sites.channels):
        own = colors == channel
        values = flat[own]
        good = np.isfinite(values)
        if good.any():
            flat[own] = values - np.median(values[good])
    size = sites.period
    for axis in (0, 1):
        count = flat.shape[axis] - size + 1
        flat = np.mean([flat.take(range(start, start + count), axis) for start in range(size)], axis=0)
    return flat.astype(np.float32)
