"""What the notebooks call: from the parameters cell to a checked job, and how a run ends."""

from __future__ import annotations

import difflib
import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from astropy.table import Table
from matplotlib.figure import Figure

from stacklib.batch_job import BatchJob
from stacklib.errors import RecipeError, StacklibWarning
from stacklib.finding import resolve_path
from stacklib.parameters import Parameter
from stacklib.progress import in_live_notebook
from stacklib.recipe import Job, Recipe
from stacklib.report import numbers
from stacklib.results import Integration

__all__ = [
    "NOTE",
    "RESULT_MIME",
    "batch_from",
    "describe",
    "is_live",
    "job_from",
    "parameters_cell",
    "set_up_session",
    "show_files",
    "show_panel",
    "show_table",
]

#: Under this type the list of files is kept in a saved notebook, for programs that run it.
RESULT_MIME = "application/vnd.stacklib.result+json"
#: How a warning of stacklib begins in a notebook.
NOTE = "Note: "

#: Headings of the parameters cell, by the parameter that they stand above.
HEADINGS = {
    "frames": "The run",
    "rejection": "Rejection: the rule, and the limits that each rule listens to",
    "range_clip_low": "Range: what is no data, and what is saturated",
    "normalization": "Normalisation, weights, combination",
}

#: What a parameter has to look like for a stray name to be taken as a misspelt parameter.
_LITERALS = (bool, int, float, str, list)


def parameters_cell(parameters: Mapping[str, Parameter] | None = None) -> str:
    """The parameters cell of a notebook: of the integration, made from the recipe, unless others are given.

    One literal assignment a line, with a type and the help text behind it, in the form that
    ``papermill --help-notebook`` understands: a second ``=`` or a ``|`` in a line would hide it.
    """
    lines = []
    for name, parameter in (parameters or _parameters()).items():
        if name in HEADINGS and not parameters:
            lines += [""] * bool(lines) + [f"# {HEADINGS[name]}"]
        annotation = "str" if parameter.kind is list else parameter.kind.__name__
        lines.append(f"{name}: {annotation} = {_literal(parameter.default)}  # {describe(parameter)}")
    return "\n".join(lines)


def job_from(namespace: Mapping[str, Any], recipe_file: str | Path = "") -> Job:
    """The job that the parameters cell describes, checked; also sets up figures and warnings.

    Parameters
    ----------
    namespace : dict
        ``globals()`` of the notebook. Only the names of parameters are looked at.
    recipe_file : str or Path
        Recipe or job file that gives the recipe, and the frames as well where it names any and the
        parameters cell leaves them at their default or empty; an empty text for none.

    Returns
    -------
    Job

    Raises
    ------
    RecipeError
        When a value has the wrong type (also the text ``"false"`` in the place of a switch) or lies
        out of range, or when a name looks like a misspelt parameter; when the recipe file cannot be read.
    """
    set_up_session()
    known = _parameters()
    _refuse_misspelt(namespace, known)
    job = Job.from_dict({name: namespace[name] for name in known if name in namespace})
    if not recipe_file:
        return job
    given = Job.load(resolve_path(recipe_file))
    chosen = job.frames not in ("", Job().frames)
    return replace(job, recipe=given.recipe, frames=job.frames if chosen else given.frames)


def batch_from(namespace: Mapping[str, Any]) -> BatchJob:
    """The batch that the parameters cell describes, checked as `job_from` does."""
    set_up_session()
    known = BatchJob.parameters()
    _refuse_misspelt(namespace, known)
    return BatchJob.from_dict({name: namespace[name] for name in known if name in namespace})


def is_live(interactive: bool) -> bool:
    """Whether to show live panels: they are wanted, and there is a browser that can show them."""
    return interactive and in_live_notebook()


def show_panel(panel: Any, interactive: bool) -> None:
    """Display a panel: its widget where `is_live`, otherwise its static figure.

    Parameters
    ----------
    panel : object
        Has a ``widget``, and a method ``figure()`` that returns a matplotlib figure.
    interactive : bool
        Whether live panels are wanted.
    """
    from IPython.display import display

    display(panel.widget if is_live(interactive) else panel.figure())


def show_table(table: Table) -> None:
    """Display a whole table without its data types, which mean little to a person."""
    from IPython.display import display

    texts = {"text/plain": False, "text/html": True}
    options = {"show_dtype": False, "max_lines": -1, "max_width": -1}
    display({kind: "\n".join(table.pformat(html=html, **options)) for kind, html in texts.items()}, raw=True)


def show_files(result: Integration, files: Iterable[str | Path]) -> None:
    """Display where the files of a result are, and leave the list in the notebook for programs."""
    from IPython.display import display

    paths = [Path(file).absolute() for file in files]
    if result.saved is not None:
        paths += [result.saved.table, result.saved.report]
    width = max(len(path.name) for path in paths)
    lines = [f"{path.name:<{width}}  {path.stat().st_size / 1e3:10,.0f} kB" for path in paths]
    text = "\n".join([f"in {paths[0].parent}", *lines])
    known = {"files": [str(path) for path in paths], "summary": result.summary, "numbers": numbers(result)}
    display({"text/plain": text, RESULT_MIME: known}, raw=True)


def _parameters() -> dict[str, Parameter]:
    return {**Job.parameters(), **Recipe.parameters()}


def _literal(value: Any) -> str:
    # Double quotes, as everywhere else; repr prefers single ones.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def describe(parameter: Parameter) -> str:
    """The help text with unit, range or choices behind it, on one line."""
    if parameter.choices:
        return f"{parameter.help} One of: {', '.join(parameter.choices)}."
    if parameter.kind not in (int, float):
        return parameter.help
    unit = f" {parameter.unit}" if parameter.unit else ""
    usual = "; usual {:g} to {:g}".format(*parameter.recommended) if parameter.recommended else ""
    return f"{parameter.help} [{parameter.low:g} to {parameter.high:g}{unit}{usual}]"


def _refuse_misspelt(namespace: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    """A misspelt name on the command line arrives as one more variable: better say so than ignore it."""
    for name, value in namespace.items():
        if name in known or name.startswith("_") or not isinstance(value, _LITERALS):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near:
            raise RecipeError(f"parameters: unknown parameter {name!r}; did you mean {near[0]}?")


def set_up_session() -> None:
    """Make a notebook ready: figures inline, with a description, and warnings in one line.

    Inline, because a live canvas would leave nothing in a saved notebook.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    if getattr(shell, "kernel", None) is not None:
        shell.run_line_magic("matplotlib", "inline")
        shell.display_formatter.formatters["image/png"].for_type(Figure, _described)
    warnings.formatwarning = _short_warning


def _described(figure: Figure) -> tuple[str, dict[str, str]] | None:
    """A figure as PNG, with its titles as the text that stands for it in pages."""
    from IPython.core.pylabtools import print_figure

    drawn = print_figure(figure, fmt="png", base64=True)
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    words = [text for text in (figure.get_suptitle(), *titles) if text]
    return drawn and (drawn, {"alt": ". ".join(" ".join(text.split()) for text in words)})


def _short_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """The warnings of stacklib as notes, without the path of the cell; others as always."""
    if issubclass(category, StacklibWarning):
        return f"{NOTE}{message}\n"
    return _usual_warning(message, category, filename, lineno, line)


_usual_warning = warnings.formatwarning


def refresh_parameters(notebook: str | Path) -> bool:
    """Write the parameters cell of a notebook anew; whether anything changed."""
    import nbformat

    path = Path(notebook)
    content = nbformat.read(path, as_version=4)
    cell = next(c for c in content.cells if "parameters" in c.metadata.get("tags", []))
    others = BatchJob.parameters() if path.name.startswith("5_") else None
    before, cell.source = cell.source, parameters_cell(others)
    if cell.source != before:
        nbformat.write(content, path)
    return cell.source != before


if __name__ == "__main__":
    # python -m stacklib.notebook notebooks/4_integrate.ipynb notebooks/5_batch.ipynb
    for argument in sys.argv[1:]:
        print(argument, "changed" if refresh_parameters(argument) else "is up to date")
