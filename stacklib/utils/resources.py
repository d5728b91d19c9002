"""Memory budget and number of threads of a run."""

from __future__ import annotations

import contextlib
import ctypes
import operator
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from stacklib.errors import RecipeError
from stacklib.utils.labels import quoted

__all__ = [
    "by_parts",
    "by_rows",
    "checked_threads",
    "give_back_memory",
    "one_thread_in_blas",
    "parse_memory",
]

#: What is found in a part of something.
Part = TypeVar("Part")

#: Size in bytes of a large array, and the numbers by which glibc knows the settings for them.
LARGE, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = 16 << 20, -3, -1


def parse_memory(memory: str | int) -> int:
    """Convert a size such as ``"800MB"`` or ``"2GiB"`` to bytes. Raises `RecipeError` below 1 MB."""
    units = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    # An integer of many digits has no text.
    whole = isinstance(memory, int) and 0 < memory < 10**18
    text = str(memory) if whole or isinstance(memory, str) else ""
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]{0,3})\s*", text)
    size = int(float(found[1]) * units[found[2].upper()]) if found and found[2].upper() in units else 0
    if size < 10**6:
        raise RecipeError(
            f"memory: got {quoted(memory)}, expected a size of at least 1MB, such as 800MB or 4GB"
        )
    return size


def checked_threads(threads: int | None) -> int:
    """Check a number of threads, 1 to 1024. None gives one per CPU available to this process."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        number = 0 if isinstance(threads, bool) else operator.index(threads)
    except TypeError:
        number = 0
    if not 1 <= number <= 1024:
        raise RecipeError(f"threads: got {quoted(threads)}, expected a whole number from 1 to 1024")
    return number


def by_rows(fill: Callable[[int, int], None], height: int, threads: int) -> None:
    """Call a function with the first and the last row of parts of a plane, in threads."""
    by_parts(fill, height, threads)


def by_parts(work: Callable[[int, int], Part], size: int, threads: int, multiple: int = 1) -> list[Part]:
    """Call a function with the start and the stop of parts of `size` things, in threads.

    Parameters
    ----------
    work : callable
        ``work(start, stop)``.
    size : int
        Number of things. The function is called once for 0.
    threads : int
        Number of threads; 1 calls it once, in this thread.
    multiple : int
        All parts but the last one hold a multiple of this.

    Returns
    -------
    list
        What the calls returned, in the order of the parts.
    """
    if threads == 1 or size <= multiple:
        return [work(0, size)]
    step = -(-size // (4 * threads * multiple)) * multiple
    starts = range(0, size, step)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, starts, [min(start + step, size) for start in starts]))


def give_back_memory() -> None:
    """From now on, return large arrays to the system once they are freed.

    The C library of Linux keeps freed arrays of up to 32 MB for later, in each thread. That adds a hundred
    megabytes and more to the budget of a run. Smaller arrays come and go, and each thread keeps some room for
    them: with the first of these settings alone it would get new pages from the system for every one.
    """
    if sys.platform == "linux":
        # Others than glibc have no such function.
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, LARGE)
            library.mallopt(M_TRIM_THRESHOLD, LARGE)


class _OneThread:
    """Who needs BLAS in one thread, as the number of its threads is one for the whole process."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0
        self.limits: threadpool_limits | None = None

    def begin(self) -> None:
        with self.lock:
            self.count += 1
            if self.count == 1:
                self.limits = threadpool_limits(1, user_api="blas")

    def end(self) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0 and self.limits is not None:
                self.limits.restore_original_limits()
                self.limits = None


_one_thread = _OneThread()


@contextlib.contextmanager
def one_thread_in_blas() -> Iterator[None]:
    """Let products and solutions of matrices use the thread that asks for them alone meanwhile.

    The matrices here are small, and the threads that BLAS would start for them take a third of the processor
    from those that work.
    """
    _one_thread.begin()
    try:
        yield
    finally:
        _one_thread.end()
