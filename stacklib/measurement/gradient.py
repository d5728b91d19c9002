"""Gradient of a plane: the change of the sky across a frame, as a linear ramp."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["gradient"]

#: The plane is divided into this many cells each way, of about this many samples each way.
CELLS, SAMPLES = 8, 32
#: Number of cells with a level to fit a ramp to, and of samples in a cell: a trail fills smaller ones.
ENOUGH, ENOUGH_SAMPLES = 12, 64


def gradient(plane: np.ndarray, low: float) -> tuple[float, float]:
    """Return the change of the sky across the width and the height of a plane, in its own units.

    A ramp is fitted to the medians of cells; samples up to `low` are no data. NaN if there are too few.
    """
    height, width = plane.shape
    step = max(1, min(height, width) // (CELLS * SAMPLES))
    small = plane[::step, ::step].astype(np.float64)
    rows = np.linspace(0, small.shape[0], CELLS + 1).astype(int)
    columns = np.linspace(0, small.shape[1], CELLS + 1).astype(int)
    found = []
    for j in range(CELLS):
        for i in range(CELLS):
            cell = small[rows[j] : rows[j + 1], columns[i] : columns[i + 1]]
            valid = cell[np.isfinite(cell) & (cell > low)]
            if valid.size >= ENOUGH_SAMPLES and valid.size > cell.size / 2:
                found.append((1.0, (i + 0.5) / CELLS, (j + 0.5) / CELLS, np.median(valid)))
    if len(found) < ENOUGH:
        return math.nan, math.nan
    table = np.array(found)
    _, across, down = np.linalg.lstsq(table[:, :3], table[:, 3], rcond=None)[0]
    return float(across), float(down)
