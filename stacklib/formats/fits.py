"""Read FITS images. What writes them is in `fits_write`.

Headers are parsed by astropy, pixels are read by file position: astropy loads whole frames as soon as
integers are scaled, and detects a damaged file too late.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.errors import FrameError
from stacklib.formats.fits_header import (
    MAX_HEADERS,
    RECORD,
    header_bytes,
    number,
    parse_header,
    whole,
)
from stacklib.formats.fits_tiles import checked_image
from stacklib.formats.fits_unpack import unpacked
from stacklib.formats.fits_write import unwritable, write_image, write_mask
from stacklib.formats.scratch import hold
from stacklib.formats.source import (
    FileBlock,
    ImageSource,
    JoinedBlock,
    LazyBlock,
    regular_file_size,
    transparency_note,
    unreadable,
)
from stacklib.utils.labels import listed, quoted

__all__ = ["open_image", "unwritable", "write_image", "write_mask"]

#: Number of HDUs searched for images. A sequence of Siril has one for each frame.
MAX_HDUS = 1000
MAX_SAMPLES = 10**11
#: Most axes that FITS allows.
MAX_AXES = 999
GZIP = b"\x1f\x8b"
#: Largest ratio of gzip: no file holds more than this times its size.
GZIP_RATIO = 1032
#: Bytes that are inflated to look for more images: this many, and this many times the size of the file.
LOOKED_AT, LOOKED_AT_RATIO = 2**26, 20

FORMATS = {8: "u8", 16: "i16", 32: "i32", 64: "i64", -32: "f32", -64: "f64"}
#: Full scale of integers of more than 16 bits. No image needs 64 bits, and values would get too small.
LARGEST = 2.0**32 - 1

#: Extensions that belong to an image: masks, errors and weights.
COMPANIONS = frozenset(
    "MASK DQ BPM UNCERT ERR ERROR STD VAR VARIANCE IVAR WHT WEIGHT CTX PSFIMAGE".split()  # noqa: SIM905
)
COLORS = {"R": 0, "RED": 0, "G": 1, "GREEN": 1, "B": 2, "BLUE": 2}

#: Cards of the primary HDU that say nothing about an image in an extension ...
STRUCTURAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|[PG]COUNT|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM|END|INHERIT"
    r"|EXT(NAME|VER|LEVEL)|Z[A-Z]+\d*|T(FIELDS|TYPE|FORM|UNIT|DIM)\d*|THEAP"
)
#: ... and those that belong to its own pixels, if it has any.
OF_PIXELS = re.compile(
    r"C(TYPE|RVAL|RPIX|DELT|ROTA|UNIT)\d|CD\d_\d|P[CV]\d_\d+|ROWORDER|BAYERPAT|[XY]BAYROFF|DATAM(IN|AX)"
)


@dataclass
class _Hdu:
    """A header, and the position and size of its data.

    At first only the cards are parsed that say where and how the pixels are stored.
    """

    content: bytes
    header: dict[str, Any]
    position: int
    size: int
    index: int
    notes: list[str]

    def complete(self, path: Path) -> None:
        """Parse all cards."""
        header, notes = parse_header(self.content, path)
        # Those of a packed image are there already.
        self.header = header | self.header
        self.notes += notes

    @property
    def name(self) -> str:
        """Name of the extension, in upper case."""
        return str(self.header.get("EXTNAME", "")).strip().upper()

    @property
    def axes(self) -> list[int]:
        """Lengths of the axes of the image, 0 where the header is broken."""
        values = [self._value(f"NAXIS{axis + 1}") for axis in range(min(self._value("NAXIS"), MAX_AXES))]
        return [max(0, value) for value in values]

    @property
    def bits(self) -> int:
        """BITPIX of the image."""
        return self._value("BITPIX")

    def _value(self, name: str) -> int:
        value = self.header.get(f"Z{name}" if self.is_compressed_image else name, 0)
        return value if isinstance(value, int) else 0

    @property
    def is_image(self) -> bool:
        """Whether this is an image, plain or compressed."""
        plain = self.header.get("XTENSION", "IMAGE") == "IMAGE"
        return (plain or self.is_compressed_image) and len(self.axes) >= 2 and min(self.axes) > 0

    @property
    def is_compressed_image(self) -> bool:
        # A plain image may keep ZIMAGE from an earlier compression.
        return self.header.get("ZIMAGE") is True and self.header.get("XTENSION") == "BINTABLE"

    @property
    def pixels(self) -> int:
        """Number of samples."""
        return math.prod(self.axes)


def open_image(path: str | Path) -> ImageSource:
    """Open a FITS file. Reads the headers and checks the size, but reads no pixels.

    The largest image is used, in the primary HDU or in an extension, the first one in a tie. Three
    extensions R, G and B are a color image. An extension MASK as written by astropy (8 bits) is applied:
    its nonzero pixels become NaN. An image in an extension also has the keywords of the primary HDU. Files
    compressed with gzip or fpack are decompressed once, when the first row is read.

    Color planes may be the last axis or the first one. Of two or four planes the last one is taken for
    transparency and not used.

    Integers are ADU and are divided by ``2**bits - 1``, including plain signed integers (BITPIX 16
    without BZERO is divided by 65535), unless BSCALE already maps them to the range 0 to 1. Integers of
    64 bits are read like those of 32 bits. Floats are used as stored.

    Parameters
    ----------
    path : str or Path
        A FITS file.

    Returns
    -------
    ImageSource
        The opened image. Images and planes that are not used and unreadable cards are listed in its `notes`.

    Raises
    ------
    FrameError
        If the file is missing, damaged or not a FITS image.
    """
    path = Path(path)
    file_size = regular_file_size(path)
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == GZIP
            stream.seek(0)
            hdus = (
                [] if zipped else _read_hdus(stream, path, lambda end: _padded(end) >= file_size, file_size)
            )
        if zipped:
            return _open_gzip(path, file_size)
        return _assemble(path, hdus, lambda hdu: _open_unit(path, hdu, file_size))
    except OSError as error:
        raise unreadable(path, error) from error


def _open_unit(path: Path, hdu: _Hdu, file_size: int) -> ImageSource:
    """Open an image of a file that is not zipped."""
    if hdu.is_compressed_image:
        return _open_packed(path, hdu, file_size)
    source, size = _image_source(path, hdu)
    if hdu.position + size > file_size:
        raise _truncated(path, hdu.position + size, file_size)
    source.block = FileBlock(path, hdu.position, size)
    return source


def _truncated(path: Path, expected: int, found: int, most: str = "") -> FrameError:
    return FrameError(
        f"{path}: is truncated ({most}{found} bytes, but the header requires {expected}); "
        "copy the file again or leave it out"
    )


@contextlib.contextmanager
def _gunzip(path: Path) -> Iterator[gzip.GzipFile]:
    """Open a gzip file, and convert its errors to `FrameError`."""
    try:
        with gzip.open(path, "rb") as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FrameError(
            f"{path}: is an incomplete gzip file ({error}); copy the file again or leave it out"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error


def _open_gzip(path: Path, file_size: int) -> ImageSource:
    # With a single gzip member, the usual case, the last four bytes are the decompressed size modulo 2**32.
    # If that is too small, the file must be decompressed to know.
    with path.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - 4))
        inflated = int.from_bytes(stream.read(4), "little")
    limit = LOOKED_AT + LOOKED_AT_RATIO * file_size

    def is_last(end: int) -> bool:
        # Looking for more images costs decompressing this one.
        return inflated in (end % 2**32, _padded(end) % 2**32)

    def open_unit(hdu: _Hdu) -> ImageSource:
        if hdu.is_compressed_image:
            raise FrameError(f"{path}: is compressed twice, with fpack and gzip; decompress it with gunzip")
        source, size = _image_source(path, hdu)
        end = hdu.position + size
        if end > GZIP_RATIO * file_size:
            raise _truncated(path, end, GZIP_RATIO * file_size, "at most ")
        source.block = LazyBlock(
            size, lambda: hold(_gzip_pieces(path, hdu.position, size, limit), size, path)
        )
        if inflated < end % 2**32 and end <= limit:
            with source.block.reader():
                pass
        return source

    with _gunzip(path) as unzipped:
        hdus = _read_hdus(unzipped, path, is_last, limit)
    return _assemble(path, hdus, open_unit)


def _gzip_pieces(path: Path, position: int, size: int, limit: int) -> Iterator[bytes]:
    with _gunzip(path) as stream:
        stream.seek(position)
        left = size
        while left:
            piece = stream.read(min(left, 2**20))
            if not piece:
                raise _truncated(path, position + size, position + size - left)
            left -= len(piece)
            yield piece
        # Read to the end so that gzip verifies its checksum. Extensions may follow the image.
        while stream.read(2**20):
            if stream.tell() > position + size + limit:
                raise FrameError(
                    f"{path}: inflates to more than {limit // 2**20} MiB behind its image; decompress "
                    "it with gunzip or leave it out"
                )


def _open_packed(path: Path, hdu: _Hdu, file_size: int) -> ImageSource:
    """Open a tile-compressed image (fpack). The pixels are decompressed on the first read."""
    packed = checked_image(path, hdu.header, hdu.position, file_size)
    for name in [name for name in hdu.header if name.startswith("ZNAXIS")] + ["ZBITPIX"]:
        hdu.header[name[1:]] = hdu.header[name]
    if "ZBLANK" in hdu.header:
        hdu.header.setdefault("BLANK", hdu.header["ZBLANK"])
    source, size = _image_source(path, hdu)
    source.block = LazyBlock(size, lambda: hold(unpacked(packed), size, path))
    return source


def _read_hdus(stream: BufferedIOBase, path: Path, is_last: Callable[[int], bool], limit: int) -> list[_Hdu]:
    """Read all headers. What follows the first image and cannot be read is noted there.

    ``is_last(end)`` tells whether the file has nothing after that many bytes. Nothing is looked for behind
    `limit` bytes.
    """
    found: list[_Hdu] = []
    image: _Hdu | None = None
    position, room = 0, MAX_HEADERS
    for index in range(MAX_HDUS):
        if position > limit:
            if image is None:
                raise FrameError(
                    f"{path}: has no image in its first {limit} bytes; copy the file again or leave it out"
                )
            found[0].notes.append(f"what follows HDU {index - 1} is not looked at: it is too far away")
            break
        try:
            if index:
                stream.seek(position)
            content = header_bytes(stream, path, first=index == 0, room=room)
            if content is None:
                break
            header, _ = parse_header(content, path, essential=True)
            position += len(content)
            room -= len(content)
            hdu = _Hdu(content, header, position, _data_size(header, path), index, [])
        except FrameError:
            if image is None:
                raise
            found[0].notes.append(f"what follows HDU {index - 1} is damaged; it is left out")
            break
        found.append(hdu)
        image = image or (hdu if hdu.is_image else None)
        if image is not None and is_last(position + hdu.size):
            break
        position = _padded(position + hdu.size)
    else:
        found[0].notes.append(f"has more than {MAX_HDUS} HDUs; only these are looked at")
    if image is None:
        raise FrameError(
            f"{path}: contains no image, expected an HDU with NAXIS = 2 or 3; leave the file out"
        )
    return found


def _padded(position: int) -> int:
    """Return where the next record starts."""
    return -(-position // RECORD) * RECORD


def _data_size(header: dict[str, Any], path: Path) -> int:
    bits = whole(header, "BITPIX", path, tuple(FORMATS))
    count = whole(header, "NAXIS", path, range(0, MAX_AXES + 1))
    axes = [whole(header, f"NAXIS{axis + 1}", path, range(0, 2**40)) for axis in range(count)]
    if not axes:
        return 0
    extra = whole(header, "PCOUNT", path, range(0, 2**60)) if "PCOUNT" in header else 0
    groups = whole(header, "GCOUNT", path, range(0, 2**40)) if "GCOUNT" in header else 1
    return abs(bits) // 8 * groups * (extra + math.prod(axes))


def _assemble(path: Path, hdus: Sequence[_Hdu], open_unit: Callable[[_Hdu], ImageSource]) -> ImageSource:
    """Open the image of a file with all that belongs to it, and note what is not used."""
    images = [hdu for hdu in hdus if hdu.is_image]
    lights = [hdu for hdu in images if hdu.name not in COMPANIONS] or images[:1]
    colors = _color_planes(lights)
    chosen = colors or [max(lights, key=lambda hdu: hdu.pixels)]
    source = _joined([open_unit(hdu) for hdu in chosen])
    for hdu in {hdu.index: hdu for hdu in (hdus[0], *chosen)}.values():
        hdu.complete(path)
    headers = [_inherited(hdu, hdus[0]) | hdu.header for hdu in chosen]
    source.keywords = {
        name: value
        for name, value in headers[0].items()
        if all(header.get(name) == value for header in headers)
    }
    differing = [
        name
        for name in dict.fromkeys(name for header in headers for name in header)
        if name not in source.keywords and not STRUCTURAL.fullmatch(name)
    ]
    if differing:
        names = listed(differing, most=10)
        source.notes.append(f"keywords that differ among the extensions R, G and B are left out: {names}")
    source.notes += dict.fromkeys(note for hdu in (hdus[0], *chosen) for note in hdu.notes)
    row_order = str(source.keywords.get("ROWORDER", "")).strip().lower()
    if row_order in ("", "top-down", "bottom-up"):
        source.row_order = row_order
    else:
        shown = source.keywords["ROWORDER"]
        source.notes.append(f"ROWORDER is {quoted(shown)}, expected TOP-DOWN or BOTTOM-UP; it is left out")
    said = [_choice_in_words(chosen, lights)] if len(lights) > 1 else []
    companions = COMPANIONS - {chosen[0].name}
    said += [_companion(source, hdu, open_unit) for hdu in images if hdu.name in companions]
    if said:
        source.notes.append(f"holds {len(images)} images; {'; '.join(said)}")
    return source


def _color_planes(lights: Sequence[_Hdu]) -> list[_Hdu]:
    """Return the three HDUs of a color image, red first, or an empty list."""
    named = [hdu for hdu in lights if hdu.name in COLORS]
    planes = sorted(named, key=lambda hdu: COLORS[hdu.name])
    if [COLORS[hdu.name] for hdu in planes] != [0, 1, 2]:
        return []
    scaling = ("BSCALE", "BZERO", "BLANK", "ZBLANK")
    like = {(*hdu.axes, hdu.bits, *map(hdu.header.get, scaling)) for hdu in planes}
    largest = max(hdu.pixels for hdu in lights)
    return planes if len(like) == 1 and len(planes[0].axes) == 2 and planes[0].pixels == largest else []


def _joined(sources: Sequence[ImageSource]) -> ImageSource:
    """Return one image with the planes of all."""
    if len(sources) == 1:
        return sources[0]
    count, block = len(sources), JoinedBlock([source.block for source in sources])
    return replace(sources[0], channels=count, planes=count, block=block)


def _choice_in_words(chosen: Sequence[_Hdu], lights: Sequence[_Hdu]) -> str:
    first = chosen[0]
    if len(chosen) > 1:
        others = ", the others are not used" if len(lights) > len(chosen) else ""
        return f"the extensions R, G and B are used as one color image{others}"
    if any(hdu.pixels != first.pixels for hdu in lights):
        return f"the largest one is used ({first.axes[0]} x {first.axes[1]} pixels, HDU {first.index})"
    return "only the first one is used; save each as a file of its own to use all of them"


def _companion(source: ImageSource, hdu: _Hdu, open_unit: Callable[[_Hdu], ImageSource]) -> str:
    """Apply a mask. Return a note on it, or on an extension that is not used."""
    if hdu.name == "MASK" and hdu.bits == 8:
        with contextlib.suppress(FrameError):
            mask = open_unit(hdu)
            same = (mask.height, mask.width) == (source.height, source.width)
            if same and mask.planes in (1, source.channels):
                source.mask = mask
                return "the pixels marked in extension MASK count as missing"
    return f"extension {hdu.name} is not used"


def _inherited(hdu: _Hdu, primary: _Hdu) -> dict[str, Any]:
    """Return the cards of the primary HDU that are valid for an image in an extension, too."""
    if hdu is primary or hdu.header.get("INHERIT") is False:
        return {}
    return {
        name: value
        for name, value in primary.header.items()
        if not STRUCTURAL.fullmatch(name) and not (primary.is_image and OF_PIXELS.fullmatch(name))
    }


def _image_source(path: Path, hdu: _Hdu) -> tuple[ImageSource, int]:
    """Return an image source, still without its block, and the size of its pixels in bytes."""
    header = hdu.header
    bits = whole(header, "BITPIX", path, tuple(FORMATS))
    width, height, planes, interleaved = _geometry(hdu, path)
    sample_format = FORMATS[bits]
    stored = np.dtype(f">{sample_format[0]}{abs(bits) // 8}")
    scale, zero = number(header, "BSCALE", 1.0, path), number(header, "BZERO", 0.0, path)
    if scale == 0:
        raise FrameError(
            f"{path}: BSCALE is 0, expected a nonzero number; the header is damaged, leave the file out"
        )
    blank = header.get("BLANK") if bits > 0 else None
    blank = blank if isinstance(blank, int) and not isinstance(blank, bool) else None
    source = ImageSource(
        path=path,
        channels=3 if planes > 2 else 1,
        height=height,
        width=width,
        sample_format=sample_format,
        integer=bits > 0,
        full_scale=1.0,
        stored=stored,
        block=FileBlock(path, 0, 0),
        scale=scale,
        zero=zero,
        blank=blank,
        interleaved=interleaved,
        planes=planes,
    )
    if blank is None and bits > 0 and "BLANK" in header:
        source.notes.append(f"BLANK is {quoted(header['BLANK'])}, expected a whole number; it is left out")
    if bits < 0 and "BLANK" in header and "ZBLANK" not in header:
        source.notes.append(
            f"BLANK {header['BLANK']} is for integers, and the samples are floats: it is left out"
        )
    if planes in (2, 4):
        source.notes.append(transparency_note(planes))
    if bits > 0:
        _scale_integers(source, bits)
    return source, planes * height * width * stored.itemsize


def _geometry(hdu: _Hdu, path: Path) -> tuple[int, int, int, bool]:
    """Return width, height, number of planes, and whether the planes are the first axis."""
    axes = [hdu.header.get(f"NAXIS{axis + 1}", 0) for axis in range(hdu.header.get("NAXIS", 0))]
    if not all(isinstance(axis, int) and axis > 0 for axis in axes) or len(axes) < 2:
        raise FrameError(
            f"{path}: has axes {axes}, expected width, height and optionally channels; leave the file out"
        )
    if math.prod(axes) > MAX_SAMPLES:
        raise FrameError(
            f"{path}: has axes {axes}, too large for an image; the header is damaged, leave the file out"
        )
    # Axes of length 1 mean nothing beyond width and height, and elsewhere if there is no other way.
    for used in (axes[:2] + [axis for axis in axes[2:] if axis > 1], [axis for axis in axes if axis > 1]):
        if len(used) == 2:
            return used[0], used[1], 1, False
        if len(used) == 3 and used[2] <= 4:
            return used[0], used[1], used[2], False
        if len(used) == 3 and used[0] <= 4:
            return used[1], used[2], used[0], used[0] > 1
    raise FrameError(
        f"{path}: has axes {axes}, expected width, height and up to 4 color planes; save each image as a "
        "file of its own"
    )


def _scale_integers(source: ImageSource, bits: int) -> None:
    """Set the mapping of stored integers to values from 0 to 1."""
    half = 2 ** (bits - 1)
    if bits > 8 and source.scale == 1 and source.zero == half:
        source.sample_format = f"u{bits}"
        source.stored = np.dtype(f">u{bits // 8}")
        source.offset_binary, source.zero = True, 0.0
        source.blank = None if source.blank is None else source.blank + half
    elif bits == 8 and source.scale == 1 and source.zero == -half:
        source.sample_format = "i8"
    low, high = (0, 255) if bits == 8 else (-half, half - 1)
    largest = max(abs(source.zero + source.scale * end) for end in (low, high))
    # Do not divide integers again that BSCALE already maps to 0 to 1.
    source.full_scale = min(2.0**bits - 1, LARGEST) if largest > 2 else 1.0
    source.divisor = source.full_scale
