"""A faint trail in one of 20 frames of a real camera, with its banding, hot pixels and changing seeing."""

from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from spatial.trails import trail

import stacklib as sl
from stacklib.recipe.presets import PRESETS
from stacklib.spatial.means import FOOTPRINT, LINE

FRAMES = Path(__file__).resolve().parents[3] / "shared" / "data" / "hatp32_reg40"
STRUCK, COUNT = 7, 20
#: Sigma of the noise of a frame in ADU: see `test_real_data`.
SIGMA = 1.1
pytestmark = [
    pytest.mark.filterwarnings("ignore:Registration hides noise"),
    # They were aligned by whole pixels.
    pytest.mark.filterwarnings("ignore:.*do not lie on the others"),
]


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Return the light of a trail, and the masters of 20 frames with it, by footprints."""
    if not FRAMES.is_dir():
        pytest.skip("hatp32_reg40 is not here")
    folder = tmp_path_factory.mktemp("hatp32")
    light = 0.0
    for number, path in enumerate(sorted(FRAMES.glob("*.fits"))[:COUNT]):
        if number != STRUCK:
            (folder / path.name).symlink_to(path)
            continue
        image, header = fits.getdata(path, header=True)
        light = trail((-20, 130), (580, 352), 2 * SIGMA, shape=image.shape)
        grain = np.random.default_rng(3107).random(image.shape)
        fits.writeto(folder / path.name, np.floor(image + light + grain).astype(image.dtype), header)
    frames = sl.open_frames(folder)
    recipe = sl.Recipe(**PRESETS["measured"])
    results = {
        how: sl.integrate(frames, recipe.replace(footprints=how), progress=False) for how in ("off", "all")
    }
    return light, results


def test_the_trail_is_found_alone_and_masked_whole(night):
    light, results = night
    masks = results["all"].masks
    assert {i: len(lines) for i, lines in masks.lines.items() if lines} == {STRUCK: 1}
    (line,) = masks.lines[STRUCK]
    assert line.peak == pytest.approx(2, abs=0.7)
    under = masks.flags(STRUCK, 0) & LINE != 0
    assert light[~under].sum() < 0.05 * light.sum()
    assert under.mean() < 0.03


def test_the_light_of_the_trail_leaves_the_master(night):
    light, results = night
    change = (results["off"].original[0] - results["all"].original[0]).astype(float) * 65535
    core = light > 0.5 * light.max()
    # Where it was masked, the master loses what the trail added to it, a twentieth. Stars lie on it as well.
    assert np.median(change[core]) == pytest.approx(np.median(light[core]) / COUNT, rel=0.3)


def test_no_place_is_masked_in_many_frames(night):
    masks = night[1]["all"].masks
    every = [masks.flags(i, 0) for i in range(COUNT)]
    assert np.sum([flags & FOOTPRINT != 0 for flags in every], axis=0).max() <= 0.1 * COUNT
    assert np.mean([flags != 0 for flags in every]) < 0.01


def test_stars_keep_their_flux(night):
    _, results = night
    images = {how: result.original[0].astype(np.float64) for how, result in results.items()}
    background = sep.Background(images["off"])
    stars = sep.extract(images["off"] - background, 20, err=background.globalrms)
    inside = (stars["x"] > 12) & (stars["x"] < 540) & (stars["y"] > 12) & (stars["y"] < 464)
    stars = stars[inside]
    assert stars.size > 20
    flux = {
        how: sep.sum_circle(image, stars["x"], stars["y"], 6.0, bkgann=(8, 12))[0]
        for how, image in images.items()
    }
    change = flux["all"] / flux["off"] - 1
    assert abs(np.median(change)) < 0.001
    assert abs(flux["all"].sum() / flux["off"].sum() - 1) < 0.005
    assert np.quantile(np.abs(change), 0.9) < 0.01
