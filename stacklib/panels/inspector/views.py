"""What map and close-up of the inspector show: arrays, and how a viewer shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stacklib.explore.masks import frame_verdicts
from stacklib.explore.story_plots import MASK_CLASSES
from stacklib.figures.look import map_top
from stacklib.panels.inspector.inspection import MASK, PixelInspection
from stacklib.panels.viewer import Viewer
from stacklib.panels.viewer.viewer import plain_levels
from stacklib.utils.labels import channel_names

__all__ = ["close_up", "whole_view"]

#: Side of the close-up in pixels.
CLOSE = 41
#: Attributes of the result that are maps, with their color map.
MAPS = {
    "rejected high": ("rejection_high", "inferno"),
    "rejected low": ("rejection_low", "inferno"),
    "coverage": ("coverage", "viridis"),
}


def whole_view(inspection: PixelInspection) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what the map shows, (channels, height, width), and the options of its viewer."""
    result, channel, view = inspection.result, inspection.selected[2], inspection.view
    name = channel_names(len(result.image))[channel]
    of = f", {name}" * bool(name)
    look: dict[str, Any] = {
        "title": view.capitalize() + of,
        "origin": result.region[:2],
        "colours": "",
        "classes": (),
        "unit": None,
        "top": 0.0,
        "levels": None,
    }
    if view == "image":
        known = Viewer(result)
        return result.image, look | {"title": "Image", "unit": known.unit, "levels": known.levels}
    if view == MASK:
        title = f"Where frame {inspection.frame} was rejected{of}"
        options = {"title": title, "classes": MASK_CLASSES, "levels": plain_levels(3.0)}
        return _whole_mask(inspection), look | options
    attribute, colours = MAPS[view]
    end = 1.0 if view == "coverage" else map_top(result) / 100
    shown = getattr(result, attribute)[channel : channel + 1]
    return shown, look | {"colours": colours, "top": end, "unit": ("%", 100.0), "levels": plain_levels(1.0)}


def _whole_mask(inspection: PixelInspection) -> np.ndarray:
    """Return the mask of the frame; where it has every step-th pixel, each stands for those around it."""
    _, _, width, height = inspection.result.region
    mask, step = inspection.mask()
    mask = mask.repeat(step, axis=0)[:height].repeat(step, axis=1)[:, :width]
    edges = ((0, height - mask.shape[0]), (0, width - mask.shape[1]))
    return np.pad(mask, edges, mode="edge")[np.newaxis]


def close_up(inspection: PixelInspection, whole: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut the surroundings of the pixel out of the map; also return their corner in the whole frames."""
    x, y, channel = inspection.selected
    left, top, width, height = inspection.result.region
    column, row = (
        int(np.clip(at - first - CLOSE // 2, 0, max(0, size - CLOSE)))
        for at, first, size in ((x, left, width), (y, top, height))
    )
    across, down = min(CLOSE, width), min(CLOSE, height)
    corner = left + column, top + row
    if inspection.view == MASK and inspection.mask()[1] > 1:
        # The whole picture has left most pixels out; those few are judged now.
        part = *corner, across, down
        verdict, _ = frame_verdicts(inspection.result, channel, step=1, part=part)
        return inspection.mask_of(verdict)[np.newaxis], corner
    return whole[:, row : row + down, column : column + across], corner
