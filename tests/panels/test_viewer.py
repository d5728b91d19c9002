"""The viewer: its pyramid, its stretch, what it tells the browser, and static figures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.units import deg
from astropy.wcs import WCS
from conftest import SAMPLES

import stacklib as sl
from stacklib.figures.screen import Levels, levels_of
from stacklib.output.integrated_image import undo_range
from stacklib.panels import ResultViewer, Viewer, link
from stacklib.panels.viewer.pixels import TILE, ArrayRows, FrameRows, Pyramid
from stacklib.panels.viewer.stretches import BALANCES, CURVES, Stretch, curve
from stacklib.panels.viewer.widget import HERE

FRAME = next((SAMPLES / "M101" / "4_Registered").glob("*.xisf"))


def world(width: int, height: int) -> WCS:
    """A rotated, mirrored field with a pixel scale of 1.5 arcseconds."""
    system = WCS(naxis=2)
    system.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    system.wcs.crval = [359.99, 54.35]
    system.wcs.crpix = [(width + 1) / 2, (height + 1) / 2]
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    system.wcs.cd = 1.5 / 3600 * turn @ np.diag([-1, -1])
    return system


def asked(viewer: Viewer, **question) -> tuple[dict, list]:
    """What the kernel answers to a question of the browser."""
    answers = []
    widget = viewer.widget
    widget.send = lambda content, buffers=(): answers.append((content, list(buffers)))
    widget._handle_custom_msg(question, [])
    (answer,) = answers
    return answer


# pixels ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Odd sizes, holes and an infinite value."""
    random = np.random.default_rng(3)
    image = random.normal(0.1, 0.01, (3, 2100, 1301)).astype(np.float32)
    image[:, 40:80, 300:340] = np.nan
    image[1, 700, 700] = np.inf
    return image


def means(image: np.ndarray, side: int) -> np.ndarray:
    """Means of the finite pixels of bins, in float64."""
    image = np.where(np.isfinite(image), image.astype(float), np.nan)
    edges = [(0, -size % side) for size in image.shape[1:]]
    channels, height, width = (image := np.pad(image, ((0, 0), *edges), constant_values=np.nan)).shape
    bins = image.reshape(channels, height // side, side, width // side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(bins, axis=(2, 4))


def whole(pyramid: Pyramid, level: int) -> np.ndarray:
    """A level, put together from its tiles."""
    _, height, width = pyramid.shape
    rows, columns = (range(-(-size // (TILE << level))) for size in (height, width))
    return np.block([[pyramid.tile(level, column, row) for column in columns] for row in rows])


def test_tiles_are_the_image_and_its_means(image):
    pyramid = Pyramid(ArrayRows(image))
    assert pyramid.count == 5
    np.testing.assert_array_equal(whole(pyramid, 0), image)
    for level in (2, 3):
        np.testing.assert_allclose(whole(pyramid, level), means(image, 1 << level), rtol=2e-6)
    # Coarser levels are means of means: where bins are not whole, they weigh the pixels differently.
    found, expected = pyramid.tile(4, 0, 0), means(image, 16)
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 6:-1, :-1], expected[:, 6:-1, :-1], rtol=2e-5)
    np.testing.assert_allclose(found, expected, rtol=0.05)


@pytest.mark.parametrize("where", [(-1, 0, 0), (5, 0, 0), (0, 6, 0), (0, 0, 9), (0, -1, 0)])
def test_tiles_outside_the_image_are_refused(image, where):
    with pytest.raises(ValueError, match="which the image does not have"):
        Pyramid(ArrayRows(image)).tile(*where)


def test_files_are_read_as_they_are(tmp_path):
    random = np.random.default_rng(4)
    image = random.normal(1000, 50, (3, 700, 600)).astype(np.float32)
    fits.writeto(tmp_path / "master.fits", image)
    pyramid = Pyramid(FrameRows(sl.Frame(tmp_path / "master.fits", quiet=True)))
    for level in range(pyramid.count):
        np.testing.assert_array_equal(whole(pyramid, level), whole(Pyramid(ArrayRows(image)), level))
    np.testing.assert_array_equal(pyramid.pixel(599, 699), image[:, 699, 599])


def test_other_arrays_are_taken_as_numbers():
    masked = np.ma.masked_greater(np.arange(6).reshape(2, 3), 4)
    np.testing.assert_array_equal(Pyramid(ArrayRows(masked)).tile(0, 0, 0), [[[0, 1, 2], [3, 4, np.nan]]])
    for kind in (">f8", "u2", "?"):
        tile = Pyramid(ArrayRows(np.ones((2, 3, 4), kind))).tile(0, 0, 0)
        assert tile.dtype == np.float32 and tile.shape == (2, 3, 4)
    for wrong in (np.zeros(4), np.zeros((1, 0, 4)), np.zeros((2, 2), complex), np.array([["a"]])):
        with pytest.raises(ValueError, match="image: got"):
            Viewer(wrong)


# stretch -----------------------------------------------------------------------------------------


def transferred(m: float, x: np.ndarray) -> np.ndarray:
    """The midtones transfer function, written differently: it goes through (0, 0), (m, 1/2) and (1, 1)."""
    return x / (x + m * (1 - x) / (1 - m))


def test_the_curve_is_a_midtones_transfer_function():
    x = np.linspace(0, 1, 101)
    m = 0.004 * 0.75 / (0.004 * 0.75 + 0.25 * (1 - 0.004))  # solved for: 0.004 becomes 0.25
    np.testing.assert_allclose(curve("midtones", 0.004, 0.25)(x), transferred(m, x), rtol=1e-12)


@pytest.mark.parametrize("kind", CURVES)
@pytest.mark.parametrize("sky", [1e-6, 0.003, 0.1])
def test_curves_show_the_sky_at_the_target(kind, sky):
    shape = curve(kind, sky, 0.2)
    assert float(shape(np.array(sky))) == pytest.approx(0.2)
    assert float(shape(np.array(0.0))) == 0
    assert kind == "linear" or float(shape(np.array(1.0))) == pytest.approx(1)


def test_linked_and_separate_are_those_of_pixinsight():
    levels = Levels((0.1, 0.2, 0.3), (0.01, 0.02, 0.03), (0.0, 0.1, 0.1), (0.9, 1.0, 1.0))
    for place, centre, sigma in zip(
        Stretch(balance="separate").placements(levels), levels.centre, levels.spread, strict=True
    ):
        assert place.black == pytest.approx(centre - 2.8 * sigma)
        assert place.black + place.span == pytest.approx(1)
    linked = Stretch(balance="linked").placements(levels)
    assert len(set(linked)) == 1 and linked[0].black == pytest.approx(0.2 - 2.8 * 0.02)
    # Black is not below all values.
    low = Levels((0.001,), (0.001,), (0.0,), (0.5,))
    assert Stretch(balance="linked").placements(low)[0].black == 0


def test_a_neutral_stretch_shows_every_channel_at_the_target():
    levels = Levels((0.1, 0.2, 0.3), (0.01, 0.02, 0.03), (0.0, 0.1, 0.1), (0.9, 1.0, 1.0))
    shown = Stretch().apply(np.array(levels.centre, np.float32).reshape(3, 1, 1), levels)
    np.testing.assert_allclose(shown.ravel(), 0.15, rtol=1e-5)


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 40000.0, -5.0, np.nan, np.inf])
def test_constant_planes_have_a_stretch(balance, value):
    plane = np.full((1, 4, 5), value, np.float32)
    shown = Stretch(balance=balance).apply(plane, levels_of(plane))
    assert np.isfinite(shown).all() and shown.min() >= 0 and shown.max() <= 1
    if value == 0.3:
        np.testing.assert_allclose(shown, 0.15, rtol=1e-5)


# what the browser is told ------------------------------------------------------------------------


def test_tiles_are_sent_as_they_are(image):
    viewer = Viewer(image)
    answer, (sent,) = asked(viewer, ask="tile", key="0/1/2")
    tile = np.frombuffer(sent, "<f4").reshape(3, answer["height"], answer["width"])
    np.testing.assert_array_equal(tile, image[:, 2 * TILE : 3 * TILE, TILE : 2 * TILE])
    assert answer["key"] == "0/1/2" and answer["level"] == 0


def test_pixels_are_told_with_their_place_in_the_sky(image):
    system = world(1301, 2100)
    viewer = Viewer(image, wcs=system)
    answer, _ = asked(viewer, ask="pixel", x=1000, y=20)
    assert [np.float32(value) for value in answer["values"]] == image[:, 20, 1000].tolist()
    there = SkyCoord.from_pixel(1000, 20, system)
    ra, dec = (
        there.ra.to_string("hour", precision=2, pad=True),
        there.dec.to_string(precision=1, alwayssign=True),
    )
    assert answer["sky"] == f"RA {ra}  Dec {dec}"
    assert asked(viewer, ask="pixel", x=310, y=50)[0]["values"] == [None] * 3
    assert asked(viewer, ask="pixel", x=700, y=700)[0]["values"][1] is None


def test_scale_and_directions_are_those_of_the_sky(image):
    system = world(1301, 2100)
    found = Viewer(image, wcs=system).widget.meta["sky"]
    assert found["scale"] == pytest.approx(1.5, rel=1e-4)
    here = SkyCoord.from_pixel(650, 1049.5, system)
    for name, angle in (("north", 0), ("east", 90)):
        x, y = here.directional_offset_by(angle * deg, 60 / 3600 * deg).to_pixel(system)
        step = np.array([x - 650, y - 1049.5])
        np.testing.assert_allclose(found[name], step / np.linalg.norm(step), atol=1e-3)


def test_a_file_brings_its_world_coordinates_and_units(tmp_path):
    random = np.random.default_rng(5)
    pixels = random.integers(900, 1100, (60, 80)).astype(np.uint16)
    system = world(80, 60)
    fits.writeto(tmp_path / "light.fits", pixels, system.to_header())
    viewer = Viewer(tmp_path / "light.fits")
    assert viewer.unit == ("ADU", 65535.0, 0.0) and viewer.title == "light.fits"
    answer, _ = asked(viewer, ask="pixel", x=7, y=5)
    assert round(answer["values"][0] * 65535) == pixels[5, 7]
    assert answer["sky"] == asked(Viewer(pixels, wcs=system), ask="pixel", x=7, y=5)[0]["sky"]
    counts = tmp_path / "counts.fits"
    fits.writeto(counts, pixels.astype(np.float32))
    assert Viewer(counts).unit == ("ADU", 1.0, 0.0)


def test_a_file_that_changes_is_told(tmp_path):
    path = tmp_path / "light.fits"
    fits.writeto(path, np.ones((600, 5), np.float32))
    viewer = Viewer(path)
    path.unlink()
    answer, _ = asked(viewer, ask="tile", key="0/0/0")
    assert answer["kind"] == "problem" and str(path) in answer["text"]


def test_a_result_is_told_in_adu(m101):
    viewer = Viewer(m101)
    _, scale, offset = viewer.unit
    frames = undo_range(m101.image, m101.range_factor, m101.range_offset) * m101.preparation.full_scale
    np.testing.assert_allclose(m101.image * scale + offset, frames, rtol=1e-4)


def test_nothing_but_what_is_seen_is_kept_in_the_notebook(image):
    state = Viewer(image).widget.get_state()
    assert len(str(state)) < 60_000
    assert not any(isinstance(value, bytes | memoryview | np.ndarray) for value in state.values())


def test_the_front_end_needs_no_network():
    text = (HERE / "viewer.js").read_text(encoding="utf-8") + (HERE / "viewer.css").read_text(
        encoding="utf-8"
    )
    assert "http" not in text and "import " not in text and "@import" not in text


def test_linked_viewers_show_the_same_part(image):
    viewers = [Viewer(image), Viewer(image[0])]
    link(viewers)
    assert viewers[0].widget.group == viewers[1].widget.group != ""
    with pytest.raises(ValueError, match="5 x 4 and 1301 x 2100 pixels"):
        link([*viewers, Viewer(np.zeros((4, 5)))])


def test_wrong_options_are_refused(image):
    with pytest.raises(ValueError, match="names: got 2 names for 3 channels"):
        Viewer(image, names=("L", "Ha"))
    with pytest.raises(ValueError, match="colours: got 'jet', expected one of inferno"):
        Viewer(image, colours="jet")


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (1, 1, 4000), (3, 300, 1)])
def test_any_shape_has_a_panel_and_a_figure(shape):
    viewer = Viewer(np.full(shape, 0.2, np.float32), title="x")
    meta = viewer.widget.meta
    assert meta["levels"] == viewer._pyramid.count and len(meta["names"]) == shape[0]
    last = meta["levels"] - 1
    assert asked(viewer, ask="tile", key=f"{last}/0/0")[0]["kind"] == "tile"
    assert viewer.figure().axes


def test_without_a_browser_there_are_figures(m101, monkeypatch):
    panel = ResultViewer(m101)
    assert "20 frames" in panel.figure().get_suptitle()
    image, low, high = panel.viewers
    assert image.figure().axes[0].get_title(loc="left") == "Integration"
    bar = high.figure().axes[-1]
    assert bar.get_ylabel() == "%" and low.unit == ("%", 100.0, 0.0)
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    for live in (False, True):
        monkeypatch.setattr("stacklib.panels.viewer.viewer.in_live_notebook", lambda live=live: live)
        image._ipython_display_()
    assert [type(each).__name__ for each in shown] == ["Figure", "ViewerWidget"]
    assert len(panel.widget.children) == 2 and len({v.widget.group for v in panel.viewers}) == 1


def test_the_panel_says_what_it_shows(m101):
    viewer = Viewer(FRAME)
    assert FRAME.name in viewer.alt and "3 channels" in viewer.alt
    assert viewer.stretch == Stretch()
    viewer.widget.curve, viewer.widget.target = "asinh", 0.3
    assert viewer.stretch == Stretch("asinh", target=0.3)
    viewer.look_at(10, 20, 100)
    assert viewer.widget.view == [10, 20, 100]


# another image, boxes and marks ------------------------------------------------------------------


def test_another_image_is_sent_with_the_tiles_that_are_seen(image):
    viewer, sent = Viewer(image, title="one"), []
    # A view that was closed, one that sees a tile, and one that still has an image of another size.
    for view, keys in (("a", ["0/0/0"]), ("b", ["0/1/2"]), ("a", []), ("c", ["0/9/9", "7/0/0"])):
        viewer.widget._answer(None, {"ask": "seen", "view": view, "keys": keys}, [])
    viewer.widget.send = lambda content, buffers=(): sent.append((content, list(buffers)))
    viewer.widget.view, viewer.widget.target = [100, 100, 50], 0.4
    viewer.show(2 * image, title="two")
    ((answer, (tile,)),) = sent
    assert answer["kind"] == "image" and answer["meta"]["version"] == 1 == viewer.widget.meta["version"]
    assert [each["key"] for each in answer["tiles"]] == ["0/1/2"] and answer["tiles"][0]["version"] == 1
    shown = np.frombuffer(tile, "<f4").reshape(3, TILE, TILE)
    np.testing.assert_array_equal(shown, 2 * image[:, 2 * TILE : 3 * TILE, TILE : 2 * TILE])
    # Place and stretch stay.
    assert viewer.widget.view == [100, 100, 50] and viewer.widget.target == 0.4
    assert viewer.widget.title == viewer.title == "two" and "two" in viewer.widget.alt
    viewer.show(image[0, :50, :60], origin=(7, 8), colours="viridis", top=0.5)
    answer, tiles = sent[-1]
    assert not tiles and answer["meta"]["origin"] == [7, 8] and answer["meta"]["palettes"]
    assert viewer.widget.view == [] and (viewer.widget.colours, viewer.widget.top) == ("viridis", 0.5)


def test_classes_are_never_averaged():
    classes = np.zeros((1, 900, 1000), np.int8)
    classes[0, 300, 401] = 3
    viewer = Viewer(
        classes,
        classes=[
            (0, "#000000", "kept"),
            (1, "#111111", "low"),
            (2, "#222222", "trail"),
            (3, "#ffffff", "high"),
        ],
    )
    pyramid = viewer._pyramid
    for level in range(pyramid.count):
        shown = whole(pyramid, level)
        assert set(np.unique(shown)) == {0, 3} and shown[0, 300 >> level, 401 >> level] == 3
    assert viewer.figure().axes[-1].get_yticklabels()[3].get_text() == "high" and "trail" in viewer.alt
    viewer = Viewer(classes.astype(np.float32) - 1, colours="RdBu_r", top=2, unit=("ADU", 10.0))
    assert viewer.widget.meta["scale"] == "both" and "-20 to 20 ADU" in viewer.alt
    assert viewer.figure().axes[-1].get_ylim() == (-20, 20)


def test_clicks_and_boxes_are_told():
    viewer, told = Viewer(np.ones((50, 60)), origin=(100, 200), boxes=True), []
    viewer.on_pixel(lambda x, y: told.append((x, y)))
    viewer.on_box(told.append)
    viewer.widget.pixel = [110, 220]
    viewer.widget.box = [101, 202, 3, 4]
    viewer.widget.box = []
    assert told == [(110, 220), (101, 202, 3, 4), ()] and viewer.widget.meta["boxes"]
    viewer.mark(np.int64(105), 206)
    assert viewer.widget.mark == [105, 206]


def test_what_changes_quickly_is_not_sent_back(image, monkeypatch):
    """A late answer of a busy kernel would undo a newer zoom or stretch."""
    widget, said = Viewer(image).widget, []
    monkeypatch.setattr(widget, "_send", lambda message, buffers=None: said.append(message))
    widget.set_state({"view": [5.0, 5.0, 9.0], "target": 0.3, "box": [1, 2, 3, 4]})
    assert widget.view == [5.0, 5.0, 9.0] and widget.target == 0.3
    assert [message["state"] for message in said if message["method"] == "echo_update"] == [
        {"box": [1, 2, 3, 4]}
    ]
