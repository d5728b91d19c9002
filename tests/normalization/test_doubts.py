"""Notes on scale factors that follow noise or gradients: given when it is so, and only then."""

import re

import numpy as np
import pytest

import stacklib as sl
from stacklib.formats import fits
from stacklib.normalization.doubts import doubts_about_noise
from stacklib.normalization.preparation import prepare

# Said when frames are opened; these are notes on what follows from it.
pytestmark = pytest.mark.filterwarnings("ignore:the frames differ in exposure")

YY, XX = np.mgrid[:96, :128]


def stars(count=25, seed=2):
    rng = np.random.default_rng(seed)
    light = np.zeros(XX.shape)
    for _ in range(count):
        x, y, peak = rng.uniform(5, 123), rng.uniform(5, 91), rng.uniform(1, 20)
        light += peak * np.exp(-((XX - x) ** 2 + (YY - y) ** 2) / 5)
    return light


NEBULA = 8 * np.exp(-((XX - 50) ** 2 + (YY - 60) ** 2) / 900)


def notes_of(folder, exposures, *, light=None, through=None, ramps=None, sky=0.5, seed=5, **recipe):
    """Return the notes on frames of a field, by default stars, through clouds, under ramps of the sky."""
    light = stars() if light is None else light
    rng = np.random.default_rng(seed)
    for i, seconds in enumerate(exposures):
        rate = light * (through[i] if through else 1) + sky * (0.4 if through and through[i] < 1 else 1)
        image = rng.poisson(rate * seconds) + rng.normal(0, 3, XX.shape) + 500
        image += (ramps[i] if ramps else 0) * (XX / 64 - 1) / 2
        cards = [("EXPTIME", float(seconds), ""), ("ROWORDER", "TOP-DOWN", "")]
        fits.write_image(folder / f"f{i}.fits", (image / 65535).astype(np.float32), cards)
    notes = prepare(sl.open_frames(folder), sl.Recipe(**recipe)).notes
    return [note for note in notes if "reject" not in note.split()]


def test_equal_frames_raise_no_doubts(tmp_path):
    assert notes_of(tmp_path, [120] * 6) == []


def test_exposures_in_a_sparse_field(tmp_path):
    (note,) = notes_of(tmp_path, [30] * 4 + [300] * 4)
    assert note.startswith("The exposures differ (30, 300 s), but the spread")
    assert "normalization: photometric" in note


def test_exposures_in_a_rich_field_are_matched(tmp_path):
    assert notes_of(tmp_path, [60] * 4 + [120] * 4, light=10 * NEBULA) == []


def test_a_cloud_over_a_sparse_field(tmp_path):
    (note,) = notes_of(tmp_path, [120] * 6, through=[1, 1, 1, 0.25, 1, 1])
    assert note.startswith("The field is sparse") and "(f3.fits)" in note


def test_a_cloud_over_a_rich_field_is_matched(tmp_path):
    assert notes_of(tmp_path, [120] * 6, light=10 * NEBULA, through=[1, 1, 1, 0.5, 1, 1]) == []


@pytest.mark.parametrize("ramps", [[0, 0, 200, 0, 0, 0], [0, 30, 60, 90, 120, 150]])
def test_gradients_that_differ(tmp_path, ramps):
    (note,) = notes_of(tmp_path, [120] * 6, ramps=ramps)
    assert note.startswith("The gradients of the sky differ")
    assert f"f{int(np.argmax(ramps))}.fits" in note


@pytest.mark.parametrize("ramps", [[150] * 6, [0, 0, 4, 0, 0, 0]])
def test_gradients_that_do_not_matter(tmp_path, ramps):
    assert notes_of(tmp_path, [120] * 6, ramps=ramps) == []


def test_nothing_is_scaled_and_nothing_is_said(tmp_path):
    recipe = {"normalization": "additive", "weights": "none"}
    assert notes_of(tmp_path, [30] * 3 + [300] * 3, ramps=[0, 0, 200, 0, 0, 0], **recipe) == []


@pytest.mark.parametrize("registered", [False, True])
def test_noise_that_registration_hides_from_weights(tmp_path, registered):
    rng = np.random.default_rng(8)
    light = np.clip(stars(), 0, 50) * 2e-3
    for i in range(10):
        noise = rng.normal(0, 1e-3 * (1 + i % 3), (97, 129))
        # Every other frame was moved by half a pixel, bilinear.
        moved = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 4
        image = light * (1 - 0.03 * i) + 0.1 + 4e-4 * i * XX / 128
        image = image + (moved if registered and i % 2 else noise[1:, 1:])
        fits.write_image(tmp_path / f"f{i}.fits", image.astype(np.float32), [("ROWORDER", "TOP-DOWN", "")])
    frames = sl.open_frames(tmp_path)
    p = prepare(frames, sl.Recipe(normalization="additive", reference="f0"))
    notes = p.doubts_about_weights()
    assert len(notes) == registered
    if registered:
        # Exactly 16.6 % for frames of equal noise.
        assert 10 < int(re.search(r"about (\d+) % noisier .* Use weights: measured", notes[0])[1]) < 25
    assert prepare(frames, sl.Recipe(weights="none")).doubts_about_weights() == []
    assert prepare(frames, sl.Recipe(combination="median")).doubts_about_weights() == []


def test_what_hidden_noise_costs():
    measured = np.array([[1.0, 1.0], [1.0, 0.5]])
    # In the second channel, the second frame weighs 4 instead of 1: sqrt(17) / 5 instead of sqrt(1 / 2).
    (note,) = doubts_about_noise(measured, np.ones((2, 2)))
    assert f"about {100 * (np.sqrt(17 / 25 * 2) - 1):.0f} % noisier" in note
    assert doubts_about_noise(measured, measured * 0.3) == []
    assert doubts_about_noise(np.full((2, 1), np.nan), np.ones((2, 1))) == []
