"""Ten frames more, or one less: how long a run takes with kept samples, beside a full one.

``python benchmarks/growing.py`` simulates 210 frames in several formats. For each of them 200 frames are
integrated with `keep_samples`, and then 210 and 199: once with the samples, once in full. Both start from the
same state, with the measurements of the 200 frames known. Results must be the same bit for bit. Times are CPU
seconds of all threads. A run with the samples should take a fifth of a full one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: growing -->", "<!-- end: growing -->"
#: Frames that are known, and all of them.
KNOWN, ALL = 200, 210
#: Largest ratio of a run with kept samples to a full one.
MOST = 0.2
#: Arrays that must be the same.
ARRAYS = ("image", "rejection_low", "rejection_high", "coverage", "uncertainty")


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(600, 800), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rules", nargs="+", default=["sigma", "none", "winsorized_sigma"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    (HERE / "scratch").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HERE / "scratch") as scratch:
        # Before stacklib is imported: its caches are those of the benchmark.
        os.environ["STACKLIB_CACHE"] = str(Path(scratch) / "cache")
        lines = []
        for line in report(Path(scratch), options):
            print(line, flush=True)
            lines.append(line)
    if options.write:
        from report import machine, write_readme

        write_readme(HERE / "README.md", f"{machine()}\n\n" + "\n".join(lines), BEGIN, END)


#: Channels, format and sample format of the frames.
KINDS = {
    "mono, FITS float32": (1, "fits", "f32", False),
    "mono, FITS 16 bits": (1, "fits", "u16", False),
    "mono, XISF zlib float32": (1, "xisf", "f32", True),
    "color, FITS float32": (3, "fits", "f32", False),
}


def report(scratch: Path, options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield (
        f"| CPU seconds | rule | full, {ALL} | with samples | ratio, at most {MOST} | ratio, {KNOWN - 1} "
        f"| how | keeping {KNOWN} |  |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for kind in options.kinds:
        folder = scratch / "frames"
        files = make_frames(folder, *options.size, *KINDS[kind])
        for rule in options.rules:
            yield row(scratch, kind, rule, files, options.times)
        shutil.rmtree(folder)


def make_frames(
    folder: Path, height: int, width: int, channels: int, kind: str, dtype: str, compress: bool
) -> list[str]:
    """Write the frames of a night: stars, cosmic rays and a changing sky, without a border."""
    from stacklib.frames.frame import Frame
    from stacklib.simulate import make_benchmark_frames
    from stacklib.simulate.night import write_frame

    files = make_benchmark_frames(folder, ALL, height, width, channels, dtype=dtype)
    if kind == "xisf":
        for i, path in enumerate(files):
            frame, files[i] = Frame(path), path.with_suffix(".xisf")
            header = {
                name: (frame.keywords[name], "") for name in ("DATE-OBS", "DATE-END", "EXPTIME", "OBJECT")
            }
            write_frame(files[i], frame.read(), header, dtype, overwrite=True, compress=compress)
            path.unlink()
    return [str(path) for path in files]


def row(scratch: Path, kind: str, rule: str, files: list[str], times: int) -> str:
    """Measure a rule, and return a row of the table."""
    import numpy as np

    cache, state = scratch / "cache", scratch / "state"
    shutil.rmtree(cache, ignore_errors=True)
    reference = Path(files[100]).name
    # Measurements first, so that keeping alone is timed; other frames compile everything.
    run(files[:KNOWN], rule, reference, False)
    _, keeping = run(files[:KNOWN], rule, reference, True)
    shutil.copytree(cache, state)
    some = {ALL: files, KNOWN - 1: files[:50] + files[51:KNOWN]}
    spent: dict[tuple[int, bool], list[float]] = {}
    how = ""
    for turn in range(times + 1):
        for count, chosen in some.items():
            results = []
            for keep in (True, False):
                shutil.rmtree(cache)
                shutil.copytree(state, cache)
                result, seconds = run(chosen, rule, reference, keep)
                results.append(result)
                # The first turn compiles.
                if turn > 0:
                    spent.setdefault((count, keep), []).append(seconds)
            if any(
                not np.array_equal(*(getattr(r, name) for r in results), equal_nan=True) for name in ARRAYS
            ):
                raise AssertionError(f"{kind}, {rule}: the results with {count} frames differ")
            how = results[0].how if count == ALL else how
    shutil.rmtree(state)
    full, grown = (statistics.median(spent[ALL, keep]) for keep in (False, True))
    ratios = [statistics.median(spent[n, True]) / statistics.median(spent[n, False]) for n in some]
    return (
        f"| {kind} | {rule} | {full:.2f} | {grown:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {how} | "
        f"{keeping:.2f} | {'ok' if max(ratios) <= MOST else 'missed'} |"
    )


def run(files: list[str], rule: str, reference: str, keep: bool) -> tuple[object, float]:
    """Integrate, and return the result and the CPU seconds."""
    import stacklib as sl

    recipe = sl.Recipe(rejection=rule, reference=reference, joint_colour=False)
    before = os.times()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sl.integrate(files, recipe, progress=False, keep_samples=keep, memory="8GB")
    after = os.times()
    return result, after.user + after.system - before.user - before.system


if __name__ == "__main__":
    main()
