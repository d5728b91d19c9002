"""The power of the profile of stars."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_stars import field, noisy, smear

from stacklib.measurement.light.photometry import make_template
from stacklib.measurement.light.profiles import POWER_SPREAD
from stacklib.measurement.light.wings import best_power, compare_wings


def test_wide_discs_tell_the_power_of_the_profile():
    template, _ = make_template(field(3.2, 4.2) + np.float32(0.1))
    rng = np.random.default_rng(5)
    seen = [noisy(field(width, 4.2), 1e-3, rng) for width in (2.4, 2.5, 2.7, 2.9, 3.5, 3.8, 4.2, 4.4)]
    power, error = best_power([compare_wings(image, template) for image in seen])
    assert power == pytest.approx(4.2, rel=0.1) and error < 0.1
    # What smears stars is no other profile.
    smeared = [smear(image, 0.2) if k % 2 else image for k, image in enumerate(seen)]
    again, error = best_power([compare_wings(image, template) for image in smeared])
    assert again == pytest.approx(power, rel=0.06) and error < 0.1
    # Without any difference of the seeing it is the usual one, within what is usual.
    same = [noisy(field(3.2, 4.2), 1e-2, rng) for _ in range(4)]
    for images in (same, []):
        power, error = best_power([compare_wings(image, template) for image in images])
        assert power == pytest.approx(3.0, rel=0.06) and error == pytest.approx(POWER_SPREAD, rel=0.15)


def test_noise_is_no_other_power():
    widths, away = (2.6, 2.7, 2.9, 3.2, 3.5, 3.75), []
    for seed in range(40, 48):
        rng = np.random.default_rng(seed)
        frames = [noisy(field(width, count=25, seed=seed), 0.02, rng) for width in widths]
        template, _ = make_template(np.mean(frames, axis=0) + np.float32(0.1))
        power, error = best_power([compare_wings(frame, template) for frame in frames])
        away.append(np.log(power / 3) / error)
    assert np.sqrt(np.mean(np.square(away))) < 1.4
    assert np.abs(away).max() < 3
