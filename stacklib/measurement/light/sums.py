"""Light around stars, summed by its distance from them, and level and noise in rings around them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.measurement.light.profiles import FINENESS, RING
from stacklib.utils.compiled import compiled
from stacklib.utils.ranks import median_of

__all__ = [
    "LightByDistance",
    "measure_surroundings",
    "whole_stars",
]

#: Percentile of the scatter in rings that is noise.
QUIET = 25


class LightByDistance(NamedTuple):
    """Light of stars by the distance from their middles in steps of `FINENESS`, float64 (stars, steps).

    A pixel between two ends of a step is shared out: `near` has the part of the near end, `far` that of the
    other. So a sum of pixels times a filter, known at the ends, is one of as many terms as there are steps.
    """

    near: np.ndarray
    far: np.ndarray

    @classmethod
    def of(
        cls, image: np.ndarray, x: np.ndarray, y: np.ndarray, level: np.ndarray, steps: int
    ) -> LightByDistance:
        """Measure stars in an image above the level around them."""
        light = cls(np.zeros((x.size, steps)), np.zeros((x.size, steps)))
        _share_out(image, x, y, level, *light)
        return light

    @property
    def steps(self) -> int:
        return self.near.shape[1]

    def sums(self, filters: np.ndarray, stars: int) -> np.ndarray:
        """Sum the light of the first stars times filters (filters, ends of steps): (filters, stars)."""
        found = np.empty((len(filters), stars))
        _sum(self.near[:stars], self.far[:stars], filters, found)
        return found


def whole_stars(shape: tuple[int, ...], x: np.ndarray, y: np.ndarray, reach: float) -> np.ndarray:
    """Return the stars around which an image has all pixels within some distance, bool (stars,)."""
    height, width = shape
    first, last, left, right = (
        np.ceil(y - reach),
        np.floor(y + reach),
        np.ceil(x - reach),
        np.floor(x + reach),
    )
    return (first >= 0) & (left >= 0) & (last < height) & (right < width)


def measure_surroundings(image: np.ndarray, x: np.ndarray, y: np.ndarray, fwhm: float) -> np.ndarray:
    """Return level and noise in the ring around each star, (2, stars)."""
    found = np.full((2, x.size), np.nan)
    _measure_rings(image, x, y, RING[0] * fwhm, RING[1] * fwhm, found)
    if np.isfinite(found[1]).any():
        # In a cluster the rings are full of stars, which are no noise.
        found[1, np.isfinite(found[1])] = np.nanpercentile(found[1], QUIET)
    return found


@compiled
def _measure_rings(image, x, y, inner, outer, found):
    height, width = image.shape
    values = np.empty(int(2 * outer + 3) ** 2, np.float32)
    for k in range(x.size):
        count = 0
        for r in range(max(0, int(y[k] - outer)), min(height, int(y[k] + outer) + 2)):
            for c in range(max(0, int(x[k] - outer)), min(width, int(x[k] + outer) + 2)):
                value = image[r, c]
                if inner < math.sqrt((r - y[k]) ** 2 + (c - x[k]) ** 2) < outer and value == value:
                    values[count] = value
                    count += 1
        if count >= 20:
            middle = np.float32(median_of(values[:count]))
            found[0, k] = middle
            for i in range(count):
                values[i] = abs(values[i] - middle)
            found[1, k] = 1.4826 * median_of(values[:count])


@compiled
def _share_out(image, x, y, level, near, far):
    """Share the pixels around each star out to both ends of their steps, see `LightByDistance`."""
    height, width = image.shape
    steps = near.shape[1]
    reach = steps * FINENESS
    places = np.empty(int(2 * reach) + 2)
    for k in range(x.size):
        top, left = max(int(np.ceil(y[k] - reach)), 0), max(int(np.ceil(x[k] - reach)), 0)
        bottom = min(int(np.floor(y[k] + reach)), height - 1)
        columns = min(int(np.floor(x[k] + reach)), width - 1) + 1 - left
        for r in range(top, bottom + 1):
            down = (r - y[k]) ** 2
            for c in range(columns):
                places[c] = math.sqrt(down + (left + c - x[k]) ** 2) / FINENESS
            for c in range(columns):
                j = int(places[c])
                if j < steps:
                    # Filters add up to nearly 0, but not quite on a grid of pixels.
                    value = image[r, left + c] - level[k]
                    beyond = (places[c] - j) * value
                    near[k, j] += value - beyond
                    far[k, j] += beyond


@compiled
def _sum(near, far, filters, found):
    """Sum light by distance times filters, see `LightByDistance`."""
    for k in range(near.shape[0]):
        for d in range(filters.shape[0]):
            total = 0.0
            for j in range(filters.shape[1] - 1):
                total += near[k, j] * filters[d, j] + far[k, j] * filters[d, j + 1]
            found[d, k] = total
