"""A drizzled image with all that is known of it: table of the frames, report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table

from stacklib.drizzle.coverage import Forecast, noise_correlation
from stacklib.drizzle.deposit import Grid
from stacklib.drizzle.geometry import Geometry
from stacklib.formats.xdrz import DrizzleData
from stacklib.frames.frame_set import FrameSet
from stacklib.frames.mosaic import Sites
from stacklib.normalization.preparation import Preparation
from stacklib.output.world_coordinates import WorldCoordinates
from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Recipe
from stacklib.spatial.masks import FrameMasks

__all__ = ["DrizzledImage"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DrizzledImage:
    """A drizzled image. See `stacklib.Drizzled` for the attributes."""

    image: np.ndarray
    weights: np.ndarray
    frames: FrameSet
    used: np.ndarray
    left_out: dict[int, str]
    geometries: dict[int, Geometry]
    numbers: dict[int, np.ndarray]
    recipe: DrizzleRecipe
    grid: Grid
    sites: Sites
    forecast: Forecast
    rule: str
    integration_recipe: Recipe | None
    notes: tuple[str, ...] = field(default=())
    range_factor: float = 1.0
    range_offset: float = 0.0
    truncated: int = 0
    twins: dict[int, str] = field(default_factory=dict, repr=False)
    preparation: Preparation | None = field(default=None, repr=False)
    masks: FrameMasks | None = field(default=None, repr=False)
    data: dict[int, DrizzleData] = field(default_factory=dict, repr=False)
    world: WorldCoordinates = field(default_factory=WorldCoordinates, repr=False)

    def __repr__(self) -> str:
        channels, height, width = self.image.shape
        return (
            f"<Drizzled of {self.used.size} frames, {width} x {height}, {channels} "
            f"channel{'s' * (channels > 1)}, scale {self.recipe.scale:g}, drop {self.recipe.drop:g}: "
            f"{100 * float(self.holes.max()):.2g} % holes>"
        )

    @property
    def holes(self) -> np.ndarray:
        """Fraction of the pixels on which no sample falls, border included, float64 (channels,)."""
        return np.mean(self.weights == 0, axis=(1, 2))

    @property
    def table(self) -> Table:
        """Table of all frames, one row a frame.

        Columns: file, used, reason (if not used), geometry, stars, rms, shift_x, shift_y (pix), rotation
        (deg); factor, offset and weight, with one value per channel.
        """
        table = Table()
        table["file"] = self.frames.names
        table["used"] = np.isin(np.arange(len(self.frames)), self.used)
        table["reason"] = [self.left_out.get(i, "") for i in range(len(self.frames))]
        known = [self.geometries.get(i) for i in range(len(self.frames))]
        table["geometry"] = ["" if g is None else g.origin for g in known]
        table["stars"] = [0 if g is None or g.stars is None else g.stars for g in known]
        columns = {
            "rms": [np.nan if g is None or g.rms is None else g.rms for g in known],
            "shift_x": [np.nan if g is None else g.shift[0] for g in known],
            "shift_y": [np.nan if g is None else g.shift[1] for g in known],
            "rotation": [np.nan if g is None else g.rotation for g in known],
        }
        for name, values in columns.items():
            table[name] = np.array(values, float)
            table[name].unit = "deg" if name == "rotation" else "pix"
        nothing = np.full((3, self.sites.channels), np.nan)
        numbers = np.stack([self.numbers.get(i, nothing) for i in range(len(self.frames))])
        for place, name in enumerate(("factor", "offset", "weight")):
            column = numbers[:, place]
            table[name] = column[:, 0] if self.sites.channels == 1 else column
        return table

    @property
    def summary(self) -> str:
        """Frames, grid and holes in a line, and the verdict of the forecast."""
        return f"{repr(self)[1:-1]}\n{self.forecast.verdict}"

    def report(self) -> str:
        """Return the report as text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        channels, height, width = self.image.shape
        yield f"Drizzled image: {width} x {height} pixels, {channels} channel{'s' * (channels > 1)}"
        yield f"  {self.used.size} of {len(self.frames)} frames from {self.frames.folder}"
        yield f"  scale {self.recipe.scale:g}, drop {self.recipe.drop:g}, kernel {self.recipe.kernel}"
        if self.sites.pattern:
            yield f"  color mosaics, pattern {self.sites.pattern}: each color from its own pixels"
        yield f"  rejection: {self.rule}"
        yield f"  {self.forecast.verdict}"
        shown = ", ".join(
            f"{name} {100 * share:.2g} %"
            for name, share in zip(self.forecast.colors, self.forecast.holes, strict=True)
        )
        yield f"  predicted holes: {shown}; pixels without samples, border included: " + ", ".join(
            f"{100 * share:.2g} %" for share in self.holes
        )
        yield f"  dither: {self.forecast.dither:.2f} of that of random shifts"
        factor = noise_correlation(self.recipe.scale, self.recipe.drop)
        yield (
            f"  The noise of neighboring pixels is correlated: that of large areas is {factor:.2f} times "
            "what single pixels suggest."
        )
        for note in [*self.notes, *self.world.notes]:
            yield f"  note: {note}"
        yield ""
        table = self.table["file", "used", "reason", "geometry", "rms", "shift_x", "shift_y", "rotation"]
        for name in ("rms", "shift_x", "shift_y", "rotation"):
            table[name].format = ".3f"
        yield from table.pformat(max_lines=-1, max_width=-1)
