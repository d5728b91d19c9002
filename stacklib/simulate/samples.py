"""Simulated sample data, and large frames for benchmarks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

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

__all__ = ["make_benchmark_frames", "make_sample_data", "sample_m13", "sample_m101"]


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


def make_sample_data(folder: str | Path = "sample_data") -> list[Path]:
    """Write both sample sets, replacing existing files.

    Parameters
    ----------
    folder : str or Path
        Output folder, for ``M101/4_Registered`` (XISF) and ``M13/4_Registered`` (FITS).

    Returns
    -------
    list of Path
        All files.
    """
    m101, m13 = (Path(folder, target, "4_Registered") for target in ("M101", "M13"))
    pattern = "{object}_Light_180s_{number:04d}_c_d_r"
    paths = sample_m101().save(m101, name_pattern=pattern, overwrite=True)
    pattern = "{object}_L_060s_{number:03d}_c_d_r"
    return paths + sample_m13().save(m13, "fits", name_pattern=pattern, overwrite=True)


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
