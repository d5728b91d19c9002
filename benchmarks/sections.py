"""Sections of the report: each times the contenders and returns a table."""

from __future__ import annotations

import itertools
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import contenders
import numpy as np
import report
import siril
from contenders import RULES, forget
from presets import Night, time_presets
from processes import COMPILED, Process, run, run_job
from report import Target
from siril import Siril
from timing import Timings, number, spread

import stacklib
from stacklib.simulate import make_benchmark_frames

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent / "sample_data"
FIRST, AGAIN = "`integrate`, first time", "`integrate`, measurements known"
NOISE_FIRST, NOISE_AGAIN = "`integrate`, noise weights, first time", "`integrate`, noise weights, known"
SAVED = "`integrate`, first time, noise of the result, FITS written"
KERNEL = "the kernel alone, samples in memory"
SIRIL_FIRST, SIRIL_AGAIN = "Siril, stacking step, first time", "Siril, stacking step, measurements known"
CCDPROC, MEDIAN = "`ccdproc.combine`, no normalization", "`numpy.median`, samples in memory"
BYTES, FLOATS = "reading all bytes", "reading as float32, `read_rows`"
ONE_SET = (FIRST, AGAIN, NOISE_FIRST, NOISE_AGAIN, SAVED, KERNEL, SIRIL_FIRST, SIRIL_AGAIN)
NO_RULE = (CCDPROC, MEDIAN, BYTES, FLOATS)
KEPT, MEASURED = "stacklib, compiled code kept", "stacklib, compiled code and measurements kept"
SIRIL_PROCESS = "Siril"
PROCESSES = (KEPT, MEASURED, SIRIL_PROCESS)

#: Presets whose memory is compared.
PRESETS = ("classic", "measured")
#: How many times faster we want to be, by rule, and how much dearer a megapixel of twice as many may be.
KERNEL_TARGETS = {"sigma": 6.0, "winsorized_sigma": 1.5}
SIRIL_TARGETS = {
    "first time": {"sigma": 8.0, "winsorized_sigma": 6.0},
    "measurements known": {"sigma": 8.0, "winsorized_sigma": 5.0},
}
#: Seconds of a whole process on the sample data with compiled code.
SAMPLE_SECONDS = 1.6
LINEAR = 1.3
#: Calls that answer at once, and within how many seconds; those that compiling may take.
HELP = ("--help", "run --help")
START = {"`import stacklib`": 0.25, "`stacklib --help`": 0.35, "`stacklib run --help`": 0.35}
COMPILING = 10


@dataclass(frozen=True)
class Plan:
    """Sizes and repetitions."""

    small: tuple[int, int, int] = (20, 1000, 1000)
    large: tuple[int, int, int] = (40, 1500, 2000)
    heights: tuple[int, ...] = (375, 750, 1500, 3000)
    #: Frames for the presets: also the channels.
    mono: tuple[int, int, int, int] = (20, 1500, 2000, 1)
    colour: tuple[int, int, int, int] = (20, 1000, 1500, 3)
    repetitions: int = 3
    processes: int = 2
    linear: int = 3

    @property
    def bytes(self) -> int:
        """Disk space of all frames in bytes."""
        shapes = [self.small, self.large]
        shapes += [(self.large[0], height, self.large[2]) for height in self.heights]
        shapes += [self.mono[:3], (3 * self.colour[0], *self.colour[1:3])]
        return sum(4 * count * height * width for count, height, width in shapes)


#: A test of the script itself.
QUICK = Plan(
    small=(10, 300, 400),
    large=(12, 600, 800),
    heights=(150, 300, 600, 1200),
    mono=(10, 300, 400, 1),
    colour=(10, 300, 400, 3),
    repetitions=2,
    processes=1,
    linear=2,
)


def say(text: str) -> None:
    """Print the current step."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Section:
    """A part of the report: tables and targets."""

    text: str
    targets: list[Target] = field(default_factory=list)


class Benchmark:
    """Frames, scratch folder and all sections of the report."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan, self.scratch = plan, scratch
        self.compiled = scratch / COMPILED
        self.with_siril = bool(siril.version())
        self.with_ccdproc = bool(contenders.ccdproc_version())
        for name, found in (("siril-cli", self.with_siril), ("ccdproc", self.with_ccdproc)):
            if not found:
                say(f"{name} is not installed: left out")

    def run(self) -> str:
        """Run all sections and return the report in Markdown."""
        small, large = self.frames("small", *self.plan.small), self.frames("large", *self.plan.large)
        compiling = self.compile(small, large)
        # Memory first: the caches of the files are then warm for all that follows.
        memory = self.memory(large)
        sections = [
            self.speed(large, self.plan.large),
            self.speed(small, self.plan.small),
            compiling,
            self.second_process(),
            self.start(),
            memory,
            self.linearity(large),
            self.agreement(small),
        ]
        targets = [[t.text, t.measured, t.verdict] for section in sections for t in section.targets]
        tables = [report.table(["Target", "Measured", ""], targets), *(section.text for section in sections)]
        return "\n\n".join([report.machine(), *tables])

    def frames(self, name: str, count: int, height: int, width: int) -> Path:
        """Simulate a set of frames."""
        say(f"simulating {count} frames of {width} x {height}")
        folder = self.scratch / name
        make_benchmark_frames(folder, count, height, width)
        return folder

    def job(self, name: str, **arguments: object) -> Process:
        """Run a job in a separate process."""
        return run_job(name, self.scratch, self.compiled, **arguments)

    def compile(self, small: Path, large: Path) -> Section:
        """Compile all that is timed later, and time compiling in a separate process."""
        rows = []
        # The last of these folders is the one that is used from then on.
        for rule, compiled in zip(RULES, (self.scratch / "compiled_once", self.compiled), strict=True):
            say(f"compiling, {rule}")
            forget(small)
            process = run_job("integrate", self.scratch, compiled, folder=small, rule=rule)
            rows.append([rule, number(process.wall)])
        for folder, rule, weights in itertools.product((small, large), RULES, ("none", "noise")):
            forget(folder)
            self.job("integrate", folder=folder, rule=rule, weights=weights)
            forget(folder)
            contenders.integrate(folder, rule, weights)
        count, height, width = self.plan.small
        head = [f"Nothing compiled: whole process, {count} frames of {width} x {height}", "seconds"]
        return Section(report.table(head, rows))

    def speed(self, folder: Path, shape: tuple[int, int, int]) -> Section:
        """Time all contenders by turns on one set."""
        timings = Timings()
        cube = contenders.read_cube(folder)
        settings = {rule: contenders.kernel_settings(folder, rule) for rule in RULES}
        peer = Siril(folder, self.scratch) if self.with_siril else None
        for repetition in range(self.plan.repetitions):
            say(f"{folder.name} set, repetition {repetition + 1} of {self.plan.repetitions}")
            for rule in RULES:
                self.time_integrate(timings, folder, rule)
                timings.measure(KERNEL, rule, contenders.run_kernel, cube, settings[rule])
                if peer:
                    time_siril(timings, peer, rule)
                if repetition < self.plan.processes:
                    self.time_process(timings, folder, rule)
            timings.measure(MEDIAN, "", np.median, cube, axis=0)
            timings.measure(BYTES, "", contenders.read_bytes, folder)
            timings.measure(FLOATS, "", contenders.read_cube, folder)
            if self.with_ccdproc and (repetition == 0 or folder.name == "small"):
                timings.measure(CCDPROC, "", contenders.ccdproc_combine, folder)
        targets = speed_targets(timings) if folder.name == "large" else process_targets(timings)
        return Section(speed_tables(timings, shape), targets)

    def presets(self) -> str:
        """Time the presets on mono and color frames."""
        nights = []
        for name, shape in (("mono", self.plan.mono), ("RGB", self.plan.colour)):
            say(f"simulating {shape[0]} {name} frames of {shape[2]} x {shape[1]}")
            make_benchmark_frames(self.scratch / name, *shape)
            nights.append(Night(name, self.scratch / name, shape))
        return time_presets(nights, self.plan.repetitions, say)

    def time_integrate(self, timings: Timings, folder: Path, rule: str) -> None:
        """Time `integrate` in this process, with and without known measurements."""
        for first, again, weights in ((FIRST, AGAIN, "none"), (NOISE_FIRST, NOISE_AGAIN, "noise")):
            forget(folder)
            timings.measure(first, rule, contenders.integrate, folder, rule, weights)
            timings.measure(again, rule, contenders.integrate, folder, rule, weights)
        forget(folder)
        timings.measure(SAVED, rule, contenders.integrate_and_save, folder, rule, self.scratch / "saved.fits")

    def time_process(self, timings: Timings, folder: Path, rule: str) -> None:
        """Time a whole process with compiled code."""
        forget(folder)
        for name in (KEPT, MEASURED):
            process = self.job("integrate", folder=folder, rule=rule)
            timings.add(name, rule, process.wall, process.cpu)

    def memory(self, folder: Path) -> Section:
        """Measure the peak memory of each contender in a separate process."""
        say("memory")
        idle = self.job("idle").peak
        peaks, targets = {"an interpreter that has imported stacklib": idle}, []
        for rule, memory in itertools.product(RULES, ("256MB", "2GB")):
            forget(folder)
            peak = self.job("integrate", folder=folder, rule=rule, memory=memory).peak
            peaks[f'`integrate`, {rule}, memory="{memory}"'] = peak
            if memory == "256MB":
                above = (peak - idle) / 1e6
                text = f'{rule}: less than 400 MB above idle with memory="256MB"'
                targets.append(Target(text, f"{above:.0f} MB", above < 400))
        for preset in PRESETS:
            forget(folder)
            peak = self.job("integrate_preset", folder=folder, preset=preset, memory="256MB").peak
            peaks[f'`integrate`, preset: {preset}, memory="256MB"'] = peak
        peaks["reading as float32"] = self.job("read", folder=folder).peak
        peaks["reading and `numpy.median`"] = self.job("median", folder=folder).peak
        if self.with_ccdproc:
            peaks["`ccdproc.combine`, mem_limit=2e9"] = self.job("ccdproc", folder=folder).peak
        rows = [[name, f"{peak / 1e6:.0f}", f"{(peak - idle) / 1e6:.0f}"] for name, peak in peaks.items()]
        if self.with_siril:
            peer = Siril(folder, self.scratch)
            rows += [[f"Siril, {rule}", f"{peer.stack(rule).process.peak / 1e6:.0f}", "–"] for rule in RULES]
        count, height, width = self.plan.large
        head = [f"Peak memory, {count} frames of {width} x {height}, MB", "all", "above idle"]
        return Section(report.table(head, rows), targets)

    def linearity(self, large: Path) -> Section:
        """Time a megapixel at several heights."""
        count, height, width = self.plan.large
        folders = {
            h: large if h == height else self.frames(f"height_{h}", count, h, width)
            for h in self.plan.heights
        }
        say("linearity")
        cube = contenders.read_cube(folders[max(folders)])
        settings = contenders.kernel_settings(folders[max(folders)], "sigma")
        timings = Timings()
        for _ in range(self.plan.linear):
            for h, folder in folders.items():
                part = np.ascontiguousarray(cube[:, : h * width])
                timings.measure("kernel", str(h), contenders.run_kernel, part, settings)
                forget(folder)
                timings.measure("first", str(h), contenders.integrate, folder, "sigma")
                timings.measure("again", str(h), contenders.integrate, folder, "sigma")
        columns = {"kernel": "kernel", "first": "`integrate`, first time", "again": "`integrate`, known"}
        each = {
            name: {h: [s / (h * width / 1e6) for s in timings.wall[name, str(h)]] for h in folders}
            for name in columns
        }
        head = [f"{count} frames of width {width}, sigma, seconds per megapixel", *columns.values()]
        rows = [[f"{h} rows", *(spread(each[name][h]) for name in columns)] for h in folders]
        targets = [linear(words, list(each[name].values())) for name, words in columns.items()]
        return Section(report.table(head, rows), targets)

    def second_process(self) -> Section:
        """Time import and first integration of the sample data with compiled code."""
        rows, targets = [], []
        for source in sorted(path for path in SAMPLES.glob("*/4_Registered") if path.is_dir()):
            name = source.parent.name
            say(f"sample data, {name}")
            folder = self.scratch / f"sample_{name}"
            shutil.copytree(source, folder)
            seconds = []
            for _ in range(4):
                forget(folder)
                seconds.append(self.job("integrate_sample", folder=folder).wall)
            # The first one compiles what the suggested recipe needs beyond the rules above.
            compiling, *compiled = seconds
            rows.append([name, number(compiling), spread(compiled)])
            text = f"sample data {name}: import and integration in less than {SAMPLE_SECONDS} s"
            targets.append(Target(text, spread(compiled, " s"), statistics.median(compiled) < SAMPLE_SECONDS))
        head = ["Sample data, whole process, seconds", "compiling what is missing", "compiled"]
        return Section(report.table(head, rows), targets)

    def start(self) -> Section:
        """Time what a user waits for at the start, and the first run on a computer, with nothing compiled."""
        say("start")
        commands = {"`import stacklib`": ("-c", "import stacklib")}
        commands |= {f"`stacklib {words}`": ("-m", "stacklib.cli", *words.split()) for words in HELP}
        rows, targets = [], []
        for name, words in commands.items():
            each = [run([sys.executable, *words], self.scratch) for _ in range(5)]
            wall = [process.wall for process in each]
            rows.append([name, spread(wall), number(statistics.median(process.cpu for process in each))])
            targets.append(
                Target(
                    f"{name} in less than {START[name]} s",
                    spread(wall, " s"),
                    statistics.median(wall) < START[name],
                )
            )
        for name in ("M13", "M101"):
            folder, empty = self.scratch / f"sample_{name}", self.scratch / f"first_{name}"
            both = []
            for run_name in ("first run on a computer", "second run"):
                forget(folder)
                both.append(run_job("integrate_sample", self.scratch, empty, folder=folder))
                rows.append([f"{name}, {run_name}", number(both[-1].wall), number(both[-1].cpu)])
            seconds = both[0].wall - both[1].wall
            text = f"sample data {name}: compiling, once, in less than {COMPILING} s"
            targets.append(Target(text, f"{seconds:.1f} s", seconds < COMPILING))
        return Section(report.table(["Start, whole process, seconds", "wall", "CPU"], rows), targets)

    def agreement(self, folder: Path) -> Section:
        """Compare the pixels with those of Siril, without normalization and with equal weights."""
        text = "sigma, no normalization: 99.99 % of the pixels within 1e-6 of Siril's"
        if not self.with_siril:
            return Section("Siril is not installed: not compared.", [Target(text, "–", None)])
        # Both write the rows in the order in which they read them, and 0 where no frame has data.
        theirs = stacklib.Frame(Siril(folder, self.scratch).stack("sigma", normalized=False).image).read()
        ours = contenders.integrate(folder, "sigma", normalized=False).image
        difference = np.abs(ours.astype(np.float64) - theirs)
        equal = float(np.mean(difference <= 1e-6))
        words = (
            f"Against Siril, sigma 3 3, no normalization, equal weights, {ours.size} pixels: "
            f"{100 * np.mean(difference == 0):.4f} % are equal to the last bit, the largest difference is "
            f"{difference.max():.2g}."
        )
        return Section(words, [Target(text, f"{100 * equal:.4f} %", equal >= 0.9999)])


def time_siril(timings: Timings, peer: Siril, rule: str) -> None:
    """Time Siril with and without known measurements."""
    first, again = peer.stack(rule), peer.stack(rule, known=True)
    # The log knows no CPU time of the step: that of the process, which does little else.
    timings.add(SIRIL_FIRST, rule, first.step, first.process.cpu)
    timings.add(SIRIL_AGAIN, rule, again.step, again.process.cpu)
    timings.add(SIRIL_PROCESS, rule, first.process.wall, first.process.cpu)


def speed_tables(timings: Timings, shape: tuple[int, int, int]) -> str:
    """Return the seconds of one set as a table."""
    count, height, width = shape
    words = f"{count} frames of {width} x {height}, seconds"
    columns = [column for rule in RULES for column in (rule, "CPU")]

    def row(name: str, rules: tuple[str, ...] = RULES) -> list[str]:
        cells = [cell for rule in rules for cell in timings.cells(name, rule)]
        return [name, *cells, *[""] * (len(columns) - len(cells))]

    steps = [*(row(name) for name in ONE_SET), *(row(name, ("",)) for name in NO_RULE)]
    whole = [row(name) for name in PROCESSES]
    tables = {words: steps, f"Whole process, {words}": whole}
    # What is not installed has no row.
    return "\n\n".join(
        report.table([title, *columns], [line for line in rows if line[1]]) for title, rows in tables.items()
    )


def speed_targets(timings: Timings) -> list[Target]:
    """Return the targets of speed; ratios are taken within each repetition."""
    targets = []
    for rule, least in KERNEL_TARGETS.items():
        text = f"kernel, {rule}: {least:g} x as fast as `numpy.median`"
        targets.append(at_least(text, timings.ratios((MEDIAN, ""), (KERNEL, rule)), least))
    for rule in RULES:
        for name, peer, state, also in (
            (FIRST, SIRIL_FIRST, "first time", ""),
            (AGAIN, SIRIL_AGAIN, "measurements known", ""),
            (SAVED, SIRIL_FIRST, "first time", ", with noise and FITS as Siril"),
        ):
            least = SIRIL_TARGETS[state][rule]
            text = f"`integrate`, {rule}: {least:g} x as fast as Siril's stacking step, {state}{also}"
            targets.append(at_least(text, timings.ratios((peer, rule), (name, rule)), least))
    return targets


def process_targets(timings: Timings) -> list[Target]:
    """Return the targets of whole processes on the small set, where it counts how quickly they start."""
    return [
        at_least(
            f"whole process on the small set, {rule}: not slower than Siril",
            timings.ratios((SIRIL_PROCESS, rule), (KEPT, rule)),
            1.0,
        )
        for rule in RULES
    ]


def at_least(text: str, ratios: list[float], least: float) -> Target:
    """Return a target for a ratio of times."""
    return Target(text, spread(ratios, " x"), statistics.median(ratios) >= least if ratios else None)


def linear(words: str, each: list[list[float]]) -> Target:
    """Return a target for seconds per megapixel at several sizes, each twice the one before.

    What a run costs whatever the size, such as opening the files, makes small images dearer a megapixel; that
    is no lack of linearity.
    """
    medians = [statistics.median(values) for values in each]
    ratio = max(2 * larger / smaller for smaller, larger in itertools.pairwise(medians))
    text = f"{words}: linear, twice the pixels take less than {2 * LINEAR:g} x the time"
    return Target(text, f"{ratio:.2f} x", ratio < 2 * LINEAR)
