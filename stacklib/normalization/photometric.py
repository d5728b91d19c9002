"""Match frames by starlight: transparency, background and noise of every frame.

A frame is ``x = T S + B + n``: the light S of the sky, dimmed by the transparency T (times exposure and
gain), a smooth background B and noise. All frames are compared with a robust stack of the best of them, which
has little noise of its own: the light of stars gives T, what is left outside stars the smooth surface B, and
what is left then the noise. Only differences between frames are fitted, in which galaxies and nebulae cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from stacklib.frames.differences import mosaic_period
from stacklib.frames.frame import Frame
from stacklib.measurement.border import NOTHING
from stacklib.measurement.cache import kept_for_set
from stacklib.measurement.measurements import FrameMeasurements, Planes, Progress
from stacklib.measurement.photometry import (
    CELLS,
    LEAST_ERROR,
    Light,
    StarFluxes,
    Template,
    best_power,
    bin_plane,
    compare_stars,
    compare_structure,
    compare_wings,
    make_template,
    without_holes,
)
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
from stacklib.normalization.usable import Usable
from stacklib.utils.compiled import compiled
from stacklib.utils.filters.discs import grow
from stacklib.utils.filters.smoothing import gaussian_reflected
from stacklib.utils.labels import listed
from stacklib.utils.ranks import median_of
from stacklib.utils.resources import checked_threads

__all__ = ["Photometry", "measure_photometry"]

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
#: The anchor: this fraction of the frames, and fewest and most of them.
ANCHOR, FEWEST, MOST = 0.25, 3, 10
#: A frame covers the field if it has this fraction of what the best one covers.
WIDE = 0.9
#: Largest error of a star, as a fraction, that tells how the light varies over the field.
CERTAIN = 0.1
#: Bytes of the planes that are compared at the same time.
AT_ONCE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """What the frames of a night tell about it when they are compared with their common stack.

    Tables have the shape (frames, channels) and cover all frames that were given; NaN where unknown. They are
    in the units of the frames unless said otherwise.

    Attributes
    ----------
    transparency, transparency_error : ndarray of float64
        Light of a frame relative to the reference, which has exactly 1, and its standard error.
    stars : ndarray of int
        Number of stars that were used.
    source : ndarray of str
        What the transparency comes from: ``"stars"``, ``"structure"`` or ``"none"``.
    sky : ndarray of float64
        Level of the background.
    noise : ndarray of float64
        Standard deviation of the noise at the scale that matters; see `stacklib.measurement.scale_noise`.
    pixel_noise : ndarray of float64
        Standard deviation of the noise of single pixels, which registration hides in part.
    fwhm : ndarray of float64
        FWHM of the stars in pixels.
    shift : ndarray of float64
        Added to corrected samples to bring them to the common level.
    anchor : ndarray of float64
        Weights, with the sum 1 in each channel, of the frames whose background is that of all.
    surfaces : Surfaces
        What corrects the samples, so that the backgrounds differ by a constant only.
    notes : tuple of str
        For the user.
    """

    transparency: np.ndarray
    transparency_error: np.ndarray
    stars: np.ndarray
    source: np.ndarray
    sky: np.ndarray
    noise: np.ndarray
    pixel_noise: np.ndarray
    fwhm: np.ndarray
    shift: np.ndarray
    anchor: np.ndarray
    surfaces: Surfaces
    notes: tuple[str, ...] = ()

    @property
    def factor(self) -> np.ndarray:
        """Factors that bring the light of the frames to that of the reference, (frames, channels)."""
        return 1 / self.transparency

    @property
    def offset(self) -> np.ndarray:
        """What is added to corrected samples after the multiplication by `factor`, (frames, channels)."""
        return self.shift / self.transparency

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What describes the frames, by name, each (frames, channels)."""
        names = ("transparency", "transparency_error", "stars", "sky", "noise", "pixel_noise", "fwhm")
        return {name: getattr(self, name) for name in names}

    @property
    def dark(self) -> list[int]:
        """Frames without light in a channel where others have it, by index."""
        return np.flatnonzero((self.source == "dark").any(axis=1)).tolist()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as arrays by name, for the cache."""
        arrays = {name: getattr(self, name) for name in _TABLES}
        arrays |= {"surfaces": self.surfaces.offset, "notes": np.array(self.notes, dtype=np.str_)}
        if self.surfaces.gain is not None:
            arrays["gains"] = self.surfaces.gain
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], height: int, width: int) -> Photometry:
        """Return what `to_arrays` turned into arrays, for frames of some size."""
        surfaces = Surfaces(height, width, arrays["surfaces"], arrays.get("gains"))
        tables = {name: arrays[name] for name in _TABLES}
        return cls(**tables, surfaces=surfaces, notes=tuple(arrays["notes"].tolist()))

    def relative_to(self, reference: int) -> Photometry:
        """Return the same with another reference, by its index."""
        own = self.transparency[reference]
        return replace(
            self,
            transparency=self.transparency / own,
            transparency_error=self.transparency_error / own,
        )


_TABLES = tuple(each.name for each in fields(Photometry) if each.name not in ("surfaces", "notes"))


def measure_photometry(
    frames: Sequence[Frame],
    measured: FrameMeasurements,
    usable: Usable,
    *,
    local: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    planes: Planes | None = None,
) -> Photometry:
    """Compare frames by their light. What was found before is taken from the cache.

    Parameters
    ----------
    frames : sequence of Frame
        All frames that were given.
    measured : FrameMeasurements
        Their measurements.
    usable : Usable
        Frames and channels that hold an image. The others stay unknown.
    local : bool
        Let the transparency vary over the field.
    threads : int, optional
        Number of frames that are compared at the same time, if there is memory for them. The result does not
        depend on it.
    progress : callable, optional
        ``progress(done, total)`` is called after each plane, from the calling thread.
    planes : callable, optional
        ``planes(i, channel)`` returns a plane that is already in memory.

    Returns
    -------
    Photometry
        Relative to the best frame; see `Photometry.relative_to`. Frames without light, where others have
        some, have the source ``"dark"``.
    """
    scale = measured.unit_range, measured.full_scale
    places = tuple(usable.frames), tuple(usable.channels)
    inputs = ("photometry", local, measured.names, measured.location, measured.empty, measured.data_range)

    def measure() -> Photometry:
        return _measure_photometry(frames, measured, usable, local, threads, progress, planes)

    def unpack(arrays: Mapping[str, np.ndarray]) -> Photometry:
        return Photometry.from_arrays(arrays, frames[0].height, frames[0].width)

    return kept_for_set(frames, (*inputs, *scale, *places), measure, Photometry.to_arrays, unpack)


def _measure_photometry(
    frames: Sequence[Frame],
    measured: FrameMeasurements,
    usable: Usable,
    local: bool,
    threads: int | None,
    progress: Progress | None,
    planes: Planes | None,
) -> Photometry:
    reader = _Reader(frames, measured, planes)
    shape = (len(frames), frames[0].channels)
    period = mosaic_period(frames)
    total = len(usable.channels) * len(usable.frames)
    found = []
    for number, channel in enumerate(usable.channels):

        def report(done: int, before: int = number * len(usable.frames)) -> None:
            if progress is not None:
                progress(before + done, total)

        own = _Channel(reader, channel, usable.frames, period, local, checked_threads(threads))
        found.append(own.measure(report))
    # The same frames for all channels: others would color the background.
    anchor = _anchor(found, [measured.names[i] for i in usable.frames], _covered(measured, usable))
    names = ("transparency", "transparency_error", "sky", "noise", "pixel_noise", "fwhm")
    tables = {name: np.full(shape, math.nan) for name in names}
    shift, weights, stars = np.zeros(shape), np.zeros(shape), np.zeros(shape, int)
    source = np.full(shape, "none", "U9")
    coefficients = np.zeros((*shape, period, period, SIZE, SIZE))
    gains = np.ones_like(coefficients) if local else None
    for channel, each in zip(usable.channels, found, strict=True):
        for name in names:
            tables[name][usable.frames, channel] = each.tables[name]
        stars[usable.frames, channel], source[usable.frames, channel] = each.stars, each.source
        # What is added to samples, in the units of the frames.
        light = np.nan_to_num(each.tables["transparency"])
        added = light[:, None, None, None, None] * (
            each.offset - np.tensordot(anchor, each.offset, axes=(0, 0))
        )
        mean = np.array([_mean(surface, reader.shape) for surface in added])
        coefficients[usable.frames, channel] = added - mean[:, None, None, None, None]
        shift[usable.frames, channel], weights[usable.frames, channel] = mean, anchor
        if gains is not None and each.gain is not None:
            gains[usable.frames, channel] = each.gain
    surfaces = Surfaces(frames[0].height, frames[0].width, coefficients, gains)
    result = Photometry(**tables, stars=stars, source=source, shift=shift, anchor=weights, surfaces=surfaces)
    return replace(result, notes=tuple(_notes(result, usable, measured.names)))


def _covered(measured: FrameMeasurements, usable: Usable) -> np.ndarray:
    """Return the fraction of the image that each usable frame covers."""
    if measured.empty is None:
        return np.ones(len(usable.frames))
    return 1 - usable.part(measured.empty).max(axis=1)


def _mean(offset: np.ndarray, shape: tuple[int, int]) -> float:
    """Return the mean of a surface over the field."""
    down, across = (basis(np.arange(size), size).mean(axis=0) for size in shape)
    return float(np.mean(down @ offset @ across))


def _anchor(found: list[_Found], names: Sequence[str], covered: np.ndarray) -> np.ndarray:
    """Return the weights of the frames that set the background: the darkest and best that cover the field.

    The score of a frame is its weight over the root of its sky, the geometric mean over the channels.
    """
    scores = []
    for each in found:
        light, noise, sky = (each.tables[name] for name in ("transparency", "noise", "sky"))
        # Skies at or below 0 have lost their pedestal, and are dark alike.
        positive = sky[sky > 0]
        least = 0.1 * float(np.median(positive)) if positive.size else 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(np.log((light / noise) ** 2 / np.sqrt(np.maximum(sky, least))))
    score = np.mean(scores, axis=0)
    known = np.isfinite(score)
    if not known.any():
        # Frames without noise are all alike.
        known, score = (
            np.all([np.isfinite(each.tables["sky"]) for each in found], axis=0),
            np.zeros(len(names)),
        )
    covered = np.where(known, covered, 0)
    wide = np.flatnonzero(known & (covered >= WIDE * covered.max()))
    order = sorted(wide.tolist(), key=lambda k: (-score[k], names[k]))
    chosen = order[: int(min(MOST, max(FEWEST, round(ANCHOR * len(order)))))]
    anchor = np.zeros(len(names))
    anchor[chosen] = 1 / len(chosen)
    return anchor


def _notes(found: Photometry, usable: Usable, names: Sequence[str]) -> list[str]:
    """Say where the light is not that of stars."""
    notes = []
    source = found.source[np.ix_(usable.frames, usable.channels)]
    own = [names[i] for i in usable.frames]
    if (source == "none").all():
        notes.append(
            "no stars and no other structure were found, so all frames are taken to have the same "
            "transparency; the background is matched all the same"
        )
    elif none := [name for name, kinds in zip(own, source, strict=True) if (kinds == "none").any()]:
        notes.append(
            "no stars and no other structure were found in some of the channels, where the frames are taken "
            f"to have the same transparency: {listed(none)}"
        )
    by_structure = [name for name, kinds in zip(own, source, strict=True) if (kinds == "structure").any()]
    if by_structure:
        notes.append(
            f"too few stars to compare the light of {len(by_structure)} of {len(own)} frames by: other "
            f"structure was compared, which is less exact ({listed(by_structure)})"
        )
    return notes


@dataclass(frozen=True)
class _Reader:
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


class _Compared(NamedTuple):
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
    wings: np.ndarray | None = None


class _Found(NamedTuple):
    """Columns of the tables for the usable frames of one channel, with the light of the stack as 1.

    `offset` brings frames, divided by their light, to the background of the stack.
    """

    tables: dict[str, np.ndarray]
    stars: np.ndarray
    source: np.ndarray
    offset: np.ndarray
    gain: np.ndarray | None


class _Stack(NamedTuple):
    """A stack with its stars and structure, for a mosaic binned by its period."""

    image: np.ndarray
    binned: np.ndarray
    stars: Template
    structure: np.ndarray


@dataclass(frozen=True)
class _Residual:
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
class _Channel:
    """Compares the planes of one channel."""

    reader: _Reader
    channel: int
    frames: list[int]
    period: int
    local: bool
    threads: int

    def measure(self, report: Callable[[int], None]) -> _Found:
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
        stack = _Stack(image, binned, stars, structure)
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

    def _with_stars(self, image: np.ndarray, level: float) -> _Stack:
        """Find the stars of a stack from which the background, of this level, was subtracted."""
        binned = bin_plane(image, self.period)
        with ThreadPoolExecutor(1) as pool:
            structure = pool.submit(_small_structure, binned, self.period, image.shape)
            stars, _ = make_template(binned + np.float32(level), self.reader.measured.saturation)
            return _Stack(image, binned, stars.of(binned), structure.result())

    def _compare(
        self,
        frames: list[int],
        stack: _Stack,
        report: Callable[[int], None] | None = None,
        wings: bool = False,
    ) -> dict[int, _Compared]:
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

    def _compare_plane(self, i: int, stack: _Stack, wings: bool) -> _Compared:
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
        residual = _Residual(plane, factor, self._surface(offset), stack.image)
        # A first comparison only tells how the frames of the stack are to be clipped.
        noise = math.nan if wings else scale_noise(residual, stack.structure)
        noises = noise, pixel_noise(residual, stack.structure)
        beyond = compare_wings(binned, stack.stars) if wings and source == "stars" else None
        return _Compared(light, source, offset, gain, fwhm * self.period, noises, beyond)

    def _surface(self, offset: np.ndarray | None = None, gain: np.ndarray | None = None) -> Surfaces:
        """Return the correction of a single plane."""
        if offset is None:
            offset = np.zeros((self.period, self.period, SIZE, SIZE))
        return Surfaces(*self.reader.shape, offset[None, None], None if gain is None else gain[None, None])

    def _surfaces(self, compared: list[_Compared]) -> Surfaces:
        """Return what brings planes, divided by their light, to the background of the stack."""
        gain = None
        if self.local:
            one = np.ones_like(compared[0].offset)
            gain = np.stack([one if each.gain is None else each.gain for each in compared])[:, None]
        return Surfaces(*self.reader.shape, np.stack([each.offset for each in compared])[:, None], gain)

    def _offset(self, stack: _Stack, plane: np.ndarray, factor: np.float32) -> np.ndarray:
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
        return gain / _mean(gain, self.reader.shape)

    def _tables(self, compared: dict[int, _Compared], order: list[int], stack: _Stack) -> _Found:
        """Make the columns of the tables, with the light relative to the stack."""
        all_of_them = [compared[i] for i in self.frames]
        source = np.array([each.source for each in all_of_them])
        light = np.array([each.light.ratio for each in all_of_them])
        light[source == "dark"] = math.nan
        noise, pixel = (
            self._noise(np.array([each.noises[k] for each in all_of_them]), order) for k in (0, 1)
        )
        offset = np.stack([each.offset for each in all_of_them])
        means = np.array([_mean(each, self.reader.shape) for each in offset])
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
        return _Found(tables, stars, source, offset, gain)

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
        fine, coarse = (gaussian_reflected(filled, size, threads) for size in SIZES)
        fine -= coarse
        some = fine[~missing] if missing.any() else fine.ravel()
        step = max(1, some.size // SAMPLED) | 1
        sigma = 1.4826 * median_of(np.abs(some[::step]))
        found = grow(np.abs(fine) > SMALL * sigma, AROUND) if sigma > 0 else np.zeros_like(missing)
    if period == 1:
        return found
    large = np.repeat(np.repeat(found, period, axis=0), period, axis=1)
    return np.pad(large, [(0, size - have) for size, have in zip(shape, large.shape, strict=True)])
