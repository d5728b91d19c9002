"""The quality of frames: sky, noise, stars, their width and shape, and whether they sit on the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from astropy.stats import mad_std
from astropy.table import MaskedColumn, Table

from stacklib.frames.frame_set import FrameSet
from stacklib.measurement.measurements import FrameMeasurements, measure_frames
from stacklib.measurement.stars import Stars, find_stars, match_all, require_sep

__all__ = ["UNITS", "measure_quality", "suggest_exclusions"]

#: Units of the columns; a column that is not here has none.
UNITS = {"hours": "h", "exposure": "s", "fwhm": "pix", "shift_x": "pix", "shift_y": "pix"}
#: Stars that a frame needs to be judged by them, and that frames usually have where one is judged by how many
#: it has: what one or two stars tell is chance.
FEW_STARS, MANY_STARS = 5, 10
#: What is measured on the stars.
OF_STARS = ("transparency", "fwhm", "eccentricity", "shift_x", "shift_y", "matched")
#: How many digits of the columns are shown.
_SHOWN = {
    **dict.fromkeys(("hours", "fwhm", "eccentricity", "transparency", "matched", "weight"), ".2f"),
    **dict.fromkeys(("sky", "noise", "scale"), ".3g"),
    **dict.fromkeys(("shift_x", "shift_y"), "+.2f"),
}


def measure_quality(
    frames: FrameSet,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    weights: np.ndarray | None = None,
    measurements: FrameMeasurements | None = None,
    each: Callable[[int, np.ndarray], None] | None = None,
) -> Table:
    """Measure what tells good frames from bad ones.

    Stars are looked for in the mean of the channels. Width and eccentricity are those of an elliptical
    Moffat profile fitted to the brightest clean stars together, so that the noise of single stars hardly
    counts: elongation that all stars share (guiding, wind) shows, elongation that differs from corner to
    corner averages out.

    Parameters
    ----------
    frames : FrameSet
        Registered frames.
    threads : int, optional
        Frames looked at, and held in memory, at the same time; 2 unless given.
    progress : callable, optional
        Called as ``progress(done, total)`` after each frame, from the calling thread.
    weights : ndarray of float, shape (frames,) or (frames, channels), optional
        Weights, see `stacklib.normalization.preparation.Preparation`. Default is 1 / noise^2
        after scaling.
    measurements : FrameMeasurements, optional
        Measurements that are at hand.
    each : callable, optional
        Called as ``each(index, image)`` with the pixels of each frame when they are read, from any thread.

    Returns
    -------
    Table
        One row a frame: number (from 1), file, time (ISO, UTC), hours (since the first), exposure (s),
        sky, noise and scale (in units of the frame, mean of the channels), weight (best = 1), stars,
        fwhm (pix), eccentricity (0 is round), transparency (light of the stars against the reference,
        for equal exposures), shift_x and shift_y (pix, median offset of the stars from those of the
        reference), matched (fraction of the brighter stars that sit on one of the reference after that
        shift). NaN where something could not be measured. ``table.meta["reference"]`` is the index of
        the frame that the others were compared with, ``table.meta["level"]`` the unit of the levels.

    Raises
    ------
    FrameError
        When a frame cannot be read, or ``sep`` is not installed.
    """
    require_sep()
    if measurements is None:
        measurements = measure_frames(frames, threads=threads)
    stars: list[Stars] = []
    with ThreadPoolExecutor(max_workers=threads or 2) as pool:
        for found in pool.map(lambda index: _look(frames, index, each), range(len(frames))):
            stars.append(found)
            if progress is not None:
                progress(len(stars), len(frames))
    table = _header_columns(frames)
    table["sky"] = measurements.location.mean(axis=1)
    table["noise"] = measurements.noise.mean(axis=1)
    table["scale"] = (measurements.scale_low + measurements.scale_high).mean(axis=1) / 2
    table["weight"] = _relative(_noise_weights(measurements) if weights is None else weights)
    table["stars"] = [found.x.size for found in stars]
    table["fwhm"] = [found.fwhm for found in stars]
    table["eccentricity"] = [found.eccentricity for found in stars]
    reference, matches = match_all(stars)
    transparency = np.array([match[0] for match in matches])
    exposure = np.ma.filled(table["exposure"], np.nan)
    if np.all(exposure > 0):
        transparency *= exposure[reference] / exposure
    table["transparency"] = transparency
    for column, name in enumerate(("shift_x", "shift_y", "matched"), start=1):
        table[name] = [match[column] for match in matches]
    for name, unit in UNITS.items():
        table[name].unit = unit
    for name, form in _SHOWN.items():
        table[name].info.format = form
    table.meta["reference"] = reference
    table.meta["level"] = "full scale = 1" if measurements.unit_range else "ADU"
    return table


def suggest_exclusions(table: Table) -> dict[int, str]:
    """Frames that had better be left out, and why.

    A frame is compared with the median of all. It has to be off by five robust sigmas (from the MAD),
    and by enough to matter: a quarter of the stars' light, a third of the sky or of the star count, a
    quarter of the width, 0.2 in eccentricity and more than 0.5 of it, 1 pixel in position. A trend over
    the night widens the MAD and is not taken for a fault, and neither are satellite trails, which
    rejection takes care of. Fewer than five stars of a frame say nothing of it, and how many there are
    says nothing where frames usually have fewer than ten, but for none at all where some have five.

    Parameters
    ----------
    table : Table
        As `measure_quality` gives it.

    Returns
    -------
    dict of int to str
        Index of the row, and the reason in words.
    """
    table = table.copy()
    for name in OF_STARS:
        table[name] = np.where(table["stars"] >= FEW_STARS, table[name], np.nan)
    table["stars"] = _telling(np.array(table["stars"], float))
    usual = {name: _usual(table[name]) for name in ("transparency", "sky", "stars", "fwhm", "eccentricity")}
    shift = [_usual(table[name])[0] for name in ("shift_x", "shift_y")]
    matched = _usual(table["matched"])[0]
    reasons = {}
    for index, row in enumerate(table):
        words = _faults(row, usual, shift, matched)
        if words:
            reasons[index] = "; ".join(words)
    return reasons


def _faults(row: Any, usual: dict[str, tuple[float, float]], shift: list[float], matched: float) -> list[str]:
    """What is wrong with one frame, in words."""
    if row["stars"] == 0:
        return ["no stars found"]
    words = []

    def beyond(name: str, least: float, side: int) -> bool:
        centre, sigma = usual[name]
        return side * (float(row[name]) - centre) > max(5 * sigma, least)

    light, sky, count, width, round_ = (usual[n][0] for n in usual)
    if beyond("transparency", 0.25 * light, -1):
        words.append(f"cloud: the stars have {row['transparency'] / light:.0%} of their usual light")
    if beyond("sky", 0.33 * sky, 1):
        words.append(f"bright sky (cloud, twilight or moon): {row['sky'] / sky:.1f} x the usual level")
    if beyond("eccentricity", 0.2, 1) and row["eccentricity"] > 0.5:
        words.append(f"trailing: eccentricity {row['eccentricity']:.2f}, usual {round_:.2f}")
    if beyond("fwhm", 0.25 * width, 1):
        words.append(f"soft: FWHM {row['fwhm']:.1f} px, usual {width:.1f}")
    off = math.hypot(row["shift_x"] - shift[0], row["shift_y"] - shift[1])
    # Behind a cloud fewer stars are found, and more of what is found is noise.
    if row["matched"] < (0.25 if words else 0.5) * matched:
        words.append(f"misregistration: only {row['matched']:.0%} of the stars sit on one of the reference")
    elif off > 1:
        words.append(f"misregistration: the stars are {off:.1f} px from those of the reference")
    if beyond("stars", 0.33 * count, -1) and not words:
        words.append(f"cloud or dew: {row['stars']:.0f} stars, usual {count:.0f}")
    return words


def _telling(counts: np.ndarray) -> np.ndarray:
    """The numbers of stars that say something; NaN in place of the others."""
    if counts.max(initial=0) < FEW_STARS:
        return np.full_like(counts, np.nan)
    return np.where((counts == 0) | (np.median(counts) >= MANY_STARS), counts, np.nan)


def _usual(values: Any) -> tuple[float, float]:
    """Median and robust sigma of what is known."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return math.nan, math.nan
    return float(np.median(known)), float(mad_std(known))


# the columns -------------------------------------------------------------------------------------


def _header_columns(frames: FrameSet) -> Table:
    dates = [frame.date for frame in frames]
    begin = min((date for date in dates if date), default=None)
    hours = [(date - begin).total_seconds() / 3600 if date else math.nan for date in dates]
    table = Table()
    table["number"] = np.arange(1, len(frames) + 1)
    table["file"] = frames.names
    times = [date.strftime("%Y-%m-%dT%H:%M:%S") if date else "" for date in dates]
    table["time"] = MaskedColumn(times, mask=[not text for text in times], dtype=str)
    table["hours"] = hours
    table["exposure"] = [math.nan if f.exposure is None else f.exposure for f in frames]
    return table


def _noise_weights(measured: FrameMeasurements) -> np.ndarray:
    """Inverse variance after scaling to a typical frame."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((measured.scale_low + measured.scale_high) / measured.noise) ** 2


def _relative(weights: np.ndarray) -> np.ndarray:
    """One weight a frame, best = 1; NaN where there is none."""
    weights = np.where(np.isfinite(weights), weights, np.nan)
    mean = weights if weights.ndim == 1 else weights.mean(axis=1)
    best = np.nanmax(mean, initial=0.0)
    return mean / best if best > 0 else mean


def _look(frames: FrameSet, index: int, each: Callable[[int, np.ndarray], None] | None) -> Stars:
    image = frames[index].read()
    if each is not None:
        each(index, image)
    return find_stars(image)
