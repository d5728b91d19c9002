"""Light of stars relative to a stack, whatever the seeing."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_stars import SHAPE, field, smear

from stacklib.measurement.light.photometry import compare_stars, make_template
from stacklib.measurement.light.structure import compare_structure


@pytest.mark.parametrize("power", [2.6, 3.0, 4.2])
@pytest.mark.parametrize("fwhm", [2.5, 3.2, 4.4])
def test_light_does_not_depend_on_the_seeing(power, fwhm):
    template, _ = make_template(field(3.2, power) + np.float32(0.1))
    template = template._replace(power=power)
    light, seeing, fluxes = compare_stars(0.6 * field(fwhm, power) + np.float32(0.2), template)
    assert light.ratio == pytest.approx(0.6, rel=0.006)
    assert light.count > 25 and light.known
    assert seeing / template.fwhm == pytest.approx(fwhm / 3.2, rel=0.02)
    assert fluxes.own.shape == fluxes.stack.shape == template.x.shape


@pytest.mark.parametrize("fwhm", [2.7, 3.2, 3.9])
def test_light_does_not_depend_on_what_smears_stars(fwhm):
    template, _ = make_template(smear(field(3.2), 0.12) + np.float32(0.1))
    widths = []
    for variance in (0.0, 0.25):
        light, width, _ = compare_stars(0.6 * smear(field(fwhm), variance), template)
        assert light.ratio == pytest.approx(0.6, rel=0.0025)
        widths.append(width)
    # Less than their middles do, since the wings stay as they are.
    assert 1.03 < widths[1] / widths[0] < 1.12


def test_much_wider_stars_keep_their_light():
    template, _ = make_template(field(2.6) + np.float32(0.1))
    light, seeing, _ = compare_stars(0.6 * field(4.6), template)
    assert light.ratio == pytest.approx(0.6, rel=0.006)
    assert seeing / template.fwhm == pytest.approx(4.6 / 2.6, rel=0.03)


def test_stars_that_disagree_are_trusted_less():
    rng, stack = np.random.default_rng(6), field(3.2)
    template, _ = make_template(stack + np.float32(0.1))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    # A pattern of 6 % that no flat field took out, finer than the field and larger than a star.
    pattern = 1 + 0.06 * np.sin(x / 7) * np.sin(y / 7)
    noise = rng.normal(0, 1e-3, SHAPE)
    same, uneven = (
        compare_stars((stack * each + noise).astype(np.float32), template)[0] for each in (1, pattern)
    )
    assert uneven.error > 2 * same.error
    assert abs(uneven.ratio - 1) < 3 * uneven.error


def test_the_claimed_error_is_that_of_many_trials():
    rng, stack = np.random.default_rng(3), field(3.2)
    template, _ = make_template(stack + np.float32(0.1))
    found = [
        compare_stars(0.5 * stack + rng.normal(0, 0.02, SHAPE).astype(np.float32), template)[0]
        for _ in range(30)
    ]
    ratios = np.array([light.ratio for light in found])
    assert ratios.mean() == pytest.approx(0.5, abs=4 * ratios.std() / np.sqrt(30) + 1e-3)
    assert np.median([light.error for light in found]) == pytest.approx(ratios.std(), rel=0.6)


def test_a_few_bad_stars_change_nothing():
    stack = field(3.2)
    template, _ = make_template(stack + np.float32(0.1))
    other = 0.7 * stack
    for k in (0, 3, 7):
        row, column = round(template.y[k]), round(template.x[k])
        other[row - 1 : row + 2, column - 1 : column + 2] += 0.5
    other[:, 40:44] = np.nan
    light, _, fluxes = compare_stars(other, template)
    assert light.ratio == pytest.approx(0.7, rel=0.003)
    assert np.isnan(fluxes.own[np.abs(template.x - 42) < 3]).all()


def test_no_stars_tell_nothing():
    rng = np.random.default_rng(1)
    noise = rng.normal(0.1, 0.01, SHAPE).astype(np.float32)
    template, _ = make_template(noise)
    light, fwhm, _ = compare_stars(noise, template)
    assert not light.known and np.isnan(fwhm)
    assert not compare_structure(noise, rng.normal(0.1, 0.01, SHAPE).astype(np.float32)).known


def test_an_unknown_profile_makes_the_light_less_certain():
    template, _ = make_template(field(3.2, 3.0) + np.float32(0.1))
    template = template._replace(power=2.4, power_error=0.2)
    same, sharper = (compare_stars(field(width, 3.0), template)[0] for width in (3.2, 2.6))
    assert abs(same.ratio - 1) < 0.003 and same.error < 0.004
    assert 0.01 < abs(sharper.ratio - 1) < 2 * sharper.error
    certain, _, _ = compare_stars(field(2.6, 3.0), template._replace(power_error=0.0))
    assert certain.error < 0.5 * sharper.error
