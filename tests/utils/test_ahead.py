"""Processes that compile ahead: what they do, what is noted, and that none is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil
import pytest
from conftest import ROOT
from filelock import FileLock

from stacklib.utils import compiled
from stacklib.utils.ahead import processes, record
from stacklib.utils.ahead.processes import COMPILED, Forecast, Step, compile_ahead

#: Runs two steps that take long, in a process of its own, and tells which processes these are.
WAITING = """
import signal
from stacklib.utils.ahead import processes
from stacklib.utils.ahead.processes import Step, compile_ahead

# A shell in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
start = processes._start

def told():
    child = start()
    print(child.pid, flush=True)
    return child

processes._start = told
processes.checked_threads = lambda threads: 2
compile_ahead([Step("time:sleep", 9.0, (600,)), Step("time:sleep", 9.0, (601,))], shown=False)
"""


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for module in (processes, record):
        monkeypatch.setattr(module, "kept_in", lambda: folder)
    monkeypatch.setattr(record, "_seen", set())
    return folder


@pytest.fixture
def none_started(monkeypatch):
    """Fail if a process is started."""

    def start():
        raise AssertionError("a process was started")

    return lambda: monkeypatch.setattr(processes, "_start", start)


def folders(path, *names: str) -> list[Step]:
    """Return steps that make folders."""
    return [Step("os:mkdir", 9.0, (str(path / name),)) for name in names]


def test_steps_are_done_once(cache, tmp_path, monkeypatch, capsys, none_started):
    steps = folders(tmp_path, "one", "two", "three")
    compile_ahead(steps)
    assert all((tmp_path / name).is_dir() for name in ("one", "two", "three"))
    told = capsys.readouterr().err
    assert f"{COMPILED}: 3 of 3" in told and " s left" in told
    none_started()
    compile_ahead(steps)
    # The next process reads it from the record.
    monkeypatch.setattr(record, "_seen", set())
    compile_ahead(steps)
    assert capsys.readouterr().err == ""


def test_looking_for_what_is_kept_takes_no_time(cache, tmp_path, monkeypatch):
    steps = folders(tmp_path, *map(str, range(20)))
    record.add_steps(step.name for step in steps)
    monkeypatch.setattr(record, "_seen", set())
    record._made_by.cache_clear()
    start = time.process_time()
    compile_ahead(steps)
    assert time.process_time() - start < 0.1


def test_a_source_that_changed_makes_the_record_void(cache, tmp_path, monkeypatch):
    source = tmp_path / "rule.py"
    source.write_text("1")
    monkeypatch.setattr(record, "sources_of_code", lambda: [source])
    record._made_by.cache_clear()
    record.add_steps(["a", "b"])
    monkeypatch.setattr(record, "_seen", set())
    assert record.missing_steps(["a", "b", "c"]) == {"c"}
    os.utime(source, (1, 1))
    record._made_by.cache_clear()
    monkeypatch.setattr(record, "_seen", set())
    assert record.missing_steps(["a", "b"]) == {"a", "b"}
    record._made_by.cache_clear()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"made_by": 1}', "\x80"])
def test_a_damaged_record_is_none(cache, content):
    (cache / compiled.RECORD).write_bytes(content.encode("latin-1"))
    assert record.missing_steps(["a"]) == {"a"}
    record.add_steps(["a"])
    assert json.loads((cache / compiled.RECORD).read_text())["steps"] == ["a"]


def test_a_step_that_fails_and_one_that_kills_its_process(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "checked_threads", lambda threads: 2)
    fails = Step("os:rmdir", 9.0, (str(tmp_path / "none"),))
    kills = Step("os:_exit", 9.0, (3,))
    compile_ahead([fails, kills, *folders(tmp_path, "one")])
    assert (tmp_path / "one").is_dir()
    # The run finds out what is wrong, or compiles it.
    assert record.missing_steps([fails.name, kills.name]) == {kills.name}


def test_without_a_place_for_code_nothing_is_started(tmp_path, monkeypatch, none_started):
    monkeypatch.setattr(processes, "kept_in", lambda: None)
    monkeypatch.setattr(record, "kept_in", lambda: None)
    none_started()
    compile_ahead(folders(tmp_path, "one", "two"))


def test_little_is_left_to_the_run(cache, tmp_path, none_started):
    none_started()
    compile_ahead(folders(tmp_path, "one"))
    compile_ahead([Step("os:mkdir", 0.5, (str(tmp_path / name),)) for name in ("one", "two")])
    assert not (tmp_path / "one").exists()


def test_processes_of_a_pool_start_none():
    assert processes._possible()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert not pool.submit(processes._possible).result()


def test_processes_that_compile_start_none(cache, tmp_path):
    """They would wait for each other. What a function prints is no answer."""
    told = tmp_path / "told"
    asks = "from stacklib.utils.ahead import processes; print(processes._possible(), flush=True)"
    writes = f"import os; os.mkdir({str(told)!r} + str(processes._possible()))"
    compile_ahead([Step("builtins:exec", 9.0, (f"{asks}; {writes}",)), *folders(tmp_path, "one")])
    assert (tmp_path / "toldFalse").is_dir() and (tmp_path / "one").is_dir()
    assert record.missing_steps([step.name for step in folders(tmp_path, "one")]) == set()


def test_workers_of_a_cluster_start_none():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert not client.submit(processes._possible).result()


def test_a_run_waits_for_another_one_that_compiles(cache, tmp_path, monkeypatch, capsys, none_started):
    steps, held = folders(tmp_path, "one", "two"), threading.Event()

    def compile_elsewhere():
        with FileLock(cache / "compiling.lock", thread_local=False):
            held.set()
            while "Another run" not in said:
                time.sleep(0.01)
            monkeypatch.setattr(record, "_seen", {step.name for step in steps})

    said: list[str] = []
    monkeypatch.setattr(processes, "say", lambda words: said.append(words[:11]))
    other = threading.Thread(target=compile_elsewhere)
    other.start()
    held.wait()
    none_started()
    compile_ahead(steps)
    other.join()
    assert said == ["Another run"]


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process(tmp_path, number):
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    children = [psutil.Process(int(run.stdout.readline())) for _ in range(2)]
    assert all(child.is_running() for child in children)
    run.send_signal(number)
    assert run.wait() != 0
    run.stdout.close()
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_the_time_left_goes_by_what_is_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    steps = [Step("a:a", 4.0), Step("b:b", 2.0), Step("c:c", 2.0)]
    forecast = Forecast(steps)
    assert forecast.seconds(2) == 4.0 and forecast.words(2) == "at least 4 s left"
    forecast.take(steps[0], None)
    forecast.take(steps[1], None)
    now[0] += 4.0
    # The second one takes at least twice as long as on other computers, and so will the others.
    assert forecast.seconds(2) == pytest.approx(4.0)
    # This computer takes twice as long: 8 - 4 s of the first step and 4 s of the third are left.
    forecast.take(steps[1], 4.0)
    assert forecast.seconds(2) == 4.0
    forecast.take(steps[2], None)
    now[0] += 3.0
    assert forecast.seconds(2) == 1.0 and forecast.words(2) == "about 1 s left"
