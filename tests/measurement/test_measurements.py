"""Measurements of sets of frames and their cache."""

import json
import logging
import math
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from stacklib.errors import FrameError, SaveError
from stacklib.measurement import measurements
from stacklib.measurement.cache import planes as measurement_cache
from stacklib.measurement.cache.planes import cache_file
from stacklib.measurement.measurements import measure_frames
from stacklib.measurement.noise import plane_noise
from stacklib.measurement.statistics import UNIT_BOUNDS, measure_plane
from stacklib.utils.package import CACHE_VARIABLE, cache_folder

ARRAYS = ("location", "scale_low", "scale_high", "mean", "avgdev", "noise", "minimum", "maximum", "count")


@dataclass
class ArrayFrame:
    """A frame in memory, with as much of the interface as measuring needs."""

    path: Path
    data: np.ndarray
    integer: bool = False
    noise_keywords: list | None = None
    full_scale: float = 1.0
    keywords: dict = field(default_factory=dict)
    reads: list = field(default_factory=list)

    @property
    def name(self):
        return self.path.name

    @property
    def channels(self):
        return self.data.shape[0]

    def read(self, rows=None, channel=None):
        self.reads.append(channel)
        return self.data[channel]


def make_frames(folder, count=4, channels=2, seed=1, **kwargs):
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(count):
        data = 0.1 + 0.01 * i + 0.004 * rng.standard_normal((channels, 90, 120))
        data[:, :3] = 0
        path = folder / f"light_{i:02d}.xisf"
        path.write_bytes(bytes(10 + i))
        frames.append(ArrayFrame(path, data.astype(np.float32), **kwargs))
    return frames


def reads(frames):
    total = sum(len(frame.reads) for frame in frames)
    for frame in frames:
        frame.reads.clear()
    return total


def same(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in ARRAYS)


def test_values_of_each_plane(tmp_path):
    frames = make_frames(tmp_path)
    got = measure_frames(frames, "mad")
    assert got.location.shape == (4, 2)
    assert got.names == tuple(frame.name for frame in frames)
    assert got.unit_range
    for i, frame in enumerate(frames):
        for c in range(2):
            plane = measure_plane(frame.data[c], "mad", *UNIT_BOUNDS)
            assert got.location[i, c] == plane.median
            assert (got.scale_low[i, c], got.scale_high[i, c]) == (plane.scale_low, plane.scale_high)
            assert (got.mean[i, c], got.avgdev[i, c]) == (plane.mean, plane.avgdev)
            assert (got.minimum[i, c], got.maximum[i, c]) == (plane.minimum, plane.maximum)
            assert got.noise[i, c] == plane_noise(frame.data[c]).sigma
    assert all(getattr(got, name).dtype == np.float64 for name in ARRAYS)


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**-60, 2.0**-100])
def test_samples_in_units_of_flux_are_data(tmp_path, unit):
    frames = make_frames(tmp_path)
    expected = measure_frames(frames, cache=False)
    for frame in frames:
        frame.data *= np.float32(unit)
    got = measure_frames(frames, cache=False)
    np.testing.assert_array_equal(got.count, expected.count)
    for name in ("location", "scale_low", "scale_high", "noise"):
        np.testing.assert_allclose(getattr(got, name), unit * getattr(expected, name), rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(tmp_path, threads):
    frames = make_frames(tmp_path)
    expected = measure_frames(frames, cache=False)
    assert same(measure_frames(frames, threads=threads, cache=False), expected)
    assert same(measure_frames(frames[::-1], threads=threads, cache=False), measure_frames(frames[::-1]))


def test_never_more_planes_than_threads(tmp_path):
    frames = make_frames(tmp_path, count=6)
    now, most, lock = [0], [0], threading.Lock()

    def planes(i, channel):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        return frames[i].data[channel]

    original = measurements._Work.measure

    def measure(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        with lock:
            now[0] -= 1
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements._Work, "measure", measure)
        got = measure_frames(frames, threads=2, cache=False, planes=planes)
    assert most[0] <= 2
    assert reads(frames) == 0
    assert same(got, measure_frames(frames, cache=False))


def test_progress_counts_to_the_end(tmp_path):
    frames = make_frames(tmp_path, count=2)
    calls = []
    measure_frames(frames, progress=lambda *call: calls.append(call))
    assert calls == [(i, 4) for i in range(5)]
    calls.clear()
    measure_frames(frames, progress=lambda *call: calls.append(call))
    assert calls == [(4, 4)]


def test_a_failing_read_is_passed_on(tmp_path):
    frames = make_frames(tmp_path)

    def planes(i, channel):
        raise FrameError("broken")

    with pytest.raises(FrameError, match="broken"):
        measure_frames(frames, planes=planes)


# --- noise and its keywords


def test_keywords_are_preferred(tmp_path):
    frames = make_frames(tmp_path, noise_keywords=[1e-3, 2e-3])
    got = measure_frames(frames, cache=False)
    assert got.noise_source == "keyword"
    assert np.array_equal(got.noise, [[1e-3, 2e-3]] * 4)
    assert got.notes == ()


def test_noise_of_some_keywords_only_is_measured_on_all(tmp_path):
    frames = make_frames(tmp_path, noise_keywords=[1e-3, 2e-3])
    frames[1].noise_keywords = None
    got = measure_frames(frames, cache=False)
    assert got.noise_source == "measured"
    assert got.noise == pytest.approx(0.004, rel=0.1)
    assert "3 of 4 frames" in got.notes[0]


@pytest.mark.parametrize("bad", [[1e-3], [1e-3, None], [1e-3, 0.0], [math.nan, 1e-3]])
def test_unusable_keywords(tmp_path, bad):
    frames = make_frames(tmp_path, noise_keywords=bad)
    assert measure_frames(frames, cache=False).noise_source == "measured"


def test_noise_that_is_not_wanted(tmp_path):
    frames = make_frames(tmp_path)
    got = measure_frames(frames, noise=False)
    assert got.noise_source == "not measured"
    assert np.isnan(got.noise).all()
    assert reads(frames) == 8
    # Later the noise alone is added.
    again = measure_frames(frames)
    assert again.noise == pytest.approx(0.004, rel=0.1)
    assert reads(frames) == 8
    measure_frames(frames, noise=False)
    measure_frames(frames)
    assert reads(frames) == 0


# --- scale of the data


def test_frames_in_adu(tmp_path):
    frames = make_frames(tmp_path, noise_keywords=[1e-3, 2e-3])
    for frame in frames:
        frame.data = frame.data * np.float32(60000)
    got = measure_frames(frames)
    assert not got.unit_range
    assert got.location[0] == pytest.approx([6000, 6000], rel=0.01)
    assert got.noise == pytest.approx(240, rel=0.1)
    assert got.noise_source == "measured"
    assert np.all(got.count == 87 * 120)
    reads(frames)
    assert same(measure_frames(frames), got)
    assert reads(frames) == 0


def test_mixed_scales_are_refused(tmp_path):
    frames = make_frames(tmp_path)
    frames[2].data = frames[2].data * np.float32(60000)
    with pytest.raises(
        FrameError, match=r"light_00.xisf, light_01.xisf, light_03.xisf from 0 to 1, but light_02"
    ):
        measure_frames(frames)


def test_integers_are_in_the_unit_range(tmp_path):
    frames = make_frames(tmp_path, integer=True)
    assert measure_frames(frames).unit_range
    for frame in frames[:2]:
        frame.data, frame.integer = frame.data * np.float32(100), False
    with pytest.raises(FrameError, match="different scales"):
        measure_frames(frames, cache=False)


def test_a_dim_channel_of_a_frame_in_adu(tmp_path):
    frames = make_frames(tmp_path, count=2)
    for frame in frames:
        frame.data[0] *= 60000
        frame.data[1] *= 10
    got = measure_frames(frames)
    assert not got.unit_range
    assert got.location[0, 1] == pytest.approx(1.0, rel=0.01)
    assert same(measure_frames(frames), got)


@pytest.mark.parametrize("factor", [1, 60000])
def test_a_black_frame_has_no_statistics_and_no_scale(tmp_path, factor):
    frames = make_frames(tmp_path)
    for frame in frames:
        frame.data = frame.data * np.float32(factor)
    frames[1].data[:] = 0
    frames[3].data[0] = np.nan
    got = measure_frames(frames)
    assert np.isnan(got.location[1]).all()
    assert np.isnan(got.noise[1]).all()
    assert np.isnan(got.location[3, 0])
    assert np.isfinite(got.location[3, 1])
    assert same(measure_frames(frames), got)
    json.loads(cache_file(tmp_path).read_text(), parse_constant=lambda text: pytest.fail(text))


def test_range_low(tmp_path):
    frames = make_frames(tmp_path, count=3)
    got = measure_frames(frames, range_low=0.1)
    assert got.location[0] == pytest.approx([0.1027, 0.1027], rel=0.01)
    without = measure_frames(frames, range_low=None)
    assert same(without, measure_frames(frames, range_low=None, cache=False))
    # Without a limit the black border counts as data.
    expected = [[np.median(plane) for plane in frame.data] for frame in frames]
    assert without.location == pytest.approx(np.array(expected), rel=1e-6)
    assert not without.empty.any()
    assert measure_frames(frames).empty == pytest.approx(3 / 90)


@pytest.mark.parametrize("estimator", ["bwmv", "mad", "avgdev"])
def test_coarsely_quantised_frames(tmp_path, estimator):
    """A noise of 1.1 ADU about levels that drift by parts of an ADU."""
    rng = np.random.default_rng(3)
    levels = 350 + np.linspace(0, 1, 6)
    frames = make_frames(tmp_path, count=6, channels=1, integer=True)
    for frame, level in zip(frames, levels, strict=True):
        adu = np.round(level + 1.1 * rng.standard_normal((1, 300, 400)))
        frame.data = (adu / 65535).astype(np.float32)
    got = measure_frames(frames, estimator)
    assert got.location[:, 0] * 65535 == pytest.approx(levels, abs=0.02)
    expected = math.sqrt(1.1**2 + 2 / 12)
    assert got.scale_low * 65535 == pytest.approx(expected, rel=0.06)
    assert got.scale_high * 65535 == pytest.approx(expected, rel=0.06)
    # What it would be otherwise.
    plain = np.array([measure_plane(frame.data[0], estimator)[2:4] for frame in frames]) * 65535
    assert np.ptp(plain[:, 0]) > 0.3


# --- the cache


def test_cached_values_are_the_measured_ones(tmp_path):
    frames = make_frames(tmp_path)
    first = measure_frames(frames)
    assert reads(frames) == 8
    assert same(measure_frames(frames), first)
    assert reads(frames) == 0
    assert sorted(tmp_path.iterdir()) == [frame.path for frame in frames]


def test_a_touched_file_is_measured_again(tmp_path):
    frames = make_frames(tmp_path)
    measure_frames(frames)
    reads(frames)
    stat = frames[1].path.stat()
    os.utime(frames[1].path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    frames[1].data = frames[1].data * np.float32(2)
    got = measure_frames(frames)
    assert [len(frame.reads) for frame in frames] == [0, 2, 0, 0]
    assert same(got, measure_frames(frames, cache=False))


def test_another_size_is_another_file(tmp_path):
    frames = make_frames(tmp_path)
    measure_frames(frames)
    stat = frames[0].path.stat()
    frames[0].path.write_bytes(b"longer than before")
    os.utime(frames[0].path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    reads(frames)
    measure_frames(frames)
    assert reads(frames) == 2


def test_keys_and_merging(tmp_path, monkeypatch):
    frames = make_frames(tmp_path)
    settings = [{"estimator": "bwmv"}, {"estimator": "mad"}, {"range_low": 0.01}, {"range_low": None}]
    for setting in settings:
        measure_frames(frames[:2], **setting)
        assert reads(frames) == 4
    measure_frames(frames[2:])
    reads(frames)
    for setting in settings:
        measure_frames(frames[:2], **setting)
    measure_frames(frames)
    assert reads(frames) == 0
    monkeypatch.setattr(measurement_cache, "MEASUREMENT_VERSION", 999)
    measure_frames(frames)
    assert reads(frames) == 8


CORRUPT = [
    b"",
    b"\x00\xff\xfe",
    b"[]",
    b"null",
    b'{"version": 1}',
    b'{"version": 1, "frames": []}',
    b"[" * 100_000,
    b'{"version": 1, "frames": {"light_00.xisf": 3, "light_01.xisf": {"size": 11}}}',
]


@pytest.mark.parametrize("content", CORRUPT)
def test_a_corrupt_cache_is_no_cache(tmp_path, content):
    frames = make_frames(tmp_path)
    cache_file(tmp_path).parent.mkdir(parents=True, exist_ok=True)
    cache_file(tmp_path).write_bytes(content)
    expected = measure_frames(frames, cache=False)
    reads(frames)
    assert same(measure_frames(frames), expected)
    assert reads(frames) == 8
    assert same(measure_frames(frames), expected)
    assert reads(frames) == 0


@pytest.mark.parametrize(
    "change",
    [
        *({"location": "text"}, {"location": None}, {"unit": 1, "mean": []}, {"mean": 10**400}),
        *({"scale_low": -1.0}, {"scale_high": "inf"}, {"noise": -0.1}, {"count": -5}, {"minimum": 1e9}),
        *({"empty": 1.5}, {"cut": "nan"}),
    ],
)
def test_a_corrupt_entry_is_measured_again(tmp_path, change):
    frames = make_frames(tmp_path)
    expected = measure_frames(frames)
    path = cache_file(tmp_path)
    document = json.loads(path.read_text())
    for entry in document["frames"].values():
        entry["sets"]["bwmv 0.0"][0] |= change
    document["frames"]["light_00.xisf"]["sets"]["bwmv 0.0"] = []
    path.write_text(json.dumps(document))
    assert same(measure_frames(frames), expected)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    frames = make_frames(tmp_path)

    def refuse(path, content):
        raise SaveError("the folder cannot be written")

    monkeypatch.setattr(measurement_cache, "replace_atomically", refuse)
    with caplog.at_level(logging.INFO):
        got = measure_frames(frames)
    assert same(got, measure_frames(frames, cache=False))
    assert not cache_file(tmp_path).exists()
    assert not caplog.records


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder for one test, which does not exist yet."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache" / "stacklib"))
    return tmp_path / "cache" / "stacklib"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / "elsewhere"
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert cache_folder() == Path(platformdirs.user_cache_dir("stacklib", appauthor=False))


@pytest.mark.parametrize("name", ["4_Registered", "M31 {Ha}", "Ω, été", "a" * 200, "..."])
def test_each_folder_has_its_own_cache_file(tmp_path, name):
    folders = [tmp_path / parent / name for parent in ("one", "two", "x/one")]
    found = [cache_file(folder) for folder in folders]
    assert len(set(found)) == 3
    assert {path.parent for path in found} == {cache_folder() / "measurements"}
    assert all(path.name.isascii() and len(path.name) < 100 for path in found)


def test_cache_file_does_not_depend_on_how_the_path_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "4_Registered"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    ways = ["4_Registered", str(folder), tmp_path / "link", tmp_path / "x" / ".." / "4_Registered"]
    assert {cache_file(way) for way in ways} == {cache_file(folder)}


@pytest.mark.parametrize("blocked", [False, True])
def test_a_cache_folder_that_cannot_be_made(tmp_path, own_cache, blocked):
    if blocked:
        (tmp_path / "cache").write_text("a file")
    frames = make_frames(tmp_path)
    expected = measure_frames(frames, cache=False)
    for _ in range(2):
        assert same(measure_frames(frames), expected)
    assert reads(frames) == (24 if blocked else 16)


def test_a_cache_beside_the_frames_is_left_alone(tmp_path):
    """Former versions wrote one there."""
    frames = make_frames(tmp_path)
    measure_frames(frames)
    old = tmp_path / ".stacklib_measurements.json"
    old.write_bytes(cache_file(tmp_path).read_bytes())
    cache_file(tmp_path).unlink()
    reads(frames)
    before = old.stat()
    measure_frames(frames)
    assert reads(frames) == 8
    assert old.stat() == before


@pytest.mark.parametrize(
    ("days", "exists", "kept"),
    [(1, True, True), (29, False, True), (31, False, False), (364, True, True), (366, True, False)],
)
def test_unused_caches_are_removed(tmp_path, own_cache, days, exists, kept):
    others = tmp_path / 'others \u2022 "quoted"'
    others.mkdir()
    frames = make_frames(others)
    measure_frames(frames)
    path = cache_file(others)
    stranger = path.with_name("stranger.json")
    stranger.write_bytes(b"\xff")
    for each in (path, stranger):
        os.utime(each, (time.time() - days * 86400,) * 2)
    if not exists:
        shutil.rmtree(others)
    (tmp_path / "new").mkdir()
    measure_frames(make_frames(tmp_path / "new", count=2))
    assert path.exists() == kept
    assert stranger.exists() == (days < 365)


def test_a_cache_that_is_used_is_kept(tmp_path, own_cache):
    frames = make_frames(tmp_path)
    measure_frames(frames)
    os.utime(cache_file(tmp_path), (time.time() - 400 * 86400,) * 2)
    reads(frames)
    measure_frames(frames)
    (tmp_path / "new").mkdir()
    measure_frames(make_frames(tmp_path / "new", count=2))
    assert reads(frames) == 0
    assert cache_file(tmp_path).exists()


def test_no_cache_wanted(tmp_path):
    measure_frames(make_frames(tmp_path), cache=False)
    assert not cache_file(tmp_path).exists()


def test_a_file_that_changes_meanwhile_is_not_cached(tmp_path):
    frames = make_frames(tmp_path)

    def planes(i, channel):
        if i == 2 and channel == 0:
            frames[2].path.write_bytes(b"changed")
        return frames[i].data[channel]

    measure_frames(frames, planes=planes)
    assert set(json.loads(cache_file(tmp_path).read_text())["frames"]) == {
        "light_00.xisf",
        "light_01.xisf",
        "light_03.xisf",
    }


def test_what_was_measured_before_an_interruption_is_kept(tmp_path):
    frames = make_frames(tmp_path)

    def planes(i, channel):
        if (i, channel) == (2, 1):
            raise KeyboardInterrupt
        return frames[i].data[channel]

    with pytest.raises(KeyboardInterrupt):
        measure_frames(frames, threads=1, planes=planes)
    assert same(measure_frames(frames), measure_frames(frames, cache=False))
    assert [len(frame.reads) for frame in frames] == [2, 2, 4, 4]


def test_frames_of_several_folders(tmp_path):
    frames = []
    for night in ("a", "b"):
        (tmp_path / night).mkdir()
        frames += make_frames(tmp_path / night, count=2, seed=len(frames))
    first = measure_frames(frames)
    assert cache_file(tmp_path / "a").exists()
    assert cache_file(tmp_path / "b").exists()
    reads(frames)
    assert same(measure_frames(frames), first)
    assert reads(frames) == 0


def test_frames_without_a_file(tmp_path):
    frames = make_frames(tmp_path)
    for frame in frames:
        frame.path.unlink()
    assert np.isfinite(measure_frames(frames).location).all()
    assert not cache_file(tmp_path).exists()


def test_unknown_estimator(tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        measure_frames(make_frames(tmp_path), "median")


def test_real_frames(tmp_path):
    frames_module = pytest.importorskip("stacklib.frames.frame_set")
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "hatp32_reg40"
    if not folder.is_dir():
        pytest.skip("hatp32_reg40 is not here")
    frames = frames_module.open_frames(folder)
    got = measure_frames(frames, cache=False)
    for values in (got.scale_low, got.scale_high, got.noise):
        # The same sky, camera and exposure time: the spread hardly changes.
        assert np.all(values > 0)
        assert values.max() / values.min() < 1.3
    assert same(got, measure_frames(frames, cache=False, threads=1))
