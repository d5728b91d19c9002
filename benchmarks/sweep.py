"""Time a sweep of 100 pairs of limits against one integration of the same region.

``python benchmarks/sweep.py`` simulates frames, integrates a region of them once, tries all limits on it, by
turns, and prints a table. ``--write`` puts it into README.md.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from pathlib import Path

import numpy as np
from report import machine, table, write_readme
from timing import Timings, spread

import stacklib as sl
from stacklib.simulate import make_benchmark_frames

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: sweep -->", "<!-- end: sweep -->"

#: Frames, their height and width; the region.
FRAMES, REGION = (40, 700, 900), (100, 100, 512, 512)
LIMITS = np.linspace(2.0, 5.0, 10)
RULES = ("sigma", "winsorized_sigma")
#: One sweep may take as long as so many integrations; the naive way takes as long as 100.
MOST = 25
TURNS = 5


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    folder = HERE / "scratch" / "sweep"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        make_benchmark_frames(folder, *FRAMES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.StacklibWarning)
            text = compare(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if options.write:
        write_readme(HERE / "README.md", text, BEGIN, END)


def compare(folder: Path) -> str:
    """Time both by turns, with compiled code and known measurements; return the table."""
    grid = {"sigma_low": LIMITS, "sigma_high": LIMITS}
    timings, rows = Timings(), []
    for turn in range(TURNS + 1):
        # The first turn compiles, and measures the frames.
        kept = timings if turn else Timings()
        for rule in RULES:
            recipe = sl.Recipe(rejection=rule)
            kept.measure("one", rule, sl.integrate, str(folder), recipe, region=REGION, progress=False)
            kept.measure("sweep", rule, sl.sweep, str(folder), grid, recipe, region=REGION, progress=False)
    for rule in RULES:
        ratios = timings.ratios(("sweep", rule), ("one", rule))
        verdict = "ok" if np.median(ratios) <= MOST else "missed"
        cells = [spread(timings.wall[name, rule], " s") for name in ("one", "sweep")]
        rows.append([rule, *cells, spread(ratios, " x"), verdict])
    head = [
        f"{REGION[2]} x {REGION[3]} pixels of {FRAMES[0]} frames",
        "`integrate`",
        "`sweep`, 10 x 10 limits",
    ]
    return f"{machine()}\n\n{table([*head, f'ratio, at most {MOST}', ''], rows)}"


if __name__ == "__main__":
    main()
