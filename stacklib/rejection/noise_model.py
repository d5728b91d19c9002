"""Rejection by noise that is known beforehand: each frame has its own limits.

The other rules learn the noise of a pixel from its own samples. This one knows it, from all pixels of the
same level and from the neighbors; see `stacklib.normalization.noise_curve` and `stacklib.kernel.scatter`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from stacklib.rejection.clipping import note
from stacklib.rejection.estimators import median
from stacklib.rejection.sorting import LANES
from stacklib.utils.compiled import compiled

__all__ = ["FAR", "MODEL", "OWN", "Judged", "noise_model"]

#: Rows of the scatter of a block: variance by the noise curve at the median of each pixel, and the variance
#: that its own samples show. Both are those of a frame of relative noise 1.
MODEL, OWN = range(2)
#: Where the noise exceeds the curve, it is at least this fraction of what the samples of the pixel show:
#: cores of stars whose seeing changes scatter more than their neighbors.
LEAST_OWN = 0.75
#: Variance of a median relative to that of the mean.
MEDIAN_VARIANCE = math.pi / 2
#: Largest number of rounds. Nearly all pixels take two or three.
ROUNDS = 20
#: Parts of the work arrays of a block: by pixel, and by frame and pixel. `FURTHER` is the variance that all
#: frames have alike, relative to `VARIANCE`, that of a frame of relative noise 1.
CENTRE, VARIANCE, FURTHER, WEIGHTS, WEIGHTED = range(5)
DEVIATION, DATA, KEPT = range(3)
#: Rejected samples farther out than this many sigma are no chance deviations.
FAR = 4.5


class Judged(NamedTuple):
    """Verdicts on the samples of a tile in place of their values, so that kept ones are an interval.

    `values`, in the order of the frames, are 0 for a kept sample, and half the relative noise of the frame,
    or twice if it lies beyond `FAR` sigma, for a rejected one: negative if it is too low, positive if it is
    too high; infinite for no data. `ordered` has -1, 0 and 1. `limits`, float64 (blocks, 2, frames, LANES),
    is filled with the lower and upper limit of each frame in the last round unless it has no blocks.
    """

    values: np.ndarray
    ordered: np.ndarray
    limits: np.ndarray


@compiled
def _start(samples, b, excess, floor, typical, by_pixel, by_sample):
    """Find median and variance of each pixel of a block, and the deviations of its samples."""
    values, ordered, scatter = samples.values[b], samples.ordered[b], samples.scatter[b]
    for p in range(LANES):
        n = samples.count[b, p]
        by_pixel[CENTRE, p] = median(ordered[:, p], 0, n) if n > 0 else 0.0
        beyond = np.float64(excess[p]) if p < excess.size else 1.0
        variance = max(scatter[MODEL, p], floor * floor)
        if beyond < 0.0:
            variance *= beyond * beyond
        by_pixel[FURTHER, p] = 0.0
        if beyond > 1.0 and variance > 0.0:
            shown = max(scatter[MODEL, p] * beyond * beyond, LEAST_OWN * LEAST_OWN * scatter[OWN, p])
            by_pixel[FURTHER, p] = max(shown / variance - 1.0, 0.0) * typical
        # Infinite: nothing is rejected.
        by_pixel[VARIANCE, p] = variance if n >= 3 and variance > 0.0 else np.inf
    for i in range(values.shape[0]):
        for p in range(LANES):
            there = values[i, p] < np.inf
            by_sample[DATA, i, p] = by_sample[KEPT, i, p] = 1.0 if there else 0.0
            by_sample[DEVIATION, i, p] = np.float64(values[i, p]) - by_pixel[CENTRE, p] if there else 0.0


@compiled
def _sum_kept(by_sample, weight, by_pixel):
    """Sum weights and weighted deviations of the kept samples of a block."""
    weights, weighted = by_pixel[WEIGHTS], by_pixel[WEIGHTED]
    weights[:] = 0.0
    weighted[:] = 0.0
    for i in range(weight.size):
        w = weight[i]
        d, k = by_sample[DEVIATION, i], by_sample[KEPT, i]
        for p in range(LANES):
            weights[p] += w * k[p]
            weighted[p] += w * k[p] * d[p]


@compiled
def _test_median(d, data, k, noise2, by_pixel, limits):
    """Test the samples of a frame against the median, which has an error as well."""
    weights, variance, further = by_pixel[WEIGHTS], by_pixel[VARIANCE], by_pixel[FURTHER]
    limit_low, limit_high = limits
    for p in range(LANES):
        limit = limit_high if d[p] > 0.0 else limit_low
        reach = limit * variance[p] * ((noise2 + further[p]) * weights[p] + MEDIAN_VARIANCE)
        k[p] = 0.0 if d[p] * d[p] * weights[p] > reach else data[p]


@compiled
def _test_mean(d, data, k, noise2, by_pixel, limits):
    """Test the samples of a frame against the mean of the others; return how many verdicts change."""
    weights, weighted = by_pixel[WEIGHTS], by_pixel[WEIGHTED]
    variance, further = by_pixel[VARIANCE], by_pixel[FURTHER]
    limit_low, limit_high = limits
    own = 1.0 / noise2
    changed = np.int32(0)
    for p in range(LANES):
        w = own * k[p]
        others = weights[p] - w
        # The deviation from the mean of the others, and its limit, both times the weight of the others.
        t = d[p] * others - (weighted[p] - w * d[p])
        limit = limit_high if t > 0.0 else limit_low
        reach = limit * variance[p] * others * ((noise2 + further[p]) * others + 1.0)
        new = 0.0 if t * t > reach else data[p]
        changed = np.int32(changed + np.int32(new != k[p]))
        k[p] = new
    return changed


@compiled
def _keep_one(by_sample):
    """Keep the sample nearest to the median in pixels that would keep none."""
    frames = by_sample.shape[1]
    some = np.zeros(LANES)
    for i in range(frames):
        for p in range(LANES):
            some[p] += by_sample[KEPT, i, p]
    for p in range(LANES):
        if some[p] == 0.0:
            nearest, best = -1, np.inf
            for i in range(frames):
                apart = abs(by_sample[DEVIATION, i, p])
                if by_sample[DATA, i, p] > 0.0 and apart < best:
                    nearest, best = i, apart
            if nearest >= 0:
                by_sample[KEPT, nearest, p] = 1.0


@compiled
def _frame_limits(by_sample, by_pixel, noise, limits, first, out):
    """Store the limits of every frame in a round, given the samples kept before it."""
    error = MEDIAN_VARIANCE if first else 1.0
    for i in range(noise.size):
        noise2 = noise[i] * noise[i]
        for p in range(LANES):
            own = 0.0 if first else by_sample[KEPT, i, p] / noise2
            others = by_pixel[WEIGHTS, p] - own
            beside = by_pixel[WEIGHTED, p] - own * by_sample[DEVIATION, i, p]
            mean = by_pixel[CENTRE, p] + (0.0 if first else beside / others)
            reach = math.sqrt(by_pixel[VARIANCE, p] * (noise2 + by_pixel[FURTHER, p] + error / others))
            out[0, i, p] = mean - limits[0] * reach
            out[1, i, p] = mean + limits[1] * reach


@compiled
def _note_round(detail, by_pixel, limits, first):
    """Store the mean of the kept samples, and the limits of another frame of relative noise 1."""
    error = MEDIAN_VARIANCE if first else 1.0
    for p in range(LANES):
        weights = by_pixel[WEIGHTS, p]
        known = by_pixel[VARIANCE, p] < np.inf
        mean = by_pixel[CENTRE, p] + (0.0 if first else by_pixel[WEIGHTED, p] / weights)
        reach = math.sqrt(by_pixel[VARIANCE, p] * (1.0 + by_pixel[FURTHER, p] + error / weights))
        mean = mean if known else np.nan
        note(detail, p, mean, mean - limits[0] * reach, mean + limits[1] * reach, 0.0)


@compiled
def _write(samples, b, judged, noise, by_pixel, by_sample):
    """Write the verdicts on a block as `Judged` and as intervals."""
    low, high, count = samples.low[b], samples.high[b], samples.count[b]
    low[:] = 0
    high[:] = 0
    for i in range(noise.size):
        noise2 = noise[i] * noise[i]
        for p in range(LANES):
            weights = by_pixel[WEIGHTS, p]
            t = by_sample[DEVIATION, i, p] * weights - by_pixel[WEIGHTED, p]
            reach = FAR * FAR * by_pixel[VARIANCE, p] * weights
            reach *= (noise2 + by_pixel[FURTHER, p]) * weights + 1.0
            code = (2.0 if t * t > reach else 0.5) * noise[i]
            kept = by_sample[KEPT, i, p] > 0.0
            there = by_sample[DATA, i, p] > 0.0
            code = (code if t > 0.0 else -code) if there and not kept else 0.0
            judged.values[b, i, p] = code if there else np.inf
            low[p] += np.int32(code < 0.0)
            high[p] += np.int32(code < 0.0) + np.int32(kept)
    for i in range(noise.size):
        for p in range(LANES):
            code = -1.0 if i < low[p] else (0.0 if i < high[p] else 1.0)
            judged.ordered[b, i, p] = code if i < count[p] else np.inf


@compiled
def noise_model(samples, judged, noise, typical, excess, limits, max_iterations):
    """Test each sample against the weighted mean of the other kept ones, with noise known beforehand.

    `samples` are those of a tile with their `scatter`, see `stacklib.kernel.tiles.TileSamples`; `low`, `high`
    and `detail` are filled as by other rules, for a frame of relative noise 1, but refer to `judged`.
    `noise`, float64 (frames,), is the relative noise of the frames, and `typical` the variance that the
    median deviation of their samples shows, see `stacklib.rejection.calibration.typical_variance`. `excess`,
    float32 (pixels,), by which the noise exceeds the curve, may be empty; negative where that is noise of the
    frames, see `stacklib.kernel.scatter`. `limits` are those of the low and
    high side in sigma and the floor of sigma.

    A sample is rejected beyond ``k sigma sqrt(s_i^2 + t + 1 / W)``, where W is the sum of the weights
    ``1 / s_i^2`` of the others, and t is what the scatter of the pixel exceeds the noise by. That is seeing
    for the most part, in which a frame of little noise differs from the others as much as any. Round 1 tests
    against the median. The next ones take back samples that are not beyond the limits after all. With fewer
    than 3 samples nothing is rejected.
    """
    frames = samples.values.shape[1]
    weight = 1.0 / (noise * noise)
    squares = limits[0] * limits[0], limits[1] * limits[1]
    # The mean of the others shares in what the frames have alike.
    typical *= 1.0 + (weight * weight).sum() / weight.sum() ** 2
    by_pixel, by_sample = np.empty((5, LANES)), np.empty((3, frames, LANES))
    rounds = min(max_iterations, ROUNDS)
    for b in range(samples.values.shape[0]):
        _start(samples, b, excess[b * LANES : (b + 1) * LANES], limits[2], typical, by_pixel, by_sample)
        if rounds < 1:
            for p in range(LANES):
                note(samples.detail[b], p, np.nan, np.nan, np.nan, 0.0)
        for number in range(rounds):
            first = number == 0
            _sum_kept(by_sample, weight, by_pixel)
            _note_round(samples.detail[b], by_pixel, limits, first)
            if judged.limits.size > 0:
                _frame_limits(by_sample, by_pixel, noise, limits, first, judged.limits[b])
            changed = 0
            for i in range(frames):
                d, data, k = by_sample[DEVIATION, i], by_sample[DATA, i], by_sample[KEPT, i]
                noise2 = noise[i] * noise[i]
                if first:
                    _test_median(d, data, k, noise2, by_pixel, squares)
                else:
                    changed += _test_mean(d, data, k, noise2, by_pixel, squares)
            _keep_one(by_sample)
            if not first and changed == 0:
                break
        _sum_kept(by_sample, weight, by_pixel)
        _write(samples, b, judged, noise, by_pixel, by_sample)
