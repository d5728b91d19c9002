"""Sweeps: each setting gives the result of `integrate`, whatever work it shares with others."""

import io
import warnings

import numpy as np
import pytest
from conftest import SAMPLES

import stacklib as sl
from stacklib.errors import RecipeError, StacklibWarning
from stacklib.explore import trials as trials_module
from stacklib.explore.sweep import sweep
from stacklib.explore.trials import Trials
from stacklib.kernel.limit_trials import LimitTrials
from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.normalization.settings import Settings

REGION = (60, 50, 96, 80)
#: A grid for each code path: only limits, several rules, weights, normalization, median and maximum.
GRIDS = {
    "limits": ({"sigma_low": (2.0, 3.2), "sigma_high": (2.0, 2.6, 3.5)}, {}),
    "limits, sigma": ({"sigma_low": (1.8, 4.0), "sigma_high": (2.2, 2.9)}, {"rejection": "sigma"}),
    "one side": ({"clip_low": (False, True), "sigma_high": (2.5, 3.0)}, {}),
    "camera": ({"sigma_low": (2.5, 4.0), "sigma_high": (2.5, 4.0)}, {"rejection": "ccd_noise"}),
    "rules": ({"rejection": ("none", "min_max", "percentile", "linear_fit", "gesd", "averaged_sigma")}, {}),
    "weights": ({"weights": ("none", "noise"), "sigma_high": (2.3, 3.0)}, {"min_weight": 0.3}),
    "normalisation": (
        {"rejection_normalization": ("none", "scale_zero_offset"), "normalization": ("none",)},
        {},
    ),
    "order": ({"combination": ("median", "maximum"), "sigma_high": (2.5, 3.0, 3.5, 4.0)}, {}),
    "saturated": ({"sigma_high": (2.5, 3.0, 3.5, 4.0)}, {"range_clip_high": True, "range_high": 0.06}),
}


@pytest.mark.parametrize("target", ["M13", "M101"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_setting_is_that_of_integrate(target, name):
    grid, changes = GRIDS[name]
    frames = sl.open_frames(SAMPLES / target / "4_Registered")
    # Hits in color are looked for once for all limits, see below.
    recipe = sl.Recipe.suggest(frames).replace(**changes, joint_colour=False)
    trials = Trials(frames)
    trials.read(REGION)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        found = sweep(frames, grid, recipe, REGION, progress=False)
        preparations = [trials.prepare(found.recipe_at(row)) for row in range(len(found.table))]
        tried = trials.each(preparations, lambda trial: trial)
        for row, trial in enumerate(tried):
            whole = sl.integrate(frames, found.recipe_at(row), region=REGION, progress=False)
            assert trial.position == row and trial.preparation.recipe == whole.recipe
            np.testing.assert_array_equal(trial.image, whole.image)
            low, high, data = (
                sum(getattr(c, n).sum() for c in whole.counts) for n in ("low", "high", "data")
            )
            assert found.table["rejected_low"][row] == pytest.approx(100 * low / data, rel=1e-12)
            assert found.table["rejected_high"][row] == pytest.approx(100 * high / data, rel=1e-12)
            assert found.table["noise"][row] == pytest.approx(whole.noise.mean(), rel=1e-12)


@pytest.mark.parametrize("changes", [{"footprints": "trails"}, {"joint_colour": True}])
def test_frames_are_searched_once_for_all_limits(changes, trailed_folder, monkeypatch):
    searched, find = [], trials_module.search_frames

    def counted(samples, preparation, **options):
        searched.append(options["whole"])
        return find(samples, preparation, **options)

    monkeypatch.setattr(trials_module, "search_frames", counted)
    colour = "joint_colour" in changes
    frames = sl.open_frames(SAMPLES / "M101" / "4_Registered" if colour else trailed_folder)
    region = (40, 30, 90, 60)
    recipe = sl.Recipe.suggest(frames).replace(**changes)
    trials = Trials(frames)
    trials.read(region)
    limits = [recipe.replace(sigma_high=value) for value in (2.5, 2.9, 3.3, 3.6, 4.0)]
    tried = trials.each([trials.prepare(each) for each in limits], lambda trial: trial)
    assert searched == [not colour] and trials.searched_with(limits[3]) == limits[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        first = sl.integrate(frames, limits[0], region=region, progress=False)
        others = [sl.integrate(frames, each, region=region, progress=False) for each in limits[2:]]
    assert sum(counts.total.sum() for counts in first.mask_counts) > 50
    np.testing.assert_array_equal(tried[0].image, first.image)
    for name in ("low", "high", "data"):
        np.testing.assert_array_equal(getattr(tried[0], name), [getattr(c, name).sum() for c in first.counts])
    for trial, whole in zip(tried[2:], others, strict=True):
        # With masks found at other limits hardly anything differs.
        assert np.mean(trial.image != whole.image) < 0.03
        np.testing.assert_array_equal(trial.data, [c.data.sum() for c in whole.counts])
    # Without searching again, one of them is integrated with the same masks; then with its own.
    np.testing.assert_array_equal(trials.integrate(limits[2], search=False).image, tried[2].image)
    np.testing.assert_array_equal(trials.integrate(limits[2]).image, others[0].image)
    assert len(searched) == 2
    # Trails of whole frames are known in other regions.
    trials.read((10, 20, 40, 30))
    trials.integrate(limits[2])
    assert len(searched) == (3 if colour else 2)


@pytest.mark.parametrize("rule", ["sigma", "winsorized_sigma"])
@pytest.mark.parametrize("kind", ["smooth", "coarse", "with gaps"])
def test_shared_work_gives_the_same_bits(rule, kind):
    """Quantized samples have many ties and scales of 0; with gaps, counts differ between pixels."""
    rng = np.random.default_rng(3)
    raw = (0.1 + 0.002 * rng.standard_normal((23, 2900))).astype(np.float32)
    raw[rng.random(raw.shape) < 0.03] += 0.02
    if kind == "coarse":
        raw = np.rint(raw * 400).astype(np.float32) / 400
    if kind == "with gaps":
        raw[rng.random(raw.shape) < 0.1] = np.nan
        raw[:, 7] = np.nan
        raw[2:, 8] = np.nan
    limits = (1.6, 2.2, 2.9, 4.0, 9.0)
    settings = [
        Settings.plain(sl.Recipe(rejection=rule, sigma_low=a, sigma_high=b), 23)
        for a in limits
        for b in limits
    ]
    images, covered = np.empty((len(settings), 2900), np.float32), np.empty(2900, bool)
    low, high, data = LimitTrials(settings).run(raw, 0, 2900, images, covered)
    for k, each in enumerate(settings):
        pixels = Pixels.empty(2900, each)
        counts = run_tiles(raw, each, pixels)
        np.testing.assert_array_equal(images[k], pixels.image)
        assert (low[k], high[k]) == (counts.low.sum(), counts.high.sum())
        assert data[k] == np.isfinite(raw).sum() == counts.data.sum()
    np.testing.assert_array_equal(covered, np.isfinite(raw).any(axis=0))


def test_where_intervals_run_out_the_rule_runs_for_each_setting(monkeypatch):
    monkeypatch.setattr("stacklib.kernel.limit_trials.MOST", 2)
    test_shared_work_gives_the_same_bits("sigma", "smooth")


def test_threads_and_memory_do_not_matter():
    folder = SAMPLES / "M13" / "4_Registered"
    grid = {"sigma_low": (2.5, 3.5), "sigma_high": (2.2, 2.9, 3.3)}
    many = sweep(folder, grid, threads=2, progress=False)
    with pytest.warns(StacklibWarning, match="memory"):
        few = sweep(folder, grid, memory="2MB", threads=1, progress=False)
    assert str(many.table) == str(few.table)
    np.testing.assert_array_equal(many.thumbnails, few.thumbnails)


def test_a_median_is_compared_with_the_average():
    recipe = sl.Recipe(combination="median", rejection="none")
    found = sweep(SAMPLES / "M101" / "4_Registered", {"clip_low": (True,)}, recipe, progress=False)
    assert 0 <= found.table["residual"][0] < 20


@pytest.fixture(scope="module")
def found():
    grid = {"sigma_low": (2.5, 3.2), "sigma_high": (2.2, 2.9, 3.3, 4.0)}
    # That 12 frames cannot reach a limit of 4 applies to two settings only.
    return sweep(SAMPLES / "M13" / "4_Registered", grid, sl.Recipe(weights="snr"), progress=False)


def test_lower_limits_reject_and_cost_more_and_leave_less(found):
    assert found.shape == (2, 4) and found.table.colnames[:2] == ["sigma_low", "sigma_high"]
    assert (np.diff(found.column("rejected_high"), axis=1) < 0).all()
    assert (found.column("noise_penalty")[:, 0] > found.column("noise_penalty")[:, 1]).all()
    # With twelve samples, nothing is beyond sqrt(12) sigma: all of the trail is left.
    np.testing.assert_allclose(found.column("residual")[:, -1], 100, atol=1)
    assert (found.column("residual")[:, 0] < 5).all()


def test_thumbnails_show_where_the_outliers_are(found):
    assert found.thumbnails.shape == (8, 1, 96, 96)
    left, top = found.corner
    folder, region = SAMPLES / "M13" / "4_Registered", (left, top, 96, 96)
    whole = sl.integrate(folder, found.recipe_at(5), region=region, progress=False)
    np.testing.assert_array_equal(found.thumbnails[5], whole.image)


@pytest.mark.filterwarnings("ignore:Registration hides noise")
@pytest.mark.parametrize("names", [("sigma_high",), ("rejection",), ("weights", "sigma_low", "sigma_high")])
def test_figures(names):
    values = {
        "sigma_low": (2.5, 3.0),
        "sigma_high": (2.5, 3.0, 3.3),
        "rejection": ("none", "gesd"),
        "weights": ("none", "noise"),
    }
    found = sweep(
        SAMPLES / "M13" / "4_Registered",
        {n: values[n] for n in names},
        region=(40, 40, 64, 48),
        progress=False,
    )
    for figure in (found.figure(), found.figure_thumbnails()):
        figure.savefig(io.BytesIO())
    text = str([axes.get_ylabel() for axes in found.figure().axes])
    assert "noise penalty (%)" in text and "residual outlier signal (%)" in text


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, "0 settings"),
        ({"sigma_hihg": [3]}, "did you mean sigma_high"),
        ({"sigma_high": 3}, "a list of values"),
        ({"rejection": "sigma"}, "a list of values"),
        ({"sigma_high": []}, "a list of values"),
        ({"sigma_high": [3, "three"]}, "sigma_high: got 'three'"),
        ({"sigma_high": np.linspace(1, 9, 200), "sigma_low": np.linspace(1, 9, 200)}, "40000 settings"),
    ],
)
def test_grids_that_cannot_be_used(grid, words):
    with pytest.raises(RecipeError, match=words):
        sweep(SAMPLES / "M13" / "4_Registered", grid, progress=False)
