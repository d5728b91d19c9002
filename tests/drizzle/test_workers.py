"""Several processes and any budget give the same bits; what goes wrong in a process is told."""

import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
from image_files import raw_fits

from stacklib.drizzle.deposit import Drop, Grid, deposit
from stacklib.drizzle.processes import worker, workers
from stacklib.drizzle.processes.workers import _strips, deposit_all
from stacklib.errors import FrameError, IntegrationError, StacklibWarning
from stacklib.frames.frame import Frame
from stacklib.frames.mosaic import Sites

SITES = Sites("RGGB", 3)
HEIGHT, WIDTH = 220, 180
GRID = Grid(width=WIDTH, height=HEIGHT, scale=1.3)


@pytest.fixture(scope="module")
def drops(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("frames"), []
    rng = np.random.default_rng(2)
    for number in range(3):
        path = raw_fits(folder / f"frame_{number}.fits", rng.random((HEIGHT, WIDTH)).astype(">f4"))
        turn = np.radians(number)
        turned = [[np.cos(turn), -np.sin(turn), 2.3], [np.sin(turn), np.cos(turn), -1.2], [0, 0, 1]]
        one = np.ones(3)
        found.append(
            Drop(
                pixels=Frame(path, quiet=True),
                height=HEIGHT,
                width=WIDTH,
                inverse=np.array(turned),
                factor=one,
                offset=0 * one,
                weights=one,
            )
        )
    return found


@pytest.fixture(scope="module")
def alone(drops):
    return deposit(drops, SITES, GRID)


def same(found, expected):
    return all(np.array_equal(*planes) for planes in zip(found, expected, strict=True))


@pytest.mark.parametrize(("threads", "memory"), [(1, "2GB"), (2, "2GB"), (1, "2MB")])
def test_processes_and_budget_change_no_bit(drops, alone, monkeypatch, threads, memory):
    monkeypatch.setattr(workers, "FEW_SAMPLES", 0)
    reported = []
    if memory == "2MB":
        with pytest.warns(StacklibWarning, match="memory: the result alone takes 2 MB"):
            found = deposit_all(drops, SITES, GRID, memory, threads, reported.append)
    else:
        found = deposit_all(drops, SITES, GRID, memory, threads, reported.append)
    assert same(found, alone) and sum(reported) == pytest.approx(3)


def test_strips_fit_into_the_budget():
    strips, processes = _strips(3000, 4000, 3, 750 << 20, 2)
    assert processes == 2 and len(strips) == 2 and strips == [(0, 1500), (1500, 3000)]
    strips, processes = _strips(3000, 4000, 3, 350 << 20, 2)
    assert processes == 1 and len(strips) > 1 and strips[-1][1] == 3000
    rows = max(stop - start for start, stop in strips)
    assert rows * 8 * 3 * 4000 + workers.PROCESS_BYTES <= 350 << 20
    # Fewer rows than processes can share.
    assert _strips(70, 10, 1, 10**10, 8) == ([(0, 70)], 1)


def test_an_error_of_a_frame_is_the_same_in_a_process(drops, monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "FEW_SAMPLES", 0)
    path = raw_fits(tmp_path / "gone.fits", np.ones((HEIGHT, WIDTH), ">f4"))
    frame = Frame(path, quiet=True)
    path.unlink()
    broken = [*drops, Drop(**{**drops[0].__dict__, "pixels": frame})]
    with pytest.raises(FrameError, match=r"gone\.fits: there is no such file"):
        deposit_all(broken, SITES, GRID, threads=2)


def test_a_process_that_dies_is_told(drops, monkeypatch):
    monkeypatch.setattr(workers, "FEW_SAMPLES", 0)
    monkeypatch.setattr(workers.worker, "__name__", "this")
    with pytest.raises(IntegrationError, match=r"ended before its time \(exit code \d+\)"):
        deposit_all(drops, SITES, GRID, threads=2)


def test_processes_end_when_the_work_is_stopped(drops, monkeypatch):
    monkeypatch.setattr(workers, "FEW_SAMPLES", 0)
    started = []
    original = subprocess.Popen

    def popen(*args, **options):
        started.append(original(*args, **options))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", popen)

    def stop(frames):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deposit_all(drops, SITES, GRID, threads=2, report=stop)
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_a_process_ends_with_the_one_that_started_it():
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", worker.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    job = pickle.dumps(([], SITES, GRID, 0))
    process.stdin.write(worker.SIZE.pack(len(job)) + job)
    process.stdin.close()
    for _ in range(600):
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.stdout.close()
    assert process.poll() == 0
