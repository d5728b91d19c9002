"""The means by which a sample can fall to its neighborhood: one flag and one set of names for each.

A mask of a frame is a plane of uint8, 0 for samples that stay. Others have the flags of all means that found
them, and `ABOVE` if they lie above the other frames. Masks, maps, tables, reports and files use these names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "ABOVE",
    "COLOUR",
    "FOOTPRINT",
    "LARGE_HIGH",
    "LARGE_LOW",
    "LINE",
    "MEANS",
    "OWN",
    "Means",
    "describe",
    "means_of",
]

#: Flags of the means.
LARGE_LOW, LARGE_HIGH, FOOTPRINT, LINE, COLOUR, OWN = 1, 2, 4, 8, 16, 32
#: The sample lies above the others and counts as rejected high, otherwise as rejected low.
ABOVE = 64


@dataclass(frozen=True)
class Means:
    """One means of spatial rejection.

    Attributes
    ----------
    name : str
        Short name, for code and files.
    flags : int
        Its flags in a mask; both sides of large-scale rejection are one means.
    words : str
        What it finds, in words, such as ``trail``.
    column : str
        Column of the frame table with the fraction of samples that fell to it.
    setting : str
        Parameter of a recipe that switches it on; ``large_scale`` for both sides of it.
    """

    name: str
    flags: int
    words: str
    column: str
    setting: str

    def found(self, flags: np.ndarray) -> np.ndarray:
        """Return where a mask has a flag of this means, bool, same shape."""
        return (flags & np.uint8(self.flags)) != 0


#: All means. A sample that several of them found counts for the first one.
MEANS = (
    Means("own", OWN, "your mask", "rejected_mask", "masks"),
    Means("line", LINE, "trail", "rejected_trail", "footprints"),
    Means("footprint", FOOTPRINT, "footprint", "rejected_footprint", "footprints"),
    Means(
        "large_scale",
        LARGE_LOW | LARGE_HIGH,
        "large-scale structure",
        "rejected_large_scale",
        "large_scale",
    ),
    Means("colour", COLOUR, "color of a hit", "rejected_colour", "joint_colour"),
)


def means_of(flags: int) -> list[Means]:
    """Return the means that found a sample with these flags.

    >>> [means.name for means in means_of(LINE | FOOTPRINT | ABOVE)]
    ['line', 'footprint']
    """
    return [means for means in MEANS if flags & means.flags]


def describe(flags: int) -> str:
    """Return the means that found a sample, in words; empty for none.

    >>> describe(LINE | FOOTPRINT | ABOVE)
    'trail and footprint'
    """
    return " and ".join(means.words for means in means_of(flags))
