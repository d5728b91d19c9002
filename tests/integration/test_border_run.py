"""Integrations of frames with faint skies, partial coverage, broken frames and odd limits."""

import pickle
import warnings

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.errors import IntegrationError
from stacklib.explore.masks import frame_verdicts
from stacklib.explore.trials import Trials
from stacklib.integration.cluster import _integrate_band
from stacklib.integration.run import integrate_samples
from stacklib.integration.samples import Samples
from stacklib.kernel.verdicts import NO_DATA
from stacklib.normalization.preparation import prepare

HEIGHT, WIDTH, COUNT = 48, 64, 10
PLAIN = dict(normalization="none", rejection_normalization="none", weights="none", rejection="none")
SHIFTS = [(0, 0), (3, 2), (0, 5), (-4, 0), (2, -6), (0, -1), (1, 1), (-2, -2), (5, 0), (-1, 4)]


def border(i):
    """Where frame `i` has no data after a shift by whole pixels."""
    y, x = SHIFTS[i]
    rows, columns = np.arange(HEIGHT) - y, np.arange(WIDTH) - x
    return ~np.outer((rows >= 0) & (rows < HEIGHT), (columns >= 0) & (columns < WIDTH))


BORDERS = np.array([border(i) for i in range(COUNT)])


def save(folder, stack, dtype="f4"):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(stack):
        fits.PrimaryHDU(
            image.astype(dtype), fits.Header([("ROWORDER", "TOP-DOWN"), ("EXPTIME", 60.0)])
        ).writeto(folder / f"f{i}.fits")
    return sl.open_frames(folder)


def run(frames, recipe=None, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sl.integrate(frames, recipe, progress=False, **more)
    return result, [str(warning.message) for warning in caught]


def faint(kind="f4", seed=1):
    r = np.random.default_rng(seed)
    if kind == "u2":
        stack = r.poisson(1.5, (COUNT, HEIGHT, WIDTH)).astype(float)
    else:
        stack = r.normal(0.0002, 0.001, (COUNT, HEIGHT, WIDTH))
    stack[BORDERS] = 0
    return stack


@pytest.fixture(scope="module")
def faint_frames(tmp_path_factory):
    return save(tmp_path_factory.mktemp("faint"), faint())


@pytest.mark.parametrize("kind", ["f4", "u2", "ADU"])
def test_a_faint_sky_is_averaged_without_its_border(tmp_path, kind):
    stack = faint(kind) * (65535 if kind == "ADU" else 1)
    if kind == "ADU":
        stack[:, 9, 9] = 40000
    frames = save(tmp_path / "frames", stack, "u2" if kind == "u2" else "f4")
    result, notes = run(frames, sl.Recipe(**PLAIN))
    image = np.ma.mean(np.ma.masked_where(BORDERS, stack), axis=0) / (65535 if kind == "u2" else 1)
    covered = (~BORDERS).mean(axis=0)
    # A run of zeros of the sky that continues a border may belong to it.
    off = np.abs(result.coverage[0] - covered) > 1e-6
    assert off.sum() <= (3 if kind == "u2" else 0)
    np.testing.assert_allclose(result.original[0][~off], image[~off], atol=2e-6 * max(1, np.abs(image).max()))
    assert any("10 of 10 frames reaches 0" in note for note in notes)
    assert "reaches 0" in result.report()


def test_border_samples_are_shown_as_low(faint_frames):
    result, _ = run(faint_frames, sl.Recipe(**PLAIN))
    np.testing.assert_allclose(result.rejection_low[0], BORDERS.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(result.counts[0].range_low, BORDERS.sum(axis=(1, 2)))
    assert "no data" in result.report()


def test_bands_memory_regions_and_clusters_see_the_same_border(faint_frames):
    recipe = sl.Recipe(rejection="sigma")
    whole, _ = run(faint_frames, recipe)
    preparation = whole.preparation
    part = (3, 2, 50, 40)
    here = np.s_[:, 2:42, 3:53]
    for region, cut in ((None, np.s_[:]), (part, here)):
        held = Samples(faint_frames, region)
        held.hold()
        samples = held.marked(preparation.marks)
        settings = [preparation.settings(0)]
        band = (0, 5, 17)
        packed = pickle.dumps((samples, preparation.used, settings))
        unheld = Samples(faint_frames, region).marked(preparation.marks)
        no_ratios = np.empty(0, np.float32)
        pixels, _ = _integrate_band(packed, band, no_ratios)
        others, _ = _integrate_band(pickle.dumps((unheld, preparation.used, settings)), band, no_ratios)
        for ready in (held, Samples(faint_frames, region)):
            result = integrate_samples(ready, preparation)
            # Brought into the range 0 to 1 by different factors, and back.
            np.testing.assert_allclose(result.original, whole.original[cut], rtol=0, atol=1e-9)
            np.testing.assert_array_equal(result.coverage, whole.coverage[cut])
        for found in (pixels, others):
            np.testing.assert_array_equal(
                found["coverage"] / np.float32(COUNT), result.coverage[0, 5:17].reshape(-1)
            )
    np.testing.assert_array_equal(held.held, held.values(None))


def test_stories_masks_and_trials_see_the_same_border(faint_frames):
    result, _ = run(faint_frames, sl.Recipe(rejection="sigma"))
    verdict, _ = frame_verdicts(result, step=1)
    np.testing.assert_array_equal(verdict == NO_DATA, BORDERS)
    y, x = 0, 2
    story = sl.explain(result, x=x, y=y)
    np.testing.assert_array_equal(story.verdict == NO_DATA, BORDERS[:, y, x])
    assert story.raw.min() > -1
    assert story.value == pytest.approx(result.original[0, y, x], abs=1e-9)
    i = int(np.flatnonzero(BORDERS[:, y, x])[0])
    assert story.reasons[i].startswith("no data: 0 lies in the border")
    trials = Trials(faint_frames)
    trials.read()
    np.testing.assert_array_equal(trials.integrate(result.recipe).coverage, result.coverage)
    # With another recipe the same samples are data.
    assert trials.integrate(result.recipe.replace(range_clip_low=False)).coverage.min() == 1
    np.testing.assert_array_equal(trials.integrate(result.recipe).coverage, result.coverage)


def test_noise_of_a_faint_image(faint_frames):
    result, _ = run(faint_frames, sl.Recipe(rejection="none"))
    assert result.noise[0] == pytest.approx(0.001 / np.sqrt(COUNT), rel=0.15)
    assert result.reference_noise[0] == pytest.approx(0.001, rel=0.15)


def test_advice_and_sweeps_of_a_faint_sky(faint_frames):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        found = sl.sweep(
            faint_frames, {"sigma_high": [2.5, 3.0]}, sl.Recipe(rejection="sigma"), progress=False
        )
    assert np.isfinite(found.table["noise_penalty"]).all()


def test_advice_without_an_image_in_a_channel_or_frame(tmp_path):
    r = np.random.default_rng(1)
    stack = r.normal(0.1, 0.002, (12, 3, 80, 80)).astype(np.float32)
    stack[:, :, 38:42, 38:42] += 0.2
    stack[:, 1], stack[5] = 0, np.nan
    frames = save(tmp_path / "frames", stack)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        advice = sl.advise(frames, sl.Recipe(rejection="sigma"), progress=False)
    assert advice.recipe.rejection == "sigma"


def test_no_limit_means_no_border(faint_frames):
    result, notes = run(faint_frames, sl.Recipe(**PLAIN, range_clip_low=False))
    assert result.coverage.min() == 1
    assert not any("reaches 0" in note for note in notes)
    m = prepare(faint_frames, sl.Recipe(**PLAIN, range_clip_low=False)).measurements
    np.testing.assert_array_equal(m.count[:, 0], HEIGHT * WIDTH)
    np.testing.assert_array_equal(m.empty, 0)


def test_a_limit_of_the_user_means_what_it_says(faint_frames):
    stack = faint().astype(np.float32)
    for low in (-0.0005, 1e-6):
        result, _ = run(faint_frames, sl.Recipe(**PLAIN, range_low=low))
        np.testing.assert_allclose(result.coverage[0], (stack > np.float32(low)).mean(axis=0), atol=1e-6)


def test_dark_rings_of_a_bright_sky_are_data(tmp_path):
    stack = np.random.default_rng(1).normal(0.05, 0.001, (COUNT, HEIGHT, WIDTH))
    stack[::2, 20:22, 20:22] = -0.004
    stack[BORDERS] = 0
    stack[3, 30, 30] = 0
    result, notes = run(save(tmp_path / "frames", stack), sl.Recipe(**PLAIN))
    assert result.original[0, 20, 20] == pytest.approx(stack[:, 20, 20].mean(), abs=1e-6)
    lost = BORDERS.sum(axis=0)
    lost[30, 30] += 1
    np.testing.assert_allclose(result.coverage[0], 1 - lost / COUNT, atol=1e-6)
    assert not any("reaches 0" in note for note in notes)


def test_a_border_of_a_pedestal(tmp_path):
    stack = np.random.default_rng(1).normal(5000, 50, (COUNT, HEIGHT, WIDTH)).round()
    stack[BORDERS] = 100
    result, notes = run(save(tmp_path / "frames", stack, "u2"), sl.Recipe(**PLAIN))
    np.testing.assert_allclose(result.coverage[0], (~BORDERS).mean(axis=0), atol=1e-6)
    assert any("frames have a border of a constant value above 0" in note for note in notes)


def test_wrapped_counts_are_holes(tmp_path):
    stack = np.random.default_rng(1).normal(9000, 100, (COUNT, HEIGHT, WIDTH))
    stack[:, 20:22, 20:22] = 50000
    frames = save(tmp_path / "frames", stack.astype("u2").view("i2"), "i2")
    result, _ = run(frames, sl.Recipe(**PLAIN))
    assert (result.coverage[0, 20:22, 20:22] == 0).all()
    assert result.coverage.sum() == HEIGHT * WIDTH - 4


def test_half_frames_leave_no_seam(tmp_path):
    r = np.random.default_rng(1)
    truth = 0.1 + np.linspace(0, 0.05, WIDTH)
    stack = truth + r.normal(0, 0.002, (COUNT, HEIGHT, WIDTH))
    stack[5:, :, WIDTH // 2 :] = np.nan
    result, notes = run(save(tmp_path / "frames", stack))
    off = result.original[0] - truth
    assert abs(np.median(off[:, : WIDTH // 2]) - np.median(off[:, WIDTH // 2 :])) < 0.0005
    assert any("5 of 10 frames are without data" in note for note in notes)
    assert "NaN or infinite" in result.report()
    assert "5 of 10 frames are without data" in result.report()


def test_a_broken_frame_does_not_end_the_run(tmp_path):
    stack = np.random.default_rng(1).normal(0.1, 0.002, (COUNT, HEIGHT, WIDTH))
    recipe = sl.Recipe(rejection="sigma", sigma_high=2.2)
    good, _ = run(save(tmp_path / "good", np.delete(stack, (4, 7), axis=0)), recipe)
    stack[4], stack[7] = 0, np.nan
    result, notes = run(save(tmp_path / "frames", stack), recipe)
    np.testing.assert_array_equal(result.image, good.image)
    assert any("2 of 10 frames hold no image" in note for note in notes)
    assert "5 f4.fits: all samples are 0" in result.report()
    assert list(result.frames["used"]) == [i not in (4, 7) for i in range(COUNT)]
    assert result.frames["reason"][7] == "all samples are NaN or infinite"


@pytest.mark.parametrize("value", [0.0, np.nan, 0.5, 1.0])
def test_a_channel_without_an_image_stays_as_it_is(tmp_path, value):
    stack = np.random.default_rng(1).normal(0.1, 0.002, (COUNT, 3, HEIGHT, WIDTH))
    recipe = sl.Recipe(reference="f1")
    three, _ = run(save(tmp_path / "three", stack), recipe)
    stack[:, 2] = value
    result, notes = run(save(tmp_path / "frames", stack), recipe)
    np.testing.assert_array_equal(result.image[:2], three.image[:2])
    np.testing.assert_array_equal(result.image[2], np.nan_to_num(value))
    assert any("channel 3 (blue) holds no image" in note for note in notes)
    assert "channel 3 (blue)" in result.report()
    result.save(tmp_path / "out", maps=True, fits=True)
    assert np.isfinite(result.expected_rejection).all()


def test_a_limit_in_adu_leaves_out_saturated_cores(tmp_path):
    stack = np.random.default_rng(1).normal(6500, 200, (COUNT, HEIGHT, WIDTH))
    stack[:, 20:22, 30:32] = 65535
    frames = save(tmp_path / "frames", stack, "u2")
    result, notes = run(frames, sl.Recipe(range_clip_high=True, range_high=60000))
    assert result.counts[0].range_high.sum() == 4 * COUNT
    assert any("range_high 60000 is taken as ADU" in note for note in notes)
    lower, notes = run(frames, sl.Recipe(range_clip_high=True, range_high=0.01))
    assert any("no rule looks at them" in note for note in notes)
    assert lower.counts[0].data.sum() == 0


def test_everything_below_the_limit_is_an_error(tmp_path):
    stack = np.random.default_rng(1).normal(6500, 200, (COUNT, HEIGHT, WIDTH))
    with pytest.raises(IntegrationError, match="check range_low"):
        run(save(tmp_path / "frames", stack, "u2"), sl.Recipe(range_low=60000))


def test_a_sky_cut_off_at_0_keeps_its_frames(tmp_path):
    """Half of the samples are 0, so the lower side of the sky has next to no scale."""
    stack = np.maximum(np.random.default_rng(1).normal(1, 260, (COUNT, HEIGHT, WIDTH)), 0)
    frames = save(tmp_path / "frames", stack, "u2")
    result, notes = run(frames, sl.Recipe(rejection="none"))
    assert result.preparation.used.size == COUNT
    np.testing.assert_allclose(result.preparation.scale, 1, atol=0.15)
    [note] = [note for note in notes if "exactly 0" in note]
    assert note.startswith("in 10 of 10 frames 5")
    result, notes = run(save(tmp_path / "whole", stack + 1000, "u2"), sl.Recipe(rejection="none"))
    assert not any("exactly 0" in note for note in notes)
