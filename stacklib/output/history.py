"""HISTORY of a saved image: parameters and frames."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from stacklib.formats.xisf_write import ascii_text
from stacklib.output.integrated_image import IntegratedImage
from stacklib.output.provenance import Provenance
from stacklib.output.sentences import trail_in_words
from stacklib.spatial.means import MEANS

__all__ = ["changes_in_words", "history", "plain", "range_in_words", "range_warnings"]

#: Longest HISTORY line: 80 columns of a card minus the keyword.
WIDTH = 72
#: A value of less fits into the line with its name.
SHORT = 48
#: Rescaling by less than this is worth a warning.
DARKENED = 0.25


def history(result: IntegratedImage, facts: Provenance, more: Iterable[str] = ()) -> list[str]:
    """Describe a run in lines of up to 72 ASCII characters: parameters, frames, and why frames were left out.

    `more` describes further changes to the image.
    """
    wrapper = textwrap.TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return [line for text in _history(result, facts, more) for line in wrapper.wrap(ascii_text(text)) or [""]]


def _history(result: IntegratedImage, facts: Provenance, more: Iterable[str]) -> Iterator[str]:
    p = result.preparation
    yield f"stacklib {version('stacklib')}: integration of {p.count} of {len(p.frames)} frames"
    yield f"rejection rule: {result.rule}"
    for name, value in result.recipe.to_dict().items():
        yield f"{name} = {plain(value)}"
    yield f"reference frame: {p.measurements.names[p.reference]}"
    if result.region != (0, 0, p.frames.width, p.frames.height):
        yield "region: left {}, top {}, width {}, height {}".format(*result.region)
    yield from range_in_words(result)
    yield from more
    yield from facts.world.notes
    for name, words in facts.differing.items():
        yield f"{name} differs: {words}"
    if facts.without_exposure:
        yield f"frames that do not tell their exposure, not included in EXPTIME: {facts.without_exposure}"
    trails: dict[str, list[str]] = {}
    for trail in result.trails:
        words = f"  trail {trail['number']}: {trail_in_words(trail)}; {trail['name'].rpartition(':')[2]}"
        trails.setdefault(trail["file"], []).append(words)
    position = {int(i): k for k, i in enumerate(p.used)}
    for i, name in enumerate(p.measurements.names):
        yield f"frame {i + 1}: {name}"
        yield f"sha256 {facts.checksums[i] or 'unknown: the file is missing or has changed'}"
        yield from _frame_in_words(result, i, position.get(i))
        yield from trails.get(name, [])


def _frame_in_words(result: IntegratedImage, i: int, k: int | None) -> Iterator[str]:
    p = result.preparation
    for name, values in (("weight", p.weights), ("scale", p.scale), ("offset", p.offset)):
        yield f"  {name} " + " ".join(f"{value:.9g}" for value in values[i])
    if k is None:
        yield f"  left out: {p.excluded[i]}"
        return
    for name in ("low", "high", "range_low", "range_high"):
        counts = [int(getattr(c, name)[k]) for c in result.counts]
        if any(counts) or not name.startswith("range"):
            yield f"  rejected {name.replace('_', ' ')} " + " ".join(map(str, counts))
    for means in MEANS:
        counts = [int(counted.by_means()[means.name][k]) for counted in result.mask_counts]
        if any(counts):
            yield f"  rejected as {means.words} " + " ".join(map(str, counts))
    yield "  samples with data " + " ".join(str(int(c.data[k])) for c in result.counts)


def range_in_words(result: IntegratedImage) -> list[str]:
    """Describe how the image was brought into the range 0 to 1. Empty if it was not changed."""
    scaling = (result.range_factor, result.range_offset)
    return [f"output range: {words}" for words in changes_in_words(*scaling, result.truncated)]


def changes_in_words(factor: float, offset: float, truncated: int) -> list[str]:
    """Describe the changes by `stacklib.output.integrated_image.bring_into_range`."""
    words = []
    if (factor, offset) != (1.0, 0.0):
        words.append(f"rescaled as x * {factor:.9g} + {offset:.9g}")
    if truncated:
        outside = "outside the others" if words else "outside 0 to 1"
        words.append(f"{truncated} values {outside} were clipped")
    return words


def range_warnings(factor: float, truncated: int, how: str) -> list[str]:
    """Return warnings about changes to the range that alter the look of an image; `how` is output_range."""
    notes = []
    if truncated and how == "rescale":
        notes.append(
            f"{truncated} values lie far outside all others, probably hot pixels or cosmic rays that "
            "rejection kept; they were clipped, because rescaled to them the image would be black."
        )
    if factor < DARKENED:
        notes.append(
            f"The image was multiplied by {factor:.3g} to bring its brightest values into the range 0 to 1, "
            "so its sky is that much darker than in the frames; output_range truncate keeps the level."
        )
    return notes


def plain(value: Any) -> str:
    """Return a value of a parameter as it stands in the HISTORY."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        text = json.dumps(value, separators=(",", ":"))
        # A line may break at a space, and end without one.
        return text if len(text) < SHORT else text.replace(" ", "\\u0020")
    return repr(value) if isinstance(value, float) else str(value) if value != "" else "''"
