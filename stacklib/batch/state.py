"""The records of a batch: for each target the inputs and the results of its last run.

One JSON file in each folder of results holds ``{"version": 1, "runs": {key: record}}``, so that targets can
be moved, and found from any folder above them. A record says ``done`` only when all files have their names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from astropy.table import Table

from stacklib.batch.targets import Target
from stacklib.batch.work_folder import locked, work_folder
from stacklib.errors import RecipeError
from stacklib.frames.finding import resolve_path
from stacklib.frames.frame_masks import mask_files
from stacklib.recipe.recipe import Job, Recipe
from stacklib.utils.atomic_files import replace_atomically
from stacklib.utils.checksums import checksum_if_readable
from stacklib.utils.package import VERSION
from stacklib.utils.progress import PROGRESS_NAME
from stacklib.utils.texts import one_line

__all__ = [
    "STATE_NAME",
    "Record",
    "former_records",
    "inputs_of",
    "left_behind",
    "only_run_of",
    "percent_of",
    "read_record",
    "with_checksums",
    "write_record",
]

#: The state file, one in each folder of results.
STATE_NAME = ".stacklib_batch.json"
STATE_VERSION = 1
#: Seconds to wait for the lock of a state file, which is never held for long.
PATIENCE = 20.0
#: Largest state file, in bytes: that of thousands of runs with hundreds of frames each.
LARGEST_STATE = 200 * 10**6
#: Numbers in it are smaller: they fit into the columns of the summary.
LARGEST_NUMBER = 2**53
#: Types of the numbers of a run that the summary shows, see `report.numbers`.
NUMBERS = {
    **dict.fromkeys(("frames", "used", "width", "height", "channels", "trails"), int),
    **dict.fromkeys(("rejected_low", "rejected_high", "masked", "expected_noise_ratio"), float),
    **dict.fromkeys(("noise", "noise_ratio", "left_out", "unusual"), list),
    "rule": str,
    "recipe": dict,
}

#: Settings of a run besides the recipe.
OF_THE_RUN = ("save_maps", "save_fits", "save_masks", "drizzle_data")


@dataclass
class Record:
    """The last run of a target.

    The settings hold the recipe (with the checksums of a table of weights and of masks) and what else was to
    be saved, the frames by name size, mtime_ns and, after the run, SHA-256.
    """

    status: str  # running, done or failed
    stacklib: str = ""  # version that ran
    settings: dict[str, Any] = field(default_factory=dict)
    frames: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)  # names of all files of the result, the master first
    notebook: str = ""  # name of the executed notebook
    page: str = ""  # name of its HTML page
    preview: str = ""  # name of the picture of the master beside one frame
    thumbnail: str = ""  # name of the thumbnail
    error: str = ""  # why the run failed
    numbers: dict[str, Any] = field(default_factory=dict)  # see `report.numbers`
    notes: list[str] = field(default_factory=list)  # warnings of the run
    advice: str = ""  # why these limits were proposed; empty if they were not
    seconds: float = 0.0  # duration of the run


def inputs_of(target: Target, job: Job, advised: bool = False) -> Record:
    """Return a record of the inputs of a run. With `advised`, its limits are still to be proposed."""
    settings = job.recipe.to_dict() | {name: getattr(job, name) for name in OF_THE_RUN}
    if advised:
        settings["limits"] = "advised"
    if job.recipe.weights == "csv":
        # The content of the table counts, not its path.
        settings["weight_file"] = checksum_if_readable(resolve_path(job.recipe.weight_file))
    if job.recipe.masks:
        settings["masks"] = _checksums_of_masks(job.recipe.masks)
    return Record("running", VERSION, settings, {p.name: _stamp(p) for p in target.frames})


def _checksums_of_masks(where: str | list[str]) -> dict[str, str]:
    try:
        return {file.name: checksum_if_readable(file) for file in mask_files(where)}
    except RecipeError:
        # The run will say so.
        return {}


def _stamp(path: Path) -> dict[str, Any]:
    try:
        found = path.stat()
    except OSError:
        return {"size": -1, "mtime_ns": 0}
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def with_checksums(record: Record, table: Path) -> None:
    """Add the checksums that the run wrote into its table of frames."""
    try:
        found = Table.read(table, format="ascii.ecsv")
        known = dict(zip(map(str, found["file"]), map(str, found["sha256"]), strict=True))
    except (OSError, ValueError, KeyError):
        known = {}
    for name, stamp in record.frames.items():
        stamp["sha256"] = known.get(one_line(name), "")


def read_record(target: Target) -> Record | None:
    """Return the last run of a target; None if there was none, or its record cannot be read.

    Anybody may have written the file: a record whose values are not what they should be is none, and names in
    it are plain names of files beside it.
    """
    known = _load(target.output).get(_key(target))
    if not isinstance(known, dict):
        return None
    named = {field.name: known[field.name] for field in dataclasses.fields(Record) if field.name in known}
    record = Record(**{"status": "", **named})
    usual = vars(Record(""))
    right = all(type(value) is type(usual[name]) for name, value in vars(record).items() if name != "seconds")
    if not right or not _is_number(record.seconds) or not all(map(_is_plain_name, names_of(record))):
        return None
    stamps, notes = record.frames.values(), record.notes
    if not all(isinstance(one, dict) for one in stamps) or not all(isinstance(one, str) for one in notes):
        return None
    record.numbers = _checked_numbers(record.numbers)
    return record


def names_of(record: Record) -> list[str]:
    """Return the names of all files of a run."""
    found = [*record.files, record.notebook, record.page, record.preview, record.thumbnail]
    return [name for name in found if name != ""]


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in (".", "..") and not set(name) & set("/\\:\0")


def _checked_numbers(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a run; none if the summary cannot show them."""
    numbers = {"left_out": [], "unusual": [], "masked": 0.0, "trails": 0} | numbers
    right = all(
        isinstance(numbers.get(name), kind) and (kind not in (int, float) or _is_number(numbers[name]))
        for name, kind in NUMBERS.items()
    )
    if not right or numbers["expected_noise_ratio"] <= 0:
        return {}
    per_channel = [value for name in ("noise", "noise_ratio") for value in numbers[name]]
    if not all(value is None or _is_number(value) for value in per_channel):
        return {}
    if not all(isinstance(text, str) for text in (*numbers["left_out"], *numbers["unusual"])):
        return {}
    try:
        return numbers | {"recipe": Recipe.from_dict(numbers["recipe"]).to_dict()}
    except RecipeError:
        # Of another version.
        return {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def former_records(target: Target) -> Iterator[tuple[Target, Record]]:
    """Yield runs of frames in the same folder under other labels, each with the target as it was then.

    The label changes, and with it the folder for results, when frames of another filter are added.
    """
    home = target.output.parent if target.label else target.output
    for output in (home, *sorted(state.parent for state in home.glob(f"*/{STATE_NAME}"))):
        where = _where(target.folder, output)
        for key in _load(output):
            then = replace(target, label=key.removeprefix(where).strip(), output=output)
            record = read_record(then)
            if record is not None and then != target:
                yield then, record


def write_record(target: Target, record: Record) -> None:
    """Remember a run, in one step; raise `SaveError` if the file cannot be written."""
    path = target.output / STATE_NAME
    # Targets may share the folder.
    with locked(path.with_name(f"{STATE_NAME}.lock"), f"{STATE_NAME} is in use", PATIENCE):
        runs = _load(target.output) | {_key(target): dataclasses.asdict(record)}
        text = json.dumps({"version": STATE_VERSION, "runs": runs}, indent=1)
        replace_atomically(path, text.encode("utf-8"), alone=True)


@contextlib.contextmanager
def only_run_of(target: Target) -> Iterator[Path]:
    """Keep other batches from running the same target, and yield a work folder for this run.

    At the end only the files that the record names are kept, see `work_folder`. `SaveError` is raised if
    another batch runs the target already.
    """

    def kept() -> set[str]:
        record = read_record(target)
        return set() if record is None else set(names_of(record))

    with work_folder(target.output, _work_name(target), "another batch runs this target", kept) as room:
        yield room


def percent_of(target: Target) -> int:
    """Return the percentage that the current run of a target has done; 0 if it is unknown."""
    for path in target.output.glob(f"{_work_name(target)}_*/{PROGRESS_NAME}"):
        with contextlib.suppress(OSError, ValueError):
            return min(max(int(path.read_text(encoding="utf-8")), 0), 100)
    return 0


def left_behind(target: Target) -> bool:
    """Return whether a run of this target is at work, or was killed and left its work folder or a lock."""
    names = (f"{_work_name(target)}*", f"{STATE_NAME}.lock")
    return any(any(target.output.glob(name)) for name in names)


def _work_name(target: Target) -> str:
    return f".stacklib_batch_{hashlib.sha256(_key(target).encode()).hexdigest()[:8]}"


def _load(folder: Path) -> dict[str, Any]:
    path = folder / STATE_NAME
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_STATE:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["runs"]) if content["version"] == STATE_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _key(target: Target) -> str:
    """Return the target as seen from its results, so that both can be moved together."""
    return f"{_where(target.folder, target.output)} {target.label}".strip()


def _where(folder: Path, output: Path) -> str:
    try:
        return Path(os.path.relpath(folder, output)).as_posix()
    except ValueError:
        # Another drive on Windows.
        return folder.as_posix()
