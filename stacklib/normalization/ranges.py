"""Range limits in the units of the frames, and what they do to these frames."""

from __future__ import annotations

import math

import numpy as np

from stacklib.measurement.border import NOTHING, DataRange
from stacklib.measurement.full_scale import UNIT_MAXIMUM
from stacklib.measurement.measurements import FrameMeasurements
from stacklib.recipe.recipe import Recipe
from stacklib.utils.labels import listed

__all__ = ["about_ranges", "data_limits", "high_limit", "sample_marks"]

#: A limit beyond which this fraction of the samples of a frame lies is probably a mistake.
MOST = 0.5


def sample_marks(recipe: Recipe, measurements: FrameMeasurements) -> DataRange | None:
    """Return which samples are no data, if a limit on their values alone cannot tell.

    These samples are set to `stacklib.measurement.border.NOTHING` when they are read, which is then the lower
    limit of the kernel.
    """
    known = measurements.data_range
    if known is None or not recipe.range_clip_low:
        return None
    return known if known.borders or np.ptp(known.low) > 0 else None


def data_limits(
    recipe: Recipe, measurements: FrameMeasurements, full_scale: float, marked: bool
) -> tuple[float, float]:
    """Return the range of the samples that take part, both ends excluded, in the units of the frames."""
    low = -math.inf
    if recipe.range_clip_low:
        known = measurements.data_range
        low = recipe.range_low if known is None else float(known.low.flat[0])
        low = float(NOTHING) if marked else low
    return low, high_limit(recipe, measurements, full_scale)


def high_limit(recipe: Recipe, measurements: FrameMeasurements, full_scale: float) -> float:
    """Return `range_high` in the units of the frames, infinity for no limit.

    For frames from 0 to 1, a limit above 2 is in ADU: interpolated stars overshoot 1 a little. For frames in
    ADU, a limit up to 1 is a fraction of their full scale.
    """
    high = recipe.range_high
    if not recipe.range_clip_high:
        return math.inf
    if measurements.unit_range:
        return high / full_scale if high > UNIT_MAXIMUM else high
    return high * measurements.full_scale if 0 < high <= 1 else high / full_scale


def about_ranges(
    recipe: Recipe, measurements: FrameMeasurements, used: np.ndarray, full_scale: float
) -> list[str]:
    """Say how the range limits were read, and which of them everything or nothing is beyond."""
    return [
        *_about_low(recipe, measurements, used),
        *_about_high(recipe, measurements, used, full_scale),
    ]


def _about_low(recipe: Recipe, measured: FrameMeasurements, used: np.ndarray) -> list[str]:
    if not recipe.range_clip_low or measured.data_range is None or measured.empty is None:
        return []
    notes = []
    borders = measured.data_range.borders
    faint = {i for (i, _), border in borders.items() if border.faint} & set(used.tolist())
    if faint:
        notes.append(
            f"the sky of {len(faint)} of {used.size} frames reaches 0: samples at or below 0 are data there, "
            "and only the constant border is left out (range_low 0)"
        )
    raised = {i for (i, _), border in borders.items() if not border.faint and border.runs.size}
    if raised := raised & set(used.tolist()):
        notes.append(
            f"{len(raised)} of {used.size} frames have a border of a constant value above 0, which is left "
            f"out: {listed([measured.names[i] for i in sorted(raised)])}"
        )
    given, low = recipe.range_low, measured.data_range.low[used]
    if given != 0 and np.any(low != given):
        notes.append(f"range_low {given:g} is taken as ADU: {low.max():.6g} on the scale from 0 to 1")
    some = [measured.names[i] for i in used if given != 0 and (measured.empty[i] > MOST).any()]
    if some:
        notes.append(
            f"range_low {given:g} leaves out more than half of the samples of {len(some)} of {used.size} "
            f"frames: {listed(some)}; lower it, or check its unit (ADU from 1 on)"
        )
    return notes


def _about_high(
    recipe: Recipe, measured: FrameMeasurements, used: np.ndarray, full_scale: float
) -> list[str]:
    if not recipe.range_clip_high:
        return []
    given, high = recipe.range_high, high_limit(recipe, measured, full_scale)
    notes = []
    if high != given:
        in_adu = measured.unit_range or given > 1
        as_what = "ADU" if in_adu else f"a fraction of {measured.full_scale * full_scale:.6g}"
        value = f"{high:.6g} on the scale from 0 to 1" if in_adu else f"{high * full_scale:.6g} ADU"
        notes.append(f"range_high {given:g} is taken as {as_what}: {value}")
    with np.errstate(invalid="ignore"):
        beyond = [measured.names[i] for i in used if (measured.location[i] >= high).any()]
    maximum = measured.maximum[used]
    brightest = maximum[np.isfinite(maximum)].max(initial=-math.inf)
    if beyond:
        notes.append(
            f"half or more of the samples of {len(beyond)} of {used.size} frames are at or above range_high "
            f"{given:g} and count as saturated, so no rule looks at them: {listed(beyond)}; raise range_high"
        )
    elif brightest < high and given != Recipe().range_high:
        notes.append(
            f"range_high {given:g}: no sample reaches it (the brightest is {brightest:.6g}), so none "
            "counts as saturated"
        )
    return notes
