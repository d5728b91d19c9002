"""Whole runs: what is honored of an integration, where the geometry comes from, and the files."""

import importlib
import json
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import stacklib
from stacklib.drizzle.frames import frame_key, open_unregistered, stars_of, twins
from stacklib.drizzle.processes import workers
from stacklib.drizzle.registration.registered import MaskFile, SurfaceCorrection, masks_of_result
from stacklib.drizzle.run import drizzle, drizzle_forecast
from stacklib.errors import FrameError, IntegrationError, RecipeError, StacklibWarning
from stacklib.formats.xdrz import read_xdrz, write_xdrz
from stacklib.formats.xisf import open_image
from stacklib.frames.frame_set import open_frames
from stacklib.integration import noise
from stacklib.integration.rerun import also_saved, repeats
from stacklib.integration.rerun import rerun as integration_rerun
from stacklib.integration.run import integrate
from stacklib.kernel.verdicts import HIGH, LOW, verdicts
from stacklib.normalization.surfaces import Surfaces
from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Recipe
from stacklib.simulate import simulate_dithered

COUNT, HEIGHT, WIDTH = 16, 150, 190
RULE = Recipe(rejection="winsorized_sigma", weights="none", joint_colour=False)


@pytest.fixture(scope="module")
def night():
    return simulate_dithered(COUNT, HEIGHT, WIDTH, "field", seed=6, fwhm=2.0, cosmic_rays=15, hot_pixels=60)


@pytest.fixture(scope="module")
def folder(night, tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    night.save(folder, dtype="f32")
    return folder


@pytest.fixture(scope="module")
def integrated(folder):
    return integrate(folder / "4_Registered", RULE, progress=False)


@pytest.fixture(scope="module")
def drizzled(folder, integrated):
    return quiet(folder / "3_Calibrated", integrated)


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        return drizzle(*args, progress=False, **options)


def inner(planes, scale=1, margin=14):
    edge = int(scale * margin)
    return planes[:, edge:-edge, edge:-edge]


def off(found, night):
    """Return the drizzled image without sky, minus the truth, away from the light of stars."""
    first = next(int(i) for i in found.used if np.allclose(found.numbers[int(i)][0], 1))
    light = night.transparency[first] * night.truth()
    residual = found.image / found.range_factor - night.sky[first][:, None, None] - light
    return inner(residual)[inner(light) < 0.002]


def test_outliers_are_gone_and_the_sky_is_that_of_the_reference(drizzled, night):
    assert drizzled.used.size == COUNT and not drizzled.left_out and drizzled.rule == "winsorized_sigma"
    residual = off(drizzled, night)
    sigma = 1.4826 * np.median(np.abs(residual))
    assert abs(np.median(residual)) < 0.2 * sigma
    # Without rejection, cosmic rays and bad pixels of 16 frames would be in hundreds of places.
    assert np.mean(residual > 8 * sigma) < 2e-4


def test_without_rejection_they_are_there(folder, night):
    found = quiet(
        folder / "3_Calibrated", folder / "4_Registered", integration=RULE.replace(rejection="none")
    )
    residual = off(found, night)
    sigma = 1.4826 * np.median(np.abs(residual))
    assert np.mean(residual > 8 * sigma) > 2e-3


def test_geometry_from_drizzle_data(drizzled, night):
    for i in range(COUNT):
        assert np.abs(drizzled.geometries[i].matrix - night.matrices[i]).max() < 1e-9
        assert drizzled.geometries[i].origin.endswith(".xdrz")


def test_frames_that_were_never_registered(folder, night):
    found = quiet(
        folder / "3_Calibrated", recipe=DrizzleRecipe(scale=2, drop=0.8), geometry="stars", integration=RULE
    )
    assert found.used.size >= COUNT - 2 and found.image.shape == (3, 2 * HEIGHT, 2 * WIDTH)
    known = [int(i) for i in found.used]
    # They lie on each other; the reference is one of the frames.
    first = known[0]
    between = [
        found.geometries[i].matrix @ found.geometries[first].inverse
        - night.matrices[i] @ np.linalg.inv(night.matrices[first])
        for i in known
    ]
    assert np.abs([matrix[:2, 2] for matrix in between]).max() < 0.5
    assert np.median(np.abs([matrix[:2, 2] for matrix in between])) < 0.1
    assert "by" in found.geometries[first].origin and found.geometries[first].rms < 0.3
    residual = np.abs(found.image - np.median(found.image, axis=(1, 2), keepdims=True))
    assert np.isfinite(found.image).all() and residual.max() < 1


def test_threads_and_memory_change_no_bit(drizzled, folder, integrated, monkeypatch):
    monkeypatch.setattr(workers, "FEW_SAMPLES", 0)
    again = quiet(folder / "3_Calibrated", integrated, threads=2)
    assert np.array_equal(again.image, drizzled.image) and np.array_equal(again.weights, drizzled.weights)


def test_files(drizzled, tmp_path, night):
    paths = drizzled.save(tmp_path)
    stem = "20210815_Simulated_Simulatedcamera_0000_drizzle"
    assert [path.name for path in paths] == [f"{stem}.xisf", f"{stem}_weights.xisf"]
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {
        *(path.name for path in paths),
        f"{stem}_frames.ecsv",
        f"{stem}_report.txt",
    }
    image = open_image(paths[0])
    pixels = np.stack([image.read_rows(0, image.height, channel) for channel in range(3)])
    assert np.array_equal(pixels, drizzled.image)
    cards = image.keywords
    assert (cards["DRZSCALE"], cards["DRZDROP"], cards["DRZKERN"]) == (1.0, 0.9, "square")
    assert cards["NCOMBINE"] == COUNT and cards["EXPTIME"] == COUNT * 180
    record = json.loads(image.properties["stacklib:Drizzle"])
    assert record["recipe"] == drizzled.recipe.to_dict()
    assert record["integration"]["rejection"] == "winsorized_sigma"

    assert len(record["frames"][3]["sha256"]) == 64
    assert np.abs(np.reshape(record["frames"][3]["matrix"], (3, 3)) - night.matrices[3]).max() < 1e-9
    history = image.properties["Processing:History"]
    assert "drizzle of 16 of 16 frames" in history and "drizzle drop = 0.9" in history
    report = (tmp_path / f"{stem}_report.txt").read_text()
    assert "each color from its own pixels" in report and drizzled.forecast.verdict in report
    assert drizzled.save(tmp_path)[0].name == stem.replace("0000", "0001") + ".xisf"
    assert repr(drizzled).startswith("<Drizzled of 16 frames, 190 x 150, 3 channels, scale 1, drop 0.9")


def test_the_forecast_before_the_run(drizzled, folder, integrated):
    for known in (None, folder / "4_Registered"):
        where = {"geometry": folder / "4_Registered"} if known is None else {}
        found = drizzle_forecast(folder / "3_Calibrated", known, **where)
        assert found.verdict == drizzled.forecast.verdict
        assert np.array_equal(found.samples, drizzled.forecast.samples)
    whole = drizzle_forecast(folder / "3_Calibrated", integrated, whole=True)
    assert whole.samples.shape == (3, 1, 1, HEIGHT, WIDTH)
    with pytest.raises(IntegrationError, match="2 frames, drizzling needs at least 3"):
        drizzle_forecast(sorted((folder / "3_Calibrated").glob("*.xisf"))[:2])


def test_the_function_beside_the_package_of_its_name(drizzled):
    assert stacklib.drizzle is drizzle and stacklib.Drizzled is type(drizzled)
    importlib.import_module("stacklib.drizzle.processes.workers")
    assert stacklib.drizzle is drizzle
    assert pickle.loads(pickle.dumps(stacklib.drizzle)) is drizzle
    assert pickle.loads(pickle.dumps(drizzled.grid)) == drizzled.grid


# again ------------------------------------------------------------------------------------------------


def repeated(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        return stacklib.rerun(path, progress=False, **options)


def test_a_saved_run_is_repeated_bit_for_bit(drizzled, folder, tmp_path):
    first = drizzled.save(tmp_path / "out", fits=True)
    assert [path.name.split("_0000_")[1] for path in first] == [
        "drizzle.xisf",
        "drizzle_weights.xisf",
        "drizzle.fits",
        "drizzle_weights.fits",
    ]
    assert also_saved(first[0]) == {"fits": True}
    # By the FITS file too, which has no record itself.
    again = repeated(first[2], threads=1)
    assert np.array_equal(again.image, drizzled.image) and np.array_equal(again.weights, drizzled.weights)
    assert again.forecast.verdict == drizzled.forecast.verdict and again.rule == drizzled.rule
    assert repeats(first[0], again.save(tmp_path / "again"))
    assert Recipe.from_result(first[0]) == Recipe.from_result(first[2]) == drizzled.integration_recipe
    with pytest.raises(RecipeError, match=r"is drizzled; repeat the run with stacklib\.rerun"):
        integration_rerun(first[0])
    with pytest.raises(FrameError, match=r"cannot be repeated: 32 of its 32 files missing"):
        repeated(first[0], frames=tmp_path / "out")


def test_a_run_without_registered_frames_is_repeated(folder, tmp_path):
    frames = sorted((folder / "3_Calibrated").glob("*.xisf"))[:5]
    found = quiet(frames, geometry="stars", integration=RULE)
    again = repeated(found.save(tmp_path)[0])
    assert np.array_equal(again.image, found.image) and again.used.size == 5
    assert again.geometries[1].origin == found.geometries[1].origin


def test_drizzle_data_with_the_geometry_that_was_found(drizzled, night, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        drizzled.save(tmp_path, drizzle_data=True)
    for i, path in enumerate(sorted((tmp_path / "drizzle").iterdir())):
        data = read_xdrz(path)
        assert np.abs(data.corner_matrix - night.matrices[i]).max() < 1e-9 and data.pattern == "RGGB"
        assert data.source == str(drizzled.frames[i].path) and len(data.weights) == len(data.maps) == 3
    with pytest.raises(RecipeError, match="drizzle_data: needs the registered frames"):
        replace(drizzled, preparation=None).save(tmp_path, drizzle_data=True)


def test_fits_has_the_pixels_and_the_keywords(drizzled, tmp_path):
    xisf, _, fits_file, _ = drizzled.save(tmp_path, fits=True)
    with fits.open(fits_file) as found:
        assert np.array_equal(found[0].data, drizzled.image)
        header = found[0].header
        assert (header["DRZSCALE"], header["DRZDROP"], header["NCOMBINE"]) == (1.0, 0.9, COUNT)
        assert header["TELESCOP"] and "drizzle of 16 of 16 frames" in str(header["HISTORY"])
    assert open_image(xisf).keywords["TELESCOP"] == header["TELESCOP"]


@pytest.mark.parametrize("kind", ["fits", "xisf"])
def test_world_coordinates_of_the_reference_on_the_grid(kind, tmp_path):
    night = simulate_dithered(4, 60, 80, "field", seed=3, cosmic_rays=0)
    cards = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRPIX1": 30.5, "CRPIX2": 22.0}
    cards |= {"CRVAL1": 210.0, "CRVAL2": 54.0, "CD1_1": -4e-4, "CD1_2": 1e-4, "CD2_1": 1e-4, "CD2_2": 4e-4}
    cards |= {"A_ORDER": 2, "A_2_0": 1e-5, "A_1_1": 2e-5, "B_ORDER": 2, "B_0_2": -3e-5, "B_2_0": 1e-5}
    for header in night.headers:
        header.update({name: (value, "") for name, value in cards.items()} | {"XPIXSZ": (4.6, "")})
    night.save(tmp_path, kind, dtype="f32")
    recipe = DrizzleRecipe(scale=1.5, drop=1.0)
    found = quiet(tmp_path / "3_Calibrated", tmp_path / "4_Registered", recipe, integration=RULE)
    saved = found.save(tmp_path / "out", fits=True)
    x, y = np.array([2.0, 40.0, 71.0]), np.array([3.0, 30.0, 55.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The keywords of XISF count rows from the bottom.
        flip = kind == "xisf"
        there = WCS(fits.Header(cards)).all_pix2world(x + 0.5, 60 - y + 0.5 if flip else y + 0.5, 1)
        with fits.open(saved[2]) as image:
            assert image[0].header["XPIXSZ"] == pytest.approx(4.6 / 1.5)
            here = WCS(image[0].header, naxis=2).all_pix2world(1.5 * x + 0.5, 1.5 * y + 0.5, 1)
            assert np.allclose(here, there, atol=1e-9)
        world = {n: v for n, v in open_image(saved[0]).keywords.items() if n in cards}
        here = WCS(fits.Header(world)).all_pix2world(1.5 * x + 0.5, 90 - 1.5 * y + 0.5, 1)
        assert np.allclose(here, there, atol=1e-9)


# what an integration knows ----------------------------------------------------------------------------


def test_masks_are_the_verdicts_of_the_integration(integrated, tmp_path, monkeypatch):
    monkeypatch.setattr(noise, "BAND_SAMPLES", 50_000)
    masks = masks_of_result(integrated, tmp_path)
    p = integrated.preparation
    raw = np.stack([p.read_rows(int(i), 0, HEIGHT, 1) for i in p.used]).reshape(p.count, -1)
    judged = verdicts(raw, p.settings(1)).reshape(p.count, HEIGHT, WIDTH)
    for k, i in enumerate(p.used):
        expected = (judged[k] == LOW) | (judged[k] == HIGH)
        assert np.array_equal(masks[int(i)].rejected(1, 0, HEIGHT + 5), expected)
        assert np.array_equal(masks[int(i)].rejected(1, 40, 60), expected[40:60])
    assert masks[0].rejected(0, HEIGHT, HEIGHT + 9).shape == (0, WIDTH)


def test_what_neighbors_reject_counts_as_well(folder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recipe = RULE.replace(large_scale_high=True, footprints="all")
        result = integrate(folder / "4_Registered", recipe, progress=False)
    masks = masks_of_result(result, tmp_path)
    assert result.masks
    taken = 0
    for i, channel in result.masks:
        lost, flags = masks[i].rejected(channel, 0, HEIGHT), result.masks.flags(i, channel)
        assert lost[flags != 0].all()
        taken += np.count_nonzero(flags)
    assert taken > 100


def test_mask_files_hold_any_bits(tmp_path):
    mask = np.random.default_rng(1).random((2, 9, 13)) > 0.5
    stored = MaskFile(tmp_path / "mask", 2, 9, 13)
    for channel in (1, 0):
        for start in (5, 0):
            stored.write(channel, start, mask[channel, start : start + (5 if start == 0 else 4)])
    assert np.array_equal(np.stack([stored.rejected(c, 0, 9) for c in range(2)]), mask)
    # A gray mask is for all colors.
    assert np.array_equal(stored.rejected(2, 3, 6), mask[1, 3:6])


def test_drizzle_data_of_an_integration(folder, integrated, drizzled, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        integrated.save(tmp_path, drizzle_data=True)
    found = quiet(folder / "3_Calibrated", geometry=integrated.saved.drizzle)
    assert found.rule == "that of the drizzle data"
    # At the border, where registered frames have no data, drizzle data reject what else counts.
    assert np.allclose(inner(found.image), inner(drizzled.image), atol=1e-5)
    assert np.array_equal(inner(found.weights), inner(drizzled.weights))
    again = repeated(found.save(tmp_path)[0])
    assert np.array_equal(again.image, found.image) and again.rule == found.rule


def test_drizzle_data_are_fractions_of_full_scale(folder, integrated, tmp_path):
    frames = sorted((folder / "3_Calibrated").glob("*.xisf"))[:4]
    for path, frame in zip(frames, integrated.preparation.frames, strict=False):
        pixels = open_image(path).read_rows(0, HEIGHT, 0)
        header = fits.Header({"BAYERPAT": "RGGB"})
        fits.PrimaryHDU(pixels * np.float32(65535), header).writeto(tmp_path / f"{path.stem}.fits")
        data = read_xdrz(frame.path.with_suffix(".xdrz"))
        level = (float(np.median(pixels)),) * 3
        known = replace(data, location=level, reference_location=level, scale=(0.5,) * 3, weights=(1.0,) * 3)
        write_xdrz(tmp_path / f"{path.stem}.xdrz", known)
    found = quiet(tmp_path)
    numbers = found.numbers[0]
    assert np.allclose(numbers[1], 0.5 * 65535 * np.median(open_image(frames[0]).read_rows(0, HEIGHT, 0)))
    assert np.median(found.image) == pytest.approx(65535 * 0.05, rel=0.3)
    for path in tmp_path.glob("*.xdrz"):
        data = replace(read_xdrz(path), location=(1e-4,) * 3)
        path.unlink()
        write_xdrz(path, data)
    with pytest.raises(IntegrationError, match="they are not of the same frame"):
        quiet(tmp_path)


@pytest.mark.parametrize("with_gain", [False, True])
def test_surfaces_are_those_of_the_registered_frames(with_gain):
    rng = np.random.default_rng(4)
    offset, gain = rng.normal(0, 0.01, (2, 3, 1, 1, 6, 6)), 1 + rng.normal(0, 0.05, (2, 3, 1, 1, 6, 6))
    surfaces = Surfaces(HEIGHT, WIDTH, offset, gain if with_gain else None)
    rows = rng.random((40, 50)).astype(np.float32)
    expected = surfaces.correct(1, 2, rows.copy(), 30, 60)
    y, x = np.mgrid[30:70, 60:110] + 0.5
    found = SurfaceCorrection.of(surfaces, 1, 3).corrected(rows, np.stack([x, y], axis=-1), 2)
    # Between the nodes the surface is linear.
    assert np.abs(found - expected).max() < 4e-4


def test_frames_matched_by_their_light(folder, night, drizzled):
    recipe = RULE.replace(normalization="photometric", rejection_normalization="photometric")
    found = quiet(folder / "3_Calibrated", folder / "4_Registered", integration=recipe)
    assert found.used.size == COUNT
    levels = [np.median(inner(result.image), axis=(1, 2)) for result in (found, drizzled)]
    assert np.abs(levels[0] - levels[1]).max() < 0.02
    residual = off(found, night)
    assert np.mean(np.abs(residual - np.median(residual)) > 8 * 1.4826 * np.median(np.abs(residual))) < 1e-3


def test_names_of_stages_of_a_frame(folder):
    assert frame_key("M31_Light_0001_c_cc_d_r.xisf") == frame_key("M31_Light_0001_c.xisf") == "m31_light_0001"
    assert frame_key("r_pp_light_00007.fit") == frame_key("pp_light_00007.fit") == "light_00007"
    assert frame_key("r.fits") == "r"
    frames, _ = open_unregistered(folder / "3_Calibrated")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        registered = open_frames(folder / "4_Registered")
    assert twins(frames, list(registered)[::-1], {}) == {i: COUNT - 1 - i for i in range(COUNT)}


def test_stars_of_a_mosaic(folder, night):
    frames, sites = open_unregistered(folder / "3_Calibrated")
    assert sites.pattern == "RGGB"
    found = stars_of(frames[0], sites)
    x, y = night.scene.x + 0.5, night.scene.y + 0.5
    bright = np.argsort(-night.scene.flux.mean(axis=0))[:8]
    inside = [i for i in bright if 8 < x[i] < WIDTH - 8 and 8 < y[i] < HEIGHT - 8]
    distance = [np.hypot(found.x - x[i], found.y - y[i]).min() for i in inside]
    assert np.median(distance) < 0.1 and found.fwhm == pytest.approx(2.1, abs=0.3)


# what goes wrong --------------------------------------------------------------------------------------


def copied(folder, tmp_path, change):
    """Copy the drizzle data of a night with something changed."""
    for path in sorted((folder / "4_Registered").glob("*.xdrz")):
        write_xdrz(tmp_path / path.name, change(read_xdrz(path)))
    return tmp_path


def test_a_geometry_the_wrong_way_round(folder, integrated, tmp_path):
    where = copied(folder, tmp_path, lambda data: replace(data, matrix=np.linalg.inv(data.matrix)))
    with pytest.raises(FrameError, match="maps the wrong way, from the frame to the reference"):
        quiet(folder / "3_Calibrated", integrated, geometry=where)


def test_few_frames(folder, integrated, tmp_path):
    frames = sorted((folder / "3_Calibrated").glob("*.xisf"))
    with pytest.raises(IntegrationError, match=r"2 frames, drizzling needs at least 3, preferably 15"):
        quiet(frames[:2], integrated)
    with pytest.warns(StacklibWarning, match="4 frames are few for drizzling"):
        drizzle(frames[:4], integrated, progress=False)
    for name in sorted((folder / "4_Registered").glob("*.xdrz"))[:2]:
        (tmp_path / name.name).write_bytes(name.read_bytes())
    with pytest.raises(IntegrationError, match=r"only 2 frames of 16 have a geometry"):
        quiet(folder / "3_Calibrated", integrated, geometry=tmp_path)


def test_frames_without_a_registered_twin_are_left_out(folder):
    registered = sorted((folder / "4_Registered").glob("*.xisf"))[:12]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = drizzle(folder / "3_Calibrated", registered, integration=RULE, progress=False)
    said = [str(warning.message) for warning in caught]
    assert any("4 frames of 16 are left out" in text and "(has no registered frame)" in text for text in said)
    assert found.used.tolist() == list(range(12)) and found.table["used"].sum() == 12


def test_what_does_not_fit_is_refused(folder, integrated, tmp_path):
    calibrated = folder / "3_Calibrated"
    with pytest.raises(FrameError, match=r"holds no geometry of these frames; name a folder"):
        quiet(calibrated, integrated, geometry=tmp_path)
    with pytest.raises(RecipeError, match="scale: got 5, expected a number from 1 to 4"):
        DrizzleRecipe(scale=5)
    with pytest.raises(RecipeError, match="got a result of a region, expected one of whole frames"):
        quiet(calibrated, replace(integrated, region=(0, 0, 50, 50)))
    other = sorted((folder / "4_Registered").glob("*.xisf"))[:3]
    stranger = tmp_path / "frames"
    stranger.mkdir()
    for number, path in enumerate(other):
        (stranger / f"other_{number}.xisf").write_bytes(path.read_bytes())
    with pytest.raises(IntegrationError, match="no frame has a registered frame of the same name"):
        quiet(calibrated, stranger, geometry="stars")


M94 = Path(__file__).parents[2] / "../shared/data/m94_seestar_cfa_reg32"


@pytest.mark.skipif(not M94.is_dir(), reason="needs the frames of M94")
def test_real_mosaics_that_were_aligned_by_whole_pixels(tmp_path):
    # Copies: the package keeps its measurements beside the frames.
    for path in sorted(M94.glob("*.fits"))[:12]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = quiet(tmp_path, integration=RULE)
    assert found.sites.pattern == "GRBG" and found.used.size >= 9 and found.forecast.dither > 0.8
    assert max(found.geometries[int(i)].rms for i in found.used) < 0.4
    # The core of the galaxy is bright in all colors, and the sky is even.
    assert all(plane[230:300, 215:300].max() > 3 * np.median(plane) for plane in found.image)
