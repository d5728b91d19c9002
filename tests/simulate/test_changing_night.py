"""Nights whose weather changes: the frames are what the truth says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from stacklib.simulate import Trail, simulate_night
from stacklib.simulate.registration import METHODS, resample, taps

#: A small night with everything.
SMALL = {
    "count": 6,
    "height": 120,
    "width": 160,
    "seed": 21,
    "cosmic_rays": 4,
    "hot_pixels": 10,
    "trails": 1,
    "hits": 20,
}


@pytest.mark.parametrize("registration", METHODS)
@pytest.mark.parametrize("kind", ["field", "spiral", "nebula"])
def test_frames_scatter_about_their_expectation(registration, kind):
    night = simulate_night(**SMALL, kind=kind, registration=registration)
    for index in range(night.count):
        expected = night.expected(index)
        fair = ~night.nodata[index] & ~night.outliers[index] & (expected < 0.5)
        z = ((night.frames[index] - expected) / night.sigma(index))[fair]
        # White noise before registration, smoothed by it.
        assert z.std() == pytest.approx(night.smoothing(index), rel=0.03)
        assert abs(z.mean()) < 0.03


def test_any_frame_can_be_made_alone():
    night = simulate_night(**SMALL, registration="bicubic")
    np.testing.assert_array_equal(simulate_night(**SMALL, registration="bicubic").frame(4), night.frames[4])
    other = simulate_night(**{**SMALL, "seed": 22}, registration="bicubic")
    assert not np.array_equal(other.frame(4), night.frame(4))


def test_weather_reaches_both_ends_and_the_reference_is_one():
    night = simulate_night(20, 60, 80, transparency=(0.44, 1.0), fwhm=(2.6, 3.75), seed=3)
    assert night.transparency[night.reference] == 1
    assert night.transparency.min() / night.transparency.max() == pytest.approx(0.44)
    assert (night.fwhm.min(), night.fwhm.max()) == pytest.approx((2.6, 3.75))
    clouds = np.argsort(night.transparency)
    assert night.sky[clouds[:5]].mean() > night.sky[clouds[-5:]].mean()
    given = simulate_night(3, 60, 80, transparency=(0.5, 0.8, 1.0), fwhm=(3.0, 3.1, 3.2))
    assert given.transparency.tolist() == [0.5, 0.8, 1.0]


def test_gradient_moves_and_has_its_size():
    night = simulate_night(12, 150, 200, channels=3, sky=(0.06, 0.05, 0.04), gradient=0.02, seed=4)
    backgrounds = np.stack([night.background(i) for i in range(night.count)])
    np.testing.assert_allclose(backgrounds.mean(axis=(2, 3)), night.sky, rtol=1e-9)
    green = backgrounds[:, 1] - night.sky[:, 1, None, None]
    spans = np.ptp(green, axis=(1, 2))
    assert spans.max() == pytest.approx(0.02, rel=0.02)
    assert spans[0] < 0.5 * spans[-1]
    alike = np.corrcoef(green[0].ravel(), green[-1].ravel())[0, 1]
    assert alike < 0
    np.testing.assert_array_equal(night.background(5, slice(40, 60)), backgrounds[5, :, 40:60])


def test_exposure_and_gain_scale_light_sky_and_noise():
    night = simulate_night(
        4, 60, 80, exposures=(300, 30), gains=(1, 1, 2, 2), transparency=(1, 1, 1, 1), sky_drift=0, seed=5
    )
    scale = np.array([1, 0.1, 2, 0.2])
    np.testing.assert_allclose(night.transparency / night.transparency[2], scale / 2)
    np.testing.assert_allclose(night.sky[:, 0], 0.05 * scale / 2)
    electrons = night.sky[:, 0] * 16000 / night.gain
    np.testing.assert_allclose(night.sky_sigma[:, 0], np.sqrt(electrons + 4) / 16000 * night.gain)
    assert [night.headers[i]["EXPTIME"][0] for i in range(4)] == [300, 30, 300, 30]
    assert [night.headers[i]["GAIN"][0] for i in range(4)] == [1, 1, 2, 2]
    noisy = simulate_night(4, 60, 80, noise=(1, 2), transparency=(1, 1, 1, 1), sky_drift=0, seed=5)
    np.testing.assert_allclose(noisy.sky_sigma[1], 2 * noisy.sky_sigma[0])


@pytest.mark.parametrize("registration", ["bilinear", "bicubic", "lanczos"])
def test_registration_puts_stars_back_and_keeps_their_light(registration):
    night = simulate_night(4, 200, 260, kind="field", seed=6, registration=registration)
    assert np.abs(night.shifts % 1).max() > 0.1
    star = night.isolated_stars(1)[0]
    alone = {"x": night.scene.x[[star]], "y": night.scene.y[[star]], "flux": night.scene.flux[:, [star]]}
    night = replace(night, scene=replace(night.scene, extended=0 * night.scene.extended, **alone))
    yy, xx = np.mgrid[:200, :260]
    for index in range(4):
        light = night.light(index)[0] / night.transparency[index]
        assert light.sum() == pytest.approx(alone["flux"][0, 0], rel=0.01)
        assert (light * xx).sum() / light.sum() == pytest.approx(alone["x"][0], abs=0.02)
        assert (light * yy).sum() / light.sum() == pytest.approx(alone["y"][0], abs=0.02)


def test_galaxy_lies_on_its_place_in_every_frame():
    night = simulate_night(3, 120, 160, seed=7, registration="lanczos", fwhm=(3, 3, 3), dither=5)
    inner = (0, slice(5, -5), slice(5, -5))
    plain = night.scene.seen(3.0)[inner]
    for index in range(3):
        light = night.light(index)[inner] / night.transparency[index]
        assert np.median(np.abs(light - plain)) < 2e-5
        # A pixel beside its place it would be off by far more.
        assert np.median(np.abs(np.roll(light, 1, axis=1) - plain)) > 6e-5


@pytest.mark.parametrize("method", METHODS)
def test_interpolation_keeps_constants_and_moves_slopes(method):
    assert taps(method, 0.3).sum() == pytest.approx(1)
    np.testing.assert_array_equal(np.flatnonzero(np.abs(taps(method, 0.0)) > 1e-12), [METHODS[method]])
    slope = np.broadcast_to(np.arange(40.0), (1, 20, 40))
    moved = resample(slope, method, 0.0, 0.3)[:, :, 5:-5]
    expected = slope[:, :, 5:-5] - (0 if method == "none" else 0.3)
    # Lanczos does not reproduce a slope exactly.
    np.testing.assert_allclose(moved, expected, atol=0.03 if method == "lanczos" else 1e-9)


def test_hits_have_their_height_and_number():
    night = simulate_night(8, 90, 120, kind="field", seed=8, hits=60, hits_in=2, hit_sigma=6.0)
    assert night.hit_frames.shape == (60, 2)
    assert len({tuple(pixel) for pixel in night.hit_pixels}) == 60
    for index in range(8):
        rows, columns = night.hit_pixels[(night.hit_frames == index).any(axis=1)].T
        heights = (night.defects(index) / night.sigma(index))[0, rows, columns]
        np.testing.assert_allclose(heights, 6, rtol=0.01)
        assert night.outliers[index].sum() == rows.size
        assert not night.nodata[index][0, rows, columns].any()


def test_trail_crosses_its_frame_only():
    trail = Trail(2, (-10.0, 50.0), (200.0, 50.0), peak=10.0)
    night = simulate_night(4, 100, 160, kind="field", seed=9, trails=[trail], dither=0)
    assert [bool(night.outliers[i].any()) for i in range(4)] == [False, False, True, False]
    assert night.outliers[2, 0, 50].all()


def test_values_of_a_camera_are_rounded_before_registration():
    raw = simulate_night(2, 50, 60, bits=10, seed=2)
    steps = raw.frames[~raw.nodata].astype(float) * 1023
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    moved = simulate_night(2, 50, 60, bits=10, seed=2, registration="bicubic").frame(1)
    assert np.unique(moved).size > 1000


def test_mosaic_records_one_filter_at_each_pixel():
    night = simulate_night(3, 60, 80, 3, sky=(0.06, 0.04, 0.02), seed=3, mosaic=True, gradient=0)
    colour = simulate_night(3, 60, 80, 3, sky=(0.06, 0.04, 0.02), seed=3, gradient=0)
    assert night.shape == (1, 60, 80)
    assert (night.shifts % 2 == 0).all()
    seen = colour.scene.seen(colour.fwhm[0]) * colour.transparency[0] + colour.sky[0][:, None, None]
    expected = night.expected(0)[0]
    for channel, row, column in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        np.testing.assert_allclose(expected[row::2, column::2], seen[channel, row::2, column::2])
    assert night.headers[0]["BAYERPAT"][0] == "RGGB"


def test_isolated_stars_are_isolated_and_not_saturated():
    night = simulate_night(5, 300, 400, kind="field", seed=10)
    stars = night.isolated_stars(50, radius=12.0)
    assert 20 <= stars.size <= 50
    sharpest = int(np.argmin(night.fwhm))
    image = night.expected(sharpest)[0]
    for star in stars:
        x, y = night.scene.x[star], night.scene.y[star]
        assert image[round(y), round(x)] < 0.7
        near = np.hypot(night.scene.x - x, night.scene.y - y) < 12
        flux = night.scene.flux[0]
        assert flux[near].sum() < 1.2 * flux[star]


@pytest.mark.parametrize(("format", "dtype"), [("xisf", "u16"), ("fits", "f32")])
def test_files_hold_the_frames(tmp_path, format, dtype):
    night = simulate_night(3, 40, 50, seed=1)
    paths = night.save(tmp_path, format, dtype)
    assert [path.name for path in paths] == [f"Simulated_Light_{n:04d}_c_d_r.{format}" for n in (1, 2, 3)]
    if format == "fits":
        np.testing.assert_array_equal(fits.getdata(paths[1]), night.frame(1)[0])
        assert fits.getheader(paths[1])["EXPTIME"] == 180


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="registration: got 'cubic'"):
        simulate_night(2, 30, 40, registration="cubic")
    with pytest.raises(ValueError, match="at least 2"):
        simulate_night(2, 30, 40, fwhm=(1.5, 3.0))
    with pytest.raises(ValueError, match="mosaic"):
        simulate_night(2, 30, 40, mosaic=True)
    with pytest.raises(ValueError, match="got 4 values, expected 2"):
        simulate_night(3, 30, 40, transparency=(1, 1, 1, 1))
