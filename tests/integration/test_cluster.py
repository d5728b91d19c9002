"""Integration on a Dask cluster: the same bits, within the memory of the workers, also when one dies."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES

import stacklib as sl
from stacklib.formats import xisf
from stacklib.integration import cluster
from stacklib.simulate import simulate_night

distributed = pytest.importorskip("dask.distributed", reason="Dask is not installed")

from slow_store import slow_down  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    pytest.mark.filterwarnings("ignore:.*do not lie on the others"),
    pytest.mark.filterwarnings("ignore:.*cannot reject anything"),
]

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hatp32_reg40"
#: Where the frames of each set are.
SETS = {
    "M101": SAMPLES / "M101" / "4_Registered",
    "M13": SAMPLES / "M13" / "4_Registered",
    "hatp32_reg40": REAL,
}
ARRAYS = ("image", "rejection_low", "rejection_high", "coverage", "uncertainty")
#: Of each worker.
LIMIT = 640_000_000
PLAIN = sl.Recipe(rejection="winsorized_sigma", weights="none")


@contextlib.contextmanager
def two_workers():
    """Two worker processes, and their client."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            memory_limit=LIMIT,
            dashboard_address=":0",
            silence_logs=50,
        ) as workers,
        distributed.Client(workers) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client():
    """Two worker processes, for all tests of this module: to start them takes seconds."""
    with two_workers() as client:
        yield client


@pytest.fixture
def own_workers():
    """Workers of one test: dask does not start each one again that was killed."""
    with two_workers() as client:
        yield client


@pytest.fixture
def slow_store(client):
    """Every read takes longer."""
    client.run(slow_down, 0.01)
    yield
    client.run(slow_down, 0)


def linked(name, folder):
    """A folder with links to a set: nothing is known there of the measurements of its frames."""
    if not SETS[name].is_dir():
        pytest.skip(f"{name} is not here")
    folder.mkdir()
    for path in SETS[name].iterdir():
        if path.suffix in (".xisf", ".fits"):
            (folder / path.name).symlink_to(path)
    return folder


def assert_same(one, other):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for a, b in zip(one.counts, other.counts, strict=True):
        np.testing.assert_array_equal(a.table, b.table)
    for name in ("weights", "factor", "offset", "scale"):
        np.testing.assert_array_equal(getattr(one.preparation, name), getattr(other.preparation, name))
    assert one.summary == other.summary


def act_after(monkeypatch, function, count, act):
    """Call `act` when so many calls of `function` have come back from the workers."""
    run = cluster.Cluster._run

    def acting(self, called, jobs):
        for number, result in enumerate(run(self, called, jobs)):
            if called is function and number + 1 == count:
                act()
            yield result

    monkeypatch.setattr(cluster.Cluster, "_run", acting)


def idle(client, seconds=5):
    """Whether the workers have nothing to do, before long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(client.processing().values()):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", SETS)
def test_the_result_is_the_local_one_bit_for_bit(name, client, tmp_path):
    there = sl.integrate(linked(name, tmp_path / "there"), client=client, progress=False)
    here = sl.integrate(linked(name, tmp_path / "here"), progress=False)
    assert_same(there, here)
    np.testing.assert_array_equal(there.preparation.measurements.noise, here.preparation.measurements.noise)


def test_samples_are_not_kept_on_a_cluster_and_that_is_said(client):
    with pytest.warns(sl.StacklibWarning, match="keep_samples: without effect on a cluster"):
        result = sl.integrate(SETS["M13"], client=client, progress=False, keep_samples=True)
    assert result.how == ""


def test_bands_of_few_rows_and_a_region(client, m101, monkeypatch):
    monkeypatch.setattr(cluster, "LEAST_ROWS", 1)
    monkeypatch.setattr(cluster, "BANDS", 40)
    region = (11, 3, 70, 41)
    recipe = sl.Recipe(rejection="linear_fit", range_clip_high=True, range_high=0.3)
    there, here = (
        sl.integrate(SETS["M101"], recipe, region=region, client=each, progress=False)
        for each in (client, None)
    )
    assert_same(there, here)
    np.testing.assert_array_equal(there.slope, here.slope)


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """Two folders with the same frames of a changing night: neither knows what is found in the other."""
    night = simulate_night(6, 240, 320, 1, "field", 6501, transparency=(0.5, 1), gradient=0.02, dither=3)
    folders = [tmp_path_factory.mktemp(name) for name in ("there", "here")]
    for folder in folders:
        night.save(folder, "fits", "f32")
    return folders


@pytest.mark.parametrize(
    "changes",
    [
        {"preset": "measured"},
        {"normalization": "local", "rejection": "calibrated_sigma", "weights": "information"},
    ],
    ids=["measured", "local"],
)
def test_frames_compared_by_their_light(changes, client, changing, monkeypatch):
    pytest.importorskip("sep")
    monkeypatch.setattr(cluster, "LEAST_ROWS", 1)
    monkeypatch.setattr(cluster, "BANDS", 20)
    recipe = sl.Recipe.from_dict(changes)
    there, here = (
        sl.integrate(folder, recipe, client=each, progress=False)
        for folder, each in zip(changing, (client, None), strict=True)
    )
    assert_same(there, here)
    for name in ("transparency", "noise", "pixel_noise", "sky", "anchor"):
        one, other = (getattr(result.preparation.photometry, name) for result in (there, here))
        np.testing.assert_array_equal(one, other, err_msg=name)
    surfaces = [result.preparation.photometry.surfaces for result in (there, here)]
    np.testing.assert_array_equal(*(each.offset for each in surfaces))
    assert surfaces[0].gain is None or np.array_equal(surfaces[0].gain, surfaces[1].gain)
    assert (surfaces[0].gain is None) == (recipe.normalization != "local")
    np.testing.assert_array_equal(there.shift, here.shift)


@pytest.mark.parametrize("rule", ["winsorized_sigma", "noise_model"])
def test_masks_are_the_local_ones(rule, client, m101, monkeypatch):
    monkeypatch.setattr(cluster, "LEAST_ROWS", 16)
    recipe = sl.Recipe(rejection=rule, footprints="all", large_scale_high=True)
    regions = None, (11, 3, 70, 41)
    for region in regions:
        there, here = (
            sl.integrate(SETS["M101"], recipe, region=region, client=each, progress=False)
            for each in (client, None)
        )
        assert_same(there, here)
        assert here.masks and list(there.masks) == list(here.masks)
        for i, channel in here.masks:
            np.testing.assert_array_equal(there.masks.flags(i, channel), here.masks.flags(i, channel))
        assert there.masks.lines == here.masks.lines
        for a, b in zip(there.mask_counts, here.mask_counts, strict=True):
            np.testing.assert_array_equal(a.table, b.table)


@pytest.mark.parametrize("when", ["measuring", "integrating"])
def test_a_worker_may_die(when, own_workers, tmp_path, m101, monkeypatch):
    own_workers.run(slow_down, 0.01)
    function = {"measuring": cluster._in_turn, "integrating": cluster._integrate_band}[when]
    died = []

    def kill():
        # Frames are searched in the same way as they are measured.
        if not died:
            os.kill(min(own_workers.run(os.getpid).values()), signal.SIGKILL)
            died.append(when)

    act_after(monkeypatch, function, 2, kill)
    there = sl.integrate(linked("M101", tmp_path / "there"), m101.recipe, client=own_workers, progress=False)
    assert died
    assert_same(there, m101)


def test_without_any_worker_left_the_search_ends_with_one_error(own_workers, tmp_path, m101, monkeypatch):
    client, search = own_workers, cluster.Cluster.search

    def dying(self, *arguments):
        for number, found in enumerate(search(self, *arguments)):
            if number == 1:
                for process in client.run(os.getpid).values():
                    os.kill(process, signal.SIGKILL)
            yield found

    client.wait_for_workers(2, timeout=120)
    monkeypatch.setattr(cluster.Cluster, "search", dying)
    folder = linked("M101", tmp_path / "there")
    recipe = m101.recipe.replace(footprints="all")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(sl.IntegrationError, match=r"all workers died at once.*integrate again"):
        sl.integrate(folder, recipe, client=client, progress=False)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.undo()
    client.wait_for_workers(1, timeout=120)
    assert idle(client)
    there = sl.integrate(folder, recipe, client=client, progress=False)
    assert_same(there, sl.integrate(folder, recipe, progress=False))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the peak memory from")
def test_workers_stay_within_their_memory(own_workers, tmp_path):
    """The samples are many times what a worker has left for them."""
    random = np.random.default_rng(1)
    plane = random.normal(0.1, 0.01, (1, 1000, 2000)).astype(np.float32)
    for number in range(36):
        xisf.write_image(tmp_path / f"a{number:02d}.xisf", plane, image_id="a")
    result = sl.integrate(tmp_path, PLAIN, client=own_workers, progress=False)
    peaks = own_workers.run(peak_memory)
    assert len(peaks) == 2 and max(peaks.values()) < LIMIT
    assert result.rejection_low.max() == 0 and np.abs(result.image - plane).max() < 1e-6


def peak_memory():
    """Bytes that this process ever had in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_ctrl_c_stops_it_and_leaves_nothing_to_do(client, slow_store, tmp_path, m13):
    frames = linked("M13", tmp_path / "there")
    last = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
    client.run(slow_down, 0.2)
    last.start()
    with pytest.raises(KeyboardInterrupt):
        sl.integrate(frames, m13.recipe, client=client, progress=False)
    assert idle(client)
    client.run(slow_down, 0)
    assert_same(sl.integrate(frames, m13.recipe, client=client, progress=False), m13)


def test_progress_is_told(client, tmp_path, capsys):
    sl.integrate(linked("M13", tmp_path / "there"), client=client)
    said = capsys.readouterr().err
    assert "12 frames measured: 100%" in said and "12 frames integrated: 100%" in said


def test_measurements_are_kept_beside_the_frames(client, tmp_path, monkeypatch):
    frames = linked("M13", tmp_path / "there")
    sl.integrate(frames, client=client, progress=False)
    monkeypatch.setattr(cluster.Cluster, "measure", None)
    sl.integrate(frames, client=client, progress=False)


def test_a_result_is_repeated_on_the_cluster(client, tmp_path, m13):
    (saved, *_) = m13.save(tmp_path)
    assert_same(sl.rerun(saved, client=client, progress=False), m13)


def test_frames_that_workers_cannot_read(client, tmp_path):
    folder = linked("M13", tmp_path / "there")
    frames = sl.open_frames(folder)
    gone = folder / frames.names[3]
    gone.unlink()
    with pytest.raises(sl.FrameError, match=f"{gone}: .*no such file.*by a worker"):
        sl.integrate(frames, client=client, progress=False)
    assert idle(client)


def test_another_version_on_the_workers_is_refused(client, monkeypatch):
    monkeypatch.setattr(cluster, "version", lambda name: "99.0")
    with pytest.raises(
        sl.IntegrationError, match=r"has stacklib 0.*; install stacklib 99\.0 on every worker"
    ):
        sl.integrate(SETS["M13"], client=client, progress=False)


def test_workers_that_are_too_small_are_named(client, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "IDLE", LIMIT)
    with pytest.raises(
        sl.IntegrationError, match=r"has 0 MB for samples, but measuring .*start workers with"
    ):
        sl.integrate(linked("M13", tmp_path / "there"), client=client, progress=False)


def test_a_worker_that_always_dies_is_explained(client, monkeypatch):
    worker = type("Worker", (), {"address": "tcp://there:1"})()
    error = distributed.KilledWorker("task", worker, 3)
    frames = sl.open_frames(SETS["M13"])
    found = cluster.Cluster(client, frames)._explained((type(error), error, None))
    assert isinstance(found, sl.IntegrationError) and "tcp://there:1" in str(found)
    assert "memory limit" in str(found)
    lost = cluster.Cluster(client, frames)._explained(distributed.CancelledError("task"))
    assert isinstance(lost, sl.IntegrationError) and "is lost; check that the scheduler" in str(lost)


@pytest.mark.parametrize("wrong", ["tcp://127.0.0.1:8786", 4])
def test_what_is_no_client_is_refused(wrong):
    with pytest.raises(sl.IntegrationError, match=r"expected a connected dask\.distributed\.Client"):
        sl.integrate(SETS["M13"], client=wrong, progress=False)


def test_a_closed_client_is_told_so(client):
    other = distributed.Client(client.scheduler.address)
    other.close()
    with pytest.raises(sl.IntegrationError, match=r"client: is closed; connect to the cluster again"):
        sl.integrate(SETS["M13"], client=other, progress=False)


def test_workers_that_do_not_answer_are_not_called_all(client, monkeypatch):
    def lost(*_, **__):
        raise OSError("nobody there")

    monkeypatch.setattr(client, "run", lost)
    with pytest.raises(sl.IntegrationError, match=r"workers do not answer \(nobody there\); check that"):
        cluster.check_versions(client)


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(sl.IntegrationError, match=r'pip install "stacklib\[cluster\]"'):
        sl.integrate(SETS["M13"], client="anything", progress=False)


def test_nothing_else_needs_dask():
    script = "import sys, stacklib, stacklib.batch, stacklib.cli; sys.exit('dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_cluster_without_workers_is_worth_a_warning(tmp_path):
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty,
        distributed.Client(empty) as client,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        cluster.Cluster(client, sl.open_frames(SETS["M13"]))
    assert any("has no workers yet" in str(warning.message) for warning in caught)
