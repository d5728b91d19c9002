"""Simulate registered light frames with known truth and known outliers.

Used for the lessons, the sample data, the tests and the benchmarks. In units of full scale, a frame is::

    expected[i] = sky[i] * (1 + gradient) + transparency[i] * scene(fwhm[i])
    frame[i]    = expected[i] + defects[i] + noise[i]
    sigma[i]    = sqrt(expected[i] * full_well + read_noise**2) / full_well

There are two simplifications. Dithers are whole pixels and color frames are not debayered, so the noise is
white; resampling of real frames correlates the noise of neighboring pixels. And the shot noise is Gaussian,
which is indistinguishable from Poisson noise at the hundreds of electrons of a real sky.

`simulate_frames` keeps a night in memory. `simulate_night` computes its frames when they are asked for, and
more of it changes: clouds, a moving gradient, seeing, noise, exposures and gains. Its frames may be resampled
as registration does. `simulate_dithered` makes unregistered frames, color mosaics among them.

``python -m stacklib.simulate sample_data`` regenerates the sample data.
"""

from stacklib.simulate.changing_night import ChangingNight, simulate_night
from stacklib.simulate.defects import Trail
from stacklib.simulate.mosaic_samples import (
    large_mosaics,
    make_large_mosaics,
    mosaic_sample,
    sample_mosaics,
)
from stacklib.simulate.mosaics import DitheredNight, simulate_dithered
from stacklib.simulate.night import Session, Simulation, simulate_frames
from stacklib.simulate.samples import (
    large_night,
    make_benchmark_frames,
    make_large_night,
    make_sample_data,
    sample_m13,
    sample_m63,
    sample_m101,
)
from stacklib.simulate.scene import Scene, make_scene
from stacklib.simulate.targets import KINDS

__all__ = [
    "KINDS",
    "ChangingNight",
    "DitheredNight",
    "Scene",
    "Session",
    "Simulation",
    "Trail",
    "large_mosaics",
    "large_night",
    "make_benchmark_frames",
    "make_large_mosaics",
    "make_large_night",
    "make_sample_data",
    "make_scene",
    "mosaic_sample",
    "sample_m13",
    "sample_m63",
    "sample_m101",
    "sample_mosaics",
    "simulate_dithered",
    "simulate_frames",
    "simulate_night",
]
