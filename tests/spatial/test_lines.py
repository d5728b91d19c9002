"""Straight trails in a residual."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from spatial.trails import SHAPE, noise, nothing_protected, quieter, stars, trail

from stacklib.spatial import radon
from stacklib.spatial.lines import Line, along_edge, find_lines, fixed_lines, line_mask
from stacklib.spatial.planes import bin_residual

#: Trails by name: both ends, outside the frame if they cross it.
ACROSS = {
    "flat": ((-50, 60), (500, 190)),
    "steep": ((330, -50), (150, 350)),
    "diagonal": ((-20, -31), (440, 429)),
    "corner": ((-40, 200), (160, 400)),
}


def find(z, protected=None):
    return find_lines(z, nothing_protected(z) if protected is None else protected)


def left_of(light, lines):
    """The part of the light that the masks of lines leave."""
    mask = (
        np.any([line_mask(line, light.shape) for line in lines], axis=0) if lines else np.zeros(light.shape)
    )
    return light[mask == 0].sum() / light.sum()


def slow_sum(plane, columns, slope, y):
    """Sum along the line through the first columns of a plane, by the recursion that defines it."""
    if columns == 1:
        return plane[y, 0] if 0 <= y < plane.shape[0] and plane.shape[1] else 0.0
    half = columns // 2
    first = slow_sum(plane[:, :half], half, slope // 2, y)
    return first + slow_sum(plane[:, half:], half, slope // 2, y + (slope + 1) // 2)


def test_sums_along_lines_are_those_of_the_definition():
    plane = noise(60, (13, 21))
    count = np.full(plane.shape, 16, np.uint16)
    for sums, counts in radon._strips(plane, count, 4, radon._Room(plane.shape)):
        columns = sums.shape[1]
        for strip in range(len(sums)):
            part = np.pad(plane, ((0, 0), (0, 32)))[:, strip * columns : (strip + 1) * columns]
            expected = [
                [slow_sum(part, columns, slope, i - (columns - 1)) for i in range(sums.shape[2])]
                for slope in range(columns)
            ]
            np.testing.assert_allclose(sums[strip], expected, atol=1e-5)
        assert counts.max() <= 16 * columns
        np.testing.assert_array_equal(
            counts.sum(axis=(0, 2)), np.full(columns, 16 * plane.size), "every pixel once"
        )


@pytest.mark.parametrize("blur", [0.0, 0.7])
@pytest.mark.parametrize("where", ACROSS)
def test_faint_trails_are_found_with_their_light(where, blur):
    light = trail(*ACROSS[where], 1.5 / quieter(blur))
    lines = find(noise(61, blur=blur) + light)
    assert len(lines) == 1
    assert left_of(light, lines) < 0.02
    assert lines[0].peak == pytest.approx(1.5 / quieter(blur), rel=0.2)
    assert lines[0].significance > 9
    assert 5 < lines[0].width < 14


def test_strength_finds_fainter_trails():
    found = []
    for strength in (0.7, 1.0, 1.3):
        faint = [noise(seed) + trail(*ACROSS["flat"], 0.35) for seed in range(61, 69)]
        lines = [find_lines(z, nothing_protected(z), strength=strength) for z in faint]
        found.append(sum(map(bool, lines)))
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("shape", [(900, 1100), (1500, 2000)])
def test_large_frames_have_larger_bins(shape):
    light = trail((-20, 300), (2100, 700), 1.5, shape=shape)
    ending = trail((400, 880), (560, 800), 3.0, shape=shape)
    lines = find(noise(91, shape) + light + ending)
    assert len(lines) == 2
    assert left_of(light, lines) < 0.02
    assert left_of(ending, lines) < 0.04
    assert find(noise(92, shape)) == []


@pytest.mark.parametrize("peak", [2.0, 20.0])
def test_ends_in_the_frame_are_honoured(peak):
    start, end = (120.0, 90.0), (300.0, 210.0)
    (line,) = find(noise(62) + trail(start, end, peak))
    ends = sorted([(line.x0, line.y0), (line.x1, line.y1)])
    for place, wanted in zip(ends, (start, end), strict=True):
        assert np.hypot(*np.subtract(place, wanted)) < 16
    assert left_of(trail(start, end, peak), [line]) < 0.03
    assert line.length < np.hypot(180, 120) + 28


def test_several_trails_in_one_frame():
    ends = [((-20, 40), (450, 100)), ((100, -20), (180, 320)), ((380, -20), (200, 320))]
    lights = [trail(*pair, peak) for pair, peak in zip(ends, (2.0, 4.0, 30.0), strict=True)]
    lines = find(noise(63) + sum(lights))
    assert len(lines) == 3
    assert all(left_of(light, lines) < 0.02 for light in lights)


@pytest.mark.parametrize("fwhm", [2.0, 6.0, 14.0])
def test_masks_are_as_wide_as_the_trail(fwhm):
    light = trail((-20, 40), (450, 250), 3.0, fwhm)
    lines = find(noise(64) + light)
    assert left_of(light, lines) < 0.02
    assert sum(line.width for line in lines) < 5 * fwhm + 4


@pytest.mark.parametrize("blur", [0.0, 0.5, 1.0])
def test_no_lines_in_noise(blur):
    for seed in range(70, 80):
        assert find(noise(seed, blur=blur)) == []


def test_no_lines_in_stars_and_smooth_light():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    halo = 3.0 * np.exp(-0.5 * ((x - 100) ** 2 + (y - 150) ** 2) / 60**2)
    for seed in range(80, 84):
        light = stars(seed, 150, 12.0) + halo - 0.005 * y
        assert find((noise(seed) + light).astype(np.float32)) == []


def test_stars_in_a_row_are_no_line():
    z = noise(84)
    for x in range(60, 400, 80):
        z += trail((x, 20 + x // 2), (x + 1, 20 + x // 2), 15.0, 4.0)
    assert find(z) == []


def test_dark_lines_are_images_of_trails_in_other_frames():
    assert find(noise(85) - trail(*ACROSS["flat"], 4.0)) == []


@pytest.mark.parametrize("axis", [0, 1])
def test_banding_is_no_line_but_a_trail_in_it_is(axis):
    bands = np.random.default_rng([86, 1]).normal(0, 0.3, SHAPE[axis])
    banding = np.expand_dims(bands, 1 - axis).astype(np.float32)
    # Bands that end in the middle of the frame, as those of two amplifiers.
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    half = np.where((x if axis == 0 else y) < SHAPE[1 - axis] // 2, banding, 0.3 * banding)
    z = noise(86) + half.astype(np.float32)
    assert find(z) == []
    light = trail((-50, 150), (500, 150), 2.0) if axis == 0 else trail((200, -50), (200, 350), 2.0)
    lines = find(z + light)
    assert left_of(light, lines) < 0.02
    assert len(lines) == 1


def test_missing_data_and_protected_stars_are_no_ends():
    light = trail(*ACROSS["flat"], 2.0)
    z = noise(87) + light
    z[:, :9] = z[:14] = np.nan
    protected = nothing_protected(z)
    protected[:, 200:240] = True
    z[:, 200:240] += 100
    lines = find(z, protected)
    assert len(lines) == 1
    assert left_of(light, lines) < 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (5, 7), (40, 500), (500, 40)])
def test_every_shape_works(shape):
    assert find(noise(88, shape)) == []
    assert find(np.full(shape, np.nan, np.float32)) == []
    assert find(np.zeros(shape, np.float32)) == []


def test_threads_find_the_same():
    z = noise(89) + trail(*ACROSS["steep"], 2.0)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(find, [z] * 3))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    "ends", [(10, 20, 50, 30), (50, 30, 10, 20), (5, 5, 5, 50), (-9, 40, 90, 40), (60, 3, 7, 71)]
)
def test_mask_of_a_line(ends):
    line = Line(*ends, width=7.0, peak=2.0, significance=20.0)
    mask = line_mask(line, (60, 80))
    y, x = np.mgrid[:60, :80]
    ux, uy = (ends[2] - ends[0]) / line.length, (ends[3] - ends[1]) / line.length
    along, across = (x - ends[0]) * ux + (y - ends[1]) * uy, (y - ends[1]) * ux - (x - ends[0]) * uy
    expected = (along >= -1e-9) & (along <= line.length + 1e-9) & (np.abs(across) <= 3.5 + 1e-9)
    sure = (
        (np.abs(np.abs(across) - 3.5) > 1e-6) & (np.abs(along) > 1e-6) & (np.abs(along - line.length) > 1e-6)
    )
    assert (mask == expected)[sure].all()
    assert mask.any()


def test_lines_at_one_place_are_no_trails():
    spike = [Line(50 + i, 0, 52 + i, 299, 5, 2, 20) for i in range(3)]
    one = Line(0, 100, 419, 150, 7, 2, 30)
    frames = [[spike[0], one], [], [spike[1]], [spike[2]], [Line(200, 0, 240, 299, 5, 2, 20)], []]
    assert fixed_lines(frames, SHAPE) == [[True, False], [], [True], [True], [False], []]
    assert fixed_lines(frames[:3], SHAPE) == [[False, False], [], [False]]


def test_bins_are_sums_without_the_smooth_part():
    y, x = np.mgrid[:200, :330]
    z = (5 + 0.01 * x - 0.004 * y).astype(np.float32) * 0.3
    protected = np.zeros(z.shape, bool)
    protected[17, 30] = True
    z[60:64, 80:84] = np.nan
    total, number, _ = bin_residual(z, protected, 4, 3.5)
    assert total.shape == number.shape == (50, 83)
    assert number[4, 7] == 15 and number[15, 20] == 0 and number[0, 82] == 8
    # Between the middles of whole blocks the plane is taken out.
    inner = np.s_[9:36, 9:70]
    assert np.abs(total[inner] / np.maximum(number[inner], 1)).max() < 0.02
    z = noise(90, (200, 330))
    total = bin_residual(z, nothing_protected(z), 2, 1.0).total
    blocks = np.clip(z, -1, 1).reshape(100, 2, 165, 2).sum(axis=(1, 3))
    assert np.corrcoef(blocks.ravel(), total.ravel())[0, 1] > 0.99


def test_edges_of_other_frames_are_no_trails():
    count = np.full((200, 300), 8, np.uint16)
    count[:6] = 7
    count[:, 150:] -= 1
    for ends in ((5, 5, 290, 7), (149, 10, 151, 190), (10, 1, 200, 1)):
        assert along_edge(Line(*ends, 9.0, 1.0, 20.0), count)
    # Across edges, into a corner, and beside pixels that are missing here and there.
    count[np.random.default_rng(5).random(count.shape) < 0.1] -= 1
    for ends in ((-1, 60, 300, 140), (-1, 70, 80, -1), (20, 100, 130, 100)):
        assert not along_edge(Line(*ends, 9.0, 1.0, 20.0), count)
