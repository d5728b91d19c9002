"""FITS: all BITPIX values, scaling, extensions, compression, and rejection of damaged files."""

import gzip
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import header, raw_fits, read_all

from stacklib.errors import FrameError, SaveError
from stacklib.formats import fits, fits_header, scratch
from stacklib.frames.frame_set import Frame

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

RANDOM = np.random.default_rng(7)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "frame.fits"


def integers(kind, shape=(5, 7)):
    limits = np.iinfo(kind)
    values = RANDOM.integers(limits.min, limits.max, shape, kind, endpoint=True)
    values.flat[:2] = limits.min, limits.max
    return values.astype(np.dtype(kind).newbyteorder(">"))


@pytest.mark.parametrize("extension", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 5, 7), (1, 1, 5, 7)])
@pytest.mark.parametrize(
    ("kind", "zero", "sample_format", "full_scale"),
    [
        ("u1", 0, "u8", 255),
        ("u1", -128, "i8", 255),
        ("i2", 0, "i16", 65535),
        ("i2", 32768, "u16", 65535),
        ("i4", 0, "i32", 4294967295),
        ("i4", 2147483648, "u32", 4294967295),
        ("i8", 0, "i64", 4294967295),
        ("i8", 2**63, "u64", 4294967295),
    ],
)
def test_integers(file, kind, zero, sample_format, full_scale, shape, extension):
    stored = integers(kind, shape)
    source = fits.open_image(raw_fits(file, stored, [f"BZERO   = {zero}"] if zero else [], extension))
    assert (source.sample_format, source.integer, source.full_scale) == (sample_format, True, full_scale)
    assert source.quantization_step == 1 / full_scale
    expected = ((stored.astype(np.float64) + zero) / full_scale).reshape(-1, 5, 7)
    np.testing.assert_array_equal(read_all(source), expected.astype(np.float32))


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_floats_are_taken_as_they_are(file, kind):
    stored = (RANDOM.normal(size=(3, 5, 7)) * 1000).astype(f">{kind}")
    stored[0, 0, :4] = np.nan, np.inf, -np.inf, -0.0
    source = fits.open_image(raw_fits(file, stored))
    assert (source.sample_format, source.integer, source.full_scale) == (
        kind.replace("4", "32").replace("8", "64"),
        False,
        1,
    )
    assert source.quantization_step == 0
    np.testing.assert_array_equal(read_all(source), stored.astype(np.float32))


def test_float64_beyond_float32_is_infinite(file):
    source = fits.open_image(raw_fits(file, np.array([[1e300, 1e-300]], ">f8")))
    assert source.read_rows(0, 1, 0).tolist() == [[np.inf, 0]]


@pytest.mark.parametrize("kind", ["i4", "u4"])
def test_counts_of_64_bits_read_as_those_of_32_bits(tmp_path, kind):
    counts = RANDOM.integers(0, 65535, (5, 7))
    for name, stored in (("wide", kind.replace("4", "8")), ("narrow", kind)):
        astropy_fits.PrimaryHDU(counts.astype(stored)).writeto(tmp_path / f"{name}.fits")
    wide, narrow = (fits.open_image(tmp_path / f"{name}.fits") for name in ("wide", "narrow"))
    np.testing.assert_array_equal(read_all(wide), read_all(narrow))
    assert wide.quantization_step == narrow.quantization_step


@pytest.mark.parametrize("kind", ["u1", "i2", "i4"])
@pytest.mark.parametrize(("scale", "zero"), [(2, 0), (0.5, 100), (1, 7)])
def test_scaled_integers(file, kind, scale, zero):
    stored = integers(kind)
    full_scale = 2.0 ** (8 * stored.itemsize) - 1
    source = fits.open_image(raw_fits(file, stored, [f"BSCALE  = {scale}", f"BZERO   = {zero}"]))
    expected = (stored * float(scale) + zero) / full_scale
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), expected.astype(np.float32))
    assert source.quantization_step == scale / full_scale


def test_integers_already_scaled_to_unity_are_not_divided_again(file):
    stored = integers("i2")
    cards = [f"BSCALE  = {1 / 65535!r}", f"BZERO   = {32768 / 65535!r}"]
    source = fits.open_image(raw_fits(file, stored, cards))
    np.testing.assert_allclose(source.read_rows(0, 5, 0), (stored + 32768.0) / 65535, rtol=1e-6)
    assert source.full_scale == 1
    assert source.quantization_step == pytest.approx(1 / 65535)


def test_scaled_floats(file):
    stored = RANDOM.normal(size=(5, 7)).astype(">f4")
    source = fits.open_image(raw_fits(file, stored, ["BSCALE  = 2.0", "BZERO   = 1.0"]))
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), (stored * 2.0 + 1.0).astype(np.float32))


@pytest.mark.parametrize("zero", [0, 32768, 5])
def test_blank_is_nan(file, zero):
    stored = integers("i2")
    stored[2, 3] = -999
    source = fits.open_image(raw_fits(file, stored, [f"BZERO   = {zero}", "BLANK   = -999"]))
    values = source.read_rows(0, 5, 0)
    assert np.isnan(values[2, 3])
    assert np.isnan(values).sum() == (stored == -999).sum()


def test_row_order(file):
    stored = integers("u1")
    assert fits.open_image(raw_fits(file, stored)).row_order == ""
    assert fits.open_image(raw_fits(file, stored, ["ROWORDER= 'TOP-DOWN'"])).row_order == "top-down"
    assert fits.open_image(raw_fits(file, stored, ["ROWORDER= 'BOTTOM-UP'"])).row_order == "bottom-up"


@pytest.mark.parametrize("card", ["ROWORDER= 'BOTTOMUP'", "ROWORDER= 7", "BLANK   = 1.5", "BLANK   = T"])
def test_values_that_cannot_be_used_are_named(file, card):
    stored = integers("i2")
    source = fits.open_image(raw_fits(file, stored, [card]))
    name = card.partition("=")[0].strip()
    assert [f"{name} is" in note and "left out" in note for note in source.notes] == [True]
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), (stored / 65535).astype(np.float32))


def test_a_table_before_the_image_is_passed_over(file):
    table = astropy_fits.BinTableHDU.from_columns([astropy_fits.Column("a", "J", array=np.arange(999))])
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), table, astropy_fits.ImageHDU(image)]).writeto(file)
    np.testing.assert_array_equal(fits.open_image(file).read_rows(0, 3, 0), image / np.float32(65535))


def test_keywords(file):
    cards = [
        "OBJECT  = 'Barnard''s star'", "EXPTIME = 300.0 / seconds", "EXPTIME = 1.0", "FLAG    = T",
        "GAIN    = 80", "lower   = 2", "EMPTY   =", "HISTORY first", "HISTORY second",
        "HIERARCH CAM mode = 'fast'", "DEG     = 'a\xb0b'",
    ]  # fmt: skip
    keywords = fits.open_image(raw_fits(file, integers("u1"), cards)).keywords
    assert keywords["OBJECT"] == "Barnard's star"
    assert keywords["EXPTIME"] == 300
    assert keywords["FLAG"] is True
    assert keywords["GAIN"] == 80
    assert keywords["LOWER"] == 2
    assert "EMPTY" not in keywords
    assert keywords["HISTORY"] == "first"
    assert keywords["CAM MODE"] == "fast"
    assert keywords["DEG"] == "adegb"


@pytest.mark.parametrize(
    "broken",
    [
        "EXPTIME =              6,4,E-05 / s",
        "EXPTIME = 'open",
        "EXPTIME = 30 s",
        "EXPTIME = 2019-01-02",
        "EXPTIME = nan",
    ],
)
def test_broken_cards_warn_and_are_left_out(file, broken):
    stored = integers("u1")
    path = raw_fits(file, stored, ["GAIN    = 80", broken, "FILTER  = 'L'"])
    source = fits.open_image(path)
    assert ["card EXPTIME" in note and "left out" in note for note in source.notes] == [True]
    assert "EXPTIME" not in source.keywords
    assert source.keywords["GAIN"] == 80
    assert source.keywords["FILTER"] == "L"
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), stored / np.float32(255))


@pytest.mark.parametrize("text", ["6,4E-05", "6,4D-05", "+0,000064"])
def test_decimal_commas_are_read(file, text):
    source = fits.open_image(raw_fits(file, integers("u1"), [f"EXPTIME = {text} / s", "GAIN    = 1"]))
    assert (source.keywords["EXPTIME"], source.keywords["GAIN"], source.notes) == (6.4e-05, 1, [])


#: Parts of cards: names, what separates them from values, values, and comments.
CARDS = st.tuples(
    st.sampled_from(["OBJECT", "A-B_9", "lower", "HIERARCH", "COMMENT", "HISTORY", "CONTINUE", "A B"]),
    st.sampled_from(["= ", "= ", "=", "  ", " =", "=    "]),
    st.one_of(
        st.sampled_from(["'M 31'", "'it''s'", "'  '", "'AXIS.1: 2'", "'a&'", "'open", "'a'b", "T", "F x"]),
        st.from_regex(r"[+-]?[0-9]{0,19}[.,]?[0-9]{0,3}( ?[EeD][+-]?[0-9]{1,3})?", fullmatch=True),
        # Of an empty text astropy takes a quote in the comment for the end.
        st.text(st.characters(max_codepoint=255), max_size=9).filter(lambda text: "''" not in text),
    ),
    st.sampled_from(["", "/c", "  / it's: 'c'", "  x"]),
)


@given(st.lists(CARDS, min_size=1, max_size=5))
@settings(deadline=None)
def test_plain_cards_are_read_as_astropy_reads_them(cards):
    content = header([f"{name:8}{between}{value}{after}" for name, between, value, after in cards])
    found = []
    for plain in (fits_header._plain_card, lambda image: None):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(fits_header, "_plain_card", plain)
            found.append(repr(fits_header.parse_header(content, Path("a.fits"))))
    assert found[0] == found[1]


def test_an_empty_text_has_no_quotes_of_its_comment(file):
    source = fits.open_image(raw_fits(file, integers("u1"), ["FILTER  = '' / the user's choice"]))
    assert source.keywords["FILTER"] == ""


@pytest.mark.parametrize(
    ("name", "kept", "stray"),
    [
        ("EXPTIME = 30.0", 30, "CONTINUE  'and more'"),
        ("OBJECT  = 'M 31&'", "M 31", "CONTINUE  broken"),
        ("FLAG    = T", True, "CONTINUE"),
        ("EXPTIME =", None, "CONTINUE  'and more'"),
    ],
)
def test_a_stray_continue_costs_no_other_card(file, name, kept, stray):
    source = fits.open_image(raw_fits(file, integers("u1"), ["GAIN    = 80", name, stray, "FILTER  = 'L'"]))
    keyword = name.partition("=")[0].strip()
    assert source.keywords.get(keyword) == kept
    assert (source.keywords["GAIN"], source.keywords["FILTER"]) == (80, "L")
    assert [f"CONTINUE card after {keyword}" in note for note in source.notes] == [True]


def test_a_continue_at_the_start_or_after_a_comment_costs_nothing(file):
    cards = ["CONTINUE  'and more'", "COMMENT a comment", "CONTINUE  'and more'", "GAIN    = 80"]
    source = fits.open_image(raw_fits(file, integers("u1"), cards))
    assert source.keywords["GAIN"] == 80


def test_values_that_contradict_each_other_are_named(file):
    cards = ["EXPTIME = 30.0", "GAIN    = 80", "EXPTIME = 10.0", "GAIN    = 80", "HISTORY a", "HISTORY b"]
    source = fits.open_image(raw_fits(file, integers("u1"), cards))
    assert source.keywords["EXPTIME"] == 30
    assert source.notes == ["keywords with more than one value, of which the first is used: EXPTIME"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_accents_are_dropped_and_the_rest_stays(file, encoding):
    texts = ["OBJECT  = 'Caf\xe9 \xb0'", "OBSERVER= 'Zo\xeb'", "EXPTIME = 30.0"]
    content = bytearray(raw_fits(file, integers("u1"), ["X = 1"] * 3).read_bytes())
    for number, text in enumerate(texts):
        start = content.index(b"X = 1".ljust(80), 80 * (5 + number))
        content[start : start + 80] = text.encode(encoding).ljust(80)
    file.write_bytes(content)
    keywords = fits.open_image(file).keywords
    assert (keywords["OBJECT"], keywords["OBSERVER"], keywords["EXPTIME"]) == ("Cafe deg", "Zoe", 30)


@pytest.mark.parametrize("name", ["BITPIX", "NAXIS", "NAXIS1", "NAXIS2"])
def test_whole_numbers_with_a_point(file, name):
    stored = integers("i2")
    content = raw_fits(file, stored).read_bytes()
    start = content.index(name.ljust(8).encode() + b"=")
    card = content[start : start + 80].decode().rstrip()
    file.write_bytes(content.replace(card.encode() + b" ", card.encode() + b"."))
    np.testing.assert_array_equal(
        fits.open_image(file).read_rows(0, 5, 0), (stored / 65535).astype(np.float32)
    )


def test_a_header_filled_with_nul(file):
    stored = integers("u1")
    content = bytearray(raw_fits(file, stored, ["EXPTIME = 30.0"]).read_bytes())
    end = content.index(b"END     ") + 3
    content[end:2880] = bytes(2880 - end)
    file.write_bytes(content)
    source = fits.open_image(file)
    assert source.keywords["EXPTIME"] == 30
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), stored / np.float32(255))


@pytest.mark.parametrize(
    "cards",
    [
        [],
        ["ZBITPIX = 16", "ZNAXIS  = 2", "ZNAXIS1 = 7", "ZNAXIS2 = 5", "ZCMPTYPE= 'RICE_1'"],
        ["ZBITPIX = 16", "ZNAXIS  = 2", "ZNAXIS1 = 3", "ZNAXIS2 = 5", "ZBLANK  = 7"],
    ],
)
@pytest.mark.parametrize("extension", [False, True])
def test_a_plain_image_that_says_it_is_compressed(file, cards, extension):
    stored = RANDOM.normal(size=(5, 7)).astype(">f4")
    source = fits.open_image(raw_fits(file, stored, ["ZIMAGE  = T", *cards], extension))
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), stored)


@pytest.mark.parametrize("broken", ["ZBITPIX", "ZNAXIS", "ZNAXIS1"])
def test_a_compressed_image_with_a_broken_header_is_refused(tmp_path, broken):
    packed = tmp_path / "frame.fits.fz"
    astropy_fits.CompImageHDU(integers("i2", (30, 40)).astype("i2")).writeto(packed)
    packed.write_bytes(packed.read_bytes().replace(broken.ljust(8).encode() + b"=", b"OTHER".ljust(8) + b"="))
    with pytest.raises(FrameError, match=r"frame\.fits\.fz"):
        fits.open_image(packed).read_rows(0, 30, 0)


# Color and transparency ------------------------------------------------------------------------------

PLANES = RANDOM.random((4, 5, 7)).astype(">f4")


@pytest.mark.parametrize(
    ("stored", "channels", "note"),
    [
        (PLANES[:3], 3, ""),
        (PLANES[:3, None], 3, ""),
        (PLANES[:1], 1, ""),
        (PLANES[:1, None], 1, ""),
        (PLANES[0][:, None], 1, ""),
        (PLANES[:2], 1, "has 2 planes; the first is used, the last one is taken for transparency"),
        (PLANES, 3, "has 4 planes; the first three are used, the last one is taken for transparency"),
        (PLANES[:3].transpose(1, 2, 0), 3, ""),
        (PLANES[:3].transpose(1, 2, 0)[None], 3, ""),
        (PLANES[:1].transpose(1, 2, 0), 1, ""),
        (PLANES.transpose(1, 2, 0), 3, "has 4 planes"),
        (PLANES[:2].transpose(1, 2, 0), 1, "has 2 planes"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_planes_in_any_order_of_the_axes(file, stored, channels, note, packed):
    stored = np.ascontiguousarray(stored)
    if packed:
        plain = stored.astype("f4")
        astropy_fits.CompImageHDU(plain, quantize_level=0, compression_type="GZIP_2").writeto(file)
    else:
        raw_fits(file, stored)
    source = fits.open_image(file)
    np.testing.assert_array_equal(read_all(source), PLANES[:channels])
    np.testing.assert_array_equal(source.read_rows(2, 4, channels - 1), PLANES[channels - 1, 2:4])
    assert [note in each for each in source.notes] == ([True] if note else [])


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 5, 6), (2, 3, 5, 7), (5, 3, 7)])
def test_axes_that_are_no_image_are_refused_at_once(file, shape):
    raw_fits(file, np.zeros(shape, ">f4"))
    with pytest.raises(FrameError, match=r"frame\.fits: has axes .*up to 4 color planes; save each image"):
        fits.open_image(file)


# Files of several images -----------------------------------------------------------------------------


def image_hdu(data, name=None, packed=False, **cards):
    unit = astropy_fits.CompImageHDU if packed else astropy_fits.ImageHDU
    return unit(data, astropy_fits.Header(cards), name=name)


def save_units(path, *units, **cards):
    primary = astropy_fits.PrimaryHDU(header=astropy_fits.Header(cards))
    units = units if isinstance(units[0], astropy_fits.PrimaryHDU) else (primary, *units)
    # astropy compresses by the name of the file.
    astropy_fits.HDUList(list(units)).writeto(path)
    return path


COUNTS = integers("u2", (4, 5, 7)).astype("u2")


@pytest.mark.parametrize(
    ("name", "packed"), [("frame.fits", False), ("frame.fits", True), ("frame.fits.gz", False)]
)
@pytest.mark.parametrize("names", [("R", "G", "B"), ("Blue", "red", "Green"), ("B", "G", "R")])
def test_three_extensions_are_a_color_image(tmp_path, name, names, packed):
    order = ["RGB".index(name[0].upper()) for name in names]
    units = [
        image_hdu(COUNTS[plane], name, packed, FILTER=name, GAIN=80)
        for plane, name in zip(order, names, strict=True)
    ]
    source = fits.open_image(save_units(tmp_path / name, *units, EXPTIME=30.0))
    expected = COUNTS[:3] / np.float32(65535)
    np.testing.assert_array_equal(read_all(source), expected)
    np.testing.assert_array_equal(source.read_rows(1, 3, 2), expected[2, 1:3])
    assert (source.keywords["EXPTIME"], source.keywords["GAIN"]) == (30, 80)
    assert "FILTER" not in source.keywords
    assert source.notes == [
        "keywords that differ among the extensions R, G and B are left out: FILTER",
        "holds 3 images; the extensions R, G and B are used as one color image",
    ]
    source.close()
    np.testing.assert_array_equal(read_all(source), expected)


@pytest.mark.parametrize("more", [COUNTS[3], COUNTS[3, :2, :3]])
def test_a_color_image_with_luminance_or_preview(file, more):
    units = [image_hdu(COUNTS[plane], "RGB"[plane]) for plane in range(3)]
    source = fits.open_image(save_units(file, image_hdu(more, "L"), *units))
    np.testing.assert_array_equal(read_all(source), COUNTS[:3] / np.float32(65535))
    (note,) = source.notes
    assert note.startswith("holds 4 images; the extensions R, G and B are used") and "others are not" in note


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_blank_of_floats_is_noted(file, kind):
    unit = astropy_fits.PrimaryHDU(COUNTS[0].astype(kind))
    unit.header["BLANK"] = -32768
    unit.writeto(file, output_verify="ignore")
    source = fits.open_image(file)
    assert source.notes == ["BLANK -32768 is for integers, and the samples are floats: it is left out"]
    assert np.isfinite(read_all(source)).all()


def test_many_hdus(file, monkeypatch):
    save_units(file, *map(image_hdu, [COUNTS[0]] * 9))
    assert "holds 9 images" in fits.open_image(file).notes[0]
    monkeypatch.setattr(fits, "MAX_HDUS", 5)
    assert fits.open_image(file).notes[0] == "has more than 5 HDUs; only these are looked at"


def test_planes_that_do_not_match_are_no_color_image(file):
    units = [image_hdu(COUNTS[0], "R"), image_hdu(COUNTS[1].astype("f4"), "G"), image_hdu(COUNTS[2], "B")]
    source = fits.open_image(save_units(file, *units))
    assert (source.channels, source.sample_format) == (1, "u16")
    assert "holds 3 images; only the first one is used" in source.notes[0]


def test_a_sequence_gives_its_first_image_and_says_so(file):
    units = [astropy_fits.PrimaryHDU(COUNTS[0]), *map(image_hdu, COUNTS[1:])]
    source = fits.open_image(save_units(file, *units))
    np.testing.assert_array_equal(read_all(source)[0], COUNTS[0] / np.float32(65535))
    assert source.notes == [
        "holds 4 images; only the first one is used; save each as a file of its own to use all of them"
    ]


@pytest.mark.parametrize("name", ["frame.fits", "frame.fits.gz"])
@pytest.mark.parametrize("first", [True, False])
def test_the_largest_image_is_used_not_the_preview(tmp_path, name, first):
    preview, image = np.full((2, 3), 100, "u1"), COUNTS[0]
    units = [(preview, {"ROWORDER": "BOTTOM-UP", "CTYPE1": "RA---TAN"}), (image, {})]
    (here, cards), (there, _) = units if first else units[::-1]
    primary = astropy_fits.PrimaryHDU(here, astropy_fits.Header(cards | {"EXPTIME": 30.0}))
    source = fits.open_image(save_units(tmp_path / name, primary, image_hdu(there)))
    np.testing.assert_array_equal(read_all(source)[0], image / np.float32(65535))
    assert source.keywords["EXPTIME"] == 30
    assert source.row_order == "" and "CTYPE1" not in source.keywords
    assert source.notes == [
        f"holds 2 images; the largest one is used (7 x 5 pixels, HDU {1 if first else 0})"
    ]


def test_an_extension_has_the_keywords_of_the_file_too(file):
    unit = image_hdu(COUNTS[0], "SCI", GAIN=2)
    cards = {"EXPTIME": 30.0, "GAIN": 1, "ROWORDER": "BOTTOM-UP", "BZERO": 5.0}
    source = fits.open_image(save_units(file, unit, **cards))
    assert (source.keywords["EXPTIME"], source.keywords["GAIN"], source.row_order) == (30, 2, "bottom-up")
    np.testing.assert_array_equal(read_all(source)[0], COUNTS[0] / np.float32(65535))
    assert source.notes == []


def test_an_extension_that_does_not_inherit(file):
    source = fits.open_image(save_units(file, image_hdu(COUNTS[0], INHERIT=False), EXPTIME=30.0))
    assert "EXPTIME" not in source.keywords


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_the_mask_of_ccdproc_is_applied(file, packed, shape):
    image = RANDOM.random(shape).astype("f4")
    mask = np.zeros(shape, "u1")
    mask[..., 1, 2:5] = 1
    units = [astropy_fits.PrimaryHDU(image), image_hdu(mask, "MASK", packed), image_hdu(image, "UNCERT")]
    source = fits.open_image(save_units(file, *units))
    expected = np.where(mask, np.nan, image).reshape(-1, 5, 7)
    np.testing.assert_array_equal(read_all(source), expected)
    np.testing.assert_array_equal(source.read_rows(1, 3, 0), expected[0, 1:3])
    assert source.notes == [
        "holds 3 images; the pixels marked in extension MASK count as missing; extension UNCERT is not used"
    ]
    source.close()


def test_one_mask_serves_all_channels(file):
    image, mask = RANDOM.random((3, 5, 7)).astype("f4"), np.eye(5, 7, dtype="u1")
    save_units(file, astropy_fits.PrimaryHDU(image), image_hdu(mask, "MASK"))
    np.testing.assert_array_equal(read_all(fits.open_image(file)), np.where(mask, np.nan, image))


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (np.ones((5, 7), "i4"), "MASK"),
        (np.ones((4, 7), "u1"), "MASK"),
        (np.ones((2, 5, 7), "u1"), "MASK"),
        (np.ones((5, 7), "i2"), "DQ"),
    ],
)
def test_other_masks_are_named_and_not_applied(file, mask, name):
    image = RANDOM.random((5, 7)).astype("f4")
    save_units(file, astropy_fits.PrimaryHDU(image), image_hdu(mask, name))
    source = fits.open_image(file)
    np.testing.assert_array_equal(read_all(source)[0], image)
    assert source.notes == [f"holds 2 images; extension {name} is not used"]


@pytest.mark.parametrize(
    "junk", [b"\x1a" * 100, b"END" * 2000, b"XTENSION= 'IMAGE'", b"XTENSION".ljust(9000)]
)
def test_junk_after_the_image(file, junk):
    stored = integers("u1")
    raw_fits(file, stored)
    with file.open("ab") as stream:
        stream.write(junk)
    source = fits.open_image(file)
    np.testing.assert_array_equal(source.read_rows(0, 5, 0), stored / np.float32(255))
    damaged = ["what follows HDU 0 is damaged; it is left out"]
    assert source.notes == (damaged if junk.startswith(b"X") else [])


def test_only_the_first_image_of_a_zipped_file_is_unpacked_to_open_it(tmp_path, monkeypatch):
    path = save_units(
        tmp_path / "frame.fits.gz", astropy_fits.PrimaryHDU(integers("i2", (900, 1000)).astype("i2"))
    )
    read = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: read.append(size) or original(self, size)
    )
    monkeypatch.setattr(gzip.GzipFile, "seek", lambda *args: pytest.fail("seeks"))
    fits.open_image(path)
    assert sum(read) == 2880


# Compressed files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [True, False])
def test_gzip(file, tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(scratch, "MEMORY_PER_BLOCK", 10)
    stored = integers("i2", (3, 50, 40))
    zipped = tmp_path / "frame.fits.gz"
    zipped.write_bytes(
        gzip.compress(raw_fits(file, stored, ["BZERO   = 32768"], extension=True).read_bytes())
    )
    source = fits.open_image(zipped)
    np.testing.assert_array_equal(read_all(source), read_all(fits.open_image(file)))
    zipped.unlink()
    np.testing.assert_array_equal(source.read_rows(7, 9, 2), read_all(fits.open_image(file))[2, 7:9])
    source.close()


def test_gzip_of_several_members(file, tmp_path):
    content = raw_fits(file, integers("i2", (50, 40))).read_bytes()
    zipped = tmp_path / "frame.fits.gz"
    zipped.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    np.testing.assert_array_equal(read_all(fits.open_image(zipped)), read_all(fits.open_image(file)))


def test_damaged_gzip(file, tmp_path):
    content = gzip.compress(raw_fits(file, integers("i2", (50, 40))).read_bytes())
    zipped = tmp_path / "frame.fits.gz"
    changed = bytearray(content)
    changed[len(content) // 2] ^= 255
    for damaged in (content[:-1000], content[:-4], content[:30], bytes(changed), content[:10]):
        zipped.write_bytes(damaged)
        with pytest.raises(FrameError, match=r"frame\.fits\.gz"):
            fits.open_image(zipped).read_rows(0, 50, 0)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32"])
def test_fpack(tmp_path, kind):
    image = (RANDOM.random((3, 30, 40)) * 200).astype(kind)
    packed, plain = tmp_path / "frame.fits.fz", tmp_path / "frame.fits"
    lossless = {"quantize_level": 0, "compression_type": "GZIP_2"} if kind == "float32" else {}
    extension = astropy_fits.CompImageHDU(image, **lossless)
    extension.header["OBJECT"] = "M101"
    astropy_fits.HDUList([astropy_fits.PrimaryHDU(), extension]).writeto(packed)
    astropy_fits.PrimaryHDU(image).writeto(plain)
    source = fits.open_image(packed)
    assert source.sample_format == fits.open_image(plain).sample_format
    assert source.keywords["OBJECT"] == "M101"
    np.testing.assert_array_equal(read_all(source), read_all(fits.open_image(plain)))


def test_lossy_fpack(tmp_path):
    image = RANDOM.normal(0.5, 0.1, (30, 40)).astype(np.float32)
    packed = tmp_path / "frame.fits.fz"
    astropy_fits.CompImageHDU(image, quantize_level=16).writeto(packed)
    with astropy_fits.open(packed) as units:
        expected = units[1].data
    np.testing.assert_array_equal(fits.open_image(packed).read_rows(0, 30, 0), expected)


def test_damaged_fpack(tmp_path):
    packed = tmp_path / "frame.fits.fz"
    astropy_fits.CompImageHDU(integers("i2", (300, 40)).astype("i2")).writeto(packed)
    content = packed.read_bytes()
    packed.write_bytes(content[: len(content) // 2])
    with pytest.raises(FrameError, match=r"frame\.fits\.fz"):
        fits.open_image(packed).read_rows(0, 300, 0)


def test_scratch_is_gone_after_a_sudden_end(file, tmp_path):
    zipped = tmp_path / "frame.fits.gz"
    zipped.write_bytes(gzip.compress(raw_fits(file, integers("i2", (50, 40))).read_bytes()))
    folder = tmp_path / "scratch"
    folder.mkdir()
    program = (
        "import os, sys, tempfile; tempfile.tempdir = sys.argv[2]\n"
        "from stacklib.formats import fits, scratch; scratch.MEMORY_PER_BLOCK = 1\n"
        "source = fits.open_image(sys.argv[1]); source.read_rows(0, 1, 0)\n"
        "assert scratch._arena.live == 1\n"
        "if sys.argv[3] == 'kill': os._exit(3)\n"
    )
    for way in ("kill", "exit"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, zipped, folder, way], capture_output=True
        )
        assert (done.returncode, done.stderr) == (3 if way == "kill" else 0, b"")
        if sys.platform != "win32":
            assert list(folder.iterdir()) == []


# Damaged files ---------------------------------------------------------------------------------------


def test_truncated_anywhere(file):
    stored = integers("i2", (30, 40))
    whole = raw_fits(file, stored).read_bytes()
    for length in [*range(0, 100, 10), *range(100, 2880 + 2400, 97), 2880 + 2399]:
        file.write_bytes(whole[:length])
        with pytest.raises(FrameError, match=r"frame\.fits"):
            fits.open_image(file)
    # The padding of the last record contains no data.
    file.write_bytes(whole[: 2880 + 2400])
    assert fits.open_image(file).height == 30


@pytest.mark.parametrize(
    "cards",
    [
        ["BITPIX  = 7", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = -4", "NAXIS2  = 4"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 4"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 4.5", "NAXIS2  = 4"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 'four'", "NAXIS2  = 4"],
        ["BITPIX  = 16", "NAXIS   = 1", "NAXIS1  = 4"],
        ["BITPIX  = 16", "NAXIS   = 0"],
        ["BITPIX  = 16", "NAXIS   = 999999999"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 99999999999", "NAXIS2  = 99999999999"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 999999999", "NAXIS2  = 999999999"],
        ["BITPIX  = 16", "NAXIS   = 4", "NAXIS1  = 2", "NAXIS2  = 2", "NAXIS3  = 2", "NAXIS4  = 2"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4", "BSCALE  = 0"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4", "BSCALE  = 'x'"],
        ["BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4", "BZERO   = 32768,0"],
        ["NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 4"],
        [],
    ],
)
def test_refused_headers(file, cards):
    file.write_bytes(header(["SIMPLE  =                    T", *cards]) + bytes(2880))
    with pytest.raises(FrameError, match=r"frame\.fits"):
        fits.open_image(file)


def test_no_image_and_no_fits(file, tmp_path):
    file.write_bytes(b"\x89PNG" * 1000)
    with pytest.raises(FrameError, match=r"frame\.fits: starts with .*not a FITS file"):
        fits.open_image(file)
    file.write_bytes(b"SIMPLE  =" + b" " * 5000)
    with pytest.raises(FrameError, match="END card"):
        fits.open_image(file)
    with pytest.raises(FrameError, match="not a regular file"):
        fits.open_image(tmp_path)
    with pytest.raises(FrameError, match="no such file"):
        fits.open_image(tmp_path / "none.fits")


def test_a_file_that_shrinks_after_opening(file):
    source = fits.open_image(raw_fits(file, integers("i2", (30, 40))))
    file.write_bytes(file.read_bytes()[:4000])
    with pytest.raises(FrameError, match=r"frame\.fits: has changed since"):
        source.read_rows(0, 30, 0)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    zipped=st.booleans(),
)
def test_damaged_bytes_are_refused_or_read(file, changes, zipped):
    cards = ["BZERO   = 32768", "EXPTIME = 300.0", "OBJECT  = 'M 101'", "DATE-OBS= '2021-08-15T21:00:00'"]
    stored = np.arange(30, dtype=">i2").reshape(5, 6)
    content = bytearray(raw_fits(file, stored, cards).read_bytes())
    if zipped:
        content = bytearray(gzip.compress(content, mtime=0))
    for place, value in changes:
        # Most changes hit the header cards.
        content[place % (len(content) if zipped else 1000)] = value
    file.write_bytes(content)
    try:
        source = fits.open_image(file)
        source.read_rows(0, source.height, 0)
    except FrameError as error:
        assert "frame.fits" in str(error)


def many_units(packed):
    image = np.arange(30, dtype="u2").reshape(5, 6)
    units = [image_hdu(image, name, packed, GAIN=5) for name in "RGB"]
    mask = image_hdu((image > 20).astype("u1"), "MASK", packed)
    content = io.BytesIO()
    primary = astropy_fits.PrimaryHDU(image[:2, :2], astropy_fits.Header({"EXPTIME": 30.0}))
    astropy_fits.HDUList([primary, *units, mask]).writeto(content)
    return content.getvalue()


#: The bytes that can be changed: headers and data without their padding.
MANY = {packed: many_units(packed) for packed in (False, True)}
FILLED = {
    packed: [i for i, byte in enumerate(content) if byte not in b" \0"] for packed, content in MANY.items()
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from([*range(256), *b"0123456789'TF="])), max_size=4
    ),
    packed=st.booleans(),
)
def test_damaged_bytes_of_many_units_are_refused_or_read(file, changes, packed):
    content = bytearray(MANY[packed])
    for place, value in changes:
        content[FILLED[packed][place % len(FILLED[packed])]] = value
    file.write_bytes(content)
    try:
        source = fits.open_image(file)
        read_all(source)
    except FrameError as error:
        assert "frame.fits" in str(error)


# Rows ------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_band_equals_the_whole(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["u1", "i2", "i4", "f4", "f8"]))
    path = tmp_path_factory.getbasetemp() / f"{kind}.fits"
    if not path.exists():
        raw_fits(path, (RANDOM.random((3, 37, 11)) * 200).astype(f">{kind}"))
    source = fits.open_image(path)
    start = data.draw(st.integers(0, 37))
    stop = data.draw(st.integers(start, 37))
    whole = source.read_rows(0, 37, 1)
    out = np.full((stop - start, 11), np.nan, np.float32)
    assert source.read_rows(start, stop, 1, out) is out
    np.testing.assert_array_equal(out, whole[start:stop])


def test_images_larger_than_one_chunk(file):
    stored = integers("i2", (1200, 1000))
    source = fits.open_image(raw_fits(file, stored, ["BZERO   = 32768"]))
    expected = (stored.astype(np.float32) + 32768) / np.float32(65535)
    np.testing.assert_array_equal(source.read_rows(0, 1200, 0), expected)


# Writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 6, 5), (3, 6, 5), (6, 5)])
def test_round_trip(file, shape):
    image = RANDOM.random(shape, np.float32)
    image.flat[0] = np.nan
    keywords = [
        ("OBJECT", "M 101 é", "target"),
        ("EXPTIME", 2400.0, "s"),
        ("NCOMBINE", np.int64(40), ""),
        ("NAXIS1", 9, "left out"),
        ("TOOLONGNAME", 1, "a name of more than eight letters"),
        ("BAD", float("nan"), ""),
        ("LONG", "x" * 100, "longer than a card"),
        *[("HISTORY", f"line {number} " + "y" * 90, "") for number in range(3)],
    ]
    assert fits.write_image(file, image, keywords) == file
    source = fits.open_image(file)
    np.testing.assert_array_equal(read_all(source), image.reshape(-1, 6, 5))
    assert source.row_order == "top-down"
    assert source.keywords["OBJECT"] == "M 101 e"
    assert source.keywords["NCOMBINE"] == 40
    assert source.keywords["LONG"] == "x" * 100
    with astropy_fits.open(file) as units:
        np.testing.assert_array_equal(units[0].data, image[0] if shape == (1, 6, 5) else image)
        assert "line 2" in str(units[0].header["HISTORY"])


@pytest.mark.parametrize("value", [float("inf"), -np.inf, np.float32("nan"), object(), 2 + 1j])
def test_what_fits_cannot_hold_never_costs_the_image(file, value):
    keywords = [("GAIN", 80, ""), ("SLOPE", value, "of a fit"), ("A=B", 1, ""), ("FILTER", "L", "")]
    left_out = fits.unwritable(keywords)
    assert set(left_out) == {"A=B"} if isinstance(value, complex) else {"SLOPE", "A=B"}
    fits.write_image(file, np.zeros((1, 2, 2), np.float32), keywords)
    header = astropy_fits.getheader(file)
    assert (header["GAIN"], header["FILTER"]) == (80, "L")
    assert ("SLOPE" in header) == isinstance(value, complex)


def test_a_card_that_fails_only_when_it_is_written(file, monkeypatch):
    # As astropy 6 does with a long text under a long name.
    original = astropy_fits.Card.__str__

    def fail(card):
        if card.keyword == "PIPELINE UUID":
            raise ValueError("The header keyword with its value is too long")
        return original(card)

    monkeypatch.setattr(astropy_fits.Card, "__str__", fail)
    keywords = [("PIPELINE UUID", "0123456789" * 9, ""), ("GAIN", 80, "")]
    assert fits.unwritable(keywords) == {"PIPELINE UUID": "The header keyword with its value is too long"}
    fits.write_image(file, np.zeros((1, 2, 2), np.float32), keywords)
    header = astropy_fits.getheader(file)
    assert header["GAIN"] == 80 and "PIPELINE UUID" not in header


@pytest.mark.parametrize(
    ("order", "written"), [("top-down", "TOP-DOWN"), ("bottom-up", "BOTTOM-UP"), ("", None)]
)
def test_the_order_of_the_rows_is_written_if_known(file, order, written):
    fits.write_image(file, np.zeros((2, 2), np.float32), row_order=order)
    assert astropy_fits.getheader(file).get("ROWORDER") == written
    assert fits.open_image(file).row_order == order


def test_never_overwrites_and_cleans_up(file, monkeypatch):
    image = np.zeros((1, 2, 2), np.float32)
    file.write_bytes(b"mine")
    with pytest.raises(SaveError, match="already exists"):
        fits.write_image(file, image)
    assert file.read_bytes() == b"mine"
    file.unlink()

    def full(self, name, *args, **kwargs):
        Path(name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(astropy_fits.PrimaryHDU, "writeto", full)
    with pytest.raises(SaveError, match="free space"):
        fits.write_image(file, image)
    assert list(file.parent.iterdir()) == []


# Real files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hatp32_reg40", "m94_seestar_cfa_reg32", "calib_qsi583_dark10"])
def test_real_frames(name):
    files = sorted((DATA / name).glob("*.fit*"))[:3]
    if not files:
        pytest.skip(f"{name} is not here")
    for path in files:
        expected = astropy_fits.getdata(path).astype(np.float32) / np.float32(65535)
        np.testing.assert_array_equal(fits.open_image(path).read_rows(0, len(expected), 0), expected)


def test_real_decimal_comma():
    files = sorted((DATA / "calib_asi120mc" / "bias").glob("*.gz"))[:1]
    if not files:
        pytest.skip("calib_asi120mc is not here")
    source = fits.open_image(files[0])
    assert source.notes == []
    assert source.keywords["EXPTIME"] == 6.4e-05
    assert source.keywords["CCD-TEMP"] == 26


def test_real_truncated_file():
    files = sorted((DATA / "calib_asi120mc" / "broken").glob("*"))
    if not files:
        pytest.skip("calib_asi120mc is not here")
    with pytest.raises(FrameError, match=r"ASI178_Flat_truncated_2MiB\.fit\.gz: is truncated"):
        fits.open_image(files[0])


@pytest.mark.parametrize(("is_one", "name"), [("XISF", "light.fits"), ("FITS", "light.xisf")])
def test_a_file_under_the_name_of_the_other_format_says_so(tmp_path, is_one, name):
    (tmp_path / name).write_bytes((b"XISF0100" if is_one == "XISF" else b"SIMPLE  =").ljust(5760))
    with pytest.raises(
        FrameError, match=rf"{name}: .*this is an? {is_one} file, so name it \.{is_one.lower()}"
    ):
        Frame(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["TFIELDS", "THEAP", "TFORM1", "CHECKSUM", "END", "CONTINUE", "NAXIS3", "'", "="]
)
def test_keywords_that_would_break_the_file_are_not_written(file, name):
    image = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    fits.write_image(file, image, [(name, "x", ""), ("GAIN", 5, "")])
    source = fits.open_image(file)
    assert source.keywords["GAIN"] == 5 and source.notes == []
    np.testing.assert_array_equal(source.read_rows(0, 3, 0), image)
