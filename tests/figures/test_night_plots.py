"""The figure of transparency, sky and surfaces."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import IntegrationError, StacklibWarning
from stacklib.figures.night_plots import figure_night
from stacklib.figures.result_plots import figure_before_after, figure_preview
from stacklib.simulate import simulate_night


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    simulate_night(6, 120, 160, 1, "field", 81, transparency=(0.5, 1), gradient=0.02).save(
        folder, "fits", "f32"
    )
    recipes = (
        sl.Recipe(normalization="photometric", allow_unregistered=True),
        sl.Recipe(allow_unregistered=True),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        return [sl.integrate(folder, recipe, progress=False) for recipe in recipes]


def test_the_figure_shows_what_was_found(results):
    figure = figure_night(results[0])
    figure.canvas.draw()
    upper, lower, *pictures = figure.axes
    p = results[0].preparation.photometry
    drawn = upper.lines[0].get_ydata()
    np.testing.assert_allclose(drawn, p.transparency[:, 0])
    assert lower.lines[1].get_xdata().tolist() == (np.flatnonzero(p.anchor[:, 0]) + 1).tolist()
    images = [axes.images[0] for axes in pictures if axes.images]
    assert len(images) == 6
    # The gradients differ, so the surfaces do.
    assert np.ptp([image.get_array()[0, 0] for image in images]) > 0.003
    assert "Transparency from 0." in figure.get_suptitle()


def test_classic_results_have_no_such_figure(results):
    with pytest.raises(IntegrationError, match="normalization: photometric"):
        figure_night(results[1])


@pytest.mark.parametrize("draw", [figure_before_after, figure_preview])
def test_frame_and_image_have_the_same_sky_beside_each_other(results, draw):
    """The background of a measured image is that of several frames."""
    p = results[0].preparation
    apart = np.median(results[0].original) - np.median(p.frames[p.reference].read())
    assert abs(apart) > 0.001
    before, after = (np.ma.median(axes.images[0].get_array()) for axes in draw(results[0]).axes)
    assert abs(before - after) < 0.05
