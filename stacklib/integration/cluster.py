"""Measure and integrate on the workers of a Dask cluster, with the same bits as on one computer.

A task measures one frame or integrates one band of rows. Workers open the files themselves, so that only
numbers and finished bands are sent. The memory of the workers determines the size of a band and the number
of tasks under way. Dask distributes the tasks, and repeats those of a worker that has died.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import threading
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.errors import FrameError, IntegrationError, StacklibError, StacklibWarning
from stacklib.formats.scratch import MEMORY_IN_ALL
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.samples import RESULT_BYTES, Samples
from stacklib.integration.search import Found, JudgedBands, Search, search_bytes, search_frame
from stacklib.kernel.passes import fill_planes
from stacklib.kernel.pixels import Counts, Judgement, Pixels, Ratios
from stacklib.kernel.verdicts import by_rows, judge_tiles
from stacklib.normalization.settings import Settings
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.residuals import KeptMean
from stacklib.utils.labels import clipped, quoted
from stacklib.utils.resources import checked_threads, parse_memory

if TYPE_CHECKING:
    from dask.distributed import Client, Future

__all__ = ["INSTALL", "Cluster", "check_versions", "checked", "connect"]

#: How to install Dask.
INSTALL = 'pip install "stacklib[cluster]"'

#: Longest address, and longest reason, in an error.
LONGEST = 100
#: Memory of an idle worker with all imports, in bytes.
IDLE = 400 * 10**6
#: Fraction of its limit that a worker uses; Dask pauses a worker at 80 %.
USED = 0.7
#: Memory for measuring, in planes.
MEASURING = 2.5
#: Least memory for a band, in bytes.
LEAST_SHARE = 4 << 20
#: Bands for each thread of the cluster, so that all end at about the same time; and least number of rows in
#: a band, because all files are opened for every band.
BANDS, LEAST_ROWS = 3, 16
#: Files that a task reads at the same time, because shared storage is slow to answer.
READERS = 4
#: Tasks under way for each thread: one that runs and one that waits.
UNDER_WAY = 2
#: More threads than any worker has.
MANY = 1024


class Cluster:
    """The workers of a Dask cluster, for the frames of one integration.

    They read the frames from the same paths. `memory` is the budget of each worker for samples and results,
    within its own limit. Raises `IntegrationError` if the cluster cannot be used.
    """

    def __init__(self, client: Client, frames: FrameSet, memory: str | int = "2GB") -> None:
        self.client = checked(client)
        self.frames = frames
        self.budget = parse_memory(memory)
        self._key = uuid.uuid4().hex
        check_versions(self.client)
        if not self._workers():
            warnings.warn(
                f"client: the cluster {client.scheduler.address} has no workers yet; the work waits for them",
                StacklibWarning,
                stacklevel=3,
            )

    def measure(self, function: Callable[..., Any], jobs: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Call `function` with each job, which includes a frame; see `measurements.Spread`."""
        need = int(MEASURING * 4 * self.frames.height * self.frames.width)
        rooms = {name: room for name, (_, room) in self._workers().items()}
        for name, room in rooms.items():
            if room < need:
                raise _too_small(name, room, need, self.frames)
        places = int(min(MANY, min(rooms.values(), default=math.inf) / need))
        yield from self._run(_in_turn, [(self._key, places, function, job) for job in jobs])

    def integrate(
        self,
        samples: Samples,
        used: np.ndarray,
        settings: list[Settings],
        planes: Sequence[Pixels | Ratios],
    ) -> Generator[tuple[int, int, Counts], None, None]:
        """Integrate band by band into `planes`; see `stacklib.integration.noise.Work`."""
        width, top = samples.region[2], samples.region[1]
        bands = samples.bands(used, self._rows(samples, used))
        # Packed once for all bands, and unpacked once by each worker; masks go where they are needed.
        packed = pickle.dumps((samples.masked(None), used, settings))
        parts = [planes[channel].part(slice(start * width, stop * width)) for channel, start, stop in bands]
        masks = (
            samples.masks.part(channel, top + start, top + stop) if samples.masks else None
            for channel, start, stop in bands
        )
        known = (_known(part) for part in parts)
        done = self._run(_integrate_band, ((packed, *job) for job in zip(bands, known, masks, strict=True)))
        with contextlib.closing(done):
            for number, (found, counts) in done:
                channel, start, stop = bands[number]
                for name, array in found.items():
                    getattr(parts[number], name)[...] = array
                yield channel, (stop - start) * width, counts
        self._forget()

    def judge(
        self, samples: Samples, used: np.ndarray, settings: list[Settings], judged: Judgement
    ) -> JudgedBands:
        """Judge the samples band by band; see `stacklib.integration.second_pass.Workers`."""
        width = samples.region[2]
        bands = samples.bands(used, self._rows(samples, used))
        packed = pickle.dumps((samples.masked(None), used, settings))
        parts = [judged.part((channel, slice(start * width, stop * width))) for channel, start, stop in bands]
        jobs = [(packed, band, part.excess) for band, part in zip(bands, parts, strict=True)]
        with contextlib.closing(self._run(_judge_band, jobs)) as done:
            for number, (found, verdicts) in done:
                for name, array in found.items():
                    getattr(parts[number], name)[...] = array
                yield bands[number], verdicts, Counts.zeros(used.size)
        self._forget()

    def search(
        self, search: Search, kept: KeptMean, verdicts: Sequence[Sequence], places: int
    ) -> Generator[tuple[int, Found], None, None]:
        """Search the frames, a task each; see `stacklib.integration.second_pass.Workers`.

        What the rule kept is sent to each worker once. The memory of the workers counts, not `places`.
        """
        shared, each = sum(plane.nbytes for plane in kept), search_bytes(kept.mean.shape)
        rooms = {name: room for name, (_, room) in self._workers().items()}
        for name, room in rooms.items():
            if room < shared + each:
                raise _too_small(name, room, shared + each, self.frames, "searching a frame")
        places = int(min(MANY, (min(rooms.values(), default=math.inf) - shared) / each))
        packed = pickle.dumps(replace(search, samples=search.samples.masked(None)))
        # A list: the planes of a tuple would be sent one by one.
        sent = self.client.scatter([kept], broadcast=True, hash=False)[0]
        jobs = (
            (self._key + "search", places, _search_frame, (packed, number, [call() for call in planes]), sent)
            for number, planes in enumerate(verdicts)
        )
        with contextlib.closing(self._run(_in_turn, jobs)) as done:
            yield from done
        self._forget()

    def _workers(self) -> dict[str, tuple[int, float]]:
        """Return threads, and bytes for samples and results, of each worker by its address."""
        packed = any(hasattr(frame.source.block, "close") for frame in self.frames)
        taken = IDLE + (MEMORY_IN_ALL if packed else 0)
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        return {
            name: (max(1, worker["nthreads"]), USED * (worker["memory_limit"] or math.inf) - taken)
            for name, worker in known.items()
        }

    def _rows(self, samples: Samples, used: np.ndarray) -> int:
        """Return the rows of a band: few enough for each worker's memory and for all to have work."""
        _, _, width, height = samples.region
        workers = self._workers().values()
        share = min((min(self.budget, room) / threads for threads, room in workers), default=self.budget)
        most = int(max(share, LEAST_SHARE)) // (width * (4 * used.size + RESULT_BYTES))
        bands = BANDS * max(1, sum(threads for threads, _ in workers)) // self.frames.channels
        even = max(LEAST_ROWS, -(-height // max(1, bands)))
        return max(1, min(height, most, even))

    def _run(
        self, function: Callable[..., Any], jobs: Iterable[tuple]
    ) -> Generator[tuple[int, Any], None, None]:
        """Yield number and result of each call, in the order in which they end.

        Dask gives the tasks of a dead worker to another one. After an error or Ctrl-C no more are started.
        """
        from dask.distributed import as_completed

        waiting = iter(enumerate(jobs))
        under_way: dict[Future, int] = {}
        done = as_completed(with_results=True, raise_errors=False, loop=self.client.loop)
        try:
            while True:
                room = UNDER_WAY * max(1, sum(self.client.nthreads().values())) - len(under_way)
                for number, job in islice(waiting, max(0, room)):
                    future = self.client.submit(function, *job, pure=False)
                    under_way[future] = number
                    done.add(future)
                if not under_way:
                    return
                future, result = next(done)
                number = under_way.pop(future)
                if future.status != "finished":
                    raise self._explained(result)
                # Release it, so that the worker can do so too.
                del future
                yield number, result
        finally:
            if under_way:
                # The connection may be lost.
                with contextlib.suppress(Exception):
                    self.client.cancel(list(under_way))

    def _explained(self, result: Any) -> BaseException:
        """Return the error of a task with a message that helps."""
        from dask.distributed import KilledWorker

        error = result[1] if isinstance(result, tuple) else result
        if isinstance(error, KilledWorker):
            return IntegrationError(
                f"client: several workers died at the same task ({error.last_worker.address} was the last), "
                "probably for lack of memory; give them a larger memory limit, or integrate with a smaller "
                "budget, such as memory='500MB'"
            )
        if isinstance(error, FrameError):
            return FrameError(
                f"{error} (reported by a worker, which reads the frames from the same path as this computer)"
            )
        if isinstance(error, StacklibError):
            return error
        if isinstance(error, Exception) and isinstance(result, tuple):
            return error.with_traceback(result[2])
        found = IntegrationError(
            "client: the work was cancelled, all workers died at once, or the connection to "
            f"{self.client.scheduler.address} is lost; check that the scheduler and the workers run, and "
            "integrate again"
        )
        found.__cause__ = error
        return found

    def _forget(self) -> None:
        """Let the workers free what they keep for this integration."""
        with contextlib.suppress(Exception):
            self.client.run(_unpacked.cache_clear, on_error="ignore")


def _too_small(
    name: str, room: float, need: int, frames: FrameSet, what: str = "measuring a plane"
) -> IntegrationError:
    return IntegrationError(
        f"client: the worker {name} has {max(room, 0) / 1e6:.0f} MB for samples, but {what} of "
        f"{frames.width} x {frames.height} pixels needs {need / 1e6:.0f} MB; start workers with a memory "
        f"limit of {1.05 * (need + IDLE) / USED / 1e9:.2g} GB or more"
    )


@contextlib.contextmanager
def connect(address: str) -> Iterator[Client | None]:
    """Yield a client for a Dask cluster, and close it at the end. An empty address gives None.

    `address` is that of a scheduler, such as ``tcp://10.0.0.1:8786``, or ``local`` for a new cluster on this
    computer with one worker process per CPU. Raises `IntegrationError` if Dask is missing or no scheduler
    answers.
    """
    if not address:
        yield None
        return
    distributed = _distributed()
    with contextlib.ExitStack() as open_until_the_end:
        where = address
        if address == "local":
            # Any free port for the dashboard: another cluster may run already. Nobody else sees it.
            with _without_current_folder():
                cluster = distributed.LocalCluster(
                    n_workers=checked_threads(None),
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                )
            where = open_until_the_end.enter_context(cluster)
        try:
            client = distributed.Client(where)
        except (OSError, ValueError, TypeError) as error:
            raise IntegrationError(
                f"cluster: no Dask scheduler answers at {clipped(address, LONGEST)} "
                f"({clipped(str(error), LONGEST)}); give its address, such as "
                "tcp://10.0.0.1:8786, or local for a cluster on this computer"
            ) from error
        yield open_until_the_end.enter_context(client)


@contextlib.contextmanager
def _without_current_folder() -> Iterator[None]:
    """Keep processes that start meanwhile from searching the current folder for modules."""
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def checked(client: Any) -> Client:
    """Return the client. Raises `IntegrationError` if it is not a client, or asynchronous, or closed."""
    distributed = _distributed()
    if not isinstance(client, distributed.Client) or client.asynchronous:
        raise IntegrationError(
            f"client: got {quoted(client)}, expected a connected dask.distributed.Client that is not "
            "asynchronous: Client(address) or Client(LocalCluster())"
        )
    if client.status in ("closing", "closed"):
        raise IntegrationError(f"client: is {client.status}; connect to the cluster again: Client(address)")
    return client


def _distributed() -> Any:
    try:
        import dask.distributed
    except ImportError as error:
        raise IntegrationError(f"Dask is missing ({error}); install it with: {INSTALL}") from error
    return dask.distributed


def check_versions(client: Client) -> None:
    """Raise `IntegrationError` if a worker has no stacklib, or another version."""
    here = version("stacklib")
    try:
        found = client.run(_version, on_error="return")
    except Exception as error:
        raise IntegrationError(
            f"client: the workers do not answer ({error}); check that the scheduler runs, and that "
            f"stacklib {here} is installed on every worker"
        ) from error
    other = {name: there for name, there in found.items() if there != here}
    if other:
        name, there = next(iter(other.items()))
        failed = isinstance(there, Exception)
        found_there = f"cannot import stacklib ({there})" if failed else f"has stacklib {there}"
        raise IntegrationError(
            f"client: the worker {name} {found_there}, this computer has {here}; "
            f"install stacklib {here} on every worker"
        )


def _version() -> str:
    return version("stacklib")


@lru_cache(maxsize=4)
def _gate(key: str, places: int) -> threading.Semaphore:
    """Return the semaphore of an integration in this process."""
    return threading.BoundedSemaphore(places)


def _in_turn(key: str, places: int, function: Callable[..., Any], job: tuple, *sent: Any) -> Any:
    """Call `function` on a worker, no more often at a time than its memory allows.

    Dask puts what was `sent` before in the place of its futures, unless they are inside of the job.
    """
    with _gate(key, places):
        return function(*job, *sent)


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Any:
    """Return the same objects for all bands on a worker, so that compressed files are unpacked once."""
    return pickle.loads(packed)


def _known(planes: Pixels | Ratios) -> np.ndarray | None:
    """Return what a worker must know about the pixels of a band; None if it shall find their ratios."""
    return planes.excess if isinstance(planes, Pixels) else None


def _integrate_band(
    packed: bytes, band: tuple[int, int, int], excess: np.ndarray | None, masks: FrameMasks | None = None
) -> tuple[dict[str, np.ndarray], Counts]:
    """Integrate a band on a worker, or find its ratios; see `_known`. Returns planes by name, and counts."""
    samples, used, settings = _unpacked(packed)
    own = settings[band[0]]
    with ThreadPoolExecutor(READERS) as readers:
        raw = samples.masked(masks).read(band, used, readers).wait()
    pixels = raw.shape[1]
    if excess is None:
        planes: Pixels | Ratios = Ratios.empty(pixels)
    else:
        planes = Pixels.empty(pixels, own, excess=excess if excess.size else None)
    counts = fill_planes(raw, own, planes)
    found = planes._asdict()
    found.pop("excess", None)
    return found, counts


def _judge_band(
    packed: bytes, band: tuple[int, int, int], excess: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Judge a band on a worker; returns planes by name, and verdicts."""
    samples, used, settings = _unpacked(packed)
    with ThreadPoolExecutor(READERS) as readers:
        raw = samples.read(band, used, readers).wait()
    judged = Judgement.empty(raw.shape[1], used.size, excess)
    verdicts = np.empty((used.size, 2, -(-raw.shape[1] // 8)), np.uint8)
    judge_tiles(raw, settings[band[0]], judged, verdicts)
    found = judged._asdict()
    found.pop("excess")
    return found, by_rows(verdicts, samples.region[2], band[2] - band[1])


def _search_frame(packed: bytes, number: int, verdicts: list[np.ndarray], kept: KeptMean) -> Found:
    """Search a frame on a worker."""
    return search_frame(_unpacked(packed), kept, number, verdicts)
