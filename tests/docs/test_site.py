"""The site: it builds without a warning, needs no network, and has a page for all that people look for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import stacklib

pytest.importorskip("pydata_sphinx_theme", reason="needs stacklib[docs]")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The pages, with notebooks that were not run."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, ROOT / "docs" / "build.py", "--no-execute", "--folder", folder]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert ran.returncode == 0, ran.stderr
    return folder / "html"


def pages_of(site: Path) -> list[Path]:
    return [page for page in site.rglob("*.html") if "_static" not in page.parts]


def test_every_notebook_and_public_name_has_a_page(site):
    for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        assert (site / "walk" / f"{notebook.stem}.html").is_file()
        assert notebook.stem in (site / "walk" / "index.html").read_text(encoding="utf-8")
    for name in stacklib.__all__:
        assert (site / "reference" / "api" / f"stacklib.{name}.html").is_file()


def test_pages_need_no_network(site):
    pages = pages_of(site)
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)\b[^>]*https?://[^>]*>", text), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8"))


def test_links_lead_somewhere(site):
    for page in pages_of(site):
        for target in re.findall(r"(?:href|src)=\"([^\"#?:]+)[\"#?]", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
