"""Fill the arrays of a tile that the drizzle library takes: places, values, weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stacklib.utils.compiled import compiled

__all__ = ["Scaling", "fill_places", "fill_samples", "reject_samples"]


class Scaling(NamedTuple):
    """What is done to the samples of a channel of a frame.

    Samples above `low` and below `high` become ``v * factor + offset``, with this `weight`.
    """

    low: float
    high: float
    factor: float
    offset: float
    weight: float


@compiled
def fill_places(places, inverse, first, step):
    """Fill the places of pixels in the reference.

    Parameters
    ----------
    places : ndarray of float64, shape (rows, columns, 2)
        Takes x and y.
    inverse : ndarray of float64, shape (3, 3)
        Homography from the frame to the reference.
    first : tuple of float
        y and x of the center of the first pixel.
    step : int
        Distance of the pixels along both axes.
    """
    rows, columns, _ = places.shape
    for i in range(rows):
        y = first[0] + step * i
        a = inverse[0, 1] * y + inverse[0, 2]
        b = inverse[1, 1] * y + inverse[1, 2]
        c = inverse[2, 1] * y + inverse[2, 2]
        for j in range(columns):
            x = first[1] + step * j
            depth = inverse[2, 0] * x + c
            places[i, j, 0] = (inverse[0, 0] * x + a) / depth
            places[i, j, 1] = (inverse[1, 0] * x + b) / depth


@compiled
def fill_samples(raw, scaling, values, weights):
    """Fill the normalized values of samples and their weights, 0 for no data.

    Parameters
    ----------
    raw : ndarray of float32, shape (rows, columns)
        The samples as they are in the frame.
    scaling : Scaling
        What is done to them.
    values, weights : ndarray of float32, shape (rows, columns)
        Take the result.
    """
    weight = np.float32(scaling.weight)
    for i in range(raw.shape[0]):
        for j in range(raw.shape[1]):
            v = raw[i, j]
            if scaling.low < v < scaling.high:
                values[i, j] = v * scaling.factor + scaling.offset
                weights[i, j] = weight
            else:
                values[i, j] = 0
                weights[i, j] = 0


@compiled
def reject_samples(weights, places, rejected, top):
    """Set the weight of rejected samples to 0.

    Parameters
    ----------
    weights : ndarray of float32, shape (rows, columns)
        Weights of the samples.
    places : ndarray of float64, shape (rows, columns, 2)
        Their x and y in the reference.
    rejected : ndarray of bool, shape (height, width)
        Samples that were rejected, in rows of the reference.
    top : int
        The first of these rows.
    """
    height, width = rejected.shape
    for i in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            x, y = places[i, j, 0], places[i, j, 1] - top
            if 0 <= x < width and 0 <= y < height and rejected[int(y), int(x)]:
                weights[i, j] = 0
