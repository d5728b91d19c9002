"""The pixel inspector: state set from code and by widgets, pictures, and static figures."""

from __future__ import annotations

import asyncio
import io

import numpy as np
import pytest
from conftest import integrate_quietly
from matplotlib.colors import to_rgb
from matplotlib.image import imread

import stacklib as sl
from stacklib.explore import masks, story_plots
from stacklib.explore.boxes.blame import Blame, blame
from stacklib.explore.explain import tell
from stacklib.kernel.verdicts import HIGH, LOW
from stacklib.normalization.settings import Settings
from stacklib.panels import PixelInspector
from stacklib.panels.inspector import inspection
from stacklib.panels.inspector.inspection import MASK


def png(figure) -> np.ndarray:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    drawn.seek(0)
    return imread(drawn)


@pytest.fixture(scope="module")
def panel(m101) -> PixelInspector:
    """A panel with its widgets."""
    inspector = PixelInspector(m101)
    assert inspector.widget is inspector.widget
    return inspector


@pytest.mark.parametrize("target", ["M101", "M13"])
def test_begins_at_a_cosmic_ray(request, target):
    result = request.getfixturevalue(target.lower())
    story = PixelInspector(result).story
    assert story.count(HIGH) == 1 and story.count(LOW) == 0
    ordered = np.sort(story.compared)
    # Its distance from the others is far more than their spread.
    assert ordered[-1] - ordered[-2] > 8 * np.std(ordered[:-1])


def test_begins_elsewhere_if_there_is_no_cosmic_ray():
    result = integrate_quietly("M13", rejection="none")
    assert PixelInspector(result).selected == masks.most_rejected(result)


def test_begins_at_the_pixel_that_is_asked_for(m101):
    panel = PixelInspector(m101)
    assert panel.round == len(panel.story.rounds)
    assert PixelInspector(m101, 115, 85).selected == (115, 85, 0)
    assert PixelInspector(m101, channel=1).selected[2] == 1


def test_state_from_code_reaches_the_widgets(panel):
    panel.selected = (115, 85, 0)
    assert panel.story.count(HIGH) == 9 and panel.round == 8
    assert (panel._panel.x.value, panel._panel.y.value, panel._panel.channel.value) == (115, 85, 0)
    assert panel._panel.rounds[0].max == panel._panel.rounds[0].value == 8
    panel.round = 2
    assert panel._panel.rounds[0].value == panel._panel.rounds[1].value == 2
    assert (
        panel.story.tell_round(2) in panel._panel.told.value and panel.story.tell_round(2)[:8] == "Round 2:"
    )
    assert panel._panel.dots.points[0][HIGH].get_xdata().size == 4
    panel.view = "coverage"
    assert panel._panel.view.value == "coverage"
    panel.frame = 7
    assert panel.view == MASK and panel._panel.view.value == MASK and panel._panel.frame.value == 7
    assert "Frame 7 lost" in panel._panel.where.value
    panel.selected = 100, 100
    assert panel.selected == (100, 100, 0)


def test_value_of_the_image_and_of_the_story_are_distinguished(panel):
    panel.selected = (115, 85, 0)
    value = f"{panel.result.image[0, 85, 115]:.6g}"
    assert f"image {value}" in panel._panel.where.value
    assert f"{value} in the image after output_range" in panel._panel.told.value


def test_widgets_reach_the_state(panel):
    panel.selected = (115, 85, 0)
    panel._panel.rounds[1].value = 3
    assert panel.round == 3 == panel._panel.rounds[0].value
    panel._panel.rounds[0].value = 1
    assert panel.round == 1
    panel._panel.x.value = 120
    assert panel.selected == (120, 85, 0)
    panel._panel.channel.value = 2
    assert panel.story.channel == 2
    panel._panel.view.value = "image"
    assert panel.view == "image"
    panel._panel.frame.value = 10
    assert (panel.frame, panel.view) == (10, MASK)


def test_a_click_chooses_a_pixel(panel):
    panel.selected = (10, 10, 1)
    panel._panel.map.widget.pixel = [115, 85]
    assert panel.selected == (115, 85, 1)
    panel._panel.close.widget.pixel = [299, 0]
    assert panel.selected == (299, 0, 1)
    assert panel._panel.map.widget.mark == panel._panel.close.widget.mark == [299, 0]


def shown(viewer) -> np.ndarray:
    """What a viewer shows, (height, width) of the first channel."""
    return viewer._pyramid.rows.read(0, viewer.shape[1])[0]


@pytest.mark.parametrize("view", [*story_plots.VIEWS, MASK])
def test_every_view_is_shown_with_a_close_up(panel, view):
    panel.view, panel.selected = view, (299, 223, 0)
    whole, close = shown(panel._panel.map), shown(panel._panel.close)
    assert whole.shape == (224, 300) and close.shape == (41, 41)
    np.testing.assert_array_equal(close, whole[-41:, -41:])
    assert (
        panel._panel.close.widget.meta["origin"] == [259, 183]
        and panel._panel.close.title == "x 259 to 299, y 183 to 223"
    )
    known = {"image": "image", "coverage": "coverage", "rejected low": "rejection_low"}
    if view in known:
        np.testing.assert_array_equal(whole, getattr(panel.result, known[view])[0])
    assert ", R" in panel._panel.map.title or view == "image"


def test_mask_is_that_of_the_frame(panel, m101):
    panel.selected, panel.frame = (100, 100, 1), 17
    mask, step = panel.mask()
    assert step == 1
    assert np.sum(mask == 1) == m101.counts[1].low[16] and np.sum(mask == 3) == m101.counts[1].high[16]
    assert np.sum(mask == 2) == m101.mask_counts[1].total[16]


def test_close_up_of_a_mask_is_whole_where_the_picture_leaves_pixels_out(m101, monkeypatch):
    whole = masks.frame_verdicts(m101, 1)[0]
    monkeypatch.setattr(masks, "SCREEN_WIDTH", 100)
    panel = PixelInspector(m101)
    assert panel.widget.children
    panel.selected, panel.frame = (151, 83, 1), 7
    assert panel.mask()[1] == 3
    left, top = panel._panel.close.widget.meta["origin"]
    assert left <= 151 < left + 41 and top <= 83 < top + 41
    np.testing.assert_array_equal(
        shown(panel._panel.close), masks.frame_mask(whole[6])[top : top + 41, left : left + 41]
    )
    # In the whole picture, each pixel that was judged stands for those around it.
    assert shown(panel._panel.map).shape == (224, 300)
    np.testing.assert_array_equal(shown(panel._panel.map)[1::3, 1::3], panel.mask()[0][:75, :100])


def test_mask_colours_stay_apart_without_colour():
    weights = (0.2126, 0.7152, 0.0722)
    shades = [np.dot(np.power(to_rgb(colour), 2.2), weights) for colour in story_plots.MASK_COLOURS.colors]
    lightness = [116 * np.cbrt(shade) - 16 for shade in shades]
    none, kept, low, neighbours, high = lightness
    assert kept < none - 15 and none < low - 25 and low < neighbours - 15 and neighbours < high - 15


def test_a_trail_has_a_symbol_words_and_a_place_of_its_own(trailed):
    line = trailed.trails[trailed.trails["file"] == trailed.preparation.measurements.names[3]][0]
    x, y = (round(float(line[f"{name}0"] + line[f"{name}1"]) / 2) for name in "xy")
    panel = PixelInspector(trailed, x=x, y=y)
    panel._panel.listed.selected_index = 1
    table = panel._panel.table.value
    assert table.count("◆") == 2 and "px long" in table and "found as a line" in table
    legend = panel._panel.legend.value
    assert "◆ trail" in legend and "★" not in legend
    assert "Rejected for their neighbors: 0004 (trail" in panel._panel.told.value
    panel.frame = 4
    assert panel.mask()[0][y, x] == 2 and "% for their neighbors" in panel.text


def test_table_shows_every_frame_by_symbol_and_word(panel):
    live = panel._panel
    live.table.value = ""
    panel.selected = (115, 85, 0)
    # It is written when it is opened.
    assert live.table.value == ""
    live.listed.selected_index = 1
    table = live.table.value
    assert table.count("<tr") == 21 and [table.count(symbol) for symbol in "▲★▼"] == [8, 1, 2]
    assert 'title="M101_Light_180s_0007_c_d_r.xisf">0007<' in table and "rejected high in round 1" in table
    panel.round = 1
    assert live.table.value.count("▲") == 3 and "still kept in this round" in live.table.value
    live.listed.selected_index = 0


def test_keyboard_and_screen_readers_have_names(panel):
    live = panel._panel
    boxes = (live.x, live.y, live.channel, *live.rounds, live.view, live.frame)
    assert all(box.description for box in boxes)
    assert "aria-live" in live.where.value and "aria-live" in live.told.value


@pytest.mark.parametrize(
    ("name", "value"), [("round", 0), ("round", 99), ("frame", 0), ("frame", 21), ("view", "nothing")]
)
def test_bad_state_is_refused(panel, name, value):
    with pytest.raises(ValueError, match=f"{name}: got"):
        setattr(panel, name, value)
    with pytest.raises(sl.RecipeError, match="x: got"):
        panel.selected = (300, 0, 0)


def test_regions_and_mono_frames():
    result = integrate_quietly("M13", rejection="linear_fit")
    part = sl.integrate(
        result.preparation.frames,
        sl.Recipe(weights="none"),
        region=(100, 80, 30, 25),
        progress=False,
    )
    panel = PixelInspector(part)
    panel.selected = (100, 80, 0)
    assert "column 0, row 0 of the region" in panel.text and ", R" not in panel.text
    assert panel.widget.children
    panel.frame = 1
    assert panel.mask()[0].shape == (25, 30)
    assert panel._panel.map.widget.meta["origin"] == [100, 80] and shown(panel._panel.map).shape == (25, 30)
    assert png(panel.figure()).ndim == 3


# figures -----------------------------------------------------------------------------------------


def test_static_figures(m101, m13, panel):
    panel.selected = (115, 85, 0)
    for figure in (
        panel.figure(),
        story_plots.figure_fractions(m101),
        story_plots.figure_map(m13, "coverage"),
    ):
        drawn = png(figure)
        assert drawn.shape[1] == 980 and np.all(drawn[..., 3] == 1) and drawn[0, 0, :3].max() < 0.2
    figure = story_plots.figure_mask(m101, 7)
    assert "Where frame 7 was rejected" in figure.get_suptitle() and png(figure).shape[1] == 980
    with pytest.raises(ValueError, match="view: got"):
        story_plots.figure_map(m101, "nothing")


@pytest.mark.parametrize("frames", [3, 20, 200])
def test_story_figures_for_few_and_many_frames(frames):
    raw = np.random.default_rng(3).normal(0.1, 0.002, frames).astype(np.float32)
    raw[1], raw[-1] = 0.9, 0
    recipe = sl.Recipe(rejection="sigma", sigma_high=2, sigma_low=2)
    story = tell(raw, Settings.plain(recipe, frames), tuple(f"frame{i}" for i in range(frames)))
    figure = story_plots.figure_story(story)
    assert png(figure).shape[:2] == (360, 980)
    left, right = figure.axes
    drawn = sum(line.get_xdata().size for line in left.lines if line.get_marker() in "ov^x")
    assert drawn == frames
    assert left.get_ylim() == right.get_ylim() and (frames == 3 or left.get_ylim()[1] < 0.5)
    assert frames == 3 or any("off the scale: 0.9" in text.get_text() for text in left.texts)


def test_story_without_any_data_can_be_drawn():
    story = tell(np.zeros(5, np.float32), Settings.plain(sl.Recipe(), 5), tuple("abcde"))
    assert story.count(LOW) == 0
    assert png(story_plots.figure_story(story)).shape[1] == 980


# boxes -------------------------------------------------------------------------------------------


def test_a_box_ranks_the_frames_and_shows_it_without_one(panel):
    live = panel._panel
    hidden = [viewer.widget.layout.visibility for viewer in live.shares.viewers]
    assert hidden == [None, "hidden", "hidden"]
    panel.selected = (100, 100, 0)
    live.map.widget.box = [60, 50, 50, 40]
    assert {viewer.widget.layout.visibility for viewer in live.shares.viewers[1:]} == {"visible"}
    found = panel.blame
    assert found is not None and found.box == panel.box == (60, 50, 50, 40)
    assert live.shares.widget.layout.display is None and live.of_pixel[0].layout.display == "none"
    ranking = live.shares.ranking
    assert [number for _, number in ranking.options] == [each.number for each in found.frames]
    ranking.value = 7
    box, without, difference = live.shares.viewers
    np.testing.assert_array_equal(without._pyramid.rows.read(0, 40), found.without(7).original)
    np.testing.assert_array_equal(box._pyramid.rows.read(0, 40), found.present)
    assert "Frame 7 (0007)" in live.shares.reason.value and without.title == "Without frame 7 (0007)"
    assert difference.widget.meta["scale"] == "both" and len({v.widget.group for v in (box, without)}) == 1
    assert panel.figure().get_suptitle().startswith(f"Frame {found.frames[0].number}: ")
    # A click brings the pixel back.
    live.map.widget.pixel = [120, 90]
    assert panel.box == () and live.map.widget.box == [] and panel.selected[:2] == (120, 90)
    assert live.shares.widget.layout.display == "none" and live.of_pixel[0].layout.display is None


def test_neighbors_of_hits_are_searched_when_the_choice_rests(panel, monkeypatch):
    monkeypatch.setattr("stacklib.panels.inspector.box_part.REST", 0.05)
    shares, asked = panel._panel.shares, []
    real = Blame.image_without

    def image_without(found: Blame, number: int, search: bool) -> np.ndarray:
        asked.append((number, search))
        return real(found, number, search=search)

    monkeypatch.setattr(Blame, "image_without", image_without)

    async def choose() -> None:
        panel.box = (60, 50, 50, 40)
        others = [number for _, number in shares.ranking.options[1:3]]
        for number in others:
            shares.ranking.value = number
        assert [search for _, search in asked] == [False] * 3 and "searched again" in shares.reason.value
        await asyncio.sleep(0.3)
        assert asked[3:] == [(others[-1], True)] and "searched again" not in shares.reason.value
        shown = shares.viewers[1]._pyramid.rows.read(0, 40)
        np.testing.assert_array_equal(shown, panel.blame.without(others[-1]).original)
        shares.ranking.value = others[0]
        panel.box = ()
        await asyncio.sleep(0.2)
        assert asked[4:] == [(others[0], False)]

    asyncio.run(choose())


def test_a_box_is_ranked_once(panel, monkeypatch):
    ranked = []
    monkeypatch.setattr(inspection, "blame", lambda result, box: ranked.append(box) or blame(result, box))
    panel.box = (60, 50, 30, 20)
    panel._panel.map.widget.box = [60, 50, 30, 21]
    assert ranked == [(60, 50, 30, 20), (60, 50, 30, 21)]
    panel.box = ()


def test_a_box_that_is_too_large_is_refused(panel, monkeypatch):
    monkeypatch.setattr("stacklib.explore.boxes.blame.MOST_PIXELS", 100)
    panel._panel.map.widget.box = [0, 0, 50, 40]
    assert panel.blame is None and "draw a smaller box" in panel._panel.heading.value
    panel._panel.map.widget.box = []
