"""Run one target of a batch through the notebook, and record what came of it."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stacklib.batch.changes import changes
from stacklib.batch.page import save_thumbnail
from stacklib.batch.state import Record, inputs_of, only_run_of, read_record, with_checksums, write_record
from stacklib.batch.targets import Target
from stacklib.errors import (
    FrameError,
    IntegrationError,
    RecipeError,
    RunError,
    SaveError,
    StacklibError,
    StacklibWarning,
)
from stacklib.explore.advisor import advise
from stacklib.notebook.page import save_page
from stacklib.notebook.process import NotebookProcess
from stacklib.notebook.running import Run, finish, process_for
from stacklib.recipe.recipe import Job
from stacklib.utils.file_sets import existing_folder

__all__ = ["TargetRun", "page_of", "picture_of"]


class TargetRun:
    """One run of a target.

    If `advised`, limits are proposed for the frames first, see `stacklib.explore.advisor`. `seen` is the last
    run of the target when this one was planned.
    """

    def __init__(self, target: Target, job: Job, advised: bool = False, seen: Record | None = None) -> None:
        self.target, self.job, self.advised, self.seen = target, job, advised, seen
        self._process: NotebookProcess | None = None
        self._stopped = False

    def __reduce__(self) -> tuple[type, tuple[Target, Job, bool, Record | None]]:
        # Another process starts it anew.
        return TargetRun, (self.target, self.job, self.advised, self.seen)

    def stop(self) -> None:
        """End the run from another thread. It leaves only a record that says ``running``."""
        self._stopped = True
        if self._process is not None:
            self._process.stop()

    def __call__(self) -> Record:
        """Run the target and return its record. An error is in the record; none is raised."""
        try:
            with existing_folder(self.target.output), only_run_of(self.target) as room:
                return self._run(room)
        except Exception as error:
            # Nothing can be written here, or another batch is at work.
            record = inputs_of(self.target, self.job, self.advised)
            return replace(record, status="failed", error=_in_words(error))

    def _run(self, room: Path) -> Record:
        start, before = time.monotonic(), read_record(self.target)
        record = inputs_of(self.target, self.job, self.advised)
        # If nothing has run in the meantime, frames need not be compared again.
        if before != self.seen and not self.target.problem and not changes(self.target, record, before):
            return before  # Another batch was faster.
        try:
            _clear_away(self.target, before)
            if self.target.problem:
                raise FrameError(self.target.problem)
            write_record(self.target, record)
            advice, notes = self._take_advice() if self.advised else ("", [])
            run = self._through_notebook(room)
            record = _of_run(record, run)
            record.advice, record.notes = advice, [*notes, *record.notes]
            # From here on the result is kept, whatever happens to page and thumbnail.
            write_record(self.target, record)
        except Exception as error:
            if self._stopped:
                # It was interrupted and has no error of its own.
                return replace(record, status="failed")
            reason = error.reason if isinstance(error, RunError) else _in_words(error)
            notebook = getattr(error, "notebook", None)
            name = notebook.name if notebook else ""
            # The images may be there though the notebook could not be saved.
            saved = [path.name for path in getattr(error, "files", [])]
            record = replace(record, status="failed", error=reason, notebook=name, files=saved)
            with contextlib.suppress(SaveError):
                write_record(self.target, record)
        if record.notebook and not record.page:
            record.page = page_of(self.target.output / record.notebook, room, record.notes)
        if record.files:
            record.thumbnail = picture_of(self.target.output / record.files[0], room, record.notes)
        record.seconds = round(time.monotonic() - start, 2)
        with contextlib.suppress(SaveError):
            write_record(self.target, record)
        return record

    def _take_advice(self) -> tuple[str, list[str]]:
        """Take the limits proposed for these frames, or keep the rule of thumb.

        Return why these limits are proposed (empty if none are), and notes why none are.
        """
        frames = [str(path) for path in self.target.frames]
        try:
            with warnings.catch_warnings():
                # The run gives the same warnings.
                warnings.simplefilter("ignore", StacklibWarning)
                advice = advise(frames, self.job.recipe, memory=self.job.memory, progress=False)
        except (IntegrationError, RecipeError) as error:
            return "", [f"No limits were suggested: {error}"]
        self.job = replace(self.job, recipe=advice.recipe)
        return advice.reason, []

    def _through_notebook(self, room: Path) -> Run:
        self._process = process_for(self.job, self.target.output, room, silent=True)
        if self._stopped:
            self._process.stop()
        return finish(self._process, self.target.output)


def _in_words(error: Exception) -> str:
    """Return the message of an error, of one that is not our own with its type."""
    return str(error) if isinstance(error, StacklibError) else f"{type(error).__name__}: {error}"


def _of_run(record: Record, run: Run) -> Record:
    """Return the record of a run that went well."""
    with_checksums(record, next(path for path in run.files if path.name.endswith("_frames.ecsv")))
    return replace(
        record,
        status="done",
        files=[path.name for path in run.files],
        notebook=run.notebook.name,
        page=run.page.name if run.page else "",
        preview=run.preview.name if run.preview else "",
        numbers=run.numbers,
        notes=run.notes,
    )


def page_of(notebook: Path, room: Path, notes: list[str]) -> str:
    """Make the page of a notebook, see `save_page`; return its name, or an empty string with a note."""
    return _if_possible("page of the notebook", notes, lambda: save_page(notebook, room))


def picture_of(master: Path, room: Path, notes: list[str]) -> str:
    """Make the thumbnail of a master, return its name, or an empty string with a note."""
    return _if_possible("picture for the summary", notes, lambda: save_thumbnail(master, room))


def _if_possible(what: str, notes: list[str], make: Callable[[], str]) -> str:
    """Return the name of a file that is made. It is no reason for a run to fail if it cannot be made."""
    try:
        return make()
    except Exception as error:
        note = f"the {what} could not be made ({error})"
        notes += [note] * (note not in notes)
        return ""


def _clear_away(target: Target, before: Record | None) -> None:
    """Remove notebook and page of the last run if it failed."""
    if before is not None and before.status != "done":
        for name, ending in ((before.notebook, ".ipynb"), (before.page, ".html")):
            if name.endswith(ending):
                (target.output / name).unlink(missing_ok=True)
