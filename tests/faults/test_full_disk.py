"""Full disks, and places that cannot be written: nothing half written stays, and the error says where."""

import contextlib
import errno
import gzip
import os
import shutil
import subprocess
import tempfile
import warnings

import numpy as np
import pytest
from simulated_targets import frames as simulated_frames

import stacklib as sl
from stacklib.errors import FrameError, SaveError, StacklibError
from stacklib.formats import scratch
from stacklib.integration.kept import store
from stacklib.measurement.cache.planes import cache_file
from stacklib.utils import atomic_files
from stacklib.utils.package import CACHE_VARIABLE

resource = pytest.importorskip("resource", reason="no limits of file sizes here")

KIB = 1024


@contextlib.contextmanager
def files_up_to(size):
    """No file of this process may grow beyond a size: writing fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def disk(folder, options):
    """A small disk of its own in memory; skips where none can be mounted."""
    folder.mkdir(exist_ok=True)
    mounted = shutil.which("mount") and os.geteuid() == 0
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not mounted or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Zipped frames: reading them needs scratch space."""
    folder = tmp_path_factory.mktemp("zipped")
    for path in simulated_frames(folder / "plain", 4):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    shutil.rmtree(folder / "plain")
    return folder


@pytest.fixture(scope="module")
def result(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sl.integrate(folder, progress=False)


def quietly(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


@pytest.fixture
def in_scratch(monkeypatch):
    """Decompressed pixels go to a new scratch file, however small they are."""
    monkeypatch.setattr(scratch, "MEMORY_PER_BLOCK", 10)
    monkeypatch.setattr(scratch, "_arena", None)


@pytest.mark.usefixtures("in_scratch")
def test_spooling_to_a_disk_that_is_full(folder, monkeypatch, tmp_path):
    with files_up_to(KIB), pytest.raises(FrameError, match=r"frame_0_\d\.fits\.gz: .*set TMPDIR"):
        quietly(sl.integrate, folder, progress=False)
    with disk(tmp_path / "small", "size=4k") as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
        monkeypatch.setattr(scratch, "_arena", None)
        with pytest.raises(FrameError, match=r"frame\.fits\.gz: .* scratch space, but .*small has"):
            scratch.hold([bytes(4 * KIB)] * 2, 8 * KIB, tmp_path / "frame.fits.gz")
        monkeypatch.setattr(scratch, "_arena", None)


@pytest.mark.usefixtures("in_scratch")
def test_a_scratch_file_that_cannot_be_read_back(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(scratch._Arena, "read_into", fail)
    with pytest.raises(FrameError, match=r"fits\.gz: .*read back.*Input/output error"):
        quietly(sl.integrate, folder, progress=False)


@pytest.mark.parametrize("size", [0, 1, 2, 4, 6, 8, 12, 16, 24])
def test_saving_while_files_cannot_grow(result, tmp_path, size):
    output = tmp_path / "results"
    try:
        with files_up_to(size * KIB):
            saved = result.save(output, fits=True)
    except SaveError as error:
        assert str(error).startswith(f"{output}: ") and "free space" in str(error)
        assert not list(tmp_path.iterdir())
    else:
        assert all(path.stat().st_size for path in saved) and size > 8


@pytest.mark.parametrize("size", [4, 16, 32, 64, 96])
def test_saving_on_a_small_disk(result, tmp_path, size):
    with disk(tmp_path / "small", f"size={size}k") as small:
        with contextlib.suppress(SaveError):
            result.save(small / "results", fits=True)
        assert len(list(small.rglob("*.*"))) in (0, 8)
        if size < 32:
            assert not list(small.iterdir())


def test_a_recipe_stays_as_it_was(tmp_path):
    path = tmp_path / "recipe.yaml"
    sl.Recipe(rejection="sigma").save(path)
    before = path.read_bytes()
    with files_up_to(10), pytest.raises(StacklibError, match=r"recipe\.yaml: cannot be written"):
        sl.Recipe().save(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("how", ["full", "read only", "a file"])
def test_a_cache_that_cannot_be_written_costs_nothing(folder, result, tmp_path, monkeypatch, how):
    cache = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    if how == "a file":
        cache.write_text("in the way")
    with contextlib.ExitStack() as faults:
        if how == "read only":
            faults.enter_context(disk(cache, "ro,size=64k"))
        if how == "full":
            faults.enter_context(files_up_to(100))
        again = quietly(sl.integrate, folder, progress=False)
        assert not cache_file(folder).is_file()
    np.testing.assert_array_equal(again.image, result.image)


def test_samples_are_kept_only_where_there_is_room_for_all(folder, tmp_path, monkeypatch):
    # A map of a file without room would end the process when it is written to.
    frames, shape = list(sl.open_frames(folder)), (1, 200, 200)
    with disk(tmp_path / "small", "size=256k") as small:
        monkeypatch.setenv(CACHE_VARIABLE, str(small))
        with (
            pytest.raises(OSError, match="No space left"),
            store.Store.new(frames, shape, np.zeros((1, 6, len(frames))), (0.0, 1.0)),
        ):
            pytest.fail("there is no room")
        assert not list((small / "samples").iterdir())


def test_read_only_frames_and_results(folder, result, tmp_path):
    with disk(tmp_path / "there", "size=1m") as there:
        shutil.copytree(folder, there / "4_Registered")
        subprocess.run(["mount", "-o", "remount,ro", str(there)], check=True)
        again = quietly(sl.integrate, there / "4_Registered", progress=False)
        np.testing.assert_array_equal(again.image, result.image)
        with pytest.raises(SaveError, match=r"5_Integration: .*Read-only file system.*choose another"):
            again.save()
        assert len(again.save(tmp_path / "elsewhere")) == 3


def test_a_file_that_another_program_has_open(tmp_path, monkeypatch):
    """On Windows it cannot be replaced: for a moment by a virus scanner, for longer by a spreadsheet."""
    path, refused = tmp_path / "batch.ecsv", []
    path.write_text("before")
    replace = type(path).replace

    def busy(source, target):
        refused.append(source)
        if len(refused) <= times:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return replace(source, target)

    monkeypatch.setattr(type(path), "replace", busy)
    monkeypatch.setattr(atomic_files, "PAUSES", (0.0, 0.0, 0.0))
    times = 3
    atomic_files.replace_atomically(path, b"after")
    assert path.read_text() == "after" and len(refused) == 4
    times = 100
    with pytest.raises(SaveError, match=r"batch\.ecsv: .*close the file if another program has it open"):
        atomic_files.replace_atomically(path, b"later")
    assert path.read_text() == "after" and [found.name for found in tmp_path.iterdir()] == [path.name]
