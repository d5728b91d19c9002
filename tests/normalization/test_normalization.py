"""Coefficients of the normalizations."""

import numpy as np
import pytest

from stacklib.errors import IntegrationError
from stacklib.normalization.matching import output_coefficients, rejection_coefficients, scale_factors
from stacklib.recipe.recipe import BY_LIGHT, Recipe

RNG = np.random.default_rng(1)
LOCATION = RNG.uniform(0.05, 0.3, (5, 3))
LOW = RNG.uniform(0.002, 0.004, (5, 3))
HIGH = RNG.uniform(0.003, 0.009, (5, 3))
REFERENCE = 2
#: Modes by level and spread; those by starlight are in test_photometric.py.
OUTPUT = [mode for mode in Recipe.parameters()["normalization"].choices if mode not in BY_LIGHT]
REJECTION = [mode for mode in Recipe.parameters()["rejection_normalization"].choices if mode not in BY_LIGHT]


def expected(mode, x, i, c):
    """The formulas as they are written down."""
    m_i, m_r = LOCATION[i, c], LOCATION[REFERENCE, c]
    k_i = (LOW[REFERENCE, c] / LOW[i, c] + HIGH[REFERENCE, c] / HIGH[i, c]) / 2
    return {
        "none": x,
        "additive": x + (m_r - m_i),
        "multiplicative": x * m_r / m_i,
        "equalize_fluxes": x * m_r / m_i,
        "additive_scaling": (x - m_i) * k_i + m_r,
        "scale_zero_offset": (x - m_i) * k_i + m_r,
        "multiplicative_scaling": (x / m_i) * k_i * m_r,
    }[mode]


@pytest.mark.parametrize("mode", OUTPUT + REJECTION)
def test_formulas(mode):
    function = rejection_coefficients if mode in REJECTION else output_coefficients
    factor, offset = function(mode, LOCATION, LOW, HIGH, REFERENCE)
    assert factor.shape == offset.shape == (5, 3)
    assert factor.dtype == offset.dtype == np.float64
    for i in range(5):
        for c in range(3):
            for x in (0.0, 0.1, 0.9):
                assert x * factor[i, c] + offset[i, c] == pytest.approx(expected(mode, x, i, c), abs=1e-14)


@pytest.mark.parametrize("mode", OUTPUT)
@pytest.mark.parametrize("reference", range(5))
def test_the_reference_is_left_as_it_is(mode, reference):
    factor, offset = output_coefficients(mode, LOCATION, LOW, HIGH, reference)
    assert np.all(factor[reference] == 1)
    assert np.all(offset[reference] == 0)


def test_matched_frames_agree():
    """Frames that differ by an affine map become equal to the reference."""
    sky = RNG.normal(0.2, 0.01, 1000)
    gain, pedestal = np.array([1.0, 0.7, 1.3])[:, None], np.array([0.0, 0.05, -0.02])[:, None]
    frames = gain * sky + pedestal
    location = np.median(frames, axis=1, keepdims=True)
    low, high = 0.01 * gain, 0.012 * gain
    factor, offset = output_coefficients("additive_scaling", location, low, high, 0)
    assert np.allclose(frames * factor + offset, sky, rtol=0, atol=1e-12)


def test_scale_factor_of_the_two_sides():
    k = scale_factors([[1.0], [2.0]], [[1.0], [4.0]], 0)
    assert k.tolist() == [[1.0], [0.375]]


def test_constant_frames():
    low, high = LOW.copy(), HIGH.copy()
    low[1], high[1] = 0, 0
    assert np.all(scale_factors(low, high, REFERENCE)[1] == 1)
    low[:, 0], high[:, 0] = 0, 0
    assert np.all(scale_factors(low, high, REFERENCE)[:, 0] == 1)
    with pytest.raises(IntegrationError, match=r"b\.xisf: all samples are equal.*Choose another reference"):
        scale_factors(low, high, 1, ["a.xisf", "b.xisf", "c.xisf", "d.xisf", "e.xisf"])


@pytest.mark.parametrize("mode", ["multiplicative", "multiplicative_scaling", "equalize_fluxes"])
@pytest.mark.parametrize("value", [0.0, -0.1])
def test_locations_to_divide_by_must_be_positive(mode, value):
    location = LOCATION.copy()
    location[3, 1] = value
    function = rejection_coefficients if mode in REJECTION else output_coefficients
    with pytest.raises(IntegrationError, match=r"not positive.*: d\. "):
        function(mode, location, LOW, HIGH, REFERENCE, "abcde")
    output_coefficients("additive_scaling", location, LOW, HIGH, REFERENCE)


@pytest.mark.parametrize("mode", [mode for mode in OUTPUT if mode != "none"])
def test_frames_without_statistics(mode):
    location, low, high = LOCATION.copy(), LOW.copy(), HIGH.copy()
    for table in (location, low, high):
        table[4, 0] = np.nan
    with pytest.raises(IntegrationError, match=r"without a valid sample: frame 5\. "):
        output_coefficients(mode, location, low, high, REFERENCE)


def test_unknown_modes():
    with pytest.raises(ValueError, match=r"got .*, expected"):
        output_coefficients("local", LOCATION, LOW, HIGH, REFERENCE)
    with pytest.raises(ValueError, match=r"got .*, expected"):
        rejection_coefficients("additive", LOCATION, LOW, HIGH, REFERENCE)
