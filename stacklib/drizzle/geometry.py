"""Where the pixels of an unregistered frame lie in the reference.

All coordinates here have their origin at the corner of the first pixel, so that centers of pixels are at
whole numbers + 0.5, x to the right and y down the rows as they are stored. A homography maps a place in the
reference to one in the frame, as in ``.xdrz`` files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from stacklib.errors import FrameError
from stacklib.formats.xdrz import DrizzleData
from stacklib.simulate.registration import mapped

__all__ = ["Geometry", "check_direction", "from_xdrz"]

#: Stars meet if they are closer than this, in pixels; number of bright stars that are tried, and the
#: smallest fraction of them that must meet.
MEET, TRIED, MOST = 2.0, 60, 0.25
#: The smallest number of stars from which a wrong geometry is told.
ENOUGH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Geometry of one frame.

    Attributes
    ----------
    matrix : ndarray of float64, shape (3, 3)
        Homography from the reference to the frame.
    width, height : int
        Size of the reference in pixels.
    origin : str
        Where it comes from, in words.
    stars : int or None
        Number of matched stars; None if no stars were matched here.
    rms : float or None
        Root mean square of what is left between matched stars, in pixels of the frame.
    notes : tuple of str
        What is to be said about it.
    """

    matrix: np.ndarray
    width: int
    height: int
    origin: str = ""
    stars: int | None = None
    rms: float | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def inverse(self) -> np.ndarray:
        """Homography from the frame to the reference, float64 (3, 3)."""
        found = np.linalg.inv(self.matrix)
        # A sign has no meaning, but depths above 0 have.
        return found / found[2, 2] if found[2, 2] else found

    @property
    def shift(self) -> tuple[float, float]:
        """How far the middle of the reference lies from its place in the frame, x and y in pixels."""
        x, y = self.width / 2, self.height / 2
        u, v = mapped(self.matrix, np.array([x]), np.array([y]))
        return float(u[0] - x), float(v[0] - y)

    @property
    def rotation(self) -> float:
        """Rotation from the reference to the frame in the middle, in degrees."""
        x, y = self.width / 2, self.height / 2
        u, v = mapped(self.matrix, np.array([x, x + 1]), np.array([y, y]))
        return math.degrees(math.atan2(v[1] - v[0], u[1] - u[0]))

    @property
    def magnification(self) -> float:
        """Pixels of the frame for each pixel of the reference, in the middle."""
        x, y = self.width / 2, self.height / 2
        u, v = mapped(self.matrix, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
        area = (u[1] - u[0]) * (v[2] - v[0]) - (v[1] - v[0]) * (u[2] - u[0])
        return math.sqrt(abs(area))


def from_xdrz(data: DrizzleData, origin: str = "") -> Geometry:
    """Return the geometry in drizzle data of PixInsight.

    Parameters
    ----------
    data : DrizzleData
        The content of an ``.xdrz`` file.
    origin : str
        Name of the file, for words.

    Returns
    -------
    Geometry
    """
    return Geometry(
        matrix=data.corner_matrix, width=data.width, height=data.height, origin=origin, notes=data.notes
    )


def check_direction(
    geometry: Geometry,
    reference: np.ndarray,
    frame: np.ndarray,
    name: str,
) -> None:
    """Check that the stars of a frame lie where its geometry says.

    Parameters
    ----------
    geometry : Geometry
        Geometry of the frame.
    reference, frame : ndarray of float64, shape (stars, 2)
        x and y of the stars, brightest first.
    name : str
        Name of the frame, for the error.

    Raises
    ------
    FrameError
        If few stars meet. The error says so if they meet with the inverse: the matrix maps the wrong way.
    """
    if min(len(reference), len(frame)) < ENOUGH:
        return
    there = _meeting(geometry.matrix, reference, frame)
    if there >= MOST:
        return
    back = _meeting(geometry.inverse, reference, frame)
    if back >= MOST:
        raise FrameError(
            f"{name}: its matrix ({geometry.origin or 'given'}) maps the wrong way, from the frame to the "
            "reference: the stars meet with its inverse only; write the geometry again"
        )
    raise FrameError(
        f"{name}: its stars do not lie where its geometry ({geometry.origin or 'given'}) says: "
        f"{100 * there:.0f} % of the bright stars meet; register the frame again, or leave the geometry out "
        "so that it is found by the stars"
    )


def _meeting(matrix: np.ndarray, reference: np.ndarray, frame: np.ndarray) -> float:
    """Return the fraction of the bright stars of the reference that lie on a star of the frame."""
    x, y = mapped(matrix, *reference[:TRIED].T)
    low, high = frame.min(axis=0), frame.max(axis=0)
    inside = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    if np.count_nonzero(inside) < ENOUGH:
        return 0.0
    distance, _ = cKDTree(frame[: 3 * TRIED]).query(np.c_[x, y][inside])
    return float(np.mean(distance < MEET))
