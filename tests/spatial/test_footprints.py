"""Blobs and streaks in a residual."""

import numpy as np
import pytest
from scipy import ndimage
from spatial.trails import SHAPE, noise, nothing_protected, quieter, signs, trail

from stacklib.spatial.footprints import common_places, find_footprints, most_frames, without_common


def find(z, protected=None, strength=1.0, growth=0):
    protected = nothing_protected(z) if protected is None else protected
    return signs(find_footprints(z, protected, strength=strength, growth=growth), z.shape[1])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("blur", [0.0, 0.7])
def test_short_streaks_are_found_on_their_side(sign, blur):
    light = trail((100, 80), (140, 110), 3.0 / quieter(blur))
    found = find(noise(31, blur=blur) + sign * light)
    bright = light > 0.5 * light.max()
    assert (found[bright] == sign).mean() > 0.9
    assert (found[light < 0.01 * light.max()] == -sign).mean() < 1e-3


@pytest.mark.parametrize("blur", [0.0, 0.5, 1.0])
def test_noise_has_few_footprints(blur):
    found = np.stack([find(noise(seed, blur=blur)) for seed in range(40, 46)])
    assert 0 < (found != 0).mean() < 3e-4
    assert abs((found == 1).mean() - (found == -1).mean()) < 1.5e-4


def test_strength_takes_more_of_everything():
    z = noise(44)
    weak, usual, strong = (find(z, strength=strength) for strength in (0.7, 1.0, 1.2))
    assert np.array_equal(usual, find(z))
    shares = [(found != 0).mean() for found in (weak, usual, strong)]
    assert shares[0] < 1e-5 and shares[1] < 3e-4 < shares[2] < 3e-3


@pytest.mark.parametrize("growth", [1, 2, 5])
def test_footprints_grow_by_a_disc(growth):
    z = noise(45, (71, 93)) + trail((-5, 20), (100, 60), 2.0, shape=(71, 93))
    z[:3, 80:86], z[50:54, 74:80] = 9.0, -9.0
    protected = nothing_protected(z)
    protected[30:40, 30:50] = True
    y, x = np.mgrid[-growth : growth + 1, -growth : growth + 1]
    disc = y**2 + x**2 <= (growth + 0.5) ** 2
    grown = find_footprints(z, protected, growth=growth)
    for side, bits in zip((-1, 1), grown, strict=True):
        expected = ndimage.binary_dilation(find(z, protected) == side, disc)
        assert expected.any()
        np.testing.assert_array_equal(np.unpackbits(bits, axis=1, count=93).astype(bool), expected)


def test_smooth_light_is_no_footprint():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    halo = 2.0 * np.exp(-0.5 * ((x - 200) ** 2 + (y - 150) ** 2) / 120**2)
    found = find((noise(47) + 0.01 * x + halo).astype(np.float32))
    assert (found != 0).mean() < 5e-4


def test_protected_pixels_and_missing_ones_have_no_footprints():
    z = noise(48)
    z[100:110, 100:110] += 20
    z[200:210, 200:210] = np.nan
    protected = nothing_protected(z)
    protected[95:115, 95:115] = True
    found = find(z, protected)
    assert not found[protected].any()
    assert not found[203:207, 203:207].any()
    assert (find(z)[101:109, 101:109] == 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (7, 5), (64, 64), (65, 129)])
def test_every_shape_works(shape):
    found = find(noise(49, shape))
    assert found.shape == shape
    assert not find(np.full(shape, np.nan, np.float32)).any()
    assert not find(np.zeros(shape, np.float32)).any()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(("frames", "most"), [(3, 2), (6, 2), (20, 2), (40, 3), (200, 8)])
def test_common_places(frames, most, kind):
    assert most_frames(frames) == most
    # Rare, rare, common to one side, images of a bright trail in the others, frames that disagree.
    high = np.array([[0, most, most + 1, 1, most - 1, frames]], kind)
    low = np.array([[0, 0, 1, most + 2, 2, frames]], kind)
    common_low, common_high = common_places(low, high, frames)
    # The sum of the last two may be too large for one byte.
    assert common_high.tolist() == [[False, False, True, False, True, True]]
    assert common_low.tolist() == [[False, False, False, True, True, True]]


def test_footprints_on_common_places_go_as_a_whole():
    seeds = np.zeros((20, 40), bool)
    spike, long, own = np.s_[2:5, 2:12], np.s_[8:10, 2:38], np.s_[14:16, 5:9]
    for part in (spike, long, own):
        seeds[part] = True
    common = np.zeros_like(seeds)
    common[3, 2:12] = common[4, 2:10] = True
    common[:, 20:24] = True

    def without(places):
        bits = without_common(np.packbits(seeds, axis=1), np.packbits(places, axis=1))
        return np.unpackbits(bits, axis=1, count=seeds.shape[1]).astype(bool)

    left = without(common)
    assert not left[spike].any()
    assert left[own].all()
    assert (left[long] == ~common[long]).all()
    assert (without(np.zeros_like(seeds)) == seeds).all()
    assert not (left & ~seeds).any()


def test_wings_of_protected_stars_are_no_footprints_but_trails_across_them_are():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(x - 200, y - 150)
    z = noise(51) + 40 * np.exp(-0.5 * (distance / 4.0) ** 2).astype(np.float32)
    protected = distance < 10
    assert (find(z)[distance < 12] == 1).mean() > 0.9
    assert not find(z, protected)[distance < 20].any()
    light = trail((150, 150), (250, 150), 5.0)
    found = find(z + light, protected)
    assert (found[(light > 2.5) & ~protected] == 1).mean() > 0.95
