"""The smooth part of a residual."""

import numpy as np
import pytest
from spatial.trails import signs

from stacklib.spatial.footprints import find_footprints
from stacklib.spatial.lines import find_lines
from stacklib.spatial.planes import bin_residual, robust_spread


@pytest.fixture(scope="module")
def moonlit():
    """Noise of 1 sigma on the rest of a gradient, with a galaxy that takes a part of the blocks."""
    y, x = np.mgrid[-1:1:330j, -1:1:410j]
    galaxy = 6 * np.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / 0.05)
    noise = np.random.default_rng(2041).standard_normal(x.shape)
    return (noise + 5 * x - 4 * y + 3 * x * y + 2 * y**2 + galaxy).astype(np.float32)


def test_a_gradient_leaves_nothing_at_the_edges(moonlit):
    total, number, trend = bin_residual(moonlit, np.zeros(moonlit.shape, bool), 2, 6.0)
    mean = total / number
    for edge in (mean[:4], mean[-4:], mean[:, :4], mean[:, -4:]):
        assert abs(edge.mean()) < 0.1
    assert trend[1, 0] == pytest.approx(5, abs=0.3)
    assert trend[0, 1] == pytest.approx(-4, abs=0.3)


def test_a_gradient_is_no_trail(moonlit):
    spared = np.zeros(moonlit.shape, bool)
    assert find_lines(moonlit, spared) == []
    edges = np.ones(moonlit.shape, bool)
    edges[8:-8, 8:-8] = False
    found = signs(find_footprints(moonlit, spared), moonlit.shape[1])
    assert np.count_nonzero(found[edges]) < 0.01 * edges.sum()


def test_a_frame_without_data_has_no_trend():
    z = np.full((70, 150), np.nan, np.float32)
    total, number, trend = bin_residual(z, np.zeros(z.shape, bool), 2, 6.0)
    assert not total.any() and not number.any() and not trend.any()


@pytest.mark.parametrize("count", [1, 2, 1000, 700_001])
def test_spread_is_that_of_numpy(count):
    values = np.random.default_rng(count).normal(3, 2, count).astype(np.float32)
    some = values[:: -(-count // (1 << 18))]
    expected = 1.4826 * np.median(np.abs(some - np.median(some)))
    assert robust_spread(values) == pytest.approx(expected, rel=1e-6)
