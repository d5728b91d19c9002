"""What is known of a night so far: one entry for each integration, and what another hour would bring."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.frames.frame import Frame
from stacklib.integration.result import Integration
from stacklib.output.report import numbers
from stacklib.output.worth import frame_gains, gain_of_more
from stacklib.utils.atomic_files import replace_atomically

__all__ = ["Entry", "entry_of", "frames_per_hour", "percent", "read_entries", "save_entries"]

#: Frames whose distance in time tells how many come in an hour, and least number of them.
RECENT, FEWEST = 20, 3


@dataclass(frozen=True)
class Entry:
    """An integration during the night.

    `noise` is that of the master relative to one frame, the mean over the channels, None if it is not known,
    `possible` the noise of as many equal frames. `frames_per_hour` come in at the moment, and `hour` is by
    how much another hour of them would raise the signal-to-noise ratio, a fraction; None if the headers do
    not tell. `how` says how it was integrated.
    """

    time: str
    frames: int
    used: int
    exposure: float
    noise: float | None
    possible: float | None
    frames_per_hour: float | None
    hour: float | None
    seconds: float
    how: str = ""

    @property
    def hour_in_words(self) -> str:
        """What another hour brings, in words; empty if that is not known."""
        if self.hour is None or self.frames_per_hour is None:
            return ""
        count = self.frames_per_hour
        return (
            f"Another hour raises the signal-to-noise ratio by {percent(self.hour)} "
            f"(about {count:.{1 if count < 9.95 else 0}f} frames like the last ones)."
        )


def percent(fraction: float) -> str:
    """Return a fraction in percent, such as ``4.2 %`` or ``41 %``."""
    value = 100 * fraction
    return f"{value:.1f} %" if value < 9.95 else f"{value:.0f} %"


def frames_per_hour(frames: Sequence[Frame]) -> float:
    """Return how many frames come in an hour, NaN if their headers do not tell.

    It is the median of the distances of the latest ones, so that a meridian flip does not count. Frames
    without dates tell by their exposure.
    """
    starts = sorted(filter(None, (frame.date for frame in frames)))
    apart = np.array([(b - a).total_seconds() for a, b in pairwise(starts)][-RECENT:])
    exposures = [float(frame.exposure) for frame in frames if frame.exposure]
    exposure = float(np.median(exposures)) if exposures else math.nan
    if apart.size >= FEWEST and np.median(apart) > 0:
        # Frames cannot come faster than they are exposed.
        return 3600 / float(np.nanmax([np.median(apart), exposure]))
    return 3600 / exposure if exposure > 0 else math.nan


def entry_of(result: Integration, seconds: float, how: str, now: datetime) -> Entry:
    """Return the entry for a result that took so many seconds."""
    p, found = result.preparation, numbers(result)
    rate = frames_per_hour(p.used_frames)
    gains = frame_gains(p)
    hour = gain_of_more(gains[_latest(p.frames)], rate) if math.isfinite(rate) else math.nan
    noise = [value for value in found["noise_ratio"] if value is not None]
    return Entry(
        time=now.isoformat(timespec="seconds"),
        frames=found["frames"],
        used=found["used"],
        exposure=float(sum(frame.exposure or 0 for frame in p.used_frames)),
        noise=float(np.mean(noise)) if noise else None,
        possible=found["expected_noise_ratio"],
        frames_per_hour=rate if math.isfinite(rate) else None,
        hour=hour if math.isfinite(hour) else None,
        seconds=round(seconds, 3),
        how=how,
    )


def _latest(frames: Sequence[Frame]) -> list[int]:
    """Return the frames of the last hour, or all of them if these are few."""
    dates = [frame.date for frame in frames]
    known = [date for date in dates if date]
    if known:
        first = max(known) - timedelta(hours=1)
        latest = [i for i, date in enumerate(dates) if date and date >= first]
        if len(latest) >= FEWEST:
            return latest
    return list(range(len(frames)))


def save_entries(path: Path, folder: str, entries: Sequence[Entry]) -> None:
    """Write the entries for a folder of frames as JSON. Raises `SaveError`."""
    content = {"frames": folder, "entries": [asdict(entry) for entry in entries]}
    replace_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode("utf-8"))


def read_entries(path: Path, folder: str) -> list[Entry]:
    """Read the entries for a folder of frames; none if there are none, or for another folder."""
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return [Entry(**values) for values in content["entries"]] if content["frames"] == folder else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
