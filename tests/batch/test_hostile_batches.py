"""One bad target never stops a batch, and a state file that somebody made does no harm."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from astropy.table import Table
from simulated_targets import frames

import stacklib as sl
from stacklib import cli
from stacklib.batch import Batch, batches, targets
from stacklib.batch.state import STATE_NAME, Record, inputs_of, percent_of, read_record, write_record
from stacklib.batch.target_run import TargetRun
from stacklib.errors import RunError, SaveError
from stacklib.notebook.page import render
from stacklib.recipe.batch_job import BatchJob
from stacklib.utils import atomic_files
from stacklib.utils.progress import PROGRESS_NAME

#: As `report.numbers` has them.
NUMBERS = {
    **{"frames": 2, "used": 2, "width": 32, "height": 24, "channels": 1, "rule": "sigma"},
    **{"recipe": sl.Recipe().to_dict(), "rejected_low": 0.01, "rejected_high": 0.02},
    **{"noise": [0.1], "noise_ratio": [0.6], "expected_noise_ratio": 0.58, "left_out": [], "unusual": []},
}
BAD_RECIPES = {
    "a date": "output: !!timestamp 2021-13-45\n",
    "digits": "sigma_low: " + "9" * 400,
    "a list for a name": "? [a]\n: 1\n",
    "brackets": "frames: " + "[" * 2000,
    "no text": "\0",
    "an unknown name": "sigma_lo: 3\n",
}


def make(root: Path) -> list[str]:
    """Make one good target and many bad ones; return the names of the bad ones."""
    frames(root / "good" / "4_Registered")
    for name, text in BAD_RECIPES.items():
        frames(root / name / "4_Registered")
        (root / name / "recipe.yaml").write_text(text)
    frames(root / "\x1b[31m $x$ {a} <b>\u202e" / "4_Registered")
    frames(root / "=1+1" / "4_Registered")
    if sys.platform not in ("win32", "darwin"):
        frames(Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")) / "4_Registered")
    return sorted(BAD_RECIPES)


def fail(self, room):
    raise ZeroDivisionError("in the middle")


def test_bad_targets_are_listed_beside_good_ones(tmp_path, capsys):
    make(tmp_path)
    assert cli.main(["batch", str(tmp_path), "--list"]) == 0
    said = capsys.readouterr().out
    assert said.count("run, ") == len(BAD_RECIPES) + 3 + (sys.platform not in ("win32", "darwin"))
    assert "is not valid YAML" in said and "\x1b" not in said and "\u202e" not in said


def test_bad_targets_fail_alone(tmp_path, monkeypatch, capsys):
    """Errors that nobody expects included; names of all kinds are in the page and in the table."""
    bad = make(tmp_path)
    monkeypatch.setattr(TargetRun, "_through_notebook", fail)
    assert cli.main(["batch", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "good: ZeroDivisionError: in the middle" in said and "Traceback" not in said
    table = Table.read(tmp_path / "batch.ecsv")
    assert set(table["status"]) == {"failed"} and set(bad) < set(table["target"])
    assert r"\x1b[31m $x$ {a} <b>\u202e" in table["target"]
    # A spreadsheet would compute it.
    assert "'=1+1" in table["target"]
    page = (tmp_path / "batch.html").read_text("utf-8")
    assert "&lt;b&gt;" in page and "<b>\\u202e" not in page and "\x1b" not in page


@pytest.mark.parametrize("where", ["choose", "read_choices"])
def test_an_error_in_one_folder_stays_there(tmp_path, monkeypatch, where):
    for name in "AB":
        frames(tmp_path / name / "4_Registered")
    usual = getattr(targets, where)

    def strange(given, *more):
        path = getattr(given[0], "path", given[0])
        if "A" in Path(path).parts:
            raise OverflowError("date value out of range")
        return usual(given, *more)

    monkeypatch.setattr(targets, where, strange)
    batch = Batch(BatchJob(str(tmp_path)))
    assert [row.target.name for row in batch.rows] == ["A", "B"]
    assert "cannot be used (OverflowError: date value out of range)" in batch.rows[0].target.problem
    assert not batch.rows[1].target.problem and batch.need(batch.rows[0].target).whole > 0


def test_a_summary_that_is_open_elsewhere_is_written_later(tmp_path, monkeypatch):
    frames(tmp_path / "A" / "4_Registered")
    monkeypatch.setattr(TargetRun, "_through_notebook", fail)
    usual, calls = batches.replace_atomically, []

    def open_in_excel(path, content, alone=False):
        calls.append(path.name)
        if path.name == "batch.ecsv" and calls.count("batch.ecsv") < locked_for:
            raise SaveError(f"{path}: cannot be written") from PermissionError(13, "Permission denied")
        return usual(path, content, alone=alone)

    monkeypatch.setattr(batches, "replace_atomically", open_in_excel)
    locked_for = 3
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert Table.read(tmp_path / "batch.ecsv")["status"].tolist() == ["failed"]
    assert "could not be written" not in batch.summary
    locked_for = 10**9
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert f"{tmp_path / 'batch.ecsv'} could not be written (Permission denied); if another" in batch.summary
    assert "A: ZeroDivisionError" in (tmp_path / "batch.html").read_text("utf-8").replace("<b>A</b>", "A")


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / ".stacklib-batch.ecsv").symlink_to(victim)
    atomic_files.replace_atomically(tmp_path / "batch.ecsv", b"table", alone=True)
    assert victim.read_text() == "mine" and (tmp_path / "batch.ecsv").read_bytes() == b"table"


# state files -------------------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path):
    """A target with a record, and its batch."""
    frames(tmp_path / "A" / "4_Registered")
    batch = Batch(BatchJob(str(tmp_path)))
    found = batch.rows[0].target
    found.output.mkdir()
    record = inputs_of(found, batch.job_for(found))
    record.status, record.numbers, record.files = "done", NUMBERS, ["M_0000.xisf"]
    write_record(found, record)
    return found


def rewrite(target, **changes):
    """Change the record in the state file as an editor could."""
    path = target.output / STATE_NAME
    content = json.loads(path.read_text("utf-8"))
    (key,) = content["runs"]
    content["runs"][key] |= changes
    path.write_text(json.dumps(content), encoding="utf-8")


NAMES = [
    *("../../victim.txt", "/etc/hostname", "..", "a/b", "a\\b", "C:x", "a\0b"),
    *(3, None, ["a"], {"a": 1}, 10**400),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_lead_elsewhere_make_no_record(target, name):
    for changes in ({"notebook": name}, {"page": name}, {"thumbnail": name}, {"files": [name]}):
        rewrite(target, **({"notebook": "", "page": "", "thumbnail": "", "files": []} | changes))
        assert read_record(target) is None


def test_files_elsewhere_are_neither_removed_nor_made(tmp_path, monkeypatch, target):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    monkeypatch.setattr(TargetRun, "_through_notebook", fail)
    (target.output / "mine.xisf").write_text("mine")
    for status in ("done", "failed"):
        name = "../../victim.txt"
        rewrite(target, notebook=name, page=name, files=[name], status=status)
        Batch(BatchJob(str(tmp_path))).run(progress=False)
        assert victim.read_text() == "mine"
    rewrite(target, notebook="mine.xisf", page="mine.xisf", files=[], status="failed")
    Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert (target.output / "mine.xisf").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == [
        *("A", "batch.ecsv", "batch.html", "victim.txt")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        *({"status": 3}, {"settings": []}, {"frames": []}, {"frames": {"a": 3}}, {"files": "abc"}),
        *({"notes": [3]}, {"notes": "a"}, {"error": {}}, {"seconds": "a"}, {"seconds": 10**400}),
        *({"numbers": 3}, {"advice": None}, {"files": [["a"]]}, {"seconds": True}),
    ],
)
def test_records_of_the_wrong_kind_are_none(target, changes):
    assert read_record(target).files == ["M_0000.xisf"]
    rewrite(target, **changes)
    assert read_record(target) is None


@pytest.mark.parametrize(
    "changes",
    [
        *({"used": "a"}, {"noise": 3}, {"noise": ["a"]}, {"noise": [10**400]}, {"rejected_low": None}),
        *({"rule": 3}, {"recipe": []}, {"recipe": {"sigma_low": "a"}}, {"recipe": {"unknown": 1}}),
        *({"left_out": [3]}, {"expected_noise_ratio": 0}, {"width": 1.5}, {"used": True}, {"used": 10**20}),
    ],
)
def test_numbers_that_cannot_be_shown_are_dropped(tmp_path, target, changes):
    assert read_record(target).numbers["used"] == 2
    rewrite(target, numbers=NUMBERS | changes)
    record = read_record(target)
    assert record.numbers == {} and record.files == ["M_0000.xisf"]
    row = batches.Row(target, "done", "", record)
    assert len(batches.summary_table([row], tmp_path)) == 1 and batches.page([row], tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 10**5,
        '{"version": 1, "runs": ' + '{"a":' * 10**5,
        '{"version": 1, "runs": [1]}',
        "\0",
        "9" * 5000,
    ],
    ids=range(5),
)
def test_state_files_that_cannot_be_read_are_none(tmp_path, target, content):
    (target.output / STATE_NAME).write_text(content)
    assert read_record(target) is None
    assert Batch(BatchJob(str(tmp_path))).rows[0].reason == "new"
    write_record(target, Record("running"))
    assert read_record(target).status == "running"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_state_file_that_is_a_pipe(target):
    (target.output / STATE_NAME).unlink()
    os.mkfifo(target.output / STATE_NAME)
    assert read_record(target) is None


def test_notes_and_progress_of_the_wrong_kind_in_a_work_folder(tmp_path, monkeypatch, target):
    """A run clears away what an earlier one left, whatever that is."""
    from stacklib.batch.state import _work_name

    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    room = target.output / f"{_work_name(target)}_left"
    room.mkdir()
    notes = ["[" * 10**5, '["../../victim.txt", 4, 5]', "3", '[["a"]]', '{"a": 1}', "[1e400]", "null"]
    for number, note in enumerate(notes):
        (room / f"{number}.moved").write_text(note)
        (room / f"{number}.names").write_text(note)
    (room / PROGRESS_NAME).write_text("9" * 30)
    assert percent_of(target) == 100
    (room / PROGRESS_NAME).write_text("9" * 10**4)
    assert percent_of(target) == 0
    monkeypatch.setattr(TargetRun, "_through_notebook", fail)
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert "ZeroDivisionError" in batch.summary and not room.exists() and victim.read_text() == "mine"


def test_an_error_of_a_notebook_stays_as_it_is(tmp_path, monkeypatch):
    frames(tmp_path / "A" / "4_Registered")

    def failed(self, room):
        raise RunError("NameError: x", None)

    monkeypatch.setattr(TargetRun, "_through_notebook", failed)
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert batch.summary.endswith("A: NameError: x")


def test_pages_are_safe_for_all_text():
    text = "<script>\u202e\x1b[31m\udce9\n&"
    page = render("{% extends base %}{% block body %}<p title='{{ a }}'>{{ a | address }}</p>{% endblock %}",
                  title=text, a=text)  # fmt: skip
    assert (
        page.encode("utf-8") and page.count("<script>") == 0 and r"&lt;script&gt;\u202e\x1b[31m\udce9" in page
    )
    assert "%3Cscript%3E%E2%80%AE%1B%5B31m%E9%0A%26" in page
