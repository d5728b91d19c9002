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

#: Seconds between two checks of a worker whether the batch was stopped.
LOOK = 1.0


class TargetCluster:
    """Workers of a cluster in place of the threads of a batch: `submit` works as that of a thread pool.

    The workers need the frames and the folders for results under the same paths. `IntegrationError` is raised
    if the cluster cannot be used, see `stacklib.integration.cluster`. The context waits at its end.
    """

    def __init__(self, client: Client) -> None:
        self.client = checked(client)
        check_versions(self.client)
        self._name = f"stacklib-batch-{uuid.uuid4().hex}"

    @property
    def size(self) -> int:
        """Number of workers; 1 while there are none."""
        return max(1, len(self.client.nthreads()))

    def __enter__(self) -> TargetCluster:
        from dask.distributed import Event

        self._stop = Event(self._name, client=self.client)
        self._executor = self.client.get_executor(pure=False)
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            self._stop.set()
        self._executor.shutdown(wait=True)

    def submit(self, run: TargetRun) -> Future[Record]:
        """Run a target on a worker. The future always gives a record."""
        record: Future[Record] = Future()
        ended = self._executor.submit(_run, self._name, run)
        ended.add_done_callback(lambda done: record.set_result(_record_of(done, run)))
        return record


def _record_of(done: Future[Record], run: TargetRun) -> Record:
    """Return the record from the worker, or one that says that the worker was lost."""
    error = None if done.cancelled() else done.exception()
    if error is None and not done.cancelled():
        return done.result()
    record = inputs_of(run.target, run.job)
    record.status = "failed"
    record.error = f"its workers died, or the scheduler is gone ({error or 'cancelled'}); run the batch again"
    return record


# On the workers ----------------------------------------------------------------------------------


def _run(name: str, run: TargetRun) -> Record:
    with _stopped_with_batch(name, run):
        return run()


@contextlib.contextmanager
def _stopped_with_batch(name: str, run: TargetRun) -> Iterator[None]:
    """Stop the run when the batch is stopped: Dask does not interrupt what a worker does."""
    from dask.distributed import Event

    stop, ended = Event(name), threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK):
            # Without a connection nobody waits for the run.
            with contextlib.suppress(Exception):
                if stop.is_set():
                    run.stop()
                    return

    if stop.is_set():
        run.stop()
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
