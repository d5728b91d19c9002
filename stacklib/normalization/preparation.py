"""Prepare an integration: reference, normalization and weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from stacklib.errors import IntegrationError
from stacklib.frames.differences import mosaic_period
from stacklib.frames.frame import Frame
from stacklib.frames.frame_masks import open_masks
from stacklib.frames.frame_set import FrameSet, refuse_single
from stacklib.frames.kinds import calibration_kind
from stacklib.measurement.border import DataRange
from stacklib.measurement.cache.sets import kept_for_set
from stacklib.measurement.full_scale import ADU
from stacklib.measurement.measurements import FrameMeasurements, Planes, Spread, measure_frames
from stacklib.measurement.quality import stars_of
from stacklib.measurement.stars import require_sep
from stacklib.normalization.coverage import Compared, compare
from stacklib.normalization.doubts import doubts_about_noise, doubts_about_scale
from stacklib.normalization.light.photometric import Photometry, measure_photometry
from stacklib.normalization.matching import output_coefficients, rejection_coefficients, scale_factors
from stacklib.normalization.noise_curve import BLOCK, FrameNoise, blocks_of, spread_rows
from stacklib.normalization.ranges import about_ranges, data_limits, sample_marks
from stacklib.normalization.settings import HALF_STEP, Settings
from stacklib.normalization.surfaces import CorrectedRange, Surfaces
from stacklib.normalization.usable import Usable, find_usable
from stacklib.normalization.weighting import (
    Light,
    check_choices,
    choose_reference,
    excluded_by_weight,
    find_frame,
    frame_weights,
    needs_noise,
    star_weights,
)
from stacklib.recipe.presets import PRESETS
from stacklib.recipe.recipe import BY_LIGHT, Recipe
from stacklib.recipe.rules import RULES
from stacklib.utils.labels import listed
from stacklib.utils.resources import one_thread_in_blas

__all__ = ["Preparation", "prepare"]

#: Why frames are left out that show no light where others do.
NO_LIGHT = "none of the light that the others show, as behind clouds"
#: A weight that is negligible beside any other.
LEAST_WEIGHT = 1e-12


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Reference, normalization and weights of an integration.

    Tables are float64 of shape (frames, channels) and cover all frames that were given. Those in `used` take
    part; `excluded` holds the reason for each of the others, by index. `scale` holds factors against the
    reference, and the largest of the `weights` of each channel is 1. Samples are normalized as
    ``x * rejection_factor + rejection_offset`` for rejection, ``x * factor + offset`` for output, once they
    are corrected by the `surfaces`. `photometry` compares the frames by their light; None if the recipe does
    not need it. `own_masks` are the user's masks of frames, by number of the frame. `notes` are for the user;
    `doubts` are those of them that only suspect the scale factors, see `stacklib.normalization.doubts`.
    """

    frames: FrameSet
    recipe: Recipe
    measurements: FrameMeasurements
    used: np.ndarray
    excluded: dict[int, str]
    reference: int
    scale: np.ndarray
    weights: np.ndarray
    rejection_factor: np.ndarray
    rejection_offset: np.ndarray
    factor: np.ndarray
    offset: np.ndarray
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    photometry: Photometry | None = None
    own_masks: dict[int, Frame] = field(default_factory=dict)
    # What `frame_noise` has measured, shared by copies with another rule, other weights or fewer frames.
    noise_by_channel: dict[tuple, FrameNoise] = field(default_factory=dict, repr=False, compare=False)

    @property
    def count(self) -> int:
        """Number of frames that are integrated."""
        return self.used.size

    @property
    def by_frame(self) -> bool:
        """Whether the rule judges each frame by limits of its own; see `RuleSpec.by_frame`."""
        return RULES[self.recipe.rule_for(self.count)].by_frame

    @property
    def used_frames(self) -> list[Frame]:
        """The frames that are integrated."""
        return [self.frames[int(i)] for i in self.used]

    @property
    def full_scale(self) -> float:
        """ADU at the value 1."""
        known = [self.frames[int(i)].full_scale for i in self.used if self.frames[int(i)].integer]
        return max(known, default=65535.0 if self.measurements.unit_range else 1.0)

    @property
    def scale_in_words(self) -> str:
        """The scale of the frames, such as ``ADU, full scale 65535``."""
        if self.measurements.unit_range:
            return "read as 0 to 1"
        return f"ADU, full scale {self.measurements.full_scale * self.full_scale:g}"

    def settings(self, channel: int) -> Settings:
        """Return the settings of the kernel for one channel of the used frames."""
        weights = self.weights[self.used, channel]
        if self.recipe.combination != "average":
            weights = np.ones_like(weights)
        # Where only frames of weight 0 survive, their average is better than a hole.
        weights = np.maximum(weights, LEAST_WEIGHT)
        steps = np.array([self.frames[int(i)].quantization_step for i in self.used])
        if self.measurements.step is not None:
            steps = np.maximum(steps, self.measurements.step[self.used, channel])
        factor = self.rejection_factor[self.used, channel]
        return Settings(
            recipe=self.recipe,
            rejection_factor=np.ascontiguousarray(factor),
            rejection_offset=np.ascontiguousarray(self.rejection_offset[self.used, channel]),
            factor=np.ascontiguousarray(self.factor[self.used, channel]),
            offset=np.ascontiguousarray(self.offset[self.used, channel]),
            weights=np.ascontiguousarray(weights),
            floor=float((steps * factor).max() * HALF_STEP),
            full_scale=self.full_scale,
            bounds=self.data_limits,
            period=self._period,
        )

    @cached_property
    def _period(self) -> int:
        """Period of the color filter pattern of the frames used."""
        return mosaic_period(self.used_frames)

    @cached_property
    def marks(self) -> DataRange | CorrectedRange | None:
        """What is done to samples as they are read; None for nothing.

        It marks those that are no data, if one limit for all frames cannot tell, see `sample_marks`, and
        corrects the others.
        """
        if self.surfaces is None:
            return sample_marks(self.recipe, self.measurements)
        known = self.measurements.data_range if self.recipe.range_clip_low else None
        return CorrectedRange(known, replace(self.surfaces, limits=self.data_limits))

    @property
    def surfaces(self) -> Surfaces | None:
        """Corrections of the samples, None if the recipe does not match frames by their light."""
        matched = self.photometry is not None and self.recipe.corrects_samples
        return self.photometry.surfaces if matched else None

    @property
    def data_limits(self) -> tuple[float, float]:
        """Range of the samples that take part, in the units of the frames, once they are marked."""
        marked = self.surfaces is not None or sample_marks(self.recipe, self.measurements) is not None
        return data_limits(self.recipe, self.measurements, self.full_scale, marked)

    def read_rows(self, i: int, start: int, stop: int, channel: int) -> np.ndarray:
        """Read rows of a channel of frame `i`, marked and corrected, float32 (rows, width)."""
        return self._marked(self.frames[i].read_rows(start, stop, channel), i, start, channel)

    def _marked(self, rows: np.ndarray, i: int, start: int, channel: int) -> np.ndarray:
        return rows if self.marks is None else self.marks.mark(i, channel, np.array(rows), start)

    def frame_noise(self, channel: int, planes: Planes | None = None) -> FrameNoise:
        """Measure the noise of the used frames as the rule compares them, from rows spread over the image.

        It does not depend on the region that is integrated. Rows are read from the files, once, unless
        ``planes(i, channel)`` returns planes that are already in memory.
        """
        settings = self.settings(channel)
        compared = settings.rejection_factor, settings.rejection_offset
        key = channel, self.used.tobytes(), settings.data_range, *(values.tobytes() for values in compared)
        if key not in self.noise_by_channel:
            # The noise of rounding; the floor of a rule is half a step.
            least = settings.floor / (HALF_STEP * math.sqrt(12))

            def measure() -> FrameNoise:
                bands = spread_rows(self.frames.height, self.frames.width, self.count, settings.period)
                read = self.read_rows if planes is None else partial(self._rows_of, planes)
                blocks = [self._blocks(settings, channel, start, columns, read) for start, columns in bands]
                return FrameNoise.measure(np.concatenate(blocks, axis=1), least, settings.period, len(blocks))

            inputs = ("noise", channel, settings.data_range, *compared, least, self.used, self.marks)
            inputs += (settings.period,) if settings.period > 1 else ()
            self.noise_by_channel[key] = kept_for_set(
                self.used_frames, inputs, measure, FrameNoise.to_arrays, FrameNoise.from_arrays
            )
        return self.noise_by_channel[key]

    def doubts_about_weights(self) -> list[str]:
        """Return a note if registration hides so much of the noise that weights by it are off.

        It measures the noise of all channels, see `frame_noise`.
        """
        recipe, measured = self.recipe, self.measurements
        by_noise = recipe.combination == "average" and needs_noise(recipe.weights)
        if not by_noise or measured.noise_source != "measured":
            return []
        used, channels = self.used, range(self.frames.channels)
        larger = np.stack([self.frame_noise(channel).larger for channel in channels], axis=1)
        larger = larger * self.factor[used] / self.rejection_factor[used]
        return doubts_about_noise(measured.noise[used] * self.factor[used], larger)

    def _rows_of(self, planes: Planes, i: int, start: int, stop: int, channel: int) -> np.ndarray:
        """Return the same as `read_rows`, of planes in memory."""
        return self._marked(planes(i, channel)[start:stop], i, start, channel)

    def _blocks(
        self, settings: Settings, channel: int, start: int, columns: slice, read: Callable[..., np.ndarray]
    ) -> np.ndarray:
        """Read blocks of a band of rows as the rule compares them, (frames, blocks, pixels).

        NaN for no data.
        """
        low, high = settings.data_range
        stop = min(start + BLOCK * settings.period, self.frames.height)
        blocks = np.stack(
            [blocks_of(read(int(i), start, stop, channel), columns, settings.period) for i in self.used]
        )
        factor, offset = (
            values[:, np.newaxis, np.newaxis]
            for values in (settings.rejection_factor, settings.rejection_offset)
        )
        data = (blocks > low) & (blocks < high)
        return np.where(data, blocks * factor + offset, np.nan).astype(np.float32)

    def normalised_noise(self, channel: int, pixels: bool = False) -> np.ndarray:
        """Return the noise of the used frames after normalization, (frames,); NaN if not known.

        Where frames were compared by their light it is that on the scale that matters, or of `pixels`.
        """
        noise = self.measurements.noise
        if self.photometry is not None:
            noise = self.photometry.pixel_noise if pixels else self.photometry.noise
        return noise[self.used, channel] * self.factor[self.used, channel]


def _about_kind(frames: list[Frame], recipe: Recipe) -> list[str]:
    """Return a note if calibration frames are matched like light frames."""
    kind = calibration_kind(frames)
    fields = ("normalization", "rejection_normalization")
    if not kind or all(getattr(recipe, name) == PRESETS[kind][name] for name in fields):
        return []
    return [f"these are {kind} frames, treated like light frames; with preset {kind} they are not"]


@one_thread_in_blas()
def prepare(
    frames: FrameSet,
    recipe: Recipe,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    planes: Callable[[int, int], np.ndarray] | None = None,
    measurements: FrameMeasurements | None = None,
    spread: Spread | None = None,
) -> Preparation:
    """Measure the frames, choose the reference, and compute normalization and weights.

    Resolves the rule if it is ``auto``. For `threads`, `progress`, `planes` and `spread` see
    `stacklib.measurement.measurements.measure_frames`. `measurements` of these frames must be made with the
    scale estimator of the recipe and include the noise if the weights need it; by default the frames are
    measured. Raises IntegrationError if there are fewer than two frames or the recipe cannot be applied to
    them, FrameError if a frame cannot be read or the frames have different scales, RecipeError if the user's
    masks do not fit the frames.
    """
    refuse_single(frames)
    # The rule depends on the frames that were given, not on those that weigh enough.
    recipe = recipe.replace(rejection=recipe.rule_for(len(frames)))
    check_choices(frames.names, recipe)
    own_masks = open_masks(recipe.masks, frames) if recipe.masks else {}
    average = recipe.combination == "average"
    if measurements is None:
        measurements = measure_frames(
            frames,
            recipe.scale_estimator,
            noise=average and needs_noise(recipe.weights),
            range_low=recipe.range_low if recipe.range_clip_low else None,
            threads=threads,
            progress=progress,
            planes=planes,
            spread=spread,
        )
    weighting = recipe if average else recipe.replace(weights="none")
    usable = find_usable(measurements)
    photometry = None
    if recipe.needs_photometry:
        photometry = _photometry(frames, recipe, measurements, usable, threads, progress, planes)
        usable = usable.without(dict.fromkeys(photometry.dark, NO_LIGHT), measurements.names)
    notes = [*measurements.notes, *usable.notes, *(photometry.notes if photometry else ())]
    # Frames and channels without an image take no part in the tables from here to the end.
    some, part = [frames[i] for i in usable.frames], measurements.part(usable.frames, usable.channels)
    names = part.names
    light = None
    if photometry is not None:
        light = {name: usable.part(values) for name, values in photometry.columns.items()}
        light |= _star_weights(frames, recipe, measurements, usable, photometry, threads, planes)
    reference = _choose_reference(weighting, some, part, measurements, usable, light)
    chosen = usable.frames[reference]
    how = dict(threads=threads, progress=progress, planes=planes, spread=spread)
    compared = compare(frames, measurements, usable, chosen, _compares(recipe, weighting), **how)
    notes += compared.notes
    arguments = (*compared.own, reference, names, compared.reference)
    pedestal = _pedestals(some, measurements.unit_range)
    photometry = photometry and photometry.relative_to(chosen)
    by_light = photometry and (usable.part(photometry.factor), usable.part(photometry.offset))
    rejection_factor, rejection_offset = (
        by_light
        if by_light and recipe.rejection_normalization in BY_LIGHT
        else rejection_coefficients(recipe.rejection_normalization, *arguments, pedestal=pedestal)
    )
    factor, offset = (
        by_light
        if by_light and recipe.normalization in BY_LIGHT
        else output_coefficients(recipe.normalization, *arguments, pedestal=pedestal)
    )
    notes += [*_about_pedestals(pedestal, some, recipe), *_about_kind(some, recipe)]
    measured = compared.measured
    if pedestal.any():
        above = {name: getattr(measured, name) - pedestal for name in ("location", "mean")}
        measured = replace(measured, **above)
    if light is not None:
        light["transparency"] = usable.part(photometry.transparency)
    weights = frame_weights(some, measured, weighting, factor, light)
    light = excluded_by_weight(weights, recipe.min_weight)
    if reference in light:
        del light[reference]
        notes.append(
            f"{names[reference]}: kept despite its low weight, because it is the reference you chose"
        )
    notes += _about_excluded(light, weights, recipe.min_weight, names)
    excluded = usable.broken | {usable.frames[i]: why for i, why in light.items()}
    used = np.array([i for i in range(len(frames)) if i not in excluded])
    doubts = []
    if recipe.normalization.endswith("scaling"):
        here = np.array([i for i in range(len(some)) if i not in light])
        doubts = doubts_about_scale(some, compared.measured, factor, weighting.weights, here)
    notes += doubts
    notes += recipe.warnings_for(used.size)
    weights = usable.spread_out(weights, 1.0, 0.0)
    scale = factor if recipe.corrects_samples else _scale_if_needed(recipe, compared, reference, names)
    found = Preparation(
        frames=frames,
        recipe=recipe,
        measurements=measurements,
        used=used,
        excluded=dict(sorted(excluded.items())),
        reference=chosen,
        scale=usable.spread_out(scale, 1.0, math.nan),
        weights=weights / weights[used].max(axis=0),
        rejection_factor=usable.spread_out(rejection_factor, 1.0, 1.0),
        rejection_offset=usable.spread_out(rejection_offset, 0.0, 0.0),
        factor=usable.spread_out(factor, 1.0, 1.0),
        offset=usable.spread_out(offset, 0.0, 0.0),
        notes=(),
        doubts=tuple(doubts),
        photometry=photometry,
        own_masks=own_masks,
    )
    notes += about_ranges(recipe, measurements, used, found.full_scale)
    return replace(found, notes=tuple(dict.fromkeys(notes)))


def _pedestals(frames: list[Frame], unit: bool) -> np.ndarray:
    """Return the pedestals in the units of the samples, (frames, 1)."""
    scales = [frame.full_scale if frame.integer else ADU if unit else 1.0 for frame in frames]
    return np.array([[frame.pedestal / scale] for frame, scale in zip(frames, scales, strict=True)])


def _about_pedestals(pedestal: np.ndarray, frames: list[Frame], recipe: Recipe) -> list[str]:
    """Say that pedestals are taken into account, if that changes the result."""
    ratios = recipe.normalization.startswith("multiplicative")
    ratios |= recipe.rejection_normalization == "equalize_fluxes"
    by_light = recipe.rejection_normalization in BY_LIGHT
    if by_light or not pedestal.any() or not (ratios or np.ptp(pedestal)):
        return []
    values = sorted({frame.pedestal for frame in frames})
    shown = f"{values[0]:g}" + f" to {values[-1]:g}" * (len(values) > 1)
    return [
        f"PEDESTAL {shown} ADU: samples are compared and scaled above the pedestal of their frame; the image "
        "has that of the reference"
    ]


def _compares(recipe: Recipe, weighting: Recipe) -> bool:
    """Return whether statistics of the frames are compared with each other."""
    modes = {recipe.normalization, recipe.rejection_normalization} - {"none", *BY_LIGHT}
    return bool(modes) or weighting.weights in ("snr", "signal", "median", "mean")


def _photometry(
    frames: FrameSet,
    recipe: Recipe,
    measurements: FrameMeasurements,
    usable: Usable,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
    planes: Callable[[int, int], np.ndarray] | None,
) -> Photometry:
    """Compare the frames by their light; what was found before is kept with the measurements."""
    local = recipe.normalization == "local"
    known = measurements.photometry.get(local)
    if known is None:
        how = dict(threads=threads, progress=progress, planes=planes)
        known = measure_photometry(frames, measurements, usable, local=local, **how)
        measurements.photometry[local] = known
    return known


def _star_weights(
    frames: FrameSet,
    recipe: Recipe,
    measurements: FrameMeasurements,
    usable: Usable,
    photometry: Photometry,
    threads: int | None,
    planes: Callable[[int, int], np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """Measure the weights that go by all stars of a frame, if the recipe uses them."""
    named = recipe.weights if recipe.weights != "formula" else recipe.weight_formula.lower()
    if recipe.combination != "average":
        return {}
    found = {}
    if "psf_s" in named:
        noise = usable.part(photometry.noise)
        found = star_weights(frames, measurements, usable, noise, threads, planes)
    if "eccentricity" in named:
        require_sep()
        own = [stars.eccentricity for stars in stars_of(list(frames), threads)]
        found["eccentricity"] = usable.part(np.repeat(np.array(own)[:, np.newaxis], frames.channels, axis=1))
    return found


def _choose_reference(
    recipe: Recipe,
    some: list[Frame],
    part: FrameMeasurements,
    measurements: FrameMeasurements,
    usable: Usable,
    light: Light | None,
) -> int:
    """Choose the reference among the usable frames, or refuse the one that the user chose."""
    if recipe.reference:
        wanted = find_frame(measurements.names, recipe.reference, "reference")
        if wanted in usable.broken:
            raise IntegrationError(
                f"reference: {measurements.names[wanted]} holds no image ({usable.broken[wanted]}). Choose "
                "another reference."
            )
        return usable.frames.index(wanted)
    return choose_reference(some, part, recipe, light)


def _about_excluded(
    excluded: dict[int, str], weights: np.ndarray, least: float, names: tuple[str, ...]
) -> list[str]:
    """Name the frames left out for their weight, and say if others stay only because they must."""
    if not excluded:
        return []
    some = listed([names[i] for i in excluded])
    notes = [f"{len(excluded)} of {len(names)} frames are left out by min_weight {least:g}: {some}"]
    relative = weights.mean(axis=1) / weights.mean(axis=1).max()
    below = np.count_nonzero(relative < least) - len(excluded)
    if below > 0:
        notes.append(
            f"{below} more frames are below min_weight, but the best frames are always kept; lower min_weight"
        )
    return notes


def _scale_if_needed(
    recipe: Recipe, compared: Compared, reference: int, names: tuple[str, ...]
) -> np.ndarray:
    """Return the scale factors, all 1 if the recipe does not scale frames."""
    scales = compared.own[1:]
    scaling = recipe.normalization.endswith("scaling") or recipe.rejection_normalization.startswith("scale")
    if not scaling:
        return np.ones_like(scales[0])
    return scale_factors(*scales, reference, names, compared.reference)
