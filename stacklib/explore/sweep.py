"""Try many settings on the same frames: what each rejects, what it costs in noise, what it leaves."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from stacklib.errors import RecipeError, StacklibWarning
from stacklib.explore.outliers import OutlierLight, window_sums
from stacklib.explore.trials import Trial, Trials, without_rule
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration.samples import Region
from stacklib.normalization.preparation import Preparation
from stacklib.output.integrated_image import image_noise
from stacklib.recipe.recipe import Recipe
from stacklib.utils.labels import quoted
from stacklib.utils.parameters import refuse_unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Sweep", "checked_grid", "sweep"]

#: Largest side of a thumbnail in pixels.
THUMBNAIL = 96
#: Largest number of settings: more than that is a typing error in a range.
MOST = 10_000


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The results of many settings.

    Attributes
    ----------
    recipe : Recipe
        Recipe of all fields that were not varied.
    grid : dict
        Fields that were varied, with their values.
    region : (left, top, width, height)
        Part of the frames that was integrated.
    table : Table
        One row per setting; the last field of the grid varies fastest. Columns: the fields of the grid;
        `rejected_low` and `rejected_high`, percent of all samples that are data (reports give the mean of
        the percentages of the frames, which differs a little where frames have gaps); `noise` of the
        result in units of the frames, mean of the channels, see `stacklib.measurement.noise.plane_noise`;
        `noise_penalty`, the percentage by which it exceeds the noise without rejection; `residual`, the
        light of outliers left in percent, see `stacklib.explore.outliers.OutlierLight`. NaN if there is
        nothing to measure.
    thumbnails : ndarray of float32, shape (settings, channels, height, width)
        The part of each result where the frames have the most light of outliers.
    corner : (left, top)
        Pixel of the frames at the top left corner of the thumbnails.
    """

    recipe: Recipe
    grid: dict[str, tuple]
    region: Region
    table: Table = field(repr=False)
    thumbnails: np.ndarray = field(repr=False)
    corner: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each field of the grid."""
        return tuple(len(values) for values in self.grid.values())

    def recipe_at(self, row: int) -> Recipe:
        """Return the recipe of a row of the table."""
        return self.recipe.replace(**settings_of(self.grid)[row])

    def column(self, name: str) -> np.ndarray:
        """Return a column of the table as float64 array with one axis per field of the grid."""
        return np.asarray(self.table[name], dtype=np.float64).reshape(self.shape)

    def figure(self) -> Figure:
        """Plot rejected samples, noise penalty and residual outlier signal over the grid."""
        from stacklib.explore.sweep_plots import figure_sweep  # matplotlib takes a second to import

        return figure_sweep(self)

    def figure_thumbnails(self) -> Figure:
        """Show a part of the results side by side, with the same stretch."""
        from stacklib.explore.sweep_plots import figure_thumbnails

        return figure_thumbnails(self)


def sweep(
    frames: FrameSet | str | Path | list,
    grid: Mapping[str, Sequence[Any]],
    recipe: Recipe | None = None,
    region: Region | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Integrate frames with every combination of some settings.

    Samples are read once, and normalized and sorted once for all settings with the same rejection
    normalization. Settings that differ only in `sigma_low` and `sigma_high` also share the work of the rule.

    Parameters
    ----------
    frames : FrameSet, or what `open_frames` takes
        At least two registered frames of the same size.
    grid : mapping of str to sequence
        Fields of the recipe and the values to try, such as
        ``{"sigma_low": (3, 3.4), "sigma_high": (2.6, 2.9)}`` or ``{"rejection": ("sigma", "gesd")}``.
    recipe : Recipe, optional
        All other fields. Default is `Recipe.suggest` for these frames.
    region : (left, top, width, height), optional
        Part of the frames to integrate, in pixels. Measurements still come from whole frames.
    memory : str or int
        Budget for samples and results. Samples that do not fit are read again for every few settings.
    threads : int, optional
        Number of threads. Default is one per processor.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Sweep
        Images and noise are the same as those of `integrate` for each setting.

    Raises
    ------
    FrameError, IntegrationError, RecipeError
        If a frame, the set, a field or a value cannot be used.

    Warns
    -----
    StacklibWarning
        Warnings of `integrate` that apply to all settings, once.

    Notes
    -----
    Hits in color frames, with `joint_colour`, and trails are searched for once, with the first rule and its
    limits. So images of color frames can differ in a few pixels from those that `integrate` makes with each
    of the settings.

    Examples
    --------
    >>> found = sweep("sample_data/M13/4_Registered", {"sigma_high": (2.5, 3, 4)})  # doctest: +SKIP
    >>> found.table["sigma_high", "rejected_high", "noise_penalty"]  # doctest: +SKIP
    """
    frames = frames if isinstance(frames, FrameSet) else open_frames(frames)
    recipe = Recipe.suggest(frames) if recipe is None else recipe
    values = checked_grid(grid)
    settings = settings_of(values)
    trials = Trials(frames, memory, threads)
    trials.read(region)
    preparations = [trials.prepare(recipe.replace(**changes)) for changes in settings]
    for note in preparations[0].notes:
        # A note on some of the settings only is left to an integration with them.
        if all(note in preparation.notes for preparation in preparations):
            warnings.warn(note, StacklibWarning, stacklevel=2)
    plain, light = _without_rejection(trials, preparations)
    corner = _brightest(next(iter(light.values())).excess, THUMBNAIL)

    def look(trial: Trial) -> tuple[Any, ...]:
        basis = without_rule(trial.preparation.recipe)
        data = max(int(trial.data.sum()), 1)
        noise = _noise(trial)
        left, top = corner
        return (
            100 * trial.low.sum() / data,
            100 * trial.high.sum() / data,
            noise,
            100 * (noise / plain[basis] - 1) if plain[basis] > 0 else math.nan,
            light[basis].left(trial.original),
            trial.original[:, top : top + THUMBNAIL, left : left + THUMBNAIL].copy(),
        )

    *columns, thumbnails = zip(*trials.each(preparations, look, progress), strict=True)
    table = Table({name: [setting[name] for setting in settings] for name in values})
    names = {"rejected_low": "%", "rejected_high": "%", "noise": "", "noise_penalty": "%", "residual": "%"}
    for (name, unit), column in zip(names.items(), columns, strict=True):
        table[name] = np.array(column)
        table[name].unit = unit or None
    frames.close()
    region = trials.samples.region
    place = region[0] + corner[0], region[1] + corner[1]
    return Sweep(
        recipe=recipe, grid=values, region=region, table=table, thumbnails=np.stack(thumbnails), corner=place
    )


def checked_grid(grid: Mapping[str, Sequence[Any]]) -> dict[str, tuple]:
    """Check a grid; return its fields and values.

    Raise `RecipeError` if there is no field or value, a field is unknown, or its values are not a list or too
    many.
    """
    refuse_unknown(grid, Recipe.parameters(), "grid")
    values = {}
    for name, some in grid.items():
        if isinstance(some, str | bytes) or not isinstance(some, Sequence | np.ndarray) or len(some) == 0:
            raise RecipeError(f"grid: {name} is {quoted(some)}, expected a list of values, such as [2.5, 3]")
        plain = some.tolist() if isinstance(some, np.ndarray) else list(some)
        # Refuse bad values now, not after a minute of work.
        parameter = Recipe.parameters()[name]
        values[name] = tuple(parameter.check(value) for value in plain)
    count = math.prod(len(some) for some in values.values())
    if not values or count > MOST:
        raise RecipeError(
            f"grid: {count if values else 0} settings, expected 1 to {MOST}; "
            'give fields and values, such as {"sigma_high": [2.5, 3]}'
        )
    return values


def settings_of(grid: Mapping[str, tuple]) -> list[dict[str, Any]]:
    """Return every combination of the values; the last field varies fastest."""
    return [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]


def _without_rejection(
    trials: Trials, preparations: list[Preparation]
) -> tuple[dict[Recipe, float], dict[Recipe, OutlierLight]]:
    """Find noise and light of outliers without rejection, for each recipe without its rule."""
    bases = list(dict.fromkeys(without_rule(p.recipe) for p in preparations))
    prepared = [trials.prepare(basis) for basis in bases]
    images = trials.each(prepared, lambda trial: (trial.original, _noise(trial)))
    lights: dict[tuple, OutlierLight] = {}
    noise, light = {}, {}
    for basis, p, (image, sigma) in zip(bases, prepared, images, strict=True):
        key = p.factor.tobytes(), p.offset.tobytes(), p.weights.tobytes(), basis.combination
        if key not in lights:
            lights[key] = trials.outlier_light(basis, image)
        noise[basis], light[basis] = sigma, lights[key]
    return noise, light


def _noise(trial: Trial) -> float:
    """Measure the noise of a result in the units of the frames, mean of the channels."""
    return float(np.nanmean(image_noise(trial.image, trial.preparation)) / trial.range_factor)


def _brightest(excess: np.ndarray, side: int) -> tuple[int, int]:
    """Return left and top of the square with the most light of outliers; each counts by its square root."""
    light = np.sqrt(excess.sum(axis=0, dtype=np.float64))
    squares = window_sums(light, side)
    top, left = np.unravel_index(np.argmax(squares), squares.shape)
    return int(left), int(top)
