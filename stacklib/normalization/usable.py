"""Find the frames and channels that hold an image: not black, white, NaN or one constant value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stacklib.errors import IntegrationError
from stacklib.measurement.measurements import FrameMeasurements
from stacklib.utils.labels import listed

__all__ = ["Usable", "find_usable"]

#: Fewest frames of an integration.
FEWEST = 2
#: From this fraction of constant frames on, a constant is taken for an image.
MOST = 0.5


@dataclass(frozen=True, kw_only=True)
class Usable:
    """Frames and channels that hold an image, by index, out of all frames and channels.

    `broken` has the reasons why the other frames do not, `shape` is that of tables of all frames and
    channels, `notes` are for the user.
    """

    frames: list[int]
    channels: list[int]
    broken: dict[int, str]
    shape: tuple[int, int]
    notes: list[str]

    def without(self, reasons: dict[int, str], names: Sequence[str]) -> Usable:
        """Leave out more frames, by index and with a reason.

        Raises IntegrationError if fewer than two are left.
        """
        if not reasons:
            return self
        frames = [i for i in self.frames if i not in reasons]
        left_out = listed([f"{names[i]} ({why})" for i, why in reasons.items()], most=10)
        if len(frames) < FEWEST:
            raise IntegrationError(
                f"only {len(frames)} of {self.shape[0]} frames can be used, and an integration needs "
                f"{FEWEST}; without use: {left_out}"
            )
        note = f"{len(reasons)} of {self.shape[0]} frames are left out: {left_out}"
        return replace(self, frames=frames, broken=self.broken | reasons, notes=[*self.notes, note])

    def part(self, table: np.ndarray) -> np.ndarray:
        """Return the part of a table of all frames and channels."""
        return table[np.ix_(self.frames, self.channels)]

    def spread_out(self, part: np.ndarray, rest: float, broken: float) -> np.ndarray:
        """Return a table of all: the part, `broken` in the broken frames, else `rest` in other channels."""
        table = np.full(self.shape, rest)
        table[np.ix_(self.frames, self.channels)] = part
        table[list(self.broken)] = broken
        return table


def find_usable(measured: FrameMeasurements) -> Usable:
    """Find the frames and channels that hold an image.

    A channel that holds none in any frame does not count; it is integrated as it is. A frame that holds none
    in another channel is broken. Where at least half of the frames are constant, a constant is taken for an
    image, except for one channel of several. Raises IntegrationError if fewer than two frames are left.
    """
    names, shape = measured.names, measured.count.shape
    blank = (measured.scale_low <= 0) & (measured.scale_high <= 0)
    # Where most frames are constant, such as flat test images, that is what they show.
    without = (measured.count == 0) | (blank & (blank.mean(axis=0) < MOST))
    if shape[1] > 1 and not blank.all():
        without |= blank & blank.all(axis=0)
    dark = without.all(axis=0)
    channels = np.flatnonzero(~dark).tolist()
    broken = {i: _why(measured, i, without[i] & ~dark) for i in np.flatnonzero(without[:, ~dark].any(axis=1))}
    broken = {int(i): why for i, why in broken.items()}
    left_out = listed([f"{names[i]} ({why})" for i, why in broken.items()], most=10)
    if not channels:
        what = dict.fromkeys(_why(measured, i, without[i]) for i in range(shape[0]))
        raise IntegrationError(
            f"{listed(names, most=10)}: no valid samples ({'; '.join(what)}); leave these frames out, or "
            "check range_low"
        )
    if shape[0] - len(broken) < FEWEST:
        raise IntegrationError(
            f"no valid samples in {len(broken)} of {shape[0]} frames, and an integration needs {FEWEST}: "
            f"{left_out}; leave these frames out, or check range_low"
        )
    notes = [_about_channel(measured, int(channel)) for channel in np.flatnonzero(dark)]
    if broken:
        notes.append(f"{len(broken)} of {shape[0]} frames hold no image and are left out: {left_out}")
    frames = [i for i in range(shape[0]) if i not in broken]
    return Usable(frames=frames, channels=channels, broken=broken, shape=shape, notes=notes)


def _about_channel(measured: FrameMeasurements, channel: int) -> str:
    """Name a channel without an image, and say what becomes of it."""
    what = dict.fromkeys(_what(measured, i, channel) for i in range(len(measured.names)))
    return (
        f"{_channel(channel, measured.count.shape[1])} holds no image in any frame ({'; '.join(what)}): it "
        "stays as it is, and the other channels are integrated as usual"
    )


def _channel(channel: int, channels: int) -> str:
    """Return the name of a channel, such as ``channel 3 (blue)``."""
    color = f" ({('red', 'green', 'blue')[channel]})" if channels == 3 else ""
    return f"channel {channel + 1}{color}"


def _why(measured: FrameMeasurements, i: int, without: np.ndarray) -> str:
    """Return why a frame holds no image in some of the channels."""
    channels = [int(channel) for channel in np.flatnonzero(without)]
    what = "; ".join(dict.fromkeys(_what(measured, i, channel) for channel in channels))
    if len(channels) == without.size:
        return what
    return f"{', '.join(_channel(channel, without.size) for channel in channels)}: {what}"


def _what(measured: FrameMeasurements, i: int, channel: int) -> str:
    """Describe a plane without an image."""
    least, most = float(measured.minimum[i, channel]), float(measured.maximum[i, channel])
    if math.isnan(most):
        return "all samples are NaN or infinite"
    if measured.count[i, channel] > 0:
        return f"all samples are {float(measured.location[i, channel]):g}"
    if least == most:
        return f"all samples are {most:g}"
    if measured.empty is not None and measured.empty[i, channel] < 1:
        return f"all samples are saturated or no data, the largest is {most:g}"
    return f"all samples are at or below range_low, the largest is {most:g}"
