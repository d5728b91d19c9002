"""Cost of a sample with few and many frames, small and large ones, and the memory that is needed.

``python benchmarks/scale.py`` integrates sets of growing size in processes of their own. Pixels are made as
they are read: the files hold no more than a header, so that a hundred large frames in color need no disk. A
sample of the largest set may cost 1.3 times as much as one of a small set, and the peak be 300 MB above
the budget. ``--write`` puts the tables into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from processes import peak_memory, run
from report import machine, table, write_readme
from timing import number

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: scale -->", "<!-- end: scale -->"
#: Largest cost of a sample over that of the small set; megabytes above the budget and an idle process.
MOST, ABOVE = 1.3, 300
#: Most files that may be open at the same time.
MOST_FILES = 64
#: Numbers of frames of one small size.
COUNTS = (5, 10, 20, 50, 100, 200, 500, 1000)
#: Values that are repeated: a prime number, so that rows and frames differ.
PATTERN = 15_485_863
RULES = ("sigma", "winsorized_sigma")


class Set(NamedTuple):
    """Number, channels, height and width of frames, and the budget."""

    count: int
    channels: int
    height: int
    width: int
    memory: str

    @property
    def samples(self) -> int:
        """All samples."""
        return self.count * self.channels * self.height * self.width

    @property
    def words(self) -> str:
        """What it is in words."""
        color = " RGB" if self.channels == 3 else ""
        return f"{self.count} frames of {self.width} x {self.height}{color}, memory {self.memory}"


SMALL, LARGE = Set(20, 1, 1500, 2000, "4GB"), Set(100, 3, 4176, 6248, "4GB")


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument(
        "--quick", action="store_true", help="a smaller large set: a test of the script itself"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        integrate(**json.loads(options.job))
        return
    scratch = HERE / "scratch" / "scale"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        large = LARGE._replace(count=30, height=1000, width=1500, memory="200MB") if options.quick else LARGE
        text = "\n\n".join([machine(), sizes(scratch, large), counts(scratch)])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(text)
    if options.write:
        write_readme(HERE / "README.md", text, BEGIN, END)


def sizes(scratch: Path, large: Set) -> str:
    """Return the table of a small and a large set."""
    rows, small = [], {}
    for each in (SMALL, large):
        for rule in RULES:
            # The first run compiles.
            job(scratch, SMALL._replace(count=5, height=200, width=300), rule)
            found = job(scratch, each, rule)
            cost = {name: 1e9 * found[name] / each.samples for name in ("first", "known")}
            small.setdefault(rule, cost)
            above = found["peak"] / 1e6 - found["idle"] / 1e6 - megabytes(each.memory)
            ratios = [cost[name] / small[rule][name] for name in cost]
            met = max(ratios) <= MOST and above <= ABOVE
            rows.append(
                [
                    each.words,
                    rule,
                    number(found["wall"]),
                    *(number(value) for value in cost.values()),
                    " / ".join(f"{ratio:.2f}" for ratio in ratios),
                    f"{found['peak'] / 1e6:.0f}",
                    f"{above:+.0f}",
                    "ok" if met else "missed",
                ]
            )
    head = ["", "rule", "seconds, first", "CPU ns a sample, first", "known"]
    head += [f"over the small set, at most {MOST}", "peak, MB", f"over budget and idle, at most {ABOVE}", ""]
    return table(head, rows)


def counts(scratch: Path) -> str:
    """Return the table of numbers of frames."""
    rows = []
    for count in COUNTS:
        cells = [str(count)]
        for rule in RULES:
            found = job(scratch, Set(count, 1, 500, 600, "4GB"), rule)
            cells += [number(1e9 * found[name] / (count * 500 * 600)) for name in ("first", "known")]
        rows.append([*cells, str(found["handles"])])
    head = ["frames of 600 x 500, CPU ns a sample"]
    head += [f"{rule}, {name}" for rule in RULES for name in ("first", "known")]
    return table([*head, f"most open files, at most {MOST_FILES}"], rows)


def megabytes(memory: str) -> float:
    """Return a budget in megabytes."""
    from stacklib.utils.resources import parse_memory

    return parse_memory(memory) / 1e6


def job(scratch: Path, each: Set, rule: str) -> dict[str, float]:
    """Integrate a set in a process of its own; return CPU seconds, wall seconds, bytes and open files."""
    out = scratch / "found.json"
    arguments = json.dumps({"folder": str(scratch / "frames"), "each": each, "rule": rule, "out": str(out)})
    environment = {"STACKLIB_CACHE": str(scratch / "cache")}
    run([sys.executable, str(Path(__file__)), "--job", arguments], scratch, **environment)
    return json.loads(out.read_text())


def integrate(folder: str, each: list, rule: str, out: str) -> None:
    """Integrate a set twice, first with nothing known, and write what it took."""
    import contenders

    import stacklib as sl

    wanted = Set(*each)
    shutil.rmtree(folder, ignore_errors=True)
    make_headers(Path(folder), wanted)
    handles = made_as_they_are_read()
    settings, found = contenders.recipe(rule), {}
    found["idle"] = peak_memory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        for name in ("first", "known"):
            cpu, wall = time.process_time(), time.perf_counter()
            sl.integrate(folder, settings, memory=wanted.memory, progress=False)
            found[name] = time.process_time() - cpu
            found.setdefault("wall", time.perf_counter() - wall)
    found["peak"], found["handles"] = peak_memory(), max(handles)
    Path(out).write_text(json.dumps(found))


def make_headers(folder: Path, each: Set) -> None:
    """Write files with a header and a hole in place of the pixels."""
    folder.mkdir(parents=True)
    shape = (each.height, each.width) if each.channels == 1 else (each.channels, each.height, each.width)
    for number_of in range(each.count):
        header = fits.PrimaryHDU(np.broadcast_to(np.float32(0), (1,) * len(shape))).header
        for axis, size in enumerate(reversed(shape), start=1):
            header[f"NAXIS{axis}"] = size
        header["DATE-OBS"] = f"2021-08-15T{number_of // 60 % 24:02d}:{number_of % 60:02d}:00"
        text = header.tostring().encode()
        size = 4 * each.channels * each.height * each.width
        with (folder / f"frame_{number_of:04d}_c_d_r.fits").open("wb") as stream:
            stream.write(text)
            stream.truncate(len(text) + -(-size // 2880) * 2880)


def made_as_they_are_read() -> list[int]:
    """Let this process read simulated pixels; returns a list that gets the number of open files."""
    from stacklib.formats.source import FileBlock

    random = np.random.default_rng(20210815)
    values = (0.1 + 0.01 * random.standard_normal(PATTERN, np.float32)).astype(">f4")
    # As bytes: joined as numbers they would lose their order of bytes.
    values = np.tile(values.view(np.uint8), 2)
    original, handles = FileBlock.reader, [0]
    open_files = Path("/proc/self/fd")

    @contextlib.contextmanager
    def reader(self):
        with original(self) as read_into:
            frame = int(self.path.name.split("_")[1])
            handles.append(sum(1 for _ in open_files.iterdir()) if open_files.exists() else 0)

            def made(offset, view):
                if offset % 4 or len(view) % 4:
                    read_into(offset, view)
                    return
                while len(view):
                    start = (offset + 4 * 7_368_787 * frame) % (4 * PATTERN)
                    piece = values[start : start + min(len(view), 4 * PATTERN)]
                    view[: len(piece)] = piece.data
                    offset, view = offset + len(piece), view[len(piece) :]

            yield made

    FileBlock.reader = reader
    return handles


if __name__ == "__main__":
    main()
