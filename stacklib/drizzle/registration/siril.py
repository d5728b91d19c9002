"""Read the registration of a Siril sequence (``.seq``): one homography for each frame."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stacklib.errors import FrameError
from stacklib.formats.source import regular_file_size, unreadable
from stacklib.formats.xisf_blocks import refuse
from stacklib.utils.labels import quoted

__all__ = ["SirilSequence", "read_sequence"]

#: Largest file and longest line: a frame takes some hundred bytes.
MAX_SIZE, LONGEST_LINE = 64 * 2**20, 10_000
#: First version of the file that holds homographies.
WITH_MATRIX = 4
SEQUENCE = re.compile(
    r"S\s+'([^']{1,1000})'\s+\d{1,9}\s+(\d{1,6})\s+\d{1,9}\s+(\d{1,2})\s+(-?\d{1,9})\s+(\d{1,3})\b.*",
    re.ASCII,
)
FRAME = re.compile(r"I\s+(\d{1,9})\s+([01])\b.*", re.ASCII)
REGISTRATION = re.compile(r"R([0-9*])\s+(.*)", re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class SirilSequence:
    """The registration of a Siril sequence.

    Attributes
    ----------
    name : str
        Begin of the names of the frames, such as ``pp_light_``.
    digits : int
        Number of digits in the names of the frames.
    reference : int
        Number of the reference frame in its name.
    matrices : dict of int to ndarray
        Homography of each registered frame by the number in its name: from the frame to the reference, in
        the coordinates of Siril (y up, centers of pixels at whole numbers). float64 (3, 3).
    selected : frozenset of int
        Numbers of the frames that are selected.
    notes : tuple of str
        What the file holds that is not used.
    """

    name: str
    digits: int
    reference: int
    matrices: dict[int, np.ndarray]
    selected: frozenset[int]
    notes: tuple[str, ...] = ()

    def frame_name(self, number: int) -> str:
        """Return the name of a frame without its ending."""
        return f"{self.name}{number:0{self.digits}d}"

    def corner_matrix(self, number: int, height: int, reference_height: int) -> np.ndarray:
        """Return the homography from the reference to a frame, with y down the rows as they are stored.

        Parameters
        ----------
        number : int
            Number of the frame.
        height, reference_height : int
            Height of the frame and of the reference in pixels.

        Returns
        -------
        ndarray of float64, shape (3, 3)
            As in `stacklib.drizzle.geometry`.
        """
        from_reference = np.linalg.inv(self.matrices[number])
        return _to_corner(height) @ from_reference @ np.linalg.inv(_to_corner(reference_height))


def _to_corner(height: int) -> np.ndarray:
    """Return the matrix from the coordinates of Siril to those with the origin at the corner.

    Siril counts y against the order in which rows are stored.
    """
    return np.array([[1.0, 0.0, 0.5], [0.0, -1.0, height - 0.5], [0.0, 0.0, 1.0]])


def read_sequence(path: str | Path) -> SirilSequence:
    """Read a ``.seq`` file.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    SirilSequence

    Raises
    ------
    FrameError
        If it cannot be read, or its frames are not registered.
    """
    path = Path(path)
    size = regular_file_size(path)
    if size > MAX_SIZE:
        raise refuse(path, "size of the file", size, f"at most {MAX_SIZE} bytes", "leave it out")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise unreadable(path, error) from error
    head = next((found for line in lines if (found := SEQUENCE.fullmatch(line[:LONGEST_LINE]))), None)
    if head is None:
        raise FrameError(f"{path}: has no line S with the name of a sequence; name a .seq file of Siril")
    name, count, digits, place, version = head[1], *(int(head[number]) for number in range(2, 6))
    if version < WITH_MATRIX:
        raise FrameError(
            f"{path}: is a sequence file of version {version}, which has no homographies; register the "
            "frames with Siril 1.2 or later"
        )
    frames = [found for line in lines if (found := FRAME.fullmatch(line[:LONGEST_LINE]))]
    if len(frames) != count:
        raise refuse(path, "number of frames", len(frames), f"{count}, as its line S says")
    numbers = [int(found[1]) for found in frames]
    layers: dict[str, list[str]] = {}
    for line in lines:
        if found := REGISTRATION.fullmatch(line[:LONGEST_LINE]):
            layers.setdefault(found[1], []).append(found[2])
    registered = [_matrices(path, numbers, texts) for texts in layers.values() if len(texts) == count]
    # Color images are registered by their green layer, and all have one geometry.
    matrices: dict[int, np.ndarray] = max(registered, key=len, default={})
    if not matrices:
        raise FrameError(f"{path}: holds no registration; register the sequence with Siril first")
    bent = any(re.match(r"D[0-9*]?\s", line) for line in lines)
    return SirilSequence(
        name=name,
        digits=digits,
        reference=numbers[place] if 0 <= place < count else numbers[0],
        matrices=matrices,
        selected=frozenset(int(found[1]) for found in frames if found[2] == "1"),
        notes=("has a distortion beside its homographies, which is not applied",) if bent else (),
    )


def _matrices(path: Path, numbers: list[int], texts: list[str]) -> dict[int, np.ndarray]:
    """Return the homographies by the number of the frame. All zeros say that it is not registered."""
    found = {}
    for number, text in zip(numbers, texts, strict=True):
        words = text.partition("H")[2].split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[:9] if "_" not in word]
        except ValueError:
            values = []
        if len(values) != 9 or not all(map(math.isfinite, values)):
            raise FrameError(
                f"{path}: the homography of frame {number} is {quoted(' '.join(words))}, expected nine "
                "numbers; register the sequence again"
            )
        matrix = np.array(values).reshape(3, 3)
        if not matrix.any():
            continue
        if not abs(np.linalg.det(matrix)) > 1e-12 * np.abs(matrix).max() ** 3:
            raise FrameError(
                f"{path}: the homography of frame {number} has no inverse; register the sequence again"
            )
        found[number] = matrix
    return found
