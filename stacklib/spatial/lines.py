"""Straight trails in one frame, also those far below the noise of a pixel.

A satellite trail of 1.5 sigma is invisible in a single sample, but the sum along it stands out by 40 sigma.
Sums along all lines of a residual find it. Then its place, its ends and its width are measured at full
resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stacklib.spatial.footprints import most_frames
from stacklib.spatial.planes import Binned, Smooth, bin_residual, robust_spread
from stacklib.spatial.radon import LEAST_LENGTH, Peak, find_peaks
from stacklib.spatial.strips import Strip, align, find_extent, moved, profile
from stacklib.utils.compiled import compiled

__all__ = ["Line", "along_edge", "at_one_place", "find_lines", "fixed_lines", "line_mask"]

#: Least significance of a line. Among the lines of a frame of noise, 5.5 occurs by chance.
SIGNIFICANCE = 7.0
#: A line as measured may be less significant than its peak by so much.
LESS = 1.0
#: Without the brightest quarter of its parts, a line must keep this part of the least significance, and this
#: fraction of its own: some stars in a row are no line.
STEADY, STEADY_FRACTION = 0.5, 0.35
#: Samples are cut at this many sigma, for the search and when a line is measured.
CUT, MEASURED_CUT = 3.5, 6.0
#: Offsets of rows and columns beyond this many sigma of all of them are no banding.
BANDING = 5.0
#: Bins have sides of 2 to 4 pixels, so that there are no more than these if possible. They are larger only in
#: frames of which a side would have more than so many.
SIDES, ENOUGH_BINS, MOST_BINS = (2, 4), 200_000, 4000
#: Reach of the strip in which a line is measured, and the largest one, for wide trails, in pixels.
REACH, WIDEST_REACH = 24.0, 96.0
#: Sigma of the profile to begin with, in pixels. How far the ends move then, in bins, and later, in pixels.
PROFILE, FIRST_MOVE, MOVES = 2.8, 2.5, (4.0, 1.5)
#: Searches in a frame, and lines that are tried in each one and turn out to be none: before one is found, and
#: after, when most are images of it.
SEARCHES, TRIES, TRIES_AFTER = 16, 8, 2
#: Peaks whose ends lie within this many bins are the same line.
SAME = 24
#: A line that was found is left out of further searches with so many pixels beside it.
BESIDE = 2.0
#: Lines of different frames within this many pixels lie at one place.
ONE_PLACE = 4.0
#: Whether a line lies along an edge is looked up these distances from it, in pixels.
SIDES_OF_EDGE = (4, 8, 12)


@dataclass(frozen=True)
class Line:
    """A straight trail.

    Attributes
    ----------
    x0, y0, x1, y1 : float
        Its ends in pixels. The center of the first pixel is (0, 0).
    width : float
        Full width within which it stands out, wings included, in pixels.
    peak : float
        Peak brightness in sigma of a sample. Of color frames the mean of the channels.
    significance : float
        Brightness of the whole trail in sigma of such a sum.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    width: float
    peak: float
    significance: float

    @property
    def length(self) -> float:
        """Length in pixels."""
        return math.hypot(self.x1 - self.x0, self.y1 - self.y0)


def find_lines(
    z: np.ndarray, protected: np.ndarray, smooth: Smooth | None = None, strength: float = 1.0
) -> list[Line]:
    """Find straight trails in the residual of a frame.

    Only bright ones are found: a dark line is the image of a trail in another frame. Trails may cross the
    frame or end in it.

    Parameters
    ----------
    z : ndarray of float32, shape (height, width)
        Frame minus the mean of the others, in units of the noise of this difference. NaN for no data. Of
        color frames the sum of the channels, divided by the square root of their number.
    protected : ndarray of bool, shape (height, width)
        Pixels that cannot be judged, such as cores of stars whose seeing changes.
    smooth : Smooth, optional
        The smooth part of the residual. By default it is measured.
    strength : float
        The least significance of a line is divided by it.

    Returns
    -------
    list of Line
        In the order in which they were found, roughly the brightest ones first. Their `peak` is in units of
        `z`.
    """
    side = int(np.clip(math.ceil(math.sqrt(z.size / ENOUGH_BINS)), *SIDES))
    side = max(side, -(-max(z.shape) // MOST_BINS))
    binned = _without_banding(bin_residual(z, protected, side, CUT, smooth))
    spared = protected
    found: list[Line] = []
    least = SIGNIFICANCE / strength
    for _ in range(SEARCHES):
        peaks = find_peaks(binned, side, least)
        if peaks and spared is protected:
            spared = protected.copy()
        new = _measure_peaks(z, spared, binned.trend, peaks, side, least)
        if not new:
            break
        found += new
        _take_out(binned, new, side)
    return found


def _take_out(binned: Binned, lines: Sequence[Line], side: int) -> None:
    """Leave out the bins of lines."""
    mask = np.zeros(binned.total.shape, bool)
    for line in lines:
        ends = ((place + 0.5) / side - 0.5 for place in (line.x0, line.y0, line.x1, line.y1))
        _draw(mask, tuple(ends), (0.5 * line.width + BESIDE) / side + 0.5)
    for plane in (binned.total, binned.number):
        plane[mask] = 0


def _without_banding(binned: Binned) -> Binned:
    """Subtract the means of rows and columns of bins, cut at what is usual: a trail along them stays."""
    total, number, trend = binned
    for axis in (1, 0):
        pixels = number.sum(axis=axis, dtype=np.float64)
        mean = total.sum(axis=axis, dtype=np.float64) / np.maximum(pixels, 1)
        limit = BANDING * robust_spread(mean[pixels > 0])
        total = total - np.expand_dims(np.clip(mean, -limit, limit), axis).astype(np.float32) * number
    return Binned(total, number, trend)


def _measure_peaks(
    z: np.ndarray, spared: np.ndarray, trend: np.ndarray, peaks: Sequence[Peak], side: int, least: float
) -> list[Line]:
    """Measure the lines of peaks, and add those that are some to the spared pixels."""
    found: list[Line] = []
    tried: list[np.ndarray] = []
    failed = 0
    for peak in peaks:
        if failed >= (TRIES_AFTER if found else TRIES):
            break
        if any(np.abs(peak.ends - ends).max() < SAME * side for ends in tried):
            continue
        tried.append(peak.ends)
        line = _measure(z, spared, trend, peak, side, least)
        if line is None:
            failed += 1
        else:
            _draw(spared, (line.x0, line.y0, line.x1, line.y1), 0.5 * line.width + BESIDE)
            found.append(line)
    return found


def _measure(
    z: np.ndarray, spared: np.ndarray, trend: np.ndarray, peak: Peak, side: int, least: float
) -> Line | None:
    """Measure a line at full resolution; None if it is none after all."""
    ends, noise = peak.ends, peak.noise
    reach, sigma = REACH, PROFILE
    length = float(np.hypot(*(ends[1] - ends[0])))
    strip = Strip.cut(z, spared, trend, ends, reach)
    span = max(0.0, strip.chord[0]), min(length, strip.chord[1])
    if span[1] - span[0] < LEAST_LENGTH:
        return None
    fit = align(strip.between(*span), sigma, reach, FIRST_MOVE * side, CUT)
    if fit.strength < (least - LESS) * noise:
        return None
    ends = moved(ends, span, fit.shifts)
    for move in MOVES:
        length = float(np.hypot(*(ends[1] - ends[0])))
        strip = Strip.cut(z, spared, trend, ends, reach)
        if strip.chord[1] - strip.chord[0] < LEAST_LENGTH or not strip.value.size:
            return None
        span = find_extent(strip, (0.0, length), sigma, reach, noise)
        if span[1] - span[0] < LEAST_LENGTH:
            return None
        part = strip.between(*span)
        height, sigma, half = profile(part, reach, noise)
        if 2 * half > reach and reach < WIDEST_REACH:
            reach *= 2
        fit = align(part, sigma, reach, max(move, 0.5 * sigma), MEASURED_CUT)
        ends = moved(ends, span, fit.shifts)
    if fit.strength < (least - LESS) * noise:
        return None
    if fit.steady_strength < max(STEADY * least * noise, STEADY_FRACTION * fit.strength):
        return None
    length = float(np.hypot(*(ends[1] - ends[0])))
    height, _, half = profile(Strip.cut(z, spared, trend, ends, reach).between(0.0, length), reach, noise)
    x, y = ends.mean(axis=0)
    if height <= 0 or not (-0.5 <= x <= z.shape[1] - 0.5 and -0.5 <= y <= z.shape[0] - 0.5):
        return None
    (x0, y0), (x1, y1) = ends.tolist()
    return Line(x0, y0, x1, y1, 2 * half, height, float(fit.strength / noise))


def line_mask(line: Line, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a line.

    Parameters
    ----------
    line : Line
        The line.
    shape : tuple of int
        Height and width of the frame.

    Returns
    -------
    ndarray of bool, shape (height, width)
        Pixels whose centers lie within half the width of the line, between its ends.
    """
    mask = np.zeros(shape, bool)
    _draw(mask, (line.x0, line.y0, line.x1, line.y1), 0.5 * line.width)
    return mask


@compiled
def _draw(mask, ends, half):
    """Set the pixels of a rectangle, `half` pixels to each side of the line between two points."""
    height, width = mask.shape
    x0, y0, x1, y1 = ends
    length = np.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    top, bottom = min(y0, y1) - half * abs(ux), max(y0, y1) + half * abs(ux)
    for y in range(max(int(np.ceil(top)), 0), min(int(np.floor(bottom)), height - 1) + 1):
        left, right = 0.0, width - 1.0
        # Between the long sides of the rectangle, and between the short ones.
        for slope, offset, low, high in (
            (-uy, (y - y0) * ux, -half, half),
            (ux, (y - y0) * uy, 0.0, length),
        ):
            if abs(slope) < 1e-12:
                if offset < low or offset > high:
                    right = -1.0
            else:
                a, b = x0 + (low - offset) / slope, x0 + (high - offset) / slope
                left, right = max(left, min(a, b)), min(right, max(a, b))
        for x in range(int(np.ceil(left)), int(np.floor(right)) + 1):
            mask[y, x] = True


def fixed_lines(lines: Sequence[Sequence[Line]], shape: tuple[int, int]) -> list[list[bool]]:
    """Find lines that lie at one place in too many frames to be trails.

    Parameters
    ----------
    lines : sequence of sequence of Line
        The lines of each frame.
    shape : tuple of int
        Height and width of the frames.

    Returns
    -------
    list of list of bool
        For each line of each frame, whether lines lie on it in more than 2 plus 3 % of the frames, such as
        diffraction spikes and bad columns.
    """
    most = most_frames(len(lines))
    return [
        [sum(any(at_one_place(line, other) for other in others) for others in lines) > most for line in own]
        for own in lines
    ]


def along_edge(line: Line, count: np.ndarray) -> bool:
    """Return whether a line lies along an edge of other frames, or of its own.

    The mean of the others changes there if their levels differ, as under the Moon with frames that are
    matched by their spread. Such a step is no trail.

    Parameters
    ----------
    line : Line
        The line.
    count : ndarray of integers, shape (height, width)
        Number of frames with data.

    Returns
    -------
    bool
        Whether their number differs between the two sides along most of the line.
    """
    height, width = count.shape
    share = np.linspace(0, 1, max(int(line.length), 2))
    x, y = line.x0 + share * (line.x1 - line.x0), line.y0 + share * (line.y1 - line.y0)
    across = np.array([line.y0 - line.y1, line.x1 - line.x0]) / line.length
    for apart in SIDES_OF_EDGE:
        numbers = []
        for side in (-apart, apart):
            column, row = np.rint(x + side * across[0]).astype(int), np.rint(y + side * across[1]).astype(int)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            found = count[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(int)
            numbers.append(np.where(inside, found, 0))
        if np.median(numbers[1] - numbers[0]):
            return True
    return False


def at_one_place(line: Line, other: Line) -> bool:
    """Return whether two lines lie at one place: whether the shorter one lies along the longer one."""
    longer, shorter = (line, other) if line.length >= other.length else (other, line)
    start = np.array([longer.x0, longer.y0])
    direction = (np.array([longer.x1, longer.y1]) - start) / longer.length
    near = max(ONE_PLACE, 0.5 * longer.width)
    for x, y in ((shorter.x0, shorter.y0), (shorter.x1, shorter.y1)):
        apart = np.array([x, y]) - start
        if abs(apart[1] * direction[0] - apart[0] * direction[1]) > near:
            return False
        if not -near <= apart @ direction <= longer.length + near:
            return False
    return True
