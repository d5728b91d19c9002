"""What Windows, macOS, network shares and small installations lack: the results are the same without it."""

import errno
import gzip
import json
import multiprocessing
import os
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from simulated_targets import frames as simulated_frames

import stacklib as sl
from stacklib.utils import atomic_files

ROOT = Path(__file__).parents[2]

#: Takes away what other systems do not have, integrates, saves twice, and prints what came of it.
BARE = """
import errno, os, sys
# Windows has no such modules.
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("preadv", "fork", "sched_getaffinity", "geteuid", "register_at_fork"):
    if hasattr(os, name):
        delattr(os, name)

def refuse(*args, **kwargs):
    raise OSError(errno.ENOTSUP, "Operation not supported")

os.link = os.symlink = os.chmod = refuse

import hashlib, json, warnings
warnings.simplefilter("ignore")
import stacklib as sl
from stacklib.formats import scratch

scratch.MEMORY_PER_BLOCK = 10
folder, output = sys.argv[1:]
result = sl.integrate(folder, progress=False)
files = [str(path) for _ in range(2) for path in result.save(output, fits=True)]
left = [name for name in os.listdir(output) if name.startswith(".")]
again = sl.rerun(files[0])
digest, repeated = (hashlib.sha256(each.image.tobytes()).hexdigest() for each in (result, again))
print(json.dumps({"digest": digest, "repeated": repeated, "files": files, "left": left}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Zipped frames, which need scratch space, with an accent in their names."""
    folder = tmp_path_factory.mktemp("zipped") / "M31 é"
    for path in simulated_frames(folder / "plain", 4):
        (folder / f"{path.stem}é.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    (folder / "plain").rmdir()
    return folder


@pytest.fixture(scope="module")
def result(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sl.integrate(folder, progress=False)


@pytest.mark.skipif(os.name == "nt", reason="these systems lack it anyway")
def test_nothing_but_the_least_common_system(folder, result, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BARE, os.fsencode(folder), os.fsencode(tmp_path / "results")],
        env=os.environ | plain,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    found = json.loads(done.stdout)
    assert found["digest"] == found["repeated"] == sha256(result.image.tobytes()).hexdigest()
    assert found["left"] == []
    assert len(set(found["files"])) == 12
    report = next((tmp_path / "results").glob("*_0001_report.txt")).read_text(encoding="utf-8")
    # What is not ASCII is written out where the system knows no more.
    assert ("é.fits.gz" if sys.platform == "darwin" else "\\udcc3\\udca9.fits.gz") in report


def _read(frame):
    return frame.read()


def test_processes_that_are_spawned_instead_of_forked(result):
    frames = result.preparation.frames
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for frame, image in zip(frames, pool.map(_read, frames), strict=True):
            np.testing.assert_array_equal(image, frame.read())


def test_names_that_differ_in_case_only(result, tmp_path, monkeypatch):
    """macOS and Windows take them for the same file: a number is then taken, whatever the case."""
    first = result.save(tmp_path)
    for path in [*first, *tmp_path.glob("*_frames.ecsv"), *tmp_path.glob("*_report.txt")]:
        path.rename(path.with_name(path.name.upper()))
    link, before = os.link, {path: path.read_bytes() for path in tmp_path.iterdir()}

    def regardless_of_case(source, target):
        if str(target).casefold() in (str(path).casefold() for path in tmp_path.iterdir()):
            raise FileExistsError(errno.EEXIST, "File exists", str(target))
        link(source, target)

    monkeypatch.setattr(atomic_files.os, "link", regardless_of_case)
    saved = result.save(tmp_path)
    assert all("_0001" in path.name for path in saved)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(tmp_path.iterdir())) == 2 * len(before)
