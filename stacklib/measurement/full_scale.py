"""Full scale of a set of frames: 0 to 1 or ADU, and which value is white.

A single sample decides nothing: dead pixels of a flat, cosmic rays and saturated stars are orders of
magnitude brighter than all others. The decision uses quantiles of each plane, all frames of the set together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stacklib.errors import FrameError
from stacklib.frames.frame import Frame
from stacklib.measurement.cache.planes import Entries, PlaneMeasurements
from stacklib.utils.labels import listed
from stacklib.utils.ranks import sorted_floats

__all__ = ["ADU", "UNIT_MAXIMUM", "Brightness", "FullScale", "brightness", "full_scale_of", "in_unit_range"]

#: Float samples above this are not in [0, 1]. Interpolated stars overshoot 1 a little.
UNIT_MAXIMUM = 2.0
#: ADU at the value 1 of float frames, and full scale of frames in ADU unless their samples tell another:
#: cameras and programs use 16 bits.
ADU = 65535.0
#: Levels of frames in different scales differ by more than this factor; those of one night do not.
APART = 100.0
#: Integers of more than 16 bits that reach this are scaled to their full range; smaller ones count ADU.
WIDEST_COUNT = 2.0**24
#: About this many samples of a plane are looked at. Of these, the brightest few do not count.
SAMPLES, LONE = 65536, 8


class Brightness(NamedTuple):
    """How bright the samples of a plane are, in its own units; NaN without a finite sample.

    `high` is the 99th percentile, `top` exceeds all but a few lone samples. `counts` is true for whole
    numbers that go beyond 1.
    """

    high: float
    top: float
    counts: bool


class FullScale(NamedTuple):
    """Scale of a set of frames: whether [0, 1], the raw value of full scale, and notes for the user."""

    unit_range: bool
    value: float
    notes: tuple[str, ...] = ()


def brightness(plane: np.ndarray) -> Brightness:
    """Measure the brightness of a plane on evenly spaced samples."""
    flat = plane.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLES)]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return Brightness(math.nan, math.nan, False)
    lone = max(3, sample.size * LONE // SAMPLES)
    ranks = [math.ceil(0.99 * sample.size) - 1, max(sample.size - 1 - lone, 0)]
    ordered = sorted_floats(sample)
    counts = bool(ordered[-1] > 1 and np.array_equal(sample, np.rint(sample)))
    return Brightness(float(ordered[ranks[0]]), float(ordered[ranks[1]]), counts)


def in_unit_range(frame: Frame, high: float, top: float, counts: bool) -> bool:
    """Return whether a plane of this brightness looks scaled to [0, 1]."""
    if frame.integer:
        return not top * frame.full_scale < WIDEST_COUNT if _is_wide(frame) else True
    return not (high > UNIT_MAXIMUM or counts)


def full_scale_of(frames: Sequence[Frame], entries: Entries) -> FullScale:
    """Decide the scale of all frames together. Raises FrameError if they cannot have the same.

    Frames without any light, or of one value, fit every scale. The order of the frames does not matter.
    """
    kinds: dict[str, list[int]] = {"float": [], "wide": [], "narrow": []}
    for i, frame in enumerate(frames):
        if any(plane.maximum > max(plane.minimum, 0) for plane in entries[i]):
            kinds["float" if not frame.integer else "wide" if _is_wide(frame) else "narrow"].append(i)
    found = {
        kind: decide([frames[i] for i in members], [entries[i] for i in members])
        for kind, decide, members in (
            ("float", _of_floats, kinds["float"]),
            ("wide", _of_wide_integers, kinds["wide"]),
            ("narrow", lambda *_: FullScale(True, 1.0), kinds["narrow"]),
        )
        if members
    }
    if len({(scale.unit_range, scale.value) for scale in found.values()}) > 1:
        unit = [frames[i] for kind, scale in found.items() if scale.unit_range for i in kinds[kind]]
        other = [i for kind, scale in found.items() if not scale.unit_range for i in kinds[kind]]
        raise _different(unit, [frames[i] for i in other], [entries[i] for i in other])
    notes = dict.fromkeys(note for scale in found.values() for note in scale.notes)
    return next(iter(found.values()), FullScale(True, 1.0))._replace(notes=tuple(notes))


def _is_wide(frame: Frame) -> bool:
    """Return whether the samples are integers with more than 16 bits."""
    return bool(frame.integer) and frame.full_scale > ADU


def _of_floats(frames: Sequence[Frame], entries: Sequence[Sequence[PlaneMeasurements]]) -> FullScale:
    high, top, most = (_brightest(entries, name) for name in ("high", "top", "maximum"))
    looks_unit = np.array([
        all(in_unit_range(frame, plane.high, plane.top, plane.counts) for plane in entry)
        for frame, entry in zip(frames, entries, strict=True)
    ])  # fmt: skip
    if looks_unit.any() and not looks_unit.all():
        if high[~looks_unit].min() > APART * high[looks_unit].max():
            which = [[i for i, unit in enumerate(looks_unit) if unit == side] for side in (True, False)]
            raise _different(
                [frames[i] for i in which[0]], *([x[i] for i in which[1]] for x in (frames, entries))
            )
        looks_unit[:] = np.median(high) <= UNIT_MAXIMUM
    usual_top, usual_most = float(np.median(top)), float(np.median(most))
    rates = {str(frame.keywords.get("BUNIT", "")).strip() for frame in frames}
    is_rate = usual_most > UNIT_MAXIMUM and all("/" in unit for unit in rates)
    if looks_unit.all() and not is_rate:
        return FullScale(True, 1.0, _bright_samples(frames, high, most))
    small = usual_most < 256 or (is_rate and usual_top < 256)
    if not small:
        return FullScale(False, ADU)
    value = _power_of_two(usual_top if is_rate else usual_most)
    unit = listed(sorted(rates)) if all(rates) else "ADU"
    note = f"The samples are in {unit}, nearly all below {usual_top:.3g}: full scale is taken as {value:g}."
    return FullScale(False, value, (note,))


def _of_wide_integers(frames: Sequence[Frame], entries: Sequence[Sequence[PlaneMeasurements]]) -> FullScale:
    whole = max(frame.full_scale for frame in frames)
    top = float(np.median(_brightest(entries, "top"))) * whole
    if not top < WIDEST_COUNT:
        return FullScale(True, 1.0)
    value = max(ADU, _power_of_two(top))
    bits = max(int(frame.sample_format[1:]) for frame in frames)
    note = (
        f"The {bits}-bit integers hold counts, nearly all up to {top:.0f}: full scale is taken as {value:g}."
    )
    return FullScale(False, value / whole, (note,))


def _brightest(entries: Sequence[Sequence[PlaneMeasurements]], name: str) -> np.ndarray:
    """Return the largest value over the channels of each frame."""
    return np.array([np.nanmax([getattr(plane, name) for plane in entry]) for entry in entries])


def _power_of_two(value: float) -> float:
    """Return the smallest ``2**n - 1`` that is not below a value."""
    return 2.0 ** max(math.ceil(math.log2(value + 1)), 1) - 1


def _bright_samples(frames: Sequence[Frame], high: np.ndarray, most: np.ndarray) -> tuple[str, ...]:
    """Tell about samples that do not fit the range from 0 to 1."""
    bright = [frame.name for frame, value in zip(frames, most, strict=True) if value > UNIT_MAXIMUM]
    if not bright:
        return ()
    return (
        f"{listed(bright, most=3)}: samples up to {most.max():.3g}, although 99 % of the samples are below "
        f"{high.max():.2g}; the frames are read as 0 to 1, and these few samples are left as they are.",
    )


def _different(
    unit: Sequence[Frame], others: Sequence[Frame], entries: Sequence[Sequence[PlaneMeasurements]]
) -> FrameError:
    usual = float(_brightest(entries, "high").max())
    return FrameError(
        f"the frames have different scales: {listed([frame.name for frame in unit])} from 0 to 1, "
        f"but {listed([frame.name for frame in others])} up to {usual:.3g}. "
        "Save all of them in the same sample format, or integrate them separately."
    )
