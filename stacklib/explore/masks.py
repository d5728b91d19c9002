"""Where each frame was rejected and which pixels lost most, found by running the rule of a result again."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stacklib.explore.explain import explain
from stacklib.figures.screen import SCREEN_WIDTH
from stacklib.integration.noise import read_with_excess, with_noise
from stacklib.integration.result import Integration
from stacklib.integration.samples import Region
from stacklib.kernel.verdicts import HIGH, KEPT, LOW, NO_DATA, verdicts
from stacklib.recipe.rules import RULES
from stacklib.spatial.means import ABOVE

__all__ = [
    "BESIDE",
    "box_around",
    "clear_hit",
    "frame_mask",
    "frame_verdicts",
    "most_rejected",
    "most_rejected_frame",
    "not_found",
    "typical_pixels",
]

#: Number of samples judged at once.
BAND_SAMPLES = 1 << 24
#: Number of pixels examined closely to find a good example.
CANDIDATES = 60
#: Pixels of the mark of a cosmic ray, which may include those that fell beside it.
MARK = (3, 25)
#: Side of the part in the middle of an image in which a good example is looked for.
MIDDLE = 600
#: Value of samples without data in `frame_mask`.
MISSING = -1
#: Added to the verdict on samples that fell to spatial rejection, not to the rule.
BESIDE = 8


def frame_verdicts(
    result: Integration, channel: int = 0, step: int | None = None, part: Region | None = None
) -> tuple[np.ndarray, int]:
    """Find the verdict on every sample of a channel, for all pixels or every `step`-th row and column.

    Samples that fell to spatial rejection are rejected as too low or too high, as in the maps.

    Parameters
    ----------
    result : Integration
        The result; its frames are read again.
    channel : int
        Counted from 0.
    step : int, optional
        Judge only every so many rows and columns. Default is as many as a screen can show.
    part : (left, top, width, height), optional
        Part of the frames, inside the region of the result. Default is that region.

    Returns
    -------
    verdict : ndarray of uint8, shape (frames, rows, columns)
        Verdicts as in `stacklib.kernel.verdicts`, for the frames that were used, plus `BESIDE` for samples
        that fell to spatial rejection. Pixel ``[:, i, j]`` is at
        row ``top + i * step + step // 2`` and column ``left + j * step + step // 2`` of the frames.
    step : int
        Distance of the judged rows and columns.
    """
    p = result.preparation
    left, top, width, height = result.region if part is None else part
    step = -(-max(width, height) // SCREEN_WIDTH) if step is None else max(1, int(step))
    rows = np.arange(min(step // 2, height - 1), height, step)
    columns = slice(left + min(step // 2, width - 1), left + width, step)
    by_frame = RULES[result.rule].by_frame
    settings = with_noise(p, channel) if by_frame else p.settings(channel)
    across = len(range(columns.start, columns.stop, step))
    verdict = np.empty((p.count, rows.size, across), np.uint8)
    band = max(1, BAND_SAMPLES // (p.count * p.frames.width))
    for first in range(0, rows.size, band):
        chosen = top + rows[first : first + band]
        raw = np.empty((p.count, chosen.size, across), np.float32)
        excess = np.empty((chosen.size if by_frame else 0, across), np.float32)
        # Neighboring rows are read together.
        runs = [(0, chosen.size)] if step == 1 else [(k, k + 1) for k in range(chosen.size)]
        for k, after in runs:
            start, stop = int(chosen[k]), int(chosen[after - 1]) + 1
            if by_frame:
                found = read_with_excess(p, settings, channel, (start, stop), columns, result.masks)
                raw[:, k:after], excess[k:after] = found
            else:
                for n, i in enumerate(p.used):
                    samples = p.read_rows(int(i), start, stop, channel)
                    if result.masks:
                        samples = np.array(samples)
                        result.masks.blank(samples, int(i), channel, start, 0)
                    raw[n, k:after] = samples[:, columns]
        judged = verdicts(raw.reshape(p.count, -1), settings, excess=excess.reshape(-1))
        verdict[:, first : first + band] = judged.reshape(raw.shape)
        if result.masks:
            _add_masked(result, channel, chosen, columns, verdict[:, first : first + band])
    return verdict, step


def _add_masked(
    result: Integration, channel: int, rows: np.ndarray, columns: slice, verdict: np.ndarray
) -> None:
    """Write the samples that fell to spatial rejection to verdicts, (frames, rows, columns)."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    left = result.masks.region[0]
    columns = slice(columns.start - left, columns.stop - left, columns.step)
    for i, own in zip(result.preparation.used, verdict, strict=True):
        if (int(i), channel) in result.masks.planes:
            flags = result.masks.flags(int(i), channel, start, stop)[rows - start, columns]
            own[flags != 0] = BESIDE + LOW
            own[(flags & np.uint8(ABOVE)) != 0] = BESIDE + HIGH


def frame_mask(verdict: np.ndarray) -> np.ndarray:
    """Turn the verdicts on a frame into an int8 mask.

    -1 no data, 0 kept, 1 rejected low, 2 fell to spatial rejection, 3 rejected high.
    """
    mask = np.zeros(verdict.shape, np.int8)
    mask[verdict == LOW], mask[verdict == HIGH], mask[verdict == NO_DATA] = 1, 3, MISSING
    mask[verdict >= BESIDE] = 2
    return mask


def most_rejected(result: Integration, channel: int = -1, side: str = "both") -> tuple[int, int, int]:
    """Return the pixel with the most rejected samples, among those where every frame has data.

    Parameters
    ----------
    result : Integration
        The result.
    channel : int
        The channel; -1 for all.
    side : {"both", "low", "high"}
        Which rejections count.

    Returns
    -------
    x, y, channel : int
        Pixel of the whole frames, as in `explain`.
    """
    maps = {"low": result.rejection_low, "high": result.rejection_high}
    counted = sum(maps.values()) if side == "both" else maps[side]
    full = result.coverage >= result.coverage.max()
    counted = np.where(full, counted, -1)
    if channel >= 0:
        counted = np.where(np.arange(len(counted))[:, np.newaxis, np.newaxis] == channel, counted, -2)
    plane, row, column = np.unravel_index(int(counted.argmax()), counted.shape)
    left, top, _, _ = result.region
    return left + int(column), top + int(row), int(plane)


def clear_hit(result: Integration, channel: int = -1) -> tuple[int, int, int]:
    """Find the clearest pixel that a single frame spoils, as a cosmic ray does.

    Parameters
    ----------
    result : Integration
        The result; the middle of its frames is read again.
    channel : int
        The channel; -1 for the first one that has such a pixel.

    Returns
    -------
    x, y, channel : int
        Pixel of the whole frames, as in `explain`, where one sample was rejected, too high, in a small mark
        of its frame, and all others kept; that of `most_rejected` if there is none.
    """
    left, top, width, height = result.region
    across, down = min(width, MIDDLE), min(height, MIDDLE)
    first, second = left + (width - across) // 2, top + (height - down) // 2
    for plane in range(len(result.image)) if channel < 0 else [channel]:
        verdict, _ = frame_verdicts(result, plane, 1, (first, second, across, down))
        found = np.sum(verdict == KEPT, axis=0) == len(verdict) - 1
        found &= np.any([_small_marks(own % BESIDE == HIGH) for own in verdict], axis=0)
        rows, columns = np.nonzero(found)
        if rows.size:
            p, places = result.preparation, (rows, first + columns)
            compared = [p.read_rows(int(i), second, second + down, plane)[places] for i in p.used]
            of_channel = p.rejection_factor[p.used, plane], p.rejection_offset[p.used, plane]
            factor, offset = (values[:, np.newaxis] for values in of_channel)
            best = int(_excess_of(np.array(compared) * factor + offset).argmax())
            return first + int(columns[best]), second + int(rows[best]), plane
    return most_rejected(result, channel)


def box_around(result: Integration, place: dict[str, int], side: int = 64) -> Region:
    """Return a box of this side around a pixel, moved to lie inside the region of the result."""
    left, top, width, height = result.region
    across, down = min(side, width), min(side, height)
    x = min(max(place["x"] - across // 2, left), left + width - across)
    y = min(max(place["y"] - down // 2, top), top + height - down)
    return x, y, across, down


def most_rejected_frame(result: Integration, side: str) -> int:
    """Return the number of the frame, from 1 over all frames, that lost most samples on a side.

    The side is ``"low"`` or ``"high"``; the mean over the channels decides.
    """
    lost = result.lost(side).mean(axis=1)
    return int(result.preparation.used[lost.argmax()]) + 1


def typical_pixels(result: Integration, channel: int = 0) -> dict[str, dict[str, int]]:
    """Find pixels whose stories are worth reading, by what most likely happened there.

    Parameters
    ----------
    result : Integration
        The result.
    channel : int
        The channel; below 0 the first.

    Returns
    -------
    dict of str to dict
        ``"trail"``: inside the widest mark of the frame with the most bright rejections;
        ``"cosmic ray"``: the brightest of the small marks in other frames; ``"clean"``: nothing rejected;
        ``"run away"``: the most rejections. Values are ``x``, ``y`` and ``channel`` for `explain`. Pixels
        close to the middle are preferred. A kind that is not found gets the pixel of ``"run away"``.
    """
    channel = max(channel, 0)
    verdict, step = frame_verdicts(result, channel)
    verdict %= BESIDE
    high = verdict == HIGH
    high[:, :2] = high[:, -2:] = high[:, :, :2] = high[:, :, -2:] = False
    lost = np.sum((verdict == LOW) | (verdict == HIGH), axis=0)
    covered = np.all(verdict != NO_DATA, axis=0)
    streaked = int(np.argmax(high.sum(axis=(1, 2))))
    near = _neighbours(high[streaked])
    marks = [_small_marks(plane) for i, plane in enumerate(high) if i != streaked]
    alone = covered & (lost == 1)
    wanted = {
        "trail": alone & high[streaked] & (near == near.max()),
        "cosmic ray": alone & np.any(marks, axis=0),
        "clean": covered & (lost == 0),
    }
    left, top, width, height = result.region
    x, y, _ = most_rejected(result, channel)
    pixels = {name: {"x": x, "y": y, "channel": channel} for name in (*wanted, "run away")}
    for name, found in wanted.items():
        rows, columns = (places * step + step // 2 for places in np.nonzero(found))
        if rows.size:
            nearest = np.hypot(rows - height / 2, columns - width / 2).argsort()[:CANDIDATES]
            places = [{"x": left + int(columns[i]), "y": top + int(rows[i])} for i in nearest]
            places = [place | {"channel": channel} for place in places]
            pixels[name] = (
                max(places, key=lambda p: _excess(result, p)) if name == "cosmic ray" else places[0]
            )
    return pixels


def not_found(pixels: dict[str, dict[str, int]]) -> str:
    """Say which kinds `typical_pixels` did not find and what stands in for them; empty if all were found."""
    missing = [name for name, place in pixels.items() if name != "run away" and place == pixels["run away"]]
    if not missing:
        return ""
    return f"No example found of: {', '.join(missing)}. The pixel with the most rejections is shown instead."


def _excess(result: Integration, place: dict[str, int]) -> float:
    """Return the distance of the brightest sample of a pixel from the median, relative to the spread."""
    return float(_excess_of(explain(result, **place).compared))


def _excess_of(compared: np.ndarray) -> np.ndarray:
    """Return the same of samples (frames, ...)."""
    ordered = np.sort(compared, axis=0)
    spread = np.maximum(np.std(ordered[:-1], axis=0), 1e-12)
    return (ordered[-1] - np.median(ordered, axis=0)) / spread


def _small_marks(plane: np.ndarray) -> np.ndarray:
    """Return the marks of a few connected pixels, as cosmic rays leave them, bool."""
    labels, _ = ndimage.label(plane, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    small = (sizes >= MARK[0]) & (sizes <= MARK[1])
    small[0] = False
    return small[labels]


def _neighbours(plane: np.ndarray) -> np.ndarray:
    """Count the set pixels among the 3 x 3 around each; 0 at the edge."""
    counted = np.zeros(plane.shape, np.uint8)
    height, width = plane.shape
    if height > 2 and width > 2:
        parts = [plane[r : height - 2 + r, c : width - 2 + c] for r in range(3) for c in range(3)]
        counted[1:-1, 1:-1] = np.sum(parts, axis=0)
    return counted
