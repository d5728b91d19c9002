"""Names of trails: the file name of their frame and their ends, which stay when other trails are found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from stacklib.errors import RecipeError
from stacklib.utils.labels import quoted

__all__ = ["TrailName"]

#: The file name, a colon, and x and y of both ends in pixels. Names in one text are separated by commas.
_NAME = re.compile(
    r"\s*(?P<frame>.+?):(?P<x0>\d{1,6}),(?P<y0>\d{1,6})-(?P<x1>\d{1,6}),(?P<y1>\d{1,6})\s*(?:,|$)"
)


class TrailName(NamedTuple):
    """Name of a trail: file name of its frame, and its ends in whole pixels.

    >>> str(TrailName("light_007.xisf", 12, 30, 300, 150))
    'light_007.xisf:12,30-300,150'
    """

    frame: str
    x0: int
    y0: int
    x1: int
    y1: int

    def __str__(self) -> str:
        return f"{self.frame}:{self.place}"

    @property
    def place(self) -> str:
        """The ends alone."""
        return f"{self.x0},{self.y0}-{self.x1},{self.y1}"

    @classmethod
    def at(cls, frame: str, ends: Iterable[float]) -> TrailName:
        """Name a trail of a frame by x and y of both ends."""
        x0, y0, x1, y1 = (max(0, round(float(place))) for place in ends)
        return cls(frame, x0, y0, x1, y1)

    @classmethod
    def read(cls, texts: str | list[str], parameter: str) -> list[TrailName]:
        """Read names. Raises `RecipeError`, which names the parameter, for what is none."""
        found = []
        for text in [texts] if isinstance(texts, str) else texts:
            names = list(_NAME.finditer(text))
            if "".join(match[0] for match in names).strip() != text.strip():
                raise RecipeError(
                    f"{parameter}: got {quoted(text)}, expected file name and ends of a trail as in the "
                    "report, such as light_007.xisf:12,30-300,150"
                )
            for match in names:
                x0, y0, x1, y1 = (int(match[end]) for end in ("x0", "y0", "x1", "y1"))
                found.append(cls(match["frame"], x0, y0, x1, y1))
        return found
