"""The stretch of a viewer: which value is black, and the curve above it.

``viewer.js`` has the same formulas, as it stretches what is seen in the browser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stacklib.figures.screen import BACKGROUND, BLACK_SIGMAS, Levels, midtones

__all__ = ["BALANCES", "CURVES", "Placement", "Stretch", "curve"]

#: Curves: PixInsight's midtones transfer function, asinh, or a straight line.
CURVES = ("midtones", "asinh", "linear")
#: Channels: one black point each and a common curve, so that the sky is gray and stars keep their colors; one
#: black point and curve for all; or each channel by itself. The last two are PixInsight's STF.
BALANCES = ("neutral", "linked", "separate")


class Placement(NamedTuple):
    """Black point and span of a channel, and the position of its sky, ``(sky - black) / span``."""

    black: float
    span: float
    sky: float


@dataclass(frozen=True)
class Stretch:
    """A stretch for the screen that follows from the levels of an image.

    Attributes
    ----------
    curve : str
        One of `CURVES`.
    balance : str
        One of `BALANCES`.
    target : float
        Brightness at which the sky is shown, 0 to 1. PixInsight's is 0.25.
    clip : float
        Black is this many sigmas below the sky.
    """

    curve: str = "midtones"
    balance: str = "neutral"
    target: float = BACKGROUND
    clip: float = BLACK_SIGMAS

    def placements(self, levels: Levels) -> list[Placement]:
        """Return black point, span and sky of each channel. White is 1, or the maximum beyond it."""
        white, floor = max(1.0, *levels.top), min(0.0, *levels.low)

        def place(black: float, centre: float, lowest: float) -> Placement:
            span = white - lowest or 1.0
            return Placement(black, span, (centre - black) / span)

        def alone(centre: float, sigma: float) -> Placement:
            # As in PixInsight, black is not below all values. A constant plane has no spread.
            black = max(centre - self.clip * sigma, floor) if sigma > 0 else floor
            return place(black, centre, black)

        centre, sigma = float(np.mean(levels.centre)), float(np.mean(levels.spread))
        if self.balance == "separate":
            return [alone(*both) for both in zip(levels.centre, levels.spread, strict=True)]
        if self.balance == "linked" or not sigma > 0:
            return [alone(centre, sigma)] * len(levels.centre)
        blacks = [each - self.clip * sigma for each in levels.centre]
        return [place(black, each, min(blacks)) for black, each in zip(blacks, levels.centre, strict=True)]

    def apply(self, image: np.ndarray, levels: Levels) -> np.ndarray:
        """Stretch an image (channels, height, width). Return float32 from 0 to 1; NaN becomes 0."""
        shown = np.empty(image.shape, np.float32)
        for plane, out, place in zip(image, shown, self.placements(levels), strict=True):
            x = np.clip((plane.astype(np.float64) - place.black) / place.span, 0, 1)
            out[...] = np.clip(curve(self.curve, place.sky, self.target)(x), 0, 1)
        return np.nan_to_num(shown, copy=False)


def curve(kind: str, sky: float, target: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the curve from positions, 0 to 1, to brightness. It shows the position `sky` at `target`.

    ``midtones``: ``(m - 1) x / ((2 m - 1) x - m)`` with m so that this holds. ``asinh``:
    ``asinh(b x) / asinh(b)`` with such a b; a straight line if the sky is brighter than `target` already.
    ``linear``: ``x target / sky``.
    """
    if not 0 < sky < 1:
        return lambda x: x
    if kind == "linear":
        return lambda x: x * target / sky
    if kind == "midtones":
        balance = midtones(target, sky)
        return lambda x: midtones(balance, x)
    if sky >= target:
        return lambda x: x
    low, high = -20.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        if math.asinh(math.exp(middle) * sky) / math.asinh(math.exp(middle)) < target:
            low = middle
        else:
            high = middle
    softening = math.exp(low)
    return lambda x: np.arcsinh(softening * x) / np.arcsinh(softening)
