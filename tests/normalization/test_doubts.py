"""Notes on scale factors that follow noise or gradients: given when it is so, and only then."""

import numpy as np
import pytest

import stacklib as sl
from stacklib.formats import fits
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
    return [note for note in notes if not {"NOISE", "reject"} & set(note.split())]


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
