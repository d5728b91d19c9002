"""Text from headers, file names and settings, made harmless for the place where it is shown.

Such text may hold anything: escape sequences that command a terminal, marks that turn the direction of
writing, line breaks that end a row of a table, bytes that are not UTF-8. For file names see
`stacklib.output.naming`, for HISTORY and properties `stacklib.formats.xisf_write.ascii_text`.
"""

from __future__ import annotations

import re

__all__ = ["one_line", "printable"]

#: Control characters, marks of direction, line and paragraph separators, and halves of characters, which
#: stand for bytes of a file name that are not UTF-8.
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Return a text with everything that is not a visible character written as ``\x1b``, except for `keep`.

    The result can be encoded as UTF-8, and neither commands a terminal nor turns the direction of writing.

    Examples
    --------
    >>> printable("M\x1b[31m31")
    'M\\x1b[31m31'
    """
    return _HIDDEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def one_line(text: str) -> str:
    r"""Return a text without line breaks, otherwise as `printable`.

    Examples
    --------
    >>> one_line("a\nb")
    'a\\nb'
    """
    return printable(text, keep="")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
