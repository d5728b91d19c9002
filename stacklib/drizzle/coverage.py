"""What drizzling will give, from the geometry alone: coverage, dither, sampling, and whether it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from astropy.table import Table

from stacklib.drizzle.deposit import Drop, Grid, deposit
from stacklib.drizzle.geometry import Geometry
from stacklib.frames.mosaic import COLORS, Sites
from stacklib.simulate.registration import mapped

__all__ = ["Advice", "Forecast", "advise_drizzle", "covered", "forecast", "noise_correlation"]

#: Fewest frames that are drizzled, and those below which it is warned.
LEAST_FRAMES, FEW_FRAMES = 3, 15
#: FWHM in pixels below which stars are undersampled, so that a finer grid gains resolution.
UNDERSAMPLED = 2.0
#: Dither below which a finer grid gains nothing.
POOR_DITHER = 0.4
#: Fraction of the grid, away from the border, that may be without samples.
SOME_HOLES = 0.001
#: Scales and drops that are tried, the drops from the smallest, and the largest unevenness of samples for one
#: to be advised: with more, the noise differs visibly from pixel to pixel.
SCALES, DROPS, EVEN = (1.0, 2.0, 3.0), (0.5, 0.7, 0.9), 0.3
#: Windows along each axis in which coverage is predicted, and their side in pixels of the grid.
WINDOWS, SIDE = 3, 64
#: Tiles of the frames for them.
SMALL_TILE = (48, 96)
#: Grids up to this number of pixels are predicted as a whole, which is quicker then.
SMALL_GRID = 150_000
#: Cells along each axis of a pixel, or of a period of a mosaic, that dither should fill.
CELLS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """What drizzling these frames will give.

    Attributes
    ----------
    grid : Grid
        The grid.
    frames : int
        Number of frames.
    colors : tuple of str
        Names of the channels.
    samples : ndarray of float32, shape (channels, windows, windows, rows, columns)
        Samples for each pixel of the grid in windows spread over it.
    holes : ndarray of float64, shape (channels,)
        Fraction of the pixels in the windows on which no sample falls, of those inside the field of all
        frames.
    shifts : ndarray of float64, shape (frames, 2)
        How far each frame is moved against the reference in its middle, x and y in pixels.
    dither : float
        Fraction of the places within a pixel, or within a period of a mosaic, that the frames visit, relative
        to the fraction that as many random shifts would: 1 for a good dither, near 0 for none.
    fwhm : float
        FWHM of the stars in pixels of the frames; NaN if it is not known.
    mosaic : bool
        Whether the frames are color mosaics.
    unevenness : ndarray of float64, shape (channels,)
        Standard deviation of the numbers of samples relative to their median, of the same pixels.
    geometries : tuple of Geometry
        Geometry of each frame.
    sites : Sites
        The colors of the pixels of the frames.
    shape : tuple of int
        Height and width of the frames.
    """

    grid: Grid
    frames: int
    colors: tuple[str, ...]
    samples: np.ndarray
    holes: np.ndarray
    shifts: np.ndarray
    dither: float
    fwhm: float
    mosaic: bool
    unevenness: np.ndarray
    geometries: tuple[Geometry, ...] = field(repr=False)
    sites: Sites
    shape: tuple[int, int]

    def at(self, scale: float, drop: float) -> Forecast:
        """Predict the same for another scale and drop, in a single window in the middle.

        Parameters
        ----------
        scale, drop : float
            See `Grid`.

        Returns
        -------
        Forecast
        """
        grid = replace(self.grid, scale=scale, drop=drop)
        return forecast(self.geometries, self.sites, grid, self.shape, self.fwhm, windows=1)

    @property
    def warnings(self) -> list[str]:
        """What may go wrong, in words."""
        found = []
        if self.frames < FEW_FRAMES:
            found.append(
                f"{self.frames} frames are few for drizzling: {FEW_FRAMES} or more leave no holes and an "
                "even noise"
            )
        if self.dither < POOR_DITHER:
            what = "a period of the mosaic" if self.mosaic else "a pixel"
            found.append(
                f"the frames hardly differ in where they lie within {what}, so that a finer grid gains "
                "nothing; dither by some pixels between exposures"
            )
        if self.holes.max() > SOME_HOLES:
            holes = zip(self.colors, self.holes, strict=True)
            shown = ", ".join(f"{color} {100 * share:.2g} %" for color, share in holes if share)
            found.append(
                f"pixels of the grid without any sample are left: {shown}; use a smaller scale, a larger "
                "drop, or more frames"
            )
        return found

    @property
    def verdict(self) -> str:
        """Whether drizzling pays with these frames, in a sentence."""
        return f"Drizzling at scale {self.grid.scale:g} and drop {self.grid.drop:g} {self._outcome}."

    @property
    def _outcome(self) -> str:
        finer = self.grid.scale > 1
        if self.holes.max() > SOME_HOLES:
            remedies = (
                ["a smaller scale"] * finer + ["a larger drop"] * (self.grid.drop < 1) + ["more frames"]
            )
            return f"leaves holes of {100 * self.holes.max():.2g} %: use {' or '.join(remedies)}"
        if self.dither < POOR_DITHER:
            return "does not pay: the frames hardly differ in where they lie within a pixel"
        if not finer and self.mosaic:
            return "pays: each color is taken from its own pixels, without interpolation"
        if not finer:
            return "avoids interpolation, but gains no resolution; scale 2 does if stars are undersampled"
        if not math.isfinite(self.fwhm):
            return "pays if stars are narrower than 2 px"
        if self.fwhm <= UNDERSAMPLED:
            return f"pays: stars of {self.fwhm:.1f} px are undersampled"
        return (
            f"does not pay: stars of {self.fwhm:.1f} px are sampled well already, and a finer grid has more "
            "noise in each pixel"
        )


class Advice(NamedTuple):
    """What was tried on the geometry of frames, and what is advised.

    Attributes
    ----------
    table : Table
        One row for each scale and drop: scale, drop; holes and unevenness of the worst color in percent, see
        `Forecast`; large_scale, the noise of large areas relative to what single pixels suggest, see
        `noise_correlation`.
    scale, drop : float
        The scale that the stars need, and the smallest drop whose samples are spread evenly enough.
    words : str
        The same in a sentence.
    """

    table: Table
    scale: float
    drop: float
    words: str


def advise_drizzle(expected: Forecast) -> Advice:
    """Try scales and drops on the geometry of frames, and advise one of each.

    Undersampled stars need scale 2, others scale 1. A small drop is sharper and correlates the noise less,
    but needs more frames to fill the grid evenly.

    Parameters
    ----------
    expected : Forecast
        A forecast for the frames, at any scale and drop.

    Returns
    -------
    Advice
    """
    tried = {(scale, drop): expected.at(scale, drop) for scale in SCALES for drop in DROPS}
    table = Table()
    table["scale"], table["drop"] = (np.array(values) for values in zip(*tried, strict=True))
    table["holes"] = [100 * float(one.holes.max()) for one in tried.values()]
    table["unevenness"] = [100 * float(one.unevenness.max()) for one in tried.values()]
    table["large_scale"] = [noise_correlation(scale, drop) for scale, drop in tried]
    for name, form, unit in (("holes", ".2f", "%"), ("unevenness", ".0f", "%"), ("large_scale", ".2f", None)):
        table[name].format, table[name].unit = form, unit
    wanted = 2.0 if expected.fwhm <= UNDERSAMPLED and expected.dither >= POOR_DITHER else 1.0
    good = [
        (scale, drop)
        for (scale, drop), one in tried.items()
        if scale <= wanted and one.holes.max() <= SOME_HOLES and one.unevenness.max() <= EVEN
    ]
    scale = max((scale for scale, _ in good), default=1.0)
    drop = min((drop for one, drop in good if one == scale), default=1.0)
    why = [f"stars of {expected.fwhm:.1f} px are undersampled"] if wanted > 1 else []
    why += ["the frames are too few for scale 2"] if scale < wanted else []
    why += [
        f"with smaller drops the number of samples differs by more than {100 * EVEN:.0f} %"
        if good and drop > min(DROPS)
        else f"even drop {max(DROPS):g} leaves the number of samples uneven by more than {100 * EVEN:.0f} %"
        if not good
        else f"the frames fill even drop {drop:g} evenly"
    ]
    if not math.isfinite(expected.fwhm):
        why.insert(0, "the width of the stars is not known")
    return Advice(table, scale, drop, f"Advised: scale {scale:g}, drop {drop:g} ({'; '.join(why)}).")


def forecast(
    geometries: Sequence[Geometry],
    sites: Sites,
    grid: Grid,
    shape: tuple[int, int],
    fwhm: float = math.nan,
    whole: bool = False,
    windows: int = WINDOWS,
) -> Forecast:
    """Predict what drizzling gives, from the geometry alone.

    Parameters
    ----------
    geometries : sequence of Geometry
        Geometry of each frame.
    sites : Sites
        The colors of their pixels.
    grid : Grid
        The grid.
    shape : tuple of int
        Height and width of the frames.
    fwhm : float
        FWHM of the stars in pixels of the frames, if it is known.
    whole : bool
        Count the samples on the whole grid in place of windows spread over it, as for small grids.
    windows : int
        Number of windows along each axis.

    Returns
    -------
    Forecast
        The numbers of samples are those that `stacklib.drizzle.deposit.deposit` finds for frames all of whose
        samples count.
    """
    drops = [Drop.to_count(*shape, geometry.inverse, sites.channels) for geometry in geometries]
    height, width = grid.shape
    whole = whole or (windows > 1 and height * width <= SMALL_GRID)
    rows = [slice(0, height)] if whole else _windows(height, windows)
    columns = [slice(0, width)] if whole else _windows(width, windows)
    tile = None if whole else SMALL_TILE
    samples = [
        [deposit(drops, sites, grid, down, across, tile=tile).weights for across in columns] for down in rows
    ]
    counted = np.stack([np.stack(row, axis=1) for row in samples], axis=1)
    inside = np.stack(
        [[covered(geometries, grid, shape, down, across) for across in columns] for down in rows]
    )
    total = max(int(inside.sum()), 1)
    names = tuple(COLORS) if sites.channels == 3 else tuple(str(c) for c in range(sites.channels))
    return Forecast(
        grid=grid,
        frames=len(geometries),
        colors=names,
        samples=counted,
        holes=np.array([np.count_nonzero((plane == 0) & inside) / total for plane in counted]),
        shifts=np.array([geometry.shift for geometry in geometries]),
        dither=_dither(geometries, sites.period),
        fwhm=fwhm,
        mosaic=bool(sites.pattern),
        unevenness=np.array([_unevenness(plane[inside]) for plane in counted]),
        geometries=tuple(geometries),
        sites=sites,
        shape=shape,
    )


def _windows(size: int, count: int) -> list[slice]:
    """Return windows of the same size spread along an axis."""
    side = min(SIDE, size)
    starts = np.unique(np.linspace(0, size - side, count + 2).astype(int)[1:-1] if size > side else [0])
    return [slice(start, start + side) for start in starts.tolist()]


def _unevenness(samples: np.ndarray) -> float:
    """Return the standard deviation of numbers of samples relative to their median, 0 for no pixels."""
    middle = float(np.median(samples)) if samples.size else 0.0
    if not samples.size:
        return 0.0
    return float(samples.std()) / middle if middle > 0 else math.inf


def covered(
    geometries: Sequence[Geometry], grid: Grid, shape: tuple[int, int], rows: slice, columns: slice
) -> np.ndarray:
    """Return which pixels of a part of the grid lie inside all frames.

    Parameters
    ----------
    geometries : sequence of Geometry
        Geometry of each frame.
    grid : Grid
        The grid.
    shape : tuple of int
        Height and width of the frames.
    rows, columns : slice
        The part of the grid.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
    """
    y = (np.arange(rows.start, rows.stop) + 0.5)[:, None] / grid.scale
    x = (np.arange(columns.start, columns.stop) + 0.5) / grid.scale
    inside = np.ones((y.size, x.size), bool)
    for geometry in geometries:
        u, v = mapped(geometry.matrix, x, y)
        # Half a period of a mosaic from the edge a color may be missing.
        inside &= (u > 2) & (u < shape[1] - 2) & (v > 2) & (v < shape[0] - 2)
    return inside


def _dither(geometries: Sequence[Geometry], period: int) -> float:
    """Return how well frames fill the places within a period, relative to random ones."""
    count, cells = len(geometries), CELLS**2
    expected = cells * (1 - (1 - 1 / cells) ** count)
    shares = []
    # In several places: a rotation moves them by itself.
    for x, y in ((0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)):
        places = np.array(
            [mapped(g.matrix, np.array([x * g.width]), np.array([y * g.height])) for g in geometries]
        )[..., 0]
        # The first frame lies anywhere in its cell.
        inside = np.floor(CELLS * (((places - places[0]) / period + 0.5 / CELLS) % 1)).astype(int) % CELLS
        shares.append(len({tuple(place) for place in inside.tolist()}) / expected)
    # One cell is always visited.
    least = 1 / expected
    return float(np.clip((np.median(shares) - least) / max(1 - least, 1e-9), 0, 1))


def noise_correlation(scale: float, drop: float) -> float:
    """Return the noise of large areas relative to that which single pixels of the image suggest.

    The neighbors of a pixel share its samples, so that its noise is smaller than that of large areas. For
    square drops of side ``r = drop * scale`` in pixels of the grid, and an even dither, the factor on the
    standard deviation is ``r / (1 - 1 / (3 r))`` from r = 1 on, and ``1 / (1 - r / 3)`` below (Casertano et
    al. 2000, Fruchter & Hook 2002).

    Parameters
    ----------
    scale, drop : float
        Scale of the grid and side of a drop, see `Grid`.

    Returns
    -------
    float
        At least 1.

    Examples
    --------
    >>> round(noise_correlation(1, 1), 3)
    1.5
    """
    r = drop * scale
    return r / (1 - 1 / (3 * r)) if r >= 1 else 1 / (1 - r / 3)
