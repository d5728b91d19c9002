"""The pixel inspector: click a pixel to see its samples, the limits of each round, and the verdicts."""

from __future__ import annotations

from functools import cached_property

import ipywidgets as widgets
import numpy as np
from ipympl.backend_nbagg import Canvas
from matplotlib.backend_bases import MouseEvent
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from stacklib.explore.explain import PixelStory, explain
from stacklib.explore.masks import frame_mask, frame_verdicts, most_rejected
from stacklib.explore.story_plots import (
    MASK_COLOURS,
    VIEWS,
    StoryAxes,
    figure_inspection,
    legend_words,
    picture_of,
)
from stacklib.figures.look import FAINT, GROUND, INK, dress_bar, show_picture
from stacklib.figures.screen import screen_limits, stretch
from stacklib.integration.result import Integration
from stacklib.panels.common import Readout, side_by_side
from stacklib.panels.live_canvas import QuickCanvas, live_canvas
from stacklib.panels.pictures import FigurePicture
from stacklib.panels.verdict_table import verdict_table
from stacklib.utils.texts import one_line

__all__ = ["MASK", "PixelInspector"]

#: The view of the places where one frame was rejected.
MASK = "mask of a frame"
#: Side of the close-up in pixels.
CLOSE = 41
#: Width of the whole picture, the close-up and the samples in screen pixels.
WHOLE, ASIDE, WIDTH = 550, 390, 940
#: Place of the cut between the samples in frame order and sorted.
CUT = 0.56


class PixelInspector:
    """A panel that explains any pixel of a result.

    Everything can be read and set from code. Pixels are those of the whole frames, counted from 0.

    Parameters
    ----------
    result : Integration
        The result; its frames are read again, one row at a time.
    x, y, channel : int
        The first pixel; -1 for the one with the most rejections.

    Attributes
    ----------
    selected : tuple of int
        The pixel, (x, y, channel).
    story : PixelStory
        The story of the pixel.
    round : int
        The round that is shown, counted from 1; the last round when a new pixel is chosen.
    view : str
        The picture that is shown: one of `stacklib.explore.story_plots.VIEWS`, or ``"mask of a frame"``.
    frame : int
        The frame of the mask, counted from 1 as in the tables; setting it shows its mask.
    """

    def __init__(self, result: Integration, x: int = -1, y: int = -1, channel: int = -1) -> None:
        self.result = result
        self._view = "rejected high"
        self._frame = int(result.preparation.used[0]) + 1
        self._masks: tuple[int, np.ndarray, int] | None = None
        self._busy = self._built = False
        known = (x, y, max(channel, 0))
        x, y, channel = known if x >= 0 and y >= 0 else most_rejected(result, channel)
        self._story = explain(result, x=x, y=y, channel=channel)
        self._round = len(self._story.rounds)

    # state -----------------------------------------------------------------------------------------

    @property
    def selected(self) -> tuple[int, int, int]:
        return self._story.x, self._story.y, self._story.channel

    @selected.setter
    def selected(self, pixel: tuple[int, ...]) -> None:
        x, y, *channel = (int(value) for value in pixel)
        self._story = explain(self.result, x=x, y=y, channel=channel[0] if channel else self.selected[2])
        self._round = len(self._story.rounds)
        self._refresh()

    @property
    def story(self) -> PixelStory:
        return self._story

    @property
    def round(self) -> int:
        return self._round

    @round.setter
    def round(self, number: int) -> None:
        self._round = _within("round", number, len(self._story.rounds))
        self._refresh(picture=False)

    @property
    def view(self) -> str:
        return self._view

    @view.setter
    def view(self, view: str) -> None:
        if view not in (*VIEWS, MASK):
            raise ValueError(f"view: got {view!r}, expected one of {', '.join((*VIEWS, MASK))}")
        self._view = view
        self._refresh(story=False)

    @property
    def frame(self) -> int:
        return self._frame

    @frame.setter
    def frame(self, number: int) -> None:
        number = _within("frame", number, len(self.result.preparation.frames))
        if number - 1 not in self.result.preparation.used:
            raise ValueError(f"frame: {number} was left out ({self.result.preparation.excluded[number - 1]})")
        self._frame, self._view = number, MASK
        self._refresh(story=False)

    def mask(self) -> tuple[np.ndarray, int]:
        """Return the mask of the chosen frame, see `frame_mask`, and the step between its pixels.

        The verdicts on the whole channel are kept, one byte per sample. If the image is larger than a
        screen, they cover every step-th row and column.
        """
        channel = self.selected[2]
        if self._masks is None or self._masks[0] != channel:
            self._masks = (channel, *frame_verdicts(self.result, channel))
        _, verdict, step = self._masks
        return self._mask_of(verdict), step

    def _mask_of(self, verdict: np.ndarray) -> np.ndarray:
        """Pick the mask of the chosen frame from the verdicts on all frames."""
        return frame_mask(verdict[int(np.searchsorted(self.result.preparation.used, self._frame - 1))])

    def figure(self) -> Figure:
        """Draw image, high map and samples of the pixel as a static figure."""
        return figure_inspection(self.result, self._story, self._round)

    @property
    def text(self) -> str:
        """The values of the pictures at the pixel, in words."""
        x, y, channel = self.selected
        left, top, *_ = self.result.region
        at = channel, y - top, x - left
        maps = self.result.rejection_low, self.result.rejection_high, self.result.coverage
        low, high, coverage = (100 * float(part[at]) for part in maps)
        value, error = float(self.result.image[at]), float(self.result.uncertainty[at])
        known = f" ± {error:.2g}" if np.isfinite(error) else ""
        part = f" (column {x - left}, row {y - top} of the region)" if left or top else ""
        words = f"x {x}, y {y}, channel {channel}{part}: image {value:.6g}{known}; rejected low {low:.0f} %, "
        words += f"high {high:.0f} % of the frames; coverage {coverage:.0f} %."
        if self._view == MASK:
            mask, step = self.mask()
            known = max(1, int(np.sum(mask >= 0)))
            lost = [100 * float(np.sum(mask == value)) / known for value in (1, 3, 2)]
            words += f" Frame {self._frame} lost {lost[0]:.2f} % of this channel low, {lost[1]:.2f} % high"
            if self.result.masks is not None:
                words += f", {lost[2]:.2f} % for their neighbors"
            words += "." if step == 1 else f" (every {step}th row and column)."
        return words

    # widgets ---------------------------------------------------------------------------------------

    @cached_property
    def widget(self) -> widgets.VBox:
        """The live panel."""
        p, (left, top, width, height) = self.result.preparation, self.result.region
        names = [(one_line(f"{i + 1}: {p.measurements.names[i]}"), int(i) + 1) for i in p.used]
        wide = {"description_width": "5em"}
        choice = {"style": wide, "layout": widgets.Layout(width="280px")}
        self._view_box = widgets.Dropdown(options=(*VIEWS, MASK), description="picture", **choice)
        self._frame_box = widgets.Dropdown(options=names, description="frame", **choice)
        self._x = _number_box("x", left, left + width - 1)
        self._y = _number_box("y", top, top + height - 1)
        self._channel = _number_box("channel", 0, len(self.result.image) - 1)
        self._slider = widgets.IntSlider(1, 1, 1, description="round", readout=False, style=wide)
        self._number = _number_box("number", 1, 1)
        self._where, self._heading, self._what = Readout(), Readout(), Readout()
        self._table = widgets.HTML()
        self._canvases, self._samples = self._make_pictures(), self._make_story()
        self._built = True
        self._refresh()
        for box in (self._x, self._y, self._channel):
            box.observe(lambda change: self._from_browser("selected", self._numbers), "value")
        for box in (self._slider, self._number):
            box.observe(lambda change: self._from_browser("round", change["new"]), "value")
        self._view_box.observe(lambda change: self._from_browser("view", change["new"]), "value")
        self._frame_box.observe(lambda change: self._from_browser("frame", change["new"]), "value")
        return widgets.VBox(
            [
                side_by_side(self._view_box, self._frame_box, self._x, self._y, self._channel),
                side_by_side(*self._canvases),
                self._where,
                side_by_side(self._slider, self._number),
                self._heading,
                self._samples,
                widgets.HTML(f'<div style="line-height:1.35">{legend_words(self._story.means)}</div>'),
                self._what,
                self._table,
            ],
            layout=widgets.Layout(max_width="980px"),
        )

    def _from_browser(self, name: str, value: object) -> None:
        if not self._busy:
            setattr(self, name, value)

    @property
    def _numbers(self) -> tuple[int, int, int]:
        return self._x.value, self._y.value, self._channel.value

    def _make_pictures(self) -> list[Canvas]:
        """Create the canvases of the whole picture and the close-up; a click chooses a pixel."""
        _, _, width, height = self.result.region
        across = 0.78 * WHOLE / 100
        tall = float(np.clip(across * height / width, 2.2, 7.0)) + 0.84
        whole = Figure(figsize=(WHOLE / 100, tall), dpi=100, facecolor=GROUND)
        bottom, high = 0.52 / tall, 1 - 0.84 / tall
        self._whole = whole.add_axes((0.09, bottom, 0.78, high))
        self._bar = whole.add_axes((0.88, bottom, 0.02, high))
        aside = Figure(figsize=(ASIDE / 100, ASIDE / 100), dpi=100, facecolor=GROUND)
        self._close = aside.add_axes((0.05, 0.1, 0.9, 0.82))
        self._limits = screen_limits(self.result.image)
        blank = np.zeros((2, 2))
        self._images = [show_picture(axes, blank, "") for axes in (self._whole, self._close)]
        self._whole.set_aspect("equal", anchor="E")
        self._marks = []
        for axes, size in ((self._whole, 13), (self._close, 10)):
            for colour, wide in (("black", 3.5), ("white", 1.6)):
                look = {"marker": "s", "ms": size, "mfc": "none", "mec": colour, "mew": wide}
                self._marks += axes.plot([0], [0], ls="", clip_on=False, **look)
        self._close.set_title("Close-up", color=INK, fontsize=10, loc="left")
        self._close.set(xticks=[], yticks=[], xlabel="", ylabel="")
        self._part_shown = aside.text(0.5, 0.045, "", color=FAINT, fontsize=9, ha="center", va="center")
        canvases = [live_canvas(figure) for figure in (whole, aside)]
        moving = self._marks[:2], [self._images[1], self._part_shown, *self._marks[2:]]
        self._quick = [QuickCanvas(*both) for both in zip(canvases, moving, strict=True)]
        for canvas in canvases:
            canvas.mpl_connect("button_press_event", self._clicked)
        return canvases

    def _make_story(self) -> FigurePicture:
        figure = Figure(figsize=(WIDTH / 100, 3.1), dpi=100, facecolor=GROUND)
        left, right = figure.add_axes((0.095, 0.165, 0.435, 0.8)), figure.add_axes((0.56, 0.165, 0.325, 0.8))
        right.sharey(left)
        self._dots = StoryAxes(figure, left, right, bare=True, means=self._story.means)
        # A fixed place: finding one would slow down every drawing.
        left.yaxis.set_label_coords(-0.155, 0.5)
        return FigurePicture(figure, self._dots.moving, [CUT])

    def _clicked(self, event: MouseEvent) -> None:
        if event.inaxes in (self._whole, self._close):
            left, top, width, height = self.result.region
            x = min(max(round(event.xdata), left), left + width - 1)
            y = min(max(round(event.ydata), top), top + height - 1)
            self.selected = (x, y, self.selected[2])

    # drawing ---------------------------------------------------------------------------------------

    def _refresh(self, picture: bool = True, story: bool = True) -> None:
        """Update widgets and artists."""
        if not self._built:
            return
        x, y, channel = self.selected
        if story:
            # Send the samples to the browser before computing anything else.
            self._dots.show(self._story, self._round)
            self._samples.update(self._canvases[0].device_pixel_ratio)
        self._busy = True
        try:
            self._x.value, self._y.value, self._channel.value = x, y, channel
            self._view_box.value, self._frame_box.value = self._view, self._frame
            for box in (self._slider, self._number):
                box.max = len(self._story.rounds)
                box.value = self._round
        finally:
            self._busy = False
        if story:
            told, summary = self._story.tell_round(self._round), self._story.summary
            self._heading.say(self._dots.heading)
            taken = [f"{self._story.taken_in_words}."] * bool(self._story.fallen)
            self._what.say(*taken, f"{told}.", f"Result: {summary}")
            words = f"Samples of pixel x {x}, y {y}, channel {channel}"
            self._samples.describe(f"{words}, in the order of the frames. {told}", f"{words}, sorted")
            self._table.value = verdict_table(self._story, self._round)
        if picture:
            self._draw_picture()
        self._where.say(self.text)

    def _draw_picture(self) -> None:
        x, y, channel = self.selected
        left, top, width, height = self.result.region
        key = (self._view, self._frame if self._view == MASK else 0, channel)
        changed = key != getattr(self, "_drawn", None)
        if changed:
            self._drawn = key
            self._draw_whole(channel)
        column, row = (
            int(np.clip(at - first - CLOSE // 2, 0, max(0, size - CLOSE)))
            for at, first, size in ((x, left, width), (y, top, height))
        )
        across, down = min(CLOSE, width), min(CLOSE, height)
        first, second = left + column - 0.5, top + row - 0.5
        self._images[1].set_data(self._part(column, row, across, down, channel))
        self._images[1].set_extent((first, first + across, second + down, second))
        for mark in self._marks:
            mark.set_data([x], [y])
        self._part_shown.set_text(
            f"x {left + column} to {left + column + across - 1}, y {top + row} to {top + row + down - 1}"
        )
        for canvas in self._quick:
            (canvas.redraw if changed else canvas.update)()

    def _part(self, column: int, row: int, across: int, down: int, channel: int) -> np.ndarray:
        """Cut out the close-up at full resolution."""
        rows, columns = slice(row, row + down), slice(column, column + across)
        if self._view == "image":
            return stretch(self.result.image[:, rows, columns], self._limits)
        if self._view == MASK:
            mask, step = self.mask()
            if step == 1:
                return mask[rows, columns]
            # The whole picture has left most pixels out; those few are judged now.
            left, top, *_ = self.result.region
            part = left + column, top + row, across, down
            return self._mask_of(frame_verdicts(self.result, channel, step=1, part=part)[0])
        names = {"rejected high": "rejection_high", "rejected low": "rejection_low", "coverage": "coverage"}
        return 100 * getattr(self.result, names[self._view])[channel, rows, columns]

    def _draw_whole(self, channel: int) -> None:
        left, top, *_ = self.result.region
        if self._view == MASK:
            picture, side = self.mask()
            look = {"cmap": MASK_COLOURS, "vmin": -1.5, "vmax": 3.5}
            title = f"Where frame {self._frame} was rejected, channel {channel}"
        else:
            picture, side, look = picture_of(self.result, self._view, channel)
            title = self._view.capitalize() + ("" if self._view == "image" else f", channel {channel}")
        norm = look.get("norm") or Normalize(look["vmin"], look["vmax"])
        for image in self._images:
            image.set_cmap(look["cmap"])
            image.set_norm(norm)
        self._whole.set_title(title, color=INK, fontsize=10, loc="left")
        height, width = picture.shape[:2]
        self._images[0].set_data(picture)
        self._images[0].set_extent(
            (left - 0.5, left - 0.5 + width * side, top - 0.5 + height * side, top - 0.5)
        )
        self._bar.clear()
        self._bar.set_visible(self._view != "image")
        bar = self._bar.figure.colorbar(ScalarMappable(norm, look["cmap"]), cax=self._bar)
        if self._view == MASK:
            bar.set_ticks([-1, 0, 1, 2, 3], labels=["no data", "kept", "low", "trail ...", "high"])
        dress_bar(bar, "" if self._view == MASK else "% of the frames")


def _within(name: str, value: int, last: int) -> int:
    if not 1 <= int(value) <= last:
        raise ValueError(f"{name}: got {value}, expected 1 to {last}")
    return int(value)


def _number_box(name: str, low: int, high: int, width: str = "9em") -> widgets.BoundedIntText:
    style = {"description_width": "4em"}
    layout = widgets.Layout(width=width)
    return widgets.BoundedIntText(low, min=low, max=high, description=name, style=style, layout=layout)
