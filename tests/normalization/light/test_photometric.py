"""Frames matched by starlight, on simulated nights whose truth is known."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.errors import IntegrationError, StacklibWarning
from stacklib.frames.frame_set import open_frames
from stacklib.integration.samples import Samples
from stacklib.normalization.preparation import prepare
from stacklib.simulate import simulate_night

BY_LIGHT = {"normalization": "photometric", "rejection_normalization": "photometric"}
RECIPE = sl.Recipe(**BY_LIGHT, weights="none", rejection="none")
#: Clouds, a gradient that moves by 2 % of full scale, and seeing that changes.
WEATHER = {"transparency": (0.44, 1), "gradient": 0.02, "fwhm": (2.6, 3.75)}


def made(folder, count, kind, seed, registration="none", channels=1, **more):
    size = more.pop("size", (400, 500))
    night = simulate_night(count, *size, channels, kind, seed, registration=registration, **WEATHER | more)
    night.save(folder, "fits", "f32")
    with warnings.catch_warnings():
        # Exposures differ.
        warnings.simplefilter("ignore", StacklibWarning)
        return night, open_frames(folder)


def prepared(frames, recipe=RECIPE):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        return prepare(frames, recipe)


def true_light(night):
    return np.reshape(night.transparency, (len(night.transparency), -1))[:, 0]


def factor_errors(found, night):
    """Errors of the transparencies, apart from a factor that all have in common."""
    ratio = found.photometry.transparency / true_light(night)[:, None]
    return ratio / np.median(ratio, axis=0) - 1


@pytest.mark.parametrize(
    ("kind", "count", "registration", "most"),
    [
        ("field", 6, "lanczos", 0.015),
        ("galaxy", 8, "bilinear", 0.015),
        ("globular", 8, "none", 0.015),
        ("nebula", 10, "bicubic", 0.03),
    ],
)
def test_light_and_background_of_a_night(tmp_path, kind, count, registration, most):
    night, frames = made(tmp_path, count, kind, 71, registration)
    found = prepared(frames)
    p = found.photometry
    assert np.abs(factor_errors(found, night)).max() < most
    assert (p.source == "stars").all()
    # The claimed errors are true within a factor of two.
    assert factor_errors(found, night).std() < 2 * np.median(p.transparency_error / p.transparency)
    # What is left of the moving gradient, in each frame and in their mean.
    anchor = sum(
        weight * night.background(i)[0] / p.transparency[i, 0] for i, weight in enumerate(p.anchor[:, 0])
    )
    left = []
    for i in range(count):
        samples = p.surfaces.correct(i, 0, np.array(night.background(i)[0], np.float32)).astype(float)
        left.append(samples * p.factor[i, 0] + p.offset[i, 0] - anchor)
    assert max(np.ptp(each) for each in left) < 0.1 * 0.02 / p.transparency.min()
    assert np.ptp(np.mean(left, axis=0)) < 0.02 * 0.02
    assert p.anchor.sum() == pytest.approx(1)
    assert p.transparency[found.reference] == 1


def test_the_image_has_the_light_of_the_truth_whatever_the_reference(tmp_path):
    night, frames = made(tmp_path, 10, "galaxy", 72)
    images = []
    for name in (frames[0].name, frames[4].name, frames[9].name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StacklibWarning)
            result = sl.integrate(frames, RECIPE.replace(reference=name), progress=False)
        used = result.preparation.photometry
        images.append(result.original[0].astype(float))
    first, scale = images[0], [np.vdot(images[0], each) / np.vdot(images[0], images[0]) for each in images]
    for each, factor in zip(images, scale, strict=True):
        assert np.abs(each / factor - first).max() < 0.001 * np.ptp(first)
    # The light of the galaxy and the brightest stars, above the background of the anchor.
    anchor = sum(
        weight * night.background(i)[0] / used.transparency[i, 0]
        for i, weight in enumerate(used.anchor[:, 0])
    )
    truth = np.mean([night.light(i)[0] / true_light(night)[i] for i in range(10)], axis=0)
    # The unit is the light of the reference, whose own error is common to all pixels.
    truth *= np.median(true_light(night) / used.transparency[:, 0])
    covered = result.coverage[0] == 1
    above = images[-1] - anchor
    bright = covered & (truth > 0.01)
    assert above[bright].sum() == pytest.approx(truth[bright].sum(), rel=0.005)
    faint = covered & (truth > 0.001) & (truth < 0.01)
    assert above[faint].sum() == pytest.approx(truth[faint].sum(), rel=0.02)


def test_a_frame_twice_as_noisy_keeps_its_light(tmp_path):
    night, frames = made(tmp_path, 8, "field", 73, noise=(1, 1, 1, 1, 2, 2, 2, 2), transparency=(1, 1))
    found = prepared(frames)
    assert np.abs(found.factor / found.factor.mean() - 1).max() < 0.015
    truth = np.reshape(night.sky_sigma, (8, -1))[:, 0]
    np.testing.assert_allclose(found.photometry.noise[:, 0], truth, rtol=0.05)
    # Classic scaling follows the noise.
    classic = prepared(frames, sl.Recipe(weights="none"))
    assert classic.factor[4:].mean() / classic.factor[:4].mean() < 0.8


def test_exposures_are_matched_by_their_light(tmp_path):
    night, frames = made(tmp_path, 8, "field", 74, exposures=(300,) * 4 + (60,) * 4, transparency=(1, 1))
    found = prepared(frames)
    assert np.abs(factor_errors(found, night)).max() < 0.03
    assert found.factor.max() / found.factor.min() == pytest.approx(5, rel=0.03)
    # The report says what each group is worth.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        report = sl.integrate(frames, RECIPE.replace(weights="measured"), progress=False).report()
    light = re.findall(
        r"^  (\d+) s, .*: 4 frames, ([\d.]+) of the light .*, (\d+) % of the weight", report, re.M
    )
    assert [seconds for seconds, *_ in light] == ["300", "60"]
    assert float(light[0][1]) / float(light[1][1]) == pytest.approx(5, rel=0.03)
    assert int(light[0][2]) > 80 and int(light[0][2]) + int(light[1][2]) == 100


def test_frames_are_corrected_wherever_they_are_read(tmp_path):
    _, frames = made(tmp_path, 5, "field", 75, size=(160, 200))
    found = prepared(frames)
    whole = Samples(frames).values(found.marks)
    for i in range(5):
        np.testing.assert_array_equal(
            np.nan_to_num(found.read_rows(i, 30, 60, 0)),
            np.nan_to_num(whole[0, i, 30:60], nan=np.finfo(np.float32).min),
        )
    how = dict(progress=False)
    recipe = sl.Recipe(**BY_LIGHT, rejection="sigma", allow_unregistered=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        image = sl.integrate(frames, recipe, **how).image
        part = sl.integrate(frames, recipe, region=(40, 30, 90, 80), **how)
        banded = sl.integrate(frames, recipe, memory="17MB", threads=1, **how).image
    np.testing.assert_array_equal(banded, image)
    np.testing.assert_array_equal(part.image, image[:, 30:110, 40:130])
    story = sl.explain(part, x=100, y=80)
    assert story.value == pytest.approx(float(image[0, 80, 100]), rel=1e-5)
    held = Samples(frames).with_values(whole)
    # Values that are corrected already are not corrected again.
    assert held.marked(found.marks).marks is None


def test_order_and_threads_do_not_matter(tmp_path):
    _, frames = made(tmp_path, 6, "field", 76, size=(160, 200))
    paths = [frame.path for frame in frames]
    one, other = (
        prepare(open_frames(paths), RECIPE, threads=1),
        prepare(open_frames(paths[::-1]), RECIPE, threads=3),
    )
    assert one.measurements.names[one.reference] == other.measurements.names[other.reference]
    np.testing.assert_allclose(one.factor, other.factor[::-1], rtol=1e-12)
    np.testing.assert_allclose(
        one.photometry.surfaces.offset, other.photometry.surfaces.offset[::-1], atol=1e-9
    )


def noise_frames(folder, count=5, light=None, shape=(120, 160)):
    rng = np.random.default_rng(9)
    for i in range(count):
        plane = rng.normal(0.1 + 0.001 * i, 0.002, shape)
        if light is not None and i != 2:
            plane += light
        fits.writeto(folder / f"f{i}.fits", plane.astype(np.float32))
    return open_frames(folder)


def test_without_any_light_all_are_taken_as_equal_and_it_is_said(tmp_path):
    found = prepared(noise_frames(tmp_path))
    assert (found.photometry.source == "none").all()
    np.testing.assert_array_equal(found.factor, 1)
    assert any("no stars and no other structure" in note for note in found.notes)
    # Levels are matched all the same.
    assert found.offset.ravel() - found.offset[0] == pytest.approx(-0.001 * np.arange(5), abs=2e-4)


def stars(shape=(120, 160), count=25):
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros(shape)
    for _ in range(count):
        cx, cy = rng.uniform(12, shape[1] - 12), rng.uniform(12, shape[0] - 12)
        out += rng.uniform(0.05, 0.4) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 1.4**2))
    return out


def test_a_frame_behind_clouds_is_left_out_with_the_reason(tmp_path):
    frames = noise_frames(tmp_path, light=stars())
    found = prepared(frames)
    assert 2 in found.excluded and "light" in found.excluded[2]
    assert any("f2.fits" in note for note in found.notes)
    with pytest.raises(IntegrationError, match=r"reference: f2\.fits"):
        prepared(frames, RECIPE.replace(reference="f2.fits"))


def test_structure_takes_the_place_of_stars(tmp_path):
    y, x = np.mgrid[:240, :320]
    rng = np.random.default_rng(3)
    light = 0.1 * np.exp(-((x - 150) ** 2 + (y - 120) ** 2) / (2 * 12.0**2))
    light += 0.08 * np.exp(-(((x - 80) / 7.0) ** 2 + ((y - 70) / 14.0) ** 2) / 2)
    truth = np.array([1, 0.9, 0.8, 0.7, 0.6])
    for i, t in enumerate(truth):
        fits.writeto(tmp_path / f"f{i}.fits", rng.normal(0.1 + t * light, 0.002).astype(np.float32))
    found = prepared(open_frames(tmp_path))
    p = found.photometry
    assert (p.source == "structure").all()
    ratio = p.transparency[:, 0] / truth
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.03
    assert any("too few stars" in note for note in found.notes)


def test_colors_of_a_mosaic_have_surfaces_of_their_own(tmp_path):
    rng, light = np.random.default_rng(6), stars((240, 320), 60)
    color = np.ones((240, 320))
    color[1::2, ::2], color[::2, 1::2] = 0.5, 0.7
    truth = np.array([1, 0.8, 0.6, 0.9, 0.7])
    slope = np.linspace(-0.01, 0.01, 320)
    for i, t in enumerate(truth):
        # The red pixels see a gradient that the others do not.
        sky = 0.1 * color + np.where(color == 0.5, i * slope, 0)
        header = fits.Header({"BAYERPAT": "GRBG"})
        plane = rng.normal(sky + t * light * color, 0.001).astype(np.float32)
        fits.writeto(tmp_path / f"f{i}.fits", plane, header)
    with pytest.warns(StacklibWarning, match="Bayer pattern"):
        frames = open_frames(tmp_path)
    found = prepared(frames)
    p = found.photometry
    assert p.surfaces.offset.shape[2:4] == (2, 2)
    ratio = p.transparency[:, 0] / truth
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.01
    corrected = [found.read_rows(i, 0, 240, 0)[1::2, ::2] * p.factor[i, 0] + p.offset[i, 0] for i in range(5)]
    columns = np.array([np.median(each, axis=0) for each in corrected])
    assert np.abs((columns - columns[0])[:, [5, -5]]).max() < 0.001


def test_channels_share_their_anchor(tmp_path):
    _, frames = made(tmp_path, 12, "field", 77, channels=3, size=(160, 200))
    p = prepared(frames).photometry
    np.testing.assert_array_equal(p.anchor, np.repeat(p.anchor[:, :1], 3, axis=1))
    assert np.count_nonzero(p.anchor[:, 0]) == 3


def test_local_follows_a_cloud_over_part_of_the_field(tmp_path):
    light, rng = stars((300, 400), 150), np.random.default_rng(8)
    veil = 1 - 0.3 * np.linspace(0, 1, 400)
    for i in range(6):
        plane = 0.1 + light * (veil if i == 3 else 1)
        fits.writeto(tmp_path / f"f{i}.fits", rng.normal(plane, 0.001).astype(np.float32))
    frames = open_frames(tmp_path)
    errors = {}
    for mode in ("photometric", "local"):
        recipe = RECIPE.replace(normalization=mode, rejection_normalization=mode)
        found = prepared(frames, recipe)
        values = [
            found.read_rows(i, 0, 300, 0) * found.factor[i, 0] + found.offset[i, 0] - 0.1 for i in (3, 0)
        ]
        sides = [np.s_[:, :120], np.s_[:, 280:]]
        errors[mode] = [abs(values[0][s].sum() / values[1][s].sum() - 1) for s in sides]
    assert min(errors["photometric"]) > 0.05
    assert max(errors["local"]) < 0.02


def test_classic_recipes_measure_no_light(tmp_path):
    _, frames = made(tmp_path, 5, "field", 78, size=(120, 160))
    found = prepared(frames, sl.Recipe())
    assert found.photometry is None and found.surfaces is None
    # What was found is kept with the measurements.
    measured = prepared(frames).measurements
    again = prepare(frames, RECIPE, measurements=replace(measured))
    assert again.photometry.surfaces is measured.photometry[False].surfaces


@pytest.mark.parametrize("holes", ["scattered", "columns", "in all frames"])
def test_pixels_without_data_cost_no_frame(tmp_path, holes):
    night = simulate_night(6, 240, 320, 1, "field", 9101, transparency=(0.6, 1))
    rng = np.random.default_rng(1)
    for i in range(6):
        frame = np.array(night.frame(i), np.float32).reshape(240, 320)
        if holes == "columns" and i == 2:
            frame[:, ::8] = np.nan
        elif holes == "in all frames" or (holes == "scattered" and i == 2):
            frame[rng.random(frame.shape) < 0.02] = np.nan
        fits.PrimaryHDU(frame).writeto(tmp_path / f"f{i}.fits")
    p = prepare(sl.open_frames(tmp_path), sl.Recipe.from_dict({"preset": "measured"}))
    assert p.excluded == {}
    assert (p.photometry.source == "stars").all()
    found = p.photometry.transparency[:, 0] / np.array(night.transparency).reshape(6, -1)[:, 0]
    np.testing.assert_allclose(found / np.median(found), 1, atol=0.06)
