"""Simulate unregistered frames with dither: color mosaics, their geometry, and the truth.

Stars are Gaussians whose light is summed over each pixel exactly, also where they are narrower than a pixel,
so that colors and fluxes of the truth are those of the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from stacklib.formats.xdrz import DrizzleData, write_xdrz
from stacklib.frames.mosaic import Sites, debayered
from stacklib.simulate.defects import add_cosmic_ray, add_sensor_defects, sensor_defects
from stacklib.simulate.night import FAINTEST, Session, file_names, noise_sigma, write_frame
from stacklib.simulate.registration import mapped, warped
from stacklib.simulate.scene import FWHM_PER_SIGMA, Scene, make_scene

__all__ = ["DitheredNight", "simulate_dithered"]

#: Light of a star is drawn out to this many sigma.
REACH = 6.0
#: Side of the parts of a pixel for extended light.
FINE = 2
#: Frames that are made at once.
THREADS = 2


@dataclass(frozen=True)
class DitheredNight:
    """Unregistered frames of one night and their truth. Frames are computed when they are asked for.

    Frame `i` is ``sky[i] + transparency[i] * light(i) + defects(i) + noise``.

    Attributes
    ----------
    scene : Scene
        The scene in the reference geometry.
    matrices : ndarray of float64, shape (count, 3, 3)
        Homography from the reference to each frame, with the origin at the corner of the first pixel.
    fwhm : float
        FWHM of the stars in pixels, before their light is summed over pixels.
    sky : ndarray of float64, shape (count, channels)
        Level of the sky as a fraction of full scale.
    transparency : ndarray of float64, shape (count,)
        Light of a frame relative to the scene.
    full_well, read_noise : float
        Full scale and read noise in electrons.
    cosmic_rays : float
        Mean number of cosmic rays per frame.
    sensor : tuple of ndarray
        Rows, columns and amplitudes of bad pixels, which are the same in all frames.
    pattern : str
        Color filter pattern; empty if each frame records all channels.
    seed : int
        Random seed.
    headers : list of dict
        FITS cards of each frame, name -> (value, comment).
    """

    scene: Scene
    matrices: np.ndarray
    fwhm: float
    sky: np.ndarray
    transparency: np.ndarray
    full_well: float
    read_noise: float
    cosmic_rays: float
    sensor: tuple[np.ndarray, ...] = field(repr=False)
    pattern: str
    seed: int
    headers: list[dict[str, tuple[Any, str]]] = field(repr=False)

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.matrices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the frames; a mosaic has one channel."""
        channels, height, width = self.scene.extended.shape
        return 1 if self.pattern else channels, height, width

    @cached_property
    def sites(self) -> Sites:
        """The colors of the pixels."""
        return Sites(self.pattern, len(self.scene.extended))

    def light(self, index: int) -> np.ndarray:
        """Return the light of the scene on the pixels of a frame, float64 (channels, height, width)."""
        return self._rendered(self.matrices[index], 1.0)

    def truth(self, scale: float = 1.0) -> np.ndarray:
        """Return the scene on a grid of the reference, without sky.

        Parameters
        ----------
        scale : float
            Pixels of the grid for a pixel of the reference.

        Returns
        -------
        ndarray of float64, shape (channels, height, width)
            Mean level of each pixel of the grid.
        """
        return self._rendered(np.diag([scale, scale, 1.0]), scale)

    def _rendered(self, matrix: np.ndarray, scale: float) -> np.ndarray:
        _, height, width = self.scene.extended.shape
        height, width = round(height * scale), round(width * scale)
        image = self._resampled(matrix, height, width)
        # Centers of the pixels of a scene are at whole numbers.
        x, y = mapped(matrix, self.scene.x + 0.5, self.scene.y + 0.5)
        sigma = scale * self.fwhm / FWHM_PER_SIGMA
        for star in range(x.size):
            rows, down = _shares(y[star], sigma, height)
            columns, across = _shares(x[star], sigma, width)
            share = np.outer(down, across) * scale**2
            image[:, rows, columns] += self.scene.flux[:, star, None, None] * share
        return image

    def _resampled(self, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the extended light on a grid, float64 (channels, height, width)."""
        channels = len(self.scene.extended)
        if not self.scene.extended.any():
            return np.zeros((channels, height, width))
        # A part of a pixel is as wide as the blur that its interpolation would need.
        back = np.linalg.inv(matrix) @ np.diag([1 / FINE, 1 / FINE, 1.0])
        fine = [
            warped(np.pad(plane, 32, mode="edge"), _padded(back), (FINE * height, FINE * width), order=3)
            for plane in self._extended
        ]
        return np.stack(fine).reshape(channels, height, FINE, width, FINE).mean(axis=(2, 4), dtype=np.float64)

    @cached_property
    def _extended(self) -> np.ndarray:
        """The extended light, blurred as the stars are."""
        sigma = np.sqrt(max(self.fwhm**2 - self.scene.seeing**2, 0.0)) / FWHM_PER_SIGMA
        return gaussian_filter(self.scene.extended, (0, sigma, sigma), mode="nearest")

    def expected(self, index: int) -> np.ndarray:
        """Return a frame without noise and defects, float64, shape of a frame."""
        full = self.sky[index][:, None, None] + self.transparency[index] * self.light(index)
        if not self.pattern:
            return full
        return np.take_along_axis(full, self.sites.channel_of(*full.shape[1:])[None].astype(np.intp), axis=0)

    def frame(self, index: int) -> np.ndarray:
        """Return one unregistered frame, float32 (channels, height, width)."""
        rng = np.random.default_rng([self.seed, 4, index])
        expected = self.expected(index)
        deposit = np.zeros_like(expected)
        sigma = float(noise_sigma(self.sky[index].mean(), self.full_well, self.read_noise))
        add_sensor_defects(deposit, self.sensor, np.zeros(2, int), sigma)
        for _ in range(rng.poisson(self.cosmic_rays)):
            add_cosmic_ray(deposit, rng, sigma)
        noise = noise_sigma(expected + np.maximum(deposit, 0), self.full_well, self.read_noise)
        raw = expected + deposit + noise * rng.standard_normal(expected.shape)
        return np.clip(raw, FAINTEST, 1.0).astype(np.float32)

    def registered(
        self, index: int, method: str = "bilinear", order: int = 3, frame: np.ndarray | None = None
    ) -> np.ndarray:
        """Return a frame as another program would register it, float32 (channels, height, width).

        Parameters
        ----------
        index : int
            Number of the frame.
        method : {"bilinear", "malvar"}
            How mosaics are debayered.
        order : {1, 3}
            Order of the spline of the interpolation.
        frame : ndarray, optional
            The unregistered frame, if it is there already.

        Returns
        -------
        ndarray
            The frame in the reference geometry, 0 where it has no data.
        """
        frame = self.frame(index) if frame is None else frame
        planes = debayered(frame[0], self.sites, method) if self.pattern else frame
        moved = np.stack([warped(plane, self.matrices[index], plane.shape, order) for plane in planes])
        return np.nan_to_num(np.clip(moved, FAINTEST, 1.0), nan=0.0)

    def drizzle_data(self, index: int, source: str, target: str = "") -> DrizzleData:
        """Return the drizzle data that PixInsight would write beside the registered frame.

        Parameters
        ----------
        index : int
            Number of the frame.
        source, target : str
            Paths of the unregistered and of the registered frame.

        Returns
        -------
        DrizzleData
        """
        _, height, width = self.shape
        return DrizzleData(
            source=source,
            cfa_source=source if self.pattern else "",
            pattern=self.pattern,
            target=target,
            width=width,
            height=height,
            matrix=self.matrices[index],
            created="2021-08-16T06:00:00Z",
        )

    def save(
        self,
        folder: str | Path,
        format: str = "xisf",
        dtype: str = "u16",
        *,
        overwrite: bool = False,
        compress: bool = True,
    ) -> tuple[list[Path], list[Path]]:
        """Write the unregistered frames, the registered ones, and drizzle data beside those.

        Parameters
        ----------
        folder : str or Path
            Output folder: ``3_Calibrated`` and ``4_Registered`` in it.
        format : {"xisf", "fits"}
            File format.
        dtype : {"u16", "f32"}
            Sample format, with a full scale of 65535 or 1.
        overwrite : bool
            Replace existing files.
        compress : bool
            Compress XISF files.

        Returns
        -------
        unregistered, registered : list of Path
            The frames, in order.
        """
        name = "{object}_Light_{number:04d}_c"
        steps = "_d_r" if self.pattern else "_r"
        first = file_names(Path(folder) / "3_Calibrated", self.headers, name, format, dtype)
        second = file_names(Path(folder) / "4_Registered", self.headers, name + steps, format, dtype)
        compress = compress and format == "xisf"

        def write(i: int) -> None:
            source, target = first[i], second[i]
            beside = target.with_suffix(".xdrz")
            if overwrite:
                beside.unlink(missing_ok=True)
            frame = self.frame(i)
            for path, planes in ((source, frame), (target, self.registered(i, frame=frame))):
                write_frame(path, planes, self.headers[i], dtype, overwrite, compress)
            write_xdrz(beside, self.drizzle_data(i, f"/capture/{source.name}", f"/capture/{target.name}"))

        self._extended, self.sites  # noqa: B018 - computed once, before the threads ask for them
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            list(pool.map(write, range(self.count)))
        return first, second


def _padded(matrix: np.ndarray) -> np.ndarray:
    """Return the homography into a plane with 32 more pixels on each side."""
    return np.array([[1, 0, 32], [0, 1, 32], [0, 0, 1.0]]) @ matrix


def _shares(center: float, sigma: float, size: int) -> tuple[slice, np.ndarray]:
    """Return the pixels along an axis that a star falls on, and the share of its light in each."""
    first = min(max(int(center - REACH * sigma - 1), 0), size)
    last = min(max(int(center + REACH * sigma + 2), first), size)
    edges = (np.arange(first, last + 1) - center) / (np.sqrt(2) * sigma)
    return slice(first, last), np.diff(erf(edges)) / 2


def simulate_dithered(
    count: int = 40,
    height: int = 200,
    width: int = 260,
    kind: str = "galaxy",
    seed: int = 1,
    *,
    pattern: str = "RGGB",
    channels: int = 3,
    dither: float = 8.0,
    rotation: float = 0.1,
    fwhm: float = 1.8,
    sky: float | Sequence[float] = (0.055, 0.050, 0.036),
    sky_drift: float = 0.3,
    extinction: float = 0.1,
    full_well: float = 16000.0,
    read_noise: float = 2.0,
    cosmic_rays: float = 4.0,
    hot_pixels: int = 30,
    session: Session | None = None,
) -> DitheredNight:
    """Simulate a night of unregistered frames with dither by fractions of pixels.

    Parameters
    ----------
    count, height, width : int
        Number and size of the frames.
    kind : {"galaxy", "spiral", "globular", "nebula", "field"}
        Target, see `make_scene`.
    seed : int
        Random seed. The same seed and parameters give the same pixels.
    pattern : str
        Color filter pattern of mosaics such as ``RGGB``; empty for frames that record all channels.
    channels : int
        Channels of frames without a pattern.
    dither : float
        Largest dither along each axis, in pixels.
    rotation : float
        Largest rotation of the field against the reference, in degrees.
    fwhm : float
        FWHM of the stars in pixels, before their light is summed over pixels.
    sky : float or sequence of float
        Level of the sky in the first frame, one for all channels or one per channel.
    sky_drift, extinction : float
        Increase of the sky and loss of light from the first frame to the last, as fractions.
    full_well, read_noise : float
        Full scale and read noise in electrons.
    cosmic_rays : float
        Mean number of cosmic rays per frame.
    hot_pixels : int
        Number of bad pixels left by calibration.
    session : Session, optional
        Night and equipment, for the headers.

    Returns
    -------
    DitheredNight
        The night. Its first frame is the reference.

    Raises
    ------
    ValueError
        If `kind` or the number of channels is unknown.

    Examples
    --------
    >>> night = simulate_dithered(3, 48, 64, seed=2)
    >>> night.frame(1).shape, night.truth(2).shape
    ((1, 48, 64), (3, 96, 128))
    """
    channels = 3 if pattern else channels
    rng = np.random.default_rng([seed, 1])
    scene = make_scene(kind, height, width, channels, seed, psf="gaussian", fwhm=min(fwhm, 1.5))
    progress = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    moved = rng.uniform(-dither, dither, (count, 2))
    turned = np.radians(rng.uniform(-rotation, rotation, count))
    moved[0] = turned[0] = 0
    middle = np.array([width / 2, height / 2])
    matrices = np.zeros((count, 3, 3))
    for matrix, shift, angle in zip(matrices, moved, turned, strict=True):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix[:2, :2], matrix[:2, 2], matrix[2, 2] = turn, middle + shift - turn @ middle, 1
    levels = np.broadcast_to(np.atleast_1d(np.asarray(sky, float))[:channels], (channels,))
    cards: dict[str, tuple[Any, str]] = {
        "EGAIN": (round(full_well / 65535, 5), "[e-/ADU] Electrons per 16-bit unit"),
        "RDNOISE": (read_noise, "[e-] Read noise"),
    }
    if pattern:
        cards["BAYERPAT"] = (pattern, "Color filters from the top left")
    session = session or Session()
    return DitheredNight(
        scene=scene,
        matrices=matrices,
        fwhm=fwhm,
        sky=levels * (1 + sky_drift * progress[:, None] ** 1.5),
        transparency=1 - extinction * progress,
        full_well=full_well,
        read_noise=read_noise,
        cosmic_rays=cosmic_rays,
        sensor=sensor_defects(rng, hot_pixels, 1 if pattern else channels, height, width),
        pattern=pattern,
        seed=seed,
        headers=[session.header(index) | cards for index in range(count)],
    )
