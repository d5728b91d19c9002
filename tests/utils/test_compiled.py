"""Compiled code: where it is kept, what happens without such a place, and how long it takes."""

from __future__ import annotations

import errno
import importlib.util
import itertools
import os
import time
from pathlib import Path

import numba
import pytest
from filelock import FileLock, Timeout

from stacklib.utils import compiled
from stacklib.utils.package import CACHE_VARIABLE

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def restored(monkeypatch, tmp_path):
    """Keep what a test changes from others, and give it an empty cache folder."""
    monkeypatch.setattr(compiled, "_place", compiled._place)
    monkeypatch.setattr(compiled, "_watch", compiled._Watch())
    compiled.event.register("numba:compile", compiled._watch)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    yield
    compiled.event.unregister("numba:compile", compiled._watch)


@pytest.fixture
def unwritable(monkeypatch):
    """Refuse to make files in the folders of a list; root may write anywhere."""
    folders: list[Path] = []
    original = compiled.tempfile.TemporaryFile

    def refuse(*args, dir=None, **kwargs):
        if any(Path(dir).is_relative_to(folder) for folder in folders):
            raise OSError(errno.EROFS, "Read-only file system", str(dir))
        return original(*args, dir=dir, **kwargs)

    monkeypatch.setattr(compiled.tempfile, "TemporaryFile", refuse)
    return folders


def package(folder: Path, text: str = "a") -> Path:
    """Make a package with one compiled function."""
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    (folder / "rules" / "rule.py").write_text(f"# @compiled {text}\ndef double(x):\n    return 2 * x\n")
    return folder


def function(folder: Path):
    """Load the function of a package anew."""
    spec = importlib.util.spec_from_file_location(f"rule{next(_numbers)}", folder / "rules" / "rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double


def kept(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.suffix in (".nbi", ".nbc")}


def place(folder: Path) -> compiled._Place:
    compiled._place = compiled._Place(folder)
    return compiled._place


def test_code_is_kept_beside_the_sources(tmp_path):
    folder = package(tmp_path / "package")
    assert place(folder).folder is None
    double = compiled.compiled(function(folder))
    assert double(2) == 4 and len(kept(folder / "rules" / "__pycache__")) == 2
    assert compiled.not_kept() == ""
    assert not (tmp_path / "cache").exists()
    # Loaded by the next process.
    again = compiled.compiled(function(folder))
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 1
    # Nothing is deleted while the sources stay the same, everything when one changes.
    place(folder)
    assert len(kept(folder)) == 2
    package(folder, "b")
    place(folder)
    assert not kept(folder)


def test_a_changed_constant_of_another_file_counts(tmp_path):
    """Also one that another constant is made of, in files without compiled functions; nothing else does."""
    folder = tmp_path / "package"
    folder.mkdir()

    def stamp(**lines):
        for name, line in lines.items():
            (folder / f"{name}.py").write_text(line, "utf-8")
        return compiled._stamp(folder, compiled._sources(folder))

    first = stamp(
        rule="from package.sizes import (\n    SIDE,\n    area,\n)\nfrom package.words import say\n@compiled",
        sizes="from package.base import ONE\nSIDE = 2 * ONE\n",
        base="import os\nONE = 1\n",
        words="say = print\n",
        other="from package.rule import f\nTHREE = 3\n",
    )
    assert stamp(words="say = repr\n", other="THREE = 4\n") == first
    second = stamp(sizes="from package.base import ONE\nSIDE = 3 * ONE\n")
    assert second != first
    assert stamp(base="import os\nONE = 2\n") not in (first, second)


def test_code_is_kept_in_the_cache_of_the_user_if_not_beside_the_sources(tmp_path, unwritable):
    folder = package(tmp_path / "package")
    unwritable.append(folder)
    first = place(folder).folder
    assert first.parent == tmp_path / "cache" / "compiled"
    # Kept code of a module that cannot be imported is only found while its function is there.
    double = compiled.compiled(function(folder))
    assert double(2) == 4
    assert not kept(folder) and len(kept(first)) == 2
    assert compiled.not_kept() == ""
    again = compiled.compiled(function(folder))
    assert again(3) == 6 and sum(again.stats.cache_hits.values()) == 1
    # Other sources have another folder, so that no code is stale.
    package(folder, "b")
    second = place(folder).folder
    assert second != first and second.parent == first.parent and first.exists()
    os.utime(first, (time.time() - 40 * 86400,) * 2)
    assert place(folder).folder == second
    assert second.exists() and not first.exists()


def test_without_a_place_code_runs_and_this_is_said_once(tmp_path, unwritable):
    folder = package(tmp_path / "package")
    unwritable.append(tmp_path)
    assert "Read-only file system" in place(folder).problem and not compiled.is_kept()
    double = compiled.compiled(function(folder))
    assert [double(number) for number in range(3)] == [0, 2, 4]
    assert not kept(tmp_path)
    note = compiled.not_kept()
    assert "Read-only file system" in note and CACHE_VARIABLE in note and "\n" not in note
    assert compiled.not_kept() == ""


def test_numba_without_a_locator(tmp_path, monkeypatch):
    """A folder of the package of its own permissions, and no home."""
    folder = package(tmp_path / "package")
    place(folder)

    def refuse(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compiled, "FunctionCache", refuse)
    assert compiled.compiled(function(folder))(2) == 4
    assert "no locator available" in compiled.not_kept()
    assert numba.config.CACHE_DIR == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_becomes_full_costs_nothing(tmp_path, monkeypatch, number):
    folder = package(tmp_path / "package")
    place(folder)
    double = compiled.compiled(function(folder))

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(double._cache._cache._cache_file, "_save_data", refuse)
    assert double(2) == 4 and double(2.5) == 5.0
    assert os.strerror(number) in compiled.not_kept()


def test_processes_save_one_after_the_other(tmp_path, monkeypatch):
    """At once, they would give the same file to different signatures."""
    folder = package(tmp_path / "package")
    place(folder)
    lock, held = compiled.kept_in() / compiled.SAVING, []
    double = compiled.compiled(function(folder))
    save = double._cache._cache.save_overload

    def watched(*arguments):
        with pytest.raises(Timeout):
            FileLock(lock, timeout=0).acquire()
        held.append(True)
        save(*arguments)

    monkeypatch.setattr(double._cache._cache, "save_overload", watched)
    assert double(2) == 4 and held == [True] and len(kept(folder)) == 2
    # One that hangs keeps nobody from computing.
    monkeypatch.setattr(compiled, "SAVING_SECONDS", 0.1)
    with FileLock(lock):
        assert double(2.5) == 5.0
    assert held == [True] and len(kept(folder)) == 2 and compiled.is_kept()


@pytest.mark.parametrize("content", [b"", b"\x80"])
def test_a_damaged_cache_is_no_cache(tmp_path, content):
    folder = package(tmp_path / "package")
    place(folder)
    compiled.compiled(function(folder))(2)
    for path in kept(folder):
        path.write_bytes(content)
    double = compiled.compiled(function(folder))
    assert double(2) == 4
    # It is whole again.
    again = compiled.compiled(function(folder))
    assert again(2) == 4 and sum(again.stats.cache_hits.values()) == 1


def test_a_folder_of_numba_itself_is_used(tmp_path, monkeypatch):
    folder = package(tmp_path / "package")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "numba"))
    assert place(folder).folder.is_relative_to(tmp_path / "numba")
    assert compiled.compiled(function(folder))(2) == 4
    assert kept(tmp_path / "numba") and not kept(folder)
    assert str(tmp_path / "numba") == numba.config.CACHE_DIR


def test_compiling_is_told_and_timed(tmp_path):
    folder = package(tmp_path / "package")
    place(folder)
    told = []
    compiled.tell_of_compiling(lambda: told.append(compiled.compiling()))
    double = compiled.compiled(function(folder))
    assert not told and compiled.seconds_of_compiling() == 0
    start = time.monotonic()
    double(2)
    assert told == [True] and not compiled.compiling()
    assert 0 < compiled.seconds_of_compiling() <= time.monotonic() - start
    before = compiled.seconds_of_compiling()
    # Found in the cache, nothing is compiled.
    compiled.compiled(function(folder))(2)
    assert compiled.seconds_of_compiling() == before
    assert told == [True]
    double(2.5)
    assert compiled.seconds_of_compiling() > before and told == [True, True]
