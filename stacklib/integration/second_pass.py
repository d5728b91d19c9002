"""Find the samples that spatial rejection takes from the rule, in two passes over the frames.

First the rule judges all samples, band by band. Then each frame is searched, with its residuals against what
was kept of the others. What is found at one place in many frames is no defect of one of them, and stays.
Masks are found on whole frames, whatever region is integrated.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from stacklib.integration.noise import Parts, known_excess, with_noise
from stacklib.integration.samples import RESULT_BYTES, Samples, cancelled_on_error
from stacklib.integration.search import BRIGHT, Found, JudgedBand, Search, search_bytes
from stacklib.integration.threads import Threads
from stacklib.kernel.passes import NO_EXCESS
from stacklib.kernel.pixels import Pixels, Ratios
from stacklib.kernel.scatter import find_excess
from stacklib.normalization.preparation import Preparation
from stacklib.normalization.settings import Settings
from stacklib.rejection.calibration import typical_variance
from stacklib.spatial.colour import around_hits
from stacklib.spatial.footprints import common_places, most_frames, without_common
from stacklib.spatial.lines import Line, fixed_lines, line_mask
from stacklib.spatial.masks import BitPlanes, FrameMasks, add_flags, clear_no_data
from stacklib.spatial.means import ABOVE, COLOUR, FOOTPRINT, LARGE_HIGH, LARGE_LOW, LINE, OWN
from stacklib.spatial.residuals import KeptMean, protected_places

__all__ = ["Workers", "find_masks", "passes", "spatial_means"]

#: Bytes of what is kept of a pixel between the passes, in each channel.
KEPT_BYTES = 23
#: Pixels whose noise is computed at once.
PIECE = 1 << 20
#: The footprints of a trail reach so many pixels farther to each side than the trail stands out.
REACH = 8.0


class Workers(Protocol):
    """Those who do the work: `stacklib.integration.threads.Threads`, or a cluster."""

    def integrate(
        self, samples: Samples, used: np.ndarray, settings: list[Settings], planes: Sequence[Pixels | Ratios]
    ) -> Parts:
        """Integrate; see `stacklib.integration.noise.Work`."""

    def judge(
        self, samples: Samples, used: np.ndarray, settings: list[Settings], excess: np.ndarray
    ) -> Generator[JudgedBand, None, None]:
        """Judge the samples band by band; `excess` has the shape (channels, pixels), or no pixels."""

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

    Returns
    -------
    FrameMasks
        For the same frames and recipe they do not depend on budget, threads and workers.
    """
    workers = Threads() if workers is None else workers
    samples = samples.masked(None)
    samples = (samples.of_whole_frames() if whole else samples).marked(preparation.marks)
    used, channels = preparation.used, preparation.frames.channels
    settings = [with_noise(preparation, channel) for channel in range(channels)]
    judged = _judge(samples, preparation, settings, workers, report)
    search = Search(samples, used, settings, spatial_means(preparation), preparation.own_masks)
    return _Searched(search, judged).masks(preparation, workers, report)


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


def _judge(
    samples: Samples,
    preparation: Preparation,
    settings: list[Settings],
    workers: Workers,
    report: Callable[[int], None],
) -> _Judged:
    """Run the rule."""
    _, _, width, height = samples.region
    used, channels = preparation.used, len(settings)
    excess = np.broadcast_to(NO_EXCESS, (channels, 0))
    if preparation.by_frame:
        excess = known_excess(samples, preparation, settings, workers.integrate, report)
    mean, weight, sigma, further = (np.empty((channels, height, width), np.float32) for _ in range(4))
    count = np.empty((channels, height, width), np.uint16)
    kept = KeptMean(mean, weight, sigma, further, np.empty((channels, height, width), bool))
    found = _Judged(kept, count, [[] for _ in range(channels)])
    paths = [preparation.frames[int(i)].path for i in used]
    with closing(workers.judge(samples, used, settings, excess)) as bands:
        for judged in bands:
            channel, start, stop = judged.band
            shape = stop - start, width
            mean[channel, start:stop] = judged.mean.reshape(shape)
            weight[channel, start:stop] = judged.weight.reshape(shape)
            # What `further` is made of.
            further[channel, start:stop] = judged.ratio.reshape(shape)
            count[channel, start:stop] = judged.number.reshape(shape)
            planes = [BitPlanes(bits, path) for bits, path in zip(judged.verdicts, paths, strict=True)]
            found.verdicts[channel].append((start, planes))
            report(judged.mean.size)
    for channel, (own, verdicts) in enumerate(zip(settings, found.verdicts, strict=True)):
        verdicts.sort(key=lambda band: band[0])
        if preparation.by_frame:
            factor = excess[channel].reshape(height, width)
        else:
            counted = count[channel].astype(np.float32)
            # Without contrast, levels and noise do not matter.
            ratios = Ratios(further[channel], counted, counted, counted)
            factor = find_excess(ratios, own.relative_noise)
        kept.protected[channel] = protected_places(factor)
        _write_noise(kept.part(channel), factor, own)
    return found


def _write_noise(kept: KeptMean, factor: np.ndarray, settings: Settings) -> None:
    """Write the noise by the curve, and what exceeds it by a `factor`, to the planes of a channel."""
    levels, variances = settings.curve if settings.curve is not None else np.array([[0.0], [0.0]])
    typical = typical_variance(tuple(settings.relative_noise.tolist()))
    rows = max(1, PIECE // factor.shape[1])
    for start in range(0, len(factor), rows):
        part = slice(start, start + rows)
        kept.sigma[part] = np.sqrt(np.interp(kept.mean[part], levels, variances))
        kept.further[part] = typical * (factor[part].astype(np.float64) ** 2 - 1)


class _Common(NamedTuple):
    """Where too many frames have dark and bright footprints, by channel, and hits; bool (height, width)."""

    footprints: list[tuple[np.ndarray, np.ndarray]]
    hits: np.ndarray


class _Searched:
    """The second pass, and what follows once all frames are searched."""

    def __init__(self, search: Search, judged: _Judged) -> None:
        self.search, self.judged = search, judged
        self.found = FrameMasks(search.samples.region)
        #: Trails by number of the frame that the user wants to stay.
        self.left_in: dict[int, list[Line]] = {}
        channels, height, width = judged.count.shape
        # In how many frames there are dark and bright footprints, and hits.
        rows = height * ("footprint" in search.means)
        self.footprints = np.zeros((channels, 2, rows, width), np.uint16)
        self.hits = np.zeros((height * ("colour" in search.means), width), np.uint16)

    def masks(self, preparation: Preparation, workers: Workers, report: Callable[[int], None]) -> FrameMasks:
        """Search all frames and return their masks."""
        samples, used = self.search.samples, self.search.used
        channels, height, width = self.judged.count.shape
        paths = [preparation.frames[int(i)].path for i in used]
        calls = [
            [partial(self.judged.verdict, number, channel) for channel in range(channels)]
            for number in range(used.size)
        ]
        pixels, done = channels * height * width, 0
        lines: list[list[Any]] = [[] for _ in used]
        with closing(workers.search(self.search, self.judged.kept, calls, self._places())) as results:
            for number, result in results:
                lines[number] = result.lines
                for channel, (present, packed) in enumerate(result.planes):
                    self.found.put_packed(int(used[number]), channel, present, packed, paths[number])
                    self._count(channel, present, packed)
                done += 1
                report(pixels * done // used.size - pixels * (done - 1) // used.size)
        self._choose_lines(preparation, lines)
        common = self._common()
        masked = np.zeros(self.judged.count.shape, np.uint16)
        with ThreadPoolExecutor(min(samples.threads, self._places())) as pool:
            finishing = [
                pool.submit(self._finish, number, paths[number], common) for number in range(used.size)
            ]
            with cancelled_on_error(finishing):
                for future in finishing:
                    masked += future.result()
        self._leave_some(masked, paths)
        return self.found

    def _count(self, channel: int, present: tuple[int, ...], packed: np.ndarray) -> None:
        """Count what was found in a plane of a frame."""
        counts = {COLOUR: self.hits}
        if channel < len(self.judged.count):
            counts = dict(zip((FOOTPRINT, BRIGHT), self.footprints[channel], strict=True))
        width = self.hits.shape[1]
        for flag, bits in zip(present, packed[1:], strict=True):
            if flag in counts:
                counts[flag] += np.unpackbits(bits, axis=1, count=width)

    def _common(self) -> _Common:
        """Return where too many frames have the same; the counts are no longer needed."""
        frames = self.search.used.size
        places = [common_places(low, high, frames) for low, high in self.footprints]
        found = _Common(places, self.hits > most_frames(frames))
        del self.footprints, self.hits
        return found

    def _places(self) -> int:
        """Return the number of frames that may be searched at once, by the budget."""
        samples = self.search.samples
        held = 0 if samples.held is None else samples.held.nbytes
        room = samples.left_for_samples - held + (RESULT_BYTES - KEPT_BYTES) * self.judged.count.size
        return max(1, int(room // search_bytes(self.judged.count.shape)))

    def _choose_lines(self, preparation: Preparation, lines: list[list[Any]]) -> None:
        """Keep the lines, and note which of them take no samples."""
        _, height, width = self.judged.count.shape
        used, names = self.search.used, preparation.measurements.names
        ignored = set(preparation.recipe.ignored_trails)
        fixed = fixed_lines(lines, (height, width))
        for number, (own, lie_fixed) in enumerate(zip(lines, fixed, strict=True)):
            i = int(used[number])
            if own:
                self.found.lines[i] = own
            for position, (line, is_fixed) in enumerate(zip(own, lie_fixed, strict=True)):
                is_ignored = (names[i], position + 1) in ignored
                if is_fixed or is_ignored:
                    self.found.unused.add((i, position))
                if is_ignored:
                    self.left_in.setdefault(i, []).append(line)

    def _finish(self, number: int, path: Any, common: _Common) -> np.ndarray:
        """Complete the masks of a frame; returns where they are, bool (channels, height, width)."""
        i, (channels, height, width) = int(self.search.used[number]), self.judged.count.shape
        # The last plane has the hits in any channel.
        # What falls in all channels.
        joint = np.zeros((height, width), np.uint8)
        if (i, channels) in self.found.planes:
            hits = self.found.flags(i, channels)
            for flag, added in ((COLOUR, COLOUR), (ABOVE, COLOUR | ABOVE)):
                _add(joint, around_hits((hits & np.uint8(flag)) != 0, common.hits), added)
            self.found.planes.pop((i, channels))
        unused = self.found.unused
        lines = [line for k, line in enumerate(self.found.lines.get(i, [])) if (i, k) not in unused]
        for line in lines:
            _add(joint, line_mask(line, (height, width)), LINE | ABOVE)
        with_joint = bool(joint.any())
        spared = np.zeros((height, width), bool)
        for line in self.left_in.get(i, []):
            # Its footprints are the same trail.
            spared |= line_mask(replace(line, width=line.width + 2 * REACH), (height, width))
        masked = np.zeros((channels, height, width), bool)
        for channel in range(channels):
            alone = (i, channel) not in self.found.planes
            if alone and not with_joint:
                continue
            flags = joint.copy() if alone else self._of_channel(i, channel, common, spared)
            if with_joint and not alone:
                flags &= ~np.where((joint & np.uint8(ABOVE)) == 0, (joint != 0) * np.uint8(ABOVE), 0)
                flags |= joint
            clear_no_data(flags, self.judged.verdict(number, channel))
            self.found.put(i, channel, flags, path)
            masked[channel] = flags != 0
        return masked

    def _of_channel(self, i: int, channel: int, common: _Common, spared: np.ndarray) -> np.ndarray:
        """Return the flags of what was found in one channel of a frame alone, uint8 (height, width).

        Footprints in the places `spared`, bool of the same shape, do not count.
        """
        found = self.found.flags(i, channel)
        flags = found & np.uint8(LARGE_LOW | LARGE_HIGH | OWN | ABOVE)
        add_flags(flags, (found & np.uint8(LARGE_HIGH)) != 0, ABOVE)
        for flag, side, places in zip(
            (FOOTPRINT, BRIGHT), (0, ABOVE), common.footprints[channel], strict=True
        ):
            own = (found & np.uint8(flag)) != 0
            if own.any():
                _add(flags, without_common(own, places | spared), FOOTPRINT | side)
        return flags

    def _leave_some(self, masked: np.ndarray, paths: list[Any]) -> None:
        """Take the masks off pixels that they would leave without any sample."""
        bare = (masked > 0) & (masked >= self.judged.count)
        for channel in np.flatnonzero(bare.any(axis=(1, 2))).tolist():
            for i, path in zip(self.search.used, paths, strict=True):
                flags = self.found.flags(int(i), channel)
                if flags[bare[channel]].any():
                    flags[bare[channel]] = 0
                    self.found.put(int(i), channel, flags, path)


def _add(flags: np.ndarray, where: np.ndarray, added: int) -> None:
    """Add flags with their side."""
    if not added & ABOVE:
        flags &= ~(where.view(np.uint8) * np.uint8(ABOVE))
    add_flags(flags, where, added)
