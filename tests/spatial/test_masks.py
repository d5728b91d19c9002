"""Masks of frames: what goes in comes out, in memory, in scratch space and in another process."""

import pickle

import numpy as np
import pytest

from stacklib.formats import scratch
from stacklib.spatial.masks import BitPlanes, FrameMasks, count_bits, pack_flags
from stacklib.spatial.means import ABOVE, COLOUR, FOOTPRINT, LARGE_LOW, LINE, OWN

#: Not a multiple of 8 across.
REGION = 3, 5, 61, 40
COUNT = 4


def planes(seed=1):
    """Masks of some frames, uint8 (frames, height, width): none, few, and many samples."""
    rng = np.random.default_rng(seed)
    values = np.array([LINE | ABOVE, FOOTPRINT, LARGE_LOW | COLOUR, OWN | LINE | ABOVE], np.uint8)
    found = rng.choice(values, (COUNT, REGION[3], REGION[2]))
    chance = np.array([0.0, 0.01, 0.2, 1.0])[:, np.newaxis, np.newaxis]
    return np.where(rng.random(found.shape) < chance, found, 0).astype(np.uint8)


@pytest.fixture(params=["memory", "scratch"])
def masks(request):
    """The same masks as channel 1 of frames 1, 3, 5, 7."""
    found = FrameMasks(REGION)
    with scratch.memory_limited(scratch.MEMORY_IN_ALL if request.param == "memory" else 0):
        for i, plane in enumerate(planes()):
            found.put(2 * i + 1, 1, plane, "light.fits")
    kinds = {type(bits._block) for _, bits in found.planes.values()}
    assert kinds == {scratch.MemoryBlock if request.param == "memory" else scratch.ScratchBlock}
    return found


def check(masks, expected=None):
    for i, plane in enumerate(planes() if expected is None else expected):
        np.testing.assert_array_equal(masks.flags(2 * i + 1, 1), plane)
        assert not masks.flags(2 * i + 1, 0).any() and not masks.flags(2 * i, 1).any()


def test_flags_come_back(masks):
    check(masks)
    assert list(masks) == [(3, 1), (5, 1), (7, 1)] and masks
    assert not FrameMasks(REGION)
    np.testing.assert_array_equal(masks.flags(5, 1, 9, 21), planes()[2, 4:16])
    np.testing.assert_array_equal(masks.at(10, 20, 1, np.arange(9))[1::2], planes()[:, 15, 7])


def test_bits_by_flag_are_the_same(masks):
    for i, plane in enumerate(planes()):
        bits = masks.bits(2 * i + 1, 1)
        assert sum(bits) == np.bitwise_or.reduce(plane, axis=None)
        for flag, packed in bits.items():
            found = np.unpackbits(packed, axis=1, count=plane.shape[1]).astype(bool)
            np.testing.assert_array_equal(found, plane & flag != 0)
            counts = np.full(plane.shape, 3, np.uint16)
            count_bits(counts, packed)
            np.testing.assert_array_equal(counts, 3 + found)
        again = FrameMasks(masks.region)
        again.put_bits(0, 0, {**bits, 128: np.zeros((len(plane), -(-plane.shape[1] // 8)), np.uint8)})
        np.testing.assert_array_equal(again.flags(0, 0), plane)
    assert masks.bits(0, 0) == {}
    again.put_bits(0, 0, {})
    assert not again


def test_they_survive_pickling(masks):
    check(pickle.loads(pickle.dumps(masks)))


def test_a_mask_takes_the_place_of_an_earlier_one(masks):
    other = planes(2)[::-1]
    for i, plane in enumerate(other):
        masks.put(2 * i + 1, 1, plane)
    check(masks, other)
    assert (7, 1) not in masks.planes


def test_a_part_has_its_rows_only(masks):
    part = masks.part(1, 11, 30)
    assert part.region == (3, 11, 61, 19)
    np.testing.assert_array_equal(part.flags(5, 1), planes()[2, 6:25])
    assert not masks.part(0, 11, 30)


@pytest.mark.parametrize("place", [(5, 3, 40, 61), (17, 3, 1, 61), (9, 12, 20, 9), (44, 63, 1, 1)])
def test_masked_samples_are_blanked(masks, place):
    top, left, height, width = place
    part = np.s_[top - 5 : top - 5 + height, left - 3 : left - 3 + width]
    for i, plane in enumerate(planes()):
        rows = np.ones((height, width), np.float32)
        masks.blank(rows, 2 * i + 1, 1, top, left)
        np.testing.assert_array_equal(np.isnan(rows), plane[part] > 0)


@pytest.mark.parametrize("region", [REGION, (12, 9, 9, 20), (63, 44, 1, 1)])
def test_counts_and_maps_add_up(masks, region):
    left, top, width, height = region
    here = planes()[:, top - 5 : top - 5 + height, left - 3 : left - 3 + width]
    low, high, cover = (np.full((height, width), 2.0, np.float32) for _ in range(3))
    counts = masks.count(np.array([1, 2, 3, 5, 7]), 1, region, low, high, cover)
    assert counts.total.tolist() == [0, 0, *(np.count_nonzero(plane) for plane in here[1:])]
    np.testing.assert_array_equal(high - 2, ((here & ABOVE) > 0).sum(axis=0))
    np.testing.assert_array_equal(low - 2, ((here > 0) & ((here & ABOVE) == 0)).sum(axis=0))
    np.testing.assert_array_equal(cover - 2, (here > 0).sum(axis=0))
    assert counts.high.sum() == (high - 2).sum() and counts.low.sum() == (low - 2).sum()
    by_means = counts.by_means()
    np.testing.assert_array_equal(sum(by_means.values()), counts.total)
    own, line = (here & OWN) > 0, (here & LINE) > 0
    assert by_means["own"].sum() == own.sum()
    assert by_means["line"].sum() == (line & ~own).sum()
    assert by_means["footprint"].sum() == (here == FOOTPRINT).sum()
    assert by_means["large_scale"].sum() == (here == LARGE_LOW | COLOUR).sum()
    assert not by_means["colour"].any()


def test_planes_of_bits():
    bits = np.random.default_rng(3).integers(0, 256, (3, 7, 5), dtype=np.uint8)
    with scratch.memory_limited(10):
        spilled = BitPlanes(bits)
    for kept in (BitPlanes(bits), spilled, pickle.loads(pickle.dumps(spilled))):
        np.testing.assert_array_equal(kept.read(), bits)
        np.testing.assert_array_equal(kept.read(2, 6), bits[:, 2:6])
    assert BitPlanes(bits[:0]).read().shape == (0, 7, 5)
    present, packed = pack_flags(np.zeros((4, 9), np.uint8))
    assert present == () and packed.shape == (1, 4, 2)


def test_scratch_space_is_given_back():
    with scratch.memory_limited(0):
        found = FrameMasks(REGION)
        for i, plane in enumerate(planes()):
            found.put(i, 0, plane)
        live = scratch._current_arena().live
        found.put(1, 0, np.zeros_like(planes()[0]))
        assert scratch._current_arena().live == live - 1
        before = live - 3
        del found
        assert scratch._current_arena().live == before
