"""Headers of FITS files: their cards as Python values, with a note on each one that cannot be used."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.utils.exceptions import AstropyWarning

from stacklib.errors import FrameError
from stacklib.formats.source import COMMENTARY, clean_text, parse_decimal_comma, repeated_note
from stacklib.formats.xisf_write import ascii_text

__all__ = ["RECORD", "astropy_alone", "header_bytes", "number", "parse_header", "whole"]

RECORD = 2880
CARD = 80
#: Real headers have a few hundred cards. A header of this size is damaged or malicious.
MAX_HEADER = 16 * 2**20

#: Cards that define the pixel values. The file is rejected if one of them is broken.
PIXEL_CARDS = ("BSCALE", "BZERO", "BLANK")
_BROKEN = (VerifyError, ValueError, TypeError, IndexError)

# warnings.catch_warnings affects the whole process, so only one thread may use it at a time.
_lock = threading.Lock()


@contextlib.contextmanager
def astropy_alone(category: type[Warning] = AstropyWarning) -> Iterator[None]:
    """Let one thread at a time use astropy, without its warnings of this category."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def header_bytes(stream: BufferedIOBase, path: Path, first: bool) -> bytes | None:
    """Read one header up to its END card. Returns None after the last HDU."""
    content = bytearray()
    while len(content) < MAX_HEADER:
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
        # Some programs fill the rest of the record with NULs instead of spaces.
        names = (record[start : start + 8].rstrip(b"\0 ") for start in range(0, RECORD, CARD))
        if b"END" in names:
            return bytes(content)
    raise FrameError(f"{path}: has no END card in the first {MAX_HEADER} bytes; this is not a FITS file")


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


def parse_header(content: bytes, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the keywords of a header (first occurrence) and notes on cards that cannot be used."""
    text = _text(content)
    values: dict[str, Any] = {}
    notes: list[str] = []
    repeated: dict[str, None] = {}
    with astropy_alone():
        for card in fits.Header.fromstring(text).cards:
            name = card.keyword.upper()
            value = _card_value(card, name, text, path, notes)
            if isinstance(value, str):
                value = clean_text(value.strip())
            if not name or isinstance(value, fits.card.Undefined | None):
                continue
            if name not in COMMENTARY and values.get(name, value) != value:
                repeated[name] = None
            values.setdefault(name, value)
    if repeated:
        notes.append(repeated_note(repeated))
    return values, notes


def _card_value(card: fits.Card, name: str, header: str, path: Path, notes: list[str]) -> Any:
    """Return the value of a card, or None with a note if it cannot be read."""
    reason = ""
    try:
        value = card.value
        if not isinstance(value, float) or math.isfinite(value):
            return value
    except _BROKEN as error:
        reason = "" if isinstance(error, VerifyError) else f" ({error})"
    shown = _raw_value(header, name)
    if name in PIXEL_CARDS:
        remedy = "repair the card or leave the file out"
        raise FrameError(f"{path}: {name} is {shown!r}, expected a number; {remedy}") from None
    value = parse_decimal_comma(shown)
    if value is not None:
        return value
    alone = str(card._image)[:CARD]
    if len(card._image) > CARD:
        with contextlib.suppress(*_BROKEN):
            value = fits.Card.fromstring(alone).value
            notes.append(f"a CONTINUE card after {name} cannot be read; it is left out")
            return value.rstrip().removesuffix("&") if isinstance(value, str) else value
    notes.append(f"card {name} has an invalid value {shown!r}{reason}; it is left out")
    return None


def _raw_value(header: str, name: str) -> str:
    """Return the raw value of the first card with this name."""
    for start in range(0, len(header), CARD):
        if header[start : start + 8].rstrip().upper() == name:
            return header[start + 8 : start + CARD].partition("/")[0].strip("= ")
    return ""


def whole(header: dict[str, Any], name: str, path: Path, allowed: tuple[int, ...] | range) -> int:
    """Return a whole number of the header. ``80.`` counts as one, since MATLAB writes it."""
    value = header.get(name)
    if isinstance(value, float) and value.is_integer():
        value = header[name] = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        least = f"a whole number of at least {allowed[0]}"
        expected = least if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise FrameError(
            f"{path}: {name} is {header.get(name)!r}, expected {expected}; the header is damaged, leave the "
            "file out"
        )
    return value


def number(header: dict[str, Any], name: str, default: float, path: Path) -> float:
    """Return a finite number of the header."""
    value = header.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FrameError(f"{path}: {name} is {value!r}, expected a finite number; leave the file out")
    return float(value)
