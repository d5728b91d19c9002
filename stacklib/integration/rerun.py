"""Repeat a saved run, bit for bit."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stacklib.errors import FrameError, RecipeError, StacklibWarning
from stacklib.frames.finding import expanded, resolve_path
from stacklib.frames.frame_set import Frame, open_frames
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.output.drizzle_data import IN_REPORT
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.run_record import InputFile, RunRecord, read_run
from stacklib.utils.checksums import checksum_if_readable
from stacklib.utils.labels import listed
from stacklib.utils.parameters import named_errors
from stacklib.utils.progress import progress_bar

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["also_saved", "find_files", "repeats", "rerun", "warn_of_versions", "with_inputs"]

#: Files read at the same time for their checksums.
READERS = 4
#: Largest number of missing, or changed, files named in an error.
NAMED = 10

Where = str | Path | Iterable[str | Path]


def rerun(
    result_file: str | Path,
    frames: Where | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
    client: Client | None = None,
) -> Integration:
    """Integrate the frames of a saved image again, with the recipe in the image.

    First the checksums of all files that the run read are checked. The result is the same bit for bit.

    Parameters
    ----------
    result_file : str or Path
        Any image of the result. A FITS image needs the XISF image of the same name beside it.
    frames : str, Path or list of these, optional
        Folders to search for the files, including subfolders. By default the files are expected where they
        were, as seen from the result or as a full path. They must have kept their names.
    memory, threads, progress, client : optional
        See `integrate`. They do not change the result.

    Returns
    -------
    Integration

    Raises
    ------
    FrameError
        When files of the run are missing or have changed.
    RecipeError
        When the file contains no record of a run.

    Warns
    -----
    StacklibWarning
        When versions differ; the result may differ too.

    Examples
    --------
    >>> rerun("5_Integration/20210815_M101_0000.xisf").save("again")  # doctest: +SKIP
    """
    record = read_run(result_file)
    with named_errors(record.path):
        recipe = Recipe.from_dict(record.recipe, source=str(record.path))
    if record.drizzle is not None:
        raise RecipeError(f"{record.path}: is drizzled; repeat the run with stacklib.rerun")
    found = find_files(record, frames, progress)
    warn_of_versions(record)
    recipe = with_inputs(recipe, record, found)
    return integrate(
        open_frames(found, everything=True), recipe, record.region, memory, threads, progress, client
    )


def repeats(result_file: str | Path, files: Iterable[Path]) -> bool:
    """Return whether one of the new files has the same image as an older result, bit for bit.

    For a FITS image, the XISF image beside it is compared.
    """
    old = read_run(result_file).path
    kind = _kind(old)
    return any(
        np.array_equal(Frame(old, quiet=True).read(), Frame(new, quiet=True).read())
        for new in files
        if _kind(new) == kind
    )


def also_saved(result_file: str | Path) -> dict[str, bool]:
    """Return what else was saved with an image, as arguments of `save`: maps, FITS, masks, drizzle data."""
    path = expanded(result_file).absolute()
    kind = _kind(path)
    stem = path.name.removesuffix(kind)
    if kind.startswith("_drizzle"):
        return {"fits": path.with_name(f"{stem}_drizzle.fits").exists()}
    ends = {"maps": "_coverage.xisf", "fits": ".fits", "masks": "_masks"}
    found = {name: path.with_name(stem + end).exists() for name, end in ends.items()}
    # Their folder is that of several results, so the report tells.
    report = path.with_name(f"{stem}_report.txt")
    said = report.read_text(encoding="utf-8", errors="replace") if report.is_file() else ""
    return {**found, "drizzle_data": f"({IN_REPORT} " in said}


def _kind(path: Path) -> str:
    """Return the part of a file name after the number: ``.xisf``, ``_rejection_low.xisf`` ..."""
    return re.sub(r"^.*_\d{4}(?=[_.])", "", path.name)


def find_files(record: RunRecord, where: Where | None, progress: bool) -> list[Path]:
    """Return the files of a run in order: frames, table of weights, masks."""
    inputs = [*record.frames, *filter(None, [record.weight_file]), *record.masks]
    places = [each.places for each in inputs] if where is None else _named_alike(inputs, where)
    with (
        ThreadPoolExecutor(READERS) as pool,
        progress_bar(len(inputs), f"{len(inputs)} files checked", "file", progress) as bar,
    ):
        checksums = pool.map(_checksums, places)
        found: list[Path] = []
        missing: list[str] = []
        changed: list[str] = []
        for wanted, known in zip(inputs, checksums, strict=True):
            # Copies of a frame in different folders are different frames.
            same = [path for path, sha256 in known.items() if sha256 == wanted.sha256 and path not in found]
            if same and wanted.sha256:
                found.append(same[0])
            else:
                (changed if known else missing).append(wanted.name)
            bar.update()
    if missing or changed:
        raise _cannot_be_repeated(record, where, len(inputs), missing, changed)
    return found


def _named_alike(inputs: Sequence[InputFile], where: Where) -> list[tuple[Path, ...]]:
    """Return the files of the same name in the given folders, for each file."""
    named: dict[str, list[Path]] = {each.name: [] for each in inputs}
    for path in _files([where] if isinstance(where, str | os.PathLike) else where):
        if path.name in named:
            named[path.name].append(path)
    return [tuple(named[each.name]) for each in inputs]


def _files(places: Iterable[str | Path]) -> Iterator[Path]:
    for place in map(resolve_path, places):
        if not place.exists():
            raise FrameError(f"frames: {place}: no such folder or file; give the folder with the frames")
        if not place.is_dir():
            yield place
        for folder, inner, names in os.walk(place):
            # The order should not depend on the disk.
            inner.sort()
            yield from (Path(folder, name) for name in sorted(names))


def _checksums(places: Sequence[Path]) -> dict[Path, str]:
    """Return the checksums of the files that exist, each file once."""
    paths = dict.fromkeys(Path(os.path.abspath(place)) for place in places)  # noqa: PTH100
    found = {path: checksum_if_readable(path) for path in paths}
    return {path: checksum for path, checksum in found.items() if checksum}


def _cannot_be_repeated(
    record: RunRecord, where: Where | None, count: int, missing: list[str], changed: list[str]
) -> FrameError:
    said = [
        f"{len(names)} of its {count} files {word}: {_some(names)}"
        for names, word in ((missing, "missing"), (changed, "changed"))
        if names
    ]
    remedy = "Give other folders"
    if where is None:
        remedy = "Give the folder where they are now, with frames=FOLDER (in a shell: --frames FOLDER)"
    if changed:
        remedy += ", or restore the files"
    return FrameError(
        f"{record.path}: cannot be repeated: {'; '.join(said)}. {remedy}. "
        "To integrate other frames in the same way: integrate(frames, Recipe.from_result(file))"
    )


def _some(names: list[str]) -> str:
    shown = [f"{name} ({n} times)" if n > 1 else name for name, n in Counter(names).items()]
    return listed(shown, most=NAMED)


def with_inputs(recipe: Recipe, record: RunRecord, found: list[Path]) -> Recipe:
    """Return the recipe with masks and table of weights where they are now, taken from the end of `found`."""
    if record.masks:
        # The folder may hold others by now.
        recipe = recipe.replace(masks=[str(found.pop()) for _ in record.masks][::-1])
    if record.weight_file is not None:
        recipe = recipe.replace(weight_file=str(found.pop()))
    return recipe


def warn_of_versions(record: RunRecord) -> None:
    """Warn if the run was made with other versions than those installed."""
    now = {name: version(name) for name in record.versions}
    other = [
        f"{name} {then} (now {now[name]})" for name, then in record.versions.items() if then != now[name]
    ]
    if other:
        warnings.warn(
            f"{record.path}: made with {', '.join(other)}; the result may differ",
            StacklibWarning,
            stacklevel=3,
        )
