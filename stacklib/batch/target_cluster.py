"""Run the targets of a batch on the workers of a Dask cluster, one target a task."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from stacklib.batch.state import Record, inputs_of
from stacklib.batch.target_run import TargetRun
from stacklib.integration.cluster import check_versions, checked

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["TargetCluster"]

#: Seconds between two looks of a worker whether the batch was stopped, and how far its run is.
LOOK = 1.0


class TargetCluster:
    """Stands in for the threads of a batch: `submit` as they have it, and a context that waits at its end.

    Parameters
    ----------
    client : dask.distributed.Client
        Connected to the cluster. Workers need the frames and the folders for results under the same paths.

    Raises
    ------
    IntegrationError
        When it cannot be used, see `stacklib.integration.cluster`.
    """

    def __init__(self, client: Client) -> None:
        self.client = checked(client)
        check_versions(self.client)
        self._name = f"stacklib-batch-{uuid.uuid4().hex}"
        self._runs: list[TargetRun] = []

    @property
    def size(self) -> int:
        """Number of workers; 1 while there are none."""
        return max(1, len(self.client.nthreads()))

    def __enter__(self) -> TargetCluster:
        from dask.distributed import Event

        self._stop = Event(self._name, client=self.client)
        self._executor = self.client.get_executor(pure=False)
        self.client.subscribe_topic(self._name, self._hear)
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            self._stop.set()
        self._executor.shutdown(wait=True)
        self.client.unsubscribe_topic(self._name)

    def submit(self, run: TargetRun) -> Future[Record]:
        """Run a target on a worker; the future gives its record, whatever happens.

        The listener of `run` follows what the worker does.
        """
        record: Future[Record] = Future()
        ended = self._executor.submit(_run, self._name, len(self._runs), run)
        self._runs.append(run)
        ended.add_done_callback(lambda done: record.set_result(_record_of(done, run)))
        return record

    def _hear(self, event: tuple[float, tuple[int, int]]) -> None:
        """A worker says how far a run is."""
        number, percent = event[1]
        self._runs[number].listener.percent = percent


def _record_of(done: Future[Record], run: TargetRun) -> Record:
    """What the worker says, or that there is none who could."""
    error = None if done.cancelled() else done.exception()
    if error is None and not done.cancelled():
        return done.result()
    record = inputs_of(run.target, run.job)
    record.status = "failed"
    record.error = (
        f"the workers that ran it died, or the scheduler is gone ({error or 'cancelled'}); run it again"
    )
    return record


# What runs on the workers ------------------------------------------------------------------------


def _run(name: str, number: int, run: TargetRun) -> Record:
    with _watched(name, number, run):
        return run.run()


@contextlib.contextmanager
def _watched(name: str, number: int, run: TargetRun) -> Iterator[None]:
    """Tell how far the run is, and stop it with the batch: Dask does not interrupt what a worker does."""
    from dask.distributed import Event, get_worker

    stop, ended, worker = Event(name), threading.Event(), get_worker()

    def watch() -> None:
        told = 0
        while not ended.wait(LOOK):
            # Without a connection nobody waits for the run.
            with contextlib.suppress(Exception):
                if stop.is_set():
                    run.stop()
                    return
                if run.listener.percent > told:
                    told = run.listener.percent
                    worker.log_event(name, (number, told))

    if stop.is_set():
        run.stop()
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
