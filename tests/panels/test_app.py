"""The app: all steps on one page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import SAMPLES
from tqdm.notebook import tqdm as notebook_tqdm

import stacklib as sl
from stacklib.errors import RecipeError
from stacklib.panels.app import Workbench, downloads
from stacklib.panels.app.downloads import Downloads
from stacklib.panels.common import beside_note
from stacklib.panels.viewer.widget import ViewerWidget
from stacklib.utils import progress
from stacklib.utils.progress import bars_shown_by, progress_bar


@pytest.fixture
def folder(tmp_path) -> Path:
    shutil.copytree(SAMPLES / "M13" / "4_Registered", tmp_path / "M13" / "4_Registered")
    return tmp_path / "M13" / "4_Registered"


def everything(widget) -> list:
    """A widget and all widgets in it."""
    return [widget, *(inner for child in getattr(widget, "children", ()) for inner in everything(child))]


def click(step, words: str) -> None:
    next(w for w in everything(step.box) if getattr(w, "description", "") == words).click()


def said(step) -> str:
    return step.said.value


def test_from_the_folder_to_the_files(folder):
    bench = Workbench(folder)
    select, choose, inspect, last = bench.steps
    tabs = bench.widget
    tabs.selected_index = 1
    assert "Measure your frames first" in said(choose) and not choose.room.children
    click(select, "Measure these frames")
    assert len(bench.chosen) == 12 and select.room.children
    bench.selector.apply("transparency > 0.7")
    tabs.selected_index = 2
    assert inspect.room.children and bench.explorer is not None
    number = len(bench.chosen)
    assert 2 < number < 12 and len(bench.explorer.model.frames) == number
    bench.explorer.recipe = bench.explorer.recipe.replace(sigma_high=2.5)
    tabs.selected_index = 3
    assert not (folder.parent / "5_Integration").exists()
    click(last, "Integrate")
    assert bench.result.recipe.sigma_high == 2.5 and len(bench.result.frames) == number
    # One line each for frames, rejection and noise.
    result = last.room.children[-1].children[0].children[0].value
    assert result.count("<br>") == len(bench.result.summary.splitlines()) == 3
    links = next(w for w in everything(last.box) if isinstance(w, Downloads))
    assert {Path(f["name"]).suffix for f in links.files} == {".xisf", ".ecsv", ".txt"}
    assert all((folder.parent / "5_Integration" / f["name"]).is_file() for f in links.files)
    assert sum(isinstance(w, ViewerWidget) for w in everything(last.box)) == 3
    expected = sl.integrate(bench.chosen, bench.recipe, progress=False)
    assert (bench.result.image == expected.image).all()
    # Nothing was chosen for good.
    assert not (folder.parent / "recipe.yaml").exists()


def test_pages_are_made_again_only_when_something_has_changed(folder):
    bench = Workbench(folder)
    select, choose, *_ = bench.steps
    for step in (select, choose, select, choose):
        step.open()
    first, explorer = select.room.children, bench.explorer
    choose.open()
    assert select.room.children is first and bench.explorer is explorer
    explorer.recipe = explorer.recipe.replace(sigma_low=4.0)
    bench.selector.selected = range(10)
    choose.open()
    assert bench.explorer is not explorer and bench.explorer.recipe.sigma_low == 4.0
    bench.selector.selected = []
    choose.open()
    assert "Select frames first" in said(choose) and not choose.room.children


def test_another_folder_starts_anew(folder):
    bench = Workbench(folder)
    for step in bench.steps:
        step.open()
    bench.explorer.recipe = bench.explorer.recipe.replace(sigma_low=4.0)
    assert bench.chooser.choose(SAMPLES / "M63" / "4_Registered").startswith("M63")
    assert bench.explorer is None and bench.result is None and bench.recipe.sigma_low == 3.2
    assert len(bench.selector.all_frames) == len(sl.open_frames(SAMPLES / "M63" / "4_Registered"))
    assert not bench.steps[3].room.children


def test_a_folder_without_frames_is_said(tmp_path):
    bench = Workbench(tmp_path)
    bench.steps[0].open()
    assert "no " in said(bench.steps[0]) and not bench.steps[0].room.children
    with pytest.raises(RecipeError, match="Measure your frames first"):
        _ = bench.chosen


def test_saved_choices_are_used(folder):
    sl.Recipe(sigma_high=2.7).save(folder.parent / "recipe.yaml")
    bench = Workbench(folder)
    bench.steps[0].open()
    assert bench.recipe.sigma_high == 2.7
    bench.steps[1].open()
    assert bench.explorer.recipe.sigma_high == 2.7


def test_downloads_send_whole_files_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PART", 1000)
    files = [tmp_path / "a.xisf", tmp_path / "empty.txt"]
    files[0].write_bytes(bytes(range(256)) * 10)
    files[1].touch()
    links = Downloads(files)
    sent = []
    monkeypatch.setattr(links, "send", lambda content, buffers=(): sent.append((content, list(buffers))))
    for part in range(3):
        links._answer(links, {"file": 0, "part": part}, [])
    links._answer(links, {"file": 1, "part": 0}, [])
    assert b"".join(buffers[0] for _, buffers in sent[:3]) == files[0].read_bytes()
    assert [content["count"] for content, _ in sent] == [3, 3, 3, 1]
    files[0].unlink()
    links._answer(links, {"file": 0, "part": 0}, [])
    assert "No such file" in sent[-1][0]["problem"]
    with pytest.raises(IndexError):
        links._answer(links, {"file": 2, "part": 0}, [])


def test_bars_are_shown_in_a_panel(monkeypatch):
    class LiveBar(progress._Timed, notebook_tqdm):
        """What tqdm takes by itself in a notebook."""

    monkeypatch.setenv("JPY_SESSION_NAME", "notebook")
    monkeypatch.setattr(progress, "_live_bar", lambda: LiveBar)
    shown, words = [], []
    with bars_shown_by(shown.append, words.append), progress_bar(3, "Working", "frame") as bar:
        bar.update(2)
    assert len(shown) == 1 and "Working" in shown[0].children[0].value


def test_panels_speak_of_the_notebook_only_where_there_is_one(monkeypatch):
    (line,) = beside_note()
    assert "Create New View for Cell Output" in line.value
    monkeypatch.setenv("VOILA_KERNEL_ID", "1")
    assert beside_note() == []
