"""Blobs and streaks in one frame: what stands out in a smoothed residual.

A faint trail, an aircraft or the halo of a cosmic ray does not stand out in a single sample, but in the mean
of its neighborhood. The residual is smoothed on two scales, each in units of its own noise, so registration
that has smoothed the noise of the frames does no harm.
"""

from __future__ import annotations

import numpy as np

from stacklib.spatial.planes import Smooth, bin_residual, robust_spread, some_places
from stacklib.utils.compiled import compiled
from stacklib.utils.filters.discs import half_widths
from stacklib.utils.filters.smoothing import gaussian_alone

__all__ = ["common_places", "find_footprints", "most_frames", "without_common"]

#: Sigma of the Gaussians in pixels, and what stands out in each, in sigma of the smoothed residual.
SCALES, LIMITS = (1.5, 3.0), (4.0, 4.5)
#: The smoothed residual is known in every second pixel. Samples are cut at this many sigma.
SIDE, CUT = 2, 6.0
#: What occurs in more frames than this number plus this fraction of them, at one place, is no defect of one.
FEW, FRACTION = 2, 0.03
#: A footprint is dropped as a whole if this fraction of it lies on common places, or within so many bins of
#: pixels that cannot be judged: the wings of a star whose seeing changes are no defect.
MOSTLY, AROUND = 0.5, 1


def find_footprints(
    z: np.ndarray,
    protected: np.ndarray,
    smooth: Smooth | None = None,
    strength: float = 1.0,
    growth: int = 0,
) -> np.ndarray:
    """Find blobs and streaks in the residual of a frame.

    A bright trail leaves its negative image in the residuals of the other frames, so the two signs must be
    told apart: see `common_places`.

    Parameters
    ----------
    z : ndarray of float32, shape (height, width)
        Frame minus the mean of the others, in units of the noise of this difference. NaN for no data.
    protected : ndarray of bool, shape (height, width)
        Pixels that cannot be judged, such as cores of stars whose seeing changes. Footprints that lie mostly
        beside them, or beside pixels without data, do not count either.
    smooth : Smooth, optional
        The smooth part of the residual. By default it is measured.
    strength : float
        What stands out is divided by it.
    growth : int
        Pixels by which footprints grow: their faint rim does not stand out.

    Returns
    -------
    ndarray of uint8, shape (2, height, bytes)
        Bits, packed along the rows: what is too dark, and what is too bright.
    """
    total, number, _ = bin_residual(z, protected, SIDE, CUT, smooth)
    # Bins without protected pixels tell the noise; in very small or patchy frames all bins.
    whole = some_places(number, SIDE**2)
    if not whole.size:
        whole = some_places(number, 1)
    # A bin is a box of this variance, which counts as smoothing.
    box = (SIDE**2 - 1) / 12
    fine = gaussian_alone(total, np.sqrt(SCALES[0] ** 2 - box) / SIDE)
    del total
    coarse = gaussian_alone(fine, np.sqrt(SCALES[1] ** 2 - SCALES[0] ** 2) / SIDE)
    spreads = [robust_spread(plane.ravel()[whole]) for plane in (fine, coarse)]
    limits = [limit / strength * s if s > 0 else np.inf for limit, s in zip(LIMITS, spreads, strict=True)]
    shape = number.shape
    low, high, near = (np.zeros(shape, bool) for _ in range(3))
    _mark(fine, coarse, np.array(limits, np.float32), low, high)
    _surround(number, AROUND, near)
    del fine, coarse, number
    places = np.packbits(near, axis=1)
    for marked in (low, high):
        bits = np.packbits(marked, axis=1)
        if (bits & places).any():
            _drop_mostly_on(places, bits.copy(), bits)
            marked[:] = np.unpackbits(bits, axis=1, count=shape[1])
    found = np.zeros((2, z.shape[0], -(-z.shape[1] // 8)), np.uint8)
    halves = half_widths(growth + 0.5, growth)
    for marked, bits in zip((low, high), found, strict=True):
        _spread(np.flatnonzero(marked), shape[1], protected, halves, bits)
    return found


@compiled
def _mark(fine, coarse, limits, low, high):
    """Set the bins that stand out on one side only."""
    for r in range(fine.shape[0]):
        for k in range(fine.shape[1]):
            above = (fine[r, k] > limits[0]) | (coarse[r, k] > limits[1])
            below = (fine[r, k] < -limits[0]) | (coarse[r, k] < -limits[1])
            low[r, k], high[r, k] = below & (not above), above & (not below)


@compiled
def _surround(number, around, near):
    """Set the bins with pixels that cannot be judged, and those around them."""
    height, width = number.shape
    for r in range(height):
        if number[r].min() == SIDE * SIDE:
            continue
        for k in range(width):
            if number[r, k] < SIDE * SIDE:
                for i in range(max(r - around, 0), min(r + around + 1, height)):
                    for j in range(max(k - around, 0), min(k + around + 1, width)):
                        near[i, j] = True


@compiled
def _spread(bins, across, protected, halves, bits):
    """Set the bits of a disc around each pixel of some bins; `halves` are the half widths of its rows.

    `bins` are places in a plane of bins, of which `across` are in a row.
    """
    height, width = protected.shape
    reach = halves.size // 2
    for place in bins:
        top, left = place // across * SIDE, place % across * SIDE
        for y in range(top, min(height, top + SIDE)):
            for x in range(left, min(width, left + SIDE)):
                if protected[y, x]:
                    continue
                for row in range(max(y - reach, 0), min(y + reach + 1, height)):
                    half = halves[row - y + reach]
                    for column in range(max(x - half, 0), min(x + half + 1, width)):
                        bits[row, column >> 3] |= np.uint8(128 >> (column & 7))


def most_frames(frames: int) -> int:
    """Return the largest number of frames in which something may occur at one place as a defect."""
    return int(FEW + FRACTION * frames)


def common_places(low: np.ndarray, high: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where footprints occur in too many frames to be defects of single frames.

    Diffraction spikes, hot columns and stars that move are such places. The two signs are counted on their
    own: where one frame is too bright, all others are too dark against the mean with it.

    Parameters
    ----------
    low, high : ndarray of integers, shape (height, width)
        Number of frames with a footprint of each sign in each pixel, after growing.
    frames : int
        Number of frames.

    Returns
    -------
    low, high : ndarray of bool, shape (height, width)
        True where the number is larger than 2 plus 3 % of the frames. So it is where only both numbers
        together are that large: there the frames disagree to both sides.
    """
    most = most_frames(frames)
    common_low, common_high = low > most, high > most
    # The sum of both may be too large for their type; their difference is looked at where it makes sense.
    disagree = high > low.dtype.type(most) - low
    disagree &= ~(common_low | common_high)
    common_low |= disagree
    common_high |= disagree
    return common_low, common_high


def without_common(footprints: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Return the footprints of a frame without those on common places.

    Parameters
    ----------
    footprints : ndarray of uint8, shape (height, bytes)
        Footprints of one sign, after growing: bits, packed along the rows.
    common : ndarray of uint8, same shape
        The common places of this sign, see `common_places`, packed in the same way.

    Returns
    -------
    ndarray of uint8, same shape
        A footprint of connected pixels is dropped as a whole if half of it lies on common places, since its
        rim differs from frame to frame. Of others only the pixels there are dropped.
    """
    on_common = footprints & common
    if not on_common.any():
        return footprints
    left = footprints ^ on_common
    _drop_mostly_on(common, footprints.copy(), left)
    return left


@compiled
def _drop_mostly_on(places, waiting, left):
    """Clear in `left` the footprints of connected pixels of which a half or more lies on some places.

    All are bits, packed along the rows. `waiting` has the footprints; those that were looked at are cleared.
    """
    height, width = waiting.shape[0], 8 * waiting.shape[1]
    queue = np.empty(8 * np.count_nonzero(waiting), np.int64)
    for row in range(height):
        for column in range(width):
            if column % 8 == 0:
                starts = waiting[row, column >> 3] & places[row, column >> 3]
            if not starts & waiting[row, column >> 3] & (128 >> (column & 7)):
                continue
            size, on_places, next_one = _gather(waiting, row, column, queue, 0), 0, 0
            while next_one < size:
                y, x = queue[next_one] // width, queue[next_one] % width
                next_one += 1
                on_places += (places[y, x >> 3] & (128 >> (x & 7))) != 0
                for i in range(max(y - 1, 0), min(y + 2, height)):
                    for j in range(max(x - 1, 0), min(x + 2, width)):
                        size = _gather(waiting, i, j, queue, size)
            if on_places >= MOSTLY * size:
                for k in range(size):
                    y, x = queue[k] // width, queue[k] % width
                    left[y, x >> 3] &= np.uint8(255 - (128 >> (x & 7)))


@compiled
def _gather(waiting, y, x, queue, size):
    """Move a pixel from those that are waiting to the queue, and return the length of it."""
    here = np.uint8(128 >> (x & 7))
    if waiting[y, x >> 3] & here:
        waiting[y, x >> 3] ^= here
        queue[size] = 8 * waiting.shape[1] * y + x
        size += 1
    return size
