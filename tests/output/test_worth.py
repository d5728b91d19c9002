"""What a frame is worth, against what happens without it."""

import numpy as np
import pytest

import stacklib as sl
from stacklib.normalization.preparation import prepare
from stacklib.output.worth import best_gains, frame_gains, gain_of_another, worth_in_words
from stacklib.simulate import simulate_night

pytest.importorskip("sep")
RECIPE = sl.Recipe(
    normalization="photometric",
    rejection_normalization="photometric",
    weights="measured",
    rejection="none",
    min_weight=0,
)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    night = simulate_night(14, 360, 480, 1, "field", 5204, noise=(1, 1.5), registration="lanczos")
    folder = tmp_path_factory.mktemp("night")
    night.save(folder, "fits", "f32")
    return night, sl.open_frames(folder)


def true_ratio(night, p, chosen):
    """Starlight over noise of the average, from the truth."""
    light = np.array(night.transparency)[chosen]
    sigma = np.array(night.sky_sigma).reshape(len(night.transparency), -1)[chosen, 0]
    share = p.weights[p.used, 0] * p.factor[p.used, 0]
    return (share * light).sum() / np.sqrt(((share * sigma) ** 2).sum())


def test_the_gain_is_that_of_leaving_a_frame_out(night):
    night, frames = night
    p = prepare(frames, RECIPE)
    told = frame_gains(p)
    everything = np.arange(14)
    for i in (0, int(np.argmin(told)), int(np.argmax(told))):
        rest = np.delete(everything, i)
        without = prepare(frames[rest.tolist()], RECIPE)
        actual = true_ratio(night, p, everything) / true_ratio(night, without, rest) - 1
        # The noise of a frame is known to 1 or 2 %.
        assert told[i] == pytest.approx(actual, abs=max(0.005, 0.07 * actual))
    assert np.ptp(told) > 0.03
    np.testing.assert_allclose(told, best_gains(p.photometry.transparency, p.photometry.noise), rtol=1e-6)


def test_the_gain_is_in_the_table_and_in_the_report(night):
    _, frames = night
    result = sl.integrate(frames, RECIPE, progress=False)
    np.testing.assert_allclose(result.frames["gain"], frame_gains(result.preparation))
    text = " ".join(result.report().split())
    assert "Worth of the frames" in text and "another night" not in text
    least = frames.names[int(np.argmin(result.frames["gain"]))]
    assert f"({least}) to" in text
    lines = result.report().splitlines()
    start = next(i for i, line in enumerate(lines) if "transp." in line and "FWHM" in line)
    known = result.preparation.photometry
    for i, line in enumerate(lines[start + 1 : start + 15]):
        _, name, _, transparency, fwhm, *_ = line.split()
        assert name == frames[i].name
        assert float(transparency) == pytest.approx(known.transparency[i].mean(), abs=1e-3)
        assert float(fwhm) == pytest.approx(known.fwhm[i].mean(), abs=5e-3)
    assert all(len(line) <= 100 for line in lines)
    classic = sl.integrate(frames, sl.Recipe(rejection="none"), progress=False)
    assert "Worth of the frames" not in classic.report() and "transp." not in classic.report()
    assert "gain" not in classic.frames.colnames


def test_equal_frames():
    gains = best_gains(np.ones((5, 2)), np.full((5, 2), 0.01))
    np.testing.assert_allclose(gains, np.sqrt(5 / 4) - 1)
    assert gain_of_another(gains) == pytest.approx(np.sqrt(6 / 5) - 1)
    assert np.isnan(gain_of_another(np.full(3, np.nan)))


def test_frames_that_are_not_known_do_not_count():
    transparency = np.array([[1.0], [np.nan], [0.5], [1.0]])
    gains = best_gains(transparency, np.full((4, 1), 0.1))
    clear, cloudy = np.sqrt(2.25 / 1.25) - 1, np.sqrt(2.25 / 2) - 1
    np.testing.assert_allclose(gains, [clear, np.nan, cloudy, clear])
    assert worth_in_words(np.full(4, np.nan), list("abcd")) == []


def test_words():
    said = worth_in_words(np.array([0.05, 0.002, -0.01, 0.1]), ["a", "b", "c", "d"])
    assert said[0].endswith("from -1 % (c) to 10 % (d).")
    assert said[1] == "It would be better without c."
    assert len(said) == 3
