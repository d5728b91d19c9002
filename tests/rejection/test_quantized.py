"""Samples that were rounded to steps larger than their noise: rounding is no outlier, whatever the rule."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
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


@pytest.mark.filterwarnings("ignore:The frames have no NOISE keywords", "ignore:The field is sparse")
@pytest.mark.parametrize("rule", ["sigma", "winsorized_sigma", "gesd"])
def test_integer_frames_with_little_noise(tmp_path, rule):
    rng = np.random.default_rng(2)
    across = np.linspace(0, 5, 64)[np.newaxis] + np.zeros((64, 1))
    for number in range(20):
        plane = np.rint(300 + across + 0.4 * rng.standard_normal((64, 64)))
        fits.PrimaryHDU(plane.astype(np.uint16)).writeto(tmp_path / f"f{number:02d}.fits")
    result = sl.integrate(tmp_path, sl.Recipe(rejection=rule, weights="none"), progress=False)
    assert result.rejected_low.mean() < 0.01 and result.rejected_high.mean() < 0.01
    truth = (300 + across) / 65535
    # Frames of pure sky are matched by their medians, which costs a little.
    assert abs((result.image[0] - truth).mean()) * 65535 < 0.05
