"""Integrate or drizzle one target through its notebook, and collect what the run leaves."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklib.errors import FrameError, RunError, SaveError, StacklibError
from stacklib.frames.finding import expanded, resolve_path
from stacklib.frames.frame_set import open_frames, refuse_single
from stacklib.notebook.executed import Executed
from stacklib.notebook.parameters import parameters_cell
from stacklib.notebook.preview import PREVIEW
from stacklib.notebook.process import NotebookProcess
from stacklib.output.naming import default_folder
from stacklib.recipe.choices import NO_FILE
from stacklib.recipe.drizzle_job import DrizzleJob
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils import package
from stacklib.utils.atomic_files import explained
from stacklib.utils.file_sets import existing_folder, name_all, whole_sets_from, workroom
from stacklib.utils.parameters import Checked, Parameter
from stacklib.utils.texts import utf8_path

if TYPE_CHECKING:
    from stacklib.notebook.drizzling import Places

__all__ = ["Run", "drizzle_process", "finish", "notebooks_folder", "process_for", "run_drizzle", "run_job"]

#: The notebooks that integrate and drizzle.
NOTEBOOK, DRIZZLE_NOTEBOOK = "4_integrate.ipynb", "6_drizzle.ipynb"
#: Tag of the cells of a lesson in a notebook that does something else first.
LESSON = "lesson"
#: Names of the notebooks of runs without a result.
FAILED, STOPPED = "failed_notebook", "stopped_notebook"


@dataclass(frozen=True)
class Run:
    """The outcome of a run."""

    files: list[Path]  # the master first
    notebook: Path  # the executed notebook
    page: Path | None  # the same as an HTML page
    preview: Path | None  # picture of the master beside one frame
    summary: str  # the result in a few lines
    numbers: dict[str, Any] = field(default_factory=dict)  # see `report.numbers`
    notes: list[str] = field(default_factory=list)  # warnings of the run


def run_job(job: Job) -> Run:
    """Integrate through the notebook, without a person. Progress goes to the terminal.

    `StacklibError` is raised if the frames cannot be used or the run fails; the notebook is kept, with the
    error in it. A run that is stopped (`KeyboardInterrupt`) leaves the images if it has saved them already,
    which is printed, and nothing else.
    """
    with warnings.catch_warnings():
        # The notebook gives the same warnings.
        warnings.simplefilter("ignore")
        frames = open_frames(job.frames)
    # The integration would refuse it too, but only once a kernel runs.
    refuse_single(frames)
    output = expanded(job.output).absolute() if job.output else default_folder(frames)
    with existing_folder(output), workroom(output) as room:
        return _run(process_for(job, output, room), output, f"notebook 4 with {len(frames)} frames")


def run_drizzle(job: DrizzleJob) -> Run:
    """Drizzle through the notebook, without a person, as `run_job` integrates."""
    # Here and below: what drizzles takes as long to import as some runs of `run_job` take to start.
    from stacklib.drizzle.deposit import require_drizzle
    from stacklib.drizzle.frames import open_unregistered, refuse_few
    from stacklib.notebook.drizzling import find_places

    places = find_places(job.frames, job.registered)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames, _ = open_unregistered(places.frames, job.pattern)
    # The run would refuse all this too, but only once a kernel runs.
    refuse_few(frames)
    require_drizzle()
    print(places.words, flush=True)
    output = expanded(job.output).absolute() if job.output else default_folder(frames)
    with existing_folder(output), workroom(output) as room:
        process = drizzle_process(job, places, output, room)
        return _run(process, output, f"notebook 6 with {len(frames)} frames")


def _run(process: NotebookProcess, output: Path, what: str) -> Run:
    """Run a notebook to its end. If it fails or is stopped, say where images are that it has saved."""
    room = process.executed.parent
    print(f"Starting {what}, which takes 10 to 30 seconds ...", flush=True)
    try:
        return finish(process, output)
    except RunError as error:
        if files := _saved_from(room):
            raise RunError(f"{error.reason}\n{_where(files)}", error.notebook) from error
        raise
    except KeyboardInterrupt:
        if files := _saved_from(room):
            print(_where(files), file=sys.stderr)
        raise


def process_for(job: Job, output: Path, room: Path, silent: bool = False) -> NotebookProcess:
    """Return the process that runs the notebook for a job in the work folder `room`."""
    values = _changed(job.to_dict(), Job.parameters() | Recipe.parameters()) | {
        "frames": _absolute(job.frames),
        "output": _utf8(str(output)),
        # The choices saved for these frames are in the job already.
        "recipe_file": NO_FILE,
        "interactive": False,
    }
    return NotebookProcess(_pristine_notebook(room, NOTEBOOK, Job), room / NOTEBOOK, values, silent)


def drizzle_process(job: DrizzleJob, places: Places, output: Path, room: Path) -> NotebookProcess:
    """Return the process that drizzles the frames at `places` in the work folder `room`."""
    from stacklib.drizzle.frames import STARS
    from stacklib.notebook.drizzling import NOTHING

    values = _changed(job.to_dict(), DrizzleJob.parameters()) | {
        "frames": _absolute(places.frames),
        "registered": _absolute(places.registered) if places.registered else NOTHING,
        "output": _utf8(str(output)),
    }
    for name, words in (("geometry", (STARS,)), ("recipe_file", (NO_FILE,))):
        if name in values and values[name] not in words:
            values[name] = _absolute(values[name])
    pristine = _pristine_notebook(room, DRIZZLE_NOTEBOOK, DrizzleJob)
    return NotebookProcess(pristine, room / DRIZZLE_NOTEBOOK, values)


def _absolute(where: str | list[str]) -> Any:
    """Return a path or paths as the notebook finds them, whatever folder it runs in."""
    if isinstance(where, str):
        return _utf8(str(resolve_path(where)))
    return [_utf8(str(resolve_path(path))) for path in where]


def _utf8(path: str) -> str:
    """Return a path for the process that runs the notebook; `FrameError` if it cannot be in a notebook."""
    try:
        return utf8_path(path)
    except ValueError:
        raise FrameError(
            f"{path}: the name is not UTF-8, so no notebook can hold it; rename it, or call "
            "integrate(frames).save() in Python, which needs no notebook"
        ) from None


def _pristine_notebook(room: Path, name: str, kind: type[Checked]) -> Path:
    """Return a copy of a notebook with its defaults: the parameters cell of the original may be edited.

    Lessons on simulated frames are left out: they are no part of a run.
    """
    original, pristine = notebooks_folder() / name, room / f"pristine_{name}"
    content = json.loads(original.read_text(encoding="utf-8"))
    content["cells"] = [cell for cell in content["cells"] if LESSON not in cell["metadata"].get("tags", [])]
    for cell in content["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = parameters_cell(kind)
    with explained(room.parent):
        pristine.write_text(json.dumps(content), encoding="utf-8")
    return pristine


def finish(process: NotebookProcess, output: Path) -> Run:
    """Run the notebook, and name it after its result, with its page and the preview.

    If a cell fails, `RunError` is raised, and the notebook is kept as ``failed_notebook.ipynb``. If it cannot
    be run to its end, `StacklibError` is raised. If it was begun, it is then kept as
    ``stopped_notebook.ipynb``, and the error has its path as `notebook`. If only the notebook cannot be
    saved, the `SaveError` names the images, and has all saved files as `files`. A success removes failed
    and stopped notebooks of the same frames.
    """
    executed = process.executed
    try:
        error = process.run()
    except StacklibError as error:
        if files := _saved_from(executed.parent):
            raise _without_notebook(error, files) from error
        error.notebook = _keep(executed, output, STOPPED)
        raise
    left = Executed.read(executed) if error is None else Executed()
    if not left.result:
        reason = error or "the notebook ended without a result"
        raise RunError(reason, _keep(executed, output, FAILED))
    files = left.files
    try:
        names = _keep_all(executed, output, files[0].stem, left.notes)
    except SaveError as error:
        raise _without_notebook(error, files) from error
    _forget_failures(output, process.values["frames"])
    return Run(files, *names, left.result["summary"], left.result["numbers"], left.notes)


def _saved_from(room: Path) -> list[Path]:
    """Return the files of the result, the master first, that a run has saved from its work folder."""
    files = whole_sets_from(room)
    images = [path for path in files if path.suffix in (".xisf", ".fits")]
    return sorted(files, key=lambda path: (path not in images, len(path.name))) if images else []


def _without_notebook(error: StacklibError, files: list[Path]) -> SaveError:
    """Return an error of a run whose images are there, though not its notebook."""
    found = SaveError(f"{error}\n{_where(files)}")
    found.files = files  # type: ignore[attr-defined]
    return found


def _where(files: list[Path]) -> str:
    images = ", ".join(path.name for path in files if path.suffix in (".xisf", ".fits"))
    return f"The images are saved in {files[0].parent}: {images}"


def _keep_all(
    executed: Path, folder: Path, stem: str, notes: list[str]
) -> tuple[Path, Path | None, Path | None]:
    """Give notebook, page and preview of a run the first free name, all or none; return their paths.

    A page or a preview that could not be made is None, with a note.
    """
    # Here, because templates are not needed before the end of a run.
    from stacklib.notebook.page import notebook_page

    made, page, preview = (
        {"_notebook.ipynb": executed},
        executed.with_suffix(".html"),
        executed.with_name(PREVIEW),
    )
    if preview.is_file():
        made["_preview.png"] = preview
    try:
        text = notebook_page(executed, f"{stem}_notebook", made.get("_preview.png"))
        page.write_text(text, encoding="utf-8")
        made["_notebook.html"] = page
    except Exception as error:
        # A page is no reason to lose the notebook, and a converter may fail in many ways.
        notes.append(f"the notebook could not be made into a page ({error}); open it in JupyterLab")
    for number in itertools.count(1):
        start = f"{stem}_{number}" if number > 1 else stem
        pairs = [(path, folder / f"{start}{end}") for end, path in made.items()]
        with explained(folder):
            if name_all(pairs):
                named = dict(zip(made, (path for _, path in pairs), strict=True))
                return named["_notebook.ipynb"], named.get("_notebook.html"), named.get("_preview.png")
    raise AssertionError("there is always a free name")


def _forget_failures(folder: Path, frames: str | list[str]) -> None:
    """Remove what earlier runs of the same frames left that failed or were stopped."""
    for kind in (FAILED, STOPPED):
        for path in folder.glob(f"{kind}*.ipynb"):
            # Several targets may share the folder.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                content = json.loads(path.read_text(encoding="utf-8"))
                if content["metadata"]["papermill"]["parameters"]["frames"] == frames:
                    path.unlink()
                    path.with_suffix(".html").unlink(missing_ok=True)


def notebooks_folder() -> Path:
    """Return the folder of the notebooks: in the installed package, or beside it in a checkout."""
    installed = package.FOLDER / "notebooks"
    return installed if installed.is_dir() else package.FOLDER.parent / "notebooks"


def _changed(values: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return what differs from the defaults: the rest is in the parameters cell already."""
    return {
        name: _utf8(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value != known[name].default
    }


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
