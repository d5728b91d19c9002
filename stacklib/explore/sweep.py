"""Try many settings on the same frames, and see what each rejects, costs and leaves."""

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
from stacklib.measurement.noise import plane_noise
from stacklib.normalization.preparation import Preparation
from stacklib.recipe.recipe import Recipe
from stacklib.utils.parameters import refuse_unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Sweep", "checked_grid", "sweep"]

#: Pixels of a thumbnail at most, each way.
THUMBNAIL = 96
#: Settings of a sweep at most: beyond that somebody has mistyped a range.
MOST = 10_000


@dataclass(frozen=True)
class Sweep:
    """What came of many settings.

    Attributes
    ----------
    recipe : Recipe
        Where the settings started from.
    grid : dict
        The fields that were varied, with their values.
    region : (left, top, width, height)
        The part of the frames that was integrated.
    table : Table
        One row a setting, the last field of the grid fastest. Columns: the fields of the grid;
        `rejected_low` and `rejected_high`, percent of all samples that are data (reports give the mean of the
        frames' percentages, which differs a little where frames have gaps); `noise` of the result, in
        units of the frames, mean of the channels, see `stacklib.measurement.noise.plane_noise`;
        `noise_penalty`, percent
        by which it is above that without rejection; `residual`, percent of the light of outliers that is
        left, see `stacklib.explore.outliers.OutlierLight`. NaN where there is nothing to measure.
    thumbnails : ndarray of float32, shape (settings, channels, height, width)
        A part of each result, where the frames hold most light of outliers.
    corner : (left, top)
        Pixel of the frames at the top left of the thumbnails.
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
        """The recipe of a row of the table."""
        return self.recipe.replace(**settings_of(self.grid)[row])

    def column(self, name: str) -> np.ndarray:
        """A column of the table as an array with an axis for each field of the grid, float64."""
        return np.asarray(self.table[name], dtype=np.float64).reshape(self.shape)

    def figure(self) -> Figure:
        """Rejected samples, noise penalty and residual over the grid."""
        from stacklib.explore.sweep_plots import figure_sweep  # matplotlib takes a second to import

        return figure_sweep(self)

    def figure_thumbnails(self) -> Figure:
        """A part of the results side by side, with one stretch."""
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

    Samples are read once, and normalised and sorted once for all settings that compare them alike. Settings
    that differ only in `sigma_low` and `sigma_high` share even the work of the rule.

    Parameters
    ----------
    frames : FrameSet, or what `open_frames` takes
        At least two registered frames of one geometry.
    grid : mapping of str to sequence
        Fields of the recipe and the values to try, for instance
        ``{"sigma_low": (3, 3.4), "sigma_high": (2.6, 2.9)}`` or ``{"rejection": ("sigma", "gesd")}``.
    recipe : Recipe, optional
        All other fields; `Recipe.suggest` for these frames unless given.
    region : (left, top, width, height), optional
        Integrate this part only, in pixels. Measurements still come from whole frames.
    memory : str or int
        Budget for samples and results. Where the samples of the region do not fit, they are read again for
        every few settings.
    threads : int, optional
        Threads to work with; one a processor unless given.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Sweep
        Images and noise are those of `integrate` for each setting.

    Raises
    ------
    FrameError, IntegrationError, RecipeError
        When a frame, the set, a field or a value cannot be used.

    Warns
    -----
    StacklibWarning
        What `integrate` would say for every one of the settings, once.

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
        # What holds for one setting only is for those who integrate with it.
        if all(note in preparation.notes for preparation in preparations):
            warnings.warn(note, StacklibWarning, stacklevel=2)
    plain, light = _without_rejection(trials, preparations)
    corner = _brightest(next(iter(light.values())).excess, THUMBNAIL)

    def look(trial: Trial) -> tuple[float, ...]:
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
    return Sweep(recipe, values, region, table, np.stack(thumbnails), place)


def checked_grid(grid: Mapping[str, Sequence[Any]]) -> dict[str, tuple]:
    """The fields and values of a grid.

    Raises
    ------
    RecipeError
        When there is no field or no value, a field is unknown, or the values are no sequence or too many.
    """
    refuse_unknown(grid, Recipe.parameters(), "grid")
    values = {}
    for name, some in grid.items():
        if isinstance(some, str | bytes) or not isinstance(some, Sequence | np.ndarray) or len(some) == 0:
            raise RecipeError(f"grid: {name} is {some!r}, expected a list of values to try, such as [2.5, 3]")
        plain = some.tolist() if isinstance(some, np.ndarray) else list(some)
        # A value that is no good is named here, not after a minute of work.
        parameter = Recipe.parameters()[name]
        values[name] = tuple(parameter.check(value) for value in plain)
    count = math.prod(len(some) for some in values.values())
    if not values or count > MOST:
        raise RecipeError(
            f"grid: holds {count if values else 0} settings, expected 1 to {MOST}; "
            'name fields and values, such as {"sigma_high": [2.5, 3]}'
        )
    return values


def settings_of(grid: Mapping[str, tuple]) -> list[dict[str, Any]]:
    """Every combination of the values, the last field fastest."""
    return [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]


def _without_rejection(
    trials: Trials, preparations: list[Preparation]
) -> tuple[dict[Recipe, float], dict[Recipe, OutlierLight]]:
    """Noise and light of outliers without rejection, by the recipe without its rule."""
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
    """Noise of a result in the units of the frames, mean of the channels."""
    return float(np.mean([plane_noise(plane).sigma for plane in trial.image]) / trial.range_factor)


def _brightest(excess: np.ndarray, side: int) -> tuple[int, int]:
    """Left and top of the square with most light of outliers; each counts by its square root."""
    light = np.sqrt(excess.sum(axis=0, dtype=np.float64))
    squares = window_sums(light, side)
    top, left = np.unravel_index(np.argmax(squares), squares.shape)
    return int(left), int(top)
