"""Numbers of a trial on a region."""

import copy
import warnings

import numpy as np
import pytest
from xisf import XISF

import stacklib as sl
from stacklib.explore.region_trials import RegionTrials
from stacklib.formats.xisf_blocks import StoredBlock
from stacklib.integration.run import integrate_samples
from stacklib.integration.samples import Samples
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


def test_samples_are_corrected_once_for_all_limits(tmp_path, monkeypatch):
    pytest.importorskip("sep")
    simulate_night(6, 240, 320, 1, "field", 6302, dither=3).save(tmp_path, "fits", "f32")
    frames, region = sl.open_frames(tmp_path), (100, 60, 96, 80)
    light = dict(normalization="photometric", rejection_normalization="photometric", weights="none")
    trial = RegionTrials(frames, sl.Recipe(**light, rejection="noise_model"), region)
    calls, mark = [], Samples._mark

    def counted(self, *arguments):
        calls.append(arguments)
        mark(self, *arguments)

    monkeypatch.setattr(Samples, "_mark", counted)
    recipes = [
        (sl.Recipe(**light, rejection="noise_model", sigma_high=2.5), 0),
        (sl.Recipe(**light, rejection="calibrated_sigma"), 0),
        (sl.Recipe(**light, rejection="sigma", range_clip_low=False), 6),
        (sl.Recipe(rejection="sigma"), 0),
        (sl.Recipe(**light, rejection="sigma"), 6),
    ]
    for recipe, expected in recipes:
        calls.clear()
        image = trial.trials.integrate(recipe).image
        assert len(calls) == expected, recipe
        calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.StacklibWarning)
            known = sl.integrate(frames, recipe, region, progress=False)
        np.testing.assert_array_equal(image, known.image)


def test_samples_are_corrected_band_by_band_if_there_is_no_room_for_both(tmp_path):
    pytest.importorskip("sep")
    simulate_night(6, 240, 320, 1, "field", 6303).save(tmp_path, "fits", "f32")
    trial = RegionTrials(
        sl.open_frames(tmp_path), sl.Recipe.from_dict({"preset": "measured"}), (100, 60, 96, 80)
    )
    roomy, samples = trial.result.image, trial.trials.samples
    assert samples.in_memory == 2 * samples.held.nbytes
    samples.left_for_samples = samples.held.nbytes
    assert samples.in_memory == samples.held.nbytes
    np.testing.assert_array_equal(trial.integrate(trial.recipe).image, roomy)


def test_a_window_of_the_samples_has_noise_of_its_own(tmp_path):
    pytest.importorskip("sep")
    simulate_night(6, 240, 320, 1, "field", 6304).save(tmp_path, "fits", "f32")
    frames, region = sl.open_frames(tmp_path), (90, 50, 128, 110)
    trial = RegionTrials(frames, sl.Recipe.from_dict({"preset": "measured"}), region)
    window = copy.copy(trial.trials.samples)
    # It is smaller than what is kept with the samples of the region.
    window.region, window.held = (100, 60, 40, 30), window.held[:, :, 10:40, 10:50].copy()
    found = integrate_samples(window, trial.result.preparation, true_claims=False)
    np.testing.assert_array_equal(found.image, trial.result.image[:, 10:40, 10:50])
    np.testing.assert_array_equal(found.uncertainty, trial.result.uncertainty[:, 10:40, 10:50])
    before = trial.result.image
    np.testing.assert_array_equal(trial.integrate(trial.recipe).image, before)


@pytest.mark.parametrize(("memory", "again"), [("2GB", 0), (1_300_000, 4)])
def test_compressed_frames_are_unpacked_once_if_the_budget_has_room(tmp_path, monkeypatch, memory, again):
    night = simulate_night(4, 240, 320, 1, "field", 6303)
    for number, frame in enumerate(night.frames):
        XISF.write(str(tmp_path / f"{number}.xisf"), np.moveaxis(frame, 0, -1), codec="lz4", shuffle=True)
    trial = RegionTrials(tmp_path, sl.Recipe(rejection="sigma"), (100, 60, 96, 80))
    unpacked, inflate = [], StoredBlock._inflated

    def counted(self, compression):
        unpacked.append(self.path)
        return inflate(self, compression)

    monkeypatch.setattr(StoredBlock, "_inflated", counted)
    trial.trials.memory = memory
    with warnings.catch_warnings():
        # So small a budget is told.
        warnings.simplefilter("ignore", sl.StacklibWarning)
        for region in ((10, 20, 96, 80), (150, 100, 96, 80)):
            unpacked.clear()
            trial.region = region
        assert len(unpacked) == again
        known = sl.integrate(tmp_path, trial.recipe, region, progress=False)
    np.testing.assert_array_equal(trial.result.image, known.image)
