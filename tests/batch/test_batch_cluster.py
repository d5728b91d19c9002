"""A batch on a Dask cluster: one target a worker, the same records, and a cluster by its address."""

import pickle
from concurrent.futures import Future
from dataclasses import replace

import pytest
from simulated_targets import make_targets

import stacklib as sl
from stacklib.batch import OVERHEAD, Batch, run_batch, target_cluster
from stacklib.batch.target_run import TargetRun
from stacklib.integration.cluster import connect
from stacklib.recipe.batch_job import BatchJob

distributed = pytest.importorskip("dask.distributed", reason="Dask is not installed")

RECIPE = sl.Recipe(sigma_high=1.7)


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="1GB", dashboard_address=":0", silence_logs=50
        ) as workers,
        distributed.Client(workers) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """A target that can be integrated, and one with a frame cut short."""
    root = tmp_path_factory.mktemp("targets")
    make_targets(root, 4)
    for name in ("T01", "T03"):
        (root / name / "4_Registered").rename(root / name / "not a target")
    return root


def test_targets_run_on_the_workers(targets, client, monkeypatch):
    heard = set()
    monkeypatch.setattr("stacklib.batch.batches.BatchBars.show", lambda bars, *told: heard.add(told))
    client.run(setattr, target_cluster, "LOOK", 0.02)
    batch = run_batch(targets, RECIPE, progress=False, client=client)
    client.run(setattr, target_cluster, "LOOK", target_cluster.LOOK)
    # How far the run on the worker is, for its bar here.
    assert max(percent for name, percent in heard if name == "T02") == 100
    assert [(row.target.name, row.status) for row in batch.rows] == [("T02", "done"), ("T04", "failed")]
    assert "truncated" in batch.failed[0].error
    again = Batch(BatchJob(str(targets)), RECIPE)
    assert [row.status for row in again.rows] == ["done", "waiting"]
    master = next(path for path in batch.rows[0].target.output.glob("*0000.xisf"))
    assert sl.Recipe.from_result(master) == RECIPE.replace(rejection="winsorized_sigma")


def test_a_stopped_batch_leaves_nothing_on_the_workers(targets, client, monkeypatch):
    for path in (targets / "T02" / "5_Integration").rglob("*"):
        path.unlink()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("stacklib.batch.batches.BatchBars.show", stop)
    with pytest.raises(KeyboardInterrupt):
        run_batch(targets, RECIPE, progress=False, client=client)
    assert not any(client.processing().values())
    names = {path.name for path in (targets / "T02" / "5_Integration").iterdir()}
    assert names <= {".stacklib_batch.json"}
    assert Batch(BatchJob(str(targets)), RECIPE).rows[0].status == "waiting"


def test_a_run_that_travels_starts_anew(targets):
    batch = Batch(BatchJob(str(targets)), RECIPE)
    run = TargetRun(batch.rows[0].target, batch.job_for(batch.rows[0].target))
    run.stop()
    there = pickle.loads(pickle.dumps(run))
    assert (there.target, there.job, there._stopped) == (run.target, run.job, False)


def test_workers_that_died_are_told_in_the_record(targets):
    batch = Batch(BatchJob(str(targets)), RECIPE)
    run = TargetRun(batch.rows[0].target, batch.job_for(batch.rows[0].target))
    ended = Future()
    ended.set_exception(RuntimeError("tcp://there:1 is gone"))
    record = target_cluster._record_of(ended, run)
    assert record.status == "failed" and "tcp://there:1 is gone" in record.error
    cancelled = Future()
    cancelled.cancel()
    assert "cancelled" in target_cluster._record_of(cancelled, run).error


def test_every_worker_has_the_whole_budget(targets):
    class Three:
        size = 3

    batch = Batch(BatchJob(str(targets), memory="5GB"), RECIPE)
    batch.rows[0].status = batch.rows[1].status = "waiting"
    target = replace(batch.rows[0].target, shape=(3, 6000, 8000))
    batch._cluster = Three()
    assert (batch.places, batch.jobs) == (3, 2)
    assert batch.need(target).integration == 5 * 10**9 - OVERHEAD


def test_connect(client):
    with connect("") as none:
        assert none is None
    with connect(client.scheduler.address) as other:
        assert len(other.nthreads()) == 2
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(
            sl.IntegrationError, match=r"cluster: no Dask scheduler answers at tcp://127\.0\.0\.1:9"
        ),
        connect("tcp://127.0.0.1:9"),
    ):
        pass
