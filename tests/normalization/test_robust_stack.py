"""Robust stacks against NumPy, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib.normalization.robust_stack import CLIP, clipped_mean, median_stack

SHAPE = (9, 37)


def planes(count, holes):
    rng = np.random.default_rng(count)
    values = rng.normal(5, 1, (count, *SHAPE)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] += 20
    values[rng.random(values.shape) < holes] = np.nan
    # Ties, and a pixel that no plane has.
    values[:, 0] = np.rint(values[:, 0])
    values[:, 1, 2] = np.nan if holes else 1
    return values


def slow_mean(samples, noise):
    there = np.isfinite(samples)
    if not there.any():
        return np.nan
    samples, noise = samples[there], noise[there]
    middle = np.median(samples)
    away = np.abs(samples - middle)
    spread = 1.4826 * np.sort(away)[samples.size // 2]
    return np.mean(samples[away <= CLIP * np.maximum(noise, spread)], dtype=float)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 15])
@pytest.mark.parametrize("holes", [0, 0.02, 0.6])
def test_stacks(count, holes):
    values = planes(count, holes)
    noise = np.random.default_rng(0).uniform(0.5, 2, count)

    def rows(k, start, stop):
        return values[k, start:stop]

    found = median_stack(rows, count, SHAPE)
    expected = np.ma.filled(np.ma.median(np.ma.masked_invalid(values), axis=0), np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    mean = clipped_mean(rows, noise, SHAPE)
    expected = np.apply_along_axis(slow_mean, 0, values, noise)
    np.testing.assert_allclose(mean, expected, rtol=2e-6)
    np.testing.assert_array_equal(clipped_mean(rows, noise, SHAPE, threads=3), mean)
