"""Speed and memory of an integration, side by side with Siril, ccdproc and numpy.

``python benchmarks/run.py`` simulates the frames, times all contenders by turns and prints the tables.
Siril and ccdproc are left out if they are not installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from processes import COMPILED

HERE = Path(__file__).resolve().parent
QUICK_WORDS = "A quick run on small frames, where fixed costs prevail: it measures nothing."


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small frames: a test of the script itself")
    parser.add_argument("--keep", action="store_true", help="keep benchmarks/scratch")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument("--only", choices=("presets",), help="this part of the report alone")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick gives no numbers worth writing; drop --quick or --write")
    scratch = HERE / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    start = time.monotonic()
    try:
        text = report(scratch, options.quick, options.write, options.only)
    finally:
        if not options.keep:
            shutil.rmtree(scratch, ignore_errors=True)
    print(text)
    print(f"Took {(time.monotonic() - start) / 60:.1f} minutes.", file=sys.stderr)


def report(scratch: Path, quick: bool, write: bool, only: str | None = None) -> str:
    """Run everything, or the presets alone, and return the tables."""
    # Before numba is imported: compiled code of the current files only.
    os.environ["NUMBA_CACHE_DIR"] = str(scratch / COMPILED)
    from report import PRESETS, machine, write_readme
    from sections import QUICK, Benchmark, Plan

    plan = QUICK if quick else Plan()
    free = shutil.disk_usage(scratch).free
    if free < 1.2 * plan.bytes + 5e8:
        sys.exit(f"The frames need {plan.bytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free")
    benchmark = Benchmark(plan, scratch)
    texts = {} if only else {(): benchmark.run()}
    texts[PRESETS] = f"{machine()}\n\n{benchmark.presets()}"
    if write:
        for markers, text in texts.items():
            write_readme(HERE / "README.md", text, *markers)
    if quick:
        return "\n\n".join([QUICK_WORDS, *texts.values()])
    return "\n\n".join(texts.values())


if __name__ == "__main__":
    main()
