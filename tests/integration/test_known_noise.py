"""Noise known beforehand: the same bits for regions, budgets and threads, and in stories and masks."""

import numpy as np
import pytest

import stacklib as sl
from stacklib.explore.masks import frame_verdicts
from stacklib.explore.trials import Trials
from stacklib.integration import samples
from stacklib.kernel.verdicts import HIGH, KEPT, LOW
from stacklib.simulate import simulate_night

pytestmark = [pytest.mark.filterwarnings("ignore::stacklib.StacklibWarning")]
PLANES = ("image", "uncertainty", "rejection_low", "rejection_high", "coverage")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    simulate_night(7, 120, 140, 1, "field", 71, noise=(1, 2), cosmic_rays=20.0).save(folder, "fits", "f32")
    return folder


@pytest.fixture(scope="module", params=["noise_model", "winsorized_sigma"])
def whole(request, folder):
    recipe = sl.Recipe(rejection=request.param, output_range="truncate", allow_unregistered=True)
    return sl.integrate(folder, recipe, progress=False)


def assert_same(found, whole, left=0, top=0):
    height, width = found.image.shape[1:]
    part = np.s_[:, top : top + height, left : left + width]
    for name in PLANES:
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[part], err_msg=name)


@pytest.mark.parametrize("region", [(0, 0, 140, 9), (31, 22, 50, 40), (139, 0, 1, 120), (5, 119, 60, 1)])
def test_a_region_has_the_bits_of_the_whole(folder, whole, region):
    assert_same(sl.integrate(folder, whole.recipe, region=region, progress=False), whole, *region[:2])


def test_budget_and_threads_do_not_matter(folder, whole, monkeypatch):
    monkeypatch.setattr(samples, "LEAST_BAND_BYTES", 7 * 4 * 140 * 10)
    # Read in bands.
    monkeypatch.setattr(samples.Samples, "fits", lambda self: False)
    for options in ({"memory": "1MB", "threads": 3}, {"threads": 1}):
        found = sl.integrate(folder, whole.recipe, progress=False, **options)
        assert_same(found, whole)
        assert found.rejected_high.tolist() == whole.rejected_high.tolist()


def test_trials_of_a_region_are_integrations(folder, whole):
    trials, region = Trials(sl.open_frames(folder)), (31, 22, 50, 40)
    trials.read(region)
    limits = [whole.recipe.replace(sigma_high=value) for value in (2.5, 2.9, 3.3, 3.6, 4.0)]
    images = trials.each([trials.prepare(recipe) for recipe in limits], lambda trial: trial.image)
    for recipe, image in zip(limits, images, strict=True):
        expected = sl.integrate(folder, recipe, region=region, progress=False)
        np.testing.assert_array_equal(image, expected.image)
        np.testing.assert_array_equal(trials.integrate(recipe).image, expected.image)


@pytest.mark.parametrize("step", [1, 3])
def test_masks_and_stories_agree_with_the_maps(whole, step):
    count = whole.preparation.count
    verdict, _ = frame_verdicts(whole, 0, step)
    shown = np.s_[0, step // 2 :: step, step // 2 :: step]
    np.testing.assert_array_equal((verdict == HIGH).sum(axis=0), np.rint(whole.rejection_high[shown] * count))
    rows, columns = np.nonzero((verdict == HIGH).any(axis=0))
    for row, column in list(zip(rows, columns, strict=True))[:3]:
        x, y = (int(place) * step + step // 2 for place in (column, row))
        story = sl.explain(whole, x=x, y=y)
        np.testing.assert_array_equal(story.verdict, verdict[:, row, column])
        for i, value in enumerate(story.compared):
            low, high = story.rounds[-1].limits_of(i)
            if story.spec.by_frame and story.verdict[i] in (LOW, KEPT, HIGH) and story.count(KEPT) > 1:
                assert story.verdict[i] == (LOW if value < low else HIGH if value > high else KEPT)


def test_the_limits_of_a_frame_are_told(folder):
    result = sl.integrate(folder, sl.Recipe(rejection="noise_model", allow_unregistered=True), progress=False)
    story = sl.explain(result, x=70, y=60)
    wide = [np.subtract(*story.rounds[-1].limits_of(i)[::-1]) for i in range(7)]
    noise = result.preparation.frame_noise(0).relative
    assert np.argsort(wide).tolist() == np.argsort(noise).tolist()
    assert "its limits" in str(story) and "of the quietest frame" in str(story)
    assert "Round 1: median" in str(story) and "Round 2: mean of the kept samples" in str(story)
