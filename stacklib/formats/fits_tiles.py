"""Tile-compressed FITS images (fpack): every size in the header is checked before a library decodes anything.

The libraries that decode tiles believe the header, so a wrong size makes them write beyond their memory. Here
the tiles are compared with the axes and with the bytes of the file, and what is decoded gets a new header of
checked values only. The codecs Rice, HCOMPRESS and PLIO also believe the compressed bytes, which no check of
sizes makes safe. So tiles are decoded in another process, see `fits_unpack`.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from stacklib.errors import FrameError
from stacklib.formats.fits_header import whole
from stacklib.utils.labels import quoted

__all__ = ["PackedImage", "checked_image"]

CODECS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS")
#: Codecs that reduce floats to integers with a scale for each tile.
QUANTIZED_ONLY = ("RICE_1", "RICE_ONE", "HCOMPRESS_1", "PLIO_1")
DITHERED = ("SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2")
QUANTIZATIONS = ("NONE", "NO_DITHER", *DITHERED)
#: Bytes of an element of a column, by the letter of its format.
WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
FORM = re.compile(r"(\d{0,9})([LBIJKAEDCMPQ])([LBIJKAEDCM]?)(?:\(\d*\))?\s*", re.ASCII)
#: Columns with the bytes of a tile, in the order in which they are looked at, and their formats.
HEAPS = {"COMPRESSED_DATA": "BI", "GZIP_COMPRESSED_DATA": "BIJ", "UNCOMPRESSED_DATA": "BIJED"}
#: Columns with a number for each tile.
PER_TILE = {"ZSCALE": "ED", "ZZERO": "ED", "ZBLANK": "IJ"}
MAX_COLUMNS = 50
#: Most tiles of an image. Usually each row of each color plane is a tile.
MAX_TILES = 2**16
#: No codec makes more than this many samples of a byte, apart from a first few million of a blank image.
EXPANSION, BLANK_IMAGE = 2**13, 2**22
#: First bytes of a tile by HCOMPRESS, before its height and its width, and size of its header.
HCOMPRESS_MAGIC, HCOMPRESS_HEADER = 0xDD99, 25
#: Largest tile by gzip, in bytes, that may inflate to more than it says, as that is found soon enough.
SMALL_TILE = 2**17


@dataclass(frozen=True)
class PackedImage:
    """A tile-compressed image whose header and tiles fit the file.

    Attributes
    ----------
    path : Path
        The file.
    header : bytes
        A FITS header for the table, of checked cards only, padded to whole records.
    rows : tuple of int
        Position and size of the table in the file, in bytes.
    heap : tuple of int
        Position and size of the heap with the tiles.
    stored : str
        NumPy type of the decoded samples, big-endian.
    size : int
        Size of the decoded samples in bytes.
    """

    path: Path
    header: bytes
    rows: tuple[int, int]
    heap: tuple[int, int]
    stored: str
    size: int


@dataclass(frozen=True)
class _Column:
    """A column: format, position in a row, count, letter, and letter of the elements in the heap."""

    form: str
    start: int
    count: int
    letter: str
    element: str


class _Tiles(NamedTuple):
    """How the image is cut: height and width of each tile, larger axes first, and samples of each tile."""

    shapes: np.ndarray
    samples: np.ndarray


def checked_image(path: Path, header: Mapping[str, Any], position: int, file_size: int) -> PackedImage:
    """Check a tile-compressed image against its own axes and the bytes of the file.

    Parameters
    ----------
    path : Path
        The file.
    header : mapping
        Cards of the table. NAXIS and BITPIX are those of the table, ZNAXIS and ZBITPIX those of the image.
    position : int
        Where the table starts, in bytes.
    file_size : int
        Size of the file in bytes.

    Raises
    ------
    FrameError
        If a size is missing, of another type or beyond the file.
    """
    cards = _Cards(path, header)
    codec = cards.choice("ZCMPTYPE", CODECS)
    bits = cards.whole("ZBITPIX", (8, 16, 32, 64, -32, -64))
    axes = [
        cards.whole(f"ZNAXIS{axis + 1}", range(1, 2**31))
        for axis in range(cards.whole("ZNAXIS", range(1, 1000)))
    ]
    tiles = _tiles(cards, axes)
    columns, width = _columns(cards)
    count = len(tiles.samples)
    rows = width * count
    start = cards.whole("THEAP", range(rows, 2**60)) if "THEAP" in header else rows
    end = rows + cards.whole("PCOUNT", range(0, 2**60))
    if position + max(start, end) > file_size:
        raise FrameError(
            f"{path}: is truncated ({file_size} bytes, but its tiles end at {position + max(start, end)}); "
            "copy the file again or leave it out"
        )
    if math.prod(axes) > EXPANSION * max(0, end - start) + BLANK_IMAGE:
        raise cards.refused("ZNAXIS", " x ".join(map(str, axes)), "an image that its tiles can hold")
    quantized = _check_quantization(cards, codec, bits, columns)
    with path.open("rb") as stream:
        _check_tiles(cards, codec, columns, tiles, _Region(stream, position, rows, start, max(start, end)))
    packed = _header(cards, axes, columns, quantized, rows=(width, count), heap=max(0, end - start))
    return PackedImage(
        path=path,
        header=packed,
        rows=(position, rows),
        heap=(position + start, max(0, end - start)),
        stored=f">{'f' if bits < 0 else 'i' if bits > 8 else 'u'}{abs(bits) // 8}",
        size=math.prod(axes) * abs(bits) // 8,
    )


class _Cards:
    """Cards of a header, each refused with its name if it is not as expected."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.values = path, dict(header)

    def refused(self, name: str, found: Any, expected: str) -> FrameError:
        return FrameError(
            f"{self.path}: {name} is {quoted(found)}, expected {expected}; copy the file again or decompress "
            "it with funpack"
        )

    def whole(self, name: str, allowed: tuple[int, ...] | range) -> int:
        return whole(self.values, name, self.path, allowed)

    def choice(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        value = self.values.get(name, default)
        if not isinstance(value, str) or value.strip().upper() not in allowed:
            raise self.refused(name, value, f"one of {', '.join(allowed)}")
        return value.strip().upper()

    def settings(self) -> dict[str, Any]:
        """Return the settings of the codec, ZNAMEn: ZVALn."""
        found: dict[str, Any] = {}
        for n in range(1, 1000):
            name = self.values.get(f"ZNAME{n}")
            if name is None:
                break
            found.setdefault(str(name).strip().upper(), self.values.get(f"ZVAL{n}"))
        return found


def _tiles(cards: _Cards, axes: list[int]) -> _Tiles:
    sizes = []
    for axis, length in enumerate(axes):
        name = f"ZTILE{axis + 1}"
        default = length if axis == 0 else 1
        sizes.append(cards.whole(name, range(1, 2**31)) if name in cards.values else default)
    parts = [-(-length // size) for length, size in zip(axes, sizes, strict=True)]
    if math.prod(parts) != cards.whole("NAXIS2", range(0, 2**40)):
        expected = f"tiles for {cards.values['NAXIS2']} rows of the table, not for {math.prod(parts)}"
        raise cards.refused("ZTILE", " x ".join(map(str, sizes)), expected)
    if math.prod(parts) > MAX_TILES:
        raise cards.refused("ZTILE", " x ".join(map(str, sizes)), f"at most {MAX_TILES} tiles")
    shapes = np.ones((math.prod(parts), len(axes)), np.int64)
    # The first axis varies fastest, as in the table.
    grid = np.indices(parts[::-1]).reshape(len(axes), -1)[::-1]
    for axis, (length, size) in enumerate(zip(axes, sizes, strict=True)):
        shapes[:, axis] = np.minimum(size, length - grid[axis] * size)
    return _Tiles(shapes[:, ::-1], shapes.prod(axis=1))


def _columns(cards: _Cards) -> tuple[dict[str, _Column], int]:
    """Return the columns of the table by name, and the size of a row."""
    if cards.whole("NAXIS", (2,)) and cards.whole("BITPIX", (8,)) and "GCOUNT" in cards.values:
        cards.whole("GCOUNT", (1,))
    columns: dict[str, _Column] = {}
    start = 0
    for n in range(1, 1 + cards.whole("TFIELDS", range(1, MAX_COLUMNS))):
        form = cards.values.get(f"TFORM{n}")
        parts = FORM.fullmatch(form) if isinstance(form, str) else None
        if parts is None or not isinstance(form, str):
            raise cards.refused(f"TFORM{n}", form, "the format of a column, such as 1PB(37)")
        count, letter, element = int(parts[1] or 1), parts[2], parts[3]
        name = str(cards.values.get(f"TTYPE{n}", "")).strip().upper() or f"COLUMN{n}"
        known = HEAPS.get(name, "") if letter in "PQ" else PER_TILE.get(name, "")
        if name in HEAPS | PER_TILE and (count != 1 or (element or letter) not in known):
            raise cards.refused(f"TFORM{n}", form, f"a format for the column {name}")
        if name == "NULL_PIXEL_MASK" or name in columns:
            raise cards.refused(f"TTYPE{n}", name, "one column each for data, scale and zero point")
        columns[name] = _Column(form.strip(), start, count, letter, element)
        start += count * WIDTHS[letter]
    if start != cards.whole("NAXIS1", range(1, 2**31)):
        raise cards.refused("NAXIS1", cards.values["NAXIS1"], f"{start} bytes for the columns of the table")
    packed = columns.get("COMPRESSED_DATA")
    if packed is None or (packed.element == "I") != (cards.values.get("ZCMPTYPE") == "PLIO_1"):
        raise cards.refused("TTYPE1", cards.values.get("TTYPE1"), "a column COMPRESSED_DATA of this codec")
    return columns, start


def _check_quantization(cards: _Cards, codec: str, bits: int, columns: dict[str, _Column]) -> dict[str, Any]:
    """Check how floats were made integers. Returns the cards about it, and those of the codec."""
    found: dict[str, Any] = {"ZCMPTYPE": codec, "ZBITPIX": bits}
    scaled = {"ZSCALE", "ZZERO"} & columns.keys()
    if scaled and (bits > 0 or len(scaled) < 2):
        raise cards.refused("ZBITPIX", bits, "-32 or -64, with columns ZSCALE and ZZERO for each tile")
    if bits < 0 and not scaled and (codec in QUANTIZED_ONLY or "ZSCALE" in cards.values):
        raise cards.refused("ZBITPIX", bits, f"columns ZSCALE and ZZERO for floats with {codec}")
    found["ZQUANTIZ"] = cards.choice("ZQUANTIZ", QUANTIZATIONS, "NO_DITHER")
    if found["ZQUANTIZ"] in DITHERED and scaled:
        found["ZDITHER0"] = cards.whole("ZDITHER0", range(1, 10001))
    if "ZBLANK" in cards.values:
        found["ZBLANK"] = cards.whole("ZBLANK", range(-(2**31), 2**31))
    settings = cards.settings()
    if codec.startswith("RICE"):
        known = {"BLOCKSIZE": (32, (16, 32)), "BYTEPIX": (4, (1, 2, 4))}
    elif codec == "HCOMPRESS_1":
        # Its scale stands in each tile.
        known = {"SMOOTH": (0, (0, 1))}
    else:
        known = {}
    for n, (name, (default, allowed)) in enumerate(known.items(), 1):
        value = settings.get(name, default)
        value = int(value) if isinstance(value, bool | float) and math.isfinite(value) else value
        if not isinstance(value, int) or value not in allowed or (name == "BYTEPIX" and 8 * value < bits):
            raise cards.refused(f"the setting {name} of {codec}", value, "a whole number that it knows")
        found |= {f"ZNAME{n}": name, f"ZVAL{n}": value}
    return found


class _Region(NamedTuple):
    """The open file, where the table starts, and where its rows end and its heap starts and ends."""

    stream: BinaryIO
    position: int
    rows: int
    start: int
    end: int

    def read(self, offset: int, size: int) -> bytes:
        self.stream.seek(self.position + offset)
        return self.stream.read(size)


def _check_tiles(
    cards: _Cards, codec: str, columns: dict[str, _Column], tiles: _Tiles, region: _Region
) -> None:
    """Check that the bytes of each tile lie in the heap, and what tiles say about their own size."""
    width = cards.values["NAXIS1"]
    table = np.frombuffer(region.read(0, len(tiles.samples) * width), np.uint8).reshape(-1, width)
    if len(table) < len(tiles.samples):
        raise cards.refused("NAXIS2", cards.values["NAXIS2"], "rows that the file has")
    missing = np.ones(len(table), bool)
    for name in HEAPS.keys() & columns.keys():
        column = columns[name]
        kind = ">u4" if column.letter == "P" else ">u8"
        size = WIDTHS[column.letter]
        raw = np.ascontiguousarray(table[:, column.start : column.start + size]).view(kind)
        # Floats hold any 64-bit sum without wrapping around.
        length, offset = raw[:, 0], raw[:, 1]
        item = WIDTHS[column.element]
        ends = offset.astype(np.float64) + length.astype(np.float64) * item
        if (ends > region.end - region.start).any():
            tile = int(np.argmax(ends))
            raise cards.refused(f"tile {tile + 1} of {name}", int(ends[tile]), "an end inside the file")
        used = (length > 0) & missing if name != "COMPRESSED_DATA" else length > 0
        missing &= length == 0
        places = np.stack([np.arange(len(length)), offset.astype(np.int64), length.astype(np.int64) * item])
        _check_own_sizes(cards, codec if name == "COMPRESSED_DATA" else name, places[:, used], tiles, region)
    if missing.any():
        raise cards.refused(f"tile {int(np.argmax(missing)) + 1}", "empty", "the bytes of a tile")


def _check_own_sizes(cards: _Cards, codec: str, places: np.ndarray, tiles: _Tiles, region: _Region) -> None:
    """Check the size that tiles by HCOMPRESS or gzip say that they have; `places` are tile, offset, size."""
    if codec == "HCOMPRESS_1":
        flat = tiles.shapes > 1
        for tile, offset, size in places.T.tolist():
            start = region.read(region.start + offset, min(size, HCOMPRESS_HEADER))
            numbers = [int.from_bytes(start[a:b], "big") for a, b in ((0, 2), (2, 6), (6, 10))]
            shape = tiles.shapes[tile][flat[tile]].tolist()
            if len(start) < HCOMPRESS_HEADER or numbers != [HCOMPRESS_MAGIC, *shape]:
                raise cards.refused(f"tile {tile + 1}", numbers[1:], f"the shape {shape} of a tile")
            if max(start[22:25]) > 63:
                raise cards.refused(f"tile {tile + 1}", list(start[22:25]), "at most 63 bit planes")
    elif codec.startswith("GZIP"):
        for tile, offset, size in places.T.tolist():
            _check_gzip(cards, tile, region.read(region.start + offset, size), int(tiles.samples[tile]))
    elif codec == "UNCOMPRESSED_DATA":
        wrong = places[2] % tiles.samples[places[0]] != 0
        if wrong.any():
            raise cards.refused("UNCOMPRESSED_DATA", int(places[2][wrong][0]), "the size of a tile")


def _check_gzip(cards: _Cards, tile: int, packed: bytes, samples: int) -> None:
    declared = int.from_bytes(packed[-4:], "little")
    if declared not in {samples * item for item in (1, 2, 4, 8)}:
        raise cards.refused(f"tile {tile + 1}", declared, f"the bytes of {samples} samples")
    if len(packed) > SMALL_TILE:
        inflater = zlib.decompressobj(wbits=31)
        try:
            inflated = len(inflater.decompress(packed, declared + 1))
        except zlib.error as error:
            raise cards.refused(f"tile {tile + 1}", str(error), "a tile by gzip") from None
        if inflated > declared or inflater.unused_data:
            raise cards.refused(f"tile {tile + 1}", "larger", f"{declared} bytes, as it says")


def _header(
    cards: _Cards,
    axes: list[int],
    columns: dict[str, _Column],
    quantized: dict[str, Any],
    *,
    rows: tuple[int, int],
    heap: int,
) -> bytes:
    """Return a header of checked cards only."""
    # Here, because only packed images need it.
    from astropy.io import fits

    header = fits.Header()
    header["XTENSION"] = "BINTABLE"
    header.update(
        {"BITPIX": 8, "NAXIS": 2, "NAXIS1": rows[0], "NAXIS2": rows[1], "PCOUNT": heap, "GCOUNT": 1}
    )
    header["TFIELDS"] = len(columns)
    for n, (name, column) in enumerate(columns.items(), 1):
        header[f"TTYPE{n}"] = name if name in HEAPS | PER_TILE else f"COLUMN{n}"
        header[f"TFORM{n}"] = column.form
    header["ZIMAGE"] = True
    header["ZNAXIS"] = len(axes)
    for n, length in enumerate(axes, 1):
        header[f"ZNAXIS{n}"] = length
        tile = cards.values.get(f"ZTILE{n}", length if n == 1 else 1)
        header[f"ZTILE{n}"] = min(tile, length)
    header.update(quantized)
    return header.tostring().encode("ascii")
