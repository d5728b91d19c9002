"""The frames of a drizzle run: unregistered frames, their registered twins, and their geometry."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stacklib.drizzle.coverage import LEAST_FRAMES
from stacklib.drizzle.geometry import Geometry, check_direction, from_xdrz
from stacklib.drizzle.registration.matching import find_geometries, find_geometry
from stacklib.drizzle.registration.siril import SirilSequence, read_sequence
from stacklib.errors import FrameError, IntegrationError, StacklibWarning
from stacklib.formats.xdrz import DrizzleData, read_xdrz
from stacklib.frames.finding import expanded, stem_of
from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.frames.mosaic import Sites, luminance, sites_of
from stacklib.measurement.stars import StarPlaces, star_places
from stacklib.utils.labels import counted, listed

__all__ = ["STARS", "Located", "frame_key", "locate", "open_unregistered", "refuse_few", "stars_of", "twins"]

#: In place of a file with the geometry: find it by stars.
STARS = "stars"

#: Steps of PixInsight at the end of a name, and of Siril at its begin: see `stacklib.frames.registered`.
_LAST = re.compile(
    r"(?:_(?:c|cc|lps|d|b|a|n|r|abe|dbe|gxt|crop)|[._-](?:reg|registered|aligned))$", re.IGNORECASE
)
_FIRST = re.compile(r"^(?:r|pp|bkg|cc|cosme|cropped|unband|comet|registered|aligned)_", re.I)
#: Frames whose stars are checked against a geometry that was given.
CHECKED = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """Frames with a geometry.

    Attributes
    ----------
    geometries : dict of int to Geometry
        Geometry of each frame, by number.
    left_out : dict of int to str
        Why the others have none.
    data : dict of int to DrizzleData
        Drizzle data of PixInsight, of the frames that have it.
    fwhm : float
        Median FWHM of the stars in pixels of the frames; NaN if it was not measured.
    notes : tuple of str
        What is to be said.
    """

    geometries: dict[int, Geometry]
    left_out: dict[int, str]
    data: dict[int, DrizzleData]
    fwhm: float
    notes: tuple[str, ...] = ()


def frame_key(name: str) -> str:
    """Return what all stages of a frame have in common in their names: without steps of processing.

    Examples
    --------
    >>> {frame_key(name) for name in ("M31_0001_c.xisf", "M31_0001_c_cc_d_r.xisf", "r_pp_M31_0001.fit")}
    {'m31_0001'}
    """
    stem = stem_of(Path(name)).casefold()
    while (shorter := _FIRST.sub("", _LAST.sub("", stem))) != stem and shorter:
        stem = shorter
    return stem


def open_unregistered(where: FrameSet | str | Path | list, pattern: str = "") -> tuple[FrameSet, Sites]:
    """Open unregistered frames.

    Parameters
    ----------
    where : FrameSet, str, Path or list
        The frames, as for `stacklib.open_frames`.
    pattern : str
        Color filter pattern in place of that of the headers, see `stacklib.frames.mosaic.sites_of`.

    Returns
    -------
    frames : FrameSet
        The frames.
    sites : Sites
        The colors of their pixels.

    Raises
    ------
    FrameError
        If a frame cannot be used, or the frames differ in their pattern.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = open_frames(where)
    for warning in caught:
        # That they were not debayered is as it should be here.
        if "they were not debayered" not in str(warning.message):
            warnings.warn(warning.message, StacklibWarning, stacklevel=2)
    found = [sites_of(frame, pattern) for frame in frames]
    usual = max(set(found), key=found.count)
    others = [frame.name for frame, sites in zip(frames, found, strict=True) if sites != usual]
    if others:
        raise FrameError(
            f"{frames.folder}: the frames differ in their color filter pattern: {listed(others)} "
            f"{'has' if len(others) == 1 else 'have'} not {usual.pattern or 'none'}, as the others; leave "
            "them out, or give the pattern"
        )
    return frames, usual


def refuse_few(frames: FrameSet) -> None:
    """Raise `IntegrationError` for fewer frames than are drizzled."""
    if len(frames) < LEAST_FRAMES:
        raise IntegrationError(
            f"{frames.folder}: {counted(len(frames), 'frame')}, drizzling needs at least {LEAST_FRAMES}, "
            "preferably 15 or more with dither; add frames"
        )


def locate(
    frames: FrameSet,
    sites: Sites,
    geometry: str | Path | None = None,
    registered: FrameSet | None = None,
    reference: StarPlaces | None = None,
    model: str = "auto",
) -> Located:
    """Find the geometry of unregistered frames.

    Parameters
    ----------
    frames : FrameSet
        The unregistered frames.
    sites : Sites
        The colors of their pixels.
    geometry : str or Path, optional
        A folder with ``.xdrz`` files, a ``.seq`` file of Siril, or ``stars``. By default ``.xdrz`` files are
        looked for beside the registered frames and beside the frames, then a sequence; else stars are
        matched.
    registered : FrameSet, optional
        The registered frames.
    reference : StarPlaces, optional
        Stars of the integrated registered frames, for geometries by stars.
    model : {"auto", "similarity", "homography"}
        Kind of geometry by stars.

    Returns
    -------
    Located

    Raises
    ------
    FrameError
        If a geometry is damaged, or the stars do not lie where it says.
    IntegrationError
        If fewer than 3 frames have a geometry.
    """
    folders = [found.folder for found in (registered, frames) if found is not None]
    given = None if geometry is None else expanded(str(geometry))
    size = (registered or frames).height, (registered or frames).width
    if given is None or given.is_dir():
        for folder in folders if given is None else [given]:
            if found := _by_data(frames, folder):
                return _checked(found, frames, sites)
    if given is None:
        beside = sorted(frames.folder.glob("*.seq"))
        sequences = [path for path in beside if _names_frames(path, frames)]
    else:
        sequences = [given] if given.suffix.lower() == ".seq" else []
    if sequences:
        return _checked(_by_sequence(frames, read_sequence(sequences[0]), size[0]), frames, sites)
    if given is not None and str(geometry).lower() != STARS:
        raise FrameError(
            f"{geometry}: holds no geometry of these frames; name a folder with their .xdrz files, a .seq "
            "file of Siril, or stars"
        )
    return _by_stars(frames, sites, size, reference, model)


def stars_of(frame: Frame, sites: Sites) -> StarPlaces:
    """Find the stars of an unregistered frame.

    Parameters
    ----------
    frame : Frame
        The frame.
    sites : Sites
        The colors of its pixels.

    Returns
    -------
    StarPlaces
        With the origin at the corner of the first pixel. The FWHM is that in the pixels of the frame.
    """
    planes = frame.read()
    if sites.pattern:
        gray, middle = luminance(planes[0], sites), sites.period / 2
    else:
        gray, middle = planes.mean(axis=0), 0.5
    low = np.nanmin(gray) if np.isfinite(gray).any() else 0.0
    # 0 is no data for those who look for stars.
    found = star_places(gray - low + np.float32(1)).moved(middle, middle)
    # The mean of a square widens stars: its variance is (period^2 - 1) / 12 along each axis.
    spread = 8 * math.log(2) * (sites.period**2 - 1) / 12
    return found._replace(fwhm=math.sqrt(max(found.fwhm**2 - spread, 1.0)))


def _by_data(frames: FrameSet, folder: Path) -> Located | None:
    """Read the drizzle data in a folder; None if there is none of these frames."""
    place: dict[str, int] = {}
    for i, frame in enumerate(frames):
        place.setdefault(frame.name.casefold(), i)
        place.setdefault(stem_of(Path(frame.name)).casefold(), i)
    data: dict[int, DrizzleData] = {}
    names: dict[int, str] = {}
    for path in sorted(folder.glob("*.xdrz")):
        if path.name.startswith("."):
            continue
        found = read_xdrz(path)
        keys = [name.casefold() for name in found.source_names]
        keys += [stem_of(Path(name)).casefold() for name in found.source_names]
        number = next((place[key] for key in keys if key in place), None)
        if number is None:
            continue
        if number in data:
            raise FrameError(
                f"{path}: is of the same frame as {names[number]}, {frames[number].name}; keep one of the two"
            )
        data[number], names[number] = found, path.name
    if not data:
        return None
    sizes = {(found.width, found.height) for found in data.values()}
    if len(sizes) > 1:
        raise FrameError(
            f"{folder}: the .xdrz files have references of different sizes; register all frames to "
            "one reference"
        )
    notes = [f"{names[i]}: {note}" for i, found in data.items() for note in found.notes]
    return Located(
        geometries={i: from_xdrz(found, names[i]) for i, found in data.items()},
        left_out={i: "has no .xdrz file" for i in range(len(frames)) if i not in data},
        data=data,
        fwhm=np.nan,
        notes=(*notes[:3], *([f"and {len(notes) - 3} more notes of this kind"] * (len(notes) > 3))),
    )


def _names_frames(path: Path, frames: FrameSet) -> bool:
    stems = {stem_of(Path(frame.name)) for frame in frames}
    return any(stem.startswith(path.stem) for stem in stems)


def _by_sequence(frames: FrameSet, sequence: SirilSequence, reference_height: int) -> Located:
    numbers = {sequence.frame_name(number): number for number in sequence.matrices}
    geometries, left_out = {}, {}
    for i, frame in enumerate(frames):
        number = numbers.get(stem_of(Path(frame.name)))
        if number is None:
            left_out[i] = "is not registered in the sequence"
            continue
        geometries[i] = Geometry(
            matrix=sequence.corner_matrix(number, frame.height, reference_height),
            width=frame.width,
            height=reference_height,
            origin=f"{sequence.name}.seq",
        )
    return Located(geometries=geometries, left_out=left_out, data={}, fwhm=np.nan, notes=sequence.notes)


def _by_stars(
    frames: FrameSet, sites: Sites, shape: tuple[int, int], reference: StarPlaces | None, model: str
) -> Located:
    stars = []
    for frame in frames:
        stars.append(stars_of(frame, sites))
        frame.close()
    found: list[Geometry | FrameError] = []
    if reference is None:
        _, found = find_geometries(stars, shape, frames.names, model)
    else:
        for places, name in zip(stars, frames.names, strict=True):
            try:
                found.append(find_geometry(reference, places, shape, name, model))
            except FrameError as error:
                found.append(error)
    geometries = {i: one for i, one in enumerate(found) if isinstance(one, Geometry)}
    errors = {i: _short(str(one)) for i, one in enumerate(found) if not isinstance(one, Geometry)}
    _enough(geometries, frames, next(iter(errors.values()), ""))
    return Located(geometries=geometries, left_out=errors, data={}, fwhm=_middle(stars))


def _short(error: str) -> str:
    """Return why a geometry was not found, without the name of the frame and the remedy."""
    return error.split(": ", 1)[-1].split(";")[0].replace("its geometry cannot be found by stars: ", "")


def _middle(stars: Sequence[StarPlaces]) -> float:
    """Return the median FWHM; NaN if it is known for few frames only."""
    widths = [places.fwhm for places in stars if math.isfinite(places.fwhm)]
    return float(np.median(widths)) if len(widths) > len(stars) / 2 else math.nan


def _enough(geometries: dict[int, Geometry], frames: FrameSet, why: str = "") -> None:
    if len(geometries) < 3:
        raise IntegrationError(
            f"{frames.folder}: only {counted(len(geometries), 'frame')} of {len(frames)} "
            f"{'has' if len(geometries) == 1 else 'have'} a geometry, drizzling needs at least 3; add frames "
            f"or their geometry{'. ' * bool(why)}{why}"
        )


def _checked(located: Located, frames: FrameSet, sites: Sites) -> Located:
    """Check that the stars of those frames that are moved most lie where it says; measure the FWHM."""
    _enough(located.geometries, frames)
    numbers = list(located.geometries)
    eye = np.eye(3)
    far = [float(np.abs(g.matrix / g.matrix[2, 2] - eye)[:2, 2].max()) for g in located.geometries.values()]
    order = [numbers[k] for k in np.argsort(far, kind="stable")]
    tried = [order[0], *order[::-1][:CHECKED]]
    stars: dict[int, StarPlaces] = {}
    for i in dict.fromkeys(tried):
        stars[i] = stars_of(frames[i], sites)
        frames[i].close()
    first = stars[order[0]]
    back = located.geometries[order[0]].inverse
    for i in dict.fromkeys(tried[1:]):
        geometry = located.geometries[i]
        # From the frame that lies nearest to the reference, which may not be among the frames.
        between = Geometry(
            matrix=geometry.matrix @ back,
            width=geometry.width,
            height=geometry.height,
            origin=geometry.origin,
        )
        if i != order[0]:
            check_direction(between, np.c_[first.x, first.y], np.c_[stars[i].x, stars[i].y], frames[i].name)
    return Located(
        geometries=located.geometries,
        left_out=located.left_out,
        data=located.data,
        fwhm=_middle(list(stars.values())),
        notes=located.notes,
    )


def twins(frames: FrameSet, registered: Sequence[Frame], data: dict[int, DrizzleData]) -> dict[int, int]:
    """Return the number of the registered frame of each frame, by drizzle data or by the names.

    Frames without one are not in it.
    """
    by_name = {stem_of(Path(frame.name)).casefold(): number for number, frame in enumerate(registered)}
    by_key: dict[str, list[int]] = {}
    for number, frame in enumerate(registered):
        by_key.setdefault(frame_key(frame.name), []).append(number)
    found: dict[int, int] = {}
    for i, frame in enumerate(frames):
        named = data[i].target_name if i in data else ""
        k: int | None = by_name.get(stem_of(Path(named)).casefold()) if named else None
        if k is None:
            alike = by_key.get(frame_key(frame.name), [])
            k = alike[0] if len(alike) == 1 else None
        if k is not None:
            found[i] = k
    return found
