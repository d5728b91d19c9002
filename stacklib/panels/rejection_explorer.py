"""The panel in which rule and limits are chosen: a region, integrated live."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from stacklib.advisor import Advice, advise
from stacklib.errors import StacklibError
from stacklib.formats.safely import replace_atomically
from stacklib.panels.common import (
    NumberSlider,
    Readout,
    control_value,
    parameter_control,
    set_control,
)
from stacklib.panels.live_canvas import QuickCanvas, live_canvas
from stacklib.panels.pictures import Picture, encoded
from stacklib.panels.region_integration import (
    DIFFERENCE_COLOURS,
    MAP_COLOURS,
    RegionIntegration,
    difference_scale,
    figure_region,
    in_short,
)
from stacklib.parameters import commented_yaml
from stacklib.recipe import RULE_PARAMETERS, Job, Recipe
from stacklib.results import Integration
from stacklib.samples import Region
from stacklib.screen import stretch

__all__ = ["RejectionExplorer"]

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
#: Milliseconds that A and B are shown while they blink.
BLINK = 600
#: The pictures stand beside what is set where there is room, otherwise below, and then the region last.
STYLE = """<style>
.stacklib-panel { container-type: inline-size; max-width: 980px }
.stacklib-explorer { gap: 4px 8px; grid-template: "controls pictures" auto "region pictures" 1fr
  / 400px minmax(0, 1fr) }
.stacklib-controls { grid-area: controls }
.stacklib-pictures { grid-area: pictures }
.stacklib-region { grid-area: region; align-self: start }
@container (max-width: 780px) {
  .stacklib-explorer { grid-template: "controls" "pictures" "region" / minmax(0, 1fr) } }
</style>"""
RESIDUAL_HELP = (
    "Where a sample stands more than 5 sigma above the median of the frames: how far the result is above "
    "that median, beyond 3 standard errors, in percent of the same sum without rejection."
)


class RejectionExplorer:
    """A region of the frames, integrated live while rule, limits, normalisation and weights are chosen.

    Everything can be done from code as well, without a browser.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        Registered frames, or where they are.
    recipe : Recipe, optional
        Where to start; `Recipe.suggest` for these frames unless given.
    region : (left, top, width, height), optional
        512 x 512 pixels at the brightest structure unless given, or given with a width or height of 0.
    """

    def __init__(self, frames: Any, recipe: Recipe | None = None, region: Region | None = None) -> None:
        wanted = region if region and region[2] and region[3] else None
        self.model = RegionIntegration(frames, recipe, wanted)
        self.a: Integration | None = None
        self._a_picture = b""
        self._quiet = self._live = False
        #: The file that "Use these" writes at first.
        self.path: str | Path = "recipe.yaml"

    # from code -----------------------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """The settings; can be set."""
        return self.model.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        self.model.integrate(recipe)
        self._refresh()

    @property
    def region(self) -> Region:
        """Left, top, width and height; what is set is moved, then cut, to lie inside the frames."""
        return self.model.region

    @region.setter
    def region(self, region: Region) -> None:
        self.a = None
        self.model.region = region
        self._refresh()

    @property
    def result(self) -> Integration:
        """The region, integrated; all but its uncertainty is what `integrate` gives for this region."""
        return self.model.result

    @property
    def numbers(self) -> dict[str, float]:
        """Numbers in percent, see `RegionIntegration`.

        rejected_low and rejected_high, expected_low and expected_high for clean noise and this many
        frames, noise_penalty against a plain average of clean frames, residual_light.
        """
        return self.model.numbers

    @property
    def summary(self) -> str:
        """The numbers as text."""
        return self.model.words()

    def keep_as_a(self) -> Integration:
        """Keep the result as setting A, to compare others with it."""
        self.a = self.result
        if self._live:
            self._a_picture = encoded(self.model.picture(self.a))
            self._show_pictures()
            self._say(f"A is {in_short(self.a)}.")
        return self.a

    def suggest(self) -> Advice:
        """Take over the limits that `stacklib.advise` proposes for this region; `reason` says why.

        Raises
        ------
        IntegrationError, RecipeError
            When there are too few frames, or the region is too large.
        """
        advice = advise(self.model.frames, self.recipe, self.region, progress=False)
        self.recipe = advice.recipe
        self._say(f"Suggested. {advice.reason}")
        return advice

    def use(self, path: str | Path = "recipe.yaml") -> Path:
        """Write the recipe; of a job file that is there already, the frames and the like are kept.

        Returns
        -------
        Path

        Raises
        ------
        RecipeError
            When there is a file of that name which is no job file.
        """
        path = Path(path)
        if not path.exists():
            return self.recipe.save(path)
        values = Job.load(path).to_dict()
        named = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        kept = {name: values[name] for name in Job.parameters() if name in named}
        text = commented_yaml(kept | self.recipe.to_dict(), Job.parameters() | Recipe.parameters())
        return replace_atomically(path, text.encode("utf-8"))

    def figure(self) -> Figure:
        """The four pictures and the numbers, as a static figure."""
        return figure_region(self.model, self.a)

    # the widgets ---------------------------------------------------------------------------------

    @cached_property
    def widget(self) -> widgets.Widget:
        """The live panel."""
        self._controls = self._make_controls()
        self._rule_box = widgets.VBox()
        basics = [self._controls[name] for name in CHOICES[1:4]]
        more = widgets.VBox([self._controls[name] for name in (*CHOICES[4:], *SWITCHES)])
        accordion = widgets.Accordion([more], titles=("More: estimator, combination, switches",))
        self._region_boxes = [self._region_box("left", 0), self._region_box("top", 1)]
        words = widgets.HTML("<b>Region</b>: drag the rectangle, or type its corner")
        parts = {
            "controls": [self._controls["rejection"], self._rule_box, *basics, accordion],
            "pictures": [self._make_pictures(), self._make_comparison(), self._make_saving()],
            "region": [words, self._make_overview(), widgets.HBox(self._region_boxes)],
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
        names = [*CHOICES, *(name for rule in RULE_PARAMETERS.values() for name in rule), *SWITCHES]
        controls = {}
        for name in dict.fromkeys(names):
            control = parameter_control(parameters[name], getattr(self.recipe, name))
            if isinstance(control, NumberSlider):
                control.on_change(self._from_controls)
            else:
                control.observe(lambda change: self._from_controls(), "value")
            controls[name] = control
        return controls

    def _region_box(self, name: str, axis: int) -> widgets.BoundedIntText:
        size = (self.model.frames.width, self.model.frames.height)[axis] - self.region[2 + axis]
        box = widgets.BoundedIntText(
            *(self.region[axis], 0, max(size, 0)),
            description=name,
            step=16,
            continuous_update=False,
            style={"description_width": "3em"},
            layout=widgets.Layout(width="10em"),
        )
        box.observe(lambda change: self._from_region_boxes(), "value")
        return box

    def _make_overview(self) -> widgets.Widget:
        picture, side = stretch(self.model.overview), self.model.overview_side
        height, width = picture.shape[:2]
        figure = Figure(figsize=(3.7, 3.7 * height / width), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        extent = (0, width * side, height * side, 0)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
        self._rectangle = Rectangle((0, 0), 1, 1, fill=False, ec="#f0a63a", lw=2)
        axes.add_patch(self._rectangle)
        canvas = live_canvas(figure)
        self._overview = QuickCanvas(canvas, [self._rectangle])
        for name in ("button_press", "motion_notify", "button_release", "figure_leave"):
            canvas.mpl_connect(f"{name}_event", self._drag)
        self._dragging = False
        return canvas

    def _make_pictures(self) -> widgets.Widget:
        self._pictures, self._titles, cells = {}, {}, []
        for name in ("result", "low", "high", "difference"):
            self._pictures[name] = Picture(name)
            self._titles[name] = Readout()
            cells.append(widgets.VBox([self._titles[name], self._pictures[name]]))
        layout = widgets.Layout(grid_template_columns="repeat(2, minmax(0, 1fr))", grid_gap="6px")
        return widgets.GridBox(cells, layout=layout)

    def _make_comparison(self) -> widgets.Widget:
        self._numbers, self._message = Readout(), Readout()
        keep = widgets.Button(description="Keep as A", tooltip="Keep these settings to compare with others")
        keep.on_click(lambda button: self.keep_as_a())
        self._play = widgets.Play(value=0, min=0, max=1, interval=BLINK, show_repeat=False, repeat=True)
        self._play.observe(lambda change: self._show_result(), "value")
        self._play.observe(lambda change: self._show_pictures(), "playing")
        self._against = widgets.Dropdown(
            options=(NO_REJECTION, SETTING_A),
            description="Difference to",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="auto"),
        )
        self._against.observe(lambda change: self._show_pictures(), "value")
        blink = widgets.HBox([widgets.Label("Blink A/B"), self._play], layout=widgets.Layout(flex="0 0 auto"))
        self._suggest = widgets.Button(
            description="Suggest",
            tooltip="Put trails and cosmic rays into these frames, try many limits, and take the best",
        )
        self._suggest.on_click(lambda button: self._take_suggestion())
        buttons = [self._suggest, keep, blink, self._against]
        row = widgets.HBox(buttons, layout=widgets.Layout(flex_flow="row wrap"))
        return widgets.VBox([self._numbers, row, self._message])

    def _make_saving(self) -> widgets.Widget:
        self._path = widgets.Text(str(self.path), description="File", style={"description_width": "3em"})
        button = widgets.Button(description="Use these", button_style="primary")
        button.on_click(lambda button: self._save())
        return widgets.HBox([button, self._path], layout=widgets.Layout(flex_flow="row wrap"))

    # from the widgets ----------------------------------------------------------------------------

    def _from_controls(self) -> None:
        if self._quiet:
            return
        changes = {name: control_value(control) for name, control in self._controls.items()}
        try:
            self.model.integrate(self.recipe.replace(**changes))
        except StacklibError as error:
            self._say(f"{str(error).rstrip('.')}. The pictures are still those of the settings before.")
            return
        self._say("")
        self._show_rule()
        self._show_all()

    def _from_region_boxes(self) -> None:
        if not self._quiet:
            self.region = (*(box.value for box in self._region_boxes), *self.region[2:])

    def _drag(self, event: Any) -> None:
        if event.name == "button_press_event":
            self._dragging = event.inaxes is not None
        if not self._dragging:
            return
        # A button that is let go outside is not told; older versions of matplotlib do not know `buttons`.
        let_go = event.name == "motion_notify_event" and getattr(event, "buttons", None) == frozenset()
        if event.inaxes is not None and event.name != "figure_leave_event" and not let_go:
            _, _, width, height = self.region
            left = min(max(event.xdata - width / 2, 0), self.model.frames.width - width)
            top = min(max(event.ydata - height / 2, 0), self.model.frames.height - height)
            self._rectangle.set_xy((left, top))
            self._overview.update(more=True)
        if let_go or event.name in ("button_release_event", "figure_leave_event"):
            self._dragging = False
            self.region = (*(round(value) for value in self._rectangle.get_xy()), *self.region[2:])

    def _take_suggestion(self) -> None:
        self._say("Trying limits on these frames ...")
        try:
            self.suggest()
        except StacklibError as error:
            self._say(f"No suggestion: {error}")

    def _save(self) -> None:
        try:
            self._say(f"Saved in {self.use(self._path.value).absolute()}.")
        except (StacklibError, OSError) as error:
            self._say(f"Not saved: {error}")

    # to the widgets ------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Show the state in all widgets."""
        if not self._live:
            return
        self._quiet = True
        try:
            for name, control in self._controls.items():
                set_control(control, getattr(self.recipe, name))
            for axis, box in enumerate(self._region_boxes):
                size = (self.model.frames.width, self.model.frames.height)[axis]
                box.max = max(size - self.region[2 + axis], self.region[axis])
                box.value = self.region[axis]
        finally:
            self._quiet = False
        left, top, width, height = self.region
        self._rectangle.set_bounds(left, top, width, height)
        # Whole: of a drag that was quick the browser may have missed a part.
        self._overview.redraw()
        self._show_rule()
        self._show_all()

    def _show_rule(self) -> None:
        """The parameters of the rule, and no others."""
        names = RULE_PARAMETERS[self.result.rule]
        children = tuple(self._controls[name] for name in names)
        if self._rule_box.children != children:
            self._rule_box.children = children

    def _show_all(self) -> None:
        # The pictures are on their way to the browser before the numbers are worked out.
        self._show_pictures()
        self._show_numbers()

    def _show_pictures(self) -> None:
        model = self.model
        other = self.a if self._against.value == SETTING_A else None
        # What one looks at goes first; the browser shows it while the others are made.
        self._b_picture = encoded(model.picture())
        if self.a is not None and self._play.playing:
            self._a_picture = encoded(model.picture(self.a))
        self._show_result()
        for side in ("low", "high"):
            self._pictures[side].show(model.map_picture(side), colours=MAP_COLOURS)
        self._pictures["difference"].show(model.difference_picture(other), colours=DIFFERENCE_COLOURS)

    def _show_result(self) -> None:
        """A or B while they blink, otherwise B, which is the result."""
        shows_a = self.a is not None and self._play.playing and self._play.value == 0
        self._pictures["result"].value = self._a_picture if shows_a else self._b_picture
        name = (
            ""
            if self.a is None
            else f" {'A' if shows_a else 'B'}: {in_short(self.a if shows_a else self.result)}"
        )
        self._title("result", f"Result{name}")

    def _show_numbers(self) -> None:
        numbers, model = self.numbers, self.model
        top = 100 * model.map_top
        scale, unit = difference_scale(model)
        other = SETTING_A if self.a is not None and self._against.value == SETTING_A else NO_REJECTION
        for side, word in (("low", "too dark"), ("high", "too bright")):
            rejected = f"Rejected {side} ({word}): {numbers[f'rejected_{side}']:.3f} %"
            self._title(side, f"{rejected}; brightest: {top:.0f} % of the frames")
        self._title("difference", f"Result minus {other}; blue to red: ±{scale:.3g} {unit}")
        lines = [escape(line) for line in model.words(numbers).splitlines()]
        lines += [f"Note: {escape(note)}" for note in self.result.preparation.notes]
        lines[3] = f'<span title="{escape(RESIDUAL_HELP)}">{lines[3]}</span>'
        self._numbers.say_html(*lines)

    def _title(self, name: str, text: str) -> None:
        """Above a picture, and as its name for those who cannot see it."""
        self._titles[name].say(text)
        self._pictures[name].alt = text

    def _say(self, text: str) -> None:
        if self._live:
            self._message.say(text)
