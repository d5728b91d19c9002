"""The compiled estimators and the sorting networks against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from scipy import special

from stacklib.rejection import estimators
from stacklib.rejection.line_fitting import l1_line
from stacklib.rejection.sorting import FILLED, LANES, median_network, sort_block, sorting_network


def columns(rng, count):
    """Sorted samples of several kinds."""
    steps = np.round(rng.normal(0, 1.5, count))
    for x in (
        rng.normal(0.2, 0.001, count),
        rng.standard_cauchy(count),
        13000 / 65535 + steps / 65535,
        0.25 + steps / 1024,
        np.where(rng.random(count) < 0.7, 0.1, rng.random(count)),
        np.full(count, 0.1),
    ):
        yield np.sort(x.astype(np.float32))


# ---- sorting


def apply(network, x):
    """Run a network over the columns of x."""
    for i, j in network:
        x[i], x[j] = np.minimum(x[i], x[j]), np.maximum(x[i], x[j])
    return x


@pytest.mark.parametrize("count", range(13))
def test_network_sorts_all_zeros_and_ones(count):
    # A network that sorts every sequence of zeros and ones sorts everything (Knuth 5.3.4, theorem Z).
    x = np.arange(2**count) >> np.arange(count)[:, None] & 1
    assert np.array_equal(apply(sorting_network(count), x.copy()), np.sort(x, axis=0))


def test_network_of_every_size():
    rng = np.random.default_rng(1)
    for count in range(131):
        network = sorting_network(count)
        assert network.dtype == np.int64 and network.shape == (len(network), 2)
        assert ((network[:, 0] >= 0) & (network[:, 0] < network[:, 1]) & (network[:, 1] < count)).all()
        shares = np.linspace(0, 1, LANES)
        for x in (rng.random((count, LANES)) < shares, rng.normal(size=(count, LANES))):
            block = x.astype(np.float32)
            expected = np.sort(block, axis=0)
            sort_block(block, network)
            assert np.array_equal(block, expected)


@pytest.mark.parametrize("count", range(1, 13))
def test_network_of_a_median_finds_it_among_all_zeros_and_ones(count):
    x = np.arange(2**count) >> np.arange(count)[:, None] & 1
    network, middle = median_network(count), (count - 1) // 2
    assert len(network) < max(len(sorting_network(count)), 1) or count in (1, 2, 3, 4)
    assert np.array_equal(apply(network, x.copy())[middle], np.sort(x, axis=0)[middle])


def test_sorting_with_missing_samples_last():
    # Infinity stands for what is missing.
    rng = np.random.default_rng(2)
    block = rng.normal(size=(37, LANES)).astype(np.float32)
    block[rng.random(block.shape) < 0.3] = np.inf
    expected = np.sort(block, axis=0)
    sort_block(block, sorting_network(37))
    assert np.array_equal(block, expected)


# ---- estimators


def test_moments_and_median():
    rng = np.random.default_rng(3)
    for count in (2, 3, 4, 9, 50):
        for x in columns(rng, count):
            padded = np.concatenate([[np.float32(-9)], x, [np.float32(9)]])
            assert estimators.median(padded, 1, count + 1) == np.median(x.astype(float))
            for centre in (float(x[0]), np.median(x.astype(float))):
                mean, deviation = estimators.moments(padded, 1, count + 1, centre)
                scale = float(np.abs(x - centre).max())
                assert mean == pytest.approx(reference.mean(x.tolist()), rel=1e-15, abs=1e-14 * scale)
                assert deviation == pytest.approx(reference.sd(x.tolist()), rel=1e-12, abs=1e-8 * scale)


def test_moments_of_equal_samples_are_exact():
    x = np.full(11, 0.1, np.float32)
    assert estimators.moments(x, 0, 11, float(x[0])) == (float(x[0]), 0.0)


def test_absolute_deviation():
    rng = np.random.default_rng(4)
    for count in (1, 2, 3, 8, 21):
        for x in columns(rng, count):
            for centre in (float(x[0]), float(x[-1]), np.median(x.astype(float)), 0.15):
                expected = np.sort(np.abs(x.astype(float) - centre))
                for rank in range(count):
                    assert estimators.absolute_deviation(x, 0, count, centre, rank) == expected[rank]


def test_absolute_deviation_of_a_part():
    x = np.float32([-9, 0.25, 0.5, 1, 2, 9])
    deviations = [estimators.absolute_deviation(x, 1, 5, 0.75, rank) for rank in range(4)]
    assert deviations == [0.25, 0.25, 0.5, 1.25]


def sn_of(block, count, pixels=LANES):
    """Return Sn of the first samples of some pixels of a block, and -7 for the others."""
    scale, distances = np.full(LANES, -7.0), np.empty(block.shape, np.float32)
    estimators.sn_scale_block(block, count, pixels, median_network(len(block)), distances, scale)
    return scale


def test_sn_is_the_definition():
    rng = np.random.default_rng(5)
    for count in (*range(2, 24), 31, 40, 61):
        kinds = list(columns(rng, count))
        block = np.stack([kinds[p % len(kinds)] for p in range(LANES)], axis=1)
        scale = sn_of(block, count)
        for p, x in enumerate(kinds):
            assert scale[p] == pytest.approx(reference.sn_scale(x.tolist()), rel=1e-7)
            assert (scale[p :: len(kinds)] == scale[p]).all()


def test_sn_of_a_gaussian_is_its_sigma():
    rng = np.random.default_rng(6)
    for count in (5, 6, 12, 25):
        blocks = np.sort(rng.standard_normal((32, count, LANES)).astype(np.float32), axis=1)
        assert np.mean([sn_of(block, count) for block in blocks]) == pytest.approx(1, abs=0.03)


def abscissae(count):
    """The positions of linear_fit, and the quantiles of chauvenet."""
    yield np.arange(count, dtype=float)
    yield np.sqrt(2) * special.erfinv((np.arange(1, count + 1) - 0.317) / (count / 0.683))


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 11, 16, 23, 41])
def test_l1_line_is_the_best_line(count):
    rng = np.random.default_rng([8, count])
    order, residual = np.empty(count + 2, np.int64), np.empty(count + 2)
    for _ in range(12):
        for x in columns(rng, count):
            for u in abscissae(count):
                padded = np.concatenate([[np.float32(-9)], x, [np.float32(9)]])
                intercept, slope = l1_line(u, padded, 1, count + 1, order, residual)
                notes = reference.Notes()
                best_intercept, best_slope = reference.l1_line(u, x, notes)
                least = np.abs(x - best_intercept - best_slope * u).sum()
                size = float(np.ptp(x))
                assert np.abs(x - intercept - slope * u).sum() <= least * (1 + 1e-12) + 1e-15 * max(size, 0.1)
                if notes.margin > 1e-9:
                    assert slope == pytest.approx(best_slope, rel=1e-9, abs=1e-14 * size)
                    assert intercept == pytest.approx(best_intercept, rel=1e-12, abs=1e-14)


def test_l1_line_takes_the_smallest_of_equally_good_slopes():
    # Any line between the two pairs of points is as good: the flattest is asked for.
    x = np.float32([0, 0, 0, 1, 1, 1])
    work = np.empty(6, np.int64), np.empty(6)
    intercept, slope = l1_line(np.arange(6.0), x, 0, 6, *work)
    assert (intercept, slope) == pytest.approx(reference.l1_line(range(6), x))
    u = [0.0, 1.0, 2.0, 3.0]
    x = np.float32([0, 0, 1, 3])
    intercept, slope = l1_line(np.array(u), x, 0, 4, np.empty(4, np.int64), np.empty(4))
    tried = np.linspace(-1, 2, 3001)
    costs = np.array([reference.l1_cost(u, x, b) for b in tried])
    assert slope == pytest.approx(tried[costs <= costs.min() + 1e-12].min(), abs=2e-3)


def test_l1_line_through_all_points_is_exact():
    for slope in (0.0, 2.0**-9, 3 * 2.0**-7):
        x = np.float32(0.25 + slope * np.arange(12))
        line = l1_line(np.arange(12.0), x, 0, 12, np.empty(12, np.int64), np.empty(12))
        assert line == (0.25, slope)


def test_l1_line_that_is_flat_is_exactly_flat():
    # Most of the points are equal: a slope of rounding size would be a scale of rounding size.
    for outliers in ([3.0], [1.0, 1.0], [1.0, 2.0, 7.0]):
        for count in range(7, 20):
            x = np.float32([0.0] * (count - len(outliers)) + outliers) / 1024
            for u in abscissae(count):
                line = l1_line(u, x, 0, count, np.empty(count, np.int64), np.empty(count))
                if reference.l1_line(u, x) == (0.0, 0.0):
                    assert line == (0.0, 0.0)


@pytest.mark.parametrize("count", [2, 3, 7, 12, 41])
@pytest.mark.parametrize("more", [0, 1, 2, 30])
def test_sn_of_a_part_of_a_block(count, more):
    rng = np.random.default_rng(count)
    block = np.sort(rng.standard_normal((count + more, LANES)).astype(np.float32), axis=0)
    scale = sn_of(block, count, FILLED)
    np.testing.assert_array_equal(scale[:FILLED], sn_of(block[:count], count)[:FILLED])
    assert (scale[FILLED:] == -7).all()


def test_sums_of_a_block_are_those_of_its_pixels():
    rng = np.random.default_rng(9)
    for frames in (1, 2, 5, 12, 41):
        block = np.sort(rng.standard_normal((frames, LANES)).astype(np.float32), axis=0)
        low = rng.integers(0, frames + 1, LANES).astype(np.int32)
        high = np.minimum(low + rng.integers(0, frames + 1, LANES), frames).astype(np.int32)
        for ends in ((low, high), (np.minimum(low, 1), np.maximum(high, frames - 1).astype(np.int32))):
            sums = np.full(4 * LANES, 3.0)
            sums[:LANES] = rng.standard_normal(LANES)
            estimators.sums_in_order(block, *ends, sums)
            for p in range(LANES):
                column, parts = np.ascontiguousarray(block[:, p]), (int(ends[0][p]), int(ends[1][p]))
                expected = estimators.deviation_sums(column, *parts, sums[p])
                assert (sums[LANES + p], sums[2 * LANES + p]) == expected
            assert (sums[3 * LANES :] == 3).all()
