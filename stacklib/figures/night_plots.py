"""Figures of a night: transparency, sky and background surfaces of the frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stacklib.errors import IntegrationError
from stacklib.figures.look import (
    FAINT,
    HIGH,
    INK,
    LOW,
    colour_bar,
    dress,
    new_figure,
    show_picture,
    write_title,
)
from stacklib.integration.result import Integration
from stacklib.normalization.light.photometric import Photometry
from stacklib.normalization.surfaces import Surfaces

__all__ = ["figure_night"]

#: Most surfaces that are shown, and columns of them.
SURFACES, COLUMNS = 24, 8
#: Rows and columns of the picture of a surface.
CELLS = 32


def figure_night(result: Integration, channel: int = 0) -> Figure:
    """Plot what matching by starlight found: transparency and sky of every frame, and the surfaces.

    A surface is the background of a frame minus that of the image, in the units of the frame. With more than
    24 frames, evenly spaced ones are shown.

    Parameters
    ----------
    result : Integration
        A result with `normalization` photometric or local, or with weights that go by the light of stars.
    channel : int
        The channel, counted from 0.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    IntegrationError
        If the frames were not compared by their light.
    """
    p, night = result.preparation, result.preparation.photometry
    if night is None:
        raise IntegrationError(
            "the frames of this result were not compared by their light; integrate them with "
            "normalization: photometric"
        )
    used = [int(i) for i in p.used]
    shown = used[:: -(-len(used) // SURFACES)]
    rows = -(-len(shown) // COLUMNS)
    figure = new_figure(11.0, 4.6 + 1.25 * rows)
    parts: Any = figure.subfigures(2, 1, height_ratios=(4.0, 1.25 * rows + 0.3))
    for part in parts:
        part.set_facecolor("none")
    top, bottom = parts
    upper, lower = top.subplots(2, 1, sharex=True)
    numbers = np.arange(len(p.frames)) + 1
    _transparency(upper, night, numbers, channel, p.reference)
    _sky(lower, night, numbers, channel)
    pictures = _surfaces(night.surfaces, shown, channel)
    most = max(float(np.abs(pictures).max()), 1e-12)
    every = bottom.subplots(rows, min(COLUMNS, len(shown)), squeeze=False)
    for axes in every.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, i, picture in zip(every.flat, shown, pictures, strict=False):
        image = show_picture(axes, picture, f"{i + 1}", vmin=-most, vmax=most, cmap="RdBu_r")
        axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
    colour_bar(bottom, image, "sky above that\nof the image", list(every.flat))
    light = night.transparency[used, channel]
    level = float(np.nanmedian(np.abs(night.sky[used, channel])))
    differ = 100 * np.ptp(pictures, axis=(1, 2)).max() / max(level, 1e-12)
    write_title(
        figure,
        f"Transparency from {np.nanmin(light):.2f} to {np.nanmax(light):.2f} of the reference; gradients of "
        f"up to {differ:.2g} % of the sky are removed",
    )
    return figure


def _transparency(axes: Axes, night: Photometry, numbers: np.ndarray, channel: int, reference: int) -> None:
    light, error = night.transparency[:, channel], np.nan_to_num(night.transparency_error[:, channel])
    axes.errorbar(numbers, light, error, fmt="o", color=LOW, ecolor=FAINT, ms=5, label="light of the stars")
    axes.plot(numbers[reference], light[reference], "*", color=INK, ms=11, label="reference frame")
    axes.set_ylim(0, 1.12 * np.nanmax(light))
    dress(axes, "transparency")


def _sky(axes: Axes, night: Photometry, numbers: np.ndarray, channel: int) -> None:
    sky, anchor = night.sky[:, channel], night.anchor[:, channel] > 0
    axes.plot(numbers, sky, "s", color=HIGH, ms=4, label="level of the sky")
    axes.plot(numbers[anchor], sky[anchor], "s", color=INK, ms=8, mfc="none", label="sets the background")
    axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    axes.set_xlabel("frame", color=INK)
    dress(axes, "sky")


def _surfaces(surfaces: Surfaces, shown: list[int], channel: int) -> np.ndarray:
    """Return the background of frames above that of the image, (frames, rows, columns)."""
    rows = max(2, round(CELLS * surfaces.height / surfaces.width))
    y, x = np.linspace(0, surfaces.height - 1, rows), np.linspace(0, surfaces.width - 1, CELLS)
    return np.array([-surfaces.at(i, channel, y, x) for i in shown])
