"""Light of stars relative to a stack, whatever the seeing."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib.measurement.photometry import (
    POWER_SPREAD,
    best_power,
    compare_stars,
    compare_structure,
    compare_wings,
    make_template,
)

SHAPE = (220, 300)


def field(fwhm, power=3.0, count=60, shift=0.0, seed=2):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    a = 0.5 * fwhm / np.sqrt(2 ** (1 / power) - 1)
    out = np.zeros(SHAPE)
    for _ in range(count):
        cx, cy, flux = rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0]), rng.uniform(0.5, 6)
        r2 = (x - cx - shift) ** 2 + (y - cy) ** 2
        out += flux * (power - 1) / (np.pi * a * a) * (1 + r2 / a**2) ** -power
    return out.astype(np.float32)


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


def noisy(image, sigma, rng):
    return image + rng.normal(0, sigma, SHAPE).astype(np.float32)


def test_wide_discs_tell_the_power_of_the_profile():
    template, _ = make_template(field(3.2, 4.2) + np.float32(0.1))
    rng = np.random.default_rng(5)
    seen = [noisy(field(width, 4.2), 1e-3, rng) for width in (2.5, 2.9, 3.5, 4.2)]
    power, error = best_power([compare_wings(image, template) for image in seen])
    assert power == pytest.approx(4.2, rel=0.1) and error < 0.1
    # Without any difference of the seeing it is the usual one, within what is usual.
    same = [noisy(field(3.2, 4.2), 1e-2, rng) for _ in range(4)]
    for images in (same, []):
        power, error = best_power([compare_wings(image, template) for image in images])
        assert power == pytest.approx(3.0, rel=0.06) and error == pytest.approx(POWER_SPREAD, rel=0.15)


def test_noise_is_no_other_power():
    widths, away = (2.6, 2.7, 2.9, 3.2, 3.5, 3.75), []
    for seed in range(40, 48):
        rng = np.random.default_rng(seed)
        frames = [noisy(field(width, count=25, seed=seed), 0.02, rng) for width in widths]
        template, _ = make_template(np.mean(frames, axis=0) + np.float32(0.1))
        power, error = best_power([compare_wings(frame, template) for frame in frames])
        away.append(np.log(power / 3) / error)
    assert np.sqrt(np.mean(np.square(away))) < 1.4
    assert np.abs(away).max() < 3


def test_an_unknown_profile_makes_the_light_less_certain():
    template, _ = make_template(field(3.2, 3.0) + np.float32(0.1))
    template = template._replace(power=2.4, power_error=0.2)
    same, sharper = (compare_stars(field(width, 3.0), template)[0] for width in (3.2, 2.6))
    assert abs(same.ratio - 1) < 0.003 and same.error < 0.004
    assert 0.01 < abs(sharper.ratio - 1) < 2 * sharper.error
    certain, _, _ = compare_stars(field(2.6, 3.0), template._replace(power_error=0.0))
    assert certain.error < 0.5 * sharper.error


def test_structure_without_stars():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    cloud = np.exp(-((x - 150) ** 2 + (y - 110) ** 2) / (2 * 15.0**2))
    rng = np.random.default_rng(2)
    stack = (0.1 * cloud + rng.normal(0, 3e-4, SHAPE)).astype(np.float32)
    frame = (0.05 * cloud + 0.2 + 1e-4 * x + rng.normal(0, 1e-3, SHAPE)).astype(np.float32)
    light = compare_structure(frame, stack)
    assert light.known and light.ratio == pytest.approx(0.5, rel=0.03)
