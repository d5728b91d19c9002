"""What registered frames tell about the unregistered ones: rejected samples, and how they are matched.

Rejected samples are kept on disk with one bit for each. Processes that deposit frames look them up at the
place of each pixel in the reference. Where there are no registered frames, they are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from stacklib.drizzle.geometry import Geometry
from stacklib.errors import FrameError
from stacklib.formats.xdrz import DrizzleData
from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import FrameSet
from stacklib.frames.mosaic import Sites, debayered
from stacklib.integration.noise import judged_rows
from stacklib.integration.result import Integration
from stacklib.kernel.verdicts import HIGH, LOW
from stacklib.normalization.surfaces import Surfaces, basis
from stacklib.simulate.registration import warped

__all__ = ["MaskFile", "SurfaceCorrection", "masks_of_data", "masks_of_result", "register_frames"]

#: Keywords that a registered frame keeps: what weights and names go by.
KEPT = ("OBJECT", "INSTRUME", "FILTER", "EXPTIME", "EXPOSURE", "GAIN", "DATE-OBS", "DATE-END", "SSWEIGHT")
#: Pixels between the places where a surface is computed; between them it is linear. It bends by much less.
STEP = 6


@dataclass(frozen=True)
class MaskFile:
    """Rejected samples of one frame in a file: one bit each, rows filled up to whole bytes.

    Attributes
    ----------
    path : Path
        The file.
    channels, height, width : int
        Size of the registered frame.
    """

    path: Path
    channels: int
    height: int
    width: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return -(-self.width // 8)

    def rejected(self, channel: int, start: int, stop: int) -> np.ndarray:
        """Return rows ``start`` to ``stop - 1``, as far as there are, bool (rows, width)."""
        stop = min(stop, self.height)
        # A gray registration of a color mosaic rejects all colors alike.
        channel = min(channel, self.channels - 1)
        if stop <= start:
            return np.zeros((0, self.width), bool)
        bits = np.fromfile(
            self.path,
            np.uint8,
            (stop - start) * self.row_bytes,
            offset=(channel * self.height + start) * self.row_bytes,
        )
        return np.unpackbits(bits.reshape(stop - start, -1), axis=1, count=self.width).astype(bool)

    def write(self, channel: int, start: int, rows: np.ndarray) -> None:
        """Write rows of a channel, bool (rows, width)."""
        mode = "r+b" if self.path.exists() else "w+b"
        with self.path.open(mode) as stream:
            stream.seek((channel * self.height + start) * self.row_bytes)
            stream.write(np.packbits(rows, axis=1).tobytes())


def masks_of_result(
    result: Integration, folder: Path, report: Callable[[int], object] = lambda pixels: None
) -> dict[int, MaskFile]:
    """Find the samples that an integration rejected, by its rule and by what looks at neighbors.

    Parameters
    ----------
    result : Integration
        The result of whole frames. They are read again.
    folder : Path
        Takes the files.
    report : callable, optional
        Called with the number of pixels that were judged.

    Returns
    -------
    dict
        The masks of the frames that were used, by their number.
    """
    p, masks = result.preparation, result.masks
    found = {int(i): MaskFile(folder / f"rejected_{i}", *p.frames.shape) for i in p.used}
    for channel, start, _, judged in judged_rows(p, masks):
        for i, verdict in zip(p.used, judged, strict=True):
            lost = (verdict == LOW) | (verdict == HIGH)
            if masks:
                lost |= masks.flags(int(i), channel, start, start + len(verdict)) != 0
            found[int(i)].write(channel, start, lost)
        report(judged[0].size)
    return found


def masks_of_data(data: DrizzleData, path: Path) -> MaskFile | None:
    """Return the rejection map of drizzle data as a file; None if there is none.

    Parameters
    ----------
    data : DrizzleData
        Drizzle data of an integration by PixInsight.
    path : Path
        The new file.

    Returns
    -------
    MaskFile or None

    Raises
    ------
    FrameError
        If the map is damaged.
    """
    if not data.maps:
        return None
    found = MaskFile(path, len(data.maps), data.height, data.width)
    for channel in range(len(data.maps)):
        plane = data.rejection(channel)
        if plane is None:
            raise FrameError(f"{path}: channel {channel} has no rejection map; integrate the frames again")
        found.write(channel, 0, plane != 0)
    return found


def register_frames(
    frames: Sequence[Frame],
    geometries: Sequence[Geometry],
    sites: Sites,
    folder: Path,
    threads: int = 1,
    report: Callable[[int], object] = lambda frames: None,
) -> FrameSet:
    """Write registered frames: mosaics are debayered, all are resampled by bilinear interpolation.

    They serve to find outliers and to compare frames, not to be integrated: interpolation smooths them.

    Parameters
    ----------
    frames : sequence of Frame
        The unregistered frames.
    geometries : sequence of Geometry
        Their geometry.
    sites : Sites
        The colors of their pixels.
    folder : Path
        Takes the files, which have the names of the frames with ``_r`` at the end.
    threads : int
        Frames that are registered at once.
    report : callable, optional
        Called with 1 for each frame.

    Returns
    -------
    FrameSet
        The registered frames; NaN where there is no data.
    """

    def write(number: int) -> Path:
        frame, geometry = frames[number], geometries[number]
        planes = frame.read()
        frame.close()
        planes = debayered(planes[0], sites) if sites.pattern else planes
        shape = (geometry.height, geometry.width)
        moved = np.stack([warped(plane, geometry.matrix, shape) for plane in planes])
        header = fits.Header()
        for name in KEPT:
            value = frame.keywords.get(name)
            if isinstance(value, str | int | float) and len(str(value)) <= 60:
                header[name] = (
                    value if not isinstance(value, str) else value.encode("ascii", "replace").decode()
                )
        path = folder / f"{number:05d}_r.fits"
        fits.PrimaryHDU(moved[0] if len(moved) == 1 else moved, header).writeto(path)
        return path

    with ThreadPoolExecutor(threads) as pool:
        paths = []
        for path in pool.map(write, range(len(frames))):
            paths.append(path)
            report(1)
    return FrameSet([Frame(path, quiet=True) for path in paths])


@dataclass(frozen=True, eq=False)
class SurfaceCorrection:
    """The surfaces of one frame: a sample x becomes ``x * gain(p) + offset(p)`` at its place p.

    `offset` and `gain` have the coefficients of the surfaces of each channel, float64 (channels, n, n), and
    `gain` is None for 1. `height` and `width` are those of the reference.
    """

    offset: np.ndarray
    gain: np.ndarray | None
    height: int
    width: int

    @classmethod
    def of(cls, surfaces: Surfaces, i: int, channels: int) -> SurfaceCorrection:
        """Return the surfaces of frame `i` for so many channels of the result."""
        offset, gain = (
            None if values is None else values[i].mean(axis=(1, 2))
            for values in (surfaces.offset, surfaces.gain)
        )
        assert offset is not None
        shape = (channels, *offset.shape[1:])
        # Gray registered frames are for all colors.
        wide = [
            None if values is None else np.broadcast_to(values, shape).copy() for values in (offset, gain)
        ]
        assert wide[0] is not None
        return cls(wide[0], wide[1], surfaces.height, surfaces.width)

    def corrected(self, raw: np.ndarray, places: np.ndarray, channel: int) -> np.ndarray:
        """Return corrected samples, float32 (rows, columns).

        Parameters
        ----------
        raw : ndarray of float32, shape (rows, columns)
            Samples in the units of the frames.
        places : ndarray of float64, shape (rows, columns, 2)
            Their x and y in the reference, with the origin at the corner of the first pixel.
        channel : int
            Channel of the result.

        Returns
        -------
        ndarray of float32
        """
        rows, columns = (_nodes(size) for size in places.shape[:2])
        x, y = np.moveaxis(places[np.ix_(rows, columns)], 2, 0)
        down = basis(y.ravel() - 0.5, self.height)
        across = basis(x.ravel() - 0.5, self.width)
        spread = _linear(rows, places.shape[0]), _linear(columns, places.shape[1])

        def at_pixels(coefficients: np.ndarray) -> np.ndarray:
            found = np.einsum("na,ab,nb->n", down, coefficients, across).reshape(x.shape)
            return spread[0] @ found @ spread[1].T

        values = raw if self.gain is None else raw * at_pixels(self.gain[channel])
        return (values + at_pixels(self.offset[channel])).astype(np.float32)


def _nodes(size: int) -> np.ndarray:
    """Return pixels along an axis, the first and the last one included."""
    return np.unique([*range(0, size, STEP), size - 1])


def _linear(nodes: np.ndarray, size: int) -> np.ndarray:
    """Return the weights of the nodes in each pixel for linear interpolation, float64 (size, nodes)."""
    weights = np.zeros((size, nodes.size))
    for column in range(nodes.size):
        weights[:, column] = np.interp(np.arange(size), nodes, np.arange(nodes.size) == column)
    return weights
