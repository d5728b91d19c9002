"""Noise of a residual at the scale that matters, and in its pixels.

Interpolation (registration) averages neighboring pixels: it hides noise in single pixels and leaves noise at
larger scales as it was. So weights go by the noise in the third layer of the à trous transform with the B3
spline (Starck and Murtagh 1998, PASP 110, 193), at about 8 pixels. It is measured on a residual, a frame
minus the stack of its night: in a frame itself, faint stars and nebulae would count as noise there.
"""

from __future__ import annotations

import functools
import math
from typing import Protocol

import numpy as np

from stacklib.utils.compiled import compiled, sum_of
from stacklib.utils.ranks import median_of

__all__ = ["APERTURES", "Plane", "aperture_noise", "pixel_noise", "scale_noise"]

#: Sides of the square apertures in which noise is measured, in pixels.
APERTURES = (1, 2, 4, 8, 16)
#: A block needs this fraction of pixels with data.
FILLED = 0.9

#: The layer is measured in every fourth pixel: from the second to the third layer, the spline has its taps
#: there.
STEP = 4
#: Number of pixels of a plane that are measured, in strips of this many rows spread over it: about 15000
#: independent samples of the layer, which give its noise within .6 %.
PIXELS, STRIP = 1 << 20, 256
#: Number of pixels, in single rows, for the noise of pixels: it comes out within .15 %.
SINGLE = 1 << 18
#: A point is used if at least this fraction of the variance of its layer comes from pixels with data.
CLEAN = 0.5
#: Smallest number of points to measure on. Below it, structure is not left out.
ENOUGH = 300
#: Smallest number of blocks to fit a surface to.
ENOUGH_BLOCKS = 60
#: Outliers are clipped beyond this many sigma; standard deviation of a unit Gaussian that is cut there.
CLIP, CUT_AT_3 = 3.0, 0.98658
#: Sums use this many interleaved accumulators.
LANES = 64


class Plane(Protocol):
    """A plane whose rows are asked for by a slice; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return some rows, float32."""


def _with_holes(step: int) -> np.ndarray:
    kernel = np.zeros(4 * step + 1)
    kernel[::step] = np.array([1, 4, 6, 4, 1]) / 16
    return kernel


_SPLINE = _with_holes(1)
#: Smoothing of the plane up to the second layer, 13 taps, and to the third, 29 taps, of which `_PADDED` has
#: as many.
_SECOND = np.convolve(_SPLINE, _with_holes(2))
_THIRD = np.convolve(_SECOND, _with_holes(4))
_PADDED = np.pad(_SECOND, (_THIRD.size - _SECOND.size) // 2)
#: The filter of the layer is k2 x k2 - k3 x k3, and its square is the sum of these products of 1-D kernels.
_SQUARED = ((1, _PADDED**2), (-2, _PADDED * _THIRD), (1, _THIRD**2))
#: Variance of the layer of white noise of sigma 1, .0855 squared.
_VARIANCE = sum(sign * float(kernel.sum()) ** 2 for sign, kernel in _SQUARED)
#: Mean over 9 points, to find the level around a point.
_AROUND = np.ones(9)


def scale_noise(residual: Plane, structure: np.ndarray | None = None) -> float:
    """Measure the noise of a residual in the third layer of the B3 transform.

    The layer is ``c2 - c3``, where c_j is the plane smoothed by the spline j times. Its standard deviation,
    clipped at 3 sigma, is divided by that of white noise of sigma 1. For white noise the result is the
    standard deviation of a pixel; for interpolated noise it is that of the noise before interpolation, within
    2 % (3 % for bilinear interpolation halfway between pixels). If the frame is part of the stack that was
    subtracted, with the share ``w / sum w``, divide the result by ``sqrt(1 - w / sum w)``.

    Parameters
    ----------
    residual : ndarray of float32, shape (height, width), or Plane
        Frame minus stack, in any unit. NaN means no data. Only some of the rows are used.
    structure : ndarray of bool, shape (height, width), optional
        True for pixels to leave out, such as stars. Beside them, and beside pixels without data, the layer
        comes from fewer pixels, which is allowed for. If too little would be left, structure is measured
        as well.

    Returns
    -------
    float
        Noise of a pixel, in the unit of the residual; NaN if there are too few data.
    """
    height, width = residual.shape
    layers, shares = [], []
    for rows in _strips(height, width):
        values = residual[rows]
        good = np.isfinite(values)
        if structure is not None:
            good &= ~structure[rows]
        if min(good.shape) >= STEP:
            layer, share = _third_layer(_only_good(np.ascontiguousarray(values), good), good)
            clean = share >= CLEAN
            layers.append(layer[clean])
            shares.append(share[clean])
    layer, share = np.concatenate(layers or [[]]), np.concatenate(shares or [[]])
    if layer.size < ENOUGH and structure is not None and structure.any():
        return scale_noise(residual)
    return _clipped_deviation(layer / np.sqrt(share)) / math.sqrt(_VARIANCE)


def pixel_noise(residual: Plane, structure: np.ndarray | None = None) -> float:
    """Measure the standard deviation of the pixels of a residual, clipped at 3 sigma about the median.

    Parameters
    ----------
    residual : ndarray of float32, shape (height, width), or Plane
        Frame minus stack, in any unit. NaN means no data. Only some of the rows are used.
    structure : ndarray of bool, shape (height, width), optional
        True for pixels to leave out, such as stars, unless too little would be left.

    Returns
    -------
    float
        Standard deviation, in the unit of the residual; NaN if there are too few data.
    """
    every = slice(0, None, max(1, math.prod(residual.shape) // SINGLE))
    values = residual[every]
    good = np.isfinite(values)
    if structure is not None and np.count_nonzero(apart := good & ~structure[every]) >= ENOUGH:
        good = apart
    return _clipped_deviation(values[good])


def aperture_noise(plane: np.ndarray) -> np.ndarray:
    """Measure the noise of the mean in square apertures of a plane that holds nothing but noise.

    White noise falls as one over the side of the aperture. That of interpolated pixels falls more slowly,
    which shows that the noise of single pixels promises too much. A quadratic surface is taken out before.

    Parameters
    ----------
    plane : ndarray of float32, shape (height, width)
        Noise, such as the difference of two halves of a stack. NaN means no data.

    Returns
    -------
    ndarray of float64, shape (5,)
        Standard deviation of the means in apertures with the sides `APERTURES`, clipped at 3 sigma, in the
        unit of the plane; NaN if there are too few.
    """
    coarse = _block_means(plane, APERTURES[-1])
    known = np.isfinite(coarse)
    if np.count_nonzero(known) >= ENOUGH_BLOCKS:
        y, x = (np.linspace(-1, 1, size) for size in coarse.shape)
        terms = _quadratic(y, x)[known]
        # Robust: a bright star that does not fit is no background.
        weight = np.ones(len(terms))
        for _ in range(3):
            found = np.linalg.lstsq(terms * weight[:, None], coarse[known] * weight, rcond=None)[0]
            away = np.abs(coarse[known] - terms @ found)
            weight = (away <= CLIP * 1.4826 * np.median(away)).astype(float)
        side = APERTURES[-1]
        rows, columns = (np.arange(size) for size in plane.shape)
        # The places of pixels on the grid of the blocks.
        y, x = (
            ((places - (side - 1) / 2) / side) / max(size - 1, 1) * 2 - 1
            for places, size in zip((rows, columns), coarse.shape, strict=True)
        )
        plane = plane - (_quadratic(y, x) @ found).astype(np.float32)
    means = (_block_means(plane, side) for side in APERTURES)
    return np.array([_clipped_deviation(mean[np.isfinite(mean)]) for mean in means])


def _quadratic(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the terms of a quadratic surface on a grid, float64 (rows, columns, 6)."""
    y, x = np.broadcast_arrays(y[:, None], x)
    return np.stack([np.ones(y.shape), y, x, y * y, y * x, x * x], axis=-1)


def _block_means(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the means of blocks, NaN for those with too few data, float64."""
    rows, columns = (size // side for size in plane.shape)
    blocks = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    good = np.isfinite(blocks)
    count = good.sum(axis=(1, 3))
    total = np.where(good, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    # Fewer pixels have more noise.
    mean = np.divide(total, np.sqrt(count * side * side), out=np.full(total.shape, np.nan), where=count > 0)
    mean[count < FILLED * side * side] = np.nan
    return mean


def _strips(height: int, width: int) -> list[slice]:
    """Return the rows to measure: all, or strips spread evenly over a plane of more than PIXELS."""
    strips = -(-height // STRIP)
    count = min(strips, max(1, PIXELS // (STRIP * width)))
    starts = [STRIP * (k * strips // count) for k in range(count)]
    return [slice(start, min(start + STRIP, height)) for start in starts]


def _third_layer(values: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer in every fourth pixel, and the share of its variance that comes from good pixels.

    `values` are 0 where they are not good. So they are beyond the edges.
    """
    around, edges, share = _coverage(good.shape, np.packbits(good).tobytes())
    second = _smooth(values, _SECOND, STEP)
    # The zeros would be an edge against another level than 0: subtract the level around them from the others.
    level = _smooth(second, _AROUND) / around
    return second - _smooth(second, _SPLINE) - level * edges, share


@functools.lru_cache(maxsize=8)
def _coverage(shape: tuple[int, int], good: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what depends on the packed good pixels alone, which are the same in most frames of a night.

    Coverage of the surroundings of each point, its third layer, and the share of the variance.
    """
    bits = np.frombuffer(good, np.uint8)
    weight = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.float32)
    covered = _smooth(weight, _SECOND, STEP)
    around = np.maximum(_smooth(covered, _AROUND), np.float32(1e-6))
    # Squared kernels are smooth, and what is good is wide enough for sums over blocks.
    rows, columns = covered.shape
    blocks = weight[: rows * STEP, : columns * STEP].reshape(rows, STEP, columns, STEP).mean(axis=(1, 3))
    share = sum(sign * _smooth(blocks, _by_blocks(kernel)) for sign, kernel in _SQUARED) / _VARIANCE
    return around, covered - _smooth(covered, _SPLINE), share


def _by_blocks(kernel: np.ndarray) -> np.ndarray:
    """Return the sums of a kernel over blocks of STEP taps, the middle tap in the middle of its block."""
    reach = kernel.size // 2
    # A tap counts for the two blocks between which it lies, by its distance to their middles.
    places = np.arange(-reach, reach + 1) / STEP
    blocks = math.ceil(reach / STEP)
    near = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(-blocks, blocks + 1)))
    return kernel @ near


def _smooth(plane: np.ndarray, kernel: np.ndarray, step: int = 1) -> np.ndarray:
    """Smooth a plane, 0 beyond its edges, in both directions; return every pixel, or every `STEP`-th one."""
    return _smooth_plane(np.ascontiguousarray(plane), kernel.astype(np.float32), step)


@compiled
def _smooth_plane(plane, kernel, step):
    """Do `_smooth` for float32."""
    height, width = plane.shape
    reach = kernel.size // 2
    out = np.zeros((height // step, width // step), np.float32)
    padded = np.zeros(width + 2 * reach, np.float32)
    line = padded[reach : reach + width]
    for i in range(out.shape[0]):
        middle = i * step + step // 2
        line[:] = 0.0
        first, last = max(middle - reach, 0), min(middle + reach + 1, height)
        # Four rows at a time, so that the sums are loaded and stored less often.
        fours = first + (last - first) // 4 * 4
        for r in range(first, fours, 4):
            a, b, c, d = plane[r], plane[r + 1], plane[r + 2], plane[r + 3]
            k = r - middle + reach
            ta, tb, tc, td = kernel[k], kernel[k + 1], kernel[k + 2], kernel[k + 3]
            for x in range(width):
                line[x] = line[x] + ta * a[x] + tb * b[x] + tc * c[x] + td * d[x]
        for r in range(fours, last):
            a, ta = plane[r], kernel[r - middle + reach]
            for x in range(width):
                line[x] += ta * a[x]
        own = out[i]
        for j in range(kernel.size):
            shifted, tap = padded[step // 2 + j :], kernel[j]
            # A constant step lets the compiler vectorize.
            if step == STEP:
                for x in range(own.size):
                    own[x] += tap * shifted[x * STEP]
            else:
                for x in range(own.size):
                    own[x] += tap * shifted[x]
    return out


@compiled
def _only_good(values, good):
    """Return values with 0 where they are not good."""
    out = np.empty(values.shape, np.float32)
    for r in range(values.shape[0]):
        row, there, own = values[r], good[r], out[r]
        for x in range(row.size):
            own[x] = row[x] if there[x] else np.float32(0.0)
    return out


def _clipped_deviation(values: np.ndarray) -> float:
    """Return the standard deviation of values, clipped at 3 sigma about their median and corrected for it."""
    if values.size < 2:
        return math.nan
    return _clipped(np.ascontiguousarray(values, np.float32).ravel())


@compiled
def _clipped(values):
    middle = np.float32(median_of(values))
    away = np.empty(values.size, np.float32)
    for i in range(values.size):
        away[i] = abs(values[i] - middle)
    sigma = 1.4826 * median_of(away)
    for _ in range(20):
        limit = np.float32(CLIP * sigma)
        squares, kept = np.zeros(LANES), np.zeros(LANES)
        for start in range(0, away.size, LANES):
            part = away[start : start + LANES]
            for i in range(part.size):
                near = part[i] < limit
                value = np.float64(part[i]) if near else 0.0
                squares[i] += value * value
                kept[i] += 1.0 if near else 0.0
        count = sum_of(kept)
        if count == 0:
            return sigma
        last, sigma = sigma, math.sqrt(sum_of(squares) / count) / CUT_AT_3
        if abs(sigma - last) <= 1e-4 * sigma:
            break
    return sigma
