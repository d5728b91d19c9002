"""XISF: files of PixInsight and other programs, and rejection of malicious files."""

import base64
import hashlib
import io
import re
import struct
import tracemalloc
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import lz4.block
import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import PIXELS, pack, read_all, shuffle
from image_files import make_xisf as make
from xisf import XISF

from stacklib.errors import FrameError, SaveError
from stacklib.formats import scratch, xisf

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def real_files(name):
    return sorted((DATA / name).rglob("*.xisf"))


# An independent, slow decoder ------------------------------------------------------------------------


def slow_decode(path):
    """Decode by the specification, float64, shape (channels, height, width)."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    root = ET.fromstring(content[16 : 16 + length].rstrip(b"\0").decode())
    image = next(element for element in root if element.tag.endswith("Image"))
    holder = image
    if image.get("location") == "embedded":
        holder = next(element for element in image if element.tag.endswith("Data"))
        block = base64.b64decode(holder.text)
    else:
        _, position, size = image.get("location").split(":")
        block = content[int(position) : int(position) + int(size)]
    if "checksum" in holder.attrib:
        algorithm, digest = holder.get("checksum").split(":")
        assert hashlib.new(algorithm, block).hexdigest() == digest
    if "compression" in holder.attrib:
        codec, size, *item = holder.get("compression").split(":")
        if codec.startswith("zlib"):
            block = zlib.decompress(block)
        elif codec.startswith("zstd"):
            block = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(block)).read()
        else:
            block = lz4.block.decompress(block, uncompressed_size=int(size))
        if codec.endswith("+sh"):
            count = len(block) // int(item[0])
            block = bytes(block[plane * count + i] for i in range(count) for plane in range(int(item[0])))
    width, height, channels = map(int, image.get("geometry").split(":"))
    letter = {"UInt8": "B", "UInt16": "H", "UInt32": "I", "Float32": "f", "Float64": "d"}
    kind = letter[image.get("sampleFormat")]
    values = struct.unpack(f"<{width * height * channels}{kind}", block)
    divisor = {"B": 255, "H": 65535, "I": 4294967295}.get(kind, 1)
    return (np.array(values, float) / divisor).reshape(channels, height, width)


def test_every_pixinsight_file_reads_right():
    files = real_files("xisf_pixinsight")
    if not files:
        pytest.skip("xisf_pixinsight is not here")
    assert len(files) == 30
    for path in files:
        source = xisf.open_image(path)
        assert source.notes == []
        np.testing.assert_array_equal(
            read_all(source), slow_decode(path).astype(np.float32), err_msg=path.name
        )


def test_embedded_image_and_its_compressed_twin_are_alike():
    folder = DATA / "xisf_pixinsight" / "other"
    if not folder.is_dir():
        pytest.skip("xisf_pixinsight is not here")
    plain = xisf.open_image(folder / "libxisf_test.xisf")
    packed = xisf.open_image(folder / "libxisf_test_lz4.xisf")
    np.testing.assert_array_equal(read_all(plain), read_all(packed))
    assert plain.keywords["EXPTIME"] == 1.0
    assert plain.keywords["SIMPLE"] is True
    assert plain.keywords["INSTRUME"] == "CCD Simulator"


def test_files_of_other_programs():
    files = real_files("xisf_other_writers")
    if not files:
        pytest.skip("xisf_other_writers is not here")
    for path in files:
        source = xisf.open_image(path)
        expected = slow_decode(path).astype(np.float32)[: source.channels]
        alpha = "has 1 alpha (transparency) of 2 channels; the first channel is used"
        notes = [note for note in source.notes if not note.startswith("offset '-50' (a pedestal)")]
        assert notes == ([alpha] if "2ch" in path.name else [])
        np.testing.assert_array_equal(read_all(source), expected, err_msg=path.name)


# Files made by hand ----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    return tmp_path / "frame.xisf"


def as_values(pixels):
    return pixels.astype(np.float32) / np.float32(65535)


def test_plain_file(file):
    source = xisf.open_image(make(file))
    assert (source.channels, source.height, source.width) == (3, 5, 4)
    assert (source.sample_format, source.integer, source.full_scale) == ("u16", True, 65535)
    assert source.quantization_step == 1 / 65535
    assert source.row_order == "top-down"
    np.testing.assert_array_equal(read_all(source), as_values(PIXELS))


def test_big_endian_and_interleaved(file):
    block = PIXELS.transpose(1, 2, 0).astype(">u2").tobytes()
    source = xisf.open_image(make(file, block, byteOrder="big", pixelStorage="Normal"))
    np.testing.assert_array_equal(read_all(source), as_values(PIXELS))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", ["UInt8", "UInt16", "UInt32", "Float32", "Float64"])
@pytest.mark.parametrize("storage", ["Planar", "Normal"])
def test_formats_orders_and_storage(file, kind, order, storage):
    dtype = np.dtype({"U": "u", "F": "f"}[kind[0]] + str(int(re.sub(r"\D", "", kind)) // 8))
    random = np.random.default_rng(1)
    pixels = (
        random.random((3, 5, 4)) if kind[0] == "F" else random.integers(0, np.iinfo(dtype).max, (3, 5, 4))
    )
    pixels = pixels.astype(dtype)
    stored = pixels.transpose(1, 2, 0) if storage == "Normal" else pixels
    block = stored.astype(dtype.newbyteorder({"little": "<", "big": ">"}[order])).tobytes()
    bounds = "0:1" if kind[0] == "F" else None
    path = make(file, block, sampleFormat=kind, byteOrder=order, pixelStorage=storage, bounds=bounds)
    expected = pixels / (np.iinfo(dtype).max if kind[0] == "U" else 1.0)
    source = xisf.open_image(path)
    np.testing.assert_array_equal(read_all(source), expected.astype(np.float32))
    out = np.full((2, 8), -1, np.float32)
    source.read_rows(2, 4, 1, out[:, ::2])
    np.testing.assert_array_equal(out[:, ::2], expected.astype(np.float32)[1, 2:4])
    assert (out[:, 1::2] == -1).all()


def test_bounds_map_to_unit_range_and_nan_stays(file):
    values = np.array([[-10, 0, 10, np.nan, np.inf]], np.float32)
    gray = {"geometry": "5:1:1", "colorSpace": "Gray", "sampleFormat": "Float32"}
    path = make(file, values.tobytes(), **gray, bounds="-10:10")
    np.testing.assert_array_equal(read_all(xisf.open_image(path))[0, 0], [0, 0.5, 1, np.nan, np.inf])


def test_missing_bounds_are_noted(file):
    values = np.zeros(4, np.float32)
    path = make(file, values.tobytes(), geometry="4:1:1", colorSpace="Gray", sampleFormat="Float32")
    assert "bounds" in xisf.open_image(path).notes[0]


@pytest.mark.parametrize(
    ("kind", "bounds", "low", "high"),
    [
        ("UInt16", "0:4095", 0, 4095),
        ("UInt16", "0:65535", 0, 65535),
        ("UInt16", "100:4195", 100, 4195),
        ("UInt32", "0:65535", 0, 65535),
        ("UInt8", "0:255", 0, 255),
        ("UInt32", "0.0:16383.0", 0, 16383),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_bounds_of_integers(file, kind, bounds, low, high, order):
    dtype = np.dtype(f"u{int(kind[4:]) // 8}")
    stored = np.random.default_rng(1).integers(low, high, (3, 5, 4), endpoint=True).astype(dtype)
    block = stored.astype(dtype.newbyteorder({"little": "<", "big": ">"}[order])).tobytes()
    source = xisf.open_image(make(file, block, sampleFormat=kind, byteOrder=order, bounds=bounds))
    np.testing.assert_allclose(read_all(source), (stored - float(low)) / (high - low), rtol=1e-7, atol=1e-9)
    assert (source.integer, source.full_scale, source.notes) == (True, high - low, [])
    assert source.quantization_step == 1 / (high - low)


def test_bounds_that_integers_cannot_have_are_noted(file):
    source = xisf.open_image(make(file, bounds="0:1"))
    np.testing.assert_array_equal(read_all(source), as_values(PIXELS))
    assert source.notes == ["bounds 0:1 cannot be those of integers; 0:65535 is used"]


ALPHA = np.concatenate([PIXELS, PIXELS[:2] + 7])


@pytest.mark.parametrize(
    ("space", "planes", "channels", "alpha"),
    [
        *[("Gray", 1, 1, 0), ("Gray", 2, 1, 1), ("Gray", 3, 1, 2)],
        *[("RGB", 3, 3, 0), ("RGB", 4, 3, 1), ("RGB", 5, 3, 2)],
        *[(None, 1, 1, 0), (None, 2, 1, 1), (None, 3, 3, 0), (None, 4, 3, 1)],
    ],
)
@pytest.mark.parametrize("storage", ["Planar", "Normal"])
def test_alpha_channels_are_left_out(file, space, planes, channels, alpha, storage):
    stored = ALPHA[:planes]
    block = (stored if storage == "Planar" else stored.transpose(1, 2, 0)).tobytes()
    path = make(file, block, geometry=f"4:5:{planes}", colorSpace=space, pixelStorage=storage)
    source = xisf.open_image(path)
    np.testing.assert_array_equal(read_all(source), as_values(stored[:channels]))
    assert [f"has {alpha} alpha (transparency) of {planes} channels" in note for note in source.notes] == (
        [True] if alpha else []
    )


def test_a_color_image_needs_three_channels(file):
    with pytest.raises(FrameError, match=r"frame\.xisf: geometry is '4:5:2', expected 3 channels"):
        xisf.open_image(make(file, PIXELS[:2].tobytes(), geometry="4:5:2"))


def test_keywords_that_contradict_each_other_are_named(file):
    inside = "".join(
        f'<FITSKeyword name="{name}" value="{value}" comment=""/>'
        for name, value in [("EXPTIME", 30), ("GAIN", 1), ("EXPTIME", 10), ("GAIN", 1)]
    )
    inside += '<FITSKeyword name="HISTORY" value="" comment="a"/><FITSKeyword name="HISTORY" comment="b"/>'
    source = xisf.open_image(make(file, inside=inside))
    assert source.keywords["EXPTIME"] == 30
    assert source.notes == ["keywords with more than one value, of which the first is used: EXPTIME"]


def test_decimal_commas(file):
    inside = '<FITSKeyword name="EXPTIME" value="6,4E-05"/><FITSKeyword name="A" value="1,2,3"/>'
    assert xisf.open_image(make(file, inside=inside)).keywords == {"EXPTIME": 6.4e-05, "A": "1,2,3"}


@pytest.mark.parametrize("codec", ["zlib", "lz4", "lz4hc", "zstd"])
@pytest.mark.parametrize("item", [0, 2, 4, 3])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512", "sha3-256", "sha3-512"])
def test_codecs_with_shuffling_and_checksums(file, codec, item, algorithm):
    content = PIXELS.tobytes()
    block = pack(codec, shuffle(content, item) if item else content)
    digest = hashlib.new(algorithm.replace("-", "_"), block).hexdigest()
    name = f"{codec}+sh:{len(content)}:{item}" if item else f"{codec}:{len(content)}"
    source = xisf.open_image(make(file, block, compression=name, checksum=f"{algorithm}:{digest.upper()}"))
    np.testing.assert_array_equal(read_all(source), as_values(PIXELS))
    source.close()
    np.testing.assert_array_equal(source.read_rows(1, 2, 1), as_values(PIXELS)[1, 1:2])


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd"])
def test_subblocks_also_stored_raw(file, codec):
    content = shuffle(PIXELS.tobytes(), 2)
    parts = [pack(codec, content[:30]), content[30:50], pack(codec, content[50:])]
    sizes = f"{len(parts[0])},30:20,20:{len(parts[2])},{len(content) - 50}"
    path = make(file, b"".join(parts), compression=f"{codec}+sh:{len(content)}:2", subblocks=sizes)
    np.testing.assert_array_equal(read_all(xisf.open_image(path)), as_values(PIXELS))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("base64", base64.b64encode(PIXELS.tobytes()).decode()),
        ("hex", PIXELS.tobytes().hex()),
        ("hex", "\n  ".join(re.findall("..", PIXELS.tobytes().hex().upper()))),
    ],
)
def test_embedded_and_inline(file, encoding, text):
    path = make(file, b"", location="embedded", inside=f'<Data encoding="{encoding}">{text}</Data>')
    np.testing.assert_array_equal(read_all(xisf.open_image(path)), as_values(PIXELS))
    path = make(file, b"", location=f"inline:{encoding}", inside=text)
    np.testing.assert_array_equal(read_all(xisf.open_image(path)), as_values(PIXELS))


def test_keywords_and_properties(file):
    inside = """
        <FITSKeyword name="exptime" value="300." comment=""/>
        <FITSKeyword name="EXPTIME" value="1" comment=""/>
        <FITSKeyword name="OBJECT" value="'Barnard''s '" comment=""/>
        <FITSKeyword name="FLAG" value="T" comment=""/>
        <FITSKeyword name="HISTORY" value="" comment="stacked"/><FITSKeyword name="EGAIN" value="1.5D-1"/>
        <FITSKeyword name="SERIAL" value="1_000"/><FITSKeyword name="DATE-OBS" value="'2021-08-15T21:00:00'"/>
        <Property id="Instrument:ExposureTime" type="Float32" value="299.5"/>
        <Property id="Count" type="Int32" value="-3"/><Property id="Hex" type="UInt16" value="0xff"/>
        <Property id="On" type="Boolean" value="true"/><Property id="Nan" type="Float64" value="nan"/>
        <Property id="Name" type="String">M 101</Property>
        <Property id="Start" type="TimePoint" value="2021-08-15T21:00:00Z"/>
        <Property id="Vec" type="F32Vector" length="2" location="inline:hex">0000803f00000040</Property>
        <Property id="Mat" type="F32Matrix" rows="1" columns="1" location="inline:hex">0000803f</Property>
        <Property id="Table" type="Table"/>
    """
    source = xisf.open_image(make(file, inside=inside))
    assert source.keywords == {
        "EXPTIME": 300.0,
        "OBJECT": "Barnard's",
        "FLAG": True,
        "HISTORY": "stacked",
        "EGAIN": 0.15,
        "SERIAL": "1_000",
        "DATE-OBS": "2021-08-15T21:00:00",
    }
    properties = source.properties
    assert any("first is used: EXPTIME" in note for note in source.notes)
    assert any(note.endswith("that can be read: Table (Table)") for note in source.notes)
    assert properties.pop("Vec").tolist() == [1, 2]
    assert properties.pop("Mat").tolist() == [[1]]
    assert np.isnan(properties.pop("Nan"))
    assert properties == {
        "Instrument:ExposureTime": 299.5,
        "Count": -3,
        "Hex": 255,
        "On": True,
        "Name": "M 101",
        "Start": "2021-08-15T21:00:00Z",
    }


@pytest.mark.parametrize(
    ("pattern", "known"), [("RGGB", "RGGB"), (" GBRG ", "GBRG"), ("GRBGGB" * 6, "GRBGGB" * 6), ("a?", "")]
)
def test_color_filter_pattern_of_a_mosaic(file, pattern, known):
    inside = f'<ColorFilterArray pattern="{pattern}" width="2" height="2"/>'
    source = xisf.open_image(make(file, inside=inside))
    assert source.properties.get("PCL:CFASourcePattern", "") == known
    assert bool(known) != any("ColorFilterArray is 'a?'" in note for note in source.notes)
    own = '<Property id="PCL:CFASourcePattern" type="String">GBRG</Property>'
    both = xisf.open_image(make(file, inside=inside + own))
    assert both.properties["PCL:CFASourcePattern"] == "GBRG"


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"orientation": "90;flip"}, "orientation '90;flip' is not applied"),
        ({"offset": "0.01"}, "offset '0.01' (a pedestal) is not subtracted"),
        ({"orientation": "0", "offset": "0.0"}, ""),
    ],
)
def test_what_is_not_heeded_of_an_image_is_noted(file, attributes, words):
    notes = xisf.open_image(make(file, **attributes)).notes
    assert any(words in note for note in notes) if words else not notes


@pytest.mark.parametrize(
    "bad",
    [
        '<Property id="Bad" type="Float32" value="about 3"/>',
        '<Property id="Bad" type="Int32" value="1e5"/>',
        f'<Property id="Bad" type="Int32" value="{"9" * 4400}"/>',
        '<Property id="Bad" type="Boolean" value="maybe"/>',
        '<Property id="Bad" type="F32Vector" length="3" location="inline:hex">00</Property>',
        '<Property id="Bad" type="F32Vector" length="-1" location="inline:hex">00000000</Property>',
        '<Property id="Bad" type="F32Vector" length="1" location="inline:hex">zz</Property>',
        '<Property id="Bad" type="String" location="attachment:0:10"/>',
        '<Property id="Bad" type="String" location="attachment:8192:99999"/>',
        '<Property id="Bad" type="String" location="attachment:8192:20" checksum="sha1:00"/>',
        '<Property id="Bad" type="String" location="inline:hex" compression="zlib:99">78</Property>',
        '<Property id="Bad" type="String" location="inline:hex">ff</Property>',
    ],
)
def test_one_bad_property_never_loses_the_image(file, bad):
    path = make(file, inside=bad + '<Property id="Good" type="Int32" value="1"/>', position=8192)
    source = xisf.open_image(path)
    assert "property Bad" in source.notes[0]
    assert source.properties == {"Good": 1}
    np.testing.assert_array_equal(read_all(source), as_values(PIXELS))


def test_a_property_that_would_inflate_to_gigabytes_is_left_alone(file):
    bomb = zlib.compress(bytes(2**24), 9)
    attributes = f'id="B" type="String" location="inline:hex" compression="zlib:{2**24}"'
    inside = f"<Property {attributes}>{bomb.hex()}</Property>"
    source = xisf.open_image(make(file, inside=inside, position=2**17))
    assert source.properties == {}
    assert source.notes == [
        f"property B is too large (more than {2**23} bytes, or together more); it is left out"
    ]


def test_control_characters_are_removed(file):
    inside = '<FITSKeyword name="A" value="\x9b31mred&#x202e;"/>'
    inside += '<Property id="P" type="String">a\u0085\nb\u009b</Property>'
    source = xisf.open_image(make(file, inside=inside))
    assert source.keywords == {"A": "31mred"}
    assert source.properties == {"P": "a \nb "}


def test_non_ascii_metadata_and_a_wrong_encoding_label(file):
    header = (
        '<?xml version="1.0" encoding="ISO-8859-1"?><xisf version="1.0">'
        '<Image geometry="4:5:3" sampleFormat="UInt16" location="attachment:4096:120">'
        '<FITSKeyword name="OBJECT" value="\'Nébuleuse 星\'"/></Image></xisf>'
    )
    assert xisf.open_image(make(file, header=header, pad=9)).keywords["OBJECT"] == "Nébuleuse 星"


def test_the_first_of_several_images_is_used(file):
    image = '<Image geometry="4:5:3" sampleFormat="UInt16" location="attachment:4096:120"/>'
    header = f'<xisf version="1.0">{image}{image.replace("4:5:3", "2:5:3")}</xisf>'
    source = xisf.open_image(make(file, header=header))
    assert source.notes == ["holds 2 images; the largest one is used (4 x 5 pixels)"]
    assert source.width == 4
    smaller_first = f'<xisf version="1.0">{image.replace("4:5:3", "2:5:3")}{image}</xisf>'
    assert xisf.open_image(make(file, header=smaller_first)).width == 4
    twins = f'<xisf version="1.0">{image}{image}</xisf>'
    assert "holds 2 images; the first one is used" in xisf.open_image(make(file, header=twins)).notes[0]


# Hostile files ---------------------------------------------------------------------------------------

REFUSED = {
    "geometry": ["4:-5:-2", "-4:5:3", "4:5", "4:5:3:1", "4.0:5:2", "0:5:2", "+4:5:3", " 4:5:3", "٤:5:2", "",
                 None, "999999999:999999999:999999999", "0x4:5:3", "1_0:5:2"],
    "sampleFormat": ["Int16", "Complex32", "", None, "uint16"],
    "byteOrder": ["middle", ""],
    "pixelStorage": ["Tiled"],
    "colorSpace": ["CIELab"],
    "location": ["attachment:0:120", "attachment:16:120", "attachment:4096:121", "attachment:-5:120",
                 "attachment:4096", "attachment:4096:119", "attachment:99999999999999999999:120",
                 "url(http://example.org/a)", "embedded", "path(/etc/passwd)", "inline:rot13", "",
                 None, "attachment:0x1000:120"],
    "checksum": ["sha1:" + "0" * 40, "md5:" + "0" * 32, "sha1:zz", "sha1", ""],
    "compression": ["zlib:120", "zlib:119", "zlib:2147483648", "rar:120", "zlib", "zlib+sh:120",
                    "zlib+sh:120:0", "zlib+sh:120:99", "zlib:-120", "lz4:120", "zstd:120",
                    "lz4:99999999999", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_refused_attributes(file, name, value):
    path = make(file, **{name: value})
    with pytest.raises(FrameError, match=r"frame\.xisf"):
        xisf.open_image(path).read_rows(0, 1, 0)


@pytest.mark.parametrize("bounds", ["1:0", "0:0", "nan:1", "0:inf", "0", "a:b", "0:1:2", "-1e308:1e308", ""])
def test_refused_bounds(file, bounds):
    path = make(file, bytes(80), colorSpace="Gray", sampleFormat="Float32", geometry="4:5:1", bounds=bounds)
    with pytest.raises(FrameError, match="bounds"):
        xisf.open_image(path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><xisf version="1.0"/>', "DOCTYPE"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><xisf version="1.0"/>', "DOCTYPE"),
        ('<xisf version="1.0"/>', "no Image"),
        ('<xisf version="2.0"/>', "version"),
        ("<xisf/>", "version"),
        ('<html version="1.0"/>', "root element"),
        ("<xisf", "not valid XML"),
        ("\0\0", "XML"),
        (b"<xisf\xff/>", "UTF-8"),
        ("<x>" * 100, "nested"),
    ],
)
def test_refused_headers(file, header, expected):
    with pytest.raises(FrameError, match=rf"frame\.xisf: .*{expected}"):
        xisf.open_image(make(file, header=header))


def test_too_many_elements(file, monkeypatch):
    monkeypatch.setattr(xisf, "MAX_ELEMENTS", 10)
    with pytest.raises(FrameError, match="more than 10 elements"):
        xisf.open_image(make(file, inside="<a/>" * 11))


def test_truncated_anywhere(file):
    whole = make(file, position=512).read_bytes()
    for length in [*range(0, 40), *range(40, len(whole), 23), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(FrameError, match=r"frame\.xisf"):
            xisf.open_image(file)


@pytest.mark.parametrize("missing", [1, 40, 120])
def test_a_missing_end_is_called_truncated(file, missing):
    whole = make(file).read_bytes()
    file.write_bytes(whole[:-missing])
    found = len(whole) - missing
    with pytest.raises(
        FrameError, match=rf"frame\.xisf: is truncated \({found} bytes, but the Image block ends at 4216\)"
    ):
        xisf.open_image(file)


def test_a_huge_header_length_costs_nothing(file):
    content = bytearray(make(file).read_bytes())
    for length in (0, 2**32 - 1, 2**31, len(content) - 15):
        content[8:12] = struct.pack("<I", length)
        file.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(FrameError, match="header length"):
            xisf.open_image(file)
        assert tracemalloc.get_traced_memory()[1] < 10**6
        tracemalloc.stop()


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd"])
@pytest.mark.parametrize("size", [119, 121, 60, 2**20])
def test_blocks_that_hold_another_size_than_declared(file, codec, size):
    block = pack(codec, bytes(size))
    with pytest.raises(FrameError, match=r"frame\.xisf: Image .* block of 120 bytes"):
        xisf.open_image(make(file, block, compression=f"{codec}:120")).read_rows(0, 1, 0)


@pytest.mark.parametrize("subblocks", ["1,2", "120,120:", "a,b", "", "60,60:60", "-1,60:121,60"])
def test_refused_subblocks(file, subblocks):
    path = make(file, pack("zlib", PIXELS.tobytes()), compression="zlib:120", subblocks=subblocks)
    with pytest.raises(FrameError):
        xisf.open_image(path).read_rows(0, 1, 0)


def test_a_zstd_frame_that_declares_gigabytes(file):
    # Only a frame header, with a content size of 8 bytes.
    block = b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", 2**40) + bytes(8)
    with pytest.raises(FrameError, match="declares"):
        xisf.open_image(make(file, block, compression="zstd:120")).read_rows(0, 1, 0)


def test_a_file_that_shrinks_or_goes_after_opening(file):
    source = xisf.open_image(make(file))
    file.write_bytes(file.read_bytes()[:4100])
    with pytest.raises(FrameError, match=r"frame\.xisf: has changed since"):
        source.read_rows(0, 5, 1)
    file.unlink()
    with pytest.raises(FrameError, match="no such file any more"):
        source.read_rows(0, 5, 1)


SMALL = (
    '<xisf version="1.0"><Image geometry="4:5:3" sampleFormat="UInt16" compression="zlib+sh:120:2" '
    'location="attachment:{position}:{size}" checksum="sha1:{digest}" byteOrder="little">'
    '<FITSKeyword name="OBJECT" value="\'M101\'" comment="x"/><Property id="P" type="Float32" value="1.5"/>'
    '<Property id="V" type="F32Vector" length="1" location="inline:hex">0000803f</Property></Image></xisf>'
)


def small_file():
    block = pack("zlib", shuffle(PIXELS.tobytes(), 2))
    text = SMALL.format(position=512, size=len(block), digest=hashlib.sha1(block).hexdigest())
    start = b"XISF0100" + struct.pack("<II", len(text), 0) + text.encode()
    return start.ljust(512, b"\0") + block


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_are_refused_or_read(file, changes):
    content = bytearray(small_file())
    for place, value in changes:
        content[place % len(content)] = value
    file.write_bytes(content)
    try:
        source = xisf.open_image(file)
        source.read_rows(0, source.height, 0)
    except FrameError as error:
        assert "frame.xisf" in str(error)
        assert len(str(error)) < 1000


# Rows ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_band_equals_the_whole(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bands.xisf"
    if not path.exists():
        image = np.random.default_rng(3).random((3, 37, 11), np.float32)
        xisf.write_image(path, image, image_id="x", compress=True)
    source = xisf.open_image(path)
    start = data.draw(st.integers(0, 37))
    stop = data.draw(st.integers(start, 37))
    channel = data.draw(st.integers(0, 2))
    whole = source.read_rows(0, 37, channel)
    np.testing.assert_array_equal(source.read_rows(start, stop, channel), whole[start:stop])


def test_wrong_rows_and_buffers(file):
    source = xisf.open_image(make(file))
    for start, stop, channel in [(-1, 2, 0), (3, 2, 0), (0, 6, 0), (0, 1, 3), (0, 1, -1)]:
        with pytest.raises(ValueError, match="are outside an image"):
            source.read_rows(start, stop, channel)
    for out in (np.empty((1, 4)), np.empty((2, 4), np.float32)):
        with pytest.raises(ValueError, match="expected float32"):
            source.read_rows(0, 1, 0, out)


def test_large_blocks_go_to_a_scratch_file(file, monkeypatch):
    monkeypatch.setattr(scratch, "MEMORY_PER_BLOCK", 10)
    source = xisf.open_image(make(file, pack("zlib", PIXELS.tobytes()), compression="zlib:120"))
    np.testing.assert_array_equal(read_all(source), as_values(PIXELS))
    arena = scratch._current_arena()
    assert arena.live == 1
    source.close()
    assert arena.live == 0
    assert arena.file.seek(0, 2) == 0


def test_no_room_for_scratch(file, monkeypatch):
    monkeypatch.setattr(scratch, "MEMORY_PER_BLOCK", 10)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 5}))
    source = xisf.open_image(make(file, pack("zlib", PIXELS.tobytes()), compression="zlib:120"))
    with pytest.raises(FrameError, match="TMPDIR"):
        source.read_rows(0, 1, 0)


# Writing ---------------------------------------------------------------------------------------------

KEYWORDS = [
    ("OBJECT", "Barnard's é ☂", "target"),
    ("EXPTIME", 2400.0, "seconds"),
    ("NCOMBINE", np.int64(40), "frames"),
    ("FLAG", True, ""),
    ("HISTORY", "rejection: sigma", ""),
    ("HISTORY", "", "sigma_low: 3.2"),
]
PROPERTIES = {
    "Observation:Object:Name": "M 101 ±",
    "Observation:Time:Start": ("TimePoint", "2021-08-15T21:00:00Z"),
    "Instrument:ExposureTime": 2400.0,
    "Processing:History": "line one\n  line two\n" * 400,
    "Stacklib:Weights": np.array([0.5, 1.0], np.float32),
    "Stacklib:Table": np.arange(2000.0).reshape(1000, 2),
    "Stacklib:Rescaled": False,
    "Stacklib:Frames": 40,
    "Stacklib:Unknown": float("nan"),
    "Stacklib:Missing": None,
}


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5), (1, 3, 1), (3, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(file, shape, dtype, compress):
    random = np.random.default_rng(2)
    image = (random.random(shape) * (1 if dtype == np.float32 else 9)).astype(dtype)
    returned = xisf.write_image(
        file, image, image_id="integration", keywords=KEYWORDS, properties=PROPERTIES, compress=compress
    )
    assert returned == file
    other = XISF(str(file))
    assert other.read_image(0, "channels_first").tobytes() == image.tobytes()
    (metadata,) = other.get_images_metadata()
    assert metadata["id"] == "integration"
    assert metadata["imageType"] == "MasterLight"
    source = xisf.open_image(file)
    assert not source.notes
    expected = image if dtype == np.float32 else as_values(image)
    np.testing.assert_array_equal(read_all(source), expected)
    assert source.keywords["OBJECT"] == "Barnard's e \\u2602"
    assert source.keywords["EXPTIME"] == 2400
    assert source.keywords["NCOMBINE"] == 40
    assert source.keywords["FLAG"] is True
    history = [entry["comment"] for entry in metadata["FITSKeywords"]["HISTORY"]]
    assert history == ["rejection: sigma", "sigma_low: 3.2"]
    assert source.properties["Processing:History"] == PROPERTIES["Processing:History"]
    assert source.properties["Observation:Time:Start"] == "2021-08-15T21:00:00Z"
    assert source.properties["Stacklib:Weights"].tolist() == [0.5, 1.0]
    assert source.properties["Stacklib:Table"].shape == (1000, 2)
    assert source.properties["Stacklib:Rescaled"] is False
    assert source.properties["Stacklib:Frames"] == 40
    assert "Stacklib:Unknown" not in source.properties


def test_floats_survive_bit_for_bit(file):
    bits = np.random.default_rng(5).integers(0, 2**32, (1, 64, 64), np.uint32)
    xisf.write_image(file, bits.view(np.float32), image_id="x")
    back = xisf.open_image(file).read_rows(0, 64, 0)
    np.testing.assert_array_equal(back.view(np.uint32), bits[0])


def test_compressed_only_if_smaller(file, tmp_path):
    noise = np.random.default_rng(5).integers(0, 2**32, (1, 64, 64), np.uint32).view(np.float32)
    xisf.write_image(file, noise, image_id="x", compress=True)
    assert b"compression=" not in file.read_bytes()[:4096]
    flat = xisf.write_image(
        tmp_path / "flat.xisf", np.zeros((1, 64, 64), np.float32), image_id="x", compress=True
    )
    assert b"compression=" in flat.read_bytes()[:4096]


def test_big_endian_and_strided_arrays_are_written_right(file):
    image = np.arange(60, dtype=">f4").reshape(3, 5, 4)[:, ::2, ::-1]
    xisf.write_image(file, image, image_id="x")
    np.testing.assert_array_equal(read_all(xisf.open_image(file)), image)


def test_never_overwrites(file):
    file.write_bytes(b"mine")
    with pytest.raises(SaveError, match=r"frame\.xisf: already exists"):
        xisf.write_image(file, np.zeros((1, 2, 2), np.float32), image_id="x")
    assert file.read_bytes() == b"mine"
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_nothing_behind(file, monkeypatch):
    def write(name, *args, **kwargs):
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(XISF, "write", write)
    with pytest.raises(SaveError, match=r"frame\.xisf: cannot be written \(No space left .*free space"):
        xisf.write_image(file, np.zeros((1, 2, 2), np.float32), image_id="x")
    assert list(file.parent.iterdir()) == []


def test_a_file_system_without_hard_links(file, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    image = np.ones((1, 2, 2), np.float32)
    xisf.write_image(file, image, image_id="x")
    np.testing.assert_array_equal(read_all(xisf.open_image(file)), image)
    with pytest.raises(SaveError, match="already exists"):
        xisf.write_image(file, image, image_id="x")
    assert list(file.parent.iterdir()) == [file]
    file.unlink()
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SaveError, match="cannot be written"):
        xisf.write_image(file, image, image_id="x")
    assert list(file.parent.iterdir()) == []


def test_a_missing_folder(tmp_path):
    with pytest.raises(SaveError, match="create the folder"):
        xisf.write_image(tmp_path / "no" / "a.xisf", np.zeros((1, 2, 2), np.float32), image_id="x")


@pytest.mark.parametrize(
    "image", [np.zeros((2, 3, 3), np.float32), np.zeros((1, 3, 3), np.int32), np.zeros(3, np.float32)]
)
def test_arrays_that_are_no_images(file, image):
    with pytest.raises(ValueError, match="expected float32"):
        xisf.write_image(file, image, image_id="x")
    assert not file.exists()
