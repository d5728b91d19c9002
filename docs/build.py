"""Build the site into build/docs: python docs/build.py [--no-execute] [--folder FOLDER]

Sphinx works on a copy of the pages, notebooks and sample frames, so that running the notebooks leaves
nothing behind in the project.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import generated

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent


def collect(source: Path) -> None:
    """Copy all that the site is made of below one folder."""
    own_files = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(DOCS, source, ignore=own_files)
    shutil.copy(DOCS / "conf.py", source)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, source / "walk")
    leftovers = shutil.ignore_patterns("5_Integration", "batch.*", ".stacklib*", "recipe.yaml")
    shutil.copytree(ROOT / "sample_data", source / "sample_data", ignore=leftovers)
    parts = source / "parts"
    parts.mkdir()
    for file in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"):
        shutil.copy(ROOT / file, parts / file.replace("/", "_"))
    for name, text in generated.parts().items():
        (parts / name).write_text(text, encoding="utf-8")


def build(folder: Path, execute: bool = True) -> int:
    """Build the site below `folder`; return the exit code of Sphinx."""
    source, pages = folder / "source", folder / "html"
    for old in (source, pages):
        shutil.rmtree(old, ignore_errors=True)
    collect(source)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet", "--fresh-env"]
    command += ["-D", f"nb_execution_mode={'force' if execute else 'off'}"]
    command += ["-d", str(folder / "doctrees"), str(source), str(pages)]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print(f"Open {pages / 'index.html'} in a browser")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--no-execute", action="store_true", help="show the notebooks without outputs")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "docs", help="where to build")
    options = parser.parse_args()
    sys.exit(build(options.folder.resolve(), not options.no_execute))
