"""Color filter pattern of an image that is still a mosaic."""

from __future__ import annotations

import math

from stacklib.frames.differences import mosaic_of
from stacklib.frames.mosaic import stored_pattern
from stacklib.output.integrated_image import IntegratedImage

__all__ = ["OFFSETS", "pattern_of"]

#: Keywords with the offset of the pattern.
OFFSETS = ("XBAYROFF", "YBAYROFF")


def pattern_of(result: IntegratedImage) -> str:
    """Return the color filter pattern at the top left of the saved image; empty if it is no mosaic.

    That is the pattern that all frames used have, such as ``RGGB``, shifted by their offsets and by the place
    of the region. Where ROWORDER is BOTTOM-UP it begins in the last row that is stored, which is saved as the
    first one. It is empty if the frames have more than one
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
    turned = p.frames.row_order == "bottom-up"
    pattern = stored_pattern(text, across, down, p.frames.height, turned)
    # The last row of the region is the first one that is saved then.
    first = top + height - 1 if turned else top
    lines = range(first, first - size, -1) if turned else range(first, first + size)
    return "".join(
        pattern[row % size * size + column % size] for row in lines for column in range(left, left + size)
    )
