"""Small good files, and random damage to them.

An input follows from a seed and a number alone. Each kind of file is one entry of `KINDS`: another format
needs its good files, a function that damages them, and the check of `fuzz_checks` that reads them.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from astropy.io import fits
from image_files import PIXELS, header, make_xisf, pack, raw_fits, shuffle

from stacklib.formats.xdrz import DrizzleData, write_xdrz
from stacklib.recipe.recipe import Job, Recipe


@dataclass(frozen=True)
class Input:
    """A damaged file: its kind, the good file it was, its content; whether its pixels must be the same."""

    kind: str
    origin: str
    content: bytes
    same: bool


@dataclass(frozen=True)
class Kind:
    """A kind of file: ending, share of the inputs, good files, damage, and the name of its check."""

    ending: str
    share: int
    good: Callable[[], dict[str, bytes]]
    damage: Callable[[bytes, Random], tuple[bytes, bool]]
    check: str = "image"


#: What programs, damaged disks and ill will write in place of a number or a text.
VALUES = [
    *("", " ", "0", "-1", "1", "2", "3", "44", "1e10", "10000000000", "9" * 60, "1e400", "-1e308", "1e300"),
    *("80.", "1.5", "NaN", "inf", "T", "F", "'text'", "''", "'", "(1.0, 2.0)", "0x10", "6,4E-05", "1_000"),
    *("2147483647", "2147483648", "-2147483648", "4294967296", "9223372036854775807", "-9223372036854775808"),
    *("'0001-01-01T00:00:00'", "'9999-12-31T23:59:59'", "'2024-02-30'", "'\x1b[31m'", "'caf\xe9'", "'a''b'"),
    *("'GZIP_1'", "'HCOMPRESS_1'", "'RICE_1'", "'PLIO_1'", "'1PB(999)'", "'1QJ'", "'IMAGE'", "'BINTABLE'"),
]
# fmt: off
#: Keywords that mean something to someone.
NAMES = [
    "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "BSCALE", "BZERO", "BLANK",
    "SIMPLE", "EXTEND", "XTENSION", "EXTNAME", "INHERIT", "END", "CONTINUE", "HISTORY", "COMMENT",
    "", "ROWORDER", "EXPTIME", "EXPOSURE", "DATE-OBS", "DATE-END", "MJD-OBS", "GAIN", "CCD-TEMP",
    "OBJECT", "FILTER", "INSTRUME", "BAYERPAT", "XBAYROFF", "NOISE00", "CTYPE1", "CRPIX1",
    "A_ORDER", "IMAGETYP", "NCOMBINE", "FOO=BAR", "HIERARCH", "ZIMAGE", "ZBITPIX", "ZTILE1",
    "ZNAXIS1", "ZCMPTYPE", "ZVAL1", "TFIELDS", "THEAP",
]
# fmt: on
#: Cards that change pixels, or which image is used.
OF_PIXELS = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS.*|[PG]COUNT|BSCALE|BZERO|BLANK|EXTNAME|INHERIT|END|CONTINUE|Z.*|T.*|"
)


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stacklib-fuzz-") as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


# Good files -------------------------------------------------------------------------------------------

CARDS = [
    "EXPTIME =                 30.0 / [s]",
    "DATE-OBS= '2024-01-05T22:10:00'",
    "OBJECT  = 'M 101   '",
    "FILTER  = 'L       '",
    "GAIN    =                  100",
    "CCD-TEMP=                -10.5",
    "HISTORY calibrated",
]
COUNTS = (np.arange(3 * 12 * 16) * 37 % 5000).reshape(3, 12, 16)


@functools.cache
def good_fits() -> dict[str, bytes]:
    """Plain FITS files of each sample type, gray and color, and one with several images."""
    found = {}
    for kind in ("u1", "i2", "i4", "i8", "f4", "f8"):
        stored = (COUNTS[0] % 200 if kind == "u1" else COUNTS[0]).astype(f">{kind}")
        found[kind] = _written(lambda path, stored=stored: raw_fits(path, stored, CARDS))
    unsigned = [*CARDS, "BZERO   =                32768", "BSCALE  =                    1"]
    found["u2"] = _written(lambda path: raw_fits(path, (COUNTS[0] - 2500).astype(">i2"), unsigned))
    found["color"] = _written(lambda path: raw_fits(path, COUNTS.astype(">f4"), CARDS))
    found["extension"] = _written(lambda path: raw_fits(path, COUNTS[0].astype(">i2"), CARDS, extension=True))
    parts = [fits.ImageHDU(plane.astype("i2"), name=name) for plane, name in zip(COUNTS, "RGB", strict=True)]
    mask = fits.ImageHDU((COUNTS[0] > 4000).astype("u1"), name="MASK")
    found["parts"] = _written(lambda path: fits.HDUList([fits.PrimaryHDU(), *parts, mask]).writeto(path))
    return found


def zipped_fits() -> dict[str, bytes]:
    """The same, as they are before gzip."""
    return {name: good_fits()[name] for name in ("i2", "color", "parts")}


@functools.cache
def packed_fits() -> dict[str, bytes]:
    """Tile-compressed FITS files of each codec."""
    found = {}
    image = COUNTS[0].astype("i2")
    for codec in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"):
        for name, pixels in (("i2", image), ("f4", image + np.float32(0.37) * image[::-1])):
            if (codec, name) != ("PLIO_1", "f4"):
                unit = fits.CompImageHDU(pixels, compression_type=codec, tile_shape=(6, 8))
                unit.header["OBJECT"] = "M 101"
                found[f"{codec} {name}"] = _written(unit.writeto)
    lossless = fits.CompImageHDU(COUNTS.astype("f4"), compression_type="GZIP_2", quantize_level=0)
    return found | {"color": _written(lossless.writeto)}


KEYWORDS = "".join(
    f'<FITSKeyword name="{name}" value="{value}" comment="c"/>'
    for name, value in (("EXPTIME", 30), ("DATE-OBS", "'2024-01-05T22:10:00'"), ("OBJECT", "'M 101'"))
)
PROPERTIES = (
    '<Property id="Instrument:ExposureTime" type="Float32" value="30"/>'
    '<Property id="Observation:Object:Name" type="String">M 101</Property>'
    '<Property id="Observation:Time:Start" type="TimePoint" value="2024-01-05T22:10:00Z"/>'
    '<Property id="Some:Vector" type="F32Vector" length="2" location="inline:base64">AACAPwAAAEA=</Property>'
    '<Property id="Some:Count" type="Int32" value="3"/><Property id="Some:Switch" type="Boolean" value="1"/>'
)


@functools.cache
def good_xisf() -> dict[str, bytes]:
    """XISF files, plain and by each codec."""
    inside, plain = KEYWORDS + PROPERTIES, PIXELS.tobytes()
    floats = (PIXELS / np.float32(65535)).astype("<f4").tobytes()
    layouts: dict[str, dict] = {
        "plain": {},
        "float": {"block": floats, "sampleFormat": "Float32", "bounds": "0:1"},
        "checksum": {"checksum": "sha1:" + hashlib.sha1(plain).hexdigest()},
        "subblocks": {
            "block": zlib.compress(plain[:60]) + plain[60:],
            "compression": "zlib:120",
            "subblocks": f"{len(zlib.compress(plain[:60]))},60:60,60",
        },
    }
    for codec in ("zlib", "lz4", "lz4hc", "zstd"):
        layouts[codec] = {"block": pack(codec, plain), "compression": f"{codec}:120"}
        layouts[f"{codec}+sh"] = {
            "block": pack(codec, shuffle(plain, 2)),
            "compression": f"{codec}+sh:120:2",
        }
    return {
        name: _written(lambda path, how=how: make_xisf(path, inside=inside, **how))
        for name, how in layouts.items()
    }


@functools.cache
def good_xdrz() -> dict[str, bytes]:
    """Drizzle data, of the geometry alone and complete."""
    size = {"source": "/a/M101_0001_c.xisf", "width": 16, "height": 12}
    geometry = DrizzleData(**size, matrix=np.eye(3), created="2024-01-05T22:10:00Z")
    complete = replace(
        geometry,
        cfa_source="C:\\a\\M101_0001_c.xisf",
        pattern="RGGB",
        location=(0.1, 0.2, 0.3),
        reference_location=(0.1, 0.2, 0.3),
        scale=(1.0, 0.9, 1.1),
        weights=(0.5, 1.0, 1.0),
        maps=tuple((COUNTS % 7 == 0).astype(np.uint8)),
    )
    return {
        name: _written(lambda path, data=data: write_xdrz(path.with_suffix(".xdrz"), data).rename(path))
        for name, data in (("geometry", geometry), ("complete", complete))
    }


@functools.cache
def good_recipes() -> dict[str, bytes]:
    """Recipe and job files."""
    job = "frames: [a_1.xisf, a_2.xisf]\noutput: out\nmemory: 4GB\nrejection: gesd\nsigma_low: 4\n"
    assert Job.from_dict({"frames": ["a"]}).frames == ["a"]
    return {
        "recipe": Recipe().to_yaml().encode(),
        "rule": b"rejection: winsorized_sigma\nsigma_low: 3.2\nsigma_high: 2.9\nclip_low: false\n",
        "job": job.encode(),
    }


# Damage -----------------------------------------------------------------------------------------------


def _bytes(content: bytes, random: Random, first: int = 0) -> bytes:
    """Change, remove or repeat some bytes from `first` on."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        place = random.randrange(first, max(first + 1, len(changed)))
        size = random.choice((1, 1, 4, 80, 500))
        action = random.randrange(5)
        if action < 3 and place < len(changed):
            changed[place] = random.randrange(256)
        elif action == 3:
            del changed[place : place + size]
        else:
            changed[place:place] = changed[place : place + size]
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content))]


def _cards(content: bytes) -> list[int]:
    """Return where the cards of all headers are."""
    places = []
    for start in range(0, len(content), 2880):
        if content[start : start + 8] in (b"SIMPLE  ", b"XTENSION"):
            for place in range(start, len(content) - 79, 80):
                places.append(place)
                if content[place : place + 8] == b"END     ":
                    break
    return places


def _one_card(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Change one card. The length of the header stays the same where that is possible."""
    places = _cards(content)
    if not places:
        return content, False
    place = random.choice(places)
    card = content[place : place + 80]
    name = card[:8].decode("latin-1").strip()
    value, new = random.choice(VALUES), random.choice(NAMES)
    action = random.randrange(8)
    if action <= 2:
        made = f"{name:<8}= {value}"
    elif action == 3:
        made = f"{new:<8}= {value}"
    elif action == 4:
        made = new.ljust(8) + value
    elif action == 5:
        made = ""
    elif action == 6:
        changed = bytearray(card)
        changed[random.randrange(80)] = random.randrange(256)
        made = changed.decode("latin-1")
    else:
        made = card.decode("latin-1").replace("=", "", 1)
    after = content[:place] + made.encode("latin-1")[:80].ljust(80) + content[place + 80 :]
    names = (name, made[:8].strip().upper(), new if 3 <= action <= 4 else "X")
    # A card without a name is a comment; a CONTINUE card belongs to the one before.
    return after, not any(OF_PIXELS.fullmatch(each) for each in names if each or action != 5)


def _more_cards(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Add cards to the first header, up to thousands."""
    count = random.choice((1, 3, 30, 300, 9000))
    names = [name for name in NAMES if not OF_PIXELS.fullmatch(name)]
    pick = random.choice(
        (lambda i: f"K{i:<7}", lambda i: random.choice(names).ljust(8), lambda i: "HISTORY ")
    )
    cards = [f"{pick(i)}= {random.choice(VALUES)}" for i in range(count)]
    places = _cards(content)
    end = next(place for place in places if content[place : place + 8] == b"END     ")
    old = [content[place : place + 80].decode("latin-1") for place in places if place < end]
    return header([*old, *cards]) + content[-(-(end + 80) // 2880) * 2880 :], True


def damage_fits(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Damage a FITS file."""
    action = random.randrange(12)
    if action == 0:
        return _cut(content, random), False
    if action == 1:
        return _bytes(content, random), False
    if action == 2:
        return content + random.randbytes(random.choice((1, 80, 2880))), True
    if action == 3:
        return _more_cards(content, random)
    if action == 4:
        return content + random.choice(list(good_fits().values())), True
    same = True
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content, alike = _one_card(content, random)
        same = same and alike
    return content, same


def damage_zipped(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Damage a FITS file, compress it, and perhaps damage that."""
    content, same = damage_fits(content, random)
    action = random.randrange(8)
    if action == 0:
        content = content.ljust(2880 * random.choice((10, 3000)), b"\0")
    packed = gzip.compress(content, 1)
    if action == 1:
        return _cut(packed, random), False
    if action == 2:
        return _bytes(packed, random), False
    return packed, same


def damage_packed(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Damage a tile-compressed FITS file. Its cards about tiles are changed most often."""
    action = random.randrange(10)
    if action == 0:
        return _cut(content, random), False
    if action == 1:
        return _bytes(content, random, first=2880), False
    places = [place for place in _cards(content) if place >= 2880]
    place = random.choice([place for place in places if content[place : place + 1] in b"ZTNP"] or places)
    if action < 6:
        name = content[place : place + 8]
        card = (name + b"= " + random.choice(VALUES).encode("latin-1"))[:80].ljust(80)
        changed = content[:place] + card + content[place + 80 :]
        return changed, re.match(rb"ZTILE|TFORM|TTYPE|THEAP|PCOUNT|TFIELDS", name) is not None
    if action < 8:
        # The table and the heap: bytes of descriptors and of tiles.
        start = -(-(max(places) + 80) // 2880) * 2880
        return content[:start] + _bytes(content[start:], random), False
    return _one_card(content, random)[0], False


XISF_VALUES = ["1" * 400, "0x" + "f" * 5000, "inline:base64", "UInt8", "String", "1:1:1", "zlib:120", "0:1"]
ATTRIBUTE = re.compile(rb'([A-Za-z]+)="([^"]*)"')


def damage_xisf(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Damage an XISF file: its attributes, its elements, or any bytes."""
    length = int.from_bytes(content[8:12], "little")
    head = content[16 : 16 + length]
    action = random.randrange(10)
    if action == 0:
        return _cut(content, random), False
    if action == 1:
        return _bytes(content, random, first=random.choice((0, 4096))), False
    if action == 2:
        return content[:8] + random.randbytes(4) + content[12:], False
    same = True
    if action == 3:
        head, same = _bytes(head, random), False
    elif action == 4:
        element = b'<FITSKeyword name="%s" value="%s" comment=""/>'
        names = [random.choice(NAMES).encode() for _ in range(random.choice((1, 50)))]
        added = b"".join(element % (name, _xml(random.choice(VALUES))) for name in names)
        head = head.replace(b"<FITSKeyword", added + b"<FITSKeyword", 1)
    else:
        for _ in range(random.choice((1, 1, 2, 4))):
            found = random.choice(list(ATTRIBUTE.finditer(head)))
            value = _xml(
                random.choice([*VALUES, "1" * 400, "0x" + "f" * 5000, "inline:base64", "UInt8", "String"])
            )
            if random.random() < 0.1:
                head = head[: found.start()] + head[found.end() :]
            else:
                head = head[: found.start(2)] + value + head[found.end(2) :]
            # Attributes of keywords and properties cost no pixel.
            same = same and head.rfind(b"<", 0, found.start()) > head.index(b"<Image")
    block = content[4096:]
    if 16 + len(head) > 4096:
        return b"XISF0100" + len(head).to_bytes(4, "little") + bytes(4) + head + block, False
    start = b"XISF0100" + len(head).to_bytes(4, "little") + bytes(4) + head
    return start.ljust(4096, b"\0") + block, same


def _xml(text: str) -> bytes:
    for letter, name in (("&", "&amp;"), ("<", "&lt;"), ('"', "&quot;"), ("\x1b", "")):
        text = text.replace(letter, name)
    return text.encode()


TEXT = re.compile(rb">([^<>]+)<")


def damage_xdrz(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Damage drizzle data: attributes, texts, elements or any bytes."""
    action = random.randrange(8)
    if action == 0:
        return _cut(content, random), False
    if action == 1:
        return _bytes(content, random), False
    if action == 2:
        element = b"<%s>" % random.choice((b"Metadata", b"Subblock", b"AlignmentSplineX", b"x" * 1000))
        place = random.randrange(len(content))
        return content[:place] + element * random.choice((1, 70, 3000)) + content[place:], False
    for _ in range(random.choice((1, 1, 2, 4))):
        kind = random.choice((ATTRIBUTE, TEXT))
        found = random.choice(list(kind.finditer(content)))
        group = kind.groups
        value = _xml(random.choice([*VALUES, "1" * 400, "1,2", "../../a", "/dev/zero", "lz4", "AAAA"]))
        content = content[: found.start(group)] + value + content[found.end(group) :]
    return content, False


YAML_VALUES = [
    *(
        "",
        "~",
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "yes",
        "'no'",
        "1e400",
        ".nan",
        ".inf",
        "-1",
        "3,2",
        "x" * 5000,
    ),
    *(
        "1" * 400,
        "2021-13-45",
        "2021-01-05",
        "0o17",
        "1_000",
        "!!int abc",
        "!!bool x",
        "!!python/name:os.system",
    ),
    *(
        "&a [*a]",
        "*a",
        "[[[[[[[[1]]]]]]]]",
        "'\\0'",
        '"\\0"',
        '"\\u202e"',
        "|\n  text",
        "? [a]",
        "4GB",
        "auto",
    ),
]


def damage_yaml(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Damage a recipe or job file."""
    action = random.randrange(8)
    if action == 0:
        return _cut(content, random), False
    if action == 1:
        return _bytes(content, random), False
    lines = content.decode().splitlines()
    for _ in range(random.choice((1, 1, 2, 5))):
        place = random.randrange(len(lines))
        name = lines[place].partition(":")[0]
        value = random.choice(YAML_VALUES)
        if action == 2:
            lines.insert(place, f"{random.choice(('x', '1', '? [a]', name, '&a b', '<<'))}: {value}")
        elif action == 3:
            lines[place] = name
        elif action == 4:
            lines[place] = f"{name}: " + "[" * random.choice((5, 3000))
        elif action == 5:
            level = "[" + ", ".join(["*a"] * 9) + "]"
            lines.insert(
                place, f"{name}: &a {level.replace('*a', 'x')}\nb: &b {level}\nc: {level.replace('a', 'b')}"
            )
        else:
            lines[place] = f"{name}: {value}"
    return "\n".join(lines).encode(), False


# fmt: off
HEADER_NAMES = [
    "OBJECT", "FILTER", "INSTRUME", "EXPTIME", "EXPOSURE", "DATE-OBS", "DATE-END", "MJD-OBS",
    "DATE-LOC", "GAIN", "CCD-TEMP", "SITELONG", "BAYERPAT", "XBAYROFF", "NOISE00", "BUNIT",
    "CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "A_ORDER", "FOO=BAR", "A B",
    "LONGKEYWORDNAME", "CONTINUE", "END", "SIMPLE", "HISTORY",
]
# fmt: on


def header_lists() -> dict[str, bytes]:
    """Nothing but a place for keywords: the check writes frames with them, integrates and saves."""
    return {"keywords": b""}


def damage_headers(content: bytes, random: Random) -> tuple[bytes, bool]:
    """Make lines of keywords and values."""
    texts = [value for value in VALUES if "\n" not in value]
    lines = [
        f"{random.choice(HEADER_NAMES)}\t{random.choice([*texts, '1' * 400])}"
        for _ in range(random.randrange(1, 6))
    ]
    return "\n".join(lines).encode(), True


KINDS = {
    "fits": Kind(".fits", 30, good_fits, damage_fits),
    "fits.gz": Kind(".fits.gz", 10, zipped_fits, damage_zipped),
    "fits.fz": Kind(".fits.fz", 20, packed_fits, damage_packed),
    "xisf": Kind(".xisf", 26, good_xisf, damage_xisf),
    "xdrz": Kind(".xdrz", 8, good_xdrz, damage_xdrz, "drizzle data"),
    "recipe": Kind(".yaml", 13, good_recipes, damage_yaml, "recipe"),
    "headers": Kind(".txt", 1, header_lists, damage_headers, "headers"),
}


def make_input(seed: int, number: int) -> Input:
    """Return the input of this number."""
    random = Random(f"{seed} {number}")
    name = random.choices(list(KINDS), [kind.share for kind in KINDS.values()])[0]
    kind = KINDS[name]
    origin = random.choice(sorted(kind.good()))
    content, same = kind.damage(kind.good()[origin], random)
    return Input(name, origin, content, same)
