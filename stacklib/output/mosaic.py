"""Color filter pattern of an image that is still a mosaic."""

from __future__ import annotations

import math

from stacklib.frames.differences import mosaic_of
from stacklib.output.integrated_image import IntegratedImage

__all__ = ["OFFSETS", "pattern_of"]

#: Keywords with the offset of the pattern.
OFFSETS = ("XBAYROFF", "YBAYROFF")


def pattern_of(result: IntegratedImage) -> str:
    """Return the color filter pattern at the top left of the saved image; empty if it is no mosaic.

    That is the pattern that all frames used have, such as ``RGGB``, shifted by their offsets and by the place
    of the region, and turned over if the rows of the files are. It is empty if the frames have more than one
    channel or differ in it.
    """
    p = result.preparation
    found = {mosaic_of(p.frames[int(i)]) for i in p.used}
    if len(found) != 1:
        return ""
    text, across, down = found.pop()
    size = math.isqrt(len(text))
    if not text or size * size != len(text) or not text.isalpha():
        return ""
    left, top, _, height = result.region
    across, down = left + across, top + down
    rows = range(down, down + size)
    if p.frames.row_order == "bottom-up":
        rows = range(down + height - 1, down + height - 1 - size, -1)
    columns = range(across, across + size)
    return "".join(text[row % size * size + column % size] for row in rows for column in columns)
