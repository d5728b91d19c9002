"""Numbers under stress: every scale of a float, NaN and infinities, ties, few frames; the same bits."""

import gzip
import warnings
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import stacklib as sl
from stacklib.errors import IntegrationError
from stacklib.formats import fits, xisf
from stacklib.integration.samples import Samples
from stacklib.kernel.passes import run_tiles
from stacklib.kernel.pixels import Pixels
from stacklib.normalization.settings import Settings
from stacklib.recipe.rules import RULES

COUNT, HEIGHT, WIDTH = 8, 40, 56


def field(seed=1):
    """Frames of a starry sky, float32 (frames, height, width), about .1, one with a trail."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    places = rng.uniform(4, HEIGHT - 4, (25, 2))
    sky = 0.1 + 0.3 * sum(np.exp(-((y - b) ** 2 + (x - a) ** 2) / 4) for a, b in places)
    stack = sky + 0.004 * rng.standard_normal((COUNT, HEIGHT, WIDTH))
    stack[3, 10] += 0.2
    return stack.astype(np.float32)


def save(folder, stack):
    folder.mkdir()
    for i, image in enumerate(stack):
        astropy_fits.PrimaryHDU(image).writeto(folder / f"f{i}.fits")
    return folder


def run(folder, recipe=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return sl.integrate(folder, recipe or sl.Recipe(), progress=False, **options)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return run(save(tmp_path_factory.mktemp("usual") / "frames", field()))


@pytest.mark.parametrize("power", [-110, -60, -20, 20, 60, 110])
def test_every_scale_gives_the_same_result(usual, tmp_path, power):
    """Fluxes of 1e-18 or 1e30: the unit of the frames does not matter."""
    scaled = run(save(tmp_path / "frames", field() * np.float32(2.0**power)))
    for one, other, factor in (
        (scaled.image, usual.image, 2.0**power),
        (scaled.uncertainty, usual.uncertainty, 2.0**power),
        (scaled.rejection_low, usual.rejection_low, 1),
        (scaled.rejection_high, usual.rejection_high, 1),
    ):
        np.testing.assert_allclose(one, other * np.float32(factor), rtol=1e-6)
    np.testing.assert_allclose(scaled.noise_ratio, usual.noise_ratio, rtol=1e-4)
    assert usual.rejection_high[0, 10].mean() > 0.9 / COUNT


def test_faint_frames_that_cover_different_parts(tmp_path):
    """They are compared over the area that each shares with the reference."""
    stack = field()
    stack[5:] *= np.linspace(0.8, 1.2, WIDTH, dtype=np.float32)
    stack[5:, :, WIDTH // 2 :] = 0
    one, other = (run(save(tmp_path / str(p), stack * np.float32(2.0**p))) for p in (0, -60))
    np.testing.assert_allclose(other.image, one.image * np.float32(2.0**-60), rtol=1e-5)


def test_the_smallest_floats(tmp_path):
    """Denormal numbers have few digits, but a result."""
    result = run(save(tmp_path / "frames", field() * np.float32(2.0**-140)))
    assert np.isfinite(result.image).all()
    assert result.image.mean() / 2.0**-140 == pytest.approx(field().mean(), rel=0.2)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("value", [0.1, 0.0, np.nan, np.inf])
def test_few_frames_that_are_all_equal(tmp_path, count, value):
    folder = save(tmp_path / "frames", np.full((count, HEIGHT, WIDTH), value, np.float32))
    plain = sl.Recipe(weights="none", normalization="none", rejection_normalization="none")
    if count > 1 and value == 0.1:
        with pytest.raises(IntegrationError, match=r"no usable weight for f0\.fits"):
            run(folder)
        result = run(folder, plain)
        np.testing.assert_array_equal(result.image, np.float32(value))
        assert result.rejected_low.sum() + result.rejected_high.sum() == 0
    else:
        with pytest.raises(IntegrationError, match=r"f0\.fits|the only frame"):
            run(folder, plain)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    """Frames with stripes, blocks and specks of NaN, infinities and zeros; the same in several formats."""
    stack, rng = field(2), np.random.default_rng(3)
    stack[0, ::7] = np.nan
    stack[1, :, 5::9] = np.inf
    stack[2, 4:12, 4:20] = 0
    stack[4, rng.random((HEIGHT, WIDTH)) < 0.1] = -np.inf
    stack[:, 30, 20:24] = np.nan
    root = tmp_path_factory.mktemp("patterns")
    save(root / "fits", stack)
    (root / "gz").mkdir()
    for path in sorted((root / "fits").iterdir()):
        (root / "gz" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("big", "double"):
        (root / name).mkdir()
    for i, image in enumerate(stack):
        astropy_fits.PrimaryHDU(image.astype(np.float64)).writeto(root / "double" / f"f{i}.fits")
        cards = [("BSCALE", 1.0, ""), ("BZERO", 0.0, "")]
        fits.write_image(root / "big" / f"f{i}.fits", image[np.newaxis], cards, row_order="")
    return root


@pytest.mark.parametrize("rule", ["winsorized_sigma", "linear_fit"])
def test_bits_depend_on_nothing_but_the_samples(patterns, monkeypatch, rule):
    recipe = sl.Recipe(rejection=rule)
    expected = run(patterns / "fits", recipe, threads=1)
    assert np.isfinite(expected.image).all()
    assert (expected.coverage[0, 30, 20:24] == 0).all() and (expected.image[0, 30, 20:24] == 0).all()

    def same(result):
        for name in ("image", "uncertainty", "rejection_low", "rejection_high", "coverage"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))

    for format in ("gz", "double", "big"):
        same(run(patterns / format, recipe, threads=3))
    monkeypatch.setattr(Samples, "fits", lambda samples: False)
    for rows in (1, 7, 64):
        monkeypatch.setattr(Samples, "rows", lambda samples, used, beside=0, rows=rows: min(rows, HEIGHT))
        same(run(patterns / "fits", recipe, threads=2))


def test_a_format_keeps_every_float(tmp_path):
    """NaN aside, all bits come back from FITS and XISF."""
    image = np.array([[0.0, -0.0, 1e-45, 1e-38, 1e30, 3.4e38, -1e-30, np.inf, -np.inf, np.nan]], np.float32)
    fits.write_image(tmp_path / "a.fits", image[np.newaxis], [], row_order="")
    np.testing.assert_array_equal(fits.open_image(tmp_path / "a.fits").read_rows(0, 1, 0), image)
    finite = np.nan_to_num(image, posinf=1.0, neginf=0.0)[np.newaxis]
    xisf.write_image(tmp_path / "a.xisf", finite, image_id="a")
    np.testing.assert_array_equal(xisf.open_image(tmp_path / "a.xisf").read_rows(0, 1, 0), finite[0])


#: Any float32, with the special ones often.
SPECIAL = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 1e-38, 1.0, 1.0000001, 3e38, -3e38])
ANY = st.one_of(SPECIAL, st.floats(width=32), st.floats(-1.0, 1.0, width=32), st.integers(-3, 3).map(float))


@pytest.mark.parametrize("rule", list(RULES))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    samples=st.integers(1, 12).flatmap(lambda n: arrays.arrays(np.float32, (n, 9), elements=ANY)),
    floor=st.sampled_from([0.0, 0.5, 1e-30]),
)
def test_any_samples_at_all(rule, samples, floor):
    """Every pixel gets a finite value between its samples, and every sample a verdict."""
    recipe = sl.Recipe(rejection=rule, range_clip_low=False)
    chosen = replace(Settings.plain(recipe, len(samples)), floor=floor)
    pixels = Pixels.empty(samples.shape[1], chosen)
    counts = run_tiles(samples, chosen, pixels)
    data = np.isfinite(samples)
    np.testing.assert_array_equal(pixels.coverage, data.sum(axis=0))
    lowest = np.where(data, samples, np.float32(np.inf)).min(axis=0)
    highest = np.where(data, samples, np.float32(-np.inf)).max(axis=0)
    some = data.any(axis=0)
    assert np.isfinite(pixels.image).all()
    assert (pixels.image[~some] == 0).all()
    assert (pixels.image[some] >= lowest[some]).all() and (pixels.image[some] <= highest[some]).all()
    rejected = pixels.rejection_low + pixels.rejection_high
    assert (rejected <= np.maximum(data.sum(axis=0) - 1, 0)).all()
    assert counts.low.sum() == pixels.rejection_low.sum()
    assert counts.high.sum() == pixels.rejection_high.sum()
