"""Stretch linear images for the screen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.frames.frame_set import Frame

__all__ = [
    "BACKGROUND",
    "BLACK_SIGMAS",
    "Levels",
    "Limits",
    "binned",
    "levels_of",
    "midtones",
    "read_binned",
    "sampling",
    "screen_limits",
    "stretch",
]

#: The sky background of a stretched picture, and how many robust sigmas below it is black.
BACKGROUND, BLACK_SIGMAS = 0.15, 2.8
#: Largest number of samples per channel from which the stretch is computed.
LIMIT_SAMPLES = 1 << 20
#: Pictures with more columns than this are binned for the screen.
SCREEN_WIDTH = 1200
#: Rows of a frame that are read at once to be binned.
STRIP = 512


class Limits(NamedTuple):
    """A screen stretch: a black point per channel, and one span and midtones balance for all channels."""

    black: tuple[float, ...]
    span: float
    midtones: float


class Levels(NamedTuple):
    """Levels of each channel, in its units: median, 1.4826 MAD, minimum and maximum."""

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    low: tuple[float, ...]
    top: tuple[float, ...]


def levels_of(samples: np.ndarray) -> Levels:
    """Measure the levels of samples (channels, height, width); NaN, infinities and exactly 0 are no data.

    A channel without data has levels of 0.
    """
    found = []
    for plane in samples:
        known = plane[np.isfinite(plane) & (plane != 0)]
        if not known.size:
            known = np.zeros(1, np.float32)
        centre = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - centre)))
        found.append((centre, spread, float(known.min()), float(known.max())))
    return Levels(*zip(*found, strict=True))


def screen_limits(image: np.ndarray) -> Limits:
    """Compute a stretch that shows faint structure, from the median and MAD of each channel.

    The image has the shape (channels, height, width) or (height, width); NaN and exactly 0 mean no data.
    Black is 2.8 x 1.4826 MAD below the median of each channel, so that the sky is gray. Span and midtones are
    linked: they follow from the mean MAD, which keeps the colors of stars and nebulae. The median is shown at
    0.15 of full brightness. White is 1, or the maximum of an image that goes beyond 1.
    """
    planes = image[np.newaxis] if image.ndim == 2 else image
    step = sampling(planes)
    levels = levels_of(planes[:, ::step, ::step])
    # Only a channel without data reaches no value but 0.
    if (0.0, 0.0) in zip(levels.low, levels.top, strict=True):
        return Limits((0.0,) * len(planes), 1.0, 0.5)
    sky = BLACK_SIGMAS * float(np.mean(levels.spread))
    black = tuple(centre - sky for centre in levels.centre)
    # A flat image at the very top has no span.
    span = max(1.0, *levels.top) - min(black) or 1.0
    return Limits(black, span, midtones(BACKGROUND, sky / span) if 0 < sky < span else 0.5)


def sampling(planes: np.ndarray) -> int:
    """Return the step between rows and columns that leaves about `LIMIT_SAMPLES` samples of each channel."""
    return max(1, round((planes[0].size / LIMIT_SAMPLES) ** 0.5))


def stretch(image: np.ndarray, limits: Limits | None = None) -> np.ndarray:
    """Stretch an image for the screen with a midtones transfer function above a black point.

    With ``x = (value - black) / span``, clipped to 0..1, and the midtones balance m, the stretched value is
    ``(m - 1) x / ((2 m - 1) x - m)``, which maps 0 to 0, m to 1/2 and 1 to 1. No file is written with it.

    The image has the shape (channels, height, width) or (height, width). NaN and exactly 0 (no data) become
    black. Limits are by default `screen_limits` of this image. Return float32 from 0 to 1, ready for
    ``imshow``: (height, width, 3) for three channels, otherwise (height, width) of the first channel.
    """
    planes = image[np.newaxis] if image.ndim == 2 else image
    black, span, m = screen_limits(planes) if limits is None else limits
    x = (planes - np.float32(black)[:, np.newaxis, np.newaxis]) / np.float32(span)
    x = np.where(np.isnan(planes) | (planes == 0), np.float32(0), np.clip(x, 0, 1))
    shown = midtones(np.float32(m), x).astype(np.float32, copy=False)
    return np.moveaxis(shown, 0, -1) if len(planes) == 3 else shown[0]


def midtones(m, x):
    """Apply the midtones transfer function with the balance m to values x from 0 to 1."""
    return (m - 1) * x / ((2 * m - 1) * x - m)


def binned(image: np.ndarray, width: int = SCREEN_WIDTH) -> tuple[np.ndarray, int]:
    """Bin an image to at most `width` columns; return the means of the bins and the side of a bin."""
    side = -(-image.shape[-1] // width)
    if side == 1:
        return image, 1
    rows, columns = (size // side for size in image.shape[-2:])
    small = np.empty((len(image), rows, columns), np.float32)
    # In strips, because large images leave no memory for copies.
    step = max(1, STRIP // side)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        strip = image[:, start * side : stop * side, : columns * side]
        small[:, start:stop] = _bins(strip, side)
    return small, side


def _bins(strip: np.ndarray, side: int) -> np.ndarray:
    channels, height, width = strip.shape
    blocks = strip.reshape(channels, height // side, side, width // side, side)
    return blocks.mean(axis=(2, 4), dtype=np.float32)


def read_binned(frame: Frame, side: int, region: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Read a frame, or a region of it, in bins of `side` pixels each way, in strips: it may be large.

    The region is (left, top, width, height). Return float32 of shape (channels, height, width).
    """
    left, top, width, height = region or (0, 0, frame.width, frame.height)
    rows, columns = height // side, width // side
    small = np.empty((frame.channels, rows, columns), np.float32)
    step = max(1, STRIP // side)
    for channel in range(frame.channels):
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            strip = frame.read_rows(top + start * side, top + stop * side, channel)
            small[channel, start:stop] = _bins(strip[np.newaxis, :, left : left + columns * side], side)[0]
    return small
