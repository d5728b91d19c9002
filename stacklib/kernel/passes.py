"""One pass over a band of pixels: gather, normalize, sort, reject, combine, count.

A band is a float32 array ``(frames, pixels)`` of raw samples. It is processed in tiles that fit into the
cache of one core. All arithmetic runs pixel by pixel in a fixed order, so the result does not depend on
how the image is cut into bands and tiles, or on the number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from stacklib.kernel.combination import combine, combine_by_order, fill_saturated
from stacklib.kernel.pixels import Counts, Pixels, Ratios
from stacklib.kernel.scatter import measure_scatter, write_ratios
from stacklib.kernel.tiles import NOISE, REJECTION_OFFSET, Band, TileSamples, frame_table, gather
from stacklib.normalization.settings import Settings
from stacklib.rejection.calibration import median_deviation_factors, typical_variance
from stacklib.rejection.noise_model import Judged
from stacklib.rejection.registry import ALL_ITERATIONS, rule_for
from stacklib.rejection.sorting import LANES, sorting_network

__all__ = ["NO_EXCESS", "Tile", "fill_planes", "run_tiles", "scatter_tiles", "try_tiles"]

#: Bytes of sorted samples in a tile. They share the second-level cache with unsorted and raw ones.
TILE_BYTES = 1 << 18
#: Fewest blocks in a tile. The more frames, the more pixels it takes to fill blocks with those that keep
#: equally many samples. That gains more than is lost where a tile does not fit into the cache.
FEWEST_BLOCKS = 8


#: Bytes of a cache line. A vector across two lines takes twice as long to load.
CACHE_LINE = 64


def _aligned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Create an array that starts at a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + size].view(dtype).reshape(shape)


#: The excess of the noise is not known.
NO_EXCESS = np.empty(0, np.float32)


class Tile:
    """Buffers of one worker, and the work on one tile: sort, reject, combine."""

    def __init__(self, settings: Settings, max_iterations: int = ALL_ITERATIONS) -> None:
        frames = settings.frames
        blocks = max(FEWEST_BLOCKS, TILE_BYTES // (4 * LANES * max(frames, 1)))
        self.max_iterations = max_iterations
        self.network = sorting_network(frames)
        self._set(settings)
        self.samples = TileSamples(
            values=_aligned((blocks, frames, LANES), np.float32),
            ordered=_aligned((blocks, frames, LANES), np.float32),
            count=_aligned((blocks, LANES), np.int32),
            low=_aligned((blocks, LANES), np.int32),
            high=_aligned((blocks, LANES), np.int32),
            detail=_aligned((blocks, 4, LANES), np.float64),
            scatter=_aligned((blocks, 2, LANES), np.float64),
        )
        self.judged: Judged | None = None

    def _set(self, settings: Settings) -> None:
        frames = settings.frames
        self.settings = settings
        rule = rule_for(settings.recipe, frames)
        self.by_frame = rule.spec.by_frame
        self.rule = rule.function
        self.limits = rule.limits(settings.recipe, settings.floor, settings.full_scale)
        self.rule_table = rule.table(settings.recipe, frames)
        self.table = frame_table(settings)
        self.data_range = settings.data_range
        self.claims = np.ones((1, frames + 1, frames + 1)) if settings.claims is None else settings.claims
        self.curve = np.empty((2, 0)) if settings.curve is None else settings.curve
        noise = tuple(settings.relative_noise.tolist())
        self.unbiased, self.typical = median_deviation_factors(noise)[0], typical_variance(noise)

    def sharing(self, settings: Settings) -> Tile:
        """Return a tile with the same buffers and sorted samples for other settings."""
        other = copy.copy(self)
        other._set(settings)
        compared = slice(REJECTION_OFFSET + 1)
        alike = np.array_equal(other.table[compared], self.table[compared])
        if other.data_range != self.data_range or not alike:
            raise ValueError("settings differ in how samples are compared; sort the samples again")
        return other

    @property
    def pixels(self) -> int:
        """Number of pixels that fit."""
        return self.samples.count.size

    def sort(self, raw: np.ndarray, start: int, stop: int) -> TileSamples:
        """Normalize and sort the samples of pixels ``start:stop``; returns the blocks in use."""
        samples = self.samples.first(-(-(stop - start) // LANES))
        # Not all of the samples in one: that takes longer to hand to compiled code.
        values, ordered, count, *_ = samples
        band = Band(raw, start, stop)
        gather(band, self.table, self.data_range, self.network, values, ordered, count)
        return samples

    def measure(self, samples: TileSamples) -> None:
        """Measure the scatter of the sorted samples, which uncertainty and some rules need."""
        _, ordered, count, *_, scatter = samples
        measure_scatter(ordered, count, self.curve, self.unbiased, scatter)

    def measured(self, raw: np.ndarray, first: int, last: int | None) -> Iterator[tuple[Band, TileSamples]]:
        """Sort and measure the pixels ``first:last`` of a band, by default all after `first`, tile by tile.

        The samples are valid until the next tile.
        """
        last = raw.shape[1] if last is None else last
        for start in range(first, last, self.pixels):
            stop = min(start + self.pixels, last)
            samples = self.sort(raw, start, stop)
            self.measure(samples)
            yield Band(raw, start, stop), samples

    def reject(
        self, samples: TileSamples, excess: np.ndarray = NO_EXCESS, limits: bool = False
    ) -> TileSamples:
        """Find which of the sorted samples are kept.

        A rule with limits for each frame needs their scatter, and the `excess` of the noise if it is known.
        The samples returned are those in which kept ones are an interval: the same, or the verdicts of such
        a rule. `limits` stores the limits of each frame in `judged`.
        """
        _, ordered, count, low, high, detail, _ = samples
        if not self.by_frame:
            self.rule(ordered, count, self.limits, self.rule_table, self.max_iterations, low, high, detail)
            return samples
        if self.judged is None or limits:
            shape = self.samples.values.shape
            own = np.empty((shape[0] if limits else 0, 2, *shape[1:]))
            self.judged = Judged(*(_aligned(shape, np.float32) for _ in range(2)), own)
        judged = Judged(*(array[: len(ordered)] for array in self.judged))
        noise = self.table[NOISE]
        self.rule(samples, judged, noise, self.typical, excess, self.limits, self.max_iterations)
        return samples._replace(values=judged.values, ordered=judged.ordered)

    def combine(self, band: Band, samples: TileSamples, pixels: Pixels, counts: Counts) -> TileSamples:
        """Reject among the sorted samples, combine the survivors and count the others.

        Returns the samples as `reject` does.
        """
        excess = pixels.excess[band.start : band.stop] if self.by_frame else NO_EXCESS
        samples = self.reject(samples, excess)
        recipe = self.settings.recipe
        how = recipe.map_range_rejection, self.by_frame
        combine(band, samples, self.table, self.data_range, how, self.claims, pixels, counts.table)
        if recipe.combination in _POSITIONS:
            position = _POSITIONS[recipe.combination]
            combine_by_order(band, samples, self.table, self.network, position, pixels.image)
        if recipe.range_clip_high:
            data_high = self.data_range[1]
            fill_saturated(band, samples.count, self.table, data_high, pixels.image, pixels.coverage)
        return samples


#: Relative position of the combined value among the sorted survivors.
_POSITIONS = {"median": 0.5, "minimum": 0.0, "maximum": 1.0}


def run_tiles(
    raw: np.ndarray, settings: Settings, pixels: Pixels, first: int = 0, last: int | None = None
) -> Counts:
    """Integrate a band, float32 (frames, pixels) and contiguous along the pixels, in the calling thread.

    The pixels ``first:last`` are integrated, by default all, and `pixels`, arrays of shape (pixels,), are
    filled. Returns the samples of each frame by verdict.
    """
    return try_tiles(raw, [settings], [pixels], first, last)[0]


def try_tiles(
    raw: np.ndarray,
    settings: Sequence[Settings],
    pixels: Sequence[Pixels],
    first: int = 0,
    last: int | None = None,
) -> list[Counts]:
    """Integrate a band with several settings, normalizing and sorting its samples once.

    The results are those of `run_tiles` for each of the settings, bit for bit. Raises ValueError if the
    settings differ in `rejection_factor`, `rejection_offset` or `data_range`.
    """
    tile = Tile(settings[0])
    tiles = [tile, *(tile.sharing(other) for other in settings[1:])]
    counts = [Counts.zeros(tile.settings.frames) for tile in tiles]
    measured = any(each.by_frame for each in tiles) or any(each.uncertainty.size for each in pixels)
    last = raw.shape[1] if last is None else last
    for start in range(first, last, tile.pixels):
        stop = min(start + tile.pixels, last)
        samples = tile.sort(raw, start, stop)
        if measured:
            tile.measure(samples)
        # While the sorted samples are in the cache.
        for each, out, counted in zip(tiles, pixels, counts, strict=True):
            each.combine(Band(raw, start, stop), samples, out, counted)
    return counts


def scatter_tiles(
    raw: np.ndarray, settings: Settings, ratios: Ratios, first: int = 0, last: int | None = None
) -> None:
    """Fill the ratios of the pixels ``first:last`` of a band, with the bits of `run_tiles`."""
    for band, samples in Tile(settings).measured(raw, first, last):
        write_ratios(samples, band.start, band.stop, ratios)


def fill_planes(
    raw: np.ndarray, settings: Settings, planes: Pixels | Ratios, first: int = 0, last: int | None = None
) -> Counts:
    """Call `run_tiles` or `scatter_tiles`, as the planes ask for. The latter counts no samples."""
    if isinstance(planes, Pixels):
        return run_tiles(raw, settings, planes, first, last)
    scatter_tiles(raw, settings, planes, first, last)
    return Counts.zeros(settings.frames)
