"""Planes resampled by homographies."""

import numpy as np
import pytest

from stacklib.simulate import registration
from stacklib.simulate.registration import mapped, warped


@pytest.mark.parametrize("order", [1, 3])
def test_a_whole_shift_moves_pixels(order, monkeypatch):
    monkeypatch.setattr(registration, "ROWS", 7)
    plane = np.random.default_rng(1).random((20, 30)).astype(np.float32)
    there = np.array([[1, 0, 3], [0, 1, -2], [0, 0, 1.0]])
    found = warped(plane, there, (20, 30), order)
    assert np.allclose(found[2:, :27], plane[:18, 3:], atol=1e-6)
    assert np.isnan(found[:2]).all() and np.isnan(found[:, 27:]).all()


def test_a_picture_that_is_a_slope_stays_one():
    y, x = np.mgrid[:40, :50] + 0.5
    matrix = np.array([[0.98, -0.05, 3.0], [0.05, 1.01, 2.0], [1e-5, 2e-5, 1.0]])
    u, v = mapped(matrix, x, y)
    for order in (1, 3):
        found = warped(0.3 + 0.01 * x - 0.02 * y, matrix, (40, 50), order)
        good = np.isfinite(found) & (u > 8) & (v > 8) & (u < 42) & (v < 32)
        assert good.sum() > 500 and np.allclose(
            found[good], (0.3 + 0.01 * u - 0.02 * v)[good], atol=1e-3 * order
        )
