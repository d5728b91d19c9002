"""An executed notebook as a page that opens from disk: without a server, and without a network."""

from __future__ import annotations

import contextlib
from pathlib import Path

import nbformat

from stacklib.notebook.html_page import html_page
from stacklib.utils.atomic_files import new_file

__all__ = ["notebook_page", "save_page"]

STYLE = """
body { max-width: 60rem }
pre { overflow-x: auto; padding: .6rem .8rem; background: var(--soft); border-radius: 4px; font-size: .85rem;
  line-height: 1.4 }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .85rem }
td, th { padding: .2rem .6rem; border: 1px solid var(--line); text-align: left }
.prompt, .anchor-link { display: none }
"""


def notebook_page(content: nbformat.NotebookNode, title: str, around: str = "") -> str:
    """The cells and their outputs as HTML.

    Parameters
    ----------
    content : NotebookNode
        The notebook, with outputs.
    title : str
        Of the page.
    around : str
        HTML above and below the cells.
    """
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    # The basic template is the cells alone: nothing in it is fetched from a network.
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(content)
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    plain = ".highlight, .highlight pre { background: var(--soft) }"
    style = f"{STYLE}{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n{plain}"
    return html_page(title, f"{around}\n{body}\n{around}", style)


def save_page(notebook: Path, mark: str = "") -> str:
    """Write the page of a notebook beside it, unless it is there; its name, or nothing.

    A run without a page is better than one that failed for it.
    """
    page = notebook.with_suffix(".html")
    if not page.exists():
        with contextlib.suppress(OSError, ValueError, ImportError), new_file(page, mark) as temporary:
            content = nbformat.read(notebook, as_version=4)
            temporary.write_text(notebook_page(content, notebook.stem), encoding="utf-8")
    return page.name if page.exists() else ""
