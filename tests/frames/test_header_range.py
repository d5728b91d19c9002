"""Header values of the wrong type or beyond any plausible range are not used, and told."""

import importlib

import numpy as np
import pytest
from image_files import make_xisf, raw_fits

import stacklib as sl
from stacklib.formats.xisf import write_image
from stacklib.frames.frame import Frame


def fits_frame(tmp_path, **cards):
    lines = [f"{name.replace('_', '-'):<8}= {value}" for name, value in cards.items()]
    return Frame(raw_fits(tmp_path / "input.fits", np.zeros((3, 4), ">f4"), lines), quiet=True)


@pytest.mark.parametrize(
    ("card", "value", "fact"),
    [
        *[
            ("DATE-OBS", f"'{year}-01-01T00:00:00'", "date")
            for year in ("0001", "1600", "1899", "2201", "9999")
        ],
        ("DATE-OBS", "'0001-01-01T00:00:00+14:00'", "date"),
        ("DATE-OBS", "T", "date"),
        ("DATE-END", "'9999-12-31T23:59:59'", "date_end"),
        *[
            ("EXPTIME", value, "exposure")
            for value in ("1e12", "1e300", "1e308", "-1.0", "1.1e8", "'1e400'", "T")
        ],
        *[("GAIN", value, "gain") for value in ("1e300", "-1e8", "'1e400'", "'high'")],
        *[("CCD-TEMP", value, "temperature") for value in ("-300.", "999.", "1e308")],
        *[("MJD-OBS", value, "date") for value in ("1e300", "-1.0", "999999.", "'x'", "T")],
    ],
)
def test_beyond_the_range(tmp_path, card, value, fact):
    frame = fits_frame(tmp_path, **{card: value})
    assert getattr(frame, fact) is None
    (note,) = frame.notes
    assert note.startswith(f"{card} is ") and note.endswith("; it is left out") and "expected" in note


@pytest.mark.parametrize(
    ("card", "value", "fact", "expected"),
    [
        ("EXPTIME", "86400.", "exposure", 86400),
        ("EXPTIME", "0.000001", "exposure", 1e-6),
        ("GAIN", "409600", "gain", 409600),
        ("CCD-TEMP", "-100.", "temperature", -100),
    ],
)
def test_within_the_range(tmp_path, card, value, fact, expected):
    frame = fits_frame(tmp_path, **{card: value})
    assert getattr(frame, fact) == expected and frame.notes == []


def test_the_next_source_is_used(tmp_path):
    frame = fits_frame(tmp_path, EXPTIME="1e300", EXPOSURE="30.", DATE_OBS="'0001-01-01'", MJD_OBS="60000.5")
    assert (frame.exposure, frame.date.year) == (30, 2023)
    # MJD-OBS is not looked at where there is a better date.
    assert fits_frame(tmp_path, MJD_OBS="0.", DATE_OBS="'2024-01-05'").notes == []


def test_a_switch_is_no_pedestal(tmp_path):
    frame = fits_frame(tmp_path, PEDESTAL="T")
    assert frame.pedestal == 0
    assert frame.notes == ["PEDESTAL is 'True', expected ADU, up to 65535; it is left out"]


def vector(name):
    return (
        f'<Property id="{name}" type="F32Vector" length="2" location="inline:hex">0000803f00000040</Property>'
    )


def test_lists_where_one_value_is_expected(tmp_path):
    names = [
        *("Instrument:ExposureTime", "Instrument:Camera:Gain", "Instrument:Sensor:Temperature"),
        *(
            "Observation:Object:Name",
            "Instrument:Filter:Name",
            "Instrument:Camera:Name",
            "PCL:CFASourcePattern",
        ),
        *("Observation:Time:Start", "Observation:Time:End", "PCL:Noise/0"),
    ]
    inside = "".join(map(vector, names)) + '<FITSKeyword name="EXPTIME" value="30"/>'
    frame = Frame(make_xisf(tmp_path / "input.xisf", inside=inside, position=2**14), quiet=True)
    facts = (frame.gain, frame.temperature, frame.date, frame.date_end, frame.noise_keywords)
    assert facts == (None, None, None, None, None)
    assert (frame.object, frame.filter, frame.camera, frame.cfa_pattern) == ("", "", "", "")
    assert frame.exposure == 30
    noted = [note for note in frame.notes if "is a list of 2 values, expected" in note]
    assert len(noted) == len(names) - 1


def test_a_text_without_end_is_no_name(tmp_path):
    inside = f'<FITSKeyword name="OBJECT" value="{"x" * 5000}"/>'
    frame = Frame(make_xisf(tmp_path / "input.xisf", inside=inside, position=2**14), quiet=True)
    assert frame.object == ""
    (note,) = frame.notes
    assert note.startswith("OBJECT is 'xxx") and "at most 1000 characters" in note and len(note) < 200


ODD = [
    {"DATE-OBS": "0001-01-01T00:00:00", "DATE-END": "9999-12-31T23:59:59"},
    {"DATE-OBS": "2024-01-05T22:10:00", "EXPTIME": 1e12},
    {"DATE-OBS": "2024-01-05T22:10:00", "EXPTIME": 1e300},
    {"EXPTIME": 1e308, "GAIN": 10**400, "NOISE00": 1e308},
    {
        "FOO=BAR": 3,
        "A B": 1,
        "END": 1,
        "CONTINUE": "x",
        "'": 2,
        "SIMPLE": "x",
        "NAXIS3": 4,
        "LONGNAME=1": "x" * 90,
    },
    {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 1.0}
    | {"CRVAL2": 1.0, "A_ORDER": 100_000, "B_ORDER": 100_000},
]


@pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("odd", ODD, ids=[next(iter(odd)) for odd in ODD])
def test_no_header_costs_the_result(tmp_path, odd, everywhere):
    random = np.random.default_rng(3)
    for i in range(4):
        cards = [(name, value, "") for name, value in odd.items()] if everywhere or i == 2 else []
        image = random.normal(0.2, 0.01, (24, 30)).astype(np.float32)
        write_image(tmp_path / f"frame_{i}.xisf", image, image_id="frame", keywords=cards)
    frames = sl.open_frames(tmp_path)
    assert len(repr(frames)) < 1000 and len(frames.table) == 4
    result = sl.integrate(frames, sl.Recipe(rejection="none"), progress=False)
    images = result.save(tmp_path / "out", fits=True)
    assert len(images) == 6
    for path in images:
        assert Frame(path, quiet=True).read().shape == (1, 24, 30)


@pytest.mark.filterwarnings("ignore::stacklib.errors.StacklibWarning")
@pytest.mark.parametrize("module", ["fits", "xisf"])
def test_a_header_that_cannot_be_written_does_not_cost_the_images(tmp_path, monkeypatch, module):
    random = np.random.default_rng(3)
    for i in range(4):
        image = random.normal(0.2, 0.01, (24, 30)).astype(np.float32)
        write_image(tmp_path / f"frame_{i}.xisf", image, image_id="frame", keywords=[("GAIN", 100, "")])
    result = sl.integrate(tmp_path, sl.Recipe(rejection="none"), progress=False)
    writer = importlib.import_module(f"stacklib.formats.{module}")
    original = writer.write_image

    def write(path, pixels, *given, **how):
        cards = given[0] if given else how["keywords"]
        if any(name == "GAIN" for name, *_ in cards):
            raise TypeError("no such card")
        return original(path, pixels, *given, **how)

    monkeypatch.setattr(writer, "write_image", write)
    images = result.save(tmp_path / "out", fits=True)
    assert len(images) == 6 and "GAIN" not in Frame(images[0], quiet=True).keywords
    (report,) = (tmp_path / "out").glob("*_report.txt")
    words = " ".join(report.read_text(encoding="utf-8").split())
    assert "the frames are left out, as they cannot be written (TypeError: no such card)" in words
