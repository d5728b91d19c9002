"""Getting the notebooks ready: their code runs once, and leaves nothing but compiled code."""

from __future__ import annotations

import matplotlib
from conftest import SAMPLES

from stacklib.commands import ready
from stacklib.notebook.running import notebooks_folder


def test_each_notebook_is_a_step(monkeypatch):
    asked = []
    monkeypatch.setattr(ready, "compile_ahead", lambda steps, title: asked.extend(steps))
    assert ready.main() == 0
    names = [step.given[0] for step in asked]
    assert sorted(names) == [path.stem for path in sorted(notebooks_folder().glob("[123]_*.ipynb"))]
    assert {step.call for step in asked} == {"stacklib.commands.ready:run_cells"}


def test_the_code_of_a_notebook_runs_and_saves_nothing(monkeypatch, capsys):
    monkeypatch.setattr(matplotlib, "use", lambda backend: None)
    before = {path for path in SAMPLES.rglob("*")}
    ready.run_cells("1_select_frames")
    assert "19 of 20 frames are selected" in capsys.readouterr().out
    assert {path for path in SAMPLES.rglob("*")} == before
