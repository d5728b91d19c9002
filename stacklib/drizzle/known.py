"""What an integration knows about unregistered frames: normalization, weights, rejected samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stacklib.drizzle.frames import Located, twins
from stacklib.drizzle.registration.registered import (
    MaskFile,
    SurfaceCorrection,
    masks_of_data,
    masks_of_result,
    register_frames,
)
from stacklib.errors import IntegrationError, StacklibWarning
from stacklib.frames.frame_set import FrameSet
from stacklib.frames.mosaic import Sites
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.measurement.full_scale import ADU
from stacklib.recipe.recipe import Recipe
from stacklib.utils.labels import counted
from stacklib.utils.progress import progress_bar
from stacklib.utils.resources import checked_threads

__all__ = ["Known", "known_of"]

#: Levels of a frame and its registered twin agree within this factor, if both are in the same units.
SAME_UNITS = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What an integration knows about the frames, by number of the unregistered frame.

    `numbers` are factor, offset and weight of each channel, float64 (3, channels).
    """

    numbers: dict[int, np.ndarray]
    masks: dict[int, MaskFile]
    corrections: dict[int, SurfaceCorrection]
    left_out: dict[int, str]
    limits: tuple[float, float]
    rule: str
    integration: Integration | None = None
    twins: dict[int, str] = field(default_factory=dict)


def known_of(
    frames: FrameSet,
    sites: Sites,
    located: Located,
    own: Integration | None,
    recipe: Recipe | None,
    scratch: Path,
    how: tuple[str | int, int | None, bool],
) -> Known:
    """Return normalization, weights and rejected samples of the frames with a geometry."""
    memory, threads, progress = how
    numbers = list(located.geometries)
    data = located.data
    if own is None and recipe is None and all(i in data and data[i].weights for i in numbers):
        return _by_data(frames, sites, located, scratch)
    given = own
    if own is None:
        geometries = [located.geometries[i] for i in numbers]
        with progress_bar(len(numbers), f"{len(numbers)} frames registered", "frame", progress) as bar:
            registered = register_frames(
                [frames[i] for i in numbers], geometries, sites, scratch, checked_threads(threads), bar.update
            )
        with _renamed(frames, numbers):
            own = integrate(registered, recipe, memory=memory, threads=threads, progress=progress)
        pairs = dict(zip(numbers, range(len(numbers)), strict=True))
    else:
        pairs = twins(frames, list(own.preparation.frames), data)
        _check_units(frames, own, pairs)
    p = own.preparation
    _refuse_misfit(p.frames, located, sites)
    channels = p.frames.channels
    with progress_bar(
        channels * p.frames.height * p.frames.width, "rejected samples", " pixels", progress, scale=True
    ) as bar:
        masks = masks_of_result(own, scratch, bar.update)
    used = {int(i) for i in p.used}
    found, left_out = {}, {}
    for i in numbers:
        k = pairs.get(i)
        if k is None:
            left_out[i] = "has no registered frame"
        elif k not in used:
            left_out[i] = p.excluded[k]
        else:
            found[i] = np.stack([np.resize(t[k], sites.channels) for t in (p.factor, p.offset, p.weights)])
    return Known(
        numbers=found,
        masks={i: masks[pairs[i]] for i in found},
        corrections=_corrections(own, {i: pairs[i] for i in found}, sites.channels),
        left_out=left_out,
        limits=p.settings(0).data_range,
        rule=own.rule,
        integration=own,
        twins={} if given is None else {i: p.frames[pairs[i]].name for i in found},
    )


def _refuse_misfit(registered: FrameSet, located: Located, sites: Sites) -> None:
    """Raise `IntegrationError` for registered frames of other channels or another size than the reference."""
    if registered.channels not in (1, sites.channels):
        raise IntegrationError(
            f"the registered frames have {counted(registered.channels, 'channel')}, expected "
            f"{sites.channels}; integrate frames that were debayered"
        )
    geometry = next(iter(located.geometries.values()))
    if (registered.width, registered.height) != (geometry.width, geometry.height):
        raise IntegrationError(
            f"the registered frames have {registered.width} x {registered.height} pixels, but the geometry "
            "is of a reference of another size; give the registered frames that belong to it"
        )


def _corrections(own: Integration, pairs: dict[int, int], channels: int) -> dict[int, SurfaceCorrection]:
    """Return the surfaces of the frames, where they are matched by their light."""
    surfaces = own.preparation.surfaces
    if surfaces is None:
        return {}
    return {i: SurfaceCorrection.of(surfaces, k, channels) for i, k in pairs.items()}


@contextmanager
def _renamed(frames: FrameSet, numbers: list[int]) -> Iterator[None]:
    """Say the names of the frames in warnings about the frames that were registered here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = str(warning.message)
        for place, i in enumerate(numbers):
            text = text.replace(f"{place:05d}_r.fits", frames[i].name)
        warnings.warn(text, StacklibWarning, stacklevel=3)


def _check_units(frames: FrameSet, own: Integration, pairs: dict[int, int]) -> None:
    """Raise `IntegrationError` if unregistered and registered frames are not in the same units."""
    if not pairs:
        raise IntegrationError(
            f"{frames.folder}: no frame has a registered frame of the same name, nor one that .xdrz files "
            "name; give the frames that were registered"
        )
    i, k = next(iter(pairs.items()))
    level = _level(frames, i)
    known = float(np.nanmedian(own.preparation.measurements.location[k]))
    if level > 0 and known > 0 and not 1 / SAME_UNITS < level / known < SAME_UNITS:
        raise IntegrationError(
            f"{frames[i].name} has a level of {level:.3g}, but its registered frame one of {known:.3g}: they "
            "are not in the same units; give frames that were registered without rescaling"
        )


def _level(frames: FrameSet, i: int) -> float:
    """Return the median of some rows in the middle of a frame."""
    middle = frames.height // 2
    return float(np.nanmedian(frames[i].read(rows=slice(middle, middle + 16), channel=0)))


def _full_scale(frames: FrameSet, located: Located) -> float:
    """Return full scale in the units of the frames: drizzle data are in fractions of it."""
    i, data = next(iter(located.data.items()))
    known = data.location[0] if data.location else 0.0
    level = _level(frames, i)
    if not (level > 0 and known > 0):
        return 1.0
    for full in (1.0, ADU):
        if 1 / SAME_UNITS < level / (full * known) < SAME_UNITS:
            return full
    raise IntegrationError(
        f"{frames[i].name} has a level of {level:.3g}, but its drizzle data one of {known:.3g}: they are not "
        "of the same frame; give the frames that were registered"
    )


def _by_data(frames: FrameSet, sites: Sites, located: Located, scratch: Path) -> Known:
    """Take everything from the drizzle data of an integration by PixInsight."""
    numbers, masks = {}, {}
    full = _full_scale(frames, located)
    for i, data in located.data.items():
        scale = np.array(data.scale or [1.0] * len(data.weights))
        offset = (
            full * (np.array(data.reference_location) - np.array(data.location) * scale)
            if data.location
            else 0 * scale
        )
        numbers[i] = np.stack([np.resize(values, sites.channels) for values in (scale, offset, data.weights)])
        mask = masks_of_data(data, scratch / f"rejected_{i}")
        if mask is not None:
            masks[i] = mask
    return Known(
        numbers=numbers,
        masks=masks,
        corrections={},
        left_out={},
        limits=(0.0, math.inf),
        rule="that of the drizzle data",
    )
