"""The result of an integration."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path

from stacklib.output.integrated_image import IntegratedImage
from stacklib.output.report import report, summary
from stacklib.output.saved_files import SavedFiles
from stacklib.output.saving import save

__all__ = ["Integration"]


@dataclass(repr=False)
class Integration(IntegratedImage):
    """An integrated image and everything that belongs to it.

    Attributes
    ----------
    saved : SavedFiles or None
        Files written by the last `save`.

    See Also
    --------
    stacklib.output.integrated_image.IntegratedImage : Image, maps, tables and noise.
    """

    saved: SavedFiles | None = field(default=None, compare=False)

    @property
    def summary(self) -> str:
        """The result in three lines."""
        return summary(self)

    def report(self) -> str:
        """The result in a page of text; `save` writes it beside the images."""
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
    ) -> list[Path]:
        """Write the image and its rejection maps as XISF files, a table and a report.

        See `stacklib.output.saving.save` for the parameters. `saved` lists the table and the report, too.

        Returns
        -------
        list of Path
            The images: integration, rejection_low, rejection_high, and with `maps` coverage, uncertainty
            and slope; all of them as XISF, then all as FITS.
        """
        self.saved = save(self, folder, date=date, object=object, camera=camera, maps=maps, fits=fits)
        return list(self.saved.images)
