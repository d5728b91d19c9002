"""The scale of a set of frames: decided on all samples of all frames, never on the brightest one."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklib.errors import FrameError
from stacklib.measurement.full_scale import brightness
from stacklib.measurement.measurements import measure_frames
from stacklib.measurement.noise import plane_noise

WHOLE_32 = 2.0**32 - 1


@dataclass
class ArrayFrame:
    """A frame in memory."""

    path: Path
    data: np.ndarray
    integer: bool = False
    full_scale: float = 1.0
    keywords: dict = field(default_factory=dict)
    noise_keywords: None = None
    sample_format: str = "u32"

    @property
    def name(self):
        return self.path.name

    @property
    def channels(self):
        return len(self.data)

    def read(self, rows=None, channel=None):
        return self.data[channel]


def night(count=6, level=0.1, noise=0.004, star=0.5, seed=1, factor=1.0, **more):
    """Return frames of a sky with a few stars, times `factor`."""
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:48, :64]
    sky = np.full((48, 64), float(level))
    for x, y in ((10, 10), (40, 30), (50, 12)):
        sky += star * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 5)
    frames = []
    for i in range(count):
        data = (sky + rng.normal(0, noise, sky.shape)) * factor
        if more.get("integer"):
            data = np.rint(data * more["full_scale"]).clip(0) / more["full_scale"]
        frames.append(ArrayFrame(Path(f"f{i}.fits"), data.astype(np.float32)[np.newaxis], **more))
    return frames


def measure(frames, **more):
    return measure_frames(frames, cache=False, **more)


# --- floats


@pytest.mark.parametrize("value", [2.5, 7.5, 1e6, np.inf, -1e5])
@pytest.mark.parametrize("hit", [1, 3, 6])
def test_bright_samples_do_not_change_the_scale(value, hit):
    plain = measure(night())
    frames = night()
    for i, frame in enumerate(frames[:hit]):
        frame.data[0, 3 + i, 7] = value
    got = measure(frames)
    assert got.unit_range and got.full_scale == 1
    np.testing.assert_allclose(got.location, plain.location, rtol=1e-3)
    np.testing.assert_allclose(got.scale_high, plain.scale_high, rtol=0.01)
    told = [note for note in got.notes if "read as 0 to 1" in note]
    assert len(told) == (2 < value < np.inf)
    assert not told or frames[0].name in told[0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3071), st.floats(-1e9, 1e9, width=32)), max_size=4),
    st.randoms(),
)
def test_lone_samples_and_the_order_never_decide(hits, random):
    frames = night()
    for i, pixel, value in hits:
        frames[i].data.reshape(-1)[pixel] = value
    random.shuffle(frames)
    assert measure(frames, noise=False).unit_range
    for frame in frames:
        frame.data *= np.float32(60000)
    got = measure(frames, noise=False)
    assert (got.unit_range, got.full_scale) == (False, 65535)


def test_adu_with_a_dark_sky():
    """Calibrated frames without a pedestal: half of the samples are below 0, few above 10."""
    got = measure(night(level=0.0, noise=5.0, star=3000.0), range_low=None)
    assert (got.unit_range, got.full_scale) == (False, 65535)


def test_a_sky_on_both_sides_of_the_threshold():
    """Physical units around 2 are one scale, not two."""
    frames = night(3, level=1.6, noise=0.05, star=30) + night(3, level=2.4, noise=0.05, star=30, seed=2)
    for i, frame in enumerate(frames):
        frame.path = Path(f"f{i}.fits")
    for order in (frames, frames[::-1]):
        got = measure(order)
        assert not got.unit_range
        assert np.isfinite(got.location).all()


@pytest.mark.parametrize("top", [3.0, 40.0, 200.0])
@pytest.mark.parametrize("hot", [False, True])
def test_rates_have_a_full_scale_of_their_own(top, hot):
    frames = night(level=0.05, noise=0.02, star=top, keywords={"BUNIT": "electron/s"})
    if hot:
        for i, frame in enumerate(frames):
            frame.data[0, 20 + i, 33] = 1e5
    got = measure(frames)
    assert not got.unit_range
    assert top / 20 < got.full_scale < 3 * top
    assert any(
        "electron/s" in note and f"full scale is taken as {got.full_scale:g}" in note for note in got.notes
    )


def test_a_stale_unit_does_not_count():
    """Programs that rescale frames to 0 to 1 keep the BUNIT of the camera."""
    got = measure(night(keywords={"BUNIT": "ADU"}))
    assert got.unit_range and not [note for note in got.notes if "full scale" in note]


def test_small_whole_numbers_are_counts():
    rng = np.random.default_rng(3)
    frames = night(4)
    for frame in frames:
        frame.data = rng.poisson(0.4, frame.data.shape).clip(0, 2).astype(np.float32)
    got = measure(frames)
    assert not got.unit_range and got.full_scale < 255
    assert (got.count > 0).all()


def test_floats_of_8_bits():
    assert measure(night(factor=250)).full_scale == 255
    assert measure(night(factor=60000)).full_scale == 65535


def test_different_scales_are_refused_by_what_is_usual():
    frames = night()
    frames[4].data *= np.float32(65535)
    frames[1].data[0, 0, 0] = 1e9
    with pytest.raises(
        FrameError, match=r"f0\.fits, f1\.fits.* from 0 to 1, but f4\.fits up to \d+e?\+?\d*\."
    ):
        measure(frames)
    mixed = night(3) + night(3, factor=65535)
    mixed[0].integer, mixed[0].full_scale = True, 65535.0
    with pytest.raises(FrameError, match="different scales"):
        measure(mixed)


# --- integers


@pytest.mark.parametrize(
    ("frames_summed", "full"), [(0.03, 65535), (1, 65535), (3, 131071), (100, 2**22 - 1)]
)
def test_wide_integers_hold_counts(frames_summed, full):
    counts = {"integer": True, "full_scale": WHOLE_32}
    frames = night(factor=frames_summed * 65535 / WHOLE_32, **counts)
    got = measure(frames)
    assert not got.unit_range
    assert got.full_scale * WHOLE_32 == pytest.approx(full)
    truth = [np.median(frame.data) for frame in frames]
    np.testing.assert_allclose(got.location[:, 0], truth, rtol=0.01)
    assert (got.count == 48 * 64).all()
    assert any("32-bit integers hold counts" in note for note in got.notes)


def test_one_saturated_count_does_not_make_integers_wide():
    frames = night(factor=65535 / WHOLE_32, integer=True, full_scale=WHOLE_32)
    for frame in frames:
        frame.data[0, 5, 5] = 0.5
    assert measure(frames).full_scale * WHOLE_32 == pytest.approx(65535)


def test_integers_scaled_to_their_full_range():
    got = measure(night(integer=True, full_scale=WHOLE_32))
    assert got.unit_range and got.full_scale == 1


def test_wide_counts_beside_16_bits_are_refused():
    frames = night(3, integer=True, full_scale=65535.0)
    frames += night(3, factor=65535 / WHOLE_32, integer=True, full_scale=WHOLE_32)
    with pytest.raises(FrameError, match="different scales"):
        measure(frames)


def test_the_noise_of_a_plane_measured_again():
    """A dim frame among bright ones looks like 0 to 1 at first."""
    frames = night(level=1.6, noise=0.05, star=30, keywords={})
    frames[0].data *= np.float32(0.9)
    got = measure(frames)
    assert got.noise[0, 0] == pytest.approx(plane_noise(frames[0].data[0]).sigma)


# --- one plane


def test_brightness():
    plane = np.linspace(0, 1, 300 * 400, dtype=np.float32).reshape(300, 400)
    plane[7, 5] = 1e9
    plane[8, 5] = np.nan
    got = brightness(plane)
    assert got.high == pytest.approx(0.99, abs=1e-3)
    assert 0.99 < got.top <= 1
    assert not got.counts
    assert brightness(np.rint(plane * 3)).counts
    assert not brightness(np.rint(plane.clip(0, 1))).counts
    assert np.isnan(brightness(np.full((4, 4), np.nan, np.float32)).high)
    assert brightness(np.full((1, 1), 0.5, np.float32)).top == 0.5
