"""The notebooks: their parameters are the recipe's, they hold no outputs, and they run without a person."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import IPython
import nbformat
import numpy as np
import pytest
from conftest import ROOT, SAMPLES

import stacklib as sl
from stacklib.commands.run import job_from_arguments
from stacklib.formats import xisf
from stacklib.notebook import session as notebook
from stacklib.notebook.parameters import (
    FIRST,
    RECIPE_FILE,
    WIDTH,
    ChooseRejection,
    HowIntegrationWorks,
    InspectRejection,
    SelectFrames,
    cell_parameters,
    parameters_cell,
)
from stacklib.notebook.parameters import (
    NOTEBOOKS as KINDS,
)
from stacklib.recipe.batch_job import BatchJob
from stacklib.recipe.presets import PRESET

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REAL = ROOT.parent / "shared" / "data"
INTEGRATE = ROOT / "notebooks" / "4_integrate.ipynb"
BATCH = ROOT / "notebooks" / "5_batch.ipynb"
#: The parameters of each notebook; they come from the package.
MADE = {path: cell_parameters(KINDS[path.stem]) for path in NOTEBOOKS}

#: Drawing into these hangs notebooks that run without a browser, every now and then.
HANGING = re.compile(r"\bOutput\(|\binteract\(|\binteractive_output\b|\binteractive\(")


def read(path: Path) -> nbformat.NotebookNode:
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    return content


def code_cells(content: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in content.cells if cell.cell_type == "code"]


def is_parameters(cell: nbformat.NotebookNode) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def papermill(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=300)


# what is in git ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    content = read(path)
    assert content.metadata.kernelspec.name == "python3"
    assert content.metadata.language_info.name == "python"
    assert sum(map(is_parameters, code_cells(content))) == 1
    for cell in code_cells(content):
        assert not cell.outputs and cell.execution_count is None, f"stored output of: {cell.source}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_define_nothing(path):
    for cell in code_cells(read(path)):
        tree = ast.parse(cell.source)
        assert is_parameters(cell) or len(cell.source.splitlines()) <= 8, cell.source
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))


def test_nothing_draws_where_it_could_hang():
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "stacklib").rglob("*.py")}
    for path in NOTEBOOKS:
        sources[path] = "\n".join(cell.source for cell in code_cells(read(path)))
    assert not [path.name for path, text in sources.items() if HANGING.search(text)]


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_parameters_cell_equals_the_package(path):
    cell = next(cell for cell in code_cells(read(path)) if is_parameters(cell))
    assert cell.source == parameters_cell(KINDS[path.stem]), (
        f"write it anew with: python -m stacklib.notebook.session notebooks/{path.name}"
    )


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_parameters_cell_is_readable(path):
    lines = parameters_cell(KINDS[path.stem]).splitlines()
    assert not [line for line in lines if len(line) > WIDTH]


def test_what_a_line_does_not_hold_is_written_above_it():
    cell = parameters_cell(sl.Job)
    assert cell.index("# none, exposure, noise, snr") < cell.index("weights: str =") < cell.index("# The run")


def test_parameters_are_those_of_the_package():
    assert MADE[BATCH] == BatchJob.parameters()
    own = {RECIPE_FILE.name: RECIPE_FILE, PRESET.name: PRESET}
    assert MADE[INTEGRATE] == sl.Job.parameters() | own | sl.Recipe.parameters()
    assert tuple(MADE[INTEGRATE])[:9] == FIRST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_cell_can_be_written_anew(path, tmp_path):
    stale, copy = read(path), tmp_path / path.name
    next(cell for cell in code_cells(stale) if is_parameters(cell)).source = "frames: str = ''"
    nbformat.write(stale, copy)
    assert notebook.refresh_parameters(copy)
    assert read(copy) == read(path)
    assert not notebook.refresh_parameters(copy)


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_help_lists_every_parameter(path):
    shown = papermill("--help-notebook", path).stdout
    for name, parameter in MADE[path].items():
        kind = "str" if parameter.kind is list else parameter.kind.__name__
        default = json.dumps(parameter.default) if isinstance(parameter.default, str) else parameter.default
        assert f"  {name}: {kind} (default {default})" in shown
        assert parameter.help in shown
    assert shown.count("(default ") == len(MADE[path])


# from parameters to a job ------------------------------------------------------------------------


def namespace(**changes: object) -> dict[str, object]:
    """The variables of a notebook after its parameters cell."""
    variables: dict[str, object] = {"__name__": "__main__", "In": ["", "x"], "exit": object()}
    exec(parameters_cell(sl.Job), variables)
    return variables | changes


def test_defaults_make_the_default_job():
    assert notebook.read_parameters(sl.Job, namespace()) == sl.Job()


def test_job_takes_parameters_and_nothing_else():
    job = notebook.read_parameters(
        sl.Job, namespace(sigma_high=2, frames=["a.fits", "b.fits"], other=3, Recipe=sl.Recipe)
    )
    assert job == sl.Job(frames=["a.fits", "b.fits"], recipe=sl.Recipe(sigma_high=2.0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_low", "false"),
        ("sigma_high", "2.8"),
        ("sigma_low", 99),
        ("rejection", "winsorised"),
        ("frames", []),
    ],
)
def test_wrong_values_are_refused_by_name(name, value):
    with pytest.raises(sl.RecipeError, match=rf"{name}: got .*expected"):
        notebook.read_parameters(sl.Job, namespace(**{name: value}))


def test_misspelt_parameter_is_refused():
    with pytest.raises(sl.RecipeError, match=r"sigma_hihg.*did you mean sigma_high"):
        notebook.read_parameters(sl.Job, namespace(sigma_hihg=2.8))


def test_a_recipe_file_gives_the_recipe_and_the_frames_that_it_names(tmp_path):
    path = sl.Recipe(rejection="sigma", sigma_high=2.5).save(tmp_path / "recipe.yaml")
    job = notebook.read_parameters(sl.Job, namespace(recipe_file=path))
    assert (job.frames, job.recipe) == (sl.Job().frames, sl.Recipe(rejection="sigma", sigma_high=2.5))
    path.write_text("frames: [a.fits, b.fits]\nsigma_high: 2.5\n", encoding="utf-8")
    for left in (sl.Job().frames, ""):
        assert notebook.read_parameters(sl.Job, namespace(frames=left, recipe_file=path)).frames == [
            "a.fits",
            "b.fits",
        ]
    job = notebook.read_parameters(sl.Job, namespace(frames="somewhere else", recipe_file=path))
    assert (job.frames, job.recipe.sigma_high) == ("somewhere else", 2.5)


def test_frames_of_a_recipe_file_are_looked_for_beside_it(tmp_path, monkeypatch):
    """Not in the current folder, where others may have the same names; the command line does so, too."""
    for name in ("M31", "M33"):
        (tmp_path / name / "4_Registered").mkdir(parents=True)
        (tmp_path / name / "4_Registered" / "light.fits").touch()
    file = tmp_path / "M33" / "recipe.yaml"
    file.write_text("frames: [4_Registered/light.fits, 4_Registered/gone.fits]\n", "utf-8")
    monkeypatch.chdir(tmp_path / "M31")
    expected = [str(tmp_path / "M33" / "4_Registered" / "light.fits"), "4_Registered/gone.fits"]
    given = {"interactive": False, "recipe_file": "../M33/recipe.yaml"}
    assert notebook.read_parameters(sl.Job, given).frames == expected
    assert job_from_arguments("../M33/recipe.yaml")[0].frames == expected


def test_what_was_changed_counts_more_than_the_recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("frames: there\nsigma_high: 2.5\nsigma_low: 3.4\nmemory: 1GB\ninteractive: false\n")
    job = notebook.read_parameters(sl.Job, namespace(sigma_high=2.7, save_maps=True, recipe_file=path))
    recipe = sl.Recipe(sigma_high=2.7, sigma_low=3.4)
    assert job == sl.Job(frames="there", memory="1GB", save_maps=True, recipe=recipe)
    with pytest.raises(sl.RecipeError, match=r"recipe_file: got 3\.5, expected text"):
        notebook.read_parameters(sl.Job, namespace(recipe_file=3.5))
    with pytest.raises(sl.RecipeError, match=r"recipe_fil'; did you mean recipe_file\?"):
        notebook.read_parameters(sl.Job, namespace(recipe_fil="recipe.yaml"))


def target(folder: Path, text: str = "", count: int = 5) -> Path:
    """Make a target with some frames of M 13, and choices for it."""
    lights = folder / "4_Registered"
    lights.mkdir(parents=True)
    for file in sorted((SAMPLES / "M13" / "4_Registered").glob("*.fits"))[:count]:
        shutil.copyfile(file, lights / file.name.replace("M13_L", folder.name))
    if text:
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


def test_saved_choices_are_found_by_the_frames_alone(tmp_path, capsys):
    names = [f"M1_060s_00{number}_c_d_r.fits" for number in (1, 2, 4)]
    listed = [f"4_Registered/{name}" for name in names]
    one = target(tmp_path / "M1", f"frames: {listed}\nrejection: sigma\nsigma_high: 2.5\noutput: there\n")
    two, job = target(tmp_path / "M2"), sl.Job()
    for frames in (one, one / "4_Registered"):
        job = notebook.read_parameters(sl.Job, namespace(frames=str(frames)))
        assert [Path(frame).name for frame in job.frames] == names
        assert job.output == str(one / "there") and job.recipe == sl.Recipe(rejection="sigma", sigma_high=2.5)
        said = capsys.readouterr().out
        assert said.startswith("M1, 5 frames, your choices of ") and said.count("\n") == 1
        assert "3 frames, sigma 3.2 / 2.5. Left out: M1_060s_003_c_d_r.fits, M1_060s_005_c_d_r.fits." in said
    # Nothing reaches the other target, nor a run that asks for no choices.
    other = notebook.read_parameters(sl.Job, namespace(frames=str(two)))
    assert (other.frames, other.output, other.recipe) == (str(two), "", sl.Recipe())
    assert capsys.readouterr().out == "M2, 5 frames, no saved choices: winsorized sigma 3.2 / 2.9.\n"
    given = namespace(frames=str(one), recipe_file="none")
    assert notebook.read_parameters(sl.Job, given) == sl.Job(frames=str(one))
    assert "settings as given" in capsys.readouterr().out
    # Frames that are named one by one are used as named, with the settings.
    job = notebook.read_parameters(
        sl.Job, namespace(frames=str(one / "4_Registered" / "*_00[35]_*"), sigma_low=3.4)
    )
    assert job.frames.endswith("*_00[35]_*") and (job.recipe.sigma_low, job.recipe.sigma_high) == (3.4, 2.5)
    chosen = notebook.read_parameters(ChooseRejection, {"frames": str(one), "interactive": False})
    assert [Path(frame).name for frame in chosen.frames] == names and chosen.recipe.sigma_high == 2.5
    everything = notebook.read_parameters(SelectFrames, {"frames": str(one), "interactive": False})
    assert everything.frames == str(one)


def test_the_line_about_choices_names_what_was_changed_and_what_is_new(tmp_path, capsys):
    folder = target(tmp_path / "M1", "frames: [4_Registered/M1_060s_001_c_d_r.fits]\nsigma_high: 2.5\n")
    new = folder / "4_Registered" / "M1_060s_009_c_d_r.fits"
    new.write_bytes((SAMPLES / "M13" / "4_Registered" / "M13_L_060s_009_c_d_r.fits").read_bytes())
    later = time.time() + 60
    os.utime(new, (later, later))
    notebook.read_parameters(sl.Job, namespace(frames=str(folder), sigma_high=2.7))
    said = capsys.readouterr().out
    assert "Newer than your choices: M1_060s_009_c_d_r.fits; notebook 1 selects" in said
    assert "Changed here: sigma_high 2.7." in said


def test_the_line_names_parameters_without_effect_and_frames_elsewhere(tmp_path, capsys):
    plain, other = target(tmp_path / "M1"), target(tmp_path / "M2")
    given = namespace(frames=str(plain), rejection="percentile", sigma_low=2.5, range_high=0.9)
    notebook.read_parameters(sl.Job, given)
    said = capsys.readouterr().out
    words = "sigma_low (not used by percentile), range_high (range_clip_high is off)"
    assert said == f"M1, 5 frames, no saved choices: percentile 0.2 / 0.1. Without effect: {words}.\n"
    files = ["4_Registered/M1_060s_001_c_d_r.fits", str(other / "4_Registered" / "M2_060s_001_c_d_r.fits")]
    (plain / "recipe.yaml").write_text(f"frames: {files}\nrange_high: 0.9\n", encoding="utf-8")
    notebook.read_parameters(sl.Job, namespace(frames=str(plain)))
    said = capsys.readouterr().out
    assert said.endswith("Not used: 1 frame that it lists in other folders.\n") and "Without" not in said


def test_frames_can_be_selected_again_after_one_has_gone(tmp_path, capsys):
    folder = target(tmp_path / "M1", "frames: [4_Registered/M1_060s_001_c_d_r.fits, gone.fits]\n")
    with pytest.raises(sl.RecipeError, match=r"gone\.fits, which does not exist; select frames again"):
        notebook.read_parameters(ChooseRejection, {"frames": str(folder), "interactive": False})
    read = notebook.read_parameters(SelectFrames, {"frames": str(folder), "interactive": False})
    assert read.frames == str(folder)
    assert (
        "recipe.yaml: names gone.fits, which does not exist; select frames again" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sigma_hihg: 2.5", r"recipe\.yaml: unknown parameter 'sigma_hihg'; did you mean sigma_high"),
        (
            "frames: [4_Registered/gone.fits]",
            r"recipe\.yaml: names no frame in .*4_Registered; select frames again",
        ),
        (
            "frames: [4_Registered/M1_060s_001_c_d_r.fits, 4_Registered/gone.fits]",
            r"recipe\.yaml: names 4_Registered/gone\.fits, which does not exist; select frames again",
        ),
    ],
)
def test_choices_that_cannot_be_used_are_refused(text, message, tmp_path):
    folder = target(tmp_path / "M1", text)
    with pytest.raises(sl.RecipeError, match=message):
        notebook.read_parameters(sl.Job, namespace(frames=str(folder)))
    (folder / "job.yaml").write_text("sigma_high: 2.5")
    with pytest.raises(sl.RecipeError, match=r"holds recipe\.yaml and job\.yaml; keep one"):
        notebook.read_parameters(sl.Job, namespace(frames=str(folder)))


def test_a_corrected_name_is_forgotten():
    """The kernel remembers it; the parameters cell does not."""
    cells = ["frames: str = 'a'\nmemory: str = '1GB'\nsave_fits: bool = False\nsigma_hihg: float = 2.7"]
    remembered = {"frames": "a", "memory": "1GB", "save_fits": False, "sigma_hihg": 2.7, "interactive": False}
    with pytest.raises(sl.RecipeError, match="sigma_hihg"):
        notebook.read_parameters(sl.Job, remembered | {"In": cells})
    cells += ["read()", cells[0].replace("hihg", "high"), "# Parameters\nmemory = '2GB'", "read()"]
    job = notebook.read_parameters(sl.Job, remembered | {"sigma_high": 2.7, "In": cells})
    assert job.recipe.sigma_high == 2.7
    # A wrong name that papermill injects, or that is tried in a cell below, is still refused.
    with pytest.raises(sl.RecipeError, match="sigma_hihg"):
        notebook.read_parameters(sl.Job, remembered | {"In": [*cells, "sigma_hihg = 2.5"]})


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (HowIntegrationWorks, {"count": "abc"}, "count: got 'abc', expected a whole number from 8 to 100"),
        (HowIntegrationWorks, {"interactive": "maybe"}, "interactive: got 'maybe', expected True or False"),
        (
            SelectFrames,
            {"recipe_file": "nowhere/r.yaml"},
            "recipe_file: there is no folder .*nowhere",
        ),
        (
            SelectFrames,
            {"recipe_fil": "r.yaml"},
            r"'recipe_fil'; did you mean recipe_file\?",
        ),
        (ChooseRejection, {"left": "abc"}, "left: got 'abc', expected a whole number"),
        (ChooseRejection, {"width": -20}, "width: got -20, expected a whole number from 0"),
        (ChooseRejection, {"recipe_fil": "r.yaml"}, r"did you mean recipe_file\?"),
        (ChooseRejection, {"save": "yes"}, "save: got 'yes', expected True or False"),
        (ChooseRejection, {"recipe_file": "."}, r"recipe_file: \. is a folder"),
        (ChooseRejection, {"recipe_file": "nowhere/r.yaml"}, "recipe_file: there is no folder"),
        (InspectRejection, {"recipe_file": "nowhere/r.yaml"}, "nowhere/r.yaml: cannot be read"),
        (ChooseRejection, {"recipe_file": "notes.yaml"}, "notes.yaml: .*'milk'"),
        (InspectRejection, {"x": "a"}, "x: got 'a', expected a whole number"),
        (InspectRejection, {"x": 5}, "y: got -1 beside x 5; give both"),
        (InspectRejection, {"y": 5}, "x: got -1 beside y 5; give both"),
        (InspectRejection, {"channel": 1.5}, "channel: got 1.5, expected a whole number"),
    ],
)
def test_own_parameters_are_checked_before_the_work(kind, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.yaml").write_text("milk: 2\n")
    with pytest.raises(sl.RecipeError, match=message):
        notebook.read_parameters(kind, given)


@pytest.mark.parametrize(
    ("pixel", "message"),
    [
        ({"x": 320, "y": 3}, "x: got 320, expected 0 to 319"),
        ({"x": 3, "y": 256}, "y: got 256, expected 0 to 255"),
        ({"channel": 1}, "channel: got 1, expected 0 to 0 for these frames"),
    ],
)
def test_a_pixel_outside_is_refused_before_the_frames_are_integrated(pixel, message):
    frames = {"frames": str(SAMPLES / "M13" / "4_Registered")}
    with pytest.raises(sl.RecipeError, match=message):
        notebook.read_parameters(InspectRejection, frames | pixel).open_frames()
    inside = {"x": 319, "y": 255, "channel": 0}
    assert len(notebook.read_parameters(InspectRejection, frames | inside).open_frames()) == 12


def test_no_advice_is_said_and_the_notebook_goes_on(capsys):
    def advice():
        raise sl.IntegrationError("3 frames are too few")

    assert notebook.show_advice(SimpleNamespace(advice=advice)) is None
    assert capsys.readouterr().out == "No suggestion: 3 frames are too few\n"


@pytest.mark.parametrize("variable", ["JPY_SESSION_NAME", "VOILA_KERNEL_ID"])
def test_live_needs_both_the_wish_and_a_browser(monkeypatch, variable):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.delenv("VOILA_KERNEL_ID", raising=False)
    assert not notebook.is_live(True)
    monkeypatch.setenv(variable, "something")
    assert notebook.is_live(True) and not notebook.is_live(False)


# runs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> nbformat.NotebookNode:
    """The integration notebook as papermill leaves it, with a recipe file and parameters."""
    folder = tmp_path_factory.mktemp("papermill")
    sl.Recipe(rejection="sigma", sigma_high=2.8).save(folder / "recipe.yaml")
    run = papermill(
        *(INTEGRATE, folder / "out.ipynb", "-f", folder / "recipe.yaml"),
        *("-p", "frames", SAMPLES / "M13" / "4_Registered", "-p", "output", folder / "results"),
        *("-p", "sigma_low", "3.4"),
        folder=folder,
    )
    assert run.returncode == 0, run.stderr
    return read(folder / "out.ipynb")


def outputs(content: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in code_cells(content) for output in cell.outputs]


def test_papermill_runs_the_notebook(executed):
    printed = "".join(output.text for output in outputs(executed) if output.output_type == "stream")
    for line in ("rejection: sigma", "sigma_low: 3.4 sigma", "sigma_high: 2.8 sigma"):
        assert line in printed
    assert not [output for output in outputs(executed) if output.output_type == "error"]


def test_a_run_leaves_figures_tables_and_text(executed):
    shown = [kind for output in outputs(executed) for kind in output.get("data", {})]
    assert shown.count("image/png") == 4
    assert shown.count("text/html") == 1
    words = [
        output.metadata["image/png"].alt
        for output in outputs(executed)
        if "image/png" in output.get("data", {})
    ]
    assert "The noise of 12 frames is" in "\n".join(words) and all(words)
    assert not [kind for kind in shown if "widget" in kind]


def test_a_run_says_where_its_files_are(executed):
    known = [
        o.data[notebook.RESULT_MIME] for o in outputs(executed) if notebook.RESULT_MIME in o.get("data", {})
    ]
    names = [Path(file).name for file in known[0]["files"]]
    assert names[:3] == [
        f"20210815_M13_QSI583ws_0000{part}.xisf" for part in ("", "_rejection_low", "_rejection_high")
    ]
    assert all(Path(file).is_file() for file in known[0]["files"])
    assert known[0]["summary"].startswith("12 of 12 frames")


def test_warnings_are_notes_without_paths(executed):
    notes = [o.text for o in outputs(executed) if o.output_type == "stream" and o.name == "stderr"]
    assert all(note.startswith("Note: ") and "ipykernel" not in note for note in notes)


def test_papermill_shows_what_is_wrong(tmp_path):
    run = papermill(INTEGRATE, tmp_path / "out.ipynb", "-p", "clip_low", "false", "-p", "sigma_high", "2.8")
    assert run.returncode != 0
    assert "clip_low: got 'false', expected True or False" in run.stderr


# Others are run by tests further down, the batch by those of batches.
@pytest.mark.parametrize("stem", ["0_how_integration_works", "3_inspect_rejection", "6_drizzle"])
def test_notebook_runs_without_a_browser(stem, tmp_path):
    # A copy: results do not end up in the project.
    results = shutil.ignore_patterns("5_Integration", ".stacklib*", "batch.*")
    shutil.copytree(SAMPLES, tmp_path / "sample_data", ignore=results)
    shown = run_without_a_browser(stem, tmp_path, "-y", "interactive: false")
    if stem != "6_drizzle":
        assert by_hand_and_library(shown)


def run_without_a_browser(stem: str, folder: Path, *arguments: object) -> nbformat.NotebookNode:
    """Run a notebook: it shows pictures, and nothing that needs a person."""
    out = folder / "out.ipynb"
    run = papermill(ROOT / "notebooks" / f"{stem}.ipynb", out, *arguments, folder=folder)
    assert run.returncode == 0, run.stderr
    shown = [kind for output in outputs(read(out)) for kind in output.get("data", {})]
    assert "image/png" in shown and not [kind for kind in shown if "widget" in kind]
    return read(out)


def by_hand_and_library(content: nbformat.NotebookNode) -> bool:
    """Return whether numbers worked out by hand are printed, and are those of the library."""
    printed = "".join(output.text for output in outputs(content) if output.output_type == "stream")
    by_hand, library = (re.findall(rf"^{name}: (.+)$", printed, re.M) for name in ("by hand", "library"))
    return bool(by_hand) and by_hand == library


def test_weights_by_hand_are_those_of_the_library(executed):
    assert by_hand_and_library(executed)


def test_choosing_rejection_goes_on_without_a_suggestion(tmp_path):
    frames = [str(file) for file in sorted((SAMPLES / "M13" / "4_Registered").glob("*.fits"))[:3]]
    path = ROOT / "notebooks" / "2_choose_rejection.ipynb"
    run = papermill(path, tmp_path / "out.ipynb", "-y", f"frames: {json.dumps(frames)}", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    printed = "".join(o.get("text", "") for o in outputs(read(tmp_path / "out.ipynb")))
    assert "No suggestion: " in printed and "Not saved yet" in printed


def test_a_choice_is_handed_on_from_notebook_to_notebook(tmp_path):
    """Frames of the first, settings of the second, both in what the last one integrates."""
    folder = tmp_path / "lights"
    shutil.copytree(SAMPLES / "M13" / "4_Registered", folder)
    out, given = tmp_path / "out.ipynb", ("-p", "frames", "lights")
    save = ("-y", "{interactive: false, save: true}")
    run_without_a_browser("1_select_frames", tmp_path, *given, *save)
    run_without_a_browser("2_choose_rejection", tmp_path, *given, "-p", "sigma_high", "2.6", *save)
    job, before = sl.Job.load(folder / "recipe.yaml"), (folder / "recipe.yaml").read_bytes()
    assert len(job.frames) == 11 and job.recipe.sigma_high == 2.6
    run = papermill(INTEGRATE, out, *given, "-p", "output", "results", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    shown = outputs(read(out))
    printed = "".join(output.get("text", "") for output in shown)
    assert "sigma_high: 2.6 sigma" in printed and "lights, 12 frames, your choices of " in printed
    (known,) = (o.data[notebook.RESULT_MIME] for o in shown if notebook.RESULT_MIME in o.get("data", {}))
    assert known["summary"].startswith("11 of 11 frames")
    # Running the first one again changes nothing.
    run = papermill(NOTEBOOKS[1], out, *given, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (folder / "recipe.yaml").read_bytes() == before


def test_a_notebook_runs_on_frames_of_a_real_camera(tmp_path):
    folder = REAL / "hatp32_reg40"
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not here")
    # Links: measurements are kept beside the frames, and there they must not be.
    (tmp_path / "lights").mkdir()
    for file in folder.glob("*.fit*"):
        (tmp_path / "lights" / file.name).symlink_to(file)
    run_without_a_browser(
        "3_inspect_rejection", tmp_path, "-p", "frames", "lights", "-y", "interactive: false"
    )


def test_notes_are_there_again_when_a_notebook_is_run_again(monkeypatch, tmp_path):
    for name in "LR":
        light = np.random.default_rng(ord(name)).random((1, 8, 8), np.float32)
        xisf.write_image(tmp_path / f"{name}.xisf", light, image_id="x", keywords=[("FILTER", name, "")])
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    settings = InspectRejection(frames=str(tmp_path), x=1, y=1)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("default")
        for count in (1, 2):
            notebook.set_up_session()
            settings.open_frames()
            assert len(notes) == count and "filter (L in 1, R in 1)" in str(notes[-1].message)
