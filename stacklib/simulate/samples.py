"""Simulated sample data, and large frames to try things on and for benchmarks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from stacklib.errors import SaveError
from stacklib.simulate.changing_night import ChangingNight, simulate_night
from stacklib.simulate.defects import Trail, add_cosmic_ray
from stacklib.simulate.night import (
    FAINTEST,
    Session,
    Simulation,
    noise_sigma,
    quantised,
    simulate_frames,
    weather,
    write_fits,
)
from stacklib.simulate.scene import make_scene

__all__ = [
    "large_night",
    "make_benchmark_frames",
    "make_large_night",
    "make_sample_data",
    "new_truth",
    "sample_m13",
    "sample_m63",
    "sample_m101",
]

#: Text beside the truth of a large night.
TRUTH = """\
The truth of the frames in 4_Registered. They are simulated.

truth.fits   the reference frame without noise and outliers
night.ecsv   one row for each frame: transparency (light relative to the reference), sky, FWHM of the stars in
             pixels, factor on the noise, shift by registration in pixels, and coefficients of the background

With x and y from -0.5 to 0.5 across the longer side, measured from the center, the background of a frame is

    sky + a x + b y + c (x^2 - mean of x^2) + d x y + e (y^2 - mean of y^2)

Everything else, such as masks of all outliers, is in the night itself:

    from stacklib.simulate import large_night
    night = large_night({call})
"""


def sample_m101() -> Simulation:
    """Simulate 20 color frames of M101: two trails across, one that ends in the frame, one cloudy frame."""
    cards = {"GAIN": (120, "Camera gain setting"), "CCD-TEMP": (-10.0, "[degC] Sensor temperature")}
    trails = (
        Trail(6, (-20.0, 52.0), (320.0, 128.0), peak=45.0, fwhm=3.0),
        Trail(9, (310.0, 150.0), (182.0, 203.0), peak=15.0, fwhm=2.5),
        Trail(12, (40.0, 240.0), (215.0, -20.0), peak=4.0, fwhm=3.0),
    )
    night = Session(
        object_name="M101",
        camera="ZWO ASI294MC Pro",
        telescope="Newtonian 200/800",
        filter="",
        exposure=180.0,
        start="2021-08-15T21:10:00",
        cadence=185.0,
        cards=cards,
    )
    return simulate_frames(
        seed=8, sky=(0.055, 0.050, 0.036), trails=trails, cloudy=(16,), dither=8, session=night
    )


def sample_m13() -> Simulation:
    """Simulate 12 mono luminance frames of M13: one bright trail, one cloudy frame."""
    cards = {"CCD-TEMP": (-15.0, "[degC] Sensor temperature")}
    night = Session(
        object_name="M13",
        camera="QSI 583ws",
        telescope="Refractor 130/910",
        filter="L",
        exposure=60.0,
        start="2021-08-15T20:05:00",
        cadence=68.0,
        cards=cards,
    )
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


def sample_m63() -> ChangingNight:
    """Simulate 12 color frames of M63 on a night of clouds, with a moving gradient and changing seeing."""
    cards = {"GAIN": (120, "Camera gain setting"), "CCD-TEMP": (-10.0, "[degC] Sensor temperature")}
    night = Session(
        object_name="M63",
        camera="ZWO ASI294MC Pro",
        telescope="Newtonian 200/800",
        exposure=180.0,
        start="2022-03-05T22:40:00",
        cadence=185.0,
        cards=cards,
    )
    return simulate_night(
        12,
        264,
        352,
        3,
        "spiral",
        seed=84,
        sky=(0.055, 0.050, 0.036),
        registration="lanczos",
        cosmic_rays=14.0,
        hot_pixels=40,
        trails=(Trail(6, (-20.0, 225.0), (372.0, 18.0), peak=25.0, fwhm=2.8),),
        session=night,
    )


def make_sample_data(folder: str | Path = "sample_data") -> list[Path]:
    """Write all sample sets, replacing existing files.

    Parameters
    ----------
    folder : str or Path
        Output folder, for ``M101/4_Registered`` (XISF), ``M13/4_Registered`` (FITS) and ``M63/4_Registered``
        (compressed XISF).

    Returns
    -------
    list of Path
        All files.
    """
    m101, m13, m63 = (Path(folder, target, "4_Registered") for target in ("M101", "M13", "M63"))
    pattern = "{object}_Light_180s_{number:04d}_c_d_r"
    paths = sample_m101().save(m101, name_pattern=pattern, overwrite=True)
    paths += sample_m63().save(m63, "xisf", "u16", pattern, overwrite=True, compress=True)
    pattern = "{object}_L_060s_{number:03d}_c_d_r"
    return paths + sample_m13().save(m13, "fits", name_pattern=pattern, overwrite=True)


def large_night(
    kind: str = "spiral",
    count: int = 20,
    seed: int = 1,
    *,
    height: int = 1500,
    width: int = 2000,
) -> ChangingNight:
    """Simulate a large color night on which everything changes: clouds, gradient, seeing.

    Frames are RGB, resampled by Lanczos. For color mosaics, see `large_mosaics`.

    Parameters
    ----------
    kind : {"galaxy", "spiral", "globular", "nebula", "field"}
        Target, see `make_scene`.
    count : int
        Number of frames.
    seed : int
        Random seed. The same seed gives the same pixels.
    height, width : int
        Size of the frames in pixels.

    Returns
    -------
    ChangingNight
        The night with its whole truth.
    """
    area = height * width
    return simulate_night(
        count,
        height,
        width,
        3,
        kind,
        seed,
        registration="lanczos",
        dither=12.0,
        sky=(0.055, 0.050, 0.036),
        cosmic_rays=area / 30_000,
        hot_pixels=area // 1500,
        trails=2,
        session=Session(object_name=kind.capitalize(), exposure=180.0, cadence=185.0),
    )


def make_large_night(folder: str | Path, night: ChangingNight, call: str = "", format: str = "xisf") -> Path:
    """Write a night of `large_night` with its truth.

    Parameters
    ----------
    folder : str or Path
        Output folder: frames in ``4_Registered`` (16 bit), truth in ``truth``.
    night : ChangingNight
        The night.
    call : str
        Arguments of `large_night` for the text beside the truth.
    format : {"xisf", "fits"}
        Format of the frames.

    Returns
    -------
    Path
        The folder of the frames.

    Raises
    ------
    SaveError
        If `folder` has a ``4_Registered`` already or the disk is too full.
    ValueError
        If `format` is unknown.
    """
    frames = Path(folder, "4_Registered")
    with new_truth(folder, 2 * night.count * float(np.prod(night.shape)), frames) as truth:
        paths = night.save(frames, format, "u16", "{object}_Light_{number:04d}_c_d_r")
        fits.writeto(truth / "truth.fits", night.truth)
        _table(night, paths).write(truth / "night.ecsv")
        (truth / "README.txt").write_text(TRUTH.format(call=call), encoding="utf-8")
    return frames


@contextmanager
def new_truth(folder: str | Path, size: float, *frames: Path) -> Iterator[Path]:
    """Make the folder for the truth of large frames of `size` bytes, which are written meanwhile.

    Parameters
    ----------
    folder : str or Path
        Folder of the night.
    size : float
        Bytes of all frames together.
    *frames : Path
        Folders for the frames, none of which may be there.

    Yields
    ------
    Path
        The folder ``truth``.

    Raises
    ------
    SaveError
        If one of the folders is there already, the disk is too full or cannot be written to.
    """
    truth = Path(folder, "truth")
    if truth.exists() or any(path.exists() for path in frames):
        raise SaveError(f"{folder}: has frames or a truth already; choose another folder")
    try:
        truth.mkdir(parents=True)
        needed = size + 1e8
        if (free := shutil.disk_usage(folder).free) < needed:
            raise SaveError(
                f"{folder}: the night needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; "
                "choose another folder or fewer frames"
            )
        yield truth
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written ({error}); choose another folder") from error


def _table(night: ChangingNight, paths: list[Path]) -> Table:
    """Return the truth of each frame, one row each."""
    columns = {
        "file": [path.name for path in paths],
        "transparency": night.transparency,
        "sky": night.sky,
        "fwhm": night.fwhm,
        "noise": night.noise,
        "shift_down": night.shifts[:, 0],
        "shift_right": night.shifts[:, 1],
    }
    columns |= {name: night.gradient[:, :, number] for number, name in enumerate("abcde")}
    table = Table(columns)
    table.meta["reference"] = paths[night.reference].name
    return table


def make_benchmark_frames(
    folder: str | Path,
    count: int = 40,
    height: int = 1500,
    width: int = 2000,
    channels: int = 1,
    seed: int = 1,
    dtype: str = "f32",
) -> list[Path]:
    """Write large frames quickly: a star field with cosmic rays and a changing sky, without borders.

    Parameters
    ----------
    folder : str or Path
        Output folder, created if needed. Existing files are replaced.
    count, height, width, channels : int
        Number and shape of the frames.
    seed : int
        Random seed. The same seed gives the same pixels.
    dtype : {"f32", "u16"}
        Sample format, with a full scale of 1 or 65535.

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
    sky, transparency = weather(np.random.default_rng([seed, 1]), count, 0.30, 0.15, 0.01)
    session = Session(object_name="Benchmark", exposure=60.0, cadence=65.0)
    full_well, read_noise = np.float32(16000), np.float32(2)

    def write(index: int) -> Path:
        # One random stream per frame, so that the pixels do not depend on the order of the threads.
        rng = np.random.default_rng([seed, 4, index])
        expected = np.float32(0.05 * sky[index]) + np.float32(transparency[index]) * scene
        deposit_sigma = float(noise_sigma(np.float64(0.05 * sky[index]), full_well, read_noise))
        for _ in range(rng.poisson(12 + height * width / 50_000)):
            add_cosmic_ray(expected, rng, deposit_sigma)
        noise = rng.standard_normal(expected.shape, np.float32)
        noise *= np.sqrt(expected * full_well + read_noise**2) / full_well
        frame = np.clip(expected + noise, np.float32(FAINTEST), np.float32(1))
        path = folder / f"frame_{index + 1:04d}.fits"
        path.unlink(missing_ok=True)
        write_fits(path, quantised(frame) if dtype == "u16" else frame, session.header(index))
        return path

    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(write, range(count)))
