"""Finders of lines in single frames, by name: each returns a mask and the number of lines.

acstools (https://acstools.readthedocs.io) is not needed by stacklib; without it only stacklib's finder runs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits

from stacklib.spatial.lines import find_lines, line_mask

__all__ = ["FINDERS"]

#: Bins in which findsat_mrt searches, in pixels: full resolution takes a minute for a frame of 800 x 600.
BIN = 2


def _stacklib(frame: np.ndarray) -> tuple[np.ndarray, int]:
    lines = find_lines(frame, np.zeros(frame.shape, bool))
    mask = np.zeros(frame.shape, bool)
    for line in lines:
        mask |= line_mask(line, frame.shape)
    return mask, len(lines)


def _findsat_mrt(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """Search with the median Radon transform (Stark and others 2022, ISR ACS 2022-8), defaults otherwise."""
    height, width = (size // BIN for size in frame.shape)
    binned = frame[: height * BIN, : width * BIN].reshape(height, BIN, width, BIN).sum(axis=(1, 3))
    with _quiet():
        from acstools.findsat_mrt import TrailFinder

        finder = TrailFinder(binned.astype(np.float64), processes=1)
        finder.run_mrt()
        finder.find_mrt_sources()
        finder.filter_sources()
        finder.make_mask()
    mask = np.zeros(frame.shape, bool)
    if finder.mask is not None:
        mask[: height * BIN, : width * BIN] = np.kron(finder.mask, np.ones((BIN, BIN))) > 0
    sources = finder.source_list
    return mask, 0 if sources is None else int(np.sum(sources["status"] == 2))


def _satdet(frame: np.ndarray) -> tuple[np.ndarray, int]:
    """Search with edges and a Hough transform (Borncamp and Lim 2016, ISR ACS 2016-1), by its defaults."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        from acstools.satdet import detsat, make_mask

        path = str(Path(folder) / "frame.fits")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(frame, name="SCI")]).writeto(path)
        results, _ = detsat(path, chips=[1], n_processes=1, verbose=False)
        trails = next(iter(results.values()), [])
        mask = np.zeros(frame.shape, bool)
        for trail in trails:
            with contextlib.suppress(ValueError, IndexError):
                mask |= make_mask(path, 1, trail, verbose=False)
    return mask, len(trails)


@contextlib.contextmanager
def _quiet():
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


#: Finders with the number of frames they are tried on.
FINDERS: dict[str, tuple[Callable[[np.ndarray], tuple[np.ndarray, int]], int]] = {
    "stacklib": (_stacklib, 20),
    "acstools findsat_mrt, 2 x 2 bins": (_findsat_mrt, 8),
    "acstools satdet": (_satdet, 20),
}
