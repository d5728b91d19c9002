"""One image file: its header, and its pixels on demand."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.errors import FrameError, StacklibWarning
from stacklib.formats import xisf
from stacklib.formats.source import FileStamp, ImageSource, unreadable
from stacklib.frames.finding import ENDINGS
from stacklib.frames.headers import HeaderFacts
from stacklib.utils.checksums import file_checksum
from stacklib.utils.texts import one_line

__all__ = ["Frame"]


class Frame(HeaderFacts):
    """An image file. Opening it reads only the header; pixels are read on demand.

    Frames can be pickled. Only the path is stored, and the file is opened again when needed.

    Parameters
    ----------
    path : str or Path
        An XISF or FITS file.
    quiet : bool, optional
        Do not warn about problems in the header, see `notes`. Default is False.

    Attributes
    ----------
    path : Path
        The file.
    stamp : FileStamp
        Size, times and number of the file when it was opened.

    Raises
    ------
    FrameError
        If the file cannot be used.

    Warns
    -----
    StacklibWarning
        For each problem in the header that does not prevent reading.
    """

    def __init__(self, path: str | Path, quiet: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self.stamp = FileStamp.of(self.path)
        self._source: ImageSource | None = _open_source(self.path, self.stamp)
        for note in () if quiet else self.notes:
            warnings.warn(f"{self.path}: {note}", StacklibWarning, stacklevel=2)

    def __getstate__(self) -> dict[str, Any]:
        # The other process may have a different working directory.
        return {"path": self.path.absolute(), "stamp": self.stamp}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.stamp = state["path"], state["stamp"]
        self._lock, self._source = threading.Lock(), None

    def __repr__(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return (
            f"<Frame {one_line(self.name)}: {self.width} x {self.height}, {channels}, {self.sample_format}>"
        )

    @property
    def source(self) -> ImageSource:
        """The opened file. Raises `FrameError` if it has changed since the frame was opened."""
        if self._source is not None:
            return self._source
        with self._lock:
            if self._source is None:
                self.check_unchanged()
                self._source = _open_source(self.path, self.stamp)
            return self._source

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Number of channels."""
        return self.source.channels

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.source.height

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.source.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def sample_format(self) -> str:
        """Stored sample format: ``u8`` to ``u64``, ``i8`` to ``i64``, ``f32`` or ``f64``."""
        return self.source.sample_format

    @property
    def integer(self) -> bool:
        """Whether the samples are stored as integers."""
        return self.source.integer

    @property
    def full_scale(self) -> float:
        """Stored value that `read` maps to 1: ``2**bits - 1`` for integers in ADU, otherwise 1.0."""
        return self.source.full_scale

    @property
    def quantization_step(self) -> float:
        """Difference between neighboring values of an integer frame, or 0.0 for floats."""
        return self.source.quantization_step

    @property
    def row_order(self) -> str:
        """``top-down``, ``bottom-up``, or an empty string if the file does not specify it."""
        return self.source.row_order

    @property
    def keywords(self) -> dict[str, Any]:  # type: ignore[override]
        """FITS keywords (first occurrence) as Python values."""
        return self.source.keywords

    @property
    def properties(self) -> dict[str, Any]:  # type: ignore[override]
        """XISF properties as Python values."""
        return self.source.properties

    @property
    def notes(self) -> list[str]:
        """Problems found in the header that do not prevent reading."""
        return [*self.source.notes, *self.unusable]

    def read(self, rows: slice | None = None, channel: int | None = None) -> np.ndarray:
        """Read pixels.

        Parameters
        ----------
        rows : slice, optional
            Rows to read, such as ``slice(100, 164)``. Default is all rows.
        channel : int, optional
            Channel to read. Default is all channels.

        Returns
        -------
        ndarray of float32, shape (channels, rows, width), or (rows, width) with `channel`
            Integers and XISF floats scaled to 0 to 1, FITS floats as stored. NaN means no data.

        Raises
        ------
        FrameError
            If the file cannot be read or has changed since it was opened.
        IndexError
            If there is no such channel.
        ValueError
            If `rows` has a step.

        Examples
        --------
        >>> frame.read(rows=slice(100, 164), channel=0).shape  # doctest: +SKIP
        (64, 300)
        """
        source = self.source
        start, stop, step = (rows or slice(None)).indices(source.height)
        if step != 1:
            raise ValueError(f"rows is {rows}, expected a slice without a step")
        stop = max(start, stop)
        if channel is not None:
            return source.read_rows(start, stop, range(source.channels)[channel])
        out = np.empty((source.channels, stop - start, source.width), np.float32)
        for plane in range(source.channels):
            source.read_rows(start, stop, plane, out[plane])
        return out

    def read_rows(self, start: int, stop: int, channel: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read rows ``start`` to ``stop - 1`` of one channel.

        Parameters
        ----------
        start, stop, channel : int
            Rows and channel, counted from 0.
        out : ndarray of float32, shape (stop - start, width), optional
            Output array.

        Returns
        -------
        ndarray of float32, shape (stop - start, width)
            As from `read`.
        """
        return self.source.read_rows(start, stop, channel, out)

    def close(self) -> None:
        """Release scratch space. The frame can still be read afterwards."""
        if self._source is not None:
            self._source.close()

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was opened.

        Raises
        ------
        FrameError
            If it was replaced, changed or removed.
        """
        self.stamp.check(self.path)

    def checksum(self, algorithm: str = "sha256") -> str:
        """Compute the checksum of the file.

        Parameters
        ----------
        algorithm : str
            Name of the hash algorithm, such as ``sha256`` or ``md5``.

        Returns
        -------
        str
            Hexadecimal digits.
        """
        try:
            return file_checksum(self.path, algorithm)
        except OSError as error:
            raise unreadable(self.path, error) from error


def _open_source(path: Path, stamp: FileStamp) -> ImageSource:
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise FrameError(f"{path}: is not a supported image; supported endings are {', '.join(ENDINGS)}")
    if name.endswith(".xisf"):
        source = xisf.open_image(path)
    else:
        # Here, because astropy takes longer to import than all XISF files take to open.
        from stacklib.formats import fits

        source = fits.open_image(path)
    source.stamp = stamp
    source.check_unchanged()
    return source
