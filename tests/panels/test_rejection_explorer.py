"""The rejection explorer, driven from code and through its widgets, without a browser."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as widgets
import numpy as np
import pytest
from astropy.io import fits
from conftest import SAMPLES

import stacklib as sl
from stacklib.errors import StacklibWarning
from stacklib.explore import trials
from stacklib.explore.region_trials import brightest_region
from stacklib.panels import RejectionExplorer, Viewer
from stacklib.recipe.rules import RULES
from stacklib.utils.parameters import read_yaml

REGION = (60, 50, 96, 80)


def make(target: str = "M13", **options) -> RejectionExplorer:
    return RejectionExplorer(SAMPLES / target / "4_Registered", **{"region": REGION} | options)


@pytest.fixture
def panel() -> RejectionExplorer:
    return make()


@pytest.fixture
def live(panel) -> RejectionExplorer:
    assert panel.widget is panel.widget
    return panel


def pixels(viewer: Viewer) -> np.ndarray:
    """What a viewer of the panel shows, (channels, height, width)."""
    return viewer._pyramid.rows.read(0, viewer.shape[1])


def control(panel: RejectionExplorer, name: str) -> widgets.Widget:
    """The control of a parameter."""
    return panel._panel.controls.each[name]


def viewers(panel: RejectionExplorer) -> dict[str, Viewer]:
    return panel._panel.pictures.viewers


def message(panel: RejectionExplorer) -> str:
    return panel._panel.message.value


# from code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["M13", "M101"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rejection": "sigma", "sigma_high": 2.5},
        {"rejection": "percentile", "weights": "none"},
        {"rejection": "none", "normalization": "multiplicative"},
        {"scale_estimator": "mad", "combination": "median"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "suggested",
)
def test_numbers_are_those_of_integrate(target, changes):
    panel = make(target)
    panel.recipe = panel.recipe.replace(**changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        folder = SAMPLES / target / "4_Registered"
        whole = sl.integrate(folder, panel.recipe, region=REGION, progress=False)
    assert np.array_equal(panel.result.image, whole.image)
    assert np.array_equal(panel.result.rejection_low, whole.rejection_low)
    assert np.array_equal(panel.result.rejection_high, whole.rejection_high)
    numbers = panel.numbers
    assert numbers["rejected_low"] == 100 * whole.rejected_low.mean()
    assert numbers["rejected_high"] == 100 * whole.rejected_high.mean()
    assert (numbers["expected_low"], numbers["expected_high"]) == tuple(
        100 * part for part in whole.expected_rejection
    )
    assert numbers["noise_penalty"] == 100 * (whole.expected_noise_factor - 1)


def test_lower_limits_reject_more_and_cost_more(panel):
    panel.recipe = panel.recipe.replace(sigma_low=2.0, sigma_high=2.0)
    more = panel.numbers
    panel.recipe = panel.recipe.replace(sigma_low=4.0, sigma_high=4.0)
    less = panel.numbers
    assert more["rejected_high"] > less["rejected_high"]
    assert more["noise_penalty"] > less["noise_penalty"]


def test_rejection_removes_the_light_of_outliers():
    panel = make("M101")
    assert panel.numbers["residual_light"] < 20
    panel.recipe = panel.recipe.replace(rejection="none")
    assert panel.numbers["residual_light"] == 100
    assert not panel.model.difference().any()


def test_a_median_is_compared_with_the_average():
    panel = make("M101")
    average = panel.numbers["residual_light"]
    panel.recipe = panel.recipe.replace(combination="median", rejection="none")
    assert 0 <= panel.numbers["residual_light"] < 20 and average < 20
    assert "% of that in the plain average" in panel.summary


def test_region_is_moved_and_cut_to_lie_inside(panel):
    panel.region = (-20, 1000, 100, 60)
    assert panel.region == (0, 196, 100, 60)
    panel.region = (5, 5, 5000, 5000)
    assert panel.region == (0, 0, 320, 256)
    assert panel.result.image.shape == (1, 256, 320)


def test_sizes_that_are_missing_are_512(panel):
    with pytest.warns(
        StacklibWarning, match=r"\(60, 50, 0, 80\) do not fit .* 320 x 256 .* \(0, 50, 320, 80\)"
    ):
        assert make(region=(60, 50, 0, 80)).region == (0, 50, 320, 80)
    assert make(region=(0, 0, 0, 0)).region == make(region=None).region == (0, 0, 320, 256)


def test_default_region_holds_the_brightest_structure():
    overview = np.full((1, 400, 400), 0.1, np.float32)
    overview[0, 240:320, 200:280] = 0.5
    left, top, width, height = brightest_region(overview, 4)
    assert (width, height) == (512, 512)
    assert left <= 800 and left + width >= 1120 and top <= 960 and top + height >= 1280


def test_default_region_is_found_beside_pixels_that_are_no_numbers():
    overview = np.full((3, 300, 400), 0.1, np.float32)
    overview[:, 140:200, 250:320] = 0.5
    overview[:, :, :30] = overview[0, 100, 100] = np.nan
    overview[1, 5, 300] = np.inf
    left, top, _, _ = brightest_region(overview, 4)
    assert left <= 1000 and left + 512 >= 1280 and top <= 560 and top + 512 >= 800
    assert brightest_region(np.full((1, 300, 400), np.nan, np.float32), 4)[2:] == (512, 512)


@pytest.fixture(scope="module")
def with_borders(tmp_path_factory) -> Path:
    """Ten frames with NaN in the left part and in one other pixel of each."""
    folder, random = tmp_path_factory.mktemp("borders"), np.random.default_rng(2)
    for number in range(10):
        frame = 0.1 + 0.004 * random.standard_normal((200, 240), dtype=np.float32)
        frame[60:80, 150:170] += 0.2
        frame[:, :50] = frame[number, 100] = np.nan
        fits.writeto(folder / f"light_{number}.fits", frame)
    return folder


@pytest.mark.parametrize("region", [None, (0, 0, 48, 60), (40, 0, 100, 100)])
def test_frames_with_borders_that_are_no_numbers(with_borders, region):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        panel = RejectionExplorer(with_borders, region=region)
    assert panel.widget is not None
    panel.figure().savefig(io.BytesIO())
    assert "residual outlier signal" in panel.summary
    for name, picture in viewers(panel).items():
        assert picture.shape[1:] == panel.region[:1:-1], name


def test_frames_without_noise_can_be_shown_without_weights(tmp_path):
    for number in range(4):
        fits.writeto(tmp_path / f"light_{number}.fits", np.full((40, 50), 0.1 + 0.01 * number, np.float32))
    panel = RejectionExplorer(tmp_path, sl.Recipe(weights="none", normalization="none"))
    assert panel.result.image.shape == (1, 40, 50)
    with pytest.raises(sl.IntegrationError, match="weights noise"):
        panel.recipe = panel.recipe.replace(weights="noise")


def test_use_writes_a_recipe(panel, tmp_path):
    panel.recipe = panel.recipe.replace(sigma_high=2.7, weights="none")
    path = panel.use(tmp_path / "recipe.yaml")
    assert sl.Recipe.load(path) == panel.recipe == sl.Job.load(path).recipe


def test_use_names_the_frames_that_were_shown(panel, tmp_path):
    path = panel.use(tmp_path / "recipe.yaml")
    assert sl.open_frames(sl.Job.load(path).frames).names == panel.model.frames.names
    assert panel.saved == f"Saved in {path}, for the 12 frames shown here."
    sl.Recipe().save(path)
    panel.use(path)
    assert sl.open_frames(sl.Job.load(path).frames).names == panel.model.frames.names


@pytest.mark.parametrize("count", [7, 12])
def test_use_keeps_a_choice_among_the_frames_that_were_shown(panel, tmp_path, count):
    path, folder = tmp_path / "recipe.yaml", SAMPLES / "M13" / "4_Registered"
    names = [str(folder / name) for name in panel.model.frames.names[:count]]
    path.write_text(f"memory: 1GB\nframes: {names}\nsigma_high: 5\n", encoding="utf-8")
    panel.use(path)
    job = sl.Job.load(path)
    assert job.frames == names and job.recipe == panel.recipe and job.memory == "1GB"
    assert "output:" not in path.read_text(encoding="utf-8")
    assert ("the 7 frames that it lists" in panel.saved) == (count == 7)


@pytest.mark.parametrize("listed", [[SAMPLES / "M101" / "4_Registered"], ["a.xisf", "b.xisf"]])
def test_use_refuses_the_file_of_another_target(live, tmp_path, listed):
    path = tmp_path / "recipe.yaml"
    text = f"memory: 1GB\nframes: {[str(file) for file in listed]}\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(sl.RecipeError, match="none of the 12 shown here; it belongs to another target"):
        live.use(path)
    live._panel.file.value = str(path)
    live._panel._save()
    assert "Not saved" in message(live) and path.read_text(encoding="utf-8") == text


def test_use_saves_beside_the_frames_and_undo_brings_the_former_settings_back(tmp_path):
    shutil.copytree(SAMPLES / "M13" / "4_Registered", tmp_path / "M13" / "4_Registered")
    panel = make(tmp_path / "M13")
    path = tmp_path / "M13" / "recipe.yaml"
    assert panel.path == path and "Not saved yet" in panel.saved_in_words()
    panel.use()
    assert panel.saved == f"Saved in {path}, for all 12 frames of M13." and "frames" not in read_yaml(path)
    assert panel.saved_in_words() == f"Saved in {path}."
    panel.recipe = panel.recipe.replace(sigma_high=2.2)
    assert "holds other settings" in panel.saved_in_words()
    assert panel.widget is not None
    panel._panel._save()
    assert sl.Recipe.load(path).sigma_high == 2.2
    panel._panel._undo()
    assert sl.Recipe.load(path).sigma_high == panel.recipe.sigma_high == 2.9
    assert control(panel, "sigma_high").number == 2.9 and "as it was before" in message(panel)


def test_use_refuses_to_replace_what_is_no_job_file(panel, tmp_path):
    path = tmp_path / "notes.yaml"
    path.write_text("milk: 2\n", encoding="utf-8")
    with pytest.raises(sl.RecipeError):
        panel.use(path)
    assert path.read_text(encoding="utf-8") == "milk: 2\n"


def test_figure_shows_four_pictures_and_the_numbers(panel):
    figure = panel.figure()
    figure.savefig(io.BytesIO())
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert sum(bool(title) for title in titles) == 4
    assert all(line in figure.get_suptitle() for line in panel.summary.splitlines())


# through the widgets -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_shows_its_own_parameters(live, rule):
    live.recipe = live.recipe.replace(rejection=rule)
    shown = tuple(getattr(c, "name", None) or c.description for c in live._panel.controls.rule_box.children)
    assert shown == RULES[rule].parameters


def test_a_slider_changes_recipe_pictures_and_numbers(live):
    before, numbers = pixels(viewers(live)["high"]), live._panel.numbers.value
    control(live, "sigma_high").slider.value = 2.0
    assert live.recipe.sigma_high == 2.0
    assert pixels(viewers(live)["high"]).sum() > before.sum() and live._panel.numbers.value != numbers
    assert f"{live.numbers['rejected_high']:.3f} %" in live._panel.numbers.value


def test_what_a_slider_leaves_out_is_made_when_it_is_asked_for(live):
    control(live, "sigma_high").slider.value = 2.4
    shown = live.model.shown
    assert np.isnan(shown.uncertainty).all()
    result = live.result
    assert live.result is result is live.model.shown
    expected = live.model.trials.integrate(live.recipe)
    for name in ("image", "rejection_low", "rejection_high", "coverage", "uncertainty"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)
    for name in ("image", "rejection_low", "rejection_high", "coverage"):
        np.testing.assert_array_equal(getattr(shown, name), getattr(result, name), err_msg=name)
    assert np.isfinite(result.uncertainty).any()


def test_a_slider_gives_round_numbers(live):
    control(live, "sigma_high").slider.value = 2.7000000000000006
    assert control(live, "sigma_high").box.value == 2.7 == live.recipe.sigma_high


def test_setting_the_recipe_moves_the_widgets(live):
    recipe = live.recipe.replace(rejection="gesd", gesd_significance=0.1, weights="none", clip_low=False)
    live.recipe = recipe
    assert live.recipe == recipe
    assert control(live, "gesd_significance").number == 0.1
    assert control(live, "weights").value == "none" and not control(live, "clip_low").value


def test_unusable_settings_are_reported_and_change_nothing(live):
    live.recipe = before = live.recipe.replace(weight_keyword="NOWEIGHT")
    control(live, "weights").value = "keyword"
    assert live.recipe == before and "NOWEIGHT" in message(live)
    control(live, "weights").value = "noise"
    assert "NOWEIGHT" not in message(live)


def test_trails_are_switched_on_and_kept(trailed_folder, monkeypatch):
    searched, find = [], trials.search_frames

    def counted(samples, preparation, **options):
        searched.append(preparation.recipe)
        return find(samples, preparation, **options)

    monkeypatch.setattr(trials, "search_frames", counted)
    panel = RejectionExplorer(trailed_folder, region=(40, 20, 96, 80))
    assert panel.widget.children and "neighbors" not in panel._panel.numbers.value
    control(panel, "footprints").value = "trails"
    first = panel.recipe
    assert searched == [first] and first.footprints == "trails"
    assert panel._panel.again.disabled
    assert "2 trails found in 2 of 10 frames" in panel._panel.trails.words.value
    masked = panel.numbers["masked"]
    assert masked > 0.5 and f"trail {masked:.3f} %" in panel._panel.numbers.value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        whole = sl.integrate(trailed_folder, first, region=panel.region, progress=False)
    np.testing.assert_array_equal(panel.result.image, whole.image)
    # A step of a slider takes what is known, and says so.
    control(panel, "sigma_high").slider.value = 2.4
    assert len(searched) == 1 and panel.result.masks is not None
    assert not panel._panel.again.disabled and "search again for these settings" in panel._panel.numbers.value
    panel._panel.again.click()
    assert (
        len(searched) == 2
        and panel._panel.again.disabled
        and "search again" not in panel._panel.numbers.value
    )
    # Another region has the same trails.
    panel.region = (30, 20, 80, 80)
    assert len(searched) == 2 and "2 trails found" in panel.summary
    control(panel, "footprints").value = "off"
    assert panel.result.masks is None and "neighbors" not in panel._panel.numbers.value
    control(panel, "footprints").value = "trails"
    assert len(searched) == 2
    # From code the result is that of integrate.
    panel.recipe = first
    assert len(searched) == 3
    control(panel, "footprint_strength").slider.value = 0.6
    assert len(searched) == 4 and searched[-1].footprint_strength == panel.recipe.footprint_strength == 0.6


def test_a_trail_is_switched_off_without_another_search(trailed_folder, monkeypatch, tmp_path):
    panel = RejectionExplorer(trailed_folder, region=(40, 20, 96, 80), path=tmp_path / "recipe.yaml")
    panel.recipe = panel.recipe.replace(footprints="all")
    trails, first, image = panel._panel.trails, panel.recipe, panel.result.image
    monkeypatch.setattr(trials, "search_frames", lambda *_, **__: pytest.fail("searched again"))
    names = list(panel.trails["name"])
    assert [box.value for box in trails.boxes] == [True, True] and not any(b.disabled for b in trails.boxes)
    assert trails.boxes[0].description.startswith("Frame 4: ") and " sigma" in trails.boxes[0].description

    def assert_as_run(ignored):
        assert panel.recipe == first.replace(ignore_trails=ignored)
        assert [box.value for box in trails.boxes] == [name not in ignored for name in names]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StacklibWarning)
            whole = sl.integrate(trailed_folder, panel.recipe, region=panel.region, progress=False)
        for plane in ("image", "rejection_low", "rejection_high", "coverage"):
            np.testing.assert_array_equal(getattr(panel.result, plane), getattr(whole, plane), err_msg=plane)
        assert list(panel.trails["reason"]) == list(whole.trails["reason"])
        assert list(panel.result.masks) == list(whole.masks)
        for place in whole.masks:
            np.testing.assert_array_equal(panel.result.masks.flags(*place), whole.masks.flags(*place))

    boxes = list(trails.boxes)
    trails.boxes[0].value = False
    assert_as_run(names[:1])
    assert "not rejected: ignored" in trails.boxes[0].description
    assert not np.array_equal(panel.result.image, image)
    trails.boxes[1].value = False
    assert_as_run(names)
    trails.boxes[0].value = True
    assert_as_run(names[1:])
    panel._panel.controls.back.click()
    assert_as_run(names)
    for _ in range(2):
        panel._panel.controls.back.click()
    assert_as_run([])
    np.testing.assert_array_equal(panel.result.image, image)
    # The same boxes all the time: they keep the keyboard.
    assert trails.boxes == boxes
    panel.use_trail(names[1], False)
    panel.use()
    assert sl.Recipe.load(panel.path).ignore_trails == names[1:]
    with pytest.raises(sl.RecipeError, match="no such trail was found"):
        panel.use_trail("light.xisf:1,2-3,4")


def test_the_list_of_trails_says_what_is_nowhere_and_where_the_others_are(trailed_folder):
    panel = RejectionExplorer(trailed_folder, region=(0, 100, 60, 30))
    trails = panel._panel.trails
    assert trails.title == "Trails" and "Not looked for" in trails.words.value
    panel.recipe = panel.recipe.replace(footprints="trails", ignore_trails="light.xisf:1,2-30,4")
    assert "no such trail was found: light.xisf" in trails.words.value
    assert trails.title == f"{len(panel.trails)} trails" == panel._panel.others.get_title(3)
    inside = [_inside(row, (0, 100, 60, 30)) for row in panel.trails]
    assert [box.description.endswith("outside this region") for box in trails.boxes] == [
        not x for x in inside
    ]
    assert not all(inside)
    panel.region = (0, 0, 170, 130)
    assert not any("outside" in box.description for box in trails.boxes)
    panel.recipe = panel.recipe.replace(footprints="off")
    assert panel._panel.others.get_title(3) == "Trails" and not trails.boxes


def _inside(trail, region) -> bool:
    """Whether a trail crosses a region, by the steps along it."""
    left, top, width, height = region
    for k in range(1001):
        x = trail["x0"] + (trail["x1"] - trail["x0"]) * k / 1000
        y = trail["y0"] + (trail["y1"] - trail["y0"]) * k / 1000
        if left - 0.5 <= x <= left + width - 0.5 and top - 0.5 <= y <= top + height - 0.5:
            return True
    return False


def test_hits_in_colour_are_up_to_date_when_the_slider_rests():
    panel = make("M101")
    assert panel.widget.children and panel.numbers["masked"] > 0
    control(panel, "sigma_high").slider.value = 2.3
    assert panel._panel.again.disabled and not panel.model.outdated
    assert "joint_colour" not in make("M13")._panel.controls.each


def test_weights_that_need_a_name_are_offered_with_a_name_only(live):
    assert not {"keyword", "csv"} & set(control(live, "weights").options)
    live.recipe = live.recipe.replace(weight_file="weights.csv", weights="exposure")
    assert "csv" in control(live, "weights").options and "keyword" not in control(live, "weights").options
    assert control(live, "weights").value == "exposure" == live.recipe.weights


def test_a_preset_sets_what_belongs_together(live):
    pytest.importorskip("sep")
    live.recipe = live.recipe.replace(preset="classic", rejection="sigma", sigma_high=2.6)
    assert live._panel.controls.preset.value == "classic"
    live._panel.controls.preset.value = "measured"
    recipe = live.recipe
    assert recipe == recipe.replace(preset="measured") and recipe.sigma_high == 2.6
    assert control(live, "rejection").value == "noise_model" and "Comparing" not in message(live)
    assert "noise for equal starlight" in live._panel.numbers.value
    control(live, "weights").value = "none"
    assert live._panel.controls.preset.value == "other settings"
    live._panel.controls.preset.value = "classic"
    assert live.recipe.rejection == "sigma" and live.recipe.weights == "noise"


def test_a_preset_that_cannot_be_used_changes_nothing(live, monkeypatch):
    live.recipe = before = live.recipe.replace(preset="classic", rejection="sigma")

    def refuse(*arguments, **options):
        raise sl.IntegrationError("sep is not installed")

    monkeypatch.setattr(live.model, "integrate", refuse)
    live._panel.controls.preset.value = "measured"
    assert live.recipe == before and live._panel.controls.preset.value == "classic"
    assert "sep is not installed" in message(live)


def test_a_and_b_blink(live):
    """Image and maps, each with the title of what is shown."""
    names = ("result", "low", "high")
    first = [pixels(viewers(live)[name]) for name in names]
    kept = live.keep_as_a()
    control(live, "rejection").value = "none"

    def shown() -> str:
        """A or B, by pixels and titles."""
        pictures = [viewers(live)[name] for name in names]
        of_a = [np.array_equal(pixels(each), known) for each, known in zip(pictures, first, strict=True)]
        assert len(set(of_a)) == 1
        said = " A" if of_a[0] else " B"
        assert all(f"{said}: " in each.title for each in pictures)
        rejected = 100 * (kept if of_a[0] else live.result).rejected_high.mean()
        assert f"{rejected:.3f} %" in pictures[2].title
        return said.strip()

    assert shown() == "B" and "B: no rejection" in viewers(live)["result"].title
    live._panel.pictures.play.playing = True
    assert shown() == "A" and "A: sigma" in viewers(live)["result"].title
    live._panel.pictures.play.value = 1
    assert shown() == "B"
    live._panel.pictures.play.value, live._panel.pictures.play.playing = 0, False
    assert shown() == "B"


def test_a_follows_the_region(live):
    live.keep_as_a()
    control(live, "rejection").value = "none"
    live._panel.pictures.against.value = "setting A"
    live.region = (100, 90, 70, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        real = sl.integrate(live.model.frames, live.a.recipe, region=live.region, progress=False)
    np.testing.assert_array_equal(live.a.image, real.image)
    assert viewers(live)["difference"].title == "B minus setting A"
    expected = live.result.original[0] - live.a.original[0]
    np.testing.assert_array_equal(pixels(viewers(live)["difference"])[0], expected)


def test_difference_against_setting_a(live):
    live.keep_as_a()
    assert pixels(viewers(live)["difference"]).any()
    live._panel.pictures.against.value = "setting A"
    assert not pixels(viewers(live)["difference"]).any() and not live.model.difference(live.a).any()


def test_changes_are_undone_one_by_one(live):
    start = live.recipe
    assert live._panel.controls.back.disabled
    for value in (2.5, 2.4, 2.3):
        control(live, "sigma_high").slider.value = value
    control(live, "weights").value = "none"
    live._panel.controls.back.click()
    assert live.recipe == start.replace(sigma_high=2.3) and control(live, "weights").value == start.weights
    # Steps of a slider are one change.
    live._panel.controls.back.click()
    assert live.recipe == start and control(live, "sigma_high").number == start.sigma_high
    assert live._panel.controls.back.disabled and live.step_back() == start


def test_presets_of_limits(live):
    control(live, "rejection").value = "sigma"
    for button in live._panel.controls.limits:
        button.click()
        expected = {"tight": (3.0, 2.8), "default": (3.2, 2.9), "gentle": (3.4, 3.0)}[button.description]
        assert (live.recipe.sigma_low, live.recipe.sigma_high) == expected
        assert control(live, "sigma_low").number == expected[0]
    control(live, "rejection").value = "min_max"
    assert all(button.layout.display == "none" for button in live._panel.controls.limits)


def test_suggest_sets_the_recipe_and_says_why(live):
    control(live, "weights").value = "none"
    advice = sl.advise(live.model.frames, live.recipe, live.region, progress=False)
    live._panel.suggest.click()
    assert live.recipe == advice.recipe and live.recipe.weights == "none"
    assert advice.reason in message(live)
    assert control(live, "sigma_high").number == advice.recipe.sigma_high


def test_suggest_without_widgets(panel):
    before = panel.recipe
    told = []
    advice = panel.advice(told.append)
    assert panel.recipe == before and told[-1] == 1
    assert panel.suggest().recipe == panel.recipe == advice.recipe


@pytest.mark.parametrize(("rule", "part"), [("gesd", (100, 80, 256, 256)), ("percentile", (0, 20, 456, 376))])
def test_limits_of_slow_rules_are_tried_in_the_middle_of_the_region(panel, monkeypatch, rule, part):
    given = []
    monkeypatch.setattr("stacklib.explore.region_trials.advise", lambda *values, **_: given.append(values))
    panel.recipe = panel.recipe.replace(rejection=rule)
    panel.model.trials.samples.region = (0, 20, 456, 376)
    panel.advice()
    assert given[0][2] == part


def test_nothing_changes_the_settings_while_limits_are_tried(live, monkeypatch):
    """Input from the browser that arrives afterwards is undone."""
    later, shown = [], []
    proposed = live.recipe.replace(sigma_high=2.2)

    def advise(*arguments, report, **options):
        report(0.42)
        shown.append(
            (
                message(live),
                control(live, "sigma_high").slider.disabled,
                live._panel.suggest.disabled,
            )
        )
        return SimpleNamespace(recipe=proposed, reason="because.")

    monkeypatch.setattr("stacklib.explore.region_trials.advise", advise)
    monkeypatch.setattr("stacklib.panels.explorer.live.later", lambda _, call: later.append(call))
    live._panel.suggest.click()
    assert "42 %" in shown[0][0] and shown[0][1:] == (True, True)
    control(live, "sigma_high").slider.value = 5.0
    control(live, "rejection").value = "none"
    live._panel.picker.boxes[0].value = 7
    live._panel.picker.viewer.widget.box = [20, 20, 30, 30]
    live._panel.suggest.click()
    assert len(shown) == 1 and live.recipe == proposed and live.region == REGION
    (end,) = later
    end()
    assert live.recipe == proposed and control(live, "sigma_high").number == 2.2
    assert (
        control(live, "rejection").value == proposed.rejection
        and live._panel.picker.boxes[0].value == REGION[0]
    )
    assert not live._panel.suggest.disabled and not control(live, "sigma_high").box.disabled
    assert "because." in message(live)
    control(live, "sigma_high").slider.value = 5.0
    assert live.recipe.sigma_high == 5.0


def test_why_there_is_no_suggestion(live, monkeypatch):
    def refuse(*arguments, **options):
        raise sl.IntegrationError("3 frames are too few")

    monkeypatch.setattr("stacklib.explore.region_trials.advise", refuse)
    before = live.recipe
    live._panel.suggest.click()
    assert live.recipe == before and "3 frames are too few" in message(live)


def test_the_region_is_typed_and_drawn(live):
    live._panel.picker.boxes[0].value = 100
    assert live.region == (100, 50, 96, 80)
    live._panel.picker.boxes[3].value = 40
    assert live.region == (100, 50, 96, 40)
    overview = live._panel.picker.viewer.widget
    overview.box = [122, 80, 60, 50]
    assert live.region == (122, 80, 60, 50) and live.result.image.shape == (1, 50, 60)
    assert [box.value for box in live._panel.picker.boxes] == [122, 80, 60, 50]
    assert all(picture.shape[1:] == (50, 60) for picture in viewers(live).values())
    assert viewers(live)["low"].widget.meta["origin"] == [122, 80]
    # There is always a region.
    overview.box = []
    assert live.region == (122, 80, 60, 50) and overview.box == [122, 80, 60, 50]


def test_use_these_says_where(live, tmp_path):
    live._panel.file.value = str(tmp_path / "chosen.yaml")
    live._panel._save()
    assert "chosen.yaml" in message(live)
    assert sl.Recipe.load(tmp_path / "chosen.yaml") == live.recipe
    live._panel.file.value = str(tmp_path / "missing" / "chosen.yaml")
    live._panel._save()
    assert message(live)


def test_pictures_are_those_of_the_result(live):
    pictures, result = viewers(live), live.result
    np.testing.assert_array_equal(pixels(pictures["result"]), result.original)
    for side in ("low", "high"):
        np.testing.assert_array_equal(pixels(pictures[side]), getattr(result, f"rejection_{side}"))
    np.testing.assert_array_equal(pixels(pictures["difference"]), result.original - live.model.plain.original)
    assert len({picture.widget.group for picture in pictures.values()}) == 1


def test_every_picture_has_a_name_for_screen_readers(live):
    for picture in viewers(live).values():
        assert picture.title in picture.widget.alt != ""
    control(live, "sigma_high").slider.value = 2.0
    assert f"{live.numbers['rejected_high']:.3f} %" in viewers(live)["high"].alt
