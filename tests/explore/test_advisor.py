"""The advisor against exhaustive search with the truth, and what it puts into frames and finds there."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLES

import stacklib as sl
from stacklib.errors import IntegrationError, RecipeError
from stacklib.explore.advisor import advise, memory_for
from stacklib.explore.outliers import inject, own_outliers
from stacklib.explore.sweep import settings_of
from stacklib.explore.trials import Trials
from stacklib.integration.samples import RESULT_BYTES
from stacklib.recipe.rules import RULES
from stacklib.simulate import simulate_frames

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
SIZE = {"height": 150, "width": 180}


def exhaustive(night, frames, advice):
    """Root mean square error against the truth for every setting, in two ways.

    In units of the standard error that the noise of the simulation gives a perfect average, over all pixels;
    and of faint pixels against the scene itself, level aside.
    """
    trials = Trials(frames)
    trials.read(advice.region)
    preparations = [trials.prepare(advice.start.replace(**s)) for s in settings_of(advice.grid)]
    p = preparations[0]
    weight = p.weights[p.used, 0][:, None, None]
    factor, offset = (each[p.used, 0][:, None, None] for each in (p.factor, p.offset))
    expected = np.stack([night.expected(i)[0] for i in p.used]) * factor + offset
    truth = (weight * expected).sum(axis=0) / weight.sum()
    sigma = np.stack([night.sigma(i)[0] for i in p.used]) * factor
    error = np.sqrt((weight**2 * (sigma**2 + (expected - truth) ** 2)).sum(axis=0)) / weight.sum()
    inside = ~night.nodata.any(axis=(0, 1))
    scene = night.truth[0].astype(float)
    faint = inside & (scene < np.median(scene) + 2 * np.median(night.sigma(night.reference)))

    def look(trial):
        image = trial.original[0].astype(float)
        against_scene = (image - scene)[faint]
        return (
            np.sqrt(np.mean(((image - truth)[inside] / error[inside]) ** 2)),
            np.sqrt(np.mean((against_scene - np.median(against_scene)) ** 2)),
        )

    return np.array(trials.each(preparations, look))


@pytest.mark.parametrize(
    ("kind", "count", "trails"),
    [
        *(("galaxy", count, trails) for count in (12, 20, 40) for trails in (0, count // 6)),
        # Nothing but stars under changing seeing: they must not pass for outliers.
        ("globular", 12, 2),
        ("globular", 20, 0),
    ],
)
def test_proposal_is_within_5_percent_of_the_best(tmp_path, kind, count, trails):
    night = simulate_frames(count, channels=1, kind=kind, trails=trails, cosmic_rays=6, seed=3, **SIZE)
    night.save(tmp_path, dtype="f32")
    frames = sl.open_frames(tmp_path)
    advice = advise(frames, progress=False)
    risk = exhaustive(night, frames, advice)
    assert (risk[advice.row] <= 1.05 * risk.min(axis=0)).all()
    # The best is no matter of course: other settings of the grid are far from it.
    assert (risk.max(axis=0) > 1.1 * risk.min(axis=0)).all()


def test_advice_holds_together():
    frames = sl.open_frames(SAMPLES / "M13" / "4_Registered")
    advice = advise(frames, sl.Recipe(weights="none"), progress=False)
    table = advice.table
    assert advice.start.rejection == advice.recipe.rejection == "sigma" and advice.recipe.weights == "none"
    # Of the limits beyond sqrt(12) sigma, which reject nothing, one is enough.
    assert advice.grid == {
        "sigma_low": RULES["sigma"].grid["sigma_low"][:4],
        "sigma_high": (2, 2.3, 2.6, 2.9, 3.2, 3.6),
    }
    assert len(table) == 4 * 6
    assert all(getattr(advice.recipe, name) == table[name][advice.row] for name in advice.grid)
    np.testing.assert_allclose(table["risk"] ** 2, table["noise"] ** 2 + table["left"] ** 2)
    assert table["risk"][advice.row] <= 1.01 * table["risk"].min()
    assert f"sigma_high {advice.recipe.sigma_high:g}" in advice.reason and advice.reason.endswith(".")
    # A limit that rejects nothing is proposed as what it is.
    assert advice.recipe.clip_low == (advice.recipe.sigma_low < 12**0.5)
    assert advice.recipe.clip_low != ("no rejection low" in advice.reason) and advice.recipe.clip_high
    # More than sqrt(12) sigma: nothing is rejected, and all is left.
    useless = (table["sigma_high"] > 3.5) & (table["sigma_low"] > 3.5)
    assert (table["left of bright trails"][useless] > 95).all()
    assert (table["left of bright trails"][table["sigma_high"] < 2.5] < 30).all()
    text = io.BytesIO()
    advice.figure().savefig(text)
    assert advice.neighbours["footprints"].tolist() == ["off", "trails", "all"]
    again = advise(frames, sl.Recipe(weights="none"), progress=False, threads=1)
    assert again.recipe == advice.recipe and again.reason == advice.reason


def test_how_far_it_is_can_be_followed():
    frames, told = sl.open_frames(SAMPLES / "M13" / "4_Registered"), []
    region, grid = (60, 50, 160, 160), {"sigma_high": (2.0, 2.5, 3.0)}
    advice = advise(frames, region=region, grid=grid, progress=False, report=told.append)
    assert advice.recipe == advise(frames, region=region, grid=grid, progress=False).recipe
    assert len(told) > 4 and told == sorted(told) and 0 < told[0] < 0.3 and told[-1] == 1


def test_reason_is_true_of_the_table():
    """Every clause about the next values of a limit can be read off the table."""
    advice = advise(SAMPLES / "M101" / "4_Registered", progress=False)
    table, chosen = advice.table, advice.table[advice.row]
    clauses = re.findall(r"; (sigma_\w+) ([^;]+)", advice.reason)
    assert {name for name, _ in clauses} == {"sigma_low", "sigma_high"}
    for name, said in clauses:
        fixed = next(other for other in advice.grid if other != name)
        for value, words in re.findall(r"([\d.]+) ([a-z ]+)", said):
            other = table[(table[name] == float(value)) & (table[fixed] == chosen[fixed])][0]
            assert ("adds noise" in words) == (other["noise_penalty"] > chosen["noise_penalty"] + 0.05)
            if "leaves more" in words:
                assert any(other[n] > chosen[n] for n in ("left of trails", "left of cosmic rays"))
            if "stars" in words:
                assert other["risk_bright"] > chosen["risk_bright"]


def test_looking_at_neighbors_is_tried(trailed_folder):
    grid = {"sigma_high": (2.6, 2.9)}
    advice = advise(trailed_folder, sl.Recipe(rejection="winsorized_sigma"), grid=grid, progress=False)
    off, trails, both = advice.neighbours
    name = "left of a trail of 2 sigma"
    assert off[name] > 60 and abs(trails[name]) < 5 and abs(both[name]) < 5
    assert both["left of faint trails"] < off["left of faint trails"] - 20
    assert abs(trails["noise_penalty"] - off["noise_penalty"]) < 1
    assert f"instead of {off[name]:.0f} % of the light of a trail of 2 sigma" in advice.reason
    # Limits are those of the rule alone, and the proposal keeps the settings given.
    assert advice.recipe.footprints == "off"
    recipe = sl.Recipe(rejection="winsorized_sigma", footprints="all")
    other = advise(trailed_folder, recipe, grid=grid, progress=False)
    assert other.recipe.footprints == "all"
    for column in other.table.colnames:
        np.testing.assert_array_equal(other.table[column], advice.table[column])


def test_a_small_budget_looks_at_a_smaller_part():
    frames = sl.open_frames(SAMPLES / "M101" / "4_Registered")
    assert memory_for(20, 3, 300, 224) == 300 * 224 * 3 * (3 * 4 * 20 + RESULT_BYTES)
    advice = advise(frames, memory="21MB", grid={"sigma_high": (2.5, 3.0)}, progress=False)
    left, _, width, height = advice.region
    assert width == height and 128 <= width < 224 and abs(2 * left + width - 300) <= 1


def test_split_half_needs_no_truth():
    """Where outliers are, odd and even frames differ less with rejection; limits that eat samples cost."""
    frames = sl.open_frames(SAMPLES / "M101" / "4_Registered")
    grid = {"sigma_high": (2.0, 3.0, 20.0), "sigma_low": (20.0,)}
    half = advise(frames, grid=grid, progress=False).column("split_half")[:, 0]
    assert half[1] < half[0] and half[1] < 0.97 * half[2]


@pytest.mark.parametrize(
    "rule", [rule for rule, spec in RULES.items() if spec.rejects and "sigma" not in rule]
)
def test_every_rule_has_limits_to_propose(rule):
    changes = {"ccd_gain": 0.5, "ccd_read_noise": 4.0} if rule == "ccd_noise" else {}
    recipe = sl.Recipe(rejection=rule, **changes)
    advice = advise(SAMPLES / "M13" / "4_Registered", recipe, region=(60, 50, 96, 80), progress=False)
    assert advice.recipe.rejection == rule
    advice.figure().savefig(io.BytesIO())


def test_without_a_rule_the_usual_one_is_taken():
    advice = advise(
        SAMPLES / "M13" / "4_Registered",
        sl.Recipe(rejection="none"),
        region=(60, 50, 96, 80),
        grid={"sigma_high": (2.5, 3.0)},
        progress=False,
    )
    assert advice.recipe.rejection == "sigma" and advice.recipe.sigma_high == 2.5


def test_sides_that_are_off_are_tried_too():
    frames, region = sl.open_frames(SAMPLES / "M13" / "4_Registered"), (60, 50, 96, 80)
    off = advise(frames, sl.Recipe(clip_low=False, clip_high=False), region, progress=False)
    assert off.recipe == advise(frames, sl.Recipe(), region, progress=False).recipe


def test_what_cannot_be_advised_on():
    frames = sl.open_frames(SAMPLES / "M13" / "4_Registered")
    with pytest.raises(IntegrationError, match="3 frames are too few"):
        advise(frames[:3], progress=False)
    with pytest.raises(IntegrationError, match=r'sigma rejects nothing among 4 .*rejection="percentile"'):
        advise(frames[:4], sl.Recipe(rejection="sigma"), progress=False)
    with pytest.raises(RecipeError, match="memory: 2MB is too little"):
        advise(frames, memory="2MB", progress=False)
    with pytest.raises(RecipeError, match="memory: 8MB is too little"):
        advise(frames, region=(0, 0, 320, 256), memory="8MB", progress=False)
    with pytest.raises(RecipeError, match="did you mean sigma_high"):
        advise(frames, grid={"sigma_hihg": [3]}, progress=False)


def test_what_is_put_in_has_the_brightness_it_should():
    samples = np.full((1, 8, 120, 140), 0.1, np.float32)
    samples[0, 3] = 0
    noise = np.full((8, 1), 0.001)
    put = inject(samples, noise, 0.0, seed=2)
    light = (put.samples - samples)[0] / 0.001
    assert not light[3].any() and not (samples[0, 0] - 0.1).any()
    assert set(put.hit) == {"faint trails", "trails", "bright trails", "cosmic rays", "dark pixels"}
    for kind, peak in (("faint trails", 4), ("trails", 12), ("bright trails", 40)):
        if put.hit[kind].any():
            assert light[:, put.hit[kind][0]].max() >= 0.8 * peak
    assert light.min() < -2 and not light[:, ~np.any(list(put.hit.values()), axis=0)[0]].max() > 1
    np.testing.assert_array_equal(inject(samples, noise, 0.0, seed=2).samples, put.samples)


def test_own_outliers_are_found_and_stars_are_not():
    rng = np.random.default_rng(4)
    values = 0.1 + 0.001 * rng.standard_normal((20, 90, 100))
    y, x = np.mgrid[:90, :100]
    for frame, fwhm in zip(values, rng.uniform(2.2, 3.5, 20), strict=True):
        # A star under changing seeing.
        frame += 0.3 * (2.5 / fwhm) ** 2 * np.exp(-((x - 70) ** 2 + (y - 60) ** 2) / (2 * (fwhm / 2.35) ** 2))
    values[5, 20, :] += 0.003
    values[5, 19:22, :] += 0.001
    values[7, 40, 30] += 0.02
    middle = np.median(values, axis=0)
    spread = np.median(np.abs(values - middle), axis=0)
    found = own_outliers(*(each.astype(np.float32) for each in (values, middle, spread)))
    assert found[5, 20].mean() > 0.8 and found[7, 40, 30]
    assert not found[:, 57:64, 67:74].any()
    assert found.sum() < 1.2 * (found[5].sum() + found[7].sum())


def test_frames_of_a_real_camera(tmp_path):
    if not (DATA / "hatp32_reg40").is_dir():
        pytest.skip("hatp32_reg40 is not here")
    for path in sorted((DATA / "hatp32_reg40").glob("*.fits")):
        (tmp_path / path.name).symlink_to(path)
    advice = advise(tmp_path, region=(20, 20, 256, 256), progress=False)
    chosen = advice.table[advice.row]
    assert chosen["left of bright trails"] < 20 and abs(chosen["noise_penalty"]) < 10
    assert chosen["split_half"] < 1.1 * advice.table["split_half"].min()
    assert "odd and even frames, integrated separately, differ" in advice.reason
