"""Large-scale rejection against filters of SciPy, and what of a trail it finds."""

import numpy as np
import pytest
from scipy import ndimage

from stacklib.spatial.large_scale import large_structures
from stacklib.utils.filters.discs import grow, reached


def disc(radius):
    """Pixels of a disc, in a square as large as it."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return x * x + y * y <= radius**2


def slow(rejected, layers, growth):
    """The definition, in floating point medians."""
    left = rejected.astype(float)
    for layer in range(layers):
        ways = [
            ndimage.median_filter(left, footprint=disc(radius), mode="reflect")
            for radius in (2**layer, 2**layer + 0.5)
        ]
        left = (np.median(ways, axis=0) > 0).astype(float)
    return ndimage.binary_dilation(left, disc(growth + 0.5)) if growth else left > 0


def clusters(shape, seed):
    """A mask of single pixels, lines and blobs, some of them at the edges."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.03
    y, x = np.indices(shape)
    for _ in range(4):
        angle, at, width = rng.uniform(0, np.pi), rng.uniform(-10, 40), rng.uniform(0.4, 4)
        mask |= np.abs(x * np.sin(angle) - y * np.cos(angle) - at) < width
    return mask & (rng.random(shape) < 0.85)


@pytest.mark.parametrize(("layers", "growth"), [(1, 0), (2, 2), (3, 0), (4, 5)])
@pytest.mark.parametrize("shape", [(41, 60), (3, 50), (1, 1)])
def test_it_is_that_of_the_definition(shape, layers, growth):
    for seed in range(3):
        mask = clusters(shape, seed)
        np.testing.assert_array_equal(large_structures(mask, layers, growth), slow(mask, layers, growth))


@pytest.mark.parametrize("radius", [1, 4, 20])
def test_masks_grow_by_a_disc(radius):
    mask = np.zeros((70, 50), bool)
    mask[[0, 30, 69], [0, 25, 40]] = True
    np.testing.assert_array_equal(grow(mask, radius), ndimage.binary_dilation(mask, disc(radius + 0.5)))
    assert grow(mask, 0) is mask
    # Fortran order, and a view.
    np.testing.assert_array_equal(grow(mask.T, radius), grow(mask, radius).T)
    np.testing.assert_array_equal(grow(mask[::2], radius), grow(mask[::2].copy(), radius))


def test_totals_may_overflow():
    mask = np.ones((3, 70000), bool)
    mask[:, 69000:] = False
    found = reached(mask, [1.5], 0.5)
    assert found[:, :69000].all() and not found[:, 69001:].any()


def test_single_samples_do_not_grow():
    rng = np.random.default_rng(1)
    assert large_structures(rng.random((400, 400)) < 0.01).sum() == 0
    everything = np.ones((30, 30), bool)
    assert large_structures(everything, 6, 0).all()
    assert not large_structures(~everything).any()


def test_a_bright_trail_is_found_with_its_wings():
    """A trail that the rule rejects where it is above a limit grows beyond it."""
    y, x = np.indices((200, 200))
    across = np.abs((x - 100) * np.sin(0.7) - (y - 90) * np.cos(0.7))
    found = large_structures(across < 1.5)
    assert found[across < 3].mean() > 0.99
    assert not found[across > 6].any()
