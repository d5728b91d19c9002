"""A pedestal that calibration added is no light: it is neither scaled nor compared."""

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.frames.frame import Frame

PEDESTALS = (100, 250, -100, 0)
GAINS = (1.0, 0.5, 0.8, 0.9)


def write(folder, pedestals=PEDESTALS, told=True):
    """Save frames of one sky of different transparency, each on its pedestal; return the sky."""
    rng = np.random.default_rng(3)
    sky = 800 + 300 * rng.random((40, 50))
    folder.mkdir()
    for i, (pedestal, gain) in enumerate(zip(pedestals, GAINS, strict=True)):
        samples = (gain * sky + abs(pedestal)).astype(np.float32)
        header = fits.Header({"PEDESTAL": pedestal} if told else {})
        fits.PrimaryHDU(samples, header).writeto(folder / f"l{i}_c_d_r.fits")
    return sky


def integrate(folder, **changes):
    recipe = sl.Recipe(rejection="none", weights="none", reference="l0_c_d_r", **changes)
    return sl.integrate(folder, recipe, progress=False)


@pytest.mark.parametrize("told", [True, False])
def test_multiplicative_normalization_scales_above_the_pedestal(tmp_path, told):
    sky = write(tmp_path / "frames", told=told)
    changes = {"normalization": "multiplicative", "rejection_normalization": "equalize_fluxes"}
    if told:
        with pytest.warns(
            sl.StacklibWarning, match=r"PEDESTAL 0 to 250 ADU: .* the image has that of the ref"
        ):
            result = integrate(tmp_path / "frames", **changes)
    else:
        result = integrate(tmp_path / "frames", **changes)
    error = np.abs(result.image[0] - (sky + 100)).max()
    assert (error < 0.01) == told


def test_levels_of_rejection_are_above_the_pedestal(tmp_path):
    write(tmp_path / "frames", (100, 100, 100, 100))
    with pytest.warns(sl.StacklibWarning, match="PEDESTAL 100 ADU"):
        result = integrate(
            tmp_path / "frames", normalization="none", rejection_normalization="equalize_fluxes"
        )
    p = result.preparation
    median = p.measurements.location[:, 0] * p.rejection_factor[:, 0] + p.rejection_offset[:, 0]
    np.testing.assert_allclose(median, p.measurements.location[0, 0] - 100, rtol=1e-6)


def test_equal_pedestals_change_nothing_in_an_additive_match(tmp_path):
    write(tmp_path / "told", (100, 100, 100, 100))
    write(tmp_path / "untold", (100, 100, 100, 100), told=False)
    told, untold = integrate(tmp_path / "told"), integrate(tmp_path / "untold")
    np.testing.assert_allclose(told.image, untold.image, rtol=1e-6)


def test_a_pedestal_that_is_no_number_is_left_out_with_a_word(tmp_path):
    file = tmp_path / "a.fits"
    fits.PrimaryHDU(np.ones((4, 4), np.float32), fits.Header({"PEDESTAL": "high"})).writeto(file)
    with pytest.warns(sl.StacklibWarning, match="PEDESTAL is 'high', expected ADU"):
        frame = Frame(file)
    assert frame.pedestal == 0
