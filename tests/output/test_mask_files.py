"""Masks that were saved are the same when they are read again."""

import numpy as np
import pytest
from astropy.io import fits

from stacklib.errors import SaveError
from stacklib.formats import xisf
from stacklib.frames.frame_masks import open_masks, read_mask
from stacklib.frames.frame_set import Frame, FrameSet
from stacklib.output.mask_files import save_masks
from stacklib.spatial.means import ABOVE, COLOUR, LINE
from stacklib.utils.filters.discs import grow


def some_frames(folder, count, shape):
    folder.mkdir()
    pixels = np.full(shape, 0.1, np.float32)
    return FrameSet(
        [
            Frame(xisf.write_image(folder / f"light {i}.xisf", pixels, image_id="light"), quiet=True)
            for i in range(count)
        ]
    )


def some_mask(shape, seed):
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[1:])
    mask = np.zeros(shape, np.uint8)
    mask[:, np.abs(y - 0.3 * x - 20) < 3] = LINE | ABOVE
    for plane in mask:
        plane[grow(rng.random(shape[1:]) < 1e-3, 1)] |= COLOUR
    return mask


@pytest.mark.parametrize("shape", [(1, 200, 300), (3, 70, 90)])
def test_the_same_bits(tmp_path, shape):
    frames = some_frames(tmp_path / "4_Registered", 3, shape)
    masks = [(i, some_mask(shape, i) * np.uint8(i != 1)) for i in range(3)]
    files = save_masks(tmp_path / "masks", masks, frames)
    # The second frame has nothing masked.
    assert [path.name for path in files] == ["light 0_mask.fits", "light 2_mask.fits"]
    for path, (i, mask) in zip(files, masks[::2], strict=True):
        with fits.open(path) as units:
            np.testing.assert_array_equal(units["MASK"].data.reshape(shape), mask)
            assert units["MASK"].header["BIT3"] == "trail"
            assert units["MASK"].header["FRAME"] == f"light {i}.xisf"
            assert units["MASK"].header["ROWORDER"] == "TOP-DOWN"
        assert path.stat().st_size < 3 * 2880 + mask.size / 10
    found = open_masks(str(tmp_path / "masks"), frames)
    assert list(found) == [0, 2]
    np.testing.assert_array_equal(read_mask(found[2], frames), masks[2][1] != 0)


def test_nothing_is_overwritten_and_all_or_nothing(tmp_path):
    shape = (1, 40, 50)
    frames = some_frames(tmp_path / "4_Registered", 2, shape)
    masks = [(i, some_mask(shape, i)) for i in range(2)]
    folder = tmp_path / "new" / "masks"
    assert save_masks(folder, [(0, np.zeros(shape, np.uint8))], frames) == []
    first = save_masks(folder, masks[1:], frames)[0]
    before = first.read_bytes()
    with pytest.raises(SaveError, match=r"light 1_mask.fits: already exists; choose another folder"):
        save_masks(folder, masks, frames)
    assert list(folder.iterdir()) == [first] and first.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="file"):
        save_masks(tmp_path / "file" / "masks", masks, frames)
