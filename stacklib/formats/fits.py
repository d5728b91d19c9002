"""Read and write FITS images.

Headers are parsed by astropy, pixels are read by file position: astropy loads whole frames as soon as
integers are scaled, and detects a damaged file too late.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.utils.exceptions import AstropyWarning

from stacklib.errors import FrameError
from stacklib.formats.scratch import hold
from stacklib.formats.source import (
    Block,
    FileBlock,
    ImageSource,
    LazyBlock,
    clean_text,
    regular_file_size,
    unreadable,
)
from stacklib.formats.xisf_write import ascii_text, writing_error
from stacklib.utils.atomic_files import new_file

__all__ = ["open_image", "write_image"]

RECORD = 2880
CARD = 80
#: Real headers have a few hundred cards. A header of this size is damaged or malicious.
MAX_HEADER = 16 * 2**20
#: Number of extensions searched for the first image.
MAX_EXTENSIONS = 64
MAX_SAMPLES = 10**11
GZIP = b"\x1f\x8b"

FORMATS = {8: "u8", 16: "i16", 32: "i32", -32: "f32", -64: "f64"}

#: Cards that define the pixel values. The file is rejected if one of them is broken.
PIXEL_CARDS = ("BSCALE", "BZERO", "BLANK")

# warnings.catch_warnings affects the whole process, so only one thread may use it at a time.
_astropy = threading.Lock()


@dataclass
class _Hdu:
    """A parsed header, and the position and size of its data."""

    header: dict[str, Any]
    position: int
    size: int
    index: int
    notes: list[str]

    @property
    def axes(self) -> list[int]:
        return [self.header.get(f"NAXIS{axis + 1}", 0) for axis in range(self.header.get("NAXIS", 0))]

    @property
    def is_image(self) -> bool:
        kind = self.header.get("XTENSION", "IMAGE")
        return kind == "IMAGE" and len(self.axes) >= 2 and min(self.axes) > 0

    @property
    def is_compressed_image(self) -> bool:
        return self.header.get("ZIMAGE") is True


def open_image(path: str | Path) -> ImageSource:
    """Open a FITS file. Reads the header and checks the size, but reads no pixels.

    The first image is used, in the primary HDU or in an extension. Files compressed with gzip or fpack
    are decompressed once, when the first row is read.

    Integers are ADU and are divided by ``2**bits - 1``, including plain signed integers (BITPIX 16
    without BZERO is divided by 65535), unless BSCALE already maps them to the range 0 to 1. Floats are
    used as stored.

    Parameters
    ----------
    path : str or Path
        A FITS file.

    Returns
    -------
    ImageSource
        The opened image. Unreadable cards are skipped and listed in its `notes`.

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
            hdu = None if zipped else _first_image(stream, path)
        if hdu is None:
            return _open_gzip(path)
        return _open_packed(path, hdu) if hdu.is_compressed_image else _open_plain(path, hdu, file_size)
    except OSError as error:
        raise unreadable(path, error) from error


def _open_plain(path: Path, hdu: _Hdu, file_size: int) -> ImageSource:
    source, size = _image_source(path, hdu)
    if hdu.position + size > file_size:
        raise _truncated(path, hdu.position + size, file_size)
    source.block = FileBlock(path, hdu.position, size)
    return source


def _truncated(path: Path, expected: int, found: int) -> FrameError:
    return FrameError(
        f"{path}: is truncated ({found} bytes, but the header requires {expected}); "
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


def _open_gzip(path: Path) -> ImageSource:
    with _gunzip(path) as stream:
        hdu = _first_image(stream, path)
    if hdu.is_compressed_image:
        raise FrameError(f"{path}: is compressed twice, with fpack and gzip; decompress it with gunzip")
    source, size = _image_source(path, hdu)
    source.block = LazyBlock(size, lambda: hold(_gzip_pieces(path, hdu.position, size), size, path))
    # With a single gzip member, the usual case, the last four bytes are the decompressed size modulo 2**32.
    # If that is too small, the file must be decompressed to know.
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        inflated = int.from_bytes(stream.read(4), "little")
    if inflated < (hdu.position + size) % 2**32:
        with source.block.reader():
            pass
    return source


def _gzip_pieces(path: Path, position: int, size: int) -> Iterator[bytes]:
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
            pass


def _open_packed(path: Path, hdu: _Hdu) -> ImageSource:
    """Open a tile-compressed image (fpack). The pixels are decompressed on the first read."""
    for name in [name for name in hdu.header if name.startswith("ZNAXIS")] + ["ZBITPIX"]:
        hdu.header[name[1:]] = hdu.header[name]
    if "ZBLANK" in hdu.header:
        hdu.header.setdefault("BLANK", hdu.header["ZBLANK"])
    source, size = _image_source(path, hdu)

    def inflate() -> Block:
        try:
            with _astropy, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with fits.open(path, do_not_scale_image_data=True, memmap=False) as units:
                    # Not by section: astropy reads the descriptors of all tiles anew for each one.
                    planes = units[hdu.index].data.reshape(-1, source.height, source.width)
        except Exception as error:  # astropy raises almost anything for damaged tiles
            raise FrameError(
                f"{path}: the compressed tiles cannot be read ({clean_text(str(error))}); "
                "copy the file again or decompress it with funpack"
            ) from error
        return hold((np.asarray(plane, source.stored).tobytes() for plane in planes), size, path)

    source.block = LazyBlock(size, inflate)
    return source


def _first_image(stream: BufferedIOBase, path: Path) -> _Hdu:
    """Find the first HDU with an image. Reads no further than its header."""
    position = 0
    for index in range(MAX_EXTENSIONS):
        content = _header_bytes(stream, path, first=index == 0)
        if content is None:
            break
        header, notes = _parse_header(content, path)
        position += len(content)
        hdu = _Hdu(header, position, _data_size(header, path), index, notes)
        if hdu.is_image or hdu.is_compressed_image:
            return hdu
        position += -(-hdu.size // RECORD) * RECORD
        stream.seek(position)
    raise FrameError(f"{path}: contains no image, expected an HDU with NAXIS = 2 or 3; leave the file out")


def _header_bytes(stream: BufferedIOBase, path: Path, first: bool) -> bytes | None:
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
        if any(record[start : start + 8] == b"END     " for start in range(0, RECORD, CARD)):
            return bytes(content)
    raise FrameError(f"{path}: has no END card in the first {MAX_HEADER} bytes; this is not a FITS file")


#: The standard allows only printable ASCII, but degree signs and NULs are common.
PRINTABLE = bytes(code if 32 <= code < 127 else ord("?" if code else " ") for code in range(256))


def _parse_header(content: bytes, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the keywords of a header (first occurrence) and notes on broken cards."""
    text = content.translate(PRINTABLE).decode("ascii")
    values: dict[str, Any] = {}
    notes = []
    with _astropy, warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        for card in fits.Header.fromstring(text).cards:
            try:
                name, value = card.keyword.upper(), card.value
            except (VerifyError, ValueError, TypeError, IndexError) as error:
                name, value = card.keyword.upper(), None
                shown = _card_text(text, name)
                if name in PIXEL_CARDS:
                    remedy = "repair the card or leave the file out"
                    raise FrameError(f"{path}: {name} is {shown!r}, expected a number; {remedy}") from None
                reason = "" if isinstance(error, VerifyError) else f" ({error})"
                notes.append(f"card {name} has an invalid value {shown!r}{reason}; it is ignored")
            if name and name not in values and not isinstance(value, fits.card.Undefined | None):
                values[name] = clean_text(value.strip()) if isinstance(value, str) else value
    return values, notes


def _card_text(header: str, name: str) -> str:
    """Return the raw value of the first card with this name."""
    for start in range(0, len(header), CARD):
        if header[start : start + 8].rstrip().upper() == name:
            return header[start + 8 : start + CARD].partition("/")[0].strip("= ")
    return ""


def _data_size(header: dict[str, Any], path: Path) -> int:
    bits = _whole(header, "BITPIX", path, tuple(FORMATS))
    count = _whole(header, "NAXIS", path, range(0, 1000))
    axes = [_whole(header, f"NAXIS{axis + 1}", path, range(0, 2**40)) for axis in range(count)]
    if not axes:
        return 0
    extra = _whole(header, "PCOUNT", path, range(0, 2**60)) if "PCOUNT" in header else 0
    groups = _whole(header, "GCOUNT", path, range(0, 2**40)) if "GCOUNT" in header else 1
    return abs(bits) // 8 * groups * (extra + math.prod(axes))


def _whole(header: dict[str, Any], name: str, path: Path, allowed: tuple[int, ...] | range) -> int:
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        least = f"a whole number of at least {allowed[0]}"
        expected = least if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise FrameError(
            f"{path}: {name} is {value!r}, expected {expected}; the header is damaged, leave the file out"
        )
    return value


def _number(header: dict[str, Any], name: str, default: float, path: Path) -> float:
    value = header.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FrameError(f"{path}: {name} is {value!r}, expected a finite number; leave the file out")
    return float(value)


def _image_source(path: Path, hdu: _Hdu) -> tuple[ImageSource, int]:
    """Return an image source, still without its block, and the size of its pixels in bytes."""
    header = hdu.header
    bits = _whole(header, "BITPIX", path, tuple(FORMATS))
    width, height, channels = _geometry(hdu, path)
    sample_format = FORMATS[bits]
    stored = np.dtype(f">{sample_format[0]}{abs(bits) // 8}")
    scale, zero = _number(header, "BSCALE", 1.0, path), _number(header, "BZERO", 0.0, path)
    if scale == 0:
        raise FrameError(
            f"{path}: BSCALE is 0, expected a nonzero number; the header is damaged, leave the file out"
        )
    blank = header.get("BLANK") if bits > 0 else None
    blank = blank if isinstance(blank, int) and not isinstance(blank, bool) else None
    row_order = str(header.get("ROWORDER", "")).strip().lower()
    source = ImageSource(
        path=path,
        channels=channels,
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
        row_order=row_order if row_order in ("top-down", "bottom-up") else "",
        keywords=dict(header),
        notes=list(hdu.notes),
    )
    if bits > 0:
        _scale_integers(source, bits)
    return source, channels * height * width * stored.itemsize


def _geometry(hdu: _Hdu, path: Path) -> tuple[int, int, int]:
    axes = hdu.axes
    while len(axes) > 2 and axes[-1] == 1:
        axes = axes[:-1]
    if len(axes) not in (2, 3) or not all(isinstance(axis, int) and axis > 0 for axis in axes):
        raise FrameError(
            f"{path}: has axes {axes}, expected width, height and optionally channels; leave the file out"
        )
    if math.prod(axes) > MAX_SAMPLES:
        raise FrameError(
            f"{path}: has axes {axes}, too large for an image; the header is damaged, leave the file out"
        )
    return axes[0], axes[1], axes[2] if len(axes) == 3 else 1


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
    source.full_scale = 2.0**bits - 1 if largest > 2 else 1.0
    source.divisor = source.full_scale


def write_image(path: str | Path, image: np.ndarray, keywords: Iterable[tuple[str, Any, str]] = ()) -> Path:
    """Write one image to a new FITS file, rows top-down.

    Parameters
    ----------
    path : str or Path
        A new file in an existing folder.
    image : ndarray of float32, shape (channels, height, width) or (height, width)
        Stored with BITPIX -32. A single channel is stored with two axes.
    keywords : iterable of (name, value, comment)
        Names may repeat (HISTORY). Structural keywords (NAXIS, BZERO, ...) are skipped.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SaveError
        If the file exists or cannot be written. No partial file is left behind.
    ValueError
        If the array is not an image.
    """
    path = Path(path)
    image = np.asarray(image, np.float32)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}, expected (channels, height, width)")
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    try:
        with _astropy, warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            unit = fits.PrimaryHDU(image, _header_to_write(keywords))
            with new_file(path) as temporary:
                unit.writeto(temporary, overwrite=True, output_verify="silentfix+ignore")
    except OSError as error:
        raise writing_error(path, error) from error
    return path


STRUCTURAL = ("SIMPLE", "BITPIX", "EXTEND", "BZERO", "BSCALE", "BLANK", "END", "XTENSION", "PCOUNT", "GCOUNT")


def _header_to_write(keywords: Iterable[tuple[str, Any, str]]) -> fits.Header:
    header = fits.Header()
    for name, value, comment in keywords:
        name = ascii_text(name).strip().upper()
        if name in STRUCTURAL or name.startswith("NAXIS") or name == "ROWORDER":
            continue
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, float) and not math.isfinite(value):
            continue
        value = ascii_text(value) if isinstance(value, str) else value
        if name in ("HISTORY", "COMMENT"):
            header[name] = ascii_text(comment or value)
        elif name:
            header[name] = (value, ascii_text(comment or ""))
    header["ROWORDER"] = ("TOP-DOWN", "order of the rows in this file")
    return header
