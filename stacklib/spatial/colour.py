"""Joint rejection of channels: a hit of a color sensor spreads over its neighbors when it is debayered."""

from __future__ import annotations

import numpy as np

from stacklib.kernel.verdicts import HIGH, LOW
from stacklib.spatial.means import ABOVE, COLOUR
from stacklib.utils.compiled import compiled
from stacklib.utils.filters.discs import grow

__all__ = ["HIT", "KEPT_HIT", "around_hits", "mark_hits"]

#: A sample is a hit if it lies this many sigma from the others: one that the rule rejected, and one it kept.
HIT, KEPT_HIT = 5.0, 7.0


@compiled
def _mark(z, verdict, flags):
    for r in range(z.shape[0]):
        for q in range(z.shape[1]):
            value, rejected = z[r, q], verdict[r, q] == LOW or verdict[r, q] == HIGH
            # NaN is no hit.
            if value > KEPT_HIT or (rejected and value > HIT):
                flags[r, q] |= np.uint8(COLOUR | ABOVE)
            elif rejected and value < -HIT:
                flags[r, q] |= np.uint8(COLOUR)


def mark_hits(z: np.ndarray, verdict: np.ndarray, flags: np.ndarray) -> None:
    """Mark the hits in one channel of a color frame.

    A sample is a hit if the rule rejected it and it lies more than `HIT` sigma from the others, or if it lies
    more than `KEPT_HIT` sigma above them: with ten frames, sigma clipping keeps some hits of 8 or 13 sigma.
    Below the others is where a hit in another frame leaves good samples, too.

    Parameters
    ----------
    z : ndarray of float32, shape (height, width)
        Difference of each sample from the mean of the others, in units of its standard error. NaN is no data.
    verdict : ndarray of uint8, same shape
        Verdicts of the rule, see `stacklib.kernel.verdicts`.
    flags : ndarray of uint8, same shape
        Hits are marked here in place with `COLOUR`, and `ABOVE` if they lie above the others; see
        `stacklib.spatial.means`.
    """
    _mark(z, verdict, flags)


def around_hits(hits: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Find what the hits of a frame take with them: 3 x 3 pixels, in all channels.

    Debayering gives the neighbors of a hit half or a quarter of its light, in its own and the other channels.
    That is often too little to be rejected there, and a colored dot remains.

    Parameters
    ----------
    hits : ndarray of bool, shape (height, width)
        Pixels with a hit in any channel, see `mark_hits`.
    common : ndarray of bool, same shape
        Pixels with a hit in too many frames, such as cores of stars whose seeing changes. They are spared.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    # A disc of diameter 3 is the square.
    return grow(hits & ~common, 1)
