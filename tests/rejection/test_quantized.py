"""Samples that were rounded to steps larger than their noise: rounding is no outlier, whatever the rule."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.measurement.statistics import grid_step
from stacklib.normalization.settings import HALF_STEP, Settings
from stacklib.recipe.rules import RULES

PIXELS = 2048
#: Rules that look at values; `min_max` drops a number of samples whatever these are.
BY_VALUE = [name for name, rule in RULES.items() if rule.rejects and rule.limits_in != "samples"]


def rounded(frames, noise, level, seed=1):
    """Samples of a level, rounded to whole steps."""
    rng = np.random.default_rng(seed)
    return np.rint(level + noise * rng.standard_normal((frames, PIXELS))).astype(np.float32)


def combined(samples, rule, **changes):
    recipe = sl.Recipe(rejection=rule, range_clip_low=False, **changes)
    chosen = replace(Settings.plain(recipe, len(samples)), floor=HALF_STEP)
    pixels = Pixels.empty(PIXELS, chosen)
    run_tiles(samples, chosen, pixels)
    return pixels


@pytest.mark.parametrize("rule", BY_VALUE)
def test_rounding_rejects_nothing_and_biases_nothing(rule):
    for frames in (3, 5, 10, 20, 40):
        for noise in (0.05, 0.2, 0.3, 0.4, 0.5):
            for phase in (0.0, 0.2, 0.4, 0.5):
                samples = rounded(frames, noise, 10 + phase)
                found = combined(samples, rule)
                where = f"{frames} frames, noise {noise}, phase {phase}"
                # A sample two steps away is an outlier at a noise of half a step.
                assert found.rejection_low.mean() / frames < 0.015, where
                assert found.rejection_high.mean() / frames < 0.015, where
                bias = found.image.mean(dtype=float) - samples.mean(dtype=float)
                assert abs(bias) < 0.02, where


@pytest.mark.parametrize("rule", [name for name in BY_VALUE if name not in ("percentile", "ccd_noise")])
@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_outliers_among_tied_samples_are_still_found(rule, noise):
    samples = rounded(20, noise, 1000.2)
    samples[7] += 8
    found = combined(samples, rule)
    assert found.rejection_high.mean() > 0.97
    assert abs(found.image.mean(dtype=float) - np.delete(samples, 7, axis=0).mean(dtype=float)) < 0.03


def frames_of(folder, noise, divisor=None, seed=2):
    """Frames of a slope, rounded to whole counts: integers, or floats divided by a number."""
    rng = np.random.default_rng(seed)
    across = np.linspace(0, 5, 64)[np.newaxis] + np.zeros((64, 1))
    for number in range(20):
        counts = np.rint(300 + across + noise * rng.standard_normal((64, 64)))
        plane = counts.astype(np.uint16) if divisor is None else (counts / divisor).astype(np.float32)
        fits.PrimaryHDU(plane).writeto(folder / f"f{number:02d}.fits")
    return (300 + across) / 65535


@pytest.mark.filterwarnings("ignore:Registration hides noise", "ignore:The field is sparse")
@pytest.mark.parametrize("rule", ["sigma", "winsorized_sigma", "gesd"])
@pytest.mark.parametrize("divisor", [None, 1, 65535])
def test_frames_with_little_noise(tmp_path, rule, divisor):
    truth = frames_of(tmp_path, 0.4, divisor)
    result = sl.integrate(tmp_path, sl.Recipe(rejection=rule, weights="none"), progress=False)
    assert result.rejected_low.mean() < 0.01 and result.rejected_high.mean() < 0.01
    # Frames of pure sky are matched by their medians, which costs a little.
    counts = result.image[0] * (1 if divisor == 1 else 65535)
    assert abs((counts - truth * 65535).mean()) < 0.05


def test_only_values_on_a_grid_have_a_step():
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((100, 100))
    for step in (1.0, 16.0, 1 / 65535, 1e-20):
        plane = (np.rint(400 + noise) * step).astype(np.float32)
        assert grid_step(plane, 0, np.inf) == pytest.approx(step, rel=0.02)
    stars = np.full((100, 100), 0.1) + 0.2 * (noise > 2) + 0.05 * noise * (noise < -2.5)
    for plane in (400 + noise, np.full((9, 9), 5.0), np.rint(noise > 0), stars, np.full((9, 9), np.nan)):
        assert grid_step(plane.astype(np.float32), 0, np.inf) == 0
