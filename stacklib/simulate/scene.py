"""Simulated scenes: galaxy, globular cluster, nebula and field stars."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from stacklib.simulate.registration import filtered
from stacklib.utils.compiled import compiled

__all__ = ["FWHM_PER_SIGMA", "KINDS", "Scene", "make_scene"]

FWHM_PER_SIGMA = 2.3548
MOFFAT_BETA = 3.0
#: Gaussians with a larger sigma are computed faster by a Fourier transform.
WIDE = 24.0


@dataclass(frozen=True)
class Scene:
    """Signal above the sky background, at the transparency of the reference frame.

    Attributes
    ----------
    extended : ndarray of float64, shape (channels, height, width)
        Everything but stars, blurred by the seeing, as a fraction of full scale.
    x, y : ndarray of float64, shape (stars,)
        Star positions in pixels. The center of the first pixel is (0, 0).
    flux : ndarray of float64, shape (channels, stars)
        Total flux of each star.
    psf : str
        Star profile, ``moffat`` (beta 3) or ``gaussian``.
    seeing : float
        FWHM in pixels by which `extended` is already blurred.
    """

    extended: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    psf: str = "moffat"
    seeing: float = 0.0
    # The last image by its FWHM: with constant seeing, all frames use the same one.
    _rendered: dict[float, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def render(self, fwhm: float = 2.5) -> np.ndarray:
        """Render the scene.

        Parameters
        ----------
        fwhm : float
            FWHM of the stars in pixels.

        Returns
        -------
        ndarray of float64, shape (channels, height, width)
            Signal above the sky as a fraction of full scale, not clipped.
        """
        if fwhm in self._rendered:
            return self._rendered[fwhm].copy()
        image = self.extended.copy()
        self._add_stars(image, fwhm)
        self._rendered.clear()
        self._rendered[fwhm] = image.copy()
        return image

    def seen(self, fwhm: float, down: float = 0.0, right: float = 0.0) -> np.ndarray:
        """Render the scene through the air, by a fraction of a pixel beside its place.

        Stars and everything else are blurred to the same FWHM.

        Parameters
        ----------
        fwhm : float
            FWHM of the stars in pixels, larger than `seeing`.
        down, right : float
            How far the scene lies below and to the right of its place, in pixels.

        Returns
        -------
        ndarray of float64, shape (channels, height, width)
            Signal above the sky as a fraction of full scale, not clipped.
        """
        sigma = np.sqrt(fwhm**2 - self.seeing**2) / FWHM_PER_SIGMA
        # A Gaussian off its center blurs and moves in one go.
        reach = int(np.ceil(4.5 * sigma + max(abs(down), abs(right))))
        place = np.arange(-reach, reach + 1)
        kernels = [np.exp(-0.5 * ((place + shift) / sigma) ** 2) for shift in (down, right)]
        image = filtered(self.extended, *(kernel / kernel.sum() for kernel in kernels))
        self._add_stars(image, fwhm, down, right)
        return image

    def _add_stars(self, image: np.ndarray, fwhm: float, down: float = 0.0, right: float = 0.0) -> None:
        # Draw the wings of a star until they vanish in the noise, which is farther out for bright stars.
        total = self.flux.max(axis=0)
        radius = np.select([total < 0.05, total < 1.0], [3.0, 6.0], 16.0)
        order = np.argsort(radius, kind="stable")
        reach = np.ceil(radius * fwhm).astype(np.int64)[order]
        flux = np.ascontiguousarray(self.flux[:, order])
        _draw(image, self.x[order] + right, self.y[order] + down, flux, reach, *_profile(self.psf, fwhm))


def _profile(kind: str, fwhm: float) -> tuple[bool, float, float]:
    """Return whether a star is a Gaussian, the square of its width, and the peak of a flux of 1."""
    if kind == "gaussian":
        variance = (fwhm / FWHM_PER_SIGMA) ** 2
        return True, 2 * variance, 1 / (2 * np.pi * variance)
    if kind != "moffat":
        raise ValueError(f"psf: got {kind!r}, expected 'moffat' or 'gaussian'")
    core = (0.5 * fwhm) ** 2 / (2 ** (1 / MOFFAT_BETA) - 1)
    return False, core, (MOFFAT_BETA - 1) / (np.pi * core)


@compiled
def _draw(image, x, y, flux, reach, gaussian, width, peak):
    """Add stars to an image (channels, height, width), each in a square of 2 reach + 1 pixels."""
    channels, rows, columns = image.shape
    for star in range(x.size):
        column, row = int(np.rint(x[star])), int(np.rint(y[star]))
        for i in range(max(row - reach[star], 0), min(row + reach[star] + 1, rows)):
            for j in range(max(column - reach[star], 0), min(column + reach[star] + 1, columns)):
                distance = ((j - x[star]) ** 2 + (i - y[star]) ** 2) / width
                if gaussian:
                    share = peak * np.exp(-distance)
                else:
                    share = peak / ((1 + distance) * (1 + distance) * (1 + distance))
                for channel in range(channels):
                    image[channel, i, j] += flux[channel, star] * share


def make_scene(
    kind: str = "galaxy",
    height: int = 224,
    width: int = 300,
    channels: int = 3,
    seed: int = 1,
    *,
    psf: str = "moffat",
    fwhm: float = 2.5,
) -> Scene:
    """Generate a realistic scene.

    Parameters
    ----------
    kind : {"galaxy", "globular", "nebula", "field"}
        A face-on spiral galaxy, a globular cluster, a nebula that fills the frame, or stars only.
    height, width, channels : int
        Shape of the images. A single channel is the mean of three.
    seed : int
        Random seed. The same seed gives the same scene.
    psf : {"moffat", "gaussian"}
        Star profile.
    fwhm : float
        Seeing of the extended signal, in pixels.

    Returns
    -------
    Scene
        The scene.

    Raises
    ------
    ValueError
        If `kind` or the number of channels is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels}, expected 1 (mono) or 3 (color)")
    rng = np.random.default_rng([seed, 0])
    extended, members = KINDS[kind](rng, height, width)
    extended = ndimage.gaussian_filter(extended, (0, *[fwhm / FWHM_PER_SIGMA] * 2))
    stars = np.concatenate([_field_stars(rng, height, width), members], axis=1)
    x, y, flux = stars[0], stars[1], stars[2:]
    if channels == 1:
        extended, flux = extended.mean(axis=0, keepdims=True), flux.mean(axis=0, keepdims=True)
    return Scene(extended, x, y, flux, psf, fwhm)


def _coloured(x: np.ndarray, y: np.ndarray, flux: np.ndarray, colour_index: np.ndarray) -> np.ndarray:
    """Return stars as rows x, y, red, green, blue. A star with B-V 0.65, like the Sun, is white."""
    excess = np.clip(colour_index, -0.3, 1.9) - 0.65
    return np.stack([x, y, flux * 10 ** (0.2 * excess), flux, flux * 10 ** (-0.32 * excess)])


def _field_stars(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
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
    noise, sigma = rng.standard_normal((height, width)), max(size, 0.7)
    if sigma > WIDE:
        # The same at the edges: Fourier transforms wrap around, too.
        waves = ndimage.fourier_gaussian(np.fft.rfft2(noise), sigma, n=width)
        noise = np.fft.irfft2(waves, (height, width))
    else:
        noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    return noise / noise.std()


def _knots(rng: np.random.Generator, density: np.ndarray, unit: int) -> np.ndarray:
    """Generate pink HII regions and blue star clouds, distributed by `density`."""
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
KINDS = {"galaxy": _galaxy, "globular": _globular, "nebula": _nebula, "field": _empty}
