"""Files are taken for frames once they are whole, on any drive."""

import os
import shutil
import time

import pytest
from conftest import SAMPLES

from stacklib.watch.incoming import Incoming

FRAMES = sorted((SAMPLES / "M13" / "4_Registered").glob("*.fits"))


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def names(arrived):
    return [frame.name for frame in arrived.frames]


def test_a_file_that_grows_is_waited_for(tmp_path, clock):
    incoming, content = Incoming(tmp_path, settle=4, clock=clock), FRAMES[0].read_bytes()
    path = tmp_path / "a.fits"
    for size in (3000, 60000, len(content)):
        path.write_bytes(content[:size])
        for _ in range(2):
            found = incoming.look()
            assert found.waiting == ["a.fits"] and not found.frames
            clock.now += 1.9
    clock.now += 0.3
    found = incoming.look()
    assert names(found) == ["a.fits"] and not found.waiting and found.frames[0].read().any()


def test_a_file_that_is_there_for_long_is_taken_at_once(tmp_path, clock):
    shutil.copy(FRAMES[0], tmp_path / "old.fits")
    os.utime(tmp_path / "old.fits", (time.time() - 90,) * 2)
    shutil.copy(FRAMES[1], tmp_path / "new.fits")
    os.utime(tmp_path / "new.fits")
    # The clock of a network drive may be ahead.
    shutil.copy(FRAMES[2], tmp_path / "ahead.fits")
    os.utime(tmp_path / "ahead.fits", (time.time() + 3600,) * 2)
    found = Incoming(tmp_path, clock=clock).look()
    assert names(found) == ["old.fits"] and found.waiting == ["ahead.fits", "new.fits"]


def test_a_file_that_stays_cut_off_is_told_and_read_once_it_is_whole(tmp_path, clock):
    incoming, content = Incoming(tmp_path, settle=4, clock=clock), FRAMES[0].read_bytes()
    path = tmp_path / "a.fits"
    path.write_bytes(content[:-4000])
    incoming.look()
    clock.now += 5
    found = incoming.look()
    assert list(found.unreadable) == ["a.fits"] and "a.fits" in found.unreadable["a.fits"]
    path.write_bytes(content)
    assert incoming.look().waiting == ["a.fits"]
    clock.now += 5
    assert names(incoming.look()) == ["a.fits"]


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, clock, monkeypatch):
    incoming = Incoming(tmp_path, settle=4, clock=clock)
    shutil.copy(FRAMES[0], tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(content[:5000])
    stamp = (tmp_path / "a.fits").stat().st_mtime_ns
    incoming.look()
    clock.now += 5
    assert incoming.look().unreadable
    # A drive that shows the size at once and the content later.
    (tmp_path / "a.fits").write_bytes(content)
    os.utime(tmp_path / "a.fits", ns=(stamp, stamp))
    incoming._files[tmp_path / "a.fits"].stamp = (len(content), stamp)
    assert incoming.look().unreadable
    clock.now += 61
    assert names(incoming.look()) == ["a.fits"]


def test_an_empty_or_missing_folder_is_no_error(tmp_path):
    for folder in (tmp_path, tmp_path / "later"):
        found = Incoming(folder).look()
        assert not (found.frames or found.waiting or found.unreadable)


def test_frames_that_are_taken_away_are_gone_and_others_keep_what_was_read(tmp_path, clock):
    for path in FRAMES[:3]:
        shutil.copy(path, tmp_path)
    incoming = Incoming(tmp_path, settle=0, clock=clock)
    first = incoming.look()
    assert len(first.frames) == 3 and len(first.frame_set()) == 3
    (tmp_path / FRAMES[1].name).unlink()
    second = incoming.look()
    assert [id(frame) for frame in second.frames] == [id(first.frames[0]), id(first.frames[2])]
    assert second.key != first.key and second.key == incoming.look().key


def test_what_is_no_light_is_left_out(tmp_path, clock):
    for path in FRAMES[:2]:
        shutil.copy(path, tmp_path)
    shutil.copy(FRAMES[2], tmp_path / "20210815_M13_master.fits")
    (tmp_path / "notes.txt").write_text("no image")
    found = Incoming(tmp_path, settle=0, clock=clock).look()
    assert names(found) == [path.name for path in FRAMES[:2]]
