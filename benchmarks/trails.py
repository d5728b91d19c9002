"""Measure what rejection that looks at neighbors leaves of trails, and what it costs, on simulated nights.

``python benchmarks/trails.py`` prints the tables of docs/trails.md, ``--write`` puts them there. It takes
about a quarter of an hour. With acstools installed, its finders of lines are run on the same frames. Seeds
are new: nothing in stacklib was tuned on them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import sep
from line_finders import FINDERS
from report import table, write_readme
from scipy import ndimage

import stacklib as sl
from stacklib.recipe.presets import PRESETS
from stacklib.recipe.recipe import Recipe
from stacklib.simulate import ChangingNight, Trail, simulate_night
from stacklib.simulate.night import file_names, write_frame
from stacklib.spatial.footprints import find_footprints
from stacklib.spatial.lines import find_lines
from stacklib.spatial.planes import smooth_part

PAGE = Path(__file__).resolve().parents[1] / "docs" / "trails.md"
SEED = 9100
NUMBERS = (6, 10, 20, 40)
PEAKS = (1.5, 2.0, 3.0, 4.0, 6.0, 10.0)
REGISTRATIONS = ("none", "bilinear", "bicubic", "lanczos")
KINDS = ("field", "galaxy", "spiral", "globular")
#: Nights for each number of frames: one with each registration.
MOST_NIGHTS = len(REGISTRATIONS)
#: Height and width of the frames.
USUAL, SMALL, QUICK = (400, 530), (300, 400), (240, 320)
#: Larger frames, of which a trail covers less, for some numbers of frames.
LARGE, LARGE_NUMBERS = (1500, 2000), (10,)
MIDDLE = (900, 1200)
#: Side of the blocks whose medians are background, in pixels.
BLOCK = 50
#: Light is summed within this many pixels of a trail.
NEAR = 15.0
#: What finding trails may cost: noise without a trail and with one, flux of the stars without and with one.
COST_LIMITS = (0.001, 0.003, 0.001, 0.001)
#: Times each finder is run; the table has the median.
SPEED_ROUNDS = 9
#: Frames without trails in which lines are looked for.
CLEAN_FRAMES = 500
NIGHT = {
    "transparency": (0.9, 1.0),
    "gradient": 0.0,
    "sky_drift": 0.1,
    "fwhm": (2.6, 3.75),
    "cosmic_rays": 0.0,
    "hot_pixels": 0,
    "trails": (),
}
#: Head and rows of a table.
Rows = tuple[list[str], list[list[str]]]
#: Name, preset and changes of the ways to integrate.
WAYS: dict[str, tuple[str, dict]] = {
    "classic": ("classic", {}),
    "classic, large-scale": ("classic", {"large_scale_high": True}),
    "measured": ("measured", {}),
    "measured, large-scale": ("measured", {"large_scale_high": True}),
    "measured, footprints: all": ("measured", {"footprints": "all"}),
}
ALL_OF_IT = "measured, footprints: all"
#: What no mask covers.
BARE = "the same, under no mask"


class Run:
    """A night integrated one way; `extra` is light added to some frames, (height, width) in full scale."""

    def __init__(self, night: ChangingNight, way: str, extra: dict[int, np.ndarray] | None = None) -> None:
        self.night = night
        preset, changes = WAYS[way]
        recipe = Recipe.suggest(night.count)
        if preset != "classic":
            recipe = recipe.replace(**PRESETS[preset])
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", sl.StacklibWarning)
            paths = file_names(folder, night.headers, "{object}_{number:04d}", "fits", "f32")
            for i, path in enumerate(paths):
                frame = night.frame(i)
                if extra and i in extra:
                    frame = np.where(frame > 0, frame + extra[i], 0).astype(np.float32)
                write_frame(path, frame, night.headers[i], "f32", overwrite=False)
            recipe = recipe.replace(reference=paths[night.reference].name, **changes)
            self.result = sl.integrate([str(path) for path in paths], recipe, progress=False)

    @property
    def used(self) -> np.ndarray:
        """Indices of the frames that were used."""
        return self.result.preparation.used

    @cached_property
    def image(self) -> np.ndarray:
        """The master, mean of its channels, float64 (height, width)."""
        return self.result.original.mean(axis=0, dtype=np.float64)

    @cached_property
    def shares(self) -> np.ndarray:
        """What a frame's own light counts for in the master, by frame."""
        preparation = self.result.preparation
        weights, factor = preparation.weights[self.used, 0], preparation.factor[self.used, 0]
        shares = np.zeros(self.night.count)
        shares[self.used] = weights / weights.sum() * factor
        return shares

    @cached_property
    def covered(self) -> np.ndarray:
        """Pixels that all frames cover, (height, width)."""
        return ~self.night.nodata.any(axis=(0, 1))

    @cached_property
    def light(self) -> np.ndarray:
        """Light of the scene in a perfect master of these shares, mean of its channels, (height, width)."""
        return self._lights.mean(axis=0)

    @cached_property
    def _lights(self) -> np.ndarray:
        return self.night.ideal(self.shares / self.shares.sum())

    @cached_property
    def errors(self) -> np.ndarray:
        """Master minus light less the medians of blocks, which are background; (channels, height, width)."""
        errors = self.result.original - self._lights
        for top in range(0, errors.shape[1], BLOCK):
            for first in range(0, errors.shape[2], BLOCK):
                part = np.s_[top : top + BLOCK, first : first + BLOCK]
                known = self.covered[part]
                for error in errors:
                    error[part] -= np.median(error[part][known]) if known.any() else 0
        return errors

    @cached_property
    def error(self) -> np.ndarray:
        """The mean error of the channels, (height, width)."""
        return self.errors.mean(axis=0)

    def noise(self) -> float:
        """Return the noise of the sky."""
        night = self.night
        sigma = night.sky_sigma[night.reference].mean()
        return float(np.std(self.error[self.covered & (self.light < 0.1 * sigma)]))

    def masked(self, frame: int, channel: int = 0) -> np.ndarray:
        """Return where a frame has a mask, (height, width)."""
        masks = self.result.masks
        return masks.flags(frame, channel) != 0 if masks else np.zeros(self.image.shape, bool)

    def star_flux(self) -> float:
        """Return the flux of the bright stars all together."""
        night = self.night
        stars = night.isolated_stars(300, radius=8.0)
        noise = night.sky_sigma[night.reference].mean() / np.sqrt(night.count)
        bright = stars[night.scene.flux[:, stars].mean(axis=0) > 400 * noise]
        radius = 2.5 * night.fwhm.mean()
        ring = (radius + 1, radius + 6)
        x, y = night.scene.x[bright], night.scene.y[bright]
        return float(sep.sum_circle(self.image, x, y, radius, bkgann=ring)[0].sum())

    def lines(self) -> dict[int, list]:
        """Return the lines found, by frame."""
        masks = self.result.masks
        return {i: found for i, found in (masks.lines if masks else {}).items() if found}


def distance(trail: Trail, shape: tuple[int, int]) -> np.ndarray:
    """Return the distance of each pixel from a trail."""
    return np.sqrt(-2 * np.log(np.maximum(trail.profile(*shape), 1e-300))) * trail.fwhm / 2.3548


def parallel_trails(count: int, shape: tuple[int, int], steep: bool, rng: np.random.Generator) -> list[Trail]:
    """Return one trail of each brightness, side by side, each in another frame."""
    height, width = shape
    frames = rng.permutation(count)
    trails = []
    for k, peak in enumerate(rng.permutation(PEAKS)):
        length, breadth = (height, width) if steep else (width, height)
        place = (k + 0.5 + rng.uniform(-0.1, 0.1)) / len(PEAKS) * breadth
        slope = rng.uniform(-0.15, 0.15) * breadth / len(PEAKS)
        ends = [(-30.0, place - slope), (length + 30.0, place + slope)]
        if steep:
            ends = [end[::-1] for end in ends]
        trails.append(Trail(int(frames[k % count]), *ends, peak=float(peak), fwhm=rng.uniform(2.6, 3.75)))
    return trails


def crossing_trails(frame: int, shape: tuple[int, int], peak: float) -> list[Trail]:
    """Return three trails in one frame that cross each other; the last one ends in the frame."""
    height, width = shape
    ends = [
        ((-30.0, 0.2 * height), (width + 30.0, 0.7 * height)),
        ((0.35 * width, -30.0), (0.6 * width, height + 30.0)),
        ((0.15 * width, 0.85 * height), (width + 30.0, 0.1 * height)),
    ]
    return [Trail(frame, *pair, peak=peak, fwhm=3.0) for pair in ends]


def left(run: Run, clean: Run, added: Mapping[int, np.ndarray], near: np.ndarray) -> tuple[float, float]:
    """Return the light that a master has of what was added to frames, and that it has without rejection.

    It is the difference of two masters of the same noise, with and without what was added, less the level
    around. Where a mask took a frame, the master also loses the noise of the frame. It is known and is
    subtracted.
    """
    night, preparation = run.night, run.result.preparation
    change = run.image - clean.image
    for frame in added:
        position = int(np.searchsorted(run.used, frame))
        own = clean.night.frame(frame) - night.expected(frame)
        for channel in range(channels := night.shape[0]):
            weights = preparation.weights[run.used, channel]
            factor = preparation.factor[run.used, channel][position]
            share = weights[position] / (weights.sum() - weights[position])
            lost = share * (clean.errors[channel] - own[channel] * factor)
            change -= np.where(run.masked(frame, channel), lost, 0) / channels
    # Trails in many frames change level and scale of the whole master, so the level around is that of pixels
    # as dark as those that count.
    dark = run.covered & (run.light < night.sky_sigma[night.reference].mean())
    use = near & dark
    ring = ndimage.binary_dilation(near, iterations=25) & ~ndimage.binary_dilation(near, iterations=3)
    change -= np.median(change[ring & dark])
    whole = sum((run.shares[frame] * light)[use].sum() for frame, light in added.items())
    return float(change[use].sum()), float(whole)


def light_of(night: ChangingNight, trails: list[Trail]) -> np.ndarray:
    """Return what trails in one frame add to it after registration, mean of the channels, (height, width)."""
    return replace(night, trails=tuple(trails)).defects(trails[0].frame).mean(axis=0)


def conditions(count: int, k: int) -> dict[str, str]:
    """Return target and registration of the k-th night with this many frames; all differ."""
    turn = count // 2 + k
    kind = KINDS[(turn + count // 4) % len(KINDS)]
    return {"kind": kind, "registration": REGISTRATIONS[turn % MOST_NIGHTS]}


def say(row: list[str]) -> list[str]:
    """Print a row to see how far the run is."""
    print(" | ".join(row), file=sys.stderr, flush=True)
    return row


def light_left(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Measure the light left of trails of each brightness, by number of frames and way."""
    rows = []
    for count in numbers:
        sums = {way: np.zeros((len(PEAKS), 2)) for way in (*WAYS, BARE)}
        for k in range(nights):
            rng = np.random.default_rng([SEED, count, k])
            night = simulate_night(count, *size, **NIGHT | conditions(count, k) | {"seed": SEED + k})
            trails = parallel_trails(count, size, k % 2 == 1, rng)
            struck = replace(night, trails=tuple(trails))
            clean = {name: Run(night, name) for name in ("classic", "measured")}
            for way in WAYS:
                run = Run(struck, way)
                for trail in trails:
                    near = distance(trail, size) <= NEAR
                    without = clean[way.partition(",")[0]]
                    part = left(run, without, {trail.frame: light_of(night, [trail])}, near)
                    sums[way][PEAKS.index(trail.peak)] += part
                    if way == ALL_OF_IT:
                        added = light_of(night, [trail])[near & run.covered]
                        bare = ~run.masked(trail.frame)[near & run.covered]
                        sums[BARE][PEAKS.index(trail.peak)] += added[bare].sum(), added.sum()
        for way, parts in sums.items():
            percent = 100 * parts[:, 0] / parts[:, 1]
            digits = 2 if way == BARE else 0
            rows.append(say([way, str(count), *(f"{value:.{digits}f} %" for value in percent)]))
    rows.sort(key=lambda row: [*WAYS, BARE].index(row[0]))
    return ["", "frames", *(f"{peak:g} sigma" for peak in PEAKS)], rows


def several(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Measure three trails in one frame, and color."""
    chosen = [(channels, count, size) for channels in (1, 3) for count in numbers[:2]]
    if size == USUAL and LARGE_NUMBERS[0] in numbers:
        chosen.append((3, LARGE_NUMBERS[0], MIDDLE))
    head = ["three trails in one frame", "width x height", "frames"]
    return [*head, *(f"{peak:g} sigma" for peak in PEAKS[:3])], [_several_row(*each) for each in chosen]


def _several_row(channels: int, count: int, size: tuple[int, int]) -> list[str]:
    options = NIGHT | {"kind": "galaxy", "registration": "bicubic", "seed": SEED + 10 + channels}
    night = simulate_night(count, *size, channels=channels, **options)
    clean = Run(night, "measured")
    cells = []
    for peak in PEAKS[:3]:
        trails = crossing_trails(count // 2, size, peak)
        run = Run(replace(night, trails=tuple(trails)), ALL_OF_IT)
        near = np.min([distance(trail, size) for trail in trails], axis=0) <= NEAR
        light = light_of(night, trails)
        rest, whole = left(run, clean, {count // 2: light}, near)
        bare = [~run.masked(count // 2, channel)[near] for channel in range(channels)]
        bare_share = np.mean([light[near][part].sum() for part in bare]) / light[near].sum()
        lines = sum(map(len, run.lines().values()))
        cells.append(f"{100 * rest / whole:.0f} %, {100 * bare_share:.2f} %, {lines} lines")
    name = f"galaxy, {'RGB' if channels == 3 else 'mono'}"
    return say([name, f"{size[1]} x {size[0]}", str(count), *cells])


def cost(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Measure what finding trails costs: noise and star flux against those of the rule alone."""
    rows = [_cost_row(size, nights, count) for count in numbers]
    if size == USUAL:
        rows += [_cost_row(LARGE, 1, count) for count in LARGE_NUMBERS if count in numbers]
    head = ["frames", "width x height", "nights"]
    columns = ("noise, no trail", "noise, one trail", "stars, no trail", "stars, one trail")
    columns = [f"{name} (limit {100 * most:g} %)" for name, most in zip(columns, COST_LIMITS, strict=True)]
    return [
        *head,
        *columns,
        "the rule alone: noise, one trail",
        "noise of the masked pixels, their share",
    ], rows


def _cost_row(size: tuple[int, int], nights: int, count: int) -> list[str]:
    found, further = [], []
    for k in range(nights):
        night = simulate_night(count, *size, **NIGHT | conditions(count, k) | {"seed": SEED + 20 + k})
        alone, searched = Run(night, "measured"), Run(night, ALL_OF_IT)
        trail = tuple(crossing_trails(count // 2, size, 3.0)[:1])
        struck, struck_alone = (Run(replace(night, trails=trail), way) for way in (ALL_OF_IT, "measured"))
        found.append(
            [
                searched.noise() / alone.noise() - 1,
                struck.noise() / alone.noise() - 1,
                searched.star_flux() / alone.star_flux() - 1,
                struck.star_flux() / struck_alone.star_flux() - 1,
            ]
        )
        further.append(
            [struck_alone.noise() / alone.noise() - 1, *_noise_under_mask(struck, alone, count // 2)]
        )
    values = np.array(found)
    worst = values[np.argmax(np.abs(values), axis=0), np.arange(4)]
    cells = [
        f"{100 * mean:+.2f} % ({100 * most:+.2f} %), {verdict(mean, most, limit)}"
        for mean, most, limit in zip(values.mean(0), worst, COST_LIMITS, strict=True)
    ]
    rule, masked, share = 100 * np.mean(further, axis=0)
    cells += [f"{rule:+.2f} %", f"{masked:+.1f} %, {share:.1f} %"]
    return say([str(count), f"{size[1]} x {size[0]}", str(nights), *cells])


def _noise_under_mask(run: Run, clean: Run, frame: int) -> tuple[float, float]:
    """Return how much more noise sky has where a frame is masked, and the share of these pixels."""
    dark = run.light < 0.1 * run.night.sky_sigma[run.night.reference].mean()
    sky = run.covered & clean.covered & dark
    under = sky & run.masked(frame)
    return float(np.std(run.error[under]) / np.std(clean.error[under]) - 1), float(under.sum() / sky.sum())


def verdict(mean: float, worst: float, limit: float) -> str:
    """Say whether a limit is kept on average and in the worst night."""
    if abs(mean) > limit:
        return "missed"
    return "ok" if abs(worst) <= limit else "worst missed"


def false_lines(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Count lines in frames without trails."""
    rows, every = [], [0, 0]
    for k, registration in enumerate(REGISTRATIONS):
        frames = lines = 0
        number = 0
        while frames < CLEAN_FRAMES * nights / MOST_NIGHTS / len(REGISTRATIONS):
            count = (10, 20, 6, 20)[number % 4]
            options = NIGHT | {"kind": KINDS[number % 4], "registration": registration}
            options |= {"seed": SEED + 1000 + 100 * k + number, "cosmic_rays": 12.0, "hot_pixels": 40}
            run = Run(simulate_night(count, *size, **options), ALL_OF_IT)
            lines += sum(map(len, run.lines().values()))
            frames += count
            number += 1
        every[0] += frames
        every[1] += lines
        rows.append(say([registration, str(frames), str(lines)]))
    rows.append(["all", *map(str, every)])
    return ["registration", "frames", "lines found"], rows


def other_hits(night: ChangingNight, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Return the light of hits other than straight trails by name: one plane for each frame, in sky sigma."""
    height, width = night.shape[1:]
    y, x = np.mgrid[:height, :width]

    def star(column: float, row: float, fwhm: float = 3.0) -> np.ndarray:
        return np.exp(-0.5 * ((x - column) ** 2 + (y - row) ** 2) * (2.3548 / fwhm) ** 2)

    def short(peak: float, lengths: tuple[float, float], fwhm: float) -> np.ndarray:
        plane = np.zeros((height, width))
        for _ in range(20):
            start = rng.uniform(0.1, 0.9, 2) * (width, height)
            angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*lengths)
            end = start + length * np.array([np.cos(angle), np.sin(angle)])
            plane += peak * Trail(0, tuple(start), tuple(end), 1.0, fwhm).profile(height, width)
        return plane

    empty = np.zeros((height, width))
    frame = night.count // 2

    def one(plane: np.ndarray) -> list[np.ndarray]:
        return [plane if i == frame else empty for i in range(night.count)]

    along = np.arange(-0.1, 1.1, 1 / 40)
    dots = sum(6.0 * star(t * width, (0.2 + 0.5 * t) * height) for t in along)
    bend = y - (0.5 * height + 0.06 * width * (2 * x / width - 1) ** 2)
    slope = 0.24 * (2 * x / width - 1)
    curve = 3.0 * np.exp(-0.5 * (bend / np.sqrt(1 + slope**2) * 2.3548 / 3.0) ** 2)
    wide = Trail(0, (-30.0, 0.3 * height), (width + 30.0, 0.6 * height), 2.0, 12.0)
    moving = [
        [
            5.0 * star(0.3 * width + step * (i - frame), 0.4 * height + 0.3 * step * (i - frame))
            for i in range(night.count)
        ]
        for step in (6.0, 1.0)
    ]
    return {
        "cosmic-ray tracks, 4 to 30 pixels long, 1.5 wide, 8 sigma": one(short(8.0, (4, 30), 1.5)),
        "short streaks, 20 to 60 pixels long, 3 sigma": one(short(3.0, (20, 60), 3.0)),
        "lights of an aircraft: dots of 6 sigma in a row": one(dots),
        "trail of 12 pixels FWHM, 2 sigma": one(2.0 * wide.profile(height, width)),
        "curved trail, 3 sigma": one(curve),
        "asteroid of 5 sigma, 6 pixels a frame": moving[0],
        "asteroid of 5 sigma, 1 pixel a frame": moving[1],
    }


def kinds(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Measure what is left of hits that are no straight trails."""
    rng = np.random.default_rng([SEED, 5])
    night = simulate_night(
        20, *size, **NIGHT | {"kind": "field", "seed": SEED + 30, "registration": "bicubic"}
    )
    ways = ("measured", "measured, large-scale", ALL_OF_IT)
    clean = Run(night, "measured")
    rows = []
    for name, planes in other_hits(night, rng).items():
        lights = [plane * night.sky_sigma[i].mean() for i, plane in enumerate(planes)]
        extra = {i: light for i, light in enumerate(lights) if light.any()}
        cells = []
        for way in ways:
            run = Run(night, way, extra)
            near = np.any([light > 1e-3 * light.max() for light in extra.values()], axis=0)
            rest, whole = left(run, clean, extra, near)
            cells.append(f"{100 * rest / whole:.0f} %")
        rows.append(say([name, *cells]))
    return ["light left", *(way.replace("measured, ", "") for way in ways)], rows


def detection(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Compare finders of lines on single frames: residuals of unit noise with a trail or without."""
    peaks = (0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
    rows = []
    for name, (find, most) in FINDERS.items():
        if name != "stacklib" and importlib.util.find_spec("acstools") is None:
            continue
        repeats = max(1, most * nights // MOST_NIGHTS)
        cells, seconds, false = [], [], 0
        for peak in (0.0, *peaks):
            hits = 0
            for k in range(repeats):
                rng = np.random.default_rng([SEED, 6, k])
                frame = rng.standard_normal(size).astype(np.float32)
                middle, angle = rng.uniform(0.3, 0.7, 2) * size[::-1], rng.uniform(0, np.pi)
                far = 2000 * np.array([np.cos(angle), np.sin(angle)])
                trail = Trail(0, tuple(middle - far), tuple(middle + far), peak, 3.0)
                light = peak * trail.profile(*size)
                start = time.process_time()
                mask, number = find(frame + light.astype(np.float32))
                seconds.append(time.process_time() - start)
                if peak:
                    hits += light[mask].sum() > 0.5 * light.sum()
                else:
                    false += number
            if peak:
                cells.append(f"{hits} of {repeats}")
        row = [name, *cells, f"{false} in {repeats}", f"{np.median(seconds):.2g}"]
        rows.append(say(row))
    head = ["found", *(f"{peak:g} sigma" for peak in peaks), "false, no trail", "CPU seconds a frame"]
    return head, rows


def both(z: np.ndarray, spared: np.ndarray) -> None:
    """Look for footprints and lines as a run does in a frame of one channel."""
    smooth = smooth_part(z, spared)
    find_footprints(z, spared, smooth)
    find_lines(z, spared, smooth)


def speed(size: tuple[int, int], nights: int, numbers: Sequence[int]) -> Rows:
    """Measure the CPU time of the finders for a frame of 12 megapixels."""
    shape = (3000, 4000) if nights == MOST_NIGHTS else (300, 400)
    z = np.random.default_rng([SEED, 7]).standard_normal(shape, np.float32)
    light = Trail(0, (-30.0, 0.2 * shape[0]), (shape[1] + 30.0, 0.7 * shape[0]), 2.0, 3.0).profile(*shape)
    frames = {"no trail": z, "one trail": z + (2 * light).astype(np.float32)}
    spared = np.zeros(shape, bool)
    rows = []
    for name, find in (
        ("footprints", find_footprints),
        ("lines", find_lines),
        ("footprints and lines together, as in a run", both),
    ):
        cells = []
        for frame in frames.values():
            times = []
            for _ in range(SPEED_ROUNDS + 1):
                start = time.process_time()
                find(frame, spared)
                times.append(time.process_time() - start)
            cells.append(f"{np.median(times[1:]):.2f}")
        rows.append(say([name, *cells]))
    return [f"CPU seconds, frame of {shape[0] * shape[1] / 1e6:.0f} megapixels", *frames], rows


#: Parts of the page, each between markers of its own, with the size of the frames.
PARTS: dict[str, tuple[Callable[..., Rows], tuple[int, int]]] = {
    "light": (light_left, USUAL),
    "several": (several, USUAL),
    "cost": (cost, USUAL),
    "false": (false_lines, SMALL),
    "kinds": (kinds, SMALL),
    "detection": (detection, USUAL),
    "speed": (speed, USUAL),
}


#: What is said above some of the tables.
HEADINGS = {
    "several": (
        "Three trails in one frame that cross each other, one of which ends in the frame. What is left in "
        "one night, the\npart of the light under no mask, and the lines found. The light of three trails in "
        "so small a frame counts as its\nbackground as well, so the frame is taken a little too dark, but "
        "for where the trails are masked. That is some percent of\ntheir light, and less in a larger "
        "frame:\n\n"
    ),
    "kinds": (
        "## Other hits\n\nTwenty frames. The light left of what is no straight trail. An asteroid that moves "
        "by less than its width\nfrom frame to frame is at one place in several frames, and is spared like a "
        "diffraction spike.\n\n"
    ),
    "speed": "## Time\n\n",
}


def main() -> None:
    """Parse the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small frames: a test of the script itself")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="some of the parts")
    parser.add_argument("--nights", type=int, default=MOST_NIGHTS, help="nights for each row, at most 4")
    parser.add_argument("--frames", type=int, nargs="+", default=NUMBERS, help="numbers of frames")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/trails.md")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick gives no numbers worth writing; drop --quick or --write")
    start = time.monotonic()
    for name in options.only:
        part, size = PARTS[name]
        size = QUICK if options.quick else size
        head, rows = part(size, *((1, NUMBERS[:1]) if options.quick else (options.nights, options.frames)))
        frames = "" if name in ("speed", "cost", "several") else f", frames of {size[1]} x {size[0]} pixels"
        text = f"Measured on {datetime.date.today()} with stacklib {sl.__version__}{frames}."
        nights = f" Nights of each row: {options.nights}." if name == "light" else ""
        text = f"{HEADINGS.get(name, '')}{text}{nights}\n\n{table(head, rows)}"
        print(f"{text}\n")
        if options.write:
            write_readme(PAGE, text, f"<!-- begin: {name} -->", f"<!-- end: {name} -->")
    print(f"Took {(time.monotonic() - start) / 60:.1f} minutes.", file=sys.stderr)


if __name__ == "__main__":
    main()
