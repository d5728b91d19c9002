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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
