"""Range limits are read in ADU or as fractions, and limits that catch everything or nothing are told."""

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.normalization.preparation import prepare

SHAPE = 48, 64


def frames_of(folder, scale, dtype, brightest=0.9):
    r = np.random.default_rng(1)
    for i in range(4):
        image = r.normal(0.1, 0.004, SHAPE)
        image[5:8, 5:8] = brightest
        image[20, 3:6] = 0.02
        fits.PrimaryHDU((image * scale).astype(dtype)).writeto(folder / f"f{i}.fits")
    return sl.open_frames(folder)


KINDS = {"16 bit": (65535, "u2"), "0 to 1": (1, "f4"), "ADU": (65535, "f4")}


def data_range(folder, kind, **limits):
    p = prepare(frames_of(folder, *KINDS[kind]), sl.Recipe(weights="none", **limits))
    return p.settings(0).data_range, [note for note in p.notes if "range_" in note]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("high", [0.8, 0.8 * 65535])
def test_the_high_limit_is_a_fraction_or_in_adu(tmp_path, kind, high):
    (_, found), notes = data_range(tmp_path, kind, range_clip_high=True, range_high=high)
    unit = 65535 if kind == "ADU" else 1
    assert found == pytest.approx(0.8 * unit, rel=1e-6)
    told = (high > 1) != (kind == "ADU")
    assert len(notes) == told
    assert all(note.startswith(f"range_high {high:g} is taken as") for note in notes)


@pytest.mark.parametrize(
    ("kind", "low"), [("16 bit", 3000), ("0 to 1", 3000), ("ADU", 3000), ("16 bit", 0.05)]
)
def test_the_low_limit_is_in_adu_from_1_on(tmp_path, kind, low):
    (found, _), notes = data_range(tmp_path, kind, range_low=low)
    assert found == pytest.approx(low / 65535 if low > 1 and kind != "ADU" else low, rel=1e-6)
    assert len(notes) == (low > 1 and kind != "ADU")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"range_clip_high": True, "range_high": 0.05}, "count as saturated"),
        ({"range_clip_high": True, "range_high": 0.95}, "no sample reaches it"),
        ({"range_clip_high": True, "range_high": 5000}, "count as saturated"),
        ({"range_clip_high": True, "range_high": 70000}, "no sample reaches it"),
        ({"range_low": 0.102}, "leaves out more than half"),
        ({"range_low": 6700}, "leaves out more than half"),
    ],
)
def test_limits_beyond_which_all_or_nothing_lies_are_told(tmp_path, limits, words):
    assert any(words in note for note in data_range(tmp_path, "16 bit", **limits)[1])


@pytest.mark.parametrize("limits", [{}, {"range_clip_high": True}, {"range_clip_low": False}])
def test_usual_limits_say_nothing(tmp_path, limits):
    (low, high), notes = data_range(tmp_path, "16 bit", **limits)
    assert notes == []
    assert low == (-np.inf if limits.get("range_clip_low") is False else 0)
    assert high == (np.float32(0.98) if limits.get("range_clip_high") else np.inf)
