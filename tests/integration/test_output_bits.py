"""A run on a part of the image, and an image of 64 bits."""

import numpy as np
import pytest
from astropy.io import fits

import stacklib as sl

FOLDER = "sample_data/M13/4_Registered"


def run(bits, **changes):
    recipe = sl.Recipe(output_bits=bits, weights="none", output_range="truncate", **changes)
    return sl.integrate(FOLDER, recipe, region=(100, 80, 90, 70), progress=False)


@pytest.mark.parametrize("changes", [{}, {"combination": "median"}, {"normalization": "none"}])
def test_64_bits_are_the_32_bits_before_rounding(changes):
    wide, narrow = run(64, **changes), run("32", **changes)
    assert (wide.image.dtype, narrow.image.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(wide.image.astype(np.float32), narrow.image)
    np.testing.assert_allclose(wide.uncertainty, narrow.uncertainty, rtol=1e-6)
    if changes.get("combination") != "median":
        assert np.any(wide.image != narrow.image)


def test_64_bits_are_saved_in_both_formats(tmp_path):
    result = run(64)
    files = result.save(tmp_path, fits=True)
    image, fits_image = files[0], next(path for path in files if path.suffix.startswith(".fit"))
    assert b"Float64" in image.read_bytes()[:20_000]
    with fits.open(fits_image) as hdus:
        assert hdus[0].header["BITPIX"] == -64
        np.testing.assert_array_equal(hdus[0].data, result.image[0])
    again = sl.rerun(image)
    np.testing.assert_array_equal(again.image, result.image)


def test_a_job_may_name_a_part_of_the_image(tmp_path):
    for region in ("100, 80, 90, 70", "100 80 90 70", [100, 80, 90, 70]):
        assert sl.Job(region=region).part == (100, 80, 90, 70)
    assert sl.Job().part is None
    for wrong in ("1 2 3", [0, 0, 0, 5], "a b c d", [-1, 0, 5, 5]):
        with pytest.raises(sl.RecipeError, match=r"region: got .* expected left, top, width and height"):
            sl.Job(region=wrong)
    file = tmp_path / "job.yaml"
    file.write_text("region: [100, 80, 90, 70]\n")
    assert sl.Job.load(file).part == (100, 80, 90, 70)
