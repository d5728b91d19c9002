"""Smooth surfaces that correct the background of the samples."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib.measurement.border import NOTHING
from stacklib.normalization.surfaces import SIZE, Surfaces, basis, block_levels

HEIGHT, WIDTH = 60, 90


def made(period=1, gain=False, limits=(-np.inf, np.inf)):
    rng = np.random.default_rng(5)
    offset = rng.normal(0, 0.1, (2, 1, period, period, SIZE, SIZE))
    offset[1] = 0
    factor = 1 + rng.normal(0, 0.1, offset.shape) if gain else None
    return Surfaces(HEIGHT, WIDTH, offset, factor, limits)


def plainly(surfaces, i, plane):
    """The same correction, pixel by pixel, from whole planes of the surfaces."""
    period = surfaces.offset.shape[2]
    down, across = basis(np.arange(HEIGHT), HEIGHT), basis(np.arange(WIDTH), WIDTH)
    out = plane.astype(float)
    for a in range(period):
        for b in range(period):
            here = np.s_[a::period, b::period]
            if surfaces.gain is not None:
                out[here] *= (down @ surfaces.gain[i, 0, a, b] @ across.T)[here]
            out[here] += (down @ surfaces.offset[i, 0, a, b] @ across.T)[here]
    return out


@pytest.mark.parametrize("period", [1, 2])
@pytest.mark.parametrize("gain", [False, True])
def test_samples_are_corrected_by_their_place(period, gain):
    surfaces = made(period, gain)
    plane = np.random.default_rng(1).uniform(0.1, 0.2, (HEIGHT, WIDTH)).astype(np.float32)
    expected = plainly(surfaces, 0, plane)
    corrected = surfaces.correct(0, 0, plane.copy())
    np.testing.assert_allclose(corrected, expected, atol=1e-6)
    # Any part has the same bits.
    for top, left, height, width in ((0, 0, 1, 90), (7, 13, 5, 31), (59, 89, 1, 1), (20, 1, 40, 88)):
        part = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(surfaces.correct(0, 0, plane[part].copy(), top, left), corrected[part])


def test_what_is_no_data_or_saturated_stays_and_nothing_becomes_it():
    surfaces = made(limits=(float(NOTHING), 0.98))
    plane = np.full((HEIGHT, WIDTH), 0.97, np.float32)
    plane[0, :4] = NOTHING, np.nan, 0.98, 1.0
    corrected = surfaces.correct(0, 0, plane.copy())
    np.testing.assert_array_equal(corrected[0, :4], plane[0, :4])
    rest = corrected.ravel()[4:]
    assert (plainly(surfaces, 0, plane).ravel()[4:] > 0.98).any()
    assert rest.max() < np.float32(0.98) and rest.min() < 0.97


def test_a_frame_without_a_surface_keeps_its_bits():
    plane = np.random.default_rng(1).uniform(0.1, 0.2, (HEIGHT, WIDTH)).astype(np.float32)
    np.testing.assert_array_equal(made().correct(1, 0, plane.copy()), plane)


def test_splines_contain_polynomials():
    x = np.arange(WIDTH)
    splines = basis(x, WIDTH)
    np.testing.assert_allclose(splines.sum(axis=1), 1)
    for degree in (1, 2, 3):
        values = (x / WIDTH) ** degree
        fitted = splines @ np.linalg.lstsq(splines, values, rcond=None)[0]
        np.testing.assert_allclose(fitted, values, atol=1e-12)


def test_rows_some_way_apart_are_corrected_as_in_the_whole():
    surfaces = made(2)
    plane = np.random.default_rng(4).uniform(0.1, 0.2, (HEIGHT, WIDTH)).astype(np.float32)
    corrected = surfaces.correct(0, 0, plane.copy())
    for start, step in ((0, 7), (3, 2), (5, 11)):
        some = surfaces.correct(0, 0, plane[start::step].copy(), start, step=step)
        np.testing.assert_array_equal(some, corrected[start::step])


@pytest.mark.parametrize("side", [16, 32])
def test_levels_of_blocks(side):
    rng = np.random.default_rng(side)
    plane, other = rng.normal(0, 1, (2, HEIGHT, WIDTH)).astype(np.float32)
    plane[rng.random(plane.shape) < 0.05] += 50
    plane[:, 10:14] = np.nan
    structure = rng.random(plane.shape) < 0.1
    plane[structure] += 1000
    away = other - plane * np.float32(0.5)
    found = block_levels(plane, structure, side, other, 0.5)
    expected = []
    for top in range(0, HEIGHT, side):
        for left in range(0, WIDTH, side):
            part = np.s_[top : top + side, left : left + side]
            y, x = np.nonzero(np.isfinite(away[part]) & ~structure[part])
            values = away[part][y, x].astype(float)
            middle = np.median(values)
            near = np.abs(values - middle) <= 3 * 1.4826 * np.median(np.abs(values - middle))
            expected.append((top + y.mean(), left + x.mean(), values[near].mean(), values.size))
    expected = [row for row in expected if row[3] >= 0.2 * side**2]
    for values, known, within in zip(found[:4], np.transpose(expected), (1e-9, 1e-9, 0.02, 0), strict=True):
        np.testing.assert_allclose(values, known, atol=within)
    again = block_levels(away, structure, side)
    np.testing.assert_allclose(again.level, found.level)
