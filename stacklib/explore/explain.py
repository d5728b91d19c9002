"""The story of a pixel, from the rule that integrates, stopped after 1, 2, 3 ... rounds."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stacklib.errors import RecipeError, StacklibWarning
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration.noise import read_with_excess, with_noise
from stacklib.integration.result import Integration
from stacklib.kernel.passes import NO_EXCESS, run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA, last_round
from stacklib.measurement.border import NOTHING
from stacklib.normalization.preparation import Preparation, prepare
from stacklib.normalization.settings import Settings
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES, RuleSpec
from stacklib.rejection.clipping import CENTRE, LOWER, UPPER
from stacklib.spatial.fallen import why_masked
from stacklib.spatial.means import ABOVE, MEANS, describe
from stacklib.utils.labels import channel_names, own_parts, quoted, shortened

__all__ = ["BY_NEIGHBOURS", "PixelStory", "Round", "explain", "tell"]

#: Largest number of rounds in a story.
MOST_ROUNDS = 1000
#: Width of the text, and the least width of the column of names.
WIDTH, LEAST_NAME = 100, 12
#: Width of the column of reasons at most.
LONGEST_REASON = 60

#: Fate of a sample that fell to the first of `stacklib.spatial.means.MEANS`; the next ones follow.
BY_NEIGHBOURS = 16

WORDS = {NO_DATA: "no data", KEPT: "kept", LOW: "rejected low", HIGH: "rejected high"}


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of clipping, counted from 1.

    Center and limits are in the units of the compared samples, NaN if the rule has no such value. Samples
    below `lower` or above `upper` are rejected. `verdict`, uint8, shape (frames,), is that after this round,
    see `stacklib.kernel.verdicts`; `dropped` are the positions of the frames rejected in it, `returned` of
    those taken back. For rules with limits for each frame, `limits` are the lower and upper ones, float64,
    shape (2, frames), and `lower` and `upper` those of the quietest frame.
    """

    number: int
    centre: float
    lower: float
    upper: float
    verdict: np.ndarray = field(repr=False)
    dropped: tuple[int, ...]
    returned: tuple[int, ...] = ()
    limits: np.ndarray | None = field(default=None, repr=False)

    def limits_of(self, i: int) -> tuple[float, float]:
        """Return lower and upper limit of the sample at position `i`."""
        if self.limits is None:
            return self.lower, self.upper
        return float(self.limits[0, i]), float(self.limits[1, i])


@dataclass(frozen=True)
class PixelStory:
    """Samples, rounds and verdicts at one pixel of one channel. Prints as text.

    Arrays have the shape (frames,), with the integrated frames only.

    Attributes
    ----------
    x, y, channel : int
        Column and row, counted from 0 at the top left, and channel.
    files : tuple of str
        File names.
    numbers : tuple of int
        Numbers of the frames among all given frames, counted from 1.
    excluded : tuple of str
        Frames that were left out, with the reason.
    in_image : float or None
        Value in the image of the result, after `output_range`. None without a result.
    channels : int
        Number of channels of the frames.
    means : tuple of str
        Names of the means of spatial rejection that took part, see `stacklib.spatial.means.MEANS`.
    flags : ndarray of uint8 or None
        Flags of those means that found each sample; 0 for the others. What they found takes no part in the
        rounds. None if none took part.
    rule : str
        The rejection rule.
    raw : ndarray of float32
        Samples in the files.
    compared : ndarray of float32
        Samples normalized for rejection, which the rule compares.
    combined : ndarray of float64
        Samples normalized for output, which are averaged.
    weights : ndarray of float64
        Weights of the frames.
    rounds : tuple of Round
        Rounds of rejection. The last one rejects nothing, or nothing more can be rejected.
    verdict : ndarray of uint8
        Final verdict on each sample.
    reasons : tuple of str
        Verdict and reason in words.
    value, uncertainty : float
        Combined value before `output_range`, and its standard error from the noise of the frames, without the
        correction for the rule. NaN if unknown.
    """

    x: int
    y: int
    channel: int
    files: tuple[str, ...]
    rule: str
    raw: np.ndarray = field(repr=False)
    compared: np.ndarray = field(repr=False)
    combined: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    rounds: tuple[Round, ...] = field(repr=False)
    verdict: np.ndarray = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    value: float
    uncertainty: float
    numbers: tuple[int, ...] = ()
    excluded: tuple[str, ...] = ()
    in_image: float | None = None
    means: tuple[str, ...] = ()
    flags: np.ndarray | None = field(default=None, repr=False)
    channels: int = 1

    @property
    def place(self) -> str:
        """The pixel in words: column, row, and the channel if there are several."""
        name = channel_names(self.channels)[self.channel] if self.channels > 1 else ""
        return f"x {self.x}, y {self.y}" + f", {name}" * bool(name)

    def fates(self, number: int) -> np.ndarray:
        """Return the fate of each sample after a round, uint8 (frames,); `number` counts from 1.

        It is the verdict, or, of samples that fell to spatial rejection, `BY_NEIGHBOURS` plus the position
        of the means in `stacklib.spatial.means.MEANS`.
        """
        fates = self.rounds[number - 1].verdict.copy()
        if self.flags is not None:
            # The first means counts.
            for k, means in reversed(list(enumerate(MEANS))):
                fates[means.found(self.flags)] = BY_NEIGHBOURS + k
        return fates

    def count(self, verdict: int) -> int:
        """Return the number of samples with this verdict."""
        return int(np.count_nonzero(self.verdict == verdict))

    @property
    def spec(self) -> RuleSpec:
        """Description of the rule."""
        return RULES[self.rule]

    @property
    def labels(self) -> tuple[str, ...]:
        """Parts in which the file names differ, such as ``0007`` of ``M101_Light_0007_c_d_r.xisf``."""
        return own_parts(self.files)

    @property
    def summary(self) -> str:
        """Result in one sentence."""
        kept, total = self.count(KEPT), len(self.files)
        low, high, missing = self.count(LOW), self.count(HIGH), self.count(NO_DATA)
        parts = [f"{number} {words}" for number, words in ((low, "rejected low"), (high, "rejected high"))]
        if missing:
            parts.append(f"{missing} without data")
        if fallen := self.fallen:
            parts[-1] += f"; {fallen} of the rejected for their neighbors"
        if missing == total:
            return f"no frame has data here ({total} frames)"
        text = f"{self.value:.6g} from {kept} of {total} samples ({', '.join(parts)})"
        # Without a change of range the two values differ by rounding only.
        if self.in_image is None or math.isclose(self.in_image, self.value, rel_tol=1e-5, abs_tol=1e-12):
            return text
        return f"{text}, {self.in_image:.6g} in the image after output_range"

    @property
    def fallen(self) -> int:
        """Number of samples that fell to spatial rejection; they count as rejected low or high."""
        return 0 if self.flags is None else int(np.count_nonzero(self.flags))

    @property
    def taken_in_words(self) -> str:
        """Samples that fell to spatial rejection, before the rounds, in a sentence; empty for none."""
        if self.flags is None or not self.fallen:
            return ""
        taken = [
            f"{self.labels[i]} ({describe(int(self.flags[i]))})" for i in np.flatnonzero(self.flags).tolist()
        ]
        return f"Rejected for their neighbors: {', '.join(taken)}; the rule judges the others"

    def tell_round(self, number: int) -> str:
        """Return a round in a sentence; `number` counts from 1."""
        told = self.rounds[number - 1]
        names = ", ".join(self.labels[i] for i in told.dropped)
        if not self.spec.rejects:
            return "No rejection: every sample with data is kept"
        if self.spec.drops_ends:
            return f"Drops the darkest and brightest samples: {names or 'none'}"
        text = f"{self.spec.step.capitalize()} {told.number}: "
        if np.isfinite(told.centre):
            whose = " of the quietest frame" if self.spec.by_frame else ""
            centre = (number == 1 and self.spec.first_centre) or self.spec.centre
            text += f"{centre} {told.centre:.6g}, keeps {_interval(told)}{whose}; "
        text += f"rejects {names}" if names else "rejects nothing"
        back = ", ".join(self.labels[i] for i in told.returned)
        return text + (f", takes back {back}" if back else "")

    @property
    def rounds_in_words(self) -> str:
        """All rounds, a sentence each."""
        return "\n".join(self.tell_round(i + 1) for i in range(len(self.rounds)))

    def __str__(self) -> str:
        lines = [f"Pixel {self.place}: {self.spec.label}, {len(self.files)} frames"]
        lines += [self.taken_in_words] * bool(self.fallen) + self.rounds_in_words.splitlines()
        lines += [f"Result: {self.summary}"]
        lines += [f"Left out: {excluded}" for excluded in self.excluded]
        lines = [textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines]
        # Long reasons go on in the next line.
        longest = min(max(map(len, self.reasons)), LONGEST_REASON)
        room = WIDTH - 28 - longest
        names = shortened(self.files, max(room, LEAST_NAME))
        width = max(len("frame"), *map(len, names))
        lines += ["", f"{'frame':<{width}}  {'raw':>10}  {'compared':>10}  verdict"]
        rows = zip(names, self.raw, self.compared, self.reasons, strict=True)
        for name, raw, value, why in rows:
            first, *more = textwrap.wrap(why, longest)
            lines.append(f"{name:<{width}}  {raw:>10.6g}  {value:>10.6g}  {first}")
            lines += [f"{'':<{width + 28}}{part}" for part in more]
        return "\n".join(lines)


def explain(
    frames: FrameSet | str | Path | list | Preparation | Integration,
    recipe: Recipe | None = None,
    x: int = 0,
    y: int = 0,
    channel: int = 0,
) -> PixelStory:
    """Explain what happens at one pixel.

    Parameters
    ----------
    frames : FrameSet, str, Path, list, Preparation or Integration
        The frames, or what `open_frames` accepts. A result or its `Preparation` has its own recipe and
        measurements; another `recipe` is not used, with a warning.
    recipe : Recipe, optional
        Settings. Default is `Recipe.suggest` for these frames.
    x, y, channel : int
        Column, row and channel, counted from 0 at the top left of the whole frames. In a result with a
        region ``(left, top, ...)`` this is ``image[channel, y - top, x - left]``.

    Returns
    -------
    PixelStory

    Raises
    ------
    RecipeError
        If the pixel lies outside the frames or the region of the result, or `recipe` is not a Recipe.

    Warns
    -----
    StacklibWarning
        If the recipe looks for trails, large structures or masks, which only a result knows. Without a result
        the story is that of the rule alone.

    Examples
    --------
    >>> print(explain("sample_data/M13/4_Registered", x=160, y=128))  # doctest: +SKIP
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        raise RecipeError(
            f"recipe: got {quoted(recipe)}, expected a Recipe; "
            "give the pixel by keyword: explain(frames, x=115, y=85)"
        )
    spans = result = None
    if isinstance(frames, Integration):
        result = frames
        left, top, width, height = frames.region
        spans, frames = ((left, width), (top, height), (0, len(frames.image))), frames.preparation
    if isinstance(frames, Preparation) and recipe is not None:
        rule = recipe.rule_for(len(frames.frames))
        if recipe.replace(rejection=rule) != frames.recipe:
            warnings.warn(
                "recipe: not used, as the result has another one; give the frames to try this one",
                StacklibWarning,
                stacklevel=2,
            )
    if not isinstance(frames, Preparation):
        frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
        recipe = Recipe.suggest(frames) if recipe is None else recipe
        frames = prepare(frames, recipe)
    p = frames
    sought = set(p.recipe.spatial_means(p.count, p.frames.channels)) - {"colour"}
    if result is None and sought:
        warnings.warn(
            "the story is that of the rule alone: trails and masks are found on whole frames; to see what "
            "fell to them, give the result of integrate",
            StacklibWarning,
            stacklevel=2,
        )
    spans = spans or ((0, p.frames.width), (0, p.frames.height), (0, p.frames.channels))
    for name, value, (first, size) in zip(("x", "y", "channel"), (x, y, channel), spans, strict=True):
        if not first <= value < first + size:
            where = "frames" if size in p.frames.shape else "region of the result"
            raise RecipeError(
                f"{name}: got {value}, expected {first} to {first + size - 1}, inside the {where}"
            )
    column = [p.frames[int(i)].read_rows(y, y + 1, channel)[0, x] for i in p.used]
    settings = with_noise(p, channel)
    masks = None if result is None else result.masks
    _, excess = read_with_excess(p, settings, channel, (y, y + 1), slice(x, x + 1), masks)
    marked = np.array([p.read_rows(int(i), y, y + 1, channel)[0, x] for i in p.used], np.float32)
    flags, found = None, None
    if masks is not None:
        flags = masks.at(x, y, channel, p.used)
        fell = zip(p.used, flags, strict=True)
        found = [why_masked(masks, int(i), channel, x, y) if flag else "" for i, flag in fell]
    names = p.measurements.names
    files = tuple(names[int(i)] for i in p.used)
    raw = np.array(column, np.float32)
    story = tell(
        raw, settings, files, x, y, channel, marked=marked, excess=excess[0], flags=flags, found=found
    )
    excluded = tuple(f"{names[i]}: {why}" for i, why in p.excluded.items())
    in_image = None if result is None else float(result.image[channel, y - spans[1][0], x - spans[0][0]])
    return replace(
        story,
        numbers=tuple(int(i) + 1 for i in p.used),
        excluded=excluded,
        in_image=in_image,
        channels=p.frames.channels,
        means=() if masks is None else p.recipe.spatial_means(p.count, p.frames.channels),
    )


def tell(
    raw: np.ndarray,
    settings: Settings,
    files: tuple[str, ...],
    x: int = 0,
    y: int = 0,
    channel: int = 0,
    *,
    marked: np.ndarray | None = None,
    excess: np.ndarray = NO_EXCESS,
    flags: np.ndarray | None = None,
    found: Sequence[str] | None = None,
) -> PixelStory:
    """Explain samples in memory: the raw samples of a pixel, float32, shape (frames,).

    `marked` are the same samples as the kernel gets them, see `Preparation.marks`. `excess`, float32, shape
    (1,), is that of the noise around the pixel, if it is known. `flags`, uint8, shape (frames,), tell which
    of them fell to spatial rejection, see `stacklib.spatial.means`, and `found` says what was found there.
    """
    samples = np.ascontiguousarray(raw if marked is None else marked, dtype=np.float32)[:, np.newaxis]
    values = np.where(samples[:, 0] > NOTHING, samples[:, 0], raw).astype(np.float64)
    fell = np.zeros(raw.size, np.uint8) if flags is None else flags
    found = [describe(int(each)) for each in fell] if found is None else found
    samples = np.where(fell[:, np.newaxis] > 0, np.float32(np.nan), samples)
    rounds = _rounds(samples, settings, excess)
    verdict = np.where(fell & ABOVE, HIGH, np.where(fell, LOW, rounds[-1].verdict)).astype(np.uint8)
    compared = values * settings.rejection_factor + settings.rejection_offset
    compared = compared.astype(np.float32)
    pixel = Pixels.empty(1, settings, excess=excess if excess.size else None)
    run_tiles(samples, settings, pixel)
    spec = RULES[settings.recipe.rule_for(settings.frames)]
    return PixelStory(
        x=x,
        y=y,
        channel=channel,
        files=files,
        rule=spec.name,
        raw=np.asarray(raw, dtype=np.float32),
        compared=compared,
        combined=values * settings.factor + settings.offset,
        weights=settings.weights,
        rounds=rounds,
        verdict=verdict,
        reasons=tuple(
            f"{WORDS[verdict[i]]}: {found[i]}"
            if fell[i]
            else _reason(i, raw, compared, rounds, settings, spec)
            for i in range(raw.size)
        ),
        value=float(pixel.image[0]),
        uncertainty=float(pixel.uncertainty[0]),
        numbers=tuple(range(1, raw.size + 1)),
        means=tuple(means.name for means in MEANS if means.found(fell).any()),
        flags=flags,
    )


def _rounds(samples: np.ndarray, settings: Settings, excess: np.ndarray) -> tuple[Round, ...]:
    """Run the rule with 1, 2, 3 ... rounds until nothing changes."""
    rounds: list[Round] = []
    before, known = last_round(samples, settings, 0, excess).verdict[:, 0], None
    for number in range(1, MOST_ROUNDS + 1):
        found = last_round(samples, settings, number, excess)
        verdict, detail = found.verdict[:, 0], found.detail[0]
        same = known is not None and np.array_equal(detail, known, equal_nan=True)
        if same and np.array_equal(verdict, before):
            break
        changed = verdict != before
        rounds.append(
            Round(
                number=number,
                centre=detail[CENTRE],
                lower=detail[LOWER],
                upper=detail[UPPER],
                verdict=verdict,
                dropped=tuple(np.flatnonzero(changed & (before == KEPT)).tolist()),
                returned=tuple(np.flatnonzero(changed & (verdict == KEPT)).tolist()),
                limits=None if found.limits is None else found.limits[:, :, 0],
            )
        )
        before, known = verdict, detail
    return tuple(rounds)


def _reason(
    i: int,
    raw: np.ndarray,
    compared: np.ndarray,
    rounds: tuple[Round, ...],
    settings: Settings,
    spec: RuleSpec,
) -> str:
    """Return the verdict on a sample and its reason in words."""
    verdict = int(rounds[-1].verdict[i])
    if verdict == NO_DATA:
        return _why_no_data(float(raw[i]), settings)
    last = rounds[-1]
    if verdict == KEPT:
        low, high = last.limits_of(i)
        own = f", its limits {low:.4g} and {high:.4g}" if spec.by_frame else ""
        return "kept" + _distance(i, compared[i], last, settings, spec) + own
    # Of rules that take samples back, the last rounds count.
    number = last
    for told in reversed(rounds):
        if told.verdict[i] != verdict:
            break
        number = told
    side, limit = ("below", number.limits_of(i)[0]) if verdict == LOW else ("above", number.limits_of(i)[1])
    if not np.isfinite(limit):
        return f"{WORDS[verdict]}: among the {'darkest' if verdict == LOW else 'brightest'}"
    text = f"{WORDS[verdict]} in {spec.step} {number.number}: "
    if compared[i] < limit if verdict == LOW else compared[i] > limit:
        return text + f"{side} {limit:.6g}" + _distance(i, compared[i], number, settings, spec)
    return text + spec.within


def _interval(number: Round) -> str:
    """Return the interval that a round keeps, in words."""
    lower, upper = number.lower, number.upper
    if not np.isfinite(lower):
        return f"up to {upper:.6g}" if np.isfinite(upper) else "everything"
    return f"{lower:.6g} to {upper:.6g}" if np.isfinite(upper) else f"{lower:.6g} and more"


def _why_no_data(raw: float, settings: Settings) -> str:
    low, high = (float(value) for value in settings.data_range)
    if not np.isfinite(raw):
        return "no data: the sample is not a number"
    if low == NOTHING and raw < high:
        return (
            f"no data: {raw:.6g} lies in the border, or is a blank (range_low {settings.recipe.range_low:g})"
        )
    if raw <= low:
        return f"no data: {raw:.6g} is at or below range_low {low:g} (border)"
    return f"left out: {raw:.6g} is at or above range_high {high:g} (saturated)"


def _distance(i: int, value: float, number: Round, settings: Settings, spec: RuleSpec) -> str:
    """Return the distance of a sample from the center in sigma of the round, in words."""
    if not spec.in_sigma or not np.isfinite(number.centre):
        return ""
    edges, limits = number.limits_of(i), [getattr(settings.recipe, name) for name in spec.limits]
    if np.isfinite(edges).all() and edges[0] < edges[1]:
        # The limits of a frame are about the mean of the others.
        scale = (edges[1] - edges[0]) / sum(limits)
        centre = edges[0] + limits[0] * scale if spec.by_frame else number.centre
        if not spec.by_frame:
            scale = (number.centre - edges[0]) / limits[0]
        return f" ({(value - centre) / scale:+.2f} sigma)"
    for limit, edge, sign in zip(limits, edges, (-1, 1), strict=True):
        if np.isfinite(edge) and edge != number.centre:
            scale = sign * (edge - number.centre) / limit
            return f" ({(value - number.centre) / scale:+.2f} sigma)"
    return ""
