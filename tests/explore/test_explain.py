"""The story of a pixel is that of the integration: same verdicts, same value, told in words that fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import integrate_quietly

import stacklib as sl
from stacklib.errors import StacklibWarning
from stacklib.explore import masks
from stacklib.explore.explain import tell
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA
from stacklib.normalization.preparation import prepare
from stacklib.normalization.settings import Settings
from stacklib.utils.labels import own_parts, shortened

RULES = [rule for rule in sl.Recipe.parameters()["rejection"].choices if rule != "auto"]
#: A clean pixel, one where clipping runs away, a star, the border, the trail.
PLACES = [(100, 100), (115, 85), (66, 62), (2, 2), (150, 90)]


@pytest.fixture(scope="module")
def integrations(m101) -> dict[str, sl.Integration]:
    """A small region of M 101 by every rule, with measurements that are at hand."""
    from stacklib.integration.run import integrate_samples
    from stacklib.integration.samples import Samples

    p = m101.preparation
    results = {}
    for rule in RULES:
        preparation = prepare(p.frames, sl.Recipe(rejection=rule), measurements=p.measurements)
        samples = Samples(p.frames, (0, 0, 160, 110), 1)
        results[rule] = integrate_samples(samples, preparation, true_claims=False)
    return results


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", PLACES)
def test_story_is_that_of_the_integration(rule, place, integrations):
    result, (x, y) = integrations[rule], place
    count = result.preparation.count
    for channel in range(3):
        story = sl.explain(result, x=x, y=y, channel=channel)
        assert story.rule == rule and len(story.files) == count
        coverage = round(float(result.coverage[channel, y, x]) * count)
        missing = count - coverage
        assert story.count(NO_DATA) == missing
        # The maps count the samples of the border as rejected low.
        assert story.count(LOW) + missing == round(float(result.rejection_low[channel, y, x]) * count)
        assert story.count(HIGH) == round(float(result.rejection_high[channel, y, x]) * count)
        image = float(result.image[channel, y, x])
        assert story.value * result.range_factor + result.range_offset == pytest.approx(image, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_verdicts_are_those_of_the_rule_alone(rule):
    recipe = sl.Recipe(rejection=rule, range_clip_low=False)
    rng = np.random.default_rng(5)
    for n in (3, 12, 40):
        raw = rng.normal(0.1, 0.002, n).astype(np.float32)
        raw[0], raw[n // 2] = 0.4, 0.05
        story = tell(raw, Settings.plain(recipe, n), tuple(f"f{i}" for i in range(n)))
        kept = sl.reject(raw[:, np.newaxis, np.newaxis], recipe)[:, 0, 0]
        np.testing.assert_array_equal(story.verdict == KEPT, kept)
        np.testing.assert_array_equal(story.verdict, story.rounds[-1].verdict)


@pytest.mark.parametrize("rule", RULES)
def test_rounds_only_ever_reject_more(rule, integrations):
    for x, y in PLACES:
        story = sl.explain(integrations[rule], x=x, y=y)
        gone = np.zeros(len(story.files), bool)
        for number, told in enumerate(story.rounds, 1):
            assert told.number == number
            now = np.isin(told.verdict, (LOW, HIGH))
            assert np.all(now[gone])
            np.testing.assert_array_equal(np.flatnonzero(now & ~gone), told.dropped)
            gone = now


@pytest.mark.parametrize("rule", RULES)
def test_words_agree_with_verdicts_and_fit(rule, integrations):
    for x, y in PLACES:
        story = sl.explain(integrations[rule], x=x, y=y)
        text = str(story)
        assert max(map(len, text.splitlines())) <= 100, text
        assert f"x {x}, y {y}" in text and story.summary.split()[0] in text
        begin = {KEPT: "kept", LOW: "rejected low", HIGH: "rejected high", NO_DATA: "no data"}
        for verdict, reason in zip(story.verdict, story.reasons, strict=True):
            assert reason.startswith(begin[int(verdict)])
            assert "nan" not in reason and "inf" not in reason
        assert "nan" not in text and "inf" not in text


def test_words_of_special_rules(integrations):
    assert "No rejection" in str(sl.explain(integrations["none"], x=115, y=85))
    ends = str(sl.explain(integrations["min_max"], x=115, y=85))
    assert "among the brightest" in ends and "Round" not in ends
    assert "Test 1:" in str(sl.explain(integrations["gesd"], x=115, y=85))
    assert "middle of the line" in str(sl.explain(integrations["linear_fit"], x=115, y=85))


def test_clipping_runs_away_in_the_sample(m101):
    # The trail falls to its color before.
    p = m101.preparation
    story = sl.explain(replace(p, recipe=p.recipe.replace(joint_colour=False)), x=115, y=85)
    assert story.rule == "winsorized_sigma"
    assert (story.count(LOW), story.count(HIGH)) == (2, 9)
    assert story.labels[6] == "0007" and story.numbers == tuple(range(1, 21))
    assert 6 in story.rounds[0].dropped and "round 1" in story.reasons[6]


def test_one_sided_limits_are_told_without_infinity(m101):
    p = m101.preparation
    one = prepare(p.frames, sl.Recipe(rejection="sigma", clip_low=False), measurements=p.measurements)
    story = sl.explain(one, x=115, y=85)
    assert "keeps up to" in str(story) and "inf" not in str(story)


def test_frames_and_preparation_tell_the_same(m13):
    path = m13.preparation.frames.folder
    texts = {str(sl.explain(source, m13.recipe, x=160, y=100)) for source in (m13, m13.preparation, path)}
    assert len(texts) == 1
    for source in (m13, m13.preparation):
        with pytest.warns(StacklibWarning, match="recipe: not used, as the result has another one"):
            assert str(sl.explain(source, m13.recipe.replace(sigma_low=2.0), x=160, y=100)) in texts


def test_both_values_are_told_where_the_image_was_rescaled(m101, m13):
    assert m101.range_factor != 1 and m13.range_factor == 1
    story = sl.explain(m101, x=115, y=85)
    assert story.in_image == m101.image[0, 85, 115]
    assert story.summary.endswith(f", {story.in_image:.6g} in the image after output_range")
    assert f"Result: {story.value:.6g} from 9 of 20" in str(story) and f"{story.in_image:.6g} in" in str(
        story
    )
    for source in (m13, m13.preparation, m101.preparation):
        assert "output_range" not in sl.explain(source, x=115, y=85).summary


def test_excluded_frames_are_named():
    result = integrate_quietly("M101", min_weight=0.75)
    assert result.preparation.excluded
    story = sl.explain(result, x=100, y=100)
    assert len(story.files) == result.preparation.count < 20
    index = next(iter(result.preparation.excluded))
    name = result.preparation.measurements.names[index]
    assert any(text.startswith(name) for text in story.excluded)
    assert f"Left out: {name}" in str(story).replace("\n    ", " ")
    assert index + 1 not in story.numbers
    with pytest.raises(ValueError, match="frame"):
        from stacklib.explore.story_plots import figure_mask

        figure_mask(result, index + 1)


def test_pixels_of_a_region_are_those_of_the_frames(m101):
    result = sl.integrate(
        m101.preparation.frames, m101.recipe.replace(weights="none"), region=(40, 60, 90, 50), progress=False
    )
    story = sl.explain(result, x=115, y=85)
    assert story.value == pytest.approx(float(result.image[0, 25, 75]), rel=1e-6)
    for x, y, name in ((39, 85, "x"), (130, 85, "x"), (115, 110, "y")):
        with pytest.raises(sl.RecipeError, match=name):
            sl.explain(result, x=x, y=y)
    x, y, _ = masks.most_rejected(result)
    assert 40 <= x < 130 and 60 <= y < 110


@pytest.mark.parametrize(("name", "value"), [("x", 300), ("x", -1), ("y", 224), ("channel", 3)])
def test_pixels_outside_are_refused(name, value, m101):
    with pytest.raises(sl.RecipeError, match=f"{name}: got {value}"):
        sl.explain(m101, **{name: value})


def test_a_pixel_without_names_is_refused(m101):
    with pytest.raises(sl.RecipeError, match=r"recipe: got 115, .* give the pixel by keyword"):
        sl.explain(m101, 115, 85, 0)


def test_no_data_at_all_is_said():
    story = tell(np.zeros(5, np.float32), Settings.plain(sl.Recipe(rejection="sigma"), 5), tuple("abcde"))
    assert "no frame has data" in story.summary and "border" in story.reasons[0]
    assert "nan" not in str(story)


def test_names_are_told_apart():
    names = [f"M101_Light_180s_{i:04}_c_d_r.xisf" for i in range(1, 12)]
    assert own_parts(names)[6] == "0007"
    assert own_parts(["only.fits"]) == ("only.fits",)
    assert own_parts(["a.fits", "ab.fits"]) == ("a", "ab")
    for width in range(5, 40):
        short = shortened(names, width)
        assert max(map(len, short)) <= width and len(set(short)) == len(names)


# masks -------------------------------------------------------------------------------------------


def test_masks_count_what_the_integration_counted(m101):
    for channel in (0, 2):
        verdict, step = masks.frame_verdicts(m101, channel)
        assert step == 1 and verdict.shape == (20, 224, 300) and verdict.dtype == np.uint8
        rule, fallen = m101.counts[channel], m101.mask_counts[channel]
        np.testing.assert_array_equal(
            (verdict % masks.BESIDE == HIGH).sum(axis=(1, 2)), rule.high + fallen.high
        )
        np.testing.assert_array_equal((verdict % masks.BESIDE == LOW).sum(axis=(1, 2)), rule.low + fallen.low)
        assert fallen.high[6] > 1000


def test_masks_of_large_images_are_thinned(m101, monkeypatch):
    whole, _ = masks.frame_verdicts(m101)
    monkeypatch.setattr(masks, "BAND_SAMPLES", 50_000)
    np.testing.assert_array_equal(masks.frame_verdicts(m101)[0], whole)
    monkeypatch.setattr(masks, "SCREEN_WIDTH", 100)
    thin, step = masks.frame_verdicts(m101)
    assert step == 3
    np.testing.assert_array_equal(thin, whole[:, 1::3, 1::3])


def test_most_rejected_and_typical_pixels(m101, m13):
    x, y, channel = masks.most_rejected(m101)
    lost = m101.rejection_low + m101.rejection_high
    assert m101.coverage[channel, y, x] == 1
    assert lost[channel, y, x] == lost[m101.coverage == 1].max()
    assert masks.most_rejected(m101, 2)[2] == 2
    pixels = masks.typical_pixels(m101)
    trail, ray, clean = (sl.explain(m101, **pixels[name]) for name in ("trail", "cosmic ray", "clean"))
    assert trail.verdict[6] == HIGH and trail.count(HIGH) == 1
    assert ray.count(HIGH) == 1 and ray.verdict[6] == KEPT
    assert clean.count(KEPT) == 20
    assert set(masks.typical_pixels(m13)) == set(pixels)
