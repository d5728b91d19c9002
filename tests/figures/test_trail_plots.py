"""The trails found, drawn frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colors

import stacklib as sl
from stacklib import notebook
from stacklib.figures.look import NEIGHBOURS
from stacklib.figures.trail_plots import figure_trails, residual_picture, trails_in_words
from stacklib.spatial.lines import Line, line_mask

pytestmark = pytest.mark.filterwarnings("ignore::stacklib.StacklibWarning")


@pytest.fixture(scope="module")
def name(trailed) -> str:
    return trailed.preparation.measurements.names[3]


def lines(axes) -> list[tuple[str, bool]]:
    """Style and whether it is the color of what was rejected."""
    return [(line.get_linestyle(), colors.same_color(line.get_color(), NEIGHBOURS)) for line in axes.lines]


def test_every_trail_is_drawn_with_its_number_and_brightness(trailed, name):
    figure = figure_trails(trailed)
    figure.canvas.draw()
    first, second = figure.axes
    assert first.get_title(loc="left").startswith("Frame 4: ")
    assert second.get_title(loc="left").startswith("Frame 7: ")
    for axes, sigma in ((first, 3.0), (second, 25.0)):
        (text,) = (text.get_text() for text in axes.texts)
        number, words = text.split(": ")
        assert number == "1" and float(words.split()[0]) == pytest.approx(sigma, rel=0.3)
        assert lines(axes) == [("-", True)] * 2
    assert "2 trails found in 2 of 10 frames" in figure.get_suptitle()
    assert f"set ignore_trails to its name, as {name}:0,36-169,90" in figure.get_suptitle()


def test_an_ignored_trail_is_dashed(trailed_folder, trailed):
    recipe = sl.Recipe(footprints="trails", ignore_trails=[trailed.trails["name"][0]])
    result = sl.integrate(trailed_folder, recipe, progress=False)
    first, second = figure_trails(result).axes
    assert lines(first) == [("--", False)] * 2 and lines(second) == [("-", True)] * 2
    assert "of which 1 is not rejected (dashed)" in trails_in_words(result)


def test_a_region_shows_the_trails_in_its_place(trailed_folder, trailed):
    part = sl.integrate(trailed_folder, trailed.recipe, region=(50, 20, 100, 90), progress=False)
    axes = figure_trails(part).axes[0]
    assert axes.get_xlim() == (49.5, 149.5) and axes.get_ylim() == (109.5, 19.5)
    (text,) = axes.texts
    assert 50 <= text.xy[0] < 150 and 20 <= text.xy[1] < 110


def test_residual_shows_what_the_frame_has_more(trailed):
    picture, side = residual_picture(trailed, 4)
    row = trailed.trails[0]
    line = Line(*(float(row[k]) for k in ("x0", "y0", "x1", "y1")), 2.0, 1.0, 1.0)
    height, width = picture.shape
    on = line_mask(line, trailed.image.shape[1:])[: height * side, : width * side]
    bins = on.reshape(height, side, width, side).mean(axis=(1, 3)) >= 0.5
    known = np.isfinite(picture)
    assert np.nanmedian(picture) == pytest.approx(0, abs=1e-6)
    assert picture[bins & known].mean() > 2.5
    assert abs(picture[~bins & known].mean()) < 0.2
    # The border of the frame without data is left out.
    blank = trailed.preparation.frames[3].read()[0, : height * side, : width * side] == 0
    assert not known[blank.reshape(height, side, width, side).all(axis=(1, 3))].any()


def test_words_without_trails(trailed, trailed_folder):
    off = sl.integrate(trailed_folder, sl.Recipe(), progress=False)
    assert trails_in_words(off) == figure_trails(off).get_suptitle()
    assert "footprints is off" in trails_in_words(off)
    with pytest.raises(ValueError, match="frames: got 12, expected the number of an integrated frame"):
        figure_trails(trailed, [12])
    # A frame without a trail is drawn if it is asked for.
    assert [lines(axes) for axes in figure_trails(trailed, [1]).axes] == [[]]


def test_a_notebook_says_whether_there_are_trails(trailed, trailed_folder, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    notebook.show_trails(trailed)
    assert capsys.readouterr().out == "2 trails found in 2 of 10 frames.\n" and len(shown) == 1
    notebook.show_trails(sl.integrate(trailed_folder, sl.Recipe(), progress=False))
    assert "footprints is off" in capsys.readouterr().out and len(shown) == 1
