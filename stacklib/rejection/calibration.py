"""Numbers that make a test with a few samples mean what it says, found by simulation.

``benchmarks/calibrate.py`` makes both tables.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy

from stacklib.measurement.cache.sets import kept_for_settings

__all__ = ["critical_values", "median_deviation_factors", "typical_variance"]

#: Limits in sigma for which the test levels of `calibrated_sigma` are known.
SIGMAS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
#: Logarithm of the level of each test over the rate of false rejections that it leads to, by number of
#: samples: several tests are made at a pixel, and samples that were not taken out agree too well.
LEVELS = {
    3: (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    4: (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    5: (-0.864, -0.908, -0.926, -0.924, -0.928, -0.886),
    6: (-0.768, -0.813, -0.817, -0.805, -0.812, -0.810),
    7: (-0.700, -0.739, -0.729, -0.718, -0.722, -0.690),
    8: (-1.161, -1.174, -1.144, -1.104, -1.110, -1.100),
    9: (-1.077, -1.077, -1.016, -0.945, -0.886, -0.788),
    10: (-1.380, -1.352, -1.267, -1.164, -1.126, -1.072),
    11: (-1.295, -1.248, -1.131, -0.999, -0.930, -0.842),
    12: (-1.226, -1.162, -1.025, -0.882, -0.782, -0.834),
    13: (-1.432, -1.333, -1.159, -0.979, -0.825, -0.814),
    14: (-1.364, -1.249, -1.056, -0.865, -0.683, -0.406),
    15: (-1.516, -1.372, -1.154, -0.937, -0.750, -0.599),
    16: (-1.455, -1.298, -1.050, -0.802, -0.607, -0.482),
    17: (-1.402, -1.231, -0.972, -0.722, -0.559, -0.447),
    18: (-1.512, -1.313, -1.029, -0.745, -0.549, -0.300),
    19: (-1.464, -1.254, -0.955, -0.670, -0.437, -0.255),
    20: (-1.554, -1.313, -0.991, -0.675, -0.399, -0.193),
    22: (-1.467, -1.215, -0.880, -0.558, -0.336, -0.200),
    24: (-1.499, -1.215, -0.852, -0.497, -0.301, -0.131),
    26: (-1.521, -1.212, -0.826, -0.475, -0.267, -0.163),
    28: (-1.534, -1.202, -0.786, -0.423, -0.216, -0.119),
    30: (-1.542, -1.186, -0.763, -0.392, -0.140, -0.061),
    35: (-1.526, -1.133, -0.683, -0.317, -0.129, -0.020),
    40: (-1.508, -1.083, -0.614, -0.275, -0.083, -0.013),
    50: (-1.475, -1.008, -0.529, -0.230, -0.084, -0.072),
    60: (-1.441, -0.947, -0.477, -0.200, -0.089, -0.061),
    80: (-1.394, -0.870, -0.433, -0.175, -0.051, 0.000),
    100: (-1.352, -0.821, -0.408, -0.177, -0.075, -0.045),
    150: (-1.287, -0.762, -0.378, -0.154, -0.055, -0.005),
    200: (-1.248, -0.734, -0.369, -0.148, -0.056, 0.000),
    300: (-1.203, -0.716, -0.363, -0.149, -0.064, -0.116),
    500: (-1.167, -0.706, -0.350, -0.129, -0.026, -0.031),
}

#: Factors between the squared median absolute deviation of 2, 3 ... 12 Gaussian samples from their median
#: (of an even number the larger one in the middle) and their variance, and relative errors of the product.
FACTORS = (2.0, 2.8889, 1.565, 2.4267, 1.6631, 2.3168, 1.7493, 2.2757, 1.8175, 2.2536, 1.8706)
ERRORS = (1.4142, 1.5891, 1.1153, 1.1463, 0.9221, 0.9419, 0.8059, 0.8175, 0.7236, 0.7343, 0.6632)
#: Median absolute deviation of many Gaussian samples of sigma 1.
QUARTILE = 0.67448975


@lru_cache(maxsize=256)
def critical_values(sigma_low: float, sigma_high: float, frames: int) -> np.ndarray:
    """Return the critical values of `stacklib.rejection.outlier_tests.calibrated_sigma`.

    The rate of false rejections per sample is that of a Gaussian beyond so many sigma on both sides.

    Parameters
    ----------
    sigma_low, sigma_high : float
        Limits in sigma. They hold from 1.5 sigma on.
    frames : int
        Largest number of samples.

    Returns
    -------
    ndarray of float64, shape (2 (frames + 1), tests)
        By number of samples, for the low side and then for the high side, and by number of samples taken out
        before. ``t^2 (1 + 1 / m) / (m - 1)`` for the distance from the mean of the m others, where t is a
        quantile of Student's t with m - 1 degrees of freedom.
    """
    n = np.arange(frames + 1)
    known = np.array(list(LEVELS))
    tests = max(1, 2 * frames // 5)
    values = np.full((2, frames + 1, tests), np.inf)
    others = n[:, np.newaxis] - 1 - np.arange(tests)
    tested = others >= 2
    for side, sigma in enumerate((sigma_low, sigma_high)):
        shifts = [np.interp(sigma, SIGMAS, row) for row in LEVELS.values()]
        level = scipy.special.log_ndtr(-sigma) + np.interp(
            1 / np.maximum(n, 1), 1 / known[::-1], shifts[::-1]
        )
        levels = np.broadcast_to(np.exp(level)[:, np.newaxis], others.shape)[tested]
        m = others[tested].astype(np.float64)
        values[side][tested] = scipy.special.stdtrit(m - 1, levels) ** 2 * (1 + 1 / m) / (m - 1)
    table = values.reshape(2 * (frames + 1), tests)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=64)
def median_deviation_factors(noise: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return what makes a squared median absolute deviation the variance of a frame of noise 1.

    Parameters
    ----------
    noise : tuple of float
        Relative noise of the frames.

    Returns
    -------
    factors, errors : ndarray of float64, shape (frames + 1,)
        The factor by number of samples, and the relative standard error of the variance.
    """
    n = np.maximum(np.arange(len(noise) + 1), 1).astype(np.float64)
    factors = np.where(n % 2, 1 + 0.22 / n, 1 / (1 + 2.15 / n)) / QUARTILE**2
    errors = np.sqrt(5.4 / n)
    few = min(len(FACTORS), len(noise) - 1)
    factors[2 : 2 + few], errors[2 : 2 + few] = FACTORS[:few], ERRORS[:few]
    return factors / typical_variance(noise), errors


@lru_cache(maxsize=64)
def typical_variance(noise: tuple[float, ...]) -> float:
    """Return the variance of a Gaussian whose samples lie as far from 0, in the median, as those of frames.

    Parameters
    ----------
    noise : tuple of float
        Standard deviations of the frames.

    Returns
    -------
    float
        Their variance if they are equal.
    """
    sigma = np.array(noise)
    if np.ptp(sigma) == 0:
        return float(sigma[0] ** 2)

    def find() -> float:
        # Half of the samples of a mixture lie within its quartile.
        return scipy.optimize.brentq(
            lambda q: np.mean(scipy.special.erf(q / sigma / np.sqrt(2))) - 0.5,
            0.1 * sigma.min(),
            2 * sigma.max(),
        )

    # Kept, because scipy.optimize takes longer to import than a small set to integrate.
    within = kept_for_settings(("quartile", sigma), lambda: np.array(find()))
    return float((within / QUARTILE) ** 2)
