"""The gallery: notebooks rendered to pages that open from disk."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from stacklib import gallery


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The pages of the first notebook, and of a small one that asks for what a network would bring."""
    folder = tmp_path_factory.mktemp("gallery")
    cells = [
        nbformat.v4.new_markdown_cell("# Small & odd\n\n- **What you do:** almost\nnothing.\n- More."),
        nbformat.v4.new_code_cell("interactive = True", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print('live' if interactive else 'not live')"),
        nbformat.v4.new_markdown_cell("The noise is $1/\\sqrt{N}$."),
    ]
    small = nbformat.v4.new_notebook(cells=cells)
    small.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "notebooks").mkdir()
    nbformat.write(small, folder / "notebooks" / "9_small.ipynb")
    first = ROOT / "notebooks" / "0_how_integration_works.ipynb"
    index = gallery.build(folder / "site", [first, folder / "notebooks" / "9_small.ipynb"])
    assert index == folder / "site" / "index.html"
    return index.parent


def test_index_names_every_notebook(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "How integration works" in text and "Small &amp; odd" in text and "<p>Almost nothing.</p>" in text
    for target in re.findall(r"(?:href|src)='([^']+)'", text):
        assert (site / target).is_file(), target


def test_pages_need_no_network(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        # No picture is wider than its place, also in the cards of the index.
        assert "img { max-width: 100%" in text, page.name
        assert "<script" not in text and "@import" not in text, page.name
        assert not re.findall(r"(?:src|href)=[\"']?https?://\S+", text), page.name
        assert page.stat().st_size < 3_000_000


def test_notebooks_run_without_live_panels(site):
    text = (site / "9_small.html").read_text(encoding="utf-8")
    assert "not live" in text and "Parameters</span>" not in text
    assert (site / "0_how_integration_works.html").read_text(encoding="utf-8").count("data:image/png") == 9
