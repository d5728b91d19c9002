"""Sentences about a result come from its numbers."""

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import stacklib as sl
from stacklib.formats import fits
from stacklib.output import sentences


def result_of(**changes):
    """Return as much of a result as the sentences need: 12 frames."""
    usual = {
        "rejected_low": np.full((12, 1), 0.001),
        "rejected_high": np.full((12, 1), 0.004),
        "expected_rejection": (0.001, 0.004),
        "noise_ratio": np.array([0.30]),
        "allowed_noise_ratio": np.array([0.29]),
        "expected_noise_ratio": 0.289,
        "noise": np.array([0.001]),
        "uncertainty": np.full((1, 4, 4), 0.001),
        "range_factor": 1.0,
        "rejection_low": np.zeros((1, 4, 4)),
        "rejection_high": np.zeros((1, 4, 4)),
        "coverage": np.ones((1, 4, 4)),
        "shift": None,
    }
    frames = [SimpleNamespace(channels=1, cfa_pattern="") for _ in range(12)]
    preparation = SimpleNamespace(
        used=np.arange(12),
        count=12,
        frames=frames,
        weights=np.ones((12, 1)),
        measurements=SimpleNamespace(names=[f"f{i}.fits" for i in range(12)]),
        reference=3,
        photometry=None,
    )
    values = usual | changes
    return SimpleNamespace(preparation=preparation, lost=lambda side: values[f"rejected_{side}"], **values)


def lost(**frames):
    values = np.full((12, 1), 0.004)
    for name, value in frames.items():
        values[int(name[1:])] = value
    return values


def test_maps():
    low, high = sentences.maps_in_words(result_of(rejected_high=lost(f2=0.05))).splitlines()
    assert low.startswith("Rejected low: 0.10 %") and "hardly any outliers" in low
    assert high.startswith("Rejected high: 0.78 %") and "trails" in high and "0.40 %" in high
    nothing = sentences.maps_in_words(result_of(rejected_high=np.zeros((12, 1))))
    assert "Nothing stood out" in nothing


def test_frames():
    text = sentences.frames_in_words(result_of(rejected_high=lost(f2=0.01, f9=0.05)))
    assert "rejected high than usual: frame 10 (5.00 %), 3 (1.00 %); the median is 0.40 %" in text
    assert "No frame lost clearly more samples than the others low" in text
    assert "All frames have about the same weight." in text
    result = result_of()
    result.preparation.weights[6] = 0.4
    assert "The lowest weight is 0.40, that of frame 7." in sentences.frames_in_words(result)


def test_losses():
    high = np.array([0, 0, 1, 6])[np.newaxis, np.newaxis] / 12
    low = np.zeros_like(high)
    result = result_of(rejection_high=high, rejection_low=low, coverage=np.ones_like(high))
    expected = "50.0 % of the pixels lost no sample, 25.0 % one, 25.00 % more than a third."
    assert sentences.losses_in_words(result) == expected
    assert "No pixel" in sentences.losses_in_words(result_of(coverage=np.zeros((1, 4, 4))))


def test_before_and_after():
    text = sentences.before_and_after(result_of())
    assert "The noise of 12 frames is 0.300 times that of f3.fits. 0.40 % of the samples" in text
    text = sentences.before_and_after(result_of(rejected_high=np.zeros((12, 1))))
    assert "still in the right image" in text


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (0.295, "The result reaches that."),
        (0.35, "The result is 21 % above"),
        (0.45, "although these frames allow"),
    ],
)
def test_noise(reached, words):
    text = sentences.noise_in_words(result_of(noise_ratio=np.array([reached])))
    assert f"The noise fell to {reached:.3f}" in text
    assert words in text
    assert bool(sentences.noise_gap(result_of(noise_ratio=np.array([reached])))) == (reached > 0.4)


def test_the_reason_for_a_gap():
    far = {"noise_ratio": np.array([0.5])}
    assert "scatter more between frames" in sentences.noise_gap(result_of(**far))
    assert "same in all frames" in sentences.noise_gap(result_of(noise=np.array([0.002]), **far))
    mosaic = result_of(**far)
    mosaic.preparation.frames[0].cfa_pattern = "RGGB"
    assert "undebayered (RGGB)" in sentences.noise_gap(mosaic)
    mosaic.preparation.frames[0].channels = 3
    assert "undebayered" not in sentences.noise_gap(mosaic)
    unknown = {"allowed_noise_ratio": np.array([np.nan])}
    assert sentences.noise_gap(result_of(**far, **unknown)) == ""
    assert "allow" not in sentences.noise_in_words(result_of(**far, **unknown))


def test_a_fixed_pattern_is_warned_about_when_saving(tmp_path):
    rng = np.random.default_rng(7)
    pattern = rng.normal(0, 0.004, (64, 64))
    (tmp_path / "4_Registered").mkdir()
    for i in range(9):
        image = 0.1 + pattern + rng.normal(0, 0.004, pattern.shape)
        fits.write_image(tmp_path / "4_Registered" / f"f{i}.fits", image.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        result = sl.integrate(tmp_path / "4_Registered", progress=False)
    with pytest.warns(sl.StacklibWarning, match="same in all frames"):
        result.save()
    report = re.sub(r"\s+", " ", result.saved.report.read_text())
    assert "although these frames allow" in report and "fixed pattern" in report


def test_sentences_about_the_sample(m13, m101):
    for result in (m13, m101):
        assert "although" not in sentences.noise_in_words(result)
        assert "frame " in sentences.frames_in_words(result)
    assert "frame 17" in sentences.frames_in_words(m101)


def test_shifts_are_a_reason_for_a_gap():
    shift = np.zeros((12, 2))
    shift[3] = 1.5, 2
    said = sentences.noise_gap(
        result_of(noise_ratio=np.array([0.45]), allowed_noise_ratio=np.array([0.3]), shift=shift)
    )
    assert "they lie up to 2.5 px from each other" in said
