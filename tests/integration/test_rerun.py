"""A saved result repeats its run: the recipe inside it, the checksums of its frames, the same bits."""

import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.table import Table
from conftest import SAMPLES

import stacklib as sl
from stacklib import cli
from stacklib.formats import fits, xisf
from stacklib.integration.rerun import also_saved, repeats
from stacklib.recipe import run_record
from stacklib.simulate import Session, simulate_frames

RECIPE = sl.Recipe(
    rejection="winsorized_sigma", sigma_high=2.75, weights="exposure", normalization="additive"
)
ARRAYS = ("image", "rejection_low", "rejection_high", "coverage", "uncertainty")


def make_night(folder, count=6, seed=5, channels=1):
    session = Session(object_name="M 1", camera="Camera", exposure=60.0)
    simulate_frames(count, 40, 56, channels, trails=1, dither=2, session=session, seed=seed).save(folder)
    return folder


@pytest.fixture
def target(tmp_path):
    """A folder with frames and a result beside them; the paths of both, and the result."""
    frames = make_night(tmp_path / "M1" / "4_Registered")
    result = sl.integrate(frames, RECIPE, progress=False)
    return frames, result.save(fits=True), result


def assert_same(again, result, but=""):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name), err_msg=name)
    for one, other in zip(again.counts, result.counts, strict=True):
        np.testing.assert_array_equal(one.table, other.table)
    other = {but: getattr(result.recipe, but)} if but else {}
    assert again.recipe.replace(**other) == result.recipe
    assert list(again.frames["file"]) == list(result.frames["file"])


def test_the_recipe_comes_back_from_every_image(target):
    _, saved, result = target
    assert {path.suffix for path in saved} == {".xisf", ".fits"}
    for path in saved:
        assert sl.Recipe.from_result(path) == result.recipe


@pytest.mark.filterwarnings("ignore:ignore_trails. no such trail")
def test_every_parameter_comes_back_from_fits(tmp_path):
    frames = make_night(tmp_path / "4_Registered")
    table = tmp_path / "a folder with a long name" / "and another one, longer still" / "weights of M 1.csv"
    table.parent.mkdir(parents=True)
    names = [path.name for path in sorted(frames.glob("*.xisf"))]
    table.write_text("file,weight\n" + "".join(f"{name},{i + 1}\n" for i, name in enumerate(names)))
    recipe = sl.Recipe(
        rejection="gesd",
        gesd_significance=1 / 30,
        min_max_low=3,
        clip_low=False,
        range_low=-1e-7,
        weights="csv",
        weight_file=str(table),
        reference=names[2],
        min_weight=0,
        output_range="truncate",
        footprints="trails",
        ignore_trails=[f"{name}: a näme, of many words.xisf:{i},0-7,9" for i, name in enumerate(names)],
    )
    saved = sl.integrate(frames, recipe, progress=False).save(fits=True)
    assert sl.Recipe.from_result(saved[-1]) == sl.Recipe.from_result(saved[0]) == recipe


@pytest.mark.parametrize("target_name", ["M101", "M13"])
def test_sample_frames_give_the_same_bits(target_name, tmp_path, request):
    result = request.getfixturevalue(target_name.lower())
    saved = result.save(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The frames have no NOISE", sl.StacklibWarning)
        assert_same(sl.rerun(saved[1], progress=False), result)


def test_a_region_is_repeated(target, tmp_path):
    frames, *_ = target
    result = sl.integrate(frames, RECIPE, region=(5, 7, 20, 11), progress=False)
    assert_same(sl.rerun(result.save(tmp_path / "region")[0], progress=False), result)


def test_fits_repeats_through_the_xisf_beside_it(target, tmp_path):
    _, saved, result = target
    assert_same(sl.rerun(saved[-1], progress=False), result)
    alone = tmp_path / "alone" / saved[-1].name
    alone.parent.mkdir()
    shutil.copy(saved[-1], alone)
    with pytest.raises(sl.FrameError, match=r"no list of its frames; copy .*, which has one, beside it"):
        sl.rerun(alone, progress=False)
    assert sl.Recipe.from_result(alone) == result.recipe


def test_a_moved_target_repeats(target, tmp_path):
    frames, saved, result = target
    moved = tmp_path / "elsewhere" / "M1"
    moved.parent.mkdir()
    frames.parent.rename(moved)
    assert_same(sl.rerun(moved / "5_Integration" / saved[0].name, progress=False), result)


def test_a_moved_result_finds_the_frames_where_they_lay(target, tmp_path):
    _, saved, result = target
    assert_same(sl.rerun(shutil.copy(saved[0], tmp_path), progress=False), result)


def test_frames_may_lie_in_folders_that_are_named(target, tmp_path):
    frames, saved, result = target
    one, two = tmp_path / "disk 1" / "deep" / "below", tmp_path / "disk 2"
    one.mkdir(parents=True)
    two.mkdir()
    for number, path in enumerate(sorted(frames.glob("*.xisf"))):
        path.rename((one, two)[number % 2] / path.name)
    with pytest.raises(
        sl.FrameError, match=r"6 of its 6 .*: .*frames=FOLDER \(in a shell: --frames FOLDER\)"
    ):
        sl.rerun(saved[0], progress=False)
    again = sl.rerun(saved[0], frames=[tmp_path / "disk 1", str(two)], progress=False)
    assert_same(again, result)


def test_one_error_names_all_that_is_missing_or_changed(target):
    frames, saved, _ = target
    first, second, third, *_ = sorted(frames.glob("*.xisf"))
    first.unlink()
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    third.write_bytes(b"short")
    with pytest.raises(sl.FrameError) as caught:
        sl.rerun(saved[0], progress=False)
    text = str(caught.value)
    assert str(saved[0]) in text
    assert f"1 of its 6 files missing: {first.name};" in text
    assert f"2 of its 6 files changed: {second.name}, {third.name}." in text
    assert "Recipe.from_result" in text and "frames=" in text


def test_a_folder_that_is_not_there_is_named(target, tmp_path):
    with pytest.raises(sl.FrameError, match=r"frames: .*nowhere: no such folder"):
        sl.rerun(target[1][0], frames=tmp_path / "nowhere", progress=False)


def test_two_nights_with_the_same_names(tmp_path):
    for seed in (1, 2):
        make_night(tmp_path / f"night {seed}", count=3, seed=seed)
    result = sl.integrate(
        sl.open_frames([tmp_path / "night 1", tmp_path / "night 2"]), RECIPE, progress=False
    )
    (saved, *_) = result.save(tmp_path / "out")
    (tmp_path / "moved").mkdir()
    for seed in (2, 1):
        (tmp_path / f"night {seed}").rename(tmp_path / "moved" / f"night {seed}")
    assert_same(sl.rerun(saved, frames=tmp_path / "moved", progress=False), result)


def test_a_run_repeats_with_all_its_frames(tmp_path):
    """Copies and masters that a run used are used again, although `open_frames` would leave them out."""
    frames = make_night(tmp_path / "4_Registered", count=4)
    first = min(frames.glob("*.xisf"))
    shutil.copy(first, frames / "a copy.xisf")
    result = sl.integrate(sl.open_frames(frames, everything=True), RECIPE, progress=False)
    assert len(result.frames) == 5
    (saved, *_) = result.save()
    assert_same(sl.rerun(saved, progress=False), result)


def test_the_table_of_weights_is_checked_and_found(tmp_path):
    frames = make_night(tmp_path / "M1" / "4_Registered")
    table = tmp_path / "M1" / "weights.csv"
    names = [path.name for path in sorted(frames.glob("*.xisf"))]
    Table({"file": names, "weight": np.arange(1.0, 7)}).write(table, format="csv")
    recipe = RECIPE.replace(weights="csv", weight_file=str(table))
    result = sl.integrate(frames, recipe, progress=False)
    (saved, *_) = result.save()
    (tmp_path / "M1").rename(tmp_path / "M1 moved")
    saved = tmp_path / "M1 moved" / "5_Integration" / saved.name
    again = sl.rerun(saved, progress=False)
    np.testing.assert_array_equal(again.image, result.image)
    assert Path(again.recipe.weight_file).parts[-2:] == ("M1 moved", "weights.csv")
    with (tmp_path / "M1 moved" / "weights.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(sl.FrameError, match=r"1 of its 7 files changed: weights\.csv"):
        sl.rerun(saved, progress=False)


def test_masks_are_files_of_a_run(tmp_path):
    frames = make_night(tmp_path / "M1" / "4_Registered")
    masks = tmp_path / "M1" / "masks"
    masks.mkdir()
    names = [path.stem for path in sorted(frames.glob("*.xisf"))]
    mask = np.zeros((40, 56), np.float32)
    mask[10:15] = 1
    for name in names[:4:3]:
        fits.write_image(masks / f"{name}_mask.fits", mask)
    result = sl.integrate(frames, RECIPE.replace(masks=str(masks)), progress=False)
    saved = result.save()
    (tmp_path / "M1").rename(tmp_path / "M1 moved")
    masks, saved = (tmp_path / "M1 moved" / path.relative_to(tmp_path / "M1") for path in (masks, saved[0]))
    # Masks that came later are not those of the run.
    fits.write_image(masks / f"{names[1]}_mask.fits", mask)
    again = sl.rerun(saved, progress=False)
    assert [Path(path).parts[-3:] for path in again.recipe.masks] == [
        ("M1 moved", "masks", f"{name}_mask.fits") for name in names[:4:3]
    ]
    assert_same(again, result, "masks")
    (masks / f"{names[0]}_mask.fits").unlink()
    fits.write_image(masks / f"{names[0]}_mask.fits", 1 - mask)
    with pytest.raises(sl.FrameError, match=r"1 of its 8 files changed: .*_mask\.fits"):
        sl.rerun(saved, progress=False)


def test_frames_that_changed_before_the_result_was_saved_are_not_trusted(target, tmp_path):
    frames, _, _ = target
    result = sl.integrate(frames, RECIPE, progress=False)
    changed = min(frames.glob("*.xisf"))
    with changed.open("ab") as stream:
        stream.write(b"more")
    (saved, *_) = result.save()
    with pytest.raises(sl.FrameError, match=f"1 of its 6 files changed: {changed.name}"):
        sl.rerun(saved, progress=False)


def test_another_version_is_worth_a_warning(target, monkeypatch):
    _, saved, result = target
    read = run_record.read_run

    def older(path):
        record = read(path)
        return replace(record, versions=record.versions | {"stacklib": "0.0.1"})

    # The name in the package is the function.
    monkeypatch.setattr(sys.modules["stacklib.integration.rerun"], "read_run", older)
    with pytest.warns(sl.StacklibWarning, match=r"made with stacklib 0\.0\.1 \(now .*may differ"):
        assert_same(sl.rerun(saved[0], progress=False), result)


def test_the_command_repeats_and_compares(target, tmp_path, capsys):
    frames, saved, _ = target
    assert cli.main(["rerun", str(saved[0])]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"Identical to {saved[0]}"
    assert (saved[0].parent / saved[0].name.replace("0000", "0001")).exists()
    frames.rename(tmp_path / "elsewhere")
    assert cli.main(["rerun", str(saved[1])]) == 1
    assert "6 of its 6 files missing" in capsys.readouterr().err
    arguments = ["rerun", str(saved[1]), "--frames", str(tmp_path), "--output", str(tmp_path / "new")]
    assert cli.main(arguments) == 0
    assert len(list((tmp_path / "new").glob("*_0000.xisf"))) == 1
    other = sl.integrate(tmp_path / "elsewhere", RECIPE.replace(sigma_high=2.5), progress=False)
    assert not repeats(saved[0], other.save(tmp_path / "other"))


def test_files_without_a_record_are_refused(target, tmp_path):
    frames, saved, _ = target
    frame = min(frames.glob("*.xisf"))
    for call in (sl.rerun, sl.Recipe.from_result):
        with pytest.raises(sl.RecipeError, match="is no image with a recipe inside; name one that stacklib"):
            call(frame)
        with pytest.raises(sl.FrameError, match="no such file"):
            call(tmp_path / "nothing.xisf")
        with pytest.raises(sl.FrameError, match="no such file"):
            call(tmp_path / "nothing.fits")
    fits = min((SAMPLES / "M13" / "4_Registered").glob("*.fits"))
    with pytest.raises(sl.RecipeError, match="is no image with a recipe inside"):
        sl.Recipe.from_result(fits)
    held = xisf.open_image(saved[0]).properties
    broken = {name: value for name, value in held.items() if name.startswith("stacklib:")}
    broken["stacklib:Frames"] = "[{]"
    image = np.zeros((1, 4, 4), np.float32)
    path = xisf.write_image(tmp_path / "broken.xisf", image, image_id="a", properties=broken)
    with pytest.raises(sl.RecipeError, match=r"its record of the run is damaged \(JSONDecodeError"):
        sl.rerun(path)


def test_the_record_of_thousands_of_frames_is_read(tmp_path):
    entry = {"path": "/a/frame.xisf", "relative": None, "sha256": "0" * 64, "numbers": [1 / 3] * 45}
    recipe = yaml.safe_dump(sl.Recipe().to_dict())
    run = {"region": [0, 0, 4, 4], "stacklib": "0", "numpy": "0", "numba": "0"}
    held = {"Recipe": recipe, "Run": json.dumps(run), "Frames": json.dumps([entry] * 2000)}
    path = xisf.write_image(
        tmp_path / "many.xisf",
        np.zeros((1, 4, 4), np.float32),
        image_id="a",
        properties={f"stacklib:{name}": ("String", text) for name, text in held.items()},
    )
    assert len(run_record.read_run(path).frames) == 2000
    assert sl.Recipe.from_result(path) == sl.Recipe()


@pytest.mark.parametrize("name", ["20210815_M101_0003.xisf", "20210815_M101_0003_rejection_low.xisf"])
@pytest.mark.parametrize(
    ("beside", "known"),
    [
        ([], {"maps": False, "fits": False, "masks": False, "drizzle_data": False}),
        (["_coverage.xisf"], {"maps": True, "fits": False, "masks": False, "drizzle_data": False}),
        (
            [".fits", "_coverage.fits", "_coverage.xisf"],
            {"maps": True, "fits": True, "masks": False, "drizzle_data": False},
        ),
    ],
)
def test_what_was_saved_besides_is_saved_again(tmp_path, name, beside, known):
    for end in beside:
        (tmp_path / f"20210815_M101_0003{end}").touch()
    (tmp_path / "20210815_M101_0004.fits").touch()
    assert also_saved(tmp_path / name) == known
