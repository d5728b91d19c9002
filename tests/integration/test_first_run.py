"""The first run on a computer: what it compiles, what it says, and that the result is the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from conftest import ROOT, SAMPLES

from stacklib.recipe.recipe import Recipe
from stacklib.utils.ahead.processes import COMPILED

#: Integrates frames and prints what this process itself has compiled, and a checksum of the result.
RUN = """
import hashlib, json, sys, warnings
from numba.core import event
import stacklib as sl

warnings.simplefilter("ignore")
compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__qualname__)

    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
result = sl.integrate(sys.argv[1], sl.Recipe().replace(**json.loads(sys.argv[2])))
# Saving measures the noise of the result.
result.save(sys.argv[3])
planes = result.image, result.uncertainty, result.rejection_low, result.rejection_high, result.coverage
found = hashlib.sha256(b"".join(plane.tobytes() for plane in planes)).hexdigest()
print(json.dumps({"compiled": compiled, "result": found}))
"""


def run(frames, output, variables: dict[str, str], **changes) -> tuple[dict, str]:
    """Integrate in a process of its own; returns what it prints, and what it says meanwhile."""
    command = [sys.executable, "-c", RUN, str(frames), json.dumps(changes), str(output)]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, encoding="utf-8"
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1]), ran.stderr


def test_the_first_run_compiles_ahead_all_that_it_needs(tmp_path):
    """Nothing is left for the run of color frames itself, and for mono frames after it only another rule."""
    for target in ("M101", "M13"):
        shutil.copytree(SAMPLES / target / "4_Registered", tmp_path / target)
    empty = {"NUMBA_CACHE_DIR": str(tmp_path / "code"), "STACKLIB_CACHE": str(tmp_path / "cache")}
    first, said = run(tmp_path / "M101", tmp_path / "first", empty)
    assert f"{COMPILED}: 0 of " in said and " s left" in said
    assert first["compiled"] == []
    second, said = run(tmp_path / "M101", tmp_path / "second", empty)
    assert COMPILED not in said and second["compiled"] == []
    usual, _ = run(tmp_path / "M101", tmp_path / "usual", {})
    assert first["result"] == second["result"] == usual["result"]
    # A single rule is compiled on the way, with a word.
    mono, said = run(tmp_path / "M13", tmp_path / "mono", empty)
    assert "Compiling" in said and COMPILED not in said
    assert mono["compiled"][0] == "sigma" and "combine" not in mono["compiled"]
    usual, _ = run(tmp_path / "M13", tmp_path / "usual", {})
    assert mono["result"] == usual["result"]
    # What matches frames by their stars is compiled ahead as well.
    by_light = {"normalization": "photometric", "rejection_normalization": "photometric"}
    matched, said = run(tmp_path / "M13", tmp_path / "matched", empty, **by_light)
    assert COMPILED in said
    assert not {"_measure_blocks", "_robust_fit", "_correct", "_reached"}.intersection(matched["compiled"])


def test_a_cache_that_cannot_be_written(tmp_path):
    """The run compiles what it needs, starts no process, and says that it will take as long next time."""
    blocked = tmp_path / "file"
    blocked.touch()
    variables = {"NUMBA_CACHE_DIR": str(blocked), "STACKLIB_CACHE": str(tmp_path / "cache")}
    frames = SAMPLES / "M13" / "4_Registered"
    code = "import stacklib as sl, sys; sl.integrate(sys.argv[1], sl.Recipe(rejection='none'))"
    command = [sys.executable, "-c", code, str(frames)]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "compiled code cannot be kept" in ran.stderr
    assert "Compiling" in ran.stderr and COMPILED not in ran.stderr


def test_what_a_run_needs(m13, m101):
    """Steps are named once, and by the rule, so that another one is another step."""
    from stacklib.integration.first.plan import steps_of

    mono, colour = (steps_of(result.preparation.frames, Recipe()) for result in (m13, m101))
    names = [step.name for step in colour]
    assert len(set(names)) == len(names) and {step.name for step in mono} - set(names) == {
        step.name for step in mono if '"sigma"' in step.name
    }
    other = steps_of(m101.preparation.frames, Recipe(rejection="noise_model"))
    assert any("write_scatter" in step.name for step in other)
    assert not any("write_scatter" in name for name in names)
