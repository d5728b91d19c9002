"""Decompressed frames count in the memory budget of a run."""

import gc
import gzip
import tracemalloc

import numpy as np
import pytest
from simulated_targets import frames as simulated_frames

import stacklib as sl
from stacklib.formats import scratch
from stacklib.integration.samples import Samples
from stacklib.integration.second_pass import Searched
from stacklib.recipe.presets import with_preset
from stacklib.simulate import simulate_frames

pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    pytest.mark.filterwarnings("ignore:The field is sparse"),
    pytest.mark.filterwarnings("ignore:memory. the result alone"),
]

COUNT, HEIGHT, WIDTH = 6, 300, 400
PLANE = 2 * HEIGHT * WIDTH


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Compressed frames of 16 bits."""
    folder = tmp_path_factory.mktemp("packed")
    night = simulate_frames(COUNT, HEIGHT, WIDTH, 1, "field", 3, trails=0, dither=0)
    for path in night.save(folder / "plain", "fits", "u16"):
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


@pytest.fixture
def most(monkeypatch):
    """The most bytes of decompressed pixels that were in memory at once, counted from none.

    What other tests of this process still hold is not counted.
    """
    monkeypatch.setattr(scratch, "_memory", scratch._MemoryInUse())
    sizes, original = [0], scratch._memory.claim

    def claim(size):
        held = original(size)
        sizes.append(scratch.memory_held())
        return held

    monkeypatch.setattr(scratch._memory, "claim", claim)
    return lambda: max(sizes)


def run(folder, memory):
    return sl.integrate(folder, sl.Recipe(), memory=memory, threads=1, progress=False)


def test_frames_that_are_read_in_bands_are_decompressed_on_disk(packed, most, monkeypatch):
    monkeypatch.setattr(Samples, "fits", lambda samples: False)
    frames = sl.open_frames(packed)
    # What was read before the run is put aside.
    frames[0].read()
    assert scratch.memory_held() >= PLANE
    run(frames, "20MB")
    assert scratch.memory_held() == 0
    assert most() == PLANE
    assert scratch._memory.limit == scratch.MEMORY_IN_ALL


def test_frames_that_fit_are_decompressed_one_after_the_other(packed, most):
    expected = run(packed, "100MB")
    assert 0 < most() <= PLANE
    samples = 4 * COUNT * HEIGHT * WIDTH + 24 * HEIGHT * WIDTH
    again = run(packed, samples + PLANE // 2)
    np.testing.assert_array_equal(again.image, expected.image)


@pytest.mark.parametrize("preset", ["classic", "measured"])
def test_a_search_keeps_little_of_each_pixel(packed, monkeypatch, preset):
    """Bytes of a pixel: what is kept of the first pass, and what the search of a frame takes beside it."""
    monkeypatch.setattr(Samples, "fits", lambda samples: False)
    original, found = Searched.run, {}

    def run_traced(searched, search, workers, report):
        found["kept"] = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        original(searched, search, workers, report)
        found["peak"] = tracemalloc.get_traced_memory()[1]
        found["after"] = tracemalloc.get_traced_memory()[0]

    recipe = sl.Recipe(**with_preset({"preset": preset, "footprints": "all"}))
    # Whatever is made once, measurements and code for frames that are measured.
    for _ in range(2):
        sl.integrate(packed, recipe, memory="20MB", threads=1, progress=False)
    gc.collect()
    monkeypatch.setattr(Searched, "run", run_traced)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        sl.integrate(packed, recipe, memory="20MB", threads=1, progress=False)
    finally:
        tracemalloc.stop()
    kept, peak, after = ((found[name] - before) / (HEIGHT * WIDTH) for name in ("kept", "peak", "after"))
    # Mean, weight, noise and further variance, what is protected, three numbers of frames; tables, texts.
    assert 20 < kept < 22.5
    assert peak < kept + 24
    # The numbers of frames are left.
    assert after < 3.5


def test_a_limit_holds_for_its_context_only(tmp_path):
    with pytest.raises(ZeroDivisionError), scratch.memory_limited(10):
        assert scratch._memory.limit == 10
        raise ZeroDivisionError
    assert scratch._memory.limit == scratch.MEMORY_IN_ALL
    with scratch.memory_limited(-5):
        block = scratch.hold([b"12"], 2, tmp_path)
        assert isinstance(block, scratch.ScratchBlock)


def test_few_file_handles_are_enough(tmp_path):
    resource = pytest.importorskip("resource", reason="no limit of file handles here")
    simulated_frames(tmp_path / "frames", 300)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        result = run(tmp_path / "frames", "1GB")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert result.preparation.count == 300
