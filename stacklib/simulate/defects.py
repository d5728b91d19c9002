"""Defects of a simulated frame: satellite trails, cosmic rays and bad pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stacklib.simulate.scene import FWHM_PER_SIGMA

__all__ = ["Trail", "add_cosmic_ray", "add_sensor_defects", "choose_trails", "sensor_defects"]


@dataclass(frozen=True)
class Trail:
    """A satellite trail in one frame.

    Attributes
    ----------
    frame : int
        Index of the frame.
    start, end : tuple of float
        End points (x, y) in pixels. Outside the frame if the trail crosses it completely.
    peak : float
        Peak brightness in sigma of the sky noise of the frame (mean over the channels).
    fwhm : float
        Width in pixels.
    """

    frame: int
    start: tuple[float, float]
    end: tuple[float, float]
    peak: float
    fwhm: float = 2.5

    def profile(self, height: int, width: int) -> np.ndarray:
        """Return the brightness relative to the peak, shape (height, width)."""
        yy, xx = np.mgrid[:height, :width].astype(float)
        (x0, y0), (x1, y1) = self.start, self.end
        length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2
        place = np.clip(((xx - x0) * (x1 - x0) + (yy - y0) * (y1 - y0)) / length2, 0, 1)
        distance2 = (xx - x0 - place * (x1 - x0)) ** 2 + (yy - y0 - place * (y1 - y0)) ** 2
        return np.exp(-0.5 * distance2 * (FWHM_PER_SIGMA / self.fwhm) ** 2)


def choose_trails(
    rng: np.random.Generator, wanted: int, count: int, height: int, width: int
) -> tuple[Trail, ...]:
    """Choose trails across the whole frame, alternating bright and faint, on different frames if possible."""
    frames = rng.permutation(count)
    trails = []
    for number in range(wanted):
        x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        angle = rng.uniform(0, np.pi)
        dx, dy = (height + width) * np.cos(angle), (height + width) * np.sin(angle)
        peak = (45.0, 4.0)[number % 2]
        trails.append(Trail(int(frames[number % count]), (x - dx, y - dy), (x + dx, y + dy), peak))
    return tuple(trails)


def _tint(rng: np.random.Generator, channels: int, size: int) -> np.ndarray:
    """Return channel shares, shape (size, channels). A pixel of a color sensor has a single filter."""
    if channels == 1:
        return np.ones((size, 1))
    shares = rng.uniform(0.05, 0.25, (size, channels))
    shares[np.arange(size), rng.integers(channels, size=size)] = 1.0
    return shares


def sensor_defects(
    rng: np.random.Generator, count: int, channels: int, height: int, width: int
) -> tuple[np.ndarray, ...]:
    """Return rows, columns and amplitudes (sky sigma, per channel) of bad pixels left by calibration."""
    amplitude = 4.0 + rng.exponential(9.0, count)
    amplitude[rng.random(count) < 0.25] *= -0.6
    amplitudes = amplitude[:, None] * _tint(rng, channels, count)
    return rng.integers(height, size=count), rng.integers(width, size=count), amplitudes


def add_sensor_defects(
    deposit: np.ndarray, sensor: tuple[np.ndarray, ...], shift: np.ndarray, sky_sigma: float
) -> None:
    """Add the bad pixels to a frame, moved by its dither: registration aligns the sky, not the sensor."""
    rows, columns, amplitudes = sensor[0] + shift[0], sensor[1] + shift[1], sensor[2]
    inside = (rows >= 0) & (rows < deposit.shape[1]) & (columns >= 0) & (columns < deposit.shape[2])
    where = (slice(None), rows[inside], columns[inside])
    np.add.at(deposit, where, sky_sigma * amplitudes[inside].T)


def add_cosmic_ray(deposit: np.ndarray, rng: np.random.Generator, sky_sigma: float) -> None:
    """Add a cosmic ray, a point or (40 % of them) a short track."""
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
