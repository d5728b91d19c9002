"""Whether the frames lie on each other: the shift of each frame against the stack of the others.

Each frame is band-passed, so that neither the sky nor noise of single pixels counts, and cut off on both
sides, so that what is left are its stars, bright and faint ones nearly alike. Its cross-correlation with the
sum of other frames, moved onto each other, has a peak at its shift (phase correlation without the whitening,
which would raise the noise).
"""

from __future__ import annotations

import heapq
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy

from stacklib.errors import IntegrationError
from stacklib.measurement.cache.sets import kept_by_frame, kept_for_set
from stacklib.normalization.preparation import Preparation
from stacklib.utils.compiled import compiled
from stacklib.utils.filters.smoothing import box_mean
from stacklib.utils.labels import counted, listed
from stacklib.utils.ranks import median_of
from stacklib.utils.resources import checked_threads

__all__ = [
    "Registration",
    "check_registration",
    "measure_shifts",
    "registration_of",
    "stacked_frames",
    "window_of",
    "window_reader",
]

#: Shifts up to this many pixels are accepted, and those beyond the second are refused.
ACCEPTED, REFUSED = 0.5, 2.0
#: Shifts of frames that were aligned by whole pixels: no component beyond this, and at least this scatter.
WHOLE_PIXEL, WHOLE_SCATTER = 0.8, 0.2

#: Side of the window in the middle of the frames, and the one that is tried if too few stars are in it.
SIDES = (512, 1024)
#: Smallest side of frames that are measured.
LEAST_SIDE = 16
#: The window is good enough if at least this fraction of the frames match.
MOST = 0.8
#: Side of the boxes whose mean is the background of a pixel.
BACKGROUND = 21
#: A pixel counts from this many sigma above its background, up to this many above that.
FAINTEST, BRIGHTEST = 2.0, 8.0
#: Fraction of the box of a pixel that is data, at least.
SURE = 0.9
#: Number of frames whose sum the others are compared with.
STACKED = 15
#: Number of frames that are tried as the first of that sum.
TRIED = 3
#: A match has a peak that exceeds everything farther than this many pixels from it by this factor, and the
#: scatter of the correlation by the second.
PEAK_RADIUS, UNIQUE, SIGNIFICANT = 12, 1.5, 8.0
#: Pixels of the sum of frames are stars if they exceed this in most of them.
IN_MOST = 1.5
#: A spot exceeds this many sigma. A shift is believed if this many spots are stars then, this fraction of
#: all, and this many times as many as by chance, which is tried in these places.
SPOT_SIGMA, LEAST_COMMON, COMMON_SHARE, MORE_THAN_CHANCE = 5.0, 6, 0.25, 3.0
ELSEWHERE = ((-31, -23), (27, -29), (-33, 25), (21, 31))
#: A frame has other stars than the others if it has at least this many, and this fraction of their number.
LEAST_STARS, STAR_SHARE = 8, 0.4
#: Frames of which none match have stars, if each has this many round spots of this many to that many pixels;
#: they are not longer than wide by more than this factor.
MANY_STARS, STAR_PIXELS, ROUND = 20, (6, 300), 1.6
#: Mean absolute deviation of a unit Gaussian that is cut off at its 90 % quantile, and the least fraction of
#: the noise of a pixel that is left by a median filter and smoothing.
CUT_MEAN, LEFT_OF_NOISE = 0.757, 0.2

#: ``read(k, window)`` returns samples of frame `k` in a window (left, top, width, height), float32 (height,
#: width), NaN for no data.
ReadWindow = Callable[[int, tuple[int, int, int, int]], np.ndarray]


class Stack(NamedTuple):
    """Sum of the spectra of frames, moved onto each other, and the places of these among the stacked ones."""

    total: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Keep:
    """What keeps what is found in a window of some side with some stacked frames, or knows it from before.

    ``peaks(side, stacked, find)`` returns what ``find(indices)`` finds of frames, for all of them, and
    ``stack(side, stacked, find)`` what ``find()`` finds. By default everything is found.
    """

    peaks: Callable[[int, list[int], Callable[[list[int]], np.ndarray]], np.ndarray]
    stack: Callable[[int, list[int], Callable[[], Stack]], Stack]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How frames lie on each other.

    Attributes
    ----------
    shift : ndarray of float64, shape (frames, 2)
        Shift in x and y, in pixels, from where most frames have their stars. NaN if it is not known.
    error : ndarray of float64, shape (frames,)
        Standard error of the shift, the larger one of x and y, in pixels.
    apart : tuple of int
        Frames with stars that do not match those of the others, however they are moved.
    """

    shift: np.ndarray
    error: np.ndarray
    apart: tuple[int, ...]

    @property
    def distance(self) -> np.ndarray:
        """Length of the shifts in pixels, float64 (frames,)."""
        return np.hypot(*self.shift.T)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as arrays by name, for the cache."""
        return {"shift": self.shift, "error": self.error, "apart": np.array(self.apart, dtype=np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Registration:
        """Return what `to_arrays` turned into arrays."""
        shift, error, apart = (arrays[name] for name in ("shift", "error", "apart"))
        return cls(shift=shift, error=error, apart=tuple(apart.tolist()))

    def beyond(self, limit: float) -> list[int]:
        """Return the frames whose shift exceeds a limit, by more than three standard errors."""
        with np.errstate(invalid="ignore"):
            return np.flatnonzero(self.distance - 3 * self.error > limit).tolist()


def stacked_frames(names: Sequence[str]) -> list[int]:
    """Choose the frames whose sum or median the others are compared with.

    Parameters
    ----------
    names : sequence of str
        Names of all frames, in their order.

    Returns
    -------
    list of int
        All of a few frames. Of many, some from all over the first ones: no others are chosen when a frame is
        added or left out, as a rule, so that what was found of the frames holds.
    """
    if len(names) <= STACKED:
        return list(range(len(names)))
    first = range(1 << len(names).bit_length() - 1)
    return sorted(heapq.nsmallest(STACKED, first, key=lambda i: zlib.crc32(os.fsencode(names[i]))))


def registration_of(
    preparation: Preparation, held: np.ndarray | None = None, threads: int | None = None
) -> Registration:
    """Measure how the frames used lie on each other. What was found before is taken from the cache.

    Parameters
    ----------
    preparation : Preparation
        The frames, and which of their samples are data.
    held : ndarray of float32, shape (channels, frames, height, width), optional
        Their samples as they are in the files. By default they are read.
    threads : int, optional
        Number of frames that are measured at the same time. Default is one per CPU.

    Returns
    -------
    Registration
        Shifts of the frames in ``preparation.used``, in the middle channel that has an image.
    """
    p = preparation
    lit = np.flatnonzero(np.isfinite(p.measurements.location[p.reference]))
    channel = int(lit[lit.size // 2])
    low, _ = p.settings(channel).data_range
    read = window_reader(p, channel, held)
    first = int(np.searchsorted(p.used, p.reference))
    stacked = stacked_frames([frame.name for frame in p.used_frames])

    def inputs_of(side: int, chosen: list[int]) -> tuple:
        return side, channel, low, chosen.index(first), p.marks

    def peaks(side: int, chosen: list[int], find: Callable[[list[int]], np.ndarray]) -> np.ndarray:
        return kept_by_frame(p.used_frames, chosen, ("peaks", *inputs_of(side, chosen)), find)

    def stack(side: int, chosen: list[int], find: Callable[[], Stack]) -> Stack:
        frames, inputs = [p.used_frames[i] for i in chosen], ("stack", *inputs_of(side, chosen))
        return kept_for_set(frames, inputs, find, Stack._asdict, lambda arrays: Stack(**arrays))

    def measure() -> Registration:
        shape = p.frames.height, p.frames.width
        return measure_shifts(read, p.count, shape, first, threads, stacked=stacked, keep=Keep(peaks, stack))

    inputs = ("registration", channel, low, first, p.used, p.marks)
    return kept_for_set(p.used_frames, inputs, measure, Registration.to_arrays, Registration.from_arrays)


def window_reader(preparation: Preparation, channel: int, held: np.ndarray | None = None) -> ReadWindow:
    """Return what reads windows of the frames used, in one channel.

    `preparation` and `held` are those of `registration_of`. See `measure_shifts`.
    """
    p = preparation
    low, _ = p.settings(channel).data_range

    def read(k: int, window: tuple[int, int, int, int]) -> np.ndarray:
        left, top, width, height = window
        i = int(p.used[k])
        if held is None:
            rows = p.read_rows(i, top, top + height, channel)[:, left : left + width].copy()
        else:
            rows = held[channel, i, top : top + height, left : left + width].copy()
            if p.marks is not None:
                p.marks.mark(i, channel, rows, top, left)
        rows[~(rows > low)] = np.nan
        return rows

    return read


def check_registration(found: Registration, names: Sequence[str], allowed: bool) -> list[str]:
    """Return what to say about frames that do not lie on the others.

    Parameters
    ----------
    found : Registration
        The shifts of the frames.
    names : sequence of str
        Names of the frames.
    allowed : bool
        Value of the parameter `allow_unregistered`.

    Returns
    -------
    list of str
        One note, or none.

    Raises
    ------
    IntegrationError
        If frames are off by more than 2 pixels or have stars that no other has, unless this is allowed.
    """
    off = found.beyond(ACCEPTED)
    far = sorted({*found.beyond(REFUSED), *found.apart})
    if not off and not far:
        return []
    distance = found.distance
    order = sorted({*off, *far}, key=lambda i: (i not in found.apart, -distance[i]))
    shifts = [f"{distance[i]:.1f} px" if i not in found.apart else "other stars" for i in order]
    some = listed([f"{names[i]} ({words})" for i, words in zip(order, shifts, strict=True)], most=5)
    verb = "does" if len(order) == 1 else "do"
    what = f"{len(order)} of {counted(len(names), 'frame')} {verb} not lie on the others: {some}"
    if far and not allowed:
        raise IntegrationError(
            f"{what}. Register them or leave them out. If it is meant to be so, as with frames aligned on a "
            "comet, set allow_unregistered: true"
        )
    if far:
        return [f"{what}. They are integrated all the same, as allow_unregistered is true."]
    known = found.shift[np.isfinite(distance)]
    whole = np.abs(known).max() < WHOLE_PIXEL and known.std() > WHOLE_SCATTER
    why = " So it is after aligning by whole pixels: stars get wider." if whole else ""
    return [f"{what}.{why} Register them again with subpixel accuracy, or leave them out."]


class _Peak(NamedTuple):
    """Highest point of a correlation: shift in y and x, standard error, and whether it is a match."""

    y: float
    x: float
    error: float
    matches: bool


def window_of(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Return the window in the middle of a frame: left, top, width, height."""
    # Sides with small factors, for the transform.
    across, down = (min(side, size // 16 * 16) for size in (width, height))
    return (width - across) // 2, (height - down) // 2, across, down


def measure_shifts(
    read: ReadWindow,
    count: int,
    shape: tuple[int, int],
    first: int = 0,
    threads: int | None = None,
    *,
    stacked: Sequence[int] | None = None,
    keep: Keep | None = None,
) -> Registration:
    """Measure how frames lie on each other, in a window in their middle.

    Parameters
    ----------
    read : callable
        ``read(i, window)`` returns the samples of frame `i` in a window (left, top, width, height), float32
        (height, width), NaN for no data.
    count : int
        Number of frames.
    shape : tuple of int
        Height and width of the frames.
    first : int
        A good frame, such as the reference.
    threads : int, optional
        Number of frames that are measured at the same time. Default is one per CPU.
    stacked : sequence of int, optional
        The frames whose sum the others are compared with, see `stacked_frames`. Default is the first ones.
    keep : Keep, optional
        Knows what was found before, and keeps what is found.

    Returns
    -------
    Registration
        The shifts. They are not known where the window holds too few stars.
    """
    height, width = shape
    if min(shape) < LEAST_SIDE:
        return _unknown(count)
    chosen = sorted({first, *(range(min(count, STACKED)) if stacked is None else stacked)})
    for side in SIDES:
        window = window_of(width, height, side)

        def part(i: int, window: tuple[int, int, int, int] = window) -> np.ndarray:
            return read(i, window)

        with ThreadPoolExecutor(checked_threads(threads)) as pool:
            found = _measure(part, count, (window[3], window[2]), (first, chosen), pool, side, keep)
        if side >= max(height, width) or np.mean(np.isfinite(found.error)) >= MOST:
            break
    return found


def _measure(
    read: Callable[[int], np.ndarray],
    count: int,
    shape: tuple[int, int],
    stacked: tuple[int, list[int]],
    pool: ThreadPoolExecutor,
    side: int,
    keep: Keep | None,
) -> Registration:
    """Measure all frames against the sum of the stacked ones, of which the first is named first."""
    first, chosen = stacked

    def spectrum_of(i: int) -> np.ndarray:
        return scipy.fft.rfft2(_spots(read(i)))

    @cache
    def aligned() -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Return the spectra of the stacked frames, and those that match, moved onto each other."""
        spectra = dict(zip(chosen, pool.map(spectrum_of, chosen), strict=True))
        return spectra, _aligned(spectra, first, shape)

    def stack() -> Stack:
        moved = aligned()[1]
        return Stack(np.sum(list(moved.values()), axis=0), np.array([chosen.index(i) for i in moved]))

    total, places = stack() if keep is None else keep.stack(side, chosen, stack)
    summed = {chosen[k] for k in places.tolist()}
    if len(summed) <= max(1, len(chosen) / 2):
        return _unknown(count, _all_apart(read, count))

    def sum_of_others(i: int) -> np.ndarray:
        return total - aligned()[1][i] if i in summed else total

    def peak_of(i: int) -> _Peak:
        return _peak(aligned()[0][i] if i in chosen else spectrum_of(i), sum_of_others(i), shape)

    def peaks_of(some: list[int]) -> np.ndarray:
        if not set(chosen).isdisjoint(some):
            # Now, as it takes the same threads.
            aligned()
        return np.array(list(pool.map(peak_of, some)), np.float64)

    found = peaks_of(list(range(count))) if keep is None else keep.peaks(side, chosen, peaks_of)
    peaks = [_Peak(y, x, error, bool(matches)) for y, x, error, matches in found.tolist()]
    shift = np.array([[p.x, p.y] if p.matches else [math.nan] * 2 for p in peaks])
    error = np.array([p.error if p.matches else math.nan for p in peaks])
    if not np.isfinite(error).any():
        return _unknown(count)
    # With two frames there is no majority.
    middle = np.nanmedian(shift, axis=0) if count > 2 or np.isnan(shift[first]).any() else shift[first]
    for i in np.flatnonzero(np.hypot(*(shift - middle).T) > ACCEPTED).tolist():
        # Without the frame itself, whose cosmic rays are in the sum as well.
        stars = scipy.fft.irfft2(sum_of_others(i), s=shape) > (len(summed) - (i in summed)) * IN_MOST
        if not _meet(_spots(read(i)), stars, shift[i]):
            shift[i] = error[i] = math.nan
    if np.count_nonzero(np.isfinite(error)) <= max(1, count / 2):
        return _unknown(count)
    apart: tuple[int, ...] = ()
    if np.isnan(shift).any():
        apart = _apart(read, scipy.fft.irfft2(total, s=shape) > len(summed) * IN_MOST, shift)
    return Registration(shift=shift - middle, error=error, apart=apart)


def _unknown(count: int, apart: tuple[int, ...] = ()) -> Registration:
    """Return the result if no more than half of the frames match: some do so by chance."""
    return Registration(shift=np.full((count, 2), math.nan), error=np.full(count, math.nan), apart=apart)


def _meet(spots: np.ndarray, stars: np.ndarray, shift: np.ndarray) -> bool:
    """Return whether many spots of a frame are stars that were moved by a shift, and not one or two.

    A cosmic ray or a trail that happens to meet another one makes a peak as well.
    """
    count, met = _common(spots, stars, shift)
    by_chance = sum([_common(spots, stars, shift + away)[1] for away in ELSEWHERE]) / len(ELSEWHERE)
    return met >= max(LEAST_COMMON, COMMON_SHARE * count, MORE_THAN_CHANCE * by_chance)


def _common(spots: np.ndarray, stars: np.ndarray, shift: np.ndarray) -> tuple[int, int]:
    """Count the spots of a frame, and those that are stars if it was moved by a shift in x and y."""
    found, count = scipy.ndimage.label(spots > SPOT_SIGMA - FAINTEST)
    across, down = np.rint(shift).astype(int)
    met = np.unique(found[np.roll(stars, (down, across), axis=(0, 1))])
    return count, int(np.count_nonzero(met))


def _apart(read: Callable[[int], np.ndarray], stars: np.ndarray, shift: np.ndarray) -> tuple[int, ...]:
    """Return the frames without a shift that have other spots than cosmic rays, as many as others have stars.

    A frame behind clouds has none.
    """
    known = np.isfinite(shift[:, 0])
    counts = np.array([_common(_spots(read(i)), stars, shift[i]) for i in np.flatnonzero(known)[:STACKED]])
    common, others = np.median(counts[:, 1]), np.median(counts[:, 0] - counts[:, 1])
    least = 2 * others + max(LEAST_STARS, STAR_SHARE * common)
    if common < LEAST_STARS:
        return ()
    apart = []
    for i in np.flatnonzero(~known).tolist():
        spots, here = _spots(read(i)), np.zeros(2)
        # In a crowded field the peak of a frame that lies right may not stand out.
        if _common(spots, stars, here)[0] >= least and not _meet(spots, stars, here):
            apart.append(i)
    return tuple(apart)


def _all_apart(read: Callable[[int], np.ndarray], count: int) -> tuple[int, ...]:
    """Return all frames if all of them have stars, none of which match; otherwise none."""
    return tuple(range(count)) if all(_round_spots(read(i)) >= MANY_STARS for i in range(count)) else ()


def _round_spots(window: np.ndarray) -> int:
    """Count the round spots of a frame: its stars, but not the tracks of cosmic rays, nor hot pixels."""
    good = np.isfinite(window)
    filled = np.where(good, window, np.median(window[good]) if good.any() else 0).astype(np.float32)
    smooth = scipy.ndimage.median_filter(filled, 3)
    away = np.abs(filled - smooth)[good]
    # Of quantized samples most are equal after the filter: the scatter that is left is not their noise.
    cut = np.quantile(away, 0.9) if away.size else 0.0
    noise = float(np.minimum(away, cut).mean()) / CUT_MEAN if away.size else 0.0
    smooth[~good] = np.nan
    spots, _ = scipy.ndimage.label(_band_passed(smooth, LEFT_OF_NOISE * noise) > SPOT_SIGMA)
    sizes = np.bincount(spots.ravel())[1:]
    boxes = [(part.stop - part.start for part in place) for place in scipy.ndimage.find_objects(spots)]
    least, most = STAR_PIXELS
    return sum(
        least <= size <= most and max(box) <= ROUND * min(box)
        for size, box in zip(sizes.tolist(), map(tuple, boxes), strict=True)
    )


def _aligned(spectra: dict[int, np.ndarray], first: int, shape: tuple[int, int]) -> dict[int, np.ndarray]:
    """Return the spectra of the frames that match, moved onto one of them."""
    best: dict[int, np.ndarray] = {}
    candidates = [first, *(i for i in spectra if i != first)]
    for start in candidates[:TRIED]:
        moved = {start: spectra[start]}
        total = spectra[start].copy()
        for i, spectrum in spectra.items():
            if i != start and (peak := _peak(spectrum, total, shape)).matches:
                moved[i] = spectrum * _phases(shape, peak.y, peak.x)
                total += moved[i]
        if len(moved) > len(best):
            best = moved
        if len(best) > len(spectra) / 2:
            break
    return best


def _phases(shape: tuple[int, int], y: float, x: float) -> np.ndarray:
    """Return the factors of a spectrum that move its image back by a shift, complex64."""
    down = np.exp(2j * np.pi * y * scipy.fft.fftfreq(shape[0]))
    across = np.exp(2j * np.pi * x * scipy.fft.rfftfreq(shape[1]))
    return (down[:, None] * across).astype(np.complex64)


def _peak(spectrum: np.ndarray, stack: np.ndarray, shape: tuple[int, int]) -> _Peak:
    """Find the shift of a frame against a stack from their spectra."""
    surface = scipy.fft.irfft2(spectrum * np.conj(stack), s=shape)
    y, x = np.unravel_index(int(np.argmax(surface)), shape)
    # The peak in the middle: neighbors across the edges, too.
    surface = np.roll(surface, (shape[0] // 2 - y, shape[1] // 2 - x), axis=(0, 1))
    row, column = shape[0] // 2, shape[1] // 2
    core = surface[row - 1 : row + 2, column - 1 : column + 2].astype(np.float64)
    near = surface[
        max(row - PEAK_RADIUS, 0) : row + PEAK_RADIUS + 1,
        max(column - PEAK_RADIUS, 0) : column + PEAK_RADIUS + 1,
    ]
    far = surface.size - near.size
    curvatures = [line[0] + line[2] - 2 * line[1] for line in _cross(core)]
    if far < surface.size / 2 or not max(curvatures) < 0:
        return _Peak(0.0, 0.0, math.inf, False)
    level = (float(surface.sum(dtype=np.float64)) - float(near.sum(dtype=np.float64))) / far
    near[:] = level
    most, grown = float(surface.max()) - level, math.sqrt(surface.size / far)
    least = max(UNIQUE * most, SIGNIFICANT * grown * float(surface.std()))
    # The slope of the rest of the surface moves the top of the peak.
    scatter = max(grown * float(np.diff(surface, axis=axis).std()) for axis in (0, 1))
    offsets = [
        (line[0] - line[2]) / (2 * curvature)
        for line, curvature in zip(_cross(core), curvatures, strict=True)
    ]
    y, x = (
        (place + size // 2) % size - size // 2 + offset
        for place, size, offset in zip((y, x), shape, offsets, strict=True)
    )
    return _Peak(float(y), float(x), scatter / -max(curvatures), core[1, 1] - level > least > 0)


def _cross(core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and the row through the middle of 3 x 3 samples."""
    return core[:, 1], core[1]


def _band_passed(window: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return each pixel above its background in units of the noise, float32; 0 near pixels without data.

    The noise is at least `least`.
    """
    good = np.isfinite(window)
    every = bool(good.all())
    if not good.any():
        return np.zeros(window.shape, np.float32)
    level = np.float32(median_of(_some(window, good, every)))
    values = window - level if every else np.where(good, window - level, np.float32(0))
    background = box_mean(values, BACKGROUND)
    if not every:
        share = box_mean(good.astype(np.float32), BACKGROUND)
        background /= np.maximum(share, np.float32(0.1))
        good &= share > SURE
    np.subtract(values, background, out=values)
    if not every:
        values[~good] = 0
    detail = _smoothed(values)
    some = np.abs(_some(detail, good, every))
    # The median of float32 values, which is one.
    sigma = max(1.4826 * float(np.float32(median_of(some))) if some.size else 0.0, least)
    return detail / np.float32(sigma) if sigma > 0 else np.zeros(window.shape, np.float32)


def _some(plane: np.ndarray, good: np.ndarray, every: bool) -> np.ndarray:
    """Return one in seven of the good pixels of a plane."""
    return np.ascontiguousarray((np.ascontiguousarray(plane).ravel() if every else plane[good])[::7])


@compiled
def _smoothed(detail):
    """Smooth a plane with weights of 1/4, 1/2, 1/4, so that the pattern of a color filter mosaic vanishes."""
    height, width = detail.shape
    half = np.float32(0.5)
    down, out = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for r in range(1, height - 1):
        above, here, below = detail[r - 1], detail[r], detail[r + 1]
        for c in range(width):
            down[r, c] = ((above[c] + here[c]) * half + (here[c] + below[c]) * half) * half
        line = down[r]
        for c in range(1, width - 1):
            out[r, c] = ((line[c - 1] + line[c]) * half + (line[c] + line[c + 1]) * half) * half
    return out


def _spots(window: np.ndarray) -> np.ndarray:
    """Return what stands out of a window, stars above all, cut off at the bright end."""
    return np.clip(_band_passed(window) - np.float32(FAINTEST), 0, np.float32(BRIGHTEST))
