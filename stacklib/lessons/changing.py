"""An experiment on a night that changes: classic and measured integration against the truth."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from stacklib.errors import StacklibWarning
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.notebook.parameters import HowIntegrationWorks
from stacklib.recipe.presets import PRESETS
from stacklib.recipe.recipe import Recipe
from stacklib.simulate import ChangingNight, simulate_night

__all__ = ["WAYS", "Clouds", "changing_night"]

#: What each way changes in the suggested recipe.
WAYS: dict[str, dict[str, Any]] = {"classic": {}, "measured": PRESETS["measured"]}
#: Radius of the apertures of stars, and the inner and outer radius of the ring around them, in pixels.
APERTURE, RING = 8.0, (10.0, 14.0)
#: Number of stars.
BRIGHTEST = 15


@dataclass(frozen=True)
class Clouds:
    """A simulated night with clouds and a moving gradient, and its integrations by the names of `WAYS`."""

    night: ChangingNight
    results: dict[str, Integration] = field(repr=False)

    def spread(self, index: int) -> float:
        """Return the spread of a frame as a robust standard deviation, 1.4826 x MAD."""
        frame = self.night.frames[index, 0]
        known = frame[frame > 0]
        return 1.4826 * float(np.median(np.abs(known - np.median(known))))

    def star_flux(self, image: np.ndarray) -> np.ndarray:
        """Return the flux of isolated stars in an image (height, width), above the sky around them."""
        scene = self.night.scene
        yy, xx = np.indices(image.shape)
        flux = []
        for star in self.stars:
            distance = np.hypot(xx - scene.x[star], yy - scene.y[star])
            ring = (distance > RING[0]) & (distance < RING[1])
            inside = distance < APERTURE
            # The mean of the ring, as a median would depend on the noise where other stars are.
            flux.append((image[inside] - image[ring].mean()).sum())
        return np.array(flux)

    @cached_property
    def stars(self) -> np.ndarray:
        """The brightest isolated stars that all frames have, as indices into the scene."""
        border = RING[1] + np.abs(self.night.shifts).max()
        x, y = self.night.scene.x, self.night.scene.y
        _, height, width = self.night.shape
        stars = self.night.isolated_stars(60, radius=6.0, peak=0.75)
        inside = (np.minimum(x, width - 1 - x) > border) & (np.minimum(y, height - 1 - y) > border)
        return stars[inside[stars]][:BRIGHTEST]

    def matching(self) -> dict[str, np.ndarray]:
        """Return how much light each frame holds, relative to the reference, by spread and by starlight.

        Bright stars count for more, as their light is better known: ``sum(f r) / sum(r^2)`` for the flux f
        of the stars in the frame and r in the reference.
        """
        night = self.night
        spread = np.array([self.spread(index) for index in range(night.count)])
        flux = np.array([self.star_flux(frame[0]) for frame in night.frames])
        return {
            "its spread": spread / spread[night.reference],
            "its stars": flux @ flux[night.reference] / np.sum(flux[night.reference] ** 2),
        }

    def error(self, way: str) -> np.ndarray:
        """Return master minus truth without its median, in sigma of one frame; NaN at the border.

        The truth has the weights of the frames, and the background of those that the way goes by.
        """
        result, night = self.results[way], self.night
        error = (result.original[0] - self._truth(way)) / night.sky_sigma[night.reference, 0]
        error[result.coverage[0] < 1] = np.nan
        return error - np.nanmedian(error)

    def star_bias(self, way: str) -> float:
        """Return how much too bright the isolated stars of a master are, as a fraction."""
        true = self.star_flux(self._truth(way)).sum()
        return float(self.star_flux(self.results[way].original[0]).sum() / true) - 1

    def gradient(self, way: str) -> float:
        """Return what is left of moving gradients: the range of medians of the error, in sigma."""
        side, error = 40, self.error(way)
        height, width = (size // side for size in error.shape)
        tiles = error[: height * side, : width * side].reshape(height, side, width, side)
        return float(np.ptp(np.nanmedian(tiles, axis=(1, 3))))

    def _truth(self, way: str) -> np.ndarray:
        preparation = self.results[way].preparation
        photometry = preparation.photometry
        background = np.arange(self.night.count) == self.night.reference
        if photometry is not None:
            background = photometry.anchor[:, 0]
        weights = np.nan_to_num(preparation.weights[:, 0])
        return (self.night.ideal(weights) + self.night.common_background(background))[0]


def changing_night(count: int = 20, seed: int = 8) -> Clouds:
    """Simulate 8 to 100 frames of a changing night, and integrate them by each of the `WAYS`.

    The same seed gives the same frames. Raise `RecipeError` for a parameter of the wrong type or out of
    range.
    """
    given = HowIntegrationWorks(count=count, seed=seed)
    night = simulate_night(given.count, 300, 400, 1, "spiral", given.seed, cosmic_rays=5.0, dither=4.0)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        files = night.save(folder)
        recipe = Recipe.suggest(given.count).replace(reference=files[night.reference].name)
        results = {
            way: integrate([str(file) for file in files], recipe.replace(**changes), progress=False)
            for way, changes in WAYS.items()
        }
    return Clouds(night, results)
