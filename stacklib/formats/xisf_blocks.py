"""Data blocks of an XISF file: location, compression and checksum.

The `xisf` package is not used for reading. It ignores byteOrder, pixelStorage and checksums, fails on
embedded images and subblocks, and decompresses whatever a file declares. The codecs are the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import lz4.block
import numpy as np
import zstandard

from stacklib.errors import FrameError
from stacklib.formats.scratch import MemoryBlock, hold
from stacklib.formats.source import Block, FileBlock, LazyBlock

__all__ = ["StoredBlock", "find_block", "local_name", "refuse"]

#: Maximum compression ratio of each codec. Blocks that declare more are rejected without trying.
EXPANSION = {"zlib": 1040, "lz4": 256, "lz4hc": 256, "zstd": 2**16}

#: Maximum size of an LZ4 block.
LZ4_LIMIT = 0x7E000000

#: Python's names of the algorithms.
CHECKSUMS = {
    name: name.replace("sha-", "sha").replace("sha3-", "sha3_")
    for name in ("sha1", "sha-1", "sha256", "sha-256", "sha512", "sha-512", "sha3-256", "sha3-512")
}

DECIMAL = re.compile(r"[0-9]{1,19}", re.ASCII)


def refuse(
    path: Path, field: str, found: Any, expected: str, remedy: str = "save the file again or leave it out"
) -> FrameError:
    """Return the error for a field with an invalid value."""
    shown = repr(found) if len(repr(found)) <= 80 else repr(found)[:77] + "..."
    return FrameError(f"{path}: {field} is {shown}, expected {expected}; {remedy}")


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

    def decode(self) -> bytes | bytearray:
        """Return all decoded bytes. For small blocks."""
        stored = self._checked_bytes()
        return inflate(stored, self.compression, self.path, self.field) if self.compression else stored

    def _stored(self) -> Block:
        if self.position is None:
            return MemoryBlock(self.content)
        return FileBlock(self.path, self.position, self.size)

    def _prepare(self) -> Block:
        if self.compression:
            return hold([self.decode()], self.decoded_size, self.path)
        self._verify(self._pieces())
        return self._stored()

    def _checked_bytes(self) -> bytearray:
        content = bytearray(self.size)
        with self._stored().reader() as read_into:
            read_into(0, memoryview(content))
        self._verify([content])
        return content

    def _pieces(self) -> Iterator[memoryview]:
        piece = memoryview(bytearray(min(self.size, 2**22)))
        with self._stored().reader() as read_into:
            for start in range(0, self.size, len(piece) or 1):
                part = piece[: self.size - start]
                read_into(start, part)
                yield part

    def _verify(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        if self.checksum is None:
            return
        algorithm, expected = self.checksum
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for piece in pieces:
            digest.update(piece)
        if digest.hexdigest() != expected:
            raise FrameError(
                f"{self.path}: {self.field} does not match its {algorithm} checksum; copy the file again"
            )


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
        position, content = None, _decode_text(text or "", encoding, path, field)
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


def _decode_text(text: str, encoding: str, path: Path, field: str) -> bytes:
    try:
        if encoding == "base64":
            return base64.b64decode("".join(text.split()), validate=True)
        if encoding == "hex":
            return bytes.fromhex("".join(text.split()))
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
    pairs = [pair.split(",") for pair in text.strip(":").split(":")]
    if not all(len(pair) == 2 and all(map(DECIMAL.fullmatch, pair)) for pair in pairs):
        raise refuse(path, f"{field} subblocks", text, "pairs of sizes, c1,u1:c2,u2")
    numbers = tuple((int(packed), int(plain)) for packed, plain in pairs)
    if sum(packed for packed, _ in numbers) != stored or sum(plain for _, plain in numbers) != size:
        raise refuse(path, f"{field} subblocks", text, f"sizes that add up to {stored},{size}")
    return numbers


def inflate(stored: bytes | bytearray, compression: Compression, path: Path, field: str) -> bytes:
    """Decompress a block. Raises `FrameError` if it is damaged or has another size than declared."""
    view, pieces, start = memoryview(stored), [], 0
    for packed, plain in compression.subblocks:
        piece = view[start : start + packed]
        start += packed
        # A subblock that compression would not shrink is stored uncompressed.
        is_raw = packed == plain and len(compression.subblocks) > 1
        pieces.append(bytes(piece) if is_raw else _inflate_one(piece, compression.codec, plain, path, field))
    content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return unshuffle(content, compression.item_size) if compression.item_size > 1 else content


def _inflate_one(piece: memoryview, codec: str, size: int, path: Path, field: str) -> bytes:
    try:
        if codec == "zlib":
            content = _inflate_zlib(piece, size)
        elif codec == "zstd":
            content = _inflate_zstd(piece, size)
        elif size > LZ4_LIMIT:
            raise ValueError(f"{size} bytes exceed the limit of one lz4 block")
        else:
            content = lz4.block.decompress(piece, uncompressed_size=size)
        if len(content) != size:
            raise ValueError(f"decompresses to {len(content)} bytes")
    except (zlib.error, lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError, MemoryError) as error:
        raise FrameError(
            f"{path}: {field} is not a valid {codec} block of {size} bytes ({error}); copy the file again"
        ) from None
    return content


def _inflate_zlib(piece: memoryview, size: int) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(piece, max(size, 1))
    if not inflater.eof and inflater.decompress(inflater.unconsumed_tail, 1):
        raise ValueError("contains more than declared")
    if not inflater.eof:
        raise ValueError("ends early")
    return content


def _inflate_zstd(piece: memoryview, size: int) -> bytes:
    declared = zstandard.frame_content_size(piece)
    if declared not in (-1, size):
        raise ValueError(f"declares {declared} bytes")
    return zstandard.ZstdDecompressor().decompress(piece, max_output_size=size)


def unshuffle(content: bytes, item_size: int) -> bytes:
    """Undo byte shuffling. Bytes after the last complete item are not shuffled."""
    count = len(content) // item_size
    planes = np.frombuffer(content, np.uint8, count * item_size).reshape(item_size, count)
    return np.ascontiguousarray(planes.T).tobytes() + content[count * item_size :]
