"""Killed runs and saves leave no half files, and nothing after the next start; `make faults` tries many."""

import os
import random
import tempfile
from pathlib import Path

import fault_trials
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no signals for other processes")


def test_killed_saves_leave_whole_sets_only(tmp_path):
    outcome = fault_trials.kill_saves(tmp_path, 9, random.Random(3))
    assert not outcome.problems, str(outcome)
    assert sum(outcome.tried.values()) == 9 and outcome.finished < 9


def test_killed_runs_leave_nothing():
    # Sockets of a kernel need a short path; with ports, a killed one leaves what Jupyter knows of it.
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        kill_runs(Path(folder))


def kill_runs(folder):
    place = fault_trials.Place(folder)
    # While the notebook starts, and about when it integrates: the process alone, and all of them.
    outcome = fault_trials.kill_commands(place, "run", [3.0, 4.5], first=2, full=False)
    assert not outcome.problems, str(outcome)
    assert len(fault_trials.masters(place.results[0])) >= 1
