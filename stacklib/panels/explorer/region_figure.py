"""Colors of the pictures of a region, and the static figure that replaces the rejection explorer."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure

from stacklib.explore.region_trials import SIDE, RegionTrials
from stacklib.figures.look import GROUND, INK, colour_bar, show_picture
from stacklib.integration.result import Integration
from stacklib.recipe.rules import RULES

__all__ = ["DIFFERENCE_COLOURS", "MAP_COLOURS", "figure_region"]

#: Color of each level of the maps and of the difference, uint8 (256, 3).
MAP_COLOURS = np.rint(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)
DIFFERENCE_COLOURS = np.rint(255 * colormaps["RdBu_r"](np.arange(256))[:, :3]).astype(np.uint8)


def figure_region(model: RegionTrials, other: Integration | None = None) -> Figure:
    """Draw the four pictures of a region with color bars, and its numbers."""
    result, (left, top, width, height) = model.shown, model.region
    figure = Figure(
        figsize=(9.6, 7.9 * height / width + 1.9), dpi=100, facecolor=GROUND, layout="constrained"
    )
    axes = figure.subplots(2, 2)
    side = -(-width // SIDE)
    name = "setting A" if other is not None else "no rejection"
    shown = {
        "Result, stretched for the screen": (model.picture(), None),
        "Rejected low (too dark)": (MAP_COLOURS[model.map_picture("low")], "map"),
        "Rejected high (too bright)": (MAP_COLOURS[model.map_picture("high")], "map"),
        f"Difference from {name}": (DIFFERENCE_COLOURS[model.difference_picture(other)], "difference"),
    }
    for place, (title, (picture, scale)) in zip(axes.flat, shown.items(), strict=True):
        drawn = show_picture(place, picture / 255, title, side, corner=(left, top))
        if scale:
            _colour_bar(figure, place, model, scale)
        else:
            drawn.set_clim(0, 1)
    label, count = RULES[result.rule].label, result.preparation.count
    title = f"{count} frames, {label}, {width} x {height} pixels at ({left}, {top})\n{model.words()}"
    figure.suptitle(title, color=INK, fontsize=10.5, x=0.01, ha="left")
    return figure


def _colour_bar(figure: Figure, axes: Axes, model: RegionTrials, scale: str) -> None:
    if scale == "map":
        colours, label = ScalarMappable(PowerNorm(0.5, 0, 100 * model.map_top), "inferno"), "% of the frames"
    else:
        top, label = model.difference_scale()
        colours = ScalarMappable(Normalize(-top, top), "RdBu_r")
    colour_bar(figure, colours, label, axes, aspect=24, extend="max" if scale == "map" else "both")
