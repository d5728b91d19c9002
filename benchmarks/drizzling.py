"""Measure drizzling of color mosaics against the truth, and what it costs.

``python benchmarks/drizzling.py`` prints the tables of docs/drizzle.md, ``--write`` puts them there. It takes
about ten minutes. Seeds are new: nothing in stacklib was tuned on them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from report import table, write_readme
from scipy import ndimage
from scipy.optimize import least_squares

import stacklib as sl
from stacklib.drizzle import deposit as deposits
from stacklib.drizzle.deposit import Drop, Grid
from stacklib.formats.xdrz import DrizzleData, write_xdrz
from stacklib.frames.mosaic import Sites, debayered
from stacklib.simulate import DitheredNight, simulate_dithered
from stacklib.simulate.night import write_frame
from stacklib.simulate.registration import warped

PAGE = Path(__file__).resolve().parents[1] / "docs" / "drizzle.md"
SEED, COUNT = 7400, 40
SIZE, QUICK = (300, 400), (240, 320)
COLORS = ("red", "green", "blue")
#: Nothing but the sky is matched, so that the light is the mean of that of the frames.
RECIPE = sl.Recipe(rejection="winsorized_sigma", weights="none", normalization="additive")
#: Targets of the nights.
KINDS = ("field", "galaxy")
#: Ways of debayering.
METHODS = {"bilinear": "bilinear", "malvar": "Malvar"}
#: Half the side of the square in which a star is fitted, and the number of stars.
HALF, STARS = 8, 30
#: Least brightness of a galaxy, as a fraction of full scale.
GALAXY = 1e-3
#: Frames and size of the large run, and its memory budget.
LARGE, LARGE_COUNT, BUDGET = (3000, 4000), 20, "1GB"


@dataclass(frozen=True)
class Way:
    """A way from mosaics to a color image: an image in the units of the scene, on a grid."""

    name: str
    image: np.ndarray
    scale: float = 1.0


def nights(size: tuple[int, int], count: int) -> Iterator[DitheredNight]:
    """Yield nights of a star field and of a galaxy."""
    for k, kind in enumerate(KINDS[:count]):
        yield simulate_dithered(COUNT, *size, kind, SEED + k, fwhm=1.8)


def ways(night: DitheredNight, folder: Path) -> Iterator[Way]:
    """Yield the images of a night, made in several ways, without sky and for the light of the scene."""
    write(night, folder)

    def integrated(method: str) -> sl.Integration:
        return quiet(sl.integrate, folder / method / "4_Registered", RECIPE, progress=False)

    for method, name in METHODS.items():
        result = integrated(method)
        yield Way(f"{name}, integrated", in_scene(result))
        inside = folder / method / "debayered"
        found = quiet(sl.drizzle, inside, result, geometry=inside, progress=False)
        yield Way(f"{name}, drizzled, drop 0.9", in_scene(found))
    for scale, drop in ((1.0, 0.9), (1.0, 0.5), (2.0, 0.7)):
        recipe = sl.DrizzleRecipe(scale=scale, drop=drop)
        found = quiet(sl.drizzle, folder / "mosaic", result, recipe, geometry=inside, progress=False)
        yield Way(f"**mosaic drizzled, scale {scale:g}, drop {drop:g}**", in_scene(found), scale)


def write(night: DitheredNight, folder: Path) -> None:
    """Write the mosaics, and for each way of debayering the frames before and after registration."""
    for method in METHODS:
        for name in ("debayered", "4_Registered"):
            (folder / method / name).mkdir(parents=True)
    (folder / "mosaic").mkdir()
    for i, header in enumerate(night.headers):
        frame, name = night.frame(i), f"light_{i:04d}"
        write_frame(folder / "mosaic" / f"{name}_c.xisf", frame, header, "f32", True)
        color = {key: card for key, card in header.items() if key != "BAYERPAT"}
        data = night.drizzle_data(i, f"{name}_c.xisf", f"{name}_c_r.xisf")
        for method in METHODS:
            planes = debayered(frame[0], night.sites, method)
            moved = np.stack([warped(plane, night.matrices[i], plane.shape, 3) for plane in planes])
            moved = np.nan_to_num(np.clip(moved, 1e-6, 1.0), nan=0.0)
            inside = folder / method
            write_frame(inside / "debayered" / f"{name}_c.xisf", planes, color, "f32", True)
            write_frame(inside / "4_Registered" / f"{name}_c_r.xisf", moved, color, "f32", True)
            write_xdrz(inside / "debayered" / f"{name}_c_r.xdrz", data)


def quiet(call, *arguments, **options):
    """Call without warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return call(*arguments, **options)


def in_scene(result: sl.Integration | sl.Drizzled) -> np.ndarray:
    """Return an image in the units of the frames, without its sky, float64."""
    image = result.image.astype(np.float64) / result.range_factor
    return image - np.median(image, axis=(1, 2), keepdims=True)


def bright_stars(night: DitheredNight) -> np.ndarray:
    """Return the numbers of bright stars that stand alone and are not saturated."""
    _, height, width = night.scene.extended.shape
    x, y, flux = night.scene.x + 0.5, night.scene.y + 0.5, night.scene.flux.mean(axis=0)
    peak = flux / (1.133 * night.fwhm**2)
    order = np.argsort(-flux)
    found = []
    for i in order:
        inside = 16 < x[i] < width - 16 and 16 < y[i] < height - 16
        near = np.hypot(x - x[i], y - y[i]) < 9
        alone = flux[near].sum() < 1.05 * flux[i]
        if not inside or not alone or not 0.015 < peak[i] < 0.6:
            continue
        around = night.scene.extended[:, int(y[i]) - 4 : int(y[i]) + 5, int(x[i]) - 4 : int(x[i]) + 5]
        if np.ptp(around) < 0.1 * peak[i]:
            found.append(i)
    return np.array(found[:STARS], int)


def fitted(image: np.ndarray, x: float, y: float, scale: float) -> np.ndarray:
    """Fit an elliptical Gaussian on a sky; return flux, x, y and FWHM in pixels of the frames, and the dip.

    The dip is the lowest value around the core, relative to the peak: what sharpening leaves.
    """
    half = round(HALF * scale)
    column, row = int(x * scale), int(y * scale)
    part = image[row - half : row + half + 1, column - half : column + half + 1]
    v, u = np.mgrid[-half : half + 1, -half : half + 1]

    def model(p):
        return p[0] * np.exp(-0.5 * (((u - p[1]) / p[3]) ** 2 + ((v - p[2]) / p[4]) ** 2)) + p[5]

    start = [part.max(), 0.0, 0.0, scale, scale, 0.0]
    p = least_squares(lambda p: (model(p) - part).ravel(), start).x
    flux = 2 * math.pi * p[0] * abs(p[3] * p[4]) / scale**2
    fwhm = 2.3548 * math.sqrt(abs(p[3] * p[4])) / scale
    ring = (np.hypot(u - p[1], v - p[2]) / scale < 1.7 * fwhm) & (np.hypot(u, v) / scale > 0.8 * fwhm)
    return np.array(
        [flux, (column + p[1] + 0.5) / scale, (row + p[2] + 0.5) / scale, fwhm, part[ring].min() / p[0]]
    )


def truth_table(size: tuple[int, int], count: int) -> tuple[list[str], list[list[str]]]:
    """Compare ways from mosaics to a color image."""
    found: dict[str, list[np.ndarray]] = {}
    for night in nights(size, count):
        stars = bright_stars(night)
        with tempfile.TemporaryDirectory() as folder:
            for way in ways(night, Path(folder)):
                found.setdefault(way.name, []).append(measured(way, night, stars))
                print(way.name, len(stars), np.round(found[way.name][-1], 4), file=sys.stderr, flush=True)
        truth = Way("truth: pixels without any interpolation", night.truth(1.0))
        found.setdefault(truth.name, []).append(measured(truth, night, stars))
    rows = []
    for name, values in found.items():
        # Only some nights have a galaxy.
        v = np.nanmean(values, axis=0)
        rows.append(
            [
                name,
                *(f"{fwhm:.3f}" for fwhm in v[:3]),
                f"{100 * v[3]:.2f} %",
                f"{100 * v[4]:.2f} %",
                "" if np.isnan(v[10]) else f"{100 * v[10]:.2f} %",
                f"{1000 * v[5]:.0f}",
                f"{100 * v[6]:.1f} %",
                f"{v[7]:.2f}" if v[7] else "",
                f"{v[8]:.2f}" if v[8] else "",
                f"{v[9]:.2f}" if v[9] else "",
            ]
        )
        print(rows[-1], flush=True)
    head = ["way", *(f"FWHM {color} (px)" for color in COLORS), "flux", "color"]
    head += ["galaxy color", "place (mpx)", "dip"]
    return [*head, "neighbors", "noise", "noise of areas"], rows


def measured(way: Way, night: DitheredNight, stars: np.ndarray) -> np.ndarray:
    """Return FWHM by color, errors of flux, color and place, dip, correlation, noises, galaxy color."""
    x, y = night.scene.x[stars] + 0.5, night.scene.y[stars] + 0.5
    fits = np.array(
        [[fitted(plane, x[k], y[k], way.scale) for k in range(stars.size)] for plane in way.image]
    )
    truth = Way("", night.truth(way.scale), way.scale)
    true = np.array(
        [[fitted(plane, x[k], y[k], way.scale) for k in range(stars.size)] for plane in truth.image]
    )
    ratio = fits[..., 0] / true[..., 0]
    level = np.median(ratio)
    color = ratio / ratio.mean(axis=0)
    places = np.hypot(np.median(fits[..., 1] - true[..., 1]), np.median(fits[..., 2] - true[..., 2]))
    dip = np.median(np.minimum(fits[..., 4], 0))
    true_pixels = way.name.startswith("truth")
    sky, area, beside = (0.0, 0.0, 0.0) if true_pixels else noise_of(way, night)
    light = 1.0 if true_pixels else night.transparency.mean()
    return np.array(
        [
            *np.median(fits[..., 3], axis=1),
            abs(level / light - 1),
            np.abs(np.median(color, axis=1) - 1).max(),
            places,
            -dip,
            beside,
            1e3 * sky,
            1e3 * area,
            galaxy_color(way, truth, night, light),
        ]
    )


def galaxy_color(way: Way, truth: Way, night: DitheredNight, light: float) -> float:
    """Return the largest error of a color of the galaxy, summed where it is bright; NaN without one."""
    if night.scene.extended.max() < GALAXY:
        return math.nan
    height, width = truth.image.shape[1:]
    y = (np.arange(height) / way.scale).astype(int)
    x = (np.arange(width) / way.scale).astype(int)
    bright = night.scene.extended.mean(axis=0)[np.ix_(y, x)]
    saturated = ndimage.binary_dilation(truth.image.max(axis=0) > 0.8, iterations=round(8 * way.scale))
    inside = (bright > 0.1 * bright.max()) & ~saturated
    dark = truth.image.max(axis=0) < 2e-3
    # The median of the image has gone already, and starlight with it.
    level = np.median((way.image - light * truth.image)[:, dark], axis=1)
    sums = way.image[:, inside].sum(axis=1) - level * inside.sum()
    ratio = sums / truth.image[:, inside].sum(axis=1)
    return float(np.abs(ratio / ratio.mean() - 1).max())


def noise_of(way: Way, night: DitheredNight) -> tuple[float, float, float]:
    """Return noise of pixels, noise of areas of 8 x 8 pixels (times 8), and the correlation of neighbors."""
    light = night.truth(way.scale)
    residual = way.image - night.transparency.mean() * light
    edge = round(14 * way.scale)
    dark = light.max(axis=0) < 2e-3
    found = []
    for plane in residual:
        inside, ok = (a[edge:-edge, edge:-edge] for a in (plane, dark))
        good = ok & (np.abs(inside) < 6 * 1.4826 * np.median(np.abs(inside[ok])))
        pair = good[:, 1:] & good[:, :-1]
        z = inside - np.median(inside[good])
        variance = np.mean(z[good] ** 2)
        side = round(8 * way.scale)
        h, w = (size // side * side for size in z.shape)
        blocks = z[:h, :w].reshape(h // side, side, w // side, side)
        whole = good[:h, :w].reshape(blocks.shape).all(axis=(1, 3))
        means = blocks.mean(axis=(1, 3))[whole]
        spread = 1.4826 * np.median(np.abs(means - np.median(means)))
        found.append((math.sqrt(variance), 8 * spread, np.mean((z[:, 1:] * z[:, :-1])[pair]) / variance))
    return tuple(np.mean(found, axis=0))


def cost_table() -> tuple[list[str], list[list[str]]]:
    """Measure CPU time and memory of frames of 12 megapixels, with everything known but the pixels."""
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(LARGE_COUNT):
            samples = rng.integers(900, 1100, (1, *LARGE)).astype(np.float32) / 65535
            matrix = np.array([[1, 1e-4, rng.uniform(-8, 8)], [-1e-4, 1, rng.uniform(-8, 8)], [0, 0, 1]])
            path = Path(folder) / f"light_{i:04d}.fits"
            write_frame(path, samples, {"BAYERPAT": ("RGGB", "")}, "u16", True)
            numbers = {"location": (0.0,) * 3, "reference_location": (0.0,) * 3}
            write_xdrz(
                path.with_suffix(".xdrz"),
                DrizzleData(
                    source=path.name,
                    width=LARGE[1],
                    height=LARGE[0],
                    matrix=matrix,
                    scale=(1.0,) * 3,
                    weights=(1.0,) * 3,
                    **numbers,
                ),
            )
        command = [sys.executable, __file__, "--large", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory_of(process.pid))
                time.sleep(0.1)
            cpu = json.loads(process.stdout.read())
    what = f"{LARGE_COUNT} mosaics of 12 megapixels, scale 1"
    rows = [[what, f"{cpu / LARGE_COUNT:.1f} s", f"{peak / 1e6:.0f} MB", f"{library_ratio():.2f}"]]
    return ["frames", "CPU for each frame", f"peak with memory={BUDGET}", "CPU / the library's"], rows


def memory_of(number: int) -> int:
    """Return the memory of a process and those that it started, shared pages once, in bytes."""
    total = 0
    try:
        process = psutil.Process(number)
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_full_info().pss
    except psutil.Error:
        pass
    return total


def library_ratio() -> float:
    """Return CPU seconds of depositing a mosaic relative to those within the drizzle library."""
    rng = np.random.default_rng(SEED)
    samples = rng.random(LARGE, np.float32)

    class Pixels:
        def read_rows(self, start, stop, channel):
            return samples[start:stop]

    one, sites = np.ones(3), Sites("RGGB", 3)
    drop = Drop(
        pixels=Pixels(),
        height=LARGE[0],
        width=LARGE[1],
        inverse=np.array([[1, 1e-4, 0.3], [-1e-4, 1, 0.4], [0, 0, 1.0]]),
        factor=one,
        offset=0 * one,
        weights=one,
    )
    inside = 0.0
    library = deposits.require_drizzle()

    class Timed(library):
        def add_image(self, *arguments, **options):
            nonlocal inside
            start = time.process_time()
            super().add_image(*arguments, **options)
            inside += time.process_time() - start

    usual, deposits.require_drizzle = deposits.require_drizzle, lambda: Timed
    try:
        grid = Grid(width=LARGE[1], height=LARGE[0])
        # The first one compiles.
        deposits.deposit([drop], sites, grid, slice(0, 200))
        inside, start = 0.0, time.process_time()
        deposits.deposit([drop], sites, grid)
        return (time.process_time() - start) / inside
    finally:
        deposits.require_drizzle = usual


def large(folder: Path) -> None:
    """Drizzle the frames of a folder, in a process of its own, and print CPU seconds."""
    before = cpu_seconds()
    quiet(sl.drizzle, folder, geometry=folder, memory=BUDGET, progress=False)
    print(json.dumps(cpu_seconds() - before))


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of those that it started."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/drizzle.md")
    parser.add_argument("--quick", action="store_true", help="small frames, to test the script itself")
    parser.add_argument("--nights", type=int, default=len(KINDS), help="number of nights")
    parser.add_argument("--large", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", choices=("truth", "cost"), help="some of the tables")
    options = parser.parse_args(arguments)
    if options.large:
        large(options.large)
        return
    size = QUICK if options.quick else SIZE
    said = (
        f"Measured on {datetime.date.today()} with stacklib {sl.__version__}: {COUNT} frames a night "
        f"of {size[1]} x {size[0]} pixels, nights: {options.nights}, stars of 1.8 pixels "
        "before they fall on pixels."
    )
    tables = {"truth": lambda: truth_table(size, options.nights), "cost": cost_table}
    for name in options.only or tables:
        text = f"{said}\n\n" * (name == "truth") + table(*tables[name]())
        print(text, flush=True)
        if options.write:
            write_readme(PAGE, text, f"<!-- begin: {name} -->", f"<!-- end: {name} -->")


if __name__ == "__main__":
    main()
