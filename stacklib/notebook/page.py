"""HTML pages that open from disk: the frame that all of them share, and executed notebooks as pages."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from stacklib.notebook.executed import Executed
from stacklib.utils.atomic_files import new_file
from stacklib.utils.texts import printable

__all__ = ["notebook_page", "render", "save_page"]


def _shown(value: Any) -> Any:
    """Return text that goes into a page as printable characters; HTML that is made here stays as it is."""
    return printable(value) if type(value) is str else value


_ENVIRONMENT = jinja2.Environment(
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    finalize=_shown,
)
#: The address of a file, whose name need not be UTF-8.
_ENVIRONMENT.filters["address"] = lambda path: quote(os.fsencode(path))
#: Head, font and colors of every page, for light and dark screens. Nothing comes from a network.
_BASE = _ENVIRONMENT.from_string("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c2330; --faint: #5b6675; --ground: #fcfcfa; --soft: #eef0f3;
  --line: #ccd2da; --link: #0b5cad; --good: #1b6e3c; --bad: #b3261e; --bad-soft: #fbeceb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8f0; --faint: #9aa6b5; --ground: #12161d; --soft: #1c232d; --line: #39434f;
    --link: #7db8f0; --good: #74cf98; --bad: #ff9c94; --bad-soft: #3a2022 } }
body { margin: 1.5rem auto; padding: 0 1.2rem; font: 1rem/1.55 system-ui, sans-serif; color: var(--ink);
  background: var(--ground) }
a { color: var(--link) }
img { max-width: 100%; height: auto }
{% block style %}{% endblock %}
</style>
</head>
<body>
{% block body %}{% endblock %}
</body>
</html>
""")

_NOTEBOOK = """{% extends base %}
{% block style %}
body { max-width: 60rem }
pre { overflow-x: auto; padding: .6rem .8rem; background: var(--soft); border-radius: 4px; font-size: .85rem;
  line-height: 1.4 }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .85rem }
td, th { padding: .2rem .6rem; border: 1px solid var(--line); text-align: left }
.prompt, .anchor-link { display: none }
{{ light | safe }}
@media (prefers-color-scheme: dark) { {{ dark | safe }} }
.highlight, .highlight pre { background: var(--soft) }
.failed { color: var(--bad); background: var(--bad-soft); white-space: pre-wrap }
.notebook { margin-top: 3rem; border-top: 2px solid var(--line) }
{% endblock %}
{% block body %}
<h1>{{ heading }}</h1>
{% if run.error %}
<p>The run failed:</p>
<pre class="failed">{{ run.error }}</pre>
{% endif %}
{% if run.result %}
<pre>{{ run.result.summary }}</pre>
{% endif %}
{% if run.notes %}
<ul>{% for note in run.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{% if picture %}
<p><img src="data:image/png;base64,{{ picture }}" alt="One frame beside the integration, same stretch"></p>
{% endif %}
{% if files %}
<p>In {{ folder }}:</p>
<ul>{% for name in files %}<li><a href="{{ name | address }}">{{ name }}</a></li>{% endfor %}</ul>
{% endif %}
<div class="notebook">
<p>The notebook of this run, from the top:</p>
{{ cells | safe }}
</div>
{% endblock %}
"""


def render(template: str, **values: Any) -> str:
    """Fill a template that extends ``base``. Values are escaped unless they pass the filter ``safe``."""
    return _ENVIRONMENT.from_string(template).render(base=_BASE, **values)


def notebook_page(notebook: Path, name: str = "", picture: Path | None = None) -> str:
    """Return an executed notebook as an HTML page, which opens on the result or the error of the run.

    `name` is that of the page, by default of the notebook; `picture` is a PNG file to show at the top.
    """
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    run = Executed.read(notebook)
    files = run.files
    # The basic template gives the cells alone, without anything from a network.
    cells, _ = HTMLExporter(template_name="basic").from_filename(str(notebook))
    light, dark = (
        HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark")
    )
    return render(
        _NOTEBOOK,
        title=name or notebook.stem,
        heading=files[0].stem if files else name or notebook.stem,
        run=run,
        picture=base64.b64encode(picture.read_bytes()).decode() if picture else "",
        folder=str(files[0].parent) if files else "",
        files=[file.name for file in files],
        cells=cells,
        light=light,
        dark=dark,
    )


def save_page(notebook: Path, room: Path | None = None) -> str:
    """Write the page of a notebook beside it, unless it exists, by way of the work folder `room`.

    It shows the preview of the run if there is one. Return its name.
    """
    page = notebook.with_suffix(".html")
    preview = notebook.with_name(f"{notebook.stem.removesuffix('_notebook')}_preview.png")
    if not page.exists():
        with new_file(page, room) as temporary:
            text = notebook_page(notebook, picture=preview if preview.is_file() else None)
            temporary.write_text(text, encoding="utf-8")
    return page.name
