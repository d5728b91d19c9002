"""Killed runs and saves leave no half files, and nothing after the next start; `make faults` tries many."""

import os
import random

import fault_trials
import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no signals for other processes")


def test_killed_saves_leave_whole_sets_only(tmp_path):
    outcome = fault_trials.kill_saves(tmp_path, 15, random.Random(3))
    assert not outcome.problems, str(outcome)
    assert sum(outcome.tried.values()) == 15 and outcome.finished < 15


def test_killed_runs_leave_nothing(tmp_path):
    place = fault_trials.Place(tmp_path)
    # While the notebook starts, and about when it integrates.
    outcome = fault_trials.kill_commands(place, "run", [3.0, 4.0, 5.0], first=1, full=False)
    assert not outcome.problems, str(outcome)
    assert len(fault_trials.masters(place.results[0])) >= 1
