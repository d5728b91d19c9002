"""One pass over a band of pixels: gather, normalise, sort, reject, combine, count.

A band is a float32 array ``(frames, pixels)`` of raw samples. It is worked through in tiles that fit
into the cache of one core. All arithmetic is done pixel by pixel in a fixed order, so the result does
not depend on how the image is cut into bands and tiles, or on the number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stacklib.kernel.combination import COUNTED, combine, combine_by_order, fill_saturated
from stacklib.kernel.tiles import REJECTION_FACTOR, REJECTION_OFFSET, gather
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES
from stacklib.rejection.registry import ALL_ITERATIONS, rule_for
from stacklib.rejection.sorting import LANES, sorting_network
from stacklib.utils.compiled import compiled

__all__ = [
    "HIGH",
    "KEPT",
    "LOW",
    "NO_DATA",
    "Counts",
    "Pixels",
    "Tile",
    "last_round",
    "reject",
    "run_tiles",
    "try_tiles",
    "verdicts",
]

#: What became of a sample.
NO_DATA, KEPT, LOW, HIGH = 0, 1, 2, 3

#: Bytes of sorted samples in a tile: they share the second-level cache with as many unsorted and raw ones.
TILE_BYTES = 1 << 18


@dataclass
class Pixels:
    """What comes out for each pixel; float32 arrays of one shape, (pixels,) for the kernel.

    Attributes
    ----------
    image : the combined value; 0 where there is no data.
    uncertainty : standard error from the scatter of the samples; NaN with fewer than 2 of them; empty where
        it is not wanted.
    rejection_low, rejection_high : rejected samples of that side.
    coverage : samples that are data, saturated ones included.
    slope : slope of the linear fit, per frame; empty for other rules.
    """

    image: np.ndarray
    uncertainty: np.ndarray
    rejection_low: np.ndarray
    rejection_high: np.ndarray
    coverage: np.ndarray
    slope: np.ndarray

    @classmethod
    def empty(cls, shape: int | tuple[int, ...], settings: Settings, with_uncertainty: bool = True) -> Pixels:
        """Arrays to be filled; what is not wanted, or a slope that the rule does not give, has no pixels."""
        shape = np.atleast_1d(shape)
        image, low, high, coverage = (np.empty(shape, np.float32) for _ in range(4))
        with_slope = RULES[settings.recipe.rule_for(settings.frames)].gives_slope
        uncertainty, slope = (
            np.empty(shape if wanted else (*shape[:-1], 0), np.float32)
            for wanted in (with_uncertainty, with_slope)
        )
        return cls(image, uncertainty, low, high, coverage, slope)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays in order."""
        return (
            self.image,
            self.uncertainty,
            self.rejection_low,
            self.rejection_high,
            self.coverage,
            self.slope,
        )

    def part(self, index: int | slice) -> Pixels:
        """Views of a channel, or of some of the pixels."""
        return Pixels(*(array[index] for array in self.arrays()))


@dataclass
class Counts:
    """How many samples of each frame were rejected, beyond the ranges, or data.

    Attributes
    ----------
    table : ndarray of int64, shape (5, frames)
        One row for each of the properties.
    """

    table: np.ndarray

    @classmethod
    def zeros(cls, frames: int) -> Counts:
        """Nothing counted yet."""
        return cls(np.zeros((len(COUNTED), frames), np.int64))

    def add(self, other: Counts) -> None:
        """Add the counts of another part of the image."""
        self.table += other.table

    @property
    def low(self) -> np.ndarray:
        """Samples rejected as too low, (frames,)."""
        return self.table[COUNTED.index("low")]

    @property
    def high(self) -> np.ndarray:
        """Samples rejected as too high, (frames,)."""
        return self.table[COUNTED.index("high")]

    @property
    def range_low(self) -> np.ndarray:
        """Samples at or below the low range limit, (frames,)."""
        return self.table[COUNTED.index("range_low")]

    @property
    def range_high(self) -> np.ndarray:
        """Samples at or above the high range limit, (frames,)."""
        return self.table[COUNTED.index("range_high")]

    @property
    def data(self) -> np.ndarray:
        """Samples that take part, rejected or not, (frames,)."""
        return self.table[COUNTED.index("data")]


@compiled
def judge(values, start, stop, ordered, low, high, verdict):
    """Write what became of each sample of a tile into `verdict`, uint8 (frames, pixels)."""
    for i in range(verdict.shape[0]):
        for q in range(start, stop):
            b, p = (q - start) // LANES, (q - start) % LANES
            v = values[b, i, p]
            verdict[i, q] = NO_DATA
            if v < np.inf:
                if v < ordered[b, low[b, p], p]:
                    verdict[i, q] = LOW
                elif v > ordered[b, high[b, p] - 1, p]:
                    verdict[i, q] = HIGH
                else:
                    verdict[i, q] = KEPT


#: Bytes of a line of the cache: a vector across two of them takes twice as long to load.
CACHE_LINE = 64


def _aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array that starts with a line of the cache."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + size].view(dtype).reshape(shape)


class Tile:
    """Buffers of one worker, and the work on one tile: sort, reject, combine."""

    def __init__(self, settings: Settings, max_iterations: int = ALL_ITERATIONS) -> None:
        frames = settings.frames
        blocks = max(1, TILE_BYTES // (4 * LANES * max(frames, 1)))
        self.max_iterations = max_iterations
        self.network = sorting_network(frames)
        self._set(settings)
        self.values = _aligned((blocks, frames, LANES), np.float32)
        self.ordered = _aligned((blocks, frames, LANES), np.float32)
        self.count = _aligned((blocks, LANES), np.int32)
        self.low = _aligned((blocks, LANES), np.int32)
        self.high = _aligned((blocks, LANES), np.int32)
        self.detail = _aligned((blocks, 4, LANES), np.float64)

    def _set(self, settings: Settings) -> None:
        frames = settings.frames
        self.settings = settings
        rule = rule_for(settings.recipe, frames)
        self.rule = rule.function
        self.limits = rule.limits(settings.recipe, settings.floor, settings.full_scale)
        self.rule_table = rule.table(settings.recipe, frames)
        self.table = settings.table
        self.data_range = settings.data_range
        self.claims = np.ones((frames + 1,) * 2) if settings.claims is None else settings.claims

    def sharing(self, settings: Settings) -> Tile:
        """A tile with the same buffers and other settings, of which the samples need not be sorted again."""
        other = copy.copy(self)
        other._set(settings)
        sorting = slice(REJECTION_FACTOR, REJECTION_OFFSET + 1)
        if other.data_range != self.data_range or not np.array_equal(
            other.table[sorting], self.table[sorting]
        ):
            raise ValueError("settings differ in how samples are compared: they must be sorted again")
        return other

    @property
    def pixels(self) -> int:
        """Pixels that fit."""
        return self.count.size

    def sort(self, raw: np.ndarray, start: int, stop: int) -> None:
        """Normalise and sort the samples of pixels ``start:stop``."""
        blocks = -(-(stop - start) // LANES)
        gather(
            raw,
            start,
            stop,
            self.table,
            *self.data_range,
            self.network,
            self.values[:blocks],
            self.ordered[:blocks],
            self.count[:blocks],
        )

    def reject(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Find what is kept of the sorted samples.

        Returns views ``ordered, count, low, high, detail`` of the blocks in use.
        """
        blocks = -(-(stop - start) // LANES)
        views = tuple(a[:blocks] for a in (self.ordered, self.count, self.low, self.high, self.detail))
        ordered, count, low, high, detail = views
        self.rule(ordered, count, self.limits, self.rule_table, self.max_iterations, low, high, detail)
        return views

    def load(self, raw: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Sort the samples of pixels ``start:stop`` and find what is kept; see `reject`."""
        self.sort(raw, start, stop)
        return self.reject(start, stop)

    def combine(self, raw: np.ndarray, start: int, stop: int, pixels: Pixels, counts: Counts) -> None:
        """Reject among the sorted samples, combine the survivors and count the others."""
        ordered, count, low, high, detail = self.reject(start, stop)
        recipe = self.settings.recipe
        data_low, data_high = self.data_range
        combine(
            raw,
            start,
            stop,
            self.values,
            ordered,
            count,
            low,
            high,
            detail,
            self.table,
            data_low,
            data_high,
            recipe.map_range_rejection,
            self.claims,
            counts.table,
            *pixels.arrays(),
        )
        if recipe.combination in _POSITIONS:
            position = _POSITIONS[recipe.combination]
            combine_by_order(
                raw,
                start,
                stop,
                self.values,
                ordered,
                low,
                high,
                self.table,
                self.network,
                position,
                pixels.image,
            )
        if recipe.range_clip_high:
            fill_saturated(raw, start, stop, count, pixels.coverage, self.table, data_high, pixels.image)


#: Where the values of an order combination stand among the sorted survivors.
_POSITIONS = {"median": 0.5, "minimum": 0.0, "maximum": 1.0}


def run_tiles(
    raw: np.ndarray, settings: Settings, pixels: Pixels, first: int = 0, last: int | None = None
) -> Counts:
    """Integrate a band, or a part of one, in the calling thread.

    Parameters
    ----------
    raw : ndarray of float32, shape (frames, pixels)
        Raw samples; contiguous along the pixels.
    settings : Settings
        Normalisation, weights and rule.
    pixels : Pixels
        Filled; arrays of shape (pixels,).
    first, last : int, optional
        The pixels to work on; all unless given.

    Returns
    -------
    Counts
        Rejected samples of each frame.
    """
    return try_tiles(raw, [settings], [pixels], first, last)[0]


def try_tiles(
    raw: np.ndarray,
    settings: Sequence[Settings],
    pixels: Sequence[Pixels],
    first: int = 0,
    last: int | None = None,
) -> list[Counts]:
    """Integrate a band with several settings; its samples are normalised and sorted once.

    Parameters
    ----------
    raw, first, last
        See `run_tiles`.
    settings : sequence of Settings
        At least one; all with the same `rejection_factor`, `rejection_offset` and `data_range`.
    pixels : sequence of Pixels
        Filled, one for each of the settings.

    Returns
    -------
    list of Counts
        The same bits as `run_tiles` gives for each of the settings.

    Raises
    ------
    ValueError
        When the settings do not compare samples in the same way.
    """
    tile = Tile(settings[0])
    tiles = [tile, *(tile.sharing(other) for other in settings[1:])]
    counts = [Counts.zeros(tile.settings.frames) for tile in tiles]
    last = raw.shape[1] if last is None else last
    for start in range(first, last, tile.pixels):
        stop = min(start + tile.pixels, last)
        tile.sort(raw, start, stop)
        # While the sorted samples are in the cache.
        for each, out, counted in zip(tiles, pixels, counts, strict=True):
            each.combine(raw, start, stop, out, counted)
    return counts


def verdicts(raw: np.ndarray, settings: Settings, max_iterations: int = ALL_ITERATIONS) -> np.ndarray:
    """What becomes of every sample of a band.

    Parameters
    ----------
    raw : ndarray of float32, shape (frames, pixels)
        Raw samples.
    settings : Settings
        Normalisation and rule.
    max_iterations : int
        Rounds of clipping at most.

    Returns
    -------
    ndarray of uint8, shape (frames, pixels)
        `NO_DATA`, `KEPT`, `LOW` or `HIGH`.
    """
    return last_round(raw, settings, max_iterations)[0]


def last_round(
    raw: np.ndarray, settings: Settings, max_iterations: int = ALL_ITERATIONS
) -> tuple[np.ndarray, np.ndarray]:
    """`verdicts`, and what the last round of each pixel went by.

    Returns
    -------
    verdict : ndarray of uint8, shape (frames, pixels)
        What becomes of every sample.
    detail : ndarray of float64, shape (pixels, 4)
        Centre, lower limit, upper limit and slope, see `stacklib.rejection.clipping`.
    """
    tile = Tile(settings, max_iterations)
    verdict = np.empty(raw.shape, np.uint8)
    detail = np.empty((raw.shape[1], 4))
    for start in range(0, raw.shape[1], tile.pixels):
        stop = min(start + tile.pixels, raw.shape[1])
        ordered, _, low, high, details = tile.load(raw, start, stop)
        judge(tile.values, start, stop, ordered, low, high, verdict)
        detail[start:stop] = np.moveaxis(details, 1, 2).reshape(-1, 4)[: stop - start]
    return verdict, detail


def reject(stack: np.ndarray, recipe: Recipe, max_iterations: int = ALL_ITERATIONS) -> np.ndarray:
    """Apply the rejection rule of a recipe to a stack: no files, no normalisation.

    Parameters
    ----------
    stack : array_like of float32, shape (frames, height, width)
        Registered samples. NaN and infinite samples are no data, as are those that the range limits of
        the recipe leave out.
    recipe : Recipe
        The rule and its limits.
    max_iterations : int, optional
        Rounds of clipping at most; as many as it takes unless given.

    Returns
    -------
    ndarray of bool, shape (frames, height, width)
        True where a sample is kept.

    Examples
    --------
    >>> stack = np.full((12, 1, 1), 0.1, np.float32)
    >>> stack[:, 0, 0] += np.linspace(-0.001, 0.001, 12)
    >>> stack[4] = 0.5
    >>> int(reject(stack, Recipe(rejection="sigma", sigma_high=3)).sum())
    11
    """
    stack = np.asarray(stack, dtype=np.float32)
    if stack.ndim != 3 or len(stack) == 0:
        raise ValueError(f"stack has the shape {stack.shape}, expected (frames, height, width)")
    raw = np.ascontiguousarray(stack).reshape(stack.shape[0], -1)
    kept = verdicts(raw, Settings.plain(recipe, stack.shape[0]), max_iterations) == KEPT
    return kept.reshape(stack.shape)
