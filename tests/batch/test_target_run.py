"""What a run that was killed leaves is cleared away, and nothing else; two runs never meet at one target."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SAMPLES
from test_batch_parts import frames

import stacklib as sl
from stacklib.batch.folder_lock import held
from stacklib.batch.state import Record, only_run_of, read_record, write_record
from stacklib.batch.target_run import TargetRun, _clear_away
from stacklib.batch.targets import Target, find_targets
from stacklib.utils.atomic_files import RUN_MARK, hidden_start

pytestmark = pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")


@pytest.fixture
def target(tmp_path) -> Target:
    frames(tmp_path / "M31" / "4_Registered", 3)
    (found,) = find_targets(tmp_path)
    found.output.mkdir()
    return found


def saved_by(mark: str, target: Target, monkeypatch) -> set[str]:
    """A result of the run of this mark; of a person's where it is empty."""
    monkeypatch.setenv(RUN_MARK, mark)
    before = set(target.output.iterdir())
    sl.integrate(target.folder, progress=False).save(target.output)
    monkeypatch.delenv(RUN_MARK)
    return {path.name for path in set(target.output.iterdir()) - before}


def there(target: Target) -> set[str]:
    return {path.name for path in target.output.iterdir()}


def test_only_what_the_killed_run_has_made_is_cleared_away(target, monkeypatch):
    own, killed, other = (saved_by(mark, target, monkeypatch) for mark in ("", "1a2b", "3c4d"))
    assert len(own) == len(killed) == len(other) == 5
    rooms = [target.output / f"{hidden_start(mark)}x" for mark in ("1a2b", "3c4d")]
    for room in rooms:
        room.mkdir()
        (room / "integration.xisf").touch()
    (target.output / "running_notebook.ipynb").touch()
    _clear_away(target, Record("running", notebook="running_notebook.ipynb", mark="1a2b"))
    assert there(target) == own | other | {rooms[1].name}


def test_a_whole_result_stays(target, monkeypatch):
    whole = saved_by("1a2b", target, monkeypatch)
    stem = next(name for name in whole if name.endswith("_0000.xisf"))[:-5]
    (target.output / f"{stem}_notebook.ipynb").touch()
    _clear_away(target, Record("running", mark="1a2b"))
    assert there(target) == whole | {f"{stem}_notebook.ipynb"}


def test_a_target_that_runs_elsewhere_is_left_alone(target):
    write_record(target, Record("running", notebook="running_notebook.ipynb", mark="1a2b"))
    (target.output / "running_notebook.ipynb").touch()
    with only_run_of(target):
        record = TargetRun(target, sl.Job(str(target.folder))).run()
    assert record.status == "failed" and "another batch runs this target; wait" in record.error
    assert read_record(target).status == "running" and "running_notebook.ipynb" in there(target)


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


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    inside, most = [], []

    def work() -> None:
        for _ in range(20):
            with held(tmp_path / "lock"):
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


def test_saved_results_of_people_bear_no_mark(tmp_path):
    result = sl.integrate(SAMPLES / "M13" / "4_Registered", region=(0, 0, 64, 64), progress=False)
    result.save(tmp_path)
    (table,) = Path(tmp_path).glob("*_frames.ecsv")
    assert "mark" not in table.read_text("utf-8")
