"""Headers of FITS files: their cards as Python values, with a note on each one that cannot be used.

Cards that leave no doubt are read here, in a tenth of the time. All others are left to astropy, which is
imported when it is needed: that takes longer than to open hundreds of frames.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import warnings
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacklib.errors import FrameError
from stacklib.formats.source import COMMENTARY, LARGEST, clean_text, parse_decimal_comma, repeated_note
from stacklib.formats.xisf_write import ascii_text
from stacklib.utils.labels import listed, quoted

if TYPE_CHECKING:
    from astropy.io.fits import Card

__all__ = [
    "CARD",
    "MAX_HEADERS",
    "RECORD",
    "astropy_alone",
    "header_bytes",
    "number",
    "parse_header",
    "whole",
]

RECORD = 2880
CARD = 80
#: Largest size of all headers of a file together. Real ones have a few hundred cards of 80 bytes.
MAX_HEADERS = 16 * 2**20
#: Cards of a header that are read, besides those that say where and how the pixels are stored.
MAX_CARDS = 5000
#: Broken cards that are named one by one.
NAMED = 20

#: Cards that say where and how the pixels are stored.
ESSENTIAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|[PG]COUNT|BSCALE|BZERO|BLANK|ROWORDER|EXTNAME|INHERIT"
    r"|Z[A-Z]+\d*|T(FIELDS|FORM|TYPE)\d*|THEAP"
)
#: Of these, the sizes. The file is rejected if one of them has two values ...
STRUCTURE = re.compile(r"BITPIX|NAXIS\d*|[PG]COUNT")
#: ... and if one of these numbers is broken or empty.
NUMBERS = re.compile(rf"{STRUCTURE.pattern}|BSCALE|BZERO")
#: A card whose value is beyond doubt a text, a switch or a number. A text with a colon may be a record, with
#: fields of its own.
PLAIN = re.compile(
    r"(?=.{8}= )([A-Z0-9_-]+) *= +"
    r"(?:'((?:[^':]|:(?! ))*)'|([TF])|([+-]?\d{1,18})|([+-]?\d+\.\d*(?:E[+-]?\d\d?)?)) *(?:/.*)?"
)

# warnings.catch_warnings affects the whole process, so only one thread may use it at a time.
_lock = threading.Lock()


@contextlib.contextmanager
def astropy_alone(category: type[Warning] | None = None) -> Iterator[None]:
    """Let one thread at a time use astropy, without warnings of a category, by default those of astropy."""
    from astropy.utils.exceptions import AstropyWarning

    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", category or AstropyWarning)
        yield


def header_bytes(stream: BufferedIOBase, path: Path, first: bool, room: int = MAX_HEADERS) -> bytes | None:
    """Read one header of at most `room` bytes up to its END card. Returns None after the last HDU."""
    content = bytearray()
    while len(content) < room:
        record = stream.read(RECORD)
        if not content:
            if first and not record.startswith(b"SIMPLE  ="):
                found = record[:9]
                xisf = found.startswith(b"XISF0100")
                kind = "an XISF file, so name it .xisf" if xisf else "not a FITS file"
                raise FrameError(f"{path}: starts with {found!r}, expected 'SIMPLE  ='; this is {kind}")
            if not first and not record.startswith(b"XTENSION"):
                return None
        if len(record) < RECORD:
            raise FrameError(
                f"{path}: the header has no END card; the file is truncated, copy it again or leave it out"
            )
        content += record
        if "END" in _names(record):
            return bytes(content)
    raise FrameError(
        f"{path}: its headers have more than {MAX_HEADERS} bytes, or no END card; leave the file out"
    )


def _names(content: bytes) -> list[str]:
    """Return the names of the cards. Some programs fill the rest of a record with NULs, not with spaces.

    A card END with a value is an ordinary keyword with an odd name, and does not end the header.
    """
    text = content.decode("latin-1")
    names = [text[start : start + 8].rstrip("\0 ").upper() for start in range(0, len(text), CARD)]
    for i, name in enumerate(names):
        if name == "END" and re.search("[!-~]", text[CARD * i + 8 : CARD * (i + 1)]):
            names[i] = ""
    return names


#: The standard allows only printable ASCII, but degree signs and NULs are common.
PRINTABLE = bytes(code if 32 <= code < 127 else ord("?" if code else " ") for code in range(256))


def _text(content: bytes) -> str:
    """Return the cards as printable ASCII. Accents are dropped, so that the names of targets survive."""
    plain = content.translate(PRINTABLE)
    if b"?" not in plain:
        return plain.decode("ascii")
    starts = range(0, len(content), CARD)
    return "".join(_card_text(content[start : start + CARD], plain[start : start + CARD]) for start in starts)


def _card_text(card: bytes, plain: bytes) -> str:
    try:
        text = card.decode("utf-8")
    except UnicodeDecodeError:
        text = card.decode("latin-1")
    text = ascii_text(text).rstrip()
    return text.ljust(CARD) if len(text) <= CARD else plain.decode("ascii")


def parse_header(content: bytes, path: Path, essential: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return the keywords of a header (first occurrence) and notes on cards that cannot be used.

    With `essential`, only the cards are read that say where and how the pixels are stored.
    """
    notes: list[str] = []
    text = _text(_chosen_cards(content, essential, notes))
    values: dict[str, Any] = {}
    repeated: dict[str, None] = {}
    broken: list[str] = []
    for image in _images(text):
        name, value = _plain_card(image) or _any_card(image, path, broken)
        if isinstance(value, str):
            value = clean_text(value.strip())
        if (value is None or value == "") and NUMBERS.fullmatch(name):
            raise _no_number(path, name, "empty")
        if not name or value is None:
            continue
        if name not in COMMENTARY and values.get(name, value) != value:
            if STRUCTURE.fullmatch(name):
                found = f"{quoted(values[name])} and {quoted(value)}"
                raise FrameError(f"{path}: {name} is {found}, expected one value; leave the file out")
            repeated[name] = None
        values.setdefault(name, value)
    notes += broken[:NAMED]
    if len(broken) > NAMED:
        notes.append(f"{len(broken) - NAMED} more cards cannot be read; they are left out")
    if repeated:
        notes.append(repeated_note(repeated))
    return values, notes


def _chosen_cards(content: bytes, essential: bool, notes: list[str]) -> bytes:
    """Return the cards to read: no more than a header may have, and comments once, as only the first is used.

    A card that continues another one stays with it.
    """
    names = _names(content)
    end = names.index("END")
    after = [name for name in names[end + 1 :] if name and re.fullmatch(r"[A-Z0-9_-]+", name)]
    if after and not essential:
        notes.append(f"has cards after its END, which are left out: {listed(after)}")
    names = names[:end]
    said: set[str] = set()
    kept: list[int] = []
    keep, seen = False, 0
    for i, name in enumerate(names):
        if name != "CONTINUE":
            keep = name != "" and name not in said
            seen += keep
            if essential or seen > MAX_CARDS:
                keep = keep and ESSENTIAL.fullmatch(name) is not None
            if name in COMMENTARY:
                said.add(name)
        if keep:
            kept.append(i)
    if seen > MAX_CARDS and not essential:
        notes.append(f"has {seen} cards; those after the first {MAX_CARDS} are left out")
    return b"".join(content[CARD * i : CARD * (i + 1)] for i in kept)


def _no_number(path: Path, name: str, found: str) -> FrameError:
    return FrameError(f"{path}: {name} is {found}, expected a number; repair the card or leave the file out")


def _images(text: str) -> Iterator[str]:
    """Yield the text of each card, with those that continue it."""
    start = 0
    for end in range(CARD, len(text) + CARD, CARD):
        if not text.startswith("CONTINUE", end):
            yield text[start:end]
            start = end


def _plain_card(image: str) -> tuple[str, Any] | None:
    """Return name and value of a card that leaves no doubt about them, as astropy does; None for others.

    Only an empty text before a comment with a quote is read as the standard says: astropy takes the comment.
    """
    if len(image) > CARD:
        return None
    if image.startswith(("COMMENT ", "HISTORY ")):
        return image[:7], image[8:]
    found = PLAIN.fullmatch(image)
    if found is None or found[1] in COMMENTARY:
        return None
    name, text, switch, whole, real = found.groups()
    if text is not None:
        return name, text
    if switch is not None:
        return name, switch == "T"
    return name, int(whole) if whole is not None else float(real)


def _any_card(image: str, path: Path, broken: list[str]) -> tuple[str, Any]:
    """Return name and value of a card as astropy reads them.

    The value is None if it has none or cannot be read, which is added to `broken`.
    """
    from astropy.io.fits import Card

    with astropy_alone():
        card = Card.fromstring(image)
        name = card.keyword.upper()
        return name, _card_value(card, name, path, broken)


def _card_value(card: Card, name: str, path: Path, broken: list[str]) -> Any:
    from astropy.io.fits.card import Undefined
    from astropy.io.fits.verify import VerifyError

    errors = (VerifyError, ValueError, TypeError, IndexError)
    reason = ""
    try:
        value = card.value
        if isinstance(value, Undefined):
            return None
        if value is None or isinstance(value, bool | str):
            return value
        # An integer beyond 64 bits is no number that anyone counts with.
        if isinstance(value, int):
            return value if abs(value) < LARGEST else str(value)
        if isinstance(value, float) and math.isfinite(value):
            return value
    except errors as error:
        reason = "" if isinstance(error, VerifyError) else f" ({error})"
    shown = str(card._image)[8:CARD].partition("/")[0].strip("= ")
    if name in ("BSCALE", "BZERO", "BLANK"):
        raise _no_number(path, name, quoted(shown)) from None
    value = parse_decimal_comma(shown)
    if value is not None:
        return value
    alone = str(card._image)[:CARD]
    if len(card._image) > CARD:
        with contextlib.suppress(*errors):
            value = type(card).fromstring(alone).value
            broken.append(f"a CONTINUE card after {name} cannot be read; it is left out")
            if isinstance(value, Undefined):
                return None
            return value.rstrip().removesuffix("&") if isinstance(value, str) else value
    if NUMBERS.fullmatch(name):
        raise _no_number(path, name, quoted(shown))
    broken.append(f"card {name} has an invalid value {quoted(shown)}{reason}; it is left out")
    return None


def whole(header: dict[str, Any], name: str, path: Path, allowed: tuple[int, ...] | range) -> int:
    """Return a whole number of the header. ``80.`` counts as one, since MATLAB writes it."""
    value = header.get(name)
    if isinstance(value, float) and value.is_integer():
        value = header[name] = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        least = f"a whole number of at least {allowed[0]}"
        expected = least if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise FrameError(
            f"{path}: {name} is {quoted(header.get(name))}, expected {expected}; the header is damaged, "
            "leave the file out"
        )
    return value


def number(header: dict[str, Any], name: str, default: float, path: Path) -> float:
    """Return a finite number of the header."""
    value = header.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FrameError(f"{path}: {name} is {quoted(value)}, expected a finite number; leave the file out")
    return float(value)
