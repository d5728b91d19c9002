"""Simulate the tables of `stacklib.rejection.calibration`, and print them.

Run ``python benchmarks/calibrate.py``; it takes about ten minutes.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from stacklib.rejection.calibration import SIGMAS

COUNTS = (*range(5, 21), 22, 24, 26, 28, 30, 35, 40, 50, 60, 80, 100, 150, 200, 300, 500)
SAMPLES, REPEATS, SEED = 3_000_000, 3, 20261129


def log_levels(x: np.ndarray) -> np.ndarray:
    """Return the logarithm of the one-sided level of each test of `calibrated_sigma`.

    `x` are sorted samples, (pixels, n). The most deviating one is compared with the others and taken out.
    """
    pixels, n = x.shape
    every = np.arange(pixels)
    low, high = np.zeros(pixels, int), np.full(pixels, n)
    first, second = x.sum(axis=1), (x * x).sum(axis=1)
    levels = np.empty((pixels, max(min(2 * n // 5, n - 3), 1)), np.float32)
    for i in range(levels.shape[1]):
        dark, bright, mean = x[every, low], x[every, high - 1], first / (n - i)
        upper = bright - mean >= mean - dark
        value = np.where(upper, bright, dark)
        first, second, m = first - value, second - value * value, n - i - 1
        variance = np.maximum(second - first * first / m, 1e-300) / (m - 1)
        t = np.abs(value - first / m) / np.sqrt(variance * (1 + 1 / m))
        levels[:, i] = np.log(special.stdtr(m - 1, -t))
        high, low = high - upper, low + ~upper
    return levels


def main() -> None:
    rng = np.random.default_rng(SEED)
    print("LEVELS: samples, log of level over rate for", *SIGMAS, "sigma")
    for n in COUNTS:
        found, samples = [], 0
        for _ in range(REPEATS):
            levels = log_levels(np.sort(rng.standard_normal((SAMPLES // n, n)), axis=1))
            samples += SAMPLES // n * n
            # Sample i is rejected if it or one taken out later is significant.
            found.append(np.minimum.accumulate(levels[:, ::-1], axis=1).ravel())
        ordered = np.sort(np.concatenate(found))
        rates = special.ndtr(-np.array(SIGMAS))
        print(n, *(f"{ordered[int(2 * rate * samples)] - np.log(rate):.3f}" for rate in rates), flush=True)
    print("FACTORS and ERRORS: samples, factor, error")
    for n in range(2, 13):
        x = np.sort(rng.standard_normal((SAMPLES // n, n)), axis=1)
        middle = 0.5 * (x[:, (n - 1) // 2] + x[:, n // 2])
        squares = np.partition(np.abs(x - middle[:, np.newaxis]), n // 2, axis=1)[:, n // 2] ** 2
        print(n, f"{1 / squares.mean():.4f} {squares.std() / squares.mean():.4f}", flush=True)


if __name__ == "__main__":
    main()
