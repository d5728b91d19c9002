"""The compiled pass over a band: tiles, blocks and their ends, verdicts, counts and standard errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.kernel import passes as kernel
from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Counts, Pixels
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA, reject, verdicts
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES
from stacklib.rejection.sorting import LANES

#: Noise of a frame of relative noise 1.
SIGMA = 1e-3
MAPS = ("image", "uncertainty", "rejection_low", "rejection_high", "coverage", "slope", "ratio")


def samples(frames, pixels, seed=0):
    """Gaussian samples with outliers, holes of all kinds and saturated ones."""
    rng = np.random.default_rng(seed)
    raw = 0.1 + 1e-3 * rng.standard_normal((frames, pixels))
    raw[rng.random(raw.shape) < 0.05] += 0.02
    for value in (0.0, np.nan, np.inf, -np.inf, 0.99):
        raw[rng.random(raw.shape) < 0.02] = value
    return raw.astype(np.float32)


def settings_for(recipe, frames, seed=1):
    """Unequal normalization and weights."""
    rng = np.random.default_rng(seed)
    factor, offset, weights = (
        rng.uniform(0.9, 1.1, frames),
        rng.normal(0, 1e-4, frames),
        rng.random(frames) + 0.1,
    )
    return Settings(
        recipe=recipe,
        noise=rng.uniform(1, 2, frames),
        curve=np.array([[0.0], [SIGMA**2]]),
        rejection_factor=np.sqrt(factor),
        rejection_offset=offset / 2,
        factor=factor,
        offset=offset,
        weights=weights,
    )


def work(raw, chosen, parts=None):
    pixels, counts = Pixels.empty(raw.shape[1], chosen), Counts.zeros(raw.shape[0])
    for array in pixels:
        array[:] = -77
    for first, last in parts or [(0, raw.shape[1])]:
        counts.add(run_tiles(raw, chosen, pixels, first, last))
    return pixels, counts


def same(one, other):
    for name in MAPS:
        np.testing.assert_array_equal(getattr(one[0], name), getattr(other[0], name), err_msg=name)
    for name in ("low", "high", "range_low", "range_high", "data"):
        np.testing.assert_array_equal(getattr(one[1], name), getattr(other[1], name), err_msg=name)


@pytest.mark.parametrize("rule", RULES)
def test_pixels_do_not_know_of_each_other(rule, monkeypatch):
    raw = samples(13, 3 * LANES + 5)
    chosen = settings_for(Recipe(rejection=rule, sigma_high=2.5, range_clip_high=True), 13)
    whole = work(raw, chosen)
    same(whole, work(raw, chosen, [(0, LANES), (LANES, 2 * LANES), (2 * LANES, raw.shape[1])]))
    same(whole, work(raw, chosen, [(i, min(i + 7, raw.shape[1])) for i in range(0, raw.shape[1], 7)]))
    monkeypatch.setattr(kernel, "TILE_BYTES", 1)
    monkeypatch.setattr(kernel, "FEWEST_BLOCKS", 1)
    same(whole, work(raw, chosen))
    monkeypatch.undo()
    order = np.random.default_rng(3).permutation(raw.shape[1])
    moved = work(np.ascontiguousarray(raw[:, order]), chosen)
    for name in MAPS[: 6 if rule == "linear_fit" else 5]:
        np.testing.assert_array_equal(getattr(whole[0], name)[order], getattr(moved[0], name), err_msg=name)


@pytest.mark.parametrize("pixels", [1, 2, LANES - 1, LANES, LANES + 1])
def test_ends_of_blocks(pixels):
    raw = samples(9, pixels)
    recipe = Recipe(rejection="sigma", sigma_low=2, sigma_high=2)
    found, counts = work(raw, settings_for(recipe, 9))
    data = np.isfinite(raw) & (raw > 0)
    np.testing.assert_array_equal(found.coverage, data.sum(axis=0))
    np.testing.assert_array_equal(counts.data, data.sum(axis=1))
    np.testing.assert_array_equal(counts.range_low, (raw == 0).sum(axis=1))
    assert found.rejection_low.sum() == counts.low.sum() + counts.range_low.sum()
    assert found.rejection_high.sum() == counts.high.sum()


def test_a_band_may_be_a_view_of_a_larger_one():
    raw = samples(7, 500)
    chosen = settings_for(Recipe(rejection="min_max"), 7)
    same(work(raw[:, 100:333], chosen), work(raw[:, 100:333].copy(), chosen))


@settings(max_examples=40, deadline=None)
@given(frames=st.integers(1, 12), pixels=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_verdicts_counts_and_averages_agree(frames, pixels, seed):
    raw = samples(frames, pixels, seed)
    recipe = Recipe(rejection="sigma", sigma_low=1.8, sigma_high=1.8, range_clip_high=True)
    chosen = settings_for(recipe, frames, seed)
    found, counts = work(raw, chosen)
    verdict = verdicts(raw, chosen)
    data = np.isfinite(raw) & (raw > 0)
    valid = data & (raw < 0.98)
    np.testing.assert_array_equal(verdict == NO_DATA, ~valid)
    np.testing.assert_array_equal((verdict == LOW).sum(axis=1), counts.low)
    np.testing.assert_array_equal((verdict == HIGH).sum(axis=1), counts.high)
    np.testing.assert_array_equal((data & ~valid).sum(axis=1), counts.range_high)
    np.testing.assert_array_equal(data.sum(axis=0), found.coverage)
    y = raw.astype(float) * chosen.factor[:, None] + chosen.offset[:, None]
    for p in range(pixels):
        kept = verdict[:, p] == KEPT
        assert kept.any() == valid[:, p].any()
        w, v = chosen.weights[kept], y[kept, p]
        if kept.any():
            assert found.image[p] == pytest.approx(np.average(v, weights=w), rel=1e-6)
        if valid[:, p].sum() > 1:
            # Frames of known noise: the scatter of the samples does not matter.
            scale = SIGMA * chosen.factor.sum() / chosen.rejection_factor.sum()
            error = scale * math.sqrt(np.sum((w * chosen.noise[kept]) ** 2)) / w.sum()
            assert found.uncertainty[p] == pytest.approx(error, rel=1e-6)
        else:
            assert np.isnan(found.uncertainty[p])
        if valid[:, p].sum() < 2:
            assert np.isnan(found.uncertainty[p])
        if not kept.any():
            saturated = y[data[:, p], p]
            assert found.image[p] == pytest.approx(np.median(saturated) if saturated.size else 0, rel=1e-6)


@pytest.mark.parametrize("combination", ["median", "minimum", "maximum"])
def test_combinations_by_order(combination):
    raw = samples(10, 150)
    recipe = Recipe(rejection="gesd", combination=combination)
    chosen = settings_for(recipe, 10)
    found, _ = work(raw, chosen)
    y = np.where(verdicts(raw, chosen) == KEPT, raw * chosen.factor[:, None] + chosen.offset[:, None], np.nan)
    function = {"median": np.nanmedian, "minimum": np.nanmin, "maximum": np.nanmax}[combination]
    np.testing.assert_allclose(found.image, function(y, axis=0), rtol=2e-7)


def test_equal_samples_share_a_verdict():
    raw = np.array([1, 1, 1, 1, 1, 1, 1, 1, 9, 9, 2, 2], np.float32)[:, None] / 100
    recipe = Recipe(rejection="min_max", min_max_low=3, min_max_high=3)
    verdict = verdicts(raw, Settings.plain(recipe, 12))[:, 0]
    # Three at either end, but the lowest equal the kept ones, and so does one of the 2.
    assert verdict.tolist() == [KEPT] * 8 + [HIGH] * 2 + [KEPT] * 2


def test_no_sample_at_all():
    for value in (np.nan, 0.0):
        found, counts = work(np.full((4, 3), value, np.float32), Settings.plain(Recipe(), 4))
        assert found.image.tolist() == [0, 0, 0]
        assert np.isnan(found.uncertainty).all()
        assert found.coverage.tolist() == [0, 0, 0]
        assert counts.data.sum() == counts.low.sum() == counts.high.sum() == 0


def test_map_range_rejection():
    raw = np.array([[0.0], [0.1], [0.1], [0.1], [0.99], [np.nan]], np.float32)
    for mapped in (True, False):
        recipe = Recipe(rejection="none", range_clip_high=True, map_range_rejection=mapped)
        found, counts = work(raw, Settings.plain(recipe, 6))
        assert (found.rejection_low[0], found.rejection_high[0]) == ((1, 1) if mapped else (0, 0))
        assert found.coverage[0] == 4
        assert counts.range_low.tolist() == [1, 0, 0, 0, 0, 0]
        assert counts.range_high.tolist() == [0, 0, 0, 0, 1, 0]


def test_sums_are_exact_enough_far_from_zero():
    # Full-scale ADU with a scatter of one: naive sums of squares in float32 would be noise.
    rng = np.random.default_rng(0)
    raw = (60000 + rng.standard_normal((30, 200))).astype(np.float32)
    chosen = replace(Settings.plain(Recipe(rejection="none"), 30), curve=np.array([[60000.0], [1.0]]))
    found, _ = work(raw, chosen)
    np.testing.assert_allclose(found.image, raw.astype(float).mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(found.uncertainty, 1 / math.sqrt(30), rtol=1e-6)
    assert found.ratio.mean() == pytest.approx(1, abs=0.1)


def test_slope_is_there_for_the_linear_fit_only():
    raw = (0.1 + 0.01 * np.arange(9))[::-1, None].astype(np.float32) * np.ones(5, np.float32)
    found, _ = work(raw, Settings.plain(Recipe(rejection="linear_fit"), 9))
    np.testing.assert_allclose(found.slope, 0.01, rtol=1e-5)
    empty = Pixels.empty((2, 40), Settings.plain(Recipe(rejection="sigma"), 9))
    assert empty.slope.shape == (2, 0)
    assert empty.part(1).image.shape == (40,)


# reject -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [name for name, spec in RULES.items() if not spec.by_frame])
def test_reject_follows_the_definitions(rule):
    stack = samples(12, 200, seed=5).reshape(12, 20, 10)
    recipe = Recipe(rejection=rule, range_clip_high=True)
    expected, margin = reference.reject(stack, recipe)
    sure = margin > 1e-6
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(reject(stack, recipe)[:, sure], expected[:, sure])


@pytest.mark.parametrize("shape", [(12,), (12, 5), (1, 2, 3, 4)])
def test_reject_needs_three_axes(shape):
    with pytest.raises(ValueError, match=r"stack has the shape .*expected \(frames, height, width\)"):
        reject(np.zeros(shape, np.float32), Recipe())


def test_reject_takes_what_is_like_an_array():
    stack = samples(12, 60).reshape(12, 6, 10)
    recipe = Recipe(rejection="sigma", sigma_high=2)
    expected = reject(stack, recipe)
    assert expected.dtype == bool
    assert expected.shape == stack.shape
    np.testing.assert_array_equal(reject(stack.tolist(), recipe), expected)
    np.testing.assert_array_equal(reject(np.asfortranarray(stack), recipe), expected)
    np.testing.assert_array_equal(reject(stack.astype(">f4"), recipe), expected)
    np.testing.assert_array_equal(reject(stack.astype(float)[:, ::-1], recipe), expected[:, ::-1])


def test_reject_of_next_to_nothing():
    assert reject(np.ones((1, 1, 1)), Recipe()).all()
    assert reject(np.ones((3, 0, 2)), Recipe()).shape == (3, 0, 2)


def test_rounds_of_reject():
    stack = np.array([0.1, 0.101, 0.0995, 0.1004, 0.1002, 0.0998, 0.0997, 0.1006, 0.1001, 0.2, 5.0, 0.0999])
    recipe = Recipe(rejection="sigma", sigma_low=3, sigma_high=2.5)
    kept = [int(reject(stack[:, None, None], recipe, rounds).sum()) for rounds in range(5)]
    assert kept == [12, 11, 10, 10, 10]
