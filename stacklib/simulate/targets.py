"""Targets of a simulated scene: what shines, apart from field stars."""

from __future__ import annotations

import numpy as np

__all__ = ["KINDS", "field_stars"]

#: Gaussians with a larger sigma are computed faster by a Fourier transform.
WIDE = 24.0


def _coloured(x: np.ndarray, y: np.ndarray, flux: np.ndarray, colour_index: np.ndarray) -> np.ndarray:
    """Return stars as rows x, y, red, green, blue. A star with B-V 0.65, like the Sun, is white."""
    excess = np.clip(colour_index, -0.3, 1.9) - 0.65
    return np.stack([x, y, flux * 10 ** (0.2 * excess), flux, flux * 10 ** (-0.32 * excess)])


def field_stars(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Generate field stars, many faint and few bright ones."""
    count = rng.poisson(height * width / 300)
    flux = np.minimum(0.006 * rng.pareto(0.75, count) + 0.004, 9.0)
    colour = rng.normal(0.75, 0.45, count)
    return _coloured(rng.uniform(-8, width + 8, count), rng.uniform(-8, height + 8, count), flux, colour)


def _empty(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((3, height, width)), np.zeros((5, 0))


def _galaxy(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate a face-on spiral: warm bulge and disk, blue logarithmic arms with dust, HII regions."""
    unit = min(height, width)
    scale_length = 0.125 * unit
    angle, inclination = np.radians(35), np.radians(20)
    yy, xx = np.mgrid[:height, :width].astype(float)
    dx, dy = xx - 0.49 * width, yy - 0.51 * height
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / np.cos(inclination)
    radius, theta = np.hypot(along, across), np.arctan2(across, along)
    r = radius / scale_length

    winding = np.log(np.maximum(r, 0.05)) / np.tan(np.radians(21))
    phase = theta - winding + 0.22 * _clouds(rng, height, width, 0.09 * unit)
    narrow = 0.9 + 0.15 * r
    ridge = np.exp(3.0 * narrow * (np.cos(2 * phase) - 1))
    ridge += 0.35 * np.exp(5.0 * narrow * (np.cos(3 * phase + 1.1) - 1)) * np.tanh(r / 2)
    begin = 1 / (1 + np.exp(-(r - 0.55) / 0.12))
    texture = np.exp(0.40 * _clouds(rng, height, width, 0.008 * unit))
    texture *= np.exp(0.35 * _clouds(rng, height, width, 0.025 * unit))

    bulge = 0.15 * np.exp(-((r / 0.085) ** 0.75)) + 0.022 * np.exp(-((r / 0.35) ** 1.2))
    disk = 0.015 * np.exp(-r)
    arms = 0.030 * np.exp(-r / 1.35) * begin * (0.12 + ridge) * texture
    dust = 0.6 * begin * np.exp(5.0 * (np.cos(2 * (phase + 0.40)) - 1)) * np.exp(-r / 4)
    knots = _knots(rng, arms * ridge * (1 + 0.5 * r), unit)
    image = np.empty((3, height, width))
    for channel, (warm, old, young, reddening) in enumerate(
        ((1.14, 1.08, 0.66, 0.75), (1.0, 1.0, 0.93, 1.0), (0.70, 0.78, 1.32, 1.3))
    ):
        stars = warm * bulge + old * disk + young * arms
        image[channel] = stars * np.exp(-reddening * dust) + knots[channel]
    return image, np.zeros((5, 0))


def _clouds(rng: np.random.Generator, height: int, width: int, size: float) -> np.ndarray:
    """Generate smooth noise of standard deviation 1 with structures of a given size in pixels."""
    noise = _blurred(rng.standard_normal((height, width)), max(size, 0.7))
    return noise / noise.std()


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image by a Gaussian that wraps around at the edges."""
    # Here and below, because `KINDS` is wanted without scipy.
    from scipy import ndimage

    if sigma > WIDE:
        waves = ndimage.fourier_gaussian(np.fft.rfft2(image), sigma, n=image.shape[1])
        return np.fft.irfft2(waves, image.shape)
    return ndimage.gaussian_filter(image, sigma, mode="wrap")


def _knots(rng: np.random.Generator, density: np.ndarray, unit: int) -> np.ndarray:
    """Generate pink HII regions and blue star clouds, distributed by `density`."""
    from scipy import ndimage

    height, width = density.shape
    image = np.zeros((3, height, width))
    count = 300
    where = rng.choice(density.size, count, p=density.ravel() / density.sum())
    peak = np.minimum(0.0035 * (1 + rng.pareto(1.1, count)), 0.10)
    pink = rng.random(count) < 0.55
    size = rng.uniform(0.3, 1.6, count)
    for colour, chosen in (((1.35, 0.50, 0.72), pink), ((0.68, 0.95, 1.25), ~pink)):
        for broad in (size < 0.9, size >= 0.9):
            # Two widths look varied enough, and two filters are cheaper than a hundred.
            points = np.zeros(density.size)
            np.add.at(points, where[chosen & broad], peak[chosen & broad])
            sigma = float(np.mean(size[broad])) * unit / 224
            spots = ndimage.gaussian_filter(points.reshape(height, width), sigma) * 2 * np.pi * sigma**2
            image += np.array(colour)[:, None, None] * spots
    return image


def _spiral(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate an inclined spiral: differential rotation has wound up its gas and dust to streaks."""
    from scipy import ndimage

    unit = min(height, width)
    scale_length = 0.15 * unit
    angle, tilt = np.radians(-28), np.cos(np.radians(56))
    yy, xx = np.mgrid[:height, :width].astype(float)
    dx, dy = xx - 0.49 * width, yy - 0.51 * height
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / tilt
    radius, r = np.hypot(along, across), np.hypot(along, across) / scale_length
    wound = np.arctan2(across, along) + np.log(r + 0.12) / np.tan(np.radians(17))

    def texture(x: np.ndarray, y: np.ndarray, broadest: float) -> np.ndarray:
        """Sample turbulence at places in the plane of the galaxy, without structures that are too broad."""
        size = 2 * unit
        values = _turbulence(rng, size, size)
        values = ndimage.map_coordinates(values, [size / 2 + y, size / 2 + x], order=1, mode="wrap")
        values -= _blurred(values, broadest * unit)
        return values / values.std()

    reach = 0.9 * radius + 0.018 * unit
    gas = texture(reach * np.cos(wound), reach * np.sin(wound), 0.08)
    streaks = texture(reach * np.cos(wound), reach * np.sin(wound), 0.06)
    fine = texture(along, across, 0.05)
    arms = 0.5 + 0.5 * np.cos(2 * wound + 0.8 * gas)
    begin = 1 / (1 + np.exp(-(r - 0.45) / 0.12))
    # The bulge is thicker than the disk, so it looks rounder.
    rounder = np.hypot(along, across * tilt / 0.75) / scale_length
    bulge = 0.16 * np.exp(-((rounder / 0.07) ** 0.8)) + 0.03 * np.exp(-((rounder / 0.30) ** 1.1))
    disk = 0.022 * np.exp(-r)
    young = 0.024 * np.exp(-r / 1.25) * begin * (0.15 + arms**2) * np.exp(0.65 * gas + 0.5 * fine - 0.2)
    # On the near side the dust lies before the bulge.
    near = 1 - 0.6 * np.tanh(across / (0.3 * scale_length))
    dust = 0.95 * begin * near * np.exp(-r / 2.6) * (0.35 + arms)
    dust = np.minimum(dust * np.exp(0.9 * streaks + 0.45 * fine - 0.6), 2.5)
    image = np.empty((3, height, width))
    for channel, (warm, old, blue, reddening) in enumerate(
        ((1.15, 1.08, 0.70, 0.75), (1.0, 1.0, 0.92, 1.0), (0.68, 0.80, 1.28, 1.3))
    ):
        image[channel] = (warm * bulge + old * disk + blue * young) * np.exp(-reddening * dust)
    density = young * np.exp(gas + 0.6 * fine) * (r > 0.4)
    return image, _clusters(rng, density, round(500 * unit / 300))


def _clusters(rng: np.random.Generator, density: np.ndarray, count: int) -> np.ndarray:
    """Generate pink HII regions and blue clusters, too small to be resolved, distributed by `density`."""
    where = rng.choice(density.size, count, p=density.ravel() / density.sum())
    y, x = np.divmod(where, density.shape[1])
    flux = np.minimum(0.016 * (1 + rng.pareto(1.2, count)), 0.45)
    pink = rng.random(count) < 0.45
    colour = np.where(pink, [[1.5], [0.45], [0.75]], [[0.70], [0.92], [1.35]])
    beside = rng.uniform(-0.5, 0.5, (2, count))
    return np.stack([x + beside[0], y + beside[1], *(colour * flux)])


def _globular(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate a globular cluster: stars with a King profile on the glow of unresolved ones."""
    unit = min(height, width)
    core, tidal = 0.055 * unit, 0.62 * unit
    yy, xx = np.mgrid[:height, :width].astype(float)
    cx, cy = 0.5 * width, 0.5 * height

    def king(radius: np.ndarray) -> np.ndarray:
        edge = 1 / np.sqrt(1 + (tidal / core) ** 2)
        return np.maximum(1 / np.sqrt(1 + (radius / core) ** 2) - edge, 0) ** 2

    glow = 0.055 * king(np.hypot(xx - cx, yy - cy))
    extended = np.array([1.04, 1.0, 0.86])[:, None, None] * glow

    count = 3000
    radii = np.linspace(0, tidal, 2000)
    inside = np.cumsum(king(radii) * radii)
    radius = np.interp(rng.random(count), inside / inside[-1], radii)
    theta = rng.uniform(0, 2 * np.pi, count)
    flux = np.minimum(0.010 * rng.pareto(1.15, count) + 0.004, 0.9)
    # Bright members are orange giants, some fainter ones are on the blue horizontal branch.
    colour = np.where(flux > 0.12, 1.35, np.where(rng.random(count) < 0.25, 0.0, 0.75))
    colour = colour + rng.normal(0, 0.12, count)
    return extended, _coloured(cx + radius * np.cos(theta), cy + radius * np.sin(theta), flux, colour)


def _nebula(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate an emission nebula that fills the frame: red hydrogen, teal oxygen inside, dark lanes."""
    hydrogen, oxygen, dust = (_turbulence(rng, height, width) for _ in range(3))
    # Ridges where two flows meet look like shock fronts.
    glow = 0.022 * np.exp(0.75 * hydrogen) * (0.35 + np.exp(-4.0 * np.abs(oxygen)))
    inner = 0.010 * np.exp(0.8 * oxygen - 0.4 * hydrogen)
    depth = 1.6 / (1 + np.exp(-3.0 * (dust - 0.7)))
    image = np.stack([glow + 0.15 * inner, 0.22 * glow + inner, 0.30 * glow + 0.85 * inner])
    return image * np.exp(-depth * np.array([0.8, 1.0, 1.2])[:, None, None]), np.zeros((5, 0))


def _turbulence(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Generate noise of standard deviation 1 with structures of all sizes, as turbulent gas has."""
    wave = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    wave[0, 0] = 1.0
    # Not below one wave across the frame: the rest would be a gradient.
    amplitude = np.maximum(wave, 1.0 / max(height, width)) ** -1.65
    amplitude[0, 0] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * amplitude, (height, width))
    return noise / noise.std()


#: Makers of the extended light and the member stars, by the kind of target.
KINDS = {"galaxy": _galaxy, "spiral": _spiral, "globular": _globular, "nebula": _nebula, "field": _empty}
