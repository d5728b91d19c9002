"""Where in the sky a pixel is: coordinates in words, scale and directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.formats.fits_header import astropy_alone

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["Sky"]


class Sky:
    """The sky of an image with world coordinates.

    Parameters
    ----------
    world : WCS
        World coordinates, the first row of the image being row 0.
    width, height : int
        Size of the image.

    Attributes
    ----------
    scale : float
        Arcseconds per pixel at the center.
    north, east : list of float
        Directions at the center, as steps in x and y (down) of length 1.

    Raises
    ------
    ValueError
        If the center of the image is not in the sky.
    """

    def __init__(self, world: WCS, width: int, height: int) -> None:
        self._world = world.celestial
        x, y = (width - 1) / 2, (height - 1) / 2
        here, there = np.array(self._degrees(x, y)), np.array(self._degrees(x + 1, y))
        below = np.array(self._degrees(x, y + 1))
        # Steps of right ascension shrink towards the poles, and jump by 360 degrees somewhere.
        shrunk = np.array([np.cos(np.radians(here[1])), 1.0])
        steps = (
            np.stack([(step - here + 180) % 360 - 180 for step in (there, below)], axis=1) * shrunk[:, None]
        )
        if not np.isfinite(steps).all() or abs(np.linalg.det(steps)) < 1e-20:
            raise ValueError("wcs: does not say where the center of the image is in the sky")
        self.scale = 3600 * float(np.sqrt(abs(np.linalg.det(steps))))
        east, north = np.linalg.inv(steps).T
        self.north, self.east = ((way / np.linalg.norm(way)).tolist() for way in (north, east))

    def _degrees(self, x: float, y: float) -> tuple[float, float]:
        with astropy_alone(Warning):
            first, second = (float(value) for value in self._world.all_pix2world(x, y, 0))
        return (second, first) if self._world.wcs.lng == 1 else (first, second)

    def __call__(self, x: float, y: float) -> str:
        """Return the position of a pixel in words, empty if it is not in the sky."""
        import astropy.units as u
        from astropy.coordinates import Angle

        try:
            longitude, latitude = self._degrees(x, y)
        except Exception:  # astropy raises almost anything where a distortion has no solution
            return ""
        if not np.isfinite(longitude + latitude):
            return ""
        names = ("RA", "Dec") if self._world.wcs.lngtyp == "RA" else ("longitude", "latitude")
        hours = names[0] == "RA"
        options: dict[str, Any] = {"precision": 2, "pad": True}
        first = Angle(longitude % 360, u.deg).to_string(u.hourangle if hours else u.deg, **options)
        second = Angle(latitude, u.deg).to_string(u.deg, precision=1, pad=True, alwayssign=True)
        return f"{names[0]} {first}  {names[1]} {second}"

    def to_dict(self) -> dict[str, Any]:
        """Return scale and directions for the browser."""
        return {"scale": self.scale, "north": self.north, "east": self.east}
