"""Noise of a residual: known sigma in, known sigma out, interpolated or not."""

import math

import numpy as np
import pytest
from scipy.ndimage import convolve1d, shift

from stacklib.measurement.scale_noise import PIXELS, pixel_noise, scale_noise

SIGMA = 0.003


def white(shape, seed, sigma=SIGMA):
    return (sigma * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def stars(shape, seed, count=250):
    """Squares of up to 25 pixels."""
    rng = np.random.default_rng(seed)
    found = np.zeros(shape, bool)
    for y, x, half in zip(
        rng.integers(shape[0], size=count),
        rng.integers(shape[1], size=count),
        rng.integers(2, 13, count),
        strict=True,
    ):
        found[max(0, y - half) : y + half, max(0, x - half) : x + half] = True
    return found


def third_layer(plane):
    """The layer as the definition reads, in every pixel."""
    smooth = plane.astype(np.float64)
    for step in (1, 2, 4):
        kernel = np.zeros(4 * step + 1)
        kernel[::step] = np.array([1, 4, 6, 4, 1]) / 16
        last, smooth = smooth, convolve1d(convolve1d(smooth, kernel, axis=0), kernel, axis=1)
    return last - smooth


def test_white_noise():
    plane = white((900, 1100), 11)
    assert scale_noise(plane) == pytest.approx(SIGMA, rel=0.02)
    assert pixel_noise(plane) == pytest.approx(SIGMA, rel=0.005)


def test_the_layer_is_that_of_the_definition():
    # Noise that is far from white: only the right filter gives its deviation.
    plane = convolve1d(convolve1d(white((800, 800), 12), np.ones(3), axis=0), np.ones(7), axis=1)
    inside = third_layer(plane)[32:-32, 32:-32]
    assert scale_noise(plane) == pytest.approx(inside.std() / 0.0855, rel=0.02)


@pytest.mark.parametrize(("order", "hidden", "within"), [(1, 0.7, 0.035), (3, 0.9, 0.02)])
def test_interpolation_hides_noise_of_pixels_only(order, hidden, within):
    plane = white((900, 1100), 13)
    moved = shift(plane, (0.3, 0.45), order=order).astype(np.float32)
    assert pixel_noise(moved) < hidden * SIGMA
    assert scale_noise(moved) == pytest.approx(scale_noise(plane), rel=within)


def test_structure_and_missing_data_are_left_out():
    shape = (900, 1100)
    plane, found = white(shape, 14), stars(shape, 15)
    expected = scale_noise(plane)
    plane[found] += np.float32(0.1)
    plane[np.random.default_rng(16).random(shape) < 0.1] = np.nan
    plane[:, -130:] = np.nan
    assert 0.05 < found.mean() < 0.15
    assert scale_noise(plane, found) == pytest.approx(expected, rel=0.02)
    assert pixel_noise(plane, found) == pytest.approx(SIGMA, rel=0.01)
    # Clipping alone does not do it.
    assert scale_noise(plane) > 1.08 * expected


def test_a_level_other_than_0_and_a_slope_do_no_harm():
    shape = (600, 700)
    plane, found = white(shape, 17), stars(shape, 18)
    slope = 10 * SIGMA + np.linspace(0, 10 * SIGMA, shape[1], dtype=np.float32)
    assert scale_noise(plane + slope, found) == pytest.approx(scale_noise(plane, found), rel=0.03)


def test_structure_everywhere_is_measured_rather_than_nothing():
    plane = white((300, 300), 19)
    assert scale_noise(plane, np.ones(plane.shape, bool)) == scale_noise(plane)
    assert pixel_noise(plane, np.ones(plane.shape, bool)) == pixel_noise(plane)


def test_large_planes_are_measured_in_strips():
    plane = white((PIXELS // 500, 1500), 20)
    plane[: PIXELS // 1000] *= 3
    # Both halves are among the strips; the noise is between theirs.
    assert 1.2 * SIGMA < scale_noise(plane) < 2.8 * SIGMA


def test_nothing_to_measure():
    empty = np.full((200, 200), np.nan, np.float32)
    assert math.isnan(scale_noise(empty))
    assert math.isnan(pixel_noise(empty))
    assert math.isnan(scale_noise(white((3, 500), 21)))
    assert scale_noise(np.zeros((200, 200), np.float32)) == 0.0
