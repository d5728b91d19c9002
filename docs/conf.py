"""Settings of Sphinx. `docs/build.py` collects the pages in one folder and calls it there."""

import tomllib
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml

import stacklib

PROJECT = tomllib.loads((Path(stacklib.__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
CHECKED = PROJECT["tool"]["numpydoc_validation"]

project = "stacklib"
author = "the stacklib developers"
release = stacklib.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_nb"]
exclude_patterns = ["parts/**", "sample_data/**", "**/5_Integration/**"]
templates_path = ["_templates"]

# Pages in Markdown, notebooks as they ran. No notebook may show the output of an older run.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
highlight_language = "text"
# A name in backticks becomes a link where it is a name of the package.
default_role = "autolink"
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
# Widgets would be loaded from a server; without a browser the notebooks show figures instead.
nb_ipywidgets_js = {}
# The list of saved files, which is for programs that run the notebook.
suppress_warnings = ["mystnb.unknown_mime_type"]

# The public face, from its docstrings: they must be there, with parameters and what is returned.
autosummary_generate = True
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_validation_checks = {
    *CHECKED["checks"],
    "GL08",
    "SS05",
    "PR01",
    "PR03",
    "PR04",
    "PR07",
    "RT01",
}
numpydoc_validation_exclude = set(CHECKED["exclude"])
numpydoc_validation_overrides = {
    name.removeprefix("override_"): patterns
    for name, patterns in CHECKED.items()
    if name.startswith("override_")
}
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "stacklib"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
html_context = {"default_mode": "auto"}
html_sidebars = {"start": [], "numbers": [], "index": []}
html_math_renderer = "mathml"
copyright = "the stacklib developers, GPL-3.0-or-later"


def _math(self, node):
    """Write a formula as MathML, which browsers show without a script."""
    block = isinstance(node, nodes.math_block)
    formula = latex2mathml.tex2mathml(node.astext(), as_block=block)
    self.body.append(f'<div class="math">{formula}</div>' if block else str(formula))
    raise nodes.SkipNode


def setup(app):
    """Register the formulas."""
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
