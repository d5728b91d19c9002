"""Numbers of a trial on a region."""

import pytest

import stacklib as sl
from stacklib.explore.region_trials import RegionTrials
from stacklib.simulate import simulate_night


def test_noise_for_equal_starlight_is_among_the_numbers(tmp_path):
    pytest.importorskip("sep")
    simulate_night(6, 240, 320, 1, "field", 6301, noise=(1, 2)).save(tmp_path, "fits", "f32")
    frames = sl.open_frames(tmp_path)
    by_light = dict(normalization="photometric", rejection_normalization="photometric", rejection="none")
    trial = RegionTrials(frames, sl.Recipe(**by_light, weights="measured"), (100, 60, 96, 96))
    best = trial.numbers
    assert best["noise_for_light"] == pytest.approx(best["best_noise_for_light"], rel=1e-6)
    assert "noise for equal starlight" in trial.words()
    trial.integrate(sl.Recipe(**by_light, weights="none"))
    assert trial.numbers["noise_for_light"] > 1.1 * best["noise_for_light"]
    trial.integrate(sl.Recipe(rejection="none"))
    assert "noise_for_light" not in trial.numbers and "starlight" not in trial.words()
