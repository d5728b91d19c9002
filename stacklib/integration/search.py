"""What is looked for in one frame once the rule has judged all of them: trails, footprints, hits in color.

This is the work of one task, in a thread or on the worker of a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.frames.frame_masks import read_mask
from stacklib.integration.samples import Samples
from stacklib.kernel.pixels import Counts
from stacklib.kernel.verdicts import HIGH, LOW
from stacklib.normalization.settings import Settings
from stacklib.spatial.colour import mark_hits
from stacklib.spatial.footprints import find_footprints
from stacklib.spatial.large_scale import large_structures
from stacklib.spatial.lines import find_lines
from stacklib.spatial.masks import pack_bits, pack_flags
from stacklib.spatial.means import ABOVE, FOOTPRINT, LARGE_HIGH, LARGE_LOW, OWN
from stacklib.spatial.planes import smooth_part
from stacklib.spatial.residuals import KeptMean, residuals, unpack_verdicts

__all__ = ["BRIGHT", "Found", "JudgedBands", "Search", "search_bytes", "search_frame"]

#: Channel, start and stop row of each judged band; the verdicts on its samples, uint8 (frames, 2, rows,
#: bytes), see `stacklib.spatial.residuals.unpack_verdicts`; and samples by verdict if they were integrated.
JudgedBands = Generator[tuple[tuple[int, int, int], np.ndarray, Counts], None, None]
#: Bytes of a pixel during the search of a frame, in all channels together and in each.
SEARCH_BYTES, MASK_BYTES = 16, 4
#: Flag of a bright footprint until all frames are searched; that of a dark one is `FOOTPRINT`.
BRIGHT = 128
#: Pixels by which footprints grow.
GROWTH = 2


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
        Verdicts on its samples, planes of bits of each channel; see `unpack_verdicts`. Callables return them.

    Returns
    -------
    Found
    """
    samples, means = search.samples, search.means
    _, _, width, height = samples.region
    channels = len(search.settings)
    with_lines, with_colour = "line" in means, "colour" in means
    hits = np.zeros((height, width), np.uint8) if with_colour else None
    planes: list[dict[int, np.ndarray]] = []
    together = smooth = None
    strength = search.settings[0].recipe.footprint_strength
    i = int(search.used[number])
    own_mask = search.own_mask(i)
    for channel, settings in enumerate(search.settings):
        given = verdicts[channel]
        packed = given() if callable(given) else given
        own = kept.part(channel)
        found = _large_scale(packed, width, settings) if "large_scale" in means else {}
        planes.append(found)
        if not {"line", "footprint", "colour", "own"} & set(means):
            continue
        z = residuals(samples.marked_plane(i, channel), packed, own, settings, number)
        if "footprint" in means:
            smooth = smooth_part(z, own.protected)
            dark, bright = find_footprints(z, own.protected, smooth, strength, GROWTH)
            found |= {FOOTPRINT: dark, BRIGHT: bright}
        if hits is not None:
            mark_hits(z, unpack_verdicts(packed, width), hits)
        if own_mask is not None:
            found[OWN] = np.packbits(own_mask[channel], axis=1)
            found[ABOVE] = np.packbits(own_mask[channel] & (z > 0), axis=1)
        if with_lines:
            together = z if together is None else np.add(together, z, out=together)
        del z
    packed_planes = [pack_bits(found, (height, width)) for found in planes]
    if hits is not None:
        packed_planes.append(pack_flags(hits))
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
    return Found(lines, packed_planes)


def _large_scale(packed: np.ndarray, width: int, settings: Settings) -> dict[int, np.ndarray]:
    """Return large structures of rejected samples as bits by flag."""
    recipe, verdict = settings.recipe, unpack_verdicts(packed, width)
    layers, growth = recipe.large_scale_layers, recipe.large_scale_growth
    found = {}
    for side, flag, wanted in (
        (LOW, LARGE_LOW, recipe.large_scale_low and recipe.clip_low),
        (HIGH, LARGE_HIGH, recipe.large_scale_high and recipe.clip_high),
    ):
        if wanted:
            found[flag] = np.packbits(large_structures(verdict == side, layers, growth), axis=1)
    return found
