"""The command line: ``stacklib run`` integrates one target, ``stacklib lab`` opens the notebooks."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
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
from stacklib.preparation import refuse_single
from stacklib.recipe import Job, Parameter, Recipe, refuse_unknown
from stacklib.samples import parse_memory

__all__ = ["Run", "job_from_arguments", "main", "notebooks_folder", "run_job"]

#: The notebook that `run_job` runs.
NOTEBOOK = "4_integrate.ipynb"

#: How to get what the notebooks need.
INSTALL = 'pip install "stacklib[notebook]"'

#: What stands for a switch on the command line.
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

#: What the process that runs the notebook executes.
CHILD = "from stacklib.cli import _run_notebook; _run_notebook()"
#: Seconds that an interrupted run gets to shut its kernel down.
PATIENCE = 20

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
        given = sys.argv[1:] if arguments is None else list(arguments)
        parser.error(f"unknown argument {rest[0]!r}{_as_parameter(rest[0], given)}")
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


def _known() -> dict[str, Parameter]:
    """What -p can set; a run from the command line is never interactive."""
    known = Job.parameters() | Recipe.parameters()
    return {name: parameter for name, parameter in known.items() if name != "interactive"}


def _as_parameter(argument: str, given: Sequence[str]) -> str:
    """The hint for ``--sigma_high 3``: a parameter that was given as an option."""
    word, equals, value = argument.partition("=")
    name = word.lstrip("-").replace("-", "_")
    if not word.startswith("-") or name not in _known():
        return ""
    if not equals:
        value = next(iter(given[given.index(argument) + 1 :]), "VALUE")
    return f"; did you mean -p {name} {value}?"


def _parameter_list() -> str:
    lines = ["parameters for -p and for job files, with their defaults:"]
    for name, parameter in _known().items():
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
    known = _known()
    texts = dict(parameters)
    if "interactive" in texts:
        raise RecipeError("-p interactive: a run from the command line is never interactive; leave it out")
    refuse_unknown(texts, known, "-p")
    for name, count in Counter(name for name, _ in parameters).items():
        if count > 1:
            raise RecipeError(f"-p {name}: given {count} times; give it once")
    if output is not None and "output" in texts:
        raise RecipeError("-p output: given beside --output; give one of the two")
    from_file = Path(target).suffix.lower() in (".yaml", ".yml")
    if "frames" in texts and not from_file:
        raise RecipeError(f"-p frames: the frames are given already, {target}; give one of the two")
    values = {"frames": target}
    if from_file:
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
    KeyboardInterrupt
        When the run is stopped. It leaves nothing behind.
    """
    with warnings.catch_warnings():
        # The notebook will say it again, in its place.
        warnings.simplefilter("ignore")
        frames = open_frames(job.frames)
    # The integration would say so too, but only when a kernel runs.
    refuse_single(frames)
    output = Path(job.output).expanduser().absolute() if job.output else default_folder(frames)
    was_there = output.exists()
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
    except KeyboardInterrupt:
        executed.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                output.rmdir()
        raise
    except BaseException:
        # What was run until the accident is worth keeping, half a file is not.
        _keep(executed, "stopped_notebook")
        raise
    if error is not None:
        kept = _keep(executed, "failed_notebook")
        raise IntegrationError(f"{error}\nThe notebook shows where: {kept}" if kept else error)
    return Run(files, _keep(executed, f"{files[0].stem}_notebook") or executed, text)


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
    """Run the notebook in a process of its own; the error in one line if a cell failed.

    Ctrl-C then reaches this process only, which can end the other one in order.
    """
    # A kernel that inherits these takes itself for one with a browser.
    variables = {k: v for k, v in os.environ.items() if k not in ("JPY_SESSION_NAME", "VOILA_KERNEL_ID")}
    if os.name == "nt":
        apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        apart = {"start_new_session": True}
    sys.stdout.flush()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env=variables,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **apart,
    )
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps([str(notebook), str(executed), values]).encode() + b"\n")
            child.stdin.flush()
        tail = _pass_through(child)
        child.wait()
    except BaseException:
        _stop(child)
        raise
    finally:
        child.stdin.close()
        child.stderr.close()
    kind, text = json.loads(tail.splitlines()[0]) if tail else ("ended", "")
    if kind == "missing":
        raise IntegrationError(f"{text} is missing; install it with: {INSTALL}")
    if kind == "unwritten":
        raise SaveError(
            f"{executed.parent}: the notebook of the run cannot be written there ({text}). "
            "Check the free space and the permissions of the folder, or choose another --output"
        )
    if kind == "ended":
        return f"the process that runs the notebook ended with code {child.returncode}; run it again"
    return text if kind == "failed" else None


def _pass_through(child: subprocess.Popen) -> bytes:
    """Print what the process says on stderr; what stands behind a zero byte is its report."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while chunk := child.stderr.read1():
        words, zero, tail = chunk.partition(b"\0")
        sys.stderr.write(decoder.decode(words))
        sys.stderr.flush()
        if zero:
            return tail + child.stderr.read()
    return b""


def _stop(child: subprocess.Popen) -> None:
    """End the process and its kernel; what they say while they end is of no use."""
    if os.name == "nt":
        child.terminate()
    try:
        # This closes the stdin of the process, which interrupts it.
        child.communicate(timeout=PATIENCE)
    except BaseException:
        # It takes too long, also for a user who pressed Ctrl-C again.
        child.kill()
        child.wait()


def _run_notebook() -> None:
    """What the process does that `_execute` starts: papermill, then a report on stderr."""
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    notebook, executed, values = json.loads(sys.stdin.buffer.readline())
    if os.name != "nt":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_interrupt_when_alone, daemon=True).start()
    report = _papermill(notebook, executed, values)
    sys.stdout.flush()
    sys.stderr.write("\0" + json.dumps(report) + "\n")
    sys.stderr.flush()


def _interrupt_when_alone() -> None:
    """Wait until stdin is closed: the run was stopped, or the process that started this one is gone."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _papermill(notebook: str, executed: str, values: dict[str, Any]) -> tuple[str, str]:
    """Run the notebook; how it ended, and what there is to say about it."""
    try:
        import papermill
    except ImportError as error:
        return "missing", str(error.name)
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
        return "failed", str(error.evalue) if known else f"{error.ename}: {error.evalue}"
    except OSError as error:
        return "unwritten", error.strerror or str(error)
    return "done", ""


def _left_in(executed: Path) -> tuple[list[Path], str]:
    """The files and the summary that the last cells left in the notebook."""
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            known = output.get("data", {}).get(RESULT_MIME)
            if known is not None:
                return [Path(file) for file in known["files"]], known["summary"]
    raise IntegrationError(f"{executed}: the notebook ended without a result")


def _keep(executed: Path, stem: str) -> Path | None:
    """Give the executed notebook the first free name; one that is not whole is removed."""
    try:
        json.loads(executed.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        executed.unlink(missing_ok=True)
        return None
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
