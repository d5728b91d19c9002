"""Integrate one target through the notebook, and what such a run leaves."""

from __future__ import annotations

import contextlib
import itertools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stacklib.errors import IntegrationError, RunError, SaveError
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import open_frames
from stacklib.normalization.preparation import refuse_single
from stacklib.notebook.process import NotebookProcess
from stacklib.notebook.session import NOTE, RESULT_MIME
from stacklib.output.naming import default_folder
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils import package

__all__ = ["Run", "claim", "finish", "make_folder", "notebooks_folder", "process_for", "run_job"]

#: The notebook that integrates.
NOTEBOOK = "4_integrate.ipynb"


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
    numbers : dict
        The result in numbers, see `report.numbers`.
    notes : list of str
        What the user was warned of.
    """

    files: list[Path]
    notebook: Path
    summary: str
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    make_folder(output)
    # It has a name of its own while it runs: two runs into one folder do not meet.
    executed = claim(output, "running_notebook")
    try:
        return finish(process_for(job, output, executed))
    except KeyboardInterrupt:
        executed.unlink(missing_ok=True)
        if not was_there:
            with contextlib.suppress(OSError):
                output.rmdir()
        raise


def process_for(
    job: Job, output: Path, executed: Path, heard: Callable[[str], None] | None = None, mark: str = ""
) -> NotebookProcess:
    """The process that runs the notebook for a job; see `NotebookProcess`."""
    one = isinstance(job.frames, str)
    values = _changed(job) | {
        "frames": str(resolve_path(job.frames)) if one else [str(resolve_path(f)) for f in job.frames],
        "output": str(output),
        "interactive": False,
    }
    return NotebookProcess(notebooks_folder() / NOTEBOOK, executed, values, heard, mark)


def finish(process: NotebookProcess) -> Run:
    """Run the notebook, and give it the name of its result.

    Raises
    ------
    RunError
        When a cell fails. The notebook is kept as ``failed_notebook.ipynb``.
    StacklibError
        When the notebook cannot be run at all.
    """
    executed = process.executed
    try:
        error = process.run()
        left = _left_in(executed) if error is None else {}
    except KeyboardInterrupt:
        raise
    except BaseException:
        # What was run until the accident is worth keeping, half a file is not.
        _keep(executed, "stopped_notebook")
        raise
    if error is not None:
        raise RunError(error, _keep(executed, "failed_notebook"))
    files = [Path(file) for file in left["files"]]
    notebook = _keep(executed, f"{files[0].stem}_notebook") or executed
    return Run(files, notebook, left["summary"], left["numbers"], left["notes"])


def notebooks_folder() -> Path:
    """Where the notebooks are: in the installed package, or beside it in a checkout."""
    installed = package.FOLDER / "notebooks"
    return installed if installed.is_dir() else package.FOLDER.parent / "notebooks"


def make_folder(folder: Path) -> None:
    """Make the folder for results, with those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(
            f"{folder}: cannot be made ({error.strerror}); choose another folder for the results"
        ) from error


def _changed(job: Job) -> dict[str, Any]:
    """What differs from the defaults: the rest is in the parameters cell already."""
    known = Job.parameters() | Recipe.parameters()
    return {name: value for name, value in job.to_dict().items() if value != known[name].default}


def _left_in(executed: Path) -> dict[str, Any]:
    """What the last cells left in the notebook for programs, and what it warned of."""
    left, notes = None, {}
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            left = output.get("data", {}).get(RESULT_MIME, left)
            if output.get("name") == "stderr":
                lines = "".join(output["text"]).splitlines()
                notes |= {line.removeprefix(NOTE): None for line in lines if line.startswith(NOTE)}
    if left is None:
        raise IntegrationError(f"{executed}: the notebook ended without a result")
    return left | {"notes": list(notes)}


def _keep(executed: Path, stem: str) -> Path | None:
    """Give the executed notebook the first free name; one that is not whole is removed."""
    try:
        json.loads(executed.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        executed.unlink(missing_ok=True)
        return None
    return executed.replace(claim(executed.parent, stem))


def claim(folder: Path, stem: str) -> Path:
    """Make an empty notebook file under the first free name, so that no one else takes it."""
    for number in itertools.count(1):
        path = folder / (f"{stem}_{number}.ipynb" if number > 1 else f"{stem}.ipynb")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise SaveError(
                f"{folder}: cannot be written to ({error.strerror}); choose another folder for the results"
            ) from error
        return path
    raise AssertionError("there is always a free name")
