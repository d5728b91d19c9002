"""A thousand damaged files; `make fuzz` tries twenty thousand others."""

import subprocess
import sys

import fuzz
import pytest
from fuzz_checks import problems
from fuzz_inputs import KINDS, Input, make_input

#: The seed is fixed, so that a failure is one of the code. `make fuzz` takes another one each time.
SEED = 20_261_129
COUNT = 1000


def test_a_thousand_damaged_files():
    outcome = fuzz.fuzz(SEED, range(COUNT), workers=2)
    assert outcome.ends.total() == COUNT
    assert not outcome.failures, fuzz.report(outcome, SEED, 0)
    # All kinds were there, and not everything was refused.
    assert {kind for kind, _ in outcome.ends} == set(KINDS)
    assert all(outcome.ends[kind, "read"] for kind in KINDS)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"fits.gz"}))
def test_good_files_are_read(kind, tmp_path):
    for origin, content in KINDS[kind].good().items():
        assert problems(Input(kind, origin, content, True), tmp_path) == ("read", [])


def test_an_input_follows_from_its_number():
    for number in range(50):
        assert make_input(1, number) == make_input(1, number)
    assert make_input(1, 3).content != make_input(2, 3).content


def test_the_checks_find_what_is_wrong(tmp_path, monkeypatch):
    good = KINDS["fits"].good()
    end, found = problems(Input("fits", "i2", good["f4"], True), tmp_path)
    assert (end, found) == ("read", ["pixels: differ from the undamaged file, i2"])
    monkeypatch.setattr("fuzz_checks.SECONDS", -1.0)
    assert problems(Input("fits", "i2", b"", False), tmp_path)[1][-1].startswith("slow: ")
    monkeypatch.setattr("fuzz_checks.Frame", lambda *args, **options: 1 / 0)
    assert problems(Input("fits", "i2", b"", False), tmp_path)[0] == "foreign"


def test_a_process_that_ends_is_told(monkeypatch):
    worker = fuzz.Worker(1)
    started = subprocess.Popen
    dying = [sys.executable, "-c", "input(); import os; os.abort()"]
    monkeypatch.setattr(fuzz.subprocess, "Popen", lambda command, **how: started(dying, **how))
    assert worker.ask(0)[1] == "died"
    monkeypatch.undo()
    assert worker.ask(0)[0] in KINDS
    worker.end()


def test_the_command_line_prints_the_seed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--count", "3", "--workers", "1", "--seed", "5"])
    assert fuzz.main() == 0
    assert "3 inputs, seed 5" in capsys.readouterr().out
