"""The live panel of the inspector: map and close-up to click, the samples of the pixel, and their story."""

from __future__ import annotations

import itertools
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from stacklib.errors import StacklibError
from stacklib.explore.story_plots import VIEWS, StoryAxes, legend_words
from stacklib.figures.look import GROUND
from stacklib.panels.common import Readout, beside_note, safe_label, side_by_side, tabs
from stacklib.panels.inspector.box_part import BoxPart
from stacklib.panels.inspector.inspection import MASK, PixelInspection
from stacklib.panels.inspector.verdict_table import verdict_table
from stacklib.panels.inspector.views import close_up, whole_view
from stacklib.panels.pictures import FigurePicture
from stacklib.panels.viewer import Viewer
from stacklib.utils.labels import channel_names, own_parts

__all__ = ["LiveInspector"]

#: Height of map and close-up, and width of the samples, in screen pixels.
TALL, WIDTH = 260, 940
#: Place of the cut between the samples in frame order and sorted.
CUT = 0.56
#: What map and close-up have in common.
COMMON = ("curve", "balance", "target", "clip", "colours", "top", "plane")
#: All is seen together: pictures are as high as the window allows, and lower while there is a box.
STYLE = """<style>
.stacklib-inspector-panel { container-type: inline-size; max-width: 980px }
.stacklib-inspector { gap: 2px 10px; grid-template: "choice choice" auto "map close" auto "rounds rounds" auto
  "samples samples" auto "box box" auto "words words" auto "beside beside" auto
  / minmax(0, 3fr) minmax(0, 2fr) }
.stacklib-inspector > * { min-width: 0 }
.stacklib-inspector-map { grid-area: map }
.stacklib-inspector-close { grid-area: close; justify-content: flex-end }
.stacklib-inspector-choice { grid-area: choice }
.stacklib-inspector-rounds { grid-area: rounds }
.stacklib-inspector-samples { grid-area: samples }
.stacklib-inspector-samples .stacklib-figure { flex-wrap: nowrap !important }
.stacklib-inspector-samples .stacklib-picture { flex: 0 1 auto; min-width: 0 }
.stacklib-inspector-box { grid-area: box }
.stacklib-inspector-box .tools { display: none !important }
.stacklib-inspector .stage { height: clamp(150px, (100vh - 600px) * 0.62, 260px) !important }
.stacklib-inspector.with-box .stage { height: clamp(130px, (100vh - 500px) * 0.38, 190px) !important }
.stacklib-inspector-words { grid-area: words }
.stacklib-inspector-beside { grid-area: beside }
@container (max-width: 640px) {
  .stacklib-inspector .tools :is([aria-label^="Zoom"], [aria-label^="Back"]) { display: none }
  .stacklib-inspector-samples .stacklib-figure { flex-wrap: wrap !important } }
</style>"""


class LiveInspector:
    """The widgets of an inspector, whose `inspection` holds the state; `box` is all of them."""

    def __init__(self, inspection: PixelInspection) -> None:
        self.inspection = inspection
        # While the widgets follow the state, what they show is not taken from them.
        self._busy = False
        self._drawn: tuple = ()
        self.rounds = self._rounds()
        self.choices = self._choices()
        self.heading, self.told, self.where = Readout(), Readout(), Readout()
        self.table = widgets.HTML()
        self.map, self.close = self._viewers()
        self.samples = self._samples()
        self.shares = BoxPart()
        for viewer, name in itertools.product(self.shares.viewers[:2], COMMON[:4]):
            widgets.jslink((self.map.widget, name), (viewer.widget, name))
        words = legend_words(inspection.story.means)
        self.legend = widgets.HTML(f'<div style="line-height:1.35">{words}</div>')
        plot = widgets.VBox([self.samples, self.legend])
        self.listed = tabs({"Samples": plot, "Sample and verdict of each frame": self.table})
        self.box = self._arranged()
        self.show_pixel()
        self._listen()
        self.show_box()
        inspection.pixel_changed, inspection.round_changed = self.show_pixel, self.show_story
        inspection.view_changed, inspection.box_changed = self.show_view, self.show_box

    def _choices(self) -> widgets.Widget:
        """Choices of picture, frame and pixel."""
        result = self.inspection.result
        p, (left, top, width, height) = result.preparation, result.region
        labels = own_parts(p.measurements.names)
        files = [(safe_label(f"{i + 1} ({labels[i]})"), int(i) + 1) for i in p.used]
        self.view = _choice("picture", (*VIEWS, MASK), "230px")
        self.frame = _choice("frame", files, "200px")
        self.x = _number_box("x", left, left + width - 1)
        self.y = _number_box("y", top, top + height - 1)
        names = channel_names(len(result.image))
        self.channel = _choice("channel", [(name or "mono", i) for i, name in enumerate(names)], "130px")
        return side_by_side(self.view, self.frame, self.x, self.y, self.channel)

    def _rounds(self) -> tuple[widgets.IntSlider, widgets.BoundedIntText]:
        wide = {"description_width": "4em"}
        slider = widgets.IntSlider(1, 1, 1, description="round", readout=False, style=wide)
        return slider, _number_box("number", 1, 1)

    def _viewers(self) -> tuple[Viewer, Viewer]:
        """Create the viewers of the whole picture and of the close-up."""
        self._whole, self._look = whole_view(self.inspection)
        part, corner = close_up(self.inspection, self._whole)
        look = self._look | {"title": "Close-up", "origin": corner}
        viewers = (
            Viewer(self._whole, height=TALL, boxes=True, **self._look),
            Viewer(part, height=TALL, compact=True, **look),
        )
        first, second = (viewer.widget for viewer in viewers)
        for name in COMMON:
            widgets.jslink((first, name), (second, name))
        return viewers

    def _samples(self) -> FigurePicture:
        figure = Figure(figsize=(WIDTH / 100, 2.45), dpi=100, facecolor=GROUND)
        left, right = figure.add_axes((0.095, 0.2, 0.435, 0.76)), figure.add_axes((0.56, 0.2, 0.325, 0.76))
        right.sharey(left)
        self.dots = StoryAxes(figure, left, right, bare=True, means=self.inspection.story.means)
        # A fixed place: finding one would slow down every drawing.
        left.yaxis.set_label_coords(-0.125, 0.5)
        return FigurePicture(figure, self.dots.moving, [CUT])

    def _arranged(self) -> widgets.VBox:
        parts = {
            "choice": self.choices,
            "map": widgets.VBox([self.map.widget]),
            "close": widgets.VBox([self.close.widget]),
            "rounds": widgets.VBox([side_by_side(*self.rounds, self.heading)]),
            "samples": self.listed,
            "box": self.shares.widget,
            "words": widgets.VBox([self.told, self.where]),
            "beside": widgets.VBox(beside_note()),
        }
        self.of_pixel = [parts["rounds"], parts["samples"], parts["words"]]
        for name, part in parts.items():
            part.add_class(f"stacklib-inspector-{name}")
        self.grid = widgets.GridBox(tuple(parts.values())).add_class("stacklib-inspector")
        panel = widgets.VBox([widgets.HTML(STYLE), self.grid]).add_class("stacklib-inspector-panel")
        return panel.add_class("stacklib-keys")

    # from the browser ----------------------------------------------------------------------------

    def _listen(self) -> None:
        for box in (self.x, self.y, self.channel):
            box.observe(lambda change: self._take("selected", self._numbers), "value")
        for name, boxes in {"round": self.rounds, "view": [self.view], "frame": [self.frame]}.items():
            for box in boxes:
                box.observe(lambda change, name=name: self._take(name, change["new"]), "value")
        for viewer in (self.map, self.close):
            viewer.on_pixel(lambda x, y: self._take("selected", (x, y)))
        self.listed.observe(lambda change: self._show_table(), "selected_index")
        self.map.on_box(self._take_box)
        self.map.widget.observe(lambda change: self.samples.update(change["new"]), "sharpness")

    def _take(self, name: str, value: Any) -> None:
        if not self._busy:
            setattr(self.inspection, name, value)

    @property
    def _numbers(self) -> tuple[int, int, int]:
        return self.x.value, self.y.value, self.channel.value

    def _take_box(self, box: tuple[int, ...]) -> None:
        if box == self.inspection.box:
            return
        try:
            self.inspection.box = box
        except StacklibError as error:
            self.heading.say(str(error))

    # to the browser ------------------------------------------------------------------------------

    def show_pixel(self) -> None:
        """Show another pixel: its story first, then its place in the pictures."""
        self.show_story()
        self._show_pictures()

    def show_story(self) -> None:
        """Show the story of the pixel: words first, then samples, then all others."""
        story, number = self.inspection.story, self.inspection.round
        told, pixel = story.tell_round(number), f"Samples of pixel {story.place}"
        taken = [f"{story.taken_in_words}."] * bool(story.fallen)
        self.dots.show(story, number)
        self.heading.say(self.dots.heading)
        self.told.say(*taken, f"{told}.", f"Result: {story.summary}")
        self.samples.update(self.map.widget.sharpness)
        self.samples.describe(f"{pixel}, in the order of the frames. {told}", f"{pixel}, sorted")
        self._show_choices()
        self._show_table()
        self.where.say(self.inspection.text)

    def _show_table(self) -> None:
        """Write the table, if it is seen."""
        if self.listed.selected_index == 1:
            self.table.value = verdict_table(self.inspection.story, self.inspection.round)

    def show_view(self) -> None:
        """Show another view, or the mask of another frame."""
        self._show_choices()
        self._show_pictures()
        self.where.say(self.inspection.text)

    def _show_choices(self) -> None:
        """Show the state in the controls."""
        inspection = self.inspection
        self._busy = True
        try:
            self.x.value, self.y.value, self.channel.value = inspection.selected
            self.view.value, self.frame.value = inspection.view, inspection.frame
            for box in self.rounds:
                box.max = len(inspection.story.rounds)
                box.value = inspection.round
        finally:
            self._busy = False

    def _show_pictures(self) -> None:
        inspection = self.inspection
        x, y, channel = inspection.selected
        drawn = inspection.view, inspection.frame if inspection.view == MASK else 0, channel
        if drawn != self._drawn:
            self._drawn = drawn
            self._whole, self._look = whole_view(inspection)
            self.map.show(self._whole, **self._look)
        part, corner = close_up(inspection, self._whole)
        for viewer in (self.map, self.close):
            viewer.mark(x, y)
        (first, second), (height, width) = corner, part.shape[1:]
        title = f"x {first} to {first + width - 1}, y {second} to {second + height - 1}"
        self.close.show(part, **self._look | {"title": title, "origin": corner})

    def show_box(self) -> None:
        """Show the frames of the box in the place of the story of the pixel, or the story."""
        found = self.inspection.blame
        self.map.widget.box = list(self.inspection.box)
        for part in self.of_pixel:
            part.layout.display = "none" if found else None
        self.shares.widget.layout.display = None if found else "none"
        if found is None:
            self.grid.remove_class("with-box")
            self.shares.forget()
        else:
            self.grid.add_class("with-box")
            self.shares.show(found, self.map.widget.sharpness)


def _choice(name: str, options: Any, width: str) -> widgets.Dropdown:
    style = {"description_width": "4em"}
    return widgets.Dropdown(
        options=options, description=name, style=style, layout=widgets.Layout(width=width)
    )


def _number_box(name: str, low: int, high: int) -> widgets.BoundedIntText:
    style = {"description_width": "initial"}
    layout = widgets.Layout(width="7.5em")
    return widgets.BoundedIntText(low, min=low, max=high, description=name, style=style, layout=layout)
