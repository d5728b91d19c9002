"""Gradient of a plane: the change of the sky across a frame, as a linear ramp."""

from __future__ import annotations

import math

import numpy as np

from stacklib.utils.compiled import compiled
from stacklib.utils.ranks import median_of

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
    small = np.ascontiguousarray(plane[::step, ::step], np.float32)
    rows, columns = (np.linspace(0, size, CELLS + 1).astype(int) for size in small.shape)
    medians = _cell_medians(small, low, rows, columns)
    places = [(j, i) for j, i in np.ndindex(medians.shape) if not math.isnan(medians[j, i])]
    if len(places) < ENOUGH:
        return math.nan, math.nan
    terms = np.array([(1.0, (i + 0.5) / CELLS, (j + 0.5) / CELLS) for j, i in places])
    levels = np.array([medians[place] for place in places])
    _, across, down = np.linalg.lstsq(terms, levels, rcond=None)[0]
    return float(across), float(down)


@compiled
def _cell_medians(plane, low, rows, columns):
    """Return the medians of the samples above `low` in cells between rows and columns; NaN for too few."""
    medians = np.full((rows.size - 1, columns.size - 1), np.nan)
    values = np.empty(plane.size, np.float32)
    for j in range(rows.size - 1):
        for i in range(columns.size - 1):
            # Without a sign it needs no test for negative indices.
            n = np.uint64(0)
            for y in range(rows[j], rows[j + 1]):
                line = plane[y, columns[i] : columns[i + 1]]
                for x in range(line.size):
                    values[n] = line[x]
                    n += np.uint64((np.float64(line[x]) > low) & (line[x] < np.inf))
            size = (rows[j + 1] - rows[j]) * (columns[i + 1] - columns[i])
            if n >= ENOUGH_SAMPLES and n > size / 2:
                medians[j, i] = median_of(values[:n])
    return medians
