"""What is looked for in one frame once the rule has judged all of them: trails, footprints, hits in color.

This is the work of one task, in a thread or on the worker of a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.frames.frame_masks import read_mask
from stacklib.integration.samples import Samples
from stacklib.kernel.pixels import Judgement
from stacklib.kernel.verdicts import HIGH, LOW
from stacklib.normalization.settings import Settings
from stacklib.spatial.colour import mark_hits
from stacklib.spatial.footprints import find_footprints
from stacklib.spatial.large_scale import large_structures
from stacklib.spatial.lines import find_lines
from stacklib.spatial.masks import add_flags, pack_flags
from stacklib.spatial.means import ABOVE, FOOTPRINT, LARGE_HIGH, LARGE_LOW, OWN
from stacklib.spatial.planes import smooth_part
from stacklib.spatial.residuals import KeptMean, residuals, unpack_verdicts
from stacklib.utils.filters.discs import grow

__all__ = ["BRIGHT", "VERDICT_BYTES", "Found", "JudgedBand", "Search", "search_bytes", "search_frame"]

#: Bytes of the verdict on a sample before they are packed, and while they are.
VERDICT_BYTES = 2
#: Bytes of a pixel during the search of a frame, in all channels together and in each.
SEARCH_BYTES, MASK_BYTES = 16, 4
#: Flag of a bright footprint until all frames are searched; that of a dark one is `FOOTPRINT`.
BRIGHT = 128
#: Pixels by which footprints grow.
GROWTH = 2


class JudgedBand(NamedTuple):
    """The judged samples of a band, which is channel, start and stop row.

    `mean`, `weight`, `ratio` and `number` are those of `stacklib.kernel.pixels.Judgement`. `verdicts` are
    planes of bits, uint8 (frames, 2, rows, bytes), see `stacklib.spatial.residuals.unpack_verdicts`.
    """

    band: tuple[int, int, int]
    mean: np.ndarray
    weight: np.ndarray
    ratio: np.ndarray
    number: np.ndarray
    verdicts: np.ndarray

    @classmethod
    def packed(cls, band: tuple[int, int, int], judged: Judgement) -> JudgedBand:
        """Pack the verdicts of a band."""
        frames = len(judged.verdict)
        by_row = judged.verdict.reshape(frames, band[2] - band[1], -1)
        verdicts = np.stack(
            [
                [np.packbits(plane & np.uint8(1), axis=1), np.packbits(plane >> np.uint8(1), axis=1)]
                for plane in by_row
            ]
        )
        return cls(band, judged.mean, judged.weight, judged.ratio, judged.number, verdicts)


@dataclass(frozen=True, eq=False)
class Search:
    """What all tasks of a search share.

    `settings` of each channel have the noise of the frames, `used` are the frames judged, `means` the names
    of the means that are wanted, and `own_masks` the user's masks by number of the frame.
    """

    samples: Samples
    used: np.ndarray
    settings: list[Settings]
    means: tuple[str, ...]
    own_masks: dict[int, Frame]

    def own_mask(self, i: int) -> np.ndarray | None:
        """Read the user's mask of a frame, bool (channels, height, width); None if there is none."""
        if "own" not in self.means or i not in self.own_masks:
            return None
        left, top, width, height = self.samples.region
        mask = read_mask(self.own_masks[i], self.samples.frames)
        return mask[:, top : top + height, left : left + width]


class Found(NamedTuple):
    """What was found in a frame: trails, and masks of each channel as `pack_flags` returns them.

    What is in many frames has yet to go, so these masks are not the final ones. `BRIGHT` tells bright
    footprints from dark ones. With color there is one more plane, of the hits in any channel, which take
    their neighbors with them: `COLOUR`, and `ABOVE` for bright ones.
    """

    lines: list[Any]
    planes: list[tuple[tuple[int, ...], np.ndarray]]


def search_bytes(shape: tuple[int, ...]) -> int:
    """Return the memory that the search of a frame takes, of shape (channels, height, width)."""
    channels, height, width = shape
    return (SEARCH_BYTES + MASK_BYTES * channels) * height * width


def search_frame(search: Search, kept: KeptMean, number: int, verdicts: Sequence[Any]) -> Found:
    """Search a frame.

    Parameters
    ----------
    search : Search
        What is searched.
    kept : KeptMean
        What the rule kept, planes of shape (channels, height, width).
    number : int
        Position of the frame among those used.
    verdicts : sequence of ndarray or of callables
        Verdicts on its samples, planes of bits of each channel; see `JudgedBand`. Callables return them.

    Returns
    -------
    Found
    """
    samples, means = search.samples, search.means
    _, _, width, height = samples.region
    channels = len(search.settings)
    with_lines, with_colour = "line" in means, "colour" in means
    flags = np.zeros((channels + with_colour, height, width), np.uint8)
    together = smooth = None
    strength = search.settings[0].recipe.footprint_strength
    i = int(search.used[number])
    own_mask = search.own_mask(i)
    for channel, settings in enumerate(search.settings):
        planes = verdicts[channel]
        verdict = unpack_verdicts(planes() if callable(planes) else planes, width)
        own, found = kept.part(channel), flags[channel]
        if "large_scale" in means:
            _grow_structures(found, verdict, settings)
        if not {"line", "footprint", "colour", "own"} & set(means):
            continue
        z = samples.marked_plane(i, channel)
        residuals(z, verdict, own, settings, number)
        if not with_colour:
            del verdict
        if "footprint" in means:
            smooth = smooth_part(z, own.protected)
            signs = find_footprints(z, own.protected, smooth, strength)
            add_flags(found, grow(signs < 0, GROWTH), FOOTPRINT)
            add_flags(found, grow(signs > 0, GROWTH), BRIGHT)
            del signs
        if with_colour:
            mark_hits(z, verdict, flags[-1])
        if own_mask is not None:
            add_flags(found, own_mask[channel], OWN)
            add_flags(found, own_mask[channel] & (z > 0), ABOVE)
        if with_lines:
            together = z if together is None else np.add(together, z, out=together)
        del z
    packed = [pack_flags(plane) for plane in flags]
    del flags, found
    lines = []
    if together is not None:
        together /= np.float32(np.sqrt(channels))
        if channels == 1:
            lines = find_lines(together, kept.protected[0], smooth, strength)
        else:
            found_lines = find_lines(
                together, np.logical_or.reduce(kept.protected, axis=0), strength=strength
            )
            # A trail as bright in every channel stands out this many times more in their sum.
            lines = [replace(line, peak=line.peak / math.sqrt(channels)) for line in found_lines]
    return Found(lines, packed)


def _grow_structures(found: np.ndarray, verdict: np.ndarray, settings: Settings) -> None:
    """Add large structures of rejected samples to flags."""
    recipe = settings.recipe
    layers, growth = recipe.large_scale_layers, recipe.large_scale_growth
    if recipe.large_scale_low and recipe.clip_low:
        add_flags(found, large_structures(verdict == LOW, layers, growth), LARGE_LOW)
    if recipe.large_scale_high and recipe.clip_high:
        add_flags(found, large_structures(verdict == HIGH, layers, growth), LARGE_HIGH)
