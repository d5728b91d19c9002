"""Verdicts on single samples: kept, rejected low or high, or no data."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stacklib.kernel.passes import NO_EXCESS, Tile, scatter_tiles
from stacklib.kernel.pixels import Counts, Judgement, Pixels, Ratios
from stacklib.kernel.scatter import find_excess
from stacklib.kernel.tiles import REJECTION_FACTOR, REJECTION_OFFSET, WEIGHT, row_of
from stacklib.normalization.noise_curve import BLOCK, FrameNoise, blocks_of, spread_rows
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.rejection.noise_model import MODEL, OWN
from stacklib.rejection.registry import ALL_ITERATIONS, rule_for
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = [
    "HIGH",
    "KEPT",
    "LOW",
    "NO_DATA",
    "LastRound",
    "by_rows",
    "judge_tiles",
    "last_round",
    "reject",
    "verdicts",
    "write_ends",
]

#: Fewest pixels from which noise is learned.
ENOUGH = 100
#: A factor by which the lowest bits of eight bytes meet in the highest byte of their product.
GATHER = np.uint64(0x8040201008040201)
#: Verdicts on a sample.
NO_DATA, KEPT, LOW, HIGH = 0, 1, 2, 3


@compiled
def _judge(samples, start, stop, verdict):
    """Write the verdict on each sample of a tile to `verdict`, uint8 (frames, pixels)."""
    values, ordered, low, high = samples.values, samples.ordered, samples.low, samples.high
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


@compiled
def write_ends(ordered, low, high, lowest, highest):
    """Write the lowest and the highest sample kept of each pixel; inf and -inf where none is."""
    for p in range(LANES):
        some = high[p] > low[p]
        lowest[p] = ordered[low[p], p] if some else np.float32(np.inf)
        highest[p] = ordered[high[p] - 1, p] if some else np.float32(-np.inf)


@compiled
def _put_bits(found, pixels, out):
    """Pack the bits of a block, bytes of 0 and 1."""
    words = found.view(np.uint64)
    for k in range((pixels + 7) >> 3):
        out[k] = np.uint8((words[k] * GATHER) >> np.uint64(56))


@compiled
def _write_judged(band, samples, table, judged, verdicts):
    """Write what is left of the samples of a tile to the pixels of `judged`, and the verdicts on them."""
    raw, start, stop = band
    values, ordered, count, low, high, _, scatter = samples
    mean, weight, ratio, counted, _ = judged
    lowest, highest = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    total, weights = np.empty(LANES), np.empty(LANES)
    padded = np.empty(LANES, np.float32)
    upper, out = np.empty(LANES, np.uint8), np.empty(LANES, np.uint8)
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
                data = own[p] < np.inf
                upper[p] = data & (own[p] >= lowest[p])
                out[p] = data & ((own[p] < lowest[p]) | (own[p] > highest[p]))
            _put_bits(upper, there, verdicts[i, 0, first >> 3 :])
            _put_bits(out, there, verdicts[i, 1, first >> 3 :])
        for p in range(there):
            q = first + p
            mean[q] = total[p] / weights[p] if weights[p] > 0.0 else np.nan
            weight[q] = weights[p]
            counted[q] = count[b, p]
            known = count[b, p] > 1 and scatter[b, MODEL, p] > 0.0
            ratio[q] = scatter[b, OWN, p] / scatter[b, MODEL, p] if known else np.nan


def judge_tiles(
    raw: np.ndarray,
    settings: Settings,
    judged: Judgement,
    verdicts: np.ndarray,
    first: int = 0,
    last: int | None = None,
    pixels: Pixels | None = None,
) -> Counts:
    """Judge the samples of the pixels ``first:last`` of a band, with the bits of `run_tiles`.

    Parameters
    ----------
    raw : ndarray of float32, shape (frames, pixels)
        The samples.
    settings : Settings
        Those of the channel.
    judged : Judgement
        Filled, arrays of shape (pixels,).
    verdicts : ndarray of uint8, shape (frames, 2, bytes)
        Filled with two bits of each verdict: those of kept and of high samples, and of low and of high ones.
    first, last : int
        The pixels to judge, by default all. The first one is that of a block.
    pixels : Pixels, optional
        Filled as by `run_tiles`. By default the samples are not integrated.

    Returns
    -------
    Counts
        Samples of each frame by verdict; none without `pixels`.
    """
    tile, counts = Tile(settings), Counts.zeros(settings.frames)
    for band, samples in tile.measured(raw, first, last):
        if pixels is not None:
            samples = tile.combine(band, samples, pixels, counts)
        else:
            excess = judged.excess[band.start : band.stop] if tile.by_frame else NO_EXCESS
            samples = tile.reject(samples, excess)
        _write_judged(band, samples, tile.table, judged, verdicts)
    return counts


@compiled
def _align(packed, width, rows):
    """Pack bits of a plane along its rows."""
    for r in range(rows.shape[0]):
        place, shift = (r * width) >> 3, np.uint8((r * width) & 7)
        for k in range(rows.shape[1]):
            here, after = packed[place + k], packed[min(place + k + 1, packed.size - 1)]
            rows[r, k] = (here << shift) | (after >> (np.uint8(8) - shift))
        rows[r, -1] &= np.uint8(0xFF << (8 * rows.shape[1] - width) & 0xFF)


def by_rows(verdicts: np.ndarray, width: int, rows: int) -> np.ndarray:
    """Return bits that `judge_tiles` wrote packed along the rows, uint8 (frames, 2, rows, bytes)."""
    shape = *verdicts.shape[:2], rows, -(-width // 8)
    if width % 8 == 0:
        return verdicts.reshape(shape)
    found = np.empty(shape, np.uint8)
    for packed, plane in zip(
        verdicts.reshape(-1, verdicts.shape[2]), found.reshape(-1, *shape[2:]), strict=True
    ):
        _align(packed, width, plane)
    return found


class LastRound(NamedTuple):
    """The last round of a rule on a band.

    `verdict` is `NO_DATA`, `KEPT`, `LOW` or `HIGH`, uint8 (frames, pixels), `detail` center, lower limit,
    upper limit and slope of each pixel, float64 (pixels, 4). `limits` are the lower and upper limits of each
    frame, float64 (2, frames, pixels), for rules that have them; None for others.
    """

    verdict: np.ndarray
    detail: np.ndarray
    limits: np.ndarray | None


def verdicts(
    raw: np.ndarray,
    settings: Settings,
    max_iterations: int = ALL_ITERATIONS,
    excess: np.ndarray = NO_EXCESS,
) -> np.ndarray:
    """Find the verdict on every sample of a band, float32 (frames, pixels).

    There are up to `max_iterations` rounds of clipping. `excess`, float32 (pixels,), is that of the noise,
    for rules that know the noise. Returns `NO_DATA`, `KEPT`, `LOW` or `HIGH`, uint8 (frames, pixels).
    """
    return _judge_band(raw, settings, max_iterations, excess, with_limits=False).verdict


def last_round(
    raw: np.ndarray,
    settings: Settings,
    max_iterations: int = ALL_ITERATIONS,
    excess: np.ndarray = NO_EXCESS,
) -> LastRound:
    """Find the verdicts, see `verdicts`, and the limits of the last round of each pixel."""
    return _judge_band(raw, settings, max_iterations, excess, with_limits=True)


def _judge_band(
    raw: np.ndarray, settings: Settings, max_iterations: int, excess: np.ndarray, with_limits: bool
) -> LastRound:
    tile = Tile(settings, max_iterations)
    frames, pixels = raw.shape
    verdict = np.empty(raw.shape, np.uint8)
    detail = np.empty((pixels, 4))
    limits = np.empty((2, frames, pixels)) if with_limits and tile.by_frame else None
    for start in range(0, pixels, tile.pixels):
        stop = min(start + tile.pixels, pixels)
        samples = tile.sort(raw, start, stop)
        if tile.by_frame:
            tile.measure(samples)
        samples = tile.reject(samples, excess[start:stop], limits is not None)
        _judge(samples, start, stop, verdict)
        detail[start:stop] = np.moveaxis(samples.detail, 1, 2).reshape(-1, 4)[: stop - start]
        if limits is not None:
            blocks = tile.judged.limits[: len(samples.detail)]
            found = np.moveaxis(blocks, 0, 2).reshape(2, frames, -1)
            limits[:, :, start:stop] = found[:, :, : stop - start]
    return LastRound(verdict, detail, limits)


def reject(stack: np.ndarray, recipe: Recipe, max_iterations: int = ALL_ITERATIONS) -> np.ndarray:
    """Return a mask of the samples that the rejection rule of a recipe keeps.

    Frames are not normalized. Samples without data are False, like rejected ones. A rule that knows the noise
    beforehand learns it from the stack; with fewer than 100 pixels each of them has only its own samples.

    Parameters
    ----------
    stack : array_like of float32, shape (frames, height, width)
        Registered samples, normally from 0 to 1. NaN and infinities are no data, and by default samples at or
        below 0 as well. Set `range_clip_low` to False for data around zero.
    recipe : Recipe
        The rule and its limits.
    max_iterations : int, optional
        Maximum number of rounds of clipping. Default is until nothing changes.

    Returns
    -------
    ndarray of bool, shape (frames, height, width)
        True where a sample is kept.

    Raises
    ------
    ValueError
        If `stack` does not have three axes, or has no frames.

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
    frames, height, width = stack.shape
    raw = np.ascontiguousarray(stack).reshape(frames, -1)
    settings, excess = Settings.plain(recipe, frames), NO_EXCESS
    if rule_for(recipe, frames).spec.by_frame and height * width >= ENOUGH:
        settings = _with_noise(stack, settings)
        ratios = Ratios.empty(height * width)
        scatter_tiles(raw, settings, ratios)
        planes = Ratios(*(plane.reshape(height, width) for plane in ratios))
        excess = find_excess(planes, settings.relative_noise, settings.contrast).reshape(-1)
    return (verdicts(raw, settings, max_iterations, excess) == KEPT).reshape(stack.shape)


def _with_noise(stack: np.ndarray, settings: Settings) -> Settings:
    """Return settings with the noise of a stack, measured from rows spread over it."""
    frames, height, width = stack.shape
    low, high = settings.data_range
    data = np.where((stack > low) & (stack < high), stack, np.float32(np.nan))
    blocks = [
        np.stack([blocks_of(plane[start : start + BLOCK], columns) for plane in data])
        for start, columns in spread_rows(height, width, frames)
    ]
    noise = FrameNoise.measure(np.concatenate(blocks, axis=1), settings.floor)
    return replace(settings, noise=noise.relative, curve=noise.curve.table, contrast=noise.contrast)
