"""Smooth surfaces over the field: how the background of a frame differs from that of the others.

A surface is a bicubic spline on a few cells. It contains every polynomial up to the third degree, so that
constants, planes and quadratics are surfaces of the same kind, and all of them add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stacklib.measurement.border import DataRange
from stacklib.utils.compiled import compiled

__all__ = [
    "Blocks",
    "CorrectedRange",
    "Surfaces",
    "basis",
    "block_levels",
    "block_side",
    "fit_surface",
]

#: Cells of the spline along each axis. It follows nothing smaller than a third of the field.
CELLS = 3
#: Coefficients along each axis.
SIZE = CELLS + 3
#: Side of a block in pixels, and fraction of a block that must have data outside structure.
BLOCKS, LEAST = (32, 64), 0.2
#: Number of samples of a block from which its median is taken.
SOME = 400
#: Number of blocks for each coefficient of a surface.
BLOCKS_EACH = 4
#: Blocks along the side of a square that is left out together in the cross-validation. Structure of that size
#: is not predicted by the others, and does not ask for a finer surface.
LEFT_OUT = 3
#: Number of parts into which the squares are divided.
FOLDS = 12
#: A finer surface must be better by this many standard errors, and by this fraction of the variance.
BETTER, MUCH_BETTER = 2.0, 0.02


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

    def same_as(self, other: CorrectedRange) -> bool:
        """Whether the other one does the same."""
        one, two = self.surfaces, other.surfaces
        gains = one.gain is two.gain or (
            one.gain is not None and two.gain is not None and np.array_equal(one.gain, two.gain)
        )
        return (
            self.data_range is other.data_range
            and gains
            and one.limits == two.limits
            and np.array_equal(one.offset, two.offset)
        )


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


class Blocks(NamedTuple):
    """Levels of blocks of a plane: centers in pixels, level and weight, float64 (blocks,).

    `side` is the side of a block in pixels. The weight is the number of pixels.
    """

    y: np.ndarray
    x: np.ndarray
    level: np.ndarray
    weight: np.ndarray
    side: float


def block_side(height: int, width: int) -> int:
    """Return the side of the blocks of a plane, in pixels: so small that there are enough of them."""
    few, many = BLOCKS
    return many if height * width >= 500 * many**2 else few if min(height, width) >= 4 * few else few // 2


def block_levels(plane: np.ndarray, structure: np.ndarray, side: int) -> Blocks:
    """Measure the level of a plane in blocks: the mean of what is within 3 sigma of the median.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        Usually the difference between two images. NaN means no data.
    structure : ndarray of bool, shape (height, width)
        Pixels to leave out, such as stars.
    side : int
        Side of a block in pixels.

    Returns
    -------
    Blocks
        Without the blocks that have too few data.
    """
    rows, columns = -(-plane.shape[0] // side), -(-plane.shape[1] // side)
    found = np.empty((4, rows * columns))
    _measure_blocks(plane, structure, side, columns, found)
    return Blocks(*found[:, found[3] >= LEAST * side**2], side)


@compiled
def _measure_blocks(plane, structure, side, columns, found):
    height, width = plane.shape
    values = np.empty(side * side, np.float32)
    for block in range(found.shape[1]):
        top, left = block // columns * side, block % columns * side
        count, y, x = 0, 0.0, 0.0
        for r in range(top, min(top + side, height)):
            for c in range(left, min(left + side, width)):
                value = plane[r, c]
                if value == value and not structure[r, c]:
                    values[count] = value
                    count += 1
                    y += r
                    x += c
        found[3, block] = count
        if count == 0:
            continue
        here = values[:count]
        # Some of the samples tell well enough what is to be clipped.
        some = here[:: max(1, count // SOME)]
        middle = np.median(some)
        limit = 3 * 1.4826 * np.median(np.abs(some - middle))
        total, kept = 0.0, 0
        for value in here:
            if abs(value - middle) <= limit:
                total += value
                kept += 1
        found[0, block] = y / count
        found[1, block] = x / count
        found[2, block] = total / kept if kept > 0 else middle


@lru_cache(maxsize=1)
def _polynomials() -> tuple[np.ndarray, ...]:
    """Return the coefficients of constant, plane, quadratic and any surface, each (SIZE * SIZE, terms)."""
    places = np.linspace(-0.5, 99.5, 50)
    u = 2 * (places + 0.5) / 100 - 1
    powers = np.linalg.lstsq(basis(places, 100), np.stack([u**0, u, u**2], axis=1), rcond=None)[0]
    kinds = []
    for degree in range(3):
        terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        kinds.append(np.stack([np.outer(powers[:, i], powers[:, j]).ravel() for i, j in terms], axis=1))
    return (*kinds, np.eye(SIZE**2))


def fit_surface(blocks: Blocks, height: int, width: int, finest: int = 3) -> tuple[np.ndarray, int] | None:
    """Fit a smooth surface to the levels of blocks: constant, plane, quadratic or bicubic spline.

    The kind is the simplest one that predicts blocks that were left out, in squares, about as well as the
    best. Outlying blocks are down-weighted (Tukey's biweight).

    Parameters
    ----------
    blocks : Blocks
        Levels, with positions in the image.
    height, width : int
        Shape of the image.
    finest : int
        Finest kind that is tried.

    Returns
    -------
    coefficients : ndarray of float64, shape (SIZE, SIZE)
        Coefficients for `basis` along y and x.
    kind : int
        Degree 0, 1 or 2 of a polynomial, 3 for the spline.

    Or None if there is no block.
    """
    if not blocks.level.size:
        return None
    splines = (basis(blocks.y, height)[:, :, None] * basis(blocks.x, width)[:, None, :]).reshape(-1, SIZE**2)
    kinds = [k for k in _polynomials()[: finest + 1] if blocks.level.size >= BLOCKS_EACH * k.shape[1]] or [
        _polynomials()[0]
    ]
    # All kinds are judged by the same blocks.
    middle = float(np.median(blocks.level))
    weights = blocks.weight / blocks.weight.max()
    designs = [splines @ kind for kind in kinds]
    fits = [_robust_fit(design, blocks.level - middle, weights) for design in designs]
    judged = fits[-1][1] > 0
    side = LEFT_OUT * blocks.side
    square = (5 * (blocks.y // side).astype(int) + (blocks.x // side).astype(int)) % FOLDS
    errors = [
        _left_out_errors(d, blocks.level - middle, fit[1], square)[judged]
        for d, fit in zip(designs, fits, strict=True)
    ]
    chosen = 0
    for finer in range(1, len(kinds)):
        gain = weights[judged] * (errors[chosen] - errors[finer])
        error = gain.std() / np.sqrt(gain.size)
        if gain.mean() > BETTER * error and gain.sum() > MUCH_BETTER * np.sum(
            weights[judged] * errors[chosen]
        ):
            chosen = finer
    coefficients = (kinds[chosen] @ fits[chosen][0]).reshape(SIZE, SIZE) + middle
    return coefficients, int(chosen)


def _robust_fit(design: np.ndarray, level: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of a fit and the weights of the blocks in it."""
    own = weights
    for _ in range(6):
        solution = _solve(design, level, own)
        away = np.abs(level - design @ solution) * np.sqrt(weights)
        scale = 4.685 * 1.4826 * float(np.median(away))
        if scale == 0:
            break
        own = weights * np.maximum(1 - (away / scale) ** 2, 0) ** 2
    return solution, own


def _solve(design: np.ndarray, level: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Solve least squares. Where there are no blocks, the surface is as small as possible."""
    square = design.T @ (weights[:, None] * design)
    square[np.diag_indices_from(square)] += 1e-6 * np.trace(square) / len(square)
    return np.linalg.solve(square, design.T @ (weights * level))


def _left_out_errors(
    design: np.ndarray, level: np.ndarray, weights: np.ndarray, square: np.ndarray
) -> np.ndarray:
    """Return the squared error of each block, predicted without its square."""
    errors = np.empty(level.size)
    whole, right = design.T @ (weights[:, None] * design), design.T @ (weights * level)
    ridge = 1e-6 * np.trace(whole) / len(whole) * np.eye(len(whole))
    for number in np.unique(square):
        out = square == number
        part = design[out]
        without = whole - part.T @ (weights[out, None] * part) + ridge
        solution = np.linalg.solve(without, right - part.T @ (weights[out] * level[out]))
        errors[out] = (level[out] - part @ solution) ** 2
    return errors


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
