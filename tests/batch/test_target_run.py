"""What a killed run leaves is removed, and nothing else; two runs never work on one target."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from test_batch_parts import frames

import stacklib as sl
from stacklib.batch import target_run
from stacklib.batch.changes import changes
from stacklib.batch.state import Record, only_run_of, read_record, write_record
from stacklib.batch.target_run import TargetRun
from stacklib.batch.targets import Target, find_targets
from stacklib.batch.work_folder import locked
from stacklib.notebook.running import Run
from stacklib.utils import atomic_files
from stacklib.utils.file_sets import WORK_FOLDER

pytestmark = pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")


@pytest.fixture
def target(tmp_path) -> Target:
    frames(tmp_path / "M31" / "4_Registered", 3)
    (found,) = find_targets(tmp_path)
    found.output.mkdir()
    return found


def killed_run(target: Target) -> Path:
    """The work folder of a run of this target that was killed, still empty."""
    with only_run_of(target) as room:
        pass
    room.mkdir()
    return room


def saved_by(room: Path | str, target: Target, monkeypatch) -> set[str]:
    """Names in a result of the run with this work folder; of a person's if there is none."""
    monkeypatch.setenv(WORK_FOLDER, str(room))
    before = there(target)
    sl.integrate(target.folder, progress=False).save(target.output)
    monkeypatch.delenv(WORK_FOLDER)
    return there(target) - before


def there(target: Target) -> set[str]:
    return {path.name for path in target.output.iterdir()}


@pytest.mark.parametrize("links", [True, False])
def test_only_what_the_killed_run_has_made_is_removed(target, monkeypatch, links):
    if not links:
        monkeypatch.setattr(atomic_files.os, "link", no_links)
    other_target = replace(target, label="other")
    room, other_room = killed_run(target), killed_run(other_target)
    own, killed, other = (saved_by(by, target, monkeypatch) for by in ("", room, other_room))
    assert len(own) == len(killed) == len(other) == 5
    (room / "4_integrate.ipynb").touch()
    with only_run_of(target):
        assert {name for name in there(target) if not name.startswith(".")} == own | other
    assert there(target) == own | other | {other_room.name}


def no_links(*_, **__):
    raise OSError("no hard links")


def test_a_recorded_result_stays(target, monkeypatch):
    room = killed_run(target)
    whole = saved_by(room, target, monkeypatch)
    write_record(target, Record("done", files=sorted(whole)))
    with only_run_of(target):
        assert whole < there(target)
    assert there(target) - {".stacklib_batch.json"} == whole


def test_images_stay_if_the_notebook_could_not_be_saved(target, monkeypatch):
    whole = set()

    def run(self, room):
        whole.update(saved_by(room, target, monkeypatch))
        error = sl.SaveError("no room for the notebook")
        error.files = sorted((target.output / name for name in whole), key=lambda path: len(path.name))
        raise error

    monkeypatch.setattr(TargetRun, "_through_notebook", run)
    record = TargetRun(target, sl.Job(str(target.folder)))()
    assert (record.status, record.error) == ("failed", "no room for the notebook")
    assert len(whole) == 5 and set(record.files) == whole
    left = {name for name in there(target) if not name.startswith(".")}
    assert left == whole | {record.thumbnail}
    # The next batch tries again, and keeps them.
    assert changes(target, record, read_record(target)) == "failed last time"


@pytest.mark.parametrize("name", ["save_page", "save_thumbnail"])
def test_page_and_picture_that_cannot_be_made_are_notes(target, monkeypatch, name):
    def run(self, room):
        files = [target.output / file for file in sorted(saved_by(room, target, monkeypatch), key=len)]
        table = next(file for file in files if file.name.endswith("_frames.ecsv"))
        notebook = target.output / "run_notebook.ipynb"
        notebook.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}')
        return Run([files[0], table], notebook, None, None, "fine")

    def fail(*arguments):
        raise RuntimeError("no way")

    monkeypatch.setattr(TargetRun, "_through_notebook", run)
    monkeypatch.setattr(target_run, name, fail)
    record = TargetRun(target, sl.Job(str(target.folder)))()
    assert record.status == "done" and [note for note in record.notes if "no way" in note]
    assert bool(record.page) != bool(record.thumbnail)


def test_a_file_that_took_the_name_since_stays(target, monkeypatch):
    monkeypatch.setattr(atomic_files.os, "link", no_links)
    killed = saved_by(killed_run(target), target, monkeypatch)
    name = min(killed)
    (target.output / name).write_text("mine")
    with only_run_of(target):
        pass
    assert there(target) == {name}


def test_a_target_that_runs_elsewhere_is_left_alone(target):
    write_record(target, Record("running"))
    with only_run_of(target) as room:
        record = TargetRun(target, sl.Job(str(target.folder)))()
        assert room.is_dir()
    assert record.status == "failed" and "another batch runs this target; wait" in record.error
    assert read_record(target).status == "running"


def test_records_of_targets_that_share_a_folder_do_not_get_lost(target):
    shared = [replace(target, folder=target.folder.parent / str(number)) for number in range(4)]

    def write(one: Target) -> None:
        for number in range(25):
            write_record(one, Record("done", seconds=number))

    threads = [threading.Thread(target=write, args=(one,)) for one in shared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [read_record(one).seconds for one in shared] == [24] * 4


# locks -------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    inside, most = [], []

    def work() -> None:
        for _ in range(20):
            with locked(tmp_path / "lock", "busy", 20):
                inside.append(1)
                time.sleep(0.001)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert not list(tmp_path.iterdir())


def test_without_a_lock_nothing_is_done(tmp_path, target, monkeypatch):
    lock = tmp_path / "lock"
    with (
        locked(lock, "busy"),
        pytest.raises(sl.SaveError, match=r"busy; wait until it has ended"),
        locked(lock, "busy"),
    ):
        pytest.fail("went on")

    def no_locks(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "_acquire", no_locks)
    with pytest.raises(sl.SaveError, match=r"cannot be locked \(No locks"), locked(lock, "busy"):
        pytest.fail("went on")
    record = TargetRun(target, sl.Job(str(target.folder)))()
    assert record.status == "failed" and "No locks available" in record.error
    assert not there(target)
