"""Match frames by starlight: transparency, background and noise of every frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stacklib.normalization.surfaces import Surfaces

__all__ = ["Photometry"]


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """What the frames of a night tell about it when they are compared with their common stack.

    A frame is ``x = T S + B + n``: the light S of the sky, dimmed by the transparency T (times exposure and
    gain), a smooth background B and noise. Tables have the shape (frames, channels) and cover all frames that
    were given; NaN where unknown. They are in the units of the frames unless said otherwise.

    Attributes
    ----------
    transparency, transparency_error : ndarray of float64
        Light of a frame relative to the reference, which has exactly 1, and its standard error.
    stars : ndarray of int
        Number of stars that were used.
    source : ndarray of str
        What the transparency comes from: ``"stars"``, ``"structure"`` or ``"none"``, which means 1.
    sky : ndarray of float64
        Level of the background.
    noise : ndarray of float64
        Standard deviation of the noise at the scale that matters; see `stacklib.measurement.scale_noise`.
    pixel_noise : ndarray of float64
        Standard deviation of the noise of single pixels, which registration hides in part.
    fwhm : ndarray of float64
        FWHM of the stars in pixels.
    offset : ndarray of float64
        Added to corrected samples, multiplied by ``1 / transparency``, to bring them to the common level.
    anchor : ndarray of float64
        Weights, with the sum 1, of the frames whose background is that of all.
    surfaces : Surfaces
        What corrects the samples, so that the backgrounds differ by a constant only.
    notes : tuple of str
        For the user.
    """

    transparency: np.ndarray
    transparency_error: np.ndarray
    stars: np.ndarray
    source: np.ndarray
    sky: np.ndarray
    noise: np.ndarray
    pixel_noise: np.ndarray
    fwhm: np.ndarray
    offset: np.ndarray
    anchor: np.ndarray
    surfaces: Surfaces
    curves: tuple = ()
    notes: tuple[str, ...] = ()
