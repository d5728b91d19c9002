"""Noise of a plane: known sigma in, known sigma out."""

import math

import numpy as np
import pytest
from scipy.ndimage import convolve1d

from stacklib.measurement.noise import LAYER_SIGMAS, plane_noise

SIGMA = 0.003


def white(shape, seed=1, sigma=SIGMA):
    return (0.1 + sigma * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def star_field(shape, seed=2, count=400):
    """Stars from bright to faint on a gradient, without noise."""
    rng = np.random.default_rng(seed)
    height, width = shape
    yy, xx = np.mgrid[:height, :width]
    image = 0.05 * xx / width + 0.03 * yy / height
    for _ in range(count):
        x, y, peak = rng.uniform(0, width), rng.uniform(0, height), 10 ** rng.uniform(-2.5, 0)
        near = np.s_[max(0, int(y) - 15) : int(y) + 15, max(0, int(x) - 15) : int(x) + 15]
        image[near] += peak * np.exp(-((yy[near] - y) ** 2 + (xx[near] - x) ** 2) / (2 * 1.6**2))
    return image


def reference(plane):
    """The same by whole-plane transforms, as the definition reads."""
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    smooth = plane.astype(np.float64)
    peak = np.zeros(plane.shape)
    for layer, layer_sigma in enumerate(LAYER_SIGMAS):
        holes = np.zeros(4 * 2**layer + 1)
        holes[:: 2**layer] = kernel
        smoother = convolve1d(convolve1d(smooth, holes, axis=0, mode="mirror"), holes, axis=1, mode="mirror")
        peak = np.maximum(peak, np.abs(smooth - smoother) / layer_sigma)
        if layer == 0:
            sigma = 1.4826 * np.median(np.abs(smooth - smoother)) / layer_sigma
        smooth = smoother
    detail = plane - smooth
    for _ in range(100):
        last, sigma = sigma, np.std(detail[peak <= 3 * sigma], ddof=1) / 0.974
        if abs(sigma - last) < 1e-5 * last:
            break
    return sigma


@pytest.mark.parametrize("sigma", [1e-5, SIGMA, 20.0])
def test_white_noise(sigma):
    noise = plane_noise(white((700, 800), sigma=sigma) + np.float32(10 * sigma), -math.inf)
    assert noise.sigma == pytest.approx(sigma, rel=0.01)
    assert noise.fraction > 0.98
    assert noise.method == "multiresolution"


def test_stars_and_a_gradient():
    shape = (700, 800)
    noise = plane_noise(white(shape) + star_field(shape).astype(np.float32))
    assert noise.sigma == pytest.approx(SIGMA, rel=0.03)
    assert noise.method == "multiresolution"


@pytest.mark.parametrize(
    "shape", [(128, 164), (129, 170), (300, 141), (449, 333), (513, 65), (90, 1025), (1040, 1100)]
)
def test_parts_give_what_whole_planes_give(shape):
    plane = white(shape, 3) + star_field(shape, 4, 5).astype(np.float32)
    assert plane_noise(plane).sigma == pytest.approx(reference(plane), rel=3e-4)


def test_several_threads_change_no_bit():
    plane = white((1100, 1200), 9)
    plane[:40, 1000:] = np.nan
    plane[700, 3:9] = 0
    expected = plane_noise(plane)
    assert all(plane_noise(plane, threads=threads) == expected for threads in (2, 3, 16))


def test_black_borders_do_not_count():
    shape = (600, 700)
    plane = white(shape) + star_field(shape).astype(np.float32)
    plane[:37] = 0
    plane[:, -53:] = np.nan
    plane[400:, :11] = 0
    noise = plane_noise(plane)
    assert noise.sigma == pytest.approx(SIGMA, rel=0.03)
    assert noise.method == "multiresolution"


def test_a_tilted_border_does_not_count():
    plane = white((600, 700))
    yy, xx = np.mgrid[:600, :700]
    plane[yy < 60 + 0.2 * xx] = 0
    assert plane_noise(plane).sigma == pytest.approx(SIGMA, rel=0.015)


def test_single_pixels_without_data_leave_the_rest():
    plane = white((600, 700))
    rng = np.random.default_rng(5)
    plane[rng.random(plane.shape) < 0.005] = np.nan
    noise = plane_noise(plane)
    assert noise.sigma == pytest.approx(SIGMA, rel=0.015)
    assert noise.fraction > 0.95


def test_units_do_not_matter():
    plane = white((300, 300)) + star_field((300, 300), 6, 40).astype(np.float32)
    expected = plane_noise(plane).sigma
    assert plane_noise(plane * np.float32(65536)).sigma == pytest.approx(65536 * expected, rel=1e-6)


def test_constant_and_empty_planes():
    assert plane_noise(np.full((100, 100), 0.1, np.float32))[::2] == (0.0, "k-sigma")
    noise = plane_noise(np.zeros((100, 100), np.float32))
    assert math.isnan(noise.sigma)
    assert noise.method == "none"


def test_small_planes_fall_back():
    noise = plane_noise(white((12, 12), 7))
    assert noise.method == "k-sigma"
    assert noise.sigma == pytest.approx(SIGMA, rel=0.4)
    for shape in [(1, 1), (1, 50), (50, 1), (2, 2), (3, 17)]:
        assert not plane_noise(white(shape, 8)).sigma < 0


def test_coarsely_quantised_noise():
    plane = np.round(white((400, 400)) * 255).astype(np.float32) / np.float32(255)
    expected = math.hypot(SIGMA, 1 / 255 / math.sqrt(12))
    assert plane_noise(plane).sigma == pytest.approx(expected, rel=0.03)


def test_repeatable_and_input_untouched():
    plane = white((300, 400))
    plane[:20] = 0
    before = plane.copy()
    assert plane_noise(plane) == plane_noise(plane[:, :])
    assert np.array_equal(plane, before)
