"""Measure rejection, uncertainty and the registration check against the truth of simulated frames.

``python benchmarks/rejection_truth.py`` prints the tables of docs/night.md on what is promised for every
number of frames, ``--write`` puts them there. It takes about ten minutes. Nothing was tuned on its seeds.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from report import table, write_readme

import stacklib as sl
from stacklib.formats import fits
from stacklib.integration.registration import Registration, check_registration, measure_shifts
from stacklib.recipe.rules import RULES as SPECS
from stacklib.simulate import simulate_night

PAGE = Path(__file__).resolve().parents[1] / "docs" / "night.md"
#: Rules in the tables on rejection, and the numbers of frames.
RULES = ("sigma", "winsorized_sigma", "gesd", "calibrated_sigma", "noise_model")
COUNTS, FEW, CLAIMED = (4, 5, 6, 8, 10, 12, 16, 20, 40, 100, 200), (5, 8, 10), (5, 10, 20, 50)
LEVEL, SIGMA, SAMPLES, SEED = 0.1, 1e-3, 1_000_000, 8801
#: One-sided rates of a Gaussian beyond 3.2 and 2.9 sigma together.
ASKED = 0.000687 + 0.001866
#: Sets of registered frames, sets of each kind that are not, and size of the frames.
REGISTERED, SHIFTED, SHAPE = 200, 20, (300, 400)
KINDS, METHODS = ("field", "spiral", "globular", "nebula"), ("none", "bilinear", "bicubic", "lanczos")


def sky(count: int, unequal: bool = False) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Return clean frames, float32 (count, side, side), and their noise, alike or x1 and x2 by turns."""
    rng = np.random.default_rng([SEED, count])
    side = max(60, int((SAMPLES / count) ** 0.5))
    noise = np.where(np.arange(count) % 2, 2.0 if unequal else 1.0, 1.0)[:, np.newaxis, np.newaxis]
    clean = LEVEL + SIGMA * noise * rng.standard_normal((count, side, side))
    return rng, clean.astype(np.float32), noise


def false_rejections() -> tuple[list[str], list[list[str]]]:
    """Compare the rate of false rejections of clean sky with that of Gaussian noise beyond the limits."""
    rows = []
    for count in COUNTS:
        _, clean, _ = sky(count)
        rates = [np.mean(~sl.reject(clean, sl.Recipe(rejection=rule))) / ASKED for rule in RULES]
        rows.append([str(count), *(f"{rate:.2f}" for rate in rates)])
        progress(rows[-1])
    return ["frames", *RULES], rows


def hits_found() -> tuple[list[str], list[list[str]]]:
    """Count hits that are found: one of 6 and of 10 sigma in a pixel, and two of 10."""
    rows = []
    for count in FEW:
        for unequal in (False, True):
            for height, hits in ((6, 1), (10, 1), (10, 2)):
                rng, clean, noise = sky(count, unequal)
                struck = np.zeros(clean.shape, bool)
                for row, column in np.ndindex(*(size // 5 for size in clean.shape[1:])):
                    struck[rng.permutation(count)[:hits], 5 * row + 2, 5 * column + 2] = True
                hit = clean + (height * SIGMA * noise * struck).astype(np.float32)
                found = [np.mean(~sl.reject(hit, sl.Recipe(rejection=rule))[struck]) for rule in RULES]
                what = "one" if hits == 1 else "two"
                words = f"{count}, noise x1 and x2" if unequal else str(count)
                rows.append([words, f"{what} of {height} sigma", *(f"{100 * part:.1f} %" for part in found)])
                progress(rows[-1])
    return ["frames", "hits in a pixel", *RULES], rows


def uncertainties() -> tuple[list[str], list[list[str]]]:
    """Compare the error of clean sky with its uncertainty, also where a hit of 30 sigma was removed."""
    rows = []
    averaging = [rule for rule in SPECS if rule not in ("none", "auto")]
    with tempfile.TemporaryDirectory() as name:
        for unequal in (False, True):
            for rule in ("none", *averaging):
                numbers = [
                    claimed(Path(name) / f"{rule}-{count}-{unequal}", rule, count, unequal)
                    for count in CLAIMED
                ]
                rows.append(["x.7 to x2" if unequal else "equal", f"`{rule}`", *numbers])
                progress(rows[-1])
    return ["noise", "rule", *(f"{count} frames" for count in CLAIMED)], rows


def claimed(folder: Path, rule: str, count: int, unequal: bool) -> str:
    """Return std of error over uncertainty, and rms error over rms uncertainty, of sky and of hit pixels."""
    if count < SPECS[rule].least_frames:
        return "–"
    rng = np.random.default_rng([SEED, count, unequal])
    hit = np.zeros((200, 200), bool)
    hit[1::5, 1::5] = True
    struck = np.where(hit, rng.integers(count, size=hit.shape), -1)
    noise = np.linspace(0.7, 2, count) if unequal else np.ones(count)
    folder.mkdir()
    for i, own in enumerate(noise):
        image = LEVEL + SIGMA * own * rng.standard_normal(hit.shape) + 0.03 * (struck == i)
        cards = [("NOISE00", own * SIGMA, "")]
        fits.write_image(folder / f"{i:03d}.fits", image.astype(np.float32), cards)
    plain = {"normalization": "none", "rejection_normalization": "none", "allow_unregistered": True}
    weights = "noise" if unequal else "none"
    recipe = sl.Recipe(rejection=rule, weights=weights, reference="000", **plain)
    result = sl.integrate(folder, recipe, progress=False)
    parts = []
    for where in (~hit, hit & (result.rejection_high[0] > 0)):
        if np.count_nonzero(where) < 100:
            parts.append("–")
            continue
        error, claim = (result.image[0] - LEVEL)[where], result.uncertainty[0][where]
        ratio = np.sqrt(np.mean(error**2) / np.mean(claim**2))
        parts.append(f"{np.std(error / claim):.2f}, {ratio:.2f}")
    return "; ".join(parts)


def registration() -> tuple[list[str], list[list[str]]]:
    """Count sets of frames that the check of the registration finds fault with, and frames that it names."""
    rows = []
    kinds: dict[str, tuple[int, Callable[[int], np.ndarray]]] = {
        "well registered": (REGISTERED, lambda count: np.zeros((count, 2))),
        "one frame off by 1 pixel": (SHIFTED, lambda count: one_off(count, (1, 0))),
        "one frame off by 5 pixels": (SHIFTED, lambda count: one_off(count, (4, -3))),
        "all adrift, 12 pixels a frame": (SHIFTED, lambda count: np.arange(count)[:, None] * (12, 0)),
    }
    for words, (sets, shifts_of) in kinds.items():
        found = {"nothing": 0, "a warning": 0, "an error": 0, "not known": 0}
        named = wrong = off = 0
        for number in range(sets):
            rng = np.random.default_rng([SEED, number])
            count = int(rng.integers(6, 13))
            shifts = shifts_of(count)
            result = measured_shifts(KINDS[number % 4], METHODS[number // 4 % 4], count, number, shifts)
            verdict, frames = judged(result)
            found[verdict] += 1
            moved = set(np.flatnonzero(np.any(shifts != 0, axis=1)).tolist())
            if 0 < len(moved) < count - 1:
                off, named = off + len(moved), named + len(moved & frames)
            if len(moved) < count - 1:
                wrong += len(frames - moved)
        rows.append(
            [words, str(sets), *map(str, found.values()), f"{named} of {off}" if off else "–", str(wrong)]
        )
        progress(rows[-1])
    return ["frames", "sets", *found, "moved frames named", "others named"], rows


def one_off(count: int, shift: tuple[int, int]) -> np.ndarray:
    """Return shifts of frames of which one is off."""
    shifts = np.zeros((count, 2), int)
    shifts[count // 2] = shift
    return shifts


def measured_shifts(kind: str, method: str, count: int, seed: int, shifts: np.ndarray) -> Registration:
    """Measure how the frames of a night lie on each other, once they were moved."""
    margin = int(np.abs(shifts).max())
    height, width = (size + 2 * margin for size in SHAPE)
    # Frames aligned by whole pixels are named for that.
    still = {"dither": 0.0} if method == "none" else {}
    night = simulate_night(count, height, width, kind=kind, seed=SEED + seed, registration=method, **still)

    def moved(i: int) -> np.ndarray:
        x, y = (margin + int(shift) for shift in shifts[i])
        frame = night.frame(i)[0]
        return np.where(frame == 0, np.float32(np.nan), frame)[y : y + SHAPE[0], x : x + SHAPE[1]]

    frames = [moved(i) for i in range(count)]

    def read(i: int, window: tuple[int, int, int, int]) -> np.ndarray:
        left, top, across, down = window
        return frames[i][top : top + down, left : left + across].copy()

    return measure_shifts(read, count, SHAPE, night.reference)


def judged(found: Registration) -> tuple[str, set[int]]:
    """Return what a run says about shifts, and the frames that it names."""
    names = [f"frame{i:03d}" for i in range(len(found.shift))]
    try:
        notes, verdict = check_registration(found, names, allowed=False), "a warning"
    except sl.IntegrationError as error:
        notes, verdict = [str(error)], "an error"
    if not notes:
        return ("nothing" if np.isfinite(found.error).any() else "not known"), set()
    return verdict, {i for i, name in enumerate(names) if name in notes[0]}


def progress(row: list[str]) -> None:
    """Print a row as soon as it is known."""
    print(" | ".join(row), file=sys.stderr, flush=True)


#: Parts of the page, each between markers of its own.
PARTS = {
    "false": false_rejections,
    "hits": hits_found,
    "uncertainty": uncertainties,
    "registration": registration,
}


def main() -> None:
    """Parse the options, run, print."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some of the parts")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/night.md")
    options = parser.parse_args()
    start = time.monotonic()
    for name in options.only:
        text = (
            f"Measured on {datetime.date.today()} with stacklib {sl.__version__}.\n\n{table(*PARTS[name]())}"
        )
        print(f"{text}\n")
        if options.write:
            write_readme(PAGE, text, f"<!-- begin: {name} -->", f"<!-- end: {name} -->")
    print(f"Took {(time.monotonic() - start) / 60:.1f} minutes.", file=sys.stderr)


if __name__ == "__main__":
    main()
