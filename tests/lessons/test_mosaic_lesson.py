"""The lesson of notebook 6: what its texts claim is true of its experiments."""

from __future__ import annotations

import numpy as np
import pytest

from stacklib import lessons
from stacklib.lessons import mosaic_plots
from stacklib.lessons.mosaic import WAYS, star_width


@pytest.fixture(scope="module")
def found() -> lessons.Mosaics:
    return lessons.mosaics()


@pytest.fixture(scope="module")
def tried() -> lessons.Seeing:
    return lessons.seeing()


def test_red_and_blue_gain_most(found):
    gain = [1 - found.fwhm("drizzled", channel) / found.fwhm("bilinear", channel) for channel in range(3)]
    assert gain[0] > 0.15 and gain[2] > 0.15 and 0.03 < gain[1] < min(gain[0], gain[2])
    assert found.fwhm("drizzled, scale 2", 1) < found.fwhm("drizzled", 1)
    assert "drizzled, scale 2: FWHM red / green / blue" in found.words


def test_a_dark_ring_is_what_makes_malvar_narrow(found):
    star = found.stars[0]
    x, y = round(found.night.scene.x[star]), round(found.night.scene.y[star])
    ring = {}
    for way in ("truth", "bilinear", "Malvar", "drizzled"):
        image = found.truth("drizzled") if way == "truth" else found.images[way]
        around = image[:, y - 4 : y + 5, x - 4 : x + 5]
        ring[way] = around.min() / around.max()
    assert ring["Malvar"] < -0.01 and min(ring["bilinear"], ring["drizzled"]) > -0.01
    assert found.fwhm("Malvar", 1) < found.fwhm("bilinear", 1)


def test_drizzle_keeps_the_noise_of_neighbors_apart(found):
    drizzled, bilinear, finer = (
        found.neighbors(way) for way in ("drizzled", "bilinear", "drizzled, scale 2")
    )
    assert drizzled < 0.3 < bilinear < finer
    assert found.noise("drizzled") > 1.2 * found.noise("bilinear")
    assert found.large_noise("drizzled") == pytest.approx(found.large_noise("bilinear"), rel=0.15)
    correlation = found.correlation("bilinear")
    assert correlation[4, 4] == 1 and np.allclose(correlation, correlation[::-1, ::-1])
    # Far pixels are independent.
    assert abs(correlation[[0, 0, 8, 8], [0, 8, 0, 8]]).max() < 0.1


def test_images_are_the_truth_where_much_light_is(found):
    for way, scale in WAYS.items():
        edge, side = round(20 * scale), round(8 * scale)
        true, image = (
            planes[:, edge:-edge, edge:-edge][:, : 15 * side, : 21 * side]
            .reshape(3, 15, side, 21, side)
            .mean(axis=(2, 4))
            for planes in (found.truth(way), found.images[way])
        )
        bright = true > 0.03
        assert bright.any() and np.abs(image[bright] / true[bright] - 1).max() < 0.04


def test_width_of_a_star_is_that_of_its_gaussian(found):
    night, stars = found.night, found.stars
    rows, columns = np.indices((160, 208))
    plane = sum(
        3 * np.exp(-0.5 * ((rows - night.scene.y[s]) ** 2 + (columns - night.scene.x[s]) ** 2) / 1.3**2)
        for s in stars
    )
    assert star_width(plane + 7, night, stars, 1.0) == pytest.approx(2.3548 * 1.3, rel=0.02)


def test_wide_stars_leave_little_to_gain(tried):
    drizzled, bilinear = tried.wider("drizzled"), tried.wider("bilinear")
    gain = bilinear - drizzled
    assert (gain > 0).all() and (np.diff(gain[:, 0]) < 0).all()
    assert gain[0, 0] > 0.3 and gain[-1, 0] < 0.1
    for way in ("bilinear", "Malvar", "drizzled, scale 2"):
        assert (tried.false_color["drizzled"] < tried.false_color[way]).all()
    finer = 1 - tried.found["drizzled, scale 2"] / tried.found["drizzled"]
    assert finer[0, 1] > 0.03 > finer[-1, 1]
    assert tried.words.count("\n") == 1


def test_without_dither_holes_are_where_no_site_of_a_color_is(found):
    still = found.without_dither()
    assert still.holes.tolist() == [0.75, 0.5, 0.75] and still.dither == 0
    assert "leaves holes of 75 %" in still.verdict


def test_figures_draw(found, tried):
    for name in mosaic_plots.__all__:
        figure = getattr(mosaic_plots, name)(tried if name == "figure_seeing" else found)
        figure.canvas.draw()
        assert figure.get_suptitle()
        assert all(axes.get_title(loc="left") or axes.get_ylabel() for axes in figure.axes)
