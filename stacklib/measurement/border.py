"""Tell the border of a frame, where registration found nothing, from faint samples at or below 0.

A sky far above 0 is simple: nothing measured reaches 0, and every sample at or below it is no data (a blank
of drizzle, a dead pixel, a wrapped star core). Only float samples that fall a little below 0 are data, such
as the dark ring that interpolation leaves about a bright star. Where the noise of the sky reaches 0 (dark
subtracted narrowband, a pedestal that is missing), the value says nothing. There the place decides: a border
is a run of one constant value that noise cannot make, and touches an edge of the frame.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy

__all__ = ["NOTHING", "Border", "DataRange", "find_border"]

#: What a sample without data becomes before it is integrated. Everything above it is data.
NOTHING = np.finfo(np.float32).min

#: The sky reaches the limit if its darkest part is less than this many sigma of the noise above it.
REACH = 5.5
#: The darkest part of a sky: this fraction of the samples lies below it. Cold pixels are fewer.
DARKEST = 0.01
#: Width of the seam of a border, in pixels.
SEAM = 2
#: The sky reaches the limit if this fraction of the samples that are not constant lies at or below it.
BELOW = 0.1
#: Samples from which the noise is judged, and fewest that suffice.
SAMPLED, ENOUGH = 1 << 18, 100
#: Shortest run of a border, and largest probability that noise makes a longer one.
SHORTEST, CHANCE = 8, 1e-10
#: Shortest run of a border above the limit along an edge; and fraction of a frame that cannot be its border.
ALONG_EDGE, MOSTLY = 32, 0.5
#: Where more of the samples than this have the constant value by chance, a border does not grow beyond runs.
SCATTERED = 0.05
#: A value is a blank if it is this many times as frequent as its neighbors.
BLANK = 10
#: A repeated lowest value this many scales below the sky is a blank.
FAR_BELOW = 20.0


#: Line, start and stop of runs.
Runs = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Border:
    """Samples of a plane without data: up to `floor`, equal to `blank`, or in one of `runs`.

    `runs` are row, first column and the column after the last one, int32 (runs, 3), sorted. `faint` tells
    that the sky reaches the limit. NaN and infinite samples are no data in any case.
    """

    floor: float
    blank: float
    runs: np.ndarray
    faint: bool

    def mark(self, rows: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """Set the samples without data of a part of the plane, float32 (rows, columns), to `NOTHING`."""
        rows[_up_to(rows, self.floor) | (rows == self.blank)] = NOTHING
        height, width = rows.shape
        first, last = np.searchsorted(self.runs[:, 0], (top, top + height))
        for row, start, stop in self.runs[first:last].tolist():
            rows[row - top, max(start - left, 0) : min(max(stop - left, 0), width)] = NOTHING
        return rows

    def without(self, plane: np.ndarray) -> np.ndarray:
        """Return a copy of a whole plane with NaN for the samples without data."""
        marked = self.mark(plane.astype(np.float32))
        marked[marked == NOTHING] = np.nan
        return marked

    def to_text(self) -> str:
        """Return the border as text for the cache."""
        # Differences between rows are nearly constant, and pack well.
        steps = np.diff(self.runs, axis=0, prepend=np.zeros((1, 3), np.int32)).astype("<i4")
        packed = base64.b64encode(zlib.compress(steps.T.tobytes())).decode("ascii")
        return f"{self.floor!r} {self.blank!r} {self.faint} {packed}"

    @classmethod
    def from_text(cls, text: str) -> Border:
        """Return the border that `to_text` wrote. Raises ValueError if it did not."""
        floor, blank, faint, packed = text.split(" ")
        try:
            steps = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<i4").reshape(3, -1).T
        except zlib.error as error:
            raise ValueError(f"border: {error}") from None
        return cls(float(floor), float(blank), np.cumsum(steps, axis=0, dtype=np.int32), faint == "True")


@dataclass(frozen=True, eq=False)
class DataRange:
    """Which samples of the frames are data.

    `low` is the largest value without data of each plane, float64 (frames, channels), -infinite for none.
    `borders` holds those planes, by frame and channel, for which that is too simple.
    """

    low: np.ndarray
    borders: dict[tuple[int, int], Border]

    def mark(self, frame: int, channel: int, rows: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
        """Set the samples without data of a part of a frame to `NOTHING`; see `Border.mark`."""
        border = self.borders.get((frame, channel))
        if border is not None:
            return border.mark(rows, top, left)
        rows[_up_to(rows, float(self.low[frame, channel]))] = NOTHING
        return rows


def find_border(
    plane: np.ndarray, extremes: tuple[float, float], integer: bool, low: float = 0.0
) -> Border | None:
    """Find the samples of a plane, float32 (height, width), without data.

    `extremes` are the smallest and largest finite sample, `integer` tells whether the file holds integers,
    whose values below `low` may have wrapped. Returns None if the samples up to `low`, and no others, are no
    data.

    In a sky whose noise reaches `low`, a sample has no data if it lies

    - in a run of one constant value, along its row or column, that touches an edge of the frame and is longer
      than noise can make it, and 8 pixels at least; or on the edge, in such a run along it;
    - inside the frame, where such runs along row and column cross (a black square of a mosaic);
    - or next to these, with the same value.

    A single 0 beside the edge is data. Values that are far more frequent than their neighbors on both sides
    are blanks (drizzle). In a sky far above `low`, the samples of a float frame are data down to as far below
    `low` as the sky is above it, except for `low` itself.

    A border may also have a constant value above `low` (a pedestal added after registration). It has a run of
    32 pixels at least along an edge of the frame, and is neither saturated nor most of the frame.
    """
    low32 = np.float32(low)
    lowest, most = extremes
    empty = np.zeros(plane.shape, np.bool_)
    for value in _edge_values(plane, low32, np.float32(most)):
        same = plane == value
        if np.count_nonzero(same) < MOSTLY * same.size:
            empty |= _constant_areas(same, inside=False)
    if empty.any():
        # The rest is judged without it.
        plane = np.where(empty, np.float32(np.nan), plane)
    if lowest <= low32 and _reaches(plane, low32):
        for value in _constants(plane, low32):
            empty |= _constant_areas(plane == value)
        blank = float(low32) if _is_blank(plane, empty, low32) else math.nan
        return Border(_floor(plane, lowest), blank, _runs(empty), faint=True)
    floor = float(low32)
    if lowest < low32 and not integer:
        floor = _floor_far_below(plane, low32)
        for value in _constants(plane, low32):
            empty |= _constant_areas(plane == value)
    if floor == low32 and not empty.any():
        return None
    return Border(floor, float(low32), _runs(empty), faint=False)


def _floor_far_below(plane: np.ndarray, low: np.float32) -> float:
    """Return the value as far below the limit as the sky is above it."""
    rows = _sampled_rows(plane)
    sky = rows[(rows > low) & (rows < math.inf)]
    return float(low - (np.float32(np.median(sky)) - low)) if sky.size else float(low)


def _edge_values(plane: np.ndarray, low: np.float32, most: np.float32) -> list[np.float32]:
    """Return the values above the limit, except for the largest, that are constant along much of an edge."""
    found = set()
    for line in (plane[0], plane[-1], plane[:, 0], plane[:, -1]):
        same = (line[1:] == line[:-1]) & (line[1:] > low) & (line[1:] < most)
        for _, start, _ in _longer(_lengths(same[np.newaxis]), ALONG_EDGE - 1):
            found.add(line[start])
    return sorted(found)


def _up_to(rows: np.ndarray, limit: float) -> np.ndarray:
    """Return the finite samples up to a limit."""
    return (rows <= np.float32(limit)) & (rows > -np.inf)


def _sampled_rows(plane: np.ndarray) -> np.ndarray:
    """Return some of the rows, evenly spaced."""
    return plane[:: max(1, plane.size // SAMPLED)]


def _reaches(plane: np.ndarray, low: np.float32) -> bool:
    """Return whether the noise of the sky reaches the limit."""
    rows = _sampled_rows(plane)
    finite = np.isfinite(rows)
    valid = rows > low
    valid &= finite
    # Runs of a constant value are no sky.
    changing = finite.copy()
    changing[:, 1:] &= (rows[:, 1:] != rows[:, :-1]) | valid[:, 1:]
    below = np.count_nonzero(changing & ~valid & (rows != low))
    if below > BELOW * np.count_nonzero(changing):
        return True
    if not valid.any():
        return False
    known = rows[valid]
    # Interpolation mixes sky and border along their seam.
    inner = rows[valid & _away_from_border(plane, low)]
    known = inner if inner.size > max(ENOUGH, known.size // 50) else known
    darkest = np.partition(known, int(DARKEST * known.size))[int(DARKEST * known.size)]
    return bool(darkest - low <= REACH * _noise(rows, valid))


def _away_from_border(plane: np.ndarray, low: np.float32) -> np.ndarray:
    """Return the samples of the sampled rows whose neighbors up to 2 pixels away are above the limit."""
    height = plane.shape[0]
    rows = np.arange(height)[:: max(1, plane.size // SAMPLED)]
    inner = np.ones((rows.size, plane.shape[1]), np.bool_)
    for step in range(-SEAM, SEAM + 1):
        inner &= plane[np.clip(rows + step, 0, height - 1)] > low
    along = inner.copy()
    for step in range(1, SEAM + 1):
        along[:, step:] &= inner[:, :-step]
        along[:, :-step] &= inner[:, step:]
    return along


def _noise(rows: np.ndarray, valid: np.ndarray) -> float:
    """Return the noise, from second differences along the rows, of valid samples if they suffice."""
    # Every second column: of one color in undebayered frames, and hardly correlated in interpolated ones.
    with np.errstate(invalid="ignore", over="ignore"):
        second = np.abs(rows[:, 4:] - 2 * rows[:, 2:-2] + rows[:, :-4])
    here = second[valid[:, 4:] & valid[:, 2:-2] & valid[:, :-4]]
    if here.size < ENOUGH or np.median(here) == 0:
        # Next to no light: few samples are above the limit, or most are one step above it.
        here = second[(second > 0) & (second < np.inf)]
    return 1.4826 * float(np.median(here)) / math.sqrt(6) if here.size else 0.0


def _constants(plane: np.ndarray, low: np.float32) -> list[np.float32]:
    """Return the values that a border may have: the limit, and those that repeat at the edges or in rows."""
    rows = _sampled_rows(plane)
    repeated = rows[:, 1:][rows[:, 1:] == rows[:, :-1]]
    seen = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1], repeated])
    values, counts = np.unique(seen[(seen <= low) & np.isfinite(seen)], return_counts=True)
    often = np.argsort(-counts, kind="stable")[:3]
    found = [values[k] for k in often if counts[k] >= SHORTEST]
    return found if low in found else [low, *found]


def _constant_areas(same: np.ndarray, inside: bool = True) -> np.ndarray:
    """Find the border among the samples of one value, bool (height, width), and areas `inside` the frame."""
    if np.count_nonzero(same) < SHORTEST:
        return np.zeros_like(same)
    by_row, by_column = _lengths(same), _lengths(np.ascontiguousarray(same.T))
    chance = max(_chance(by_row, same.shape[1], same), _chance(by_column, same.shape[0], same))
    least = SHORTEST
    if chance > 0:
        least = max(SHORTEST, math.ceil(math.log(CHANCE) / math.log(chance))) if chance < 1 else math.inf
    height, width = same.shape
    seeds, across = np.zeros((2, height, width), np.bool_)
    down, along = np.zeros((2, width, height), np.bool_)
    for lengths, on_edge, anywhere, size, lines in (
        (by_row, seeds, across, width, height),
        (by_column, down, along, height, width),
    ):
        for line, start, stop in _longer(lengths, least):
            anywhere[line, start:stop] = True
            if start == 0 or stop == size or line in (0, lines - 1):
                on_edge[line, start:stop] = True
    seeds |= down.T
    if inside:
        seeds |= across & along.T
    if not seeds.any():
        return seeds
    # Where zeros are scattered over the sky, single ones beside a run do not belong to it.
    areas, count = scipy.ndimage.label(same if chance <= SCATTERED else across | along.T)
    chosen = np.zeros(count + 1, np.bool_)
    chosen[areas[seeds]] = True
    return chosen[areas]


def _lengths(same: np.ndarray) -> Runs:
    """Return line, start and stop of all runs along the lines of a mask."""
    padded = np.zeros((same.shape[0], same.shape[1] + 2), np.bool_)
    padded[:, 1:-1] = same
    # Starts and stops take turns, since every line ends with a False.
    places = np.flatnonzero(padded[:, 1:] != padded[:, :-1])
    lines, starts = np.divmod(places[::2], same.shape[1] + 1)
    return lines, starts, places[1::2] % (same.shape[1] + 1)


def _longer(runs: Runs, least: float) -> Iterator[tuple[int, int, int]]:
    lines, starts, stops = runs
    chosen = stops - starts >= least
    return zip(lines[chosen].tolist(), starts[chosen].tolist(), stops[chosen].tolist(), strict=True)


def _chance(runs: Runs, size: int, same: np.ndarray) -> float:
    """Return the probability that noise continues a run by another sample, from the runs inside the plane."""
    _, starts, stops = runs
    others = same.size - np.count_nonzero(same)
    # How often another value is followed by this one.
    chance = np.count_nonzero(starts > 0) / max(others, 1)
    lengths = (stops - starts)[(starts > 0) & (stops < size)]
    if lengths.size >= ENOUGH:
        # Where the sky is darker than elsewhere, runs are longer.
        continued = np.count_nonzero(lengths > 1) / lengths.size
        chance = max(chance, continued, 0.1 ** (1 / np.quantile(lengths, 0.9)))
    return float(min(chance, 1))


def _is_blank(plane: np.ndarray, empty: np.ndarray, low: np.float32) -> bool:
    """Return whether single samples of the value `low` are blanks, far more frequent than their neighbors.

    Where nothing is below, samples were cut off at the limit, and are data.
    """
    rest = _sampled_rows(plane)
    rest = rest[np.isfinite(rest) & ~_sampled_rows(empty)]
    equal = int(np.count_nonzero(rest == low))
    if equal < ENOUGH:
        return False
    others = rest[rest != low]
    if others.size == 0:
        return False
    near = 0.5 * float(np.median(np.abs(others - low)))
    sides = [
        np.abs(side[np.abs(side - low) <= near] - low)
        for side in (others[others < low], others[others > low])
    ]
    fewest = min(side.size for side in sides)
    if fewest < 0.05 * max(side.size for side in sides) or fewest < ENOUGH:
        return False
    usual = max(side.size / np.unique(side).size for side in sides)
    return equal > BLANK * usual + ENOUGH


def _floor(plane: np.ndarray, lowest: float) -> float:
    """Return the lowest value if it is repeated and so far below the sky that it can only be a blank."""
    rows = _sampled_rows(plane)
    rows = rows[np.isfinite(rows)]
    if rows.size == 0:
        return -math.inf
    level = float(np.median(rows))
    scatter = 1.4826 * float(np.median(np.abs(rows - np.float32(level))))
    repeated = np.count_nonzero(plane == np.float32(lowest)) >= SHORTEST
    return float(lowest) if repeated and lowest < level - FAR_BELOW * scatter and lowest < 0 else -math.inf


def _runs(empty: np.ndarray) -> np.ndarray:
    """Return the runs of a mask along its rows, int32 (runs, 3)."""
    return np.stack(_lengths(empty), axis=1).astype(np.int32)
