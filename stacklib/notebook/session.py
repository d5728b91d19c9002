"""What the notebooks call: from the parameters cell to a checked job, and how a run ends."""

from __future__ import annotations

import difflib
import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from astropy.table import Table
from matplotlib.figure import Figure

from stacklib.errors import RecipeError, StacklibError, StacklibWarning
from stacklib.frames.finding import beside, resolve_path
from stacklib.integration.result import Integration
from stacklib.notebook.parameters import OWN, RECIPE_FILE, USUAL_NAME
from stacklib.output.report import numbers
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.parameters import Parameter, read_yaml
from stacklib.utils.progress import in_live_notebook

__all__ = [
    "NOTE",
    "RESULT_MIME",
    "batch_from",
    "describe",
    "is_live",
    "job_from",
    "own_from",
    "parameters_cell",
    "parameters_of",
    "set_up_session",
    "show_advice",
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

#: Tables of many columns, as narrow as they can be read.
NARROW = """<style>
.stacklib-table th, .stacklib-table td {padding: 2px 3px !important; font-size: 12px}
</style>"""

#: What a parameter has to look like for a stray name to be taken as a misspelt parameter.
_LITERALS = (bool, int, float, str, list)


def parameters_cell(parameters: Mapping[str, Parameter] | None = None) -> str:
    """The parameters cell of a notebook: of the integration unless others are given, see `parameters_of`.

    One literal assignment a line, with a type and the help text behind it, in the form that
    ``papermill --help-notebook`` understands: a second ``=`` or a ``|`` in a line would hide it.
    """
    lines = []
    for name, parameter in (parameters or parameters_of(4)).items():
        if name in HEADINGS and not parameters:
            lines += [""] * bool(lines) + [f"# {HEADINGS[name]}"]
        annotation = "str" if parameter.kind is list else parameter.kind.__name__
        lines.append(f"{name}: {annotation} = {_literal(parameter.default)}  # {describe(parameter)}")
    return "\n".join(lines)


def parameters_of(number: int) -> dict[str, Parameter]:
    """The parameters of a notebook, by the number that its name begins with."""
    if number == 5:
        return BatchJob.parameters()
    own = OWN[number].parameters()
    if number != 4:
        return own
    rest = _parameters()
    return {"frames": rest.pop("frames"), **own, **rest}


def own_from(namespace: Mapping[str, Any], number: int) -> Any:
    """The parameters of a notebook that are its own, checked; also sets up figures and warnings.

    Parameters
    ----------
    namespace : dict
        ``globals()`` of the notebook. Only the names of parameters are looked at.
    number : int
        Of the notebook.

    Returns
    -------
    object
        See `stacklib.notebook.parameters`.

    Raises
    ------
    RecipeError
        When a value cannot be used, or a name looks like a misspelt parameter.
    """
    set_up_session()
    known = OWN[number].parameters()
    _refuse_misspelt(namespace, known)
    return OWN[number](**{name: namespace[name] for name in known if name in namespace})


def job_from(namespace: Mapping[str, Any], recipe_file: str | Path = "") -> Job:
    """The job that the parameters cell describes, checked; also sets up figures and warnings.

    Where there is a browser, and no recipe file is given, but one lies in the current folder, a line says so.

    Parameters
    ----------
    namespace : dict
        ``globals()`` of the notebook. Only the names of parameters are looked at.
    recipe_file : str or Path
        Recipe or job file that gives the recipe and, where it names any, the frames; an empty text for none.
        What the parameters cell has at another value than its default counts more than the file.

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
    _refuse_misspelt(namespace, known | {RECIPE_FILE.name: RECIPE_FILE})
    job = Job.from_dict({name: namespace[name] for name in known if name in namespace})
    file = RECIPE_FILE.check(recipe_file)
    if not file:
        if is_live(job.interactive) and (words := _recipe_left_alone()):
            print(words)
        return job
    usual = Job().to_dict()
    chosen = {name: value for name, value in job.to_dict().items() if value not in ("", usual[name])}
    path = resolve_path(file)
    values = Job.load(path).to_dict()
    values["frames"] = beside(path, values["frames"])
    values |= chosen
    return Job.from_dict(values | {"interactive": job.interactive})


def _recipe_left_alone() -> str:
    """That there is a job file nobody has asked for, and what it holds; an empty text if there is none."""
    path = Path.cwd() / USUAL_NAME
    if not path.is_file():
        return ""
    use = f'to go on with it, set recipe_file = "{USUAL_NAME}" above and run again'
    try:
        job, named = Job.load(path), read_yaml(path)
    except RecipeError as error:
        return f"There is a {USUAL_NAME} here that is not used, and cannot be: {error}"
    what = "settings only"
    if "frames" in named:
        files = [job.frames] if isinstance(job.frames, str) else job.frames
        folders = sorted({Path(file).parent.as_posix() for file in files})
        many = f"{len(files)} frames of {folders[0]}" + (" and other folders" if len(folders) > 1 else "")
        what = f"the frames {files[0]}" if len(files) == 1 else many
    return f"There is a {USUAL_NAME} here, with {what}, that is not used: {use}."


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


def show_advice(panel: Any) -> Any:
    """Print which limits are proposed for the region of a panel, and why, and display the trade-off.

    Parameters
    ----------
    panel : object
        Has a method ``advice()``, as `RejectionExplorer` has. It is not changed.

    Returns
    -------
    Advice or None
        None where nothing can be proposed: then that is printed.
    """
    from IPython.display import display

    try:
        advice = panel.advice()
    except StacklibError as error:
        print(f"No suggestion: {error}")
        return None
    print(advice.reason)
    display(advice.figure())
    return advice


def show_table(table: Table) -> None:
    """Display a whole table without its data types, which mean little to a person."""
    from IPython.display import display

    options = {"show_dtype": False, "max_lines": -1, "max_width": -1}
    plain, page = ("\n".join(table.pformat(html=html, **options)) for html in (False, True))
    display({"text/plain": plain, "text/html": f'{NARROW}<div class="stacklib-table">{page}</div>'}, raw=True)


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
    if parameter.kind is int:
        return f"{parameter.help} [{parameter.low} to {parameter.high}{unit}]"
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
    number = int(path.name[0]) if path.name[0].isdigit() else 4
    before, cell.source = cell.source, parameters_cell(parameters_of(number) if number != 4 else None)
    if cell.source != before:
        nbformat.write(content, path)
    return cell.source != before


if __name__ == "__main__":
    # python -m stacklib.notebook.session notebooks/[0-5]_*.ipynb
    for argument in sys.argv[1:]:
        print(argument, "changed" if refresh_parameters(argument) else "is up to date")
