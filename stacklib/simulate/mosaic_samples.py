"""Simulated color mosaics with dither to try drizzling on: a small night made on first use, large ones."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from stacklib.errors import SaveError
from stacklib.simulate.mosaics import DitheredNight, simulate_dithered
from stacklib.simulate.night import Session
from stacklib.simulate.samples import new_truth
from stacklib.utils.file_sets import remove_tree
from stacklib.utils.package import VERSION, cache_folder

__all__ = ["large_mosaics", "make_large_mosaics", "mosaic_sample", "sample_mosaics"]

#: Text beside the truth of large mosaics.
TRUTH = """\
The truth of the frames. They are simulated.

truth.fits      the scene on the pixels of the reference, without sky, noise and outliers
truth_2x.fits   the same on a grid twice as fine, for a drizzle at scale 2
night.ecsv      one row for each frame: transparency (light relative to the scene), level of the sky, and the
                homography from the reference to the frame, with the origin at the corner of the first pixel

Everything else is in the night itself:

    from stacklib.simulate import large_mosaics
    night = large_mosaics({call})
"""


def sample_mosaics() -> DitheredNight:
    """Simulate 24 color mosaics (RGGB) of an undersampled spiral galaxy, with a good dither."""
    cards = {"GAIN": (120, "Camera gain setting"), "CCD-TEMP": (-10.0, "[degC] Sensor temperature")}
    session = Session(
        object_name="M106",
        camera="ZWO ASI294MC Pro",
        telescope="Refractor 60/360",
        exposure=120.0,
        start="2022-03-05T21:30:00",
        cadence=130.0,
        cards=cards,
    )
    return simulate_dithered(24, 160, 208, "galaxy", seed=106, fwhm=1.7, session=session)


def mosaic_sample() -> tuple[Path, bool]:
    """Return the folder of the frames of `sample_mosaics`, which are made if they are not there.

    It lies in the cache folder of stacklib, so that it can be deleted at any time.

    Returns
    -------
    folder : Path
        The folder, with ``3_Calibrated`` and ``4_Registered`` in it.
    made : bool
        Whether they were made now, which takes some seconds.

    Raises
    ------
    SaveError
        If they cannot be written.
    """
    home = cache_folder() / "samples" / VERSION
    folder = home / "M106"
    night = sample_mosaics()
    if _complete(folder, night.count):
        return folder, False
    try:
        home.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix="making-", dir=home))
        try:
            night.save(room, compress=False)
            # Somebody may have cleared a part of the cache.
            remove_tree(folder)
            os.replace(room, folder)  # noqa: PTH105 - as a whole
        except OSError:
            # Another process was first.
            if not _complete(folder, night.count):
                raise
        finally:
            remove_tree(room)
    except OSError as error:
        raise SaveError(
            f"{folder}: the simulated frames cannot be written there ({error.strerror or error}); set "
            "STACKLIB_CACHE to a folder that can be written, or give frames of your own"
        ) from error
    return folder, True


def _complete(folder: Path, count: int) -> bool:
    places = (("3_Calibrated", "xisf"), ("4_Registered", "xisf"), ("4_Registered", "xdrz"))
    return all(len(list((folder / name).glob(f"*.{ending}"))) == count for name, ending in places)


def large_mosaics(
    kind: str = "spiral", count: int = 20, seed: int = 1, *, height: int = 900, width: int = 1200
) -> DitheredNight:
    """Simulate large color mosaics with dither.

    Parameters
    ----------
    kind : {"galaxy", "spiral", "globular", "nebula", "field"}
        Target, see `make_scene`.
    count : int
        Number of frames.
    seed : int
        Random seed. The same seed gives the same pixels.
    height, width : int
        Size of the frames in pixels.

    Returns
    -------
    DitheredNight
        The night with its whole truth.
    """
    area = height * width
    return simulate_dithered(
        count,
        height,
        width,
        kind,
        seed,
        dither=12.0,
        cosmic_rays=area / 30_000,
        hot_pixels=area // 1500,
        session=Session(object_name=kind.capitalize(), exposure=180.0, cadence=185.0),
    )


def make_large_mosaics(
    folder: str | Path, night: DitheredNight, call: str = "", format: str = "xisf"
) -> tuple[Path, Path]:
    """Write a night of `large_mosaics` with its truth.

    Parameters
    ----------
    folder : str or Path
        Output folder: mosaics in ``3_Calibrated``, debayered and registered frames with drizzle data
        (``.xdrz``) in ``4_Registered``, all with 16 bit; truth in ``truth``.
    night : DitheredNight
        The night.
    call : str
        Arguments of `large_mosaics` for the text beside the truth.
    format : {"xisf", "fits"}
        Format of the frames.

    Returns
    -------
    calibrated, registered : Path
        The folders of the frames.

    Raises
    ------
    SaveError
        If `folder` has such folders already or the disk is too full.
    """
    calibrated, registered = Path(folder, "3_Calibrated"), Path(folder, "4_Registered")
    channels, height, width = night.scene.extended.shape
    size = 2 * night.count * (1 + channels) * height * width
    with new_truth(folder, size, calibrated, registered) as truth:
        paths, _ = night.save(folder, format)
        fits.writeto(truth / "truth.fits", night.truth().astype(np.float32))
        fits.writeto(truth / "truth_2x.fits", night.truth(2).astype(np.float32))
        columns = {
            "file": [path.name for path in paths],
            "transparency": night.transparency,
            "sky": night.sky,
            "matrix": night.matrices.reshape(night.count, 9),
        }
        Table(columns).write(truth / "night.ecsv")
        (truth / "README.txt").write_text(TRUTH.format(call=call), encoding="utf-8")
    return calibrated, registered
