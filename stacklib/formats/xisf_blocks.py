"""Data blocks of an XISF file: location, compression and checksum.

The `xisf` package is not used for reading. It ignores byteOrder, pixelStorage and checksums, fails on
embedded images and subblocks, and decompresses whatever a file declares. The codecs are the same.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element

import lz4.block
import numpy as np
import zstandard

from stacklib.errors import FrameError
from stacklib.formats.scratch import MemoryBlock, ReadInto, hold
from stacklib.formats.source import Block, FileBlock, LazyBlock
from stacklib.utils.labels import quoted

__all__ = [
    "EXPANSION",
    "Compression",
    "StoredBlock",
    "decode_text",
    "find_block",
    "local_name",
    "refuse",
]

#: Maximum compression ratio of each codec. Blocks that declare more are rejected without trying.
EXPANSION = {"zlib": 1040, "lz4": 256, "lz4hc": 256, "zstd": 2**16}

#: Maximum size of an LZ4 block.
LZ4_LIMIT = 0x7E000000

#: Python's names of the algorithms.
CHECKSUMS = {
    name: name.replace("sha-", "sha").replace("sha3-", "sha3_")
    for name in ("sha1", "sha-1", "sha256", "sha-256", "sha512", "sha-512", "sha3-256", "sha3-512")
}

#: Most subblocks of a block. Writers make one of each gigabyte or so.
MAX_SUBBLOCKS = 10_000
#: Bytes read, inflated or unshuffled at once.
PIECE = 2**20
#: Largest header of a zstd frame, which may state the size of its content.
ZSTD_HEADER = 18

DECIMAL = re.compile(r"[0-9]{1,19}", re.ASCII)


def refuse(
    path: Path, field: str, found: Any, expected: str, remedy: str = "save the file again or leave it out"
) -> FrameError:
    """Return the error for a field with an invalid value."""
    return FrameError(f"{path}: {field} is {quoted(found)}, expected {expected}; {remedy}")


def local_name(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


@dataclass(frozen=True)
class Compression:
    """A parsed ``compression`` attribute."""

    codec: str
    size: int
    item_size: int
    subblocks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class StoredBlock:
    """A validated block of a file, not yet read or decompressed.

    `position` is the offset of an attached block, or None if the data are in `content`. `size` is the stored
    size in bytes.
    """

    path: Path
    field: str
    position: int | None
    content: bytes
    size: int
    compression: Compression | None
    checksum: tuple[str, str] | None

    @property
    def decoded_size(self) -> int:
        """Decompressed size in bytes."""
        return self.compression.size if self.compression else self.size

    def open(self) -> Block:
        """Return the decoded block. It is verified and decompressed on the first read."""
        if self.compression or self.checksum:
            return LazyBlock(self.decoded_size, self._prepare)
        return self._stored()

    def decode(self) -> bytes:
        """Return all decoded bytes. For small blocks."""
        with self.open().reader() as read_into:
            content = bytearray(self.decoded_size)
            read_into(0, memoryview(content))
        return bytes(content)

    def _stored(self) -> Block:
        if self.position is None:
            return MemoryBlock(self.content)
        return FileBlock(self.path, self.position, self.size)

    def _prepare(self) -> Block:
        self._verify()
        if self.compression is None:
            return self._stored()
        decoded = hold(self._inflated(self.compression), self.decoded_size, self.path)
        item_size = self.compression.item_size
        return ShuffledBlock(decoded, item_size) if item_size > 1 else decoded

    def _inflated(self, compression: Compression) -> Iterator[bytes | bytearray]:
        """Yield the decompressed bytes, never much more of them at once than one subblock by lz4 has."""
        start = 0
        with self._stored().reader() as read_into:
            for packed, plain in compression.subblocks:
                stored = _Stored(read_into, start, packed)
                # A subblock that compression would not shrink is stored uncompressed.
                is_raw = packed == plain and len(compression.subblocks) > 1
                inflate = _raw if is_raw else _INFLATE[compression.codec]
                try:
                    yield from _exactly(plain, inflate(stored, plain))
                except (*_CODEC_ERRORS, ValueError, MemoryError) as error:
                    raise FrameError(
                        f"{self.path}: {self.field} is not a valid {compression.codec} block of {plain} "
                        f"bytes ({error}); copy the file again"
                    ) from None
                start += packed

    def _verify(self) -> None:
        if self.checksum is None:
            return
        algorithm, expected = self.checksum
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with self._stored().reader() as read_into:
            for piece in _Stored(read_into, 0, self.size).pieces():
                digest.update(piece)
        if digest.hexdigest() != expected:
            raise FrameError(
                f"{self.path}: {self.field} does not match its {algorithm} checksum; copy the file again"
            )


class _Stored:
    """Stored bytes of a subblock, read piece by piece. It is a file for the library that inflates it."""

    def __init__(self, read_into: ReadInto, start: int, size: int) -> None:
        self._read_into, self._start, self._left = read_into, start, size

    def put_back(self, piece: bytearray) -> None:
        """Read these bytes again."""
        self._start -= len(piece)
        self._left += len(piece)

    def read(self, size: int = -1) -> bytearray:
        """Return the next bytes, all that are left for a negative size."""
        size = self._left if size < 0 else min(size, self._left)
        piece = bytearray(size)
        self._read_into(self._start, memoryview(piece))
        self._start += size
        self._left -= size
        return piece

    def pieces(self) -> Iterator[bytearray]:
        """Yield all bytes."""
        while self._left:
            yield self.read(PIECE)


class ShuffledBlock:
    """A block whose bytes are stored by their place in an item: all first bytes, then all second bytes.

    Bytes after the last complete item are not shuffled.
    """

    reads_file = False

    def __init__(self, block: Block, item_size: int) -> None:
        self._block, self._item_size = block, item_size
        self.size = block.size

    @contextlib.contextmanager
    def reader(self) -> Iterator[ReadInto]:
        """Yield a function that reads bytes in their order, starting at an offset, into a buffer."""
        count, width = self.size // self._item_size, self._item_size
        with self._block.reader() as read_into:

            def read(offset: int, view: memoryview) -> None:
                while len(view):
                    if offset >= count * width:
                        read_into(offset, view)
                        return
                    first = offset // width
                    last = min(count, -(-(offset + len(view)) // width), first + PIECE)
                    items = np.empty((last - first, width), np.uint8)
                    column = np.empty(last - first, np.uint8)
                    for place in range(width):
                        read_into(place * count + first, column.data)
                        items[:, place] = column
                    piece = items.reshape(-1)[offset - first * width :][: len(view)]
                    view[: len(piece)] = piece.data
                    offset, view = offset + len(piece), view[len(piece) :]

            yield read


def find_block(element: Element, path: Path, file_size: int, header_end: int) -> StoredBlock:
    """Find the data block of an element and validate its location, compression and checksum."""
    field = local_name(element)
    location = element.get("location", "")
    if location == "embedded":
        data = next((child for child in element if local_name(child) == "Data"), None)
        if data is None:
            raise refuse(path, f"{field} location", location, "a Data element inside")
        attributes, encoding, text = data.attrib, data.get("encoding", ""), data.text
    elif location.startswith("inline"):
        attributes, encoding, text = element.attrib, location.partition(":")[2], element.text
    else:
        attributes, encoding, text = element.attrib, "", None
    if encoding:
        position, content = None, decode_text(text or "", encoding, path, field)
        size = len(content)
    else:
        content = b""
        position, size = _attachment(location, path, field, file_size, header_end)
    compression = _compression(attributes, size, path, field)
    return StoredBlock(
        path=path,
        field=field,
        position=position,
        content=content,
        size=size,
        compression=compression,
        checksum=_checksum(attributes, path, field),
    )


def _attachment(location: str, path: Path, field: str, file_size: int, header_end: int) -> tuple[int, int]:
    expected = "attachment:position:size, embedded or inline:base64 (external blocks are not supported)"
    kind, *numbers = location.split(":")
    if kind != "attachment" or len(numbers) != 2 or not all(map(DECIMAL.fullmatch, numbers)):
        raise refuse(path, f"{field} location", location, expected)
    position, size = map(int, numbers)
    if position < header_end:
        raise refuse(path, f"{field} position", position, f"at least {header_end}, after the header")
    if position + size > file_size:
        raise FrameError(
            f"{path}: is truncated ({file_size} bytes, but the {field} block ends at {position + size}); "
            "copy the file again or leave it out"
        )
    return position, size


def decode_text(text: str, encoding: str, path: Path, field: str) -> bytes:
    """Decode base64 or hex digits. Raises `FrameError` for anything else."""
    try:
        digits = text.encode("ascii").translate(None, b" \t\r\n")
        if encoding == "base64":
            return base64.b64decode(digits, validate=True)
        if encoding == "hex":
            return binascii.unhexlify(digits)
    except ValueError as error:
        raise FrameError(
            f"{path}: {field} data is not valid {encoding} ({error}); copy the file again"
        ) from None
    raise refuse(path, f"{field} encoding", encoding, "base64 or hex")


def _checksum(attributes: dict[str, str], path: Path, field: str) -> tuple[str, str] | None:
    text = attributes.get("checksum")
    if text is None:
        return None
    name, _, digits = text.partition(":")
    algorithm, digits = CHECKSUMS.get(name.lower()), digits.strip().lower()
    if algorithm is None or len(digits) != 2 * hashlib.new(algorithm).digest_size:
        expected = "algorithm:hex digits (sha1, sha256, sha512, sha3-256, sha3-512)"
        raise refuse(path, f"{field} checksum", text, expected)
    return algorithm, digits


def _compression(attributes: dict[str, str], stored: int, path: Path, field: str) -> Compression | None:
    text = attributes.get("compression")
    if text is None:
        return None
    name, *numbers = text.split(":")
    codec, _, shuffled = name.lower().partition("+")
    valid = codec in EXPANSION and shuffled in ("", "sh") and all(map(DECIMAL.fullmatch, numbers))
    if not valid or len(numbers) not in ((2,) if shuffled else (1, 2)):
        expected = "codec:size or codec+sh:size:item-size (zlib, lz4, lz4hc, zstd)"
        raise refuse(path, f"{field} compression", text, expected)
    size, item_size = int(numbers[0]), int(numbers[1]) if shuffled else 1
    if not 1 <= item_size <= 16:
        raise refuse(path, f"{field} compression item size", item_size, "1 to 16 bytes")
    if size > stored * EXPANSION[codec] + 2**16:
        limit = f"at most {EXPANSION[codec]} times the {stored} stored bytes for {codec}"
        raise refuse(path, f"{field} compression size", size, limit)
    return Compression(codec, size, item_size, _subblocks(attributes, stored, size, path, field))


def _subblocks(
    attributes: dict[str, str], stored: int, size: int, path: Path, field: str
) -> tuple[tuple[int, int], ...]:
    text = attributes.get("subblocks")
    if text is None:
        return ((stored, size),)
    if text.count(":") >= MAX_SUBBLOCKS or len(text) > 50 * MAX_SUBBLOCKS:
        raise refuse(path, f"{field} subblocks", text[:100], f"at most {MAX_SUBBLOCKS} pairs of sizes")
    pairs = [pair.split(",") for pair in text.strip(":").split(":")]
    if not all(len(pair) == 2 and all(map(DECIMAL.fullmatch, pair)) for pair in pairs):
        raise refuse(path, f"{field} subblocks", text, "pairs of sizes, c1,u1:c2,u2")
    numbers = tuple((int(packed), int(plain)) for packed, plain in pairs)
    if sum(packed for packed, _ in numbers) != stored or sum(plain for _, plain in numbers) != size:
        raise refuse(path, f"{field} subblocks", text, f"sizes that add up to {stored},{size}")
    return numbers


_CODEC_ERRORS = (zlib.error, lz4.block.LZ4BlockError, zstandard.ZstdError)


def _exactly(size: int, pieces: Iterator[bytes | bytearray]) -> Iterator[bytes | bytearray]:
    """Yield the pieces. Raises `ValueError` if they are not of this size together."""
    found = 0
    for piece in pieces:
        found += len(piece)
        if found > size:
            raise ValueError("contains more than declared")
        yield piece
    if found < size:
        raise ValueError(f"decompresses to {found} bytes")


def _raw(stored: _Stored, size: int) -> Iterator[bytearray]:
    return stored.pieces()


def _inflate_zlib(stored: _Stored, size: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj()
    while not inflater.eof:
        piece = inflater.unconsumed_tail or stored.read(PIECE)
        content = inflater.decompress(piece, PIECE)
        if not piece and not content:
            raise ValueError("ends early")
        yield content


def _inflate_zstd(stored: _Stored, size: int) -> Iterator[bytes]:
    first = stored.read(PIECE)
    declared = zstandard.frame_content_size(bytes(first[:ZSTD_HEADER]))
    if declared not in (-1, size):
        raise ValueError(f"declares {declared} bytes")
    stored.put_back(first)
    with zstandard.ZstdDecompressor().stream_reader(cast(Any, stored), read_size=PIECE) as reader:
        while piece := reader.read(PIECE):
            yield piece


def _inflate_lz4(stored: _Stored, size: int) -> Iterator[bytes]:
    if size > LZ4_LIMIT:
        raise ValueError(f"{size} bytes exceed the limit of one lz4 block")
    yield lz4.block.decompress(stored.read(), uncompressed_size=size)


_INFLATE: dict[str, Callable[[_Stored, int], Iterator[bytes | bytearray]]] = {
    "zlib": _inflate_zlib,
    "zstd": _inflate_zstd,
    "lz4": _inflate_lz4,
    "lz4hc": _inflate_lz4,
}
