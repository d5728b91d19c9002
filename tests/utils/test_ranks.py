"""The median by bisection."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib.utils.ranks import median_of, middle_of


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
