"""Frames of real cameras: cosmic rays are removed, hot pixels stay, and all files are readable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sep

import stacklib as sl
from stacklib.errors import StacklibWarning
from stacklib.kernel.verdicts import KEPT, verdicts
from stacklib.normalization.settings import Settings
from stacklib.output.mosaic import pattern_of
from stacklib.recipe.rules import RULES

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
THERE_BEFORE = set(DATA.rglob(".stacklib*"))
FULL = 65535
pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    pytest.mark.filterwarnings("ignore:.*cannot reject anything"),
    # They were aligned by whole pixels.
    pytest.mark.filterwarnings("ignore:.*do not lie on the others"),
]

#: Cosmic rays: x, y inside the track, and the frame.
TRACKS = {"reg_024": (155, 323), "reg_003": (51, 22)}
#: Region with both tracks, so that ten rules do not take longer than two.
REGION = (0, 0, 200, 360)

#: Sigma clipping measures the noise itself. The others need the noise of the sky: 1.1 ADU at 351 ADU.
FITTED = {
    "percentile": {"percentile_low": 0.05, "percentile_high": 0.05},
    "ccd_noise": {"ccd_gain": 300.0, "ccd_read_noise": 30.0},
}


def linked(name, folder):
    """Make a folder with links to a set, so that measurements are not cached next to the originals."""
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not here")
    for path in sorted((DATA / name).glob("*.fit*")):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def hatp32(tmp_path_factory):
    return sl.open_frames(linked("hatp32_reg40", tmp_path_factory.mktemp("hatp32")))


@pytest.fixture(scope="module")
def tracks(hatp32):
    """Return rows and columns of each track, and the values of the other frames there, in ADU."""
    left, top, width, height = REGION
    stack = np.stack([frame.read(slice(top, top + height), 0)[:, left : left + width] for frame in hatp32])
    found = {}
    for name, (x, y) in TRACKS.items():
        i = [frame.path.stem for frame in hatp32].index(name)
        others = np.median(np.delete(stack, i, axis=0), axis=0) * FULL
        excess = stack[i] * FULL - others
        near = np.zeros(excess.shape, bool)
        near[max(y - 6, 0) : y + 7, x - 6 : x + 7] = True
        rows, columns = np.nonzero(near & (excess > 20))
        found[name] = i, rows, columns, others[rows, columns]
    return found


def residual(result, track):
    """Return what remains of a track in the image, in ADU above the other frames."""
    _, rows, columns, others = track
    return result.image[0, rows, columns] * FULL - others


def test_the_tracks_are_there(tracks):
    assert [len(track[1]) for track in tracks.values()] == [7, 6]


@pytest.mark.parametrize("rule", [rule for rule, spec in RULES.items() if spec.rejects])
def test_cosmic_rays_go(hatp32, tracks, rule):
    recipe = sl.Recipe(rejection=rule, **FITTED.get(rule, {}))
    result = sl.integrate(hatp32, recipe, region=REGION, progress=False)
    for track in tracks.values():
        _, rows, columns, _ = track
        assert (result.rejection_high[0, rows, columns] >= np.float32(1 / 40)).all()
        assert np.abs(residual(result, track)).max() < 3
    assert np.isfinite(result.image).all()
    assert 0.0002 < result.rejected_high.mean() < 0.06
    assert result.rejected_low.mean() < 0.03


def test_cosmic_rays_go_by_the_measured_preset(hatp32, tracks):
    result = sl.integrate(hatp32, sl.Recipe.best(hatp32), region=REGION, progress=False)
    left, top, width, height = REGION
    levels = [np.median(f.read(slice(top, top + height), 0)[:, left : left + width]) for f in hatp32]
    # Its background is that of the darkest frames.
    raised = (np.median(result.image[0]) - np.median(levels)) * FULL
    for track in tracks.values():
        _, rows, columns, _ = track
        assert (result.rejection_high[0, rows, columns] >= np.float32(1 / 40)).all()
        assert np.abs(residual(result, track) - raised).max() < 3
    assert 0.0002 < result.rejected_high.mean() < 0.01
    assert result.rejected_low.mean() < 0.01


def test_bright_stars_keep_their_flux(hatp32):
    def flux_by(rule, stars=None):
        image = sl.integrate(hatp32, sl.Recipe(rejection=rule), progress=False).original[0].astype(float)
        if stars is None:
            background = sep.Background(image)
            stars = sep.extract(image - background, 20, err=background.globalrms)
            inside = (stars["x"] > 14) & (stars["x"] < 538) & (stars["y"] > 14) & (stars["y"] < 462)
            stars = stars[inside]
            stars = stars[np.argsort(-stars["flux"])[:30]]
        return sep.sum_circle(image, stars["x"], stars["y"], 6.0, bkgann=(8, 12))[0], stars

    whole, stars = flux_by("none")
    assert stars.size == 30
    lost = {rule: 1 - flux_by(rule, stars)[0] / whole for rule in ("noise_model", "winsorized_sigma")}
    # The frames were aligned by whole pixels, and the seeing changes.
    assert abs(np.median(lost["noise_model"])) < 0.002
    assert np.abs(lost["noise_model"]).max() < 0.01
    assert np.median(lost["winsorized_sigma"]) > 0.02


def test_without_rejection_they_stay(hatp32, tracks):
    first = hatp32[0].name
    recipe = sl.Recipe(rejection="none", weights="none", normalization="additive", reference=first)
    result = sl.integrate(hatp32, recipe, region=REGION, progress=False)
    assert result.rejection_high.max() == 0
    for i, rows, columns, _ in tracks.values():
        rest = [j for j in range(40) if j != i]
        without = sl.integrate(hatp32[rest], recipe, region=REGION, progress=False)
        left_over = result.image[0, rows, columns] - without.image[0, rows, columns]
        assert (left_over * FULL > 0.7 * 20 / 40).all()


def test_the_main_job(hatp32):
    recipe = sl.Recipe.suggest(hatp32)
    assert recipe.rejection == "winsorized_sigma"
    with pytest.warns(StacklibWarning, match="do not lie on the others"):
        result = sl.integrate(hatp32, recipe, progress=False)
    assert result.image.shape == (1, 476, 552)
    assert result.coverage.min() == 1
    assert (result.range_factor, result.truncated) == (1, 0)
    # Steps of 1 ADU and faint stars exceed the noise of the result, 0.2 ADU.
    assert 0.8 < result.noise_ratio[0] / result.expected_noise_ratio < 1.6
    assert 0.005 < result.rejected_high.mean() < 0.05
    assert result.rejected_low.mean() < 0.01
    table = result.frames
    assert table["used"].all()
    np.testing.assert_allclose(table["location"] * table["factor"] + table["offset"],
                               table["location"][table["reference"]][0], rtol=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    "rule", ["sigma", "winsorized_sigma", "averaged_sigma", "linear_fit", "gesd", "chauvenet"]
)
def test_tied_samples_are_not_eaten(hatp32, rule):
    # The MAD is 0 in 3.3 % of the pixels, which must not reject samples one step away.
    stack = np.stack([np.rint(frame.read(channel=0) * FULL) for frame in hatp32])
    stack -= np.median(stack, axis=(1, 2), keepdims=True) - 351
    deviation = np.abs(stack - np.median(stack, axis=0))
    tied = np.median(deviation, axis=0) == 0
    assert tied.mean() == pytest.approx(0.033, abs=0.001)
    raw = np.ascontiguousarray(stack[:, tied] / np.float32(FULL), np.float32)
    chosen = Settings.plain(sl.Recipe(rejection=rule), 40)
    kept = verdicts(raw, replace(chosen, floor=0.505 / FULL)) == KEPT
    assert kept[deviation[:, tied] == 1].mean() > 0.99
    # Several outliers at one pixel can mask each other.
    assert kept[deviation[:, tied] > 30].mean() < 0.2


# Darks --------------------------------------------------------------------------------------------------

DARK = {"normalization": "none", "rejection_normalization": "none", "weights": "none"}


@pytest.fixture(scope="module")
def darks(tmp_path_factory):
    folder = linked("calib_qsi583_dark10", tmp_path_factory.mktemp("darks"))
    with pytest.warns(StacklibWarning, match="no light frames"):
        return sl.open_frames(folder)


@pytest.fixture(scope="module")
def dark_stack(darks):
    return np.stack([frame.read(channel=0) for frame in darks]) * np.float32(FULL)


def test_hot_pixels_survive_and_cosmics_go(darks, dark_stack):
    recipe = sl.Recipe.suggest(darks).replace(**DARK)
    assert recipe.rejection == "sigma"
    result = sl.integrate(darks, recipe, progress=False)
    assert (result.range_factor, result.truncated) == (1, 0)
    image, median = result.image[0] * FULL, np.median(dark_stack, axis=0)
    level = np.median(median)
    hot = median > level + 1000
    assert hot.sum() == 101
    ratio = (image - level)[hot] / (median - level)[hot]
    assert ratio.min() > 0.9
    assert ratio.max() < 1.1
    assert np.argmax(np.median(image, axis=0)) == 406
    column = image[:, 406].mean() - median[:, 406].mean()
    assert abs(column) < 10
    # Seen in one frame only, far above all others and far above the noise.
    ordered = np.sort(dark_stack, axis=0)
    noise = np.median(np.abs(dark_stack - median)) * 1.4826
    events = (ordered[-1] - ordered[-2] > 10 * noise) & (ordered[-2] - median < 4 * noise)
    assert events.sum() >= 20
    caught = result.rejection_high[0][events] >= np.float32(0.1)
    # One outlier among ten deviates by at most 3.16 sigma, so a noisy pixel hides it.
    assert caught.mean() > 0.95
    assert np.abs(image - median)[events][caught].max() < 3 * noise


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_on_darks(darks, dark_stack, rule):
    region = (300, 200, 300, 250)
    crop = dark_stack[:, 200:450, 300:600]
    result = sl.integrate(darks, sl.Recipe(rejection=rule, **DARK), region=region, progress=False)
    image = result.image[0] * FULL
    assert (image >= crop.min(axis=0) - 0.01).all()
    assert (image <= crop.max(axis=0) + 0.01).all()
    assert np.argmax(np.median(image, axis=0)) == 106
    if rule == "none":
        np.testing.assert_allclose(image, crop.mean(axis=0), rtol=1e-5)


@pytest.fixture
def said(recwarn):
    """Return what a run warned of."""
    return lambda: " ".join(str(warning.message) for warning in recwarn)


@pytest.mark.filterwarnings("default::stacklib.errors.StacklibWarning")
def test_the_preset_for_darks(darks, dark_stack, said):
    recipe = sl.Recipe.best(darks)
    assert recipe == sl.Recipe.from_dict({"preset": "dark"})
    result = sl.integrate(darks, recipe, progress=False)
    assert said() == ""
    median, ordered = np.median(dark_stack, axis=0), np.sort(dark_stack, axis=0)
    level = np.median(median)
    hot = median > level + 1000
    ratio = (result.image[0] * FULL - level)[hot] / (median - level)[hot]
    assert hot.sum() == 101 and ratio.min() > 0.9 and ratio.max() < 1.1
    own = 1.4826 * np.median(np.abs(dark_stack - median), axis=0)
    noise = np.maximum(own, np.median(own))
    struck = (ordered[-1] > median + 8 * noise) & (ordered[-2] < median + 4 * noise) & ~hot
    assert struck.sum() > 50
    assert (result.rejection_high[0][struck] > 0).all()
    # Asked for are .069 % and .187 %.
    assert result.rejected_low.mean() == pytest.approx(0.00069, rel=0.2)
    assert result.rejected_high.mean() == pytest.approx(0.00187, rel=0.2)
    text = " ".join(result.report().split())
    assert "Registered" not in text and "expected, these frames" not in text
    assert "What dark frames have in common" in text and "noise: not measured" in text


@pytest.mark.filterwarnings("default::stacklib.errors.StacklibWarning")
def test_darks_that_are_matched_like_lights_are_named(darks, said):
    sl.integrate(darks, sl.Recipe.suggest(darks), region=(0, 0, 300, 300), progress=False)
    assert "these are dark frames, treated like light frames; with preset dark they are not" in said()


@pytest.mark.filterwarnings("default::stacklib.errors.StacklibWarning")
def test_the_preset_for_bias_frames(tmp_path, said):
    frames = sl.open_frames(linked("calib_asi120mc/bias", tmp_path))
    result = sl.integrate(frames, sl.Recipe.from_dict({"preset": "bias"}), progress=False)
    assert "treated like" not in said() and "lie on" not in said()
    stack = np.stack([frame.read(channel=0) for frame in frames])
    assert np.median(np.abs(result.image[0] - stack.mean(axis=0))) < 0.1 * np.median(stack.std(axis=0))
    assert result.rejected_high.mean() < 0.01
    text = " ".join(result.report().split())
    assert "Registered" not in text and "have in common" in text


# Others -------------------------------------------------------------------------------------------------


def test_a_mosaic_of_colours_runs_as_mono(tmp_path):
    with pytest.warns(StacklibWarning, match="they were not debayered"):
        frames = sl.open_frames(linked("m94_seestar_cfa_reg32", tmp_path))
    assert (len(frames), frames.channels, frames[0].cfa_pattern) == (32, 1, "GRBG")
    result = sl.integrate(frames, sl.Recipe.suggest(frames), progress=False)
    assert result.rule == "winsorized_sigma"
    image = result.image[0]
    assert image.shape == (512, 512)
    # The mosaic is preserved: each color has its own level, as in the reference.
    cells = [(slice(row, None, 2), slice(column, None, 2)) for row in (0, 1) for column in (0, 1)]
    reference = frames[result.preparation.reference].read(channel=0)
    levels = [[np.median(plane[cell]) for cell in cells] for plane in (image, reference)]
    np.testing.assert_allclose(levels[0] / np.mean(levels[0]), levels[1] / np.mean(levels[1]), rtol=0.01)
    assert 0.001 < result.rejected_high.mean() < 0.02
    assert pattern_of(result) == "GRBG"


@pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
def test_the_noise_of_every_color_of_a_real_mosaic(tmp_path):
    frames = sl.open_frames(linked("m94_seestar_cfa_reg32", tmp_path))
    result = sl.integrate(frames, sl.Recipe.from_dict({"preset": "measured"}), progress=False)
    p = result.preparation
    stack = np.stack([p.read_rows(int(i), 0, 512, 0) for i in p.used])
    stack = stack * p.factor[p.used, 0, None, None] + p.offset[p.used, 0, None, None]
    deviation = 1.4826 * np.median(np.abs(stack - np.median(stack, axis=0)), axis=0) / np.sqrt(p.count)
    for row, column in np.ndindex(2, 2):
        here = np.s_[row::2, column::2]
        # The median deviation of 32 samples is 1 to 2 % too small.
        assert np.median(result.uncertainty[0][here] / deviation[here]) == pytest.approx(1.02, abs=0.04)
    # Asked for are .069 % and .187 %; bright ones are hot pixels and satellites as well.
    assert 0.0001 < result.rejected_low.mean() < 0.001
    assert 0.001 < result.rejected_high.mean() < 0.006


def test_decimal_commas_of_a_capture_program_are_read(tmp_path):
    frames = sl.open_frames(linked("calib_asi120mc/bias", tmp_path))
    assert frames[0].exposure == 6.4e-05
    result = sl.integrate(frames, sl.Recipe(**DARK), region=(100, 100, 400, 300), progress=False)
    stack = np.stack([frame.read(slice(100, 400), 0)[:, 100:500] for frame in frames])
    np.testing.assert_allclose(result.image[0], stack.mean(axis=0), rtol=0.02)
    assert result.rejected_high.mean() < 0.005


def test_a_truncated_file_is_named():
    path = DATA / "calib_asi120mc" / "broken" / "ASI178_Flat_truncated_2MiB.fit.gz"
    if not path.exists():
        pytest.skip("calib_asi120mc is not here")
    with pytest.raises(sl.FrameError, match=r"ASI178_Flat_truncated_2MiB\.fit\.gz"):
        sl.open_frames(path)[0].read()


def test_the_data_stay_clean():
    if not DATA.is_dir():
        pytest.skip("the data are not here")
    assert set(DATA.rglob(".stacklib*")) <= THERE_BEFORE


def test_alignment_by_whole_pixels_is_said(hatp32):
    with pytest.warns(StacklibWarning, match=r"of 40 frames .*: reg_\d+\.fits \(0\.\d px\)"):
        result = sl.integrate(hatp32, sl.Recipe(weights="none"), progress=False)
    assert "aligning by whole pixels" in " ".join(result.report().split())
    distance = np.hypot(result.frames["shift_x"], result.frames["shift_y"])
    assert 0.5 < distance.max() < 0.9
