"""Noise of the frames and of the levels, against what was put in."""

import numpy as np
import pytest

from stacklib.normalization.noise_curve import BLOCK, FrameNoise, NoiseCurve, blocks_of, spread_rows


def blocks(rng, noise, level, sigma):
    """Samples of blocks of one level each, for frames of relative noise."""
    shape = (noise.size, level.size, BLOCK**2)
    return (level[:, None] + noise[:, None, None] * sigma[:, None] * rng.standard_normal(shape)).astype("f4")


@pytest.mark.parametrize("frames", [3, 4, 6, 10, 25])
@pytest.mark.parametrize("unequal", [False, True])
def test_noise_and_curve_are_found(frames, unequal):
    rng = np.random.default_rng([41, frames])
    noise = np.linspace(1, 2.5, frames) if unequal else np.ones(frames)
    level = rng.choice([0.05, 0.1, 0.3], 2400, p=[0.85, 0.1, 0.05])
    samples = blocks(rng, noise, level, np.sqrt(1e-5 * level))
    # Hits and missing samples must not matter, nor a background of their own.
    samples[rng.random(samples.shape) < 0.002] += 0.05
    samples[0] += np.float32(1e-4) * np.linspace(0, 3, level.size, dtype="f4")[:, None]
    samples[rng.random(samples.shape) < 0.01] = np.nan
    found = FrameNoise.measure(samples)
    np.testing.assert_allclose(found.relative / found.relative.mean(), noise / noise.mean(), rtol=0.03)
    scale = (noise.mean() / found.relative.mean()) ** 2
    np.testing.assert_allclose(
        found.curve.at([0.05, 0.1, 0.3]) / scale, [5e-7, 1e-6, 3e-6], rtol=0.2 if frames < 6 else 0.1
    )
    assert (np.diff(found.curve.variance) >= 0).all()


@pytest.mark.parametrize("seed", [41, 42])
@pytest.mark.parametrize("scattered", [True, False])
def test_frames_with_missing_samples(scattered, seed):
    # How much of the noise of the others is in the deviation of a frame depends on how many there are.
    rng = np.random.default_rng(seed)
    true = np.linspace(0.7, 2, 14)
    samples = 10 + true[:, None, None] * rng.standard_normal((14, 3000, BLOCK**2))
    if scattered:
        samples[rng.random(samples.shape) < 0.4] = np.nan
    else:
        order = rng.permutation(14)
        for part, count in enumerate((4, 8, 9, 11, 14)):
            samples[order >= count, 600 * part : 600 * (part + 1)] = np.nan
    noise = FrameNoise.measure(samples.astype(np.float32))
    found = noise.relative * np.sqrt(noise.curve.at(np.array([10.0])))
    np.testing.assert_allclose(found, true, rtol=0.04)


def test_quantised_samples():
    rng = np.random.default_rng(42)
    step = 1 / 4096
    samples = (step * np.round(500 + 0.2 * rng.standard_normal((12, 500, 16)))).astype(np.float32)
    found = FrameNoise.measure(samples, step / np.sqrt(12))
    assert found.curve.variance.min() >= step**2 / 12
    assert found.relative.max() < 1.5


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_nothing_to_measure(value):
    found = FrameNoise.measure(np.full((5, 30, 16), value, np.float32), 1e-6)
    assert found.relative.tolist() == [1] * 5
    assert (found.curve.variance > 0).all() and found.contrast == 0


def test_stars_of_changing_seeing_tell_how_much():
    rng = np.random.default_rng(43)
    y, x = np.mgrid[:4, :4] - 1.5
    width = np.linspace(1.1, 1.6, 10)[:, None, None]
    star = np.exp(-(x**2 + y**2) / (2 * width**2)) / width**2
    samples = 0.1 + 1e-3 * rng.standard_normal((10, 600, 16))
    samples[:, ::6] += 0.2 * star.reshape(10, 1, 16)
    assert FrameNoise.measure(samples.astype("f4")).contrast > 0.01
    samples[:, ::6] += 0.2 * (star.mean(axis=0) - star).reshape(10, 1, 16)
    assert FrameNoise.measure(samples.astype("f4")).contrast < 0.003


def test_curve_of_points():
    rng = np.random.default_rng(44)
    level = rng.uniform(0, 1, 4000)
    variance = (1 + level) * rng.chisquare(40, 4000) / 40
    curve = NoiseCurve.fit(level, variance, 40)
    np.testing.assert_allclose(curve.at([0.2, 0.5, 0.8]), [1.2, 1.5, 1.8], rtol=0.05)
    assert curve.at(-5) == curve.variance[0] and curve.table.shape == (2, curve.level.size)


@pytest.mark.parametrize(
    ("height", "width", "frames"), [(3, 5, 4), (64, 64, 5), (1500, 2000, 20), (4000, 6000, 200)]
)
@pytest.mark.parametrize("period", [1, 2])
def test_rows_are_spread_over_the_image(height, width, frames, period):
    bands = list(spread_rows(height, width, frames, period))
    starts = [start for start, _ in bands]
    side = BLOCK * period
    assert starts == sorted(set(starts)) and starts[-1] + min(side, height) <= height
    assert all(start % side == 0 for start in starts)
    rows = np.zeros((min(side, height), width), np.float32)
    pixels = sum(blocks_of(rows, columns, period).size for _, columns in bands)
    assert min(height * width * 0.5, 500) < pixels <= 200_000
    if height > 1000:
        assert starts[0] < height / 10 and starts[-1] > 0.9 * height


@pytest.mark.parametrize("period", [2, 6])
def test_blocks_of_a_mosaic_have_one_color(period):
    places = np.arange(period**2).reshape(period, period)
    rows = np.tile(places, (BLOCK, 3 * BLOCK + 1)).astype("f4")
    blocks = blocks_of(rows, slice(None), period)
    assert blocks.shape == (3 * period**2, BLOCK**2)
    np.testing.assert_array_equal(blocks, np.repeat(np.arange(period**2), 3)[:, None] * np.ones(BLOCK**2))


def test_noise_of_places_of_one_level_and_of_levels():
    rng = np.random.default_rng(45)
    true = np.array([[1.0, 1.5], [1.8, 1.0]])
    level = np.array([[0.1, 0.1], [0.1, 0.2]])
    sigma = 1e-3 * true * np.sqrt(level / 0.1)
    size = BLOCK * 2 * 30
    frames = rng.standard_normal((10, 8 * size, size)) * np.tile(sigma, (4 * size, size // 2))
    frames += np.tile(level, (4 * size, size // 2))
    bands = range(0, 8 * size, 2 * BLOCK)
    cut = [
        np.stack([blocks_of(frame[k : k + 2 * BLOCK], slice(None), 2) for frame in frames.astype("f4")])
        for k in bands
    ]
    found = FrameNoise.measure(np.concatenate(cut, axis=1), 0.0, 2, len(bands))
    noise = found.places * np.sqrt(found.curve.at(level))
    np.testing.assert_allclose(noise, sigma, rtol=0.02)
    assert found.places.min() == 1
    assert FrameNoise.from_arrays(found.to_arrays()).places.tolist() == found.places.tolist()


def test_noise_of_means_is_not_hidden():
    rng = np.random.default_rng(4)
    sigma = np.array([1.0, 1.5, 2.0, 1.0, 1.5, 2.0])
    noise = sigma[:, None, None] * rng.standard_normal((6, 97, 801))
    moved = (noise[:, 1:, 1:] + noise[:, :-1, 1:] + noise[:, 1:, :-1] + noise[:, :-1, :-1]) / 4
    frames = np.concatenate([noise[:3, 1:, 1:], moved[3:]]).astype(np.float32)
    # Gradients and stars that are matched badly are no noise.
    frames += (np.arange(6) * 2e-2)[:, None, None] * np.arange(800, dtype=np.float32)
    frames[:, 40:44, ::60] += 20 * (1 + 0.3 * np.arange(6, dtype=np.float32)[:, None, None])
    pieces = [
        blocks_of(plane[start : start + 4], slice(None)) for plane in frames for start in range(0, 96, 4)
    ]
    found = FrameNoise.measure(np.array(pieces).reshape(6, -1, 16))
    np.testing.assert_allclose(found.larger[:3] / found.larger[0], sigma[:3], rtol=0.06)
    np.testing.assert_allclose(found.larger[3:] / found.larger[0], 0.875 * sigma[3:], rtol=0.06)
