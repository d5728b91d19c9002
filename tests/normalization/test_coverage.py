"""Frames that cover different parts are compared over what they share."""

import os

import numpy as np
import pytest

import stacklib as sl
from stacklib.formats import fits
from stacklib.measurement import common
from stacklib.measurement.measurements import measure_frames
from stacklib.normalization import coverage
from stacklib.normalization.preparation import prepare

HEIGHT, WIDTH = 64, 96
GRADIENT = np.linspace(0, 0.05, WIDTH)
NOISE = 0.004


def frames_of(folder, stack):
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(np.asarray(stack, np.float32)):
        fits.write_image(folder / f"f{i}.fits", image, [("ROWORDER", "TOP-DOWN", "")])
    return sl.open_frames(folder)


def field(count=8, seed=1):
    r = np.random.default_rng(seed)
    return 0.1 + GRADIENT + r.normal(0, NOISE, (count, HEIGHT, WIDTH))


@pytest.mark.parametrize("empty", [0.0, np.nan])
@pytest.mark.parametrize("mode", ["additive", "multiplicative", "additive_scaling"])
def test_a_gradient_is_no_difference_between_frames(tmp_path, empty, mode):
    stack = field()
    stack[4:, :, WIDTH // 2 :] = empty
    p = prepare(frames_of(tmp_path, stack), sl.Recipe(normalization=mode))
    moved = 0.11 * p.factor + p.offset
    # Without a comparison over the common area these are off by 0.0125.
    np.testing.assert_allclose(moved, 0.11, atol=6 * NOISE / np.sqrt(HEIGHT * WIDTH / 4))
    np.testing.assert_allclose(p.factor, 1, atol=0.05)
    assert any("4 of 8 frames are without data" in note and "50 % to 100 %" in note for note in p.notes)


def test_true_differences_are_found(tmp_path):
    gain, level = np.array([1, 1, 0.8, 1.2, 1, 0.7]), np.array([0, 0.01, 0, 0.02, 0.03, 0])
    stack = field(6) * gain[:, None, None] + level[:, None, None]
    stack[3:, :, : WIDTH // 3] = 0
    p = prepare(frames_of(tmp_path, stack), sl.Recipe(weights="none", reference="f0"))
    np.testing.assert_allclose(p.factor[:, 0] * gain, 1, rtol=0.03)
    np.testing.assert_allclose(p.factor[:, 0] * (0.13 * gain + level) + p.offset[:, 0], 0.13, atol=0.001)


def test_frames_that_cover_alike_keep_their_numbers(tmp_path):
    stack = field()
    plain = prepare(frames_of(tmp_path / "a", stack), sl.Recipe())
    # A border of all frames: measured again over the common area, which is the same.
    stack[:, :20] = 0
    same = prepare(frames_of(tmp_path / "b", stack), sl.Recipe())
    stack[:, :20] = np.nan
    nan = prepare(frames_of(tmp_path / "c", stack), sl.Recipe())
    m = same.measurements
    np.testing.assert_array_equal(same.offset, nan.offset)
    expected = m.location[same.reference] - same.factor * m.location
    np.testing.assert_array_equal(same.offset, expected)
    assert not any("without data" in note for note in plain.notes)


def test_small_borders_are_not_measured_again(tmp_path, monkeypatch):
    stack = field()
    stack[2, :9] = 0
    monkeypatch.setattr(coverage, "measure_common", None)
    prepare(frames_of(tmp_path, stack), sl.Recipe())


def test_frames_beside_each_other_are_named(tmp_path):
    stack = field()
    stack[:5, :, WIDTH // 2 :] = 0
    stack[5:, :, : WIDTH // 2] = 0
    p = prepare(frames_of(tmp_path, stack), sl.Recipe(reference="f0"))
    [note] = [note for note in p.notes if "next to no area" in note]
    assert all(name in note for name in ("f5.fits", "f6.fits", "f7.fits")) and "f1.fits" not in note


def test_the_comparison_is_made_once_for_a_reference(tmp_path, monkeypatch):
    stack = field()
    stack[4:, :, WIDTH // 2 :] = 0
    frames = frames_of(tmp_path, stack)
    measured = measure_frames(frames)
    calls = []

    def counted(*args, **kwargs):
        calls.append(args[2])
        return common.measure_common(*args, **kwargs)

    monkeypatch.setattr(coverage, "measure_common", counted)
    for reference in ("f0", "f0", "f1", "f0"):
        prepare(frames, sl.Recipe(reference=reference), measurements=measured)
    assert calls == [0, 1]


@pytest.mark.parametrize("how", ["threads", "planes", "spread"])
def test_the_result_does_not_depend_on_where_it_is_measured(tmp_path, how):
    stack = field(5)
    stack[2:, :, 60:] = 0
    stack[1, :25] = np.nan
    frames = frames_of(tmp_path, stack)
    measured = measure_frames(frames)
    pairs = [(i, 0) for i in (1, 2, 3, 4)]
    expected = common.measure_common(frames, measured, 0, pairs, threads=1, cache=False)

    def spread(function, jobs):
        for number in reversed(range(len(jobs))):
            yield number, function(*jobs[number])

    arguments = {
        "threads": {"threads": 3},
        "planes": {"planes": lambda i, channel: frames[i].read(channel=channel)},
        "spread": {"spread": spread},
    }[how]
    seen = []
    found = common.measure_common(
        frames,
        measured,
        0,
        pairs,
        progress=lambda done, total: seen.append((done, total)),
        cache=False,
        **arguments,
    )
    for name in common.COMPARED:
        np.testing.assert_array_equal(found.frame[name], expected.frame[name])
        np.testing.assert_array_equal(found.reference[name], expected.reference[name])
    np.testing.assert_array_equal(found.share[:, 0], [1, 1 - 25 / HEIGHT, *[60 / WIDTH] * 3])
    assert seen == [(done, 4) for done in range(1, 5)]


def test_pairs_are_kept_in_the_cache(tmp_path, monkeypatch):
    stack = np.repeat(field(4)[:, None], 3, axis=1)
    stack[2:, :, :, 60:] = 0
    stack[3, 1, 30:] = np.nan
    frames = frames_of(tmp_path, stack)
    measured = measure_frames(frames)
    pairs = [(i, channel) for channel in (0, 1) for i in (1, 2, 3)]
    first = common.measure_common(frames, measured, 0, pairs)
    measure = common._PairMeter.compare
    calls = []
    monkeypatch.setattr(common._PairMeter, "compare", lambda *args: calls.append(args[1:3]) or measure(*args))
    again = common.measure_common(frames, measured, 0, pairs)
    assert calls == []
    for name in common.COMPARED:
        np.testing.assert_array_equal(again.frame[name], first.frame[name])
        np.testing.assert_array_equal(again.reference[name], first.reference[name])
    np.testing.assert_array_equal(again.share, first.share)
    # Other references, and files that have changed, are measured.
    common.measure_common(frames, measured, 1, [(2, 0), (3, 0)])
    assert sorted(calls) == [(2, 0), (3, 0)]
    os.utime(frames[2].path, ns=(1, 1))
    common.measure_common(sl.open_frames([frame.path for frame in frames]), measured, 0, pairs)
    assert calls[2:] == [(2, 0), (2, 1)]


@pytest.mark.parametrize("weights", ["snr", "signal", "median", "mean", "noise"])
def test_weights_do_not_prefer_a_part(tmp_path, weights):
    stack = field()
    stack[4:, :, WIDTH // 2 :] = 0
    p = prepare(frames_of(tmp_path, stack), sl.Recipe(weights=weights, normalization="additive"))
    assert p.weights[4:].mean() == pytest.approx(p.weights[:4].mean(), rel=0.1)
