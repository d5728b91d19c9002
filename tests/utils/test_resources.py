"""Freed memory goes back to the system, and BLAS takes no threads from those that work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from stacklib.utils import resources


def resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_arrays_go_back():
    resources.give_back_memory()
    before = resident()
    arrays = [np.ones(20 << 20, np.uint8) for _ in range(8)]
    assert resident() - before > 100 << 20
    del arrays
    assert resident() - before < 30 << 20


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_other_libraries_are_left_alone(monkeypatch, error):
    def missing(name):
        raise error("no such library or function")

    monkeypatch.setattr(resources.ctypes, "CDLL", missing)
    resources.give_back_memory()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 64, 1000])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("multiple", [1, 8])
def test_parts_cover_everything_once_and_in_order(size, threads, multiple):
    parts = resources.by_parts(lambda start, stop: (start, stop), size, threads, multiple)
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(size))
    assert all((stop - start) % multiple == 0 for start, stop in parts[:-1])


def test_blas_has_one_thread_as_long_as_anybody_needs_it():
    def threads():
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        first, second = resources.one_thread_in_blas(), resources.one_thread_in_blas()
        first.__enter__()
        second.__enter__()
        assert threads() <= {1}
        # Runs in two threads do not end in the order in which they began.
        first.__exit__(None, None, None)
        assert threads() <= {1}
        second.__exit__(None, None, None)
        assert threads() == before
        with pytest.raises(ZeroDivisionError), resources.one_thread_in_blas():
            1 / 0  # noqa: B018
        assert threads() == before
