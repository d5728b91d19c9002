"""What killed processes left is removed, and nothing that a living process holds."""

import json
import os
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from stacklib.utils import atomic_files, file_sets, leftovers
from stacklib.utils.file_sets import clear_room, name_all, temporary_folder, workroom
from stacklib.utils.leftovers import clear_leftovers, hold_name

#: Makes a work folder with a file in it, says so, and waits.
HOLDER = """
import sys, time
from pathlib import Path
from stacklib.utils.file_sets import workroom

with workroom(Path(sys.argv[1])) as room:
    (room / "half.xisf").write_text("half")
    print(room.name, flush=True)
    time.sleep(600)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leave(folder, *pairs, without_links=False, monkeypatch=None):
    """Leave what a process does that is killed after naming some files of a set."""
    room = folder / ".stacklib-12345678"
    room.mkdir()
    (folder / ".stacklib-12345678.lock").touch()
    staged = [(room / f"{number}.part", folder / name) for number, name in enumerate(pairs)]
    for path, _ in staged:
        path.write_text(path.name)
    return room, staged


class Killed(BaseException):
    pass


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("named", range(4))
def test_half_sets_go_and_whole_sets_stay(tmp_path, monkeypatch, links, named):
    room, staged = leave(tmp_path, "a_report.txt", "a_low.xisf", "a.xisf")
    (tmp_path / "of_someone_else.xisf").write_text("0.part")
    give, count = file_sets.give_name, []

    def give_some(*arguments):
        if len(count) == named:
            raise Killed
        count.append(1)
        give(*arguments)

    if not links:
        monkeypatch.setattr(atomic_files.os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    with monkeypatch.context() as patched:
        patched.setattr(file_sets, "give_name", give_some)
        patched.setattr(file_sets, "_take_back", lambda *_: None)
        if named < 3:
            with pytest.raises(Killed):
                name_all(staged)
        else:
            assert name_all(staged)
    assert len(names(tmp_path)) == 3 + named
    with workroom(tmp_path):
        pass
    assert names(tmp_path) == sorted(
        ["of_someone_else.xisf", *(["a.xisf", "a_low.xisf", "a_report.txt"] if named == 3 else [])]
    )
    assert not room.exists()


def test_a_name_that_was_claimed_without_links(tmp_path, monkeypatch):
    """Killed between the empty file that claims a name and the move in its place."""
    _, staged = leave(tmp_path, "a_report.txt", "a.xisf")

    def killed(*_):
        raise Killed

    monkeypatch.setattr(atomic_files.os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    monkeypatch.setattr(file_sets, "_take_back", lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(atomic_files, "rename", killed)
        patched.setattr(type(tmp_path), "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            name_all(staged)
    assert (tmp_path / "a_report.txt").stat().st_size == 0
    (tmp_path / "empty_of_someone_else").touch()
    with workroom(tmp_path):
        pass
    assert names(tmp_path) == ["empty_of_someone_else"]


def test_a_living_process_is_left_alone_and_a_dead_one_is_not(tmp_path):
    called = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(called, stdout=subprocess.PIPE, text=True) as process:
        room = process.stdout.readline().strip()
        with workroom(tmp_path) as own:
            assert own.name != room
        assert names(tmp_path) == sorted([room, f"{room}.lock"])
        assert (tmp_path / room / "half.xisf").exists()
        process.kill()
    with workroom(tmp_path):
        assert room not in names(tmp_path)
    assert names(tmp_path) == []


def test_what_cannot_be_removed_yet_goes_with_the_next_start(tmp_path):
    room, _ = leave(tmp_path)
    (room / "open").touch()
    clear_leftovers(tmp_path, lambda folder: None)
    assert names(tmp_path) == [room.name, f"{room.name}.lock"]
    clear_leftovers(tmp_path, clear_room)
    assert names(tmp_path) == []
    with hold_name(tmp_path) as folder:
        folder.mkdir()
    assert names(tmp_path) == [folder.name, f"{folder.name}.lock"]
    clear_leftovers(tmp_path, clear_room)
    assert names(tmp_path) == []


def test_a_lock_inside_a_folder_counts(tmp_path):
    """The process that started the run is gone, the one that runs the notebook is not."""
    room, _ = leave(tmp_path)
    with FileLock(room / "papermill.lock"):
        clear_leftovers(tmp_path, clear_room)
        assert room.is_dir()
    clear_leftovers(tmp_path, clear_room)
    assert names(tmp_path) == []


def test_without_locks_leftovers_go_after_a_day(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(leftovers.FileLock, "acquire", refuse)
    with hold_name(tmp_path) as name:
        name.write_text("half")
        clear_leftovers(tmp_path)
        assert names(tmp_path) == [name.name]
        os.utime(name, (time.time() - 90000,) * 2)
        clear_leftovers(tmp_path)
        assert names(tmp_path) == []


def test_other_names_are_never_touched(tmp_path):
    kept = ["stacklib-1.0.tar.gz", ".stacklib_batch.json", "4_integrate.ipynb", ".stacklib"]
    for name in kept:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (1, 1))
    clear_leftovers(tmp_path, clear_room)
    assert names(tmp_path) == sorted(kept)


def test_folders_stay_where_only_files_are_looked_for(tmp_path):
    room, _ = leave(tmp_path)
    (tmp_path / ".stacklib-abcdef01.json").write_text("half")
    (tmp_path / ".stacklib-abcdef01.lock").touch()
    atomic_files.replace_atomically(tmp_path / "recipe.yaml", b"sigma")
    assert names(tmp_path) == sorted([room.name, f"{room.name}.lock", "recipe.yaml"])


def test_temporary_folders_of_killed_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(file_sets.tempfile, "tempdir", str(tmp_path))
    leave(tmp_path, "kernel-1")
    (tmp_path / "mine").mkdir()
    with temporary_folder() as folder:
        assert folder.parent == tmp_path and folder.is_dir()
        assert names(tmp_path) == sorted(["mine", folder.name, f"{folder.name}.lock"])
    assert names(tmp_path) == ["mine"]


def test_notes_of_a_killed_process_may_be_damaged(tmp_path):
    room, _ = leave(tmp_path, "a.xisf")
    for number, text in enumerate(("", "[", "{}", '["a"', json.dumps([]), "7", '{"a": 1}', "[1, 2]")):
        (room / f"{number}.moved").write_text(text)
        (room / f"{number}.names").write_text(text)
    (tmp_path / "a").write_text("mine")
    with workroom(tmp_path):
        pass
    assert names(tmp_path) == ["a"]
