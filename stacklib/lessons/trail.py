"""An experiment on a trail far below the noise of a pixel: a rule alone, and with a search for trails."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stacklib.errors import StacklibWarning
from stacklib.frames.frame_set import open_frames
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate, integrate_samples
from stacklib.integration.samples import Samples
from stacklib.notebook.parameters import HowIntegrationWorks
from stacklib.recipe.recipe import Recipe
from stacklib.simulate import Simulation, Trail, simulate_frames
from stacklib.utils.file_sets import temporary_folder

__all__ = ["TRIED", "FaintTrail", "faint_trail"]

#: What is tried, as changes of the suggested recipe.
TRIED = {
    "no rejection": {"rejection": "none"},
    "the rule alone": {},
    "footprints: trails": {"footprints": "trails"},
}
#: Number of the frame with the trail, from 0, and ends of the trail.
FRAME, START, END = 5, (-20.0, 170.0), (280.0, 60.0)
#: Light counts within this many pixels of the trail.
NEAR = 15.0


@dataclass(frozen=True)
class FaintTrail:
    """A clear night with a trail in one frame, and the same night without it.

    `results` are the integrations by the names of `TRIED`. `without` are those of the night without the
    trail, matched alike, from the same samples: one that was rejected for its neighbors is left out in both.
    """

    night: Simulation
    trail: Trail
    results: dict[str, Integration] = field(repr=False)
    without: dict[str, Integration] = field(repr=False)

    @property
    def sigma(self) -> float:
        """Noise of the sky in the frame with the trail."""
        return float(np.median(self.night.sigma(self.trail.frame)))

    def residual(self) -> np.ndarray:
        """Return the frame with the trail minus the average of the others, in sigma, (height, width)."""
        frames = self.night.frames[:, 0].astype(float)
        others = np.delete(frames, self.trail.frame, axis=0)
        apart = frames[self.trail.frame] - np.median(others, axis=0)
        return (apart - np.median(apart)) / self.sigma

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column of the pixels along the trail, far enough from the border of the frames."""
        (x0, y0), (x1, y1) = self.trail.start, self.trail.end
        columns = np.arange(20, self.night.frames.shape[-1] - 20)
        return np.rint(y0 + (columns - x0) * (y1 - y0) / (x1 - x0)).astype(int), columns

    def added(self, name: str) -> np.ndarray:
        """Return what the trail adds to a master, in sigma of one frame, (height, width)."""
        apart = self.results[name].original[0].astype(float) - self.without[name].original[0]
        return apart / self.sigma

    def left(self, name: str) -> float:
        """Return the light of the trail left in a master, in percent of that without rejection.

        It is what the master has more than that of the same frames without the trail, near the trail.
        """
        more = {key: self._more(key) for key in (name, "no rejection")}
        return 100 * (more[name] / more["no rejection"])

    def _more(self, name: str) -> float:
        (x0, y0), (x1, y1) = self.trail.start, self.trail.end
        added = self.added(name)
        yy, xx = np.indices(added.shape)
        apart = np.abs((xx - x0) * (y1 - y0) - (yy - y0) * (x1 - x0)) / np.hypot(x1 - x0, y1 - y0)
        near = (apart < NEAR) & (self.results[name].coverage[0] == 1)
        return float(added[near].sum())


def faint_trail(count: int = 20, seed: int = 8, peak: float = 2.0) -> FaintTrail:
    """Simulate 8 to 100 frames, one of them with a faint trail, and integrate them as `TRIED` says.

    `peak` is the brightness of the trail in sigma of its frame. The same seed gives the same frames. Raise
    `RecipeError` for a count or a seed of the wrong type or out of range.
    """
    given = HowIntegrationWorks(count=count, seed=seed)
    trail = Trail(FRAME, START, END, peak=peak, fwhm=3.0)
    size = {"count": given.count, "height": 200, "width": 260, "channels": 1, "seed": given.seed}
    nights = [simulate_frames(**size, gradient=0.0, cloudy=0, trails=trails) for trails in ((trail,), ())]
    recipe = Recipe.suggest(given.count)
    with temporary_folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        files, other = (night.save(Path(folder) / str(k)) for k, night in enumerate(nights))
        recipe = recipe.replace(reference=files[nights[0].reference].name)
        frames = open_frames([str(file) for file in files])
        results = {
            name: integrate(frames, recipe.replace(**changes), progress=False)
            for name, changes in TRIED.items()
        }
        clean = open_frames([str(file) for file in other])
        without = {
            name: integrate_samples(
                Samples(clean).masked(result.masks),
                replace(result.preparation, frames=clean),
                true_claims=False,
            )
            for name, result in results.items()
        }
        clean.close()
    return FaintTrail(nights[0], trail, results, without)
