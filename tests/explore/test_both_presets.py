"""The presets classic and measured side by side, on a night whose truth is known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import stacklib as sl
from stacklib.explore.both_presets import BothPresets
from stacklib.explore.trials import Trials
from stacklib.notebook import compare_presets, show_night
from stacklib.simulate import simulate_night

pytest.importorskip("sep")


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Clouds, and frames with twice the noise of others."""
    folder = tmp_path_factory.mktemp("clouds")
    night = simulate_night(8, 240, 320, 1, "field", 6401, transparency=(0.4, 1), noise=(1, 2), dither=3)
    night.save(folder, "fits", "f32")
    return night, sl.open_frames(folder)


@pytest.fixture(scope="module")
def both(night):
    trials = Trials(night[1])
    trials.read((20, 10, 280, 220))
    return BothPresets(trials)


def test_starlight_is_that_of_the_frames_as_they_are_scaled(night, both):
    true = night[0].transparency
    classic = both.results["classic"].preparation
    weights, factor = classic.weights[:, 0], classic.factor[:, 0]
    light = (weights * factor * true).sum() / weights.sum() / true[classic.reference]
    assert light < 0.9
    # Nine stars tell the light of a frame within 1 %, and the rule takes some of their cores.
    assert both.starlight["classic"] == pytest.approx(light, rel=0.03)
    assert both.starlight["measured"] == pytest.approx(1, abs=0.015)
    assert classic.reference == both.results["measured"].preparation.reference


def test_noise_for_light_is_near_what_the_frames_allow(both):
    noise = dict(zip(both.table["preset"], both.table["noise_for_light"], strict=True))
    assert both.table["noise_for_light"].unit == "%"
    assert 0.96 * both.best < noise["measured"] / 100 < 1.1 * both.best
    assert noise["classic"] > 1.08 * noise["measured"]
    more = (noise["classic"] / noise["measured"]) ** 2 - 1
    assert f"Classic needs {100 * more:.0f} % more frames to match measured." in both.words


def test_other_settings_are_those_given(night):
    trials = Trials(night[1])
    trials.read((20, 10, 100, 100))
    recipe = sl.Recipe(sigma_high=2.2, combination="median", scale_estimator="mad")
    for name, result in BothPresets(trials, recipe).results.items():
        assert result.recipe.sigma_high == 2.2 and result.recipe.scale_estimator == "mad"
        assert result.recipe.combination == "average", name
        assert result.recipe == result.recipe.replace(preset=name, rejection=result.rule)


def test_the_figure_shows_both_and_their_difference(both):
    axes = [axes for axes in both.figure().axes if axes.images]
    assert [a.get_title(loc="left") for a in axes] == ["Classic", "Measured", "Classic minus measured"]
    assert abs(np.ma.median(axes[2].images[0].get_array())) < 0.5


def test_a_result_is_compared_without_comparing_its_frames_again(night, monkeypatch, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        result = sl.integrate(night[1], sl.Recipe.from_dict({"preset": "measured"}), progress=False)

    def never(*arguments, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr("stacklib.normalization.preparation.measure_photometry", never)
    both = compare_presets(result, wanted=True)
    assert both.region == (0, 0, 320, 240)
    assert "for equal starlight" in capsys.readouterr().out
    np.testing.assert_array_equal(both.results["measured"].image, result.image)
    show_night(result)
    assert "Figure" in capsys.readouterr().out


def test_what_is_not_compared_is_said(night, both, monkeypatch, capsys):
    assert compare_presets(both.results["classic"], wanted=False) is None
    assert "compare is False" in capsys.readouterr().out
    show_night(both.results["classic"])
    assert "not compared by their light" in capsys.readouterr().out

    def refuse(*arguments):
        raise sl.IntegrationError("no light")

    monkeypatch.setattr(BothPresets, "of_result", refuse)
    assert compare_presets(both.results["classic"], wanted=True) is None
    assert "Not compared: no light" in capsys.readouterr().out
