"""Simulate one night of registered light frames: sky, weather, noise, dither and headers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from astropy.io import fits

from stacklib.formats.xisf import write_image
from stacklib.simulate.defects import Trail, add_cosmic_ray, add_sensor_defects, choose_trails, sensor_defects
from stacklib.simulate.scene import Scene, make_scene

__all__ = ["Session", "Simulation", "simulate_frames"]

#: Smallest value of a sample with data. 0 is reserved for the border without data.
FAINTEST = 1 / 65535
#: Smallest defect that counts as an outlier, in sigma of its pixel.
OUTLIER_SIGMA = 0.5


@dataclass(frozen=True)
class Session:
    """Night and equipment, for the headers.

    Attributes
    ----------
    object_name, camera, telescope, filter : str
        Names for the headers.
    exposure, cadence : float
        Exposure time and time between two starts, in seconds.
    start : str
        Start of the first frame, UTC.
    cards : dict of str to tuple
        Additional header cards, name -> (value, comment).
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
        """Return the header cards of one frame, name -> (value, comment)."""
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
            # Simulated frames must not be mistaken for real ones.
            "ORIGIN": ("stacklib.simulate", "Simulated frame, not a photograph"),
        }
        if self.filter:
            cards["FILTER"] = (self.filter, "Filter")
        return cards | dict(self.cards)


class SavedNight(ABC):
    """Writes the frames of a simulated night."""

    #: Sample format of the files.
    _usual_dtype: ClassVar[str] = "u16"
    headers: list[dict[str, tuple[Any, str]]]

    @abstractmethod
    def frame(self, index: int) -> np.ndarray:
        """Return one registered frame, float32 (channels, height, width)."""

    def save(
        self,
        folder: str | Path,
        format: str = "xisf",
        dtype: str | None = None,
        name_pattern: str = "{object}_Light_{number:04d}_c_d_r",
        *,
        overwrite: bool = False,
        compress: bool = False,
    ) -> list[Path]:
        """Write the registered light frames, without keeping them in memory.

        Parameters
        ----------
        folder : str or Path
            Output folder, created if needed.
        format : {"xisf", "fits"}
            File format.
        dtype : {"u16", "f32"}, optional
            Sample format, with a full scale of 65535 or 1. Default is u16 for `Simulation`, f32 for
            `ChangingNight`.
        name_pattern : str
            File name without suffix, with the fields ``{object}`` and ``{number}`` (counting from 1).
        overwrite : bool
            Replace existing files.
        compress : bool
            Compress XISF files without loss.

        Returns
        -------
        list of Path
            The files, in the order of the frames.

        Raises
        ------
        ValueError
            If `format` or `dtype` is unknown.
        """
        dtype = dtype or self._usual_dtype
        paths = file_names(folder, self.headers, name_pattern, format, dtype)

        def write(index: int) -> None:
            write_frame(paths[index], self.frame(index), self.headers[index], dtype, overwrite, compress)

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(write, range(len(paths))))
        return paths


@dataclass(frozen=True)
class Simulation(SavedNight):
    """Simulated frames of one night with all their ingredients.

    Attributes
    ----------
    frames : ndarray of float32, shape (count, channels, height, width)
        Registered frames in the range 0 to 1. Exactly 0 where a frame has no data.
    truth : ndarray of float32, shape (channels, height, width)
        Reference frame without noise and defects, the result of a perfect integration.
    defects : ndarray of float32, shape (count, channels, height, width)
        Contribution of cosmic rays, trails and bad pixels. Bad pixels may be negative.
    outliers : ndarray of bool, shape (count, channels, height, width)
        Pixels with a defect of more than 0.5 sigma.
    nodata : ndarray of bool, shape (count, channels, height, width)
        Pixels outside the registered frame.
    sky : ndarray of float64, shape (count, channels)
        Mean sky level.
    transparency : ndarray of float64, shape (count,)
        Signal of the scene relative to the reference frame.
    fwhm : ndarray of float64, shape (count,)
        FWHM of the stars in pixels.
    shifts : ndarray of int, shape (count, 2)
        Rows and columns by which registration moved each frame. Down and right are positive.
    gradient : ndarray of float64, shape (height, width)
        Relative deviation of the sky from its mean level.
    reference : int
        Index of the reference frame.
    cloudy : tuple of int
        Indices of frames with clouds.
    trails : tuple of Trail
        Satellite trails.
    full_well, read_noise : float
        Full scale and read noise in electrons.
    scene : Scene
        The scene above the sky background.
    headers : list of dict
        FITS cards of each frame, name -> (value, comment).
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
        """Gain in electrons per ADU of a 16-bit file."""
        return self.full_well / 65535

    def expected(self, index: int) -> np.ndarray:
        """Return a frame without noise, defects and border, float64, shape (channels, height, width)."""
        light = self.transparency[index] * self.scene.render(self.fwhm[index])
        return np.minimum(self.sky[index][:, None, None] * (1 + self.gradient) + light, 1.0)

    def sigma(self, index: int) -> np.ndarray:
        """Return the standard deviation of the noise of a frame without defects, shape as `expected`."""
        return noise_sigma(self.expected(index), self.full_well, self.read_noise)

    def frame(self, index: int) -> np.ndarray:
        """Return one registered frame, float32 (channels, height, width). Exactly 0 without data."""
        return self.frames[index]


def file_names(
    folder: str | Path,
    headers: Sequence[Mapping[str, tuple[Any, str]]],
    name_pattern: str,
    format: str,
    dtype: str,
) -> list[Path]:
    """Return the file of each frame, check format and sample format, and create the folder."""
    if format not in ("xisf", "fits"):
        raise ValueError(f"format: got {format!r}, expected 'xisf' or 'fits'")
    if dtype not in ("u16", "f32"):
        raise ValueError(f"dtype: got {dtype!r}, expected 'u16' or 'f32'")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        name_pattern.format(object=header["OBJECT"][0], number=number)
        for number, header in enumerate(headers, start=1)
    )
    return [folder / f"{name}.{format}" for name in names]


def write_frame(
    path: Path,
    image: np.ndarray,
    header: Mapping[str, tuple[Any, str]],
    dtype: str,
    overwrite: bool,
    compress: bool = False,
) -> None:
    """Write one frame in the format of its suffix. XISF files may be compressed."""
    if overwrite:
        path.unlink(missing_ok=True)
    samples = quantised(image) if dtype == "u16" else image
    if path.suffix == ".fits":
        write_fits(path, samples, header)
    else:
        _write_xisf(path, samples, header, compress)


def quantised(image: np.ndarray) -> np.ndarray:
    """Convert samples from 0 to 1 to 16-bit integers. Only samples without data become 0."""
    return np.rint(image.astype(np.float64) * 65535).astype(np.uint16)


def noise_sigma(expected: np.ndarray, full_well: float | np.ndarray, read_noise: float) -> np.ndarray:
    """Return the standard deviation of shot noise and read noise, as a fraction of full scale."""
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
    """Simulate one night of registered light frames.

    Scene, weather, noise and defects use separate random streams, so a run without defects has the same
    noise as a run with defects.

    Parameters
    ----------
    count, height, width, channels : int
        Number and shape of the frames. One or three channels.
    kind : {"galaxy", "globular", "field"}
        Target: a spiral galaxy, a globular cluster, or stars only.
    seed : int
        Random seed. The same seed and parameters give the same pixels.
    sky : float or sequence of float
        Sky level of the first frame as a fraction of full scale, one for all channels or one per channel.
    gradient : float
        Increase of the sky across the frame, as a fraction of its level.
    sky_drift, extinction : float
        Increase of the sky and loss of signal from the first frame to the last, as fractions.
    full_well, read_noise : float
        Full scale and read noise in electrons.
    fwhm, fwhm_spread : float
        FWHM of the stars in pixels, and its relative standard deviation between frames.
    psf : {"moffat", "gaussian"}
        Star profile.
    cosmic_rays : float
        Mean number of cosmic rays per frame.
    hot_pixels : int
        Number of bad pixels left by calibration. A quarter of them are too dark.
    trails : int or sequence of Trail
        Number of satellite trails (alternating bright and faint), or the trails.
    cloudy : int or sequence of int
        Number of frames with clouds, or their indices.
    dither : int
        Maximum dither in pixels along each axis. Registration leaves a border without data.
    session : Session, optional
        Night and equipment, for the headers.
    clean : bool
        Simulate without defects, dither and gradient, and with a constant sky. Frames differ only in noise.

    Returns
    -------
    Simulation
        Frames, truth, masks and headers.

    Raises
    ------
    ValueError
        If `kind`, `psf` or the number of channels is unknown.

    Examples
    --------
    >>> night = simulate_frames(8, 64, 80, 1, clean=True)
    >>> night.frames.shape
    (8, 1, 64, 80)
    """
    if clean:
        gradient = sky_drift = extinction = fwhm_spread = 0.0
        cosmic_rays, hot_pixels, trails, cloudy, dither = 0.0, 0, 0, 0, 0
    night, defects_rng, noise_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2, 3))
    clouds = _choose_frames(defects_rng, cloudy, count)
    if isinstance(trails, int | np.integer):
        trails = choose_trails(defects_rng, int(trails), count, height, width)
    sky_levels, transparency = weather(night, count, sky_drift, extinction, 0.0 if clean else 0.01)
    widths = fwhm * (1 + fwhm_spread * night.standard_normal(count).clip(-2, 2.5))
    for index in clouds:
        # Clouds dim the stars and reflect city light.
        sky_levels[index] *= 1.8
        transparency[index] *= 0.5
        widths[index] *= 1.12
    reference = int(np.argmax(transparency**2 / sky_levels))
    shifts = night.integers(-dither, dither + 1, (count, 2))
    # The other frames are registered to the reference, so it has no border.
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
        trails=tuple(trails),
        full_well=full_well,
        read_noise=read_noise,
        scene=make_scene(kind, height, width, channels, seed, psf=psf, fwhm=fwhm),
        headers=[session.header(index) | camera for index in range(count)],
    )
    sensor = sensor_defects(defects_rng, hot_pixels, channels, height, width)
    simulation.truth[:] = simulation.expected(reference)
    for index in range(count):
        simulation.nodata[index] = border(height, width, *shifts[index])
        _strike(simulation, index, defects_rng, sensor, cosmic_rays)
        _expose(simulation, index, noise_rng)
    return simulation


def _choose_frames(rng: np.random.Generator, wanted: int | Sequence[int], count: int) -> tuple[int, ...]:
    if isinstance(wanted, int | np.integer):
        wanted = sorted(rng.choice(count, wanted, replace=False))
    return tuple(int(index) for index in wanted)


def weather(
    rng: np.random.Generator, count: int, sky_drift: float, extinction: float, jitter: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative sky level and transparency of each frame as the target sets."""
    progress = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    sky = 1 + sky_drift * progress**1.5 + jitter * rng.standard_normal(count)
    return sky, 1 - extinction * progress**1.3 + jitter * rng.standard_normal(count)


def _tilt(height: int, width: int) -> np.ndarray:
    """Return a slightly curved plane of mean 0 that rises by 1 from the upper right to the lower left."""
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
    """Draw the defects of a frame."""
    sky_sigma = noise_sigma(simulation.sky[index], simulation.full_well, simulation.read_noise).mean()
    defects = np.zeros(simulation.truth.shape)
    add_sensor_defects(defects, sensor, simulation.shifts[index], sky_sigma)
    for _ in range(rng.poisson(cosmic_rays)):
        add_cosmic_ray(defects, rng, sky_sigma)
    for trail in simulation.trails:
        if trail.frame == index:
            defects += trail.peak * sky_sigma * trail.profile(*simulation.gradient.shape)
    simulation.defects[index] = np.where(simulation.nodata[index], 0, defects)


def _expose(simulation: Simulation, index: int, rng: np.random.Generator) -> None:
    """Compute a frame and its outlier mask."""
    expected, defects = simulation.expected(index), simulation.defects[index]
    well, read_noise = simulation.full_well, simulation.read_noise
    # The light of a defect has shot noise too.
    noise = noise_sigma(expected + np.maximum(defects, 0), well, read_noise)
    noise *= rng.standard_normal(expected.shape)
    frame = np.clip(expected + defects + noise, FAINTEST, 1.0)
    simulation.frames[index] = np.where(simulation.nodata[index], 0, frame)
    simulation.outliers[index] = np.abs(defects) > OUTLIER_SIGMA * noise_sigma(expected, well, read_noise)


def border(height: int, width: int, down: int, right: int) -> np.ndarray:
    """Return where a frame moved by (down, right) has no data."""
    rows, columns = np.arange(height)[:, None] - down, np.arange(width) - right
    return (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)


def write_fits(path: Path, image: np.ndarray, cards: Mapping[str, tuple[Any, str]]) -> None:
    """Write a simulated frame as FITS, 16-bit integers included."""
    header = fits.Header([(name, *card) for name, card in cards.items()])
    header["ROWORDER"] = ("TOP-DOWN", "The first row is the top of the image")
    fits.PrimaryHDU(image[0] if image.shape[0] == 1 else image, header).writeto(path)


#: XISF properties of FITS keywords.
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


def _write_xisf(path: Path, image: np.ndarray, cards: Mapping[str, tuple[Any, str]], compress: bool) -> None:
    keywords = [(name, *card) for name, card in cards.items()]
    properties = {PROPERTIES[name]: card[0] for name, card in cards.items() if name in PROPERTIES}
    for name in ("Observation:Time:Start", "Observation:Time:End"):
        properties[name] = ("TimePoint", properties[name] + "Z")
    image_id = cards["OBJECT"][0]
    write_image(
        path,
        image,
        image_id=image_id,
        image_type="Light",
        keywords=keywords,
        properties=properties,
        compress=compress,
    )
