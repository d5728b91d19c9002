"""Doubts about scale and weights of the frames: what if spread and noise are not what they seem.

Frames are scaled by their spread. That is right where the spread comes from the field: nebulae, galaxies,
many stars. In a sparse field it is noise, and under the Moon it is the gradient of the sky. Weights go by the
noise of pixels, of which registration hides a part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stacklib.measurement.measurements import FrameMeasurements
from stacklib.utils.labels import listed

__all__ = ["doubts_about_noise", "doubts_about_scale"]

#: Scale factors that differ by less than this fraction of the smallest matter little.
FACTORS = 0.1
#: A spread of less than this many times the noise is noise rather than signal, and up to the second in part.
SPARSE, PARTLY = 1.3, 2.0
#: Gradients matter if they widen the spread of a frame by this factor more than that of another.
WIDENED = 1.15
#: Exposures differ if the longest is this many times the shortest.
EXPOSURES = 1.1
#: Weights are off if they add this fraction of the noise of the image.
COSTLY = 0.03


def doubts_about_scale(
    frames: Sequence[Any], measured: FrameMeasurements, factors: np.ndarray, weights: str, used: np.ndarray
) -> list[str]:
    """Return notes on frames whose scale factors, (frames, channels), follow noise or gradients.

    `weights` is the parameter of the recipe, `used` has the indices of the frames that take part.
    """
    names = [measured.names[i] for i in used]
    scale = (measured.scale_low[used] + measured.scale_high[used]) / 2
    noise = measured.noise[used]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A ramp of height g has the standard deviation g / sqrt(12).
        ramp = np.nan_to_num(measured.gradient_x[used] ** 2 + measured.gradient_y[used] ** 2) / 12
        least = np.fmax(noise, 0.05 * scale) ** 2
        flat = np.sqrt(np.maximum(scale**2 - ramp, least))
        usual = np.sqrt(np.maximum(scale**2 - ramp + np.median(ramp, axis=0), least))
        # A field that is brighter on one side has a ramp that follows the light: the first is the same in all
        # frames then. Where all have the same gradient of the sky, the second is.
        widened, apart = (scale / flat).mean(axis=1), (scale / usual).mean(axis=1)
        richness = flat / noise
    gradients = all(np.isfinite(x).all() and x.max() > WIDENED * x.min() for x in (widened, apart))
    if gradients:
        most = int(np.argmax(apart))
        return [_about_gradients(names[most], 100 * (apart[most] / apart.min() - 1), weights)]
    exposures = [frames[int(i)].exposure for i in used]
    return _about_light(names, exposures, factors[used].mean(axis=1), _median(richness))


def doubts_about_noise(measured: np.ndarray, larger: np.ndarray) -> list[str]:
    """Return a note if weights by the noise of registered pixels make the image noisier than it need be.

    `measured` is the noise that the weights go by, `larger` that of larger places, which registration does
    not hide, in any unit; both normalized, (frames, channels). Means over a few pixels still lose a little,
    so the truth is rather worse than what is said.
    """
    cost = [
        np.sqrt(np.sum(larger_one**2 / one**4) * np.sum(larger_one**-2.0)) / np.sum(one**-2.0) - 1
        for one, larger_one in zip(measured.T, larger.T, strict=True)
        if (one > 0).all() and (larger_one > 0).all()
    ]
    most = max(cost, default=0.0)
    if not most > COSTLY:
        return []
    return [
        "Registration hides noise, in some frames more than in others, and the weights go by what is left: "
        f"the image is about {100 * most:.0f} % noisier than it need be. Use weights: measured, which go by "
        "noise that registration does not hide, or write NOISE keywords when calibrating."
    ]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def _about_gradients(name: str, percent: float, weights: str) -> str:
    noise = weights == "noise"
    return (
        f"The gradients of the sky differ between the frames: that of {name} widens its spread by "
        f"{percent:.0f} % more than the least one. Scale factors follow the spread, so the light of stars in "
        f"frames with a strong gradient is scaled down{', and they get too much weight' * noise}. Use "
        "normalization: photometric, which goes by starlight and removes differences of the background."
    )


def _about_light(
    names: list[str], exposures: list[float | None], factors: np.ndarray, richness: float
) -> list[str]:
    """Compare the factors with what exposure times or a sparse field tell."""
    known = np.array([seconds or 0 for seconds in exposures], float)
    spread = factors.max() / factors.min() - 1
    if richness < PARTLY and known.min() > 0 and known.max() > EXPOSURES * known.min():
        light = factors * known
        if light.max() > (1 + FACTORS) * light.min():
            times = listed([f"{seconds:g}" for seconds in np.unique(known)])
            return [
                f"The exposures differ ({times} s), but the spread of the frames does not follow them, since "
                "much of it is noise: scale factors and weights are off, and so is the flux of the stars. "
                "Use normalization: photometric, which goes by starlight."
            ]
    elif richness < SPARSE and spread > FACTORS:
        least, most = int(np.argmin(factors)), int(np.argmax(factors))
        return [
            "The field is sparse: the spread of the frames is little more than their noise, so scale "
            f"factors from {factors[least]:.2f} ({names[least]}) to {factors[most]:.2f} "
            f"({names[most]}) follow the noise and not the light. The flux of the stars and the "
            "weights may be off. Use normalization: photometric, which goes by starlight."
        ]
    return []
