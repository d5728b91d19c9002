"""Sorting of many pixels at once, and blocks of pixels with equally many samples.

A *block* is a float32 array ``(frames, LANES)`` with the samples of `LANES` neighboring pixels. A sorting
network compares the same pairs of frames whatever their values, so each step runs over all pixels of the
block in the vector units of the processor. A *tile* is an array of blocks, ``(blocks, frames, LANES)``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled, larger, smaller

__all__ = [
    "FILLED",
    "LANES",
    "WHOLE",
    "Waiting",
    "filled",
    "median_network",
    "pack",
    "sort_block",
    "sorting_network",
    "take",
    "wait",
    "waiting_for",
]

#: Pixels in a block. 40 frames of them fit into the first-level cache of a core.
LANES = 128
#: Of so many pixels a multiple goes as fast as a few less.
FILLED = 16
#: ``pixels & WHOLE`` is a multiple of that, and the compiler knows it: it makes no code for the rest of a
#: vector, which is slower and takes long to compile.
WHOLE = -FILLED


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


@lru_cache(maxsize=64)
def median_network(count: int) -> np.ndarray:
    """Return the pairs of `sorting_network` that decide which sample becomes the lower median."""
    needed, pairs = {max(count - 1, 0) // 2}, []
    for pair in reversed(sorting_network(count).tolist()):
        if not needed.isdisjoint(pair):
            needed.update(pair)
            pairs.append(pair)
    return np.array(pairs[::-1], np.int64).reshape(-1, 2)


@compiled
def sort_block(block, network, pixels=LANES):
    """Sort the first `pixels` pixels of `block`, a multiple of `FILLED`, along the frames in place.

    NaN is not allowed.
    """
    for k in range(network.shape[0]):
        lower = block[network[k, 0]]
        upper = block[network[k, 1]]
        for p in range(pixels & WHOLE):
            a = lower[p]
            b = upper[p]
            lower[p] = smaller(a, b)
            upper[p] = larger(a, b)


class Waiting(NamedTuple):
    """Pixels of a tile that wait for others, in lists by number of kept samples and kind of work.

    Rules that fit something to many pixels at once want blocks of pixels with equally many samples.

    `head`, int64 (frames + 1, kinds), has the first pixel of each list, `after` the next one of each pixel,
    -1 for none.
    """

    head: np.ndarray
    after: np.ndarray


@compiled
def waiting_for(blocks, frames, kinds):
    """Return `Waiting` without any pixel of a tile."""
    head = np.empty((frames + 1, kinds), np.int64)
    for n in range(frames + 1):
        for kind in range(kinds):
            head[n, kind] = -1
    return Waiting(head, np.empty(blocks * LANES, np.int64))


@compiled
def wait(waiting, q, n, kind):
    """Add a pixel with n kept samples to those that wait."""
    waiting.after[q] = waiting.head[n, kind]
    waiting.head[n, kind] = q


@compiled
def take(waiting, n, kind, chosen):
    """Take pixels with n kept samples from those that wait, as many as fit, and return their number."""
    size = 0
    q = waiting.head[n, kind]
    while q >= 0 and size < chosen.size:
        chosen[size] = q
        size += 1
        q = waiting.after[q]
    waiting.head[n, kind] = q
    return size


@compiled
def filled(size):
    """Return in how many lanes to work on so many pixels: as fast as in a few less."""
    return (size + FILLED - 1) // FILLED * FILLED


@compiled
def pack(ordered, low, n, chosen, pixels, places, block):
    """Copy the n kept samples of each of the chosen pixels into a block. Beyond them the largest is repeated.

    The last of the chosen pixels fills the lanes up to `pixels`. `places` is scratch.
    """
    frames = ordered.shape[1]
    samples = ordered.reshape(-1)
    for k in range(pixels & WHOLE):
        q = chosen[min(k, chosen.size - 1)]
        b, p = q // LANES, q % LANES
        # An index without a sign needs no test for negative ones.
        places[k] = np.uint64((b * frames + low[b, p]) * LANES + p)
    for i in range(frames):
        row, further = block[i], np.uint64(min(i, n - 1) * LANES)
        for k in range(pixels & WHOLE):
            row[k] = samples[places[k] + further]
