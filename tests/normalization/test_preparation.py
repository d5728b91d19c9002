"""Preparation of an integration: reference, normalization, weights, notes."""

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import IntegrationError
from stacklib.formats import fits
from stacklib.measurement.measurements import measure_frames
from stacklib.normalization.preparation import prepare
from stacklib.simulate import simulate_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    simulate_frames(7, 40, 50, 3, "field", 2, dither=2).save(folder, "xisf", "u16")
    return folder


@pytest.fixture
def frames(folder):
    return sl.open_frames(folder)


def make(folder, stack, keywords=lambda i: ()):
    folder.mkdir()
    for i, image in enumerate(np.asarray(stack, np.float32)):
        fits.write_image(folder / f"{i}.fits", image, [("ROWORDER", "TOP-DOWN", ""), *keywords(i)])
    return sl.open_frames(folder)


def sky(sigmas, levels=None, seed=0, size=60):
    rng = np.random.default_rng(seed)
    levels = levels or [0.1] * len(sigmas)
    return [m + s * rng.standard_normal((size, size)) for m, s in zip(levels, sigmas, strict=True)]


def test_the_reference_is_left_as_it_is(frames):
    for mode in ("none", "additive", "multiplicative", "additive_scaling", "multiplicative_scaling"):
        p = prepare(frames, sl.Recipe(normalization=mode, reference=frames[2].name))
        assert p.reference == 2
        np.testing.assert_array_equal(p.factor[2], 1)
        np.testing.assert_array_equal(p.offset[2], 0)
        np.testing.assert_array_equal(p.scale[2], 1)


@pytest.mark.parametrize("mode", ["additive", "multiplicative", "additive_scaling"])
def test_normalised_frames_have_one_location(frames, mode):
    p = prepare(frames, sl.Recipe(normalization=mode))
    m = p.measurements.location
    np.testing.assert_allclose(m * p.factor + p.offset, np.tile(m[p.reference], (7, 1)), rtol=1e-12)


def test_the_best_frame_is_the_reference(tmp_path):
    frames = make(tmp_path / "a", sky([2e-3, 1e-3, 3e-3]), lambda i: [("NOISE00", [2e-3, 1e-3, 3e-3][i], "")])
    # Nothing is scaled, so the noise counts as it is.
    recipe = sl.Recipe(normalization="additive", rejection_normalization="equalize_fluxes", rejection="none")
    p = prepare(frames, recipe)
    assert p.reference == 1
    np.testing.assert_allclose(p.weights[:, 0], [0.25, 1, 1 / 9], rtol=1e-6)
    assert p.notes == ()
    np.testing.assert_allclose(p.normalised_noise(0), [2e-3, 1e-3, 3e-3])


def test_noise_weights_are_those_after_scaling(tmp_path):
    noise = [2e-3, 1e-3, 3e-3]
    frames = make(tmp_path / "a", sky(noise), lambda i: [("NOISE00", noise[i], "")])
    p = prepare(frames, sl.Recipe(rejection="none"))
    # Pure noise: scaling to one spread makes all frames equal.
    np.testing.assert_allclose(p.weights, 1, rtol=0.1)
    np.testing.assert_allclose(p.weights, (p.scale * np.array(noise)[:, None]).min() ** 2 / (
        p.scale * np.array(noise)[:, None]) ** 2)  # fmt: skip


def test_weights_are_for_the_average_only(frames):
    for combination in ("median", "minimum", "maximum"):
        p = prepare(frames, sl.Recipe(combination=combination, weights="noise"))
        assert p.measurements.noise_source == "not measured"
        np.testing.assert_array_equal(p.weights, 1)
        np.testing.assert_array_equal(p.settings(0).weights, 1)
        assert not any("NOISE" in note for note in p.notes)
        assert p.doubts_about_weights() == []
    assert prepare(frames, sl.Recipe()).measurements.noise_source == "measured"


def test_noise_keywords_that_cannot_be_used_are_not_called_missing(tmp_path):
    noise = [1e-3, 1.1e-3, 1.9e-3]
    adu = make(tmp_path / "a", 65535 * np.array(sky(noise)), lambda i: [("NOISE00", noise[i], "")])
    some = make(tmp_path / "b", sky(noise), lambda i: [("NOISE00", noise[i], "")] if i else [])
    for frames, why in ((adu, "the frames are in ADU"), (some, "2 of 3 frames have NOISE keywords")):
        p = prepare(frames, sl.Recipe(normalization="additive"))
        said = "\n".join(p.notes)
        assert p.measurements.noise_source == "measured"
        assert why in said


def test_a_chosen_reference_is_kept_whatever_its_weight(tmp_path):
    noise = [1e-3, 1.1e-3, 1.2e-3, 1.3e-3, 2e-2]
    frames = make(tmp_path / "a", sky(noise), lambda i: [("NOISE00", noise[i], "")])
    recipe = sl.Recipe(
        normalization="none", rejection_normalization="none", min_weight=0.5, reference="4", rejection="none"
    )
    p = prepare(frames, recipe)
    assert p.reference == 4
    assert 4 in p.used
    assert any("4.fits: kept despite its low weight" in note for note in p.notes)
    without = prepare(frames, recipe.replace(reference=""))
    assert without.used.tolist() == [0, 1, 2, 3]
    assert "below min_weight 0.5" in without.excluded[4]
    assert without.count == 4
    assert without.settings(0).frames == 4


@pytest.mark.filterwarnings("ignore:.*left out by min_weight")
def test_auto_counts_the_frames_that_are_given(tmp_path):
    # What is announced before the run holds, also when three frames turn out to weigh too little.
    noise = [1e-3] * 15 + [5e-2] * 3
    frames = make(tmp_path / "a", sky(noise, size=20), lambda i: [("NOISE00", noise[i], "")])
    recipe = sl.Recipe(normalization="none", rejection_normalization="none")
    result = sl.integrate(frames, recipe, progress=False)
    assert (result.preparation.count, result.rule) == (15, "winsorized_sigma")
    assert sl.integrate(frames[:15], recipe, progress=False).rule == "sigma"


def test_frames_of_two_nights_with_the_same_file_names(tmp_path):
    for night, level in (("n1", 0.0), ("n2", 1e-4)):
        make(tmp_path / night, sky([1e-3] * 3, [0.1 + level] * 3))
    frames = sl.open_frames([tmp_path / "n1", tmp_path / "n2"])
    name = frames.names[4]
    p = prepare(frames, sl.Recipe(weights="none", reference=name))
    assert p.reference == 4
    assert p.measurements.names == tuple(frames.names)
    table = tmp_path / "weights.csv"
    lines = [f"{file},{(i + 1) / 6}" for i, file in enumerate(frames.names)]
    table.write_text("file,weight\n" + "\n".join(lines) + "\n")
    p = prepare(frames, sl.Recipe(weights="csv", weight_file=str(table)))
    np.testing.assert_allclose(p.weights[:, 0], np.arange(1, 7) / 6)


def test_steps_of_integer_frames_set_the_smallest_scale(frames, tmp_path):
    p = prepare(frames, sl.Recipe(weights="none"))
    expected = (p.rejection_factor[:, 1] / 65535).max() / 2
    assert p.settings(1).floor == pytest.approx(expected, rel=0.02)
    assert p.full_scale == 65535
    floats = prepare(make(tmp_path / "a", sky([1e-3] * 3)), sl.Recipe(weights="none"))
    assert floats.settings(0).floor == 0
    assert floats.full_scale == 65535
    adu = prepare(make(tmp_path / "b", sky([20] * 3, [1000] * 3)), sl.Recipe(weights="none"))
    assert adu.full_scale == 1
    assert not adu.measurements.unit_range


def test_measurements_are_whole_frame_and_given_back(frames):
    p = prepare(frames, sl.Recipe(scale_estimator="mad"))
    m = measure_frames(frames, "mad", cache=False)
    for name in ("location", "scale_low", "scale_high", "noise"):
        np.testing.assert_array_equal(getattr(p.measurements, name), getattr(m, name))


@pytest.mark.parametrize("mode", ["multiplicative", "multiplicative_scaling"])
def test_no_division_by_a_sky_below_zero(tmp_path, mode):
    frames = make(tmp_path / "a", sky([1e-3] * 3, [0.1, -0.1, 0.1]))
    recipe = sl.Recipe(normalization=mode, range_clip_low=False, weights="none")
    with pytest.raises(IntegrationError, match=r"1\.fits"):
        prepare(frames, recipe)


def test_a_constant_reference_is_refused(tmp_path):
    stack = sky([1e-3] * 4)
    stack[1] = np.full((60, 60), 0.1)
    frames = make(tmp_path / "a", stack)
    with pytest.raises(IntegrationError, match=r"1\.fits holds no image \(all samples are 0\.1\)"):
        prepare(frames, sl.Recipe(weights="none", reference="1"))
    # It is left out otherwise.
    assert prepare(frames, sl.Recipe(weights="none")).used.tolist() == [0, 2, 3]
