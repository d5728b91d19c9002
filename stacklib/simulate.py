"""Registered light frames of a made-up sky, with the truth and every outlier known.

For the lessons, the sample data, the tests and the benchmarks. What a frame holds, in units of full scale::

    expected[i] = sky[i] * (1 + gradient) + transparency[i] * scene(fwhm[i])
    frame[i]    = expected[i] + defects[i] + noise[i]
    sigma[i]    = sqrt(expected[i] * full_well + read_noise**2) / full_well

Two liberties are taken. Dithers are whole pixels and colour frames are not demosaiced, so that the noise
is white: real registered frames are resampled, their noise is correlated from pixel to pixel and measures
too low. And the shot noise is drawn from a normal distribution, which at the hundreds of electrons of a
real sky cannot be told from a Poisson distribution.

``python -m stacklib.simulate sample_data`` makes the sample data again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from scipy import ndimage

__all__ = [
    "Scene",
    "Session",
    "Simulation",
    "Trail",
    "make_benchmark_frames",
    "make_sample_data",
    "make_scene",
    "simulate_frames",
]

#: A sample that holds data is never 0: that is the value of the border without data.
FAINTEST = 1 / 65535
#: A defect counts as an outlier from this many sigma of its pixel.
OUTLIER_SIGMA = 0.5

FWHM_PER_SIGMA = 2.3548
MOFFAT_BETA = 3.0


# --- the sky ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What lies above the sky background, in the reference frame's transparency.

    Attributes
    ----------
    extended : ndarray of float64, shape (channels, height, width)
        Everything that is not a star, as it looks through the seeing; fraction of full scale.
    x, y : ndarray of float64, shape (stars,)
        Star positions in pixels; the centre of the first pixel is (0, 0).
    flux : ndarray of float64, shape (channels, stars)
        Light of each star summed over its pixels.
    psf : str
        ``moffat`` (beta 3) or ``gaussian``.
    """

    extended: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    psf: str = "moffat"

    def render(self, fwhm: float = 2.5) -> np.ndarray:
        """The scene with stars of this width.

        Parameters
        ----------
        fwhm : float
            Full width at half maximum of the stars, in pixels.

        Returns
        -------
        ndarray of float64, shape (channels, height, width)
            Signal above the sky, fraction of full scale, not clipped.
        """
        image = self.extended.copy()
        # The wings of a star are drawn until they sink into the noise; that is farther out for bright ones.
        total = self.flux.max(axis=0)
        for faintest, brightest, radius in ((0.0, 0.05, 3.0), (0.05, 1.0, 6.0), (1.0, np.inf, 16.0)):
            chosen = (total >= faintest) & (total < brightest)
            self._add_stars(image, chosen, fwhm, int(np.ceil(radius * fwhm)))
        return image

    def _add_stars(self, image: np.ndarray, chosen: np.ndarray, fwhm: float, radius: int) -> None:
        _, height, width = image.shape
        column, row = np.rint(self.x[chosen]).astype(int), np.rint(self.y[chosen]).astype(int)
        reach = np.arange(-radius, radius + 1)
        dx = column[:, None] + reach - self.x[chosen][:, None]
        dy = row[:, None] + reach - self.y[chosen][:, None]
        stamps = _psf(self.psf, dx[:, None, :] ** 2 + dy[:, :, None] ** 2, fwhm)
        for stamp, left, top, flux in zip(
            stamps, column - radius, row - radius, self.flux[:, chosen].T, strict=True
        ):
            rows = slice(max(top, 0), min(top + reach.size, height))
            columns = slice(max(left, 0), min(left + reach.size, width))
            if rows.start < rows.stop and columns.start < columns.stop:
                inside = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
                image[:, rows, columns] += flux[:, None, None] * inside


def _psf(kind: str, squared_radius: np.ndarray, fwhm: float) -> np.ndarray:
    """Light per pixel of a star of flux 1 at this distance from its centre."""
    if kind == "gaussian":
        variance = (fwhm / FWHM_PER_SIGMA) ** 2
        return np.exp(-0.5 * squared_radius / variance) / (2 * np.pi * variance)
    if kind != "moffat":
        raise ValueError(f"psf: got {kind!r}, expected 'moffat' or 'gaussian'")
    core = (0.5 * fwhm) ** 2 / (2 ** (1 / MOFFAT_BETA) - 1)
    return (MOFFAT_BETA - 1) / (np.pi * core) * (1 + squared_radius / core) ** -MOFFAT_BETA


def make_scene(
    kind: str = "galaxy",
    height: int = 224,
    width: int = 300,
    channels: int = 3,
    seed: int = 1,
    *,
    psf: str = "moffat",
    fwhm: float = 2.5,
) -> Scene:
    """A believable piece of sky.

    Parameters
    ----------
    kind : str
        ``galaxy``: a face-on spiral behind field stars; ``globular``: a globular cluster; ``field``: stars only.
    height, width, channels : int
        Shape of the images; 1 channel is the luminance of the three.
    seed : int
        The same seed gives the same sky.
    psf : str
        ``moffat`` or ``gaussian``.
    fwhm : float
        Seeing of the extended parts, in pixels.

    Returns
    -------
    Scene
        Its `Scene.render` gives the expected signal above the sky.
    """
    makers = {"galaxy": _galaxy, "globular": _globular, "field": _empty}
    if kind not in makers:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(makers)}")
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels}, expected 1 (mono) or 3 (colour)")
    rng = np.random.default_rng([seed, 0])
    extended, members = makers[kind](rng, height, width)
    extended = ndimage.gaussian_filter(extended, (0, *[fwhm / FWHM_PER_SIGMA] * 2))
    stars = np.concatenate([_field_stars(rng, height, width), members], axis=1)
    x, y, flux = stars[0], stars[1], stars[2:]
    if channels == 1:
        extended, flux = extended.mean(axis=0, keepdims=True), flux.mean(axis=0, keepdims=True)
    return Scene(extended, x, y, flux, psf)


def _coloured(x: np.ndarray, y: np.ndarray, flux: np.ndarray, colour_index: np.ndarray) -> np.ndarray:
    """Stars as rows x, y, red, green, blue; a star of B-V 0.65, like the sun, is white."""
    excess = np.clip(colour_index, -0.3, 1.9) - 0.65
    return np.stack([x, y, flux * 10 ** (0.2 * excess), flux, flux * 10 ** (-0.32 * excess)])


def _field_stars(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Stars of the Milky Way: many faint ones, a few bright ones."""
    count = rng.poisson(height * width / 300)
    flux = np.minimum(0.006 * rng.pareto(0.75, count) + 0.004, 9.0)
    colour = rng.normal(0.75, 0.45, count)
    return _coloured(rng.uniform(-8, width + 8, count), rng.uniform(-8, height + 8, count), flux, colour)


def _empty(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((3, height, width)), np.zeros((5, 0))


def _galaxy(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A face-on spiral: warm bulge and disk, blue logarithmic arms, dust on their inner side, HII regions."""
    unit = min(height, width)
    scale_length = 0.125 * unit
    angle, inclination = np.radians(35), np.radians(20)
    yy, xx = np.mgrid[:height, :width].astype(float)
    dx, dy = xx - 0.49 * width, yy - 0.51 * height
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / np.cos(inclination)
    radius, theta = np.hypot(along, across), np.arctan2(across, along)
    r = radius / scale_length

    winding = np.log(np.maximum(r, 0.05)) / np.tan(np.radians(24))
    phase = theta - winding + 0.22 * _clouds(rng, height, width, 0.09 * unit)
    ridge = np.exp(3.0 * (np.cos(2 * phase) - 1)) + 0.45 * np.exp(5.0 * (np.cos(3 * phase + 1.1) - 1)) * (
        r > 0
    )
    begin = 1 / (1 + np.exp(-(r - 0.55) / 0.12))
    texture = np.exp(0.45 * _clouds(rng, height, width, 0.012 * unit))
    texture *= np.exp(0.35 * _clouds(rng, height, width, 0.035 * unit))

    bulge = 0.20 * np.exp(-((r / 0.085) ** 0.75)) + 0.03 * np.exp(-((r / 0.35) ** 1.2))
    disk = 0.022 * np.exp(-r)
    arms = 0.040 * np.exp(-r / 1.35) * begin * ridge * texture
    dust = 0.55 * begin * np.exp(4.0 * (np.cos(2 * (phase + 0.42)) - 1)) * np.exp(-r / 4)
    knots = _knots(rng, arms * (1 + r), unit)

    warm, old, young = (1.12, 1.0, 0.74), (1.08, 1.0, 0.80), (0.74, 0.94, 1.22)
    reddening = (0.75, 1.0, 1.3)
    return (
        np.stack(
            [
                (warm[c] * bulge + old[c] * disk + young[c] * arms) * np.exp(-reddening[c] * dust) + knots[c]
                for c in range(3)
            ]
        ),
        np.zeros((5, 0)),
    )


def _clouds(rng: np.random.Generator, height: int, width: int, size: float) -> np.ndarray:
    """Smooth noise of standard deviation 1 with structures of this size in pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal((height, width)), max(size, 0.7), mode="wrap")
    return noise / noise.std()


def _knots(rng: np.random.Generator, density: np.ndarray, unit: int) -> np.ndarray:
    """Pink HII regions and blue star clouds, more of them where `density` is high."""
    height, width = density.shape
    image = np.zeros((3, height, width))
    count = 130
    where = rng.choice(density.size, count, p=density.ravel() / density.sum())
    peak = np.minimum(0.0022 * (1 + rng.pareto(1.6, count)), 0.03)
    pink = rng.random(count) < 0.55
    size = rng.uniform(0.3, 1.6, count) * unit / 224
    for colour, chosen in (((1.25, 0.62, 0.80), pink), ((0.68, 0.95, 1.25), ~pink)):
        for broad in (size < 0.9, size >= 0.9):
            # Two widths are enough variety, and two filters are cheaper than a hundred.
            points = np.zeros(density.size)
            np.add.at(points, where[chosen & broad], peak[chosen & broad])
            sigma = float(np.mean(size[broad]))
            spots = ndimage.gaussian_filter(points.reshape(height, width), sigma) * 2 * np.pi * sigma**2
            image += np.array(colour)[:, None, None] * spots
    return image


def _globular(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A globular cluster: a King profile of single stars on the glow of those too faint to be seen."""
    unit = min(height, width)
    core, tidal = 0.055 * unit, 0.62 * unit
    yy, xx = np.mgrid[:height, :width].astype(float)
    cx, cy = 0.5 * width, 0.5 * height

    def king(radius: np.ndarray) -> np.ndarray:
        edge = 1 / np.sqrt(1 + (tidal / core) ** 2)
        return np.maximum(1 / np.sqrt(1 + (radius / core) ** 2) - edge, 0) ** 2

    glow = 0.055 * king(np.hypot(xx - cx, yy - cy))
    extended = np.array([1.04, 1.0, 0.86])[:, None, None] * glow

    count = 1500
    radii = np.linspace(0, tidal, 2000)
    inside = np.cumsum(king(radii) * radii)
    radius = np.interp(rng.random(count), inside / inside[-1], radii)
    theta = rng.uniform(0, 2 * np.pi, count)
    flux = np.minimum(0.010 * rng.pareto(1.15, count) + 0.004, 0.9)
    # Bright members are orange giants, some of the middle ones lie on the blue horizontal branch.
    colour = np.where(flux > 0.12, 1.35, np.where(rng.random(count) < 0.25, 0.0, 0.75))
    colour = colour + rng.normal(0, 0.12, count)
    return extended, _coloured(cx + radius * np.cos(theta), cy + radius * np.sin(theta), flux, colour)


# --- the night ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trail:
    """A satellite that crossed during one exposure.

    Attributes
    ----------
    frame : int
        Index of the frame.
    start, end : tuple of float
        (x, y) in pixels where the trail begins and ends; outside the frame where it crosses the whole of it.
    peak : float
        Brightness of the ridge, in sigma of the sky noise of that frame (mean over the channels).
    fwhm : float
        Width in pixels.
    """

    frame: int
    start: tuple[float, float]
    end: tuple[float, float]
    peak: float
    fwhm: float = 2.5

    def profile(self, height: int, width: int) -> np.ndarray:
        """Brightness relative to the peak, shape (height, width)."""
        yy, xx = np.mgrid[:height, :width].astype(float)
        (x0, y0), (x1, y1) = self.start, self.end
        length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2
        place = np.clip(((xx - x0) * (x1 - x0) + (yy - y0) * (y1 - y0)) / length2, 0, 1)
        distance2 = (xx - x0 - place * (x1 - x0)) ** 2 + (yy - y0 - place * (y1 - y0)) ** 2
        return np.exp(-0.5 * distance2 * (FWHM_PER_SIGMA / self.fwhm) ** 2)


@dataclass(frozen=True)
class Session:
    """The night and the equipment, as they are told in the headers; `extra` holds further cards."""

    object_name: str = "Simulated"
    camera: str = "Simulated camera"
    telescope: str = "Simulated telescope"
    filter: str = ""
    exposure: float = 180.0
    start: str = "2021-08-15T21:10:00"
    cadence: float = 183.0
    extra: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    def header(self, index: int) -> dict[str, tuple[Any, str]]:
        """Cards of one frame: name -> (value, comment)."""
        begin = datetime.fromisoformat(self.start) + timedelta(seconds=index * self.cadence)
        end = begin + timedelta(seconds=self.exposure)
        cards = {
            "IMAGETYP": ("Light Frame", "Type of image"),
            "OBJECT": (self.object_name, "Target"),
            "DATE-OBS": (begin.isoformat(timespec="milliseconds"), "UTC at the start of the exposure"),
            "DATE-END": (end.isoformat(timespec="milliseconds"), "UTC at the end of the exposure"),
            "EXPTIME": (float(self.exposure), "[s] Exposure time"),
            "INSTRUME": (self.camera, "Camera"),
            "TELESCOP": (self.telescope, "Telescope"),
        }
        if self.filter:
            cards["FILTER"] = (self.filter, "Filter")
        return cards | dict(self.extra)


@dataclass(frozen=True)
class Simulation:
    """Frames of one night together with everything that went into them.

    Attributes
    ----------
    frames : ndarray of float32, shape (count, channels, height, width)
        Registered frames in [0, 1]; exactly 0 where a frame has no data.
    truth : ndarray of float32, shape (channels, height, width)
        Expected value of the reference frame without noise and defects: what a perfect integration gives.
    outliers, nodata : ndarray of bool, shape (count, channels, height, width)
        Pixels hit by a defect of more than 0.5 sigma; pixels outside the registered frame.
    sky : ndarray of float64, shape (count, channels)
        Mean sky level.
    transparency : ndarray of float64, shape (count,)
        Signal of the scene relative to the reference frame.
    fwhm : ndarray of float64, shape (count,)
        Width of the stars in pixels.
    shifts : ndarray of int, shape (count, 2)
        Rows and columns by which registration moved each frame (down and right are positive).
    gradient : ndarray of float64, shape (height, width)
        Relative departure of the sky from its mean level.
    reference : int
        Index of the frame that `truth` describes.
    cloudy : tuple of int
        Frames taken through cloud.
    trails : tuple of Trail
        The satellite trails.
    full_well, read_noise : float
        Electrons at full scale, and electrons of read noise.
    scene : Scene
        The sky itself.
    headers : list of dict
        FITS cards of each frame: name -> (value, comment).
    """

    frames: np.ndarray
    truth: np.ndarray
    outliers: np.ndarray
    nodata: np.ndarray
    sky: np.ndarray
    transparency: np.ndarray
    fwhm: np.ndarray
    shifts: np.ndarray
    gradient: np.ndarray
    reference: int
    cloudy: tuple[int, ...]
    trails: tuple[Trail, ...]
    full_well: float
    read_noise: float
    scene: Scene
    headers: list[dict[str, tuple[Any, str]]]

    @property
    def gain(self) -> float:
        """Electrons per ADU of a 16-bit file."""
        return self.full_well / 65535

    def expected(self, index: int) -> np.ndarray:
        """Frame `index` without noise, defects and borders: float64, shape (channels, height, width)."""
        light = self.transparency[index] * self.scene.render(self.fwhm[index])
        return np.minimum(self.sky[index][:, None, None] * (1 + self.gradient) + light, 1.0)

    def sigma(self, index: int) -> np.ndarray:
        """Standard deviation of the noise of frame `index`, defects left out; shape as `expected`."""
        return _noise_sigma(self.expected(index), self.full_well, self.read_noise)

    def save(
        self,
        folder: str | Path,
        format: str = "xisf",
        dtype: str = "u16",
        name_pattern: str = "{object}_Light_{number:04d}_c_d_r",
        *,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write the registered light frames.

        Parameters
        ----------
        folder : str or Path
            Where to; made when it is missing.
        format : str
            ``xisf`` or ``fits``.
        dtype : str
            ``u16`` (full scale 65535) or ``f32`` (full scale 1).
        name_pattern : str
            File name without suffix; knows ``{object}`` and ``{number}``, which counts from 1.
        overwrite : bool
            Replace files of the same names.

        Returns
        -------
        list of Path
            The files, in the order of the frames.
        """
        if format not in ("xisf", "fits") or dtype not in ("u16", "f32"):
            raise ValueError(f"got {format!r}, {dtype!r}; expected 'xisf' or 'fits', and 'u16' or 'f32'")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write = _write_xisf if format == "xisf" else _write_fits
        paths = []
        for index, header in enumerate(self.headers):
            name = name_pattern.format(object=header["OBJECT"][0], number=index + 1)
            path = folder / f"{name}.{format}"
            if overwrite:
                path.unlink(missing_ok=True)
            image = quantised(self.frames[index]) if dtype == "u16" else self.frames[index]
            write(path, image, header)
            paths.append(path)
        return paths


def quantised(image: np.ndarray) -> np.ndarray:
    """Samples in [0, 1] as 16-bit numbers; only samples without data become 0."""
    return np.rint(image * np.float32(65535)).astype(np.uint16)


def _noise_sigma(expected: np.ndarray, full_well: float, read_noise: float) -> np.ndarray:
    return np.sqrt(np.maximum(expected, 0) * full_well + read_noise**2) / full_well


def simulate_frames(
    count: int = 20,
    height: int = 224,
    width: int = 300,
    channels: int = 3,
    kind: str = "galaxy",
    seed: int = 1,
    *,
    sky: float | Sequence[float] = 0.05,
    gradient: float = 0.10,
    sky_drift: float = 0.30,
    extinction: float = 0.15,
    full_well: float = 16000.0,
    read_noise: float = 2.0,
    fwhm: float = 2.5,
    fwhm_spread: float = 0.06,
    psf: str = "moffat",
    cosmic_rays: float = 12.0,
    hot_pixels: int = 40,
    trails: int | Sequence[Trail] = 2,
    cloudy: int | Sequence[int] = 1,
    dither: int = 6,
    session: Session | None = None,
    clean: bool = False,
) -> Simulation:
    """A night of registered light frames.

    Scene, night, noise and defects are drawn from streams of their own: a run without defects has the same
    noise as one with them.

    Parameters
    ----------
    count, height, width, channels : int
        Number and shape of the frames.
    kind : str
        ``galaxy``, ``globular`` or ``field``.
    seed : int
        The same seed and parameters give the same pixels.
    sky : float or sequence of float
        Sky level of the first frame, fraction of full scale, for all channels or for each.
    gradient : float
        Rise of the sky from one side of the frame to the other, fraction of its level.
    sky_drift, extinction : float
        Rise of the sky and loss of light from the first frame to the last, as fractions.
    full_well, read_noise : float
        Electrons at full scale, and electrons of read noise.
    fwhm, fwhm_spread : float
        Width of the stars in pixels, and its relative standard deviation from frame to frame.
    psf : str
        ``moffat`` or ``gaussian``.
    cosmic_rays : float
        Mean number of cosmic rays in a frame.
    hot_pixels : int
        Pixels of the sensor that the dark frame did not correct (a quarter of them came out too dark).
    trails : int or sequence of Trail
        Satellite trails: how many (bright and faint ones in turn), or which.
    cloudy : int or sequence of int
        Frames taken through cloud: how many, or their indices.
    dither : int
        Frames are moved by up to this many pixels in each direction; registration leaves a border without data.
    session : Session, optional
        What the headers tell.
    clean : bool
        No defects, no dither, no gradient, and every frame under the same sky: only the noise differs.

    Returns
    -------
    Simulation
        The frames, the truth, the masks and the headers.
    """
    if clean:
        gradient = sky_drift = extinction = fwhm_spread = 0.0
        cosmic_rays, hot_pixels, trails, cloudy, dither = 0.0, 0, 0, 0, 0
    night, defects_rng, noise_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2, 3))
    clouds = _choose_frames(defects_rng, cloudy, count)
    if not isinstance(trails, int):
        trails = tuple(trails)
    else:
        trails = _choose_trails(defects_rng, trails, count, height, width)
    jitter = 0.0 if clean else 0.01
    sky_levels, transparency, widths = _conditions(
        night, count, clouds, (sky_drift, extinction, jitter, fwhm * fwhm_spread), fwhm
    )
    reference = int(np.argmax(transparency**2 / sky_levels))
    shifts = night.integers(-dither, dither + 1, (count, 2))
    # The other frames are registered onto the reference, so it has no border.
    shifts[reference] = 0
    session = session or Session()

    simulation = Simulation(
        frames=np.empty((count, channels, height, width), np.float32),
        truth=np.empty((channels, height, width), np.float32),
        outliers=np.zeros((count, channels, height, width), bool),
        nodata=np.zeros((count, channels, height, width), bool),
        sky=sky_levels[:, None] * np.broadcast_to(np.asarray(sky, float), (channels,)),
        transparency=transparency / transparency[reference],
        fwhm=widths,
        shifts=shifts,
        gradient=gradient * _tilt(height, width),
        reference=reference,
        cloudy=clouds,
        trails=trails,
        full_well=full_well,
        read_noise=read_noise,
        scene=make_scene(kind, height, width, channels, seed, psf=psf, fwhm=fwhm),
        headers=[session.header(index) for index in range(count)],
    )
    sensor = _sensor_defects(defects_rng, hot_pixels, channels, height, width)
    simulation.truth[:] = simulation.expected(reference)
    for index in range(count):
        _expose(simulation, index, noise_rng, defects_rng, sensor, cosmic_rays)
    return simulation


def _choose_frames(rng: np.random.Generator, wanted: int | Sequence[int], count: int) -> tuple[int, ...]:
    if isinstance(wanted, int):
        wanted = sorted(rng.choice(count, wanted, replace=False))
    return tuple(int(index) for index in wanted)


def _choose_trails(
    rng: np.random.Generator, wanted: int, count: int, height: int, width: int
) -> tuple[Trail, ...]:
    trails = []
    for number in range(wanted):
        middle = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height])
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (height + width)
        peak = (45.0, 4.0)[number % 2]
        trails.append(Trail(int(rng.integers(count)), tuple(middle - reach), tuple(middle + reach), peak))
    return tuple(trails)


def _conditions(
    rng: np.random.Generator,
    count: int,
    cloudy: tuple[int, ...],
    amounts: tuple[float, float, float, float],
    fwhm: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative sky level, relative transparency and FWHM of each frame, as the target sinks to the west."""
    sky_drift, extinction, jitter, fwhm_sd = amounts
    progress = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    sky = 1 + sky_drift * progress**1.5 + jitter * rng.standard_normal(count)
    transparency = 1 - extinction * progress**1.3 + jitter * rng.standard_normal(count)
    widths = fwhm + fwhm_sd * rng.standard_normal(count).clip(-2, 2.5)
    for index in cloudy:
        # Cloud dims the stars and throws back the light of the town.
        sky[index] *= 1.8
        transparency[index] *= 0.5
        widths[index] *= 1.12
    return sky, transparency, widths


def _tilt(height: int, width: int) -> np.ndarray:
    """A slightly bent plane of mean 0 that rises by 1 from the upper right to the lower left."""
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)
    plane = 0.6 * y - 0.4 * x + 0.25 * (y - x) ** 2
    return plane - plane.mean()


def _expose(
    simulation: Simulation,
    index: int,
    noise_rng: np.random.Generator,
    defects_rng: np.random.Generator,
    sensor: tuple[np.ndarray, ...],
    cosmic_rays: float,
) -> None:
    """Fill in frame `index` and its masks."""
    expected = simulation.expected(index)
    well, read_noise = simulation.full_well, simulation.read_noise
    sigma = _noise_sigma(expected, well, read_noise)
    sky_sigma = _noise_sigma(simulation.sky[index], well, read_noise).mean()
    deposit = np.zeros(expected.shape)
    _add_sensor_defects(deposit, sensor, simulation.shifts[index], sky_sigma)
    for _ in range(defects_rng.poisson(cosmic_rays)):
        _add_cosmic_ray(deposit, defects_rng, sky_sigma)
    for trail in simulation.trails:
        if trail.frame == index:
            deposit += trail.peak * sky_sigma * trail.profile(*expected.shape[1:])
    # Deposited light has shot noise of its own.
    noise = noise_rng.standard_normal(expected.shape)
    noise *= _noise_sigma(expected + np.maximum(deposit, 0), well, read_noise)
    nodata = simulation.nodata[index]
    nodata[:] = _border(*expected.shape[1:], *simulation.shifts[index])
    frame = np.clip(expected + deposit + noise, FAINTEST, 1.0)
    simulation.frames[index] = np.where(nodata, 0, frame)
    simulation.outliers[index] = (np.abs(deposit) > OUTLIER_SIGMA * sigma) & ~nodata


def _border(height: int, width: int, down: int, right: int) -> np.ndarray:
    """Where a frame that was moved by (down, right) has no data."""
    rows, columns = np.arange(height)[:, None] - down, np.arange(width) - right
    return (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)


def _tint(rng: np.random.Generator, channels: int, size: int) -> np.ndarray:
    """Shares of the channels, (size, channels): a hit pixel of a colour sensor lies under one filter."""
    if channels == 1:
        return np.ones((size, 1))
    shares = rng.uniform(0.05, 0.25, (size, channels))
    shares[np.arange(size), rng.integers(channels, size=size)] = 1.0
    return shares


def _sensor_defects(
    rng: np.random.Generator, count: int, channels: int, height: int, width: int
) -> tuple[np.ndarray, ...]:
    """Rows, columns, and amplitude in sky sigma for each channel, of pixels that calibration left over."""
    amplitude = 4.0 + rng.exponential(9.0, count)
    amplitude[rng.random(count) < 0.25] *= -0.6
    amplitudes = amplitude[:, None] * _tint(rng, channels, count)
    return rng.integers(height, size=count), rng.integers(width, size=count), amplitudes


def _add_sensor_defects(
    deposit: np.ndarray, sensor: tuple[np.ndarray, ...], shift: np.ndarray, sky_sigma: float
) -> None:
    """The sensor stands still while the sky moves, so in registered frames its defects walk with the dither."""
    rows, columns, amplitudes = sensor[0] + shift[0], sensor[1] + shift[1], sensor[2]
    inside = (rows >= 0) & (rows < deposit.shape[1]) & (columns >= 0) & (columns < deposit.shape[2])
    where = (slice(None), rows[inside], columns[inside])
    np.add.at(deposit, where, sky_sigma * amplitudes[inside].T)


def _add_cosmic_ray(deposit: np.ndarray, rng: np.random.Generator, sky_sigma: float) -> None:
    """One point or short track; two of five are tracks."""
    channels, height, width = deposit.shape
    length = rng.uniform(2.5, 10.0) if rng.random() < 0.4 else 0.0
    angle = rng.uniform(0, 2 * np.pi)
    steps = np.arange(0, length + 0.25, 0.25)
    y = np.rint(rng.uniform(0, height - 1) + steps * np.sin(angle)).astype(int)
    x = np.rint(rng.uniform(0, width - 1) + steps * np.cos(angle)).astype(int)
    strength = sky_sigma * min(8.0 * (1 + rng.pareto(1.1)), 250.0)
    energy = strength * (0.25 if length else 1.0) * np.linspace(1.0, 0.5, steps.size)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    tint = _tint(rng, channels, 1)[0]
    np.add.at(deposit, (slice(None), y[inside], x[inside]), tint[:, None] * energy[inside])


# --- files --------------------------------------------------------------------------------------------------


def _write_fits(path: Path, image: np.ndarray, cards: Mapping[str, tuple[Any, str]]) -> None:
    header = fits.Header([(name, *card) for name, card in cards.items()])
    header["ROWORDER"] = ("TOP-DOWN", "The first row is the top of the image")
    fits.PrimaryHDU(image[0] if image.shape[0] == 1 else image, header).writeto(path)


#: FITS keyword -> PixInsight property.
PROPERTIES = {
    "OBJECT": "Observation:Object:Name",
    "DATE-OBS": "Observation:Time:Start",
    "DATE-END": "Observation:Time:End",
    "INSTRUME": "Instrument:Camera:Name",
    "TELESCOP": "Instrument:Telescope:Name",
    "EXPTIME": "Instrument:ExposureTime",
    "FILTER": "Instrument:Filter:Name",
    "CCD-TEMP": "Instrument:Sensor:Temperature",
}


def _write_xisf(path: Path, image: np.ndarray, cards: Mapping[str, tuple[Any, str]]) -> None:
    from stacklib.formats.xisf import write_image

    keywords = [(name, *card) for name, card in cards.items()]
    properties = {PROPERTIES[name]: card[0] for name, card in cards.items() if name in PROPERTIES}
    write_image(
        path, image, image_id=cards["OBJECT"][0], image_type="Light", keywords=keywords, properties=properties
    )


# --- sample data and benchmarks -----------------------------------------------------------------------------


def sample_m101() -> Simulation:
    """Twenty colour frames of M101: two trails across, one that ends in the frame, one cloudy frame."""
    session = Session(
        object_name="M101",
        camera="ZWO ASI294MC Pro",
        telescope="Newtonian 200/800",
        exposure=180.0,
        start="2021-08-15T21:10:00",
        cadence=185.0,
        extra=SIMULATED
        | {
            "GAIN": (120, "Camera gain setting"),
            "CCD-TEMP": (-10.0, "[degC] Sensor temperature"),
            "EGAIN": (round(16000 / 65535, 4), "[e-/ADU] Electrons per 16-bit unit"),
            "RDNOISE": (2.0, "[e-] Read noise"),
        },
    )
    return simulate_frames(
        20,
        224,
        300,
        3,
        "galaxy",
        seed=101,
        sky=(0.055, 0.050, 0.036),
        trails=(
            Trail(6, (-20.0, 52.0), (320.0, 128.0), peak=45.0, fwhm=3.0),
            Trail(12, (40.0, 240.0), (215.0, -20.0), peak=4.0, fwhm=3.0),
            Trail(9, (310.0, 150.0), (182.0, 203.0), peak=15.0, fwhm=2.5),
        ),
        cloudy=(16,),
        dither=8,
        session=session,
    )


def sample_m13() -> Simulation:
    """Twelve mono frames of M13 through a luminance filter: one bright trail, one cloudy frame."""
    session = Session(
        object_name="M13",
        camera="QSI 583ws",
        telescope="Refractor 130/910",
        filter="L",
        exposure=60.0,
        start="2021-08-15T20:05:00",
        cadence=68.0,
        extra=SIMULATED
        | {
            "CCD-TEMP": (-15.0, "[degC] Sensor temperature"),
            "EGAIN": (0.5, "[e-/ADU] Electrons per 16-bit unit"),
            "RDNOISE": (8.0, "[e-] Read noise"),
        },
    )
    return simulate_frames(
        12,
        256,
        320,
        1,
        "globular",
        seed=13,
        sky=0.025,
        full_well=0.5 * 65535,
        read_noise=8.0,
        fwhm=2.3,
        cosmic_rays=9.0,
        hot_pixels=30,
        trails=(Trail(4, (60.0, -20.0), (300.0, 280.0), peak=30.0, fwhm=2.6),),
        cloudy=(9,),
        dither=5,
        session=session,
    )


#: A card that keeps made-up frames from being taken for real ones.
SIMULATED = {"ORIGIN": ("stacklib.simulate", "Simulated frame, not a photograph")}


def make_sample_data(folder: str | Path = "sample_data") -> list[Path]:
    """Write both sample sets, in place of those that are there.

    Parameters
    ----------
    folder : str or Path
        Gets ``M101/4_Registered`` (XISF) and ``M13/4_Registered`` (FITS).

    Returns
    -------
    list of Path
        All files.
    """
    folder = Path(folder)
    return [
        *sample_m101().save(
            folder / "M101" / "4_Registered",
            name_pattern="{object}_Light_180s_{number:04d}_c_d_r",
            overwrite=True,
        ),
        *sample_m13().save(
            folder / "M13" / "4_Registered",
            format="fits",
            name_pattern="{object}_L_060s_{number:03d}_c_d_r",
            overwrite=True,
        ),
    ]


def make_benchmark_frames(
    folder: str | Path,
    count: int = 40,
    height: int = 1500,
    width: int = 2000,
    channels: int = 1,
    seed: int = 1,
    dtype: str = "f32",
) -> list[Path]:
    """Write large frames quickly: a star field with cosmic rays under a changing sky, without borders.

    Parameters
    ----------
    folder : str or Path
        Where to; made when it is missing, files of the same names are replaced.
    count, height, width, channels : int
        Number and shape of the frames.
    seed : int
        The same seed gives the same pixels.
    dtype : str
        ``f32`` (full scale 1) or ``u16`` (full scale 65535).

    Returns
    -------
    list of Path
        ``frame_0001.fits`` and so on.
    """
    if dtype not in ("u16", "f32"):
        raise ValueError(f"dtype: got {dtype!r}, expected 'u16' or 'f32'")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scene = make_scene("field", height, width, channels, seed).render().astype(np.float32)
    sky, transparency, _ = _conditions(
        np.random.default_rng([seed, 1]), count, (), (0.30, 0.15, 0.01, 0.0), 2.5
    )
    session = Session(object_name="Benchmark", exposure=60.0, cadence=65.0, extra=SIMULATED)
    full_well, read_noise = np.float32(16000), np.float32(2)

    def write(index: int) -> Path:
        # A stream for each frame: the pixels do not depend on the order in which threads come by.
        rng = np.random.default_rng([seed, 4, index])
        expected = np.float32(0.05 * sky[index]) + np.float32(transparency[index]) * scene
        deposit_sigma = float(_noise_sigma(np.float64(0.05 * sky[index]), full_well, read_noise))
        for _ in range(rng.poisson(12 + height * width / 50_000)):
            _add_cosmic_ray(expected, rng, deposit_sigma)
        noise = rng.standard_normal(expected.shape, np.float32)
        noise *= np.sqrt(expected * full_well + read_noise**2) / full_well
        frame = np.clip(expected + noise, np.float32(FAINTEST), np.float32(1))
        path = folder / f"frame_{index + 1:04d}.fits"
        path.unlink(missing_ok=True)
        _write_fits(path, quantised(frame) if dtype == "u16" else frame, session.header(index))
        return path

    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(write, range(count)))


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m stacklib.simulate FOLDER``: make the sample data again."""
    parser = argparse.ArgumentParser(prog="python -m stacklib.simulate", description="Make the sample data.")
    parser.add_argument("folder", nargs="?", default="sample_data", help="folder of the sample data")
    paths = make_sample_data(parser.parse_args(arguments).folder)
    print(f"{len(paths)} frames, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
