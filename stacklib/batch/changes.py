"""Find which targets of a batch must be run: compare what is there now with earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from stacklib.batch.state import Record, former_records, read_record
from stacklib.batch.summary import Row
from stacklib.batch.targets import Target
from stacklib.utils.checksums import checksum_if_readable
from stacklib.utils.labels import clipped, listed
from stacklib.utils.progress import progress_bar
from stacklib.utils.resources import checked_threads

__all__ = ["Checksums", "changes", "rows_of"]

#: Files read at the same time for their checksums.
READERS = 4
#: Seconds before the progress bar appears.
QUIET = 1.0
#: Longest reason, in characters.
LONGEST = 200


class Checksums:
    """SHA-256 of files. A file is read again only if its size or modification time has changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def of(self, path: Path, stamp: dict[str, Any]) -> str:
        """Return the checksum of a file with this size and time; empty if it cannot be read."""
        self.read([(path, stamp)], False)
        return self._known[_named(path, stamp)]

    def read(self, files: Iterable[tuple[Path, dict[str, Any]]], progress: bool = True) -> None:
        """Read the files that are not known yet, a few at a time, with a bar if it takes long."""
        wanted = dict.fromkeys(_named(path, stamp) for path, stamp in files)
        wanted = [key for key in wanted if key not in self._known]
        if not wanted:
            return
        title = f"{len(wanted)} frames compared"
        with (
            ThreadPoolExecutor(min(READERS, checked_threads(None))) as pool,
            progress_bar(len(wanted), title, "frame", progress, delay=QUIET) as bar,
        ):
            found = pool.map(checksum_if_readable, [path for path, *_ in wanted])
            for key, checksum in zip(wanted, found, strict=True):
                self._known[key] = checksum
                bar.update()


def _named(path: Path, stamp: dict[str, Any]) -> tuple[Path, int, int]:
    return path, stamp["size"], stamp["mtime_ns"]


def rows_of(found: Sequence[tuple[Target, Record]], checksums: Checksums, progress: bool = True) -> list[Row]:
    """Return a row for each target and the inputs of its run: done if an earlier run had the same inputs.

    That run may have had another label and another folder for its results. They stay there, and the row links
    to them. The records of rows that are done hold the present times of the frames.
    """
    runs = [_runs_of(target, now) for target, now in found]
    doubtful = (
        (path, now.frames[path.name])
        for (_, now), there in zip(found, runs, strict=True)
        for target, then in there
        if not _at_a_glance(target, now, then)
        for path in _touched(target, now, then)
    )
    checksums.read(doubtful, progress)
    return [_row(now, there, checksums) for (_, now), there in zip(found, runs, strict=True)]


def _runs_of(target: Target, now: Record) -> list[tuple[Target, Record | None]]:
    """Return the last run of a target and, if that does not suffice, those under other labels."""
    then = read_record(target)
    former = former_records(target) if _at_a_glance(target, now, then) else ()
    return [(target, then), *former]


def _row(now: Record, there: list[tuple[Target, Record | None]], checksums: Checksums) -> Row:
    target, then = there[0]
    if target.problem:  # Unusable settings count as a change.
        return Row(target, "waiting", target.problem, then)
    reasons = [changes(target, now, then, checksums) for target, then in there]
    if "" not in reasons:
        # A record may say anything.
        return Row(target, "waiting", clipped(reasons[0], LONGEST), then)
    target, then = there[reasons.index("")]
    frames = {name: known | now.frames[name] for name, known in then.frames.items()}
    return Row(target, "done", "unchanged", replace(then, frames=frames))


def changes(target: Target, now: Record, then: Record | None, checksums: Checksums | None = None) -> str:
    """Return why a target must be run, in a few words; empty if nothing has changed.

    A frame is unchanged if its size and modification time are as recorded. If only the time differs (a copy,
    another disk), the checksum decides. No frame is read if there is another reason.
    """
    reason = _at_a_glance(target, now, then)
    if reason:
        return reason
    checksums = checksums or Checksums()
    changed = [
        path.name
        for path in _touched(target, now, then)
        if (checksums.of(path, now.frames[path.name]) or "unreadable") != then.frames[path.name].get("sha256")
    ]
    return f"{listed(changed, most=2)} changed" if changed else ""


def _at_a_glance(target: Target, now: Record, then: Record | None) -> str:
    """Return the reason that is known without reading a frame; empty if there is none."""
    if then is None:
        return "new"
    if then.status != "done":
        return {"failed": "failed last time", "running": "was interrupted"}.get(then.status, "new")
    left = filter(None, [*then.files, then.notebook])
    missing = [name for name in left if not (target.output / name).is_file()]
    if missing:
        return f"{listed(missing, most=2)} missing"
    if then.stacklib != now.stacklib:
        return f"stacklib {then.stacklib} became {now.stacklib}"
    if then.settings != now.settings:
        names = [name for name, value in now.settings.items() if then.settings.get(name) != value]
        names += [name for name in then.settings if name not in now.settings]
        return f"{listed(names, most=2)} changed"
    old, new = then.frames, now.frames
    said = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and new[name]["size"] != old[name].get("size")],
    }
    return ", ".join(f"{listed(names, most=2)} {word}" for word, names in said.items() if names)


def _touched(target: Target, now: Record, then: Record) -> list[Path]:
    """Return the frames with another modification time, which may still be the same."""
    known = {name: stamp.get("mtime_ns") for name, stamp in then.frames.items()}
    return [path for path in target.frames if now.frames[path.name]["mtime_ns"] != known[path.name]]
