"""The color filter pattern of a master that is still a mosaic."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl
from stacklib.frames.frame import Frame
from stacklib.output.mosaic import pattern_of

# The pattern of the colors counts as noise.
pytestmark = pytest.mark.filterwarnings("ignore:The noise of the result")

HEIGHT, WIDTH = 24, 32


def made(folder, *headers, height=HEIGHT, channels=1):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, cards in enumerate(headers):
        image = np.random.default_rng(seed).normal(0.2, 0.01, (channels, height, WIDTH)).astype(np.float32)
        header = fits.Header(cards | {"EXPTIME": 10.0})
        fits.writeto(folder / f"f{seed}.fits", image if channels > 1 else image[0], header)
    return folder


def integrated(folder, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sl.StacklibWarning)
        return sl.integrate(folder, sl.Recipe(rejection="none"), progress=False, **more)


def test_the_master_of_a_mosaic_keeps_the_pattern(tmp_path):
    result = integrated(made(tmp_path / "4_Registered", *[{"BAYERPAT": "rggb", "XBAYROFF": 0}] * 3))
    saved = result.save(tmp_path / "out", fits=True)
    for path in saved:
        master = Frame(path)
        assert master.cfa_pattern == "RGGB"
        assert [master.keywords[name] for name in ("XBAYROFF", "YBAYROFF")] == [0, 0]
    assert Frame(saved[0]).properties["PCL:CFASourcePattern"] == "RGGB"
    assert "were not debayered" in " ".join(result.report().split())


@pytest.mark.parametrize(
    ("cards", "region", "height", "pattern"),
    [
        ({}, None, 24, "RGGB"),
        ({"XBAYROFF": 1}, None, 24, "GRBG"),
        ({"YBAYROFF": 1}, None, 24, "GBRG"),
        ({"XBAYROFF": 3, "YBAYROFF": -1}, None, 24, "BGGR"),
        ({}, (1, 2, 12, 10), 24, "GRBG"),
        ({"XBAYROFF": 1}, (3, 1, 12, 10), 24, "GBRG"),
        ({"ROWORDER": "TOP-DOWN"}, None, 24, "RGGB"),
        # The pattern begins in the last row of the frames, which is the first one of the file.
        ({"ROWORDER": "BOTTOM-UP"}, None, 24, "RGGB"),
        ({"ROWORDER": "BOTTOM-UP"}, None, 23, "RGGB"),
        ({"ROWORDER": "BOTTOM-UP", "YBAYROFF": 1}, None, 23, "GBRG"),
        # 11 rows lie below the region, so it begins with the other row of the pattern, and a column later.
        ({"ROWORDER": "BOTTOM-UP"}, (1, 3, 12, 10), 24, "BGGR"),
    ],
)
def test_pattern_of_what_is_saved(tmp_path, cards, region, height, pattern):
    """The color of each pixel, stored as its value, is the one that the pattern of the master says."""
    folder = tmp_path / "4_Registered"
    folder.mkdir()
    across, down = cards.get("XBAYROFF", 0), cards.get("YBAYROFF", 0)
    level = {"R": 0.2, "G": 0.4, "B": 0.6}
    image = np.array(
        [[level["RGGB"[(y + down) % 2 * 2 + (x + across) % 2]] for x in range(WIDTH)] for y in range(height)],
        np.float32,
    )
    if cards.get("ROWORDER") == "BOTTOM-UP":
        image = image[::-1]
    for number in range(3):
        noisy = image + np.float32(0.001 * number)
        fits.writeto(
            folder / f"f{number}.fits", noisy, fits.Header({"BAYERPAT": "RGGB", "EXPTIME": 1.0} | cards)
        )
    result = integrated(folder, region=region)
    assert pattern_of(result) == pattern
    saved = fits.getdata(result.save(tmp_path / "out", fits=True)[3])
    colors = {text: round(value, 1) for text, value in level.items()}
    assert [round(float(v), 1) for v in saved[:2, :2].ravel()] == [colors[text] for text in pattern]


@pytest.mark.parametrize(
    ("headers", "channels"),
    [
        ([{"BAYERPAT": "RGGB"}, {"BAYERPAT": "BGGR"}], 1),
        ([{"BAYERPAT": "RGGB"}, {"BAYERPAT": "RGGB", "XBAYROFF": 1}], 1),
        ([{"BAYERPAT": "RGGB"}, {}], 1),
        ([{}, {}], 1),
        ([{"BAYERPAT": "YES"}] * 2, 1),
        ([{"BAYERPAT": "RGGB"}] * 2, 3),
    ],
)
def test_what_is_no_mosaic_has_no_pattern(tmp_path, headers, channels):
    result = integrated(made(tmp_path / "4_Registered", *headers, channels=channels))
    assert pattern_of(result) == ""
    assert all("BAYERPAT" not in Frame(path).keywords for path in result.save(tmp_path / "out", fits=True))
