"""Short labels: lists and values cut short, and the part of a file name that differs."""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Collection, Sequence
from typing import Any

__all__ = ["channel_names", "clipped", "counted", "hint", "listed", "own_parts", "quoted", "shortened"]

#: Longest value quoted in an error.
QUOTED = 60


def channel_names(count: int) -> tuple[str, ...]:
    """Return short names of the channels: R, G and B, nothing for a single one, otherwise numbers from 0.

    Examples
    --------
    >>> channel_names(3), channel_names(1), channel_names(2)
    (('R', 'G', 'B'), ('',), ('channel 0', 'channel 1'))
    """
    known = {1: ("",), 3: ("R", "G", "B")}
    return known.get(count, tuple(f"channel {i}" for i in range(count)))


def clipped(text: str, most: int) -> str:
    """Return a text with its middle replaced by dots if it is longer than `most` characters.

    Examples
    --------
    >>> clipped("M101_Light_0007_c_d_r.xisf", 15)
    'M101_L...r.xisf'
    """
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[: most - 3 - half]}...{text[-half:]}"


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts.

    Examples
    --------
    >>> counted(1, "frame"), counted(3, "frame")
    ('1 frame', '3 frames')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def hint(name: str, known: Collection[str], what: str) -> str:
    """Suggest the known name closest to a misspelled one, or list some of them."""
    near = difflib.get_close_matches(name[:QUOTED], known, n=1)
    return f"did you mean {near[0]}?" if near else f"known {what}: {listed(list(known), most=10)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the names in a row, cut short after `most` of them.

    Examples
    --------
    >>> listed(["a.fits", "b.fits", "c.fits"], most=2)
    'a.fits, b.fits and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def quoted(value: Any, most: int = QUOTED) -> str:
    """Return a value as an error quotes it: on one line, printable, and short whatever it holds.

    Examples
    --------
    >>> quoted("3.2"), quoted([1] * 1000), quoted(10**400)
    ("'3.2'", '[1, 1, 1, 1, 1, 1, ...]', 'a whole number of about 401 digits')
    """
    return clipped(_SHORT.repr(value), most)


class _ShortRepr(reprlib.Repr):
    """Representation whose length and cost do not grow with the value, not even with nested lists."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 2 * QUOTED, 2 * QUOTED

    def repr_int(self, value: int, level: int) -> str:
        """Return the digits of an integer, or their number: Python refuses to write very many."""
        digits = round(value.bit_length() * 0.30103)
        return repr(value) if digits <= QUOTED else f"a whole number of about {digits + 1} digits"


_SHORT = _ShortRepr()


def own_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return the part of each name that differs, in whole words. Never empty.

    Examples
    --------
    >>> own_parts(["M101_Light_0007_c_d_r.xisf", "M101_Light_0012_c_d_r.xisf"])
    ('0007', '0012')
    """
    return tuple(name[start:stop] for name, (start, stop) in zip(names, _spans(names), strict=True))


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Shorten names to `width` characters, dropping what they have in common first."""
    if max(map(len, names)) <= width:
        return list(names)
    return [_shorten(name, *span, width) for name, span in zip(names, _spans(names), strict=True)]


def _shorten(name: str, start: int, stop: int, width: int) -> str:
    own = name[start:stop]
    if stop <= width:
        return name[:stop]
    if len(own) + 3 <= width:
        return f"{name[: width - 2 - len(own)]}..{own}"
    if len(own) <= width:
        return own
    tail = (width - 2) // 2
    return f"{own[: width - 2 - tail]}..{own[len(own) - tail :]}"


def _spans(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the differing part of each name starts and stops."""
    # Character by character, as names are not paths.
    start = len(os.path.commonprefix(names))  # noqa: RUF071
    stop = len(os.path.commonprefix([name[::-1] for name in names]))  # noqa: RUF071
    shortest = min(map(len, names))
    if len(names) < 2 or start == shortest:
        return [(0, len(name)) for name in names]
    # Extend to whole words: back to the separator on the left, forward to the one on the right.
    start = max((found.end() for found in re.finditer(r"[^A-Za-z0-9]", names[0][:start])), default=0)
    ending = names[0][len(names[0]) - min(stop, shortest - start) :]
    separator = re.search(r"[^A-Za-z0-9]", ending)
    stop = len(ending) - separator.start() if separator else 0
    if any(start >= len(name) - stop for name in names):
        return [(0, len(name)) for name in names]
    return [(start, len(name) - stop) for name in names]
