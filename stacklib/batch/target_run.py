"""Run one target of a batch: through the notebook, with a record, and without leftovers of an earlier try."""

from __future__ import annotations

import contextlib
import time
import uuid
import warnings
from dataclasses import replace
from pathlib import Path

from astropy.table import Table

from stacklib.batch.changes import changes
from stacklib.batch.page import save_thumbnail
from stacklib.batch.progress import Listener
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
from stacklib.notebook.running import Run, claim, finish, make_folder, process_for
from stacklib.recipe.recipe import Job
from stacklib.utils.atomic_files import clear_marked

__all__ = ["TargetRun"]

#: How the name of the table of frames ends.
TABLE_END = "_frames.ecsv"


class TargetRun:
    """One run of a target.

    Parameters
    ----------
    target : Target
        What is integrated.
    job : Job
        How.
    advised : bool
        Whether limits are to be proposed for these frames first, see `stacklib.explore.advisor`.
    seen : Record, optional
        The target's last run when it was decided to run it.

    Attributes
    ----------
    listener : Listener
        Knows how far the run is.
    """

    def __init__(self, target: Target, job: Job, advised: bool = False, seen: Record | None = None) -> None:
        self.target, self.job, self.advised, self.seen = target, job, advised, seen
        self.listener = Listener()
        self._process: NotebookProcess | None = None
        self._stopped = False

    def __reduce__(self) -> tuple[type, tuple[Target, Job, bool, Record | None]]:
        # Another process starts it anew.
        return TargetRun, (self.target, self.job, self.advised, self.seen)

    def stop(self) -> None:
        """End the run, from another thread: it leaves no trace but a record that says so."""
        self._stopped = True
        if self._process is not None:
            self._process.stop()

    def __call__(self) -> Record:
        """The same as `run`: what an executor calls."""
        return self.run()

    def run(self) -> Record:
        """Run the target; its record, which also tells of an error. Nothing is raised for one target."""
        try:
            make_folder(self.target.output)
            with only_run_of(self.target):
                return self._run()
        except SaveError as error:
            # Nothing is written where nothing can be, or where someone else is at work.
            record = inputs_of(self.target, self.job, self.advised)
            return replace(record, status="failed", error=str(error))

    def _run(self) -> Record:
        start, before = time.monotonic(), read_record(self.target)
        record = inputs_of(self.target, self.job, self.advised)
        # Where nothing has been run since, frames need not be compared again.
        if before != self.seen and not self.target.problem and not changes(self.target, record, before):
            # Another batch was faster.
            return before
        mark = uuid.uuid4().hex[:12]
        executed = kept = None
        try:
            _clear_away(self.target, before)
            if self.target.problem:
                raise FrameError(self.target.problem)
            # The record knows of the notebook before it is there: nothing is lost sight of.
            stem = f"running_notebook_{mark}"
            write_record(self.target, replace(record, notebook=f"{stem}.ipynb", mark=mark))
            executed = claim(self.target.output, stem)
            advice, notes = self._take_advice() if self.advised else ("", [])
            run = self._through_notebook(executed, mark)
            record = _of_run(record, run)
            record.advice, record.notes = advice, [*notes, *record.notes]
            # Whatever happens now, the result is there.
            write_record(self.target, replace(record, mark=mark))
            record.page, record.thumbnail = save_page(run.notebook, mark), save_thumbnail(run.files[0], mark)
        except StacklibError as error:
            record.status = "failed"
            record.error = error.reason if isinstance(error, RunError) else str(error)
            kept = error.notebook if isinstance(error, RunError) else None
            record.notebook = kept.name if kept else ""
            record.page = save_page(kept, mark) if kept and not self._stopped else ""
        if self._stopped and record.status == "failed":
            # It was interrupted, and has no error of its own.
            for path in (executed, kept):
                if path:
                    path.unlink(missing_ok=True)
            return record
        record.seconds = round(time.monotonic() - start, 2)
        with contextlib.suppress(SaveError):
            # Without a record it is run again.
            write_record(self.target, record)
        return record

    def _take_advice(self) -> tuple[str, list[str]]:
        """Take the limits that are proposed for these frames, or keep the rule of thumb; and say why.

        The reason of a proposal stands apart from the notes, which are what should be looked at.
        """
        frames = [str(path) for path in self.target.frames]
        try:
            with warnings.catch_warnings():
                # The run itself will say the same.
                warnings.simplefilter("ignore", StacklibWarning)
                advice = advise(frames, self.job.recipe, memory=self.job.memory, progress=False)
        except (IntegrationError, RecipeError) as error:
            return "", [f"No limits were proposed: {error}"]
        self.job = replace(self.job, recipe=advice.recipe)
        return advice.reason, []

    def _through_notebook(self, executed: Path, mark: str) -> Run:
        self._process = process_for(self.job, self.target.output, executed, self.listener, mark)
        if self._stopped:
            self._process.stop()
        return finish(self._process)


def _of_run(record: Record, run: Run) -> Record:
    """The record of a run that went well."""
    with_checksums(record, _table_of(run))
    return replace(
        record,
        status="done",
        files=[path.name for path in run.files],
        notebook=run.notebook.name,
        numbers=run.numbers,
        notes=run.notes,
    )


def _clear_away(target: Target, before: Record | None) -> None:
    """Remove what the last run of this batch left that did not end well; nothing else is touched."""
    if before is None or before.status == "done":
        return
    for name in filter(None, (before.notebook, before.page)):
        (target.output / name).unlink(missing_ok=True)
    if not before.mark:
        return
    clear_marked(target.output, before.mark)
    for table in target.output.glob(f"*{TABLE_END}"):
        stem = table.name.removesuffix(TABLE_END)
        # A result whose notebook is there, too, is whole, and stays.
        if not (target.output / f"{stem}_notebook.ipynb").exists():
            for end in _made_by(before.mark, table):
                (target.output / f"{stem}{end}").unlink(missing_ok=True)


def _made_by(mark: str, table: Path) -> list[str]:
    """How the files of a result end, if the run of this mark has made it."""
    try:
        run = Table.read(table, format="ascii.ecsv").meta["run"]
        return [*run["images"], "_report.txt", TABLE_END] if run["mark"] == mark else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _table_of(run: Run) -> Path:
    return next(path for path in run.files if path.name.endswith(TABLE_END))
