"""Colored dots: what hits leave in debayered frames."""

import numpy as np
from scipy import ndimage

from stacklib import Recipe, reject
from stacklib.kernel.verdicts import HIGH, KEPT, LOW
from stacklib.spatial.colour import around_hits, mark_hits
from stacklib.spatial.means import ABOVE, COLOUR

NOISE = 0.002


def debayer(mosaic):
    """Bilinear interpolation of an RGGB mosaic, (3, height, width)."""
    y, x = np.indices(mosaic.shape)
    red, blue = (y % 2 == 0) & (x % 2 == 0), (y % 2 == 1) & (x % 2 == 1)
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    planes = zip((red, ~red & ~blue, blue), (square, cross, square), strict=True)
    return np.stack([ndimage.convolve(mosaic * mask, kernel, mode="mirror") for mask, kernel in planes])


def dithered_frames(count, hits, size=320):
    """Frames of sky alone, (3, frames, size, size), and the pixels that hits touch."""
    rng = np.random.default_rng(4)
    frames, touched = [], np.zeros((size, size), bool)
    for _ in range(count):
        mosaic = rng.normal(0.1, NOISE, (size, size))
        at = rng.integers(4, size - 4, (2, hits))
        mosaic[tuple(at)] += NOISE * np.exp(rng.uniform(np.log(5), np.log(200), hits))
        hit = np.zeros((size, size), bool)
        hit[tuple(at)] = True
        shift = tuple(rng.integers(-9, 10, 2))
        frames.append(np.roll(debayer(mosaic), shift, (1, 2)))
        touched |= np.roll(ndimage.binary_dilation(hit, np.ones((3, 3))), shift, (0, 1))
    return np.stack(frames, axis=1).astype(np.float32), touched


def z_of(frames, kept):
    """Deviation of each sample from the mean of the other kept ones, in sigma."""
    sigma = 1.4826 * np.median(np.abs(frames - 0.1), axis=(2, 3))[:, :, None, None]
    total, n = (frames * kept).sum(axis=1, keepdims=True), kept.sum(axis=1, keepdims=True)
    others = n - kept
    return (frames - (total - frames * kept) / others) / (sigma * np.sqrt(1 + 1 / others))


def rejected_jointly(frames):
    """What the rule keeps of debayered frames, and what is left without the surroundings of hits."""
    kept = np.stack([reject(channel, Recipe(rejection="sigma")) for channel in frames])
    z = z_of(frames, kept)
    verdicts = np.where(kept, KEPT, np.where(z > 0, HIGH, LOW)).astype(np.uint8)
    flags = np.zeros(z.shape[1:], np.uint8)
    for channel in range(3):
        for i, plane in enumerate(flags):
            mark_hits(z[channel, i], verdicts[channel, i], plane)
    hits = flags != 0
    common = hits.sum(axis=0) > 2
    return kept, kept & ~np.stack([around_hits(each, common) for each in hits])


def average(frames, kept):
    return (frames * kept).sum(axis=1) / kept.sum(axis=1)


def test_colored_dots_are_gone():
    frames, touched = dithered_frames(10, 76)
    images = [average(frames, kept) for kept in rejected_jointly(frames)]
    sigma = images[0][:, ~touched].std()
    before, after = (int(((image > 0.1 + 4 * sigma) & touched).any(axis=0).sum()) for image in images)
    assert touched.sum() > 6000
    assert before > 50
    # Noise alone makes one or two of so many.
    assert after <= 5


def test_clean_frames_hardly_lose_anything():
    frames, _ = dithered_frames(10, 0)
    before, after = (average(frames, kept).std() for kept in rejected_jointly(frames))
    assert after < 1.0005 * before


def test_a_hit_takes_its_neighbors():
    z, verdict = np.zeros((9, 9), np.float32), np.full((9, 9), KEPT, np.uint8)
    z[4, 4], z[1, 7], z[7, 1], z[1, 4], z[4, 1] = 8, -8, -6, 6, 6
    verdict[7, 1], verdict[4, 1] = LOW, HIGH
    z[0, 0], verdict[0, 1] = np.nan, LOW
    flags = np.zeros((9, 9), np.uint8)
    mark_hits(z, verdict, flags)
    # A dark sample that the rule kept has a hit in another frame.
    found = {(int(y), int(x)): int(flags[y, x]) for y, x in np.argwhere(flags)}
    assert found == {(4, 4): COLOUR | ABOVE, (7, 1): COLOUR, (4, 1): COLOUR | ABOVE}
    common = np.zeros((9, 9), bool)
    common[4, 1] = True
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = expected[6:9, 0:3] = True
    np.testing.assert_array_equal(around_hits(flags != 0, common), expected)
