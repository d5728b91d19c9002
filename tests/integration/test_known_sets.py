"""What was found by comparing the frames of a set is used again, and only as long as it holds."""

from __future__ import annotations

import os
import shutil
import warnings

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import StacklibWarning
from stacklib.integration import registration, samples
from stacklib.integration.samples import Samples
from stacklib.normalization.light import photometric
from stacklib.normalization.noise_curve import FrameNoise
from stacklib.recipe.presets import with_preset
from stacklib.simulate import simulate_night
from stacklib.utils.package import CACHE_VARIABLE

MEASURED = sl.Recipe(**with_preset({"preset": "measured"}))
PLANES = ("image", "uncertainty", "coverage", "rejection_low", "rejection_high")


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    night = simulate_night(6, 170, 210, 1, "field", 31, transparency=(0.5, 1), gradient=0.02)
    night.save(folder, "fits", "f32")
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Counts how often photometry, shifts and noise are found."""
    counts = dict.fromkeys(("light", "shifts", "noise"), 0)

    def counted(name, find):
        def find_and_count(*args, **more):
            counts[name] += 1
            return find(*args, **more)

        return find_and_count

    for owner, function, name in (
        (photometric, "_measure_photometry", "light"),
        (registration, "measure_shifts", "shifts"),
        (FrameNoise, "measure", "noise"),
    ):
        monkeypatch.setattr(owner, function, counted(name, getattr(owner, function)))
    return counts


def integrate(folder, recipe=MEASURED, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        return sl.integrate(folder, recipe, progress=False, **how)


def same(one, other):
    for name in PLANES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.shift, other.shift)
    for name in ("weight", "scale", "offset", "transparency", "noise"):
        if name in one.frames.colnames:
            np.testing.assert_array_equal(one.frames[name], other.frames[name], err_msg=name)


def test_nothing_is_found_twice(night, calls, tmp_path):
    folder = tmp_path / "frames"
    shutil.copytree(night, folder)
    first = integrate(folder)
    assert calls == {"light": 1, "shifts": 1, "noise": 1}
    same(integrate(folder), first)
    assert first.preparation.photometry.notes == integrate(folder).preparation.photometry.notes
    # Limits change neither light nor noise.
    integrate(folder, MEASURED.replace(sigma_low=2.5, sigma_high=4.0))
    assert calls == {"light": 1, "shifts": 1, "noise": 1}
    # Other normalization compares other values.
    integrate(folder, MEASURED.replace(rejection_normalization="scale_zero_offset"))
    assert calls["light"] == 1 and calls["noise"] == 2
    # A file that changed, and one that is gone.
    path = sorted(folder.glob("*.fits"))[-1]
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    same(integrate(folder), first)
    assert calls["light"] == 2 and calls["shifts"] == 2
    path.unlink()
    integrate(folder)
    assert calls["light"] == 3 and calls["shifts"] == 3


def test_the_bits_do_not_depend_on_memory_and_threads(night, calls, monkeypatch, tmp_path):
    results = []
    for number, how in enumerate((dict(threads=1), dict(threads=3), dict(memory="17MB", threads=2))):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / str(number)))
        results.append(integrate(night, **how))
    assert calls["light"] == 3 and calls["noise"] == 3
    same(results[0], results[1])
    same(results[0], results[2])


def test_frames_that_are_known_are_read_band_by_band(night, monkeypatch):
    classic = sl.Recipe(**with_preset({"preset": "classic"}))
    first = integrate(night, classic)
    monkeypatch.setattr(Samples, "hold", lambda samples: pytest.fail("all frames are read into memory"))
    monkeypatch.setattr(samples, "READ_BYTES", 40 * 4 * first.image.shape[2])
    monkeypatch.setattr(samples, "LEAST_BAND_BYTES", 0)
    again = integrate(night, classic)
    same(first, again)
    assert again.scale_noise.scale == first.scale_noise.scale
