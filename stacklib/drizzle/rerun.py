"""Repeat a saved run, of an integration or of drizzling, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.drizzle.frames import Located, open_unregistered
from stacklib.drizzle.geometry import Geometry
from stacklib.drizzle.result import Drizzled
from stacklib.drizzle.run import deposited
from stacklib.errors import RecipeError
from stacklib.formats.xdrz import DrizzleData, read_xdrz
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.integration import rerun as integration_rerun
from stacklib.integration.rerun import Where, find_files, warn_of_versions, with_inputs
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Recipe
from stacklib.recipe.run_record import RunRecord, read_run
from stacklib.utils.labels import quoted
from stacklib.utils.parameters import named_errors

if TYPE_CHECKING:
    from dask.distributed import Client

__all__ = ["rerun"]


def rerun(
    result_file: str | Path,
    frames: Where | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
    client: Client | None = None,
) -> Integration | Drizzled:
    """Repeat the run of a saved image, an integrated or a drizzled one, with the recipe in the image.

    First the checksums of all files that the run read are checked. The result is the same bit for bit.

    Parameters
    ----------
    result_file : str or Path
        Any image of the result. A FITS image needs the XISF image of the same name beside it.
    frames : str, Path or list of these, optional
        Folders to search for the files, including subfolders. By default the files are expected where they
        were, as seen from the result or as a full path. They must have kept their names.
    memory, threads, progress, client : optional
        See `integrate` and `drizzle`. They do not change the result. Drizzling takes no client.

    Returns
    -------
    Integration or Drizzled

    Raises
    ------
    FrameError
        When files of the run are missing or have changed.
    RecipeError
        When the file contains no record of a run, or a drizzled image is to be repeated on a cluster.

    Warns
    -----
    StacklibWarning
        When versions differ; the result may differ too.

    Examples
    --------
    >>> rerun("5_Integration/20210815_M101_0000.xisf").save("again")  # doctest: +SKIP
    """
    record = read_run(result_file)
    if record.drizzle is None:
        return integration_rerun.rerun(result_file, frames, memory, threads, progress, client)
    if client is not None:
        raise RecipeError(f"{record.path}: is drizzled, which runs on one computer; leave client out")
    try:
        plan = _Plan(record)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RecipeError(
            f"{record.path}: its record of the run is damaged ({type(error).__name__}: "
            f"{quoted(str(error))}); use another image of the same result"
        ) from error
    found = find_files(record, frames, progress)
    warn_of_versions(record)
    return plan.run(found, (memory, threads, progress))


class _Plan:
    """The run in a record, read and checked."""

    def __init__(self, record: RunRecord) -> None:
        run = record.drizzle
        assert run is not None
        self.record = record
        with named_errors(record.path):
            self.recipe = DrizzleRecipe.from_dict(run["recipe"], source=str(record.path))
            given = run["integration"]
            self.integration = None if given is None else Recipe.from_dict(given, source=str(record.path))
        self.counts = len(run["frames"]), len(run["registered"]), len(run["data"])
        width, height = record.region[2:]
        entries = list(enumerate(run["frames"]))
        self.geometries = {i: _geometry(each, width, height) for i, each in entries if each["matrix"]}
        self.left_out = {i: str(each["reason"]) for i, each in entries if not each["matrix"]}
        self.twins = {i: str(each["twin"]) for i, each in entries if each["twin"]}
        self.with_data = [i for i, each in entries if each["numbers"]]
        self.fwhm = float(run["fwhm"]) if run["fwhm"] is not None else np.nan

    def run(self, found: list[Path], how: tuple[str | int, int | None, bool]) -> Drizzled:
        """Drizzle again; `found` are the files of the run, in order."""
        own, integration = None, self.integration
        count, registered, _ = self.counts
        if integration is not None:
            integration = with_inputs(integration, self.record, found)
        unregistered, sites = open_unregistered(_all(found[:count]), self.recipe.pattern)
        if registered:
            memory, threads, progress = how
            own = integrate(
                _all(found[count : count + registered]),
                integration,
                memory=memory,
                threads=threads,
                progress=progress,
            )
        data = dict(zip(self.with_data, map(read_xdrz, found[count + registered :]), strict=False))
        for i, name in self.twins.items():
            geometry = self.geometries[i]
            data[i] = DrizzleData(
                source=found[i].name,
                target=name,
                width=geometry.width,
                height=geometry.height,
                matrix=geometry.matrix,
            )
        located = Located(geometries=self.geometries, left_out=self.left_out, data=data, fwhm=self.fwhm)
        return deposited(unregistered, sites, located, own, self.recipe, integration, how)


def _all(paths: list[Path]) -> FrameSet:
    return open_frames(paths, everything=True)


def _geometry(entry: dict[str, Any], width: int, height: int) -> Geometry:
    matrix = np.array(entry["matrix"], float).reshape(3, 3)
    return Geometry(
        matrix=matrix,
        width=width,
        height=height,
        origin=str(entry["geometry"]),
        stars=entry["stars"],
        rms=entry["rms"],
    )
