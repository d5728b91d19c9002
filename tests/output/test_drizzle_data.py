"""Drizzle data of a result: what stands in the files, by a reader of its own, and what is never done."""

import base64
import warnings
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest

from stacklib.errors import RecipeError, SaveError, StacklibWarning
from stacklib.formats.xdrz import read_xdrz
from stacklib.integration.noise import judged_rows
from stacklib.integration.rerun import also_saved
from stacklib.integration.run import integrate
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA
from stacklib.output.drizzle_data import rejection_bits
from stacklib.recipe.recipe import Job, Recipe
from stacklib.simulate import simulate_dithered
from stacklib.spatial.means import ABOVE, COLOUR, LARGE_HIGH, LARGE_LOW, LINE

COUNT, HEIGHT, WIDTH = 7, 90, 110
NAMESPACE = "{http://www.pixinsight.com/xdrz}"
RECIPE = Recipe(
    rejection="sigma", sigma_low=1.9, sigma_high=2.1, large_scale_high=True, map_range_rejection=False
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    night = simulate_dithered(COUNT, HEIGHT, WIDTH, "field", seed=8, cosmic_rays=30)
    _, registered = night.save(folder, dtype="f32")
    # One frame has lost what registration wrote.
    registered[4].with_suffix(".xdrz").unlink()
    return folder / "4_Registered"


@pytest.fixture(scope="module")
def result(frames):
    return quiet(frames, RECIPE)


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    with pytest.warns(StacklibWarning, match="Of 7 frames, 1 without .xdrz file: Simulated_Light_0005_c_d_r"):
        result.save(folder, drizzle_data=True)
    return result.saved


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        return integrate(*args, progress=False, **options)


def parsed(path):
    """Read a file without the package: names, lists of numbers, and the planes of the rejection map."""
    root = ET.fromstring(path.read_bytes())
    assert root.tag == f"{NAMESPACE}xdrz" and root.get("version") == "1.0"
    found = {child.tag.removeprefix(NAMESPACE): child for child in root}
    numbers = {
        name: [float(text) for text in found[name].text.split(",")]
        for name in ("AlignmentMatrix", "LocationEstimates", "ReferenceLocation", "ScaleFactors", "Weights")
    }
    planes = []
    for channel in found["RejectionMap"]:
        parts = []
        for block in channel:
            parts.append(zlib.decompress(base64.b64decode(block.text)))
            assert len(parts[-1]) == int(block.get("uncompressedSize"))
        planes.append(np.frombuffer(b"".join(parts), np.uint8).reshape(HEIGHT, WIDTH))
    return found, numbers, np.array(planes)


def test_files_are_the_completed_ones_of_registration(saved, result):
    names = [frame.path.with_suffix(".xdrz").name for frame in result.preparation.used_frames]
    assert saved.drizzle.name == "drizzle" and sorted(p.name for p in saved.drizzle.iterdir()) == sorted(
        names
    )
    assert f"  drizzle (drizzle data of {COUNT} frames)" in saved.report.read_text()
    assert also_saved(saved.images[0])["drizzle_data"]
    p = result.preparation
    for i, frame in enumerate(p.frames):
        found, numbers, planes = parsed(saved.drizzle / names[i])
        assert len(planes) == 3 and {len(numbers[name]) for name in numbers} == {3, 9}
        scale, location, reference = (
            np.array(numbers[name]) for name in ("ScaleFactors", "LocationEstimates", "ReferenceLocation")
        )
        v = 0.3
        assert np.allclose((v - location) * scale + reference, v * p.factor[i] + p.offset[i], atol=1e-12)
        assert np.allclose(numbers["Weights"], p.weights[i])
        before = read_xdrz(frame.path.with_suffix(".xdrz")) if i != 4 else None
        if before is None:
            assert found["SourceImage"].text == str(frame.path)
            assert np.array_equal(np.reshape(numbers["AlignmentMatrix"], (3, 3)), np.eye(3))
        else:
            assert np.array_equal(np.reshape(numbers["AlignmentMatrix"], (3, 3)), before.matrix)
            assert found["CFASourceImage"].text == before.cfa_source
            assert found["CFASourceImage"].get("pattern") == "RGGB"


def test_maps_have_the_verdicts_with_their_bits(saved, result):
    p = result.preparation
    planes = np.array([parsed(path)[2] for path in sorted(saved.drizzle.iterdir())])
    seen = np.zeros(64, int)
    for channel, start, _, judged in judged_rows(p, result.masks):
        for k, verdict in enumerate(judged):
            bits = planes[k, channel, start : start + len(verdict)]
            flags = result.masks.flags(k, channel, start, start + len(verdict))
            for value, bit in ((HIGH, 1), (LOW, 2), (KEPT, 0)):
                assert (bits[(verdict == value) & (flags == 0)] == bit).all()
            assert (bits[(verdict == NO_DATA) & (flags == 0)] == 8).all()
            assert np.array_equal(bits == 0x10, (flags & LARGE_HIGH) != 0)
            seen += np.bincount(bits.ravel(), minlength=64)
    assert min(seen[[0, 1, 2, 8, 0x10]]) > 0
    # As many as in the maps of the result.
    lost = np.isin(planes, (1, 2, 0x10, 0x20)).sum(axis=0)
    assert np.allclose(lost, p.count * (result.rejection_low + result.rejection_high), atol=1e-4)


def test_bits_of_all_kinds():
    verdict = np.array([KEPT, LOW, HIGH, NO_DATA, NO_DATA, NO_DATA, NO_DATA, NO_DATA, NO_DATA], np.uint8)
    flags = np.array([0, 0, 0, 0, 0, LINE | ABOVE, COLOUR, LARGE_HIGH | LINE | ABOVE, LARGE_LOW], np.uint8)
    samples = np.array([0.5, 0.1, 0.9, np.nan, 0.99, *[np.nan] * 4], np.float32)
    assert rejection_bits(samples, verdict, flags, 0.98).tolist() == [0, 2, 1, 8, 4, 1, 2, 0x10, 0x20]


def test_nothing_is_overwritten(saved, result, frames):
    before = {
        path: path.read_bytes() for path in [*frames.iterdir(), *saved.drizzle.iterdir()] if path.is_file()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacklibWarning)
        result.save(saved.report.parent, drizzle_data=True)
    assert result.saved.drizzle.name == "drizzle_0001" and len(list(result.saved.drizzle.iterdir())) == COUNT
    assert all(path.read_bytes() == content for path, content in before.items())


def test_regions_are_refused(frames, result, tmp_path):
    part = quiet(frames, RECIPE, region=(10, 10, 40, 40))
    with pytest.raises(RecipeError, match="drizzle_data: needs a result of whole frames"):
        part.save(tmp_path, drizzle_data=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="drizzle_data: needs whole frames; leave region empty"):
        Job(region="0 0 10 10", drizzle_data=True)


def test_damaged_data_beside_a_frame_do_not_cost_the_result(frames, result, tmp_path):
    path = sorted(frames.glob("*.xdrz"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:200])
    try:
        with pytest.raises(SaveError, match=r"not valid XML.*the result itself is saved as") as error:
            result.save(tmp_path, drizzle_data=True)
    finally:
        path.write_bytes(content)
    assert path.name in str(error.value) and not (tmp_path / "drizzle").exists()
    assert len(list(tmp_path.glob("*.xisf"))) == 3


def test_what_the_format_cannot_hold_is_said(frames, tmp_path):
    matched = {"normalization": "photometric", "rejection_normalization": "photometric"}
    found = quiet(frames, RECIPE.replace(**matched, weights="none"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.save(tmp_path, drizzle_data=True)
    assert any("only its mean is in them, and gradients stay" in str(each.message) for each in caught)
    assert "gradients stay" in found.saved.report.read_text().replace("\n", " ").replace("  ", " ")
    # In the middle of the frames the mean of a surface is close to it.
    p = found.preparation
    for i, path in enumerate(sorted(found.saved.drizzle.iterdir())):
        data = read_xdrz(path)
        plane = p.read_rows(i, 0, HEIGHT, 1)
        raw = p.frames[i].read(channel=1)
        good = np.isfinite(plane) & (raw > 0)
        there = np.median(plane[good]) * p.factor[i, 1] + p.offset[i, 1]
        by_data = (np.median(raw[good]) - data.location[1]) * data.scale[1] + data.reference_location[1]
        assert by_data == pytest.approx(there, rel=0.02)
