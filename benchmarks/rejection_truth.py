"""Measure rejection rules and the uncertainty against the truth of simulated frames, and print tables.

Run ``python benchmarks/rejection_truth.py``; it takes about ten minutes. Nothing was tuned on its seeds.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from report import table

import stacklib as sl
from stacklib.formats import fits
from stacklib.simulate import simulate_night

RULES = ("sigma", "winsorized_sigma", "gesd", "calibrated_sigma", "noise_model")
COUNTS = (4, 5, 6, 8, 10, 12, 16, 20, 40, 100, 200)
LEVEL, SIGMA, SAMPLES, SEED = 0.1, 1e-3, 2_000_000, 8801
#: One-sided rates of a Gaussian beyond 3.2 and 2.9 sigma together.
ASKED = 0.000687 + 0.001866


def sky(rule: str, count: int, unequal: bool) -> list[str]:
    """Rejections of clean sky, the noise they add, and hits found: of 6 and 10 sigma, and two of 10 sigma."""
    rng = np.random.default_rng([SEED, count])
    side = max(60, int((SAMPLES / count) ** 0.5))
    noise = np.where(np.arange(count) % 2, 2.0 if unequal else 1.0, 1.0)[:, np.newaxis, np.newaxis]
    clean = (LEVEL + SIGMA * noise * rng.standard_normal((count, side, side))).astype(np.float32)
    recipe, weight = sl.Recipe(rejection=rule), 1 / noise**2
    kept = sl.reject(clean, recipe)
    mean = (clean * weight * kept).sum(axis=0) / (weight * kept).sum(axis=0)
    added = mean.std() / ((clean * weight).sum(axis=0) / weight.sum()).std() - 1
    found = []
    for height, hits in ((6, 1), (10, 1), (10, 2)):
        struck = np.zeros(clean.shape, bool)
        for row, column in np.ndindex(side // 5, side // 5):
            struck[rng.permutation(count)[:hits], 5 * row + 2, 5 * column + 2] = True
        hit = clean + (height * SIGMA * noise * struck).astype(np.float32)
        found.append(f"{100 * np.mean(~sl.reject(hit, recipe)[struck]):.1f}")
    frames = f"{count}, noise x1 and x2" if unequal else str(count)
    return [frames, rule, f"{np.mean(~kept) / ASKED:.2f}", f"{100 * added:+.2f}", *found]


def uncertainty(folder: Path, rule: str, count: int, unequal: bool) -> list[str]:
    """Error over uncertainty on clean sky, and where a hit of 30 sigma was removed."""
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
    numbers = []
    for where in (~hit, hit & (result.rejection_high[0] > 0)):
        error, claim = (result.image[0] - LEVEL)[where], result.uncertainty[0][where]
        ratio = np.sqrt(np.mean(error**2) / np.mean(claim**2)) if where.any() else np.nan
        numbers += [f"{np.std(error / claim):.3f}" if where.any() else "", f"{ratio:.3f}"]
    return [f"{count}, noise x.7 to x2" if unequal else str(count), rule, *numbers]


def stars(folder: Path, rule: str, count: int) -> list[str]:
    """Light of bright stars that rejection takes, in %, under seeing of 2.6 to 3.75 px and clouds."""
    night = simulate_night(count, 500, 600, 1, "field", SEED + count, fwhm=(2.6, 3.75))
    if not folder.exists():
        night.save(folder, "fits", "f32")
    matched = {"normalization": "photometric", "rejection_normalization": "photometric", "weights": "none"}
    images = [sl.integrate(folder, sl.Recipe(rejection=r, **matched), progress=False) for r in ("none", rule)]
    lost = (images[0].original - images[1].original)[0].astype(float)
    light = night.truth[0] - np.median(night.truth)
    one = float(np.median(night.sky_sigma))
    lost -= lost[light < one].mean()
    chosen = night.isolated_stars(100)
    shares = []
    for x, y in zip(night.scene.x[chosen], night.scene.y[chosen], strict=True):
        window = np.s_[max(int(y) - 4, 0) : int(y) + 5, max(int(x) - 4, 0) : int(x) + 5]
        if light[window].max() > 8 * one:
            shares.append(100 * lost[window].sum() / light[window].sum())
    rejected = (images[1].rejection_low + images[1].rejection_high)[0]
    rates = [f"{rejected[where].mean() / ASKED:.2f}" for where in (light > 3 * one, light < one)]
    return [
        str(count),
        rule,
        str(len(shares)),
        f"{np.median(shares):.2f}",
        f"{np.max(np.abs(shares)):.2f}",
        *rates,
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    head = ["frames", "rule", "false / asked", "noise added, %", "6 sigma, %", "10 sigma, %", "two of 10, %"]
    print(table(head, [sky(r, n, u) for n in COUNTS for u in (False, True) for r in RULES]), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head = ["frames", "rule", "std of z", "rms error / claim", "std, hits", "rms, hits"]
        cases = [(n, u, r) for n in (5, 10, 20, 50) for u in (False, True) for r in sl_rules()]
        rows = [uncertainty(folder / f"{r}-{n}-{u}", r, n, u) for n, u, r in cases]
        print(table(head, rows), flush=True)
        head = ["frames", "rule", "stars", "median loss, %", "largest, %", "rejected, stars", "rejected, sky"]
        print(table(head, [stars(folder / f"stars-{n}", r, n) for n in (6, 10, 20, 40) for r in RULES]))


def sl_rules() -> tuple[str, ...]:
    """Return all rules."""
    return tuple(rule for rule in sl.Recipe.parameters()["rejection"].choices or () if rule != "auto")


if __name__ == "__main__":
    sys.exit(main())
