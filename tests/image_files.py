"""Small image files made byte by byte, and their pixels."""

from __future__ import annotations

import struct
import zlib

import lz4.block
import numpy as np
import zstandard

#: Pixels and attributes of an XISF file by default.
PIXELS = (np.arange(3 * 5 * 4, dtype=np.uint16) * 1000).reshape(3, 5, 4)
ATTRIBUTES = {"geometry": "4:5:3", "sampleFormat": "UInt16", "colorSpace": "RGB"}


def read_all(source):
    return np.stack([source.read_rows(0, source.height, channel) for channel in range(source.channels)])


def card(text):
    return text.ljust(80)[:80]


def header(cards):
    text = "".join(map(card, [*cards, "END"]))
    return text.ljust(-(-len(text) // 2880) * 2880).encode("latin-1")


def raw_fits(path, stored, cards=(), extension=False, cut=0):
    """Write a FITS file byte by byte. `stored` is big-endian, shape (channels, height, width) or 2-D."""
    bits = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}[stored.dtype.str[1:]]
    axes = [f"NAXIS{number + 1}  = {size:20d}" for number, size in enumerate(stored.shape[::-1])]
    common = [f"BITPIX  = {bits:20d}", f"NAXIS   = {stored.ndim:20d}", *axes]
    empty = [
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    0",
    ]
    if extension:
        content = header([*empty, "EXTEND  =                    T"])
        content += header(["XTENSION= 'IMAGE   '", *common, "PCOUNT  = 0", "GCOUNT  = 1", *cards])
    else:
        content = header(["SIMPLE  =                    T", *common, *cards])
    data = stored.tobytes()
    content += data + bytes(-len(data) % 2880)
    path.write_bytes(content[: len(content) - cut])
    return path


def make_xisf(path, block=None, inside="", header=None, version="1.0", position=4096, pad=0, **attributes):
    """Write an XISF file. Attributes replace the default ones of the image, None removes one."""
    block = PIXELS.tobytes() if block is None else block
    known = {**ATTRIBUTES, "location": f"attachment:{position}:{len(block)}", **attributes}
    text = " ".join(f'{name}="{value}"' for name, value in known.items() if value is not None)
    if header is None:
        header = (
            f'<?xml version="1.0" encoding="UTF-8"?><xisf version="{version}" '
            f'xmlns="http://www.pixinsight.com/xisf"><Image {text}>{inside}</Image></xisf>'
        )
    content = header if isinstance(header, bytes) else header.encode()
    content += b"\0" * pad
    start = b"XISF0100" + struct.pack("<II", len(content), 0) + content
    path.write_bytes(start.ljust(position, b"\0") + block)
    return path


def pack(codec, content):
    return {
        "zlib": zlib.compress,
        "lz4": lambda data: lz4.block.compress(data, store_size=False),
        "lz4hc": lambda data: lz4.block.compress(data, mode="high_compression", store_size=False),
        "zstd": zstandard.compress,
    }[codec](content)


def shuffle(content, item):
    count = len(content) // item
    planes = np.frombuffer(content[: count * item], np.uint8).reshape(count, item).T.tobytes()
    return planes + content[count * item :]
