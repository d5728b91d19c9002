"""Small experiments on simulated frames with known truth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.errors import StacklibWarning
from stacklib.explore.explain import PixelStory, tell
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.normalization.settings import Settings
from stacklib.notebook.parameters import HowIntegrationWorks
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.rules import RULES
from stacklib.simulate import Simulation, Trail, simulate_frames
from stacklib.utils.file_sets import temporary_folder

if TYPE_CHECKING:
    from IPython.display import Markdown

__all__ = ["LEFT_OUT", "Lesson", "rules", "start"]

#: Recipe changes for runs that leave out one step each.
LEFT_OUT = {
    "nothing left out": {},
    "no rejection": {"rejection": "none"},
    "no normalization": {"normalization": "none", "rejection_normalization": "none"},
    "equal weights": {"weights": "none"},
}
#: Outliers of the example pixel: height in sigma of one frame, by frame.
HITS = {3: 25.0, 6: 7.0}


@dataclass(frozen=True)
class Lesson:
    """Simulated frames and their integrations.

    The frames of `clean` differ only by noise; those of `night` have clouds, trails and cosmic rays.
    `results` are the integrations of the night by the name of the step left out, see `LEFT_OUT`.
    """

    clean: Simulation
    night: Simulation
    results: dict[str, Integration] = field(repr=False)

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.clean.frames)

    def deviations(self) -> np.ndarray:
        """Return clean frames minus truth in sigma of one frame, float64 (frames, pixels)."""
        flat = (self.clean.frames - self.clean.truth).reshape(self.count, -1).astype(float)
        return flat / self.clean.sigma(0).ravel()

    def pixel(self) -> np.ndarray:
        """Return the raw samples of a sky pixel with two outliers, float32 (frames,)."""
        sky = float(self.clean.sky[0, 0])
        sigma = float(np.median(self.clean.sigma(0)))
        samples = sky + sigma * np.random.default_rng(4).standard_normal(self.count)
        for frame, height in HITS.items():
            samples[frame] += height * sigma
        return samples.astype(np.float32)

    def story(self, rule: str = "sigma", **changes: Any) -> PixelStory:
        """Explain how a rule decides about `pixel`; `changes` are parameters of the recipe."""
        camera = {"ccd_gain": self.clean.gain, "ccd_read_noise": self.clean.read_noise}
        recipe = Recipe(rejection=rule).replace(**(camera | changes))
        names = tuple(f"frame {number:02d}" for number in range(1, self.count + 1))
        return tell(self.pixel(), Settings.plain(recipe, self.count), names)

    def error(self, name: str) -> np.ndarray:
        """Return master minus truth minus its median, in sigma of one frame; NaN at the border."""
        result, night = self.results[name], self.night
        error = (result.original[0].astype(float) - night.truth[0]) / np.median(night.sigma(night.reference))
        error[result.coverage[0] < 1] = np.nan
        return error - np.nanmedian(error)

    def sky_noise(self, name: str) -> float:
        """Return the root mean square of `error` where the truth is close to the sky."""
        truth = self.night.truth[0]
        faint = truth < np.median(truth) + 2 * np.median(self.night.sigma(self.night.reference))
        return float(np.sqrt(np.nanmean(self.error(name)[faint] ** 2)))

    def planted(self, least: float = 0.5) -> np.ndarray:
        """Count the frames with an outlier of more than `least` sigma at each pixel, int (height, width)."""
        night = self.night
        sigma = np.stack([night.sigma(i)[0] for i in range(self.count)])
        return (night.defects[:, 0] > least * sigma).sum(axis=0)

    def found(self) -> str:
        """Describe how many of the planted outliers were rejected."""
        result = self.results["nothing left out"]
        inside = result.coverage[0] == 1
        rejected = np.rint(self.count * result.rejection_high[0])
        lines = []
        for least, word in ((10, "strong ones"), (5, "clear ones"), (2, "with the weak ones")):
            planted = self.planted(least) * inside
            got = np.minimum(planted, rejected).sum()
            share = 100 * got / max(planted.sum(), 1)
            lines.append(f"planted above {least:2d} sigma ({word}): {planted.sum():5d}, found {share:5.1f} %")
        clean = inside & (self.planted(0) == 0)
        lost = 100 * result.rejection_high[0][clean].mean()
        return "\n".join([*lines, f"rejected high where nothing was planted: {lost:.2f} % of the samples"])


def start(count: int = 20, seed: int = 8) -> Lesson:
    """Simulate 8 to 100 frames, and integrate them completely and with one step left out at a time.

    The same seed gives the same frames. Raise `RecipeError` for a parameter of the wrong type or out of
    range.
    """
    given = HowIntegrationWorks(count=count, seed=seed)
    count, seed = given.count, given.seed
    size = {"count": count, "height": 200, "width": 260, "channels": 1, "seed": seed}
    trails = (
        Trail(1, (-20.0, 40.0), (280.0, 120.0), peak=40.0, fwhm=3.0),
        Trail(4, (60.0, 220.0), (200.0, -20.0), peak=4.0, fwhm=3.0),
    )
    night = simulate_frames(**size, gradient=0.0, trails=trails, cloudy=(0, count // 2, count - 2))
    with temporary_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        files = night.save(folder)
        recipe = Recipe.suggest(count).replace(reference=files[night.reference].name)
        results = {
            name: integrate([str(file) for file in files], recipe.replace(**changes), progress=False)
            for name, changes in LEFT_OUT.items()
        }
    return Lesson(simulate_frames(**size, clean=True), night, results)


def rules() -> Markdown:
    """Return a table of the rejection rules: what each one does and what it is good for."""
    from IPython.display import Markdown

    lines = ["| rule | what it does | good for |", "|---|---|---|"]
    lines += [f"| {spec.label} | {spec.summary} | {spec.use} |" for spec in RULES.values()]
    return Markdown("\n".join(lines))
