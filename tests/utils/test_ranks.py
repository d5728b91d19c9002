"""The median by bisection, and sorting by digits."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib.utils.ranks import MANY, STRIDE, median_of, median_of_many, middle_of, sorted_floats


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 1000, 4097])
def test_median(size):
    rng = np.random.default_rng(size)
    normal = rng.normal(size=size)
    kinds = [normal, np.rint(normal), -np.abs(normal), normal * 1e-40, normal * 1e37, np.zeros(size)]
    kinds.append(np.where(normal > 0, np.inf, normal))
    for kind in kinds:
        values = kind.astype(np.float32)
        ordered = np.sort(values).astype(float)
        expected = 0.5 * (ordered[(size - 1) // 2] + ordered[size // 2])
        assert median_of(values) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 1000, 4097])
def test_median_of_doubles(size):
    rng = np.random.default_rng(size)
    normal = rng.normal(size=size)
    kinds = [normal, np.rint(normal), -np.abs(normal), normal * 1e-310, normal * 1e300, np.zeros(size)]
    kinds += [np.where(normal > 1, np.inf, normal), np.full(size, -0.0), 1 + 1e-16 * np.arange(size)]
    for values in kinds:
        ordered = np.sort(values)
        expected = 0.5 * (ordered[(size - 1) // 2] + ordered[size // 2])
        assert middle_of(values) == expected == np.median(values)
    # As if NaN, whatever its sign, were above everything.
    mostly = np.where(normal < np.median(normal) + 1, normal, -np.nan)
    mostly[0] = np.nan
    ordered = np.sort(mostly)
    np.testing.assert_equal(middle_of(mostly), 0.5 * (ordered[(size - 1) // 2] + ordered[size // 2]))


def test_of_nothing():
    assert np.isnan(median_of(np.empty(0, np.float32)))
    assert np.isnan(middle_of(np.empty(0)))


@pytest.mark.parametrize("size", [0, 1, MANY - 1, MANY, 3 * MANY + 1])
def test_sorted(size):
    rng = np.random.default_rng(size)
    normal = rng.normal(size=size).astype(np.float32)
    strange = np.where(normal > 1, np.float32(np.nan), np.copysign(np.float32(np.inf), normal))
    strange = np.where(normal < -1, -np.float32(np.nan), strange)
    for values in (normal, np.rint(normal), normal * np.float32(1e-40), np.exp(20 * normal), strange):
        kept = values.copy()
        np.testing.assert_equal(sorted_floats(values), np.sort(values))
        np.testing.assert_equal(sorted_floats(values[::-2]), np.sort(values[::-2]))
        np.testing.assert_equal(values, kept)


@pytest.mark.parametrize("size", [1, 2, 63, 1000, 20_001, 20_002])
def test_median_of_many(size):
    rng = np.random.default_rng(size)
    normal = rng.normal(size=size)
    for values in (normal, np.rint(normal), np.sort(normal), np.abs(normal), np.zeros(size)):
        assert median_of_many(values) == np.median(values)
    # Those that are looked at first are none of the others.
    values = np.arange(size, dtype=float)
    values[::STRIDE] = size
    assert median_of_many(values) == np.median(values)
