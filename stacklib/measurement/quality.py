"""Measure the quality of frames: sky, noise, stars and registration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import FrameSet
from stacklib.measurement.cache.sets import kept_for_set
from stacklib.measurement.measurements import FrameMeasurements, channel_mean, measure_frames
from stacklib.measurement.stars import (
    Stars,
    find_stars,
    mad_sigma,
    match_all,
    pack_stars,
    require_sep,
    unpack_stars,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["UNITS", "measure_quality", "stars_of", "suggest_exclusions"]

#: Units of the columns that have one.
UNITS = {"hours": "h", "exposure": "s", "fwhm": "pix", "shift_x": "pix", "shift_y": "pix"}
#: Stars that a frame needs to be judged by their shape, and usual number of stars of the set for a frame to
#: be judged by its number of stars.
FEW_STARS, MANY_STARS = 5, 10
#: Columns that are measured on stars.
OF_STARS = ("transparency", "fwhm", "eccentricity", "shift_x", "shift_y", "matched")
#: Format of the columns.
_SHOWN = {
    **dict.fromkeys(("hours", "fwhm", "eccentricity", "transparency", "matched", "weight"), ".2f"),
    **dict.fromkeys(("sky", "noise", "scale"), ".3g"),
    **dict.fromkeys(("shift_x", "shift_y"), "+.2f"),
}


def stars_of(
    frames: Sequence[Frame],
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Stars]:
    """Find the stars of frames, or take from the cache what was found before."""

    def find() -> list[Stars]:
        stars: list[Stars] = []
        with ThreadPoolExecutor(max_workers=threads or 2) as pool:
            for found in pool.map(lambda frame: find_stars(frame.read()), frames):
                stars.append(found)
                if progress is not None:
                    progress(len(stars), len(frames))
        return stars

    stars = kept_for_set(frames, ("stars",), find, pack_stars, unpack_stars)
    if progress is not None:
        progress(len(stars), len(frames))
    return stars


def measure_quality(
    frames: FrameSet,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    weights: np.ndarray | None = None,
    measurements: FrameMeasurements | None = None,
) -> Table:
    """Measure the quality of each frame.

    Stars are found in the mean of the channels. One elliptical Moffat profile is fitted to the brightest
    clean stars together. Elongation that all stars share (guiding, wind) shows; elongation that differs from
    corner to corner averages out.

    `threads` frames are measured, and held in memory, at the same time, by default 2.
    ``progress(done, total)`` is called after each frame, from the calling thread. Stars that are known from
    before are taken from the cache. `weights` are (frames,) or (frames, channels), by default 1 /
    noise^2 after scaling. Without `measurements` the frames are measured. Raises FrameError if a frame cannot
    be read, or ``sep`` is not installed.

    Returns one row for each frame: number (from 1), file, time (ISO, UTC), hours (since the first frame),
    exposure (s), sky, noise and scale (in units of the frame, mean of the channels), weight (best = 1),
    stars, fwhm (pix), eccentricity (0 is round), transparency (flux of the stars relative to the reference,
    for equal exposures), shift_x and shift_y (pix, median offset of the stars from those of the reference),
    matched (fraction of the brighter stars that match one of the reference after that shift). NaN if a value
    could not be measured. ``table.meta["reference"]`` is the index of the reference frame,
    ``table.meta["level"]`` the unit of the levels.
    """
    require_sep()
    if measurements is None:
        measurements = measure_frames(frames, threads=threads)

    stars = stars_of(frames, threads, progress)
    table = _header_columns(frames)
    # Integers of more than 16 bits with counts are read as fractions.
    adu = 1.0 if measurements.unit_range else max(frame.full_scale for frame in frames)
    table["sky"] = adu * channel_mean(measurements.location)
    table["noise"] = adu * channel_mean(measurements.noise)
    table["scale"] = adu * channel_mean(measurements.scale_low + measurements.scale_high) / 2
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
    """Suggest frames to leave out: the reasons by index of the row of a table of `measure_quality`.

    A frame is compared with the median of all frames. It must be off by five robust sigmas (from the MAD) and
    by enough to matter: a quarter of the flux of the stars, a third of the sky or of the star count, a
    quarter of the FWHM, 0.2 in eccentricity with more than 0.5, or 1 pixel in position. A trend over the
    night widens the MAD and is not a fault, nor are satellite trails, which rejection removes. A frame with
    fewer than five stars is not judged by their shape. The number of stars counts only if frames usually have
    ten or more, except for a frame with none at all if some frames have five.
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
    """Describe the faults of one frame in words."""
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
    # Through cloud fewer stars are found, and more of the detections are noise.
    if row["matched"] < (0.25 if words else 0.5) * matched:
        words.append(f"misregistration: only {row['matched']:.0%} of the stars match one of the reference")
    elif off > 1:
        words.append(f"misregistration: the stars are {off:.1f} px from those of the reference")
    if beyond("stars", 0.33 * count, -1) and not words:
        words.append(f"cloud or dew: {row['stars']:.0f} stars, usual {count:.0f}")
    return words


def _telling(counts: np.ndarray) -> np.ndarray:
    """Return the star counts that are significant, NaN for the others."""
    if counts.max(initial=0) < FEW_STARS:
        return np.full_like(counts, np.nan)
    return np.where((counts == 0) | (np.median(counts) >= MANY_STARS), counts, np.nan)


def _usual(values: Any) -> tuple[float, float]:
    """Return the median and robust sigma of the known values."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return math.nan, math.nan
    return float(np.median(known)), mad_sigma(known)


# the columns -------------------------------------------------------------------------------------


def _header_columns(frames: FrameSet) -> Table:
    # Here, because astropy takes a fifth of a second to import, and few runs need it.
    from astropy.table import MaskedColumn, Table

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
    """Return the inverse variance after scaling to a typical frame."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((measured.scale_low + measured.scale_high) / measured.noise) ** 2


def _relative(weights: np.ndarray) -> np.ndarray:
    """Return one weight for each frame, best = 1; NaN if there is none."""
    weights = np.where(np.isfinite(weights), weights, np.nan)
    mean = weights if weights.ndim == 1 else weights.mean(axis=1)
    best = np.nanmax(mean, initial=0.0)
    return mean / best if best > 0 else mean
