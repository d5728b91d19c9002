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

from stacklib.simulate.defects import Trail
from stacklib.simulate.night import Session, Simulation, simulate_frames
from stacklib.simulate.samples import make_benchmark_frames, make_sample_data, sample_m13, sample_m101
from stacklib.simulate.scene import Scene, make_scene

__all__ = [
    "Scene",
    "Session",
    "Simulation",
    "Trail",
    "make_benchmark_frames",
    "make_sample_data",
    "make_scene",
    "sample_m13",
    "sample_m101",
    "simulate_frames",
]
