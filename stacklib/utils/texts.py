"""Text from headers, file names and settings, made harmless for the place where it is shown.

Such text may hold anything: escape sequences that command a terminal, marks that turn the direction of
writing, line breaks that end a row of a table, bytes that are not UTF-8. For file names see
`stacklib.output.naming`, for HISTORY and properties `stacklib.formats.xisf_write.ascii_text`. Errors and
warnings are printable by themselves.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stacklib.errors import HIDDEN, printable

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "FORMULAS",
    "HIDDEN",
    "ecsv",
    "no_formula",
    "one_line",
    "path_from_utf8",
    "printable",
    "printable_table",
    "utf8_path",
]

#: What a cell of a spreadsheet begins with that is computed.
FORMULAS = ("=", "+", "-", "@", "\t")


def one_line(text: str) -> str:
    r"""Return a text without line breaks, otherwise as `printable`.

    Examples
    --------
    >>> one_line("a\nb")
    'a\\nb'
    """
    return printable(text, keep="")


def printable_table(table: Table) -> Table:
    """Return a copy of a table with its text, that of `meta` included, as by `one_line`."""
    # Whoever has a table has imported it; everyone else does without.
    from astropy.table import MaskedColumn

    found = table.copy()
    for name in table.colnames:
        column = table[name]
        if column.dtype.kind == "U":
            texts = np.array([one_line(text) for text in np.ma.getdata(column).tolist()], dtype=str)
            found[name] = MaskedColumn(texts, mask=column.mask) if isinstance(column, MaskedColumn) else texts
    found.meta = _harmless(table.meta)
    return found


def _harmless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_harmless(name): _harmless(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_harmless(inner) for inner in value]
    return one_line(value) if isinstance(value, str) else value


def ecsv(table: Table) -> bytes:
    """Return a table as ECSV in UTF-8, whatever the encoding of the system and the text in the table."""
    stream = io.StringIO()
    printable_table(table).write(stream, format="ascii.ecsv")
    return stream.getvalue().encode("utf-8")


def no_formula(text: str) -> str:
    """Return a text that a spreadsheet shows and does not compute, as it would what begins with ``=``.

    Examples
    --------
    >>> no_formula("=1+1"), no_formula("M31")
    ("'=1+1", 'M31')
    """
    return f"'{text}" if text.startswith(FORMULAS) else text


def utf8_path(path: str) -> str:
    """Return a path for a program that takes UTF-8, whatever the encoding of the system.

    Raises
    ------
    ValueError
        If the name is not UTF-8 on the disk either.
    """
    return os.fsencode(path).decode("utf-8")


def path_from_utf8(path: str) -> str:
    """Return a path from a program that writes UTF-8 as this process knows it."""
    return os.fsdecode(path.encode("utf-8"))
