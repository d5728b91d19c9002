"""Read and write XISF, the file format of PixInsight.

Headers are fully validated when read, because files may come from untrusted sources. Writing uses the
`xisf` package.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from stacklib.errors import FrameError
from stacklib.formats.source import (
    COMMENTARY,
    LARGEST,
    ImageSource,
    clean_text,
    parse_keyword,
    regular_file_size,
    repeated_note,
    unreadable,
)
from stacklib.formats.xisf_blocks import find_block, local_name, refuse
from stacklib.formats.xisf_write import write_image
from stacklib.utils.labels import clipped, listed, quoted

__all__ = ["open_image", "parse_xml", "write_image"]

SIGNATURE = b"XISF0100"
HEADER_START = 16
MAX_HEADER = 64 * 2**20
MAX_ELEMENTS = 200_000
#: Attributes of all elements together: three for each keyword.
MAX_ATTRIBUTES = 3 * MAX_ELEMENTS
ATTRIBUTE = re.compile(rb"=\s*[\"']")
MAX_DEPTH = 64
#: Longest name and longest text of a keyword. FITS files hold no longer ones either.
LONGEST_NAME, LONGEST_TEXT = 72, 2**16
#: Longest whole number of a property, in characters.
MOST_DIGITS = 80
#: 100 gigapixels, more than any camera or mosaic.
MAX_SAMPLES = 10**11
#: Largest size of one property block, and of all of them in a file. The record of a run takes about a
#: thousand bytes per frame.
MAX_PROPERTY = 2**23
MAX_PROPERTIES = 2**24

GEOMETRY = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})", re.ASCII)

#: XISF sample formats.
SAMPLE_FORMATS = {
    "UInt8": "u8",
    "Byte": "u8",
    "UInt16": "u16",
    "UShort": "u16",
    "UInt32": "u32",
    "UInt": "u32",
    "Float32": "f32",
    "Float": "f32",
    "Float64": "f64",
    "Double": "f64",
}

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

#: NumPy types of vector and matrix properties, such as I16 -> i2.
ELEMENT_TYPES = {"": "f8", "I": "i4", "UI": "u4", "F32": "f4", "F64": "f8"}
ELEMENT_TYPES |= {f"I{8 * size}": f"i{size}" for size in (1, 2, 4, 8)}
ELEMENT_TYPES |= {f"UI{8 * size}": f"u{size}" for size in (1, 2, 4, 8)}


def open_image(path: str | Path) -> ImageSource:
    """Open an XISF file. Reads and validates the header, but reads no pixels.

    The largest image is used, the first one in a tie, without its alpha channels.

    Integers are divided by ``2**bits - 1``. Floats, and integers with bounds, are mapped by their bounds.

    Parameters
    ----------
    path : str or Path
        A monolithic XISF file.

    Returns
    -------
    ImageSource
        The opened image. Further images, alpha channels and unreadable properties are listed in its `notes`.

    Raises
    ------
    FrameError
        If the file is missing, damaged or not a valid XISF image.
    """
    path = Path(path)
    file_size = regular_file_size(path)
    root, header_end = read_header(path, file_size)
    images = [element for element in root if local_name(element) == "Image"]
    if not images:
        raise FrameError(f"{path}: has no Image element, expected an XISF image; leave the file out")
    areas = [_area(element) for element in images]
    image = images[areas.index(max(areas))]
    source = _image_source(image, path, file_size, header_end)
    if len(images) > 1:
        which = "first" if len(set(areas)) == 1 else "largest"
        source.notes.append(
            f"holds {len(images)} images; the {which} one is used ({source.width} x {source.height} pixels)"
        )
    source.keywords = _keywords(image, source.notes)
    source.properties = _Properties(path, file_size, header_end, source.notes).read(image)
    pattern = _filter_pattern(image, source.notes)
    if pattern:
        source.properties.setdefault("PCL:CFASourcePattern", pattern)
    source.row_order = "top-down"
    return source


def _filter_pattern(image: Element, notes: list[str]) -> str:
    """Return the color filter pattern of a mosaic, empty for none. What is not heeded is noted."""
    found = next((element for element in image if local_name(element) == "ColorFilterArray"), None)
    orientation, offset = (image.get(name, "0").strip() for name in ("orientation", "offset"))
    if orientation not in ("", "0"):
        notes.append(f"orientation {quoted(orientation)} is not applied; the rows are used as stored")
    if offset and parse_keyword(offset) != 0:
        notes.append(f"offset {quoted(offset)} (a pedestal) is not subtracted")
    pattern = "" if found is None else clean_text(found.get("pattern", "")).strip()
    if found is not None and not re.fullmatch(r"[A-Z0]+", pattern):
        notes.append(
            f"the pattern of its ColorFilterArray is {quoted(pattern)}, expected letters; it is left out"
        )
        return ""
    return pattern


class _CappedBuilder(TreeBuilder):
    """Build the element tree, and stop if it grows too large or too deep."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__()
        self._path, self._what, self._count, self._depth = path, what, 0, 0

    def start(self, tag: Any, attrs: Any) -> Element:
        self._count += 1
        self._depth += 1
        if self._count > MAX_ELEMENTS:
            raise self._too_large(f"has more than {MAX_ELEMENTS} elements")
        if self._depth > MAX_DEPTH:
            raise self._too_large(f"is nested more than {MAX_DEPTH} levels deep")
        return super().start(tag, attrs)

    def end(self, tag: Any) -> Element:
        self._depth -= 1
        return super().end(tag)

    def _too_large(self, found: str) -> FrameError:
        return FrameError(f"{self._path}: {self._what} {found}; leave the file out")


def read_header(path: Path, file_size: int) -> tuple[Element, int]:
    """Read and check the header of an XISF 1.0 file. Returns its root element and the offset of its end."""
    try:
        with path.open("rb") as stream:
            start = stream.read(HEADER_START)
            if start[:8] != SIGNATURE:
                fits = start.startswith(b"SIMPLE")
                kind = "a FITS file, so name it .fits" if fits else "not an XISF file"
                raise refuse(path, "signature", start[:8], repr(SIGNATURE), f"this is {kind}")
            length = int.from_bytes(start[8:12], "little")
            if len(start) < HEADER_START or length == 0 or length > min(file_size - HEADER_START, MAX_HEADER):
                room = min(max(file_size - HEADER_START, 0), MAX_HEADER)
                raise refuse(path, "header length", length, f"1 to {room} bytes", "copy the file again")
            content = stream.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    root = parse_xml(content.rstrip(b"\0"), path)
    if local_name(root) != "xisf":
        raise refuse(path, "root element", local_name(root), "xisf")
    if root.get("version") != "1.0":
        raise refuse(path, "version", root.get("version"), "'1.0'")
    return root, HEADER_START + length


def parse_xml(content: bytes, path: Path, what: str = "the header") -> Element:
    """Parse XML from an untrusted source: UTF-8 without a DOCTYPE, of a bounded size.

    Parameters
    ----------
    content : bytes
        The XML.
    path : Path
        File for error messages.
    what : str
        What the XML is, for error messages.

    Returns
    -------
    Element
        The root element.

    Raises
    ------
    FrameError
        If it is not valid XML or has too many elements, attributes or levels.
    """
    try:
        # XISF headers are UTF-8, whatever the XML declaration claims.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FrameError(
            f"{path}: {what} is not valid UTF-8 at byte {error.start}; copy the file again"
        ) from None
    if sum(1 for _ in itertools.islice(ATTRIBUTE.finditer(content), MAX_ATTRIBUTES + 1)) > MAX_ATTRIBUTES:
        raise FrameError(f"{path}: {what} has more than {MAX_ATTRIBUTES} attributes; leave the file out")
    parser = DefusedXMLParser(target=_CappedBuilder(path, what), forbid_dtd=True)
    try:
        parser.feed(text)
        root = parser.close()
    except DefusedXmlException:
        raise FrameError(f"{path}: {what} has a DOCTYPE, expected plain XML; leave the file out") from None
    except (ParseError, ValueError) as error:
        reason = clean_text(str(error))[:100]
        raise FrameError(f"{path}: {what} is not valid XML ({reason}); copy the file again") from None
    if root is None:
        raise FrameError(f"{path}: {what} is empty, expected XML; copy the file again")
    return root


def _area(image: Element) -> int:
    match = GEOMETRY.fullmatch(image.get("geometry", ""))
    return int(match[1]) * int(match[2]) if match else 0


def _image_source(image: Element, path: Path, file_size: int, header_end: int) -> ImageSource:
    geometry = image.get("geometry", "")
    match = GEOMETRY.fullmatch(geometry)
    width, height, planes = map(int, match.groups()) if match else (0, 0, 0)
    samples = width * height * planes
    if not 1 <= samples <= MAX_SAMPLES:
        raise refuse(path, "geometry", geometry, "width:height:channels, whole numbers of at least 1")
    sample_format = SAMPLE_FORMATS.get(image.get("sampleFormat", ""))
    if sample_format is None:
        known = "UInt8, UInt16, UInt32, Float32 or Float64"
        raise refuse(path, "sampleFormat", image.get("sampleFormat"), known)
    order = _choice(image, "byteOrder", {"little": "<", "big": ">"}, "little", path)
    interleaved = _choice(image, "pixelStorage", {"planar": False, "normal": True}, "planar", path)
    # By the standard the default is gray, but a file that names no color space and has three planes is color.
    channels = _choice(
        image, "colorSpace", {"gray": 1, "rgb": 3}, "rgb" if planes in (3, 4) else "gray", path
    )
    if planes < channels:
        raise refuse(path, "geometry", geometry, f"{channels} channels for the color space RGB")
    bits = int(sample_format[1:])
    integer = sample_format[0] == "u"
    full_scale = 2.0**bits - 1 if integer else 1.0
    notes: list[str] = []
    low, high = _bounds(image, path, full_scale, notes)
    stored = np.dtype(f"{order}{sample_format[0]}{bits // 8}")
    block = find_block(image, path, file_size, header_end)
    expected = samples * stored.itemsize
    if block.decoded_size != expected:
        field = "compression size" if block.compression else "block size"
        raise refuse(path, field, block.decoded_size, f"{expected} bytes for {geometry} {sample_format}")
    if planes > channels:
        kept = "the first channel is" if channels == 1 else "the first three channels are"
        notes.append(f"has {planes - channels} alpha (transparency) of {planes} channels; {kept} used")
    return ImageSource(
        path=path,
        channels=channels,
        height=height,
        width=width,
        sample_format=sample_format,
        integer=integer,
        full_scale=high - low if integer else 1.0,
        stored=stored,
        block=block.open(),
        zero=-low,
        divisor=high - low,
        interleaved=interleaved and planes > 1,
        notes=notes,
        planes=planes,
    )


def _choice(image: Element, name: str, known: dict[str, Any], default: str, path: Path) -> Any:
    text = image.get(name, default)
    if text.lower() not in known:
        raise refuse(path, name, text, " or ".join(known))
    return known[text.lower()]


def _bounds(image: Element, path: Path, full_scale: float, notes: list[str]) -> tuple[float, float]:
    """Return the stored values that mean 0 and 1."""
    text = image.get("bounds")
    integer = full_scale > 1
    if text is None and integer:
        return 0.0, full_scale
    if text is None:
        notes.append("has no bounds for its floating-point samples; 0:1 is assumed")
        return 0.0, 1.0
    values = []
    with contextlib.suppress(ValueError):
        values = [float(part) for part in text.split(":") if "_" not in part]
    if len(values) != 2 or not math.isfinite(values[1] - values[0]):
        raise refuse(path, "bounds", text, "two finite numbers, low:high")
    if values[0] >= values[1]:
        raise refuse(path, "bounds", text, "a lower bound below the upper one")
    if integer and values[1] - values[0] <= 1:
        notes.append(
            f"bounds {clipped(text, LONGEST_NAME)} cannot be those of integers; 0:{full_scale:.0f} is used"
        )
        return 0.0, full_scale
    return values[0], values[1]


def _keywords(image: Element, notes: list[str]) -> dict[str, Any]:
    keywords: dict[str, Any] = {}
    repeated: dict[str, None] = {}
    unusable: dict[str, None] = {}
    for element in image:
        if local_name(element) == "FITSKeyword":
            name = clean_text(element.get("name", "")).strip().upper()
            text = element.get("value", "")
            if name in ("HISTORY", "COMMENT") and not text.strip():
                text = element.get("comment", "")
            if not name:
                continue
            if len(name) > LONGEST_NAME or len(text) > LONGEST_TEXT:
                unusable[name] = None
                continue
            value = parse_keyword(text)
            if name not in COMMENTARY and keywords.get(name, value) != value:
                repeated[name] = None
            keywords.setdefault(name, value)
    if unusable:
        names = listed([quoted(name) for name in unusable], most=10)
        notes.append(f"keywords with too long a name or value are left out: {names}")
    if repeated:
        notes.append(repeated_note(repeated))
    return keywords


def _left_out(names: list[str], why: str) -> list[str]:
    """Return the note on properties that are not used."""
    if not names:
        return []
    noun, are, they = ("property", "is", "it is") if len(names) == 1 else ("properties", "are", "they are")
    why = why if why.startswith("cannot") else f"{are} {why}"
    return [f"{noun} {listed(names, most=10)} {why}; {they} left out"]


def _whole(text: str) -> int:
    """Return a whole number of at most 64 bits. Raises `ValueError` for others."""
    if len(text) > MOST_DIGITS:
        raise ValueError("too many digits")
    value = int(text, 0) if text[:2].lower() in ("0x", "0b", "0o") else int(text)
    if abs(value) >= LARGEST:
        raise ValueError("too large")
    return value


class _Properties:
    """Reader for the properties of an image. Unreadable properties are noted and skipped."""

    def __init__(self, path: Path, file_size: int, header_end: int, notes: list[str]) -> None:
        self._path, self._file_size, self._header_end = path, file_size, header_end
        self._notes = notes
        self._left = MAX_PROPERTIES
        self._large: list[str] = []

    def read(self, image: Element) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        broken: list[str] = []
        other: list[str] = []
        for element in image:
            if local_name(element) != "Property":
                continue
            name = clean_text(element.get("id", ""))
            large = len(self._large)
            try:
                value = self._value(element)
            except (FrameError, KeyError, ValueError, OverflowError):
                broken.append(clipped(name, LONGEST_NAME))
                continue
            if name and value is not None:
                properties.setdefault(name, value)
            elif len(self._large) == large:
                kind = clipped(clean_text(element.get("type", "no type")), LONGEST_NAME)
                other.append(f"{clipped(name, LONGEST_NAME)} ({kind})")
        self._notes += _left_out(broken, "cannot be read")
        self._notes += _left_out(self._large, f"too large (more than {MAX_PROPERTY} bytes, or together more)")
        if other:
            self._notes.append(f"properties without a value that can be read: {listed(other, most=10)}")
        return properties

    def _value(self, element: Element) -> Any:
        """Return the property as a Python value, or None for types that are not used."""
        kind, text = element.get("type", ""), element.get("value")
        if kind == "String":
            return self._text(element)
        if kind == "TimePoint":
            return clean_text(text or element.text or "").strip()
        if kind.endswith(("Vector", "Matrix", "ByteArray")):
            return self._array(element, kind)
        if text is None:
            return None
        text = text.strip()
        if kind == "Boolean":
            return BOOLEANS[text]
        if kind.startswith(("Float", "Double")):
            return float(text)
        if kind.startswith(("Int", "UInt", "Byte", "Short", "UShort")):
            return _whole(text)
        return None

    def _text(self, element: Element) -> str | None:
        if "location" not in element.attrib:
            return clean_text(element.text or element.get("value") or "", keep="\n\t")
        content = self._block(element)
        return None if content is None else clean_text(content.decode("utf-8"), keep="\n\t")

    def _array(self, element: Element, kind: str) -> np.ndarray | None:
        dtype = "u1" if kind == "ByteArray" else ELEMENT_TYPES.get(kind[:-6])
        if dtype is None or "location" not in element.attrib:
            return None
        sizes = ("rows", "columns") if kind.endswith("Matrix") else ("length",)
        shape = tuple(int(element.get(size, "")) for size in sizes)
        content = self._block(element)
        if content is None:
            return None
        if min(shape) < 0:
            raise ValueError("negative size")
        order = ">" if element.get("byteOrder") == "big" else "<"
        return np.frombuffer(content, order + dtype).reshape(shape)

    def _block(self, element: Element) -> bytes | None:
        """Return the bytes of a property, or None if it is too large."""
        block = find_block(element, self._path, self._file_size, self._header_end)
        size = max(block.size, block.decoded_size)
        if size > min(MAX_PROPERTY, self._left):
            self._large.append(clipped(clean_text(element.get("id", "")), LONGEST_NAME))
            return None
        self._left -= size
        return block.decode()
