"""Rejection that looks at neighbors, from the recipe to the files and back."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

import stacklib as sl
from stacklib.batch.summary import summary_table
from stacklib.formats import fits, xisf
from stacklib.frames.frame_masks import open_masks, read_mask
from stacklib.output.report import numbers
from stacklib.simulate import Session, Trail, simulate_frames
from stacklib.spatial.lines import line_mask
from stacklib.spatial.means import FOOTPRINT, MEANS

RECIPE = sl.Recipe(rejection="winsorized_sigma", footprints="all", large_scale_high=True, weights="exposure")
SHAPE = (160, 200)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Color frames, with a bright trail in one of them."""
    folder = tmp_path_factory.mktemp("M1") / "4_Registered"
    session = Session(object_name="M 1", camera="Camera", exposure=60.0)
    simulate_frames(10, *SHAPE, 3, trails=1, dither=2, session=session, seed=5).save(folder)
    return folder


def integrate(frames, recipe, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return sl.integrate(frames, recipe, progress=False, **options)


@pytest.fixture(scope="module")
def result(frames):
    return integrate(frames, RECIPE)


def test_the_report_names_what_was_found(result):
    (trail,) = result.trails
    report = result.report()
    assert f"\nTrails\n  {trail['name']}: trail 1, " in report
    for words in ("Rejected for their neighbors\n  trail  ", "\n  footprint  ", "\n  color of a hit  "):
        assert words in report
    assert " masked %\n" in report
    assert "your mask" not in report
    # What a trail took is no riddle.
    told = rf" {re.escape(trail['file'])}: \d+\.\d % high, median \d+\.\d\d % \(\d+\.\d % in a trail\)"
    assert re.search(told, " ".join(report.split()))
    assert max(map(len, report.splitlines())) <= 100
    assert " % for their neighbors (1 trail)" in result.summary
    known = numbers(result)
    assert known["trails"] == 1
    assert known["masked"] == pytest.approx(sum(part.mean() for part in result.masked.values()))


def test_brightness_is_in_sigma_of_a_sample_of_one_channel(tmp_path):
    added = Trail(3, (-20.0, 30.0), (220.0, 110.0), peak=6.0)
    found = []
    for channels in (1, 3):
        folder = tmp_path / str(channels) / "4_Registered"
        simulate_frames(8, *SHAPE, channels, "field", 5, trails=(added,), cloudy=0).save(folder)
        (trail,) = integrate(folder, sl.Recipe(footprints="trails")).trails
        found.append(trail["peak"])
    # The mean of the others has noise, too, so the difference is fainter in units of its own.
    assert found == pytest.approx([added.peak] * 2, rel=0.2)
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_the_report_is_as_before_without_it(frames):
    result = integrate(frames, RECIPE.replace(footprints="off", large_scale_high=False, joint_colour=False))
    report = result.report()
    assert "neighbors" not in report and "masked" not in report and "\nTrails" not in report
    assert "neighbors" not in result.summary
    assert not {means.column for means in MEANS} & set(result.frames.colnames)
    assert numbers(result)["masked"] == numbers(result)["trails"] == 0
    assert result.save_masks(frames.parent / "none") == []


def test_the_history_counts_by_means(result, tmp_path):
    saved = result.save(tmp_path, fits=True)
    for path in (saved[0], saved[3]):
        frame = sl.open_frames(path, everything=True)[0]
        lines = frame.properties.get("Processing:History", "").splitlines()
        assert path.suffix == ".fits" or any(line.startswith("  trail 1: ") for line in lines)
        assert sl.Recipe.from_result(path) == result.recipe
    history = xisf.open_image(saved[0]).properties["Processing:History"]
    row = next(row for row in result.frames if row["file"] == result.trails["file"][0])
    counts = next(line for line in history.splitlines() if line.startswith("  rejected as trail "))
    data = np.stack([counted.data for counted in result.counts])
    expected = np.asarray(row["rejected_trail"]) * data[:, list(result.frames["file"]).index(row["file"])]
    assert [int(text) for text in counts.split()[3:]] == pytest.approx(expected)


def test_saved_masks_reject_the_same_samples(result, frames, tmp_path):
    result.save(tmp_path, masks=True)
    folder = result.saved.masks
    assert folder.name.endswith("_0000_masks")
    assert f"{folder.name} (masks of " in result.saved.report.read_text(encoding="utf-8")
    lights = sl.open_frames(frames)
    for i, mask in open_masks(str(folder), lights).items():
        np.testing.assert_array_equal(read_mask(mask, lights), result.masks.frame(i, 3) != 0)
    recipe = RECIPE.replace(footprints="off", large_scale_high=False, joint_colour=False, masks=str(folder))
    own = integrate(frames, recipe)
    np.testing.assert_array_equal(own.image, result.image)
    # A footprint counts as a whole as too bright or too dark, one's own mask sample by sample.
    lost, expected = (each.rejection_low + each.rejection_high for each in (own, result))
    np.testing.assert_allclose(lost, expected, atol=1e-6)
    np.testing.assert_array_equal(own.coverage, result.coverage)
    assert list(own.masked) == ["own"]
    assert own.masked["own"].sum() == pytest.approx(sum(part.sum() for part in result.masked.values()))
    # Again, with the masks among the files of the run.
    saved = own.save(tmp_path / "own")
    again = sl.rerun(saved[0], progress=False)
    np.testing.assert_array_equal(again.image, own.image)


def test_a_run_is_repeated(result, tmp_path):
    again = sl.rerun(result.save(tmp_path)[0], progress=False)
    np.testing.assert_array_equal(again.image, result.image)
    np.testing.assert_array_equal(again.rejection_low, result.rejection_low)
    assert again.recipe == result.recipe
    assert list(map(tuple, again.trails)) == list(map(tuple, result.trails))


def test_a_trail_can_be_left_in(result, frames):
    (trail,) = result.trails
    name = trail["name"]
    other = integrate(frames, RECIPE.replace(footprints="trails", ignore_trails=name))
    assert not other.trails["used"].any()
    assert other.masked["line"].sum() == 0 < result.masked["line"].sum()
    assert "not rejected: ignored" in " ".join(other.report().split())
    # Its footprints stay with it, but those beside it do not.
    both = integrate(frames, RECIPE.replace(large_scale_high=False, joint_colour=False, ignore_trails=name))
    i = both.preparation.measurements.names.index(trail["file"])
    (line,) = both.masks.lines[i]
    beside = line_mask(replace(line, width=line.width + 16), SHAPE)
    assert not both.masks.frame(i, 3)[:, beside].any()
    with_line = result.masks.frame(i, 3) & FOOTPRINT
    assert with_line[:, beside].mean() > 0.5
    others = [k for k in range(10) if k != i]
    np.testing.assert_array_equal(
        both.masked["footprint"][others],
        integrate(frames, RECIPE.replace(large_scale_high=False, joint_colour=False)).masked["footprint"][
            others
        ],
    )
    # With a name that means none.
    recipe = RECIPE.replace(footprints="trails", ignore_trails=[name, "light.xisf:3,4-50,60"])
    with pytest.warns(
        sl.StacklibWarning, match=r"ignore_trails: no such trail was found: light.xisf:3,4-50,60; "
    ):
        again = sl.integrate(frames, recipe, progress=False)
    assert any("light.xisf:3,4" in note for note in again.preparation.notes)


def test_masks_are_checked_before_frames_are_measured(frames, tmp_path, monkeypatch):
    fits.write_image(tmp_path / "another_frame_mask.fits", np.ones(SHAPE, np.float32))
    monkeypatch.setattr("stacklib.normalization.preparation.measure_frames", None)
    with pytest.raises(sl.RecipeError, match=r"^masks: .* fits none of the 10 frames"):
        integrate(frames, sl.Recipe(masks=str(tmp_path)))


def test_an_own_mask_takes_what_it_marks(frames, tmp_path):
    lights = sl.open_frames(frames)
    mask = np.zeros(SHAPE, np.float32)
    mask[40:50, 60:90] = 1
    for frame in lights[[2, 5]]:
        fits.write_image(tmp_path / f"{frame.path.stem}_mask.fits", mask)
    recipe = sl.Recipe(rejection="none", weights="exposure", map_range_rejection=False, masks=str(tmp_path))
    result = integrate(frames, recipe)
    lost = (result.rejection_low + result.rejection_high)[0] * 10
    np.testing.assert_allclose(lost[45, 60:90], 2, rtol=1e-6)
    assert lost[mask == 0].sum() == 0
    masked = result.masked["own"][:, 0]
    assert masked.nonzero()[0].tolist() == [2, 5]
    part = integrate(frames, result.recipe, region=(50, 30, 60, 40))
    np.testing.assert_array_equal(part.image, result.image[:, 30:70, 50:110])
    assert summary_table([], tmp_path).colnames.index("masked") > 0


def test_own_masks_that_do_nothing_are_told(frames, tmp_path):
    lights = sl.open_frames(frames)
    mask = np.zeros(SHAPE, np.float32)
    mask[40:50, 60:90] = 1
    for frame in lights:
        fits.write_image(tmp_path / f"{frame.path.stem}_mask.fits", mask)
    blank = tmp_path / f"{lights[2].path.stem}_mask.fits"
    recipe = sl.Recipe(rejection="none", weights="exposure", masks=str(tmp_path))
    with pytest.warns(sl.StacklibWarning, match=r"^masks: yours leave no sample at 300 pixels; they are ig"):
        result = sl.integrate(frames, recipe, progress=False)
    assert not result.masks and result.image[0, 45, 75] > 0
    assert "leave no sample at 300 pixels" in " ".join(result.report().split())
    blank.unlink()
    fits.write_image(blank, np.zeros(SHAPE, np.float32))
    with pytest.warns(sl.StacklibWarning, match=f"^masks: {blank.name}: all values are 0, so nothing is rej"):
        result = sl.integrate(frames, recipe, progress=False)
    assert (result.coverage[:, 45, 75] == 1).all()
    assert not any("no sample" in note for note in result.preparation.notes)
    assert result.masked["own"][:, 0].nonzero()[0].tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
