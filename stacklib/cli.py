"""The command line: ``stacklib run`` integrates one target, ``stacklib lab`` opens the notebooks."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stacklib
from stacklib.errors import IntegrationError, RecipeError, SaveError, StacklibError
from stacklib.finding import resolve_path
from stacklib.frames import open_frames
from stacklib.naming import default_folder
from stacklib.notebook import RESULT_MIME, describe
from stacklib.recipe import Job, Parameter, Recipe, refuse_unknown
from stacklib.samples import parse_memory

__all__ = ["Run", "job_from_arguments", "main", "notebooks_folder", "run_job"]

#: The notebook that `run_job` runs.
NOTEBOOK = "4_integrate.ipynb"

#: How to get what the notebooks need.
INSTALL = 'pip install "stacklib[notebook]"'

#: What stands for a switch on the command line.
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

EXAMPLES = """\
examples:
  stacklib run sample_data/M101/4_Registered
  stacklib run 4_Registered -p rejection sigma -p sigma_high 2.8 --output 5_Integration
  stacklib run recipe.yaml
  stacklib lab

"stacklib run --help" lists every parameter.
"""


@dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes
    ----------
    files : list of Path
        The files of the result, the integration first.
    notebook : Path
        The executed notebook.
    summary : str
        The result in a few lines.
    """

    files: list[Path]
    notebook: Path
    summary: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when all went well, 1 when a run failed, 2 when the call was wrong."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _lab:
        parser.error(f"unknown argument {rest[0]!r}")
    options.rest = rest
    try:
        return options.command(options)
    except RecipeError as error:
        print(f"stacklib: {error}", file=sys.stderr)
        return 2
    except StacklibError as error:
        print(f"stacklib: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stacklib: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stacklib",
        description="Integrate registered astrophotography frames into a clean master.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stacklib {stacklib.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="integrate one target and keep the notebook of the run beside the result",
        description="Integrate the frames of a folder, or run a job or recipe file (YAML).",
        epilog=_parameter_list(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    run.add_argument("target", metavar="FOLDER|JOB.yaml", help="folder of registered frames, or a job file")
    run.add_argument(
        "-p",
        dest="parameters",
        metavar=("NAME", "VALUE"),
        nargs=2,
        action="append",
        default=[],
        help="set a parameter; may be given many times",
    )
    run.add_argument("--output", metavar="DIR", help="folder for the results; made if it is not there")
    run.set_defaults(command=_run)
    lab = commands.add_parser(
        "lab",
        help="open the notebooks in JupyterLab",
        description="Open the notebooks in JupyterLab; further arguments, such as --no-browser, go to it.",
        allow_abbrev=False,
    )
    lab.set_defaults(command=_lab)
    return parser


def _parameter_list() -> str:
    lines = ["parameters for -p and for job files, with their defaults:"]
    for name, parameter in (Job.parameters() | Recipe.parameters()).items():
        default = str(parameter.default).lower() if parameter.kind is bool else parameter.default
        lines += [f"  {name} {default}".rstrip(), f"      {describe(parameter)}"]
    return "\n".join(lines)


# run ---------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    job = job_from_arguments(options.target, options.parameters, options.output)
    run = run_job(job)
    print(f"\n{run.summary}\n")
    for path in (*run.files, run.notebook):
        print(path)
    return 0


def job_from_arguments(
    target: str, parameters: Sequence[tuple[str, str]] = (), output: str | None = None
) -> Job:
    """The job that a command line asks for.

    Parameters
    ----------
    target : str
        A folder, a pattern or a file of frames, or a job file (``.yaml`` or ``.yml``).
    parameters : sequence of (name, text)
        What to change; a text is read as the type that the parameter has.
    output : str, optional
        Folder for the results.

    Raises
    ------
    RecipeError
        For an unknown name or an invalid value.
    """
    known = {**Job.parameters(), **Recipe.parameters()}
    texts = dict(parameters)
    refuse_unknown(texts, known, "-p")
    values = {"frames": target}
    if Path(target).suffix.lower() in (".yaml", ".yml"):
        values = Job.load(resolve_path(target)).to_dict()
    values |= {name: _typed(known[name], text) for name, text in texts.items()}
    if output is not None:
        values["output"] = output
    job = Job.from_dict(values)
    parse_memory(job.memory)
    return job


def _typed(parameter: Parameter, text: str) -> Any:
    """The text as the parameter's type; left alone where it cannot be read so, for the check to refuse."""
    if parameter.kind is bool:
        return SWITCHES.get(text.lower(), text)
    if parameter.kind in (int, float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def run_job(job: Job) -> Run:
    """Integrate through the notebook, without a person; progress goes to the terminal.

    Parameters
    ----------
    job : Job
        What to do. Relative paths count from the current folder.

    Returns
    -------
    Run

    Raises
    ------
    StacklibError
        When the frames cannot be used, or the run fails. The notebook is kept with the error in it.
    """
    with warnings.catch_warnings():
        # The notebook will say it again, in its place.
        warnings.simplefilter("ignore")
        frames = open_frames(job.frames)
    output = Path(job.output).expanduser().absolute() if job.output else default_folder(frames)
    _make_folder(output)
    one = isinstance(job.frames, str)
    values = _changed(job) | {
        "frames": str(resolve_path(job.frames)) if one else [str(resolve_path(f)) for f in job.frames],
        "output": str(output),
        "interactive": False,
    }
    # It has a name of its own while it runs: two runs into one folder do not meet.
    executed = _claim(output, "running_notebook")
    try:
        error = _execute(notebooks_folder() / NOTEBOOK, executed, values)
        files, text = _left_in(executed) if error is None else ([], "")
    except BaseException:
        # Ctrl-C, or an accident: what was run until then is worth keeping, an empty file is not.
        _keep(executed, "stopped_notebook")
        raise
    if error is not None:
        kept = _keep(executed, "failed_notebook")
        raise IntegrationError(f"{error}\nThe notebook shows where: {kept}")
    return Run(files, _keep(executed, f"{files[0].stem}_notebook"), text)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be made ({error.strerror}); choose another --output") from error


def _changed(job: Job) -> dict[str, Any]:
    """What differs from the defaults: the rest is in the parameters cell already."""
    known = Job.parameters() | Recipe.parameters()
    return {name: value for name, value in job.to_dict().items() if value != known[name].default}


def _execute(notebook: Path, executed: Path, values: dict[str, Any]) -> str | None:
    """Run the notebook; the error in one line if a cell failed."""
    try:
        import papermill
    except ImportError as error:
        raise IntegrationError(f"{error.name} is missing; install it with: {INSTALL}") from error
    # A kernel that inherits these takes itself for one with a browser.
    for name in ("JPY_SESSION_NAME", "VOILA_KERNEL_ID"):
        os.environ.pop(name, None)
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            values,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=["--log-level=ERROR"],
        )
    except papermill.PapermillExecutionError as error:
        known = error.ename in vars(stacklib) and error.ename.endswith("Error")
        return error.evalue if known else f"{error.ename}: {error.evalue}"
    return None


def _left_in(executed: Path) -> tuple[list[Path], str]:
    """The files and the summary that the last cells left in the notebook."""
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            known = output.get("data", {}).get(RESULT_MIME)
            if known is not None:
                return [Path(file) for file in known["files"]], known["summary"]
    raise IntegrationError(f"{executed}: the notebook ended without a result")


def _keep(executed: Path, stem: str) -> Path:
    """Give the executed notebook the first free name; an empty file is removed."""
    if not executed.stat().st_size:
        executed.unlink()
        return executed
    return executed.replace(_claim(executed.parent, stem))


def _claim(folder: Path, stem: str) -> Path:
    """Make an empty notebook file under the first free name, so that no one else takes it."""
    for number in itertools.count(1):
        path = folder / (f"{stem}_{number}.ipynb" if number > 1 else f"{stem}.ipynb")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise SaveError(
                f"{folder}: cannot be written to ({error.strerror}); choose another --output"
            ) from error
        return path
    raise AssertionError("there is always a free name")


# lab ---------------------------------------------------------------------------------------------


def notebooks_folder() -> Path:
    """Where the notebooks are: in the installed package, or beside it in a checkout."""
    package = Path(stacklib.__file__).parent
    installed = package / "notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


def _lab(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("jupyterlab") is None:
        raise IntegrationError(f"jupyterlab is missing; install it with: {INSTALL}")
    folder = notebooks_folder()
    if folder.parent == Path(stacklib.__file__).parent:
        folder = _own_copy(folder)
    first = min(folder.glob("[0-9]*.ipynb"), default=folder)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.parent}"]
    command.append(f"--LabApp.default_url=/lab/tree/{folder.name}/{first.name}")
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.call([*command, *options.rest])
    return 0


def _own_copy(folder: Path) -> Path:
    """Copies of the installed notebooks in the current folder; what is there already is left alone."""
    copies = Path.cwd() / "stacklib_notebooks"
    copies.mkdir(exist_ok=True)
    for notebook in sorted(folder.glob("*.ipynb")):
        if not (copies / notebook.name).exists():
            shutil.copy(notebook, copies)
    print(f"The notebooks are in {copies}")
    return copies


if __name__ == "__main__":
    sys.exit(main())
