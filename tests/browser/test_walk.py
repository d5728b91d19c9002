"""The walk with frames of one's own: two targets in turn, with choices that are kept and never cross over."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

import stacklib as sl

pytest.importorskip("playwright", reason="no playwright for the browser tests: pip install playwright")

import browser

REAL = ROOT.parent / "shared" / "data"
MONO, MOSAIC = REAL / "hatp32_reg40", REAL / "m94_seestar_cfa_reg32"
#: Number of frames whose names say that they are registered.
RENAMED = 10
#: Seconds for all cells of a notebook on a busy machine.
PATIENCE = 400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copies of the notebooks, and two targets: one with some registered frames, one of mosaics."""
    if not (MONO.is_dir() and MOSAIC.is_dir()):
        pytest.skip(f"no real frames in {REAL}")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "*.yaml"))
    for target, source in (("HAT", MONO), ("M94", MOSAIC)):
        folder = tmp_path / target / "4_Registered"
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted(source.glob("*.fits"))):
            end = "_c_d_r.fits" if target == "HAT" and number < RENAMED else ".fits"
            shutil.copy(path, folder / f"{path.stem}{end}")
    return tmp_path


def edit(root: Path, name: str, **values: object) -> str:
    """Change parameters of a notebook as a user would, in the cell; return its path."""
    path = next((root / "notebooks").glob(f"{name}_*.ipynb"))
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for parameter, value in values.items():
        lines = cell.source.split("\n")
        (place,) = (k for k, line in enumerate(lines) if line.startswith(f"{parameter}: "))
        before, after = lines[place].split(" = ")[0], lines[place].split("  #")[1]
        lines[place] = f"{before} = {value!r}  #{after}"
        cell.source = "\n".join(lines)
    nbformat.write(notebook, path)
    return f"notebooks/{path.name}"


def selected(notebook: browser.Notebook) -> tuple[int, int]:
    found = re.search(r"(\d+) of (\d+) frames are selected", notebook.readouts())
    return int(found[1]), int(found[2])


def press(notebook: browser.Notebook, button: str, saved: Path) -> None:
    notebook.page.get_by_role("button", name=button, exact=True).click()
    notebook.page.wait_for_function(
        "path => [...document.querySelectorAll('[role=status][aria-live]')]"
        ".some(panel => /Saved/.test(panel.innerText) && panel.innerText.includes(path))",
        arg=str(saved),
        timeout=30_000,
    )


@pytest.mark.skipif(not os.environ.get("WALK"), reason="takes up to ten minutes: make walk")
def test_two_targets_in_turn(root):
    choices, others = root / "HAT" / "recipe.yaml", root / "M94" / "recipe.yaml"
    mono, mosaic = (str(root / target / "4_Registered") for target in ("HAT", "M94"))
    with browser.laboratory(root, browser.chromium_or_skip()) as lab:
        with lab.open(edit(root, "1", frames=mono)) as notebook:
            notebook.run_all(PATIENCE)
            notebook.settled()
            assert notebook.errors() == []
            # The registered ones, and loudly so.
            assert selected(notebook) == (RENAMED, RENAMED)
            assert f"{RENAMED} of 40 images are used" in notebook.said()
            notebook.page.locator(".stacklib-blinker tr[data-frame='2'] input").click()
            press(notebook, "Save", choices)
        with lab.open(edit(root, "2", frames=mono)) as notebook:
            notebook.run_all(PATIENCE)
            notebook.settled()
            handle = notebook.slider("sigma_high")
            handle.focus()
            notebook.page.keyboard.press("ArrowRight")
            notebook.settled()
            press(notebook, "Use these", choices)
            kept = choices.read_bytes()
            # With a new kernel, Run All shows what was saved and writes nothing.
            notebook.restart_and_run_all(PATIENCE)
            notebook.settled()
            assert notebook.errors() == [] and choices.read_bytes() == kept
        job = sl.Job.load(choices)
        assert len(job.frames) == RENAMED - 1

        # The other target knows nothing of it.
        with lab.open(edit(root, "1", frames=mosaic)) as notebook:
            notebook.run_all(PATIENCE)
            notebook.settled()
            assert notebook.errors() == [] and selected(notebook) == (32, 32)
            assert "not debayered" in notebook.said()
        for name in "3":
            with lab.open(edit(root, name, frames=mosaic)) as notebook:
                notebook.run_all(PATIENCE)
                notebook.settled()
                assert notebook.errors() == []
        with lab.open(edit(root, "4", frames=mosaic, sigma_high=4.5, rejection="sigma")) as notebook:
            notebook.run_all(PATIENCE)
            notebook.restart_and_run_all(PATIENCE)
            assert notebook.errors() == []
    assert choices.read_bytes() == kept and not others.exists()
    ran = sl.Recipe.from_result(next((root / "M94" / "5_Integration").glob("*.xisf")))
    assert (ran.rejection, ran.sigma_high) == ("sigma", 4.5)

    # The command line runs the notebook as it came, with the choices of its target.
    command = [sys.executable, "-m", "stacklib.cli", "run", str(root / "HAT")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    ran = sl.Recipe.from_result(next((root / "HAT" / "5_Integration").glob("*.xisf")))
    assert ran.sigma_high == job.recipe.sigma_high != 4.5
    assert choices.read_bytes() == kept
