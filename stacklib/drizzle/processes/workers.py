"""Deposit frames on a whole grid with several processes, within a memory budget."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from stacklib.drizzle.deposit import Deposit, Drop, Grid, deposit, release, require_drizzle
from stacklib.drizzle.processes import worker
from stacklib.errors import IntegrationError, StacklibWarning
from stacklib.formats.scratch import memory_limited
from stacklib.frames.mosaic import Sites
from stacklib.utils.resources import checked_threads, parse_memory

__all__ = ["deposit_all"]

#: Bytes of the result for each pixel of the grid and channel: value and weight.
RESULT_BYTES = 8
#: Bytes that a process takes by itself, and those of its tiles.
PROCESS_BYTES = 150 << 20
#: Least height of a strip, in rows of the grid, and number of samples below which no process is started: they
#: take about two seconds.
LEAST_ROWS, FEW_SAMPLES = 64, 3e7

Report = Callable[[float], object]


def deposit_all(
    drops: Sequence[Drop],
    sites: Sites,
    grid: Grid,
    memory: str | int = "2GB",
    threads: int | None = None,
    report: Report = lambda frames: None,
) -> Deposit:
    """Deposit frames on a whole grid.

    Parameters
    ----------
    drops : sequence of Drop
        The frames. For several processes they must be picklable.
    sites : Sites
        The colors of their pixels.
    grid : Grid
        The grid.
    memory : str or int
        Memory budget of all processes, such as ``"4GB"``.
    threads : int, optional
        Number of processes. Default is one per CPU.
    report : callable, optional
        Called with the number of frames that were deposited since the last call, parts of a frame included.

    Returns
    -------
    Deposit
        Image and weights of the whole grid. They do not depend on `memory` and `threads`, to the last bit.

    Raises
    ------
    FrameError
        If a frame cannot be read.
    IntegrationError
        If the library is not installed, or a process ends before its time.

    Warns
    -----
    StacklibWarning
        If the result does not fit into the budget.
    """
    require_drizzle()
    processes, budget = checked_threads(threads), parse_memory(memory)
    height, width = grid.shape
    result = RESULT_BYTES * sites.channels * height * width
    samples = sum(drop.height * drop.width for drop in drops) * (1 if sites.pattern else sites.channels)
    if samples < FEW_SAMPLES:
        processes = 1
    strips, processes = _strips(height, width, sites.channels, budget - result, processes)
    if result + processes * (PROCESS_BYTES + _strip_bytes(strips[0], width, sites.channels)) > budget:
        warnings.warn(
            f"memory: the result alone takes {result / 1e6:.0f} MB of the budget of {budget / 1e6:.0f} MB; "
            "the run will use more",
            StacklibWarning,
            stacklevel=2,
        )
    out = Deposit(*(np.zeros((sites.channels, height, width), np.float32) for _ in range(2)))
    part = 1 / len(strips)
    if processes == 1:

        def done(number: int) -> None:
            release(drops[number])
            report(part)

        for strip in strips:
            with memory_limited(PROCESS_BYTES):
                found = deposit(drops, sites, grid, slice(*strip), done=done)
            for whole, planes in zip(out, found, strict=True):
                whole[:, slice(*strip)] = planes
        return out
    job = pickle.dumps((list(drops), sites, grid, PROCESS_BYTES // 2))
    with _Workers(processes, job) as workers:
        for _ in workers.work(strips, out):
            report(part)
    return out


def _strip_bytes(strip: tuple[int, int], width: int, channels: int) -> int:
    return RESULT_BYTES * channels * width * (strip[1] - strip[0])


def _strips(
    height: int, width: int, channels: int, left: int, processes: int
) -> tuple[list[tuple[int, int]], int]:
    """Divide the rows of a grid: few strips, as frames are read for each, a whole number for each process.

    Returns the strips and the number of processes.
    """
    processes = max(1, min(processes, left // (2 * PROCESS_BYTES), height // LEAST_ROWS))
    room = max(left - processes * PROCESS_BYTES, 0) // processes
    rows = max(room // (RESULT_BYTES * channels * width), LEAST_ROWS)
    count = processes * math.ceil(height / (rows * processes))
    edges = np.linspace(0, height, min(count, height) + 1).astype(int).tolist()
    return list(pairwise(edges)), processes


class _Workers:
    """Processes that deposit strips. They end with the context, whatever happens."""

    def __init__(self, count: int, job: bytes) -> None:
        paths = [path for path in sys.path if path]
        quiet = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        # -P: a module in the current folder is not one of ours.
        command = [sys.executable, "-P", "-m", worker.__name__]
        environment = os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths)}
        self.processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            for _ in range(count)
        ]
        self._job = job
        self._messages: queue.Queue[Exception | int | None] = queue.Queue()

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            for stream in (process.stdin, process.stdout):
                # What was not sent is not needed.
                with contextlib.suppress(OSError):
                    if stream is not None:
                        stream.close()
            process.wait()

    def work(self, strips: list[tuple[int, int]], out: Deposit) -> Iterator[None]:
        """Fill the strips of the result. Yields after each frame of a strip. Raises the first error."""
        left: queue.Queue[tuple[int, int]] = queue.Queue()
        for strip in strips:
            left.put(strip)
        for process in self.processes:
            threading.Thread(target=self._serve, args=(process, left, out), daemon=True).start()
        running = len(self.processes)
        while running:
            message = self._messages.get()
            if isinstance(message, Exception):
                raise message
            if message is None:
                running -= 1
            else:
                yield

    def _serve(self, process: subprocess.Popen, left: queue.Queue, out: Deposit) -> None:
        """Give strips to a process and take what it answers."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(worker.SIZE.pack(len(self._job)) + self._job)
            while True:
                try:
                    start, stop = left.get_nowait()
                except queue.Empty:
                    break
                process.stdin.write(worker.SIZE.pack(start) + worker.SIZE.pack(stop))
                process.stdin.flush()
                self._take(process.stdout, out, start, stop)
        except Exception as error:
            broken = isinstance(error, EOFError | OSError | pickle.UnpicklingError)
            self._messages.put(_ended(process) if broken else error)
            return
        self._messages.put(None)

    def _take(self, answers, out: Deposit, start: int, stop: int) -> None:
        while (kind := answers.read(1)) == worker.FRAME:
            self._messages.put(1)
        if kind == worker.ERROR:
            (size,) = worker.SIZE.unpack(answers.read(worker.SIZE.size))
            raise pickle.loads(answers.read(size))
        if kind != worker.STRIP:
            raise EOFError
        for planes in out:
            for plane in planes[:, start:stop]:
                view = plane.data.cast("B")
                while view:
                    count = answers.readinto(view)
                    if not count:
                        raise EOFError
                    view = view[count:]


def _ended(process: subprocess.Popen) -> IntegrationError:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    code = process.poll()
    return IntegrationError(
        f"a process that deposits frames ended before its time (exit code {code}); there may be too little "
        "memory: give a smaller budget (memory) or fewer processes (threads)"
    )
