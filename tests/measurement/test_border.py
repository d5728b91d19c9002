"""The border of a frame is found by its place; samples at or below 0 are data where the sky reaches 0."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.measurement.border import NOTHING, Border, DataRange, find_border

HEIGHT, WIDTH = 96, 128
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


def sky(level, noise, seed=1):
    return np.random.default_rng(seed).normal(level, noise, (HEIGHT, WIDTH)).astype(np.float32)


def counts(level, seed=1):
    """Whole numbers of light in 16 bits, read as 0 to 1."""
    return (np.random.default_rng(seed).poisson(level, (HEIGHT, WIDTH)) / 65535).astype(np.float32)


def without_data(plane, integer=False):
    """The samples without data, bool; all at or below 0 if there is nothing else to say."""
    finite = plane[np.isfinite(plane)]
    border = find_border(plane, (float(finite.min()), float(finite.max())), integer)
    if border is None:
        return ~(plane > 0)
    return np.isnan(border.without(plane))


RECTANGLE = (ROWS < 3) | (COLUMNS >= WIDTH - 5)
WEDGE = (ROWS + 0.15 * COLUMNS < 14) | (COLUMNS - 0.15 * ROWS > 112)
LENS = 4 * np.sin(np.pi * COLUMNS / WIDTH) > ROWS
THIN = COLUMNS == 0
SQUARE = (ROWS > 30) & (ROWS < 50) & (COLUMNS > 40) & (COLUMNS < 60)


@pytest.mark.parametrize(
    "area", [RECTANGLE, WEDGE, LENS, THIN, SQUARE], ids=["rectangle", "wedge", "lens", "thin", "square"]
)
@pytest.mark.parametrize("value", [0.0, -0.0, -0.01])
def test_a_constant_border_in_a_faint_sky(area, value):
    plane = sky(0.001, 0.002)
    plane[area] = value
    np.testing.assert_array_equal(without_data(plane), area)


@pytest.mark.parametrize("area", [RECTANGLE, WEDGE, LENS, THIN])
@pytest.mark.parametrize("level", [1.5, 6])
def test_a_border_in_whole_counts(area, level):
    """Zeros of the sky beside the border may count as border, and the tips of a border as sky, but few."""
    plane = counts(level)
    plane[area] = 0
    off = without_data(plane, True) != area
    assert off.sum() < max(4, 0.06 * area.sum()), off.sum()


@pytest.mark.parametrize("level", [0.01, 0.1, 1.5, 6])
def test_zeros_of_a_faint_sky_are_data(level):
    plane = counts(level)
    assert (plane == 0).any()
    assert not without_data(plane, True).any()


@pytest.mark.parametrize("level", [-0.02, 0.0, 0.0003, 0.003])
def test_values_below_0_are_data(level):
    plane = sky(level, 0.001)
    assert not without_data(plane).any()
    assert not without_data(plane * np.float32(65535)).any()
    # Cut off at 0, as some programs do, they are data all the same.
    assert not without_data(np.maximum(plane, 0)).any() or level < 0


@given(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.integers(1, 7), st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_few_zeros_at_an_edge_are_data(row, column, length, along):
    plane = sky(0.001, 0.002)
    if along:
        plane[0, column : column + length] = 0
    else:
        plane[row : row + length, -1] = 0
    assert not without_data(plane).any()


@given(
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([0.0, 0.002]),
)
@settings(max_examples=25, deadline=None)
def test_borders_of_shifted_frames(top, bottom, left, right, level):
    plane = sky(level, 0.001)
    area = np.ones(plane.shape, bool)
    area[top : HEIGHT - bottom, left : WIDTH - right] = False
    plane[area] = 0
    np.testing.assert_array_equal(without_data(plane), area)


def test_notches_join_the_border_and_blanks_are_known_by_their_number():
    plane = sky(0.001, 0.002)
    notch = RECTANGLE | ((ROWS < 9) & (COLUMNS > 60) & (COLUMNS < 66))
    plane[notch] = 0
    np.testing.assert_array_equal(without_data(plane), notch)
    plane = sky(0.001, 0.002)
    blank = np.random.default_rng(3).random(plane.shape) < 0.2
    plane[blank] = 0
    np.testing.assert_array_equal(without_data(plane), blank)


def test_in_a_bright_sky_the_value_decides():
    plane = sky(0.1, 0.004)
    blank = np.random.default_rng(3).random(plane.shape) < 0.3
    plane[blank] = 0
    np.testing.assert_array_equal(without_data(plane), blank)
    # A star core that wrapped around, and nothing of the sort in floats: the dark ring of a star.
    plane[10, 10], plane[10, 12], plane[10, 14] = -0.01, -0.3, -1.0
    for integer, expected in ((True, [True, True, True]), (False, [False, True, True])):
        np.testing.assert_array_equal(without_data(plane, integer)[10, 10:15:2], expected)


def test_a_repeated_value_far_below_is_a_blank():
    plane = sky(0.001, 0.002)
    blank = np.random.default_rng(3).random(plane.shape) < 0.03
    plane[blank] = -9999
    np.testing.assert_array_equal(without_data(plane), blank)
    plane[5, :3] = np.nan, np.inf, -np.inf
    blank[5, :3] = [True, False, False]
    np.testing.assert_array_equal(without_data(plane), blank)


@pytest.mark.parametrize("area", [RECTANGLE, WEDGE, LENS, THIN], ids=["rectangle", "wedge", "lens", "thin"])
@pytest.mark.parametrize("integer", [False, True])
def test_a_border_above_0(area, integer):
    plane = sky(0.1, 0.002)
    if integer:
        plane = np.round(plane * 65535).astype(np.float32) / np.float32(65535)
    plane[area] = np.float32(100 / 65535)
    np.testing.assert_array_equal(without_data(plane, integer), area)
    plane[20, 20] = 0
    assert without_data(plane, integer).sum() == area.sum() + 1
    # In a faint sky as well.
    plane = sky(0.001, 0.002)
    plane[area] = np.float32(0.0005)
    np.testing.assert_array_equal(without_data(plane), area)


def test_a_border_below_0_of_a_bright_sky():
    plane = sky(0.1, 0.002)
    plane[WEDGE] = -0.01
    plane[60, 60] = -0.02
    np.testing.assert_array_equal(without_data(plane), WEDGE)


def test_a_soft_seam_and_cold_pixels_do_not_look_faint():
    """Interpolation mixes sky and border; the values between say nothing about the sky."""
    r = np.random.default_rng(3)
    plane = sky(0.1, 0.002)
    cold = r.random(plane.shape) < 0.004
    plane[cold] = r.uniform(0.001, 0.05, cold.sum())
    plane[RECTANGLE] = 0
    plane[3], plane[:, -6] = plane[3] * 0.1, plane[:, -6] * 0.3
    plane[50, 50] = 0
    expected = RECTANGLE.copy()
    expected[50, 50] = True
    np.testing.assert_array_equal(without_data(plane), expected)


def test_what_is_constant_at_an_edge_and_no_border():
    plane = sky(0.1, 0.002)
    plane[:6, 20:60] = plane.max() + np.float32(0.1)  # a saturated star
    plane[40:60, 40:60] = np.float32(0.05)  # inside
    plane[10:40, -1] = np.float32(0.05)  # too short
    assert not without_data(plane).any()
    # Coarse steps: much of the sky has the same value, everywhere.
    coarse = np.round(sky(400, 0.3)) / np.float32(65535)
    assert not without_data(coarse, True).any()
    # A drawn picture.
    assert not without_data(np.where(COLUMNS < 100, 0.1, 0.2).astype(np.float32)).any()


def test_undebayered_frames_do_not_look_faint():
    plane = sky(0.02, 0.001) + np.float32(0.02) * (ROWS + COLUMNS) % 2
    plane[40, 40] = 0
    assert find_border(plane.astype(np.float32), (0.0, 1.0), True) is None


@pytest.mark.parametrize("value", [0.0, 0.1, math.nan])
def test_planes_without_light(value):
    plane = np.full((HEIGHT, WIDTH), value, np.float32)
    assert find_border(plane, (value, value), False) is None


def test_marks_of_any_part_are_those_of_the_whole():
    plane = sky(0.001, 0.002)
    plane[WEDGE] = 0
    border = find_border(plane, (float(plane.min()), float(plane.max())), False)
    whole = border.mark(plane.copy())
    np.testing.assert_array_equal(whole == NOTHING, WEDGE)
    np.testing.assert_array_equal(whole[~WEDGE], plane[~WEDGE])
    for top, left, height, width in ((0, 0, 7, WIDTH), (5, 100, 60, 28), (50, 3, 1, 1), (9, 120, 87, 8)):
        here = slice(top, top + height), slice(left, left + width)
        np.testing.assert_array_equal(border.mark(plane[here].copy(), top, left), whole[here])


@pytest.mark.parametrize("area", [WEDGE, SQUARE, np.zeros_like(WEDGE)])
def test_text_holds_everything(area):
    plane = sky(0.001, 0.002)
    plane[area] = 0
    border = find_border(plane, (float(plane.min()), float(plane.max())), False)
    read = Border.from_text(border.to_text())
    np.testing.assert_array_equal(read.runs, border.runs)
    assert (read.floor, read.faint) == (border.floor, border.faint)
    np.testing.assert_equal(read.blank, border.blank)
    assert len(border.to_text()) < 1500


@pytest.mark.parametrize("text", ["", "0.0", "0 0 True x", "0.0 nan True AAAA", "a nan True eJwDAAAAAAE="])
def test_damaged_text_is_refused(text):
    with pytest.raises(ValueError):
        Border.from_text(text)


def test_planes_without_a_border_of_their_own_have_a_limit():
    plane = sky(0.001, 0.002)
    plane[RECTANGLE] = 0
    border = find_border(plane, (float(plane.min()), float(plane.max())), False)
    both = DataRange(np.array([[0.0, 0.0], [0.001, -np.inf]]), {(0, 1): border})
    np.testing.assert_array_equal(both.mark(0, 0, plane.copy()) == NOTHING, plane <= 0)
    np.testing.assert_array_equal(both.mark(0, 1, plane.copy()) == NOTHING, RECTANGLE)
    np.testing.assert_array_equal(both.mark(1, 0, plane.copy()) == NOTHING, plane <= np.float32(0.001))
    assert not (both.mark(1, 1, plane.copy()) == NOTHING).any()


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_planes_of_any_size_and_content(height, width, seed, level, integer):
    r = np.random.default_rng(seed)
    values = np.array([0, -0.0, 1e-30, np.nan, np.inf, -np.inf, -1e30, 1, 2, -3], np.float32)
    plane = r.normal(level, 1, (height, width)).astype(np.float32)
    odd = r.random(plane.shape) < r.random()
    plane[odd] = r.choice(values, odd.sum())
    finite = plane[np.isfinite(plane)]
    extremes = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    border = find_border(plane, extremes, integer)
    if border is not None:
        marked = border.mark(plane.copy())
        kept = marked != NOTHING
        np.testing.assert_array_equal(marked[kept], plane[kept])
        # What is left out is at or below the limit, or a long run along an edge.
        assert (plane[~kept] <= 0).all()
        assert Border.from_text(border.to_text()).runs.shape == border.runs.shape
