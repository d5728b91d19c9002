"""Parameters: ranges, names, YAML, the rule of thumb, and how errors read."""

import dataclasses
import os
import re

import numpy as np
import pytest
import yaml
from conftest import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.errors import RecipeError, SaveError, StacklibError
from stacklib.recipe.recipe import BY_LIGHT, Job, Recipe
from stacklib.recipe.rules import RULES, rule_in_words

PARAMETERS = Recipe.parameters()
JOB_PARAMETERS = Job.parameters()

#: What notebooks and papermill files of users rely on.
DESIGN = """
rejection clip_low clip_high sigma_low sigma_high winsorization_cutoff percentile_low percentile_high
min_max_low min_max_high linear_fit_low linear_fit_high gesd_outliers_fraction gesd_significance
gesd_low_relaxation gesd_variant chauvenet_limit ccd_gain ccd_read_noise ccd_scale_noise
range_clip_low range_low range_clip_high range_high map_range_rejection report_range_rejection
rejection_normalization normalization scale_estimator weights weight_keyword min_weight combination reference
output_range
"""


def wrong_values(parameter):
    """Values that a parameter must refuse."""
    wrong = {
        bool: ["yes", 1, 0, None, "true", [True]],
        int: ["3", 1.5, True, None, float("nan"), float("inf"), [1]],
        float: ["3", True, None, float("nan"), float("inf"), "three", [1.0], np.bool_(True)],
        str: [None, True, 1.5, ["x"], {}],
        list: [None, True, 5, {}, *([[]] if parameter.default else [])],
    }[parameter.kind]
    if parameter.choices:
        wrong = [*wrong, "", "nonsense", f"{parameter.choices[0].upper()} ", 1]
    if parameter.kind in (int, float):
        step = 1 if parameter.kind is int else max(abs(parameter.low), 1) * 1e-6
        wrong = [*wrong, parameter.low - step, parameter.high + max(step, abs(parameter.high) * 1e-6)]
    return wrong


EVERY = [*((Recipe, p) for p in PARAMETERS.values()), *((Job, p) for p in JOB_PARAMETERS.values())]


@pytest.mark.parametrize(("kind", "parameter"), EVERY, ids=lambda value: getattr(value, "name", ""))
def test_wrong_values_are_refused_by_name(kind, parameter):
    for value in wrong_values(parameter):
        with pytest.raises(RecipeError) as error:
            kind(**{parameter.name: value})
        text = str(error.value)
        assert text.startswith(f"{parameter.name}: got {value!r}, expected "), text
        assert parameter.help in text
        assert isinstance(error.value, ValueError)
        assert isinstance(error.value, StacklibError)


@pytest.mark.parametrize(("kind", "parameter"), EVERY, ids=lambda value: getattr(value, "name", ""))
def test_right_values_are_taken(kind, parameter):
    right = {bool: [True, False], str: ["x", ""], list: ["x", ["x", "y"]]}.get(parameter.kind, [])
    of_a_form = {"region": "1, 2, 3, 4", "ignore_trails": "a.xisf:1,2-3,4, b.xisf:0,12-300,7"}
    if parameter.name in of_a_form:
        text = of_a_form[parameter.name]
        right = [text, text.split(", ")]
    right = parameter.choices or right
    if parameter.kind in (int, float):
        right = [parameter.low, parameter.high, np.float64(parameter.low), np.float32(parameter.default)]
    for value in [*right, parameter.default]:
        same = (
            {"normalization": value}
            if parameter.name == "rejection_normalization" and value in BY_LIGHT
            else {}
        )
        assert getattr(kind(**{parameter.name: value}, **same), parameter.name) == value


def test_the_fields_of_the_design_are_there():
    assert set(DESIGN.split()) <= set(PARAMETERS)
    assert set(PARAMETERS) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("parameter", [p for _, p in EVERY], ids=lambda p: p.name)
def test_every_parameter_explains_itself(parameter):
    assert parameter.help.endswith(".")
    assert "\n" not in parameter.help
    assert len(parameter.help) < 110
    assert parameter.expected
    assert parameter.check(parameter.default) == parameter.default
    if parameter.recommended:
        assert parameter.low <= parameter.recommended[0] <= parameter.recommended[1] <= parameter.high


def test_the_rule_of_thumb():
    few, many = Recipe.suggest(15), Recipe.suggest(16)
    assert (few.rejection, many.rejection) == ("sigma", "winsorized_sigma")
    for recipe in (few, many):
        assert (recipe.sigma_low, recipe.sigma_high) == (3.2, 2.9)
    assert Recipe.suggest([None] * 15) == few
    for where in (SAMPLES / "M13" / "4_Registered", str(SAMPLES / "M13")):
        assert Recipe.suggest(where) == few
    assert {Recipe().rule_for(n) for n in range(10, 16)} == {"sigma"}
    assert {Recipe().rule_for(n) for n in (*range(1, 10), 16, 17, 500, 10**6)} == {"winsorized_sigma"}
    help_text = Recipe.parameters()["rejection"].help
    assert "auto: sigma for 10 to 15 frames, otherwise winsorized_sigma." in help_text
    assert Recipe(rejection="gesd").rule_for(3) == "gesd"


def test_a_recipe_is_immutable():
    recipe = Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.sigma_low = 4
    other = recipe.replace(sigma_low=4)
    assert (recipe.sigma_low, other.sigma_low) == (3.2, 4.0)
    assert recipe == Recipe()
    assert hash(recipe) == hash(Recipe())
    assert isinstance(other.sigma_low, float)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("sigma_hi", "did you mean sigma_high?"), ("Rejection", "rejection"), ("xyzzy", "known parameters")],
)
def test_an_unknown_name_gets_a_suggestion(tmp_path, name, hint):
    with pytest.raises(RecipeError, match=rf"unknown parameter '{name}'; .*{re.escape(hint)}"):
        Recipe().replace(**{name: 3})
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{name}: 3\n")
    for kind in (Recipe, Job):
        with pytest.raises(RecipeError, match=rf"recipe\.yaml: unknown parameter '{name}'"):
            kind.load(path)


def values_of(parameter):
    if parameter.name == "ignore_trails":
        return st.lists(st.sampled_from(["a, b.xisf:1,2-3,4", "c:d.fits:12,0-5,99"]), min_size=1, max_size=2)
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    if parameter.kind is bool:
        return st.booleans()
    if parameter.kind is int:
        return st.integers(int(parameter.low), int(parameter.high))
    if parameter.kind is float:
        return st.floats(parameter.low, parameter.high)
    return st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "))


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({}, optional={name: values_of(p) for name, p in PARAMETERS.items()}))
def test_yaml_keeps_every_value(values):
    if values.get("rejection_normalization") in BY_LIGHT:
        values["normalization"] = values["rejection_normalization"]
    recipe = Recipe.from_dict(values)
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.replace(**values) == recipe


@pytest.mark.parametrize("mode", BY_LIGHT)
def test_rejection_by_light_needs_the_same_normalization(mode):
    with pytest.raises(RecipeError, match=f"rejection_normalization: {mode} .* additive_scaling; set norm"):
        Recipe(rejection_normalization=mode)
    recipe = Recipe(rejection_normalization=mode, normalization=mode)
    assert recipe.corrects_samples and recipe.needs_photometry
    # The image alone may be matched by light.
    assert Recipe(normalization=mode).rejection_normalization == "scale_zero_offset"
    assert not Recipe().needs_photometry


def test_a_saved_recipe(tmp_path):
    recipe = Recipe(rejection="gesd", gesd_significance=1e-5, reference="light: 1 #2.xisf", sigma_low=3.25)
    path = recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(path) == Recipe.load(str(path)) == recipe
    text = path.read_text(encoding="utf-8")
    for name, parameter in PARAMETERS.items():
        assert re.search(rf"^{name}: .*  # {re.escape(parameter.help)}", text, re.MULTILINE)
    assert "[sigma]" in text
    Recipe().save(path)
    assert Recipe.load(path) == Recipe()
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_job_is_flat(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "frames: [b.xisf, a.xisf]\noutput: out\ninteractive: false\nmemory: 4GB\n"
        "rejection: gesd\nsigma_low: 4\n"
    )
    job = Job.load(path)
    assert job.frames == ["b.xisf", "a.xisf"]
    assert (job.output, job.interactive, job.memory) == (str(tmp_path / "out"), False, "4GB")
    assert job.recipe == Recipe(rejection="gesd", sigma_low=4)
    assert Recipe.load(path) == job.recipe
    assert Job.from_dict(job.to_dict()) == job
    assert set(job.to_dict()) == set(PARAMETERS) | set(JOB_PARAMETERS)
    assert not set(PARAMETERS) & set(JOB_PARAMETERS)
    one = tmp_path / "one.yaml"
    one.write_text("frames: lights/*.xisf\n")
    assert Job.load(one).frames == "lights/*.xisf"


def test_an_empty_file_means_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing yet\n")
    assert Recipe.load(path) == Recipe()
    assert Job.load(path) == Job()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rejection: [sigma\nsigma_low: 3", r"is not valid YAML at line \d"),
        (b"\trejection: sigma", "is not valid YAML at line 1"),
        (b"- a\n- b", "contains a list, expected lines of 'name: value'"),
        (b"sigma", "contains a str"),
        (b"42", "contains a int"),
        (b"rejection: \xff\xfe", "is not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"a: b: c", "is not valid YAML at line 1"),
        (b"sigma_low: 100", r"sigma_low: got 100, expected a number from 0\.5 to 20"),
        (b"rejection: sigmas", r"rejection: got 'sigmas', expected one of auto, none"),
        (b"clip_low: 'no'", r"clip_low: got 'no', expected True or False"),
        (b"sigma_low: 3,2", "sigma_low: got '3,2', expected a number"),
        (b"1: 2", "unknown parameter 1"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "my recipe.yaml"
    path.write_bytes(content)
    for kind in (Recipe, Job):
        with pytest.raises(RecipeError, match=rf"my recipe\.yaml: .*{message}"):
            kind.load(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot be read \(No such file.*name a YAML file"):
        Recipe.load(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match=r"cannot be read"):
        Recipe.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user without all rights")
def test_a_file_without_permission(tmp_path):
    path = Recipe().save(tmp_path / "recipe.yaml")
    path.chmod(0)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: cannot be read \(Permission"):
        Recipe.load(path)


@pytest.mark.parametrize("rule", RULES)
def test_in_words_only_what_matters(rule):
    lines = Recipe(rejection=rule).in_words(20)
    names = [line.split(":")[0] for line in lines]
    assert lines[0] == f"rejection: {rule}"
    assert len(set(names)) == len(names)
    mine = set(RULES[rule].parameters)
    everyones = set().union(*(spec.parameters for spec in RULES.values()))
    assert mine <= set(names)
    assert not (everyones - mine) & set(names)
    assert all(re.fullmatch(r"[a-z_]+: \S.*\S|[a-z_]+: \S", line) for line in lines)


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"rejection": "percentile"}, "sigma_low", "not used by percentile"),
        ({"rejection": "auto"}, "gesd_variant", "not used by sigma"),
        ({"rejection": "none"}, "clip_high", "rejection is none"),
        ({"clip_low": False}, "sigma_low", "clip_low is off"),
        ({"rejection": "min_max", "clip_high": False}, "min_max_high", "clip_high is off"),
        ({"range_clip_low": False}, "range_low", "range_clip_low is off"),
        ({}, "range_high", "range_clip_high is off"),
        ({"combination": "median"}, "weights", "combination is median"),
        ({"combination": "median", "weights": "csv"}, "weight_file", "combination is median"),
        ({}, "weight_file", "weights is noise"),
        ({"weights": "csv"}, "weight_keyword", "weights is csv"),
        ({"weights": "none"}, "min_weight", "weights is none"),
    ],
)
def test_parameters_without_effect_are_named(changes, name, reason):
    assert Recipe(**changes).without_effect([name], 12) == [f"{name} ({reason})"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["rejection", "sigma_low", "sigma_high", "clip_low", "clip_high", "range_low", "normalization"]),
        ({}, ["weights", "min_weight", "combination", "reference", "output_range", "range_clip_high"]),
        ({"range_clip_high": True}, ["range_high"]),
        ({"weights": "csv"}, ["weight_file", "min_weight"]),
        ({"weights": "keyword"}, ["weight_keyword"]),
        ({"clip_low": False}, ["clip_low", "sigma_high"]),
        ({"rejection": "gesd"}, ["gesd_variant", "clip_low", "gesd_significance"]),
    ],
)
def test_parameters_with_an_effect_are_not_named(changes, names):
    assert Recipe(**changes).without_effect(names, 12) == []


@pytest.mark.parametrize("rule", ["auto", *RULES])
def test_each_rule_reads_its_own_parameters(rule):
    recipe = Recipe(rejection=rule)
    own = RULES[recipe.rule_for(20)].parameters
    others = {name for spec in RULES.values() for name in spec.parameters} - set(own)
    assert recipe.without_effect(own, 20) == []
    assert len(recipe.without_effect(others, 20)) == len(others)


def test_a_setting_without_effect_is_a_warning_but_not_a_limit_of_another_rule():
    assert Recipe(range_high=0.9, weight_file="w.csv").warnings_for(12) == [
        "without effect: range_high (range_clip_high is off), weight_file (weights is noise)"
    ]
    assert Recipe(weights="median", combination="median").warnings_for(12) == [
        "without effect: weights (combination is median)"
    ]
    assert Recipe(rejection="percentile", sigma_low=2.5, gesd_variant="pixinsight").warnings_for(12) == []
    assert Recipe(range_clip_high=True, range_high=0.9).warnings_for(12) == []


def test_in_words():
    lines = Recipe(sigma_low=3.4, clip_high=False, reference="a.xisf", range_clip_high=True).in_words(12)
    assert "rejection: sigma (chosen by the number of frames)" in lines
    for line in ("sigma_low: 3.4 sigma", "clip_high: no", "reference: a.xisf", "range_high: 0.98 raw value",
                 "weights: noise", "min_weight: 0.005"):  # fmt: skip
        assert line in lines
    assert Recipe().in_words(16)[0].startswith("rejection: winsorized_sigma (chosen")
    text = "\n".join(Recipe(combination="median").in_words(12))
    assert "weight" not in text
    assert "weight_keyword: WGT" in Recipe(weights="keyword", weight_keyword="WGT").in_words(9)
    assert "weight_file: w.csv" in Recipe(weights="csv", weight_file="w.csv").in_words(9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rejection": "none"}, "no rejection"),
        ({"rejection": "min_max"}, "min max 1 / 1"),
        ({"rejection": "winsorized_sigma"}, "winsorized sigma 3.2 / 2.9"),
        (
            {"rejection": "winsorized_sigma", "winsorization_cutoff": 4.0},
            "winsorized sigma 3.2 / 2.9, winsorization cutoff 4",
        ),
        ({"rejection": "sigma", "sigma_low": 2.5, "clip_high": False}, "sigma 2.5 / off"),
        ({"rejection": "ccd_noise", "ccd_gain": 0.7}, "ccd noise 3.2 / 2.9, gain 0.7"),
        ({"rejection": "chauvenet", "clip_low": False}, "chauvenet, limit 0.1, low off"),
        (
            {"rejection": "gesd"},
            "gesd, outliers fraction 0.3, significance 0.05, low relaxation 1, variant rosner",
        ),
    ],
)
def test_a_rule_with_its_limits(changes, words):
    assert rule_in_words(changes["rejection"], Recipe(**changes).to_dict()) == words


def test_a_rule_without_known_limits():
    assert rule_in_words("averaged_sigma", {}) == "averaged sigma" and rule_in_words("", {}) == ""


def test_a_recipe_that_cannot_be_saved_names_its_file(tmp_path):
    path = tmp_path / "missing" / "recipe.yaml"
    with pytest.raises(SaveError, match=r"recipe\.yaml: cannot be written"):
        Recipe().save(path)
