"""Compare frames that cover different parts of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.measurement.common import LEAST_SHARE, covers_less, measure_common
from stacklib.measurement.measurements import FrameMeasurements
from stacklib.normalization.matching import Statistics
from stacklib.normalization.usable import Usable
from stacklib.utils.labels import listed

__all__ = ["Compared", "compare"]


@dataclass(frozen=True)
class Compared:
    """Statistics by which usable frames are matched with the reference.

    `own` and `reference` are those of the frames and of the reference over the area that each frame shares
    with it; `reference` is None if they are all of whole frames. `measured` is for weights. `notes` are for
    the user.
    """

    own: Statistics
    reference: Statistics | None
    measured: FrameMeasurements
    notes: list[str] = field(default_factory=list)


def compare(
    frames: Sequence[Frame],
    measured: FrameMeasurements,
    usable: Usable,
    reference: int,
    needed: bool,
    **how: Any,
) -> Compared:
    """Return the statistics of the usable frames that compare with those of the reference, by its index.

    If they are `needed`, they are measured once more, over the common area, where coverage differs clearly.
    `how` are arguments of `stacklib.measurement.common.measure_common`.
    """
    part = measured.part(usable.frames, usable.channels)
    whole = Compared((part.location, part.scale_low, part.scale_high), None, part)
    if part.empty is None or not (less := covers_less(part.empty, frames).any(axis=1)).any():
        return whole
    covered = 100 * (1 - part.empty.max(axis=1))
    notes = [
        f"{np.count_nonzero(less)} of {less.size} frames are without data (border, blank or NaN) in a large "
        f"part of the image: frames cover {covered.min():.0f} % to {covered.max():.0f} % of it"
    ]
    if not needed:
        return replace(whole, notes=notes)
    notes[0] += "; level and spread are compared with those of the reference where both have data"
    common = measured.common.get(reference)
    if common is None:
        pairs = [(i, c) for c in usable.channels for i in usable.frames if i != reference]
        common = measured.common[reference] = measure_common(frames, measured, reference, pairs, **how)
    names = ("location", "scale_low", "scale_high")
    own, of_reference = (
        tuple(usable.part(values[name]) for name in names) for values in (common.frame, common.reference)
    )
    proportional = ("location", "mean", "avgdev")
    weighed = {name: usable.part(common.in_proportion(name, reference)) for name in proportional}
    share = usable.part(common.share).min(axis=1)
    if apart := [name for name, shared in zip(part.names, share, strict=True) if shared < LEAST_SHARE]:
        notes.append(
            f"{listed(apart, most=10)}: share next to no area with the reference, so their level is compared "
            "over different parts of the sky and may be off; choose a reference that overlaps with all "
            "frames, or integrate the panels separately"
        )
    return Compared(own, of_reference, replace(part, **weighed), notes)
