"""The median by bisection."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib.utils.ranks import median_of


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


def test_of_nothing():
    assert np.isnan(median_of(np.empty(0, np.float32)))
