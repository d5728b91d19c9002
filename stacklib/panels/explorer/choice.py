"""Rule and limits as they are chosen on a region: the state of the rejection explorer, without widgets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stacklib.errors import StacklibWarning
from stacklib.explore.advisor import Advice
from stacklib.explore.region_trials import SIDE, RegionTrials, in_short
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_set import FrameSet
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region
from stacklib.recipe.choices import choices_file, undo_write, write_settings
from stacklib.recipe.recipe import Recipe

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["RejectionChoice"]

#: Changes that can be undone.
REMEMBERED = 100


class RejectionChoice:
    """Settings that are chosen on a region of the frames; see `stacklib.panels.RejectionExplorer`.

    A live panel sets what is called: `changed` after settings or region have changed, `compared` after A has,
    and `told` with what is to be said.
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
        self._last_changed: list[str] = []
        self.changed: Callable[[], None] = lambda: None
        self.compared: Callable[[], None] = lambda: None
        self.told: Callable[[str], None] = lambda text: None

    @property
    def recipe(self) -> Recipe:
        """The settings. Can be set."""
        return self.model.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        before = self.recipe
        self.model.integrate(recipe)
        self.remember(before)
        self.changed()

    @property
    def region(self) -> Region:
        """Left, top, width and height. Can be set: a region is moved, then cut, to lie inside the frames."""
        return self.model.region

    @region.setter
    def region(self, region: Region) -> None:
        # A has the pixels of the old region until it is integrated again.
        kept, self.a = self.a, None
        self.model.region = region
        self.changed()
        if kept is not None:
            self.a = self.model.trials.integrate(kept.recipe, search=False)
            self.compared()

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
        self.compared()
        self.told(f"A is {in_short(self.a)}.")
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

    @property
    def trails(self) -> Table:
        """The trails found in all frames, see `stacklib.output.integrated_image.IntegratedImage.trails`."""
        return self.model.shown.trails

    def use_trail(self, name: str, used: bool = True) -> None:
        """Use a trail, or ignore it: then its samples stay. The frames are not searched again.

        Parameters
        ----------
        name : str
            Its name, as in `trails`.
        used : bool
            Whether its samples are rejected.

        Raises
        ------
        RecipeError
            If there is no such trail.
        """
        before = self.recipe
        self.model.integrate(self.model.with_trail(name, used), search=False)
        self.remember(before)
        self.changed()

    def suggest(self, report: Callable[[float], None] | None = None) -> Advice:
        """Apply the proposal of `advice`, and return it; its `reason` says why."""
        advice = self.advice(report)
        self.recipe = advice.recipe
        self.told(f"Suggested. {advice.reason}")
        return advice

    @property
    def has_history(self) -> bool:
        """Whether `step_back` has something to undo."""
        return bool(self._history)

    def step_back(self) -> Recipe:
        """Undo the last change of the settings, and return what they are now."""
        if self._history:
            self.model.integrate(self._history.pop(), search=False)
            self.changed()
        return self.recipe

    def remember(self, before: Recipe, step: bool = False) -> None:
        """Keep settings for `step_back`.

        Parameters
        ----------
        before : Recipe
            The settings before a change.
        step : bool
            Whether the change may be a further step of the last one, such as one of the same slider.
        """
        now = self.recipe.to_dict()
        changed = [name for name, value in before.to_dict().items() if value != now[name]]
        if changed and not (step and changed == self._last_changed):
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
