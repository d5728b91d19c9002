"""What a result still holds of the light of outliers, measured without knowing the truth."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from stacklib.integration.samples import Samples
from stacklib.kernel.passes import Tile
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.rejection.estimators import absolute_deviation, median
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = ["OutlierLight", "spread_of"]

#: An outlier is a sample this many sigmas above the median; what it leaves, this many standard errors.
OUTLIER_SIGMAS, RESIDUAL_ERRORS = 5.0, 3.0
#: Standard error of a median in units of that of an average.
MEDIAN_FACTOR = 1.2533


@dataclass(frozen=True)
class OutlierLight:
    """Where the frames hold outliers, and how bright a result is there without rejection.

    Where a sample stands more than 5 sigma above the median of the frames, the excess of a result over that
    median is added up as far as it is above 3 standard errors of the median. Sigma is 1.4826 times the median
    absolute deviation of the pixel's samples, at least that of the median pixel; only pixels at which all
    frames have data are looked at.

    Attributes
    ----------
    threshold : ndarray of float32, shape (channels, height, width)
        Median and 3 standard errors of it, in the units of the frames.
    excess : ndarray of float32, shape (channels, height, width)
        How far the brightest sample is above the median, where it is an outlier; 0 elsewhere.
    plain : float
        The sum for the result without rejection.
    """

    threshold: np.ndarray
    excess: np.ndarray
    plain: float

    @classmethod
    def find(cls, samples: Samples, preparation: Preparation, plain: np.ndarray) -> OutlierLight:
        """Find the outliers.

        Parameters
        ----------
        samples : Samples
            The samples of a region.
        preparation : Preparation
            Their normalisation.
        plain : ndarray of float32, shape (channels, height, width)
            The result without rejection, in the units of the frames.
        """
        middle, spread, largest = _measure_all(samples, preparation)
        spread *= np.float32(1.4826)
        for each in spread:
            known = each[np.isfinite(each)]
            np.maximum(each, np.median(known) if known.size else 0, out=each)
        # Where a frame has no data, spread is NaN, and nothing is larger.
        outlier = largest - middle > np.float32(OUTLIER_SIGMAS) * spread
        excess = np.where(outlier, largest - middle, np.float32(0))
        factor = np.float32(RESIDUAL_ERRORS * MEDIAN_FACTOR / math.sqrt(preparation.count))
        light = cls(middle + factor * spread, excess, 0.0)
        return replace(light, plain=light._sum(plain))

    def _sum(self, image: np.ndarray) -> float:
        where = self.excess > 0
        return float(np.maximum(image[where] - self.threshold[where], 0).sum(dtype=np.float64))

    def left(self, image: np.ndarray) -> float:
        """Percent of the light of outliers that a result still holds; NaN where there are none.

        Parameters
        ----------
        image : ndarray of float32, shape (channels, height, width)
            In the units of the frames.
        """
        return 100 * self._sum(image) / self.plain if self.plain > 0 else math.nan


def spread_of(samples: Samples, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Median and median absolute deviation of each pixel.

    Parameters
    ----------
    samples : Samples
        The samples of a region.
    preparation : Preparation
        Their normalisation.

    Returns
    -------
    median, deviation : ndarray of float32, shape (channels, height, width)
        Of the samples as they are combined; NaN where a frame has no data.
    """
    return _measure_all(samples, preparation)[:2]


def _measure_all(samples: Samples, preparation: Preparation) -> tuple[np.ndarray, ...]:
    """Median, median absolute deviation and maximum, each (channels, height, width)."""
    channels, used = preparation.frames.channels, preparation.used
    _, _, width, height = samples.region
    found = np.empty((3, channels, height * width), np.float32)
    with ThreadPoolExecutor(samples.threads) as pool:
        for channel, start, stop in samples.bands(used):
            raw = samples.read((channel, start, stop), used, pool).wait()
            here = slice(start * width, stop * width)
            _measure(raw, preparation.settings(channel), *found[:, channel, here])
    return tuple(found.reshape(3, channels, height, width))


def _measure(
    raw: np.ndarray, settings: Settings, middle: np.ndarray, spread: np.ndarray, largest: np.ndarray
) -> None:
    # As they are combined, not as they are compared.
    combined = replace(settings, rejection_factor=settings.factor, rejection_offset=settings.offset)
    tile = Tile(combined)
    for start in range(0, raw.shape[1], tile.pixels):
        stop = min(start + tile.pixels, raw.shape[1])
        samples = tile.sort(raw, start, stop)
        _measure_tile(samples.ordered, samples.count, start, stop, middle, spread, largest)


@compiled
def _measure_tile(ordered, count, start, stop, middle, spread, largest):
    """Median, median absolute deviation and maximum of each pixel; NaN where a sample is no data."""
    column = np.empty(ordered.shape[1], np.float32)
    n = column.size
    for q in range(start, stop):
        b, p = (q - start) // LANES, (q - start) % LANES
        middle[q] = spread[q] = largest[q] = np.nan
        if count[b, p] == n:
            for i in range(n):
                column[i] = ordered[b, i, p]
            m = median(column, 0, n)
            deviation = absolute_deviation(column, 0, n, m, (n - 1) // 2)
            deviation = 0.5 * (deviation + absolute_deviation(column, 0, n, m, n // 2))
            middle[q] = m
            spread[q] = deviation
            largest[q] = column[n - 1]
