"""Sums along all straight lines of a plane at once: a discrete Radon transform.

A line through a strip of columns consists of two lines through the halves of the strip, which many lines
share. So the sums along all lines of an image of n x n pixels take n^2 log n additions instead of n^3 (Goetz
and Druck 1996, Image and Vision Computing 14, 711; Brady 1998, SIAM J. Comput. 27, 107). On the way the sums
through narrower strips become known as well: they find short trails and those that end in the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stacklib.spatial.planes import Binned, robust_spread
from stacklib.utils.compiled import compiled, larger, smaller

__all__ = ["LEAST_LENGTH", "Peak", "find_peaks"]

#: Width of a line, and of what lies beside it at one bin's distance, in bins.
WIDTH, BESIDE = 2, 3
#: Strips are looked at from this width on, in pixels, every second doubling.
NARROWEST = 200
#: Shortest line in pixels.
LEAST_LENGTH = 32
#: A narrower strip must be filled by this fraction.
FILLED = 0.5
#: Sums beyond this many sigma of a pixel are cut when their spread is measured.
FAR = 6.0
#: Mean of the absolute values of a unit Gaussian, inverse.
PER_MEAN = 1.2533
#: Slopes whose spread is measured have this fraction of the usual number of lines.
SOME = 0.3
#: Numbers of pixels are kept in units of this part of a bin, in 16 bits.
PARTS = 16
_LANES = 16


class Peak(NamedTuple):
    """A line that stands out.

    `significance` is in sigma of its kind of sums; `noise` is this sigma, of a sum over pixels divided by the
    square root of their number. `ends`, float64 (2, 2), are x and y of both ends in pixels.
    """

    significance: float
    noise: float
    ends: np.ndarray


@compiled
def _add_halves(first, second, start, width, out):
    """Add the sums through the first half of a strip, from `width` on, and the second half, from `start`."""
    rows = first.size
    zero = first.dtype.type(0)
    alone = min(width - start, rows)
    out[:start] = zero
    out[start : start + alone] = second[:alone]
    out[start + alone : width] = zero
    both = out[width : width + rows - alone]
    a, b = first[: rows - alone], second[alone:]
    for i in range(rows - alone):
        both[i] = a[i] + b[i]
    out[width + rows - alone :] = first[rows - alone :]


@compiled
def _join(planes, out, empty):
    """Join neighboring strips to strips twice as wide, with twice as many slopes.

    Arrays are (strips, slopes, rows). In a strip of w columns, slope s and row i are the line from
    y = i - (w - 1) in its first column to y + s in its last one. `empty` is a row of zeros.
    """
    strips, width, _ = planes.shape
    for j in range(out.shape[0]):
        for s in range(2 * width):
            first = planes[2 * j, s >> 1]
            second = planes[2 * j + 1, s >> 1] if 2 * j + 1 < strips else empty
            _add_halves(first, second, width - ((s + 1) >> 1), width, out[j, s])


@compiled
def _join_twice(planes, out, empty):
    """Join strips two times at once: what is in between never leaves the cache of the processor."""
    strips, width, rows = planes.shape
    left, right = np.zeros(rows + width, planes.dtype), np.zeros(rows + width, planes.dtype)
    for j in range(out.shape[0]):
        k = 4 * j
        for s in range(2 * width):
            slope, start = s >> 1, width - ((s + 1) >> 1)
            second = planes[k + 1, slope] if k + 1 < strips else empty
            _add_halves(planes[k, slope], second, start, width, left)
            third = planes[k + 2, slope] if k + 2 < strips else empty
            fourth = planes[k + 3, slope] if k + 3 < strips else empty
            _add_halves(third, fourth, start, width, right)
            for t in (2 * s, 2 * s + 1):
                _add_halves(left, right, 2 * width - ((t + 1) >> 1), 2 * width, out[j, t])


@compiled
def _contrasts(sums, counts, least, padded, padded_count, value):
    """Write how far each line of a slope stands out from what lies beside it.

    It is the difference of sums divided by the square root of their counts, 0 for lines of less than `least`.
    `padded` are zeros, `BESIDE` + 1 more than lines on both sides and `WIDTH` more after them.
    """
    rows = sums.size
    zero = np.float32(0.0)
    pad = BESIDE + 1
    middle, middle_count = padded[pad : pad + rows], padded_count[pad : pad + rows]
    for i in range(rows):
        middle[i] = sums[i]
    for i in range(rows):
        middle_count[i] = np.float32(counts[i])
    # Written out: the processor does not vectorize loops over so few.
    right = pad + WIDTH + 1
    a1, n1 = padded[pad + 1 : pad + 1 + rows], padded_count[pad + 1 : pad + 1 + rows]
    b0, b1, b2 = padded[:rows], padded[1 : 1 + rows], padded[2 : 2 + rows]
    m0, m1, m2 = padded_count[:rows], padded_count[1 : 1 + rows], padded_count[2 : 2 + rows]
    after, after_count = padded[right:], padded_count[right:]
    b3, b4, b5 = after[:rows], after[1 : 1 + rows], after[2 : 2 + rows]
    m3, m4, m5 = after_count[:rows], after_count[1 : 1 + rows], after_count[2 : 2 + rows]
    for i in range(rows):
        here, n = middle[i] + a1[i], middle_count[i] + n1[i]
        beside = (b0[i] + b3[i]) + (b1[i] + b4[i]) + (b2[i] + b5[i])
        m = (m0[i] + m3[i]) + (m1[i] + m4[i]) + (m2[i] + m5[i])
        # With too little beside it, the level beside the line is taken to be 0.
        both = m >= n
        apart = here * m - n * beside if both else here
        square = n * m * (n + m) if both else n
        v = apart / np.sqrt(square)
        value[i] = v if n >= least else zero


@compiled
def _room_for(rows):
    """Return zeros as `_contrasts` needs them, for so many lines, and zeros for the contrasts."""
    size = rows + 2 * (BESIDE + 1) + WIDTH
    value = np.zeros(-(-rows // _LANES) * _LANES, np.float32)
    return np.zeros(size, np.float32), np.zeros(size, np.float32), value


@compiled
def _best_of_each(sums, counts, least, cut, best, spread, lines):
    """Find how far the line of each strip and slope that stands out most does so, see `_contrasts`.

    `spread` is the mean of the absolute values. `lines` is how many of them have at least the count `least`.
    """
    padded, padded_count, value = _room_for(sums.shape[2])
    tops, parts = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    filled = np.empty(_LANES, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(sums.shape[0]):
        for k in range(sums.shape[1]):
            _contrasts(sums[j, k], counts[j, k], least, padded, padded_count, value)
            tops[:] = zero
            parts[:] = zero
            filled[:] = zero
            # In lanes, at which the processor works at once.
            for i in range(0, value.size, _LANES):
                for q in range(_LANES):
                    v = value[i + q]
                    tops[q] = larger(tops[q], v)
                    v = abs(v)
                    parts[q] += smaller(v, cut)
                    filled[q] += one if v > zero else zero
            best[j, k], spread[j, k], lines[j, k] = tops.max(), parts.sum(), filled.sum()


@compiled
def _row_of_best(sums, counts, least):
    """Return which line of a slope stands out most."""
    padded, padded_count, value = _room_for(sums.size)
    _contrasts(sums, counts, least, padded, padded_count, value)
    return np.argmax(value)


class _Room:
    """Two pairs of buffers for sums and counts by turns: new memory would take as long as the sums."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        columns = [2 ** (side - 1).bit_length() for side in shape]
        size = max(many * (many + other) for many, other in zip(columns, shape[::-1], strict=True))
        self._buffers = [(np.empty(size, np.float32), np.empty(size, np.uint16)) for _ in range(2)]

    def take(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """Return the pair that was not used last, as arrays of a shape."""
        self._buffers.reverse()
        size = int(np.prod(shape))
        return [buffer[:size].reshape(shape) for buffer in self._buffers[0]]


def _strips(
    total: np.ndarray, count: np.ndarray, narrowest: int, room: _Room
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield sums and counts, (strips, slopes, rows), of lines that run along the rows of a plane and rise.

    Strips are those of the whole plane and narrower ones, of a quarter of the columns of the last ones each
    time, which have at least `narrowest` columns. What was yielded is overwritten later.
    """
    planes = [np.ascontiguousarray(plane.T)[:, np.newaxis] for plane in (total, count)]
    left = (len(planes[0]) - 1).bit_length()
    while left:
        times = 2 - left % 2
        strips, width, rows = planes[0].shape
        shape = -(-strips // 2**times), width * 2**times, rows + (2**times - 1) * width
        joined = room.take(shape)
        for plane, out in zip(planes, joined, strict=True):
            (_join if times == 1 else _join_twice)(plane, out, np.zeros(rows, plane.dtype))
        planes, left = joined, left - times
        if not left or shape[1] >= narrowest:
            yield planes[0], planes[1]


def find_peaks(binned: Binned, side: int, limit: float) -> list[Peak]:
    """Find straight lines that stand out in a binned residual.

    Each sum along a line is compared with those beside it, so that smooth light does not matter, and with the
    spread of the sums of its slope: banding of rows and columns makes lines along the axes count less.

    Parameters
    ----------
    binned : Binned
        The residual.
    side : int
        Side of a bin in pixels.
    limit : float
        Least significance.

    Returns
    -------
    list of Peak
        The most significant ones first. There are many of the same line, of similar slopes and places.
    """
    pixels = side**2
    whole = binned.number == pixels
    base = robust_spread(binned.total[whole]) / side
    if base == 0:
        return []
    # A sum over n pixels has the count PARTS n / pixels.
    unit = np.sqrt(PARTS / pixels)
    count = np.rint(binned.number * (PARTS / pixels)).astype(np.uint16)
    found = []
    room = _Room(count.shape)
    for upright in (False, True):
        for falling in (False, True):
            planes = [plane.T if upright else plane for plane in (binned.total, count)]
            planes = [plane[::-1] if falling else plane for plane in planes]
            height, width = planes[0].shape
            for sums, counts in _strips(planes[0], planes[1], NARROWEST // side, room):
                columns = sums.shape[1]
                bins = LEAST_LENGTH / side if columns >= width else FILLED * columns
                peaks = _peaks_of(sums, counts, bins * WIDTH * PARTS, FAR * base / unit, limit, height)
                for strip, slope, row, significance, noise in peaks:
                    # The middle of the line in the first and in the last column of its strip.
                    y = row - (columns - 1) + 0.5 * (WIDTH - 1)
                    x = strip * columns
                    ends = np.array([[x, y], [x + columns - 1, y + slope]])
                    if falling:
                        ends[:, 1] = height - 1 - ends[:, 1]
                    if upright:
                        ends = ends[:, ::-1]
                    found.append(Peak(significance, noise * unit, (ends + 0.5) * side - 0.5))
    return sorted(found, key=lambda peak: -peak.significance)


def _peaks_of(
    sums: np.ndarray, counts: np.ndarray, least: float, cut: float, limit: float, usual: int
) -> Iterator[tuple[int, int, int, float, float]]:
    """Yield strip, slope and row of lines that stand out, with significance and noise in units of sums.

    `usual` is the number of lines that a slope should have.
    """
    shape = sums.shape[:2]
    best, spread, lines = (np.empty(shape, np.float32) for _ in range(3))
    _best_of_each(sums, counts, np.float32(least), np.float32(cut), best, spread, lines)
    enough = lines > SOME * usual
    if not enough.any():
        return
    own = PER_MEAN * spread / np.maximum(lines, 1)
    noise = np.maximum(np.where(enough, own, 0), np.median(own[enough]))
    for strip, slope in zip(*np.nonzero(best > limit * noise), strict=True):
        one = strip, slope
        yield (
            int(strip),
            int(slope),
            int(_row_of_best(sums[one], counts[one], np.float32(least))),
            float(best[one] / noise[one]),
            float(noise[one]),
        )
