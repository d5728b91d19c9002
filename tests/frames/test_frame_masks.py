"""Masks of one's own: which frame they are for, and what is refused."""

import numpy as np
import pytest

from stacklib.errors import RecipeError
from stacklib.formats import fits, xisf
from stacklib.frames.frame_masks import mask_names, open_masks, read_mask
from stacklib.frames.frame_set import Frame, FrameSet

SHAPE = (3, 12, 16)


@pytest.fixture
def frames(tmp_path):
    """Three color frames, one of them with a name in capitals."""
    folder = tmp_path / "4_Registered"
    folder.mkdir()
    pixels = np.full(SHAPE, 0.1, np.float32)
    paths = [
        xisf.write_image(folder / f"{name}.xisf", pixels, image_id="light")
        for name in ("light_1_c_d_r", "light_2_c_d_r", "Light_10_c_d_r")
    ]
    return FrameSet([Frame(path, quiet=True) for path in paths])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def test_names_of_masks():
    assert mask_names(["a.xisf", "b.fits.gz"]) == ["a_mask", "b_mask"]
    # The same whatever else there is, as far as possible.
    assert mask_names(["one/a.xisf", "two/a.xisf", "two/b.fits"]) == [
        "one_a.xisf_mask",
        "two_a.xisf_mask",
        "b_mask",
    ]
    assert mask_names(["a.fits", "A.xisf"]) == ["a.fits_mask", "A.xisf_mask"]


def test_masks_of_many_forms(frames, folder):
    wanted = np.random.default_rng(1).random(SHAPE) < 0.3
    fits.write_mask(folder / "light_1_c_d_r_mask.fits", 8 * wanted.astype(np.uint8))
    # One plane for all channels, floats, with a name as that of the frame.
    xisf.write_image(folder / "light_2_c_d_r.xisf", wanted[:1].astype(np.float32), image_id="mask")
    image = np.where(wanted[0], -0.5, 0).astype(np.float32)
    image[0, 0] = np.nan
    fits.write_image(folder / "light_10_C_D_R_mask.fits", image, row_order="")
    (folder / "notes.txt").write_text("not a mask")
    found = open_masks(str(folder), frames)
    assert list(found) == [0, 1, 2]
    np.testing.assert_array_equal(read_mask(found[0], frames), wanted)
    for channel in read_mask(found[1], frames):
        np.testing.assert_array_equal(channel, wanted[0])
    expected = wanted[0].copy()
    expected[0, 0] = False
    np.testing.assert_array_equal(read_mask(found[2], frames)[2], expected)
    # A list of files, as a run is repeated with.
    paths = [str(mask.path) for mask in found.values()]
    assert [mask.path for mask in open_masks(paths[::-1], frames).values()] == [
        mask.path for mask in found.values()
    ]


def test_rows_in_the_other_order_are_turned_over(frames, folder):
    mask = np.zeros(SHAPE[1:], np.float32)
    mask[0] = 1
    fits.write_image(folder / "light_1_c_d_r_mask.fits", mask, row_order="bottom-up")
    (found,) = open_masks(str(folder), frames).values()
    assert read_mask(found, frames)[0].any(axis=1).nonzero()[0].tolist() == [SHAPE[1] - 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"own: holds no mask; put FRAME_mask.fits"),
        (
            {"light_3_c_d_r_mask": SHAPE, "light_1_c_d_r_mask": SHAPE},
            r"own: light_3_c_d_r_mask.fits fits none of the 3 frames; name a mask after its frame, such as "
            "light_1_c_d_r_mask.fits, and take out",
        ),
        ({"light_1_c_d_r_mask": SHAPE, "light_1_c_d_r": SHAPE}, "are for the same frame; keep one"),
        (
            {"light_2_c_d_r_mask": (12, 15)},
            r"light_2_c_d_r_mask.fits: has 15 x 12 pixels, expected the 16 x 12 pixels of the frames",
        ),
    ],
)
def test_masks_that_do_not_fit(frames, folder, files, message):
    for name, shape in files.items():
        fits.write_image(folder / f"{name}.fits", np.ones(shape, np.float32))
    with pytest.raises(RecipeError, match=f"^masks: .*{message}"):
        open_masks(str(folder), frames)


def test_a_color_mask_of_mono_frames(frames, folder):
    path = xisf.write_image(folder / "mono.xisf", np.ones((1, *SHAPE[1:]), np.float32), image_id="light")
    fits.write_image(folder / "mono_mask.fits", np.ones(SHAPE, np.float32))
    with pytest.raises(RecipeError, match=r"mono_mask.fits: has 3 channels, expected 1 as the frames"):
        open_masks(str(folder / "mono_mask.fits"), FrameSet([Frame(path, quiet=True)]))


def test_masks_that_cannot_be_read(frames, folder):
    message = r"^masks: [^ ]*nowhere: no such folder or file; give the folder with the masks$"
    with pytest.raises(RecipeError, match=message):
        open_masks(str(folder / "nowhere"), frames)
    with pytest.raises(RecipeError, match=r"^masks: .*"):
        open_masks("a\0b", frames)
    (folder / "light_1_c_d_r_mask.fits").write_bytes(b"SIMPLE  = nonsense")
    with pytest.raises(RecipeError, match=r"^masks: .*light_1_c_d_r_mask.fits"):
        open_masks(str(folder), frames)
