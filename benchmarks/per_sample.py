"""Time the parts of a run on one core, in nanoseconds a sample.

``python benchmarks/per_sample.py`` simulates frames and measures by turns, in CPU time: memory, reading, the
measurements of a frame, and the kernel of every rejection rule beside that of `sigma` and ``numpy.median``.
``--write`` puts the tables into README.md, ``--only`` times only the rules named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import contenders
import numpy as np
from report import machine, table, write_readme
from timing import Timings, number

import stacklib as sl
from stacklib.integration.noise import with_noise
from stacklib.kernel.passes import run_tiles, scatter_tiles
from stacklib.kernel.pixels import Pixels, Ratios
from stacklib.kernel.scatter import find_excess
from stacklib.measurement.measurements import measure_frames
from stacklib.measurement.noise import plane_noise
from stacklib.measurement.scale_noise import scale_noise
from stacklib.measurement.statistics import measure_plane
from stacklib.normalization.preparation import prepare
from stacklib.recipe.rules import RULES
from stacklib.simulate import make_benchmark_frames
from stacklib.utils.compiled import compiled

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: per sample -->", "<!-- end: per sample -->"

#: Frames, height and width of what is integrated, a band of a usual run; and of what is measured.
FRAMES, HEIGHT, WIDTH = 40, 500, 2000
MEASURED, WHOLE_HEIGHT = 4, 1500
#: Turns.
TURNS = 5
#: Largest nanoseconds a sample of a measurement.
MOST_NS = {"median and two-sided biweight": 4.0, "noise": 5.0, "noise of a residual in layer 3": 5.0}
#: Largest time of a rule over that of the sigma kernel; none of the others is to be slower than the median.
MOST_RATIO = dict.fromkeys(("linear_fit", "gesd", "chauvenet", "noise_model", "calibrated_sigma"), 3.0)
MOST_RATIO["winsorized_sigma"] = 2.2
FIRST_PASS = "first pass of noise_model"


@compiled
def read_all(values):
    """Read an array as fast as memory delivers it."""
    found = np.int32(0)
    for i in range(values.size):
        found |= values[i]
    return found


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument("--turns", type=int, default=TURNS, help="number of turns")
    parser.add_argument("--only", nargs="*", choices=list(RULES), help="rules to time")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    folder = HERE / "scratch" / "per_sample"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        make_benchmark_frames(folder / "band", FRAMES, HEIGHT, WIDTH)
        make_benchmark_frames(folder / "whole", MEASURED, WHOLE_HEIGHT, WIDTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.StacklibWarning)
            text = compare(folder, options.turns, options.only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if options.write:
        write_readme(HERE / "README.md", text, BEGIN, END)


def compare(folder: Path, turns: int, only: list[str] | None) -> str:
    """Time everything by turns and return the tables."""
    frames = sl.open_frames(str(folder / "band"))
    cube = contenders.read_cube(folder / "band")
    rules = [rule for rule in RULES if not only or rule in only or rule == "sigma"]
    parts = measuring(folder / "whole")
    kernels = {rule: kernel(frames, cube, rule) for rule in rules}
    if "noise_model" in kernels:
        kernels[FIRST_PASS] = first_pass(frames, cube)
    timings = Timings()
    for turn in range(turns + 1):
        # The first turn compiles.
        kept = timings if turn else Timings()
        for name, (call, _) in parts.items():
            kept.measure(name, "", call)
        kept.measure(contenders_median := "numpy.median", "", np.median, cube, axis=0)
        for rule, call in kernels.items():
            kept.measure(rule, "", call)
    rows = [measured_row(name, timings.cpu[name, ""], samples) for name, (_, samples) in parts.items()]
    measured = table(["one core", "ns a sample", "at most", ""], rows)
    median, sigma = timings.cpu[contenders_median, ""], timings.cpu["sigma", ""]
    lines = [kernel_row(rule, timings.cpu[rule, ""], sigma, median, cube.size) for rule in kernels]
    lines.append(["`numpy.median`", nanoseconds(median, cube.size), ratio(median, sigma), "1", "", ""])
    head = [f"kernel, {FRAMES} frames, one core", "ns a sample", "time over `sigma`"]
    judged = table([*head, "`numpy.median` over it", "at most", ""], lines)
    return f"{machine()}\n\n{measured}\n\n{judged}"


def measuring(folder: Path) -> dict[str, tuple[Callable[[], object], int]]:
    """Return what is done to frames, by name, with the number of samples."""
    frames = sl.open_frames(str(folder))
    planes = contenders.read_cube(folder).reshape(len(frames), *frames.shape[1:])
    # Of larger planes, layer 3 is measured in some of the rows.
    residuals = (planes - planes.mean(axis=0))[:, :512]
    out = np.empty_like(planes[0])

    def read() -> None:
        for frame in frames:
            frame.read_rows(0, frames.height, 0, out)
            frame.close()

    def each(measure: Callable[[np.ndarray], object], of: np.ndarray) -> Callable[[], object]:
        return lambda: [measure(plane) for plane in of]

    how = dict(threads=1, cache=False, planes=lambda i, channel: planes[i])
    calls = {
        "memory, read once": partial(read_all, planes.reshape(-1).view(np.int32)),
        "reading as float32": read,
        "median and two-sided biweight": each(measure_plane, planes),
        "all that `integrate` measures": partial(measure_frames, frames, noise=False, **how),
        "noise": each(partial(plane_noise, fill=float(np.median(planes))), planes),
    }
    found = {name: (call, planes.size) for name, call in calls.items()}
    return found | {"noise of a residual in layer 3": (each(scale_noise, residuals), residuals.size)}


def kernel(frames: sl.FrameSet, cube: np.ndarray, rule: str) -> Callable[[], object]:
    """Return a call of the kernel as `integrate` makes it, for samples in memory."""
    preparation = prepare(frames, contenders.recipe(rule), threads=1)
    settings = with_noise(preparation, 0, claims=True)
    excess = None
    if preparation.by_frame:
        ratios = Ratios.empty(cube.shape[1])
        scatter_tiles(cube, settings, ratios)
        planes = Ratios(*(plane.reshape(HEIGHT, WIDTH) for plane in ratios))
        excess = find_excess(
            planes, settings.relative_noise, settings.contrast, places=settings.places_from(0, 0)
        ).reshape(-1)
    pixels = Pixels.empty(cube.shape[1], settings, excess=excess)
    return partial(run_tiles, cube, settings, pixels)


def first_pass(frames: sl.FrameSet, cube: np.ndarray) -> Callable[[], object]:
    """Return a call of the pass that a rule with limits for each frame needs before the kernel."""
    settings = with_noise(prepare(frames, contenders.recipe("noise_model"), threads=1), 0)
    return partial(scatter_tiles, cube, settings, Ratios.empty(cube.shape[1]))


def measured_row(name: str, seconds: list[float], samples: int) -> list[str]:
    """Return a row of the table of measurements."""
    most = MOST_NS.get(name)
    if most is None:
        return [name, nanoseconds(seconds, samples), "", ""]
    met = 1e9 * statistics.median(seconds) / samples <= most
    return [name, nanoseconds(seconds, samples), number(most), "ok" if met else "missed"]


def kernel_row(
    rule: str, seconds: list[float], sigma: list[float], median: list[float], samples: int
) -> list[str]:
    """Return a row of the table of rules."""
    over = statistics.median(a / b for a, b in zip(seconds, sigma, strict=True))
    faster = statistics.median(a / b for a, b in zip(median, seconds, strict=True))
    most = MOST_RATIO.get(rule)
    met = faster >= 1 and (most is None or over <= most)
    shown = f"`{rule}`" if rule in RULES else rule
    cells = [shown, nanoseconds(seconds, samples), number(over), number(faster)]
    return [*cells, "" if most is None else number(most), "ok" if met else "missed"]


def nanoseconds(seconds: list[float], samples: int) -> str:
    """Return the median in nanoseconds a sample, with the smallest and largest value."""
    middle, *ends = (1e9 * f(seconds) / samples for f in (statistics.median, min, max))
    return f"{number(middle)} ({'–'.join(number(end) for end in ends)})"


def ratio(seconds: list[float], others: list[float]) -> str:
    """Return the median ratio of two times."""
    return number(statistics.median(a / b for a, b in zip(seconds, others, strict=True)))


if __name__ == "__main__":
    main()
