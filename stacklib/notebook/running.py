"""Integrate one target through the notebook, and collect what the run leaves."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stacklib.errors import RunError, StacklibError
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import open_frames
from stacklib.normalization.preparation import refuse_single
from stacklib.notebook.process import NotebookProcess
from stacklib.notebook.session import NOTE, RESULT_MIME, parameters_cell
from stacklib.output.naming import default_folder
from stacklib.recipe.choices import NO_FILE
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils import package
from stacklib.utils.atomic_files import explained
from stacklib.utils.file_sets import existing_folder, name_all, workroom

__all__ = ["Run", "finish", "notebooks_folder", "process_for", "run_job"]

#: The notebook that integrates.
NOTEBOOK = "4_integrate.ipynb"


@dataclass(frozen=True)
class Run:
    """The outcome of a run."""

    files: list[Path]  # the master first
    notebook: Path  # the executed notebook
    summary: str  # the result in a few lines
    numbers: dict[str, Any] = field(default_factory=dict)  # see `report.numbers`
    notes: list[str] = field(default_factory=list)  # warnings of the run


def run_job(job: Job) -> Run:
    """Integrate through the notebook, without a person. Progress goes to the terminal.

    `StacklibError` is raised if the frames cannot be used or the run fails; the notebook is kept, with the
    error in it. A run that is stopped (`KeyboardInterrupt`) leaves nothing behind.
    """
    with warnings.catch_warnings():
        # The notebook gives the same warnings.
        warnings.simplefilter("ignore")
        frames = open_frames(job.frames)
    # The integration would refuse it too, but only once a kernel runs.
    refuse_single(frames)
    output = Path(job.output).expanduser().absolute() if job.output else default_folder(frames)
    with existing_folder(output), workroom(output) as room:
        return finish(process_for(job, output, room), output)


def process_for(job: Job, output: Path, room: Path, silent: bool = False) -> NotebookProcess:
    """Return the process that runs the notebook for a job in the work folder `room`."""
    one = isinstance(job.frames, str)
    values = _changed(job) | {
        "frames": str(resolve_path(job.frames)) if one else [str(resolve_path(f)) for f in job.frames],
        "output": str(output),
        # The choices saved for these frames are in the job already.
        "recipe_file": NO_FILE,
        "interactive": False,
    }
    return NotebookProcess(_pristine_notebook(room), room / NOTEBOOK, values, silent)


def _pristine_notebook(room: Path) -> Path:
    """Return a copy of the notebook with its defaults: the parameters cell of the original may be edited."""
    original, pristine = notebooks_folder() / NOTEBOOK, room / f"pristine_{NOTEBOOK}"
    content = json.loads(original.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = parameters_cell(Job)
    pristine.write_text(json.dumps(content), encoding="utf-8")
    return pristine


def finish(process: NotebookProcess, output: Path) -> Run:
    """Run the notebook, and name it after its result.

    If a cell fails, `RunError` is raised, and the notebook is kept as ``failed_notebook.ipynb``. If it cannot
    be run to its end, `StacklibError` is raised. If it was begun, it is then kept as
    ``stopped_notebook.ipynb``, and the error has its path as `notebook`.
    """
    try:
        error = process.run()
    except StacklibError as error:
        error.notebook = _keep(process.executed, output, "stopped_notebook")
        raise
    left = _left_in(process.executed) if error is None else None
    if left is None:
        reason = error or "the notebook ended without a result"
        raise RunError(reason, _keep(process.executed, output, "failed_notebook"))
    files = [Path(file) for file in left["files"]]
    notebook = _keep(process.executed, output, f"{files[0].stem}_notebook") or process.executed
    return Run(files, notebook, left["summary"], left["numbers"], left["notes"])


def notebooks_folder() -> Path:
    """Return the folder of the notebooks: in the installed package, or beside it in a checkout."""
    installed = package.FOLDER / "notebooks"
    return installed if installed.is_dir() else package.FOLDER.parent / "notebooks"


def _changed(job: Job) -> dict[str, Any]:
    """Return what differs from the defaults: the rest is in the parameters cell already."""
    known = Job.parameters() | Recipe.parameters()
    return {name: value for name, value in job.to_dict().items() if value != known[name].default}


def _left_in(executed: Path) -> dict[str, Any] | None:
    """Return what the last cells left in the notebook for programs, and its warnings."""
    left, notes = None, {}
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            left = output.get("data", {}).get(RESULT_MIME, left)
            if output.get("name") == "stderr":
                lines = "".join(output["text"]).splitlines()
                notes |= {line.removeprefix(NOTE): None for line in lines if line.startswith(NOTE)}
    return left and left | {"notes": list(notes)}


def _keep(executed: Path, folder: Path, stem: str) -> Path | None:
    """Give the executed notebook the first free name; None if it is not whole."""
    try:
        json.loads(executed.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for number in itertools.count(1):
        path = folder / (f"{stem}_{number}.ipynb" if number > 1 else f"{stem}.ipynb")
        with explained(folder):
            if name_all([(executed, path)]):
                return path
    raise AssertionError("there is always a free name")
