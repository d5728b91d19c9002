"""Smooth surfaces over the field: how the background of a frame differs from that of the others.

A surface is a bicubic spline on a few cells. It contains every polynomial up to the third degree, so that
constants, planes and quadratics are surfaces of the same kind, and all of them add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stacklib.measurement.border import DataRange
from stacklib.utils.compiled import compiled

__all__ = ["CorrectedRange", "Surfaces", "basis"]

#: Cells of the spline along each axis. It follows nothing smaller than a third of the field.
CELLS = 3
#: Coefficients along each axis.
SIZE = CELLS + 3


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Corrections of the samples of all frames, in the units of the frames.

    A sample x at the pixel p becomes ``x * gain(p) + offset(p)``. `offset` and `gain` have the coefficients,
    float64 of shape (frames, channels, period, period, SIZE, SIZE). The period is 1, or that of the color
    filter pattern, whose pixels have surfaces of their own. `gain` is None for 1. Samples at and beyond the
    `limits` are no data or saturated, and stay as they are.
    """

    height: int
    width: int
    offset: np.ndarray
    gain: np.ndarray | None = None
    limits: tuple[float, float] = (-np.inf, np.inf)

    def correct(self, i: int, channel: int, rows: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """Correct a part of a frame in place.

        The correction of a sample depends on its place in the image only, to the last bit.

        Parameters
        ----------
        i, channel : int
            Index of the frame and channel.
        rows : ndarray of float32, shape (height, width)
            Samples in the units of the frames, NaN or `stacklib.measurement.border.NOTHING` for no data.
        top, left : int
            Place of the part in the image.

        Returns
        -------
        ndarray of float32
            `rows`.
        """
        offset = self.offset[i, channel]
        gain = np.empty((0, 0, 0, 0)) if self.gain is None else self.gain[i, channel]
        if offset.any() or gain.size:
            height, width = rows.shape
            down = basis(np.arange(top, top + height), self.height)
            across = basis(np.arange(left, left + width), self.width)
            limits = np.array(self.limits, np.float32)
            _correct(rows, top, left, down, across, offset, gain, limits)
        return rows

    def at(self, i: int, channel: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return what is added to the samples of a frame in some rows and columns, for figures.

        For a mosaic it is the mean over the colors.

        Parameters
        ----------
        i, channel : int
            Index of the frame and channel.
        y, x : ndarray of float
            Rows and columns.

        Returns
        -------
        ndarray of float64, shape (rows, columns)
        """
        coefficients = self.offset[i, channel].mean(axis=(0, 1))
        return basis(y, self.height) @ coefficients @ basis(x, self.width).T


@dataclass(frozen=True, eq=False)
class CorrectedRange:
    """Which samples are no data, and how the others are corrected: what is done to samples as they are read.

    `data_range` is None if a limit on the values alone tells which samples are no data.
    """

    data_range: DataRange | None
    surfaces: Surfaces

    def mark(self, frame: int, channel: int, rows: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """Mark the samples without data of a part of a frame and correct the others, in place.

        See `stacklib.measurement.border.DataRange.mark` and `Surfaces.correct`.
        """
        if self.data_range is not None:
            self.data_range.mark(frame, channel, rows, top, left)
        return self.surfaces.correct(frame, channel, rows, top, left)


def basis(places: np.ndarray, size: int) -> np.ndarray:
    """Return the uniform cubic B-splines at some pixels along an axis of `size` pixels.

    Parameters
    ----------
    places : ndarray of float
        Positions of pixels, 0 for the middle of the first one.
    size : int
        Number of pixels along the axis.

    Returns
    -------
    ndarray of float64, shape (pixels, SIZE)
        Four of the splines are not 0 in a pixel. They add up to 1.
    """
    t = (np.asarray(places, np.float64) + 0.5) * (CELLS / size)
    # The splines have their middles at -1, 0, ... CELLS + 1.
    away = np.abs(t[:, None] - np.arange(-1, CELLS + 2))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.maximum(2 - away, 0) ** 3 / 6
    return np.where(away < 1, near, far)


@compiled
def _correct(rows, top, left, down, across, offset, gain, limits):
    """Set ``x * gain + offset`` in place for the samples between the limits."""
    height, width = rows.shape
    period, size = offset.shape[0], across.shape[1]
    has_gain = gain.size > 0
    own_offset, own_gain = np.empty((period, size)), np.ones((period, size))
    most = np.nextafter(limits[1], np.float32(-np.inf))
    for r in range(height):
        phase = (top + r) % period
        # The spline of this row, a curve for each column of the pattern.
        for c in range(period):
            for k in range(size):
                own_offset[c, k] = 0.0
                for j in range(size):
                    own_offset[c, k] += down[r, j] * offset[phase, c, j, k]
                if has_gain:
                    own_gain[c, k] = 0.0
                    for j in range(size):
                        own_gain[c, k] += down[r, j] * gain[phase, c, j, k]
        for q in range(width):
            x = rows[r, q]
            if limits[0] < x < limits[1]:
                c = (left + q) % period
                value = float(x)
                if has_gain:
                    g = 0.0
                    for k in range(size):
                        g += across[q, k] * own_gain[c, k]
                    value *= g
                for k in range(size):
                    value += across[q, k] * own_offset[c, k]
                rows[r, q] = min(np.float32(value), most)
