"""Drizzle data: files that are written pass an independent check, and nothing in a file is believed."""

import base64
import re
import time
import tracemalloc
import zlib
from dataclasses import replace
from random import Random
from xml.etree import ElementTree

import lz4.block
import numpy as np
import pytest
from image_files import shuffle

from stacklib.errors import FrameError, SaveError, StacklibError
from stacklib.formats import xdrz
from stacklib.formats.xdrz import DrizzleData, read_xdrz, write_xdrz

WIDTH, HEIGHT = 23, 17
MATRIX = np.array([[0.999, -0.0123456789012345, 3.25], [0.0123, 1.001, -7.5], [1e-7, -2e-7, 1.0]])
RANDOM = np.random.default_rng(3)
BITS = RANDOM.choice(np.array([0, 0, 0, 0, 1, 2, 4, 8, 0x11, 0x22], np.uint8), (3, HEIGHT, WIDTH))
NAMESPACE = "{http://www.pixinsight.com/xdrz}"


def full(**changes):
    known = {
        "source": "/home/someone/night 1/M101_0001_c_cc_d.xisf",
        "cfa_source": "D:\\night 1\\M101_0001_c_cc.xisf",
        "pattern": "RGGB",
        "target": "/home/someone/M101_0001_c_cc_d_r.xisf",
        "width": WIDTH,
        "height": HEIGHT,
        "matrix": MATRIX,
        "pedestal": 0.001,
        "location": (0.1, 0.2, 1 / 3),
        "reference_location": (0.11, 0.22, 0.3),
        "scale": (1.0, 0.97, 1.02),
        "weights": (0.5, 1.0, 0.25),
        "maps": tuple(BITS),
    }
    return DrizzleData(**(known | changes))


def document(*children, version="1.0", root="xdrz"):
    inside = "".join(children)
    return f'<?xml version="1.0"?><{root} version="{version}" xmlns="http://www.pixinsight.com/xdrz">{inside}</{root}>'


SOURCE = "<SourceImage>/a/b/frame_1.xisf</SourceImage>"
SIZE = f'<ReferenceGeometry width="{WIDTH}" height="{HEIGHT}"/>'
PLAIN = "<AlignmentMatrix>1,0,0,0,1,0,0,0,1</AlignmentMatrix>"
SPLINE = '<AlignmentSplineX scalingFactor="1"><NodeXCoordinates>AAAA</NodeXCoordinates></AlignmentSplineX>'


def read_text(tmp_path, text):
    path = tmp_path / "frame.xdrz"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_xdrz(path)


def with_map(plane, codec="", parts=1, item_size=1, **changes):
    """Return a rejection map of one channel, written without the code that is tested."""
    content = shuffle(plane.tobytes(), item_size) if item_size > 1 else plane.tobytes()
    pack = {"zlib": zlib.compress, "lz4": lambda part: lz4.block.compress(part, store_size=False)}
    pack["lz4hc"] = pack["lz4"]
    known = {"width": WIDTH, "height": HEIGHT, "numberOfChannels": 1} | changes
    head = " ".join(f'{name}="{value}"' for name, value in known.items())
    if not codec:
        inside = f"<ChannelData>{base64.b64encode(content).decode()}</ChannelData>"
        return f"<RejectionMap {head}>{inside}</RejectionMap>"
    step = -(-len(content) // parts)
    pieces = [content[start : start + step] for start in range(0, len(content), step)]
    blocks = ""
    for piece in pieces:
        packed = pack[codec](piece)
        # What does not get smaller is stored as it is.
        packed = piece if parts > 1 and len(packed) >= len(piece) else packed
        text = base64.b64encode(packed).decode()
        blocks += f'<Subblock uncompressedSize="{len(piece)}">{text}</Subblock>'
    how = f'compression="{codec}+sh" itemSize="{item_size}"' if item_size > 1 else f'compression="{codec}"'
    return f"<RejectionMap {head}><ChannelData {how}>{blocks}</ChannelData></RejectionMap>"


def test_written_files_pass_an_independent_check(tmp_path, monkeypatch):
    monkeypatch.setattr(xdrz, "SUBBLOCK", 100)
    root = ElementTree.parse(write_xdrz(tmp_path / "frame.xdrz", full())).getroot()
    assert root.tag == f"{NAMESPACE}xdrz" and root.get("version") == "1.0"
    assert [child.tag.removeprefix(NAMESPACE) for child in root] == [
        *("CreationTime", "SourceImage", "CFASourceImage", "AlignmentTargetImage", "ReferenceGeometry"),
        *("AlignmentOrigin", "AlignmentMatrix", "Pedestal", "LocationEstimates", "ReferenceLocation"),
        *("ScaleFactors", "Weights", "RejectionMap"),
    ]
    named = {child.tag.removeprefix(NAMESPACE): child for child in root}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", named["CreationTime"].text)
    assert named["CFASourceImage"].attrib == {"pattern": "RGGB"}
    assert named["ReferenceGeometry"].attrib == {"width": "23", "height": "17", "numberOfChannels": "3"}
    assert named["AlignmentOrigin"].attrib == {"x": "0.5", "y": "0.5"}
    numbers = [float(text) for text in named["AlignmentMatrix"].text.split(",")]
    assert np.array_equal(numbers, MATRIX.ravel())
    for name in ("LocationEstimates", "ReferenceLocation", "ScaleFactors", "Weights"):
        assert len(named[name].text.split(",")) == 3
    planes = named["RejectionMap"].findall(f"{NAMESPACE}ChannelData")
    assert len(planes) == 3
    for plane, expected in zip(planes, BITS, strict=True):
        assert plane.get("compression") == "zlib" and len(plane) == 4
        pieces = [zlib.decompress(base64.b64decode(block.text)) for block in plane]
        assert [len(piece) for piece in pieces] == [int(block.get("uncompressedSize")) for block in plane]
        assert np.array_equal(np.frombuffer(b"".join(pieces), np.uint8).reshape(HEIGHT, WIDTH), expected)


def test_what_is_written_is_read_back(tmp_path):
    data = full()
    again = read_xdrz(write_xdrz(tmp_path / "frame.xdrz", data))
    for name in ("source", "cfa_source", "pattern", "target", "width", "height", "origin", "pedestal"):
        assert getattr(again, name) == getattr(data, name)
    for name in ("location", "reference_location", "scale", "weights"):
        assert getattr(again, name) == getattr(data, name)
    assert np.abs(again.matrix - MATRIX).max() <= 1e-9 and not again.notes
    assert all(np.array_equal(again.rejection(channel), BITS[channel]) for channel in range(3))
    with pytest.raises(SaveError, match=r"frame\.xdrz: already exists"):
        write_xdrz(tmp_path / "frame.xdrz", data)


def test_geometry_alone_is_valid(tmp_path):
    data = full(maps=(), location=(), reference_location=(), scale=(), weights=(), pedestal=None)
    again = read_xdrz(write_xdrz(tmp_path / "frame.xdrz", data))
    assert again.rejection(0) is None and again.location == again.weights == ()


@pytest.mark.parametrize("codec", ["", "zlib", "lz4", "lz4hc"])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("item_size", [1, 2, 4])
def test_rejection_maps_by_each_codec(tmp_path, codec, parts, item_size):
    data = read_text(
        tmp_path, document(SOURCE, SIZE, PLAIN, with_map(BITS[0], codec, parts, item_size if codec else 1))
    )
    assert np.array_equal(data.rejection(0), BITS[0])


def test_paths_are_only_names(tmp_path):
    data = full(cfa_source="..\\..\\etc\\frame.xisf", target="/etc/passwd", source="C:frame_2.fits")
    assert data.source_names == ("frame.xisf", "frame_2.fits") and data.target_name == "passwd"
    assert full(cfa_source="/a/..").source_names == ("M101_0001_c_cc_d.xisf",)
    with pytest.raises(FrameError, match=r"SourceImage is '/a/\.\.', expected the path"):
        read_text(tmp_path, document("<SourceImage>/a/..</SourceImage>", SIZE, PLAIN))


@pytest.mark.parametrize("origin", [(0.5, 0.5), (0.0, 0.0), (1.0, 0.25)])
def test_matrix_with_the_origin_at_the_corner(origin):
    x, y = 11.0, 4.0
    u, v, w = MATRIX @ (x + origin[0], y + origin[1], 1)
    there = np.array([u / w, v / w]) - origin  # place in pixels counted from the center of the first one
    p, q, r = full(origin=origin).corner_matrix @ (x + 0.5, y + 0.5, 1)
    assert np.allclose((p / r - 0.5, q / r - 0.5), there, atol=1e-12)


def test_old_files_without_an_origin(tmp_path):
    assert read_text(tmp_path, document(SOURCE, SIZE, PLAIN)).origin == (0.0, 0.0)
    new = read_text(tmp_path, document(SOURCE, SIZE, '<AlignmentOrigin x="0.5" y="0.5"/>', PLAIN))
    assert new.origin == (0.5, 0.5)


def test_splines_are_not_ignored(tmp_path):
    with pytest.raises(FrameError, match=r"has splines \(AlignmentSplineX\) and no AlignmentMatrix"):
        read_text(tmp_path, document(SOURCE, SIZE, SPLINE))
    data = read_text(tmp_path, document(SOURCE, SIZE, PLAIN, SPLINE, "<Metadata>QUJD</Metadata><New>1</New>"))
    assert "a distortion beside its matrix (AlignmentSplineX), which is not applied" in data.notes[0]
    assert "'New'" in data.notes[1]
    # What others know is still there in the completed copy.
    root = ElementTree.parse(write_xdrz(tmp_path / "copy.xdrz", replace(data, weights=(1.0,)))).getroot()
    names = [child.tag.removeprefix(NAMESPACE) for child in root]
    assert names[4:] == ["AlignmentMatrix", "AlignmentSplineX", "Metadata", "Weights", "New"]
    assert root[names.index("AlignmentSplineX")].get("scalingFactor") == "1"
    assert (
        root[names.index("AlignmentSplineX")][0].text == "AAAA"
        and root[names.index("Metadata")].text == "QUJD"
    )


REFUSED = {
    "an image": (b"SIMPLE  =", "is not XML; if it is old drizzle data"),
    "nothing": ("", "is not XML"),
    "another root": (document(root="xisf"), "root element is 'xisf', expected xdrz"),
    "another version": (document(version="2.0"), "version is '2.0', expected '1.0'"),
    "DOCTYPE": ('<!DOCTYPE x [<!ENTITY a "b">]><xdrz/>', "has a DOCTYPE"),
    "no source": (document(SIZE, PLAIN), "SourceImage is '', expected the path"),
    "no geometry": (document(SOURCE, PLAIN), "has no ReferenceGeometry"),
    "no matrix": (document(SOURCE, SIZE), "has no AlignmentMatrix"),
    "twice": (document(SOURCE, SOURCE, SIZE, PLAIN), "has two elements SourceImage"),
    "empty reference": (document(SOURCE, SIZE.replace("23", "0"), PLAIN), "width is '0', expected a whole"),
    "huge reference": (document(SOURCE, SIZE.replace("23", "9999999"), PLAIN), "from 1 to 1000000"),
    "eight numbers": (document(SOURCE, SIZE, PLAIN.replace(",1<", "<")), "'8 numbers', expected nine"),
    "ten numbers": (document(SOURCE, SIZE, PLAIN.replace(",1<", ",1,1<")), "at most 9 numbers"),
    "no number": (document(SOURCE, SIZE, PLAIN.replace(",1<", ",nan<")), "'nan', expected a finite number"),
    "too large": (document(SOURCE, SIZE, PLAIN.replace(",1<", ",1e999<")), "'1e999', expected a finite"),
    "singular": (document(SOURCE, SIZE, PLAIN.replace("1,0,0,0,1", "1,0,0,1,0")), "of the whole reference"),
    "horizon": (document(SOURCE, SIZE, PLAIN.replace("0,0,1<", "-1,0,9<")), "of the whole reference"),
    "negative": (document(SOURCE, SIZE, PLAIN, "<Weights>-1</Weights>"), r"Weights is \[-1.0\]"),
    "channels": (
        document(SOURCE, SIZE, PLAIN, "<Weights>1,1</Weights><ScaleFactors>1,1,1</ScaleFactors>"),
        r"different numbers of channels \(ScaleFactors 3, Weights 2\)",
    ),
    "map of another size": (
        document(SOURCE, SIZE, PLAIN, with_map(BITS[0], width=22)),
        "RejectionMap width is 22, expected 23",
    ),
    "map without channels": (
        document(SOURCE, SIZE, PLAIN, with_map(BITS[0], numberOfChannels=2)),
        "'1 ChannelData', expected 2",
    ),
    "map cut off": (document(SOURCE, SIZE, PLAIN, with_map(BITS[0][1:])), "368, expected 391 bytes"),
    "codec": (
        document(SOURCE, SIZE, PLAIN, with_map(BITS[0], "zlib").replace("zlib", "zstd")),
        "compression is 'zstd', expected zlib, lz4 or lz4hc",
    ),
    "lying subblock": (
        document(SOURCE, SIZE, PLAIN, with_map(BITS[0], "zlib").replace('"391"', '"392"')),
        "uncompressedSize is '392', expected whole numbers that add up to 391",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(tmp_path, what):
    text, words = REFUSED[what]
    with pytest.raises(FrameError, match=words) as caught:
        read_text(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'frame.xdrz'}: ")


def test_a_map_that_inflates_without_end(tmp_path):
    size = '<ReferenceGeometry width="60000" height="60000"/>'
    plane = zlib.compress(bytes(10**6), 9)
    for codec, said in (("zlib", "what"), ("lz4", "what")):
        block = f'<Subblock uncompressedSize="3600000000">{base64.b64encode(plane).decode()}</Subblock>'
        text = (
            '<RejectionMap width="60000" height="60000" numberOfChannels="1">'
            f'<ChannelData compression="{codec}">{block}</ChannelData></RejectionMap>'
        )
        with pytest.raises(FrameError, match=f"3600000000, expected {said} "):
            read_text(tmp_path, document(SOURCE, size, PLAIN, text))


def test_a_damaged_block_is_an_error_of_the_file(tmp_path):
    text = document(SOURCE, SIZE, PLAIN, with_map(BITS[0], "zlib"))
    place = text.index("</Subblock>") - 40
    data = read_text(tmp_path, text[:place] + "AAAA" + text[place + 4 :])
    with pytest.raises(FrameError, match="not a valid zlib block"):
        data.rejection(0)


# Any damage -------------------------------------------------------------------------------------------

VALUES = [
    *("", "0", "-1", "1e400", "9" * 400, "nan", "1,2", "../../etc/passwd", "/dev/zero", "zlib", "lz4+sh"),
    *("4294967296", "'", "&amp;", "\u202e", "0x10", "1_0", "1" * 70),
]


def damaged(content: bytes, random: Random) -> bytes:
    action = random.randrange(6)
    place = random.randrange(len(content))
    if action == 0:
        return content[:place]
    if action == 1:
        changed = bytearray(content)
        for _ in range(random.choice((1, 5, 50))):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)
    if action == 2:
        end = place + random.choice((1, 30, 300))
        return content[:place] + content[place:end] * random.choice((0, 2, 50)) + content[end:]
    value = random.choice(VALUES).encode()
    if action == 3:
        found = random.choice(list(re.finditer(rb'="([^"]*)"', content)))
        return content[: found.start(1)] + value + content[found.end(1) :]
    if action == 4:
        found = random.choice(list(re.finditer(rb">([^<]+)<", content)))
        return content[: found.start(1)] + value + content[found.end(1) :]
    element = b"<%s>" % random.choice((b"Metadata", b"Subblock", b"AlignmentSplineX", b"x" * 1000))
    return content[:place] + element * random.choice((1, 70, 3000)) + content[place:]


def test_a_thousand_damaged_files(tmp_path):
    good = [
        write_xdrz(tmp_path / "good.xdrz", full()).read_bytes(),
        document(SOURCE, SIZE, PLAIN, SPLINE, with_map(BITS[0], "lz4", 3, 4)).encode(),
        document(SOURCE, SIZE, PLAIN, with_map(BITS[1])).encode(),
    ]
    random, path, ends = Random(5), tmp_path / "frame.xdrz", []
    tracemalloc.start()
    for number in range(1000):
        path.write_bytes(damaged(good[number % 3], random))
        tracemalloc.reset_peak()
        started = time.process_time()
        try:
            data = read_xdrz(path)
            for channel in range(len(data.maps)):
                assert data.rejection(channel).shape == (data.height, data.width)
            assert all("/" not in name and "\\" not in name for name in data.source_names)
            ends.append("read")
        except StacklibError as error:
            assert str(path) in str(error) and len(str(error).replace(str(path), "")) < 300, str(error)
            ends.append("refused")
        assert time.process_time() - started < 1
        assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert min(ends.count("read"), ends.count("refused")) > 100
