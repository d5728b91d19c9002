"""The rejection rules against a plain reference, published numbers, theory and their own symmetries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Notes

from stacklib.kernel.verdicts import reject
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES

# ---- stacks of every kind: generator and shape in, samples out


def gaussian(rng, shape):
    return rng.normal(0.2, 0.001, shape)


def outliers(rng, shape):
    return gaussian(rng, shape) + np.where(rng.random(shape) < 0.12, rng.normal(0, 0.05, shape), 0)


def negative(rng, shape):
    return outliers(rng, shape) - 0.2


def tied(rng, shape):
    return 0.2 + 0.001 * np.round(rng.normal(0, 0.8, shape))


def integers(rng, shape):
    return np.round(rng.normal(13000, 2, shape)) / 65535


def integers_with_outliers(rng, shape):
    steps = np.round(rng.normal(13000, 0.4, shape))
    return (steps + np.where(rng.random(shape) < 0.1, np.round(rng.normal(0, 20, shape)), 0)) / 65535


def binary_steps(rng, shape):
    # Here sums, means and differences are exact: limits are hit to the last bit.
    return 0.25 + np.round(rng.normal(0, 2, shape)) / 1024


def riddled(rng, shape):
    x = outliers(rng, shape)
    missing = rng.random(shape) < 0.6 * rng.random(shape[1:])
    x = np.where(missing, rng.choice([np.nan, np.inf, -np.inf, 0.0], shape), x)
    x[:, 0, 0] = np.nan
    return x


def constant(rng, shape):
    share = rng.choice([0.0, 0.05, 0.2], shape[1:])
    return np.where(rng.random(shape) < share, rng.random(shape), 0.1)


def two_clusters(rng, shape):
    return np.where(rng.random(shape) < 0.5, 0.2, 0.3) + rng.normal(0, 1e-5, shape)


def uniform(rng, shape):
    return rng.random(shape)


STACKS = (
    gaussian,
    outliers,
    negative,
    tied,
    integers,
    integers_with_outliers,
    binary_steps,
    riddled,
    constant,
    two_clusters,
    uniform,
)

CASES = [
    Recipe(rejection="none"),
    Recipe(rejection="min_max"),
    Recipe(rejection="min_max", min_max_low=3, min_max_high=0),
    Recipe(rejection="min_max", min_max_low=3, min_max_high=5),
    Recipe(rejection="percentile"),
    Recipe(rejection="percentile", percentile_low=0.003, percentile_high=0.004),
    Recipe(rejection="percentile", percentile_low=0.0, percentile_high=0.0),
    Recipe(rejection="sigma"),
    Recipe(rejection="sigma", sigma_low=2, sigma_high=1.8),
    Recipe(rejection="sigma", sigma_low=0.5, sigma_high=0.7),
    Recipe(rejection="winsorized_sigma"),
    Recipe(rejection="winsorized_sigma", sigma_low=2, sigma_high=1.8, winsorization_cutoff=8),
    Recipe(rejection="winsorized_sigma", sigma_low=4, sigma_high=2.5, winsorization_cutoff=3),
    Recipe(rejection="winsorized_sigma", sigma_low=2, sigma_high=3, winsorization_cutoff=1.5),
    Recipe(rejection="averaged_sigma"),
    Recipe(rejection="averaged_sigma", sigma_low=2, sigma_high=1.8),
    Recipe(rejection="linear_fit"),
    Recipe(rejection="linear_fit", linear_fit_low=2, linear_fit_high=1.5),
    Recipe(rejection="gesd"),
    Recipe(rejection="gesd", gesd_low_relaxation=1.7, gesd_significance=0.2),
    Recipe(rejection="gesd", gesd_outliers_fraction=0.8, gesd_significance=0.3),
    Recipe(rejection="gesd", gesd_outliers_fraction=0.0),
    Recipe(rejection="gesd", gesd_variant="pixinsight"),
    Recipe(rejection="gesd", gesd_variant="pixinsight", gesd_low_relaxation=1.5, gesd_significance=0.3),
    Recipe(rejection="calibrated_sigma"),
    Recipe(rejection="calibrated_sigma", sigma_low=1.7, sigma_high=1.2),
    Recipe(rejection="noise_model"),
    Recipe(rejection="noise_model", sigma_low=2, sigma_high=1.8),
    Recipe(rejection="chauvenet"),
    Recipe(rejection="chauvenet", chauvenet_limit=0.45),
    Recipe(rejection="ccd_noise", ccd_gain=0.2),
    Recipe(rejection="ccd_noise", ccd_gain=0.5, ccd_read_noise=3, ccd_scale_noise=0.01, sigma_low=2),
    Recipe(rejection="auto"),
]


def title(value) -> str | None:
    """The name of a parameter: what differs from the defaults, or the kind of stack."""
    if not isinstance(value, Recipe):
        return getattr(value, "__name__", None)
    usual = Recipe().to_dict()
    changed = {name: number for name, number in value.to_dict().items() if number != usual[name]}
    return "-".join(str(number) for number in changed.values()) or "auto"


def margin_of(recipe: Recipe) -> float:
    """How near a limit package and reference may differ: Sn is rounded to float32, all else is float64."""
    return 1e-6 if recipe.rejection in ("winsorized_sigma", "auto") else 1e-9


def assert_as_reference(stack: np.ndarray, recipe: Recipe, *max_iterations: int) -> float:
    """Equal masks in every pixel in which no decision is a matter of rounding; the share of those pixels."""
    kept = reject(stack, recipe, *max_iterations)
    expected, margin = reference.reject(stack, recipe, *max_iterations)
    wrong = (kept != expected).any(axis=0) & (margin > margin_of(recipe))
    if wrong.any():
        pixel = tuple(np.argwhere(wrong)[0])
        column = stack[:, *pixel]
        order = np.argsort(column)
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} pixels differ, margin {margin[pixel]:.2g}, {recipe}\n"
            f"{column[order].tolist()}\n"
            f"kept     {kept[:, *pixel][order].astype(int)}\n"
            f"expected {expected[:, *pixel][order].astype(int)}"
        )
    return (margin > margin_of(recipe)).mean()


def stacks_of(kind, *seeds: int, counts=(1, 2, 3, 4, 5, 6, 7, 9, 12, 17, 28, 60)):
    """One small stack per number of frames."""
    for frames in counts:
        rng = np.random.default_rng([*seeds, frames])
        yield kind(rng, (frames, 2, 3)).astype(np.float32)


# ---- the reference itself, and published numbers

WORKED = [0.100, 0.101, 0.0985, 0.1005, 0.0995, 0.1012, 0.0991, 0.1003, 0.0998, 0.135, 0.1007, 0.0993]
# fmt: off
ROSNER = np.array([
    -0.25, 0.68, 0.94, 1.15, 1.20, 1.26, 1.26, 1.34, 1.38, 1.43, 1.49, 1.49, 1.55, 1.56,
    1.58, 1.65, 1.69, 1.70, 1.76, 1.77, 1.81, 1.91, 1.94, 1.96, 1.99, 2.06, 2.09, 2.10,
    2.14, 2.15, 2.23, 2.24, 2.26, 2.35, 2.37, 2.40, 2.47, 2.54, 2.62, 2.64, 2.90, 2.92,
    2.92, 2.93, 3.21, 3.26, 3.30, 3.59, 3.68, 4.30, 4.64, 5.34, 5.42, 6.01,
])
# fmt: on


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        (
            Recipe(rejection="sigma", sigma_low=4, sigma_high=3),
            [{"m": 0.10015, "s": 0.01013818}, {"m": 0.1, "s": 8.4315e-4}],
        ),
        (
            Recipe(rejection="winsorized_sigma", sigma_low=4, sigma_high=3),
            [
                {"start": 1.1926e-3, "m": 0.10002157, "s": 8.746546e-4},
                {"start": 1.039097e-3, "m": 0.09999924, "s": 9.381119e-4},
            ],
        ),
        (
            Recipe(rejection="linear_fit", linear_fit_low=5, linear_fit_high=4),
            [{"a": 0.09882, "b": 2.4e-4, "A": 2.8417e-3, "s": 5.6833e-3, "last": 5.90}, {"A": 5.0909e-5}],
        ),
        (
            Recipe(rejection="gesd", gesd_variant="pixinsight"),
            [
                {"T": 3.4391, "critical": 2.4116},
                {"T": 1.796, "critical": 2.3547},
                {"T": 1.476, "critical": 2.29},
            ],
        ),
        (
            Recipe(rejection="chauvenet", chauvenet_limit=0.1),
            [
                {"phase": 0, "d": 1.2272e-3},
                {"phase": 0, "d": 1.1608e-3, "D0": 1.08, "D1": 1.66},
                {"phase": 1, "d": 1.1608e-3},
                {"phase": 2, "d": 8.4315e-4, "D0": 0.424, "D1": 0.834},
            ],
        ),
    ],
    ids=title,
)
def test_worked_example(recipe, steps):
    _, notes = reference.reject_pixel(WORKED, recipe)
    assert len(notes.steps) == len(steps)
    for step, printed in zip(notes.steps, steps, strict=True):
        for name, number in printed.items():
            # Half a unit of the last printed digit.
            digits = len(f"{number:.7g}".split("e")[0].lstrip("0.-").replace(".", ""))
            assert step[name] == pytest.approx(number, rel=0.6 * 10.0 ** (1 - digits)), name
    kept = reject(np.float32(WORKED).reshape(-1, 1, 1), recipe)[:, 0, 0]
    assert [WORKED[i] for i in np.flatnonzero(~kept)] == [0.135]


@pytest.mark.parametrize("name", [name for name, spec in RULES.items() if spec.least_frames > 1])
def test_every_rule_finds_the_outlier_of_the_worked_example(name):
    stack = np.float32(WORKED).reshape(-1, 1, 1)
    kept = reject(stack, Recipe(rejection=name, sigma_low=4, sigma_high=3, ccd_gain=1))
    assert np.flatnonzero(~kept).tolist() == [WORKED.index(0.135)]


def test_rosner_54_points():
    recipe = Recipe(rejection="gesd", gesd_outliers_fraction=10.5 / 54, range_clip_low=False)
    expected, notes = reference.reject_pixel(ROSNER, recipe)
    assert len(notes.steps) == 10
    assert [round(step["T"], 3) for step in notes.steps[:3]] == [3.119, 2.943, 3.179]
    assert [round(step["critical"], 3) for step in notes.steps[:3]] == [3.159, 3.151, 3.144]
    kept = reject(np.float32(ROSNER).reshape(-1, 1, 1), recipe)[:, 0, 0]
    assert ROSNER[~kept].tolist() == [5.34, 5.42, 6.01]
    assert np.array_equal(kept, expected)


# ---- package and reference


@pytest.mark.parametrize("kind", STACKS, ids=title)
@pytest.mark.parametrize("recipe", CASES, ids=title)
def test_rule_follows_the_reference(recipe, kind):
    recipe = recipe.replace(range_clip_low=kind is not negative)
    compared = [assert_as_reference(stack, recipe) for stack in stacks_of(kind, 1)]
    if kind in (gaussian, outliers, negative, riddled):
        assert np.mean(compared) > 0.5


@pytest.mark.parametrize("kind", [outliers, integers_with_outliers, riddled], ids=title)
@pytest.mark.parametrize("recipe", CASES, ids=title)
def test_one_side_switched_off(recipe, kind):
    for sides in ({"clip_low": False}, {"clip_high": False}, {"clip_low": False, "clip_high": False}):
        for stack in stacks_of(kind, 2, counts=(2, 3, 5, 8, 13, 30)):
            assert_as_reference(stack, recipe.replace(**sides))


@pytest.mark.parametrize("kind", [outliers, binary_steps, riddled], ids=title)
@pytest.mark.parametrize("recipe", CASES, ids=title)
def test_few_iterations(recipe, kind):
    for iterations in (0, 1, 2, 3):
        for stack in stacks_of(kind, 3, counts=(3, 5, 8, 13, 30)):
            assert_as_reference(stack, recipe, iterations)


@pytest.mark.parametrize("recipe", [case for case in CASES if case.rejection != "min_max"], ids=title)
def test_switched_off_side_keeps_its_end(recipe):
    # Not its whole half: the end that moves may pass the first median.
    for stack in stacks_of(outliers, 4, counts=(3, 9, 20)):
        without_low = reject(stack, recipe.replace(clip_low=False))
        without_high = reject(stack, recipe.replace(clip_high=False))
        assert without_low[stack == stack.min(axis=0)].all()
        assert without_high[stack == stack.max(axis=0)].all()


def test_range_limits_and_missing_samples():
    rng = np.random.default_rng(5)
    stack = np.float32(
        rng.choice([-0.1, 0, 0.05, 0.3, 0.5, 0.9, 0.98, 1, np.nan, np.inf, -np.inf], (20, 5, 30))
    )
    for limits in (
        {},
        {"range_clip_low": False},
        {"range_low": 0.05},
        {"range_clip_high": True},
        {"range_clip_high": True, "range_high": 0.9, "range_low": 0.3},
    ):
        recipe = Recipe(rejection="none", **limits)
        kept = reject(stack, recipe)
        valid = np.isfinite(stack)
        if recipe.range_clip_low:
            valid &= stack > np.float32(recipe.range_low)
        if recipe.range_clip_high:
            valid &= stack < np.float32(recipe.range_high)
        assert np.array_equal(kept, valid)
        assert_as_reference(stack, recipe.replace(rejection="sigma", sigma_low=1.5, sigma_high=1.5))


def test_scale_of_rounding_size_rejects_nothing():
    # Most deviations from the median are 0, the line through them is 0, and what is left is rounding.
    steps = [-1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 4, 5, 9]
    for unit, origin in ((1 / 1024, 0.25), (1 / 65535, 13000 / 65535)):
        stack = np.float32(origin + unit * np.array(steps)).reshape(-1, 1, 1)
        kept = reject(stack, Recipe(rejection="chauvenet"))[:, 0, 0]
        assert kept.tolist() == [True] * 14 + [False] * 3


def test_chauvenet_takes_the_farther_of_two_distant_ends():
    # The expected numbers of both ends are 0 in double arithmetic.
    stack = gaussian(np.random.default_rng(8), 12).astype(np.float32)
    stack[:2] = 0.1, 0.31
    kept = reject(stack.reshape(-1, 1, 1), Recipe(rejection="chauvenet"), 1)[:, 0, 0]
    assert np.flatnonzero(~kept).tolist() == [1]


def test_winsorized_groups_of_equal_samples():
    # A low cutoff moves samples to the mean again and again, in more passes than there are frames.
    recipe = Recipe(rejection="winsorized_sigma", winsorization_cutoff=1.5, sigma_low=2, sigma_high=2)
    for kind in (gaussian, tied, integers_with_outliers, constant):
        for stack in stacks_of(kind, 6, 7, counts=(3, 5, 6, 9, 12, 20)):
            assert_as_reference(stack, recipe)


def test_shape_of_the_stack_is_checked():
    with pytest.raises(ValueError, match="frames, height, width"):
        reject(np.zeros((3, 4), np.float32), Recipe())


# ---- theory: false rejections in % and variance of the mean (times n) on clean Gaussian stacks

# Of winsorized_sigma an independent simulation in NumPy of the rule as defined (start Sn, winsorized mean).
THEORY = {
    5: {"sigma": (0, 1.000), "winsorized_sigma": (4.24, 1.167), "gesd": (0.99, 1.047)},
    10: {"sigma": (0.032, 1.003), "winsorized_sigma": (1.704, 1.100), "gesd": (1.43, 1.098)},
    15: {"sigma": (0.124, 1.012), "winsorized_sigma": (1.169, 1.085), "gesd": (0.78, 1.065)},
    20: {"sigma": (0.166, 1.016), "winsorized_sigma": (0.871, 1.069), "gesd": (0.52, 1.048)},
    50: {"sigma": (0.252, 1.028), "winsorized_sigma": (0.455, 1.042), "gesd": (0.11, 1.014)},
}


@pytest.mark.parametrize("frames", THEORY)
def test_false_rejections_of_clean_stacks(frames):
    pixels = 300_000 if frames < 50 else 100_000
    rng = np.random.default_rng(frames)
    stack = rng.standard_normal((frames, 1, pixels), np.float32)
    plain = stack.mean(axis=0, dtype=np.float64).var()
    for name, (percent, variance) in THEORY[frames].items():
        # The sigma of the figures is the root mean square deviation, that of the rule divides by n - 1.
        limit = 3 * np.sqrt((frames - 1) / frames) if name == "sigma" else 3
        kept = reject(stack, Recipe(rejection=name, sigma_low=limit, sigma_high=limit, range_clip_low=False))
        # The figures are good to 0.03 and 0.01; at 4 % the sampling error of both sides adds to that.
        assert 100 * (1 - kept.mean()) == pytest.approx(percent, abs=0.03 + 0.005 * percent), name
        mean = np.where(kept, stack, 0).sum(axis=0, dtype=np.float64) / kept.sum(axis=0)
        assert mean.var() / plain == pytest.approx(variance, abs=0.01), name


# ---- properties

RECIPES = st.sampled_from(CASES)
STEPS = st.lists(st.one_of(st.integers(0, 30), st.integers(0, 4000)), min_size=1, max_size=24)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def column(steps, unit=2.0**-12, origin=0.25) -> np.ndarray:
    """Samples that float32 holds exactly, None for one that is missing, as a stack of one pixel."""
    values = [np.nan if step is None else origin + unit * step for step in steps]
    return np.float32(values).reshape(-1, 1, 1)


@quick
@given(recipe=RECIPES, steps=STEPS, data=st.data())
def test_order_of_the_frames_does_not_matter(recipe, steps, data):
    order = data.draw(st.permutations(range(len(steps))))
    stack = column(steps)
    assert np.array_equal(reject(stack[order], recipe), reject(stack, recipe)[order])


@quick
@given(recipe=RECIPES, steps=STEPS, power=st.integers(-4, 4))
def test_factor_does_not_matter(recipe, steps, power):
    if recipe.rejection in ("linear_fit", "ccd_noise"):
        return  # they know absolute units
    stack = column(steps)
    assert np.array_equal(reject(stack * np.float32(4.0**power), recipe), reject(stack, recipe))


@quick
@given(recipe=RECIPES, steps=STEPS, shift=st.integers(-3, 8))
def test_constant_does_not_matter(recipe, steps, shift):
    if recipe.rejection in ("percentile", "averaged_sigma", "ccd_noise"):
        return  # they are relative to the level
    recipe = recipe.replace(range_clip_low=False)
    stack = column(steps)
    if reference.reject(stack, recipe)[1].min() > 1e-6:
        assert np.array_equal(reject(stack + np.float32(shift / 4), recipe), reject(stack, recipe))


@quick
@given(recipe=RECIPES, steps=STEPS)
def test_low_and_high_side_mirror_each_other(recipe, steps):
    if recipe.rejection in ("percentile", "averaged_sigma", "ccd_noise") or recipe.gesd_low_relaxation != 1:
        return
    recipe = recipe.replace(range_clip_low=False)
    swapped = {}
    for side in ("sigma_{}", "linear_fit_{}", "min_max_{}"):
        swapped[side.format("low")] = getattr(recipe, side.format("high"))
        swapped[side.format("high")] = getattr(recipe, side.format("low"))
    stack = column(steps)
    if reference.reject(stack, recipe)[1].min() > 1e-6:
        assert np.array_equal(reject(-stack, recipe.replace(**swapped)), reject(stack, recipe))


@quick
@given(
    recipe=RECIPES,
    steps=st.lists(st.one_of(st.none(), st.integers(0, 3), st.integers(0, 4000)), min_size=1, max_size=24),
)
def test_someone_survives_and_nothing_missing_is_kept(recipe, steps):
    stack = column(steps)
    kept = reject(stack, recipe)
    valid = np.isfinite(stack)
    assert not kept[~valid].any()
    assert kept.any() == valid.any()
    if valid.sum() < 3 and recipe.rejection != "min_max":
        assert np.array_equal(kept, valid)
    # Judged by value: the kept samples are all those between the smallest and the largest kept one.
    if valid.any():
        inside = (stack >= stack[kept].min()) & (stack <= stack[kept].max())
        assert np.array_equal(kept, inside)


@quick
@given(recipe=RECIPES, steps=STEPS)
def test_more_iterations_only_take_away(recipe, steps):
    stack = column(steps)
    assert reject(stack, recipe, 0).all()
    masks = [reject(stack, recipe, iterations) for iterations in (0, 1, 2, 3, 5, 100)]
    for more, fewer in pairwise(masks):
        assert not (fewer & ~more).any()
    assert np.array_equal(masks[-1], reject(stack, recipe))


@quick
@given(
    name=st.sampled_from(
        ["percentile", "sigma", "winsorized_sigma", "averaged_sigma", "linear_fit", "ccd_noise"]
    ),
    steps=STEPS,
    wider=st.floats(1, 3),
)
def test_wider_limits_keep_more_in_one_round(name, steps, wider):
    # Only in one round: what a narrow limit takes away also changes the next centre and scale.
    narrow = Recipe(rejection=name, sigma_low=1.5, sigma_high=1.5, linear_fit_low=1.5, linear_fit_high=1.5)
    names = (
        "percentile_low",
        "percentile_high",
        "sigma_low",
        "sigma_high",
        "linear_fit_low",
        "linear_fit_high",
    )
    wide = narrow.replace(**{limit: wider * getattr(narrow, limit) for limit in names})
    stack = column(steps)
    if reference.reject(stack, narrow, 1)[1].min() > 0:
        assert not (reject(stack, narrow, 1) & ~reject(stack, wide, 1)).any()


@quick
@given(steps=STEPS, variant=st.sampled_from(["rosner", "pixinsight"]))
def test_stricter_gesd_keeps_more(steps, variant):
    stack = column(steps)
    loose, strict = (
        reject(stack, Recipe(rejection="gesd", gesd_variant=variant, gesd_significance=alpha))
        for alpha in (0.2, 0.02)
    )
    assert not (loose & ~strict).any()


@pytest.mark.parametrize("recipe", [case for case in CASES if case.rejection != "noise_model"], ids=title)
def test_place_in_the_image_does_not_matter(recipe):
    rng = np.random.default_rng(7)
    stack = integers_with_outliers(rng, (18, 1, 1000)).astype(np.float32)
    stack[:, :, 500:] = riddled(rng, (18, 1, 500))
    kept = reject(stack, recipe)
    for width in (1, 63, 64, 65):
        for start in (0, 1, 437, 935):
            part = slice(start, start + width)
            assert np.array_equal(reject(stack[:, :, part], recipe), kept[:, :, part])
    assert np.array_equal(reject(stack.reshape(18, 40, 25), recipe), kept.reshape(18, 40, 25))
    # A neighbour with a missing sample makes the block take another path.
    stack[3, 0, ::64] = np.nan
    others = np.arange(1000) % 64 != 0
    assert np.array_equal(reject(stack, recipe)[:, 0, others], kept[:, 0, others])


def test_margin_of_the_reference():
    # z of the outlier of ten samples is exactly 3.0 in units of the root mean square about the median.
    stack = [0.25] * 9 + [0.5]
    _, notes = reference.reject_pixel(np.array(stack), Recipe(rejection="sigma", sigma_high=np.sqrt(10)))
    assert notes.margin < 1e-12
    notes = Notes()
    assert notes.exceeds(1.1, 1.0) and not notes.exceeds(0.8, 1.0) and not notes.exceeds(5.0, np.inf)
    assert notes.margin == pytest.approx(0.1)
