"""How long compressed frames take, beside the same frames uncompressed.

``python benchmarks/compressed.py`` writes the frames of a night in several codecs and integrates each set by
turns with the uncompressed one, nothing known and measurements known. A compressed run may take 1.3 times as
long as the plain run and the decompression together, both on all cores. ``--write`` puts the table into
README.md.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import contenders
import numpy as np
from astropy.io import fits
from report import machine, table, write_readme
from timing import Timings, number
from xisf import XISF

import stacklib as sl
from stacklib.simulate import make_benchmark_frames

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: compressed -->", "<!-- end: compressed -->"
#: Largest time of a compressed run, over the plain run and decompression together.
MOST = 1.3
#: How frames are compressed: options of XISF, or of the tiles of FITS.
CODECS = {
    "XISF, zlib": dict(codec="zlib", shuffle=False),
    "XISF, zlib, shuffled": dict(codec="zlib", shuffle=True),
    "XISF, LZ4, shuffled": dict(codec="lz4", shuffle=True),
    "XISF, Zstandard, shuffled": dict(codec="zstd", shuffle=True),
    "FITS, fpack, GZIP_2": dict(compression_type="GZIP_2", quantize_level=0),
    "FITS, fpack, RICE_1": dict(compression_type="RICE_1"),
}
PLAIN = "plain"
FIRST, KNOWN, READ = "first time", "measurements known", "reading"


def main() -> None:
    """Parse the options, run, print, tidy up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(20, 1500, 2000), metavar=("N", "HEIGHT", "WIDTH")
    )
    parser.add_argument("--memory", default="2GB", help="budget of the runs")
    parser.add_argument("--codecs", nargs="*", default=list(CODECS), choices=list(CODECS))
    parser.add_argument("--turns", type=int, default=3, help="number of turns")
    options = parser.parse_args()
    (HERE / "scratch").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HERE / "scratch") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        rows = list(compare(Path(scratch), options))
    count, height, width = options.shape
    head = [f"{count} frames of {width} x {height}, memory {options.memory}", "size", "decompressing, s"]
    head += [cell for name in (FIRST, KNOWN) for cell in (f"{name}, s", "CPU", f"ratio, at most {MOST}")]
    text = f"{machine()}\n\n{table(head, rows)}"
    print(text)
    if options.write:
        write_readme(HERE / "README.md", text, BEGIN, END)


def compare(scratch: Path, options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the rows of the table."""
    for integers in (False, True):
        plain = scratch / PLAIN
        files = make_benchmark_frames(plain, *options.shape, dtype="u16" if integers else "f32")
        size = sum(path.stat().st_size for path in files)
        for codec in options.codecs:
            if integers != ("RICE" in codec):
                # Rice codes integers, without loss; the others are timed with floats.
                continue
            packed = scratch / "packed"
            packed_size = sum(compress(path, packed, codec).stat().st_size for path in files)
            timings = timed(plain, packed, options)
            kind = "16-bit integers" if integers else "float32"
            yield row(f"{codec}, {kind}", packed_size / size, timings)
            shutil.rmtree(packed)
        shutil.rmtree(plain)


def compress(path: Path, folder: Path, codec: str) -> Path:
    """Write a frame compressed, and return the file."""
    folder.mkdir(exist_ok=True)
    options = CODECS[codec]
    with fits.open(path) as hdus:
        image, header = hdus[0].data, hdus[0].header
        if codec.startswith("FITS"):
            kept = ("DATE-OBS", "EXPTIME", "OBJECT")
            hdu = fits.CompImageHDU(image, fits.Header([header.cards[name] for name in kept]), **options)
            hdu.writeto(folder / path.with_suffix(".fits.fz").name)
            return folder / path.with_suffix(".fits.fz").name
        found = folder / path.with_suffix(".xisf").name
        pixels = np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), 2, 0)[0][:, :, None])
        XISF.write(str(found), pixels.astype(image.dtype.newbyteorder("=")), **options)
        return found


def timed(plain: Path, packed: Path, options: argparse.Namespace) -> Timings:
    """Time runs and reading of both sets by turns."""
    timings = Timings()
    for turn in range(options.turns + 1):
        # The first turn compiles.
        kept = timings if turn else Timings()
        for folder in (plain, packed):
            kept.measure(READ, folder.name, read, folder)
            contenders.forget(folder)
            for name in (FIRST, KNOWN):
                kept.measure(name, folder.name, contenders.integrate, folder, "sigma", memory=options.memory)
    return timings


def read(folder: Path) -> None:
    """Read all pixels as float32 on all cores."""
    frames = sl.open_frames(str(folder))
    with ThreadPoolExecutor(contenders.processors()) as pool:
        list(pool.map(lambda frame: (frame.read(), frame.close()), frames))


def row(name: str, share: float, timings: Timings) -> list[str]:
    """Return a row of the table."""
    decompressing = {
        kind: statistics.median(seconds[READ, "packed"]) - statistics.median(seconds[READ, PLAIN])
        for kind, seconds in (("wall", timings.wall), ("cpu", timings.cpu))
    }
    cells = [name, f"{100 * share:.0f} %", number(decompressing["wall"])]
    for step in (FIRST, KNOWN):
        ratios = []
        for kind, seconds in (("wall", timings.wall), ("cpu", timings.cpu)):
            packed, plain = (statistics.median(seconds[step, each]) for each in ("packed", PLAIN))
            ratios.append(packed / (plain + decompressing[kind]))
            cells.append(number(packed))
        verdict = "ok" if ratios[0] <= MOST else "missed"
        cells.append(f"{ratios[0]:.2f} x, CPU {ratios[1]:.2f} x: {verdict}")
    return cells


if __name__ == "__main__":
    main()
