"""Integrate many targets through the notebook: side by side, within a memory budget, only what is needed.

Each target runs as `stacklib run` does. A record beside its results tells what the run was made from, so
that a later start repeats only what is missing or changed; see `stacklib.batch.state`. Table and page of the
whole batch are written anew whenever something has happened.
"""

from __future__ import annotations

import contextlib
import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.table import Table

from stacklib.batch.changes import Checksums, rows_of
from stacklib.batch.folder_lock import only_one
from stacklib.batch.page import page, save_thumbnail
from stacklib.batch.progress import BatchBars
from stacklib.batch.state import inputs_of, only_run_of, read_record, write_record
from stacklib.batch.summary import Row, summary_table
from stacklib.batch.target_cluster import TargetCluster
from stacklib.batch.target_run import TargetRun
from stacklib.batch.targets import Target, find_targets
from stacklib.errors import RunError, SaveError
from stacklib.explore.advisor import memory_for
from stacklib.frames.finding import resolve_path
from stacklib.integration.cluster import connect
from stacklib.integration.samples import LEAST_BAND_BYTES, RESULT_BYTES
from stacklib.notebook.page import save_page
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.atomic_files import clear_marked, replace_atomically
from stacklib.utils.resources import checked_threads, parse_memory

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["Batch", "recipe_for", "run_batch"]

#: The summary, in the folder of the batch.
TABLE_NAME, PAGE_NAME = "batch.ecsv", "batch.html"
#: Bytes that a run takes beside its samples and its result: two processes, libraries, figures.
OVERHEAD = 500 * 10**6
#: Bytes of the budget for each run at the least, where nobody says how many runs there shall be.
SHARE = 10**9
#: In place of a recipe file: limits are proposed for each target.
ADVISE = "advise"
#: Seconds between two looks at the runs.
LOOK = 0.2
#: Marks table and page in the making.
SUMMARY_MARK = "summary"


@dataclass(frozen=True)
class Need:
    """Bytes that a run gets for its samples and its result, and that it takes in all."""

    integration: int
    whole: int


class Batch:
    """Targets below a folder, what has to be done for them, and what came of it.

    Parameters
    ----------
    job : BatchJob
        Where the targets are, and what their runs share.
    recipe : Recipe, optional
        In place of the recipe file of the job.
    progress : bool
        Show a bar where frames have to be read to see whether they have changed.

    Raises
    ------
    FrameError
        When no target is found.
    RecipeError
        When a parameter or the recipe file is not valid.

    Attributes
    ----------
    root : Path
        The folder.
    rows : list of Row
        The targets, each with its status; see `table`.
    """

    def __init__(self, job: BatchJob, recipe: Recipe | None = None, progress: bool = True) -> None:
        self.job = job
        self.budget = parse_memory(job.memory)
        self._cluster: TargetCluster | None = None
        self.root = resolve_path(job.folder)
        #: Limits are proposed for each target that has no settings of its own.
        self.advises = job.recipe == ADVISE
        if recipe is None:
            named = job.recipe and not self.advises
            recipe = Recipe.load(resolve_path(job.recipe)) if named else Recipe()
        self.recipe = recipe
        self.rows: list[Row] = []
        self._checksums = Checksums()
        self.look(progress)

    def look(self, progress: bool = True) -> None:
        """Find the targets, and what has to be done for each."""
        targets = find_targets(self.root)
        found = [(t, inputs_of(t, self.job_for(t), self.advised(t))) for t in targets]
        self.rows = rows_of(found, self._checksums, progress)

    @property
    def table(self) -> Table:
        """One row a target, see `stacklib.batch.summary_table`."""
        return summary_table(self.rows, self.root)

    @property
    def plan(self) -> Table:
        """One row a target: what was found, with which recipe it runs, and why."""
        full = self.table
        table = full["target", "object", "filter", "exposure", "frames"]
        files = [row.target.job_file for row in self.rows]
        shared = Path(self.job.recipe).name if self.job.recipe else "rule of thumb"
        shared = "advised" if self.advises else shared
        table["recipe"] = [f"its own {file.name}" if file else shared for file in files]
        table["to do"] = [
            "nothing, " + r.reason if r.status == "done" else "run, " + r.reason for r in self.rows
        ]
        return table

    @property
    def summary(self) -> str:
        """How it went, in a line, and a line for each target that failed."""
        numbers = {status: sum(row.status == status for row in self.rows) for status in ("done", "waiting")}
        line = f"{numbers['done']} of {len(self.rows)} targets have their master, {len(self.failed)} failed"
        if numbers["waiting"]:
            line += f", {numbers['waiting']} are waiting"
        return "\n".join([line, *(f"{row.target.name}: {row.error}" for row in self.failed)])

    @property
    def page(self) -> Path:
        """The page, once `run` has begun."""
        return self.root / PAGE_NAME

    @property
    def failed(self) -> list[Row]:
        """The targets that failed."""
        return [row for row in self.rows if row.status == "failed"]

    def raise_if_failed(self) -> None:
        """Raise an error when targets failed: a script that runs the notebook sees no other sign of it.

        Raises
        ------
        RunError
            It names the targets, and the page.
        """
        if self.failed:
            names = ", ".join(row.target.name for row in self.failed)
            said = f"{len(self.failed)} of {len(self.rows)} targets failed: {names}"
            raise RunError(f"{said}; why stands on the page {self.page}", None)

    def job_for(self, target: Target) -> Job:
        """The run of a target, without its share of the memory."""
        own = target.job or Job()
        return Job(
            frames=str(target.folder) if target.whole else [str(path) for path in target.frames],
            output=str(target.output),
            interactive=False,
            save_maps=own.save_maps or self.job.save_maps,
            save_fits=own.save_fits or self.job.save_fits,
            recipe=recipe_for(target, self.recipe),
        )

    def advised(self, target: Target) -> bool:
        """Whether limits are proposed for a target."""
        return self.advises and target.job is None

    @property
    def places(self) -> int:
        """How many computers, or workers of a cluster, have the budget each."""
        return 1 if self._cluster is None else self._cluster.size

    @property
    def jobs(self) -> int:
        """How many runs there are at the same time, at the most."""
        left = sum(row.status in ("waiting", "running") for row in self.rows)
        here = min(checked_threads(None), self.budget // SHARE)
        wanted = self.job.jobs or (here if self._cluster is None else self.places)
        return max(1, min(wanted, left))

    def need(self, target: Target) -> Need:
        """The memory for a run: its share of the budget, less where it has no use for it."""
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
        """Run what is missing or changed; a target that fails does not stop the others.

        Parameters
        ----------
        progress : bool
            Show progress bars, and a line for each target that has ended.
        client : dask.distributed.Client, optional
            Run the targets on the workers of this Dask cluster, one a worker; each has the whole budget.
            In place of the cluster of the job.

        Raises
        ------
        IntegrationError
            When the cluster cannot be used.
        SaveError
            When another batch works below the folder, or nothing can be written there.
        KeyboardInterrupt
            When the batch is stopped. What was done stays done, what was running leaves nothing.
        """
        with only_one(self.root), self._sent_to(client):
            clear_marked(self.root, SUMMARY_MARK)
            self.look(progress)
            self._keep()
            waiting = deque(row for row in self.rows if row.status == "waiting")
            self._write()
            bars = BatchBars(len(waiting), progress and bool(waiting), self.job.interactive)
            try:
                self._run_all(waiting, bars)
            finally:
                bars.close()
        return self

    def _keep(self) -> None:
        """Make lost pictures and pages again, and remember what was found out about targets that are done."""
        for row in (row for row in self.rows if row.status == "done"):
            master = row.target.output / row.master
            notebook = row.target.output / row.notebook
            lost = {"thumbnail": save_thumbnail(master), "page": save_page(notebook)}
            row.record = replace(row.record, **lost, mark="")
            if row.record == read_record(row.target):
                continue
            # Where nothing can be written, or another batch runs the target, all stays as it was.
            with contextlib.suppress(SaveError), only_run_of(row.target):
                then = read_record(row.target)
                if then is not None and then.files == row.record.files:
                    if then.mark:
                        # The batch was killed while it wrote them.
                        clear_marked(row.target.output, then.mark)
                    write_record(row.target, row.record)

    @contextlib.contextmanager
    def _sent_to(self, client: Client | None) -> Iterator[None]:
        """Targets go to the workers of a cluster, if there is one."""
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
                    for row, run, _ in running.values():
                        bars.show(row.target.name, run.listener.percent)
            except BaseException:
                for row, run, _ in running.values():
                    run.stop()
                    row.status = "waiting"
                self._write()
                raise

    def _next(self, waiting: deque[Row], running: int, used: int) -> Iterator[Row]:
        """Take the targets that may start now: what is too large for the whole budget runs alone."""
        for row in list(waiting):
            need = self.need(row.target).whole
            if running < self.jobs and (not running or used + need <= self.places * self.budget):
                waiting.remove(row)
                running, used = running + 1, used + need
                yield row

    def _write(self) -> None:
        """Table and page, each in one step."""
        text = io.StringIO()
        self.table.write(text, format="ascii.ecsv")
        try:
            replace_atomically(self.root / TABLE_NAME, text.getvalue().encode("utf-8"), SUMMARY_MARK)
            replace_atomically(self.page, page(self.rows, self.root).encode("utf-8"), SUMMARY_MARK)
        except OSError as error:
            raise SaveError(
                f"{self.root}: the summary cannot be written there ({error.strerror}); "
                "check the free space and the permissions of the folder"
            ) from error


def recipe_for(target: Target, shared: Recipe) -> Recipe:
    """The recipe of a target: that in its own folder, else the shared one."""
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
        A recipe or a recipe file for the targets that have no ``recipe.yaml`` or ``job.yaml`` of their own;
        ``"advise"`` for limits that are proposed for each of them, see `stacklib.advise`; the rule of thumb
        unless given.
    memory : str
        Budget for all runs together; on a cluster, of each worker.
    jobs : int
        Runs at the same time; 0: as processors and memory allow.
    save_maps, save_fits : bool
        See `Integration.save`.
    progress : bool
        Show progress.
    client : dask.distributed.Client, optional
        Run the targets on the workers of a Dask cluster, see `Batch.run`.

    Returns
    -------
    Batch
        Its `table` has a row for each target, `page` is the summary to look at.

    Raises
    ------
    StacklibError
        When the batch cannot be started. A target that fails is told in the summary.
    """
    given = recipe if isinstance(recipe, Recipe) else None
    file = "" if recipe is None or given else str(recipe)
    job = BatchJob(str(folder), file, memory, jobs, save_maps=save_maps, save_fits=save_fits)
    return Batch(job, given, progress).run(progress, client)


def _in_a_line(row: Row) -> str:
    if row.status == "failed":
        return f"{row.target.name}: failed. {row.error}"
    known = row.known
    return (
        f"{row.target.name}: {known['used']} of {known['frames']} frames, rejected "
        f"{100 * known['rejected_low']:.2f} % low and {100 * known['rejected_high']:.2f} % high, "
        f"SNR x {row.gain:.2f}, {row.record.seconds:.0f} s"
    )
