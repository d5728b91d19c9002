"""Tiles of samples: a part of a raw band in, normalized and sorted blocks out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.normalization.settings import Settings
from stacklib.rejection.sorting import LANES, sort_block
from stacklib.utils.compiled import compiled

__all__ = [
    "FACTOR",
    "NOISE",
    "OFFSET",
    "REJECTION_FACTOR",
    "REJECTION_OFFSET",
    "WEIGHT",
    "Band",
    "TileSamples",
    "frame_table",
    "gather",
    "row_of",
]

#: Rows of a frame table.
REJECTION_FACTOR, REJECTION_OFFSET, FACTOR, OFFSET, WEIGHT, NOISE = range(6)


class Band(NamedTuple):
    """Pixels ``start:stop`` of the raw samples of a band, float32 (frames, pixels)."""

    raw: np.ndarray
    start: int
    stop: int


class TileSamples(NamedTuple):
    """Samples of a tile, and which of them are kept.

    `values` are normalized and in the order of the frames, infinite where there is no data, `ordered` the
    same sorted by pixel, float32 (blocks, frames, LANES). `count` samples of each pixel are data, int32
    (blocks, LANES), and ``ordered[b, low[b, p] : high[b, p], p]`` are kept. `detail`, float64 (blocks, 4,
    LANES): center, limits and slope of the last round, see `stacklib.rejection.clipping`. `scatter`, float64
    (blocks, 2, LANES), is filled if wanted, see `stacklib.rejection.noise_model`.
    """

    values: np.ndarray
    ordered: np.ndarray
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    detail: np.ndarray
    scatter: np.ndarray

    def first(self, blocks: int) -> TileSamples:
        """Return views of the first blocks."""
        if blocks == len(self.values):
            return self
        return TileSamples(*(array[:blocks] for array in self))


def frame_table(settings: Settings) -> np.ndarray:
    """Return normalization, weight and relative noise of each frame, float64 (6, frames), in one array."""
    return np.stack(
        [
            settings.rejection_factor,
            settings.rejection_offset,
            settings.factor,
            settings.offset,
            settings.weights,
            settings.relative_noise,
        ]
    )


@compiled
def row_of(raw, i, start, stop, padded):
    """Return `LANES` raw samples of frame `i` from pixel `start`, NaN from `stop` on."""
    if start + LANES <= stop:
        return raw[i, start : start + LANES]
    for p in range(LANES):
        padded[p] = raw[i, start + p] if start + p < stop else np.nan
    return padded


@compiled
def gather(band, table, data_range, network, values, ordered, count):
    """Normalize the samples of a tile and sort them by pixel, those that are no data last.

    Fills `values`, `ordered` and `count`, see `TileSamples`. Data are strictly within `data_range`.
    """
    raw, start, stop = band
    data_low, data_high = data_range
    padded = np.empty(LANES, np.float32)
    count[:] = 0
    # Frame by frame, so that memory is read in long runs.
    for i in range(raw.shape[0]):
        f = table[REJECTION_FACTOR, i]
        o = table[REJECTION_OFFSET, i]
        for b in range(ordered.shape[0]):
            row = row_of(raw, i, start + b * LANES, stop, padded)
            sorted_later = ordered[b, i]
            unsorted = values[b, i]
            valid = count[b]
            for p in range(LANES):
                x = row[p]
                is_data = (x > data_low) & (x < data_high)
                v = np.float32(np.float64(x) * f + o)
                v = v if is_data else np.float32(np.inf)
                sorted_later[p] = v
                unsorted[p] = v
                valid[p] += np.int32(is_data)
    for b in range(ordered.shape[0]):
        sort_block(ordered[b], network)
