"""Rejection and combination of one pixel, written as plainly and slowly as the definitions read.

It shares no code with the package (a table of test levels is data) and knows no shortcuts: sorted lists, one
pass after the other, sums without rounding. The tests compare the package with it.

Two correct programs can differ where a test value lies on its limit, so `Notes.margin` tells how near any
decision came: the smallest relative distance of a test value from its limit, 0 where rounding decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from scipy import special, stats

from stacklib.recipe.recipe import Recipe
from stacklib.rejection.calibration import LEVELS, SIGMAS, median_deviation_factors

FULL_SCALE = 65535.0
ALL = 10**6


@dataclass
class Notes:
    """What happened while one pixel was judged: the narrowest decision, and the numbers of each step."""

    margin: float = math.inf
    steps: list[dict[str, float]] = field(default_factory=list)

    def log(self, **numbers: float) -> None:
        self.steps.append(numbers)

    def narrow(self, margin: float) -> None:
        self.margin = min(self.margin, margin)

    def exceeds(self, value: float, limit: float) -> bool:
        """value > limit; comparisons with 0 (a sign) and infinity (a side switched off) are never narrow."""
        if math.isfinite(limit) and limit != 0:
            self.narrow(abs(value - limit) / abs(limit))
        return value > limit

    def reaches(self, value: float, limit: float) -> bool:
        """value >= limit."""
        return self.exceeds(value, limit) or value == limit

    def is_zero(self, scale: float, x: list[float]) -> bool:
        """scale == 0; a scale below the resolution of the arithmetic may just as well be 0."""
        if 0 < scale < 1e-12 * max(abs(value) for value in x):
            self.narrow(0.0)
        return scale == 0


# ---- statistics of sorted samples


def mean(x: list[float]) -> float:
    return math.fsum(x) / len(x)


def sd(x: list[float]) -> float:
    center = mean(x)
    return math.sqrt(math.fsum((value - center) ** 2 for value in x) / (len(x) - 1))


def middle(x: list[float]) -> list[float]:
    """The middle sample, or the two middle ones."""
    n = len(x)
    return x[(n - 1) // 2 : n // 2 + 1]


def median(x: list[float]) -> float:
    return mean(middle(sorted(x)))


def sn(x: list[float]) -> float:
    """lomed_i himed_j |x_i - x_j|, without any factor (Rousseeuw & Croux 1993)."""
    n = len(x)
    values = np.array(x)
    high_medians = np.sort(np.abs(values[:, None] - values), axis=1)[:, n // 2]
    return float(np.sort(high_medians)[(n + 1) // 2 - 1])


def sn_factor(n: int) -> float:
    """Finite-sample factor of Sn."""
    if n < 10:
        return (0.743, 1.851, 0.954, 1.351, 0.993, 1.198, 1.005, 1.131)[n - 2]
    return n / (n - 0.9) if n % 2 else 1.0


def sn_scale(x: list[float]) -> float:
    """Sn as an estimate of a Gaussian sigma."""
    return 1.1926 * sn_factor(len(x)) * sn(x)


def l1_cost(u, x, slope: float) -> float:
    """Sum of absolute residuals about the best line of this slope."""
    residuals = np.asarray(x) - slope * np.asarray(u)
    return float(np.abs(residuals - np.median(residuals)).sum())


def l1_line(u, x, notes: Notes | None = None) -> tuple[float, float]:
    """Intercept and slope of the line with the smallest sum of absolute residuals.

    Some best line passes through two of the points: all pairs are tried. Of equally good lines the one
    with the smallest slope is taken, with the median of ``x - slope u`` as its intercept.
    """
    u, x = np.asarray(u, float), np.asarray(x, float)
    i, j = np.triu_indices(len(x), 1)
    slopes = np.unique((x[j] - x[i]) / (u[j] - u[i]))
    residuals = x - slopes[:, None] * u
    residuals -= np.median(residuals, axis=1)[:, None]
    costs = np.abs(residuals).sum(axis=1)
    best = costs.min()
    tied = costs <= best * (1 + 1e-11) + 1e-14 * np.ptp(x)
    if notes is not None and best > 0 and not tied.all():
        notes.narrow((costs[~tied].min() - best) / best)
    slope = slopes[tied].min()
    return float(np.median(x - slope * u)), float(slope)


# ---- the rules: sorted valid samples in, sorted survivors out


def drop_beyond(x: list[float], center: float, scale: float, low: float, high: float, notes: Notes):
    """The samples within the limits about the center; the middle ones where that would be none."""
    kept = []
    for value in x:
        too_low = notes.exceeds((center - value) / scale, low)
        too_high = notes.exceeds((value - center) / scale, high)
        if not too_low and not too_high:
            kept.append(value)
    return kept or middle(x)


def limits(recipe: Recipe, low: float, high: float) -> tuple[float, float]:
    """The limits of both sides, infinite for a side that is switched off."""
    return (low if recipe.clip_low else math.inf), (high if recipe.clip_high else math.inf)


def none(x, recipe, notes, max_iterations):
    return x


def min_max(x, recipe, notes, max_iterations):
    if max_iterations < 1:
        return x
    low = recipe.min_max_low if recipe.clip_low else 0
    high = recipe.min_max_high if recipe.clip_high else 0
    return x[low : max(len(x) - high, 0)] or middle(x)


def percentile(x, recipe, notes, max_iterations):
    m = median(x)
    if len(x) < 3 or max_iterations < 1 or m <= 0:
        return x
    low, high = limits(recipe, recipe.percentile_low, recipe.percentile_high)
    return drop_beyond(x, m, m, low, high, notes)


def sigma(x, recipe, notes, max_iterations):
    low, high = limits(recipe, recipe.sigma_low, recipe.sigma_high)
    for _ in range(max_iterations):
        if len(x) < 3:
            break
        m, s = median(x), sd(x)
        if notes.is_zero(s, x):
            break
        notes.log(m=m, s=s)
        before, x = x, drop_beyond(x, m, s, low, high, notes)
        if len(x) == len(before):
            break
    return x


def winsorize(v: float, m: float, s: float, cutoff: float, notes: Notes) -> float:
    """Pull a sample to m -+ 1.5 s; to m itself where it is farther out than cutoff s."""
    t0, t1 = m - 1.5 * s, m + 1.5 * s
    if t0 <= v <= t1:
        return v
    if notes.exceeds(abs(v - m) / s, cutoff):
        return m
    return t0 if v < t0 else t1


def winsorized_sigma(x, recipe, notes, max_iterations):
    low, high = limits(recipe, recipe.sigma_low, recipe.sigma_high)
    for outer in range(max_iterations):
        if len(x) < 3:
            break
        m = median(x)
        s = sn_scale(x)
        if s == 0:
            s = sd(x)
        if notes.is_zero(s, x):
            break
        start = s
        cutoff = recipe.winsorization_cutoff if outer == 0 else math.inf
        v = list(x)
        for inner in range(100):
            v = [winsorize(value, m, s, cutoff, notes) for value in v]
            previous, s, m = s, 1.134 * sd(v), mean(v)
            if notes.is_zero(s, x):
                break
            change = abs(previous - s) / previous
            if inner >= 1:
                # Rounding shifts the change itself: the margin is the plain difference.
                notes.narrow(abs(change - 0.0005))
                if change < 0.0005:
                    break
        notes.log(start=start, m=m, s=s, passes=inner + 1)
        if s == 0:
            break
        before, x = x, drop_beyond(x, m, s, low, high, notes)
        if len(x) == len(before):
            break
    return x


def averaged_sigma(x, recipe, notes, max_iterations):
    low, high = limits(recipe, recipe.sigma_low, recipe.sigma_high)
    m = median(x)
    if len(x) < 3 or m <= 0:
        return x
    s0 = math.sqrt(math.fsum((value - m) ** 2 / m for value in x) / (len(x) - 1))
    if notes.is_zero(s0, x):
        return x
    for _ in range(max_iterations):
        m = median(x)
        if len(x) < 3 or m <= 0:
            break
        notes.log(m=m, s=s0 * math.sqrt(m))
        before, x = x, drop_beyond(x, m, s0 * math.sqrt(m), low, high, notes)
        if len(x) == len(before):
            break
    return x


def linear_fit(x, recipe, notes, max_iterations):
    if len(x) < 5:
        return x
    low, high = limits(recipe, recipe.linear_fit_low, recipe.linear_fit_high)
    for _ in range(max_iterations):
        n = len(x)
        if n < 3:
            break
        a, b = l1_line(range(n), x, notes)
        residuals = [x[j] - (a + b * j) for j in range(n)]
        deviation = mean([abs(residual) for residual in residuals])
        s = 2 * deviation * math.sqrt(1 + b * b)
        if notes.is_zero(s, x):
            break
        notes.log(a=a, b=b, A=deviation, s=s, first=residuals[0] / s, last=residuals[-1] / s)
        first, last = 0, n
        while first < n and residuals[first] < 0 and notes.reaches(-residuals[first] / s, low):
            first += 1
        while last > first and residuals[last - 1] > 0 and notes.reaches(residuals[last - 1] / s, high):
            last -= 1
        x = x[first:last] or middle(x)
        if len(x) == n:
            break
    return x


@cache
def gesd_lambda(n: int, i: int, significance: float) -> float:
    """Critical value of step i of the generalized ESD test on n samples."""
    t = float(stats.t.isf(significance / (2 * (n - i)), n - i - 2))
    return t * (n - i - 1) / math.sqrt((n - i - 2 + t * t) * (n - i))


def gesd_center(x: list[float], i: int, recipe: Recipe) -> float:
    """Mean of the samples left in step i, or PixInsight's trimmed mean."""
    if recipe.gesd_variant == "rosner":
        return mean(x)
    n = len(x)
    f, r = recipe.gesd_outliers_fraction, recipe.gesd_low_relaxation
    h = max(1, int(f * n) - i)
    l = max(1, int(f * n / r) - i)  # noqa: E741
    return median(x) if h + l >= n - 2 else mean(x[l : n - h])


def gesd_outliers(n: int, recipe: Recipe) -> int:
    return min(max(int(recipe.gesd_outliers_fraction * n), 1), n - 2)


def gesd(x, recipe, notes, max_iterations):
    n = len(x)
    if n < 3:
        return x
    left = x  # after i removals
    survivors = x  # after the removals that are believed
    stopped = False
    for i in range(min(gesd_outliers(n, recipe), max_iterations)):
        c, s = gesd_center(left, i, recipe), sd(left)
        if notes.is_zero(s, left):
            break
        high = (left[-1] - c) / s if recipe.clip_high else -math.inf
        low = (c - left[0]) / (recipe.gesd_low_relaxation * s) if recipe.clip_low else -math.inf
        if math.isfinite(high) and math.isfinite(low):
            notes.narrow(abs(high - low) / max(high, low))
        largest = max(high, low)
        left = left[:-1] if high >= low else left[1:]
        critical = gesd_lambda(n, i, recipe.gesd_significance)
        notes.log(T=largest, critical=critical)
        if recipe.gesd_variant == "rosner":
            if notes.exceeds(largest, critical):
                survivors = left
        elif not stopped:
            if notes.reaches(largest, critical):
                survivors = left
            else:
                stopped = True
    return survivors


def calibrated_sigma(x, recipe, notes, max_iterations):
    """Test the most deviating sample against the others, with the levels of the package's table."""
    if len(x) < 3:
        return x
    sides = limits(recipe, recipe.sigma_low, recipe.sigma_high)
    if not any(map(math.isfinite, sides)):
        return x
    levels = [calibrated_level(len(x), side) for side in sides]
    left = survivors = x
    for _ in range(min(max(1, min(2 * len(x) // 5, len(x) - 3)), max_iterations)):
        c = mean(left)
        low, high = (c - left[0]) / sides[0], (left[-1] - c) / sides[1]
        if math.isfinite(sides[0]) and math.isfinite(sides[1]):
            notes.narrow(abs(high - low) / max(high, low, 1e-300))
        side = int(high >= low)
        value, left = (left[-1], left[:-1]) if side else (left[0], left[1:])
        s = sd(left)
        if notes.is_zero(s, x):
            break
        m = len(left)
        t = abs(value - mean(left)) / (s * math.sqrt(1 + 1 / m))
        critical = -float(stats.t.ppf(levels[side], m - 1)) if math.isfinite(sides[side]) else math.inf
        notes.log(T=t, critical=critical)
        if notes.exceeds(t, critical):
            survivors = left
    return survivors


def calibrated_level(n: int, sigma: float) -> float:
    """Level of a single test: between tabulated numbers of samples in 1 / n, between limits in sigma."""
    if math.isinf(sigma):
        return 0.0
    known = sorted(LEVELS)
    rows = [float(np.interp(sigma, SIGMAS, LEVELS[k])) for k in known]
    shift = float(np.interp(-1 / n, [-1 / k for k in known], rows))
    return float(stats.norm.sf(sigma)) * math.exp(shift)


def noise_model(x, recipe, notes, max_iterations):
    """A pixel alone: frames of equal noise, which only the samples tell."""
    if len(x) < 3:
        return x
    m = median(x)
    spread = sorted(abs(value - m) for value in x)[len(x) // 2]
    sigma = math.sqrt(median_deviation_factors((1.0,) * len(x))[0][-1]) * spread
    kept = by_known_noise(x, [1.0] * len(x), sigma, recipe, notes, max_iterations)
    return [value for value, keep in zip(x, kept, strict=True) if keep]


def by_known_noise(x, noise, sigma, recipe, notes, max_iterations=ALL, further=0.0):
    """Which of the samples, in the order of the frames, agree with the mean of the others kept.

    `further` is the variance that all frames have alike, relative to that of a frame of noise 1.
    """
    low, high = limits(recipe, recipe.sigma_low, recipe.sigma_high)
    every, kept, m = range(len(x)), [True] * len(x), median(sorted(x))
    if len(x) < 3 or sigma == 0:
        return kept
    for number in range(min(max_iterations, 20)):
        tested = []
        for i in every:
            others = [j for j in every if kept[j] and (j != i or number == 0)]
            if not others:
                tested.append(True)
                continue
            weight = math.fsum(1 / noise[j] ** 2 for j in others)
            center, error = m, math.pi / 2
            if number:
                center, error = math.fsum(x[j] / noise[j] ** 2 for j in others) / weight, 1.0
            z = (x[i] - center) / (sigma * math.sqrt(noise[i] ** 2 + further + error / weight))
            notes.log(z=z)
            too_low, too_high = notes.exceeds(-z, low), notes.exceeds(z, high)
            tested.append(not too_low and not too_high)
        if not any(tested):
            tested[min(every, key=lambda i: abs(x[i] - m))] = True
        if number and tested == kept:
            break
        kept = tested
    return kept


def chauvenet_factor(n: int) -> float:
    return 1 / (1 - 2.9442 * n**-1.073)


def deviation_683(x: list[float], m: float) -> float:
    """68.3 % deviation: an order statistic of the absolute deviations, corrected for few samples."""
    deviations = sorted(abs(value - m) for value in x)
    return chauvenet_factor(len(x)) * deviations[int(0.683 * len(x))]


def deviation_line(x: list[float], m: float, notes: Notes) -> float:
    """68.3 % deviation read off a line through the smaller absolute deviations."""
    n = len(x)
    used = int(0.683 * n + 0.317)
    if used < 8:
        return deviation_683(x, m)
    deviations = sorted(abs(value - m) for value in x)[:used]
    u = [math.sqrt(2) * float(special.erfinv((i - 0.317) / n)) for i in range(1, used + 1)]
    a, b = l1_line(u, deviations, notes)
    return chauvenet_factor(n) * (a + b)


def chauvenet(x, recipe, notes, max_iterations):
    drops = 0
    phase = 0
    while phase < 3 and len(x) >= 3 and drops < max_iterations:
        n = len(x)
        if phase == 0:
            m = median(x)
            d = deviation_line(x, m, notes)
        elif phase == 1:
            m = median(x)
            d = deviation_683(x, m)
        else:
            m = mean(x)
            d = sd(x)
        notes.is_zero(abs(d), x)
        if d <= 0:  # a zero scale rejects nothing
            phase += 1
            continue
        # The number of samples expected beyond an end is the smaller, the farther out the end is.
        low = (m - x[0]) / d if recipe.clip_low else -math.inf
        high = (x[-1] - m) / d if recipe.clip_high else -math.inf
        expected_low, expected_high = (n * math.erfc(z / math.sqrt(2)) / 2 for z in (low, high))
        notes.log(phase=phase, n=n, m=m, d=d, D0=expected_low, D1=expected_high)
        if notes.reaches(min(expected_low, expected_high), recipe.chauvenet_limit):
            phase += 1
            continue
        if math.isfinite(low) and math.isfinite(high):
            notes.narrow(abs(high - low) / max(high, low))
        x = x[1:] if low >= high else x[:-1]
        drops += 1
    return x


def ccd_noise(x, recipe, notes, max_iterations):
    low, high = limits(recipe, recipe.sigma_low, recipe.sigma_high)
    gain, read_noise, scale_noise = recipe.ccd_gain, recipe.ccd_read_noise, recipe.ccd_scale_noise
    for _ in range(max_iterations):
        if len(x) < 3:
            break
        m = median(x)
        adu = m * FULL_SCALE
        # A level below zero has no photons and so no shot noise.
        variance = (read_noise / gain) ** 2 + max(adu, 0.0) / gain + (scale_noise * adu) ** 2
        s = math.sqrt(variance) / FULL_SCALE
        if notes.is_zero(s, x):
            break
        notes.log(m=m, s=s)
        before, x = x, drop_beyond(x, m, s, low, high, notes)
        if len(x) == len(before):
            break
    return x


RULES: dict[str, Callable] = {
    rule.__name__: rule
    for rule in (
        none,
        min_max,
        percentile,
        sigma,
        winsorized_sigma,
        averaged_sigma,
        linear_fit,
        gesd,
        calibrated_sigma,
        noise_model,
        chauvenet,
        ccd_noise,
    )
}


# ---- one pixel, one stack


def is_data(raw: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Which raw samples hold data: finite, and not in the black border."""
    valid = np.isfinite(raw)
    if recipe.range_clip_low:
        valid &= raw > np.float32(recipe.range_low)
    return valid


def is_valid(raw: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Which raw samples take part: those that hold data and are not saturated."""
    valid = is_data(raw, recipe)
    if recipe.range_clip_high:
        valid &= raw < np.float32(recipe.range_high)
    return valid


def reject_pixel(raw, recipe: Recipe, max_iterations: int = ALL) -> tuple[np.ndarray, Notes]:
    """Which samples of one pixel survive, and how that came about."""
    raw = np.asarray(raw)
    valid = is_valid(raw, recipe)
    notes = Notes()
    x = sorted(float(value) for value in raw[valid])
    if not x:
        return valid, notes
    survivors = RULES[recipe.rule_for(len(raw))](x, recipe, notes, max_iterations)
    # By value: a sample that equals a survivor is kept.
    return valid & (raw >= survivors[0]) & (raw <= survivors[-1]), notes


def reject(stack: np.ndarray, recipe: Recipe, max_iterations: int = ALL) -> tuple[np.ndarray, np.ndarray]:
    """The kept mask of a whole stack ``(frames, height, width)`` and the margin of each pixel."""
    kept = np.zeros(stack.shape, bool)
    margin = np.full(stack.shape[1:], math.inf)
    for pixel in np.ndindex(*stack.shape[1:]):
        kept[:, *pixel], notes = reject_pixel(stack[:, *pixel], recipe, max_iterations)
        margin[pixel] = notes.margin
    return kept, margin


def combine_pixel(raw, values, kept, recipe: Recipe, weights=None) -> float:
    """One output value.

    Parameters
    ----------
    raw, values : array
        The samples of the pixel, as read and as normalised for the output.
    kept : array of bool
        The survivors of the rejection.
    recipe : Recipe
        Names the combination and the range limits.
    weights : array, optional
        One weight per frame; only the average uses them.
    """
    values = np.asarray(values, float)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, float)
    x = [float(value) for value in values[kept]]
    if not x:
        saturated = is_data(np.asarray(raw), recipe) & ~is_valid(np.asarray(raw), recipe)
        return median(list(values[saturated])) if saturated.any() else 0.0
    if recipe.combination == "median":
        return median(x)
    if recipe.combination == "minimum":
        return min(x)
    if recipe.combination == "maximum":
        return max(x)
    w = [float(weight) for weight in weights[kept]]
    return math.fsum(a * b for a, b in zip(w, x, strict=True)) / math.fsum(w)
