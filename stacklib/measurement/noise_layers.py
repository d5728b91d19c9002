"""The layers of the à trous transform with the B3 spline, row by row, and what they say about each pixel.

No layer is kept: of each smoothed plane only those rows are in memory that the next one needs, which fit into
the second-level cache. Pixels that are certainly noise are summed at once, and only those near the threshold
are returned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import any_of, compiled, larger

__all__ = ["SQUARE", "count_empty", "finest_rows", "transform_part"]

#: Side of the squares in which borders without data are found.
SQUARE = 16
#: The four layers reach 2 (1 + 2 + 4 + 8) pixels.
LAYERS, REACH = 4, 30
#: Pixels beside a part that are looked at.
BESIDE = 32
#: Rows start at a cache line, of this many floats, as vectors across two lines take longer. They have a
#: multiple of so many pixels: the rest of a loop in vectors takes long as well.
LINE, WHOLE = 16, 64
#: Place of the rows of the image and of the planes that were smoothed once, twice and three times, the last
#: of which is smoothed over 33 rows. A row is where its number modulo 32 or 64 says.
FIRST, MODULO, ROWS = (0, 32, 64, 96), (31, 31, 31, 63), 160
#: Pixels that are kept or not with one look.
GROUP = 8
#: Rows whose sums are kept in float32, which is exact enough for so many.
SUMMED = 32


class Found(NamedTuple):
    """What is found of a part: the sums, and peaks and details near the limit."""

    sums: np.ndarray
    peaks: np.ndarray
    details: np.ndarray


class Work(NamedTuple):
    """Arrays for a row: peaks, details, sums of details and of their squares, float32 (width,), and flags."""

    peak: np.ndarray
    detail: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    flags: np.ndarray
    hit: np.ndarray


@compiled
def count_empty(plane, low):
    """Count the pixels without data in each square, int64 (rows, columns)."""
    height, width = plane.shape
    empty = np.zeros(((height + SQUARE - 1) // SQUARE, (width + SQUARE - 1) // SQUARE), np.int64)
    infinity = np.float32(np.inf)
    for y in range(height):
        row = plane[y]
        missing = np.int32(0)
        for x in range(width):
            missing |= np.int32(not ((row[x] > low) & (row[x] < infinity)))
        if missing:
            for x in range(width):
                empty[y // SQUARE, x // SQUARE] += not ((row[x] > low) & (row[x] < infinity))
    return empty


@compiled
def _reflect(i, size):
    """Mirror an index into 0 .. size - 1."""
    while i < 0 or i >= size:
        i = -i if i < 0 else 2 * (size - 1) - i
        if size == 1:
            return 0
    return i


@compiled
def _smooth_row(rows, width, step, padded, out):
    """Smooth the middle one of five rows by the B3 spline with holes, mirrored at both ends.

    Beyond `width`, rows hold anything finite.
    """
    a, b, c, d, e = rows
    middle = padded[LINE : LINE + out.size]
    for x in range(out.size):
        middle[x] = (
            (a[x] + e[x]) * np.float32(0.0625) + (b[x] + d[x]) * np.float32(0.25) + c[x] * np.float32(0.375)
        )
    end = LINE + width - 1
    for x in range(1, 2 * step + 1):
        if width > 2 * step:
            padded[LINE - x], padded[end + x] = padded[LINE + x], padded[end - x]
        else:
            padded[LINE - x], padded[end + x] = (
                middle[_reflect(-x, width)],
                middle[_reflect(width - 1 + x, width)],
            )
    left, right = padded[LINE - step :], padded[LINE + step :]
    far_left, far_right = padded[LINE - 2 * step :], padded[LINE + 2 * step :]
    for x in range(out.size):
        out[x] = (
            (far_left[x] + far_right[x]) * np.float32(0.0625)
            + (left[x] + right[x]) * np.float32(0.25)
            + middle[x] * np.float32(0.375)
        )


@compiled
def _fill_row(row, low, fill, image):
    """Copy a row with `fill` for no data, and return whether there is such a pixel."""
    missing = np.int32(0)
    for x in range(row.size):
        data = (row[x] > low) & (row[x] < np.float32(np.inf))
        image[x] = row[x] if data else fill
        missing |= np.int32(not data)
    return missing > 0


@compiled
def _leave_out(row, low, border, first, peak):
    """Make `peak` infinite where a pixel is left out. `first` is the column of the first pixel."""
    for x in range(row.size):
        data = (row[x] > low) & (row[x] < np.float32(np.inf))
        peak[x] = peak[x] if data else np.float32(np.inf)
    for square in range(first // SQUARE, (first + row.size - 1) // SQUARE + 1):
        if border[square]:
            start = max(square * SQUARE - first, 0)
            peak[start : max((square + 1) * SQUARE - first, 0)] = np.float32(np.inf)


@compiled
def finest_rows(plane, low, fill, squares, rows, detail):
    """Write the finest layer of `rows` to `detail`, pixels with data only; returns their number."""
    height, width = plane.shape
    # Not literal numbers, for which the functions below would be compiled again.
    one, start, size = np.int64(1), np.int64(0), np.int64(0)
    rows_of_five = _aligned_rows(np.int64(5), width)
    five = rows_of_five[0], rows_of_five[1], rows_of_five[2], rows_of_five[3], rows_of_five[4]
    peak = np.empty(width, np.float32)
    smooth = np.empty_like(five[0])
    padded = np.empty(smooth.size + 2 * LINE, np.float32)
    for y in rows:
        for k in range(5):
            _fill_row(plane[_reflect(y + k - 2, height)], low, fill, rows_of_five[k])
        _smooth_row(five, width, one, padded, smooth)
        peak[:] = 0.0
        _leave_out(plane[y], low, squares[y // SQUARE], start, peak)
        for x in range(width):
            if peak[x] == 0:
                detail[size] = rows_of_five[2, x] - smooth[x]
                size += 1
    return size


@compiled
def transform_part(plane, low, fill, squares, inverse, limits, rows, columns):
    """Transform a part of a plane, and find the detail of the pixels that hold no structure.

    The peak of a pixel is its largest layer in units of sigma_j, its detail the image minus the residual.
    `squares` are left out, `inverse` is 1 / sigma_j of the four layers, `limits` a sure and an impossible
    peak, `rows` and `columns` the first one and the one after the last. Returns count, sum and sum of squares
    of the details with a sure peak, float64 (3,), and the peaks and details, float32, with a peak between the
    limits.
    """
    height, width = plane.shape
    (top, bottom), (left, right) = rows, columns
    # Beyond these columns nothing is looked at. Where they are not those of the image, the mirrored ends are
    # wrong, but out of reach.
    first, last = max(left - BESIDE, 0), min(right + BESIDE, width)
    size = last - first
    ring = _aligned_rows(np.int64(ROWS), size)
    residual, padded = _aligned_rows(np.int64(1), size)[0], np.empty(ring.shape[1] + 2 * LINE, np.float32)
    found = Found(np.zeros(3), *_room((bottom - top) * (right - left) + 1))
    work = Work(*_work(ring.shape[1]))
    missing = np.empty(ROWS, np.bool_)
    border, bordered = squares[0], False
    kept = np.uint64(0)
    # Rows beyond the image are mirrored ones, in the smoothed planes as well.
    for new in range(top - REACH, bottom + REACH):
        row = new & MODULO[0]
        missing[row] = _fill_row(plane[_reflect(new, height), first:last], low, fill, ring[row])
        y = np.int64(new)
        for layer in range(LAYERS):
            step = np.int64(1 << layer)
            y -= 2 * step
            if y < top - REACH + 2 * (2 * step - 1):
                break
            start, modulo = FIRST[layer], MODULO[layer]
            five = (
                ring[start + ((y - 2 * step) & modulo)],
                ring[start + ((y - step) & modulo)],
                ring[start + (y & modulo)],
                ring[start + ((y + step) & modulo)],
                ring[start + ((y + 2 * step) & modulo)],
            )
            out = residual if layer + 1 == LAYERS else ring[FIRST[layer + 1] + (y & MODULO[layer + 1])]
            _smooth_row(five, size, step, padded, out)
        if y < top:
            continue
        if y == top or y % SQUARE == 0:
            border = squares[y // SQUARE]
            bordered = any_of(border)
        image = ring[y & MODULO[0]]
        smoothed = (
            ring[FIRST[1] + (y & MODULO[1])],
            ring[FIRST[2] + (y & MODULO[2])],
            ring[FIRST[3] + (y & MODULO[3])],
            residual,
        )
        _find_peaks(image, smoothed, inverse, work)
        if missing[y & MODULO[0]] or bordered:
            _leave_out(plane[y, first:last], low, border, first, work.peak)
        work.peak[: left - first] = np.float32(np.inf)
        work.peak[right - first :] = np.float32(np.inf)
        found.sums[0] += _sum_row(work, limits[0])
        if (y - top) % SUMMED == SUMMED - 1 or y == bottom - 1:
            for x in range(size):
                found.sums[1] += work.total[x]
                found.sums[2] += work.squares[x]
            work.total[:] = 0.0
            work.squares[:] = 0.0
        kept = _keep_row(work, limits, found, kept)
    return found.sums, found.peaks[:kept].copy(), found.details[:kept].copy()


@compiled
def _aligned_rows(rows, width):
    """Return zeros, float32 (rows, at least `width`), whose rows start at cache lines."""
    width = (width + WHOLE - 1) // WHOLE * WHOLE
    room = np.zeros(rows * width + LINE, np.float32)
    start = (-room.ctypes.data // 4) % LINE
    return room[start : start + rows * width].reshape(rows, width)


@compiled
def _room(size):
    """Return two arrays of float32."""
    return np.empty(size, np.float32), np.empty(size, np.float32)


@compiled
def _work(width):
    """Return the arrays of `Work` for rows of this width."""
    peak, detail = _room(width)
    flags, hit = np.empty(width, np.uint8), np.empty(width // GROUP + 1, np.uint64)
    return peak, detail, np.zeros(width, np.float32), np.zeros(width, np.float32), flags, hit


@compiled
def _find_peaks(image, smoothed, inverse, work):
    """Find the largest layer of each pixel of a row in units of sigma_j, and its detail."""
    c1, c2, c3, c4 = smoothed
    i0, i1, i2, i3 = inverse
    peak, detail = work.peak, work.detail
    for x in range(peak.size):
        fine = larger(abs(image[x] - c1[x]) * i0, abs(c1[x] - c2[x]) * i1)
        coarse = larger(abs(c2[x] - c3[x]) * i2, abs(c3[x] - c4[x]) * i3)
        peak[x] = larger(fine, coarse)
    for x in range(peak.size):
        detail[x] = image[x] - c4[x]


@compiled
def _sum_row(work, sure):
    """Add the sure pixels of a row to the sums and return their number."""
    peak, detail, total, squares = work.peak, work.detail, work.total, work.squares
    # Short loops with few operands, which the compiler vectorizes.
    for x in range(peak.size):
        d = detail[x] if peak[x] <= sure else np.float32(0.0)
        total[x] += d
        squares[x] += d * d
    count = np.int32(0)
    for x in range(peak.size):
        count = np.int32(count + np.int32(peak[x] <= sure))
    return count


@compiled
def _keep_row(work, limits, found, kept):
    """Append the undecided pixels of a row to those that were kept and return the new number."""
    peak, detail, _, _, flags, hit = work
    sure, never = limits
    for x in range(peak.size):
        flags[x] = (peak[x] > sure) & (peak[x] <= never)
    groups = flags.view(np.uint64)
    # No branches to mispredict: always written, kept only where undecided.
    hits = np.uint64(0)
    for g in range(groups.size):
        hit[hits] = np.uint64(GROUP * g)
        hits += np.uint64(groups[g] != 0)
    for k in range(hits):
        for j in range(GROUP):
            x = hit[k] + np.uint64(j)
            found.peaks[kept] = peak[x]
            found.details[kept] = detail[x]
            kept += np.uint64(flags[x])
    return kept
