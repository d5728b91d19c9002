"""Integrations: against the slow reference, under different conditions, and errors."""

import _thread
import re
import threading
import warnings

import numpy as np
import pytest
import slow_integration
from astropy.io import fits as astropy_fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stacklib as sl
from stacklib.errors import FrameError, IntegrationError, RecipeError, StacklibWarning
from stacklib.formats import fits
from stacklib.frames.frame_set import Frame
from stacklib.integration import samples
from stacklib.measurement import measurements
from stacklib.measurement.cache.planes import cache_file
from stacklib.recipe.rules import RULES
from stacklib.simulate import Trail, simulate_frames
from stacklib.utils.resources import parse_memory

#: Warnings expected for these small sets. The tests of these warnings catch them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    pytest.mark.filterwarnings("ignore:.*cannot reject anything"),
    pytest.mark.filterwarnings("ignore:.*left out by min_weight"),
    pytest.mark.filterwarnings("ignore:.*more frames are below min_weight"),
    pytest.mark.filterwarnings("ignore:The field is sparse"),
]


def night(count, channels=1, seed=3, height=24, width=37, **options):
    """Simulate a few small frames with borders, cosmic rays, hot pixels, varying sky and transparency."""
    trail = Trail(count // 2, (-5, 3), (width + 5, height - 4), 20.0)
    options = {"cosmic_rays": 6, "hot_pixels": 12, "trails": (trail,), "dither": 3} | options
    return simulate_frames(count, height, width, channels, "field", seed, **options)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Saved sets by (count, channels, format, dtype, height), each created once."""
    made = {}

    def get(count, channels=1, format="fits", dtype="f32", height=24):
        key = count, channels, format, dtype, height
        if key not in made:
            folder = tmp_path_factory.mktemp("set")
            night(count, channels, height=height).save(folder, format, dtype)
            made[key] = folder
        return sl.open_frames(made[key])

    return get


def run(frames, recipe, **options):
    return sl.integrate(frames, recipe, **({"progress": False} | options))


def check(result, frames):
    """Check that the result equals the slow reference."""
    p = result.preparation
    slow = slow_integration.integrate(frames, result.recipe, p.measurements, p.reference)
    sure = slow.sure
    assert sure.mean() > 0.97
    np.testing.assert_array_equal(p.used, slow.used)
    np.testing.assert_allclose(p.weights, slow.weights, rtol=1e-12)
    np.testing.assert_allclose(result.image[sure], slow.image[sure], rtol=1e-6, atol=1e-9)
    for name in ("rejection_low", "rejection_high", "coverage"):
        np.testing.assert_array_equal(getattr(result, name)[sure], slow.__dict__[name][sure].astype("f4"))
    for c, counts in enumerate(result.counts):
        doubtful = np.count_nonzero(~sure[c])
        for name in ("low", "high"):
            difference = getattr(counts, name) - getattr(slow, name)[:, c]
            assert np.abs(difference).max() <= doubtful
        for name in ("range_low", "range_high", "data"):
            np.testing.assert_array_equal(getattr(counts, name), getattr(slow, name)[:, c])
    if result.recipe.combination == "average":
        check_claims(result, slow)
    return slow


def check_claims(result, slow):
    """Check that every pixel with two samples has an uncertainty; `tests/kernel` checks that it is true."""
    known = slow.samples >= 2
    assert (result.uncertainty[known] > 0).all()
    assert np.isnan(result.uncertainty[~known]).all()


# The slow version -------------------------------------------------------------------------------------


# What rules by frame know of the noise comes from all pixels; see test_known_noise.
@pytest.mark.parametrize("rule", [name for name, spec in RULES.items() if not spec.by_frame])
def test_every_rule(sets, rule):
    frames = sets(11, 1, "fits", "u16", 15)
    result = run(frames, sl.Recipe(rejection=rule))
    slow = check(result, frames)
    assert 0 < slow.coverage.min() < 1
    if rule != "none":
        assert slow.high.sum() > 0
    if rule == "linear_fit":
        assert result.slope.shape == result.image.shape
    else:
        assert result.slope is None


@pytest.mark.parametrize("rule", ["winsorized_sigma", "linear_fit", "gesd", "chauvenet"])
def test_rules_on_many_frames(sets, rule):
    frames = sets(20, 1, "xisf", "f32", 12)
    check(run(frames, sl.Recipe(rejection=rule, weights="none")), frames)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization": "none", "rejection_normalization": "none", "weights": "none"},
        {"normalization": "additive", "rejection_normalization": "equalize_fluxes", "weights": "exposure"},
        {"normalization": "multiplicative", "rejection_normalization": "scale_zero_offset"},
        {"normalization": "multiplicative_scaling", "scale_estimator": "mad", "weights": "snr"},
        {"normalization": "multiplicative_scaling"},
        {"normalization": "none"},
        {"normalization": "additive_scaling", "scale_estimator": "avgdev", "weights": "signal"},
        {"normalization": "none", "rejection_normalization": "scale_zero_offset", "weights": "mean"},
        {"combination": "median"},
        {"combination": "minimum", "normalization": "multiplicative"},
        {"combination": "maximum", "rejection_normalization": "equalize_fluxes"},
        {"combination": "median", "rejection": "none"},
        {"map_range_rejection": False, "weights": "median"},
        {"range_clip_low": False},
        {"range_clip_high": True, "range_high": 0.057},
        {"range_clip_high": True, "range_high": 0.057, "map_range_rejection": False, "combination": "median"},
        {"range_low": 0.049, "rejection": "winsorized_sigma"},
        {"clip_low": False, "rejection": "gesd", "gesd_variant": "pixinsight"},
        {"clip_high": False, "rejection": "chauvenet"},
        {"rejection": "min_max", "min_max_low": 3, "min_max_high": 9},
        {"output_range": "truncate"},
        {"min_weight": 0.9},
        {"min_weight": 1.0},
    ],
    ids=lambda changes: " ".join(str(value) for value in changes.values()),
)
def test_every_choice(sets, changes):
    frames = sets(9, 1, "xisf", "f32", 13)
    recipe = sl.Recipe(**({"rejection": "sigma", "sigma_low": 2.4, "sigma_high": 2.2} | changes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        result = run(frames, recipe)
    check(result, frames)


@pytest.mark.parametrize("format", ["fits", "xisf"])
@pytest.mark.parametrize("dtype", ["u16", "f32"])
def test_colour(sets, format, dtype):
    frames = sets(7, 3, format, dtype, 9)
    result = run(frames, sl.Recipe(rejection="winsorized_sigma", joint_colour=False))
    assert result.image.shape == (3, 9, 37)
    check(result, frames)


def save_stack(folder, stack, keywords=lambda i: (), name="f_{:02d}.fits"):
    """Write frames from an array (frames, height, width) or (frames, channels, height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    order = ("ROWORDER", "TOP-DOWN", "")
    for i, image in enumerate(np.asarray(stack, np.float32)):
        fits.write_image(folder / name.format(i), image, [order, *keywords(i)])
    return sl.open_frames(folder)


def noise(shape, seed=0, level=0.1, sigma=1e-3):
    return (level + sigma * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


PLAIN = {"normalization": "none", "rejection_normalization": "none", "weights": "none"}


def test_holes_and_saturated_cores(tmp_path):
    stack = noise((8, 9, 11))
    stack[:, 0, 0] = 0
    stack[:, 0, 1] = np.nan
    stack[:5, 0, 2] = [np.nan, np.inf, -np.inf, 0, -1]
    stack[:, 4, 4] = 0.99
    stack[:3, 4, 5] = 0.995
    frames = save_stack(tmp_path / "a", stack)
    recipe = sl.Recipe(rejection="sigma", sigma_low=2, sigma_high=2, range_clip_high=True, **PLAIN)
    result = run(frames, recipe)
    check(result, frames)
    assert result.image[0, 0, 0] == result.image[0, 0, 1] == 0
    assert result.coverage[0, 0, 0] == result.coverage[0, 0, 1] == 0
    assert result.rejection_low[0, 0, 0] == 1
    assert result.rejection_low[0, 0, 1] == 0
    assert result.coverage[0, 0, 2] == 3 / 8
    assert result.image[0, 4, 4] == np.float32(0.99)
    assert result.coverage[0, 4, 4] == result.rejection_high[0, 4, 4] == 1
    assert result.rejection_high[0, 4, 5] >= 3 / 8
    assert result.image[0, 4, 5] == pytest.approx(0.1, abs=5e-3)
    assert np.isnan(result.uncertainty[0, 4, 4])


@pytest.mark.filterwarnings("ignore:.* without data")
def test_the_scatter_of_few_samples_is_judged_as_such(tmp_path):
    # 12 of 20 samples are saturated, so the correction is that of 8 samples, not 20.
    stack = noise((20, 60, 60), seed=4)
    few = stack.copy()
    few[:12] = 0.99
    both = np.concatenate([stack, few], axis=2)
    frames = save_stack(tmp_path / "a", both)
    recipe = sl.Recipe(rejection="winsorized_sigma", range_clip_high=True, **PLAIN)
    saturated = run(frames, recipe).uncertainty[0, :, 60:]
    absent = both.copy()
    absent[:12, :, 60:] = 0
    frames = save_stack(tmp_path / "b", absent)
    expected = run(frames, recipe).uncertainty[0, :, 60:]
    # A saturated sample counts for the coverage, so that a few neighborhoods stand out earlier.
    assert np.isclose(saturated, expected, rtol=0.05).mean() > 0.98


def test_counts_with_and_without_the_range(sets):
    frames = sets(9, 1, "xisf", "f32")
    recipe = sl.Recipe(rejection="sigma", sigma_high=2.2, weights="none")
    plain, full = run(frames, recipe), run(frames, recipe.replace(report_range_rejection=True))
    counts = plain.counts[0]
    assert counts.range_low.sum() > 0
    np.testing.assert_allclose(plain.rejected_low[:, 0], counts.low / counts.data)
    everything = counts.data + counts.range_low + counts.range_high
    np.testing.assert_array_equal(everything, plain.image.size)
    np.testing.assert_allclose(full.rejected_low[:, 0], (counts.low + counts.range_low) / everything)
    np.testing.assert_allclose(full.rejected_high[:, 0], counts.high / everything)
    table = plain.frames
    assert table["file"].tolist() == frames.names
    assert table["used"].all()
    assert table["reference"].sum() == 1
    np.testing.assert_array_equal(table["rejected_high"], plain.rejected_high[:, 0])
    x = np.float32(0.06)
    p = plain.preparation
    expected = (x - p.measurements.location[:, 0]) * p.scale[:, 0] + p.measurements.location[p.reference, 0]
    np.testing.assert_allclose(x * table["factor"] + table["offset"], expected)


@pytest.mark.parametrize(
    ("level", "mode"), [(1.2, "rescale"), (1.2, "truncate"), (-0.2, "rescale"), (-0.2, "truncate")]
)
def test_output_range(tmp_path, level, mode):
    stack = noise((6, 20, 20))
    stack[:, 5, 5] = level
    frames = save_stack(tmp_path / "a", stack)
    result = run(frames, sl.Recipe(rejection="none", output_range=mode, range_clip_low=False, **PLAIN))
    check(result, frames)
    if mode == "truncate":
        assert (result.truncated, result.range_factor, result.range_offset) == (1, 1, 0)
        assert result.image[0, 5, 5] == np.clip(level, 0, 1)
    else:
        span = max(level, 1) - min(level, 0)
        assert result.range_factor == pytest.approx(1 / span)
        assert result.image[0, 5, 5] == pytest.approx((level - min(level, 0)) / span)


def test_adu_are_left_alone(tmp_path):
    frames = save_stack(tmp_path / "a", noise((8, 20, 20), level=1500, sigma=20))
    result = run(frames, sl.Recipe(rejection="sigma", weights="none"))
    check(result, frames)
    assert 1400 < result.image.mean() < 1600
    assert (result.range_factor, result.truncated) == (1, 0)


@pytest.mark.parametrize(
    "rule", ["sigma", "winsorized_sigma", "averaged_sigma", "linear_fit", "gesd", "chauvenet"]
)
def test_a_quantised_pixel_does_not_reject_on_a_zero_scale(tmp_path, rule):
    # Sn and MAD are 0 if more than half of the samples are equal. One step is no outlier then.
    stack = np.full((16, 8, 8), 1000.0)
    stack[:7] += np.array([-1, 1, 1, -1, 1, -1, 1])[:, None, None]
    stack[15, 2, 2] = 1040
    folder = tmp_path / "a"
    folder.mkdir()
    for i, image in enumerate(stack):
        unit = astropy_fits.PrimaryHDU(image.astype(np.uint16))
        unit.header["ROWORDER"] = "TOP-DOWN"
        unit.writeto(folder / f"{i:02d}.fits")
    result = run(folder, sl.Recipe(rejection=rule, **PLAIN))
    clean = np.ones((8, 8), bool)
    clean[2, 2] = False
    assert result.rejection_low[0][clean].max() == result.rejection_high[0][clean].max() == 0
    assert result.rejection_high[0, 2, 2] == 1 / 16


# The same bits under all conditions ---------------------------------------------------------------------


MAPS = ("image", "rejection_low", "rejection_high", "coverage", "uncertainty", "slope")


def same(a, b, maps=MAPS):
    for name in maps:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for one, other in zip(a.counts, b.counts, strict=True):
        for name in ("low", "high", "range_low", "range_high", "data"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture
def bands(monkeypatch):
    """Make `integrate` read this many rows at once; None holds all frames."""
    parse = samples.parse_memory
    exact = lambda memory: memory if isinstance(memory, int) else parse(memory)  # noqa: E731
    monkeypatch.setattr(samples, "parse_memory", exact)

    def use(frames, rows, width=None, used=None):
        monkeypatch.setattr(samples, "LEAST_BAND_BYTES", 1)
        width = width or frames.width
        result = samples.RESULT_BYTES * frames.channels * width * frames.height
        return result + 2 * 4 * rows * (used or len(frames)) * width

    return use


@pytest.mark.parametrize("recipe", [
    sl.Recipe(rejection="winsorized_sigma"),
    sl.Recipe(rejection="linear_fit", weights="none"),
    sl.Recipe(rejection="sigma", combination="median"),
    sl.Recipe(rejection="gesd", range_clip_high=True, range_high=0.06),
], ids=lambda recipe: recipe.rejection)  # fmt: skip
@pytest.mark.filterwarnings("ignore:half or more of the samples")
def test_any_memory_and_threads(sets, bands, recipe):
    frames = sets(8, 3, "xisf", "u16", 11)
    whole = run(frames, recipe, threads=1)
    for threads in (1, 2, 5):
        same(whole, run(frames, recipe, threads=threads))
        for rows in (1, 5):
            same(whole, run(frames, recipe, threads=threads, memory=bands(frames, rows)))


def test_any_memory_when_frames_are_left_out(sets, bands):
    frames = sets(11, 1, "fits", "u16")
    recipe = sl.Recipe(rejection="sigma", sigma_high=2.2, min_weight=0.9)
    whole = run(frames, recipe)
    used = whole.preparation.used.size
    assert used < 11
    same(whole, run(frames, recipe, memory=bands(frames, 3, used=used)))
    # All frames are in memory, and the ones used are copied a few rows at a time.
    same(whole, run(frames, recipe, memory=1 << 30))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(2, 20),
    height=st.integers(1, 40),
    width=st.integers(1, 200),
    rows=st.integers(1, 9),
    threads=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
def test_any_size(tmp_path_factory, bands, count, height, width, rows, threads, seed):
    rng = np.random.default_rng(seed)
    stack = noise((count, height, width), seed)
    stack[rng.random(stack.shape) < 0.05] += 0.05
    stack[rng.random(stack.shape) < 0.1] = 0
    stack[:, 0, 0] = 0.1
    frames = save_stack(tmp_path_factory.mktemp("size") / "a", stack)
    recipe = sl.Recipe(rejection="winsorized_sigma", reference=frames[0].name, **PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        whole = run(frames, recipe, threads=1)
        same(whole, run(frames, recipe, threads=threads, memory=bands(frames, rows)))
    assert whole.image.shape == (1, height, width)
    assert np.isfinite(whole.image).all()


REGIONS = [(0, 0, 37, 24), (5, 3, 20, 11), (36, 23, 1, 1), (0, 10, 37, 5), (30, 0, 7, 24)]


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_is_a_crop_of_the_whole(sets, bands, region):
    frames = sets(11, 1, "fits", "u16")
    recipe = sl.Recipe(rejection="winsorized_sigma", sigma_high=2.5)
    whole = run(frames, recipe)
    left, top, width, height = region
    crop = (slice(None), slice(top, top + height), slice(left, left + width))
    for options in ({}, {"memory": bands(frames, 3, width)}):
        part = run(frames, recipe, region=region, **options)
        assert part.region == region
        for name in MAPS[:4]:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[crop], err_msg=name)


@pytest.mark.parametrize("region", [(0, 0, 20, 12), (20, 0, 20, 12), (30, 2, 15, 5), (59, 11, 1, 1)])
def test_the_uncertainty_of_a_region_is_that_of_the_whole(tmp_path, region):
    # 11, 9, 7 and 4 samples from left to right, so most regions do not include all of these.
    stack = noise((11, 12, 80))
    for left, count in ((20, 9), (40, 7), (60, 4)):
        stack[count:, :, left:] = 0
    frames = save_stack(tmp_path / "a", stack)
    recipe = sl.Recipe(rejection="sigma", sigma_low=2.2, sigma_high=2.2, **PLAIN)
    left, top, width, height = region
    crop = (slice(None), slice(top, top + height), slice(left, left + width))
    part = run(frames, recipe, region=region)
    np.testing.assert_array_equal(part.uncertainty, run(frames, recipe).uncertainty[crop])


@pytest.mark.parametrize("rule", RULES)
def test_any_order_of_the_frames(sets, rule):
    frames = sets(11, 1, "fits", "u16")
    recipe = sl.Recipe(rejection=rule, reference=frames[4].name)
    order = np.random.default_rng(8).permutation(len(frames))
    one, other = run(frames, recipe), run(frames[order.tolist()], recipe)
    np.testing.assert_allclose(other.image, one.image, rtol=1e-6)
    np.testing.assert_allclose(other.uncertainty, one.uncertainty, rtol=1e-4)
    for name in MAPS[1:4]:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.counts[0].high[order], other.counts[0].high)


def test_the_cache_of_measurements_changes_nothing(tmp_path):
    night(6).save(tmp_path, "fits", "u16")
    recipe = sl.Recipe(rejection="sigma", sigma_high=2.2)
    first = run(tmp_path, recipe)
    assert cache_file(tmp_path).exists()
    same(first, run(tmp_path, recipe))
    cache_file(tmp_path).write_text("{ nonsense")
    same(first, run(tmp_path, recipe))


def test_code_that_cannot_be_kept_is_a_note(sets, monkeypatch):
    frames = sets(7, 1, "fits", "f32")
    monkeypatch.setattr("stacklib.integration.run.not_kept", lambda: "compiled code cannot be kept (why)")
    with pytest.warns(sl.StacklibWarning, match="cannot be kept"):
        sl.integrate(frames, sl.Recipe.suggest(frames), progress=False)


def test_frames_can_be_named_in_every_way(sets, tmp_path):
    frames = sets(7, 1, "fits", "f32")
    folder = frames.folder
    expected = run(frames, sl.Recipe.suggest(frames))
    for where in (folder, str(folder), str(folder / "*.fits"), [frame.path for frame in frames]):
        same(expected, sl.integrate(where, progress=False))


# Errors -------------------------------------------------------------------------------------------------


def test_one_frame_is_refused(tmp_path):
    frames = save_stack(tmp_path / "a", noise((1, 8, 8)))
    with pytest.raises(IntegrationError, match=r"f_00\.fits: is the only frame.*at least 2.*Add"):
        run(frames, sl.Recipe())


def test_two_frames_work_with_a_warning(tmp_path):
    stack = noise((2, 8, 9))
    frames = save_stack(tmp_path / "a", stack)
    with pytest.warns(StacklibWarning, match="sigma needs at least 3 frames, there are 2.*add frames"):
        result = run(frames, sl.Recipe(**PLAIN))
    np.testing.assert_allclose(result.image[0], stack.mean(axis=0), rtol=1e-6)
    assert np.isfinite(result.uncertainty).all()


@pytest.mark.parametrize("size", [(8, 9), (3, 8, 8)])
def test_mixed_frames_are_refused(tmp_path, size):
    save_stack(tmp_path / "a", noise((3, 8, 8)))
    fits.write_image(tmp_path / "a" / "odd.fits", noise(size), [("ROWORDER", "TOP-DOWN", "")])
    with pytest.raises(FrameError, match=r"odd\.fits.*register all frames|odd\.fits.*leave these out"):
        run(tmp_path / "a", sl.Recipe())


@pytest.mark.parametrize("format", ["fits", "xisf"])
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.01, 0.0])
def test_a_truncated_file_is_named(tmp_path, format, keep):
    paths = night(4, height=60, width=80).save(tmp_path, format, "f32")
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[: int(keep * len(content))])
    with pytest.raises(FrameError, match=paths[2].name):
        run(tmp_path, sl.Recipe())


@pytest.mark.parametrize("content", [b"not an image", b"SIMPLE  = ", b"XISF0100" + b"\0" * 90])
@pytest.mark.parametrize("ending", ["fits", "xisf"])
def test_what_is_no_image_is_named(tmp_path, content, ending):
    save_stack(tmp_path / "a", noise((3, 8, 8)))
    (tmp_path / "a" / f"wrong.{ending}").write_bytes(content)
    with pytest.raises(FrameError, match=rf"wrong\.{ending}"):
        run(tmp_path / "a", sl.Recipe())


@pytest.mark.parametrize("where", ["empty", "missing"])
def test_no_frames(tmp_path, where):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FrameError, match=where):
        run(tmp_path / where, sl.Recipe())


VAIN = [
    ({"rejection": "sigma", "sigma_high": 3.0}, "sigma_high 3 cannot reject anything with 8 frames.*lower"),
    ({"rejection": "averaged_sigma", "sigma_low": 4}, "sigma_low 4 cannot reject anything"),
    ({"rejection": "sigma", "sigma_high": 1.5}, "sigma_high 1.5 is so low.*use at least 2"),
    ({"rejection": "sigma", "clip_low": False, "clip_high": False}, "clip_low and clip_high are both off"),
    ({"rejection": "min_max", "min_max_low": 4, "min_max_high": 4}, "only the median is left"),
]


@pytest.mark.parametrize(("changes", "message"), VAIN)
def test_limits_in_vain_are_told(tmp_path, changes, message):
    frames = save_stack(tmp_path / "a", noise((8, 20, 20)))
    with pytest.warns(StacklibWarning) as caught:
        run(frames, sl.Recipe(**({"sigma_low": 2, "sigma_high": 2} | changes | PLAIN)))
    assert any(re.search(message, str(warning.message)) for warning in caught)


def test_the_limit_that_is_told_is_the_limit(tmp_path):
    # One outlier among n lies at most sqrt(n) sigma from the median: n = 9 and 10 at 3 sigma.
    for n, found in ((9, 0), (10, 1)):
        stack = noise((n, 12, 12), seed=n, sigma=1e-7)
        stack[0, 6, 6] = 0.9
        frames = save_stack(tmp_path / str(n), stack)
        recipe = sl.Recipe(rejection="sigma", sigma_low=3, sigma_high=3, **PLAIN)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = run(frames, recipe)
        assert any("cannot reject" in str(warning.message) for warning in caught) == (not found)
        assert result.rejection_high[0, 6, 6] * n == pytest.approx(found)


def test_frames_left_out_for_their_weight_are_reported(tmp_path):
    sigmas = [1.0, 2.0, 1.2, 5.0, 1.1, 3.0]
    stack = np.concatenate([noise((1, 40, 40), i, sigma=1e-3 * s) for i, s in enumerate(sigmas)])
    frames = save_stack(tmp_path / "a", stack, lambda i: [("NOISE00", 1e-3 * sigmas[i], "")])
    # Scales of pure noise would compensate for all differences.
    result = run(frames, sl.Recipe(rejection="none", min_weight=1.0, **(PLAIN | {"weights": "noise"})))
    assert result.preparation.used.tolist() == [0, 2, 4]
    notes = " ".join(result.preparation.notes)
    assert "3 of 6 frames are left out by min_weight 1: f_01.fits, f_03.fits, f_05.fits" in notes
    assert "2 more frames are below min_weight, but the best frames are always kept" in notes
    table = result.frames
    assert table["used"].tolist() == [True, False, True, False, True, False]
    for row in table:
        assert row["used"] == (row["reason"] == "")
        if not row["used"]:
            assert "below min_weight 1" in row["reason"]
            assert np.isnan(row["rejected_low"])
    assert result.coverage.max() == 1


@pytest.mark.parametrize("recipe", [sl.Recipe(weights="none"), sl.Recipe(range_clip_low=False, **PLAIN)])
def test_a_black_frame_is_named(tmp_path, recipe):
    stack = noise((5, 20, 20))
    stack[3] = 0
    frames = save_stack(tmp_path / "a", stack)
    with pytest.warns(
        sl.StacklibWarning, match=r"1 of 5 frames hold no image.*f_03\.fits \(all samples are 0\)"
    ):
        result = run(frames, recipe)
    assert result.preparation.used.tolist() == [0, 1, 2, 4]


def test_a_weightless_frame_leaves_no_hole(tmp_path):
    # Only the frame of weight 0 has data at one pixel. Its value is better than a dark pixel.
    stack = noise((5, 20, 20))
    stack[1:, 3, 3] = 0
    frames = save_stack(tmp_path / "a", stack, lambda i: [("WGT", float(i > 0), "")])
    recipe = sl.Recipe(**(PLAIN | {"weights": "keyword", "weight_keyword": "WGT", "min_weight": 0.0}))
    result = run(frames, recipe.replace(rejection="sigma"))
    assert result.coverage[0, 3, 3] > 0
    assert result.image[0, 3, 3] == pytest.approx(stack[0, 3, 3])


@pytest.mark.parametrize("memory", ["", "2", "lots", "-1GB", "1XB", 0, -5, None, True, "1e9x", [], 999_999])
def test_bad_memory(sets, memory):
    with pytest.raises(RecipeError, match=r"memory: got .*expected a size of at least 1MB"):
        run(sets(7), sl.Recipe(), memory=memory)


def test_sizes_of_memory():
    sizes = {"800MB": 8e8, "1.5 GB": 1.5e9, "2GiB": 2**31, "1 mb": 1e6, 5_000_000: 5e6, "3000000": 3e6}
    for text, size in sizes.items():
        assert parse_memory(text) == size


def test_little_memory_is_told(tmp_path):
    night(4, height=200, width=300).save(tmp_path, "fits", "u16")
    recipe = sl.Recipe(rejection="none")
    expected = run(tmp_path, recipe)
    with pytest.warns(StacklibWarning, match="memory: the result alone takes 1 MB of the budget of 1 MB"):
        same(expected, run(tmp_path, recipe, memory="1MB"))


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", 5000])
def test_bad_threads(sets, threads):
    with pytest.raises(RecipeError, match=r"threads: got .*expected a whole number from 1 to 1024"):
        run(sets(7), sl.Recipe(), threads=threads)


@pytest.mark.parametrize("region", [
    (0, 0, 38, 24), (-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, -5), (36, 0, 2, 2), (0, 0, 5), (1, 2, 3, 4, 5), 5,
    "all", (None, 0, 5, 5), (0, 0, float("nan"), 5), (0, 0, float("inf"), 5), (0, 0, 10.5, 5), "1234",
])  # fmt: skip
def test_bad_regions(sets, region):
    with pytest.raises(RecipeError, match=r"region: got .*expected \(left, top, width, height\).*37 x 24"):
        run(sets(7), sl.Recipe(), region=region)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "nobody"}, "reference: nobody is none of the frames"),
        ({"weights": "keyword"}, "weight_keyword is empty"),
        ({"weights": "keyword", "weight_keyword": "NOPE"}, "NOPE"),
        ({"weights": "csv", "weight_file": "nowhere.csv"}, r"nowhere\.csv: cannot be read"),
    ],
)
def test_a_recipe_that_does_not_fit_the_frames(sets, changes, message):
    with pytest.raises(IntegrationError, match=message):
        run(sets(7), sl.Recipe(**changes))


def test_different_scales_are_refused(tmp_path):
    stack = noise((5, 20, 20))
    stack[2:] *= 65535
    frames = save_stack(tmp_path / "a", stack)
    with pytest.raises(FrameError, match=r"different scales: f_00\.fits, f_01\.fits from 0 to 1.*Save all"):
        run(frames, sl.Recipe())


@pytest.mark.parametrize("format", ["fits", "xisf"])
@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_frame_that_goes_bad_meanwhile_is_named(tmp_path, bands, format, damage):
    paths = night(6).save(tmp_path, format, "f32")
    for memory in (1 << 30, None):
        frames = sl.open_frames(tmp_path)
        content = paths[3].read_bytes()
        if damage == "deleted":
            paths[3].unlink()
        else:
            paths[3].write_bytes(content[: int(0.6 * len(content))])
        with pytest.raises(FrameError, match=paths[3].name):
            run(frames, sl.Recipe(), memory=memory or bands(frames, 4))
        paths[3].write_bytes(content)


@pytest.mark.parametrize("interrupt", ["in a thread", "from the keyboard"])
@pytest.mark.parametrize("when", ["held", "bands"])
def test_ctrl_c(tmp_path, monkeypatch, bands, interrupt, when):
    night(8).save(tmp_path, "fits", "f32")
    before = sorted(path.name for path in tmp_path.iterdir())
    frames = sl.open_frames(tmp_path)
    original, reads = Frame.read_rows, []
    # In bands, the frames are measured and their registration is checked before.
    last = 20 if when == "held" else 28

    def read_rows(self, *arguments):
        reads.append(self.name)
        if len(reads) == last:
            if interrupt == "in a thread":
                raise KeyboardInterrupt
            _thread.interrupt_main()
        return original(self, *arguments)

    monkeypatch.setattr(Frame, "read_rows", read_rows)
    if when == "held":
        monkeypatch.setattr(samples, "PARTS", 1)
        reads[:] = [""] * 15
    memory = 1 << 30 if when == "held" else bands(frames, 2)
    with pytest.raises(KeyboardInterrupt):
        run(frames, sl.Recipe(weights="none"), memory=memory, threads=2)
    # A thread that was just starting ends a moment later.
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPool"):
            thread.join(20)
            assert not thread.is_alive()
    after = sorted(path.name for path in tmp_path.iterdir())
    assert after == before
    monkeypatch.undo()
    run(frames, sl.Recipe(weights="none"))


def test_frames_are_measured_while_others_are_read(tmp_path, monkeypatch):
    night(5).save(tmp_path, "fits", "f32")
    frames = sl.open_frames(tmp_path)
    measured, in_time = threading.Event(), []
    complete, read_rows = measurements._Meter.complete, Frame.read_rows

    def measure(*arguments):
        found = complete(*arguments)
        measured.set()
        return found

    def read(self, *arguments):
        if self is frames[-1]:
            in_time.append(measured.wait(30))
        return read_rows(self, *arguments)

    monkeypatch.setattr(measurements._Meter, "complete", measure)
    monkeypatch.setattr(Frame, "read_rows", read)
    run(frames, sl.Recipe(weights="none"), threads=2)
    assert in_time[0]


def test_repeated_runs_leave_no_threads(sets):
    frames = sets(9, 1, "xisf", "f32")
    before = threading.active_count()
    for _ in range(3):
        run(frames, sl.Recipe(rejection="min_max"), threads=3)
    assert threading.active_count() == before
