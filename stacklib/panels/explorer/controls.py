"""The controls of the explorer: preset, rule with its parameters, presets of limits, and other settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from stacklib.explore.both_presets import COMPARED
from stacklib.panels.common import (
    LABEL,
    NumberSlider,
    control_value,
    enable_control,
    parameter_control,
    set_control,
    text_button,
)
from stacklib.recipe.recipe import NAMED_WEIGHTS, Recipe
from stacklib.recipe.rules import RULES

__all__ = ["OWN", "Controls"]

#: What looks at neighbors.
OF_NEIGHBOURS = ("footprints", "footprint_strength", "joint_colour", "large_scale_low", "large_scale_high")
SWITCHES = ("clip_low", "clip_high", "range_clip_low", "range_clip_high")
CHOICES = (
    "rejection",
    "normalization",
    "rejection_normalization",
    "weights",
    "scale_estimator",
    "combination",
)
#: Choice of the preset for settings that are none of them.
OWN = "other settings"
#: Presets of limits, with what they are.
LIMITS = {
    "tight": "Lower ends of the recommended ranges",
    "default": "Default limits",
    "gentle": "Upper ends",
}


class Controls:
    """The controls of a recipe for frames of one color or of several.

    Parameters
    ----------
    recipe : Recipe
        Settings to start with.
    in_colour : bool
        Whether to offer what looks at several channels.

    Attributes
    ----------
    rule, settings, more : ipywidgets.VBox
        The controls of the rule, other important ones, and the rest.
    each : dict of str to Widget
        Control of each parameter.
    preset : ipywidgets.Dropdown
        The preset; `OWN` if the settings are none.
    rule_box : ipywidgets.VBox
        Controls of the parameters of the rule.
    limits : list of Button
        Presets of limits.
    back : ipywidgets.Button
        Undoes the last change.
    """

    def __init__(self, recipe: Recipe, in_colour: bool) -> None:
        self._quiet = False
        self._changed: Callable[[], None] = lambda: None
        self._preset_chosen: Callable[[str], None] = lambda name: None
        self._limits_chosen: Callable[[str], None] = lambda kind: None
        self._back_wanted: Callable[[], None] = lambda: None
        self.each = self._make(recipe, in_colour)
        self.rule_box = widgets.VBox()
        self.preset = widgets.Dropdown(
            options=(OWN, *COMPARED),
            description="preset",
            tooltip="Settings that belong together: rule, normalization and weights",
            style={"description_width": LABEL},
            layout=widgets.Layout(width="auto"),
        )
        self.preset.observe(lambda change: self._take_preset(), "value")
        self.limits = [
            text_button(kind, lambda kind=kind: self._limits_chosen(kind), tooltip=words)
            for kind, words in LIMITS.items()
        ]
        self.back = text_button(
            "Undo", lambda: self._back_wanted(), tooltip="Undo the last change of the settings"
        )
        others = [name for name in OF_NEIGHBOURS[1:] if name in self.each]
        limits = widgets.HBox([widgets.Label("limits"), *self.limits, self.back])
        self.rule = widgets.VBox([self.preset, self.each["rejection"], self.rule_box, limits])
        self.settings = widgets.VBox([self.each[name] for name in (*OF_NEIGHBOURS[:1], *CHOICES[1:4])])
        self.more = widgets.VBox([self.each[name] for name in (*CHOICES[4:], *SWITCHES, *others)])

    def _make(self, recipe: Recipe, in_colour: bool) -> dict[str, widgets.Widget]:
        parameters = Recipe.parameters()
        names = [*CHOICES, *(name for spec in RULES.values() for name in spec.parameters), *SWITCHES]
        names += [name for name in OF_NEIGHBOURS if in_colour or name != "joint_colour"]
        controls = {}
        for name in dict.fromkeys(names):
            known = parameters[name]
            if name == "weights":
                known = replace(known, choices=_weights(recipe))
            control = parameter_control(known, getattr(recipe, name))
            if isinstance(control, NumberSlider):
                control.on_change(self._take_value)
            else:
                control.observe(lambda change: self._take_value(), "value")
            controls[name] = control
        return controls

    def on_change(
        self,
        value: Callable[[], None],
        preset: Callable[[str], None],
        limits: Callable[[str], None],
        back: Callable[[], None],
    ) -> None:
        """Call functions for a new value, a chosen preset, a chosen preset of limits, and for undoing."""
        self._changed, self._preset_chosen, self._limits_chosen, self._back_wanted = (
            value,
            preset,
            limits,
            back,
        )

    def _take_value(self) -> None:
        if not self._quiet:
            self._changed()

    def _take_preset(self) -> None:
        if not self._quiet and self.preset.value != OWN:
            self._preset_chosen(self.preset.value)

    @property
    def values(self) -> dict[str, Any]:
        """What the controls show, by parameter."""
        return {name: control_value(control) for name, control in self.each.items()}

    def show(self, recipe: Recipe) -> None:
        """Show the values of a recipe."""
        self._quiet = True
        try:
            self.each["weights"].options = _weights(recipe)
            for name, control in self.each.items():
                set_control(control, getattr(recipe, name))
        finally:
            self._quiet = False

    def show_preset(self, name: str) -> None:
        """Show which preset the settings are."""
        self._quiet = True
        self.preset.value = name
        self._quiet = False

    def show_rule(self, rule: str) -> None:
        """Show the parameters of a rule, and no others."""
        names = RULES[rule].parameters
        children = tuple(self.each[name] for name in names)
        if self.rule_box.children != children:
            self.rule_box.children = children
        some = any(Recipe.parameters()[name].recommended for name in names)
        for button in self.limits:
            button.layout.display = None if some else "none"

    def enable(self, enabled: bool) -> None:
        """Enable or disable all controls."""
        for control in (self.preset, *self.each.values(), *self.limits):
            enable_control(control, enabled)


def _weights(recipe: Recipe) -> tuple[str, ...]:
    """Return the choices of weights; those that need a name are left out if the recipe has none."""
    choices = Recipe.parameters()["weights"].choices
    return tuple(c for c in choices if c not in NAMED_WEIGHTS or getattr(recipe, NAMED_WEIGHTS[c]))
