"""What is imported when: nothing that takes long before it is needed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLES

from stacklib import cli

#: Packages that take longer to import than a command takes to answer.
HEAVY = {
    *("numba", "llvmlite", "scipy", "matplotlib", "astropy", "sep", "drizzle", "dask", "distributed"),
    *("IPython", "ipywidgets", "anywidget", "itables", "papermill", "nbformat", "jinja2", "PIL"),
}
COMMANDS = tuple(cli.COMMANDS)
M13 = str(SAMPLES / "M13" / "4_Registered")

#: Calls `main` as the console script does, and prints which packages are there at the end.
CALL = """
import json, sys
from stacklib.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def packages_after(code: str, *arguments: str) -> tuple[int, set[str]]:
    """Run code in a process of its own, which ends by printing a status and the packages it has imported."""
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, cwd=ROOT)
    status, packages = json.loads(ran.stdout.splitlines()[-1])
    return status, set(packages)


def test_the_package_itself_imports_next_to_nothing():
    code = "import json, sys, stacklib\nprint(json.dumps([0, [n.partition('.')[0] for n in sys.modules]]))"
    _, packages = packages_after(code)
    assert "stacklib" in packages and not packages & (HEAVY | {"numpy", "yaml"})


def test_the_list_of_commands_imports_next_to_nothing():
    status, packages = packages_after(CALL, "--help")
    assert status == 0 and not packages & (HEAVY | {"numpy", "yaml"})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    status, packages = packages_after(CALL, command, "--help")
    assert status == 0 and not packages & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "no_such_folder"],
        ["run", M13, "-p", "sigma_hih", "3"],
        ["run", M13, "-p", "sigma_high", "300"],
        ["run", M13, "--sigma_high", "3"],
        ["batch", M13, "-p", "sigma_hih", "3"],
        ["drizzle", M13, "-p", "scale", "300"],
        ["rerun", "no_such_file.xisf"],
        ["sample", M13, "--count", "0"],
    ],
)
def test_mistakes_are_told_before_anything_heavy_is_imported(arguments):
    status, packages = packages_after(CALL, *arguments)
    assert status in (1, 2) and not packages & HEAVY


@pytest.mark.parametrize("call", ["open_frames({})", "integrate({}, progress=False)"])
def test_fits_frames_are_opened_and_integrated_without_astropy(call):
    code = f"import json, sys, stacklib\nstacklib.{call.format(repr(M13))}\n"
    code += "print(json.dumps([0, [n.partition('.')[0] for n in sys.modules]]))"
    _, packages = packages_after(code)
    assert "numpy" in packages and "astropy" not in packages


@pytest.mark.parametrize(
    "stub", sorted((ROOT / "stacklib").rglob("__init__.pyi")), ids=lambda s: s.parent.name
)
def test_every_public_name_of_a_stub_is_there(stub):
    """They are imported on first use: a misspelt one would be missed only then."""
    package = importlib.import_module(".".join(stub.parent.relative_to(ROOT).parts))
    assert package.__all__ and all(hasattr(package, name) for name in package.__all__)


def test_the_first_notebook_imports_no_figures():
    """What its panel does not need would double the time until it is seen."""
    used = "from stacklib.notebook import read_parameters, show_panel, show_table\n"
    used += "from stacklib.panels import FolderChooser, FrameSelector\n"
    found = "import json, sys\nprint(json.dumps([0, [n.partition('.')[0] for n in sys.modules]]))"
    _, packages = packages_after(used + found)
    assert "anywidget" in packages and not packages & {"matplotlib", "drizzle", "papermill", "nbformat"}
