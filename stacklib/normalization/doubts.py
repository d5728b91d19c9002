"""Doubts about scale and weights of the frames: what if spread and noise are not what they seem.

Frames are scaled by their spread. That is right where the spread comes from the field: nebulae, galaxies,
many stars. In a sparse field it is noise, and under the Moon it is the gradient of the sky. Weights go by the
noise of pixels, of which registration hides a part, and by the scale. A run looks at the stars, which tell
how wrong this is; where there are none, the measurements of the frames can only make it likely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stacklib.measurement.measurements import FrameMeasurements
from stacklib.normalization.weighting import needs_noise
from stacklib.recipe.recipe import BY_LIGHT, Recipe
from stacklib.recipe.rules import RULES
from stacklib.utils.labels import listed

__all__ = ["Matched", "doubts_about_noise", "doubts_about_scale", "doubts_about_starlight", "goes_by_spread"]

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
#: Starlight is off from this fraction on, if that is more than this many standard errors; so are weights if
#: they lose this fraction of the signal-to-noise ratio of stars.
OFF, CERTAIN = 0.05, 3.0
#: The light of at least this fraction of the frames must be known.
MOST = 0.6


class Matched(NamedTuple):
    """How frames are matched and weighted, float64 (frames, channels).

    `compared` are the factors before rejection, `factor` those of the combination. `noise` is that of the
    samples, which the weights go by.
    """

    compared: np.ndarray
    factor: np.ndarray
    weights: np.ndarray
    noise: np.ndarray


class _Judged(NamedTuple):
    """What starlight says about one channel.

    `image` is the excess of starlight in the image as a fraction, `frame` that of the frame, called `name`,
    that differs most from the others when samples are compared, `lost` what the weights lose of the
    signal-to-noise ratio; 0 for what is right or not certain. `differ` and `factors` say how much the light
    and the factors of the frames differ.
    """

    image: float
    frame: float
    lost: float
    name: str
    differ: str
    factors: str


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


def goes_by_spread(recipe: Recipe) -> bool:
    """Return whether a recipe matches frames, or weights them, without regard to the light of stars.

    With ``normalization: none`` frames are taken as they are, on purpose.
    """
    if recipe.normalization == "none":
        return False
    return _scales(recipe) or _compares_by_scale(recipe) or _weighs_by_noise(recipe)


def _scales(recipe: Recipe) -> bool:
    return recipe.normalization.endswith("scaling")


def _compares_by_scale(recipe: Recipe) -> bool:
    # No spec of that name: the rule follows from the number of frames.
    spec = RULES.get(recipe.rejection)
    rejects = spec is None or spec.rejects
    return rejects and recipe.rejection_normalization == "scale_zero_offset"


def _weighs_by_noise(recipe: Recipe) -> bool:
    average = recipe.combination == "average" and recipe.normalization not in BY_LIGHT
    return average and needs_noise(recipe.weights)


def doubts_about_starlight(
    names: Sequence[str],
    recipe: Recipe,
    matched: Matched,
    reference: int,
    light: np.ndarray,
    error: np.ndarray,
) -> list[str] | None:
    """Compare factors and weights with the light of the stars.

    A frame of transparency T and factor k has the starlight ``k T`` in the image, which should be that of the
    reference, and the best weights are ``T / (k sigma^2)``.

    Parameters
    ----------
    names : sequence of str
        Names of the frames.
    recipe : Recipe
        How they are integrated, one for which `goes_by_spread` is true.
    matched : Matched
        Their factors and weights.
    reference : int
        Number of the reference among them.
    light, error : ndarray of float64, shape (frames, channels)
        Light of their stars in any unit, 0 for frames without any, NaN if not known, and its standard error.

    Returns
    -------
    list of str, or None
        One note, if starlight or its signal-to-noise ratio is off by more than 5 %. None if the light of too
        few frames is known.
    """
    channels = [k for k in range(light.shape[1]) if np.isfinite(light[:, k]).mean() >= MOST]
    if not channels:
        return None
    found = []
    for k in channels:
        known = np.isfinite(light[:, k])
        part = Matched(*(table[known, k] for table in matched))
        own = (light[reference, k], error[reference, k])
        some = [name for name, here in zip(names, known, strict=True) if here]
        found.append(_judge(some, recipe, part, own, light[known, k], error[known, k]))
    image, frame, weights = (max(found, key=lambda each: abs(each[n])) for n in range(3))
    effects = []
    if image.image:
        effects.append(f"the stars of the image are {_off(image.image)}")
    if frame.frame:
        whose = "those" if effects else "the stars"
        effects.append(
            f"{whose} of {frame.name} are {_off(frame.frame)} when the frames are compared for rejection"
        )
    worth = len(names) * (1 - weights.lost) ** 2
    lose = (
        f"lose {100 * weights.lost:.0f} % of the signal-to-noise ratio of stars: {len(names)} frames are "
        f"worth {worth:.1f}"
    )
    if not effects and not weights.lost:
        return []
    if not effects:
        return [
            f"{weights.differ}, of which weights by noise know nothing: they {lose}. Use weights: measured."
        ]
    worst = image if image.image else frame
    scale = recipe.normalization if _scales(recipe) else recipe.rejection_normalization
    return [
        f"{worst.differ}, but the scale factors of {scale} by {worst.factors}: {' and '.join(effects)}."
        f"{f' The weights, which follow the factors, {lose}.' * bool(weights.lost)} Use preset: measured, or "
        "normalization and rejection_normalization: photometric, which match frames by their stars."
    ]


def _judge(
    names: list[str],
    recipe: Recipe,
    matched: Matched,
    reference: tuple[float, float],
    light: np.ndarray,
    error: np.ndarray,
) -> _Judged:
    """Compare factors and weights of one channel with starlight; `reference` has its light and error."""
    compared, factor, weights, noise = matched
    image = frame = lost = 0.0
    own, own_error = reference
    if _scales(recipe) and own > 0:
        share = weights * factor / weights.sum()
        ratio = float(np.sum(share * light)) / own
        sigma = math.hypot(float(np.linalg.norm(share * error)), ratio * own_error) / own
        image = _certain(ratio - 1, sigma)
    usual = float(np.median(compared * light))
    most = 0
    if _compares_by_scale(recipe) and usual > 0:
        off = compared * light / usual - 1
        sure = [_certain(*pair) for pair in zip(off, compared * error / usual, strict=True)]
        most = int(np.argmax(np.abs(sure)))
        frame = sure[most]
    if _weighs_by_noise(recipe):
        signal = float(np.sum(weights * factor * light)) ** 2 / float(np.sum((weights * factor * noise) ** 2))
        loss = 1 - math.sqrt(signal / float(np.sum((light / noise) ** 2)))
        lost = loss if loss > OFF else 0.0
    dark = [name for name, value in zip(names, light, strict=True) if value == 0]
    differ = f"The stars of these frames differ in brightness by up to {_range(light)}"
    if dark:
        differ = f"No light of stars is seen in {listed(dark)}"
    return _Judged(image, frame, lost, names[most], differ, _range(compared))


def _certain(value: float, error: float) -> float:
    """Return what is off by too much, beyond doubt; otherwise 0."""
    return value if abs(value) > max(OFF, CERTAIN * error) else 0.0


def _off(value: float) -> str:
    if value > 1:
        return f"{1 + value:.1f} times too bright"
    return f"{100 * abs(value):.0f} % too {'bright' if value > 0 else 'faint'}"


def _range(values: np.ndarray) -> str:
    """Return the ratio of the largest value to the smallest one in words."""
    positive = values[values > 0]
    ratio = float(positive.max() / positive.min())
    return f"{ratio:.1f} times" if ratio > 2 else f"{100 * (ratio - 1):.0f} %"


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
