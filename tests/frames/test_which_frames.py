"""Which images of a folder are frames to integrate: what is left out, and the word about it."""

from __future__ import annotations

import gzip
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stacklib as sl
from stacklib.errors import FrameError, StacklibWarning
from stacklib.formats import fits, xisf
from stacklib.frames import finding
from stacklib.frames.finding import find_images, natural_order, stem_of
from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import as_pattern, open_frames, used_files
from stacklib.frames.registered import OTHER_STAGE, UNREGISTERED, name_reasons
from stacklib.recipe.choices import job_with_choices


def light(path: Path, seed: int = 0, shape=(1, 24, 32), properties=None, **cards) -> Path:
    """A small frame of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).normal(0.1, 0.01, shape).astype(np.float32)
    keywords = [(name.replace("__", "-"), value, "") for name, value in cards.items()]
    if path.suffix == ".xisf":
        return xisf.write_image(path, image, image_id="light", keywords=keywords, properties=properties)
    return fits.write_image(path, image, keywords)


def lights(folder: Path, names: str, **cards) -> None:
    for seed, name in enumerate(names.split()):
        light(folder / name, seed, **cards)


def opened(where) -> tuple[list[str], str]:
    """The names of the frames, and all notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = open_frames(where)
    assert all(note.category is StacklibWarning for note in caught)
    assert [str(note.message) for note in caught] == list(frames.notes)
    return frames.names, "\n".join(frames.notes)


# names -------------------------------------------------------------------------------------------


def used(*stems: str) -> set[str]:
    return {stem for stem, reason in zip(stems, name_reasons(stems), strict=True) if not reason}


@pytest.mark.parametrize(
    "registered",
    [
        *("L_01_c_d_r", "L_01_c_cc_d_r", "L_01_c_r", "L_01_d_r", "L_01_c_cc_r", "L_01_a_r", "L_01_C_D_R"),
        *(
            "L_01_c_lps_d_r",
            "L_01_c_d_r_a",
            "L_01_c_d_r_n",
            "M31_R_c_r",
            "L_01.reg",
            "L_01_reg",
            "L_01-registered",
        ),
        *("L_01_aligned", "aligned_L_01", "registered_L_01", "r_pp_light_00001", "bkg_r_pp_light_00001"),
        *("r_bkg_pp_light_00001", "r_cc_light_1"),
    ],
)
def test_names_of_registered_frames(registered):
    others = ("L_02_c_d", "M31_R_c_d", "L_03", "pp_dusk_00001", "master", "NGC_R_001", "r", "r_1")
    assert used(registered, *others) == {registered}


@pytest.mark.parametrize(
    "stems",
    [
        ("L_001", "R_001", "G_001", "B_001"),
        ("l_001", "r_001", "g_001", "b_001"),
        ("M31_L", "M31_R", "M31_r"),
        ("M31_001_r", "M31_001_g"),
        ("r_light_00001", "result_480s"),
        ("flarestar_a", "vega_c", "reg"),
        ("a_c_d_r", "b_c_d_r"),
        ("a_c_d_r", "b_c_cc_d_r", "r_pp_c_001"),
        (),
    ],
)
def test_names_that_say_nothing_are_all_used(stems):
    assert used(*stems) == set(stems)


def test_only_the_registered_sequence_of_siril_counts():
    sequences = ("light_", "pp_light_", "r_pp_light_", "pp_flat_stacked", "dark_")
    stems = [f"{name}{number:05d}" for name in sequences for number in range(1, 4)]
    assert used(*stems) == {f"r_pp_light_{number:05d}" for number in range(1, 4)}
    assert used("light_1", "light_2", "r_light_1") == {"r_light_1"}
    # One sequence without doubt confirms the other.
    two = ("Ha_pp_light_1", "r_Ha_pp_light_1", "r_OIII_pp_light_1")
    assert used(*two) == set(two[1:])


def test_single_letter_counts_beside_the_frame_before_it():
    assert used("a_r", "a", "b_r", "c") == {"a_r", "b_r"}


def test_one_stage_of_each_frame():
    assert used("r_pp_light_1", "bkg_r_pp_light_1", "pp_light_1") == {"bkg_r_pp_light_1"}
    stems = ("a_c_d_r", "a_c_cc_d_r", "b_c_cc_d_r", "c_c_d_r", "d_c_cc_d_r")
    assert used(*stems) == {"a_c_cc_d_r", "b_c_cc_d_r", "c_c_d_r", "d_c_cc_d_r"}
    assert name_reasons(stems)[0] == OTHER_STAGE
    # The stage of most frames, although it has fewer steps.
    assert used("a_c_d_r", "a_c_cc_d_r", "b_c_d_r", "c_c_d_r") == {"a_c_d_r", "b_c_d_r", "c_c_d_r"}


STEMS = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "r_", "pp_", "r_pp_", "bkg_r_", "aligned_"]),
        st.sampled_from(["light_1", "light_2", "a", "R", "r"]),
        st.sampled_from(["", "_r", "_R", "_c_d", "_c_d_r", "_c_cc_r", ".reg"]),
    ),
    unique=True,
)


@given(STEMS)
def test_something_is_always_used_whatever_the_order(stems):
    reasons = dict(zip(stems, name_reasons(stems), strict=True))
    assert set(reasons.values()) <= {"", UNREGISTERED, OTHER_STAGE}
    assert not stems or "" in reasons.values()
    # Among the frames used alone, nothing is unregistered.
    left = [stem for stem, reason in reasons.items() if not reason]
    assert UNREGISTERED not in name_reasons(left) or any(stem.endswith("_r") or "r_" in stem for stem in left)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.fits", "a"), ("a.b.FITS.gz", "a.b"), ("a.fit.fz", "a"), ("a.xisf", "a"), ("a.txt", "a.txt")],
)
def test_stems(name, stem):
    assert stem_of(Path(name)) == stem


# folders -----------------------------------------------------------------------------------------


def test_what_a_folder_leaves_out_is_said(tmp_path):
    lights(tmp_path, "a_c_d_r.fits b_c_cc_d_r.xisf a_c_cc_d_r.fits c.fits d.fits e.fits f.fits")
    names, notes = opened(tmp_path)
    assert names == ["a_c_cc_d_r.fits", "b_c_cc_d_r.xisf"]
    assert "2 of 7 images are used, such as a_c_cc_d_r.fits" in notes and str(tmp_path) in notes
    assert "c.fits, d.fits, e.fits and 1 more (not registered" in notes
    assert "a_c_d_r.fits (other stages" in notes and "Give a pattern or a list" in notes


def test_the_names_the_user_gives_are_used_with_a_word(tmp_path):
    lights(tmp_path, "light_1.fit light_2.fit r_pp_light_1.fit r_pp_light_2.fit")
    pattern = str(tmp_path / "*light_*.fit")
    for where in (pattern, sorted(tmp_path.glob("*.fit"))):
        names, notes = opened(where)
        assert len(names) == 4
        assert "2 of the 4 files named do not belong to the others: light_1.fit, light_2.fit" in notes
    assert opened(str(tmp_path / "light_*.fit")) == (["light_1.fit", "light_2.fit"], "")


def test_frames_of_other_programs_are_all_used_without_a_word(tmp_path):
    lights(tmp_path, "reg_001.fits reg_002.fits reg_003.fits")
    assert opened(tmp_path) == (["reg_001.fits", "reg_002.fits", "reg_003.fits"], "")


def test_the_only_folder_with_images_is_taken(tmp_path):
    inner = tmp_path / "registered" / "Light_BIN-1_EXPOSURE-300.00s_FILTER-L_mono"
    lights(inner, "a_c_r.xisf b_c_r.xisf c_c.xisf")
    (tmp_path / "registered" / "empty").mkdir()
    (tmp_path / "registered" / "list.txt").write_text("")
    names, notes = opened(tmp_path / "registered")
    assert names == ["a_c_r.xisf", "b_c_r.xisf"]
    assert f"contains no images itself; those in {inner.name} are used" in notes and "2 of 3 images" in notes
    lights(tmp_path / "registered" / "Light_FILTER-R", "a_c_r.xisf")
    with pytest.raises(
        FrameError, match=r"name one of its folders: Light_BIN.* \(3 images\), Light_FILTER-R \(1"
    ):
        open_frames(tmp_path / "registered")
    with pytest.raises(FrameError, match="contains no images; endings looked for"):
        find_images(tmp_path / "registered", below=False)


def test_folders_of_results_are_not_taken_for_frames(tmp_path):
    lights(tmp_path / "M31" / "5_Integration", "a.fits b.fits")
    with pytest.raises(FrameError, match="contains no images; endings looked for"):
        open_frames(tmp_path / "M31")


def test_images_in_folders_among_registered_frames_are_named(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    lights(folder, "a.fits b.fits")
    lights(folder / "Ha", "a.fits b.fits c.fits")
    lights(folder / "5_Integration", "a.fits")
    lights(folder / ".trash", "a.fits")
    (folder / "lists").mkdir()
    for where in (folder, tmp_path / "M31"):
        names, notes = opened(where)
        assert names == ["a.fits", "b.fits"]
        assert f"{folder}: the folder in it is not looked into: Ha (3 images)" in notes
    assert opened(folder / "Ha")[1] == "" and find_images(folder, below=False).notes == ()


def test_pictures_that_are_not_read_are_named(tmp_path):
    for name in ("a.CR2", "b.cr2", "c.tif", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        FrameError, match=r"It holds 3 with the ending \.cr2 or \.tif: save them as XISF or FITS"
    ):
        open_frames(tmp_path)


@pytest.mark.parametrize("where", ["", "*"])
def test_pictures_beside_the_frames_that_are_not_read_are_told(tmp_path, where):
    lights(tmp_path, "a.fits b.fits")
    for name in ("a.CR2", "c.cr2", "d.TIF", "e.png", "notes.txt", "._f.tif", "b.fits.bz2"):
        (tmp_path / name).write_bytes(b"x")
    names, notes = opened(str(tmp_path / where))
    assert names == ["a.fits", "b.fits"]
    assert "2 files are left out, as the format is not read: c.cr2, d.TIF; save" in notes
    (tmp_path / "c.cr2").unlink()
    assert "1 file is left out, as the format is not read: d.TIF" in opened(str(tmp_path / where))[1]
    (tmp_path / "d.TIF").rename(tmp_path / "a.1.FITS.BZ2")
    assert "1 file is left out, as the format is not read: a.1.FITS.BZ2" in opened(str(tmp_path / where))[1]
    (tmp_path / "a.1.FITS.BZ2").unlink()
    assert opened(str(tmp_path / where)) == (["a.fits", "b.fits"], "")


def test_folders_inside_that_are_not_looked_into_are_told(tmp_path, monkeypatch):
    lights(tmp_path, "a.fits b.fits night_2/c.fits night_2/d.fits night_10/e.fits .hidden/f.fits")
    (tmp_path / "empty").mkdir()
    names, notes = opened(tmp_path)
    assert names == ["a.fits", "b.fits"]
    assert "the folders in it are not looked into: night_2 (2 images), night_10 (1 image); name one" in notes
    assert find_images(tmp_path, below=False).notes == ()
    shutil.rmtree(tmp_path / "night_10")
    assert "the folder in it is not looked into: night_2 (2 images); name it" in opened(tmp_path)[1]
    shutil.rmtree(tmp_path / "night_2")
    assert opened(tmp_path) == (["a.fits", "b.fits"], "")


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    lights(tmp_path, "night_1/a.fits night_1/b.fits night_2/c.fits")

    def closed(folder: Path, images=finding._images) -> list[Path]:
        if folder.name == "night_2":
            raise PermissionError(13, "Permission denied", str(folder))
        return images(folder)

    monkeypatch.setattr(finding, "_images", closed)
    names, notes = opened(tmp_path)
    assert names == ["a.fits", "b.fits"]
    assert "those in night_1 are used; night_2 may not be read" in notes
    lights(tmp_path, "f.fits g.fits")
    assert "night_1 (2 images), night_2 (may not be read)" in opened(tmp_path)[1]
    shutil.rmtree(tmp_path / "night_1")
    for name in ("f.fits", "g.fits"):
        (tmp_path / name).unlink()
    with pytest.raises(FrameError, match=r"contains no images; .*; night_2 may not be read"):
        open_frames(tmp_path)


# masters, maps, calibration frames ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cards", "words"),
    [
        ("master.fits", {"IMAGETYP": "Master Light"}, "a master (IMAGETYP 'Master Light')"),
        ("x.fits", {"IMAGETYP": "MASTERLIGHT"}, "a master"),
        ("x.fits", {"IMAGETYP": "Integration"}, "a master"),
        ("x.fits", {"STACKCNT": 8, "IMAGETYP": "Light"}, "a stack (STACKCNT 8)"),
        ("x.xisf", {"NCOMBINE": 20.0}, "a stack (NCOMBINE 20)"),
        ("x.fits", {"IMAGETYP": "Dark Frame"}, "a dark frame (IMAGETYP 'Dark Frame')"),
        ("x.fits", {"IMAGETYP": "DARK"}, "a dark frame"),
        ("x.fits", {"FRAME": "Flat"}, "a flat frame (FRAME 'Flat')"),
        ("x.fits", {"IMAGETYP": "sky flat"}, "a flat frame"),
        ("x.xisf", {"IMAGETYP": "Bias Frame"}, "a bias"),
        ("x.fits", {"IMAGETYP": "zero"}, "a bias"),
        ("x.fits", {"SWMODIFY": "stacklib 0.1"}, "a result of stacklib"),
        ("integration.xisf", {}, "a master, going by the name"),
        ("masterLight_BIN-1.xisf", {}, "a master, going by the name"),
        ("Autosave001.fits", {}, "a master, going by the name"),
        ("r_light_stacked.fit", {}, "a master, going by the name"),
        ("result_480s.fit", {}, "a master, going by the name"),
        ("Bias_ASI_001.fits", {}, "a bias, going by the name"),
        ("Stacked_120_M 94_10.0s.fits", {}, "a master, going by the name"),
        ("dark_001.fits", {}, "a dark frame, going by the name"),
        ("Flat-12.fits", {}, "a flat frame, going by the name"),
    ],
)
def test_what_is_no_light_frame_is_left_out_with_a_word(tmp_path, name, cards, words):
    lights(tmp_path, "f_1.fits f_2.fits f_3.fits")
    light(tmp_path / name, 9, **cards)
    for where in (tmp_path, str(tmp_path / "*.*")):
        names, notes = opened(where)
        assert names == ["f_1.fits", "f_2.fits", "f_3.fits"]
        assert notes.startswith("1 of 4 images are left out, as they are not light frames") and words in notes
        assert name in notes


@pytest.mark.parametrize(
    ("name", "cards"),
    [
        ("f_4.fits", {"IMAGETYP": "Light Frame"}),
        ("f_4.fits", {"IMAGETYP": "object"}),
        ("f_4.fits", {"IMAGETYP": "something else", "FRAME": 12}),
        ("f_4.fits", {"NCOMBINE": 1, "STACKCNT": 0}),
        ("f_4.fits", {"STACKCNT": "many"}),
        ("f_4.fits", {"NCOMBINE": True}),
        ("dark_nebula_4.fits", {}),
        ("dark_4.fits", {"IMAGETYP": "Light"}),
        ("flatiron.fits", {}),
        ("stackenblochen_1.fits", {}),
        ("resulting.fits", {}),
        ("f_4.fits", {"SWMODIFY": "Siril 1.2"}),
    ],
)
def test_what_may_be_a_light_frame_is_used(tmp_path, name, cards):
    lights(tmp_path, "f_1.fits f_2.fits f_3.fits")
    light(tmp_path / name, 9, **cards)
    names, notes = opened(tmp_path)
    assert name in names and len(names) == 4 and not notes


@pytest.mark.parametrize("cards", [{"IMAGETYP": "Master Light"}, {"STACKCNT": 12}])
def test_a_set_of_one_kind_is_used_as_it_is(tmp_path, cards):
    lights(tmp_path, "a.fits b.fits c.fits", **cards)
    assert opened(tmp_path) == (["a.fits", "b.fits", "c.fits"], "")


def test_calibration_frames_without_a_light_frame_are_used_with_a_word(tmp_path):
    lights(tmp_path, "a.fits b.fits c.fits", IMAGETYP="Dark")
    names, notes = opened(tmp_path)
    assert names == ["a.fits", "b.fits", "c.fits"]
    assert "no light frames: a.fits, b.fits, c.fits (a dark frame (IMAGETYP 'Dark')); all are used" in notes
    light(tmp_path / "flat_1.fits", 9, IMAGETYP="Flat")
    names, notes = opened(tmp_path)
    assert len(names) == 4 and "flat_1.fits (a flat frame" in notes


def test_frames_that_the_camera_stacked_are_not_masters(tmp_path):
    lights(tmp_path, "a.fits b.fits c.fits", STACKCNT=6)
    light(tmp_path / "d.fits", 7, STACKCNT=1)
    assert opened(tmp_path) == (["a.fits", "b.fits", "c.fits", "d.fits"], "")


def test_what_a_list_names(tmp_path):
    lights(tmp_path, "f_1.fits f_2.fits")
    master = light(tmp_path / "m.fits", 7, IMAGETYP="Master Light")
    names, notes = opened(sorted(tmp_path.glob("*.fits")))
    assert names == ["f_1.fits", "f_2.fits", "m.fits"]
    assert "m.fits (a master (IMAGETYP 'Master Light')): used among 2 light frames, as named" in notes
    assert opened(master) == (["m.fits"], "")
    light(tmp_path / "m.fits.old.fits", 8, IMAGETYP="Dark")
    with pytest.raises(
        FrameError, match=r"m\.fits\.old\.fits: is a dark frame .* among 2 light frames; take it"
    ):
        open_frames(sorted(tmp_path.glob("*.fits")))


def test_results_of_a_run_are_left_out_of_the_next(tmp_path):
    lights(tmp_path, "f_1.fits f_2.fits f_3.fits", EXPTIME=60.0)
    for name, properties in (
        ("r_0000.xisf", {"stacklib:Run": ("String", "{}")}),
        ("r_rejection_low.xisf", None),
    ):
        light(tmp_path / name, 9, properties=properties, SWMODIFY="stacklib 0.1", IMAGETYP="Master Light")
    names, notes = opened(tmp_path)
    assert names == ["f_1.fits", "f_2.fits", "f_3.fits"]
    assert "r_0000.xisf, r_rejection_low.xisf (a result of stacklib)" in notes
    with pytest.raises(FrameError, match=r"r_rejection_low\.xisf: is a map of stacklib among 3 light frames"):
        open_frames(sorted(tmp_path.iterdir()))


# the same frame twice ----------------------------------------------------------------------------


def gzipped(source: Path, target: Path, level: int = 6) -> Path:
    target.write_bytes(gzip.compress(source.read_bytes(), level))
    return target


TWINS = {
    "a link": lambda one, folder: (folder / "z.fits").symlink_to(one),
    "a hard link": lambda one, folder: os.link(one, folder / "z.fits"),
    "a copy": lambda one, folder: shutil.copy(one, folder / "z.fits"),
    "a copy before it": lambda one, folder: shutil.copy(one, folder / "f_1 (2).fits"),
    "a compressed copy": lambda one, folder: gzipped(one, folder / "f_1.fits.gz"),
    "a compressed copy of another name": lambda one, folder: gzipped(one, folder / "a.fits.gz"),
    "two compressed copies": lambda one, folder: [
        gzipped(one, folder / f"a{level}.fits.gz", level) for level in (1, 9)
    ],
    "another format": lambda one, folder: xisf.write_image(
        folder / "f_1.xisf", Frame(one).read() * 0.9, image_id="x", keywords=[("DATE-OBS", "2024-01-01", "")]
    ),
}


@pytest.mark.parametrize("kind", TWINS)
def test_the_same_frame_counts_once(tmp_path, kind):
    lights(tmp_path, "f_1.fits f_2.fits f_3.fits")
    TWINS[kind](tmp_path / "f_1.fits", tmp_path)
    for where in (tmp_path, sorted(tmp_path.iterdir())):
        names, notes = opened(where)
        expected = "f_1.xisf" if kind == "another format" else "f_1.fits"
        assert names == [expected, "f_2.fits", "f_3.fits"]
        count = 2 if kind.startswith("two") else 1
        assert f"{count} of {3 + count} files are left out, as they hold the same frame as another" in notes
        assert f"({expected})" in notes


def test_a_file_listed_twice_counts_once(tmp_path):
    lights(tmp_path, "f_1.fits f_2.fits")
    names, notes = opened([tmp_path, tmp_path / "f_1.fits", str(tmp_path / "f_*.fits")])
    assert names == ["f_1.fits", "f_2.fits"] and "3 of 5 files are left out" in notes


def test_copies_in_another_folder_are_named_with_it(tmp_path):
    lights(tmp_path / "one", "f_1.fits f_2.fits")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    names, notes = opened([tmp_path / "one", tmp_path / "two"])
    assert names == ["f_1.fits", "f_2.fits"] and "two/f_1.fits (one/f_1.fits)" in notes


def test_frames_that_only_look_alike_are_all_used(tmp_path):
    lights(tmp_path, "f_1.fits f_2.fits f_3.fits")
    content = (tmp_path / "f_1.fits").read_bytes()
    # One pixel differs.
    (tmp_path / "f_4.fits").write_bytes(content[:2880] + bytes([content[2880] ^ 1]) + content[2881:])
    # The same name and another night.
    (tmp_path / "n").mkdir()
    light(tmp_path / "f_2.xisf", 5, DATE__OBS="2024-01-02T00:00:00")
    light(tmp_path / "f_5.xisf", 6, DATE__OBS="2024-01-02T00:00:00")
    light(tmp_path / "f_5.fits", 6, DATE__OBS="2024-01-03T00:00:00")
    names, notes = opened(tmp_path)
    assert "f_4.fits" in names and "f_1.fits" in names and "f_5.xisf" in names and "f_5.fits" in names
    assert "f_2.fits (f_2.xisf)" in notes and len(names) == 6


def test_flat_frames_of_one_value_are_not_compared(tmp_path):
    for number in range(4):
        fits.write_image(tmp_path / f"{number}.fits", np.full((8, 8), 0.5, np.float32))
    assert len(opened(tmp_path)[0]) == 4


def test_copies_alone_are_used_with_a_word(tmp_path):
    light(tmp_path / "f_1.fits")
    for number in range(2, 5):
        shutil.copy(tmp_path / "f_1.fits", tmp_path / f"f_{number}.fits")
    names, notes = opened(tmp_path)
    assert len(names) == 4 and notes.startswith("the 4 files hold the same frame: f_1.fits, f_2.fits")


def test_everything_leaves_out_nothing(tmp_path):
    lights(tmp_path, "a_c_d_r.fits b.fits")
    shutil.copy(tmp_path / "b.fits", tmp_path / "c.fits")
    light(tmp_path / "d.fits", 7, IMAGETYP="Dark")
    for where in (tmp_path, str(tmp_path / "*.fits"), sorted(tmp_path.iterdir())):
        frames = open_frames(where, everything=True)
        assert len(frames) == 4 and not frames.notes


def test_pixels_are_read_only_where_headers_agree(tmp_path, monkeypatch):
    for number in range(5):
        light(tmp_path / f"f_{number}.fits", 0, DATE__OBS=f"2024-01-01T00:00:0{number}")
    monkeypatch.setattr(Frame, "read", lambda *args, **kwargs: pytest.fail("pixels were read"))
    assert len(opened(tmp_path)[0]) == 5


# frames that differ ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"FILTER": "L"}, {"FILTER": "R"}, "filter (L in 2, R in 1); one image of all mixes different light"),
        ({"OBJECT": "M 31"}, {"OBJECT": "M33"}, "target (M 31 in 2, M33 in 1)"),
        ({"EXPTIME": 60.0}, {"EXPTIME": 300.0}, "exposure (60 s in 2, 300 s in 1); fine if you meant it"),
        ({"GAIN": 100}, {"GAIN": 0}, "gain (100 in 2, 0 in 1); fine if you meant it"),
        ({"INSTRUME": "A"}, {"INSTRUME": "B"}, "camera (A in 2, B in 1)"),
        (
            {"FILTER": "L", "GAIN": 1},
            {"FILTER": "R", "GAIN": 2},
            "filter (L in 2, R in 1), gain (1 in 2, 2 in 1)",
        ),
    ],
)
def test_frames_that_differ_are_told_before_the_run(tmp_path, one, other, words):
    folder = tmp_path / "M31" / "4_Registered"
    lights(folder, "a.fits b.fits", **one)
    light(folder / "c.fits", 5, **other)
    names, notes = opened(folder)
    assert len(names) == 3 and words in notes
    assert (
        notes.count("the frames differ") == 1 and "give a pattern or a list of files for each kind" in notes
    )
    splits = not {"FILTER", "OBJECT", "EXPTIME"}.isdisjoint(one)
    assert (f"stacklib batch {tmp_path / 'M31'} integrates each kind" in notes) == splits


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"OBJECT": "M 31"}, {"OBJECT": "m31"}),
        ({"FILTER": "L"}, {}),
        ({"EXPTIME": 60.0}, {"EXPTIME": 65.0}),
        ({"EXPTIME": 60.0}, {}),
        ({"GAIN": 100}, {"GAIN": 100.0}),
        ({"CCD-TEMP": -10.0}, {"CCD-TEMP": -9.5}),
    ],
)
def test_small_differences_are_not_told(tmp_path, one, other):
    lights(tmp_path, "a.fits b.fits", **one)
    light(tmp_path / "c.fits", 5, **other)
    assert opened(tmp_path)[1] == ""


def test_a_frame_without_a_filter_is_counted_if_the_others_differ(tmp_path):
    light(tmp_path / "a.fits", 1, FILTER="L")
    light(tmp_path / "b.fits", 2, FILTER="R")
    light(tmp_path / "c.fits", 3)
    assert "filter (L in 1, R in 1, unknown in 1)" in opened(tmp_path)[1]


# mosaics -----------------------------------------------------------------------------------------


def test_frames_that_were_not_debayered_are_told(tmp_path):
    lights(tmp_path / "one", "a.fits b.fits", BAYERPAT="RGGB")
    assert opened(tmp_path / "one")[1].startswith(
        "all frames have one channel and a Bayer pattern (RGGB): they were not debayered, and the image will "
        "be a gray mosaic, with the pattern in its header. For color, debayer the frames"
    )
    light(tmp_path / "two" / "a.xisf", 1, properties={"PCL:CFASourcePattern": ("String", "GBRG")})
    light(tmp_path / "two" / "b.xisf", 2)
    assert "1 of 2 frames have one channel and a Bayer pattern (GBRG)" in opened(tmp_path / "two")[1]
    lights(tmp_path / "three", "a.fits b.fits", BAYERPAT="RGGB")
    light(tmp_path / "three" / "c.fits", 7, BAYERPAT="RGGB", XBAYROFF=1)
    assert "(RGGB in 2; RGGB, offset 1, 0 in 1)" in opened(tmp_path / "three")[1]
    lights(tmp_path / "flats", "a.fits b.fits", BAYERPAT="RGGB", IMAGETYP="Flat")
    assert "Bayer" not in opened(tmp_path / "flats")[1]
    lights(tmp_path / "color", "a.fits b.fits", BAYERPAT="RGGB", shape=(3, 24, 32))
    assert opened(tmp_path / "color")[1] == ""


# sets and jobs -----------------------------------------------------------------------------------


def test_a_selection_keeps_what_was_said_when_it_was_opened(tmp_path):
    lights(tmp_path, "a_c_d_r.fits b_c_d_r.fits c.fits")
    light(tmp_path / "d_c_d_r.fits", 8, FILTER="R")
    light(tmp_path / "e_c_d_r.fits", 9, FILTER="L")
    with pytest.warns(StacklibWarning):
        frames = open_frames(tmp_path)
    assert len(frames.notes) == 2 and open_frames(frames) is frames
    # Its own frames have no two filters.
    assert frames[:3].notes == frames.notes[:1]


def test_notes_stand_in_the_report(tmp_path):
    lights(tmp_path, "a_c_d_r.fits b_c_d_r.fits c.fits", EXPTIME=60.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        result = sl.integrate(tmp_path, sl.Recipe(rejection="none"), progress=False)
    text = " ".join(result.report().split())
    assert "2 of 3 images are used" in text and "c.fits (not registered, by name)" in text


def test_files_that_would_be_used(tmp_path):
    lights(tmp_path / "f", "a_c_d_r.fits b_c_d_r.fits c.fits")
    light(tmp_path / "f" / "m_c_d_r.fits", 9, IMAGETYP="Master Light")
    (tmp_path / "f" / "x_c_d_r.fits").write_text("broken")
    paths = [tmp_path / "f" / f"{name}_c_d_r.fits" for name in "abx"]
    assert used_files(tmp_path / "f") == paths
    assert used_files(paths[0]) == [paths[0]]
    assert used_files([tmp_path / "f" / "c.fits", tmp_path / "f"]) == [tmp_path / "f" / "c.fits", *paths]


def test_choices_that_name_a_folder_mean_the_frames_to_use(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    lights(folder, "a_c_d_r.fits b_c_d_r.fits c.fits")
    light(folder / "m_c_d_r.fits", 9, IMAGETYP="Master Light")
    (tmp_path / "M31" / "recipe.yaml").write_text("frames: 4_Registered\n", encoding="utf-8")
    job, line = job_with_choices({"frames": str(folder)})
    assert [Path(name).name for name in job.frames] == ["a_c_d_r.fits", "b_c_d_r.fits"]
    assert line.startswith("M31, 2 frames, your choices of") and "Left out" not in line
    (tmp_path / "M31" / "recipe.yaml").unlink()
    assert job_with_choices({"frames": str(folder)})[1].startswith("M31, 2 frames, no saved choices")


def test_a_list_that_the_shell_expanded_is_a_pattern(tmp_path):
    lights(tmp_path, "f_1.fits f_2.fits f_3.fits")
    light(tmp_path / "m.fits", 9, IMAGETYP="Master Light")
    (tmp_path / "light_.seq").write_text("")
    (tmp_path / "5_Integration").mkdir()
    frames, notes = as_pattern([str(path) for path in sorted(tmp_path.iterdir())])
    assert [Path(name).name for name in frames] == ["5_Integration", "f_1.fits", "f_2.fits", "f_3.fits"]
    assert notes[0] == "light_.seq is left out, as it is no image" and "m.fits (a master" in notes[1]
    pattern = str(tmp_path / "f_*.fits")
    assert as_pattern([pattern, str(tmp_path / "f_1.fits")]) == ([pattern, str(tmp_path / "f_1.fits")], [])


def test_names_that_begin_alike_have_an_order():
    names = ["2", "10", "AB", "ab", "ab1c", "ab2", "ab10", "x"]
    ordered = sorted((Path(name) for name in reversed(names)), key=natural_order)
    assert [path.name for path in ordered] == names
