"""Drizzle unregistered frames, with the normalization, weights and rejection of an integration."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np

from stacklib.drizzle.coverage import LEAST_FRAMES, Forecast, forecast
from stacklib.drizzle.deposit import Drop, Grid
from stacklib.drizzle.frames import Located, locate, open_unregistered, refuse_few
from stacklib.drizzle.geometry import Geometry
from stacklib.drizzle.known import Known, known_of
from stacklib.drizzle.processes.workers import deposit_all
from stacklib.drizzle.result import Drizzled
from stacklib.errors import IntegrationError, RecipeError, StacklibWarning
from stacklib.frames.frame import Frame
from stacklib.frames.frame_set import FrameSet, open_frames
from stacklib.frames.mosaic import Sites
from stacklib.integration.result import Integration
from stacklib.integration.run import integrate
from stacklib.measurement.stars import StarPlaces, star_places
from stacklib.output.integrated_image import bring_into_range
from stacklib.output.world_coordinates import WorldCoordinates, of_frame, world_coordinates
from stacklib.recipe.drizzle_recipe import DrizzleRecipe
from stacklib.recipe.recipe import Recipe
from stacklib.utils.labels import counted, listed
from stacklib.utils.progress import progress_bar

__all__ = ["deposited", "drizzle", "drizzle_forecast"]


def drizzle(
    frames: FrameSet | str | Path | list,
    registered: Integration | FrameSet | str | Path | list | None = None,
    recipe: DrizzleRecipe | None = None,
    *,
    geometry: str | Path | None = None,
    integration: Recipe | None = None,
    memory: str | int = "2GB",
    threads: int | None = None,
    progress: bool = True,
) -> Drizzled:
    """Deposit unregistered frames on a grid, each color of a mosaic by itself.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        At least 3 calibrated frames that are not registered: gray, color, or color mosaics.
    registered : Integration, FrameSet, str, Path or list, optional
        The registered frames, or the result of their integration, from which normalization, weights and
        rejected samples are taken. By default the frames are registered here for that, unless drizzle data of
        PixInsight know all this.
    recipe : DrizzleRecipe, optional
        Scale, drop, kernel, color filter pattern. Default is scale 1 and drop 0.9.
    geometry : str or Path, optional
        Where the geometry comes from: a folder with ``.xdrz`` files, a ``.seq`` file of Siril, or ``stars``.
        By default ``.xdrz`` files are looked for beside the registered frames and beside the frames, then a
        sequence; else stars are matched.
    integration : Recipe, optional
        Recipe of the integration of the registered frames. Default is `Recipe.suggest`.
    memory : str or int
        Memory budget, such as ``"4GB"``.
    threads : int, optional
        Number of processes. Default is one per CPU.
    progress : bool
        Show progress bars.

    Returns
    -------
    Drizzled
        The image, its weights, and what was predicted. No bit depends on `memory` and `threads`.

    Raises
    ------
    FrameError
        If a frame or its geometry cannot be used.
    RecipeError
        If a parameter is invalid.
    IntegrationError
        If fewer than 3 frames can be drizzled, or the registered frames do not fit.

    Warns
    -----
    StacklibWarning
        For frames that are left out, and for what the forecast warns of.

    See Also
    --------
    drizzle_forecast : What drizzling these frames will give, before the run.
    """
    recipe = DrizzleRecipe() if recipe is None else recipe
    frames, sites = _opened(frames, recipe)
    own = None
    if registered is not None:
        own = (
            registered
            if isinstance(registered, Integration)
            else integrate(
                _registered(registered), integration, memory=memory, threads=threads, progress=progress
            )
        )
        if own.region != (0, 0, own.preparation.frames.width, own.preparation.frames.height):
            raise RecipeError("registered: got a result of a region, expected one of whole frames")
    located = _located(frames, sites, recipe, geometry, own)
    return deposited(frames, sites, located, own, recipe, integration, (memory, threads, progress))


def deposited(
    frames: FrameSet,
    sites: Sites,
    located: Located,
    own: Integration | None,
    recipe: DrizzleRecipe,
    integration: Recipe | None,
    how: tuple[str | int, int | None, bool],
) -> Drizzled:
    """Drizzle frames whose geometry is known.

    Parameters
    ----------
    frames : FrameSet
        The unregistered frames.
    sites : Sites
        The colors of their pixels.
    located : Located
        Their geometry.
    own : Integration or None
        The integrated registered frames; None to register them here.
    recipe : DrizzleRecipe
        The parameters.
    integration : Recipe or None
        Recipe for the frames that are registered here.
    how : tuple
        Memory, processes, and whether progress is shown.

    Returns
    -------
    Drizzled
    """
    memory, threads, progress = how
    grid = _grid(located, recipe)
    with tempfile.TemporaryDirectory(prefix="stacklib-drizzle-") as scratch:
        known = known_of(frames, sites, located, own, integration, Path(scratch), how)
        used = sorted(known.numbers)
        left_out = dict(sorted({**located.left_out, **known.left_out}.items()))
        if len(used) < LEAST_FRAMES:
            raise IntegrationError(
                f"{frames.folder}: only {counted(len(used), 'frame')} of {len(frames)} can be drizzled, at "
                f"least {LEAST_FRAMES} are needed; {next(iter(left_out.values()), '')}"
            )
        geometries = [located.geometries[i] for i in used]
        expected = forecast(geometries, sites, grid, (frames.height, frames.width), located.fwhm)
        notes = _notes(frames, located, left_out, expected)
        for note in notes:
            warnings.warn(note, StacklibWarning, stacklevel=3)
        drops = [_drop(frames[i], located.geometries[i], known, i) for i in used]
        with progress_bar(len(used), f"{len(used)} frames drizzled", "frame", progress) as bar:
            image, weights = deposit_all(drops, sites, grid, memory, threads, bar.update)
    scaling = (1.0, 0.0, 0)
    if _in_unit_range(frames):
        how_to = known.integration.recipe.output_range if known.integration else "rescale"
        scaling = bring_into_range(image, weights > 0, how_to)
    frames.close()
    return Drizzled(
        image=image,
        weights=weights,
        frames=frames,
        used=np.array(used),
        left_out=left_out,
        geometries=located.geometries,
        numbers={i: known.numbers[i] for i in used},
        recipe=recipe,
        grid=grid,
        sites=sites,
        forecast=expected,
        rule=known.rule,
        integration_recipe=known.integration.recipe if known.integration else None,
        notes=tuple(notes),
        range_factor=scaling[0],
        range_offset=scaling[1],
        truncated=scaling[2],
        twins=known.twins,
        preparation=None if own is None else own.preparation,
        masks=None if own is None else own.masks,
        data={} if known.integration else {i: located.data[i] for i in used},
        world=_world(frames, located, own).scaled(
            recipe.scale, grid.shape[0], frames.row_order == "bottom-up"
        ),
    )


def _world(frames: FrameSet, located: Located, own: Integration | None) -> WorldCoordinates:
    """Return the world coordinates of the reference: of the registered frames, or of the frame that it is."""
    if own is not None:
        return world_coordinates(own)
    for i, geometry in located.geometries.items():
        size = (geometry.width, geometry.height) == (frames.width, frames.height)
        if size and np.allclose(geometry.matrix, np.eye(3), atol=1e-9):
            return of_frame(frames[i], frames.row_order == "bottom-up")
    return WorldCoordinates()


def drizzle_forecast(
    frames: FrameSet | str | Path | list,
    registered: Integration | FrameSet | str | Path | list | None = None,
    recipe: DrizzleRecipe | None = None,
    *,
    geometry: str | Path | None = None,
    whole: bool = False,
) -> Forecast:
    """Predict what drizzling frames will give, without reading more of them than their stars.

    Parameters
    ----------
    frames : FrameSet, str, Path or list
        At least 3 calibrated frames that are not registered, as for `drizzle`.
    registered : Integration, FrameSet, str, Path or list, optional
        The registered frames or the result of their integration, beside which drizzle data may lie.
    recipe : DrizzleRecipe, optional
        Scale, drop, kernel, color filter pattern. Default is scale 1 and drop 0.9.
    geometry : str or Path, optional
        Where the geometry comes from, as for `drizzle`.
    whole : bool
        Count the samples on the whole grid, for a map of the coverage, in place of nine windows.

    Returns
    -------
    Forecast
        Samples for each pixel and color, holes, dither, FWHM against sampling, and a verdict in words:
        whether drizzling pays, and which scale and drop do.

    Raises
    ------
    FrameError
        If a frame or its geometry cannot be used.
    IntegrationError
        If fewer than 3 frames can be drizzled.
    """
    recipe = DrizzleRecipe() if recipe is None else recipe
    frames, sites = _opened(frames, recipe)
    known = registered
    if known is not None and not isinstance(known, Integration):
        known = _registered(known)
    located = _located(frames, sites, recipe, geometry, known)
    frames.close()
    return forecast(
        list(located.geometries.values()),
        sites,
        _grid(located, recipe),
        (frames.height, frames.width),
        located.fwhm,
        whole,
    )


def _opened(frames: FrameSet | str | Path | list, recipe: DrizzleRecipe) -> tuple[FrameSet, Sites]:
    frames, sites = open_unregistered(frames, recipe.pattern)
    refuse_few(frames)
    return frames, sites


def _registered(frames: FrameSet | str | Path | list) -> FrameSet:
    return frames if isinstance(frames, FrameSet) else open_frames(frames)


def _located(
    frames: FrameSet,
    sites: Sites,
    recipe: DrizzleRecipe,
    geometry: str | Path | None,
    registered: Integration | FrameSet | None,
) -> Located:
    """Find the geometry of the frames, by the stars of a result if it comes to stars."""
    own = registered if isinstance(registered, Integration) else None
    known = own.preparation.frames if own else registered
    assert known is None or isinstance(known, FrameSet)
    return locate(frames, sites, geometry, known, None if own is None else _stars(own), recipe.geometry_model)


def _grid(located: Located, recipe: DrizzleRecipe) -> Grid:
    first = next(iter(located.geometries.values()))
    return Grid(
        width=first.width, height=first.height, scale=recipe.scale, drop=recipe.drop, kernel=recipe.kernel
    )


def _drop(frame: Frame, geometry: Geometry, known: Known, i: int) -> Drop:
    factor, offset, weights = known.numbers[i]
    return Drop(
        pixels=frame,
        height=frame.height,
        width=frame.width,
        inverse=geometry.inverse,
        factor=factor,
        offset=offset,
        weights=weights,
        low=known.limits[0],
        high=known.limits[1],
        mask=known.masks.get(i),
        correction=known.corrections.get(i),
    )


def _stars(result: Integration) -> StarPlaces:
    """Return the stars of an integrated image, with the origin at the corner of the first pixel."""
    gray = np.where((result.coverage > 0).all(axis=0), result.original.mean(axis=0), np.nan)
    low = float(np.nanmin(gray)) if np.isfinite(gray).any() else 0.0
    return star_places((gray - low + 1).astype(np.float32)).moved(0.5, 0.5)


def _in_unit_range(frames: FrameSet) -> bool:
    return all(frame.integer or frame.path.suffix.lower() == ".xisf" for frame in frames)


def _notes(frames: FrameSet, located: Located, left_out: dict[int, str], expected: Forecast) -> list[str]:
    notes = list(located.notes)
    if left_out:
        shown = listed([f"{frames[i].name} ({why})" for i, why in left_out.items()], most=3)
        verb = "is" if len(left_out) == 1 else "are"
        notes.append(f"{counted(len(left_out), 'frame')} of {len(frames)} {verb} left out: {shown}")
    return [*notes, *expected.warnings]
