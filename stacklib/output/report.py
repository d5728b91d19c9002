"""Report and summary of a run as text."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stacklib.errors import FrameError
from stacklib.frames.differences import exposure_text
from stacklib.frames.finding import find_images
from stacklib.frames.frame_set import FrameSet, header_notes
from stacklib.frames.kinds import calibration_kind
from stacklib.measurement.measurements import channel_mean
from stacklib.measurement.scale_noise import APERTURES
from stacklib.normalization.light.photometric import Photometry
from stacklib.normalization.preparation import Preparation
from stacklib.output.drizzle_data import IN_REPORT
from stacklib.output.history import range_in_words
from stacklib.output.integrated_image import IntegratedImage
from stacklib.output.mask_files import masked_frames
from stacklib.output.naming import SavedFiles, night_of
from stacklib.output.provenance import Provenance, collect, known_or_none
from stacklib.output.sentences import noise_gap, trail_in_words
from stacklib.output.worth import frame_gains, worth_in_words
from stacklib.spatial.means import MEANS
from stacklib.utils.labels import clipped, counted, listed
from stacklib.utils.texts import one_line

__all__ = ["numbers", "report", "summary", "unusual_frames"]

WIDTH = 100
#: Rejection of a frame is unusually high above this multiple of the median and above this fraction.
UNUSUAL_TIMES, UNUSUAL_FRACTION = 3.0, 0.01
#: Noise in apertures that exceeds white noise by this factor is worth a word.
CORRELATED = 1.1
#: The scale that matters, in words.
SCALE = "about 8 pixels"
#: Longest file name in the table.
NAME = 36
#: Most trails that are listed.
TRAILS = 60


def report(
    result: IntegratedImage,
    saved: SavedFiles | None = None,
    facts: Provenance | None = None,
    remarks: Iterable[str] = (),
) -> str:
    """Format the report of a result as text, up to 100 columns wide.

    `facts` are collected by default, `remarks` are changes to the image made for the files `saved`.
    """
    facts = facts or collect(result)
    said = dict.fromkeys([*result.preparation.frames.notes, *result.preparation.notes])
    parts = [
        _heading(result, facts),
        _section("Settings", result.recipe.in_words(result.preparation.count, len(result.image))),
        _rejection(result),
        _neighbors(result),
        _noise(result),
        _apertures(result),
        _frames(result),
        _section("Trails", _trails(result)),
        _section("Worth of the frames", _worth(result)),
        _section("Groups of frames", _groups(result)),
        _section("Unusually high rejection", _unusual_in_words(result)),
        _section("Frames left out", _left_out(result)),
        _section("Keywords that differ", [f"{name}: {words}" for name, words in facts.differing.items()]),
        _section("Notes", [*said, *range_in_words(result), *_gap(result), *remarks, *facts.notes]),
        _section("Notes on the files of the frames", header_notes(result.preparation.frames)),
        _files(result, saved),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def summary(result: IntegratedImage) -> str:
    """Summarize a result in three lines: frames, rejection, noise."""
    facts, p = collect(result), result.preparation
    low, high = (100 * side.mean() for side in (result.rejected_low, result.rejected_high))
    clean = [100 * side for side in result.expected_rejection]
    ratios = " ".join(_number(ratio, 3) for ratio in _measured_noise(result)[2])
    return "\n".join(
        [
            f"{p.count} of {len(p.frames)} frames, {_exposure(result, facts)}; reference "
            f"{one_line(p.measurements.names[p.reference])}",
            f"{result.rule}: rejected {low:.2f} % low and {high:.2f} % high; "
            f"{clean[0]:.2f} % and {clean[1]:.2f} % expected without outliers{_masked_in_words(result)}",
            f"noise relative to the reference frame {ratios}; "
            f"1/sqrt({p.count}) is {result.expected_noise_ratio:.3f}",
        ]
    )


def _masked_in_words(result: IntegratedImage) -> str:
    """Say how much was rejected for its neighbors; empty if they were not looked at."""
    share = sum(100 * masked.mean() for masked in _masked(result))
    trails = int(np.sum(result.trails["used"]))
    words = f" ({counted(trails, 'trail')})" if trails else ""
    return f"; {share:.2f} % for their neighbors{words}" if result.masked else ""


def numbers(result: IntegratedImage) -> dict[str, Any]:
    """Return the key figures of a result, JSON-compatible, for tables of many results.

    Rejection is a fraction, averaged over frames and channels. Noise has one value per channel, None if
    unknown; ratios are relative to the reference frame.
    """
    p = result.preparation
    channels, height, width = result.image.shape
    _, noise, ratio = _measured_noise(result)
    return {
        "frames": len(p.frames),
        "used": p.count,
        "width": width,
        "height": height,
        "channels": channels,
        "rule": result.rule,
        "recipe": result.recipe.to_dict(),
        "rejected_low": float(result.rejected_low.mean()),
        "rejected_high": float(result.rejected_high.mean()),
        "masked": float(sum(values.mean() for values in result.masked.values())),
        "trails": int(np.sum(result.trails["used"])),
        "noise": known_or_none(_adu(p) * noise),
        "noise_ratio": known_or_none(ratio),
        "expected_noise_ratio": result.expected_noise_ratio,
        "left_out": _left_out(result),
        "unusual": _unusual_in_words(result),
    }


def unusual_frames(result: IntegratedImage) -> list[tuple[int, str, float, float]]:
    """Find frames with unusually high rejection: more than 1 % and more than three times the median.

    Returns (index among all frames, ``"low"`` or ``"high"``, rejected fraction, median of the frames used).
    """
    found = []
    for side in ("low", "high"):
        fractions = result.lost(side).mean(axis=1)
        median = float(np.median(fractions))
        limit = max(UNUSUAL_FRACTION, UNUSUAL_TIMES * median)
        found += [
            (int(i), side, float(fraction), median)
            for i, fraction in zip(result.preparation.used, fractions, strict=True)
            if fraction > limit
        ]
    return sorted(found)


def _gap(result: IntegratedImage) -> list[str]:
    gap = noise_gap(result)
    return [gap] if gap else []


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """Return a title and its wrapped lines, or nothing if there are no lines."""
    if not lines:
        return []
    wrapped = [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines]
    return [title, *wrapped]


def _heading(result: IntegratedImage, facts: Provenance) -> list[str]:
    p = result.preparation
    used = [p.frames[int(i)] for i in p.used]
    night = night_of(used)
    channels, height, width = result.image.shape
    title = f"Integration of {facts.target or 'an unnamed target'}"
    equipment = [facts.camera, str(facts.common.get("TELESCOP", ""))]
    rows = {
        "Frames": f"{p.count} of {len(p.frames)}, {_exposure(result, facts)}",
        "Night": f"{night[:4]}-{night[4:6]}-{night[6:]}" + _from_to(facts) if night else "",
        "Camera": ", ".join(filter(None, equipment)),
        "Filter": facts.filter,
        "Image": f"{width} x {height} pixels, {channels} channel{'s' * (channels > 1)}" + _region(result),
        "Values": _values(result),
        "Coverage": _coverage(result),
        "Registered": _registered(result),
        "Reference": f"{p.measurements.names[p.reference]} ({_why_reference(result)})",
        "Input": f"{p.frames.folder}{_not_given(p.frames)}",
    }
    lines = [f"{name:<10} {value}" for name, value in rows.items() if value]
    wrapped = [textwrap.fill(line, WIDTH, subsequent_indent=" " * 11) for line in lines]
    return [title, "=" * len(title), *wrapped]


def _not_given(frames: FrameSet) -> str:
    """Name the images in the folder of the frames that are not among them, whatever the reason."""
    given = {frame.path.absolute() for frame in frames}
    try:
        images = find_images(frames.folder, below=False, registered=False).images
    except FrameError:
        # The folder has gone, or holds only folders.
        return ""
    others = [path.name for path in images if path.absolute() not in given]
    if not others:
        return ""
    verb = "image there is" if len(others) == 1 else "images there are"
    return f" ({len(others)} {verb} not among these frames: {listed(others, most=3)})"


def _best(p: Preparation) -> float:
    """Return the largest weight of a frame, mean over the channels."""
    return float(p.weights[p.used].mean(axis=1).max()) - 1e-12


def _exposure(result: IntegratedImage, facts: Provenance) -> str:
    p = result.preparation
    if facts.without_exposure == p.count:
        return "exposure unknown"
    counted = Counter(p.frames[int(i)].exposure for i in p.used)
    known = [f"{count} x {seconds:g} s" for seconds, count in counted.items() if seconds is not None]
    each = ", ".join(known) if len(known) <= 4 else f"{len(known)} different exposures"
    unknown = f", unknown for {facts.without_exposure}" if facts.without_exposure else ""
    return f"{_duration(facts.exposure)} total ({each}{unknown})"


def _duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds, without zero parts."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    parts = ((whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def _from_to(facts: Provenance) -> str:
    if not facts.start or not facts.end:
        return ""
    end = f"{facts.end:%H:%M}" if facts.end.date() == facts.start.date() else f"{facts.end:%Y-%m-%d %H:%M}"
    return f" (UTC {facts.start:%Y-%m-%d %H:%M} to {end})"


def _why_reference(result: IntegratedImage) -> str:
    recipe = result.recipe
    if recipe.reference:
        return "your choice"
    p = result.preparation
    if recipe.combination == "average" and recipe.weights != "none":
        highest = p.weights[p.reference].mean() >= _best(p)
        return "highest weight" if highest else "highest weight of those that cover most"
    known = np.isfinite(p.measurements.noise).all()
    return "lowest noise" if known else "level closest to the median of the frames"


def _values(result: IntegratedImage) -> str:
    p = result.preparation
    if p.measurements.unit_range:
        return p.scale_in_words
    return f"{p.scale_in_words}; divided by it in XISF files, ADU in FITS files"


def _region(result: IntegratedImage) -> str:
    left, top, width, height = result.region
    frames = result.preparation.frames
    if (width, height) == (frames.width, frames.height):
        return ""
    return f", region at ({left}, {top}) of {frames.width} x {frames.height}"


def _coverage(result: IntegratedImage) -> str:
    coverage = result.coverage
    full, empty = np.mean(coverage == 1), np.mean(coverage == 0)
    text = f"{100 * full:.1f} % of the pixels have data in all frames"
    return text + (f", {100 * empty:.2f} % in none" if empty else "")


def _registered(result: IntegratedImage) -> str:
    """Say how well the frames lie on each other."""
    if result.shift is None:
        return ""
    shifts = np.hypot(*result.shift[result.preparation.used].T)
    known = shifts[np.isfinite(shifts)]
    if not known.size:
        return "not known: too few stars in the middle of the frames to compare them"
    rest = f", not known for {counted(shifts.size - known.size, 'frame')}" if known.size < shifts.size else ""
    return f"within {known.max():.2f} px, median {np.median(known):.2f} px{rest}"


def _rejection(result: IntegratedImage) -> list[str]:
    measured = np.array([result.rejected_low.mean(), result.rejected_high.mean()])
    clean = np.array(result.expected_rejection)
    # What was rejected for its neighbors is gone before the rule looks, and has lines of its own.
    outliers = "further outliers, estimated" if result.masked else "estimated outliers"
    rows = {
        "in these frames": measured,
        "expected without outliers": clean,
        outliers: np.maximum(measured - clean, 0),
    }
    lines = [f"{'Rejected samples':<28}{'low':>10}{'high':>10}"]
    lines += [f"  {name:<27}{100 * low:>7.3f} %{100 * high:>8.3f} %" for name, (low, high) in rows.items()]
    names = ("range_low", "range_high", "data")
    samples = {name: sum(int(getattr(c, name).sum()) for c in result.counts) for name in names}
    total = result.preparation.count * result.image.size
    samples["nan"] = total - sum(samples.values())
    for name, word in (("range_low", "no data"), ("nan", "NaN or infinite"), ("range_high", "saturated")):
        if samples[name]:
            note = "counted above" if result.recipe.report_range_rejection else "not counted above"
            lines.append(f"  {f'{word} ({note})':<27}{100 * samples[name] / total:>7.3f} %")
    return lines


def _neighbors(result: IntegratedImage) -> list[str]:
    """Say what was rejected for its neighbors, by means; nothing if none of them took part."""
    if not result.masked:
        return []
    lines = ["Rejected for their neighbors"]
    for means in MEANS:
        if means.name in result.masked:
            lines.append(f"  {means.words:<27}{100 * result.masked[means.name].mean():>7.3f} %")
    return [*lines, "  A sample that several means found counts for one of them. The rule did not see it."]


def _trails(result: IntegratedImage) -> list[str]:
    """List the trails found, with the names that `ignore_trails` takes."""
    lines = [
        f"{one_line(trail['name'])}: trail {trail['number']}, {trail_in_words(trail)}"
        for trail in result.trails
    ]
    more = len(lines) - TRAILS
    return lines[:TRAILS] + [f"and {more} more, see result.trails"] * (more > 0)


def _measured_noise(result: IntegratedImage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the noise of reference frame and image, and their ratio. NaN if the frame is unreadable."""
    try:
        return result.reference_noise, result.noise_per_light, result.noise_ratio
    except FrameError:
        nothing = np.full(len(result.image), math.nan)
        return nothing, result.noise_per_light, nothing


def _noise(result: IntegratedImage) -> list[str]:
    channels = len(result.image)
    names = "RGB" if channels == 3 else [f"channel {i + 1}" for i in range(channels)]
    before, after, ratio = _measured_noise(result)
    before, after = (_adu(result.preparation) * values for values in (before, after))
    by_light = result.preparation.photometry is not None and result.scale_noise is not None
    header = [] if channels == 1 else [f"{name:>12}" for name in names]
    lines = ["".join([f"{'Noise for equal starlight' if by_light else 'Noise':<26}", *header]).rstrip()]
    rows = [
        ("reference frame, before", before, 4),
        ("integration, after", after, 4),
        ("after / before", ratio, 3),
    ]
    allowed = result.allowed_noise_ratio
    known = bool(np.isfinite(allowed).any())
    rows += [("expected, these frames", allowed, 3)] if known else []
    rows += [("with the best weights", result.best_noise_ratio, 3)] if by_light else []
    for name, values, digits in rows:
        lines.append(f"  {name:<24}" + "".join(f"{_number(value, digits):>12}" for value in values))
    count = result.preparation.count
    lines.append(f"  {f'1/sqrt({count}), equal frames':<24}{_number(result.expected_noise_ratio, 3):>12}")
    kind = calibration_kind(result.preparation.used_frames)
    if kind:
        lines.append(
            f"  What {kind} frames have in common, such as fixed pattern and hot pixels, is in it and stays."
        )
    elif not known:
        lines.append(
            "  What these frames allow is not known: the weights do not need the noise of each frame."
        )
    cost = 100 * (result.expected_noise_factor - 1)
    if cost >= 0.05 and known:
        lines.append(f"  The expected noise includes {cost:.1f} % from rejection and combination.")
    if by_light:
        lines.append(f"  It is measured at {SCALE}, where registration does not hide it.")
    return lines


def _apertures(result: IntegratedImage) -> list[str]:
    """Compare the noise in apertures with that of white noise."""
    if result.scale_noise is None:
        missing = result.scale_noise_missing
        return [f"Noise in apertures: not measured, {missing}"] if missing else []
    noise = _adu(result.preparation) * np.sqrt(np.mean(result.scale_noise.apertures**2, axis=1))
    sides = np.array(APERTURES)
    lines = [f"{'Noise in apertures':<26}" + "".join(f"{f'{side} x {side}':>12}" for side in sides)]
    for name, values in (("integration", noise), ("if it were white", noise[0] / sides)):
        lines.append(f"  {name:<24}" + "".join(f"{_number(value):>12}" for value in values))
    # An image without noise has none in apertures either.
    times = noise[-2] / (noise[0] / sides[-2]) if noise[0] > 0 else 1.0
    if times > CORRELATED:
        lines.append(f"  Neighboring pixels share their noise: it is {times:.1f} times what one pixel tells.")
    return lines


def _adu(p: Preparation) -> float:
    """Return the ADU of one unit of the samples if values are given in ADU, otherwise 1."""
    return 1.0 if p.measurements.unit_range else p.full_scale


def _number(value: float, digits: int = 4) -> str:
    """Format a number with significant digits, keeping trailing zeros. NaN becomes a dash."""
    return f"{value:#.{digits}g}".rstrip(".") if math.isfinite(value) else "-"


def _frames(result: IntegratedImage) -> list[str]:
    p = result.preparation
    unusual = {i for i, *_ in unusual_frames(result)}
    # With more columns there is less room for names.
    by_light = _matched_by_light(p) is not None
    longest = NAME - 9 * bool(result.masked) - 4 * by_light
    names = [clipped(one_line(name), longest) for name in p.measurements.names]
    width = max(len(name) for name in names)
    heads = [
        f"{'scale':>8}{'location':>11}{'noise':>11}",
        f"{'transp.':>8}{'FWHM':>6}{'location':>10}{'noise':>10}",
    ]
    columns = f"{'weight':>8}{heads[by_light]}{'low %':>8}{'high %':>8}"
    columns += f"{'masked %':>9}" * bool(result.masked)
    lines = [f"{'':>4}  {'Frame':<{width}}{columns}"]
    for k, i in enumerate(p.used):
        mark = (" *" if i == p.reference else "") + (" !" if int(i) in unusual else "")
        lines.append(f"{i + 1:>4}  {names[i]:<{width}}{_numbers(result, int(i), k)}{mark}")
    means = f"{100 * result.rejected_low.mean():>8.2f}{100 * result.rejected_high.mean():>8.2f}"
    means += "".join(f"{100 * masked.mean():>9.2f}" for masked in _masked(result))
    lines.append(f"{'':>4}  {'mean':<{width}}{'':>{38 + 4 * by_light}}{means}")
    legend = ["* reference frame"] + ["! see below"] * bool(unusual)
    legend += ["transp.: light relative to the reference; FWHM in pixels"] * by_light
    legend += ["masked: for their neighbors"] * bool(result.masked)
    noises = p.measurements.noise if p.photometry is None else p.photometry.noise
    legend += ["noise: not measured, as the weights do not need it"] * (not np.isfinite(noises[p.used]).any())
    legend += ["means over the channels"] * (len(result.image) > 1)
    words = f"({'; '.join(legend)})"
    return [*lines, textwrap.fill(words, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 7)]


def _worth(result: IntegratedImage) -> list[str]:
    p = result.preparation
    if p.photometry is None or p.recipe.combination != "average":
        # Without the light of the frames a cloud would go unnoticed.
        return []
    return worth_in_words(frame_gains(p), [clipped(one_line(name), NAME) for name in p.measurements.names])


def _numbers(result: IntegratedImage, i: int, k: int) -> str:
    p = result.preparation
    matched = _matched_by_light(p)
    noise_of_frames = p.measurements.noise if p.photometry is None else p.photometry.noise
    location, noise = (
        _number(_adu(p) * float(channel_mean(values[i])))
        for values in (p.measurements.location, noise_of_frames)
    )
    if matched is None:
        middle = f"{p.scale[i].mean():>8.3f}{location:>11}{noise:>11}"
    else:
        transparency, fwhm = (float(channel_mean(t[i])) for t in (matched.transparency, matched.fwhm))
        middle = f"{_number(transparency, 3):>8}{_number(fwhm, 3):>6}{location:>10}{noise:>10}"
    low, high = (100 * values[k].mean() for values in (result.rejected_low, result.rejected_high))
    masked = "".join(f"{100 * values[k].mean():>9.2f}" for values in _masked(result))
    return f"{p.weights[i].mean():>8.3f}{middle}{low:>8.2f}{high:>8.2f}{masked}"


def _matched_by_light(p: Preparation) -> Photometry | None:
    """Return the photometry if frames were matched by it: their transparency says more than a scale."""
    return None if p.surfaces is None else p.photometry


def _masked(result: IntegratedImage) -> list[np.ndarray]:
    """Return the fraction of samples rejected for their neighbors, (frames, channels), in a list.

    The list is empty if neighbors were not looked at.
    """
    return [sum(result.masked.values(), np.zeros_like(result.rejected_low))] if result.masked else []


def _groups(result: IntegratedImage) -> list[str]:
    """Say what frames of each exposure, gain and night are worth; nothing if all are of one kind."""
    p = result.preparation
    groups: dict[str, list[int]] = {}
    for i in map(int, p.used):
        frame = p.frames[i]
        night = night_of([frame])
        facts = (
            exposure_text(frame.exposure),
            "" if frame.gain is None else f"gain {frame.gain:g}",
            f"night of {night[:4]}-{night[4:6]}-{night[6:]}" if night else "",
        )
        groups.setdefault(", ".join(filter(None, facts)) or "no exposure in the header", []).append(i)
    if len(groups) < 2:
        return []
    weights = p.weights.mean(axis=1)
    lines = []
    for words, some in groups.items():
        light = ""
        if p.photometry is not None:
            share = channel_mean(p.photometry.transparency[some]).mean()
            light = f"{share:.3f} of the light of the reference, "
        share = 100 * weights[some].sum() / weights[p.used].sum()
        lines.append(f"{words}: {counted(len(some), 'frame')}, {light}{share:.0f} % of the weight")
    return lines


def _unusual_in_words(result: IntegratedImage) -> list[str]:
    names = result.preparation.measurements.names
    reasons = {"low": "clouds, dew, poor normalization?", "high": "trail, poor normalization, poor seeing?"}
    lines = []
    for i, side, fraction, median in unusual_frames(result):
        reason = reasons[side]
        if side == "high" and "line" in result.masked:
            # No need to guess where most of what is too much is known.
            trail = float(result.masked["line"][result.preparation.used == i].mean())
            reason = f"{100 * trail:.1f} % in a trail" if 2 * trail > fraction - median else reason
        words = f"{100 * fraction:.1f} % {side}, median {100 * median:.2f} % ({reason})"
        lines.append(f"{i + 1} {names[i]}: {words}")
    return lines


def _left_out(result: IntegratedImage) -> list[str]:
    p = result.preparation
    return [f"{i + 1} {p.measurements.names[i]}: {reason}" for i, reason in sorted(p.excluded.items())]


def _files(result: IntegratedImage, saved: SavedFiles | None) -> list[str]:
    if saved is None:
        return []
    files = [path.name for path in (*saved.images, saved.table, saved.report)]
    if saved.masks is not None:
        files.append(f"{saved.masks.name} (masks of {counted(len(masked_frames(result)), 'frame')})")
    if saved.drizzle is not None:
        files.append(f"{saved.drizzle.name} ({IN_REPORT} {counted(result.preparation.count, 'frame')})")
    return [f"Files in {one_line(str(saved.report.parent))}", *(f"  {name}" for name in files)]
