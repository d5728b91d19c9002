"""The presets classic and measured on the same frames: noise for equal starlight, starlight, rejection."""

from __future__ import annotations

import math
import warnings
from functools import cached_property, partial

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from stacklib.explore.region_trials import brightest_region
from stacklib.explore.trials import Trials, without_rule
from stacklib.figures.look import colour_bar, new_figure, show_picture, write_title
from stacklib.figures.screen import binned, screen_limits, stretch
from stacklib.integration.noise_image import measure_noise, noise_window
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate_samples
from stacklib.measurement.light.photometry import compare_stars, make_template
from stacklib.measurement.light.structure import compare_structure
from stacklib.recipe.recipe import Recipe

__all__ = ["COMPARED", "BothPresets"]

#: The presets that are compared.
COMPARED = ("classic", "measured")
#: Largest number of columns of an overview, and of a picture.
OVERVIEW, PICTURE = 480, 512
#: The scale of the difference ends at this many times the noise of the image.
DIFFERENCE_NOISE = 8.0
#: Presets are alike if one needs less than this many times the frames of the other.
ALIKE = 1.02


class BothPresets:
    """A region integrated with the presets classic and measured, to compare them.

    Parameters
    ----------
    trials : Trials
        The frames, with the samples of a region read.
    recipe : Recipe, optional
        Settings of both besides those of the presets. The result is an average, and the reference frame that
        of measured.

    Attributes
    ----------
    region : tuple of int
        Left, top, width and height.
    results : dict of str to Integration
        The region by preset.
    plain : Integration
        The region matched by starlight, without rejection.
    """

    def __init__(self, trials: Trials, recipe: Recipe | None = None) -> None:
        recipe = (Recipe() if recipe is None else recipe).replace(combination="average")
        found = trials.prepare(recipe.replace(preset="measured"))
        recipe = recipe.replace(reference=found.measurements.names[found.reference])
        recipes = {name: recipe.replace(preset=name) for name in COMPARED}
        self.plain = trials.integrate(without_rule(recipes["measured"]))
        self.results = {name: trials.integrate(own) for name, own in recipes.items()}
        assert trials.samples is not None
        self.region = trials.samples.region
        for result in self.results.values():
            again = partial(integrate_samples, true_claims=False)
            result.measure_scale = partial(measure_noise, noise_window(trials.samples), again)

    @classmethod
    def of_result(cls, result: Integration, memory: str | int = "2GB") -> BothPresets:
        """Compare them at the brightest structure of a result, on 512 x 512 pixels.

        Parameters
        ----------
        result : Integration
            The result. Frames that were compared by their light are not compared again.
        memory : str or int
            Memory budget.

        Returns
        -------
        BothPresets
        """
        p = result.preparation
        trials = Trials(p.frames, memory)
        trials.take_measurements(p)
        left, top, width, height = brightest_region(*binned(result.original, OVERVIEW))
        x, y, across, down = result.region
        width, height = min(width, across), min(height, down)
        left, top = (max(0, min(*pair)) for pair in ((left, across - width), (top, down - height)))
        trials.read((x + left, y + top, width, height))
        return cls(trials, p.recipe)

    @cached_property
    def starlight(self) -> dict[str, float]:
        """Flux of the stars of each result, relative to the reference frame; NaN if it is not known.

        It is measured against the result without rejection, whose share of the light is known from the
        transparency of the frames. Where there are too few stars, other structure is compared.
        """
        stacks = [_with_holes(self.plain, channel) for channel in range(len(self.plain.image))]
        stars = [make_template(stack)[0] for stack in stacks]
        light: dict[str, float] = {}
        for name, result in self.results.items():
            ratios = []
            for channel, (stack, template) in enumerate(zip(stacks, stars, strict=True)):
                image = _with_holes(result, channel)
                found, _, _ = compare_stars(image, template)
                found = found if found.known else compare_structure(image, stack)
                ratios.append(found.ratio)
            light[name] = _mean(np.array(ratios) * self.plain.signal_ratio)
        return light

    @cached_property
    def noise(self) -> dict[str, float]:
        """Noise of each result at the scale that matters, relative to the reference frame."""
        one = self.results["measured"].reference_noise
        scales = {name: result.scale_noise for name, result in self.results.items()}
        return {name: math.nan if s is None else _mean(s.scale / one) for name, s in scales.items()}

    @property
    def best(self) -> float:
        """Smallest noise for equal starlight that these frames allow, relative to the reference frame."""
        return _mean(self.results["measured"].best_noise_ratio)

    @cached_property
    def table(self) -> Table:
        """One row per preset, numbers in percent.

        Columns: preset; rule; rejected_low and rejected_high, of the samples; starlight, noise, and
        noise_for_light, the noise for equal starlight, all relative to the reference frame.
        """
        table = Table()
        table["preset"] = list(self.results)
        results = self.results.values()
        table["rule"] = [result.rule for result in results]
        for side in ("low", "high"):
            table[f"rejected_{side}"] = [100 * float(getattr(r, f"rejected_{side}").mean()) for r in results]
        table["starlight"] = [100 * self.starlight[name] for name in self.results]
        table["noise"] = [100 * self.noise[name] for name in self.results]
        table["noise_for_light"] = table["noise"] / table["starlight"] * 100
        for name in table.colnames[2:]:
            table[name].unit = "%"
            table[name].format = ".2f" if name.startswith("rejected") else ".1f"
        return table

    @property
    def words(self) -> str:
        """What the table says, in a few lines."""
        columns = {name: dict(zip(COMPARED, self.table[name], strict=True)) for name in self.table.colnames}
        light, noise = columns["starlight"], columns["noise_for_light"]
        count = self.results["measured"].preparation.count
        if not all(math.isfinite(value) for value in (*noise.values(), *light.values())):
            return "Their light cannot be compared: the region shows too few stars and too little structure."
        worse, better = sorted(COMPARED, key=lambda name: -noise[name])
        more = (noise[worse] / noise[better]) ** 2
        gain = "The noise is equally low with both."
        if more >= ALIKE:
            gain = f"{worse.capitalize()} needs {100 * (more - 1):.0f} % more frames to match {better}."
        return (
            f"Stars: {light['classic']:.1f} % (classic) and {light['measured']:.1f} % (measured) of their "
            "light in the reference frame.\n"
            f"Noise for equal starlight: {noise['classic']:.1f} % (classic) and {noise['measured']:.1f} % "
            "(measured) of that of the reference frame.\n"
            f"These {count} frames allow {100 * self.best:.1f} %. {gain}"
        )

    def figure(self) -> Figure:
        """Draw both results with the same stretch, and their difference."""
        left, top, width, height = self.region
        side = -(-width // PICTURE)
        shown = {name: binned(result.original, PICTURE)[0] for name, result in self.results.items()}
        levels = {name: np.nanmedian(image, axis=(1, 2), keepdims=True) for name, image in shown.items()}
        limits = screen_limits(shown["measured"])
        figure = new_figure(13.0, 3.9 * height / width + 0.9)
        axes = figure.subplots(1, 3)
        for place, (name, image) in zip(axes, shown.items(), strict=False):
            matched = image - levels[name] + levels["measured"]
            show_picture(place, stretch(matched, limits), name.capitalize(), side, corner=(left, top))
        classic, measured = (shown[name] - levels[name] for name in COMPARED)
        coverage = [binned(result.coverage, PICTURE)[0] for result in self.results.values()]
        there = np.min(coverage, axis=(0, 1)) > 0
        noise = _mean(self.results["measured"].noise) or 1.0
        drawn = show_picture(
            axes[2],
            np.where(there, (classic - measured).mean(axis=0) / noise, np.nan),
            "Classic minus measured",
            side,
            corner=(left, top),
            cmap="RdBu_r",
            vmin=-DIFFERENCE_NOISE,
            vmax=DIFFERENCE_NOISE,
        )
        colour_bar(figure, drawn, "in units of the\nnoise of measured", axes[2], extend="both")
        write_title(figure, "The same frames with the presets classic and measured, with the same stretch")
        return figure


def _with_holes(result: Integration, channel: int) -> np.ndarray:
    """Return a channel in the units of the frames, NaN for no data."""
    there = result.coverage[channel] > 0
    return np.where(there, result.original[channel], np.nan).astype(np.float32)


def _mean(values: np.ndarray) -> float:
    """Return the mean of the channels that are known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmean(values))
