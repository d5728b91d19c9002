"""Runs in folders that hold modules of somebody else, and on systems whose encoding is not UTF-8."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest

import stacklib as sl
from stacklib import cli
from stacklib.integration.cluster import connect
from stacklib.notebook import running
from stacklib.notebook.executed import Executed
from stacklib.notebook.process import NotebookProcess
from stacklib.recipe.recipe import Job
from stacklib.simulate import simulate_frames

GREEK = "Ελλάδα"


@pytest.fixture
def notebook(tmp_path):
    """A notebook that prints what it is told, and where it looks for modules."""
    room = tmp_path / "room"
    room.mkdir()
    cell = nbformat.v4.new_code_cell("text: str = ''", metadata={"tags": ["parameters"]})
    body = nbformat.v4.new_code_cell(
        "import sys, scipy, json\nprint(text)\nprint('' in sys.path)\nscipy.__file__"
    )
    content = nbformat.v4.new_notebook(cells=[cell, body])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python", "language": "python"}
    nbformat.write(content, room / "small.ipynb")
    return room / "small.ipynb"


def test_modules_in_the_current_folder_are_not_run(notebook, tmp_path, monkeypatch, capfd):
    folder = tmp_path / "data"
    (folder / "stacklib").mkdir(parents=True)
    for name in ("scipy", "papermill", "ipykernel", "ipykernel_launcher", "json", "random", "numpy"):
        (folder / f"{name}.py").write_text(f"open('{name} was run', 'w')\nraise SystemExit(3)\n")
    monkeypatch.chdir(folder)
    process = NotebookProcess(notebook, notebook.with_name("out.ipynb"), {"text": "\x1b[31mred\u202e\n"})
    assert process.run() is None
    assert not list(folder.glob("* was run"))
    shown = nbformat.read(notebook.with_name("out.ipynb"), as_version=4).cells[-1].outputs
    assert shown[0].text.endswith("False\n") and str(folder) not in shown[1].data["text/plain"]
    # What cells print reaches the terminal without commands for it.
    printed = capfd.readouterr().out
    assert r"\x1b[31mred\u202e" in printed and "\x1b" not in printed


def test_workers_do_not_run_modules_of_the_current_folder(tmp_path, monkeypatch):
    for name in ("multiprocessing", "distributed", "random"):
        (tmp_path / f"{name}.py").write_text(f"open('{name} was run', 'w')\nraise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stacklib.integration.cluster.checked_threads", lambda threads: 1)
    before = os.environ.get("PYTHONSAFEPATH")
    with connect("local") as client:
        assert client.submit(sum, [1, 2]).result() == 3
        # Nobody else on the network sees what is done.
        assert client.cluster.dashboard_link.startswith("http://127.0.0.1:")
    assert not list(tmp_path.glob("* was run")) and os.environ.get("PYTHONSAFEPATH") == before


def test_paths_go_to_the_notebook_and_back(tmp_path):
    home = tmp_path / GREEK
    room = home / "room"
    room.mkdir(parents=True)
    values = running.process_for(Job(frames=str(home)), home, room).values
    assert values["frames"] == values["output"] == str(home)
    assert Executed({"files": [str(home / "a.xisf")]}).files == [home / "a.xisf"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are UTF-8 or UTF-16 there")
def test_a_folder_whose_name_is_not_utf8_is_refused_before_the_run(tmp_path, capsys):
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    simulate_frames(4, 16, 16, 1, seed=1).save(home / "4_Registered")
    assert cli.main(["run", str(home)]) == 1
    said = capsys.readouterr().err
    assert r"caf\udce9" in said and "the name is not UTF-8, so no notebook can hold it; rename it" in said
    assert not (home / "5_Integration").exists()
    recipe = sl.Recipe(rejection="sigma", weights="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        (saved, *_) = sl.integrate(home, recipe, progress=False).save()
        assert sl.Recipe.from_result(saved) == recipe and sl.rerun(saved, progress=False).image.size


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_terminals_of_other_encodings(tmp_path, monkeypatch, encoding):
    simulate_frames(4, 16, 16, 1, seed=1).save(tmp_path / f"{GREEK} \x1b[31m" / "4_Registered")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["batch", str(tmp_path), "--list"]) == 0
    stream.flush()
    said = stream.buffer.getvalue()
    assert GREEK.encode(encoding, "backslashreplace") + rb" \x1b[31m" in said and b"\x1b" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locale")
def test_a_system_without_utf8(tmp_path):
    simulate_frames(4, 16, 16, 1, seed=1).save(tmp_path / GREEK / "4_Registered")
    code = (
        "import sys, stacklib as sl\n"
        "from stacklib import cli\n"
        "from pathlib import Path\n"
        "home = next(Path(sys.argv[1]).iterdir())\n"
        "from stacklib.notebook import running\n"
        "from stacklib.recipe.recipe import Job\n"
        "from stacklib.utils import texts\n"
        "values = running.process_for(Job(frames=str(home)), home, home).values\n"
        "assert values['frames'].endswith('\\u0395\\u03bb\\u03bb\\u03ac\\u03b4\\u03b1'), ascii(values)\n"
        "assert texts.path_from_utf8(values['frames']) == str(home)\n"
        "sys.exit(cli.main(['batch', sys.argv[1], '--list']))\n"
    )
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    called = [sys.executable, "-W", "error::EncodingWarning", "-c", code, str(tmp_path)]
    ended = subprocess.run(called, env={**os.environ, **variables}, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode("ascii", "replace")
    assert b"run, new" in ended.stdout
