"""A whole integration, written as plainly and slowly as the definitions read.

It shares no code with the package: the rules and the combination of one pixel come from `reference`. Only
what is measured on the frames (location, scale, noise) is taken over from the package, because that
has tests of its own.

A sample whose verdict hangs on rounding may go either way: `Slow.sure` tells the pixels where all
verdicts are clear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import reference

#: A decision that came nearer to its limit than this (relative) may be taken either way: distances of
#: samples are rounded to float32 for Sn.
CLEAR = 1e-6


@dataclass
class Slow:
    """What an integration gives: images (channels, height, width), and counts (used frames, channels)."""

    image: np.ndarray
    rejection_low: np.ndarray
    rejection_high: np.ndarray
    coverage: np.ndarray
    samples: np.ndarray
    kept: np.ndarray
    low: np.ndarray
    high: np.ndarray
    range_low: np.ndarray
    range_high: np.ndarray
    data: np.ndarray
    used: np.ndarray
    weights: np.ndarray
    sure: np.ndarray


def scale_factors(scale_low, scale_high, r):
    """What brings the spread of each frame to that of frame r, (frames,)."""
    return (scale_low[r] / scale_low + scale_high[r] / scale_high) / 2


def normalise(mode, x, m, k, m_r):
    """Samples of one frame, matched to the reference."""
    x = np.asarray(x, np.float64)
    return {
        "none": lambda: x,
        "additive": lambda: x + (m_r - m),
        "multiplicative": lambda: x * m_r / m,
        "additive_scaling": lambda: (x - m) * k + m_r,
        "multiplicative_scaling": lambda: x / m * k * m_r,
        "scale_zero_offset": lambda: (x - m) * k + m_r,
        "equalize_fluxes": lambda: x * m_r / m,
    }[mode]()


def weights_of(recipe, frames, measured, k, r):
    """Weights before frames are left out, (frames, channels)."""
    m = measured.location
    if recipe.combination != "average" or recipe.weights == "none":
        return np.ones(m.shape)
    if recipe.weights == "exposure":
        return np.repeat(np.array([[frame.exposure] for frame in frames]), m.shape[1], axis=1)
    # The noise after normalisation: what the samples are multiplied by counts, what is added does not.
    multiplied = {
        "none": np.ones_like(m),
        "additive": np.ones_like(m),
        "multiplicative": m[r] / m,
        "additive_scaling": k,
        "multiplicative_scaling": k * m[r] / m,
    }[recipe.normalization]
    return {
        "noise": lambda: 1 / (multiplied * measured.noise) ** 2,
        "snr": lambda: (measured.avgdev / measured.noise) ** 2,
        "signal": lambda: measured.avgdev,
        "median": lambda: m,
        "mean": lambda: measured.mean,
    }[recipe.weights]()


def frames_used(weights, min_weight):
    """Indices of the frames that are heavy enough, but the three best in any case."""
    mean = (weights / weights.max(axis=0)).mean(axis=1)
    best = sorted(range(len(mean)), key=lambda i: (-mean[i], i))
    return np.array([i for i in range(len(mean)) if mean[i] / mean.max() >= min_weight or i in best[:3]])


def integrate(frames, recipe, measured, reference_index) -> Slow:
    """Integrate frames (a sequence of `Frame`), pixel by pixel."""
    stack = np.stack([frame.read() for frame in frames])
    count, channels, height, width = stack.shape
    r = reference_index
    scaling = recipe.normalization.endswith("scaling") or recipe.rejection_normalization.startswith("scale")
    k = np.ones((count, channels))
    for c in range(channels):
        if scaling:
            k[:, c] = scale_factors(measured.scale_low[:, c], measured.scale_high[:, c], r)
    weights = weights_of(recipe, frames, measured, k, r)
    used = frames_used(weights, recipe.min_weight)
    weights = weights / weights[used].max(axis=0)
    n, shape = len(used), (channels, height, width)
    slow = Slow(
        image=np.zeros(shape),
        rejection_low=np.zeros(shape),
        rejection_high=np.zeros(shape),
        coverage=np.zeros(shape),
        samples=np.zeros(shape, int),
        kept=np.zeros((n, *shape), bool),
        **{name: np.zeros((n, channels), int) for name in ("low", "high", "range_low", "range_high", "data")},
        used=used,
        weights=weights,
        sure=np.ones(shape, bool),
    )
    steps = np.array([frames[i].quantization_step for i in used])
    for c in range(channels):
        known = [(measured.location[i, c], k[i, c], measured.location[r, c]) for i in used]
        # What samples are multiplied by, on average, for output and for rejection.
        output, rejection = (
            sum(normalise(mode, 1.0, *how) - normalise(mode, 0.0, *how) for how in known)
            for mode in (recipe.normalization, recipe.rejection_normalization)
        )
        for pixel in np.ndindex(height, width):
            at = (c, *pixel)
            raw = stack[(used, *at)]
            pairs = list(zip(raw, known, strict=True))
            compared = np.array([normalise(recipe.rejection_normalization, x, *how) for x, how in pairs])
            y = np.array([normalise(recipe.normalization, x, *how) for x, how in pairs])
            floor = np.max(steps * k[used, c]) * 0.505
            _one_pixel(
                slow,
                at,
                recipe,
                raw,
                compared.astype(np.float32),
                y,
                weights[used, c],
                floor,
                output / rejection,
            )
    if measured.unit_range:
        _bring_into_range(slow.image, recipe.output_range, slow.coverage)
    return slow


def _one_pixel(slow, at, recipe, raw, compared, y, w, floor, rescaled):
    c, n = at[0], len(raw)
    data = reference.is_data(raw, recipe)
    valid = reference.is_valid(raw, recipe)
    kept = np.zeros(n, bool)
    if valid.any():
        # The range limits are for raw samples; what takes part is decided already.
        free = recipe.replace(range_clip_low=False, range_clip_high=False)
        kept, notes = reference.reject_pixel(np.where(valid, compared, np.nan), free)
        slow.sure[at] = notes.margin > CLEAR and all(step.get("s", math.inf) > floor for step in notes.steps)
    low = valid & (compared < compared[kept].min(initial=math.inf))
    high = valid & (compared > compared[kept].max(initial=-math.inf))
    below = ~data & np.isfinite(raw)
    above = data & ~valid
    slow.kept[(slice(None), *at)] = kept
    for name, found in (("low", low), ("high", high), ("range_low", below), ("range_high", above)):
        getattr(slow, name)[:, c] += found
    slow.data[:, c] += valid
    mapped = recipe.map_range_rejection
    slow.rejection_low[at] = (low.sum() + mapped * below.sum()) / n
    slow.rejection_high[at] = (high.sum() + mapped * above.sum()) / n
    slow.coverage[at] = data.sum() / n
    slow.samples[at] = valid.sum()
    slow.image[at] = reference.combine_pixel(raw, y, kept, recipe, w)


def _bring_into_range(image, mode, coverage):
    low, high = min(0.0, image.min()), max(1.0, image.max())
    if mode == "rescale":
        image[:] = (image - low) / (high - low)
        image[coverage == 0] = 0
    np.clip(image, 0, 1, out=image)
