"""The frame selector, driven from code and through its widgets, without a browser."""

from __future__ import annotations

import io
import re
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

import stacklib as sl
from stacklib.explore.frame_choice import COLUMNS
from stacklib.panels.blinker.grid import FIRST, frame_grid
from stacklib.panels.frame_selector import FrameSelector
from stacklib.panels.frame_widgets import _meta
from stacklib.utils.parameters import read_yaml

#: The frame behind a cloud.
CLOUDY = 16


@pytest.fixture(scope="module")
def measured() -> FrameSelector:
    return FrameSelector(SAMPLES / "M101" / "4_Registered", progress=False)


@pytest.fixture
def panel(measured) -> FrameSelector:
    measured.selected = np.ones(20, bool)
    return measured


def everything(widget: widgets.Widget) -> list[widgets.Widget]:
    return [widget, *(w for child in getattr(widget, "children", ()) for w in everything(child))]


# from code ---------------------------------------------------------------------------------------


def test_all_frames_are_selected_at_first(panel):
    assert panel.selected.all() and panel.reasons == {}
    assert panel.summary == "20 of 20 frames are selected."
    assert panel.short_names[6] == "0007"


def test_overview_names_frames_by_what_tells_them_apart(panel):
    assert panel.overview.colnames[:3] == ["frame", "sky", "noise"] and "file" not in panel.overview.colnames
    assert panel.overview["frame"].tolist() == panel.short_names
    assert panel.overview["fwhm"].info.format == ".2f" and "frame" not in panel.table.colnames


def test_suggestion_leaves_out_the_cloudy_frame(panel):
    assert list(panel.suggest()) == [CLOUDY]
    assert np.flatnonzero(~panel.selected).tolist() == [CLOUDY]
    assert "0017 (cloud: " in panel.summary and len(panel.frames) == 19
    assert "left out: cloud" in panel.describe(CLOUDY)


def test_suggestion_keeps_what_was_left_out_by_hand(panel):
    panel.selected = range(1, 20)
    panel.suggest()
    assert list(panel.reasons) == [0, CLOUDY] and panel.reasons[0] == "by hand"


def test_expression(panel):
    kept = panel.apply(" fwhm < 2.5 and weight > 0.6 ")
    assert kept.tolist() == ((panel.table["fwhm"] < 2.5) & (panel.table["weight"] > 0.6)).tolist()
    assert set(panel.reasons.values()) == {"not fwhm < 2.5 and weight > 0.6"}
    with pytest.raises(sl.RecipeError, match="did you mean fwhm"):
        panel.apply("fwmh < 2.5")
    assert panel.selected.tolist() == kept.tolist()


def test_an_unknown_number_is_named_as_the_reason(panel, monkeypatch):
    table = panel.table.copy()
    table["fwhm"][4] = table["noise"][5] = np.nan
    monkeypatch.setattr(panel, "table", table)
    panel.apply("FWHM < 100 and number != 6")
    assert panel.reasons == {
        4: "not FWHM < 100 and number != 6: fwhm unknown",
        5: "not FWHM < 100 and number != 6",
    }


def test_expression_narrows_the_present_choice(panel):
    panel.selected = np.arange(20) != 3
    panel.suggest()
    panel.apply("NUMBER <= 18")
    assert np.flatnonzero(~panel.selected).tolist() == [3, CLOUDY, 18, 19]
    assert [panel.reasons[3], panel.reasons[18]] == ["by hand", "not NUMBER <= 18"]
    assert panel.reasons[CLOUDY].startswith("cloud")
    # All frames hold, so nothing changes; what is out stays out.
    panel.apply("number > 0")
    assert len(panel.frames) == 16 and panel.reasons[19] == "not NUMBER <= 18"


@pytest.mark.parametrize("kind", ["numbers", "booleans", "frames", "nothing"])
def test_selected_can_be_set(panel, kind):
    booleans = np.arange(20) < 3
    panel.selected = {
        "numbers": [0, 1, 2],
        "booleans": booleans.tolist(),
        "frames": panel.all_frames[:3],
        "nothing": [],
    }[kind]
    assert panel.selected.tolist() == (booleans & (kind != "nothing")).tolist()


def test_selected_is_a_copy_and_has_to_fit(panel):
    panel.selected[:] = False
    assert panel.selected.all()
    with pytest.raises(ValueError, match="got 3 values, expected 20"):
        panel.selected = [True, False, True]


def test_weights_come_from_the_recipe():
    panel = FrameSelector(SAMPLES / "M13" / "4_Registered", sl.Recipe(weights="exposure"), progress=False)
    assert (panel.table["weight"] == 1).all()


def test_one_frame_is_enough(tmp_path):
    panel = FrameSelector(next((SAMPLES / "M13" / "4_Registered").glob("*.fits")), progress=False)
    assert panel.suggest() == {} and len(panel.frames) == 1
    assert panel.figure() is not None and panel.widget is not None


# saving ------------------------------------------------------------------------------------------


def test_saved_choice_can_be_loaded_and_opened(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel.suggest()
    path = panel.save("recipe.yaml", recipe=sl.Recipe(sigma_high=2.7))
    job = sl.Job.load(path)
    assert path == tmp_path / "recipe.yaml" and job.recipe == sl.Recipe(sigma_high=2.7)
    assert sl.open_frames(job.frames).names == panel.frames.names


def test_saving_again_keeps_everything_but_the_frames(panel, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(f"memory: 1GB\nsigma_low: 3.4\nframes: {SAMPLES}/M101\n", encoding="utf-8")
    panel.save(path)
    job = sl.Job.load(path)
    assert (job.memory, job.recipe.sigma_low, len(job.frames)) == ("1GB", 3.4, 20)


def lights(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for file in sorted((SAMPLES / "M13" / "4_Registered").glob("*.fits"))[:count]:
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("place", "given", "file", "name"),
    [
        ("M13/4_Registered", "M13/4_Registered", "M13/recipe.yaml", "4_Registered/M13_L_060s_001_c_d_r.fits"),
        ("M13/4_Registered", "M13", "M13/recipe.yaml", "4_Registered/M13_L_060s_001_c_d_r.fits"),
        (
            "M13/4_Registered/L",
            "M13/4_Registered/L",
            "M13/4_Registered/L/recipe.yaml",
            "M13_L_060s_001_c_d_r.fits",
        ),
        ("night/lights", "night/lights", "night/lights/recipe.yaml", "M13_L_060s_001_c_d_r.fits"),
    ],
)
def test_a_choice_is_saved_with_its_target(place, given, file, name, tmp_path, monkeypatch):
    lights(tmp_path / place)
    monkeypatch.chdir(tmp_path)
    panel = FrameSelector(given, progress=False)
    assert "Not saved yet" in panel.saved_in_words() and not (tmp_path / file).exists()
    panel.selected = [0, 2]
    assert panel.save() == tmp_path / file
    assert read_yaml(tmp_path / file)["frames"][0] == name
    assert sl.open_frames(sl.Job.load(file).frames).names == panel.frames.names
    # The whole folder moves with its choice.
    (tmp_path / place.split("/")[0]).rename(tmp_path / "moved")
    again = FrameSelector(tmp_path / "moved" / Path(*Path(given).parts[1:]), progress=False)
    assert again.loaded and again.selected.tolist() == [True, False, True]


def test_a_saved_choice_is_loaded_and_only_save_writes(tmp_path):
    folder = lights(tmp_path / "M13" / "4_Registered", 5)
    panel = FrameSelector(folder, progress=False)
    panel.selected = [0, 1, 2]
    path = panel.save()
    before = path.read_bytes()
    again = FrameSelector(folder, progress=False)
    assert again.loaded and again.selected.tolist() == panel.selected.tolist()
    assert again.suggest(unless_loaded=True) == {} and f"Saved in {path}" in again.saved_in_words()
    again.selected = [3, 4]
    assert "holds another choice" in again.saved_in_words() and path.read_bytes() == before
    assert FrameSelector(folder, progress=False, load=False).selected.all()
    (folder / "M13_L_060s_002_c_d_r.fits").unlink()
    fewer = FrameSelector(folder, progress=False)
    assert fewer.selected.tolist() == [True, True, False, False]
    assert "also lists 4_Registered/M13_L_060s_002_c_d_r.fits, not among" in fewer.saved_in_words()
    fewer.save()
    assert "also lists" not in fewer.saved_in_words()


def test_undo_brings_the_former_choice_back_and_forth(tmp_path):
    panel = FrameSelector(lights(tmp_path / "4_Registered", 5), progress=False)
    assert panel.widget is not None
    live = panel._panel
    live._undo()
    assert "has no former version" in live.status.value
    for choice in ([0, 1, 2], [3, 4]):
        panel.selected = choice
        live._save()
    live._undo()
    assert panel.selected.tolist() == [True, True, True, False, False]
    assert live.blinker.chosen == panel.selected.tolist()
    assert len(sl.Job.load(panel.path).frames) == 3 and "as it was before" in live.status.value
    panel.undo()
    assert panel.selected.tolist() == [False, False, False, True, True]
    # Saving the same again is no change to go back from.
    panel.save()
    assert panel.undo() and panel.selected.sum() == 3


def test_a_file_of_another_target_is_refused(panel, live, tmp_path):
    path = tmp_path / "recipe.yaml"
    folder = (SAMPLES / "M13" / "4_Registered").as_posix()
    text = f"frames: {folder}\noutput: ../M13/5_Integration\nsigma_low: 3.4\n"
    path.write_text(text, encoding="utf-8")
    live.file.value = str(path)
    live._save()
    assert "Not saved" in live.status.value and "it belongs to another target" in live.status.value
    assert path.read_text(encoding="utf-8") == text
    other = FrameSelector(panel.all_frames, progress=False, path=path)
    assert not other.loaded and other.selected.all()


def test_nothing_useless_is_saved(panel, tmp_path):
    panel.selected = []
    with pytest.raises(sl.FrameError, match="select at least one"):
        panel.save(tmp_path / "recipe.yaml")
    panel.suggest()
    panel.selected = [0, 1, 2]
    with pytest.raises(sl.RecipeError, match=r"reference: .*_0007_.* is not selected"):
        panel.save(tmp_path / "recipe.yaml", sl.Recipe(reference="M101_Light_180s_0007_c_d_r.xisf"))
    assert not (tmp_path / "recipe.yaml").exists()


# the static figure -------------------------------------------------------------------------------


def test_figure_shows_all_frames_and_marks_those_left_out(panel):
    panel.suggest()
    figure = panel.figure()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    assert Image.open(stream).width <= 980
    titles = [axes.get_title() for axes in figure.axes]
    assert "0001" in titles and "0017\ncloud" in titles
    assert figure.subfigs[0].get_suptitle().startswith("19 of 20 frames selected")


# the live panel ----------------------------------------------------------------------------------


@pytest.fixture
def live(panel):
    assert panel.widget is panel.widget
    return panel._panel


def wish(live, name: str, frames: list[int] = (), value: bool = True) -> None:
    """Do what a message of the browser does."""
    live.blinker._handle_custom_msg({"wish": name, "frames": list(frames), "value": value}, [])


def test_ticks_keys_and_state_follow_each_other(panel, live):
    wish(live, "choose", [3, 4], False)
    assert panel.reasons == {3: "by hand", 4: "by hand"}
    panel.suggest()
    assert np.flatnonzero(~np.array(live.blinker.chosen)).tolist() == [3, 4, CLOUDY]
    assert live.blinker.notes[3] == "by hand" and live.blinker.notes[CLOUDY].startswith("cloud: ")
    assert "17 of 20 frames" in live.status.value
    wish(live, "choose", [4], True)
    assert live.blinker.chosen[4] and live.blinker.notes[4] == ""


def test_suggestions_are_noted_before_they_are_taken(panel, live):
    assert live.blinker.chosen[CLOUDY] and live.blinker.notes[CLOUDY].startswith("leave out? cloud: ")
    assert "(cloud" not in live.status.value


def test_changes_are_undone_one_by_one(panel, live):
    while panel.step_back():
        pass
    start = panel.selected.tolist()
    wish(live, "choose", [3], False)
    panel.apply("number < 10")
    wish(live, "undo")
    assert panel.reasons == {3: "by hand"} and live.blinker.chosen == panel.selected.tolist()
    # What changes nothing needs no undoing.
    wish(live, "choose", [3], False)
    wish(live, "undo")
    assert panel.selected.tolist() == start
    wish(live, "undo")
    assert panel.selected.tolist() == start and "Nothing to undo" in live.status.value


def test_reset_goes_back_to_the_start_and_can_be_undone(panel, live):
    wish(live, "choose", [1, 2], False)
    next(w for w in everything(live.box) if getattr(w, "description", "") == "Reset").click()
    assert panel.selected.all()
    assert panel.step_back() and list(panel.reasons) == [1, 2]


def test_wishes_for_frames_that_are_not_there_are_ignored(panel, live):
    for frames in ([20], [-1], [0, 99]):
        wish(live, "choose", frames, False)
    wish(live, "delete", [0])
    assert panel.selected.all()


def test_plots_and_names_go_to_the_browser(panel, live, monkeypatch):
    meta = live.blinker.meta
    assert meta["names"] == panel.short_names and meta["x_label"] == "hours"
    assert meta["x"] == panel.table["hours"].tolist()
    titles = {plot["title"]: plot["values"] for plot in meta["plots"]}
    assert titles["sky"] == panel.table["sky"].tolist() and "FWHM (pixels)" in titles
    table = panel.table.copy()
    table["fwhm"][4], table["hours"][4] = np.nan, np.nan
    monkeypatch.setattr(panel, "table", table)
    meta = _meta(panel)
    assert meta["plots"][2]["values"][4] is None and meta["plots"][2]["values"][5] is not None
    assert meta["x_label"] == "frame" and meta["x"][:2] == [1, 2]


def cells(row: str) -> list[tuple[str, str]]:
    """What each cell of a row sorts by and shows."""
    return re.findall(r'<td data-order="([^"]*)">(.*?)</td>', row)


def test_the_table_has_a_line_a_frame_and_sorts_by_the_exact_numbers(panel, live):
    options = live.grid._dt_args
    head, *rows = options["table_html"].split("<tr")[1:]
    assert len(rows) == 20 and all(f'data-frame="{i}"' in row for i, row in enumerate(rows))
    names = ["frame", *COLUMNS]
    shown = dict(zip(names, cells(rows[CLOUDY]), strict=True))
    assert shown["frame"] == (str(CLOUDY), "0017")
    assert shown["fwhm"] == (str(panel.table["fwhm"][CLOUDY]), f"{panel.table['fwhm'][CLOUDY]:.2f}")
    assert re.findall("<th>(.*?)</th>", head)[1:3] == ["frame", "start (UTC)"]
    # Clicks on the text of a heading sort; every measurement can be added.
    assert not options.get("text_in_header_can_be_selected")
    assert options["buttons"][0]["columns"] == list(range(2, 2 + len(COLUMNS)))
    hidden = options["columnDefs"][0]["targets"]
    assert [list(COLUMNS)[i - 2] for i in hidden] == [name for name in COLUMNS if name not in FIRST]


def test_unknown_numbers_sort_after_all_others_and_names_are_no_tags(panel):
    table = panel.table.copy()
    table["fwhm"][0] = np.nan
    html = frame_grid(table, ["<b>&", *panel.short_names[1:]])._dt_args["table_html"]
    first = html.split("<tr")[2]
    order = dict(zip(["frame", *COLUMNS], cells(first), strict=True))["fwhm"]
    assert float(order[0]) > 1e200 and order[1] == "–"
    assert "<b>" not in first and 'aria-label="use &lt;b&gt;&amp;"' in first


def test_headings_are_names_in_expressions(panel):
    for expression, expected in (
        ("FRAME <= 5", 5),
        ("Shift X < 100 and shift y < 100", 20),
        ("frame > 2 and Number <= 4", 2),
        ("Gain > 0 and EXPOSURE > 0 and matched <= 1", 20),
    ):
        panel.selected = np.ones(20, bool)
        panel.apply(expression)
        assert panel.selected.sum() == expected, expression


def test_expression_box_says_what_is_wrong(panel, live):
    live.expression.value = "fwmh < 3"
    assert "did you mean fwhm?" in live.status.value and panel.selected.all()
    live.expression.value = "number <= 5"
    assert panel.selected.sum() == 5
    live.expression.value = "Number > 2"
    assert np.flatnonzero(panel.selected).tolist() == [2, 3, 4]


def test_save_button(panel, live, tmp_path):
    live.file.value = str(tmp_path / "missing" / "job.yaml")
    live._save()
    assert "Not saved" in live.status.value
    live.file.value = str(tmp_path / "job.yaml")
    live._save()
    assert "Saved" in live.status.value and len(sl.Job.load(tmp_path / "job.yaml").frames) == 20


def test_save_button_writes_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "chosen.yaml"
    panel = FrameSelector(SAMPLES / "M13" / "4_Registered", progress=False, path=path)
    assert panel.widget is not None and panel._panel.file.value == str(path)
    panel._panel._save()
    assert panel.save() == path and path.exists() and len(sl.Job.load(path).frames) == 12


def test_controls_have_words(live):
    named = (widgets.Checkbox, widgets.Dropdown, widgets.Text, widgets.Button)
    assert all(part.description for part in everything(live.box) if isinstance(part, named))


def test_gain_and_remarks_are_shown(panel):
    assert panel.overview.colnames[-1] == "gain"
    assert np.argmin(panel.table["gain"]) == CLOUDY and 0 < panel.table["gain"][CLOUDY] < 1
    assert (
        "lie on each other within" in panel.remarks and "One more frame like the usual one" in panel.remarks
    )
