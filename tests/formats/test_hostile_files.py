"""Files that lie about their sizes, files without end, and what decodes them."""

import gzip
import re
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from image_files import PIXELS, header, make_xisf, pack, raw_fits, read_all, shuffle

from stacklib.errors import FrameError
from stacklib.formats import fits, fits_header, fits_tiles, fits_unpack, scratch, xisf
from stacklib.frames.frame import Frame

COUNTS = (np.arange(96 * 48) * 37 % 5000).reshape(48, 96).astype("i2")
#: Seconds of processor time that any input may take.
SECONDS = 2.0


def pixels_of(path):
    return Frame(path, quiet=True).read()


def packed(path, codec="RICE_1", image=COUNTS, tile=(16, 48), **options):
    astropy_fits.CompImageHDU(image, compression_type=codec, tile_shape=tile, **options).writeto(path)
    return path


def with_card(path, name, text, number=0):
    """Replace one card of a file by another one."""
    content = path.read_bytes()
    places = [i for i in range(0, len(content), 80) if content[i : i + 9] == name.ljust(8).encode() + b"="]
    place = places[number]
    new = text.encode("latin-1").ljust(80)[:80]
    path.write_bytes(content[:place] + new + content[place + 80 :])
    return path


# Tile-compressed FITS ---------------------------------------------------------------------------------

# fmt: off
SIZES = [
    "", "0", "-1", "1", "7", "44", "1.5", "80.", "1e10", "2147483648", "9" * 40, "T", "'x'", "(1.0, 2.0)",
]
CARDS = [
    "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZTILE1", "ZTILE2", "ZBITPIX", "ZCMPTYPE",
    "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "TFIELDS", "TFORM1", "TTYPE1",
]
# fmt: on
SETTINGS = [(codec, name) for codec in ("RICE_1", "HCOMPRESS_1") for name in ("ZVAL1", "ZVAL2", "ZNAME1")]


@pytest.mark.parametrize(
    ("codec", "name"), [(c, name) for c in ("RICE_1", "GZIP_2", "HCOMPRESS_1") for name in CARDS] + SETTINGS
)
def test_no_size_of_a_packed_file_is_believed(tmp_path, codec, name):
    original = packed(tmp_path / "good.fits.fz", codec)
    expected = pixels_of(original)
    for i, value in enumerate(SIZES):
        path = tmp_path / f"input_{i}.fits.fz"
        path.write_bytes(original.read_bytes())
        with_card(path, name, f"{name:<8}= {value}")
        started = time.process_time()
        try:
            found = pixels_of(path)
        except FrameError as error:
            assert path.name in str(error) and len(str(error).replace(str(path), "")) < 300
        else:
            # Settings that a codec does not need may say anything.
            assert name.startswith(("ZVAL", "ZNAME", "GCOUNT", "ZBITPIX")) or np.array_equal(found, expected)
        assert time.process_time() - started < SECONDS


def test_a_tile_that_is_larger_than_the_header_says(tmp_path):
    path = packed(tmp_path / "input.fits.fz", "HCOMPRESS_1")
    content = path.read_bytes()
    place = content.index(b"\xdd\x99") + 2
    path.write_bytes(content[:place] + (4000).to_bytes(4, "big") + content[place + 4 :])
    with pytest.raises(FrameError, match=r"tile 1 is \[4000, 48\], expected the shape \[16, 48\]"):
        Frame(path)


def test_a_tile_beyond_the_end_of_the_file(tmp_path):
    path = packed(tmp_path / "input.fits.fz")
    content = path.read_bytes()
    start = content.index(b"XTENSION")
    table = content.index(b"END     ", start)
    table = -(-table // 2880) * 2880
    path.write_bytes(content[: table + 4] + b"\x7f\xff\xff\xf0" + content[table + 8 :])
    with pytest.raises(FrameError, match=r"tile 1 of COMPRESSED_DATA is .*expected an end inside the file"):
        Frame(path)


def test_a_tile_by_gzip_that_inflates_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(fits_tiles, "SMALL_TILE", 50)
    path = packed(tmp_path / "input.fits.fz", "GZIP_1", tile=(48, 96))
    content = path.read_bytes()
    place = content.index(b"\x1f\x8b", 5000)
    size = int.from_bytes(content[place - 8 : place - 4], "big")
    bomb = gzip.compress(bytes(10**6), 9)[:-4] + (48 * 96 * 2).to_bytes(4, "little")
    assert len(bomb) <= size
    # The bytes before the trailer are an empty member, so that all of the tile is used.
    filled = bomb[:-8] + b"\0" * (size - len(bomb)) + bomb[-8:]
    path.write_bytes(content[:place] + filled + content[place + size :])
    with pytest.raises(FrameError, match=r"tile 1 is 'larger', expected 9216 bytes"):
        Frame(path)


def test_the_scale_of_floats_in_one_card_is_refused(tmp_path):
    # The library would take the integers for the floats.
    path = packed(tmp_path / "input.fits.fz", "GZIP_1", COUNTS.astype("f4"), quantize_level=0)
    assert np.array_equal(pixels_of(path)[0], COUNTS)
    with_card(path, "GCOUNT", "ZSCALE  = 2.0")
    with pytest.raises(FrameError, match="ZBITPIX is -32, expected columns ZSCALE and ZZERO"):
        Frame(path)


def test_more_samples_than_the_tiles_can_hold(tmp_path):
    path = packed(tmp_path / "input.fits.fz", tile=(48, 96))
    for name in ("ZNAXIS1", "ZTILE1"):
        with_card(path, name, f"{name:<8}= 2147483647")
    tracemalloc.start()
    with pytest.raises(FrameError, match="expected an image that its tiles can hold"):
        Frame(path)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


@pytest.fixture
def no_children():
    """End the processes that wait, before and after."""
    fits_unpack._current_children().end()
    yield
    fits_unpack._current_children().end()


def program(tmp_path, monkeypatch, text):
    path = tmp_path / "child.py"
    path.write_text(text)
    monkeypatch.setattr(fits_unpack.fits_child, "__file__", str(path))


@pytest.mark.parametrize(
    "text", ["import os; os.abort()", "input(); import os; os.abort()", "print('x' * 5)"]
)
def test_a_process_that_dies_is_an_error_of_the_file(tmp_path, monkeypatch, no_children, text):
    path = packed(tmp_path / "input.fits.fz")
    with monkeypatch.context() as patched:
        program(tmp_path, patched, text)
        with pytest.raises(
            FrameError, match=r"input\.fits\.fz: the compressed tiles cannot be read \(the pro"
        ):
            pixels_of(path)
    assert np.array_equal(pixels_of(path)[0] * 65535, COUNTS.astype(np.float32))


def test_a_process_that_cannot_be_started(tmp_path, monkeypatch, no_children):
    path = packed(tmp_path / "input.fits.fz")
    monkeypatch.setattr(fits_unpack.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FrameError, match=r"input\.fits\.fz: .* cannot be started: No such file"):
        pixels_of(path)


def test_a_process_that_never_answers(tmp_path, monkeypatch, no_children):
    path = packed(tmp_path / "input.fits.fz")
    monkeypatch.setattr(fits_unpack, "PATIENCE", 0.5)
    monkeypatch.setattr(fits_unpack.fits_child, "BYTES_A_SECOND", 1e9)
    program(tmp_path, monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(FrameError, match="the process that decoded them ended"):
        pixels_of(path)


def test_one_process_decodes_many_files(tmp_path, monkeypatch, no_children):
    started = []
    original = fits_unpack.subprocess.Popen
    monkeypatch.setattr(
        fits_unpack.subprocess, "Popen", lambda *args, **how: started.append(1) or original(*args, **how)
    )
    for i, codec in enumerate(["RICE_1", "HCOMPRESS_1", "GZIP_1", "PLIO_1"]):
        path = packed(tmp_path / f"input_{i}.fits.fz", codec)
        assert np.array_equal(pixels_of(path)[0] * 65535, COUNTS.astype(np.float32))
    assert started == [1]
    # Damaged tiles are an error of the library, after which the process goes on.
    path = packed(tmp_path / "damaged.fits.fz", "GZIP_1")
    content = bytearray(path.read_bytes())
    place = content.index(b"\x1f\x8b", 5000)
    content[place + 12 : place + 20] = b"\xff" * 8
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(FrameError, match=r"damaged.* the compressed tiles cannot be read"):
            pixels_of(path)
    assert started == [1]


def test_a_process_that_ended_in_the_meantime_is_started_again(tmp_path, no_children):
    path = packed(tmp_path / "input.fits.fz")
    pixels_of(path)
    (child,) = fits_unpack._current_children().idle
    child.process.kill()
    child.process.wait()
    assert np.array_equal(pixels_of(path)[0] * 65535, COUNTS.astype(np.float32))


# Headers of FITS --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "card",
    ["K{:<7}= @@{}", "K{:<7}= {}", "HISTORY {} {}", "KEY     = {} {}", "COMMENT = {} {}", "CONTINUE  '{}{}'"],
)
def test_many_cards_take_no_time(tmp_path, card):
    stored = np.arange(12.0).reshape(3, 4).astype(">i2")
    cards = [card.format(i, i) for i in range(20_000)] + ["BZERO   = 7"]
    started = time.process_time()
    frame = Frame(raw_fits(tmp_path / "input.fits", stored, cards), quiet=True)
    assert time.process_time() - started < SECONDS
    assert len(frame.notes) <= fits_header.NAMED + 3
    # What says how pixels are stored counts wherever it stands.
    np.testing.assert_array_equal(frame.read()[0], ((stored + 7.0) / 65535).astype(np.float32))


def test_cards_beyond_the_limit_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(fits_header, "MAX_CARDS", 10)
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">f4"), [f"K{i}      = {i}" for i in range(20)])
    frame = Frame(path, quiet=True)
    assert "has 25 cards; those after the first 10 are left out" in frame.notes
    assert "K3" in frame.keywords and "K19" not in frame.keywords


def test_headers_are_limited_together(tmp_path, monkeypatch):
    monkeypatch.setattr(fits, "MAX_HEADERS", 10_000)
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">f4"))
    empty = ["XTENSION= 'IMAGE   '", "BITPIX  = 8", "NAXIS   = 0", "PCOUNT  = 0", "GCOUNT  = 1"]
    path.write_bytes(path.read_bytes() + header([*empty, *["COMMENT x"] * 150]))
    assert Frame(path, quiet=True).notes == ["what follows HDU 0 is damaged; it is left out"]


@pytest.mark.parametrize("name", ["BZERO", "BSCALE", "BITPIX", "NAXIS", "NAXIS1"])
@pytest.mark.parametrize("value", ["", " ", "= ", "=  / 32768", "= ''", "= 'x'", "= @"])
def test_an_empty_number_is_not_an_absent_one(tmp_path, name, value):
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">i2"), ["BZERO   = 0", "BSCALE  = 1"])
    with_card(path, name, f"{name:<8}{value}")
    with pytest.raises(FrameError, match=rf"input\.fits: {name} is .*, expected .*; "):
        Frame(path)


def test_an_empty_card_of_another_kind_costs_nothing(tmp_path):
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">i2"), ["GAIN    =", "BLANK   ="])
    assert Frame(path, quiet=True).keywords.keys() == {"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2"}


@pytest.mark.parametrize("card", ["END     = 5", "END     5", "END     'x'"])
def test_a_keyword_named_end_does_not_end_the_header(tmp_path, card):
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">i2"), [card, "BZERO   = 65535"])
    assert Frame(path, quiet=True).read().max() == 1


@pytest.mark.parametrize("card", ["BITPIX  = 8", "NAXIS   = 3", "NAXIS1  = 2", "PCOUNT  = 5"])
def test_two_sizes_are_one_too_many(tmp_path, card):
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">i2"), ["PCOUNT  = 0", "NAXIS1  = 4.", card])
    with pytest.raises(FrameError, match=rf"{card[:8].strip()} is .* and .*, expected one value"):
        Frame(path)


def test_cards_after_the_end_are_told(tmp_path):
    path = raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">i2"), ["END", "BZERO   = 65535"])
    assert Frame(path, quiet=True).notes == ["has cards after its END, which are left out: BZERO, END"]


def test_axes_without_end(tmp_path):
    path = packed(tmp_path / "input.fits.fz")
    with_card(path, "ZNAXIS", "ZNAXIS  = 2147483647")
    started = time.process_time()
    with pytest.raises(FrameError):
        Frame(path)
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize("value", ["(1.0, 2.0)", "9" * 65, "-" + "9" * 60])
def test_odd_numbers_cost_no_image(tmp_path, value):
    frame = Frame(
        raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">f4"), [f"GAIN    = {value}"]), quiet=True
    )
    assert frame.gain is None and any("GAIN" in note and "left out" in note for note in frame.notes)


# gzip -------------------------------------------------------------------------------------------------


def zipped(path, *parts):
    path.write_bytes(gzip.compress(b"".join(parts), 1))
    return path


@pytest.fixture
def near(monkeypatch):
    """Look at few bytes."""
    monkeypatch.setattr(fits, "LOOKED_AT", 2**16)
    monkeypatch.setattr(fits, "LOOKED_AT_RATIO", 1)


def test_what_lies_far_behind_an_image_is_not_inflated(tmp_path, near):
    image = raw_fits(tmp_path / "plain.fits", COUNTS.astype(">i2")).read_bytes()
    table = header(["XTENSION= 'TABLE   '", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 3000000", "PCOUNT  = 0"])
    path = zipped(tmp_path / "input.fits.gz", image, table, bytes(3_002_400), table)
    frame = Frame(path, quiet=True)
    assert frame.notes == ["what follows HDU 1 is not looked at: it is too far away"]
    with pytest.raises(FrameError, match="inflates to more than 0 MiB behind its image; decompress"):
        frame.read()


def test_an_image_far_behind_is_refused(tmp_path, near):
    first = header(["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 1", "NAXIS1  = 10000000000"])
    with pytest.raises(FrameError, match="has no image in its first"):
        Frame(zipped(tmp_path / "input.fits.gz", first, bytes(10**6)))


def test_an_image_that_gzip_cannot_hold(tmp_path):
    first = header(["SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 100000", "NAXIS2  = 100000"])
    with pytest.raises(FrameError, match=r"is truncated \(at most"):
        Frame(zipped(tmp_path / "input.fits.gz", first, bytes(10**6)))


# XISF -------------------------------------------------------------------------------------------------


def test_attributes_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(xisf, "MAX_ATTRIBUTES", 20)
    many = " ".join(f"a{i} = '{i}'" for i in range(30))
    with pytest.raises(FrameError, match="the header has more than 20 attributes; leave the file out"):
        Frame(make_xisf(tmp_path / "input.xisf", inside=f"<a {many}/>"))


def test_subblocks_without_end(tmp_path):
    path = make_xisf(
        tmp_path / "input.xisf", compression="zlib:120", subblocks="1,1:" * 20_000, position=2**17
    )
    with pytest.raises(FrameError, match=r"subblocks is .*, expected at most 10000 pairs of sizes") as found:
        Frame(path)
    assert len(str(found.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    "bad", ['type="Int32" value="x"', 'type="Foo"', 'type="UInt8" value="0x1ffffffffffffffff"']
)
def test_many_bad_properties_are_one_note(tmp_path, bad):
    inside = "".join(f'<Property id="P{i}" {bad}/>' for i in range(200))
    frame = Frame(make_xisf(tmp_path / "input.xisf", inside=inside, position=2**21), quiet=True)
    assert len(frame.notes) == 1 and re.search("P0.*, P9.* and 190 more", frame.notes[0])


@pytest.mark.parametrize("value", ["1" * 400, "-" + "9" * 30, "0x" + "f" * 20, "1" * 10**5])
def test_numbers_beyond_64_bits_are_left_out(tmp_path, value):
    inside = f'<Property id="Instrument:Camera:Gain" type="Int64" value="{value}"/>'
    inside += f'<FITSKeyword name="ISOSPEED" value="{value}" comment=""/>'
    frame = Frame(make_xisf(tmp_path / "input.xisf", inside=inside, position=2**19), quiet=True)
    assert frame.gain is None and frame.properties == {}
    assert any("Instrument:Camera:Gain cannot be read" in note for note in frame.notes)


def test_long_keywords_are_left_out(tmp_path):
    inside = f'<FITSKeyword name="A" value="{"x" * 10**5}"/><FITSKeyword name="{"B" * 100}" value="1"/>'
    frame = Frame(make_xisf(tmp_path / "input.xisf", inside=inside, position=2**18), quiet=True)
    assert frame.keywords == {} and "too long a name or value are left out: 'A', 'BBB" in frame.notes[0]


def test_properties_may_share_their_bytes_only_so_often(tmp_path, monkeypatch):
    # Each is small once inflated, but takes the whole block to check.
    monkeypatch.setattr(xisf, "MAX_PROPERTIES", 1000)
    block = PIXELS.tobytes() + zlib.compress(b"a") + bytes(300)
    where = f'location="attachment:{2**14 + 120}:309" compression="zlib:1"'
    inside = "".join(f'<Property id="P{i}" type="String" {where}/>' for i in range(5))
    path = make_xisf(
        tmp_path / "input.xisf", block, inside=inside, position=2**14, location=f"attachment:{2**14}:120"
    )
    frame = Frame(path, quiet=True)
    assert list(frame.properties) == ["P0", "P1", "P2"]
    assert frame.notes[0].startswith("properties P3, P4 are too large")


@pytest.mark.parametrize("codec", ["zlib", "zstd", "lz4"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_shuffled_images_take_little_memory(tmp_path, monkeypatch, codec, on_disk):
    pixels = np.random.default_rng(3).integers(0, 500, (1, 800, 2000)).astype("<u2")
    path = make_xisf(
        tmp_path / "input.xisf",
        pack(codec, shuffle(pixels.tobytes(), 2)),
        geometry="2000:800:1",
        colorSpace="Gray",
        compression=f"{codec}+sh:{pixels.nbytes}:2",
    )
    if on_disk:
        monkeypatch.setattr(scratch, "MEMORY_PER_BLOCK", 0)
    source = xisf.open_image(path)
    tracemalloc.start()
    first = source.read_rows(0, 1, 0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(first, pixels[0, :1] / np.float32(65535))
    np.testing.assert_array_equal(read_all(source), pixels / np.float32(65535))
    stored = path.stat().st_size if codec == "lz4" else 0
    copies = (codec == "lz4") + (not on_disk)
    assert most < copies * pixels.nbytes + stored + 4 * 2**20


@pytest.mark.parametrize("item", [2, 3, 4, 8, 16])
def test_items_of_any_size_at_any_place(tmp_path, item):
    content = np.random.default_rng(item).integers(0, 256, 1007).astype("u1").tobytes()
    path = make_xisf(
        tmp_path / "input.xisf",
        pack("zlib", shuffle(content, item)),
        geometry="1007:1:1",
        sampleFormat="UInt8",
        colorSpace="Gray",
        compression=f"zlib+sh:1007:{item}",
    )
    with xisf.open_image(path).block.reader() as read_into:
        for start, size in ((0, 1007), (0, 1), (1, 5), (13, 900), (1000, 7), (1006, 1)):
            found = bytearray(size)
            read_into(start, memoryview(found))
            assert found == content[start : start + size]


@pytest.mark.parametrize("count", [300, 240_000])
def test_channels_without_end(tmp_path, count):
    path = tmp_path / "channels.xisf"
    samples = np.zeros(count, "<f4")
    make_xisf(path, samples.tobytes(), geometry=f"1:1:{count}", sampleFormat="Float32", bounds="0:1")
    before = time.process_time()
    frame = Frame(path, quiet=True)
    assert frame.read().shape == (3, 1, 1)
    assert any("channels" in note for note in frame.notes)
    assert time.process_time() - before < SECONDS
