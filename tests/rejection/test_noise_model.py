"""Limits of each frame from known noise: against a plain reference, and against what they promise."""

from dataclasses import replace

import numpy as np
import pytest
import reference
from reference import Notes

from stacklib.kernel.verdicts import HIGH, KEPT, LOW, last_round, reject, verdicts
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.rejection.calibration import median_deviation_factors, typical_variance

LEVEL, SIGMA = 0.1, 1e-3


def stack_of(rng, noise, pixels, hits=0.08):
    x = LEVEL + SIGMA * noise[:, None] * rng.standard_normal((noise.size, pixels))
    x += np.where(rng.random(x.shape) < hits, rng.normal(0, 12 * SIGMA, x.shape), 0)
    x[rng.random(x.shape) < 0.05] = np.nan
    return x.astype(np.float32)


def settings_for(recipe, noise, curve=SIGMA**2):
    return replace(
        Settings.plain(recipe, noise.size), noise=noise, curve=np.array([[LEVEL], [curve]]), floor=1e-5
    )


@pytest.mark.parametrize("frames", [3, 4, 5, 8, 13, 30])
@pytest.mark.parametrize("sides", [{}, {"clip_low": False}, {"sigma_low": 2.0, "sigma_high": 1.6}])
@pytest.mark.parametrize("rounds", [1, 2, 100])
def test_each_frame_has_its_own_limits(frames, sides, rounds):
    rng = np.random.default_rng([31, frames])
    noise = rng.uniform(1, 3, frames)
    raw = stack_of(rng, noise, 60)
    excess = rng.choice([1.0, 2.5], 60).astype(np.float32)
    recipe = Recipe(rejection="noise_model", **sides)
    chosen = settings_for(recipe, noise)
    found = verdicts(raw, chosen, rounds, excess)
    told = last_round(raw, chosen, rounds, excess)
    np.testing.assert_array_equal(told.verdict, found)
    factors = median_deviation_factors(tuple(noise.tolist()))[0]
    typical = typical_variance(tuple(noise.tolist()))
    sure = 0
    for p in range(60):
        valid = np.isfinite(raw[:, p])
        x = raw[valid, p].astype(float)
        m = np.median(x)
        further = 0.0
        if excess[p] > 1:
            # What the scatter exceeds the noise by is alike in all frames.
            spread = np.sort(np.abs(x - m))[x.size // 2]
            shown = max(excess[p] ** 2, 0.75**2 * factors[x.size] * (spread / SIGMA) ** 2)
            further = (shown - 1) * typical * (1 + np.sum(noise**-4.0) / np.sum(noise**-2.0) ** 2)
        notes, known = Notes(), noise[valid].tolist()
        kept = reference.by_known_noise(x.tolist(), known, SIGMA, recipe, notes, rounds, further)
        if notes.margin > 1e-6:
            sure += 1
            np.testing.assert_array_equal(found[valid, p] == KEPT, kept)
            lower, upper = told.limits[:, valid, p]
            if x.size > 2 and any(kept) and sum(kept) > 1:
                # One sample stays even if it lies beyond its limits.
                np.testing.assert_array_equal((x >= lower) & (x <= upper), kept)
    assert sure > 50


def test_a_noisy_frame_is_neither_thrown_away_nor_trusted():
    rng = np.random.default_rng(32)
    noise = np.ones(12)
    noise[4] = 4.0
    raw = stack_of(rng, noise, 20_000, hits=0)
    found = verdicts(raw, settings_for(Recipe(rejection="noise_model"), noise))
    lost = ((found == LOW) | (found == HIGH)).mean(axis=1)
    assert lost.max() < 0.0035
    classic = verdicts(raw, settings_for(Recipe(rejection="winsorized_sigma"), noise))
    assert ((classic == LOW) | (classic == HIGH)).mean(axis=1)[4] > 0.2


def test_pixels_do_not_know_of_each_other():
    rng = np.random.default_rng(33)
    noise = rng.uniform(1, 2, 9)
    raw = stack_of(rng, noise, 500)
    excess = rng.choice([1.0, 1.7], 500).astype(np.float32)
    chosen = settings_for(Recipe(rejection="noise_model"), noise)
    whole = last_round(raw, chosen, excess=excess)
    for part in (slice(0, 1), slice(127, 129), slice(3, 400)):
        found = last_round(np.ascontiguousarray(raw[:, part]), chosen, excess=excess[part])
        np.testing.assert_array_equal(found.verdict, whole.verdict[:, part])
        np.testing.assert_array_equal(found.detail, whole.detail[part])
        np.testing.assert_array_equal(found.limits, whole.limits[:, :, part])


# ---- what limits promise: seeds that nothing was tuned on


@pytest.mark.parametrize("rule", ["noise_model", "calibrated_sigma"])
@pytest.mark.parametrize("frames", [4, 5, 7, 10, 16, 33, 90, 200])
def test_false_rejections_are_those_asked_for(rule, frames):
    rng = np.random.default_rng([91, frames])
    side = int((1.6e6 / frames) ** 0.5)
    x = rng.normal(LEVEL, SIGMA, (frames, side, side)).astype(np.float32)
    kept = reject(x, Recipe(rejection=rule))
    # One-sided rates of a Gaussian beyond 3.2 and 2.9 sigma.
    low = np.count_nonzero(~kept & (x < LEVEL)) / x.size
    high = np.count_nonzero(~kept & (x > LEVEL)) / x.size
    assert low + high == pytest.approx(0.000687 + 0.001866, rel=0.13 if frames == 4 else 0.1)
    # Of tests in a row, one side takes samples of the other along; of four samples, one holds the others.
    loose = rule == "calibrated_sigma" or frames == 4
    assert low / high == pytest.approx(0.000687 / 0.001866, rel=0.5 if loose else 0.25)
    mean = np.where(kept, x, 0).sum(axis=0, dtype=float) / kept.sum(axis=0)
    assert mean.std() < 1.022 * x.mean(axis=0, dtype=float).std()


@pytest.mark.parametrize(
    ("frames", "hits", "height", "least"), [(5, 1, 6, 0.95), (8, 1, 6, 0.98), (8, 2, 10, 0.95)]
)
def test_hits_are_found_among_few_frames(frames, hits, height, least):
    rng = np.random.default_rng([92, frames, hits])
    x = rng.normal(LEVEL, SIGMA, (frames, 150, 150)).astype(np.float32)
    struck = np.zeros(x.shape, bool)
    for row, column in np.ndindex(30, 30):
        struck[rng.permutation(frames)[:hits], 5 * row + 2, 5 * column + 2] = True
    x[struck] += np.float32(height * SIGMA)
    kept = reject(x, Recipe(rejection="noise_model"))
    assert np.mean(~kept[struck]) > least


@pytest.mark.parametrize("frames", [6, 10, 20])
def test_a_few_frames_of_good_seeing_keep_the_cores_of_stars(frames):
    rng = np.random.default_rng([93, frames])
    # A quarter of the frames is sharp, and these are the least noisy ones.
    sharp = np.arange(frames) % 4 == 1
    noise, fwhm = np.where(sharp, 1.0, 2.0), np.where(sharp, 2.6, rng.uniform(3.3, 3.75, frames))
    size, step = 240, 20
    y, x = np.mgrid[:size, :size] % step - step / 2 + 0.3
    flux = np.repeat(np.repeat(rng.uniform(0.1, 0.6, (12, 12)), step, axis=0), step, axis=1)
    core = (fwhm / 2) ** 2 / (2 ** (1 / 3) - 1)
    light = 2 / (np.pi * core[:, None, None]) / (1 + (x**2 + y**2) / core[:, None, None]) ** 3 * flux
    stack = LEVEL + light + SIGMA * noise[:, None, None] * rng.standard_normal((frames, size, size))
    rejected = ~reject(stack.astype(np.float32), Recipe(rejection="noise_model"))
    # Before seeing was told from noise, up to ten times as many were lost.
    assert rejected[:, np.hypot(x, y) < 2].mean() < 0.002
    assert rejected[:, np.hypot(x, y) > 8].mean() == pytest.approx(0.00255, rel=0.1)
    # Outliers that are brighter than the star are found.
    peaks = rng.permutation(np.argwhere((np.hypot(x, y) < 0.5) & (flux > 0.3)))[:6]
    for k, (row, column) in enumerate(peaks):
        stack[k % frames, row, column] += 2 * light[:, row, column].max()
    kept = reject(stack.astype(np.float32), Recipe(rejection="noise_model"))
    assert not any(kept[k % frames, row, column] for k, (row, column) in enumerate(peaks))
