"""Boxes and the frames that are to blame for them: planted defects, and runs without a frame."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from conftest import SAMPLES, integrate_quietly

import stacklib as sl
from stacklib.explore.boxes.blame_plots import figure_blame
from stacklib.explore.masks import box_around

BOX = (40, 30, 60, 50)


def quietly(frames: object, recipe: sl.Recipe, **options) -> sl.Integration:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return sl.integrate(frames, recipe, progress=False, **options)


@pytest.fixture(scope="module")
def defects(tmp_path_factory) -> Path:
    """Ten frames of noise and stars. Frame 3 has a faint line, 6 is too bright in a part, 8 has an edge."""
    folder, random = tmp_path_factory.mktemp("defects"), np.random.default_rng(8)
    stars = np.zeros((120, 140))
    stars[random.integers(0, 120, 60), random.integers(0, 140, 60)] = 0.05
    for number in range(1, 11):
        frame = 0.1 + stars + 0.004 * random.standard_normal(stars.shape)
        if number == 3:
            frame[50:52, 45:90] += 0.011
        if number == 6:
            frame[90:115, 5:35] += 0.006
        if number == 8:
            frame[:, 120:] = 0
        fits.writeto(folder / f"light_{number:02d}.fits", frame.astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def result(defects) -> sl.Integration:
    recipe = sl.Recipe(rejection="sigma", sigma_high=4, sigma_low=4, normalization="additive", weights="none")
    return quietly(defects, recipe)


def test_the_frame_with_a_line_is_to_blame(result):
    found = sl.blame(result, (40, 40, 60, 25))
    first = found.frames[0]
    assert first.number == 3 and first.share > 0.5 and "too bright" in first.reason
    assert first.name == "light_03.fits" and "frame 3 (03)" in found.words
    assert sum(each.share for each in found.frames) == pytest.approx(1)


def test_the_frame_with_another_sky_is_to_blame(result):
    first = sl.blame(result, (8, 93, 24, 20)).frames[0]
    assert first.number == 6 and first.share > 0.6 and "brighter than the others all over" in first.reason
    # It is one of ten frames.
    assert first.mean == pytest.approx(0.006 / 10, rel=0.15)


def test_edges_and_rejected_samples_are_told(result, m101):
    found = {each.number: each for each in sl.blame(result, (110, 10, 20, 20)).frames}
    assert found[8].missing == 0.5 and "no data in 50 % of the box" in found[8].reason
    # In M 101, a cloud took light from the galaxy in frame 17.
    cloudy = {each.number: each for each in sl.blame(m101, (130, 95, 40, 40)).frames}[17]
    assert cloudy.low > 0.5 and "too dark" in cloudy.reason


def test_effects_are_those_of_leaving_the_samples_out(result):
    """Without rejection, the image without a frame follows from its effect, to rounding."""
    plain = quietly(
        result.preparation.frames, result.recipe.replace(rejection="none", output_range="truncate")
    )
    found = sl.blame(plain, BOX)
    for place, number in enumerate((1, 3)):
        without = found.without(number)
        k = (0, 2)[place]
        # Of ten frames with equal weights.
        expected = found.present - found.apart[k] / 10
        np.testing.assert_allclose(without.original, expected, atol=2e-7)


@pytest.mark.parametrize(
    ("target", "changes", "numbers"),
    [
        ("M13", {}, (10,)),
        ("M13", {"rejection": "noise_model"}, (1, 5)),
        ("M101", {}, (7,)),
        ("M101", {"normalization": "multiplicative", "weights": "none", "combination": "median"}, (17,)),
    ],
)
def test_without_a_frame_is_the_real_run(target, changes, numbers):
    frames = sl.open_frames(SAMPLES / target / "4_Registered")
    recipe = sl.Recipe.suggest(frames).replace(**changes)
    found = sl.blame(quietly(frames, recipe), BOX)
    without = found.without(*numbers)
    left = [i for i in range(len(frames)) if i + 1 not in numbers]
    real = quietly(frames[left], found.result.recipe, region=BOX)
    assert found.exact
    for name in ("image", "rejection_low", "rejection_high", "coverage"):
        np.testing.assert_array_equal(getattr(without, name), getattr(real, name), err_msg=name)
    np.testing.assert_array_equal(found.image_without(*numbers), real.original)


def test_without_a_search_the_masks_are_those_of_all_frames(m101, m13):
    found = sl.blame(m101, BOX)
    assert found.searches and not sl.blame(m13, BOX).searches
    quick, exact = (found.image_without(3, search=search) for search in (False, True))
    differs = np.any(quick != exact, axis=0)
    left, top, width, height = BOX
    beside = np.zeros((height, width), bool)
    for channel in range(3):
        for i in set(range(20)) - {2}:
            rows = np.ones((height, width), np.float32)
            m101.masks.blank(rows, i, channel, top, left)
            beside |= np.isnan(rows)
    # Only what the other search finds, or does not find, is different: next to nothing.
    assert beside.any() and differs.mean() < 0.1 * beside.mean()
    alone = sl.blame(integrate_quietly("M101", joint_colour=False), BOX)
    assert np.any(quick != alone.image_without(3))


def test_trails_found_with_all_frames_are_taken(trailed):
    found = sl.blame(trailed, (20, 20, 60, 40))
    assert not found.exact
    numbers = [number for number in range(1, 11) if number - 1 in trailed.masks.lines]
    without = found.without(next(n for n in range(1, 11) if n not in numbers))
    assert without.preparation.count == trailed.preparation.count - 1
    assert without.masks.lines.keys() and len(without.masks.lines) == len(trailed.masks.lines)


def test_table_and_figure(result):
    found = sl.blame(result, BOX)
    assert list(found.table["frame"]) == [each.number for each in found.frames]
    figure = figure_blame(found, 5)
    figure.savefig(io.BytesIO())
    assert figure.get_suptitle().startswith("Frame 5: ")


def test_boxes_that_cannot_be_used_are_refused(result, m13):
    with pytest.raises(sl.RecipeError, match="region: got"):
        sl.blame(result, (0, 0, 500, 10))
    part = quietly(m13.preparation.frames, m13.recipe, region=(50, 50, 60, 60))
    with pytest.raises(sl.IntegrationError, match="inside the region"):
        sl.blame(part, (40, 60, 20, 20))
    found = sl.blame(result, BOX)
    with pytest.raises(sl.IntegrationError, match="got 11, expected 1 to 10"):
        found.without(11)
    with pytest.raises(sl.IntegrationError, match="1 frames are left"):
        found.without(*range(1, 10))


def test_a_box_around_a_pixel_lies_inside(m13):
    assert box_around(m13, {"x": 2, "y": 255}, 40) == (0, 216, 40, 40)
    assert box_around(m13, {"x": 100, "y": 100}, 5000) == (0, 0, 320, 256)
