"""Large-scale rejection: clusters of rejected samples grow, single ones do not."""

from __future__ import annotations

import numpy as np

from stacklib.utils.filters.discs import grow, reached

__all__ = ["large_structures"]


def large_structures(rejected: np.ndarray, layers: int = 2, growth: int = 2) -> np.ndarray:
    """Find clusters of rejected samples in a frame, such as a trail or a plane, and grow them.

    Medians over windows of 3, 5, 9, ... pixels follow one another, each on the result of the one before. What
    is left is grown by a disc. A median of a mask is a majority: a pixel is left if more than half of a disc
    about it is, for the disc that just fits into the window or that of half a pixel more.

    Two layers keep lines two or three pixels wide and squares of 3 x 3; each further layer doubles the size.
    Structures of which the rule has rejected only scattered pixels do not survive.

    Parameters
    ----------
    rejected : ndarray of bool, shape (height, width)
        Samples of one frame and channel that the rule rejected, on one side.
    layers : int
        Number of medians, 1 to 6.
    growth : int
        Radius of the disc, 0 to 20 pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)
        The grown clusters. Rejected samples elsewhere are not among them.

    Notes
    -----
    After the large-scale pixel rejection of PixInsight's ImageIntegration.

    Examples
    --------
    >>> rejected = np.zeros((9, 9), bool)
    >>> rejected[4, 4] = True
    >>> int(large_structures(rejected).sum())
    0
    >>> rejected[3:6, 3:6] = True
    >>> int(large_structures(rejected, growth=0).sum())
    5
    """
    left = rejected
    for layer in range(layers):
        radius = 2**layer
        left = reached(left, [radius, radius + 0.5], 0.5)
        if not left.any():
            return left
    return grow(left, growth)
