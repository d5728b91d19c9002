"""Share the steps of a run among processes that compile."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numba
from filelock import FileLock, Timeout

from stacklib.utils.ahead.record import add_steps, missing_steps
from stacklib.utils.compiled import kept_in
from stacklib.utils.package import FOLDER
from stacklib.utils.progress import progress_bar, say
from stacklib.utils.resources import checked_threads

__all__ = ["COMPILED", "Step", "compile_ahead"]

#: Title of the bar, and its format.
COMPILED = "compiling for this computer (once)"
LAYOUT = "{desc}: {n_fmt} of {total_fmt} |{bar}| {elapsed}{postfix}"
#: Program of a process. Only the package itself is looked for in its folder.
CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); import stacklib; del sys.path[0]; "
    "from stacklib.utils.ahead.child import main; main()"
)
#: Most processes: the longest step takes a third of the time of all, and each process needs 300 MB.
MOST = 3
#: Environment variable of these processes, which start no others.
COMPILES = "STACKLIB_COMPILES"
#: With less to compile, in seconds, a process that compiles it takes longer to start than it saves.
WORTH = 2.5
#: Seconds between two looks at the time, and those that another process gets to compile.
LOOK, PATIENCE = 0.25, 120
#: Seconds that a process gets to end.
GRACE = 2


class Step(NamedTuple):
    """A part of a run that needs compiled functions.

    `call` names a function that calls them, as ``module:function``, `given` its arguments, which JSON can
    hold. `seconds` is what it takes to compile them on a processor of 2024, to share the steps and to tell
    the time left.
    """

    call: str
    seconds: float
    given: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Name in the record."""
        return self.order.strip()

    @property
    def order(self) -> str:
        """What a process is told."""
        return json.dumps([self.call, self.given]) + "\n"


def compile_ahead(steps: Sequence[Step], shown: bool = True, title: str = COMPILED) -> None:
    """Compile what is not known to be kept, in a few processes at the same time, and wait for it.

    Nothing is done where compiled code cannot be kept, in the processes of a pool or a cluster, and if it is
    so little that the run can compile it on its way.

    Parameters
    ----------
    steps : sequence of Step
        The steps.
    shown : bool
        Show a bar with the time left.
    title : str
        Title of the bar.
    """
    if not _worth_it(_left(steps)) or not _possible():
        return
    with contextlib.suppress(OSError), _alone(shown):
        # Meanwhile another process may have done it.
        if _worth_it(left := _left(steps)):
            _compile(left, shown, title)


def _left(steps: Sequence[Step]) -> list[Step]:
    """Return the steps whose code is not known to be kept, those that take longest first."""
    missing = missing_steps(step.name for step in steps)
    return sorted((step for step in steps if step.name in missing), key=lambda step: -step.seconds)


def _worth_it(steps: Sequence[Step]) -> bool:
    return len(steps) > 1 and sum(step.seconds for step in steps) > WORTH


def _possible() -> bool:
    """Return whether other processes may compile for this one."""
    config: Any = numba.config
    if kept_in() is None or config.DISABLE_JIT or not sys.executable or getattr(sys, "frozen", False):
        return False
    return COMPILES not in os.environ and multiprocessing.parent_process() is None and not _in_cluster()


def _in_cluster() -> bool:
    """Return whether this is the thread of a worker of Dask."""
    distributed = sys.modules.get("distributed")
    with contextlib.suppress(Exception):
        return distributed is not None and distributed.get_worker() is not None
    return False


@contextlib.contextmanager
def _alone(shown: bool) -> Iterator[None]:
    """Wait while another process compiles, as in a batch of several targets, but not for ever."""
    folder = kept_in()
    assert folder is not None
    lock = FileLock(folder / "compiling.lock")
    with contextlib.suppress(NotImplementedError, Timeout):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if shown:
                say("Another run compiles for this computer: waiting for it ...")
            lock.acquire(timeout=PATIENCE)
    try:
        yield
    finally:
        lock.release()


def _compile(steps: list[Step], shown: bool, title: str) -> None:
    """Compile the steps and note those that are done. Whatever happens, no process is left."""
    news: queue.SimpleQueue[tuple[Step, float | None] | None] = queue.SimpleQueue()
    waiting, forecast, done = deque(steps), Forecast(steps), []
    count = min(MOST, len(steps), checked_threads(None))
    children: list[subprocess.Popen] = []
    with progress_bar(len(steps), title, "step", shown, layout=LAYOUT) as bar:
        bar.set_postfix_str(words := forecast.words(count))
        try:
            for _ in range(count):
                children.append(_start())
                threading.Thread(target=_drive, args=(children[-1], waiting, news), daemon=True).start()
            driven = count
            while driven:
                told = None
                try:
                    if (told := news.get(timeout=LOOK)) is None:
                        driven -= 1
                except queue.Empty:
                    pass
                if told is not None:
                    forecast.take(*told)
                    if told[1] is not None:
                        done.append(told[0].name)
                        bar.update()
                if (now := forecast.words(count)) != words:
                    bar.set_postfix_str(words := now)
        finally:
            for child in children:
                _end(child)
            add_steps(done)


def _start() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, str(FOLDER.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONUTF8": "1", COMPILES: "1"},
        text=True,
        encoding="utf-8",
        # Windows would open a window for each.
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _drive(
    child: subprocess.Popen,
    waiting: deque[Step],
    news: queue.SimpleQueue[tuple[Step, float | None] | None],
) -> None:
    """Give a process one step after the other, and tell when each begins and how long it took."""
    assert child.stdin is not None and child.stdout is not None
    # The process has ended, its files are closed, or no step is left.
    with contextlib.suppress(OSError, ValueError, IndexError):
        while True:
            step = waiting.popleft()
            news.put((step, None))
            child.stdin.write(step.order)
            child.stdin.flush()
            news.put((step, float(child.stdout.readline())))
    news.put(None)


def _end(child: subprocess.Popen) -> None:
    """End a process, whatever it is doing."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        child.wait(GRACE)
    except BaseException:
        # It takes too long, or the user pressed Ctrl-C again.
        child.kill()
        child.wait()
    child.stdout.close()


class Forecast:
    """How long the steps that are left will take, from those that are done."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.waiting = {step.name: step.seconds for step in steps}
        self.running: dict[str, tuple[float, float]] = {}
        self.expected, self.taken = 0.0, 0.0

    def take(self, step: Step, seconds: float | None) -> None:
        """Take note that a step begins, or how long it took, negative if that says nothing."""
        if seconds is None:
            self.waiting.pop(step.name, None)
            self.running[step.name] = step.seconds, time.monotonic()
            return
        self.running.pop(step.name, None)
        if seconds > 0:
            self.expected, self.taken = self.expected + step.seconds, self.taken + seconds

    def seconds(self, processes: int) -> float:
        """Return the seconds left with this many processes."""
        now = time.monotonic()
        running = [(seconds, now - began) for seconds, began in self.running.values()]
        rate = self.taken / self.expected if self.expected else 1.0
        # Those that take longer already tell as much as those that are done.
        late = [(seconds, elapsed) for seconds, elapsed in running if elapsed > rate * seconds]
        if late:
            expected, elapsed = map(sum, zip(*late, strict=True))
            rate = (self.taken + elapsed) / (self.expected + expected)
        left = [max(rate * seconds - elapsed, 0.0) for seconds, elapsed in running]
        left += [rate * seconds for seconds in self.waiting.values()]
        return max(sum(left) / processes, max(left, default=0.0))

    def words(self, processes: int) -> str:
        """Return the time left in words."""
        # Until a step is done, nothing is known of this processor but that it takes no less.
        about = "about" if self.expected else "at least"
        return f"{about} {max(round(self.seconds(processes)), 1)} s left"
