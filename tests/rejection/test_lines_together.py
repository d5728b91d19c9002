"""Lines of many pixels at once: the same as one by one, whatever the pixels beside them."""

import numpy as np
import pytest
from scipy import special

from stacklib.recipe.recipe import Recipe
from stacklib.rejection import line_search
from stacklib.rejection.clipping import SLOPE
from stacklib.rejection.line_fitting import l1_line
from stacklib.rejection.registry import ALL_ITERATIONS, rule_for
from stacklib.rejection.sorting import LANES

COUNTS = (3, 5, 6, 9, 12, 17, 40, 41, 101)


def gaussian(rng, shape):
    return rng.normal(0.2, 0.001, shape)


def outliers(rng, shape):
    return gaussian(rng, shape) + np.where(rng.random(shape) < 0.06, rng.normal(0, 0.05, shape), 0)


def uniform(rng, shape):
    return rng.random(shape)


def cauchy(rng, shape):
    return rng.standard_cauchy(shape)


def two_clusters(rng, shape):
    return np.where(rng.random(shape) < 0.5, 0.2, 0.3) + rng.normal(0, 1e-5, shape)


def steps(rng, shape):
    return 0.25 + np.round(rng.normal(0, 2, shape)) / 1024


def mostly_equal(rng, shape):
    return np.where(rng.random(shape) < 0.1, rng.random(shape), 0.1)


def riddled(rng, shape):
    return np.where(rng.random(shape) < 0.5 * rng.random(shape[1:]), np.inf, outliers(rng, shape))


WITH_ONE_LINE = (gaussian, outliers, uniform, cauchy)
KINDS = (*WITH_ONE_LINE, two_clusters, steps, mostly_equal, riddled)


def named(kind):
    return kind.__name__


def tile_of(kind, frames, blocks=2):
    """Sorted samples of a tile, and their numbers."""
    x = kind(np.random.default_rng([4, frames]), (frames, blocks * LANES)).astype(np.float32)
    ordered = np.sort(x, axis=0).reshape(frames, blocks, LANES).transpose(1, 0, 2)
    return np.ascontiguousarray(ordered), np.isfinite(ordered).sum(axis=1).astype(np.int32)


def apply(recipe, ordered, count, iterations=ALL_ITERATIONS, floor=0.0):
    """Ends of the kept samples, and what the rule noted."""
    frames = ordered.shape[1]
    rule = rule_for(recipe, frames)
    low, high = np.empty_like(count), np.empty_like(count)
    detail = np.full((len(count), 4, LANES), -7.0)
    limits, table = rule.limits(recipe, floor, 65535.0), rule.table(recipe, frames)
    rule.function(ordered, count, limits, table, iterations, low, high, detail)
    return low, high, detail


def find(block, abscissa, pixels=LANES):
    """Lines of a block, (8, LANES)."""
    n = len(block)
    # Sums of whole numbers have no rounding errors.
    margin = 0.0 if np.array_equal(abscissa, np.arange(n)) else 1e-6
    search = line_search.Search(*line_search.search_arrays(n))
    line_search.find_lines(block, abscissa, n, pixels, 1e-11 * n * n, margin, search)
    return search.lines.reshape(-1, LANES)


def row(part):
    return part // LANES


@pytest.mark.parametrize("frames", COUNTS)
@pytest.mark.parametrize("kind", KINDS[:-1], ids=named)
def test_proven_lines_are_those_of_each_pixel(kind, frames):
    block = tile_of(kind, frames, 1)[0][0]
    order, residual = np.empty(frames, np.int64), np.empty(frames)
    quantiles = np.sqrt(2) * special.erfinv((np.arange(1, frames + 1) - 0.317) / (frames / 0.683))
    for u in (np.arange(float(frames)), quantiles):
        lines = find(block, u)
        proven = lines[row(line_search.PROVEN)] > 0
        if kind in WITH_ONE_LINE and frames >= 5 and u is not quantiles:
            assert proven.mean() > 0.9
        for p in np.flatnonzero(proven):
            x = block[:, p].copy()
            intercept, slope = l1_line(u, x, 0, frames, order, residual)
            size = float(np.ptp(x))
            assert lines[row(line_search.SLOPES), p] == pytest.approx(slope, rel=1e-9, abs=1e-12 * size)
            assert lines[row(line_search.INTERCEPT), p] == pytest.approx(intercept, abs=1e-11 * size)
            least = np.abs(x - (intercept + slope * u)).sum()
            assert lines[row(line_search.RESIDUALS), p] == pytest.approx(least, rel=1e-9)


def test_almost_all_gaussian_pixels_are_proven():
    block = tile_of(gaussian, 40, 1)[0][0]
    assert find(block, np.arange(40.0))[row(line_search.PROVEN)].mean() > 0.98


@pytest.mark.parametrize("frames", (5, 20, 41))
def test_lines_do_not_depend_on_the_pixels_beside_them(frames):
    block = tile_of(outliers, frames, 1)[0][0]
    u = np.arange(float(frames))
    together = find(block, u)
    for p in (0, 1, 63, 127):
        alone = find(np.repeat(block[:, p : p + 1], LANES, axis=1), u, line_search.FILLED)
        assert np.array_equal(alone[: row(line_search.NEAR), 0], together[: row(line_search.NEAR), p])


def clipped(x, limits, rounds):
    """Ends of the kept samples, and the slope, with a line for one pixel at a time."""
    lo, hi, slope = 0, len(x), 0.0
    order, residual = np.empty(len(x), np.int64), np.empty(len(x))
    u = np.arange(float(len(x)))
    while len(x) >= 5 and hi - lo >= 3 and rounds > 0:
        n = hi - lo
        intercept, slope = l1_line(u, x, lo, hi, order, residual)
        line = intercept + slope * u[:n]
        r = x[lo:hi] - line
        deviation = 0.0
        for j in range(n):
            deviation += abs(r[j])
        s = max(2.0 * deviation / n * np.sqrt(1.0 + slope * slope), limits[2])
        if s == 0.0:
            break
        first, last = 0, n
        while first < n - 1 and r[first] < 0 and -r[first] / s >= limits[0]:
            first += 1
        while last - 1 > first and r[last - 1] > 0 and r[last - 1] / s >= limits[1]:
            last -= 1
        lo, hi = lo + first, lo + last
        rounds -= 1
        if last - first == n:
            break
    return lo, hi, slope


@pytest.mark.parametrize("frames", COUNTS)
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_linear_fit_of_a_tile_is_that_of_each_pixel(kind, frames):
    ordered, count = tile_of(kind, frames)
    for recipe, floor in (
        (Recipe(rejection="linear_fit"), 0.0),
        (Recipe(rejection="linear_fit", linear_fit_low=1.5, linear_fit_high=1), 1e-4),
    ):
        limits = rule_for(recipe, frames).limits(recipe, floor, 65535.0)
        for rounds in (1, ALL_ITERATIONS):
            low, high, detail = apply(recipe, ordered, count, rounds, floor)
            for b, p in np.ndindex(len(count), LANES):
                x = ordered[b, : count[b, p], p].copy()
                lo, hi, slope = clipped(x, limits, rounds)
                assert (low[b, p], high[b, p]) == (lo, hi)
                assert np.float32(detail[b, SLOPE, p]) == np.float32(slope)


@pytest.mark.parametrize("frames", COUNTS)
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_chauvenet_of_a_tile_is_that_of_each_pixel(kind, frames):
    # With a limited number of dropped samples, pixels are worked on one by one.
    ordered, count = tile_of(kind, frames)
    for recipe in (
        Recipe(rejection="chauvenet"),
        Recipe(rejection="chauvenet", chauvenet_limit=0.45),
        Recipe(rejection="chauvenet", chauvenet_limit=0.45, clip_low=False),
    ):
        together, alone = (apply(recipe, ordered, count, most) for most in (ALL_ITERATIONS, frames - 1))
        for one, other in zip(together, alone, strict=True):
            assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("rule", ["linear_fit", "chauvenet"])
@pytest.mark.parametrize("kind", [outliers, steps, riddled, uniform], ids=named)
def test_bits_do_not_depend_on_the_other_pixels_of_a_tile(kind, rule):
    recipe = Recipe(rejection=rule, linear_fit_low=2, linear_fit_high=1.5, chauvenet_limit=0.45)
    frames = 21
    ordered, count = tile_of(kind, frames, 3)
    found = apply(recipe, ordered, count)
    rng = np.random.default_rng(8)
    order = rng.permutation(3 * LANES)

    def shuffled(values):
        flat = np.moveaxis(values, -1, 1).reshape(3 * LANES, -1)[order]
        return np.ascontiguousarray(np.moveaxis(flat.reshape(3, LANES, -1), 1, -1))

    other = apply(recipe, shuffled(ordered), shuffled(count)[:, 0])
    for values, moved in zip(found, other, strict=True):
        expected = shuffled(values)
        assert np.array_equal(moved, expected.reshape(moved.shape), equal_nan=True)
    # In a tile of its own, beside pixels without data, each block of which takes another path.
    few = rng.choice(3 * LANES, 3, replace=False)
    alone, number = np.full((1, frames, LANES), np.inf, np.float32), np.zeros((1, LANES), np.int32)
    for lane, q in enumerate(few):
        alone[0, :, 40 * lane] = ordered[q // LANES, :, q % LANES]
        number[0, 40 * lane] = count[q // LANES, q % LANES]
    low, high, detail = apply(recipe, alone, number)
    for lane, q in enumerate(few):
        b, p = q // LANES, q % LANES
        assert (low[0, 40 * lane], high[0, 40 * lane]) == (found[0][b, p], found[1][b, p])
        assert np.array_equal(detail[0, :, 40 * lane], found[2][b, :, p], equal_nan=True)
