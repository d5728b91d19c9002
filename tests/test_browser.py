"""Every notebook as a person meets it: opened in JupyterLab in a browser, all cells run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from conftest import ROOT, SAMPLES

pytest.importorskip("playwright", reason="no playwright for the browser tests: pip install playwright")

import browser

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[browser.Lab]:
    """JupyterLab over copies: what notebooks write does not end up in the project."""
    chromium = browser.chromium_or_skip()
    root = tmp_path_factory.mktemp("walk")
    (root / "notebooks").mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, root / "notebooks")
    shutil.copytree(SAMPLES, root / "sample_data", ignore=shutil.ignore_patterns("5_Integration", ".stack*"))
    with browser.laboratory(root, chromium) as running:
        yield running


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_in_the_browser(lab, path):
    with lab.open(f"notebooks/{path.name}") as notebook:
        notebook.run_all()
        notebook.settled()
        assert notebook.errors() == []


def test_without_a_browser_a_person_skips_and_ci_fails(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="apt install chromium"):
        browser.chromium_or_skip()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt install chromium"):
        browser.chromium_or_skip()
