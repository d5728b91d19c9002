"""What is found from a set of frames is kept, and never used for another set."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from stacklib.errors import SaveError
from stacklib.formats.source import FileStamp
from stacklib.measurement.cache import sets
from stacklib.measurement.cache.planes import sets_folder
from stacklib.measurement.cache.sets import kept_by_frame, kept_for_set, kept_for_settings
from stacklib.utils.package import CACHE_VARIABLE


@dataclass
class Setting:
    """A setting with parts."""

    name: str
    values: np.ndarray


class File:
    """Stands for a frame that is opened again whenever its file changes."""

    def __init__(self, path) -> None:
        self.path = path

    @property
    def stamp(self) -> FileStamp:
        return FileStamp.of(self.path)


#: Pack and unpack.
AS_ARRAYS = (lambda found: {"found": found}), (lambda arrays: arrays["found"])


class Finder:
    """Finds something, and counts how often it had to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frames, *settings) -> np.ndarray:
        return kept_for_set(frames, ("test", *settings), self.find, *AS_ARRAYS)

    def find(self) -> np.ndarray:
        self.calls += 1
        return np.array([np.pi, np.nan, -0.0, 1e-310]) * self.calls


@pytest.fixture
def frames(tmp_path):
    made = []
    for name in ("a", "b", "c"):
        path = tmp_path / f"{name}.fits"
        path.write_bytes(name.encode() * 100)
        made.append(File(path))
    return made


@pytest.fixture
def finder():
    return Finder()


def test_it_is_found_once_and_comes_back_to_the_last_bit(frames, finder):
    first, again = finder(frames, 1.0), finder(frames, 1.0)
    assert finder.calls == 1
    assert first.tobytes() == again.tobytes()


def test_other_frames_are_another_set(frames, finder):
    for some in (frames, frames[:2], frames[1:], frames[::-1]):
        finder(some)
    assert finder.calls == 4
    frames[1].path.write_bytes(b"other")
    finder(frames)
    assert finder.calls == 5
    # Only those that are in the set count.
    finder([frames[0], frames[2]])
    frames[1].path.write_bytes(b"changed again")
    finder([frames[0], frames[2]])
    assert finder.calls == 6


def test_the_same_size_at_another_time_is_another_file(frames, finder):
    finder(frames)
    stat = frames[0].path.stat()
    os.utime(frames[0].path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    finder(frames)
    assert finder.calls == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1.0, np.nextafter(1.0, 2.0)),
        (1.0, 1),
        (True, 1),
        (None, "None"),
        (np.zeros(4), np.zeros((2, 2))),
        (np.zeros(2), np.zeros(4, np.float32)),
        (np.zeros(2), -np.zeros(2)),
        (("ab", "c"), ("a", "bc")),
        ((1, (2,)), ((1,), 2)),
        ({(0, 1): np.ones(1)}, {(1, 0): np.ones(1)}),
        (Setting("x", np.ones(2)), Setting("y", np.ones(2))),
        (Setting("x", np.ones(2)), Setting("x", np.zeros(2))),
    ],
)
def test_other_settings_are_another_result(frames, finder, one, other):
    for setting in (one, other, one, other):
        finder(frames, setting)
    assert finder.calls == 2


def test_another_state_of_the_package_finds_it_again(frames, finder, monkeypatch):
    finder(frames)
    monkeypatch.setattr(sets, "_code", lambda: "newer")
    finder(frames)
    assert finder.calls == 2


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"PK\x03\x04" * 9, None])
def test_a_damaged_file_is_no_file(frames, finder, damage):
    first = finder(frames)
    (path,) = sets_folder(frames[0].path.parent).glob("*.npz")
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    assert np.array_equal(finder(frames), 2 * first, equal_nan=True)
    finder(frames)
    assert finder.calls == 2


def test_a_file_that_changes_meanwhile_is_not_kept(frames, finder):
    def change():
        frames[0].path.write_bytes(b"changed meanwhile")
        return finder.find()

    kept_for_set(frames, ("test",), change, *AS_ARRAYS)
    finder(frames)
    assert finder.calls == 2


def test_what_was_found_from_a_file_that_has_changed_since_is_not_kept(frames, finder):
    opened = [SimpleNamespace(path=frame.path, stamp=frame.stamp) for frame in frames]
    frames[0].path.write_bytes(b"changed")
    # They go by samples in memory.
    finder(opened)
    find = ByFrame()
    for stacked in ([0], [1]):
        find(opened, stacked)
    finder(frames)
    find(frames, [1])
    assert finder.calls == 2 and find.found == [["a", "b", "c"]] * 3


def test_frames_without_files_and_a_full_disk(frames, finder, monkeypatch):
    def refuse(path, content):
        raise SaveError("no room")

    monkeypatch.setattr(sets, "replace_atomically", refuse)
    assert finder(frames).size == 4
    monkeypatch.undo()
    frames[0].path.unlink()
    assert finder(frames).size == 4
    assert finder([File(None)]).size == 4
    assert not list(sets_folder(frames[1].path.parent).glob("*"))


def test_few_files_are_kept(frames, finder, monkeypatch):
    monkeypatch.setattr(sets, "SETS", 3)
    for number in range(5):
        finder(frames, number)
    folder = sets_folder(frames[0].path.parent)
    assert len(list(folder.glob("*"))) == 3
    # Those used last, and only for a time.
    (newest, *others) = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others:
        os.utime(path, (time.time() - (sets.SET_DAYS + 1) * 86400,) * 2)
    finder(frames, 5)
    assert len(list(folder.glob("*"))) == 2
    assert newest.exists()


class ByFrame:
    """Finds a number of each frame, and tells of which it had to."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []

    def __call__(self, frames, stacked, *settings) -> list[float]:
        def find(some: list[int]) -> np.ndarray:
            self.found.append([frames[i].path.stem for i in some])
            return np.array([[len(self.found) + ord(frames[i].path.stem) / 1000, np.nan] for i in some])

        numbers = kept_by_frame(frames, stacked, ("by frame", *settings), find)
        assert numbers.shape == (len(frames), 2) and np.isnan(numbers[:, 1]).all()
        return numbers[:, 0].tolist()


def test_only_frames_that_are_new_are_looked_at(frames):
    find, a, b, c = ByFrame(), 0.097, 0.098, 0.099
    assert find(frames[:2], [0]) == [1 + a, 1 + b]
    assert find(frames, [0]) == [1 + a, 1 + b, 2 + c]
    # Without one, and in another order.
    assert find([frames[2], frames[0]], [1]) == [2 + c, 1 + a]
    assert find.found == [["a", "b"], ["c"]]
    frames[1].path.write_bytes(b"another")
    assert find(frames, [0]) == [1 + a, 3 + b, 2 + c]
    assert find.found[2:] == [["b"]]


def test_other_frames_to_compare_with_or_settings_find_everything_again(frames):
    find = ByFrame()
    find(frames, [0])
    find(frames, [1])
    find(frames, [0], 1.0)
    frames[0].path.write_bytes(b"another")
    find(frames, [0])
    assert find.found == [["a", "b", "c"]] * 4


def test_a_file_of_frames_that_is_used_stays(frames, finder, monkeypatch):
    monkeypatch.setattr(sets, "SETS", 2)
    find = ByFrame()
    find(frames, [0])
    (path,) = sets_folder(frames[0].path.parent).glob("by frame-*.npz")
    for number in range(3):
        os.utime(path, (time.time() - 86400,) * 2)
        find(frames[:2], [0])
        finder(frames, number)
    assert path.exists() and find.found == [["a", "b", "c"]]


def test_a_damaged_file_of_frames_is_made_again(frames):
    find = ByFrame()
    find(frames, [0])
    (path,) = sets_folder(frames[0].path.parent).glob("by frame-*.npz")
    path.write_bytes(path.read_bytes()[:100])
    find(frames, [0])
    find(frames, [0])
    assert find.found == [["a", "b", "c"]] * 2


def test_a_frame_that_is_no_file_is_looked_at_again(frames):
    find = ByFrame()
    for _ in range(2):
        find([*frames, File(frames[0].path.with_name("d"))], [0])
    assert find.found == [["a", "b", "c", "d"]] * 2


def test_what_follows_from_settings_alone_is_found_once(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    calls = []

    def find(size=3):
        calls.append(size)
        return np.full(size, np.pi)

    first, again = (kept_for_settings(("numbers", 1.5), find) for _ in range(2))
    assert calls == [3] and first.tobytes() == again.tobytes()
    kept_for_settings(("numbers", 1.25), find)
    assert calls == [3, 3] and len(list((tmp_path / sets.NUMBERS).glob("*.npz"))) == 2
    # A large array takes less time to find than to read.
    for _ in range(2):
        kept_for_settings(("large",), lambda: find(sets.LARGEST))
    assert calls[2:] == [sets.LARGEST] * 2


def test_of_what_is_found_on_the_way_to_something_else_only_that_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    outer = kept_for_settings(("outer",), lambda: 2 * kept_for_settings(("inner",), lambda: np.ones(1)))
    (path,) = (tmp_path / sets.NUMBERS).glob("*.npz")
    assert outer == 2 and path.name.startswith("outer")
    with pytest.raises(ZeroDivisionError):
        kept_for_settings(("failed",), lambda: np.array(1 / 0))
    assert kept_for_settings(("inner",), lambda: np.ones(1)) == 1
    assert len(list((tmp_path / sets.NUMBERS).glob("inner*"))) == 1
