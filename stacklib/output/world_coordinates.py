"""World coordinates (WCS) of a result: those of the reference frame, where they hold.

Keywords count rows from the first row of a FITS file, but from the bottom row of an XISF file, which is how
PixInsight and Siril read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.output.integrated_image import IntegratedImage

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = [
    "WORLD",
    "WORLD_PROPERTY",
    "WorldCoordinates",
    "of_frame",
    "pixel_world",
    "turned",
    "world_coordinates",
]

#: Keywords of world coordinates, valid for one geometry only, and whether the image has been plate-solved.
WORLD = re.compile(
    r"(?:WCSAXES|WCSNAME|C(?:TYPE|RVAL|RPIX|DELT|ROTA|UNIT|NAME|RDER|SYER)\d|CD\d_\d|P[CV]\d_\d+|(?:LON|LAT)POLE"
    r"|RADESYS|EQUINOX)[A-Z]?|(?:A|B|AP|BP)_(?:ORDER|DMAX|\d_\d)|WAT\d_\d+|PLTSOLVD"
    r"|C[PQ](?:DIS|ERR)\d|D[PQ]\d.*|D2IM.*"
)
#: Distortion tables in extensions, which are not copied.
TABLES = re.compile(r"C[PQ]DIS\d|D[PQ]\d.*|D2IM.*")
#: The astrometric solution of PixInsight, which counts rows from the top.
WORLD_PROPERTY = re.compile(r"PCL:AstrometricSolution:.*")
#: Keywords that say nothing about positions.
REMARKS = re.compile(r"WCSNAME|C(NAME|RDER|SYER)\d[A-Z]?|[AB]P?_DMAX|PLTSOLVD")
#: Keywords that change when the rows are turned over or a part is cut out.
MATRIX = re.compile(r"(CRPIX[12]|CDELT2|(CD|PC)\d_2)[A-Z]?|[AB]P?_\d_\d")
#: Orders of a SIP distortion, and the largest one: its terms have one digit for each power.
ORDER, MOST_ORDER = re.compile(r"[AB]P?_ORDER"), 9
#: What is said where the solution does not fit the grid.
NO_SOLUTION = "The astrometric solution of PixInsight is left out: it holds for the grid of the frames only."
#: Frames agree if the corners of their fields are no more pixels apart than this.
AGREEMENT = 2.0


@dataclass
class WorldCoordinates:
    """World coordinates of a result.

    Attributes
    ----------
    cards : dict
        Keywords, as in the frame that they come from.
    height : int
        Rows of the image.
    turns : int
        How often the rows are turned over between these keywords and the rows of a saved file.
    properties : dict
        The astrometric solution of PixInsight, for XISF files only.
    notes : list of str
        What is left out, and why.
    """

    cards: dict[str, Any] = field(default_factory=dict)
    height: int = 0
    turns: int = 0
    properties: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keywords(self, kind: str) -> dict[str, Any]:
        """Return the keywords for a file of this kind, ``xisf`` or ``fits``."""
        turns = self.turns + (kind == "xisf")
        return turned(self.cards, self.height) if turns % 2 else dict(self.cards)

    def scaled(self, scale: float, height: int, bottom_up: bool) -> WorldCoordinates:
        """Return the world coordinates on a finer grid with the same corner.

        Parameters
        ----------
        scale : float
            Pixels of the grid along each axis for a pixel of the image.
        height : int
            Rows of the grid.
        bottom_up : bool
            Whether the frames are stored bottom-up.

        Returns
        -------
        WorldCoordinates
        """
        # The corner is that of the first row of the frames.
        stored = turned(self.cards, self.height) if (self.turns - bottom_up) % 2 else self.cards
        same = scale == 1 and height == self.height
        lost = [] if same or not self.properties else [NO_SOLUTION]
        return WorldCoordinates(
            cards={name: _scaled(name, value, scale) for name, value in stored.items()},
            height=height,
            turns=int(bottom_up),
            properties=self.properties if same else {},
            notes=[*self.notes, *lost],
        )


def _scaled(name: str, value: Any, scale: float) -> Any:
    """Return the value of a keyword on a finer grid."""
    if re.fullmatch(r"CRPIX[12][A-Z]?", name):
        return scale * (value - 0.5) + 0.5
    if re.fullmatch(r"(CD\d_\d|CDELT[12])[A-Z]?", name):
        return value / scale
    if sip := re.fullmatch(r"[AB]P?_(\d)_(\d)", name):
        return value * scale ** (1 - int(sip[1]) - int(sip[2]))
    return value * scale if re.fullmatch(r"[AB]P?_DMAX", name) and _is_number(value) else value


def of_frame(frame: Frame, bottom_up: bool) -> WorldCoordinates:
    """Return the world coordinates of one frame; `bottom_up` tells whether its rows are stored so."""
    cards, solution = _cards(frame), _solution(frame)
    if not cards and not solution:
        return WorldCoordinates()
    problem = _problem(frame, cards)
    if problem:
        return WorldCoordinates(notes=[f"World coordinates (WCS) are left out: {problem}."])
    turns = _is_xisf(frame) + bottom_up
    return WorldCoordinates(cards, frame.height, turns, {} if bottom_up else solution)


def turned(cards: Mapping[str, Any], height: int) -> dict[str, Any]:
    """Return world coordinates for an image whose rows are in the opposite order.

    With ``y' = height + 1 - y`` the second column of the matrix changes its sign, as do the terms of a SIP
    distortion with odd powers of y, and those of its y component once more.
    """
    found = dict(cards)
    for name, value in cards.items():
        sip = re.fullmatch(r"([AB])P?_(\d)_(\d)", name)
        if re.fullmatch(r"CRPIX2[A-Z]?", name):
            found[name] = height + 1 - value
        elif re.fullmatch(r"(CD|PC)\d_2[A-Z]?", name) or (sip and (int(sip[3]) + (sip[1] == "B")) % 2):
            found[name] = 0 - value
    for letter in {name[6:] for name in cards if re.fullmatch(r"CRPIX2[A-Z]?", name)}:
        if not any(re.fullmatch(rf"PC\d_\d{letter}", name) for name in cards):
            if f"CDELT2{letter}" in cards:
                found[f"CDELT2{letter}"] = 0 - cards[f"CDELT2{letter}"]
        elif f"PC2_2{letter}" not in cards:
            found[f"PC2_2{letter}"] = -1.0
    return found


def world_coordinates(result: IntegratedImage) -> WorldCoordinates:
    """Find the world coordinates of a result.

    They are those of the reference frame, or of the first frame that has any if the others agree. Registered
    frames that still have the coordinates of the moment they were taken do not agree. Then those of the
    reference frame hold only if the others were registered to it, and a note says so.
    """
    p = result.preparation
    reference = p.frames[p.reference]
    frames = [reference, *(p.frames[int(i)] for i in p.used if int(i) != p.reference)]
    known = [frame for frame in frames if _cards(frame) or _solution(frame)]
    if not known:
        return WorldCoordinates()
    source, cards = known[0], _cards(known[0])
    left, top, width, height = result.region
    whole = (width, height) == (source.width, source.height)
    turns = _is_xisf(source) + (p.frames.row_order == "bottom-up")
    problem = _problem(source, cards)
    disagreement = _disagreement(known)
    if disagreement and source is not reference:
        problem = problem or f"the reference frame has none, and of the others {disagreement}"
    if problem:
        return WorldCoordinates(notes=[f"World coordinates (WCS) are left out: {problem}."])
    notes = []
    if disagreement:
        notes.append(
            f"World coordinates (WCS) are those of the reference frame, but {disagreement}. They hold only "
            "if all frames were registered to this one. Otherwise make the frame they were registered to the "
            "reference, or plate-solve the image."
        )
    elif source is not reference:
        notes.append(f"World coordinates (WCS) are those of {source.name}: the reference frame has none.")
    solution = _solution(source) if whole and p.frames.row_order != "bottom-up" else {}
    if _solution(source) and not solution:
        notes.append("The astrometric solution of PixInsight is left out: only a part was integrated.")
    below = source.height - top - height if _is_xisf(source) else top
    return WorldCoordinates(
        cards=cards if whole else _cropped(cards, left, below),
        height=height,
        turns=turns,
        properties=solution,
        notes=notes,
    )


def pixel_world(image: IntegratedImage | Frame) -> WCS | None:
    """Return the world coordinates of the pixels of a frame or a result as they lie in memory.

    The first row is row 0, as in ``all_pix2world(x, y, 0)``. None if the keywords of the header have none
    for the sky, or none that can be used.
    """
    if isinstance(image, Frame):
        return None if _problem(image, _cards(image)) else _system(_positional(image))
    found = world_coordinates(image)
    flipped = image.preparation.frames.row_order == "bottom-up"
    # The files have the top row first.
    return _system(turned(found.cards, found.height) if (found.turns + flipped) % 2 else found.cards)


def _system(cards: Mapping[str, Any]) -> WCS | None:
    """Return the system of coordinates of the sky that keywords describe, or None."""
    if not cards:
        return None
    # Here, because many frames have no world coordinates.
    from astropy.io import fits
    from astropy.wcs import WCS

    from stacklib.formats.fits_header import astropy_alone

    try:
        with astropy_alone(Warning):
            header = fits.Header()
            header.update(cards)
            system = WCS(header, naxis=2)
            return system if system.has_celestial else None
    except Exception:  # astropy raises almost anything for broken coordinates
        return None


def _is_xisf(frame: Frame) -> bool:
    return frame.name.lower().endswith(".xisf")


def _cards(frame: Frame) -> dict[str, Any]:
    """Return the keywords of world coordinates, empty without any axis."""
    found = {name: value for name, value in frame.keywords.items() if WORLD.fullmatch(name)}
    return found if any(name.startswith("CTYPE") for name in found) else {}


def _solution(frame: Frame) -> dict[str, Any]:
    found = {name: value for name, value in frame.properties.items() if WORLD_PROPERTY.fullmatch(name)}
    return {
        name: ("TimePoint", value) if name.endswith(":CreationTime") else value
        for name, value in found.items()
    }


def _problem(frame: Frame, cards: dict[str, Any]) -> str:
    """Return why the keywords of a frame cannot be used, or an empty string."""
    if any(TABLES.fullmatch(name) for name in cards):
        return f"the distortion tables of {frame.name} cannot be copied"
    if frame.source.interleaved and not _is_xisf(frame):
        return f"the first axis of {frame.name} is that of the colors"
    numbers = [cards.get(name) for name in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")]
    broken = [name for name in cards if MATRIX.fullmatch(name) and not _is_number(cards[name])]
    broken += [name for name in cards if ORDER.fullmatch(name) and cards[name] not in range(MOST_ORDER + 1)]
    if cards and (broken or not all(map(_is_number, numbers))):
        return f"those of {frame.name} are incomplete"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _disagreement(frames: Iterable[Frame]) -> str:
    """Return in words how the frames disagree, or an empty string."""
    first, *others = frames
    solution, cards = _solution(first), _positional(first)
    here, furthest = None, 0.0
    for frame in others:
        if solution and _solution(frame) and not _same(_solution(frame), solution):
            return f"{first.name} and {frame.name} disagree"
        other = _positional(frame)
        if not cards or not other or other == cards:
            continue
        here = _directions(cards, first) if here is None else here
        there = _directions(other, frame)
        if here is None or there is None:
            return f"{first.name} and {frame.name} cannot be compared"
        pixel = max(float(np.linalg.norm(here[-1] - here[-2])), 1e-15)
        furthest = max(furthest, float(np.linalg.norm(here - there, axis=1).max()) / pixel)
    return f"the frames disagree by up to {furthest:.0f} pixels" if furthest > AGREEMENT else ""


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    core = [name for name in one if isinstance(one[name], np.ndarray) and ":Spline" not in name]
    return all(
        name in other
        and np.shape(one[name]) == np.shape(other[name])
        and np.allclose(one[name], other[name], rtol=1e-9, atol=1e-9)
        for name in core
    )


def _positional(frame: Frame) -> dict[str, Any]:
    """Return what says where the pixels are, with the first row of the frame as row 1."""
    cards = {name: value for name, value in _cards(frame).items() if not REMARKS.fullmatch(name)}
    if not cards or not _is_xisf(frame):
        return cards
    try:
        return turned(cards, frame.height)
    except TypeError:
        return cards


def _directions(cards: dict[str, Any], frame: Frame) -> np.ndarray | None:
    """Return the directions of the corners, the center and the pixel next to it, unit vectors (6, 3)."""
    width, height = frame.width, frame.height
    x = np.array([1, width, 1, width, (width + 1) / 2, (width + 3) / 2])
    y = np.array([1, 1, height, height, (height + 1) / 2, (height + 1) / 2])
    system = _system(cards)
    if system is None:
        return None
    # As above.
    from stacklib.formats.fits_header import astropy_alone

    try:
        with astropy_alone(Warning):
            longitude, latitude = np.radians(system.all_pix2world(x, y, 1))
    except Exception:  # as above
        return None
    if not np.isfinite(longitude + latitude).all():
        return None
    if system.wcs.lng == 1:
        longitude, latitude = latitude, longitude
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )


def _cropped(cards: dict[str, Any], left: int, below: int) -> dict[str, Any]:
    """Return world coordinates of a part of the image."""
    found = dict(cards)
    for name, value in cards.items():
        if re.fullmatch(r"CRPIX[12][A-Z]?", name):
            found[name] = value - (left if name[5] == "1" else below)
    return found
