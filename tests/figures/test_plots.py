"""The screen stretch; every figure can be drawn and says what it should."""

from __future__ import annotations

import io

import numpy as np
import pytest
from conftest import integrate_quietly
from matplotlib import pyplot
from matplotlib.image import imread

from stacklib.figures import look, screen
from stacklib.figures import result_plots as plots


@pytest.fixture
def sky() -> np.ndarray:
    """A color frame: the sky has another level in each channel, the star is the same in all."""
    rng = np.random.default_rng(1)
    levels = np.array([0.1, 0.2, 0.05], np.float32)[:, np.newaxis, np.newaxis]
    image = levels + rng.normal(0, 0.001, (3, 80, 100)).astype(np.float32)
    image[:, 40, 50] = levels[:, 0, 0] + 0.3
    return image


def test_stretch_shows_the_sky_dark_gray_and_keeps_colors(sky):
    shown = plots.stretch(sky)
    assert shown.shape == (80, 100, 3) and shown.dtype == np.float32
    assert shown.min() >= 0 and shown.max() <= 1
    np.testing.assert_allclose(np.median(shown, axis=(0, 1)), screen.BACKGROUND, atol=0.005)
    assert np.ptp(shown[40, 50]) < 1e-3


def test_stretch_is_monotonic():
    limits = screen.Limits((0.1,), 0.8, 0.02)
    ramp = np.linspace(0.001, 1, 500, dtype=np.float32)[np.newaxis]
    shown = plots.stretch(ramp, limits)[0]
    assert np.all(np.diff(shown) >= 0)
    assert shown[0] == 0 and shown[-1] == pytest.approx(1)
    # The midtones balance maps to half brightness.
    half = plots.stretch(np.float32([[0.1 + 0.8 * 0.02]]), limits)
    assert half[0, 0] == pytest.approx(0.5, abs=1e-5)


def test_stretch_of_another_image_makes_pictures_comparable(sky):
    limits = screen.screen_limits(sky)
    part = sky[:, 10:30, 20:40]
    np.testing.assert_array_equal(plots.stretch(part, limits), plots.stretch(sky, limits)[10:30, 20:40])


def test_no_data_is_black(sky):
    sky[0, :5], sky[:, 5:10], sky[:, 20] = np.nan, 0, -1
    shown = plots.stretch(sky)
    assert not shown[:5, :, 0].any() and not shown[5:10].any() and not shown[20].any()
    assert shown[:5, :, 1].any()


@pytest.mark.parametrize("value", [0.0, np.nan, 0.25, 1.0, 30000.0])
def test_flat_images_can_be_stretched(value):
    shown = plots.stretch(np.full((1, 8, 9), value, np.float32))
    assert shown.shape == (8, 9) and np.all((shown >= 0) & (shown <= 1))


def test_values_beyond_one_are_not_lost():
    image = np.random.default_rng(2).normal(1000, 10, (1, 50, 60)).astype(np.float32)
    image[0, 3, 3], image[0, 4, 4] = 60000, 30000
    shown = plots.stretch(image)
    assert shown[4, 4] < shown[3, 3] == 1
    assert np.median(shown) == pytest.approx(screen.BACKGROUND, abs=0.01)


def test_binning_keeps_the_mean():
    image = np.arange(2 * 7 * 9, dtype=np.float32).reshape(2, 7, 9)
    small, side = screen.binned(image, 3)
    assert side == 3 and small.shape == (2, 2, 3)
    assert small[1, 1, 2] == image[1, 3:6, 6:9].mean()
    assert screen.binned(image, 9)[0] is image


def png(figure) -> np.ndarray:
    """The figure as it is shown."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    drawn.seek(0)
    return imread(drawn)


def texts(figure) -> str:
    """Everything that is written on a figure."""
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text() for text in axes.texts]
        if axes.get_legend():
            found += [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join(found)


FIGURES = [
    plots.figure_result,
    plots.figure_before_after,
    plots.figure_frames,
    plots.figure_noise,
    plots.figure_preview,
]


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("target", ["m13", "m101"])
def test_figures_can_be_drawn_and_leave_nothing_behind(draw, target, request):
    figure = draw(request.getfixturevalue(target))
    drawn = png(figure)
    assert drawn.shape[1] > 1000
    # An opaque background of their own, so that they look alike in dark and light notebooks.
    assert np.all(drawn[..., 3] == 1) and drawn[0, 0, :3].max() < 0.2
    assert figure.get_suptitle()
    assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes[:1])
    assert not pyplot.get_fignums()


def test_the_title_of_a_result_counts_as_the_report_does(trailed):
    masked = 100 * sum(values.mean() for values in trailed.masked.values())
    high = 100 * trailed.rejected_high.mean()
    title = texts(plots.figure_result(trailed))
    assert f" low, {high:.2f} % high, {masked:.2f} % for their neighbors" in title
    assert f" and {high:.2f} % high; " in trailed.summary
    assert f"; {masked:.2f} % for their neighbors" in trailed.summary


def test_result_has_three_pictures_with_row_0_at_the_top(m13):
    figure = plots.figure_result(m13)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 3
    assert all(axes.yaxis_inverted() and axes.get_ylim() == (255.5, -0.5) for axes in pictures)
    low, high = 100 * m13.rejected_low.mean(), 100 * m13.rejected_high.mean()
    assert f"{low:.2f} % of the samples low, {high:.2f} % high" in texts(figure)
    assert "% of the frames" in texts(figure)
    np.testing.assert_allclose(pictures[2].images[0].get_array(), 100 * m13.rejection_high[0], rtol=1e-6)


def test_before_after_is_one_stretch(m13):
    before, after = [axes.images[0].get_array() for axes in plots.figure_before_after(m13).axes]
    limits = screen.screen_limits(m13.preparation.frames[m13.preparation.reference].read())
    np.testing.assert_allclose(after, plots.stretch(m13.image, limits), atol=1e-6)
    assert before.shape == after.shape


def test_large_images_are_shown_by_their_centre(m13, monkeypatch):
    monkeypatch.setattr(plots, "CENTRE", 100)
    figure = plots.figure_before_after(m13)
    assert all(axes.images[0].get_array().shape == (100, 100) for axes in figure.axes)
    assert figure.axes[0].get_xlim() == (109.5, 209.5)
    assert "center" in texts(figure)


def test_preview_of_a_large_image_shows_the_whole_and_the_center(m13, monkeypatch):
    assert len(plots.figure_preview(m13).axes) == 2
    monkeypatch.setattr(plots, "CENTRE", 100)
    monkeypatch.setattr(screen, "SCREEN_WIDTH", 160)
    monkeypatch.setattr(plots, "binned", lambda image: screen.binned(image, 160))
    figure = plots.figure_preview(m13)
    shapes = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shapes == [(128, 160), (128, 160), (100, 100), (100, 100)]
    whole, center = figure.axes[1], figure.axes[3]
    assert whole.get_xlim() == (-0.5, 319.5) and center.get_xlim() == (109.5, 209.5)
    # Each pair has the stretch of the frame.
    reference = m13.preparation.frames[m13.preparation.reference]
    limits = screen.screen_limits(screen.binned(reference.read(), 160)[0])
    shown = plots.stretch(screen.binned(m13.image, 160)[0], limits)
    np.testing.assert_allclose(whole.images[0].get_array(), shown, atol=1e-5)
    words = texts(figure)
    assert reference.name in words and "12 frames integrated" in words and "center at full size" in words


@pytest.mark.parametrize("name", ["a$b$c.fits", "$x^$.fits", "\\frac{.fits", "{0}.fits", "100%.fits"])
def test_any_file_name_can_be_a_title(name):
    figure = look.new_figure(3, 2)
    look.show_picture(figure.subplots(), np.zeros((4, 5)), name)
    look.write_title(figure, name)
    png(figure)
    assert figure.axes[0].get_title(loc="left") == name


@pytest.mark.parametrize("side", [1, 2, 3, 7])
@pytest.mark.parametrize("region", [None, (0, 0, 320, 256), (5, 9, 100, 83)])
def test_frames_are_binned_in_strips(m13, monkeypatch, side, region):
    monkeypatch.setattr(screen, "STRIP", 20)
    frame = m13.preparation.frames[0]
    left, top, width, height = region or (0, 0, 320, 256)
    rows, columns = height // side * side, width // side * side
    whole = frame.read()[:, top : top + rows, left : left + columns]
    expected = whole.reshape(1, rows // side, side, columns // side, side).mean(axis=(2, 4))
    np.testing.assert_allclose(screen.read_binned(frame, side, region), expected, rtol=1e-5)


def test_frames_with_trail_or_cloud_are_numbered(m101):
    words = texts(plots.figure_frames(m101)).splitlines()
    assert {"7", "10", "13", "17"} <= set(words)
    assert not {"1", "2", "3", "20"} & set(words)
    assert "left out" not in words


def test_frames_left_out_are_marked_by_shape():
    result = integrate_quietly("M13", min_weight=0.85)
    assert result.preparation.count < len(result.frames)
    figure = plots.figure_frames(result)
    assert texts(figure).splitlines().count("left out") == 2
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    left_out = np.flatnonzero(~np.asarray(result.frames["used"])) + 1
    np.testing.assert_array_equal(crosses[0].get_xdata(), left_out)
    png(figure)


def test_nothing_rejected_can_be_drawn():
    result = integrate_quietly("M13", rejection="none", weights="none", combination="median")
    for draw in FIGURES:
        png(draw(result))


def test_noise_figure_names_each_channel(m101):
    words = texts(plots.figure_noise(m101))
    for name, ratio in zip(("red", "green", "blue"), m101.noise_ratio, strict=True):
        assert f"after, {name}: {ratio:.3f}" in words
    assert f"{m101.expected_noise_ratio:.3f}" in words
