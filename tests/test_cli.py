"""The command line: what it understands, what it refuses, and what a run leaves."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from astropy.io import fits
from conftest import ROOT, SAMPLES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import stacklib as sl
from stacklib import cli
from stacklib.commands.run import job_from_arguments
from stacklib.notebook import process as notebook_process
from stacklib.notebook import running
from stacklib.notebook.copies import own_copies
from stacklib.output import naming, saving
from stacklib.simulate import Session, simulate_frames
from stacklib.utils.file_sets import workroom

M13 = SAMPLES / "M13" / "4_Registered"


def command(*arguments: object, **variables: str) -> subprocess.CompletedProcess:
    called = [sys.executable, "-m", "stacklib.cli", *map(str, arguments)]
    how = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 300}
    return subprocess.run(called, cwd=ROOT, env=os.environ | variables, **how)


# what is understood ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("clip_low", "false", False),
        ("clip_low", "No", False),
        ("range_clip_high", "TRUE", True),
        ("sigma_high", "2.8", 2.8),
        ("sigma_high", "3", 3.0),
        ("min_max_low", "2", 2),
        ("min_max_low", "2.0", 2),
        ("rejection", "gesd", "gesd"),
        ("reference", "007", "007"),
    ],
)
def test_values_get_the_type_of_their_parameter(name, text, value):
    job, _ = job_from_arguments("here", [(name, text)])
    got = job.to_dict()[name]
    assert got == value and type(got) is type(value)


def test_job_file_comes_first_then_parameters_then_output(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("frames: [a.fits, b.fits]\nrejection: sigma\nsigma_low: 3.4\noutput: there\n", "utf-8")
    job, _ = job_from_arguments(str(path), [("sigma_low", "3.1"), ("sigma_high", "2.7")], "elsewhere")
    recipe = sl.Recipe(rejection="sigma", sigma_low=3.1, sigma_high=2.7)
    assert job == sl.Job(frames=["a.fits", "b.fits"], output="elsewhere", recipe=recipe)


@pytest.fixture
def jobs(monkeypatch) -> list[sl.Job]:
    """The jobs that would have been run."""
    begun: list[sl.Job] = []
    done = running.Run([], Path("notebook.ipynb"), Path("page.html"), None, "done")
    monkeypatch.setattr("stacklib.notebook.running.run_job", lambda job: begun.append(job) or done)
    return begun


def test_files_that_the_shell_names_are_one_set(jobs, tmp_path, capsys):
    paths = [shutil.copy(path, tmp_path) for path in sorted(M13.glob("*.fits"))[:3]]
    (tmp_path / "light_.seq").write_text("")
    fits.writeto(tmp_path / "m.fits", fits.getdata(paths[0]), fits.Header({"IMAGETYP": "Master Light"}))
    assert cli.main(["run", *map(str, sorted(tmp_path.iterdir())), "-p", "sigma_high", "2.8"]) == 0
    assert jobs == [sl.Job(frames=list(map(str, paths)), recipe=sl.Recipe(sigma_high=2.8))]
    said = capsys.readouterr().err
    assert "Note: light_.seq is left out" in said and "m.fits (a master (IMAGETYP" in said


def test_one_file_pattern_or_recipe_comes_as_it_is(jobs, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("frames: [a.fits]\nsigma_low: 3.4\n", "utf-8")
    for target in ("M13/*.fits", str(M13), str(recipe)):
        assert cli.main(["run", target]) == 0
    assert [job.frames for job in jobs] == ["M13/*.fits", str(M13), ["a.fits"]]
    assert cli.main(["run", str(recipe), str(M13)]) == 2
    assert "recipe.yaml: a job or recipe file comes alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "sigma_hihg", "2.8"), "unknown parameter 'sigma_hihg'; did you mean sigma_high?"),
        (("-p", "clip_low", "perhaps"), "clip_low: got 'perhaps', expected True or False"),
        (("-p", "sigma_low", "99"), "sigma_low: got 99.0, expected a number from 0.5 to 20"),
        (("-p", "sigma_low", "nan"), "sigma_low: got nan"),
        (("-p", "min_max_low", "1.5"), "min_max_low: got 1.5, expected a whole number"),
        (("-p", "rejection", "winsor"), "rejection: got 'winsor', expected one of auto"),
        (("-p", "sigma_low"), "-p"),
        (("--otput", "there"), "--otput"),
        (("-p", "memory", "lots"), "memory: got 'lots'"),
        (("-p", "sigma_low", "2", "-p", "sigma_low", "3"), "-p sigma_low: given 2 times"),
        (("-p", "frames", "elsewhere"), "-p frames: the frames are already given"),
        (("-p", "output", "elsewhere"), "-p output: given together with --output"),
        (("-p", "interactive", "true"), "-p interactive: a run from the command line is never interactive"),
        (("--sigma_high", "3"), "unknown argument '--sigma_high'; did you mean -p sigma_high 3?"),
        (("--sigma-high=3",), "did you mean -p sigma_high 3?"),
    ],
)
def test_wrong_calls_end_with_2_and_one_line(arguments, words, capsys, tmp_path):
    try:
        code = cli.main(["run", str(M13), "--output", str(tmp_path / "results"), *arguments])
    except SystemExit as end:  # argparse ends by itself
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and words in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("every", ["soon", "0", "nan"])
def test_time_between_two_looks_is_checked(every, capsys):
    with pytest.raises(SystemExit):
        cli.main(["watch", str(M13), "--every", every])
    assert f"--every: got {every}, expected 0.1 to 86400 seconds" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["nowhere", "nowhere.yaml", "README.md"])
def test_frames_that_cannot_be_used_are_named(target, capsys):
    assert cli.main(["run", target]) in (1, 2)
    printed = capsys.readouterr()
    assert target in printed.err and printed.err.startswith("stacklib: ") and "Traceback" not in printed.err


def test_output_that_cannot_be_made_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert cli.main(["run", str(M13), "--output", str(tmp_path / "file" / "results")]) == 1
    said = capsys.readouterr().err
    assert "choose another folder for the results: output in notebook 4, --output FOLDER" in said


@pytest.mark.parametrize("there", [False, True])
def test_read_only_folder_beside_the_frames_is_named(capsys, tmp_path, monkeypatch, there):
    make = Path.mkdir

    def refuse(path, *args, **kwargs):
        if there and not path.name.startswith(".stacklib-"):
            return make(path, *args, **kwargs)
        raise OSError(30, "Read-only file system")

    output = tmp_path / "5_Integration"
    if there:
        output.mkdir()
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cli.main(["run", str(M13), "--output", str(output)]) == 1
    said = capsys.readouterr().err
    assert "Read-only file system" in said and "--output FOLDER" in said and len(said.splitlines()) == 1


def test_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "errs.py").write_text("")
    error = NotADirectoryError(20, "Not a directory", str(tmp_path / "errs.py" / "x"))
    told = str(saving._folder_error(tmp_path / "errs.py" / "x", error))
    assert f"{tmp_path / 'errs.py'} is a file; choose another folder" in told


def test_date_that_is_none_is_refused():
    for date in ("2021-08-15", "20210815", datetime.datetime(2021, 8, 15, 22)):
        assert naming.base_name([], date) == "20210815_noobject_nocamera"
    for date in ("yesterday", "20211508", "2021-0815", "today 20210815"):
        with pytest.raises(sl.RecipeError, match=r"date: got '.*', expected YYYYMMDD or YYYY-MM-DD"):
            naming.base_name([], date)


def test_version_and_help(capsys):
    for arguments, words in ((["--version"], sl.__version__), (["--help"], "stacklib run recipe.yaml")):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0 and words in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2


def test_help_of_run_names_every_parameter(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    shown = capsys.readouterr().out
    for name in set(sl.Job.parameters() | sl.Recipe.parameters()) - {"interactive"}:
        assert f"\n  {name} " in shown or f"\n  {name}\n" in shown
    assert "interactive" not in shown


# runs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """One run of the mono sample into a folder that was not there, from a session of JupyterLab."""
    output = tmp_path_factory.mktemp("cli") / "new" / "results"
    arguments = ("sample_data/M13/4_Registered", "-p", "sigma_high", "2.8", "--output", output)
    done = command("run", *arguments, JPY_SESSION_NAME="4_integrate.ipynb")
    assert done.returncode == 0, done.stderr
    return done, output


def test_run_prints_where_everything_is(run):
    done, output = run
    paths = [Path(line) for line in done.stdout.splitlines() if line.startswith(str(output))]
    assert [path.name.removeprefix("20210815_M13_QSI583ws_0000") for path in paths] == [
        *(".xisf", "_rejection_low.xisf", "_rejection_high.xisf"),
        *("_frames.ecsv", "_report.txt", "_preview.png", "_notebook.ipynb", "_notebook.html"),
    ]
    assert all(path.stat().st_size for path in paths)
    assert sorted(paths) == sorted(output.iterdir())
    assert "\nsigma: rejected" in done.stdout
    # Progress is text, even where a session of JupyterLab is around.
    assert "12 frames integrated: 100%" in done.stdout


def test_run_always_says_what_happens(run):
    lines = run[0].stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if "frames measured" in line)
    assert lines[0] == "Reading the headers of the frames ..."
    assert any("12 frames" in line and "seconds" in line for line in lines[1:first])
    assert "Integrate and save ..." in lines[:first]
    assert any(line.endswith("Look at the image and the maps ...") for line in lines[first:])
    assert lines[-1] == f"Open {run[1] / '20210815_M13_QSI583ws_0000_notebook.html'} to see it."
    assert "eavesdropping" not in run[0].stdout + run[0].stderr


def test_run_keeps_the_notebook_with_its_parameters(run):
    content = nbformat.read(next(run[1].glob("*_notebook.ipynb")), as_version=4)
    injected = next(c.source for c in content.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert "sigma_high = 2.8" in injected and "interactive = False" in injected
    assert f'frames = "{M13}"' in injected.replace("\\\\", "\\")
    assert "sigma_low" not in injected


def test_run_takes_any_name_of_a_folder(tmp_path):
    name = "M31 {rejection} {} {0 [Ha] $a_$ 100% #1 & {frames}"
    folder = tmp_path / name / "4_Registered"
    night = simulate_frames(3, 48, 64, 1, session=Session(object_name="M 31"), seed=3)
    night.save(folder)
    done = command("run", folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert "Traceback" not in done.stderr and done.stdout.splitlines()[-1].startswith(f"Open {folder.parent}")
    assert len(list((folder.parent / "5_Integration").iterdir())) == 8


def test_failed_run_keeps_the_notebook_and_says_where(tmp_path):
    done = command("run", M13, "--output", tmp_path, "-p", "weights", "keyword", "-p", "weight_keyword", "NO")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Note: ")]
    assert lines[-2].startswith("stacklib: ") and "NO" in lines[-2]
    assert lines[-1].endswith(str(tmp_path / "failed_notebook.ipynb"))
    content = nbformat.read(tmp_path / "failed_notebook.ipynb", as_version=4)
    assert [o.ename for c in content.cells for o in c.get("outputs", []) if o.output_type == "error"]


def test_notebooks_are_never_overwritten(tmp_path):
    names = []
    for text in ("first", "second"):
        with workroom(tmp_path) as room:
            (room / "executed.ipynb").write_text(f'"{text}"')
            names.append(running._keep(room / "executed.ipynb", tmp_path, "m_notebook").name)
    assert names == ["m_notebook.ipynb", "m_notebook_2.ipynb"]
    assert (tmp_path / names[0]).read_text() == '"first"'
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_single_frame_starts_no_kernel(monkeypatch, tmp_path):
    monkeypatch.setattr(running, "finish", lambda _: pytest.fail("a kernel was started"))
    frame = min(path for path in M13.iterdir() if not path.name.startswith("."))
    with pytest.raises(sl.IntegrationError, match="is the only frame"):
        running.run_job(sl.Job(frames=str(frame), output=str(tmp_path / "results")))
    assert not (tmp_path / "results").exists()


FULL_DISK = """
import papermill
from pathlib import Path

def half(notebook, executed, *_, **__):
    Path(executed).write_text('{"cells": [')
    raise OSError(28, "No space left on device")

papermill.execute_notebook = half
"""


def test_full_disk_is_named_and_half_a_notebook_removed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(notebook_process, "CHILD", FULL_DISK + notebook_process.CHILD)
    assert cli.main(["run", str(M13), "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"stacklib: {tmp_path}: ") and "No space left on device" in printed
    assert "free space" in printed and "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_process_that_dies_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(notebook_process, "CHILD", "import os; os._exit(9)")
    assert cli.main(["run", str(M13), "--output", str(tmp_path)]) == 1
    assert "ended with code 9" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_interrupt_leaves_nothing_behind(tmp_path):
    output = tmp_path / "results"
    called = [sys.executable, "-u", "-m", "stacklib.cli", "run", str(M13), "--output", str(output)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(called, cwd=ROOT, start_new_session=True, **pipes) as process:
        # Then the kernel is at work.
        first = next(line for line in process.stdout if line.startswith("Parameters"))
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert first and process.returncode == 130
    assert said.splitlines()[-1] == "stacklib: stopped" and "Traceback" not in said and "Socket" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_run_that_is_told_to_end_does_so_in_order(monkeypatch, capsys, name):
    number, before = getattr(signal, name, None), []
    if os.name == "nt" or number is None:
        pytest.skip("no such signal")

    def run(job):
        try:
            os.kill(os.getpid(), number)
        finally:
            before.append("cleared")

    usual = signal.getsignal(number)
    monkeypatch.setattr("stacklib.notebook.running.run_job", run)
    assert cli.main(["run", str(M13)]) == 128 + number
    assert before == ["cleared"] and capsys.readouterr().err.splitlines()[-1] == "stacklib: stopped"
    assert signal.getsignal(number) == usual


# lab ---------------------------------------------------------------------------------------------


@pytest.fixture
def called(monkeypatch) -> list[list[str]]:
    """The commands that would have been run."""
    commands = []
    monkeypatch.setattr(
        "stacklib.commands.lab.subprocess.call", lambda command: commands.append(command) or 0
    )
    return commands


def test_lab_opens_own_copies_of_the_notebooks(called, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lab", "--no-browser"]) == 0
    names = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    copies = tmp_path / "stacklib_notebooks"
    assert sorted(path.name for path in copies.glob("*.ipynb")) == names
    assert called[0][1:4] == ["-P", "-m", "jupyterlab"] and f"--ServerApp.root_dir={tmp_path}" in called[0]
    assert called[0][-2:] == [f"--LabApp.default_url=/lab/tree/stacklib_notebooks/{names[0]}", "--no-browser"]
    assert capsys.readouterr().out == f"Your notebooks are in {copies}\n"


def test_copies_are_never_overwritten_and_changes_of_the_original_are_said(monkeypatch, tmp_path, capsys):
    def write(path: Path, text: str) -> None:
        cells = [new_markdown_cell("# Title"), new_markdown_cell("## Check the noise"), new_code_cell(text)]
        nbformat.write(new_notebook(cells=cells), path)

    originals, copies = tmp_path / "originals", tmp_path / "copies"
    originals.mkdir()
    write(originals / "4_integrate.ipynb", "1 + 1")
    own_copies(originals, copies)
    own = copies / "4_integrate.ipynb"
    own.write_text("changed by the user")
    for words in ([], ["4_integrate.ipynb", "has changed since you made your copy (Check the noise)"]):
        capsys.readouterr()
        own_copies(originals, copies)
        said = capsys.readouterr().out
        assert own.read_text() == "changed by the user"
        assert all(word in said for word in words) and said.count("\n") == 1 + bool(words)
        write(originals / "4_integrate.ipynb", "2 + 2")
    # Somebody who renames the copy gets the new one.
    own.rename(copies / "mine.ipynb")
    own_copies(originals, copies)
    assert "2 + 2" in own.read_text() and "changed since" not in capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(sl.SaveError, match="start stacklib lab in another folder"):
        own_copies(originals, tmp_path / "file")


# which notebook and which choices ----------------------------------------------------------------


def test_the_command_line_runs_the_notebook_with_its_defaults(monkeypatch, tmp_path):
    """Even if somebody has edited the parameters cell of the original."""
    folder, room = tmp_path / "notebooks", tmp_path / "room"
    shutil.copytree(ROOT / "notebooks", folder)
    room.mkdir()
    path = folder / running.NOTEBOOK
    content = nbformat.read(path, as_version=4)
    cell = next(cell for cell in content.cells if "parameters" in cell.metadata.get("tags", []))
    usual, cell.source = cell.source, 'recipe_file = "another.yaml"\nsigma_high = 1.5'
    nbformat.write(content, path)
    monkeypatch.setattr(running, "notebooks_folder", lambda: folder)
    process = running.process_for(sl.Job(frames=str(M13)), tmp_path, room)
    run = nbformat.read(process.notebook, as_version=4)
    assert next(c for c in run.cells if "parameters" in c.metadata.get("tags", [])).source == usual
    assert process.values["recipe_file"] == "none" and "sigma_high" not in process.values


def test_choices_of_the_target_are_used_and_overridden(tmp_path):
    shutil.copytree(M13, tmp_path / "M13" / "4_Registered")
    file = tmp_path / "M13" / "recipe.yaml"
    file.write_text("frames: ['4_Registered/*_00[1-5]_*']\nsigma_high: 2.5\nsigma_low: 3.4\n", "utf-8")
    for target in ("M13", "M13/4_Registered", "M13/recipe.yaml"):
        job, line = job_from_arguments(str(tmp_path / target), [("sigma_high", "2.9")])
        assert (job.recipe.sigma_low, job.recipe.sigma_high) == (3.4, 2.9)
        assert len(sl.open_frames(job.frames)) == 5 and line.startswith("M13, ")
    job, line = job_from_arguments(str(tmp_path / "M13"), [("recipe_file", "none")])
    assert job == sl.Job(frames=str(tmp_path / "M13")) and "settings as given" in line
    # A recipe without frames means those that it lies beside; without any there is nothing to integrate.
    file.write_text("sigma_high: 2.5\n", "utf-8")
    job, _ = job_from_arguments(str(file))
    assert len(sl.open_frames(job.frames)) == 12 and job.recipe.sigma_high == 2.5
    file = file.rename(tmp_path / "alone.yaml")
    with pytest.raises(sl.RecipeError, match=r"alone\.yaml: lists no frames; add -p frames FOLDER"):
        job_from_arguments(str(file))
    job, _ = job_from_arguments(str(file), [("frames", str(M13))])
    assert job.frames == str(M13) and job.recipe.sigma_high == 2.5
