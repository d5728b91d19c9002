"""Frames that do not lie on each other are named; those that do never are."""

import shutil

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import shift as interpolated

import stacklib as sl
from stacklib.errors import IntegrationError, StacklibWarning
from stacklib.integration.registration import (
    check_registration,
    measure_shifts,
    stacked_frames,
    window_of,
)
from stacklib.measurement.cache.planes import sets_folder

SHAPE = (160, 200)


def stars(shape, rng, count, fwhm=3.0):
    """Stars of 2 to 1000 sigma, without noise."""
    image = np.zeros(shape)
    sigma = fwhm / 2.355
    for _ in range(count):
        y, x, peak = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), 10 ** rng.uniform(0.3, 3)
        rows, columns = (
            np.arange(max(0, int(y) - 12), min(int(y) + 13, shape[0])),
            np.arange(max(0, int(x) - 12), min(int(x) + 13, shape[1])),
        )
        profile = np.exp(-((rows[:, None] - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        image[np.ix_(rows, columns)] += peak * profile
    return image


def hits(image, rng, count):
    """Add cosmic rays, a third of them tracks."""
    for _ in range(count):
        y, x, angle = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1]), rng.uniform(0, np.pi)
        for step in range(rng.integers(2, 20) if rng.random() < 0.3 else 1):
            row, column = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                image[row, column] += rng.uniform(10, 100)


def night(rng, count, shifts=None, density=60, rays=4, shape=SHAPE):
    """Frames of a field with clouds, noise and cosmic rays, moved by shifts in x and y; a sky of 500."""
    field = stars((shape[0] + 80, shape[1] + 80), rng, density * 2)
    frames = []
    for i in range(count):
        x, y = (0.0, 0.0) if shifts is None else shifts[i]
        light = interpolated(field, (y, x), order=3)[40:-40, 40:-40]
        # Registration interpolates noise and hits, by another fraction of a pixel in each frame.
        noise = rng.standard_normal(shape) * rng.uniform(1, 2)
        hits(noise, rng, rng.poisson(rays))
        noise = interpolated(noise, rng.uniform(-0.5, 0.5, 2), order=int(rng.choice([1, 3])), mode="nearest")
        frames.append((500 + rng.uniform(0.45, 1) * light + noise).astype(np.float32))
    return frames


def measured(frames, first=0):
    def read(i, window):
        left, top, width, height = window
        return frames[i][top : top + height, left : left + width].copy()

    return measure_shifts(read, len(frames), frames[0].shape, first)


def said(frames, allowed=False):
    return check_registration(measured(frames), [f"f{i}" for i in range(len(frames))], allowed)


def saved(folder, frames):
    folder.mkdir()
    for i, frame in enumerate(frames):
        fits.PrimaryHDU(frame.astype(np.float32), fits.Header([("EXPTIME", 60.0)])).writeto(
            folder / f"f{i}.fits"
        )
    return sl.open_frames(folder)


def test_shifts_are_measured_to_a_fraction_of_a_pixel():
    rng = np.random.default_rng(301)
    shifts = np.array(
        [(0, 0), (0.3, -0.4), (-0.25, 0.1), (1.4, 0.6), (0, 0), (0.1, 0.05), (-6.3, 11.8), (0, 0)]
    )
    found = measured(night(rng, 8, shifts))
    np.testing.assert_allclose(found.shift, shifts - np.median(shifts, axis=0), atol=0.12)
    assert found.error.max() < 0.1
    assert found.apart == ()


def test_two_hundred_registered_sets_give_no_alarm():
    rng = np.random.default_rng(302)
    known = 0
    for _ in range(200):
        count, density = int(rng.integers(2, 8)), int(rng.choice([0, 5, 20, 60, 200]))
        frames = night(rng, count, None, density, rng.choice([0, 3, 10]), (96, 128))
        border = rng.integers(0, 6)
        frames[-1][:border] = np.nan
        frames[-1][:, :border] = np.nan
        assert said(frames) == []
        known += density >= 20 and np.isfinite(measured(frames).error).all()
    # It is no alarm for lack of a measurement.
    assert known > 90


def test_a_frame_off_by_a_pixel_is_named():
    rng = np.random.default_rng(303)
    shifts = np.zeros((7, 2))
    shifts[4] = 1, 0
    (note,) = said(night(rng, 7, shifts))
    assert note.startswith("1 of 7 frames does not lie on the others: f4 (1.0 px).")
    assert "whole pixels" not in note


def test_a_frame_off_by_five_pixels_is_refused_unless_allowed():
    rng = np.random.default_rng(304)
    shifts = np.zeros((6, 2))
    shifts[2] = -3, 4
    frames = night(rng, 6, shifts)
    with pytest.raises(IntegrationError, match=r"f2 \(5\.0 px\).*allow_unregistered: true"):
        said(frames)
    (note,) = said(frames, allowed=True)
    assert "f2 (5.0 px)" in note


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_frames_that_drift_are_refused(count):
    rng = np.random.default_rng(305 + count)
    drift = np.arange(count)[:, None] * (3.1, 1.7)
    with pytest.raises(IntegrationError, match="not lie on the others"):
        said(night(rng, count, drift))


def test_a_frame_upside_down_has_other_stars_and_so_have_other_fields():
    rng = np.random.default_rng(306)
    frames = night(rng, 6)
    frames[3] = frames[3][::-1, ::-1].copy()
    with pytest.raises(IntegrationError, match=r"1 of 6 frames .* f3 \(other stars\)"):
        said(frames)
    with pytest.raises(IntegrationError, match="4 of 4 frames"):
        said([night(rng, 1)[0] for _ in range(4)])


def test_aligning_by_whole_pixels_is_recognized():
    rng = np.random.default_rng(307)
    (note,) = said(night(rng, 15, rng.uniform(-0.6, 0.6, (15, 2))))
    assert "aligning by whole pixels" in note


def test_a_cloud_and_a_trail_are_no_misregistration():
    rng = np.random.default_rng(308)
    frames = night(rng, 6)
    frames[1] = (500 + 1.5 * rng.standard_normal(SHAPE)).astype(np.float32)
    rows = np.arange(SHAPE[0])
    for across in range(4):
        frames[2][rows, (rows + 20 + across) % SHAPE[1]] += 60
    assert said(frames) == []


def test_hot_pixels_in_quiet_whole_numbers_are_no_stars():
    rng = np.random.default_rng(29)
    truth = np.full((128, 160), 30.0)
    truth[::9, ::11] = 5000
    frames = np.round(truth + rng.normal(0, 0.6, (6, *truth.shape))).astype(np.float32)
    found = measure_shifts(lambda i, w: frames[i][w[1] : w[1] + w[3], w[0] : w[0] + w[2]], 6, truth.shape)
    assert found.apart == ()


def test_what_cannot_be_measured_is_not_known():
    rng = np.random.default_rng(309)
    found = measured([rng.standard_normal(SHAPE).astype(np.float32) for _ in range(5)])
    assert np.isnan(found.shift).all() and found.apart == ()
    empty = [np.full(SHAPE, np.nan, np.float32)] * 3
    assert np.isnan(measured(empty).shift).all()
    assert np.isnan(measured([np.full((5, 7), 3, np.float32)] * 3).shift).all()


def test_windows_lie_in_the_middle_and_grow_where_stars_are_few():
    assert window_of(2000, 1500, 512) == (744, 494, 512, 512)
    assert window_of(100, 60, 512) == (2, 6, 96, 48)
    rng = np.random.default_rng(310)
    frames = night(rng, 4, None, 90, 3, (900, 900))
    for frame in frames:
        frame[194:706, 194:706] = 500 + rng.standard_normal((512, 512))
    frames[3] = np.roll(frames[3], 6, axis=1)
    with pytest.raises(IntegrationError, match=r"f3 \(6\.0 px\)"):
        said(frames)


def test_runs_check_the_registration_and_keep_the_shifts(tmp_path):
    rng = np.random.default_rng(311)
    frames = night(rng, 6)
    registered = saved(tmp_path / "good", frames)
    # The frames differ in light, of which nothing is to be said here.
    quiet = sl.Recipe(normalization="none", rejection_normalization="none", weights="none")
    result = sl.integrate(registered, quiet, progress=False)
    assert np.hypot(result.frames["shift_x"], result.frames["shift_y"]).max() < 0.2
    frames[4] = np.roll(frames[4], 1, axis=0)
    with pytest.warns(StacklibWarning, match=r"f4\.fits \(1\.0 px\)"):
        result = sl.integrate(saved(tmp_path / "near", frames), quiet, progress=False)
    assert result.frames["shift_y"][4] == pytest.approx(1, abs=0.15)
    assert "f4.fits (1.0 px)" in " ".join(result.report().split())
    frames[4] = np.roll(frames[4], 4, axis=0)
    far = saved(tmp_path / "far", frames)
    with pytest.raises(IntegrationError, match=r"f4\.fits \(5\.0 px\)"):
        sl.integrate(far, quiet, progress=False)
    with pytest.warns(StacklibWarning, match="integrated all the same"):
        allowed = sl.integrate(far, quiet.replace(allow_unregistered=True), progress=False)
    assert allowed.image.shape == (1, *SHAPE)


def test_frames_used_count_and_no_others(tmp_path):
    rng = np.random.default_rng(312)
    frames = night(rng, 6)
    frames[0] = np.roll(frames[0], 9, axis=1)
    folder = saved(tmp_path / "frames", frames)
    table = tmp_path / "weights.csv"
    table.write_text("file,weight\n" + "".join(f"f{i}.fits,{float(i > 0)}\n" for i in range(6)))
    as_they_are = {"normalization": "none", "rejection_normalization": "none"}
    recipe = sl.Recipe(weights="csv", weight_file=str(table), **as_they_are)
    with pytest.warns(StacklibWarning, match="left out by min_weight"):
        result = sl.integrate(folder, recipe, progress=False)
    assert np.isnan(result.frames["shift_x"][0]) and np.isfinite(result.frames["shift_x"][1:]).all()


def test_frames_to_compare_with_are_the_same_when_one_is_added_or_left_out():
    names = [f"light_{i:04d}" for i in range(210)]
    assert stacked_frames(names[:15]) == list(range(15))
    few = stacked_frames(names[:200])
    assert len(few) == 15 and few == sorted(set(few)) and few[-1] < 128 < 200
    assert stacked_frames(names) == few
    chosen = {names[i] for i in few}
    same = 0
    for i in range(200):
        left = names[:i] + names[i + 1 : 200]
        same += {left[k] for k in stacked_frames(left)} == chosen
    assert same > 150


@pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
@pytest.mark.parametrize("apart", [0.3, 0.9])
def test_shifts_of_frames_added_later_are_those_of_all_at_once(tmp_path, apart):
    rng = np.random.default_rng(313)
    files = saved(tmp_path / "frames", night(rng, 22, rng.uniform(-apart, apart, (22, 2))))
    recipe = sl.Recipe(rejection="sigma", weights="none", reference="f3", allow_unregistered=True)
    paths = [str(frame.path) for frame in files]

    def shifts(some):
        return sl.integrate(some, recipe, progress=False).shift

    shifts(paths[:18])
    later, without = shifts(paths), shifts(paths[:5] + paths[6:])
    # The sum of the frames that all are compared with is still known.
    for name in ("peaks", "registration"):
        for path in sets_folder(tmp_path / "frames").glob(f"{name}-*.npz"):
            path.unlink()
    np.testing.assert_array_equal(later, shifts(paths))
    forget(tmp_path / "frames")
    np.testing.assert_array_equal(later, shifts(paths))
    forget(tmp_path / "frames")
    np.testing.assert_array_equal(without, shifts(paths[:5] + paths[6:]))
    assert np.isfinite(later).all() and np.ptp(later) > 0.2


def forget(folder):
    """Remove what is kept of the frames in a folder."""
    shutil.rmtree(sets_folder(folder))
