"""Filters of planes, beside those of SciPy."""

import numpy as np
import pytest
from scipy import ndimage

from stacklib.utils.filters import smoothing
from stacklib.utils.filters.discs import grow


def noise(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def test_smoothing_is_a_gaussian_filter():
    plane = noise(50, (41, 57))
    smooth = smoothing.gaussian_alone(plane, 1.3)
    kernel = smoothing._half_gaussian(1.3, 5).astype(np.float32)
    whole = np.concatenate([kernel[:0:-1], kernel])
    expected = ndimage.correlate1d(
        ndimage.correlate1d(plane, whole, axis=0, mode="constant"), whole, axis=1, mode="constant"
    )
    np.testing.assert_allclose(smooth, expected, atol=2e-6)
    assert whole.sum() == pytest.approx(1)


# A plane that is smaller than the reach of the filter is reflected more than once.
@pytest.mark.parametrize("shape", [(41, 57), (5, 60), (3, 4)])
def test_reflected_gaussian(shape):
    plane = noise(51, shape)
    for sigma in (1.0, 6.0):
        expected = ndimage.gaussian_filter(plane, sigma, mode="reflect")
        np.testing.assert_allclose(smoothing.gaussian_reflected(plane, sigma), expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(41, 57), (7, 60)])
def test_box_mean(shape):
    plane = noise(52, shape)
    expected = ndimage.uniform_filter(plane.astype(float), 9, mode="nearest")
    np.testing.assert_allclose(smoothing.box_mean(plane, 9), expected, atol=2e-6)


@pytest.mark.parametrize("radius", [1, 3])
def test_a_mask_grows_by_discs_up_to_its_edges(radius):
    mask = np.random.default_rng(53).random((30, 40)) < 0.02
    mask[0, 5] = mask[17, -1] = True
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = x**2 + y**2 <= (radius + 0.5) ** 2
    np.testing.assert_array_equal(grow(mask, radius), ndimage.binary_dilation(mask, disc))
