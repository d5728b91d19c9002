"""Notes on starlight that factors and weights miss: as large as in truth, and only where it matters."""

import re
import shutil

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import StacklibWarning
from stacklib.formats import fits
from stacklib.integration import second_pass, starlight
from stacklib.integration.registration import registration_of
from stacklib.integration.samples import Samples
from stacklib.integration.starlight import compared_light, starlight_notes, starlight_of
from stacklib.measurement.cache.planes import sets_folder
from stacklib.normalization.preparation import prepare
from stacklib.simulate import simulate_night

# The frames of simulated nights differ in what their headers say.
pytestmark = pytest.mark.filterwarnings("ignore:the frames differ in")
MATCHED = "Use preset: measured, or normalization and rejection_normalization: photometric"


def saved(folder, night):
    night.save(folder)
    return sl.open_frames(folder)


@pytest.fixture(scope="module")
def cloudy(tmp_path_factory):
    clouds = {"transparency": (0.25, 1.0), "gradient": 0.02, "fwhm": (2.8, 3.3)}
    night = simulate_night(8, 300, 400, 1, "field", 2001, cosmic_rays=8, blur="psf", **clouds)
    return night, saved(tmp_path_factory.mktemp("cloudy"), night)


def said(frames, recipe):
    p = prepare(frames, recipe)
    return [note for note in starlight_notes(p, registration_of(p)) if "reject anything" not in note]


def in_truth(night, p):
    """Return the starlight of the image, and that of the compared frames, as excesses; and the loss."""
    light, k, w = night.transparency, p.factor[:, 0], p.weights[:, 0]
    noise = p.measurements.noise[:, 0]
    image = np.sum(w * k * light) / np.sum(w) / light[p.reference] - 1
    compared = p.rejection_factor[:, 0] * light
    best = np.sum((light / noise) ** 2)
    return (
        image,
        compared / np.median(compared) - 1,
        1 - np.sum(w * k * light) / np.sqrt(np.sum((w * k * noise) ** 2) * best),
    )


def test_light_of_the_frames_is_that_of_the_night(cloudy):
    night, frames = cloudy
    p = prepare(frames, sl.Recipe())
    found = starlight_of(p, threads=1)
    ratio = found.light[:, 0] / night.transparency
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.04
    assert (found.error[:, 0] < 0.02 * found.light[:, 0]).all()
    # Also from samples in memory, and with any number of threads.
    held = np.stack([frame.read() for frame in frames], axis=1)
    again = starlight_of(p, held, threads=3)
    assert again.light.tobytes() == found.light.tobytes()


def test_light_of_frames_added_later_is_that_of_all_at_once(tmp_path, monkeypatch):
    night = simulate_night(20, 300, 400, 1, "field", 2001, transparency=(0.5, 1.0), blur="psf")
    frames = saved(tmp_path / "night", night)
    recipe, stacks = sl.Recipe(reference=frames[3].name), []
    find = starlight.make_template
    monkeypatch.setattr(starlight, "make_template", lambda *given: stacks.append(given) or find(*given))
    starlight_of(prepare(frames[:18], recipe))
    known = len(stacks)
    later = starlight_of(prepare(frames, recipe))
    # The stars are those of frames that are there in both.
    assert len(stacks) == known > 0
    shutil.rmtree(sets_folder(tmp_path / "night"))
    np.testing.assert_array_equal(later, starlight_of(prepare(frames, recipe)))
    assert np.isfinite(later.light).all()


def test_light_is_found_again_if_an_added_frame_has_another_pattern(tmp_path, monkeypatch):
    night = simulate_night(20, 300, 400, 1, "field", 2001, transparency=(0.5, 1.0), blur="psf")
    frames = saved(tmp_path / "night", night)
    recipe = sl.Recipe(reference=frames[3].name)
    # Only where all frames have the same pattern are its places binned.
    monkeypatch.setattr(starlight, "mosaic_period", lambda some: 2 if len(some) < 20 else 1)
    starlight_of(prepare(frames[:18], recipe))
    later = starlight_of(prepare(frames, recipe))
    shutil.rmtree(sets_folder(tmp_path / "night"))
    np.testing.assert_array_equal(later, starlight_of(prepare(frames, recipe)))


def test_clouds_are_said_with_their_size(cloudy):
    night, frames = cloudy
    recipe = sl.Recipe.suggest(frames)
    image, compared, lost = in_truth(night, prepare(frames, recipe))
    with pytest.warns(StacklibWarning, match="stars of the image"):
        result = sl.integrate(frames, recipe, progress=False)
    notes = [note for note in result.preparation.notes if "stars" in note]
    (note,) = notes
    assert MATCHED in note and "sparse" not in note
    percent, how = re.search(r"stars of the image are (\d+) % too (\w+)", note).groups()
    assert int(percent) == pytest.approx(abs(100 * image), abs=4)
    assert (how == "bright") == (image > 0)
    most = int(np.argmax(np.abs(compared)))
    found = re.search(r"those of (\S+) are ([\d.]+) (%|times) too (\w+)", note)
    name, size, unit, how = found.groups()
    percent = float(size) if unit == "%" else 100 * (float(size) - 1)
    assert name == frames[most].name
    assert percent == pytest.approx(abs(100 * compared[most]), abs=5 if unit == "%" else 10)
    assert (how == "bright") == (compared[most] > 0)
    assert lost > 0.06 and f"{100 * lost:.0f}" in re.findall(r"lose (\d+) %", note)
    assert " ".join(note.split()) in " ".join(result.report().split())


def test_frames_matched_by_stars_or_not_at_all_need_no_note(cloudy):
    _, frames = cloudy
    assert not [note for note in said(frames, sl.Recipe.best(frames)) if "stars" in note]
    bare = sl.Recipe(normalization="none", rejection_normalization="none", weights="none")
    assert said(frames, bare) == []


def test_samples_compared_by_their_spread_and_combined_by_starlight(cloudy):
    _, frames = cloudy
    (note,) = said(frames, sl.Recipe(normalization="photometric"))
    assert "scale factors of scale_zero_offset" in note and "stars of the image" not in note
    assert said(frames, sl.Recipe(normalization="photometric", rejection="none")) == []


@pytest.mark.parametrize(("kind", "seed"), [("field", 2011), ("galaxy", 2012), ("nebula", 2013)])
def test_nothing_is_said_of_steady_nights(tmp_path, kind, seed):
    steady = {"transparency": (0.985, 1.0), "gradient": 0.001, "sky_drift": 0.02}
    night = simulate_night(8, 300, 400, 1, kind, seed, fwhm=(2.6, 3.4), cosmic_rays=8, blur="psf", **steady)
    frames = saved(tmp_path, night)
    image, compared, _ = in_truth(night, prepare(frames, sl.Recipe()))
    assert max(abs(image), np.abs(compared).max()) < 0.04
    assert said(frames, sl.Recipe()) == []


def written(folder, frames, **cards):
    for i, frame in enumerate(frames):
        header = [(name, value, "") for name, value in {"ROWORDER": "TOP-DOWN", **cards}.items()]
        fits.write_image(folder / f"f{i}.fits", frame.astype(np.float32), header)
    return sl.open_frames(folder)


@pytest.fixture(scope="module")
def light():
    rng = np.random.default_rng(2021)
    yy, xx = np.mgrid[:160, :200]
    field = np.zeros(yy.shape)
    for y, x, peak in zip(
        rng.uniform(10, 150, 40), rng.uniform(10, 190, 40), 10 ** rng.uniform(1.5, 3, 40), strict=True
    ):
        field += peak * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)
    return field


def noisy(light, through, seed=2022):
    rng = np.random.default_rng(seed)
    return [500 + t * light + rng.normal(0, 3, light.shape) for t in through]


def test_weights_alone(tmp_path, light):
    through = np.array([1, 1, 1, 0.2, 0.2, 0.2])
    frames = written(tmp_path, noisy(light, through))
    recipe = sl.Recipe(normalization="additive", rejection="none")
    (note,) = said(frames, recipe)
    lost = 1 - through.sum() / np.sqrt(6 * np.sum(through**2))
    worth = 6 * (1 - lost) ** 2
    assert f"they lose {100 * lost:.0f} % of the signal-to-noise ratio of stars" in note
    assert f"6 frames are worth {worth:.1f}. Use weights: measured" in note
    assert said(frames, recipe.replace(weights="measured")) == []
    assert said(frames, recipe.replace(combination="median")) == []


def test_a_frame_without_any_starlight_is_named(tmp_path, light):
    (note,) = said(written(tmp_path, noisy(light, [1, 1, 1, 0, 1, 1])), sl.Recipe())
    assert note.startswith("No light of stars is seen in f3.fits, but the scale factors")
    assert (
        "those of f3.fits are 100 % too faint" in note or "the stars of f3.fits are 100 % too faint" in note
    )


def test_frames_that_lie_elsewhere_do_not_count(tmp_path, light):
    frames = noisy(light, [1] * 6)
    frames[2] = np.roll(frames[2], 9, axis=1)
    p = prepare(written(tmp_path, frames), sl.Recipe(allow_unregistered=True))
    assert not [note for note in starlight_notes(p, registration_of(p)) if "stars" in note]


def test_too_few_stars_leave_the_doubts_as_they_are(tmp_path, light):
    frames = [frame + i * 3 * np.linspace(-1, 1, 200) for i, frame in enumerate(noisy(0 * light, [1] * 6))]
    p = prepare(written(tmp_path, frames), sl.Recipe())
    notes = starlight_notes(p, registration_of(p))
    assert p.doubts and notes == p.notes


def test_hot_pixels_of_darks_are_no_stars(tmp_path, light):
    with pytest.warns(StacklibWarning, match="no light frames"):
        frames = written(tmp_path, noisy(light, [1, 1, 0.5, 1, 1, 1]), IMAGETYP="Dark Frame")
    assert not [note for note in said(frames, sl.Recipe()) if "stars" in note]


def test_mosaics_are_compared_by_whole_cells(tmp_path, light):
    gains = np.tile([[1.0, 1.6], [1.6, 0.8]], light.shape)
    large = np.kron(light, np.ones((2, 2)))
    through = [1, 0.9, 0.8, 0.7, 0.6, 0.95]
    with pytest.warns(StacklibWarning, match="not debayered"):
        frames = written(tmp_path, [image * gains for image in noisy(large, through)], BAYERPAT="RGGB")
    p = prepare(frames, sl.Recipe())
    found = starlight_of(p).light[:, 0]
    assert found / found[0] == pytest.approx(through, rel=0.01)


def test_searches_go_by_starlight(cloudy, monkeypatch):
    night, frames = cloudy
    recipe = sl.Recipe(footprints="all")
    p = prepare(frames, recipe)
    light = compared_light(p)[:, 0]
    truth = p.rejection_factor[:, 0] * night.transparency
    assert np.abs(light / truth / np.median(light / truth) - 1).max() < 0.04
    assert np.average(light, weights=p.settings(0).weights) == pytest.approx(1)
    matched = dict.fromkeys(("normalization", "rejection_normalization"), "photometric")
    by_stars = prepare(frames, recipe.replace(**matched))
    np.testing.assert_allclose(compared_light(by_stars), 1, rtol=1e-9)
    assert (compared_light(prepare(frames, recipe.replace(normalization="none"))) == 1).all()

    # Stars of frames behind clouds are no footprints.
    stars = night.isolated_stars(200, radius=6.0)
    x, y = (np.rint(places[stars]).astype(int) for places in (night.scene.x, night.scene.y))
    y, x = (
        (y[:, None] + np.arange(-3, 4)).repeat(7, 1).ravel(),
        np.tile(x[:, None] + np.arange(-3, 4), 7).ravel(),
    )

    def lost():
        masks = second_pass.find_masks(Samples(frames), p)
        return np.mean([masks.flags(i, 0)[y, x] != 0 for i in range(len(frames))])

    by_starlight = lost()
    monkeypatch.setattr(starlight, "compared_light", lambda p, threads: np.ones((p.used.size, 1)))
    assert by_starlight < 0.4 * lost()
