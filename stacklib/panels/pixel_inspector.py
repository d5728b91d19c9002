"""The pixel inspector: click a pixel to see its samples, the limits of each round, and the verdicts."""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stacklib.errors import StacklibError
from stacklib.explore.boxes.blame import Blame, blame
from stacklib.explore.boxes.blame_plots import figure_blame
from stacklib.explore.explain import PixelStory, explain
from stacklib.explore.masks import clear_hit, frame_mask, frame_verdicts
from stacklib.explore.story_plots import MASK_CLASSES, VIEWS, StoryAxes, figure_inspection, legend_words
from stacklib.figures.look import GROUND, map_top
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region
from stacklib.panels.common import Readout, safe_label, side_by_side
from stacklib.panels.parts.box_part import BoxPart
from stacklib.panels.parts.verdict_table import verdict_table
from stacklib.panels.pictures import FigurePicture
from stacklib.panels.viewer import Viewer
from stacklib.panels.viewer.viewer import plain_levels
from stacklib.utils.labels import channel_names, own_parts

__all__ = ["MASK", "PixelInspector"]

#: The view of the places where one frame was rejected.
MASK = "mask of a frame"
#: Side of the close-up in pixels.
CLOSE = 41
#: Height of map and close-up, and width of the samples, in screen pixels.
TALL, WIDTH = 300, 940
#: Place of the cut between the samples in frame order and sorted.
CUT = 0.56
#: Attributes of the result that are maps, with their color map.
MAPS = {
    "rejected high": ("rejection_high", "inferno"),
    "rejected low": ("rejection_low", "inferno"),
    "coverage": ("coverage", "viridis"),
}
#: What map and close-up have in common.
COMMON = ("curve", "balance", "target", "clip", "colours", "top", "plane")
#: All is seen together. Where there is little room, the samples come before the close-up.
STYLE = """<style>
.stacklib-inspector-panel { container-type: inline-size; max-width: 980px }
.stacklib-inspector { gap: 2px 10px; grid-template: "choice choice" auto "map close" auto "rounds rounds" auto
  "samples samples" auto "box box" auto "words words" auto / minmax(0, 3fr) minmax(0, 2fr) }
.stacklib-inspector > * { min-width: 0 }
.stacklib-inspector .stacklib-viewer .readout { min-height: 1.4em }
.stacklib-inspector-map { grid-area: map }
.stacklib-inspector-close { grid-area: close; justify-content: flex-end }
.stacklib-inspector-choice { grid-area: choice }
.stacklib-inspector-rounds { grid-area: rounds }
.stacklib-inspector-samples { grid-area: samples }
.stacklib-inspector-box { grid-area: box }
.stacklib-inspector-box .tools { display: none !important }
.stacklib-inspector-words { grid-area: words }
@container (max-width: 640px) {
  .stacklib-inspector {
    grid-template: "choice" "map" "rounds" "samples" "box" "close" "words" / minmax(0, 1fr) }
  .stacklib-inspector .stacklib-viewer .stage { height: 220px !important } }
</style>"""


class PixelInspector:
    """A panel that explains any pixel of a result, and tells which frames are to blame for what a box shows.

    Everything can be read and set from code. Pixels are those of the whole frames, counted from 0.

    Parameters
    ----------
    result : Integration
        The result; its frames are read again, one row at a time.
    x, y, channel : int
        The first pixel; -1 for a cosmic ray, see `stacklib.explore.masks.clear_hit`.

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
    box : tuple of int
        The box whose frames are ranked: left, top, width and height; () for none.
    blame : Blame or None
        The frames of the box, see `stacklib.blame`.
    """

    def __init__(self, result: Integration, x: int = -1, y: int = -1, channel: int = -1) -> None:
        self.result = result
        self._view = "rejected high"
        self._frame = int(result.preparation.used[0]) + 1
        self._masks: tuple[int, np.ndarray, int] | None = None
        self._busy = self._built = False
        self._drawn: tuple = ()
        self.blame: Blame | None = None
        known = (x, y, max(channel, 0))
        x, y, channel = known if x >= 0 and y >= 0 else clear_hit(result, channel)
        self._story = explain(result, x=x, y=y, channel=channel)
        self._round = len(self._story.rounds)

    # state -----------------------------------------------------------------------------------------

    @property
    def selected(self) -> tuple[int, int, int]:
        return self._story.x, self._story.y, self._story.channel

    @selected.setter
    def selected(self, pixel: tuple[int, ...]) -> None:
        x, y, *channel = (int(value) for value in pixel)
        if self.blame is not None:
            self.box = ()
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

    @property
    def box(self) -> Region | tuple[()]:
        return () if self.blame is None else self.blame.box

    @box.setter
    def box(self, box: Region | tuple[()]) -> None:
        self.blame = blame(self.result, box) if box else None
        self._show_box()

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
        """Draw image, high map and samples of the pixel, or the frames of the box, as a static figure."""
        if self.blame is not None:
            return figure_blame(self.blame)
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
        words = f"{self._story.place}{part}: image {value:.6g}{known}; rejected low {low:.0f} %, "
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
        labels = own_parts(p.measurements.names)
        files = [(safe_label(f"{i + 1} ({labels[i]})"), int(i) + 1) for i in p.used]
        self._view_box = _choice("picture", (*VIEWS, MASK), "230px")
        self._frame_box = _choice("frame", files, "200px")
        self._x = _number_box("x", left, left + width - 1)
        self._y = _number_box("y", top, top + height - 1)
        names = channel_names(len(self.result.image))
        options = [(name or "mono", i) for i, name in enumerate(names)]
        self._channel = _choice("channel", options, "130px")
        wide = {"description_width": "4em"}
        self._slider = widgets.IntSlider(1, 1, 1, description="round", readout=False, style=wide)
        self._number = _number_box("number", 1, 1)
        self._where, self._heading, self._what = Readout(), Readout(), Readout()
        self._table = widgets.HTML()
        self._map, self._close = self._make_viewers()
        self._samples = self._make_story()
        self._shares = BoxPart()
        for viewer, name in itertools.product(self._shares.viewers[:2], COMMON[:4]):
            widgets.jslink((self._map.widget, name), (viewer.widget, name))
        self._built = True
        self._refresh()
        for box in (self._x, self._y, self._channel):
            box.observe(lambda change: self._from_browser("selected", self._numbers), "value")
        for box in (self._slider, self._number):
            box.observe(lambda change: self._from_browser("round", change["new"]), "value")
        self._view_box.observe(lambda change: self._from_browser("view", change["new"]), "value")
        self._frame_box.observe(lambda change: self._from_browser("frame", change["new"]), "value")
        for viewer in (self._map, self._close):
            viewer.on_pixel(lambda x, y: self._from_browser("selected", (x, y)))
        self._map.on_box(self._take_box)
        self._map.widget.observe(self._take_sharpness, "sharpness")
        legend = widgets.HTML(f'<div style="line-height:1.35">{legend_words(self._story.means)}</div>')
        parts = {
            "choice": side_by_side(self._view_box, self._frame_box, self._x, self._y, self._channel),
            "map": widgets.VBox([self._map.widget]),
            "close": widgets.VBox([self._close.widget]),
            "rounds": widgets.VBox([side_by_side(self._slider, self._number, self._heading)]),
            "samples": widgets.VBox([self._samples, legend]),
            "box": self._shares.widget,
            "words": widgets.VBox([self._what, self._where, self._table]),
        }
        self._of_pixel = [parts["rounds"], parts["samples"], parts["words"]]
        for name, box in parts.items():
            box.add_class(f"stacklib-inspector-{name}")
        grid = widgets.GridBox(tuple(parts.values()))
        grid.add_class("stacklib-inspector")
        panel = widgets.VBox([widgets.HTML(STYLE), grid])
        panel.add_class("stacklib-inspector-panel")
        self._show_box()
        return panel

    def _take_box(self, box: tuple[int, ...]) -> None:
        try:
            self.box = box
        except StacklibError as error:
            self._heading.say(str(error))

    def _show_box(self) -> None:
        """Show the frames of the box in the place of the story of the pixel, or the story."""
        if not self._built:
            return
        self._map.widget.box = list(self.box)
        for part in self._of_pixel:
            part.layout.display = "none" if self.blame else None
        self._shares.widget.layout.display = None if self.blame else "none"
        if self.blame is not None:
            self._shares.show(self.blame, self._map.widget.sharpness)

    def _from_browser(self, name: str, value: object) -> None:
        if not self._busy:
            setattr(self, name, value)

    @property
    def _numbers(self) -> tuple[int, int, int]:
        return self._x.value, self._y.value, self._channel.value

    def _make_viewers(self) -> tuple[Viewer, Viewer]:
        """Create the viewers of the whole picture and of the close-up; a click chooses a pixel."""
        self._look = self._whole()
        whole, look = self._look
        close, corner = self._part()
        viewers = (
            Viewer(whole, height=TALL, boxes=True, **look),
            Viewer(close, height=TALL, compact=True, **look | {"title": "Close-up", "origin": corner}),
        )
        first, second = (viewer.widget for viewer in viewers)
        for name in COMMON:
            widgets.jslink((first, name), (second, name))
        return viewers

    def _make_story(self) -> FigurePicture:
        figure = Figure(figsize=(WIDTH / 100, 2.45), dpi=100, facecolor=GROUND)
        left, right = figure.add_axes((0.095, 0.2, 0.435, 0.76)), figure.add_axes((0.56, 0.2, 0.325, 0.76))
        right.sharey(left)
        self._dots = StoryAxes(figure, left, right, bare=True, means=self._story.means)
        # A fixed place: finding one would slow down every drawing.
        left.yaxis.set_label_coords(-0.125, 0.5)
        return FigurePicture(figure, self._dots.moving, [CUT])

    def _take_sharpness(self, change: dict[str, Any]) -> None:
        self._samples.update(change["new"])

    # drawing ---------------------------------------------------------------------------------------

    def _refresh(self, picture: bool = True, story: bool = True) -> None:
        """Update widgets and artists."""
        if not self._built:
            return
        x, y, channel = self.selected
        if story:
            # Send the samples to the browser before computing anything else.
            self._dots.show(self._story, self._round)
            self._samples.update(self._map.widget.sharpness)
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
            words = f"Samples of pixel {self._story.place}"
            self._samples.describe(f"{words}, in the order of the frames. {told}", f"{words}, sorted")
            self._table.value = verdict_table(self._story, self._round)
        if picture:
            self._draw_pictures()
        self._where.say(self.text)

    def _draw_pictures(self) -> None:
        x, y, channel = self.selected
        key = (self._view, self._frame if self._view == MASK else 0, channel)
        if key != self._drawn:
            self._drawn, self._look = key, self._whole()
            whole, look = self._look
            self._map.show(whole, **look)
        close, corner = self._part()
        for viewer in (self._map, self._close):
            viewer.mark(x, y)
        height, width = close.shape[1:]
        first, second = corner
        title = f"x {first} to {first + width - 1}, y {second} to {second + height - 1}"
        self._close.show(close, **self._look[1] | {"title": title, "origin": corner})

    def _whole(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Return what the map shows, (channels, height, width), and how."""
        result, (left, top, width, height) = self.result, self.result.region
        channel = self.selected[2]
        name = channel_names(len(result.image))[channel]
        title, of = self._view.capitalize(), f", {name}" * bool(name)
        look = {
            "title": title + of,
            "origin": (left, top),
            "colours": "",
            "classes": (),
            "unit": None,
            "top": 0.0,
        }
        look["levels"] = None
        if self._view == "image":
            known = Viewer(result)
            return result.image, look | {"title": title, "unit": known.unit, "levels": known.levels}
        if self._view == MASK:
            mask, step = self.mask()
            # Where the mask has every step-th pixel, each stands for those around it.
            mask = mask.repeat(step, axis=0)[:height].repeat(step, axis=1)[:, :width]
            edges = ((0, height - mask.shape[0]), (0, width - mask.shape[1]))
            title = f"Where frame {self._frame} was rejected{of}"
            mask = np.pad(mask, edges, mode="edge")[np.newaxis]
            return mask, look | {"title": title, "classes": MASK_CLASSES, "levels": plain_levels(3.0)}
        attribute, colours = MAPS[self._view]
        end = 1.0 if self._view == "coverage" else map_top(result) / 100
        shown = getattr(result, attribute)[channel : channel + 1]
        return shown, look | {
            "colours": colours,
            "top": end,
            "unit": ("%", 100.0),
            "levels": plain_levels(1.0),
        }

    def _part(self) -> tuple[np.ndarray, tuple[int, int]]:
        """Cut out the close-up, and return its corner in the whole frames as well."""
        x, y, channel = self.selected
        left, top, width, height = self.result.region
        column, row = (
            int(np.clip(at - first - CLOSE // 2, 0, max(0, size - CLOSE)))
            for at, first, size in ((x, left, width), (y, top, height))
        )
        across, down = min(CLOSE, width), min(CLOSE, height)
        corner = left + column, top + row
        if self._view == MASK and self.mask()[1] > 1:
            # The whole picture has left most pixels out; those few are judged now.
            part = *corner, across, down
            return self._mask_of(frame_verdicts(self.result, channel, step=1, part=part)[0])[
                np.newaxis
            ], corner
        return self._look[0][:, row : row + down, column : column + across], corner


def _within(name: str, value: int, last: int) -> int:
    if not 1 <= int(value) <= last:
        raise ValueError(f"{name}: got {value}, expected 1 to {last}")
    return int(value)


def _choice(name: str, options: Any, width: str) -> widgets.Dropdown:
    style = {"description_width": "4em"}
    return widgets.Dropdown(
        options=options, description=name, style=style, layout=widgets.Layout(width=width)
    )


def _number_box(name: str, low: int, high: int) -> widgets.BoundedIntText:
    style = {"description_width": "initial"}
    layout = widgets.Layout(width="7.5em")
    return widgets.BoundedIntText(low, min=low, max=high, description=name, style=style, layout=layout)
