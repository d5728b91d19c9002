"""The result of drizzling."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from stacklib.drizzle.image import DrizzledImage
from stacklib.drizzle.saving import save

__all__ = ["Drizzled"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Drizzled(DrizzledImage):
    """The result of `drizzle`.

    Attributes
    ----------
    image : ndarray of float32, shape (channels, height, width)
        The image, in the units of the frames. 0 where no sample falls.
    weights : ndarray of float32, shape (channels, height, width)
        Sum of the weights of the samples in each pixel: the area of their drops in it, relative to a drop,
        times the weights of their frames. 0 where no sample falls.
    frames : FrameSet
        The unregistered frames.
    used : ndarray of int
        Numbers of those that were deposited.
    left_out : dict of int to str
        Why the others were not.
    geometries : dict of int to Geometry
        Geometry of the frames that have one.
    numbers : dict of int to ndarray
        Factor, offset and weight of each channel, float64 (3, channels), of the frames used.
    recipe : DrizzleRecipe
        The parameters.
    grid : Grid
        The grid.
    sites : Sites
        The colors of the pixels of the frames.
    forecast : Forecast
        What was predicted.
    rule : str
        The rejection rule whose verdicts were used.
    integration_recipe : Recipe or None
        Recipe of the integration that found them.
    notes : tuple of str
        What was warned of.
    range_factor, range_offset : float
        Rescaling into the range 0 to 1, ``image = x * range_factor + range_offset``.
    truncated : int
        Number of values that were clipped.
    twins : dict of int to str
        Names of the registered frames that were given, by number of the unregistered one.
    preparation : Preparation or None
        That of the integration of registered frames that were given.
    masks : FrameMasks or None
        What its spatial rejection took.
    data : dict of int to DrizzleData
        Drizzle data of PixInsight from which numbers and rejected samples were taken.
    world : WorldCoordinates
        World coordinates of the grid.
    """

    def save(
        self,
        folder: str | Path | None = None,
        *,
        date: str | datetime.date | None = None,
        object: str | None = None,
        camera: str | None = None,
        fits: bool = False,
        drizzle_data: bool = False,
    ) -> list[Path]:
        """Save the image and its weights as XISF files, with a frame table and a report.

        The files are named ``<date>_<object>_<camera>_<number>_drizzle.xisf``, ``..._drizzle_weights.xisf``,
        ``..._drizzle_frames.ecsv`` and ``..._drizzle_report.txt``, with the first free number. Existing files
        are never overwritten. If anything fails, none of the files remain.

        Parameters
        ----------
        folder : str or Path, optional
            Folder for the files. Default is ``5_Integration`` next to the folder of the frames.
        date : str or date, optional
            Date in the file names. Default is the evening of the earliest frame.
        object, camera : str, optional
            Target and camera in the file names. Default is the header of the frames.
        fits : bool
            Also save both as FITS.
        drizzle_data : bool
            Also save drizzle data, an ``.xdrz`` file for each frame, with the geometry that was used, in a
            folder ``drizzle``. Registered frames must have been given.

        Returns
        -------
        list of Path
            The image and the weights, first as XISF, then as FITS.

        Raises
        ------
        RecipeError
            If `date` is not a date, or drizzle data are asked for without registered frames.
        SaveError
            If the files cannot be written.

        Notes
        -----
        The image holds the record of the run: `stacklib.rerun` repeats it. World coordinates are those of the
        reference, on the finer grid. XISF images have the range 0 to 1; FITS images keep ADU.
        """
        return save(
            self, folder, date=date, object=object, camera=camera, fits=fits, drizzle_data=drizzle_data
        )
