"""Compare the frames of a night with a robust stack of the best of them, one channel at a time.

The light of stars gives the transparency, what is left outside stars a smooth surface, and what is left then
the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.measurement.border import NOTHING
from stacklib.measurement.light.binning import bin_plane, without_holes
from stacklib.measurement.light.photometry import (
    CELLS,
    LEAST_ERROR,
    StarFluxes,
    Template,
    compare_stars,
    make_template,
)
from stacklib.measurement.light.ratio import Light
from stacklib.measurement.light.structure import compare_structure
from stacklib.measurement.light.wings import Wings, best_power, compare_wings
from stacklib.measurement.measurements import FrameMeasurements, Planes
from stacklib.measurement.scale_noise import pixel_noise, scale_noise
from stacklib.normalization.robust_stack import clipped_mean, median_stack
from stacklib.normalization.surfaces import (
    SIZE,
    Blocks,
    Surfaces,
    basis,
    block_levels,
    block_side,
    fit_surface,
)
from stacklib.utils.compiled import compiled
from stacklib.utils.filters.discs import grow
from stacklib.utils.filters.smoothing import gaussian_reflected
from stacklib.utils.ranks import median_of

__all__ = ["ChannelComparison", "ChannelLight", "PlaneReader", "mean_of_surface"]

#: Number of frames in the stack, and in that of frames which cover different parts of the field.
SUBSET, SUBSET_OF_PARTS, PART = 15, 40, 0.8
#: Side of the window in which frames are first compared, and samples in all windows together.
WINDOW, WINDOW_SAMPLES = 512, 32 << 20
#: Frames in the stack of the windows.
FIRST_STACK = 30
#: Stars and other small structure exceed this many sigma between filters of these sizes in pixels, and are
#: left out with as many pixels around them.
SMALL, SIZES, AROUND = 4.0, (1.0, 6.0), 3
#: Number of pixels that tell their noise.
SAMPLED = 1 << 18
#: A frame covers the field if it has this fraction of what the best one covers.
WIDE = 0.9
#: Largest error of a star, as a fraction, that tells how the light varies over the field.
CERTAIN = 0.1
#: Bytes of the planes that are compared at the same time.
AT_ONCE = 1 << 30


@dataclass(frozen=True)
class PlaneReader:
    """Reads samples as they are compared: NaN for no data and for saturated ones."""

    frames: Sequence[Frame]
    measured: FrameMeasurements
    planes: Planes | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames[0].height, self.frames[0].width

    def rows(self, i: int, channel: int, start: int, stop: int) -> np.ndarray:
        """Return rows of a plane, a copy."""
        if self.planes is not None:
            rows = self.planes(i, channel)[start:stop]
        else:
            rows = self.frames[i].read_rows(start, stop, channel)
        known, low = self.measured.data_range, -math.inf
        if known is not None and (i, channel) in known.borders:
            rows = known.mark(i, channel, np.array(rows), start)
        elif known is not None:
            low = float(known.low[i, channel])
        out = np.empty(rows.shape, np.float32)
        _leave_out(rows, np.float32(low), np.float32(self.measured.saturation), out)
        return out


@compiled
def _leave_out(rows, low, full, out):
    """Copy rows with NaN for samples up to the lower limit, from the upper one on, and those marked."""
    for r in range(rows.shape[0]):
        line, copied = rows[r], out[r]
        for c in range(line.size):
            x = line[c]
            left_out = (x >= full) | ((x <= low) & (x > -np.inf)) | (x == NOTHING)
            copied[c] = np.float32(np.nan) if left_out else x


class Compared(NamedTuple):
    """A plane compared with the stack.

    `light` is relative to the stack, `offset` (period, period, SIZE, SIZE) what is added to ``x gain / T``
    to have the background of the stack, `noises` the noise of the residual at the scale that matters and in
    its pixels, both in the units of the stack. `wings` is the result of `compare_wings`; where it is wanted,
    the noise at the scale that matters is not measured.
    """

    light: Light
    source: str
    offset: np.ndarray
    gain: np.ndarray | None
    fwhm: float
    noises: tuple[float, float]
    wings: Wings | None = None


class ChannelLight(NamedTuple):
    """Columns of the tables for the usable frames of one channel, with the light of the stack as 1.

    `offset` brings frames, divided by their light, to the background of the stack.
    """

    tables: dict[str, np.ndarray]
    stars: np.ndarray
    source: np.ndarray
    offset: np.ndarray
    gain: np.ndarray | None


class Stack(NamedTuple):
    """A stack with its stars and structure, for a mosaic binned by its period."""

    image: np.ndarray
    binned: np.ndarray
    stars: Template
    structure: np.ndarray


@dataclass(frozen=True)
class Residual:
    """A plane times a factor, corrected, minus the stack. Rows are computed as they are asked for."""

    plane: np.ndarray
    factor: np.float32
    surface: Surfaces
    stack: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plane.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        values = self.plane[rows] * self.factor
        start, _, step = rows.indices(self.plane.shape[0])
        self.surface.correct(0, 0, values, start, step=step)
        values -= self.stack[rows]
        return values


@dataclass(frozen=True)
class ChannelComparison:
    """Compares the planes of one channel."""

    reader: PlaneReader
    channel: int
    frames: list[int]
    period: int
    local: bool
    threads: int

    def measure(self, report: Callable[[int], None]) -> ChannelLight:
        """Compare all planes with a stack of the best of them."""
        order, first = self._best()
        shape = self.reader.shape
        location = self.reader.measured.location[:, self.channel]
        # A first stack, of frames that are roughly matched, has the stars.
        image = median_stack(
            lambda k, start, stop: (
                (self._rows(order[k], start, stop) - np.float32(location[order[k]]))
                / np.float32(first[order[k]])
            ),
            len(order),
            shape,
            self.threads,
        )
        typical = float(np.median([location[i] / first[i] for i in order]))
        stack = self._with_stars(image, typical)
        rough = self._compare(order, stack, wings=True)
        power, power_error = best_power([each.wings for each in rough.values() if each.wings is not None])
        order = [i for i in order if rough[i].source != "dark"]
        factors = {i: np.float32(1 / rough[i].light.ratio) for i in order}
        surfaces = self._surfaces([rough[i] for i in order])

        def matched(k: int, start: int, stop: int) -> np.ndarray:
            return surfaces.correct(k, 0, self._rows(order[k], start, stop) * factors[order[k]], start)

        noise = np.array([rough[i].noises[1] for i in order])
        usual = np.median(noise[noise > 0]) if (noise > 0).any() else 0.0
        image = clipped_mean(matched, np.where(noise > 0, noise, usual), shape, self.threads)
        binned = bin_plane(image, self.period)
        structure = _small_structure(binned, self.period, shape, self.threads)
        stars = stack.stars.of(binned)._replace(power=power, power_error=power_error)
        stack = Stack(image, binned, stars, structure)
        compared = self._compare(self.frames, stack, report)
        return self._tables(compared, order, stack)

    def _rows(self, i: int, start: int, stop: int) -> np.ndarray:
        return self.reader.rows(i, self.channel, start, stop)

    def _best(self) -> tuple[list[int], dict[int, float]]:
        """Choose the frames for the stack; return them, the best first, and the rough light of all frames.

        Frames are compared in a window in the middle: signal over noise decides. The choice does not depend
        on the order of the frames.
        """
        measured, channel = self.reader.measured, self.channel
        location = measured.location[:, channel]
        by_level = sorted(self.frames, key=lambda i: (location[i], measured.names[i]))
        height, width = self.reader.shape
        side = int(min(WINDOW, max(128, math.isqrt(WINDOW_SAMPLES // len(self.frames)))))
        side -= side % self.period
        rows, columns = min(side, height), min(side, width)
        top, left = (height - rows) // 2, (width - columns) // 2
        top, left = top - top % self.period, left - left % self.period

        def window_of(i: int) -> np.ndarray:
            window = self._rows(i, top, top + rows)[:, left : left + columns]
            return bin_plane(window, self.period) - np.float32(location[i])

        def judged(i: int) -> tuple[float, float]:
            own, _, _ = compare_stars(windows[i], stars, seeing=1.0)
            light = own.ratio if own.known else 1.0
            noise = pixel_noise(windows[i] - stack * np.float32(light))
            return own.ratio if own.known else math.nan, (light / noise) ** 2 if noise > 0 else 0.0

        with ThreadPoolExecutor(self.threads) as pool:
            windows = dict(zip(by_level, pool.map(window_of, by_level), strict=True))
            some = by_level[:: -(-len(by_level) // FIRST_STACK)]
            stack = median_stack(
                lambda k, a, b: windows[some[k]][a:b], len(some), windows[some[0]].shape, self.threads
            )
            stars, _ = make_template(stack)
            found = dict(zip(by_level, pool.map(judged, by_level), strict=True))
        first = {i: ratio for i, (ratio, _) in found.items()}
        quality = {i: value for i, (_, value) in found.items()}
        known = [value for value in first.values() if math.isfinite(value)]
        if known:
            quality = {i: value * (1 if math.isfinite(first[i]) else 1e-9) for i, value in quality.items()}
        usual = float(np.median(known)) if known else 1.0
        first = {i: value / usual if math.isfinite(value) else 1.0 for i, value in first.items()}
        covered = 1 - (np.zeros(location.size) if measured.empty is None else measured.empty[:, channel])
        parts = min(covered[i] for i in self.frames) < PART * max(covered[i] for i in self.frames)
        best = sorted(
            self.frames,
            key=lambda i: (
                not parts and covered[i] < WIDE * max(covered[k] for k in self.frames),
                -quality[i],
                measured.names[i],
            ),
        )
        return best[: SUBSET_OF_PARTS if parts else SUBSET], first

    def _with_stars(self, image: np.ndarray, level: float) -> Stack:
        """Find the stars of a stack from which the background, of this level, was subtracted."""
        binned = bin_plane(image, self.period)
        with ThreadPoolExecutor(1) as pool:
            structure = pool.submit(_small_structure, binned, self.period, image.shape)
            if 16 * image.size > AT_ONCE:
                # Each takes several planes.
                structure.result()
            stars, _ = make_template(binned + np.float32(level), self.reader.measured.saturation)
            return Stack(image, binned, stars.of(binned), structure.result())

    def _compare(
        self,
        frames: list[int],
        stack: Stack,
        report: Callable[[int], None] | None = None,
        wings: bool = False,
    ) -> dict[int, Compared]:
        """Compare planes with the stack, several at the same time."""
        at_once = max(1, min(self.threads, AT_ONCE // (16 * stack.image.size)))
        found = {}
        with ThreadPoolExecutor(at_once) as pool:
            results = pool.map(lambda i: self._compare_plane(i, stack, wings), frames)
            for done, (i, compared) in enumerate(zip(frames, results, strict=True), start=1):
                found[i] = compared
                if report is not None:
                    report(done)
        if any(each.source in ("stars", "structure") for each in found.values()):
            # Others have light, so this one is behind clouds.
            found = {
                i: each._replace(source="dark") if each.source == "none" else each
                for i, each in found.items()
            }
        return found

    def _compare_plane(self, i: int, stack: Stack, wings: bool) -> Compared:
        plane = self._rows(i, 0, self.reader.shape[0])
        binned = bin_plane(plane, self.period)
        light, fwhm, fluxes = compare_stars(binned, stack.stars)
        source = "stars"
        if not light.known and np.isnan(binned).any():
            # Scattered pixels without data would hide every star.
            stars = stack.stars.of(without_holes(stack.binned, binned))
            binned = without_holes(binned, binned)
            light, fwhm, fluxes = compare_stars(binned, stars)
        if not light.known:
            light, source = compare_structure(binned, stack.binned), "structure"
        if not light.known:
            light, source = Light(1.0, math.nan, 0), "none"
        factor, gain = np.float32(1 / light.ratio), None
        if self.local and source == "stars":
            gain = self._gain(fluxes, stack.stars, light.ratio)
        if gain is not None:
            plane *= factor
            self._surface(gain=gain).correct(0, 0, plane)
            factor = np.float32(1)
        offset = self._offset(stack, plane, factor)
        residual = Residual(plane, factor, self._surface(offset), stack.image)
        # A first comparison only tells how the frames of the stack are to be clipped.
        noise = math.nan if wings else scale_noise(residual, stack.structure)
        noises = noise, pixel_noise(residual, stack.structure)
        beyond = compare_wings(binned, stack.stars) if wings and source == "stars" else None
        return Compared(light, source, offset, gain, fwhm * self.period, noises, beyond)

    def _surface(self, offset: np.ndarray | None = None, gain: np.ndarray | None = None) -> Surfaces:
        """Return the correction of a single plane."""
        if offset is None:
            offset = np.zeros((self.period, self.period, SIZE, SIZE))
        return Surfaces(*self.reader.shape, offset[None, None], None if gain is None else gain[None, None])

    def _surfaces(self, compared: list[Compared]) -> Surfaces:
        """Return what brings planes, divided by their light, to the background of the stack."""
        gain = None
        if self.local:
            one = np.ones_like(compared[0].offset)
            gain = np.stack([one if each.gain is None else each.gain for each in compared])[:, None]
        return Surfaces(*self.reader.shape, np.stack([each.offset for each in compared])[:, None], gain)

    def _offset(self, stack: Stack, plane: np.ndarray, factor: np.float32) -> np.ndarray:
        """Fit the difference between the stack and a plane, for each color of the pattern by itself."""
        height, width = self.reader.shape
        offset = np.zeros((self.period, self.period, SIZE, SIZE))
        for a, b in np.ndindex(self.period, self.period):
            own, image, structure = (
                np.ascontiguousarray(each[a :: self.period, b :: self.period])
                for each in (plane, stack.image, stack.structure)
            )
            side = block_side(*own.shape)
            blocks = block_levels(own, structure, side, image, factor)
            if not blocks.level.size:
                # Structure is everywhere.
                blocks = block_levels(own, np.zeros_like(structure), side, image, factor)
            blocks = blocks._replace(
                y=blocks.y * self.period + a, x=blocks.x * self.period + b, side=blocks.side * self.period
            )
            fitted = fit_surface(blocks, height, width)
            if fitted is not None:
                offset[a, b] = fitted[0]
        return offset

    def _gain(self, fluxes: StarFluxes, stars: Template, ratio: float) -> np.ndarray | None:
        """Fit by how much the samples in each place must be multiplied, with a mean of 1.

        None if the light does not vary over the field, as far as the stars can tell.
        """
        height, width = self.reader.shape
        with np.errstate(divide="ignore", invalid="ignore"):
            error = fluxes.error / fluxes.own
            good = fluxes.good & (error > 0) & (error < CERTAIN)
        middle = (self.period - 1) / 2
        blocks = Blocks(
            y=stars.y[good] * self.period + middle,
            x=stars.x[good] * self.period + middle,
            level=ratio * fluxes.stack[good] / fluxes.own[good],
            weight=1 / (error[good] ** 2 + LEAST_ERROR**2),
            side=max(height, width) / CELLS,
        )
        fitted = fit_surface(blocks, height, width, finest=2)
        if fitted is None or fitted[1] == 0:
            return None
        gain = np.broadcast_to(fitted[0], (self.period, self.period, SIZE, SIZE))
        return gain / mean_of_surface(gain, self.reader.shape)

    def _tables(self, compared: dict[int, Compared], order: list[int], stack: Stack) -> ChannelLight:
        """Make the columns of the tables, with the light relative to the stack."""
        all_of_them = [compared[i] for i in self.frames]
        source = np.array([each.source for each in all_of_them])
        light = np.array([each.light.ratio for each in all_of_them])
        light[source == "dark"] = math.nan
        noise, pixel = (
            self._noise(np.array([each.noises[k] for each in all_of_them]), order) for k in (0, 1)
        )
        offset = np.stack([each.offset for each in all_of_them])
        means = np.array([mean_of_surface(each, self.reader.shape) for each in offset])
        levels = block_levels(stack.image, stack.structure, block_side(*stack.image.shape)).level
        level = float(np.median(levels)) if levels.size else 0.0
        gain = None
        if self.local:
            one = np.ones_like(offset[0])
            gain = np.stack([one if each.gain is None else each.gain for each in all_of_them])
        tables = {
            "transparency": light,
            "transparency_error": np.array([each.light.error for each in all_of_them]),
            "sky": light * (level - means),
            "noise": light * noise,
            "pixel_noise": light * pixel,
            "fwhm": np.array([each.fwhm for each in all_of_them]),
        }
        stars = np.where(source == "stars", [each.light.count for each in all_of_them], 0)
        return ChannelLight(tables, stars, source, offset, gain)

    def _noise(self, residual: np.ndarray, order: list[int]) -> np.ndarray:
        """Return the noise of the frames, relative to their light, from that of their residuals.

        The residual of a frame with the share w of the stack has the variance ``s^2 (1 - 2 w) + V``, where V,
        that of the stack, is the sum of ``w^2 s^2``.
        """
        share = np.where(np.isin(self.frames, order), 1 / len(order), 0.0)
        squared = residual**2
        inside = (share > 0) & np.isfinite(squared)
        if len(order) < 3:
            # Two residuals are equal, whatever the noise of each frame.
            return np.sqrt(np.where(share > 0, 2 * squared, np.maximum(squared - squared[inside].mean(), 0)))
        own = share[inside] ** 2 / (1 - 2 * share[inside])
        variance = np.sum(own * squared[inside]) / (1 + np.sum(own))
        return np.sqrt(np.maximum((squared - variance) / (1 - 2 * share), 0.1 * squared))


def _small_structure(binned: np.ndarray, period: int, shape: tuple[int, int], threads: int = 1) -> np.ndarray:
    """Find stars and other small structure of a stack, with the pixels around it, bool (height, width)."""
    missing = ~np.isfinite(binned)
    if missing.all():
        found = np.zeros_like(missing)
    else:
        filled = binned
        if missing.any():
            filled = np.where(missing, np.float32(np.median(binned[~missing])), binned)
        # In place: planes of a hundred megapixels fill the memory.
        contrast = gaussian_reflected(filled, SIZES[0], threads)
        contrast -= gaussian_reflected(filled, SIZES[1], threads)
        np.abs(contrast, out=contrast)
        some = contrast[~missing] if missing.any() else contrast.ravel()
        step = max(1, some.size // SAMPLED) | 1
        sigma = 1.4826 * median_of(some[::step])
        found = grow(contrast > SMALL * sigma, AROUND) if sigma > 0 else np.zeros_like(missing)
    if period == 1:
        return found
    large = np.repeat(np.repeat(found, period, axis=0), period, axis=1)
    return np.pad(large, [(0, size - have) for size, have in zip(shape, large.shape, strict=True)])


def mean_of_surface(offset: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the mean of a surface over the field."""
    down, across = (basis(np.arange(size), size).mean(axis=0) for size in shape)
    return float(np.mean(down @ offset @ across))
