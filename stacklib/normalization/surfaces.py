"""Smooth surfaces over the field: how the background of a frame differs from that of the others.

A surface is a bicubic spline on a few cells. It contains every polynomial up to the third degree, so that
constants, planes and quadratics are surfaces of the same kind, and all of them add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stacklib.measurement.border import DataRange
from stacklib.utils.compiled import compiled
from stacklib.utils.ranks import median_of

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
#: Number of samples of a block from which its median is taken, and of sums that are made at the same time.
SOME, SUMS = 400, 64
#: Number of blocks for each coefficient of a surface.
BLOCKS_EACH = 4
#: Blocks along the side of a square that is left out together in the cross-validation. Structure of that size
#: is not predicted by the others, and does not ask for a finer surface.
LEFT_OUT = 3
#: Number of parts into which the squares are divided.
FOLDS = 12
#: Added to the diagonal of normal equations, relative to its mean.
RIDGE = 1e-6
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

    def correct(
        self, i: int, channel: int, rows: np.ndarray, top: int = 0, left: int = 0, step: int = 1
    ) -> np.ndarray:
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
        step : int
            Distance of the rows in the image.

        Returns
        -------
        ndarray of float32
            `rows`.
        """
        offset = self.offset[i, channel]
        gain = np.empty((0, 0, 0, 0)) if self.gain is None else self.gain[i, channel]
        if offset.any() or gain.size:
            height, width = rows.shape
            # Copies, which are contiguous whatever the part, so that one function is compiled for all.
            down = _along(self.height)[:, top : top + height * step : step].copy()
            across = _along(self.width)[:, left : left + width].copy()
            limits = np.array(self.limits, np.float32)
            _correct(rows, (top, left, step), down, across, offset, gain, limits)
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


@lru_cache(maxsize=8)
def _along(size: int) -> np.ndarray:
    """Return the splines at all pixels along an axis, float64 (SIZE, pixels)."""
    splines = np.ascontiguousarray(basis(np.arange(size), size).T)
    splines.flags.writeable = False
    return splines


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


def block_levels(
    plane: np.ndarray, structure: np.ndarray, side: int, other: np.ndarray | None = None, factor: float = 1.0
) -> Blocks:
    """Measure the level of a plane in blocks: the mean of what is within 3 sigma of the median.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        An image. NaN means no data.
    structure : ndarray of bool, shape (height, width)
        Pixels to leave out, such as stars.
    side : int
        Side of a block in pixels.
    other : ndarray of float32, shape (height, width), optional
        Measure ``other - plane * factor`` instead.
    factor : float
        Factor of the plane.

    Returns
    -------
    Blocks
        Without the blocks that have too few data.
    """
    rows, columns = -(-plane.shape[0] // side), -(-plane.shape[1] // side)
    found = np.empty((4, rows * columns))
    _measure_blocks(plane, other, np.float32(factor), structure, side, columns, found)
    return Blocks(*found[:, found[3] >= LEAST * side**2], side)


@compiled
def _measure_blocks(plane, other, factor, structure, side, columns, found):
    height, width = plane.shape
    values, some = np.empty(side * side, np.float32), np.empty(side * side, np.float32)
    for block in range(found.shape[1]):
        top, left = block // columns * side, block % columns * side
        rows, across = min(side, height - top), min(side, width - left)
        own = values[: rows * across]
        if other is None:
            _fill_block(plane, structure, (top, left), across, own)
        else:
            _fill_difference(other, plane, factor, structure, (top, left), across, own)
        count, y, x = _count_block(own, across)
        found[3, block] = count
        if count == 0:
            continue
        # Some of the samples tell well enough what is to be clipped.
        size, step = 0, max(1, count // SOME)
        for i in range(0, own.size, step):
            some[size] = own[i]
            size += own[i] == own[i]
        if size == 0:
            found[3, block] = 0
            continue
        middle = np.float32(median_of(some[:size]))
        for i in range(size):
            some[i] = abs(some[i] - middle)
        limit = 3 * 1.4826 * median_of(some[:size])
        total, kept = _sum_within(own, middle, limit)
        found[0, block] = top + y / count
        found[1, block] = left + x / count
        found[2, block] = total / kept if kept > 0 else middle


@compiled
def _fill_block(plane, structure, place, across, out):
    """Copy a block, with NaN for structure, so many samples a row."""
    top, left = place
    for r in range(out.size // across):
        here, there = plane[top + r, left : left + across], structure[top + r, left : left + across]
        own = out[r * across : (r + 1) * across]
        for c in range(across):
            own[c] = np.float32(np.nan) if there[c] else here[c]


@compiled
def _fill_difference(other, plane, factor, structure, place, across, out):
    """Compute ``other - plane * factor`` in a block, with NaN for structure."""
    top, left = place
    for r in range(out.size // across):
        here, there = plane[top + r, left : left + across], structure[top + r, left : left + across]
        own, against = out[r * across : (r + 1) * across], other[top + r, left : left + across]
        for c in range(across):
            value = against[c] - here[c] * factor
            own[c] = np.float32(np.nan) if there[c] else value


@compiled
def _count_block(values, across):
    """Count the values of a block other than NaN, and sum their rows and columns."""
    by_column = np.zeros(across, np.int32)
    count, y, x = 0, 0, 0
    # Short loops with small counters, each of which fits into vectors.
    for r in range(values.size // across):
        own, in_row = values[r * across : (r + 1) * across], np.int32(0)
        for c in range(across):
            in_row = np.int32(in_row + np.int32(own[c] == own[c]))
        count += in_row
        y += in_row * r
        for c in range(across):
            by_column[c] = np.int32(by_column[c] + np.int32(own[c] == own[c]))
    for c in range(across):
        x += by_column[c] * c
    return count, y, x


@compiled
def _sum_within(values, middle, limit):
    """Return sum and number of the values near the middle, without NaN.

    Many sums at a time need not wait for each other.
    """
    total, kept = np.zeros(SUMS), np.zeros(SUMS, np.int32)
    rest = values.size // SUMS * SUMS
    for start in range(0, rest, SUMS):
        part = values[start : start + SUMS]
        for k in range(SUMS):
            near = np.float64(abs(part[k] - middle)) <= limit
            total[k] += np.float64(part[k]) if near else 0.0
            kept[k] = np.int32(kept[k] + np.int32(near))
    for value in values[rest:]:
        if np.float64(abs(value - middle)) <= limit:
            total[0] += value
            kept[0] += 1
    return total.sum(), kept.sum()


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


@compiled
def _robust_fit(design, level, weights):
    """Return the coefficients of a fit and the weights of the blocks in it."""
    blocks, terms = design.shape
    own, away = weights.copy(), np.empty(blocks)
    for _ in range(6):
        square, right = np.zeros((terms, terms)), np.zeros(terms)
        for i in range(blocks):
            _add_block(design[i], level[i], own[i], square, right)
        solution = _solve(square, right, RIDGE * _trace(square) / terms)
        for i in range(blocks):
            away[i] = abs(level[i] - _dot(design[i], solution)) * math.sqrt(weights[i])
        scale = 4.685 * 1.4826 * np.median(away)
        if scale == 0:
            break
        for i in range(blocks):
            own[i] = weights[i] * max(1 - (away[i] / scale) ** 2, 0.0) ** 2
    return solution, own


@compiled
def _left_out_errors(design, level, weights, square):
    """Return the squared error of each block, predicted without its square, of which there are `FOLDS`."""
    blocks, terms = design.shape
    parts, rights = np.zeros((FOLDS, terms, terms)), np.zeros((FOLDS, terms))
    for i in range(blocks):
        _add_block(design[i], level[i], weights[i], parts[square[i]], rights[square[i]])
    whole, right = np.zeros((terms, terms)), np.zeros(terms)
    for number in range(FOLDS):
        for j in range(terms):
            right[j] += rights[number, j]
            for k in range(terms):
                whole[j, k] += parts[number, j, k]
    ridge = RIDGE * _trace(whole) / terms
    for number in range(FOLDS):
        others, own = parts[number], rights[number]
        for j in range(terms):
            own[j] = right[j] - own[j]
            for k in range(terms):
                others[j, k] = whole[j, k] - others[j, k]
        _solve(others, own, ridge)
    errors = np.empty(blocks)
    for i in range(blocks):
        errors[i] = (level[i] - _dot(design[i], rights[square[i]])) ** 2
    return errors


@compiled
def _trace(square):
    total = 0.0
    for j in range(square.shape[0]):
        total += square[j, j]
    return total


@compiled
def _dot(one, other):
    total = 0.0
    for j in range(one.size):
        total += one[j] * other[j]
    return total


@compiled
def _add_block(terms, level, weight, square, right):
    """Add a block to the normal equations, of which the lower half counts."""
    for j in range(terms.size):
        own = weight * terms[j]
        right[j] += own * level
        row = square[j, : j + 1]
        for k in range(j + 1):
            row[k] += own * terms[k]


@compiled
def _solve(square, right, ridge):
    """Solve normal equations by Cholesky's method, in place.

    `ridge` is added to the diagonal: where there are no blocks, the surface is as small as possible.
    """
    terms = right.size
    for j in range(terms):
        square[j, j] += ridge
        for k in range(j):
            square[j, k] = (square[j, k] - _dot(square[j, :k], square[k, :k])) / square[k, k]
        square[j, j] = math.sqrt(square[j, j] - _dot(square[j, :j], square[j, :j]))
        right[j] = (right[j] - _dot(square[j, :j], right[:j])) / square[j, j]
    for j in range(terms - 1, -1, -1):
        for k in range(j + 1, terms):
            right[j] -= square[k, j] * right[k]
        right[j] /= square[j, j]
    return right


@compiled
def _add_curve(splines, parts, coefficients, first, period, out):
    """Add the sum of some splines to every `period`-th value from `first` on, in the order of the splines."""
    for k in range(splines.shape[0]):
        start, stop, factor = parts[k, 0], parts[k, 1], coefficients[k]
        if period == 1:
            # Views: their places are known not to be negative, so that these loops are fast.
            own, some = splines[k, start:stop], out[start:stop]
            for q in range(own.size):
                some[q] += own[q] * factor
        else:
            for q in range(start + (first - start) % period, stop, period):
                out[q] += splines[k, q] * factor


@compiled
def _correct(rows, place, down, across, offset, gain, limits):
    """Set ``x * gain + offset`` in place for the samples between the limits."""
    height, width = rows.shape
    top, left, step = place
    period, size = offset.shape[0], across.shape[0]
    has_gain = gain.size > 0
    low, high = limits[0], limits[1]
    most = np.nextafter(high, np.float32(-np.inf))
    values, factors, own = np.empty(width), np.empty(width), np.empty(size)
    parts = np.zeros((size, 2), np.int64)
    for k in range(size):
        # Each spline is 0 in most places.
        there = np.flatnonzero(across[k])
        if there.size > 0:
            parts[k, 0], parts[k, 1] = there[0], there[-1] + 1
    for r in range(height):
        phase = (top + r * step) % period
        line = rows[r]
        for q in range(width):
            values[q] = line[q]
        if has_gain:
            factors[:] = 0.0
            for c in range(period):
                for k in range(size):
                    own[k] = 0.0
                    for j in range(size):
                        own[k] += down[j, r] * gain[phase, c, j, k]
                _add_curve(across, parts, own, (c - left) % period, period, factors)
            for q in range(width):
                values[q] *= factors[q]
        for c in range(period):
            # The spline of this row, a curve for each column of the pattern.
            for k in range(size):
                own[k] = 0.0
                for j in range(size):
                    own[k] += down[j, r] * offset[phase, c, j, k]
            _add_curve(across, parts, own, (c - left) % period, period, values)
        for q in range(width):
            x, value = line[q], np.float32(values[q])
            value = value if value < most else most
            line[q] = value if (x > low) & (x < high) else x
