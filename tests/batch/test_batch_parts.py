"""The parts of a batch: the targets that are found, what they share, how kernels stay apart, how it stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from astropy.io import fits
from conftest import ROOT, SAMPLES
from PIL import Image
from simulated_targets import frames

import stacklib as sl
from stacklib import cli
from stacklib.batch import OVERHEAD, Batch, Need, recipe_for
from stacklib.batch.changes import changes
from stacklib.batch.page import page, thumbnail
from stacklib.batch.state import (
    STATE_NAME,
    Record,
    inputs_of,
    left_behind,
    only_run_of,
    percent_of,
    read_record,
    write_record,
)
from stacklib.batch.summary import Row, summary_table
from stacklib.batch.targets import find_targets
from stacklib.batch.work_folder import LOCK_NAME, locked
from stacklib.commands.batch import batch_from_arguments
from stacklib.errors import RunError
from stacklib.notebook import process as notebook_process
from stacklib.notebook.process import NotebookProcess
from stacklib.recipe.batch_job import BatchJob
from stacklib.utils.file_sets import WORK_FOLDER
from stacklib.utils.progress import PROGRESS_NAME, progress_bar


def found(root: Path) -> dict[str, int]:
    return {target.name: len(target.frames) for target in find_targets(root)}


# targets -----------------------------------------------------------------------------------------


def test_targets_are_named_by_where_they_lie(tmp_path):
    frames(tmp_path / "2024" / "M31" / "4_Registered")
    frames(tmp_path / "M33" / "4_Registered" / "Ha", 3)
    frames(tmp_path / "M33" / "5_Integration" / "4_Registered")
    frames(tmp_path / "M33" / "3_Debayered")
    (tmp_path / "empty" / "4_Registered").mkdir(parents=True)
    assert found(tmp_path) == {"2024/M31": 2, "M33/Ha": 3}
    assert found(tmp_path / "M33" / "4_Registered") == {"Ha": 3}
    assert found(tmp_path / "2024" / "M31" / "4_Registered") == {"M31": 2}
    outputs = [target.output.relative_to(tmp_path).as_posix() for target in find_targets(tmp_path)]
    assert outputs == ["2024/M31/5_Integration", "M33/5_Integration/Ha"]


def test_mixed_folder_is_grouped_by_object_filter_and_exposure(tmp_path):
    folder = tmp_path / "night" / "4_Registered"
    frames(folder, 2)
    frames(folder, 3, filter="Ha", exposure=300.0)
    frames(folder, 2, filter="Ha", exposure=300.4)
    frames(folder, 4, object_name="M 33")
    frames(folder, 2, object_name="m33")
    assert found(tmp_path) == {"night (M31 Ha 300 s)": 5, "night (M31 L 60 s)": 2, "night (M33 L 60 s)": 6}
    first = find_targets(tmp_path)[0]
    assert first.output == tmp_path / "night" / "5_Integration" / "M31-Ha-300-s"
    assert (first.object, first.filter, first.exposure, first.shape) == ("M31", "Ha", 300.0, (1, 24, 32))


def test_silent_header_follows_the_others(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    frames(folder, 2)
    frames(folder, 2, filter="")
    assert found(tmp_path) == {"M31": 4}
    frames(folder, 2, filter="R")
    assert found(tmp_path) == {"M31 (L)": 2, "M31 (no filter)": 2, "M31 (R)": 2}


def test_unreadable_frame_stays_with_its_like(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    broken = frames(folder, 3)[0]
    broken.write_bytes(broken.read_bytes()[:3000])
    assert found(tmp_path) == {"M31": 3}
    frames(folder, 2, filter="R")
    assert found(tmp_path) == {"M31 (L)": 2, "M31 (R)": 2, "M31 (unreadable)": 1}


def test_what_is_left_out_of_a_folder_is_said(tmp_path, capsys):
    folder = tmp_path / "M31" / "4_Registered"
    paths = [*frames(folder, 3), *frames(folder, 2, filter="R")]
    for number, path in enumerate(paths):
        path.rename(folder / f"f{number}_c_d_r.fits")
    (folder / "f0_c_d.fits").write_bytes((folder / "f0_c_d_r.fits").read_bytes())
    (folder / "g_c_d_r.fits").symlink_to(folder / "f1_c_d_r.fits")
    master = fits.getdata(folder / "f0_c_d_r.fits")
    fits.writeto(folder / "m_c_d_r.fits", master, fits.Header({"IMAGETYP": "Master Light"}))
    assert found(tmp_path) == {"M31 (L)": 3, "M31 (R)": 2}
    notes = "\n".join(find_targets(tmp_path)[0].notes)
    for words in ("f0_c_d.fits (not registered", "m_c_d_r.fits (a master", "g_c_d_r.fits (f1_c_d_r.fits)"):
        assert words in notes
    assert cli.main(["batch", str(tmp_path), "--list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"Note: M31 ({name}): " in printed for name in "LR") and "m_c_d_r.fits (a master" in printed
    batch = Batch(BatchJob(str(tmp_path)))
    assert "m_c_d_r.fits (a master" in batch.table["warnings"][1]
    # The frames are listed, because the folder has more than those of this filter.
    assert [Path(path).name for path in batch.job_for(batch.rows[1].target).frames] == [
        "f3_c_d_r.fits", "f4_c_d_r.fits"
    ]  # fmt: skip


def test_a_folder_that_is_used_as_it_is_stays_a_folder(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    frames(folder, 3)
    master = fits.getdata(next(folder.glob("*.fits")))
    fits.writeto(folder / "m.fits", master, fits.Header({"STACKCNT": 3}))
    (target,) = find_targets(tmp_path)
    assert target.whole and len(target.frames) == 3 and "a stack (STACKCNT 3)" in target.notes[0]
    # A job that names the file has it.
    (tmp_path / "M31" / "job.yaml").write_text(f"frames: ['{folder / 'm.fits'}', '{folder}']\n", "utf-8")
    (target,) = find_targets(tmp_path)
    assert not target.whole and target.frames[0].name == "m.fits" and len(target.frames) == 4


def test_folders_that_are_passed_over_are_told(tmp_path, monkeypatch):
    frames(tmp_path / "M31" / "4_Registered")
    frames(tmp_path / "M33" / "4_Registered" / "Ha")
    (tmp_path / "M33" / "4_Registered" / "logs").mkdir()
    frames(tmp_path / "M13" / "registered" / "Light")
    frames(tmp_path / "M13" / "calibrated")
    assert Batch(BatchJob(str(tmp_path))).notes == [
        f"{tmp_path / 'M13' / 'registered'}: holds images, but only folders named 4_Registered are targets"
    ]
    (tmp_path / "M5" / "4_Registered").mkdir(parents=True)
    tiffs = tmp_path / "M33" / "4_Registered" / "R"
    tiffs.mkdir()
    (tiffs / "a.tif").write_bytes(b"x")
    notes = "\n".join(Batch(BatchJob(str(tmp_path))).notes)
    assert f"passed over: {tmp_path / 'M5' / '4_Registered'}: contains no images" in notes
    assert f"passed over: {tiffs}: contains no images" in notes and "It holds 1 with the ending .tif" in notes
    assert "logs" not in notes and "calibrated" not in notes
    walk = os.walk

    def closed(top, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "M99")))
        return walk(top, onerror=onerror)

    monkeypatch.setattr(os, "walk", closed)
    assert f"{tmp_path / 'M99'}: passed over, as it cannot be read (Permission denied)" in "\n".join(
        Batch(BatchJob(str(tmp_path))).notes
    )


def test_what_a_batch_does_not_use_of_a_shared_recipe_is_told(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    shared = tmp_path / "mine.yaml"
    shared.write_text("sigma_high: 2.5\noutput: there\nsave_fits: true\n", encoding="utf-8")
    batch = Batch(BatchJob(str(tmp_path), str(shared)))
    (note,) = batch.notes
    assert f"Note: {note}" in page(batch.rows, tmp_path, batch.notes)
    assert note == "mine.yaml: a batch does not use output, save_fits of a shared recipe"


def test_nothing_found_is_told(tmp_path, capsys):
    assert cli.main(["batch", str(tmp_path)]) == 1
    assert "no folder 4_Registered with images in it" in capsys.readouterr().err
    assert cli.main(["batch", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


# recipes -----------------------------------------------------------------------------------------


def test_own_file_decides_recipe_and_frames(tmp_path):
    paths = frames(tmp_path / "M31" / "4_Registered", 4)
    chosen = [str(paths[0]), "4_Registered/" + paths[2].name, "/gone/since/" + paths[3].name]
    sl.Recipe(sigma_high=2.5).save(tmp_path / "M31" / "recipe.yaml")
    with (tmp_path / "M31" / "recipe.yaml").open("a") as file:
        file.write(f"frames: {chosen}\nsave_maps: true\n")
    frames(tmp_path / "M33" / "4_Registered")
    batch = Batch(BatchJob(str(tmp_path), save_fits=True), sl.Recipe(sigma_low=3.0))
    m31, m33 = (row.target for row in batch.rows)
    assert [path.name for path in m31.frames] == [paths[i].name for i in (0, 2, 3)]
    assert recipe_for(m31, batch.recipe) == sl.Recipe(sigma_high=2.5)
    assert recipe_for(m33, batch.recipe) == sl.Recipe(sigma_low=3.0)
    # What is saved for all is saved here too.
    assert batch.job_for(m31).save_maps and batch.job_for(m31).save_fits
    assert batch.job_for(m33).save_fits and batch.job_for(m33).frames == str(m33.folder)
    assert list(batch.plan["recipe"]) == ["its own recipe.yaml", "settings as given"]
    notes = "\n".join(batch.notes)
    assert "the settings of the batch are not used for M31: the recipe.yaml there counts" in notes
    assert "4 frames, your choices of" in notes and f"2.5. Left out: {paths[1].name}" in notes
    assert f"Left out: {paths[1].name}" in batch.table["warnings"][0]
    usual = Batch(BatchJob(str(tmp_path)))
    assert list(usual.plan["recipe"]) == ["its own recipe.yaml", "default settings"]
    assert "settings of the batch" not in "\n".join(usual.notes)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"recipe.yaml": "sigma_hihg: 3"}, "unknown parameter 'sigma_hihg'; did you mean sigma_high?"),
        ({"recipe.yaml": "", "job.yaml": ""}, "holds recipe.yaml and job.yaml; keep one of them"),
        ({"job.yaml": "frames: elsewhere/x.fits"}, "names no frame in"),
    ],
)
def test_wrong_file_fails_its_target_alone(tmp_path, files, words):
    frames(tmp_path / "M31" / "4_Registered")
    for name, text in files.items():
        (tmp_path / "M31" / name).write_text(text, "utf-8")
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert [row.status for row in batch.failed] == ["failed"] and words in batch.failed[0].error
    assert words in batch.summary and words.replace("'", "&#39;") in batch.page.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "sigma_hihg", "2"), "did you mean sigma_high?"),
        (("-p", "jobs", "many"), "jobs: got 'many', expected a whole number from 0 to 64"),
        (("-p", "memory", "lots"), "memory: got 'lots'"),
        (("-p", "frames", "x"), "unknown parameter 'frames'"),
        (("-p", "recipe", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--memory", "8GB"), "did you mean -p memory 8GB?"),
    ],
)
def test_wrong_calls_end_with_2_and_one_line(arguments, words, capsys):
    try:
        code = cli.main(["batch", str(SAMPLES), *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2 and words in capsys.readouterr().err


def test_list_shows_what_is_to_be_done_and_does_nothing(tmp_path, capsys):
    frames(tmp_path / "M31" / "4_Registered")
    (tmp_path / "shared.yaml").write_text("sigma_low: 3.0\n", "utf-8")
    recipe = ("-p", "recipe", str(tmp_path / "shared.yaml"), "-p", "sigma_high", "2.5")
    assert cli.main(["batch", str(tmp_path), *recipe, "--list"]) == 0
    assert "run, new" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"M31", "shared.yaml"}
    assert batch_from_arguments(str(tmp_path), [recipe[1:3], recipe[4:6]]).recipe == sl.Recipe(
        sigma_low=3.0, sigma_high=2.5
    )


# state -------------------------------------------------------------------------------------------


def test_only_a_whole_record_counts_as_done(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    (target,) = find_targets(tmp_path)
    now = inputs_of(target, sl.Job())
    assert changes(target, now, None) == "new"
    target.output.mkdir()
    write_record(target, now)
    assert read_record(target) == now and changes(target, now, now) == "was interrupted"
    state = target.output / STATE_NAME
    for text in ("", '{"version": 1', '{"version": 1, "runs": []}', '{"version": 7, "runs": {}}', "[1]"):
        state.write_text(text, "utf-8")
        assert read_record(target) is None
    write_record(target, now)
    assert read_record(target) == now


def test_what_a_run_left_that_was_killed_after_its_last_record_is_cleared_away(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    (target,) = find_targets(tmp_path)
    target.output.mkdir()
    names = ("m.xisf", "m.ipynb", "m.html", "m.jpg")
    for name in names:
        (target.output / name).write_text(name)
    done = inputs_of(target, sl.Job(str(target.folder), str(target.output), interactive=False))
    done = replace(
        done, status="done", files=[names[0]], notebook=names[1], page=names[2], thumbnail=names[3]
    )
    write_record(target, done)
    assert not left_behind(target)
    with only_run_of(target) as room:
        (room / "half.xisf").write_text("")
        shutil.copytree(room, tmp_path / room.name)
    shutil.move(tmp_path / room.name, room)
    for lock in (room.name[: len(".stacklib_batch_12345678")], STATE_NAME):
        (target.output / f"{lock}.lock").touch()
    batch = Batch(BatchJob(str(tmp_path)))
    assert batch.rows[0].status == "done" and left_behind(target)
    batch.run(progress=False)
    assert {path.name for path in target.output.iterdir()} == {*names, STATE_NAME}
    assert all((target.output / name).read_text() == name for name in names)


def test_table_of_weights_counts_by_its_content(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    (target,) = find_targets(tmp_path)
    table = tmp_path / "weights.csv"
    table.write_text("file,weight\n", "utf-8")
    job = sl.Job(recipe=sl.Recipe(weights="csv", weight_file=str(table)))
    then = inputs_of(target, job)
    then.status = "done"
    assert changes(target, inputs_of(target, job), then) == ""
    table.write_text("file,weight\na,1\n", "utf-8")
    assert changes(target, inputs_of(target, job), then) == "weight_file changed"


def test_a_record_of_another_version_of_the_package_is_read(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    (target,) = find_targets(tmp_path)
    target.output.mkdir()
    write_record(target, inputs_of(target, sl.Job()))
    state = target.output / STATE_NAME
    state.write_text(state.read_text("utf-8").replace('"status"', '"mark": "1a2b", "status"'), "utf-8")
    assert read_record(target) == inputs_of(target, sl.Job())


def test_second_batch_on_a_folder_is_refused(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    with locked(tmp_path / LOCK_NAME, ""), pytest.raises(sl.SaveError, match="another batch works on it"):
        Batch(BatchJob(str(tmp_path))).run(progress=False)
    with locked(tmp_path / LOCK_NAME, ""):
        assert (tmp_path / LOCK_NAME).exists()
    assert not (tmp_path / LOCK_NAME).exists()


# memory ------------------------------------------------------------------------------------------


def targets(root: Path, count: int) -> str:
    for number in range(count):
        frames(root / f"T{number}" / "4_Registered")
    return str(root)


def test_runs_share_the_memory_and_a_large_one_waits_for_all_of_it(monkeypatch, tmp_path):
    batch = Batch(BatchJob(targets(tmp_path, 5), memory="4GB", jobs=3))
    sizes = dict(zip([row.target.name for row in batch.rows], (1.0, 1.0, 9.0, 1.0, 1.0), strict=True))
    monkeypatch.setattr(batch, "need", lambda target: Need(0, int(sizes[target.name] * 1e9)))
    waiting = deque(batch.rows)

    def names(running: int, used: float) -> list[str]:
        return [row.target.name for row in batch._next(waiting, running, int(used))]

    assert names(0, 0) == ["T0", "T1", "T3"]
    assert names(3, 3e9) == []
    assert names(2, 2e9) == ["T4"]
    assert names(1, 1e9) == []
    assert names(0, 0) == ["T2"]


def test_share_of_a_run_is_what_it_can_use(monkeypatch, tmp_path):
    batch = Batch(BatchJob(targets(tmp_path, 5), memory="4GB", jobs=2))
    assert batch.need(batch.rows[0].target).whole < OVERHEAD + 10**8
    large = replace(batch.rows[0].target, shape=(3, 3000, 6000), frames=(Path(),) * 50)
    assert batch.need(large).whole == pytest.approx(2e9, rel=0.01)


@pytest.mark.parametrize(
    ("memory", "processors", "jobs"), [("1GB", 8, 1), ("4GB", 8, 4), ("64GB", 2, 2), ("64GB", 8, 5)]
)
def test_runs_at_the_same_time(monkeypatch, tmp_path, memory, processors, jobs):
    monkeypatch.setattr("stacklib.batch.batches.checked_threads", lambda _: processors)
    assert Batch(BatchJob(targets(tmp_path, 5), memory=memory)).jobs == jobs


# kernels -----------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path) -> Path:
    """A notebook that does nearly nothing."""
    cells = [
        nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print(x)"),
    ]
    content = nbformat.v4.new_notebook(cells=cells)
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content.metadata.language_info = {"name": "python"}
    nbformat.write(content, tmp_path / "small.ipynb")
    return tmp_path / "small.ipynb"


def taken_ports() -> list[socket.socket]:
    listening = [socket.socket() for _ in range(5)]
    for one in listening:
        one.bind(("127.0.0.1", 0))
        one.listen()
    return listening


def test_kernel_whose_ports_are_taken_is_started_again(small, tmp_path, monkeypatch, capfd):
    """As on Windows, where kernels need ports, and a stranger may be faster."""
    monkeypatch.setattr(notebook_process, "_have_sockets", lambda: False)
    usual, given = notebook_process._ports, []
    strangers = taken_ports()

    @notebook_process.contextlib.contextmanager
    def first_taken():
        with usual() as ports:
            given.append(ports if given else [one.getsockname()[1] for one in strangers])
            yield given[-1]

    monkeypatch.setattr(notebook_process, "_ports", first_taken)
    process = NotebookProcess(small, tmp_path / "out.ipynb", {"x": 7}, silent=True)
    assert process.run() is None
    assert len(given) == 2 and len(set(given[1])) == 5
    (printed,) = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    assert printed.text == "7\n" and capfd.readouterr().out == ""
    for one in strangers:
        one.close()


def test_ports_are_handed_out_once(monkeypatch):
    monkeypatch.setattr(notebook_process, "_have_sockets", lambda: False)
    with notebook_process._ports() as one, notebook_process._ports() as two:
        assert len(set(one) | set(two)) == 10


def test_sockets_need_a_short_folder(monkeypatch, tmp_path):
    assert notebook_process._have_sockets() == (os.name != "nt")
    monkeypatch.setattr(notebook_process.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 100)))
    assert not notebook_process._have_sockets()


def test_stopped_run_ends_and_leaves_no_half_notebook(small, tmp_path):
    content = nbformat.read(small, as_version=4)
    begun = tmp_path / "begun"
    content.cells[1].source = f"open({str(begun)!r}, 'w').close()\nimport time\ntime.sleep(60)"
    nbformat.write(content, small)
    process = NotebookProcess(small, tmp_path / "out.ipynb", {}, silent=True)

    def stop() -> None:
        while not begun.exists():
            time.sleep(0.05)
        process.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert process.run() is not None
    stopping.join()
    assert process._child.returncode != 0


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_interrupted_batch_says_so_and_goes_on_later(tmp_path):
    for name in ("A", "B", "C"):
        frames(tmp_path / name / "4_Registered", 4)
    called = [sys.executable, "-u", "-m", "stacklib.cli", "batch", str(tmp_path), "-p", "jobs", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(called, cwd=ROOT, start_new_session=True, **pipes) as process:
        while not list(tmp_path.glob(f"*/5_Integration/{STATE_NAME}")):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.splitlines()[-1] == "stacklib: stopped"
    assert "Traceback" not in said
    left = {path.name for path in tmp_path.glob("*/5_Integration/*")}
    assert left == {STATE_NAME}
    reasons = {row.target.name: row.reason for row in Batch(BatchJob(str(tmp_path))).rows}
    assert set(reasons.values()) <= {"was interrupted", "new"} and reasons["A"] == "was interrupted"
    assert "3 waiting" in (tmp_path / "batch.html").read_text("utf-8")


# what is shown -----------------------------------------------------------------------------------


def test_a_run_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    frames(tmp_path / "M31" / "4_Registered")
    (target,) = find_targets(tmp_path)
    target.output.mkdir()
    with only_run_of(target) as room:
        assert percent_of(target) == 0
        monkeypatch.setenv(WORK_FOLDER, str(room))
        with progress_bar(10, "measured", "plane", part=(0, 40)) as bar:
            bar.update(5)
            bar.refresh()
            assert percent_of(target) == 20
        with progress_bar(10, "tried", "setting"):
            assert percent_of(target) == 20
        with progress_bar(10, "integrated", "pixel", part=(40, 100)) as bar:
            bar.update(10)
        assert percent_of(target) == 100
        (room / PROGRESS_NAME).write_text("")
        assert percent_of(target) == 0
    assert percent_of(target) == 0


def test_thumbnail_is_small_whatever_the_image(tmp_path):
    path = tmp_path / "wide.fits"
    from stacklib.formats.fits import write_image

    write_image(path, np.random.default_rng(1).normal(0.1, 0.01, (3, 501, 1999)).astype(np.float32), [])
    (tmp_path / "small.jpg").write_bytes(thumbnail(path))
    with Image.open(tmp_path / "small.jpg") as image:
        assert image.mode == "RGB" and image.size == (333, 83)


def test_page_and_table_take_any_text(tmp_path):
    frames(tmp_path / "a <b> & 'c'" / "4_Registered", object_name="<i>x</i>")
    (target,) = find_targets(tmp_path)
    failed = Row(target, "failed", "new", Record("failed", error="<script>; 'and' more\nin two lines"))
    text = page([failed, Row(target, "waiting", "new")], tmp_path)
    assert "<i>" not in text and "<script" not in text and "&lt;b&gt;" in text and "1 waiting" in text
    table = summary_table([failed], tmp_path)
    table.write(tmp_path / "t.ecsv", format="ascii.ecsv")
    assert table["error"][0] == failed.error and table["noise"].mask.all()


def test_page_and_table_tell_the_limits_that_a_run_used(tmp_path):
    frames(tmp_path / "M31" / "4_Registered")
    (target,) = find_targets(tmp_path)
    known = {"frames": 2, "used": 2, "width": 32, "height": 24, "channels": 1}
    known |= {"rejected_low": 0.0, "rejected_high": 0.0, "expected_noise_ratio": 0.7}
    rows = []
    for recipe, advice, notes in (
        (sl.Recipe(rejection="winsorized_sigma", sigma_low=2.4), "sigma_low 2.4: <least> risk.", []),
        (sl.Recipe(rejection="sigma", clip_low=False), "", ["Limits are those of the rule of thumb: few"]),
        (sl.Recipe(rejection="linear_fit"), "", []),
    ):
        numbers = known | {"rule": recipe.rejection, "recipe": recipe.to_dict()}
        rows.append(Row(target, "done", "", Record("done", numbers=numbers, notes=notes, advice=advice)))
    assert [row.limits for row in rows] == [
        "winsorized sigma 2.4 / 2.9, suggested",
        "sigma off / 2.9",
        "linear fit 5 / 4",
    ]
    text = page(rows, tmp_path).replace("\xa0", " ")
    assert all(f"<span class='faint'>{row.limits}</span>" in text for row in rows)
    assert "Suggested limits: sigma_low 2.4: &lt;least&gt; risk." in text
    assert text.count("<details>") == text.count("1 warning") == 1
    table = summary_table(rows, tmp_path)
    assert list(table["sigma_low"].filled(-1)) == [2.4, -1, -1]
    assert list(table["sigma_high"].filled(-1)) == [2.9, 2.9, -1]
    assert list(table["advice"].mask) == [False, True, True]
    assert list(table["warnings"].mask) == [True, False, True]


def test_an_error_names_what_failed_for_scripts(tmp_path):
    batch = Batch(BatchJob(targets(tmp_path, 3)))
    batch.raise_if_failed()
    batch.rows[0].status = batch.rows[2].status = "failed"
    with pytest.raises(RunError, match=r"2 of 3 targets failed: T0, T2; .*batch\.html$"):
        batch.raise_if_failed()
