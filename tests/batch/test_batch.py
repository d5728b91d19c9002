"""A batch over six targets, killed in the middle and started again; and papermill over its notebook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from astropy.table import Table
from conftest import ROOT
from simulated_targets import BROKEN, FRAMES, MIXED, make_targets

import stacklib as sl
from stacklib.batch import Batch
from stacklib.batch.state import STATE_NAME
from stacklib.recipe.batch_job import BatchJob

if os.name == "nt":
    pytest.skip("no SIGKILL", allow_module_level=True)

#: Given to the batch, and as a recipe file to its notebook.
RECIPE = {"sigma_high": 1.7}
#: Targets that are done when the batch is killed.
KILLED_AFTER = 2
#: What a run leaves, behind the name of the master.
LEFT = (
    *(".xisf", "_rejection_low.xisf", "_rejection_high.xisf"),
    *("_frames.ecsv", "_report.txt", "_notebook.ipynb", "_preview.png", "_notebook.html", "_thumbnail.jpg"),
)


class Killed:
    """The folder of the batch, and what was seen of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = make_targets(root)
        sl.Recipe(sigma_low=1.6, sigma_high=1.7).save(root / "T02" / "recipe.yaml")
        command = [sys.executable, "-m", "stacklib.cli", "batch", str(root), "-p", "jobs", "2"]
        command += [part for name, value in RECIPE.items() for part in ("-p", name, str(value))]
        how = {"cwd": ROOT, "text": True, "encoding": "utf-8"}
        with subprocess.Popen(command, **how, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            end = time.monotonic() + 200
            while len(self.done()) < KILLED_AFTER and first.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            first.send_signal(signal.SIGKILL)
        self.done_first = self.done()
        self.times = {name: self.stamps(name) for name in self.done_first}
        self.table_when_killed = Table.read(root / "batch.ecsv")
        self.page_when_killed = (root / "batch.html").read_text(encoding="utf-8")
        self.second = subprocess.run(command, **how, capture_output=True, timeout=400)
        self.table = Table.read(root / "batch.ecsv")
        self.page = (root / "batch.html").read_text(encoding="utf-8")

    def record(self, name: str) -> dict:
        state = self.root / name / "5_Integration" / STATE_NAME
        return next(iter(json.loads(state.read_text(encoding="utf-8"))["runs"].values()))

    def done(self) -> list[str]:
        states = self.root.glob(f"*/5_Integration/{STATE_NAME}")
        names = sorted(state.parent.parent.name for state in states)
        return [name for name in names if self.record(name)["status"] == "done"]

    def stamps(self, name: str) -> dict[str, int]:
        folder = self.root / name / "5_Integration"
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*")}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Killed:
    return Killed(tmp_path_factory.mktemp("batch"))


def test_four_masters_and_two_clear_failures(killed):
    status = dict(zip(killed.table["target"], killed.table["status"], strict=True))
    assert status == {name: "failed" if name in (BROKEN, MIXED) else "done" for name in killed.names}
    error = dict(zip(killed.table["target"], killed.table["error"], strict=True))
    assert f"{BROKEN}_Light_0003_c_d_r" in error[BROKEN] and "truncated" in error[BROKEN]
    assert "the frames differ" in error[MIXED] and f"{MIXED}_Light_0005_c_d_r" in error[MIXED]
    assert killed.second.returncode == 1
    assert "4 of 6 targets have their master, 2 failed" in killed.second.stdout
    assert error[MIXED] in killed.second.stdout and "Traceback" not in killed.second.stderr


def test_second_start_repeats_nothing(killed):
    assert KILLED_AFTER <= len(killed.done_first) < 4
    for name in killed.done_first:
        now = killed.stamps(name)
        # Page and picture may have been in the making.
        assert all(
            end in LEFT[-2:] for end in (n.partition("_0000")[2] for n in now.keys() - killed.times[name])
        )
        assert now | killed.times[name] == now
        assert f"\n{name}: " not in killed.second.stdout
    listed = [line for line in killed.second.stdout.splitlines() if "nothing, unchanged" in line]
    assert len(listed) == len(killed.done_first)


def test_what_was_interrupted_leaves_nothing(killed):
    for name in killed.names:
        left = {path.name for path in (killed.root / name / "5_Integration").iterdir()} - {STATE_NAME}
        if name in (BROKEN, MIXED):
            assert left == {"failed_notebook.ipynb", "failed_notebook.html"}
            continue
        stem = Path(killed.record(name)["files"][0]).stem
        assert left == {f"{stem}{end}" for end in LEFT}
    hidden = {path.name for path in killed.root.rglob(".*")}
    assert hidden <= {STATE_NAME, ".stacklib_batch.lock"}


def test_summary_was_whole_when_the_batch_was_killed(killed):
    table = killed.table_when_killed
    assert list(table["target"]) == killed.names
    assert set(table["status"]) <= {"done", "failed", "running", "waiting"} and "running" in table["status"]
    assert killed.page_when_killed.rstrip().endswith("</html>")


def test_table_has_the_numbers(killed):
    done = killed.table[killed.table["status"] == "done"]
    assert list(done["frames"]) == [FRAMES] * 4 and list(done["used"]) == [FRAMES] * 4
    assert all(done["rejected_high"] > 0) and done["rejected_high"].unit == "percent"
    assert all((done["snr_gain"] > 1.5) & (done["snr_gain"] < 3)) and all(done["noise"] > 0)
    limits = {row["target"]: (row["sigma_low"], row["sigma_high"]) for row in done}
    assert (limits["T01"], limits["T02"]) == ((sl.Recipe().sigma_low, 1.7), (1.6, 1.7))
    assert done["snr_gain_equal"][0] == pytest.approx(FRAMES**0.5)
    for row in done:
        assert (killed.root / row["master"]).is_file() and (killed.root / row["report"]).is_file()
        assert (killed.root / row["master"]).parent.name == "5_Integration"


def test_page_links_to_what_is_there(killed):
    links = re.findall(r"(?:href|src)='([^']+)'", killed.page)
    assert all((killed.root / link).exists() for link in links)
    for end, number in (
        ("Camera_0000_notebook.ipynb", 4),
        ("failed_notebook.ipynb", 2),
        ("Camera_0000_notebook.html", 4),
        ("failed_notebook.html", 2),
        ("_report.txt", 4),
    ):
        assert sum(link.replace("_0001", "_0000").endswith(end) for link in links) == number
    assert sum(link.endswith("_thumbnail.jpg") for link in links) == 4
    assert "4 masters" in killed.page and "2 failed" in killed.page and "Failed targets" in killed.page


def test_executed_notebook_is_the_report(killed):
    row = killed.table[killed.table["status"] == "done"][0]
    content = nbformat.read(killed.root / row["report"], as_version=4)
    injected = next(c.source for c in content.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert "sigma_high = 1.7" in injected and "interactive = False" in injected
    failed = nbformat.read(killed.root / MIXED / "5_Integration" / "failed_notebook.ipynb", as_version=4)
    errors = [o for c in failed.cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert [error.ename for error in errors] == ["FrameError"]


def test_own_recipe_comes_before_the_shared_one(killed):
    assert killed.record("T02")["settings"]["sigma_low"] == 1.6
    assert killed.record("T01")["settings"]["sigma_low"] == sl.Recipe().sigma_low


def reasons(killed: Killed, **changes) -> dict[str, str]:
    batch = Batch(BatchJob(str(killed.root)), sl.Recipe(**RECIPE).replace(**changes))
    return {row.target.name: row.reason for row in batch.rows}


def test_only_what_has_changed_is_to_be_done(killed):
    again = {name: "unchanged" for name in killed.names} | dict.fromkeys((BROKEN, MIXED), "failed last time")
    assert reasons(killed) == again
    assert reasons(killed, sigma_high=1.8) == {
        name: reason if name in ("T02", BROKEN, MIXED) else "sigma_high changed"
        for name, reason in again.items()
    }
    frames = sorted((killed.root / "T01" / "4_Registered").glob("T01*"))
    content = frames[0].read_bytes()
    # A copy has another time, not another content.
    os.utime(frames[0], (1, 1))
    assert reasons(killed) == again
    frames[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert reasons(killed)["T01"] == f"{frames[0].name} changed"
    frames[0].write_bytes(content)
    frames[1].rename(frames[1].with_name("aside"))
    assert reasons(killed)["T01"] == f"{frames[1].name} removed"
    frames[1].with_name("aside").rename(frames[1])
    master = killed.root / "T03" / "5_Integration" / killed.record("T03")["files"][0]
    master.rename(master.with_name("aside"))
    assert reasons(killed)["T03"] == f"{master.name} missing"
    master.with_name("aside").rename(master)
    assert reasons(killed) == again


def test_another_version_is_a_reason(killed, monkeypatch):
    monkeypatch.setattr("stacklib.batch.state.VERSION", "9.9")
    assert reasons(killed)["T01"] == f"stacklib {killed.record('T01')['stacklib']} became 9.9"


def test_targets_can_be_moved(killed, tmp_path):
    moved = killed.root.rename(killed.root.with_name("moved"))
    try:
        batch = Batch(BatchJob(str(moved / "T01")), sl.Recipe(**RECIPE))
        assert [row.reason for row in batch.rows] == ["unchanged"]
    finally:
        moved.rename(killed.root)


# the notebook ------------------------------------------------------------------------------------

NOTEBOOK = ROOT / "notebooks" / "5_batch.ipynb"


def papermill(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=300)


def failing_cells(content: nbformat.NotebookNode) -> list[str]:
    with_outputs = [cell for cell in content.cells if cell.get("outputs")]
    return [c.source for c in with_outputs if any(o.output_type == "error" for o in c.outputs)]


def test_papermill_runs_the_notebook_with_typed_parameters(killed, tmp_path):
    sl.Recipe(**RECIPE).save(tmp_path / "shared.yaml")
    (tmp_path / "batch.yaml").write_text(f"folder: {json.dumps(str(killed.root))}\njobs: 2\n", "utf-8")
    run = papermill(
        *(NOTEBOOK, tmp_path / "out.ipynb", "-f", tmp_path / "batch.yaml", "-y", "interactive: false"),
        *("-p", "recipe", tmp_path / "shared.yaml"),
    )
    # Scripts see that targets failed.
    assert run.returncode != 0
    assert f"2 of 6 targets failed: {BROKEN}, {MIXED}; see the page" in run.stderr
    content = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert failing_cells(content) == ["batch.raise_if_failed()"]
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert (
        "4 of 6 targets have their master, 2 failed" in printed and str(killed.root / "batch.html") in printed
    )
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 1 and shown.count("text/html") == 2
    assert not [kind for kind in shown if "widget" in kind]
    # Failed again, they left one notebook each, and its page.
    names = sorted(path.name for path in (killed.root / MIXED / "5_Integration").glob("[!.]*"))
    assert names == ["failed_notebook.html", "failed_notebook.ipynb"]


def test_papermill_keeps_the_notebook_with_the_error_at_its_cell(tmp_path):
    run = papermill(NOTEBOOK, tmp_path / "out.ipynb", "-p", "interactive", "false")
    assert run.returncode != 0 and "interactive: got 'false', expected True or False" in run.stderr
    content = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert ["read_parameters(BatchJob" in source for source in failing_cells(content)] == [True]
