"""Sorting of many pixels at once.

A *block* is a float32 array ``(frames, LANES)`` with the samples of `LANES` neighboring pixels. A sorting
network compares the same pairs of frames whatever their values, so each step runs over all pixels of the
block in the vector units of the processor. A *tile* is an array of blocks, ``(blocks, frames, LANES)``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stacklib.utils.compiled import compiled, larger, smaller

__all__ = ["LANES", "sort_block", "sorting_network"]

#: Pixels in a block. 40 frames of them fit into the first-level cache of a core.
LANES = 128


@lru_cache(maxsize=64)
def sorting_network(count: int) -> np.ndarray:
    """Return the compared pairs of Batcher's merge exchange for `count` samples, int64 (pairs, 2).

    Positions ``(i, j)``, ``i < j``, are sorted one pair after the other (Knuth, The Art of Computer
    Programming, volume 3, section 5.2.2, algorithm M).
    """
    pairs = []
    step = 1 << max(0, (count - 1).bit_length() - 1)
    top = step
    while step > 0:
        q, r, distance = top, 0, step
        while True:
            i = np.arange(count - distance)
            i = i[(i & step) == r]
            pairs.append(np.stack([i, i + distance], axis=1))
            if q == step:
                break
            distance, q, r = q - step, q >> 1, step
        step >>= 1
    network = np.concatenate(pairs) if count > 1 else np.zeros((0, 2), np.int64)
    return np.ascontiguousarray(network, dtype=np.int64)


@compiled
def sort_block(block, network, pixels=LANES):
    """Sort the first `pixels` pixels of `block` along the frames in place. NaN is not allowed."""
    for k in range(network.shape[0]):
        lower = block[network[k, 0]]
        upper = block[network[k, 1]]
        for p in range(pixels):
            a = lower[p]
            b = upper[p]
            lower[p] = smaller(a, b)
            upper[p] = larger(a, b)
