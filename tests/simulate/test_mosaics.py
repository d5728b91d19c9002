"""Simulated unregistered frames: light, geometry and files."""

import numpy as np
import pytest

from stacklib.formats.xdrz import read_xdrz
from stacklib.frames.frame import Frame
from stacklib.simulate import simulate_dithered


@pytest.fixture(scope="module")
def night():
    return simulate_dithered(4, 60, 80, seed=5, rotation=2.0, full_well=1e9, cosmic_rays=0, hot_pixels=0)


def test_light_is_summed_over_pixels(night):
    # The light of a star does not depend on where in a pixel it lies, nor on the scale.
    inside = (night.scene.x > 8) & (night.scene.x < 71) & (night.scene.y > 8) & (night.scene.y < 51)
    total = night.scene.flux[:, inside].sum(axis=1)
    fine, coarse = night.truth(3.0).sum(axis=(1, 2)) / 9, night.truth().sum(axis=(1, 2))
    assert np.allclose(fine, coarse, rtol=2e-3) and (coarse > total).all()


def test_frames_are_mosaics_of_the_light(night):
    frame, full = night.frame(2), night.sky[2][:, None, None] + night.transparency[2] * night.light(2)
    assert frame.shape == (1, 60, 80)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        assert np.allclose(frame[0, row::2, column::2], full[channel, row::2, column::2], atol=1e-4)


def test_registered_frames_lie_on_the_reference(night):
    still = night.registered(2, "malvar")
    truth = night.truth()
    assert still.shape == (3, 60, 80) and (still == 0).any()
    good = (still > 0).all(axis=0)
    for channel in range(3):
        seen = (still[channel] - night.sky[2, channel]) / night.transparency[2]
        assert np.corrcoef(seen[good], truth[channel][good])[0, 1] > 0.95


def test_saved_nights(night, tmp_path):
    unregistered, registered = night.save(tmp_path, dtype="f32")
    assert unregistered[0].name == "Simulated_Light_0001_c.xisf"
    assert registered[0].name == "Simulated_Light_0001_c_d_r.xisf"
    frame = Frame(unregistered[2])
    assert frame.cfa_pattern == "RGGB" and np.array_equal(frame.read(), night.frame(2))
    data = read_xdrz(registered[2].with_suffix(".xdrz"))
    assert data.source_names == (unregistered[2].name,) * 2 and data.pattern == "RGGB"
    assert np.abs(data.corner_matrix - night.matrices[2]).max() < 1e-9
    night.save(tmp_path, dtype="f32", overwrite=True)


def test_frames_without_a_pattern():
    night = simulate_dithered(2, 40, 50, seed=1, pattern="", channels=1, sky=0.03)
    assert night.frame(1).shape == night.registered(1).shape == (1, 40, 50)
    assert night.drizzle_data(0, "a.xisf").cfa_source == ""
