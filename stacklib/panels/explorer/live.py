"""The live panel of the explorer: controls, pictures, region and numbers, and what follows from input."""

from __future__ import annotations

from functools import partial
from html import escape

import ipywidgets as widgets

from stacklib.errors import StacklibError
from stacklib.explore.both_presets import COMPARED
from stacklib.explore.region_trials import limits_preset
from stacklib.integration.samples import Region
from stacklib.panels.common import (
    REST,
    Readout,
    beside_note,
    chosen_file,
    enable_control,
    later,
    safe_html,
    side_by_side,
    tabs,
    text_button,
)
from stacklib.panels.explorer.choice import RejectionChoice
from stacklib.panels.explorer.controls import OWN, Controls
from stacklib.panels.explorer.pictures import Pictures
from stacklib.panels.explorer.region_picker import RegionPicker
from stacklib.panels.explorer.trail_list import TrailList
from stacklib.recipe.recipe import Recipe

__all__ = ["LiveExplorer"]

COMPARING = (
    "Comparing the frames by their light. The first time this takes about as long as measuring them ..."
)
#: Seconds after which the browser has sent all input from before it disabled the controls.
HEARD = 1.0
#: The pictures have twice the room of the controls, and are as high as the window allows. Where there is
#: little room, they follow the sliders, which then have two columns, so that both are seen.
STYLE = """<style>
.stacklib-panel { container-type: inline-size; max-width: 1400px }
.stacklib-explorer { gap: 4px 10px; grid-template: "rule pictures" auto "others pictures" 1fr
  / minmax(300px, 9fr) minmax(0, 20fr) }
.stacklib-explorer > * { min-width: 0 }
.stacklib-rule { grid-area: rule }
.stacklib-rule > .widget-dropdown > .widget-label { width: 4.6em !important }
.stacklib-rule .jupyter-button { flex: 0 0 auto; margin: 2px 1px; padding: 0 8px }
.stacklib-others { grid-area: others; align-self: start }
.stacklib-pictures { grid-area: pictures }
.stacklib-pictures .stage { height: clamp(150px, (100vh - 560px) / 2, 240px) !important }
.stacklib-region .stage { height: clamp(110px, (100vh - 660px) * 0.56, 190px) !important }
.stacklib-words > * { font-size: 12px }
.stacklib-words span { display: inline-block; margin-right: 0.8em }
@container (max-width: 1100px) {
  .stacklib-others .widget-dropdown > *, .stacklib-rule > .widget-dropdown > * { font-size: 12px } }
@container (max-width: 780px) {
  .stacklib-explorer { grid-template: "rule" "pictures" "others" / minmax(0, 1fr) }
  .stacklib-rule, .stacklib-rule > .widget-vbox { display: grid; gap: 0 10px;
    grid-template-columns: repeat(2, minmax(0, 1fr)) }
  .stacklib-rule > .widget-vbox, .stacklib-rule > .widget-hbox { grid-column: 1 / -1 } }
</style>"""
RESIDUAL_HELP = (
    "Wherever a sample is more than 5 sigma above the median of the frames: the excess of the result over "
    "that median, beyond 3 standard errors, in percent of the same sum without rejection."
)


class LiveExplorer:
    """The widgets of an explorer, whose `choice` holds the state; `box` is all of them."""

    def __init__(self, choice: RejectionChoice) -> None:
        self.choice, self.model = choice, choice.model
        # While limits are tried, input waits for the kernel; it would undo the suggestion.
        self._suggesting = False
        self._changes = 0
        self.numbers, self.message = Readout(), Readout()
        self.controls = Controls(choice.recipe, self.model.frames.channels > 1)
        self.controls.on_change(self._take_values, self._take_preset, self._take_limits, self._step_back)
        self.pictures = Pictures(choice)
        self.picker = RegionPicker(self.model.frames[self.model.reference], self._take_region)
        self.trails = TrailList(self._take_trail)
        for words in (self.numbers, self.message):
            words.add_class("stacklib-words")
        below = (self.numbers, self._comparing(), self.message, self._saving(), *beside_note())
        others = {
            "Region": self.picker.add_class("stacklib-region"),
            "Settings": self.controls.settings,
            "More": self.controls.more,
            "Trails": self.trails,
        }
        self.others = tabs(others)
        parts = {
            "rule": self.controls.rule,
            "others": self.others,
            "pictures": widgets.VBox([self.pictures.box, *below]),
        }
        boxes = [part.add_class(f"stacklib-{name}") for name, part in parts.items()]
        grid = widgets.GridBox(boxes).add_class("stacklib-explorer")
        self.box = widgets.VBox([widgets.HTML(STYLE), grid], layout=widgets.Layout(width="100%"))
        self.box.add_class("stacklib-panel").add_class("stacklib-keys")
        choice.changed, choice.compared, choice.told = self.refresh, self.pictures.show, self.say
        self.refresh()

    def _comparing(self) -> widgets.Widget:
        """Buttons below the pictures."""
        words = "Add trails and cosmic rays to these frames, try many limits and take the best"
        self.suggest = text_button("Suggest", self._suggest, tooltip=words)
        words = "Keep these settings for comparison"
        self.keep = text_button("Keep as A", self.choice.keep_as_a, tooltip=words)
        words = "Search all frames for trails and the like again, with the present rule and limits"
        self.again = text_button("Search again", self._search_again, tooltip=words, disabled=True)
        room = widgets.Layout(flex="0 0 auto")
        blink = widgets.HBox([widgets.Label("Blink A/B"), self.pictures.play], layout=room)
        return side_by_side(self.suggest, self.keep, self.again, blink, self.pictures.against)

    def _saving(self) -> widgets.Widget:
        style = {"description_width": "3em"}
        room = widgets.Layout(flex="1 1 260px", width="auto", min_width="0")
        self.file = widgets.Text(str(self.choice.path), description="File", style=style, layout=room)
        self.use = text_button("Use these", self._save, button_style="primary")
        words = "Go back to the file as it was before the last save"
        self.undo = text_button("Undo save", self._undo, tooltip=words)
        return side_by_side(self.use, self.undo, self.file)

    # from the browser ----------------------------------------------------------------------------

    def _take_values(self) -> None:
        """Integrate with the values of the controls; the pictures come first."""
        if self._suggesting:
            return
        before = self.choice.recipe
        if not self._try(before.replace(**self.controls.values)):
            return
        self.pictures.show()
        self.choice.remember(before, step=True)
        self._show_settings()
        self._show_numbers()
        self._changes += 1
        if self.model.outdated and self.model.searches_region:
            # Masks of the pixels around hits are brought up to date once the slider rests.
            later(REST, partial(self._refine, self._changes))

    def _refine(self, changes: int) -> None:
        if changes == self._changes and self.model.outdated:
            self._search_again()

    def _try(self, recipe: Recipe, search: bool = False) -> bool:
        """Integrate the region with other settings. If that is not possible, say why and return False.

        Frames that were searched for trails with another rule or other limits are searched again on request.
        """
        if recipe.needs_photometry and self.model.shown.preparation.photometry is None:
            self.say(COMPARING)
        try:
            self.model.integrate(recipe, search, self._say_searched, with_uncertainty=False)
        except StacklibError as error:
            self.say(f"{str(error).rstrip('.')}. The pictures still show the previous settings.")
            return False
        self.say("")
        return True

    def _say_searched(self, fraction: float) -> None:
        self.say(f"Searching all frames for trails and the like: {100 * fraction:.0f} %")

    def _search_again(self) -> None:
        if not self._suggesting and self._try(self.choice.recipe, search=True):
            self.pictures.show()
            self._show_settings()
            self._show_numbers()

    def _take_preset(self, name: str) -> None:
        if not self._suggesting:
            self._try_as_change(self._with_preset(name))

    def _take_limits(self, kind: str) -> None:
        if not self._suggesting:
            self._try_as_change(limits_preset(self.choice.recipe, self.model.shown.rule, kind))

    def _try_as_change(self, recipe: Recipe) -> None:
        before = self.choice.recipe
        self._try(recipe)
        self.choice.remember(before)
        self.refresh()

    def _take_trail(self, name: str, used: bool) -> None:
        if self._suggesting:
            self.trails.show(self.model.shown)
        else:
            self._try_as_change(self.model.with_trail(name, used))

    def _step_back(self) -> None:
        if not self._suggesting:
            self.choice.step_back()
            self.say("" if self.choice.has_history else "These are the settings at the start.")

    def _with_preset(self, name: str) -> Recipe:
        recipe = self.choice.recipe.replace(preset=name)
        return recipe.replace(rejection=recipe.rule_for(len(self.model.frames)))

    def _take_region(self, region: Region) -> None:
        self.choice.region = region

    def _suggest(self) -> None:
        """Apply a suggestion, and ignore input meanwhile."""
        if self._suggesting:
            return
        self._suggesting = True
        self._enable(False)
        try:
            self._say_tried(0.0)
            self.choice.suggest(self._say_tried)
        except StacklibError as error:
            self.say(f"No suggestion: {error}")
        finally:
            later(HEARD, self._end_suggesting)

    def _say_tried(self, fraction: float) -> None:
        self.say(f"Trying limits on these frames: {100 * fraction:.0f} %")

    def _end_suggesting(self) -> None:
        self._suggesting = False
        self._enable(True)
        self.refresh()

    def _save(self) -> None:
        try:
            self.choice.use(chosen_file(self.file.value.strip(), self.choice.path))
            self.say(self.choice.saved)
        except StacklibError as error:
            self.say(f"Not saved: {error}")

    def _undo(self) -> None:
        try:
            path = self.choice.undo()
            self.say(f"{path} is as it was before the last save, and so are the settings here.")
        except StacklibError as error:
            self.say(str(error))

    # to the browser ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show everything anew; the pictures come first."""
        self.pictures.show()
        self.controls.show(self.choice.recipe)
        self.picker.show(self.choice.region)
        self._show_settings()
        self._show_numbers()

    def say(self, text: str) -> None:
        """Say something below the pictures."""
        self.message.say(text)

    def _show_settings(self) -> None:
        """Show preset and rule, and what can be undone or searched again."""
        known = (name for name in COMPARED if self._with_preset(name) == self.choice.recipe)
        self.controls.show_preset(next(known, OWN))
        self.controls.show_rule(self.model.shown.rule)
        self.controls.back.disabled = not self.choice.has_history
        self._show_whether_to_search(not self._suggesting)
        self.trails.show(self.model.shown)
        self.others.set_title(len(self.others.children) - 1, self.trails.title)

    def _show_whether_to_search(self, enabled: bool) -> None:
        may = bool(self.model.outdated) and not self.model.searches_region
        self.again.disabled, self.again.layout.display = not (enabled and may), None if may else "none"

    def _enable(self, enabled: bool) -> None:
        """Enable or disable all controls."""
        self.controls.enable(enabled)
        self.trails.enable(enabled)
        pictures = self.pictures
        for part in (
            self.suggest,
            self.keep,
            pictures.play,
            pictures.against,
            self.use,
            self.undo,
            self.file,
        ):
            enable_control(part, enabled)
        self._show_whether_to_search(enabled)
        self.picker.enabled = enabled

    def _show_numbers(self) -> None:
        model = self.model
        # The list has the trails.
        lines = [safe_html(line) for line in model.words(self.choice.numbers, with_trails=False).splitlines()]
        lines[3] = f'<span title="{escape(RESIDUAL_HELP)}">{lines[3]}</span>'
        notes = [f"Note: {safe_html(note)}" for note in model.shown.preparation.notes]
        self.numbers.say_html("".join(f"<span>{line}</span> " for line in lines), *notes)
