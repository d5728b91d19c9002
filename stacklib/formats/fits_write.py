"""Write FITS images, completely or not at all.

Astropy is imported when something is written: what reads FITS images mostly does without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.formats.fits_header import CARD, astropy_alone
from stacklib.formats.xisf_write import ascii_text, written

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["unwritable", "write_image", "write_mask"]


#: A keyword: name, value and comment.
Card = tuple[str, Any, str]
#: Rows of a mask that are compressed together.
MASK_ROWS = 64


def write_image(
    path: str | Path, image: np.ndarray, keywords: Iterable[Card] = (), *, row_order: str = "top-down"
) -> Path:
    """Write one image to a new FITS file.

    Parameters
    ----------
    path : str or Path
        A new file in an existing folder.
    image : ndarray of float32 or float64, shape (channels, height, width) or (height, width)
        Stored with BITPIX -32 or -64. A single channel is stored with two axes.
    keywords : iterable of (name, value, comment)
        Names may repeat (HISTORY). Structural keywords (NAXIS, BZERO, ...) and those that FITS cannot hold
        are skipped, see `unwritable`.
    row_order : str, optional
        ``top-down`` or ``bottom-up``, as the rows are in `image`, or an empty string for unknown.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SaveError
        If the file exists or cannot be written. No partial file is left behind.
    ValueError
        If the array is not an image.
    """
    from astropy.io import fits

    path = Path(path)
    image = np.asarray(image)
    if image.dtype != np.float64:
        image = image.astype(np.float32, copy=False)
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}, expected (channels, height, width)")
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    with written(path) as temporary, astropy_alone():
        unit = fits.PrimaryHDU(image, _header_to_write(keywords, row_order))
        unit.writeto(temporary, overwrite=True, output_verify="silentfix+ignore")
    return path


def write_mask(
    path: str | Path, mask: np.ndarray, keywords: Iterable[Card] = (), *, row_order: str = ""
) -> Path:
    """Write a mask to a new FITS file, compressed in tiles with gzip, which most programs read.

    Parameters
    ----------
    path : str or Path
        A new file in an existing folder.
    mask : ndarray of uint8, shape (channels, height, width)
        A single channel is stored with two axes.
    keywords, row_order : optional
        See `write_image`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SaveError
        If the file exists or cannot be written. No partial file is left behind.
    """
    from astropy.io import fits

    path = Path(path)
    pixels = mask[0] if len(mask) == 1 else mask
    rows = min(MASK_ROWS, pixels.shape[-2])
    tile = (*(1,) * (pixels.ndim - 2), rows, pixels.shape[-1])
    with written(path) as temporary, astropy_alone():
        header = _header_to_write(keywords, row_order)
        unit = fits.CompImageHDU(pixels, header, name="MASK", compression_type="GZIP_1", tile_shape=tile)
        fits.HDUList([fits.PrimaryHDU(), unit]).writeto(temporary, overwrite=True)
    return path


#: Keywords that this module or astropy writes.
STRUCTURAL = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|EXTEND|BZERO|BSCALE|BLANK|END|XTENSION|[PG]COUNT|CONTINUE|ROWORDER|GROUPS|THEAP"
    r"|T(FIELDS|FORM|TYPE|UNIT|DIM)\d*|CHECKSUM|DATASUM|"
)
#: Names that FITS can hold, the longer ones and those of several words as HIERARCH.
NAME = re.compile(r"(HIERARCH )?[A-Z0-9_-]+( [A-Z0-9_-]+)*")


def unwritable(keywords: Iterable[Card]) -> dict[str, str]:
    """Return the names of keywords that FITS cannot hold, with the reason.

    Examples
    --------
    >>> unwritable([("GAIN", 100, ""), ("SLOPE", float("inf"), "")])
    {'SLOPE': 'Floating point inf values are not allowed in FITS headers.'}
    """
    with astropy_alone():
        tried = [
            (name, _card(name, value, comment))
            for name, value, comment in keywords
            if not STRUCTURAL.fullmatch(ascii_text(name).strip().upper())
        ]
    return {name: card for name, card in tried if isinstance(card, str)}


def _card(name: str, value: Any, comment: str) -> fits.Card | str:
    """Return a card, or the reason why FITS cannot hold it."""
    from astropy.io import fits
    from astropy.io.fits.verify import VerifyError

    name = ascii_text(name).strip().upper()
    if not NAME.fullmatch(name):
        return "FITS allows letters, digits, - and _ in names"
    value = value.item() if isinstance(value, np.generic) else value
    value = ascii_text(value) if isinstance(value, str) else value
    try:
        card = fits.Card(name, value, ascii_text(comment or ""))
        # Some cards fail only now, such as a long text under a long name with astropy 6.
        image = str(card)
        if fits.Card.fromstring(image).keyword != card.keyword:
            return f"it would be read as {image[:CARD]!r}"
    except (ValueError, TypeError, OverflowError, VerifyError) as error:
        return str(error)
    return card


def _header_to_write(keywords: Iterable[Card], row_order: str) -> fits.Header:
    from astropy.io import fits

    header = fits.Header()
    for name, value, comment in keywords:
        name = ascii_text(name).strip().upper()
        if STRUCTURAL.fullmatch(name):
            continue
        if name in ("HISTORY", "COMMENT"):
            header[name] = ascii_text(comment or value)
            continue
        card = _card(name, value, comment)
        if isinstance(card, fits.Card):
            header[name] = (card.value, card.comment)
    if row_order:
        header["ROWORDER"] = (row_order.upper(), "order of the rows in this file")
    return header
