"""Find the samples that spatial rejection takes from the rule, in two passes over the frames.

First the rule judges all samples, band by band; samples in memory are integrated at the same time, so that
later only the pixels that lose some are integrated again. Then each frame is searched, with its residuals
against what was kept of the others. What is found at one place in many frames is no defect of one of them,
and stays. Masks are found on whole frames, whatever region is integrated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from stacklib.integration.noise import Parts, known_excess, with_noise
from stacklib.integration.samples import RESULT_BYTES, Samples, cancelled_on_error
from stacklib.integration.search import BRIGHT, Found, JudgedBands, Search, search_bytes
from stacklib.integration.starlight import settings_by_starlight
from stacklib.integration.threads import NOISE_BYTES, Integrated, Threads, stays_in_memory
from stacklib.kernel.pixels import Judgement, Pixels, Ratios, count_type
from stacklib.kernel.scatter import find_excess
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.recipe.trail_names import TrailName
from stacklib.spatial.colour import around_hits
from stacklib.spatial.footprints import common_places, most_frames, without_common
from stacklib.spatial.ignored_trails import find_ignored
from stacklib.spatial.lines import Line, along_edge, fixed_lines, line_mask
from stacklib.spatial.masks import BitPlanes, FrameMasks, count_bits
from stacklib.spatial.means import ABOVE, COLOUR, FOOTPRINT, LARGE_HIGH, LARGE_LOW, LINE, OWN
from stacklib.spatial.residuals import KeptMean, protected_places, write_noise
from stacklib.utils.labels import counted, listed

__all__ = [
    "Searched",
    "Workers",
    "find_masks",
    "integrate_and_search",
    "integrates_meanwhile",
    "passes",
    "search_frames",
    "spatial_means",
]

#: Bytes of what is kept of a pixel between the passes, in each channel, besides four numbers of frames.
KEPT_BYTES = 17
#: If more than this fraction of the pixels loses samples, all of them are integrated again.
MANY = 0.3
#: The footprints of a trail reach so many pixels farther to each side than the trail stands out.
REACH = 8.0
#: Why a trail takes no samples.
IGNORED, AT_ONE_PLACE = "ignored", "at this place in many frames"


class Workers(Protocol):
    """Those who do the work: `stacklib.integration.threads.Threads`, or a cluster."""

    def integrate(
        self, samples: Samples, used: np.ndarray, settings: list[Settings], planes: Sequence[Pixels | Ratios]
    ) -> Parts:
        """Integrate; see `stacklib.integration.noise.Work`."""

    def judge(
        self, samples: Samples, used: np.ndarray, settings: list[Settings], judged: Judgement
    ) -> JudgedBands:
        """Judge the samples band by band into planes of shape (channels, pixels)."""

    def search(
        self, search: Search, kept: KeptMean, verdicts: Sequence[Sequence], places: int
    ) -> Generator[tuple[int, Found], None, None]:
        """Search the frames used, no more than `places` at a time; yields position and what was found.

        `verdicts` are callables by frame and channel that return planes of bits.
        """


def spatial_means(preparation: Preparation) -> tuple[str, ...]:
    """Return the names of the means of spatial rejection that take part; none means one pass."""
    return preparation.recipe.spatial_means(preparation.count, preparation.frames.channels)


def passes(preparation: Preparation) -> int:
    """Return how often `find_masks` reports all pixels of all channels."""
    return 3 if preparation.by_frame else 2


def find_masks(
    samples: Samples,
    preparation: Preparation,
    workers: Workers | None = None,
    report: Callable[[int], None] = lambda pixels: None,
    whole: bool = True,
) -> FrameMasks:
    """Find the samples that spatial rejection takes from the rule.

    For parameters see `search_frames`. For the same frames and recipe the masks do not depend on budget,
    threads and workers.
    """
    searched = search_frames(samples, preparation, workers, report, whole)
    return searched.masks(preparation.recipe.ignored_trails)


def search_frames(
    samples: Samples,
    preparation: Preparation,
    workers: Workers | None = None,
    report: Callable[[int], None] = lambda pixels: None,
    whole: bool = True,
    integrated: Integrated | None = None,
) -> Searched:
    """Search the frames for what spatial rejection takes from the rule.

    Parameters
    ----------
    samples : Samples
        Samples of any region; whole frames are searched. Samples that hold other values than the files are
        searched as they are.
    preparation : Preparation
        The prepared frames, whose recipe says what is looked for.
    workers : Workers, optional
        Default is the threads of this process.
    report : callable
        Called with numbers of pixels that are done, see `passes`.
    whole : bool
        False searches the region only: enough for means that need no more than the pixels around a sample.
    integrated : Integrated, optional
        The samples are integrated as well while they are judged, in the threads of this process.

    Returns
    -------
    Searched
        What was found; `Searched.masks` makes masks of it.
    """
    workers = Threads() if workers is None else workers
    samples = samples.masked(None)
    samples = (samples.of_whole_frames() if whole else samples).marked(preparation.marks)
    used, channels = preparation.used, preparation.frames.channels
    if integrated is None:
        settings = [with_noise(preparation, channel) for channel in range(channels)]
    else:
        settings = integrated.settings
    judged = _judge(samples, preparation, settings, workers, report, integrated)
    matched = settings_by_starlight(preparation, settings, samples.threads)
    search = Search(samples, used, matched, spatial_means(preparation), preparation.own_masks)
    paths = [preparation.frames[int(i)].path for i in used]
    places = _places(samples, preparation, judged.count.shape, integrated is not None)
    searched = Searched(search, judged, paths, preparation.measurements.names, max(1, places))
    searched.run(search, workers, report)
    return searched


def integrates_meanwhile(samples: Samples, preparation: Preparation) -> bool:
    """Return whether the samples are integrated while they are judged, see `integrate_and_search`.

    They are if they stay in memory, and the budget has room for the result and the search of some frames.
    """
    if not spatial_means(preparation) or not stays_in_memory(samples, preparation):
        return False
    _, _, width, height = samples.region
    shape = preparation.frames.channels, height, width
    return _places(samples, preparation, shape, integrated=True) >= samples.threads


def integrate_and_search(
    samples: Samples, preparation: Preparation, report: Callable[[int], None] = lambda pixels: None
) -> tuple[FrameMasks, Integrated | None]:
    """Find the masks as `find_masks` does, and integrate the samples while they are judged.

    So only pixels that lose samples need another integration, see `Integrated.take_out`.

    Parameters
    ----------
    samples : Samples
        Those for which `integrates_meanwhile` is true.
    preparation : Preparation
        The prepared frames.
    report : callable
        Called with numbers of pixels that are done, see `passes`.

    Returns
    -------
    masks : FrameMasks
        The masks.
    integrated : Integrated or None
        None if so many pixels lose samples that it is faster to integrate all of them again.
    """
    integrated = Integrated(samples, preparation, report)
    searched = search_frames(samples, preparation, None, report, integrated=integrated)
    masks = searched.masks(preparation.recipe.ignored_trails)
    return masks, None if searched.share_of_pixels > MANY else integrated


@dataclass(eq=False)
class _Judged:
    """What is kept of the first pass; planes have the shape (channels, height, width)."""

    kept: KeptMean
    count: np.ndarray
    #: By channel: start row and bits of each band.
    verdicts: list[list[tuple[int, list[BitPlanes]]]] = field(default_factory=list)

    def verdict(self, number: int, channel: int) -> np.ndarray:
        """Return the verdicts on a plane, planes of bits, uint8 (2, height, bytes)."""
        return np.concatenate([planes[number].read() for _, planes in self.verdicts[channel]], axis=1)

    def give_up(self, numbers: Iterable[int]) -> None:
        """Give up the verdicts on some frames."""
        nothing = BitPlanes(np.empty((2, 0, 0), np.uint8))
        for number in numbers:
            for _, planes in itertools.chain.from_iterable(self.verdicts):
                planes[number] = nothing


def _judge(
    samples: Samples,
    preparation: Preparation,
    settings: list[Settings],
    workers: Workers,
    report: Callable[[int], None],
    integrated: Integrated | None,
) -> _Judged:
    """Run the rule."""
    _, _, width, height = samples.region
    used, channels = preparation.used, len(settings)
    if integrated is not None:
        excess = integrated.whole.excess
    elif preparation.by_frame:
        excess = known_excess(samples, preparation, settings, workers.integrate, report)
    else:
        excess = np.empty((channels, 0), np.float32)
    judged = Judgement.empty((channels, height * width), used.size, excess)
    paths = [preparation.frames[int(i)].path for i in used]
    bits: list[list[tuple[int, list[BitPlanes]]]] = [[] for _ in range(channels)]
    if integrated is None:
        judging = workers.judge(samples, used, settings, judged)
    else:
        judging = Threads.judge(samples, used, settings, judged, integrated.whole)
    with closing(judging) as bands:
        for (channel, start, stop), verdicts, counts in bands:
            bits[channel].append((start, [BitPlanes(*each) for each in zip(verdicts, paths, strict=True)]))
            if integrated is not None:
                integrated.counts[channel].add(counts)
            report((stop - start) * width)
    shape = channels, height, width
    # What `further` is made of takes its place.
    mean, weight, further, count = (plane.reshape(shape) for plane in judged[:4])
    kept = KeptMean(mean, weight, np.empty(shape, np.float32), further, np.empty(shape, bool))
    found = _Judged(kept, count, bits)
    for channel, (own, by_band) in enumerate(zip(settings, bits, strict=True)):
        by_band.sort(key=lambda band: band[0])
        if preparation.by_frame:
            factor = excess[channel].reshape(height, width)
        else:
            counted = count[channel].astype(np.float32)
            # Without contrast, levels and noise do not matter.
            ratios = Ratios(further[channel], counted, counted, counted)
            places = own.places_from(*samples.region[:2])
            factor = find_excess(ratios, own.relative_noise, threads=samples.threads, places=places)
        kept.protected[channel] = protected_places(factor)
        write_noise(kept.part(channel), factor, own, samples.threads)
    # The search does without the excess.
    samples.kept.clear()
    return found


def _places(samples: Samples, preparation: Preparation, shape: tuple[int, ...], integrated: bool) -> int:
    """Return the number of frames that may be searched at once, by the budget.

    `shape` is (channels, height, width). The result is in memory by then if the samples are `integrated`.
    """
    held = 0 if samples.held is None else samples.held.nbytes
    taken = KEPT_BYTES + 4 * count_type(preparation.count).itemsize
    taken += NOISE_BYTES * preparation.by_frame if integrated else -RESULT_BYTES
    return int((samples.left_for_samples - held - taken * math.prod(shape)) // search_bytes(shape))


class _Common(NamedTuple):
    """Where too many frames have dark and bright footprints, by channel, and hits.

    Footprints are bits, uint8 (height, bytes), packed along the rows; hits are bool (height, width).
    """

    footprints: list[list[np.ndarray]]
    hits: np.ndarray


class Searched:
    """Frames that were searched, of which masks are made.

    Which trails stay in the image is a choice that needs no other search, see `masks`.
    """

    def __init__(
        self, search: Search, judged: _Judged, paths: list[Any], names: Sequence[str], places: int
    ) -> None:
        # Samples are not kept: those of another region may be wanted by now.
        self.used, self.means, self.own_masks = search.used, search.means, search.own_masks
        self.judged, self.paths, self.names = judged, paths, names
        self.places, self.threads = places, min(search.samples.threads, places)
        #: What was found in each frame; its final masks once `masks` has run.
        self.found = FrameMasks(search.samples.region)
        #: The same of frames with trails, as it was found, for another choice of trails.
        self._raw: dict[tuple[int, int], tuple[tuple[int, ...], BitPlanes]] = {}
        #: Positions of the trails of each frame that the user wants to stay, as its masks have it.
        self._left_in: dict[int, tuple[int, ...]] = {}
        #: In how many frames a sample fell, (channels, height, width).
        self._masked = np.zeros((0, 0, 0), judged.count.dtype)
        #: Frames in which the user's mask marks something.
        self.marked: set[int] = set()
        channels, height, width = judged.count.shape
        # In how many frames there are dark and bright footprints, and hits.
        rows = height * ("footprint" in search.means)
        self.footprints = np.zeros((channels, 2, rows, width), judged.count.dtype)
        self.hits = np.zeros((height * ("colour" in search.means), width), judged.count.dtype)

    def run(self, search: Search, workers: Workers, report: Callable[[int], None]) -> None:
        """Search all frames."""
        used = self.used
        channels, height, width = self.judged.count.shape
        calls = [
            [partial(self.judged.verdict, number, channel) for channel in range(channels)]
            for number in range(used.size)
        ]
        pixels, done = channels * height * width, 0
        lines: list[list[Any]] = [[] for _ in used]
        with closing(workers.search(search, self.judged.kept, calls, self.places)) as results:
            for number, result in results:
                lines[number] = [line for line in result.lines if not self._at_edge(line)]
                for channel, (present, packed) in enumerate(result.planes):
                    self.found.put_packed(int(used[number]), channel, present, packed, self.paths[number])
                    self._count(channel, present, packed)
                    if OWN in present:
                        self.marked.add(int(used[number]))
                done += 1
                report(pixels * done // used.size - pixels * (done - 1) // used.size)
        del self.judged.kept
        self._keep_lines(lines)
        self.common = self._common()

    def masks(self, ignored_trails: Sequence[TrailName] = (), again: bool = False) -> FrameMasks:
        """Return the masks of all frames.

        Parameters
        ----------
        ignored_trails : sequence of TrailName
            Trails that take no samples.
        again : bool
            Whether masks for another choice of trails will be wanted. Otherwise what they would be made of
            is given up, and this is the only call.
        """
        used, found = self.used, self.found
        ignored: set[tuple[int, int]] = set()
        notes: list[str] = []
        if "line" in self.means:
            ignored, notes = find_ignored(ignored_trails, found.lines, self.names)
        left_in: dict[int, tuple[int, ...]] = {}
        for i, position in sorted(ignored):
            left_in[i] = (*left_in.get(i, ()), position)
        numbers = list(range(used.size))
        if not self._masked.size:
            self._masked = np.zeros_like(self.judged.count)
            if again:
                self._raw = {place: plane for place, plane in found.planes.items() if place[0] in found.lines}
        else:
            numbers = [n for n in numbers if left_in.get(int(used[n])) != self._left_in.get(int(used[n]))]
            for number in numbers:
                self._start_again(int(used[number]))
        self._left_in = left_in
        with ThreadPoolExecutor(self.threads) as pool:
            finishing = [pool.submit(self._finish, number) for number in numbers]
            with cancelled_on_error(finishing):
                for future in finishing:
                    for counts, bits in zip(self._masked, future.result(), strict=True):
                        if bits is not None:
                            count_bits(counts, bits)
        self.judged.give_up(number for number in numbers if int(used[number]) not in found.lines)
        final = found.copy() if again else found
        final.unused |= dict.fromkeys(ignored, IGNORED)
        spared = self._leave_some(final)
        final.notes += [*notes, *self._about_own_masks(spared)]
        return final

    @property
    def share_of_pixels(self) -> float:
        """The share of the pixels at which a sample is masked."""
        return float(np.count_nonzero(self._masked) / self._masked.size)

    def _start_again(self, i: int) -> None:
        """Put what was found in a frame in the place of its final masks."""
        channels, _, width = self.judged.count.shape
        for channel in range(channels):
            if (i, channel) in self.found.planes:
                taken = self.found.planes.pop((i, channel))[1].read()[0]
                self._masked[channel] -= np.unpackbits(taken, axis=1, count=width)
        self.found.planes |= {place: plane for place, plane in self._raw.items() if place[0] == i}

    def _at_edge(self, line: Line) -> bool:
        """Return whether a line is an edge of other frames."""
        return any(along_edge(line, count) for count in self.judged.count)

    def _count(self, channel: int, present: tuple[int, ...], packed: np.ndarray) -> None:
        """Count what was found in a plane of a frame."""
        counts = {COLOUR: self.hits}
        if channel < len(self.judged.count):
            counts = dict(zip((FOOTPRINT, BRIGHT), self.footprints[channel], strict=True))
        for flag, bits in zip(present, packed[1:], strict=True):
            if flag in counts:
                count_bits(counts[flag], bits)

    def _common(self) -> _Common:
        """Return where too many frames have the same; the counts are no longer needed."""
        frames = self.used.size
        places = [
            [np.packbits(side, axis=1) for side in common_places(low, high, frames)]
            for low, high in self.footprints
        ]
        found = _Common(places, self.hits > most_frames(frames))
        del self.footprints, self.hits
        return found

    def _keep_lines(self, lines: list[list[Any]]) -> None:
        """Keep the lines, and note which of them lie at one place in many frames."""
        _, height, width = self.judged.count.shape
        used = self.used
        self.found.lines = {int(i): own for i, own in zip(used, lines, strict=True) if own}
        for i, lie_fixed in zip(used, fixed_lines(lines, (height, width)), strict=True):
            fixed = [(int(i), position) for position, is_fixed in enumerate(lie_fixed) if is_fixed]
            self.found.unused |= dict.fromkeys(fixed, AT_ONE_PLACE)

    def _finish(self, number: int) -> list[np.ndarray | None]:
        """Complete the masks of a frame; returns where they are by channel, bits (height, bytes)."""
        i, channels, path = int(self.used[number]), len(self.judged.count), self.paths[number]
        joint = self._of_all_channels(i)
        spared = self._spared(i)
        masked: list[np.ndarray | None] = [None] * channels
        for channel in range(channels):
            if not joint and (i, channel) not in self.found.planes:
                continue
            bits = self._of_channel(i, channel, spared)
            if joint:
                every = np.bitwise_or.reduce(list(joint.values()))
                dark = every & ~joint[ABOVE] if ABOVE in joint else every
                none = np.zeros_like(every)
                bits = {flag: bits.get(flag, none) | joint.get(flag, none) for flag in {**bits, **joint}}
                if ABOVE in bits:
                    bits[ABOVE] = bits[ABOVE] & ~dark
            low, high = self.judged.verdict(number, channel)
            means = [plane for flag, plane in bits.items() if flag != ABOVE]
            taken = np.bitwise_or.reduce([*means, np.zeros_like(low)]) & (low | high)
            bits = {flag: plane & taken for flag, plane in bits.items()}
            self.found.put_bits(i, channel, bits, path)
            masked[channel] = taken
        return masked

    def _of_all_channels(self, i: int) -> dict[int, np.ndarray]:
        """Return what falls in all channels of a frame, bits by flag."""
        channels, height, width = self.judged.count.shape
        joint: dict[int, np.ndarray] = {}
        if (i, channels) in self.found.planes:
            # The last plane has the hits in any channel.
            hits = self.found.flags(i, channels)
            for flag, above in ((COLOUR, False), (ABOVE, True)):
                around = around_hits((hits & np.uint8(flag)) != 0, self.common.hits)
                _add(joint, np.packbits(around, axis=1), COLOUR, above)
            self.found.planes.pop((i, channels))
        for k, line in enumerate(self.found.lines.get(i, [])):
            if (i, k) not in self.found.unused and k not in self._left_in.get(i, ()):
                _add(joint, np.packbits(line_mask(line, (height, width)), axis=1), LINE, True)
        return joint if any(plane.any() for plane in joint.values()) else {}

    def _spared(self, i: int) -> np.ndarray | np.uint8:
        """Return where footprints of a frame do not count, bits (height, bytes), or 0 for nowhere."""
        spared: np.ndarray | np.uint8 = np.uint8(0)
        for k in self._left_in.get(i, ()):
            # They are the same trail.
            line = self.found.lines[i][k]
            wide = replace(line, width=line.width + 2 * REACH)
            spared = spared | np.packbits(line_mask(wide, self.judged.count.shape[1:]), axis=1)
        return spared

    def _of_channel(self, i: int, channel: int, spared: np.ndarray | np.uint8) -> dict[int, np.ndarray]:
        """Return what was found in one channel of a frame alone, bits by flag."""
        found = self.found.bits(i, channel)
        bits = {flag: found[flag] for flag in (LARGE_LOW, LARGE_HIGH, OWN, ABOVE) if flag in found}
        if LARGE_HIGH in bits:
            _add(bits, bits[LARGE_HIGH], LARGE_HIGH, True)
        sides = zip((FOOTPRINT, BRIGHT), (False, True), self.common.footprints[channel], strict=True)
        for flag, above, places in sides:
            if flag in found:
                _add(bits, without_common(found[flag], places | spared), FOOTPRINT, above)
        return bits

    def _leave_some(self, masks: FrameMasks) -> int:
        """Take the masks off pixels that they would leave without any sample.

        Returns at how many pixels the user's masks are not heeded for that reason.
        """
        bare = (self._masked > 0) & (self._masked >= self.judged.count)
        own = np.zeros(bare.shape[1:], bool)
        for channel in np.flatnonzero(bare.any(axis=(1, 2))).tolist():
            for i, path in zip(self.used, self.paths, strict=True):
                flags = masks.flags(int(i), channel)
                if flags[bare[channel]].any():
                    own |= bare[channel] & ((flags & np.uint8(OWN)) != 0)
                    flags[bare[channel]] = 0
                    masks.put(int(i), channel, flags, path)
        return int(np.count_nonzero(own))

    def _about_own_masks(self, spared: int) -> list[str]:
        """Return notes about masks that mark nothing, and about pixels that they would leave empty."""
        used, masks = set(self.used.tolist()), self.own_masks
        blank = [mask.name for i, mask in masks.items() if i in used - self.marked]
        notes = []
        if blank:
            notes.append(f"masks: {listed(blank)}: all values are 0, so nothing is rejected")
        if spared:
            notes.append(
                f"masks: yours leave no sample at {counted(spared, 'pixel')}; they are ignored there"
            )
        return notes


def _add(bits: dict[int, np.ndarray], where: np.ndarray, means: int, above: bool) -> None:
    """Add samples that one means found, above the others or below them, to bits by flag."""
    bits[means] = bits[means] | where if means in bits else where
    if above:
        bits[ABOVE] = bits[ABOVE] | where if ABOVE in bits else where
    elif ABOVE in bits:
        bits[ABOVE] = bits[ABOVE] & ~where
