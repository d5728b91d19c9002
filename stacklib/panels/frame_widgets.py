"""The widgets of the frame selector: rows to tick, a picture to blink, plots to click."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stacklib.errors import RecipeError, StacklibError
from stacklib.explore.frame_choice import COLUMNS, FrameChoice, cell_text
from stacklib.figures.look import GROUND
from stacklib.panels.common import Readout, chosen_file, safe_html, safe_label, side_by_side
from stacklib.panels.frame_plots import NightPlots
from stacklib.panels.live_canvas import draw_when_seen, live_canvas
from stacklib.panels.pictures import Picture

__all__ = ["SelectorWidgets"]

#: Width of all cells, so that they line up when a row takes several lines.
CELL = 55
#: The heading stays visible while the rows below it scroll.
STYLE = """<style>
.stacklib-heading {position: sticky; top: 0; z-index: 2; background: var(--jp-layout-color1, white);}
</style>"""
#: Width of the large picture, pixels.
PICTURE = 640


class SelectorWidgets:
    """The widgets of a frame selector, which holds the state."""

    def __init__(self, selector: FrameChoice) -> None:
        self.selector, self._busy = selector, False
        selector.changed = self.refresh
        count = len(selector.table)
        name_width = min(112, 34 + 8 * max(len(name) for name in selector.short_names))
        self.ticks = [
            widgets.Checkbox(
                True, description=safe_label(name), indent=False, layout=_width(f"{name_width}px")
            )
            for name in selector.short_names
        ]
        self.cells = [widgets.HTML(layout=_rest()) for _ in range(count)]
        self.rows = widgets.VBox(
            layout=widgets.Layout(max_height="420px", overflow="hidden scroll", display="block")
        )
        self.heading = _heading(name_width)
        self.lines = []
        for index, (tick, cell) in enumerate(zip(self.ticks, self.cells, strict=True)):
            picture = Picture(f"frame {selector.short_names[index]}", "80px")
            picture.show(selector.thumbnails[index])
            self.lines.append(
                widgets.HBox([tick, picture, cell], layout=widgets.Layout(align_items="center"))
            )
            tick.observe(self._ticked, "value")
        self.status = Readout()
        self.box = widgets.VBox(
            [self._choosing(), self.status, self.rows, *self._blinking(), self._plots()],
            layout=widgets.Layout(max_width="980px"),
        )
        self._sort()
        self.refresh()

    def _choosing(self) -> widgets.Widget:
        names = ["number", "file", *COLUMNS]
        self.column = widgets.Dropdown(options=names, description="sort by", layout=_width("230px"))
        self.descending = widgets.Checkbox(
            False, description="descending", indent=False, layout=_width("110px")
        )
        self.expression = widgets.Text(
            placeholder="fwhm < 3.5 and eccentricity < 0.6",
            description="keep where",
            continuous_update=False,
            style={"description_width": "initial"},
            layout=_width("420px"),
        )
        self.column.observe(lambda change: self._sort(), "value")
        self.descending.observe(lambda change: self._sort(), "value")
        self.expression.observe(lambda change: self._apply(), "value")
        self.file = widgets.Text(
            str(self.selector.path), description="saved in", layout=widgets.Layout(flex="1 1 300px")
        )
        selector = self.selector
        buttons = [
            _button("Apply", "Keep only those selected frames for which the expression holds", self._apply),
            _button("Leave out suggested", "Leave out the frames that look bad", selector.suggest),
            _button("Select all", "Select every frame", self._all),
        ]
        save = _button("Save", "Write the selected frames to this file", self._save)
        undo = _button("Undo save", "Go back to the file as it was before the last save", self._undo)
        return widgets.VBox(
            [
                side_by_side(self.expression, *buttons),
                side_by_side(self.column, self.descending),
                side_by_side(self.file, save, undo),
            ]
        )

    def _blinking(self) -> list[widgets.Widget]:
        count = len(self.ticks)
        play = widgets.Play(value=1, min=1, max=count, interval=500, description="blink")
        play.repeat = True
        self.slider = widgets.IntSlider(
            1, 1, count, description="frame", readout=False, layout=_width("420px")
        )
        self.number = widgets.BoundedIntText(1, 1, count, layout=_width("70px"))
        pause = widgets.BoundedIntText(
            500, 100, 5000, step=100, description="pause (ms)", layout=_width("170px")
        )
        widgets.jslink((play, "value"), (self.slider, "value"))
        widgets.jslink((pause, "value"), (play, "interval"))
        widgets.link((self.slider, "value"), (self.number, "value"))
        self.slider.observe(lambda change: self._look(), "value")
        self.tick = widgets.Checkbox(True, description="selected", indent=False, layout=_width("100px"))
        self.tick.observe(self._ticked_here, "value")
        self.picture = Picture("the frame", "640px")
        self.words = Readout()
        controls = side_by_side(play, self.slider, self.number, pause, self.tick)
        return [controls, self.words, self.picture]

    def _plots(self) -> widgets.Widget:
        figure = Figure(figsize=(5.5, 5.6), dpi=100, facecolor=GROUND, layout="constrained")
        self.night = NightPlots(figure, self.selector.table, self.selector.short_names, columns=2)
        # A frozen layout makes redrawing quick.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        self.canvas = live_canvas(figure, self._clicked)
        return self.canvas

    def refresh(self) -> None:
        """Update all widgets."""
        selector, self._busy = self.selector, True
        try:
            for index, (tick, cell) in enumerate(zip(self.ticks, self.cells, strict=True)):
                tick.value = bool(selector.selected[index])
                cell.value = _line(selector, index)
        finally:
            self._busy = False
        self._say(selector.summary)
        self.night.update(selector.selected)
        draw_when_seen(self.canvas)
        self._look()

    def _look(self) -> None:
        index = self.slider.value - 1
        picture = self.selector.pictures[index]
        self.picture.show(picture, max(1, PICTURE // picture.shape[1]))
        self.picture.alt = self.selector.describe(index)
        self.words.say(self.picture.alt)
        self._busy = True
        self.tick.value = bool(self.selector.selected[index])
        self._busy = False

    def _say(self, text: str) -> None:
        self.status.say(text)

    def _sort(self) -> None:
        values = self.selector.table[self.column.value]
        values = np.asarray(values.filled("") if hasattr(values, "filled") else values)
        order = np.argsort(values, kind="stable")
        if self.descending.value:
            # Unknown numbers stay at the end.
            known = np.isfinite(values[order]) if values.dtype.kind == "f" else np.ones(order.size, bool)
            order = np.concatenate([order[known][::-1], order[~known]])
        self.rows.children = [self.heading, *(self.lines[index] for index in order)]

    def _ticked(self, change: dict) -> None:
        if not self._busy:
            self.selector.choose(np.array([tick.value for tick in self.ticks]))

    def _ticked_here(self, change: dict) -> None:
        if not self._busy:
            self.ticks[self.slider.value - 1].value = change["new"]

    def _clicked(self, x: float, y: float) -> None:
        self.slider.value = int(np.nanargmin(np.abs(self.night.x - x))) + 1

    def _all(self) -> None:
        self.selector.selected = np.ones(len(self.ticks), bool)

    def _apply(self) -> None:
        if self.expression.value.strip():
            try:
                self.selector.apply(self.expression.value)
            except RecipeError as error:
                self._say(str(error))

    def _save(self) -> None:
        try:
            path = self.selector.save(chosen_file(self.file.value.strip(), self.selector.path))
            self._say(f"Saved {path}. {self.selector.summary}")
        except StacklibError as error:
            self._say(f"Not saved: {error}")

    def _undo(self) -> None:
        try:
            path = self.selector.undo()
            self._say(f"{path} is as it was before the last save. {self.selector.summary}")
        except StacklibError as error:
            self._say(str(error))


# pieces -------------------------------------------------------------------------------------------


def _line(selector: FrameChoice, index: int) -> str:
    """Write the numbers of a frame, and below them a note if there is one."""
    cells = "".join(_box(cell_text(selector.table[index], name)) for name in COLUMNS)
    left_out, suggested = selector.reasons.get(index), selector.suggestions.get(index)
    note = f"Left out: {left_out}" if left_out else f"Leave out? {suggested}" if suggested else ""
    note = f'<div style="line-height:1.4;font-weight:bold">{safe_html(note)}</div>' if note else ""
    return f'<div style="display:flex;flex-wrap:wrap;line-height:1.3">{cells}</div>{note}'


def _heading(name_width: int) -> widgets.Widget:
    """Create the heading, built like a row so that both break alike if there is little room."""
    cells = "".join(_box(heading) for heading, _ in COLUMNS.values())
    style = "display:flex;flex-wrap:wrap;align-items:end;line-height:1.2;font-weight:bold;font-size:92%"
    names = widgets.HTML(f'{STYLE}<div style="{style}">{cells}</div>', layout=_rest())
    gaps = [widgets.Box(layout=_width(width)) for width in (f"{name_width}px", "80px")]
    row = widgets.HBox([*gaps, names])
    row.add_class("stacklib-heading")
    return row


def _box(text: str) -> str:
    style = f"flex:0 0 {CELL}px;box-sizing:border-box;text-align:right;padding-right:4px"
    return f'<span style="{style}">{text}</span>'


def _rest() -> widgets.Layout:
    return widgets.Layout(flex="1 1 0", min_width="0")


def _width(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, flex="0 0 auto")


def _button(text: str, tooltip: str, call: Callable[[], object]) -> widgets.Button:
    button = widgets.Button(description=text, tooltip=tooltip, layout=widgets.Layout(width="auto"))
    button.on_click(lambda _: call())
    return button
