"""What a second start of a batch finds: copies, links, folders that were grouped anew, lost pictures."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from simulated_targets import frames

import stacklib as sl
from stacklib import cli
from stacklib.batch import Batch, run_batch
from stacklib.batch import changes as batch_changes
from stacklib.batch.changes import Checksums, changes
from stacklib.batch.page import page
from stacklib.batch.state import STATE_NAME, inputs_of, only_run_of, read_record, write_record
from stacklib.batch.target_run import TargetRun
from stacklib.batch.targets import find_targets
from stacklib.formats.fits import write_image
from stacklib.recipe.batch_job import BatchJob
from stacklib.utils.atomic_files import give_name
from stacklib.utils.checksums import checksum_if_readable

#: As `report.numbers` has them.
NUMBERS = {
    "frames": 3,
    "used": 3,
    "width": 32,
    "height": 24,
    "channels": 1,
    "rule": "sigma",
    "recipe": sl.Recipe().to_dict(),
    "rejected_low": 0.01,
    "rejected_high": 0.02,
    "noise": [0.1],
    "noise_ratio": [0.6],
    "expected_noise_ratio": 0.58,
}


def leave_results(root: Path) -> None:
    """What runs of all targets would leave, without running them."""
    batch = Batch(BatchJob(str(root)))
    for row in batch.rows:
        target = row.target
        target.output.mkdir(parents=True)
        image = np.random.default_rng(1).normal(0.1, 0.01, (1, 24, 32)).astype(np.float32)
        write_image(target.output / "M_0000.fits", image, [])
        (target.output / "M_0000_notebook.ipynb").touch()
        record = inputs_of(target, batch.job_for(target))
        for path in target.frames:
            record.frames[path.name]["sha256"] = checksum_if_readable(path)
        record.status, record.numbers = "done", NUMBERS
        record.files, record.notebook = ["M_0000.fits"], "M_0000_notebook.ipynb"
        write_record(target, record)


def reasons(root: Path) -> dict[str, str]:
    return {row.target.name: row.reason for row in Batch(BatchJob(str(root))).rows}


def found(root: Path) -> dict[str, int]:
    return {target.name: len(target.frames) for target in find_targets(root)}


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that are read for their checksums."""
    names = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return checksum_if_readable(path)

    monkeypatch.setattr(batch_changes, "checksum_if_readable", noted)
    return names


def copied(paths: list[Path]) -> None:
    """As after a copy: other times of change, the same content."""
    for path in paths:
        os.utime(path, (1, 1))


# copies ------------------------------------------------------------------------------------------


def test_a_copy_is_read_once(tmp_path, read):
    paths = frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    assert reasons(tmp_path) == {"M31": "unchanged"} and not read
    copied(paths)
    batch = Batch(BatchJob(str(tmp_path)))
    assert batch.rows[0].reason == "unchanged" and sorted(read) == [path.name for path in paths]
    batch.run(progress=False)
    assert [row.status for row in batch.rows] == ["done"] and len(read) == 3
    # From now on its times are known.
    assert reasons(tmp_path) == {"M31": "unchanged"} and len(read) == 3
    record = read_record(batch.rows[0].target)
    assert {stamp["mtime_ns"] for stamp in record.frames.values()} == {10**9}
    assert all(stamp["sha256"] for stamp in record.frames.values())


def test_list_reads_a_copy_once_and_writes_nothing(tmp_path, read, capsys):
    paths = frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    copied(paths)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert cli.main(["batch", str(tmp_path), "--list"]) == 0
    assert "nothing, unchanged" in capsys.readouterr().out and len(read) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_record_is_left_alone_while_another_batch_runs_the_target(tmp_path):
    paths = frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    copied(paths)
    (target,) = find_targets(tmp_path)
    before = read_record(target)
    with only_run_of(target):
        assert not Batch(BatchJob(str(tmp_path))).run(progress=False).failed
    assert read_record(target) == before


def test_nothing_is_read_where_there_is_another_reason(tmp_path, read):
    paths = frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    copied(paths)
    frames(tmp_path / "M31" / "4_Registered", 1)
    assert reasons(tmp_path) == {"M31": "frame_3_1.fits added"} and not read
    (target,) = find_targets(tmp_path)
    assert changes(target, inputs_of(target, sl.Job()), None) == "new"


def test_a_frame_without_a_known_checksum_has_changed(tmp_path, monkeypatch):
    paths = frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    (target,) = find_targets(tmp_path)
    record = read_record(target)
    record.frames[paths[1].name]["sha256"] = ""
    write_record(target, record)
    copied(paths)
    assert reasons(tmp_path) == {"M31": f"{paths[1].name} changed"}
    monkeypatch.setattr(batch_changes, "checksum_if_readable", lambda _: "")
    assert reasons(tmp_path) == {"M31": f"{paths[0].name}, {paths[1].name} and 1 more changed"}


def test_files_are_read_side_by_side_with_a_bar_where_it_takes_long(tmp_path, monkeypatch, capsys):
    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(batch_changes, "checked_threads", lambda _: 2)
    monkeypatch.setattr(batch_changes, "checksum_if_readable", lambda path: f"{path} {both.wait() and ''}")
    files = [(tmp_path / str(number), {"size": 1, "mtime_ns": 1}) for number in range(4)]
    Checksums().read(files)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(batch_changes, "QUIET", 0.0)
    Checksums().read(files)
    shown = capsys.readouterr()
    assert "4 frames compared: 100%" in shown.err and not shown.out
    Checksums().read(files, progress=False)
    assert capsys.readouterr().err == ""


# links -------------------------------------------------------------------------------------------

linked = pytest.mark.skipif(os.name == "nt", reason="links need a right that users of Windows seldom have")


@linked
def test_links_lead_to_targets(tmp_path):
    root, disk = tmp_path / "astro", tmp_path / "disk"
    frames(root / "M33" / "4_Registered")
    frames(disk / "lights", 3)
    frames(disk / "M51" / "4_Registered", 4)
    (root / "M31").mkdir()
    (root / "M31" / "4_Registered").symlink_to(disk / "lights")
    (root / "M51").symlink_to(disk / "M51")
    assert found(root) == {"M31": 3, "M33": 2, "M51": 4}
    outputs = [target.output.relative_to(root).as_posix() for target in find_targets(root)]
    assert outputs == ["M31/5_Integration", "M33/5_Integration", "M51/5_Integration"]
    leave_results(root)
    assert set(reasons(root).values()) == {"unchanged"}
    assert (disk / "M51" / "5_Integration" / STATE_NAME).exists()
    assert reasons(disk) == {"M51": "unchanged"}


@linked
def test_a_folder_that_is_reached_twice_is_one_target(tmp_path):
    folder = tmp_path / "astro" / "M31"
    frames(folder / "4_Registered")
    frames(folder / "5_Integration" / "4_Registered")
    for link, there in {
        "best": folder,
        "again/4_Registered": folder / "4_Registered",
        "M31/loop": folder,
        "M31/4_Registered/up": folder.parent,
        "M31/4_Registered/latest": folder / "5_Integration",
        "masters": folder / "5_Integration" / "4_Registered",
        "everything": tmp_path,
        "gone": tmp_path / "nowhere",
    }.items():
        path = tmp_path / "astro" / link
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(there)
    frames(tmp_path / "M33" / "4_Registered")
    assert found(tmp_path / "astro") == {"M31": 2}
    assert found(tmp_path / "astro" / "best") == {"best": 2}


# folders that are grouped anew -------------------------------------------------------------------


def test_a_result_is_kept_when_another_filter_comes(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    frames(folder, 3)
    leave_results(tmp_path)
    frames(folder, 2, filter="R")
    assert reasons(tmp_path) == {"M31 (L)": "unchanged", "M31 (R)": "new"}
    first, second = Batch(BatchJob(str(tmp_path))).rows
    assert first.path(first.master, tmp_path) == "M31/5_Integration/M_0000.fits"
    assert second.target.output == tmp_path / "M31" / "5_Integration" / "R"
    # And again, when exposures differ as well, and when all is as it was.
    frames(folder, 2, filter="R", exposure=30.0)
    assert reasons(tmp_path)["M31 (L 60 s)"] == "unchanged"
    for path in sorted(folder.iterdir())[3:]:
        path.rename(path.with_suffix(".aside"))
    assert reasons(tmp_path) == {"M31": "unchanged"}


def test_a_result_is_not_kept_when_its_frames_are_others(tmp_path, read):
    folder = tmp_path / "M31" / "4_Registered"
    paths = frames(folder, 3)
    leave_results(tmp_path)
    frames(folder, 2, filter="R")
    copied(paths)
    assert reasons(tmp_path)["M31 (L)"] == "unchanged" and len(read) == 3
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"x")
    assert reasons(tmp_path) == {"M31 (L)": "new", "M31 (R)": "new"}
    paths[0].unlink()
    first, _ = Batch(BatchJob(str(tmp_path))).rows
    assert (first.reason, first.target.output.name) == ("new", "L")


def test_a_result_of_another_folder_is_not_kept(tmp_path):
    for name in ("Ha", "Ha 2"):
        frames(tmp_path / "M31" / "4_Registered" / name, 3)
    leave_results(tmp_path)
    (tmp_path / "M31" / "5_Integration" / "Ha 2").rename(tmp_path / "M31" / "5_Integration" / "Ha" / "2")
    assert reasons(tmp_path) == {"M31/Ha": "unchanged", "M31/Ha 2": "new"}


def test_only_the_filter_that_came_is_run(tmp_path):
    folder = tmp_path / "M31" / "4_Registered"
    frames(folder, 4)
    leave_results(tmp_path)
    output = tmp_path / "M31" / "5_Integration"
    frames(folder, 4, filter="R")
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    batch = run_batch(tmp_path, progress=False)
    assert [row.status for row in batch.rows] == ["done", "done"], batch.summary
    now = {path: path.stat().st_mtime_ns for path in output.iterdir() if path in before}
    assert now == before | {output / STATE_NAME: now[output / STATE_NAME]}
    assert not (output / "L").exists()
    masters = [tmp_path / master for master in batch.table["master"]]
    assert masters[0] == output / "M_0000.fits" and masters[1].parent == output / "R"
    assert all(master.is_file() for master in masters)
    text = batch.page.read_text("utf-8")
    assert "href='M31/5_Integration/M_0000_notebook.ipynb'" in text and "2 masters" in text
    assert set(reasons(tmp_path).values()) == {"unchanged"}


# pictures ----------------------------------------------------------------------------------------


def test_a_lost_picture_is_made_again(tmp_path):
    frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    picture = tmp_path / "M31" / "5_Integration" / "M_0000_thumbnail.jpg"
    for _ in range(2):
        batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
        assert picture.stat().st_size > 100
        assert "src='M31/5_Integration/M_0000_thumbnail.jpg'" in batch.page.read_text("utf-8")
        picture.unlink()
        # Nor is it missed on the page of a batch that runs.
        assert "<img" not in page(batch.rows, tmp_path)


def test_a_picture_that_cannot_be_made_leaves_an_empty_frame(tmp_path):
    frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    output = tmp_path / "M31" / "5_Integration"
    (output / "M_0000_thumbnail.jpg").unlink()
    (output / "M_0000.fits").write_bytes(b"no image")
    batch.run(progress=False)
    text = batch.page.read_text("utf-8")
    assert batch.rows[0].reason == "unchanged" and "<img" not in text and "class='none'" in text
    assert not list(output.glob("*.jpg"))


# settings beside the frames ----------------------------------------------------------------------


def two_targets(root: Path) -> None:
    frames(root / "M31" / "4_Registered", 4)
    frames(root / "M33" / "4_Registered", 6)


def listed(root: Path, names: list[str], target: str = "M33") -> None:
    lines = "".join(f"- {name}\n" for name in names)
    (root / target / "recipe.yaml").write_text(f"frames:\n{lines}", "utf-8")


def test_frames_of_a_job_are_looked_for_beside_it(tmp_path, monkeypatch):
    """Also where the current folder has frames of the same names, and in a copy beside its original."""
    root = tmp_path / "astro"
    two_targets(root)
    names = [path.name for path in sorted((root / "M33" / "4_Registered").iterdir())]
    for spelt in ("4_Registered/{}", f"{root / 'M33'}/4_Registered/{{}}", f"{root}/M33/4_Registered"):
        listed(root, list(dict.fromkeys(spelt.format(name) for name in names)))
        monkeypatch.chdir(root / "M31")
        assert found(root) == {"M31": 4, "M33": 6}
        copy = tmp_path / "copy"
        shutil.copytree(root, copy)
        (one,) = (target for target in find_targets(copy) if target.name == "M33")
        assert len(one.frames) == 6 and not one.problem
        assert all(path.is_relative_to(copy) for path in one.frames)
        shutil.rmtree(copy)


def test_a_listed_frame_that_is_gone_is_named(tmp_path):
    two_targets(tmp_path)
    there = min((tmp_path / "M33" / "4_Registered").iterdir()).name
    listed(tmp_path, [f"4_Registered/{there}", "4_Registered/gone.fits"])
    (one,) = (target for target in find_targets(tmp_path) if target.name == "M33")
    assert "names 4_Registered/gone.fits, which does not exist" in one.problem


def test_settings_that_cannot_be_used_are_no_sign_of_no_change(tmp_path):
    two_targets(tmp_path)
    leave_results(tmp_path)
    assert {row.status for row in Batch(BatchJob(str(tmp_path))).rows} == {"done"}
    (tmp_path / "M33" / "recipe.yaml").write_text("sigma_hihg: 3\n", "utf-8")
    status = {row.target.name: (row.status, row.reason) for row in Batch(BatchJob(str(tmp_path))).rows}
    assert status["M31"] == ("done", "unchanged")
    assert status["M33"][0] == "waiting" and "did you mean sigma_high" in status["M33"][1]


def test_a_link_to_a_folder_below_the_root_makes_a_target(tmp_path):
    frames(tmp_path / "a_raw" / "M31_reg", 3)
    (tmp_path / "M31").mkdir()
    try:
        (tmp_path / "M31" / "4_Registered").symlink_to(tmp_path / "a_raw" / "M31_reg")
    except OSError:
        pytest.skip("no links here")
    assert found(tmp_path) == {"M31": 3}


def test_what_the_batch_saves_is_saved_for_targets_with_a_recipe_too(tmp_path):
    frames(tmp_path / "M31" / "4_Registered", 3)
    (tmp_path / "M31" / "recipe.yaml").write_text("save_maps: false\nsigma_high: 2.8\n", "utf-8")
    batch = Batch(BatchJob(str(tmp_path), save_maps=True))
    assert batch.job_for(batch.rows[0].target).save_maps


def test_a_target_that_another_batch_has_finished_is_not_run_again(tmp_path):
    frames(tmp_path / "M31" / "4_Registered", 3)
    (target,) = find_targets(tmp_path)
    batch = Batch(BatchJob(str(tmp_path)))
    leave_results(tmp_path)
    assert TargetRun(target, batch.job_for(target))() == read_record(target)


def test_a_batch_that_was_killed_after_the_result_goes_on_there(tmp_path):
    frames(tmp_path / "M31" / "4_Registered", 3)
    leave_results(tmp_path)
    (target,) = find_targets(tmp_path)
    # The work folder that it left: the result was named from it, and the page was in the making.
    with only_run_of(target) as room:
        pass
    room.mkdir()
    give_name(target.output / "M_0000.fits", room / "integration.fits")
    (room / "x.html").touch()
    batch = Batch(BatchJob(str(tmp_path))).run(progress=False)
    assert [row.reason for row in batch.rows] == ["unchanged"]
    left = {path.name for path in target.output.iterdir()}
    assert left - {STATE_NAME} == {"M_0000.fits", "M_0000_notebook.ipynb", "M_0000_thumbnail.jpg"}
