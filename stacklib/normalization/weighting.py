"""Weights of the frames, exclusion by weight, and choice of the reference frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.errors import IntegrationError
from stacklib.formats.source import parse_decimal_comma
from stacklib.frames.finding import resolve_path
from stacklib.frames.selection import evaluate
from stacklib.measurement.border import NOTHING
from stacklib.measurement.measurements import FrameMeasurements, Planes
from stacklib.measurement.stars import PsfLight, psf_light, require_sep
from stacklib.normalization.usable import Usable
from stacklib.recipe.recipe import BY_LIGHT, WEIGHTS_BY_LIGHT
from stacklib.utils.labels import clipped, listed, quoted
from stacklib.utils.resources import checked_threads
from stacklib.utils.texts import one_line

__all__ = [
    "check_choices",
    "choose_reference",
    "excluded_by_weight",
    "find_frame",
    "frame_weights",
    "needs_noise",
    "star_weights",
]

#: Fraction of the best coverage that a reference covers at least.
WIDE = 0.9
#: A limit on the weights always keeps this many frames.
FEWEST = 3
#: Largest table of weights in bytes, and number of its columns.
LARGEST_TABLE, MOST_COLUMNS = 5 * 10**6, 1000
#: Folders above a file that a row may name, and longest problem in an error in characters.
DEEPEST, LONGEST_PROBLEM = 64, 150

#: Columns of the frames by name, (frames, channels) each: see `Photometry.columns` and `star_weights`.
Light = Mapping[str, np.ndarray]


def needs_noise(weights: str) -> bool:
    """Return whether weights of this kind use the noise of the frames."""
    return weights in ("noise", "snr")


def frame_weights(
    frames: Sequence[Any],
    measurements: FrameMeasurements,
    recipe: Any,
    scale_factors: np.ndarray,
    light: Light | None = None,
) -> np.ndarray:
    """Compute the weights of the frames for an average, (frames, channels).

    ==========  ===================================================================================
    none        1
    exposure    exposure time
    noise       1 / (k_i sigma_i)^2: the inverse variance after normalization
    snr         (avgdev_i / sigma_i)^2: mean absolute deviation, as a measure of the signal, over the
                noise (PixInsight's SNR estimate); independent of scaling
    signal      avgdev_i
    median      median
    mean        mean
    measured    T_i / (k_i sigma_i^2), which is T_i^2 / sigma_i^2 if frames are matched by their light:
                the largest ratio of starlight to noise; sigma_i is measured on the scale that
                matters, see `stacklib.measurement.scale_noise`
    information T_i / (k_i sigma_i^2 FWHM_i^2): the same for the light of single stars, which sharp
                frames gather in fewer pixels, (T_i / (sigma_i FWHM_i))^2
    psf_signal  see `stacklib.measurement.stars.PsfLight`
    psf_snr     the same
    formula     the expression ``recipe.weight_formula`` of the columns in `light`, and of exposure,
                location, scale and eccentricity
    keyword     the FITS keyword ``recipe.weight_keyword``
    csv         the column ``weight`` of the table ``recipe.weight_file``
    ==========  ===================================================================================

    k_i are the `scale_factors` of the samples in the combination, (frames, channels). `light` has what
    `stacklib.normalization.light` found, for the weights from ``measured`` to ``formula``: T_i is the
    transparency, sigma_i the noise. The largest weight of each channel is 1. Raises IntegrationError if a
    frame lacks the exposure, keyword, row or measurement, or its value is not a weight, RecipeError if the
    formula is not valid.
    """
    kind = recipe.weights
    if needs_noise(kind) and measurements.noise_source == "not measured":
        raise IntegrationError(
            f"weights {kind}: the measurements have no noise; call measure_frames with noise=True, "
            "or choose other weights"
        )
    if kind in WEIGHTS_BY_LIGHT:
        weights = _weights_by_light(kind, frames, measurements, recipe, scale_factors, light or {})
    else:
        weights = _raw_weights(kind, frames, measurements, recipe, scale_factors)
    _refuse(
        [
            _name(measurements, i)
            for i in np.flatnonzero(~np.all(np.isfinite(weights) & (weights >= 0), axis=1))
        ],
        f"weights {kind}: no usable weight for",
        "Leave these frames out or choose other weights",
    )
    best = weights.max(axis=0)
    if np.any(best <= 0):
        raise IntegrationError(f"weights {kind}: all weights are 0. Choose other weights.")
    weights = weights / best
    return weights


def check_choices(names: Sequence[str], recipe: Any) -> None:
    """Refuse a reference or weights that cannot work with any frames of these names, before any is measured.

    Raises IntegrationError.
    """
    if recipe.reference:
        find_frame(names, recipe.reference, "reference")
    if recipe.combination != "average":
        return
    if recipe.weights == "keyword":
        _keyword_values([], recipe.weight_keyword)
    elif recipe.weights == "csv":
        _read_table(recipe.weight_file)
    elif recipe.weights == "formula":
        _refuse_empty(recipe.weight_formula)


def star_weights(
    frames: Sequence[Any],
    measurements: FrameMeasurements,
    usable: Usable,
    noise: np.ndarray,
    threads: int | None = None,
    planes: Planes | None = None,
) -> dict[str, np.ndarray]:
    """Measure the star weights of the usable frames: columns ``psf_signal`` and ``psf_snr``.

    `noise` is that of the usable frames and channels. What was measured is kept with the measurements. See
    `stacklib.measurement.stars.PsfLight`. Raises IntegrationError if ``sep`` is not installed.
    """
    require_sep()
    known = measurements.photometry.setdefault("stars", {})

    def measure(place: tuple[int, int]) -> PsfLight:
        if place not in known:
            i, channel = place
            plane = frames[i].read(channel=channel) if planes is None else planes(i, channel)
            plane = np.array(plane, np.float32)
            if measurements.data_range is not None:
                measurements.data_range.mark(i, channel, plane)
            plane[~(plane > NOTHING)] = np.nan
            known[place] = psf_light(plane)
        return known[place]

    places = [(i, channel) for i in usable.frames for channel in usable.channels]
    with ThreadPoolExecutor(checked_threads(threads)) as pool:
        light = list(pool.map(measure, places))
    pairs = list(zip(light, noise.ravel().tolist(), strict=True))
    return {
        "psf_signal": np.reshape([stars.signal_weight(sigma) for stars, sigma in pairs], noise.shape),
        "psf_snr": np.reshape([stars.snr(sigma) for stars, sigma in pairs], noise.shape),
    }


def excluded_by_weight(
    weights: np.ndarray, min_weight: float, names: Sequence[str] | None = None
) -> dict[int, str]:
    """Find the frames to leave out for their low weight, and return the reasons by index.

    The weight of a frame is the mean over the channels, relative to the best frame; `min_weight` is the
    smallest to keep. The three best frames are always kept.
    """
    relative = _relative(weights)
    # Stable: among equal weights the earlier frame wins.
    best = set(np.argsort(-relative, kind="stable")[:FEWEST].tolist())
    reasons = {}
    for i in np.flatnonzero(relative < min_weight).tolist():
        if i not in best:
            subject = f"{names[i]}: " if names is not None else ""
            reasons[i] = f"{subject}weight {relative[i]:.4g} is below min_weight {min_weight:g}"
    return reasons


def choose_reference(
    frames: Sequence[Any], measurements: FrameMeasurements, recipe: Any, light: Light | None = None
) -> int:
    """Choose the reference frame and return its index.

    A name in ``recipe.reference``, with or without extension, overrides the choice. By default this is the
    frame with the best weight, among those that cover at least 90 % of what the best of them covers. Among
    equal weights it is the frame with the lowest noise after scaling or, if the noise is not known, the one
    whose level is closest to the median of the set. The weights use scale factors relative to the median
    scale of the set. So the choice does not depend on the order of the frames. Raises IntegrationError if
    none or several of the frames have that name, or as `frame_weights`.
    """
    if recipe.reference:
        return find_frame(measurements.names, recipe.reference, "reference")
    factors, noise = _provisional_factors(measurements, recipe.normalization), measurements.noise
    if light is not None:
        noise = light["noise"]
        if recipe.normalization in BY_LIGHT:
            factors = 1 / light["transparency"]
    weights = _relative(frame_weights(frames, measurements, recipe, factors, light))
    noise = (factors * noise).mean(axis=1)
    wide = _wide(measurements)
    if not np.all(np.isfinite(noise[wide])):
        noise = np.zeros(len(weights))
    level = measurements.location.mean(axis=1)
    away = np.abs(level - np.median(level))
    best = wide[weights[wide] >= weights[wide].max() - 1e-12].tolist()
    return min(best, key=lambda i: (noise[i], away[i], measurements.names[i]))


def _wide(measurements: FrameMeasurements) -> np.ndarray:
    """Return the frames that cover nearly as much as the best: others share less with each frame."""
    if measurements.empty is None:
        return np.arange(len(measurements.names))
    covered = 1 - measurements.empty.max(axis=1)
    return np.flatnonzero(covered >= WIDE * covered.max())


def find_frame(names: Sequence[str], wanted: str, what: str = "frame") -> int:
    """Return the index of the frame with this name or file name, with or without its extension.

    Raises IntegrationError if there is none, or more than one.
    """
    found = _matching(names, wanted)
    if len(found) == 1:
        return found[0]
    problem = "is none of the frames" if not found else "matches more than one frame"
    some = ", ".join(names[i] for i in (found or range(min(3, len(names)))))
    named = clipped(str(wanted), LONGEST_PROBLEM)
    raise IntegrationError(f"{what}: {named} {problem}. Use the name of one frame, such as {some}.")


def _matching(names: Sequence[str], wanted: str) -> list[int]:
    """Return the indices of the best matches: with folders, by file name, then without extension."""
    return _Names(names).matching(str(wanted).replace("\\", "/"))


def _relative(weights: np.ndarray) -> np.ndarray:
    """Return the weight of each frame, mean over the channels, as a fraction of the best frame."""
    mean = np.atleast_2d(weights).mean(axis=1)
    best = mean.max(initial=0.0)
    return mean / best if best > 0 else mean


def _provisional_factors(measurements: FrameMeasurements, normalization: str) -> np.ndarray:
    """Return the factors of the samples for a typical frame as the reference."""
    factors = np.ones_like(measurements.location)
    if normalization.startswith("multiplicative"):
        factors *= _typical_over(measurements.location)
    if normalization.endswith("scaling"):
        factors *= (_typical_over(measurements.scale_low) + _typical_over(measurements.scale_high)) / 2
    return factors


def _typical_over(values: np.ndarray) -> np.ndarray:
    """Divide the median of the frames by the value of each; 1 if a value is not positive."""
    typical = np.nanmedian(np.where(values > 0, values, np.nan), axis=0) if np.any(values > 0) else 1.0
    return np.divide(typical, values, out=np.ones_like(values), where=values > 0)


def _raw_weights(
    kind: str, frames: Sequence[Any], measured: FrameMeasurements, recipe: Any, factors: np.ndarray
) -> np.ndarray:
    """Return the weights before scaling to a maximum of 1; NaN or negative if there is none."""
    shape = measured.location.shape
    if kind == "none":
        return np.ones(shape)
    if kind == "exposure":
        return _spread(_exposures(frames), shape)
    if kind == "keyword":
        return _spread(_keyword_values(frames, recipe.weight_keyword), shape)
    if kind == "csv":
        return _spread(_table_values(measured.names, recipe.weight_file), shape)
    formulas: dict[str, Callable[[], np.ndarray]] = {
        "noise": lambda: 1.0 / np.square(factors * measured.noise),
        "snr": lambda: np.square(measured.avgdev / measured.noise),
        "signal": lambda: measured.avgdev,
        "median": lambda: measured.location,
        "mean": lambda: measured.mean,
    }
    if kind not in formulas:
        raise ValueError(f"weights: got {kind!r}, expected one of {', '.join(formulas)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(formulas[kind](), dtype=np.float64)


def _weights_by_light(
    kind: str,
    frames: Sequence[Any],
    measured: FrameMeasurements,
    recipe: Any,
    factors: np.ndarray,
    light: Light,
) -> np.ndarray:
    """Return weights from the light and the noise of the frames; NaN or negative if there is none."""
    if kind in ("psf_signal", "psf_snr"):
        return light[kind]
    if kind == "formula":
        return _formula_values(frames, measured, recipe.weight_formula, light)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = light["transparency"] / (factors * np.square(light["noise"]))
        return weights / np.square(light["fwhm"]) if kind == "information" else weights


def _refuse_empty(formula: str) -> None:
    if not formula.strip():
        raise IntegrationError(
            "weights formula: weight_formula is empty. Write an expression of the columns of the frames, "
            "such as transparency / (noise * fwhm)."
        )


def _formula_values(
    frames: Sequence[Any], measured: FrameMeasurements, formula: str, light: Light
) -> np.ndarray:
    """Evaluate a formula in each channel."""
    _refuse_empty(formula)
    columns = {
        "exposure": _spread([_number(frame.exposure) for frame in frames], measured.location.shape),
        "location": measured.location,
        "scale": (measured.scale_low + measured.scale_high) / 2,
        **light,
    }
    channels = range(measured.location.shape[1])
    by_channel = [{name: values[:, channel] for name, values in columns.items()} for channel in channels]
    example = "transparency / (noise * fwhm)"
    values = [evaluate(formula, table, "weight_formula", example) for table in by_channel]
    return np.stack(values, axis=1).astype(np.float64)


def _spread(values: Sequence[float], shape: tuple[int, int]) -> np.ndarray:
    return np.repeat(np.asarray(values, dtype=np.float64)[:, None], shape[1], axis=1)


def _exposures(frames: Sequence[Any]) -> list[float]:
    values = [_number(frame.exposure) for frame in frames]
    missing = [frame.name for frame, value in zip(frames, values, strict=True) if not value > 0]
    _refuse(
        missing, "weights exposure: no exposure time (EXPTIME) in", "Add the keyword or choose other weights"
    )
    return values


def _keyword_values(frames: Sequence[Any], keyword: str) -> list[float]:
    if not keyword:
        raise IntegrationError(
            "weights keyword: weight_keyword is empty. Name the keyword that holds the weight."
        )
    values = [_number(frame.keywords.get(keyword.upper())) for frame in frames]
    missing = [frame.name for frame, value in zip(frames, values, strict=True) if math.isnan(value)]
    _refuse(
        missing, f"weights keyword: no number under {keyword} in", "Add the keyword or choose other weights"
    )
    return values


def _number(value: Any) -> float:
    try:
        return math.nan if value is np.ma.masked else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _table_values(names: Sequence[str], path: str) -> list[float]:
    """Read the weights of the frames with these names from a table."""
    table = _read_table(path)
    values: list[float | None] = [None] * len(names)
    exact = [False] * len(names)
    known = _Names(names)
    for file, weight in zip(table["file"], table["weight"], strict=True):
        text = str(file).replace("\\", "/")
        # A row may name the file without its extension, or with the extension of an earlier stage.
        found = known.matching(text) or known.matching(Path(text).stem)
        if not found or weight is np.ma.masked:
            continue
        comma = parse_decimal_comma(str(weight))
        value = _number(weight) if comma is None else comma
        if not (math.isfinite(value) and value >= 0):
            raise IntegrationError(
                f"{path}: the weight of {one_line(names[found[0]])} is {quoted(str(weight))}, expected a "
                "number of at least 0. Correct the row."
            )
        for i in found:
            named = text == names[i] or text.endswith(f"/{names[i]}")
            if values[i] is not None and values[i] != value and named == exact[i]:
                raise IntegrationError(
                    f"{path}: two different weights for {one_line(names[i])}. Keep one of the rows."
                )
            if values[i] is None or named:
                values[i], exact[i] = value, named
    missing = [name for name, value in zip(names, values, strict=True) if value is None]
    _refuse(missing, f"{path}: no weight for", "Add a row for each, or choose other weights")
    return [value for value in values if value is not None]


class _Names:
    """The names of the frames, in a form in which the many rows of a table are found at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._whole = _places(names, lambda name: [name])
        self._files = _places(names, lambda name: [Path(name).name])
        self._bare = _places(names, lambda name: [Path(name).stem, name])

    def matching(self, text: str) -> list[int]:
        """Return the indices of the best matches: with folders, by file name, then without extension."""
        parts = text.split("/")
        ends = ("/".join(parts[start:]) for start in range(min(len(parts), DEEPEST)))
        base = Path(text).name
        whole = [i for end in ends for i in self._whole.get(end, [])]
        return whole or self._files.get(base, []) or self._bare.get(base, [])


def _places(names: Sequence[str], keys: Callable[[str], list[str]]) -> dict[str, list[int]]:
    """Return the indices of names by what they are found under."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        for key in dict.fromkeys(keys(name)):
            found.setdefault(key, []).append(i)
    return found


def _read_table(path: str) -> Any:
    # Late: astropy takes a moment to import, and few runs need it here.
    from astropy.table import Table

    from stacklib.formats.fits_header import astropy_alone

    if not path:
        raise IntegrationError(
            "weights csv: weight_file is empty. Name a table with the columns file and weight."
        )
    lines = _table_lines(path)
    head = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    # Excel writes semicolons where the comma is the decimal sign.
    sign = max(",; \t", key=head.count)
    if head.count(sign) >= MOST_COLUMNS:
        raise IntegrationError(f"{path}: has more than {MOST_COLUMNS} columns. Keep file and weight.")
    try:
        with astropy_alone():
            if Path(path).suffix.lower() == ".ecsv":
                table = Table.read(lines, format="ascii.ecsv")
            else:
                semicolons = head.count(";") > head.count(",")
                table = Table.read(lines, format="ascii.csv", delimiter=";" if semicolons else ",")
    except Exception as error:
        # The readers of astropy raise many kinds for a malformed table.
        problem = clipped(one_line(str(error)), LONGEST_PROBLEM)
        raise IntegrationError(
            f"{path}: is not a CSV or ECSV table ({problem}). Check weight_file."
        ) from error
    if not {"file", "weight"} <= set(table.colnames):
        found = listed([quoted(name) for name in table.colnames]) or "none"
        raise IntegrationError(f"{path}: columns {found}; expected file and weight. Rename the columns.")
    return table


def _table_lines(path: str) -> list[str]:
    """Return the lines of a table. Excel begins a file with a byte-order mark."""
    file = resolve_path(path)
    try:
        if file.exists() and not file.is_file():
            raise IntegrationError(f"{path}: is not a regular file. Check weight_file.")
        if file.stat().st_size > LARGEST_TABLE:
            raise IntegrationError(
                f"{path}: has more than {LARGEST_TABLE // 10**6} MB, too much for a table of weights. Check "
                "weight_file."
            )
        # Not splitlines, for which there are more ends of a line.
        return file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise IntegrationError(f"{path}: cannot be read ({error.strerror}). Check weight_file.") from error
    except UnicodeDecodeError as error:
        raise IntegrationError(f"{path}: is not UTF-8 text. Save it as CSV UTF-8.") from error


def _name(measurements: FrameMeasurements, index: int) -> str:
    return measurements.names[index]


def _refuse(names: Sequence[str], what: str, remedy: str) -> None:
    if names:
        raise IntegrationError(f"{what} {listed(names, most=10)}. {remedy}.")
