"""Depositing pixels: against slow references, against the truth, and whatever the division of the work."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stacklib.drizzle import deposit as module
from stacklib.drizzle.deposit import Drop, Grid, deposit
from stacklib.errors import IntegrationError
from stacklib.frames.mosaic import Sites
from stacklib.recipe.drizzle_recipe import KERNELS
from stacklib.simulate import simulate_dithered
from stacklib.simulate.registration import mapped

RGGB = Sites("RGGB", 3)
MONO = Sites("", 1)
TURNED = np.array([[0.999, -0.012, 1.3], [0.012, 0.999, -2.1], [1e-6, -2e-6, 1.0]])


class Plane:
    """A frame in memory."""

    def __init__(self, samples):
        self.samples = samples
        self.height, self.width = samples.shape[1:]

    def read_rows(self, start, stop, channel):
        return self.samples[channel, start:stop]


class Rejected:
    def __init__(self, mask):
        self.mask = mask

    def rejected(self, channel, start, stop):
        return self.mask[channel, start:stop]


def drop(samples, inverse=TURNED, channels=1, **changes):
    known = {
        "pixels": Plane(samples),
        "height": samples.shape[1],
        "width": samples.shape[2],
        "inverse": inverse,
        "factor": np.ones(channels),
        "offset": np.zeros(channels),
        "weights": np.ones(channels),
    }
    return Drop(**(known | changes))


def noise(height=70, width=90, channels=1, seed=1):
    return np.random.default_rng(seed).normal(0.5, 0.1, (channels, height, width)).astype(np.float32)


def by_hand(samples, inverse, grid, weights=1.0):
    """Deposit squares along the axes one by one: for geometries without rotation."""
    height, width = grid.shape
    total, weight = np.zeros((2, height, width))
    half = grid.drop / 2
    for i, j in np.ndindex(samples.shape):
        edges = []
        for center, axis in ((i + 0.5, 1), (j + 0.5, 0)):
            ends = [
                mapped(inverse, np.array([center + d]), np.array([center + d]))[axis][0]
                for d in (-half, half)
            ]
            edges.append([grid.scale * end for end in ends])
        (top, bottom), (left, right) = edges
        area = (bottom - top) * (right - left)
        for k in range(max(int(top), 0), min(int(bottom) + 1, height)):
            for m in range(max(int(left), 0), min(int(right) + 1, width)):
                down = min(bottom, k + 1) - max(top, k)
                across = min(right, m + 1) - max(left, m)
                if down > 0 and across > 0:
                    share = weights * down * across / area
                    total[k, m] += share * samples[i, j]
                    weight[k, m] += share
    return total / np.where(weight > 0, weight, 1), weight


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.5])
@pytest.mark.parametrize("kernel", ["square", "turbo"])
def test_against_squares_that_are_deposited_one_by_one(scale, kernel):
    samples = noise(9, 11)
    grid = Grid(width=11, height=9, scale=scale, drop=0.7, kernel=kernel)
    # A reference with pixels a tenth larger, moved.
    inverse = np.array([[1 / 1.1, 0, 0.37], [0, 1 / 1.1, -0.21], [0, 0, 1.0]])
    found = deposit([drop(samples, inverse)], MONO, grid)
    image, weight = by_hand(samples[0], inverse, grid)
    assert np.allclose(found.weights[0], weight, atol=1e-5)
    assert np.allclose(found.image[0][weight > 1e-4], image[weight > 1e-4], atol=1e-5)
    assert not found.image[0][weight == 0].any()


def test_a_point_falls_on_one_pixel():
    samples = noise(6, 7)
    found = deposit([drop(samples, np.eye(3))], MONO, Grid(width=7, height=6, scale=2, kernel="point"))
    assert np.array_equal(found.image[0, 1::2, 1::2], samples[0]) and found.weights.sum() == samples.size


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_flux_is_conserved(kernel, scale):
    samples = noise(60, 80)
    wide = Grid(width=120, height=110, scale=scale, kernel=kernel)
    inverse = np.array([[1, 0, 20], [0, 1, 20], [0, 0, 1.0]]) @ TURNED
    found = deposit([drop(samples, inverse)], MONO, wide)
    assert found.weights.sum() == pytest.approx(samples.size, rel=1e-5)
    assert (found.image * found.weights).sum() == pytest.approx(samples.sum(), rel=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_color_is_deposited_as_if_the_others_had_no_weight(kernel):
    samples = noise(50, 60)
    grid = Grid(width=60, height=50, scale=1.5, drop=0.8, kernel=kernel)
    found = deposit([drop(samples, channels=3)], RGGB, grid)
    colors = RGGB.channel_of(50, 60)
    for channel in range(3):
        own = np.where(colors == channel, samples, np.nan).astype(np.float32)
        alone = deposit([drop(own)], MONO, grid)
        assert np.allclose(found.weights[channel], alone.weights[0], atol=1e-5)
        sure = alone.weights[0] > 1e-2
        assert np.allclose(found.image[channel][sure], alone.image[0][sure], atol=3e-4)


def test_each_channel_of_a_color_frame_has_its_own_normalization():
    samples = noise(20, 30, 3)
    factor, offset, weights = (
        np.array([1.0, 2.0, 0.5]),
        np.array([0.1, -0.2, 0.0]),
        np.array([1.0, 0.25, 0.0]),
    )
    found = deposit(
        [drop(samples, np.eye(3), 3, factor=factor, offset=offset, weights=weights)],
        Sites("", 3),
        Grid(width=30, height=20, drop=1.0),
    )
    for channel in range(2):
        expected = samples[channel] * factor[channel] + offset[channel]
        assert np.allclose(found.image[channel], expected, atol=1e-6)
        assert np.allclose(found.weights[channel], weights[channel], atol=1e-6)
    assert not found.weights[2].any() and not found.image[2].any()


def test_means_are_weighted():
    frames = [np.full((1, 12, 12), value, np.float32) for value in (0.2, 0.6)]
    drops = [
        drop(frame, np.eye(3), weights=np.array([w])) for frame, w in zip(frames, (1.0, 0.5), strict=True)
    ]
    found = deposit(drops, MONO, Grid(width=12, height=12, drop=1.0))
    assert np.allclose(found.image, (0.2 + 0.5 * 0.6) / 1.5) and np.allclose(found.weights, 1.5)


def test_samples_without_data_do_not_count():
    samples = noise(20, 20)
    samples[0, 3, 4], samples[0, 5, 6], samples[0, 7, 8] = np.nan, 0.0, 0.98
    samples[0, 9, 10] = np.inf
    one = drop(samples, np.eye(3), low=0.0, high=0.97)
    found = deposit([one], MONO, Grid(width=20, height=20))
    assert {tuple(place) for place in np.argwhere(found.weights[0] == 0).tolist()} == {
        (3, 4),
        (5, 6),
        (7, 8),
        (9, 10),
    }
    assert np.isfinite(found.image).all()


def test_rejection_is_looked_up_at_the_place_in_the_reference():
    samples = noise(40, 50)
    mask = np.zeros((1, 40, 50), bool)
    mask[0, 10:13, 20:24] = True
    grid = Grid(width=50, height=40, drop=0.5, kernel="square")
    found = deposit([drop(samples, mask=Rejected(mask))], MONO, grid)
    y, x = np.mgrid[:40, :50]
    u, v = mapped(TURNED, x + 0.5, y + 0.5)
    hit = (u >= 20) & (u < 24) & (v >= 10) & (v < 13)
    expected = deposit([drop(np.where(hit, np.nan, samples).astype(np.float32))], MONO, grid)
    assert hit.sum() > 8
    assert np.array_equal(found.weights, expected.weights) and np.array_equal(found.image, expected.image)


# division ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sites", [RGGB, MONO], ids=["mosaic", "gray"])
def test_no_bit_depends_on_the_part_of_the_grid(sites, monkeypatch):
    monkeypatch.setattr(module, "TILE", (24, 36))
    frames = [noise(seed=k) for k in range(3)]
    turns = [TURNED, np.array([[0, -1, 80], [1, 0, -5], [0, 0, 1.0]]), np.eye(3)]
    drops = [drop(f, t, sites.channels) for f, t in zip(frames, turns, strict=True)]
    grid = Grid(width=90, height=70, scale=1.7, drop=0.9)
    whole = deposit(drops, sites, grid)
    height = grid.shape[0]
    for cuts in ((0, 1, 40, 41, height), (0, 63, height)):
        parts = [deposit(drops, sites, grid, slice(*ends)) for ends in pairwise(cuts)]
        for name in ("image", "weights"):
            joined = np.concatenate([getattr(part, name) for part in parts], axis=1)
            assert np.array_equal(joined, getattr(whole, name))
    window = deposit(drops, sites, grid, slice(11, 50), slice(30, 77))
    assert np.array_equal(window.image, whole.image[:, 11:50, 30:77])


def test_tiles_make_no_seams(monkeypatch):
    samples, grid = noise(), Grid(width=90, height=70, scale=2.0)
    whole = deposit([drop(samples)], MONO, grid)
    monkeypatch.setattr(module, "TILE", (24, 36))
    tiled = deposit([drop(samples)], MONO, grid)
    assert np.abs(whole.weights - tiled.weights).max() < 1e-5
    assert np.abs(whole.image - tiled.image)[whole.weights > 1e-3].max() < 1e-4


def test_counting_needs_no_frame():
    samples, grid = noise(50, 60), Grid(width=60, height=50, scale=2.0, drop=0.6)
    counted = deposit([Drop.to_count(50, 60, TURNED, 3)], RGGB, grid)
    assert np.array_equal(counted.weights, deposit([drop(samples, channels=3)], RGGB, grid).weights)


def test_the_library_may_be_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "drizzle.resample", None)
    with pytest.raises(IntegrationError, match="pip install drizzle"):
        deposit([], MONO, Grid(width=3, height=3))


# truth ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def night():
    return simulate_dithered(
        40,
        160,
        200,
        "field",
        seed=3,
        cosmic_rays=0,
        hot_pixels=0,
        full_well=1e9,
        sky_drift=0.2,
        extinction=0.1,
    )


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_mosaic_without_noise_against_the_truth(night, scale):
    grid = Grid(width=200, height=160, scale=scale, drop=0.9)
    drops = []
    for i in range(night.count):
        factor = np.full(3, 1 / night.transparency[i])
        how = {"factor": factor, "offset": -night.sky[i] * factor}
        drops.append(drop(night.frame(i), np.linalg.inv(night.matrices[i]), 3, **how))
    found, truth = deposit(drops, night.sites, grid), night.truth(scale)
    assert not (found.weights[:, 24:-24, 24:-24] == 0).any()
    x, y, flux = night.scene.x + 0.5, night.scene.y + 0.5, night.scene.flux.mean(axis=0)
    near = cKDTree(np.c_[x, y]).query_ball_point(np.c_[x, y], 9)
    inside = (x > 16) & (x < 184) & (y > 16) & (y < 144) & (flux > 0.02)
    chosen = [i for i in np.flatnonzero(inside) if flux[near[i]].sum() < 1.02 * flux[i]]
    assert len(chosen) >= 8
    rows, columns = np.mgrid[: grid.shape[0], : grid.shape[1]]
    u, v = (columns + 0.5) / scale, (rows + 0.5) / scale
    ratios, places = [], []
    for i in chosen:
        disc = np.hypot(u - x[i], v - y[i]) < 5
        light = [image[:, disc] for image in (found.image, truth)]
        ratios.append(light[0].sum(axis=1) / light[1].sum(axis=1))
        centers = [np.array([image[1] @ u[disc], image[1] @ v[disc]]) / image[1].sum() for image in light]
        places.append(centers[0] - centers[1])
    ratios = np.array(ratios)
    # The red and the blue of a single star depend on where its few samples happen to fall.
    assert np.abs(ratios[:, 1] - 1).max() < 0.003 and np.std(ratios) < 0.01
    color = ratios[:, [0, 2]] / ratios[:, [1]]
    assert np.abs(np.median(color, axis=0) - 1).max() < 0.01
    assert np.abs(places).max() < 0.02
    total = [image[:, 24:-24, 24:-24].sum(axis=(1, 2)) for image in (found.image, truth)]
    assert np.allclose(total[0], total[1], rtol=0.01) and total[0][1] == pytest.approx(total[1][1], rel=0.003)


def test_a_frame_of_weight_0_changes_nothing(night):
    grid = Grid(width=200, height=160)
    one = [drop(night.frame(i), np.linalg.inv(night.matrices[i]), 3) for i in range(3)]
    off = replace(one[1], weights=np.zeros(3))
    assert np.array_equal(
        deposit([one[0], off, one[2]], night.sites, grid).image, deposit(one[::2], night.sites, grid).image
    )
