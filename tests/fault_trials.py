"""Runs, saves and batches that are killed at random moments; `make faults` tries many of them.

A trial ends a command with a signal, waits until all its processes are gone, and looks at what it left: no
file is half written under its final name, the next start works, and then nothing of the killed one is left.
It needs the signals of Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from astropy.table import Table
from simulated_targets import frames as simulated_frames

import stacklib as sl
from stacklib.formats import xisf
from stacklib.utils.file_sets import workroom
from stacklib.utils.package import CACHE_VARIABLE

ROOT = Path(__file__).parents[1]
#: How a user, the system, and a lack of memory end a command. The last one takes all its processes.
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL", "SIGKILL of all")
#: Sizes of disks in KiB, from one without room for a notebook to one with room for all.
SIZES = [16, 64, 128, 256, 384, 512, 768, 1024, 2048, 8192]
#: Seconds until the processes of a killed run must be gone.
PATIENCE = 60
#: Ends of the files of a run, by what must be in them.
IMAGES = (".xisf", "_rejection_low.xisf", "_rejection_high.xisf", "_frames.ecsv", "_report.txt")
PAGES = ("_notebook.ipynb", "_notebook.html", "_preview.png")


@dataclass
class Outcome:
    """What trials have shown: moments tried, and what was wrong."""

    tried: Counter = field(default_factory=Counter)
    finished: int = 0
    problems: list[str] = field(default_factory=list)

    def check(self, good: bool, problem: str) -> None:
        """Note a problem unless all is good."""
        if not good:
            self.problems.append(problem)

    def __str__(self) -> str:
        tried = ", ".join(f"{count} {name}" for name, count in self.tried.items())
        said = f"{sum(self.tried.values())} moments ({tried}), {self.finished} after the end"
        return "\n  ".join([f"{said}: {len(self.problems)} problems", *self.problems])


class Place:
    """A folder with frames, and temporary and cache folders of its own for the commands."""

    def __init__(self, root: Path, targets: int = 1) -> None:
        self.root = root
        self.temporary, self.cache = root / "tmp", root / "cache"
        self.temporary.mkdir(parents=True)
        for number in range(targets):
            simulated_frames(root / "targets" / f"T{number}" / "4_Registered", 4, object_name=f"T{number}")
        self.targets = sorted((root / "targets").iterdir())

    @property
    def results(self) -> list[Path]:
        """The folders for results."""
        return [target / "5_Integration" for target in self.targets]

    def start(self, *arguments: str | Path) -> subprocess.Popen:
        """Start the command line in a session of its own."""
        own = {CACHE_VARIABLE: str(self.cache), "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", "stacklib.cli", *map(str, arguments)],
            env=os.environ | own,
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def leftovers(self) -> list[str]:
        """What only killed processes leave: hidden names, and anything in the temporary folder."""
        hidden = [path for path in (self.root / "targets").rglob(".stacklib*") if path.suffix != ".json"]
        hidden += self.cache.rglob(".stacklib*")
        return sorted(str(path.relative_to(self.root)) for path in [*hidden, *self.temporary.iterdir()])


def end(process: subprocess.Popen, how: str) -> None:
    """Send a signal to a command, or to all its processes, and wait until all are gone."""
    with_children = [process_of(process.pid)]
    for parent in filter(None, with_children[:]):
        with_children += children_of(parent)
    known = [each for each in with_children if each is not None]
    for each in known if how.endswith("of all") else known[:1]:
        try:
            each.send_signal(getattr(signal, how.split()[0]))
        except psutil.NoSuchProcess:
            continue
    process.communicate(timeout=PATIENCE)
    _, alive = psutil.wait_procs(known, timeout=PATIENCE)
    for each in alive:
        each.kill()
    if alive:
        raise TimeoutError(f"{len(alive)} processes outlive {how}")


def process_of(number: int) -> psutil.Process | None:
    """Return a process if it is alive."""
    try:
        return psutil.Process(number)
    except psutil.NoSuchProcess:
        return None


def children_of(parent: psutil.Process) -> list[psutil.Process]:
    """Return all processes below another one."""
    try:
        return parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def damage(folder: Path) -> list[str]:
    """Return what is wrong with the results in a folder: half written files, sets without some files."""
    found = []
    names = {path.name for path in folder.glob("*") if not path.name.startswith(".")}
    for name in sorted(names):
        problem = unreadable(folder / name)
        if problem:
            found.append(f"{name}: {problem}")
    for ends, first in ((IMAGES, "_report.txt"), (PAGES, "_notebook.ipynb")):
        stems = {name.removesuffix(end) for name in names for end in ends[1:] if name.endswith(end)}
        for stem in stems:
            missing = [end for end in ends if f"{stem}{end}" not in names]
            if missing and first:
                found.append(f"{stem}: without {', '.join(missing)}")
    return found


#: What a whole file of a kind ends with or contains.
MARKS = {".html": b"</html>", ".png": b"IEND", ".txt": b"Rejected samples"}


def unreadable(path: Path) -> str:
    """Return why a file is not whole."""
    try:
        if path.suffix == ".xisf":
            source = xisf.open_image(path)
            for channel in range(source.channels):
                source.read_rows(0, source.height, channel)
        elif path.suffix == ".ipynb":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".ecsv":
            Table.read(path, format="ascii.ecsv")
        elif MARKS.get(path.suffix, b"") not in path.read_bytes():
            return "ends early"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def masters(folder: Path) -> list[str]:
    """Return the names of the masters in a folder."""
    return sorted(p.name for p in folder.glob("*.xisf") if "rejection" not in p.name)


def command_for(place: Place, kind: str, number: int) -> list[str | Path]:
    """Return the arguments of a run or a batch; each number has other settings, so that a batch has work."""
    where = place.root / "targets" if kind == "batch" else place.targets[0]
    return [kind, where, "-p", "sigma_high", f"{2.8 + number / 1000:.3f}"]


def kill_commands(
    place: Place, kind: str, moments: list[float], first: int = 0, full: bool = True
) -> Outcome:
    """Kill runs or batches at moments, in seconds after their start, with the signals in turn from `first`.

    The same command is started again after each one, or only after the last one.
    """
    outcome = Outcome()
    kept: dict[Path, list[str]] = {folder: masters(folder) for folder in place.results}
    for number, moment in enumerate(moments):
        how = SIGNALS[(first + number) % len(SIGNALS)]
        command = command_for(place, kind, number)
        process = place.start(*command)
        try:
            process.wait(moment)
            outcome.finished += 1
        except subprocess.TimeoutExpired:
            pass
        where = f"{how} after {moment:.2f} s"
        try:
            end(process, how)
        except TimeoutError as error:
            outcome.problems.append(f"{where}: {error}")
        outcome.tried[how] += 1
        if full or number == len(moments) - 1:
            again = place.start(*command)
            _, said = again.communicate(timeout=300)
            outcome.check(again.returncode == 0, f"{where}: the next start failed: {said.decode()[-300:]}")
            left = place.leftovers()
            outcome.check(not left, f"{where}: the next start left {left}")
        for folder in place.results:
            outcome.problems += [f"{where}: {problem}" for problem in damage(folder)]
            lost = [name for name in kept[folder] if name not in masters(folder)]
            outcome.check(not lost, f"{where}: lost {lost}")
            kept[folder] = masters(folder)
    return outcome


def kill_saves(folder: Path, moments: int, rng: random.Random) -> Outcome:
    """Kill a process at random moments while it saves a result; another one then starts to save there."""
    source = folder / "frames"
    simulated_frames(source, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sl.integrate(source, progress=False)
    output = folder / "results"
    start = time.monotonic()
    result.save(output)
    duration = time.monotonic() - start
    outcome = Outcome()
    for number in range(moments):
        how = ("SIGINT", "SIGTERM", "SIGKILL")[number % 3]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                result.save(output)
                code = 0
            finally:
                os._exit(code)
        time.sleep(rng.uniform(0.0, 1.6 * duration))
        os.kill(child, getattr(signal, how))
        _, status = os.waitpid(child, 0)
        outcome.finished += os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        outcome.tried[how] += 1
        before = masters(output)
        with workroom(output):
            # What the killed save had not finished is gone now.
            outcome.problems += [f"{how}: {problem}" for problem in damage(output)]
        outcome.check(masters(output) == before, f"{how}: a whole set was removed")
        left = sorted(path.name for path in output.glob(".*"))
        outcome.check(not left, f"{how}: left {left}")
    count = len(masters(output))
    result.save(output)
    outcome.check(len(masters(output)) == count + 1, "the next save got no number of its own")
    return outcome


def run_together(place: Place, count: int) -> Outcome:
    """Start several runs into one folder at once: each saves a whole set under a number of its own."""
    outcome = Outcome()
    target, output = place.targets[0], place.results[0]
    before = len(masters(output))
    runs = [place.start("run", target) for _ in range(count)]
    for run in runs:
        _, said = run.communicate(timeout=300)
        outcome.check(run.returncode == 0, f"a run failed: {said.decode()[-300:]}")
        outcome.tried["runs at once"] += 1
    outcome.problems += damage(output)
    outcome.check(len(masters(output)) == before + count, f"{len(masters(output))} masters")
    outcome.check(len(list(output.glob("*_notebook.ipynb"))) == before + count, "a notebook is lost")
    left = place.leftovers()
    outcome.check(not left, f"left {left}")
    return outcome


def fill_disks(place: Place, sizes: list[int]) -> Outcome:
    """Run with results on disks in memory that are too small, in KiB; only root may mount these."""
    outcome, output = Outcome(), place.results[0]
    output.mkdir(exist_ok=True)
    for size in sizes:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(output)]
        if subprocess.run(mount, capture_output=True).returncode:
            break
        try:
            run = place.start("run", place.targets[0])
            _, said = run.communicate(timeout=600)
            last = said.decode().strip().splitlines()[-1:]
            images, left = masters(output), place.leftovers()
            outcome.tried[f"of {size} KiB"] += 1
            outcome.finished += run.returncode == 0
            outcome.problems += [f"{size} KiB: {problem}" for problem in damage(output)]
            outcome.check(not left, f"{size} KiB: left {left}")
            if run.returncode:
                outcome.check("No space left" in said.decode(), f"{size} KiB: {last}")
                named = not images or images[0] in said.decode()
                outcome.check(named, f"{size} KiB: {images} are not named: {last}")
        finally:
            subprocess.run(["umount", "-l", str(output)], check=True)
    return outcome


def duration_of(place: Place, command: list[str | Path]) -> float:
    """Return how long a command takes that is not disturbed, in seconds."""
    start = time.monotonic()
    process = place.start(*command)
    _, said = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(said.decode())
    return time.monotonic() - start


def main() -> int:
    """Try the full numbers of moments, print what was found, and return 1 if there are problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("runs", 50), ("saves", 60), ("batches", 20)):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"moments (default {count})")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    problems = 0
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        outcome = kill_saves(root / "save", options.saves, rng)
        print("save:", outcome, flush=True)
        problems += len(outcome.problems)
        place = Place(root / "together")
        for count in (2, 4):
            outcome = run_together(place, count)
            print(f"{count} runs at once:", outcome, flush=True)
            problems += len(outcome.problems)
        outcome = fill_disks(Place(root / "disk"), SIZES)
        print("full disks:", outcome, flush=True)
        problems += len(outcome.problems)
        for name, targets, count in (("run", 1, options.runs), ("batch", 3, options.batches)):
            place = Place(root / name, targets)
            duration = duration_of(place, command_for(place, name, -1))
            moments = [rng.uniform(0.05, 1.05) * duration for _ in range(count)]
            outcome = kill_commands(place, name, moments)
            print(f"{name} ({duration:.0f} s):", outcome, flush=True)
            problems += len(outcome.problems)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
