"""Notebook 6 and ``stacklib drizzle``: which frames are drizzled, what is refused, and what a run leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import stacklib as sl
from stacklib import cli, notebook
from stacklib.commands.drizzle import drizzle_from_arguments
from stacklib.frames.frame import Frame
from stacklib.notebook import drizzling, running
from stacklib.notebook.drizzling import Places, find_places
from stacklib.notebook.executed import Executed
from stacklib.simulate import simulate_dithered


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A target: five mosaics and the same frames debayered and registered, with drizzle data."""
    folder = tmp_path_factory.mktemp("target")
    simulate_dithered(5, 90, 110, "field", seed=4, fwhm=2.0).save(folder)
    return folder


@pytest.fixture
def target(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "M 1")


# places ------------------------------------------------------------------------------------------


def test_the_frames_of_a_target_are_found(target, monkeypatch):
    before, after = str(target / "3_Calibrated"), str(target / "4_Registered")
    for given in (target, target / "4_Registered", target / "3_Calibrated"):
        assert find_places(str(given)) == Places(before, after)
    monkeypatch.chdir(target)
    assert find_places(".") == Places(before, after)
    assert find_places(str(target), "none") == Places(before, "")
    pattern = str(target / "3_Calibrated" / "*_000[1-4]_*")
    assert find_places(pattern) == Places(pattern, after)
    files = [str(path) for path in sorted((target / "3_Calibrated").iterdir())][:4]
    assert find_places(files) == Places(files, after)
    other = (target / "4_Registered").rename(target / "elsewhere")
    assert find_places(before) == Places(before, "")
    assert find_places(before, str(other)) == Places(before, str(other))


def test_mosaics_come_before_debayered_frames(target):
    shutil.copytree(target / "3_Calibrated", target / "1_Calibrated")
    debayered = target / "3_Calibrated"
    for path in debayered.iterdir():
        shutil.copy(target / "4_Registered" / path.name.replace("_c.", "_c_d_r."), path)
    assert find_places(str(target)).frames == str(target / "1_Calibrated")
    # Of two folders of the same kind the later one.
    shutil.copytree(target / "1_Calibrated", target / "2_Cosmetic")
    assert find_places(str(target)).frames == str(target / "2_Cosmetic")


def test_frames_that_are_not_there_are_named(target):
    shutil.rmtree(target / "3_Calibrated")
    with pytest.raises(sl.FrameError, match="no folder beside 4_Registered holds the same frames before"):
        find_places(str(target))
    (target / "flats").mkdir()
    (target / "flats" / "flat_0001.fits").touch()
    with pytest.raises(sl.FrameError, match="no folder beside 4_Registered"):
        find_places(str(target))


def test_registered_frames_of_another_target_are_not_taken(target, tmp_path):
    others = tmp_path / "others" / "3_Calibrated"
    others.mkdir(parents=True)
    for number, path in enumerate((target / "3_Calibrated").iterdir()):
        shutil.copy(path, others / f"other_{number}.xisf")
    shutil.copytree(target / "4_Registered", others.parent / "4_Registered")
    assert find_places(str(others)) == Places(str(others), "")


def test_without_registered_frames_nothing_is_integrated_before(target, capsys):
    job = notebook.DrizzleJob(frames=str(target), registered="none", memory="1GB", threads=1)
    places = notebook.frames_to_drizzle(job)
    assert notebook.integrate_registered(places, job) is None
    assert "registered and integrated when they are drizzled" in capsys.readouterr().out
    options = places.options(job)
    assert options == {"geometry": None, "integration": None, "memory": "1GB", "threads": 1}
    sl.Recipe(sigma_high=2.5).save(target / "mine.yaml")
    job = notebook.DrizzleJob(frames=str(target), registered="none", recipe_file=str(target / "mine.yaml"))
    assert places.options(job)["integration"].sigma_high == 2.5


def test_choices_of_the_target_are_used(target, monkeypatch, capsys):
    (target / "recipe.yaml").write_text("rejection: sigma\nsigma_high: 2.5\n", encoding="utf-8")
    job = notebook.DrizzleJob(frames=str(target))
    calls = []
    monkeypatch.setattr(drizzling, "integrate", lambda *given, **options: calls.append((*given, options)))
    notebook.integrate_registered(notebook.frames_to_drizzle(job), job)
    ((frames, recipe, options),) = calls
    assert len(frames) == 5 and (recipe.rejection, recipe.sigma_high) == ("sigma", 2.5)
    assert options == {"memory": "2GB"} and "your choices of" in capsys.readouterr().out


# the command -------------------------------------------------------------------------------------


def test_arguments_become_a_job():
    job = drizzle_from_arguments("M31", [("scale", "2"), ("threads", "3")], "4_R", "out")
    assert job == notebook.DrizzleJob(frames="M31", registered="4_R", output="out", scale=2.0, threads=3)
    assert job.recipe == sl.DrizzleRecipe(scale=2.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "scale", "9"], "scale: got 9.0, expected a number from 1 to 4"),
        (["-p", "kernel", "gaussian"], "kernel: got 'gaussian', expected one of square, turbo, point"),
        (["-p", "sigma_high", "3"], "-p: unknown parameter 'sigma_high'"),
        (["-p", "output", "a", "--output", "b"], "-p output: given as --output already"),
        (["-p", "frames", "a"], "-p frames: given as FOLDER already"),
        (["-p", "memory", "much"], "memory"),
    ],
)
def test_wrong_calls_end_with_2_and_one_line(arguments, words, target, capsys):
    assert cli.main(["drizzle", str(target), *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("stacklib: ") and words in said and said.count("\n") == 1


def test_a_recipe_is_no_folder_of_frames(capsys):
    assert cli.main(["drizzle", "mine.yaml"]) == 2
    assert "goes with -p recipe_file" in capsys.readouterr().err


def test_few_frames_start_no_kernel(target, monkeypatch, capsys):
    monkeypatch.setattr(running, "finish", lambda *_: pytest.fail("a kernel was started"))
    files = [str(path) for path in sorted((target / "3_Calibrated").iterdir())[:2]]
    assert cli.main(["drizzle", *files]) == 1
    assert "2 frames, drizzling needs at least 3" in capsys.readouterr().err
    assert cli.main(["drizzle", str(target / "nowhere")]) == 1
    assert "no such folder or file" in capsys.readouterr().err


def test_an_option_that_is_a_parameter_is_told(capsys):
    with pytest.raises(SystemExit):
        cli.main(["drizzle", "M31", "--scale", "2"])
    assert "did you mean -p scale 2?" in capsys.readouterr().err


def test_the_notebook_gets_whole_paths_and_no_lesson(target, tmp_path, monkeypatch):
    monkeypatch.chdir(target)
    job = notebook.DrizzleJob(frames=".", geometry="4_Registered", recipe_file="none", drop=0.8)
    process = running.drizzle_process(job, find_places("."), tmp_path / "out", tmp_path)
    after = str(target / "4_Registered")
    assert process.values == {
        "frames": str(target / "3_Calibrated"),
        "registered": after,
        "geometry": after,
        "recipe_file": "none",
        "output": str(tmp_path / "out"),
        "drop": 0.8,
    }
    stars = notebook.DrizzleJob(frames=".", registered="none", geometry="stars")
    values = running.drizzle_process(stars, find_places(".", "none"), tmp_path, tmp_path).values
    assert values["registered"] == "none" and values["geometry"] == "stars"
    cells = nbformat.read(process.notebook, as_version=4).cells
    assert not [cell for cell in cells if "lessons." in cell.source]
    assert "show_drizzled" in cells[-1].source


def test_a_run_leaves_image_weights_notebook_page_and_preview(target):
    called = [sys.executable, "-m", "stacklib.cli", "drizzle", str(target), "-p", "scale", "2"]
    how = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 300}
    run = subprocess.run(called, cwd=target, env=os.environ.copy(), **how)
    assert run.returncode == 0, run.stderr
    folder = target / "5_Integration"
    ends = {path.name.partition("_0000_")[2] for path in folder.iterdir()}
    made = ("frames.ecsv", "report.txt", "notebook.ipynb", "notebook.html", "preview.png", "weights.xisf")
    assert ends == {"drizzle.xisf", *(f"drizzle_{end}" for end in made)}
    assert "Drizzled image: 220 x 180 pixels" in run.stdout
    assert f"Frames: {target / '3_Calibrated'}" in run.stdout
    assert all(str(path) in run.stdout for path in folder.iterdir())
    left = Executed.read(next(folder.glob("*_notebook.ipynb")))
    assert left.result["numbers"]["used"] == 5 and left.result["numbers"]["scale"] == 2
    assert any("5 frames are few for drizzling" in note for note in left.notes)
    image = Frame(left.files[0]).read()
    assert image.shape == (3, 180, 220) and np.isfinite(image).all()
