"""What is measured on frames agrees with simulated truth, and bad frames are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table
from conftest import SAMPLES
from scipy import ndimage

import stacklib as sl
from stacklib.measurement import quality
from stacklib.measurement.quality import measure_quality, suggest_exclusions
from stacklib.measurement.stars import find_stars, mad_sigma, match
from stacklib.simulate import sample_m101, simulate_frames
from stacklib.simulate.night import write_fits


@pytest.fixture(scope="module")
def m101() -> Table:
    return measure_quality(sl.open_frames(SAMPLES / "M101" / "4_Registered"))


def write(folder: Path, images: list[np.ndarray]) -> sl.FrameSet:
    for number, image in enumerate(images, start=1):
        write_fits(folder / f"frame_{number}.fits", image.astype(np.float32), {})
    return sl.open_frames(folder)


# against truth -----------------------------------------------------------------------------------


@pytest.mark.parametrize("psf", ["gaussian", "moffat"])
@pytest.mark.parametrize("fwhm", [2.0, 2.5, 4.0])
def test_width_of_stars(psf, fwhm):
    night = simulate_frames(1, 256, 320, 1, "field", seed=3, psf=psf, fwhm=fwhm, clean=True)
    stars = find_stars(night.frames[0])
    assert stars.fwhm == pytest.approx(fwhm, rel=0.05)
    assert stars.eccentricity < 0.25


def test_sample_frames_agree_with_the_truth(m101):
    truth = sample_m101()
    assert np.median(np.abs(m101["fwhm"] / truth.fwhm - 1)) < 0.05
    np.testing.assert_allclose(m101["fwhm"], truth.fwhm, rtol=0.1)
    light = truth.transparency / truth.transparency[m101.meta["reference"]]
    np.testing.assert_allclose(m101["transparency"], light, atol=0.05)
    assert np.abs(m101["shift_x"]).max() < 0.1 and np.abs(m101["shift_y"]).max() < 0.1
    sky = np.median(truth.frames[:, :, 20:-20, 20:-20], axis=(2, 3)).mean(axis=1)
    np.testing.assert_allclose(m101["sky"], sky, rtol=0.02)


def test_columns(m101):
    assert m101.colnames == [
        *("number", "file", "time", "hours", "exposure", "sky", "noise", "scale", "weight", "stars"),
        *("fwhm", "eccentricity", "transparency", "shift_x", "shift_y", "matched"),
    ]
    assert m101["time"][1] == "2021-08-15T21:13:05" and m101["hours"][1] == pytest.approx(185 / 3600)
    assert m101["weight"].max() == 1 and str(m101["fwhm"].unit) == "pix"
    assert m101.meta == {"reference": m101.meta["reference"], "level": "full scale = 1"}


@pytest.mark.parametrize(("axis_ratio", "eccentricity"), [(0.8, 0.6), (0.6, 0.8)])
def test_eccentricity_of_stretched_stars(axis_ratio, eccentricity):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:240, :320]
    image = 0.05 + 0.001 * rng.standard_normal((240, 320))
    for row in range(20, 230, 25):
        for column in range(20, 310, 25):
            dx, dy = x - column - rng.uniform(-0.5, 0.5), y - row - rng.uniform(-0.5, 0.5)
            # The long axis lies at 45 degrees.
            along, across = (dx + dy) / np.sqrt(2), (dx - dy) / np.sqrt(2) / axis_ratio
            image += rng.uniform(0.1, 0.5) * np.exp(-0.5 * (along**2 + across**2) / 1.5**2)
    stars = find_stars(image[np.newaxis])
    assert stars.x.size == 108
    assert stars.eccentricity == pytest.approx(eccentricity, abs=0.02)
    assert stars.fwhm == pytest.approx(2.3548 * 1.5 * np.sqrt(axis_ratio), rel=0.03)


@pytest.mark.parametrize("shift", [(0.0, 3.0), (1.4, 0.0), (-9.0, 7.0)])
def test_shift_of_a_moved_frame(shift):
    frames = simulate_frames(2, 256, 320, 1, "globular", seed=2, clean=True).frames
    moved = ndimage.shift(frames[1], (0, *shift), order=1)
    light, x, y, matched = match(find_stars(frames[0]), find_stars(moved))
    assert (y, x) == pytest.approx(shift, abs=0.1)
    assert light == pytest.approx(1, abs=0.05) and matched > 0.7


@pytest.mark.parametrize("value", [0.0, 0.3, np.nan])
def test_frame_without_stars(value):
    stars = find_stars(np.full((1, 100, 100), value, np.float32))
    assert stars.x.size == 0 and np.isnan(stars.fwhm) and np.isnan(stars.eccentricity)


def test_noise_without_stars():
    noise = np.random.default_rng(1).normal(0.1, 0.01, (1, 200, 200)).astype(np.float32)
    assert find_stars(noise).x.size <= 1


# suggestions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "cloudy"), [("M101", 16), ("M13", 9)])
def test_the_cloudy_sample_frame_is_found(target, cloudy):
    reasons = suggest_exclusions(measure_quality(sl.open_frames(SAMPLES / target / "4_Registered")))
    assert list(reasons) == [cloudy]
    assert reasons[cloudy].startswith("cloud: the stars have 4")


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> dict[int, str]:
    """Reasons for eight frames, of which some were spoilt."""
    night = simulate_frames(8, 256, 320, 1, "field", seed=4, cloudy=0, trails=1)
    images = list(night.frames)
    images[1] = ndimage.shift(images[1], (0, 0, 3), order=1)
    images[3] = ndimage.convolve(images[3], np.full((1, 1, 7), 1 / 7))
    images[4] = ndimage.gaussian_filter(images[4], (0, 1.6, 1.6))
    images[6] = images[6][:, ::-1]
    return suggest_exclusions(measure_quality(write(tmp_path_factory.mktemp("spoilt"), images)))


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (1, "misregistration: the stars are 3.0 px from"),
        (3, "trailing: eccentricity 0."),
        (4, "soft: FWHM "),
        (6, "misregistration: only "),
    ],
)
def test_spoilt_frames_are_found_with_the_reason(spoilt, index, reason):
    assert reason in spoilt[index]


def test_good_frames_are_left_alone(spoilt):
    assert set(spoilt) == {1, 3, 4, 6}


def test_a_misregistered_reference_does_not_blame_the_others(tmp_path):
    frames = list(simulate_frames(6, 256, 320, 1, "field", seed=6, clean=True).frames)
    frames[0] = ndimage.shift(frames[0], (0, 2, 2), order=0)
    table = measure_quality(write(tmp_path, frames))
    assert list(suggest_exclusions(table)) == [0]


def test_suggestions_for_few_or_starless_frames(tmp_path):
    frame = simulate_frames(1, 256, 320, 1, "field", clean=True).frames[0]
    table = measure_quality(write(tmp_path, [frame, np.full_like(frame, 0.1)]))
    assert suggest_exclusions(table) == {1: "no stars found"}
    assert np.isnan(table["fwhm"][1]) and table["time"].mask.all()


def test_a_few_stars_are_not_judged_by(tmp_path):
    frames = list(simulate_frames(8, 96, 96, 1, "field", seed=4, clean=True).frames)
    table = measure_quality(write(tmp_path, frames))
    table["stars"] = [2, 1, 2, 0, 2, 2, 4, 2]
    table["eccentricity"][1], table["transparency"][2], table["shift_x"][4] = 0.99, 0.2, 5.0
    table["matched"][5] = 0.0
    assert suggest_exclusions(table) == {}
    table["stars"] = [9, 1, 3, 2, 4, 3, 9, 2]
    assert suggest_exclusions(table) == {}
    table["sky"][2] *= 3
    assert list(suggest_exclusions(table)) == [2]
    # One that has lost most of its stars is known by that alone.
    table["stars"] = [40, 40, 4, 42, 0, 40, 41, 40]
    assert suggest_exclusions(table)[4] == "no stars found"


def test_known_stars_are_not_looked_for_again(tmp_path, monkeypatch):
    monkeypatch.setenv("STACKLIB_CACHE", str(tmp_path / "cache"))
    images = list(simulate_frames(3, 256, 320, 1, "field", seed=9, clean=True).frames)
    images[1] = np.full_like(images[1], 0.1)
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = write(folder, images)
    looked = []

    def look(image):
        looked.append(image)
        return find_stars(image)

    monkeypatch.setattr(quality, "find_stars", look)
    first = measure_quality(frames)
    assert len(looked) == 3 and first["stars"][1] == 0
    done = []
    again = measure_quality(sl.open_frames(folder), progress=lambda *counts: done.append(counts))
    assert len(looked) == 3 and done == [(3, 3)]
    for name in first.colnames:
        np.testing.assert_array_equal(again[name], first[name])
    images[2] = images[2][:, ::-1]
    (folder / "frame_3.fits").unlink()
    write_fits(folder / "frame_3.fits", images[2], {})
    changed = measure_quality(sl.open_frames(folder))
    assert len(looked) == 6 and changed["matched"][2] != first["matched"][2]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_sigma_by_the_median_deviation_is_that_of_astropy(kind, size):
    values = np.random.default_rng(size).normal(3, 2, size).astype(kind)
    assert mad_sigma(values) == float(mad_std(values))
    assert np.isnan(mad_sigma(np.append(values, np.nan)))
