"""The noise that a run tells is that of its image, in small and large apertures."""

import contextlib
import pickle

import numpy as np
import pytest

import stacklib as sl
from stacklib.measurement.scale_noise import APERTURES, aperture_noise, scale_noise
from stacklib.simulate import simulate_night

pytest.importorskip("sep")
MEASURED = dict(normalization="photometric", rejection_normalization="photometric", weights="measured")
NIGHTS = [
    ("field", 6, "bilinear", "none", 8101),
    ("field", 10, "none", "winsorized_sigma", 8102),
    ("galaxy", 12, "bicubic", "sigma", 8103),
    ("globular", 12, "lanczos", "winsorized_sigma", 8104),
]


def integrated(folder, kind, count, registration, rule, seed):
    """Return the result of a night, and how it differs from what it would be without noise."""
    how = dict(noise=(1, 2), registration=registration, fwhm=(3, 3), cosmic_rays=6)
    night = simulate_night(count, 448, 448, 1, kind, seed, **how)
    night.save(folder, "fits", "f32")
    result = sl.integrate(sl.open_frames(folder), sl.Recipe(**MEASURED, rejection=rule), progress=False)
    p = result.preparation
    light = np.zeros(result.image.shape[1:])
    for i in p.used:
        clean = p.marks.mark(i, 0, night.expected(i)[0].astype(np.float32), 0, 0).astype(float)
        light += p.weights[i, 0] * (clean * p.factor[i, 0] + p.offset[i, 0])
    light /= p.weights[p.used, 0].sum()
    return result, np.where(result.coverage[0] == 1, result.original[0] - light, np.nan).astype(np.float32)


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    return [integrated(tmp_path_factory.mktemp("night"), *night) for night in NIGHTS]


def test_noise_in_apertures_is_that_of_the_image(nights):
    told = np.array([result.scale_noise.apertures[:, 0] for result, _ in nights])
    true = np.array([aperture_noise(error) for _, error in nights])
    ratio = told / true
    # 784 apertures of 16 pixels give no more than 2.5 % each, for both numbers.
    assert np.abs(ratio[:, :4] - 1).max() < 0.05
    assert np.abs(ratio[:, 4] - 1).max() < 0.1
    np.testing.assert_allclose(np.exp(np.log(ratio).mean(axis=0)), 1, atol=0.03)


def test_noise_at_the_scale_that_matters_is_that_of_the_image_and_as_expected(nights):
    ratio = np.array([result.scale_noise.scale[0] / scale_noise(error) for result, error in nights])
    assert np.abs(ratio - 1).max() < 0.05
    assert abs(np.log(ratio).mean()) < 0.03
    for result, _ in nights:
        assert result.noise_ratio / result.allowed_noise_ratio == pytest.approx(1, abs=0.1)
        assert result.allowed_noise_ratio / result.expected_noise_factor == pytest.approx(
            result.best_noise_ratio, rel=1e-3
        )


def test_interpolated_noise_is_more_than_single_pixels_tell(nights):
    white = {}
    for (kind, _, registration, *_), (result, _) in zip(NIGHTS, nights, strict=True):
        noise = result.scale_noise.apertures[:, 0]
        white[kind, registration] = noise[3] * APERTURES[3] / noise[0]
    assert white["field", "bilinear"] > 1.1
    assert white["field", "none"] == pytest.approx(1, abs=0.06)
    text = nights[0][0].report()
    assert "Noise for equal starlight" in text and "with the best weights" in text
    assert "Neighboring pixels share their noise" in text
    assert "Neighboring pixels" not in nights[1][0].report()


def test_stars_made_fainter_are_no_gain(tmp_path):
    night = simulate_night(8, 320, 400, 1, "field", 8106, noise=(1, 2), transparency=(0.7, 1))
    night.save(tmp_path, "fits", "f32")
    frames = sl.open_frames(tmp_path)
    good = sl.integrate(frames, sl.Recipe(**MEASURED, rejection="none"), progress=False)
    with pytest.warns(sl.StacklibWarning):
        shrunk = sl.integrate(frames, sl.Recipe(weights="measured", rejection="none"), progress=False)
    assert good.signal_ratio == pytest.approx(1, abs=1e-6)
    # Scaling by spread shrinks noisy frames: less noise, and less light.
    assert shrunk.signal_ratio != pytest.approx(1, abs=0.02)
    assert shrunk.noise_per_light == pytest.approx(shrunk.scale_noise.scale / shrunk.signal_ratio)
    assert shrunk.noise_ratio * good.reference_noise > 0.98 * good.noise_ratio * good.reference_noise


def test_it_is_the_same_whether_frames_are_in_memory_or_not(tmp_path):
    night = simulate_night(6, 120, 160, 3, "field", 8107)
    night.save(tmp_path, "fits", "f32")
    recipe = sl.Recipe(rejection="winsorized_sigma", weights="none", normalization="additive")
    results = []
    for memory in ("1GB", "1MB"):
        with pytest.warns(sl.StacklibWarning) if memory == "1MB" else contextlib.nullcontext():
            results.append(sl.integrate(tmp_path, recipe, memory=memory, progress=False))
    told = [pickle.loads(pickle.dumps(result)).scale_noise for result in results]
    np.testing.assert_array_equal(told[0].apertures, told[1].apertures)
    np.testing.assert_array_equal(told[0].scale, told[1].scale)
    assert told[0].apertures.shape == (5, 3)
    for path in tmp_path.glob("*.fits"):
        path.unlink()
    assert results[1].scale_noise is None
    assert "Noise in apertures: not measured, " in results[1].report()


def test_other_combinations_have_none(tmp_path):
    simulate_night(6, 96, 128, 1, "field", 8108).save(tmp_path, "fits", "f32")
    recipe = sl.Recipe(combination="median", rejection="none", normalization="additive")
    assert sl.integrate(tmp_path, recipe, progress=False).scale_noise is None
