"""Integrate many targets through the notebook, within a memory budget: only what is missing or changed.

The record beside the results of a target holds the inputs of its last run, see `stacklib.batch.state`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.table import Table

from stacklib.batch.changes import Checksums, rows_of
from stacklib.batch.page import page
from stacklib.batch.progress import BatchBars
from stacklib.batch.state import (
    Record,
    inputs_of,
    left_behind,
    only_run_of,
    percent_of,
    read_record,
    write_record,
)
from stacklib.batch.summary import Row, summary_table
from stacklib.batch.target_cluster import TargetCluster
from stacklib.batch.target_run import TargetRun, page_of, picture_of
from stacklib.batch.targets import Target, look_for_targets
from stacklib.batch.work_folder import LOCK_NAME, locked
from stacklib.errors import RunError, SaveError, StacklibError
from stacklib.explore.advisor import memory_for
from stacklib.frames.finding import resolve_path
from stacklib.integration.cluster import connect
from stacklib.integration.samples import LEAST_BAND_BYTES, RESULT_BYTES
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.choices import file_values
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.labels import listed
from stacklib.utils.resources import checked_threads, parse_memory
from stacklib.utils.texts import ecsv

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["Batch", "recipe_for", "run_batch"]

#: The summary, in the folder of the batch.
TABLE_NAME, PAGE_NAME = "batch.ecsv", "batch.html"
#: Memory of a run besides its samples and its result, in bytes: two processes, libraries, figures.
OVERHEAD = 500 * 10**6
#: Least share of the budget for each run, in bytes, if the number of runs is not given.
SHARE = 10**9
#: In place of a recipe file: limits are proposed for each target.
ADVISE = "advise"
#: Seconds between two looks at the runs.
LOOK = 0.2


@dataclass(frozen=True)
class Need:
    """Memory of a run in bytes: for samples and result, and as a whole."""

    integration: int
    whole: int


class Batch:
    """The targets below a folder, the work to do for them, and its results.

    Parameters
    ----------
    job : BatchJob
        The folder, and the settings that all runs share.
    recipe : Recipe, optional
        Used instead of the recipe file of the job.
    progress : bool
        Show a bar if frames must be read to see whether they have changed.

    Attributes
    ----------
    root : Path
        The folder of the batch.
    rows : list of Row
        The targets, each with its status; see `table`.

    Raises
    ------
    FrameError
        When no target is found.
    RecipeError
        When a parameter or the recipe file is not valid.
    """

    def __init__(self, job: BatchJob, recipe: Recipe | None = None, progress: bool = True) -> None:
        self.job = job
        self.budget = parse_memory(job.memory)
        self._cluster: TargetCluster | None = None
        self.root = resolve_path(job.folder)
        #: Propose limits for each target without settings of its own.
        self.advises = job.recipe == ADVISE
        if recipe is None:
            named = job.recipe and not self.advises
            recipe = Recipe.load(resolve_path(job.recipe)) if named else Recipe()
        self.recipe = recipe
        self.rows: list[Row] = []
        self._checksums = Checksums()
        self._passed_over: list[str] = []
        #: Files of the summary that could not be written the last time, and why.
        self._unwritten: dict[Path, str] = {}
        self.look(progress)

    def look(self, progress: bool = True) -> None:
        """Find the targets and the work to do for each."""
        targets, self._passed_over = look_for_targets(self.root)
        found = [self._with_inputs(target) for target in targets]
        self.rows = rows_of(found, self._checksums, progress)

    def _with_inputs(self, target: Target) -> tuple[Target, Record]:
        """Return a target and the inputs of its run; one that can have none has a problem."""
        try:
            return target, inputs_of(target, self.job_for(target), self.advised(target))
        except StacklibError as error:
            return replace(target, problem=target.problem or str(error)), Record("running")

    @property
    def table(self) -> Table:
        """One row for each target, see `stacklib.batch.summary_table`."""
        return summary_table(self.rows, self.root)

    @property
    def plan(self) -> Table:
        """One row for each target: the frames found, the recipe, what to do and why."""
        full = self.table
        table = full["target", "object", "filter", "exposure", "frames"]
        files = [row.target.job_file for row in self.rows]
        shared = "default settings" if self.recipe == Recipe() else "settings as given"
        shared = Path(self.job.recipe).name if self.job.recipe else shared
        shared = "advised" if self.advises else shared
        table["recipe"] = [f"its own {file.name}" if file else shared for file in files]
        table["to do"] = [
            "nothing, " + r.reason if r.status == "done" else "run, " + r.reason for r in self.rows
        ]
        return table

    @property
    def notes(self) -> list[str]:
        """What to know before the run: about folders and settings, and about the frames of each target."""
        of_targets = [f"{row.target.name}: {note}" for row in self.rows for note in row.target.notes]
        return [*self._of_all, *of_targets]

    @property
    def _of_all(self) -> list[str]:
        """Return the notes on the whole batch."""
        return [*self._passed_over, *self._unused_settings()]

    def _unused_settings(self) -> list[str]:
        """Name the settings of the batch that do not count, and where."""
        notes = []
        if self.job.recipe and not self.advises:
            file = resolve_path(self.job.recipe)
            others = [name for name in file_values(file) if name not in Recipe.parameters()]
            if others:
                notes.append(f"{file.name}: a batch does not use {listed(others)} of a shared recipe")
        own = [row.target.name for row in self.rows if row.target.job is not None]
        if own and (self.advises or self.recipe != Recipe()):
            notes.append(
                f"the settings of the batch are not used for {listed(own)}: the recipe.yaml there counts"
            )
        return notes

    @property
    def summary(self) -> str:
        """The outcome in one line, and a line for each target that failed."""
        numbers = {status: sum(row.status == status for row in self.rows) for status in ("done", "waiting")}
        line = f"{numbers['done']} of {len(self.rows)} targets have their master, {len(self.failed)} failed"
        if numbers["waiting"]:
            line += f", {numbers['waiting']} are waiting"
        return "\n".join(
            [line, *(f"{row.target.name}: {row.error}" for row in self.failed), *self._not_written]
        )

    @property
    def _not_written(self) -> list[str]:
        """Name the files of the summary that are not up to date."""
        return [
            f"{path} could not be written ({why}); if another program has it open, close it there, and run "
            "the batch again"
            for path, why in self._unwritten.items()
        ]

    @property
    def page(self) -> Path:
        """The HTML page, which exists once `run` has begun."""
        return self.root / PAGE_NAME

    @property
    def failed(self) -> list[Row]:
        """The targets that failed."""
        return [row for row in self.rows if row.status == "failed"]

    def raise_if_failed(self) -> None:
        """Raise an error if targets failed, for scripts that run the notebook.

        Raises
        ------
        RunError
            It names the targets and the page.
        """
        if self.failed:
            names = ", ".join(row.target.name for row in self.failed)
            said = f"{len(self.failed)} of {len(self.rows)} targets failed: {names}"
            raise RunError(f"{said}; see the page {self.page}", None)

    def job_for(self, target: Target) -> Job:
        """Return the job of a target, without its share of the memory."""
        own = target.job or Job()
        return Job(
            frames=str(target.folder) if target.whole else [str(path) for path in target.frames],
            output=str(target.output),
            interactive=False,
            save_maps=own.save_maps or self.job.save_maps,
            save_fits=own.save_fits or self.job.save_fits,
            save_masks=own.save_masks,
            drizzle_data=own.drizzle_data,
            compare=own.compare,
            recipe=recipe_for(target, self.recipe),
        )

    def advised(self, target: Target) -> bool:
        """Return whether limits are proposed for a target."""
        return self.advises and target.job is None

    @property
    def places(self) -> int:
        """Number of computers, or workers of a cluster, that have the whole budget each."""
        return 1 if self._cluster is None else self._cluster.size

    @property
    def jobs(self) -> int:
        """Largest number of runs at the same time."""
        left = sum(row.status in ("waiting", "running") for row in self.rows)
        here = min(checked_threads(None), self.budget // SHARE)
        wanted = self.job.jobs or (here if self._cluster is None else self.places)
        return max(1, min(wanted, left))

    def need(self, target: Target) -> Need:
        """Return the memory for a run: its share of the budget, or less if that is all it can use."""
        channels, height, width = target.shape
        pixels = channels * height * width
        least = RESULT_BYTES * pixels + LEAST_BAND_BYTES
        most = RESULT_BYTES * pixels + max(4 * len(target.frames) * pixels, LEAST_BAND_BYTES)
        if self.advised(target):
            most = max(most, memory_for(len(target.frames), channels, width, height))
        share = self.places * self.budget // max(self.jobs, self.places) - OVERHEAD
        integration = min(max(share, least), most)
        return Need(integration, integration + OVERHEAD)

    def run(self, progress: bool = True, client: Client | None = None) -> Batch:
        """Run what is missing or changed. A target that fails does not stop the others.

        Parameters
        ----------
        progress : bool
            Show progress bars, and a line for each finished target.
        client : dask.distributed.Client, optional
            Run the targets on the workers of this Dask cluster instead of that of the job, one target a
            worker. Each worker has the whole budget.

        Returns
        -------
        Batch
            This batch; `table` has the results.

        Raises
        ------
        IntegrationError
            When the cluster cannot be used.
        SaveError
            When another batch works on the folder, or nothing can be written there. If only the summary
            cannot be written, because another program has it open, `summary` says so.
        KeyboardInterrupt
            When the batch is stopped. Finished targets stay finished; running ones leave nothing.
        """
        with locked(self.root / LOCK_NAME, "another batch works on it"), self._sent_to(client):
            self.look(progress)
            self._keep()
            waiting = deque(row for row in self.rows if row.status == "waiting")
            self._write()
            bars = BatchBars(len(waiting), progress and bool(waiting), self.job.interactive)
            try:
                self._run_all(waiting, bars)
            finally:
                bars.close()
            if self._unwritten:
                self._write()
        return self

    def _keep(self) -> None:
        """Bring finished targets up to date.

        Lost thumbnails and pages are made again, what a run left that was killed after its last record is
        cleared away, and the new times of frames that have not changed are remembered.
        """
        for row in (row for row in self.rows if row.status == "done"):
            record, output = row.record, row.target.output
            shown = all(name and (output / name).is_file() for name in (record.thumbnail, record.page))
            if shown and record == read_record(row.target) and not left_behind(row.target):
                continue
            # If nothing can be written, or another batch runs the target, all stays as it was.
            with contextlib.suppress(SaveError, OSError), only_run_of(row.target) as room:
                if not shown:
                    record.thumbnail = picture_of(output / row.master, room, record.notes)
                    record.page = page_of(output / row.notebook, room, record.notes)
                then = read_record(row.target)
                if then is not None and then.files == record.files:
                    write_record(row.target, record)

    @contextlib.contextmanager
    def _sent_to(self, client: Client | None) -> Iterator[None]:
        """Send the targets to the workers of a cluster, if there is one."""
        with contextlib.nullcontext(client) if client else connect(self.job.cluster) as client:
            self._cluster = TargetCluster(client) if client else None
            try:
                yield
            finally:
                self._cluster = None

    def _run_all(self, waiting: deque[Row], bars: BatchBars) -> None:
        running: dict[Future, tuple[Row, TargetRun, int]] = {}
        with self._cluster or ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    used = sum(need for _, _, need in running.values())
                    for row in self._next(waiting, len(running), used):
                        need = self.need(row.target)
                        job = replace(self.job_for(row.target), memory=f"{-(-need.integration // 10**6)}MB")
                        run = TargetRun(row.target, job, self.advised(row.target), row.record)
                        running[pool.submit(run)] = row, run, need.whole
                        row.status = "running"
                        bars.start(row.target.name)
                        self._write()
                    done, _ = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
                    for future in done:
                        row, _, _ = running.pop(future)
                        row.record = future.result()
                        row.status = row.record.status
                        self._write()
                        bars.end(row.target.name, _in_a_line(row))
                    for row, _, _ in running.values():
                        bars.show(row.target.name, percent_of(row.target))
            except BaseException:
                for row, run, _ in running.values():
                    run.stop()
                    row.status = "waiting"
                self._write()
                raise

    def _next(self, waiting: deque[Row], running: int, used: int) -> Iterator[Row]:
        """Take the targets that may start now. One that is too large for the budget runs alone."""
        for row in list(waiting):
            need = self.need(row.target).whole
            if running < self.jobs and (not running or used + need <= self.places * self.budget):
                waiting.remove(row)
                running, used = running + 1, used + need
                yield row

    def _write(self) -> None:
        """Write table and page, each in one step. What another program has open is written the next time."""
        text = page(self.rows, self.root, self._of_all)
        self._unwritten = {}
        for path, content in ((self.root / TABLE_NAME, ecsv(self.table)), (self.page, text.encode("utf-8"))):
            try:
                replace_atomically(path, content, alone=True)
            except SaveError as error:
                self._unwritten[path] = getattr(error.__cause__, "strerror", None) or str(error)


def recipe_for(target: Target, shared: Recipe) -> Recipe:
    """Return the recipe of a target: the one in its own folder, or the shared one."""
    return target.job.recipe if target.job else shared


def run_batch(
    folder: str | Path,
    recipe: Recipe | str | Path | None = None,
    memory: str = "4GB",
    jobs: int = 0,
    save_maps: bool = False,
    save_fits: bool = False,
    progress: bool = True,
    client: Client | None = None,
) -> Batch:
    """Integrate every target below a folder that is missing or changed.

    Parameters
    ----------
    folder : str or Path
        Every folder ``4_Registered`` below it is a target; see `find_targets`.
    recipe : Recipe, str or Path, optional
        A recipe or a recipe file for the targets that have no ``recipe.yaml`` or ``job.yaml`` of their own.
        ``"advise"`` proposes limits for each of them, see `stacklib.advise`. Default is the rule of thumb.
    memory : str
        Budget for all runs together, or for each worker of a cluster.
    jobs : int
        Number of runs at the same time; 0 for as many as processors and memory allow.
    save_maps, save_fits : bool
        See `Integration.save`.
    progress : bool
        Show progress.
    client : dask.distributed.Client, optional
        Run the targets on the workers of a Dask cluster, see `Batch.run`.

    Returns
    -------
    Batch
        Its `table` has a row for each target; `page` is the summary for the browser.

    Raises
    ------
    StacklibError
        When the batch cannot be started. Targets that fail are named in the summary.
    """
    given = recipe if isinstance(recipe, Recipe) else None
    file = "" if recipe is None or given else str(recipe)
    job = BatchJob(str(folder), file, memory, jobs, save_maps=save_maps, save_fits=save_fits)
    return Batch(job, given, progress).run(progress, client)


def _in_a_line(row: Row) -> str:
    if row.status == "failed":
        return f"{row.target.name}: failed. {row.error}"
    known = row.known
    masked = f", {100 * known['masked']:.2f} % for their neighbors" if known["masked"] else ""
    return (
        f"{row.target.name}: {known['used']} of {known['frames']} frames, rejected "
        f"{100 * known['rejected_low']:.2f} % low and {100 * known['rejected_high']:.2f} % high"
        f"{masked}, "
        f"SNR x {row.gain:.2f}, {row.record.seconds:.0f} s"
    )
