"""Residuals of a frame against the mean of the others, beside their formula."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import stacklib as sl
from stacklib.kernel.passes import NO_EXCESS
from stacklib.kernel.pixels import Judgement
from stacklib.kernel.verdicts import KEPT, NO_DATA, by_rows, judge_tiles, verdicts
from stacklib.normalization.settings import Settings
from stacklib.rejection.calibration import typical_variance
from stacklib.spatial.residuals import (
    DISAGREE,
    KeptMean,
    protected_places,
    residuals,
    unpack_verdicts,
    write_noise,
)

HEIGHT, WIDTH, FRAMES = 50, 67, 7
RULES = ["winsorized_sigma", "noise_model", "none", "min_max"]


def settings_of(rule):
    rng = np.random.default_rng(8)
    plain = Settings.plain(sl.Recipe(rejection=rule), FRAMES)
    noise = rng.uniform(1, 2, FRAMES)
    return replace(
        plain,
        rejection_factor=rng.uniform(0.8, 1.2, FRAMES),
        rejection_offset=rng.uniform(-0.01, 0.01, FRAMES),
        weights=1 / noise**2,
        noise=noise,
        curve=np.array([[0.1], [1e-4]]),
    )


def samples_of(settings):
    rng = np.random.default_rng(9)
    compared = 0.1 + 0.01 * settings.noise[:, None] * rng.standard_normal((FRAMES, HEIGHT * WIDTH))
    compared[rng.random(compared.shape) < 0.01] += 0.2
    raw = (compared - settings.rejection_offset[:, None]) / settings.rejection_factor[:, None]
    raw[rng.random(raw.shape) < 0.02] = np.nan
    # One sample, or none.
    raw[1:, :5], raw[:, 5:8] = np.nan, np.nan
    return raw.astype(np.float32)


def judged(rule):
    settings = settings_of(rule)
    raw = samples_of(settings)
    excess = np.ones(raw.shape[1], np.float32) if rule == "noise_model" else NO_EXCESS
    found = Judgement.empty(raw.shape[1], FRAMES, excess)
    bits = np.empty((FRAMES, 2, -(-raw.shape[1] // 8)), np.uint8)
    # In two pieces, as two threads would.
    judge_tiles(raw, settings, found, bits, 0, 1280)
    judge_tiles(raw, settings, found, bits, 1280)
    return settings, raw, found, by_rows(bits, WIDTH, HEIGHT)


@pytest.mark.parametrize("rule", RULES)
def test_what_the_rule_leaves(rule):
    settings, raw, found, bits = judged(rule)
    verdict = verdicts(raw, settings, excess=found.excess)
    for packed, own in zip(bits, verdict, strict=True):
        np.testing.assert_array_equal(unpack_verdicts(packed, WIDTH).reshape(-1), own)
    kept = verdict == KEPT
    compared = raw * settings.rejection_factor[:, None] + settings.rejection_offset[:, None]
    weight = np.where(kept, settings.weights[:, None], 0)
    some = kept.any(axis=0)
    assert some.tolist() == np.isfinite(raw).any(axis=0).tolist()
    mean = np.nansum(weight * compared, axis=0)[some] / weight.sum(axis=0)[some]
    np.testing.assert_allclose(found.mean[some], mean, rtol=2e-6)
    assert np.isnan(found.mean[~some]).all()
    np.testing.assert_allclose(found.weight, weight.sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found.number, np.isfinite(raw).sum(axis=0))


@pytest.mark.parametrize("rule", RULES)
def test_residuals_follow_the_formula(rule):
    settings, raw, found, bits = judged(rule)
    shape = HEIGHT, WIDTH
    verdict = verdicts(raw, settings, excess=found.excess)
    sigma = np.linspace(0.01, 0.02, HEIGHT * WIDTH, dtype=np.float32)
    further = np.linspace(0, 3, HEIGHT * WIDTH, dtype=np.float32)
    planes = KeptMean(found.mean, found.weight, sigma, further, np.zeros(sigma.shape, bool))
    planes = KeptMean(*(plane.reshape(shape) for plane in planes))
    compared = raw.astype(float) * settings.rejection_factor[:, None] + settings.rejection_offset[:, None]
    weights, noise = settings.weights, settings.noise
    for i in range(FRAMES):
        z = residuals(raw[i].reshape(shape), bits[i], planes, settings, i)
        others = verdict == KEPT
        others[i] = False
        total = (weights[:, None] * others).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(others, weights[:, None] * compared, 0).sum(axis=0) / total
            # Exact for weights of 1 / s^2.
            variance = (weights[:, None] * noise[:, None] * others) ** 2
            error = sigma * np.sqrt(noise[i] ** 2 + further + variance.sum(axis=0) / total**2)
            expected = (compared[i] - mean) / error
        expected[verdict[i] == NO_DATA] = np.nan
        np.testing.assert_allclose(z.reshape(-1), expected, rtol=2e-4, atol=2e-4)
        assert np.isnan(z.reshape(-1)[:8]).all()


def test_residuals_of_noise_have_sigma_1():
    settings, raw, found, bits = judged("noise_model")
    sigma, further = np.full_like(found.mean, 0.01), np.zeros_like(found.mean)
    planes = KeptMean(found.mean, found.weight, sigma, further, np.zeros(sigma.shape, bool))
    planes = KeptMean(*(plane.reshape(HEIGHT, WIDTH) for plane in planes))
    for i in range(FRAMES):
        z = residuals(raw[i].reshape(HEIGHT, WIDTH), bits[i], planes, settings, i)
        good = np.abs(z) < 8
        assert abs(z[good].std() - 1) < 0.05 and abs(z[good].mean()) < 0.06


def test_verdicts_are_packed_in_two_bits():
    verdict = np.random.default_rng(4).integers(0, 4, (5, 13)).astype(np.uint8)
    packed = np.stack([np.packbits(verdict & 1, axis=1), np.packbits(verdict >> 1, axis=1)])
    np.testing.assert_array_equal(unpack_verdicts(packed, 13), verdict)


@pytest.mark.parametrize("slope", [0.0, 3e-4])
def test_the_noise_is_that_of_the_curve(slope):
    rng = np.random.default_rng(6)
    settings = replace(settings_of("none"), curve=np.array([[0.1, 0.2, 0.5], [1e-4, 1e-4 + slope, 5e-4]]))
    mean = rng.uniform(0.0, 0.6, (40, 33)).astype(np.float32)
    mean[0, :4] = np.nan, 0.1, 0.2, 0.5
    factor = rng.choice([1.0, 1.7, -1.3], mean.shape).astype(np.float32)
    planes = [np.empty_like(mean) for _ in range(2)]
    kept = KeptMean(mean, mean, *planes, np.zeros(mean.shape, bool))
    write_noise(kept, factor, settings, threads=3)
    sigma = np.sqrt(np.interp(mean, *settings.curve)) * np.where(factor < 0, -factor, 1)
    np.testing.assert_allclose(kept.sigma, sigma, rtol=2e-7)
    typical = typical_variance(tuple(settings.noise.tolist()))
    further = typical * (np.maximum(factor.astype(float), 1) ** 2 - 1)
    np.testing.assert_allclose(kept.further, further, rtol=2e-7)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 29])
def test_verdicts_are_packed_along_the_rows(width):
    flat = np.random.default_rng(5).integers(0, 2, (3, 2, 11 * width)).astype(np.uint8)
    expected = np.packbits(flat.reshape(3, 2, 11, width), axis=-1)
    np.testing.assert_array_equal(by_rows(np.packbits(flat, axis=-1), width, 11), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (30, 40)])
def test_protected_places_are_those_of_scipy(shape):
    excess = np.random.default_rng(1).random(shape) * 1.1 * DISAGREE
    expected = ndimage.binary_dilation(excess > DISAGREE)
    np.testing.assert_array_equal(protected_places(excess), expected)
