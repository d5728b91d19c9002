"""The widgets of the frame selector: frames to blink, a table to sort, plots to click."""

from __future__ import annotations

import ipywidgets as widgets
import numpy as np

from stacklib.errors import RecipeError, StacklibError
from stacklib.explore.frame_choice import PLOTTED, FrameChoice, time_axis
from stacklib.panels.blinker import RATES, Blinker, frame_grid
from stacklib.panels.common import Readout, beside_note, chosen_file, side_by_side, text_button
from stacklib.panels.viewer import PagesViewer

__all__ = ["SelectorWidgets"]


class SelectorWidgets:
    """The widgets of a frame selector, which holds the state."""

    def __init__(self, selector: FrameChoice) -> None:
        self.selector = selector
        selector.changed = self.refresh
        names, reference = selector.short_names, selector.table.meta["reference"]
        self.viewer = PagesViewer(selector.all_frames, names, reference, selector.unit)
        self.grid = frame_grid(selector.table, names)
        self.blinker = Blinker(self._wished, viewer=self.viewer.widget, meta=_meta(selector))
        self.status = Readout()
        places = {
            "choose": self._choosing(),
            "blinker": self.blinker,
            "picture": self.viewer.widget,
            "grid": self.grid,
            "status": self.status,
            "save": self._saving(),
        }
        for name, part in places.items():
            part.add_class(name)
        self.box = widgets.VBox(list(places.values())).add_class("stacklib-blinker")
        self.refresh()

    def _choosing(self) -> widgets.Widget:
        self.expression = widgets.Text(
            placeholder="fwhm < 3.5 and eccentricity < 0.6",
            description="keep where",
            continuous_update=False,
            style={"description_width": "initial"},
            layout=widgets.Layout(flex="1 1 260px", max_width="460px"),
        )
        self.expression.observe(lambda change: self._apply(), "value")
        selector = self.selector
        return side_by_side(
            self.expression,
            text_button(
                "Apply", self._apply, tooltip="Keep only those selected frames for which the expression holds"
            ),
            text_button(
                "Leave out suggested", selector.suggest, tooltip="Leave out the frames that look bad"
            ),
            text_button("Select all", self._all, tooltip="Select every frame"),
            text_button("Undo", self._step_back, tooltip="Undo the last change of the selection (u)"),
            text_button("Reset", selector.reset, tooltip="Back to the selection at the start"),
        )

    def _saving(self) -> widgets.Widget:
        self.file = widgets.Text(
            str(self.selector.path), description="saved in", layout=widgets.Layout(flex="1 1 300px")
        )
        save = text_button("Save", self._save, tooltip="Write the selected frames to this file")
        undo = text_button(
            "Undo save", self._undo, tooltip="Go back to the file as it was before the last save"
        )
        return side_by_side(self.file, save, undo, *beside_note())

    def refresh(self) -> None:
        """Update all widgets."""
        selector = self.selector
        self.blinker.chosen = selector.selected.tolist()
        self.blinker.notes = [selector.note(index) for index in range(len(selector.table))]
        self._say(selector.summary)

    def _say(self, text: str) -> None:
        self.status.say(text)

    def _wished(self, wish: str, frames: list[int], value: bool) -> None:
        if wish == "undo":
            self._step_back()
        elif wish == "choose":
            selected = self.selector.selected
            selected[frames] = value
            self.selector.choose(selected)

    def _step_back(self) -> None:
        if not self.selector.step_back():
            self._say(f"Nothing to undo. {self.selector.summary}")

    def _all(self) -> None:
        self.selector.selected = np.ones(len(self.selector.table), bool)

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


def _meta(selector: FrameChoice) -> dict:
    """Return what the plots and the controls show."""
    x, label = time_axis(selector.table)
    plots = []
    for name, title in PLOTTED.items():
        values = np.asarray(selector.table[name], float)
        # JSON has no NaN.
        known = [float(value) if np.isfinite(value) else None for value in values]
        # The unit of levels is in the static figure; there is little room here.
        plots.append({"title": title.replace(" ({level})", ""), "values": known})
    names = selector.short_names
    return {"names": names, "x": x.tolist(), "x_label": label, "plots": plots, "rates": list(RATES)}
