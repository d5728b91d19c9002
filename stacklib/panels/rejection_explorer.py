"""The rejection explorer: choose rule and limits on a region that is integrated live."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure

from stacklib.errors import StacklibError, StacklibWarning
from stacklib.explore.advisor import Advice
from stacklib.explore.both_presets import COMPARED
from stacklib.explore.region_trials import SIDE, RegionTrials, in_short, limits_preset
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region
from stacklib.panels.common import (
    LABEL,
    NumberSlider,
    Readout,
    chosen_file,
    control_value,
    enable_control,
    parameter_control,
    safe_html,
    set_control,
    side_by_side,
)
from stacklib.panels.parts.region_figure import figure_region
from stacklib.panels.parts.region_picker import RegionPicker
from stacklib.panels.viewer import Viewer, link
from stacklib.panels.viewer.viewer import plain_levels
from stacklib.panels.viewer.widget import BOTH_SIGNS
from stacklib.recipe.choices import choices_file, undo_write, write_settings
from stacklib.recipe.recipe import NAMED_WEIGHTS, Recipe
from stacklib.recipe.rules import RULES

__all__ = ["RejectionExplorer"]

#: What looks at neighbors.
OF_NEIGHBOURS = ("footprints", "joint_colour", "large_scale_low", "large_scale_high")
SWITCHES = ("clip_low", "clip_high", "range_clip_low", "range_clip_high")
CHOICES = (
    "rejection",
    "normalization",
    "rejection_normalization",
    "weights",
    "scale_estimator",
    "combination",
)
NO_REJECTION, SETTING_A = "no rejection", "setting A"
#: Choices of the preset: those that are compared, or settings that are none of them.
OWN = "other settings"
PRESETS_SHOWN = (OWN, *COMPARED)
COMPARING = (
    "Comparing the frames by their light. The first time this takes about as long as measuring them ..."
)
#: Milliseconds that A and B are each shown while they blink.
BLINK = 600
#: Seconds after which the browser has sent all input from before it disabled the controls.
HEARD = 1.0
#: Seconds after which a slider rests.
REST = 0.5
#: Height of a picture in screen pixels.
TALL = 250
#: Names of the presets of limits.
LIMITS = ("tight", "default", "gentle")
#: Changes that can be undone.
REMEMBERED = 100
#: The pictures have twice the room of the controls, or are below them; the region then comes last.
STYLE = """<style>
.stacklib-panel { container-type: inline-size; max-width: 1400px }
.stacklib-explorer { gap: 4px 10px; grid-template: "controls pictures" auto "region pictures" 1fr
  / minmax(280px, 1fr) minmax(0, 2fr) }
.stacklib-explorer > * { min-width: 0 }
.stacklib-controls { grid-area: controls }
.stacklib-pictures { grid-area: pictures }
.stacklib-region { grid-area: region; align-self: start }
.stacklib-plain .tools { display: none !important }
.stacklib-pictures .readout { min-height: 1.4em !important }
@container (max-width: 780px) {
  .stacklib-explorer { grid-template: "controls" "pictures" "region" / minmax(0, 1fr) }
  .stacklib-pictures .stage { height: 200px !important } }
</style>"""
RESIDUAL_HELP = (
    "Wherever a sample is more than 5 sigma above the median of the frames: the excess of the result over "
    "that median, beyond 3 standard errors, in percent of the same sum without rejection."
)


class RejectionExplorer:
    """A region of the frames, integrated live while you choose rule, limits, normalization and weights.

    Everything works from code as well, without a browser.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        Registered frames, or where to find them.
    recipe : Recipe, optional
        Settings to start with. Default is the suggested rule with default parameters.
    region : (left, top, width, height), optional
        Part of the frames. Default, also for four zeros, is 512 x 512 pixels at the brightest structure. A
        width or height of 0 means 512.
    path : str or Path
        Job file of `use`. Default is ``recipe.yaml`` beside the folder ``4_Registered``, or in any other
        folder of frames.

    Attributes
    ----------
    saved : str
        What `use` wrote last: the job file, and for which frames.
    """

    def __init__(
        self,
        frames: FrameSet | str | Path | list,
        recipe: Recipe | None = None,
        region: Region | None = None,
        path: str | Path = "",
    ) -> None:
        wanted = None
        if region is not None and any(region):
            left, top, width, height = region
            wanted = left, top, width or SIDE, height or SIDE
        self.model = RegionTrials(frames, recipe, wanted)
        if region is not None and any(n and n != used for n, used in zip(region, self.region, strict=True)):
            size = f"{self.model.frames.width} x {self.model.frames.height}"
            warnings.warn(
                f"region: left, top, width, height {tuple(region)} do not fit into the {size} pixels of the "
                f"frames; {self.region} is shown",
                StacklibWarning,
                stacklevel=2,
            )
        self.a: Integration | None = None
        images = [frame.path for frame in self.model.frames]
        self.path, self.saved = resolve_path(path) if path else choices_file(images), ""
        self._history: list[Recipe] = []
        self._shown: Integration | None = None
        self._quiet = self._live = self._suggesting = False
        self._changes = 0
        self._last_changed: list[str] = []

    # from code -----------------------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """The settings. Can be set."""
        return self.model.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        before = self.recipe
        self.model.integrate(recipe)
        self._last_changed = []
        self._remember(before)
        self._refresh()

    @property
    def region(self) -> Region:
        """Left, top, width and height. Can be set: a region is moved, then cut, to lie inside the frames."""
        return self.model.region

    @region.setter
    def region(self, region: Region) -> None:
        # A has the pixels of the old region until it is integrated again.
        kept, self.a = self.a, None
        self.model.region = region
        self._refresh()
        if kept is not None:
            self.a = self.model.trials.integrate(kept.recipe, search=False)
            if self._live:
                self._show_pictures()

    @property
    def result(self) -> Integration:
        """The integrated region; apart from the uncertainty, the same as that of `integrate`.

        Frames are searched for trails and the like when such settings change, or `recipe` is set. Controls of
        the panel that change rule or limits take what is known, and the `summary` says so.
        """
        return self.model.result

    @property
    def numbers(self) -> dict[str, float]:
        """Numbers in percent.

        `rejected_low` and `rejected_high`, by the rule; with settings that look at neighbors, `masked`, the
        samples rejected for their neighbors; `expected_low` and `expected_high` for this many frames of pure
        noise; `noise_penalty`, the extra noise over a plain average of such frames; `residual_light`, see
        `stacklib.explore.outliers.OutlierLight`. Where frames are compared by their light, `noise_for_light`
        and `best_noise_for_light`: the expected noise for equal starlight, relative to the reference frame,
        with these weights and with the best ones.
        """
        return self.model.numbers

    @property
    def summary(self) -> str:
        """The numbers as text."""
        return self.model.words()

    def keep_as_a(self) -> Integration:
        """Keep the result as setting A, to compare other settings with it."""
        self.a = self.result
        if self._live:
            self._show_pictures()
            self._say(f"A is {in_short(self.a)}.")
        return self.a

    def advice(self, report: Callable[[float], None] | None = None) -> Advice:
        """Return the proposal of `stacklib.advise` for this region, without changing the settings.

        For a slow rule, only 256 x 256 pixels in the middle of the region are used.

        Parameters
        ----------
        report : callable, optional
            Called repeatedly with the finished fraction.

        Raises
        ------
        IntegrationError, RecipeError
            If there are too few frames, or the region is too small or too large.
        """
        return self.model.advise(report)

    def with_trails(self, footprints: str = "trails") -> Integration:
        """Return the region integrated with a search for trails, without changing the settings.

        Parameters
        ----------
        footprints : {"trails", "all"}
            What is looked for, see `Recipe`.
        """
        return self.model.trials.integrate(self.recipe.replace(footprints=footprints))

    def suggest(self, report: Callable[[float], None] | None = None) -> Advice:
        """Apply the proposal of `advice`, and return it; its `reason` says why."""
        advice = self.advice(report)
        self.recipe = advice.recipe
        self._say(f"Suggested. {advice.reason}")
        return advice

    def step_back(self) -> Recipe:
        """Undo the last change of the settings, and return what they are now."""
        if self._history:
            self.model.integrate(self._history.pop(), search=False)
            self._refresh()
        return self.recipe

    def _remember(self, before: Recipe) -> None:
        """Keep settings for `step_back`; steps of the same slider count as one."""
        changed = [name for name, value in before.to_dict().items() if value != self.recipe.to_dict()[name]]
        if changed and changed != self._last_changed:
            self._history = [*self._history, before][-REMEMBERED:]
        self._last_changed = changed

    def use(self, path: str | Path = "") -> Path:
        """Write recipe and frames as a job file, and return its path; `saved` says which frames it means.

        What an existing file held is kept as ``recipe.yaml.bak``, see `undo`. See
        `stacklib.recipe.choices.write_settings` for errors.

        Parameters
        ----------
        path : str or Path
            Job file. In an existing file only the recipe is replaced. Default is the `path` given at the
            start.
        """
        path = resolve_path(path or self.path)
        words = write_settings(path, self.recipe, self.model.frames)
        self.saved = f"Saved in {path}, for {words}."
        return path

    def saved_in_words(self, save: bool = False) -> str:
        """Say whether the settings are saved, and where; with `save`, save them first."""
        if save:
            self.use()
            return self.saved
        if not self.path.exists():
            return "Not saved yet: press Use these in the panel, or run panel.use()."
        if self._saved_recipe() != self.recipe:
            return (
                f"{self.path} holds other settings. To replace them, press Use these in the panel, or run "
                "panel.use()."
            )
        return f"Saved in {self.path}."

    def _saved_recipe(self) -> Recipe:
        recipe = Recipe.load(self.path)
        return recipe.replace(rejection=recipe.rule_for(len(self.model.frames)))

    def undo(self) -> Path:
        """Go back to the file as it was before the last `use`, and to its settings; again to undo that.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        RecipeError
            If there is no former version.
        """
        undo_write(self.path)
        self.recipe = self._saved_recipe()
        return self.path

    def figure(self) -> Figure:
        """Draw the four pictures and the numbers as a static figure."""
        return figure_region(self.model, self.a)

    # the widgets ---------------------------------------------------------------------------------

    @cached_property
    def widget(self) -> widgets.Widget:
        """The live panel."""
        self._controls = self._make_controls()
        self._rule_box = widgets.VBox()
        basics = [self._controls[name] for name in (*OF_NEIGHBOURS[:1], *CHOICES[1:4])]
        others = [name for name in OF_NEIGHBOURS[1:] if name in self._controls]
        more = widgets.VBox([self._controls[name] for name in (*CHOICES[4:], *SWITCHES, *others)])
        accordion = widgets.Accordion([more], titles=("More: estimator, combination, switches",))
        self._picker = RegionPicker(self.model.frames[self.model.reference], self._choose_region)
        self._preset = widgets.Dropdown(
            options=PRESETS_SHOWN,
            description="preset",
            tooltip="Settings that belong together: rule, normalization and weights",
            style={"description_width": LABEL},
            layout=widgets.Layout(width="auto"),
        )
        self._preset.observe(lambda change: self._take_preset(), "value")
        parts = {
            "controls": [
                *(self._preset, self._controls["rejection"], self._rule_box, self._make_limits()),
                *(*basics, accordion),
            ],
            "pictures": [self._make_pictures(), self._make_comparison(), self._make_saving()],
            "region": [self._picker],
        }
        boxes = [widgets.VBox(children) for children in parts.values()]
        for name, box in zip(parts, boxes, strict=True):
            box.add_class(f"stacklib-{name}")
        grid = widgets.GridBox(boxes)
        grid.add_class("stacklib-explorer")
        self._live = True
        self._refresh()
        panel = widgets.VBox([widgets.HTML(STYLE), grid], layout=widgets.Layout(width="100%"))
        panel.add_class("stacklib-panel")
        return panel

    def _make_controls(self) -> dict[str, widgets.Widget]:
        parameters = Recipe.parameters()
        names = [*CHOICES, *(name for spec in RULES.values() for name in spec.parameters), *SWITCHES]
        names += [n for n in OF_NEIGHBOURS if n != "joint_colour" or self.model.frames.channels > 1]
        controls = {}
        for name in dict.fromkeys(names):
            known = parameters[name]
            if name == "weights":
                known = replace(known, choices=_weights(self.recipe))
            control = parameter_control(known, getattr(self.recipe, name))
            if isinstance(control, NumberSlider):
                control.on_change(self._from_controls)
            else:
                control.observe(lambda change: self._from_controls(), "value")
            controls[name] = control
        return controls

    def _make_limits(self) -> widgets.Widget:
        """Buttons for presets of limits, and for undoing a change."""
        self._limits = [
            widgets.Button(description=kind, layout=widgets.Layout(width="auto")) for kind in LIMITS
        ]
        for button, words in zip(
            self._limits,
            ("Lower ends of the recommended ranges", "Default limits", "Upper ends"),
            strict=True,
        ):
            button.tooltip = words
            button.on_click(lambda button: self._take_limits(button.description))
        self._back = widgets.Button(
            description="Undo",
            tooltip="Undo the last change of the settings",
            layout=widgets.Layout(width="auto"),
        )
        self._back.on_click(lambda button: self._step_back())
        return widgets.HBox([widgets.Label("limits"), *self._limits, self._back])

    def _make_pictures(self) -> widgets.Widget:
        """Create the linked viewers of result, maps and difference."""
        blank = np.zeros((1, 2, 2), np.float32)
        maps = {"colours": "inferno", "unit": ("%", 100.0)}
        looks = {"result": {}, "low": maps, "high": maps, "difference": {"colours": BOTH_SIGNS}}
        self._pictures = {
            name: Viewer(blank, title=name, height=TALL, compact=True, **look) for name, look in looks.items()
        }
        link(self._pictures.values())
        for name, viewer in self._pictures.items():
            if name != "result":
                viewer.widget.add_class("stacklib-plain")
        # Titles of one and of two lines end at the same height.
        layout = widgets.Layout(
            grid_template_columns="repeat(2, minmax(0, 1fr))", grid_gap="6px", align_items="flex-end"
        )
        return widgets.GridBox([viewer.widget for viewer in self._pictures.values()], layout=layout)

    def _make_comparison(self) -> widgets.Widget:
        self._numbers, self._message = Readout(), Readout()
        keep = widgets.Button(description="Keep as A", tooltip="Keep these settings for comparison")
        keep.on_click(lambda button: self.keep_as_a())
        self._play = widgets.Play(value=0, min=0, max=1, interval=BLINK, show_repeat=False, repeat=True)
        self._play.observe(lambda change: self._blink(), "value")
        self._play.observe(lambda change: self._blink(), "playing")
        self._against = widgets.Dropdown(
            options=(NO_REJECTION, SETTING_A),
            description="Difference from",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="auto"),
        )
        self._against.observe(lambda change: self._show_pictures(), "value")
        blink = widgets.HBox([widgets.Label("Blink A/B"), self._play], layout=widgets.Layout(flex="0 0 auto"))
        self._suggest = widgets.Button(
            description="Suggest",
            tooltip="Add trails and cosmic rays to these frames, try many limits and take the best",
        )
        self._suggest.on_click(lambda button: self._take_suggestion())
        self._again = widgets.Button(
            description="Search again",
            tooltip="Search all frames for trails and the like again, with the present rule and limits",
            disabled=True,
        )
        self._again.on_click(lambda button: self._search_again())
        buttons = [self._suggest, keep, self._again, blink, self._against]
        self._buttons = [self._suggest, keep, self._play, self._against]
        return widgets.VBox([self._numbers, side_by_side(*buttons), self._message])

    def _make_saving(self) -> widgets.Widget:
        self._path = widgets.Text(str(self.path), description="File", style={"description_width": "3em"})
        button = widgets.Button(description="Use these", button_style="primary")
        button.on_click(lambda button: self._save())
        undo = widgets.Button(
            description="Undo save", tooltip="Go back to the file as it was before the last save"
        )
        undo.on_click(lambda button: self._undo())
        self._buttons += [button, undo, self._path]
        return side_by_side(button, undo, self._path)

    # from the widgets ----------------------------------------------------------------------------

    def _from_controls(self) -> None:
        if self._quiet or self._suggesting:
            return
        changes = {name: control_value(control) for name, control in self._controls.items()}
        before = self.recipe
        if not self._try(self.recipe.replace(**changes)):
            return
        self._remember(before)
        self._show_preset()
        self._show_rule()
        self._show_all()
        self._changes += 1
        if self.model.outdated and self.model.searches_region:
            # Masks of the pixels around hits are brought up to date once the slider rests.
            _later(REST, partial(self._refine, self._changes))

    def _refine(self, changes: int) -> None:
        if changes == self._changes and self.model.outdated:
            self._search_again()

    def _try(self, recipe: Recipe, search: bool = False) -> bool:
        """Integrate the region with other settings. If that is not possible, say why and return False.

        Frames that were searched for trails with another rule or other limits are searched again on request.
        """
        if recipe.needs_photometry and self.result.preparation.photometry is None:
            self._say(COMPARING)
        try:
            self.model.integrate(recipe, search, self._say_searched)
        except StacklibError as error:
            self._say(f"{str(error).rstrip('.')}. The pictures still show the previous settings.")
            return False
        self._say("")
        return True

    @property
    def _may_search(self) -> bool:
        return bool(self.model.outdated) and not self.model.searches_region

    def _say_searched(self, fraction: float) -> None:
        self._say(f"Searching all frames for trails and the like: {100 * fraction:.0f} %")

    def _search_again(self) -> None:
        if not self._suggesting and self._try(self.recipe, search=True):
            self._show_all()

    def _take_preset(self) -> None:
        if self._quiet or self._suggesting or self._preset.value == OWN:
            return
        self._try_as_change(self._with_preset(self._preset.value))

    def _take_limits(self, kind: str) -> None:
        if not self._suggesting:
            self._try_as_change(limits_preset(self.recipe, self.result.rule, kind))

    def _try_as_change(self, recipe: Recipe) -> None:
        before, self._last_changed = self.recipe, []
        self._try(recipe)
        self._remember(before)
        self._refresh()

    def _step_back(self) -> None:
        if not self._suggesting:
            self.step_back()
            self._say("" if self._history else "These are the settings at the start.")

    def _with_preset(self, name: str) -> Recipe:
        recipe = self.recipe.replace(preset=name)
        return recipe.replace(rejection=recipe.rule_for(len(self.model.frames)))

    def _choose_region(self, region: Region) -> None:
        self.region = region

    def _take_suggestion(self) -> None:
        """Apply a suggestion; ignore input meanwhile, which waits for the kernel and would undo it."""
        if self._suggesting:
            return
        self._suggesting = True
        self._enable(False)
        try:
            self._say_how_far(0.0)
            self.suggest(self._say_how_far)
        except StacklibError as error:
            self._say(f"No suggestion: {error}")
        finally:
            _later(HEARD, self._end_suggesting)

    def _say_how_far(self, fraction: float) -> None:
        self._say(f"Trying limits on these frames: {100 * fraction:.0f} %")

    def _end_suggesting(self) -> None:
        self._suggesting = False
        self._enable(True)
        self._refresh()

    def _save(self) -> None:
        try:
            self.use(chosen_file(self._path.value.strip(), self.path))
            self._say(self.saved)
        except StacklibError as error:
            self._say(f"Not saved: {error}")

    def _undo(self) -> None:
        try:
            path = self.undo()
            self._say(f"{path} is as it was before the last save, and so are the settings here.")
        except StacklibError as error:
            self._say(str(error))

    # to the widgets ------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Update all widgets."""
        if not self._live:
            return
        self._quiet = True
        try:
            self._controls["weights"].options = _weights(self.recipe)
            for name, control in self._controls.items():
                set_control(control, getattr(self.recipe, name))
        finally:
            self._quiet = False
        self._picker.show(self.region)
        self._show_preset()
        self._show_rule()
        self._show_all()

    def _show_preset(self) -> None:
        """Show which preset the settings are."""
        known = (name for name in COMPARED if self._with_preset(name) == self.recipe)
        quiet, self._quiet = self._quiet, True
        self._preset.value = next(known, OWN)
        self._quiet = quiet

    def _enable(self, enabled: bool) -> None:
        """Enable or disable all controls."""
        for control in (self._preset, *self._controls.values(), *self._buttons, *self._limits):
            enable_control(control, enabled)
        self._again.disabled = not (enabled and self._may_search)
        self._picker.enabled = enabled

    def _show_rule(self) -> None:
        """Show the parameters of the rule, and no others."""
        names = RULES[self.result.rule].parameters
        children = tuple(self._controls[name] for name in names)
        if self._rule_box.children != children:
            self._rule_box.children = children
        some = any(Recipe.parameters()[name].recommended for name in names)
        for button in self._limits:
            button.layout.display = None if some else "none"

    def _show_all(self) -> None:
        self._again.disabled, self._back.disabled = not self._may_search, not self._history
        # Send the pictures to the browser before computing the numbers.
        self._show_pictures()
        self._show_numbers()

    def _blink(self) -> None:
        if self._seen is not self._shown:
            self._show_pictures()

    @property
    def _seen(self) -> Integration:
        """A or B while they blink, otherwise B, the current result."""
        shows_a = self.a is not None and self._play.playing and self._play.value == 0
        return self.a if shows_a else self.result

    def _show_pictures(self) -> None:
        """Show result, maps and difference, each with the title that says what it is."""
        model, seen, pictures = self.model, self._seen, self._pictures
        self._shown = seen
        name = "" if self.a is None else f" {'A' if seen is self.a else 'B'}"
        corner, adu = self.region[:2], self.result.preparation.full_scale
        unit = ("ADU", adu) if adu > 1 else None
        said = f"{name}: {in_short(seen)}" if name else ""
        # The result goes first: the browser shows it while the others are made.
        pictures["result"].show(
            seen.original, title=f"Result{said}", levels=model.levels, origin=corner, unit=unit
        )
        for side, word in (("low", "too dark"), ("high", "too bright")):
            fractions = getattr(seen, f"rejection_{side}").mean(axis=0, dtype=np.float32)
            lost = 100 * float(getattr(seen, f"rejected_{side}").mean())
            title = f"Rejected {side}{name}: {lost:.3f} % {word}"
            top = model.map_top
            pictures[side].show(fractions, title=title, top=top, levels=plain_levels(top), origin=corner)
        other = self.a if self._against.value == SETTING_A and self.a is not None else None
        base = NO_REJECTION if other is None else SETTING_A
        difference = model.difference_of(self.result, other)
        top = model.difference_top
        pictures["difference"].show(
            difference,
            title=f"{'Result' if self.a is None else 'B'} minus {base}",
            top=top,
            levels=plain_levels(top),
            origin=corner,
            unit=unit,
        )

    def _show_numbers(self) -> None:
        numbers, model = self.numbers, self.model
        lines = [safe_html(line) for line in model.words(numbers).splitlines()]
        lines += [f"Note: {safe_html(note)}" for note in self.result.preparation.notes]
        lines[3] = f'<span title="{escape(RESIDUAL_HELP)}">{lines[3]}</span>'
        self._numbers.say_html(*lines)

    def _say(self, text: str) -> None:
        if self._live:
            self._message.say(text)


def _weights(recipe: Recipe) -> tuple[str, ...]:
    """Return the choices of weights; those that need a name are left out if the recipe has none."""
    choices = Recipe.parameters()["weights"].choices
    return tuple(c for c in choices if c not in NAMED_WEIGHTS or getattr(recipe, NAMED_WEIGHTS[c]))


def _later(seconds: float, call: Callable[[], None]) -> None:
    """Call a function after a pause in which the kernel handles what waits; at once without a kernel."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        call()
    else:
        loop.call_later(seconds, call)
