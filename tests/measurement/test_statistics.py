"""Statistics of a plane against slow references written with NumPy alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.measurement import statistics
from stacklib.measurement.statistics import (
    UNIT_BOUNDS,
    count_between,
    finite_range,
    location,
    measure_plane,
    quantization_step,
    scale,
    spread_evenly,
)

EVERYTHING = (-math.inf, math.inf)
SUMMED = ("bwmv", "mad", "avgdev")
ESTIMATORS = (*SUMMED, "pbmv", "sn", "qn", "ikss")


def valid_samples(plane, low, high):
    x = np.asarray(plane, dtype=np.float32).ravel()
    x = x[np.isfinite(x)]
    return x[(x > np.float32(low)) & (x < np.float32(high))].astype(np.float64)


def side_reference(x, centre, estimator):
    """One estimator about a given centre; 0 for no sample."""
    if x.size == 0:
        return 0.0
    deviation = np.abs(x - centre)
    mad = np.median(deviation)
    if estimator == "avgdev" or mad == 0:
        return 1.2533 * deviation.mean()
    if estimator == "mad":
        return 1.4826 * mad
    y = (x - centre) / (9 * mad)
    use = np.abs(y) < 1
    top = np.sqrt(x.size * np.sum((x - centre)[use] ** 2 * (1 - y[use] ** 2) ** 4))
    return 0.991 * top / abs(np.sum((1 - y[use] ** 2) * (1 - 5 * y[use] ** 2)))


def scale_reference(plane, estimator, low, high):
    x = valid_samples(plane, low, high)
    m = np.median(x)
    sides = [side_reference(side, m, estimator) for side in (x[x <= m], x[x > m])]
    both = 1.2533 * np.abs(x - m).mean()
    return tuple(side if side > 0 else both for side in sides)


def check(plane, low=UNIT_BOUNDS[0], high=UNIT_BOUNDS[1]):
    x = valid_samples(plane, low, high)
    for estimator in SUMMED:
        got = measure_plane(plane, estimator, low, high)
        assert got.count == x.size
        assert got.median == np.median(x)
        assert got.mean == pytest.approx(x.mean(), rel=1e-9, abs=1e-12)
        assert got.avgdev == pytest.approx(1.2533 * np.abs(x - np.median(x)).mean(), rel=1e-9)
        assert got[2:4] == pytest.approx(scale_reference(plane, estimator, low, high), rel=1e-9, abs=1e-300)
    finite = plane[np.isfinite(plane)]
    assert got[6:] == (finite.min(), finite.max())


def sky(shape, seed=1, level=0.1, sigma=0.003):
    rng = np.random.default_rng(seed)
    return (level + sigma * rng.standard_normal(shape)).astype(np.float32)


def skewed(shape, seed):
    return np.random.default_rng(seed).gamma(1.5, 0.02, shape).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(301, 402), (512, 512), (300, 601), (140_001,), (1, 170_000), (170_000, 1)]
)
def test_large_planes(shape):
    check(sky(shape))
    check(skewed(shape, 2))


@pytest.mark.parametrize("levels", [3, 7, 60, 255, 4095])
def test_quantised_planes(levels):
    for seed in (3, 4):
        check(
            np.round(skewed((400, 300), seed) * levels).astype(np.float32) / np.float32(levels), *EVERYTHING
        )
        check(np.round(sky((400, 400), seed, 0.3, 0.05) * levels).astype(np.float32) / np.float32(levels))


@pytest.mark.parametrize("share", [0.3, 0.49, 0.5, 0.51, 0.74, 0.76, 0.9, 0.999])
@pytest.mark.parametrize("value", [0.02, 0.1, 0.3])
def test_many_samples_tied_with_one_value(share, value):
    plane = sky((350, 400), 5)
    plane[np.random.default_rng(6).random(plane.shape) < share] = value
    check(plane)


def test_samples_that_are_not_valid_take_no_part():
    rng = np.random.default_rng(7)
    plane = sky((400, 400))
    for bad in (0.0, 1.0, np.nan, np.inf, -np.inf, -0.2, 1 / 65535, 65534 / 65535, 1.5):
        plane[rng.random(plane.shape) < 0.06] = bad
    check(plane)
    with np.errstate(invalid="ignore"):
        check(plane * np.float32(65535), 0.0, math.inf)


def test_a_plane_whose_sample_misleads():
    """The sampled positions hold other values than the rest: brackets fail and are widened."""
    plane = sky((400, 500))
    flat = plane.reshape(-1)
    for stride in range(2, 8):
        flat[::stride] = 0.5
    check(plane)
    flat[:] = np.sort(sky(flat.shape))
    check(plane)


@pytest.mark.parametrize("size", range(1, 12))
def test_tiny_planes(size):
    check(sky((size,), size))
    check(np.round(sky((1, size), size, 0.5, 0.2) * 4).astype(np.float32) / 4, *EVERYTHING)


def test_no_valid_sample():
    got = measure_plane(np.zeros((200, 200), np.float32))
    assert got.count == 0
    assert all(math.isnan(value) for value in got[:5])
    assert got[6:] == (0, 0)
    assert math.isnan(location(np.full(40_000, np.nan, np.float32)))
    assert math.isnan(scale(np.zeros(3, np.float32), two_sided=False))
    assert all(math.isnan(value) for value in finite_range(np.full(5, np.nan, np.float32)))


def test_infinite_samples_do_not_hide_the_extremes():
    plane = sky((100, 400))
    expected = (plane.min(), plane.max())
    hidden = np.insert(plane.ravel(), [0, 20_000, 30_000], [np.inf, -np.inf, np.nan]).astype(np.float32)
    assert finite_range(hidden) == expected


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_scale_is_zero_only_for_constant_data(estimator):
    assert scale(np.full((200, 200), 0.25, np.float32), estimator) == (0, 0)
    for value in (0.2, 0.3):
        plane = np.full((200, 200), 0.25, np.float32)
        plane[3, 5] = value
        assert min(scale(plane, estimator)) > 0
        assert scale(plane, estimator, two_sided=False) > 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gaussian_consistency(estimator):
    plane = sky((1000, 1000), 8, 0.5, 0.01)
    assert scale(plane, estimator) == pytest.approx((0.01, 0.01), rel=0.01)
    assert scale(plane, estimator, two_sided=False) == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("estimator", SUMMED)
def test_one_sided_scale(estimator):
    plane = skewed((200, 300), 9)
    x = valid_samples(plane, *UNIT_BOUNDS)
    expected = side_reference(x, np.median(x), estimator)
    assert scale(plane, estimator, two_sided=False) == pytest.approx(expected, rel=1e-9)


def test_outliers_hardly_move_the_robust_scales():
    plane = sky((300, 300), 10)
    plane[np.random.default_rng(11).random(plane.shape) < 0.01] = 0.9
    assert scale(plane, "bwmv") == pytest.approx((0.003, 0.003), rel=0.03)
    assert scale(plane, "mad") == pytest.approx((0.003, 0.003), rel=0.03)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-(2**10), 2**10), min_size=1, max_size=60),
    factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]),
    offset=st.integers(-1000, 1000),
    estimator=st.sampled_from(ESTIMATORS),
)
def test_affine_equivariance(values, factor, offset, estimator):
    """Exact powers of two and whole numbers, so that float32 rounds nothing."""
    x = np.array(values, dtype=np.float32)
    a = measure_plane(x, estimator, *EVERYTHING)
    b = measure_plane(x * np.float32(factor) + np.float32(offset), estimator, *EVERYTHING)
    assert b.median == a.median * factor + offset
    assert b.mean == pytest.approx(a.mean * factor + offset, abs=1e-9)
    assert (b.scale_low, b.scale_high) == pytest.approx(
        (a.scale_low * factor, a.scale_high * factor), rel=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 40), size=st.integers(131_072, 150_000))
def test_exact_for_any_tied_data(seed, levels, size):
    rng = np.random.default_rng(seed)
    check(rng.choice(rng.random(levels).astype(np.float32), size), *EVERYTHING)


def test_mirrored_data_swap_the_sides():
    x = skewed((30_001,), 12)
    a, b = measure_plane(x, "mad", *EVERYTHING), measure_plane(-x, "mad", *EVERYTHING)
    # The sample that is the median counts to the low side.
    assert (b.scale_high, b.scale_low) == pytest.approx((a.scale_low, a.scale_high), rel=1e-3)
    assert b.median == -a.median


@pytest.mark.parametrize("shape", [(700, 401), (400_001,), (5, 3)])
def test_several_threads_change_no_bit(shape):
    plane = sky(shape, 21)
    plane[np.random.default_rng(22).random(shape) < 0.02] = np.nan
    plane[..., :2] = 1
    expected = measure_plane(plane, "bwmv", *UNIT_BOUNDS)
    for threads in (2, 3, 16, 40):
        assert measure_plane(plane, "bwmv", *UNIT_BOUNDS, threads=threads) == expected
        assert finite_range(plane, threads) == finite_range(plane)


@pytest.mark.parametrize("threads", [1, 3])
def test_samples_between_two_values_are_counted(threads):
    plane = sky((300, 501), 23)
    plane[:7] = np.nan
    plane[9] = [np.inf, *[0.1] * 500]
    expected = np.count_nonzero((plane > np.float32(0.1)) & (plane < np.float32(0.104)))
    assert count_between(plane, 0.1, 0.104, threads) == expected
    assert count_between(plane, -math.inf, math.inf, threads) == np.count_nonzero(np.isfinite(plane))


def test_other_types_and_layouts():
    plane = sky((150, 220), 13)
    expected = measure_plane(plane)
    assert measure_plane(plane.astype(np.float64)) == expected
    assert measure_plane(np.asfortranarray(plane)) == expected
    assert measure_plane(plane.astype(">f4")) == expected


@pytest.mark.parametrize("step", [1 / 255, 16 / 65535, 0.001])
def test_quantisation_step(step):
    plane = (np.round(sky((300, 300), 14, 0.1, 2 * step) / step) * step).astype(np.float32)
    plane[:9] = 0
    assert quantization_step(plane) == pytest.approx(step, rel=1e-4)


def test_data_that_are_not_quantised_have_no_step():
    assert quantization_step(sky((300, 300))) < 1e-8
    assert quantization_step(np.full((300, 300), 0.1, np.float32)) == 0
    assert quantization_step(np.zeros((300, 300), np.float32)) == 0


def test_samples_are_spread_evenly_over_a_step():
    plane = np.full((400, 500), 0.5, np.float32)
    plane[0, :3] = np.nan, 0, 1
    spread = spread_evenly(plane, 0.01)
    assert np.isnan(spread[:3]).all()
    assert np.histogram(spread[3:], 20, (0.495, 0.505))[0] == pytest.approx(1e4, rel=0.01)
    assert np.array_equal(spread, spread_evenly(plane, 0.01), equal_nan=True)


def test_unknown_estimator():
    with pytest.raises(ValueError, match="expected one of bwmv, mad, avgdev"):
        measure_plane(sky((5, 5)), "sd")


def test_constants_of_the_table():
    summed = {name: statistics.ESTIMATORS[name] for name in SUMMED}
    assert summed == {"bwmv": 0.991, "mad": 1.4826, "avgdev": 1.2533}


def sn_reference(x):
    distances = np.sort(np.abs(x[:, None] - x), axis=1)
    himed = distances[:, x.size // 2]
    return 1.1926 * np.sort(himed)[(x.size + 1) // 2 - 1]


def qn_reference(x):
    h = x.size // 2 + 1
    pairs = np.abs(x[:, None] - x)[np.triu_indices(x.size, 1)]
    return 2.2219 * np.sort(pairs)[h * (h - 1) // 2 - 1]


def pbmv_reference(deviation):
    w = np.sort(deviation)[int(0.8 * deviation.size + 0.5) - 1]
    psi = np.clip(deviation / w, -1, 1)
    return 0.97110 * np.sqrt(deviation.size * w**2 * np.sum(psi**2)) / np.count_nonzero(deviation < w)


def ikss_reference(x):
    sigma = math.inf
    while True:
        m = np.median(x)
        mad = np.median(np.abs(x - m))
        y = (x - m) / (9 * mad)
        u = np.where(np.abs(y) < 1, 1 - y**2, 0)
        top = np.sqrt(x.size * np.sum((x - m) ** 2 * u**4))
        new = top / abs(np.sum(u * (1 - 5 * np.where(u > 0, y, 0) ** 2)))
        if abs(new - sigma) <= 1e-6 * new:
            return m, 0.991 * new
        sigma = new
        x = x[np.abs(x - m) <= 4 * sigma]


PAIRS = {"sn": sn_reference, "qn": qn_reference}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 60), tied=st.booleans())
@pytest.mark.parametrize("estimator", PAIRS)
def test_pair_distances_against_all_pairs(estimator, seed, size, tied):
    x = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    x = np.round(x) if tied else x
    expected = PAIRS[estimator](x.astype(np.float64))
    if expected > 0:
        measured = scale(x, estimator, *EVERYTHING, two_sided=False)
        assert measured == pytest.approx(expected, rel=1e-6)
    m = np.median(x.astype(np.float64))
    sides = [m - x[x <= m], x[x > m] - m]
    for side, measured in zip(sides, scale(x, estimator, *EVERYTHING), strict=True):
        expected = PAIRS[estimator](np.concatenate([-side, side])) if side.size else 0
        if expected > 0:
            assert measured == pytest.approx(expected, rel=1e-6)


def test_percentage_bend_and_ikss_against_their_definitions():
    x = skewed((200, 301), 21).ravel().astype(np.float64)
    m = np.median(x)
    expected = pbmv_reference(m - x[x <= m]), pbmv_reference(x[x > m] - m)
    assert scale(x, "pbmv", *EVERYTHING) == pytest.approx(expected, rel=1e-6)
    assert scale(x, "pbmv", *EVERYTHING, two_sided=False) == pytest.approx(
        pbmv_reference(abs(x - m)), rel=1e-6
    )
    location, sigma = ikss_reference(x)
    assert measure_plane(x, "ikss", *EVERYTHING).median == pytest.approx(location, rel=1e-6)
    assert scale(x, "ikss", *EVERYTHING, two_sided=False) == pytest.approx(sigma, rel=1e-5)


@pytest.mark.parametrize("estimator", ["pbmv", "sn", "qn", "ikss"])
def test_a_nebula_beside_the_sky_moves_the_robust_estimators_little(estimator):
    plane = sky((400, 400), 31)
    plane[:, :30] += 0.1
    plain = sky((400, 370), 31)
    low, high = scale(plane, estimator)
    assert low == pytest.approx(scale(plain, estimator)[0], rel=0.2)
    # Of two sides the upper one holds it.
    assert high < 3 * scale(plain, estimator)[1]
