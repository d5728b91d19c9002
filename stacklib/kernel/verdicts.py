"""Verdicts on single samples: kept, rejected low or high, or no data."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stacklib.kernel.passes import NO_EXCESS, Tile, scatter_tiles
from stacklib.kernel.pixels import Judgement, Ratios
from stacklib.kernel.scatter import find_excess
from stacklib.kernel.tiles import REJECTION_FACTOR, REJECTION_OFFSET, WEIGHT, row_of
from stacklib.normalization.noise_curve import BLOCK, FrameNoise, blocks_of, spread_rows
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.rejection.noise_model import MODEL, OWN
from stacklib.rejection.registry import ALL_ITERATIONS, rule_for
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled, fill_from

__all__ = [
    "HIGH",
    "KEPT",
    "LOW",
    "NO_DATA",
    "LastRound",
    "judge_tiles",
    "last_round",
    "reject",
    "verdicts",
    "write_ends",
]

#: Fewest pixels from which noise is learned.
ENOUGH = 100
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
def _write_judged(band, samples, table, judged):
    """Write what is left of the samples of a tile to the pixels of `judged`."""
    raw, start, stop = band
    values, ordered, count, low, high, _, scatter = samples
    mean, weight, ratio, counted, verdict, _ = judged
    lowest, highest = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    total, weights = np.empty(LANES), np.empty(LANES)
    padded = np.empty(LANES, np.float32)
    found = np.empty(LANES, np.uint8)
    for b in range(ordered.shape[0]):
        first = start + b * LANES
        there = min(LANES, stop - first)
        write_ends(ordered[b], low[b], high[b], lowest, highest)
        total[:] = 0.0
        weights[:] = 0.0
        for i in range(raw.shape[0]):
            row = row_of(raw, i, first, stop, padded)
            f, o, w = table[REJECTION_FACTOR, i], table[REJECTION_OFFSET, i], table[WEIGHT, i]
            for p in range(LANES):
                v = values[b, i, p]
                below, above, data = v < lowest[p], v > highest[p], v < np.inf
                keep = data & (not below) & (not above)
                found[p] = (KEPT if keep else LOW if below else HIGH) if data else NO_DATA
                total[p] += w * (np.float64(row[p]) * f + o) if keep else 0.0
                weights[p] += w if keep else 0.0
            fill_from(found[:there], verdict[i, first:])
        for p in range(there):
            q = first + p
            mean[q] = total[p] / weights[p] if weights[p] > 0.0 else np.nan
            weight[q] = weights[p]
            counted[q] = count[b, p]
            known = count[b, p] > 1 and scatter[b, MODEL, p] > 0.0
            ratio[q] = scatter[b, OWN, p] / scatter[b, MODEL, p] if known else np.nan


def judge_tiles(
    raw: np.ndarray, settings: Settings, judged: Judgement, first: int = 0, last: int | None = None
) -> None:
    """Judge the samples of the pixels ``first:last`` of a band, with the bits of `run_tiles`."""
    tile = Tile(settings)
    for band, samples in tile.measured(raw, first, last):
        excess = judged.excess[band.start : band.stop] if tile.by_frame else NO_EXCESS
        _write_judged(band, tile.reject(samples, excess), tile.table, judged)


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
