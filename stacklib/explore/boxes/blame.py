"""Which frames are to blame for what is seen in a box of the image, and how it looks without them."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from astropy.table import Table

from stacklib.errors import IntegrationError, StacklibWarning
from stacklib.explore.masks import BESIDE, frame_verdicts
from stacklib.explore.trials import NEAR, Trials
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region, Samples, checked_region
from stacklib.integration.second_pass import spatial_means
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA
from stacklib.output.integrated_image import undo_range
from stacklib.utils.labels import own_parts
from stacklib.utils.resources import checked_threads

__all__ = ["MOST_PIXELS", "Blame", "FrameShare", "blame"]

#: Largest box, in pixels.
MOST_PIXELS = 1 << 20
#: A sample stands out if it is so many sigma from the other frames. A star is so many above most of the box.
OUT, STAR = 4.0, 8.0
#: A pattern is the level of the frame, or lies on stars, from this part on.
MOSTLY = 0.6
#: A frame with a smaller part of the blame is not worth a reason.
LITTLE = 0.03


@dataclass(frozen=True)
class FrameShare:
    """What one frame does to a box.

    Attributes
    ----------
    number : int
        The frame, counted from 1 as in all tables.
    name, label : str
        Its file, and the part of the name that differs from the others.
    share : float
        Its part of all that frames do to the box beyond their noise, 0 to 1.
    effect : float
        What it does beyond its noise: root mean square over the box of the image minus the image without its
        samples, in frame units, less what follows from noise alone.
    mean, peak : float
        Mean, and the value farthest from zero, of the same difference, in frame units.
    sigma : float
        Largest distance of its kept samples from the other frames, in sigma of its samples here.
    low, high, beside, missing : float
        Fractions of its samples that were rejected low, high, for their neighbors, or are no data.
    reason : str
        What is odd about its samples, in words.
    """

    number: int
    name: str
    label: str
    share: float
    effect: float
    mean: float
    peak: float
    sigma: float
    low: float
    high: float
    beside: float
    missing: float
    reason: str


@dataclass
class Blame:
    """The frames of a result, ranked by what they do to a box of the image.

    Attributes
    ----------
    result : Integration
        The result.
    box : tuple of int
        Left, top, width and height in the whole frames.
    frames : tuple of FrameShare
        The frames that were used, the one to blame first.
    apart : ndarray of float32, shape (frames, channels, height, width)
        Each sample, normalized for output, minus the average of the kept samples of the other frames; NaN for
        no data. Frames are in the order of the preparation.
    kept : ndarray of bool, shape (frames, channels, height, width)
        Which samples were kept.
    """

    result: Integration
    box: Region
    frames: tuple[FrameShare, ...]
    apart: np.ndarray = field(repr=False)
    kept: np.ndarray = field(repr=False)

    @property
    def table(self) -> Table:
        """The frames as a table, the one to blame first; parts in percent."""
        columns = {
            "frame": [each.number for each in self.frames],
            "file": [each.name for each in self.frames],
            "blame": [100 * each.share for each in self.frames],
            "effect": [each.effect for each in self.frames],
            "peak": [each.peak for each in self.frames],
            "rejected_low": [100 * each.low for each in self.frames],
            "rejected_high": [100 * each.high for each in self.frames],
            "for_neighbors": [100 * each.beside for each in self.frames],
            "no_data": [100 * each.missing for each in self.frames],
            "reason": [each.reason for each in self.frames],
        }
        table = Table(columns)
        for name in ("blame", "rejected_low", "rejected_high", "for_neighbors", "no_data"):
            table[name].unit, table[name].format = "%", ".1f"
        for name in ("effect", "peak"):
            table[name].format = ".3g"
        return table

    @property
    def words(self) -> str:
        """Say which frames are to blame, a line each."""
        worst = [each for each in self.frames if each.share >= 0.1][:5]
        left, top, width, height = self.box
        where = f"Box of {width} x {height} pixels at x {left}, y {top}"
        if not worst:
            return f"{where}: no frame does more than its noise."
        lines = [
            f"frame {each.number} ({each.label}): {100 * each.share:.0f} % of the blame; {each.reason}"
            for each in worst
        ]
        return "\n".join([f"{where}:", *lines])

    @property
    def present(self) -> np.ndarray:
        """The box as it is in the image, before `output_range`, (channels, height, width)."""
        left, top, width, height = self.box
        x, y = left - self.result.region[0], top - self.result.region[1]
        part = self.result.image[:, y : y + height, x : x + width]
        return undo_range(part, self.result.range_factor, self.result.range_offset)

    @cached_property
    def _samples(self) -> Samples:
        return Samples(self.result.preparation.frames, self.box)

    @property
    def exact(self) -> bool:
        """Whether `without` searches again for what looks at neighbors.

        It does not for trails and whatever else is found on whole frames: those found with all frames are
        taken, without the ones of frames that are left out.
        """
        return not set(spatial_means(self.result.preparation)) - NEAR

    def without(self, *numbers: int) -> Integration:
        """Integrate the box without some frames.

        Parameters
        ----------
        *numbers : int
            The frames, counted from 1.

        Returns
        -------
        Integration
            The image, and the maps of rejection, are those of `integrate` for the other frames, this recipe
            and this region, bit for bit, if it is `exact`. The uncertainty is not corrected for rejection.

        Raises
        ------
        IntegrationError
            If there is no such frame, or fewer than two are left.
        """
        return self._integrated_without(numbers, with_uncertainty=True)

    def image_without(self, *numbers: int, search: bool = True) -> np.ndarray:
        """Return the image of `without`, before `output_range`, in a part of the time.

        Parameters
        ----------
        *numbers : int
            The frames, counted from 1.
        search : bool
            Whether to search again for what looks at neighbors, as `without` does if it is `exact`. That
            measures the noise of the other frames first. Otherwise what was found with all frames is taken.

        Returns
        -------
        ndarray of float32, shape (channels, height, width)
            The box as it would be in the image.

        Raises
        ------
        IntegrationError
            If there is no such frame, or fewer than two are left.
        """
        return self._integrated_without(numbers, with_uncertainty=False, search=search).original

    @property
    def searches(self) -> bool:
        """Whether the image of `image_without` depends on `search`."""
        return self.exact and self.result.masks is not None

    def _integrated_without(
        self, numbers: tuple[int, ...], with_uncertainty: bool, search: bool = True
    ) -> Integration:
        frames, recipe = self.result.preparation.frames, self.result.recipe
        wrong = [number for number in numbers if not 1 <= number <= len(frames)]
        if wrong:
            raise IntegrationError(f"frame: got {wrong[0]}, expected 1 to {len(frames)}")
        left = [i for i in range(len(frames)) if i + 1 not in numbers]
        if len(left) < 2:
            raise IntegrationError(f"without: {len(left)} frames are left, expected at least 2")
        trials = Trials(frames[left])
        samples = Samples(trials.frames, self.box)
        samples.held = np.ascontiguousarray(self._samples.hold()[:, left])
        trials.samples = samples
        search = search and self.exact
        if self.result.masks is not None and not search:
            trials.take_masks(recipe, self.result.masks.of_frames(left))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StacklibWarning)
            return trials.integrate(recipe, search=search, with_uncertainty=with_uncertainty)


def blame(result: Integration, box: Region) -> Blame:
    """Find the frames that are to blame for what is seen in a box of the image.

    Without the samples of frame i, the image would be ``(W m - w v) / (W - w)``: m is the image, W the sum of
    the weights of the kept samples at a pixel, w the weight and v the normalized sample of the frame. So the
    frame changes the image by ``w (v - m) / (W - w)``. Frames are ranked by the mean square of that over the
    box, less what their noise explains.

    Parameters
    ----------
    result : Integration
        The result; its frames are read again, in this box.
    box : tuple of int
        Left, top, width and height in the whole frames, inside the region of the result.

    Returns
    -------
    Blame
        The ranking, with the reasons. Its `without` integrates the box without a frame.

    Raises
    ------
    RecipeError
        If the box is not inside the frames.
    IntegrationError
        If it is not inside the region of the result, or too large.

    Examples
    --------
    >>> found = blame(result, (100, 80, 40, 30))  # doctest: +SKIP
    >>> print(found.words)  # doctest: +SKIP
    >>> found.without(7).image  # doctest: +SKIP
    """
    p = result.preparation
    box = left, top, width, height = checked_region(box, p.frames)
    first, second, across, down = result.region
    if left < first or top < second or left + width > first + across or top + height > second + down:
        raise IntegrationError(
            f"box: got {box}, expected a box inside the region {result.region} of the result"
        )
    if width * height > MOST_PIXELS:
        raise IntegrationError(
            f"box: got {width} x {height} pixels, expected at most {MOST_PIXELS}; draw a smaller box"
        )
    shape = p.count, p.frames.channels, height, width
    apart, verdicts = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    for channel in range(p.frames.channels):
        verdicts[:, channel], _ = frame_verdicts(result, channel, 1, box)
        settings = p.settings(channel)
        for k, i in enumerate(p.used):
            rows = p.read_rows(int(i), top, top + height, channel)[:, left : left + width]
            apart[k, channel] = rows * settings.factor[k] + settings.offset[k]
    apart[verdicts == NO_DATA] = np.nan
    kept = verdicts == KEPT
    effects = np.empty(shape, np.float32)
    light = np.empty(shape[1:], np.float32)
    for channel in range(p.frames.channels):
        values, of_kept = apart[:, channel], kept[:, channel]
        weights = p.settings(channel).weights[:, np.newaxis, np.newaxis] * of_kept
        total = weights.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            light[channel] = np.sum(np.where(of_kept, values, 0) * weights, axis=0) / total
            others = total - weights
            # Of a rejected sample the others are all that are kept.
            ratio = np.where(others > 0, total / others, np.nan)
            values -= light[channel]
            values *= ratio
            effects[:, channel] = np.where(of_kept, values * weights / total, 0)
    shares = _shares(result, apart, verdicts, effects, light)
    return Blame(result, box, shares, apart, kept)


def _shares(
    result: Integration, apart: np.ndarray, verdicts: np.ndarray, effects: np.ndarray, light: np.ndarray
) -> tuple[FrameShare, ...]:
    """Measure what each frame does to the box, and rank the frames."""
    p = result.preparation
    names = [p.measurements.names[int(i)] for i in p.used]
    labels, stars = own_parts(names), _stars(light)
    sigmas = _spreads(apart)
    beyond = []
    for k, own in enumerate(effects):
        here = verdicts[k] == KEPT
        with np.errstate(invalid="ignore", divide="ignore"):
            gain = np.where(here, own / apart[k], 0)
        noise = np.nan_to_num(gain) * sigmas[k][:, np.newaxis, np.newaxis]
        beyond.append(max(float(np.mean(np.nan_to_num(own) ** 2) - np.mean(noise**2)), 0.0))
    total, found = sum(beyond) or 1.0, []
    for k, own in enumerate(effects):
        verdict, known = verdicts[k], np.nan_to_num(own)
        rule = verdict % BESIDE
        in_sigma = apart[k] / np.maximum(sigmas[k], 1e-12)[:, np.newaxis, np.newaxis]
        parts = {
            "low": float(np.mean(verdict == LOW)),
            "high": float(np.mean(verdict == HIGH)),
            "beside": float(np.mean(verdict >= BESIDE)),
            "missing": float(np.mean(rule == NO_DATA)),
        }
        standing = np.where(verdict == KEPT, np.nan_to_num(in_sigma), 0)
        share = beyond[k] / total
        found.append(
            FrameShare(
                number=int(p.used[k]) + 1,
                name=names[k],
                label=labels[k],
                share=share,
                effect=float(np.sqrt(beyond[k])),
                mean=float(known.mean()),
                peak=float(known.flat[np.abs(known).argmax()]),
                sigma=float(np.abs(standing).max()),
                reason=_reason(share, standing, known, stars, parts),
                **parts,
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.share, each.number)))


def _level_and_spread(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and robust standard deviation of each channel, (channels, 1, 1)."""
    centre = np.nanmedian(planes, axis=(1, 2), keepdims=True)
    return centre, 1.4826 * np.nanmedian(np.abs(planes - centre), axis=(1, 2), keepdims=True)


def _spreads(apart: np.ndarray) -> np.ndarray:
    """Return the noise of the samples of each frame in each channel, robustly, about its own level."""

    def spread(own: np.ndarray) -> np.ndarray:
        return np.nan_to_num(_level_and_spread(own)[1][:, 0, 0])

    with warnings.catch_warnings(), ThreadPoolExecutor(checked_threads(None)) as pool:
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.stack(list(pool.map(spread, apart)))


def _stars(light: np.ndarray) -> np.ndarray:
    """Return where there is much more light than in most of the box, bool (height, width)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        centre, spread = _level_and_spread(light)
    return np.any(light > centre + STAR * np.maximum(spread, 1e-12), axis=0)


def _reason(
    share: float, standing: np.ndarray, effect: np.ndarray, stars: np.ndarray, parts: dict[str, float]
) -> str:
    """Say what is odd about the samples of a frame.

    `standing` are its kept samples in sigma from the other frames, and `effect` what they do to the image,
    both (channels, height, width).
    """
    words = []
    if share >= LITTLE:
        level, power = float(effect.mean()), float(np.mean(effect**2))
        out = np.any(np.abs(standing) > OUT, axis=0)
        count, strongest = int(out.sum()), float(standing.flat[np.abs(standing).argmax()])
        if level**2 > MOSTLY * power:
            word = "brighter" if level > 0 else "darker"
            words.append(f"{word} than the others all over the box: its sky or gradient does not match")
        elif count and np.mean(stars[out]) > max(MOSTLY, 2 * stars.mean()):
            changes, amount = effect[:, stars].sum(), np.abs(effect[:, stars]).sum()
            if abs(changes) > MOSTLY * amount:
                word = "brighter" if changes > 0 else "fainter"
                words.append(
                    f"its stars are {word}, by up to {abs(strongest):.1f} sigma: a cloud or its scale"
                )
            else:
                said = f"differs at the stars by up to {abs(strongest):.1f} sigma"
                words.append(f"{said}: seeing, focus or registration")
        elif count:
            what = "too bright" if strongest > 0 else "too dark"
            words.append(
                f"{count} pixel{'s' * (count > 1)} {what} by up to {abs(strongest):.1f} sigma were kept: a "
                f"{'trail, a hit or the like' if strongest > 0 else 'shadow or a defect'} within the limits"
            )
        else:
            words.append("faint structure below the limits: a trail, a cloud or a gradient")
    lost = {"too bright": parts["high"], "too dark": parts["low"], "for their neighbors": parts["beside"]}
    rejected = [f"{100 * part:.1f} % {word}" for word, part in lost.items() if part >= 0.02]
    if rejected:
        words.append(f"rejected: {', '.join(rejected)}")
    if parts["missing"] >= 0.02:
        words.append(f"no data in {100 * parts['missing']:.0f} % of the box: its edge lies here")
    return "; ".join(words) or "no more than its noise"
