"""Write XISF files with the `xisf` package, completely or not at all."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stacklib.errors import SaveError
from stacklib.utils.atomic_files import new_file

__all__ = ["ascii_text", "write_image", "written"]

#: Types of samples that are written.
STORED = ("float32", "float64", "uint16")

_SPELT_OUT = str.maketrans(
    {"°": "deg", "µ": "u", "μ": "u", "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "–": "-", "—": "-", "’": "'"}
)
#: Codes of the ASCII characters that cannot be printed.
_CONTROL = (*range(32), 127)


def ascii_text(text: str, keep: str = "") -> str:
    """Convert text to printable ASCII: accents dropped, some symbols spelled out, the rest as ``\\u...``.

    The `xisf` package cannot read back its own files if the metadata are not ASCII.
    """
    plain = str(text)
    if not plain.isascii():
        plain = unicodedata.normalize("NFKD", plain.translate(_SPELT_OUT))
        plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
        plain = plain.encode("ascii", "backslashreplace").decode("ascii")
    return plain.translate({code: " " for code in _CONTROL if chr(code) not in keep})


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes the new file `path` at the end.

    Raises `SaveError` with the remedy if that exists or cannot be written. No partial file is left behind.
    """
    try:
        with new_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise _writing_error(path, error) from error


def _writing_error(path: Path, error: OSError) -> SaveError:
    if isinstance(error, FileExistsError):
        return SaveError(f"{path}: already exists; choose another name or move the file")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return SaveError(f"{path}: its folder does not exist; create the folder {path.parent} first")
    return SaveError(
        f"{path}: cannot be written ({error.strerror or error}); check the free space and the permissions of "
        f"{path.parent}, or choose another folder"
    )


def write_image(
    path: str | Path,
    image: np.ndarray,
    *,
    image_id: str,
    image_type: str = "MasterLight",
    keywords: Iterable[tuple[str, Any, str]] = (),
    properties: Mapping[str, Any] | None = None,
    compress: bool = False,
) -> Path:
    """Write one image to a new XISF file.

    Parameters
    ----------
    path : str or Path
        A new file in an existing folder.
    image : ndarray of float32, float64 or uint16, shape (channels, height, width) or (height, width)
        One or three channels. Stored planar and little-endian, floats with bounds 0:1.
    image_id : str
        XISF identifier of the image, such as ``integration``.
    image_type : str
        XISF image type, such as ``MasterLight`` or ``RejectionMapLow``.
    keywords : iterable of (name, value, comment)
        FITS keywords. Names may repeat (HISTORY).
    properties : dict, optional
        XISF properties: id -> value, or id -> (XISF type, value). None and NaN are skipped.
    compress : bool
        Compress the pixels with LZ4 and byte shuffling if that makes them smaller.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    SaveError
        If the file exists or cannot be written. No partial file is left behind.
    ValueError
        If the array has the wrong shape or type.
    """
    from xisf import XISF

    path = Path(path)
    image = np.asarray(image)
    image = image[np.newaxis] if image.ndim == 2 else image
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.dtype not in STORED:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, expected {', '.join(STORED)} (1 or 3, height, width)"
        )
    # The xisf package cannot write imageType. It writes the id as given, so that reserves the space.
    type_attribute = f'" imageType="{ascii_identifier(image_type)}'
    identifier = ascii_identifier(image_id)
    placeholder = identifier + "_" * len(type_attribute)
    metadata = {
        "id": placeholder,
        "FITSKeywords": _keyword_entries(keywords),
        "XISFProperties": _property_entries(properties or {}),
    }
    with written(path) as temporary:
        XISF.write(
            str(temporary),
            image.transpose(1, 2, 0),
            creator_app="stacklib",
            image_metadata=metadata,
            xisf_metadata={},
            codec="lz4hc" if compress else None,
            shuffle=compress,
        )
        _patch(temporary, placeholder, identifier + type_attribute)
    return path


def ascii_identifier(text: str) -> str:
    """Convert text to an XISF identifier: ASCII letters, digits and underscores."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in text)
    return plain if plain and not plain[0].isdigit() else "_" + plain


def _patch(path: Path, placeholder: str, final: str) -> None:
    with path.open("rb+") as stream:
        start = stream.read(16)
        header = stream.read(int.from_bytes(start[8:12], "little"))
        position = header.index(f'id="{placeholder}"'.encode()) + len('id="')
        stream.seek(16 + position)
        stream.write(final.encode())


def _keyword_entries(keywords: Iterable[tuple[str, Any, str]]) -> dict[str, list[dict[str, str]]]:
    entries: dict[str, list[dict[str, str]]] = {}
    for name, value, comment in keywords:
        name = ascii_text(name).strip().upper()
        if name in ("HISTORY", "COMMENT"):
            # PixInsight stores the text of these two in the comment.
            entry = {"value": "", "comment": ascii_text(comment or value)}
        else:
            entry = {"value": keyword_text(value), "comment": ascii_text(comment or "")}
        entries.setdefault(name, []).append(entry)
    return entries


def keyword_text(value: Any) -> str:
    """Format a value as a FITS keyword value."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int | float):
        return repr(value).upper()
    return "'" + ascii_text(str(value)).replace("'", "''") + "'"


def _property_entries(properties: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    entries = {}
    for name, given in properties.items():
        kind, value = given if isinstance(given, tuple) and len(given) == 2 else (None, given)
        value = value.item() if isinstance(value, np.generic) else value
        kind = kind or _property_type(value)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if kind == "Boolean":
            value = "true" if value else "false"
        elif isinstance(value, np.ndarray):
            value = value.astype(value.dtype.newbyteorder("<"))
        elif kind == "String" or not isinstance(value, int | float):
            value = ascii_text(str(value), keep="\n\t" if kind == "String" else "")
        name = ascii_text(name)
        entries[name] = {"id": name, "type": kind, "value": value}
    return entries


def _property_type(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim in (1, 2):
        letter = {"f": "F", "i": "I", "u": "UI"}[value.dtype.kind]
        return f"{letter}{8 * value.itemsize}{'Vector' if value.ndim == 1 else 'Matrix'}"
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, int):
        return "Int32" if -(2**31) <= value < 2**31 else "Int64"
    return "Float64" if isinstance(value, float) else "String"
