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
from stacklib.utils.compiled import compiled

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
def _join(sums, counts, out, out_counts):
    """Join neighboring strips to strips twice as wide, with twice as many slopes.

    Arrays are (strips, slopes, rows). In a strip of w columns, slope s and row i are the line from
    y = i - (w - 1) in its first column to y + s in its last one.
    """
    width, rows = sums.shape[1], sums.shape[2]
    for j in range(out.shape[0]):
        for s in range(2 * width):
            total, number = out[j, s], out_counts[j, s]
            first, first_number = sums[2 * j, s >> 1], counts[2 * j, s >> 1]
            total[:width] = np.float32(0.0)
            number[:width] = np.uint16(0)
            for i in range(rows):
                total[width + i] = first[i]
                number[width + i] = first_number[i]
            if 2 * j + 1 < sums.shape[0]:
                second, second_number = sums[2 * j + 1, s >> 1], counts[2 * j + 1, s >> 1]
                start = width - ((s + 1) >> 1)
                for i in range(rows):
                    total[start + i] += second[i]
                    number[start + i] += second_number[i]


@compiled
def _best_of_each(sums, counts, least, cut, best, place, spread, lines):
    """Find the line of each strip and slope that stands out most from what lies beside it.

    `best` and `spread`, the mean of the absolute values, are sums divided by the square root of their counts.
    `lines` is how many of them have at least the count `least`.
    """
    rows = sums.shape[2]
    pad = BESIDE + 1
    right = pad + WIDTH + 1
    padded, padded_count = np.zeros((2, rows + right + BESIDE), np.float32)
    here, number, beside, others = np.empty((4, rows), np.float32)
    value = np.zeros(-(-rows // _LANES) * _LANES, np.float32)
    parts, filled = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for j in range(sums.shape[0]):
        for k in range(sums.shape[1]):
            row, count = sums[j, k], counts[j, k]
            for i in range(rows):
                padded[pad + i] = row[i]
                padded_count[pad + i] = np.float32(count[i])
            here[:] = zero
            number[:] = zero
            beside[:] = zero
            others[:] = zero
            for q in range(WIDTH):
                a, n = padded[pad + q : pad + q + rows], padded_count[pad + q : pad + q + rows]
                for i in range(rows):
                    here[i] += a[i]
                    number[i] += n[i]
            for q in range(BESIDE):
                a, n = padded[q : q + rows], padded_count[q : q + rows]
                b, m = padded[right + q : right + q + rows], padded_count[right + q : right + q + rows]
                for i in range(rows):
                    beside[i] += a[i] + b[i]
                    others[i] += n[i] + m[i]
            for i in range(rows):
                n, m = number[i], others[i]
                # With too little beside it, the level beside the line is taken to be 0.
                ratio = n / m if m >= n else zero
                v = (here[i] - ratio * beside[i]) / np.sqrt(n * (one + ratio))
                value[i] = v if n >= least else zero
            parts[:] = zero
            filled[:] = zero
            # Sums in lanes, which the processor adds at once.
            for i in range(0, rows, _LANES):
                for q in range(_LANES):
                    v = abs(value[i + q])
                    parts[q] += v if v < cut else cut
                    filled[q] += one if v > zero else zero
            top, where = zero, 0
            for i in range(rows):
                if value[i] > top:
                    top, where = value[i], i
            best[j, k], place[j, k] = top, where
            spread[j, k], lines[j, k] = parts.sum(), filled.sum()


def _strips(total: np.ndarray, count: np.ndarray, narrowest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield sums and counts, (strips, slopes, rows), of lines that run along the rows of a plane and rise.

    Strips are those of the whole plane and narrower ones, of a quarter of the columns of the last ones each
    time, which have at least `narrowest` columns. What was yielded is overwritten later.
    """
    sums, counts = (np.ascontiguousarray(plane.T)[:, np.newaxis] for plane in (total, count))
    doublings = (len(sums) - 1).bit_length()
    # Two pairs of buffers by turns: new memory would take as long as the sums.
    size = 2**doublings * (sums.shape[2] + 2**doublings)
    buffers = [(np.empty(size, np.float32), np.empty(size, np.uint16)) for _ in range(2)]
    for doubling in range(1, doublings + 1):
        shape = -(-len(sums) // 2), 2 * sums.shape[1], sums.shape[2] + sums.shape[1]
        size = shape[0] * shape[1] * shape[2]
        joined = [buffer[:size].reshape(shape) for buffer in buffers[doubling % 2]]
        _join(sums, counts, *joined)
        sums, counts = joined
        if doubling == doublings or (sums.shape[1] >= narrowest and (doublings - doubling) % 2 == 0):
            yield sums, counts


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
    for upright in (False, True):
        for falling in (False, True):
            planes = [plane.T if upright else plane for plane in (binned.total, count)]
            planes = [plane[::-1] if falling else plane for plane in planes]
            height, width = planes[0].shape
            for sums, counts in _strips(planes[0], planes[1], NARROWEST // side):
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
    place = np.empty(shape, np.int64)
    _best_of_each(sums, counts, np.float32(least), np.float32(cut), best, place, spread, lines)
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
            int(place[one]),
            float(best[one] / noise[one]),
            float(noise[one]),
        )
