"""All notebooks, run and rendered to a few static pages that open from disk: ``make gallery``."""

from __future__ import annotations

import argparse
import base64
import html
import io
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from PIL import Image

from stacklib.html_page import html_page
from stacklib.notebook_page import notebook_page
from stacklib.running import notebooks_folder

__all__ = ["build", "main"]

#: Widest thumbnail, in pixels.
THUMBNAIL = 360

STYLE = """
body { max-width: 60rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1.2rem;
  padding: 0 }
.cards li { list-style: none; border: 1px solid var(--line); border-radius: 6px; padding: 1rem }
.cards h2 { font-size: 1.05rem; margin: .6rem 0 .3rem }
.cards p { margin: 0 }
"""


def build(site: str | Path, notebooks: Sequence[str | Path] | None = None) -> Path:
    """Run notebooks without live panels and render them, with an index.

    Parameters
    ----------
    site : str or Path
        Folder for the pages; made if it is not there. Pages of the same names are replaced.
    notebooks : sequence of str or Path, optional
        The notebooks in order; all of the project unless given.

    Returns
    -------
    Path
        The index. The pages need neither a server nor a network.

    Raises
    ------
    papermill.PapermillExecutionError
        When a cell of a notebook fails.
    """
    site = Path(site)
    site.mkdir(parents=True, exist_ok=True)
    if notebooks is None:
        notebooks = sorted(notebooks_folder().glob("[0-9]*.ipynb"))
    cards = [_add(Path(notebook), site) for notebook in notebooks]
    intro = "<h1>stacklib</h1>\n<p>The notebooks, as a run leaves them.</p>"
    body = f"{intro}\n<ul class='cards'>{''.join(cards)}</ul>"
    index = site / "index.html"
    index.write_text(html_page("stacklib notebooks", body, STYLE), encoding="utf-8")
    return index


def _add(path: Path, site: Path) -> str:
    """Run and render a notebook; its card for the index."""
    content = _run(path)
    title, line = _title_and_line(content)
    _make_small(content)
    back = "<p><a href='index.html'>All notebooks</a></p>"
    page = site / f"{path.stem}.html"
    page.write_text(notebook_page(content, title, back), encoding="utf-8")
    picture = ""
    if thumbnail := _thumbnail(content):
        (site / f"{path.stem}.png").write_bytes(thumbnail)
        picture = f"<a href='{page.name}'><img src='{path.stem}.png' alt=''></a>"
    heading = f"<h2><a href='{page.name}'>{html.escape(title)}</a></h2>"
    return f"\n<li>{picture}{heading}<p>{html.escape(line)}</p></li>"


def _run(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs; what it saves goes into a folder that is thrown away."""
    import papermill

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Old habits of the libraries that start kernels.
        warnings.simplefilter("ignore", DeprecationWarning)
        root = Path(folder)
        copy = root / "notebooks" / path.name
        copy.parent.mkdir()
        shutil.copy(path, copy)
        samples = path.parent.parent / "sample_data"
        if samples.is_dir():
            results = shutil.ignore_patterns("5_Integration")
            shutil.copytree(samples, root / "sample_data", ignore=results)
        parameters = {"interactive": False}
        ran = papermill.execute_notebook(
            *(copy, None, parameters), cwd=copy.parent, progress_bar=False, kernel_name="python3"
        )
    # Papermill's own cell is no part of the walk.
    ran.cells = [cell for cell in ran.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return ran


def _title_and_line(content: nbformat.NotebookNode) -> tuple[str, str]:
    """The heading, and what one does, from the first cell."""
    text = content.cells[0].source
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    line = re.search(r"\*\*What you(?:'ll)? do:\*\* (.+?)(?=\n- |\n\n|\Z)", text, re.DOTALL)
    said = " ".join(line[1].replace("`", "").split()) if line else ""
    return title[1] if title else "Notebook", said[:1].upper() + said[1:]


def _figures(content: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield output.data


def _make_small(content: nbformat.NotebookNode) -> None:
    """Leave out the last two bits of all figures: they are mostly noise, which cannot be compressed."""
    for data in _figures(content):
        image = _opened(data["image/png"]).point(lambda level: level & 0xFC)
        data["image/png"] = base64.b64encode(_png(image)).decode()


def _thumbnail(content: nbformat.NotebookNode) -> bytes | None:
    """The first figure, small."""
    for data in _figures(content):
        image = _opened(data["image/png"])
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        return _png(image)
    return None


def _opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the pages and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m stacklib.gallery", description=__doc__)
    parser.add_argument(
        "site", nargs="?", default="build/gallery", help="folder for the pages (default: %(default)s)"
    )
    index = build(parser.parse_args(arguments).site)
    print(f"Open {index.absolute()} in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
