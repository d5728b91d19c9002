"""Parameters of the rejection that looks at neighbors."""

import pytest
import yaml

from stacklib import Recipe
from stacklib.errors import RecipeError
from stacklib.output.history import plain
from stacklib.recipe.run_record import _value


def test_which_means_are_used():
    assert Recipe().spatial_means(20, 1) == ()
    assert Recipe().spatial_means(20, 3) == ("colour",)
    assert Recipe(joint_colour=False).spatial_means(20, 3) == ()
    assert Recipe(footprints="trails").spatial_means(20, 1) == ("line",)
    everything = Recipe(footprints="all", large_scale_high=True, masks="own")
    assert everything.spatial_means(5, 3) == ("large_scale", "footprint", "line", "colour", "own")
    # Without verdicts of a rule there is nothing to grow.
    assert everything.replace(rejection="none").spatial_means(5, 3) == ("footprint", "line", "own")
    assert "large_scale" not in everything.replace(clip_high=False).spatial_means(5, 3)
    # The channels of calibration frames were not interpolated.
    for name in ("bias", "dark", "flat"):
        assert Recipe.from_dict({"preset": name}).spatial_means(20, 3) == (), name
    # What other programs give; without a preset, and with measured, dots of color go.
    assert Recipe.from_dict({"preset": "classic", "rejection": "sigma"}).spatial_means(20, 3) == ()
    for recipe in (Recipe.suggest(20), Recipe.from_dict({"preset": "measured"})):
        assert recipe.spatial_means(20, 3) == ("colour",)


def test_off_without_quotes():
    assert Recipe.from_dict(yaml.safe_load("footprints: off")) == Recipe()
    assert Recipe.from_dict(yaml.safe_load(Recipe().to_yaml())) == Recipe()
    with pytest.raises(RecipeError, match="footprints: got True, expected one of off, trails, all"):
        Recipe.from_dict(yaml.safe_load("footprints: on"))
    with pytest.raises(RecipeError, match="weights: got False"):
        Recipe(weights=False)
    assert Recipe(ignore_trails=[]) == Recipe()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", []),
        ("light 7.xisf:1,2-3,4", [("light 7.xisf", 1, 2, 3, 4)]),
        (
            "a, b.fits:2,0-99,5, C:c.fits:13,7-8,9",
            [("a, b.fits", 2, 0, 99, 5), ("C:c.fits", 13, 7, 8, 9)],
        ),
        (["a.fits:1,2-3,4", "b.fits:5,6-7,8"], [("a.fits", 1, 2, 3, 4), ("b.fits", 5, 6, 7, 8)]),
    ],
)
def test_names_of_trails(given, found):
    recipe = Recipe(footprints="trails", ignore_trails=given)
    assert recipe.ignored_trails == found
    assert hash(recipe) == hash(Recipe.from_dict(recipe.to_dict()))
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe
    # As in the HISTORY of a FITS image.
    assert _value(plain(recipe.ignore_trails)) == recipe.ignore_trails


@pytest.mark.parametrize(
    "given", ["light.xisf", "light.xisf:1", "light.xisf:1,2-3,4 b", ["a.fits:1,2-3,4", "b.fits"]]
)
def test_a_name_that_is_none(given):
    with pytest.raises(RecipeError, match=r"ignore_trails: got '.*', expected file name and ends"):
        Recipe(ignore_trails=given)


def test_settings_without_effect_are_told():
    idle = Recipe(footprint_strength=1.1, ignore_trails="a.fits:1,2-3,4", large_scale_growth=3).warnings_for(
        20
    )
    assert idle == [
        "without effect: footprint_strength (footprints is off), ignore_trails (footprints is off), "
        "large_scale_growth (large_scale_low and large_scale_high are off)"
    ]
    assert "large_scale_high (rejection is none)" in Recipe(
        rejection="none", large_scale_high=True
    ).without_effect(["large_scale_high"], 20)
    assert Recipe(clip_low=False, large_scale_low=True).warnings_for(20) == [
        "without effect: large_scale_low (clip_low is off)"
    ]


def test_the_settings_in_the_report():
    words = Recipe(footprints="all", large_scale_high=True, masks="own").in_words(20, 3)
    for line in (
        "footprints: all",
        "footprint_strength: 1",
        "joint_colour: yes",
        "masks: own",
        "large_scale_growth: 2 pixels",
    ):
        assert line in words
    assert not any("joint" in line or "large" in line for line in Recipe().in_words(20, 1))
