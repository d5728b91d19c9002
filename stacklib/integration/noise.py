"""What is known about the noise of the samples before they are integrated, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stacklib.integration.samples import Samples
from stacklib.kernel.passes import scatter_tiles
from stacklib.kernel.pixels import Counts, Pixels, Ratios
from stacklib.kernel.scatter import NEIGHBOURHOOD, find_excess
from stacklib.kernel.uncertainty import claim_factors
from stacklib.kernel.verdicts import verdicts
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.spatial.masks import FrameMasks

__all__ = ["JudgedRows", "Parts", "Work", "judged_rows", "known_excess", "read_with_excess", "with_noise"]

#: Samples that are judged at once.
BAND_SAMPLES = 1 << 23

#: Integrates the frames used into the pixels of each channel, or finds their ratios. Yields channel, number
#: of pixels and counts of each finished part.
Parts = Generator[tuple[int, int, Counts], None, None]
Work = Callable[[Samples, np.ndarray, list[Settings], Sequence[Pixels | Ratios]], Parts]


def with_noise(preparation: Preparation, channel: int, claims: bool = False) -> Settings:
    """Return the settings of a channel with the noise of the frames.

    `claims` adds the corrections of the uncertainty for rejection, see `stacklib.kernel.uncertainty`.
    """
    settings = preparation.settings(channel)
    noise = preparation.frame_noise(channel)
    # Only limits of a frame need it: the others see the scatter of such pixels.
    contrast = noise.contrast if preparation.by_frame else 0.0
    settings = replace(
        settings, noise=noise.relative, curve=noise.curve.table, places=noise.places, contrast=contrast
    )
    if not claims:
        return settings
    # A channel without an image has no level.
    level = float(np.nan_to_num(preparation.measurements.location[preparation.reference, channel]))
    return replace(settings, claims=claim_factors(settings, level))


def known_excess(
    samples: Samples,
    preparation: Preparation,
    settings: list[Settings],
    work: Work,
    report: Callable[[int], None] = lambda pixels: None,
) -> np.ndarray:
    """Find by how much the noise exceeds the curve, float32 (channels, pixels), in a pass over the samples.

    Pixels at the edge of a region look at their neighbors outside of it, unless the samples are no longer
    those of the files. `settings` have the noise of the frames. `report` is called with the number of pixels
    that are done. The last answer is kept with the samples.
    """
    used = preparation.used
    compared = (array for each in settings for array in (each.rejection_factor, each.rejection_offset))
    contrasts = tuple(each.contrast for each in settings)
    matched = (array.tobytes() for array in compared)
    key = samples.region, used.tobytes(), settings[0].data_range, contrasts, *matched
    # Copies of a preparation share what they know of the noise; others may correct the samples differently.
    known = samples.kept.get(key)
    if known is not None and known[0] is preparation.noise_by_channel:
        return known[1]
    wide = samples.widened(NEIGHBOURHOOD * settings[0].period).marked(preparation.marks)
    (left, top, width, height), region = wide.region, samples.region
    down, right = region[1] - top, region[0] - left
    inside = slice(down, down + region[3]), slice(right, right + region[2])
    excess = np.empty((len(settings), region[2] * region[3]), np.float32)
    # Those of one channel at a time: there is room for that, as the result comes later.
    ratios = Ratios.empty(width * height)
    for channel, each in enumerate(settings):
        with closing(work(wide.of_channel(channel), used, settings, [ratios] * len(settings))) as done:
            for _, pixels, _ in done:
                report(pixels)
        planes = Ratios(*(plane.reshape(height, width) for plane in ratios))
        found = find_excess(
            planes, each.relative_noise, each.contrast, samples.threads, each.places_from(left, top)
        )
        excess[channel] = found[inside].reshape(-1)
    samples.kept.clear()
    samples.kept[key] = preparation.noise_by_channel, excess
    return excess


def read_with_excess(
    preparation: Preparation,
    settings: Settings,
    channel: int,
    rows: tuple[int, int],
    columns: slice,
    masks: FrameMasks | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read a part of the used frames, marked for the kernel, and the excess of its noise over the curve.

    Parameters
    ----------
    preparation : Preparation
        The prepared frames.
    settings : Settings
        Those of the channel, from `with_noise`.
    channel : int
        The channel.
    rows : tuple of int
        First row, and the row after the last one.
    columns : slice
        The columns; a step is allowed.
    masks : FrameMasks, optional
        Samples that become NaN, of whole frames.

    Returns
    -------
    samples : ndarray of float32, shape (frames, rows, columns)
        The samples.
    excess : ndarray of float32, shape (rows, columns)
        See `stacklib.kernel.scatter`. It has the bits of an integration of the whole image.
    """
    frames = preparation.frames
    around = NEIGHBOURHOOD * settings.period
    first, last = max(rows[0] - around, 0), min(rows[1] + around, frames.height)
    left, right = max(columns.start - around, 0), min(columns.stop + around, frames.width)
    raw = np.stack(
        [preparation.read_rows(int(i), first, last, channel)[:, left:right] for i in preparation.used]
    )
    if masks:
        for i, part in zip(preparation.used, raw, strict=True):
            masks.blank(part, int(i), channel, first, left)
    ratios = Ratios.empty(raw[0].size)
    scatter_tiles(raw.reshape(len(raw), -1), settings, ratios)
    planes = Ratios(*(plane.reshape(raw[0].shape) for plane in ratios))
    excess = find_excess(
        planes, settings.relative_noise, settings.contrast, places=settings.places_from(left, first)
    )
    inside = slice(rows[0] - first, rows[1] - first)
    across = slice(columns.start - left, columns.stop - left, columns.step)
    return np.ascontiguousarray(raw[:, inside, across]), excess[inside, across]


class JudgedRows(NamedTuple):
    """Rows of a channel of the used frames, with the verdict on each sample.

    `samples` are float32 (frames, rows, width), as `Preparation.read_rows` returns them, NaN where masked.
    `verdicts` are those of `stacklib.kernel.verdicts`, uint8 of the same shape.
    """

    channel: int
    start: int
    samples: np.ndarray
    verdicts: np.ndarray


def judged_rows(preparation: Preparation, masks: FrameMasks | None = None) -> Iterator[JudgedRows]:
    """Judge all samples of whole frames again, channel by channel and from top to bottom.

    Parameters
    ----------
    preparation : Preparation
        The prepared frames. They are read again.
    masks : FrameMasks, optional
        Samples that spatial rejection took from the rule, of whole frames.

    Yields
    ------
    JudgedRows
    """
    channels, height, width = preparation.frames.shape
    used, by_frame = preparation.used, preparation.by_frame
    rows = max(1, BAND_SAMPLES // (preparation.count * width))
    for channel in range(channels):
        settings = with_noise(preparation, channel) if by_frame else preparation.settings(channel)
        for start in range(0, height, rows):
            part = (start, min(start + rows, height))
            if by_frame:
                raw, excess = read_with_excess(preparation, settings, channel, part, slice(0, width), masks)
            else:
                raw = np.stack([preparation.read_rows(int(i), *part, channel) for i in used])
                excess = np.empty((0, width), np.float32)
                for i, samples in zip(used, raw, strict=True):
                    if masks:
                        masks.blank(samples, int(i), channel, start, 0)
            judged = verdicts(raw.reshape(len(raw), -1), settings, excess=excess.reshape(-1))
            yield JudgedRows(channel, start, raw, judged.reshape(raw.shape))
