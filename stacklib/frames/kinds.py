"""Tell light frames from masters, maps and calibration frames by their headers and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stacklib.errors import FrameError
from stacklib.frames.frame import Frame
from stacklib.utils.labels import listed, quoted

__all__ = ["CALIBRATION", "Kind", "calibration_kind", "kind_of", "sift"]

#: Keywords with the kind of an image, and with the number of frames in it.
TYPES = ("IMAGETYP", "FRAME", "FRAMETYP", "OBSTYPE")
COUNTS = ("NCOMBINE", "STACKCNT")
#: What these texts say, in this order; a "Master Dark" is a master.
MASTER, CALIBRATION = "master", ("dark", "flat", "bias")
_TYPES = {
    MASTER: re.compile(r"master|stack|integrat", re.IGNORECASE),
    "dark": re.compile(r"dark", re.IGNORECASE),
    "flat": re.compile(r"flat", re.IGNORECASE),
    "bias": re.compile(r"bias|offset|zero", re.IGNORECASE),
}
#: Names that programs and people give to these images.
_NAMES = {
    MASTER: re.compile(
        r"^master|^stack(?:ed)?[_ \d]|^autosave|^(?:drizzle_)?integration|(?:^|_)(?:result|stacked)(?:_|$)",
        re.IGNORECASE,
    ),
    "dark": re.compile(r"^darks?(?:[_ -]?\d|$)", re.IGNORECASE),
    "flat": re.compile(r"^flats?(?:[_ -]?\d|$)", re.IGNORECASE),
    "bias": re.compile(r"^(?:bias|offsets?(?:[_ -]?\d|$))", re.IGNORECASE),
}
_MAP = re.compile(r"_(rejection_low|rejection_high|coverage|uncertainty|slope)\.\w+$")


class Kind(NamedTuple):
    """What an image is, if it is not a light frame."""

    what: str  # `MASTER`, "map" or one of `CALIBRATION`
    words: str  # with the evidence
    certain: bool  # by its header; otherwise by its name or by a count that lights may have as well


def kind_of(frame: Frame) -> Kind | None:
    """Return what an image is, or None for a light frame."""
    keywords = frame.keywords
    own = "stacklib:Run" in frame.properties or str(keywords.get("SWMODIFY", "")).startswith("stacklib ")
    if own:
        shown = _MAP.search(frame.path.name)
        return Kind("map" if shown else MASTER, "a result of stacklib", True)
    said = {name: str(keywords[name]).strip() for name in TYPES if name in keywords}
    for name, text in said.items():
        for what, pattern in _TYPES.items():
            if pattern.search(text):
                return Kind(what, f"{_with_article(what)} ({name} {quoted(text)})", True)
    for name in COUNTS:
        count = keywords.get(name)
        if _is_several(count):
            return Kind(MASTER, f"a stack ({name} {count:g})", False)
    if any(re.search("light|object", text, re.IGNORECASE) for text in said.values()):
        return None
    for what, pattern in _NAMES.items():
        if pattern.search(frame.path.name.partition(".")[0]):
            return Kind(what, f"{_with_article(what)}, going by the name", False)
    return None


def calibration_kind(frames: Sequence[Frame]) -> str:
    """Return which of `CALIBRATION` all frames are; empty if they are not of one such kind."""
    kinds = {kind.what if (kind := kind_of(frame)) else "" for frame in frames}
    only = kinds.pop() if len(kinds) == 1 else ""
    return only if only in CALIBRATION else ""


def sift(frames: Sequence[Frame], named: Sequence[bool]) -> tuple[list[bool], list[str]]:
    """Return which frames to use, and notes about the others: masters, maps and calibration frames.

    Without light frames, all are used: someone averages darks, with a note, or masters. What only looks
    like a master, such as a frame that the camera stacked, is left out if most others do not. A master that
    the user named is used, with a note.

    Parameters
    ----------
    frames : sequence of Frame
        The opened files.
    named : sequence of bool
        Which of them the user named one by one.

    Raises
    ------
    FrameError
        If the user named a calibration frame or a map among light frames.
    """
    kinds = [kind_of(frame) for frame in frames]
    doubtful = sum(kind is not None and not kind.certain for kind in kinds)
    lights = sum(kind is None for kind in kinds)
    if doubtful >= lights:
        kinds = [kind if kind is not None and kind.certain else None for kind in kinds]
        lights += doubtful
    odd = [i for i, kind in enumerate(kinds) if kind is not None]
    if not lights or not odd:
        return [True] * len(frames), _without_lights(frames, kinds)
    for i in odd:
        kind = kinds[i]
        if named[i] and kind is not None and kind.certain and kind.what != MASTER:
            words = kind.words if kind.what != "map" else "a map of stacklib"
            raise FrameError(
                f"{frames[i].path}: is {words} among {lights} light frames; take it off the list"
                + (", or correct its header" if kind.what != "map" else "")
            )
    used = [kind is None or named[i] for i, kind in enumerate(kinds)]
    notes = []
    kept = [i for i in odd if used[i]]
    if kept:
        notes.append(
            f"{_each([frames[i].path for i in kept], kinds, kept)}: used among {lights} light frames, as "
            "named; leave this out of the list if you did not mean it"
        )
    gone = [i for i in odd if not used[i]]
    if gone:
        notes.append(
            f"{len(gone)} of {len(frames)} images are left out, as they are not light frames: "
            f"{_each([frames[i].path for i in gone], kinds, gone)}"
        )
    return used, notes


def _without_lights(frames: Sequence[Frame], kinds: Sequence[Kind | None]) -> list[str]:
    """Say that a set is one of calibration frames or maps."""
    places = [i for i, kind in enumerate(kinds) if kind is not None]
    if all(kind is None or kind.what == MASTER for kind in kinds):
        return []
    shown = _each([frames[i].path for i in places], kinds, places)
    return [
        f"no light frames: {shown}; all are used. For calibration frames there are the presets bias, dark "
        "and flat"
    ]


def _each(paths: Sequence[Path], kinds: Sequence[Kind | None], places: Sequence[int]) -> str:
    """Name the files, those of one kind together."""
    alike: dict[str, list[str]] = {}
    for path, i in zip(paths, places, strict=True):
        kind = kinds[i]
        alike.setdefault(kind.words if kind else "", []).append(path.name)
    return "; ".join(f"{listed(names, most=3)} ({words})" for words, names in alike.items())


def _with_article(what: str) -> str:
    return f"a {what}" if what in (MASTER, "bias") else f"a {what} frame"


def _is_several(count: Any) -> bool:
    return isinstance(count, int | float) and not isinstance(count, bool) and count > 1
