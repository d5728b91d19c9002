"""The result of an integration."""

from __future__ import annotations

import datetime
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from stacklib.errors import StacklibWarning
from stacklib.integration.noise import judged_rows
from stacklib.output.drizzle_data import about_drizzle_data
from stacklib.output.integrated_image import IntegratedImage
from stacklib.output.mask_files import masks_of, save_masks
from stacklib.output.naming import SavedFiles
from stacklib.output.report import report, summary
from stacklib.output.saving import save
from stacklib.output.sentences import noise_gap

__all__ = ["Integration"]


@dataclass(repr=False)
class Integration(IntegratedImage):
    """The result of `integrate`: the image with its maps and statistics, ready to be saved.

    Attributes
    ----------
    image : ndarray of float32, or float64 with `output_bits` 64, shape (channels, height, width)
        The combined image, in the units of the frames. 0 where no frame has data.
    rejection_low, rejection_high : ndarray of float32, shape (channels, height, width)
        Fraction of the frames whose sample was rejected as too low or too high. With `map_range_rejection`,
        samples outside `range_low` and `range_high` are included.
    coverage : ndarray of float32, shape (channels, height, width)
        Fraction of the frames with data at each pixel, saturated samples included.
    uncertainty : ndarray of float32, shape (channels, height, width)
        Standard error of the image, from the scatter of the samples that were kept; see
        `stacklib.kernel.uncertainty`. NaN where fewer than two samples have data, and for the
        combinations minimum and maximum.
    slope : ndarray of float32, shape (channels, height, width), or None
        ``atan(b) / (pi / 4)`` for the slope b of the fitted line per frame. Only for linear_fit.
    preparation : Preparation
        Frames, recipe, measurements, weights and normalization.
    region : tuple of int
        Integrated region: left, top, width, height.
    counts : list of Counts
        Number of rejected samples per frame, for each channel.
    range_factor, range_offset : float
        Rescaling by `output_range`, ``image = x * range_factor + range_offset``. 1 and 0 if there was none.
    truncated : int
        Number of values clipped by `output_range`, and of lone samples far beyond all others.
    shift : ndarray of float64, shape (frames, 2), or None
        Shift of each frame in x and y against the others, in pixels; NaN if it is not known. See
        `stacklib.integration.registration`.
    saved : SavedFiles or None
        Files written by the last `save`.
    how : str
        With `keep_samples`, which frames were added to those known before, or why all were integrated.

    Examples
    --------
    >>> result = sl.integrate("sample_data/M13/4_Registered")  # doctest: +SKIP
    >>> result.save("5_Integration")  # doctest: +SKIP
    """

    saved: SavedFiles | None = field(default=None, compare=False)
    how: str = field(default="", compare=False)

    @property
    def summary(self) -> str:
        """Summary in three lines: frames, rejection, noise. A fourth one says what `keep_samples` did."""
        how = f"\nintegrated with keep_samples: {self.how}" if self.how else ""
        return summary(self) + how

    def report(self) -> str:
        """Return the report as text. `save` writes it next to the images.

        Returns
        -------
        str
            Up to 100 columns wide.
        """
        return report(self)

    def save(
        self,
        folder: str | Path | None = None,
        *,
        date: str | datetime.date | None = None,
        object: str | None = None,
        camera: str | None = None,
        maps: bool = False,
        fits: bool = False,
        masks: bool = False,
        drizzle_data: bool = False,
    ) -> list[Path]:
        """Save the image and its rejection maps as XISF files, with a frame table and a report.

        The files are named ``<date>_<object>_<camera>_<number>.xisf``, ``..._rejection_low.xisf``,
        ``..._rejection_high.xisf``, ``..._frames.ecsv`` and ``..._report.txt``, with the first free number.
        Existing files are never overwritten, even if several programs save at the same time. If anything
        fails, none of the files remain.

        Parameters
        ----------
        folder : str or Path, optional
            Folder for the files, created if needed. Default is ``5_Integration`` next to the folder of the
            frames.
        date : str or date, optional
            Date in the file names, such as ``20210815``. Default is the evening of the earliest frame.
        object, camera : str, optional
            Target and camera in the file names. Default is the header of the frames. Also written to the
            new headers if the frames have none.
        maps : bool
            Also save coverage, uncertainty and, for linear_fit, slope.
        fits : bool
            Also save all images as FITS.
        masks : bool
            Also save what was rejected for its neighbors, in a folder ``..._masks``; see `save_masks`.
        drizzle_data : bool
            Also save drizzle data of the used frames in a folder ``drizzle``: the ``.xdrz`` files beside the
            frames, completed with location, scale, weights and rejection maps. The frames are read again.
            If the names are taken, the folder is ``drizzle_<number>``.

        Returns
        -------
        list of Path
            The images: integration, rejection_low, rejection_high, and with `maps` coverage, uncertainty
            and slope. First all as XISF, then all as FITS. `saved` also has the table and the report.

        Raises
        ------
        RecipeError
            If `date` is not a date, or drizzle data are asked for of a region.
        SaveError
            If the files cannot be written.

        Warns
        -----
        StacklibWarning
            For what drizzle data cannot hold. If the noise is far above what the frames allow, with the
            likely reason, or the range of an image in ADU had to be changed much.

        Notes
        -----
        XISF images have the range 0 to 1. If the frames are in ADU, the image is divided by their full scale,
        usually 65535, and brought into that range by `output_range`; FITS images remain in ADU. 0 means no
        data in all files, also where the uncertainty is unknown.
        """
        judged = judged_rows(self.preparation, self.masks) if drizzle_data else None
        self.saved = save(
            self,
            folder,
            date=date,
            object=object,
            camera=camera,
            maps=maps,
            fits=fits,
            masks=masks,
            judged=judged,
        )
        for note in about_drizzle_data(self.preparation) if drizzle_data else []:
            warnings.warn(note, StacklibWarning, stacklevel=2)
        gap = noise_gap(self)
        if gap:
            warnings.warn(gap, StacklibWarning, stacklevel=2)
        return list(self.saved.images)

    def save_masks(self, folder: str | Path) -> list[Path]:
        """Save what was rejected for its neighbors, a mask for each frame, all or none.

        The masks are FITS files named ``FRAME_mask.fits``, compressed, of the size of the frames. A sample of
        which nothing is rejected is 0. The bits of the others tell by which means, as the header says. The
        parameter `masks` reads such a folder again, with every value other than 0 as rejected.

        Parameters
        ----------
        folder : str or Path
            Folder for the files, created if needed.

        Returns
        -------
        list of Path
            The files. Frames without masked samples have none.

        Raises
        ------
        SaveError
            If a file exists or cannot be written.
        """
        return save_masks(folder, masks_of(self), self.preparation.frames)
