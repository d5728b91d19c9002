"""Integrate color frames in one pass, and again the few pixels that lose samples beside a hit.

The result is that of a search for hits in all frames followed by an integration without what they take with
them, see `stacklib.integration.second_pass`, bit for bit. Here the samples are judged while they are in the
cache of the processor for the integration, and only those far from the others are looked at again. Frames
that do not fit into memory are read twice, in place of three times.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from stacklib.integration.colour.marks import HitMarks
from stacklib.integration.noise import with_noise
from stacklib.integration.samples import Samples, cancelled_on_error, parts
from stacklib.integration.starlight import settings_by_starlight
from stacklib.integration.threads import NOISE_BYTES, Integrated
from stacklib.kernel.pixels import Ratios
from stacklib.kernel.scatter import find_excess
from stacklib.kernel.suspects import Suspects, run_tiles_with_suspects
from stacklib.kernel.verdicts import HIGH, LOW
from stacklib.normalization.preparation import Preparation
from stacklib.spatial.colour import HIT, KEPT_HIT
from stacklib.spatial.masks import FrameMasks
from stacklib.spatial.residuals import KeptMean, residuals_of, write_noise

__all__ = ["fill_without_hits", "takes_one_pass"]

#: What hits may take of the budget that samples have, as one part in so many, and in bytes at least.
FOR_HITS, LEAST_ROOM = 4, 64 << 20
#: Bytes of a suspect, and of a sample beside a hit while it is integrated again.
SUSPECT_BYTES, COLUMN_BYTES = 50, 12


def takes_one_pass(samples: Samples, preparation: Preparation) -> bool:
    """Return whether one pass will do: hits alone are looked for, in whole frames."""
    means = preparation.recipe.spatial_means(preparation.count, preparation.frames.channels)
    if means != ("colour",) or not samples.whole:
        return False
    left = samples.left_for_samples - samples.in_memory
    if _planes(samples, preparation) > (left // 2 if samples.held is None else left):
        return False
    # In a mosaic some places are noisier than the curve says.
    return all(with_noise(preparation, channel).period == 1 for channel in range(preparation.frames.channels))


def _planes(samples: Samples, preparation: Preparation) -> int:
    """Return the bytes of the planes that are needed beside those of the result.

    A rule with limits for each frame needs the ratios of all channels, every other one a number of samples.
    """
    _, _, width, height = samples.region
    channels = preparation.frames.channels
    return (NOISE_BYTES * channels * preparation.by_frame + 4) * width * height


def fill_without_hits(
    samples: Samples, preparation: Preparation, report: Callable[[int], None] = lambda pixels: None
) -> tuple[FrameMasks, Integrated] | None:
    """Integrate samples of whole frames without what hits take with them.

    Samples that are not in memory are read again where hits are.

    Parameters
    ----------
    samples : Samples
        The samples, see `takes_one_pass`.
    preparation : Preparation
        The prepared frames.
    report : callable
        Called with numbers of pixels that are done: all of them once, or twice if the noise is measured
        first.

    Returns
    -------
    tuple of FrameMasks and Integrated, or None
        What hits took with them, and the integration without it, before the maps count what fell to a mask.
        None if there are more hits than the memory budget has room for.
    """
    try:
        return _Run(samples, preparation, report).fill()
    except _TooMany:
        return None


class _TooMany(Exception):
    """There are more hits than the memory budget has room for."""


class _Run:
    """An integration, step by step."""

    def __init__(self, samples: Samples, preparation: Preparation, report: Callable[[int], None]) -> None:
        self.preparation, self.report, self.used = preparation, report, preparation.used
        _, _, self.width, self.height = samples.region
        planes = _planes(samples, preparation)
        left = samples.left_for_samples - planes - samples.in_memory
        #: Bytes that hits may take.
        self.room = max(left // FOR_HITS, LEAST_ROOM)
        self.samples = samples.leaving(planes + self.room).marked(preparation.marks)
        self.first = Integrated(self.samples, preparation, report)
        self.settings, self.whole = self.first.settings, self.first.whole
        self.compared = settings_by_starlight(preparation, self.settings, samples.threads)
        #: Samples of the pixels of one channel that are data.
        self.number = np.empty(self.width * self.height, np.float32)

    def fill(self) -> tuple[FrameMasks, Integrated]:
        """Integrate, find the hits, and integrate again what they touch."""
        channels = range(len(self.settings))
        marks = HitMarks(self.used.size, (self.height, self.width))
        for channel in channels:
            self._mark(marks, channel, self._integrate(channel))
        marks.grow()
        self._check_room(marks.pixels.size * self.used.size * (len(channels) + COLUMN_BYTES))
        taken = [self._without(channel, marks) for channel in channels]
        paths = [self.preparation.frames[int(i)].path for i in self.used]
        masks = marks.masks(self.samples.region, taken, paths, self.used)
        return masks, self.first

    def _check_room(self, size: int) -> None:
        if size > self.room:
            raise _TooMany

    def _integrate(self, channel: int) -> Suspects:
        """Integrate all samples of a channel, and return the suspects, by place in the plane."""
        found: list[Suspects] = []
        threads, width = self.samples.threads, self.width
        own, compared = self.settings[channel], self.compared[channel]
        with (
            ThreadPoolExecutor(threads) as workers,
            closing(self.samples.of_channel(channel).read_ahead(self.used)) as bands,
        ):
            for _, start, stop, raw in bands:
                band = slice(start * width, stop * width)
                out, number = self.whole.part(channel).part(band), self.number[band]
                pieces = parts(raw.shape[1], threads)
                running = [
                    workers.submit(run_tiles_with_suspects, raw, own, compared, out, number, *piece)
                    for piece in pieces
                ]
                del raw
                with cancelled_on_error(running):
                    for (first, last), future in zip(pieces, running, strict=True):
                        counts, suspects = future.result()
                        self.first.counts[channel].add(counts)
                        found.append(suspects._replace(pixel=suspects.pixel + start * width))
                        self.report(last - first)
                del running, future
                self._check_room(SUSPECT_BYTES * sum(each.pixel.size for each in found))
        return Suspects.joined(found)

    def _mark(self, marks: HitMarks, channel: int, suspects: Suspects) -> None:
        """Mark those of the suspects of a channel that are hits."""
        own, whole = self.settings[channel], self.whole
        if whole.excess.size:
            factor = whole.excess[channel]
        else:
            shape = self.height, self.width
            number = self.number.reshape(shape)
            # Without contrast, levels and noise do not matter.
            ratios = Ratios(whole.ratio[channel].reshape(shape), number, number, number)
            factor = find_excess(ratios, own.relative_noise, threads=self.samples.threads).ravel()
        column = suspects.pixel.size, 1
        mean, weight = suspects.mean.reshape(column), suspects.weight.reshape(column)
        sigma, further = np.empty(column, np.float32), np.empty(column, np.float32)
        kept = KeptMean(mean, weight, sigma, further, np.zeros(column, bool))
        write_noise(kept, factor[suspects.pixel].reshape(column), own)
        kept = KeptMean(*(array[:, 0] for array in kept))
        z = residuals_of(suspects.value, suspects.verdict, kept, self.compared[channel], suspects.frame)
        rejected = (suspects.verdict == LOW) | (suspects.verdict == HIGH)
        above = (z > KEPT_HIT) | (rejected & (z > HIT))
        marks.add(suspects.frame, suspects.pixel, above, above | (rejected & (z < -HIT)))

    def _without(self, channel: int, marks: HitMarks) -> np.ndarray:
        """Integrate the marked pixels of a channel again without the samples that hits take.

        Returns the flags of these samples, uint8 (frames, marked pixels).
        """
        raw = self.first.columns(channel, marks.pixels)
        low, high = self.settings[channel].data_range
        data = (raw > low) & (raw < high)
        taken = np.where(data, marks.flags, np.uint8(0))
        # Some sample stays.
        taken[:, np.count_nonzero(taken, axis=0) >= data.sum(axis=0)] = 0
        changed = taken.any(axis=0)
        # An index would give arrays in another order, for which the kernel would be compiled again.
        raw, lost = (np.compress(changed, array, axis=1) for array in (raw, taken != 0))
        self.first.without(channel, marks.pixels[changed], lost, raw)
        return taken
