"""Weights, exclusion by weight and the choice of the reference."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table

from stacklib.errors import IntegrationError
from stacklib.measurement.measurements import FrameMeasurements
from stacklib.normalization.weighting import (
    choose_reference,
    excluded_by_weight,
    find_frame,
    frame_weights,
)
from stacklib.recipe.recipe import Recipe

COUNT, CHANNELS = 5, 2
ONES = np.ones((COUNT, CHANNELS))


def make_frames(count=COUNT, **keywords):
    return [
        SimpleNamespace(
            name=f"light_{i}.xisf",
            exposure=60.0 * (i + 1),
            keywords={name: values[i] for name, values in keywords.items()},
        )
        for i in range(count)
    ]


def make_measurements(count=COUNT, channels=CHANNELS, seed=1, **given):
    rng = np.random.default_rng(seed)
    names = ("location", "scale_low", "scale_high", "mean", "avgdev", "minimum", "maximum", "count", "noise")
    names += ("gradient_x", "gradient_y")
    values = {name: rng.uniform(0.1, 0.3, (count, channels)) for name in names} | given
    frames = tuple(frame.name for frame in make_frames(count))
    return FrameMeasurements(
        names=frames, estimator="bwmv", **values, noise_source="keyword", unit_range=True
    )


def weights_of(kind, frames=None, measured=None, factors=ONES, **recipe):
    frames, measured = frames or make_frames(), measured or make_measurements()
    weights = frame_weights(frames, measured, Recipe(weights=kind, **recipe), factors)
    assert weights.shape == measured.location.shape
    assert weights.dtype == np.float64
    assert np.all(weights.max(axis=0) == 1)
    return weights


def test_worked_weight():
    """Reference and frame of a real session, as PixInsight logged them."""
    noise = np.array([[6.0900e-05], [4.2150e-05]])
    factors = np.array([[1.0], [9.79599e-01]])
    measured = make_measurements(2, 1, noise=noise)
    weights = weights_of("noise", make_frames(2), measured, factors)
    assert weights[1, 0] / weights[0, 0] == pytest.approx(2.17542, rel=1e-5)


def test_formulas():
    m = make_measurements()
    factors = np.random.default_rng(2).uniform(0.5, 2, (COUNT, CHANNELS))
    expected = {
        "none": ONES,
        "exposure": np.arange(1.0, 6)[:, None] * ONES,
        "noise": 1 / (factors * m.noise) ** 2,
        "snr": m.avgdev**2 / m.noise**2,
        "signal": m.avgdev,
        "median": m.location,
        "mean": m.mean,
    }
    for kind, raw in expected.items():
        got = weights_of(kind, measured=m, factors=factors)
        assert got == pytest.approx(raw / raw.max(axis=0), rel=1e-12)


def test_the_snr_does_not_change_with_the_scale_of_a_frame():
    m = make_measurements()
    gain = np.array([1, 2, 0.5, 3, 1])[:, None]
    scaled = make_measurements(avgdev=m.avgdev * gain, noise=m.noise * gain)
    assert weights_of("snr", measured=scaled) == pytest.approx(weights_of("snr", measured=m))


def test_noise_that_was_not_measured():
    m = make_measurements()
    object.__setattr__(m, "noise_source", "not measured")
    with pytest.raises(IntegrationError, match="have no noise"):
        weights_of("noise", measured=m)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("noise", "noise", 0.0),
        ("noise", "noise", np.nan),
        ("median", "location", -1.0),
        ("mean", "mean", np.nan),
    ],
)
def test_useless_values_name_the_frame(kind, field, value):
    m = make_measurements()
    getattr(m, field)[3, 1] = value
    with pytest.raises(IntegrationError, match=r"no usable weight for light_3\.xisf\. .*other weights"):
        weights_of(kind, measured=m)


def test_exposure_that_is_missing():
    frames = make_frames()
    frames[1].exposure, frames[4].exposure = None, 0.0
    with pytest.raises(IntegrationError, match=r"EXPTIME.* light_1\.xisf, light_4\.xisf\. Add the keyword"):
        weights_of("exposure", frames)


def test_keyword():
    frames = make_frames(SSWEIGHT=[1, 2.5, "4", 0, 3])
    got = weights_of("keyword", frames, weight_keyword="SSWeight")
    assert got[:, 1] == pytest.approx(np.array([1, 2.5, 4, 0, 3]) / 4)
    frames[2].keywords.clear()
    frames[3].keywords["SSWEIGHT"] = "good"
    with pytest.raises(IntegrationError, match=r"under SSWEIGHT in light_2\.xisf, light_3\.xisf"):
        weights_of("keyword", frames, weight_keyword="SSWEIGHT")
    with pytest.raises(IntegrationError, match="weight_keyword is empty"):
        weights_of("keyword", frames)


def test_negative_and_all_zero_weights():
    with pytest.raises(IntegrationError, match=r"light_1\.xisf"):
        weights_of("keyword", make_frames(W=[1, -2, 3, 4, 5]), weight_keyword="W")
    with pytest.raises(IntegrationError, match="all weights are 0"):
        weights_of("keyword", make_frames(W=[0] * 5), weight_keyword="W")


@pytest.mark.parametrize("ending", ["csv", "ecsv"])
def test_table(tmp_path, ending):
    path = tmp_path / f"weights.{ending}"
    files = [
        "light_4.xisf",
        "C:\\lights\\light_0.xisf",
        "other.xisf",
        "light_1",
        "light_2.fits",
        "x/light_3.xisf",
    ]
    form = "ascii.ecsv" if ending == "ecsv" else "ascii.csv"
    Table({"file": files, "weight": [5.0, 1.0, 99.0, 2.0, 3.0, 4.0]}).write(path, format=form)
    got = weights_of("csv", weight_file=str(path))
    assert got[:, 0] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_table_problems(tmp_path):
    path = tmp_path / "weights.csv"
    cases = {
        "file,weight\nlight_0.xisf,1\nlight_2.xisf,2\nlight_4,\n": "no weight for light_1.*light_3.*light_4",
        "name,weight\nlight_0.xisf,1\n": "columns 'name', 'weight'; expected file and weight",
        "file,weight\nlight_0.xisf,1\nlight_0.xisf,2\n": r"two different weights for light_0\.xisf",
        "": "columns none",
        "file,weight\na,b,c\n1": "not a CSV or ECSV table",
    }
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(IntegrationError, match=message):
            weights_of("csv", weight_file=str(path))
    with pytest.raises(IntegrationError, match="cannot be read"):
        weights_of("csv", weight_file=str(tmp_path / "none.csv"))
    with pytest.raises(IntegrationError, match="weight_file is empty"):
        weights_of("csv")


# --- exclusion


def test_low_weights_are_left_out_with_a_reason():
    weights = np.array([[1, 1], [0.004, 0.004], [0.5, 0.5], [0.003, 0.02], [0.3, 0.3]])
    assert excluded_by_weight(weights, 0.005, "abcde") == {1: "b: weight 0.004 is below min_weight 0.005"}
    assert excluded_by_weight(weights, 0.0) == {}


def test_three_frames_always_stay():
    weights = np.array([[0.001], [1.0], [0.003], [0.002], [0.0]])
    assert set(excluded_by_weight(weights, 0.5)) == {0, 4}
    assert excluded_by_weight(weights[:2], 0.5) == {}
    assert set(excluded_by_weight(np.array([[1.0], [0.1], [0.1], [0.1], [0.1]]), 0.5)) == {3, 4}


# --- the reference


def test_the_users_choice():
    frames, m = make_frames(), make_measurements()
    for name in ("light_3.xisf", "light_3", "some/folder/light_3.xisf"):
        assert choose_reference(frames, m, Recipe(reference=name)) == 3
    with pytest.raises(IntegrationError, match=r"reference: light_9 is none of the frames.*light_0\.xisf"):
        choose_reference(frames, m, Recipe(reference="light_9"))
    with pytest.raises(IntegrationError, match="more than one"):
        find_frame(["a.fits", "a.xisf"], "a")
    assert find_frame(["a.fits", "a.xisf"], "a.xisf") == 1


def test_the_best_weight():
    m = make_measurements(scale_low=ONES, scale_high=ONES)
    m.noise[:] = np.array([3, 2, 1, 4, 5])[:, None]
    assert choose_reference(make_frames(), m, Recipe()) == 2
    assert choose_reference(make_frames(), m, Recipe(weights="exposure")) == 4


def test_equal_weights():
    m = make_measurements(scale_low=ONES, scale_high=ONES)
    m.noise[:] = np.array([3, 2, 4, 1, 5])[:, None]
    assert choose_reference(make_frames(), m, Recipe(weights="none")) == 3
    m.noise[:] = np.nan
    m.location[:] = np.array([1, 3, 8, 9, 4])[:, None]
    assert choose_reference(make_frames(), m, Recipe(weights="none")) == 4


def test_some_equal_weights():
    """Of the frames with the longest exposure it is not the first one but the least noisy one."""
    m = make_measurements(scale_low=ONES, scale_high=ONES)
    m.noise[:] = np.array([1, 3, 5, 2, 4])[:, None]
    frames = make_frames()
    for frame, exposure in zip(frames, (60, 300, 300, 300, 60), strict=True):
        frame.exposure = exposure
    assert choose_reference(frames, m, Recipe(weights="exposure")) == 3


@pytest.mark.parametrize("weights", ["noise", "none", "signal", "exposure"])
@pytest.mark.parametrize("known", [True, False])
def test_the_choice_does_not_depend_on_the_order(weights, known):
    m = make_measurements(seed=7)
    if not known:
        if weights == "noise":
            pytest.skip("noise weights need the noise")
        m.noise[:] = np.nan
        m.location[3] = m.location[1] = np.median(m.location, axis=0)
    usual = make_frames()
    for frame in usual:
        frame.exposure = 300
    best = usual[choose_reference(usual, m, Recipe(weights=weights))].name
    fields = ("location", "scale_low", "scale_high", "noise", "avgdev", "mean")
    for order in (np.array([3, 1, 4, 0, 2]), np.arange(5)[::-1]):
        frames = [usual[i] for i in order]
        shuffled = replace(
            make_measurements(**{name: getattr(m, name)[order] for name in fields}),
            names=tuple(frame.name for frame in frames),
        )
        assert frames[choose_reference(frames, shuffled, Recipe(weights=weights))].name == best
