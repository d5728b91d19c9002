"""Simulated frames: truth, noise and masks are measured."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from xisf import XISF

from stacklib.simulate import (
    Trail,
    make_benchmark_frames,
    make_scene,
    sample_m13,
    sample_m63,
    sample_m101,
    simulate_frames,
)
from stacklib.simulate.__main__ import main
from stacklib.simulate.night import quantised

SAMPLES = Path(__file__).parents[2] / "sample_data"
#: A small night with every kind of defect.
SMALL = {"count": 8, "height": 80, "width": 100, "seed": 5, "dither": 4, "hot_pixels": 12, "cosmic_rays": 6}
#: Above this value samples may be clipped at full scale, which makes the noise one-sided.
UNSATURATED = 0.9


def checksum(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def read(path: Path) -> np.ndarray:
    """Read the stored samples, shape (channels, height, width), with other software."""
    if path.suffix == ".fits":
        return np.atleast_3d(fits.getdata(path)[np.newaxis])
    return np.moveaxis(XISF(str(path)).read_image(0), -1, 0)


@pytest.fixture(scope="module")
def night():
    return simulate_frames(**SMALL)


@pytest.fixture(scope="module")
def m101():
    return sample_m101()


# --- determinism --------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_pixels(night):
    again = simulate_frames(**SMALL)
    for name in ("frames", "truth", "defects", "outliers", "nodata"):
        assert checksum(getattr(again, name)) == checksum(getattr(night, name))
    assert again.headers == night.headers


def test_other_seed_gives_other_pixels(night):
    other = simulate_frames(**{**SMALL, "seed": 6})
    assert not np.array_equal(other.frames, night.frames)
    assert not np.array_equal(other.truth, night.truth)


def test_noise_is_the_same_without_defects(night):
    spared = simulate_frames(**{**SMALL, "cosmic_rays": 0, "hot_pixels": 0}, trails=())
    untouched = ~night.outliers & ~night.nodata & (np.abs(night.defects) == 0)
    untouched &= ~spared.nodata
    # The cloudy frame is drawn from the stream of the defects, before them, so it is also the same.
    assert spared.cloudy == night.cloudy
    np.testing.assert_array_equal(spared.frames[untouched], night.frames[untouched])


# --- shapes and ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["galaxy", "globular", "field"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(kind, channels):
    simulation = simulate_frames(3, 60, 90, channels, kind, seed=2, dither=3)
    assert simulation.frames.shape == simulation.outliers.shape == (3, channels, 60, 90)
    assert simulation.truth.shape == (channels, 60, 90)
    assert simulation.frames.dtype == simulation.truth.dtype == np.float32
    assert simulation.frames.min() >= 0
    assert simulation.frames.max() <= 1
    assert simulation.sky.shape == (3, channels)
    assert len(simulation.headers) == 3


def test_one_frame_is_a_night_too():
    assert simulate_frames(1, 20, 30, 1, clean=True).frames.shape == (1, 1, 20, 30)


def test_what_is_unknown_is_refused(night, tmp_path):
    with pytest.raises(ValueError, match="kind: got 'comet'"):
        make_scene("comet")
    with pytest.raises(ValueError, match="channels: got 2"):
        make_scene(channels=2)
    with pytest.raises(ValueError, match="psf: got 'airy'"):
        simulate_frames(1, 20, 30, psf="airy")
    with pytest.raises(ValueError, match="'png'"):
        night.save(tmp_path, format="png")
    with pytest.raises(ValueError, match="dtype: got 'u8'"):
        make_benchmark_frames(tmp_path, dtype="u8")


@pytest.mark.parametrize("psf", ["moffat", "gaussian"])
def test_stars_have_their_width_and_their_light(psf):
    scene = make_scene("field", 200, 200, 1, seed=4, psf=psf)
    star = type(scene)(np.zeros((1, 101, 101)), np.array([50.0]), np.array([50.0]), np.array([[2.0]]), psf)
    image = star.render(fwhm=6.0)[0]
    assert image.sum() == pytest.approx(2.0, rel=0.01)
    # A star with a FWHM of 6 pixels has half of its peak 3 pixels from its center.
    assert image[50, 53] == pytest.approx(image[50, 50] / 2, rel=1e-4)
    assert image[53, 50] == pytest.approx(image[50, 53], rel=1e-9)


# --- truth and noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["galaxy", "globular"])
def test_mean_of_clean_frames_is_the_truth(kind):
    count = 60
    simulation = simulate_frames(count, 120, 150, 3, kind, seed=9, clean=True)
    assert not simulation.outliers.any()
    assert not simulation.nodata.any()
    error = simulation.sigma(simulation.reference) / np.sqrt(count)
    z = (simulation.frames.mean(axis=0, dtype=float) - simulation.truth) / error
    z = z[simulation.truth < UNSATURATED]
    assert z.std() == pytest.approx(1.0, abs=0.015)
    assert z.mean() == pytest.approx(0.0, abs=0.02)


def test_clean_frames_scatter_as_the_noise_model_says():
    simulation = simulate_frames(200, 60, 80, 1, "galaxy", seed=10, clean=True)
    measured = simulation.frames.var(axis=0, ddof=1, dtype=float)
    ratio = np.sqrt((measured / simulation.sigma(0) ** 2)[simulation.truth < UNSATURATED].mean())
    assert ratio == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize(("sky", "full_well", "read_noise"), [(0.05, 16000, 2), (0.01, 50000, 12)])
def test_noise_of_empty_sky(sky, full_well, read_noise):
    simulation = simulate_frames(
        4, 150, 200, 1, "field", seed=3, sky=sky, full_well=full_well, read_noise=read_noise, clean=True
    )
    empty = simulation.truth[0] < sky * 1.001
    assert empty.mean() > 0.3
    expected = np.sqrt(sky * full_well + read_noise**2) / full_well
    assert (simulation.frames[:, 0] - simulation.truth[0])[:, empty].std() == pytest.approx(
        expected, rel=0.02
    )


def test_noise_is_white():
    simulation = simulate_frames(4, 150, 200, 1, "field", seed=3, clean=True)
    noise = (simulation.frames[:, 0] - simulation.truth[0]) / simulation.sigma(0)[0]
    assert abs((noise[:, :, 1:] * noise[:, :, :-1]).mean()) < 0.01
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.01
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01


def test_every_frame_follows_its_own_expectation(m101):
    for index in range(len(m101.frames)):
        expected = m101.expected(index)
        fair = ~m101.outliers[index] & ~m101.nodata[index] & (expected < UNSATURATED)
        z = ((m101.frames[index] - expected) / m101.sigma(index))[fair]
        assert z.std() == pytest.approx(1.0, abs=0.01), index
        assert z.mean() == pytest.approx(0.0, abs=0.02), index


def test_truth_is_the_expectation_of_the_reference(m101):
    assert m101.transparency[m101.reference] == 1.0
    assert not m101.nodata[m101.reference].any()
    assert m101.reference not in m101.cloudy
    np.testing.assert_array_equal(m101.truth, m101.expected(m101.reference).astype(np.float32))


def test_sky_rises_and_light_falls_through_the_night(m101):
    clear = [index for index in range(20) if index not in m101.cloudy]
    sky, transparency = m101.sky[clear, 0], m101.transparency[clear]
    assert sky[-3:].mean() > 1.15 * sky[:3].mean()
    assert transparency[-3:].mean() < 0.95 * transparency[:3].mean()
    cloudy = m101.cloudy[0]
    assert m101.transparency[cloudy] < 0.6 * transparency.min()
    assert m101.sky[cloudy, 0] > 1.4 * sky.max()


# --- masks --------------------------------------------------------------------------------------------------


def test_borders_without_data_are_zero_and_nothing_else_is(night):
    np.testing.assert_array_equal(night.frames == 0, night.nodata)
    assert not (night.outliers & night.nodata).any()
    assert (night.defects[night.nodata] == 0).all()
    assert quantised(night.frames)[~night.nodata].min() >= 1
    assert np.abs(night.shifts).max() <= 4
    for (down, right), mask in zip(night.shifts, night.nodata, strict=True):
        rows, columns = np.flatnonzero(mask[0].all(axis=1)), np.flatnonzero(mask[0].all(axis=0))
        assert rows.tolist() == list(range(down)) + list(range(80 + min(down, 0), 80))
        assert columns.tolist() == list(range(right)) + list(range(100 + min(right, 0), 100))
        assert mask[0].sum() == 80 * 100 - (80 - abs(down)) * (100 - abs(right))


def test_outliers_mark_what_was_added(night):
    for index in range(len(night.frames)):
        added = np.abs(night.defects[index]) / night.sigma(index)
        np.testing.assert_array_equal(night.outliers[index], added > 0.5)
    assert all(mask.any() for mask in night.outliers)


def test_strong_outliers_stand_out_in_the_frames(night):
    for index in range(len(night.frames)):
        z = (night.frames[index] - night.expected(index)) / night.sigma(index)
        strong = night.defects[index] > 8 * night.sigma(index)
        assert (z[strong & (night.frames[index] < 1)] > 3).all()
        assert np.abs(z[~night.outliers[index] & ~night.nodata[index]]).max() < 6


def test_hot_pixels_walk_with_the_dither():
    simulation = simulate_frames(
        6, 60, 80, 1, seed=7, cosmic_rays=0, trails=0, cloudy=0, hot_pixels=15, dither=5, sky_drift=0
    )
    on_sensor = [
        np.roll(mask[0], (-down, -right), axis=(0, 1))[5:-5, 5:-5]
        for mask, (down, right) in zip(simulation.outliers, simulation.shifts, strict=True)
    ]
    assert on_sensor[0].sum() > 5
    for mask in on_sensor[1:]:
        # A defect of half a sigma may be on either side of the limit as the sky changes.
        assert (mask ^ on_sensor[0]).sum() <= 1
    assert not np.array_equal(simulation.outliers[0], simulation.outliers[1])
    assert (simulation.defects < 0).any()


def test_trail_lies_where_it_was_put():
    trail = Trail(1, (-10.0, 30.0), (110.0, 30.0), peak=20.0, fwhm=3.0)
    simulation = simulate_frames(
        3, 60, 100, 1, seed=1, cosmic_rays=0, hot_pixels=0, cloudy=0, dither=0, trails=[trail], gradient=0
    )
    assert not simulation.outliers[[0, 2]].any()
    sky_sigma = np.sqrt(simulation.sky[1, 0] * 16000 + 4) / 16000
    assert simulation.defects[1, 0, 30].max() == pytest.approx(20 * sky_sigma, rel=1e-4)
    assert simulation.defects[1, 0, 33].max() == pytest.approx(20 * sky_sigma / 16, rel=1e-3)
    assert simulation.outliers[1, 0, 29:32].all()
    assert not simulation.outliers[1, 0, 40:].any()


def test_trail_can_end_within_the_frame():
    profile = Trail(0, (-10.0, 30.0), (50.0, 30.0), peak=1.0).profile(60, 100)
    assert profile[30, 40] == pytest.approx(1.0)
    assert profile[30, 60] < 1e-6


def test_numbers_choose_frames():
    simulation = simulate_frames(6, 40, 50, 1, seed=3, trails=3, cloudy=2)
    assert len(set(simulation.cloudy)) == 2
    assert [trail.peak for trail in simulation.trails] == [45.0, 4.0, 45.0]
    assert len({trail.frame for trail in simulation.trails}) == 3


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["u16", "f32"])
@pytest.mark.parametrize("format", ["xisf", "fits"])
def test_saved_frames_read_back(tmp_path, format, dtype, channels):
    simulation = simulate_frames(2, 30, 40, channels, seed=1)
    paths = simulation.save(tmp_path / "new", format, dtype, "{object}_{number:02d}_c_d_r")
    assert [path.name for path in paths] == [f"Simulated_{number:02d}_c_d_r.{format}" for number in (1, 2)]
    for path, frame in zip(paths, simulation.frames, strict=True):
        stored = read(path).reshape(frame.shape)
        if dtype == "f32":
            np.testing.assert_array_equal(stored, frame)
        else:
            assert stored.dtype == np.uint16
            assert np.abs(stored / 65535 - frame).max() <= 0.5001 / 65535
            np.testing.assert_array_equal(stored == 0, frame == 0)


def test_files_are_replaced_only_when_told(tmp_path):
    simulation = simulate_frames(1, 20, 30, 1, seed=1)
    simulation.save(tmp_path, "fits")
    with pytest.raises(OSError, match="already exists"):
        simulation.save(tmp_path, "fits")
    simulation.save(tmp_path, "fits", overwrite=True)


def test_sample_files_are_what_the_seed_gives(m101):
    nights = ((m101, "M101", "xisf"), (sample_m13(), "M13", "fits"), (sample_m63(), "M63", "xisf"))
    for simulation, folder, suffix in nights:
        paths = sorted((SAMPLES / folder / "4_Registered").glob(f"*_c_d_r.{suffix}"))
        assert len(paths) == len(simulation.frames)
        for path, frame in zip(paths, simulation.frames, strict=True):
            assert checksum(read(path).reshape(frame.shape)) == checksum(quantised(frame)), path.name


def test_sample_files_stay_small():
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*_c_d_r.*")) < 15e6


def test_headers_of_the_samples():
    folder = SAMPLES / "M101" / "4_Registered"
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    assert paths[0].name == "M101_Light_180s_0001_c_d_r.xisf"
    assert paths[-1].name == "M101_Light_180s_0020_c_d_r.xisf"
    dates = []
    for path in paths:
        image = XISF(str(path)).get_images_metadata()[0]
        cards = {name: entries[0]["value"] for name, entries in image["FITSKeywords"].items()}
        assert cards["OBJECT"].strip("'") == "M101"
        assert cards["INSTRUME"].strip("'") == "ZWO ASI294MC Pro"
        assert float(cards["EXPTIME"]) == 180
        assert int(cards["GAIN"]) == 120
        assert float(cards["CCD-TEMP"]) == -10
        assert "Simulated" in image["FITSKeywords"]["ORIGIN"][0]["comment"]
        assert image["XISFProperties"]["Observation:Object:Name"]["value"] == "M101"
        assert image["XISFProperties"]["Instrument:ExposureTime"]["value"] == 180
        dates.append(cards["DATE-OBS"].strip("'"))
    assert dates == sorted(set(dates))
    assert {date[:10] for date in dates} == {"2021-08-15"}

    first = SAMPLES / "M13" / "4_Registered" / "M13_L_060s_001_c_d_r.fits"
    header = fits.getheader(first)
    assert (header["OBJECT"], header["FILTER"], header["EXPTIME"]) == ("M13", "L", 60)
    assert (header["INSTRUME"], header["BZERO"], header["ROWORDER"]) == ("QSI 583ws", 32768, "TOP-DOWN")


def test_command_line_makes_the_samples(tmp_path, capsys):
    main([str(tmp_path)])
    assert "44 frames" in capsys.readouterr().out
    path = tmp_path / "M101" / "4_Registered" / "M101_Light_180s_0007_c_d_r.xisf"
    assert checksum(read(path)) == checksum(read(SAMPLES / path.relative_to(tmp_path)))
    main([str(tmp_path)])


def test_benchmark_frames(tmp_path):
    paths = make_benchmark_frames(tmp_path / "a", 3, 200, 300)
    assert [path.name for path in paths] == ["frame_0001.fits", "frame_0002.fits", "frame_0003.fits"]
    frames = [fits.getdata(path) for path in paths]
    assert {frame.shape for frame in frames} == {(200, 300)}
    assert all(frame.min() > 0 and frame.max() <= 1 for frame in frames)
    assert np.median(frames[2]) > 1.2 * np.median(frames[0])
    again = make_benchmark_frames(tmp_path / "b", 3, 200, 300)
    assert [checksum(fits.getdata(path)) for path in again] == [checksum(frame) for frame in frames]
    colour = make_benchmark_frames(tmp_path / "c", 1, 40, 50, channels=3, dtype="u16")
    assert fits.getdata(colour[0]).shape == (3, 40, 50)
