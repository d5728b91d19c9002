"""Match frames by starlight: transparency, background and noise of every frame.

A frame is ``x = T S + B + n``: the light S of the sky, dimmed by the transparency T (times exposure and
gain), a smooth background B and noise. All frames are compared with a robust stack of the best of them, which
has little noise of its own: the light of stars gives T, what is left outside stars the smooth surface B, and
what is left then the noise. Only differences between frames are fitted, in which galaxies and nebulae cancel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from stacklib.frames.differences import mosaic_period
from stacklib.frames.frame import Frame
from stacklib.measurement.cache.sets import kept_for_set
from stacklib.measurement.measurements import FrameMeasurements, Planes, Progress
from stacklib.normalization.light.comparison import (
    WIDE,
    ChannelComparison,
    ChannelLight,
    PlaneReader,
    mean_of_surface,
)
from stacklib.normalization.surfaces import SIZE, Surfaces
from stacklib.normalization.usable import Usable
from stacklib.utils.labels import listed
from stacklib.utils.resources import checked_threads

__all__ = ["Photometry", "measure_photometry"]

#: The anchor: this fraction of the frames, and fewest and most of them.
ANCHOR, FEWEST, MOST = 0.25, 3, 10


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
    reader = PlaneReader(frames, measured, planes)
    shape = (len(frames), frames[0].channels)
    period = mosaic_period(frames)
    total = len(usable.channels) * len(usable.frames)
    found = []
    for number, channel in enumerate(usable.channels):

        def report(done: int, before: int = number * len(usable.frames)) -> None:
            if progress is not None:
                progress(before + done, total)

        own = ChannelComparison(reader, channel, usable.frames, period, local, checked_threads(threads))
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
        mean = np.array([mean_of_surface(surface, reader.shape) for surface in added])
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


def _anchor(found: list[ChannelLight], names: Sequence[str], covered: np.ndarray) -> np.ndarray:
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
