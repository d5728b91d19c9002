"""Outliers: inject them into frames, find those already there, measure what a result keeps of their light."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from stacklib.integration.samples import Samples, parts, wait
from stacklib.kernel.passes import Tile
from stacklib.measurement.stars import mad_sigma
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.rejection.estimators import absolute_deviation, median
from stacklib.rejection.sorting import LANES
from stacklib.simulate.defects import Trail, add_cosmic_ray
from stacklib.utils.compiled import compiled

__all__ = ["Injection", "OutlierLight", "inject", "own_outliers", "spread_of", "window_sums"]

#: Peaks of faint, medium and bright trails, in sigma of the noise of their frame.
TRAIL_PEAKS = (4.0, 12.0, 40.0)
#: Total length of the trails of one brightness, and numbers of cosmic rays and dark pixels, per pixel of the
#: region. In 512 x 512 pixels: 400 pixels of trails, 260 hits and 130 dark pixels.
TRAIL_LENGTH, COSMIC_RAYS, DARK_PIXELS = 0.0015, 0.001, 0.0005
#: Longest piece of a trail, in pixels.
PIECE = 100.0
#: A pixel counts as hit from this many sigma.
HIT = 0.5
#: A sample is an outlier of its frame from this many sigma, a patch of 3 x 3 from this many of its own.
SINGLE, PATCH = 6.0, 5.0
#: Where frames scatter by this many times the usual, seeing has changed: nothing is an outlier there.
UNSTEADY = 2.5
#: Sides of the patches and of the surroundings they are compared with; pixels by which a patch grows.
PATCH_SIDE, SURROUNDINGS, GROWTH = 3, 33, 2
#: An outlier is this many sigma above the median; its light counts from this many standard errors.
OUTLIER_SIGMAS, RESIDUAL_ERRORS = 5.0, 3.0
#: Standard error of a median, relative to that of an average.
MEDIAN_FACTOR = 1.2533


# inject and find ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Injection:
    """Samples with injected outliers, and the pixels hit in any frame by kind of outlier.

    `samples` have the shape (channels, frames, height, width), the masks of `hit` (channels, height, width).
    """

    samples: np.ndarray
    hit: dict[str, np.ndarray]


def inject(samples: np.ndarray, noise: np.ndarray, data_low: float, seed: int) -> Injection:
    """Inject pieces of trails, cosmic rays and dark pixels into a copy of raw samples.

    Samples are float32, shape (channels, frames, height, width); those of unit range are cut off at 1, those
    at or below `data_low` are no data and get no outliers. `noise`, shape (frames, channels), is in the same
    units. Kinds are ``faint trails``, ``trails``, ``bright trails``, ``cosmic rays`` and ``dark pixels``. The
    same seed gives the same outliers.
    """
    rng = np.random.default_rng([seed, 5])
    channels, count, height, width = samples.shape
    area = height * width
    struck = samples.copy()
    hit = {}

    def add(name: str, frame: int, deposit: np.ndarray) -> None:
        # The deposit is in sigma of the frame. A sample that is no data gets nothing.
        valid = samples[:, frame] > data_low
        light = deposit * noise[frame][:, None, None]
        struck[:, frame] += np.where(valid, light, 0).astype(np.float32)
        hit[name] = hit.get(name, False) | (valid & (np.abs(deposit) > HIT))

    for name, peak in zip(("faint trails", "trails", "bright trails"), TRAIL_PEAKS, strict=True):
        length = max(TRAIL_LENGTH * area, 10.0)
        pieces = int(np.ceil(length / min(PIECE, 0.7 * min(height, width))))
        for frame in _frames(rng, count, pieces):
            add(name, frame, peak * _piece(rng, length / pieces, height, width)[None].repeat(channels, 0))
    for frame, hits in _shared_out(rng, count, max(5, round(COSMIC_RAYS * area))):
        deposit = np.zeros((channels, height, width))
        for _ in range(hits):
            add_cosmic_ray(deposit, rng, 1.0)
        add("cosmic rays", frame, deposit)
    for frame, hits in _shared_out(rng, count, max(3, round(DARK_PIXELS * area))):
        deposit = np.zeros((channels, height, width))
        # As deep as the overcorrected hot pixels of `stacklib.simulate.defects`.
        deposit[:, rng.integers(height, size=hits), rng.integers(width, size=hits)] = -0.6 * (
            4.0 + rng.exponential(9.0, hits)
        )
        add("dark pixels", frame, deposit)
    top = np.float32(1.0)
    np.minimum(struck, np.maximum(samples, top), out=struck, where=samples <= top)
    return Injection(struck, hit)


def _frames(rng: np.random.Generator, count: int, wanted: int) -> list[int]:
    """Choose frames at random, each once before any is repeated."""
    return [int(frame) for _ in range(-(-wanted // count)) for frame in rng.permutation(count)][:wanted]


def _shared_out(rng: np.random.Generator, count: int, wanted: int) -> list[tuple[int, int]]:
    """Distribute hits over the frames; return frame and number of hits."""
    numbers = np.bincount(rng.integers(count, size=wanted), minlength=count)
    return [(frame, int(number)) for frame, number in enumerate(numbers) if number]


def _piece(rng: np.random.Generator, length: float, height: int, width: int) -> np.ndarray:
    """Return a piece of a trail with a peak of 1 at a random place, (height, width)."""
    x, y, angle = rng.uniform(0.15, 0.85) * width, rng.uniform(0.15, 0.85) * height, rng.uniform(0, np.pi)
    dx, dy = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    return Trail(0, (x - dx, y - dy), (x + dx, y + dy), 1.0).profile(height, width)


def own_outliers(values: np.ndarray, middle: np.ndarray, spread: np.ndarray, threads: int = 1) -> np.ndarray:
    """Find outliers that are already in the frames, in single samples and in patches of pixels.

    A sample is an outlier if it is 6 sigma away from the median of the frames, or if the 3 x 3 pixels around
    it are 5 of their sigma above their surroundings. A single outlier grows by 1 pixel, a patch by 2. Sigma
    is that of the frame, and larger where the frames scatter more than elsewhere. Where they scatter much
    more (stars under changing seeing), nothing is an outlier.

    Normalized samples, float32, and the returned mask have the shape (frames, height, width). `middle` and
    `spread`, shape (height, width), are median and median absolute deviation of each pixel; NaN where a frame
    has no data.
    """
    known = np.isfinite(spread)
    usual = float(np.median(spread[known])) if known.any() else 0.0
    local = ndimage.uniform_filter(np.where(known, spread, usual).astype(np.float64), 3)
    wider = np.maximum(local / usual, 1.0) if usual > 0 else np.ones_like(local)
    # Seeing matters most on the slope of a star, beside its core.
    steady = ndimage.maximum_filter(wider, 3) < UNSTEADY
    find = partial(_in_frame, middle=middle, wider=wider, known=known, steady=known & steady)
    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(find, values)))


def _in_frame(
    values: np.ndarray, middle: np.ndarray, wider: np.ndarray, known: np.ndarray, steady: np.ndarray
) -> np.ndarray:
    rest = np.where(known, values - middle, 0).astype(np.float64)
    rest -= np.median(rest[known]) if known.any() else 0
    single = (np.abs(rest) > SINGLE * wider * _sigma(rest, known)) & steady
    # A single pixel must not become a patch, however bright it is.
    rest[single] = 0
    patches = ndimage.uniform_filter(rest, PATCH_SIDE) - ndimage.uniform_filter(rest, SURROUNDINGS)
    patch = (patches > PATCH * wider * _sigma(patches, known)) & steady
    return _grown(single, 1) | _grown(patch, GROWTH)


def _grown(found: np.ndarray, pixels: int) -> np.ndarray:
    side = 2 * pixels + 1
    return ndimage.binary_dilation(found, np.ones((side, side), bool)) if found.any() else found


def _sigma(values: np.ndarray, known: np.ndarray) -> float:
    some = values[known]
    if some.size == 0:
        return np.inf
    return mad_sigma(some) or np.inf


# what is left ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutlierLight:
    """The places where frames have outliers, and the light of an integration without rejection there.

    Wherever a sample is more than 5 sigma above the median of the frames, the excess of a result over that
    median, beyond 3 standard errors of the median, is added up. Sigma is 1.4826 times the median absolute
    deviation of the pixel's samples, and at least that of the median pixel. Only pixels where all frames have
    data count.

    `threshold` is the median plus 3 of its standard errors, in the units of the frames; `excess` the height
    of the brightest sample above the median where it is an outlier, 0 elsewhere; both float32, shape
    (channels, height, width). `plain` is the sum for the integration without rejection.
    """

    threshold: np.ndarray
    excess: np.ndarray
    plain: float

    @classmethod
    def find(cls, samples: Samples, preparation: Preparation, plain: np.ndarray) -> OutlierLight:
        """Find the outliers of a region; `plain` is its image without rejection, in units of the frames."""
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
        """Return the light of outliers left in a result, in percent of that without rejection.

        The image is in the units of the frames. NaN if there are no outliers.
        """
        return 100 * self._sum(image) / self.plain if self.plain > 0 else math.nan


def spread_of(samples: Samples, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Return median and median absolute deviation of each pixel, float32, (channels, height, width).

    They are those of the samples normalized for output; NaN where a frame has no data.
    """
    return _measure_all(samples, preparation)[:2]


def _measure_all(samples: Samples, preparation: Preparation) -> tuple[np.ndarray, ...]:
    """Measure median, median absolute deviation and maximum, each (channels, height, width)."""
    channels, used = preparation.frames.channels, preparation.used
    _, _, width, height = samples.region
    found = np.empty((3, channels, height * width), np.float32)
    samples = samples.marked(preparation.marks)
    with ThreadPoolExecutor(samples.threads) as workers, closing(samples.read_ahead(used)) as bands:
        for channel, start, stop, raw in bands:
            settings, out = preparation.settings(channel), found[:, channel, start * width : stop * width]
            pieces = parts(raw.shape[1], samples.threads)
            wait([workers.submit(_measure, raw, settings, out, *piece) for piece in pieces])
            del raw
    return tuple(found.reshape(3, channels, height, width))


def _measure(raw: np.ndarray, settings: Settings, out: np.ndarray, first: int, last: int) -> None:
    """Measure the pixels ``first:last`` of a band."""
    # Normalize for output, not for rejection.
    combined = replace(settings, rejection_factor=settings.factor, rejection_offset=settings.offset)
    tile = Tile(combined)
    for start in range(first, last, tile.pixels):
        stop = min(start + tile.pixels, last)
        samples = tile.sort(raw, start, stop)
        _measure_tile(samples.ordered, samples.count, start, stop, *out)


@compiled
def _measure_tile(ordered, count, start, stop, middle, spread, largest):
    """Measure median, median absolute deviation and maximum of each pixel; NaN where a sample is no data."""
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


def window_sums(light: np.ndarray, side: int) -> np.ndarray:
    """Add up the light, float64, of every square window inside an image, by top and left of the window."""
    tall, wide = (min(side, length) for length in light.shape)
    sums = np.pad(light, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
