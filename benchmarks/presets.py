"""Time the presets, each with and without what looks at neighbors, by turns in one process.

``python benchmarks/run.py --only presets`` prints this part of the report alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import contenders
import report
from contenders import forget
from report import Target
from timing import Timings, spread

FIRST, KNOWN = "first time", "frames known"
#: How much dearer the second preset may be, what hits in color may take, found in the same pass, and what a
#: second pass may, of the time without.
DEARER, ONE_PASS, TWO_PASSES = 2.0, 1.5, 2.5


class Settings(NamedTuple):
    """A preset with changes, what it is compared with, and whether it is for color frames only."""

    preset: str
    changes: dict[str, Any]
    without: str = ""
    colour_only: bool = False


#: By what they are called.
SETTINGS = {
    "classic": Settings("classic", {}),
    "classic, joint_colour": Settings("classic", {"joint_colour": True}, "classic", True),
    "classic, footprints: trails": Settings("classic", {"footprints": "trails"}, "classic"),
    "classic, footprints: all": Settings("classic", {"footprints": "all"}, "classic"),
    "measured, no joint_colour": Settings("measured", {"joint_colour": False}, "", True),
    "measured": Settings("measured", {}, "measured, no joint_colour"),
    "measured, footprints: trails": Settings("measured", {"footprints": "trails"}, "measured"),
    "measured, footprints: all": Settings("measured", {"footprints": "all"}, "measured"),
}


@dataclass(frozen=True)
class Night:
    """A set of frames by its name and folder, and its shape (frames, height, width, channels)."""

    name: str
    folder: Path
    shape: tuple[int, int, int, int]

    @property
    def settings(self) -> dict[str, Settings]:
        """What is timed."""
        return {name: each for name, each in SETTINGS.items() if self.shape[3] > 1 or not each.colour_only}


def time_presets(nights: list[Night], repetitions: int, say: Callable[[str], None]) -> str:
    """Return the tables, the targets first."""
    tables, targets = [], []
    for night in nights:
        timings = Timings()
        for each in night.settings.values():
            # Compiles.
            contenders.integrate_preset(night.folder, each.preset, **each.changes)
        for repetition in range(repetitions):
            say(f"presets, {night.name}, repetition {repetition + 1} of {repetitions}")
            for name, each in night.settings.items():
                forget(night.folder)
                for when in (FIRST, KNOWN):
                    call = contenders.integrate_preset, night.folder, each.preset
                    timings.measure(when, name, *call, **each.changes)
        tables.append(_table(night, timings))
        targets += _targets(night, timings)
    rows = [[target.text, target.measured, target.verdict] for target in targets]
    return "\n\n".join([report.table(["Target, CPU seconds", "Measured", ""], rows), *tables])


def _table(night: Night, timings: Timings) -> str:
    count, height, width, channels = night.shape
    rows = []
    for name, each in night.settings.items():
        row = [name]
        for when in (FIRST, KNOWN):
            row += timings.cells(when, name)
            for other in ("classic", each.without if each.without in night.settings else ""):
                known = other and other != name
                row.append(spread(timings.cpu_ratios((when, name), (when, other)), " x") if known else "")
        rows.append(row)
    head = [f"{night.name}: {count} frames of {width} x {height}" + " x 3" * (channels == 3)]
    for when in (FIRST, KNOWN):
        head += [f"{when}, seconds", "CPU", "of classic", "of the same without"]
    return report.table(head, rows)


def _targets(night: Night, timings: Timings) -> list[Target]:
    targets = []
    for when in (FIRST, KNOWN):
        ratios = timings.cpu_ratios((when, "measured"), (when, "classic"))
        text = f"{night.name}: `preset: measured` takes at most {DEARER:g} x `preset: classic`, {when}"
        targets.append(Target(text, spread(ratios, " x"), statistics.median(ratios) <= DEARER))
    for name, each in night.settings.items():
        if each.without in night.settings:
            most = TWO_PASSES if "footprints" in each.changes else ONE_PASS
            for when in (FIRST, KNOWN):
                ratios = timings.cpu_ratios((when, name), (when, each.without))
                text = f"{night.name}: {name}: at most {most:g} x the time without, {when}"
                targets.append(Target(text, spread(ratios, " x"), statistics.median(ratios) <= most))
    return targets
