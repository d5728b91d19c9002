"""Parts shared by all panels: sliders with a number box, controls of parameters, lines of text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from stacklib.errors import RecipeError
from stacklib.frames.finding import resolve_path
from stacklib.utils.parameters import Parameter
from stacklib.utils.progress import in_web_app
from stacklib.utils.texts import one_line, printable

__all__ = [
    "REST",
    "NumberSlider",
    "Readout",
    "beside_note",
    "chosen_file",
    "control_value",
    "enable_control",
    "later",
    "parameter_control",
    "safe_html",
    "safe_label",
    "set_control",
    "side_by_side",
    "tabs",
    "text_button",
]

#: Characters by which MathJax, which JupyterLab runs on widgets and tables, knows mathematics.
MATHEMATICS = re.compile(r"[$\\]")
#: Endings of job files.
YAML = (".yaml", ".yml")
#: Width of the longest parameter name, of a number, and of the longest word of a unit.
LABEL, BOX, UNIT = "11.8em", "5.4em", "4.8em"
#: Room of the handle at both ends of a slider, in screen pixels.
HANDLE = 12
#: Seconds after which a slider or the choice in a list rests.
REST = 0.5
#: The name stands above a slider, which is as wide as the panel; the description is for screen readers.
SLIDER_STYLE = """<style>
.stacklib-slider.widget-slider .widget-label { display: none }
.stacklib-slider.widget-slider { margin: 0 2px; width: auto }
.stacklib-track { position: relative; overflow: visible }
.stacklib-track .stacklib-band { position: absolute; inset: 0; pointer-events: none; z-index: 1; margin: 0;
  height: auto; overflow: visible }
.stacklib-slider .noUi-base { z-index: auto }
.stacklib-slider .noUi-origin { z-index: 2 }
.stacklib-slider .noUi-handle { background: #fff; border: 2px solid #1976d2; opacity: 1 }
.stacklib-slider .noUi-handle:focus, .stacklib-slider .noUi-handle:hover { background: #1976d2;
  border-color: #fff }
.stacklib-slider [disabled] .noUi-handle { border-color: #999 }
</style>"""
#: Titles as wide as their words, and little room around the contents.
TABS_STYLE = """<style>
.stacklib-tabs > .lm-TabBar .lm-TabBar-tab { flex: 0 0 auto !important; max-width: none; min-width: 0 }
.stacklib-tabs > .widget-tab-contents { padding: 4px 6px !important; overflow: hidden }
</style>"""
#: The part of the range that a slider covers, and its step; the number box covers the whole range.
SLIDERS = {
    "sigma_low": (1.0, 6.0, 0.1),
    "sigma_high": (1.0, 6.0, 0.1),
    "winsorization_cutoff": (1.5, 10.0, 0.1),
    "percentile_low": (0.0, 1.0, 0.01),
    "percentile_high": (0.0, 1.0, 0.01),
    "min_max_low": (0, 10, 1),
    "min_max_high": (0, 10, 1),
    "linear_fit_low": (1.0, 10.0, 0.1),
    "linear_fit_high": (1.0, 10.0, 0.1),
    "gesd_outliers_fraction": (0.0, 0.9, 0.01),
    "gesd_significance": (0.001, 0.5, 0.001),
    "gesd_low_relaxation": (1.0, 10.0, 0.1),
    "chauvenet_limit": (0.001, 0.5, 0.001),
    "ccd_gain": (0.1, 10.0, 0.1),
    "ccd_read_noise": (0.0, 50.0, 0.5),
    "ccd_scale_noise": (0.0, 0.5, 0.01),
}


class NumberSlider(widgets.VBox):
    """A slider with a number box for a parameter; the recommended values are marked on it.

    The slider covers the range from `low` to `high`; the number box covers the whole range.
    """

    def __init__(
        self,
        parameter: Parameter,
        value: float,
        low: float | None = None,
        high: float | None = None,
        step: float = 0.1,
    ) -> None:
        whole = parameter.kind is int
        low = parameter.low if low is None else low
        high = parameter.high if high is None else high
        step = 1 if whole else step
        slider_kind = widgets.IntSlider if whole else widgets.FloatSlider
        box_kind = widgets.BoundedIntText if whole else widgets.BoundedFloatText
        options = {} if whole else {"readout_format": ".2f"}
        self.name = parameter.name
        self.slider = slider_kind(
            value=min(max(value, low), high),
            min=low,
            max=high,
            step=step,
            description=parameter.name,
            tooltip=parameter.help,
            readout=False,
            layout=widgets.Layout(flex="1 1 auto", width="auto"),
            **options,
        )
        self.slider.add_class("stacklib-slider")
        self.box = box_kind(
            value=value,
            min=parameter.low,
            max=parameter.high,
            step=step,
            tooltip=f"{parameter.help} {parameter.expected}",
            layout=widgets.Layout(width=BOX, flex="0 0 auto"),
        )
        self._following = False
        self.slider.observe(self._from_slider, "value")
        self.box.observe(self._from_box, "value")
        # A label would not break into lines.
        unit = widgets.HTML(
            f'<div style="line-height:1.1;font-size:92%">{parameter.unit}</div>',
            layout=widgets.Layout(min_width="2.8em", max_width=UNIT, flex="0 0 auto", align_self="center"),
        )
        known = parameter.recommended
        words = f"recommended: {known[0]:g} to {known[1]:g}" if known else ""
        name = widgets.HTML(
            f'<div style="line-height:1.2" title="{escape(parameter.help)}">{parameter.name}'
            f'<div style="font-size:85%;opacity:.75">{words}</div></div>',
            layout=widgets.Layout(flex="1 1 0", min_width="0", align_self="center", overflow="hidden"),
        )
        track = widgets.Box([self.slider, *([_band(known, low, high)] if known else [])])
        track.add_class("stacklib-track")
        super().__init__([widgets.HTML(SLIDER_STYLE), widgets.HBox([name, self.box, unit]), track])

    @property
    def number(self) -> float:
        """The value of the parameter. Can be set."""
        return self.box.value

    @number.setter
    def number(self, value: float) -> None:
        self.box.value = value

    def on_change(self, call: Callable[[], None]) -> None:
        """Call a function after every change of the value."""
        self.box.observe(lambda change: call(), "value")

    def _from_slider(self, change: dict) -> None:
        if not self._following:
            # The steps of a slider add up to values such as 2.9000000000000004.
            self.box.value = round(change["new"], 9)

    def _from_box(self, change: dict) -> None:
        # A number beyond the slider moves the handle to its end; the box keeps the number.
        self._following = True
        try:
            self.slider.value = min(max(change["new"], self.slider.min), self.slider.max)
        finally:
            self._following = False


def _band(recommended: tuple[float, float], low: float, high: float) -> widgets.HTML:
    """Draw the recommended values on the track of a slider."""
    start, stop = (100 * (value - low) / (high - low) for value in recommended)
    # On the track, and below it, where the handle does not hide it.
    bars = "".join(
        f'<div style="position:absolute;left:{start:.1f}%;width:{stop - start:.1f}%;top:calc(50% {top}px);'
        f'height:{height}px;background:#3b8fd4;border-radius:3px"></div>'
        for top, height in (("- 4", 8), ("+ 11", 3))
    )
    band = widgets.HTML(f'<div style="position:absolute;inset:0 {HANDLE}px">{bars}</div>')
    band.add_class("stacklib-band")
    return band


def safe_html(text: str) -> str:
    """Return a text as HTML. Names in it are no tags, no mathematics and no commands."""
    return MATHEMATICS.sub(r"<span>\g<0></span>", escape(printable(text)))


def safe_label(text: str) -> str:
    """Return a text as the description of a widget, which can hold mathematics, but no tags."""
    alike = {"\\": "\N{FULLWIDTH REVERSE SOLIDUS}", "$": "\N{FULLWIDTH DOLLAR SIGN}"}
    return one_line(text).translate(str.maketrans(alike))


def chosen_file(text: str, usual: Path) -> Path:
    """Return the job file that a person typed into a panel; nothing means the usual one.

    A panel writes YAML files only. In a web app, where unlike in JupyterLab nobody can run code, it writes
    only into the folder of the usual file.

    Raises
    ------
    RecipeError
        If the panel does not write such a file.
    """
    path = resolve_path(text) if text else usual
    if path.suffix.lower() not in YAML or "\0" in str(path):
        raise RecipeError(f"{path}: is not the name of a job file; give it the ending .yaml")
    if in_web_app() and path.parent.resolve() != usual.parent.resolve():
        raise RecipeError(
            f"{path}: the web app writes only into {usual.parent}; use notebook 2 for other folders"
        )
    return path


def parameter_control(parameter: Parameter, value: Any) -> widgets.Widget:
    """Create the control of a parameter, for `control_value`, `set_control` and `enable_control`."""
    options = {"description": parameter.name, "tooltip": parameter.help, "layout": {"width": "auto"}}
    style = {"description_width": LABEL}
    if parameter.kind in (int, float):
        return NumberSlider(parameter, value, *SLIDERS.get(parameter.name, ()))
    if parameter.kind is bool:
        return widgets.Checkbox(value, indent=False, **options)
    return widgets.Dropdown(options=parameter.choices, value=value, style=style, **options)


def control_value(control: widgets.Widget) -> Any:
    """Return the value that a control of `parameter_control` shows."""
    # The steps of a slider add up to 2.9000000000000004.
    number = isinstance(control, NumberSlider)
    return round(control.number, 9) if number else control.value


def set_control(control: widgets.Widget, value: Any) -> None:
    """Show a value in a control of `parameter_control`."""
    if isinstance(control, NumberSlider):
        control.number = value
    else:
        control.value = value


def enable_control(control: widgets.Widget, enabled: bool) -> None:
    """Enable or disable a control or a button."""
    parts = (control.slider, control.box) if isinstance(control, NumberSlider) else (control,)
    for part in parts:
        part.disabled = not enabled


def later(seconds: float, call: Callable[[], None]) -> None:
    """Call a function after a pause in which the kernel handles what waits; at once without a kernel."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        call()
    else:
        loop.call_later(seconds, call)


def text_button(text: str, call: Callable[[], object], **options: Any) -> widgets.Button:
    """Create a button as wide as its text; options such as ``tooltip`` are those of the widget."""
    layout = widgets.Layout(width="auto", align_self="flex-start")
    button = widgets.Button(description=text, layout=layout, **options)
    button.on_click(lambda _: call())
    return button


def beside_note() -> list[widgets.HTML]:
    """Create a line that says how to keep a panel beside the notebook; none in a web app."""
    if in_web_app():
        return []
    words = (
        "Keep this panel beside the notebook: right-click it, <i>Create New View for Cell Output</i>, and "
        "drag the new tab to the side."
    )
    return [widgets.HTML(f'<div style="line-height:1.3;font-size:85%;opacity:.75">{words}</div>')]


def tabs(parts: Mapping[str, widgets.Widget]) -> widgets.Tab:
    """Put widgets, by title, behind each other, with a tab for each."""
    first, *others = parts.values()
    styled = widgets.VBox([widgets.HTML(TABS_STYLE), first])
    return widgets.Tab([styled, *others], titles=tuple(parts)).add_class("stacklib-tabs")


def side_by_side(*parts: widgets.Widget) -> widgets.HBox:
    """Put widgets side by side if there is room."""
    return widgets.HBox(parts, layout=widgets.Layout(flex_flow="row wrap"))


class Readout(widgets.HTML):
    """Lines of text beside a picture; screen readers read them out when they change."""

    def __init__(self) -> None:
        super().__init__()
        self.say()

    def say(self, *lines: str) -> None:
        """Show these lines."""
        self.say_html(*(safe_html(line) for line in lines))

    def say_html(self, *lines: str) -> None:
        """Show lines of HTML."""
        text = "<br>".join(lines)
        self.value = f'<div role="status" aria-live="polite" style="line-height:1.35">{text}</div>'
