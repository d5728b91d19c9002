"""Why a sample fell to its neighborhood, in words: the trail, the footprint or the hit that it belongs to."""

from __future__ import annotations

import numpy as np
import scipy

from stacklib.spatial.lines import Line
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.means import means_of

__all__ = ["line_at", "why_masked"]

#: Footprints are measured within this many pixels of the sample.
AROUND = 100


def line_at(masks: FrameMasks, frame: int, x: int, y: int) -> tuple[int, Line] | None:
    """Return the trail of a frame that covers a pixel, with its number from 1; None if there is none.

    `frame` counts from 0, as in `FrameMasks`. Of several trails the one whose center is nearest counts.
    """
    lines = enumerate(masks.lines.get(frame, []))
    used = [(k + 1, line) for k, line in lines if (frame, k) not in masks.unused]
    # Places are rounded differently from those of the mask.
    near = [(apart, k, line) for k, line in used if (apart := _apart(line, x, y)) <= 0.5 * line.width + 0.1]
    return min(near, key=lambda found: found[:2])[1:] if near else None


def _apart(line: Line, x: float, y: float) -> float:
    """Return the distance of a pixel from a line, infinity beyond its ends."""
    along = np.array([line.x1 - line.x0, line.y1 - line.y0]) / line.length
    from_start = np.array([x - line.x0, y - line.y0])
    if not -0.1 <= from_start @ along <= line.length + 0.1:
        return np.inf
    return abs(float(from_start[0] * along[1] - from_start[1] * along[0]))


def why_masked(masks: FrameMasks, frame: int, channel: int, x: int, y: int) -> str:
    """Say by which means a sample was found and as part of what; empty if it is in no mask.

    Parameters
    ----------
    masks : FrameMasks
        The masks of a result.
    frame, channel : int
        The frame among the given ones, from 0, and the channel.
    x, y : int
        Pixel of the whole frames.

    Returns
    -------
    str
        Such as ``trail 1, 312 px long, 2.1 sigma, found as a line``.
    """
    edge, top, width, height = masks.region
    first, stop = max(top, y - AROUND), min(top + height, y + AROUND + 1)
    left, right = max(edge, x - AROUND) - edge, min(edge + width, x + AROUND + 1) - edge
    flags = masks.flags(frame, channel, first, stop)[:, left:right]
    row, column = y - first, x - edge - left
    words = []
    taking = means_of(int(flags[row, column]))
    in_line = any(means.name == "line" for means in taking)
    for means in taking:
        if means.name == "footprint" and in_line:
            # What the smoothed frame shows of a trail is that trail.
            continue
        found = means.found(flags)
        if means.name == "line":
            words.append(_line_in_words(masks, frame, x, y))
        elif means.name == "footprint":
            words.append(f"footprint of {_area(found, row, column)}, found in the smoothed frame")
        elif means.name == "large_scale":
            words.append(f"large-scale structure of {_area(found, row, column)}")
        elif means.name == "colour":
            words.append("beside a hit over 5 sigma, in its own or another color channel")
        else:
            words.append(means.words)
    return "; ".join(words)


def _line_in_words(masks: FrameMasks, frame: int, x: int, y: int) -> str:
    found = line_at(masks, frame, x, y)
    if found is None:
        return "trail, found as a line"
    number, line = found
    return f"trail {number}, {line.length:.0f} px long, {line.peak:.1f} sigma, found as a line"


def _area(found: np.ndarray, row: int, column: int) -> str:
    """Return the number of pixels that hang together with one of them, in words."""
    labels, _ = scipy.ndimage.label(found, np.ones((3, 3), bool))
    rows, columns = np.nonzero(labels == labels[row, column])
    cut = max(np.abs(rows - row).max(), np.abs(columns - column).max()) == AROUND
    return f"{'at least ' * bool(cut)}{rows.size} px"
