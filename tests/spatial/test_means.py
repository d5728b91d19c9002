"""The means of spatial rejection: every flag is a bit of its own, every name is used once."""

import numpy as np

from stacklib.spatial import means


def test_every_flag_belongs_to_one_means():
    flags = [each.flags for each in means.MEANS]
    assert sum(flags) == np.bitwise_or.reduce(flags) == means.ABOVE - 1
    for name in ("name", "words", "column"):
        assert len({getattr(each, name) for each in means.MEANS}) == len(means.MEANS)


def test_flags_are_found_and_described():
    mask = np.array([0, means.LARGE_LOW, means.LARGE_HIGH | means.ABOVE, means.OWN], np.uint8)
    large = next(each for each in means.MEANS if each.name == "large_scale")
    assert large.found(mask).tolist() == [False, True, True, False]
    assert means.means_of(0) == [] and means.describe(means.ABOVE) == ""
    assert means.describe(means.LINE | means.FOOTPRINT | means.ABOVE) == "trail and footprint"
