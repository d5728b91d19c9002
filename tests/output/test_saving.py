"""Saving a result: file names, complete sets or nothing, and the content of the files."""

import datetime
import errno
import json
import os
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table
from xisf import XISF

import stacklib as sl
from stacklib.formats import fits as own_fits
from stacklib.formats import xisf
from stacklib.frames.headers import parse_date
from stacklib.output import naming, saving
from stacklib.simulate import Session, simulate_frames
from stacklib.utils import atomic_files, file_sets

WORLD = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 210.8, "CRVAL2": 54.3, "CRPIX1": 32.0,
    "CRPIX2": 20.0, "CDELT1": -0.001, "CDELT2": 0.001,
}  # fmt: skip
SESSION = Session(
    object_name="M 101",
    camera="ZWO ASI294MC Pro",
    filter="L",
    cards={"GAIN": (120, ""), "XPIXSZ": (4.63, "")} | {name: (value, "") for name, value in WORLD.items()},
)
RECIPE = sl.Recipe(rejection="winsorized_sigma", weights="none")
BASE = "20210815_M101_ZWOASI294"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Make a folder 4_Registered with eight small mono frames."""
    folder = tmp_path_factory.mktemp("M101") / "4_Registered"
    night = simulate_frames(8, 48, 64, 1, dither=3, hot_pixels=4, trails=1, session=SESSION, seed=3)
    night.save(folder)
    return folder


@pytest.fixture(scope="module")
def result(night):
    return sl.integrate(night, RECIPE, progress=False)


@pytest.fixture(scope="module")
def linear(night):
    """A result with a slope map."""
    return sl.integrate(night, RECIPE.replace(rejection="linear_fit"), progress=False)


def read_xisf(path):
    """Read pixels (channels, height, width) and metadata with the `xisf` package only."""
    file = XISF(str(path))
    return file.read_image(0).transpose(2, 0, 1), file.get_images_metadata()[0]


def keyword(metadata, name):
    return metadata["FITSKeywords"][name][0]["value"]


def history_of(metadata):
    return [entry["comment"] for entry in metadata["FITSKeywords"]["HISTORY"]]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ZWO ASI294MC Pro", "ZWOASI294"),
        ("ZWO ASI2600MM Pro", "ZWOASI2600"),
        ("ZWO ASI1600MM-Cool", "ZWOASI1600"),
        ("ZWO ASI120MM Mini", "ZWOASI120"),
        ("ZWO CCD ASI533MC Pro", "ZWOCCDASI533"),
        ("ASI178MM(0)", "ASI178"),
        ("ZWO ASI294MC Pro (1)", "ZWOASI294"),
        ("ZWO ASI533MM Pro Main", "ZWOASI533"),
        ("QSI 583ws", "QSI583ws"),
        ("QHY268C", "QHY268"),
        ("QHY5L-II-M", "QHY5L-II"),
        ("Poseidon-C Pro", "Poseidon"),
        ("Atik 460EX", "Atik460EX"),
        ("SBIG ST-8300M", "SBIGST-8300"),
        ("Canon EOS 6D Mark II", "CanonEOS6DMarkII"),
        ("Nikon D5300", "NikonD5300"),
        ("Main", "Main"),
        ("MC", "MC"),
        ("", ""),
        ("Kamera: Größe/2", "Kamera-Grosse-2"),
    ],
)
def test_camera_names(text, expected):
    assert naming.camera_name(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("M 101", "M101"),
        ("NGC 7000", "NGC7000"),
        ("Cave Nebula", "Cave-Nebula"),
        ("Stephan's Quintet", "Stephans-Quintet"),
        ("IC 1396 / VdB 142", "IC1396-VdB142"),
        ("Ångström ß", "Angstrom-ss"),
        ('<>:"/\\|?*', ""),
        ("../../etc", "etc"),
        ("M31.", "M31"),
        ("nul.txt", "nul-txt"),
        ("a" * 300, "a" * 48),
    ],
)
def test_object_names_are_safe_for_every_system(text, expected):
    assert naming.object_name(text) == expected


def frame_at(date, **keywords):
    return SimpleNamespace(date=parse_date(date), keywords=keywords, properties={}, object="", camera="")


@pytest.mark.parametrize(
    ("dates", "keywords", "expected"),
    [
        (["2021-08-15T21:10:00"], {}, "20210815"),
        (["2021-08-16T02:00:00", "2021-08-15T23:50:00"], {}, "20210815"),
        (["2021-08-16T02:00:00"], {}, "20210815"),
        (["2021-08-16T05:00:00"], {"SITELONG": -118.2}, "20210815"),
        (["2021-08-15T10:30:00"], {"SITELONG": "151 12 00"}, "20210815"),
        (["2021-08-15T10:30:00"], {"OBSGEO-L": 151.2}, "20210815"),
        (["2021-08-15T10:30:00"], {"SITELONG": "151,2"}, "20210815"),
        (["2021-08-15T10:30:00"], {"SITELONG": "151:12:00 E"}, "20210815"),
        (["2021-08-16T13:00:00"], {"SITELONG": "118 12 00 W"}, "20210815"),
        (["2021-08-16T13:00:00"], {"SITELONG": "-118:12:00,5"}, "20210815"),
        (["2021-08-16T13:00:00"], {}, "20210816"),
        (["2021-08-15T10:30:00"], {"DATE-LOC": "2021-08-15T20:30:00"}, "20210815"),
        (["2021-08-15T21:10:00"], {"SITELONG": "nonsense"}, "20210815"),
        (["2021-08-15T21:10:00"], {"DATE-LOC": "1999-01-01"}, "20210815"),
        (["", "2021-08-15T21:10:00"], {}, "20210815"),
        ([""], {}, ""),
    ],
)
def test_the_night_is_the_evening_of_the_earliest_frame(dates, keywords, expected):
    assert naming.night_of([frame_at(date, **keywords) for date in dates]) == expected


def test_silent_headers_have_words_in_their_place():
    frames = [frame_at("")]
    assert naming.base_name(frames) == "nodate_noobject_nocamera"
    assert naming.base_name(frames, "2024-01-02", "M 1", "My Cam") == "20240102_M-1_My-Cam"
    assert naming.base_name(frames, datetime.date(2024, 1, 2), "?", "*") == "20240102_noobject_nocamera"


def test_the_most_frequent_name_counts():
    assert naming.most_common(["a", "", "b", "b"]) == "b"
    assert naming.most_common(["a", "b"]) == "a"
    assert naming.most_common(["", ""]) == ""


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ([], 0),
        (["night_0000.xisf"], 1),
        (["NIGHT_0000_rejection_low.XISF"], 1),
        (["night_0001.xisf"], 0),
        (["night_0000_report.txt", "night_0001.fits"], 2),
        (["night_9999.xisf", "other_0000.xisf", "night_000.xisf", "night_0000"], 1),
    ],
)
def test_the_first_free_number(tmp_path, existing, expected):
    for name in existing:
        (tmp_path / name).touch()
    assert naming.free_number(tmp_path, "night") == expected


def test_frames_of_several_folders_get_the_results_inside_the_common_one(night, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    one, two, *_ = sorted(night.glob("*.xisf"))
    paths = [tmp_path / "first" / one.name, tmp_path / "second" / two.name]
    for path, source in zip(paths, (one, two), strict=True):
        path.write_bytes(source.read_bytes())
    assert naming.default_folder(sl.open_frames(paths)) == tmp_path / "5_Integration"
    assert naming.default_folder(sl.open_frames(night)) == night.parent / "5_Integration"


# sets of files -----------------------------------------------------------------------------------


def test_a_set_by_default(result, night):
    paths = result.save()
    folder = night.parent / "5_Integration"
    assert [path.name for path in paths] == [
        f"{BASE}_0000.xisf",
        f"{BASE}_0000_rejection_low.xisf",
        f"{BASE}_0000_rejection_high.xisf",
    ]
    assert {path.parent for path in paths} == {folder}
    assert list(result.saved.images) == paths
    assert result.saved.table.name == f"{BASE}_0000_frames.ecsv"
    assert result.saved.report.name == f"{BASE}_0000_report.txt"
    assert names_in(folder) == sorted(path.name for path in (*paths, result.saved.table, result.saved.report))


def test_a_second_set_has_the_next_number(result, tmp_path):
    first, second = result.save(tmp_path), result.save(tmp_path)
    assert second[0].name == f"{BASE}_0001.xisf"
    assert not {path.name for path in first} & {path.name for path in second}
    assert len(names_in(tmp_path)) == 10


def test_one_file_with_a_number_keeps_it_from_the_whole_set(result, tmp_path):
    leftover = tmp_path / f"{BASE}_0000_slope.fits"
    leftover.write_text("mine")
    assert result.save(tmp_path)[0].name == f"{BASE}_0001.xisf"
    assert leftover.read_text() == "mine"


def test_relative_folders_start_at_the_current_one(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = result.save("deep/results")
    assert paths[0].parent == tmp_path / "deep" / "results"


def test_all_names_can_be_given(result, tmp_path):
    paths = result.save(tmp_path, date="2020-02-02", object="Whale", camera="Box")
    assert paths[0].name == "20200202_Whale_Box_0000.xisf"
    # Headers take precedence over a given name.
    assert keyword(read_xisf(paths[0])[1], "OBJECT") == "M 101"
    assert naming.base_name([], date="0001-01-02") == "00010102_noobject_nocamera"


def test_maps_and_fits(linear, tmp_path):
    paths = linear.save(tmp_path, maps=True, fits=True)
    stems = ["", "_rejection_low", "_rejection_high", "_coverage", "_uncertainty", "_slope"]
    expected = [f"{BASE}_0000{stem}{ending}" for ending in (".xisf", ".fits") for stem in stems]
    assert [path.name for path in paths] == expected
    for path, name in zip(paths, ["image", *(stem[1:] for stem in stems[1:])] * 2, strict=True):
        stored = fits.getdata(path)[np.newaxis] if path.suffix == ".fits" else read_xisf(path)[0]
        np.testing.assert_array_equal(stored, np.nan_to_num(getattr(linear, name)), err_msg=path.name)


def test_no_slope_without_linear_fit(result, tmp_path):
    assert not [path for path in result.save(tmp_path, maps=True) if "slope" in path.name]


def test_two_at_once_share_no_number(result, tmp_path):
    everyone, found, errors = threading.Barrier(4), [], []

    def save():
        try:
            everyone.wait()
            found.append(saving.save(result, tmp_path).images)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(paths[0].name for paths in found) == [f"{BASE}_{number:04d}.xisf" for number in range(4)]
    assert len(names_in(tmp_path)) == 20
    for paths in found:
        report = paths[0].with_name(paths[0].stem + "_report.txt")
        assert paths[0].name in report.read_text()


@pytest.mark.parametrize("name", ["_report.txt", ".xisf", "_rejection_high.xisf"])
@pytest.mark.parametrize("links", [True, False])
def test_a_name_taken_at_the_last_moment(result, tmp_path, monkeypatch, name, links):
    """Another program takes one of the names after the free number was found."""
    rival = tmp_path / f"{BASE}_0000{name}"
    find = naming.free_number

    def free_number(*args):
        number = find(*args)
        if not rival.exists():
            rival.write_text("mine")
        return number

    monkeypatch.setattr(saving, "free_number", free_number)
    if not links:
        monkeypatch.setattr(atomic_files.os, "link", no_links)
    paths = result.save(tmp_path)
    assert paths[0].name == f"{BASE}_0001.xisf"
    assert rival.read_text() == "mine"
    assert len(names_in(tmp_path)) == 6
    np.testing.assert_array_equal(read_xisf(paths[0])[0], result.image)


def no_links(*args):
    raise OSError(errno.EPERM, "Operation not permitted")


# failures ----------------------------------------------------------------------------------------


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


FAILING = [
    (saving.xisf, "write_image"),
    (own_fits, "write_image"),
    (Table, "write"),
    (file_sets, "flush_to_disk"),
    (file_sets, "give_name"),
]


@pytest.mark.parametrize(("where", "name"), FAILING, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize(("failure", "error"), [(full_disk, sl.SaveError), (interrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("after", [0, 2])
def test_a_failure_leaves_nothing(result, tmp_path, monkeypatch, where, name, failure, error, after):
    if (name == "write") and after:
        pytest.skip("there is one table")
    original, calls = getattr(where, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        return failure() if len(calls) > after else original(*args, **kwargs)

    monkeypatch.setattr(where, name, failing)
    folder = tmp_path / "new" / "5_Integration"
    with pytest.raises(error) as caught:
        result.save(folder, fits=True)
    assert calls
    assert names_in(tmp_path) == []
    if error is sl.SaveError:
        assert str(folder) in str(caught.value)
        assert "No space left" in str(caught.value)
        assert "free space" in str(caught.value)
        assert ".stacklib-" not in str(caught.value)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY])
def test_a_share_without_fsync_or_links(result, tmp_path, monkeypatch, number, links):
    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_files.os, "fsync", refuse)
    if not links:
        monkeypatch.setattr(atomic_files.os, "link", no_links)
    saved = result.save(tmp_path)
    np.testing.assert_array_equal(read_xisf(saved[0])[0], result.image)
    assert len(names_in(tmp_path)) == 5


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_at_fsync(result, tmp_path, monkeypatch, number):
    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_files.os, "fsync", fail)
    with pytest.raises(sl.SaveError, match=os.strerror(number)):
        result.save(tmp_path / "new")
    assert names_in(tmp_path) == []


def test_a_failure_leaves_other_files_alone(result, tmp_path, monkeypatch):
    before = result.save(tmp_path)
    content = {path: path.read_bytes() for path in before}
    monkeypatch.setattr(file_sets, "flush_to_disk", full_disk)
    with pytest.raises(sl.SaveError):
        result.save(tmp_path)
    assert {path: path.read_bytes() for path in before} == content
    assert len(names_in(tmp_path)) == 5


def test_a_file_where_the_folder_should_be(result, tmp_path):
    (tmp_path / "results").write_text("a file")
    for folder in (tmp_path / "results", tmp_path / "results" / "deeper"):
        with pytest.raises(sl.SaveError, match="is a file; choose another folder"):
            result.save(folder)
    assert names_in(tmp_path) == ["results"]


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_what_no_folder_can_be_named(result, tmp_path, name):
    with pytest.raises(sl.SaveError, match="is not the name of a folder; choose another folder"):
        result.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(result, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(sl.SaveError, match="permissions"):
            result.save(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_no_permission(result, tmp_path, monkeypatch):
    """The same for root, who can write everywhere."""

    make = Path.mkdir

    def denied(path, *args, **kwargs):
        if path.name.startswith(".stacklib-"):
            raise PermissionError(errno.EACCES, "Permission denied")
        make(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(sl.SaveError, match=r"Permission denied.*choose another one"):
        result.save(tmp_path / "new")
    assert names_in(tmp_path) == []


# content -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("saved"))


def test_files_hold_exactly_the_arrays(result, saved):
    kinds = [
        ("integration", "MasterLight", result.image),
        ("rejection_low", "RejectionMapLow", result.rejection_low),
        ("rejection_high", "RejectionMapHigh", result.rejection_high),
    ]
    for path, (image_id, image_type, expected) in zip(saved, kinds, strict=True):
        pixels, metadata = read_xisf(path)
        assert pixels.dtype == np.float32
        np.testing.assert_array_equal(pixels, expected)
        assert metadata["id"] == image_id
        assert metadata["imageType"] == image_type
        np.testing.assert_array_equal(sl.Frame(path).read(), expected)


def test_keywords(result, saved):
    for path in saved:
        metadata = read_xisf(path)[1]
        values = {name: entries[0]["value"] for name, entries in metadata["FITSKeywords"].items()}
        assert values["NCOMBINE"] == "8"
        assert float(values["EXPTIME"]) == 8 * 180
        assert values["DATE-OBS"] == "2021-08-15T21:10:00.000"
        assert values["DATE-END"] == "2021-08-15T21:34:21.000"
        assert (values["OBJECT"], values["FILTER"]) == ("M 101", "L")
        assert values["INSTRUME"] == "ZWO ASI294MC Pro"
        assert (values["GAIN"], values["XPIXSZ"]) == ("120", "4.63")
        assert values["CTYPE1"] == "RA---TAN"
        assert [float(values[name]) for name in ("CRVAL1", "CRPIX2", "CDELT2")] == [210.8, 20, 0.001]
        assert "BAYERPAT" not in values and "NAXIS1" not in values


def test_properties(saved):
    found = {name: entry["value"] for name, entry in read_xisf(saved[0])[1]["XISFProperties"].items()}
    assert found["Observation:Object:Name"] == "M 101"
    assert found["Observation:Time:Start"] == "2021-08-15T21:10:00.000Z"
    assert found["Observation:Time:End"] == "2021-08-15T21:34:21.000Z"
    assert found["Instrument:Camera:Name"] == "ZWO ASI294MC Pro"
    assert found["Instrument:Filter:Name"] == "L"
    assert found["Instrument:ExposureTime"] == 1440
    assert found["Instrument:Telescope:Name"] == "Simulated telescope"
    assert found["Processing:History"].splitlines() == history_of(read_xisf(saved[0])[1])


def test_history_tells_every_parameter_and_frame(result, saved):
    lines = history_of(read_xisf(saved[0])[1])
    assert all(len(line) <= 72 and line.isascii() for line in lines)
    assert lines[0] == f"stacklib {sl.__version__}: integration of 8 of 8 frames"
    for name in sl.Recipe.parameters():
        assert any(line.startswith(f"{name} = ") for line in lines)
    assert "sigma_low = 3.2" in lines and "rejection rule: winsorized_sigma" in lines
    for number, frame in enumerate(result.preparation.frames):
        start = lines.index(f"frame {number + 1}: {frame.name}")
        block = "\n".join(lines[start : start + 8])
        assert f"sha256 {frame.checksum()}" in block
        assert f"weight {result.preparation.weights[number, 0]:.9g}" in block
        assert f"rejected high {result.counts[0].high[number]}" in block


def test_a_result_can_be_repeated_from_itself(result, saved):
    found = {name: entry["value"] for name, entry in read_xisf(saved[0])[1]["XISFProperties"].items()}
    recipe = sl.Recipe.from_dict(yaml.safe_load(found["stacklib:Recipe"]))
    run, frames = json.loads(found["stacklib:Run"]), json.loads(found["stacklib:Frames"])
    assert recipe == result.recipe
    assert run["rule"] == "winsorized_sigma"
    lights = sl.open_frames([frame["path"] for frame in frames])
    assert [light.checksum() for light in lights] == [frame["sha256"] for frame in frames]
    for light, frame in zip(lights, frames, strict=True):
        assert (saved[0].parent / frame["relative"]).resolve() == light.path.resolve()
    again = sl.integrate(lights, recipe, region=run["region"], progress=False)
    np.testing.assert_array_equal(again.image, read_xisf(saved[0])[0])
    assert [frame["factor"] for frame in frames] == result.preparation.factor.tolist()


def assert_same_numbers(table, result):
    """The table read back equals `result.frames`. ECSV masks empty strings."""
    assert table.colnames == [*result.frames.colnames, "sha256"]
    for name in result.frames.colnames:
        column = table[name].filled("") if name == "reason" else table[name]
        np.testing.assert_array_equal(np.asarray(column), np.asarray(result.frames[name]), err_msg=name)


def test_the_table_reads_back_equal(result, saved):
    table = Table.read(saved[0].with_name(saved[0].stem + "_frames.ecsv"))
    assert_same_numbers(table, result)
    assert str(table["exposure"].unit) == "s"
    assert list(table["sha256"]) == [frame.checksum() for frame in result.preparation.frames]
    assert sl.Recipe.from_dict(table.meta["recipe"]) == result.recipe
    assert "sha256" not in result.frames.colnames


def test_the_table_of_colour_frames_reads_back_equal(tmp_path):
    simulate_frames(6, 40, 48, 3, cloudy=0, trails=0).save(tmp_path / "in")
    result = sl.integrate(tmp_path / "in", RECIPE.replace(rejection="none"), progress=False)
    pixels, _ = read_xisf(result.save(tmp_path)[0])
    np.testing.assert_array_equal(pixels, result.image)
    assert_same_numbers(Table.read(result.saved.table), result)


def test_a_region_keeps_its_place(night, tmp_path):
    result = sl.integrate(night, RECIPE, region=(4, 6, 40, 32), progress=False)
    pixels, metadata = read_xisf(result.save(tmp_path)[0])
    assert pixels.shape == (1, 32, 40)
    # The frames have 48 rows, and 10 are below the region.
    assert [float(keyword(metadata, name)) for name in ("CRPIX1", "CRPIX2")] == [32 - 4, 20 - 10]
    assert "region: left 4, top 6, width 40, height 32" in history_of(metadata)


def write_fits_frames(folder: Path, scale: float, order: str = "TOP-DOWN", **cards):
    """Write six float FITS frames, brighter toward the last row."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    for number in range(6):
        image = scale * (0.1 + 0.05 * np.arange(32)[:, None] / 32 + random.normal(0, 0.002, (32, 40)))
        header = fits.Header({"ROWORDER": order, "OBJECT": "M 31", "EXPTIME": 60.0 + number} | cards)
        header["DATE-OBS"] = f"2021-08-15T23:{50 + number}:00"
        header["AIRMASS"] = 1.0 + number
        header["CCD-TEMP"] = -10.0 + 0.1 * number
        fits.writeto(folder / f"light_{number}.fits", image.astype(np.float32), header)
    return folder


def test_adu_becomes_0_to_1_in_xisf_and_stays_adu_in_fits(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 65535.0)
    result = sl.integrate(frames, RECIPE.replace(rejection="linear_fit"), progress=False)
    paths = {path.name.partition("_0000")[2]: path for path in result.save(maps=True, fits=True)}
    pixels, metadata = read_xisf(paths[".xisf"])
    np.testing.assert_array_equal(pixels, result.image / np.float32(65535))
    np.testing.assert_array_equal(fits.getdata(paths[".fits"]), result.image[0])
    assert "XISF: ADU divided by 65535" in history_of(metadata)
    assert "XISF" not in str(fits.getheader(paths[".fits"])["HISTORY"])
    uncertainty, _ = read_xisf(paths["_uncertainty.xisf"])
    np.testing.assert_allclose(uncertainty, np.nan_to_num(result.uncertainty) / 65535, rtol=1e-6)
    slope, _ = read_xisf(paths["_slope.xisf"])
    steps = np.tan(result.slope.astype(float) * np.pi / 4) / 65535
    np.testing.assert_allclose(slope, np.arctan(steps) / (np.pi / 4), rtol=1e-5)
    assert "ADU, full scale 65535; divided by it in XISF files" in result.saved.report.read_text()


@pytest.mark.parametrize("bits", [32, 64])
def test_counts_of_many_bits_become_a_master_like_those_of_16_bits(tmp_path, bits):
    rng = np.random.default_rng(4)
    folder = tmp_path / "4_Registered"
    folder.mkdir()
    for number in range(6):
        counts = np.rint(6500 + 40 * rng.standard_normal((32, 40)))
        fits.writeto(
            folder / f"light_{number}.fits", counts.astype(f"i{bits // 8}"), fits.Header({"EXPTIME": 60.0})
        )
    with pytest.warns(sl.StacklibWarning, match=f"{bits}-bit integers hold counts"):
        result = sl.integrate(folder, RECIPE.replace(rejection="linear_fit"), progress=False)
    paths = {path.name.partition("_0000")[2]: path for path in result.save(maps=True, fits=True)}
    counts = result.image * (2.0**32 - 1)
    assert np.median(counts) == pytest.approx(6500, rel=0.01)
    pixels, metadata = read_xisf(paths[".xisf"])
    np.testing.assert_allclose(pixels, counts / 65535, rtol=1e-6)
    assert "XISF: ADU divided by 65535" in history_of(metadata)
    np.testing.assert_allclose(fits.getdata(paths[".fits"]), counts[0], rtol=1e-6)
    np.testing.assert_allclose(
        fits.getdata(paths["_uncertainty.fits"]), result.uncertainty[0] * (2.0**32 - 1), rtol=1e-6
    )
    assert "ADU, full scale 65535" in result.saved.report.read_text()


@pytest.mark.parametrize("scale", [1.0, 65535.0])
def test_a_few_hot_samples_do_not_blacken_the_master(tmp_path, scale):
    folder = write_fits_frames(tmp_path / "4_Registered", scale)
    for path in folder.glob("*.fits"):
        with fits.open(path, mode="update") as units:
            units[0].data[5, 6:8] = 3e5 * scale, -2e4 * scale
    recipe = RECIPE.replace(rejection="none", range_clip_low=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sl.integrate(folder, recipe, progress=False)
        result.save()
    notes = " ".join(str(one.message) for one in caught)
    assert "2 values lie far outside all others" in notes
    assert ("read as 0 to 1" in notes) == (scale == 1)
    pixels, metadata = read_xisf(result.saved.images[0])
    assert 0.09 < np.median(pixels) < 0.16
    assert (pixels[0, 5, 6], pixels[0, 5, 7]) == (1, 0)
    assert any("2 values outside 0 to 1 were clipped" in line for line in history_of(metadata))


def test_a_bright_image_is_darkened_with_a_warning(tmp_path):
    folder = write_fits_frames(tmp_path / "4_Registered", 1.0)
    ramp = np.geomspace(0.2, 30, 10)
    for path in folder.glob("*.fits"):
        with fits.open(path, mode="update") as units:
            units[0].data.reshape(-1)[300:310] = ramp
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = sl.integrate(folder, RECIPE.replace(rejection="none"), progress=False)
    assert any("multiplied by 0.033" in str(one.message) for one in caught)
    assert result.truncated == 0 and result.image.max() == 1


@pytest.mark.parametrize(("how", "words"), [("rescale", "rescaled as x"), ("truncate", "were clipped")])
def test_adu_beyond_16_bits_is_brought_in_as_the_recipe_says(tmp_path, how, words):
    frames = write_fits_frames(tmp_path / "4_Registered", 600000.0)
    result = sl.integrate(frames, RECIPE.replace(output_range=how), progress=False)
    pixels, metadata = read_xisf(result.save()[0])
    assert pixels.max() == 1 and pixels.min() >= 0
    assert any(words in line for line in history_of(metadata))
    assert words in result.saved.report.read_text()
    scaled = result.image / np.float32(65535)
    expected = scaled / scaled.max() if how == "rescale" else np.clip(scaled, 0, 1)
    np.testing.assert_allclose(pixels, expected, rtol=1e-6)


@pytest.mark.parametrize("silent", [0, 3])
def test_a_frame_that_does_not_tell_its_rows_follows_the_others(tmp_path, silent):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, "BOTTOM-UP")
    with fits.open(frames / f"light_{silent}.fits", mode="update") as units:
        del units[0].header["ROWORDER"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        result = sl.integrate(frames, RECIPE, progress=False)
    xisf_path, *_, fits_path, _, _ = result.save(fits=True)
    np.testing.assert_array_equal(read_xisf(xisf_path)[0], result.image[:, ::-1])
    assert fits.getheader(fits_path)["ROWORDER"] == "TOP-DOWN"


def test_frames_with_the_bottom_row_first_are_turned_over(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, "BOTTOM-UP", **WORLD)
    result = sl.integrate(frames, RECIPE, progress=False)
    xisf_path, *_, fits_path, _, _ = result.save(fits=True)
    pixels, metadata = read_xisf(xisf_path)
    np.testing.assert_array_equal(pixels, result.image[:, ::-1])
    assert pixels[0, 0].mean() > pixels[0, -1].mean()
    np.testing.assert_array_equal(fits.getdata(fits_path), pixels[0])
    header = fits.getheader(fits_path)
    assert header["ROWORDER"] == "TOP-DOWN"
    assert (header["CRVAL2"], header["CRPIX2"], header["CDELT2"]) == (54.3, 32 + 1 - 20, -0.001)
    assert [float(keyword(metadata, name)) for name in ("CRPIX2", "CDELT2")] == [20, 0.001]
    assert any("rows flipped" in line for line in history_of(metadata))


def test_rows_of_unknown_order_stay_unknown(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, "", **WORLD)
    result = sl.integrate(frames, RECIPE, progress=False)
    path = result.save(fits=True)[3]
    np.testing.assert_array_equal(fits.getdata(path), result.image[0])
    assert "ROWORDER" not in fits.getheader(path)
    assert fits.getheader(path)["CRPIX2"] == 20


def test_what_fits_cannot_hold_is_told_and_costs_nothing(tmp_path, monkeypatch):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, GAIN=100)
    result = sl.integrate(frames, RECIPE, progress=False)
    original = fits.Card.__str__

    def fail(card):
        if card.keyword == "GAIN":
            raise ValueError("too long")
        return original(card)

    monkeypatch.setattr(fits.Card, "__str__", fail)
    paths = result.save(fits=True)
    assert len(paths) == 6
    assert "GAIN" not in fits.getheader(paths[3])
    assert keyword(read_xisf(paths[0])[1], "GAIN") == "100"
    assert "FITS: keyword GAIN is left out (too long)" in result.saved.report.read_text()


def test_keywords_of_single_frames_are_named(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, FWHM=2.5, HISTORY="calibrated")
    report = sl.integrate(frames, RECIPE, progress=False).report()
    assert "Keywords of single frames are left out: FWHM, AIRMASS, HISTORY." in " ".join(report.split())


def test_properties_of_single_frames_are_named(tmp_path):
    folder = tmp_path / "4_Registered"
    folder.mkdir()
    random = np.random.default_rng(5)
    for number in range(6):
        properties = {
            "Instrument:Telescope:Name": "Refractor",
            "Instrument:Sensor:Temperature": -10.0 - number,
            "Instrument:ExposureTime": 60.0,
            "PCL:Noise/0": 0.002,
        }
        image = random.normal(0.1, 0.002, (32, 40)).astype(np.float32)
        xisf.write_image(folder / f"{number}.xisf", image, image_id="a", properties=properties)
    result = sl.integrate(folder, RECIPE, progress=False)
    words = "XISF properties of single frames are left out: Instrument:Sensor:Temperature, PCL:Noise/0."
    assert words in " ".join(result.report().split())
    found = read_xisf(result.save()[0])[1]["XISFProperties"]
    assert found["Instrument:Telescope:Name"]["value"] == "Refractor"
    assert "Instrument:Sensor:Temperature" not in found


def test_world_coordinates_that_disagree_are_told(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, **WORLD)
    with fits.open(frames / "light_3.fits", mode="update") as file:
        file[0].header["CRVAL1"] = 210.9
    result = sl.integrate(frames, RECIPE.replace(reference="light_3.fits"), progress=False)
    xisf_path, *_, fits_path, _, _ = result.save(fits=True)
    assert fits.getheader(fits_path)["CRVAL1"] == 210.9
    assert float(keyword(read_xisf(xisf_path)[1], "CRVAL1")) == 210.9
    words = "those of the reference frame, but the frames disagree by up to 58 pixels"
    assert words in " ".join(" ".join(fits.getheader(fits_path)["HISTORY"]).split())
    assert words in " ".join(result.saved.report.read_text().split())


def test_notes_on_headers_are_in_the_report(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, GAIN="High")
    with pytest.warns(sl.StacklibWarning, match="GAIN is 'High'"):
        result = sl.integrate(frames, RECIPE, progress=False)
    report = " ".join(result.report().split())
    assert "light_0.fits, light_1.fits, light_2.fits and 3 more: GAIN is 'High', expected a number" in report


def test_images_beside_the_frames_are_named(tmp_path):
    folder = write_fits_frames(tmp_path / "4_Registered", 1.0)
    chosen = [folder / f"light_{number}.fits" for number in (0, 2, 3, 5)]
    report = " ".join(sl.integrate(chosen, RECIPE, progress=False).report().split())
    assert f"{folder} (2 images there are not among these frames: light_1.fits, light_4.fits)" in report
    result = sl.integrate(folder, RECIPE, progress=False)
    assert "among these frames" not in result.report()
    folder.rename(tmp_path / "moved")
    assert "among these frames" not in result.report()


def test_frames_without_a_date_are_named(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0)
    with fits.open(frames / "light_3.fits", mode="update") as file:
        del file[0].header["DATE-OBS"]
    result = sl.integrate(frames, RECIPE, progress=False)
    words = "Frames without a date, which DATE-OBS and DATE-END do not include: light_3.fits."
    assert words in " ".join(result.report().split())


def test_what_differs_is_told_and_not_carried_over(tmp_path):
    frames = write_fits_frames(tmp_path / "4_Registered", 1.0, GAIN=100, OBSERVER="J. Doe")
    with fits.open(frames / "light_3.fits", mode="update") as file:
        file[0].header["GAIN"] = 200
    with pytest.warns(
        sl.StacklibWarning, match=r"differ in gain \(100 in 5, 200 in 1\); fine if you meant it"
    ):
        result = sl.integrate(frames, RECIPE, progress=False)
    header = fits.getheader(result.save(fits=True)[3])
    assert header["OBSERVER"] == "J. Doe"
    assert header["NCOMBINE"] == 6 and header["EXPTIME"] == 6 * 60 + 15
    assert header["DATE-OBS"] == "2021-08-15T23:50:00.000"
    assert header["DATE-END"] == "2021-08-15T23:56:05.000"
    assert "GAIN" not in header and "CCD-TEMP" not in header and "AIRMASS" not in header
    text = " ".join(header["HISTORY"])
    assert "GAIN differs: 100 (5 frames), 200 (1 frame)" in text
    assert "CCD-TEMP differs: -10 to -9.5" in text
    assert "AIRMASS" not in text
    assert "GAIN: 100 (5 frames), 200 (1 frame)" in result.saved.report.read_text()


def test_frames_that_are_gone_have_no_checksum(night, tmp_path):
    copies = tmp_path / "4_Registered"
    copies.mkdir()
    for path in night.glob("*.xisf"):
        (copies / path.name).write_bytes(path.read_bytes())
    result = sl.integrate(copies, RECIPE, progress=False)
    gone, changed, *_ = sorted(copies.glob("*.xisf"))
    gone.unlink()
    with changed.open("ab") as stream:
        stream.write(b"more")
    metadata = read_xisf(result.save()[0])[1]
    lines = history_of(metadata)
    assert sum("sha256 unknown: the file is missing or has changed" in line for line in lines) == 2
    records = json.loads(metadata["XISFProperties"]["stacklib:Frames"]["value"])
    assert [record["sha256"] == "" for record in records] == [True, True] + [False] * 6
    report = " ".join(result.saved.report.read_text(encoding="utf-8").split())
    assert "2 of 8 frames were gone or changed when the result was saved" in report
    assert f"cannot be repeated: {gone.name}, {changed.name}" in report


def test_names_that_are_not_ascii_survive(night, tmp_path):
    folder = tmp_path / "Ängström 星雲" / "4_Registered"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(night.glob("*.xisf"))):
        (folder / f"Aufnahme_Öl_{number}.xisf").write_bytes(path.read_bytes())
    result = sl.integrate(folder, RECIPE.replace(reference="Aufnahme_Öl_2.xisf"), progress=False)
    paths = result.save()
    metadata = read_xisf(paths[0])[1]
    records = json.loads(metadata["XISFProperties"]["stacklib:Frames"]["value"])
    assert [Path(record["path"]) for record in records] == [f.path for f in result.preparation.frames]
    recipe = yaml.safe_load(metadata["XISFProperties"]["stacklib:Recipe"]["value"])
    assert recipe["reference"] == "Aufnahme_Öl_2.xisf"
    assert all(line.isascii() and len(line) <= 72 for line in history_of(metadata))


def test_two_channels_are_refused(result, tmp_path):
    stack = SimpleNamespace(**vars(result))
    stack.image = np.zeros((2, 4, 4), np.float32)
    with pytest.raises(sl.SaveError, match="2 channels, expected 1 or 3"):
        saving.save(stack, tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_have_the_permissions_of_usual_ones(tmp_path):
    (tmp_path / "usual").touch()
    atomic_files.replace_atomically(tmp_path / "replaced", b"content")
    with atomic_files.new_file(tmp_path / "new") as temporary:
        temporary.write_bytes(b"content")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
