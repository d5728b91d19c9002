"""Propose limits for a set of frames by trying settings on added outliers of known brightness."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Row, Table
from scipy import ndimage

from stacklib.errors import IntegrationError, RecipeError
from stacklib.explore.outliers import Injection, inject, own_outliers, spread_of
from stacklib.explore.sweep import checked_grid, settings_of
from stacklib.explore.trials import Trial, Trials, without_neighbours
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate_samples
from stacklib.integration.samples import RESULT_BYTES, Region
from stacklib.normalization.preparation import Preparation
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES, RuleSpec
from stacklib.simulate.defects import Trail
from stacklib.utils.resources import parse_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Advice", "advise", "memory_for"]

#: Default side of the region in pixels, and the smallest useful side.
SIDE, LEAST_SIDE = 512, 128
#: Smallest number of frames. The halves of fewer are useless.
FEWEST = 4
#: Settings are equally good if their risk is within the first factor of the least. Of those, they are equally
#: gentle to stars if their bright risk is within the second factor. Then the least leftovers decide.
AS_GOOD, GENTLE = 1.01, 1.05
#: Pixels with more than this many times the median standard error do not count for leftover light and for the
#: split-half check.
QUIET = 2.0
#: Frames that each half needs to be treated by a rule much as all frames.
ENOUGH = 10
#: Tolerated error of a star, as a fraction of its light.
TOLERANCE = 0.05
#: Peak of the trail with which looking at neighbors is tried, in sigma of its frame. Its light counts down to
#: this fraction of the peak.
FAINT, TRAIL_EDGE = 2.0, 0.01
#: Standard errors are smoothed over this many pixels each way, as that of a single pixel is uncertain.
SMOOTH = 9


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Proposed limits and the measurements behind them.

    Each setting is compared with the weighted average of the samples without outliers. Added outliers are
    known; `stacklib.explore.outliers.own_outliers` finds those of the frames. Errors are in units of the
    standard error of that average, so that 1 is the best possible. A setting's own error is independent of
    that of the average, so squares add up::

        risk^2 = 1 + mean((result - average)^2 / error^2)   over all pixels
               = noise^2 + left^2

    where `noise` is the same sum over pixels of faint sky without outliers, and `left` is the contribution of
    all other pixels: outliers, and stars clipped by the limits. Risk is thus the root mean square error in
    units of the best possible one. Real noise can have tails, and clipping then beats the average. With at
    least 20 frames `noise` is therefore at most the difference of odd and even frames, see `split_half`, over
    that of the average without outliers.

    Where frames scatter because the seeing changes, the standard error is large and stars hardly count. A
    second risk has the same unit in all pixels::

        risk_bright^2 = 1 + mean((result - average)^2 / (median(error)^2 + (light / 20)^2))

    Light is the brightness of the average above the sky, so a star may be wrong by 5 %. The proposal is
    chosen among the settings whose risk is within 1 % of the least. Of these, only settings whose
    `risk_bright` is within 5 % of the least remain, and the one with the least leftovers is proposed.

    Attributes
    ----------
    recipe : Recipe
        The proposed settings.
    start : Recipe
        The given recipe.
    grid : dict
        Values tried for each parameter.
    table : Table
        One row per setting: the parameters; `risk`, `noise`, `left` and `risk_bright` as above;
        `noise_penalty`, ``100 (noise - 1)`` percent; for each kind of added outlier the percentage of its
        light that is left (``left of trails`` and so on; 100 without rejection); and `split_half`, the root
        mean square difference of odd and even frames, integrated separately, in the units of risk. It uses
        neither truth nor added outliers, but with half the frames a rule rejects less.
    row : int
        Row of the proposal.
    reason : str
        Reason for the proposal, in a sentence.
    region : (left, top, width, height)
        The region of the frames.
    neighbours : Table
        What looking at neighbors would change with the proposed limits, one row for each value of
        `footprints`: `risk`, `noise_penalty` and leftovers as in `table`, and ``left of a trail of 2 sigma``,
        the percentage of its light that a trail across the region leaves, far below the noise of a pixel. The
        proposal has the setting of the given recipe.
    """

    recipe: Recipe
    start: Recipe
    grid: dict[str, tuple]
    table: Table = field(repr=False)
    row: int
    reason: str
    region: Region
    neighbours: Table = field(default_factory=Table, repr=False)

    @property
    def kinds(self) -> list[str]:
        """Kinds of added outliers."""
        return [name.removeprefix("left of ") for name in self.table.colnames if name.startswith("left of ")]

    def column(self, name: str) -> np.ndarray:
        """Return a column of the table as an array with one axis per parameter of the grid, float64."""
        shape = tuple(len(values) for values in self.grid.values())
        return np.asarray(self.table[name], dtype=np.float64).reshape(shape)

    def figure(self) -> Figure:
        """Plot the trade-off between noise and leftovers, with the proposal and its reason."""
        from stacklib.explore.advisor_plots import figure_advice  # matplotlib takes a second to import

        return figure_advice(self)


def advise(
    frames: FrameSet | str | Path | list,
    recipe: Recipe | None = None,
    region: Region | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
    seed: int = 1,
    report: Callable[[float], None] | None = None,
) -> Advice:
    """Propose rejection limits for a set of frames.

    Pieces of trails, cosmic rays and dark pixels of known brightness are added to the frames in memory. Each
    setting is tried on them, for what it leaves and what it costs in noise. `Advice` describes the choice.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        At least four registered frames of one geometry, or what `open_frames` accepts.
    recipe : Recipe, optional
        Rule, normalization and weights. Default is `Recipe.suggest` for these frames, which also gives the
        rule to a recipe without rejection. Both sides are tried, even if they are switched off.
    region : (left, top, width, height), optional
        The region to try settings on. Default is 512 x 512 pixels in the middle, or less if memory is short.
    grid : mapping of str to sequence, optional
        Values to try for each parameter, see `stacklib.sweep`. Default is a grid for the rule.
    memory : str or int
        Budget for samples and results. The samples of the region must fit into a third of it.
    threads : int, optional
        Number of threads. Default is one per processor.
    progress : bool
        Show progress bars.
    seed : int
        Seed of the added outliers.
    report : callable, optional
        Called repeatedly with the finished fraction, from the calling thread.

    Returns
    -------
    Advice

    Raises
    ------
    FrameError, IntegrationError, RecipeError
        If a frame, the set or a parameter cannot be used.

    Examples
    --------
    >>> advice = advise("sample_data/M13/4_Registered")  # doctest: +SKIP
    >>> advice.recipe.sigma_high, advice.reason  # doctest: +SKIP
    """
    frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
    start = Recipe.suggest(frames) if recipe is None else recipe
    spec = RULES[start.rule_for(len(frames))]
    if not spec.rejects:
        spec = RULES[Recipe.suggest(frames).rejection]
    # An earlier proposal may have switched a side off.
    start = start.replace(rejection=spec.name, clip_low=True, clip_high=True)
    own_grid = checked_grid(spec.grid if grid is None else grid)
    _refuse_few(frames)
    trials = Trials(frames, memory, threads)
    trials.read(_middle(frames, memory) if region is None else region)
    if trials.samples.held is None or trials.samples.held.nbytes > trials.samples.left_for_samples / 3:
        raise RecipeError(
            f"memory: {memory} is too little for three copies of the samples of the region; choose a smaller "
            "region or a larger budget"
        )
    count = trials.prepare(start).count
    grid = own_grid if grid is not None else _within_reach(own_grid, spec, count)
    settings = settings_of(grid)
    # Limits are those of the rule: what looks at neighbors is tried with the best of them.
    alone = without_neighbours(start)
    preparations = [trials.prepare(alone.replace(**changes)) for changes in settings]
    _refuse_few(preparations[0].used)
    judge = _Judge.make(trials, preparations[0], seed)
    struck, cleaned = trials.with_values(judge.injection.samples), trials.with_values(judge.cleaned)
    plain = trials.prepare(alone.replace(rejection="none"))
    (full,) = struck.each([plain], judge.light)
    # The two halves together take as long as all frames.
    first, second = _in_two(report)
    rows = struck.each(preparations, judge.look, progress, first)
    *halves, unrejected = _split_halves(trials, [*preparations, plain], judge, progress, second)
    (least,) = _split_halves(cleaned, [plain], judge)
    table = Table({name: [setting[name] for setting in settings] for name in grid})
    noise2, left2, bright2, light = (np.array(column) for column in zip(*rows, strict=True))
    if len(preparations[0].used) >= 2 * ENOUGH and least > 0:
        noise2 = np.minimum(noise2, (np.array(halves) / least) ** 2)
    table["risk"], table["noise"], table["left"] = np.sqrt(noise2 + left2), np.sqrt(noise2), np.sqrt(left2)
    table["risk_bright"] = np.sqrt(bright2)
    table["noise_penalty"] = 100 * (table["noise"] - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for kind, some, whole in zip(judge.injection.hit, light.T, full, strict=True):
            table[f"left of {kind}"] = 100 * some / whole
    table["split_half"] = halves
    _refuse_idle(table, spec.name, count)
    row = _best(table)
    proposal = start.replace(**settings[row])
    idle = [name for name in grid if spec.out_of_reach(name, getattr(proposal, name), count)]
    proposal = proposal.replace(**{f"clip_{_side(name)}": False for name in idle})
    neighbours = _try_neighbours(trials, judge, preparations[0], without_neighbours(proposal))
    reason = _reason(table, row, grid, count, unrejected, idle) + _worth_of_neighbours(neighbours)
    frames.close()
    return Advice(
        recipe=proposal,
        start=start,
        grid=grid,
        table=table,
        row=row,
        reason=reason,
        region=trials.samples.region,
        neighbours=neighbours,
    )


def _refuse_few(frames: Sequence) -> None:
    if len(frames) < FEWEST:
        raise IntegrationError(
            f"{len(frames)} frames are too few to try limits, at least {FEWEST} are needed; "
            "add frames or keep the limits"
        )


def memory_for(count: int, channels: int, width: int, height: int) -> int:
    """Return the bytes that advice on the default region takes for `count` frames of this geometry."""
    return min(SIDE, width) * min(SIDE, height) * _pixel_bytes(count, channels)


def _pixel_bytes(count: int, channels: int) -> int:
    """Return the bytes per pixel of three copies of the samples and the result."""
    return channels * (12 * count + RESULT_BYTES)


def _middle(frames: FrameSet, memory: str | int) -> Region:
    """Return the region in the middle that fits into the budget."""
    side = min(SIDE, math.isqrt(parse_memory(memory) // _pixel_bytes(len(frames), frames.channels)))
    if side < LEAST_SIDE:
        side = SIDE
    width, height = min(side, frames.width), min(side, frames.height)
    return (frames.width - width) // 2, (frames.height - height) // 2, width, height


def _within_reach(grid: dict[str, tuple], spec: RuleSpec, count: int) -> dict[str, tuple]:
    """Return the grid with only the first of the limits that reject nothing with `count` frames."""

    def some(name: str, values: tuple) -> tuple:
        vain = [value for value in values if spec.out_of_reach(name, value, count)]
        return tuple(value for value in values if value not in vain[1:])

    return {name: some(name, values) for name, values in grid.items()}


def _refuse_idle(table: Table, rule: str, count: int) -> None:
    """Raise `IntegrationError` if no limit rejects anything."""
    if (np.asarray(table["left of bright trails"]) > 99.9).all():
        raise IntegrationError(
            f"{rule} rejects nothing among {count} frames with any of the limits tried; "
            'choose another rule, such as rejection="percentile", or add frames'
        )


@dataclass(frozen=True)
class _Judge:
    """Average without outliers, and its standard error, by which results are judged.

    Arrays have the shape (channels, height, width). `judged` are the pixels with data in all frames, `clean`
    those of them without an outlier in any frame. `cleaned`, shape (channels, frames, height, width), are the
    samples with NaN in place of the outliers found.
    """

    average: np.ndarray
    error: np.ndarray
    judged: np.ndarray
    clean: np.ndarray
    cleaned: np.ndarray
    injection: Injection

    @cached_property
    def quiet(self) -> np.ndarray:
        """Judged pixels without stars, where frames differ by more than outliers matter."""
        return self.judged & (self.error <= QUIET * np.median(self.error[self.judged]))

    @cached_property
    def light_above_sky(self) -> np.ndarray:
        """Brightness above the sky, (channels, height, width)."""
        # A channel without an image has no sky.
        dark = ~self.judged.any(axis=(1, 2), keepdims=True)
        known = np.where(self.judged | dark, self.average, np.nan)
        return np.maximum(self.average - np.nanmedian(known, axis=(1, 2), keepdims=True), 0)

    @classmethod
    def make(cls, trials: Trials, preparation: Preparation, seed: int) -> _Judge:
        samples, used = trials.samples, preparation.used
        raw = samples.values(preparation.marks)
        noise = _noise(trials, preparation)
        middle, spread = spread_of(samples, preparation)
        cleaned, found = raw.copy(), np.zeros(middle.shape, bool)
        for channel in range(len(raw)):
            s = preparation.settings(channel)
            factor, offset = (each.astype(np.float32)[:, None, None] for each in (s.factor, s.offset))
            values = raw[channel, used] * factor + offset
            own = own_outliers(values, middle[channel], spread[channel], samples.threads)
            # Where almost nothing would be left, the sky itself changes.
            own &= own.mean(axis=0) < 0.5
            cleaned[channel, used] = np.where(own, np.float32(np.nan), raw[channel, used])
            found[channel] = own.any(axis=0)
        low = float(preparation.settings(0).data_range[0])
        injection = inject(raw, noise, low, seed)
        # The best possible average: inverse variances as weights, no rejection.
        variance = (noise * preparation.factor) ** 2
        best = replace(
            preparation,
            weights=variance[used].min(axis=0) / variance,
            recipe=preparation.recipe.replace(rejection="none", combination="average"),
        )
        result = integrate_samples(samples.with_values(cleaned), best, true_claims=False)
        judged = np.isfinite(spread) & (result.uncertainty > 0)
        variance = np.where(judged, (result.uncertainty / result.range_factor).astype(np.float64) ** 2, 0)
        size = (0, SMOOTH, SMOOTH)
        share = ndimage.uniform_filter(judged.astype(np.float64), size, mode="constant")
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(ndimage.uniform_filter(variance, size, mode="constant") / share)
        hit = np.any(list(injection.hit.values()), axis=0)
        judged &= error > 0
        if not judged.any():
            raise IntegrationError(
                f"region {samples.region}: no pixel has data in all frames; choose another region"
            )
        return cls(result.original, error, judged, judged & ~(hit | found), cleaned, injection)

    def look(self, trial: Trial | Integration) -> tuple[float, float, float, list[float]]:
        """Return the squares of noise, leftovers and bright risk, and the leftover `light`."""
        beyond = (trial.original - self.average)[self.judged].astype(np.float64)
        error = self.error[self.judged]
        squares = (beyond / error) ** 2
        clean = (self.clean & self.quiet)[self.judged]
        noise2 = 1 + (float(squares[clean].mean()) if clean.any() else 0.0)
        left2 = max(1 + float(squares.mean()) - noise2, 0.0)
        tolerance2 = np.median(error) ** 2 + (TOLERANCE * self.light_above_sky[self.judged]) ** 2
        bright = float(np.mean(beyond**2 / tolerance2))
        return noise2, left2, 1 + bright, self.light(trial)

    def light(self, trial: Trial | Integration) -> list[float]:
        """Return the light left of each kind of outlier."""
        beyond = trial.original - self.average
        for channel, clean in zip(beyond, self.clean & self.quiet, strict=True):
            # Tighter limits on one side shift all pixels. This is not light of outliers.
            channel -= channel[clean].mean() if clean.any() else 0
        beyond[~self.quiet] = 0
        return [float(beyond[where].sum(dtype=np.float64)) for where in self.injection.hit.values()]


def _noise(trials: Trials, preparation: Preparation) -> np.ndarray:
    """Return the noise of all frames in raw units, (frames, channels)."""
    recipe = preparation.recipe.replace(weights="noise", combination="average", weight_file="")
    measured = trials.prepare(recipe).measurements
    noise = np.where(measured.noise > 0, measured.noise, measured.scale_low)
    return np.where(noise > 0, noise, noise[noise > 0].min() if (noise > 0).any() else 1.0)


def _try_neighbours(trials: Trials, judge: _Judge, p: Preparation, recipe: Recipe) -> Table:
    """Try the values of `footprints` with one rule on the samples with outliers and a faint trail."""
    struck, noise = judge.injection.samples, _noise(trials, p)
    height, width = struck.shape[2:]
    trail = Trail(int(p.used[len(p.used) // 2]), (-9.0, 0.3 * height), (width + 9.0, 0.62 * height), FAINT)
    light = trail.profile(height, width) * FAINT
    # The samples without outliers have served: no fourth copy is needed.
    crossed = judge.cleaned
    crossed[:] = struck
    known = struck[:, trail.frame] > float(p.settings(0).data_range[0])
    added = noise[trail.frame][:, np.newaxis, np.newaxis] * light
    crossed[:, trail.frame] += np.where(known, added, 0).astype(np.float32)
    both = trials.with_values(crossed), trials.with_values(struck)
    near = (light > TRAIL_EDGE * FAINT) & judge.judged

    def light_of(tried: Recipe) -> tuple[Integration, float]:
        found = both[0].integrate(tried)
        # The same samples are left out, so that nothing but the trail makes a difference.
        samples = both[1].samples.masked(found.masks)
        without = integrate_samples(samples, both[1].prepare(tried), true_claims=False)
        return found, float((found.original - without.original)[near].sum(dtype=np.float64))

    unrejected, whole = light_of(recipe.replace(rejection="none"))
    full = judge.light(unrejected)
    rows = []
    for footprints in Recipe.parameters()["footprints"].choices:
        result, left = light_of(recipe.replace(footprints=footprints))
        noise2, left2, _, kinds = judge.look(result)
        shares = (100 * some / total if total else math.nan for some, total in zip(kinds, full, strict=True))
        share = 100 * left / whole if whole else math.nan
        rows.append((footprints, math.sqrt(noise2 + left2), 100 * (math.sqrt(noise2) - 1), share, *shares))
    kinds = [f"left of {kind}" for kind in judge.injection.hit]
    names = ["footprints", "risk", "noise_penalty", f"left of a trail of {FAINT:g} sigma", *kinds]
    return Table(rows=rows, names=names)


def _worth_of_neighbours(table: Table) -> str:
    """Say what looking at neighbors would change, in a sentence."""
    off, *others = table
    best = min(others, key=lambda row: row["risk"])
    name = f"left of a trail of {FAINT:g} sigma"
    if not (math.isfinite(off[name]) and math.isfinite(best[name])):
        return ""
    more = best["noise_penalty"] - off["noise_penalty"]
    return (
        f" With footprints {best['footprints']}, {max(best[name], 0):.0f} % instead of {off[name]:.0f} % of "
        f"the light of a trail of {FAINT:g} sigma is left, and the noise changes by {more:+.1f} %."
    )


def _in_two(report: Callable[[float], None] | None) -> tuple[Callable[[float], None] | None, ...]:
    """Return the callables for the first and second half of the work that report the total fraction."""
    if report is None:
        return None, None
    return lambda fraction: report(fraction / 2), lambda fraction: report((1 + fraction) / 2)


def _split_halves(
    trials: Trials,
    preparations: list[Preparation],
    judge: _Judge,
    progress: bool = False,
    report: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return the root mean square difference of odd and even frames in standard errors of the average.

    Each half is integrated separately. The difference of halves with the weights a and b times
    ``sqrt(a b) / (a + b)`` has the noise of the average of all frames, plus leftovers of outliers.
    """
    used = preparations[0].used
    halves = [used[half::2] for half in (0, 1)]
    weights = [[p.weights[half].sum(axis=0)[:, None, None] for half in halves] for p in preparations]
    quiet = judge.quiet
    first: dict[int, np.ndarray] = {}
    lock, found = threading.Lock(), np.full(len(preparations), np.nan)

    def look(trial: Trial) -> None:
        k = trial.position % len(preparations)
        with lock:
            if k not in first:
                first[k] = trial.original
                return
            other = first.pop(k)
        a, b = weights[k]
        scaled = (trial.original - other) * np.sqrt(a * b) / (a + b)
        found[k] = np.sqrt(np.mean((scaled[quiet] / judge.error[quiet]) ** 2))

    trials.each([replace(p, used=half) for half in halves for p in preparations], look, progress, report)
    return found


def _best(table: Table) -> int:
    """Return the row to propose."""
    risk, bright = np.asarray(table["risk"]), np.asarray(table["risk_bright"])
    good = np.flatnonzero(risk <= AS_GOOD * risk.min())
    good = good[np.lexsort((table["noise"][good], table["left"][good]))]
    return int(good[bright[good] <= GENTLE * bright[good].min()][0])


def _reason(
    table: Table, row: int, grid: Mapping[str, tuple], count: int, unrejected: float, idle: Sequence[str]
) -> str:
    """Return the reason for a proposal in a sentence."""
    chosen = table[row]
    limits = " and ".join(
        f"no rejection {_side(name)}" if name in idle else f"{name} {value_in_words(chosen[name])}"
        for name in grid
    )
    cost = chosen["noise_penalty"]
    higher = "higher" if cost >= 0 else "lower"
    trails, rays = (abs(chosen[f"left of {kind}"]) for kind in ("trails", "cosmic rays"))
    words = (
        f"{limits}: {trails:.0f} % of the signal of trails added to these {count} frames is left, and "
        f"{rays:.0f} % of that of cosmic rays; the noise is {abs(cost):.1f} % {higher} than in an "
        "average without outliers"
    )
    if beside := _beside(table, row, grid):
        words += f"; {beside}"
    change = 100 * (chosen["split_half"] / unrejected - 1)
    if abs(change) >= 0.05:
        side = "less" if change < 0 else "more"
        words += (
            f"; odd and even frames, integrated separately, differ {abs(change):.1f} % {side} than without "
            "rejection"
        )
    return words + "."


def _side(limit: str) -> str:
    return limit.rpartition("_")[2]


def _beside(table: Table, row: int, grid: Mapping[str, tuple]) -> str:
    """Return the effect of the next values of each limit, in words."""
    shape = tuple(len(values) for values in grid.values())
    place = np.unravel_index(row, shape)
    said = []
    for axis, (name, values) in enumerate(grid.items()):
        parts = []
        for step in (-1, 1):
            there = [index + step * (k == axis) for k, index in enumerate(place)]
            if 0 <= there[axis] < len(values):
                other = int(np.ravel_multi_index(there, shape))
                parts.append(f"{value_in_words(values[there[axis]])} {_against(table[row], table[other])}")
        if parts:
            said.append(f"{name} {', '.join(parts)}")
    return "; ".join(said)


def _against(chosen: Row, other: Row) -> str:
    """Return the difference between another setting and the proposal, in words."""

    def light(row: Row) -> float:
        return abs(row["left of trails"]) + abs(row["left of cosmic rays"])

    verdicts = {
        "adds noise": other["noise_penalty"] > chosen["noise_penalty"] + 0.05,
        "leaves more": light(other) > light(chosen) + 0.5,
        "takes more light from stars": other["risk_bright"] > 1.002 * chosen["risk_bright"],
    }
    found = [words for words, holds in verdicts.items() if holds]
    if found[:1] == ["adds noise"]:
        # Noise decides, so stars are not mentioned.
        found = found[:2] if found[1:2] == ["leaves more"] else found[:1]
    return " and ".join(found) or "changes little"


def value_in_words(value: Any) -> str:
    """Return a value of the grid as text."""
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)
