"""Samples that fell to their neighbors: what they belong to, in words, markers and masks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colors

import stacklib as sl
from stacklib.errors import StacklibWarning
from stacklib.explore import story_plots
from stacklib.explore.explain import BY_NEIGHBOURS
from stacklib.explore.masks import BESIDE, frame_verdicts, typical_pixels
from stacklib.figures.look import NEIGHBOURS
from stacklib.kernel.verdicts import HIGH, KEPT
from stacklib.spatial.fallen import line_at, why_masked
from stacklib.spatial.lines import Line, line_mask
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.means import ABOVE, COLOUR, FOOTPRINT, LARGE_HIGH, LINE, MEANS, OWN

SHAPE = 120, 300
LINES = [
    Line(20.0, 30.0, 180.0, 90.0, 6.0, 2.14, 30.0),
    Line(10.0, 100.0, 290.0, 100.0, 4.0, 9.0, 50.0),
]


@pytest.fixture
def masks() -> FrameMasks:
    flags = np.zeros(SHAPE, np.uint8)
    for line in LINES:
        flags[line_mask(line, SHAPE)] |= LINE | ABOVE
    flags[10:13, 40:45] = FOOTPRINT
    flags[12:16, 45] = FOOTPRINT
    flags[20:24, 250:] = LARGE_HIGH | ABOVE
    flags[50:53, 200:203] = COLOUR | ABOVE
    flags[5, 5] = OWN
    found = FrameMasks((0, 0, SHAPE[1], SHAPE[0]), lines={2: LINES})
    found.put(2, 1, flags)
    return found


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((100, 60), "trail 1, 171 px long, 2.1 sigma, found as a line"),
        ((150, 100), "trail 2, 280 px long, 9.0 sigma, found as a line"),
        ((42, 11), "footprint of 19 px, found in the smoothed frame"),
        ((280, 22), "large-scale structure of 200 px"),
        ((201, 51), "beside a hit over 5 sigma, in its own or another color channel"),
        ((5, 5), "your mask"),
        ((150, 5), ""),
    ],
)
def test_each_means_says_what_it_found(masks, place, words):
    assert why_masked(masks, 2, 1, *place) == words


def test_a_large_footprint_is_not_measured_to_its_end(masks):
    flags = np.full((400, 500), FOOTPRINT, np.uint8)
    masks.region = (0, 0, 500, 400)
    masks.put(0, 0, flags)
    assert why_masked(masks, 0, 0, 250, 200).startswith("footprint of at least 40401 px")


def test_every_pixel_of_a_line_knows_it(masks):
    for k, line in enumerate(LINES):
        inside = line_mask(line, SHAPE)
        for y, x in np.argwhere(inside)[::7]:
            assert line_at(masks, 2, int(x), int(y)) == (k + 1, line)
    assert line_at(masks, 2, 150, 5) is None and line_at(masks, 0, 100, 60) is None
    masks.unused[2, 0] = "ignored"
    assert line_at(masks, 2, 100, 60) is None


@pytest.fixture(scope="module")
def place(trailed) -> dict[str, int]:
    """A pixel on the faint trail."""
    line = trailed.trails[trailed.trails["file"] == trailed.preparation.measurements.names[3]][0]
    return {name: round(float(line[f"{name}0"] + line[f"{name}1"]) / 2) for name in "xy"}


def test_story_of_a_trail(trailed, place):
    story = sl.explain(trailed, **place)
    assert story.verdict[3] == HIGH and story.fallen == np.count_nonzero(story.flags) >= 1
    assert (
        story.reasons[3].startswith("rejected high: trail 1, 1")
        and "sigma, found as a line" in story.reasons[3]
    )
    assert story.means == ("footprint", "line")
    assert story.fates(1)[3] == BY_NEIGHBOURS + [means.name for means in MEANS].index("line")
    assert np.array_equal(story.fates(1) == KEPT, story.rounds[0].verdict == KEPT)
    text = str(story)
    assert "Rejected for their neighbors: 0004 (trail" in text and "for their neighbors)" in story.summary
    assert max(map(len, text.splitlines())) <= 100
    assert story.value == pytest.approx(float(trailed.image[0, place["y"], place["x"]]), rel=1e-6)


def test_a_story_without_a_result_says_what_it_lacks(trailed, trailed_folder, place):
    with pytest.warns(StacklibWarning, match="give the result of integrate"):
        story = sl.explain(trailed.preparation, **place)
    assert story.fallen == 0 and story.means == () and "neighbors" not in str(story)


def test_markers_of_the_means_differ_in_shape(trailed, place):
    looks = list(story_plots.LOOKS.values())
    assert len({marker for marker, *_ in looks}) == len(looks) == len(set(story_plots.SYMBOLS.values()))
    figure = story_plots.figure_story(sl.explain(trailed, **place))
    drawn = [
        line
        for line in figure.axes[0].lines
        if line.get_marker() == "D" and colors.same_color(line.get_color(), NEIGHBOURS)
    ]
    # The two trails cross here.
    assert [line.get_xdata().tolist() for line in drawn] == [[4, 7]]
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert "trail" in words and "footprint" in words and "large-scale structure" not in words
    assert "for their neighbors" in figure.axes[0].get_title(loc="left")


def test_masks_tell_the_rule_from_the_neighbors(trailed, place):
    verdict, _ = frame_verdicts(trailed)
    assert verdict[3, place["y"], place["x"]] == HIGH + BESIDE
    assert np.sum(verdict >= BESIDE) == trailed.mask_counts[0].total.sum()
    flags = trailed.masks.flags(3, 0)
    np.testing.assert_array_equal(verdict[3] >= BESIDE, flags > 0)
    # Of a part, and of every third pixel.
    part, _ = frame_verdicts(trailed, part=(31, 20, 60, 50))
    np.testing.assert_array_equal(part, verdict[:, 20:70, 31:91])
    thin, _ = frame_verdicts(trailed, step=3)
    np.testing.assert_array_equal(thin, verdict[:, 1::3, 1::3])
    figure = story_plots.figure_mask(trailed, 4)
    assert "for their neighbors" in figure.get_suptitle()
    assert len(figure.legends[0].get_texts()) == 5


def test_a_trail_is_a_typical_pixel_whoever_found_it(trailed):
    pixel = typical_pixels(trailed)["trail"]
    story = sl.explain(trailed, **pixel)
    assert "trail 1" in story.reasons[6]
