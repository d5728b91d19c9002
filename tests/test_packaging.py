"""What surrounds the code holds together: packages, environments, commands, pictures."""

from __future__ import annotations

import os
import re
import tomllib

import pytest
import yaml
from conftest import ROOT
from test_house import ROOMS

import stacklib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_version_is_the_same_everywhere():
    assert PROJECT["project"]["version"] == stacklib.__version__
    assert f"## {stacklib.__version__}" in read("CHANGELOG.md")


def test_every_package_is_in_the_wheel():
    packages = {path.parent.relative_to(ROOT) for path in (ROOT / "stacklib").rglob("*.py")}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in packages)
    assert "find_packages" in read("setup.py")
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"stacklib.notebooks": "notebooks"}


def test_environment_mirrors_pyproject():
    environment = yaml.safe_load(read("environment.yml"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, *listed, last = environment["dependencies"]
    assert (python, pip) == ("python=3.12", "pip")
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + extras["notebook"] + extras["test"]
    # What PyPI has and conda-forge has not, or under another name.
    from_pip = [name for name in wanted if name.startswith(("xisf", "playwright"))]
    renamed = {"matplotlib": "matplotlib-base"}
    names = [re.sub(r"^[\w-]+", lambda m: renamed.get(m[0], m[0]), name) for name in wanted]
    assert listed == [name for name in names if name not in from_pip]
    assert last == {"pip": [*from_pip, "-e .[notebook,test]"]}


def test_console_script_is_there():
    module, function = PROJECT["project"]["scripts"]["stacklib"].split(":")
    assert module == "stacklib.cli" and callable(getattr(__import__(module, fromlist=["cli"]), function))


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no executable bit")
def test_ci_runs_what_the_readme_says():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert re.search(r"^exec make test\b", read(".ci/run"), re.MULTILINE)
    assert "make test" in read("README.md") and re.search(r"^test:", read("Makefile"), re.MULTILINE)


def test_readme_shows_and_names_only_what_exists():
    text = read("README.md")
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text):
        assert (ROOT / target).exists(), target
    for name in set(re.findall(r"`(\d_\w+\.ipynb)`", text)):
        assert (ROOT / "notebooks" / name).exists(), name
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert path.name in text


def test_readme_lists_the_packages_in_the_order_of_imports():
    table = read("README.md").partition("\n## The code\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == [name for name in ROOMS if (ROOT / "stacklib" / name).is_dir()]


def test_pictures_are_small():
    docs = ROOT / "docs"
    animation = docs / "slider.webp"
    pictures = {*docs.glob("*.png"), *docs.glob("*.webp")} - {animation}
    assert pictures and all(path.stat().st_size < 400_000 for path in pictures)
    assert animation.stat().st_size < 2_000_000
