"""Which of the trails found the user wants to keep: they are told by their place, not by a number.

With other limits other trails are found, in another order, and their ends move a little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stacklib.recipe.trail_names import TrailName
from stacklib.spatial.lines import Line, at_one_place
from stacklib.utils.labels import listed

__all__ = ["find_ignored", "switch_trail"]

#: A trail found is told if it is so many times longer or shorter than the one that was named.
OTHER_LENGTH = 1.5


def find_ignored(
    wanted: Sequence[TrailName], lines: Mapping[int, Sequence[Line]], names: Sequence[str]
) -> tuple[set[tuple[int, int]], list[str]]:
    """Find the trails that the user named.

    Parameters
    ----------
    wanted : sequence of TrailName
        Trails to ignore.
    lines : mapping of sequences of Line
        Trails found, by number of the frame.
    names : sequence of str
        Names of all frames.

    Returns
    -------
    ignored : set of tuple
        Frame and position, from 0, of the trails at these places.
    notes : list of str
        Trails that were not found, or have become much longer or shorter.
    """
    ignored, missing, changed = set(), [], []
    for name in wanted:
        i = names.index(name.frame) if name.frame in names else -1
        own = lines.get(i, ())
        there = {(i, k): line for k, line in enumerate(own) if at_one_place(line, _line_of(name, line))}
        ignored |= set(there)
        if not there:
            missing.append(str(name))
        elif not any(_as_long(line, _line_of(name, line)) for line in there.values()):
            found = [
                TrailName.at(name.frame, (line.x0, line.y0, line.x1, line.y1)) for line in there.values()
            ]
            changed.append(f"{name} is now {' and '.join(each.place for each in found)}")
    notes = []
    if missing:
        notes.append(f"no such trail was found: {listed(missing)}; see the trails in the report")
    if changed:
        notes.append(f"ends have changed: {listed(changed)}; check that it is the same trail")
    return ignored, [f"ignore_trails: {note}" for note in notes]


def switch_trail(names: Sequence[TrailName], frame: str, line: Line, used: bool) -> list[TrailName]:
    """Return the trails to ignore once one of them is used, or ignored as well.

    Parameters
    ----------
    names : sequence of TrailName
        Trails to ignore so far. All that mean this trail are left out.
    frame : str
        Name of its frame.
    line : Line
        The trail.
    used : bool
        False adds its name.

    Returns
    -------
    list of TrailName
    """
    others = [n for n in names if n.frame != frame or not at_one_place(line, _line_of(n, line))]
    return others if used else [*others, TrailName.at(frame, (line.x0, line.y0, line.x1, line.y1))]


def _line_of(name: TrailName, like: Line) -> Line:
    """Return the line that a name means, as wide as another one."""
    return replace(like, x0=name.x0, y0=name.y0, x1=name.x1, y1=name.y1)


def _as_long(line: Line, other: Line) -> bool:
    return 1 / OTHER_LENGTH <= line.length / max(other.length, 1) <= OTHER_LENGTH
