"""Figures before and after drizzling: they draw, and say what they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colors

import stacklib as sl
from stacklib.drizzle.coverage import Forecast, advise_drizzle
from stacklib.figures import drizzle_plots
from stacklib.figures.look import HIGH
from stacklib.simulate import simulate_dithered

pytestmark = pytest.mark.filterwarnings("ignore::stacklib.StacklibWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    simulate_dithered(8, 90, 110, "field", seed=4, fwhm=1.7).save(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    recipe = sl.DrizzleRecipe(scale=3, drop=0.4)
    return sl.drizzle_forecast(folder / "3_Calibrated", folder / "4_Registered", recipe)


@pytest.fixture(scope="module")
def both(folder):
    integration = sl.integrate(folder / "4_Registered", progress=False)
    options = {"progress": False, "threads": 1}
    return sl.drizzle(folder / "3_Calibrated", integration, sl.DrizzleRecipe(scale=2), **options), integration


def test_dither_and_sampling(expected):
    figure = drizzle_plots.figure_dither(expected)
    figure.canvas.draw()
    whole, within, profile = figure.axes
    assert len(whole.lines[0].get_xdata()) == 8 and len(within.patches) == 4
    inside = np.array(within.lines[0].get_data())
    assert inside.min() >= 0 and inside.max() < 2
    assert "undersampled" in profile.get_title(loc="left")
    assert "8 frames, dithered by up to" in figure.get_suptitle()
    unknown = drizzle_plots.figure_dither(replace(expected, fwhm=np.nan))
    unknown.canvas.draw()
    assert "unknown width" in unknown.get_suptitle()


def test_holes_are_orange_where_no_sample_falls(expected):
    figure = drizzle_plots.figure_coverage(expected)
    figure.canvas.draw()
    for axes, plane, holes in zip(figure.axes[:3], expected.samples, expected.holes, strict=True):
        counts, marks = (np.ma.getmaskarray(image.get_array()) for image in axes.images)
        shown = drizzle_plots._middle(plane[0, 0])
        assert np.array_equal(counts, shown == 0) and np.array_equal(marks, shown != 0)
        assert colors.same_color(axes.images[1].cmap(0), HIGH)
        assert f"holes {100 * holes:.2g} %" in axes.get_title(loc="left")
    assert expected.holes[0] > 0.01
    windows = drizzle_plots._beside(np.arange(4.0).reshape(2, 2, 1, 1) * np.ones((2, 2, 3, 3)))
    assert windows.shape == (8, 8) and np.isnan(windows[3:5]).all() and windows[7, 0] == 2


def test_image_beside_the_integration(both):
    drizzled, integration = both
    for beside, panels in ((integration, 4), (None, 5)):
        figure = drizzle_plots.figure_drizzled(drizzled, beside)
        figure.canvas.draw()
        assert len(figure.axes) == panels
        assert figure.get_suptitle().startswith("8 frames drizzled: 220 x 180 pixels")
        # All of them count pixels of the reference.
        left, right, bottom, top = figure.axes[1].images[0].get_extent()
        assert (left, top) == (-0.5, -0.5) and right - left == 110 and bottom - top == 90


def test_what_was_found_beside_what_was_predicted(both):
    words = drizzle_plots.drizzled_in_words(both[0])
    assert "predicted from the geometry" in words and "large areas is 2.21 times" in words


def test_advice_is_the_smallest_drop_that_is_even(expected, monkeypatch):
    # The same geometry is asked for several times.
    known, predict = {}, Forecast.at

    def at(self, scale, drop):
        key = self.frames, scale, drop
        known[key] = known.get(key) or predict(self, scale, drop)
        return known[key]

    monkeypatch.setattr(Forecast, "at", at)
    advice = advise_drizzle(expected)
    assert len(advice.table) == 9 and set(advice.table["scale"]) == {1, 2, 3}
    for scale in (1, 2, 3):
        rows = advice.table[advice.table["scale"] == scale]
        assert (np.diff(rows["unevenness"]) < 0).all()
    assert f"Advised: scale {advice.scale:g}, drop {advice.drop:g}" in advice.words
    many = simulate_dithered(30, 90, 110, "field", seed=4)
    geometries = [replace(expected.geometries[0], matrix=matrix) for matrix in many.matrices]
    good = replace(expected, geometries=tuple(geometries), frames=30, dither=1.0, fwhm=1.8)
    best = advise_drizzle(good)
    row = best.table[(best.table["scale"] == best.scale) & (best.table["drop"] == best.drop)]
    assert best.scale == 2 and row["unevenness"] <= 30
    assert advise_drizzle(replace(good, fwhm=2.6)).scale == 1
    assert "not known" in advise_drizzle(replace(good, fwhm=np.nan)).words
