"""The walk with frames of one's own: which are used, and choices that are still there with a new kernel."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

import stacklib as sl

pytest.importorskip("playwright", reason="no playwright for the browser tests: pip install playwright")

import browser

REAL = ROOT.parent / "shared" / "data"
MONO = REAL / "hatp32_reg40"
#: Number of frames whose names say that they are registered.
RENAMED = 10
#: Seconds for all cells of a notebook on a busy machine.
PATIENCE = 400


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copies of the notebooks, and a target in which some frames are named as registered."""
    if not MONO.is_dir():
        pytest.skip(f"no real frames in {REAL}")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "*.yaml"))
    folder = tmp_path / "HAT" / "4_Registered"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(MONO.glob("*.fits"))):
        end = "_c_d_r.fits" if number < RENAMED else ".fits"
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


def test_choices_for_frames_of_ones_own_stay(root):
    choices, mono = root / "HAT" / "recipe.yaml", str(root / "HAT" / "4_Registered")
    with browser.laboratory(root, browser.chromium_or_skip()) as lab:
        with lab.open(edit(root, "1", frames=mono)) as notebook:
            notebook.run_all(PATIENCE)
            notebook.settled()
            assert notebook.errors() == []
            # The registered ones, and loudly so.
            assert selected(notebook) == (RENAMED, RENAMED)
            assert f"{RENAMED} of 40 images are used" in notebook.said()
            rows = notebook.page.locator(".widget-hbox", has=notebook.page.locator("img"))
            rows.nth(2).locator("input[type=checkbox]").first.click()
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
        assert len(sl.Job.load(choices).frames) == RENAMED - 1
