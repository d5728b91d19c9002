"""A night that is watched: what is integrated, what the page says, and how it ends."""

import json
import re
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT, SAMPLES

import stacklib as sl
from stacklib.errors import SaveError, StacklibError
from stacklib.simulate import simulate_frames
from stacklib.watch import watching
from stacklib.watch.incoming import Incoming
from stacklib.watch.page import Shown, watch_page
from stacklib.watch.record import Entry, percent
from stacklib.watch.watching import Watch

FRAMES = sorted((SAMPLES / "M13" / "4_Registered").glob("*.fits"))


class Night:
    """A folder that frames come into, and what is said about it."""

    def __init__(self, home):
        self.folder, self.said = home / "4_Registered", []
        self.folder.mkdir()
        self.live = home / "5_Integration" / "live"

    def come(self, *frames):
        for path in frames:
            shutil.copy(path, self.folder)

    def watch(self, **values):
        job = sl.Job.from_dict({"frames": str(self.folder), "rejection": "sigma"} | values)
        return Watch(job, Incoming(self.folder, settle=0), self.said.append)

    @property
    def page(self):
        return (self.live / "live.html").read_text("utf-8")

    @property
    def entries(self):
        return json.loads((self.live / "live.json").read_text("utf-8"))["entries"]


@pytest.fixture
def night(tmp_path):
    return Night(tmp_path)


def test_what_has_come_in_is_integrated(night):
    watch = night.watch()
    assert not watch.step() and not night.live.exists()
    night.come(FRAMES[0])
    assert not watch.step()
    night.come(*FRAMES[1:6])
    assert watch.step() and not watch.step()
    night.come(*FRAMES[6:8])
    assert watch.step()
    assert [entry["used"] for entry in night.entries] == [6, 8]
    assert night.entries[1]["noise"] < night.entries[0]["noise"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = sl.integrate(night.folder, sl.Recipe(rejection="sigma"), progress=False)
    np.testing.assert_array_equal(watch.result.image, whole.image)
    # The master on the disk is that of the page.
    saved = sl.open_frames(night.live / "live_master.xisf", everything=True)[0].read()
    np.testing.assert_allclose(saved, whole.image, rtol=1e-6)


def test_compiling_is_shown(night, monkeypatch):
    night.come(*FRAMES[:3])
    compiled = []
    monkeypatch.setattr(watching, "compile_ahead", lambda steps: compiled.append(len(steps)))
    night.watch().step()
    assert len(compiled) == 1 and compiled[0] > 3


def test_the_page_tells_how_it_goes(night):
    night.come(*FRAMES[:5])
    watch = night.watch()
    watch.step()
    page, (entry,) = night.page, night.entries
    assert "location.reload()" in page and "5 frames of 5 used" in page
    assert page.count("data:image/jpeg;base64,") == page.count("data:image/png;base64,") == 1
    assert f"Another hour raises the signal-to-noise ratio by {percent(entry['hour'])}" in page
    assert f"noise {entry['noise']:.3g} of that of one frame" in page
    assert 'href="live_master.xisf"' in page
    name = FRAMES[5].name
    (night.folder / name).write_bytes(FRAMES[5].read_bytes()[:9000])
    watch.incoming.settle = 100
    watch.step()
    assert f"Being written: {name}" in night.page
    watch.incoming.settle = 0
    watch.step()
    assert f"Not used, {name}:" in night.page
    # Nothing is written when nothing has happened.
    stamp = (night.live / "live.html").stat().st_mtime_ns
    watch.step()
    assert (night.live / "live.html").stat().st_mtime_ns == stamp


def test_another_hour_of_equal_frames_is_worth_what_theory_says(tmp_path):
    night = Night(tmp_path)
    frames = simulate_frames(9, 120, 160, 1, "field", 3, sky_drift=0, extinction=0, cloudy=0, trails=0)
    frames.save(night.folder)
    night.watch().step()
    (entry,) = night.entries
    # One every 183 s.
    assert entry["frames_per_hour"] == pytest.approx(3600 / 183)
    assert entry["hour"] == pytest.approx(np.sqrt(1 + 3600 / 183 / 9) - 1, rel=0.05)
    assert entry["exposure"] == 9 * 180


def test_the_end_is_a_usual_result(night):
    night.come(*FRAMES[:4])

    def pause(seconds):
        assert seconds == 7
        raise KeyboardInterrupt

    night.watch().run(every=7, pause=pause)
    names = sorted(path.name for path in night.live.parent.iterdir())
    assert len([name for name in names if name.endswith(".xisf")]) == 3
    assert any(name.endswith("_report.txt") for name in names)
    assert "location.reload()" not in night.page and "Stopped. The result is saved as" in night.page
    assert sorted(path.name for path in night.live.iterdir()) == [
        "live.html",
        "live.json",
        "live_master.xisf",
    ]


def test_ctrl_c_while_code_is_loaded_loses_no_result(night, monkeypatch):
    night.come(*FRAMES[:3])
    watch = night.watch()
    watch.step()
    night.come(FRAMES[3])

    def stopped(*given, **how):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            # As numba does.
            raise SystemError("returned a result with an exception set") from error

    monkeypatch.setattr(watching, "integrate", stopped)
    watch.run()
    assert (
        "Stopped. The result is saved as" in night.page
        and len(list(night.live.parent.glob("*_0000.xisf"))) == 1
    )


def test_what_the_job_wants_is_saved_at_the_end(night, monkeypatch):
    night.come(*FRAMES[:3])
    wanted = {"save_fits": True, "save_masks": True, "drizzle_data": True}
    watch, saved = night.watch(**wanted), {}
    watch.step()

    def save(self, folder, **also):
        saved.update(also)
        return [folder / "master.xisf"]

    monkeypatch.setattr(sl.Integration, "save", save)
    watch.finish()
    assert saved == {"maps": False, "fits": True, "masks": True, "drizzle_data": True}


def test_without_frames_it_ends_without_a_trace(night):
    def pause(_):
        raise KeyboardInterrupt

    night.watch().run(pause=pause)
    assert not night.live.parent.exists()
    assert any("Waiting for frames" in words for words in night.said)
    night.folder.rmdir()
    night.watch().run(pause=pause)
    assert any("no such" in words for words in night.said)


def test_a_run_that_fails_is_told_and_watching_goes_on(night, tmp_path):
    night.come(*FRAMES[:4])
    other = tmp_path / "other"
    simulate_frames(1, 64, 64, 1, "field", 1).save(other, "fits")
    night.come(*other.iterdir())
    watch = night.watch(output=str(night.live.parent))
    assert watch.step() and watch.result is None
    assert "the frames differ" in night.page and "watching on" in night.page
    assert not watch.step()
    clock = watch.incoming.clock
    watch.incoming.clock = lambda: clock() + 61
    assert watch.step()
    for path in other.iterdir():
        (night.folder / path.name).unlink()
    assert watch.step() and "the frames differ" not in night.page and watch.result is not None


def test_an_error_that_nobody_expects_loses_no_result(night):
    night.come(*FRAMES[:4])
    watch = night.watch()

    def break_down(seconds):
        raise RuntimeError("a fault of our own")

    with pytest.raises(RuntimeError, match="a fault of our own"):
        watch.run(pause=break_down)
    assert "Stopping because of an error ..." in night.said
    saved = [path for path in night.live.parent.glob("*.xisf") if "rejection" not in path.name]
    assert len(saved) == 1 and saved[0].name in night.page and not list(night.live.glob("*.lock"))


def test_a_page_that_cannot_be_written_ends_no_night(night, monkeypatch):
    night.come(*FRAMES[:4])
    watch, full = night.watch(), True
    write = watching.replace_atomically

    def replace(path, content):
        if full and path.name == "live.html":
            raise SaveError(f"{path}: there is no space left on the device")
        write(path, content)

    monkeypatch.setattr(watching, "replace_atomically", replace)
    assert watch.step() and not watch.step()
    assert sum("no space left" in words for words in night.said) == 1
    full = False
    assert not watch.step() and "4 frames integrated" in night.page


def test_two_do_not_watch_for_one_folder_and_a_night_goes_on_later(night):
    night.come(*FRAMES[:4])
    first, second = night.watch(), night.watch()
    first.step()
    with pytest.raises(SaveError, match="another process watches"):
        second.step()
    first.finish()
    night.come(FRAMES[4])
    third = night.watch()
    third.step()
    assert [entry["used"] for entry in night.entries] == [4, 5]


def test_a_list_of_files_cannot_be_watched(night):
    with pytest.raises(StacklibError, match="one folder or one pattern"):
        Watch(sl.Job(frames=["a.fits", "b.fits"]))


def test_names_cannot_change_the_page():
    entry = Entry("2026-01-01T22:00:00", 2, 2, 60.0, None, None, None, None, 1.0, "<b>")
    page = watch_page(Shown("<script>x()</script>", "a<b", unreadable={"<i>.fits": "&"}), [entry])
    assert "<script>x()" not in page and "<i>" not in page and "<b>" not in page
    assert "Another hour raises" not in page


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C of another process")
def test_ctrl_c_ends_the_command(night):
    night.come(*FRAMES[:5])
    called = [sys.executable, "-m", "stacklib.cli", "watch", str(night.folder), "--every", "0.2"]
    process = subprocess.Popen(
        [*called, "-p", "rejection", "sigma"], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )
    try:
        first = next(line for line in process.stdout if line.startswith("5 frames"))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert re.match(r"5 frames, noise 0\.\d+ of one frame\. Another hour raises", first)
    assert "_rejection_high.xisf" in said and "Stopped." in night.page
