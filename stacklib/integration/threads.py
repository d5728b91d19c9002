"""The work of a run in the threads of this process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from stacklib.integration.noise import Parts
from stacklib.integration.samples import Samples, cancelled_on_error, parts, wait
from stacklib.integration.search import VERDICT_BYTES, Found, JudgedBand, Search, search_frame
from stacklib.kernel.passes import fill_planes
from stacklib.kernel.pixels import Judgement, Pixels, Ratios
from stacklib.kernel.verdicts import judge_tiles
from stacklib.normalization.settings import Settings
from stacklib.spatial.residuals import KeptMean

__all__ = ["Threads", "in_threads"]


def in_threads(
    samples: Samples, used: np.ndarray, settings: list[Settings], planes: Sequence[Pixels | Ratios]
) -> Parts:
    """Integrate band by band, reading the next band meanwhile; see `stacklib.integration.noise.Work`."""
    width, threads = samples.region[2], samples.threads
    with ThreadPoolExecutor(threads) as workers, closing(samples.read_ahead(used)) as bands:
        for channel, start, stop, raw in bands:
            part = planes[channel].part(slice(start * width, stop * width))
            pieces = parts(raw.shape[1], threads)
            running = [workers.submit(fill_planes, raw, settings[channel], part, *piece) for piece in pieces]
            with cancelled_on_error(running):
                for (first, last), future in zip(pieces, running, strict=True):
                    yield channel, last - first, future.result()
            del raw


class Threads:
    """What the two passes over the samples and the search for masks need, see `second_pass.Workers`."""

    integrate = staticmethod(in_threads)

    @staticmethod
    def judge(
        samples: Samples, used: np.ndarray, settings: list[Settings], excess: np.ndarray
    ) -> Generator[JudgedBand, None, None]:
        """Judge the samples band by band."""
        width, threads = samples.region[2], samples.threads
        rows = samples.rows(used, VERDICT_BYTES)
        with ThreadPoolExecutor(threads) as workers, closing(samples.read_ahead(used, rows)) as bands:
            for channel, start, stop, raw in bands:
                own = excess[channel, start * width : stop * width]
                judged = Judgement.empty(raw.shape[1], used.size, own)
                wait(
                    [
                        workers.submit(judge_tiles, raw, settings[channel], judged, *piece)
                        for piece in parts(raw.shape[1], threads)
                    ]
                )
                del raw
                yield JudgedBand.packed((channel, start, stop), judged)

    @staticmethod
    def search(
        search: Search, kept: KeptMean, verdicts: Sequence[Sequence], places: int
    ) -> Generator[tuple[int, Found], None, None]:
        """Search the frames, some at a time."""
        with ThreadPoolExecutor(min(places, search.samples.threads)) as workers:
            running = [
                workers.submit(search_frame, search, kept, number, planes)
                for number, planes in enumerate(verdicts)
            ]
            with cancelled_on_error(running):
                for number, future in enumerate(running):
                    yield number, future.result()
