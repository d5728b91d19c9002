"""An experiment on color mosaics: demosaiced and integrated, or drizzled, against the truth."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree

from stacklib.drizzle.coverage import Forecast, forecast
from stacklib.drizzle.deposit import Drop, Grid, deposit
from stacklib.drizzle.geometry import Geometry
from stacklib.simulate import DitheredNight, Scene, sample_mosaics
from stacklib.simulate.mosaics import THREADS
from stacklib.simulate.scene import FWHM_PER_SIGMA

__all__ = ["SEEING", "WAYS", "Mosaics", "Seeing", "mosaics", "seeing"]

#: The ways from mosaics to an image, with the scale of the image.
WAYS = {"bilinear": 1.0, "Malvar": 1.0, "drizzled": 1.0, "drizzled, scale 2": 2.0}
#: Those that debayer, by their name in `stacklib.frames.mosaic.debayered`.
DEBAYERING = {"bilinear": "bilinear", "Malvar": "malvar"}
#: Drop of the drizzled images.
DROP = 0.9
#: FWHM of stars that are tried, in pixels of the frames.
SEEING = (1.2, 2.0, 3.5)
#: Side of the field with these stars, and their light in red, green and blue: white, red and blue ones.
FIELD, COLORS = 80, ((1.0, 1.0, 1.0), (1.0, 0.4, 0.2), (0.3, 0.6, 1.0))
#: Stars that are measured: number, distance from the border and from brighter light, radius, in pixels.
STARS, EDGE, ALONE, RADIUS = 12, 14, 7.0, 5.0
#: Light below this level, as a fraction of full scale, is taken for sky.
SKY = 0.001
#: Highest level of other light around a star that is measured.
LEVEL = 0.004


@dataclass(frozen=True)
class Mosaics:
    """The images of a night of mosaics by the names of `WAYS`, and what they are worth.

    Images are float64 (channels, height, width) in units of the truth, without sky.
    """

    night: DitheredNight
    images: dict[str, np.ndarray] = field(repr=False)

    def truth(self, way: str) -> np.ndarray:
        """Return the scene on the pixels of an image, float64 (channels, height, width)."""
        return self._truths[WAYS[way]]

    @cached_property
    def _truths(self) -> dict[float, np.ndarray]:
        return {scale: self.night.truth(scale) for scale in set(WAYS.values())}

    @cached_property
    def stars(self) -> np.ndarray:
        """The brightest stars that are far from others and from the border, as indices into the scene."""
        return lonely_stars(self.night)

    def fwhm(self, way: str, channel: int) -> float:
        """Return the FWHM of the stars in an image, in pixels of the frames."""
        return star_width(self.images[way][channel], self.night, self.stars, WAYS[way])

    def true_fwhm(self, channel: int) -> float:
        """Return the FWHM that stars have on the pixels of the frames."""
        return star_width(self._truths[1.0][channel], self.night, self.stars, 1.0)

    def residual(self, way: str, channel: int = 1) -> np.ndarray:
        """Return image minus truth where there is hardly any light, NaN elsewhere, (height, width)."""
        scale = WAYS[way]
        residual = self.images[way][channel] - self.truth(way)[channel]
        edge = round(EDGE * scale)
        known = np.zeros(residual.shape, bool)
        known[edge:-edge, edge:-edge] = True
        residual = np.where(known & (self.truth(way).max(axis=0) < SKY), residual, np.nan)
        return residual - np.nanmedian(residual)

    def noise(self, way: str, channel: int = 1) -> float:
        """Return the noise of the sky in single pixels of an image."""
        return float(np.nanstd(self.residual(way, channel)))

    def large_noise(self, way: str, channel: int = 1, side: int = 4) -> float:
        """Return the noise of the means of squares, `side` pixels of the frames wide, for a single pixel.

        It is that of single pixels if the noise of neighbors is independent.
        """
        residual, side = self.residual(way, channel), round(side * WAYS[way])
        rows, columns = (size // side for size in residual.shape)
        blocks = residual[: rows * side, : columns * side].reshape(rows, side, columns, side)
        return float(np.nanstd(blocks.mean(axis=(1, 3)))) * side

    def correlation(self, way: str, channel: int = 1) -> np.ndarray:
        """Return the autocorrelation of the noise for offsets up to 4 pixels, float64 (9, 9)."""
        residual = self.residual(way, channel)
        height, width = residual.shape
        out = np.empty((9, 9))
        for down in range(-4, 5):
            for right in range(-4, 5):
                one = residual[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
                other = residual[
                    max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)
                ]
                out[down + 4, right + 4] = np.nanmean(one * other)
        return out / out[4, 4]

    def neighbors(self, way: str, channel: int = 1) -> float:
        """Return the correlation of the noise of a pixel with that of the pixel beside or below it."""
        found = self.correlation(way, channel)
        return float((found[4, 5] + found[5, 4]) / 2)

    def without_dither(self, scale: float = 1.0) -> Forecast:
        """Predict the coverage if the frames were moved by whole periods of the mosaic, and not turned."""
        period, (_, height, width) = self.night.sites.period, self.night.shape
        geometries = []
        for matrix in self.night.matrices:
            moved = np.eye(3)
            moved[:2, 2] = period * np.rint(matrix[:2, 2] / period)
            geometries.append(Geometry(matrix=moved, width=width, height=height, origin="whole periods"))
        grid = Grid(width=width, height=height, scale=scale, drop=DROP)
        return forecast(geometries, self.night.sites, grid, (height, width), self.night.fwhm)

    @property
    def words(self) -> str:
        """What was found, a line for each way."""
        lines = []
        for way in WAYS:
            widths = " / ".join(f"{self.fwhm(way, channel):.2f}" for channel in range(3))
            lines.append(
                f"{way + ':':<19}FWHM red / green / blue {widths} px; correlation of the noise of neighbors "
                f"in green {self.neighbors(way):.2f}"
            )
        return "\n".join(lines)


def lonely_stars(night: DitheredNight) -> np.ndarray:
    """Return the brightest stars far from others, from the border and from other light, as indices."""
    scene, (_, height, width) = night.scene, night.shape
    flux = scene.flux.min(axis=0)
    tree = cKDTree(np.c_[scene.x, scene.y])
    total = np.array([flux[near].sum() for near in tree.query_ball_point(np.c_[scene.x, scene.y], ALONE)])
    level = scene.extended.max(axis=0)[
        np.clip(np.rint(scene.y).astype(int), 0, height - 1),
        np.clip(np.rint(scene.x).astype(int), 0, width - 1),
    ]
    inside = (scene.x > EDGE) & (scene.x < width - EDGE) & (scene.y > EDGE) & (scene.y < height - EDGE)
    alone = np.flatnonzero(inside & (total < 1.05 * flux) & (level < LEVEL))
    return alone[np.argsort(flux[alone])[::-1]][:STARS]


def star_width(plane: np.ndarray, night: DitheredNight, stars: np.ndarray, scale: float) -> float:
    """Fit one Gaussian width to stars at known places, each with its own light and sky.

    Parameters
    ----------
    plane : ndarray, shape (height, width)
        The image.
    night : DitheredNight
        The night with the places of its stars.
    stars : ndarray of int
        Stars to fit, by their number in the scene.
    scale : float
        Pixels of the image for a pixel of the frames.

    Returns
    -------
    float
        FWHM in pixels of the frames.
    """
    reach = round(RADIUS * scale)
    cuts = []
    for star in stars:
        x, y = (scale * (place[star] + 0.5) - 0.5 for place in (night.scene.x, night.scene.y))
        top, left = round(y) - reach, round(x) - reach
        rows, columns = np.mgrid[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
        # Bright stars count for more, but no single one decides.
        light = float(night.scene.flux[:, star].mean())
        cuts.append((plane[rows, columns].ravel(), ((rows - y) ** 2 + (columns - x) ** 2).ravel(), light))

    def misfit(sigma: float) -> float:
        total = 0.0
        for values, square, light in cuts:
            basis = np.c_[np.exp(-0.5 * square / (scale * sigma) ** 2), np.ones(square.size)]
            solved = np.linalg.lstsq(basis, values, rcond=None)[0]
            total += float(np.square(values - basis @ solved).sum()) / light
        return total

    return float(minimize_scalar(misfit, bounds=(0.3, 4.0), method="bounded").x) * FWHM_PER_SIGMA


def mosaics() -> Mosaics:
    """Make images of a night of simulated mosaics in each of the `WAYS`.

    It is the night of `stacklib.simulate.sample_mosaics` without cosmic rays and bad pixels, so that nothing
    has to be rejected. Bilinear is the debayering of most programs; that of Malvar, He and Cutler (2004) is
    sharper. Both are registered with cubic splines and averaged.
    """
    night = sample_mosaics()
    night = replace(night, cosmic_rays=0.0, sensor=tuple(part[:0] for part in night.sensor))
    with ThreadPoolExecutor(THREADS) as pool:
        frames = list(pool.map(night.frame, range(night.count)))
    return Mosaics(night, _images_of(night, frames))


@dataclass(frozen=True)
class Seeing:
    """White, red and blue stars of several widths in noiseless mosaics, by the names of `WAYS`.

    Attributes
    ----------
    fwhm : ndarray of float64, shape (seeing,)
        FWHM of the stars in pixels of the frames.
    true : ndarray of float64, shape (seeing, channels)
        FWHM that they have on the pixels of the frames.
    found : dict of str to ndarray
        FWHM in the images, in pixels of the frames, float64 (seeing, channels).
    false_color : dict of str to ndarray
        Light with a wrong color, as a fraction of the light of the stars, float64 (seeing,): what red minus
        green, and blue minus green, have more or less than in the truth.
    """

    fwhm: np.ndarray
    true: np.ndarray
    found: dict[str, np.ndarray] = field(repr=False)
    false_color: dict[str, np.ndarray] = field(repr=False)

    def wider(self, way: str) -> np.ndarray:
        """Return how much wider stars are than on the pixels of the frames, as fractions."""
        return self.found[way] / self.true - 1

    @property
    def words(self) -> str:
        """What drizzling gains for the sharpest and the widest stars."""
        gain = 1 - self.found["drizzled"] / self.found["bilinear"]
        finer = 1 - self.found["drizzled, scale 2"] / self.found["drizzled"]
        lines = [
            f"Stars of {self.fwhm[k]:.1f} px: drizzled they are {gain[k, 1]:.0%} narrower in green and "
            f"{gain[k, 0]:.0%} in red than with bilinear debayering; scale 2 adds {finer[k, 1]:.0%}. Light "
            "with a wrong color: "
            + ", ".join(f"{way} {100 * values[k]:.1f} %" for way, values in self.false_color.items())
            + "."
            for k in (0, -1)
        ]
        return "\n".join(lines)


def seeing(seed: int = 3) -> Seeing:
    """Measure what each way makes of stars of several widths, without noise.

    Parameters
    ----------
    seed : int
        Seed of the places of the stars within a pixel.

    Returns
    -------
    Seeing
    """
    true: list[list[float]] = []
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    wrong: dict[str, list[float]] = {way: [] for way in WAYS}
    for fwhm in SEEING:
        night = _star_field(fwhm, seed)
        stars = np.arange(night.scene.x.size)
        truths = {scale: night.truth(scale) for scale in set(WAYS.values())}
        true.append([star_width(plane, night, stars, 1.0) for plane in truths[1.0]])
        frames = [night.expected(i).astype(np.float32) for i in range(night.count)]
        for way, image in _images_of(night, frames).items():
            scale = WAYS[way]
            found[way].append([star_width(plane, night, stars, scale) for plane in image])
            apart = (image - truths[scale])[:, slice(*_inner(scale)), slice(*_inner(scale))]
            wrong[way].append(
                float(np.abs(apart[[0, 2]] - apart[1]).sum() / 2 / truths[scale].mean(axis=0).sum())
            )
    return Seeing(
        np.array(SEEING),
        np.array(true),
        {way: np.array(widths) for way, widths in found.items()},
        {way: np.array(shares) for way, shares in wrong.items()},
    )


def _inner(scale: float) -> tuple[int, int]:
    """Return begin and end of the part of the star field that all frames have."""
    return round(EDGE * scale), round((FIELD - EDGE) * scale)


def _images_of(night: DitheredNight, frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the images of frames in each of the `WAYS`, without sky and as bright as the scene."""
    sky, light = night.sky[..., None, None], night.transparency[:, None, None, None]
    images = {}
    for way, scale in WAYS.items():
        if way in DEBAYERING:
            register = partial(_registered, night, frames, DEBAYERING[way])
            with ThreadPoolExecutor(THREADS) as pool:
                planes = np.array(list(pool.map(register, range(night.count))))
            known = planes > 0
            total = np.sum(np.where(known, (planes - sky) / light, 0), axis=0)
            images[way] = total / np.maximum(known.sum(axis=0), 1)
        else:
            images[way] = _deposited(night, frames, scale)
    return images


def _registered(night: DitheredNight, frames: list[np.ndarray], method: str, i: int) -> np.ndarray:
    return night.registered(i, method, frame=frames[i])


def _star_field(fwhm: float, seed: int) -> DitheredNight:
    """Return the sample night with nine stars in place of its scene, and no sky, clouds or defects."""
    night, rng = sample_mosaics(), np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*2 * [np.linspace(24, FIELD - 24, 3)])).reshape(2, -1)
    x, y = places + rng.uniform(-0.5, 0.5, places.shape)
    scene = Scene(
        extended=np.zeros((3, FIELD, FIELD)),
        x=x,
        y=y,
        flux=np.array([COLORS[star % len(COLORS)] for star in range(x.size)]).T,
        psf="gaussian",
    )
    return replace(
        night,
        scene=scene,
        fwhm=fwhm,
        sky=np.zeros_like(night.sky),
        transparency=np.ones(night.count),
    )


class _InMemory(NamedTuple):
    """A frame to deposit, (1, height, width)."""

    planes: np.ndarray

    def read_rows(self, start: int, stop: int, channel: int) -> np.ndarray:
        """Return rows of the frame."""
        return self.planes[channel, start:stop]


def _deposited(night: DitheredNight, frames: list[np.ndarray], scale: float) -> np.ndarray:
    """Drizzle frames whose sky and light are known."""
    _, height, width = night.shape
    drops = [
        Drop(
            pixels=_InMemory(frame),
            height=height,
            width=width,
            inverse=np.linalg.inv(night.matrices[i]),
            factor=np.full(3, 1 / night.transparency[i]),
            offset=-night.sky[i] / night.transparency[i],
            weights=np.ones(3),
        )
        for i, frame in enumerate(frames)
    ]
    return deposit(drops, night.sites, Grid(width=width, height=height, scale=scale, drop=DROP)).image
