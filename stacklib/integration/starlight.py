"""What the stars say about the brightness of the frames, where a run goes by level and spread of the frames.

Factors from the spread of frames, and weights that follow them, are right only as far as the spread is light
of the sky. So every such run looks at the stars in the middle of the frames: wide discs, whose light hardly
depends on the seeing, against the median of some of the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stacklib.frames.differences import mosaic_period
from stacklib.frames.frame import Frame
from stacklib.frames.kinds import CALIBRATION, kind_of
from stacklib.integration.registration import Registration, stacked_frames, window_of, window_reader
from stacklib.measurement.cache.sets import kept_by_frame, kept_for_set
from stacklib.measurement.light.binning import bin_plane
from stacklib.measurement.light.photometry import StarFluxes, Template, compare_stars, make_template
from stacklib.measurement.light.ratio import FEWEST
from stacklib.normalization.doubts import Matched, doubts_about_starlight, goes_by_spread
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.robust_stack import median_stack
from stacklib.normalization.settings import Settings
from stacklib.utils.resources import checked_threads

__all__ = [
    "Starlight",
    "compared_light",
    "has_unknown_light",
    "settings_by_starlight",
    "starlight_notes",
    "starlight_of",
]

#: Side of the window in the middle of the frames, and the one that is tried if fewer stars than this are in
#: it; no more than the second number are measured.
SIDES, ENOUGH, PLENTY = (512, 1024), 20, 40
#: Discs are wider than for exact photometry by this factor: two and a half FWHM hold nearly all of a star.
WIDER = 1.7
#: Frames off by more than this many pixels have other stars in the discs.
SHIFTED = 1.5
#: Light counts if it is known to this many times its error.
CERTAIN = 10


class Starlight(NamedTuple):
    """Light of the stars of frames relative to their median, and its standard error, (frames, channels).

    0 for frames that show none of the light of the others, NaN where it is not known.
    """

    light: np.ndarray
    error: np.ndarray

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as arrays by name, for the cache."""
        return self._asdict()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Starlight:
        """Return what `to_arrays` turned into arrays."""
        return cls(arrays["light"], arrays["error"])


def starlight_notes(
    preparation: Preparation, registration: Registration, known: Starlight | None = None
) -> tuple[str, ...]:
    """Return the notes of a preparation, with what the stars say in place of what their spread suggests.

    Parameters
    ----------
    preparation : Preparation
        Factors and weights of the frames.
    registration : Registration
        How the frames used lie on each other.
    known : Starlight, optional
        Light of the stars. Default is what `starlight_of` finds.

    Returns
    -------
    tuple of str
        The notes as they are if the recipe goes by starlight or does not match the frames at all, if there
        are too few stars, or if the frames are no lights.
    """
    p = preparation
    if not has_unknown_light(p):
        return p.notes
    light, error = starlight_of(p) if known is None else known
    off = np.nan_to_num(registration.distance) > SHIFTED
    off[list(registration.apart)] = True
    light = np.where(off[:, np.newaxis], np.nan, light)
    used = p.used
    weights = np.stack([p.settings(channel).weights for channel in range(p.frames.channels)], axis=1)
    matched = Matched(p.rejection_factor[used], p.factor[used], weights, p.measurements.noise[used])
    names = [p.measurements.names[i] for i in used]
    reference = int(np.searchsorted(used, p.reference))
    notes = doubts_about_starlight(names, p.recipe, matched, reference, light, error)
    return p.notes if notes is None else (*(note for note in p.notes if note not in p.doubts), *notes)


def compared_light(preparation: Preparation, threads: int | None = None) -> np.ndarray:
    """Return the light of the stars of frames as they are compared, relative to their mean.

    Parameters
    ----------
    preparation : Preparation
        Factors of the frames.
    threads : int, optional
        See `starlight_of`.

    Returns
    -------
    ndarray of float64, shape (frames, channels)
        Of the frames used: 1 where it is not known, and for all frames if the recipe goes by starlight, does
        not match them at all, or they are no lights.
    """
    p = preparation
    found = np.ones((p.used.size, p.frames.channels))
    if not has_unknown_light(p):
        return found
    light, error = starlight_of(p, threads=threads)
    compared = light * p.rejection_factor[p.used]
    for channel in range(p.frames.channels):
        known = light[:, channel] > CERTAIN * error[:, channel]
        if np.count_nonzero(known) > p.used.size / 2:
            own = compared[known, channel]
            found[known, channel] = own / np.average(own, weights=p.settings(channel).weights[known])
    return found


def has_unknown_light(p: Preparation) -> bool:
    """Return whether frames are matched without regard to their stars although they have some."""
    return goes_by_spread(p.recipe) and not _has_calibration(p.used_frames)


def _has_calibration(frames: list[Frame]) -> bool:
    """Return whether there is a bias, dark or flat, whose hot pixels are no stars."""
    return any((kind := kind_of(frame)) is not None and kind.what in CALIBRATION for frame in frames)


def starlight_of(
    preparation: Preparation, held: np.ndarray | None = None, threads: int | None = None
) -> Starlight:
    """Measure the light of the stars of the frames used. What was found before is taken from the cache.

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
    Starlight
        Of the frames in ``preparation.used``.
    """
    p = preparation
    if p.photometry is not None:
        known = p.photometry.transparency, p.photometry.transparency_error
        stars = p.photometry.source == "stars"
        return Starlight(*(np.where(stars, table, np.nan)[p.used] for table in known))

    def measure() -> Starlight:
        found = np.full((2, p.count, p.frames.channels), np.nan)
        with ThreadPoolExecutor(checked_threads(threads)) as pool:
            for channel in np.flatnonzero(np.isfinite(p.measurements.location[p.used]).all(axis=0)):
                found[:, :, channel] = _measure(p, int(channel), held, pool)
        return Starlight(*found)

    matched = p.rejection_factor[p.used], p.rejection_offset[p.used]
    inputs = ("starlight", p.settings(0).data_range, p.measurements.saturation, *matched, p.used, p.marks)
    return kept_for_set(p.used_frames, inputs, measure, Starlight.to_arrays, Starlight.from_arrays)


class _Stars(NamedTuple):
    """Stars in the median of some frames, in a window of some side, see `Template`."""

    side: int
    image: np.ndarray
    x: np.ndarray
    y: np.ndarray
    fwhm: float
    power: float

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> _Stars:
        image, x, y = (arrays[name] for name in ("image", "x", "y"))
        return cls(int(arrays["side"]), image, x, y, float(arrays["fwhm"]), float(arrays["power"]))


def _measure(
    p: Preparation, channel: int, held: np.ndarray | None, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the light of the frames in a channel, and its error."""
    read, full = window_reader(p, channel, held), p.measurements.saturation
    period = mosaic_period(p.used_frames)
    factors, offsets = (
        table[p.used, channel].astype(np.float32) for table in (p.rejection_factor, p.rejection_offset)
    )
    some = stacked_frames([frame.name for frame in p.used_frames])
    parts: dict[int, np.ndarray] = {}

    def part(k: int, side: int) -> np.ndarray:
        left, top, width, height = window_of(p.frames.width, p.frames.height, side)
        samples = read(k, (left - left % period, top - top % period, width, height))
        samples[samples >= full] = np.nan
        return bin_plane(samples, period)

    def rows(j: int, start: int, stop: int) -> np.ndarray:
        k = some[j]
        return parts[k][start:stop] * factors[k] + offsets[k]

    def find() -> _Stars:
        for side in SIDES:
            parts.update(zip(some, pool.map(part, some, [side] * len(some)), strict=True))
            stars, _ = make_template(median_stack(rows, len(some), parts[some[0]].shape, 1), full)
            if stars.x.size >= ENOUGH or side >= max(p.frames.width, p.frames.height):
                break
        stars = stars.first(PLENTY)
        return _Stars(side, stars.image, stars.x, stars.y, stars.fwhm, stars.power)

    inputs = (channel, p.settings(channel).data_range, full, factors[some], offsets[some], p.marks, period)
    found = kept_for_set(
        [p.used_frames[k] for k in some], ("template", *inputs), find, _Stars._asdict, _Stars.from_arrays
    )
    side, stars = found.side, Template.measured(*found[1:4], WIDER * found.fwhm, found.power)

    def light_of(k: int) -> tuple[float, float]:
        return _light(parts[k] if k in parts else part(k, side), stars)

    light, error = kept_by_frame(
        p.used_frames, some, ("light", *inputs), lambda frames: np.array(list(pool.map(light_of, frames)))
    ).T
    # A single frame with light among many without any makes no template.
    return (light, error) if np.count_nonzero(light > 0) > p.count / 2 else (light * np.nan, error)


def _light(image: np.ndarray, stars: Template) -> tuple[float, float]:
    """Compare the light of an image with that of the stack."""
    light, _, fluxes = compare_stars(image, stars, seeing=1.0)
    if light.known:
        return light.ratio, light.error
    return _darkness(fluxes)


def _darkness(fluxes: StarFluxes) -> tuple[float, float]:
    """Return no light and its error, NaN if too few stars lie in the image."""
    good = fluxes.good
    if np.count_nonzero(good) < FEWEST:
        return np.nan, np.nan
    weight = np.sum((fluxes.stack[good] / np.maximum(fluxes.error[good], 1e-30)) ** 2)
    return 0.0, float(weight**-0.5)


def settings_by_starlight(
    preparation: Preparation, settings: list[Settings], threads: int | None
) -> list[Settings]:
    """Return settings by which the stars of all frames are equally bright; the sky stays as bright as it is.

    Otherwise the stars of frames that are matched by their spread would be left in the residuals.
    """
    p, matched = preparation, []
    # A channel without an image has no level.
    levels = np.nan_to_num(p.measurements.location[p.reference]) * p.rejection_factor[p.reference]
    levels += p.rejection_offset[p.reference]
    for own, light, level in zip(settings, compared_light(p, threads).T, levels, strict=True):
        factor = own.rejection_factor / light
        offset = (own.rejection_offset - level) / light + level
        noise = own.relative_noise / light
        matched.append(replace(own, rejection_factor=factor, rejection_offset=offset, noise=noise))
    return matched
