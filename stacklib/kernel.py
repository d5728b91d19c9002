"""One pass over a band of pixels: gather, normalise, sort, reject, combine, count.

A band is a float32 array ``(frames, pixels)`` of raw samples. It is worked through in tiles that fit
into the cache of one core. All arithmetic is done pixel by pixel in a fixed order, so the result does
not depend on how the image is cut into bands and tiles, or on the number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stacklib.compiled import compiled
from stacklib.estimators import absolute_deviation, median
from stacklib.recipe import Recipe
from stacklib.rejection import ALL_ITERATIONS, SLOPE, rule_for
from stacklib.sorting import LANES, sort_block, sorting_network

__all__ = [
    "HIGH",
    "KEPT",
    "LOW",
    "NO_DATA",
    "Counts",
    "Pixels",
    "Settings",
    "last_round",
    "reject",
    "run_tiles",
    "verdicts",
]

#: What became of a sample.
NO_DATA, KEPT, LOW, HIGH = 0, 1, 2, 3

#: Bytes of sorted samples in a tile: they share the second-level cache with as many unsorted and raw ones.
TILE_BYTES = 1 << 17


@dataclass(frozen=True)
class Settings:
    """What the kernel needs to know for one channel, as plain arrays.

    Attributes
    ----------
    recipe : Recipe
        The parameters; `floor` and `full_scale` complete them for the rule.
    rejection_factor, rejection_offset, factor, offset, weights : ndarray of float64, shape (frames,)
        A sample is compared as ``x * rejection_factor + rejection_offset`` and combined as
        ``x * factor + offset``.
    floor : float
        Smallest scale that a rule believes (quantised data), in normalised units.
    full_scale : float
        ADU at the value 1.
    claims : ndarray of float64, shape (frames + 1, frames + 1), or None
        What the standard error of a pixel is multiplied by, by the number of its samples and of those
        rejected, see `stacklib.uncertainty`; None leaves it as it is.
    """

    recipe: Recipe
    rejection_factor: np.ndarray
    rejection_offset: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    weights: np.ndarray
    floor: float = 0.0
    full_scale: float = 65535.0
    claims: np.ndarray | None = None

    @classmethod
    def plain(cls, recipe: Recipe, frames: int) -> Settings:
        """No normalisation and equal weights."""
        one, zero = np.ones(frames), np.zeros(frames)
        return cls(recipe, one, zero, one, zero, one)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.weights.size

    @property
    def data_range(self) -> tuple[float, float]:
        """Raw samples strictly between these are data that takes part."""
        low = self.recipe.range_low if self.recipe.range_clip_low else -math.inf
        high = self.recipe.range_high if self.recipe.range_clip_high else math.inf
        return np.float32(low), np.float32(high)


@dataclass
class Pixels:
    """What comes out for each pixel; float32 arrays of one shape, (pixels,) for the kernel.

    Attributes
    ----------
    image : the combined value; 0 where there is no data.
    uncertainty : standard error from the scatter of the samples; NaN with fewer than 2 of them.
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
    def empty(cls, shape: int | tuple[int, ...], settings: Settings) -> Pixels:
        """Arrays to be filled; a slope that the rule does not give has no pixels."""
        shape = np.atleast_1d(shape)
        image, uncertainty, low, high, coverage = (np.empty(shape, np.float32) for _ in range(5))
        with_slope = settings.recipe.rule_for(settings.frames) == "linear_fit"
        slope = np.empty(shape if with_slope else (*shape[:-1], 0), np.float32)
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
    """How many samples of each frame were rejected; int64 arrays of shape (frames,)."""

    low: np.ndarray
    high: np.ndarray
    range_low: np.ndarray
    range_high: np.ndarray
    data: np.ndarray

    @classmethod
    def zeros(cls, frames: int) -> Counts:
        """Nothing counted yet."""
        return cls(*(np.zeros(frames, np.int64) for _ in range(5)))

    def add(self, other: Counts) -> None:
        """Add the counts of another part of the image."""
        for name in ("low", "high", "range_low", "range_high", "data"):
            getattr(self, name)[:] += getattr(other, name)


@compiled
def _row(raw, i, start, stop, padded):
    """`LANES` raw samples of frame `i` from pixel `start`; beyond `stop` they are no data."""
    if start + LANES <= stop:
        return raw[i, start : start + LANES]
    for p in range(LANES):
        padded[p] = raw[i, start + p] if start + p < stop else np.nan
    return padded


@compiled
def gather(raw, start, stop, factor, offset, data_low, data_high, network, values, ordered, count):
    """Normalise the samples of a tile and sort them, pixel by pixel; what is no data goes to the end.

    `values` keeps them in the order of the frames, infinite where there is no data.
    """
    padded = np.empty(LANES, np.float32)
    count[:] = 0
    # Frame by frame, so that memory is read in long runs.
    for i in range(raw.shape[0]):
        f = factor[i]
        o = offset[i]
        for b in range(ordered.shape[0]):
            row = _row(raw, i, start + b * LANES, stop, padded)
            samples = ordered[b, i]
            unsorted = values[b, i]
            valid = count[b]
            for p in range(LANES):
                x = row[p]
                is_data = (x > data_low) & (x < data_high)
                v = np.float32(np.float64(x) * f + o)
                v = v if is_data else np.float32(np.inf)
                samples[p] = v
                unsorted[p] = v
                valid[p] += np.int32(is_data)
    for b in range(ordered.shape[0]):
        sort_block(ordered[b], network)


@compiled
def _limits_by_value(ordered, count, low, high, lowest, highest):
    """The smallest and the largest kept value of each pixel; ties with a kept value are kept."""
    for p in range(LANES):
        lo, hi = low[p], high[p]
        if hi > lo:
            lowest[p] = ordered[lo, p]
            highest[p] = ordered[hi - 1, p]
            while lo > 0 and ordered[lo - 1, p] == lowest[p]:
                lo -= 1
            while hi < count[p] and ordered[hi, p] == highest[p]:
                hi += 1
            low[p] = lo
            high[p] = hi
        else:
            lowest[p] = np.inf
            highest[p] = -np.inf


@compiled
def _survivors(row, values, limit, kept):
    """Fill `kept` with 1 for each sample that survives, and with the sample; 0 and 0 for the others."""
    n_data = np.int32(0)
    n_low = np.int32(0)
    n_high = np.int32(0)
    for p in range(LANES):
        v = values[p]
        too_low = v < limit[p]
        too_high = v > limit[LANES + p]
        is_data = v < np.inf
        keep = (not too_low) & (not too_high)
        kept[p] = np.float32(1.0) if keep else np.float32(0.0)
        kept[LANES + p] = row[p] if keep else np.float32(0.0)
        n_data += np.int32(is_data)
        n_low += np.int32(too_low & is_data)
        n_high += np.int32(too_high & is_data)
    return n_data, n_low, n_high


#: The least sigma of a clipped pixel, in median absolute deviations of all its samples.
LEAST_SCATTER = 0.7 * 1.4826

#: Where the sums of `combine` start in their array: weights, weighted deviations and their squares.
CENTRE, W, WD, WDD = (part * LANES for part in range(4))


@compiled
def combine(
    raw,
    start,
    stop,
    values,
    ordered,
    count,
    low,
    high,
    detail,
    rejection_factor,
    factor,
    offset,
    weights,
    data_low,
    data_high,
    map_range,
    claims,
    rejected_low,
    rejected_high,
    range_low,
    range_high,
    data,
    image,
    uncertainty,
    map_low,
    map_high,
    coverage,
    slope,
):
    """Weighted average of the survivors of a tile, its standard error, and the counts.

    The variance of the average of m survivors is ``sum w (y - mean)^2 / sum w / (m - 1)``, as for weights
    that are inverse variances; how far others are from that is in `claims`. Where samples were rejected it
    is at least that of the median absolute deviation of all samples, see `LEAST_SCATTER`.
    """
    frames = raw.shape[0]
    padded = np.empty(LANES, np.float32)
    # One flat array for each use: the compiler sees that its parts do not overlap, and vectorises.
    limit = np.empty(2 * LANES, np.float32)
    kept = np.empty((2, 2 * LANES), np.float32)
    total = np.empty(4 * LANES)
    outside = np.empty(2 * LANES, np.int32)
    # From the units in which samples are compared to those in which they are combined.
    rescaled = factor.sum() / rejection_factor.sum()
    lowest, highest = limit[:LANES], limit[LANES:]
    for b in range(ordered.shape[0]):
        _limits_by_value(ordered[b], count[b], low[b], high[b], lowest, highest)
        total[:] = 0.0
        outside[:] = 0
        for p in range(LANES):
            if high[b, p] > low[b, p]:
                total[CENTRE + p] = ordered[b, (low[b, p] + high[b, p]) // 2, p]
        first = start + b * LANES
        for i in range(0, frames, 2):
            # Two frames at a time: the sums are loaded and stored half as often.
            kept[:] = 0.0
            for j in range(i, min(i + 2, frames)):
                row = _row(raw, j, first, stop, padded)
                n_data, n_low, n_high = _survivors(row, values[b, j], limit, kept[j - i])
                data[j] += n_data
                rejected_low[j] += n_low
                rejected_high[j] += n_high
                if n_data < LANES:
                    for p in range(min(LANES, stop - first)):
                        if row[p] <= data_low and row[p] > -np.inf:
                            outside[p] += 1
                            range_low[j] += 1
                        elif row[p] >= data_high and row[p] < np.inf:
                            outside[LANES + p] += 1
                            range_high[j] += 1
            j = min(i + 1, frames - 1)
            f1, o1, w1 = factor[i], offset[i], weights[i]
            f2, o2, w2 = factor[j], offset[j], weights[j]
            kept1, kept2 = kept[0], kept[1]
            for p in range(LANES):
                k1 = np.float64(kept1[p])
                k2 = np.float64(kept2[p])
                d1 = (np.float64(kept1[LANES + p]) * f1 + o1 - total[CENTRE + p]) * k1
                d2 = (np.float64(kept2[LANES + p]) * f2 + o2 - total[CENTRE + p]) * k2
                total[W + p] += w1 * k1 + w2 * k2
                total[WD + p] += w1 * d1 + w2 * d2
                total[WDD + p] += w1 * d1 * d1 + w2 * d2 * d2
        for p in range(min(LANES, stop - first)):
            q = first + p
            survivors = high[b, p] - low[b, p]
            below_range, above_range = outside[p], outside[LANES + p]
            map_low[q] = low[b, p] + (below_range if map_range else 0)
            map_high[q] = count[b, p] - high[b, p] + (above_range if map_range else 0)
            coverage[q] = count[b, p] + above_range
            if slope.size > 0:
                slope[q] = detail[b, p, SLOPE]
            image[q] = 0.0
            uncertainty[q] = np.nan
            sum_w = total[W + p]
            if survivors > 0:
                mean = total[WD + p] / sum_w
                image[q] = total[CENTRE + p] + mean
                rejected = count[b, p] - survivors
                variance = np.nan
                if survivors > 1:
                    scatter = total[WDD + p] - mean * total[WD + p]
                    variance = max(scatter, 0.0) / sum_w / (survivors - 1.0)
                if rejected > 0:
                    # Survivors may agree by chance: all samples, outliers or not, show the least scatter.
                    # Half of them lie in the middle half, which is mostly near enough to spare the search.
                    n = count[b, p]
                    column = ordered[b, :, p]
                    centre = median(column, 0, n)
                    first_quarter = n // 4
                    nearest = max(centre - column[first_quarter], column[first_quarter + n // 2] - centre)
                    unit = (LEAST_SCATTER * rescaled) ** 2 / survivors
                    if not variance >= unit * nearest * nearest:
                        spread = absolute_deviation(column, 0, n, centre, (n - 1) // 2)
                        spread = 0.5 * (spread + absolute_deviation(column, 0, n, centre, n // 2))
                        variance = (
                            max(variance, unit * spread * spread) if survivors > 1 else unit * spread**2
                        )
                uncertainty[q] = claims[count[b, p], rejected] * math.sqrt(variance)


@compiled
def combine_by_order(
    raw,
    start,
    stop,
    values,
    ordered,
    low,
    high,
    factor,
    offset,
    network,
    position,
    image,
):
    """Median (position 0.5), minimum (0) or maximum (1) of the survivors; overwrites `image`."""
    frames = raw.shape[0]
    padded = np.empty(LANES, np.float32)
    block = np.empty((frames, LANES), np.float32)
    for b in range(ordered.shape[0]):
        first = start + b * LANES
        for i in range(frames):
            row = _row(raw, i, first, stop, padded)
            for p in range(LANES):
                block[i, p] = np.inf
                v = values[b, i, p]
                some = high[b, p] > low[b, p] and v < np.inf
                if some and ordered[b, low[b, p], p] <= v <= ordered[b, high[b, p] - 1, p]:
                    block[i, p] = np.float64(row[p]) * factor[i] + offset[i]
        sort_block(block, network)
        for p in range(min(LANES, stop - first)):
            survivors = high[b, p] - low[b, p]
            if survivors > 0:
                if position == 0.5:
                    image[first + p] = median(block[:, p], 0, survivors)
                else:
                    image[first + p] = block[0 if position == 0.0 else survivors - 1, p]


@compiled
def fill_saturated(raw, start, stop, count, coverage, factor, offset, data_high, image):
    """Where every sample is at or above the high range: their median, not a hole."""
    frames = raw.shape[0]
    values = np.empty(frames)
    for q in range(start, stop):
        b, p = (q - start) // LANES, (q - start) % LANES
        if count[b, p] == 0 and coverage[q] > 0:
            n = 0
            for i in range(frames):
                x = raw[i, q]
                if x >= data_high and x < np.inf:
                    values[n] = np.float64(x) * factor[i] + offset[i]
                    n += 1
            values[:n] = np.sort(values[:n])
            image[q] = median(values, 0, n)


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


class _Tile:
    """Buffers of one worker, and the first half of the work: sort and reject."""

    def __init__(self, settings: Settings, max_iterations: int = ALL_ITERATIONS) -> None:
        frames = settings.frames
        blocks = max(1, TILE_BYTES // (4 * LANES * max(frames, 1)))
        self.settings = settings
        self.max_iterations = max_iterations
        self.network = sorting_network(frames)
        rule = rule_for(settings.recipe, frames)
        self.rule = rule.function
        self.limits = rule.limits(settings.recipe, settings.floor, settings.full_scale)
        self.table = rule.table(settings.recipe, frames)
        self.values = np.empty((blocks, frames, LANES), np.float32)
        self.ordered = np.empty((blocks, frames, LANES), np.float32)
        self.count = np.empty((blocks, LANES), np.int32)
        self.low = np.empty((blocks, LANES), np.int32)
        self.high = np.empty((blocks, LANES), np.int32)
        self.detail = np.empty((blocks, LANES, 4))

    @property
    def pixels(self) -> int:
        """Pixels that fit."""
        return self.count.size

    def load(self, raw: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Sort the samples of pixels ``start:stop`` and find what is kept.

        Returns views ``ordered, count, low, high, detail`` of the blocks in use.
        """
        s = self.settings
        blocks = -(-(stop - start) // LANES)
        views = tuple(a[:blocks] for a in (self.ordered, self.count, self.low, self.high, self.detail))
        ordered, count, low, high, detail = views
        factor, offset = s.rejection_factor, s.rejection_offset
        gather(
            raw,
            start,
            stop,
            factor,
            offset,
            *s.data_range,
            self.network,
            self.values[:blocks],
            ordered,
            count,
        )
        self.rule(ordered, count, self.limits, self.table, self.max_iterations, low, high, detail)
        return views


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
    tile = _Tile(settings)
    counts = Counts.zeros(settings.frames)
    claims = np.ones((settings.frames + 1,) * 2) if settings.claims is None else settings.claims
    s = settings
    data_low, data_high = s.data_range
    last = raw.shape[1] if last is None else last
    for start in range(first, last, tile.pixels):
        stop = min(start + tile.pixels, last)
        ordered, count, low, high, detail = tile.load(raw, start, stop)
        combine(
            raw,
            start,
            stop,
            tile.values,
            ordered,
            count,
            low,
            high,
            detail,
            s.rejection_factor,
            s.factor,
            s.offset,
            s.weights,
            data_low,
            data_high,
            s.recipe.map_range_rejection,
            claims,
            counts.low,
            counts.high,
            counts.range_low,
            counts.range_high,
            counts.data,
            *pixels.arrays(),
        )
        if s.recipe.combination in _POSITIONS:
            combine_by_order(
                raw,
                start,
                stop,
                tile.values,
                ordered,
                low,
                high,
                s.factor,
                s.offset,
                tile.network,
                _POSITIONS[s.recipe.combination],
                pixels.image,
            )
        if s.recipe.range_clip_high:
            fill_saturated(
                raw, start, stop, count, pixels.coverage, s.factor, s.offset, data_high, pixels.image
            )
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
        Centre, lower limit, upper limit and slope, see `stacklib.rejection`.
    """
    tile = _Tile(settings, max_iterations)
    verdict = np.empty(raw.shape, np.uint8)
    detail = np.empty((raw.shape[1], 4))
    for start in range(0, raw.shape[1], tile.pixels):
        stop = min(start + tile.pixels, raw.shape[1])
        ordered, _, low, high, details = tile.load(raw, start, stop)
        judge(tile.values, start, stop, ordered, low, high, verdict)
        detail[start:stop] = details.reshape(-1, 4)[: stop - start]
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
