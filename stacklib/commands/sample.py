"""``stacklib sample``: make frames to try things on."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from stacklib.simulate.targets import KINDS

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add description and arguments."""
    parser.description = (
        "Simulate a night of 2000 x 1500 pixels on which clouds pass, the gradient moves\n"
        "and the seeing changes. Frames are written into FOLDER/4_Registered, their truth into\n"
        "FOLDER/truth. 20 RGB frames take 360 MB and less than a minute, 20 mosaics 160 MB and two minutes."
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder, created if needed")
    parser.add_argument("--kind", choices=list(KINDS), default="spiral", help="target (default: spiral)")
    parser.add_argument(
        "--count", type=_whole_number(1, 1000), default=20, metavar="N", help="number of frames (default: 20)"
    )
    parser.add_argument(
        "--seed", type=_whole_number(0, 10**6), default=1, metavar="N", help="another sky and other noise"
    )
    parser.add_argument(
        "--mosaic",
        action="store_true",
        help="color mosaics (RGGB) of 1200 x 900 pixels to drizzle: unregistered frames in 3_Calibrated, "
        "registered ones and .xdrz files in 4_Registered",
    )
    parser.add_argument(
        "--format", choices=("xisf", "fits"), default="xisf", help="file format (default: xisf)"
    )
    parser.set_defaults(command=main)


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to whole numbers of a range."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from {low} to {high}")
        return int(text)

    return convert


def main(options: argparse.Namespace) -> int:
    """Make frames."""
    # Here, so that help comes at once.
    from stacklib.simulate import large_mosaics, large_night, make_large_mosaics, make_large_night

    kind, count, seed, mosaic = options.kind, options.count, options.seed, options.mosaic
    call = f"{kind!r}, {count}, {seed}"
    if mosaic:
        print(f"Writing {count} color mosaics of 1200 x 900 pixels ...", flush=True)
        made = [*make_large_mosaics(options.folder, large_mosaics(kind, count, seed), call, options.format)]
        command, what = "drizzle", "drizzles"
    else:
        print(f"Writing {count} RGB frames of 2000 x 1500 pixels ...", flush=True)
        made = [make_large_night(options.folder, large_night(kind, count, seed), call, options.format)]
        command, what = "run", "integrates"
    target = made[0].parent
    print(*made, target / "truth", sep="\n")
    print(f"\nstacklib {command} {target} {what} them.")
    return 0
