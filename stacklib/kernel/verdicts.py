"""Verdicts on single samples: kept, rejected low or high, or no data."""

from __future__ import annotations

import numpy as np

from stacklib.kernel.passes import Tile
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.rejection.registry import ALL_ITERATIONS
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = ["HIGH", "KEPT", "LOW", "NO_DATA", "last_round", "reject", "verdicts"]

#: Verdicts on a sample.
NO_DATA, KEPT, LOW, HIGH = 0, 1, 2, 3


@compiled
def _judge(samples, start, stop, verdict):
    """Write the verdict on each sample of a tile to `verdict`, uint8 (frames, pixels)."""
    values, ordered, _, low, high, _ = samples
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


def verdicts(raw: np.ndarray, settings: Settings, max_iterations: int = ALL_ITERATIONS) -> np.ndarray:
    """Find the verdict on every sample of a band, float32 (frames, pixels).

    There are up to `max_iterations` rounds of clipping. Returns `NO_DATA`, `KEPT`, `LOW` or `HIGH`, uint8
    (frames, pixels).
    """
    return last_round(raw, settings, max_iterations)[0]


def last_round(
    raw: np.ndarray, settings: Settings, max_iterations: int = ALL_ITERATIONS
) -> tuple[np.ndarray, np.ndarray]:
    """Find the verdicts, see `verdicts`, and the limits of the last round of each pixel.

    The latter are center, lower limit, upper limit and slope, float64 (pixels, 4).
    """
    tile = Tile(settings, max_iterations)
    verdict = np.empty(raw.shape, np.uint8)
    detail = np.empty((raw.shape[1], 4))
    for start in range(0, raw.shape[1], tile.pixels):
        stop = min(start + tile.pixels, raw.shape[1])
        samples = tile.sort(raw, start, stop)
        tile.reject(samples)
        _judge(samples, start, stop, verdict)
        detail[start:stop] = np.moveaxis(samples.detail, 1, 2).reshape(-1, 4)[: stop - start]
    return verdict, detail


def reject(stack: np.ndarray, recipe: Recipe, max_iterations: int = ALL_ITERATIONS) -> np.ndarray:
    """Return a mask of the samples that the rejection rule of a recipe keeps.

    Frames are not normalized. Samples without data are False, like rejected ones.

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
    raw = np.ascontiguousarray(stack).reshape(stack.shape[0], -1)
    kept = verdicts(raw, Settings.plain(recipe, stack.shape[0]), max_iterations) == KEPT
    return kept.reshape(stack.shape)
