"""Frames and channels without an image: left out or left as they are, with a word."""

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import IntegrationError
from stacklib.formats import fits
from stacklib.measurement.measurements import measure_frames
from stacklib.normalization.preparation import prepare
from stacklib.normalization.usable import find_usable

SHAPE = 48, 64
BROKEN = {"black": 0.0, "white": 1.0, "gray": 0.1, "nan": np.nan}


def frames_of(folder, stack):
    """Frames of a stack, (frames, channels, height, width)."""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(np.asarray(stack, np.float32)):
        fits.write_image(folder / f"f{i}.fits", image, [("ROWORDER", "TOP-DOWN", "")])
    return sl.open_frames(folder)


def night(count=5, channels=1, seed=1):
    return np.random.default_rng(seed).normal(0.1, 0.004, (count, channels, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_without_an_image_is_left_out(tmp_path, kind, channels):
    stack = night(channels=channels)
    stack[2] = BROKEN[kind]
    p = prepare(frames_of(tmp_path, stack), sl.Recipe())
    assert p.used.tolist() == [0, 1, 3, 4]
    assert list(p.excluded) == [2]
    assert p.reference != 2
    [note] = [note for note in p.notes if "hold no image" in note]
    assert note.startswith("1 of 5 frames") and "f2.fits" in note
    for table in (p.factor, p.offset, p.rejection_factor, p.rejection_offset, p.weights):
        assert np.isfinite(table).all()
    assert not p.weights[2].any()


@pytest.mark.parametrize("kind", BROKEN)
def test_the_others_are_prepared_as_without_it(tmp_path, kind):
    stack = night(6)
    without = prepare(frames_of(tmp_path / "without", stack), sl.Recipe())
    stack = np.insert(stack, 3, BROKEN[kind], axis=0)
    found = prepare(frames_of(tmp_path / "with", stack), sl.Recipe())
    rest = [0, 1, 2, 4, 5, 6]
    for name in ("factor", "offset", "weights", "scale", "rejection_factor", "rejection_offset"):
        np.testing.assert_array_equal(getattr(found, name)[rest], getattr(without, name))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_channel_without_an_image_in_all_frames_is_left_as_it_is(tmp_path, kind):
    stack = night(channels=3)
    three = prepare(frames_of(tmp_path / "three", stack), sl.Recipe(reference="f1"))
    stack[:, 2] = BROKEN[kind]
    p = prepare(frames_of(tmp_path / "two", stack), sl.Recipe(reference="f1"))
    assert p.used.tolist() == [0, 1, 2, 3, 4]
    assert any(note.startswith("channel 3 (blue) holds no image in any frame") for note in p.notes)
    np.testing.assert_array_equal(p.factor[:, 2], 1)
    np.testing.assert_array_equal(p.offset[:, 2], 0)
    np.testing.assert_array_equal(p.factor[:, :2], three.factor[:, :2])


def test_a_frame_without_one_of_its_channels_is_left_out(tmp_path):
    stack = night(channels=3)
    stack[1, 0] = 0
    p = prepare(frames_of(tmp_path, stack), sl.Recipe())
    assert p.excluded == {1: "channel 1 (red): all samples are 0"}


def test_too_few_are_left(tmp_path):
    stack = night(3)
    stack[0], stack[2] = 0, np.nan
    with pytest.raises(IntegrationError, match=r"2 of 3 frames.*f0\.fits.*all samples are 0.*f2\.fits.*NaN"):
        prepare(frames_of(tmp_path, stack), sl.Recipe())


def test_nothing_is_left(tmp_path):
    with pytest.raises(IntegrationError, match=r"f0\.fits.*no valid samples \(all samples are 0\)"):
        prepare(frames_of(tmp_path, np.zeros((3, 3, *SHAPE))), sl.Recipe())


def test_a_broken_reference_is_refused(tmp_path):
    stack = night()
    stack[2] = 1
    with pytest.raises(IntegrationError, match=r"reference: f2\.fits holds no image \(all samples are 1\)"):
        prepare(frames_of(tmp_path, stack), sl.Recipe(reference="f2"))


def test_constant_frames_among_themselves_are_images(tmp_path):
    stack = night(4)
    stack[:] = np.array([0.1, 0.1, 0.2, 0.1], np.float32)[:, None, None, None]
    usable = find_usable(measure_frames(frames_of(tmp_path, stack)))
    assert usable.frames == [0, 1, 2, 3]
    assert usable.notes == []


def test_all_saturated_or_without_data(tmp_path):
    stack = night()
    stack[1, 0, :20], stack[1, 0, 20:] = 0, 1
    p = prepare(frames_of(tmp_path, stack), sl.Recipe())
    assert p.excluded == {1: "all samples are saturated or no data, the largest is 1"}
