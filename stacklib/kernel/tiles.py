"""Tiles of samples: raw bands in, normalised and sorted blocks out.

What the compiled code needs to know of each frame is one float64 array ``(5, frames)``, a *frame table*
with the rows `REJECTION_FACTOR`, `REJECTION_OFFSET`, `FACTOR`, `OFFSET` and `WEIGHT`.
"""

from __future__ import annotations

import numpy as np

from stacklib.rejection.sorting import LANES, sort_block
from stacklib.utils.compiled import compiled

__all__ = ["FACTOR", "OFFSET", "REJECTION_FACTOR", "REJECTION_OFFSET", "WEIGHT", "gather", "row_of"]

#: Rows of a frame table.
REJECTION_FACTOR, REJECTION_OFFSET, FACTOR, OFFSET, WEIGHT = range(5)


@compiled
def row_of(raw, i, start, stop, padded):
    """`LANES` raw samples of frame `i` from pixel `start`; beyond `stop` they are no data."""
    if start + LANES <= stop:
        return raw[i, start : start + LANES]
    for p in range(LANES):
        padded[p] = raw[i, start + p] if start + p < stop else np.nan
    return padded


@compiled
def gather(raw, start, stop, table, data_low, data_high, network, values, ordered, count):
    """Normalise the samples of a tile and sort them, pixel by pixel; what is no data goes to the end.

    `values` keeps them in the order of the frames, infinite where there is no data.
    """
    padded = np.empty(LANES, np.float32)
    count[:] = 0
    # Frame by frame, so that memory is read in long runs.
    for i in range(raw.shape[0]):
        f = table[REJECTION_FACTOR, i]
        o = table[REJECTION_OFFSET, i]
        for b in range(ordered.shape[0]):
            row = row_of(raw, i, start + b * LANES, stop, padded)
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
