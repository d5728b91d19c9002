"""Color filter mosaics: the colors of the sites, debayering, gray images for finding stars."""

import numpy as np
import pytest
from image_files import raw_fits

from stacklib.errors import FrameError
from stacklib.frames.frame import Frame
from stacklib.frames.mosaic import Sites, debayered, luminance, sites_of

XTRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"


def frame(tmp_path, cards=(), shape=(8, 10)):
    path = tmp_path / "frame.fits"
    return Frame(raw_fits(path, np.ones(shape, ">f4") / 2, cards), quiet=True)


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        (["BAYERPAT= 'RGGB'"], "RGGB"),
        (["BAYERPAT= 'GRBG'"], "GRBG"),
        (["BAYERPAT= 'RGGB'", "XBAYROFF= 1"], "GRBG"),
        (["BAYERPAT= 'RGGB'", "YBAYROFF= 1"], "GBRG"),
        (["BAYERPAT= 'RGGB'", "ROWORDER= 'TOP-DOWN'"], "RGGB"),
        # The last of eight rows is the first one of the pattern.
        (["BAYERPAT= 'RGGB'", "ROWORDER= 'BOTTOM-UP'"], "GBRG"),
        ([f"BAYERPAT= '{XTRANS}'"], XTRANS),
        ([], ""),
    ],
)
def test_the_pattern_of_the_header(tmp_path, cards, expected):
    sites = sites_of(frame(tmp_path, cards))
    assert sites.pattern == expected and sites.channels == (3 if expected else 1)


def test_an_odd_number_of_rows_from_the_bottom(tmp_path):
    cards = ["BAYERPAT= 'RGGB'", "ROWORDER= 'BOTTOM-UP'"]
    assert sites_of(frame(tmp_path, cards, (9, 10))).pattern == "RGGB"


def test_a_pattern_that_is_given(tmp_path):
    named = frame(tmp_path, ["BAYERPAT= 'RGGB'"])
    assert sites_of(named, "bggr").pattern == "BGGR" and sites_of(named, "none").channels == 1
    color = frame(tmp_path, ["BAYERPAT= 'RGGB'"], (3, 8, 10))
    assert sites_of(color) == Sites("", 3)
    with pytest.raises(FrameError, match="has 3 channels, so it is no mosaic with the pattern RGGB"):
        sites_of(color, "RGGB")


@pytest.mark.parametrize("text", ["CYGM", "RGB", "RGGX", "RRRR"])
def test_patterns_that_are_refused(tmp_path, text):
    with pytest.raises(FrameError, match=r"frame\.fits: its color filter pattern"):
        sites_of(frame(tmp_path), text)


def test_the_sites_of_a_pattern():
    sites = Sites("GRBG", 3)
    assert list(sites.planes()) == [(0, 0, 0, 1), (0, 1, 0, 0), (1, 0, 0, 2), (1, 1, 0, 1)]
    assert [sites.share(channel) for channel in range(3)] == [0.25, 0.5, 0.25]
    assert sites.channel_of(3, 3).tolist() == [[1, 0, 1], [2, 1, 2], [1, 0, 1]]
    assert list(Sites("", 3).planes()) == [(0, 0, c, c) for c in range(3)] and Sites("", 3).share(1) == 1


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG", XTRANS])
def test_debayering_keeps_what_is_even(pattern):
    sites = Sites(pattern, 3)
    levels = np.array([0.2, 0.5, 0.3], np.float32)
    plane = levels[sites.channel_of(18, 24)]
    found = debayered(plane, sites)
    assert np.allclose(found, levels[:, None, None])


@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "BGGR"])
def test_debayering_by_slopes_is_exact_for_slopes_and_sharper(pattern):
    sites = Sites(pattern, 3)
    y, x = np.mgrid[:40, :40] / 40.0
    # A gray picture with fine detail: colors differ by a constant.
    gray = 0.3 + 0.1 * x + 0.2 * y + 0.1 * np.sin(x * 50) * np.cos(y * 45)
    true = np.stack([gray + 0.2, gray, gray - 0.1])
    plane = np.take_along_axis(true, sites.channel_of(40, 40)[None].astype(int), 0)[0].astype(np.float32)
    inner = np.s_[:, 4:-4, 4:-4]
    rough, fine = (debayered(plane, sites, method)[inner] - true[inner] for method in ("bilinear", "malvar"))
    assert np.std(fine) < 0.5 * np.std(rough)
    sloped = np.stack([0.2 * x + 0.1 * y + level for level in (0.2, 0.3, 0.1)])
    plane = np.take_along_axis(sloped, sites.channel_of(40, 40)[None].astype(int), 0)[0].astype(np.float32)
    assert np.allclose(debayered(plane, sites, "malvar")[inner], sloped[inner], atol=1e-6)


@pytest.mark.parametrize("pattern", ["RGGB", XTRANS])
def test_a_gray_image_has_no_pattern(pattern):
    sites = Sites(pattern, 3)
    plane = np.array([0.2, 0.5, 0.3], np.float32)[sites.channel_of(24, 30)]
    plane[12, 14] += 1
    gray = luminance(plane, sites)
    size = sites.period
    assert gray.shape == (24 - size + 1, 30 - size + 1)
    # The center of a square lies (period - 1) / 2 pixels away from its first pixel.
    where = np.argwhere(gray > 0.5 / size**2) + (size - 1) / 2
    assert len(where) == size**2 and np.allclose(where.mean(axis=0), (12, 14))
    assert np.allclose(np.sort(gray.ravel())[: -(size**2)], 0, atol=1e-6)
