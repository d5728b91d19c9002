"""Select frames, choose rejection, inspect and integrate: the steps of the notebooks as tabs of one page."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from stacklib.errors import RecipeError, StacklibError, StacklibWarning
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.panels.app.downloads import Downloads
from stacklib.panels.common import Readout, side_by_side, text_button
from stacklib.panels.explorer import RejectionExplorer
from stacklib.panels.folder_chooser import FolderChooser
from stacklib.panels.frame_selector import FrameSelector
from stacklib.panels.inspector import PixelInspector
from stacklib.panels.viewer import ResultViewer
from stacklib.recipe.choices import read_choices, target_name
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import rule_in_words
from stacklib.utils.labels import counted
from stacklib.utils.progress import bars_shown_by

__all__ = ["Workbench"]

#: Each page fits the window. Scroll bars and boxes to tick are dark in the dark.
STYLE = """<style>
html:has([data-jp-theme-light="false"]) { color-scheme: dark }
[data-voila] .jp-RenderedHTMLCommon p { margin: 0 }
.stacklib-app > .widget-tab-contents { padding: 6px 10px !important }
.stacklib-app .stacklib-blinker .stage { max-height: max(170px, 54vh - 220px) }
.stacklib-app .stacklib-pictures .stage { height: clamp(150px, (100vh - 480px) / 2, 400px) !important }
.stacklib-app .stacklib-result .stage { max-height: max(200px, 100vh - 490px) }
.stacklib-app .stacklib-maps .stage { max-height: max(120px, (100vh - 580px) / 2) }
</style>"""


class Workbench:
    """All steps of an integration on one page.

    Each step opens with what was chosen in the steps before it, whether it was saved or not. Only buttons
    write files.

    Parameters
    ----------
    frames : str, Path or list
        Registered frames to start with, or where to find them.

    Attributes
    ----------
    selector : FrameSelector or None
        The frames and which of them are chosen; None before they are measured.
    explorer : RejectionExplorer or None
        Rule and limits; None before that step was opened.
    result : Integration or None
        What was integrated last.
    """

    def __init__(self, frames: str | Path | list) -> None:
        self.chooser = FolderChooser(frames, self._new_folder)
        self.selector: FrameSelector | None = None
        self.explorer: RejectionExplorer | None = None
        self.result: Integration | None = None
        self.steps: tuple[_Step, ...] = (_Select(self), _Choose(self), _Inspect(self), _Integrate(self))

    @cached_property
    def widget(self) -> widgets.Tab:
        """The page."""
        tabs = widgets.Tab([step.box for step in self.steps], titles=[step.title for step in self.steps])
        tabs.add_class("stacklib-app")
        tabs.observe(lambda change: self.steps[change["new"]].open(), "selected_index")
        return tabs

    @property
    def chosen(self) -> FrameSet:
        """The chosen frames. `RecipeError` says what to do if there are none."""
        if self.selector is None:
            raise RecipeError("Measure your frames first, on the page Frames.")
        if not self.selector.selected.any():
            raise RecipeError("Select frames first, on the page Frames.")
        return self.selector.frames

    @property
    def recipe(self) -> Recipe:
        """The settings: those of the page Rejection, or else those saved for the frames, or suggested."""
        if self.explorer is not None:
            return self.explorer.recipe
        saved = None
        if self.selector is not None:
            saved = read_choices([frame.path for frame in self.selector.all_frames], self.selector.path)
        return saved.job.recipe if saved else Recipe()

    def _new_folder(self) -> None:
        """Forget the frames before: what was chosen for one target is never used for another."""
        self.selector = self.explorer = self.result = None
        for step in self.steps:
            step.clear()
        self.steps[0].open()


class _Step(ABC):
    """One page: made when it is opened, and again when what it depends on has changed."""

    title = ""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.said, self.bars, self.room = Readout(), widgets.VBox(), widgets.VBox()
        self.box = widgets.VBox([self.said, self.bars, self.room])
        self._made_for: Any = None

    @abstractmethod
    def needs(self) -> Any:
        """Return what the page depends on; raise an error that says what is missing."""

    @abstractmethod
    def make(self) -> list[widgets.Widget]:
        """Return the contents of the page."""

    def open(self) -> None:
        """Make the page, if it is not there yet."""
        with self._told():
            try:
                needs = self.needs()
                if needs == self._made_for:
                    return
                self.said.say("Please wait ...")
                self.room.children = self.make()
            except StacklibError:
                self.clear()
                raise
            self._made_for = needs
            self.said.say()

    def clear(self) -> None:
        """Forget the page."""
        self.said.say()
        self.room.children, self._made_for = (), None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Show progress, notes and errors on the page."""
        with warnings.catch_warnings(record=True) as notes, bars_shown_by(self._show_bar, self.said.say):
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", StacklibWarning)
            try:
                yield
            except StacklibError as error:
                self.said.say(str(error))
            else:
                if notes:
                    self.said.say(*dict.fromkeys(f"Note: {note.message}" for note in notes))
            finally:
                self.bars.children = ()

    def _show_bar(self, bar: widgets.Widget) -> None:
        self.bars.children = (bar,)


class _Select(_Step):
    title = "1 Frames"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        measure = text_button("Measure these frames", self.open, button_style="primary")
        above = side_by_side(bench.chooser.widget, measure)
        above.layout.align_items = "center"
        self.box.children = (widgets.HTML(STYLE), above, *self.box.children)

    def needs(self) -> Any:
        return self.bench.chooser.frames

    def make(self) -> list[widgets.Widget]:
        self.bench.selector = FrameSelector(self.bench.chooser.frames)
        return [self.bench.selector.widget]


class _Choose(_Step):
    title = "2 Rejection"

    def needs(self) -> Any:
        return self.bench.chosen.names

    def make(self) -> list[widgets.Widget]:
        bench = self.bench
        assert bench.selector is not None
        region = None if bench.explorer is None else bench.explorer.region
        recipe = bench.recipe.replace(rejection=bench.recipe.rule_for(len(bench.chosen)))
        bench.explorer = RejectionExplorer(bench.chosen, recipe, region, bench.selector.path)
        return [bench.explorer.widget]


class _Inspect(_Step):
    title = "3 Pixels"

    def needs(self) -> Any:
        self.bench.steps[1].open()
        if self.bench.explorer is None:
            return self.bench.chosen.names
        explorer = self.bench.explorer
        return self.bench.chosen.names, explorer.recipe, explorer.region

    def make(self) -> list[widgets.Widget]:
        if self.bench.explorer is None:
            raise RecipeError("See the page Rejection.")
        return [PixelInspector(self.bench.explorer.result).widget]


class _Integrate(_Step):
    title = "4 Integrate"

    def needs(self) -> Any:
        return self.bench.chosen.names, self.bench.recipe

    def make(self) -> list[widgets.Widget]:
        bench = self.bench
        chosen, recipe = bench.chosen, bench.recipe
        of = f"{counted(len(chosen), 'frame')} of {target_name([frame.path for frame in chosen])}"
        words, settings = Readout(), Readout()
        rule = rule_in_words(recipe.rule_for(len(chosen)), recipe.to_dict())
        words.say(f"{of}, all pixels. Rejection: {rule}.")
        settings.say(*recipe.in_words(len(chosen)))
        every = widgets.Accordion([settings], titles=("All settings",))
        return [words, every, text_button("Integrate", self._run, button_style="primary"), widgets.VBox()]

    def _run(self) -> None:
        bench = self.bench
        *before, shown = self.room.children
        before[-1].disabled = True
        try:
            with self._told():
                self.said.say("Integrating ...")
                bench.result = integrate(bench.chosen, bench.recipe)
                files = [Path(file) for file in bench.result.save()]
                saved = bench.result.saved
                if saved is not None:
                    files += [saved.table, saved.report]
                words = Readout()
                words.say(*bench.result.summary.splitlines(), f"Saved in {files[0].parent}. To download:")
                words.layout.flex = "1 1 480px"
                links = side_by_side(words, Downloads(files))
                shown.children = (links, ResultViewer(bench.result).widget)
                self.said.say()
        finally:
            before[-1].disabled = False
