"""Measure classic and measured integration against the truth of simulated nights.

``python benchmarks/night.py`` simulates nights, integrates each of them both ways, compares the masters with
the truth and prints the tables of docs/night.md. ``--write`` puts them there. It takes about half an hour.
Seeds are new: nothing in stacklib was tuned on them.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import sep
from report import table, write_readme
from scipy.ndimage import laplace

import stacklib as sl
from stacklib.normalization.surfaces import basis
from stacklib.recipe.presets import PRESETS
from stacklib.recipe.recipe import Recipe
from stacklib.simulate import ChangingNight, Trail, simulate_night

PAGE = Path(__file__).resolve().parents[1] / "docs" / "night.md"
SEEDS = (7301, 7302, 7303)
NUMBERS = (6, 10, 20, 40)
#: Height and width of the frames.
USUAL, SMALL, QUICK = (600, 800), (400, 530), (200, 260)
CLASSIC_WAY, MEASURED_WAY = "classic", "measured"
#: Seeds of the nights that tell bad luck from bias, and their numbers of frames.
NIGHT_SEEDS, FEW_AND_MANY = (7521, 7522, 7523, 7524), (6, 40)
#: Heads of the tables.
BOTH = ["", CLASSIC_WAY, MEASURED_WAY]
HEADS = {
    "grid": ["target", "registration", "least possible", *(f"{count} frames" for count in NUMBERS)],
    "nights": ["target", "registration", *(f"{count} frames" for count in FEW_AND_MANY)],
    "light": [
        *("target", "pixels", "stars", "error of the light of a frame, found", "told", "least possible"),
        *("largest error of a factor in a night", "flux of stars in the master, mean of the nights"),
    ],
}
#: Seeds of the nights that show how well the light of a frame can be known, and where frames saturate.
LIGHT_SEEDS, SATURATED = (7311, 7312, 7313), 0.9
STEADY = {"transparency": (1.0, 1.0), "gradient": 0.0, "sky_drift": 0.0, "fwhm": (3.0, 3.0)}
#: Targets of the grid: largest error of a factor, usually and in the nebula, and of the flux of stars.
FACTOR, FLUX = (0.015, 0.03), 0.005
#: Number of stars that tell the flux of a master.
BRIGHTEST = 100
#: Below this level a pixel is sky, in sigma of one frame above the background.
SKY_SIGMA = 0.1


def recipe_for(way: str, count: int) -> Recipe:
    """Return the recipe of a way for a number of frames."""
    suggested = Recipe.suggest(count)
    return suggested if way == CLASSIC_WAY else suggested.replace(**PRESETS["measured"])


@dataclass
class Run:
    """A night integrated one way, and what should have come out.

    Factors and weights are (frames,), of the frames that were used.
    """

    night: ChangingNight
    way: str
    changes: dict = field(default_factory=dict)

    @cached_property
    def result(self) -> sl.Integration:
        """The integration; the reference frame is the best one, as the truth has it."""
        night = self.night
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.StacklibWarning)
            paths = night.save(folder, "fits", "f32")
            recipe = recipe_for(self.way, night.count)
            recipe = recipe.replace(reference=paths[night.reference].name, **self.changes)
            return sl.integrate([str(path) for path in paths], recipe, progress=False)

    @property
    def used(self) -> np.ndarray:
        """Indices of the frames that were used."""
        return self.result.preparation.used

    @property
    def factor(self) -> np.ndarray:
        """Factors of the frames."""
        return self.result.preparation.factor[self.used, 0]

    @property
    def weights(self) -> np.ndarray:
        """Weights of the frames, with the sum 1."""
        weights = self.result.preparation.weights[self.used, 0]
        return weights / weights.sum()

    @cached_property
    def true_light(self) -> np.ndarray:
        """Light of the scene in a perfect master with these weights, (height, width)."""
        weights = np.zeros(self.night.count)
        weights[self.used] = self.weights
        return self.night.ideal(weights)[0]

    @cached_property
    def true_background(self) -> np.ndarray:
        """The background that the master should have, (height, width)."""
        photometry = self.result.preparation.photometry
        shares = np.arange(self.night.count) == self.night.reference
        return self.night.common_background(shares if photometry is None else photometry.anchor[:, 0])[0]

    @cached_property
    def covered(self) -> np.ndarray:
        """Pixels that all frames cover, (height, width)."""
        return (self.result.coverage[0] == 1) & ~self.night.nodata.any(axis=(0, 1))

    @cached_property
    def error(self) -> np.ndarray:
        """Master minus truth, without a constant; NaN where not all frames have data."""
        error = self.result.original[0].astype(float) - self.true_light - self.true_background
        error[~self.covered] = np.nan
        return error - np.nanmedian(error)

    @cached_property
    def is_sky(self) -> np.ndarray:
        """Pixels without light of stars, (height, width)."""
        faint = self.true_light < SKY_SIGMA * self.night.sky_sigma[self.night.reference, 0]
        return faint & self.covered

    @cached_property
    def stars(self) -> np.ndarray:
        """Isolated stars, brighter than 20 times the noise of their flux in the master."""
        night = self.night
        stars = night.isolated_stars(300, radius=8.0)
        y, x = np.rint(night.scene.y[stars]).astype(int), np.rint(night.scene.x[stars]).astype(int)
        noise = night.sky_sigma[night.reference, 0] / np.sqrt(night.count)
        bright = night.scene.flux[0, stars] > 20 * noise * self._aperture * np.sqrt(np.pi)
        return stars[bright & self.covered[y, x]]

    @property
    def _aperture(self) -> float:
        return 2.5 * self.night.fwhm.mean()

    def star_flux(self, image: np.ndarray) -> np.ndarray:
        """Return the flux of `stars` in an image (height, width)."""
        x, y = self.night.scene.x[self.stars], self.night.scene.y[self.stars]
        ring = (self._aperture + 1, self._aperture + 6)
        return sep.sum_circle(image.astype(np.float64), x, y, self._aperture, bkgann=ring)[0]

    def star_bias(self) -> tuple[float, float]:
        """Return how much too bright the stars are, and the standard error of that.

        The error of the master around the brightest stars is fitted by their true light, each pixel with the
        weight that its noise gives. An aperture would add noise of its own.
        """
        night, fwhm = self.night, self.night.fwhm.mean()
        variance = night.sigma(night.reference)[0] ** 2
        disc, ring = (1.5 * fwhm, (self._aperture + 1, self._aperture + 6))
        excess, light = [], []
        for star in night.isolated_stars(BRIGHTEST, radius=6.0):
            x, y = night.scene.x[star], night.scene.y[star]
            box = tuple(slice(max(int(at - ring[1]), 0), int(at + ring[1]) + 2) for at in (y, x))
            rows, columns = (np.arange(size)[part] for size, part in zip(variance.shape, box, strict=True))
            distance = np.hypot(rows[:, np.newaxis] - y, columns - x)
            error, true = self.error[box], self.true_light[box]
            within, around = distance < disc, (ring[0] < distance) & (distance < ring[1])
            if not np.isfinite(error[within]).all():
                continue
            above = (true - np.nanmedian(true[around]))[within] / variance[box][within]
            excess.append(above @ (error[within] - np.nanmedian(error[around])))
            light.append(above @ (true[within] - np.nanmedian(true[around])))
        slope = np.sum(excess) / np.sum(light)
        error = np.sqrt(np.sum((np.array(excess) - slope * np.array(light)) ** 2)) / np.sum(light)
        return float(slope), float(error)

    def star_loss(self) -> np.ndarray:
        """Return the part of the flux that each star lost to rejection."""
        same = Run(self.night, self.way, self.changes | {"rejection": "none"})
        return 1 - self.star_flux(self.result.original[0]) / self.star_flux(same.result.original[0])

    def galaxy_ratio(self) -> float:
        """Return the flux of the galaxy in the master relative to the truth."""
        height, width = self.true_light.shape
        yy, xx = np.mgrid[:height, :width]
        distance = np.hypot(xx - 0.49 * width, yy - 0.51 * height) / min(height, width)
        inner, ring = distance < 0.3, (distance > 0.4) & (distance < 0.47)

        def flux(image: np.ndarray) -> float:
            # The median of a ring with stars is another one in noise.
            return float((image[inner] - image[ring].mean()).sum())

        return flux(self.result.original[0]) / flux(self.true_light + self.true_background)

    def snr2(self) -> float:
        """Return SNR^2 of the master, without rejection, relative to the best possible."""
        night, used = self.night, self.used
        share = self.weights * self.factor
        sigma = night.sky_sigma[used, 0]
        reached = (share @ night.transparency[used]) ** 2 / (share**2 @ sigma**2)
        return float(reached / ((night.transparency / night.sky_sigma[:, 0]) ** 2).sum())

    def gradient_left(self) -> float:
        """Return the peak-to-valley difference of what is left of gradients, from medians of blocks."""
        side, error = 50, self.error
        height, width = (size // side for size in error.shape)
        blocks = np.where(self.is_sky, error, np.nan)[: height * side, : width * side]
        blocks = blocks.reshape(height, side, width, side).swapaxes(1, 2).reshape(height, width, -1)
        enough = np.isfinite(blocks).sum(axis=-1) > 100
        return float(np.ptp(np.nanmedian(blocks[enough], axis=-1)))

    def found(self) -> float:
        """Return the fraction of the planted hits that were rejected."""
        rows, columns = self.night.hit_pixels.T
        wanted = self.night.hit_frames.shape[1]
        rejected = np.rint(self.result.preparation.count * self.result.rejection_high[0, rows, columns])
        return float((np.minimum(rejected, wanted) / wanted).mean())

    def lost(self) -> float:
        """Return the fraction of the clean samples of the sky that were rejected."""
        both = self.result.rejection_low[0] + self.result.rejection_high[0]
        return float(both[self.is_sky].mean())

    def noise(self) -> float:
        """Return the noise of the sky in the master relative to that without rejection."""
        night = self.night
        share = self.weights * self.factor
        expected = np.sqrt(share**2 @ night.sky_sigma[self.used, 0] ** 2)
        return float(np.nanstd(self.error[self.is_sky]) / expected)


def ratio(values: np.ndarray, digits: int = 3) -> str:
    """Return the smallest and the largest value in words."""
    return f"{values.min():.{digits}f} to {values.max():.{digits}f}"


def percent(value: float, digits: int = 1) -> str:
    """Return a signed percentage."""
    return f"{100 * value:+.{digits}f} %"


def bias(run: Run) -> str:
    """Return how much too bright or too faint the stars of a master are, on average."""
    found, error = run.star_bias()
    return f"{100 * found:+.2f} ± {100 * error:.2f} %"


@dataclass
class Table:
    """Collects the rows of the page: each is measured both ways on the same frames."""

    size: tuple[int, int]
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def night(self, number: int = 0, **options: object) -> ChangingNight:
        """Simulate a night of the size of this table, by default with one of the `SEEDS`."""
        return simulate_night(
            **{"height": self.size[0], "width": self.size[1], "seed": SEEDS[number], "blur": "psf"} | options
        )

    def add(self, text: str, night: ChangingNight, measure: Callable[[Run], str]) -> None:
        """Integrate a night both ways and add a row."""
        self.add_runs({text: measure}, night)

    def add_runs(
        self,
        measures: dict[str, Callable[[Run], str]],
        night: ChangingNight,
    ) -> None:
        """Integrate a night both ways once, and add a row for each number that is wanted."""
        runs = [Run(night, way) for way in (CLASSIC_WAY, MEASURED_WAY)]
        for text, measure in measures.items():
            self.rows.append([text, *(measure(run) for run in runs)])
            print(" | ".join(self.rows[-1]), file=sys.stderr, flush=True)


def matching(page: Table) -> None:
    """Add the rows about matching, weights and gradients."""

    def true_factor(run: Run) -> str:
        return ratio(run.factor * run.night.transparency[run.used])

    for text, options in (
        ("star field, transparency 0.85 to 1", {"transparency": (0.85, 1.0), "gradient": 0.0}),
        ("star field, clouds, 0.44 to 1", {"gradient": 0.0}),
        ("star field, clouds, gradient of 2 %", {}),
        ("the same, resampled by Lanczos", {"registration": "lanczos"}),
    ):
        night = page.night(count=20, kind="field", **options)
        measures = {f"{text}: factor relative to the true one": true_factor, f"{text}: flux of stars": bias}
        page.add_runs(measures, night)
    for kind in ("galaxy", "nebula", "globular"):
        night = page.night(1, count=20, kind=kind)
        page.add(f"{kind}, clouds, gradient of 2 %: factor relative to the true one", night, true_factor)
    for seed in range(len(SEEDS)):
        night = page.night(seed, count=20, kind="galaxy")
        page.add(
            f"galaxy {seed + 1}, clouds, gradient of 2 %: flux of the galaxy",
            night,
            lambda run: percent(run.galaxy_ratio() - 1),
        )
    steady = STEADY | {"kind": "field", "count": 20}
    measures = {
        "noise x1 and x2, equal light: flux of stars": bias,
        "the same: SNR² of the weights, of the best possible": lambda run: f"{100 * run.snr2():.1f} %",
    }
    page.add_runs(measures, page.night(**steady, noise=(1, 2)))
    measures = {
        "exposures of 300 s and 30 s: flux of stars": bias,
        "the same: SNR² of the weights, of the best possible": lambda run: f"{100 * run.snr2():.1f} %",
    }
    page.add_runs(measures, page.night(**steady, exposures=(300, 30)))
    night = page.night(count=20, kind="field", **(STEADY | {"gradient": 0.02}))
    page.add(
        "moving gradient of 2 % of full scale: left in the master, 1e-5 of full scale",
        night,
        lambda run: f"{1e5 * run.gradient_left():.0f}",
    )


def missed(kind: str, worst: float, flux: float) -> str:
    """Say which of the targets of the grid are missed, if any."""
    found = [
        name
        for name, value, most in (("factor", worst, FACTOR[kind == "nebula"]), ("flux", abs(flux), FLUX))
        if value > most
    ]
    return f", {' and '.join(found)} missed" if found else ""


def kept(rows: list[list[str]]) -> str:
    """Say how often the targets of the grid hold."""
    cells = [cell for row in rows for cell in row[3:]]
    factor, flux = (sum(f"{name} " not in cell for cell in cells) for name in ("factor", "flux"))
    asked = " (".join(f"{100 * most:g} %" for most in FACTOR) + " in the nebula)"
    return (
        f"Asked for are factors within {asked} and a flux of stars within {100 * FLUX:g} %. The factors hold "
        f"in {factor} of {len(cells)} cells, the flux in {flux}."
    )


def grid(page: Table) -> None:
    """Add a row for each target and registration: how well measured matching does by number of frames."""
    for kind in ("field", "spiral", "globular", "nebula"):
        for registration in ("none", "bilinear", "bicubic", "lanczos"):
            cells, least = [], []
            for count in NUMBERS:
                run = Run(page.night(2, count=count, kind=kind, registration=registration), MEASURED_WAY)
                least.append(least_error(run.night, run.night.reference))
                worst = np.abs(run.factor * run.night.transparency[run.used] - 1).max()
                cells.append(f"{100 * worst:.1f} %, {bias(run)}{missed(kind, worst, run.star_bias()[0])}")
            possible = percent(float(np.mean(least)), 2)[1:]
            page.rows.append([kind, registration, possible, *cells])
            print(" | ".join(page.rows[-1]), file=sys.stderr, flush=True)


def nights(page: Table) -> None:
    """Add a row for each target and registration: the flux of stars over several nights."""
    for kind in ("spiral", "nebula"):
        for registration in ("none", "bilinear", "bicubic"):
            cells = []
            for count in FEW_AND_MANY:
                found = []
                for seed in NIGHT_SEEDS:
                    night = page.night(count=count, kind=kind, registration=registration, seed=seed)
                    found.append(100 * Run(night, MEASURED_WAY).star_bias()[0])
                mean, spread = np.mean(found), np.std(found, ddof=1)
                each = " ".join(f"{value:+.2f}" for value in found)
                cells.append(f"{mean:+.2f} ± {spread / len(found) ** 0.5:.2f} %, {spread:.2f} % ({each})")
            page.rows.append([kind, registration, *cells])
            print(" | ".join(page.rows[-1]), file=sys.stderr, flush=True)


def least_error(night: ChangingNight, index: int, step: float = 0.05) -> float:
    """Return the least possible error of the light of a frame, as a fraction (Cramer-Rao).

    The scene is known, but not the light, the seeing, what smears the stars otherwise, and the smooth
    background of the frame. Saturated pixels tell nothing.
    """
    light, fwhm = night.light(index)[0], night.fwhm[index]
    sharper, wider = (night.scene.seen(fwhm + sign * step)[0] for sign in (-1, 1))
    blurred = (wider - sharper) * night.transparency[index] / (2 * step)
    known = ~night.nodata[index, 0] & (light + night.background(index)[0] < SATURATED)
    down, across = (np.linalg.qr(basis(np.arange(size), size))[0] for size in light.shape)
    terms = []
    for image in (light, blurred, laplace(light)):
        seen = np.where(known, image, 0)
        seen -= down @ (down.T @ seen @ across) @ across.T
        terms.append((np.where(known, seen, 0) / night.sigma(index)[0]).ravel())
    return float(np.sqrt(np.linalg.inv(np.array(terms) @ np.array(terms).T)[0, 0]))


def light(page: Table) -> None:
    """Add the rows about how well the light of a frame can be known."""
    for kind in ("field", "spiral"):
        for size in (SMALL, USUAL):
            found, told, least, worst, stars, flux = [], [], [], [], [], []
            for seed in LIGHT_SEEDS:
                run = Run(simulate_night(20, *size, kind=kind, seed=seed, blur="psf"), MEASURED_WAY)
                photometry = run.result.preparation.photometry
                # Relative to the median of the frames: the error of the reference is in all factors.
                error = photometry.transparency[:, 0] / run.night.transparency
                found.append(np.std(error / np.median(error)))
                told.append(np.median(photometry.transparency_error / photometry.transparency))
                least.append(np.mean([least_error(run.night, i) for i in range(0, 20, 4)]))
                worst.append(np.abs(run.factor * run.night.transparency[run.used] - 1).max())
                stars.append(np.median(photometry.stars))
                flux.append(run.star_bias()[0])
            typical = [
                f"{100 * np.sqrt(np.mean(np.square(values))):.2f} %" for values in (found, told, least)
            ]
            spread = f"{100 * min(worst):.1f} to {100 * max(worst):.1f} %"
            mean = f"{percent(np.mean(flux), 2)[:-2]} ± {100 * np.std(flux, ddof=1) / len(flux) ** 0.5:.2f} %"
            row = [
                kind,
                f"{size[1]} x {size[0]}",
                f"{min(stars):.0f} to {max(stars):.0f}",
                *typical,
                spread,
                mean,
            ]
            page.rows.append(row)
            print(" | ".join(row), file=sys.stderr, flush=True)


def weights(page: Table) -> None:
    """Add the rows about noise that is measured after registration."""

    def noise_found(run: Run) -> str:
        photometry = run.result.preparation.photometry
        known = run.result.preparation.measurements if photometry is None else photometry
        return ratio(known.noise[:, 0] / run.night.sky_sigma[:, 0], 2)

    for method in ("none", "bilinear", "bicubic", "lanczos"):
        steady = STEADY | {"kind": "field", "count": 20, "registration": method, "noise": (1, 2)}
        text = "not resampled" if method == "none" else f"resampled, {method}"
        measures = {
            f"noise x1 and x2, {text}: noise found, of the true one": noise_found,
            "the same: noise of the master above the least possible": lambda run: percent(
                run.snr2() ** -0.5 - 1, 2
            ),
        }
        page.add_runs(measures, page.night(1, **steady))


def rejection(page: Table) -> None:
    """Add the rows about rejection."""
    steady = STEADY | {"kind": "field"}
    for sigma, hits_in in ((6.0, 1), (10.0, 1), (10.0, 2)):
        for count in (5, 8, 10, 12):
            options = {"count": count, "hits": 2000, "hits_in": hits_in, "hit_sigma": sigma}
            what = "hits" if hits_in == 1 else "two hits in a pixel"
            page.add(
                f"{what} of {sigma:.0f} sigma found, {count} frames",
                page.night(2, **steady, **options),
                lambda run: f"{100 * run.found():.1f} %",
            )
    for count in (5, 8, 10, 20):
        measures = {
            f"clean samples lost, {count} frames": lambda run: f"{100 * run.lost():.2f} %",
            f"noise added by rejection, {count} frames": lambda run: percent(run.noise() - 1),
        }
        page.add_runs(measures, page.night(2, **steady, count=count))
    for count in (20, 10):
        page.rows.append(trail_row(page, count))
        print(" | ".join(page.rows[-1]), file=sys.stderr, flush=True)
    options = {"count": 20, "kind": "field"} | STEADY | {"fwhm": (2.6, 3.75)}
    for seed in (0, 1):
        text = f"flux of stars lost to rejection, seeing of 2.6 to 3.75 pixels, night {seed + 1}"
        measures = {
            f"{text}: median": lambda run: percent(np.median(run.star_loss()), 2),
            f"{text}: worst": lambda run: percent(run.star_loss().max(), 2),
        }
        page.add_runs(measures, page.night(seed, **options))


def trail_row(page: Table, count: int, peaks: Sequence[float] = (1.5, 2, 3, 4, 6, 10)) -> list[str]:
    """Return the row about what is left of faint trails: one run for each brightness."""
    height, width = page.size
    frame = count // 2
    trails = [
        Trail(frame, (-20.0, 0.3 * height), (width + 20.0, 0.75 * height), peak=peak, fwhm=3.0)
        for peak in peaks
    ]
    steady = STEADY | {"kind": "field", "count": count}
    cells = []
    for way in (CLASSIC_WAY, MEASURED_WAY):
        clean = Run(page.night(2, **steady), way)
        left = []
        for trail in trails:
            run = Run(page.night(2, **steady, trails=[trail]), way)
            added = run.night.defects(frame)[0]
            share = run.weights[np.searchsorted(run.used, frame)]
            rest = run.result.original[0].astype(float) - clean.result.original[0]
            # The trail may change the frames that set the background, and so its level.
            rest -= np.median(rest[run.covered & (added < 0.01 * added.max())])
            left.append((rest * added)[run.covered].sum() / (share * added * added)[run.covered].sum())
        cells.append(" ".join(f"{100 * part:.0f}" for part in left) + " %")
    text = " ".join(f"{peak:g}" for peak in peaks)
    return [f"light of a trail of {text} sigma left, {count} frames", *cells]


#: Parts of the page, each between markers of its own.
PARTS: dict[str, Callable[[Table], None]] = {
    "matching": matching,
    "weights": weights,
    "rejection": rejection,
    "grid": grid,
    "nights": nights,
    "light": light,
}


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small frames: a test of the script itself")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some of the parts")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/night.md")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick gives no numbers worth writing; drop --quick or --write")
    start = time.monotonic()
    for name in options.only:
        page = Table(
            QUICK if options.quick else SMALL if name == "rejection" else USUAL,
            HEADS.get(name, BOTH),
        )
        PARTS[name](page)
        text = describe(page, name) + (f"\n\n{kept(page.rows)}" if name == "grid" else "")
        print(f"{text}\n")
        if options.write:
            write_readme(PAGE, text, f"<!-- begin: {name} -->", f"<!-- end: {name} -->")
    print(f"Took {(time.monotonic() - start) / 60:.1f} minutes.", file=sys.stderr)


def describe(page: Table, name: str) -> str:
    """Return the table below a line with date, size, seeds, and recipes."""
    measured = ", ".join(f"`{name}: {value}`" for name, value in PRESETS["measured"].items())
    seeds = ", ".join(map(str, {"light": LIGHT_SEEDS, "nights": NIGHT_SEEDS}.get(name, SEEDS)))
    text = (
        f"Measured on {datetime.date.today()} with stacklib {sl.__version__}: {page.size[1]} x "
        f"{page.size[0]} pixels, 20 frames unless said otherwise, seeds {seeds}. *Classic* is the "
        f"suggested recipe, *measured* the same with {measured}."
    )
    return f"{text}\n\n{table(page.head, page.rows)}"


if __name__ == "__main__":
    main()
