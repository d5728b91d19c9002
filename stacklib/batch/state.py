"""What a batch remembers of each target: what a run was made from, and what it left.

One JSON file in each folder of results holds ``{"version": 1, "runs": {key: record}}``, so that targets can
be moved, and reached from any folder above them. A record says ``done`` only when all files of the run have
their names; it is replaced whole or not at all.
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

from stacklib.batch.folder_lock import held, only_one
from stacklib.batch.targets import Target
from stacklib.errors import SaveError
from stacklib.frames.finding import resolve_path
from stacklib.recipe.recipe import Job
from stacklib.utils.atomic_files import clear_marked, replace_atomically
from stacklib.utils.package import VERSION

__all__ = [
    "STATE_NAME",
    "Record",
    "digest",
    "former_records",
    "inputs_of",
    "only_run_of",
    "read_record",
    "with_checksums",
    "write_record",
]

#: The state file, one in each folder of results.
STATE_NAME = ".stacklib_batch.json"
STATE_VERSION = 1
#: Marks the state file in the making.
STATE_MARK = "state"

#: What a run's result depends on, beside the recipe.
OF_THE_RUN = ("save_maps", "save_fits")


@dataclass
class Record:
    """The last run of a target.

    Attributes
    ----------
    status : str
        ``running``, ``done`` or ``failed``.
    stacklib : str
        Version that ran.
    settings : dict
        The recipe (for a table of weights its checksum), and what else was to be saved.
    frames : dict
        For each frame by name: size, mtime_ns, and SHA-256 once the run has told it.
    files : list of str
        Names of all files of the result in the folder, the master first.
    notebook, page, thumbnail : str
        Names of the executed notebook, of it as a page, and of the small picture.
    mark : str
        Until all is written: marks what it leaves, see `stacklib.utils.atomic_files.RUN_MARK`.
    error : str
        Why the run failed.
    numbers : dict
        The result in numbers, see `report.numbers`.
    notes : list of str
        What the user was warned of.
    advice : str
        Why these limits were proposed; empty where they were not.
    seconds : float
        How long it took.
    """

    status: str
    stacklib: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    frames: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    notebook: str = ""
    page: str = ""
    thumbnail: str = ""
    mark: str = ""
    error: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    advice: str = ""
    seconds: float = 0.0


def inputs_of(target: Target, job: Job, advised: bool = False) -> Record:
    """A record of what a run is made from, before it starts; `advised`: limits are still to be proposed."""
    settings = job.recipe.to_dict() | {name: getattr(job, name) for name in OF_THE_RUN}
    if advised:
        settings["limits"] = "advised"
    if job.recipe.weights == "csv":
        # What is in it counts, not where it lies.
        settings["weight_file"] = digest(resolve_path(job.recipe.weight_file))
    return Record("running", VERSION, settings, {p.name: _stamp(p) for p in target.frames})


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _stamp(path: Path) -> dict[str, Any]:
    try:
        found = path.stat()
    except OSError:
        return {"size": -1, "mtime_ns": 0}
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def with_checksums(record: Record, table: Path) -> None:
    """Take over the checksums that the run wrote into its table of frames."""
    try:
        found = Table.read(table, format="ascii.ecsv")
        known = dict(zip(map(str, found["file"]), map(str, found["sha256"]), strict=True))
    except (OSError, ValueError, KeyError):
        known = {}
    for name, stamp in record.frames.items():
        stamp["sha256"] = known.get(name, "")


def read_record(target: Target) -> Record | None:
    """The last run of a target; None where there was none, or its record cannot be read."""
    try:
        return Record(**_load(target.output)[_key(target)])
    except (KeyError, TypeError):
        return None


def former_records(target: Target) -> Iterator[tuple[Target, Record]]:
    """Runs of frames in the same folder under other labels, each with the target as it was then.

    The label, and with it the folder for results, is another one once frames of one more filter have come.
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
    """Remember a run, in one step.

    Raises
    ------
    SaveError
        When the file cannot be written.
    """
    path = target.output / STATE_NAME
    try:
        # Targets may share the folder.
        with held(path.with_name(f"{STATE_NAME}.lock")):
            # What a batch was writing when it was killed.
            clear_marked(target.output, STATE_MARK)
            runs = _load(target.output) | {_key(target): dataclasses.asdict(record)}
            text = json.dumps({"version": STATE_VERSION, "runs": runs}, indent=1)
            replace_atomically(path, text.encode("utf-8"), STATE_MARK)
    except OSError as error:
        raise SaveError(
            f"{path}: cannot be written ({error.strerror}); check the free space and the permissions there"
        ) from error


@contextlib.contextmanager
def only_run_of(target: Target) -> Iterator[None]:
    """Keep other batches, wherever they start from, from running the same target.

    Raises
    ------
    SaveError
        When it is running already.
    """
    name = hashlib.sha256(_key(target).encode()).hexdigest()[:8]
    with only_one(target.output, "another batch runs this target", f".stacklib_batch_{name}.lock"):
        yield


def _load(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        return dict(content["runs"]) if content["version"] == STATE_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _key(target: Target) -> str:
    """The target as seen from its results, so that both can move together."""
    return f"{_where(target.folder, target.output)} {target.label}".strip()


def _where(folder: Path, output: Path) -> str:
    try:
        return Path(os.path.relpath(folder, output)).as_posix()
    except ValueError:
        # Another drive of Windows.
        return folder.as_posix()
