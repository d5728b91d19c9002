"""Integration on a Dask cluster that reads from slow storage: wall time and memory by the number of workers.

``python benchmarks/cluster.py`` simulates frames on a store where every read waits, integrates them here and
on clusters of worker processes, and prints a table. ``--write`` puts it into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from processes import peak_memory
from report import table, write_readme

import stacklib as sl
from stacklib.formats.source import FileBlock
from stacklib.formats.xisf import write_image
from stacklib.measurement.cache.planes import cache_file

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: cluster -->", "<!-- end: cluster -->"

#: The frames: number, height, width.
FRAMES = 40, 1000, 1000
#: The store: seconds before each read, bytes a second of each file that is open.
WAIT, RATE = 0.05, 20e6
#: Worker processes, with one thread and this much memory each.
WORKERS, LIMIT = (1, 2, 4), 1_000_000_000
#: Budget of each worker: the frames do not fit, so that they are read in bands.
MEMORY = "100MB"
REPEATS = 3
RECIPE = sl.Recipe(rejection="sigma", weights="none")

_reader = FileBlock.reader


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    folder = HERE / "scratch" / "cluster"
    try:
        simulate(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.StacklibWarning)
            text = compare(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if options.write:
        write_readme(HERE / "README.md", text, BEGIN, END)


def simulate(folder: Path) -> None:
    """Simulate frames of pure noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(20210815)
    count, *shape = FRAMES
    for number in range(count):
        plane = random.normal(0.1, 0.01, (1, *shape)).astype(np.float32)
        write_image(folder / f"frame_{number:02d}.xisf", plane, image_id="frame")


def compare(folder: Path) -> str:
    """Return the table in Markdown."""
    from dask.distributed import Client, LocalCluster

    here, expected = timed(folder, None, slow_down)
    rows = [["this process, 2 threads", f"{here:.1f}", "", ""]]
    first = 0.0
    for count in WORKERS:
        with (
            LocalCluster(
                n_workers=count, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0"
            ) as cluster,
            Client(cluster) as client,
        ):
            seconds, result = timed(folder, client, slow_down)
            first = first or seconds
            peak = max(client.run(peak_memory).values())
        assert np.array_equal(result.image, expected.image), "not the same bits"
        name = f"{count} worker{'s' if count > 1 else ''}"
        rows.append([name, f"{seconds:.1f}", f"{first / seconds:.2f} x", f"{peak / 1e6:.0f}"])
    count, height, width = FRAMES
    head = [
        f"{count} frames of {width} x {height}, slow store",
        "seconds",
        "against 1 worker",
        "peak of a worker, MB",
    ]
    return table(head, rows)


def timed(folder: Path, client, slow: Callable[[], None]) -> tuple[float, sl.Integration]:
    """Time integrations of unmeasured frames; return the median in seconds and the result."""
    options = {"memory": MEMORY, "threads": 2, "progress": False, "client": client}
    # Code is loaded before the store becomes slow.
    sl.integrate(folder, RECIPE, **options)
    client.run(slow) if client else slow()
    try:
        taken = []
        for _ in range(REPEATS):
            cache_file(folder).unlink()
            start = time.monotonic()
            result = sl.integrate(folder, RECIPE, **options)
            taken.append(time.monotonic() - start)
    finally:
        FileBlock.reader = _reader
        cache_file(folder).unlink(missing_ok=True)
    return statistics.median(taken), result


def slow_down() -> None:
    """Make this process read from slow storage."""

    @contextlib.contextmanager
    def reader(self):
        with _reader(self) as read_into:

            def late(offset, view):
                time.sleep(WAIT + len(view) / RATE)
                read_into(offset, view)

            yield late

    FileBlock.reader = reader


if __name__ == "__main__":
    main()
