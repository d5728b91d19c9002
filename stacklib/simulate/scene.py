"""Simulated scenes: stars on extended light, seen through the air."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from stacklib.simulate.registration import filtered
from stacklib.simulate.targets import KINDS, field_stars
from stacklib.utils.compiled import compiled

__all__ = ["FWHM_PER_SIGMA", "Scene", "make_scene"]

FWHM_PER_SIGMA = 2.3548
MOFFAT_BETA = 3.0


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
    blur : str
        How the seeing blurs `extended`: ``gaussian``, on top of what it is blurred by already, which is
        quick; or ``psf``, by the profile of the stars, as the air does.
    """

    extended: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    psf: str = "moffat"
    seeing: float = 0.0
    blur: str = "gaussian"
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

        Stars and everything else are blurred to the same FWHM, or by the same profile; see `blur`.

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
        if self.blur == "psf":
            image = _blurred(self.extended, self.psf, fwhm, down, right)
            self._add_stars(image, fwhm, down, right)
            return image
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


def _blurred(image: np.ndarray, psf: str, fwhm: float, down: float, right: float) -> np.ndarray:
    """Blur planes by a star profile and move them by a fraction of a pixel."""
    # Takes a second to import, and only some simulations need it.
    from scipy.signal import fftconvolve

    gaussian, width, peak = _profile(psf, fwhm)
    reach = int(np.ceil((2 if gaussian else 10) * fwhm))
    place = np.arange(-reach, reach + 1)
    distance = ((place[:, np.newaxis] - down) ** 2 + (place - right) ** 2) / width
    kernel = peak * (np.exp(-distance) if gaussian else (1 + distance) ** -MOFFAT_BETA)
    padded = np.pad(image, [(0, 0), (reach, reach), (reach, reach)], mode="reflect")
    return fftconvolve(padded, kernel[np.newaxis], mode="valid", axes=(1, 2))


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
    kind : {"galaxy", "spiral", "globular", "nebula", "field"}
        A face-on galaxy, an inclined one, a globular cluster, a nebula that fills the frame, or stars only.
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
    stars = np.concatenate([field_stars(rng, height, width), members], axis=1)
    x, y, flux = stars[0], stars[1], stars[2:]
    if channels == 1:
        extended, flux = extended.mean(axis=0, keepdims=True), flux.mean(axis=0, keepdims=True)
    return Scene(extended, x, y, flux, psf, fwhm)
