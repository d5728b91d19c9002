"""Frames and frame sets: finding files, header values, and frames that do not match."""

import hashlib
import os
import pickle
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.errors import FrameError, StacklibWarning
from stacklib.formats import fits, xisf
from stacklib.frames.frame_set import Frame, FrameSet, open_frames, resolve_path
from stacklib.frames.headers import parse_date

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def save(path, shape=(1, 4, 6), value=0.5, keywords=(), properties=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full(shape, value, np.float32)
    if path.suffix.lower() == ".xisf":
        return xisf.write_image(path, image, image_id="light", keywords=keywords, properties=properties)
    return fits.write_image(path, image, keywords)


def names(frames):
    return [frame.name for frame in frames]


# Finding ---------------------------------------------------------------------------------------------


def test_a_folder_gives_natural_order(tmp_path):
    for name in ("frame_10.xisf", "frame_2.xisf", "Frame_1.XISF", ".hidden.xisf", "frame_3.fits"):
        save(tmp_path / name)
    save(tmp_path / "deeper" / "frame_0.xisf")
    (tmp_path / "notes.txt").write_text("clear night")
    (tmp_path / "folder.fits").mkdir()
    with pytest.warns(StacklibWarning, match=r"not looked into: deeper \(1 image\)"):
        frames = open_frames(tmp_path)
    assert names(frames) == ["Frame_1.XISF", "frame_2.xisf", "frame_3.fits", "frame_10.xisf"]


def test_registered_frames_come_first(tmp_path):
    for name in ("a_c_d_r.xisf", "b_C_D_R.XISF", "a_c_d.xisf", "master.xisf", "c_c_d_r.fits"):
        save(tmp_path / name)
    with pytest.warns(StacklibWarning, match="3 of 5 images are used"):
        assert names(open_frames(tmp_path)) == ["a_c_d_r.xisf", "b_C_D_R.XISF", "c_c_d_r.fits"]


def test_patterns_files_and_lists(tmp_path):
    for name in ("r_1.xisf", "r_10.xisf", "r_2.xisf", "g_1.xisf"):
        save(tmp_path / name)
    (tmp_path / "r_1.txt").write_text("")
    assert names(open_frames(str(tmp_path / "r_*"))) == ["r_1.xisf", "r_2.xisf", "r_10.xisf"]
    assert names(open_frames(tmp_path / "g_1.xisf")) == ["g_1.xisf"]
    frames = open_frames([tmp_path / "r_2.xisf", str(tmp_path / "g_1.xisf"), Frame(tmp_path / "r_1.xisf")])
    assert names(frames) == ["r_2.xisf", "g_1.xisf", "r_1.xisf"]
    assert names(open_frames(frames)) == names(frames)


def test_a_name_with_brackets_is_a_file_first(tmp_path):
    path = save(tmp_path / "M31 [Ha]" / "light_c_d_r.xisf")
    assert names(open_frames(tmp_path / "M31 [Ha]")) == [path.name]
    assert names(open_frames(path)) == [path.name]


def test_relative_paths_are_looked_for_upwards(tmp_path, monkeypatch):
    save(tmp_path / "sample" / "a.xisf")
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert resolve_path("sample") == tmp_path / "sample"
    assert resolve_path("sample/*.xisf") == tmp_path / "sample" / "*.xisf"
    assert resolve_path("nowhere") == tmp_path / "notebooks" / "deep" / "nowhere"
    assert resolve_path(tmp_path / "x") == tmp_path / "x"
    assert resolve_path("~/x") == Path.home() / "x"
    assert names(open_frames("sample")) == ["a.xisf"]
    assert names(open_frames("sample/*.xisf")) == ["a.xisf"]
    save(tmp_path / "notebooks" / "deep" / "sample" / "b.xisf")
    assert names(open_frames("sample")) == ["b.xisf"]


@pytest.mark.parametrize("ending", [".xisf", ".fits", ".FIT", ".fts"])
def test_endings(tmp_path, ending):
    save(tmp_path / f"a{ending}")
    assert len(open_frames(tmp_path)) == 1


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("none", "none: no such folder or file"),
        ("none.xisf", r"none\.xisf: no such file"),
        ("*.xisf", "no image matches"),
        ("", "is empty"),
        ([], "list of frames is empty"),
        (".", r"contains no images; endings looked for: \.xisf"),
        ("notes.txt", r"notes\.txt: is not a supported image"),
        ("fake.xisf", r"fake\.xisf: signature is"),
        ("fake.fits", r"fake\.fits: starts with"),
        ("bad\0name", "bad"),
    ],
)
def test_nothing_usable(tmp_path, monkeypatch, where, message):
    monkeypatch.chdir(tmp_path)
    if not isinstance(where, list) and where.startswith(("fake", "notes")):
        (tmp_path / where).write_text("not an image at all")
    with pytest.raises(FrameError, match=message):
        open_frames(where)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user without all rights")
def test_no_permission(tmp_path):
    path = save(tmp_path / "a.xisf")
    path.chmod(0)
    with pytest.raises(FrameError, match=r"a\.xisf: no permission"):
        open_frames(tmp_path)


def test_permission_error_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.xisf")

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FrameError, match=r"a\.xisf: no permission to read it"):
        open_frames(path)


def test_duplicates_are_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.xisf")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FrameError, match=r"a\.xisf: is listed 2 times"):
        open_frames([path, "a.xisf"])


def test_other_spellings_of_a_path_are_the_same_file(tmp_path):
    (tmp_path / "lights").mkdir()
    path = save(tmp_path / "lights" / "a.xisf")
    with pytest.raises(FrameError, match=r"a\.xisf: is listed 2 times"):
        FrameSet([Frame(path), Frame(tmp_path / "lights" / ".." / "lights" / "a.xisf")])
    (tmp_path / "elsewhere").symlink_to(tmp_path / "lights")
    with pytest.raises(FrameError, match=r"a\.xisf: is listed 2 times"):
        FrameSet([Frame(path), Frame(tmp_path / "elsewhere" / "a.xisf")])


def test_the_first_error_is_told_and_the_others_counted(tmp_path):
    save(tmp_path / "1.xisf")
    for name in ("2.xisf", "3.fits"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(FrameError, match=r"2\.xisf: signature .* \(1 more of the 3 files cannot be used\)"):
        open_frames(tmp_path)


# Sets ------------------------------------------------------------------------------------------------


def test_one_geometry_per_set(tmp_path):
    for number in range(14):
        save(tmp_path / f"good_{number}.xisf")
    for number in range(12):
        save(tmp_path / f"odd_{number}.xisf", (1, 4, 7 + number))
    with pytest.raises(FrameError) as error:
        open_frames(tmp_path)
    text = str(error.value)
    assert "14 of 26 have 6 x 4 pixels" in text
    assert "odd_0.xisf (7 x 4 pixels)" in text
    assert "and 2 more" in text
    assert "good" not in text


def test_one_number_of_channels_per_set(tmp_path):
    save(tmp_path / "a.xisf")
    save(tmp_path / "b.xisf")
    save(tmp_path / "c.xisf", (3, 4, 6))
    with pytest.raises(FrameError, match=r"2 of 3 have 1 channel\(s\), but not c\.xisf"):
        open_frames(tmp_path)


def test_row_orders_are_not_mixed(tmp_path):
    save(tmp_path / "a.xisf")
    content = save(tmp_path / "b.fits").read_bytes()
    assert len(open_frames(tmp_path)) == 2
    (tmp_path / "b.fits").write_bytes(content.replace(b"'TOP-DOWN'", b"'BOTTOMUP'"))
    with pytest.warns(StacklibWarning) as caught:
        open_frames(tmp_path)
    assert [str(warning.message)[:21] for warning in caught] == [
        "b.fits: ROWORDER is '",
        "b.fits: no ROWORDER i",
    ]
    (tmp_path / "b.fits").write_bytes(content.replace(b"'TOP-DOWN' ", b"'BOTTOM-UP'"))
    with pytest.raises(FrameError, match="rows"):
        open_frames(tmp_path)


def test_selecting(tmp_path):
    for number in range(5):
        save(tmp_path / f"{number}.xisf")
    frames = open_frames(tmp_path)
    assert frames[1].name == "1.xisf"
    assert frames[-1].name == "4.xisf"
    assert frames[np.int64(2)].name == "2.xisf"
    assert names(frames[1:3]) == ["1.xisf", "2.xisf"]
    assert names(frames[[3, 0]]) == ["3.xisf", "0.xisf"]
    assert names(frames[np.array([True, False, False, True, False])]) == ["0.xisf", "3.xisf"]
    assert names(frames[[True, False, False, False, True]]) == ["0.xisf", "4.xisf"]
    assert isinstance(frames[:1], FrameSet)
    assert frames[2] in frames
    with pytest.raises(IndexError):
        frames[5]
    with pytest.raises(IndexError):
        frames[[True, False]]
    for nothing in (slice(0, 0), [], np.zeros(5, bool)):
        with pytest.raises(FrameError, match="no frames are selected"):
            frames[nothing]
    with pytest.raises(FrameError, match="listed 2 times"):
        frames[[1, 1]]


HEADER = [
    ("OBJECT", "M 101", ""), ("FILTER", "L", ""), ("EXPTIME", 300.0, ""), ("GAIN", 120, ""),
    ("CCD-TEMP", -10.0, ""),     ("INSTRUME", "ZWO ASI294MC Pro", ""),
    ("DATE-OBS", "2021-08-15T23:30:00-0700", ""),
    ("DATE-END", "2021-08-16T06:35:00", ""), ("NOISE00", 1.5e-4, ""),
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.xisf", "a.fits"])
def test_headers(tmp_path, name):
    frame = Frame(save(tmp_path / name, keywords=[*HEADER, ("BAYERPAT", "RGGB", "")]))
    assert frame.shape == (1, 4, 6)
    assert (frame.sample_format, frame.integer, frame.full_scale, frame.quantization_step) == (
        "f32",
        False,
        1,
        0,
    )
    assert (frame.object, frame.filter, frame.camera) == ("M 101", "L", "ZWO ASI294MC Pro")
    assert (frame.exposure, frame.gain, frame.temperature) == (300, 120, -10)
    assert frame.date == datetime(2021, 8, 16, 6, 30, tzinfo=UTC)
    assert frame.date.tzinfo is UTC
    assert frame.date_end == datetime(2021, 8, 16, 6, 35, tzinfo=UTC)
    assert frame.cfa_pattern == "RGGB"
    assert frame.noise_keywords == [1.5e-4]


def test_properties_come_before_keywords(tmp_path):
    properties = {
        "Observation:Object:Name": "NGC 5457",
        "Observation:Time:Start": ("TimePoint", "2020-01-02T03:04:05.678Z"),
        "Instrument:Camera:Name": "QHY268",
        "Instrument:Filter:Name": "Ha",
        "Instrument:ExposureTime": 600.0,
        "Instrument:Camera:Gain": 0.8,
        "Instrument:Sensor:Temperature": -20.0,
    }
    frame = Frame(save(tmp_path / "a.xisf", keywords=HEADER, properties=properties), quiet=True)
    assert (frame.object, frame.filter, frame.camera) == ("NGC 5457", "Ha", "QHY268")
    assert (frame.exposure, frame.gain, frame.temperature) == (600, 0.8, -20)
    assert frame.date == datetime(2020, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def test_a_silent_header_gives_masked_cells(tmp_path):
    save(tmp_path / "a.xisf", keywords=HEADER)
    save(
        tmp_path / "b.xisf",
        keywords=[("EXPTIME", "long", ""), ("DATE-OBS", "yesterday", ""), ("GAIN", "High", "")],
    )
    with pytest.warns(StacklibWarning) as caught:
        frames = open_frames(tmp_path)
    assert [str(warning.message).partition(",")[0] for warning in caught] == [
        "b.xisf: EXPTIME is 'long'",
        "b.xisf: GAIN is 'High'",
        "b.xisf: DATE-OBS is 'yesterday'",
    ]
    silent = frames[1]
    assert (silent.exposure, silent.date, silent.gain, silent.temperature, silent.noise_keywords) == (
        None,
    ) * 5
    assert (silent.object, silent.filter, silent.camera, silent.cfa_pattern) == ("",) * 4
    table = frames.table
    assert len(table) == 2
    assert table["file"].tolist() == ["a.xisf", "b.xisf"]
    assert table["exposure"].tolist() == [300, None]
    assert table["date"][0] == "2021-08-16T06:30:00"
    for column in ("object", "filter", "exposure", "date", "camera", "gain", "temperature"):
        assert table[column].mask.tolist() == [False, True]
    assert table["format"].tolist() == ["f32", "f32"]


def test_noise_needs_every_channel(tmp_path):
    keywords = [("NOISE00", 1e-4, ""), ("NOISE01", 2e-4, "")]
    assert Frame(save(tmp_path / "a.xisf", (3, 4, 6), keywords=keywords)).noise_keywords is None
    keywords.append(("NOISE02", 3e-4, ""))
    assert Frame(save(tmp_path / "b.xisf", (3, 4, 6), keywords=keywords)).noise_keywords == [1e-4, 2e-4, 3e-4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-01-01T02:03:04-07:00", datetime(2019, 1, 1, 9, 3, 4, tzinfo=UTC)),
        ("2019-01-01T02:03:04Z", datetime(2019, 1, 1, 2, 3, 4, tzinfo=UTC)),
        ("2019-01-01T02:03:04.1234567", datetime(2019, 1, 1, 2, 3, 4, 123456, tzinfo=UTC)),
        ("2019-01-01 02:03:04", datetime(2019, 1, 1, 2, 3, 4, tzinfo=UTC)),
        ("2019-01-01", datetime(2019, 1, 1, tzinfo=UTC)),
        ("15/08/97", datetime(1997, 8, 15, tzinfo=UTC)),
        ("2019-13-01", None),
        ("0001-01-01T00:00:00+10:00", None),
        ("", None),
        (None, None),
        (2458000.5, None),
        *[
            (text, datetime(2024, 1, 5, 22, 10, tzinfo=UTC))
            for text in (
                "2024-01-05T22:10:00", "2024/01/05T22:10:00", "2024/01/05 22:10:00", "2024-1-5 22:10",
                "2024:01:05 22:10:00", "2024-01-05T22-10-00", "20240105T221000", "2024.01.05 22:10:00",
                "05.01.2024 22:10:00", "5.1.2024 22:10", "2024-01-05_22:10:00", "2024-01-05 22:10:00 UTC",
                "2024-01-05T22:10:00UT", "2024-01-05T22:10:00 GMT", "2024-01-05T22:10:00,0",
                "5 Jan 2024 22:10:00", "05-Jan-2024 22:10:00", "January 5, 2024 10:10:00 PM",
                "2024-Jan-05 22:10:00", "Fri Jan  5 22:10:00 2024", "Fri, 5 Jan 2024 22:10:00 +0000",
                "2024/01/05 23:10:00+01:00", "2024/01/05 14:10:00 -0800", "2024-01-05T22:09:60",
            )
        ],
        ("05/01/24", datetime(2024, 1, 5, tzinfo=UTC)),
        ("25/01/2024", datetime(2024, 1, 25, tzinfo=UTC)),
        ("01/25/2024 02:03:04", datetime(2024, 1, 25, 2, 3, 4, tzinfo=UTC)),
        ("03/03/2024", datetime(2024, 3, 3, tzinfo=UTC)),
        ("2024-01-05T24:00:00", datetime(2024, 1, 6, tzinfo=UTC)),
        ("2024/01/05 22:10:00,25", datetime(2024, 1, 5, 22, 10, 0, 250000, tzinfo=UTC)),
        ("12:00 AM", None),
        ("5 Jan 2024 12:30 AM", datetime(2024, 1, 5, 0, 30, tzinfo=UTC)),
        # Day and month may be either way around.
        ("05/01/2024", None),
        ("05-01-2024 22:10:00", None),
        ("2024/13/01", None),
        ("2024-01-05T22:61:00x", None),
        ("5 Foo 2024", None),
        ("22:10:00", None),
    ],
)  # fmt: skip
def test_dates(text, expected):
    assert parse_date(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("0123456789-/.:T ,+ZJanpmUTC"), max_size=24))
def test_any_text_is_a_date_or_none(text):
    date = parse_date(text)
    assert date is None or date.tzinfo is UTC


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
def test_a_date_in_many_forms(date):
    date = date.replace(microsecond=0)
    day, clock = (date.day, date.month, date.year), f"{date:%H:%M:%S}"
    forms = ["{2}/{1}/{0} {3}", "{0}.{1}.{2} {3}", "{2}-{1:02}-{0:02}T{3}.000Z", "{2}:{1:02}:{0:02} {3}"]
    for form in [*forms, f"{{0}} {date:%b} {{2}} {{3}}"]:
        assert parse_date(form.format(*day, clock)) == date.replace(tzinfo=UTC)


@pytest.mark.parametrize("day", ["2005-01-02", "02/01/05", "2005/01/02"])
@pytest.mark.parametrize("name", ["TIME-OBS", "UT-OBS"])
def test_date_and_time_in_two_keywords(tmp_path, day, name):
    keywords = [("DATE-OBS", day, ""), (name, "03:04:05", "")]
    assert Frame(save(tmp_path / "a.fits", keywords=keywords)).date == datetime(
        2005, 1, 2, 3, 4, 5, tzinfo=UTC
    )


@pytest.mark.parametrize("ending", [".xisf", ".fits"])
@pytest.mark.parametrize(
    ("cards", "exposure", "notes"),
    [
        ({"EXPTIME": "30.0    "}, 30, []),
        ({"EXPTIME": "30,5"}, 30.5, []),
        ({"EXPTIME": "30 s"}, 30, []),
        ({"EXPTIME": "0,0"}, 0, []),
        ({"EXPTIME": "1,5E+02 seconds"}, 150, []),
        ({"EXPTIME": "1/60"}, None, ["EXPTIME is '1/60'"]),
        ({"EXPTIME": -1.0}, None, ["EXPTIME is '-1.0'"]),
        ({"EXPTIME": -1.0, "EXPOSURE": 30}, 30, ["EXPTIME is '-1.0'"]),
        ({"EXPTIME": 0.0, "EXPOSURE": 30.0}, 30, ["EXPTIME is 0"]),
        ({"EXPTIME": 0.0}, 0, []),
        ({"EXPTIME": "", "EXPOSURE": 30.0}, 30, []),
        ({"EXPTIME": 30.0, "EXPOSURE": 30.1}, 30, []),
        ({"EXPTIME": 30.0, "EXPOSURE": 3000}, 30, ["exposure times disagree (EXPTIME 30"]),
    ],
)
def test_exposures_of_all_kinds(tmp_path, ending, cards, exposure, notes):
    path = save(tmp_path / f"a{ending}", keywords=[(name, value, "") for name, value in cards.items()])
    frame = Frame(path, quiet=True)
    assert frame.exposure == exposure
    assert [note.partition(",")[0].partition(";")[0] for note in frame.notes] == notes


def test_a_property_and_a_keyword_that_disagree_are_told(tmp_path):
    properties = {"Instrument:ExposureTime": 120.0}
    for seconds, notes in ((120.5, []), (60.0, [
        "exposure times disagree (Instrument:ExposureTime 120, EXPTIME 60); 120 s is used"
    ])):  # fmt: skip
        path = tmp_path / f"{seconds}.xisf"
        frame = Frame(save(path, keywords=[("EXPTIME", seconds, "")], properties=properties), quiet=True)
        assert (frame.exposure, frame.notes) == (120.0, notes)


def test_decimal_commas_in_texts(tmp_path):
    keywords = [("GAIN", "1,25", ""), ("CCD-TEMP", "-10,5 C", ""), ("DATE-OBS", "05.01.2024 22:10:00,5", "")]
    frame = Frame(save(tmp_path / "a.fits", keywords=keywords))
    assert (frame.gain, frame.temperature) == (1.25, -10.5)
    assert frame.date == datetime(2024, 1, 5, 22, 10, 0, 500000, tzinfo=UTC)
    assert frame.notes == []


def test_the_modified_julian_date_serves_without_a_date(tmp_path):
    frame = Frame(save(tmp_path / "a.fits", keywords=[("MJD-OBS", 60314.5, "")]))
    assert frame.date == datetime(2024, 1, 5, 12, tzinfo=UTC)
    keywords = [("MJD-OBS", 60314.5, ""), ("DATE-OBS", "2024-01-05T13:00:00", "")]
    assert Frame(save(tmp_path / "b.fits", keywords=keywords)).date.hour == 13


def test_a_time_of_day_that_cannot_be_read_is_said(tmp_path):
    date, clock = ("DATE-OBS", "2024-01-05", ""), ("TIME-OBS", "ten past nine", "")
    frame = Frame(save(tmp_path / "a.fits", keywords=[date, clock]), quiet=True)
    assert frame.date == datetime(2024, 1, 5, tzinfo=UTC)
    assert frame.notes == [
        "TIME-OBS is 'ten past nine', expected a time such as 21:10:05; midnight is taken as the start"
    ]
    # It is not looked at where the date has a time of its own.
    whole = ("DATE-OBS", "2024-01-05T13:00:00", "")
    assert Frame(save(tmp_path / "b.fits", keywords=[whole, clock])).notes == []


def test_repr_and_folder(tmp_path):
    save(tmp_path / "one" / "a.xisf", keywords=HEADER)
    save(tmp_path / "two" / "a.xisf", keywords=HEADER)
    frames = open_frames([tmp_path / "two", tmp_path / "one"])
    assert frames.folder == tmp_path
    assert frames.names == ["two/a.xisf", "one/a.xisf"]
    assert frames.table["file"].tolist() == frames.names
    assert repr(frames) == f"<FrameSet of 2 frames: 6 x 4, 1 channel, f32, M 101, L, 600 s total; {tmp_path}>"
    assert repr(frames[0]) == "<Frame a.xisf: 6 x 4, 1 channel, f32>"
    assert frames[:1].folder == tmp_path / "two"
    assert frames.shape == (1, 4, 6)


def test_many_files_share_one_warning(tmp_path):
    for number in range(6):
        content = save(tmp_path / f"{number}.fits", keywords=[("EXPTIME", 12345.5, "")]).read_bytes()
        # The same note, but for the value.
        (tmp_path / f"{number}.fits").write_bytes(content.replace(b"12345.5", b"12345s%d" % number))
    with pytest.warns(StacklibWarning) as caught:
        frames = open_frames(tmp_path)
    (warning,) = caught
    assert str(warning.message).startswith(
        "0.fits, 1.fits, 2.fits and 3 more: card EXPTIME has an invalid value '12345s0'"
    )
    assert frames[0].exposure is None


# Reading ---------------------------------------------------------------------------------------------


@pytest.fixture
def rgb(tmp_path):
    image = np.random.default_rng(1).random((3, 9, 5), np.float32)
    return Frame(xisf.write_image(tmp_path / "rgb.xisf", image, image_id="light")), image


def test_reading(rgb):
    frame, image = rgb
    np.testing.assert_array_equal(frame.read(), image)
    np.testing.assert_array_equal(frame.read(rows=slice(2, 5)), image[:, 2:5])
    np.testing.assert_array_equal(frame.read(rows=slice(-3, None), channel=1), image[1, -3:])
    np.testing.assert_array_equal(frame.read(channel=-1), image[-1])
    assert frame.read(rows=slice(5, 2), channel=0).shape == (0, 5)
    out = np.empty((4, 5), np.float32)
    assert frame.read_rows(1, 5, 2, out) is out
    np.testing.assert_array_equal(out, image[2, 1:5])
    with pytest.raises(ValueError, match="without a step"):
        frame.read(rows=slice(0, 5, 2))
    with pytest.raises(IndexError):
        frame.read(channel=3)


def test_frames_travel(rgb):
    frame, image = rgb
    frames = FrameSet([frame])
    copy = pickle.loads(pickle.dumps(frames))
    assert copy[0].path == frame.path
    np.testing.assert_array_equal(copy[0].read(), image)
    copy = pickle.loads(pickle.dumps(frame))
    frame.path.write_bytes(b"something else")
    with pytest.raises(FrameError, match="has changed since"):
        copy.read()


def test_many_threads_read_one_frame(tmp_path):
    image = np.random.default_rng(1).random((1, 400, 300), np.float32)
    path = xisf.write_image(
        tmp_path / "a.xisf", np.zeros_like(image) + image.round(1), image_id="x", compress=True
    )
    frame, expected, wrong = Frame(path), image.round(1), []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(50):
            start = int(random.integers(0, 390))
            if not np.array_equal(frame.read_rows(start, start + 10, 0), expected[0, start : start + 10]):
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts handles in /proc")
def test_no_handles_are_kept(tmp_path):
    for number in range(30):
        save(tmp_path / f"{number}.xisf")
    before = len(list(Path("/proc/self/fd").iterdir()))
    frames = open_frames(tmp_path)
    for frame in frames:
        frame.read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    frames.close()


def test_checksum(tmp_path):
    path = tmp_path / "a.xisf"
    frame = Frame(save(path))
    assert frame.checksum() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert frame.checksum("sha1") == hashlib.sha1(path.read_bytes()).hexdigest()


# Real frames -----------------------------------------------------------------------------------------


def test_real_set_of_forty():
    if not (DATA / "hatp32_reg40").is_dir():
        pytest.skip("hatp32_reg40 is not here")
    frames = open_frames(DATA / "hatp32_reg40")
    assert (len(frames), frames.channels, frames.height, frames.width) == (40, 1, 476, 552)
    assert frames[0].date == datetime(2017, 12, 20, 3, 48, 12, 280000, tzinfo=UTC)
    assert frames[0].sample_format == "i16"
    assert frames[0].quantization_step == 1 / 65535
    assert set(frames.table["exposure"]) == {60.0}


def test_real_mosaic_and_darks():
    for name, count in (("m94_seestar_cfa_reg32", 32), ("calib_qsi583_dark10", 10)):
        if not (DATA / name).is_dir():
            pytest.skip(f"{name} is not here")
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            frames = open_frames(DATA / name)
        assert len(frames) == count
        assert frames[0].sample_format == "u16"
        (note,) = (str(note.message) for note in notes)
        mosaic = "all frames have one channel and a Bayer pattern"
        assert note.startswith(mosaic if name.startswith("m94") else "no light frames: DARK_3x3")
    assert frames[0].temperature == -5.3
