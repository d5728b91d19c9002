"""Trial of many limits of a clipping rule on one sorted tile.

Center, scale and combined value of a clipping rule depend on the kept interval of the sorted samples only.
Many limits lead to few intervals. So center and scale are computed once for each interval of a pixel, the
samples of each final interval are combined once, and every setting takes its value from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stacklib.kernel.combination import combine
from stacklib.kernel.passes import Tile
from stacklib.kernel.pixels import Counts, Pixels
from stacklib.kernel.tiles import Band, TileSamples
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES
from stacklib.rejection.clipping import CENTRE, LOWER, clip
from stacklib.rejection.registry import rule_for
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = ["LimitTrials", "can_share", "without_limits"]

#: Largest number of intervals of a pixel. If there are more, the rule runs once for each setting.
MOST = 96
#: With this limit a rule drops nothing and its scale can be read exactly from its limits: a power of two only
#: changes the exponent, and the center is lost in rounding. The least scale is 2e-162, the root of the least
#: float64.
ASKED = 2.0**900
#: Pixels whose values are copied together: a line of the cache.
LINE = 16


def can_share(settings: Settings) -> bool:
    """Whether rule and combination allow shared work."""
    recipe = settings.recipe
    plain = recipe.combination == "average" and not recipe.range_clip_high
    return RULES[recipe.rule_for(settings.frames)].shares_trials and plain


def without_limits(recipe: Recipe) -> Recipe:
    """Return the recipe with default limits, equal for recipes that differ in their limits only."""
    defaults = Recipe.parameters()
    limits = RULES[recipe.rejection].limits
    return recipe.replace(clip_low=True, clip_high=True, **{name: defaults[name].default for name in limits})


class Intervals(NamedTuple):
    """Kept intervals of the pixels of a tile, one entry each, shape (room,).

    `low` and `high` (int32) bound the sorted samples of `pixel`; `centre` and `scale` (float64) are the
    answer of the rule for them.
    """

    pixel: np.ndarray
    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    scale: np.ndarray


class Progress(NamedTuple):
    """How far each pixel of a tile is.

    `known` holds the intervals of each pixel, int32 (pixels, MOST), -1 for none; `state` the interval of each
    setting, int32 (pixels, settings), and `done` whether that is final.
    """

    known: np.ndarray
    state: np.ndarray
    done: np.ndarray


class Combined(NamedTuple):
    """Combined value of each interval, and number of samples rejected below and above it."""

    value: np.ndarray
    below: np.ndarray
    above: np.ndarray


@compiled
def _begin(count, pixels, intervals, progress):
    """Start with one interval for each pixel: all of its samples."""
    for q in range(pixels):
        intervals.low[q] = 0
        intervals.high[q] = count[q // LANES, q % LANES]
        progress.known[q, 0] = q
        progress.known[q, 1:] = -1
        progress.state[q] = q
        progress.done[q] = False
    return pixels


@compiled
def _pack(source, chosen, pixel, out):
    """Copy the columns of the pixels of some intervals into blocks."""
    block, lane = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for b in range(out.shape[0]):
        for p in range(LANES):
            q = pixel[chosen[min(b * LANES + p, chosen.size - 1)]]
            block[p], lane[p] = q // LANES, q % LANES
        for i in range(out.shape[1]):
            for p in range(LANES):
                out[b, i, p] = source[block[p], i, lane[p]]


@compiled
def _pack_kept(ordered, chosen, intervals, out, count):
    """Copy the kept samples of some intervals into blocks. Beyond them the largest is repeated."""
    block, lane = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    first, last = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for b in range(out.shape[0]):
        for p in range(LANES):
            j = chosen[min(b * LANES + p, chosen.size - 1)]
            q, lo, hi = intervals.pixel[j], intervals.low[j], intervals.high[j]
            block[p], lane[p] = q // LANES, q % LANES
            first[p], last[p] = lo, max(hi - 1, 0)
            count[b, p] = hi - lo
        for i in range(out.shape[1]):
            for p in range(LANES):
                out[b, i, p] = ordered[block[p], min(first[p] + i, last[p]), lane[p]]


@compiled
def _pack_raw(raw, start, chosen, pixel, out):
    """Copy the raw samples of some intervals side by side."""
    for i in range(out.shape[0]):
        for j in range(chosen.size):
            out[i, j] = raw[i, start + pixel[chosen[j]]]


@compiled
def _find(known, q, low, high, intervals):
    """Return the place of an interval in the list of a pixel, or the first free place."""
    for place in range(known.shape[1]):
        other = known[q, place]
        if other < 0 or (intervals.low[other] == low and intervals.high[other] == high):
            return place
    return known.shape[1]


@compiled
def _advance(ordered, waiting, limits, intervals, used, progress):
    """Clip the waiting pixels once for every unfinished setting.

    Returns the number of intervals, -1 if there is no room for more, and the number of pixels still waiting.
    """
    pixel, interval_low, interval_high, centre, scale = intervals
    known, state, done = progress
    left = 0
    column = np.empty(ordered.shape[1], np.float32)
    for q in waiting:
        moves = False
        before = -1
        lo, hi, m, s, below, above = 0, 0, 0.0, 0.0, 0.0, 0.0
        for k in range(limits.shape[0]):
            if done[q, k]:
                continue
            if before < 0:
                for i in range(column.size):
                    column[i] = ordered[q // LANES, i, q % LANES]
            now = state[q, k]
            if now != before:
                before = now
                lo, hi, m, s = interval_low[now], interval_high[now], centre[now], scale[now]
                clips = s > 0.0
                below = (m - column[lo]) / s if clips else -np.inf
                above = (column[hi - 1] - m) / s if clips else -np.inf
            if not (below > limits[k, 0] or above > limits[k, 1]):
                done[q, k] = True
                continue
            new_lo, new_hi = clip(column, lo, hi, m, s, limits[k, 0], limits[k, 1])
            place = _find(known, q, new_lo, new_hi, intervals)
            if place == known.shape[1]:
                return -1, 0
            if known[q, place] < 0:
                known[q, place] = used
                pixel[used] = q
                interval_low[used] = new_lo
                interval_high[used] = new_hi
                used += 1
            state[q, k] = known[q, place]
            moves = True
        if moves:
            waiting[left] = q
            left += 1
    return used, left


@compiled
def _mark(state, pixels, wanted):
    """Mark the intervals that are final for a setting."""
    wanted[:] = False
    for q in range(pixels):
        for k in range(state.shape[1]):
            wanted[state[q, k]] = True


@compiled
def _hand_out(state, pixels, start, combined, images, low, high):
    """Copy the values of final intervals to each setting, and count rejected samples."""
    value, below, above = combined
    for first in range(0, pixels, LINE):
        for k in range(state.shape[1]):
            dark, bright = np.int32(0), np.int32(0)
            for q in range(first, min(first + LINE, pixels)):
                now = state[q, k]
                images[k, start + q] = value[now]
                dark = np.int32(dark + below[now])
                bright = np.int32(bright + above[now])
            low[k] += dark
            high[k] += bright


class LimitTrials:
    """Buffers of a worker for settings that differ in their limits only.

    They differ as in `without_limits`, and their rule must satisfy `can_share`.
    """

    def __init__(self, settings: Sequence[Settings]) -> None:
        self.settings = settings
        first = settings[0]
        self.tile, self.packed = Tile(first), Tile(first)
        self.limits = np.array([self.tile.sharing(each).limits[:2] for each in settings])
        self.first_round_limit = rule_for(first.recipe, first.frames).first_round_limit
        self.asked = self.tile.limits.copy()
        self.asked[:2] = ASKED
        room, frames, number = self.tile.pixels * MOST, first.frames, len(settings)
        pixel, low, high, below, above = (np.empty(room, np.int32) for _ in range(5))
        pixel[: self.tile.pixels] = np.arange(self.tile.pixels)
        self.intervals = Intervals(pixel, low, high, centre=np.empty(room), scale=np.empty(room))
        self.combined = Combined(np.empty(room, np.float32), below, above)
        self.wanted = np.empty(room, np.bool_)
        self.progress = Progress(
            known=np.empty((self.tile.pixels, MOST), np.int32),
            state=np.empty((self.tile.pixels, number), np.int32),
            done=np.empty((self.tile.pixels, number), np.bool_),
        )
        self.raw = np.empty(frames * self.tile.pixels, np.float32)
        self.counts = Counts.zeros(frames)

    def run(
        self, raw: np.ndarray, first: int, last: int, images: np.ndarray, covered: np.ndarray
    ) -> np.ndarray:
        """Integrate the pixels ``first:last`` of a band, float32 (frames, pixels), with all settings.

        Fills `images`, float32 (settings, pixels), with the same bits as `stacklib.kernel.passes.run_tiles`
        gives for each of the settings, and `covered`, bool (pixels,): pixels with data. Returns the numbers
        of samples rejected low, rejected high, and with data, int64 (3, settings).
        """
        tile = self.tile
        sums = np.zeros((3, len(self.settings)), np.int64)
        for start in range(first, last, tile.pixels):
            stop = min(start + tile.pixels, last)
            pixels = stop - start
            samples = tile.sort(raw, start, stop)
            count = samples.count.reshape(-1)[:pixels]
            covered[start:stop] = count > 0
            sums[2] += int(count.sum())
            if self._decide(pixels):
                self._combine(raw, start, stop)
                _hand_out(self.progress.state, pixels, start, self.combined, images, *sums[:2])
            else:
                self._one_by_one(raw, start, stop, images, sums)
        return sums

    def _decide(self, pixels: int) -> bool:
        """Find the final interval of every pixel and setting. Return False if there are too many."""
        tile = self.tile
        asked, old = self.asked.copy(), 0
        used = _begin(tile.samples.count, pixels, self.intervals, self.progress)
        waiting = np.arange(pixels)
        while waiting.size:
            self._ask(asked, old, used)
            if self.first_round_limit is not None:
                asked[self.first_round_limit] = np.inf
            old = used
            used, left = _advance(
                tile.samples.ordered, waiting, self.limits, self.intervals, used, self.progress
            )
            waiting = waiting[:left]
        self.used = used
        return used >= 0

    def _ask(self, asked: np.ndarray, first: int, last: int) -> None:
        """Compute center and scale of some intervals with the rule."""
        intervals, rule_table = self.intervals, self.tile.rule_table
        # Side by side those of as many samples: a rule is fastest with them.
        order = np.arange(first, last)
        order = order[np.argsort(intervals.high[first:last] - intervals.low[first:last], kind="stable")]
        for chosen, blocks in self._batches(order):
            _, ordered, count, low, high, detail, _ = self.packed.samples.first(blocks)
            _pack_kept(self.tile.samples.ordered, chosen, intervals, ordered, count)
            self.packed.rule(ordered, count, asked, rule_table, 1, low, high, detail)
            centre, lower = (detail[:, row].reshape(-1)[: chosen.size] for row in (CENTRE, LOWER))
            intervals.centre[chosen] = centre
            intervals.scale[chosen] = -lower / ASKED

    def _combine(self, raw: np.ndarray, start: int, stop: int) -> None:
        """Combine the samples of the final intervals."""
        intervals, pixels = self.intervals, stop - start
        wanted = self.wanted[: self.used]
        _mark(self.progress.state, pixels, wanted)
        # All samples of a pixel lie as they should already.
        tile = self.tile.samples.first(-(-pixels // LANES))
        tile.low[:], tile.high[:] = 0, tile.count
        self._combine_tile(np.ascontiguousarray(raw[:, start:stop]), tile, np.arange(pixels))
        for chosen, blocks in self._batches(pixels + np.flatnonzero(wanted[pixels:])):
            size = chosen.size
            own = self.raw[: len(raw) * size].reshape(-1, size)
            packed = self.packed.samples.first(blocks)
            _pack(tile.ordered, chosen, intervals.pixel, packed.ordered)
            _pack(tile.values, chosen, intervals.pixel, packed.values)
            _pack_raw(raw, start, chosen, intervals.pixel, own)
            places = chosen[np.minimum(np.arange(blocks * LANES), size - 1)].reshape(blocks, LANES)
            packed.count[:] = tile.count.reshape(-1)[intervals.pixel[places]]
            packed.low[:], packed.high[:] = intervals.low[places], intervals.high[places]
            self._combine_tile(own, packed, chosen)

    def _combine_tile(self, raw: np.ndarray, samples: TileSamples, chosen: np.ndarray) -> None:
        """Combine the samples of the chosen intervals and keep value and counts."""
        tile, size = self.tile, chosen.size
        value, below, above, coverage = (np.empty(size, np.float32) for _ in range(4))
        nothing = np.empty(0, np.float32)
        pixels = Pixels(
            image=value,
            uncertainty=nothing,
            rejection_low=below,
            rejection_high=above,
            coverage=coverage,
            slope=nothing,
            ratio=nothing,
            excess=nothing,
        )
        band, how = Band(raw, 0, size), (False, False)
        combine(band, samples, tile.table, tile.data_range, how, tile.claims, pixels, self.counts.table)
        for kept, new in zip(self.combined, (value, below, above), strict=True):
            kept[chosen] = new

    def _one_by_one(
        self, raw: np.ndarray, start: int, stop: int, images: np.ndarray, sums: np.ndarray
    ) -> None:
        """Run the rule once for each setting, for a tile with too many intervals."""
        size = stop - start
        band = Band(np.ascontiguousarray(raw[:, start:stop]), 0, size)
        samples = self.tile.samples.first(-(-size // LANES))
        for k, each in enumerate(self.settings):
            pixels, counts = Pixels.empty(size, each, with_uncertainty=False), Counts.zeros(each.frames)
            self.tile.sharing(each).combine(band, samples, pixels, counts)
            images[k, start:stop] = pixels.image
            sums[:2, k] += counts.low.sum(), counts.high.sum()

    def _batches(self, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Split intervals into parts that fill a tile, with their number of blocks."""
        for first in range(0, chosen.size, self.packed.pixels):
            part = chosen[first : first + self.packed.pixels]
            yield part, -(-part.size // LANES)
