"""Functions that the notebooks call: read the parameters cell, display panels, tables and files."""

from __future__ import annotations

import ast
import contextlib
import difflib
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stacklib.errors import RecipeError, StacklibError, StacklibWarning
from stacklib.frames.finding import resolve_path
from stacklib.notebook.executed import NOTE, RESULT_MIME
from stacklib.notebook.parameters import (
    NOTEBOOKS,
    RECIPE_FILE,
    GoOn,
    SelectFrames,
    cell_parameters,
    parameters_cell,
)
from stacklib.notebook.preview import save_preview
from stacklib.recipe.choices import NO_FILE, job_with_choices
from stacklib.recipe.presets import PRESET, with_preset
from stacklib.recipe.recipe import Job
from stacklib.utils.parameters import Checked, Parameter
from stacklib.utils.progress import in_live_notebook, tell_what_takes_long
from stacklib.utils.texts import one_line, printable, printable_table

if TYPE_CHECKING:
    from astropy.table import Table
    from matplotlib.figure import Figure

    from stacklib.drizzle.result import Drizzled
    from stacklib.explore.both_presets import BothPresets
    from stacklib.integration.result import Integration

__all__ = [
    "compare_presets",
    "is_live",
    "read_parameters",
    "save_choice",
    "set_up_session",
    "show_advice",
    "show_drizzled",
    "show_files",
    "show_night",
    "show_panel",
    "show_table",
]

Read = TypeVar("Read", bound=Checked)

#: Makes tables of many columns narrow.
NARROW = """<style>
.stacklib-table th, .stacklib-table td {padding: 2px 3px !important; font-size: 12px}
</style>"""

#: Types of a variable that may be a misspelt parameter.
_LITERALS = (bool, int, float, str, list)


def read_parameters(kind: type[Read], namespace: Mapping[str, Any]) -> Read:
    """Read and check the parameters of a notebook in its ``globals()``; also set up figures and warnings.

    For `Job` and for notebooks that go on from another one, the choices saved for the frames are read as
    well, and a line says so; see `stacklib.recipe.choices.job_with_choices`. Parameters that differ from
    their defaults override them.

    `RecipeError` is raised if a value has the wrong type (also the text ``"false"`` for a switch) or is out
    of range, if a name looks like a misspelt parameter, or if the choices cannot be read.
    """
    set_up_session()
    goes_on = kind is Job or issubclass(kind, GoOn)
    known = (cell_parameters(Job) if goes_on else {}) | kind.parameters()
    _refuse_misspelt(_assigned(namespace), known)
    given = {name: namespace[name] for name in known if name in namespace}
    # A notebook that saves choices may name a new file for them.
    select = kind is SelectFrames
    job = _read_job(given, "save" in kind.parameters(), select) if goes_on else None
    if kind is Job:
        return job
    own = {name: given[name] for name in kind.parameters() if name in given}
    if job is None:
        return kind(**own)
    # The frames to choose from are all frames.
    chosen = {} if select and "frames" in own else {"frames": job.frames}
    return kind(**own | chosen | {"recipe": job.recipe})


def _read_job(given: Mapping[str, Any], may_be_new: bool = False, select: bool = False) -> Job:
    """Return the job that parameters and saved choices describe together, and print a line about it."""
    file = RECIPE_FILE.check(given.get(RECIPE_FILE.name, ""))
    if may_be_new and file != NO_FILE and not resolve_path(file).is_file():
        file = ""
    names = cell_parameters(Job).keys() - {RECIPE_FILE.name, PRESET.name}
    job = Job.from_dict({name: value for name, value in given.items() if name in names})
    usual = Job().to_dict()
    values = {name: value for name, value in job.to_dict().items() if value not in ("", usual[name])}
    values = with_preset({PRESET.name: given.get(PRESET.name, PRESET.default)} | values)
    if not file:
        values["frames"] = job.frames
    job, line = job_with_choices(values | {"interactive": job.interactive}, file, select)
    if line:
        print(printable(line))
    return job


def is_live(interactive: bool) -> bool:
    """Return whether to show live panels: they are wanted and a browser can show them."""
    return interactive and in_live_notebook()


def show_panel(panel: Any, interactive: bool) -> None:
    """Display a panel: its `widget` if `is_live`, otherwise its static ``figure()``."""
    from IPython.display import display

    display(panel.widget if is_live(interactive) else panel.figure())


def save_choice(panel: Any, save: bool) -> None:
    """Save what is chosen in a panel if `save`, and print what was done.

    A panel is only saved by a click or a call: running a notebook again must not overwrite a choice.
    """
    print(printable(panel.saved_in_words(save)))


def show_advice(panel: Any) -> Any:
    """Print the limits proposed for the region of a panel, and why, and display the trade-off.

    The panel, such as `RejectionExplorer`, is not changed. Return the `Advice`; None if nothing can be
    proposed, with the reason printed.
    """
    from IPython.display import display

    try:
        advice = panel.advice()
    except StacklibError as error:
        print(printable(f"No suggestion: {error}"))
        return None
    print(advice.reason)
    display(advice.figure())
    return advice


def compare_presets(shown: Any, wanted: bool) -> BothPresets | None:
    """Compare the presets classic and measured: print the numbers, and display both images.

    Parameters
    ----------
    shown : RejectionExplorer or Integration
        A panel, whose region is integrated with both, or a result: then the region is at its brightest
        structure.
    wanted : bool
        Whether to do it.

    Returns
    -------
    BothPresets or None
        None if it was not done, with the reason printed.
    """
    from IPython.display import display

    from stacklib.explore.both_presets import BothPresets
    from stacklib.integration.result import Integration

    if not wanted:
        print("Not compared: compare is False.")
        return None
    try:
        if isinstance(shown, Integration):
            both = BothPresets.of_result(shown)
        else:
            both = BothPresets(shown.model.trials, shown.recipe)
        show_table(both.table)
    except StacklibError as error:
        print(printable(f"Not compared: {error}"))
        return None
    print(both.words)
    display(both.figure())
    return both


def show_night(result: Integration) -> None:
    """Display transparency, sky and surfaces of the frames, if they were compared by their light."""
    from IPython.display import display

    from stacklib.figures.night_plots import figure_night
    from stacklib.frames.kinds import calibration_kind

    if calibration_kind(result.preparation.used_frames):
        print("These are calibration frames: there is no light of stars to compare them by.")
        return
    if result.preparation.photometry is None:
        print('These frames were not compared by their light; with preset = "measured" they are.')
        return
    display(figure_night(result))


def show_trails(result: Integration) -> None:
    """Say which trails were found, and display them frame by frame.

    Without trails, or if they were not looked for, this is said.
    """
    from IPython.display import display

    from stacklib.figures.trail_plots import figure_trails, trails_in_words

    print(f"{trails_in_words(result)}.")
    if len(result.trails):
        display(figure_trails(result))


def show_table(table: Table) -> None:
    """Display all rows of a table, without data types."""
    from IPython.display import display

    options = {"show_dtype": False, "max_lines": -1, "max_width": -1}
    table = printable_table(table)
    plain, page = ("\n".join(table.pformat(html=html, **options)) for html in (False, True))
    display(
        {
            "text/plain": plain,
            "text/html": f'{NARROW}<div class="stacklib-table mathjax_ignore">{page}</div>',
        },
        raw=True,
    )


def show_files(result: Integration, files: Iterable[str | Path]) -> None:
    """Display the files of a result, and store the list in the notebook for programs."""
    from stacklib.figures.result_plots import figure_preview
    from stacklib.output.report import numbers

    paths = [Path(file).absolute() for file in files]
    if result.saved is not None:
        paths += [result.saved.table, result.saved.report]
    _show_paths(paths, result.summary, numbers(result))
    save_preview(lambda: figure_preview(result))


def show_drizzled(drizzled: Drizzled, files: Iterable[str | Path], beside: Integration | None = None) -> None:
    """Display the files of a drizzled image, and store the list in the notebook for programs.

    Parameters
    ----------
    drizzled : Drizzled
        The image.
    files : iterable of str or Path
        What its `save` returned.
    beside : Integration, optional
        The integration of the registered frames, for the preview.
    """
    from stacklib.figures.drizzle_plots import figure_drizzled

    paths = [Path(file).absolute() for file in files]
    paths += [paths[0].with_name(f"{paths[0].stem}{end}") for end in ("_frames.ecsv", "_report.txt")]
    known = {"frames": len(drizzled.frames), "used": int(drizzled.used.size)} | drizzled.recipe.to_dict()
    _show_paths(paths, drizzled.report().partition("\n\n")[0], known)
    save_preview(lambda: figure_drizzled(drizzled, beside))


def _show_paths(paths: list[Path], summary: str, facts: dict[str, Any]) -> None:
    """Display the files of a result with their sizes, and store them with what is known of it."""
    from IPython.display import display

    width = max(len(path.name) for path in paths)
    lines = [f"{path.name:<{width}}  {path.stat().st_size / 1e3:10,.0f} kB" for path in paths]
    text = printable("\n".join([f"in {paths[0].parent}", *lines]))
    known = {"files": [str(path) for path in paths], "summary": summary, "numbers": facts}
    display({"text/plain": text, RESULT_MIME: known}, raw=True)


def _assigned(namespace: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the variables of the parameters cell, as it was run last, and of all cells after it.

    The kernel also remembers names that have been corrected in the cell since.
    """
    sources = namespace.get("In")
    if not isinstance(sources, list):
        return namespace
    names: set[str] = set()
    for source in reversed(sources):
        with contextlib.suppress(SyntaxError):
            body = ast.parse(source).body
            annotated = [node.target for node in body if isinstance(node, ast.AnnAssign)]
            plain = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
            names |= {target.id for target in (*annotated, *plain) if isinstance(target, ast.Name)}
            # Only the parameters cell has types; a cell with injected parameters may follow it.
            if len(annotated) > 2:
                return {name: namespace[name] for name in names if name in namespace}
    return namespace


def _refuse_misspelt(namespace: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
    """Raise `RecipeError` for a variable whose name looks like a misspelt parameter."""
    for name, value in namespace.items():
        if name in known or name.startswith("_") or not isinstance(value, _LITERALS):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if near:
            raise RecipeError(f"parameters: unknown parameter {name!r}; did you mean {near[0]}?")


def set_up_session() -> None:
    """Set up a notebook: inline figures with a description, warnings in one line.

    Figures are inline because a live canvas leaves nothing in a saved notebook.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    if getattr(shell, "kernel", None) is not None:
        described = shell.display_formatter.formatters["image/png"]
        if "matplotlib" in sys.modules:
            from matplotlib.figure import Figure

            shell.run_line_magic("matplotlib", "inline")
            described.for_type(Figure, _described)
        else:
            # Jupyter's own choice for a kernel is inline as well: Matplotlib need not be imported for it.
            described.for_type_by_name("matplotlib.figure", "Figure", _described)
    warnings.formatwarning = _short_warning
    tell_what_takes_long()
    # Python gives a warning once in a session. It has to be there again when the notebook is run again.
    warnings.simplefilter("default", StacklibWarning)


def _described(figure: Figure) -> tuple[str, dict[str, str]] | None:
    """Return a figure as PNG, with its titles as the alternative text."""
    from IPython.core.pylabtools import print_figure

    drawn = print_figure(figure, fmt="png", base64=True)
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    words = [text for text in (figure.get_suptitle(), *titles) if text]
    return drawn and (drawn, {"alt": printable(". ".join(" ".join(text.split()) for text in words))})


def _short_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning of stacklib as a note without the path of the cell; others as usual."""
    if issubclass(category, StacklibWarning):
        return f"{NOTE}{one_line(str(message))}\n"
    return _usual_warning(message, category, filename, lineno, line)


_usual_warning = warnings.formatwarning


def refresh_parameters(notebook: str | Path) -> bool:
    """Write the parameters cell of a notebook again, and return whether it changed."""
    import nbformat

    path = Path(notebook)
    content = nbformat.read(path, as_version=4)
    cell = next(c for c in content.cells if "parameters" in c.metadata.get("tags", []))
    before, cell.source = cell.source, parameters_cell(NOTEBOOKS[path.stem])
    if cell.source != before:
        nbformat.write(content, path)
    return cell.source != before


if __name__ == "__main__":
    # python -m stacklib.notebook.session notebooks/*.ipynb
    for argument in sys.argv[1:]:
        print(argument, "changed" if refresh_parameters(argument) else "is up to date")
