"""A frame that is replaced, changed or removed during a run is never mixed in: the run ends and names it."""

import gzip
import os
import pickle
import shutil
import threading

import numpy as np
import pytest

import stacklib as sl
from stacklib.errors import FrameError
from stacklib.formats import fits, xisf
from stacklib.formats.source import FileStamp, ImageSource
from stacklib.integration.samples import Samples
from stacklib.simulate import simulate_frames

pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    pytest.mark.filterwarnings("ignore:The field is sparse"),
]

COUNT, HEIGHT, ROWS = 5, 24, 8
#: Reads of a run: each plane once to measure it, then three bands.
READS = COUNT * (1 + HEIGHT // ROWS)


def replaced(path, other):
    """Another file of the same size takes its place, with the same time."""
    before = path.stat()
    shutil.copyfile(other, path.with_suffix(".new"))
    os.utime(path.with_suffix(".new"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_suffix(".new").replace(path)


def overwritten(path, other):
    """Other samples are written into the file."""
    content = other.read_bytes()
    with path.open("rb+") as stream:
        stream.write(content)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**7))


def extended(path, other):
    """The header grows by a record, so that all samples move."""
    content = path.read_bytes()
    path.write_bytes(b" " * 2880 + content)


def truncated(path, other):
    os.truncate(path, path.stat().st_size - 512)


def removed(path, other):
    path.unlink()


CHANGES = [replaced, overwritten, extended, truncated, removed]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The same frames in every format, and the samples of another frame in each."""
    root = tmp_path_factory.mktemp("kept")
    night = simulate_frames(COUNT, HEIGHT, 37, 1, "field", 3, trails=0, dither=1)
    other = simulate_frames(COUNT, HEIGHT, 37, 1, "field", 4, trails=0, dither=1)
    for name, frames in (("frames", night), ("others", other)):
        frames.save(root / name / "fits", "fits", "f32")
        for path in sorted((root / name / "fits").iterdir()):
            packed = root / name / "gz" / f"{path.name}.gz"
            packed.parent.mkdir(exist_ok=True)
            packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        for kind in ("plain", "packed"):
            (root / name / kind).mkdir()
            for path in sorted((root / name / "fits").iterdir()):
                pixels = fits.open_image(path).read_rows(0, HEIGHT, 0)[np.newaxis]
                xisf.write_image(
                    root / name / kind / f"{path.stem}.xisf",
                    np.round(pixels * 65535).astype(np.uint16),
                    image_id="frame",
                    compress=kind == "packed",
                )
    return root


@pytest.fixture
def banded(monkeypatch):
    """Frames are read in bands, as if they did not fit into memory."""
    monkeypatch.setattr(Samples, "fits", lambda samples: False)
    monkeypatch.setattr(Samples, "rows", lambda samples, used, beside=0: ROWS)


def at_read(monkeypatch, number, action):
    """Do something just before a read; returns the numbers of reads so far."""
    lock, original, reads = threading.Lock(), ImageSource.read_rows, [0]

    def read_rows(source, *arguments):
        with lock:
            reads[0] += 1
            if reads[0] == number:
                action()
        return original(source, *arguments)

    monkeypatch.setattr(ImageSource, "read_rows", read_rows)
    return reads


def run(folder):
    return sl.integrate(folder, sl.Recipe(), progress=False, threads=1)


@pytest.mark.usefixtures("banded")
@pytest.mark.parametrize("format", ["fits", "plain", "packed", "gz"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_frame_ends_the_run_or_does_not_matter(kept, tmp_path, monkeypatch, format, change):
    monkeypatch.setenv("STACKLIB_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patched:
        reads = at_read(patched, 0, None)
        expected = run(kept / "frames" / format)
    (all_reads,) = reads
    assert all_reads >= READS
    ended = 0
    for number in range(1, all_reads + 1, 3):
        folder = tmp_path / str(number)
        shutil.copytree(kept / "frames" / format, folder)
        path = sorted(folder.iterdir())[2]
        other = sorted((kept / "others" / format).iterdir())[2]
        with monkeypatch.context() as patched:
            reads = at_read(patched, number, lambda path=path, other=other: change(path, other))
            try:
                result = run(folder)
            except FrameError as error:
                ended += 1
                assert path.name in str(error) and ("has changed" in str(error) or "no such" in str(error))
            else:
                # Decoded pixels are at hand, or the frame was not needed any more.
                np.testing.assert_array_equal(result.image, expected.image)
                assert reads[0] == all_reads and number > 3
    # The third frame is read for the last time near the end; packed files are decoded at the first read.
    assert ended >= (all_reads // 3 - 2 if format in ("fits", "plain") else 1)


def test_a_change_during_a_single_read_is_noticed(kept, tmp_path, monkeypatch):
    shutil.copytree(kept / "frames" / "fits", tmp_path / "frames")
    frame = sl.open_frames(tmp_path / "frames")[0]
    direct = ImageSource._read_direct

    def read_direct(*arguments):
        direct(*arguments)
        os.utime(frame.path, ns=(1, 1))

    monkeypatch.setattr(ImageSource, "_read_direct", read_direct)
    with pytest.raises(FrameError, match="has changed since it was opened"):
        frame.read()


def test_a_frame_that_changes_while_it_is_opened(kept, tmp_path, monkeypatch):
    shutil.copytree(kept / "frames" / "fits", tmp_path / "frames")
    path = min((tmp_path / "frames").iterdir())
    original = FileStamp.of

    def of(changing):
        stamp = original(changing)
        os.utime(changing, ns=(1, stamp.mtime_ns + 1000))
        return stamp

    monkeypatch.setattr(FileStamp, "of", of)
    with pytest.raises(FrameError, match=r"has changed since"):
        sl.open_frames([str(path), str(path)])[0].read()


def test_frames_sent_to_other_processes_know_their_files(kept, tmp_path):
    shutil.copytree(kept / "frames" / "fits", tmp_path / "frames")
    frame = sl.open_frames(tmp_path / "frames")[0]
    sent = pickle.dumps(frame)
    assert np.array_equal(pickle.loads(sent).read(), frame.read())
    replaced(frame.path, min((kept / "others" / "fits").iterdir()))
    with pytest.raises(FrameError, match="has changed since"):
        pickle.loads(sent).read()


@pytest.mark.skipif(os.name == "nt", reason="times of other systems")
def test_a_file_system_that_numbers_its_files_anew_is_no_change(kept):
    stamp = FileStamp.of(min((kept / "frames" / "fits").iterdir()))
    assert stamp.is_same(stamp._replace(inode=stamp.inode + 1))
    assert not stamp.is_same(stamp._replace(inode=stamp.inode + 1, ctime_ns=stamp.ctime_ns + 1))
    # More links, or other permissions.
    assert stamp.is_same(stamp._replace(ctime_ns=stamp.ctime_ns + 1))
