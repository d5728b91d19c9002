"""The gradient of a plane."""

import numpy as np
import pytest

from stacklib.measurement.gradient import gradient

YY, XX = np.mgrid[:96, :128]


@pytest.mark.parametrize(("across", "down"), [(0, 0), (0.05, 0), (-0.02, 0.03)])
@pytest.mark.parametrize("border", [False, True])
def test_a_ramp_under_stars_and_noise(across, down, border):
    rng = np.random.default_rng(1)
    plane = 0.1 + across * XX / 128 + down * YY / 96 + rng.normal(0, 0.004, XX.shape)
    for _ in range(15):
        plane += 0.3 * np.exp(-((XX - rng.uniform(0, 128)) ** 2 + (YY - rng.uniform(0, 96)) ** 2) / 5)
    if border:
        plane[:30] = 0
        plane[:, :9] = np.nan
    got = gradient(plane.astype(np.float32), 0.0)
    assert got == pytest.approx((across, down), abs=0.004)


def test_too_little_data():
    plane = np.zeros((96, 128), np.float32)
    plane[:10] = 0.1
    assert np.isnan(gradient(plane, 0.0)).all()
    assert np.isnan(gradient(np.full((1, 1), 0.1, np.float32), 0.0)).all()
