"""An executed notebook as a page that opens from disk: without a server, and without a network."""

from __future__ import annotations

import html
from pathlib import Path

import nbformat

from stacklib.formats.safely import new_file

__all__ = ["PAGE", "STYLE", "notebook_page", "write_page"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --ground: #fcfcfa; --soft: #eef0f3;
  --line: #ccd2da; --link: #0b5cad }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8f0; --ground: #12161d; --soft: #1c232d; --line: #39434f; --link: #7db8f0 } }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.55 system-ui, sans-serif;
  color: var(--ink); background: var(--ground) }
a { color: var(--link) }
img { max-width: 100%; height: auto }
pre { overflow-x: auto; padding: .6rem .8rem; background: var(--soft); border-radius: 4px; font-size: .85rem;
  line-height: 1.4 }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .85rem }
td, th { padding: .2rem .6rem; border: 1px solid var(--line); text-align: left }
.prompt, .anchor-link { display: none }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
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
    return PAGE.format(title=html.escape(title), style=style, body=f"{around}\n{body}\n{around}")


def write_page(notebook: Path) -> Path:
    """Write the page of a notebook beside it, under the same name.

    Raises
    ------
    OSError
        When it cannot be written, or is there already.
    """
    page = notebook.with_suffix(".html")
    with new_file(page) as temporary:
        content = nbformat.read(notebook, as_version=4)
        temporary.write_text(notebook_page(content, notebook.stem), encoding="utf-8")
    return page
