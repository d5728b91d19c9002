"""Samples that may be hits, found while a band is integrated: few of them have to be looked at again."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.kernel.passes import Tile
from stacklib.kernel.pixels import Counts, Pixels
from stacklib.kernel.scatter import curve_at
from stacklib.kernel.tiles import REJECTION_FACTOR, REJECTION_OFFSET, WEIGHT, row_of
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, write_ends
from stacklib.normalization.settings import Settings
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = ["Suspects", "run_tiles_with_suspects"]

#: A sample may be a hit if it lies this many times the noise of its frame from the kept mean, a little less
#: than what a hit has to.
FAR = 4.98
#: With less than this many times the largest weight, a sample says much of the mean: all are suspects.
ENOUGH_WEIGHT = 4.0


class Suspects(NamedTuple):
    """Samples that may be hits, arrays (n,).

    `pixel`, int64, is their place in the band, `frame`, int32, their frame among those used, `verdict`,
    uint8, that of the rule, and `value`, float32, the raw sample. `mean` and `weight`, float32, are those of
    the kept samples of the pixel, as in `stacklib.kernel.pixels.Judgement`.
    """

    pixel: np.ndarray
    frame: np.ndarray
    verdict: np.ndarray
    value: np.ndarray
    mean: np.ndarray
    weight: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Suspects:
        """Create arrays to be filled."""
        kinds = (np.int64, np.int32, np.uint8, np.float32, np.float32, np.float32)
        return cls(*(np.empty(size, kind) for kind in kinds))

    @classmethod
    def joined(cls, parts: list[Suspects]) -> Suspects:
        """Join several of them."""
        return cls(*map(np.concatenate, zip(cls.empty(0), *parts, strict=True)))


@compiled
def find_suspects(band, samples, table, compared, curve, enough, number, found):
    """Write the suspects of a tile, and how many samples of each pixel are data; return their number.

    `compared`, float64 (3, frames), are factor, offset and noise of the frames by which hits are told. With
    less weight than `enough`, all samples of a pixel are suspects.
    """
    raw, start, stop = band
    values, ordered, count, low, high = (
        samples.values,
        samples.ordered,
        samples.count,
        samples.low,
        samples.high,
    )
    lowest, highest = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    total, weights, mean, sigma = np.empty(LANES), np.empty(LANES), np.empty(LANES), np.empty(LANES)
    padded = np.empty(LANES, np.float32)
    hot = np.empty(LANES, np.int32)
    n = 0
    for b in range(ordered.shape[0]):
        first = start + b * LANES
        there = min(LANES, stop - first)
        write_ends(ordered[b], low[b], high[b], lowest, highest)
        total[:] = 0.0
        weights[:] = 0.0
        for i in range(raw.shape[0]):
            row, own = row_of(raw, i, first, stop, padded), values[b, i]
            f, o, w = table[REJECTION_FACTOR, i], table[REJECTION_OFFSET, i], table[WEIGHT, i]
            for p in range(LANES):
                keep = (own[p] >= lowest[p]) & (own[p] <= highest[p])
                total[p] += w * (np.float64(row[p]) * f + o) if keep else 0.0
                weights[p] += w if keep else 0.0
        for p in range(LANES):
            mean[p] = total[p] / weights[p] if weights[p] > 0.0 else np.nan
        curve_at(curve, mean, sigma)
        for p in range(LANES):
            sigma[p] = math.sqrt(sigma[p]) if weights[p] >= enough else 0.0
            hot[p] = 0
        for i in range(raw.shape[0]):
            row, own = row_of(raw, i, first, stop, padded), values[b, i]
            f, o, limit = compared[0, i], compared[1, i], FAR * compared[2, i]
            for p in range(LANES):
                apart = abs(np.float64(row[p]) * f + o - mean[p])
                hot[p] |= np.int32((apart > limit * sigma[p]) & (own[p] < np.inf))
        for p in range(there):
            number[first + p] = count[b, p]
            if hot[p] == 0:
                continue
            for i in range(raw.shape[0]):
                v, x = values[b, i, p], raw[i, first + p]
                apart = abs(np.float64(x) * compared[0, i] + compared[1, i] - mean[p])
                if v < np.inf and apart > FAR * compared[2, i] * sigma[p]:
                    found.pixel[n], found.frame[n], found.value[n] = first + p, i, x
                    found.verdict[n] = LOW if v < lowest[p] else HIGH if v > highest[p] else KEPT
                    found.mean[n], found.weight[n] = mean[p], weights[p]
                    n += 1
    return n


def run_tiles_with_suspects(
    raw: np.ndarray,
    settings: Settings,
    compared: Settings,
    pixels: Pixels,
    number: np.ndarray,
    first: int = 0,
    last: int | None = None,
) -> tuple[Counts, Suspects]:
    """Integrate a band as `stacklib.kernel.passes.run_tiles` does, and find what may be hits.

    Parameters
    ----------
    raw : ndarray of float32, shape (frames, pixels)
        The samples.
    settings : Settings
        Those of the integration.
    compared : Settings
        Factors, offsets and noise by which hits are told.
    pixels : Pixels
        Filled.
    number : ndarray of float32, shape (pixels,)
        Filled with the number of samples that are data.
    first, last : int
        The pixels to integrate.

    Returns
    -------
    counts : Counts
        Samples of each frame by verdict.
    suspects : Suspects
        All samples that may be hits, and some that are none.
    """
    tile, counts, parts = Tile(settings), Counts.zeros(settings.frames), []
    room = Suspects.empty(tile.pixels * settings.frames)
    by = np.stack([compared.rejection_factor, compared.rejection_offset, compared.relative_noise])
    enough = ENOUGH_WEIGHT * float(settings.weights.max())
    for band, samples in tile.measured(raw, first, last):
        samples = tile.combine(band, samples, pixels, counts)
        size = find_suspects(band, samples, tile.table, by, tile.curve, enough, number, room)
        if size:
            parts.append(Suspects(*(array[:size].copy() for array in room)))
    return counts, Suspects.joined(parts)
