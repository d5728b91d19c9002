"""Weights from the light and the noise of the frames: near the best possible, registered or not."""

from types import SimpleNamespace

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import IntegrationError, RecipeError
from stacklib.measurement.quality import measure_quality
from stacklib.measurement.stars import PsfLight, _winsorized, psf_light
from stacklib.normalization.preparation import prepare
from stacklib.normalization.weighting import frame_weights
from stacklib.simulate import simulate_night

pytest.importorskip("sep")
PHOTOMETRIC = dict(normalization="photometric", rejection_normalization="photometric", rejection="none")


def efficiency(weights, transparency, sigma):
    """SNR^2 of starlight in the weighted mean of frames scaled by 1 / T, relative to the best weights."""
    reached = weights.sum() ** 2 / np.sum((weights * sigma / transparency) ** 2)
    return reached / np.sum((transparency / sigma) ** 2)


@pytest.mark.parametrize(
    ("count", "kind", "registration", "seed"),
    [(6, "field", "bilinear", 9041), (10, "galaxy", "bicubic", 9042), (10, "nebula", "none", 9043),
     (20, "globular", "lanczos", 9044)],
)  # fmt: skip
def test_measured_weights_are_the_best(tmp_path, count, kind, registration, seed):
    night = simulate_night(
        count, 300, 400, 1, kind, seed, noise=(1, 2), registration=registration, cosmic_rays=6
    )
    night.save(tmp_path, "fits", "f32")
    p = prepare(sl.open_frames(tmp_path), sl.Recipe(**PHOTOMETRIC, weights="measured"))
    sigma = np.array(night.sky_sigma).reshape(count, -1)[:, 0]
    assert efficiency(p.weights[:, 0], np.array(night.transparency), sigma) > (
        0.99 if kind == "nebula" else 0.995
    )
    # Equal weights would lose.
    assert efficiency(np.ones(count), np.array(night.transparency), sigma) < 0.9
    assert not any("NOISE" in note for note in p.notes)
    assert p.reference == np.argmax(p.weights[:, 0])


def table(count=4):
    rng = np.random.default_rng(9045)
    names = ("transparency", "transparency_error", "stars", "sky", "noise", "pixel_noise", "fwhm")
    return {name: rng.uniform(0.5, 2, (count, 2)) for name in names}


def weights(kind, light, factors=None, **recipe):
    count = len(light["noise"])
    measured = SimpleNamespace(
        names=tuple(f"f{i}" for i in range(count)),
        location=np.full((count, 2), 0.1),
        scale_low=np.full((count, 2), 0.02),
        scale_high=np.full((count, 2), 0.04),
        noise_source="measured",
        notes=(),
    )
    frames = [SimpleNamespace(exposure=10.0 * (i + 1)) for i in range(count)]
    recipe = sl.Recipe(weights=kind, **recipe)
    return frame_weights(frames, measured, recipe, np.ones((count, 2)) if factors is None else factors, light)


def test_formulas_of_weights():
    light = table()
    t, noise, fwhm = light["transparency"], light["noise"], light["fwhm"]
    for kind, factors, raw in (
        ("measured", 1 / t, t**2 / noise**2),
        ("measured", np.ones_like(t), t / noise**2),
        ("information", 1 / t, (t / (noise * fwhm)) ** 2),
    ):
        np.testing.assert_allclose(weights(kind, light, factors), raw / raw.max(axis=0), rtol=1e-12)


def test_a_formula_of_ones_own():
    light = table()
    raw = light["transparency"] / light["noise"] * np.arange(1, 5)[:, None] * 10 * 0.03
    formula = "Transparency / noise * exposure * scale"
    found = weights("formula", light, weight_formula=formula)
    np.testing.assert_allclose(found, raw / raw.max(axis=0), rtol=1e-12)
    for wrong, said in (("fwmh", "fwhm"), ("noise +", "not valid"), ("__import__('os')", "not allowed")):
        with pytest.raises(RecipeError, match=f"weight_formula: .*{said}"):
            weights("formula", light, weight_formula=wrong)
    with pytest.raises(IntegrationError, match="weight_formula is empty"):
        weights("formula", light)
    with pytest.raises(IntegrationError, match="no usable weight for f"):
        weights("formula", light, weight_formula="1 - stars")


def test_a_frame_without_a_width_is_named():
    light = table()
    light["fwhm"][2, 1] = np.nan
    assert np.isfinite(weights("measured", light)).all()
    with pytest.raises(IntegrationError, match="weights information: no usable weight for f2"):
        weights("information", light)


def test_star_weights_by_their_definition():
    light = PsfLight(2.0, 0.5, 1e-3)
    assert light.signal_weight(1e-3) == pytest.approx(5.326e-6 * 2 * 0.5 / (9e6 * 1e-3 * 1e-3))
    assert light.snr(1e-3) == pytest.approx(1.316e-7 * 4 / (4.987e6 * 1e-6))


def test_light_of_stars_is_measured():
    rng = np.random.default_rng(9046)
    yy, xx = np.mgrid[:300, :300]
    sigma, total = 1.4, 0.0
    plane = 0.1 + 1e-4 * rng.standard_normal((300, 300))
    for k in range(36):
        y, x, flux = (
            25 + 50 * (k // 6) + rng.uniform(-5, 5),
            25 + 50 * (k % 6) + rng.uniform(-5, 5),
            rng.uniform(0.2, 1),
        )
        plane += flux / (2 * np.pi * sigma**2) * np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * sigma**2))
        total += flux
    found = psf_light(plane.astype(np.float32))
    # A circle up to a tenth of the maximum has nine tenths of a Gaussian.
    assert found.flux == pytest.approx(0.9 * total, rel=0.03)
    area = np.pi * (sigma * np.sqrt(2 * np.log(10))) ** 2
    assert found.mean_flux == pytest.approx(0.9 * total / area, rel=0.06)
    assert found.below == pytest.approx(0.6745e-4, rel=0.1)
    assert np.isnan(psf_light(np.full((50, 50), np.nan, np.float32)).flux)


def test_outliers_are_winsorized():
    values = np.r_[np.linspace(1, 2, 21), 50.0, -30.0]
    found = _winsorized(values)
    np.testing.assert_array_equal(found[:21], values[:21])
    assert found[21] == 2 and found[22] == 1
    np.testing.assert_array_equal(_winsorized(np.r_[np.ones(9), 7.0]), np.ones(10))


@pytest.mark.parametrize("kind", ["information", "psf_signal", "psf_snr"])
def test_weights_of_stars_prefer_clear_and_sharp_frames(tmp_path, kind):
    night = simulate_night(8, 240, 320, 1, "field", 9047, noise=(1,), fwhm=(2.6, 3.75))
    night.save(tmp_path, "fits", "f32")
    frames = sl.open_frames(tmp_path)
    p = prepare(frames, sl.Recipe(**PHOTOMETRIC, weights=kind))
    light, width = np.array(night.transparency), np.array(night.fwhm)
    expected = (light / width) ** 2 if kind == "information" else light**2
    assert np.corrcoef(np.log(p.weights[:, 0]), np.log(expected))[0, 1] > 0.9
    formula = "(transparency / (noise * fwhm)) ** 2" if kind == "information" else f"3 * {kind}"
    same = prepare(frames, sl.Recipe(**PHOTOMETRIC, weights="formula", weight_formula=formula))
    np.testing.assert_allclose(same.weights, p.weights, rtol=1e-9)


def test_a_formula_knows_how_round_stars_are(tmp_path):
    night = simulate_night(6, 300, 400, 1, "field", 9048, noise=(0.5,), transparency=(0.8, 1.0))
    night.save(tmp_path, "fits", "f32")
    frames = sl.open_frames(tmp_path)
    formula = "(1 - eccentricity) ** 2"
    p = prepare(frames, sl.Recipe(**PHOTOMETRIC, weights="formula", weight_formula=formula, min_weight=0.0))
    expected = (1 - measure_quality(frames)["eccentricity"]) ** 2
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(p.weights[:, 0], expected / expected.max(), rtol=1e-9)
