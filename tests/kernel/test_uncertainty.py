"""The uncertainty of clean sky is what the truth says: (image - truth) / uncertainty scatters by 1."""

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

import stacklib as sl
from stacklib.formats import fits
from stacklib.recipe.rules import RULES
from stacklib.simulate import simulate_frames

LEVEL = 0.05
PLAIN = {"normalization": "none", "rejection_normalization": "none"}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    pytest.mark.filterwarnings("ignore:.*cannot reject anything"),
    pytest.mark.filterwarnings("ignore:.*not debayered"),
    pytest.mark.filterwarnings("ignore:.*without data .* in a large part of the image"),
]


def sky(folder, noise, height=130, width=130, coverage=None, seed=5, mosaic=None):
    """Frames of nothing but noise; `coverage` (height, width) frames have data at a pixel.

    `mosaic` has level and noise of the places of a color filter pattern, relative to those of other frames.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir()
    order = rng.permutation(len(noise))
    levels = 1.0 if mosaic is None else np.tile(mosaic[0], (height // 2, width // 2))
    for i, sigma in enumerate(noise):
        deviation = sigma * rng.standard_normal((height, width))
        if mosaic is not None:
            deviation *= np.tile(mosaic[1], (height // 2, width // 2))
        image = (LEVEL * levels + deviation).astype(np.float32)
        if coverage is not None:
            image[order[i] >= coverage] = 0
        cards = [("NOISE00", sigma, ""), ("ROWORDER", "TOP-DOWN", "")]
        cards += [] if mosaic is None else [("BAYERPAT", "GRBG", "")]
        fits.write_image(folder / f"sky_{i:02d}.fits", image, cards)
    return sl.open_frames(folder)


def noises(kind, count):
    return np.full(count, 1e-3) if kind == "equal" else np.linspace(7e-4, 2e-3, count)


@pytest.fixture(scope="module")
def skies(tmp_path_factory):
    made = {}

    def get(kind, count):
        if (kind, count) not in made:
            made[kind, count] = sky(tmp_path_factory.mktemp("skies") / "sky", noises(kind, count))
        return made[kind, count]

    return get


def z_of(frames, **changes):
    recipe = sl.Recipe(**(PLAIN | {"reference": frames[0].name} | changes))
    result = sl.integrate(frames, recipe, progress=False)
    error = result.image - LEVEL
    ratio = np.sqrt(np.mean(error**2) / np.mean(result.uncertainty**2))
    return error / result.uncertainty, ratio


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("kind", "count", "weights"),
    [
        ("equal", 5, "none"),
        ("unequal", 5, "noise"),
        ("equal", 8, "none"),
        ("equal", 12, "none"),
        ("unequal", 12, "noise"),
        ("unequal", 20, "none"),
        ("equal", 20, "noise"),
        ("unequal", 40, "noise"),
        ("unequal", 40, "none"),
    ],
)
def test_every_rule(skies, rule, kind, count, weights):
    z, ratio = z_of(skies(kind, count), rejection=rule, weights=weights)
    assert np.isfinite(z).all()
    assert z.std() == pytest.approx(1, abs=0.03)
    assert ratio == pytest.approx(1, abs=0.04)


#: Level and noise of the places: of one noise, of photon noise, and after a flat that is not gray.
GRBG = np.array([[1.2, 0.8], [0.6, 1.2]])
MOSAICS = {
    "white": (GRBG, np.ones((2, 2))),
    "photons": (GRBG, np.sqrt(GRBG)),
    "flat": (np.ones((2, 2)), np.array([[1, 1.5], [1.8, 1]])),
}


@pytest.mark.parametrize("kind", MOSAICS)
@pytest.mark.parametrize(
    ("rule", "count"), [("noise_model", 6), ("noise_model", 20), ("winsorized_sigma", 20)]
)
@pytest.mark.parametrize("unequal", [False, True])
def test_every_color_of_a_mosaic(tmp_path, kind, rule, count, unequal):
    noise = noises("unequal" if unequal else "equal", count)
    frames = sky(tmp_path / "a", noise, 240, 240, mosaic=MOSAICS[kind])
    recipe = sl.Recipe(**PLAIN, rejection=rule, weights="noise", reference=frames[0].name)
    result = sl.integrate(frames, recipe, progress=False)
    z = (result.image[0] - LEVEL * np.tile(MOSAICS[kind][0], (120, 120))) / result.uncertainty[0]
    for row, column in np.ndindex(2, 2):
        assert z[row::2, column::2].std() == pytest.approx(1, abs=0.03), (row, column)
    if rule == "noise_model":
        rejected = result.rejection_low + result.rejection_high
        for row, column in np.ndindex(2, 2):
            # One-sided rates of a Gaussian beyond 3.2 and 2.9 sigma.
            rate = rejected[0, row::2, column::2].mean()
            assert rate == pytest.approx(0.000687 + 0.001866, rel=0.2), (row, column)
    # The edge of a region has the same neighbors as in the whole image, wherever it begins.
    left, top, width, height = region = (31, 42, 50, 41)
    part = sl.integrate(frames, recipe, region=region, progress=False)
    inside = np.s_[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(part.image, result.image[inside])
    np.testing.assert_array_equal(part.uncertainty, result.uncertainty[inside])


@pytest.mark.parametrize("rule", RULES)
def test_typical_pixels(skies, rule):
    # The standard deviation alone could be right by large claims for many pixels and small ones for a few.
    z, _ = z_of(skies("equal", 20), rejection=rule, weights="none")
    assert np.mean(np.abs(z) < 1) == pytest.approx(0.68, abs=0.03)


@pytest.mark.parametrize("rule", ["none", "sigma", "winsorized_sigma", "gesd"])
@pytest.mark.parametrize("count", [12, 20, 40])
def test_the_median(skies, rule, count):
    z, _ = z_of(skies("unequal" if count == 20 else "equal", count), rejection=rule, combination="median")
    assert z.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("limit", [2.0, 2.5])
@pytest.mark.parametrize("rule", ["sigma", "averaged_sigma"])
def test_low_limits(skies, rule, limit):
    # The scatter of the survivors alone would claim too little: by 1.29 at 2 sigma.
    z, _ = z_of(skies("equal", 40), rejection=rule, weights="none", sigma_low=limit, sigma_high=limit)
    assert z.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("combination", ["minimum", "maximum"])
def test_extremes_say_nothing_of_the_truth(skies, combination):
    assert np.isnan(z_of(skies("equal", 12), rejection="none", combination=combination)[0]).all()


@pytest.mark.parametrize("weights", ["none", "noise"])
@pytest.mark.parametrize("rule", RULES)
def test_where_some_frames_have_no_data(tmp_path, rule, weights):
    coverage = np.repeat([8, 9, 11, 14], 60)[None, :] * np.ones((100, 1), int)
    kind = "unequal" if weights == "noise" else "equal"
    frames = sky(tmp_path / "a", noises(kind, 14), 100, 240, coverage)
    z, _ = z_of(frames, rejection=rule, weights=weights)
    for count in (8, 9, 11, 14):
        assert z[0][coverage == count].std() == pytest.approx(1, abs=0.04), count


@pytest.mark.parametrize("seed", [301, 302])
@pytest.mark.parametrize(("kind", "weights"), [("equal", "none"), ("unequal", "none"), ("unequal", "noise")])
def test_extremes_dropped_where_some_frames_have_no_data(tmp_path, kind, weights, seed):
    # Which frames are left depends on the seed. Of few of them, what is dropped does as well.
    coverage = np.repeat([5, 8, 11, 14], 100)[None, :] * np.ones((150, 1), int)
    frames = sky(tmp_path / "a", noises(kind, 14), 150, 400, coverage, seed)
    z, _ = z_of(frames, rejection="min_max", weights=weights)
    for count, near in ((5, 0.06), (8, 0.04), (11, 0.03), (14, 0.03)):
        assert z[0][coverage == count].std() == pytest.approx(1, abs=near), count


def test_few_samples_claim_little(tmp_path):
    coverage = np.repeat([1, 2, 3, 5], 40)[None, :] * np.ones((100, 1), int)
    frames = sky(tmp_path / "a", np.full(5, 1e-3), 100, 160, coverage)
    recipe = sl.Recipe(**PLAIN, rejection="none", weights="none", reference="sky_00")
    result = sl.integrate(frames, recipe, progress=False)
    assert np.isnan(result.uncertainty[0][coverage == 1]).all()
    for count in (2, 3, 5):
        here = coverage == count
        claimed = np.sqrt(np.mean(result.uncertainty[0][here] ** 2))
        assert claimed / (1e-3 / np.sqrt(count)) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("kind", ["equal", "unequal"])
@pytest.mark.parametrize(
    ("rule", "count"),
    [
        *[(rule, 20) for rule in RULES if rule not in ("none", "averaged_sigma")],
        ("winsorized_sigma", 5),
        ("noise_model", 5),
        ("min_max", 5),
        ("percentile", 5),
        ("noise_model", 50),
    ],
)
def test_pixels_that_lost_a_hit(tmp_path, rule, count, kind):
    # The light of the hit is gone: so it must not be in the uncertainty either.
    rng = np.random.default_rng(21)
    folder = tmp_path / "a"
    folder.mkdir()
    hit = np.zeros((130, 130), bool)
    hit[1::4, 1::4] = True
    struck = np.where(hit, rng.integers(count, size=hit.shape), -1)
    noise = noises(kind, count)
    for i, sigma in enumerate(noise):
        image = LEVEL + sigma * rng.standard_normal(hit.shape) + 0.03 * (struck == i)
        fits.write_image(folder / f"{i:02d}.fits", image.astype(np.float32), [("ROWORDER", "TOP-DOWN", "")])
    recipe = sl.Recipe(
        **PLAIN, weights="none", rejection=rule, reference="00", percentile_low=0.3, percentile_high=0.3
    )
    result = sl.integrate(folder, recipe, progress=False)
    gone = hit & (result.rejection_high[0] > 0)
    assert gone.sum() > 0.95 * hit.sum()
    error, claim = (result.image[0] - LEVEL)[gone], result.uncertainty[0][gone]
    # Where min_max has dropped the hit and the darkest sample, the rest is too bright.
    assert np.sqrt(np.mean((error / claim) ** 2)) == pytest.approx(1, abs=0.05)
    assert np.sqrt(np.mean(error**2) / np.mean(claim**2)) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("count", [5, 10])
def test_the_error_of_dropping_a_good_sample_with_a_hit_is_in_the_claim(tmp_path, count):
    rng = np.random.default_rng(23)
    stack = LEVEL + 1e-3 * rng.standard_normal((count, 360, 360))
    hit = np.zeros((360, 360), bool)
    hit[1::4, 1::4] = True
    stack[rng.integers(count, size=hit.sum()), *np.nonzero(hit)] += 0.03
    for i, image in enumerate(stack):
        fits.write_image(tmp_path / f"{i}.fits", image.astype(np.float32), [("ROWORDER", "TOP-DOWN", "")])
    recipe = sl.Recipe(**PLAIN, weights="none", rejection="min_max", reference="0")
    result = sl.integrate(tmp_path, recipe, progress=False)
    error, claim = (result.image[0] - LEVEL)[hit], result.uncertainty[0][hit]
    # The hit is the brightest sample of its pixel. Without the darkest of the others, these are too bright.
    darkest = np.sort(rng.standard_normal((count - 1, 50_000)), axis=0)[0].mean()
    near = 3.5 * error.std() / np.sqrt(error.size)
    assert error.mean() == pytest.approx(-1e-3 * darkest / (count - 2), abs=near)
    assert np.sqrt(np.mean((error / claim) ** 2)) == pytest.approx(1, abs=0.03)
    assert np.mean(error / claim) > 0.4


def test_quantised_samples_are_never_certain(tmp_path):
    # A bias: nearly all samples of a pixel are equal, and so are all samples of some.
    rng = np.random.default_rng(22)
    for i in range(20):
        image = np.round(500 + 0.25 * rng.standard_normal((120, 120))).astype(np.uint16)
        astropy_fits.PrimaryHDU(image).writeto(tmp_path / f"{i:02d}.fits")
    for rule in ("none", "winsorized_sigma", "noise_model", "calibrated_sigma"):
        result = sl.integrate(tmp_path, sl.Recipe(**PLAIN, weights="none", rejection=rule), progress=False)
        # The samples are known to a step at best.
        least = 1 / 65535 / np.sqrt(12 * 20)
        assert result.uncertainty.min() >= 0.99 * least
        assert np.median(result.uncertainty) < 3 * least


@pytest.mark.parametrize("count", [12, 16])
def test_simulated_frames_with_the_default_recipe(tmp_path, count):
    night = simulate_frames(count, 150, 150, 1, "field", 4, clean=True)
    night.save(tmp_path, "fits", "f32")
    result = sl.integrate(tmp_path, sl.Recipe(rejection="sigma"), progress=False)
    z = (result.image - night.truth) / result.uncertainty
    dark = night.truth < 1.02 * np.median(night.truth)
    assert dark.mean() > 0.5
    assert z[dark].std() == pytest.approx(1, abs=0.02)
    assert z.std() == pytest.approx(1, abs=0.05)


def test_a_rescaled_image_keeps_its_significance(tmp_path):
    stack = np.random.default_rng(0).normal(0.1, 1e-3, (8, 30, 30)).astype(np.float32)
    folder = tmp_path / "a"
    folder.mkdir()
    for i, image in enumerate(stack):
        image[4, 4] = -0.3 + i / 1000
        fits.write_image(folder / f"{i}.fits", image, [("ROWORDER", "TOP-DOWN", "")])
    recipe = sl.Recipe(**PLAIN, rejection="none", weights="none", range_clip_low=False)
    scaled = sl.integrate(folder, recipe, progress=False)
    plain = sl.integrate(folder, recipe.replace(output_range="truncate"), progress=False)
    assert scaled.range_factor < 1
    np.testing.assert_allclose(scaled.uncertainty, plain.uncertainty * scaled.range_factor, rtol=1e-6)
