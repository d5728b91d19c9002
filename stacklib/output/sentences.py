"""Sentences about a result, from its numbers: what was rejected, where, and how far the noise fell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stacklib.errors import FrameError
from stacklib.output.integrated_image import IntegratedImage
from stacklib.utils.labels import listed

if TYPE_CHECKING:
    from astropy.table import Row

__all__ = [
    "before_and_after",
    "frames_in_words",
    "losses_in_words",
    "maps_in_words",
    "noise_gap",
    "noise_in_words",
    "outstanding",
    "trail_in_words",
]

#: Noise above what the frames allow, as a fraction: no gap worth mentioning up to the first, a warning above
#: the second.
SMALL_GAP, LARGE_GAP = 0.1, 0.3
#: A frame lost clearly more samples than the others above this many times the median and this fraction more.
OUTSTANDING, OUTSTANDING_FRACTION = 1.6, 0.001
#: Rejection beyond that of clean frames is worth mentioning above this fraction of it, and of all samples.
EXCESS, EXCESS_FRACTION = 0.25, 0.0002

#: Shift of a frame in pixels that makes the noise larger.
OFF = 0.5

CAUSES = {"low": "clouds, dew or gradients", "high": "trails, cosmic rays or hot pixels"}


def maps_in_words(result: IntegratedImage) -> str:
    """Say how much was rejected on either side, and how much of that was outliers."""
    lines = []
    for side, clean in zip(("low", "high"), result.expected_rejection, strict=True):
        share = float(result.lost(side).mean())
        words = f"Rejected {side}: {100 * share:.2f} % of the samples. "
        cost = f"Clean frames would lose {100 * clean:.2f} %"
        if share == 0:
            words += "Nothing stood out, or the limits are out of reach."
        elif share - clean > max(EXCESS * clean, EXCESS_FRACTION):
            words += f"{cost}; the rest is outliers: {CAUSES[side]}, or frames that do not fit."
        else:
            words += f"{cost}: there were hardly any outliers, or the limits do not reach them."
        lines.append(words)
    return "\n".join(lines)


def trail_in_words(trail: Row) -> str:
    """Describe a row of `IntegratedImage.trails`: length, width, brightness, why it was not used."""
    words = f"{trail['length']:.0f} px long, {trail['width']:.0f} px wide, {trail['peak']:.1f} sigma"
    return words if trail["used"] else f"{words}; not rejected: {trail['reason']}"


def losses_in_words(result: IntegratedImage) -> str:
    """Say how many samples the pixels lost, all channels together, of pixels with data in all frames."""
    lost = (result.rejection_low + result.rejection_high)[result.coverage == 1]
    if not lost.size:
        return "No pixel has data in all frames."
    counts = np.rint(lost * result.preparation.count)
    shares = [100 * np.mean(part) for part in (counts == 0, counts == 1, lost > 1 / 3)]
    return "{:.1f} % of the pixels lost no sample, {:.1f} % one, {:.2f} % more than a third.".format(*shares)


def outstanding(fractions: np.ndarray) -> np.ndarray:
    """Return which of the frames lost clearly more than the others, bool (frames,)."""
    median = np.median(fractions)
    return fractions > max(OUTSTANDING * median, median + OUTSTANDING_FRACTION)


def frames_in_words(result: IntegratedImage) -> str:
    """Name the frames that lost clearly more samples than the others, and the one with the least weight."""
    p = result.preparation
    lines = []
    for side in ("low", "high"):
        fractions = result.lost(side).mean(axis=1)
        found = np.flatnonzero(outstanding(fractions))
        most = found[np.argsort(-fractions[found], kind="stable")]
        named = [f"{p.used[k] + 1} ({100 * fractions[k]:.2f} %)" for k in most]
        median = f"the median is {100 * np.median(fractions):.2f} %"
        if named:
            lines.append(f"Clearly more rejected {side} than usual: frame {listed(named, most=5)}; {median}.")
        else:
            lines.append(f"No frame lost clearly more samples than the others {side}; {median}.")
    weights = p.weights[p.used].mean(axis=1)
    if np.ptp(weights) > 0.005:
        least = int(np.argmin(weights))
        lines.append(f"The lowest weight is {weights[least]:.2f}, that of frame {p.used[least] + 1}.")
    else:
        lines.append("All frames have about the same weight.")
    return "\n".join(lines)


def before_and_after(result: IntegratedImage) -> str:
    """Say what integration did to the noise, and what to look for beside one frame."""
    p = result.preparation
    high = 100 * float(result.lost("high").mean())
    ratio = float(np.mean(_noise(result)[0]))
    words = [
        f"The noise of {p.count} frames is {ratio:.3f} times that of {p.measurements.names[p.reference]}."
    ]
    if high > 0:
        words.append(
            f"{high:.2f} % of the samples were rejected as too bright and are not in the right image."
        )
        words.append("A trail that still shows there needs a lower limit.")
    else:
        words.append(
            "Nothing was rejected as too bright: trails and cosmic rays are still in the right image."
        )
    return " ".join(words)


def noise_in_words(result: IntegratedImage) -> str:
    """Compare the noise with that of equal frames and with what these frames allow."""
    ratio, allowed = (float(np.mean(values)) for values in _noise(result))
    count = result.preparation.count
    words = [
        f"The noise fell to {ratio:.3f} of that of the reference frame; "
        f"{count} equal frames would reach {result.expected_noise_ratio:.3f}."
    ]
    if math.isfinite(allowed):
        words.append(f"These frames allow {allowed:.3f} with their own noise, their weights and the rule.")
        gap = ratio / allowed - 1
        if gap <= SMALL_GAP:
            words.append("The result reaches that.")
        elif gap <= LARGE_GAP:
            words.append(f"The result is {100 * gap:.0f} % above: {_small_reason(result)}")
    return "\n".join(filter(None, [*words, noise_gap(result)]))


def noise_gap(result: IntegratedImage) -> str:
    """Return a warning if the noise is far above what the frames allow, with the likely reason, or ``""``."""
    reached, allowed = _noise(result)
    known = np.isfinite(reached) & np.isfinite(allowed)
    if not known.any():
        return ""
    ratio, possible = float(reached[known].mean()), float(allowed[known].mean())
    if not ratio > (1 + LARGE_GAP) * possible:
        return ""
    return (
        f"The noise of the result is {ratio:.3f} of that of the reference frame, although these frames allow "
        f"{possible:.3f}: {_reason(result)}"
    )


def _small_reason(result: IntegratedImage) -> str:
    """Return the likely reason for a small gap."""
    if result.preparation.photometry is not None:
        return "what else differs between the frames, such as seeing and gradients, counts as noise."
    return (
        "at this noise fine detail of the target can count as noise, and frames smoothed by registration "
        "look less noisy than they are."
    )


def _reason(result: IntegratedImage) -> str:
    """Return the likely reason for a gap, from what scatters between the frames and what does not."""
    frames = result.preparation.frames
    mosaic = next((frame.cfa_pattern for frame in frames if frame.channels == 1 and frame.cfa_pattern), "")
    if mosaic:
        return (
            f"they are undebayered ({mosaic}), and the pattern of the colors counts as noise. Debayer them."
        )
    errors = result.uncertainty / result.range_factor
    usual = np.array(
        [np.median(plane[np.isfinite(plane)]) if np.isfinite(plane).any() else np.nan for plane in errors]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        same = float(np.nanmean(result.noise / usual))
    if same > 1 + LARGE_GAP:
        return (
            f"the samples of a pixel scatter {same:.1f} times less than that between frames, so most of it "
            "is the same in all frames: a rich field, whose finest detail counts as noise, or a fixed "
            "pattern, against which dithering and flats help."
        )
    off = "" if result.shift is None else _off(result.shift)
    if result.preparation.photometry is not None:
        return f"the frames do not match: {off or 'gradients, seeing, misregistration'}."
    return (
        "the samples of a pixel scatter more between frames than the noise within a frame tells: "
        f"registration smoothed the frames, or they do not match ({off or 'gradients, clouds, seeing'})."
    )


def _off(shift: np.ndarray) -> str:
    """Say that frames do not lie on each other, if they do not."""
    distance = np.hypot(*shift.T)
    most = float(np.nanmax(distance, initial=0.0))
    return f"they lie up to {most:.1f} px from each other" if most > OFF else ""


def _noise(result: IntegratedImage) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise reached and the noise possible, relative to the reference frame; NaN if not known."""
    try:
        return result.noise_ratio, result.allowed_noise_ratio
    except FrameError:
        nothing = np.full(len(result.image), math.nan)
        return nothing, nothing
