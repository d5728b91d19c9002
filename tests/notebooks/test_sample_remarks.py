"""Remarks on the sample frames appear beside the sample frames only."""

import json
import os
import shutil

import pytest
from conftest import ROOT, SAMPLES

import stacklib as sl
from stacklib.notebook import show_for_sample
from stacklib.notebook.sample import is_sample

FOLDER = SAMPLES / "M101" / "4_Registered"


@pytest.fixture(autouse=True)
def in_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_all_frames_of_the_sample(tmp_path):
    frames = sl.open_frames(FOLDER)
    assert is_sample(frames)
    assert is_sample(frames[::-1])
    assert not is_sample(frames[:19])
    assert not is_sample(sl.open_frames(SAMPLES / "M13" / "4_Registered"))
    for i, frame in enumerate(frames[:3]):
        shutil.copy(frame.path, tmp_path / f"{i}{''.join(frame.path.suffixes)}")
    assert not is_sample(sl.open_frames(tmp_path))
    os.chdir(tmp_path)
    assert not is_sample(sl.open_frames(tmp_path))


@pytest.mark.filterwarnings("ignore:Registration hides noise")
def test_results_of_the_sample(m101, m13):
    assert is_sample(m101)
    assert not is_sample(m13)
    other = sl.integrate(FOLDER, sl.Recipe(rejection="none"), region=(0, 0, 8, 8), progress=False)
    assert not is_sample(other)


def test_remarks_are_shown(m101, m13, capsys):
    show_for_sample(m13, "a cloud")
    assert capsys.readouterr().out == ""
    show_for_sample(m101, "a cloud")
    assert "Markdown" in capsys.readouterr().out


def test_texts_beside_figures_do_not_speak_of_the_sample():
    """Only the introduction and the exercises name it."""
    for path in sorted((ROOT / "notebooks").glob("[1-4]*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"][1:]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                assert "M 101" not in text.partition("## On your own")[0], (path.name, text)
            elif "M 101" in text:
                assert text.startswith("notebook.show_for_sample("), (path.name, text)
                assert cell["metadata"]["jupyter"]["source_hidden"]
