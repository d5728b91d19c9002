"""What a run leaves beside its result, and what it says if something is missing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papermill.parameterize import parameterize_path

import stacklib as sl
from stacklib.errors import RunError, SaveError
from stacklib.figures.result_plots import figure_preview
from stacklib.notebook import preview, running
from stacklib.notebook.executed import RESULT_MIME, Executed
from stacklib.notebook.page import notebook_page, save_page
from stacklib.notebook.papermill_process import _Headings, _literally
from stacklib.utils import file_sets
from stacklib.utils.file_sets import WORK_FOLDER, workroom

STEM = "20210815_M101_ZWOASI294_0000"
PNG = b"\x89PNG"


def notebook(output: Path, frames: object = "frames", result: bool = True, error: str = "") -> dict:
    """Return an executed notebook with a tutorial on top, a note, and a result or an error."""
    files = [str(output / f"{STEM}{end}") for end in (".xisf", "_rejection_low.xisf", "_report.txt")]
    known = {"files": files, "summary": "20 frames, sigma", "numbers": {"used": 20}}
    outputs = [{"output_type": "stream", "name": "stderr", "text": ["Note: a <limit>\n", "other\n"]}]
    if result:
        data = {"text/plain": ["files"], RESULT_MIME: known}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    if error:
        outputs.append({"output_type": "error", "ename": "FrameError", "evalue": error, "traceback": []})
    code = {"cell_type": "code", "execution_count": 1, "metadata": {}, "source": [], "outputs": outputs}
    words = {"cell_type": "markdown", "metadata": {}, "source": ["# The tutorial"]}
    metadata = {"papermill": {"parameters": {"frames": frames}}}
    return {"cells": [words, code], "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


class Process:
    """A process that leaves a notebook and a preview in the work folder, and perhaps saved images."""

    def __init__(self, room, frames="frames", error=None, raises=None, saves=True, **left):
        self.executed, self.values = room / "4_integrate.ipynb", {"frames": frames}
        self.error, self.raises, self.saves, self.left = error, raises, saves, left

    def run(self):
        folder = self.executed.parent.parent
        if self.saves:
            staged = [self.executed.with_name(name) for name in ("a.xisf", "b.xisf", "report.txt")]
            names = [f"{STEM}{end}" for end in (".xisf", "_rejection_low.xisf", "_report.txt")]
            for path in staged:
                path.write_text("image")
            assert file_sets.name_all([(a, folder / b) for a, b in zip(staged, names, strict=True)])
        if self.left is not None:
            content = notebook(folder, self.values["frames"], result=self.error is None, **self.left)
            self.executed.write_text(json.dumps(content), encoding="utf-8")
        self.executed.with_name(preview.PREVIEW).write_bytes(PNG)
        if self.raises:
            raise self.raises
        return self.error


def finish(folder: Path, **how) -> running.Run:
    with workroom(folder) as room:
        return running.finish(Process(room, **how), folder)


def names(folder: Path) -> set[str]:
    return {path.name.removeprefix(STEM) for path in folder.iterdir()}


IMAGES = {".xisf", "_rejection_low.xisf", "_report.txt"}
REST = {"_notebook.ipynb", "_notebook.html", "_preview.png"}


def test_a_run_leaves_notebook_page_and_preview(tmp_path):
    run = finish(tmp_path)
    assert names(tmp_path) == IMAGES | REST
    assert run.page.name == f"{STEM}_notebook.html" and run.preview.read_bytes() == PNG
    assert run.notebook.name == f"{STEM}_notebook.ipynb"
    assert run.notes == ["a <limit>"] and run.numbers == {"used": 20}


@pytest.mark.parametrize("taken", sorted(REST))
def test_they_get_their_names_together(tmp_path, taken):
    (tmp_path / f"{STEM}{taken}").write_text("of someone else")
    run = finish(tmp_path)
    assert {path.name.removeprefix(STEM) for path in (run.notebook, run.page, run.preview)} == {
        f"_2{end}" for end in REST
    }
    assert (tmp_path / f"{STEM}{taken}").read_text() == "of someone else"
    assert names(tmp_path) == IMAGES | {f"_2{end}" for end in REST} | {taken}


def test_a_page_that_cannot_be_made_is_a_note(tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no template")

    monkeypatch.setattr("stacklib.notebook.page.notebook_page", fail)
    run = finish(tmp_path)
    assert run.page is None and run.notebook.exists() and run.preview.exists()
    assert "no template" in run.notes[-1] and "JupyterLab" in run.notes[-1]


@pytest.mark.parametrize("when", ["while it runs", "at the end"])
@pytest.mark.parametrize("links", [True, False])
def test_images_are_named_if_the_notebook_has_no_room(tmp_path, monkeypatch, when, links):
    full = OSError(errno.ENOSPC, "No space left on device")
    if not links:
        monkeypatch.setattr(
            file_sets.os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no"))
        )
    if when == "at the end":
        original = file_sets.flush_to_disk

        def flush(path):
            if path.suffix == ".ipynb":
                raise full
            original(path)

        monkeypatch.setattr(file_sets, "flush_to_disk", flush)
    raises = SaveError("the executed notebook cannot be written") if when == "while it runs" else None
    with pytest.raises(SaveError) as caught:
        finish(tmp_path, raises=raises)
    assert f"The images are saved in {tmp_path}: {STEM}.xisf, {STEM}_rejection_low.xisf" in str(caught.value)
    assert names(tmp_path) == IMAGES
    assert {path.name.removeprefix(STEM) for path in caught.value.files} == IMAGES
    assert caught.value.files[0].name == f"{STEM}.xisf"


def test_nothing_is_said_of_images_that_are_not_there(tmp_path):
    with pytest.raises(SaveError) as caught:
        finish(tmp_path, raises=SaveError("no room"), saves=False)
    assert "The images" not in str(caught.value)
    assert names(tmp_path) == {"stopped_notebook.ipynb"}


def test_failures_of_the_same_frames_go_after_success(tmp_path):
    for frames, error in (("frames", "first"), ("others", "second"), ("frames", "third")):
        with pytest.raises(RunError):
            finish(tmp_path, frames=frames, error=error, saves=False)
    (tmp_path / "failed_notebook.html").write_text("its page")
    (tmp_path / "failed_notebook_9.ipynb").write_text("of someone else")
    with pytest.raises(SaveError):
        finish(tmp_path, raises=SaveError("no room"), saves=False)
    assert names(tmp_path) == {
        *("failed_notebook.ipynb", "failed_notebook_2.ipynb", "failed_notebook_3.ipynb"),
        *("failed_notebook.html", "failed_notebook_9.ipynb", "stopped_notebook.ipynb"),
    }
    finish(tmp_path)
    assert names(tmp_path) - IMAGES - REST == {"failed_notebook_2.ipynb", "failed_notebook_9.ipynb"}


def test_a_run_that_fails_after_saving_names_the_images(tmp_path, monkeypatch):
    job = sl.Job(frames="sample_data/M13/4_Registered", output=str(tmp_path))
    monkeypatch.setattr(running, "process_for", lambda job, output, room: Process(room, error="no memory"))
    with pytest.raises(
        RunError, match=r"no memory\nThe images are saved in .*\nSee the notebook: "
    ) as caught:
        running.run_job(job)
    assert caught.value.notebook.name == "failed_notebook.ipynb"
    assert names(tmp_path) == IMAGES | {"failed_notebook.ipynb"}


@pytest.mark.parametrize("saves", [True, False])
def test_a_run_that_is_stopped_leaves_saved_images_and_names_them(tmp_path, monkeypatch, capsys, saves):
    job = sl.Job(frames="sample_data/M13/4_Registered", output=str(tmp_path))
    stopped = {"raises": KeyboardInterrupt(), "saves": saves}
    monkeypatch.setattr(running, "process_for", lambda job, output, room: Process(room, **stopped))
    with pytest.raises(KeyboardInterrupt):
        running.run_job(job)
    assert names(tmp_path) == (IMAGES if saves else set())
    assert (f"The images are saved in {tmp_path}: {STEM}.xisf" in capsys.readouterr().err) == saves


# pages and previews ------------------------------------------------------------------------------


def test_a_page_opens_on_the_result(tmp_path):
    path, picture = tmp_path / "4_integrate.ipynb", tmp_path / "x.png"
    path.write_text(json.dumps(notebook(tmp_path)), encoding="utf-8")
    picture.write_bytes(PNG)
    page = notebook_page(path, picture=picture)
    order = [f"<h1>{STEM}</h1>", "20 frames, sigma", "a &lt;limit&gt;", "data:image/png;base64,iVBORw=="]
    order += [f'href="{STEM}.xisf"', "The tutorial"]
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    assert "The run failed" not in page


def test_a_page_that_is_made_again_is_the_same(tmp_path):
    run = finish(tmp_path)
    before = run.page.read_text(encoding="utf-8")
    assert "image/png" in before
    run.page.unlink()
    assert save_page(run.notebook) == run.page.name
    assert run.page.read_text(encoding="utf-8") == before


def test_a_page_of_a_failed_run_opens_on_the_error(tmp_path):
    path = tmp_path / "failed_notebook.ipynb"
    path.write_text(
        json.dumps(notebook(tmp_path, result=False, error="frame <3> is black")), encoding="utf-8"
    )
    page = notebook_page(path)
    assert page.index("FrameError: frame &lt;3&gt; is black") < page.index("The tutorial")
    assert "<h1>failed_notebook</h1>" in page


def test_notebooks_without_anything_can_be_read(tmp_path):
    path = tmp_path / "empty.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": []}]}))
    assert Executed.read(path) == Executed()
    for text in ("", "[1", '{"cell": 1}'):
        path.write_text(text)
        with pytest.raises((ValueError, KeyError)):
            Executed.read(path)


def test_a_preview_is_made_only_for_a_program(m13, tmp_path, monkeypatch):
    monkeypatch.delenv(WORK_FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    preview.save_preview(lambda: figure_preview(m13))
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(WORK_FOLDER, str(tmp_path))
    preview.save_preview(lambda: figure_preview(m13))
    assert (tmp_path / preview.PREVIEW).read_bytes().startswith(PNG)


def test_a_preview_that_cannot_be_made_is_a_note(tmp_path, monkeypatch):
    def fail():
        raise MemoryError("too large")

    monkeypatch.setenv(WORK_FOLDER, str(tmp_path))
    with pytest.warns(sl.StacklibWarning, match="preview could not be made .too large"):
        preview.save_preview(fail)
    assert not list(tmp_path.iterdir())


# the process -------------------------------------------------------------------------------------


@given(st.text(), st.dictionaries(st.text(), st.integers()))
def test_papermill_takes_paths_literally(path, parameters):
    assert parameterize_path(_literally(path), parameters) == path


def test_the_heading_is_printed_once_when_its_code_begins(capsys):
    class Cell:
        def __init__(self, cell_type, source):
            self.cell_type, self.source = cell_type, source

    headings = _Headings()
    cells = [
        Cell("markdown", "# 4. Integrate\n\ntext"),
        Cell("code", "a"),
        Cell("markdown", "text\n# no heading"),
        Cell("code", "b"),
        Cell("markdown", "## Look"),
        Cell("markdown", "text"),
        Cell("code", "c"),
        Cell("markdown", "## Never run"),
    ]
    for index, cell in enumerate(cells):
        headings(cell=cell, cell_index=index)
    assert capsys.readouterr().out.splitlines() == ["4. Integrate ...", "Look ..."]


@pytest.mark.skipif(os.name == "nt", reason="the kernel watches the process there")
def test_a_kernel_that_has_only_just_started_ends_with_an_interrupted_run():
    program = """
import subprocess, sys
from stacklib.notebook.papermill_process import _end_kernel

kernel = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
_end_kernel()
print(kernel.poll() is not None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
