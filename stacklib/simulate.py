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

from stacklib.scene import FWHM_PER_SIGMA, Scene, make_scene

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
    """The night and the equipment, as they are told in the headers.

    Exposure and cadence are in seconds, `start` is UTC; `cards` holds further ones, name -> (value, comment).
    """

    object_name: str = "Simulated"
    camera: str = "Simulated camera"
    telescope: str = "Simulated telescope"
    filter: str = ""
    exposure: float = 180.0
    start: str = "2021-08-15T21:10:00"
    cadence: float = 183.0
    cards: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

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
            # Made-up frames must not be taken for real ones.
            "ORIGIN": ("stacklib.simulate", "Simulated frame, not a photograph"),
        }
        if self.filter:
            cards["FILTER"] = (self.filter, "Filter")
        return cards | dict(self.cards)


@dataclass(frozen=True)
class Simulation:
    """Frames of one night together with everything that went into them.

    Attributes
    ----------
    frames : ndarray of float32, shape (count, channels, height, width)
        Registered frames in [0, 1]; exactly 0 where a frame has no data.
    truth : ndarray of float32, shape (channels, height, width)
        Expected value of the reference frame without noise and defects: what a perfect integration gives.
    defects : ndarray of float32, shape (count, channels, height, width)
        Light added by cosmic rays and trails, and what bad pixels left over (that may be negative).
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
    defects: np.ndarray
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
    gradient: float = 0.08,
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
        Frames are moved by up to this many pixels each way; registration leaves a border without data.
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
    sky_levels, transparency = _weather(night, count, sky_drift, extinction, 0.0 if clean else 0.01)
    widths = fwhm * (1 + fwhm_spread * night.standard_normal(count).clip(-2, 2.5))
    for index in clouds:
        # Cloud dims the stars and throws back the light of the town.
        sky_levels[index] *= 1.8
        transparency[index] *= 0.5
        widths[index] *= 1.12
    reference = int(np.argmax(transparency**2 / sky_levels))
    shifts = night.integers(-dither, dither + 1, (count, 2))
    # The other frames are registered onto the reference, so it has no border.
    shifts[reference] = 0
    session = session or Session()
    camera = {
        "EGAIN": (round(full_well / 65535, 5), "[e-/ADU] Electrons per 16-bit unit"),
        "RDNOISE": (read_noise, "[e-] Read noise"),
    }

    shape = (count, channels, height, width)
    simulation = Simulation(
        frames=np.empty(shape, np.float32),
        defects=np.zeros(shape, np.float32),
        truth=np.empty(shape[1:], np.float32),
        outliers=np.zeros(shape, bool),
        nodata=np.zeros(shape, bool),
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
        headers=[session.header(index) | camera for index in range(count)],
    )
    sensor = _sensor_defects(defects_rng, hot_pixels, channels, height, width)
    simulation.truth[:] = simulation.expected(reference)
    for index in range(count):
        simulation.nodata[index] = _border(height, width, *shifts[index])
        _strike(simulation, index, defects_rng, sensor, cosmic_rays)
        _expose(simulation, index, noise_rng)
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


def _weather(
    rng: np.random.Generator, count: int, sky_drift: float, extinction: float, jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Relative sky level and transparency of each frame, as the target sinks in the west."""
    progress = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    sky = 1 + sky_drift * progress**1.5 + jitter * rng.standard_normal(count)
    return sky, 1 - extinction * progress**1.3 + jitter * rng.standard_normal(count)


def _tilt(height: int, width: int) -> np.ndarray:
    """A slightly bent plane of mean 0 that rises by 1 from the upper right to the lower left."""
    y, x = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)
    plane = 0.6 * y - 0.4 * x + 0.25 * (y - x) ** 2
    return plane - plane.mean()


def _strike(
    simulation: Simulation,
    index: int,
    rng: np.random.Generator,
    sensor: tuple[np.ndarray, ...],
    cosmic_rays: float,
) -> None:
    """Draw the defects of frame `index`."""
    sky_sigma = _noise_sigma(simulation.sky[index], simulation.full_well, simulation.read_noise).mean()
    defects = np.zeros(simulation.truth.shape)
    _add_sensor_defects(defects, sensor, simulation.shifts[index], sky_sigma)
    for _ in range(rng.poisson(cosmic_rays)):
        _add_cosmic_ray(defects, rng, sky_sigma)
    for trail in simulation.trails:
        if trail.frame == index:
            defects += trail.peak * sky_sigma * trail.profile(*defects.shape[1:])
    simulation.defects[index] = np.where(simulation.nodata[index], 0, defects)


def _expose(simulation: Simulation, index: int, rng: np.random.Generator) -> None:
    """Fill in frame `index` and its mask of outliers."""
    expected, defects = simulation.expected(index), simulation.defects[index]
    well, read_noise = simulation.full_well, simulation.read_noise
    # Deposited light has shot noise of its own.
    noise = _noise_sigma(expected + np.maximum(defects, 0), well, read_noise)
    noise *= rng.standard_normal(expected.shape)
    frame = np.clip(expected + defects + noise, FAINTEST, 1.0)
    simulation.frames[index] = np.where(simulation.nodata[index], 0, frame)
    simulation.outliers[index] = np.abs(defects) > OUTLIER_SIGMA * _noise_sigma(expected, well, read_noise)


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
    """Sensor defects walk with the dither: registration moves the sensor to hold the sky still."""
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
    cards = {"GAIN": (120, "Camera gain setting"), "CCD-TEMP": (-10.0, "[degC] Sensor temperature")}
    trails = (
        Trail(6, (-20.0, 52.0), (320.0, 128.0), peak=45.0, fwhm=3.0),
        Trail(9, (310.0, 150.0), (182.0, 203.0), peak=15.0, fwhm=2.5),
        Trail(12, (40.0, 240.0), (215.0, -20.0), peak=4.0, fwhm=3.0),
    )
    night = Session(
        "M101", "ZWO ASI294MC Pro", "Newtonian 200/800", "", 180.0, "2021-08-15T21:10:00", 185.0, cards
    )
    return simulate_frames(
        seed=8, sky=(0.055, 0.050, 0.036), trails=trails, cloudy=(16,), dither=8, session=night
    )


def sample_m13() -> Simulation:
    """Twelve mono frames of M13 through a luminance filter: one bright trail, one cloudy frame."""
    cards = {"CCD-TEMP": (-15.0, "[degC] Sensor temperature")}
    night = Session("M13", "QSI 583ws", "Refractor 130/910", "L", 60.0, "2021-08-15T20:05:00", 68.0, cards)
    return simulate_frames(
        12,
        256,
        320,
        1,
        "globular",
        seed=13,
        sky=0.025,
        full_well=32000.0,
        read_noise=8.0,
        fwhm=2.3,
        cosmic_rays=9.0,
        hot_pixels=30,
        trails=(Trail(4, (60.0, -20.0), (300.0, 280.0), peak=30.0, fwhm=2.6),),
        cloudy=(9,),
        dither=5,
        session=night,
    )


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
    sky, transparency = _weather(np.random.default_rng([seed, 1]), count, 0.30, 0.15, 0.01)
    session = Session(object_name="Benchmark", exposure=60.0, cadence=65.0)
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
