"""Color frames without what hits took: in one pass, with the bits of a search in two."""

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.integration import run, samples
from stacklib.integration.colour import one_pass

pytestmark = pytest.mark.filterwarnings("ignore::stacklib.StacklibWarning")

COUNT, HEIGHT, WIDTH = 9, 90, 107
PLANES = ("image", "uncertainty", "rejection_low", "rejection_high", "coverage")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Frames of unequal light and noise, with hits, also at edges and in many frames, and missing data."""
    folder = tmp_path_factory.mktemp("hits")
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    sky = np.full((3, HEIGHT, WIDTH), 0.1) * np.array([1.0, 1.3, 0.8])[:, None, None]
    for _ in range(25):
        top, left, light = rng.uniform(0, HEIGHT), rng.uniform(0, WIDTH), rng.uniform(0.01, 0.3)
        sky += light * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 5.0)
    for i in range(COUNT):
        noise = 0.002 * (1 + 0.6 * (i % 3))
        image = (0.6 + 0.08 * i) * sky + noise * rng.standard_normal(sky.shape)
        for _ in range(60):
            place = rng.integers(3), rng.integers(HEIGHT), rng.integers(WIDTH)
            image[place] += rng.choice([-12, 6, 9, 30]) * noise
        image[1, 0, 0] += 40 * noise
        image[:, 70, 50:53] += (i % 2) * 30 * noise
        image[:, 40:43, 20:24] = 0 if i else 0.1
        if i in (4, 5):
            image[:, :, : 3 + i] = 0
        fits.writeto(folder / f"light_{i}.fits", image.astype(np.float32))
    return folder


def in_bands(rows, monkeypatch):
    """Let bands have so many rows, whatever other planes need; returns the budget for that."""
    monkeypatch.setattr(one_pass, "_planes", lambda *given: 0)
    monkeypatch.setattr(samples, "LEAST_BAND_BYTES", 2 * 4 * COUNT * WIDTH * rows)
    return "1MB"


def test_more_hits_than_memory_has_room_for_take_two_passes(folder, monkeypatch):
    usual = sl.integrate(folder, recipe_for("sigma"), progress=False)
    fill, found = one_pass.fill_without_hits, []
    monkeypatch.setattr(run, "fill_without_hits", lambda *given: found.append(fill(*given)) or found[-1])
    memory = in_bands(20, monkeypatch)
    for room in (one_pass.SUSPECT_BYTES, one_pass.SUSPECT_BYTES * 2000):
        # Not enough for the suspects, nor for the samples beside hits.
        monkeypatch.setattr(one_pass, "LEAST_ROOM", room)
        again = sl.integrate(folder, recipe_for("sigma"), memory=memory, progress=False)
        assert found.pop() is None
        for name in PLANES:
            np.testing.assert_array_equal(getattr(again, name), getattr(usual, name), name)


def test_a_rule_with_limits_for_each_frame_needs_memory_for_one_pass(folder, monkeypatch):
    usual = sl.integrate(folder, recipe_for("noise_model"), progress=False)
    monkeypatch.setattr(run, "fill_without_hits", None)
    again = sl.integrate(folder, recipe_for("noise_model"), memory="1.5MB", progress=False)
    for name in PLANES:
        np.testing.assert_array_equal(getattr(again, name), getattr(usual, name), name)


def recipe_for(rule, **changes):
    given = dict(rejection=rule, allow_unregistered=True, output_range="truncate") | changes
    return sl.Recipe(**given)


@pytest.mark.parametrize("rows", [HEIGHT, 13], ids=["in memory", "in bands"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "recipe",
    [
        recipe_for("sigma"),
        recipe_for("winsorized_sigma", weights="none", clip_low=False),
        recipe_for("winsorized_sigma", combination="median", range_clip_high=True, range_high=0.3),
        recipe_for("linear_fit", normalization="none", rejection_normalization="none"),
        recipe_for("gesd", reference="light_3.fits", min_weight=0.9),
        recipe_for("noise_model"),
        recipe_for("min_max", output_bits="64"),
    ],
    ids=lambda recipe: recipe.rejection,
)
def test_the_bits_are_those_of_two_passes(folder, recipe, threads, rows, monkeypatch):
    called = []
    fill = one_pass.fill_without_hits
    monkeypatch.setattr(run, "fill_without_hits", lambda *given: called.append(given[0]) or fill(*given))
    with monkeypatch.context() as context:
        memory = "2GB" if rows == HEIGHT else in_bands(rows, context)
        found = sl.integrate(folder, recipe, threads=threads, memory=memory, progress=False)
    assert [each.held is None for each in called] == [rows < HEIGHT]
    monkeypatch.setattr(run, "takes_one_pass", lambda *given: False)
    slow = sl.integrate(folder, recipe, progress=False)
    assert len(called) == 1
    for name in PLANES:
        np.testing.assert_array_equal(getattr(found, name), getattr(slow, name), name)
    assert sorted(found.masks) == sorted(slow.masks) and found.masks
    for i, channel in slow.masks:
        np.testing.assert_array_equal(found.masks.flags(i, channel), slow.masks.flags(i, channel))
    for part in ("counts", "mask_counts"):
        for a, b in zip(getattr(found, part), getattr(slow, part), strict=True):
            np.testing.assert_array_equal(a.table, b.table)
    assert found.masked["colour"].max() > 0


def test_other_means_and_regions_need_two_passes(folder, monkeypatch):
    monkeypatch.setattr(run, "fill_without_hits", None)
    whole = sl.integrate(folder, recipe_for("sigma", footprints="trails"), progress=False)
    part = sl.integrate(folder, whole.recipe, region=(5, 6, 60, 50), progress=False)
    np.testing.assert_array_equal(part.image, whole.image[:, 6:56, 5:65])
    small = sl.integrate(folder, recipe_for("sigma"), region=(5, 6, 60, 50), progress=False)
    monkeypatch.undo()
    one = sl.integrate(folder, recipe_for("sigma"), progress=False)
    np.testing.assert_array_equal(small.image, one.image[:, 6:56, 5:65])


def test_progress_reaches_the_end(folder, monkeypatch):
    for rule in ("sigma", "noise_model"):
        reported = []
        fill = one_pass.fill_without_hits
        monkeypatch.setattr(
            run, "fill_without_hits", lambda samples, p, report, f=fill, r=reported: f(samples, p, r.append)
        )
        sl.integrate(folder, recipe_for(rule), progress=False)
        assert sum(reported) == 3 * HEIGHT * WIDTH * (1 + (rule == "noise_model"))
        monkeypatch.undo()
